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
    """The module that measures."""
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("widths")
    sys.path.remove(str(ROOT / "bench"))
    for name in ("widths", "widths_page", "widths_store", "paths"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def written(bench):
    """The module that writes the page."""
    return sys.modules["widths_page"]


@pytest.fixture(scope="module")
def store(bench):
    """What is stored."""
    return bench.read()


@pytest.fixture(scope="module")
def blocks():
    """The counts of docs/blocks.md, which are held to today's RTL."""
    return json.loads((ROOT / "docs" / "blocks.json").read_text(encoding="utf-8"))["counts"]


def test_the_page_is_written_from_the_store(written, store):
    assert written.page(store) == written.PAGE.read_text(encoding="utf-8")


def test_the_counts_are_of_todays_flows(store, pinned_yosys):
    assert store["tool"] == pinned_yosys
    assert store["flows"] == {flow.name: flow.sha256 for flow in flows(flat=False)}


def test_rows_and_statistics_are_the_blocks(written, store, blocks):
    row, dot = written.cost_of(store, MacFormat()), blocks["dot defaults"]
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


def test_a_row_group_finishes_at_once_and_a_shared_finish_takes_channels_in_turn(written, store):
    found, (laplace, gauss) = store["run_time"], store["statistics"].values()
    assert len(found["row_groups"]) == len(found["tensors"])
    for groups, (_, channels, *_) in zip(found["row_groups"], found["tensors"], strict=True):
        assert groups == -(-channels // found["rows"])
    # 41 and the mean's 2; a Gaussian prior has one pass, and no mean to wait for.
    assert (written.finish_cycles(laplace), written.finish_cycles(gauss)) == (43, 58)
    section = written.run_time_section(store)
    for cycles in (43, 58):
        for count in (sum(found["row_groups"]), found["records"]):
            assert f" {cycles * count:,} |" in section


def test_the_engine_is_that_of_the_bops(written):
    stored = json.loads((ROOT / "docs" / "bops.json").read_text(encoding="utf-8"))
    assert written.engine_gates() == stored["gates"]["digit"]


def test_pairs_that_fail_on_test_images_are_named(written, store):
    text = " ".join(" ".join(written.chosen_by_top1(store)).split())
    for name, network in store["networks"].items():
        if not network["test"]:
            continue
        test, reference = written.points(network["test"]), network["test"]["reference"]
        for mode in written.MODES:
            mac = written.pair_of(store, name, "accurate", mode)
            worse = test[mac.align, mac.acc, mode]["top1"] < reference[3] - reference[4]
            assert (f"{name}, {mode}, {mac.align}/{mac.acc}" in text) == worse


def test_an_even_slope_has_no_scatter_and_a_step_has(written):
    def rows(extra):
        return {
            f"{align} 32 {mode}": [1000 - 10 * (16 - align) + extra * (align > 12), 0, 0, 90 + align, 110 + align]
            for align in range(8, 17)
            for mode in written.MODES
        }

    assert written.scatter({"rows": rows(0)}) == (0, 0)
    # A step of 80 of 7: the mean is 10 + 10, that step 80.
    assert written.scatter({"rows": rows(70)}) == (pytest.approx(60 / 1070), 0)


def test_the_accumulators_memory_saves_at_least_its_bits(written):
    alone, saved = written.accumulators_saved(22)
    assert 0 < alone < saved < 1
    assert written.accumulators_saved(32) == (0, 0)
