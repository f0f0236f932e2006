"""The layers of the engine: which nodes run together, what they keep in memory, what the host unfolds.

A MAC layer takes along the residual add and the requantised copy that its post lanes can make
on the way out. Views cost nothing where addressing can do (`views`); where it cannot, a copy is a
layer. What is left runs on the post lanes alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..kernels.errors import CapacityError
from .arrays import check_arrays, step_lanes
from .engine import EngineConfig
from .graph import MacNode, Value, conv_shape
from .manifest import AddNode, ConcatNode, Conv2dNode, LinearNode, Node, RequantiseNode
from .memory import Lifetime, Memory, place, tensor_bytes
from .network import Network
from .views import Stored, View, arrange

__all__ = ["EngineLayer", "Schedule", "input_value", "schedule", "unfolding_pays"]


@dataclass(slots=True)
class EngineLayer:
    """One descriptor: the node that leads and the nodes that its post lanes run with it."""

    lead: Node
    fused: list[Node] = field(default_factory=list)
    part: int = 0
    """Of a view that is copied: which of its inputs this layer copies."""

    @property
    def name(self) -> str:
        """The leading node's name; a concat's copies have their position with it."""
        return f"{self.lead.name}[{self.part}]" if isinstance(self.lead, ConcatNode) else self.lead.name

    @property
    def op(self) -> str:
        """The operations, joined by ``+``."""
        return "+".join(node.op for node in (self.lead, *self.fused))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes of the layer, in order."""
        return self.lead, *self.fused

    @property
    def array_input(self) -> str | None:
        """The tensor that the array reads, if the layer is on the array."""
        return self.lead.inputs[0] if isinstance(self.lead, MacNode) else None

    @property
    def post_inputs(self) -> tuple[str, ...]:
        """The tensors that the post lanes read from memory, in the order of their operands."""
        if isinstance(self.lead, MacNode):
            made = {node.name for node in self.nodes}
            return tuple(name for node in self.fused for name in node.inputs if name not in made)
        if isinstance(self.lead, ConcatNode):
            return (self.lead.inputs[self.part],)
        return self.lead.inputs


@dataclass(frozen=True, slots=True)
class Schedule:
    """A network on an engine: its layers in order, what of them is rearranged, the memory it needs."""

    layers: list[EngineLayer]
    unfolded: str | None
    maps: dict[str, tuple[int, int]]
    tensors: dict[str, Stored]
    """Where every tensor lies within what is kept."""
    roots: dict[str, Value]
    """What is kept, by name."""
    copies: Mapping[str, Mapping[int, Stored]]
    """Where the views that are copied lie, by node and input."""
    kept: frozenset[str]
    """The tensors that are written to the memory."""
    peak_bytes: int
    peak_node: str
    memory: Memory

    @property
    def first_channels(self) -> dict[str, int]:
        """Where the input of each layer on the array begins in the tensor that it is a part of."""
        return {
            layer.name: self.tensors[layer.array_input].channel
            for layer in self.layers
            if layer.array_input is not None
        }

    @property
    def serial(self) -> set[str]:
        """Names of the layers that drain before they compute on, because their operands share a bank."""
        return {self.layers[position].name for position in self.memory.serial}


def schedule(network: Network, engine: EngineConfig) -> Schedule:
    """Lay a network out for an engine.

    Raises `UnsupportedError` for an array or decoder that cannot run it, and `CapacityError`
    where activations do not fit the on-chip memory.
    """
    check_arrays(network, engine)
    unfolded = _unfolded(network, engine)
    arrangement = arrange(network, input_value(network, unfolded), engine)
    layers = _fuse(network, arrangement.copies)
    kept = _kept(network, layers)
    lives, together = _lives(network, layers, arrangement.tensors, kept)
    sizes = {name: tensor_bytes(value, engine) for name, value in arrangement.roots.items()}
    peak, node = _peak(sizes, lives, layers, network.manifest.input.name)
    if peak > engine.act_bytes:
        raise CapacityError(
            f"{node}: live activations need {peak} bytes, but the engine has act_bytes = {engine.act_bytes}"
        )
    maps = {
        node.name: arrangement.tensors[node.inputs[0]].shape[1:]
        for node in network.manifest.nodes
        if isinstance(node, LinearNode) and arrangement.tensors[node.inputs[0]].flattened
    }
    memory = place(arrangement.roots, lives, together, engine)
    return Schedule(
        layers,
        unfolded,
        maps,
        dict(arrangement.tensors),
        dict(arrangement.roots),
        arrangement.copies,
        kept,
        peak,
        node,
        memory,
    )


