"""What an engine of any size costs, composed of what a few engines and compute units cost, which are synthesised.

An engine's parts are so many PEs, rows, lanes of a word and post lanes, and what connects them: each part's cells are
a linear function of these numbers. The PEs, the post lanes, the accumulators and the decoders are one module each,
whatever the engine's size is, so that their terms are counts times instances; the terms of what connects them are least
squares over the engines of `SAMPLES`. What has no part in an array or its decoder grows in all engines as it does in
those of `BASE`, from what it is in the smallest engine. `CostModel.difference` says by how much all that misses an
engine that is counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..sim.arrays import check_engine
from ..sim.descriptor import act_words
from ..sim.engine import Array, Decoder, EngineConfig
from .engine_count import PARTS, Cost, EngineCount, Wanted, count_engines
from .hierarchy import Memory

__all__ = ["CHECKED", "SAMPLES", "UNITS", "CostModel", "cost_model"]

SMALLEST = (4, 4, 1)
SAMPLES = (SMALLEST, (8, 4, 2), (4, 8, 4), (8, 8, 4))
"""Rows, lanes and post lanes of the engines of `BASE` that are counted; of all others the first."""
UNITS = ((8, 4), (4, 8), (16, 16))
"""Rows and lanes of the compute units that are counted besides."""
BASE: tuple[Array, Decoder] = ("digit", "raw")
COMPUTE = ("array", "decoder", "loader", "accumulators", "addresses")
"""The parts of a compute unit."""
CHECKED: Mapping[tuple[Array, Decoder], Sequence[tuple[int, int, int]]] = {
    BASE: ((16, 8, 4), (8, 16, 8), (16, 16, 8)),
    ("fusion", "raw"): ((16, 16, 8),),
    ("shift", "huffman"): ((8, 8, 4),),
}
"""Engines that composed counts are compared with."""

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
    """Costs of engines of one array and decoder.

    Parameters
    ----------
    counts : whole engines that were counted
    units : compute units
    like : the model of `BASE`, whose other parts grow as these do; nothing where `counts` say how they grow
    """

    counts: Sequence[EngineCount]
    units: Sequence[EngineCount] = ()
    like: "CostModel | None" = None

    @property
    def base(self) -> EngineConfig:
        """The configuration whose sizes vary."""
        return self.counts[0].config

    @cached_property
    def _terms(self) -> dict[str, np.ndarray]:
        """By part, float64 (terms, fields of a cost); of the parts that do not grow as another model's."""
        first = self.counts[0].parts
        return {name: self._fitted(name) for name in first if name in COMPUTE or self.like is None}

    def _fitted(self, name: str) -> np.ndarray:
        counts = [*self.counts, *self.units] if name in COMPUTE else self.counts
        rows = np.array([_row(name, count.config) for count in counts], dtype=np.float64)
        values = np.array([_values(count.parts[name]) for count in counts], dtype=np.float64)
        # Each engine counts as much as any other, however small it is.
        scale = 1 / np.maximum(values[:, 0], 1)[:, None]
        return np.linalg.lstsq(rows * scale, values * scale, rcond=None)[0]

    def parts(self, engine: EngineConfig) -> dict[str, Cost]:
        """What each part of an engine costs; the activation memory's blocks are counted, not composed."""
        found = {
            name: Cost(*np.maximum(0, np.array(_row(name, engine), dtype=np.float64) @ terms).tolist())
            for name, terms in self._terms.items()
        }
        if self.like is not None:
            theirs, smallest = self.like.parts(engine), self.like.counts[0].parts
            for name in set(smallest) - set(found):
                found[name] = _grown(self.counts[0].parts[name], smallest[name], theirs[name])
        bank = Memory(engine.word_bits, act_words(engine) // engine.act_banks)
        held = {"memory_bits": bank.bits * engine.act_banks, "m20ks": bank.m20ks * engine.act_banks}
        values = {field.name: getattr(found["memory"], field.name) for field in fields(Cost)} | held
        return {name: found[name] for name in PARTS if name in found} | {"memory": Cost(**values)}

    def cost(self, engine: EngineConfig) -> Cost:
        """What a whole engine costs."""
        return sum(self.parts(engine).values(), Cost())

    def difference(self, count: EngineCount) -> float:
        """By what share the composed gates exceed those of an engine that was counted whole."""
        return self.cost(count.config).gates / count.whole.gates - 1

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        like = None if self.like is None else self.like.to_json()
        counts, units = ([count.to_json() for count in each] for each in (self.counts, self.units))
        return {"counts": counts, "units": units, "like": like}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "CostModel":
        """What `to_json` made."""
        counts, units = ([EngineCount.from_json(each) for each in content[name]] for name in ("counts", "units"))
        return cls(counts, units, None if content["like"] is None else cls.from_json(content["like"]))


def _grown(mine: Cost, smallest: Cost, larger: Cost) -> Cost:
    """A part of the smallest engine as it is in a larger one, given the same of another array."""
    pairs = zip(_values(mine), _values(smallest), _values(larger), strict=True)
    return Cost(*(own * theirs / least if least else own + theirs for own, least, theirs in pairs))


def _row(name: str, engine: EngineConfig) -> list[int]:
    numbers = _numbers(engine)
    return [numbers[term] for term in TERMS[name]]


def _values(cost: Cost) -> list[float]:
    return [getattr(cost, field.name) for field in fields(Cost)]


def cost_model(
    array: Array,
    decoder: Decoder,
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> CostModel:
    """Count the engines and the compute units that the costs of an array with a decoder are composed of.

    `cache`, `notice` and `jobs` are as for `engine_count.count_engines`. What the sizes of bus, tiles and memory change
    in an engine's gates is left out: the engines are the default ones in these.
    """

    def config(rows: int, lanes: int, post_lanes: int = 1) -> EngineConfig:
        return EngineConfig(array=array, decoder=decoder, rows=rows, lanes=lanes, post_lanes=post_lanes)

    check_engine(config(*SMALLEST))
    of_base = (array, decoder) == BASE
    like = None if of_base else cost_model(*BASE, cache=cache, notice=notice, jobs=jobs)
    whole = [Wanted(config(*size)) for size in (SAMPLES if of_base else (SMALLEST,))]
    units = [Wanted(config(*size), unit=True) for size in UNITS]
    counts = count_engines([*whole, *units], cache=cache, notice=notice, jobs=jobs)
    return CostModel(counts[: len(whole)], counts[len(whole) :], like)
