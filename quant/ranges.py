"""Ranges of activations that are observed while a network trains, and the grids that come of them.

The least and the greatest value of a tensor, averaged over the steps with more weight on the late ones (Jacob et al.,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018, section 3.1),
are the ends of an unsigned grid with a zero point, as `affine.tensor_grid` makes it. Layers that read one tensor share
its range.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .affine import SCALE_FLOOR, tensor_grid
from .graph import Graph, Layer, Node
from .lowering import reads
from .preprocess import InputSpec
from .trainable import straight_through

__all__ = ["ActivationRanges"]


class ActivationRanges(nn.Module):
    """The ranges of what the layers of a graph read.

    Parameters
    ----------
    graph, spec : the network and its input, whose range is that of all uint8 images
    bits : of what a layer reads
    momentum : share of a step in the average
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, graph: Graph, spec: InputSpec, bits: Callable[[Layer], int], momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        found = reads(graph, spec, bits)
        keys = list(dict.fromkeys((found[layer.name].producers, bits(layer)) for layer in graph.layers))
        self.places = {key: place for place, key in enumerate(keys)}
        self.of_layer = {layer.name: self.places[found[layer.name].producers, bits(layer)] for layer in graph.layers}
        self.bits = {layer.name: bits(layer) for layer in graph.layers}
        low, high = torch.zeros(len(keys)), torch.zeros(len(keys))
        seen = torch.zeros(len(keys), dtype=torch.bool)
        for (producers, _), place in self.places.items():
            if producers == (graph.input.name,):
                low[place], high[place] = spec.range
                seen[place] = True
        self.fixed = seen.tolist()
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("seen", seen)

    def forward(self, layer: Layer, value: Tensor) -> Tensor:
        """What `layer` reads, on its grid; in training the range moves."""
        place = self.of_layer[layer.name]
        if self.training and not self.fixed[place]:
            with torch.no_grad():
                self._observe(place, value)
        low, high = self.low[place].clamp(max=0), self.high[place].clamp(min=0)
        most = (1 << self.bits[layer.name]) - 1
        scale = ((high - low) / most).clamp(min=SCALE_FLOOR)
        zero = (-low / scale).round()
        codes = ((value / scale).round() + zero).clamp(0, most)
        inside = torch.minimum(torch.maximum(value, -zero * scale), (most - zero) * scale)
        return straight_through(inside, (codes - zero) * scale)

    def _observe(self, place: int, value: Tensor) -> None:
        for ends, found in ((self.low, value.amin()), (self.high, value.amax())):
            moved = torch.lerp(ends[place], found.to(ends.dtype), self.momentum)
            ends[place] = torch.where(self.seen[place], moved, found.to(ends.dtype))
        self.seen[place] = True

    def grid(self, producers: Sequence[Node], bits: int) -> tuple[float, int] | None:
        """Scale and zero point of what these nodes write; None where no training step has seen it."""
        place = self.places.get((tuple(node.name for node in producers), bits))
        if place is None or not self.seen[place]:
            return None
        return tensor_grid(float(self.low[place]), float(self.high[place]), bits)
