from dataclasses import replace

import numpy as np
import pytest
from gatewise import FormatError, ToolMissingError
from gatewise.kernels import DigitMultiplier, MacFormat
from gatewise.rtl import blocks, regress
from gatewise.rtl.icarus import SimulationError, interface_of
from gatewise.rtl.verilog import to_rtlil

# Amaranth warns of a component that is never elaborated: where nothing else does it, `to_rtlil` here does.

MULTIPLIER = blocks.BLOCKS["multiplier"]


def wrapping(parameters):
    """A multiplier that wraps, whatever it was asked to do."""
    return MULTIPLIER.component(DigitMultiplier(MacFormat(product=parameters.format.product, overflow="wrap")))


class OneWrongVector(MULTIPLIER.bench):
    """A golden model that is wrong in a single vector of 1024."""

    def expected(self, inputs):
        outputs = super().expected(inputs)
        outputs["product"][777] ^= 1
        return outputs


@pytest.mark.parametrize(
    ("block", "settings", "flags"),
    [
        ("multiplier", {"product": 6}, ["overflow"]),
        ("align", {}, ["overflow"]),
        ("accumulator", {}, ["overflow"]),
        ("dot", {"product": 7, "align": 12, "acc": 24}, ["product_overflows", "align_overflows", "acc_overflow"]),
        ("scale", {"rounding": "tflite", "multiplier_bits": 31, "in_bits": 36}, ["overflow"]),
        ("correction", {}, ["overflow"]),
    ],
)
def test_the_stimulus_makes_every_overflow_happen_and_not_happen(block, settings, flags):
    entry = blocks.BLOCKS[block]
    parameters, component = entry.create(settings)
    interface = interface_of(component)
    to_rtlil(component, "top")
    bench = entry.bench(parameters)
    outputs = bench.expected(bench.stimulus(interface.inputs, np.random.default_rng(0), 2000))
    for flag in flags:
        assert 20 < np.count_nonzero(outputs[flag]) < 1980


@pytest.mark.usefixtures("icarus")
def test_a_fault_in_the_rtl_is_found():
    result = regress.run_bench(replace(MULTIPLIER, component=wrapping), {"product": 6})
    assert not result.passed
    assert "product must be" in result.mismatch
    assert "a_signed=" in result.mismatch


@pytest.mark.usefixtures("icarus")
def test_a_fault_in_one_vector_of_the_golden_model_is_found():
    result = regress.run_bench(replace(MULTIPLIER, bench=OneWrongVector), {})
    assert result.mismatch.startswith("vector 777: product must be")


@pytest.mark.usefixtures("icarus")
def test_a_regression_reports_every_case_in_order(monkeypatch):
    cases = ({}, {"product": 10})
    monkeypatch.setitem(blocks.BLOCKS, "multiplier", replace(MULTIPLIER, cases=cases))
    seen = []
    results = regress.regress(["multiplier"], vectors=50, seed=3, progress=seen.append)
    assert [result.params["product"] for result in results] == [8, 10]
    assert all(result.passed and result.vectors == 50 and not result.exhaustive for result in results)
    assert sorted(map(id, seen)) == sorted(map(id, results))


@pytest.mark.usefixtures("icarus")
def test_a_simulator_that_stops_fails_the_bench(monkeypatch):
    def stop(component, *arguments):
        to_rtlil(component, "top")
        raise SimulationError("error: out of paper")

    monkeypatch.setattr(regress, "simulate", stop)
    assert regress.run_bench(MULTIPLIER, {}).mismatch == "the simulation stopped: error: out of paper"


@pytest.mark.usefixtures("icarus")
def test_verilog_that_does_not_compile_is_reported_with_the_compilers_line(monkeypatch):
    monkeypatch.setattr(
        "gatewise.rtl.icarus.to_verilog",
        lambda component, name: to_rtlil(component, name)[:0] + "module block(); garbage\n",
    )
    assert "bench.v:1: error" in regress.run_bench(MULTIPLIER, {}).mismatch


@pytest.mark.usefixtures("icarus")
def test_an_unknown_block_is_refused():
    with pytest.raises(FormatError, match="block must be one of"):
        regress.regress(["divider"])


def test_a_missing_simulator_names_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissingError, match="iverilog must be on the PATH: apt-get install iverilog"):
        regress.regress(["multiplier"])
