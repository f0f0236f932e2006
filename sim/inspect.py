"""What is in a network file: graph, widths, bytes by layer, compression against float32."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.errors import UnsupportedError
from ..kernels.huffman import entropy
from ..kernels.nested import bops, relative_bops
from .arrays import SCHEMES, array_form, default_engine
from .bounds import layer_bounds
from .engine import EngineConfig
from .file import dump_manifest, load
from .graph import MacNode, Value
from .manifest import IntWeights, Node, XorWeights
from .network import Network
from .prune import layer_bops, removed_channels, without_pruned
from .weights import Symbols, huffman_code, least_code

__all__ = ["Inspection", "NodeFacts", "WeightFacts", "inspect_file", "spread"]

SCHEMA = 1
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """The weights of a layer as they are stored.

    `bits` are those of a code or, for sign planes, their number: what a weight takes when it is decoded.
    """

    scheme: str
    coding: str
    bits: int
    bits_per_weight: float
    """Of the coded bytes: with end mark and spare bits, without code table, coefficients or XOR networks."""
    code_bits: float | None = None
    """Average length of a Huffman code word."""
    entropy: float | None = None
    """Of the Huffman-coded codes, bits: what no code of single weights goes below."""
    xor_bits: float | None = None
    """Encrypted bits for each weight that the XOR networks give, all planes together."""
    widths: list[int] | None = None
    """Output channels whose weights have 0, 1, ..., 8 bits, where they have different ones."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: what it makes and what it stores."""

    name: str
    op: str
    inputs: tuple[str, ...]
    value: Value
    macs: int
    weights: int
    stored: WeightFacts | None
    coded_bytes: int
    parameter_bytes: int
    bops: int
    widths: list[int] | None = None
    """Channels of the output whose codes have 0, 1, ..., 8 bits, where they have different ones."""
    margins: dict[str, int | None] | None = None
    """Bits to spare in product, align, acc and post, of the channel that has least: `bounds.Margins.least`."""

    @property
    def weight_bits(self) -> int:
        """Bits of a decoded weight; 0 without weights."""
        return self.stored.bits if self.stored else 0

    @property
    def detail(self) -> str:
        """Shape and codes of the output, for a table."""
        channels, height, width = self.value.shape
        codes = self.value.codes
        kind = f"{'s' if codes.signed else 'u'}{spread(self.widths) or codes.bits}"
        if codes.planes is not None:
            kind = f"{codes.bits} of {'-1, +1' if codes.planes.signs else '0, 1'}"
        return f"{channels} x {height} x {width} {kind}"


@dataclass(frozen=True)
class Inspection:
    """A file's three figures, never mixed: file bytes, coded weight bytes, parameter bytes."""

    network: Network
    path: str
    file_bytes: int
    manifest_bytes: int
    nodes: list[NodeFacts]
    engine: EngineConfig
    """Whose array and datapath the margins are of: the default engine that runs the network."""

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(node.weights for node in self.nodes)

    @property
    def float_bytes(self) -> int:
        """The same weights and biases as float32."""
        biases = sum(node.channels for node in self.network.mac_nodes())
        return FLOAT_BYTES * (self.weights + biases)

    @property
    def bops(self) -> int:
        """Bit operations by the formula of Bayesian Bits, constant channels included."""
        return sum(node.bops for node in self.nodes)

    @property
    def relative_bops(self) -> float:
        """The same as a share of those in 32 x 32 bits."""
        return relative_bops(list(layer_bops(self.network).values())) if self.network.layers else 0.0

    @cached_property
    def without_pruned(self) -> Network:
        """The network without channels that do not depend on the image."""
        return without_pruned(self.network)

    @property
    def constant_channels(self) -> dict[str, int]:
        """How many of these each layer has, where it has any."""
        return removed_channels(self.network, self.without_pruned)

    @property
    def pruned_bops(self) -> int:
        """Bit operations without these."""
        return int(bops(layer_bops(self.network, self.without_pruned).values()))

    @property
    def coded_bytes(self) -> int:
        """Encoded weights."""
        return sum(node.coded_bytes for node in self.nodes)

    @property
    def compression(self) -> float:
        """Float32 bytes over file bytes."""
        return self.float_bytes / self.file_bytes

    @property
    def bits_per_weight(self) -> float:
        """Encoded bits per weight."""
        return 8 * self.coded_bytes / self.weights if self.weights else 0.0

    def to_json(self) -> dict[str, Any]:
        """The documented JSON object of ``gatewise inspect --json``."""
        return {
            "schema": SCHEMA,
            "network": self.network.name,
            "scheme": self.network.scheme,
            "file_bytes": self.file_bytes,
            "manifest_bytes": self.manifest_bytes,
            "coded_bytes": self.coded_bytes,
            "float32_bytes": self.float_bytes,
            "compression": self.compression,
            "weights": self.weights,
            "bits_per_weight": self.bits_per_weight,
            "macs": sum(node.macs for node in self.nodes),
            "bops": self.bops,
            "relative_bops": self.relative_bops,
            "constant_channels": self.constant_channels,
            "pruned_bops": self.pruned_bops,
            "provenance": dict(self.network.manifest.provenance),
            "layers": [
                {
                    "name": node.name,
                    "op": node.op,
                    "inputs": list(node.inputs),
                    "shape": list(node.value.shape),
                    "bits": node.value.codes.bits,
                    "signed": node.value.codes.signed,
                    "planes": node.value.codes.planes and node.value.codes.planes.model_dump(mode="json"),
                    "macs": node.macs,
                    "bops": node.bops,
                    "weights": node.weights,
                    "weight_bits": node.weight_bits,
                    "scheme": node.stored and node.stored.scheme,
                    "coding": node.stored and node.stored.coding,
                    "bits_per_weight": node.stored and node.stored.bits_per_weight,
                    "code_bits": node.stored and node.stored.code_bits,
                    "entropy": node.stored and node.stored.entropy,
                    "xor_bits": node.stored and node.stored.xor_bits,
                    "weight_widths": node.stored and node.stored.widths,
                    "widths": node.widths,
                    "coded_bytes": node.coded_bytes,
                    "parameter_bytes": node.parameter_bytes,
                    "margin_bits": node.margins,
                }
                for node in self.nodes
            ],
        }


