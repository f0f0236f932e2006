"""A captured float network: a small typed graph, its parameters and a reference interpreter.

Nodes are pure structure: frozen, hashable, without arrays and without the batch dimension. Layers
share their geometry objects with `gatewise.kernels`. A clamp directly behind a layer or an add is
an attribute of it (`low`, `high`), because hardware clamps where it requantises.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.conv import ConvShape
from ..kernels.pool import PoolShape

__all__ = [
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "ChannelPad",
    "Clamp",
    "Clamping",
    "Concat",
    "Conv2d",
    "Flatten",
    "GlobalAvgPool",
    "Graph",
    "Hook",
    "Input",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Node",
    "Norm",
    "Parameters",
    "SpatialPad",
    "StrideSlice",
    "apply",
]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation: a unique name, the names of its inputs, and its output shape without the batch."""

    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Output channels (features, where the output is a vector)."""
        return self.shape[0]


@dataclass(frozen=True, kw_only=True)
class Input(Node):
    """The network's input."""


@dataclass(frozen=True, kw_only=True)
class Clamping(Node):
    """A node whose result is clamped to [low, high]; a ReLU has low 0 and no upper end."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def clamps(self) -> bool:
        """Whether the clamp does anything."""
        return self.low > -math.inf or self.high < math.inf


@dataclass(frozen=True, kw_only=True)
class Conv2d(Clamping):
    """Convolution with bias; weights (out, in / groups, ky, kx)."""

    conv: ConvShape


@dataclass(frozen=True, kw_only=True)
class Linear(Clamping):
    """Linear layer with bias on a vector; weights (out, in)."""

    in_features: int


Layer = Conv2d | Linear


@dataclass(frozen=True, kw_only=True)
class Add(Clamping):
    """Elementwise sum of two tensors of one shape."""


@dataclass(frozen=True, kw_only=True)
class Clamp(Clamping):
    """A clamp on its own: one that could not move into the node before it."""


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Node):
    """Per-channel ``x * scale + shift``; only before folding."""


@dataclass(frozen=True, kw_only=True)
class MaxPool2d(Node):
    """Greatest real pixel of each window."""

    pool: PoolShape


@dataclass(frozen=True, kw_only=True)
class AvgPool2d(Node):
    """Mean of the real pixels of each window: padding is no pixel."""

    pool: PoolShape


@dataclass(frozen=True, kw_only=True)
class GlobalAvgPool(Node):
    """Mean of each channel: (C, H, W) -> (C, 1, 1)."""


@dataclass(frozen=True, kw_only=True)
class Flatten(Node):
    """(C, H, W) -> (C * H * W,), channel first."""


@dataclass(frozen=True, kw_only=True)
class Concat(Node):
    """Channels of several tensors, one after another."""


@dataclass(frozen=True, kw_only=True)
class ChannelPad(Node):
    """Zero channels before and after: half of ResNet's option-A shortcut."""

    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class SpatialPad(Node):
    """Zero pixels (top, left, bottom, right); only before folding into the convolutions behind it."""

    padding: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class StrideSlice(Node):
    """Every sy-th row and sx-th column from the first: the other half of option A."""

    stride: tuple[int, int]


class Parameters(NamedTuple):
    """Float64 arrays: a layer's weights and bias (out,), or a batch norm's scale and shift (C,)."""

    weight: np.ndarray
    bias: np.ndarray


class Norm(NamedTuple):
    """A batch norm: float64 arrays (C,), and what it adds to variances.

    ``(x - mean) / sqrt(variance + epsilon) * weight + bias``.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float

    @property
    def scale(self) -> np.ndarray:
        """What each channel is multiplied by (C,)."""
        return np.asarray(self.weight / np.sqrt(self.variance + self.epsilon))

    @property
    def shift(self) -> np.ndarray:
        """What is added to each channel then (C,)."""
        return np.asarray(self.bias - self.mean * self.scale)

    def then(self, scale: np.ndarray, shift: np.ndarray) -> "Norm":
        """This norm and ``x * scale + shift`` behind it."""
        return self._replace(weight=self.weight * scale, bias=self.bias * scale + shift)


class Hook:
    """Sees and may replace every tensor of a run; the base class changes nothing.

    Calibration reads the tensors, fake quantisation replaces them.
    """

    def weight(self, node: Node, weight: Tensor) -> Tensor:
        """A layer's weights, before they are used."""
        return weight

    def layer_input(self, node: Node, value: Tensor) -> Tensor:
        """What a layer reads, before it is used; other readers of the same tensor have their own."""
        return value

    def preactivation(self, node: Node, value: Tensor) -> Tensor:
        """What `node` computed, before its clamp."""
        return value

    def output(self, node: Node, value: Tensor) -> Tensor:
        """What `node` hands on, after its clamp."""
        return value


def _pad(x: Tensor, padding: tuple[int, int, int, int], value: float = 0.0) -> Tensor:
    top, left, bottom, right = padding
    return functional.pad(x, (left, right, top, bottom), value=value) if any(padding) else x


def _average(x: Tensor, pool: PoolShape) -> Tensor:
    ones = torch.ones_like(x[:1, :1])
    total, count = (
        functional.avg_pool2d(_pad(value, pool.padding), pool.kernel, pool.stride, divisor_override=1)
        for value in (x, ones)
    )
    return total / count


