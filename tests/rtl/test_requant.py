from dataclasses import replace

import pytest
from gatewise.rtl import requant
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench

pytestmark = pytest.mark.usefixtures("icarus")


@pytest.mark.parametrize(
    "settings",
    [
        {"in_bits": 20, "multiplier_bits": 16},
        {"in_bits": 20, "multiplier_bits": 16, "rounding": "half_up", "out_signed": True},
        {"in_bits": 24, "multiplier_bits": 24, "rounding": "half_away", "out_bits": 4, "out_signed": True},
        {"in_bits": 56, "multiplier_bits": 31, "rounding": "floor", "out_bits": 16, "out_signed": True},
        {"in_bits": 36, "multiplier_bits": 31, "rounding": "tflite", "out_signed": True},
    ],
    ids=lambda settings: settings.get("rounding", "half_even"),
)
def test_scaling_rounds_and_clamps_as_the_golden_model(settings):
    assert run_bench(BLOCKS["scale"], settings, vectors=1000).mismatch is None


@pytest.mark.parametrize(("built", "wanted"), [("half_up", "half_even"), ("half_away", "half_up")])
def test_a_requantiser_that_breaks_ties_another_way_is_found(built, wanted):
    block = BLOCKS["scale"]
    wrong = replace(block, component=lambda parameters: block.component(replace(parameters, rounding=built)))
    result = run_bench(wrong, {"in_bits": 20, "multiplier_bits": 16, "rounding": wanted}, vectors=1000)
    assert "code must be" in result.mismatch


def test_a_double_rounding_that_breaks_ties_another_way_is_found(monkeypatch):
    monkeypatch.setattr(requant, "_increment", lambda odd, negative, half, below, rounding: half)
    settings = {"in_bits": 32, "multiplier_bits": 31, "rounding": "tflite"}
    assert "code must be" in run_bench(BLOCKS["scale"], settings, vectors=1000).mismatch


@pytest.mark.parametrize("settings", [{"in_bits": 20}, {"in_bits": 12, "out_bits": 2, "out_signed": True}])
def test_thresholds_count_as_the_golden_model(settings):
    assert run_bench(BLOCKS["threshold"], settings, vectors=1000).mismatch is None
