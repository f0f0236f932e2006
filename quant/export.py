"""From a `QuantizedGraph` to a network that the hardware runs.

Each quantised node becomes one node of the file; a node that writes its result twice becomes one
that writes the first form and requantisations of it for the others.
"""

import re

import numpy as np

from ..kernels.errors import UnsupportedError
from ..sim.builder import Grid, NetworkBuilder, Tensor
from ..sim.manifest import InputSpec
from ..sim.network import Network
from .graph import (
    Add,
    AvgPool2d,
    ChannelPad,
    Clamp,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    MaxPool2d,
    StrideSlice,
)
from .quantized import QuantizedGraph, QuantizedLayer, QuantizedNode, QuantizedTensor

__all__ = ["export_network"]


def export_network(quantized: QuantizedGraph, name: str, provenance: dict[str, str | int | float]) -> Network:
    """Build the exported network; `provenance` is kept in its manifest."""
    return _Export(quantized, name, provenance).network()


class _Export:
    def __init__(self, quantized: QuantizedGraph, name: str, provenance: dict[str, str | int | float]) -> None:
        self.quantized = quantized
        self.names: set[str] = set()
        self.tensors: dict[str, Tensor] = {}
        self.builder = NetworkBuilder(name, self._input(), provenance=provenance)

    def network(self) -> Network:
        for node in self.quantized.nodes:
            self._node(node)
        return self.builder.build()

    def _input(self) -> InputSpec:
        tensor = self.quantized.tensors[self.quantized.nodes[0].outputs[0]]
        spec = self.quantized.input
        channels = spec.shape[0]
        mean, std = (np.broadcast_to(np.asarray(values), (channels,)) for values in (spec.mean, spec.std))
        return InputSpec(
            name=self._plain(tensor),
            shape=spec.shape,
            bits=tensor.bits,
            signed=tensor.signed,
            zero_point=tensor.zero_point,
            scale=tensor.scale,
            divide=spec.divide,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
        )

    def _plain(self, tensor: QuantizedTensor) -> str:
        """A tensor's name in the file: its node's, and for a second form of it the bits too."""
        name = re.sub(r"[^A-Za-z0-9_.\-]", "_", tensor.name.partition("@")[0])
        if name in self.names:
            name = f"{name}.q{tensor.bits}"
        self.names.add(name)
        return name

    @staticmethod
    def _grid(tensor: QuantizedTensor) -> Grid:
        uniform = not tensor.amounts.any() if tensor.alignment == "shift" else (tensor.amounts == 1).all()
        return Grid(
            tensor.scale,
            tensor.bits,
            tensor.signed,
            tensor.zero_point,
            None if uniform else tensor.alignment,
            None if uniform else tensor.amounts,
            tensor.low,
            tensor.high,
        )

    def _node(self, node: QuantizedNode) -> None:
        first, *copies = (self.quantized.tensors[name] for name in node.outputs)
        if isinstance(node.op, Input):
            self.tensors[first.name] = self.builder.input
        elif isinstance(node.op, Clamp):
            copies = [first, *copies]
            first = self.quantized.tensors[node.inputs[0]]
        else:
            self.tensors[first.name] = self._make(node, first)
        for copy in copies:
            source = self.tensors[first.name]
            self.tensors[copy.name] = self.builder.requantise(self._plain(copy), source, out=self._grid(copy))

    def _make(self, node: QuantizedNode, result: QuantizedTensor) -> Tensor:
        builder, name, out = self.builder, self._plain(result), self._grid(result)
        inputs = [self.tensors[source] for source in node.inputs]
        match node.op:
            case Conv2d() | Linear():
                assert isinstance(node, QuantizedLayer)
                return self._layer(node, name, inputs[0], out)
            case Add():
                return builder.add(name, inputs[0], inputs[1], out=out)
            case MaxPool2d(pool=pool):
                return builder.max_pool(name, inputs[0], pool.kernel, pool.stride, pool.padding)
            case AvgPool2d(pool=pool):
                return builder.average_pool(name, inputs[0], pool.kernel, pool.stride, pool.padding)
            case GlobalAvgPool():
                return builder.global_average_pool(name, inputs[0])
            case Concat():
                return builder.concat(name, inputs)
            case Flatten():
                return builder.flatten(name, inputs[0])
            case ChannelPad(before=before, after=after):
                return builder.channel_pad(name, inputs[0], before, after)
            case StrideSlice(stride=stride):
                return builder.stride_slice(name, inputs[0], stride)
            case op:
                raise UnsupportedError(f"{op.name}: {type(op).__name__} has no form in hardware")

    def _layer(self, node: QuantizedLayer, name: str, source: Tensor, out: Grid) -> Tensor:
        weights = node.weights
        constants = {
            "bits": weights.bits,
            "scale": weights.scales,
            "zero_point": weights.zero_points,
            "bias": node.bias,
            "out": out,
        }
        if isinstance(node.op, Conv2d):
            conv = node.op.conv
            return self.builder.conv2d(
                name,
                source,
                weights.codes,
                stride=conv.stride,
                padding=conv.padding,
                dilation=conv.dilation,
                groups=conv.groups,
                **constants,  # type: ignore[arg-type]
            )
        if source.shape[1:] != (1, 1):
            source = self.builder.flatten(f"{name}.flat", source)
        return self.builder.linear(name, source, weights.codes, **constants)  # type: ignore[arg-type]
