"""The *fast* form of a layer: the exact integer convolution, where a proof says that no width limits it.

`kernels.conv` makes every width and every overflow in the order of the hardware. Where nothing can overflow, order
means nothing, and what is left is ``value = unit * (x * w) - zero * xsum + bias`` in exact integers. Two forms of it:

* ``vnni``: unsigned bytes times signed bytes, four products into each 32-bit sum at once (`vpdpbusd` of AVX-512 VNNI
  and AVX-VNNI); where activations are signed, an offset makes them unsigned, and the weights' sums take it away again;
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
from .vectors import LANES, VNNI, WIDE, add_pairs, arrays, splat

__all__ = ["Activations", "DirectConv", "FastForm", "ScaleFinish", "ThresholdFinish", "fast_forms"]

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
BLOCK_PIXELS = 96
"""Pixels whose sums stay in the second-level cache until they are requantised."""
ROW_CHANNELS = 256
"""Channels that are requantised in a loop, of several pixels where each has few."""
WORK_BYTES = 1 << 18
"""Packed activations that one call of the compiled loop is given, in whole images: a part of the second-level cache."""


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
def _multiply(x, bases, count, runs, steps, weights, first_group, chunks, sums):  # type: ignore[no-untyped-def]
    """Sums of `count` pixels and all columns, a chunk of 1 to 4 vectors after the other.

    `bases` says where each pixel begins in `x`, and goes on to say it of the last for `MOST_PIXELS` more; `sums` has
    as many more rows.
    """
    columns = sums.shape[1]
    vector = 0
    for vectors in chunks:
        column = vector * LANES
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
def _multiply_depthwise(x, bases, count, runs, weights, sums):  # type: ignore[no-untyped-def]
    """Sums of one product a tap; `weights` are (taps, channels), `bases` and `runs` elements of int16 `x`."""
    channels = weights.shape[1]
    for p in range(count):
        c = 0
        while c + 4 * LANES <= channels:
            _taps_4(x, runs, weights, sums, bases[p] + c, c, p * channels + c, channels)
            c += 4 * LANES
        while c < channels:
            _taps_1(x, runs, weights, sums, bases[p] + c, c, p * channels + c, channels)
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
def _row(sums, columns, limb_bits, less, unit, zero, bias, total, row):  # type: ignore[no-untyped-def]
    """A pixel's values: limbs put together, weighed, less the zero-point term, plus the bias."""
    channels = row.shape[0]
    for n in range(channels):
        row[n] = np.int32(sums[n] - less[n])
    for limb in range(1, columns // channels):
        first = limb * channels
        for n in range(channels):
            row[n] += np.int64(np.int32(sums[first + n] - less[first + n])) << (limb * limb_bits)
    for n in range(channels):
        row[n] = row[n] * unit[n] - zero[n] * total + bias[n]


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
    x, geometry, depthwise, runs, steps, weights, chunks, columns, limb_bits, totals, less, unit, zero, bias,
    scale, nearest, even, away, zero_point, real, thresholds, table, values, codes,
):  # fmt: skip
    """All pixels of packed activations `x`, flat, into codes (pixels, out) or values, whichever is not empty.

    Values are added to those that are there. Constants have their groups first: a loop over an array's own range of
    indices becomes vector loads, one from a later beginning becomes gathers. `_Constants` says what they are.
    """
    (
        images, row_bytes, image_bytes, column_bytes, group_bytes, out_height, out_width, stride_y, stride_x, groups,
        group_outputs,
    ) = geometry  # fmt: skip
    pixels = images * out_height * out_width
    padded = weights.shape[1] if depthwise else np.sum(chunks) * LANES
    bases = np.empty(BLOCK_PIXELS + MOST_PIXELS, dtype=np.int64)
    places = np.empty(BLOCK_PIXELS, dtype=np.int64)
    sums = np.empty((BLOCK_PIXELS + MOST_PIXELS, padded), dtype=np.int32)
    row = np.empty(group_outputs, dtype=np.int64)
    counts = np.empty(group_outputs, dtype=np.int64)
    tile_groups = 0 if depthwise else len(runs) * steps * np.sum(chunks)

    rounded = real.shape[1] > 0
    fused = columns == group_outputs and scale.shape[1] > 0
    together = less.shape[1] // columns
    offset = np.empty(group_outputs, dtype=np.float64)

    image_place, row_place, y, column = np.int64(0), np.int64(0), 0, 0
    for first in range(0, pixels, BLOCK_PIXELS):
        count = min(BLOCK_PIXELS, pixels - first)
        for p in range(count):
            places[p] = row_place + column * stride_x * column_bytes
            column += 1
            if column == out_width:
                column, y, row_place = 0, y + 1, row_place + stride_y * row_bytes
                if y == out_height:
                    image_place += image_bytes
                    y, row_place = 0, image_place
        for group in range(groups):
            for p in range(count):
                bases[p] = places[p] + group * group_bytes
            bases[count : count + MOST_PIXELS] = bases[count - 1]
            if depthwise:
                _multiply_depthwise(x, bases, count, runs, weights, sums)
            else:
                _multiply(x, bases, count, runs, steps, weights, group * tile_groups, chunks, sums)
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
                _row(sums[p], columns, limb_bits, own_less, own_unit, own_zero, own_bias, total, row)
                if values.shape[0]:
                    values[first + p, begin:end] += row
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

    def streams(self, form: FastForm) -> "list[Stream]":
        """The streams in which such activations are packed."""
        if self.planes:
            low, times = (-1, 2) if self.signs else (0, 1)
            # Bytes hold 0 and 2 for -1 and +1, 16 bits the numbers themselves.
            more, offset = (0, -low) if form == "vnni" else (low, 0)
            return [Stream(plane, 1, times, more, offset, low, 1, 0, 0) for plane in range(self.bits)]
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

    def pack(self, x: np.ndarray, shape: ConvShape, pad_code: int, dtype: type[np.integer[Any]]) -> np.ndarray:
        """Codes (N, C, H, W) as (N, H', W', C), padded, in a buffer that is a few bytes longer."""
        images, channels, height, width = x.shape
        top, left, bottom, right = shape.padding
        size = images, height + top + bottom, width + left + right, channels
        # A run may be read up to the end of its last group of channels, a depthwise pixel to that of its last vector.
        buffer = np.empty(size[0] * size[1] * size[2] * channels + LANES, dtype=dtype)
        packed = buffer[:-LANES].reshape(size)
        stream = self.stream
        factors = self.factors * np.int32(stream.times)
        pad = (((pad_code >> stream.shift) & stream.mask) * factors + stream.more).astype(dtype)
        pixels = x.transpose(0, 2, 3, 1)
        kernel, codes = (_pack_pixels, pixels) if pixels.flags.c_contiguous else (_pack_maps, np.ascontiguousarray(x))
        kernel(codes, stream.shift, stream.mask, factors, stream.more, pad, top, left, packed)
        return packed


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


