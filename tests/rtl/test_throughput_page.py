"""The page of networks on equal silicon is written from its store, whose counts are of the RTL of today."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from gatewise.rtl.compare_network import shape_subjects
from gatewise.rtl.engine.engine import Engine
from gatewise.rtl.engine_cost import CHECKED
from gatewise.rtl.engine_count import EngineCount
from gatewise.rtl.flows import flows
from gatewise.rtl.hierarchy import parse_design
from gatewise.rtl.verilog import to_rtlil
from gatewise.sim.engine import EngineConfig
from gatewise.sim.sizing import Workload

ROOT = Path(__file__).parents[2]
AMARANTH = "0.5.10"


@pytest.fixture(scope="module")
def bench():
    """The module that writes the page."""
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("throughput")
    sys.path.remove(str(ROOT / "bench"))
    for name in ("throughput", "gates"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def store(bench):
    """What is stored."""
    return json.loads(bench.STORE.read_text(encoding="utf-8"))


def test_the_page_is_written_from_what_is_stored(bench, store):
    assert bench.page(store) == bench.PAGE.read_text(encoding="utf-8")


def test_figures_are_of_todays_flows(store, pinned_yosys):
    for result in (*store["silicon"].values(), store["trained"], store["speed"], store["tiny"]):
        assert result["tool"] == pinned_yosys
        assert result["flows"] == {flow.name: flow.sha256 for flow in flows(flat=False)}


@pytest.mark.skipif(version("amaranth") != AMARANTH, reason=f"the stored hashes are of RTL by Amaranth {AMARANTH}")
def test_the_counts_are_of_todays_rtl(bench, store):
    for name in ("digit-raw", "shift-huffman"):
        count = EngineCount.from_json(store["models"]["families"][name]["counts"][0])
        design = parse_design(to_rtlil(Engine(count.config), "engine"), "engine")
        assert design.sha256 == count.rtl_sha256


def test_composed_gates_miss_none_of_the_counted_engines_by_one_percent(bench, store):
    models = bench.models_of(store)
    for model in models.given.values():
        assert all(abs(model.difference(count)) < 0.005 for count in model.counts)
    checks = [EngineCount.from_json(each) for each in store["models"]["checks"]]
    assert len(checks) == sum(map(len, CHECKED.values()))
    for count in checks:
        model = models.of(count.config.array, count.config.decoder)
        assert count not in model.counts
        assert abs(model.difference(count)) < 0.01


def test_rows_have_the_cycles_of_the_model(store):
    rows = [row for row in store["tiny"]["rows"] if row["network"] in ("resnet8-focused5", "resnet8-lqnet-a2")]
    for row in rows:
        engine = EngineConfig(
            **{name: row[name] for name in ("rows", "lanes", "post_lanes", "array", "decoder", "act_bytes")}
        )
        (subject,) = shape_subjects("resnet8", [row["network"].partition("-")[2]])
        assert Workload(subject.make).cycles(engine) == row["cycles"]
        assert row["images_per_second"] == 200e6 / row["cycles"]
    assert len(rows) == 2


def test_engines_keep_to_their_goal(store):
    for result in (*store["silicon"].values(), store["trained"]):
        assert all(row["gates"] <= result["value"] for row in result["rows"])
    assert all(row["images_per_second"] >= store["speed"]["value"] for row in store["speed"]["rows"])


def test_encrypted_weights_without_a_decoder_are_called_what_they_are(bench, store):
    rows = [row for row in store["tiny"]["rows"] if row["network"] == "resnet8-flexor-0.8"]
    names = {row["decoder"]: bench.COLUMNS["network"](row) for row in rows}
    assert names == {"raw": "resnet8-flexor-0.8, decoded offline", "xor": "resnet8-flexor-0.8"}


def test_a_command_is_cut_between_options(bench):
    lines = list(bench._command(*(f"--scheme {name}" for name in bench.TINY_SCHEMES)))
    assert len(lines) > 1
    assert all(line.endswith(" \\") for line in lines[:-1])
    words = " ".join(line.removesuffix("\\") for line in lines).split()
    assert words[2::2] == ["--scheme"] * len(bench.TINY_SCHEMES)
    assert words[3::2] == list(bench.TINY_SCHEMES)


def test_every_refusal_is_on_the_page(bench, store):
    text = " ".join(bench.page(store).split())
    for result in (*store["silicon"].values(), store["trained"], store["speed"], store["tiny"]):
        assert all(refusal.removeprefix("not ") in text for refusal in result["refused"])
    assert store["speed"]["refused"]
