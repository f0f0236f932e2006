"""NetworkBuilder: an exported network from plain NumPy codes, scales and zero points.

The door for people with their own training code. They say what codes stand for; the builder
works out multipliers, shifts, biases and zero-point constants, and checks every width.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, TypeVar, Unpack, cast

import numpy as np

from ..kernels.align import Alignment, alignment_factors
from ..kernels.errors import FormatError, GatewiseError, UnsupportedError
from ..kernels.mac import DIGIT_BITS, MacFormat, signed_range
from ..kernels.nested import NestedGrid
from ..kernels.requant import Rounding
from ..kernels.residual import STREAM_BITS
from .file import payload_digest, save_network
from .fixed_point import fixed_multiplier, fixed_zero_point, fraction_bits, odd_multiplier, smallest_signed
from .graph import MacNode, PlaneWeights, Value, activation_planes, conv_shape, infer, xor_networks
from .manifest import (
    AddNode,
    AveragePoolNode,
    ChannelPadNode,
    Codes,
    Coding,
    ConcatNode,
    Conv2dNode,
    FlattenNode,
    GlobalAveragePoolNode,
    InputSpec,
    LinearNode,
    Manifest,
    MaxPoolNode,
    RequantiseNode,
    StrideSliceNode,
    XorNetworkSpec,
)
from .network import Network
from .plane_basis import PlaneBasis
from .validation import checked
from .weights import WeightCodes, decode_weights

__all__ = ["Grid", "MacSettings", "NetworkBuilder", "Tensor", "Thresholds"]

Pair = int | tuple[int, int]
Pads = Pair | tuple[int, int, int, int]
NO_DIGEST = "0" * 64
NEAREST: tuple[Rounding, ...] = ("half_even", "half_up", "half_away")
"""Roundings that differ on halves alone."""
Method = TypeVar("Method", bound="Callable[..., Tensor]")


@dataclass(frozen=True, slots=True)
class Grid:
    """What codes stand for: ``real = scale * factor[channel] * (code - zero_point)``.

    The factor is 1, or for per-channel steps ``2**amounts`` (align "shift") or ``amounts`` ("mul").
    Whoever writes the tensor clamps its codes to [low, high]: the whole container unless given. With the rounding
    "nested" it rounds as Bayesian Bits does (`NestedGrid`): layers of the array make 2 and 4 bits by thresholds; all
    else has odd multipliers, with which no value of the grid is halfway between two codes, so that nested rounding is
    the direct one. With a `basis` codes are words of activation planes, ``real = scale * sum_j beta[j] * s_j``;
    `of_planes` makes such.
    A convolution or linear layer may give each channel its own width of `widths` bits, 0 to `bits`: the channel's
    clamp is ``[low >> n, high >> n]`` with n the bits that it has less; without any bits it is 0. The zero point must
    be 0 then, the rounding direct.
    """

    scale: float
    bits: int
    signed: bool = False
    zero_point: int = 0
    align: Alignment | None = None
    amounts: np.ndarray | None = None
    low: int | None = None
    high: int | None = None
    widths: np.ndarray | None = None
    rounding: Literal["direct", "nested"] = "direct"
    basis: PlaneBasis | None = None

    def __post_init__(self) -> None:
        if self.rounding not in ("direct", "nested"):
            raise FormatError(f"rounding of a grid must be direct or nested, not {self.rounding!r}")
        if self.rounding == "direct":
            return
        zeros = (0, signed_range(STREAM_BITS)[0]) if self.bits == STREAM_BITS else (0,)
        if self.bits == 0 or self.zero_point not in zeros or self.low is not None or self.high is not None:
            raise FormatError(
                f"a nested grid must have 2, 4, 8 or 16 bits, zero point {' or '.join(map(str, zeros))} and no other "
                f"clamp than its own, not {self.bits} bits, {self.zero_point} and {self.low}..{self.high}"
            )
        if self.widths is not None:
            raise FormatError("a nested grid must have one width for all channels")
        _ = self.nested_grid

    @classmethod
    def nested(cls, bits: int, signed: bool, limit: float) -> "Grid":
        """Bayesian Bits' grid of `bits` bits (2, 4, 8, 16), whose greatest value in magnitude is `limit`."""
        grid = NestedGrid(bits, signed)
        wide = bits == STREAM_BITS and not signed
        zero_point = signed_range(STREAM_BITS)[0] if wide else 0
        return cls(grid.step(limit), bits, signed or wide, zero_point, rounding="nested")

    @classmethod
    def of_planes(cls, basis: PlaneBasis) -> "Grid":
        """Words of planes: thresholds make them, at the numbers that the basis has."""
        return cls(1.0, len(basis.spec.beta), zero_point=basis.pad, basis=basis)

    @property
    def clamp(self) -> tuple[int, int]:
        """The codes that the tensor's writer clamps to."""
        low, high = self.codes.range
        if self.rounding == "nested":
            return self.zero_point + self.nested_grid.code_range[0], self.zero_point + self.nested_grid.code_range[1]
        return low if self.low is None else self.low, high if self.high is None else self.high

    @property
    def nested_grid(self) -> NestedGrid:
        """The grid of the codes less their zero point, where they round nested."""
        return NestedGrid(self.bits, self.signed and not self.zero_point)

    @property
    def magnitude_bits(self) -> int:
        """Bits that hold the magnitude of every code less its zero point."""
        return self.bits - (self.signed and self.zero_point == 0)

    @property
    def factors(self) -> np.ndarray:
        """Per-channel factors, float64; (1,) where there is one for all."""
        if self.align is None or self.amounts is None:
            return np.ones(1)
        return alignment_factors(self.align, self.amounts).astype(np.float64)

    @property
    def codes(self) -> Codes:
        """The manifest's form."""
        planes = None if self.basis is None else self.basis.spec
        return checked(
            Codes,
            bits=self.bits,
            signed=self.signed,
            zero_point=self.zero_point,
            scale=float(self.scale),
            planes=planes,
        )


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the network being built."""

    name: str
    shape: tuple[int, int, int]
    grid: Grid


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Integer thresholds (channels, 2**bits - 1) on the corrected accumulator, with its fraction bits."""

    values: np.ndarray
    descending: np.ndarray | Literal[False] = False