def _limbs(weights: np.ndarray, bits: int) -> list[np.ndarray]:
    """Weights as signed limbs of so many bits, the lowest first; as many as the greatest weight needs."""
    low, high = signed_range(bits)
    limbs: list[np.ndarray] = []
    while not limbs or weights.any():
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
    shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray, form: FastForm
) -> _Packed:
    mine, rest, scaled = _split(shape, stream, weights, factors)
    limbs = _limbs(scaled, LIMB_BITS[form])
    held = np.concatenate(limbs, axis=1)  # (groups, columns, in, ky, kx)
    columns = held.shape[1]
    fits = _sums_fit(held, mine, stream, shape.groups).reshape(shape.groups, len(limbs), shape.group_outputs)
    less = held.sum(axis=(2, 3, 4)) * stream.offset

    dtype = np.int8 if form == "vnni" else np.int16
    together = GROUP_BYTES // np.dtype(dtype).itemsize
    runs = held.transpose(0, 1, 3, 4, 2)  # (groups, columns, ky, kx, in)
    run_count = shape.kernel[0] * (1 if _rows_are_runs(shape) else shape.kernel[1])
    runs = runs.reshape(shape.groups, columns, run_count, -1)
    steps = -(-runs.shape[3] // together)
    chunks = _chunks(-(-columns // LANES))
    padded = np.zeros((shape.groups, sum(chunks) * LANES, run_count, steps * together), dtype=dtype)
    padded[:, :columns, :, : runs.shape[3]] = runs
    padded = padded.reshape(shape.groups, -1, run_count, steps, together).transpose(0, 2, 3, 1, 4)
    ends = np.cumsum(chunks) * LANES
    parts = [
        padded[group, :, :, end - chunk * LANES : end].reshape(-1)
        for group in range(shape.groups)
        for chunk, end in zip(chunks, ends, strict=True)
    ]
    return _Packed(
        stream,
        mine.astype(np.int32),
        rest.astype(np.int32),
        np.concatenate(parts),
        np.array(chunks),
        columns,
        less.astype(np.int32),
        fits.all(axis=1).reshape(-1),
    )


def _pack_depthwise(
    shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray, form: FastForm
) -> _Packed:
    mine, rest, scaled = _split(shape, stream, weights, factors)
    low, high = signed_range(SUM_BITS)
    taps = scaled.reshape(shape.out_channels, -1)
    held = (scaled.min(axis=(1, 2, 3, 4)) >= low) & (scaled.max(axis=(1, 2, 3, 4)) <= high)
    return _Packed(
        stream,
        mine.astype(np.int32),
        rest.astype(np.int32),
        np.ascontiguousarray(np.pad(taps.astype(np.int32), ((0, -len(taps) % LANES), (0, 0))).T),
        np.array(_chunks(-(-len(taps) // LANES))),
        shape.out_channels,
        np.zeros((1, shape.out_channels), dtype=np.int32),
        held & _sums_fit(scaled, mine, stream, shape.groups).reshape(-1),
    )


class _Constants(NamedTuple):
    """What `_direct` takes behind the sums of a stream, (groups, .., outputs of a group) each.

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

    form: FastForm
    shape: ConvShape
    packed: tuple[_Packed, ...]
    unit: np.ndarray
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
        pack = _pack_weights
        if shape.depthwise:
            form, pack = "portable", _pack_depthwise
            weights = [each * unit.reshape(-1, 1, 1, 1) - zero.reshape(-1, 1, 1, 1) for each in weights]
            unit, zero = np.ones_like(unit), np.zeros_like(zero)
        streams = activations.streams(form)
        if not activations.planes:
            weights = weights * len(streams)
        packed = [pack(shape, stream, each, factors, form) for stream, each in zip(streams, weights, strict=True)]
        return cls(form, shape, tuple(packed), unit, zero, bias)

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
        if len(self.packed) > 1:
            raise FormatError(f"requantised activations must be one stream, not {len(self.packed)}: take values")
        return replace(self, finish=finish)

    def values(self, x: np.ndarray, pad_code: int) -> np.ndarray:
        """Corrected values, int64, of codes (N, in, H, W); `pad_code` is what padding feeds."""
        assert self.finish is None
        return self._run(x, pad_code, np.zeros, np.int64)

    def codes(self, x: np.ndarray, pad_code: int) -> np.ndarray:
        """Requantised codes, int16."""
        assert self.finish is not None
        return self._run(x, pad_code, np.empty, np.int16)

    def _run(self, x: np.ndarray, pad_code: int, new: Any, dtype: type[np.signedinteger[Any]]) -> np.ndarray:
        images, _, height, width = x.shape
        result = new((images, *self.shape.output_size(height, width), self.shape.out_channels), dtype=dtype)
        step = max(1, WORK_BYTES // (x[0].size * (1 if self.form == "vnni" else 2)))
        for first in range(0, images, step):
            part = slice(first, first + step)
            self._run_images(x[part], pad_code, result[part])
        return np.asarray(result.transpose(0, 3, 1, 2))

    @cached_property
    def _constants(self) -> list[_Constants]:
        """By stream; what is added once comes with the first."""
        groups = 1 if self.shape.depthwise else self.shape.groups
        own = self.shape.out_channels // groups

        def by_group(constants: np.ndarray) -> np.ndarray:
            """(..., outputs) as (groups, ..., outputs of a group)."""
            shape = *constants.shape[:-1], groups, constants.shape[-1] // groups
            return np.ascontiguousarray(np.moveaxis(constants.reshape(shape), -2, 0))

        signs = np.ones_like(self.unit)
        made: list[_Constants] = []
        scale = np.empty((0, self.shape.out_channels), dtype=np.int64), 0, 0, 0, 0
        thresholds, table = scale[0], np.empty(0, dtype=np.int16)
        match self.finish:
            case ScaleFinish():
                scale = self.finish.arguments
            case ThresholdFinish():
                thresholds, table, signs = self.finish.thresholds, self.finish.table, self.finish.signs
        for packed in self.packed:
            unit, zero, bias = (
                signs * (self.unit << packed.stream.place),
                signs * self.zero if not made else np.zeros_like(self.zero),
                signs * self.bias if not made else np.zeros_like(self.bias),
            )
            less, rows, real = packed.less, scale[0], np.empty((0, self.shape.out_channels))
            if isinstance(self.finish, ScaleFinish) and packed.columns == own:
                if self._in_doubles(packed):
                    real = self.finish.real(unit, bias, zero)
                unit, zero, bias = (each * rows[0] for each in (unit, zero, bias))
                if groups == 1 and packed.columns % LANES == 0 and not self.zero.any():
                    # Pixels of few channels follow each other in one row.
                    together = max(1, ROW_CHANNELS // own)
                    less, unit, zero, bias, rows, real = (
                        np.tile(each, together) for each in (less, unit, zero, bias, rows, real)
                    )
            unit, zero, bias, rows, real, limits = (
                by_group(each) for each in (unit, zero, bias, rows, real, thresholds)
            )
            made.append(_Constants(less, unit, zero, bias, rows, *scale[1:], real, limits, table))
        return made

    def _in_doubles(self, packed: _Packed) -> bool:
        """Whether doubles hold what is scaled, and each of its terms: then all of them hold the sum's too."""
        assert isinstance(self.finish, ScaleFinish)
        multiplier, stream, shape = self.finish.rows[0], packed.stream, self.shape
        factors = (packed.factors.astype(np.int64) * packed.rest).reshape(shape.groups, -1).sum(axis=1)
        most_codes = shape.kernel[0] * shape.kernel[1] * max(-stream.low, stream.high)
        inputs = np.repeat(factors * most_codes, shape.group_outputs).astype(np.float64)
        terms = (self.unit * 1.0, self.bias * 1.0, self.zero * inputs)
        most = 1 << (DOUBLE_BITS - 2)
        return self.finish.doubles and all((np.abs(each) * multiplier < most).all() for each in terms)

    def _run_images(
        self,
        x: np.ndarray,
        pad_code: int,
        result: np.ndarray,
    ) -> None:
        shape = self.shape
        dtype = np.uint8 if self.form == "vnni" else np.int16
        maps = [each.pack(x, shape, pad_code, dtype) for each in self.packed]
        flat = result.reshape(-1, shape.out_channels)
        nothing = np.empty((0, shape.out_channels), dtype=np.int16 if flat.dtype == np.int64 else np.int64)
        values, codes = (flat, nothing) if flat.dtype == np.int64 else (nothing, flat)
        totals = self._input_sums(maps, result.shape[1:3])
        for packed, held, constants in zip(self.packed, maps, self._constants, strict=True):
            images, _, columns, channels = held.shape
            # Tiles count bytes, the depthwise loop counts elements.
            size = 1 if shape.depthwise else held.itemsize
            pixel, row = channels * size, columns * channels * size
            down, right = shape.dilation[0] * row, shape.dilation[1] * pixel
            taps = range(1 if _rows_are_runs(shape) else shape.kernel[1])
            runs = np.array([ky * down + kx * right for ky in range(shape.kernel[0]) for kx in taps])
            run_channels = shape.group_inputs * (shape.kernel[1] if _rows_are_runs(shape) else 1)
            geometry = (
                *(images, row, held[0].size * size, pixel, shape.group_inputs * size, *result.shape[1:3]),
                *(*shape.stride, len(constants.unit), shape.out_channels // len(constants.unit)),
            )
            _direct(
                held.reshape(-1), geometry, shape.depthwise, runs, -(-run_channels * held.itemsize // GROUP_BYTES),
                packed.weights if shape.depthwise else packed.weights.reshape(1, -1),
                packed.chunks, packed.columns, LIMB_BITS[self.form], totals, *constants, values, codes,
            )  # fmt: skip

    def _input_sums(self, maps: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Aligned activations under each pixel's window, int64 (groups, pixels); no pixels where nobody asks."""
        shape = self.shape
        if not self.zero.any():
            return np.empty((shape.groups, 0), dtype=np.int64)
        images, height, width, channels = maps[0].shape
        sums = np.zeros((shape.groups, images * height * width), dtype=np.int64)
        for packed, held in zip(self.packed, maps, strict=True):
            _pixel_sums(held.reshape(-1, channels), packed.stream.offset, packed.rest, packed.stream.place, sums)
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
