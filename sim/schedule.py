"""The layers of the engine: which nodes run together, what they keep in memory, what the host unfolds.

A MAC layer takes along the residual add and the requantised copy that its post lanes can make
on the way out. Views (flatten, concat, channel pad, stride slice) cost nothing: they are
addressing. What is left runs on the post lanes alone.
"""

from dataclasses import dataclass, field

from ..kernels.digits import digit_count
from ..kernels.errors import CapacityError, UnsupportedError
from ..kernels.mac import DIGIT_BITS
from .engine import EngineConfig
from .graph import MacNode, Value, conv_shape
from .manifest import (
    AddNode,
    ChannelPadNode,
    ConcatNode,
    Conv2dNode,
    FlattenNode,
    Node,
    RequantiseNode,
    StrideSliceNode,
)
from .network import Network

__all__ = ["EngineLayer", "Schedule", "schedule", "tensor_bytes"]

View = FlattenNode | ConcatNode | ChannelPadNode | StrideSliceNode


@dataclass(slots=True)
class EngineLayer:
    """One descriptor: the node that leads and the nodes that its post lanes run with it."""

    lead: Node
    fused: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The leading node's name."""
        return self.lead.name

    @property
    def op(self) -> str:
        """The operations, joined by ``+``."""
        return "+".join(node.op for node in (self.lead, *self.fused))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes of the layer, in order."""
        return self.lead, *self.fused


@dataclass(frozen=True, slots=True)
class Schedule:
    """A network on an engine: its layers in order, the unfolded layer, the memory it needs."""

    layers: list[EngineLayer]
    unfolded: str | None
    peak_bytes: int
    peak_node: str


def tensor_bytes(value: Value, lanes: int) -> int:
    """On-chip bytes of one image's tensor: words of L digits, one plane per digit."""
    channels, height, width = value.shape
    words = height * width * -(-channels // lanes) * digit_count(value.codes.bits)
    return words * lanes * DIGIT_BITS // 8


def schedule(network: Network, engine: EngineConfig) -> Schedule:
    """Lay a network out for an engine.

    Raises `UnsupportedError` for an array or decoder that cannot run it, and `CapacityError`
    where activations do not fit the on-chip memory.
    """
    if engine.array != "digit" or engine.decoder != "raw":
        raise UnsupportedError(
            f"scheme int runs on array digit with decoder raw, not on array {engine.array} "
            f"with decoder {engine.decoder}: other arrays are not modelled yet"
        )
    layers = _fuse(network)
    unfolded = _unfolded(network, engine)
    peak, node = _peak(network, layers, engine, unfolded)
    if peak > engine.act_bytes:
        raise CapacityError(
            f"{node}: live activations need {peak} bytes, but the engine has act_bytes = {engine.act_bytes}"
        )
    return Schedule(layers, unfolded, peak, node)


def _fuse(network: Network) -> list[EngineLayer]:
    nodes = network.manifest.nodes
    consumers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    order: dict[str, int] = {}
    for position, node in enumerate(nodes):
        # A view is as old as what it looks at.
        order[node.name] = max(order.get(name, -1) for name in node.inputs) if isinstance(node, View) else position
    made_by: dict[str, EngineLayer] = {}
    layers: list[EngineLayer] = []
    for node in nodes:
        host = _host(node, made_by, consumers, order)
        if host is not None:
            host.fused.append(node)
            made_by[node.name] = host
        elif not isinstance(node, View):
            layer = EngineLayer(node)
            layers.append(layer)
            made_by[node.name] = layer
    return layers


def _host(
    node: Node, made_by: dict[str, EngineLayer], consumers: dict[str, list[Node]], order: dict[str, int]
) -> EngineLayer | None:
    """The layer whose post lanes can run this node on the way out, if there is one."""
    if isinstance(node, AddNode):
        # The later operand is still in the post lanes; the other one comes from memory.
        late = max(node.inputs, key=lambda name: order.get(name, -1))
        layer = made_by.get(late)
        alone = len(consumers[late]) == 1 and node.inputs[0] != node.inputs[1]
        if alone and layer is not None and isinstance(layer.lead, MacNode) and not layer.fused:
            return layer
    if isinstance(node, RequantiseNode):
        layer = made_by.get(node.inputs[0])
        # A tensor may be written twice: one stream and one copy.
        if layer is not None and layer.nodes[-1].name == node.inputs[0] and isinstance(layer.lead, MacNode):
            return layer if not isinstance(layer.nodes[-1], RequantiseNode) else None
    return None


def _unfolded(network: Network, engine: EngineConfig) -> str | None:
    """The stem whose kernel columns pack better into the lanes: loaded unfolded by the host."""
    source = network.manifest.input
    readers = [node for node in network.manifest.nodes if source.name in node.inputs]
    if len(readers) != 1 or not isinstance(readers[0], Conv2dNode) or readers[0].groups != 1:
        return None
    channels, width = source.shape[0], readers[0].kernel[1]
    folded = -(-channels * width // engine.lanes)
    return readers[0].name if folded < width * -(-channels // engine.lanes) else None


def input_value(network: Network, unfolded: str | None) -> Value:
    """The input as it lies in the engine's memory."""
    value = network.values[network.manifest.input.name]
    if unfolded is None:
        return value
    node = network.node(unfolded)
    columns = conv_shape(node, value).output_size(*value.shape[1:])[1]
    return Value((value.shape[0] * node.kernel[1], value.shape[1], columns), value.codes)


def _peak(network: Network, layers: list[EngineLayer], engine: EngineConfig, unfolded: str | None) -> tuple[int, str]:
    """Greatest sum of live tensors' bytes, and the layer at which it occurs."""
    source = network.manifest.input.name
    stored = {source: {source}}
    for node in network.manifest.nodes:
        viewed = [stored[name] for name in node.inputs] if isinstance(node, View) else [{node.name}]
        stored[node.name] = set().union(*viewed)
    sizes = {name: tensor_bytes(value, engine.lanes) for name, value in network.values.items()}
    sizes[source] = tensor_bytes(input_value(network, unfolded), engine.lanes)
    reads: list[set[str]] = []
    for layer in layers:
        inside = {node.name for node in layer.nodes}
        reads.append({root for node in layer.nodes for name in node.inputs for root in stored[name]} - inside)
    last = {name: position for position, names in enumerate(reads) for name in names}
    last |= dict.fromkeys(stored[network.output], len(layers))
    live, peak, at = {source}, 0, source
    for position, layer in enumerate(layers):
        live |= {node.name for node in layer.nodes if node.name in last}
        total = sum(sizes[name] for name in live)
        if total > peak:
            peak, at = total, layer.name
        live = {name for name in live if last[name] > position}
    return peak, at
