"""Networks on equal silicon: the fastest engine of each array within a budget, the smallest for a throughput, or one
size of engine for all.

Rows, lanes, post lanes and the decoder are searched; bus, tiles and widths are those of the default engine, whose clock
is an assumption. Cycles are those of `sim.cycles`, all of an image's: the input's load and the result's store included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache as remembered
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Literal

from ..kernels.errors import CapacityError, FormatError, UnsupportedError
from ..sim.arrays import check_arrays
from ..sim.engine import Array, Decoder, EngineConfig
from ..sim.file import load
from ..sim.manifest import BasisWeights, XorWeights
from ..sim.network import Network
from ..sim.shapes import SHAPES, shaped_network
from ..sim.sizing import Workload, fastest_within, smallest_for
from ..sim.unrolled import scheme_named
from .compare_engine import Models, SizedEngine, sized
from .engine_cost import CostModel
from .engine_count import Cost
from .flows import flows
from .yosys import tool_version

__all__ = [
    "SHAPE_SCHEMES",
    "Goal",
    "NetworkComparison",
    "NetworkRow",
    "Subject",
    "compare_networks",
    "default_budget",
    "file_subject",
    "shape_subjects",
]

SHAPE_SCHEMES = ("bayesian4", "fixed8", "shift", "focused5", "flexor-0.8", "lqnet-a2", "ternary")
"""Of the networks of a shape: integers of 4 and of 8 bits, powers of two, encrypted signs, planes, ternary weights."""
DEFAULT_TILE = (16, 16)
ARRAYS: tuple[Array, ...] = ("digit", "fusion", "sign", "shift")

Unit = Literal["gates", "alms", "images_per_second", "size"]


@dataclass(frozen=True)
class Goal:
    """What engines are equal in: `value` gates or ALMs at most, images per second at least, or their `size`.

    A size are rows, lanes and post lanes.
    """

    unit: Unit
    value: float = 0
    clock_mhz: float = EngineConfig().clock_mhz
    size: tuple[int, int, int] | None = None

    @classmethod
    def of_size(cls, text: str, clock_mhz: float) -> "Goal":
        """Read ``RxL`` or ``RxLxQ``; half as many post lanes as rows unless said."""
        try:
            numbers = [int(part) for part in text.split("x")]
            names = ("rows", "lanes", "post_lanes")[: len(numbers)]
            engine = EngineConfig(**dict(zip(names, numbers, strict=True)))
        except ValueError:
            raise FormatError(f"size must be RxL or RxLxQ, not {text!r}") from None
        return cls("size", 0, clock_mhz, (engine.rows, engine.lanes, engine.post_lanes))

    @property
    def budget(self) -> bool:
        """Whether silicon is given."""
        return self.unit in ("gates", "alms")

    @property
    def text(self) -> str:
        """For a reader."""
        if self.size is not None:
            return "engines of {} x {}, Q {}".format(*self.size)
        names = {"gates": "gates at most", "alms": "ALMs at most", "images_per_second": "images per second at least"}
        return f"{self.value:,.0f} {names[self.unit]}"

    def silicon(self, cost: Cost) -> float:
        """What a budget is in units of; the upper bound of ALMs, with DSP blocks."""
        return cost.alms_high if self.unit == "alms" else cost.gates

    @property
    def target_cycles(self) -> int:
        """That an image may take."""
        return int(self.clock_mhz * 1e6 / self.value)


@dataclass(frozen=True)
class Subject:
    """A network by name; `make` gives it as it is made for an engine."""

    name: str
    make: Callable[[EngineConfig], Network]

    @cached_property
    def work(self) -> Workload:
        """Its cycles on engines, which are kept."""
        return Workload(self.make)

    def decoders(self, array: Array) -> list[Decoder]:
        """Those of an array that may serve the network: raw, and what its weights are stored for."""
        found: list[Decoder] = ["raw"]
        for layer in self.make(EngineConfig()).layers.values():
            spec = layer.node.weights
            if isinstance(spec, XorWeights):
                coded: Decoder = "xor"
            elif isinstance(spec, BasisWeights) or spec.coding == "raw" or array == "sign":
                continue
            else:
                coded = "huffman"
            if coded not in found:
                found.append(coded)
        return found


@dataclass(frozen=True)
class NetworkRow:
    """A network on the engine that was chosen for it, of one array."""

    network: str
    sized: SizedEngine
    images_per_second: float


COLUMNS: dict[str, Callable[[NetworkRow], str]] = {
    "network": lambda row: row.network,
    "array": lambda row: row.sized.engine.array,
    "engine": lambda row: f"{row.sized.engine.rows} x {row.sized.engine.lanes}",
    "Q": lambda row: str(row.sized.engine.post_lanes),
    "decoder": lambda row: row.sized.engine.decoder,
    "cycles": lambda row: f"{row.sized.cycles:,}",
    "images/s": lambda row: f"{row.images_per_second:,.1f}",
    "utilisation": lambda row: f"{row.sized.utilisation:.1%}",
    "gates": lambda row: f"{row.sized.cost.gates:,.0f}",
    "gates at goal": lambda row: f"{row.sized.gates_at_target:,.0f}",
    "GE": lambda row: f"{row.sized.cost.equivalents:,.0f}",
    "ALMs with DSP": lambda row: f"{row.sized.cost.alms_low:,.0f} .. {row.sized.cost.alms_high:,.0f}",
    "DSP": lambda row: f"{ceil(row.sized.cost.dsps):,}",
    "registers": lambda row: f"{row.sized.cost.flip_flops:,.0f}",
    "memory bits": lambda row: f"{row.sized.cost.memory_bits:,.0f}",
    "M20K": lambda row: f"{row.sized.cost.m20ks:,.0f}",
    "bytes an image": lambda row: f"{row.sized.bytes_read:,}",
}
"""What a table says of a row, by heading."""


@dataclass(frozen=True)
class NetworkComparison:
    """Rows of several networks that have one goal; `refused` says what has no row, and why."""

    goal: Goal
    act_bytes: int
    rows: list[NetworkRow] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def parts(self) -> "list[NetworkComparison]":
        """It is one table."""
        return [self]

    @property
    def title(self) -> str:
        """Of a table."""
        return self.goal.text

    def headings(self) -> list[str]:
        """Of the columns; gates are scaled to a throughput only where one is the goal."""
        return [name for name in COLUMNS if name != "gates at goal" or self.goal.unit == "images_per_second"]

    def cells(self) -> list[list[str]]:
        """A line of a table for each row."""
        return [[COLUMNS[name](row) for name in self.headings()] for row in self.rows]

    def notes(self) -> list[str]:
        """What the figures assume."""
        engine = EngineConfig()
        if self.goal.size is not None:
            which = f"{self.goal.text}, each array and decoder that take the network"
        elif self.goal.budget:
            which = "the fastest engine of each array within the budget"
        else:
            which = (
                "of each array the engine of the fewest gates that is fast enough; gates at goal: gates x cycles, by "
                "the cycles that the goal allows"
            )
        return [
            f"{which}; engines are rows x lanes with Q post lanes, powers of two; "
            f"clock {self.goal.clock_mhz:g} MHz, an assumption",
            f"whole engines, P {engine.pixels}, {engine.bus_bits}-bit bus of latency {engine.bus_latency}, "
            f"{self.act_bytes:,} bytes of activation memory; bytes an image are all that it reads over the bus but the "
            "input",
            "counts are composed of engines that were synthesised whole (docs/throughput.md); ALMs are with DSP blocks"
            + (", of which the budget bounds the upper bound" if self.goal.unit == "alms" else ""),
            f"{tool_version()}; ALUTs by synth_intel_alm for Cyclone V; flows: "
            + ", ".join(f"{flow.name} {flow.sha256[:12]}" for flow in flows(flat=False)),
            *self.refused,
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "schema": 1,
            "goal": self.goal.unit,
            "value": self.goal.value,
            "size": self.goal.size,
            "clock_mhz": self.goal.clock_mhz,
            "act_bytes": self.act_bytes,
            "tool": tool_version(),
            "flows": {flow.name: flow.sha256 for flow in flows(flat=False)},
            "rows": [_row_json(row) for row in self.rows],
            "refused": self.refused,
        }

    def flat_rows(self) -> list[dict[str, Any]]:
        """The rows of the JSON form without anything nested."""
        rows: list[dict[str, Any]] = self.to_json()["rows"]
        for row in rows:
            row |= {f"gates_{name.replace(' ', '_')}": gates for name, gates in row.pop("gates_by_part").items()}
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name, 0) for name in names} for row in rows]


def _row_json(row: NetworkRow) -> dict[str, Any]:
    cost = row.sized.cost
    return {
        "network": row.network,
        "images_per_second": row.images_per_second,
        "gates": round(cost.gates),
        "inverters": round(cost.inverters),
        "equivalents": cost.equivalents,
        "alms_dsp_low": round(cost.alms_low),
        "alms_dsp_high": round(cost.alms_high),
        "dsps": ceil(cost.dsps),
        "registers": round(cost.flip_flops),
        "memory_bits": round(cost.memory_bits),
        "m20ks": round(cost.m20ks),
        **row.sized.to_json(),
    }


def file_subject(path: Path) -> Subject:
    """A network of a file."""
    network = load(path)
    return Subject(path.stem, lambda engine: network)


def shape_subjects(shape: str, schemes: Sequence[str] = (), seed: int = 0) -> list[Subject]:
    """Networks of a shape in `sim.shapes.SHAPES` with seeded weights of some schemes, `SHAPE_SCHEMES` unless given."""
    if shape not in SHAPES:
        raise FormatError(f"shape must be one of {', '.join(SHAPES)}, not {shape!r}")
    return [_shape_subject(shape, scheme_named(name).name, seed) for name in schemes or SHAPE_SCHEMES]


def _shape_subject(shape: str, scheme: str, seed: int) -> Subject:
    """Encrypted weights are made for each engine, in the order of its tiles."""

    @remembered
    def made(tile: tuple[int, int]) -> Network:
        return shaped_network(shape, scheme, tile, seed)

    layers = made(DEFAULT_TILE).layers.values()
    encrypted = any(isinstance(layer.node.weights, XorWeights) for layer in layers)
    return Subject(f"{shape}-{scheme}", lambda engine: made((engine.rows, engine.lanes) if encrypted else DEFAULT_TILE))


def default_budget(models: Models) -> float:
    """Gates of the default engine, of 16 x 16 PEs."""
    return models.of("digit", "raw").cost(EngineConfig()).gates


def compare_networks(
    subjects: Sequence[Subject],
    goal: Goal,
    *,
    arrays: Sequence[Array] = (),
    act_bytes: int = EngineConfig().act_bytes,
    models: Models | None = None,
    notice: Callable[[str], None] | None = None,
) -> NetworkComparison:
    """Choose an engine of each array that takes each network.

    Parameters
    ----------
    subjects, goal : the networks, and what their engines are equal in
    arrays : that are tried; all unless given
    act_bytes : of the engines' activation memory
    models : cost models, made where they are needed unless given
    notice : told what is being done

    Raises `CapacityError` or `UnsupportedError` where no array reaches the goal with a network, with what would be
    needed.
    """
    models = models or Models(notice=notice)
    found = NetworkComparison(goal, act_bytes)
    for subject in subjects:
        refusals: list[CapacityError | UnsupportedError] = []
        before = len(found.rows)
        work = subject.work
        for array in arrays or ARRAYS:
            if notice is not None:
                notice(f"{subject.name}: {array} engines")
            every: list[SizedEngine] = []
            for decoder in subject.decoders(array):
                try:
                    chosen = _choose(work, goal, array, decoder, act_bytes, models)
                except (CapacityError, UnsupportedError) as error:
                    refusals.append(error)
                    continue
                every.append(chosen)
            # Engines of one size are all shown: a decoder costs gates and cycles, and saves bytes.
            best = every if goal.size is not None else sorted(every, key=lambda each: _merit(goal, each))[:1]
            found.rows.extend(NetworkRow(subject.name, each, goal.clock_mhz * 1e6 / each.cycles) for each in best)
        if len(found.rows) == before:
            # Rather what would be needed than what never fits.
            first = next((each for each in refusals if isinstance(each, CapacityError)), refusals[0])
            raise type(first)(f"{subject.name}: {first}")
        found.refused.extend(f"not {subject.name}: {error}" for error in refusals if isinstance(error, CapacityError))
    return found


def _choose(work: Workload, goal: Goal, array: Array, decoder: Decoder, act_bytes: int, models: Models) -> SizedEngine:
    like = EngineConfig(array=array, decoder=decoder, act_bytes=act_bytes, clock_mhz=goal.clock_mhz)
    # A network that the array does not take is refused before its engines are counted.
    check_arrays(work.subject(like), like)
    model: CostModel = models.of(array, decoder)
    if goal.size is not None:
        sizes = dict(zip(("rows", "lanes", "post_lanes"), goal.size, strict=True))
        engine = EngineConfig(**{**like.model_dump(), "mac": like.mac, **sizes})
        return sized(work, engine, model, work.cycles(engine))
    if goal.budget:
        unit = "ALMs" if goal.unit == "alms" else "gates"
        engine = fastest_within(work, like, goal.value, lambda each: goal.silicon(model.cost(each)), unit)
        return sized(work, engine, model, work.cycles(engine))
    engine = smallest_for(work, like, goal.target_cycles, lambda each: model.cost(each).gates)
    return sized(work, engine, model, goal.target_cycles)


def _merit(goal: Goal, chosen: SizedEngine) -> float:
    """The less the better: gates for a throughput, else cycles."""
    return chosen.cost.gates if goal.unit == "images_per_second" else chosen.cycles
