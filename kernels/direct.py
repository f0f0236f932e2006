"""The *fast* form of a layer: the exact integer convolution, where a proof says that no width limits it.

`kernels.conv` makes every width and every overflow in the order of the hardware. Where nothing can overflow, order
means nothing, and what is left is ``value = unit * (x * w) - zero * xsum + bias`` in exact integers. Three forms of it:

* ``vnni``: unsigned bytes times signed bytes, four products into each 32-bit sum at once (`vpdpbusd` of AVX-512 VNNI
  and AVX-VNNI); where activations are signed, an offset makes them unsigned, and the weights' sums take it away again;
* ``popcount``, of sign planes: ones are counted in the bits in which 32 channels of activations and weights differ, a
  pass for each pair of their planes (`DirectConv.of_planes`);
* ``portable``: 16-bit times 16-bit, two products into each 32-bit sum. It is written without any machine's
  instructions; LLVM finds `vpmaddwd`, `vpdpwssd` or what else there is.

A *register tile* of pixels x output channels is one loop of LLVM's own language, its sums held in registers
(`_tile`); nothing in Numba's Python would keep them there. The convolution is direct: activations are packed once,
channels last and padded, and a tile reads each tap's channels from there, so that no matrix of columns is ever made.
A kernel row of an undilated convolution is one run of bytes, whatever the number of channels.

Alignment goes into the operands: of the factor of an input channel as many powers of two into its activations as these
have room for, the rest into its weights. Weights (with their factors) of more than 8 or 16 bits are *limbs*, each a
column of its own; activations of more bits, and planes, are *streams*, each packed and run by itself. Sums of 32 bits
wrap, and wrapping ends where the true sum has 32 bits: `DirectConv.fits` says of which channels that is proved.

All compiled code but `vectors` is in this one module: the cache on disk sees no changes in others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .conv import ConvShape
from .errors import FormatError, UnsupportedError
from .jit import jit
from .mac import signed_range
from .requant import Rounding
from .vectors import COUNTS_BITS, LANES, VNNI, WIDE, add_pairs, arrays, splat

__all__ = ["Activations", "DirectConv", "FastForm", "ScaleFinish", "ThresholdFinish", "counting_pays", "fast_forms"]

FastForm = Literal["vnni", "portable"]

TILES = {1: 14, 2: 12, 3: 8, 4: 6} if WIDE else {1: 10, 2: 6}
"""Pixels of a tile of so many vectors of output channels: with weights and an activation they fill all registers."""
MOST_VECTORS = max(TILES)
MOST_PIXELS = max(TILES.values())

GROUP_BYTES = 4
"""Bytes of activations that one multiply-add takes: 4 channels of 8 bits, or 2 of 16."""
LIMB_BITS = {"vnni": 8, "portable": 16}
SUM_BITS = 32
DOUBLE_BITS = 53
"""Bits of two's complement numbers that doubles hold, and twice as great ones too."""
WORD_BITS = 32
"""Channels of a word, where activations are bits."""
COUNTED_PASSES = 2
"""Passes over bits of whole words that are no slower than one over bytes, what follows the sums included."""
BLOCK_PIXELS, LEAST_PIXELS, BLOCK_SUMS = 96, 24, 96 * 2048
"""Pixels, at most and at least, whose sums stay in the second-level cache until they are requantised; so many sums."""
ROW_CHANNELS = 256
"""Channels that are requantised in a loop, of several pixels where each has few."""
WORK_BYTES = 1 << 18
"""Packed activations that one call of the compiled loop is given, in whole images: a part of the second-level cache."""


