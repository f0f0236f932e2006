"""The faithful layer kernel, against the same layer in plain integers."""

import dataclasses
import inspect

import numba
import numpy as np
import pytest
from gatewise.kernels import conv
from gatewise.kernels.align import alignment_factors
from gatewise.kernels.conv import BLOCK_PIXELS, ConvShape, Operands, conv2d
from gatewise.kernels.digits import DigitCounts, split_digits, split_rows
from gatewise.kernels.dot import DotProductRow
from gatewise.kernels.errors import FormatError
from gatewise.kernels.mac import MacFormat
from hypothesis import given, settings
from hypothesis import strategies as st

OVERFLOWS = ["saturate", "wrap"]


@dataclasses.dataclass
class Layer:
    """A layer's geometry, widths and data: what both realisations are given."""

    shape: ConvShape
    operands: Operands
    fmt: MacFormat
    lanes: int
    x: np.ndarray
    weights: np.ndarray
    kind: str = "shift"
    amounts: np.ndarray | None = None
    pad_code: int = 0
    first_lane: int = 0

    def __post_init__(self):
        if self.amounts is None:
            self.amounts = np.full(self.shape.in_channels, int(self.kind == "mul"))

    @property
    def numbers(self):
        """The number types that the kernel runs this layer in."""
        factors = alignment_factors(self.kind, self.amounts)
        return conv._numbers(factors, self.shape, self.operands, self.fmt, self.lanes, self.first_lane)


def code_limits(bits, signed):
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def codes(rng, bits, signed, shape, extreme=0.0):
    """Random codes; each is one of the two ends with probability `extreme`."""
    low, high = code_limits(bits, signed)
    values = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < extreme, rng.choice([low, high], shape), values)


def random_layer(seed, shape, operands, fmt, lanes, size, images=1, kind="shift", extreme=0.0, pad_code=0, most=None):
    rng = np.random.default_rng(seed)
    most = (8 if kind == "shift" else 255) if most is None else most
    return Layer(
        shape,
        operands,
        fmt,
        lanes,
        codes(rng, operands.a_bits, operands.a_signed, (images, shape.in_channels, *size), extreme),
        codes(rng, operands.w_bits, operands.w_signed, shape.weight_shape, extreme),
        kind,
        rng.integers(0, most + 1, shape.in_channels),
        pad_code,
    )


def run(layer):
    digits = split_digits(layer.weights, layer.operands.w_bits, layer.operands.w_signed)
    factors = alignment_factors(layer.kind, layer.amounts)
    return conv2d(
        layer.x, digits, factors, layer.shape, layer.operands, layer.fmt, layer.lanes, layer.pad_code, layer.first_lane
    )


def description(layer):
    """The layer as the reference reads it."""
    return {
        **{name: getattr(layer.shape, name) for name in ("stride", "padding", "dilation", "groups")},
        **dataclasses.asdict(layer.operands),
        "lanes": layer.lanes,
        "first_lane": layer.first_lane,
        "pad_code": layer.pad_code,
        "kind": layer.kind,
        "amounts": layer.amounts.tolist(),
    }


def expect(reference, layer):
    widths = dataclasses.asdict(layer.fmt)
    return reference.convolved(layer.x.tolist(), layer.weights.tolist(), description(layer), widths)


def assert_equal(found, expected):
    assert all(part.dtype == np.int64 for part in found)
    assert found.acc.tolist() == expected["acc"]
    assert found.input_sum.tolist() == expected["input_sum"]
    assert found.product_overflows.tolist() == expected["product"]
    assert found.align_overflows.tolist() == expected["align"]
    assert found.acc_overflows.tolist() == expected["acc_over"]


def assert_layer(reference, layer):
    found = run(layer)
    assert_equal(found, expect(reference, layer))
    return found


# Channels of different widths


