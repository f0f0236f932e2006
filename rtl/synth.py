"""Gate counts: what a block costs, in two-input gates and in Stratix-10-style ALMs.

Every distinct module is synthesised once and the counts are summed over the hierarchy; a
hierarchical block's report also says what a flattened small case of it costs either way. Each
count stands with the tool's version, the flow's name and hash and the RTL's hash, because counts
move by tens of percent between tool versions.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from ..sim.engine import EngineConfig
from .alm import AlmBounds, AlmTally
from .blocks import Settings, block_named
from .depth import Paths, join_all
from .engine.engine import Engine
from .flows import ALM_FAMILY, FLIP_FLOP, MEMORY, TWO_INPUT, flows
from .hierarchy import Design, Memory, parse_design
from .runner import MULTIPLY, Found, Runner, Task
from .verilog import to_rtlil
from .yosys import Flow, tool_version

__all__ = [
    "ALM_FAMILY",
    "STRATIX_10_GX_2800",
    "TRANSISTORS_PER_EQUIVALENT",
    "AlmCount",
    "Device",
    "FlatCheck",
    "GateCount",
    "LevelCount",
    "MemoryCount",
    "ModuleCount",
    "Part",
    "PartsCount",
    "SynthReport",
    "block_design",
    "flat_check",
    "joined_paths",
    "module_tasks",
    "parts_sha256",
    "synthesize",
    "synthesize_component",
    "synthesize_engine",
]

TRANSISTORS_PER_EQUIVALENT = 4
"""A two-input NAND."""

ALMS_PER_MLAB = 10

_NUMBER = re.compile(r"_\d+$")

_NOTHING = AlmTally()


@dataclass(frozen=True, slots=True)
class Device:
    """What a device has."""

    name: str
    alms: int
    dsps: int
    m20ks: int


STRATIX_10_GX_2800 = Device("Stratix 10 GX 2800", 933_120, 5_760, 11_721)


@dataclass(frozen=True, slots=True)
class GateCount:
    """Two-input gates after technology mapping, inverters and flip-flops apart."""

    two_input: int
    by_type: dict[str, int]
    inverters: int
    flip_flops: int
    transistors: int
    depth: int
    """Gates and inverters on the longest path between registers or ports."""

    @property
    def equivalents(self) -> float:
        """Gate equivalents: CMOS transistors in units of a two-input NAND."""
        return self.transistors / TRANSISTORS_PER_EQUIVALENT


@dataclass(frozen=True, slots=True)
class AlmCount:
    """ALUTs by inputs, carry bits, registers and DSP blocks, and the ALMs that they pack into."""

    aluts: dict[int, int]
    carry_bits: int
    registers: int
    multipliers: dict[str, int]
    bounds: AlmBounds

    @property
    def alut_total(self) -> int:
        """ALUTs of any size, carry bits apart."""
        return sum(self.aluts.values())

    @property
    def dsps(self) -> int:
        """DSP blocks: two multipliers up to 18 x 19, or one of 27 x 27, each."""
        wide = self.multipliers.get("27x27", 0)
        return wide + -(-(sum(self.multipliers.values()) - wide) // 2)


@dataclass(frozen=True, slots=True)
class MemoryCount:
    """Memories, which stay memories: bits, and the blocks that hold them."""

    bits: int
    m20ks: int
    mlabs: int


@dataclass(frozen=True, slots=True)
class ModuleCount:
    """One instance of a distinct module: its own cells, its submodules apart."""

    name: str
    instances: int
    gates: int
    inverters: int
    flip_flops: int
    equivalents: float
    aluts: int
    carry_bits: int
    alms_low: int
    alms_high: int


@dataclass(frozen=True, slots=True)
class LevelCount:
    """A part of the hierarchy: all its instances together, with everything below them."""

    path: tuple[str, ...]
    """Names from below the top on; instances of one module with numbered names are one part."""
    instances: int
    gates: int
    inverters: int
    flip_flops: int
    equivalents: float
    aluts: int
    carry_bits: int
    alms_low: int
    alms_high: int
    dsps: int
    """Where DSP blocks are allowed; all other counts are without them."""
    memory: MemoryCount


@dataclass(frozen=True, slots=True)
class FlatCheck:
    """A small case of a hierarchical block, counted as a sum over the hierarchy and flattened."""

    params: dict[str, Any]
    gates_sum: int
    gates_flat: int
    aluts_sum: int
    aluts_flat: int
    """ALUTs and carry bits."""


@dataclass(frozen=True, slots=True)
class SynthReport:
    """What a block costs, and everything needed to count it again."""

    block: str
    params: dict[str, Any]
    tool: str
    flows: dict[str, str]
    rtl_sha256: str
    gates: GateCount
    alm: AlmCount
    """With DSP blocks forbidden."""
    alm_dsp: AlmCount
    """With DSP blocks allowed."""
    memory: MemoryCount
    modules: list[ModuleCount]
    levels: list[LevelCount]
    flat_check: FlatCheck | None

    @property
    def method(self) -> str:
        """How the counts were made."""
        return "flat" if len(self.modules) == 1 else "sum over the hierarchy"

    @property
    def method_text(self) -> str:
        """The same for a reader."""
        if len(self.modules) == 1:
            return self.method
        return f"{self.method}, each of {len(self.modules)} distinct modules synthesised once"

    def device_share(self, device: Device = STRATIX_10_GX_2800) -> dict[str, float]:
        """Fractions of a device, with DSP blocks forbidden (`alm_low`, `alm_high`) and allowed."""
        mlab_alms = ALMS_PER_MLAB * self.memory.mlabs
        return {
            "alm_low": (self.alm.bounds.low + mlab_alms) / device.alms,
            "alm_high": (self.alm.bounds.high + mlab_alms) / device.alms,
            "dsp": self.alm_dsp.dsps / device.dsps,
            "m20k": self.memory.m20ks / device.m20ks,
        }

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "schema": 1,
            "block": self.block,
            "params": self.params,
            "method": self.method,
            "tool": self.tool,
            "flows": self.flows,
            "rtl_sha256": self.rtl_sha256,
            "gates": asdict(self.gates) | {"equivalents": self.gates.equivalents},
            "alm": _alm_json(self.alm),
            "alm_dsp": _alm_json(self.alm_dsp),
            "alm_family": ALM_FAMILY,
            "memory": asdict(self.memory),
            "device": STRATIX_10_GX_2800.name,
            "device_share": self.device_share(),
            "modules": [asdict(module) for module in self.modules],
            "levels": [asdict(level) for level in self.levels],
            "flat_check": None if self.flat_check is None else asdict(self.flat_check),
        }


def _alm_json(count: AlmCount) -> dict[str, Any]:
    return {
        "aluts": {str(size): number for size, number in count.aluts.items()},
        "alut_total": count.alut_total,
        "carry_bits": count.carry_bits,
        "registers": count.registers,
        "multipliers": count.multipliers,
        "dsps": count.dsps,
        "alms_low": count.bounds.low,
        "alms_high": count.bounds.high,
    }


@dataclass
class _Sum:
    """Cells by type of a part of the hierarchy, by flow, and what else adds up."""

    gates: Counter[str] = field(default_factory=Counter)
    alm: Counter[str] = field(default_factory=Counter)
    alm_dsp: Counter[str] = field(default_factory=Counter)
    transistors: int = 0
    tally: AlmTally = _NOTHING
    tally_dsp: AlmTally = _NOTHING
    memory: Counter[str] = field(default_factory=Counter)

    def add(self, other: "_Sum", count: int = 1) -> None:
        """Add so many instances of another part."""
        for mine, theirs in (
            (self.gates, other.gates),
            (self.alm, other.alm),
            (self.alm_dsp, other.alm_dsp),
            (self.memory, other.memory),
        ):
            for kind, number in theirs.items():
                mine[kind] += number * count
        self.transistors += other.transistors * count
        self.tally = self.tally.plus(other.tally.times(count))
        self.tally_dsp = self.tally_dsp.plus(other.tally_dsp.times(count))

    @property
    def memories(self) -> MemoryCount:
        """Bits and blocks."""
        return MemoryCount(self.memory["bits"], self.memory["m20ks"], self.memory["mlabs"])


def _own_sum(memories: Sequence[Memory], gates: Found, alm: Found, alm_dsp: Found) -> _Sum:
    """A module's own cells, as its flows found them."""
    return _Sum(
        gates=Counter({kind: number for kind, number in gates["cells"].items() if kind != MEMORY}),
        alm=Counter({kind: number for kind, number in alm["cells"].items() if kind != MEMORY}),
        alm_dsp=Counter({kind: number for kind, number in alm_dsp["cells"].items() if kind != MEMORY}),
        transistors=gates["transistors"],
        tally=AlmTally(*alm["tally"]),
        tally_dsp=AlmTally(*alm_dsp["tally"]),
        memory=Counter(
            bits=sum(memory.bits for memory in memories),
            m20ks=sum(memory.m20ks for memory in memories),
            mlabs=sum(memory.mlabs for memory in memories),
        ),
    )


