"""What random cases are counted by: every option of layers and engines, and which of them a case hits.

The hits are found in the finished network, its schedule and its overflows, not in the decisions that led to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol, TypeVar, get_args

from ..kernels.align import Alignment
from ..kernels.digits import BYTE_BITS
from ..kernels.fusion import FUSION_MODES
from ..kernels.mac import Overflow
from ..kernels.requant import MULTIPLIER_BITS, Rounding
from .engine import EngineConfig
from .graph import MacNode, conv_shape
from .manifest import (
    AddNode,
    FocusedWeights,
    IntWeights,
    LinearNode,
    Node,
    RequantiseNode,
    ScaleRequant,
    ShiftWeights,
    Weights,
    XorWeights,
)
from .network import Network
from .run import RunResult
from .schedule import Schedule

__all__ = [
    "ACTIVATION_PLANES",
    "COUNTERS",
    "EXPONENT_BITS",
    "GROUPS",
    "LATENCIES",
    "OPTIONS",
    "PLANES",
    "Decisions",
    "Value",
    "layer_options",
    "network_options",
]

Value = TypeVar("Value")
Counter = Literal["product", "align", "acc", "post"]
COUNTERS: tuple[Counter, ...] = get_args(Counter)
LATENCIES = {"0": (0, 0), "1..20": (1, 20), "21..100": (21, 100), "101..200": (101, 200)}
PLANES = {"1": (1, 1), "2..4": (2, 4), "5..8": (5, 8)}
ACTIVATION_PLANES = PLANES
EXPONENT_BITS = {"0": (0, 0), "1..3": (1, 3), "4..5": (4, 5)}
GROUPS: dict[str, Sequence[object]] = {
    "op": (
        "conv2d", "linear", "linear over a map", "add alone", "add fused", "max_pool", "average_pool",
        "global_average_pool", "concat", "flatten", "channel_pad", "stride_slice", "requantise alone",
        "requantise fused",
    ),
    "kernel": range(1, 8),
    "stride": (1, 2, 3),
    "dilation": (1, 2, 3),
    "padding": ("none", "even", "uneven"),
    "groups": ("one", "more", "depthwise"),
    "inputs": ("divide L", "do not divide L"),
    "outputs": ("divide R", "do not divide R"),
    "image": ("1 x 1", "one row", "map"),
    "tiles": ("one", "whole", "ragged"),
    "activation bits": range(1, 9),
    "activations": ("unsigned", "signed"),
    "scheme": ("int", "shift", "focused", "xor", "basis"),
    "weight bits": range(1, 9),
    "weight widths": ("one", "mixed"),
    "activation widths": ("one", "mixed"),
    "fewer digits": ("in row groups", "in words"),
    "exponent bits": tuple(EXPONENT_BITS),
    "planes": tuple(PLANES),
    "activation planes": tuple(ACTIVATION_PLANES),
    "planes of activations": ("0 and 1", "-1 and +1"),
    "planes come of": ("thresholds", "requantise", "input"),
    "order": ("natural", "tile"),
    "operands": ("wide weights", "wide activations", "both wide"),
    "alignment": ("none", *get_args(Alignment)),
    "requantiser": ("scale", "threshold"),
    "threshold bits": (1, 2, 3, 4),
    "rounding": get_args(Rounding),
    "multiplier bits": MULTIPLIER_BITS,
    "zero term": ("none", "whole", "fraction"),
    "output bits": ("8 or less", "16"),
    "input": ("as it is", "unfolded"),
    "memory": (
        "serial", "copied view", "strided view", "other first lane", "two tensors written", "add and copy",
        "across banks",
    ),
    "array": ("digit", "fusion", "sign", "shift"),
    "mode": ("4x4", "2x4", "4x2", "2x2"),
    "decoder": ("raw", "huffman", "xor"),
    "operand bits": (8, 16),
    "rows": ("R < L", "R = L", "R > L"),
    "post lanes": (1, 2, 4, 8),
    "bus": (8, 16, 32, 64, 128, 256, 512),
    "latency": tuple(LATENCIES),
    "stalls": ("none", "some"),
    "format": ("input", "tied"),
    "overflow": get_args(Overflow),
    "overflows of": COUNTERS,
}  # fmt: skip
OPTIONS = tuple(f"{group} {value}" for group, values in GROUPS.items() for value in values)
"""Everything that cases are counted by, as "group value"."""


class Decisions(Protocol):
    """Whoever decides what a case looks like."""

    def option(self, group: str, values: Sequence[Value]) -> Value:
        """One of the values; with a group of `GROUPS`, "group value" is the option that it leads to."""

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""


def network_options(golden: RunResult) -> Iterator[str]:
    """The options that a network on its engine hits, and its overflows; some more than once."""
    network, engine, plan = golden.network, golden.engine, golden.plan
    shape = network.manifest.input.shape
    yield "image " + ("1 x 1" if shape[1:] == (1, 1) else "one row" if 1 in shape[1:] else "map")
    yield "input " + ("as it is" if plan.unfolded is None else "unfolded")
    yield f"array {engine.array}"
    yield f"decoder {engine.decoder}"
    yield f"operand bits {engine.operand_bits}"
    yield "rows " + (f"R {'<' if engine.rows < engine.lanes else '>' if engine.rows > engine.lanes else '='} L")
    yield f"post lanes {engine.post_lanes}"
    yield f"bus {engine.bus_bits}"
    yield from _within("latency", LATENCIES, engine.bus_latency)
    if network.manifest.input.planes is not None:
        yield "planes come of input"
    yield from (f"memory {what}" for what in _memory_options(plan, engine))
    yield from _mode_options(golden)
    registers = [layer.registers for layer in golden.lowered if layer.op == "mac"]
    if any(each.get("rest_from") and each["w_top"] for each in registers):
        yield "fewer digits in row groups"
    if any(each.get("wide_end") for each in registers):
        yield "fewer digits in words"
    found = [kind for kind in COUNTERS if any(getattr(counts, kind).any() for counts in golden.overflows.values())]
    yield from (f"overflows of {kind}" for kind in found)
    if found:
        yield f"overflow {engine.mac.overflow}"
    fused = {node.name for layer in plan.layers for node in layer.fused}
    for node in network.manifest.nodes:
        if isinstance(node, AddNode | RequantiseNode):
            yield f"op {node.op} {'fused' if node.name in fused else 'alone'}"
        elif isinstance(node, LinearNode) and node.name in plan.maps:
            yield "op linear over a map"
        else:
            yield f"op {node.op}"
        yield from layer_options(network, node, engine)


def _within(group: str, ranges: Mapping[str, tuple[int, int]], value: int) -> Iterator[str]:
    yield from (f"{group} {key}" for key, (low, high) in ranges.items() if low <= value <= high)


def _memory_options(plan: Schedule, engine: EngineConfig) -> Iterator[str]:
    """What the layers have to do with tensors that share memory, words and layers."""
    if plan.serial:
        yield "serial"
    if plan.copies:
        yield "copied view"
    if any(stored.stride != (1, 1) for stored in plan.tensors.values()):
        yield "strided view"
    if any(channel % engine.lanes for channel in plan.first_channels.values()):
        yield "other first lane"
    if any(sum(node.name in plan.kept for node in layer.nodes) > 1 for layer in plan.layers):
        yield "two tensors written"
    if any(len(layer.fused) > 1 for layer in plan.layers):
        yield "add and copy"
    bank = plan.memory.bank_words
    placed = plan.memory.tensors.values()
    if any(first // bank != (first + tensor.words - 1) // bank for tensor in placed for first in tensor.planes):
        yield "across banks"


def _mode_options(golden: RunResult) -> Iterator[str]:
    """Bits of activations x weights that meet in the PEs of a fused array."""
    for layer in golden.lowered:
        if layer.mac is not None and golden.engine.array == "fusion":
            mode = FUSION_MODES[layer.registers["mode"]]
            yield f"mode {mode.a_bits}x{mode.w_bits}"


def layer_options(network: Network, node: Node, engine: EngineConfig) -> Iterator[str]:
    """The options that a node hits by itself."""
    if isinstance(node, MacNode | AddNode | RequantiseNode):
        yield f"output bits {'16' if node.out.bits > 8 else '8 or less'}"
        if node.out.planes is not None:
            yield f"planes come of {'requantise' if isinstance(node, RequantiseNode) else 'thresholds'}"
        if isinstance(node.requant, ScaleRequant):
            yield f"rounding {node.requant.rounding}"
            yield f"multiplier bits {node.requant.multiplier_bits}"
    if not isinstance(node, MacNode):
        return
    source = network.source(node)
    shape = conv_shape(node, source)
    yield from (f"kernel {size}" for size in shape.kernel)
    if not isinstance(node, LinearNode):
        yield from (f"stride {step}" for step in shape.stride)
        yield from (f"dilation {step}" for step, size in zip(shape.dilation, shape.kernel, strict=True) if size > 1)
        yield f"padding {'none' if not any(shape.padding) else 'even' if len(set(shape.padding)) == 1 else 'uneven'}"
        depthwise = shape.groups > 1 and shape.depthwise
        yield f"groups {'one' if shape.groups == 1 else 'depthwise' if depthwise else 'more'}"
    yield f"inputs {'divide' if shape.group_inputs % engine.lanes == 0 else 'do not divide'} L"
    yield f"outputs {'divide' if shape.group_outputs % engine.rows == 0 else 'do not divide'} R"
    height, width = shape.output_size(*source.shape[1:])
    pixels = height * width
    yield f"tiles {'one' if pixels <= engine.pixels else 'ragged' if pixels % engine.pixels else 'whole'}"
    wide = source.codes.bits > BYTE_BITS, node.weights.bits > BYTE_BITS
    if any(wide):
        yield f"operands {'both wide' if all(wide) else 'wide activations' if wide[0] else 'wide weights'}"
    if source.codes.planes is not None:
        yield from _within("activation planes", ACTIVATION_PLANES, source.codes.bits)
        yield f"planes of activations {'-1 and +1' if source.codes.planes.signs else '0 and 1'}"
    elif not wide[0]:
        yield f"activation bits {source.codes.bits}"
    if source.codes.planes is None:
        yield f"activations {'signed' if source.codes.signed else 'unsigned'}"
    yield f"activation widths {'one' if node.inputs[0] not in network.widths else 'mixed'}"
    yield from _weight_options(node.weights)
    yield f"alignment {node.align or 'none'}"
    yield f"requantiser {node.requant.kind}"
    if not isinstance(node.requant, ScaleRequant) and node.table is None:
        yield f"threshold bits {node.out.bits}"
    yield f"zero term {'none' if not node.zero_term else 'fraction' if node.fraction else 'whole'}"


def _weight_options(weights: Weights) -> Iterator[str]:
    """What a layer's weights are."""
    yield f"scheme {weights.scheme}"
    if isinstance(weights, IntWeights):
        if weights.bits <= BYTE_BITS:
            yield f"weight bits {weights.bits}"
        yield f"weight widths {'mixed' if weights.widths else 'one'}"
    elif isinstance(weights, ShiftWeights | FocusedWeights):
        yield from _within("exponent bits", EXPONENT_BITS, weights.exponent_bits)
    else:
        yield from _within("planes", PLANES, weights.bits)
        if isinstance(weights, XorWeights):
            yield f"order {weights.order}"
