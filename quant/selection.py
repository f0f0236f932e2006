"""Which width each block of a network gets: the least total error within a budget, exactly.

Source of the problem: Dong et al., "HAWQ-V2" (NeurIPS 2020), section 3.2: blocks sorted by sensitivity, widths that do
not fall with it (the *ordering*: C(L + m - 1, m - 1) settings of L blocks and m widths), and of these the one of least
error for every size, the Pareto front. The integer program without the ordering is that of HAWQ-V3 (2021).

Errors and costs are totals over blocks and are compared as integers: costs are such (bits, BOPs, cycles), errors are
rounded once, to multiples of a power of two that leaves some 60 bits for the greatest total. What is equal is ``==``.

The front comes by enumeration where the settings are few, else by dynamic programming, block by block, over the
non-dominated partial settings. Both give the same front: let p and q be settings of the first blocks, p of no more cost
and no more error than q (and, under the ordering, of the same last width). Whatever completes q completes p, and adds
the same integers to both; so every point that q leads to is one that p reaches or beats, and q can go.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np

from ..kernels.errors import CapacityError, FormatError, MismatchError, UnsupportedError

__all__ = ["ENUMERATED", "Candidates", "Front", "Search", "Setting"]

ENUMERATED = 1 << 18
"""Settings up to which the front is enumerated; dynamic programming takes over beyond."""
EXACT_BITS = 60
OBJECTIVE = 1e6
"""What the integer program's objective is at the best setting known before: HiGHS' absolute gap is 1e-6."""
HALF = 0.5
"""Beyond the budget, in units between which no cost lies: rounding does not decide what fits."""

Search = Literal["auto", "enumeration", "dynamic"]


@dataclass(frozen=True)
class Setting:
    """A width for each block, by name, with its exact totals; `omega` is the error as a real number."""

    bits: Mapping[str, int]
    cost: int
    error: int
    omega: float


@dataclass(frozen=True, eq=False)
class Candidates:
    """Blocks, the widths that they may have, and what each costs; `of` makes one of real errors.

    Parameters
    ----------
    names : blocks (L)
    bits : widths (m), rising
    error : int64 (L, m), in multiples of `unit`
    cost : int64 (L, m)
    sensitivity : float64 (L,): blocks of more do not get fewer bits, where the ordering holds; of equal ones the later
        does not
    """

    names: tuple[str, ...]
    bits: tuple[int, ...]
    error: np.ndarray
    unit: float
    cost: np.ndarray
    sensitivity: np.ndarray

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        bits: Sequence[int],
        error: np.ndarray,
        cost: np.ndarray,
        sensitivity: np.ndarray,
    ) -> "Candidates":
        """Candidates of real errors (L, m), not negative, and whole costs (L, m)."""
        shape = (len(names), len(bits))
        if min(shape) < 1 or list(bits) != sorted(set(bits)):
            raise FormatError(f"candidates must be at least one block and rising widths, not {shape[0]} and {bits}")
        error, cost = np.asarray(error, dtype=np.float64), np.asarray(cost)
        if error.shape != shape or cost.shape != shape or np.shape(sensitivity) != shape[:1]:
            raise FormatError(f"errors and costs must have shape {shape}, not {error.shape} and {cost.shape}")
        if not (np.isfinite(error).all() and error.min() >= 0 and np.isfinite(sensitivity).all()):
            raise FormatError("errors must be finite and not negative, sensitivities finite")
        if not np.issubdtype(cost.dtype, np.integer) or cost.min() < 0:
            raise FormatError("costs must be integers, not negative")
        greatest = float(error.max(axis=1).sum())
        unit = 2.0 ** (math.frexp(greatest)[1] - EXACT_BITS) if greatest else 1.0
        whole = np.rint(error / unit).astype(np.int64)
        return cls(tuple(names), tuple(bits), whole, unit, cost.astype(np.int64), np.asarray(sensitivity, np.float64))

    @cached_property
    def order(self) -> np.ndarray:
        """Blocks by rising sensitivity."""
        return np.argsort(self.sensitivity, kind="stable")

    def settings(self, ordered: bool) -> int:
        """How many settings there are."""
        blocks, widths = self.cost.shape
        return math.comb(blocks + widths - 1, widths - 1) if ordered else widths**blocks

    @property
    def sizes(self) -> tuple[int, int]:
        """Least and greatest cost of a setting."""
        return int(self.cost.min(axis=1).sum()), int(self.cost.max(axis=1).sum())

    def setting(self, levels: np.ndarray) -> Setting:
        """The setting of each block's index of `bits` (L,)."""
        rows = np.arange(len(self.names))
        error = int(self.error[rows, levels].sum())
        bits = {name: self.bits[level] for name, level in zip(self.names, levels, strict=True)}
        return Setting(bits, int(self.cost[rows, levels].sum()), error, error * self.unit)

    def front(self, ordered: bool = True, search: Search = "auto") -> "Front":
        """All settings that none beats in both totals, with the ordering or without."""
        few = self.settings(ordered) <= ENUMERATED
        if search == "enumeration" and not few:
            raise UnsupportedError(
                f"enumeration must be of at most {ENUMERATED} settings, not {self.settings(ordered)}: "
                f"search = dynamic gives the same front"
            )
        if search == "dynamic" or not few:
            return self._dynamic(ordered)
        levels = self.enumerate(ordered)
        kept = _front(*self.totals(levels))
        return Front(self, levels[kept], *self.totals(levels[kept]))

    def enumerate(self, ordered: bool = True) -> np.ndarray:
        """Every setting: indices of `bits`, int8 (settings, L)."""
        blocks, widths = self.cost.shape
        if not ordered:
            return np.asarray(np.indices((widths,) * blocks, dtype=np.int8).reshape(blocks, -1).T)
        # Where, in the order of sensitivity, each width but the first begins.
        cuts = np.array(list(combinations_with_replacement(range(blocks + 1), widths - 1)), dtype=np.int64)
        sorted_levels = (cuts[:, None, :] <= np.arange(blocks)[None, :, None]).sum(axis=2, dtype=np.int8)
        levels: np.ndarray = np.empty_like(sorted_levels)
        levels[:, self.order] = sorted_levels
        return levels

    def totals(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs and errors, int64 (settings,), of settings (settings, L)."""
        cost, error = np.zeros((2, len(levels)), dtype=np.int64)
        for block in range(len(self.names)):
            cost += self.cost[block, levels[:, block]]
            error += self.error[block, levels[:, block]]
        return cost, error

    def _dynamic(self, ordered: bool) -> "Front":
        cost, error, last = np.zeros((3, 1), dtype=np.int64)
        trail: list[tuple[np.ndarray, np.ndarray]] = []
        for block in self.order:
            parts = []
            for level in range(len(self.bits)):
                source = np.flatnonzero(last <= level) if ordered else np.arange(len(last))
                costs, errors = cost[source] + self.cost[block, level], error[source] + self.error[block, level]
                kept = _front(costs, errors)
                parts.append((costs[kept], errors[kept], np.full(len(kept), level), source[kept]))
            cost, error, last, parent = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            if not ordered:
                kept = _front(cost, error)
                cost, error, last, parent = cost[kept], error[kept], last[kept], parent[kept]
            trail.append((last, parent))
        at = _front(cost, error)
        cost, error = cost[at], error[at]
        levels = np.empty((len(at), len(self.names)), dtype=np.int8)
        for block, (chosen, parent) in zip(self.order[::-1], trail[::-1], strict=True):
            levels[:, block], at = chosen[at], parent[at]
        return Front(self, levels, cost, error)

    def highest(self, budget: int, least: int) -> Setting:
        """The greatest error of the settings in the ordering that cost `least` to `budget`: HAWQ-V2's ablation."""
        if self.settings(True) > ENUMERATED:
            raise UnsupportedError(
                f"the greatest error must be sought among at most {ENUMERATED} settings, not {self.settings(True)}"
            )
        levels = self.enumerate()
        cost, error = self.totals(levels)
        fitting = np.flatnonzero((cost >= least) & (cost <= budget))
        if not len(fitting):
            raise CapacityError(f"a setting must cost {least} to {budget}, and none in the ordering does")
        return self.setting(levels[fitting[np.lexsort((cost[fitting], -error[fitting]))[0]]])

    def program(self, budget: int, ordered: bool = False) -> Setting:
        """The least error within the budget by `scipy.optimize.milp` (HiGHS), which knows nothing of fronts.

        HiGHS counts in floating point, with tolerances: costs are divided by their common divisor and the objective is
        scaled by the best uniform setting, beyond whose error no block's may be. The solution is checked in integers;
        `MismatchError` where it breaks a constraint.
        """
        # Imported here: what trains a network needs no SciPy.
        from scipy.optimize import Bounds, LinearConstraint, milp

        blocks, widths = self.cost.shape
        if budget < self.sizes[0]:
            raise CapacityError(f"budget must be at least {self.sizes[0]}, not {budget}")
        uniform = self.totals(np.repeat(np.arange(widths)[:, None], blocks, axis=1))
        fitting = uniform[1][uniform[0] <= budget]
        bound = int(fitting.min()) if len(fitting) else int(self.error.max(axis=1).sum())
        scaled = np.minimum(self.error, bound + 1) * (OBJECTIVE / max(bound, 1))
        divisor = max(1, int(np.gcd.reduce(self.cost, axis=None)))
        one_width = np.kron(np.eye(blocks), np.ones(widths))
        limits = [
            LinearConstraint(one_width, 1, 1),
            LinearConstraint((self.cost // divisor).reshape(1, -1), ub=budget // divisor + HALF),
        ]
        if ordered and blocks > 1:
            # At least so many bits or not, for each width but the first: not more so in a less sensitive block.
            at_least = np.zeros((blocks - 1, widths - 1, blocks, widths))
            for row, (less, more) in enumerate(zip(self.order, self.order[1:], strict=False)):
                for level in range(1, widths):
                    at_least[row, level - 1, less, level:] = 1
                    at_least[row, level - 1, more, level:] = -1
            limits.append(LinearConstraint(at_least.reshape(-1, blocks * widths), ub=0))
        found = milp(
            scaled.reshape(-1),
            integrality=np.ones(blocks * widths),
            bounds=Bounds(0, (self.error <= bound).astype(np.float64).reshape(-1)),
            constraints=limits,
            options={"mip_rel_gap": 0},
        )
        if found.x is None:
            raise CapacityError(f"budget must be one that a setting keeps, not {budget}: {found.message}")
        taken = np.rint(found.x).astype(np.int64).reshape(blocks, widths)
        levels = taken.argmax(axis=1)
        chosen = self.setting(levels)
        rises = not ordered or bool((np.diff(levels[self.order]) >= 0).all())
        if not (found.success and rises and chosen.cost <= budget and (taken.sum(axis=1) == 1).all()):
            raise MismatchError(
                f"HiGHS must end in a setting that costs at most {budget}, not in one of {chosen.cost} "
                f"({found.message})"
            )
        return chosen


@dataclass(frozen=True, eq=False)
class Front:
    """Settings by rising cost and falling error: `levels` int8 (F, L), `cost` and `error` int64 (F,)."""

    candidates: Candidates
    levels: np.ndarray
    cost: np.ndarray
    error: np.ndarray

    def __len__(self) -> int:
        return len(self.cost)

    @property
    def omega(self) -> np.ndarray:
        """Errors as real numbers (F,)."""
        return np.asarray(self.error * self.candidates.unit)

    def at(self, budget: int) -> Setting:
        """The setting of least error that costs no more than the budget."""
        index = int(np.searchsorted(self.cost, budget, side="right")) - 1
        if index < 0:
            raise CapacityError(f"budget must be at least {self.cost[0]}, not {budget}")
        return self.candidates.setting(self.levels[index])


def _front(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Indices of the points that no other beats in both numbers or equals, by rising cost."""
    order = np.lexsort((error, cost))
    best = np.minimum.accumulate(error[order])
    return np.asarray(order[np.concatenate(([True], error[order][1:] < best[:-1]))])
