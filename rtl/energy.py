"""Estimate B of an image's energy: the engine's own gates, switching as its RTL does in co-simulation.

A module's gates are those that synthesis finds in it (`synth.py`: two-input gates and inverters), and they are taken to
change as often as its nets do, bit for bit: ports, registers and everything else that has a name in it. What flip-flops
do is counted, not assumed: their changes, and their clock in every cycle, since the RTL gates no clock. Memories are no
gates: their accesses are counted here too and must be those of `sim/events.py`, their energies are estimate A's.

`check_row` says how good that is: a row of the array as a mapped netlist, with the very inputs that it had in the
engine, every gate evaluated in every cycle.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache as memoised
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.errors import MismatchError
from ..sim.compile import CompiledNetwork
from ..sim.energy import GateEnergies, MeasuredEnergy, ModuleEnergy, Range
from ..sim.engine import EngineConfig
from ..sim.events import layer_events, slot_count, stream_words, weight_tiles
from .activity import ACTIVITY_DRIVER, Activity, ActivityCounter
from .cxxrtl import CompiledDesign, bits_of, compile_design
from .engine.cosim import EngineProbe, EngineSimulation
from .engine.engine import Engine
from .flows import FLIP_FLOP, TWO_INPUT, flows
from .hierarchy import Design, parse_design, subdesign
from .netlist import Netlist
from .runner import Runner, Task
from .verilog import to_rtlil
from .yosys import tool_version

__all__ = ["RowCheck", "check_row", "engine_gates", "measure", "watched_engine"]

BUSY = "engine.busy"
LIMIT = 10_000_000
"""Cycles of an image after which an engine counts as hung."""

GROUPS = {
    "compute.array.row": "array: rows",
    "compute.array": "array: the rest",
    "compute.accumulators": "accumulators",
    "compute.loader": "weight loader",
    "compute": "sequencer, addresses",
    "control": "control",
    "reader": "bus reader",
    "memory": "activation memory's ports",
    "transfer": "transfers",
    "post.lanes": "post lanes",
    "post": "post unit: the rest",
    "": "engine: the rest",
}
"""Parts of the engine by the beginning of their instances' names, the longest first."""

