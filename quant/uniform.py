"""Fine-tuning of the methods that end in integers and uniform steps: `minmax`, `aciq`, and whatever else lowers.

What trains is what the method made of the float network: rounding onto each layer's grid of weights and each tensor's
grid of activations, with straight-through gradients inside a grid and none outside. Grids are kept as calibration
chose them, or refreshed before each epoch from the network of that moment.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.mac import signed_range
from .graph import Graph, Layer
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedLayer, QuantizedTensor, QuantizedWeights
from .statistics import Statistics, collect
from .trainable import ByName, FakeQuantizer, TrainableGraph, folded_weight, per_output, straight_through

__all__ = ["UniformTraining"]

Apply = Callable[[Graph, InputSpec, Statistics], QuantizedGraph]
"""A method with its settings."""


class _Grids(nn.Module):
    """The two grids of a layer as float32 buffers: its weights' by output channel, its input's by input channel.

    Weights of other schemes than integers have no grid here.
    """

    weight_scale: Tensor
    weight_zero: Tensor
    weight_low: Tensor
    weight_high: Tensor
    step: Tensor
    zero: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, layer: QuantizedLayer, source: QuantizedTensor) -> None:
        super().__init__()
        axes = (1,) * (len(source.shape) - 1)
        for name, values in self._values(layer, source).items():
            value = torch.from_numpy(np.asarray(values, dtype=np.float32).copy())
            self.register_buffer(name, value.reshape(-1, *axes) if name in ("step", "low", "high") else value)

    @staticmethod
    def _values(layer: QuantizedLayer, source: QuantizedTensor) -> dict[str, np.ndarray]:
        low, high = source.channel_clamp
        values = {"step": source.steps, "zero": np.array(source.zero_point), "low": low, "high": high}
        weights = layer.weights
        if isinstance(weights, QuantizedWeights):
            values |= {"weight_scale": weights.scales, "weight_zero": weights.zero_points}
            values |= dict(zip(("weight_low", "weight_high"), _code_ends(weights), strict=True))
        return values

    def refresh(self, layer: QuantizedLayer, source: QuantizedTensor) -> None:
        """Take over other grids."""
        for name, values in self._values(layer, source).items():
            buffer = getattr(self, name)
            buffer.copy_(torch.from_numpy(np.asarray(values)).reshape(buffer.shape))

    def weight(self, weight: Tensor) -> Tensor:
        """Folded weights (out, ...) on their grid."""
        scale, zero, low, high = (
            per_output(values, weight)
            for values in (self.weight_scale, self.weight_zero, self.weight_low, self.weight_high)
        )
        codes = (weight / scale + zero).round().clamp(low, high)
        inside = weight.clamp((low - 0.5 - zero) * scale, (high + 0.5 - zero) * scale)
        return straight_through(inside, (codes - zero) * scale)

    def activation(self, value: Tensor) -> Tensor:
        """A tensor (N, C, ...) on its grid."""
        codes = ((value / self.step).round() + self.zero).clamp(self.low, self.high)
        inside = value.clamp((self.low - self.zero) * self.step, (self.high - self.zero) * self.step)
        return straight_through(inside, (codes - self.zero) * self.step)


def _code_ends(weights: QuantizedWeights) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest code of each output channel, int64 (out,)."""
    widths = np.full(len(weights.codes), weights.bits) if weights.widths is None else weights.widths
    ends = np.array([signed_range(int(width)) if width else (0, 0) for width in widths])
    return ends[:, 0], ends[:, 1]


class UniformTraining(FakeQuantizer):
    """A method that lowers to uniform integers, in training.

    Parameters
    ----------
    apply : the method with its settings
    spec : of the network's input
    refresh : whether grids are chosen anew before each epoch and after the last, or kept from the first calibration
    """

    def __init__(self, apply: Apply, spec: InputSpec, refresh: bool = False) -> None:
        super().__init__()
        self.method, self.spec, self.refresh = apply, spec, refresh

    def _lowered(self, network: TrainableGraph) -> QuantizedGraph:
        graph = network.graph().folded()
        return self.method(graph, self.spec, collect(graph, self.calibration))

    def begin(self, network: TrainableGraph, calibration: Tensor) -> None:
        """Calibrate the float network."""
        self.calibration = calibration.detach().cpu()
        self.first = self._lowered(network)
        self.grids = ByName(
            {layer.name: _Grids(layer, self.first.tensors[layer.inputs[0]]) for layer in self.first.layers}
        )

    def begin_epoch(self, network: TrainableGraph, epoch: int, epochs: int) -> None:
        """Calibrate anew."""
        if self.refresh and epoch:
            lowered = self._lowered(network)
            for layer in lowered.layers:
                self.grids[layer.name].refresh(layer, lowered.tensors[layer.inputs[0]])

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        """The folded weights on their grid, unfolded."""
        folded, safe = folded_weight(weight, gain)
        quantised: Tensor = self.grids[layer.name].weight(folded)
        return quantised / safe

    def activation(self, layer: Layer, value: Tensor) -> Tensor:
        """The layer's input on its grid."""
        quantised: Tensor = self.grids[layer.name].activation(value)
        return quantised

    def quantized(self, network: TrainableGraph, spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        """The method's own result where grids are refreshed; else the first grids with the weights of the end."""
        if self.refresh:
            return self._lowered(network)
        graph = network.graph().folded()
        nodes = tuple(
            self.with_weights(node, network, graph) if isinstance(node, QuantizedLayer) else node
            for node in self.first.nodes
        )
        return replace(self.first, nodes=nodes)

    def with_weights(self, layer: QuantizedLayer, network: TrainableGraph, graph: Graph) -> QuantizedLayer:
        """A layer with the weights and the bias of the end, which `graph` has folded, on its first grid."""
        (weight, bias), kept = graph.parameters[layer.name], layer.weights
        assert isinstance(kept, QuantizedWeights)
        scales, zeros, low, high = (
            values.reshape(-1, *(1,) * (weight.ndim - 1))
            for values in (kept.scales, kept.zero_points, *_code_ends(kept))
        )
        codes = np.clip(np.rint(weight / scales + zeros), low, high).astype(np.int16)
        return replace(layer, weights=replace(kept, codes=codes), bias=bias)
