"""A captured network in training, and what a quantisation method does to it meanwhile.

`TrainableGraph` holds the float32 parameters of an unfolded `Graph`, its batch norms live. A method is a
`FakeQuantizer`: it replaces the weights of each layer and the tensor that the layer reads by what the hardware will
multiply, with straight-through gradients, and may have parameters of its own.

Batch norms fold without a trace of the training. A layer's result is multiplied, channel by channel, by the *gain*
``weight / sqrt(variance + epsilon)`` of the norm behind it, which changes in training and may be negative. A quantiser
of folded weights quantises ``weight * gain`` and gives back ``quantised / gain``; one of unfolded weights quantises
``weight * sign(gain)``, and ``abs(gain)`` joins the scales of the output channels, which hardware has anyway. Either
way the folded network of the end has the codes that the fake-quantised one multiplied.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .graph import Graph, Hook, Layer, Node, Norm, Parameters, apply
from .preprocess import InputSpec
from .quantized import QuantizedGraph
from .statistics import Statistics

__all__ = ["ByName", "FakeQuantizer", "TrainableGraph", "folded_weight", "per_output", "straight_through"]

LEAST_GAIN = 1e-12
"""A channel of less has no say in its layer's result, and its weights may be anything."""


def straight_through(value: Tensor, quantised: Tensor) -> Tensor:
    """`quantised` going forward; backward its gradient is that of `value`."""
    return value + (quantised - value).detach()


def per_output(values: Tensor, weight: Tensor) -> Tensor:
    """One number for each output channel (out,), to go with weights (out, ...)."""
    return values.reshape(-1, *(1,) * (weight.ndim - 1))


