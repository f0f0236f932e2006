"""From a `QuantizedGraph` to a network that the hardware runs.

Each quantised node becomes one node of the file; a node that writes its result twice becomes one
that writes the first form and requantisations of it for the others. Layers requantise by a multiplier and a shift, or
by thresholds: these are found by bisection on the fake-quantised layer itself, so that they give its very codes.
"""

import re
from typing import Literal, get_args

import numpy as np
import torch

from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.mac import DIGIT_BITS, MacFormat, signed_range
from ..sim.builder import Grid, MacSettings, NetworkBuilder, Tensor, Thresholds
from ..sim.manifest import InputSpec
from ..sim.network import Network
from ..sim.weights import WeightCodes
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
from .quantized import QuantizedGraph, QuantizedLayer, QuantizedNode, QuantizedTensor, QuantizedWeights

__all__ = ["Requantise", "export_network", "file_names"]

Requantise = Literal["scale", "threshold"]
MULTIPLIER_BITS = 31
"""As many as the engine's post lanes have: with 24, one in 10,000 codes of a 16-bit stream differs from float64's."""


def export_network(
    quantized: QuantizedGraph,
    name: str,
    provenance: dict[str, str | int | float],
    requantise: Requantise = "scale",
) -> Network:
    """Build the exported network; `provenance` is kept in its manifest.

    With `requantise` "threshold" layers requantise by thresholds where hardware can: results of at most 4 bits whose
    channels have one width. All else is by "scale".
    """
    if requantise not in get_args(Requantise):
        raise FormatError(f"requantise must be scale or threshold, not {requantise!r}")
    return _Export(quantized, name, provenance, requantise).network()


def file_names(quantized: QuantizedGraph) -> dict[str, str]:
    """The name in the file of every tensor: its node's, and for a second form of it the bits too."""
    names: dict[str, str] = {}
    for node in quantized.nodes:
        for output in node.outputs:
            name = re.sub(r"[^A-Za-z0-9_.\-]", "_", output.partition("@")[0])
            if name in names.values():
                name = f"{name}.q{quantized.tensors[output].bits}"
            names[output] = name
    return names


class _Export:
    def __init__(
        self,
        quantized: QuantizedGraph,
        name: str,
        provenance: dict[str, str | int | float],
        requantise: Requantise,
    ) -> None:
        self.quantized = quantized
        self.requantise = requantise
        self.names = file_names(quantized)
        self.tensors: dict[str, Tensor] = {}
        self.builder = NetworkBuilder(name, self._input(), MULTIPLIER_BITS, provenance=provenance)

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
            name=self.names[tensor.name],
            shape=spec.shape,
            bits=tensor.bits,
            signed=tensor.signed,
            zero_point=tensor.zero_point,
            scale=tensor.scale,
            divide=spec.divide,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
        )

    @staticmethod
    def _grid(tensor: QuantizedTensor) -> Grid:
        if tensor.basis is not None:
            return Grid.of_planes(tensor.basis)
        if tensor.rounding == "nested":
            return Grid(tensor.scale, tensor.bits, tensor.signed, rounding="nested")
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
            tensor.widths,
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
            self.tensors[copy.name] = self.builder.requantise(self.names[copy.name], source, out=self._grid(copy))

    def _make(self, node: QuantizedNode, result: QuantizedTensor) -> Tensor:
        builder, name, out = self.builder, self.names[result.name], self._grid(result)
        inputs = [self.tensors[source] for source in node.inputs]
        match node.op:
            case Conv2d() | Linear():
                assert isinstance(node, QuantizedLayer)
                return self._layer(node, name, inputs[0], result)
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

    def _layer(self, node: QuantizedLayer, name: str, source: Tensor, result: QuantizedTensor) -> Tensor:
        weights = node.weights
        constants: MacSettings
        if isinstance(weights, QuantizedWeights):
            codes: np.ndarray | WeightCodes = weights.codes
            constants = {
                "bits": weights.bits if weights.widths is None else weights.widths,
                "coding": weights.coding,
                "scale": weights.scales,
                "zero_point": weights.zero_points,
                "bias": node.bias,
                "out": self._grid(result),
            }
        else:
            codes = weights.codes
            constants = {"scale": weights.given, "bias": node.bias, "out": self._grid(result)}
        counted = result.bits <= DIGIT_BITS and result.widths is None and result.basis is None
        if self.requantise == "threshold" and counted:
            constants["thresholds"] = self._thresholds(node, result)
        if isinstance(node.op, Conv2d):
            conv = node.op.conv
            return self.builder.conv2d(
                name,
                source,
                codes,
                stride=conv.stride,
                padding=conv.padding,
                dilation=conv.dilation,
                groups=conv.groups,
                **constants,
            )
        if source.shape[1:] != (1, 1):
            source = self.builder.flatten(f"{name}.flat", source)
        return self.builder.linear(name, source, codes, **constants)

    def _thresholds(self, node: QuantizedLayer, result: QuantizedTensor) -> Thresholds:
        """The least accumulators at which the layer gives each code but the least, (channels, 2**bits - 1).

        One that no accumulator reaches is the greatest.
        """
        lift, base = 2.0**node.weights.fraction, self.quantized.tensors[node.inputs[0]]
        first, last = signed_range(MacFormat().acc + node.weights.fraction)
        least, greatest = result.container
        wanted = np.arange(least + 1, greatest + 1)[:, None]
        low = np.full((len(wanted), len(node.bias)), first, dtype=np.int64)
        high = np.full_like(low, last)
        per_channel = (*low.shape, *(1,) * (len(result.shape) - 1))
        while (low < high).any():
            middle = low + (high - low) // 2
            total = torch.from_numpy(middle / lift).reshape(per_channel)
            codes = result.quantize(node.rescaled(total, base)).reshape(low.shape).numpy()
            low, high = np.where(codes < wanted, middle + 1, low), np.where(codes < wanted, high, middle)
        return Thresholds(low.T)
