"""Powers of two and focused codes: formats, the quantiser, integers as powers of two, and rows of shifts."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from gatewise.kernels import shift
from gatewise.kernels.errors import FormatError
from gatewise.kernels.shift import (
    ShiftFormat,
    ShiftPE,
    ShiftRow,
    ShiftTerms,
    fit_bias,
    focused_format,
    least_exponent,
    nearest_codes,
    power_of_two,
    signed_digit_passes,
)
from hypothesis import assume, given
from hypothesis import strategies as st

LANES = (1, 2, 4, 8, 16, 32, 64)
FOCUSED = ShiftFormat(2, focused=True, value_shift=1, minus=(-1, 4), plus=(1, 3))
STATES = (0, 1, -1, None)
"""Signs by state; None is pruned."""


def legal_codes(fmt):
    """Codes of a format by their definition: {code: (sign or None, exponent, component)}."""
    codes = {}
    for component, state, exponent in itertools.product(
        range(2 if fmt.focused else 1), range(4 if fmt.focused else 3), range(1 << fmt.exponent_bits)
    ):
        if (state in (0, 3) and exponent) or (state == 3 and component) or exponent + fmt.value_shift > 15:
            continue
        code = exponent + (state << fmt.exponent_bits) + (component << (fmt.exponent_bits + 2))
        codes[code] = (STATES[state], exponent, component)
    return codes


def expected_weight(fmt, sign, exponent, component):
    if sign is None:
        return 0
    value = sign * 2 ** (exponent + fmt.value_shift)
    if fmt.focused:
        mean_sign, mean_shift = (fmt.minus, fmt.plus)[component]
        value += mean_sign * 2**mean_shift
    return value


formats = st.builds(
    ShiftFormat,
    exponent_bits=st.integers(0, 5),
    focused=st.just(True),
    value_shift=st.integers(0, 15),
    minus=st.tuples(st.sampled_from([-1, 1]), st.integers(0, 15)),
    plus=st.tuples(st.sampled_from([-1, 1]), st.integers(0, 15)),
) | st.builds(ShiftFormat, exponent_bits=st.integers(0, 5))


@given(fmt=formats)
def test_every_code_of_a_format_splits_joins_and_weighs_as_defined_and_all_others_are_refused(fmt):
    legal = legal_codes(fmt)
    for code in range(1 << fmt.bits):
        if code not in legal:
            with pytest.raises(FormatError):
                fmt.split(np.array([code]))
            continue
        sign, exponent, component = legal[code]
        fields = fmt.split(np.uint8([code]))
        pruned = sign is None
        assert [field.item() for field in fields] == [sign or 0, exponent, component, pruned]
        assert [field.dtype for field in fields] == [np.int8, np.uint8, np.uint8, np.bool_]
        assert fmt.join(*fields).tolist() == [code]
        assert fmt.weights(np.uint8([code])).tolist() == [expected_weight(fmt, sign, exponent, component)]
        state = STATES.index(sign)
        assert fmt.pe_codes(np.uint8([code])).tolist() == [exponent | state << 4 | component << 6]


@pytest.mark.parametrize(
    ("fmt", "bits", "symbols"),
    [
        (ShiftFormat(2, focused=True), 5, 19),
        (ShiftFormat(3), 5, 17),
        (ShiftFormat(2), 4, 9),
        (ShiftFormat(4, focused=True), 7, 67),
    ],
    ids=["focused 5", "plain 5", "plain 4", "focused 7"],
)
def test_the_papers_widths_have_the_papers_alphabets(fmt, bits, symbols):
    assert fmt.bits == bits
    assert len(legal_codes(fmt)) == symbols


def test_arrays_keep_their_shape_and_types():
    codes = np.full((2, 3, 4), FOCUSED.join(-1, 3, 1).item(), dtype=np.uint8)
    assert FOCUSED.weights(codes).shape == FOCUSED.pe_codes(codes).shape == (2, 3, 4)
    assert FOCUSED.weights(codes).dtype == np.int32
    assert FOCUSED.pe_codes(codes).dtype == np.uint8
    assert FOCUSED.join(np.zeros((3, 1)), np.zeros(4), 1).shape == (3, 4)
    assert FOCUSED.weights(np.zeros((0, 5), np.uint8)).shape == (0, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShiftFormat(6), "shift exponents must have 0 to 5 bits, not 6"),
        (lambda: ShiftFormat(3, value_shift=1), "value shift of a plain shift format must be 0, not 1"),
        (lambda: ShiftFormat(3, True, 16), "value shift must lie in 0..15, not 16"),
        (lambda: ShiftFormat(3, True, 0, (0, 1)), "sign of the minus component must be -1 or 1, not 0"),
        (lambda: ShiftFormat(3, True, 0, plus=(1, 16)), "shift of the plus component must lie in 0..15, not 16"),
        (lambda: ShiftFormat(2).split(np.array([4, 16])), "shift codes must have 4 bits, found 4..16"),
        (
            lambda: ShiftFormat(2).split(np.array([12])),
            "codes of a plain shift format must not be pruned, found code 12",
        ),
        (lambda: FOCUSED.split(np.array([1])), "shift codes without a value must have exponent 0, found code 1"),
        (lambda: FOCUSED.split(np.array([28])), "pruned shift codes must have component 0, found code 28"),
        (lambda: ShiftFormat(5).split(np.array([48])), "shift exponents must be at most 15, found code 48"),
        (lambda: ShiftFormat(2, True, 13).split(np.array([7])), "shift exponents must be at most 2, found code 7"),
        (lambda: FOCUSED.join(2, 0), "shift signs must lie in -1..1, found 2..2"),
        (lambda: FOCUSED.join(1, 4), "shift exponents must lie in 0..3, found 4..4"),
        (lambda: ShiftFormat(2).join(1, 1, 1), "shift components must lie in 0..0, found 1..1"),
        (lambda: FOCUSED.join(1, 1, 0, True), "pruned shift codes must have sign 0"),
        (lambda: ShiftRow(6), "lanes must be a power of two, not 6"),
        (
            lambda: ShiftRow(1).compute(np.array([1]), np.array([0x1F]), FOCUSED),
            "shift exponents must be at most 14, found code 31",
        ),
        (lambda: nearest_codes(np.array([np.nan]), FOCUSED, 0), "values of a shift layer must be finite numbers"),
        (
            lambda: nearest_codes(np.array([1.0]), FOCUSED, 0, "middle"),
            "midpoint must be arithmetic or log, not 'middle'",
        ),
        (
            lambda: nearest_codes(np.array([1.0, 4.0]), FOCUSED, 0, least=1),
            "exponents of a shift layer must be at least 1, found 0",
        ),
        (
            lambda: least_exponent(np.array([1.0, 2.0**16]), 5, 0),
            "exponents of a shift layer must span at most 15, found 0..16",
        ),
        (lambda: power_of_two(0.0), "mean of a component must be a finite number other than 0, not 0.0"),
        (lambda: signed_digit_passes(np.array([1]), 9), "integers of a shift array must have 1 to 8 bits, not 9"),
        (lambda: signed_digit_passes(np.array([-8, 8]), 4), "integers of 4 bits must lie in -8..7, found -8..8"),
    ],
)
def test_what_is_no_format_code_or_value_is_refused_in_a_line(make, message):
    with pytest.raises(FormatError) as raised:
        make()
    assert str(raised.value) == message


# Rows.


def expected_row(fmt, digits, pe_codes):
    """The row sum in plain integers, from what each bit of a PE's code means."""
    total = 0
    for digit, code in zip(digits, pe_codes, strict=True):
        state = code >> 4 & 3
        sign = {1: 1, 2: -1}.get(state, 0)
        total += digit * sign * 2 ** ((code & 15) + fmt.value_shift)
        if fmt.focused and state != 3:
            mean_sign, mean_shift = fmt.plus if code >> 6 & 1 else fmt.minus
            total += digit * mean_sign * 2**mean_shift
    return total


