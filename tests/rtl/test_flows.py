"""Each flow on circuits that can be counted by hand."""

import pytest
from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl.runner import Runner
from gatewise.rtl.synth import flat_check, synthesize_component


class FullAdder(wiring.Component):
    """Sum and carry of three bits: two XOR, two AND, one OR; a function of three inputs each."""

    def __init__(self):
        super().__init__({"a": In(1), "b": In(1), "c": In(1), "sum": Out(1), "carry": Out(1)})

    def elaborate(self, platform):
        m = Module()
        half = self.a ^ self.b
        m.d.comb += [self.sum.eq(half ^ self.c), self.carry.eq((self.a & self.b) | (half & self.c))]
        return m


class RippleAdder(wiring.Component):
    """Four bits and a carry: four full adders."""

    def __init__(self):
        super().__init__({"a": In(4), "b": In(4), "c": In(1), "sum": Out(5)})

    def elaborate(self, platform):
        m = Module()
        carry, bits = self.c, []
        for place in range(4):
            m.submodules[f"place_{place}"] = adder = FullAdder()
            m.d.comb += [adder.a.eq(self.a[place]), adder.b.eq(self.b[place]), adder.c.eq(carry)]
            carry = adder.carry
            bits.append(adder.sum)
        m.d.comb += self.sum.eq(Cat(*bits, carry))
        return m


class WideAdder(wiring.Component):
    """A sum of 16 bits with its carry: a carry chain of 17 bits, the last of which only brings the carry out."""

    def __init__(self):
        super().__init__({"a": In(16), "b": In(16), "sum": Out(17)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.sum.eq(self.a + self.b)
        return m


class XorTree(wiring.Component):
    """Parity of 16 bits: 15 gates of two inputs, four deep; three functions of six inputs and one of four."""

    def __init__(self):
        super().__init__({"i": In(16), "parity": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.parity.eq(self.i.xor())
        return m


class Register(wiring.Component):
    """16 bits that are held unless enabled: a multiplexer of three gates each, and one inverter for all."""

    def __init__(self):
        super().__init__({"i": In(16), "enable": In(1), "o": Out(16)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(16, reset_less=True)
        with m.If(self.enable):
            m.d.sync += held.eq(self.i)
        m.d.comb += self.o.eq(held)
        return m


class Table(wiring.Component):
    """Sixteen constants by number, which Yosys would make a memory of, and memories are no gates."""

    def __init__(self):
        super().__init__({"i": In(4), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.i):
            for number in range(16):
                with m.Case(number):
                    m.d.comb += self.o.eq(number * 11 % 16 * 17)
        return m


# Component, and by hand: two-input gates, inverters, flip-flops, the least depth; ALUTs, carry bits, registers, ALMs.
# In CMOS a NAND has 4 transistors, an inverter 2, an XOR 12; the last column is of the transistors where those are all.
BY_HAND = {
    FullAdder: ((5, 0, 0, 3), ({3: 2}, 0, 0, 1), 2 * 12 + 3 * 4),
    RippleAdder: ((20, 0, 0, 9), ({3: 8}, 0, 0, 4), 4 * (2 * 12 + 3 * 4)),
    XorTree: ((15, 0, 0, 4), (None, 0, 0, 3), 15 * 12),
    Register: ((48, 1, 16, 3), ({}, 0, 16, 4), None),
}


@pytest.mark.usefixtures("pinned_yosys")
@pytest.mark.parametrize("component", BY_HAND)
def test_a_circuit_costs_what_it_costs_by_hand(component, synth_cache):
    report = synthesize_component(component(), "top", cache=synth_cache)
    (two_input, inverters, flip_flops, depth), (aluts, carry_bits, registers, alms), transistors = BY_HAND[component]
    gates = report.gates
    assert (gates.two_input, gates.inverters, gates.flip_flops, gates.depth) == (
        two_input,
        inverters,
        flip_flops,
        depth,
    )
    assert transistors in (gates.transistors, None)
    for alm in (report.alm, report.alm_dsp):
        assert aluts in (alm.aluts, None)
        assert (alm.carry_bits, alm.registers, alm.dsps) == (carry_bits, registers, 0)
        assert alm.bounds == (alms, alms)


def test_a_wide_sum_is_a_carry_chain_of_its_bits(synth_cache):
    report = synthesize_component(WideAdder(), "top", cache=synth_cache)
    for alm in (report.alm, report.alm_dsp):
        assert (alm.alut_total, alm.carry_bits, alm.bounds) == (0, 17, (9, 9))
    # A half adder, and fifteen full ones: no mapping is smaller, this one is a few gates greater.
    assert 2 + 15 * 5 <= report.gates.two_input < 1.1 * (2 + 15 * 5)


def test_an_enable_costs_gates_and_in_alms_nothing(synth_cache):
    class Free(Register):
        def elaborate(self, platform):
            m = Module()
            held = Signal(16, reset_less=True)
            m.d.sync += held.eq(self.i)
            m.d.comb += self.o.eq(held)
            return m

    free, held = (synthesize_component(each(), "top", cache=synth_cache) for each in (Free, Register))
    assert (free.gates.two_input, free.gates.inverters) == (0, 0)
    assert held.gates.transistors - free.gates.transistors == 48 * 4 + 2
    assert free.alm.bounds == held.alm.bounds


@pytest.mark.usefixtures("pinned_yosys")
def test_flattened_flows_count_the_same_full_adders(synth_cache):
    with Runner(synth_cache) as runner:
        check = flat_check(RippleAdder(), "top", {}, runner)
    assert (check.gates_sum, check.gates_flat) == (20, 20)
    # Three inputs of one place and the carry of the next make functions of five: two ALUTs fewer than two a place.
    assert (check.aluts_sum, check.aluts_flat) == (8, 6)


def test_a_table_of_constants_is_logic(synth_cache):
    report = synthesize_component(Table(), "top", cache=synth_cache)
    # Eleven is odd: the lowest bit is the input's, and the three others are functions of two, three and four inputs.
    assert 2 + 1 + 1 <= report.gates.two_input < 20
    assert sum(report.alm.aluts.values()) == 3
    assert report.memory.bits == 0
