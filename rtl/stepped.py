"""A harness that advances a block by one clock with every transfer, and the benches behind it.

It makes a block of any ports, several streams among them, fit the common bench of one stream in and one out: a
payload of `i` is what all inputs are in one cycle, and the payload of `o` that it leaves is what all outputs were in
that cycle. Stalls of either stream stop the block's clock. A bench behind it holds every cycle of every port to a
model of the block's registers.
"""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from amaranth import EnableInserter, Module, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .bench import Bench, Fields, Layout
from .pipeline import advance_together

__all__ = ["Build", "Cycle", "Driver", "Model", "Spells", "StepBench", "Stepped", "steppable", "steppable_bench"]

Cycle = dict[str, int]
"""Values of the ports in one cycle, by name."""

Driver = Generator[Cycle, Cycle, None]
"""Yields the inputs of a cycle and is sent the outputs of it."""

SPELL_CYCLES = 32

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Build:
    """A block's parameters, and whether it is built behind a `Stepped`."""

    parameters: Any
    stepped: bool


def steppable(component: Callable[[Any], wiring.Component]) -> Callable[[Build], wiring.Component]:
    """What makes a component of a `Build`."""

    def made(build: Build) -> wiring.Component:
        block = component(build.parameters)
        return Stepped(block) if build.stepped else block

    return made


def steppable_bench(bench: Callable[[Any], Bench[Any]]) -> Callable[[Build], Bench[Any]]:
    """What makes the bench of a `Build`."""
    return lambda build: bench(build.parameters)


def _ports(component: wiring.Component) -> Iterator[tuple[str, Any, Value]]:
    """Name, direction and value of every port; the members of a payload one by one, its name left out."""
    for path, member, value in component.signature.flatten(component):
        name = "_".join(part for part in path if part != "payload")
        shape = member.shape
        if isinstance(shape, data.StructLayout):
            for field in shape.members:
                yield f"{name}_{field}", member.flow, Value.cast(value[field])
        else:
            yield name, member.flow, Value.cast(value)


class Stepped(wiring.Component):  # type: ignore[misc]
    """A component behind one stream in and one out; its clock advances with each transfer.

    Latency 1 cycle, throughput one transfer, that is one clock of the block, a cycle.
    """

    latency = 1

    def __init__(self, block: wiring.Component) -> None:
        self.block = block
        ports = list(_ports(block))
        super().__init__(
            {
                name: direction(
                    stream.Signature(
                        data.StructLayout({port: value.shape() for port, flow, value in ports if flow == direction})
                    )
                )
                for name, direction in (("i", In), ("o", Out))
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        advance, _ = advance_together(m, self.i, self.o, self.latency)
        m.submodules.block = EnableInserter(advance & self.i.valid)(self.block)
        for name, flow, value in _ports(self.block):
            if flow == In:
                m.d.comb += value.eq(self.i.payload[name])
            else:
                with m.If(advance):
                    m.d.sync += self.o.payload[name].eq(value)
        return m


class Model(Protocol):
    """The registers of a block."""

    def step(self, inputs: Cycle) -> Cycle:
        """The outputs of one cycle; the registers are as after it."""


class StepBench(Bench[P]):
    """A bench of a block behind `Stepped`: a model of it, and a driver that knows what the model answered."""

    @abstractmethod
    def model(self) -> Model:
        """A new model, as after reset."""

    @abstractmethod
    def driver(self, rng: np.random.Generator) -> Driver:
        """The inputs, cycle by cycle, without end."""

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        model, driver = self.model(), self.driver(rng)
        # A port that the driver leaves alone is noise.
        inputs: Fields = {field.name: rng.integers(0, 1 << field.bits, count) for field in layout.fields}
        outputs: Cycle | None = None
        for t in range(count):
            given = next(driver) if outputs is None else driver.send(outputs)
            for name, value in given.items():
                inputs[name][t] = value
            outputs = model.step({name: int(column[t]) for name, column in inputs.items()})
        return inputs

    def expected(self, inputs: Fields) -> Fields:
        model = self.model()
        columns = {name: column.tolist() for name, column in inputs.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        outputs = [model.step(row) for row in rows]
        return {name: np.array([row[name] for row in outputs], dtype=np.int64) for name in outputs[0]}


class Spells:
    """Random decisions whose chance is drawn anew every so many cycles."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.count, self.chance = 0, 1.0

    def go(self) -> bool:
        """Whether it happens in this cycle."""
        if self.count % SPELL_CYCLES == 0:
            self.chance = self.rng.choice([1.0, 1.0, 0.6, 0.2])
        self.count += 1
        return bool(self.rng.random() < self.chance)
