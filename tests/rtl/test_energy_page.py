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