@st.composite
def rows(draw):
    fmt = draw(formats)
    lanes = draw(st.sampled_from(LANES))
    low, high = draw(st.sampled_from([(0, 15), (-8, 7)]))
    digit = st.one_of(st.integers(low, high), st.sampled_from([low, high]))
    digits = draw(st.lists(digit, min_size=lanes, max_size=lanes))
    exponent = st.integers(0, 15 - fmt.value_shift)
    code = st.builds(lambda high, exponent: high << 4 | exponent, st.integers(0, 15), exponent)
    return fmt, digits, draw(st.lists(code, min_size=lanes, max_size=lanes))


@given(row=rows())
def test_any_word_sums_as_the_reference_sums_it(row):
    fmt, digits, codes = row
    found = ShiftRow(len(digits)).compute(np.array(digits), np.uint8(codes), fmt)
    assert found.item() == expected_row(fmt, digits, codes)


@given(fmt=formats, lanes=st.sampled_from(LANES), data=st.data())
def test_a_row_of_legal_codes_is_the_dot_product_with_their_weights(fmt, lanes, data):
    chosen = st.sampled_from(sorted(legal_codes(fmt)))
    codes = np.uint8(data.draw(st.lists(chosen, min_size=lanes, max_size=lanes)))
    digits = np.array(data.draw(st.lists(st.integers(-8, 15), min_size=lanes, max_size=lanes)))
    found = ShiftRow(lanes).compute(digits, fmt.pe_codes(codes), fmt)
    assert found.item() == (digits * fmt.weights(codes).astype(np.int64)).sum()


