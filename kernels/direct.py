"""The *fast* form of a layer: the exact integer convolution, where a proof says that no width limits it.

`kernels.conv` makes every width and every overflow in the order of the hardware. Where nothing can overflow, order
means nothing, and what is left is ``value = unit * (x * w) - zero * xsum + bias`` in exact integers. Three forms of it:

* ``vnni``: unsigned bytes times signed bytes, four products into each 32-bit sum at once (`vpdpbusd` of AVX-512 VNNI
  and AVX-VNNI); where activations are signed, an offset makes them unsigned, and the weights' sums take it away again;
* ``popcount``, of sign planes: ones are counted in the bits in which 32 channels of activations and weights differ, a
  pass for each pair of their planes (`DirectConv.of_planes`);
* ``portable``: 16-bit times 16-bit, two products into each 32-bit sum. It is written without any machine's
  instructions; LLVM finds `vpmaddwd`, `vpdpwssd` or what else there is.

The convolution is direct: activations are packed once (`kernels.packed`), channels last and padded, and a register tile
(`kernels.tiles`) reads each tap's channels from there, so that no matrix of columns is ever made. A kernel row of an
undilated convolution is one run of bytes, whatever the number of channels. A block of pixels is requantised
(`kernels.finish`) while its sums are in the cache.

Sums of 32 bits wrap, and wrapping ends where the true sum has 32 bits: `DirectConv.fits` says of which channels that is
proved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from .conv import ConvShape
from .convolve import BLOCK_PIXELS, convolve
from .errors import FormatError, UnsupportedError
from .finish import DOUBLE_BITS, ROW_CHANNELS, ScaleFinish, ThresholdFinish
from .packed import (
    SUM_BITS,
    WORD_BITS,
    Activations,
    FastForm,
    Packed,
    most_limbs,
    pack_depthwise,
    pack_ones,
    pack_planes,
    pack_weights,
    rows_are_runs,
)
from .tiles import GROUP_BYTES
from .vectors import COUNTS_BITS, LANES, VNNI

__all__ = ["DirectConv", "counting_pays", "fast_forms"]

COUNTED_PASSES = 2
"""Passes over bits of whole words that are no slower than one over bytes, what follows the sums included."""
LEAST_PIXELS, BLOCK_SUMS = 24, 96 * 2048
"""Pixels, at least, whose sums stay in the second-level cache until they are requantised; sums, at most."""
WORK_BYTES = 1 << 18
"""Activations that are packed at a time, in whole images: as bytes or 16 bits a part of the second-level cache."""


def counting_pays(shape: ConvShape, pairs: int, passes: int) -> bool:
    """Whether `pairs` of planes are faster counted, on this processor, than `passes` of multiply-adds."""
    words = -(-shape.in_channels // WORD_BITS) * WORD_BITS
    return COUNTS_BITS and pairs * words <= COUNTED_PASSES * passes * shape.in_channels


def fast_forms() -> tuple[FastForm, ...]:
    """The fast forms that this processor runs, the fastest first."""
    return ("vnni", "portable") if VNNI else ("portable",)


class _Constants(NamedTuple):
    """What `convolve` takes behind the sums, (groups, .., outputs of a group) each, `less` and `unit` of every sum.

    Where pixels have few channels, what meets a row of several pixels is repeated for each: of `less` and `unit` only
    where sums of one part are scaled, since others are weighed pixel by pixel. `unit`, `zero` and `bias` then hold the
    multipliers already. Arrays of what does not occur are empty.
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
    proved: bool
    """Whether doubles hold every product."""
    thresholds: np.ndarray
    table: np.ndarray


class _Ones(NamedTuple):
    """What a pixel's channels are summed with: weights of 1, packed as a layer of one output channel a group.

    `less` (streams, groups, limbs) is in each sum, which counts `times` (streams, limbs); a pixel begins with `more`.
    """

    weights: np.ndarray
    steps: int
    less: np.ndarray
    times: np.ndarray
    more: int


class _Layout(NamedTuple):
    """Where images of a size lie, packed: everything that `convolve` takes but their number."""

    dtype: np.dtype[Any]
    size: tuple[int, int, int]
    """Rows and columns, padded, and channels, or words of them."""
    runs: np.ndarray
    """Where each run of a kernel begins from the first tap."""
    steps: int
    """Groups of `GROUP_BYTES` in a run."""
    block: int
    row_bytes: int
    image_bytes: int
    place: tuple[int, ...]
    """The rest of its geometry: from the bytes of a pixel on."""


