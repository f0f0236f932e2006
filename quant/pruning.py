"""Pruning of weights in training, and what a pruned network's bytes are.

Two ways to choose what goes, both under the gradual schedule of Zhu and Gupta, "To prune, or not to prune" (2017),
eq. 1: *magnitude*, where what is pruned stays pruned, and *dynamic network surgery* (Guo, Yao, Chen, "Dynamic Network
Surgery for Efficient DNNs", NeurIPS 2016), where pruned weights go on learning and are spliced back when they have
grown: below 0.9 times a threshold a weight goes, above 1.1 times it a weight comes back, and between a weight stays as
it is. The surgery's masks move at random steps, which become rare. Its authors set thresholds by mean and
deviation of a layer's weights; ours follow from the share of zeros that is wanted.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.huffman import HuffmanCode
from .graph import Graph
from .trainable import straight_through

__all__ = ["Allocation", "Pruning", "PruningKind", "gradual_sparsity", "sparse_bytes"]

PruningKind = Literal["surgery", "magnitude"]
Allocation = Literal["layer", "global", "scaled"]
"""What is compared: a layer's weights among themselves, all weights, or all over their layer's root mean square."""
BAND = (0.9, 1.1)
RATE, POWER = 0.01, 1.0
"""The surgery's masks move after step i with probability ``(1 + RATE * i)**-POWER``."""
RUN_BITS = 4
"""Of a run of zeros in a sparse file; a longer one has stored zeros within."""
FLOAT_BYTES = 4


def gradual_sparsity(done: float, final: float) -> float:
    """The share of zeros after a share `done` of the schedule: fast at first, slow when few weights are left.

    >>> gradual_sparsity(0.5, 0.8)
    0.7
    """
    return final * (1 - (1 - min(max(done, 0.0), 1.0)) ** 3)


class _Mask(nn.Module):
    """Of one layer: which weights are kept, and the threshold of the moment."""

    kept: Tensor
    threshold: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))
        self.register_buffer("threshold", torch.zeros((), dtype=weight.dtype, device=weight.device))


class Pruning(nn.Module):
    """Masks of some layers' weights.

    Parameters
    ----------
    weights : of each layer, by name
    kind, allocation : see the module
    """

    steps: Tensor

    def __init__(self, weights: Mapping[str, Tensor], kind: PruningKind, allocation: Allocation) -> None:
        super().__init__()
        self.kind, self.allocation = kind, allocation
        self.names = list(weights)
        self.masks = nn.ModuleList(_Mask(weight) for weight in weights.values())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def _of(self, name: str) -> _Mask:
        mask = self.masks[self.names.index(name)]
        assert isinstance(mask, _Mask)
        return mask

    def _pairs(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[_Mask, Tensor]]:
        return ((self._of(name), weight.detach()) for name, weight in weights.items())

    def kept(self, name: str) -> Tensor:
        """Which of a layer's weights are not pruned, bool."""
        return self._of(name).kept

    @property
    def sparsity(self) -> float:
        """Share of the weights that are pruned."""
        masks = [self.kept(name) for name in self.names]
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def apply_to(self, name: str, weight: Tensor) -> Tensor:
        """A layer's weights with zeros; in surgery what is pruned learns too."""
        pruned = weight * self.kept(name)
        return straight_through(weight, pruned) if self.kind == "surgery" else pruned

    def prune(self, weights: Mapping[str, Tensor], sparsity: float) -> None:
        """Prune that share of the weights, the least; by magnitude, at least those that have been pruned before."""
        for mask, magnitudes, threshold in self._thresholds(weights, sparsity):
            mask.threshold.copy_(threshold)
            kept = magnitudes > threshold
            mask.kept.copy_(kept if self.kind == "surgery" else kept & mask.kept)

    def begin_epoch(self, weights: Mapping[str, Tensor], sparsity: float) -> None:
        """Aim at a share of zeros: magnitudes go at once, the surgery's as its masks move."""
        if self.kind == "magnitude":
            self.prune(weights, sparsity)
            return
        for mask, _, threshold in self._thresholds(weights, sparsity):
            mask.threshold.copy_(threshold)
        self.operate(weights)

    def operates(self) -> bool:
        """Count a step; whether the surgery's masks are to move after it, as torch's generator says."""
        self.steps += 1
        return self.kind == "surgery" and float(torch.rand(())) < (1 + RATE * int(self.steps)) ** -POWER

    def operate(self, weights: Mapping[str, Tensor]) -> None:
        """Move the surgery's masks."""
        for mask, weight in self._pairs(weights):
            magnitudes = weight.abs()
            stays = mask.kept & (magnitudes > BAND[0] * mask.threshold)
            mask.kept.copy_(stays | (magnitudes > BAND[1] * mask.threshold))

    def _thresholds(self, weights: Mapping[str, Tensor], sparsity: float) -> Iterator[tuple[_Mask, Tensor, Tensor]]:
        """Masks, magnitudes, and the magnitude up to which weights are to go."""
        magnitudes = [(mask, weight.abs()) for mask, weight in self._pairs(weights)]
        if self.kind == "magnitude":
            magnitudes = [(mask, values * mask.kept) for mask, values in magnitudes]
        if self.allocation == "layer":
            for mask, values in magnitudes:
                yield mask, values, _quantile(values.reshape(-1), sparsity)
            return
        units = [values.square().mean().sqrt() if self.allocation == "scaled" else 1.0 for _, values in magnitudes]
        joined = torch.cat([(values / unit).reshape(-1) for (_, values), unit in zip(magnitudes, units, strict=True)])
        common = _quantile(joined, sparsity)
        for (mask, values), unit in zip(magnitudes, units, strict=True):
            yield mask, values, common * unit


def _quantile(magnitudes: Tensor, share: float) -> Tensor:
    """The greatest of the least so many magnitudes; below all of them where there are none."""
    count = round(share * magnitudes.numel())
    return magnitudes.kthvalue(count).values if count else torch.full_like(magnitudes[0], -1.0)


def sparse_bytes(graph: Graph) -> dict[str, int]:
    """Bytes of a folded float32 network whose pruned weights are zeros: stored in three ways.

    "dense" with all zeros; "pruned" with a bit for each weight that says whether it follows; "encoded" with
    Huffman codes of the runs of zeros in between, of 0 to 15 each, as Han, Mao, Dally, "Deep Compression" (ICLR 2016),
    section 2, store them; tables included.
    """
    dense = pruned = encoded = 0
    for layer in graph.layers:
        weight, bias = graph.parameters[layer.name]
        stream = weight.reshape(-1)
        dense += FLOAT_BYTES * (stream.size + bias.size)
        runs, values = _runs(np.flatnonzero(stream), stream.size)
        code = HuffmanCode.of(np.bincount(runs, minlength=1 << RUN_BITS))
        pruned += FLOAT_BYTES * (int(np.count_nonzero(stream)) + bias.size) + -(-stream.size // 8)
        encoded += FLOAT_BYTES * (values + bias.size) + len(code.encode(runs)) + len(code.table())
    return {"dense": dense, "pruned": pruned, "encoded": encoded}


def _runs(places: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Zeros before each stored value (uint8), and how many values are stored, zeros in long runs among them."""
    longest = 1 << RUN_BITS
    gaps = np.diff(np.concatenate([[-1], places, [size]])) - 1
    gaps[-1] -= gaps[-1] % longest  # what is left at the end of a layer needs no value
    extra = gaps // longest
    runs = np.concatenate([np.full(int(extra.sum()), longest - 1), (gaps % longest)[:-1]])
    return runs.astype(np.uint8), len(runs)