def _gate_kinds(cells: Counter[str]) -> dict[str, int]:
    return {kind: cells[f"$_{kind}_"] for kind in TWO_INPUT if cells[f"$_{kind}_"]}


def _gate_count(total: _Sum, depth: int) -> GateCount:
    by_type = _gate_kinds(total.gates)
    count = GateCount(
        two_input=sum(by_type.values()),
        by_type=by_type,
        inverters=total.gates["$_NOT_"],
        flip_flops=total.gates[FLIP_FLOP],
        transistors=total.transistors,
        depth=depth,
    )
    _check_all_counted(total.gates, count.two_input + count.inverters + count.flip_flops)
    return count


def _aluts(cells: Counter[str]) -> dict[int, int]:
    """ALUTs by inputs; an inverter that no reader absorbs is one of one input."""
    sizes = {1: cells["MISTRAL_NOT"]} | {size: cells[f"MISTRAL_ALUT{size}"] for size in range(2, 7)}
    return {size: number for size, number in sizes.items() if number}


def _alm_count(cells: Counter[str], tally: AlmTally) -> AlmCount:
    sizes = {"27x27": "MISTRAL_MUL27X27", "18x18": "MISTRAL_MUL18X18", "9x9": "MISTRAL_MUL9X9"}
    count = AlmCount(
        aluts=_aluts(cells),
        carry_bits=cells["MISTRAL_ALUT_ARITH"],
        registers=cells["MISTRAL_FF"],
        multipliers={size: cells[kind] for size, kind in sizes.items() if cells[kind]},
        bounds=tally.bounds,
    )
    _check_all_counted(cells, count.alut_total + count.carry_bits + count.registers + sum(count.multipliers.values()))
    return count


