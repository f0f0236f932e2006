"""Co-simulation of the whole engine: a compiled network runs in compiled RTL and is held to the simulator.

Every digit that a layer writes, every overflow counter and, where the bus does not stall, every layer's
cycle count must be the simulator's own.

    design = compile_engine(config)
    result = regress_network(design, compile_network(network, config), codes)
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from amaranth import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from ...kernels.mac import MacFormat
from ...sim.compile import CompiledNetwork
from ...sim.engine import EngineConfig
from ...sim.images import ImageSet
from ...sim.run import RunResult, run
from ..cxxrtl import BusPorts, BusTiming, CompiledDesign, Record, Simulation, bits_of, compile_design
from ..icarus import SimulationError
from .check import ErrorCode
from .comparison import (
    CounterRecord,
    Mismatch,
    Shadow,
    Writes,
    compare_counters,
    compare_cycles,
    compare_layer,
    counted_digits,
    written_tensors,
)
from .engine import Engine

__all__ = [
    "WATCHED",
    "EngineProbe",
    "EngineRun",
    "EngineSimulation",
    "NetworkComparison",
    "Window",
    "check_error",
    "compare_network",
    "compile_engine",
    "layer_text",
    "regress_network",
]

BUS = BusPorts(request="request", words="words", write="write")
IDLE = "idle"
WATCHED = {
    "write_mask": ("write_mask", "write_address", "write_data", "current"),
    "layer_done": ("layer_cycles", "layer_index"),
    "counts_closed": ("product_count", "align_count", "acc_count"),
    "post_closed": ("post_count",),
}
"""Outputs of the engine that are kept in the cycles of a strobe: all that is compared but the result."""
SETTLING = 64
"""Cycles after the last layer in which nothing may move any more but the counters that are handed over late."""


class EngineProbe(wiring.Component):  # type: ignore[misc]
    """An engine with what is to be seen of it as outputs; all of its own ports stay.

    Parameters
    ----------
    engine : the component
    observed : name of an output that is wanted besides, and the attribute path of its signal in the engine

    `idle` is up while the engine is not `busy`.
    """

    def __init__(self, engine: wiring.Component, observed: Mapping[str, str] | None = None) -> None:
        self.engine = engine
        self.signals = {name: attrgetter(path)(engine) for name, path in (observed or {}).items()}
        ports = dict(engine.signature.members)
        extra = {name: Out(Value.cast(signal).shape()) for name, signal in self.signals.items()}
        super().__init__({**ports, **extra, IDLE: Out(1)})

    def elaborate(self, platform: object) -> Module:
        """Connect through."""
        m = Module()
        m.submodules.engine = self.engine
        for name in self.engine.signature.members:
            inner, outer = getattr(self.engine, name), getattr(self, name)
            flow = self.engine.signature.members[name]
            if flow.is_signature:
                wiring.connect(m, wiring.flipped(outer), inner)
            elif flow.flow is Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        m.d.comb += [getattr(self, name).eq(signal) for name, signal in self.signals.items()]
        m.d.comb += getattr(self, IDLE).eq(~self.engine.busy)
        return m


def compile_engine(config: EngineConfig, *, formats: bool = False, debug: bool = False) -> CompiledDesign:
    """The engine with its probe as native code; what an earlier call compiled is taken from the cache.

    `formats` makes the datapath's widths inputs, up to the configured ones; `debug` keeps every signal for a
    waveform. The bus latency and the clock are not the design's: engines that differ in these alone are one.
    """
    config = config.model_copy(update={"bus_latency": 0, "clock_mhz": 1.0})
    recipe = f"EngineProbe(Engine({config!r}, formats={formats}))"
    return compile_design(lambda: EngineProbe(Engine(config, formats)), recipe=recipe, debug=debug)


@dataclass(frozen=True, slots=True)
class Window:
    """Cycles from `start` up to, without, `stop` that go into a VCD file; they count from reset."""

    path: Path
    start: int = 0
    stop: int = 1 << 62


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What the engine did with one image."""

    result: np.ndarray
    writes: Writes
    counters: tuple[CounterRecord, ...]
    layer_cycles: np.ndarray
    layer_indices: np.ndarray
    layer_ends: np.ndarray
    cycles: int
    words_read: int

    @classmethod
    def of(
        cls, compiled: CompiledNetwork, memory: np.ndarray, watched: Mapping[str, Record], cycles: int, words_read: int
    ) -> "EngineRun":
        """What a simulator left in the memory and kept of the outputs `WATCHED`, by their strobes."""
        engine, rows = compiled.engine, compiled.engine.rows
        enables, bits = engine.word_enables, engine.enable_bits
        writes, layers = watched["write_mask"], watched["layer_done"]
        compute, post = watched["counts_closed"], watched["post_closed"]
        digits = bits_of(writes.words["write_data"], engine.word_bits).reshape(-1, enables, bits)
        return cls(
            compiled.decode_result(memory),
            Writes(
                writes.cycles,
                writes.words["current"][:, 0].astype(np.int64),
                writes.words["write_address"][:, 0].astype(np.int64),
                bits_of(writes.words["write_mask"], enables).astype(np.bool_),
                (digits << np.arange(bits, dtype=np.uint8)).sum(axis=2).astype(np.uint8),
            ),
            (
                CounterRecord(compute.cycles, {kind: _counts(compute, f"{kind}_count", rows) for kind in _KINDS}),
                CounterRecord(post.cycles, {"post": _counts(post, "post_count", rows)}),
            ),
            layers.words["layer_cycles"][:, 0].astype(np.int64),
            layers.words["layer_index"][:, 0].astype(np.int64),
            layers.cycles,
            cycles,
            words_read,
        )