def mixed_layer(seed, operands, fmt, lanes, first_lane=0, kind="shift"):
    """A layer of two groups; rows and words that have one digit have codes of that, the others any."""
    layer = random_layer(seed, ConvShape(12, 6, (2, 1), groups=2, padding=(1, 0, 0, 1)), operands, fmt, lanes, (3, 2),
                         kind=kind, extreme=0.3)  # fmt: skip
    layer.first_lane = first_lane
    rng = np.random.default_rng(seed)
    words = -(-(first_lane + 12) // lanes)
    counts = DigitCounts(rng.integers(1, 3, 6), rng.integers(1, 3, words))
    counts.rows[:2], counts.words[:1] = (1, 2), 1
    narrow = counts.rows == 1
    layer.weights[narrow] = codes(rng, 4, True, layer.weights[narrow].shape, 0.3)
    narrow = counts.words[(first_lane + np.arange(12)) // lanes] == 1
    layer.x[:, narrow] = codes(rng, 4, operands.a_signed, layer.x[:, narrow].shape, 0.3)
    return layer, counts


def run_mixed(layer, counts):
    return conv2d(
        layer.x, split_rows(layer.weights, counts.rows, 2), alignment_factors(layer.kind, layer.amounts), layer.shape,
        layer.operands, layer.fmt, layer.lanes, layer.pad_code, layer.first_lane, counts=counts,
    )  # fmt: skip


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("seed", range(6))
def test_rows_and_words_of_one_digit_run_as_the_reference_runs_them(reference, monkeypatch, seed, overflow):
    fmt = MacFormat(product=6 + seed % 3, align=8 + seed, acc=12 + seed, overflow=overflow)
    layer, counts = mixed_layer(seed, Operands(8, bool(seed % 2), 7), fmt, 4, first_lane=seed % 3)
    monkeypatch.setattr(conv, "BLOCK_PIXELS", 5)
    given = description(layer) | {"w_counts": counts.rows.tolist(), "a_counts": counts.words.tolist()}
    expected = reference.convolved(layer.x.tolist(), layer.weights.tolist(), given, dataclasses.asdict(fmt))
    found = run_mixed(layer, counts)
    assert_equal(found, expected)
    assert found.acc_overflows.any()
    # The split is part of the result, and no part of it where nothing overflows.
    assert run(layer).acc.tolist() != expected["acc"]
    layer.fmt = MacFormat(align=24, acc=48)
    assert run_mixed(layer, counts).acc.tolist() == run(layer).acc.tolist()


def test_digit_counts_must_be_those_of_the_rows_and_words():
    layer, counts = mixed_layer(1, Operands(8, False, 8), MacFormat(), 4)
    with pytest.raises(FormatError, match="digit counts must be of 6 rows and 3 words, not 6 and 4"):
        run_mixed(layer, DigitCounts(counts.rows, np.ones(4, dtype=np.int64)))


# Any layer


@st.composite
def layers(draw, grouped=False):
    group_count = draw(st.integers(2, 4)) if grouped else 1
    lanes = draw(st.sampled_from([4, 4, 4, 8, 8, 16, 32, 64]))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 - padding[axis] - padding[axis + 2] for axis in (0, 1)]
    size = tuple(max(1, least) + draw(st.sampled_from([0, 1, 2, 3, 5])) for least in reach)
    kind = draw(st.sampled_from(["shift", "mul"]))
    operands = Operands(
        a_bits=draw(st.integers(1, 4 if kind == "mul" else 8)),
        a_signed=draw(st.booleans()),
        w_bits=draw(st.sampled_from([*range(1, 5), *([] if kind == "mul" else [5, 6, 7, 8, 16])])),
        w_signed=draw(st.sampled_from([True, True, False])),
    )
    fmt = MacFormat(
        product=draw(st.sampled_from([6, 7, 8, 8, 8, 8, 10])),
        align=draw(st.sampled_from([8, 10, 11, 12, 12, 14, 16, 16, 24])),
        acc=draw(st.sampled_from([12, 12, 13, 14, 15, 16, 18, 20, 24, 32, 48])),
        overflow=draw(st.sampled_from(OVERFLOWS)),
    )
    shape = ConvShape(
        group_count * draw(st.sampled_from([1, 2, 3, 4] if grouped else [1, 3, 4, 5, 7, 9, 14, 17])),
        group_count * draw(st.sampled_from([1, 2] if grouped else [2, 3, 4])),
        kernel,
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding,
        dilation,
        group_count,
    )
    pad_code = draw(st.integers(*code_limits(operands.a_bits, operands.a_signed)))
    layer = random_layer(
        draw(st.integers(0, 2**32 - 1)),
        shape,
        operands,
        fmt,
        lanes,
        size,
        images=draw(st.integers(1, 2)),
        kind=kind,
        extreme=draw(st.sampled_from([0.0, 0.4, 0.8])),
        pad_code=pad_code,
        most=draw(st.sampled_from([0, 4, 8, 8] if kind == "shift" else [3, 255, 255])),
    )
    return dataclasses.replace(layer, first_lane=draw(st.sampled_from([0, 0, 1, 3, lanes - 1, 5 * lanes + 2])))


@settings(max_examples=400)
@given(layer=layers())
def test_any_layer_equals_the_reference_with_every_overflow_counted(reference, layer):
    assert_layer(reference, layer)


@settings(max_examples=150)
@given(layer=layers(grouped=True))
def test_any_grouped_layer_equals_the_reference_group_by_group(reference, layer):
    assert_layer(reference, layer)


@pytest.mark.parametrize("a_signed", [False, True])
@pytest.mark.parametrize("w_bits", [*range(1, 9), 16])
@pytest.mark.parametrize("a_bits", [*range(1, 9), 11, 16])
def test_every_pair_of_widths_is_exact_where_nothing_overflows(reference, a_bits, w_bits, a_signed):
    a_signed = a_signed or a_bits > 8  # wider codes are signed
    operands = Operands(a_bits, a_signed, w_bits)
    shape = ConvShape(5, 2, (2, 2), padding=(1, 0, 0, 1))
    pad_code = code_limits(a_bits, a_signed)[1]
    fmt = MacFormat(align=24, acc=48)
    layer = random_layer(a_bits * 17 + w_bits, shape, operands, fmt, 4, (2, 3), 2, extreme=0.5, pad_code=pad_code)
    found = assert_layer(reference, layer)
    assert found.acc.tolist() == reference.exact_convolution(
        layer.x.tolist(), layer.weights.tolist(), description(layer)
    )
    assert not any(counts.any() for counts in found[2:])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_codes_may_come_in_any_integer_type_and_layout(reference, dtype):
    layer = random_layer(
        3, ConvShape(3, 2, (3, 3), padding=(1, 1, 1, 1)), Operands(4, False, 4), MacFormat(), 4, (4, 4)
    )
    layer.x = layer.x.astype(dtype).transpose(0, 1, 3, 2)
    layer.pad_code = 9
    assert_layer(reference, layer)


# Geometry


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (ConvShape(3, 2, (3, 3), (2, 1), (1, 0, 2, 3)), (5, 4)),
        (ConvShape(3, 2, (2, 3), (1, 2), (0, 2, 1, 0), (2, 2)), (4, 6)),
        (ConvShape(6, 6, (3, 3), (1, 1), (1, 1, 1, 1), groups=6), (4, 4)),
        (ConvShape(4, 8, (3, 3), (2, 2), (1, 1, 0, 0), groups=4), (5, 5)),
        (ConvShape(6, 4, (1, 2), groups=2), (2, 3)),
        (ConvShape(11, 3), (1, 1)),
        (ConvShape(2, 2, (3, 1), padding=(2, 0, 2, 0)), (1, 1)),
        (ConvShape(2, 1, (5, 5), padding=(4, 4, 4, 4), stride=(3, 3)), (2, 2)),
    ],
    ids=["asymmetric", "dilated", "depthwise", "depthwise-x2", "grouped", "linear", "column", "mostly-padding"],
)
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_every_geometry_equals_the_reference_while_widths_overflow(reference, shape, size, overflow):
    fmt = MacFormat(align=11, acc=14, overflow=overflow)
    layer = random_layer(7, shape, Operands(4, False, 4), fmt, 4, size, 2, extreme=0.7, pad_code=15)
    found = assert_layer(reference, layer)
    assert found.align_overflows.any()
    assert found.acc.shape[2:] == shape.output_size(*size)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("pixels", [BLOCK_PIXELS - 1, BLOCK_PIXELS, BLOCK_PIXELS + 1])