def _check_all_counted(cells: Counter[str], counted: int) -> None:
    if counted != cells.total():
        raise AssertionError(f"every cell must be of a counted kind, not {dict(cells)}")


def _level(path: tuple[str, ...], instances: int, total: _Sum) -> LevelCount:
    gates, alm = _gate_count(total, 0), _alm_count(total.alm, total.tally)
    return LevelCount(
        path=path,
        instances=instances,
        gates=gates.two_input,
        inverters=gates.inverters,
        flip_flops=gates.flip_flops,
        equivalents=gates.equivalents,
        aluts=alm.alut_total,
        carry_bits=alm.carry_bits,
        alms_low=alm.bounds.low,
        alms_high=alm.bounds.high,
        dsps=_alm_count(total.alm_dsp, total.tally_dsp).dsps,
        memory=total.memories,
    )


def _levels(design: Design, totals: Mapping[str, _Sum]) -> list[LevelCount]:
    """Every level below the top, equal modules with numbered names once."""
    levels: list[LevelCount] = []

    def walk(module: str, path: tuple[str, ...], instances: int) -> None:
        groups: dict[tuple[str, str], list[str]] = {}
        for child in design.children[module]:
            name = child.name.partition("$")[0]
            groups.setdefault((_NUMBER.sub("", name), child.module), []).append(name)
        for (stem, inner), names in groups.items():
            count = instances * len(names)
            below = (*path, stem if len(names) > 1 else names[0])
            total = _Sum()
            total.add(totals[inner], count)
            levels.append(_level(below, count, total))
            walk(inner, below, count)

    walk(design.top, (), 1)
    return levels


def _module_count(name: str, instances: int, own: _Sum) -> ModuleCount:
    gates, alm = _gate_count(own, 0), _alm_count(own.alm, own.tally)
    return ModuleCount(
        name=name,
        instances=instances,
        gates=gates.two_input,
        inverters=gates.inverters,
        flip_flops=gates.flip_flops,
        equivalents=gates.equivalents,
        aluts=alm.alut_total,
        carry_bits=alm.carry_bits,
        alms_low=alm.bounds.low,
        alms_high=alm.bounds.high,
    )


def _flat(design: Design, runner: Runner) -> _Sum:
    """The whole design as one module."""
    tasks = [Task(flow, design.rtlil, design.top, design.top) for flow in flows(flat=True)]
    found = runner.run(tasks[:2])
    gates, alm = (found[task] for task in tasks[:2])
    return _own_sum(design.all_memories(), gates, alm, alm)