ACCESSES = {
    "activation reads": ("memory.array_read", "memory.post_read"),
    "activation writes": ("memory.write_mask",),
    "accumulator reads": ("post.drain.valid",),
    "accumulator writes": ("compute.accumulators.valid",),
    "input-sum memory": ("post.drain.valid",),
    "weight tiles": ("compute.loader.swap",),
}
"""Accesses by the strobes that are up in their cycles; `_bank` has what takes two strobes together."""
BANK = tuple(f"compute.accumulators.{name}" for name in ("valid", "first", "add_input"))


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a module: its own gates, inverters among them, and flip-flops; submodules and memories apart."""

    path: str
    gates: int
    flip_flops: int


def _probe(config: EngineConfig) -> EngineProbe:
    return EngineProbe(Engine(config))


def _alike(config: EngineConfig) -> EngineConfig:
    """The engine without what is not in its RTL."""
    return config.model_copy(update={"bus_latency": 0, "clock_mhz": 1.0})


def watched_engine(config: EngineConfig, cache: Path | None = None) -> CompiledDesign:
    """The engine with its probe, all signals and the activity counter; what an earlier call compiled is taken."""
    config = _alike(config)
    recipe = f"EngineProbe(Engine({config!r}, formats=False))"
    return compile_design(lambda: _probe(config), recipe=recipe, driver=ACTIVITY_DRIVER, debug=True, cache=cache)


@memoised
def _rtlil(config: EngineConfig) -> str:
    return to_rtlil(_probe(config), "top")


def _design(config: EngineConfig) -> Design:
    return parse_design(_rtlil(_alike(config)), "top")


def engine_gates(
    design: Design, cache: Path | None = None, notice: Callable[[str], None] | None = None, jobs: int | None = None
) -> list[Instance]:
    """Gates and flip-flops of every instance below the top, each distinct module synthesised once."""
    flow = flows(flat=False)[0]
    tasks = {name: Task(flow, design.alone(name), "top", name) for name in design.bodies if name != design.top}
    with Runner(cache, notice, jobs) as runner:
        found = runner.run(tasks.values())

    def walk(module: str, path: str) -> Iterator[Instance]:
        for child in design.children[module]:
            below = f"{path}.{child.name}" if path else child.name
            cells = found[tasks[child.module]]["cells"]
            gates = sum(cells.get(f"$_{kind}_", 0) for kind in (*TWO_INPUT, "NOT"))
            yield Instance(below, gates, cells.get(FLIP_FLOP, 0))
            yield from walk(child.module, below)

    return list(walk(design.top, ""))


def _plain(path: str) -> str:
    """An instance's or a signal's name below the engine, without what makes it unique."""
    return re.sub(r"\$\d+", "", path).partition("engine")[2].lstrip(".")


def _group(path: str) -> str:
    plain = _plain(path)
    return next(name for start, name in GROUPS.items() if plain.startswith(start))


def measure(
    compiled: CompiledNetwork,
    codes: np.ndarray,
    energies: GateEnergies | None = None,
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> MeasuredEnergy:
    """Estimate B of a compiled network over images' codes (N, C, H, W), an image on average.

    Raises `MismatchError` where the RTL makes other accesses than the model counts.
    """
    energies = energies or GateEnergies()
    tell = notice or (lambda text: None)
    tell("gates of the engine")
    instances = engine_gates(_design(compiled.engine), cache, notice, jobs)
    tell("compiling the engine")
    design = watched_engine(compiled.engine)
    activity, bank = _run(design, compiled, codes, tell)
    images = len(codes)
    accesses = _accesses(compiled, activity, bank, images)
    modules = _modules(instances, activity, images, energies)
    return MeasuredEnergy(images, activity.cycles / images, modules, accesses, _notes(energies, images))


def _run(
    design: CompiledDesign, compiled: CompiledNetwork, codes: np.ndarray, tell: Callable[[str], None]
) -> tuple[Activity, Counter[str]]:
    """Activity while the engine is busy, and accesses that no single strobe says, of all images together."""
    found: Counter[str] = Counter()
    with (
        EngineSimulation(design, compiled) as engine,
        ActivityCounter(engine.simulation, BUSY) as counter,
    ):
        names = _names(net.name for net in counter.nets)
        trace = counter.trace([names[name] for name in BANK])
        for image, each in enumerate(codes):
            tell(f"image {image + 1} of {len(codes)}")
            found["bus words"] += engine.run(each, LIMIT).words_read
            record = trace.take()
            valid, first, adds = (record.words[names[name]][:, 0] != 0 for name in BANK)
            found["accumulator reads"] += int((valid & ~first).sum())
            # An input sum is read, unless it begins, and written.
            found["input-sum memory"] += int((valid & adds).sum() + (valid & adds & ~first).sum())
        return counter.take(), found


def _names(names: Iterable[str]) -> dict[str, str]:
    """Signals by their plain names; a port before the register of the same name behind it."""
    return {_plain(name): name for name in sorted(names, key=lambda name: "$" not in name.rpartition(".")[2])}


def _accesses(compiled: CompiledNetwork, activity: Activity, bank: Mapping[str, int], images: int) -> dict[str, int]:
    """What the RTL's strobes say, an image, held to the model."""
    names = _names(net.name for net in activity.nets)
    totals = Counter(bank)
    for name, signals in ACCESSES.items():
        totals[name] += sum(activity.high(names[signal]) for signal in signals)
    engine = compiled.engine
    # The last descriptor ends the network.
    expected = Counter({"bus words": stream_words(compiled.layers[0], engine).descriptor})
    unused: Counter[str] = Counter()
    for layer in compiled.layers:
        expected["bus words"] += stream_words(layer, engine).read
        expected["weight tiles"] += weight_tiles(layer, engine)
        if layer.op == "stream":
            # The drain walks the beats of such a layer as well, and nobody wants what it reads.
            for name in ("accumulator reads", "input-sum memory"):
                unused[name] += slot_count(layer, engine) * layer.beat_cycles
        for event in layer_events(layer, engine):
            if event.part in totals:
                expected[event.part] += event.count
    for name, read in unused.items():
        totals[name] -= images * read
    for name, total in totals.items():
        if total != images * expected[name]:
            raise MismatchError(
                f"{name} of {images} images must be {images * expected[name]} in the RTL, as the model counts, not "
                f"{total}"
            )
    return dict(expected)


