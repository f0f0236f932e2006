import re

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from gatewise import GatewiseError
from gatewise.rtl import cxxrtl
from gatewise.rtl.cxxrtl import conversion, evaluation


class Granular(wiring.Component):
    """A memory of words of four bytes, each with an enable, and one with a single enable that is inverted."""

    def __init__(self):
        word = data.ArrayLayout(8, 4)
        super().__init__({"address": In(3), "enable": In(4), "word": In(32), "bytes": Out(word), "whole": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bytes = bytes_ = memory.Memory(shape=data.ArrayLayout(8, 4), depth=8, init=[])
        m.submodules.whole = whole = memory.Memory(shape=32, depth=8, init=[])
        for cells, granularity, enable in ((bytes_, 1, self.enable), (whole, None, ~self.enable[0])):
            read, write = cells.read_port(), cells.write_port(granularity=granularity)
            m.d.comb += [
                read.addr.eq(self.address),
                write.addr.eq(self.address),
                write.data.eq(self.word),
                write.en.eq(enable),
            ]
            m.d.comb += (self.bytes if cells is bytes_ else self.whole).eq(read.data)
        return m


def differences(cache):
    try:
        design = cxxrtl.compile_design(Granular(), cache=cache)
    except cxxrtl.build.ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    rng = np.random.default_rng(0)
    count = 2000
    address, enable = rng.integers(0, 8, count), rng.integers(0, 16, count) * rng.integers(0, 2, count)
    word = rng.integers(0, 1 << 32, count)
    inputs = {"address": address, "enable": enable, "word": word}
    with design.simulate() as simulation:
        rows = {name: column.astype(np.uint32) for name, column in inputs.items()}
        found = simulation.vectors(rows, ["bytes", "whole"])
    cells = np.zeros((2, 8), dtype=np.int64)
    wrong, wanted = 0, (0, 0)
    for cycle in range(count):
        wrong += int(found["bytes"][cycle, 0]) != wanted[0]
        wrong += int(found["whole"][cycle, 0]) != wanted[1]
        at = address[cycle]
        wanted = tuple(cells[:, at])
        mask = sum(0xFF << 8 * byte for byte in range(4) if enable[cycle] >> byte & 1)
        cells[0, at] = cells[0, at] & ~mask | word[cycle] & mask
        if not enable[cycle] & 1:
            cells[1, at] = word[cycle]
    return wrong


def test_a_write_that_changes_no_bit_is_left_out_and_no_other(monkeypatch, tmp_path):
    converted = []
    without_idle_work = evaluation.without_idle_work
    monkeypatch.setattr(conversion, "without_idle_work", lambda text: converted.append(text) or without_idle_work(text))
    assert differences(tmp_path) == 0
    guards = re.findall(r"^\t+if \((.*)\) memory_\w+\.update\(", converted[0], re.MULTILINE)
    assert len(guards) == 2
    assert any(re.fullmatch(r"p_\w+", guard) for guard in guards)


def test_a_guard_that_leaves_out_too_much_is_found(monkeypatch, tmp_path):
    guarded = evaluation._guarded
    monkeypatch.setattr(
        evaluation, "_guarded", lambda found: guarded(found).replace("if (p_enable)", "if (p_enable.slice<0>().val())")
    )
    assert differences(tmp_path) > 0


class Enabled(wiring.Component):
    """Registers with and without reset under two enables: values of one enable, of both, and of an output too."""

    def __init__(self):
        super().__init__({"x": In(8), "first": In(1), "second": In(1), "o": Out(16), "sums": Out(16), "both": Out(16)})

    def elaborate(self, platform):
        m = Module()
        square, twice, shown, shared = (Signal(16, name=name) for name in ("square", "twice", "shown", "shared"))
        a, b, d = (Signal(16, name=name, reset_less=True) for name in "abd")
        c = Signal(16, name="c", init=7)
        m.d.comb += [
            square.eq(self.x * self.x),
            twice.eq(square + (square >> 1)),
            shown.eq(self.x * 3),
            shared.eq((self.x ^ 5) * (self.x + 1)),
            self.o.eq(shown ^ (shown << 1)),
            self.sums.eq(a ^ b),
            self.both.eq(c + d),
        ]
        with m.If(self.first):
            m.d.sync += [a.eq(twice ^ (twice << 3)), b.eq(square + shown + shared), c.eq(shared + shared)]
        with m.If(self.second):
            m.d.sync += d.eq(shared ^ (shared >> 2))
        return m


def wrong_cycles(cache):
    """In how many cycles the compiled registers and outputs differ from what the statements above say."""
    try:
        design = cxxrtl.compile_design(Enabled(), cache=cache)
    except cxxrtl.build.ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    rng = np.random.default_rng(1)
    count, limit = 2000, (1 << 16) - 1
    inputs = {name: rng.integers(0, 1 << bits, count) for name, bits in (("x", 8), ("first", 1), ("second", 1))}
    with design.simulate() as simulation:
        found = simulation.vectors(
            {name: column.astype(np.uint32) for name, column in inputs.items()}, ["o", "sums", "both"]
        )
    a, b, c, d = 0, 0, 7, 0
    wrong = 0
    for cycle in range(count):
        x = int(inputs["x"][cycle])
        square, shown, shared = x * x, 3 * x, (x ^ 5) * (x + 1)
        twice = square + (square >> 1) & limit
        wanted = {"o": shown ^ (shown << 1), "sums": a ^ b, "both": c + d & limit}
        wrong += any(int(found[name][cycle, 0]) != value for name, value in wanted.items())
        if inputs["first"][cycle]:
            a, b, c = (twice ^ (twice << 3)) & limit, square + shown + shared & limit, 2 * shared & limit
        if inputs["second"][cycle]:
            d = shared ^ (shared >> 2)
    return wrong


def test_values_that_only_idle_registers_use_are_not_computed(monkeypatch, tmp_path):
    converted = []
    without_idle_work = evaluation.without_idle_work
    monkeypatch.setattr(
        conversion, "without_idle_work", lambda text: converted.append(without_idle_work(text)) or converted[-1]
    )
    assert wrong_cycles(tmp_path) == 0
    everywhere, _, under_enables = converted[0].partition("if (posedge_p_clk)")
    assert "mul_uu<16>(p_x, p_x)" in under_enables, "the square is the first enable's registers' alone"
    assert "mul_uu<16>(p_x, p_x)" not in everywhere
    assert everywhere.count("mul_uu<") == 2, "an output and both enables need the other two products"


def test_a_value_that_moves_away_from_a_user_is_found(monkeypatch, tmp_path):
    under_enables = evaluation._under_enables

    def with_the_last_value_at_the_end(statements, values):
        statements = under_enables(statements, values)
        at = max(index for index, line in enumerate(statements) if "mul_uu<" in line and "posedge" not in line)
        return [*statements[:at], *statements[at + 1 :], statements[at]]

    monkeypatch.setattr(evaluation, "_under_enables", with_the_last_value_at_the_end)
    assert wrong_cycles(tmp_path) > 100


def test_a_register_left_behind_at_the_edge_is_found(monkeypatch, tmp_path):
    copy = evaluation._copy
    monkeypatch.setattr(evaluation, "_copy", lambda found: "" if found[1] == "p_b" else copy(found))
    assert wrong_cycles(tmp_path) > 100


def test_a_reset_to_another_value_is_found(monkeypatch, tmp_path):
    enabled = evaluation._enabled

    def another(statement):
        found = enabled(statement)
        return found and (found[0], found[1]._replace(initial=found[1].initial.replace("0x7u", "0x6u")))

    monkeypatch.setattr(evaluation, "_enabled", another)
    assert wrong_cycles(tmp_path) > 0


class Tables(wiring.Component):
    """Tables of constants, which are memories that are read without a clock."""

    def __init__(self):
        super().__init__({"at": In(4), "a": Out(8), "b": Out(8)})

    def elaborate(self, platform):
        m = Module()
        for out, step in ((self.a, 37), (self.b, 91)):
            with m.Switch(self.at):
                for at in range(16):
                    with m.Case(at):
                        m.d.comb += out.eq(step * at % 251)
        return m


def test_a_table_that_is_read_stays_in_one_part(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation, "PART_LENGTH", 1)
    try:
        design = cxxrtl.compile_design(Tables(), cache=tmp_path)
    except cxxrtl.build.ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    at = np.arange(16, dtype=np.uint32)
    with design.simulate() as simulation:
        found = simulation.vectors({"at": at}, ["a", "b"])
    assert np.array_equal(found["a"][:, 0], 37 * at % 251)
    assert np.array_equal(found["b"][:, 0], 91 * at % 251)
    monkeypatch.setattr(evaluation, "_TEMPORARY", re.compile("nothing"))
    with pytest.raises(GatewiseError, match=r"undeclared|was not declared"):
        cxxrtl.compile_design(Tables(), cache=tmp_path / "again")
