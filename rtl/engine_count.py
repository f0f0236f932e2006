"""What an engine costs, part by part: of whole engines that are synthesised, every distinct module once.

Two flows count it: two-input gates, and ALMs with DSP blocks allowed, which a post lane's multipliers go into. Without
DSP blocks the mapping of these multipliers takes ten times as long as all else; `synth.synthesize_engine` counts it.

Elaborating an engine and looking its modules up takes seconds even where each is in the synthesis cache. So what a
configuration came to is kept too, for as long as no source file of the package changes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from functools import cache as remembered
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ..kernels.errors import FormatError
from ..sim.atomic import write_json
from ..sim.engine import EngineConfig
from .alm import AlmTally
from .depth import Paths
from .engine.compute import ComputeUnit
from .engine.engine import Engine
from .flows import FLIP_FLOP, TWO_INPUT, flows
from .hierarchy import Design, parse_design
from .runner import Runner
from .synth import TRANSISTORS_PER_EQUIVALENT, joined_paths, module_tasks
from .verilog import to_rtlil
from .yosys import cache_folder, tool_version

__all__ = ["PARTS", "Cost", "DesignCount", "EngineCount", "Wanted", "count_engines", "part_of"]

PARTS = {
    "array": ("compute.array", "compute.operands", "compute.split"),
    "decoder": ("compute.loader.bank", "compute.loader.decoder"),
    "loader": ("compute.loader",),
    "accumulators": ("compute.accumulators",),
    "addresses": ("compute",),
    "post lanes": ("post.lanes",),
    "post unit": ("post",),
    "memory": ("memory",),
    "control": ("",),
}
"""Where in the hierarchy each part lies: a module belongs to the part with the longest path that leads to it."""
REST = "control"
"""What is in no other part: control, bus, host transfer, and what connects the parts."""
DSP_TYPES = {"MISTRAL_MUL27X27": "wide", "MISTRAL_MUL18X18": "narrow", "MISTRAL_MUL9X9": "narrow"}
COUNT_FORMAT = 2
"""Counted up whenever what is kept of a configuration changes."""


@dataclass(frozen=True)
class Cost:
    """What a part of an engine costs; ALMs are with DSP blocks allowed."""

    gates: float = 0
    inverters: float = 0
    flip_flops: float = 0
    transistors: float = 0
    alms_low: float = 0
    alms_high: float = 0
    wide_multipliers: float = 0
    """Of 27 x 27 bits, a DSP block each."""
    narrow_multipliers: float = 0
    """Of up to 18 x 19 bits, two in a DSP block."""
    memory_bits: float = 0
    m20ks: float = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def equivalents(self) -> float:
        """Gate equivalents: transistors in units of a two-input NAND."""
        return self.transistors / TRANSISTORS_PER_EQUIVALENT

    @property
    def dsps(self) -> float:
        """DSP blocks."""
        return self.wide_multipliers + self.narrow_multipliers / 2


@dataclass(frozen=True)
class EngineCount:
    """A whole engine, or the compute unit of one, synthesised."""

    config: EngineConfig
    parts: dict[str, Cost]
    rtl_sha256: str
    depth: int
    """Gates and inverters on the longest path between registers or ports."""

    @property
    def whole(self) -> Cost:
        """All of it."""
        return sum(self.parts.values(), Cost())

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "config": self.config.model_dump(mode="json"),
            "rtl_sha256": self.rtl_sha256,
            "depth": self.depth,
            "parts": {
                name: {field.name: getattr(cost, field.name) for field in fields(Cost)}
                for name, cost in self.parts.items()
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "EngineCount":
        """What `to_json` made."""
        parts = {name: Cost(**cost) for name, cost in content["parts"].items()}
        return cls(EngineConfig(**content["config"]), parts, content["rtl_sha256"], content["depth"])


def part_of(path: str) -> str:
    """The part that a module at this path below the engine is in.

    >>> part_of("compute.array.row_0"), part_of("reader.walk")
    ('array', 'control')
    """
    found, longest = REST, -1
    for name, places in PARTS.items():
        for place in places:
            inside = not place or path == place or path.startswith(f"{place}.")
            if inside and len(place) > longest:
                found, longest = name, len(place)
    return found


class Wanted(NamedTuple):
    """An engine to be counted: whole, or its compute unit alone."""

    config: EngineConfig
    unit: bool = False

    @property
    def level(self) -> str:
        """Where in an engine it lies."""
        return "compute" if self.unit else ""

    @property
    def top(self) -> str:
        """Its name."""
        return "compute" if self.unit else "engine"

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.top} {self.config.rows} x {self.config.lanes}, {self.config.array}, {self.config.decoder}"

    def design(self) -> Design:
        """Its RTL."""
        component = ComputeUnit(self.config) if self.unit else Engine(self.config)
        return parse_design(to_rtlil(component, self.top), self.top)

    def file(self, folder: Path) -> Path:
        """Where its count is kept."""
        known = [COUNT_FORMAT, tool_version(), _flow_hashes(), _sources(), self.top]
        key = json.dumps([*known, self.config.model_dump(mode="json")])
        return folder / f"{self.top}-{hashlib.sha256(key.encode()).hexdigest()}.json"


def count_engines(
    wanted: Iterable[Wanted],
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> list[EngineCount]:
    """Synthesise engines or compute units, or recall what they came to.

    While the modules of one are run, the RTL of the next is made. `cache`, `notice` and `jobs` are as for
    `synth.synthesize_component`.
    """
    # What a clock is assumed to be is no hardware.
    clock = EngineConfig().clock_mhz
    every = [Wanted(config.model_copy(update={"clock_mhz": clock}), unit) for config, unit in wanted]
    folder = cache or cache_folder()
    found: dict[Wanted, EngineCount] = {}
    begun: dict[Wanted, DesignCount] = {}

    def finish(each: Wanted) -> None:
        counts = begun.pop(each)
        found[each] = EngineCount(each.config, counts.parts(each.level), counts.rtl_sha256, counts.depth())
        with suppress(OSError, FormatError):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(each.file(folder), found[each].to_json())

    with Runner(cache, notice, jobs) as runner:
        for each in dict.fromkeys(every):
            with suppress(OSError, ValueError):
                found[each] = EngineCount.from_json(json.loads(each.file(folder).read_text()))
            if each not in found:
                if notice is not None:
                    notice(f"{each.label}: RTL")
                begun[each] = DesignCount(each.design(), runner, each.label)
            # What has been found is kept soon.
            for other in [other for other, counts in begun.items() if counts.done]:
                finish(other)
        for each in list(begun):
            finish(each)
    return [found[each] for each in every]


def _flow_hashes() -> list[str]:
    return [flow.sha256 for flow in flows(flat=False)]


@remembered
def _sources() -> str:
    """Hash of all that an engine's RTL may depend on: the package's sources and Amaranth's version."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(version("amaranth").encode())
    for folder in ("kernels", "sim", "rtl"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Module:
    """A module's own cells."""

    cells: Counter[str]
    transistors: int
    tally: AlmTally
    multipliers: Counter[str]


class DesignCount:
    """The distinct modules of an engine's design, which are being run."""

    def __init__(self, design: Design, runner: Runner, label: str) -> None:
        self._design = design
        self._tasks = module_tasks(design, label, dsp=True)
        self._submitted = runner.submit(task for both in self._tasks.values() for task in both)

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        return all(future.done() for future in self._submitted.futures.values())

    @property
    def rtl_sha256(self) -> str:
        """The hash of the design's RTL."""
        return self._design.sha256

    def depth(self) -> int:
        """Of the whole design, joined over its hierarchy."""
        found = self._submitted.found()
        paths = {name: Paths(**found[both[0]]["paths"]) for name, both in self._tasks.items()}
        return joined_paths(self._design, paths).depth

    def parts(self, level: str) -> dict[str, Cost]:
        """The sums of all instances of each part's modules; the design lies at `level` in an engine."""
        found = self._submitted.found()
        design = self._design
        modules = {name: _module(*(found[task] for task in both)) for name, both in self._tasks.items()}
        counts: dict[str, Counter[str]] = {}

        def walk(module: str, path: str) -> None:
            counts.setdefault(part_of(path), Counter())[module] += 1
            for child in design.children[module]:
                name = child.name.partition("$")[0]
                walk(child.module, f"{path}.{name}" if path else name)

        walk(design.top, level)
        return {name: _cost(design, modules, counts[name]) for name in PARTS if name in counts}


def _module(logic: dict[str, Any], mapped: dict[str, Any]) -> _Module:
    kinds = Counter({DSP_TYPES[kind]: number for kind, number in mapped["cells"].items() if kind in DSP_TYPES})
    return _Module(Counter(logic["cells"]), logic["transistors"], AlmTally(*mapped["tally"]), kinds)


def _cost(design: Design, modules: Mapping[str, _Module], counts: Mapping[str, int]) -> Cost:
    cells: Counter[str] = Counter()
    multipliers: Counter[str] = Counter()
    transistors, tally, bits, m20ks = 0, AlmTally(), 0, 0
    for name, count in counts.items():
        module = modules[name]
        cells.update({kind: number * count for kind, number in module.cells.items()})
        multipliers.update({kind: number * count for kind, number in module.multipliers.items()})
        transistors += count * module.transistors
        tally = tally.plus(module.tally.times(count))
        bits += count * sum(memory.bits for memory in design.memories[name])
        m20ks += count * sum(memory.m20ks for memory in design.memories[name])
    bounds = tally.bounds
    return Cost(
        gates=sum(cells[f"$_{kind}_"] for kind in TWO_INPUT),
        inverters=cells["$_NOT_"],
        flip_flops=cells[FLIP_FLOP],
        transistors=transistors,
        alms_low=bounds.low,
        alms_high=bounds.high,
        wide_multipliers=multipliers["wide"],
        narrow_multipliers=multipliers["narrow"],
        memory_bits=bits,
        m20ks=m20ks,
    )