def test_pixels_around_a_block_boundary_are_each_computed_once(reference, pixels, overflow):
    fmt = MacFormat(align=10, acc=13, overflow=overflow)
    layer = random_layer(pixels, ConvShape(3, 2), Operands(5, True, 4), fmt, 4, (1, pixels), extreme=0.5)
    layer.amounts[:] = 8
    layer.weights[0], layer.weights[1] = 7, -7
    found = assert_layer(reference, layer)
    assert found.acc_overflows.all()


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_a_block_may_end_within_a_row_of_a_later_image(reference, overflow):
    fmt = MacFormat(align=10, acc=14, overflow=overflow)
    shape = ConvShape(4, 3, (3, 2), (1, 2), (1, 1, 1, 0), groups=1)
    layer = random_layer(11, shape, Operands(4, False, 5), fmt, 4, (11, 13), 9, extreme=0.5, pad_code=3)
    found = assert_layer(reference, layer)
    assert found.acc[:, 0].size > BLOCK_PIXELS
    assert found.acc[0, 0].size % BLOCK_PIXELS
    assert found.acc_overflows.all()


def test_images_do_not_meet():
    layer = random_layer(
        12, ConvShape(3, 2, (3, 3), padding=(1, 1, 1, 1)), Operands(4, True, 4), MacFormat(), 4, (5, 5), 4
    )
    together = run(layer)
    for n in range(4):
        alone = run(dataclasses.replace(layer, x=layer.x[n : n + 1]))
        assert together.acc[n].tolist() == alone.acc[0].tolist()
        assert together.input_sum[n].tolist() == alone.input_sum[0].tolist()


def test_no_images_make_no_pixels():
    layer = random_layer(1, ConvShape(3, 2), Operands(4, True, 4), MacFormat(), 4, (5, 5), 0)
    found = run(layer)
    assert found.acc.shape == (0, 2, 5, 5)
    assert found.input_sum.shape == (0, 1, 5, 5)


# Overflow where it really occurs


