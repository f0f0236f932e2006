"""Bit-exact execution: a batch of input codes through every node of a network."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..kernels.addressing import channel_pad, stride_slice, unfold_x
from ..kernels.conv import conv2d
from ..kernels.digits import DigitCounts, digit_count, split_rows
from ..kernels.mac import MacFormat
from ..kernels.pool import average_pool, max_pool
from ..kernels.requant import ScaleRequantizer, ThresholdRequantizer, narrowed
from ..kernels.residual import STREAM_BITS, AddOperand, ResidualAdd
from .arrays import array_form
from .engine import Array
from .fast import FastAdd, FastLayer, FastNode, FastRequantise
from .graph import MacNode, pool_shape
from .layer import MacLayer
from .manifest import (
    AddNode,
    AveragePoolNode,
    ChannelPadNode,
    ConcatNode,
    Conv2dNode,
    FlattenNode,
    GlobalAveragePoolNode,
    LinearNode,
    MaxPoolNode,
    Node,
    RequantiseNode,
    ScaleRequant,
    StrideSliceNode,
)
from .network import Network

__all__ = ["COUNTER_MAX", "Datapath", "Overflows", "Trace", "plain_codes"]

COUNTER_MAX = (1 << 32) - 1


@dataclass(slots=True, eq=False)
class Overflows:
    """Overflow counts of a layer, int64 (4, out): in the product, alignment, accumulator, post lane; each has a name.

    The engine's counters have 32 bits and saturate; so do these.
    """

    counts: np.ndarray

    def __post_init__(self) -> None:
        np.minimum(self.counts, COUNTER_MAX, out=self.counts)

    @property
    def product(self) -> np.ndarray:
        """Of products (out,)."""
        return np.asarray(self.counts[0])

    @property
    def align(self) -> np.ndarray:
        """Of aligned products (out,)."""
        return np.asarray(self.counts[1])

    @property
    def acc(self) -> np.ndarray:
        """Of accumulators (out,)."""
        return np.asarray(self.counts[2])

    @property
    def post(self) -> np.ndarray:
        """Of what is requantised (out,)."""
        return np.asarray(self.counts[3])

    def copy(self) -> "Overflows":
        """Counts that may be added to."""
        return Overflows(self.counts.copy())

    def put(self, rows: np.ndarray, other: "Overflows") -> None:
        """Take the counts of some output channels in the place of one's own."""
        self.counts[:, rows] = other.counts

    def __iadd__(self, other: "Overflows") -> "Overflows":
        self.counts += other.counts
        self.__post_init__()
        return self