@pytest.mark.parametrize("lanes", LANES)
def test_the_greatest_sums_need_all_the_bits_that_a_row_states(lanes):
    row = ShiftRow(lanes)
    assert row.out_bits == 5 + 16 + int(math.log2(lanes))
    for state, sign in ((1, 1), (2, -1)):
        fmt = ShiftFormat(5, True, minus=(sign, 15))
        total = row.compute(np.full(lanes, 15), np.full(lanes, 15 | state << 4), fmt).item()
        assert total == sign * lanes * 15 * 2**16
        assert 1 << (row.out_bits - 2) < abs(total) < 1 << (row.out_bits - 1)


def test_leading_axes_are_words_of_their_own_and_broadcast():
    digits = np.arange(2 * 3 * 4).reshape(2, 3, 4) % 16
    codes = np.uint8([0x10, 0x21, 0x30, 0x40])
    found = ShiftRow(4).compute(digits, codes, FOCUSED)
    assert found.shape == (2, 3)
    expected = [[expected_row(FOCUSED, word, codes.tolist()) for word in row] for row in digits.tolist()]
    assert found.tolist() == expected
    assert ShiftRow(4).compute(digits, codes, ShiftFormat(2)).shape == (2, 3)


def test_every_digit_and_code_makes_its_terms():
    digits, codes = np.meshgrid(np.arange(-8, 16), np.arange(256), indexing="ij")
    found = ShiftPE().compute(digits, codes)
    for digit, code, *terms in zip(digits.flat, codes.flat, *(term.flat for term in found), strict=True):
        state, plus = code >> 4 & 3, code >> 6 & 1
        value = digit * {1: 1, 2: -1}.get(state, 0) * 2 ** (code & 15)
        counted = 0 if state == 3 else digit
        assert terms == [value, 0 if plus else counted, counted if plus else 0]


# The quantiser.


def exact_nearest(value, exponent_bits, bias, midpoint):
    """Sign and exponent of the nearest level by rational comparisons of neighbours."""
    magnitude = Fraction(abs(value))
    levels = [Fraction(2) ** (e - bias) for e in range(1 << exponent_bits)]
    if magnitude <= levels[0] / 2:
        return 0, 0
    exponent = 0
    for e in range(1, len(levels)):
        if midpoint == "arithmetic":
            beyond = magnitude >= (levels[e - 1] + levels[e]) / 2
        else:
            beyond = magnitude**2 > levels[e - 1] * levels[e]
        if beyond:
            exponent = e
    return (1 if value > 0 else -1), exponent


midpoints = st.sampled_from(["arithmetic", "log"])
powers = st.builds(math.ldexp, st.sampled_from([1.0, 1.5, -1.5, 0.75, math.sqrt(2), 1.25]), st.integers(-12, 12))
near_powers = st.builds(lambda power, up: math.nextafter(power, up), powers, st.sampled_from([math.inf, -math.inf]))
reals = powers | near_powers | st.floats(-100, 100)