@pytest.mark.parametrize("kind", ["shift", "mul"])
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("bits", [10, 11, 12])
def test_a_narrow_alignment_overflows_and_counts_each_channel_apart(reference, bits, overflow, kind):
    fmt = MacFormat(align=bits, overflow=overflow)
    layer = random_layer(bits, ConvShape(6, 4, (2, 2)), Operands(4, False, 4), fmt, 4, (4, 4), 2, kind, extreme=0.5)
    layer.weights[2] = 0
    found = assert_layer(reference, layer)
    assert found.align_overflows[[0, 1, 3]].all()
    assert found.align_overflows[2] == 0
    assert len(set(found.align_overflows.tolist())) == 4
    assert not found.acc_overflows.any()
    assert not found.product_overflows.any()


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("bits", [14, 16, 18, 20])
def test_a_narrow_accumulator_overflows_and_counts_each_channel_apart(reference, bits, overflow):
    fmt = MacFormat(acc=bits, overflow=overflow)
    layer = random_layer(bits, ConvShape(8, 3, (3, 3)), Operands(8, False, 8), fmt, 8, (5, 4), extreme=0.6)
    layer.weights[0] = np.clip(np.abs(layer.weights[0]), 1, 127)
    layer.weights[1] = -layer.weights[0]
    layer.weights[2] = 0
    layer.weights[2, 0, 0, 0] = 1
    layer.amounts[:] = 3
    found = assert_layer(reference, layer)
    assert found.acc_overflows[:2].all()
    assert found.acc_overflows[2] == 0
    if overflow == "saturate":
        assert found.acc[:, 0].max() == 2 ** (bits - 1) - 1
        assert found.acc[:, 1].min() == -(2 ** (bits - 1))


@pytest.mark.parametrize("kind", ["shift", "mul"])
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize(("a_signed", "w_signed"), [(False, True), (True, True), (False, False), (True, False)])
@pytest.mark.parametrize("bits", [6, 7])
def test_a_narrow_product_overflows_in_every_sign_mode(reference, bits, a_signed, w_signed, overflow, kind):
    fmt = MacFormat(product=bits, align=12, overflow=overflow)
    operands = Operands(4, a_signed, 4, w_signed)
    layer = random_layer(bits, ConvShape(6, 3, (2, 2)), operands, fmt, 4, (4, 4), 2, kind, extreme=0.6, most=4)
    layer.weights[1] = 0
    found = assert_layer(reference, layer)
    assert found.product_overflows[[0, 2]].all()
    assert found.product_overflows[1] == 0


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_all_three_widths_overflow_in_one_layer_of_many_digit_pairs(reference, overflow):
    fmt = MacFormat(product=7, align=11, acc=20, overflow=overflow)
    shape = ConvShape(10, 3, (3, 3), padding=(1, 1, 1, 1))
    layer = random_layer(21, shape, Operands(8, True, 8), fmt, 4, (4, 4), extreme=0.6, pad_code=-128)
    found = assert_layer(reference, layer)
    assert all(counts.all() for counts in found[2:])


def test_at_the_default_widths_only_an_unsigned_low_product_can_overflow(reference):
    layer = random_layer(22, ConvShape(8, 3), Operands(4, False, 8), MacFormat(), 8, (4, 4), extreme=1.0)
    layer.amounts[:] = 8
    found = assert_layer(reference, layer)
    assert found.align_overflows.any()  # 15 * 15 << 8
    layer = random_layer(22, ConvShape(8, 3), Operands(4, False, 4), MacFormat(), 8, (4, 4), extreme=1.0)
    layer.amounts[:] = 8
    assert not assert_layer(reference, layer).align_overflows.any()


def test_padding_overflows_like_any_other_code(reference):
    fmt = MacFormat(align=10)
    layer = random_layer(23, ConvShape(4, 2, (3, 3), padding=(2, 2, 2, 2)), Operands(4, False, 4), fmt, 4, (1, 1))
    layer.x[:] = 0
    layer.weights[:] = 7
    layer.amounts[:] = 8
    layer.pad_code = 15
    found = assert_layer(reference, layer)
    assert found.align_overflows.tolist() == [4 * 8 * 9] * 2  # at each of 9 pixels, 8 taps of padding in 4 lanes


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("lanes", [4, 8, 16, 32, 64])
def test_every_lane_count_equals_the_reference_where_lane_groups_matter(reference, lanes, overflow):
    fmt = MacFormat(align=12, acc=16, overflow=overflow)
    layer = random_layer(5, ConvShape(70, 3), Operands(5, False, 6), fmt, lanes, (2, 3), extreme=0.5)
    found = assert_layer(reference, layer)
    assert found.acc_overflows.any()