def module_tasks(design: Design, label: str = "", *, dsp: bool = False) -> dict[str, list[Task]]:
    """What is to be run of every module of a design: gates, ALMs without DSP blocks unless `dsp`, and with them.

    Where nothing multiplies there is nothing for a DSP block to do, and two runs are all. `label` is what messages call
    the design.
    """
    gates, alm, alm_dsp = flows(flat=False)

    def chosen(text: str) -> list[Flow]:
        if MULTIPLY not in text:
            return [gates, alm]
        return [gates, alm_dsp] if dsp else [gates, alm, alm_dsp]

    texts = {module: design.alone(module) for module in design.instances}
    named = {module: f"{label}: {module}" if label else module for module in texts}
    return {module: [Task(flow, text, "top", named[module]) for flow in chosen(text)] for module, text in texts.items()}


def _all_of(tasks: Mapping[str, Sequence[Task]]) -> Iterator[Task]:
    yield from (task for several in tasks.values() for task in several)


def _own_counts(
    design: Design, tasks: Mapping[str, Sequence[Task]], found: Mapping[Task, Found]
) -> tuple[dict[str, _Sum], dict[str, Paths]]:
    """Every module's own cells and paths."""
    sums, paths = {}, {}
    for name, several in tasks.items():
        gates, alm = (found[task] for task in several[:2])
        sums[name] = _own_sum(design.memories[name], gates, alm, found[several[-1]])
        paths[name] = Paths(**gates["paths"])
    return sums, paths


def _run_modules(design: Design, runner: Runner) -> tuple[dict[str, _Sum], dict[str, Paths]]:
    tasks = module_tasks(design)
    return _own_counts(design, tasks, runner.run(_all_of(tasks)))


def _joined(design: Design, sums: Mapping[str, _Sum], paths: Mapping[str, Paths]) -> tuple[dict[str, _Sum], Paths]:
    """Cells of every module with its submodules, and the paths of the whole design."""
    totals: dict[str, _Sum] = {}

    def visit(name: str) -> None:
        if name in totals:
            return
        total = _Sum()
        total.add(sums[name])
        for child in design.children[name]:
            visit(child.module)
            total.add(totals[child.module])
        totals[name] = total

    visit(design.top)
    return totals, joined_paths(design, paths)


def joined_paths(design: Design, paths: Mapping[str, Paths]) -> Paths:
    """Paths of a design, of those of its modules."""
    return join_all(paths, lambda module: [(child.name, child.module) for child in design.children[module]], design.top)


def _report(
    design: Design, params: Mapping[str, Any], runner: Runner, check: Callable[[], FlatCheck] | None = None
) -> SynthReport:
    tool = tool_version()
    sums, own_paths = _run_modules(design, runner)
    totals, paths = _joined(design, sums, own_paths)
    total = totals[design.top]
    return SynthReport(
        block=design.top,
        params=dict(params),
        tool=tool,
        flows={flow.name: flow.sha256 for flow in flows(flat=False)},
        rtl_sha256=design.sha256,
        gates=_gate_count(total, paths.depth),
        alm=_alm_count(total.alm, total.tally),
        alm_dsp=_alm_count(total.alm_dsp, total.tally_dsp),
        memory=total.memories,
        modules=[_module_count(name, count, sums[name]) for name, count in design.instances.items()],
        levels=_levels(design, totals),
        flat_check=None if check is None else check(),
    )


def flat_check(component: wiring.Component, name: str, params: Mapping[str, Any], runner: Runner) -> FlatCheck:
    """Count a component as a sum over its hierarchy and as one flattened module."""
    design = parse_design(to_rtlil(component, name), name)
    totals, _ = _joined(design, *_run_modules(design, runner))
    counts = [
        (_gate_count(total, 0).two_input, _alm_count(total.alm, total.tally))
        for total in (totals[design.top], _flat(design, runner))
    ]
    (gates_sum, alm_sum), (gates_flat, alm_flat) = counts
    return FlatCheck(
        params=dict(params),
        gates_sum=gates_sum,
        gates_flat=gates_flat,
        aluts_sum=alm_sum.alut_total + alm_sum.carry_bits,
        aluts_flat=alm_flat.alut_total + alm_flat.carry_bits,
    )


