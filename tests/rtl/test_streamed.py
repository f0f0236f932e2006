from types import MappingProxyType

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl import streamed
from gatewise.rtl.bench import Bench
from gatewise.rtl.blocks import Block
from gatewise.rtl.regress import run_bench

pytestmark = pytest.mark.usefixtures("icarus")


class Weighted(wiring.Component):
    """``sum(terms) * factor`` two cycles later, free running; `factor` comes one cycle after the terms."""

    def __init__(self, latency=2):
        self.latency = latency
        super().__init__(
            {"terms": In(data.ArrayLayout(signed(4), 3)), "factor": In(3), "total": Out(signed(9)), "odd": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        held = Signal(signed(6), reset_less=True)
        m.d.sync += [held.eq(sum(self.terms)), self.total.eq(held * self.factor), self.odd.eq(held[0])]
        return m


class WeightedBench(Bench):
    def expected(self, inputs):
        sums = inputs["terms"].sum(axis=-1)
        return {"total": sums * inputs["factor"], "odd": np.abs(sums) % 2}


def block(wrapper=streamed.Streamed, latency=2, later=MappingProxyType({"factor": 1})):
    return Block("weighted", lambda: None, lambda parameters: wrapper(Weighted(latency), later), WeightedBench)


def test_a_free_running_component_stands_still_with_its_stream():
    result = run_bench(block(), {}, vectors=1500)
    assert result.mismatch is None
    assert not result.exhaustive


@pytest.mark.parametrize("change", [{"latency": 1}, {"latency": 3}, {"later": {}}, {"later": {"factor": 2}}])
def test_a_component_that_is_described_wrongly_is_found(change):
    assert "must be" in run_bench(block(**change), {}, vectors=400).mismatch


@pytest.mark.parametrize(
    ("old", "new"),
    [("EnableInserter(advance)(self.component)", "self.component"), ("with m.If(advance):", "with m.If(1):")],
    ids=["runs on", "late input runs on"],
)
def test_a_wrapper_that_moves_while_it_waits_is_found(planted, old, new):
    wrapper = planted(streamed, old, new)["Streamed"]
    assert run_bench(block(wrapper), {}, vectors=400).mismatch is not None