def test_bits_depend_on_the_lane_count_only_where_something_overflows(reference):
    operands = Operands(4, False, 4)
    narrow = random_layer(6, ConvShape(70, 3), operands, MacFormat(acc=14), 4, (3, 3), extreme=0.5)
    wide = dataclasses.replace(narrow, fmt=MacFormat(acc=40))
    results = {
        (name, lanes): run(dataclasses.replace(layer, lanes=lanes)).acc.tolist()
        for name, layer in (("narrow", narrow), ("wide", wide))
        for lanes in (4, 64)
    }
    assert results["narrow", 4] != results["narrow", 64]
    assert results["wide", 4] == results["wide", 64]


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("first_lane", [1, 2, 3, 4, 7])
def test_a_first_lane_is_as_many_channels_of_no_weight_before_the_input(overflow, first_lane):
    fmt = MacFormat(product=7, align=12, acc=12, overflow=overflow)
    shape = ConvShape(9, 3, (2, 2))
    layer = random_layer(first_lane, shape, Operands(4, False, 4), fmt, 4, (6, 6), extreme=0.8)
    wider = dataclasses.replace(
        layer,
        shape=dataclasses.replace(shape, in_channels=9 + first_lane),
        x=np.pad(layer.x, ((0, 0), (first_lane, 0), (0, 0), (0, 0))),
        weights=np.pad(layer.weights, ((0, 0), (first_lane, 0), (0, 0), (0, 0))),
        amounts=np.pad(layer.amounts, (first_lane, 0)),
    )
    found, expected = run(dataclasses.replace(layer, first_lane=first_lane)), run(wider)
    assert all(np.array_equal(part, other) for part, other in zip(found, expected, strict=True))
    assert all(counts.all() for counts in found[2:])
    # Wrapped sums come out the same in any order; how often they wrapped does not.
    part = "acc" if overflow == "saturate" else "acc_overflows"
    assert np.array_equal(getattr(found, part), getattr(run(layer), part)) == (first_lane == 4)


def test_groups_that_share_a_word_are_summed_word_by_word(reference):
    fmt = MacFormat(align=12, acc=12)
    shape = ConvShape(18, 6, (2, 2), groups=3)  # words of 4: channels 0..5 are 4 + 2, 6..11 are 2 + 4, 12..17 are 4 + 2
    layer = random_layer(8, shape, Operands(4, False, 4), fmt, 4, (4, 4), extreme=0.5)
    found = assert_layer(reference, layer)
    assert found.acc_overflows.all()
    middle = dataclasses.replace(
        layer,
        shape=ConvShape(6, 2, (2, 2)),
        x=layer.x[:, 6:12],
        weights=layer.weights[2:4],
        amounts=layer.amounts[6:12],
    )
    assert np.array_equal(run(dataclasses.replace(middle, first_lane=2)).acc[:, :], found.acc[:, 2:4])
    assert not np.array_equal(run(middle).acc, found.acc[:, 2:4])


# Number paths: the kernel computes in the narrowest types that are exact


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize(
    ("fmt", "operands", "lanes", "most", "numbers"),
    [
        (MacFormat(align=12, acc=16), Operands(4, False, 4), 16, 8, (np.int16, np.int32)),
        (MacFormat(align=12, acc=18), Operands(8, False, 8), 16, 7, (np.int16, np.int32)),
        (MacFormat(align=14, acc=16), Operands(4, True, 4), 4, 8, (np.int16, np.int32)),
        (MacFormat(align=10, acc=14), Operands(8, True, 8), 64, 7, (np.int16, np.int32)),
        (MacFormat(product=6, align=10, acc=14), Operands(8, True, 8), 64, 7, (np.int16, np.int32)),
        (MacFormat(align=13, acc=16), Operands(4, False, 4), 16, 8, (np.int32, np.int32)),
        (MacFormat(align=12, acc=18), Operands(8, False, 8), 16, 8, (np.int32, np.int32)),
        (MacFormat(align=10, acc=14), Operands(8, True, 8), 64, 8, (np.int32, np.int32)),
        (MacFormat(align=10, acc=14), Operands(8, True, 4), 64, 8, (np.int16, np.int32)),
        (MacFormat(product=7, align=16, acc=20), Operands(8, False, 8), 16, 8, (np.int32, np.int32)),
        (MacFormat(align=8, acc=32), Operands(8, True, 16), 64, 7, (np.int16, np.int64)),
        (MacFormat(align=24, acc=34), Operands(8, False, 16), 64, 8, (np.int32, np.int64)),
        (MacFormat(align=12, acc=48), Operands(8, False, 8), 16, 8, (np.int32, np.int32)),
    ],
)
def test_each_number_path_is_exact_at_the_ends_of_its_types(reference, fmt, operands, lanes, most, numbers, overflow):
    fmt = dataclasses.replace(fmt, overflow=overflow)
    shape = ConvShape(lanes + 3, 4, (2, 2))
    rng = np.random.default_rng(lanes)
    layer = random_layer(lanes, shape, operands, fmt, lanes, (3, 3), extreme=0.8)
    layer.amounts = np.where(rng.random(shape.in_channels) < 0.8, most, 0)
    # All four signs of full-scale operands in rows of their own.
    low, high = code_limits(operands.w_bits, operands.w_signed)
    layer.weights[0], layer.weights[1] = low, high
    layer.x[0, :, 0, :], layer.x[0, :, 2, :] = code_limits(operands.a_bits, operands.a_signed)
    assert layer.numbers == numbers
    found = assert_layer(reference, layer)
    if fmt.acc not in (32, 48):
        assert found.acc_overflows.any()


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("acc", [31, 32, 33, 36])
def test_accumulators_about_the_32_bit_seam_overflow_at_their_own_width(reference, acc, overflow):
    fmt = MacFormat(align=24, acc=acc, overflow=overflow)
    layer = random_layer(acc, ConvShape(64, 2, (2, 2)), Operands(8, False, 16), fmt, 64, (2, 3), extreme=1.0)
    layer.amounts[:] = 8
    layer.weights[0], layer.weights[1] = 32767, -32768
    layer.x[:] = 255
    found = assert_layer(reference, layer)
    assert found.acc_overflows.all()
    if overflow == "saturate":
        assert found.acc[:, 0].max() == 2 ** (acc - 1) - 1
        assert found.acc[:, 1].min() == -(2 ** (acc - 1))


