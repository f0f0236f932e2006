"""Pruned output channels: taken out of a network where nothing depends on the image in them.

A channel whose weights are all zero has one code at every pixel. It goes, and with it what its readers multiply it
by, whose sum is a constant that their bias takes in: exact, as long as none of the readers' widths overflows, which
`without_pruned` proves for an engine. Bayesian Bits prunes whole channels (van Baalen et al., "Bayesian Bits", NeurIPS
2020), and so do others whose sparsity is structured.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..kernels.nested import LayerBops
from ..kernels.requant import CONSTANT, ScaleRequantizer, ThresholdRequantizer, narrowed
from .arrays import array_form, check_arrays
from .bounds import layer_bounds
from .engine import EngineConfig
from .file import payload_digest
from .fixed_point import smallest_signed
from .graph import MacNode, PlaneWeights
from .layer import MacLayer
from .manifest import (
    AveragePoolNode,
    Conv2dNode,
    FlattenNode,
    GlobalAveragePoolNode,
    LinearNode,
    MaxPoolNode,
    ScaleRequant,
)
from .network import Network
from .weights import symbol_arrays

__all__ = ["constant_channels", "layer_bops", "pruned", "removed_channels", "without_pruned"]

CONSTANT_BITS = 32
"""Of a bias, fraction bits apart, that every accumulator of the default width holds."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """A layer of the array that reads a tensor, and how many of its inputs each of the tensor's channels has become."""

    layer: MacLayer
    features: int


def without_pruned(network: Network, engine: EngineConfig | None = None) -> Network:
    """The network without its constant channels; the same object where none can go.

    A channel goes where all who read it are convolutions of one group and linear layers, straight or through pools and
    flattening, and where its code is the tensor's zero point or none of them pads: padding feeds the zero point.
    One channel always stays. Layers of sign planes keep their inputs: a sign cannot be taken out of a coded stream.

    With an `engine` a layer's channels go where nothing can change on it: where no width of the layers concerned
    overflows, with the channels or without, whatever the image is. Without one it is the caller's to know.
    """
    if engine is not None:
        check_arrays(network, engine)
    for node in network.mac_nodes():
        less = _pruned(network, node)
        if less is not None and (engine is None or _same(network, less, node, engine)):
            return without_pruned(less, engine)
    return network


def _same(network: Network, less: Network, node: MacNode, engine: EngineConfig) -> bool:
    """Whether the engine computes the same in both, of which the second has fewer of one layer's channels."""
    readers = _readers(network, node.name)
    assert readers is not None
    names = {node.name, *(reader.layer.node.name for reader in readers)}
    return not any(
        layer_bounds(array_form(each.layers[name], engine.array), each.source(each.node(name)).codes).overflow(
            engine.mac
        )
        for name in names
        for each in (network, less)
    )


def pruned(network: Network, engine: EngineConfig, always: bool | None = None) -> Network:
    """The network without its constant channels always, never or, unless told, where nothing changes on the engine."""
    if always is None:
        return without_pruned(network, engine)
    return without_pruned(network) if always else network


def removed_channels(whole: Network, less: Network) -> dict[str, int]:
    """How many output channels of each layer one network has that the other lacks, where there are any."""
    counts = {node.name: node.channels - less.node(node.name).channels for node in whole.mac_nodes()}
    return {name: count for name, count in counts.items() if count}


def layer_bops(whole: Network, less: Network | None = None) -> dict[str, LayerBops]:
    """What each layer's BOPs come of; `less` is the network without some of the channels.

    Where channels have widths of their own the bits are the means of those that are left.
    """
    less = less or whole
    found = {}
    for node in whole.mac_nodes():
        shape, left = whole.layers[node.name].shape, less.layers[node.name]
        w_bits, a_bits = (Fraction(int(widths.sum()), len(widths)) for widths in (left.row_widths, left.lane_widths))
        found[node.name] = LayerBops(
            whole.macs(node),
            w_bits,
            a_bits,
            Fraction(left.shape.out_channels, shape.out_channels),
            Fraction(left.shape.in_channels, shape.in_channels),
        )
    return found


