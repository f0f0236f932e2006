"""Random networks in co-simulation: every case against the simulator, and what the cases hit."""

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from ...sim.compile import compile_network
from ...sim.random_cases import ENGINES, TIED, Steered, random_cases
from ...sim.random_options import GROUPS
from ..cxxrtl import CompiledDesign
from .cosim import NetworkComparison, regress_network

__all__ = ["RandomRegress", "random_report", "regress_random"]

Designs = Callable[[str], CompiledDesign]


@dataclass(frozen=True, slots=True)
class RandomRegress:
    """All cases in order, the hits of every option, and how long the engines took to build, by name."""

    seed: int
    cases: tuple[NetworkComparison, ...]
    hits: Mapping[str, int]
    build_seconds: Mapping[str, float]
    seconds: float

    @property
    def failed(self) -> list[NetworkComparison]:
        """The cases that differ."""
        return [case for case in self.cases if not case.passed]

    @property
    def overflowing(self) -> int:
        """Cases in which something overflows."""
        return sum(case.overflows > 0 for case in self.cases)

    @property
    def stalled(self) -> int:
        """Cases whose bus stalls."""
        return sum(case.stall > 0 for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return {
            "schema": 1,
            "seed": self.seed,
            "passed": not self.failed,
            "overflowing": self.overflowing,
            "stalled": self.stalled,
            "hits": dict(self.hits),
            "build_seconds": dict(self.build_seconds),
            "seconds": self.seconds,
            "cases": [case.to_json() for case in self.cases],
        }


def regress_random(
    count: int,
    design: Designs,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> RandomRegress:
    """Run so many random cases, the same for the same seed.

    `design` gives the compiled probe of an engine of `ENGINES`: with formats as inputs, but for `TIED`. It is
    called once for each engine that is needed. `progress` is called with what comes next.
    """
    began = time.perf_counter()
    draw = Steered(seed)
    designs: dict[str, CompiledDesign] = {}
    compared = []
    for number, case in enumerate(random_cases(count, seed, draw)):
        if case.build not in designs:
            if progress is not None:
                progress(f"compiling engine {case.build} ({'tied' if case.build == TIED else 'any'} format)")
            designs[case.build] = design(case.build)
        if progress is not None:
            progress(f"case {number + 1} of {count}")
        compiled = compile_network(case.network, case.engine)
        stalls = zlib.crc32(case.name.encode())
        compared.append(regress_network(designs[case.build], compiled, case.codes, stall=case.stall, seed=stalls))
    seconds = {name: built.build_seconds for name, built in designs.items()}
    return RandomRegress(seed, tuple(compared), dict(draw.hits), seconds, time.perf_counter() - began)


def random_report(result: RandomRegress) -> Group:
    """The hits of every option, and the sums."""
    table = Table("option", "hits", title="what the cases hit")
    for group, values in GROUPS.items():
        table.add_row(group, "   ".join(f"{value}: {result.hits.get(f'{group} {value}', 0)}" for value in values))
    cycles, spent = sum(case.cycles for case in result.cases), sum(case.seconds for case in result.cases)
    sums = (
        f"{len(result.cases)} cases, {len(result.failed)} differ; {sum(case.images for case in result.cases)} images, "
        f"{sum(case.layers * case.images for case in result.cases):,} layers, "
        f"{sum(case.digits for case in result.cases):,} digits, "
        f"{sum(case.counters for case in result.cases):,} counters, {cycles:,} cycles",
        f"{result.overflowing} cases overflow, the bus stalls in {result.stalled}; {len(result.build_seconds)} of "
        f"{len(ENGINES)} engines built in {sum(result.build_seconds.values()):.0f} s, cases run in {spent:.0f} s",
        *(f"differs: {case.network} on {case.engine}: {case.mismatch}" for case in result.failed),
    )
    return Group(table, *sums)