def test_32_bit_numbers_hold_the_accumulator_only_where_the_reduction_cannot_pass_them(reference):
    long = random_layer(1, ConvShape(64, 1, (3, 3)), Operands(8, False, 8), MacFormat(align=20), 16, (3, 3))
    short = random_layer(1, ConvShape(16, 1), Operands(4, False, 4), MacFormat(align=20), 16, (3, 3))
    assert (long.numbers[1], short.numbers[1]) == (np.int64, np.int32)
    assert_layer(reference, long)
    assert_layer(reference, short)


# The faithful kernel and the row's golden model are one arithmetic


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_a_layer_is_a_sequence_of_dot_product_row_steps(overflow):
    fmt = MacFormat(product=7, align=11, acc=15, overflow=overflow)
    layer = random_layer(31, ConvShape(8, 1), Operands(8, True, 8), fmt, 8, (1, 6), extreme=0.5)
    row = DotProductRow(fmt, 8)
    acc = np.zeros(6, np.int64)
    counts = np.zeros(3, np.int64)
    a = split_digits(layer.x[0, :, 0].T, 8, True)
    w = split_digits(layer.weights[0, :, 0, 0], 8, True)
    for j in range(2):
        for i in range(2):
            step = row.compute(acc, a[i], w[j], layer.amounts, i == j == 0, i + j)
            acc = step.acc
            counts += [part.sum() for part in step[1:]]
    found = run(layer)
    assert found.acc.reshape(-1).tolist() == acc.tolist()
    assert [part.item() for part in found[2:]] == counts.tolist()
    assert counts.all()


# Input sums


def test_the_input_sum_is_exact_whatever_the_widths_do_and_padding_counts_in_it(reference):
    shape = ConvShape(4, 4, (2, 2), padding=(1, 1, 0, 0), groups=2)
    operands = Operands(8, True, 4)
    layer = random_layer(41, shape, operands, MacFormat(6, 8, 12), 4, (2, 2), extreme=1.0, pad_code=-3)
    layer.amounts[:] = [8, 8, 0, 1]
    found = assert_layer(reference, layer)
    corner = layer.x[0, :, 0, 0]
    assert found.input_sum[0, 0, 0, 0] == 256 * (corner[0] - 9 + corner[1] - 9)
    assert found.input_sum[0, 1, 0, 0] == corner[2] - 9 + 2 * (corner[3] - 9)
    assert found.align_overflows.any()


# Planted faults


def base_layer():
    fmt = MacFormat(product=7, align=11, acc=16)
    shape = ConvShape(9, 3, (3, 2), (1, 1), (1, 0, 0, 1), (1, 1))
    return random_layer(50, shape, Operands(8, False, 8), fmt, 4, (4, 4), 2, extreme=0.5, pad_code=7)


@pytest.mark.parametrize(
    "fault",
    [
        {"fmt": MacFormat(product=6, align=11, acc=16)},
        {"fmt": MacFormat(product=8, align=11, acc=16)},
        {"fmt": MacFormat(product=7, align=10, acc=16)},
        {"fmt": MacFormat(product=7, align=12, acc=16)},
        {"fmt": MacFormat(product=7, align=11, acc=15)},
        {"fmt": MacFormat(product=7, align=11, acc=17)},
        {"fmt": MacFormat(product=7, align=11, acc=16, overflow="wrap")},
        {"lanes": 8},
        {"first_lane": 1},
        {"pad_code": 8},
        {"operands": Operands(8, False, 8, w_signed=False)},
        {"shape": ConvShape(9, 3, (3, 2), (1, 1), (0, 1, 1, 0), (1, 1))},
    ],
    ids=lambda fault: str(next(iter(fault.items()))),
)
def test_the_check_catches_a_parameter_one_off(reference, fault):
    layer = base_layer()
    expected = expect(reference, layer)
    assert_equal(run(layer), expected)
    with pytest.raises(AssertionError):
        assert_equal(run(dataclasses.replace(layer, **fault)), expected)


