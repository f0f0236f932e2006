"""Fixed point: symmetric codes whose steps are powers of two, in every layer: what FPGAs have run for a decade.

The baseline that the Focused Quantization paper compares its gates with and gives no row for. No paper is its source;
these are our choices: weights have one power of two for a layer, batch norm folded in, and the least that clips none;
activations have one for a tensor, over what calibration saw, unsigned where no value is negative, else signed. First
and last layers are as the others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..kernels.mac import signed_range
from .affine import live_scales
from .graph import Graph, Layer, Node, Parameters
from .lowering import INPUT_BITS, Grid, Quantizer, lower
from .minmax import observed_range
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedTensor, QuantizedWeights
from .settings import check_ranges
from .statistics import Statistics

__all__ = ["Fixed8Settings", "fixed8"]


@dataclass(frozen=True)
class Fixed8Settings:
    """Bits of weights and activations, 2..8; the network's input has 8."""

    weight_bits: int = 8
    activation_bits: int = 8

    def __post_init__(self) -> None:
        check_ranges(self, weight_bits=(2, 8), activation_bits=(2, 8))


def power_of_two_step(low: float, high: float, least: int, greatest: int) -> float:
    """The least power of two whose codes least..greatest reach from `low` to `high`.

    >>> power_of_two_step(-1.0, 0.9, -128, 127)
    0.0078125
    """
    needed = max(-low / -least if least else 0.0, high / greatest, 2.0**-40)
    return 2.0 ** math.ceil(math.log2(needed))


@dataclass(frozen=True, eq=False)
class _Fixed8(Quantizer):
    graph: Graph
    spec: InputSpec
    statistics: Statistics
    chosen: Fixed8Settings
    method = "fixed8"

    @property
    def settings(self) -> Mapping[str, object]:
        return asdict(self.chosen)

    def input_bits(self, layer: Layer) -> int:
        reads_input = layer.inputs[0] == self.graph.input.name
        return INPUT_BITS if reads_input else self.chosen.activation_bits

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        low, high = observed_range(producers, self.statistics, self.spec)
        signed = low < 0
        ends = signed_range(bits) if signed else (0, (1 << bits) - 1)
        amounts = np.zeros(sum(node.channels for node in producers), dtype=np.int64)
        return Grid(bits, signed, power_of_two_step(low, high, *ends), 0, amounts)

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights, np.ndarray]:
        weight, bits = parameters.weight, self.chosen.weight_bits
        most = signed_range(bits)[1]
        step = power_of_two_step(float(weight.min(initial=0)), float(weight.max(initial=0)), -most, most)
        scales, live = live_scales(np.full(len(weight), step), parameters.bias, source)
        codes = np.clip(np.rint(weight / step), -most, most) * live.reshape(-1, *(1,) * (weight.ndim - 1))
        return QuantizedWeights(bits, codes.astype(np.int16), scales, np.zeros(len(weight)), 0), parameters.bias


def fixed8(
    graph: Graph, spec: InputSpec, statistics: Statistics, settings: Fixed8Settings | None = None
) -> QuantizedGraph:
    """Quantise `graph` to fixed point with the calibration `statistics` of its nodes."""
    return lower(graph, spec, _Fixed8(graph, spec, statistics, settings or Fixed8Settings()))