class ByName(nn.ModuleDict):
    """Modules by node names, which may have dots."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__({self._key(name): module for name, module in modules.items()})

    @staticmethod
    def _key(name: str) -> str:
        return name.replace(".", "/")

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(self._key(name))

    def __contains__(self, name: str) -> bool:
        return super().__contains__(self._key(name))


class FakeQuantizer(nn.Module):
    """A method in training; the base class changes nothing.

    Its parameters train with the network's, its buffers belong to the checkpoints. `network` is the graph in training,
    without batch norms that could fold yet; all methods are called in the order in which they stand here.
    """

    def begin(self, network: "TrainableGraph", calibration: Tensor) -> None:
        """Choose what training begins with, from the float network and normalised images (N, C, H, W)."""

    def parameter_groups(self) -> Sequence[dict[str, Any]]:
        """Groups of own parameters for the optimiser, with what differs from the network's (``lr``, ..)."""
        own = list(self.parameters())
        return [{"params": own, "weight_decay": 0.0}] if own else []

    def begin_epoch(self, network: "TrainableGraph", epoch: int, epochs: int) -> None:
        """Called before epoch 0, 1, .. of so many."""

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        """The weights that `layer` multiplies; `gain` (out,), detached, is the batch norm's behind it, else 1."""
        return weight

    def activation(self, layer: Layer, value: Tensor) -> Tensor:
        """The tensor that `layer` reads."""
        return value

    def penalty(self) -> Tensor | None:
        """What a step adds to the loss, after the network has run."""
        return None

    def end_step(self, network: "TrainableGraph") -> None:
        """Called after the optimiser's step."""

    def end(self, network: "TrainableGraph") -> None:
        """Called after the last epoch, before batch norms are measured anew."""

    def facts(self, network: "TrainableGraph") -> Mapping[str, float]:
        """Figures for an epoch's report, measured at its end."""
        return {}

    def quantized(self, network: "TrainableGraph", spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        """The network for the hardware, given statistics of the fake-quantised one in eval mode."""
        raise NotImplementedError(f"{type(self).__name__} has no form in hardware")


class _TrainableLayer(nn.Module):
    """A layer's weights, and its bias or the batch norm behind it, which takes the bias in."""

    mean: Tensor
    variance: Tensor

    def __init__(self, parameters: Parameters, norm: Norm | None) -> None:
        super().__init__()

        def single(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.asarray(values, dtype=np.float32).copy())

        self.weight = nn.Parameter(single(parameters.weight))
        self.normed = norm is not None
        if norm is None:
            self.bias = nn.Parameter(single(parameters.bias))
            return
        self.epsilon = norm.epsilon
        self.norm_weight, self.norm_bias = nn.Parameter(single(norm.weight)), nn.Parameter(single(norm.bias))
        self.register_buffer("mean", single(norm.mean - parameters.bias))
        self.register_buffer("variance", single(norm.variance))

    @property
    def gain(self) -> Tensor:
        """What the batch norm's running statistics multiply by (out,), detached."""
        if not self.normed:
            return torch.ones_like(self.bias).detach()
        return (self.norm_weight / torch.sqrt(self.variance + self.epsilon)).detach()

    def normalise(self, value: Tensor, momentum: float) -> Tensor:
        """The batch norm, by the batch's statistics in training."""
        return functional.batch_norm(
            value, self.mean, self.variance, self.norm_weight, self.norm_bias, self.training, momentum, self.epsilon
        )

    def exported(self) -> tuple[Parameters, Norm | None]:
        """The float64 parameters of a `Graph`."""

        def double(values: Tensor) -> np.ndarray:
            return np.asarray(values.detach().cpu().to(torch.float64).numpy())

        weight = double(self.weight)
        if not self.normed:
            return Parameters(weight, double(self.bias)), None
        weights, bias, mean, variance = map(double, (self.norm_weight, self.norm_bias, self.mean, self.variance))
        return Parameters(weight, np.zeros(len(weight))), Norm(weights, bias, mean, variance, self.epsilon)


class TrainableGraph(nn.Module):
    """An unfolded `Graph` as a module whose layers pass through a `FakeQuantizer`.

    Parameters
    ----------
    graph : of `capture_unfolded`
    quantizer : the method; none quantises nothing
    norm_momentum : share of a batch in the running statistics of batch norms

    >>> network = TrainableGraph(capture_unfolded(module.eval(), example), quantizer).train()
    >>> loss = cross_entropy(network(x), labels)
    """

    def __init__(self, graph: Graph, quantizer: FakeQuantizer | None = None, norm_momentum: float = 0.1) -> None:
        super().__init__()
        self.structure = graph
        self.quantizer = quantizer or FakeQuantizer()
        self.norm_momentum = norm_momentum
        self.layers = ByName(
            {
                node.name: _TrainableLayer(graph.parameters[node.name], graph.norms.get(node.name))
                for node in graph.layers
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        return self.run(x)

    def run(self, x: Tensor, hook: Hook | None = None) -> Tensor:
        """Run a batch; every tensor between nodes passes through `hook`, as in `Graph.run`."""

        def compute(node: Node, values: list[Tensor]) -> Tensor:
            if not isinstance(node, Layer):
                return apply(node, values)
            own = self.layers[node.name]
            weight = self.quantizer.weight(node, own.weight, own.gain)
            read = self.quantizer.activation(node, values[0])
            value = apply(node, [read], weight, None if own.normed else own.bias)
            return own.normalise(value, self.norm_momentum) if own.normed else value

        return self.structure.evaluate(x.to(self.dtype), compute, hook or Hook())

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.layers.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.layers.parameters()).device

    def gain(self, layer: Layer) -> Tensor:
        """What is behind `layer` multiplies its results by (out,), detached."""
        own: _TrainableLayer = self.layers[layer.name]
        return own.gain

    def weight(self, layer: Layer) -> Tensor:
        """A layer's own weights, detached."""
        own: _TrainableLayer = self.layers[layer.name]
        return own.weight.detach()

    def graph(self) -> Graph:
        """The float network as it is now, unfolded, float64; without what the method does."""
        parameters, norms = dict(self.structure.parameters), {}
        for layer in self.structure.layers:
            parameters[layer.name], norm = self.layers[layer.name].exported()
            if norm is not None:
                norms[layer.name] = norm
        return Graph(self.structure.nodes, parameters, self.structure.output, norms)


def folded_weight(weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as they fold, and the gain (out, 1, ..) by which they are divided to be unfolded again."""
    safe = per_output(torch.where(gain.abs() < LEAST_GAIN, torch.ones_like(gain), gain), weight)
    return weight * safe, safe
