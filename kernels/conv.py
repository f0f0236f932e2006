"""The integer datapath over whole layers: conv2d, grouped, depthwise and linear.

This is the *faithful* form: each width and each overflow in the order in which the hardware
makes them. For every output the order is ky, kx, lane group, weight digit, activation digit;
`kernels.dot` states one such step on its own. A lane group is what one memory word of L lanes holds
of a convolution group: channel c of the whole input lies in word ``(first_lane + c) // L``. The
result depends on these two where anything overflows, and, where the channels have different widths, on the
digits that each weight row and each word of activations is split into; on nothing else of the engine.

Output pixels are the vector dimension here: a block of pixels meets one lane and one weight at
a time. A lane's factor is folded into its activations where the product width cannot overflow:
``(a * w) * f == (a * f) * w``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .digits import DigitCounts, digit_count
from .errors import FormatError
from .jit import jit
from .mac import DIGIT_BITS, MacFormat, signed_range

__all__ = ["ConvResult", "ConvShape", "Operands", "conv2d"]

PART_BITS = 18
"""Bits of a part of a weight where rows are exact: 64 products of it with a digit have a sum of at most 28 bits."""
BLOCK_PIXELS = 256
"""Pixels of a block: a lane group's digits and one row of sums stay in the first-level cache."""


@dataclass(frozen=True, slots=True)
class ConvShape:
    """Geometry of a convolution; a linear layer is a 1 x 1 one on 1 x 1 images.

    `kernel`, `stride` and `dilation` are (y, x); `padding` is (top, left, bottom, right).
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if min(self.in_channels, self.out_channels, self.groups, *self.kernel, *self.stride, *self.dilation) < 1:
            raise FormatError(f"channels, groups, kernel, stride and dilation must be positive, not {self}")
        if min(self.padding) < 0:
            raise FormatError(f"padding must not be negative, not {self.padding}")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise FormatError(
                f"channels must divide into {self.groups} groups, not {self.in_channels} -> {self.out_channels}"
            )

    @property
    def group_inputs(self) -> int:
        """Input channels that one output channel sees."""
        return self.in_channels // self.groups

    @property
    def group_outputs(self) -> int:
        """Output channels of one group."""
        return self.out_channels // self.groups

    @property
    def depthwise(self) -> bool:
        """Whether every output channel sees one input channel of its own."""
        return self.group_inputs == self.group_outputs == 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weights: (out, in per group, ky, kx)."""
        return self.out_channels, self.group_inputs, *self.kernel

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output."""
        top, left, bottom, right = self.padding
        rows = (height + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.stride[0] + 1
        columns = (width + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.stride[1] + 1
        if rows < 1 or columns < 1:
            raise FormatError(f"kernel {self.kernel} must fit the padded {height} x {width} input")
        return rows, columns

    def unfolded_x(self) -> "ConvShape":
        """The same convolution on an input whose kernel columns became channels (`addressing.unfold_x`)."""
        if self.groups != 1:
            raise FormatError(f"a convolution must have 1 group to be unfolded in x, not {self.groups}")
        return ConvShape(
            self.in_channels * self.kernel[1],
            self.out_channels,
            (self.kernel[0], 1),
            (self.stride[0], 1),
            (self.padding[0], 0, self.padding[2], 0),
            (self.dilation[0], 1),
        )

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates per image, padded taps included."""
        rows, columns = self.output_size(height, width)
        return rows * columns * self.out_channels * self.group_inputs * self.kernel[0] * self.kernel[1]


@dataclass(frozen=True, slots=True)
class Operands:
    """Bits and signs of the activation and weight codes of a layer."""

    a_bits: int
    a_signed: bool
    w_bits: int
    w_signed: bool = True

    @property
    def digit_pairs(self) -> int:
        """Passes that one weight tile makes over its pixels."""
        return digit_count(self.a_bits) * digit_count(self.w_bits)


class ConvResult(NamedTuple):
    """Accumulators (N, out, H, W), input sums (N, groups, H, W), overflow counts (out,); all int64."""

    acc: np.ndarray
    input_sum: np.ndarray
    product_overflows: np.ndarray
    align_overflows: np.ndarray
    acc_overflows: np.ndarray


@jit
def _gather(x, base, count, offset, stride, digit, top_signed, factor, out):  # type: ignore[no-untyped-def]
    """Digits of one channel under one tap: `base` holds (start, length) runs of output pixels."""
    shift = 4 * digit
    p = 0
    for run in range(count):
        start = base[run, 0] + offset
        length = base[run, 1]
        if top_signed:
            for i in range(length):
                out[p + i] = (np.int32(x[start + i * stride]) >> shift) * factor
        else:
            for i in range(length):
                out[p + i] = ((np.int32(x[start + i * stride]) >> shift) & 15) * factor
        p += length


