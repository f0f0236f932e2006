"""The fast form of a network's layers: which output channels it is exact in, by proof, and what it makes of them.

A channel whose products, aligned products and accumulators cannot overflow, whatever the image is (`sim.bounds`), needs
no order and no widths: `kernels.direct` computes it. The others take the faithful form, so that a layer may be of both.
What is requantised is limited once, behind all sums, so that nothing need be proved of it. Nor of adds and copies:
their rescales are exact in 64 bits, but for tflite's.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from ..kernels.digits import BYTE_BITS
from ..kernels.direct import DirectConv, counting_pays, fast_forms
from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.finish import ScaleFinish, ThresholdFinish
from ..kernels.mac import MacFormat, limit, signed_range
from ..kernels.packed import Activations, FastForm
from ..kernels.planes import PlaneTable
from ..kernels.requant import narrowed
from ..kernels.residual import STREAM_BITS
from .arrays import ArrayForm, array_form
from .bounds import Margins, layer_bounds
from .engine import Array
from .graph import MacNode
from .layer import MacLayer
from .manifest import AddNode, Codes, Conv2dNode, LinearNode, Node, RequantiseNode, ScaleRequant
from .network import Network

__all__ = ["FastAdd", "FastLayer", "FastNode", "FastRequantise", "Form", "fast_form", "fast_nodes"]

Form = Literal["auto", "faithful", "portable", "popcount", "vnni"]
"""How a network runs: in the fastest form that is exact and that the processor has, or in a form that is named.

