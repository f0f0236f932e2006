"""The integer datapath over whole layers: conv2d, grouped, depthwise and linear.

This is the *faithful* form: each width and each overflow in the order in which the hardware
makes them. For every output the order is ky, kx, lane group, weight digit, activation digit;
`kernels.dot` states one such step on its own. A lane group is what one memory word of L lanes holds
of a convolution group: channel c of the whole input lies in word ``(first_lane + c) // L``. The
result depends on these two where anything overflows, and, where the channels have different widths, on the
digits that each weight row and each word of activations is split into; on nothing else of the engine.

Output pixels are the vector dimension here. A lane's factor is folded into its activations where the product width
cannot overflow: ``(a * w) * f == (a * f) * w``. What a lane holds in a block of pixels bounds the weights with which no
pixel of it overflows the alignment. These are most, and what they add to the row sum no width limits: it is a
sum of exact products, made of pairs of lanes in a register tile (`_pair_tile`). The other weights meet one lane at a
time, each product limited and counted.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .digits import DigitCounts, digit_count
from .errors import FormatError
from .jit import jit
from .mac import DIGIT_BITS, MacFormat, signed_range
from .vectors import LANES, WIDE, add_pairs, arrays, splat

__all__ = ["ConvResult", "ConvShape", "Operands", "conv2d"]

PART_BITS = 18
"""Bits of a part of a weight where rows are exact: 64 products of it with a digit have a sum of at most 28 bits."""
BLOCK_PIXELS = 512
"""Pixels of a block at most: a lane group's digits and one row of sums stay in the first-level cache."""
SUM_BITS = 32
PAIR_BITS = 16
"""Bits of what register tiles multiply."""
TILE_ROWS = 4
TILE_VECTORS = 4 if WIDE else 2
"""Output channels, and vectors of pixels, of a register tile: with activations and a weight they fill all registers."""
TILE_PIXELS = TILE_VECTORS * LANES


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
    number = out.dtype.type
    shift, mask, times = np.int32(4 * digit), np.int32(-1 if top_signed else 15), number(factor)
    p = 0
    for run in range(count):
        start, length = base[run, 0] + offset, base[run, 1]
        target = out[p : p + length]
        if stride == 1 and digit == 0:
            source = x[start : start + length]
            for i in range(length):
                target[i] = number(source[i] & mask) * times
        else:
            for i in range(length):
                target[i] = number((np.int32(x[start + i * stride]) >> shift) & mask) * times
        p += length


def _pair_tile(context: Any, builder: Any, sig: Any, args: Any, rows: int) -> Any:
    """Emit a register tile: add to 32-bit sums of `rows` channels and `TILE_PIXELS` pixels what pairs of lanes make.

    Arguments: pairs of activations (pairs, pixels, 2), pairs of weights (rows, pairs, 2), sums (rows, pixels); how many
    pairs; the first activation and how far it is to the next pair's, the same of weights from row to row and of sums.
    """
    held, weights, sums = arrays(context, builder, sig, args, 3)
    steps, first, step, first_weight, weight_step, first_sum, sum_step = args[3:]
    i32, i64 = ir.IntType(32), ir.IntType(64)
    vector = ir.VectorType(i32, LANES)

    def load(base: Any, at: Any, kind: Any, align: int) -> Any:
        return builder.load(builder.bitcast(builder.gep(base, [at]), kind.as_pointer()), align=align)

    places = [
        builder.add(first_sum, builder.add(builder.mul(sum_step, i64(row)), i64(each * LANES)))
        for row in range(rows)
        for each in range(TILE_VECTORS)
    ]
    sums = builder.bitcast(sums, i32.as_pointer())
    begun = [load(sums, place, vector, 4) for place in places]
    entry = builder.block
    pair_block, end_block = builder.append_basic_block("pair"), builder.append_basic_block("end")
    builder.branch(pair_block)
    builder.position_at_end(pair_block)
    pair, at, weight = (builder.phi(i64) for _ in range(3))
    totals = [builder.phi(vector) for _ in places]
    activations = [load(held, builder.add(at, i64(2 * LANES * each)), vector, 2) for each in range(TILE_VECTORS)]
    made = []
    for row in range(rows):
        two = load(weights, builder.add(weight, builder.mul(weight_step, i64(row))), i32, 2)
        spread = splat(builder, two)
        made += [
            add_pairs(builder, totals[row * TILE_VECTORS + each], activations[each], spread)
            for each in range(TILE_VECTORS)
        ]
    later = builder.add(pair, i64(1))
    later_at, later_weight = builder.add(at, step), builder.add(weight, i64(2))
    builder.cbranch(builder.icmp_signed("<", later, steps), pair_block, end_block)
    for phi, begin, after in (
        (pair, i64(0), later),
        (at, first, later_at),
        (weight, first_weight, later_weight),
        *zip(totals, begun, made, strict=True),
    ):
        phi.add_incoming(begin, entry)
        phi.add_incoming(after, pair_block)
    builder.position_at_end(end_block)
    for place, total in zip(places, made, strict=True):
        builder.store(total, builder.bitcast(builder.gep(sums, [place]), vector.as_pointer()), align=4)
    return context.get_dummy_value()