def counting_pays(shape: ConvShape, pairs: int, passes: int) -> bool:
    """Whether `pairs` of planes are faster counted, on this processor, than `passes` of multiply-adds."""
    words = -(-shape.in_channels // WORD_BITS) * WORD_BITS
    return COUNTS_BITS and pairs * words <= COUNTED_PASSES * passes * shape.in_channels


def fast_forms() -> tuple[FastForm, ...]:
    """The fast forms that this processor runs, the fastest first."""
    return ("vnni", "portable") if VNNI else ("portable",)


def _tile(context: Any, builder: Any, sig: Any, args: Any, vectors: int) -> Any:
    """Emit a register tile: LLVM's IR of the sums of ``TILES[vectors]`` pixels and `vectors * LANES` columns.

    Arguments: packed activations (their type says which form), where each pixel begins, where each run begins from
    there, packed weights, sums; first pixel, groups of a run, first group of the weights, first sum, columns of sums.
    """
    pixels = TILES[vectors]
    x, bases, runs, weights, sums = arrays(context, builder, sig, args, 5)
    count = context.make_array(sig.args[2])(context, builder, value=args[2])
    run_count = builder.extract_value(count.shape, 0)
    first, steps, first_group, first_sum, columns = args[5:]
    byte, i32, i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
    pointer, vector = byte.as_pointer(), ir.VectorType(i32, LANES)
    size = GROUP_BYTES * LANES

    def at(base: Any, offset: Any) -> Any:
        return builder.gep(base, [offset], source_etype=byte)

    def multiply_add(total: Any, activation: Any, weight: Any) -> Any:
        if sig.args[0].dtype == types.uint8:
            if not VNNI:
                return total  # never run: `fast_forms` does not offer it
            bytes_ = ir.VectorType(byte, size)
            kind = ir.FunctionType(vector, [vector, bytes_, bytes_])
            name = f"llvm.x86.avx512.vpdpbusd.{32 * LANES}"
            call = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(call, [total, builder.bitcast(activation, bytes_), builder.bitcast(weight, bytes_)])
        if sig.args[0].dtype == types.uint32:
            kind, name = ir.FunctionType(vector, [vector]), f"llvm.ctpop.v{LANES}i32"
            call = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.add(total, builder.call(call, [builder.xor(activation, weight)]))
        return add_pairs(builder, total, activation, weight)

    x, weights, sums = (builder.bitcast(each, pointer) for each in (x, weights, sums))
    weights = at(weights, builder.mul(first_group, i64(size)))
    begins = [
        at(x, builder.load(builder.gep(bases, [builder.add(first, i64(pixel))]), typ=i64)) for pixel in range(pixels)
    ]
    entry = builder.block
    run_block, group_block, next_block, end_block = (
        builder.append_basic_block(name) for name in ("run", "group", "next_run", "end")
    )
    builder.branch(run_block)

    builder.position_at_end(run_block)
    run, run_weights = builder.phi(i64), builder.phi(pointer)
    run_sums = [builder.phi(vector) for _ in range(pixels * vectors)]
    offset = builder.load(builder.gep(runs, [run]), typ=i64)
    rows = [at(begin, offset) for begin in begins]
    builder.branch(group_block)

    builder.position_at_end(group_block)
    group, group_weights = builder.phi(i64), builder.phi(pointer)
    held = [builder.phi(vector) for _ in run_sums]
    tile_weights = [
        builder.load(builder.bitcast(at(group_weights, i64(each * size)), vector.as_pointer()), align=4)
        for each in range(vectors)
    ]
    group_offset = builder.mul(group, i64(GROUP_BYTES))
    made = []
    for pixel in range(pixels):
        four = builder.load(builder.bitcast(at(rows[pixel], group_offset), i32.as_pointer()), align=1)
        spread = splat(builder, four)
        made += [multiply_add(held[pixel * vectors + each], spread, tile_weights[each]) for each in range(vectors)]
    next_group = builder.add(group, i64(1))
    next_weights = at(group_weights, i64(vectors * size))
    builder.cbranch(builder.icmp_signed("<", next_group, steps), group_block, next_block)

    builder.position_at_end(next_block)
    next_run = builder.add(run, i64(1))
    builder.cbranch(builder.icmp_signed("<", next_run, run_count), run_block, end_block)

    for phi, begin, later in (
        (run, i64(0), next_run),
        (run_weights, weights, next_weights),
        *((phi, ir.Constant(vector, [0] * LANES), value) for phi, value in zip(run_sums, made, strict=True)),
    ):
        phi.add_incoming(begin, entry)
        phi.add_incoming(later, next_block)
    for phi, begin, later in (
        (group, i64(0), next_group),
        (group_weights, run_weights, next_weights),
        *zip(held, run_sums, made, strict=True),
    ):
        phi.add_incoming(begin, run_block)
        phi.add_incoming(later, group_block)

    builder.position_at_end(end_block)
    for pixel in range(pixels):
        row = builder.add(first_sum, builder.mul(columns, i64(pixel)))
        for each in range(vectors):
            place = builder.mul(builder.add(row, i64(each * LANES)), i64(GROUP_BYTES))
            target = builder.bitcast(at(sums, place), vector.as_pointer())
            builder.store(made[pixel * vectors + each], target, align=4)
    return context.get_dummy_value()


def _tile_intrinsic(vectors: int) -> Any:
    def tile(typing, x, bases, runs, weights, sums, first, steps, first_group, first_sum, columns):  # type: ignore[no-untyped-def]
        sig = types.void(x, bases, runs, weights, sums, *[types.int64] * 5)
        return sig, lambda context, builder, sig, args: _tile(context, builder, sig, args, vectors)

    return intrinsic(tile)


_tile_1, _tile_2 = _tile_intrinsic(1), _tile_intrinsic(2)
_tile_3, _tile_4 = (_tile_intrinsic(3), _tile_intrinsic(4)) if WIDE else (_tile_2, _tile_2)
_PIXELS_1, _PIXELS_2, _PIXELS_3, _PIXELS_4 = (TILES.get(vectors, 1) for vectors in (1, 2, 3, 4))


@jit
def _multiply(x, bases, count, runs, steps, weights, first_group, chunks, sums, first_column):  # type: ignore[no-untyped-def]
    """Sums of `count` pixels and all columns of a stream, a chunk of 1 to 4 vectors after the other.

    `bases` says where each pixel begins in `x`, and goes on to say it of the last for `MOST_PIXELS` more; `sums` has
    as many more rows.
    """
    columns = sums.shape[1]
    vector = 0
    for vectors in chunks:
        column = first_column + vector * LANES
        if vectors == 4:
            for p in range(0, count, _PIXELS_4):
                _tile_4(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        elif vectors == 3:
            for p in range(0, count, _PIXELS_3):
                _tile_3(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        elif vectors == 2:
            for p in range(0, count, _PIXELS_2):
                _tile_2(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        else:
            for p in range(0, count, _PIXELS_1):
                _tile_1(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        vector += vectors
        first_group += len(runs) * steps * vectors


def _taps(context: Any, builder: Any, sig: Any, args: Any, vectors: int) -> Any:
    """Emit a pixel's sums of one product a tap, in `vectors` vectors of channels, held in registers.

    Arguments: packed activations of 16 bits, where each tap begins from a pixel, weights of 32 bits (taps, channels),
    sums; the pixel's and the channels' first activation, the first weight, the first sum, channels of a tap.
    """
    x, runs, weights, sums = arrays(context, builder, sig, args, 4)
    taps = builder.extract_value(context.make_array(sig.args[1])(context, builder, value=args[1]).shape, 0)
    begin, first_weight, first_sum, channels = args[4:]
    i64, vector = ir.IntType(64), ir.VectorType(ir.IntType(32), LANES)
    narrow = ir.VectorType(ir.IntType(16), LANES)

    def load(base: Any, at: Any, kind: Any, align: int) -> Any:
        return builder.load(builder.bitcast(builder.gep(base, [at]), kind.as_pointer()), align=align)

    entry = builder.block
    tap_block, end_block = builder.append_basic_block("tap"), builder.append_basic_block("end")
    builder.branch(tap_block)
    builder.position_at_end(tap_block)
    tap, weight = builder.phi(i64), builder.phi(i64)
    held = [builder.phi(vector) for _ in range(vectors)]
    place = builder.add(begin, builder.load(builder.gep(runs, [tap])))
    made = []
    for each, total in enumerate(held):
        step = i64(each * LANES)
        activations = builder.sext(load(x, builder.add(place, step), narrow, 2), vector)
        product = builder.mul(activations, load(weights, builder.add(weight, step), vector, 4))
        made.append(builder.add(total, product))
    later, later_weight = builder.add(tap, i64(1)), builder.add(weight, channels)
    builder.cbranch(builder.icmp_signed("<", later, taps), tap_block, end_block)
    for phi, start, after in (
        (tap, i64(0), later),
        (weight, first_weight, later_weight),
        *((phi, ir.Constant(vector, [0] * LANES), value) for phi, value in zip(held, made, strict=True)),
    ):
        phi.add_incoming(start, entry)
        phi.add_incoming(after, tap_block)
    builder.position_at_end(end_block)
    for each, total in enumerate(made):
        target = builder.gep(sums, [builder.add(first_sum, i64(each * LANES))])
        builder.store(total, builder.bitcast(target, vector.as_pointer()), align=4)
    return context.get_dummy_value()


def _taps_intrinsic(vectors: int) -> Any:
    def taps(typing, x, runs, weights, sums, begin, first_weight, first_sum, channels):  # type: ignore[no-untyped-def]
        sig = types.void(x, runs, weights, sums, *[types.int64] * 4)
        return sig, lambda context, builder, sig, args: _taps(context, builder, sig, args, vectors)

    return intrinsic(taps)


_taps_1, _taps_4 = _taps_intrinsic(1), _taps_intrinsic(4)


@jit
def _multiply_depthwise(x, bases, count, runs, weights, sums, first_column):  # type: ignore[no-untyped-def]
    """Sums of one product a tap; `weights` are (taps, channels), `bases` and `runs` elements of int16 `x`."""
    channels, columns = weights.shape[1], sums.shape[1]
    for p in range(count):
        c = 0
        while c + 4 * LANES <= channels:
            _taps_4(x, runs, weights, sums, bases[p] + c, c, p * columns + first_column + c, channels)
            c += 4 * LANES
        while c < channels:
            _taps_1(x, runs, weights, sums, bases[p] + c, c, p * columns + first_column + c, channels)
            c += LANES


@jit
def _pack_pixels(x, shift, mask, factors, more, pad, top, left, out):  # type: ignore[no-untyped-def]
    """Pack codes (N, H, W, C) with a border of `pad` (C,) into `out` (N, H', W', C)."""
    images, height, width, channels = x.shape
    _pack_border(height, width, pad, top, left, out)
    for n in range(images):
        for y in range(height):
            for column in range(width):
                source, target = x[n, y, column], out[n, top + y, left + column]
                for c in range(channels):
                    target[c] = ((np.int32(source[c]) >> shift) & mask) * factors[c] + more


@jit
def _pack_maps(x, shift, mask, factors, more, pad, top, left, out):  # type: ignore[no-untyped-def]
    """The same of codes (N, C, H, W)."""
    images, channels, height, width = x.shape
    _pack_border(height, width, pad, top, left, out)
    for n in range(images):
        for y in range(height):
            target = out[n, top + y]
            for c in range(channels):
                source, factor = x[n, c, y], factors[c]
                for column in range(width):
                    target[left + column, c] = ((np.int32(source[column]) >> shift) & mask) * factor + more


@jit
def _pack_bits(x, plane, pad, top, left, out):  # type: ignore[no-untyped-def]
    """Pack a bit of each code (N, H, W, C), 32 channels in a word; `pad` are the words of the border."""
    images, height, width, channels = x.shape
    _pack_border(height, width, pad, top, left, out)
    for n in range(images):
        for y in range(height):
            for column in range(width):
                source, target = x[n, y, column], out[n, top + y, left + column]
                for word in range(target.shape[0]):
                    held = np.uint32(0)
                    for bit in range(min(32, channels - 32 * word)):
                        held |= np.uint32((source[32 * word + bit] >> plane) & 1) << np.uint32(bit)
                    target[word] = held


@jit
def _pack_border(height, width, pad, top, left, out):  # type: ignore[no-untyped-def]
    images, rows, columns, channels = out.shape
    for n in range(images):
        for y in range(rows):
            inside = top <= y < top + height
            column = 0
            while column < columns:
                if inside and column == left:
                    column += width
                    continue
                target = out[n, y, column]
                for c in range(channels):
                    target[c] = pad[c]
                column += 1


@jit
def _pixel_sums(x, less, factors, shift, out):  # type: ignore[no-untyped-def]
    """Add each packed pixel's aligned activations, group by group: `x` is (pixels, C), `out` (groups, pixels)."""
    pixels, channels = x.shape
    groups = out.shape[0]
    size = channels // groups
    for p in range(pixels):
        for group in range(groups):
            total = np.int64(0)
            for c in range(group * size, (group + 1) * size):
                total += (np.int32(x[p, c]) - less) * np.int32(factors[c])
            out[group, p] += total << shift


@jit
def _bit_sums(x, times, less, out):  # type: ignore[no-untyped-def]
    """Add each packed pixel's ones, times `times`, less `less`: `x` is (pixels, words), `out` (1, pixels)."""
    for p in range(x.shape[0]):
        total = np.int64(0)
        for word in range(x.shape[1]):
            held = x[p, word]
            held -= (held >> np.uint32(1)) & np.uint32(0x55555555)
            held = (held & np.uint32(0x33333333)) + ((held >> np.uint32(2)) & np.uint32(0x33333333))
            held = (held + (held >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
            total += np.int64((held * np.uint32(0x01010101)) >> np.uint32(24)) & 63
        out[0, p] += total * times - less


@jit
def _row(sums, columns, padded, less, unit, zero, bias, total, row):  # type: ignore[no-untyped-def]
    """A pixel's values: sums of all limbs and streams, weighed, less the zero-point term, plus the bias."""
    channels = row.shape[0]
    for n in range(channels):
        row[n] = bias[n] - zero[n] * total
    for first in range(0, unit.shape[0], channels):
        place = first // columns * padded + first % columns
        made, own_less = sums[place : place + channels], less[first : first + channels]
        own_unit = unit[first : first + channels]
        for n in range(channels):
            row[n] += np.int64(np.int32(made[n] - own_less[n])) * own_unit[n]


@jit
def _scale_row(row, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """Requantise a pixel: rows of `scale` are multipliers, shifts of at least 1, and the clamp's ends.

    Few arrays, so that LLVM checks that they do not overlap, and makes vectors of the loop.
    """
    for n in range(row.shape[0]):
        product, shift = row[n] * scale[0, n], scale[1, n]
        tie = ((product >> shift) & even) - even + ((product >> 63) & away)
        code = ((product + (((np.int64(1) << shift) >> 1) & nearest) + tie) >> shift) + zero_point
        out[n] = min(max(code, scale[2, n]), scale[3, n])


@jit
def _scale_sums(sums, less, unit, bias, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """The same of sums of one limb; `unit` and `bias` are multiplied by the multipliers already."""
    for n in range(out.shape[0]):
        shift = scale[1, n]
        product = np.int64(np.int32(sums[n] - less[n])) * unit[n] + bias[n]
        tie = ((product >> shift) & even) - even + ((product >> 63) & away)
        code = ((product + (((np.int64(1) << shift) >> 1) & nearest) + tie) >> shift) + zero_point
        out[n] = min(max(code, scale[2, n]), scale[3, n])


@jit
def _round_sums(sums, less, real, offset, zero_point, out):  # type: ignore[no-untyped-def]
    """The same where doubles hold every product: rows of `real` are factors, offsets, and the clamp's ends."""
    point = np.int32(zero_point)
    for n in range(out.shape[0]):
        value = np.float64(np.int32(sums[n] - less[n])) * real[0, n] + offset[n]
        out[n] = np.int32(np.rint(min(max(value, real[2, n]), real[3, n]))) + point


@jit
def _threshold_row(row, thresholds, table, counts, out):  # type: ignore[no-untyped-def]
    """Requantise a pixel: how many of `thresholds` (thresholds, C) it reaches, and what `table` has for that."""
    channels = row.shape[0]
    counts[:channels] = 0
    for t in range(thresholds.shape[0]):
        for n in range(channels):
            counts[n] += row[n] >= thresholds[t, n]
    for n in range(channels):
        out[n] = table[counts[n]]


@jit
def _round_codes(x, less, real, zero_point, out):  # type: ignore[no-untyped-def]
    """Requantise codes in doubles, a row of `real` after the other: factors, nothing, and the clamp's ends."""
    less, point = np.int32(less), np.int32(zero_point)
    width = real.shape[1]
    for first in range(0, x.shape[0], width):
        source, target = x[first : first + width], out[first : first + width]
        for n in range(target.shape[0]):
            value = np.float64(np.int32(source[n]) - less) * real[0, n]
            target[n] = np.int32(np.rint(min(max(value, real[2, n]), real[3, n]))) + point


@jit
def _round_added(x, x_less, y, y_less, real, zero_point, out):  # type: ignore[no-untyped-def]
    """The same of a sum; `real` is three rescales below each other, of both operands and of their sum."""
    x_less, y_less, point = np.int32(x_less), np.int32(y_less), np.int32(zero_point)
    width = real.shape[1]
    for first in range(0, x.shape[0], width):
        one, other, target = x[first : first + width], y[first : first + width], out[first : first + width]
        for n in range(target.shape[0]):
            left = np.float64(np.int32(one[n]) - x_less) * real[0, n]
            right = np.float64(np.int32(other[n]) - y_less) * real[4, n]
            left, right = min(max(left, real[2, n]), real[3, n]), min(max(right, real[6, n]), real[7, n])
            value = (np.rint(left) + np.rint(right)) * real[8, n]
            target[n] = np.int32(np.rint(min(max(value, real[10, n]), real[11, n]))) + point


@jit
def _scale_pixels(x, less, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """Requantise codes (pixels, C), less their zero point."""
    row = np.empty(x.shape[1], dtype=np.int64)
    for p in range(x.shape[0]):
        source = x[p]
        for n in range(row.shape[0]):
            row[n] = np.int64(source[n]) - less
        _scale_row(row, scale, nearest, even, away, zero_point, out[p])


@jit
def _add_pixels(x, x_less, x_scale, y, y_less, y_scale, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """Rescale both operands (pixels, C), add them, and rescale the sum."""
    channels = x.shape[1]
    row = np.empty(channels, dtype=np.int64)
    first, second = np.empty(channels, dtype=np.int16), np.empty(channels, dtype=np.int16)
    for p in range(x.shape[0]):
        source = x[p]
        for n in range(channels):
            row[n] = np.int64(source[n]) - x_less
        _scale_row(row, x_scale, nearest, even, away, 0, first)
        source = y[p]
        for n in range(channels):
            row[n] = np.int64(source[n]) - y_less
        _scale_row(row, y_scale, nearest, even, away, 0, second)
        for n in range(channels):
            row[n] = np.int64(first[n]) + np.int64(second[n])
        _scale_row(row, scale, nearest, even, away, zero_point, out[p])


@jit
def _direct(  # type: ignore[no-untyped-def]
    x, geometry, depthwise, runs, steps, weights, chunks, columns, block, totals, less, unit, zero, bias,
    scale, nearest, even, away, zero_point, real, thresholds, table, values, codes,
):  # fmt: skip
    """All pixels of packed activations `x`, flat, stream after stream, into codes (pixels, out) or values.

    One of these two is empty. Constants have their groups first: a loop over an array's own range of indices becomes
    vector loads, one from a later beginning becomes gathers. `_Constants` says what they are. `block` pixels are
    requantised after their sums.
    """
    (
        images, row_bytes, image_bytes, stream_bytes, column_bytes, group_bytes, out_height, out_width, stride_y,
        stride_x, groups, group_outputs, streams,
    ) = geometry  # fmt: skip
    pixels = images * out_height * out_width
    padded = weights.shape[1] if depthwise else np.sum(chunks) * LANES
    bases = np.empty(block + MOST_PIXELS, dtype=np.int64)
    places = np.empty(block, dtype=np.int64)
    sums = np.empty((block + MOST_PIXELS, streams * padded), dtype=np.int32)
    row = np.empty(group_outputs, dtype=np.int64)
    counts = np.empty(group_outputs, dtype=np.int64)
    tile_groups = 0 if depthwise else len(runs) * steps * np.sum(chunks)

    rounded = real.shape[1] > 0
    fused = streams * columns == group_outputs and scale.shape[1] > 0
    together = less.shape[1] // (streams * columns)
    offset = np.empty(group_outputs, dtype=np.float64)

    image_place, row_place, y, column = np.int64(0), np.int64(0), 0, 0
    for first in range(0, pixels, block):
        count = min(block, pixels - first)
        for p in range(count):
            places[p] = row_place + column * stride_x * column_bytes
            column += 1
            if column == out_width:
                column, y, row_place = 0, y + 1, row_place + stride_y * row_bytes
                if y == out_height:
                    image_place += image_bytes
                    y, row_place = 0, image_place
        for group in range(groups):
            for stream in range(streams):
                for p in range(count):
                    bases[p] = places[p] + stream * stream_bytes + group * group_bytes
                bases[count : count + MOST_PIXELS] = bases[count - 1]
                if depthwise:
                    own_weights = weights[stream * len(runs) : (stream + 1) * len(runs)]
                    _multiply_depthwise(x, bases, count, runs, own_weights, sums, stream * padded)
                else:
                    first_group = (stream * groups + group) * tile_groups
                    _multiply(x, bases, count, runs, steps, weights, first_group, chunks, sums, stream * padded)
            begin, end = group * group_outputs, (group + 1) * group_outputs
            own_less, own_unit, own_zero, own_bias = less[group], unit[group], zero[group], bias[group]
            own_scale, own_real, own_thresholds = scale[group], real[group], thresholds[group]
            if together > 1:
                flat, target = sums.reshape(-1), codes.reshape(-1)
                for p in range(0, count, together):
                    used = min(together, count - p) * columns
                    at = (first + p) * columns
                    made, out = flat[p * columns : p * columns + used], target[at : at + used]
                    if rounded:
                        _round_sums(made, own_less, own_real, own_real[1], zero_point, out)
                    else:
                        _scale_sums(
                            made, own_less, own_unit, own_bias, own_scale, nearest, even, away, zero_point, out
                        )  # fmt: skip
                continue
            for p in range(count):
                total = totals[group, first + p] if totals.shape[1] else np.int64(0)
                if rounded:
                    shift = own_real[1]
                    if totals.shape[1]:
                        shift = offset
                        for n in range(group_outputs):
                            offset[n] = own_real[1, n] - own_real[4, n] * total
                    _round_sums(sums[p], own_less, own_real, shift, zero_point, codes[first + p, begin:end])
                    continue
                if fused:
                    shifted = own_bias
                    if totals.shape[1]:
                        shifted = row
                        for n in range(group_outputs):
                            row[n] = own_bias[n] - own_zero[n] * total
                    _scale_sums(
                        sums[p], own_less, own_unit, shifted, own_scale,
                        nearest, even, away, zero_point, codes[first + p, begin:end],
                    )  # fmt: skip
                    continue
                _row(sums[p], columns, padded, own_less, own_unit, own_zero, own_bias, total, row)
                if values.shape[0]:
                    values[first + p, begin:end] = row
                elif own_thresholds.shape[0]:
                    _threshold_row(row, own_thresholds, table, counts, codes[first + p, begin:end])
                else:
                    _scale_row(row, own_scale, nearest, even, away, zero_point, codes[first + p, begin:end])


@dataclass(frozen=True, slots=True)
class Activations:
    """What activation codes are: numbers of `bits` bits (1..16), or words of `bits` planes of 0 and 1, or -1 and +1."""

    bits: int
    signed: bool = False
    planes: bool = False
    signs: bool = False

    def streams(self, form: FastForm | Literal["popcount"]) -> "list[Stream]":
        """The streams in which such activations are packed; those that are counted are bits, stored as they are."""
        if self.planes:
            low, times = (-1, 2) if self.signs else (0, 1)
            # Bytes hold 0 and 2 for -1 and +1, 16 bits the numbers themselves.
            more, offset = (0, -low) if form == "vnni" else (low, 0)
            return [Stream(plane, 1, times, more, offset, low, 1, 0, 0) for plane in range(self.bits)]
        if form == "popcount":
            places = [Stream(place, 1, 1, 0, 0, 0, 1, place, 0) for place in range(self.bits)]
            top = self.bits - 1
            return [*places[:top], Stream(top, 1, -1, 0, 0, -1, 0, top, 0)] if self.signed else places
        low, high = signed_range(self.bits) if self.signed else (0, (1 << self.bits) - 1)
        if form == "portable":
            return [Stream(0, -1, 1, 0, 0, low, high, 0, 15 + self.signed - self.bits)]
        if self.bits <= 8:
            offset = 128 if self.signed else 0
            return [Stream(0, -1, 1, offset, offset, low, high, 0, 8 - self.bits)]
        return [Stream(0, 255, 1, 0, 0, 0, 255, 0, 0), Stream(8, -1, 1, 128, 128, low >> 8, high >> 8, 8, 0)]


class Stream(NamedTuple):
    """A part of activation codes: ``stored = (code >> shift & mask) * times * factor + more``, true ones `offset` less.

    True ones, without the factor, are from `low` to `high`, and count `place` bits to the left; `room` are the bits
    that a factor may have.
    """

    shift: int
    mask: int
    times: int
    more: int
    offset: int
    low: int
    high: int
    place: int
    room: int


@dataclass(frozen=True, eq=False)
class ScaleFinish:
    """Requantisation by scale in 64-bit products: what `requant.ScaleRequantizer` computes where these hold them."""

    rows: np.ndarray
    """Multipliers, shifts, least and greatest code: int64 (4, C). No shift is one of 1, with twice the multiplier."""
    nearest: int
    """-1: half a step is added."""
    even: int
    """1: a tie goes up where the quotient is odd."""
    away: int
    """-1: of a negative number it does not go up."""
    zero_point: int
    doubles: bool
    """Whether a double holds every product, so that rounding one, ties to even, is all there is to do."""

    @classmethod
    def build(
        cls, value_bits: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, rounding: Rounding, zero_point: int,
        low: np.ndarray | int, high: np.ndarray | int,
    ) -> "ScaleFinish | None":  # fmt: skip
        """For values of so many bits; arrays are of channels. None where a product may not fit, and for tflite."""
        more = (np.asarray(shift) == 0).astype(np.int64)
        most = value_bits + more + np.array([int(each).bit_length() for each in multiplier])
        if rounding == "tflite" or most.max(initial=0) > 62:
            return None
        rows = np.broadcast_arrays(multiplier << more, shift + more, low, high)
        kinds = rounding != "floor", rounding == "half_even", rounding == "half_away"
        doubles = rounding == "half_even" and int(most.max(initial=0)) <= DOUBLE_BITS
        return cls(np.array(rows, dtype=np.int64), -int(kinds[0]), int(kinds[1]), -int(kinds[2]), zero_point, doubles)

    @property
    def arguments(self) -> tuple[np.ndarray, int, int, int, int]:
        """What the compiled loops take."""
        return self.rows, self.nearest, self.even, self.away, self.zero_point

    def real(self, unit: np.ndarray | int = 1, bias: np.ndarray | int = 0, zero: np.ndarray | int = 0) -> np.ndarray:
        """Factor and offset of a value, the clamp's ends less the zero point, what an input sum takes away: (5, C)."""
        multiplier, shift, low, high = self.rows
        terms = (unit * multiplier, bias * multiplier, zero * multiplier)
        factor, offset, less = (np.ldexp(each.astype(np.float64), -shift) for each in terms)
        return np.stack([factor, offset, low - self.zero_point, high - self.zero_point, less])

    @cached_property
    def _long_real(self) -> np.ndarray:
        """The same of codes, of a few pixels in a row: (4, pixels * C)."""
        return np.tile(self.real()[:4], max(1, ROW_CHANNELS // self.rows.shape[1]))

    def codes(self, x: np.ndarray, zero_point: int) -> np.ndarray:
        """Requantise codes (N, C, H, W) with a zero point of their own; int16, channels last in memory."""
        pixels, shape = _pixels(x)
        out = np.empty(pixels.shape, dtype=np.int16)
        if self.doubles:
            _round_codes(pixels.reshape(-1), zero_point, self._long_real, self.zero_point, out.reshape(-1))
        else:
            _scale_pixels(pixels, zero_point, *self.arguments, out)
        return out.reshape(shape).transpose(0, 3, 1, 2)

    def added(
        self, first: tuple[np.ndarray, int, "ScaleFinish"], second: tuple[np.ndarray, int, "ScaleFinish"]
    ) -> np.ndarray:
        """Requantise the sum of two tensors of codes, each with its zero point, each rescaled to 16 bits first.

        `kernels.residual` says what is computed; the three have one rounding.
        """
        (pixels, shape), (others, _) = _pixels(first[0]), _pixels(second[0])
        out = np.empty(pixels.shape, dtype=np.int16)
        if first[2].doubles and second[2].doubles and self.doubles:
            real = np.concatenate([first[2]._long_real, second[2]._long_real, self._long_real])
            _round_added(
                pixels.reshape(-1), first[1], others.reshape(-1), second[1], real, self.zero_point, out.reshape(-1)
            )  # fmt: skip
        else:
            _add_pixels(
                pixels, first[1], first[2].rows, others, second[1], second[2].rows, *self.arguments, out
            )  # fmt: skip
        return out.reshape(shape).transpose(0, 3, 1, 2)


def _pixels(x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Codes (N, C, H, W) as (pixels, C), and their shape with channels last."""
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return last.reshape(-1, x.shape[1]), last.shape


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdFinish:
    """Requantisation by thresholds: `requant.ThresholdRequantizer`, and a table of what the counts stand for.

    Channels whose thresholds are reached from above have everything negated: so `signs` (C,), -1 there.
    """

    thresholds: np.ndarray
    table: np.ndarray
    signs: np.ndarray

    @classmethod
    def build(cls, thresholds: np.ndarray, descending: np.ndarray, table: Sequence[int]) -> "ThresholdFinish":
        """For thresholds (C, n); `table` has an entry for every count."""
        signs = np.where(descending.astype(bool), -1, 1).astype(np.int64)
        return cls(np.ascontiguousarray((thresholds * signs[:, None]).T), np.asarray(table, dtype=np.int16), signs)


@dataclass(frozen=True, slots=True, eq=False)
class _Packed:
    """A stream with the weights that it meets."""

    stream: Stream
    factors: np.ndarray
    """What is stored of an input channel is multiplied by, int32 (in,)."""
    rest: np.ndarray
    """What is left of the alignment's factors, int32 (in,)."""
    times: np.ndarray
    """What each sum counts for in an output channel's unit, int64 (columns,)."""
    weights: np.ndarray
    """Of a register tile's vectors, in the order in which they are read; depthwise (taps, channels)."""
    chunks: np.ndarray
    """Vectors of columns by register tile."""
    columns: int
    """Sums of a pixel and group: output channels times limbs."""
    less: np.ndarray
    """What the offset adds to each sum, int32 (groups, columns)."""
    fits: np.ndarray
    """Output channels whose sums have 32 bits, bool (out,)."""

    def pack(self, x: np.ndarray, shape: ConvShape, pad_code: int, out: np.ndarray) -> None:
        """Codes (N, C, H, W) as (N, H', W', C), padded; bits of them as words of 32 channels."""
        stream, (top, left, _, _) = self.stream, shape.padding
        pixels = x.transpose(0, 2, 3, 1)
        if out.dtype == np.uint32:
            ones = np.uint32(0xFFFFFFFF if pad_code >> stream.shift & 1 else 0)
            pad = np.full(out.shape[3], ones)
            pad[-1] &= np.uint32(0xFFFFFFFF) >> np.uint32(-x.shape[1] % WORD_BITS)
            _pack_bits(np.ascontiguousarray(pixels), stream.shift, pad, top, left, out)
            return
        factors = self.factors * np.int32(stream.times)
        pad = (((pad_code >> stream.shift) & stream.mask) * factors + stream.more).astype(out.dtype)
        kernel, codes = (_pack_pixels, pixels) if pixels.flags.c_contiguous else (_pack_maps, np.ascontiguousarray(x))
        kernel(codes, stream.shift, stream.mask, factors, stream.more, pad, top, left, out)


def _split(shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, ...]:
    """Powers of two for the activations, the rest of the factors, and weights (groups, out, in, ky, kx) with it."""
    factors = np.asarray(factors, dtype=np.int64)
    twos = np.where(factors > 0, factors & -factors, 1)
    mine = np.minimum(twos, 1 << stream.room)
    rest = factors // mine
    grouped = weights.reshape(shape.groups, shape.group_outputs, shape.group_inputs, *shape.kernel)
    return mine, rest, grouped * rest.reshape(shape.groups, 1, shape.group_inputs, 1, 1)


def _sums_fit(columns: np.ndarray, mine: np.ndarray, stream: Stream, groups: int) -> np.ndarray:
    """Whether sums of true activations with weights (groups, columns, in, ky, kx) have 32 bits: (groups, columns)."""
    scale = mine.reshape(groups, 1, -1)
    below, above = (
        (part.sum(axis=(3, 4)) * scale).sum(axis=2) for part in (np.minimum(columns, 0), np.maximum(columns, 0))
    )
    low, high = signed_range(SUM_BITS)
    greatest, least = above * stream.high + below * stream.low, below * stream.high + above * stream.low
    return np.asarray((greatest <= high) & (least >= low))


def _limbs(weights: np.ndarray, bits: int, least: int = 1) -> list[np.ndarray]:
    """Weights as signed limbs of so many bits, the lowest first; as many as the greatest weight needs, or `least`."""
    low, high = signed_range(bits)
    limbs: list[np.ndarray] = []
    while len(limbs) < least or weights.any():
        whole = weights.min(initial=0) >= low and weights.max(initial=0) <= high
        limb = weights if whole else ((weights - low) & (high - low)) + low
        limbs.append(limb)
        weights = (weights - limb) >> bits
    return limbs


def _rows_are_runs(shape: ConvShape) -> bool:
    """Whether a kernel row is one run of the packed activations."""
    return shape.groups == 1 and shape.dilation[1] == 1 and not shape.depthwise


def _chunks(vectors: int) -> list[int]:
    """Vectors of columns by register tile: the greatest tiles, but not one vector alone where two can share."""
    chunks = [MOST_VECTORS] * (vectors // MOST_VECTORS) + ([vectors % MOST_VECTORS] if vectors % MOST_VECTORS else [])
    if len(chunks) > 1 and MOST_VECTORS > 2 and chunks[-1] == 1:
        chunks[-2:] = [MOST_VECTORS - 1, 2]
    return chunks


def _pack_weights(
    shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray, form: FastForm, limbs: int
) -> _Packed:
    mine, rest, scaled = _split(shape, stream, weights, factors)
    held = np.concatenate(_limbs(scaled, LIMB_BITS[form], limbs), axis=1)  # (groups, columns, in, ky, kx)
    limbs = held.shape[1] // shape.group_outputs
    fits = _sums_fit(held, mine, stream, shape.groups).reshape(shape.groups, limbs, shape.group_outputs)
    less = held.sum(axis=(2, 3, 4)) * stream.offset
    runs = held.transpose(0, 1, 3, 4, 2)  # (groups, columns, ky, kx, in)
    chunks, packed = _tiled(shape, runs.astype(np.int8 if form == "vnni" else np.int16))
    return _Packed(
        stream,
        mine.astype(np.int32),
        rest.astype(np.int32),
        np.repeat(1 << LIMB_BITS[form] * np.arange(limbs) + stream.place, shape.group_outputs),
        packed,
        chunks,
        held.shape[1],
        less.astype(np.int32),
        fits.all(axis=1).reshape(-1),
    )


def _tiled(shape: ConvShape, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of columns by register tile, and weights (groups, columns, ky, kx, in) in the order of the tiles."""
    columns, together = runs.shape[1], GROUP_BYTES // runs.itemsize
    run_count = shape.kernel[0] * (1 if _rows_are_runs(shape) else shape.kernel[1])
    runs = runs.reshape(shape.groups, columns, run_count, -1)
    steps = -(-runs.shape[3] // together)
    chunks = _chunks(-(-columns // LANES))
    padded = np.zeros((shape.groups, sum(chunks) * LANES, run_count, steps * together), dtype=runs.dtype)
    padded[:, :columns, :, : runs.shape[3]] = runs
    padded = padded.reshape(shape.groups, -1, run_count, steps, together).transpose(0, 2, 3, 1, 4)
    ends = np.cumsum(chunks) * LANES
    parts = [
        padded[group, :, :, end - chunk * LANES : end].reshape(-1)
        for group in range(shape.groups)
        for chunk, end in zip(chunks, ends, strict=True)
    ]
    return np.array(chunks), np.concatenate(parts)


def _pack_planes(shape: ConvShape, stream: Stream, planes: np.ndarray, signs: bool) -> _Packed:
    """Sign planes (planes, out, in, ky, kx) as bits, of which those that differ from the activations' are counted.

    Of a number w of -1 and +1 and an activation of 0 and 1, ``a * w`` is the bit of w less how they differ; of one of
    -1 and +1 it is 1 less twice as much.
    """
    columns = planes.reshape(-1, *shape.weight_shape[1:])
    bits = np.zeros((len(columns), *shape.kernel, -(-shape.in_channels // WORD_BITS) * WORD_BITS), dtype=np.uint8)
    bits[..., : shape.in_channels] = columns.transpose(0, 2, 3, 1)
    words = np.packbits(bits, axis=-1, bitorder="little").view("<u4").astype(np.uint32)
    chunks, packed = _tiled(shape, words[None])
    one = np.ones(shape.in_channels, dtype=np.int32)
    less = np.zeros(len(columns), dtype=np.int64) if signs else columns.sum(axis=(1, 2, 3))
    times = np.full(len(columns), -2 if signs else -(stream.times << stream.place))
    every = np.ones(shape.out_channels, dtype=bool)
    return _Packed(stream, one, one, times, packed, chunks, len(columns), less.astype(np.int32)[None], every)


def _pack_depthwise(shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray) -> _Packed:
    mine, rest, scaled = _split(shape, stream, weights, factors)
    low, high = signed_range(SUM_BITS)
    taps = scaled.reshape(shape.out_channels, -1)
    held = (scaled.min(axis=(1, 2, 3, 4)) >= low) & (scaled.max(axis=(1, 2, 3, 4)) <= high)
    return _Packed(
        stream,
        mine.astype(np.int32),
        rest.astype(np.int32),
        np.full(shape.out_channels, 1 << stream.place),
        np.ascontiguousarray(np.pad(taps.astype(np.int32), ((0, -len(taps) % LANES), (0, 0))).T),
        np.array(_chunks(-(-len(taps) // LANES))),
        shape.out_channels,
        np.zeros((1, shape.out_channels), dtype=np.int32),
        held & _sums_fit(scaled, mine, stream, shape.groups).reshape(-1),
    )


class _Constants(NamedTuple):
    """What `_direct` takes behind the sums, (groups, .., outputs of a group) each, `less` and `unit` of every sum.

    Where pixels have few channels, `less` and what meets it are repeated for several in a row. `unit`, `zero` and
    `bias` hold the multipliers already, where sums of one limb are scaled. Arrays of what does not occur are empty.
    """

    less: np.ndarray
    unit: np.ndarray
    zero: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    nearest: int
    even: int
    away: int
    zero_point: int
    real: np.ndarray
    thresholds: np.ndarray
    table: np.ndarray


@dataclass(frozen=True, eq=False)
class DirectConv:
    """A layer in a fast form: ``value = unit * (x * w) - zero * xsum + bias`` of each output channel, exact.

    `build` packs the weights. Results are int64 values or int16 codes of shape (N, out, H, W), with channels last in
    memory; input may have either order, and channels last is faster.
    """

    form: FastForm | Literal["popcount"]
    shape: ConvShape
    packed: tuple[_Packed, ...]
    """By stream, of as many columns each."""
    unit: np.ndarray
    """What the sums of an output channel count for, int64 (out,); with ``popcount`` those of every column."""
    zero: np.ndarray
    bias: np.ndarray
    finish: ScaleFinish | ThresholdFinish | None = None
    """The requantiser; none where values are made."""

    @classmethod
    def build(
        cls,
        shape: ConvShape,
        activations: Activations,
        weights: Sequence[np.ndarray],
        factors: np.ndarray,
        unit: np.ndarray,
        zero: np.ndarray,
        bias: np.ndarray,
        form: FastForm,
    ) -> "DirectConv":
        """Pack a layer.

        Parameters
        ----------
        weights : exact integers (out, in per group, ky, kx); one array, or one for each activation plane
        factors : alignment factors (in,)
        unit, zero, bias : integers (out,), such that values have at most 63 bits

        A depthwise layer has no dot products to speak of: it is portable whatever `form` says.
        """
        if form not in get_args(FastForm):
            raise FormatError(f"form must be one of {', '.join(get_args(FastForm))}, not {form!r}")
        if form not in fast_forms():
            raise UnsupportedError("form vnni must run on a processor with AVX-512 VNNI or AVX-VNNI: take portable")
        weights = [np.asarray(each, dtype=np.int64) for each in weights]
        unit, zero, bias = (np.asarray(each, dtype=np.int64) for each in (unit, zero, bias))
        if len(weights) != (activations.bits if activations.planes else 1):
            raise FormatError(f"weights must be one array, or one for each plane of activations, not {len(weights)}")
        if any(each.shape != shape.weight_shape for each in weights):
            raise FormatError(f"weights must have shape {shape.weight_shape}, not {[each.shape for each in weights]}")
        if shape.depthwise:
            weights = [each * unit.reshape(-1, 1, 1, 1) - zero.reshape(-1, 1, 1, 1) for each in weights]
            form, unit, zero = "portable", np.ones_like(unit), np.zeros_like(zero)
        streams = activations.streams(form)
        if not activations.planes:
            weights = weights * len(streams)
        both = list(zip(streams, weights, strict=True))
        if shape.depthwise:
            packed = [_pack_depthwise(shape, stream, each, factors) for stream, each in both]
        else:
            most = max(len(_limbs(_split(shape, stream, each, factors)[2], LIMB_BITS[form])) for stream, each in both)
            packed = [_pack_weights(shape, stream, each, factors, form, most) for stream, each in both]
        return cls(form, shape, tuple(packed), unit, zero, bias)

    @classmethod
    def of_planes(
        cls,
        shape: ConvShape,
        activations: Activations,
        planes: np.ndarray,
        coefficients: np.ndarray,
        zero: np.ndarray,
        bias: np.ndarray,
    ) -> "DirectConv":
        """Pack a layer of sign planes, whose products are counted bit by bit: form ``popcount``.

        ``value = sum_pj coefficients[p, j] * (x_j * w_p) - zero * xsum + bias``.

        Parameters
        ----------
        planes : signs of w_p, 1 for +1 and 0 for -1, (planes, out, in, ky, kx) in one group
        coefficients : integers (planes, activation planes, out); one of these, where activations are numbers
        """
        if shape.groups != 1 or shape.depthwise:
            raise UnsupportedError(f"a convolution whose bits are counted must have 1 group of channels, not {shape}")
        streams = activations.streams("popcount")
        signs = activations.planes and activations.signs
        packed = [_pack_planes(shape, stream, planes, signs) for stream in streams]
        wide = np.broadcast_to(
            coefficients, (len(planes), len(streams) if activations.planes else 1, shape.out_channels)
        )
        if signs:
            bias = bias + wide.sum(axis=(0, 1)) * int(np.prod(shape.weight_shape[1:]))
        unit = np.concatenate([wide[:, min(at, wide.shape[1] - 1)].reshape(-1) for at in range(len(streams))])
        return cls("popcount", shape, tuple(packed), unit, np.asarray(zero, dtype=np.int64), bias)

    @property
    def fits(self) -> np.ndarray:
        """Output channels whose sums have 32 bits, whatever the activations are: bool (out,). Others are not exact."""
        return np.asarray(np.logical_and.reduce([each.fits for each in self.packed]))

    @property
    def passes(self) -> int:
        """Products of the multiply-add units for each weight."""
        outputs = self.shape.out_channels if self.shape.depthwise else self.shape.group_outputs
        return sum(each.columns // outputs for each in self.packed)

    def requantising(self, finish: ScaleFinish | ThresholdFinish) -> "DirectConv":
        """The same layer with its requantiser, that of `codes`."""
        return replace(self, finish=finish)

    def values(self, x: np.ndarray, pad_code: int) -> np.ndarray:
        """Corrected values, int64, of codes (N, in, H, W); `pad_code` is what padding feeds."""
        assert self.finish is None
        return self._run(x, pad_code, np.int64)

    def codes(self, x: np.ndarray, pad_code: int) -> np.ndarray:
        """Requantised codes, int16."""
        assert self.finish is not None
        return self._run(x, pad_code, np.int16)

    def _run(self, x: np.ndarray, pad_code: int, dtype: type[np.signedinteger[Any]]) -> np.ndarray:
        images, _, height, width = x.shape
        result = np.empty((images, *self.shape.output_size(height, width), self.shape.out_channels), dtype=dtype)
        step = max(1, WORK_BYTES // (x[0].size * (2 if self.form == "portable" else 1)))
        for first in range(0, images, step):
            part = slice(first, first + step)
            self._run_images(x[part], pad_code, result[part])
        return np.asarray(result.transpose(0, 3, 1, 2))

    @cached_property
    def _constants(self) -> _Constants:
        groups = 1 if self.shape.depthwise else self.shape.groups
        own = self.shape.out_channels // groups

        def by_group(constants: np.ndarray) -> np.ndarray:
            """(..., outputs) as (groups, ..., outputs of a group)."""
            shape = *constants.shape[:-1], groups, constants.shape[-1] // groups
            return np.ascontiguousarray(np.moveaxis(constants.reshape(shape), -2, 0))

        signs = np.ones_like(self.zero)
        scale = np.empty((0, self.shape.out_channels), dtype=np.int64), 0, 0, 0, 0
        thresholds, table = scale[0], np.empty(0, dtype=np.int16)
        match self.finish:
            case ScaleFinish():
                scale = self.finish.arguments
            case ThresholdFinish():
                thresholds, table, signs = self.finish.thresholds, self.finish.table, self.finish.signs
        zero, bias, rows = signs * self.zero, signs * self.bias, scale[0]
        less = np.concatenate([each.less for each in self.packed], axis=1)
        # Of every sum in the order of a group's columns: (groups, columns of all streams).
        times = np.concatenate([each.times for each in self.packed])
        if self.form == "popcount":
            unit = (self.unit * times * np.tile(signs, len(times) // own))[None]
        else:
            unit = np.tile(by_group(signs * self.unit), len(times) // own) * times
        real = np.empty((0, self.shape.out_channels))
        if isinstance(self.finish, ScaleFinish) and len(times) == own:
            if self._in_doubles(unit.reshape(-1)):
                real = self.finish.real(unit.reshape(-1), bias, zero)
            unit = unit * by_group(rows[0])
            zero, bias = (each * rows[0] for each in (zero, bias))
            if groups == 1 and len(times) % LANES == 0 and not self.zero.any():
                # Pixels of few channels follow each other in one row.
                less, unit, zero, bias, rows, real = (
                    np.tile(each, max(1, ROW_CHANNELS // own)) for each in (less, unit, zero, bias, rows, real)
                )
        zero, bias, rows, real, limits = (by_group(each) for each in (zero, bias, rows, real, thresholds))
        return _Constants(less, np.ascontiguousarray(unit), zero, bias, rows, *scale[1:], real, limits, table)

    def _in_doubles(self, unit: np.ndarray) -> bool:
        """Whether doubles hold what is scaled, and each of its terms: then all of them hold the sum's too."""
        assert isinstance(self.finish, ScaleFinish)
        multiplier, packed, shape = self.finish.rows[0], self.packed[0], self.shape
        stream = packed.stream
        factors = (packed.factors.astype(np.int64) * packed.rest).reshape(shape.groups, -1).sum(axis=1)
        most_codes = shape.kernel[0] * shape.kernel[1] * max(-stream.low, stream.high)
        inputs = np.repeat(factors * most_codes, shape.group_outputs).astype(np.float64)
        terms = (unit * 1.0, self.bias * 1.0, self.zero * inputs)
        most = 1 << (DOUBLE_BITS - 2)
        return self.finish.doubles and all((np.abs(each) * multiplier < most).all() for each in terms)

    def _run_images(self, x: np.ndarray, pad_code: int, result: np.ndarray) -> None:
        shape, constants, first = self.shape, self._constants, self.packed[0]
        maps = self._maps(x, pad_code)
        flat = result.reshape(-1, shape.out_channels)
        nothing = np.empty((0, shape.out_channels), dtype=np.int16 if flat.dtype == np.int64 else np.int64)
        values, codes = (flat, nothing) if flat.dtype == np.int64 else (nothing, flat)
        streams, images, _, columns, stored = maps.shape
        # Tiles count bytes, the depthwise loop counts elements.
        size = 1 if shape.depthwise else maps.itemsize
        pixel, row = stored * size, columns * stored * size
        down, right = shape.dilation[0] * row, shape.dilation[1] * pixel
        whole_rows = _rows_are_runs(shape)
        taps = range(1 if whole_rows else shape.kernel[1])
        runs = np.array([ky * down + kx * right for ky in range(shape.kernel[0]) for kx in taps])
        run = stored // shape.groups * (shape.kernel[1] if whole_rows else 1)
        groups = len(constants.zero)
        geometry = (
            *(images, row, maps[0, 0].size * size, maps[0].size * size, pixel, stored // shape.groups * size),
            *(*result.shape[1:3], *shape.stride, groups, shape.out_channels // groups, streams),
        )
        block = BLOCK_PIXELS
        while block > LEAST_PIXELS and block * streams * first.columns > BLOCK_SUMS:
            block //= 2
        _direct(
            maps.reshape(-1), geometry, shape.depthwise, runs, -(-run * maps.itemsize // GROUP_BYTES),
            self._weights, first.chunks, first.columns, block,
            self._input_sums(maps, result.shape[1:3]), *constants, values, codes,
        )  # fmt: skip

    @cached_property
    def _weights(self) -> np.ndarray:
        """Of all streams; depthwise (taps of all streams, channels), others (1, all)."""
        weights = np.concatenate([each.weights for each in self.packed])
        return weights if self.shape.depthwise else weights.reshape(1, -1)

    def _maps(self, x: np.ndarray, pad_code: int) -> np.ndarray:
        """Packed activations (streams, N, H', W', C or words of channels)."""
        images, channels, height, width = x.shape
        top, left, bottom, right = self.shape.padding
        dtype = {"vnni": np.uint8, "portable": np.int16, "popcount": np.uint32}[self.form]
        stored = -(-channels // WORD_BITS) if self.form == "popcount" else channels
        size = len(self.packed), images, height + top + bottom, width + left + right, stored
        # A run may be read up to the end of its last group of channels, a depthwise pixel to that of its last vector.
        maps = np.empty(math.prod(size) + LANES, dtype=dtype)[:-LANES].reshape(size)
        for packed, out in zip(self.packed, maps, strict=True):
            packed.pack(x, self.shape, pad_code, out)
        return maps

    def _input_sums(self, maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """Aligned activations under each pixel's window, int64 (groups, pixels); no pixels where nobody asks."""
        shape = self.shape
        if not self.zero.any():
            return np.empty((shape.groups, 0), dtype=np.int64)
        _, images, height, width, channels = maps.shape
        sums = np.zeros((shape.groups, images * height * width), dtype=np.int64)
        for packed, held in zip(self.packed, maps.reshape(len(maps), -1, channels), strict=True):
            stream = packed.stream
            if self.form == "popcount":
                # Of -1 and +1 a sum is twice the ones, less the channels.
                signs = stream.low < 0 < stream.high
                times, less = (2, shape.in_channels) if signs else (stream.times << stream.place, 0)
                _bit_sums(held, times, less, sums)
            else:
                _pixel_sums(held, stream.offset, packed.rest, stream.place, sums)
        sums = sums.reshape(shape.groups, images, height, width)
        total = np.zeros((shape.groups, images, *size), dtype=np.int64)
        for ky in range(shape.kernel[0]):
            for kx in range(shape.kernel[1]):
                rows, columns = (
                    slice(k * dilation, k * dilation + (count - 1) * stride + 1, stride)
                    for k, dilation, count, stride in zip((ky, kx), shape.dilation, size, shape.stride, strict=True)
                )
                total += sums[:, :, rows, columns]
        return total.reshape(shape.groups, -1)