`popcount` is of layers whose weights are sign planes; others are then as fast as they can be.
"""


@dataclass(frozen=True, eq=False)
class FastLayer:
    """A layer in its fast form.

    Parameters
    ----------
    conv : its weights, packed, and its requantiser where that is fused with the sums
    exact : output channels that the form is exact in, bool (out,)
    value_bits : of the value that is requantised, to which it is limited
    """

    conv: DirectConv
    exact: np.ndarray
    value_bits: int

    @cached_property
    def rest(self) -> np.ndarray:
        """The output channels that it is not exact in."""
        return np.flatnonzero(~self.exact)

    @property
    def fused(self) -> bool:
        """Whether the requantiser is fused with the sums; else values are made, and requantised in steps."""
        return self.conv.finish is not None

    def codes(self, x: np.ndarray, pad_code: int) -> np.ndarray:
        """Requantised codes (N, out, H, W), int16, where the requantiser is fused; nothing overflowed."""
        return self.conv.codes(x, pad_code)

    def values(self, x: np.ndarray, pad_code: int) -> tuple[np.ndarray, np.ndarray]:
        """What is requantised (N, out, H, W), int64, and which did not fit its bits."""
        return limit(self.conv.values(x, pad_code), *signed_range(self.value_bits), "saturate")


@dataclass(frozen=True, slots=True, eq=False)
class FastAdd:
    """An add of two tensors whose three rescales are one loop, with the operands' zero points."""

    operands: tuple[ScaleFinish, ScaleFinish]
    zero_points: tuple[int, int]
    total: ScaleFinish

    def codes(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Codes (N, C, H, W), int16."""
        parts = zip((first, second), self.zero_points, self.operands, strict=True)
        return self.total.added(*parts)


@dataclass(frozen=True, slots=True, eq=False)
class FastRequantise:
    """A requantised tensor: its scale, its operand's zero point, and what counts stand for where planes are made."""

    scale: ScaleFinish
    zero_point: int
    table: PlaneTable | None

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Codes (N, C, H, W), int16."""
        made = self.scale.codes(x, self.zero_point)
        return made if self.table is None else self.table.compute(made).astype(np.int16)


FastNode = FastLayer | FastAdd | FastRequantise


def fast_form(form: Form) -> FastForm | None:
    """The fast form of layers that are no sign planes; none of `faithful`.

    `UnsupportedError` where the processor has it not.
    """
    if form not in get_args(Form):
        raise FormatError(f"form must be one of {', '.join(get_args(Form))}, not {form!r}")
    if form == "faithful":
        return None
    if form in ("auto", "popcount"):
        return fast_forms()[0]
    if form not in fast_forms():
        raise UnsupportedError(
            "form vnni must run on a processor with AVX-512 VNNI or AVX-VNNI: auto takes what there is"
        )
    return form


def fast_nodes(network: Network, array: Array, mac: MacFormat, form: Form) -> dict[str, FastNode]:
    """The nodes that have a fast form on that array with these widths, by name; layers where some of their channels do.

    They are made once for a network: weights are packed, bounds taken, and kept with it.
    """
    fast = fast_form(form)
    if fast is None:
        return {}
    key = array, mac, form
    if key not in network.fast:
        nodes = {node.name: _fast_node(network, node, array, mac, form, fast) for node in network.manifest.nodes}
        network.fast[key] = {name: node for name, node in nodes.items() if node is not None}
    found: dict[str, FastNode] = network.fast[key]
    return found


def _fast_node(
    network: Network, node: Node, array: Array, mac: MacFormat, form: Form, fast: FastForm
) -> FastNode | None:
    match node:
        case Conv2dNode() | LinearNode():
            return _fast_layer(network, node, array, mac, form, fast)
        case AddNode():
            first, second = (_rescale(network, node, prefix, node.out) for prefix in ("first_", "second_"))
            total = _rescale(network, node, "", node.out)
            if first is None or second is None or total is None:
                return None
            points = [network.values[name].codes.zero_point for name in node.inputs]
            return FastAdd((first, second), (points[0], points[1]), total)
        case RequantiseNode():
            scale = _rescale(network, node, "", node.scaled)
            if scale is None:
                return None
            return FastRequantise(scale, network.values[node.inputs[0]].codes.zero_point, node.plane_table)
    return None


def _rescale(network: Network, node: AddNode | RequantiseNode, prefix: str, out: Codes) -> ScaleFinish | None:
    """A rescale of an add's operand or sum, or of a copy, of values of 17 bits."""
    scale, requant = network.scales[node.name, prefix], node.requant
    low, high = signed_range(STREAM_BITS) if prefix else (requant.low, requant.high)
    bits = np.full(len(scale.shift), STREAM_BITS + 1)
    point = 0 if prefix else out.zero_point
    return ScaleFinish.build(bits, scale.multiplier, scale.shift, requant.rounding, point, low, high)


def _fast_layer(
    network: Network, node: MacNode, array: Array, mac: MacFormat, named: Form, fast: FastForm
) -> FastLayer | None:
    source = network.source(node).codes
    form = array_form(network.layers[node.name], array)
    margins = layer_bounds(form, source).margins(mac)
    if not margins.proved.any():
        return None
    held = form.held(mac)
    weights = form.value_weights
    steps = np.abs(np.stack(weights)).reshape(len(weights), held.shape.out_channels, -1)
    # A plane's coefficient, the fraction: what all weights of a channel have in common is multiplied once.
    unit = np.maximum(np.gcd.reduce(np.gcd.reduce(steps, axis=2), axis=0), 1)
    weights, zero = [each // unit.reshape(-1, 1, 1, 1) for each in weights], held.zero
    if zero.any() and len(weights) == 1 and (weights[0] & 1).all() and np.abs(weights[0]).max() >> BYTE_BITS - 1:
        # Sums of many planes of signs are odd: a bit less holds them, with input sums that are made anyway.
        weights, zero, unit = [weights[0] >> 1], zero - unit, 2 * unit
    conv = DirectConv.build(
        held.shape, _activations(source), weights, held.factors, unit, zero, held.bias, fast
    )  # fmt: skip
    planes = None if named in ("portable", "vnni") else _counted(form, held, source)
    if planes is not None and (named == "popcount" or counting_pays(held.shape, planes.passes, conv.passes)):
        conv = planes
    exact = margins.proved & conv.fits
    if not exact.any() or (held.shape.groups > 1 and not exact.all()):
        return None
    finish = _finish(node, held, form, mac, margins, exact)
    conv = conv if finish is None else conv.requantising(finish)
    return FastLayer(conv, exact, form.corrected_bits(mac))


def _counted(form: ArrayForm, held: MacLayer, source: Codes) -> DirectConv | None:
    """A layer of sign planes whose bits are counted; none where it is none, or in groups, or aligned."""
    if form.coefficients is None or held.shape.groups > 1 or held.shape.depthwise or (held.factors != 1).any():
        return None
    coefficients = form.coefficients.reshape(len(form.weights), -1, held.shape.out_channels)
    return DirectConv.of_planes(held.shape, _activations(source), form.weights > 0, coefficients, held.zero, held.bias)


def _activations(codes: Codes) -> Activations:
    if codes.planes is not None:
        return Activations(codes.bits, planes=True, signs=codes.planes.signs)
    return Activations(codes.bits, codes.signed)


def _finish(
    node: MacNode, held: MacLayer, form: ArrayForm, mac: MacFormat, margins: Margins, exact: np.ndarray
) -> ScaleFinish | ThresholdFinish | None:
    """The requantiser that is fused with the sums, where no value overflows and 64 bits hold all it does."""
    if margins.post[exact].min() < 0:
        return None
    bits = np.where(exact, form.corrected_bits(mac) - margins.post, 0)
    if held.scale is not None and isinstance(node.requant, ScaleRequant):
        low, high = (narrowed(end, held.fewer) for end in (node.requant.low, node.requant.high))
        scale = held.scale
        return ScaleFinish.build(
            bits, scale.multiplier, scale.shift, node.requant.rounding, node.out.zero_point, low, high
        )
    assert held.thresholds is not None
    assert held.descending is not None
    first = signed_range(node.out.bits)[0] if node.out.signed else 0
    counted = range(first, first + held.thresholds.shape[1] + 1)
    table = counted if node.plane_table is None else node.plane_table.entries
    return ThresholdFinish.build(held.thresholds, held.descending, table)