@given(
    values=st.lists(reals, min_size=1, max_size=8), k=st.integers(0, 4), bias=st.integers(-6, 10), midpoint=midpoints
)
def test_codes_are_the_nearest_levels(values, k, bias, midpoint):
    fmt = ShiftFormat(k)
    fields = fmt.split(nearest_codes(np.array(values), fmt, bias, midpoint))
    found = list(zip(fields.sign.tolist(), fields.exponent.tolist(), strict=True))
    assert found == [exact_nearest(value, k, bias, midpoint) for value in values]


def test_a_mantissa_that_rounds_up_at_the_greatest_exponent_saturates():
    values = np.array([1.9, -1.9, 3.0, 1e300, -1e300])
    fmt = ShiftFormat(0)
    assert fmt.weights(nearest_codes(values, fmt, 0)).tolist() == [1, -1, 1, 1, -1]


def test_midpoints_differ_between_root_two_and_one_and_a_half():
    fmt = ShiftFormat(1)
    values = np.array([1.40, 1.45, 1.49, 1.5])
    assert fmt.weights(nearest_codes(values, fmt, 0, "arithmetic")).tolist() == [1, 1, 1, 2]
    assert fmt.weights(nearest_codes(values, fmt, 0, "log")).tolist() == [1, 2, 2, 2]


def test_half_of_the_least_magnitude_is_zero_and_all_above_is_not():
    fmt = ShiftFormat(2)
    values = np.array([0.125, -0.125, math.nextafter(0.125, 1), 0.0, -0.0, 5e-324])
    assert fmt.weights(nearest_codes(values, fmt, 2)).tolist() == [0, 0, 1, 0, 0, 0]


def test_pruned_weights_are_pruned_whatever_their_value_or_component():
    codes = nearest_codes(np.array([np.inf, 0.0, 1.0]), FOCUSED, 0, component=1, pruned=np.array([True, True, False]))
    fields = FOCUSED.split(codes)
    assert fields.pruned.tolist() == [True, True, False]
    assert fields.component.tolist() == [0, 0, 1]


def test_exponents_are_stored_less_the_smallest_used_one():
    values, fmt = np.array([4.0, -32.0, 0.0]), ShiftFormat(4)
    least = least_exponent(values, 4, 2)
    assert least == 4
    codes = nearest_codes(values, fmt, 2, least=least)
    assert fmt.split(codes).exponent.tolist() == [0, 3, 0]
    assert (fmt.weights(codes) * 2.0 ** (least - 2)).tolist() == values.tolist()
    assert least_exponent(np.zeros(3), 4, 2) == 0


def test_small_values_beyond_the_span_are_flushed_where_that_is_asked():
    values, fmt = np.array([1.0, 2.0, -4.0, 2.0**17]), ShiftFormat(5)
    least = least_exponent(values, 5, 0, flush=True)
    assert least == 2
    codes = nearest_codes(values, fmt, 0, least=least, flush=True)
    assert (fmt.weights(codes) * 4).tolist() == [0, 0, -4, 2**17]
    assert least_exponent(values[1:], 5, 0, span=16) == 1
    assert least_exponent(values, 5, 0, span=10, flush=True) == 7


@given(values=st.lists(reals, min_size=1, max_size=40), k=st.integers(0, 4), bits=st.integers(1, 7), midpoint=midpoints)
def test_the_bias_is_the_greatest_with_few_enough_overflows(values, k, bits, midpoint):
    assume(any(values))
    bias = fit_bias(np.array(values), k, bits, midpoint)

    def overflows(bias):
        greatest = Fraction(2) ** ((1 << k) - 1 - bias)
        if midpoint == "arithmetic":
            return sum(abs(Fraction(value)) >= greatest * 3 / 2 for value in values)
        return sum(Fraction(value) ** 2 > greatest**2 * 2 for value in values)

    assert overflows(bias) * (2**bits + 1) <= len(values)
    # Where every value may overflow, the least one still decides.
    assert overflows(bias + 1) * (2**bits + 1) > len(values) or overflows(bias + 1) == np.count_nonzero(values)


def test_a_layer_without_values_has_bias_zero():
    assert fit_bias(np.zeros(5), 2, 5) == 0


def test_means_become_the_nearest_powers_of_two():
    assert power_of_two(-0.032) == (-1, -5)
    assert power_of_two(3.0) == (1, 2)
    assert power_of_two(-1.45, "log") == (-1, 1)
    assert power_of_two(-1.45) == (-1, 0)


