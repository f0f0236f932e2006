"""A quantised network as integers and scales, independent of the method that chose them.

Every number here is one that hardware holds: signed weight codes, one activation zero point for each
tensor, per-channel steps that are a common base times ``1 << k`` or ``m``, zero points of weights on
their fraction grid, and the range of codes that a requantiser clamps to. `QuantizedGraph.run` is the
fake-quantised network: codes move between nodes, sums are exact (integers and dyadic fractions in
float64), and only the rescale between two steps is a real number instead of a 31-bit multiplier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..kernels.addressing import TileOrder, stream_weights
from ..kernels.align import Alignment, alignment_factors
from ..kernels.correction import MAX_FRACTION, ZERO_POINT_BITS
from ..kernels.errors import FormatError
from ..kernels.mac import signed_range
from ..kernels.nested import NestedGrid
from ..kernels.requant import narrowed
from ..kernels.xor import XorNetwork
from ..sim.manifest import Coding, FocusedWeights, ShiftWeights
from ..sim.plane_basis import PlaneBasis
from ..sim.weights import WeightCodes
from ..sim.widths import check_codes, check_widths, fewer_bits
from .graph import Add, AvgPool2d, Clamp, Conv2d, GlobalAvgPool, Input, Linear, Node, apply
from .preprocess import InputSpec

__all__ = [
    "STREAM_BITS",
    "EncodedWeights",
    "QuantizedGraph",
    "QuantizedLayer",
    "QuantizedNode",
    "QuantizedTensor",
    "QuantizedWeights",
    "accuracy",
]

STREAM_BITS = 16


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """An activation tensor: real value of channel c = ``scale * factors[c] * (code - zero_point)``.

    Parameters
    ----------
    name : unique in the network
    shape : without the batch: (C, H, W) or (C,)
    bits, signed : the code's container
    scale : the base step
    zero_point : the code of zero, also what padding feeds
    alignment : "shift" (amounts k, 0..8, factor 1 << k) or "mul" (amounts m, 1..255, factor m)
    amounts : int64 (C,)
    low, high : the codes that the writer clamps to; a ReLU has `low` at the zero point
    widths : bits of each channel's codes, int64 (C,), 0..`bits`, where they have different ones: the channel's
        clamp is ``[low >> n, high >> n]`` with n the bits that it has less, [0, 0] without any. The zero point is 0
    basis : where codes are words of activation planes: what they are worth, and the values that become them. The scale
        is 1 then, the amounts are 0, and `zero_point` is the word that padding feeds
    rounding : "direct", half to even, or "nested", on Bayesian Bits' grid (`kernels.nested`): the zero point is 0 then,
        and all channels have one step
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    signed: bool
    scale: float
    zero_point: int
    alignment: Alignment
    amounts: np.ndarray
    low: int
    high: int
    widths: np.ndarray | None = None
    basis: PlaneBasis | None = None
    rounding: Literal["direct", "nested"] = "direct"

    def __post_init__(self) -> None:
        least, greatest = self.container
        if not least <= self.low <= self.high <= greatest or not least <= self.zero_point <= greatest:
            raise FormatError(
                f"{self.name} must have its zero point and clamp within {least}..{greatest}, "
                f"not {self.zero_point} and {self.low}..{self.high}"
            )
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise FormatError(f"{self.name} must have a positive scale, not {self.scale}")
        if self.amounts.shape != self.shape[:1]:
            raise FormatError(f"{self.name} must have {self.shape[0]} amounts, not {self.amounts.shape}")
        if self.widths is not None:
            if self.widths.shape != self.shape[:1] or self.zero_point:
                raise FormatError(
                    f"{self.name} must have {self.shape[0]} widths and zero point 0, "
                    f"not {self.widths.shape} and {self.zero_point}"
                )
            check_widths(f"widths of {self.name}", self.widths, self.bits)

    @property
    def container(self) -> tuple[int, int]:
        """Least and greatest code of `bits` bits."""
        return signed_range(self.bits) if self.signed else (0, (1 << self.bits) - 1)

    @property
    def factors(self) -> np.ndarray:
        """What the base step is multiplied by: int64 (C,)."""
        return alignment_factors(self.alignment, self.amounts).astype(np.int64)

    @property
    def steps(self) -> np.ndarray:
        """Each channel's step: float64 (C,)."""
        return self.scale * self.factors

    @property
    def channel_clamp(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest code that the writer leaves in each channel: int64 (C,)."""
        fewer = np.zeros(self.shape[0], dtype=np.int64) if self.widths is None else fewer_bits(self.widths, self.bits)
        return narrowed(self.low, fewer), narrowed(self.high, fewer)

    def _per_channel(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64).reshape(-1, *(1,) * (len(self.shape) - 1))

    def quantize(self, real: Tensor) -> Tensor:
        """Codes (float64, whole numbers) of real values (N, *shape).

        Rounded half to even, then clamped; words of planes by how many thresholds a value reaches.
        """
        if self.basis is not None:
            thresholds = torch.tensor(self.basis.thresholds, dtype=torch.float64)
            return _words(torch.bucketize(real, thresholds, right=True), self.basis.words)
        if self.rounding == "nested":
            grid = NestedGrid(self.bits, self.signed)
            return torch.from_numpy(grid.codes(real.numpy() / self.scale, 1 / grid.step(1.0))).to(torch.float64)
        codes = (real / self._per_channel(self.steps)).round() + self.zero_point
        if self.widths is None:
            return codes.clamp(self.low, self.high)
        return torch.clamp(codes, *(self._per_channel(end) for end in self.channel_clamp))

    def copied(self, codes: Tensor, source: "QuantizedTensor") -> Tensor:
        """What these codes of `source` are here: a requantiser comes to words of planes by equal steps."""
        real = source.dequantize(codes)
        if self.basis is None:
            return self.quantize(real)
        counts = self.basis.uniform(source.scale)
        reached = ((real / counts.step).round() + counts.zero).clamp(0, len(counts.table) - 1)
        return _words(reached.to(torch.int64), counts.table)

    def operands(self, codes: Tensor) -> list[tuple[Tensor, float]]:
        """What layers multiply, in units of `scale`: integers less what padding feeds, and that.

        One pair, whose padding is 0; for words of planes one for each plane.
        """
        if self.basis is None:
            return [(self.integers(codes), 0.0)]
        signs, words = self.basis.spec.signs, codes.to(torch.int64)
        pairs = []
        for plane in range(self.bits):
            values = (words >> plane & 1).to(torch.float64)
            pad = float(self.basis.pad >> plane & 1)
            pairs.append((2 * (values - pad), 2 * pad - 1) if signs else (values - pad, pad))
        return pairs

    def integers(self, codes: Tensor) -> Tensor:
        """``factors * (code - zero_point)``: what the accumulator sums, in units of `scale`."""
        return (codes - self.zero_point) * self._per_channel(self.factors)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Real values of codes."""
        if self.basis is not None:
            return torch.from_numpy(self.basis.worth(codes.to(torch.int64).numpy()))
        return self.integers(codes) * self.scale


@dataclass(frozen=True, eq=False)
class QuantizedWeights:
    """Weights of a layer: real value = ``scales[o] * (codes[o] - zero_points[o])``.

    Parameters
    ----------
    bits : bits of the signed codes, 1..8
    codes : int16, (out, in / groups, ky, kx) or (out, in)
    scales : float64 (out,), positive
    zero_points : float64 (out,), multiples of ``2**-fraction`` within 16 bits, fraction included
    fraction : fraction bits of the zero points, 0..8
    widths : bits of each output channel's codes, int64 (out,), 0..`bits`, where they have different ones
    coding : how the file stores the codes, "raw" or "huffman"
    """

    bits: int
    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray
    fraction: int
    widths: np.ndarray | None = None
    coding: Coding = "raw"

    def __post_init__(self) -> None:
        low, high = signed_range(self.bits)
        if self.codes.size and (self.codes.min() < low or self.codes.max() > high):
            raise FormatError(f"weight codes must lie in {low}..{high}, not {self.codes.min()}..{self.codes.max()}")
        if not 0 <= self.fraction <= MAX_FRACTION:
            raise FormatError(f"zero-point fraction must be 0 to {MAX_FRACTION} bits, not {self.fraction}")
        fixed = self.fixed_zero_points
        low, high = signed_range(ZERO_POINT_BITS)
        if np.any(fixed != self.zero_points * 2.0**self.fraction) or fixed.min() < low or fixed.max() > high:
            raise FormatError(
                f"weight zero points must be {ZERO_POINT_BITS}-bit numbers of {self.fraction} fraction bits"
            )
        if not np.all(np.isfinite(self.scales) & (self.scales > 0)):
            raise FormatError("weight scales must be positive")
        if self.widths is not None:
            if self.widths.shape != self.codes.shape[:1]:
                raise FormatError(f"weights must have {len(self.codes)} widths, not {self.widths.shape}")
            check_codes(self.codes, check_widths("widths of weights", self.widths, self.bits))

    @property
    def fixed_zero_points(self) -> np.ndarray:
        """``zwf``: the zero points in units of ``2**-fraction``, int64 (out,)."""
        return np.rint(self.zero_points * 2.0**self.fraction).astype(np.int64)

    def _per_output(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *(1,) * (self.codes.ndim - 1))

    @property
    def integers(self) -> np.ndarray:
        """``codes - zero_points``, exact float64."""
        return np.asarray(self.codes - self._per_output(self.zero_points))

    @property
    def parts(self) -> np.ndarray:
        """`integers` as the only part, as `EncodedWeights` has them."""
        return self.integers[None]

    @property
    def real(self) -> np.ndarray:
        """The weights that the hardware multiplies by, float64."""
        return np.asarray(self.integers * self._per_output(self.scales))


@dataclass(frozen=True, eq=False)
class EncodedWeights:
    """Weights of a layer in another scheme than ``int``: real value = ``scales[o] * integers[o]``; `shift`, `focused`,
    `basis`.

    Parameters
    ----------
    codes : what the file holds, in units of `given`
    given : float64 (out,), positive
    parts : exact integers in float64, (planes, out, in / groups, ky, kx) or (planes, out, in): those that each plane of
        the activations meets, or one part for activations that are numbers
    """

    codes: WeightCodes
    given: np.ndarray
    parts: np.ndarray
    fraction = 0

    def __post_init__(self) -> None:
        if not np.all(np.isfinite(self.given) & (self.given > 0)):
            raise FormatError("weight scales must be positive")

    @classmethod
    def shift(
        cls, sign: np.ndarray, exponent: np.ndarray, scales: np.ndarray, exponent_bits: int, coding: Coding = "raw"
    ) -> "EncodedWeights":
        """Weights ``scales * sign * 2**exponent``."""
        return cls._of_symbols(WeightCodes.shift(sign, exponent, exponent_bits, coding), scales)

    @classmethod
    def focused(
        cls,
        sign: np.ndarray,
        exponent: np.ndarray,
        component: np.ndarray,
        pruned: np.ndarray,
        scales: np.ndarray,
        *,
        minus: tuple[int, int],
        plus: tuple[int, int],
        exponent_bits: int,
        coding: Coding,
    ) -> "EncodedWeights":
        """Weights ``scales * (sign * 2**exponent + mu)`` and zeros, mu a signed power of two of each component."""
        codes = WeightCodes.focused(
            sign, exponent, component, pruned, minus=minus, plus=plus, exponent_bits=exponent_bits, coding=coding
        )
        return cls._of_symbols(codes, scales)

    @classmethod
    def _of_symbols(cls, codes: WeightCodes, scales: np.ndarray) -> "EncodedWeights":
        spec = codes.spec
        assert isinstance(spec, ShiftWeights | FocusedWeights)
        return cls(codes, scales, spec.format.weights(codes.values)[None].astype(np.float64))

    @classmethod
    def basis(
        cls, signs: np.ndarray, alpha: np.ndarray, scales: np.ndarray, activations: PlaneBasis | None
    ) -> "EncodedWeights":
        """Weights ``scales * sum_p alpha[p] * signs[p]``, `alpha` (planes, out) rounded as hardware holds it.

        With planes of `activations` it is the products of the two kinds of coefficients that are rounded.
        """
        codes = WeightCodes.basis(signs, alpha).meeting(None if activations is None else activations.spec)
        assert codes.coefs is not None
        coefs = codes.coefs.reshape(len(signs), -1, *codes.coefs.shape[1:], *(1,) * (signs.ndim - 2))
        return cls(codes, scales, (coefs * signs[:, None].astype(np.float64)).sum(axis=0))

    @classmethod
    def xor(
        cls,
        encrypted: Sequence[np.ndarray],
        networks: Sequence[XorNetwork],
        alpha: np.ndarray,
        scales: np.ndarray,
        shape: tuple[int, ...],
        groups: int = 1,
        order: TileOrder | None = None,
    ) -> "EncodedWeights":
        """Weights ``scales * sum_p alpha[p] * signs[p]``, as for `basis`, the signs decoded: see `WeightCodes.xor`."""
        codes = WeightCodes.xor(encrypted, networks, alpha, shape, tile=order)
        assert codes.coefs is not None
        axes = (*shape, 1, 1)[:4]
        parts = np.zeros((1, *shape))
        for slices, network, coefs in zip(encrypted, networks, codes.coefs.astype(np.float64), strict=True):
            bits = network.decode(slices).reshape(-1)[: parts.size]
            signs = 2.0 * stream_weights(bits, (axes[0], axes[1], axes[2], axes[3]), groups, order) - 1
            parts[0] += signs.reshape(shape) * coefs.reshape(-1, *(1,) * (len(shape) - 1))
        return cls(codes, scales, parts)

    @property
    def bits(self) -> int:
        """Bits of a weight."""
        return self.codes.spec.bits

    @property
    def scales(self) -> np.ndarray:
        """What one step of the integers is worth, float64 (out,)."""
        return np.asarray(self.given * self.codes.unit)

    @property
    def real(self) -> np.ndarray:
        """The weights that the hardware multiplies by, float64; of planes of activations what they share."""
        return np.asarray(self.parts.mean(axis=0) * self.scales.reshape(-1, *(1,) * (self.parts.ndim - 2)))


@dataclass(frozen=True, eq=False)
class QuantizedNode:
    """One operation on codes: `op` gives kind and geometry, tensors are named.

    A layer or an add writes its first output from the exact result and the others as requantised
    copies of the first; pooling, padding, slices,
    concatenation and flattening move codes of one grid; a `Clamp` requantises.
    """

    op: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The float node's name."""
        return self.op.name


@dataclass(frozen=True, eq=False)
class QuantizedLayer(QuantizedNode):
    """A convolution or linear layer; `bias` is real, float64 (out,)."""

    weights: QuantizedWeights | EncodedWeights
    bias: np.ndarray

    def fixed_bias(self, scale: float) -> np.ndarray:
        """The bias in units of the accumulator, rounded to ``2**-fraction``: float64 (out,).

        `scale` is the base scale of the input tensor.
        """
        grid = 2.0**self.weights.fraction
        return np.asarray(np.rint(self.bias / (scale * self.weights.scales) * grid) / grid)

    def rescaled(self, total: Tensor, source: QuantizedTensor) -> Tensor:
        """Real values, before the clamp, of accumulated sums (N, out, ...), the bias among them.

        The sums are in units of the product of the scales of weights and `source`, one real number for each channel.
        """
        scales = torch.from_numpy(source.scale * self.weights.scales)
        return total * scales.reshape(-1, *(1,) * (total.ndim - 2))


@dataclass(frozen=True, eq=False)
class QuantizedGraph:
    """A quantised network: nodes in execution order, tensors by name, the float input's form.

    The first node is the input, whose one output tensor the host quantises. `method` and
    `settings` say what produced the network.
    """

    input: InputSpec
    nodes: tuple[QuantizedNode, ...]
    tensors: Mapping[str, QuantizedTensor]
    output: str
    method: str
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[QuantizedLayer, ...]:
        """Convolutions and linear layers in execution order."""
        return tuple(node for node in self.nodes if isinstance(node, QuantizedLayer))

    def run(self, images: np.ndarray, batch: int = 32, trace: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Logits (N, classes), float64, of images (N, C, H, W), usually uint8.

        With `trace`, the codes of every tensor are added to it as int32 arrays by tensor name.
        """
        parts: dict[str, list[np.ndarray]] = {}
        for first in range(0, len(images), batch):
            codes = self._codes(images[first : first + batch], keep=trace is not None)
            for name, value in codes.items():
                parts.setdefault(name, []).append(value.numpy().astype(np.int32))
        whole = {name: np.concatenate(values) for name, values in parts.items()}
        if trace is not None:
            trace.update(whole)
        return self.tensors[self.output].dequantize(torch.as_tensor(whole[self.output], dtype=torch.float64)).numpy()

    def _codes(self, images: np.ndarray, keep: bool) -> dict[str, Tensor]:
        """Codes of every tensor, or of the output alone."""
        last_use = {name: node for node in self.nodes for name in node.inputs}
        codes: dict[str, Tensor] = {}
        with torch.no_grad():
            for node in self.nodes:
                if isinstance(node.op, Input):
                    codes[node.outputs[0]] = self.input_codes(images)
                    continue
                codes.update(self.apply(node, [codes[name] for name in node.inputs]))
                for name in () if keep else dict.fromkeys(node.inputs):
                    if last_use[name] is node and name != self.output:
                        del codes[name]
        return codes

    def input_codes(self, images: np.ndarray) -> Tensor:
        """Codes of images (N, C, H, W) as the host makes them: it adds the zero point before it rounds."""
        tensor = self.tensors[self.nodes[0].outputs[0]]
        real = torch.from_numpy(self.input.normalise(images))
        return (real / tensor.scale + tensor.zero_point).round().clamp(tensor.low, tensor.high)

    def apply(self, node: QuantizedNode, codes: list[Tensor]) -> dict[str, Tensor]:
        """Codes of a node's outputs by tensor name, from those of its inputs, (N, *shape); all float64."""
        inputs = [self.tensors[name] for name in node.inputs]
        outputs = [self.tensors[name] for name in node.outputs]
        match node.op:
            case Conv2d() | Linear():
                assert isinstance(node, QuantizedLayer)
                real = self._layer(node, inputs[0], codes[0])
            case Add():
                common = max(tensor.scale for tensor in inputs)
                rounded = [
                    ((code - tensor.zero_point) * (tensor.scale / common)).round().clamp(*signed_range(STREAM_BITS))
                    for tensor, code in zip(inputs, codes, strict=True)
                ]
                real = (rounded[0] + rounded[1]) * common
            case AvgPool2d() | GlobalAvgPool():
                return {node.outputs[0]: _average(node.op, codes[0])}
            case Clamp():
                return {tensor.name: tensor.copied(codes[0], inputs[0]) for tensor in outputs}
            case op:
                centred = [code - tensor.zero_point for tensor, code in zip(inputs, codes, strict=True)]
                return {node.outputs[0]: apply(op, centred) + outputs[0].zero_point}
        first, *copies = outputs
        result = {first.name: first.quantize(real)}
        # The post lanes make a copy from the codes that they write, not from the exact result.
        return result | {copy.name: copy.copied(result[first.name], first) for copy in copies}

    @staticmethod
    def _layer(node: QuantizedLayer, source: QuantizedTensor, codes: Tensor) -> Tensor:
        """Exact accumulator and bias times the layer's scale: real values before the clamp."""
        total = torch.from_numpy(node.fixed_bias(source.scale))
        total = total.reshape(-1, *(1,) * (len(node.op.shape) - 1))
        for (values, pad), part in zip(source.operands(codes), node.weights.parts, strict=True):
            summed = pad * part.reshape(len(part), -1).sum(axis=1)
            total = total + apply(node.op, [values], torch.from_numpy(part), torch.from_numpy(summed))
        return node.rescaled(total, source)


def _words(counts: Tensor, words: Sequence[int]) -> Tensor:
    """The words (float64) of counts."""
    return torch.tensor(words, dtype=torch.float64)[counts]


def _average(op: Node, codes: Tensor) -> Tensor:
    """Whole sums over the real pixels, divided by their count and rounded half away from zero."""
    mean = apply(op, [codes])
    return mean.sign() * (mean.abs() + 0.5).floor()


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose greatest logit, the first of several equal ones, is the label's."""
    return float(np.mean(np.argmax(logits, axis=1) == labels))
