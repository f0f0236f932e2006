"""INQ: plain powers of two, by incremental quantisation (Zhou, Yao, Guo, Xu, Chen, ICLR 2017).

A layer's b-bit weights are 0 or ``+-2**n`` with n from n2 to n1: ``n1 = floor(log2(4 s / 3))`` of its greatest
magnitude s and ``n2 = n1 + 1 - 2**(b - 1) / 2`` (section 2.1; one bit is for zero, so 4 bits are 4 magnitudes and 5
bits 8). A weight goes to the nearest of them, at 1.5 times a power of two to the greater, up to half of the least to
0. Weights are quantised in portions, the greatest of each layer first, while the others train on (section 2.2).

The weights are a layer's own, without batch norm, whose gain is a scale for each output channel. The paper quantises
all layers and leaves activations in floating point; here they have uniform steps over what calibration saw, and the
first and last layers are 8-bit integers, as for all methods. It stops when the last portion is quantised: here the
epochs after that train batch norms and biases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..kernels.errors import FormatError
from ..kernels.shift import ShiftFormat, nearest_codes
from .affine import WeightSettings, live_scales, quantize_weights
from .graph import Graph, Layer, Node, Parameters
from .incremental import Portions, portion_at
from .lowering import EdgeQuantizer, Grid, edge_layers, lower
from .minmax import minmax_grid
from .preprocess import InputSpec
from .quantized import EncodedWeights, QuantizedGraph, QuantizedLayer, QuantizedTensor, QuantizedWeights
from .settings import check_ranges
from .statistics import Statistics
from .trainable import ByName, TrainableGraph
from .training import TrainingSettings
from .uniform import UniformTraining

__all__ = ["InqSettings", "InqTraining", "greatest_exponent"]


@dataclass(frozen=True)
class InqSettings:
    """Settings of INQ.

    Parameters
    ----------
    weight_bits : 2..6: zero, sign and ``weight_bits - 2`` bits of exponent
    activation_bits : 1..8
    edge_bits : of weights and activations of the first and last layers
    portions : shares of the weights that are quantised by the end of each phase, joined by commas; the phases have the
        same number of epochs, and with the last begins the training of batch norms alone
    """

    weight_bits: int = 5
    activation_bits: int = 8
    edge_bits: int = 8
    portions: str = "0.5,0.75,0.875,1"

    def __post_init__(self) -> None:
        check_ranges(self, weight_bits=(2, 6), activation_bits=(1, 8), edge_bits=(1, 8))
        portion_at(self.shares, 0, 1)

    @property
    def shares(self) -> tuple[float, ...]:
        """`portions` as numbers."""
        try:
            return tuple(float(part) for part in self.portions.split(","))
        except ValueError as error:
            raise FormatError(f"portions must be numbers joined by commas, not {self.portions!r}") from error

    @property
    def exponent_bits(self) -> int:
        """Of a code in the file."""
        return self.weight_bits - 2


def greatest_exponent(weight: Tensor) -> int:
    """``n1`` of a layer's weights."""
    greatest = float(weight.abs().max())
    return int(np.floor(np.log2(4 * greatest / 3))) if greatest > 0 else 0