@jit
def _row_saturate(x, index, weights, filled, low, high, sums):  # type: ignore[no-untyped-def]
    """Add the clipped products of `filled` lanes to the row sums; returns how many were clipped."""
    number = x.dtype.type
    total = np.int64(0)
    for q in range(filled):
        lane, weight = index[q], weights[q]
        overflows = number(0)
        for p in range(x.shape[1]):
            exact = number(x[lane, p] * weight)
            limited = min(max(exact, low), high)
            overflows = number(overflows + number(exact != limited))
            sums[p] += limited
        total += overflows
    return total


@jit
def _row_wrap(x, index, weights, filled, low, high, sums):  # type: ignore[no-untyped-def]
    """Add the wrapped products of `filled` lanes to the row sums; returns how many were wrapped."""
    number = x.dtype.type
    mask = number(high - low)
    total = np.int64(0)
    for q in range(filled):
        lane, weight = index[q], weights[q]
        overflows = number(0)
        for p in range(x.shape[1]):
            exact = number(x[lane, p] * weight)
            limited = number(number(number(exact - low) & mask) + low)
            overflows = number(overflows + number(exact != limited))
            sums[p] += limited
        total += overflows
    return total


@jit
def _row_products(x, index, weights, filled, low, high, wrap, factors, channel0, products):  # type: ignore[no-untyped-def]
    """Limited products times their lane's factor, for formats whose product width can overflow."""
    number = x.dtype.type
    mask = number(high - low)
    overflows = np.int64(0)
    for q in range(filled):
        lane, weight = index[q], weights[q]
        factor = number(factors[channel0 + lane])
        for p in range(x.shape[1]):
            exact = number(x[lane, p] * weight)
            limited = number(number(number(exact - low) & mask) + low) if wrap else min(max(exact, low), high)
            overflows += exact != limited
            products[q, p] = number(limited * factor)
    return overflows


@jit
def _accumulate(sums, shift, low, high, wrap, acc):  # type: ignore[no-untyped-def]
    number = acc.dtype.type
    overflows = number(0)
    for p in range(sums.shape[0]):
        exact = number(acc[p] + number(number(sums[p]) << shift))
        limited = number(number(number(exact - low) & number(high - low)) + low) if wrap else min(max(exact, low), high)
        overflows = number(overflows + number(exact != limited))
        acc[p] = limited
    return overflows


@jit
def _pixel_runs(first, count, out_width, out_pixels, row_step, column_step, image_step, width, base):  # type: ignore[no-untyped-def]
    """Split pixels [first, first + count) of the batch into runs within one output row.

    Writes (index into the padded input, length) pairs and returns their number.
    """
    runs = 0
    p = first
    while p < first + count:
        image, pixel = p // out_pixels, p % out_pixels
        row, column = pixel // out_width, pixel % out_width
        length = min(out_width - column, first + count - p)
        base[runs, 0] = image * image_step + row * row_step * width + column * column_step
        base[runs, 1] = length
        runs += 1
        p += length
    return runs


