"""The layers of the engine: which nodes run together, what they keep in memory, what the host unfolds.

A MAC layer takes along the residual add and the requantised copy that its post lanes can make
on the way out. Views (flatten, concat, channel pad, stride slice) cost nothing: they are
addressing. What is left runs on the post lanes alone.
"""

from dataclasses import dataclass, field

from ..kernels.errors import CapacityError, UnsupportedError
from .engine import EngineConfig
from .graph import MacNode, Value, conv_shape
from .manifest import (
    AddNode,
    ChannelPadNode,
    ConcatNode,
    Conv2dNode,
    FlattenNode,
    LinearNode,
    Node,
    RequantiseNode,
    StrideSliceNode,
)
from .memory import Lifetime, Memory, place, tensor_bytes
from .network import Network

__all__ = ["EngineLayer", "Schedule", "schedule"]

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
    """A network on an engine: its layers in order, what of them is rearranged, the memory it needs."""

    layers: list[EngineLayer]
    unfolded: str | None
    maps: dict[str, tuple[int, int]]
    peak_bytes: int
    peak_node: str
    memory: Memory

    @property
    def serial(self) -> set[str]:
        """Names of the layers that drain before they compute on, because their operands share a bank."""
        return {self.layers[position].name for position in self.memory.serial}


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
    lives, together = _lives(network, layers)
    values = network.values | {network.manifest.input.name: input_value(network, unfolded)}
    sizes = {name: tensor_bytes(value, engine.lanes) for name, value in values.items()}
    peak, node = _peak(sizes, lives, layers, network.manifest.input.name)
    if peak > engine.act_bytes:
        raise CapacityError(
            f"{node}: live activations need {peak} bytes, but the engine has act_bytes = {engine.act_bytes}"
        )
    return Schedule(layers, unfolded, _maps(network), peak, node, place(values, lives, together, engine))


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


def _maps(network: Network) -> dict[str, tuple[int, int]]:
    """The linear layers that read a flattened map, and its (height, width): they run as convolutions over it."""
    nodes = network.manifest.nodes
    flat = {node.name: network.values[node.inputs[0]].shape[1:] for node in nodes if isinstance(node, FlattenNode)}
    sizes = {node.name: flat.get(node.inputs[0], (1, 1)) for node in nodes if isinstance(node, LinearNode)}
    return {name: size for name, size in sizes.items() if size != (1, 1)}


def input_value(network: Network, unfolded: str | None) -> Value:
    """The input as it lies in the engine's memory."""
    value = network.values[network.manifest.input.name]
    if unfolded is None:
        return value
    node = network.node(unfolded)
    columns = conv_shape(node, value).output_size(*value.shape[1:])[1]
    return Value((value.shape[0] * node.kernel[1], value.shape[1], columns), value.codes)


def _lives(
    network: Network, layers: list[EngineLayer]
) -> tuple[dict[str, Lifetime], dict[int, tuple[set[str], set[str]]]]:
    """When each stored tensor lives, and what the array and the post lanes of a layer read together."""
    source = network.manifest.input.name
    stored = {source: {source}}
    for node in network.manifest.nodes:
        viewed = [stored[name] for name in node.inputs] if isinstance(node, View) else [{node.name}]
        stored[node.name] = set().union(*viewed)
    born, last = {source: 0}, {source: 0}
    together: dict[int, tuple[set[str], set[str]]] = {}
    for position, layer in enumerate(layers):
        inside = {node.name for node in layer.nodes}
        array, *post = ({root for name in node.inputs for root in stored[name]} - inside for node in layer.nodes)
        born |= dict.fromkeys(inside, position)
        last |= dict.fromkeys(array.union(*post), position)
        if isinstance(layer.lead, MacNode) and any(post):
            together[position] = array, set().union(*post)
    last |= dict.fromkeys(stored[network.output], len(layers))
    # What only rides along in the post lanes is never stored.
    return {name: Lifetime(born[name], end) for name, end in last.items()}, together


def _peak(sizes: dict[str, int], lives: dict[str, Lifetime], layers: list[EngineLayer], source: str) -> tuple[int, str]:
    """Greatest sum of live tensors' bytes, and the layer at which it occurs."""
    peak, at = sizes[source], source
    for position, layer in enumerate(layers):
        total = sum(sizes[name] for name, life in lives.items() if life.first <= position <= life.last)
        if total > peak:
            peak, at = total, layer.name
    return peak, at
