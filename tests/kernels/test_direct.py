"""Fast forms of convolutions: equal to the faithful one wherever nothing overflows, to the last bit of their sums."""

import numpy as np
import pytest
from gatewise.kernels import (
    ConvShape,
    MacFormat,
    Operands,
    ScaleRequantizer,
    ThresholdRequantizer,
    activation_planes,
    conv2d,
    direct,
    split_digits,
)
from gatewise.kernels.direct import DirectConv, fast_forms
from gatewise.kernels.errors import FormatError, UnsupportedError
from gatewise.kernels.finish import ScaleFinish, ThresholdFinish
from gatewise.kernels.packed import Activations

WIDEST = MacFormat(product=10, align=24, acc=48)
FORMS = fast_forms()


def ones(channels):
    return np.ones(channels, dtype=np.int64)


def plain(shape, activations, weights, form, factors=None):
    """A layer without unit, zero point and bias."""
    count = shape.out_channels
    factors = ones(shape.in_channels) if factors is None else factors
    return DirectConv.build(shape, activations, weights, factors, ones(count), 0 * ones(count), 0 * ones(count), form)


def draw_layer(rng):
    """A shape, the bits and signs of its operands, and alignment factors."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    inputs, outputs = (groups * int(rng.integers(1, most)) for most in (14, 40))
    if rng.random() < 0.2:
        groups = inputs = outputs = int(rng.integers(1, 40))
    (kernel, stride, dilation), padding = rng.integers(1, 4, (3, 2)).tolist(), rng.integers(0, 3, 4).tolist()
    shape = ConvShape(inputs, outputs, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups)
    bits, width = int(rng.choice([1, 2, 4, 5, 8, 12, 16])), int(rng.choice([1, 2, 4, 8, 16]))
    signed = bits > 8 or bool(rng.integers(2))
    factors = [1 << rng.integers(0, 9, inputs), rng.integers(0, 256, inputs), ones(inputs)][rng.integers(3)]
    if bits > 8 or width > 8:
        factors = ones(inputs)  # the faithful form has no room for more
    return shape, Operands(bits, signed, width), factors


def draw_codes(rng, operands, shape):
    low, high = (-(1 << operands.a_bits - 1), (1 << operands.a_bits - 1) - 1)
    if not operands.a_signed:
        low, high = 0, (1 << operands.a_bits) - 1
    size = int(rng.integers(1, 4)), shape.in_channels, *rng.integers(7, 12, 2)
    return rng.integers(low, high + 1, size).astype(np.int16), int(rng.integers(low, high + 1))


@pytest.mark.parametrize("form", FORMS)
def test_random_layers_equal_the_faithful_form(form):
    rng, exact, passes = np.random.default_rng(3), 0, set()
    for _ in range(120):
        shape, operands, factors = draw_layer(rng)
        x, pad = draw_codes(rng, operands, shape)
        half = 1 << (operands.w_bits - 1)
        weights = rng.integers(-half, half, shape.weight_shape)
        unit, zero, bias = rng.integers(1, 5, shape.out_channels), rng.integers(-9, 9, shape.out_channels), 77
        zero = zero * rng.integers(2)
        digits = split_digits(weights, operands.w_bits, signed=True)
        found = conv2d(x, digits, factors.astype(np.int32), shape, operands, WIDEST, 16, pad)
        assert not (found.product_overflows | found.align_overflows | found.acc_overflows).any()
        xsum = np.repeat(found.input_sum, shape.group_outputs, axis=1)
        wanted = found.acc * unit[:, None, None] - xsum * zero[:, None, None] + bias
        fast = DirectConv.build(
            shape, Activations(operands.a_bits, operands.a_signed), [weights], factors, unit, zero,
            np.full(shape.out_channels, bias), form,
        )  # fmt: skip
        if rng.integers(2):
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        values = fast.values(x, pad)
        assert np.array_equal(values[:, fast.fits], wanted[:, fast.fits]), (shape, operands, form)
        exact += int(fast.fits.all())
        passes.add(fast.passes)
    assert exact > 100
    assert passes >= ({1, 2, 4} if form == "vnni" else {1})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("signs", [False, True])
def test_planes_of_activations_are_streams_of_their_own(form, signs):
    rng = np.random.default_rng(4)
    shape = ConvShape(9, 21, (3, 2), padding=(1, 0, 1, 1))
    words, weights = rng.integers(0, 8, (2, 9, 6, 7)), rng.integers(-900, 900, (3, *shape.weight_shape))
    fast = plain(shape, Activations(3, planes=True, signs=signs), weights, form)
    each = zip(activation_planes(words, 3, signs), activation_planes(np.array(5), 3, signs), weights, strict=True)
    wanted = sum(
        conv2d(plane, part[None].astype(np.int32), np.ones(9, np.int32), shape, Operands(2, True, 12), WIDEST, 4,
               int(pad), exact_rows=True).acc
        for plane, pad, part in each
    )  # fmt: skip
    assert fast.fits.all()
    assert np.array_equal(fast.values(words.astype(np.int16), 5), wanted)


@pytest.mark.parametrize("form", FORMS)
def test_four_bit_layers_with_shifts_of_0_to_8_take_one_pass(form):
    """Half of each shift in the activation's byte, half in the weight's."""
    weights = np.array([-8, 7, 1]).reshape(3, 1, 1, 1) * np.ones((3, 9, 1, 1), dtype=np.int64)
    fast = plain(ConvShape(9, 3), Activations(4), [weights], form, 1 << np.arange(9))
    assert fast.passes == 1
    assert fast.values(np.full((1, 9, 1, 1), 15, np.int16), 0).ravel().tolist() == [
        15 * weight * 511 for weight in (-8, 7, 1)
    ]


@pytest.mark.parametrize(("activations", "places"), [(Activations(4), 12), (Activations(1, signed=True), 16)])
def test_16_bits_of_an_activation_take_shifts_up_to_their_ends(activations, places):
    """The most negative one is a power of two that they hold with a sign alone."""
    weights = np.array([-8, 7]).reshape(2, 1, 1, 1) * np.ones((2, places, 1, 1), dtype=np.int64)
    fast = plain(ConvShape(places, 2), activations, [weights], "portable", 1 << np.arange(places))
    assert fast.packed[0].factors.tolist() == [1 << place for place in range(places)]
    code = -1 if activations.signed else 15
    x = np.full((1, places, 1, 1), code, np.int16)
    assert fast.values(x, 0).ravel().tolist() == [code * weight * ((1 << places) - 1) for weight in (-8, 7)]


@pytest.mark.parametrize("form", FORMS)
def test_input_sums_have_32_bits_too(form):
    """Weights of zero but for one fit whatever the inputs; what a zero point multiplies does not."""
    inputs, factor = (70_000, 127) if form == "vnni" else (40_000, 255)
    weights = np.zeros((2, inputs, 1, 1), dtype=np.int64)
    weights[:, 0] = 1
    for zero in (0, 1):
        fast = DirectConv.build(
            ConvShape(inputs, 2), Activations(8), [weights], ones(inputs) * factor, ones(2), np.array([0, zero]),
            np.zeros(2), form,
        )  # fmt: skip
        assert fast.fits.tolist() == [not zero] * 2


@pytest.mark.parametrize("form", FORMS)
def test_sums_reach_the_ends_of_32_bits_and_no_further(form):
    count, code, weight = 65793, 255, -128
    for inputs, fits in ((count, True), (count + 1, False)):
        weights = np.full((2, inputs, 1, 1), weight) * np.array([1, -1]).reshape(2, 1, 1, 1)
        fast = plain(ConvShape(inputs, 2), Activations(8), [weights], form)
        assert fast.fits.tolist() == [fits, fits]
        if fits:
            x = np.full((1, inputs, 1, 1), code, dtype=np.int16)
            assert fast.values(x, 0).ravel().tolist() == [count * code * weight, -count * code * weight]


def test_what_wraps_on_its_way_is_right_in_the_end():
    """Two halves of 2**31 and more that take each other away, with an offset that adds its own."""
    half = 80_000
    signs = np.repeat([1, -1], half).reshape(1, -1, 1, 1)
    fast = plain(ConvShape(2 * half, 1), Activations(8, signed=True), [127 * signs], FORMS[0])
    assert not fast.fits.any()  # some activations do not take each other away
    x = np.full((1, 2 * half, 1, 1), 127, dtype=np.int16)
    x[0, 0] = 100
    assert fast.values(x, 0).item() == -27 * 127


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "half_away", "floor"])
def test_fused_scales_round_as_the_requantiser_does(rounding):
    """Every tie of every shift, and values up to the most that the product takes."""
    rng = np.random.default_rng(5)
    shape = ConvShape(1, 24, (1, 2))
    weights = rng.integers(-128, 128, shape.weight_shape)
    x = np.stack(np.meshgrid(np.arange(256), [0, 1, 127, 255], indexing="ij"), axis=-1).reshape(-1, 1, 1, 2)
    shift = np.arange(24) % 13
    shift[-3:] = 40, 62, 33
    multiplier = np.where(np.arange(24) % 3, 1 + 2 * rng.integers(0, 4, 24), rng.integers(0, 1 << 24, 24))
    unit, zero, bias = np.full(24, 1 << 15), rng.integers(-9, 9, 24), rng.integers(-(1 << 38), 1 << 38, 24)
    bias[14:16] = (1 << 38) - (1 << 32), (1 << 32) - (1 << 38)
    multiplier[14:16] = (1 << 24) - 1
    multiplier[0] >>= 1  # without a shift, a bit more
    bias[:12] >>= 31
    unit[:12] = 1
    low, high = rng.integers(-400, 0, 24), rng.integers(0, 400, 24)
    finish = ScaleFinish.build(np.full(24, 39), multiplier, shift, rounding, 3, low, high)
    for form in FORMS:
        fast = DirectConv.build(shape, Activations(8), [weights], ones(1), unit, zero, bias, form)
        values = fast.values(x.astype(np.int16), 0)
        wanted, _ = ScaleRequantizer(56, 24, rounding).compute(values, multiplier, shift, 3, low, high)
        assert np.array_equal(fast.requantising(finish).codes(x.astype(np.int16), 0), wanted)
    assert len(np.unique(wanted)) > 300


def rescaled(value_bits, bias, zero, multiplier_bits=24, said_bits=None):
    """A layer of 32 channels in every form, of which the first reaches the ends of `value_bits`, as its sums do.

    How it is rescaled: in doubles, and whether these hold every product of values that are said to have `said_bits`.
    """
    shape, count = ConvShape(1, 32, (1, 2)), 32
    weights = np.random.default_rng(9).integers(-128, 128, shape.weight_shape)
    weights[0] = 127
    x = np.stack(np.meshgrid(np.arange(256), [0, 1, 254, 255], indexing="ij"), axis=-1).reshape(-1, 1, 1, 2)
    shift, multiplier = np.arange(count) % 20, 1 + 2 * np.arange(count)
    shift[0], multiplier[0] = 35, (1 << multiplier_bits) - 1
    multiplier[1:9] = 1 << np.arange(8)  # ties
    unit = np.where(np.arange(count), 1, ((1 << value_bits - 1) - 1) // (127 * 510))
    bias, zero = np.full(count, bias), np.full(count, zero)
    finish = ScaleFinish.build(np.full(count, said_bits or value_bits), multiplier, shift, "half_even", 3, -300, 300)
    for form in FORMS:
        fast = DirectConv.build(shape, Activations(8), [weights], ones(1), unit, zero, bias, form)
        values = fast.values(x.astype(np.int16), 0)
        wanted, _ = ScaleRequantizer(56, 24, "half_even").compute(values, multiplier, shift, 3, -300, 300)
        done = fast.requantising(finish)
        assert np.array_equal(done.codes(x.astype(np.int16), 0), wanted)
        yield done._constants.real.shape[1] > 0, done._constants.proved


def test_doubles_round_where_they_hold_every_term():
    """A bit more in the value, and ties are looked at again; one more in a term, and 64-bit integers do it."""
    assert set(rescaled(29, 0, 0)) == {(True, True)}
    assert set(rescaled(28, 1 << 26, 1 << 16)) == {(True, True)}
    assert set(rescaled(30, 0, 0)) == {(True, False)}
    assert set(rescaled(36, 1 << 34, 1 << 16)) == {(True, False)}
    assert set(rescaled(29, 1 << 50, 0, 8, 53)) == {(True, False)}
    assert set(rescaled(29, 1 << 51, 0, 8, 53)) == {(False, False)}
    assert set(rescaled(29, 0, 1 << 42, 8, 53)) == {(True, False)}
    assert set(rescaled(29, 0, 1 << 43, 8, 53)) == {(False, False)}


@pytest.mark.parametrize("channels", [32, 33])
def test_a_product_that_doubles_round_onto_a_tie_is_looked_at_again(channels):
    """(2**n - 1) * (2**n + 1), three and seven times, are just below halves of odd powers of two."""
    place = np.arange(channels) % 4
    bias = np.array([3 * (2**29 - 1), -3 * (2**29 - 1), 7 * (2**28 - 1), -7 * (2**28 - 1)])[place]
    multiplier, shift = np.array([2**29 + 1, 2**29 + 1, 2**28 + 1, 2**28 + 1])[place], np.array([59, 59, 57, 57])[place]
    finish = ScaleFinish.build(np.full(channels, 32), multiplier, shift, "half_even", 0, -8, 7)
    wanted, _ = ScaleRequantizer(56, 31).compute(bias.reshape(1, -1, 1, 1), multiplier, shift, 0, -8, 7)
    assert finish.even_ties
    assert not finish.doubles
    assert (np.rint(bias * np.ldexp(multiplier.astype(np.float64), -shift)) != wanted.ravel()).all()
    shape, none = ConvShape(1, channels), np.zeros(channels, dtype=np.int64)
    for form in FORMS:
        fast = DirectConv.build(
            shape, Activations(4), [np.ones(shape.weight_shape)], ones(1), none + 1, none, bias, form
        )
        done = fast.requantising(finish)
        assert done._constants.real.shape[1]
        assert np.array_equal(done.codes(np.zeros((1, 1, 1, 1), dtype=np.int16), 0), wanted)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rounding", ["half_even", "floor"])
def test_the_last_pixels_of_a_row_have_input_sums_and_ties_of_their_own(form, rounding):
    """13 pixels of 32 channels: five are left over from rows of eight; in the last one a product rounds onto a tie."""
    rng = np.random.default_rng(12)
    shape = ConvShape(3, 32)
    weights, x = rng.integers(-8, 8, shape.weight_shape), rng.integers(0, 16, (1, 3, 13, 1)).astype(np.int16)
    zero, bias = rng.integers(-3, 4, 32), rng.integers(-(1 << 24), 1 << 24, 32)
    multiplier, shift = np.full(32, 2**29 + 1), np.full(32, 54)
    weights[7], zero[7], shift[7] = 0, 1, 59
    bias[7] = 3 * (2**29 - 1) + x[0, :, 12, 0].sum()
    values = np.einsum("oi,nihw->nohw", weights[:, :, 0, 0], x) - (
        zero.reshape(-1, 1, 1) * x.sum(axis=1, keepdims=True)
    )
    values = values + bias.reshape(-1, 1, 1)
    fast = DirectConv.build(shape, Activations(4), [weights], ones(3), ones(32), zero, bias, form)
    assert np.array_equal(fast.values(x, 0), values)
    wanted, _ = ScaleRequantizer(56, 31, rounding).compute(values, multiplier, shift, 3, -128, 127)
    assert wanted[0, 7, 12, 0] == 3 + 1
    finish = ScaleFinish.build(np.full(32, 32), multiplier, shift, rounding, 3, -128, 127)
    assert np.array_equal(fast.requantising(finish).codes(x, 0), wanted)


@pytest.mark.parametrize("form", FORMS)
def test_fused_thresholds_count_as_the_requantiser_does(form):
    rng = np.random.default_rng(6)
    shape = ConvShape(7, 33, (2, 2), groups=1)
    weights, x = rng.integers(-8, 8, shape.weight_shape), rng.integers(0, 16, (3, 7, 6, 5)).astype(np.int16)
    zero, bias = rng.integers(-3, 3, 33), rng.integers(-50, 50, 33)
    fast = DirectConv.build(shape, Activations(4), [weights], ones(7), ones(33), zero, bias, form)
    values = fast.values(x, 0)
    thresholds = rng.choice(values.ravel(), (33, 15))
    descending = rng.integers(0, 2, 33).astype(bool)
    table = rng.integers(0, 200, 16)
    wanted = ThresholdRequantizer(40, 4).compute(values, thresholds, descending)
    found = fast.requantising(ThresholdFinish.build(thresholds, descending, table)).codes(x, 0)
    assert np.array_equal(found, table[wanted])


@pytest.mark.parametrize("signs", [None, False, True])
def test_bits_that_are_counted_are_the_products_of_planes(signs):
    """Numbers with and without a sign, planes of 0 and 1 and of -1 and +1; channels that fill no word."""
    rng = np.random.default_rng(10)
    for channels, kernel, dilation, signed in [
        (33, (3, 2), (1, 1), False),
        (64, (1, 3), (1, 2), True),
        (5, (1, 1), (1, 1), True),
    ]:
        shape = ConvShape(channels, 19, kernel, (2, 1), (1, 0, 2, 1), dilation)
        numbers = signs is None
        bits = 4 if numbers else 3
        activations = Activations(bits, signed=numbers and signed, planes=not numbers, signs=bool(signs))
        low = -8 if activations.signed else 0
        x, pad = rng.integers(low, low + (1 << bits), (3, channels, 9, 8)).astype(np.int16), low + 5
        planes = rng.integers(0, 2, (2, *shape.weight_shape))
        coefficients = rng.integers(-3000, 3000, (2, 1 if numbers else bits, 19))
        zero, bias = rng.integers(-9, 9, 19), rng.integers(-900, 900, 19)
        counted = DirectConv.of_planes(shape, activations, planes, coefficients, zero, bias)
        weights = [(coefficients[:, each].reshape(2, -1, 1, 1, 1) * (2 * planes - 1)).sum(axis=0)
                   for each in range(coefficients.shape[1])]  # fmt: skip
        fast = DirectConv.build(shape, activations, weights, ones(channels), ones(19), zero, bias, FORMS[0])
        assert counted.passes == 2 * bits
        values = fast.values(x, pad)
        assert np.array_equal(counted.values(x, pad), values)
        limits = ThresholdFinish.build(rng.choice(values.ravel(), (19, 15)), rng.integers(0, 2, 19), range(16))
        assert np.array_equal(counted.requantising(limits).codes(x, pad), fast.requantising(limits).codes(x, pad))
        scale = ScaleFinish.build(np.full(19, 30), np.full(19, 3), np.full(19, 7), "half_even", 3, -99, 99)
        assert np.array_equal(counted.requantising(scale).codes(x, pad), fast.requantising(scale).codes(x, pad))


def test_a_plane_of_bits_is_one_column_whose_scale_is_rounded_in_doubles():
    rng = np.random.default_rng(11)
    shape, planes = ConvShape(40, 32), rng.integers(0, 2, (1, 32, 40, 1, 1))
    x, bias = rng.integers(0, 2, (2, 40, 6, 6)).astype(np.int16), rng.integers(-9, 9, 32)
    counted = DirectConv.of_planes(
        shape, Activations(1, planes=True, signs=True), planes, np.full((1, 1, 32), 5), 0 * bias, bias
    )
    scale = ScaleFinish.build(np.full(32, 12), np.full(32, 3), np.full(32, 1), "half_even", 0, -99, 99)
    done = counted.requantising(scale)
    assert done._constants.real.shape[1] > 0
    exact = np.einsum("nchw,oc->nohw", 2 * x - 1, 2 * planes[0, :, :, 0, 0] - 1) * 5 + bias.reshape(-1, 1, 1)
    assert np.array_equal(done.codes(x, 0), np.clip(np.rint(exact * 1.5), -99, 99))


def test_counting_pays_for_few_planes_of_many_channels(monkeypatch):
    monkeypatch.setattr(direct, "COUNTS_BITS", True)
    assert direct.counting_pays(ConvShape(128, 128), 4, 6)
    assert not direct.counting_pays(ConvShape(128, 128), 16, 1)
    assert not direct.counting_pays(ConvShape(3, 64), 1, 1)
    monkeypatch.setattr(direct, "COUNTS_BITS", False)
    assert not direct.counting_pays(ConvShape(128, 128), 1, 9)


def test_batches_of_many_images_and_of_one_agree():
    rng = np.random.default_rng(7)
    shape = ConvShape(5, 18, (3, 3), (2, 2), (1, 1, 1, 1))
    x = rng.integers(0, 16, (420, 5, 17, 15)).astype(np.int16)
    fast = plain(shape, Activations(4), [rng.integers(-8, 8, shape.weight_shape)], FORMS[0])
    assert x.size > 2 * direct.WORK_BYTES
    assert np.array_equal(fast.values(x, 0), np.concatenate([fast.values(each[None], 0) for each in x]))


def test_a_form_that_the_processor_has_not_is_refused(monkeypatch):
    arguments = ConvShape(1, 1), Activations(4), [np.ones((1, 1, 1, 1))], *[ones(1)] * 4
    monkeypatch.setattr(direct, "VNNI", False)
    assert fast_forms() == ("portable",)
    with pytest.raises(UnsupportedError, match="form vnni must run on a processor with AVX-512 VNNI or AVX-VNNI"):
        DirectConv.build(*arguments, "vnni")
    with pytest.raises(FormatError, match="form must be one of vnni, portable, not 'quick'"):
        DirectConv.build(*arguments, "quick")


def test_weights_of_another_shape_are_refused():
    with pytest.raises(FormatError, match=r"weights must have shape \(1, 2, 1, 1\), not \[\(1, 1, 1, 1\)\]"):
        plain(ConvShape(2, 1), Activations(4), [np.ones((1, 1, 1, 1), int)], "portable")
    with pytest.raises(FormatError, match="weights must be one array, or one for each plane of activations, not 1"):
        plain(ConvShape(1, 1), Activations(4, planes=True), [np.ones((1, 1, 1, 1), int)], "portable")
