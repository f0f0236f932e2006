"""Channel pad, stride slice and the unfolding in x."""

import numpy as np
import pytest
from gatewise.kernels.addressing import (
    TileOrder,
    channel_pad,
    stream_weights,
    stride_slice,
    tile_order,
    unfold_x,
    unfold_x_weights,
    weight_stream,
)
from gatewise.kernels.conv import ConvShape, Operands, conv2d
from gatewise.kernels.digits import split_digits
from gatewise.kernels.errors import FormatError
from gatewise.kernels.mac import MacFormat
from hypothesis import given
from hypothesis import strategies as st


def image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 16, shape)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (0, 3), (4, 4)])
def test_padded_channels_hold_the_zero_point_around_the_real_ones(before, after):
    x = image((2, 3, 4, 5)).astype(np.uint8)
    found = channel_pad(x, before, after, 9)
    assert found.dtype == x.dtype
    plane = [[9] * 5 for _ in range(4)]
    assert found.tolist() == [[plane] * before + n + [plane] * after for n in x.tolist()]


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1), (2, 5)])
def test_a_stride_slice_keeps_every_stride_th_pixel_from_the_first(stride):
    x = image((2, 3, 7, 6))
    found = stride_slice(x, stride)
    assert found.transpose(0, 2, 3, 1).flags.c_contiguous
    assert found.tolist() == [
        [[[c[y][z] for z in range(0, 6, stride[1])] for y in range(0, 7, stride[0])] for c in n] for n in x.tolist()
    ]


def test_a_channel_pad_and_a_stride_slice_are_the_shortcut_that_a_convolution_would_make():
    x = image((1, 2, 4, 4))
    weights = np.zeros((6, 2, 1, 1), np.int64)
    weights[2, 0] = weights[3, 1] = 1
    shape = ConvShape(2, 6, stride=(2, 2))
    digits = split_digits(weights, 4, True)
    expected = conv2d(x, digits, np.ones(2), shape, Operands(4, False, 4), MacFormat(), 4).acc
    assert channel_pad(stride_slice(x, (2, 2)), 2, 2, 0).tolist() == expected.tolist()


@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    extra=st.integers(0, 4),
    code=st.integers(0, 15),
)
def test_an_unfolded_channel_is_its_input_under_one_kernel_column(kernel, stride, dilation, padding, extra, code):
    reach = dilation * (kernel - 1) + 1
    width = max(1, reach - sum(padding)) + extra
    x = image((2, 3, 2, width), seed=width)
    found = unfold_x(x, kernel, stride, dilation, padding, code)
    out_width = (width + sum(padding) - reach) // stride + 1
    assert found.shape == (2, 3 * kernel, 2, out_width)
    for n, channel, y, out in np.ndindex(found.shape):
        kx, c = divmod(channel, 3)
        source = out * stride + kx * dilation - padding[0]
        assert found[n, channel, y, out] == (x[n, c, y, source] if 0 <= source < width else code)


@st.composite
def unfoldable(draw):
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    stride = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    size = [
        max(1, dilation[axis] * (kernel[axis] - 1) + 1 - padding[axis] - padding[axis + 2]) + draw(st.integers(0, 3))
        for axis in (0, 1)
    ]
    shape = ConvShape(draw(st.integers(1, 4)), draw(st.integers(1, 3)), kernel, stride, padding, dilation)
    return shape, size, draw(st.sampled_from([4, 8, 16])), draw(st.integers(0, 15)), draw(st.integers(0, 2**32 - 1))