@jit
def _conv(  # type: ignore[no-untyped-def]
    x, weights, factors, geometry, lanes, first_lane, word_digits, row_digits, a_signed, w_signed, product_range,
    product_exact,
    align_range, acc_range, pair_shift, wrap, first, digits, sums, products, acc, acc_out, sum_out,
    product_over, align_over, acc_over,
):  # fmt: skip
    """Accumulate the output pixels from `first` of the flattened batch, one for each of `sums`.

    `x` is the padded input, flat; `weights` are digits (digits, out, in per group, ky, kx), or parts, whose sums are
    shifted by `pair_shift` bits from one to the next. A row has `row_digits` (out,) of them, the activations
    `word_digits` in each word, from that of channel 0 on.
    `digits` (digits, lanes, pixels), `products` (lanes, pixels), `sums` (pixels) and `acc`
    (out per group, pixels) are scratch of the number types that the arithmetic runs in.
    """
    number = sums.dtype.type
    count = sums.shape[0]
    channels, height, width, out_height, out_width, stride_y, stride_x, dilation_y, dilation_x, groups = geometry
    _, out_channels, group_inputs, kernel_y, kernel_x = weights.shape
    group_outputs = out_channels // groups
    out_pixels = out_height * out_width
    align_low, align_high = number(align_range[0]), number(align_range[1])
    acc_low, acc_high = acc.dtype.type(acc_range[0]), acc.dtype.type(acc_range[1])

    base = np.empty((count, 2), dtype=np.int64)
    runs = _pixel_runs(first, count, out_width, out_pixels, stride_y, stride_x, channels * height * width, width, base)
    index = np.zeros(lanes, dtype=np.int64)
    row_weights = np.zeros(lanes, dtype=sums.dtype)
    ordinal, ones = np.arange(lanes), np.ones(lanes, dtype=sums.dtype)
    input_sum = np.zeros(count, dtype=np.int64)

    for group in range(groups):
        acc[:] = 0
        input_sum[:] = 0
        for ky in range(kernel_y):
            for kx in range(kernel_x):
                for lane0 in range(-((first_lane + group * group_inputs) % lanes), group_inputs, lanes):
                    # A group starts and ends anywhere in a word.
                    begin = max(0, lane0)
                    used = min(lane0 + lanes, group_inputs) - begin
                    channel0 = group * group_inputs + begin
                    a_digits = word_digits[(first_lane + channel0) // lanes]
                    for lane in range(used):
                        channel = channel0 + lane
                        factor = np.int32(factors[channel])
                        offset = (channel * height + ky * dilation_y) * width + kx * dilation_x
                        for i in range(a_digits):
                            row = digits[i, lane]
                            signed = a_signed and i == a_digits - 1
                            held = factor if product_exact else np.int32(1)
                            _gather(x, base, runs, offset, stride_x, i, signed, held, row)
                            scale = np.int64(np.int32(1) if product_exact else factor) << (4 * i)
                            for p in range(count):
                                input_sum[p] += row[p] * scale
                    for o in range(group_outputs):
                        out = group * group_outputs + o
                        w_digits = row_digits[out]
                        for j in range(w_digits):
                            filled = 0
                            for lane in range(used):
                                weight = weights[j, out, begin + lane, ky, kx]
                                if weight != 0:
                                    index[filled], row_weights[filled] = lane, weight
                                    filled += 1
                            for i in range(a_digits):
                                rows, lane_index, lane_weights = digits[i], index, row_weights
                                if not product_exact:
                                    unsigned = not (a_signed and i == a_digits - 1) and not (
                                        w_signed and j == w_digits - 1
                                    )
                                    limits = product_range[1] if unsigned else product_range[0]
                                    product_over[out] += _row_products(
                                        rows, index, row_weights, filled, number(limits[0]), number(limits[1]),
                                        wrap, factors, channel0, products,
                                    )  # fmt: skip
                                    rows, lane_index, lane_weights = products, ordinal, ones
                                sums[:] = 0
                                if wrap:
                                    align_over[out] += _row_wrap(
                                        rows, lane_index, lane_weights, filled, align_low, align_high, sums
                                    )
                                else:
                                    align_over[out] += _row_saturate(
                                        rows, lane_index, lane_weights, filled, align_low, align_high, sums
                                    )
                                acc_over[out] += _accumulate(
                                    sums, 4 * i + pair_shift * j, acc_low, acc_high, wrap, acc[o]
                                )
        for p in range(count):
            image, pixel = (first + p) // out_pixels, (first + p) % out_pixels
            sum_out[image, group, pixel] = input_sum[p]
            for o in range(group_outputs):
                acc_out[image, group * group_outputs + o, pixel] = acc[o, p]


def _numbers(
    factors: np.ndarray, shape: ConvShape, operands: Operands, fmt: MacFormat, lanes: int, first_lane: int = 0
) -> tuple[type[np.signedinteger], type[np.signedinteger]]:
    """The narrowest number types in which lanes and row sums, and accumulators, are exact."""
    a_digit = 15 if operands.a_bits > DIGIT_BITS or not operands.a_signed else 8
    w_digit = 15 if operands.w_bits > DIGIT_BITS or not operands.w_signed else 8
    product = a_digit * w_digit * int(np.max(factors, initial=1))
    row_sum = lanes << (fmt.align - 1)
    lane_number = np.int16 if max(product, row_sum - 1) <= np.iinfo(np.int16).max else np.int32

    passes = operands.digit_pairs
    step = row_sum << DIGIT_BITS * (digit_count(operands.a_bits) + digit_count(operands.w_bits) - 2)
    starts = ((first_lane + group * shape.group_inputs) % lanes for group in range(shape.groups))
    steps = shape.kernel[0] * shape.kernel[1] * -(-(max(starts) + shape.group_inputs) // lanes) * passes
    total = min(step * steps, (1 << (fmt.acc - 1)) + step)
    return lane_number, np.int32 if total <= np.iinfo(np.int32).max else np.int64


def conv2d(
    x: np.ndarray,
    weights: np.ndarray,
    factors: np.ndarray,
    shape: ConvShape,
    operands: Operands,
    fmt: MacFormat,
    lanes: int,
    pad_code: int = 0,
    first_lane: int = 0,
    exact_rows: bool = False,
    counts: DigitCounts | None = None,
) -> ConvResult:
    """Run a layer through the datapath.

    Parameters
    ----------
    x : activation codes (N, in, H, W), any integer dtype
    weights : weight digits (digits, out, in per group, ky, kx) from `digits.split_digits`
    factors : what alignment multiplies each input channel's products by, int32 (in,)
    lanes : input channels reduced in parallel (L)
    pad_code : the code that padding feeds: the activations' zero point
    first_lane : the lane of input channel 0, counted from lane 0 of a memory word
    exact_rows : `weights` are parts instead, of up to `PART_BITS` bits, that add up to the weights: a pass for each
        part and activation digit, whose row sum nothing limits before the accumulator (sign and shift arrays)
    counts : digits of each row's weights and of each word's activations, where they are not those of `operands`

    The caller has checked codes against `operands`.
    """
    parts = len(weights) if exact_rows else digit_count(operands.w_bits)
    if weights.shape[1:] != shape.weight_shape or len(weights) != parts:
        wanted = (parts, *shape.weight_shape)
        raise FormatError(f"weight digits must have shape {wanted}, not {weights.shape}")
    if x.ndim != 4 or x.shape[1] != shape.in_channels or factors.shape != (shape.in_channels,):
        raise FormatError(
            f"activations and factors must have {shape.in_channels} channels, not shapes {x.shape} and {factors.shape}"
        )
    if first_lane < 0:
        raise FormatError(f"first_lane must not be negative, not {first_lane}")
    words = -(-(first_lane + shape.in_channels) // lanes)
    if counts is None:
        counts = DigitCounts.uniform(parts, shape.out_channels, digit_count(operands.a_bits), words)
    if counts.rows.shape != (shape.out_channels,) or counts.words.shape != (words,):
        raise FormatError(
            f"digit counts must be of {shape.out_channels} rows and {words} words, "
            f"not {len(counts.rows)} and {len(counts.words)}"
        )
    images, _, height, width = x.shape
    out_height, out_width = shape.output_size(height, width)
    top, left, bottom, right = shape.padding
    if any(shape.padding):
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=pad_code)
    x = np.ascontiguousarray(x, dtype=np.int16)
    number, acc_number = (
        (np.int32, np.int64) if exact_rows else _numbers(factors, shape, operands, fmt, lanes, first_lane)
    )
    weights = np.ascontiguousarray(weights, dtype=np.int32 if exact_rows else np.int8)
    geometry = (*x.shape[1:], out_height, out_width, *shape.stride, *shape.dilation, shape.groups)
    pixels = images * out_height * out_width
    acc = np.empty((images, shape.out_channels, out_height * out_width), dtype=np.int64)
    input_sum = np.empty((images, shape.groups, out_height * out_width), dtype=np.int64)
    acc_bits = min(fmt.acc, np.iinfo(acc_number).bits)
    product_over, align_over, acc_over = (np.zeros(shape.out_channels, dtype=np.int64) for _ in range(3))
    for first in range(0, pixels, BLOCK_PIXELS):
        count = min(BLOCK_PIXELS, pixels - first)
        _conv(
            x.reshape(-1),
            weights,
            np.ascontiguousarray(factors, dtype=np.int32),
            geometry,
            lanes,
            first_lane,
            counts.words,
            counts.rows,
            operands.a_signed,
            operands.w_signed,
            (fmt.product_range(False), fmt.product_range(True)),
            exact_rows or fmt.product >= 2 * DIGIT_BITS,
            signed_range(np.iinfo(number).bits) if exact_rows else fmt.align_range,
            signed_range(acc_bits),
            0 if exact_rows else DIGIT_BITS,
            fmt.overflow == "wrap",
            first,
            np.empty((digit_count(operands.a_bits), lanes, count), dtype=number),
            np.empty(count, dtype=number),
            np.empty((lanes, count), dtype=number),
            np.empty((shape.group_outputs, count), dtype=acc_number),
            acc,
            input_sum,
            product_over,
            align_over,
            acc_over,
        )
    size = (out_height, out_width)
    return ConvResult(
        acc.reshape(images, shape.out_channels, *size),
        input_sum.reshape(images, shape.groups, *size),
        product_over,
        align_over,
        acc_over,
    )