def _modules(instances: list[Instance], activity: Activity, images: int, energies: GateEnergies) -> list[ModuleEnergy]:
    found: dict[str, ModuleEnergy] = {
        name: ModuleEnergy(name, 0, 0, 0, 0.0, 0.0, *3 * (Range(0.0, 0.0),)) for name in GROUPS.values()
    }
    for each in instances:
        toggles, bits = activity.toggles(each.path) / images, activity.bits(each.path)
        flips = activity.toggles(each.path, state=True) / images
        transitions = each.gates * toggles / bits if bits else 0.0
        logic = energies.transition.times(transitions) + energies.flip.times(flips)
        clock = energies.clock.times(each.flip_flops * activity.cycles / images)
        old = found[_group(each.path)]
        found[old.name] = ModuleEnergy(
            old.name,
            old.gates + each.gates,
            old.flip_flops + each.flip_flops,
            old.bits + bits,
            old.toggles + toggles,
            old.flips + flips,
            old.logic + logic,
            old.clock + clock,
            old.gated + energies.clock.times(flips),
        )
    return [module for module in found.values() if module.gates or module.flip_flops]


def _notes(energies: GateEnergies, images: int) -> list[str]:
    transition, clock = energies.transition, energies.clock
    return [
        f"B, own gate counts ({tool_version()}) times the activity of {images} images in co-simulation. A gate's "
        f"transition costs {1e3 * transition.low:.2f} to {1e3 * transition.high:.2f} fJ: half of C V^2 at "
        f"{energies.voltage:g} V, C of {energies.fan_out:g} gate inputs of {energies.input_ff:g} fF "
        f"({energies.source}), {energies.own_load:g} for the gate itself and, from least to most, "
        f"{energies.wires_low:g} to {energies.wires_high:g} times that for wires.",
        f"B takes a module's gates to change as often as its nets do, with zero delay: no glitches. A flip-flop's "
        f"clock costs {1e3 * clock.low:.2f} to {1e3 * clock.high:.2f} fJ in every cycle (an assumption: "
        f"{energies.clock_load:g} gate inputs), since no clock is gated; clock buffers and leakage are not in it. "
        f"Memories are no gates: their energies are A's.",
    ]


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A row of the array: what its mapped gates do, beside what estimate B takes them to do."""

    array: str
    cycles: int
    gates: int
    """Two-input gates and inverters of the flattened row."""
    gate_changes: int
    """Of all their outputs."""
    estimated: float
    """Changes by the row's nets: gates times changes a net bit, module by module."""
    flip_flops: int
    flip_flop_changes: int
    counted_flips: int
    """Changes of the registers in the RTL."""

    @property
    def difference(self) -> float:
        """Of the estimate from the gates' own count, relative."""
        return self.estimated / self.gate_changes - 1

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return {**asdict(self), "difference": self.difference}


def check_row(
    compiled: CompiledNetwork,
    codes: np.ndarray,
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
) -> RowCheck:
    """Row 0 of the array over one image's codes (C, H, W), as the engine runs it and as mapped gates.

    Raises `MismatchError` where the gates do not give the row's sums.
    """
    text = _rtlil(_alike(compiled.engine))
    instances = engine_gates(parse_design(text, "top"), cache, notice)
    path = next(each.path for each in instances if _plain(each.path) == "compute.array.row_0")
    row = subdesign(text, f"top.{path}")
    netlist = Netlist.of(row.rtlil, row.top, cache, notice)
    inside, outside = netlist.ports("input"), netlist.ports("output")
    with (
        EngineSimulation(watched_engine(compiled.engine), compiled) as engine,
        ActivityCounter(engine.simulation, BUSY) as counter,
    ):
        names = {name: f"{path}.{name}" for name in (*inside, *outside) if name != "rst"}
        recorder = counter.trace(list(names.values()))
        engine.run(codes, LIMIT)
        activity, record = counter.take(), recorder.take()
    bits = {name: bits_of(record.words[full], (inside | outside)[name]) for name, full in names.items()}
    if "rst" in inside:
        bits["rst"] = np.zeros((len(record), 1), dtype=np.uint8)
    run = netlist.run({name: bits[name] for name in inside})
    for name in outside:
        # What was in the pipeline before the first cycle comes out first.
        wrong = (run.outputs[name] != bits[name]).any(axis=1)
        if wrong[PIPELINE:].any():
            raise MismatchError(f"{path}.{name}: gates must give what the RTL gives, not so in cycle {wrong.argmax()}")
    own = [each for each in instances if (each.path + ".").startswith(path + ".")]
    estimated = sum(each.gates * activity.toggles(each.path) / max(1, activity.bits(each.path)) for each in own)
    flips = sum(activity.toggles(each.path, state=True) for each in own)
    return RowCheck(
        compiled.engine.array,
        run.cycles,
        len(netlist.gates),
        run.gate_changes + run.inverter_changes,
        estimated,
        netlist.flip_flops,
        run.flip_flop_changes,
        flips,
    )


PIPELINE = 32
"""Cycles after which nothing is left in a row of what was there before."""
