"""The harness that advances a block by a clock with every transfer."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl import stepped
from gatewise.rtl.bench import Bench
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.icarus import interface_of
from gatewise.rtl.regress import run_bench
from gatewise.rtl.stepped import Build, Stepped, steppable, steppable_bench
from gatewise.rtl.verilog import to_rtlil


class Adder(wiring.Component):
    """Adds what comes to a register, in every cycle in which something does."""

    def __init__(self, parameters):
        pair = data.StructLayout({"value": 4, "twice": 1})
        super().__init__({"x": In(stream.Signature(pair)), "clear": In(1), "sum": Out(8)})

    def elaborate(self, platform):
        m = Module()
        total = Signal(8)
        m.d.comb += [self.sum.eq(total), self.x.ready.eq(~total[0])]
        with m.If(self.clear):
            m.d.sync += total.eq(0)
        with m.Elif(self.x.valid):
            m.d.sync += total.eq(total + (self.x.payload.value << self.x.payload.twice))
        return m


class AdderBench(Bench):
    def expected(self, inputs):
        total, sums = 0, []
        for value, twice, valid, clear in zip(
            inputs["x_value"], inputs["x_twice"], inputs["x_valid"], inputs["clear"], strict=True
        ):
            sums.append(total)
            if clear:
                total = 0
            elif valid:
                total = (total + (int(value) << int(twice))) % 256
        return {"sum": np.array(sums), "x_ready": 1 - np.array(sums) % 2}


@pytest.fixture
def block():
    return replace(
        BLOCKS["xor_rows"],
        parameters=lambda stepped=True: Build(None, stepped),
        component=steppable(Adder),
        bench=steppable_bench(AdderBench),
    )


def test_every_port_is_a_field_of_the_one_stream_in_or_the_one_out():
    harness = Stepped(Adder(None))
    interface = interface_of(harness)
    to_rtlil(harness, "top")
    assert interface.streaming
    assert [(field.name, field.bits) for field in interface.inputs.fields] == [
        ("x_value", 4),
        ("x_twice", 1),
        ("x_valid", 1),
        ("clear", 1),
    ]
    assert sorted(field.name for field in interface.outputs.fields) == ["sum", "x_ready"]


def test_without_its_harness_a_block_is_itself(block):
    plain, behind = (block.create({"stepped": stepped})[1] for stepped in (False, True))
    for component in (plain, behind):
        to_rtlil(component, "top")
    assert (type(plain), type(behind)) == (Adder, Stepped)


@pytest.mark.usefixtures("icarus")
class TestClock:
    def test_the_block_s_clock_goes_with_the_transfers_whatever_stalls(self, block):
        assert run_bench(block, {}, vectors=600).mismatch is None

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("EnableInserter(advance & self.i.valid)", "EnableInserter(advance)"),
            ("EnableInserter(advance & self.i.valid)(self.block)", "self.block"),
            ("with m.If(advance):", "with m.If(self.i.valid):"),
            ("m.d.sync += self.o.payload[name]", "m.d.comb += self.o.payload[name]"),
            ("value.eq(self.i.payload[name])", "value.eq(~self.i.payload[name])"),
        ],
    )
    def test_a_fault_in_the_harness_is_found(self, block, planted, old, new):
        names = planted(stepped, old, new)
        result = run_bench(replace(block, component=lambda build: names["Stepped"](Adder(None))), {}, vectors=600)
        assert result.mismatch is not None
