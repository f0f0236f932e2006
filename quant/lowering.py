"""From a float graph and a quantiser's choices to a `QuantizedGraph`.

A node's result may be needed in several forms: a layer reads b-bit codes, an add and an average
pool read a 16-bit stream. Needs travel backwards through nodes that only move values (max pool,
slice, padding, concatenation, flattening: one instance for each form) to a node that rescales (layer,
add, clamp, input), which writes the stream and makes the other forms from it. Tensors that such a move joins
share one grid: one base scale, one zero point, each its own alignment amounts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from ..kernels.align import Alignment
from ..kernels.mac import signed_range
from ..kernels.nested import NestedGrid
from ..sim.plane_basis import PlaneBasis
from .graph import (
    Add,
    AvgPool2d,
    ChannelPad,
    Clamp,
    Clamping,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Graph,
    Input,
    Layer,
    Linear,
    MaxPool2d,
    Node,
    Parameters,
    StrideSlice,
)
from .preprocess import InputSpec
from .quantized import (
    STREAM_BITS,
    EncodedWeights,
    QuantizedGraph,
    QuantizedLayer,
    QuantizedNode,
    QuantizedTensor,
    QuantizedWeights,
)
from .statistics import Statistics

__all__ = [
    "INPUT_BITS",
    "EdgeQuantizer",
    "EdgeSettings",
    "Grid",
    "Quantizer",
    "Read",
    "edge_layers",
    "last_layers",
    "lower",
    "reads",
]

INPUT_BITS = 8
STREAM_HEADROOM = 2.0
"""Streams span twice what calibration saw: of 16 bits one is cheap, and a clipped shortcut is not."""

MOVES = (MaxPool2d, Flatten, Concat, ChannelPad, StrideSlice)
AVERAGES = (AvgPool2d, GlobalAvgPool)


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid of one or several joined tensors; `amounts` (int64) for all their producers' channels in order.

    So are `widths`, the bits of each channel's codes, where they have different ones. With a `basis` codes are words of
    activation planes, of as many planes as `bits`, and `zero_point` is the word that padding feeds. With the rounding
    "nested" codes are those of `kernels.nested.NestedGrid`.
    """

    bits: int
    signed: bool
    scale: float
    zero_point: int
    amounts: np.ndarray
    alignment: Alignment = "shift"
    widths: np.ndarray | None = None
    basis: PlaneBasis | None = None
    rounding: Literal["direct", "nested"] = "direct"

    @property
    def container(self) -> tuple[int, int]:
        """Least and greatest code."""
        if self.rounding == "nested":
            return NestedGrid(self.bits, self.signed).code_range
        return signed_range(self.bits) if self.signed else (0, (1 << self.bits) - 1)

    @classmethod
    def of_planes(cls, basis: PlaneBasis, channels: int) -> "Grid":
        """Words of planes."""
        return cls(len(basis.spec.beta), False, 1.0, basis.pad, np.zeros(channels, dtype=np.int64), basis=basis)


class Quantizer(ABC):
    """What a quantisation method decides; everything else is the same for all of them."""

    method: str
    statistics: Statistics
    """Of the nodes, by calibration."""
    planes: int | None = None
    """Bits of the forms that are words of planes, which adds come to by a stream."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """The method's settings, for the record."""

    @abstractmethod
    def input_bits(self, layer: Layer) -> int:
        """Bits of the activations that `layer` reads."""

    @abstractmethod
    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        """The grid on which `producers` write `bits`-bit copies."""

    def direct_grid(self, producers: Sequence[Layer], bits: int) -> Grid:
        """The same where all `producers` are layers that write this form alone: its channels may have widths.

        What an add makes, or what is copied from a 16-bit stream, has one width in hardware.
        """
        return self.activation_grid(producers, bits)

    def stream_grid(self, producers: Sequence[Node]) -> Grid:
        """The grid on which `producers` write 16-bit streams: over the calibrated extremes with headroom.

        The zero point is 0, and all channels have one step.
        """
        extremes = [1e-6]
        for node in producers:
            seen = self.statistics[node.name].tensor
            low, high = (node.low, node.high) if isinstance(node, Clamping) else (-np.inf, np.inf)
            extremes += [abs(float(np.clip(end[0], low, high))) for end in (seen.min, seen.max)]
        scale = STREAM_HEADROOM * max(extremes) / signed_range(STREAM_BITS)[1]
        return Grid(STREAM_BITS, True, scale, 0, np.zeros(sum(node.channels for node in producers), dtype=np.int64))

    @abstractmethod
    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights | EncodedWeights, np.ndarray]:
        """Quantised weights and real bias (out,) of a layer that reads `source`."""


