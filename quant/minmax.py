"""The naive baseline: every range from its least to its greatest value, nothing clipped or corrected."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .affine import SCALE_FLOOR, WeightSettings, quantize_weights, tensor_grid
from .graph import Clamping, Graph, Input, Layer, Node, Parameters
from .lowering import Grid, Quantizer, edge_layers, lower
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedTensor, QuantizedWeights
from .statistics import Statistics

__all__ = [
    "LayerBits",
    "MinMaxQuantizer",
    "MinMaxSettings",
    "least_error_clip",
    "minmax",
    "minmax_grid",
    "observed_range",
]

CLIP_SHARES = np.linspace(1, 0.3, 29)


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
class LayerBits:
    """Bits of each layer's weights and of the activations that it reads, by layer name."""

    weights: Mapping[str, int]
    activations: Mapping[str, int]

    @classmethod
    def uniform(cls, graph: Graph, weights: int, activations: int, edges: int) -> "LayerBits":
        """The same bits for all layers but the first and the last, which have `edges` of both."""
        outer = edge_layers(graph)
        names = [layer.name for layer in graph.layers]
        return cls(*({name: edges if name in outer else bits for name in names} for bits in (weights, activations)))


def least_error_clip(weight: np.ndarray, bits: int) -> np.ndarray:
    """Weights (grids, n) clipped where their grid between the clips has the least squared error.

    The clips are a share of both extremes, one of `CLIP_SHARES` for each grid.
    """
    low, high = weight.min(1, keepdims=True), weight.max(1, keepdims=True)
    greatest = (1 << bits) - 1
    best, least = weight, np.full_like(low, np.inf)
    for share in CLIP_SHARES:
        scale = np.maximum((high - low) * share / greatest, SCALE_FLOOR)
        zero_point = np.rint(-low * share / scale)
        rounded = (np.clip(np.rint(weight / scale + zero_point), 0, greatest) - zero_point) * scale
        error = ((rounded - weight) ** 2).sum(1, keepdims=True)
        best = np.where(error < least, np.clip(weight, low * share, high * share), best)
        least = np.minimum(error, least)
    return best


@dataclass(frozen=True, eq=False)
class MinMaxQuantizer(Quantizer):
    """Extremes as ranges, and the widths of each layer; `method` and its settings, `chosen`, are for the record.

    With `least_error` ranges of weights are the shares of their extremes that round with the least squared error.
    """

    spec: InputSpec
    statistics: Statistics
    bits: LayerBits
    per_channel_weights: bool
    method: str
    chosen: Mapping[str, object]
    least_error: bool = False

    @property
    def settings(self) -> Mapping[str, object]:
        """The method's settings."""
        return self.chosen

    def input_bits(self, layer: Layer) -> int:
        """The layer's own."""
        return self.bits.activations[layer.name]

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        """One step per tensor."""
        return minmax_grid(producers, bits, self.statistics, self.spec)

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights, np.ndarray]:
        """Asymmetric codes over the weights' range, in the layer or in each output channel."""
        bits, weight = self.bits.weights[layer.name], parameters.weight
        if self.least_error:
            grids = weight.reshape(layer.channels if self.per_channel_weights else 1, -1)
            weight = least_error_clip(grids, bits).reshape(weight.shape)
        settings = WeightSettings(per_channel=self.per_channel_weights)
        return quantize_weights(layer, Parameters(weight, parameters.bias), source, bits, settings), parameters.bias


def minmax(
    graph: Graph, spec: InputSpec, statistics: Statistics, settings: MinMaxSettings | None = None
) -> QuantizedGraph:
    """Quantise `graph` by the extremes of its weights and of its calibrated activations."""
    chosen = settings or MinMaxSettings()
    bits = LayerBits.uniform(graph, chosen.weight_bits, chosen.activation_bits, chosen.edge_bits)
    quantizer = MinMaxQuantizer(spec, statistics, bits, chosen.per_channel_weights, "minmax", asdict(chosen))
    return lower(graph, spec, quantizer)
