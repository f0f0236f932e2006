"""A free-running component between two streams: what it computes a cycle, with a handshake around it."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from collections.abc import Mapping
from typing import Any

from amaranth import EnableInserter, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .pipeline import advance_together

__all__ = ["Streamed"]


class Streamed(wiring.Component):  # type: ignore[misc]
    """Inputs of the component in the payload of `i`, its outputs in that of `o`.

    Latency is the component's `latency`, throughput one transfer a cycle; the component stands still while a
    finished transfer waits. Its inputs named in `later` belong to the word of so many cycles before; here they come
    with it.
    """

    def __init__(self, component: Any, later: Mapping[str, int] | None = None) -> None:
        self.component = component
        self.latency: int = component.latency
        self.later = later or {}
        members = component.signature.members
        shapes = {
            flow: data.StructLayout({name: member.shape for name, member in members.items() if member.flow == flow})
            for flow in (wiring.In, wiring.Out)
        }
        super().__init__({"i": In(stream.Signature(shapes[wiring.In])), "o": Out(stream.Signature(shapes[wiring.Out]))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        advance, _ = advance_together(m, self.i, self.o, self.latency)
        m.submodules.component = EnableInserter(advance)(self.component)
        for name in self.i.payload.shape().members:
            value = self.i.payload[name]
            for stage in range(self.later.get(name, 0)):
                held = Signal.like(value, name=f"{name}_{stage}", reset_less=True)
                with m.If(advance):
                    m.d.sync += held.eq(value)
                value = held
            m.d.comb += getattr(self.component, name).eq(value)
        m.d.comb += [self.o.payload[name].eq(getattr(self.component, name)) for name in self.o.payload.shape().members]
        return m
