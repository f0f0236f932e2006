"""The compiled loops of a layer in a fast form: `convolve` packs activations, makes their sums, and requantises them.

`direct.DirectConv` makes what it takes. One call does it all, so that threads do not wait for each other's Python.
"""

import numpy as np

from .finish import round_products, round_sums, scale_row, scale_sums, threshold_row
from .jit import jit
from .packed import pack_bits, pack_pixels, window_sums
from .tiles import MOST_PIXELS, multiply, multiply_channels, multiply_depthwise, weigh
from .vectors import LANES

__all__ = ["BLOCK_PIXELS", "convolve"]

BLOCK_PIXELS = 96
"""Pixels, at most, whose sums stay in the second-level cache until they are requantised."""


@jit
def _take_away(bias, zero, totals, out):  # type: ignore[no-untyped-def]
    """The bias less the zero-point term, of a few pixels in a row."""
    for n in range(totals.shape[0]):
        out[n] = bias[n] - zero[n] * totals[n]


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
def _finish_rows(  # type: ignore[no-untyped-def]
    sums, count, first, totals, part_places, channels, fused, less, unit, zero, bias,
    scale, nearest, even, away, zero_point, real, proved, thresholds, table, row, spread, counts, offset, values, codes,
):  # fmt: skip
    """What follows the sums of `count` pixels from the `first` one, as many in a row as the constants are long.

    `totals` are their input sums, if any; `row`, `spread`, `counts` and `offset` are scratch of a row.
    """
    together, width, summed = zero.shape[0] // channels, sums.shape[1], totals.shape[0] > 0
    target = codes.reshape(-1)
    for p in range(0, count, together):
        used = min(together, count - p) * channels
        at = (first + p) * channels
        out = target[at : at + used]
        if summed:
            for pixel in range(used // channels):
                total = totals[first + p + pixel]
                own = spread[pixel * channels : (pixel + 1) * channels]
                for n in range(own.shape[0]):
                    own[n] = total
        if not fused:
            for pixel in range(used // channels):
                for n in range(0, channels, LANES):
                    weigh(
                        sums, less, unit, part_places, row, (p + pixel) * width, n, channels, pixel * channels + n
                    )  # fmt: skip
            held = row[:used]
            for n in range(used):
                held[n] += bias[n]
            if summed:
                _take_away(held, zero, spread[:used], held)
            if values.shape[0]:
                own = values.reshape(-1)[at : at + used]
                for n in range(used):
                    own[n] = held[n]
            elif thresholds.shape[0]:
                threshold_row(held, thresholds, table, counts, out)
            else:
                scale_row(held, scale, nearest, even, away, zero_point, out)
            continue
        made = sums.reshape(-1)[p * width : p * width + used]
        if real.shape[0]:
            shift = real[4]
            if summed:
                shift = offset
                _take_away(real[4], real[5], spread[:used], offset)
            if proved:
                round_sums(made, less, real, shift, zero_point, out)
                continue
            if round_products(made, less, real, shift, zero_point, out) == 0:
                continue
        shifted = bias
        if summed:
            shifted = row
            _take_away(bias, zero, spread[:used], row)
        scale_sums(made, less, unit, shifted, scale, nearest, even, away, zero_point, out)


@jit
def _finish_pixels(  # type: ignore[no-untyped-def]
    sums, count, first, totals, columns, padded, begin, fused, less, unit, zero, bias,
    scale, nearest, even, away, zero_point, real, proved, thresholds, table, row, counts, offset, values, codes,
):  # fmt: skip
    """The same pixel by pixel, of any number of channels from `begin` on."""
    channels, summed = row.shape[0], totals.shape[0] > 0
    for p in range(count):
        total = totals[first + p] if summed else np.int64(0)
        out = codes[first + p, begin : begin + channels]
        if real.shape[0]:
            shift = real[4]
            if summed:
                shift = offset
                for n in range(channels):
                    offset[n] = real[4, n] - real[5, n] * total
            if proved:
                round_sums(sums[p], less, real, shift, zero_point, out)
                continue
            if round_products(sums[p], less, real, shift, zero_point, out) == 0:
                continue
        if fused:
            shifted = bias
            if summed:
                shifted = row
                for n in range(channels):
                    row[n] = bias[n] - zero[n] * total
            scale_sums(sums[p], less, unit, shifted, scale, nearest, even, away, zero_point, out)
            continue
        _row(sums[p], columns, padded, less, unit, zero, bias, total, row)
        if values.shape[0]:
            for n in range(channels):
                values[first + p, begin + n] = row[n]
        elif thresholds.shape[0]:
            threshold_row(row, thresholds, table, counts, out)
        else:
            scale_row(row, scale, nearest, even, away, zero_point, out)


@jit
def _direct(  # type: ignore[no-untyped-def]
    x, geometry, depthwise, runs, steps, weights, chunks, columns, block, totals, less, unit, zero, bias,
    scale, nearest, even, away, zero_point, real, proved, thresholds, table, values, codes,
):  # fmt: skip
    """All pixels of packed activations `x`, flat, stream after stream, into codes (pixels, out) or values.

    One of these two is empty. Constants have their groups first: a loop over an array's own range of indices becomes
    vector loads, one from a later beginning becomes gathers. `direct._Constants` says what they are. `block` pixels are
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
    tile_groups = 0 if depthwise else len(runs) * steps * np.sum(chunks)

    fused = streams * columns == group_outputs and scale.shape[1] > 0
    together = zero.shape[1] // group_outputs
    # Each its own: of rows of one array LLVM cannot tell that they do not overlap.
    long = group_outputs * together
    row, spread, counts = np.empty(long, dtype=np.int64), np.empty(long, dtype=np.int64), np.empty(long, dtype=np.int64)
    offset = np.empty(long, dtype=np.float64)
    part_places = np.empty(unit.shape[1] // group_outputs, dtype=np.int64)
    for part in range(len(part_places)):
        part_places[part] = part * group_outputs // columns * padded + part * group_outputs % columns

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
                    multiply_depthwise(x, bases, count, runs, own_weights, sums, stream * padded)
                else:
                    first_group = (stream * groups + group) * tile_groups
                    multiply(x, bases, count, runs, steps, weights, first_group, chunks, sums, stream * padded)
            own_totals = totals[group]
            if together > 1:
                _finish_rows(
                    sums, count, first, own_totals, part_places, group_outputs, fused,
                    less[group], unit[group], zero[group], bias[group], scale[group], nearest, even, away, zero_point,
                    real[group], proved, thresholds[group], table, row, spread, counts, offset, values, codes,
                )  # fmt: skip
            else:
                _finish_pixels(
                    sums, count, first, own_totals, columns, padded, group * group_outputs, fused,
                    less[group], unit[group], zero[group], bias[group], scale[group], nearest, even, away, zero_point,
                    real[group], proved, thresholds[group], table, row, counts, offset, values, codes,
                )  # fmt: skip


@jit
def _sum_channels(x, begin, pixel_bytes, ones, steps, first_group, less, times, out):  # type: ignore[no-untyped-def]
    """Add each packed pixel's channels to `out` (pixels,): a register tile's sums with weights of 1, limb by limb."""
    bases = np.empty(BLOCK_PIXELS + MOST_PIXELS, dtype=np.int64)
    sums = np.empty((BLOCK_PIXELS + MOST_PIXELS, LANES), dtype=np.int32)
    run = np.zeros(1, dtype=np.int64)
    for first in range(0, out.shape[0], BLOCK_PIXELS):
        own = out[first : first + BLOCK_PIXELS]
        count = own.shape[0]
        for p in range(count):
            bases[p] = begin + (first + p) * pixel_bytes
        bases[count : count + MOST_PIXELS] = bases[count - 1]
        multiply_channels(x, bases, count, run, steps, ones, first_group, sums)
        for limb in range(times.shape[0]):
            for p in range(count):
                own[p] += np.int64(np.int32(sums[p, limb] - less[limb])) * times[limb]


@jit
def convolve(  # type: ignore[no-untyped-def]
    x, maps, cuts, factors, pads, border, counted, ones, ones_steps, ones_less, ones_times, ones_more, window, layout,
    depthwise, runs, steps, weights, chunks, columns, block, less, unit, zero, bias,
    scale, nearest, even, away, zero_point, real, proved, thresholds, table, values, codes,
):  # fmt: skip
    """Codes `x` (N, H, W, C) through `_direct`: packed into `maps` (streams, images, ..), so many images at a time.

    `cuts` (streams, 3) and `factors` say how (`packed.pack_pixels`), or which bits, where `counted` is not None;
    `factors` then are: by these two types no form is compiled with the other's packing. `border` is its thickness, of
    `pads`. Input sums are made with `direct._Ones`, which have no streams where nobody asks for them, and summed over
    the `window`: its kernel, dilation and stride.
    """
    row_bytes, image_bytes, place = layout
    pixel_bytes, group_bytes, out_height, out_width = place[0], place[1], place[2], place[3]
    streams, step, height, width, _ = maps.shape
    groups, summed = ones_less.shape[1], ones_less.shape[0] > 0
    pixels = out_height * out_width
    for first in range(0, x.shape[0], step):
        count = min(step, x.shape[0] - first)
        part, end = x[first : first + count], (first + count) * pixels
        for stream in range(streams):
            cut, held = cuts[stream], maps[stream, :count]
            if counted is not None:
                pack_bits(part, cut[0], pads[stream], border[0], border[1], held)
            if factors is not None:
                pack_pixels(part, cut[0], cut[1], cut[2], factors[stream], pads[stream], border[0], border[1], held)
        totals = np.empty((groups, count * pixels * summed), dtype=np.int64)
        if summed:
            for group in range(groups):
                single = np.full(count * height * width, ones_more)
                for stream in range(streams):
                    _sum_channels(
                        maps.reshape(-1), stream * step * image_bytes + group * group_bytes, pixel_bytes, ones,
                        ones_steps, (stream * groups + group) * ones_steps, ones_less[stream, group],
                        ones_times[stream], single,
                    )  # fmt: skip
                window_sums(
                    single.reshape(count, height, width), *window, totals[group].reshape(count, out_height, out_width)
                )
        _direct(
            maps.reshape(-1), (count, row_bytes, image_bytes, step * image_bytes, *place),
            depthwise, runs, steps, weights, chunks, columns, block, totals, less, unit, zero, bias,
            scale, nearest, even, away, zero_point, real, proved, thresholds, table,
            values[first * pixels : end], codes[first * pixels : end],
        )  # fmt: skip