def _pair_intrinsic(rows: int) -> Any:
    def tile(typing, held, weights, sums, steps, first, step, first_weight, weight_step, first_sum, sum_step):  # type: ignore[no-untyped-def]
        sig = types.void(held, weights, sums, *[types.int64] * 7)
        return sig, lambda context, builder, sig, args: _pair_tile(context, builder, sig, args, rows)

    return intrinsic(tile)


_pairs_1, _pairs_4 = _pair_intrinsic(1), _pair_intrinsic(TILE_ROWS)


@jit
def _add_row_sums(pairs, weights, used, sums):  # type: ignore[no-untyped-def]
    """Add exact products of `used` lanes to sums (channels, pixels); `pairs` are (pairs, 2 * pixels)."""
    steps, (channels, pixels), row_step = (used + 1) // 2, sums.shape, weights.shape[1]
    whole = channels - channels % TILE_ROWS
    for out in range(0, whole, TILE_ROWS):
        for p in range(0, pixels, TILE_PIXELS):
            place = out * pixels + p
            _pairs_4(pairs, weights, sums, steps, 2 * p, 2 * pixels, out * row_step, row_step, place, pixels)
    for out in range(whole, channels):
        for p in range(0, pixels, TILE_PIXELS):
            place = out * pixels + p
            _pairs_1(pairs, weights, sums, steps, 2 * p, 2 * pixels, out * row_step, row_step, place, pixels)


