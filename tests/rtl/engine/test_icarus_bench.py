"""The engine on Icarus Verilog: the bench passes, its network overflows, planted faults and breaches are named."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from gatewise.rtl import cocotb_engine, regress
from gatewise.rtl.engine import compute, sequencer
from gatewise.rtl.engine import engine as engine_module
from gatewise.rtl.engine.check import ErrorCode
from gatewise.rtl.engine.cosim import compare_network
from gatewise.rtl.engine.engine import Engine
from gatewise.rtl.engine.icarus_bench import BENCH_ENGINE, STALL, IcarusEngine, bench_network
from gatewise.rtl.icarus import SimulationError
from gatewise.rtl.report import regress_report
from gatewise.sim.compile import compile_network
from gatewise.sim.images import ImageSet
from gatewise.sim.run import run
from rich.console import Console

KINDS = ("product", "align", "acc", "post")


@pytest.fixture
def compiled():
    return compile_network(bench_network(), BENCH_ENGINE)


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(0, 16, (1, 3, 5, 6))


@pytest.mark.parametrize("seed", range(3))
def test_the_network_overflows_everywhere_and_is_two_layers_of_the_array(compiled, seed):
    codes = np.random.default_rng(seed).integers(0, 16, (1, 3, 5, 6))
    golden = run(compiled.network, ImageSet(codes, coded=True), BENCH_ENGINE)
    assert [layer.op for layer in compiled.layers] == ["load", "mac", "mac", "store"]
    assert all(golden.overflow(kind) > 0 for kind in KINDS)
    assert compiled.layers[2].registers["adds"] == 1


@pytest.mark.usefixtures("icarus")
def test_the_engine_passes_with_and_without_stalls():
    results = regress.regress(["engine"])
    assert [(result.params, result.mismatch) for result in results] == [
        ({"stalls": False}, None),
        ({"stalls": True}, None),
    ]
    golden = run(bench_network(), ImageSet(np.zeros((1, 3, 5, 6), dtype=np.int64), coded=True), BENCH_ENGINE)
    assert results[0].cycles > golden.cycles_per_image
    assert results[1].cycles > 1.05 * results[0].cycles
    console = Console(width=120, record=True)
    console.print(regress_report(results))
    text = console.export_text()
    assert text.count("engine") == text.count("equal") == 2
    assert "stalls=true" in text


FAULTS = {
    "low weight digits with a sign": (
        (sequencer, "w_signed.eq(w_signed)", "w_signed.eq(1)"),
        "layer second: sum, channel ",
    ),
    "every layer waits for its drains": (
        (sequencer, "half_free.eq(Mux(layer.serial, ", "half_free.eq(Mux(1, "),
        "layer first: cycles of the layer: expected ",
    ),
    "counters of another stage": (
        (engine_module, "self.acc_count.eq(compute.acc_count)", "self.acc_count.eq(compute.align_count)"),
        "layer second: acc overflows of channel 0: expected ",
    ),
}


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_with_its_place(fault, planted, monkeypatch):
    (module, *change), message = FAULTS[fault]
    names = planted(module, *change)
    if module is sequencer:
        monkeypatch.setattr(compute, "ComputeSequencer", names["ComputeSequencer"])
    else:
        monkeypatch.setattr(regress, "Engine", names["Engine"])
    mismatch = regress.run_engine({}).mismatch
    assert mismatch.startswith(f"image 0, {message}")
    for part in (": expected ", ", found ", ", cycle "):
        assert part in mismatch


@pytest.mark.usefixtures("icarus")
def test_an_engine_that_is_not_done_or_reports_an_error_differs(compiled, codes):
    engine = Engine(BENCH_ENGINE)
    simulation = IcarusEngine(engine, compiled)
    with pytest.raises(SimulationError, match=r"^layer first, cycle 400: must be done within 400 cycles$"):
        simulation.run(codes[0], 400)
    image = compiled.image.copy()
    image[0] ^= 1  # the first byte of the first descriptor
    simulation.compiled = replace(compiled, image=image)
    result = compare_network(compiled, codes, simulation.run)
    assert result.mismatch == (
        f"image 0, layer input: the engine must end without an error, not with error {ErrorCode.MAGIC.value} (MAGIC)"
    )


class Port:
    """A port of a design that is not there."""

    def __init__(self, value=0):
        self.value = value


@pytest.fixture
def dut():
    names = ("request__valid", "request__ready", "request__payload", "words__valid", "words__ready", "words__payload")
    return SimpleNamespace(**{name: Port() for name in (*names, "write__valid", "write__ready", "write__payload")})


def test_words_come_in_order_after_the_latency(dut):
    read = cocotb_engine.ReadDriver(dut, [10, 11, 12, 13], 3, 0.0, 0)
    dut.request__valid.value = dut.words__ready.value = 1
    seen = []
    for cycle in range(12):
        dut.request__payload.value = min(cycle, 3)
        dut.request__valid.value = cycle < 4
        read.drive(cycle)
        if dut.words__valid.value:
            seen.append((cycle, dut.words__payload.value))
        read.sample(cycle)
    assert seen == [(4, 10), (5, 11), (6, 12), (7, 13)]
    assert read.words == 4


def test_both_sides_of_the_bus_stall_by_the_seed(dut):
    def times(seed):
        read = cocotb_engine.ReadDriver(dut, [7], 0, STALL, seed)
        write = cocotb_engine.WriteDriver(dut, [0], 32, STALL, seed)
        dut.request__valid.value = dut.words__ready.value = dut.write__valid.value = 1
        dut.request__payload.value, dut.write__payload.value = 0, 5 << 32
        seen = []
        for cycle in range(2000):
            read.drive(cycle)
            write.drive(cycle)
            seen.append((dut.request__ready.value, dut.words__valid.value, dut.write__ready.value))
            read.sample(cycle)
            write.sample(cycle)
        assert write.memory == [5]
        return seen

    first = times(1)
    assert first == times(1) != times(2)
    shares = np.mean(first, axis=0)
    assert (abs(shares - (1 - STALL)) < 0.05).all()


@pytest.mark.parametrize(("stream", "word"), [("request", "of a word"), ("write", "to a word")])
def test_a_breach_of_the_bus_is_named(dut, stream, word):
    drivers = {
        "request": lambda stall: cocotb_engine.ReadDriver(dut, [0] * 4, 2, stall, 0),
        "write": lambda stall: cocotb_engine.WriteDriver(dut, [0] * 4, 32, stall, 0),
    }
    valid, payload = getattr(dut, f"{stream}__valid"), getattr(dut, f"{stream}__payload")
    valid.value, payload.value = 1, 4
    driver = drivers[stream](0.0)
    driver.drive(0)
    with pytest.raises(cocotb_engine.Breach, match=rf"^{stream} must be {word} below 4, not 4$"):
        driver.sample(0)
    for change, message in (((0, 1), "dropped valid"), ((1, 2), "changed its payload")):
        valid.value, payload.value = 1, 1
        driver = drivers[stream](1.0)
        driver.drive(0)
        driver.sample(0)
        valid.value, payload.value = change
        driver.drive(1)
        with pytest.raises(cocotb_engine.Breach, match=rf"^{stream} {message} while it waited$"):
            driver.sample(1)