class MacSettings(TypedDict, total=False):
    """What `NetworkBuilder.conv2d` and `linear` are told by name; `scale` and `out` must be given."""

    scale: Required[np.ndarray | float]
    """Of the weights, positive, one number or one for each output channel: ``real = scale * (weight - zero_point)``."""
    out: Required[Grid]
    """What the result's codes stand for."""
    bits: int | np.ndarray
    """Of plain integer codes, which must have it; one number, or one for each output channel, 0..8."""
    signed: bool
    """Whether plain codes are signed, as they are unless given; unsigned ones are stored less ``2**(bits - 1)``."""
    coding: Coding
    """How plain codes are stored: "raw" unless given, or "huffman"."""
    zero_point: np.ndarray | float
    """Of the weights, like `scale`; it may have a fraction. 0 unless given."""
    bias: np.ndarray | float
    """Real numbers, like `scale`. 0 unless given."""
    relu: bool
    """Clamp from below at zero, besides what `out` says."""
    thresholds: Thresholds
    """Requantise by thresholds instead of scales; where `out` is planes, those of its basis unless given."""


def _named(method: Method) -> Method:
    """Put the node's name before the message of an error that lacks it."""

    @functools.wraps(method)
    def named(self: "NetworkBuilder", name: str, *args: Any, **kwargs: Any) -> Tensor:
        try:
            return method(self, name, *args, **kwargs)
        except GatewiseError as error:
            if str(error).startswith(f"{name}: "):
                raise
            raise type(error)(f"{name}: {error}") from error

    return cast(Method, named)