def _fuse(network: Network, copies: Mapping[str, Mapping[int, Stored]]) -> list[EngineLayer]:
    nodes = network.manifest.nodes
    consumers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    order: dict[str, int] = {}
    for position, node in enumerate(nodes):
        # A view is as old as what it looks at; a copy is made where it stands.
        viewed = isinstance(node, View) and node.name not in copies
        order[node.name] = max(order.get(name, -1) for name in node.inputs) if viewed else position
    made_by: dict[str, EngineLayer] = {}
    layers: list[EngineLayer] = []
    for node in nodes:
        if isinstance(node, View):
            layers += [EngineLayer(node, part=part) for part in copies.get(node.name, ())]
            continue
        host = _host(node, made_by, consumers, order)
        if host is not None:
            host.fused.append(node)
            made_by[node.name] = host
        else:
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
    layer = network.layers[readers[0].name]
    pays = unfolding_pays(channels, width, step_lanes(layer.unfold(), engine), step_lanes(layer, engine))
    return layer.node.name if pays else None


def unfolding_pays(channels: int, width: int, unfolded_lanes: int, lanes: int) -> bool:
    """Whether a kernel of this width takes fewer steps with its columns as channels, given the lanes of a step."""
    return -(-channels * width // unfolded_lanes) < width * -(-channels // lanes)


def input_value(network: Network, unfolded: str | None) -> Value:
    """The input as it lies in the engine's memory."""
    value = network.values[network.manifest.input.name]
    if unfolded is None:
        return value
    node = network.node(unfolded)
    columns = conv_shape(node, value).output_size(*value.shape[1:])[1]
    return Value((value.shape[0] * node.kernel[1], value.shape[1], columns), value.codes)


def _kept(network: Network, layers: list[EngineLayer]) -> frozenset[str]:
    """The tensors that the memory holds: what another layer reads, or a view, and the result."""
    riding = set()
    for layer in layers:
        inside = {node.name for node in layer.nodes}
        for made in layer.nodes[:-1]:
            readers = [node.name for node in network.manifest.nodes if made.name in node.inputs]
            if made.name != network.output and all(name in inside for name in readers):
                riding.add(made.name)
    return frozenset(network.values) - riding


def _lives(
    network: Network, layers: list[EngineLayer], tensors: Mapping[str, Stored], kept: frozenset[str]
) -> tuple[dict[str, Lifetime], dict[int, tuple[set[str], set[str]]]]:
    """When each root lives, and which of them the array and the post lanes of a layer read together."""
    source = network.manifest.input.name
    born, last = {source: 0}, {source: 0}
    together: dict[int, tuple[set[str], set[str]]] = {}
    for position, layer in enumerate(layers):
        # In order: placement follows it, and must be the same in every process.
        written = dict.fromkeys(tensors[node.name].root for node in layer.nodes if node.name in kept)
        array = set() if layer.array_input is None else {tensors[layer.array_input].root}
        post = {tensors[name].root for name in layer.post_inputs}
        for root in written:
            born.setdefault(root, position)
        last |= dict.fromkeys((*written, *sorted(array | post)), position)
        if array and post:
            together[position] = array, post
    last[tensors[network.output].root] = len(layers)
    return {name: Lifetime(born[name], end) for name, end in last.items()}, together


def _peak(sizes: dict[str, int], lives: dict[str, Lifetime], layers: list[EngineLayer], source: str) -> tuple[int, str]:
    """Greatest sum of live tensors' bytes, and the layer at which it occurs."""
    peak, at = sizes[source], source
    for position, layer in enumerate(layers):
        total = sum(sizes[name] for name, life in lives.items() if life.first <= position <= life.last)
        if total > peak:
            peak, at = total, layer.name
    return peak, at
