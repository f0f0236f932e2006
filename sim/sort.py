"""Channels sorted by their widths: those that need an upper digit beside each other, in as few row groups and words.

The engine makes fewer digit passes where no weight of a row group, or no activation of a word, has an upper digit
(`lowered.width_values`). Which channel stands where is free as long as all who read them agree: the order of a
layer's output channels goes with the inputs of its readers. The sorted network is the same function; where an
accumulator overflows, its own order of the sums is part of it.
"""

from dataclasses import dataclass

import numpy as np

from ..kernels.mac import DIGIT_BITS
from .file import payload_digest
from .graph import MacNode, PlaneWeights
from .image import container_bits
from .layer import MacLayer
from .manifest import (
    AveragePoolNode,
    Conv2dNode,
    FlattenNode,
    GlobalAveragePoolNode,
    IntWeights,
    LinearNode,
    MaxPoolNode,
    Node,
    RequantiseNode,
    StrideSliceNode,
)
from .network import Network
from .weights import symbol_arrays

__all__ = ["SortedNetwork", "sorted_by_width"]

Carrier = MaxPoolNode | AveragePoolNode | GlobalAveragePoolNode | FlattenNode | StrideSliceNode | RequantiseNode
"""What hands the order of its input's channels on."""
PER_CHANNEL = ("bias", "zero", "multiplier", "shift", "thresholds", "descending", "out_widths")
"""Arrays with an entry for each output channel, or one for all."""


@dataclass(frozen=True, slots=True)
class SortedNetwork:
    """A network with sorted channels: channel k of a tensor in `orders` is channel ``orders[name][k]`` of its own."""

    network: Network
    orders: dict[str, np.ndarray]

    def own(self, name: str, channels: np.ndarray, axis: int) -> np.ndarray:
        """What the sorted network has by channels of a tensor, in the order of the network itself."""
        if name not in self.orders:
            return channels
        return np.take(channels, np.argsort(self.orders[name]), axis=axis)


def sorted_by_width(network: Network) -> SortedNetwork:
    """Sort the channels of every layer whose order nothing fixes; the same network where none changes.

    A layer's order is free if it has one group and all its readers are layers of one group without sign planes,
    straight or behind pools, flattening, slices or another grid. Sums, concatenations, depthwise and grouped layers,
    padded channels and the result fix it.
    """
    readers: dict[str, list[Node]] = {}
    for node in network.manifest.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)

    def free(name: str) -> bool:
        return name != network.output and all(
            free(node.name) if isinstance(node, Carrier) else _takes_any_order(node) for node in readers.get(name, [])
        )

    orders: dict[str, np.ndarray] = {}
    for node in network.manifest.nodes:
        match node:
            case Conv2dNode() | LinearNode():
                order = _order(network.layers[node.name])
                if order is not None and not (isinstance(node, Conv2dNode) and node.groups > 1) and free(node.name):
                    orders[node.name] = order
            case FlattenNode() if node.inputs[0] in orders:
                order = orders[node.inputs[0]]
                features = network.values[node.name].shape[0] // len(order)
                orders[node.name] = (order[:, None] * features + np.arange(features)).reshape(-1)
            case _ if isinstance(node, Carrier) and node.inputs[0] in orders:
                orders[node.name] = orders[node.inputs[0]]
    return SortedNetwork(_reordered(network, orders) if orders else network, orders)


def _takes_any_order(node: Node) -> bool:
    """Whether a node sums over all channels that it reads, and its weights may be put in another order."""
    if not isinstance(node, MacNode) or isinstance(node.weights, PlaneWeights):
        return False
    return not isinstance(node, Conv2dNode) or node.groups == 1


def _order(layer: MacLayer) -> np.ndarray | None:
    """The order of a layer's output channels that serves its rows and its readers' words; None where it has it.

    Wide rows come first, and the channels whose codes are wide are one range: wide rows with narrow codes, wide rows
    with wide codes, narrow rows with wide codes, the rest. Within these the weights' containers get narrower.
    """
    node = layer.node
    if isinstance(node.weights, PlaneWeights):
        return None
    rows = layer.row_widths if isinstance(node.weights, IntWeights) else np.zeros(len(layer.bias), dtype=np.int64)
    # Without widths of its own a tensor is the same in all channels.
    codes = node.out.bits - layer.fewer
    wide_rows, wide_codes = rows > DIGIT_BITS, (codes > DIGIT_BITS) & layer.fewer.any()
    middle = wide_rows & wide_codes
    # Wide codes begin with the first word where no narrow row has any.
    before = wide_rows & ~wide_codes if (wide_codes & ~wide_rows).any() else np.zeros_like(middle)
    place = np.select([before, middle, wide_rows, wide_codes], [0, 1, 2, 3], 4)
    containers = np.array([container_bits(max(1, bits)) for bits in rows.tolist()])
    order = np.lexsort((np.arange(len(rows)), -containers, place))
    return None if (order == np.arange(len(order))).all() else order


def _reordered(network: Network, orders: dict[str, np.ndarray]) -> Network:
    arrays = dict(network.arrays)
    for node in network.manifest.nodes:
        order, inputs = orders.get(node.name), orders.get(node.inputs[0])
        if isinstance(node, MacNode) and (order is not None or inputs is not None):
            layer = network.layers[node.name]
            assert not isinstance(node.weights, PlaneWeights)
            codes, widths = layer.codes, layer.row_widths
            if order is not None:
                codes, widths = codes[order], widths[order]
            if inputs is not None:
                codes = codes[:, inputs]
            stored = symbol_arrays(node.weights, codes, widths)
            arrays |= {f"{node.name}.{role}": array for role, array in stored.items()}
            if inputs is not None and f"{node.name}.align" in arrays:
                arrays[f"{node.name}.align"] = arrays[f"{node.name}.align"][inputs]
        if order is not None and isinstance(node, MacNode | RequantiseNode):
            for role in PER_CHANNEL:
                array = arrays.get(f"{node.name}.{role}")
                if array is not None and len(array) == len(order):
                    arrays[f"{node.name}.{role}"] = array[order]
    manifest = network.manifest.model_copy(update={"payload_sha256": payload_digest(arrays)})
    return Network(manifest, arrays)
