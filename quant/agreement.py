"""How far an exported network computes the same integers as its fake-quantised form.

Each node is evaluated on the integer network's own input codes, in float64: integers are exact there, one real scale
for each output channel is what hardware has a multiplier for. With thresholds, which are bisected on that very
function, no integer may differ; with multipliers of 31 bits hardly one does. What differs when both networks run by
themselves is the free-running share.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .export import file_names
from .graph import Clamp, Conv2d, Input, Linear
from .methods import Quantisation
from .quantized import QuantizedGraph, QuantizedNode

__all__ = ["Agreement", "TensorAgreement", "agreement"]

BATCH = 32


@dataclass(frozen=True)
class TensorAgreement:
    """Integers of one tensor of the file.

    `op` is what makes it: "layer" for the exact result of a convolution or linear layer, "copy" for a requantisation
    of another tensor, else the operation's name. `requantise` is "scale", "threshold" or "" where nothing is rescaled.
    """

    name: str
    op: str
    bits: int
    requantise: str
    integers: int
    differing: int
    """Integers that differ from those of the node on the integer network's own inputs."""
    free_running: int
    """Integers that differ from those of the fake-quantised network on the images."""

    @property
    def share(self) -> float:
        """Of differing integers, fed the integer network's own inputs."""
        return self.differing / self.integers

    @property
    def free_running_share(self) -> float:
        """Of differing integers, both networks running by themselves."""
        return self.free_running / self.integers


@dataclass(frozen=True)
class Agreement:
    """Every tensor in execution order, and the share of images whose predictions are the same."""

    images: int
    tensors: tuple[TensorAgreement, ...]
    predictions: float

    @property
    def layers(self) -> tuple[TensorAgreement, ...]:
        """Results of convolutions and linear layers."""
        return tuple(tensor for tensor in self.tensors if tensor.op == "layer")

    def worst(self, requantise: str) -> float:
        """Greatest share of differing integers among the layers that requantise so; 0 without any."""
        return max((layer.share for layer in self.layers if layer.requantise == requantise), default=0.0)

    def summary(self) -> dict[str, int | float]:
        """What a training's JSON file says of it: the worst layer of each kind, and how many layers there are of it."""
        facts: dict[str, int | float] = {"images": self.images}
        for kind in ("scale", "threshold"):
            facts[f"{kind}_layers"] = sum(layer.requantise == kind for layer in self.layers)
            facts[f"worst_{kind}"] = self.worst(kind)
        free = max((layer.free_running_share for layer in self.layers), default=0.0)
        return {**facts, "worst_free_running": free, "predictions": self.predictions}


def agreement(found: Quantisation, images: np.ndarray) -> Agreement:
    """Compare the integer network with its fake-quantised form on uint8 images (N, C, H, W), tensor by tensor.

    >>> compared = agreement(quantize("aciq", ...), test.images)
    >>> compared.worst("scale") < 1e-4, compared.worst("threshold") == 0
    (True, True)
    """
    quantized, names = found.quantized, file_names(found.quantized)
    differing = dict.fromkeys(quantized.tensors, 0)
    free_running, integers, agreed = dict(differing), dict(differing), 0
    for first in range(0, len(images), BATCH):
        part = images[first : first + BATCH]
        result = found.network.run(part, trace=True)
        trace: dict[str, np.ndarray] = {}
        logits = quantized.run(part, trace=trace)
        agreed += int(np.sum(logits.argmax(axis=1) == result.predictions))
        codes = {
            name: result.tensors[names[name]].reshape(len(part), *tensor.shape)
            for name, tensor in quantized.tensors.items()
        }
        for node in quantized.nodes:
            for name, expected in _evaluated(quantized, node, codes, part).items():
                differing[name] += int(np.sum(codes[name] != expected))
                free_running[name] += int(np.sum(codes[name] != trace[name]))
                integers[name] += codes[name].size
    tensors = tuple(
        TensorAgreement(
            names[name],
            _kind(node, position),
            quantized.tensors[name].bits,
            _requantise(found, names[name]),
            integers[name],
            differing[name],
            free_running[name],
        )
        for node in quantized.nodes
        for position, name in enumerate(node.outputs)
    )
    return Agreement(len(images), tensors, agreed / len(images))


def _evaluated(
    quantized: QuantizedGraph, node: QuantizedNode, codes: dict[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    """What the node's outputs are, from the integer network's own codes: a copy from the form that it is made of."""
    with torch.no_grad():
        if isinstance(node.op, Input):
            return {node.outputs[0]: quantized.input_codes(images).numpy()}
        inputs = [torch.from_numpy(codes[name].astype(np.float64)) for name in node.inputs]
        made = quantized.apply(node, inputs)
        first, *copies = (quantized.tensors[name] for name in node.outputs)
        if copies and not isinstance(node.op, Clamp):
            written = torch.from_numpy(codes[first.name].astype(np.float64))
            made |= {copy.name: copy.copied(written, first) for copy in copies}
        return {name: value.numpy() for name, value in made.items()}


def _kind(node: QuantizedNode, position: int) -> str:
    if position or isinstance(node.op, Clamp):
        return "copy"
    return "layer" if isinstance(node.op, Conv2d | Linear) else type(node.op).__name__.lower()


def _requantise(found: Quantisation, name: str) -> str:
    if name == found.network.manifest.input.name:
        return ""
    requant = getattr(found.network.node(name), "requant", None)
    return "" if requant is None else str(requant.kind)