@dataclass(slots=True)
class Trace:
    """What a batch leaves behind: the result codes, overflows by layer, and, if kept, every tensor."""

    result: np.ndarray
    overflows: dict[str, Overflows] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Datapath:
    """The array that runs a network's layers, and what decides the order of their sums.

    Parameters
    ----------
    lanes : the PEs of a row
    unfolded : the layer whose input the host unfolds in x
    maps : (height, width) of the map that was flattened, of the linear layers that run over it
    first_channels : where layers' inputs begin in what they are a part of
    digits : of the layers whose channels have different widths
    """

    network: Network
    mac: MacFormat
    lanes: int
    unfolded: str | None = None
    maps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    first_channels: Mapping[str, int] = field(default_factory=dict)
    array: Array = "digit"
    digits: Mapping[str, DigitCounts] = field(default_factory=dict)

    def execute(self, codes: np.ndarray, keep: bool = False, fast: Mapping[str, FastNode] | None = None) -> Trace:
        """Run input codes (N, C, H, W) int16 through the network; `keep` keeps every tensor's codes.

        `fast` are the nodes that have a fast form, on this array with these widths.
        """
        network = self.network
        live = {network.manifest.input.name: codes}
        kept = dict(live) if keep else {}
        last_use = {name: node.name for node in network.manifest.nodes for name in node.inputs}
        overflows: dict[str, Overflows] = {}
        for node in network.manifest.nodes:
            sources = [live[name] for name in node.inputs]
            quick = (fast or {}).get(node.name)
            if isinstance(node, Conv2dNode | LinearNode):
                layer = quick if isinstance(quick, FastLayer) else None
                result, overflows[node.name] = self.compute(node, sources[0], layer)
            else:
                result = plain_codes(network, node, sources, quick)
            live[node.name] = result
            if keep:
                kept[node.name] = result
            for name in node.inputs:
                if last_use[name] == node.name:
                    live.pop(name, None)
        return Trace(live[network.output], overflows, kept)

    def compute(self, node: MacNode, x: np.ndarray, fast: FastLayer | None) -> tuple[np.ndarray, Overflows]:
        """A layer's codes and overflows: in the fast form where it is exact, and in the faithful one."""
        if fast is None:
            return self.faithful(node, x)
        codes, overflows = self._fast(node, x, fast)
        if fast.rest.size:
            codes[:, fast.rest], found = self.faithful(node, x, fast.rest)
            overflows.put(fast.rest, found)
        return codes, overflows

    def _fast(self, node: MacNode, x: np.ndarray, fast: FastLayer) -> tuple[np.ndarray, Overflows]:
        zero_point = self.network.source(node).codes.zero_point
        counts = np.zeros((4, len(fast.exact)), dtype=np.int64)
        if fast.fused:
            return fast.codes(x, zero_point), Overflows(counts)
        values, limited = fast.values(x, zero_point)
        held = array_form(self.network.layers[node.name], self.array).held(self.mac)
        codes, saturated = _requantised(node, held, fast.value_bits, values)
        counts[3] = limited.sum(axis=(0, 2, 3)) + saturated
        return codes, Overflows(counts)

    def faithful(self, node: MacNode, x: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, Overflows]:
        """The same of a layer, or of `rows` of its output channels, in the order and the widths of the hardware."""
        layer, counts = self.network.layers[node.name], self.digits.get(node.name)
        if rows is not None:
            layer = layer.of_rows(rows)
            counts = counts and replace(counts, rows=counts.rows[rows])
        zero_point, size = self.network.source(node).codes.zero_point, self.maps.get(node.name)
        if node.name == self.unfolded and isinstance(node, Conv2dNode):
            padding = (node.padding[1], node.padding[3])
            x = unfold_x(x, node.kernel[1], node.stride[1], node.dilation[1], padding, zero_point)
            layer = layer.unfold()
        elif size is not None:
            layer = layer.over_map(size)
            x = x.reshape(len(x), layer.shape.in_channels, *size)
        form = array_form(layer, self.array)
        layer = form.held(self.mac)
        step_lanes = self.lanes * form.mode.lanes
        weights = form.weights
        if counts is not None:
            if form.exact_rows:
                counts = replace(counts, rows=np.full_like(counts.rows, len(weights) // form.planes))
            else:
                weights = split_rows(layer.codes, counts.rows, digit_count(layer.operands.w_bits))
        # Planes have accumulators of their own: to each the others do not exist.
        parts = [weights] if form.coefficients is None else np.split(weights, len(weights))
        results = [
            conv2d(
                values,
                part,
                layer.factors,
                layer.shape,
                form.operands,
                self.mac,
                step_lanes,
                pad,
                first_lane=self.first_channels.get(node.name, 0) % step_lanes,
                exact_rows=form.exact_rows,
                counts=counts,
            )
            for part in parts
            for values, pad in form.inputs(x, zero_point)
        ]
        per_channel = (-1, 1, 1)
        input_sum = np.repeat(results[0].input_sum, layer.shape.group_outputs, axis=1)
        values, limited = form.corrected(
            self.mac,
            np.stack([result.acc for result in results]),
            input_sum,
            layer.zero.reshape(per_channel),
            layer.bias.reshape(per_channel),
        )
        codes, saturated = _requantised(node, layer, form.corrected_bits(self.mac), values)
        product, align, acc = (
            sum(getattr(result, f"{width}_overflows") for result in results) for width in ("product", "align", "acc")
        )
        return codes, Overflows(np.stack([product, align, acc, limited.sum(axis=(0, 2, 3)) + saturated]))


def _requantised(
    node: MacNode, layer: MacLayer, value_bits: int, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray | int]:
    """Codes of values, and how many were saturated in each channel."""
    if layer.scale is not None and isinstance(node.requant, ScaleRequant):
        unit = _scaler(value_bits, node.requant, node.out.bits, node.out.signed)
        return unit.compute(
            values,
            layer.scale.multiplier,
            layer.scale.shift,
            node.out.zero_point,
            *(narrowed(end, layer.fewer) for end in (node.requant.low, node.requant.high)),
        )
    if layer.thresholds is None or layer.descending is None:
        raise AssertionError(f"{node.name}: decoding gives scales or thresholds")
    table = node.plane_table
    bits = node.out.bits if table is None else node.thresholds.bit_length()
    counter = ThresholdRequantizer(value_bits, bits, node.out.signed)
    codes = counter.compute(values, layer.thresholds, layer.descending)
    return codes if table is None else table.compute(codes).astype(np.int16), 0


def _scaler(in_bits: int, requant: ScaleRequant, out_bits: int, signed: bool) -> ScaleRequantizer:
    return ScaleRequantizer(in_bits, requant.multiplier_bits, requant.rounding, out_bits, signed)


def plain_codes(network: Network, node: Node, sources: list[np.ndarray], fast: FastNode | None = None) -> np.ndarray:
    """The codes of a node that is no layer of the array: nothing of them depends on its widths."""
    if isinstance(fast, FastAdd | FastRequantise):
        return fast.codes(*sources)
    return _plain(network, node, sources)


def _plain(network: Network, node: Node, sources: list[np.ndarray]) -> np.ndarray:
    x = sources[0]
    codes = [network.values[name].codes for name in node.inputs]
    match node:
        case AddNode():
            return _add(network, node, sources)
        case RequantiseNode():
            scale, requant = network.scales[node.name, ""], node.requant
            values, out = x.astype(np.int64) - codes[0].zero_point, node.scaled
            unit, ends = _scaler(STREAM_BITS + 1, requant, out.bits, out.signed), (requant.low, requant.high)
            made, _ = unit.compute(values, scale.multiplier, scale.shift, out.zero_point, *ends)
            return made if node.plane_table is None else node.plane_table.compute(made).astype(np.int16)
        case MaxPoolNode():
            return max_pool(x, pool_shape(node, network.values[node.inputs[0]]))
        case AveragePoolNode() | GlobalAveragePoolNode():
            return average_pool(x, pool_shape(node, network.values[node.inputs[0]]))
        case ConcatNode():
            return np.concatenate(sources, axis=1)
        case FlattenNode():
            return x.reshape(len(x), -1, 1, 1)
        case ChannelPadNode():
            return channel_pad(x, node.before, node.after, codes[0].zero_point)
        case StrideSliceNode():
            return stride_slice(x, node.stride)
        case _:
            raise TypeError(f"{node.name} is a MAC layer")


def _add(network: Network, node: AddNode, sources: list[np.ndarray]) -> np.ndarray:
    def operand(position: int, prefix: str) -> AddOperand:
        scale = network.scales[node.name, prefix]
        zero_point = network.values[node.inputs[position]].codes.zero_point
        return AddOperand(sources[position], zero_point, scale.multiplier, scale.shift)

    requant, scale = node.requant, network.scales[node.name, ""]
    unit = ResidualAdd(requant.multiplier_bits, requant.rounding, node.out.bits, node.out.signed)
    operands = operand(0, "first_"), operand(1, "second_")
    return unit.compute(operands, scale.multiplier, scale.shift, node.out.zero_point, requant.low, requant.high)
