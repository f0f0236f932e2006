"""A harness that advances a block by one clock with every transfer.

It makes a block of any ports, several streams among them, fit the common bench of one stream in and one out: a
payload of `i` is what all inputs are in one cycle, and the payload of `o` that it leaves is what all outputs were in
that cycle. Stalls of either stream stop the block's clock. A bench behind it holds every cycle of every port to its
golden model.
"""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from amaranth import EnableInserter, Module, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .bench import Bench
from .pipeline import advance_together

__all__ = ["Build", "Stepped", "steppable", "steppable_bench"]


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
