"""The naive baseline: every range from its least to its greatest value, nothing clipped or corrected."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .affine import WeightSettings, quantize_weights, tensor_grid
from .graph import Clamping, Graph, Input, Layer, Node, Parameters
from .lowering import Grid, Quantizer, edge_layers, lower, stream_grid
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedTensor, QuantizedWeights
from .statistics import Statistics

__all__ = ["MinMaxSettings", "minmax", "minmax_grid", "observed_range"]


@dataclass(frozen=True)
class MinMaxSettings:
    """Bits of weights and activations; the first and last layers have `edge_bits` of both."""

    weight_bits: int = 4
    activation_bits: int = 4
    edge_bits: int = 8
    per_channel_weights: bool = False


def observed_range(producers: Sequence[Node], statistics: Statistics, spec: InputSpec) -> tuple[float, float]:
    """Least and greatest value that calibration saw behind the clamps; of every uint8 image for the input."""
    lows, highs = [], []
    for node in producers:
        if isinstance(node, Input):
            low, high = spec.range
        else:
            seen = statistics[node.name].tensor
            low, high = float(seen.min[0]), float(seen.max[0])
        if isinstance(node, Clamping):
            low, high = (min(max(end, node.low), node.high) for end in (low, high))
        lows.append(low)
        highs.append(high)
    return min(lows), max(highs)


def minmax_grid(producers: Sequence[Node], bits: int, statistics: Statistics, spec: InputSpec) -> Grid:
    """One unsigned grid for all channels, over what calibration saw; over every uint8 image for the input."""
    scale, zero_point = tensor_grid(*observed_range(producers, statistics, spec), bits)
    return Grid(bits, False, scale, zero_point, np.zeros(sum(node.channels for node in producers), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class _MinMax(Quantizer):
    graph: Graph
    spec: InputSpec
    statistics: Statistics
    chosen: MinMaxSettings
    edges: frozenset[str]
    method = "minmax"

    @property
    def settings(self) -> Mapping[str, object]:
        return asdict(self.chosen)

    def input_bits(self, layer: Layer) -> int:
        return self.chosen.edge_bits if layer.name in self.edges else self.chosen.activation_bits

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        return minmax_grid(producers, bits, self.statistics, self.spec)

    def stream_grid(self, producers: Sequence[Node]) -> Grid:
        return stream_grid(producers, self.statistics)

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights, np.ndarray]:
        bits = self.chosen.edge_bits if layer.name in self.edges else self.chosen.weight_bits
        weights = quantize_weights(
            layer, parameters, source, bits, WeightSettings(per_channel=self.chosen.per_channel_weights)
        )
        return weights, parameters.bias


def minmax(
    graph: Graph, spec: InputSpec, statistics: Statistics, settings: MinMaxSettings | None = None
) -> QuantizedGraph:
    """Quantise `graph` by the extremes of its weights and of its calibrated activations."""
    return lower(graph, spec, _MinMax(graph, spec, statistics, settings or MinMaxSettings(), edge_layers(graph)))
