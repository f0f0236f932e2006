"""Bases of activations for `NetworkBuilder`: what planes are worth, and which values become which words.

LQ-Net (Zhang, Yang, Ye, Hua, ECCV 2018, section 3.1) quantises activations to the nearest of ``sum_j beta_j b_j`` with
b in {0, 1}; ABC-Net (Lin, Zhao, Pan, NeurIPS 2017, section 3.2) to ``sum_j beta_j s_j`` with s in {-1, +1}, each s with
a threshold of its own. Either way a value's word follows from how many thresholds it reaches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..kernels.errors import FormatError
from ..kernels.planes import TABLE_ENTRIES, PlaneTable
from .manifest import ActivationPlanes
from .validation import checked

__all__ = ["PlaneBasis", "UniformCounts"]

FARTHEST = 1 << 56
"""Beyond every corrected value."""
TRIED_STEPS = 400
"""Steps of uniform counts that are tried."""


class UniformCounts(NamedTuple):
    """A basis behind a requantiser of equal steps: ``count = clamp(round(value / step) + zero, 0, 15)``; its table."""

    step: float
    zero: int
    table: tuple[int, ...]
    error: float
    """By how much a threshold is missed, at most, in the units of the values."""


@dataclass(frozen=True, slots=True)
class PlaneBasis:
    """How real values become words of activation planes: `lq_net`, `abc_net` and `sign` make them.

    Parameters
    ----------
    spec : what the planes of a word are worth
    thresholds : rising real numbers, 1..15: a value ``v >= t`` reaches t
    words : the word of a value that reaches 0, 1, .. of them
    pad : the word that padding feeds
    """

    spec: ActivationPlanes
    thresholds: tuple[float, ...]
    words: tuple[int, ...]
    pad: int

    def __post_init__(self) -> None:
        count = len(self.thresholds)
        if not 1 <= count < TABLE_ENTRIES or len(self.words) != count + 1:
            raise FormatError(
                f"thresholds of activation planes must be 1 to {TABLE_ENTRIES - 1}, with a word more, "
                f"not {count} with {len(self.words)}"
            )
        if not np.isfinite(self.thresholds).all() or list(self.thresholds) != sorted(self.thresholds):
            raise FormatError(f"thresholds of activation planes must be finite and rising, not {self.thresholds}")

    @classmethod
    def lq_net(cls, beta: Sequence[float]) -> "PlaneBasis":
        """The nearest of ``sum_j beta[j] * b_j`` with b in {0, 1}, the greater of two that are as near; J 1..4."""
        spec = checked(ActivationPlanes, values="bits", beta=tuple(map(float, beta)))
        words = PlaneTable.of_basis(np.array(spec.beta), signs=False).entries[: 1 << len(spec.beta)]
        levels = [sum(spec.beta[plane] for plane in range(len(spec.beta)) if word >> plane & 1) for word in words]
        middles = tuple((low + high) / 2 for low, high in pairwise(levels))
        return cls(spec, middles, words, 0).padded()

    @classmethod
    def abc_net(cls, beta: Sequence[float], thresholds: Sequence[float]) -> "PlaneBasis":
        """``sum_j beta[j] * s_j``, where s_j is +1 for values from ``thresholds[j]`` on, else -1; J 1..8.

        In the paper's terms a threshold is ``0.5 - v_j``.
        """
        spec = checked(ActivationPlanes, values="signs", beta=tuple(map(float, beta)))
        if len(thresholds) != len(spec.beta):
            raise FormatError(f"thresholds must be one for each beta ({len(spec.beta)}), not {len(thresholds)}")
        order = sorted(range(len(thresholds)), key=lambda plane: thresholds[plane])
        words = tuple(sum(1 << plane for plane in order[:count]) for count in range(len(order) + 1))
        return cls(spec, tuple(float(thresholds[plane]) for plane in order), words, 0).padded()

    @classmethod
    def sign(cls, beta: float = 1.0) -> "PlaneBasis":
        """``beta * sign(v)``, the sign of 0 being +1."""
        return cls.abc_net([beta], [0.0])

    def padded(self, pad: int | None = None) -> "PlaneBasis":
        """The same with another word for padding; the word of a real 0 unless given."""
        return replace(self, pad=self.words[sum(0.0 >= each for each in self.thresholds)] if pad is None else pad)

    def worth(self, words: np.ndarray) -> np.ndarray:
        """What words stand for, float64, without a grid's scale."""
        bits = np.asarray(words)[..., None] >> np.arange(len(self.spec.beta)) & 1
        return np.asarray((2 * bits - 1 if self.spec.signs else bits) @ np.array(self.spec.beta))

    def integer_thresholds(self, step: np.ndarray) -> np.ndarray:
        """The least integers v with ``v * step >= t``: int64 (channels, thresholds) for steps (channels,)."""
        exact = np.ceil(np.array(self.thresholds) / np.asarray(step, dtype=np.float64)[:, None])
        return np.clip(exact, -FARTHEST, FARTHEST).astype(np.int64)

    def uniform(self, step: float) -> UniformCounts:
        """The counts of equal steps that come nearest, of codes that have a step themselves.

        Of codes, half-way between two is as good as anywhere: so a single threshold is always met.
        """
        wanted = (np.ceil(np.array(self.thresholds) / step) - 0.5) * step
        span = float(wanted[-1] - wanted[0])
        steps = [step] if span == 0 else span / np.linspace(1, TABLE_ENTRIES - 2, TRIED_STEPS)
        best: UniformCounts | None = None
        for size in steps:
            for zero in {int(np.floor(0.5 - wanted[0] / size)), int(np.ceil(0.5 - wanted[0] / size))}:
                # The boundary below count c lies at (c - zero - 1/2) steps.
                first = np.rint(wanted / size + zero + 0.5)
                if first[0] < 1 or first[-1] >= TABLE_ENTRIES:
                    continue
                error = float(np.abs((first - zero - 0.5) * size - wanted).max())
                if best is None or error < best.error:
                    table = tuple(self.words[int((first <= count).sum())] for count in range(TABLE_ENTRIES))
                    best = UniformCounts(float(size), zero, table, error)
        if best is None:
            raise AssertionError("counts of some step hold every basis")
        return best
