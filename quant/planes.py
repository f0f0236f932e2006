"""Activations of planes and weights of sign planes: what LQ-Net and ABC-Net have in common.

An activation is quantised by thresholds and levels: a value that reaches so many thresholds has that level. Levels
are sums of plane coefficients; ABC-Net's have a constant besides, so that the lowest is 0 as behind a ReLU, and the
constant goes to the biases of the layers that read it. A copy of a 16-bit stream (what an add writes) comes to its
level by equal steps in hardware, 15 at most: thresholds of such tensors go to the nearest that equal steps have.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.errors import FormatError, UnsupportedError
from ..sim.plane_basis import PlaneBasis
from .affine import WeightSettings, quantize_weights, rounded_weights
from .graph import Clamping, Graph, Layer, Node, Parameters
from .lowering import EdgeSettings, Grid, Quantizer, Read, edge_layers, lower, reads
from .minmax import minmax_grid
from .preprocess import InputSpec
from .quantized import EncodedWeights, QuantizedGraph, QuantizedTensor, QuantizedWeights
from .statistics import Statistics
from .trainable import ByName, FakeQuantizer, TrainableGraph, folded_weight, straight_through

__all__ = ["PlaneActivation", "PlaneTraining", "SignPlanes", "stepped"]

FIT_VALUES = 1 << 18
"""Values of a tensor that its levels are fitted to before training, at most: evenly drawn from all."""
CODES_OF_STREAM = 1 << 14
"""Steps between 0 and the greatest threshold that a stream has, at the least."""
LEAST_BIAS_SCALE = 2.0**-28
"""Of a bias: a channel whose weights' scale is less is near dead."""


def stepped(basis: PlaneBasis) -> tuple[float, ...]:
    """The thresholds of a basis where equal steps have to do."""
    greatest = max(map(abs, basis.thresholds)) or 1.0
    counts = basis.uniform(greatest / CODES_OF_STREAM)
    changes = [
        at for at in range(1, len(counts.table)) for _ in range(_rises(basis.words, counts.table[at - 1 : at + 1]))
    ]
    return tuple((at - counts.zero - 0.5) * counts.step for at in changes)


def _rises(words: Sequence[int], pair: Sequence[int]) -> int:
    """How many thresholds lie between two words that follow one another in a table."""
    return words.index(pair[1]) - words.index(pair[0])


class PlaneActivation(nn.Module):
    """One tensor's levels and thresholds in training; a method says how they change.

    Once `fixed`, thresholds are those that hardware has, and nothing changes any more.
    """

    met: Tensor

    def __init__(self, thresholds: int, direct: bool) -> None:
        super().__init__()
        self.direct = direct
        self.fixed = False
        self.register_buffer("met", torch.zeros(thresholds))

    @abstractmethod
    def fit(self, values: Tensor) -> None:
        """Choose what training begins with."""

    @abstractmethod
    def basis(self) -> PlaneBasis:
        """The tensor's basis as it is now."""

    @property
    def offset(self) -> float:
        """What levels are greater by than their words are worth."""
        return 0.0

    def fix(self) -> None:
        """Change no more, and meet the thresholds that hardware has."""
        if not self.fixed:
            basis = self.basis()
            thresholds = basis.thresholds if self.direct else stepped(basis)
            self.met.copy_(torch.tensor(thresholds, dtype=torch.float64))
            self.fixed = True


@dataclass(frozen=True, eq=False)
class SignPlanes:
    """A layer's weights as sign planes: signs int64 (planes, out, ...) of -1 and 1, coefficients float64 (planes,
    out)."""

    signs: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True, eq=False)
class _Planes(Quantizer):
    training: "PlaneTraining"
    graph: Graph
    """Unfolded."""
    spec: InputSpec
    statistics: Statistics
    gains: Mapping[str, np.ndarray]

    @property
    def method(self) -> str:  # type: ignore[override]
        """The method's name."""
        return self.training.name

    @property
    def planes(self) -> int:  # type: ignore[override]
        """Of activations."""
        return self.training.planes

    @property
    def settings(self) -> Mapping[str, object]:
        return asdict(self.training.chosen)

    def input_bits(self, layer: Layer) -> int:
        return self.training.input_bits(layer)

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        if bits != self.training.planes:
            return minmax_grid(producers, bits, self.statistics, self.spec)
        activation = self.training.activation_of(tuple(node.name for node in producers))
        return Grid.of_planes(activation.basis(), sum(node.channels for node in producers))

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights | EncodedWeights, np.ndarray]:
        training = self.training
        if layer.name in training.edges:
            return quantize_weights(layer, parameters, source, training.edge_bits, WeightSettings()), parameters.bias
        weight = self.graph.parameters[layer.name].weight
        gain = self.gains.get(layer.name, np.ones(len(weight)))
        planes = training.sign_planes(layer, weight)
        real = (planes.alpha.reshape(*planes.alpha.shape, *(1,) * (weight.ndim - 1)) * planes.signs).sum(axis=0)
        offset = training.activation_of(training.reads[layer.name].producers).offset
        bias = parameters.bias + offset * gain * real.reshape(len(real), -1).sum(axis=1)
        scales = np.abs(gain)
        floor = np.maximum(np.abs(bias) * LEAST_BIAS_SCALE, np.finfo(np.float32).tiny)
        live = scales * np.abs(planes.alpha).max(axis=0) >= floor
        alpha = planes.alpha * np.where(live, np.where(gain < 0, -1, 1), 0)
        scales = np.where(live, scales, np.maximum(scales, 1.0))
        return EncodedWeights.basis(planes.signs, alpha, scales, source.basis), bias