def constant_channels(layer: MacLayer) -> tuple[np.ndarray, np.ndarray]:
    """Which output channels (out,) do not depend on the input, and the code of each, where it does not.

    They have only zero weights, and a zero-point constant of 0, or codes of 0 bits.
    """
    node = layer.node
    constant = (layer.weights == 0).all(axis=(1, 2, 3)) & (layer.zero == 0)
    if isinstance(node.weights, PlaneWeights):
        constant[:] = False
    constant |= layer.fewer == CONSTANT
    bits = 48
    values = layer.bias[None, :, None, None]
    if layer.scale is not None and isinstance(node.requant, ScaleRequant):
        requant = node.requant
        unit = ScaleRequantizer(bits, requant.multiplier_bits, requant.rounding, node.out.bits, node.out.signed)
        codes, _ = unit.compute(
            values,
            layer.scale.multiplier,
            layer.scale.shift,
            node.out.zero_point,
            *(narrowed(end, layer.fewer) for end in (requant.low, requant.high)),
        )
    else:
        assert layer.thresholds is not None
        assert layer.descending is not None
        unit_of_thresholds = ThresholdRequantizer(bits, node.out.bits, node.out.signed)
        codes = unit_of_thresholds.compute(values, layer.thresholds, layer.descending)
    return constant, codes[0, :, 0, 0].astype(np.int64)


def _pruned(network: Network, node: MacNode) -> Network | None:
    """The network without what can go of one layer's channels; None where nothing can."""
    readers = _readers(network, node.name)
    if node.out.planes is not None:
        return None
    if node.name == network.output or readers is None or (isinstance(node, Conv2dNode) and node.groups > 1):
        return None
    goes, codes = constant_channels(network.layers[node.name])
    if any(isinstance(reader.layer.node, Conv2dNode) and any(reader.layer.node.padding) for reader in readers):
        goes &= codes == node.out.zero_point
    if goes.all():
        goes[0] = False
    arrays = dict(network.arrays)
    for reader in readers:
        gone = np.repeat(goes, reader.features)
        biases = _absorbed(reader.layer, gone, np.repeat(codes, reader.features))
        if np.abs(biases).max() >> (CONSTANT_BITS - 1 + reader.layer.node.fraction):
            return None
        name = reader.layer.node.name
        arrays |= _weights(reader.layer, reader.layer.codes[:, ~gone], reader.layer.row_widths)
        arrays[f"{name}.bias"] = smallest_signed(biases)
        if f"{name}.align" in arrays:
            arrays[f"{name}.align"] = arrays[f"{name}.align"][~gone]
    if not goes.any():
        return None
    layer = network.layers[node.name]
    if f"{node.name}.weight" in arrays:
        arrays |= _weights(layer, layer.codes[~goes], layer.row_widths[~goes])
    for role in ("bias", "zero", "multiplier", "shift", "thresholds", "descending", "out_widths"):
        key = f"{node.name}.{role}"
        if key in arrays and len(arrays[key]) == len(goes):
            arrays[key] = arrays[key][~goes]
    kept = node.model_copy(update={"channels": int((~goes).sum())})
    nodes = tuple(kept if each.name == node.name else each for each in network.manifest.nodes)
    manifest = network.manifest.model_copy(update={"nodes": nodes, "payload_sha256": payload_digest(arrays)})
    return Network(manifest, arrays)


def _readers(network: Network, name: str) -> list[_Reader] | None:
    """The layers that read a tensor; None where anything else does."""
    found: list[_Reader] = []
    for node in network.manifest.nodes:
        if name not in node.inputs:
            continue
        match node:
            case Conv2dNode() | LinearNode():
                layer = network.layers[node.name]
                if layer.shape.groups > 1 or isinstance(node.weights, PlaneWeights):
                    return None
                found.append(_Reader(layer, 1))
            case MaxPoolNode() | AveragePoolNode() | GlobalAveragePoolNode() | FlattenNode():
                behind = _readers(network, node.name)
                if behind is None or node.name == network.output:
                    return None
                height, width = network.values[name].shape[1:]
                features = height * width if isinstance(node, FlattenNode) else 1
                found += [_Reader(reader.layer, reader.features * features) for reader in behind]
            case _:
                return None
    return found


def _absorbed(layer: MacLayer, gone: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Biases with what the inputs that go have always added: int64 (out,)."""
    constants = codes[gone] * layer.factors[gone].astype(np.int64)
    taps = layer.weights.shape[2] * layer.weights.shape[3]
    sums = layer.weights[:, gone].astype(np.int64).sum(axis=(2, 3)) @ constants
    return np.asarray(layer.bias + (sums << layer.node.fraction) - layer.zero * int(constants.sum()) * taps)


def _weights(layer: MacLayer, codes: np.ndarray, widths: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a layer's codes, coded as its own are."""
    spec, name = layer.node.weights, layer.node.name
    assert not isinstance(spec, PlaneWeights)
    return {f"{name}.{role}": array for role, array in symbol_arrays(spec, codes, widths).items()}
