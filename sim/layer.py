"""A MAC layer ready to run: its encoded arrays decoded once, its constants checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.addressing import unfold_x_weights
from ..kernels.align import alignment_factors
from ..kernels.conv import ConvShape, Operands
from ..kernels.correction import INPUT_SUM_BITS
from ..kernels.digits import held_bits, split_digits
from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.mac import signed_range
from ..kernels.requant import ScaleRequantizer
from .graph import MacNode, Value, activation_planes, conv_shape
from .manifest import ActivationPlanes, IntWeights, ScaleRequant, XorNetworkSpec
from .weights import Arrays, decode_weights
from .widths import fewer_bits

__all__ = ["MacLayer", "ScaleArrays"]


@dataclass(frozen=True, slots=True)
class ScaleArrays:
    """Multipliers and shifts, int64 (channels,)."""

    multiplier: np.ndarray
    shift: np.ndarray

    @classmethod
    def decode(cls, multiplier: np.ndarray, shift: np.ndarray, channels: int, requant: ScaleRequant) -> "ScaleArrays":
        """Spread stored arrays over the channels and check their widths."""
        multiplier, shift = (
            np.broadcast_to(array.astype(np.int64), (channels,)).copy() for array in (multiplier, shift)
        )
        ScaleRequantizer(2, requant.multiplier_bits, requant.rounding).check(multiplier, shift)
        return cls(multiplier, shift)


@dataclass(frozen=True, slots=True)
class MacLayer:
    """One conv2d or linear layer: weights and constants as the kernels take them."""

    node: MacNode
    shape: ConvShape
    operands: Operands
    activations: ActivationPlanes | None
    """What the bits of activation words are, where those are planes."""
    codes: np.ndarray
    """Weight codes (out, in per group, ky, kx): signed, int16; for shift and focused as stored, uint8; for xor and
    basis bit p is plane p, uint8."""
    weights: np.ndarray
    """The exact integers that the codes stand for, int16 or int32, in the shape of the codes: with the fraction bits
    of the coefficients for xor and basis; of all planes of an activation together, where those are planes."""
    digits: np.ndarray
    """Digits of int codes (digits, *codes.shape), int8, four of codes above 8 bits; no digits for other schemes."""
    planes: np.ndarray
    """Sign bits of xor and basis (planes, *codes.shape), 1 for +1 and 0 for -1, uint8; no planes for other schemes."""
    coefs: np.ndarray
    """Coefficients of the planes with the node's fraction bits, int16 (planes, out); where activations are planes, of
    the pairs of a weight plane and, faster, an activation plane."""
    factors: np.ndarray
    """Alignment factor of each input channel, int32."""
    zero: np.ndarray
    """Zero-point constants with the node's fraction bits, int64 (out,)."""
    bias: np.ndarray
    """Bias with the node's fraction bits, int64 (out,)."""
    row_widths: np.ndarray
    """Bits of each output channel's weights, int64 (out,): 0..8 in an int layer of mixed widths."""
    lane_widths: np.ndarray
    """Bits of each input channel's activations, int64 (in,): 0..8 where the tensor's channels have different ones."""
    fewer: np.ndarray
    """Bits that each output channel's codes have less than the tensor's, as `kernels.requant.narrowed` takes them."""
    scale: ScaleArrays | None
    thresholds: np.ndarray | None
    descending: np.ndarray | None

    @classmethod
    def decode(
        cls,
        node: MacNode,
        source: Value,
        array: Arrays,
        networks: Mapping[str, XorNetworkSpec] | None = None,
        lane_widths: np.ndarray | None = None,
        out_widths: np.ndarray | None = None,
    ) -> "MacLayer":
        """Build from a node; `array(role)` gives a stored array, its shape and dtype already checked.

        `lane_widths` and `out_widths` are those of the input's and the output's channels, where they have different
        ones.
        """
        shape = conv_shape(node, source)
        if lane_widths is None:
            lane_widths = np.full(shape.in_channels, source.codes.bits, dtype=np.int64)
        fewer = np.zeros(node.channels, dtype=np.int64)
        if out_widths is not None:
            fewer = fewer_bits(out_widths, node.out.bits)
        weights = decode_weights(node.weights, shape, array, networks or {}, activation_planes(source.codes))
        plain = isinstance(node.weights, IntWeights)
        bits = max(1, int(weights.widths.max()))
        bits = held_bits(bits) if plain else bits
        digits = split_digits(weights.codes, bits, signed=True) if plain else np.empty((0, *shape.weight_shape))
        factors = (
            np.ones(shape.in_channels, dtype=np.int32)
            if node.align is None
            else alignment_factors(node.align, array("align"))
        )
        zero = array("zero") if node.zero_term else np.zeros(shape.out_channels)
        thresholds = descending = scale = None
        if isinstance(node.requant, ScaleRequant):
            scale = ScaleArrays.decode(array("multiplier"), array("shift"), shape.out_channels, node.requant)
        else:
            thresholds, descending = array("thresholds").astype(np.int64), array("descending")
            if descending.max(initial=0) > 1:
                raise FormatError(f"descending flags must be 0 or 1, not {descending.max()}")
        layer = cls(
            node,
            shape,
            Operands(source.codes.bits, source.codes.signed, bits, w_signed=plain),
            source.codes.planes,
            weights.codes,
            weights.weights,
            digits.astype(np.int8),
            weights.planes,
            weights.coefs,
            factors,
            zero.astype(np.int64),
            array("bias").astype(np.int64),
            weights.widths,
            lane_widths,
            fewer,
            scale,
            thresholds,
            descending,
        )
        layer._check_input_sum(source)
        return layer

    def _check_input_sum(self, source: Value) -> None:
        """The input sum must be exact in its 32 bits, whatever the activations are; planes need none."""
        if self.activations is not None:
            return
        taps = self.shape.kernel[0] * self.shape.kernel[1]
        groups = self.factors.astype(np.int64).reshape(self.shape.groups, -1).sum(axis=1)
        bound = int(groups.max()) * taps * max(abs(code) for code in source.codes.range)
        if bound > signed_range(INPUT_SUM_BITS)[1]:
            raise UnsupportedError(f"the input sum must fit {INPUT_SUM_BITS} signed bits, but can reach {bound}")

    def over_map(self, size: tuple[int, int]) -> "MacLayer":
        """The same linear layer as a convolution over the (height, width) map that was flattened.

        The engine's memory holds a map by pixels and lanes of channels, so this is the order in
        which it reads the features.
        """
        channels = self.shape.in_channels // (size[0] * size[1])
        factors = self.factors.reshape(channels, -1)
        if (factors != factors[:, :1]).any():
            raise UnsupportedError(
                f"{self.node.name}: the features of one channel must have one alignment, "
                f"not factors from {factors.min()} to {factors.max()}"
            )
        shape = ConvShape(channels, self.shape.out_channels, size)
        widths = self.lane_widths.reshape(channels, -1)[:, 0].copy()
        return self._rearranged(
            shape, factors[:, 0].copy(), widths, lambda weights: weights.reshape(shape.weight_shape)
        )

    def unfold(self) -> "MacLayer":
        """The same layer with its kernel columns as channels, for an input unfolded in x."""
        factors, widths = (np.tile(each, self.shape.kernel[1]) for each in (self.factors, self.lane_widths))
        return self._rearranged(self.shape.unfolded_x(), factors, widths, unfold_x_weights)

    def of_rows(self, rows: np.ndarray) -> "MacLayer":
        """Those output channels alone, of a layer of one group; the node stays the whole layer's."""
        scale = self.scale and ScaleArrays(self.scale.multiplier[rows], self.scale.shift[rows])
        return replace(
            self,
            shape=replace(self.shape, out_channels=len(rows)),
            codes=self.codes[rows],
            weights=self.weights[rows],
            digits=self.digits[:, rows] if len(self.digits) else np.empty((0, *self.codes[rows].shape)),
            planes=self.planes[:, rows] if len(self.planes) else np.empty((0, *self.codes[rows].shape)),
            coefs=self.coefs[:, rows],
            zero=self.zero[rows],
            bias=self.bias[rows],
            row_widths=self.row_widths[rows],
            fewer=self.fewer[rows],
            scale=scale,
            thresholds=None if self.thresholds is None else self.thresholds[rows],
            descending=None if self.descending is None else self.descending[rows],
        )

    def _rearranged(
        self, shape: ConvShape, factors: np.ndarray, widths: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
    ) -> "MacLayer":
        """With another geometry; `change` takes weights (out, in per group, ky, kx) to its form."""

        def each(parts: np.ndarray) -> np.ndarray:
            return np.stack([change(part) for part in parts]) if len(parts) else parts.reshape(0, *shape.weight_shape)

        return replace(
            self,
            shape=shape,
            codes=change(self.codes),
            weights=change(self.weights),
            digits=each(self.digits),
            planes=each(self.planes),
            factors=factors,
            lane_widths=widths,
        )

    @property
    def mixed(self) -> bool:
        """Whether the widths of its weights or of its inputs are not the same for all channels."""
        return len(np.unique(self.row_widths)) > 1 or len(np.unique(self.lane_widths)) > 1