def test_the_check_catches_one_weight_digit_one_activation_and_one_amount(reference):
    layer = base_layer()
    expected = expect(reference, layer)
    for name, index in (("weights", (1, 8, 2, 1)), ("x", (1, 3, 2, 2)), ("amounts", (4,))):
        damaged = getattr(layer, name).copy()
        damaged[index] ^= 1
        with pytest.raises(AssertionError):
            assert_equal(run(dataclasses.replace(layer, **{name: damaged})), expected)


def test_the_check_catches_one_changed_output_sum_or_count(reference):
    layer = base_layer()
    expected, found = expect(reference, layer), run(layer)
    for part in found:
        part.reshape(-1)[-1] += 1
        with pytest.raises(AssertionError):
            assert_equal(found, expected)
        part.reshape(-1)[-1] -= 1
    assert_equal(found, expected)


def test_the_check_catches_digit_pairs_in_another_order(reference, monkeypatch):
    layer = base_layer()
    found = run(layer)
    monkeypatch.setattr(
        reference, "digit_pair_order", lambda w, a: [(j, i) for i in range(a) for j in range(w)], raising=True
    )
    with pytest.raises(AssertionError):
        assert_equal(found, expect(reference, layer))


# Parameters


@pytest.mark.parametrize(
    "arguments",
    [
        {"in_channels": 0},
        {"out_channels": 0},
        {"groups": 0},
        {"kernel": (0, 1)},
        {"stride": (1, 0)},
        {"dilation": (0, 1)},
    ],
)
def test_a_geometry_with_nothing_in_it_is_refused(arguments):
    given_shape = {"in_channels": 4, "out_channels": 4, **arguments}
    with pytest.raises(FormatError) as error:
        ConvShape(**given_shape)
    full = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, **given_shape}
    names = [field.name for field in dataclasses.fields(ConvShape)]
    shape = ", ".join(f"{name}={full[name]!r}" for name in names)
    assert str(error.value) == (
        f"channels, groups, kernel, stride and dilation must be positive, not ConvShape({shape})"
    )


def test_negative_padding_is_refused():
    with pytest.raises(FormatError) as error:
        ConvShape(1, 1, padding=(0, 0, -1, 0))
    assert str(error.value) == "padding must not be negative, not (0, 0, -1, 0)"


def test_a_negative_first_lane_is_refused():
    layer = random_layer(1, ConvShape(2, 2), Operands(4, True, 4), MacFormat(), 4, (1, 1))
    with pytest.raises(FormatError) as error:
        run(dataclasses.replace(layer, first_lane=-1))
    assert str(error.value) == "first_lane must not be negative, not -1"


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 6), (6, 4)])
def test_channels_that_do_not_divide_into_groups_are_refused(inputs, outputs):
    with pytest.raises(FormatError) as error:
        ConvShape(inputs, outputs, groups=3)
    assert str(error.value) == f"channels must divide into 3 groups, not {inputs} -> {outputs}"


def test_a_kernel_that_does_not_fit_is_refused():
    layer = random_layer(1, ConvShape(2, 2, (3, 3), dilation=(2, 1)), Operands(4, True, 4), MacFormat(), 4, (4, 3))
    with pytest.raises(FormatError) as error:
        run(layer)
    assert str(error.value) == "kernel (3, 3) must fit the padded 4 x 3 input"


