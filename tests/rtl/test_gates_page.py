"""The page of gates by weight scheme is written from its store, whose counts are of the RTL of today."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from gatewise.rtl.compare import parse_layer
from gatewise.rtl.flows import flows
from gatewise.rtl.unrolled_layer import layer_sha256
from gatewise.sim.unrolled import SCHEMES, seeded_layer

ROOT = Path(__file__).parents[2]
AMARANTH = "0.5.10"
AS_IT_IS, EVERY_TAP = "as it is", "every tap"


@pytest.fixture(scope="module")
def bench():
    """The module that writes the page."""
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("gates")
    sys.path.remove(str(ROOT / "bench"))
    sys.modules.pop("gates", None)


@pytest.fixture(scope="module")
def counts(bench):
    """The stored counts."""
    import json

    return bench.Counts(json.loads(bench.STORE.read_text(encoding="utf-8")))


def test_the_page_is_written_from_the_stored_counts(bench, counts):
    assert bench.page(counts) == bench.PAGE.read_text(encoding="utf-8")


def test_the_counts_are_of_every_scheme_and_of_todays_flows(counts, pinned_yosys):
    assert {scheme for run, scheme, _ in counts.rows if run == AS_IT_IS} == set(SCHEMES)
    for result in counts.store["runs"].values():
        assert result["tool"] == pinned_yosys
        assert result["flows"] == {flow.name: flow.sha256 for flow in flows(flat=False)}


@pytest.mark.skipif(version("amaranth") != AMARANTH, reason=f"the stored hashes are of RTL by Amaranth {AMARANTH}")
def test_the_counts_are_of_todays_rtl(bench, counts):
    layer = parse_layer(bench.LAYER)
    unrolled = seeded_layer(SCHEMES["bayesian2"], layer.shape).unrolled
    found = layer_sha256(unrolled, (layer.height, layer.width), "direct")
    assert found == counts.rows[AS_IT_IS, "bayesian2", "direct"]["rtl_sha256"]


def test_what_the_page_says_of_the_ratios_holds(counts):
    def gates(scheme, architecture="direct"):
        return counts.gates(EVERY_TAP, scheme, architecture)

    others = {scheme for run, scheme, _ in counts.rows if run == EVERY_TAP} - {"abcnet"}
    assert gates("abcnet") > 1.2 * max(map(gates, others))
    assert abs(gates("abcnet") / 806.1e6 - 1) < 0.1
    assert abs(gates("lqnet-a5") / 314.4e6 - 1) < 0.1
    assert gates("lqnet-a2") < gates("shift") < gates("lqnet-a8")
    assert gates("focused5", "grouped") < 1.05 * gates("shift", "grouped")
    assert gates("focused5-huffman", "grouped") < 1.01 * gates("focused5", "grouped")
