"""Clip statistics in hardware: every cycle, whole channels of full length, faults."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gatewise import kernels
from gatewise.kernels.errors import ToolMissingError
from gatewise.rtl import statistics
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.cxxrtl import bits_of, compile_design, find_compiler, words_of
from gatewise.rtl.regress import run_bench
from gatewise.rtl.stepped import steppable

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))
MUTATIONS = __import__("mutations").BLOCK_MUTATIONS
sys.path.remove(str(BENCH))
sys.modules.pop("mutations")
BLOCK = BLOCKS["statistics"]


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("case", BLOCK.cases, ids=str)
def test_every_port_in_every_cycle_is_the_golden_model_s(case):
    assert run_bench(BLOCK, case, vectors=1000).mismatch is None


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_is_found(planted, mutation):
    component = steppable(planted(statistics, mutation.old, mutation.new)["ClipStatistics"])
    found = (run_bench(replace(BLOCK, component=component), case, vectors=800).mismatch for case in BLOCK.cases)
    assert any(mismatch is not None for mismatch in found)


def test_the_faults_are_of_one_line_each():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 5
    assert all("\n" not in mutation.old + mutation.new for mutation in MUTATIONS)


@pytest.mark.parametrize("prior", ["laplace", "gauss"])
def test_channels_of_full_length_and_the_cycles_that_they_take(prior, tmp_path):
    """A map of 64 x 64 and the ends of all widths, without stalls: results and cycles are the kernel's."""
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    parameters, count = kernels.ClipStatistics(count_bits=12, prior=prior), 4096
    rng = np.random.default_rng(4)
    low, high = -(1 << 15), (1 << 15) - 1
    values = np.stack(
        [
            np.full(count, low),
            np.full(count, high),
            np.where(np.arange(count) % 2, low, high),
            rng.integers(low, high, count, endpoint=True),
            np.clip(np.rint(rng.laplace(-300, 500, count)), low, high).astype(np.int64),
        ]
    )
    factor, (reciprocal, shift) = parameters.factor(6.2), parameters.reciprocal(count)
    passed = np.repeat(values, parameters.passes, axis=0).reshape(-1)
    last = np.tile(np.arange(count) == count - 1, parameters.passes * len(values))
    payloads = np.concatenate([(passed[:, None] >> np.arange(16)) & 1, last[:, None]], axis=1).astype(np.uint8)
    constants = {"reciprocal": reciprocal, "reciprocal_shift": shift, "factor": factor, "levels": 15, "half": 1}
    with compile_design(statistics.ClipStatistics(parameters), cache=tmp_path).simulate() as simulation:
        for name, value in constants.items():
            simulation.poke(name, value)
        record = simulation.streams({"i": words_of(payloads)}, {"o": len(values)}, stalls=False, patience=20_000)
    assert record.violation is None
    golden = parameters.compute(values, factor, 15, True)
    layout = statistics.result_layout(parameters)
    found = bits_of(record.payloads["o"], layout.size)
    at = 0
    for name, shape in layout.members.items():
        width = getattr(shape, "width", shape)
        number = found[:, at : at + width].astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
        signed = getattr(shape, "signed", False)
        number = np.where(number >> width - 1 == 1, number - (1 << width), number) if signed else number
        assert np.array_equal(number, getattr(golden, name)), name
        at += width
    # A channel begins when the result of the one before is taken.
    one = parameters.passes * count + parameters.mean_cycles * (parameters.passes - 1) + parameters.finish_cycles + 1
    assert np.array_equal(np.diff(record.delivered["o"]), np.full(len(values) - 1, one))
