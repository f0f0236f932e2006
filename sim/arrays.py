"""How each array runs a layer: what streams to its PEs, what they make of it, and what the registers say.

The kernels' weights and the codes of the memory image come from here together, so that they cannot differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.conv import Operands
from ..kernels.correction import ZERO_POINT_BITS, Correction
from ..kernels.digits import BYTE_BITS
from ..kernels.errors import UnsupportedError
from ..kernels.fusion import FUSION_MODES, FusionMode
from ..kernels.mac import DIGIT_BITS, MacFormat, signed_range
from ..kernels.planes import PlaneCorrection, activation_planes, int_planes, sign_planes
from ..kernels.requant import MAX_SHIFT
from ..kernels.shift import NEGATIVE, POSITIVE, ShiftFormat, signed_digit_passes
from ..kernels.xor import XorNetwork
from .bounds import layer_bounds
from .engine import XOR_NETWORKS, XOR_WIDTH, Array, Decoder, EngineConfig
from .geometry import layer_mode
from .layer import MacLayer
from .manifest import Codes, FocusedWeights, IntWeights, ScaleRequant, ShiftWeights, XorWeights

if TYPE_CHECKING:
    from .network import Network

__all__ = ["SCHEMES", "ArrayForm", "array_form", "check_arrays", "check_engine", "default_engine", "step_lanes"]

SCHEMES: dict[Array, tuple[str, ...]] = {
    "digit": ("int",),
    "fusion": ("int",),
    "sign": ("int", "xor", "basis"),
    "shift": ("int", "shift", "focused"),
}
"""What each array runs."""
DECODERS: dict[Array, tuple[Decoder, ...]] = {
    "digit": ("raw", "huffman"),
    "fusion": ("raw", "huffman"),
    "sign": ("raw", "xor"),
    "shift": ("raw", "huffman"),
}
"""The decoders that there are in front of each."""


@dataclass(frozen=True, slots=True)
class ArrayForm:
    """A layer on an array.

    Parameters
    ----------
    layer : the layer, with its constants in `fraction` fraction bits
    fraction : of the values that its requantiser takes
    weights : digits (digits, out, in per group, ky, kx), or the exact integers of parts whose rows nothing limits
    codes : what streams: codes of whole weights (1, out, in per group, ky, kx), or of a part each
    bits : of a streamed PE code
    signed : whether the loader extends a code by its sign
    exact_rows : whether weights are parts
    coefficients : of passes that have accumulators of their own (planes), int64 (planes, out): a pass for each part
        or, where activations are planes too, for each pair of a part and, faster, an activation plane
    registers : those that only this array has
    mode : bits of the operands that meet in a PE
    """

    layer: MacLayer
    fraction: int
    weights: np.ndarray
    codes: np.ndarray
    bits: int
    signed: bool = False
    exact_rows: bool = True
    coefficients: np.ndarray | None = None
    registers: dict[str, int] = field(default_factory=dict)
    mode: FusionMode = FUSION_MODES[0]

    @property
    def row_widths(self) -> np.ndarray | None:
        """Bits of each output channel's codes in the stream, (out,), where the array heeds them."""
        return None if self.exact_rows else self.layer.row_widths

    @property
    def planes(self) -> int:
        """Accumulators of a pixel and row."""
        return 1 if self.coefficients is None else len(self.coefficients)

    def pe_codes(self, codes: np.ndarray) -> np.ndarray:
        """What streams to the PEs (..., PEs) of the codes of a step's lanes (..., lanes)."""
        if not self.mode.narrow:
            return codes
        channels = self.mode.channels(codes.shape[-1] // self.mode.lanes)
        return self.mode.pack(codes[..., channels.reshape(-1)], self.mode.w_bits)

    @property
    def passes(self) -> int:
        """Accumulators of a pixel and row that a part's tile adds to: one, or one for each activation plane."""
        return self.planes // len(self.weights) if self.layer.activations is not None else 1

    @property
    def value_weights(self) -> list[np.ndarray]:
        """What each of a part's `inputs` counts for in the value, in its last bit: int64 (out, in per group, ky, kx).

        The exact sum of the parts, weighed: products with these, less the zero-point term, plus the bias, are the
        value that is requantised, where no width overflows on the way.
        """
        if self.coefficients is None:
            places = 0 if self.exact_rows else DIGIT_BITS * np.arange(len(self.weights)).reshape(-1, 1, 1, 1, 1)
            return [(self.weights.astype(np.int64) << places).sum(axis=0) << self.fraction]
        coefficients = self.coefficients.reshape(len(self.weights), self.passes, -1, 1, 1, 1)
        return [(coefficients[:, each] * self.weights).sum(axis=0) for each in range(self.passes)]

    @property
    def operands(self) -> Operands:
        """What the array multiplies: digits of numbers, or one plane's 0 and 1, or -1 and +1."""
        operands, activations = self.layer.operands, self.layer.activations
        return operands if activations is None else replace(operands, a_bits=2, a_signed=True)

    def inputs(self, codes: np.ndarray, pad: int) -> list[tuple[np.ndarray, int]]:
        """What each pass of a part reads of activation codes, and what pads it."""
        activations = self.layer.activations
        if activations is None:
            return [(codes, pad)]
        both = (activation_planes(each, self.passes, activations.signs) for each in (codes, np.array(pad)))
        return [(values, int(padding)) for values, padding in zip(*both, strict=True)]

    def corrected_bits(self, fmt: MacFormat) -> int:
        """Bits of the value that is requantised at these widths, and so of bias and thresholds."""
        return (Correction(fmt, self.fraction) if self.coefficients is None else PlaneCorrection(fmt)).out_bits

    def corrected(
        self, fmt: MacFormat, accs: np.ndarray, input_sum: np.ndarray, zero: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values of accumulators (planes, N, out, H, W) and what broadcasts against one; which did not fit."""
        if self.coefficients is None:
            return Correction(fmt, self.fraction).compute(accs[0], input_sum, zero, bias)
        coefficients = self.coefficients[:, None, :, None, None]
        return PlaneCorrection(fmt).compute(accs, coefficients, input_sum, zero, bias)

    def held(self, fmt: MacFormat) -> MacLayer:
        """The layer with bias and thresholds as registers of `corrected_bits` hold them.

        At the widths that a network was made for nothing changes; at narrower ones a constant
        that does not fit is the nearest one that does.
        """
        low, high = signed_range(self.corrected_bits(fmt))
        thresholds = None if self.layer.thresholds is None else np.clip(self.layer.thresholds, low, high)
        return replace(self.layer, bias=np.clip(self.layer.bias, low, high), thresholds=thresholds)

    def clipped_constants(self, fmt: MacFormat) -> int:
        """Biases and thresholds that do not fit these widths."""
        held = self.held(fmt)
        clipped = int((held.bias != self.layer.bias).sum())
        if held.thresholds is not None and self.layer.thresholds is not None:
            clipped += int((held.thresholds != self.layer.thresholds).sum())
        return clipped


def array_form(layer: MacLayer, array: Array) -> ArrayForm:
    """The layer as that array runs it.

    Raises `UnsupportedError` where its constants do not fit the form that the array needs.
    """
    match array:
        case "sign":
            return _on_sign(layer)
        case "shift":
            return _on_shift(layer)
        case _:
            mode = _mode(layer, array)
            codes, fraction = layer.codes[None], layer.node.fraction
            if mode.narrow:
                return ArrayForm(layer, fraction, codes, codes, mode.lanes * mode.w_bits, mode=mode)
            bits, registers = layer.operands.w_bits, {}
            if bits > BYTE_BITS:
                codes, bits, registers = _bytes(layer.codes), BYTE_BITS, {"part_top": 1}
            return ArrayForm(
                layer, fraction, layer.digits, codes, bits, signed=True, exact_rows=False, registers=registers
            )


def _bytes(codes: np.ndarray) -> np.ndarray:
    """The lower and the upper byte of codes of 16 bits, each as a signed number of 8: (2, *shape)."""
    low = codes.astype(np.int16) & 0xFF
    return np.stack([(low ^ 0x80) - 0x80, codes.astype(np.int16) >> BYTE_BITS])


def step_lanes(layer: MacLayer, engine: EngineConfig) -> int:
    """Input channels that a row reduces in a step: narrow operands multiply the lanes of a fused array."""
    return engine.lanes * _mode(layer, engine.array).lanes


def _mode(layer: MacLayer, array: Array) -> FusionMode:
    return layer_mode(array, layer.shape, layer.operands, layer.node.align is not None)


def check_engine(engine: EngineConfig) -> None:
    """Raise `UnsupportedError` where the engine's array is not behind that decoder."""
    if engine.decoder not in DECODERS[engine.array]:
        raise UnsupportedError(
            f"decoder of array {engine.array} must be {' or '.join(DECODERS[engine.array])}, not {engine.decoder}"
        )


def check_arrays(network: "Network", engine: EngineConfig) -> None:
    """Raise `UnsupportedError` where the engine's array or decoder does not run a layer, with what would."""
    check_engine(engine)
    for name, value in network.values.items():
        if value.codes.planes is not None and engine.array != "sign":
            raise UnsupportedError(
                f'{name}: activation planes must be on an engine with array = "sign", not array = "{engine.array}"'
            )
    for layer in network.layers.values():
        scheme, name = layer.node.weights.scheme, layer.node.name
        if scheme not in SCHEMES[engine.array]:
            able = next(array for array, schemes in SCHEMES.items() if scheme in schemes)
            raise UnsupportedError(
                f'{name}: scheme {scheme} must run on an engine with array = "{able}", not array = "{engine.array}"'
            )
        if not engine.aligns and layer.node.align is not None:
            raise UnsupportedError(
                f'{name}: an aligned layer must run on an engine with array = "digit", not array = "{engine.array}"'
            )
        _check_width(layer, network.source(layer.node).codes, engine)
        if engine.decoder == "xor" and isinstance(layer.node.weights, XorWeights):
            _check_xor(name, [network.manifest.xor_networks[plane].network for plane in layer.node.weights.planes])


def default_engine(network: "Network") -> EngineConfig:
    """The default engine with the first array that runs every layer of the network; a digit array where none does.

    It has operands of 16 bits where the network has.
    """
    if any(_wide(layer) for layer in network.layers.values()):
        return EngineConfig(operand_bits=16)
    for array in SCHEMES:
        engine = EngineConfig(array=array)
        try:
            check_arrays(network, engine)
        except UnsupportedError:
            continue
        return engine
    return EngineConfig()


def _wide(layer: MacLayer) -> bool:
    return max(layer.operands.w_bits, layer.operands.a_bits) > BYTE_BITS


def _check_width(layer: MacLayer, source: Codes, engine: EngineConfig) -> None:
    """Whether the engine takes operands of more than 8 bits, and none of its widths can overflow with them."""
    name = layer.node.name
    for what, bits in (("weights", layer.node.weights.bits), ("activations", source.bits)):
        if bits > engine.operand_bits:
            raise UnsupportedError(
                f'{name}: {what} of {bits} bits must run on an engine with array = "digit" and operand_bits = 16, '
                f'not array = "{engine.array}" and operand_bits = {engine.operand_bits}'
            )
    if not _wide(layer):
        return
    bounds, mac = layer_bounds(array_form(layer, engine.array), source), engine.mac
    if bounds.overflow(mac) is not None:
        product, align, acc = bounds.needs
        raise UnsupportedError(
            f"{name}: with operands of more than 8 bits nothing may overflow, whatever the image: mac must have "
            f"product >= {product}, align >= {align} and acc >= {acc}, not {mac.product}, {mac.align} and {mac.acc}"
        )


def _check_xor(name: str, networks: Sequence[XorNetwork]) -> None:
    """Whether the registers of an engine's XOR decoder hold the networks of a layer."""
    most, count = max(max(each.n_in, each.n_out) for each in networks), len(set(networks))
    for wanted, held, what in ((most, XOR_WIDTH, "inputs and outputs"), (count, XOR_NETWORKS, "different networks")):
        if wanted > held:
            raise UnsupportedError(
                f'{name}: XOR networks of more than {held} {what} must run on an engine with decoder = "raw", '
                f'not decoder = "xor" with {wanted}'
            )


def _on_shift(layer: MacLayer) -> ArrayForm:
    """Shift codes as they are; an integer as its least number of signed powers of two, a part each."""
    spec = layer.node.weights
    if isinstance(spec, ShiftWeights | FocusedWeights):
        fmt = spec.format
        pe_codes, weights = fmt.pe_codes(layer.codes)[None], layer.weights[None]
    else:
        fmt, pe_codes = ShiftFormat((spec.bits - 1).bit_length()), signed_digit_passes(layer.codes, spec.bits)
        sign = (pe_codes >> 4 == POSITIVE).astype(np.int32) - (pe_codes >> 4 == NEGATIVE)
        weights = sign << (pe_codes & 15).astype(np.int32)
    registers = {"part_top": len(weights) - 1}
    if fmt.focused:
        registers |= {"focused": 1, "value_shift": fmt.value_shift}
        for name, (sign, shift) in (("minus", fmt.minus), ("plus", fmt.plus)):
            registers |= {f"{name}_shift": shift, f"{name}_negative": int(sign < 0)}
    # The state is complemented in the stream: lanes without a weight hold zeros, and do nothing.
    exponent, state, component = pe_codes & 15, pe_codes >> 4 & 3, pe_codes >> 6
    streamed = (3 - state) | (component << 2 | exponent << 3 if fmt.focused else exponent << 2)
    return ArrayForm(layer, layer.node.fraction, weights, streamed, fmt.bits, registers=registers)


def _on_sign(layer: MacLayer) -> ArrayForm:
    """Planes with their coefficients; an integer as planes of its bits, each of which weighs half as much."""
    spec, fraction = layer.node.weights, layer.node.fraction
    planes, coefficients = layer.planes, layer.coefs.astype(np.int64)
    if isinstance(spec, IntWeights):
        fraction = max(1, fraction)
        layer = _finer(layer, fraction)
        planes = sign_planes(layer.codes, spec.bits)
        halves = int_planes(spec.bits, fraction)
        coefficients = np.repeat(halves.coefficients.astype(np.int64)[:, None], layer.shape.out_channels, axis=1)
        layer = _checked(replace(layer, zero=layer.zero + halves.zero))
    weights = 2 * planes.astype(np.int32) - 1
    registers = {"part_top": len(planes) - 1, "plane_top": len(coefficients) - 1}
    if layer.activations is not None:
        registers |= {
            "a_top": len(coefficients) // len(planes) - 1,
            "a_planes": 1,
            "a_signs": int(layer.activations.signs),
        }
    return ArrayForm(layer, fraction, weights, planes, 1, coefficients=coefficients, registers=registers)


def _finer(layer: MacLayer, fraction: int) -> MacLayer:
    """The same layer with more fraction bits in its constants, which its requantiser takes away again."""
    more = fraction - layer.node.fraction
    if not more:
        return layer
    requant = layer.node.requant
    if isinstance(requant, ScaleRequant) and requant.rounding == "tflite":
        raise UnsupportedError(
            f'{layer.node.name}: tflite rounding of an int layer must run on an engine with array = "digit", '
            f'not array = "sign", which adds a fraction bit'
        )
    scale = layer.scale and replace(layer.scale, shift=layer.scale.shift + more)
    thresholds = None if layer.thresholds is None else layer.thresholds << more
    return replace(layer, zero=layer.zero << more, bias=layer.bias << more, scale=scale, thresholds=thresholds)


def _checked(layer: MacLayer) -> MacLayer:
    low, high = signed_range(ZERO_POINT_BITS)
    if layer.zero.min() < low or layer.zero.max() > high:
        raise UnsupportedError(
            f"{layer.node.name}: zero-point constants must lie in {low}..{high} on a sign array, not in "
            f"{layer.zero.min()}..{layer.zero.max()}"
        )
    if layer.scale is not None and layer.scale.shift.max() > MAX_SHIFT:
        raise UnsupportedError(
            f"{layer.node.name}: shifts must be at most {MAX_SHIFT - 1} on a sign array, "
            f"not {layer.scale.shift.max() - 1}"
        )
    return layer
