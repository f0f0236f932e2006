"""Energy per image from published energies of single operations, and what a measured estimate consists of.

Two estimates stand side by side wherever energies are shown, each with what it leaves out:

A. *Published energies*: the operations and accesses of `events.py`, times what a paper gives for one of them
   (Horowitz, ISSCC 2014, 45 nm, 0.9 V), scaled to the widths here by stated rules (`Energies`).
B. *Own gates*: the engine's two-input gates and flip-flops, times the switching activity of its RTL in
   co-simulation, times the energy of a gate's transition (`GateEnergies`): `rtl/energy.py` measures it.

    estimate(network, engine).total            # joules nowhere: all energies are pJ, low and high
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..kernels.errors import FormatError
from .arrays import default_engine
from .cycles import network_cycles
from .engine import EngineConfig
from .events import PARTS, Event, Group, layer_events
from .lower import lower
from .lowered import LoweredLayer
from .network import Network
from .prune import pruned
from .schedule import schedule
from .sort import sorted_by_width
from .validation import first_problem

__all__ = [
    "Energies",
    "EnergyEstimate",
    "GateEnergies",
    "LayerEnergy",
    "MeasuredEnergy",
    "ModuleEnergy",
    "Range",
    "Row",
    "estimate",
    "lowered_energy",
]

Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False)]

ACCESS_BITS = 64
"""Of a published memory access."""
SRAM_BYTES = (8 << 10, 32 << 10, 1 << 20)


@dataclass(frozen=True, slots=True)
class Range:
    """A least and a greatest energy, pJ."""

    low: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def times(self, count: float) -> "Range":
        """So many of them."""
        return Range(self.low * count, self.high * count)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise FormatError(f"energies: {first_problem(error)}") from error


class GateEnergies(_Table):
    """The energy of logic that switches, from capacitances: a transition is half of C V squared.

    The capacitance of a gate's output is `fan_out` gate inputs, `own_load` of them for the gate's own transistors, and
    wires, which nothing here knows: from `wires_low` to `wires_high` times all the rest. A flip-flop charges and
    discharges `clock_load` gate inputs in every cycle (the clock's wires and buffers come on top, as wires do), and
    where it changes, `flip_flop_gates` gates.

    The input capacitance is the mean of both inputs of NAND2_X1 (1.599032 and 1.664199 fF) in the NanGate 45 nm Open
    Cell Library, typical corner; the voltage is that of the published energies. `own_load` is the parasitic delay of a
    NAND gate over its logical effort (2 / (4/3), Sutherland, Sproull, Harris, "Logical Effort", 1999). All else are
    assumptions.
    """

    source: str = "NanGate 45 nm Open Cell Library, typical corner, NAND2_X1"
    voltage: Positive = 0.9
    input_ff: Positive = 1.6316
    fan_out: Positive = 2.0
    own_load: Share = 1.5
    wires_low: Share = 0.0
    wires_high: Share = 1.0
    clock_load: Positive = 4.0
    flip_flop_gates: Positive = 4.0

    @model_validator(mode="after")
    def _check(self) -> "GateEnergies":
        if self.wires_low > self.wires_high:
            raise ValueError(f"wires_low must be at most wires_high ({self.wires_high:g}), not {self.wires_low:g}")
        return self

    def _wired(self, inputs: float, swings: float) -> Range:
        """pJ of a capacitance of so many gate inputs that swings (up or down) so often."""
        bare = inputs * self.input_ff * self.voltage**2 / 2 * swings / 1e3
        return Range(bare * (1 + self.wires_low), bare * (1 + self.wires_high))

    @property
    def transition(self) -> Range:
        """pJ of a transition of a two-input gate's output."""
        return self._wired(self.fan_out + self.own_load, 1)

    @property
    def clock(self) -> Range:
        """pJ of a flip-flop's clock in a cycle."""
        return self._wired(self.clock_load, 2)

    @property
    def flip(self) -> Range:
        """pJ of a flip-flop's change."""
        return self.transition.times(self.flip_flop_gates)


class Energies(_Table):
    """Energies of single operations, pJ; an object, or TOML with these keys.

    `add_8`, `add_32`: an integer addition of 8 and 32 bits; `multiply_8`, `multiply_32`: a multiplication; `sram_8k`,
    `sram_32k`, `sram_1m`: 64 bits of a memory of that many bytes; `dram_low`, `dram_high`: 64 bits of DRAM.

    Other widths are assumptions: an addition goes with its bits, a multiplication with the product of its operands'
    bits, each on a line between the two published points and in proportion outside; a memory access goes with its
    bits, and between the published sizes, and beyond, with a power of the memory's bytes. A full adder is
    `adder_gates` two-input gates, and a bit written into a register costs as much as `register_gates` of them.
    """

    name: str = "Horowitz 2014"
    process: str = "45 nm, 0.9 V"
    source: str = "M. Horowitz, 'Computing's energy problem (and what we can do about it)', ISSCC 2014, fig. 1.1.9"
    add_8: Positive = 0.03
    add_32: Positive = 0.1
    multiply_8: Positive = 0.2
    multiply_32: Positive = 3.1
    sram_8k: Positive = 10.0
    sram_32k: Positive = 20.0
    sram_1m: Positive = 100.0
    dram_low: Positive = 1300.0
    dram_high: Positive = 2600.0
    adder_gates: Positive = 5.0
    register_gates: Positive = 6.0
    gates: GateEnergies = GateEnergies()

    @model_validator(mode="before")
    @classmethod
    def _read_gates(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("gates"), dict):
            try:
                return {**data, "gates": GateEnergies(**data["gates"])}
            except FormatError as error:
                raise ValueError(f"gates: {str(error).removeprefix('energies: ')}") from error
        return data

    @model_validator(mode="after")
    def _check(self) -> "Energies":
        for less, more in (
            ("add_8", "add_32"),
            ("multiply_8", "multiply_32"),
            ("sram_8k", "sram_32k"),
            ("sram_32k", "sram_1m"),
            ("dram_low", "dram_high"),
        ):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(
                    f"{less} must be at most {more} ({getattr(self, more):g}), not {getattr(self, less):g}"
                )
        return self

    @classmethod
    def load(cls, path: str | Path) -> "Energies":
        """Read a TOML file whose keys are this class's fields, with a table ``[gates]``; what is missing is published.

        A file that changes a figure must also say so: `name`, `process` and `source` must be its own.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise FormatError(f"{path}: the file of energies must be readable: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: must be TOML: {error}") from error
        for key in ("name", "process", "source"):
            if key not in values:
                raise FormatError(f"{path}: energies: {key} must say whose figures these are, and is missing")
        try:
            return cls(**values)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    def add(self, bits: int) -> float:
        """pJ of an addition, or a comparison."""
        return _line(bits, (8, self.add_8), (32, self.add_32))

    def multiply(self, products: int) -> float:
        """pJ of a multiplication, by the product of its operands' bits."""
        return _line(products, (8 * 8, self.multiply_8), (32 * 32, self.multiply_32))

    @property
    def gate(self) -> float:
        """pJ of a two-input gate in use."""
        return self.add_8 / 8 / self.adder_gates

    def sram(self, bits: int, size: int) -> float:
        """pJ of an access of `bits` bits to a memory of `size` bytes."""
        costs = (self.sram_8k, self.sram_32k, self.sram_1m)
        at = 0 if size <= SRAM_BYTES[1] else 1
        (small, large), (cheap, dear) = SRAM_BYTES[at : at + 2], costs[at : at + 2]
        slope = log(dear / cheap) / log(large / small)
        return float(cheap * (size / small) ** slope * bits / ACCESS_BITS)

    def of(self, event: Event) -> Range:
        """pJ of one operation or access."""
        if event.kind == "dram":
            return Range(self.dram_low, self.dram_high).times(event.size / ACCESS_BITS)
        match event.kind:
            case "multiply":
                cost = self.multiply(event.size)
            case "add":
                cost = self.add(event.size)
            case "gate":
                cost = self.gate * event.size
            case "register":
                cost = self.gate * self.register_gates * event.size
            case "sram":
                cost = self.sram(event.size, event.memory)
        return Range(cost, cost)

    def notes(self) -> list[str]:
        """What must stand wherever these energies do."""
        return [
            f"A, published energies: {self.source}; {self.process}. Of DRAM it gives a range, and so do the totals.",
            f"Scaled to the widths here, an assumption: a multiplication by the product of its operands' bits "
            f"(4 x 4 bits: {1e3 * self.multiply(16):.1f} fJ), an addition by its bits, a memory access by its bits and "
            f"a power of the memory's bytes (64 bits of 1 KiB: {self.sram(64, 1024):.2f} pJ); a full adder is "
            f"{self.adder_gates:g} two-input gates, a register's bit costs {self.register_gates:g}.",
            "A knows no values (a weight of zero costs what others do), and has no control, no pipeline registers, "
            "no clock, no wires between blocks and no leakage.",
        ]


def _line(at: float, first: tuple[float, float], last: tuple[float, float]) -> float:
    """On the line between two points; in proportion to the nearer one outside."""
    if at <= first[0]:
        return at * first[1] / first[0]
    if at >= last[0]:
        return at * last[1] / last[0]
    return first[1] + (at - first[0]) * (last[1] - first[1]) / (last[0] - first[0])


@dataclass(frozen=True, slots=True)
class Row:
    """All of one kind of event of a part: how many, and their energy."""

    part: str
    kind: str
    count: int
    energy: Range

    @property
    def group(self) -> Group:
        """Arithmetic, on-chip memory or DRAM."""
        return PARTS[self.part]


@dataclass(frozen=True)
class LayerEnergy:
    """One layer's events."""

    name: str
    op: str
    macs: int
    rows: list[Row]

    @property
    def total(self) -> Range:
        """Its energy."""
        return _total(self.rows)

    def of(self, group: Group) -> Range:
        """Its energy of one group."""
        return _total([row for row in self.rows if row.group == group])


def _total(rows: Sequence[Row]) -> Range:
    return sum((row.energy for row in rows), Range(0.0, 0.0))


@dataclass(frozen=True, slots=True)
class ModuleEnergy:
    """A part of the engine's hierarchy, with all below it that is no part of its own.

    `toggles` are those of its nets in an image, of `bits` net bits that are watched; `gates` and `flip_flops` are what
    it has, `flips` the changes of its flip-flops. `logic` is the energy of gates and of flip-flops' changes, `clock`
    that of the flip-flops' clock in every cycle, `gated` that of it in the cycles in which they change.
    """

    name: str
    gates: int
    flip_flops: int
    bits: int
    toggles: float
    flips: float
    logic: Range
    clock: Range
    gated: Range


@dataclass(frozen=True)
class MeasuredEnergy:
    """Estimate B, an image: by module, and the accesses that were counted in the RTL."""

    images: int
    cycles: float
    modules: list[ModuleEnergy]
    accesses: dict[str, int]
    notes: list[str]

    @property
    def logic(self) -> Range:
        """All gates and flip-flops' changes."""
        return sum((module.logic for module in self.modules), Range(0.0, 0.0))

    @property
    def clock(self) -> Range:
        """All flip-flops' clock."""
        return sum((module.clock for module in self.modules), Range(0.0, 0.0))

    @property
    def gated(self) -> Range:
        """What is left of the clock where an ideal clock gate stands before each flip-flop."""
        return sum((module.gated for module in self.modules), Range(0.0, 0.0))

    @property
    def total(self) -> Range:
        """Logic and clock; memories are A's."""
        return self.logic + self.clock

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return {
            "images": self.images,
            "cycles_per_image": self.cycles,
            "logic_pj": _json(self.logic),
            "clock_pj": _json(self.clock),
            "gated_clock_pj": _json(self.gated),
            "total_pj": _json(self.total),
            "modules": [
                {
                    "name": module.name,
                    "gates": module.gates,
                    "flip_flops": module.flip_flops,
                    "net_bits": module.bits,
                    "toggles": module.toggles,
                    "flip_flop_toggles": module.flips,
                    "activity": module.toggles / (module.bits * self.cycles) if module.bits else 0.0,
                    "logic_pj": _json(module.logic),
                    "clock_pj": _json(module.clock),
                }
                for module in self.modules
            ],
            "accesses": self.accesses,
            "notes": self.notes,
        }


NOT_MEASURED = (
    "B, own gate counts times measured activity: not measured here; --images N runs the RTL over N images. It counts "
    "the switching of logic and flip-flops, control and clock included, and no memory."
)
"""What stands in the place of estimate B."""


@dataclass(frozen=True)
class EnergyEstimate:
    """The energy of one image of a network on an engine; `measured` is estimate B, where it was made."""

    network: str
    engine: EngineConfig
    energies: Energies
    layers: list[LayerEnergy]
    cycles: int
    measured: MeasuredEnergy | None = None

    @property
    def macs(self) -> int:
        """Of an image."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def rows(self) -> list[Row]:
        """The events of all layers by part and kind, in the order of `PARTS`."""
        found: dict[tuple[str, str], Row] = {}
        for layer in self.layers:
            for row in layer.rows:
                key = row.part, row.kind
                old = found.get(key, Row(*key, 0, Range(0.0, 0.0)))
                found[key] = Row(*key, old.count + row.count, old.energy + row.energy)
        order = list(PARTS)
        return sorted(found.values(), key=lambda row: order.index(row.part))

    @property
    def total(self) -> Range:
        """Estimate A, all of it."""
        return _total(self.rows)

    def of(self, group: Group) -> Range:
        """Estimate A of one group."""
        return _total([row for row in self.rows if row.group == group])

    def part(self, name: str) -> Range:
        """Estimate A of one part."""
        return _total([row for row in self.rows if row.part == name])

    @property
    def on_chip(self) -> Range:
        """Estimate A without DRAM."""
        return self.of("arithmetic") + self.of("on-chip memory")

    @property
    def notes(self) -> list[str]:
        """The caveats of both estimates, which never come alone."""
        return [*self.energies.notes(), *(self.measured.notes if self.measured is not None else [NOT_MEASURED])]

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        engine = self.engine.model_dump(exclude={"mac"})
        mac = self.engine.mac
        engine["mac"] = {"product": mac.product, "align": mac.align, "acc": mac.acc, "overflow": mac.overflow}
        return {
            "schema": 1,
            "network": self.network,
            "engine": engine,
            "energies": self.energies.model_dump(),
            "macs": self.macs,
            "cycles_per_image": self.cycles,
            "total_pj": _json(self.total),
            "on_chip_pj": _json(self.on_chip),
            "pj_per_mac": _json(self.total.times(1 / self.macs)) if self.macs else None,
            "rows": [
                {"part": row.part, "group": row.group, "kind": row.kind, "count": row.count, "pj": _json(row.energy)}
                for row in self.rows
            ],
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.op,
                    "macs": layer.macs,
                    "pj": _json(layer.total),
                    **{group.replace("-", "_").replace(" ", "_").lower() + "_pj": _json(layer.of(group))
                       for group in dict.fromkeys(PARTS.values())},
                }
                for layer in self.layers
            ],
            "measured": None if self.measured is None else self.measured.to_json(),
            "notes": self.notes,
        }  # fmt: skip


def _json(energy: Range) -> list[float]:
    return [energy.low, energy.high]


def lowered_energy(
    name: str, layers: Sequence[LoweredLayer], engine: EngineConfig, energies: Energies | None = None
) -> EnergyEstimate:
    """Estimate A of a lowered network."""
    energies = energies or Energies()
    found = []
    cycles = network_cycles(layers, engine)
    for layer, counted in zip(layers, cycles, strict=True):
        rows = [
            Row(event.part, event.kind, event.count, energies.of(event).times(event.count))
            for event in layer_events(layer, engine)
        ]
        found.append(LayerEnergy(layer.name, layer.label, counted.macs, rows))
    return EnergyEstimate(name, engine, energies, found, sum(each.total for each in cycles))


def estimate(
    network: Network,
    engine: EngineConfig | None = None,
    energies: Energies | None = None,
    *,
    prune: bool | None = None,
) -> EnergyEstimate:
    """Estimate A of a network on an engine, by default `default_engine`; `prune` is that of `pruned`."""
    engine = engine or default_engine(network)
    arranged = sorted_by_width(pruned(network, engine, prune)).network
    return lowered_energy(network.name, lower(arranged, engine, schedule(arranged, engine)), engine, energies)