@jit
def _pair_lanes(rows, used, pairs):  # type: ignore[no-untyped-def]
    """Put pixels of two lanes after each other: `rows` is (lanes, pixels), `pairs` (pairs, 2 * pixels)."""
    for pair in range((used + 1) // 2):
        one, other, out = rows[2 * pair], rows[min(2 * pair + 1, used - 1)], pairs[pair]
        for p in range(rows.shape[1]):
            out[2 * p], out[2 * p + 1] = one[p], other[p]


@jit
def _safe_weights(row, low, high):  # type: ignore[no-untyped-def]
    """The least and the greatest weight, of 16 bits, with which no pixel of a lane leaves `low` to `high`."""
    number = row.dtype.type
    lowest, highest = number(0), number(0)
    for p in range(row.shape[0]):
        lowest, highest = min(lowest, row[p]), max(highest, row[p])
    least, most = np.int64(lowest), np.int64(highest)
    below, above = np.int64(-32768), np.int64(32767)
    if most > 0:
        below, above = max(below, -(-low // most)), min(above, high // most)
    if least < 0:
        below, above = max(below, -(high // -least)), min(above, -low // -least)
    return below, above


@jit
def _split_weights(weights, begin, below, above, safe, others):  # type: ignore[no-untyped-def]
    """Copy weights (channels, in) from `begin` on that lie between the ends of their lanes, zeros for others.

    `others` counts these, channel by channel.
    """
    for out in range(weights.shape[0]):
        source, target, outside = weights[out, begin : begin + below.shape[0]], safe[out], np.int16(0)
        for lane in range(below.shape[0]):
            inside = (source[lane] >= below[lane]) & (source[lane] <= above[lane])
            target[lane] = source[lane] if inside else 0
            outside += np.int16(not inside)
        others[out] = outside


def _limit_tile(context: Any, builder: Any, sig: Any, args: Any, wrap: bool) -> Any:
    """Emit a register tile: add to 32-bit sums of `TILE_PIXELS` pixels products that are limited one by one.

    Arguments: activations (lanes, pixels) of 16 or 32 bits, which lanes, their weights, sums; how many lanes, the first
    pixel, how far it is from lane to lane, the ends of the limit, the first sum. Gives how many products were limited.
    """
    x, index, weights, sums = arrays(context, builder, sig, args, 4)
    filled, first, step, low, high, first_sum = args[4:]
    bits = sig.args[0].dtype.bitwidth
    number, i32, i64 = (ir.IntType(each) for each in (bits, 32, 64))
    count = LANES * SUM_BITS // bits
    vector, long_vector = ir.VectorType(number, count), ir.VectorType(i32, count)
    mask_type = ir.IntType(count)

    def spread(value: Any) -> Any:
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, i32(0))
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(long_vector, [0] * count))

    def least_most(kind: str, one: Any, other: Any) -> Any:
        kind_type = ir.FunctionType(vector, [vector] * 2)
        name = f"llvm.s{kind}.v{count}i{bits}"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind_type, name), [one, other])

    def limited(exact: Any) -> Any:
        if not wrap:
            return least_most("max", least_most("min", exact, most), least)
        return builder.add(builder.and_(builder.sub(exact, least), mask), least)

    least, most = (spread(builder.trunc(each, number)) for each in (low, high))
    mask = builder.sub(most, least)
    tile = range(TILE_PIXELS // count)
    entry = builder.block
    lane_block, end_block = builder.append_basic_block("lane"), builder.append_basic_block("end")
    builder.branch(lane_block)
    builder.position_at_end(lane_block)
    lane, counted = builder.phi(i64), builder.phi(i64)
    totals = [builder.phi(vector) for _ in tile]
    row = builder.add(first, builder.mul(builder.load(builder.gep(index, [lane])), step))
    weight = spread(builder.load(builder.gep(weights, [lane])))
    made, count_later = [], counted
    for each in tile:
        place = builder.bitcast(builder.gep(x, [builder.add(row, i64(each * count))]), vector.as_pointer())
        exact = builder.mul(builder.load(place, align=bits // 8), weight)
        held = limited(exact)
        made.append(builder.add(totals[each], held))
        outside = builder.ctpop(builder.bitcast(builder.icmp_signed("!=", exact, held), mask_type))
        count_later = builder.add(count_later, builder.zext(outside, i64))
    later = builder.add(lane, i64(1))
    builder.cbranch(builder.icmp_signed("<", later, filled), lane_block, end_block)
    for phi, begin, after in (
        (lane, i64(0), later),
        (counted, i64(0), count_later),
        *((phi, ir.Constant(vector, [0] * count), value) for phi, value in zip(totals, made, strict=True)),
    ):
        phi.add_incoming(begin, entry)
        phi.add_incoming(after, lane_block)
    builder.position_at_end(end_block)

    sums = builder.bitcast(sums, i32.as_pointer())
    for each in tile:
        at = builder.add(first_sum, i64(each * count))
        place = builder.bitcast(builder.gep(sums, [at]), long_vector.as_pointer())
        long = made[each] if bits == SUM_BITS else builder.sext(made[each], long_vector)
        builder.store(builder.add(builder.load(place, align=4), long), place, align=4)
    return count_later


def _limit_intrinsic(wrap: bool) -> Any:
    def tile(typing, x, index, weights, sums, filled, first, step, low, high, first_sum):  # type: ignore[no-untyped-def]
        sig = types.int64(x, index, weights, sums, *[types.int64] * 6)
        return sig, lambda context, builder, sig, args: _limit_tile(context, builder, sig, args, wrap)

    return intrinsic(tile)


_saturated, _wrapped = _limit_intrinsic(wrap=False), _limit_intrinsic(wrap=True)


@jit
def _add_limited(x, index, weights, filled, low, high, wrap, sums, out):  # type: ignore[no-untyped-def]
    """Add to row `out` of sums the limited products of `filled` lanes; returns how many were limited."""
    total, pixels = np.int64(0), sums.shape[1]
    for p in range(0, pixels if filled else 0, TILE_PIXELS):
        place = out * pixels + p
        if wrap:
            total += _wrapped(x, index, weights, sums, filled, p, pixels, low, high, place)
        else:
            total += _saturated(x, index, weights, sums, filled, p, pixels, low, high, place)
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
    product_exact, paired, align_range, acc_range, acc_exact, pair_shift, wrap, first, count, digits, products, pairs,
    made, acc, acc_out, sum_out, product_over, align_over, acc_over,
):  # fmt: skip
    """Accumulate `count` output pixels from `first` of the flattened batch.

    `x` is the padded input, flat; `weights` are digits (ky, kx, digits, out, in per group), or parts, whose sums are
    shifted by `pair_shift` bits from one to the next. A row has `row_digits` (out,) of them, the activations
    `word_digits` in each word, from that of channel 0 on. `paired`: pairs of lanes hold activations with their factors
    and weights in 16 bits; `acc_exact`: no accumulator overflows.
    `digits` (digits, lanes, pixels), `products` (lanes, pixels) and `acc` (out per group, pixels) are scratch of the
    number types that the arithmetic runs in; so are `pairs` (digits, pairs of lanes, 2 * pixels) of 16 bits and `made`
    (out per group, pixels) of 32. Pixels fill register tiles: `digits` and `products` are 0 in those that are none.
    """
    number = digits.dtype.type
    channels, height, width, out_height, out_width, stride_y, stride_x, dilation_y, dilation_x, groups = geometry
    kernel_y, kernel_x, _, out_channels, group_inputs = weights.shape
    group_outputs = out_channels // groups
    out_pixels = out_height * out_width
    acc_low, acc_high = acc.dtype.type(acc_range[0]), acc.dtype.type(acc_range[1])

    base = np.empty((count, 2), dtype=np.int64)
    runs = _pixel_runs(first, count, out_width, out_pixels, stride_y, stride_x, channels * height * width, width, base)
    index = np.zeros(lanes, dtype=np.int64)
    row_weights = np.zeros(lanes, dtype=digits.dtype)
    ordinal, ones = np.arange(lanes), np.ones(lanes, dtype=digits.dtype)
    input_sum = np.zeros(count, dtype=np.int64)
    below, above = np.zeros((2, digits.shape[0], lanes), dtype=weights.dtype)
    safe = np.zeros((group_outputs, 2 * pairs.shape[1]), dtype=np.int16)
    # Without pairs all weights meet one lane at a time.
    unsafe = np.full(group_outputs, lanes)

    for group in range(groups):
        outs = slice(group * group_outputs, (group + 1) * group_outputs)
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
                            if paired:
                                below[i, lane], above[i, lane] = _safe_weights(row, align_range[0], align_range[1])
                    if paired:
                        for i in range(a_digits):
                            _pair_lanes(digits[i], used, pairs[i])
                        # What lanes beyond hold meets no weight.
                        safe[:, used:] = 0
                    for j in range(row_digits[outs].max()):
                        tap = weights[ky, kx, j, outs]
                        for i in range(a_digits):
                            shift, rows = 4 * i + pair_shift * j, digits[i]
                            straight = acc_exact and shift == 0
                            if not straight:
                                made[:] = 0
                            if paired:
                                _split_weights(tap, begin, below[i, :used], above[i, :used], safe, unsafe)
                                if straight:
                                    _add_row_sums(pairs[i], safe, used, acc)
                                else:
                                    _add_row_sums(pairs[i], safe, used, made)
                            for o in range(group_outputs):
                                out = group * group_outputs + o
                                w_digits = row_digits[out]
                                if j >= w_digits:
                                    continue
                                if unsafe[o]:
                                    filled = 0
                                    for lane in range(used):
                                        weight = tap[o, begin + lane]
                                        index[filled], row_weights[filled] = lane, weight
                                        filled += (weight != 0) & (not paired or safe[o, lane] == 0)
                                    lane_rows, lane_index, lane_weights = rows, index, row_weights
                                    if not product_exact:
                                        unsigned = not (a_signed and i == a_digits - 1) and not (
                                            w_signed and j == w_digits - 1
                                        )
                                        limits = product_range[1] if unsigned else product_range[0]
                                        product_over[out] += _row_products(
                                            rows, index, row_weights, filled, number(limits[0]), number(limits[1]),
                                            wrap, factors, channel0, products,
                                        )  # fmt: skip
                                        lane_rows, lane_index, lane_weights = products, ordinal, ones
                                    low, high = align_range
                                    if straight:
                                        align_over[out] += _add_limited(
                                            lane_rows, lane_index, lane_weights, filled, low, high, wrap, acc, o
                                        )  # fmt: skip
                                    else:
                                        align_over[out] += _add_limited(
                                            lane_rows, lane_index, lane_weights, filled, low, high, wrap, made, o
                                        )  # fmt: skip
                                if not straight:
                                    acc_over[out] += _accumulate(
                                        made[o], shift, acc_low, acc_high, wrap, acc[o]
                                    )  # fmt: skip
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

    step, steps = _greatest(shape, operands, fmt, lanes, first_lane)
    total = min(step * steps, (1 << (fmt.acc - 1)) + step)
    return lane_number, np.int32 if total <= np.iinfo(np.int32).max else np.int64


def _greatest(shape: ConvShape, operands: Operands, fmt: MacFormat, lanes: int, first_lane: int) -> tuple[int, int]:
    """What a pass adds to an accumulator at most, and how many passes there are."""
    digits = digit_count(operands.a_bits) + digit_count(operands.w_bits)
    step = lanes << (fmt.align - 1) + DIGIT_BITS * (digits - 2)
    starts = ((first_lane + group * shape.group_inputs) % lanes for group in range(shape.groups))
    words = -(-(max(starts) + shape.group_inputs) // lanes)
    return step, shape.kernel[0] * shape.kernel[1] * words * operands.digit_pairs


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
    step, steps = _greatest(shape, operands, fmt, lanes, first_lane)
    acc_exact = acc_number is np.int32 and step * steps < 1 << (fmt.acc - 1)
    product_exact = exact_rows or fmt.product >= 2 * DIGIT_BITS
    low, high = signed_range(PAIR_BITS)
    held = int(np.max(factors, initial=0)) << DIGIT_BITS <= high and low <= weights.min() and weights.max() <= high
    paired = product_exact and held
    weights = np.ascontiguousarray(weights.transpose(3, 4, 0, 1, 2), dtype=np.int16 if paired else np.int32)
    geometry = (*x.shape[1:], out_height, out_width, *shape.stride, *shape.dilation, shape.groups)
    pixels = images * out_height * out_width
    acc = np.empty((images, shape.out_channels, out_height * out_width), dtype=np.int64)
    input_sum = np.empty((images, shape.groups, out_height * out_width), dtype=np.int64)
    acc_bits = min(fmt.acc, np.iinfo(acc_number).bits)
    product_over, align_over, acc_over = (np.zeros(shape.out_channels, dtype=np.int64) for _ in range(3))
    # Blocks of the same size, in whole tiles.
    a_digits, blocks = digit_count(operands.a_bits), max(1, -(-pixels // BLOCK_PIXELS))
    tiled = -(-pixels // (blocks * TILE_PIXELS)) * TILE_PIXELS
    block = max(1, min(BLOCK_PIXELS, tiled))
    pairs = np.zeros((a_digits, -(-lanes // 2), 2 * tiled), dtype=np.int16)
    made, sums = (np.empty((shape.group_outputs, tiled), dtype=each) for each in (np.int32, acc_number))
    for first in range(0, pixels, block):
        count = min(block, pixels - first)
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
            product_exact,
            paired,
            signed_range(np.iinfo(number).bits) if exact_rows else fmt.align_range,
            signed_range(acc_bits),
            acc_exact,
            0 if exact_rows else DIGIT_BITS,
            fmt.overflow == "wrap",
            first,
            count,
            np.zeros((a_digits, lanes, tiled), dtype=number),
            np.zeros((lanes, tiled), dtype=number),
            pairs,
            made,
            sums,
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
