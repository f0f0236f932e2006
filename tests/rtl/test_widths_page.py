"""The page of widths is written from its store, whose counts are those of the blocks' page and of today's tools."""

import json
import sys
from pathlib import Path

import pytest
from gatewise import MacFormat
from gatewise.rtl.flows import flows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    """The module that writes the page."""
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("widths")
    sys.path.remove(str(ROOT / "bench"))
    for name in ("widths", "paths"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def store(bench):
    """What is stored."""
    return bench.read()


@pytest.fixture(scope="module")
def blocks():
    """The counts of docs/blocks.md, which are held to today's RTL."""
    return json.loads((ROOT / "docs" / "blocks.json").read_text(encoding="utf-8"))["counts"]


def test_the_page_is_written_from_the_store(bench, store):
    assert bench.page(store) == bench.PAGE.read_text(encoding="utf-8")


def test_the_counts_are_of_todays_flows(store, pinned_yosys):
    assert store["tool"] == pinned_yosys
    assert store["flows"] == {flow.name: flow.sha256 for flow in flows(flat=False)}


def test_rows_and_statistics_are_the_blocks(bench, store, blocks):
    row, dot = bench.cost_of(store, MacFormat()), blocks["dot defaults"]
    assert (row.gates, row.flip_flops, row.alms_low) == (dot["gates"], dot["flip_flops"], dot["alms_low"])
    for prior, key in (("laplace", "statistics defaults"), ("gauss", "statistics prior=gauss")):
        found, counted = store["statistics"][prior], blocks[key]
        assert found["whole"][:2] == [counted["gates"], counted["flip_flops"]]
        assert found["rtl"] == counted["rtl"]
        assert found["gather"][0] + found["finish"][0] <= found["whole"][0]


def test_what_run_time_statistics_cost_is_todays_calculation(bench, store):
    assert json.loads(json.dumps(bench.run_time(bench.RUN_TIME))) == store["run_time"]


def test_without_statistics_the_peak_is_the_schedule_s(bench, store):
    held = bench.network_of(bench.RUN_TIME)
    assert bench.peak(held, bench.EngineConfig(), set()) == store["run_time"]["peak_bytes"]


def test_what_is_proved_enough_for_each_layer_is_so_for_the_network(store):
    for name, layers in store["needs"].items():
        proved = store["networks"][name]["grid"]["least"]["saturate"]["proved"]["pair"]
        assert proved["align"] == max(8, *(each[0] for each in layers.values()))
        assert proved["acc"] == max(12, *(each[1] for each in layers.values()))
