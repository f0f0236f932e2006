"""A compiled design and its instances."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType

import numpy as np

from ...kernels.errors import FormatError
from ..icarus import SimulationError
from .bus import BUS_BITS, Bus, BusPorts, BusTiming
from .words import CHUNK_BITS, c_names, c_pointers, chunks

__all__ = ["CompiledDesign", "Record", "Recorder", "SignalInfo", "Simulation", "StreamRecord"]

UNSTALLED = 64
"""Cycles at the start of a stream run in which nothing stalls: they show latency and throughput."""

PATIENCE = 2000
"""Cycles without a transfer after which a design counts as hung."""

SLICE = 1 << 20
"""Cycles between two looks at the keyboard."""


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """A signal of a design: a port, a register, another signal, or a memory of `depth` words from `first` on."""

    name: str
    bits: int
    depth: int
    first: int
    is_input: bool
    is_output: bool
    pokable: bool
    is_memory: bool


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What streamed through a design: payload words by sink, cycles of the transfers, a breach of the rules."""

    payloads: dict[str, np.ndarray]
    accepted: dict[str, np.ndarray]
    delivered: dict[str, np.ndarray]
    cycles: int
    violation: str | None


@dataclass(frozen=True)
class CompiledDesign:
    """A design as native code.

    `compiler` is the program that made it, `build_seconds` what converting and compiling took in
    this call, `cached` whether an earlier call's library was taken instead.
    """

    library: ctypes.CDLL
    compiler: str
    build_seconds: float
    cached: bool

    def simulate(self) -> "Simulation":
        """A new instance, reset for two cycles, all inputs 0."""
        return Simulation(self)

    @cached_property
    def signals(self) -> dict[str, SignalInfo]:
        """Every signal of the design, by its name: levels of the hierarchy are separated by dots."""
        with self.simulate() as simulation:
            text = self.library.gatewise_signals(simulation.handle).decode()
        signals = {}
        for line in text.splitlines():
            name, *fields = line.split("\t")
            bits, depth, first, *flags = map(int, fields)
            name = name.replace(" ", ".")
            signals[name] = SignalInfo(name, bits, depth, first, *map(bool, flags))
        return signals

    def signal(self, name: str) -> SignalInfo:
        """The signal of that name."""
        if name not in self.signals:
            raise FormatError(f"signal must be one of the design's, not {name!r}")
        return self.signals[name]

    def port(self, name: str, direction: str) -> SignalInfo:
        """The port of that name; `direction` is "input" or "output"."""
        ports = {info.name: info for info in self.signals.values() if getattr(info, f"is_{direction}")}
        if name not in ports:
            raise FormatError(f"{direction} port must be one of {', '.join(ports)}, not {name!r}")
        return ports[name]


