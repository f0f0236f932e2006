"""A MAC layer ready to run: its encoded arrays decoded once, its constants checked."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.addressing import unfold_x_weights
from ..kernels.align import alignment_factors
from ..kernels.conv import ConvShape, Operands
from ..kernels.correction import INPUT_SUM_BITS, Correction
from ..kernels.digits import split_digits
from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.mac import MacFormat, signed_range
from ..kernels.packing import unpack_codes
from ..kernels.requant import ScaleRequantizer
from .graph import WEIGHT_ORDER, MacNode, Value, conv_shape
from .manifest import ScaleRequant

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
    """One conv2d or linear layer: codes, digits and constants as the kernels take them."""

    node: MacNode
    shape: ConvShape
    operands: Operands
    codes: np.ndarray
    """Weight codes (out, in per group, ky, kx), int16."""
    digits: np.ndarray
    """Their digits (digits, *codes.shape), int8."""
    factors: np.ndarray
    """Alignment factor of each input channel, int32."""
    zero: np.ndarray
    """Zero-point constants with the node's fraction bits, int64 (out,)."""
    bias: np.ndarray
    """Bias with the node's fraction bits, int64 (out,)."""
    scale: ScaleArrays | None
    thresholds: np.ndarray | None
    descending: np.ndarray | None

    @classmethod
    def decode(cls, node: MacNode, source: Value, array: Callable[[str], np.ndarray]) -> "MacLayer":
        """Build from a node; `array(role)` gives a stored array, its shape and dtype already checked."""
        shape = conv_shape(node, source)
        count = int(np.prod(shape.weight_shape))
        stored = [shape.weight_shape[axis] for axis in WEIGHT_ORDER]
        codes = unpack_codes(array("weight"), count, node.weights.bits, signed=True).reshape(stored)
        codes = np.ascontiguousarray(codes.transpose(np.argsort(WEIGHT_ORDER)))
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
            Operands(source.codes.bits, source.codes.signed, node.weights.bits),
            codes,
            split_digits(codes, node.weights.bits, signed=True).astype(np.int8),
            factors,
            zero.astype(np.int64),
            array("bias").astype(np.int64),
            scale,
            thresholds,
            descending,
        )
        layer._check_input_sum(source)
        return layer

    def _check_input_sum(self, source: Value) -> None:
        """The input sum must be exact in its 32 bits, whatever the activations are."""
        taps = self.shape.kernel[0] * self.shape.kernel[1]
        groups = self.factors.astype(np.int64).reshape(self.shape.groups, -1).sum(axis=1)
        bound = int(groups.max()) * taps * max(abs(code) for code in source.codes.range)
        if bound > signed_range(INPUT_SUM_BITS)[1]:
            raise UnsupportedError(f"the input sum must fit {INPUT_SUM_BITS} signed bits, but can reach {bound}")

    def correction(self, fmt: MacFormat) -> Correction:
        """The zero-point stage at these widths."""
        return Correction(fmt, self.node.fraction)

    def held(self, fmt: MacFormat) -> "MacLayer":
        """The same layer with bias and thresholds as registers of acc + fraction bits hold them.

        At the widths that a network was made for nothing changes; at narrower ones a constant
        that does not fit is the nearest one that does.
        """
        low, high = signed_range(self.correction(fmt).out_bits)
        thresholds = None if self.thresholds is None else np.clip(self.thresholds, low, high)
        return replace(self, bias=np.clip(self.bias, low, high), thresholds=thresholds)

    def clipped_constants(self, fmt: MacFormat) -> int:
        """Biases and thresholds that do not fit these widths."""
        held = self.held(fmt)
        clipped = int((held.bias != self.bias).sum())
        if held.thresholds is not None and self.thresholds is not None:
            clipped += int((held.thresholds != self.thresholds).sum())
        return clipped

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
        return replace(
            self,
            shape=shape,
            codes=self.codes.reshape(shape.weight_shape),
            digits=self.digits.reshape(len(self.digits), *shape.weight_shape),
            factors=factors[:, 0].copy(),
        )

    def unfold(self) -> "MacLayer":
        """The same layer with its kernel columns as channels, for an input unfolded in x."""
        return replace(
            self,
            shape=self.shape.unfolded_x(),
            codes=unfold_x_weights(self.codes),
            digits=np.stack([unfold_x_weights(digit) for digit in self.digits]),
            factors=np.tile(self.factors, self.shape.kernel[1]),
        )