def test_sizes_and_counts_follow_from_the_geometry():
    shape = ConvShape(6, 4, (3, 2), (2, 1), (1, 0, 0, 1), (2, 3), groups=2)
    assert (shape.group_inputs, shape.group_outputs, shape.weight_shape) == (3, 2, (4, 3, 3, 2))
    assert shape.output_size(9, 8) == ((9 + 1 - 5) // 2 + 1, 8 + 1 - 4 + 1)
    assert shape.macs(9, 8) == 3 * 6 * 4 * 3 * 3 * 2
    assert [Operands(a, True, w).digit_pairs for a, w in ((4, 4), (8, 4), (5, 8), (8, 16))] == [1, 2, 4, 8]


def stepwise(x, parts, shape, operands, fmt, lanes, first_lane):
    """Accumulators and overflow counts of exact rows, a step of one output pixel at a time."""
    top, left, bottom, right = shape.padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows, columns = shape.output_size(x.shape[2] - top - bottom, x.shape[3] - left - right)
    acc = np.zeros((len(x), shape.out_channels, rows, columns), dtype=np.int64)
    overflows = np.zeros(shape.out_channels, dtype=np.int64)
    low, high = fmt.acc_range
    digits = split_digits(x, operands.a_bits, operands.a_signed)
    for n, out, row, column in np.ndindex(*acc.shape):
        group = out // shape.group_outputs
        total = 0
        words = (first_lane + group * shape.group_inputs + np.arange(shape.group_inputs)) // lanes
        for ky, kx, word in (
            (ky, kx, word)
            for ky in range(shape.kernel[0])
            for kx in range(shape.kernel[1])
            for word in np.unique(words)
        ):
            inputs = np.flatnonzero(words == word)
            at = row * shape.stride[0] + ky * shape.dilation[0], column * shape.stride[1] + kx * shape.dilation[1]
            for part in parts:
                for i, digit in enumerate(digits):
                    values = digit[n, group * shape.group_inputs + inputs, *at].astype(np.int64)
                    exact = total + (int((values * part[out, inputs, ky, kx]).sum()) << 4 * i)
                    total = (
                        min(max(exact, low), high)
                        if fmt.overflow == "saturate"
                        else (exact - low) % (1 << fmt.acc) + low
                    )
                    overflows[out] += total != exact
        acc[n, out, row, column] = total
    return acc, overflows


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("a_bits", [3, 8])
@pytest.mark.parametrize("parts", [1, 3])
def test_exact_rows_add_whole_parts_and_limit_in_the_accumulator_alone(parts, a_bits, overflow):
    rng = np.random.default_rng(parts * a_bits)
    shape = ConvShape(6, 4, (2, 3), (2, 1), (1, 0, 1, 2), groups=2)
    operands, fmt = Operands(a_bits, a_bits == 3, 8), MacFormat(product=6, align=8, acc=18, overflow=overflow)
    x = codes(rng, a_bits, operands.a_signed, (2, 6, 5, 4))
    weights = rng.integers(-(1 << 16), (1 << 16) + 1, (parts, *shape.weight_shape))
    found = conv2d(x, weights, np.ones(6, dtype=np.int32), shape, operands, fmt, 4, 0, 2, exact_rows=True)
    acc, overflows = stepwise(x, weights, shape, operands, fmt, 4, 2)
    assert overflows.sum() > 20, "the accumulator never overflows"
    assert np.array_equal(found.acc, acc)
    assert np.array_equal(found.acc_overflows, overflows)
    assert not found.product_overflows.any()
    assert not found.align_overflows.any()
    narrow = split_digits(weights[0] % 8, 4, True), np.ones(6), shape, Operands(a_bits, operands.a_signed, 4)
    assert np.array_equal(found.input_sum, conv2d(x, *narrow, MacFormat(), 4, 0, 2).input_sum)


# Which weights meet a lane in a register tile


def safe_ends_are_exact(safe_weights):
    """Whether the ends are those of brute force, for rows of many kinds and every width of the alignment."""
    rng = np.random.default_rng(12)
    weights = np.arange(-40, 41)
    for align in [*range(8, 17), 24]:
        low, high = -(1 << align - 1), (1 << align - 1) - 1
        for least, most in [(0, 0), (-128, 0), (0, 64), (-8, 7), *rng.integers((-900, 0), (1, 4000), (80, 2)).tolist()]:
            row = np.array([0, most, least], dtype=np.int16)
            below, above = safe_weights(row, low, high)
            inside = ((row * weights[:, None] >= low) & (row * weights[:, None] <= high)).all(axis=1)
            if not np.array_equal((weights >= below) & (weights <= above), inside):
                return False
    return True


def test_a_weight_is_safe_exactly_where_no_pixel_of_its_lane_overflows():
    assert safe_ends_are_exact(conv._safe_weights)


@pytest.mark.parametrize(("old", "new"), [("-(-low // most)", "low // most"), ("-low // -least", "high // -least")])
def test_a_weight_that_is_wrongly_held_safe_is_found(old, new):
    source = inspect.getsource(conv._safe_weights.py_func)
    assert source.count(old) == 1
    names = dict(vars(conv), jit=lambda function: function)
    exec(compile(source.replace(old, new), "planted", "exec"), names)
    assert not safe_ends_are_exact(names["_safe_weights"])


def test_exact_products_are_made_two_lanes_at_a_time():
    fresh = numba.njit(nogil=True)(conv._add_row_sums.py_func)
    fresh.compile((*[numba.int16[:, ::1]] * 2, numba.int64, numba.int32[:, ::1]))
    text = next(iter(fresh.inspect_asm().values()))
    tiles = (conv.TILE_ROWS + 1) * conv.TILE_VECTORS
    assert sum(text.count(name) for name in ("pmaddwd", "vpdpwssd", "smlal", "sdot")) >= tiles


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize(
    ("a_bits", "w_bits", "fmt"),
    [(8, 8, {}), (16, 4, {"align": 9}), (4, 16, {"align": 9}), (16, 8, {"align": 8, "acc": 48})],
)
def test_digits_of_wide_operands_are_those_of_the_reference(reference, overflow, a_bits, w_bits, fmt):
    """With accumulators of 32 bits and of 64, that cannot overflow."""
    layer = random_layer(
        a_bits, ConvShape(6, 9, (2, 1)), Operands(a_bits, True, w_bits), MacFormat(**fmt, overflow=overflow), 4, (5, 4),
        extreme=0.4, most=3,
    )  # fmt: skip
    found = assert_layer(reference, layer)
    assert found.align_overflows.any() == bool(fmt)