@pytest.mark.parametrize(
    ("bias", "minus", "plus", "fmt", "unit"),
    [
        (2, (-1, 2), (1, 2), ShiftFormat(2, True, 0, (-1, 4), (1, 4)), -2),
        (1, (-1, -3), (1, 2), ShiftFormat(2, True, 2, (-1, 0), (1, 5)), -3),
        (-1, (-1, 1), (1, 3), ShiftFormat(2, True, 0, (-1, 0), (1, 2)), 1),
    ],
    ids=["least bit of the values", "of a mean", "of both"],
)
def test_values_and_means_share_their_least_bit(bias, minus, plus, fmt, unit):
    assert focused_format(2, bias, minus, plus) == (fmt, unit)
    codes = np.array(sorted(legal_codes(fmt)))
    for weight, (sign, exponent, component) in zip(fmt.weights(codes), legal_codes(fmt).values(), strict=True):
        mean_sign, t = (minus, plus)[component]
        wanted = 0 if sign is None else sign * 2.0 ** (exponent - bias) + mean_sign * 2.0**t
        assert weight * 2.0**unit == wanted


# The worked example of the paper's poster: weights over 128, inputs over 8.

INPUTS = np.array([1, 1, 2, 12, 35, 4, 2, 6, 3])
ORIGINAL = np.array([0, -3.81, 1.50, 5.63, 0, -5.69, 4.54, -3.13, 2.44])
REPRESENTED = [0, -3.75, 2, 6, 0, -6, 4.5, -3, 2]
SHIFTED = [0, 0.25, -2, 2, 0, -2, 0.5, 1, -2]
MEAN = 4.0


@pytest.mark.parametrize("midpoint", ["arithmetic", "log"])
def test_the_published_example_is_reached_from_the_original_weights(midpoint):
    pruned, plus = ORIGINAL == 0, ORIGINAL > 0
    normalised = ORIGINAL - np.where(plus, MEAN, -MEAN)
    bias = fit_bias(normalised[~pruned], 2, 5, midpoint)
    fmt, unit = focused_format(2, bias, power_of_two(-MEAN, midpoint), power_of_two(MEAN, midpoint))
    codes = nearest_codes(normalised, fmt, bias, midpoint, component=plus, pruned=pruned)
    fields = fmt.split(codes)
    assert (fields.sign * 2.0 ** (fields.exponent.astype(int) - bias)).tolist() == [
        0 if gone else shifted for gone, shifted in zip(pruned, SHIFTED, strict=True)
    ]
    assert (fmt.weights(codes) * 2.0**unit).tolist() == REPRESENTED

    pe_codes = np.zeros(16, dtype=np.uint8)
    pe_codes[:9] = fmt.pe_codes(codes)
    pe_codes[9:] = 0x30
    inputs = np.zeros(16, dtype=np.int64)
    inputs[:9] = INPUTS
    row = ShiftRow(16)
    sums = row.sums(inputs, pe_codes)
    assert (sums.value * 2.0**-bias, sums.minus, sums.plus) == (13.25, 11, 19)
    assert row.compute(inputs, pe_codes, fmt) * 2.0**unit == 45.25
    passes = [row.compute(digit, pe_codes, fmt) for digit in (inputs & 15, inputs >> 4)]
    assert (passes[0] + (passes[1] << 4)) * 2.0**unit == 45.25


