"""The page of energies is written from its store, whose estimates are of today's counts, gates and RTL."""

import json
import sys
from pathlib import Path

import pytest
from gatewise.sim.energy import estimate
from gatewise.sim.events import PARTS
from gatewise.sim.file import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    """The module that writes the page."""
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("energy")
    sys.path.remove(str(ROOT / "bench"))
    for name in ("energy", "markdown", "paths"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def stored(bench):
    """What was measured."""
    return bench.Stored(json.loads(bench.STORE.read_text(encoding="utf-8")))


def test_the_page_is_written_from_what_is_stored(bench, stored):
    assert bench.page(stored) == bench.PAGE.read_text(encoding="utf-8")


def test_the_plots_are_there(bench):
    assert {path.name for path in bench.PLOTS.iterdir()} == {
        f"{name}.{form}" for name in ("digits", "networks") for form in ("png", "svg")
    }


def test_estimates_a_are_todays(bench, stored):
    for figures in stored.digits:
        file, engine = bench.SCHEMES[figures.name]
        found = estimate(load(bench.DIGITS / f"{file}.gw"), engine)
        assert figures.content["cycles"] == found.cycles
        for part in PARTS:
            assert figures.content["parts"][part] == pytest.approx([found.part(part).low, found.part(part).high]), part


def test_a_resnets_estimate_is_todays(bench, stored):
    name, (file, engine) = next(iter(bench.RESNETS.items()))
    figures = next(each for each in stored.trained if each.name == name)
    found = estimate(load(bench.TRAINED / f"{file}.gw"), engine)
    assert figures.of(*bench.CLASSES) == pytest.approx(found.total.low)
    assert figures.macs == found.macs


def test_resnet8_on_the_default_memory_is_the_one_of_the_page_on_throughput(bench, stored):
    figures = stored.shapes[-1]
    make, engine = bench.SHAPES[figures.name]
    found = estimate(make(), engine)
    assert figures.of(*bench.CLASSES) == pytest.approx(found.total.low)
    assert (engine.act_bytes, engine.pixels, engine.bus_bits) == (2 << 20, 256, 128)
    # Another memory, and another energy: of the activation memory most of all.
    small = stored.shapes[-2]
    assert small.macs == figures.macs
    assert figures.of("activation memory") > 2 * small.of("activation memory")


def test_the_arithmetic_of_both_estimates_is_a_part_of_each(bench, stored):
    for each in stored.digits:
        inner = each.parts(*bench.CLASSES["PEs"], *bench.IN_ROWS)
        assert 0 < inner < each.of("PEs", "sums") < each.group("arithmetic")
        assert 0 < each.logic(*bench.ARRAY[:1]) < each.logic(*bench.ARRAY) < each.measured["logic_pj"][0]
        assert {module["name"] for module in each.measured["modules"]} >= set(bench.ARRAY)


def test_what_was_removed_is_said_of_those_that_it_was_removed_from(bench, stored):
    text = bench._removed(stored)
    whole = max(each.macs for each in stored.trained)
    for each in stored.trained:
        assert (f"{each.name}: {bench.percent(1 - each.macs / whole)}" in text) == (each.macs < whole)


def test_every_part_is_in_one_bar(bench):
    shown = [part for parts in bench.CLASSES.values() for part in parts]
    assert sorted(shown) == sorted(PARTS)


def test_what_the_page_says_of_the_estimates_holds(bench, stored):
    for each in stored.digits:
        assert each.group("on-chip memory") > each.group("arithmetic")
        assert each.measured["clock_pj"][0] > each.measured["logic_pj"][0]
        assert each.measured["images"] == bench.IMAGES
    for row in stored.rows.values():
        assert abs(row["flip_flop_changes"] - row["counted_flips"]) <= 32
    for each in (*stored.trained, *stored.shapes):
        assert each.measured is None
        assert each.of("accumulator memory", "input-sum memory") > each.of("PEs")
