"""The page on BOPs is written from its store, whose figures are those of the committed networks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from gatewise import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    """The module that writes the page."""
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("bops")
    sys.path.remove(str(ROOT / "bench"))
    sys.modules.pop("bops", None)


@pytest.fixture(scope="module")
def store(bench):
    return json.loads(bench.STORE.read_text(encoding="utf-8"))


def test_the_page_is_written_from_the_stored_figures(bench, store):
    assert bench.page(bench.Points(store)) == bench.PAGE.read_text(encoding="utf-8")


def exact(bench, figures):
    """The figures that are integers."""
    arrays = {array: (figures[array]["cycles"], figures[array]["bytes"]) for array in bench.ARRAYS}
    return arrays | {name: figures[name] for name in ("bops", "digits", "weight_bits")}


@pytest.mark.parametrize("name", ["resnet20-aciq-all-w4a4", "bayes-full-s1-c1-0.1-0.1"])
def test_the_figures_are_those_of_the_committed_networks(bench, store, name):
    found = bench.figures(load(bench.TRAINED / f"{name}.gw"))
    assert exact(bench, found) == exact(bench, store[bench.TRAINED_PART][name])


def test_drawn_networks_are_the_same_each_time(bench, store):
    name = "2, 4 or 8 bits"
    assert exact(bench, bench.figures(bench.drawn(bench.DRAWN[name], 3))) == exact(bench, store[name][3])


def test_networks_with_equal_figures_count_once(bench, store):
    assert bench.alike({"a": {"bops": 1, "digit": {"cycles": 2}}, "b": {"bops": 1, "digit": {"cycles": 3}},
                        "c": {"digit": {"cycles": 2}, "bops": 1}}) == [["a", "c"], ["b"]]  # fmt: skip
    points = bench.Points(store)
    trained = points.sets["ResNet-20, trained"]
    assert all(one != other for at, one in enumerate(trained) for other in trained[:at])
    names = [name for name in store[bench.TRAINED_PART] if not name.startswith("bayes")]
    assert sorted(name for group in points.same for name in group) == sorted(names)


def test_pairs_in_the_wrong_order_are_counted_without_ties(bench):
    first = np.array([1.0, 2.0, 3.0, 3.0])
    # Five pairs are no ties; of them (2, 3) twice are turned round.
    assert bench.wrong_pairs(first, np.array([1.0, 9.0, 4.0, 5.0])) == 2 / 5
    assert bench.wrong_pairs(first, first) == 0
    assert bench.rank(first, -first) == pytest.approx(-1)


def test_the_spread_at_equal_bops_ignores_what_differs_by_more(bench):
    first = np.array([100.0, 104.0, 120.0])
    assert bench.spread(first, np.array([10.0, 15.0, 99.0])) == 1.5