# Integers as signed powers of two.


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_integer_is_the_sum_of_its_passes(bits):
    codes = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    passes = signed_digit_passes(codes, bits)
    assert passes.dtype == np.uint8
    assert len(passes) == -(-bits // 2)
    states, exponents = passes >> 4, (passes & 15).astype(np.int64)
    assert set(states.flat) <= {0, 1, 2}
    assert exponents.max() < bits
    assert (exponents[states == 0] == 0).all()
    signs = np.array([0, 1, -1])[states]
    assert ((signs << exponents).sum(axis=0) == codes).all()
    ones = np.ones((len(passes), len(codes), 1), dtype=np.int64)
    assert (ShiftRow(1).compute(ones, passes[..., None], ShiftFormat(5)).sum(axis=0) == codes).all()
    # Least first, never two neighbours, unused passes last.
    for column in range(len(codes)):
        used = exponents[states[:, column] != 0, column].tolist()
        assert all(after - before >= 2 for before, after in itertools.pairwise(used))
        assert (states[: len(used), column] != 0).all()


def test_no_integer_has_a_shorter_sum_of_powers_of_two():
    terms = [sign << exponent for exponent in range(9) for sign in (1, -1)]
    least = {0: 0}
    for count in range(1, 5):
        for total in [total for total, before in least.items() if before == count - 1]:
            for term in terms:
                least.setdefault(total + term, count)
    codes = np.arange(-128, 128)
    assert ((signed_digit_passes(codes) >> 4 != 0).sum(axis=0) == [least[code] for code in codes]).all()


def test_there_are_as_many_passes_as_the_longest_code_needs():
    assert signed_digit_passes(np.array([[64, -127], [0, 1]])).shape == (2, 2, 2)
    assert signed_digit_passes(np.zeros((3, 2), int)).tolist() == [[[0, 0]] * 3]
    assert signed_digit_passes(np.zeros((0, 2), int)).shape == (1, 0, 2)


# Faults: each test below would miss what it checks if one of these went by.


def swapped_components(terms):
    return ShiftTerms(terms.value, terms.plus, terms.minus)


def lost_signs(terms):
    return ShiftTerms(abs(terms.value), terms.minus, terms.plus)


def one_sum(terms):
    return ShiftTerms(terms.value, terms.minus + terms.plus, terms.plus)


@pytest.mark.parametrize("fault", [swapped_components, lost_signs, one_sum])
def test_a_pe_that_routes_wrongly_is_found(fault, monkeypatch):
    compute = ShiftPE.compute
    monkeypatch.setattr(ShiftPE, "compute", lambda *arguments: fault(compute(*arguments)))
    with pytest.raises(AssertionError):
        test_every_digit_and_code_makes_its_terms()
    with pytest.raises(AssertionError):
        test_the_published_example_is_reached_from_the_original_weights("arithmetic")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PRUNED", 0), ("PRUNED", 4), ("NEGATIVE", 0), ("POSITIVE", 2), ("EXPONENT_FIELD", 3)],
    ids=["zero is pruned", "pruned counts", "minus is zero", "plus is minus", "fields overlap"],
)
def test_a_state_or_field_in_another_place_is_found(name, value, monkeypatch):
    monkeypatch.setattr(shift, name, value)
    with pytest.raises(AssertionError):
        test_every_digit_and_code_makes_its_terms()


def test_a_row_that_forgets_the_value_shift_or_a_mean_is_found(monkeypatch):
    combine = ShiftRow.combine
    words = ([3, 5], [0x12, 0x61])
    assert ShiftRow(2).compute(*map(np.array, words), FOCUSED) == expected_row(FOCUSED, *words)
    for position in range(1, 5):

        def forgetful(sums, *registers, position=position):
            held = list(registers)
            held[position - 1] = np.int64(0)
            return combine(sums, *held)

        monkeypatch.setattr(ShiftRow, "combine", staticmethod(forgetful))
        assert ShiftRow(2).compute(*map(np.array, words), FOCUSED) != expected_row(FOCUSED, *words)


def test_a_quantiser_that_only_rounds_down_is_found(monkeypatch):
    monkeypatch.setattr(shift, "_nearest_exponents", lambda magnitudes, midpoint: np.frexp(magnitudes)[1] - 1)
    with pytest.raises(AssertionError):
        test_midpoints_differ_between_root_two_and_one_and_a_half()


def test_a_quantiser_that_does_not_saturate_is_found(monkeypatch):
    quantised = shift._quantised
    monkeypatch.setattr(shift, "_quantised", lambda values, k, *rest: quantised(values, k + 1, *rest))
    with pytest.raises(FormatError):
        test_a_mantissa_that_rounds_up_at_the_greatest_exponent_saturates()


def test_a_quantiser_of_the_other_midpoint_is_found(monkeypatch):
    nearest = shift._nearest_exponents
    other = {"arithmetic": "log", "log": "arithmetic"}
    monkeypatch.setattr(shift, "_nearest_exponents", lambda magnitudes, midpoint: nearest(magnitudes, other[midpoint]))
    with pytest.raises(AssertionError):
        test_midpoints_differ_between_root_two_and_one_and_a_half()
