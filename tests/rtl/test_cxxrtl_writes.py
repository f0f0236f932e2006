import re

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl import cxxrtl
from gatewise.rtl.cxxrtl import conversion


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
    in_parts = conversion.in_parts
    monkeypatch.setattr(conversion, "in_parts", lambda text: converted.append(text) or in_parts(text))
    assert differences(tmp_path) == 0
    guards = re.findall(r"^\t+if \((.*)\) memory_\w+\.update\(", converted[0], re.MULTILINE)
    assert len(guards) == 2
    assert any(re.fullmatch(r"p_\w+", guard) for guard in guards)


def test_a_guard_that_leaves_out_too_much_is_found(monkeypatch, tmp_path):
    guarded = conversion._guarded
    monkeypatch.setattr(
        conversion, "_guarded", lambda found: guarded(found).replace("if (p_enable)", "if (p_enable.slice<0>().val())")
    )
    assert differences(tmp_path) > 0
