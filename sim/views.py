"""Where tensors lie: which are kept, and which are only a way of looking at a kept one.

A *root* is a tensor that has a place of its own in the activation memory. Flatten, channel pad,
stride slice and concat are addressing wherever that can be: a view has its root, the root's channel at
which its own channels begin, and a stride. The inputs of a concat are written where they belong in
it. Where addressing cannot do, the post lanes copy: a padded view that the array reads, a concat's
input that lies elsewhere already, a strided or padded result.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..kernels.errors import UnsupportedError
from .engine import EngineConfig
from .graph import Value
from .manifest import ChannelPadNode, ConcatNode, Conv2dNode, FlattenNode, LinearNode, Node, StrideSliceNode
from .network import Network

__all__ = ["Arrangement", "Stored", "View", "arrange"]

View = FlattenNode | ConcatNode | ChannelPadNode | StrideSliceNode


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor within its root.

    Parameters
    ----------
    root : the tensor that is kept
    shape : (channels, height, width), before it was flattened
    channel : the root's channel that is channel 0 of this one; below `first` where it is padded
    first, end : the root's channels that belong to it; what is outside has the zero point
    stride : the root's rows and columns from one of its pixels to the next
    """

    root: str
    shape: tuple[int, int, int]
    channel: int
    first: int
    end: int
    stride: tuple[int, int] = (1, 1)

    @property
    def padded(self) -> bool:
        """Whether some of its channels are not in the root."""
        return self.channel < self.first or self.channel + self.shape[0] > self.end

    @property
    def flattened(self) -> bool:
        """Whether it has more than one pixel."""
        return self.shape[1:] != (1, 1)

    def moved(self, root: str, channels: int) -> "Stored":
        """The same tensor where its root lies within another one."""
        return replace(
            self, root=root, channel=self.channel + channels, first=self.first + channels, end=self.end + channels
        )


@dataclass(frozen=True, slots=True)
class Arrangement:
    """All tensors of a network in their roots, and the views that are copied.

    `copies` holds, by node, where what is copied lies: for a concat by its inputs' positions, otherwise at 0.
    """

    tensors: Mapping[str, Stored]
    roots: Mapping[str, Value]
    copies: Mapping[str, Mapping[int, Stored]]


def arrange(network: Network, source: Value, engine: EngineConfig) -> Arrangement:
    """Decide what is kept and what is a view; `source` is the input as the host loads it.

    Raises `UnsupportedError` where a flattened map is read by anything but a linear layer.
    """
    return _Arranger(network, source, engine).result()


class _Arranger:
    def __init__(self, network: Network, source: Value, engine: EngineConfig) -> None:
        self.network = network
        self.diagonal = min(engine.rows, engine.lanes)
        self.readers: dict[str, list[Node]] = {}
        for node in network.manifest.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.tensors: dict[str, Stored] = {}
        self.roots: dict[str, Value] = {}
        self.within: dict[str, tuple[str, int]] = {}
        self.copies: dict[str, dict[int, Stored]] = {}
        self._keep(network.manifest.input.name, source)
        for node in network.manifest.nodes:
            self._visit(node)

    def result(self) -> Arrangement:
        tensors = {name: self._settled(stored) for name, stored in self.tensors.items()}
        roots = {name: value for name, value in self.roots.items() if name not in self.within}
        copies = {
            name: {part: self._settled(stored) for part, stored in parts.items()} for name, parts in self.copies.items()
        }
        return Arrangement(tensors, roots, copies)

    def _settled(self, stored: Stored) -> Stored:
        while stored.root in self.within:
            stored = stored.moved(*self.within[stored.root])
        return stored

    def _keep(self, name: str, value: Value) -> None:
        self.roots[name] = value
        self.tensors[name] = Stored(name, value.shape, 0, 0, value.shape[0])

    def _visit(self, node: Node) -> None:
        value = self.network.values[node.name]
        for name in node.inputs:
            flat = isinstance(self._maker(name), FlattenNode) and self.tensors[name].flattened
            if flat and not isinstance(node, LinearNode | FlattenNode):
                height, width = self.tensors[name].shape[1:]
                raise UnsupportedError(
                    f"{node.name}: a flattened {height} x {width} map must be read by linear layers or be the result"
                )
        if isinstance(node, ConcatNode):
            self._concat(node, value)
            return
        if not isinstance(node, View):
            self._keep(node.name, value)
            return
        source = self.tensors[node.inputs[0]]
        match node:
            case FlattenNode():
                view = source
            case StrideSliceNode():
                stride = source.stride[0] * node.stride[0], source.stride[1] * node.stride[1]
                view = replace(source, shape=value.shape, stride=stride)
            case ChannelPadNode():
                view = replace(
                    source,
                    shape=value.shape,
                    channel=source.channel - node.before,
                    first=max(source.first, source.channel),
                    end=min(source.end, source.channel + source.shape[0]),
                )
        on_array = any(isinstance(reader, Conv2dNode | LinearNode) for reader in self.readers.get(node.name, []))
        is_result = node.name == self.network.output
        if (view.padded and (on_array or is_result)) or (is_result and view.stride != (1, 1)):
            self.copies[node.name] = {0: view}
            self._keep(node.name, Value(view.shape, value.codes))
        else:
            self.tensors[node.name] = view

    def _concat(self, node: ConcatNode, value: Value) -> None:
        copies: dict[int, Stored] = {}
        at = 0
        for position, name in enumerate(node.inputs):
            stored = self.tensors[name]
            if self._fits(name, stored, at):
                self.within[stored.root] = node.name, at
            else:
                copies[position] = stored
            at += stored.shape[0]
        self._keep(node.name, value)
        if copies:
            self.copies[node.name] = copies

    def _fits(self, name: str, stored: Stored, at: int) -> bool:
        """Whether a concat's input may be written into it: it is a root, and nobody reads it across the diagonal."""
        root = self.roots[stored.root]
        return (
            stored == Stored(stored.root, root.shape, 0, 0, root.shape[0])
            and stored.root not in self.within
            and stored.root != self.network.manifest.input.name
            and (at % self.diagonal == 0 or not self._feeds_depthwise(name))
        )

    def _feeds_depthwise(self, name: str) -> bool:
        for reader in self.readers.get(name, []):
            channels = self.network.values[name].shape[0]
            if isinstance(reader, Conv2dNode) and reader.groups == reader.channels == channels:
                return True
            if isinstance(reader, View) and self._feeds_depthwise(reader.name):
                return True
        return False

    def _maker(self, name: str) -> Node | None:
        return next((node for node in self.network.manifest.nodes if node.name == name), None)