def inspect_file(path: str | Path) -> Inspection:
    """Read a ``.gw`` file and account for its bytes."""
    network = load(path)
    engine = default_engine(network)
    nodes = [_facts(network, node, engine) for node in network.manifest.nodes]
    manifest_bytes = len(dump_manifest(network.manifest))
    return Inspection(network, str(path), Path(path).stat().st_size, manifest_bytes, nodes, engine)


def _facts(network: Network, node: Node, engine: EngineConfig) -> NodeFacts:
    sizes = {name: array.nbytes for name, array in network.arrays.items() if name.rpartition(".")[0] == node.name}
    coded = sizes.pop(f"{node.name}.weight", 0)
    value, stored, macs, weights, operations = network.values[node.name], None, 0, 0, 0
    margins = None
    if isinstance(node, MacNode):
        macs, weights = network.macs(node), network.layers[node.name].codes.size
        operations = int(bops([layer_bops(network)[node.name]]))
        stored = _weight_facts(network, node, 8 * coded / weights)
        margins = _margins(network, node, engine)
    return NodeFacts(
        node.name,
        node.op,
        node.inputs,
        value,
        macs,
        weights,
        stored,
        coded,
        sum(sizes.values()),
        operations,
        _channels_by_bits(network.widths.get(node.name)),
        margins,
    )


def _margins(network: Network, node: MacNode, engine: EngineConfig) -> dict[str, int | None] | None:
    """Least margins of a layer; None where the engine's array does not run it."""
    layer = network.layers[node.name]
    if layer.node.weights.scheme not in SCHEMES[engine.array]:
        return None
    try:
        form = array_form(layer, engine.array)
    except UnsupportedError:
        return None
    return layer_bounds(form, network.source(node).codes).margins(engine.mac).least


def _channels_by_bits(widths: np.ndarray | None) -> list[int] | None:
    """How many channels have 0, 1, ..., 8 bits."""
    return None if widths is None else np.bincount(widths, minlength=9).tolist()


def spread(channels: list[int] | None) -> str:
    """Least and greatest width of channels by bits, for a table; nothing where they have no widths of their own."""
    used = [bits for bits, count in enumerate(channels or []) if count]
    return "..".join(str(bits) for bits in dict.fromkeys((used[0], used[-1]))) if used else ""


def _weight_facts(network: Network, node: MacNode, bits_per_weight: float) -> WeightFacts:
    spec = node.weights
    facts = spec.scheme, "raw", spec.bits, bits_per_weight
    widths = None
    if isinstance(spec, IntWeights) and spec.widths:
        widths = _channels_by_bits(network.layers[node.name].row_widths)
    if isinstance(spec, XorWeights):
        specs = [network.manifest.xor_networks[name] for name in spec.planes]
        return WeightFacts(*facts, xor_bits=sum(each.n_in / each.n_out for each in specs))
    if not isinstance(spec, Symbols) or spec.coding == "raw":
        return WeightFacts(*facts, widths=widths)
    symbols = network.layers[node.name].codes.astype(np.int64).reshape(-1) - least_code(spec)
    counts = np.bincount(symbols, minlength=1 << spec.bits)
    code = huffman_code(spec, network.arrays[f"{node.name}.huffman"])
    return WeightFacts(
        spec.scheme, spec.coding, spec.bits, bits_per_weight, code.average_bits(counts), entropy(counts), widths=widths
    )
