"""Composed costs of engines: exact where counts are linear, and those of the engines that they are made of."""

from dataclasses import asdict, replace

import pytest
from gatewise.kernels.errors import UnsupportedError
from gatewise.rtl import runner
from gatewise.rtl.alm import AlmTally
from gatewise.rtl.depth import Paths
from gatewise.rtl.engine.compute import ComputeUnit
from gatewise.rtl.engine_cost import UNITS, CostModel, cost_model
from gatewise.rtl.engine_count import PARTS, Cost, DesignCount, EngineCount, Wanted, count_engines, part_of
from gatewise.rtl.hierarchy import parse_design
from gatewise.rtl.runner import Runner
from gatewise.rtl.synth import synthesize_component
from gatewise.rtl.verilog import to_rtlil
from gatewise.sim.engine import EngineConfig
from gatewise.sim.sizing import engines

from .engine_models import made_count, made_models

SMALL = EngineConfig(rows=4, lanes=4)


def test_a_composed_cost_is_exact_where_counts_are_linear():
    model = made_models().of("shift", "huffman")
    for engine in engines(model.base):
        whole = made_count(engine).whole
        assert model.cost(engine).gates == pytest.approx(whole.gates, rel=1e-9)
        assert model.cost(engine).alms_high == pytest.approx(whole.alms_high, rel=1e-9)


def test_it_misses_none_of_the_engines_that_it_is_made_of():
    model = made_models().of("digit", "raw")
    assert all(abs(model.difference(count)) < 1e-9 for count in model.counts)


def test_other_parts_grow_as_those_of_the_base():
    base = made_models().of("digit", "raw")
    units = [EngineConfig(array="shift", rows=rows, lanes=lanes) for rows, lanes in UNITS]
    smallest = EngineConfig(array="shift", rows=4, lanes=4, post_lanes=1)
    model = CostModel([made_count(smallest)], [made_count(unit) for unit in units], base)
    for engine in engines(smallest):
        assert model.cost(engine).gates == pytest.approx(made_count(engine).whole.gates, rel=1e-9)
    assert list(model.parts(smallest)) == [name for name in PARTS if name != "decoder"]
    again = CostModel.from_json(model.to_json())
    assert again.cost(EngineConfig(array="shift")) == model.cost(EngineConfig(array="shift"))


def test_a_part_that_is_missed_shows():
    counts = list(made_models().of("digit", "raw").counts)
    wrong = counts[0].parts | {"array": replace(counts[0].parts["array"], gates=0)}
    model = CostModel([replace(counts[0], parts=wrong), *counts[1:]])
    assert abs(model.difference(made_count(EngineConfig()))) > 0.01


def test_the_activation_memory_is_counted_for_every_engine():
    model = made_models().of("digit", "raw")
    for act_bytes in (1 << 20, 4 << 20):
        assert model.cost(EngineConfig(act_bytes=act_bytes)).memory_bits == 8 * act_bytes
    assert model.cost(EngineConfig()).m20ks == 896


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("compute.array.row_0.multiplier_3", "array"),
        ("compute.loader.bank.decoder_0", "decoder"),
        ("compute.loader", "loader"),
        ("compute.loaders", "addresses"),
        ("compute", "addresses"),
        ("post.lanes.main_0", "post lanes"),
        ("post.pool", "post unit"),
        ("reader.walk", "control"),
        ("", "control"),
    ],
)
def test_modules_belong_to_the_part_whose_path_is_the_longest(path, part):
    assert part_of(path) == part


def test_parts_add_up_to_what_synthesis_counts(synth_cache):
    unit = ComputeUnit(SMALL, ("shift",))
    report = synthesize_component(unit, "compute", cache=synth_cache)
    design = parse_design(to_rtlil(ComputeUnit(SMALL, ("shift",)), "compute"), "compute")
    with Runner(synth_cache) as runs:
        counted = DesignCount(design, runs, "unit")
        parts = counted.parts("")
    whole = sum(parts.values(), Cost())
    assert counted.depth() == report.gates.depth > 20
    assert whole.gates == report.gates.two_input
    assert whole.inverters == report.gates.inverters
    assert whole.flip_flops == report.gates.flip_flops
    assert whole.transistors == report.gates.transistors
    assert whole.memory_bits == report.memory.bits
    assert whole.m20ks == report.memory.m20ks
    assert -(-whole.narrow_multipliers // 2) + whole.wide_multipliers == report.alm_dsp.dsps


def test_counts_survive_a_file():
    count = made_count(EngineConfig(array="sign", decoder="xor", rows=8))
    assert EngineCount.from_json(count.to_json()) == count


def test_engines_that_there_are_not_are_not_counted(tmp_path):
    with pytest.raises(UnsupportedError, match=r"^decoder of array sign must be raw or xor, not huffman$"):
        cost_model("sign", "huffman", cache=tmp_path)


def test_engines_are_counted_once_and_kept(tmp_path, monkeypatch):
    ran, made = [], []
    found = {"cells": {"$_AND_": 1}, "transistors": 6, "tally": AlmTally(), "paths": asdict(Paths())}
    monkeypatch.setattr(runner, "run_flow", lambda flow, rtlil, *rest: ran.append(rtlil) or found)
    design = Wanted.design
    monkeypatch.setattr(Wanted, "design", lambda each: made.append(each.config.rows) or design(each))
    unit = Wanted(SMALL, unit=True)
    (first,) = count_engines([unit], cache=tmp_path)
    # A gate for each instance of a module.
    assert first.whole.gates == sum(design(unit).instances.values())
    ran.clear()
    # Those that are kept are recalled, whatever clock is assumed, in the order that they are asked for.
    wide = Wanted(SMALL.model_copy(update={"rows": 8}), unit=True)
    slow = Wanted(SMALL.model_copy(update={"clock_mhz": 1.0}), unit=True)
    several = count_engines([wide, slow, unit, wide], cache=tmp_path)
    assert [count.config.rows for count in several] == [8, 4, 4, 8]
    assert several[1] == several[2] == first
    assert several[0] is several[3]
    assert made == [4, 8]
    assert ran