class EngineSimulation:
    """One engine with its bus and a network's memory image; a context manager.

    Parameters
    ----------
    design : an `EngineProbe`, compiled
    compiled : the network; its engine's bus latency is the bus's, and where the design has
        formats as inputs, its formats are theirs
    stall : chance of each side of the bus to sit out a cycle, by `seed`
    window : cycles that are recorded as a waveform
    """

    def __init__(
        self,
        design: CompiledDesign,
        compiled: CompiledNetwork,
        *,
        stall: float = 0.0,
        seed: int = 0,
        window: Window | None = None,
    ) -> None:
        self.compiled = compiled
        self.stall = stall
        self.simulation: Simulation = design.simulate()
        simulation, engine = self.simulation, compiled.engine
        self.memory = compiled.image.copy()
        self.bus = simulation.attach_bus(BUS, self.memory, BusTiming(engine.bus_latency, stall, seed))
        if "format" in design.signals:
            simulation.poke("format", format_word(engine.mac))
        if window is not None:
            simulation.waveform(window.path, window.start, window.stop)
        self._recorders = {strobe: simulation.record(strobe, outputs) for strobe, outputs in WATCHED.items()}

    def __enter__(self) -> "EngineSimulation":
        return self

    def __exit__(self, *error: object) -> None:
        self.simulation.close()

    def run(self, codes: np.ndarray, limit: int) -> EngineRun:
        """Run one image's input codes (C, H, W) to the end.

        Raises `SimulationError` where the engine is not done after `limit` cycles, reports an error, or breaks a rule
        of its bus.
        """
        simulation, compiled = self.simulation, self.compiled
        self.memory[:] = compiled.with_input(codes)
        start, words = simulation.cycle, self.bus.words_read
        simulation.poke("base", 0)
        simulation.poke("start", 1)
        simulation.run(1)
        simulation.poke("start", 0)
        try:
            simulation.run(limit, until=IDLE)
        except SimulationError as error:
            running = layer_text(compiled, simulation.peek("current"))
            raise SimulationError(f"{running}, cycle {simulation.cycle}: {error}") from error
        check_error(compiled, simulation.peek("error"), simulation.peek("error_layer"))
        cycles = simulation.cycle - start
        simulation.run(SETTLING)
        watched = {strobe: recorder.take() for strobe, recorder in self._recorders.items()}
        return EngineRun.of(compiled, self.memory, watched, cycles, self.bus.words_read - words)


def layer_text(compiled: CompiledNetwork, layer: int) -> str:
    """A layer by its number, as messages name it."""
    return f"layer {compiled.layers[layer].name}" if layer < len(compiled.layers) else "after the last layer"


def check_error(compiled: CompiledNetwork, code: int, layer: int) -> None:
    """Raise `SimulationError` where the engine's port `error` says anything."""
    if code:
        name, error = layer_text(compiled, layer), ErrorCode(code).name
        raise SimulationError(f"{name}: the engine must end without an error, not with error {code} ({error})")


_KINDS: tuple[Any, ...] = ("product", "align", "acc")


def _counts(record: Record, name: str, rows: int) -> np.ndarray:
    """Counters of 32 bits, (N, rows): the words of the port as they are."""
    return record.words[name].reshape(-1, rows).astype(np.int64)


def format_word(mac: MacFormat) -> int:
    """The formats as the engine's input `format` takes them."""
    return mac.product | mac.align << 4 | mac.acc << 9 | (mac.overflow == "wrap") << 15


@dataclass(frozen=True, slots=True)
class NetworkComparison:
    """Outcome of a network's co-simulation; `mismatch` is the first difference, None where there is none."""

    network: str
    engine: str
    images: int
    layers: int
    digits: int
    counters: int
    cycles: int
    overflows: int
    stall: float
    seconds: float
    mismatch: str | None

    @property
    def passed(self) -> bool:
        """Whether all agreed."""
        return self.mismatch is None

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return {**asdict(self), "passed": self.passed}