class EdgeSettings(Protocol):
    """A dataclass of settings with bits of its own for the first and last layers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def activation_bits(self) -> int:
        """Of what inner layers read."""

    @property
    def edge_bits(self) -> int:
        """Of what the others read."""


@dataclass(frozen=True, eq=False)
class EdgeQuantizer(Quantizer):
    """A method whose first and last layers, the `edges` of the graph, have bits of their own in its settings."""

    graph: Graph
    spec: InputSpec
    statistics: Statistics
    chosen: EdgeSettings
    edges: frozenset[str]

    @property
    def settings(self) -> Mapping[str, object]:
        """The method's settings."""
        return asdict(self.chosen)

    def input_bits(self, layer: Layer) -> int:
        """Those of inner layers, or of the edges."""
        return self.chosen.edge_bits if layer.name in self.edges else self.chosen.activation_bits


def edge_layers(graph: Graph) -> frozenset[str]:
    """Names of the first layers (they read the network's input) and the last (nothing quantises behind them)."""
    first, edges = {graph.input.name}, set(last_layers(graph))
    for node in graph.nodes:
        if first.intersection(node.inputs):
            (edges if isinstance(node, Layer) else first).add(node.name)
    return frozenset(edges)


def last_layers(graph: Graph) -> frozenset[str]:
    """Names of the layers behind which nothing quantises."""
    last, edges = {graph.output}, set()
    for node in reversed(graph.nodes):
        if node.name in last:
            if isinstance(node, Layer):
                edges.add(node.name)
            else:
                last.update(node.inputs)
    return frozenset(edges)


def lower(graph: Graph, spec: InputSpec, quantizer: Quantizer) -> QuantizedGraph:
    """Quantise `graph`, whose input is `spec`, by the decisions of `quantizer`."""
    return _Lowering(graph, spec, quantizer.input_bits, quantizer.planes, quantizer).result()


class Read(NamedTuple):
    """What a layer reads: the nodes that write it, which share its grid, and whether they write nothing else.

    What is not written `direct` is copied from a 16-bit stream, or is the network's input.
    """

    producers: tuple[str, ...]
    direct: bool


def reads(
    graph: Graph, spec: InputSpec, input_bits: Callable[[Layer], int], planes: int | None = None
) -> dict[str, Read]:
    """What each layer reads, by its name, as `lower` will have it of a quantiser with these `input_bits`."""
    return _Lowering(graph, spec, input_bits, planes).reads()


Form = tuple[str, int]
"""A node's result in so many bits; `STREAM_BITS` is the stream."""


