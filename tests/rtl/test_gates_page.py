"""The page of gates by weight scheme is written from its store, whose counts are of the RTL of today."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from gatewise.rtl.compare import parse_layer
from gatewise.rtl.compare_engine import default_target
from gatewise.rtl.flows import flows
from gatewise.rtl.hierarchy import parse_design
from gatewise.rtl.unrolled_layer import layer_sha256
from gatewise.rtl.verilog import to_rtlil
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


def test_decoders_are_the_published_share_where_a_fetch_serves_several_images(bench, counts):
    rows, bank = counts.store[bench.ON_ENGINES]["rows"], counts.store[bench.ONE_DECODER]["gates"]
    plain, coded = (next(row for row in rows if row["scheme"] == name) for name in ("focused5", "focused5-huffman"))
    built = coded["gates_at_target"] / plain["gates_at_target"] - 1
    shares = [bench.shared_decoder(rows, bank, images)["more"] for images in (1, 2, 4, 8)]
    assert built > shares[0] > 0.01
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.01
    images = bench.images_as_published(rows, bank)
    assert bench.shared_decoder(rows, bank, images)["more"] == pytest.approx(bench.PUBLISHED_SHARE, abs=0.0005)
    assert bench.shared_decoder(rows, bank, 1)["cycles"] <= plain["engine"]["target_cycles"]


def test_a_shared_decoder_by_hand(bench):
    engine = {"rows": 8, "lanes": 16, "target_cycles": 120_000, "array": "shift"}
    rows = [{"scheme": "focused5", "gates": 100_000, "gates_at_target": 1, "cycles": 105_000, "engine": engine}]
    found = bench.shared_decoder(rows, 3000, 2)
    assert found["codes"] == 13 * 7 * 128 * 9
    assert found["cycles"] == 105_000 + 128
    assert found["gates"] == 101_500
    assert found["at_target"] == 101_500 * 105_128 / 120_000
    assert found["more"] == 101_500 * 105_128 / (100_000 * 105_000) - 1
    # Where codes are more than the cycles, they are waited for.
    rows[0]["cycles"] = 50_000
    assert bench.shared_decoder(rows, 3000, 2)["cycles"] == found["codes"] + 128


@pytest.mark.skipif(version("amaranth") != AMARANTH, reason=f"the stored hashes are of RTL by Amaranth {AMARANTH}")
def test_the_decoder_is_of_todays_rtl(bench, counts):
    text = to_rtlil(bench.one_decoder(), "huffman_bank")
    assert parse_design(text, "huffman_bank").sha256 == counts.store[bench.ONE_DECODER]["rtl_sha256"]


def test_engines_of_the_layer_keep_to_the_target(counts):
    rows = counts.store["engine"]["rows"]
    layer = parse_layer("3,100,100,8,8")
    assert {row["engine"]["target_cycles"] for row in rows} == {default_target(layer.shape, (8, 8))}
    assert all(row["cycles"] <= row["engine"]["target_cycles"] for row in rows)
    assert {row["engine"]["array"] for row in rows if row["scheme"] == "ternary"} == {
        "digit",
        "fusion",
        "sign",
        "shift",
    }