def regress_network(
    design: CompiledDesign,
    compiled: CompiledNetwork,
    codes: np.ndarray,
    *,
    stall: float = 0.0,
    seed: int = 0,
    window: Window | None = None,
    progress: Callable[[int], None] | None = None,
) -> NetworkComparison:
    """Run input codes (N, C, H, W) image by image and compare everything with the simulator.

    `progress` is called with the images done. The run ends at the first difference; an engine that hangs,
    reports an error or breaks a rule of its bus differs, too.
    """
    with EngineSimulation(design, compiled, stall=stall, seed=seed, window=window) as simulation:
        return compare_network(compiled, codes, simulation.run, stall=stall, progress=progress)


def compare_network(
    compiled: CompiledNetwork,
    codes: np.ndarray,
    simulate: Callable[[np.ndarray, int], EngineRun],
    *,
    stall: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> NetworkComparison:
    """The comparison of `regress_network` for any simulator.

    `simulate` runs one image's codes (C, H, W) in at most so many cycles; it raises `SimulationError` where the
    engine hangs, reports an error or breaks a rule of its bus, whose sides sit out cycles by the chance `stall`.
    """
    began = time.perf_counter()
    done = digits = counters = cycles = overflows = 0
    mismatch: str | None = None
    for image in range(len(codes)):
        golden = run(
            compiled.network,
            ImageSet(codes[image : image + 1], coded=True),
            compiled.engine,
            trace=True,
            form="faithful",
        )
        limit = cycle_limit(golden, stall)
        try:
            found = simulate(codes[image], limit)
            first = compare_image(compiled, golden, found, exact=stall == 0)
        except SimulationError as error:
            first, found = str(error), None
        if first is not None:
            mismatch = f"image {image}, {first}"
            break
        assert found is not None
        done += 1
        layers = written_tensors(compiled, _one_image(golden))
        digits += sum(counted_digits(layers))
        counters += sum(int(np.prod(each.shape)) for record in found.counters for each in record.counts.values())
        cycles += found.cycles
        overflows += sum(golden.overflow(kind) for kind in (*_KINDS, "post"))
        if progress is not None:
            progress(done)
    return NetworkComparison(
        compiled.network.name,
        f"{compiled.engine.rows} x {compiled.engine.lanes}, bus {compiled.engine.bus_bits}",
        done,
        len(compiled.layers),
        digits,
        counters,
        cycles,
        overflows,
        stall,
        time.perf_counter() - began,
        mismatch,
    )


def cycle_limit(golden: RunResult, stall: float) -> int:
    """Cycles after which an engine counts as hung: twice the model's, more where the bus stalls."""
    return int(2 * golden.cycles_per_image / (1 - stall) ** 2) + 10_000


def _one_image(golden: RunResult) -> dict[str, np.ndarray]:
    return {name: tensor[0] for name, tensor in golden.tensors.items()}


def compare_image(compiled: CompiledNetwork, golden: RunResult, found: EngineRun, *, exact: bool) -> str | None:
    """The first difference between a golden run of one image and what the engine did; None without one."""
    tensors = _one_image(golden)
    shadow = Shadow(compiled.engine)
    differences: list[Mismatch | None] = []
    for number, (layer, expected) in enumerate(zip(compiled.layers, written_tensors(compiled, tensors), strict=True)):
        writes = found.writes.of_layer(number)
        differences.append(compare_layer(layer.name, expected, writes, shadow, whole_words=layer.op == "load"))
        if differences[-1] is not None:
            break
    late = np.flatnonzero(found.writes.layers >= len(compiled.layers))
    if late.size:
        differences.append(
            Mismatch("end", "activation memory", "no write", "a write", int(found.writes.cycles[late[0]]))
        )
    differences += [
        compare_counters(compiled, golden.overflows, found.counters),
        compare_cycles(golden.layers, found.layer_cycles, found.layer_indices, found.layer_ends, exact=exact),
        _compare_result(compiled, tensors[compiled.network.output], found),
    ]
    return next((str(difference) for difference in differences if difference is not None), None)


def _compare_result(compiled: CompiledNetwork, wanted: np.ndarray, found: EngineRun) -> Mismatch | None:
    """What the engine has stored into the host's memory."""
    wrong = wanted != found.result
    if not wrong.any():
        return None
    channel, y, x = (int(index) for index in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    return Mismatch(
        f"{compiled.layers[-1].name} (store)",
        f"channel {channel}, pixel {y * wanted.shape[2] + x} (y {y}, x {x})",
        str(int(wanted[channel, y, x])),
        str(int(found.result[channel, y, x])),
        int(found.layer_ends[-1]) if len(found.layer_ends) else None,
    )
