"""What an engine of any size costs, composed of what a few engines of its kind cost, which are synthesised whole.

An engine's parts are so many PEs, rows, lanes of a word and post lanes, and what connects them: each part's cells are
a linear function of these numbers. The PEs, the post lanes, the accumulators and the decoders are one module each,
whatever the engine's size is, so that their terms are counts times instances; the terms of what connects them are least
squares over the engines of `SAMPLES`. `CostModel.difference` says by how much it misses an engine that is counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from ..sim.arrays import check_engine
from ..sim.descriptor import act_words
from ..sim.engine import Array, Decoder, EngineConfig
from .engine_count import Cost, EngineCount, count_engine
from .hierarchy import Memory

__all__ = ["CHECKED", "SAMPLES", "CostModel", "cost_model"]

SAMPLES = ((4, 4, 1), (8, 4, 2), (4, 8, 4), (8, 8, 4))
"""Rows, lanes and post lanes of the engines that are counted."""
CHECKED = ((16, 8, 4), (16, 16, 8))
"""Of those that the composed counts are compared with."""

TERMS: Mapping[str, tuple[str, ...]] = {
    "array": ("one", "rows", "lanes", "pes"),
    "decoder": ("one", "rows", "lanes"),
    "loader": ("one", "rows", "lanes", "pes"),
    "accumulators": ("one", "rows", "span"),
    "addresses": ("one", "rows", "lanes"),
    "post lanes": ("one", "post_lanes", "rows"),
    "post unit": ("one", "rows", "span"),
    "memory": ("one", "lanes"),
    "control": ("one", "rows", "lanes"),
}
"""What a part's cells grow with."""


def _numbers(engine: EngineConfig) -> dict[str, int]:
    """How often there is what the parts of an engine grow with."""
    return {
        "one": 1,
        "rows": engine.rows,
        "lanes": engine.lanes,
        "pes": engine.rows * engine.lanes,
        "span": min(engine.rows, engine.lanes),
        "post_lanes": engine.post_lanes,
    }


@dataclass(frozen=True)
class CostModel:
    """Costs of engines of one array and decoder, from engines that were counted."""

    counts: Sequence[EngineCount]

    @property
    def base(self) -> EngineConfig:
        """The configuration whose sizes vary."""
        return self.counts[0].config

    @cached_property
    def _terms(self) -> dict[str, np.ndarray]:
        """By part, float64 (terms, fields of a cost)."""
        return {name: self._fitted(name) for name in self.counts[0].parts}

    def _fitted(self, name: str) -> np.ndarray:
        rows = np.array([_row(name, count.config) for count in self.counts], dtype=np.float64)
        values = np.array([_values(count.parts[name]) for count in self.counts], dtype=np.float64)
        # Each engine counts as much as any other, however small it is.
        scale = 1 / np.maximum(values[:, 0], 1)[:, None]
        return np.linalg.lstsq(rows * scale, values * scale, rcond=None)[0]

    def parts(self, engine: EngineConfig) -> dict[str, Cost]:
        """What each part of an engine costs; the activation memory's blocks are counted, not composed."""
        found = {
            name: Cost(*np.maximum(0, np.array(_row(name, engine), dtype=np.float64) @ terms).tolist())
            for name, terms in self._terms.items()
        }
        bank = Memory(engine.word_bits, act_words(engine) // engine.act_banks)
        held = {"memory_bits": bank.bits * engine.act_banks, "m20ks": bank.m20ks * engine.act_banks}
        values = {field.name: getattr(found["memory"], field.name) for field in fields(Cost)} | held
        return found | {"memory": Cost(**values)}

    def cost(self, engine: EngineConfig) -> Cost:
        """What a whole engine costs."""
        return sum(self.parts(engine).values(), Cost())

    def difference(self, count: EngineCount) -> float:
        """By what share the composed gates exceed those of an engine that was counted whole."""
        return self.cost(count.config).gates / count.whole.gates - 1


def _row(name: str, engine: EngineConfig) -> list[int]:
    numbers = _numbers(engine)
    return [numbers[term] for term in TERMS[name]]


def _values(cost: Cost) -> list[float]:
    return [getattr(cost, field.name) for field in fields(Cost)]


def cost_model(
    array: Array,
    decoder: Decoder,
    *,
    samples: Sequence[tuple[int, int, int]] = SAMPLES,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> CostModel:
    """Count the engines of `samples` with an array and a decoder.

    `cache`, `notice` and `jobs` are as for `engine_count.count_engine`. What the sizes of bus, tiles and memory change
    in an engine's gates is left out: the engines are the default ones in these.
    """
    check_engine(EngineConfig(array=array, decoder=decoder))
    engines = [
        EngineConfig(array=array, decoder=decoder, rows=rows, lanes=lanes, post_lanes=post_lanes)
        for rows, lanes, post_lanes in samples
    ]
    return CostModel([count_engine(engine, cache=cache, notice=notice, jobs=jobs) for engine in engines])
