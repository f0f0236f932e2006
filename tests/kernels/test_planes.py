"""Sums of planes: exact, clipped once and counted; what makes coefficients; the table of activation planes."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.mac import MacFormat
from gatewise.kernels.planes import (
    MAX_PLANES,
    PlaneCorrection,
    PlaneTable,
    fixed_coefficients,
    int_planes,
    pair_coefficients,
    sign_planes,
)
from gatewise.kernels.requant import ThresholdRequantizer
from gatewise.kernels.sign import PopcountRow, SignRow
from hypothesis import given
from hypothesis import strategies as st

RNG = np.random.default_rng(11)


def ends(bits):
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def ends_and_between(bits):
    return st.one_of(st.integers(*ends(bits)), st.sampled_from(ends(bits)))


def expected_value(accs, coefs, xsum, zero, bias, bits):
    exact = sum(acc * coef for acc, coef in zip(accs, coefs, strict=True)) - zero * xsum + bias
    low, high = ends(bits + 16)
    limited = min(max(exact, low), high)
    return limited, limited != exact


def found_value(accs, coefs, xsum, zero, bias, bits):
    value, over = PlaneCorrection(MacFormat(acc=bits)).compute(np.array(accs), np.array(coefs), xsum, zero, bias)
    assert value.dtype == np.int64
    return value.item(), over.item()


class TestCorrection:
    @given(data=st.data(), bits=st.integers(12, 40), planes=st.integers(1, MAX_PLANES))
    def test_any_planes_sum_as_the_reference_sums_them(self, data, bits, planes):
        def some(width):
            return data.draw(st.lists(ends_and_between(width), min_size=planes, max_size=planes))

        constants = (data.draw(ends_and_between(width)) for width in (32, 16, bits + 16))
        terms = (some(bits), some(16), *constants, bits)
        assert found_value(*terms) == expected_value(*terms)

    @pytest.mark.parametrize("bits", [12, 20, 32, 40])
    def test_the_farthest_sums_stay_exact_and_are_clipped_and_counted(self, bits):
        low, high = ends(bits)
        least_bias, greatest_bias = ends(bits + 16)
        greatest = ([low] * MAX_PLANES, [-(2**15)] * MAX_PLANES, -(2**31), 2**15 - 1, greatest_bias, bits)
        least = ([low] * MAX_PLANES, [2**15 - 1] * MAX_PLANES, -(2**31), -(2**15), least_bias, bits)
        assert found_value(*greatest) == expected_value(*greatest) == (greatest_bias, True)
        assert found_value(*least) == expected_value(*least) == (least_bias, True)
        correction = PlaneCorrection(MacFormat(acc=bits))
        assert correction.out_bits == bits + 16
        exact = MAX_PLANES * 2 ** (bits + 14) + 2**46 + greatest_bias
        assert exact.bit_length() + 1 == correction.exact_bits <= 64
        # The exact sum fits 64 bits, so it is right in between too.
        inside = ([high, low], [2**15 - 1, 2**15 - 1], 2**31 - 1, -3, 5, bits)
        assert found_value(*inside) == expected_value(*inside)

    def test_the_clip_begins_one_beyond_the_width(self):
        high = 2**27 - 1
        for bias, expected in ((high - 6, (high, False)), (high - 5, (high, True))):
            assert found_value([2, 1], [4, -2], 0, 0, bias, 12) == expected
        for bias, expected in ((5 - 2**27, (-(2**27), False)), (4 - 2**27, (-(2**27), True))):
            assert found_value([5], [-1], 0, 0, bias, 12) == expected

    def test_it_saturates_even_where_the_accumulator_wraps(self):
        correction = PlaneCorrection(MacFormat(acc=12, overflow="wrap"))
        value, over = correction.compute(np.full(4, 2047), np.full(4, 32767), 0, 0, 0)
        assert (value, over) == (2**27 - 1, True)

    def test_constants_per_channel_broadcast_over_the_pixels(self):
        accs, coefs = np.arange(24).reshape(2, 3, 2, 2), np.array([[1, 2, 3], [4, 5, 6]]).reshape(2, 3, 1, 1)
        zero, bias = np.array([0, 1, 2]).reshape(3, 1, 1), np.array([10, 20, 30]).reshape(3, 1, 1)
        values, over = PlaneCorrection(MacFormat()).compute(accs, coefs, np.array([[7, 8], [9, 10]]), zero, bias)
        assert values.shape == over.shape == (3, 2, 2)
        assert values[2, 1, 1] == 3 * 11 + 6 * 23 - 2 * 10 + 30

    def test_too_many_planes_and_too_wide_accumulators_are_refused(self):
        with pytest.raises(FormatError) as error:
            PlaneCorrection(MacFormat(acc=41))
        assert str(error.value) == "accumulators of planes must have at most 40 bits, not 41"
        correction = PlaneCorrection(MacFormat())
        for accs, coefs in ((65, 65), (0, 0), (3, 2)):
            with pytest.raises(FormatError) as error:
                correction.compute(np.zeros(accs), np.zeros(coefs), 0, 0, 0)
            assert str(error.value) == f"planes must be 1 to 64, with a coefficient each, not {accs} and {coefs}"

    def test_the_check_catches_every_term_one_off(self):
        terms = [[1000, -77], [3, 5], 12, -4, 9, 32]
        expected = expected_value(*terms)
        assert found_value(*terms) == expected
        for at, wrong in enumerate(([1000, -76], [3, 6], 13, -3, 10)):
            assert found_value(*terms[:at], wrong, *terms[at + 1 :]) != expected


class TestIntegerLayers:
    @pytest.mark.parametrize("bits", range(1, 9))
    def test_every_code_times_every_digit_is_the_integer_product(self, bits):
        low, high = ends(bits)
        codes = np.arange(low, high + 1)
        coefficients, zero = int_planes(bits)
        correction = PlaneCorrection(MacFormat())
        planes = sign_planes(codes, bits)[:, :, None, None]
        for digits in (np.arange(16), np.arange(-8, 8)):
            accs = SignRow(1).compute(digits[:, None], planes, 1)
            values, over = correction.compute(accs, coefficients.reshape(-1, 1, 1), digits, zero, 0)
            # One fraction bit: the value is twice the product.
            assert np.array_equal(values, 2 * codes[:, None] * digits)
            assert not over.any()

    @pytest.mark.parametrize(
        ("bits", "fraction"),
        [(bits, fraction) for bits in range(1, 9) for fraction in (1, 2, 9, 15) if fraction <= 17 - bits],
    )
    def test_rows_with_a_zero_point_and_a_bias_are_the_integer_layer(self, bits, fraction):
        codes = RNG.integers(-(1 << (bits - 1)), 1 << (bits - 1), (5, 16))
        digits, mask = RNG.integers(0, 16, (7, 16)), RNG.integers(0, 2, 16)
        own_zero, bias = RNG.integers(-9, 10, (5, 1)), RNG.integers(-999, 999, (5, 1))
        coefficients, zero = int_planes(bits, fraction)
        accs = SignRow(16).compute(digits, sign_planes(codes, bits)[:, :, None], mask)
        xsum = (digits * mask).sum(axis=1)
        values, _ = PlaneCorrection(MacFormat()).compute(
            accs, coefficients.reshape(-1, 1, 1), xsum, zero + (own_zero << fraction), bias << fraction
        )
        assert np.array_equal(values, ((codes * mask) @ digits.T - own_zero * xsum + bias) << fraction)

    def test_codes_are_the_sum_of_their_planes(self):
        assert int_planes(4).coefficients.tolist() == [1, 2, 4, -8]
        assert int_planes(8, 9) == (pytest.approx([256, 512, 1024, 2048, 4096, 8192, 16384, -32768]), 256)
        assert sign_planes(np.array([-2, 1]), 2).tolist() == [[0, 1], [1, 0]]
        for bits in range(1, 9):
            codes = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
            coefficients, _ = int_planes(bits)
            assert np.array_equal(coefficients @ sign_planes(codes, bits).astype(int), codes)

    def test_what_does_not_fit_is_refused(self):
        for bits in (0, 9):
            with pytest.raises(FormatError) as error:
                int_planes(bits)
            assert str(error.value) == f"integer codes on sign planes must have 1 to 8 bits, not {bits}"
        for bits, fraction, most in ((8, 10, 9), (4, 0, 13), (1, 16, 15)):
            with pytest.raises(FormatError) as error:
                int_planes(bits, fraction)
            message = f"fraction of {bits}-bit codes on sign planes must be 1 to {most} bits, not {fraction}"
            assert str(error.value) == message
        with pytest.raises(FormatError) as error:
            sign_planes(np.array([0, 8]), 4)
        assert str(error.value) == "4-bit codes must lie in -8..7, not 0..8"

    def test_the_check_catches_a_coefficient_a_plane_and_a_constant_one_off(self):
        codes, digits = RNG.integers(-8, 8, (3, 4)), RNG.integers(0, 16, 4)
        coefficients, zero = int_planes(4)
        accs = SignRow(4).compute(digits, sign_planes(codes, 4), 1)
        correction = PlaneCorrection(MacFormat())

        def found(accs, coefficients, zero):
            return correction.compute(accs, coefficients[:, None], digits.sum(), zero, 0)[0].tolist()

        expected = (2 * codes @ digits).tolist()
        assert found(accs, coefficients, zero) == expected
        assert found(accs[[1, 0, 2, 3]], coefficients, zero) != expected
        assert found(accs, np.abs(coefficients), zero) != expected
        assert found(accs, coefficients, 0) != expected
        assert found(accs, coefficients, -zero) != expected


class TestFixedPoint:
    @given(
        alpha=st.integers(1, 8).flatmap(
            lambda planes: st.lists(
                st.lists(st.floats(-1e30, 1e30), min_size=planes, max_size=planes), min_size=1, max_size=6
            )
        )
    )
    def test_every_coefficient_is_right_to_a_part_in_32767_of_the_greatest(self, alpha):
        coefs, scale = fixed_coefficients(np.array(alpha))
        assert coefs.dtype == np.int16
        assert (np.frexp(scale)[0] == 0.5).all()
        for floats, fixed, step in zip(alpha, coefs.tolist(), scale.tolist(), strict=True):
            greatest = max(map(abs, floats))
            for value, number in zip(floats, fixed, strict=True):
                assert abs(Fraction(value) - number * Fraction(step)) * 32767 <= Fraction(greatest)
            if greatest > 1e-300:
                assert 2**14 <= max(map(abs, fixed)) <= 32767

    def test_a_channel_of_zeros_and_one_at_the_end_of_the_range(self):
        coefs, scale = fixed_coefficients(np.array([[0.0, 0.0], [1 - 2**-20, -0.25], [0.5, 5e-324], [5e-324, 0]]))
        assert coefs.tolist() == [[0, 0], [32767, -8192], [16384, 0], [1, 0]]
        assert scale.tolist() == [1.0, 2.0**-15, 2.0**-15, 5e-324]

    def test_wrong_shapes_and_values_are_refused(self):
        for alpha in (np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]]), np.array([[1.0, np.inf]])):
            with pytest.raises(FormatError) as error:
                fixed_coefficients(alpha)
            assert (
                str(error.value) == f"plane coefficients must be finite and of shape (out, planes), not {alpha.shape}"
            )

    def test_a_flexor_layer_is_the_float_layer_of_the_rounded_alphas(self):
        alpha, bits = RNG.normal(size=(6, 2)) * 0.2, RNG.integers(0, 2, (2, 6, 16))
        digits, bias = RNG.integers(0, 16, (9, 16)), RNG.normal(size=6)
        coefs, scale = fixed_coefficients(alpha)
        accs = SignRow(16).compute(digits, bits[:, :, None], 1)
        fixed_bias = np.rint(bias / scale).astype(np.int64)
        values, over = PlaneCorrection(MacFormat()).compute(accs, coefs.T[:, :, None], 0, 0, fixed_bias[:, None])
        weights = np.einsum("op,poi->oi", coefs * scale[:, None], 2.0 * bits - 1)
        assert np.array_equal(values * scale[:, None], weights @ digits.T + (fixed_bias * scale)[:, None])
        assert not over.any()

    @pytest.mark.parametrize("signs", [True, False], ids=["-1 and +1", "0 and 1"])
    def test_pairs_of_planes_multiply_two_bases(self, signs):
        alpha, beta = RNG.normal(size=(5, 3)) * 0.1, np.array([0.9, 0.45, -0.2])
        w, a = RNG.integers(0, 2, (3, 5, 32)), RNG.integers(0, 2, (3, 8, 32))
        row = SignRow(32)
        values = row.values(a, False, signs)
        coefs, scale = pair_coefficients(alpha, beta)
        assert coefs.shape == (5, 9)
        pairs = list(itertools.product(range(3), range(3)))
        accs = np.stack([row.compute(values[j], w[p][:, None], 1) for p, j in pairs])
        if signs:
            counts = np.stack([PopcountRow(32).compute(a[j], w[p][:, None], np.ones(32, int)) for p, j in pairs])
            assert np.array_equal(accs, counts)
        found, _ = PlaneCorrection(MacFormat()).compute(accs, coefs.T[:, :, None], 0, 0, 0)
        exact = np.einsum("po,pon->on", coefs.T * scale, accs)
        assert np.array_equal(found * scale[:, None], exact)

        weights = np.einsum("op,poi->oi", alpha, 2.0 * w - 1)
        activations = np.einsum("j,jni->ni", beta, values)
        greatest = np.abs(alpha[:, :, None] * beta).max(axis=(1, 2))
        bound = np.abs(accs).sum(axis=0) * greatest[:, None] / 32767
        assert (np.abs(found * scale[:, None] - weights @ activations.T) <= bound + 1e-12).all()

    def test_too_many_pairs_are_refused(self):
        with pytest.raises(FormatError) as error:
            pair_coefficients(np.ones((2, 9)), np.ones(8))
        assert str(error.value) == "plane pairs must be 1 to 64, not 9 by 8"
        with pytest.raises(FormatError) as error:
            pair_coefficients(np.ones(2), np.ones(8))
        assert str(error.value) == "alpha and beta must be of shape (out, P) and (J,), not (2,) and (8,)"


class TestTable:
    def test_every_count_takes_its_entry(self):
        entries = tuple(RNG.permutation(256)[:16].tolist())
        words = PlaneTable(entries).compute(np.arange(16).reshape(4, 4))
        assert words.dtype == np.uint8
        assert words.shape == (4, 4)
        assert words.reshape(-1).tolist() == list(entries)

    @pytest.mark.parametrize("signs", [True, False], ids=["-1 and +1", "0 and 1"])
    @pytest.mark.parametrize("beta", [[0.7], [0.4, 1.1], [1.0, 2.0, 4.0, 8.0], [0.3, -0.5, 0.9, 0.1]])
    def test_a_count_of_thresholds_becomes_the_nearest_value_of_the_basis(self, beta, signs):
        table, planes = PlaneTable.of_basis(np.array(beta), signs), len(beta)
        words = np.array(table.entries[: 1 << planes])
        assert sorted(words) == list(range(1 << planes))
        ones = (words[:, None] >> np.arange(planes)) & 1
        levels = (2 * ones - 1 if signs else ones) @ np.array(beta)
        assert (np.diff(levels) >= 0).all()

        grid = np.rint(levels * 1000).astype(int)
        thresholds = (grid[:-1] + grid[1:] + 1) // 2
        values = np.arange(grid.min() - 50, grid.max() + 50)
        counts = ThresholdRequantizer(20, planes).compute(values[None, None], thresholds[None], np.array([False]))
        index = np.searchsorted(thresholds, values, side="right")
        assert np.array_equal(table.compute(counts)[0, 0], words[index])
        assert (np.abs(grid[index] - values) == np.abs(grid[:, None] - values).min(axis=0)).all()

    def test_entries_beyond_the_basis_repeat_the_last(self):
        assert PlaneTable.of_basis(np.array([2.0, 1.0]), True).entries == (0, 2, 1) + (3,) * 13
        assert PlaneTable.of_basis(np.array([1.0, 1.0]), False).entries == (0, 1, 2) + (3,) * 13

    def test_wrong_tables_and_counts_are_refused(self):
        for build, message in (
            (lambda: PlaneTable((0,) * 15), "plane table must have 16 entries, not 15"),
            (lambda: PlaneTable((0,) * 16, 9), "planes of a table must be 1 to 8, not 9"),
            (lambda: PlaneTable((*range(15), 256)), "entry 15 of a table of 8 planes must fit its bits, not 256"),
            (lambda: PlaneTable((0,) * 15 + (-1,), 2), "entry 15 of a table of 2 planes must fit its bits, not -1"),
            (lambda: PlaneTable.of_basis(np.ones(5), True), "beta must be of shape (J,) with J of 1 to 4, not (5,)"),
            (lambda: PlaneTable.of_basis(np.ones(0), True), "beta must be of shape (J,) with J of 1 to 4, not (0,)"),
            (lambda: PlaneTable().compute(np.array([3, 16])), "counts must lie in 0..15, not 3..16"),
        ):
            with pytest.raises(FormatError) as error:
                build()
            assert str(error.value) == message
