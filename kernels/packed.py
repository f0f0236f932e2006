"""What the fast forms multiply: activations and weights, packed for register tiles.

Alignment goes into the operands: of the factor of an input channel as many powers of two into its activations as these
have room for, the rest into its weights. Weights (with their factors) of more than 8 or 16 bits are *limbs*, each a
column of its own; activations of more bits, and planes, are *streams*, each packed by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .conv import ConvShape
from .jit import jit
from .mac import signed_range
from .tiles import GROUP_BYTES, tile_chunks
from .vectors import BIT_CODES, LANES, code_bits

__all__ = [
    "LIMB_BITS", "SUM_BITS", "WORD_BITS", "Activations", "FastForm", "Packed", "Stream", "most_limbs", "pack_bits",
    "pack_depthwise", "pack_ones", "pack_pixels", "pack_planes", "pack_weights", "rows_are_runs", "window_sums",
]  # fmt: skip

FastForm = Literal["vnni", "portable"]
LIMB_BITS = {"vnni": 8, "portable": 16}
SUM_BITS = 32
WORD_BITS = 32
"""Channels of a word, where activations are bits."""


@jit
def pack_pixels(x, shift, mask, more, factors, pad, top, left, out):  # type: ignore[no-untyped-def]
    """Pack codes (N, H, W, C), 16 bits, with a border of `pad` (C,) into `out` (N, H', W', C).

    `factors` are those of a few pixels in a row. What is stored has no more bits than codes: arithmetic of 16 does.
    """
    images, height, width, channels = x.shape
    shift, mask, more, length = np.int16(shift & 15), np.int16(mask), np.int16(more), factors.shape[0]
    _pack_border(height, width, pad, top, left, out)
    for n in range(images):
        for y in range(height):
            source, target = x[n, y].reshape(-1), out[n, top + y].reshape(-1)[left * channels :]
            for first in range(0, width * channels, length):
                held, codes = target[first : min(first + length, width * channels)], source[first:]
                for c in range(held.shape[0]):
                    held[c] = np.int16(np.int16(codes[c] >> shift) & mask) * factors[c] + more


@jit
def pack_bits(x, plane, pad, top, left, out):  # type: ignore[no-untyped-def]
    """Pack a bit of each code (N, H, W, C), 32 channels in a word; `pad` are the words of the border."""
    images, height, width, channels = x.shape
    _pack_border(height, width, pad, top, left, out)
    for n in range(images):
        for y in range(height):
            for column in range(width):
                source, target = x[n, y, column], out[n, top + y, left + column]
                for word in range(target.shape[0]):
                    held, bit, bits = np.uint32(0), 0, min(WORD_BITS, channels - WORD_BITS * word)
                    while bit + BIT_CODES <= bits:
                        place = ((n * height + y) * width + column) * channels + WORD_BITS * word + bit
                        held |= code_bits(x, place, plane) << np.uint32(bit)
                        bit += BIT_CODES
                    while bit < bits:
                        held |= np.uint32((source[WORD_BITS * word + bit] >> plane) & 1) << np.uint32(bit)
                        bit += 1
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
def window_sums(sums, kernel, dilation, stride, out):  # type: ignore[no-untyped-def]
    """Sums (N, H', W') under each pixel's window, `out` (N, H, W)."""
    images, height, _ = out.shape
    out[:] = 0
    for n in range(images):
        for y in range(height):
            for ky in range(kernel[0]):
                row, total = sums[n, y * stride[0] + ky * dilation[0]], out[n, y]
                for kx in range(kernel[1]):
                    window = row[kx * dilation[1] :]
                    if stride[1] == 1:
                        for column in range(total.shape[0]):
                            total[column] += window[column]
                    else:
                        for column in range(total.shape[0]):
                            total[column] += window[column * stride[1]]


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


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
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

    def border(self, pad_code: int, words: bool) -> np.ndarray:
        """What is stored of each channel, or word of channels, where padding is."""
        stream, channels = self.stream, len(self.factors)
        if words:
            pad = np.full(-(-channels // WORD_BITS), 0xFFFFFFFF if pad_code >> stream.shift & 1 else 0, dtype=np.uint32)
            pad[-1] &= np.uint32(0xFFFFFFFF) >> np.uint32(-channels % WORD_BITS)
            return pad
        return ((pad_code >> stream.shift) & stream.mask) * self.factors * stream.times + stream.more


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


def most_limbs(shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray, form: FastForm) -> int:
    """Limbs that the greatest weight needs, with what its factors leave to it."""
    return len(_limbs(_split(shape, stream, weights, factors)[2], LIMB_BITS[form]))


def rows_are_runs(shape: ConvShape) -> bool:
    """Whether a kernel row is one run of the packed activations."""
    return shape.groups == 1 and shape.dilation[1] == 1 and not shape.depthwise


def pack_weights(
    shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray, form: FastForm, limbs: int
) -> Packed:
    """Integers (out, in per group, ky, kx) as `limbs` limbs at least, for activations of a stream."""
    mine, rest, scaled = _split(shape, stream, weights, factors)
    held = np.concatenate(_limbs(scaled, LIMB_BITS[form], limbs), axis=1)  # (groups, columns, in, ky, kx)
    limbs = held.shape[1] // shape.group_outputs
    fits = _sums_fit(held, mine, stream, shape.groups).reshape(shape.groups, limbs, shape.group_outputs)
    less = held.sum(axis=(2, 3, 4)) * stream.offset
    runs = held.transpose(0, 1, 3, 4, 2)  # (groups, columns, ky, kx, in)
    chunks, packed = _tiled(shape, runs.astype(np.int8 if form == "vnni" else np.int16))
    return Packed(
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
    run_count = shape.kernel[0] * (1 if rows_are_runs(shape) else shape.kernel[1])
    runs = runs.reshape(shape.groups, columns, run_count, -1)
    steps = -(-runs.shape[3] // together)
    chunks = tile_chunks(-(-columns // LANES))
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


def pack_planes(shape: ConvShape, stream: Stream, planes: np.ndarray, signs: bool) -> Packed:
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
    return Packed(stream, one, one, times, packed, chunks, len(columns), less.astype(np.int32)[None], every)


def pack_ones(
    shape: ConvShape, streams: Sequence[tuple[Stream, np.ndarray]], form: FastForm | Literal["popcount"]
) -> list[Packed]:
    """What a pixel's channels are summed with, group by group: ones, as a layer of one output channel a group.

    `streams` come with the alignment's factors (in,).
    """
    single = ConvShape(shape.in_channels, shape.groups, groups=shape.groups)
    if form == "popcount":
        planes = np.ones((1, *single.weight_shape), dtype=bool)
        return [pack_planes(single, stream, planes, stream.low < 0 < stream.high) for stream, _ in streams]
    weights = np.ones(single.weight_shape, dtype=np.int64)
    most = max(most_limbs(single, stream, weights, factors, form) for stream, factors in streams)
    return [pack_weights(single, stream, weights, factors, form, most) for stream, factors in streams]


def pack_depthwise(shape: ConvShape, stream: Stream, weights: np.ndarray, factors: np.ndarray) -> Packed:
    """Integers (out, 1, ky, kx) of 32 bits; activations are portable."""
    mine, rest, scaled = _split(shape, stream, weights, factors)
    low, high = signed_range(SUM_BITS)
    taps = scaled.reshape(shape.out_channels, -1)
    held = (scaled.min(axis=(1, 2, 3, 4)) >= low) & (scaled.max(axis=(1, 2, 3, 4)) <= high)
    return Packed(
        stream,
        mine.astype(np.int32),
        rest.astype(np.int32),
        np.full(shape.out_channels, 1 << stream.place),
        np.ascontiguousarray(np.pad(taps.astype(np.int32), ((0, -len(taps) % LANES), (0, 0))).T),
        np.array(tile_chunks(-(-len(taps) // LANES))),
        shape.out_channels,
        np.zeros((1, shape.out_channels), dtype=np.int32),
        held & _sums_fit(scaled, mine, stream, shape.groups).reshape(-1),
    )