@dataclass(frozen=True, eq=False)
class DirectConv:
    """A layer in a fast form: ``value = unit * (x * w) - zero * xsum + bias`` of each output channel, exact.

    `build` packs the weights. Results are int64 values or int16 codes of shape (N, out, H, W), with channels last in
    memory; input may have either order, and channels last is faster.
    """

    form: FastForm | Literal["popcount"]
    shape: ConvShape
    packed: tuple[Packed, ...]
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
            packed = [pack_depthwise(shape, stream, each, factors) for stream, each in both]
        else:
            most = max(most_limbs(shape, stream, each, factors, form) for stream, each in both)
            packed = [pack_weights(shape, stream, each, factors, form, most) for stream, each in both]
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
        packed = [pack_planes(shape, stream, planes, signs) for stream in streams]
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
        input_sums = [np.repeat(each.fits, self.shape.group_outputs) for each in self._packed_ones]
        return np.asarray(np.logical_and.reduce([each.fits for each in self.packed] + input_sums))

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
        shape, first, layout = self.shape, self.packed[0], self._layout(height, width)
        result = np.empty((images, *layout.place[2:4], shape.out_channels), dtype=dtype)
        flat = result.reshape(-1, shape.out_channels)
        nothing = np.empty((0, shape.out_channels), dtype=np.int16 if dtype is np.int64 else np.int64)
        values, codes = (flat, nothing) if dtype is np.int64 else (nothing, flat)
        step = min(images, max(1, WORK_BYTES // (x[0].size * (2 if self.form == "portable" else 1))))
        size = len(self.packed), step, *layout.size
        # A run may be read up to the end of its last group of channels, a depthwise pixel to that of its last vector.
        maps = np.empty(math.prod(size) + LANES, dtype=layout.dtype)[:-LANES].reshape(size)
        counted = True if self.form == "popcount" else None
        convolve(
            np.ascontiguousarray(x.transpose(0, 2, 3, 1), dtype=np.int16), maps, *self._packing(pad_code, layout.dtype),
            shape.padding[:2], counted, *self._ones, (shape.kernel, shape.dilation, shape.stride),
            (layout.row_bytes, layout.image_bytes, layout.place),
            shape.depthwise, layout.runs, layout.steps, self._weights, first.chunks, first.columns, layout.block,
            *self._constants, values, codes,
        )  # fmt: skip
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
        real, proved = np.empty((0, own * groups)), False
        single = isinstance(self.finish, ScaleFinish) and len(times) == own
        if single:
            assert isinstance(self.finish, ScaleFinish)
            real, proved = self._doubles(unit.reshape(-1), bias, zero)
            unit = unit * by_group(rows[0])
            zero, bias = (each * rows[0] for each in (zero, bias))
        more = max(1, ROW_CHANNELS // own)
        if groups == 1 and own % LANES == 0:
            # Pixels of few channels follow each other in one row.
            zero, bias, rows, real, thresholds = (np.tile(each, more) for each in (zero, bias, rows, real, thresholds))
            if single:
                less, unit = np.tile(less, more), np.tile(unit, more)
        zero, bias, rows, real, thresholds = (by_group(each) for each in (zero, bias, rows, real, thresholds))
        return _Constants(
            less, np.ascontiguousarray(unit), zero, bias, rows, *scale[1:], real, proved, thresholds, table
        )

    def _doubles(self, unit: np.ndarray, bias: np.ndarray, zero: np.ndarray) -> tuple[np.ndarray, bool]:
        """How values are requantised in doubles, and whether these hold every product; no rows where they do not do.

        Rows are factors, the clamp's ends, units, biases, zero points. Where doubles hold every product, factors,
        biases and zero points are scaled, and units not asked for. They hold each of a value's terms, and so any sum.
        """
        assert isinstance(self.finish, ScaleFinish)
        packed, shape, multiplier = self.packed[0], self.shape, self.finish.rows[0]
        stream = packed.stream
        factors = (packed.factors.astype(np.int64) * packed.rest).reshape(shape.groups, -1).sum(axis=1)
        most_codes = shape.kernel[0] * shape.kernel[1] * max(-stream.low, stream.high)
        inputs = zero * np.repeat(factors * most_codes, shape.group_outputs).astype(np.float64)
        most = 1 << (DOUBLE_BITS - 2)

        def held(*terms: np.ndarray) -> bool:
            return all((np.abs(each * 1.0) < most).all() for each in terms)

        factor, *ends = self.finish.real
        if self.finish.doubles and held(*(each * multiplier for each in (unit * 1.0, bias * 1.0, inputs))):
            return np.stack([factor * unit, *ends, unit, factor * bias, factor * zero]), True
        if self.finish.even_ties and held(unit * float(1 << SUM_BITS - 1), bias, inputs):
            return np.stack([factor, *ends, unit, bias, zero]), False
        return np.empty((0, len(unit))), False

    def _layout(self, height: int, width: int) -> _Layout:
        """Of images of this size; made once."""
        if (height, width) not in self._layouts:
            shape, first = self.shape, self.packed[0]
            top, left, bottom, right = shape.padding
            dtype = np.dtype({"vnni": np.uint8, "portable": np.int16, "popcount": np.uint32}[self.form])
            stored = -(-shape.in_channels // WORD_BITS) if self.form == "popcount" else shape.in_channels
            rows, columns = height + top + bottom, width + left + right
            # Tiles count bytes, the depthwise loop counts elements.
            size = 1 if shape.depthwise else dtype.itemsize
            pixel, row = stored * size, columns * stored * size
            down, right = shape.dilation[0] * row, shape.dilation[1] * pixel
            whole_rows = rows_are_runs(shape)
            taps = range(1 if whole_rows else shape.kernel[1])
            run = stored // shape.groups * (shape.kernel[1] if whole_rows else 1)
            groups, streams = len(self._constants.zero), len(self.packed)
            block = BLOCK_PIXELS
            while block > LEAST_PIXELS and block * streams * first.columns > BLOCK_SUMS:
                block //= 2
            self._layouts[height, width] = _Layout(
                dtype,
                (rows, columns, stored),
                np.array([ky * down + kx * right for ky in range(shape.kernel[0]) for kx in taps]),
                -(-run * dtype.itemsize // GROUP_BYTES),
                block,
                row,
                rows * row,
                (
                    *(pixel, stored // shape.groups * size, *shape.output_size(height, width), *shape.stride),
                    *(groups, shape.out_channels // groups, streams),
                ),
            )
        return self._layouts[height, width]

    @cached_property
    def _layouts(self) -> dict[tuple[int, int], _Layout]:
        return {}

    @cached_property
    def _weights(self) -> np.ndarray:
        """Of all streams; depthwise (taps of all streams, channels), others (1, all)."""
        weights = np.concatenate([each.weights for each in self.packed])
        return weights if self.shape.depthwise else weights.reshape(1, -1)

    def _packing(self, pad_code: int, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """How codes are packed and what the border is, by stream: `cuts`, `factors` and `pads` of `convolve`."""
        if pad_code not in self._packings:
            cuts = [(each.stream.shift, each.stream.mask, each.stream.more) for each in self.packed]
            factors = np.stack([each.factors * each.stream.times for each in self.packed])
            pads = np.stack([each.border(pad_code, self.form == "popcount") for each in self.packed])
            more = max(1, ROW_CHANNELS // self.shape.in_channels)
            self._packings[pad_code] = (
                np.array(cuts, dtype=np.int64),
                None if self.form == "popcount" else np.tile(factors, more).astype(np.int16),
                pads.astype(dtype),
            )
        return self._packings[pad_code]

    @cached_property
    def _packings(self) -> dict[int, tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        return {}

    @cached_property
    def _packed_ones(self) -> list[Packed]:
        """By stream; none where nobody asks for input sums."""
        if not self.zero.any():
            return []
        streams = [(each.stream, each.factors.astype(np.int64) * each.rest) for each in self.packed]
        return pack_ones(self.shape, streams, self.form)

    @cached_property
    def _ones(self) -> _Ones:
        parts, groups = self._packed_ones, self.shape.groups
        if not parts:
            less, times = np.empty((0, groups, 0), dtype=np.int64), np.empty((0, 0), dtype=np.int64)
            return _Ones(np.empty((1, 0), dtype=self._weights.dtype), 0, less, times, 0)
        # A product of two signs is 1, less twice the bit in which they differ.
        signs = self.form == "popcount" and parts[0].stream.low < 0 < parts[0].stream.high
        return _Ones(
            np.concatenate([each.weights for each in parts]).reshape(1, -1),
            parts[0].weights.nbytes // (groups * GROUP_BYTES * LANES),
            np.stack([each.less for each in parts]).astype(np.int64),
            np.stack([each.times for each in parts]),
            self.shape.in_channels * len(parts) if signs else 0,
        )
