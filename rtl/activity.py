"""Switching activity of compiled RTL: toggles of every signal's bits, counted while a design runs.

    design = compile_design(component, driver=ACTIVITY_DRIVER, debug=True)
    with design.simulate() as simulation, ActivityCounter(simulation, strobe="busy") as counter:
        simulation.run(1000)
        found = counter.take()
        found.toggles("engine.compute.array")

A signal is looked at once a cycle, before the clock edge: zero-delay, without glitches. Only a design compiled with
``debug=True`` has all of its signals; otherwise those that happen to have storage.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from ..kernels.errors import FormatError
from .cxxrtl import CompiledDesign, Recorder, Simulation
from .cxxrtl.words import c_names, chunks

__all__ = ["ACTIVITY_DRIVER", "Activity", "ActivityCounter", "Net"]

ACTIVITY_DRIVER = Path(__file__).parent / "cxxrtl" / "activity.cc"
"""The extension of the driver that counts: `compile_design` takes it."""

UNCOUNTED = ("clk", "rst")
"""The clock, and the reset that is never up."""


@dataclass(frozen=True, slots=True)
class Net:
    """A part of a signal by its name in the hierarchy; signals that are one wire have one `storage`."""

    name: str
    storage: int
    bits: int
    is_state: bool
    """Whether a flip-flop holds it."""

    @property
    def module(self) -> str:
        """The instance in which the signal is declared, "" for the top."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Activity:
    """What changed in `cycles` cycles: bit changes of each storage, and the cycles in which it was not 0, int64."""

    nets: tuple[Net, ...]
    changes: np.ndarray
    highs: np.ndarray
    cycles: int

    def plus(self, other: "Activity") -> "Activity":
        """Of two runs of one design."""
        return Activity(self.nets, self.changes + other.changes, self.highs + other.highs, self.cycles + other.cycles)

    @cached_property
    def by_module(self) -> dict[str, list[Net]]:
        """The nets of every instance, each wire once; a port is a net of both modules that it connects."""
        found: dict[str, dict[int, Net]] = {}
        for net in self.nets:
            own = found.setdefault(net.module, {})
            if net.storage not in own or net.is_state:
                own[net.storage] = net
        return {module: list(nets.values()) for module, nets in found.items()}

    def toggles(self, module: str, *, state: bool = False) -> int:
        """Bit changes of an instance's own nets, those of its submodules apart; with `state` of its flip-flops."""
        nets = self.by_module.get(module, [])
        return sum(int(self.changes[net.storage]) for net in nets if net.is_state or not state)

    def bits(self, module: str) -> int:
        """Bits of an instance's own nets."""
        return sum(net.bits for net in self.by_module.get(module, []))

    def of(self, name: str) -> int:
        """Bit changes of one signal."""
        return sum(int(self.changes[net.storage]) for net in self._named(name))

    def high(self, name: str) -> int:
        """Cycles in which a signal was not 0."""
        first, *more = self._named(name)
        if more:
            raise FormatError(f"{name} must be a signal in one part")
        return int(self.highs[first.storage])

    def _named(self, name: str) -> list[Net]:
        found = [net for net in self.nets if net.name == name]
        if not found:
            raise FormatError(f"signal must be one of the design's, not {name!r}")
        return found


class ActivityCounter:
    """Counts the changes of a simulation's signals in the cycles in which `strobe` is not 0; a context manager."""

    def __init__(self, simulation: Simulation, strobe: str) -> None:
        self._simulation = simulation
        self._library = _typed(simulation.design)
        simulation.design.signal(strobe)
        self._strobe = strobe.replace(".", " ").encode()
        self._handle = self._library.gatewise_activity(simulation.handle, self._strobe)
        if not self._handle:
            raise FormatError(f"{strobe} must be a signal in one part")
        text = self._library.gatewise_activity_signals(self._handle).decode()
        nets = []
        for line in text.splitlines():
            name, storage, bits, state = line.split("\t")
            nets.append(Net(name.replace(" ", "."), int(storage), int(bits), state == "1"))
        self.nets = tuple(net for net in nets if net.name.rpartition(".")[2] not in UNCOUNTED)

    def __enter__(self) -> "ActivityCounter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle and self._simulation.handle is not None:
            self._library.gatewise_activity_end(self._simulation.handle, self._handle)
        self._handle = None

    def trace(self, names: Sequence[str]) -> Recorder:
        """Keep the bits of any signals in one part, in the strobe's cycles from now on."""
        design, handle = self._simulation.design, self._simulation.handle
        widths = {name: chunks(design.signal(name).bits) for name in names}
        paths = [name.replace(".", " ") for name in widths]
        index = self._library.gatewise_record(handle, self._strobe, len(widths), c_names(paths))
        if index < 0:
            raise FormatError(self._library.gatewise_error(handle).decode())
        return Recorder(self._simulation, index, widths)

    def take(self) -> Activity:
        """What changed since the last call, or the beginning."""
        size = self._library.gatewise_activity_size(self._handle)
        changes, highs = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint64)
        cycles = int(self._library.gatewise_activity_cycles(self._handle))
        self._library.gatewise_activity_take(self._handle, changes.ctypes.data, highs.ctypes.data)
        return Activity(self.nets, changes.astype(np.int64), highs.astype(np.int64), cycles)


def _typed(design: CompiledDesign) -> ctypes.CDLL:
    """The library with the types of the extension's functions."""
    library, pointer = design.library, ctypes.c_void_p
    if not hasattr(library, "gatewise_activity"):
        raise FormatError("a design whose activity is counted must be compiled with driver=ACTIVITY_DRIVER")
    for name, result, arguments in (
        ("", pointer, (pointer, ctypes.c_char_p)),
        ("_signals", ctypes.c_char_p, (pointer,)),
        ("_size", ctypes.c_uint64, (pointer,)),
        ("_cycles", ctypes.c_uint64, (pointer,)),
        ("_take", None, (pointer, pointer, pointer)),
        ("_end", None, (pointer, pointer)),
    ):
        function = getattr(library, f"gatewise_activity{name}")
        function.restype, function.argtypes = result, arguments
    return library