@dataclass(slots=True)
class NetworkBuilder:
    """Collects nodes in execution order; `build` makes the network, `save` writes its file.

    Example
    -------
    >>> spec = InputSpec(shape=(1, 8, 8), bits=8, scale=1 / 255, divide=255.0, mean=(0.0,), std=(1.0,))
    >>> net = NetworkBuilder("tiny", spec)
    >>> y = net.conv2d("conv", net.input, codes, bits=4, scale=0.1, out=Grid(0.05, 4), relu=True, padding=1)
    """

    name: str
    spec: InputSpec
    multiplier_bits: int = 24
    rounding: Rounding = "half_even"
    provenance: dict[str, str | int | float] = field(default_factory=dict)
    _nodes: list[Any] = field(default_factory=list)
    _arrays: dict[str, np.ndarray] = field(default_factory=dict)
    _networks: dict[str, XorNetworkSpec] = field(default_factory=dict)

    @property
    def input(self) -> Tensor:
        """The network's input."""
        spec = self.spec
        basis = None if spec.planes is None else PlaneBasis(spec.planes, (0.0,), (0, 1), spec.zero_point)
        return Tensor(spec.name, spec.shape, Grid(spec.scale, spec.bits, spec.signed, spec.zero_point, basis=basis))

    @_named
    def conv2d(
        self,
        name: str,
        x: Tensor,
        codes: np.ndarray | WeightCodes,
        *,
        stride: Pair = 1,
        padding: Pads = 0,
        dilation: Pair = 1,
        groups: int = 1,
        **settings: Unpack[MacSettings],
    ) -> Tensor:
        """Add a convolution.

        Parameters
        ----------
        codes : integers (out, in per group, ky, kx) with their `bits`, or `WeightCodes` of any scheme
        padding : one number, (y, x) or (top, left, bottom, right)
        settings : `MacSettings`
        """
        geometry = {
            "stride": _pair(stride),
            "padding": _pads(padding),
            "dilation": _pair(dilation),
            "groups": groups,
        }
        return self._mac(Conv2dNode, geometry, name, x, codes, **settings)

    @_named
    def linear(self, name: str, x: Tensor, codes: np.ndarray | WeightCodes, **settings: Unpack[MacSettings]) -> Tensor:
        """Add a matrix product; `codes` are (out, in), the rest as for `conv2d`."""
        return self._mac(LinearNode, {}, name, x, codes, **settings)

    def _mac(
        self,
        kind: type[Conv2dNode] | type[LinearNode],
        geometry: dict[str, Any],
        name: str,
        x: Tensor,
        codes: np.ndarray | WeightCodes,
        *,
        scale: np.ndarray | float,
        out: Grid,
        bits: int | np.ndarray | None = None,
        signed: bool = True,
        coding: Coding = "raw",
        zero_point: np.ndarray | float = 0.0,
        bias: np.ndarray | float = 0.0,
        relu: bool = False,
        thresholds: Thresholds | None = None,
    ) -> Tensor:
        weights = _weight_codes(codes, kind, bits, signed, coding)
        weights = weights.meeting(None if x.grid.basis is None else x.grid.basis.spec)
        channels = weights.shape[0]
        _check_amounts(out, channels)
        scales, zeros, biases = (
            _per_channel(what, value, channels)
            for what, value in (("scale", scale), ("zero point", zero_point), ("bias", bias))
        )
        if (scales <= 0).any():
            raise FormatError(f"scale must be positive, not {scales.min()}")
        scales, zeros = scales * weights.unit, zeros / weights.unit - weights.offset
        plain = not isinstance(weights.spec, PlaneWeights)
        fraction = fraction_bits(zeros) if plain else weights.fraction
        fixed_zeros = fixed_zero_point(zeros, fraction)
        zero_term = bool(fixed_zeros.any())
        fraction = 0 if plain and not zero_term else fraction
        nested = out.rounding == "nested" and out.bits <= DIGIT_BITS and thresholds is None
        factor = scales * x.grid.scale / (np.ldexp(1.0, fraction) * out.scale * out.factors)
        if out.basis is not None:
            thresholds = thresholds or Thresholds(out.basis.integer_thresholds(factor))
        counted = nested or thresholds is not None
        node = checked(
            kind,
            name=name,
            inputs=(x.name,),
            out=out.codes,
            channels=channels,
            weights=weights.spec,
            align=x.grid.align,
            zero_term=zero_term,
            fraction=fraction,
            requant={"kind": "threshold"} if counted else self._clamp(out, relu),
            out_widths=out.widths is not None,
            table=None if out.basis is None else out.basis.words,
            **geometry | ({"kernel": weights.shape[2:]} if kind is Conv2dNode else {}),
        )
        shape = conv_shape(node, Value(x.shape, x.grid.codes))
        if weights.shape != shape.weight_shape[: len(weights.shape)]:
            raise FormatError(f"codes must have shape {shape.weight_shape}, not {weights.shape}")
        arrays = weights.arrays(shape)
        self._networks |= weights.networks
        planes = activation_planes(x.grid.codes)
        integers = decode_weights(node.weights, shape, arrays.__getitem__, self._networks, planes).weights
        arrays["bias"] = smallest_signed(_fixed_bias(node, x, integers, scales, fixed_zeros, biases))
        if x.grid.align is not None:
            arrays["align"] = np.asarray(x.grid.amounts, dtype=np.uint8)
        if zero_term:
            arrays["zero"] = fixed_zeros
        if out.widths is not None:
            arrays["out_widths"] = _out_widths(out)
        if nested:
            thresholds = _nested_thresholds(out, factor, fraction, relu)
        if thresholds is None:
            arrays |= self._multipliers("", factor, out)
        else:
            steps = np.asarray(thresholds.values)
            if not np.issubdtype(steps.dtype, np.integer):
                raise FormatError(f"thresholds must be integers, not {steps.dtype}")
            descending = _per_channel("descending", thresholds.descending, channels).astype(np.uint8)
            arrays |= {"thresholds": smallest_signed(steps), "descending": descending}
        return self._append(node, out, arrays)

    @_named
    def add(self, name: str, first: Tensor, second: Tensor, *, out: Grid, relu: bool = False) -> Tensor:
        """Add a residual addition: both operands go to one 16-bit grid that holds them, then to `out`."""
        _check_amounts(out, first.shape[0])
        node = checked(
            AddNode,
            name=name,
            inputs=(first.name, second.name),
            out=out.codes,
            requant=self._rescaled(out, relu),
        )
        common = max(
            float(grid.scale * grid.factors.max()) * 2.0**grid.magnitude_bits for grid in (first.grid, second.grid)
        ) / (1 << (STREAM_BITS - 1))
        arrays: dict[str, np.ndarray] = {}
        for prefix, operand in (("first_", first), ("second_", second)):
            arrays |= self._multipliers(prefix, operand.grid.scale * operand.grid.factors / common)
        arrays |= self._multipliers("", common / (out.scale * out.factors), out)
        return self._append(node, out, arrays)

    @_named
    def requantise(self, name: str, x: Tensor, *, out: Grid, relu: bool = False) -> Tensor:
        """Add another grid for the same values; to planes by the equal steps that come nearest to their thresholds."""
        _check_amounts(out, x.shape[0])
        scale = out.scale
        settings: dict[str, Any] = {"requant": self._rescaled(out, relu)}
        if out.basis is not None:
            counts = out.basis.uniform(x.grid.scale / out.scale)
            scale *= counts.step
            ends = {"low": 0, "high": len(counts.table) - 1}
            settings = {"table": counts.table, "count_zero": counts.zero, "requant": settings["requant"] | ends}
        node = checked(RequantiseNode, name=name, inputs=(x.name,), out=out.codes, **settings)
        factor = x.grid.scale * x.grid.factors / (scale * out.factors)
        return self._append(node, out, self._multipliers("", factor, out))

    def max_pool(self, name: str, x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pads = 0) -> Tensor:
        """Add max pooling; the stride is the kernel unless given."""
        return self._pool(MaxPoolNode, name, x, kernel, stride, padding)

    def average_pool(self, name: str, x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pads = 0) -> Tensor:
        """Add average pooling over the real pixels of each window."""
        return self._pool(AveragePoolNode, name, x, kernel, stride, padding)

    def _pool(
        self,
        kind: type[MaxPoolNode] | type[AveragePoolNode],
        name: str,
        x: Tensor,
        kernel: Pair,
        stride: Pair | None,
        padding: Pads,
    ) -> Tensor:
        window = _pair(kernel)
        step = window if stride is None else _pair(stride)
        node = checked(kind, name=name, inputs=(x.name,), kernel=window, stride=step, padding=_pads(padding))
        return self._append(node, x.grid)

    def global_average_pool(self, name: str, x: Tensor) -> Tensor:
        """Add the mean of each channel."""
        return self._append(checked(GlobalAveragePoolNode, name=name, inputs=(x.name,)), x.grid)

    def concat(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        """Join channels; per-channel steps are joined with them."""
        node = checked(ConcatNode, name=name, inputs=tuple(tensor.name for tensor in tensors))
        grid = tensors[0].grid
        for other in tensors[1:]:
            if other.grid.align != grid.align:
                raise FormatError(f"{name}: inputs must have one alignment, not {grid.align} and {other.grid.align}")
        if grid.align is not None:
            grid = replace(grid, amounts=np.concatenate([np.asarray(tensor.grid.amounts) for tensor in tensors]))
        return self._append(node, grid)

    def flatten(self, name: str, x: Tensor) -> Tensor:
        """(channels, height, width) -> (features, 1, 1)."""
        grid = _with_amounts(x.grid, lambda amounts: np.repeat(amounts, x.shape[1] * x.shape[2]))
        return self._append(checked(FlattenNode, name=name, inputs=(x.name,)), grid)

    def channel_pad(self, name: str, x: Tensor, before: int, after: int) -> Tensor:
        """Add channels of zeros."""
        grid = _with_amounts(x.grid, lambda amounts: np.pad(amounts, (before, after)))
        return self._append(checked(ChannelPadNode, name=name, inputs=(x.name,), before=before, after=after), grid)

    def stride_slice(self, name: str, x: Tensor, stride: Pair) -> Tensor:
        """Keep every stride-th row and column."""
        return self._append(checked(StrideSliceNode, name=name, inputs=(x.name,), stride=_pair(stride)), x.grid)

    def build(self) -> Network:
        """The network, every width and constant checked."""
        return Network(self._manifest(payload_digest(self._arrays)), self._arrays)

    def save(self, path: str | Path) -> Network:
        """Write the ``.gw`` file and return the network."""
        network = self.build()
        save_network(network, path)
        return network

    def _manifest(self, digest: str) -> Manifest:
        used = {name for node in self._nodes for name in xor_networks(node)}
        return checked(
            Manifest,
            name=self.name,
            input=self.spec,
            nodes=tuple(self._nodes),
            xor_networks={name: spec for name, spec in self._networks.items() if name in used},
            payload_sha256=digest,
            provenance=self.provenance,
        )

    def _append(self, node: Any, grid: Grid, arrays: dict[str, np.ndarray] | None = None) -> Tensor:
        self._nodes.append(node)
        try:
            shape = infer(self._manifest(NO_DIGEST))[node.name].shape
        except GatewiseError:
            self._nodes.pop()
            raise
        self._arrays |= {f"{node.name}.{role}": array for role, array in (arrays or {}).items()}
        # Widths are what the tensor's writer keeps to, not what its codes stand for.
        return Tensor(node.name, shape, replace(grid, widths=None))

    def _multipliers(self, prefix: str, factor: np.ndarray, out: Grid | None = None) -> dict[str, np.ndarray]:
        """Multipliers and shifts of a rescale, whose rounding ends in `out` where that is given."""
        factor = np.atleast_1d(factor)
        if (factor == factor[0]).all():
            factor = factor[:1]
        if out is not None and out.rounding == "nested":
            multiplier, shift = odd_multiplier(factor, self.multiplier_bits, self.rounding)
            self._check_nested(out.nested_grid, multiplier, shift)
        else:
            multiplier, shift = fixed_multiplier(factor, self.multiplier_bits, self.rounding)
        return {f"{prefix}multiplier": multiplier, f"{prefix}shift": shift}

    def _check_nested(self, grid: NestedGrid, multiplier: np.ndarray, shift: np.ndarray) -> None:
        """Raise `UnsupportedError` unless these constants round nested in every channel."""
        if self.rounding not in NEAREST:
            raise UnsupportedError(
                f"rounding of a nested grid must be one of {', '.join(NEAREST)}, not {self.rounding}"
            )
        for channel, constants in enumerate(zip(multiplier.tolist(), shift.tolist(), strict=True)):
            if not grid.rounds_directly(*constants):
                raise UnsupportedError(
                    f"odd part of a multiplier to a nested grid must be above {2 * grid.code_range[1]}, not "
                    f"{constants[0]} in channel {channel}: halves would round another way"
                )

    def _rescaled(self, out: Grid, relu: bool) -> dict[str, Any]:
        """The clamp of an add or another grid, whose channels all have the tensor's bits."""
        if out.widths is not None:
            raise FormatError("widths of channels must come with a convolution or linear layer")
        return self._clamp(out, relu)

    def _clamp(self, out: Grid, relu: bool) -> dict[str, Any]:
        low, high = out.clamp
        return {
            "kind": "scale",
            "multiplier_bits": self.multiplier_bits,
            "rounding": self.rounding,
            "low": max(low, out.zero_point) if relu else low,
            "high": high,
        }


def _weight_codes(
    codes: np.ndarray | WeightCodes, kind: type[MacNode], bits: int | np.ndarray | None, signed: bool, coding: Coding
) -> WeightCodes:
    axes, form = (4, "(out, in, ky, kx)") if kind is Conv2dNode else (2, "(out, in)")
    if isinstance(codes, WeightCodes):
        if bits is not None or not signed or coding != "raw":
            raise FormatError("bits, signed and coding must be told to WeightCodes, not to the layer")
        if len(codes.shape) != axes:
            raise FormatError(f"weights must be {form}, not of shape {codes.shape}")
        return codes
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer) or codes.ndim != axes:
        raise FormatError(f"codes must be integers {form}, not {codes.dtype} of shape {codes.shape}")
    if bits is None:
        raise FormatError("bits must be given with integer codes")
    return WeightCodes.integer(codes, bits, signed, coding)


