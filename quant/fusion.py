"""Rewrites of a freshly captured graph until only what hardware computes is left.

Batch norms go to the layer before them (or become a depthwise 1 x 1 convolution where there
is none that only they read), zero padding into the convolutions behind it, clamps into the node
whose only reader they are, slices into one another. All in float64.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..kernels.conv import ConvShape
from ..kernels.errors import UnsupportedError
from .graph import (
    Add,
    BatchNorm,
    Clamp,
    Clamping,
    Conv2d,
    Flatten,
    Graph,
    Layer,
    Linear,
    MaxPool2d,
    Node,
    Norm,
    Parameters,
    SpatialPad,
    StrideSlice,
)

__all__ = ["fuse"]

Merge = Callable[[Mapping[str, Parameters], Node, Node], tuple[Node, Parameters | None] | None]
"""Merges a node into the one before it, or declines: the merged node and its parameters if they change."""


def fuse(graph: Graph) -> Graph:
    """Attach batch norms to their layers, fold padding, clamps and slices; the result computes the same function.

    Raises `UnsupportedError` where a batch norm or padding stands where it cannot fold.
    """
    graph = _attach_batch_norms(graph)
    graph = _replace_lone_batch_norms(graph)
    graph = _merge_padding(graph)
    graph = _merge_pairs(graph, _merge_slices)
    graph = _merge_pairs(_clamps_first(graph), _merge_clamp)
    return _without_dead_nodes(graph)


def _rebuilt(graph: Graph, nodes: Iterable[Node], parameters: dict[str, Parameters], renamed: dict[str, str]) -> Graph:
    """A graph of `nodes` in which a reader of a removed node reads its stand-in."""
    kept = [replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)) for node in nodes]
    names = {node.name for node in kept}
    return Graph(
        tuple(kept),
        {name: value for name, value in parameters.items() if name in names},
        renamed.get(graph.output, graph.output),
        {name: norm for name, norm in graph.norms.items() if name in names},
    )


def _merge_pairs(graph: Graph, merge: Merge) -> Graph:
    """Merge a node into its input where it is that input's only reader and `merge` agrees."""
    nodes: dict[str, Node] = {}
    parameters = dict(graph.parameters)
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if len(node.inputs) == 1:
            source = renamed.get(node.inputs[0], node.inputs[0])
            read_once = len(graph.consumers[node.inputs[0]]) == 1 and node.inputs[0] != graph.output
            merged = merge(parameters, nodes[source], node) if read_once else None
            if merged is not None:
                nodes[source] = merged[0]
                if merged[1] is not None:
                    parameters[source] = merged[1]
                renamed[node.name] = source
                continue
        nodes[node.name] = node
    return _rebuilt(graph, nodes.values(), parameters, renamed)


def _attach_batch_norms(graph: Graph) -> Graph:
    """Give each layer the batch norms behind it, as one."""
    norms: dict[str, Norm] = {}

    def attach(
        parameters: Mapping[str, Parameters], first: Node, second: Node
    ) -> tuple[Node, Parameters | None] | None:
        if not (isinstance(first, Layer) and isinstance(second, BatchNorm)):
            return None
        norm = graph.norms[second.name]
        norms[first.name] = norms[first.name].then(norm.scale, norm.shift) if first.name in norms else norm
        return first, None

    attached = _merge_pairs(graph, attach)
    return replace(attached, norms=norms)


def _merge_slices(
    parameters: Mapping[str, Parameters], first: Node, second: Node
) -> tuple[Node, Parameters | None] | None:
    if not (isinstance(first, StrideSlice) and isinstance(second, StrideSlice)):
        return None
    stride = (first.stride[0] * second.stride[0], first.stride[1] * second.stride[1])
    return replace(first, stride=stride, shape=second.shape), None


def _merge_clamp(
    parameters: Mapping[str, Parameters], first: Node, second: Node
) -> tuple[Node, Parameters | None] | None:
    if not (isinstance(first, Conv2d | Linear | Add | Clamp) and isinstance(second, Clamp)):
        return None
    return _clamped(first, second), None


def _clamped(node: Clamping, clamp: Clamp) -> Node:
    """`node` followed by `clamp`: two clamps in a row are one."""
    low, high = (min(max(end, clamp.low), clamp.high) for end in (node.low, node.high))
    return replace(node, low=low, high=high)


def _clamps_first(graph: Graph) -> Graph:
    """Move clamps before the max pools, slices and flattenings that only they read: the values stay the same."""
    for node in graph.nodes:
        if not isinstance(node, Clamp):
            continue
        source = graph.by_name[node.inputs[0]]
        read_once = len(graph.consumers[source.name]) == 1 and source.name != graph.output
        if not (read_once and isinstance(source, MaxPool2d | StrideSlice | Flatten)):
            continue
        clamp = replace(node, inputs=source.inputs, shape=graph.by_name[source.inputs[0]].shape)
        nodes = [
            clamp
            if other is source
            else replace(source, inputs=(node.name,))
            if other is node
            else replace(other, inputs=tuple(source.name if name == node.name else name for name in other.inputs))
            for other in graph.nodes
        ]
        output = source.name if graph.output == node.name else graph.output
        return _clamps_first(replace(graph, nodes=tuple(nodes), output=output))
    return graph


def _replace_lone_batch_norms(graph: Graph) -> Graph:
    """A batch norm without a layer of its own is a depthwise 1 x 1 convolution."""
    nodes = []
    parameters = dict(graph.parameters)
    for node in graph.nodes:
        if not isinstance(node, BatchNorm):
            nodes.append(node)
            continue
        if len(node.shape) != 3:
            raise UnsupportedError(
                f"batch norm {node.name} must follow a linear layer that nothing else reads, or act on images"
            )
        channels = node.channels
        shape = ConvShape(channels, channels, groups=channels)
        nodes.append(Conv2d(name=node.name, inputs=node.inputs, shape=node.shape, conv=shape))
        scale, shift = parameters[node.name]
        parameters[node.name] = Parameters(scale.reshape(channels, 1, 1, 1), shift)
    return _rebuilt(graph, nodes, parameters, {})


def _merge_padding(graph: Graph) -> Graph:
    """Add each spatial padding to the padding of the convolutions that read it."""
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node, SpatialPad):
            readers = [graph.by_name[name] for name in graph.consumers[node.name]]
            if node.name == graph.output or not all(isinstance(reader, Conv2d) for reader in readers):
                raise UnsupportedError(f"zero padding {node.name} must be read by convolutions only")
            renamed[node.name] = node.inputs[0]
        elif isinstance(node, Conv2d) and isinstance(pad := graph.by_name[node.inputs[0]], SpatialPad):
            padding = np.add(node.conv.padding, pad.padding).tolist()
            nodes.append(replace(node, conv=replace(node.conv, padding=tuple(padding))))
        else:
            nodes.append(node)
    return _rebuilt(graph, nodes, dict(graph.parameters), renamed)


def _without_dead_nodes(graph: Graph) -> Graph:
    """Drop nodes that the output does not depend on, and clamps that do nothing."""
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node, Clamp) and node.low == -math.inf and node.high == math.inf:
            renamed[node.name] = renamed.get(node.inputs[0], node.inputs[0])
    graph = _rebuilt(graph, (node for node in graph.nodes if node.name not in renamed), dict(graph.parameters), renamed)
    live = {graph.output, graph.input.name}
    for node in reversed(graph.nodes):
        if node.name in live:
            live.update(node.inputs)
    return _rebuilt(graph, (node for node in graph.nodes if node.name in live), dict(graph.parameters), {})