def apply(node: Node, values: list[Tensor], weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Compute one node, without its clamp, on input tensors that carry the batch dimension."""
    x = values[0]
    match node:
        case Conv2d(conv=conv):
            assert weight is not None
            return functional.conv2d(_pad(x, conv.padding), weight, bias, conv.stride, 0, conv.dilation, conv.groups)
        case Linear():
            assert weight is not None
            return functional.linear(x, weight, bias)
        case Add():
            return x + values[1]
        case Clamp():
            return x
        case BatchNorm():
            assert weight is not None
            assert bias is not None
            size = (1, -1) + (1,) * (x.ndim - 2)
            return x * weight.reshape(size) + bias.reshape(size)
        case MaxPool2d(pool=pool):
            return functional.max_pool2d(_pad(x, pool.padding, -math.inf), pool.kernel, pool.stride)
        case AvgPool2d(pool=pool):
            return _average(x, pool)
        case GlobalAvgPool():
            return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
        case Flatten():
            return x.reshape(x.shape[0], -1)
        case Concat():
            return torch.cat(values, 1)
        case ChannelPad(before=before, after=after):
            return functional.pad(x, (0, 0) * (x.ndim - 2) + (before, after))
        case SpatialPad(padding=padding):
            return _pad(x, padding)
        case StrideSlice(stride=(rows, columns)):
            return x[:, :, ::rows, ::columns]
        case _:
            raise TypeError(f"node must be one that computes, not {node!r}")


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in execution order (the input first), parameters by node name, the output's name.

    `norms` are the batch norms that stand behind layers, before their clamps, by the layers' names; `folded` makes
    them part of the layers, and keeps what they multiplied the weights of each output channel by in `gains`.

    >>> graph = capture(module.eval(), example)
    >>> logits = graph.run(torch.from_numpy(images))
    """

    nodes: tuple[Node, ...]
    parameters: Mapping[str, Parameters]
    output: str
    norms: Mapping[str, Norm] = field(default_factory=dict)
    gains: Mapping[str, np.ndarray] = field(default_factory=dict)
    by_name: Mapping[str, Node] = field(init=False, repr=False)
    consumers: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_name = {node.name: node for node in self.nodes}
        if len(by_name) != len(self.nodes):
            raise ValueError("node names must be unique")
        consumers: dict[str, tuple[str, ...]] = dict.fromkeys(by_name, ())
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                consumers[name] += (node.name,)
        object.__setattr__(self, "by_name", by_name)
        object.__setattr__(self, "consumers", consumers)

    @property
    def input(self) -> Node:
        """The network's input node."""
        return self.nodes[0]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Convolutions and linear layers in execution order."""
        return tuple(node for node in self.nodes if isinstance(node, Conv2d | Linear))

    def folded(self) -> "Graph":
        """The same function without batch norms behind layers."""
        parameters = dict(self.parameters)
        for name, norm in self.norms.items():
            weight, bias = parameters[name]
            scaled = weight * norm.scale.reshape((-1,) + (1,) * (weight.ndim - 1))
            parameters[name] = Parameters(scaled, bias * norm.scale + norm.shift)
        gains = {name: norm.scale for name, norm in self.norms.items()}
        return Graph(self.nodes, parameters, self.output, gains={**self.gains, **gains})

    def run(self, x: Tensor, dtype: torch.dtype = torch.float64, hook: Hook | None = None) -> Tensor:
        """Run the network on a batch (N, *input shape); every tensor passes through `hook`."""
        seen = hook or Hook()

        def compute(node: Node, values: list[Tensor]) -> Tensor:
            weight = bias = None
            if node.name in self.parameters:
                weight, bias = (
                    torch.as_tensor(array, dtype=dtype, device=x.device) for array in self.parameters[node.name]
                )
                weight = seen.weight(node, weight)
                values = [seen.layer_input(node, values[0])]
            value = apply(node, values, weight, bias)
            if node.name in self.norms:
                norm = self.norms[node.name]
                size = (1, -1) + (1,) * (value.ndim - 2)
                scale, shift = (
                    torch.as_tensor(array, dtype=dtype, device=x.device).reshape(size)
                    for array in (norm.scale, norm.shift)
                )
                value = value * scale + shift
            return value

        return self.evaluate(x.to(dtype), compute, seen)

    def evaluate(self, x: Tensor, compute: Callable[[Node, list[Tensor]], Tensor], hook: Hook) -> Tensor:
        """Run a batch through all nodes: `compute` makes what a node computes before its clamp of its inputs."""
        if tuple(x.shape[1:]) != self.input.shape:
            raise ValueError(
                f"input must have shape (N, {', '.join(map(str, self.input.shape))}), not {tuple(x.shape)}"
            )
        remaining = {name: len(users) for name, users in self.consumers.items()}
        remaining[self.output] += 1
        values: dict[str, Tensor] = {}
        for node in self.nodes:
            computed = x if isinstance(node, Input) else compute(node, [values[name] for name in node.inputs])
            value = hook.preactivation(node, computed)
            if isinstance(node, Clamping) and node.clamps:
                value = value.clamp(node.low, node.high)
            values[node.name] = hook.output(node, value)
            for name in dict.fromkeys(node.inputs):
                remaining[name] -= 1
                if not remaining[name]:
                    del values[name]
        return values[self.output]