def _fixed_bias(
    node: MacNode, x: Tensor, integers: np.ndarray, scales: np.ndarray, zeros: np.ndarray, biases: np.ndarray
) -> np.ndarray:
    """The bias with the node's fraction bits, the activations' zero point folded in (int64).

    `integers` are the decoded weights, those of planes with the fraction bits of their coefficients.
    """
    shape = conv_shape(node, Value(x.shape, x.grid.codes))
    fraction = node.fraction
    fixed = np.rint(np.ldexp(biases / (scales * x.grid.scale), fraction))
    if np.abs(fixed).max(initial=0) >= 2.0**56:
        raise FormatError(f"bias must be below 2**56 accumulator steps, not {np.abs(fixed).max():g}")
    fixed = fixed.astype(np.int64)
    if x.grid.zero_point and x.grid.basis is None:
        lift = 0 if isinstance(node.weights, PlaneWeights) else fraction
        factors = np.broadcast_to(x.grid.factors.astype(np.int64), (shape.in_channels,)).reshape(shape.groups, 1, -1)
        grouped = integers.astype(np.int64).reshape(shape.groups, shape.group_outputs, shape.group_inputs, -1)
        weighted = (grouped.sum(axis=3) * factors).sum(axis=2).reshape(-1)
        taps = grouped.shape[3]
        inputs = np.repeat(factors.sum(axis=2).reshape(-1), shape.group_outputs) * taps
        fixed += x.grid.zero_point * (zeros.astype(np.int64) * inputs - (weighted << lift))
    return fixed


