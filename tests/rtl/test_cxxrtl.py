import ctypes
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from amaranth import ClockDomain, Const, Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from gatewise import kernels
from gatewise.kernels.accumulator import MAX_DIGIT_SHIFT
from gatewise.kernels.dot import DotStep
from gatewise.kernels.errors import FormatError, GatewiseError, ToolMissingError, UnsupportedError
from gatewise.rtl import cxxrtl, dot
from gatewise.rtl.bench import EXHAUSTIVE_LIMIT
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.cxxrtl import (
    BusPorts,
    BusTiming,
    bits_of,
    compile_design,
    conversion,
    evaluation,
    simulate_compiled,
    words_of,
)
from gatewise.rtl.icarus import SimulationError, interface_of
from gatewise.rtl.multiplier import digit_values
from gatewise.rtl.regress import UNSTALLED_VECTORS
from gatewise.rtl.tree import AdderTree

WORD_BITS = 64
ADDRESS_BITS = 10


class Summer(wiring.Component):
    """Requests `count` words from address 0, adds them up and writes the sum to address `target`.

    The words come without backpressure: they have no ready.
    """

    def __init__(self, word_bits=WORD_BITS):
        self.word_bits = word_bits
        write = data.StructLayout({"address": ADDRESS_BITS, "word": word_bits})
        super().__init__(
            {
                "count": In(ADDRESS_BITS),
                "target": In(ADDRESS_BITS),
                "request": Out(stream.Signature(ADDRESS_BITS)),
                "words": In(wiring.Signature({"payload": Out(word_bits), "valid": Out(1)})),
                "write": Out(stream.Signature(write)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        asked = Signal(ADDRESS_BITS)
        taken = Signal(ADDRESS_BITS)
        total = Signal(self.word_bits)
        clock = Signal(16)
        # One bit a cycle in which a word came, by time.
        m.submodules.trace = trace = memory.Memory(shape=1, depth=1024, init=[])
        port = trace.write_port()
        m.d.comb += [port.addr.eq(clock), port.data.eq(self.words.valid), port.en.eq(1)]
        m.d.sync += clock.eq(clock + 1)
        m.d.comb += [
            self.request.payload.eq(asked),
            self.request.valid.eq(asked != self.count),
            self.write.payload.address.eq(self.target),
            self.write.payload.word.eq(total),
            self.write.valid.eq((taken == self.count) & ~self.done),
        ]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += asked.eq(asked + 1)
        with m.If(self.words.valid):
            m.d.sync += [taken.eq(taken + 1), total.eq(total + self.words.payload)]
        with m.If(self.write.valid & self.write.ready):
            m.d.sync += self.done.eq(1)
        return m


class Careless(wiring.Component):
    """A register stage that, by its fault, changes or drops what waits."""

    def __init__(self, fault):
        self.fault = fault
        super().__init__({"i": In(stream.Signature(signed(8))), "o": Out(stream.Signature(signed(8)))})

    def elaborate(self, platform):
        m = Module()
        if self.fault == "hang":
            return m
        waits = self.o.valid & ~self.o.ready
        m.d.comb += self.i.ready.eq(~waits)
        with m.If(~waits):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        match self.fault:
            case "change":
                with m.If(waits):
                    m.d.sync += self.o.payload.eq(self.o.payload + 1)
            case "drop":
                with m.If(waits):
                    m.d.sync += self.o.valid.eq(0)
            case "repeat":
                with m.If(~waits & self.o.valid & ~self.i.valid):
                    m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(self.o.payload)]
        return m


@pytest.fixture(scope="session")
def compiler() -> str:
    """Skip where there is no C++ compiler."""
    try:
        return cxxrtl.find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")


@pytest.fixture(scope="session")
def cache(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of libraries that starts empty and serves the whole test run."""
    return tmp_path_factory.mktemp("cosim")


def golden_steps(parameters, inputs):
    """What `DotProductRowBench.expected` computes step by step, for all accumulators side by side."""
    a, w = (digit_values(inputs[name], inputs[f"{name}_signed"][:, None]) for name in ("a", "w"))
    unsigned = (inputs["a_signed"] | inputs["w_signed"]) == 0
    starts = np.flatnonzero(inputs["first"])
    lengths = np.diff(np.append(starts, len(unsigned)))
    results = {name: np.zeros(len(unsigned), dtype=np.int64) for name in DotStep._fields}
    for position in range(lengths.max()):
        at = starts[lengths > position] + position
        for sign in (False, True):
            for shift in range(MAX_DIGIT_SHIFT + 1):
                now = at[(unsigned[at] == sign) & (inputs["digit_shift"][at] == shift)]
                before = np.where(position > 0, results["acc"][now - 1], 0)
                step = parameters.compute(before, a[now], w[now], inputs["amount"][now], sign, shift)
                for name, values in step._asdict().items():
                    results[name][now] = values
    return results


def mismatches(component, block, parameters, count, cache):
    """Stream or apply vectors: how many outputs are not the golden ones, and the record."""
    interface = interface_of(component)
    bench = block.bench(parameters)
    if not interface.streaming and bench.space(interface.inputs) <= EXHAUSTIVE_LIMIT:
        inputs = bench.exhaustive(interface.inputs)
    else:
        inputs = bench.stimulus(interface.inputs, np.random.default_rng(1), count)
    expected = golden_steps(parameters, inputs) if block.name == "dot" else bench.expected(inputs)
    golden = interface.outputs.pack(expected)
    record = simulate_compiled(component, interface.inputs.pack(inputs), 1, cache=cache)
    assert record.violation is None
    assert record.outputs.shape == golden.shape
    return int((record.outputs != golden).any(axis=1).sum()), record


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("multiplier", 0),
        ("align", 0),
        ("tree", 100_000),
        ("accumulator", 200_000),
        ("dot", 200_000),
        ("scale", 20_000),
        ("threshold", 100_000),
        ("correction", 200_000),
    ],
)
def test_a_block_agrees_with_its_golden_model_on_many_vectors(name, count, cache):
    parameters, component = BLOCKS[name].create({})
    wrong, record = mismatches(component, BLOCKS[name], parameters, count, cache)
    assert wrong == 0
    if record.delivered:
        passed = np.array(record.delivered) - np.array(record.accepted)
        assert (passed[:UNSTALLED_VECTORS] == component.latency).all()
        assert passed.max() > component.latency, "nothing ever stalled"


def test_a_row_that_accumulates_bubbles_is_found(cache, monkeypatch):
    advance_together = dot.advance_together

    def always_valid(*arguments):
        advance, valid = advance_together(*arguments)
        return advance, [Const(1)] * len(valid)

    monkeypatch.setattr(dot, "advance_together", always_valid)
    parameters, component = BLOCKS["dot"].create({"lanes": 2})
    wrong, _ = mismatches(component, BLOCKS["dot"], parameters, 2000, cache)
    assert wrong > 100


def test_evaluation_in_many_parts_computes_the_same(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "PART_LENGTH", 200)
    converted = []
    without_idle_work = evaluation.without_idle_work
    monkeypatch.setattr(
        conversion, "without_idle_work", lambda text: converted.append(without_idle_work(text)) or converted[-1]
    )
    folder = tmp_path / "cosim"
    shutil.copytree(cache, folder)
    parameters, component = BLOCKS["dot"].create({"lanes": 4})
    wrong, _ = mismatches(component, BLOCKS["dot"], parameters, 5000, folder)
    assert wrong == 0
    assert converted[0].count("bool p_top::part_") > 20


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("change", "o changed its payload while it waited, cycle "),
        ("drop", "o dropped valid while it waited, cycle "),
        ("repeat", "o sent more than 500 payloads, cycle "),
        ("hang", "o sent nothing for 2000 cycles after 0 of 500 payloads, cycle "),
        (None, None),
    ],
)
def test_a_breach_of_the_stream_rules_is_found(fault, message, cache):
    values = np.arange(500) % 256
    with compile_design(Careless(fault), cache=cache).simulate() as simulation:
        run = simulation.streams({"i": values}, {"o": 500}, seed=3)
    if fault is None:
        assert run.violation is None
        assert np.array_equal(run.payloads["o"][:, 0], values)
    else:
        assert run.violation.startswith(message)


def test_stalls_follow_their_seed(cache):
    design = compile_design(Careless(None), cache=cache)
    times = []
    for seed, stalls in ((3, True), (3, True), (4, True), (3, False)):
        with design.simulate() as simulation:
            run = simulation.streams({"i": np.arange(256)}, {"o": 256}, seed=seed, stalls=stalls)
        times.append(run.delivered["o"])
    assert np.array_equal(times[0], times[1])
    assert not np.array_equal(times[0], times[2])
    assert np.array_equal(times[3], np.arange(1, 257))


class TestBus:
    """A component that reads words, sums them and writes the sum."""

    PORTS = BusPorts(request="request", words="words", write="write")

    def run(self, design, count, timing, word_bits=WORD_BITS):
        rng = np.random.default_rng(0)
        host = rng.integers(0, 256, (count + 8, word_bits // 8), dtype=np.uint8)
        total = sum(int.from_bytes(row.tobytes(), "little") for row in host[:count]) % (1 << word_bits)
        with design.simulate() as simulation:
            bus = simulation.attach_bus(self.PORTS, host, timing)
            simulation.poke("target", count + 3)
            simulation.poke("count", count)
            cycles = simulation.run(10_000, until="done")
            assert (bus.words_read, bus.words_written) == (count, 1)
            arrivals = [t for t in range(1024) if simulation.peek("trace", t)] if cycles < 1000 else None
        assert int.from_bytes(host[count + 3].tobytes(), "little") == total
        return cycles, arrivals

    @pytest.mark.parametrize("latency", [0, 1, 20, 200])
    def test_words_come_after_the_latency_one_a_cycle(self, cache, latency):
        cycles, arrivals = self.run(compile_design(Summer(), cache=cache), 100, BusTiming(latency))
        # Requests are accepted from cycle 0 on.
        assert arrivals == [1 + latency + k for k in range(100)]
        # The last word is added in cycle 100 + latency, written in the next, and done in the one after it.
        assert cycles == 100 + latency + 2

    def test_stalls_cost_cycles_and_change_nothing_else(self, cache):
        design = compile_design(Summer(), cache=cache)
        plain, _ = self.run(design, 100, BusTiming(5))
        stalled = [self.run(design, 100, BusTiming(5, stall=0.3, seed=seed))[0] for seed in (1, 1, 2)]
        assert stalled[0] == stalled[1] != stalled[2]
        assert min(stalled) > plain + 30

    @pytest.mark.parametrize("word_bits", [8, 512])
    def test_words_have_8_to_512_bits(self, cache, word_bits):
        self.run(compile_design(Summer(word_bits), cache=cache), 50, BusTiming(3, 0.2), word_bits)

    def test_an_address_beyond_the_memory_ends_the_run(self, cache):
        with compile_design(Summer(), cache=cache).simulate() as simulation:
            simulation.attach_bus(self.PORTS, np.zeros((4, 8), dtype=np.uint8), BusTiming(3))
            simulation.poke("count", 9)
            with pytest.raises(SimulationError, match=r"^request address must be below 4, not 4, cycle 4$"):
                simulation.run(100, until="done")

    def test_a_run_that_does_not_end_says_so(self, cache):
        with compile_design(Summer(), cache=cache).simulate() as simulation:
            simulation.poke("count", 9)
            with pytest.raises(SimulationError, match=r"^done must go high within 50 cycles$"):
                simulation.run(50, until="done")
            assert simulation.cycle == 50

    @pytest.mark.parametrize(
        ("memory", "message"),
        [
            (np.zeros((4, 4), dtype=np.uint8), "words must be as wide as a bus word, 32 bits, not 64"),
            (np.zeros((4, 3), dtype=np.uint8), "bus words must have 8, 16, 32, 64, 128, 256, 512 bits, not 24"),
            (np.zeros((8, 8), dtype=np.uint8)[::2], "bus memory must be a C-contiguous, writable array"),
        ],
    )
    def test_host_memory_must_fit_the_bus(self, cache, memory, message):
        with compile_design(Summer(), cache=cache).simulate() as simulation, pytest.raises(FormatError, match=message):
            simulation.attach_bus(self.PORTS, memory)

    @pytest.mark.parametrize("timing", [{"latency": 201}, {"latency": -1}, {"stall": 1.0}])
    def test_timing_must_be_possible(self, timing):
        with pytest.raises(FormatError, match="must be"):
            BusTiming(**timing)


class Counter(wiring.Component):
    """Counts down from a memory's word; a wide register shifts beside it."""

    def __init__(self):
        super().__init__({"address": In(2), "load": In(1), "value": Out(16), "zero": Out(1), "wide": Out(70)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = memory.Memory(shape=16, depth=4, init=[10, 20, 30, 40])
        m.submodules.inner = inner = Module()
        port = table.read_port(domain="comb")
        step = Signal(16, init=1)
        m.d.comb += [port.addr.eq(self.address), self.zero.eq(self.value == 0)]
        inner.d.sync += [
            self.value.eq(Mux(self.load, port.data, self.value - step)),
            self.wide.eq(self.wide.rotate_left(1) ^ 1),
            step.eq(step),
        ]
        return m


class TestState:
    def test_registers_and_memories_are_read_and_set_by_name(self, cache):
        with compile_design(Counter(), cache=cache).simulate() as simulation:
            assert [simulation.peek("table", k) for k in range(4)] == [10, 20, 30, 40]
            simulation.poke("table", 7, 2)
            simulation.poke("address", 2)
            simulation.poke("load", 1)
            simulation.run(1)
            simulation.poke("load", 0)
            assert simulation.peek("value") == 7
            assert simulation.run(100, until="zero") == 7
            simulation.poke("inner.value", 0)
            assert simulation.peek("zero") == 1, "combinational outputs follow what was set"
            simulation.poke("inner.wide", 1 << 69)
            simulation.run(1)
            assert simulation.peek("wide") == 0
            simulation.poke("inner.wide", -2)
            assert simulation.peek("wide") == (1 << 70) - 2

    def test_every_signal_can_be_read_in_a_debug_build(self, cache):
        plain, full = (compile_design(Counter(), debug=debug, cache=cache) for debug in (False, True))
        assert set(plain.signals) < set(full.signals)

    def test_what_cannot_be_set_or_found_is_refused(self, cache):
        with compile_design(Counter(), cache=cache).simulate() as simulation:
            with pytest.raises(FormatError, match=r"^signal must be one of the design's, not 'nothing'$"):
                simulation.peek("nothing")
            with pytest.raises(FormatError, match=r"^zero must be an input, a register or a memory to be set$"):
                simulation.poke("zero", 1)
            with pytest.raises(FormatError, match=r"^address must fit 2 bits, not 4$"):
                simulation.poke("address", 4)
            with pytest.raises(FormatError, match=r"^index of table must be from 0 to 3, not 4$"):
                simulation.peek("table", 4)
            with pytest.raises(FormatError, match=r"^output port must be one of value, wide, zero, not 'address'$"):
                simulation.run(1, until="address")

    def test_reset_brings_the_registers_back(self, cache):
        with compile_design(Counter(), cache=cache).simulate() as simulation:
            start = simulation.peek("value")
            simulation.run(5)
            assert simulation.peek("value") != start
            simulation.reset()
            assert (simulation.cycle, simulation.peek("value")) == (0, start)

    def test_a_waveform_covers_its_window_and_changes_nothing(self, cache, tmp_path):
        design = compile_design(Counter(), cache=cache)
        values = []
        for path in (None, tmp_path / "wave.vcd"):
            with design.simulate() as simulation:
                if path is not None:
                    simulation.waveform(path, 10, 13)
                load = np.zeros(20, dtype=np.uint32)
                load[4] = 1
                found = simulation.vectors({"load": load}, ["value", "wide"])
                values.append([found["value"], found["wide"]])
        for plain, recorded in zip(*values, strict=True):
            assert np.array_equal(plain, recorded)
        text = (tmp_path / "wave.vcd").read_text()
        assert re.findall(r"^#(\d+)$", text, re.MULTILINE) == ["100", "105", "110", "115", "120", "125"]
        name = re.search(r"\$var (?:reg|wire) 16 (\S+) value ", text)[1]
        seen = [int(bits, 2) for bits in re.findall(rf"^b(\d+) {re.escape(name)}$", text, re.MULTILINE)]
        assert seen == [int(value) for value in values[0][0][10:14, 0]]


class TestRecorder:
    def record(self, design, ports, strobe="value", cycles=60):
        """Random loads for some cycles: what was recorded, and what all outputs were in every cycle."""
        rng = np.random.default_rng(7)
        inputs = {"load": rng.integers(0, 8, cycles) == 0, "address": rng.integers(0, 4, cycles)}
        with design.simulate() as simulation:
            recorder = simulation.record(strobe, ports)
            found = simulation.vectors({k: v.astype(np.uint32) for k, v in inputs.items()}, ["value", "wide", "zero"])
            assert len(recorder) == (found[strobe] != 0).any(axis=1).sum()
            return recorder.take(), found

    @pytest.mark.parametrize("strobe", ["value", "zero", "wide"])
    def test_outputs_are_kept_in_the_cycles_of_the_strobe(self, cache, strobe):
        record, found = self.record(compile_design(Counter(), cache=cache), ["wide", "value"], strobe)
        wanted = np.flatnonzero((found[strobe] != 0).any(axis=1))
        assert 0 < len(record) == len(wanted) < 60 or strobe == "wide"
        assert np.array_equal(record.cycles, wanted)
        assert list(record.words) == ["wide", "value"]
        for name, words in record.words.items():
            assert np.array_equal(words, found[name][wanted])

    def test_recorders_stand_beside_each_other_and_forget_what_they_gave(self, cache):
        with compile_design(Counter(), cache=cache).simulate() as simulation:
            simulation.poke("load", 1)
            first, second = simulation.record("value", ["value"]), simulation.record("value", [])
            simulation.run(5)
            assert [len(first), len(second)] == [4, 4]
            assert first.take().cycles.tolist() == [1, 2, 3, 4]
            assert [len(first), len(second)] == [0, 4]
            simulation.run(2)
            assert first.take().cycles.tolist() == [5, 6]
            assert second.take().words == {}

    def test_only_outputs_are_recorded(self, cache):
        with compile_design(Counter(), cache=cache).simulate() as simulation:
            for strobe, ports in (("load", []), ("zero", ["address"]), ("zero", ["table"])):
                with pytest.raises(FormatError, match=r"^output port must be one of value, wide, zero, not "):
                    simulation.record(strobe, ports)


class TestVectors:
    def test_words_and_bits_are_inverse(self):
        bits = np.random.default_rng(0).integers(0, 2, (50, 70), dtype=np.uint8)
        assert words_of(bits).shape == (50, 3)
        assert np.array_equal(bits_of(words_of(bits), 70), bits)

    def test_words_must_fit_their_port(self, cache):
        with compile_design(Counter(), cache=cache).simulate() as simulation:
            with pytest.raises(FormatError, match=r"^address must hold unsigned patterns of 2 bits"):
                simulation.vectors({"address": np.array([4])}, [])
            with pytest.raises(FormatError, match=r"^address must be integers of shape \(cycles, 1\), not int64"):
                simulation.vectors({"address": np.zeros((3, 2), dtype=np.int64)}, [])
            with pytest.raises(FormatError, match=r"^input port must be one of address, clk, load, rst, not 'adress'$"):
                simulation.vectors({"adress": np.zeros(3, dtype=np.int64)}, [])


class TestCache:
    def test_a_second_call_is_fast_and_changed_rtl_compiles_again(self, cache, tmp_path):
        folder = tmp_path / "cosim"
        shutil.copytree(cache, folder)  # for the driver's object
        first = compile_design(AdderTree(kernels.AdderTree(2, 3)), cache=folder)
        start = time.perf_counter()
        second = compile_design(AdderTree(kernels.AdderTree(2, 3)), cache=folder)
        seconds = time.perf_counter() - start
        changed = compile_design(AdderTree(kernels.AdderTree(2, 4)), cache=folder)
        assert (first.cached, second.cached, changed.cached) == (False, True, False)
        assert seconds < first.build_seconds / 5

    def test_two_processes_may_compile_at_once(self, cache, tmp_path):
        folder = tmp_path / "cosim"
        shutil.copytree(cache, folder)
        before = set(folder.glob("*.so"))
        program = tmp_path / "program.py"
        program.write_text(
            "import sys\nfrom pathlib import Path\nfrom gatewise.rtl.blocks import BLOCKS\n"
            "from gatewise.rtl.cxxrtl import compile_design\n"
            "component = BLOCKS['multiplier'].create({'product': 9})[1]\n"
            "with compile_design(component, cache=Path(sys.argv[1])).simulate() as simulation:\n"
            "    simulation.poke('a', 5)\n    simulation.poke('w', 6)\n    assert simulation.peek('product') == 30\n"
        )
        runs = [subprocess.Popen([sys.executable, program, folder]) for _ in range(2)]
        assert [run.wait() for run in runs] == [0, 0]
        assert len(set(folder.glob("*.so")) - before) == 1
        assert not list(folder.glob(".*")), "nothing half written stays"

    def test_a_cache_that_cannot_be_written_costs_only_time(self, compiler, tmp_path):
        blocked = tmp_path / "file"
        blocked.write_text("in the way")
        design = compile_design(Careless(None), cache=blocked / "cache")
        with design.simulate() as simulation:
            assert simulation.streams({"i": np.arange(9)}, {"o": 9}).payloads["o"][:, 0].tolist() == list(range(9))

    def test_a_damaged_library_is_made_again(self, cache, tmp_path):
        compile_design(Careless(None), cache=cache)
        # A path that is loaded already would not be read again.
        damaged = tmp_path / "cosim"
        shutil.copytree(cache, damaged)
        for library in damaged.glob("*.so"):
            library.write_bytes(b"not a library")
        assert not compile_design(Careless(None), cache=damaged).cached
        assert compile_design(Careless(None), cache=damaged).cached


class TestErrors:
    def test_a_missing_compiler_names_its_package(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(ToolMissingError, match=r"apt-get install clang$"):
            cxxrtl.find_compiler()

    def test_the_first_error_of_the_compiler_is_the_message(self, cache, tmp_path):
        extension = tmp_path / "extra.cc"
        extension.write_text('#include "cxxrtl_driver.h"\nint broken( { return nothing; }\n')
        with pytest.raises(GatewiseError, match=r"must compile with .*: extension.cc:2:\d+: error: "):
            compile_design(Careless(None), driver=extension, cache=cache)

    def test_a_second_clock_is_refused(self, cache):
        class TwoClocks(wiring.Component):
            def __init__(self):
                super().__init__({"other_clk": In(1), "x": In(1), "y": Out(1), "z": Out(1)})

            def elaborate(self, platform):
                m = Module()
                m.domains.other = other = ClockDomain(local=True)
                m.d.comb += other.clk.eq(self.other_clk)
                m.d.sync += self.y.eq(self.x)
                m.d.other += self.z.eq(self.x)
                return m

        with pytest.raises(UnsupportedError, match="must have one clock"):
            compile_design(TwoClocks(), cache=cache)


def test_a_driver_may_be_extended(cache, tmp_path):
    extension = tmp_path / "extra.cc"
    extension.write_text(
        '#include "cxxrtl_driver.h"\n'
        'extern "C" uint64_t gatewise_zeros(gatewise::Simulation *simulation, uint64_t cycles) {\n'
        '    const gatewise::Port zero = simulation->port("zero");\n'
        "    uint64_t count = 0;\n"
        "    while (cycles--)\n"
        "        simulation->tick([&] { count += zero.high(); });\n"
        "    return count;\n"
        "}\n"
    )
    design = compile_design(Counter(), driver=extension, cache=cache)
    with design.simulate() as simulation:
        simulation.poke("load", 1)
        simulation.run(1)
        simulation.poke("load", 0)
        assert design.library.gatewise_zeros(ctypes.c_void_p(simulation.handle), ctypes.c_uint64(100)) == 1