def powers_of_two(weight: np.ndarray, greatest: int, exponent_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs -1, 0, 1 and exponents, both int64, of the nearest powers of two up to ``2**greatest``."""
    fmt = ShiftFormat(exponent_bits)
    bias = (1 << exponent_bits) - 1 - greatest
    fields = fmt.split(nearest_codes(weight, fmt, bias))
    return fields.sign.astype(np.int64), fields.exponent.astype(np.int64) - bias


@dataclass(frozen=True, eq=False)
class _Inq(EdgeQuantizer):
    """Of an unfolded graph."""

    chosen: InqSettings
    exponents: Mapping[str, int]
    method = "inq"

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        return minmax_grid(producers, bits, self.statistics, self.spec)

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights | EncodedWeights, np.ndarray]:
        if layer.name in self.edges:
            return quantize_weights(layer, parameters, source, self.chosen.edge_bits, WeightSettings()), parameters.bias
        weight = self.graph.parameters[layer.name].weight
        gain = self.graph.folded().gains.get(layer.name, np.ones(len(weight)))
        sign, exponent = powers_of_two(weight, self.exponents[layer.name], self.chosen.exponent_bits)
        # A near-dead channel is one whose greatest weight would be: its scale is that of the least power of two.
        unit = 2.0 ** (self.exponents[layer.name] + 1 - (1 << self.chosen.exponent_bits))
        scales, live = live_scales(np.abs(gain) * unit, parameters.bias, source)
        axes = (-1, *(1,) * (weight.ndim - 1))
        sign = sign * (live * np.where(gain < 0, -1, 1)).reshape(axes)
        return EncodedWeights.shift(sign, exponent, scales / unit, self.chosen.exponent_bits), parameters.bias


class InqTraining(UniformTraining):
    """INQ in training: activations on the grids of the first calibration, weights quantised portion by portion."""

    def __init__(self, graph: Graph, spec: InputSpec, settings: InqSettings, training: TrainingSettings) -> None:
        super().__init__(self._lower, spec, training.refresh)
        self.chosen = settings
        self.edges = edge_layers(graph)
        self.unfolded = graph
        self.exponents = {
            layer.name: greatest_exponent(torch.from_numpy(graph.parameters[layer.name].weight))
            for layer in graph.layers
        }
        self.portions = ByName(
            {
                layer.name: Portions(torch.from_numpy(graph.parameters[layer.name].weight.astype(np.float32)))
                for layer in graph.layers
                if layer.name not in self.edges
            }
        )

    def _lower(self, graph: Graph, spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        method = _Inq(self.unfolded, spec, statistics, self.chosen, self.edges, self.exponents)
        return lower(graph, spec, method)

    def _lowered(self, network: TrainableGraph) -> QuantizedGraph:
        self.unfolded = network.graph()
        return super()._lowered(network)

    def _extend(self, network: TrainableGraph, share: float) -> None:
        for layer in network.structure.layers:
            if layer.name in self.portions:
                weight = network.weight(layer)
                sign, exponent = powers_of_two(
                    weight.cpu().numpy(), self.exponents[layer.name], self.chosen.exponent_bits
                )
                quantised = torch.from_numpy(np.ldexp(sign, exponent)).to(weight)
                self.portions[layer.name].extend(weight, quantised, share)
                self.portions[layer.name].hold(weight)

    def begin_epoch(self, network: TrainableGraph, epoch: int, epochs: int) -> None:
        """Quantise the portion of this epoch."""
        super().begin_epoch(network, epoch, epochs)
        self._extend(network, portion_at(self.chosen.shares, epoch, epochs))

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        """The weights as they are, in part powers of two."""
        return weight if layer.name in self.portions else super().weight(layer, weight, gain)

    def end_step(self, network: TrainableGraph) -> None:
        """Bring back what is quantised."""
        for layer in network.structure.layers:
            if layer.name in self.portions:
                self.portions[layer.name].hold(network.weight(layer))

    def end(self, network: TrainableGraph) -> None:
        """Quantise what is left."""
        self._extend(network, 1.0)

    def with_weights(self, layer: QuantizedLayer, network: TrainableGraph, graph: Graph) -> QuantizedLayer:
        """The powers of two, with the gain of the end."""
        if layer.name not in self.portions:
            return super().with_weights(layer, network, graph)
        method = _Inq(network.graph(), self.spec, {}, self.chosen, self.edges, self.exponents)
        assert isinstance(layer.op, Layer)
        weights, bias = method.layer_weights(
            layer.op, graph.parameters[layer.name], self.first.tensors[layer.inputs[0]]
        )
        return replace(layer, weights=weights, bias=bias)