def _nested_thresholds(out: Grid, factor: np.ndarray, fraction: int, relu: bool) -> Thresholds:
    """Thresholds that round nested, of values as wide as the default accumulator makes them."""
    bits = MacFormat().acc + fraction
    thresholds, _ = out.nested_grid.as_thresholds(factor.tolist(), bits)
    if relu and out.signed:
        # Every value reaches a code that is below zero, and zero.
        thresholds[:, : -out.codes.range[0]] = signed_range(bits)[0]
    return Thresholds(thresholds)


def _out_widths(grid: Grid) -> np.ndarray:
    """The widths of a tensor's channels as they are stored, uint8."""
    widths = np.asarray(grid.widths)
    if not np.issubdtype(widths.dtype, np.integer) or widths.min(initial=0) < 0 or widths.max(initial=0) > grid.bits:
        raise FormatError(f"widths of channels must be whole numbers from 0 to {grid.bits}, not {widths.tolist()}")
    return widths.astype(np.uint8)


def _check_amounts(grid: Grid, channels: int) -> None:
    amounts = np.shape([] if grid.amounts is None else grid.amounts)
    if grid.align is not None and amounts != (channels,):
        raise FormatError(f"alignment amounts must have shape ({channels},), not {amounts}")
    widths = np.shape([] if grid.widths is None else grid.widths)
    if grid.widths is not None and widths != (channels,):
        raise FormatError(f"widths of channels must have shape ({channels},), not {widths}")


def _with_amounts(grid: Grid, change: Any) -> Grid:
    if grid.align is None:
        return grid
    return replace(grid, amounts=change(np.asarray(grid.amounts)))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _pads(value: Any) -> tuple[int, int, int, int]:
    if isinstance(value, int) or len(value) == 2:
        rows, columns = _pair(value)
        return rows, columns, rows, columns
    return tuple(value)


def _per_channel(what: str, value: np.ndarray | float, channels: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (1,), (channels,)):
        raise FormatError(f"{what} must be one number or {channels}, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise FormatError(f"{what} must be finite, found {array[~np.isfinite(array)].flat[0]}")
    return np.broadcast_to(array, (channels,)).copy()