def both_ways(shape, size, lanes, code, seed, fmt):
    """The direct layer and the unfolded one: (direct, unfolded) results."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 16, (2, shape.in_channels, *size))
    weights = rng.integers(-8, 8, shape.weight_shape)
    factors = 1 << rng.integers(0, 9, shape.in_channels)
    operands = Operands(4, False, 4)
    direct = conv2d(x, split_digits(weights, 4, True), factors, shape, operands, fmt, lanes, code)
    _, left, _, right = shape.padding
    kernel = shape.kernel[1]
    unfolded = conv2d(
        unfold_x(x, kernel, shape.stride[1], shape.dilation[1], (left, right), code),
        split_digits(unfold_x_weights(weights), 4, True),
        np.tile(factors, kernel),
        shape.unfolded_x(),
        operands,
        fmt,
        lanes,
        code,
    )
    return direct, unfolded


@given(case=unfoldable())
def test_an_unfolded_layer_equals_the_direct_one_where_nothing_overflows(case):
    direct, unfolded = both_ways(*case, MacFormat())
    assert direct.acc.tolist() == unfolded.acc.tolist()
    assert direct.input_sum.tolist() == unfolded.input_sum.tolist()
    assert not any(counts.any() for counts in (*direct[2:], *unfolded[2:]))


def test_unfolding_keeps_align_counts_but_changes_the_order_of_accumulation():
    shape = ConvShape(3, 4, (3, 3), padding=(1, 1, 1, 1))
    direct, unfolded = both_ways(shape, (6, 6), 16, 0, 8, MacFormat(align=11, acc=13))
    assert direct.align_overflows.tolist() == unfolded.align_overflows.tolist()
    assert direct.align_overflows.all()
    assert direct.acc.tolist() != unfolded.acc.tolist()


def test_a_grouped_convolution_does_not_unfold():
    with pytest.raises(FormatError) as error:
        ConvShape(4, 4, (3, 3), groups=2).unfolded_x()
    assert str(error.value) == "a convolution must have 1 group to be unfolded in x, not 2"


def test_unfolded_weights_follow_the_unfolded_channels():
    weights = np.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)
    found = unfold_x_weights(weights)
    assert found.shape == (2, 12, 2, 1)
    for o, channel, ky, _ in np.ndindex(found.shape):
        kx, c = divmod(channel, 3)
        assert found[o, channel, ky, 0] == weights[o, c, ky, kx]


def test_the_check_catches_weights_unfolded_in_another_order():
    shape = ConvShape(3, 2, (1, 3))
    rng = np.random.default_rng(9)
    x, weights = rng.integers(0, 16, (1, 3, 2, 6)), rng.integers(-8, 8, shape.weight_shape)
    wrong = weights.transpose(0, 1, 3, 2).reshape(2, 9, 1, 1)  # channel-major
    operands, unfolded = Operands(4, False, 4), unfold_x(x, 3, 1, 1, (0, 0), 0)
    results = [
        conv2d(codes, split_digits(w, 4, True), np.ones(w.shape[1]), s, operands, MacFormat(), 16).acc.tolist()
        for codes, w, s in (
            (x, weights, shape),
            (unfolded, unfold_x_weights(weights), ConvShape(9, 2)),
            (unfolded, wrong, ConvShape(9, 2)),
        )
    ]
    assert results[0] == results[1]
    assert results[0] != results[2]


def walked(shape, groups, rows, lanes):
    """The places of weights (out, in, ky, kx) as an array meets them: tile by tile, row by row, lane by lane."""
    out, inputs, ky, kx = shape
    depthwise = inputs == 1 and out == groups
    blocks = [(0, out)] if depthwise else [(g * (out // groups), out // groups) for g in range(groups)]
    for group, (first, count) in enumerate(blocks):
        step = min(rows, lanes) if depthwise else rows
        for start in range(0, count, step):
            for y in range(ky):
                for x in range(kx):
                    for word in range(1 if depthwise else groups * inputs // lanes + 1):
                        for row in range(first + start, first + min(start + step, count)):
                            for channel in range(inputs):
                                if depthwise or (group * inputs + channel) // lanes == word:
                                    yield ((row * inputs + channel) * ky + y) * kx + x


ORDERS = [
    ((5, 7, 3, 2), 1, 4, 4),
    ((16, 16, 3, 3), 1, 4, 8),
    ((3, 2, 1, 1), 1, 16, 16),
    ((6, 3, 2, 2), 3, 2, 4),
    ((8, 5, 1, 2), 4, 4, 4),
    ((6, 1, 3, 3), 6, 4, 8),
    ((9, 1, 1, 3), 9, 16, 4),
    ((4, 1, 2, 2), 2, 4, 4),
]


@pytest.mark.parametrize(("shape", "groups", "rows", "lanes"), ORDERS)
def test_the_tile_order_is_the_walk_of_an_array(shape, groups, rows, lanes):
    assert tile_order(shape, groups, rows, lanes).tolist() == list(walked(shape, groups, rows, lanes))


def test_without_a_tile_input_channels_come_last():
    weights = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert weight_stream(weights).tolist() == weights.transpose(0, 2, 3, 1).reshape(-1).tolist()


@pytest.mark.parametrize(("shape", "groups", "rows", "lanes"), ORDERS)
def test_a_stream_gives_its_weights_back(shape, groups, rows, lanes):
    weights = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    for tile in (None, (rows, lanes)):
        stream = weight_stream(weights, groups, tile)
        found = stream_weights(stream, shape, groups, tile)
        assert (stream.ndim, found.dtype) == (1, np.int16)
        assert found.tolist() == weights.tolist()
    assert stream.tolist() == list(walked(shape, groups, rows, lanes))


def test_tilings_and_groupings_differ():
    shape = (8, 4, 2, 2)
    first = tile_order(shape, 1, 4, 4).tolist()
    others = [(4, 4, 4), (1, 8, 4), (1, 4, 2)]
    assert all(tile_order(shape, *other).tolist() != first for other in others)
    assert weight_stream(np.arange(128).reshape(shape)).tolist() != first


def test_a_tile_far_larger_than_the_layer_takes_no_room():
    assert tile_order((1, 1, 512, 512), 1, 64, 64).tolist() == list(range(1 << 18))


def test_a_linear_layer_over_a_map_is_taken_as_a_convolution_over_it():
    order = tile_order((9, 7 * 6, 1, 1), 1, 4, 4, (2, 3))
    assert order.tolist() == tile_order((9, 7, 2, 3), 1, 4, 4).tolist()
    assert order.tolist() != tile_order((9, 42, 1, 1), 1, 4, 4).tolist()
    weights = np.arange(9 * 42).reshape(9, 42, 1, 1)
    tile = TileOrder(4, 4, (2, 3))
    assert stream_weights(weight_stream(weights, 1, tile), weights.shape, 1, tile).tolist() == weights.tolist()


def test_an_unfolded_stem_is_taken_with_its_columns_as_channels():
    weights = np.arange(5 * 3 * 2 * 4).reshape(5, 3, 2, 4)
    tile = TileOrder(4, 8, unfolded=True)
    stream = weight_stream(weights, 1, tile)
    assert stream.tolist() == weight_stream(unfold_x_weights(weights), 1, (4, 8)).tolist()
    assert stream_weights(stream, weights.shape, 1, tile).tolist() == weights.tolist()


@pytest.mark.parametrize(
    ("shape", "groups", "tile", "message"),
    [
        ((4, 8, 3, 3), 1, TileOrder(4, 4, (2, 2)), "must be those of its features, not of shape"),
        ((4, 9, 1, 1), 1, TileOrder(4, 4, (2, 2)), "must be those of its features, not of shape"),
        ((4, 8, 1, 1), 1, TileOrder(4, 4, (2, 2), True), "must be those of its features, not of shape"),
        ((4, 2, 3, 3), 2, TileOrder(4, 4, unfolded=True), "weights unfolded in x must be of 1 group, not 2"),
    ],
)
def test_an_order_that_no_array_takes_is_refused(shape, groups, tile, message):
    with pytest.raises(FormatError, match=message):
        weight_stream(np.zeros(shape), groups, tile)
