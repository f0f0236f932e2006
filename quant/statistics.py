"""Calibration statistics: what each node computes, before its clamp, over a set of images.

ACIQ fits its prior to a convolution's output before the ReLU. Two passes over the network: sums and
extremes first, then deviations from the finished means and histograms between the extremes; all in float64, so that
how the images are split into batches only matters in the last bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .graph import Hook, Node

__all__ = ["BINS", "Moments", "NodeStatistics", "Statistics", "collect", "moments"]

BINS = 4096
"""Of a histogram; half of them are for negative values."""


class Moments(NamedTuple):
    """Float64 arrays, (C,) per channel or (1,) per tensor, over `samples` values each."""

    samples: int
    mean: np.ndarray
    b: np.ndarray
    """Mean absolute deviation from the mean: the maximum-likelihood b of a Laplace prior."""
    std: np.ndarray
    """Unbiased standard deviation."""
    min: np.ndarray
    max: np.ndarray
    counts: np.ndarray
    """Histograms, int64 (C, BINS) or (1, BINS): equal bins from minus the greatest magnitude to it."""


@dataclass(frozen=True)
class NodeStatistics:
    """Statistics of one node's result before its clamp."""

    channel: Moments
    tensor: Moments


class Runnable(Protocol):
    """A graph, or one in training."""

    def run(self, x: Tensor, *, hook: Hook | None = None) -> Tensor:
        """Run a batch whose tensors pass through `hook`."""


Statistics = dict[str, NodeStatistics]
"""Statistics by node name."""


def _by_channel(value: Tensor) -> Tensor:
    """(N, C, ...) as (C, values)."""
    return value.detach().to(torch.float64).transpose(0, 1).reshape(value.shape[1], -1)


def _histogram(values: Tensor, ends: Tensor) -> Tensor:
    """Counts (rows, BINS) of values (rows, n) between minus and plus `ends` (rows,)."""
    ends = torch.where(ends > 0, ends, 1)[:, None]
    bins = ((values / ends + 1) * (BINS // 2)).floor().clamp(0, BINS - 1).to(torch.int64)
    rows = torch.arange(len(values), device=values.device)[:, None]
    return torch.bincount((bins + rows * BINS).reshape(-1), minlength=len(values) * BINS).reshape(-1, BINS)


def moments(values: np.ndarray) -> Moments:
    """Of values at hand, (n,): the arrays are (1,) and (1, BINS)."""
    row = np.asarray(values, dtype=np.float64).reshape(1, -1)
    mean = row.mean(1)
    least, greatest = row.min(1), row.max(1)
    counts = _histogram(torch.from_numpy(row), torch.from_numpy(np.maximum(-least, greatest))).numpy()
    deviation = row.std(1, ddof=min(1, row.size - 1))
    return Moments(row.size, mean, np.abs(row - mean[:, None]).mean(1), deviation, least, greatest, counts)


class _Sums(Hook):
    """First pass."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self.total: dict[str, Tensor] = {}
        self.least: dict[str, Tensor] = {}
        self.greatest: dict[str, Tensor] = {}

    def preactivation(self, node: Node, value: Tensor) -> Tensor:
        """Add a batch to the sums and extremes."""
        values, name = _by_channel(value), node.name
        total, least, greatest = values.sum(1), values.amin(1), values.amax(1)
        seen = name in self.count
        self.count[name] = self.count.get(name, 0) + values.shape[1]
        self.total[name] = self.total[name] + total if seen else total
        self.least[name] = torch.minimum(self.least[name], least) if seen else least
        self.greatest[name] = torch.maximum(self.greatest[name], greatest) if seen else greatest
        return value


class _Deviations(Hook):
    """Second pass: absolute and square deviations from the channel's and from the tensor's mean, and histograms."""

    def __init__(self, sums: _Sums) -> None:
        self.mean = {name: total / sums.count[name] for name, total in sums.total.items()}
        self.ends = {name: torch.maximum(-least, sums.greatest[name]) for name, least in sums.least.items()}
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, tuple[Tensor, Tensor]] = {}

    def preactivation(self, node: Node, value: Tensor) -> Tensor:
        """Add a batch to the four sums of deviations and to the histograms."""
        values, mean = _by_channel(value), self.mean[node.name]
        own, common = values - mean[:, None], values - mean.mean()
        added = torch.stack([own.abs().sum(1), (own**2).sum(1), common.abs().sum(1), (common**2).sum(1)])
        ends = self.ends[node.name]
        counts = _histogram(values, ends), _histogram(values.reshape(1, -1), ends.amax().reshape(1))
        seen = node.name in self.sums
        self.sums[node.name] = self.sums[node.name] + added if seen else added
        former = self.counts[node.name] if seen else (0, 0)
        self.counts[node.name] = former[0] + counts[0], former[1] + counts[1]
        return value


def _batches(x: Tensor, size: int) -> Iterator[Tensor]:
    return (x[first : first + size] for first in range(0, x.shape[0], size))


def collect(graph: Runnable, x: Tensor, batch: int = 16) -> Statistics:
    """Statistics of every node of `graph` over the normalised inputs `x` (N, C, H, W)."""
    if x.shape[0] < 1:
        raise ValueError("statistics must be collected over at least one image")
    with torch.no_grad():
        sums = _Sums()
        for part in _batches(x, batch):
            graph.run(part, hook=sums)
        deviations = _Deviations(sums)
        for part in _batches(x, batch):
            graph.run(part, hook=deviations)
    return {name: _finished(sums, deviations, name) for name in sums.count}


def _finished(sums: _Sums, deviations: _Deviations, name: str) -> NodeStatistics:
    count, mean = sums.count[name], deviations.mean[name].numpy()
    own_abs, own_square, common_abs, common_square = deviations.sums[name].numpy()
    least, greatest = sums.least[name].numpy(), sums.greatest[name].numpy()
    own_counts, common_counts = (counts.numpy() for counts in deviations.counts[name])
    everything = count * mean.size
    return NodeStatistics(
        Moments(count, mean, own_abs / count, np.sqrt(own_square / max(count - 1, 1)), least, greatest, own_counts),
        Moments(
            everything,
            mean.mean(keepdims=True),
            common_abs.sum(keepdims=True) / everything,
            np.sqrt(common_square.sum(keepdims=True) / max(everything - 1, 1)),
            least.min(keepdims=True),
            greatest.max(keepdims=True),
            common_counts,
        ),
    )
