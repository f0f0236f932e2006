"""Toggles of signals that can be counted by hand."""

import ctypes
from types import SimpleNamespace

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from gatewise.kernels.errors import FormatError
from gatewise.rtl.activity import ACTIVITY_DRIVER, ActivityCounter
from gatewise.rtl.cxxrtl import compile_design

CYCLES = 160


class Inner(wiring.Component):
    """A counter of four bits, its parity, and a register that changes in every cycle."""

    def __init__(self):
        super().__init__({"enable": In(1), "count": Out(4), "parity": Out(1)})

    def elaborate(self, platform):
        m = Module()
        flip = Signal()
        m.d.sync += flip.eq(~flip)
        with m.If(self.enable):
            m.d.sync += self.count.eq(self.count + 1)
        m.d.comb += self.parity.eq(self.count.xor())
        return m


class Countable(wiring.Component):
    """`Inner` in a module, beside a register that never changes."""

    def __init__(self):
        super().__init__({"enable": In(1), "strobe": In(1), "out": Out(4), "parity": Out(1), "still": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Inner()
        m.d.sync += self.still.eq(self.still)
        m.d.comb += [inner.enable.eq(self.enable), self.out.eq(inner.count), self.parity.eq(inner.parity)]
        return m


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cosim")
    return compile_design(Countable(), driver=ACTIVITY_DRIVER, debug=True, cache=cache)


def counted(design, enable=1, strobe=1, cycles=CYCLES):
    with design.simulate() as simulation, ActivityCounter(simulation, "strobe") as counter:
        simulation.poke("enable", enable)
        simulation.poke("strobe", strobe)
        # The first cycle has none before it.
        simulation.run(1)
        counter.take()
        simulation.run(cycles)
        return counter.take()


def test_a_counter_of_four_bits_changes_30_bits_in_16_cycles(design):
    found = counted(design)
    assert found.cycles == CYCLES
    assert found.of("inner.count") == CYCLES // 16 * (16 + 8 + 4 + 2)
    assert found.of("inner.flip") == CYCLES
    # The parity changes where an odd number of bits does: with the lowest bit alone (8), or with three of them (2).
    assert found.of("inner.parity") == CYCLES // 16 * (8 + 2)
    assert found.of("still") == 0


def test_a_module_has_its_own_nets_once_and_its_flip_flops_apart(design):
    found = counted(design)
    count, flip, parity = (found.of(f"inner.{name}") for name in ("count", "flip", "parity"))
    assert found.toggles("inner") >= count + flip + parity
    assert found.toggles("inner", state=True) == count + flip
    assert found.toggles("", state=True) == 0
    assert found.of("out") == count


def test_what_stands_still_does_not_count(design):
    found = counted(design, enable=0)
    assert found.of("inner.count") == found.of("inner.parity") == 0
    assert found.of("inner.flip") == CYCLES


def test_cycles_without_the_strobe_do_not_count(design):
    found = counted(design, strobe=0)
    assert found.cycles == 0
    assert not found.changes.any()


def test_cycles_in_which_a_signal_is_up_are_counted(design):
    found = counted(design)
    assert found.high("inner.flip") == CYCLES // 2
    assert found.high("inner.count") == CYCLES * 15 // 16
    assert found.high("still") == 0
    assert found.plus(found).high("inner.flip") == CYCLES


def test_any_signal_is_traced_in_the_strobes_cycles(design):
    with design.simulate() as simulation, ActivityCounter(simulation, "strobe") as counter:
        trace = counter.trace(["inner.count", "inner.parity"])
        simulation.poke("enable", 1)
        simulation.run(3)
        simulation.poke("strobe", 1)
        simulation.run(5)
        record = trace.take()
        assert record.words["inner.count"][:, 0].tolist() == [3, 4, 5, 6, 7]
        assert record.words["inner.parity"][:, 0].tolist() == [0, 1, 0, 0, 1]
        with pytest.raises(FormatError, match="signal must be one of the design's, not 'none'"):
            counter.trace(["none"])


def test_a_planted_fault_shows_in_the_count(design):
    """A bit flipped behind the counter's back is one change, and then there are others than by hand."""
    with design.simulate() as simulation, ActivityCounter(simulation, "strobe") as counter:
        simulation.poke("strobe", 1)
        simulation.run(1)
        counter.take()
        simulation.poke("inner.count", 5)
        simulation.run(1)
        simulation.poke("inner.count", 4)
        simulation.run(1)
        assert counter.take().of("inner.count") == 2 + 1


def test_unknown_signals_and_designs_without_the_counter_are_refused(design):
    with pytest.raises(FormatError, match=r"signal must be one of the design's, not 'inner\.none'"):
        counted(design, cycles=1).of("inner.none")
    with design.simulate() as simulation, pytest.raises(FormatError, match="signal must be one of the design's"):
        ActivityCounter(simulation, "none")
    plain = SimpleNamespace(design=SimpleNamespace(library=ctypes.CDLL(None)))
    with pytest.raises(FormatError, match="driver=ACTIVITY_DRIVER"):
        ActivityCounter(plain, "strobe")
