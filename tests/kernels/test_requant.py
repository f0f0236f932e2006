"""Requantisers: by scale in every rounding mode, and by thresholds."""

import math
from fractions import Fraction

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.requant import CONSTANT, ScaleRequantizer, ThresholdRequantizer, narrowed
from hypothesis import example, given
from hypothesis import strategies as st

ROUNDINGS = ["half_even", "half_up", "half_away", "floor"]
CODES_16 = (-(2**15), 2**15 - 1)


def requantise(requantizer, terms, zero_point=0, low=CODES_16[0], high=CODES_16[1]):
    """Terms (value, multiplier, shift), each in a channel of its own."""
    values, multiplier, shift = (np.array(column) for column in zip(*terms, strict=True))
    requantizer.check(multiplier, shift)
    codes, overflows = requantizer.compute(values.reshape(1, -1, 1), multiplier, shift, zero_point, low, high)
    assert codes.dtype == np.int16
    return list(zip(codes.reshape(-1).tolist(), overflows.tolist(), strict=True))


def expected_codes(reference, terms, rounding, zero_point=0, low=CODES_16[0], high=CODES_16[1]):
    return [reference.requantised(*term, rounding, zero_point, low, high) for term in terms]


@st.composite
def scale_terms(draw, value_bits, multiplier_bits, shifts):
    """A term whose quotient is often a code, and often a tie or one beside it."""
    bits = draw(st.integers(1, value_bits - 1))
    multiplier = draw(st.one_of(st.integers(0, 2**multiplier_bits - 1), st.sampled_from([1, 2**multiplier_bits - 1])))
    if draw(st.booleans()):
        multiplier = 2 ** draw(st.integers(0, multiplier_bits - 1)) * draw(st.sampled_from([1, 1, 3]))
        multiplier = min(multiplier, 2**multiplier_bits - 1)
    value = draw(st.integers(-(2**bits), 2**bits - 1))
    low, high = shifts
    # The shift that brings the product to about 12 bits, or any.
    near = (abs(value) * multiplier).bit_length() - draw(st.integers(0, 14))
    shift = draw(st.one_of(st.just(min(high, max(low, near))), st.integers(low, high)))
    if draw(st.booleans()) and multiplier and shift:
        # Beside the tie: value * multiplier as near as it comes to (n + 1/2) * 2**shift.
        tie = (2 * draw(st.integers(-3000, 3000)) + 1) * 2 ** (shift - 1)
        limit = 2 ** (value_bits - 1)
        value = min(limit - 1, max(-limit, tie // multiplier + draw(st.integers(-1, 1))))
    return value, multiplier, shift


@pytest.mark.parametrize("multiplier_bits", [16, 24, 31])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(data=st.data(), in_bits=st.sampled_from([12, 20, 32, 34, 40, 48, 56]))
def test_any_value_is_scaled_as_the_reference_scales_it(reference, data, rounding, multiplier_bits, in_bits):
    terms = data.draw(st.lists(scale_terms(in_bits, multiplier_bits, (0, 62)), min_size=1, max_size=12))
    zero_point = data.draw(st.integers(-300, 300))
    low, high = sorted(data.draw(st.tuples(st.integers(*CODES_16), st.integers(*CODES_16))))
    found = requantise(ScaleRequantizer(in_bits, multiplier_bits, rounding), terms, zero_point, low, high)
    assert found == expected_codes(reference, terms, rounding, zero_point, low, high)
    free = requantise(ScaleRequantizer(in_bits, multiplier_bits, rounding), terms)
    assert free == expected_codes(reference, terms, rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("shift", range(63))
def test_every_shift_rounds_ties_and_their_neighbours_of_both_signs(reference, rounding, shift):
    # multiplier 2**e: value * 2**e / 2**shift ties wherever the value allows; up to 87-bit products.
    terms = []
    for exponent in {0, min(shift, 12), min(shift, 30), max(0, shift - 33), max(0, shift - 40)}:
        if exponent > 30:
            continue
        step = 2 ** (shift - exponent) if shift > exponent else 1
        for n in (-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 101, -102):
            for beside in (-1, 0, 1):
                value = n * step + step // 2 + beside
                if -(2**55) <= value < 2**55:
                    terms.append((value, 2**exponent, shift))
    assert len(terms) > 30
    assert requantise(ScaleRequantizer(56, 31, rounding), terms) == expected_codes(reference, terms, rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_short_and_two_limb_products_meet_the_others_without_a_seam(reference, rounding):
    ends = [2**30 - 1, 2**30, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 - 1, 2**33, 2**55 - 1]
    values = [*ends, *(-value for value in ends), -(2**55)]
    multipliers = [1, 3, 2**16, 2**30, 2**31 - 1]
    terms = [(v, m, s) for v in values for m in multipliers for s in range(63)]
    expected = expected_codes(reference, terms, rounding)
    assert requantise(ScaleRequantizer(56, 31, rounding), terms) == expected
    inside = [code for code, _ in expected if CODES_16[0] < code < CODES_16[1]]
    assert len(set(inside)) > 50  # not all of them clamp


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_tie_of_an_87_bit_product_is_a_tie_and_one_beside_it_is_not(reference, rounding):
    terms = []
    for shift in (40, 45, 50, 55, 60, 62):
        for n in (-4, -3, 0, 1, 2, 3, 8):
            value = (2 * n + 1) * 2 ** (shift - 10)
            if abs(value) < 2**55:
                terms += [(value + beside, 2**9, shift) for beside in (-1, 0, 1)]
    assert any(abs(value) >= 2**32 and (value * m) % 2**s == 2 ** (s - 1) for value, m, s in terms)
    assert requantise(ScaleRequantizer(56, 24, rounding), terms) == expected_codes(reference, terms, rounding)


def test_rounding_modes_differ_on_ties_alone():
    values = [-5, -3, -1, 1, 3, 5]
    found = {
        rounding: [code for code, _ in requantise(ScaleRequantizer(8, 16, rounding), [(v, 1, 1) for v in values])]
        for rounding in ROUNDINGS
    }
    assert found == {
        "half_even": [-2, -2, 0, 0, 2, 2],
        "half_up": [-2, -1, 0, 1, 2, 3],
        "half_away": [-3, -2, -1, 1, 2, 3],
        "floor": [-3, -2, -1, 0, 1, 2],
    }


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_far_quotients_clamp_on_their_own_side(rounding):
    terms = [(v, 2**31 - 1, s) for v in (2**55 - 1, -(2**55)) for s in range(30)]
    codes = [code for code, _ in requantise(ScaleRequantizer(56, 31, rounding), terms, 60000, -128, 127)]
    assert codes == [127] * 30 + [-128] * 30


def test_a_relu_is_a_clamp_at_the_zero_point(reference):
    terms = [(v, 3, 2) for v in range(-20, 21)]
    found = requantise(ScaleRequantizer(8, 16, "half_even", 4, False), terms, zero_point=3, low=3, high=15)
    assert found == expected_codes(reference, terms, "half_even", 3, 3, 15)
    assert {code for code, _ in found} == set(range(3, 16))


# TFLite


@given(terms=st.lists(scale_terms(56, 31, (31, 62)), min_size=1, max_size=12), zero_point=st.integers(-128, 127))
@example(terms=[(-(2**31), 2**31 - 1, 31), (2**31 - 1, 2**31 - 1, 31), (2**31, 1, 31)], zero_point=0)
def test_tflite_rounds_twice_as_gemmlowp_does(reference, terms, zero_point):
    found = requantise(ScaleRequantizer(56, 31, "tflite"), terms, zero_point)
    assert found == expected_codes(reference, terms, "tflite", zero_point)


@pytest.mark.parametrize("shift", range(31, 63))
def test_tflite_rounds_both_its_ties_as_gemmlowp_does(reference, shift):
    terms = []
    for n in (-7, -6, -5, -2, -1, 0, 1, 2, 5, 6, 7):
        for beside in (-2, -1, 0, 1, 2):
            # Ties of the first rounding (multiplier 2**30: value odd) and of the second.
            value = (2 * n + 1) * 2 ** (shift - 31) + beside
            if abs(value) < 2**31:
                terms += [(value, 2**30, shift), (value, 2**30 + 1, shift), (value, 2**31 - 1, shift)]
    assert requantise(ScaleRequantizer(33, 31, "tflite"), terms) == expected_codes(reference, terms, "tflite")


def test_tflite_differs_from_one_rounding_where_it_rounds_twice(reference):
    # 5 * 2**30 / 2**31 = 2.5 -> 3, then 3 / 2 -> 2; in one step 1.25 -> 1.
    assert requantise(ScaleRequantizer(32, 31, "tflite"), [(5, 2**30, 32)]) == [(2, 0)]
    assert requantise(ScaleRequantizer(32, 31, "half_away"), [(5, 2**30, 32)]) == [(1, 0)]


def test_tflite_saturates_the_value_to_32_bits_and_counts_it_by_channel(reference):
    limits = [-(2**31) - 1, -(2**31), 0, 2**31 - 1, 2**31, 2**48]
    values = np.array([limits, [0] * 6, limits[::-1]]).reshape(1, 3, 6).repeat(2, axis=0)
    codes, overflows = ScaleRequantizer(56, 31, "tflite").compute(
        values, np.full(3, 2**30), np.full(3, 48), 0, *CODES_16
    )
    assert overflows.tolist() == [6, 0, 6]  # three of six, in each of two images
    expected = [reference.requantised(v, 2**30, 48, "tflite", 0, *CODES_16)[0] for v in limits]
    assert codes[1, 0].tolist() == expected
    assert expected[:2] == [-8192, -8192]


def test_other_roundings_saturate_nothing_and_count_nothing():
    _, overflows = ScaleRequantizer(56).compute(np.full((1, 2, 4), 2**50), np.ones(2), np.zeros(2), 0, *CODES_16)
    assert overflows.tolist() == [0, 0]


# Shapes and errors


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 5), (0, 3, 4, 5), (2, 3, 0)])
def test_values_of_any_shape_use_their_channel_s_scale(reference, shape):
    values = np.arange(-60, -60 + math.prod(shape)).reshape(shape)
    multiplier, shift = np.array([1, 5, 9]), np.array([0, 2, 3])
    codes, _ = ScaleRequantizer(16).compute(values, multiplier, shift, 1, *CODES_16)
    assert codes.shape == shape
    for index in np.ndindex(shape):
        c = index[1]
        expected = reference.requantised(
            int(values[index]), int(multiplier[c]), int(shift[c]), "half_even", 1, *CODES_16
        )
        assert codes[index] == expected[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_bits": 1}, "requantiser input must have 2 to 56 bits, not 1"),
        ({"in_bits": 57}, "requantiser input must have 2 to 56 bits, not 57"),
        ({"multiplier_bits": 32}, "multiplier bits must be 16, 24 or 31, not 32"),
        ({"rounding": "up"}, "rounding must be one of half_even, half_up, half_away, floor, tflite, not 'up'"),
        ({"rounding": "tflite"}, "tflite rounding must have 31 multiplier bits, not 24"),
        ({"out_bits": 0}, "requantiser output must have 1 to 16 bits, not 0"),
        ({"out_bits": 17}, "requantiser output must have 1 to 16 bits, not 17"),
        ({"out_bits": 16, "out_signed": False}, "unsigned requantiser output must have 1 to 15 bits, not 16"),
    ],
)
def test_a_scale_requantiser_that_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(FormatError) as error:
        ScaleRequantizer(**{"in_bits": 32, **arguments})
    assert str(error.value) == message


