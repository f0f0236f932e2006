"""What channels of different widths cost and save: a layer beside itself with all channels at one width."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..kernels.digits import digit_count
from ..kernels.packing import packed_bytes
from .cycles import layer_cycles
from .engine import EngineConfig
from .image import container_bits
from .lowered import LoweredLayer
from .network import Network
from .tile_times import with_taper

__all__ = ["MixedLayer", "mixed_layers"]


@dataclass(frozen=True, slots=True)
class MixedLayer:
    """A layer of mixed widths: its cycles, bus bytes of an image and stored weight bytes, and those at one width.

    `greatest` is with all weights and activations at the greatest width of theirs, `mean` at the mean one, rounded up.
    `weight_bits` and `activation_bits` are the means themselves, over output and input channels. Stored bytes are
    those of the weights with their widths and code tables; at one width, of packed codes.
    """

    weight_bits: float
    activation_bits: float
    cycles: int
    cycles_greatest: int
    cycles_mean: int
    bytes_read: int
    bytes_read_greatest: int
    bytes_read_mean: int
    stored_bytes: int
    stored_bytes_greatest: int
    stored_bytes_mean: int

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return asdict(self)


def mixed_layers(network: Network, layers: Sequence[LoweredLayer], engine: EngineConfig) -> dict[str, MixedLayer]:
    """The layers of mixed widths of a lowered network, by name.

    The sign and shift arrays run weights at their greatest width anyway: there `mean` is of the activations alone. With
    a decoder all three have the layer's own code words, which have other lengths than codes of one width would have.
    """
    found = {}
    for layer in layers:
        if layer.mac is None or not layer.mac.mixed:
            continue
        rows, lanes = layer.mac.row_widths, layer.mac.lane_widths
        means = float(rows.mean()), float(lanes.mean())
        widths = [(int(rows.max()), int(lanes.max())), (int(np.ceil(means[0])), int(np.ceil(means[1])))]
        own = layer_cycles(layer, engine)
        greatest, mean = (layer_cycles(_at_one_width(layer, engine, *each), engine) for each in widths)
        stored = (network.arrays.get(f"{layer.name}.{role}") for role in ("weight", "huffman", "widths"))
        found[layer.name] = MixedLayer(
            *means,
            own.total,
            greatest.total,
            mean.total,
            own.bytes_read,
            greatest.bytes_read,
            mean.bytes_read,
            sum(array.nbytes for array in stored if array is not None),
            *(packed_bytes(layer.mac.codes.size, max(1, bits)) for bits, _ in widths),
        )
    return found


def _at_one_width(layer: LoweredLayer, engine: EngineConfig, weight_bits: int, activation_bits: int) -> LoweredLayer:
    """The layer's registers with all channels at these widths."""
    one: dict[str, int] = {"a_top": digit_count(max(1, activation_bits)) - 1}
    if engine.array == "digit":
        one |= {
            "w_top": digit_count(max(1, weight_bits)) - 1,
            "container": container_bits(max(1, weight_bits)).bit_length() - 1,
        }
    registers = {**layer.registers, **one}
    for name in ("rest_from", "rest_container", "wide_first", "wide_end"):
        registers.pop(name, None)
    return with_taper(replace(layer, registers=registers), engine)