class _Lowering:
    quantizer: Quantizer

    def __init__(
        self,
        graph: Graph,
        spec: InputSpec,
        input_bits: Callable[[Layer], int],
        planes: int | None,
        quantizer: Quantizer | None = None,
    ) -> None:
        self.graph = graph
        self.spec = spec
        self.input_bits = input_bits
        self.planes = planes
        if quantizer is not None:
            self.quantizer = quantizer
        self.bits: dict[str, list[int]] = {node.name: [] for node in graph.nodes}
        self.joined: dict[Form, Form] = {}
        self.grids: dict[Form, Grid] = {}
        self.amounts: dict[Form, np.ndarray] = {}
        self.widths: dict[Form, np.ndarray | None] = {}
        self.tensors: dict[str, QuantizedTensor] = {}
        self.nodes: list[QuantizedNode] = []

    def result(self) -> QuantizedGraph:
        self._find_needs()
        self._choose_grids()
        for node in self.graph.nodes:
            self._emit(node)
        output = self._tensor_name((self.graph.output, STREAM_BITS))
        return QuantizedGraph(
            self.spec, tuple(self.nodes), self.tensors, output, self.quantizer.method, dict(self.quantizer.settings)
        )

    @staticmethod
    def _tensor_name(form: Form) -> str:
        return f"{form[0]}@{form[1]}"

    @staticmethod
    def _moves(node: Node, bits: int) -> bool:
        """Whether `node` passes this form of its inputs on, rather than making it."""
        return isinstance(node, MOVES) or (isinstance(node, AVERAGES) and bits == STREAM_BITS)

    def _native(self, node: Node) -> int | None:
        """The form that a node makes by itself, from which a requantisation makes the others."""
        return INPUT_BITS if isinstance(node, Input) else STREAM_BITS if isinstance(node, AVERAGES) else None

    def _source_bits(self, node: Node, bits: int) -> int:
        """The form in which `node` reads its inputs to give `bits`."""
        if isinstance(node, Layer):
            return self.input_bits(node)
        return bits if self._moves(node, bits) else STREAM_BITS

    def _find_needs(self) -> None:
        self.bits[self.graph.output].append(STREAM_BITS)
        for node in reversed(self.graph.nodes):
            needs = self.bits[node.name]
            native = self._native(node)
            if native is not None and native not in needs:
                needs.insert(0, native)
            of_planes = isinstance(node, Add) and self.planes in needs
            several = len(needs) > 1 and native is None and not isinstance(node, MOVES)
            if STREAM_BITS not in needs and (several or of_planes):
                needs.append(STREAM_BITS)  # what the copies are made from
            needs.sort(reverse=True)
            for bits in needs:
                for name in node.inputs:
                    source = self._source_bits(node, bits)
                    if source not in self.bits[name]:
                        self.bits[name].append(source)
                    if self._moves(node, bits):
                        self._join((name, bits), (node.name, bits))

    def _root(self, form: Form) -> Form:
        while form in self.joined:
            form = self.joined[form]
        return form

    def _join(self, first: Form, second: Form) -> None:
        first, second = self._root(first), self._root(second)
        if first != second:
            self.joined[second] = first

    def reads(self) -> dict[str, Read]:
        self._find_needs()
        producers = self._producers()
        found = {}
        for layer in self.graph.layers:
            root = self._root((layer.inputs[0], self.input_bits(layer)))
            nodes = producers[root]
            found[layer.name] = Read(tuple(node.name for node in nodes), self._direct(nodes, root[1]))
        return found

    def _producers(self) -> dict[Form, list[Node]]:
        """The nodes that write each set of joined forms."""
        producers: dict[Form, list[Node]] = {}
        for node in self.graph.nodes:
            for bits in self.bits[node.name]:
                if not self._moves(node, bits):
                    producers.setdefault(self._root((node.name, bits)), []).append(node)
        return producers

    def _direct(self, nodes: Sequence[Node], bits: int) -> bool:
        """Whether the nodes are layers that write this form alone."""
        return all(isinstance(node, Layer) and self.bits[node.name] == [bits] for node in nodes)

    def _choose_grids(self) -> None:
        """One grid for each set of joined forms, from the nodes that write it."""
        producers = self._producers()
        for root, nodes in producers.items():
            bits = root[1]
            if bits == STREAM_BITS:
                grid = self.quantizer.stream_grid(nodes)
            elif self._direct(nodes, bits):
                grid = self.quantizer.direct_grid([node for node in nodes if isinstance(node, Layer)], bits)
            else:
                grid = self.quantizer.activation_grid(nodes, bits)
            self.grids[root] = grid
            ends = np.cumsum([node.channels for node in nodes])[:-1]
            widths = [None] * len(nodes) if grid.widths is None else np.split(grid.widths, ends)
            for node, amounts, own in zip(nodes, np.split(grid.amounts, ends), widths, strict=True):
                self.amounts[node.name, bits] = amounts
                self.widths[node.name, bits] = own

    def _moved_amounts(self, node: Node, bits: int) -> np.ndarray:
        """Alignment amounts of a node that moves channels."""
        parts = [self.amounts[name, bits] for name in node.inputs]
        match node:
            case Concat():
                return np.concatenate(parts)
            case ChannelPad(before=before, after=after):
                least = 0 if self.grids[self._root((node.name, bits))].alignment == "shift" else 1
                return np.pad(parts[0], (before, after), constant_values=least)
            case Flatten():
                return np.repeat(parts[0], node.channels // len(parts[0]))
            case _:
                return parts[0]

    def _tensor(self, node: Node, bits: int) -> str:
        """Make the tensor of one form of a node; returns its name."""
        form = (node.name, bits)
        grid = self.grids[self._root(form)]
        if self._moves(node, bits):
            self.amounts[form] = self._moved_amounts(node, bits)
        container = grid.container
        whole = QuantizedTensor(
            self._tensor_name(form), node.shape, grid.bits, grid.signed, grid.scale, grid.zero_point, grid.alignment,
            self.amounts[form], *container, self.widths.get(form), grid.basis, grid.rounding,
        )  # fmt: skip
        tensor = whole
        if isinstance(node, Clamping) and whole.widths is None and whole.basis is None:
            low, high = (
                np.clip(np.rint(end / whole.steps) + grid.zero_point, *container) for end in (node.low, node.high)
            )
            tensor = replace(whole, low=int(low.min()), high=int(high.max()))
        self.tensors[tensor.name] = tensor
        return tensor.name

    def _emit(self, node: Node) -> None:
        native = self._native(node)
        for bits in self.bits[node.name]:
            if isinstance(node, MOVES) or bits == native:
                self._add(node, (bits,))
        if isinstance(node, MOVES):
            return
        if native is None:
            self._add(node, tuple(self.bits[node.name]))
            return
        others = tuple(bits for bits in self.bits[node.name] if bits != native)
        if others:
            clamp = Clamp(name=f"{node.name}.requantise", inputs=(node.name,), shape=node.shape)
            outputs = tuple(self._tensor(node, bits) for bits in others)
            self.nodes.append(QuantizedNode(clamp, (self._tensor_name((node.name, native)),), outputs))

    def _add(self, node: Node, forms: tuple[int, ...]) -> None:
        """Append the quantised node that writes these forms."""
        if not forms:
            return
        inputs = tuple(self._tensor_name((name, self._source_bits(node, forms[0]))) for name in node.inputs)
        outputs = tuple(self._tensor(node, bits) for bits in forms)
        if isinstance(node, Conv2d | Linear):
            source = self.tensors[inputs[0]]
            weights, bias = self.quantizer.layer_weights(node, self.graph.parameters[node.name], source)
            self.nodes.append(QuantizedLayer(node, inputs, outputs, weights, bias))
        else:
            self.nodes.append(QuantizedNode(node, inputs, outputs))