@pytest.mark.parametrize("bits", [16, 24, 31])
def test_multipliers_must_fit_their_width(bits):
    requantizer = ScaleRequantizer(32, bits)
    requantizer.check(np.array([0, 2**bits - 1]), np.array([0, 62]))
    requantizer.check(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for multiplier in ([3, 2**bits], [-1, 5]):
        with pytest.raises(FormatError) as error:
            requantizer.check(np.array(multiplier), np.array([0, 0]))
        assert str(error.value) == f"multipliers must have {bits} unsigned bits, found {multiplier[0]}..{multiplier[1]}"


@pytest.mark.parametrize(("rounding", "least"), [("half_even", 0), ("tflite", 31)])
def test_shifts_must_lie_in_their_range(rounding, least):
    requantizer = ScaleRequantizer(32, 31, rounding)
    assert requantizer.min_shift == least
    requantizer.check(np.array([1, 1]), np.array([least, 62]))
    for shift in ([least - 1, 40], [40, 63]):
        with pytest.raises(FormatError) as error:
            requantizer.check(np.array([1, 1]), np.array(shift))
        assert str(error.value) == f"shifts must lie in {least}..62, found {shift[0]}..{shift[1]}"


def test_widths_follow_from_the_parameters(reference):
    assert ScaleRequantizer(56, 31).product_bits == 87
    assert ScaleRequantizer(32, out_bits=4, out_signed=True).code_range == reference.signed_limits(4)
    assert ScaleRequantizer(32, out_bits=8, out_signed=False).code_range == reference.unsigned_limits(8)


def test_the_check_of_scaling_catches_a_multiplier_a_shift_and_a_rounding_one_off(reference):
    terms = [(v, 1, 1) for v in range(-9, 10)]
    expected = expected_codes(reference, terms, "half_even")
    requantizer = ScaleRequantizer(16, 16, "half_even")
    assert requantise(requantizer, terms) == expected
    assert requantise(requantizer, [(v, 2, s) for v, _, s in terms]) != expected
    assert requantise(requantizer, [(v, m, 2) for v, m, _ in terms]) != expected
    assert requantise(requantizer, terms, zero_point=1) != expected
    for rounding in ("half_up", "half_away", "floor"):
        assert requantise(ScaleRequantizer(16, 16, rounding), terms) != expected


def test_the_reference_rounds_halves_as_each_mode_says(reference):
    halves = [Fraction(n, 2) for n in (-3, -1, 1, 3)]
    assert {mode: [reference.rounded(half, mode) for half in halves] for mode in ROUNDINGS} == {
        "half_even": [-2, 0, 0, 2],
        "half_up": [-1, 0, 1, 2],
        "half_away": [-2, -1, 1, 2],
        "floor": [-2, -1, 0, 1],
    }


# Thresholds


def by_thresholds(requantizer, values, thresholds, descending):
    codes = requantizer.compute(np.array(values).reshape(1, 1, -1), np.array([thresholds]), np.array([descending]))
    assert codes.dtype == np.int16
    return codes.reshape(-1).tolist()


@given(data=st.data(), bits=st.integers(1, 4), signed=st.booleans(), in_bits=st.sampled_from([8, 32, 56]))
def test_any_value_reaches_the_thresholds_that_the_reference_counts(reference, data, bits, signed, in_bits):
    requantizer = ThresholdRequantizer(in_bits, bits, signed)
    limits = reference.signed_limits(in_bits)
    number = st.one_of(st.integers(*limits), st.integers(-9, 9), st.sampled_from(limits))
    channels = data.draw(st.integers(1, 3))
    count = 2**bits - 1
    thresholds = data.draw(
        st.lists(st.lists(number, min_size=count, max_size=count), min_size=channels, max_size=channels)
    )
    descending = data.draw(st.lists(st.booleans(), min_size=channels, max_size=channels))
    values = data.draw(st.lists(number, min_size=1, max_size=6)) + [t for row in thresholds for t in row]
    layer = np.array([[values] * channels] * 2)
    codes = requantizer.compute(layer, np.array(thresholds), np.array(descending))
    base = -(2 ** (bits - 1)) if signed else 0
    expected = [[reference.thresholded(v, thresholds[c], descending[c], base) for v in values] for c in range(channels)]
    assert codes.tolist() == [expected, expected]


def test_a_threshold_is_reached_by_the_value_that_equals_it():
    requantizer = ThresholdRequantizer(8, 2)
    values = [-6, -5, -4, 0, 2, 3, 4]
    assert by_thresholds(requantizer, values, [-5, 0, 3], False) == [0, 1, 1, 2, 2, 3, 3]
    assert by_thresholds(requantizer, values, [-5, 0, 3], True) == [3, 3, 2, 2, 1, 1, 0]


def test_equal_thresholds_skip_codes_and_their_order_is_free():
    requantizer = ThresholdRequantizer(8, 2, out_signed=True)
    assert by_thresholds(requantizer, [0, 1, 2, 3], [2, 2, 2], False) == [-2, -2, 1, 1]
    assert by_thresholds(requantizer, [0, 1, 2, 3], [3, 1, 2], False) == [-2, -1, 0, 1]


def test_thresholds_make_any_monotone_function_exact():
    # Nested rounding: to 2 bits first, then the 4-bit residual.
    def nested(v):
        coarse = min(3, max(0, (v + 8) // 16))
        return min(15, max(0, 4 * coarse + min(1, max(-2, (v - 16 * coarse + 2) // 4))))

    values = list(range(-40, 100))
    codes = [nested(v) for v in values]
    assert codes == sorted(codes)
    thresholds = [next((v for v, code in zip(values, codes, strict=True) if code >= t), 127) for t in range(1, 16)]
    assert by_thresholds(ThresholdRequantizer(8, 4), values, thresholds, False) == codes


@pytest.mark.parametrize("bits", range(1, 5))
def test_a_threshold_requantiser_has_one_threshold_less_than_codes(bits):
    assert ThresholdRequantizer(32, bits).thresholds == 2**bits - 1
    assert ThresholdRequantizer(32, bits, out_signed=True).base == -(2 ** (bits - 1))
    assert ThresholdRequantizer(32, bits).base == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 4), "requantiser input must have 2 to 56 bits, not 1"),
        ((57, 4), "requantiser input must have 2 to 56 bits, not 57"),
        ((32, 0), "threshold outputs must have 1 to 4 bits, not 0"),
        ((32, 5), "threshold outputs must have 1 to 4 bits, not 5"),
    ],
)
def test_a_threshold_requantiser_that_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(FormatError) as error:
        ThresholdRequantizer(*arguments)
    assert str(error.value) == message


def test_the_check_of_thresholds_catches_one_threshold_and_a_direction_off(reference):
    thresholds, values = list(range(-7, 8)), list(range(-9, 10))
    expected = [reference.thresholded(v, thresholds, False, 0) for v in values]
    requantizer = ThresholdRequantizer(8)
    assert by_thresholds(requantizer, values, thresholds, False) == expected
    assert by_thresholds(requantizer, values, thresholds, True) != expected
    for t in range(15):
        damaged = [*thresholds]
        damaged[t] += 1
        assert by_thresholds(requantizer, values, damaged, False) != expected


# Channels of their own widths


@pytest.mark.parametrize("signed", [False, True])
def test_the_ends_of_a_container_narrow_to_those_of_a_container_of_fewer_bits(signed):
    for bits in range(1, 9):
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        fewer = np.array([*range(bits), CONSTANT])
        own = bits - fewer[:-1]
        ends = (-(1 << (own - 1)), (1 << (own - 1)) - 1) if signed else (0 * own, (1 << own) - 1)
        assert narrowed(low, fewer).tolist() == [*ends[0], 0]
        assert narrowed(high, fewer).tolist() == [*ends[1], 0]


def test_each_channel_is_clamped_to_its_own_ends():
    unit = ScaleRequantizer(32, 16, "floor")
    values = np.array([-300, 300, 5]).reshape(1, 1, 3).repeat(3, axis=1)
    low, high = np.array([-8, 0, -128]), np.array([7, 0, 127])
    codes, _ = unit.compute(values, np.ones(3, np.int64), np.zeros(3, np.int64), 0, low, high)
    assert codes[0].tolist() == [[-8, 7, 5], [0, 0, 0], [-128, 127, 5]]