def synthesize_component(
    component: wiring.Component,
    name: str,
    *,
    params: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> SynthReport:
    """Count what any component costs, under a name of the caller's.

    Parameters
    ----------
    component, name : what to count, and what its report calls it
    params : what the report says of its parameters
    cache : folder of earlier results, by default the user's cache
    notice : told what is being run
    jobs : syntheses at the same time, by default one for each processor
    """
    with Runner(cache, notice, jobs) as runner:
        return _report(parse_design(to_rtlil(component, name), name), params or {}, runner)


@dataclass(frozen=True)
class Part:
    """A component that a design has so many of."""

    name: str
    component: wiring.Component
    count: int


def _part_designs(parts: Sequence[Part]) -> list[Design]:
    # One name for all, so that equal parts of different designs have one text.
    return [parse_design(to_rtlil(part.component, "part"), "part") for part in parts]


def _parts_sha256(parts: Sequence[Part], designs: Sequence[Design]) -> str:
    counted = sorted(f"{part.count} {design.sha256}" for part, design in zip(parts, designs, strict=True))
    return hashlib.sha256("\n".join(counted).encode()).hexdigest()


def parts_sha256(parts: Sequence[Part]) -> str:
    """The hash of the RTL that `PartsCount` counts."""
    return _parts_sha256(parts, _part_designs(parts))


class PartsCount:
    """A design that is too large to be written out, counted by its parts: each is synthesised once.

    The runs begin at once; `report` waits for them.

    Parameters
    ----------
    parts : what the design is made of; what connects them must be wires
    runner : of the runs
    label : what messages call the design
    """

    def __init__(self, parts: Sequence[Part], runner: Runner, label: str = "") -> None:
        self._parts = parts
        self._designs = _part_designs(parts)
        self._tasks = [
            module_tasks(design, f"{label}: {part.name}" if label else part.name)
            for design, part in zip(self._designs, parts, strict=True)
        ]
        self._submitted = runner.submit(task for own in self._tasks for task in _all_of(own))

    def report(self, name: str, params: Mapping[str, Any], depth: Callable[[Sequence[Paths]], int]) -> SynthReport:
        """What they come to; `depth` makes the design's logic depth of the parts' paths, which come in their order."""
        found = self._submitted.found()
        total, modules, paths = _Sum(), [], []
        for part, design, tasks in zip(self._parts, self._designs, self._tasks, strict=True):
            totals, joined = _joined(design, *_own_counts(design, tasks, found))
            total.add(totals[design.top], part.count)
            modules.append(_module_count(part.name, part.count, totals[design.top]))
            paths.append(joined)
        return SynthReport(
            block=name,
            params=dict(params),
            tool=tool_version(),
            flows={flow.name: flow.sha256 for flow in flows(flat=False)},
            rtl_sha256=_parts_sha256(self._parts, self._designs),
            gates=_gate_count(total, depth(paths)),
            alm=_alm_count(total.alm, total.tally),
            alm_dsp=_alm_count(total.alm_dsp, total.tally_dsp),
            memory=total.memories,
            modules=modules,
            levels=[],
            flat_check=None,
        )


def block_design(block: str, settings: Settings | None = None) -> Design:
    """The RTL that `synthesize` counts: a block of the registry with its ``name: value`` settings."""
    _, component = block_named(block).create({} if settings is None else settings)
    return parse_design(to_rtlil(component, block), block)


def synthesize(
    block: str,
    settings: Settings | None = None,
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> SynthReport:
    """Count what a block of the registry costs.

    Parameters
    ----------
    block, settings : name in the registry and its ``name: value`` settings
    cache, notice, jobs : as for `synthesize_component`

    >>> synthesize("multiplier", {"product": 6}).gates.two_input  # doctest: +SKIP
    """
    entry = block_named(block)
    merged = entry.settings({} if settings is None else settings)

    design = block_design(block, settings)
    with Runner(cache, notice, jobs) as runner:

        def check() -> FlatCheck:
            assert entry.small is not None
            _, small = entry.create(entry.small)
            return flat_check(small, entry.name, entry.settings(entry.small), runner)

        return _report(design, merged, runner, None if entry.small is None else check)


def synthesize_engine(
    config: EngineConfig,
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> SynthReport:
    """Count what a whole engine costs, by the levels of its hierarchy; what engines share is synthesised once.

    `cache`, `notice` and `jobs` are as for `synthesize_component`.

    >>> synthesize_engine(EngineConfig(post_lanes=4)).gates.two_input  # doctest: +SKIP
    """
    mac = {f"mac.{name}": value for name, value in asdict(config.mac).items()}
    params = config.model_dump(exclude={"mac"}) | mac
    if notice is not None:
        notice("engine: RTL")
    return synthesize_component(Engine(config), "engine", params=params, cache=cache, notice=notice, jobs=jobs)
