"""The stream bench against blocks that break the stream rules, each in its own way."""

from dataclasses import dataclass, replace

import pytest
from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl.bench import Bench
from gatewise.rtl.blocks import Block
from gatewise.rtl.pipeline import advance_together
from gatewise.rtl.regress import run_bench

pytestmark = pytest.mark.usefixtures("icarus")


@dataclass(frozen=True)
class Width:
    bits: int


class Register(wiring.Component):
    """Passes values on; `fault` names what it does wrong."""

    latency = 1

    def __init__(self, parameters, fault=None):
        self.fault = fault
        payload = data.StructLayout({"x": parameters.bits})
        super().__init__({"i": In(stream.Signature(payload)), "o": Out(stream.Signature(payload))})

    def elaborate(self, platform):
        m = Module()
        if self.fault == "slow":
            return self._two_stages(m)
        advance, valid = advance_together(m, self.i, self.o, 1)
        held = Signal(self.i.payload.shape(), reset_less=True)
        with m.If(advance):
            m.d.sync += held.eq(self.i.payload)
        m.d.comb += self.o.payload.eq(held)
        stalled = self.o.valid & ~self.o.ready
        if self.fault == "changes":
            with m.If(stalled):
                m.d.sync += held.x.eq(held.x + 1)
        if self.fault == "drops":
            m.d.comb += self.i.ready.eq(1)
        if self.fault == "retracts":
            flip = Signal()
            m.d.sync += flip.eq(stalled & ~flip)
            m.d.comb += self.o.valid.eq(valid[-1] & ~flip)
        if self.fault == "hangs":
            seen = Signal(8)
            with m.If(self.o.valid & self.o.ready & (seen != 200)):
                m.d.sync += seen.eq(seen + 1)
            m.d.comb += self.i.ready.eq(advance & (seen != 200))
            with m.If(seen == 200):
                m.d.comb += self.o.valid.eq(0)
        if self.fault == "repeats":
            again = Signal()
            with m.If(self.o.valid & self.o.ready):
                m.d.sync += again.eq((held.x[:4] == 7) & ~again)
            with m.If(self.o.valid & (held.x[:4] == 7) & ~again):
                m.d.comb += self.i.ready.eq(0)
                m.d.sync += [valid.eq(valid), held.eq(held)]
        return m

    def _two_stages(self, m):
        advance, _ = advance_together(m, self.i, self.o, 2)
        first, second = (Signal(self.i.payload.shape(), reset_less=True) for _ in range(2))
        with m.If(advance):
            m.d.sync += [first.eq(self.i.payload), second.eq(first)]
        m.d.comb += self.o.payload.eq(second)
        return m


class RegisterBench(Bench[Width]):
    def expected(self, inputs):
        return inputs


REGISTER = Block("register", lambda bits=8: Width(bits), Register, RegisterBench)


def run(fault):
    return run_bench(replace(REGISTER, component=lambda p: Register(p, fault)), {}, vectors=500)


def test_a_pipeline_keeps_the_stream_rules():
    result = run(None)
    assert result.mismatch is None
    assert result.vectors == 500


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changes", "changed its payload while it waited"),
        ("drops", "x must be"),
        ("retracts", "dropped valid while it waited"),
        ("hangs", "no output for 2000 cycles after 200 of 500"),
        ("repeats", "x must be"),
        ("slow", "latency must be 1 cycles, not 2"),
    ],
)
def test_a_breach_of_the_stream_rules_is_found(fault, message):
    assert message in run(fault).mismatch