class PlaneSettings(EdgeSettings, Protocol):
    """Settings whose bits of weights and activations are planes; `settled` is a share of the epochs, the last ones.

    In these the levels of activations are fixed.
    """

    @property
    def weight_bits(self) -> int:
        """Planes of weights."""

    @property
    def settled(self) -> float:
        """The share."""


class PlaneTraining(FakeQuantizer):
    """A method of sign planes and activation planes in training.

    Inner layers multiply sign planes and planes; the first and last ones 8-bit integers, whose weights' rounding is
    in the training, over the extremes of each output channel.

    Parameters
    ----------
    name, chosen : of the method, and its settings
    graph, spec : unfolded, and its input's
    """

    def __init__(
        self,
        name: str,
        chosen: PlaneSettings,
        graph: Graph,
        spec: InputSpec,
    ) -> None:
        super().__init__()
        self.name, self.chosen = name, chosen
        self.weight_planes, self.planes = chosen.weight_bits, chosen.activation_bits
        self.edge_bits, self.settled = chosen.edge_bits, chosen.settled
        if self.planes >= self.edge_bits:
            raise FormatError(
                f"activation planes must be fewer than the {self.edge_bits} bits of first and last layers"
            )
        self.edges = edge_layers(graph)
        self.reads = reads(graph, spec, self.input_bits, self.planes)
        for layer in graph.layers:
            read = self.reads[layer.name]
            if layer.name not in self.edges:
                _check(graph, layer, read)
        self.activations = ByName(
            {
                self._key(read.producers): self.plane_activation(read.direct)
                for layer, read in self.reads.items()
                if layer not in self.edges
            }
        )

    @staticmethod
    def _key(producers: tuple[str, ...]) -> str:
        return "+".join(producers)

    def input_bits(self, layer: Layer) -> int:
        """Bits of what a layer reads, or planes."""
        return self.edge_bits if layer.name in self.edges else self.planes

    def activation_of(self, producers: tuple[str, ...]) -> PlaneActivation:
        """What quantises the tensor that these nodes write."""
        found: PlaneActivation = self.activations[self._key(producers)]
        return found

    @abstractmethod
    def plane_activation(self, direct: bool) -> PlaneActivation:
        """A tensor's quantiser; `direct` if its thresholds can be any numbers."""

    @abstractmethod
    def begin_weights(self, layer: Layer, weight: Tensor) -> None:
        """Choose what a layer's weights begin with."""

    @abstractmethod
    def quantised_weight(self, layer: Layer, weight: Tensor) -> Tensor:
        """A layer's own weights as sums of sign planes, with straight-through gradients."""

    @abstractmethod
    def sign_planes(self, layer: Layer, weight: np.ndarray) -> SignPlanes:
        """A layer's own weights, float64, as hardware will have them."""

    def begin(self, network: TrainableGraph, calibration: Tensor) -> None:
        """Fit weights, then the activations, each to what layers give that are already quantised."""
        for layer in network.structure.layers:
            if layer.name not in self.edges:
                self.begin_weights(layer, network.weight(layer))
        self.fitted: set[str] = set()
        network(calibration)
        del self.fitted

    def begin_epoch(self, network: TrainableGraph, epoch: int, epochs: int) -> None:
        """Fix the activations' levels where it is time."""
        if epoch >= epochs - int(self.settled * epochs):
            self._fix()

    def end(self, network: TrainableGraph) -> None:
        """Fix the activations' levels."""
        self._fix()

    def _fix(self) -> None:
        for activation in self.activations.values():
            assert isinstance(activation, PlaneActivation)
            activation.fix()

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        """Sums of sign planes; in the first and last layers 8-bit integers."""
        if layer.name not in self.edges:
            return self.quantised_weight(layer, weight)
        folded, safe = folded_weight(weight, gain)
        return straight_through(folded, rounded_weights(folded.detach(), self.edge_bits)) / safe

    def activation(self, layer: Layer, value: Tensor) -> Tensor:
        """Levels; what the first and last layers read is as it is."""
        if layer.name in self.edges:
            return value
        key = self._key(self.reads[layer.name].producers)
        own: PlaneActivation = self.activations[key]
        fitted = getattr(self, "fitted", None)
        if fitted is not None and key not in fitted:
            fitted.add(key)
            values = value.detach().flatten()
            own.fit(values[:: max(1, values.numel() // FIT_VALUES)])
        quantised: Tensor = own(value)
        return quantised

    def quantized(self, network: TrainableGraph, spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        """Lower with the levels and planes of the end."""
        unfolded = network.graph()
        folded = unfolded.folded()
        return lower(folded, spec, _Planes(self, unfolded, spec, statistics, folded.gains))


def _check(graph: Graph, layer: Layer, read: Read) -> None:
    """Raise `UnsupportedError` where a layer reads negative values: the lowest level is 0."""
    for node in map(graph.by_name.__getitem__, read.producers):
        if not isinstance(node, Clamping) or node.low < 0:
            raise UnsupportedError(
                f"activation planes must stand for values that are not negative: {layer.name} must read what a ReLU "
                f"gives, not {node.name}"
            )