class Simulation:
    """One instance of a compiled design; a context manager.

    Cycle 0 is the first after reset. A signal read between two calls is as it stands after the
    last clock edge, combinational ones included.
    """

    def __init__(self, design: CompiledDesign) -> None:
        self.design = design
        self._library = design.library
        self.handle: int | None = self._library.gatewise_create()
        # The C++ side reads and writes host memory in place.
        self._memories: list[np.ndarray] = []

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give the instance back; a waveform is complete from here on."""
        if getattr(self, "handle", None) is not None:
            self._library.gatewise_destroy(self.handle)
            self.handle = None

    @property
    def cycle(self) -> int:
        """The cycle that comes next."""
        return int(self._library.gatewise_cycle(self.handle))

    def reset(self, cycles: int = 2) -> None:
        """Hold the design in reset for some cycles, its models apart; cycles count from its end."""
        self._library.gatewise_reset(self.handle, cycles)

    def peek(self, name: str, index: int = 0) -> int:
        """The bits of a signal, or of one word of a memory, as a number of at least 0."""
        info = self._word(name, index)
        words = np.zeros(chunks(info.bits), dtype=np.uint32)
        self._checked(self._library.gatewise_peek(self.handle, self._path(name), index, words.ctypes.data))
        return int.from_bytes(words.tobytes(), "little")

    def poke(self, name: str, value: int, index: int = 0) -> None:
        """Set an input, a register, or one word of a memory; a negative value in two's complement."""
        info = self._word(name, index)
        if not info.pokable:
            raise FormatError(f"{name} must be an input, a register or a memory to be set")
        if not -(1 << info.bits >> 1) <= value < 1 << info.bits:
            raise FormatError(f"{name} must fit {info.bits} bits, not {value}")
        text = (value % (1 << info.bits)).to_bytes(4 * chunks(info.bits), "little")
        words = np.frombuffer(text, dtype=np.uint32)
        self._checked(self._library.gatewise_poke(self.handle, self._path(name), index, words.ctypes.data))

    def run(self, max_cycles: int, until: str | None = None) -> int:
        """Run `max_cycles` cycles, or until the 1-bit output `until` is high.

        Returns the cycles before the one in which it was high, which is completed too. Raises
        `SimulationError` where it does not go high in time, or where the design breaks a rule of
        its interface.
        """
        if until is not None and self.design.port(until, "output").bits != 1:
            raise FormatError(f"{until} must be one bit wide, not {self.design.signal(until).bits}")
        name = None if until is None else until.encode()
        reached = ctypes.c_int(0)
        passed = 0
        while passed < max_cycles and not reached.value:
            cycles = min(SLICE, max_cycles - passed)
            passed += self._checked(self._library.gatewise_run(self.handle, cycles, name, ctypes.byref(reached)))
        if until is not None and not reached.value:
            raise SimulationError(f"{until} must go high within {max_cycles} cycles")
        return passed

    def vectors(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Apply a row of every input a cycle; return the outputs of the same cycles, before their clock edges.

        Rows are uint32 words, least significant first (`words_of`), as (cycles, ceil(bits / 32));
        of a port of at most 32 bits, (cycles,) will do.
        """
        given = {name: self._rows(name, "input", rows) for name, rows in inputs.items()}
        if len({len(rows) for rows in given.values()}) != 1:
            raise FormatError("inputs must be at least one, all of the same number of cycles")
        cycles = len(next(iter(given.values())))
        found = {
            name: np.zeros((cycles, chunks(self.design.port(name, "output").bits)), dtype=np.uint32) for name in outputs
        }
        self._checked(
            self._library.gatewise_vectors(
                self.handle,
                cycles,
                len(given),
                c_names(list(given)),
                c_pointers(list(given.values())),
                len(found),
                c_names(list(found)),
                c_pointers(list(found.values())),
            )
        )
        return found

    def streams(
        self,
        sources: Mapping[str, np.ndarray],
        sinks: Mapping[str, int],
        *,
        seed: int = 0,
        stalls: bool = True,
        unstalled: int = UNSTALLED,
        patience: int = PATIENCE,
    ) -> StreamRecord:
        """Send payloads into streams of the design and take a known number out of others.

        Parameters
        ----------
        sources : payload words, as `vectors` takes them, by stream
        sinks : number of payloads that must come, by stream
        seed : of the stalls, and of the noise on a payload that is not valid
        stalls : whether sources and sinks sit out cycles at random, after `unstalled` cycles without
        patience : cycles without any output after which the design counts as hung

        A payload that changes or goes away while it waits, one too many, and a hung design end the
        run: the record's `violation` says so. Cycles count from the start of the run.
        """
        given = {name: self._rows(f"{name}__payload", "input", rows) for name, rows in sources.items()}
        for name in sources:
            self.design.port(f"{name}__valid", "input")
        counts_in = np.array([len(rows) for rows in given.values()], dtype=np.uint64)
        counts_out = np.array(list(sinks.values()), dtype=np.uint64)
        payloads = [
            np.zeros((count, chunks(self.design.port(f"{name}__payload", "output").bits)), dtype=np.uint32)
            for name, count in sinks.items()
        ]
        if not sinks:
            raise FormatError("sinks must be at least one")
        # Every time is -1 until its transfer.
        accepted = [np.full(len(rows), -1, dtype=np.int64) for rows in given.values()]
        delivered = [np.full(count, -1, dtype=np.int64) for count in sinks.values()]
        received = np.zeros(len(sinks), dtype=np.uint64)
        start = self.cycle
        cycles = self._library.gatewise_streams(
            self.handle,
            len(given),
            c_names(list(given)),
            c_pointers(list(given.values())),
            counts_in.ctypes.data,
            c_pointers(accepted),
            len(sinks),
            c_names(list(sinks)),
            c_pointers(payloads),
            counts_out.ctypes.data,
            c_pointers(delivered),
            received.ctypes.data,
            seed,
            stalls,
            unstalled,
            patience,
        )
        violation = self._error() if cycles < 0 else None
        return StreamRecord(
            {name: rows[: int(n)] for name, rows, n in zip(sinks, payloads, received, strict=True)},
            {name: times[times >= 0] for name, times in zip(given, accepted, strict=True)},
            {name: times[: int(n)] for name, times, n in zip(sinks, delivered, received, strict=True)},
            self.cycle - start,
            violation,
        )

    def attach_bus(self, ports: BusPorts, memory: np.ndarray, timing: BusTiming | None = None) -> "Bus":
        """Put host memory behind a bus of the design.

        `memory` holds one bus word a row (or element) in little-endian bytes, C-contiguous and
        writable: (words, 16) uint8 or (words, 2) uint64 for 128 bits. It is written in place.
        """
        timing = timing or BusTiming()
        if not (memory.flags.c_contiguous and memory.flags.writeable) or memory.ndim not in (1, 2) or not memory.size:
            raise FormatError("bus memory must be a C-contiguous, writable array of one word a row, and not empty")
        word_bits = 8 * memory.nbytes // len(memory)
        if word_bits not in BUS_BITS:
            raise FormatError(f"bus words must have {', '.join(map(str, BUS_BITS))} bits, not {word_bits}")
        if (ports.request is None) != (ports.words is None) or ports == BusPorts():
            raise FormatError("a bus must have a request stream with its words, or a write stream, or both")
        if ports.words is not None and ports.request is not None:
            width = self.design.port(f"{ports.words}__payload", "input").bits
            self.design.port(f"{ports.words}__valid", "input")
            address = self.design.port(f"{ports.request}__payload", "output").bits
            if width != word_bits:
                raise FormatError(f"{ports.words} must be as wide as a bus word, {word_bits} bits, not {width}")
            if not 1 <= address <= 64:
                raise FormatError(f"{ports.request} must carry an address of 1 to 64 bits, not {address}")
        if ports.write is not None:
            width = self.design.port(f"{ports.write}__payload", "output").bits
            if not 1 <= width - word_bits <= 64:
                raise FormatError(
                    f"{ports.write} must carry an address of 1 to 64 bits and {word_bits} bits of a word, "
                    f"not {width} bits"
                )
        self._memories.append(memory)
        index = self._checked(
            self._library.gatewise_attach_bus(
                self.handle,
                *(None if name is None else name.encode() for name in (ports.request, ports.words, ports.write)),
                memory.ctypes.data,
                len(memory),
                word_bits // 8,
                timing.latency,
                timing.stall,
                timing.seed,
            )
        )
        return Bus(self, index)

    def record(self, strobe: str, outputs: Sequence[str]) -> "Recorder":
        """Keep the bits of some outputs in every cycle in which the output `strobe` is not 0, from now on."""
        widths = {name: chunks(self.design.port(name, "output").bits) for name in outputs}
        self.design.port(strobe, "output")
        index = self._checked(
            self._library.gatewise_record(self.handle, strobe.encode(), len(widths), c_names(list(widths)))
        )
        return Recorder(self, index, widths)

    def waveform(self, path: str | Path, start: int = 0, stop: int = 1 << 62) -> None:
        """Record the cycles from `start` up to, without, `stop` as a VCD file: 10 ns each, edge at 5 ns.

        The file is complete after `end_waveform` or `close`. Signals that the compiler folded away
        are there only in a design compiled with ``debug=True``; memories never are.
        """
        self._checked(self._library.gatewise_waveform(self.handle, str(path).encode(), start, stop))

    def end_waveform(self) -> None:
        """Finish the file of `waveform`."""
        self._checked(self._library.gatewise_waveform(self.handle, None, 0, 0))

    def _path(self, name: str) -> bytes:
        return name.replace(".", " ").encode()

    def _word(self, name: str, index: int) -> SignalInfo:
        info = self.design.signal(name)
        if not info.first <= index < info.first + info.depth:
            raise FormatError(
                f"index of {name} must be from {info.first} to {info.first + info.depth - 1}, not {index}"
            )
        return info

    def _rows(self, name: str, direction: str, rows: np.ndarray) -> np.ndarray:
        """The words of a port, checked against its width."""
        bits = self.design.port(name, direction).bits
        rows = np.asarray(rows)
        if rows.ndim == 1 and bits <= CHUNK_BITS:
            rows = rows[:, None]
        if not np.issubdtype(rows.dtype, np.integer) or rows.ndim != 2 or rows.shape[1] != chunks(bits):
            raise FormatError(
                f"{name} must be integers of shape (cycles, {chunks(bits)}), not {rows.dtype} of {rows.shape}"
            )
        top = bits - CHUNK_BITS * (chunks(bits) - 1)
        if len(rows) and not (0 <= rows.min() and rows.max() < 1 << CHUNK_BITS and rows[:, -1].max() < 1 << top):
            raise FormatError(f"{name} must hold unsigned patterns of {bits} bits in words of {CHUNK_BITS}")
        return np.ascontiguousarray(rows, dtype=np.uint32)

    def _error(self) -> str:
        return str(self._library.gatewise_error(self.handle).decode())

    def _checked(self, result: int) -> int:
        if result < 0:
            raise SimulationError(self._error())
        return result


@dataclass(frozen=True, slots=True)
class Record:
    """What a recorder kept: the cycles, int64, and the words of each output in them, as `vectors` gives them."""

    cycles: np.ndarray
    words: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.cycles)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Outputs that a simulation keeps in the cycles of a strobe; `widths` are their words of 32 bits."""

    simulation: Simulation
    index: int
    widths: Mapping[str, int]

    def __len__(self) -> int:
        return int(self.simulation.design.library.gatewise_recorded(self.simulation.handle, self.index))

    def take(self) -> Record:
        """What was recorded since the last call, which the recorder then forgets."""
        cycles = np.zeros(len(self), dtype=np.int64)
        rows = np.zeros((len(cycles), sum(self.widths.values())), dtype=np.uint32)
        self.simulation.design.library.gatewise_take(
            self.simulation.handle, self.index, cycles.ctypes.data, rows.ctypes.data
        )
        ends = accumulate(self.widths.values())
        words = {name: rows[:, end - self.widths[name] : end] for name, end in zip(self.widths, ends, strict=True)}
        return Record(cycles, words)
