"""The page of speeds is written from its store, and what cannot be measured is said in a line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODULES = ("performance", "cycle_model", "kernels", "networks", "fast", "markdown", "paths")


@pytest.fixture(scope="module")
def bench():
    """The module that writes the page."""
    pytest.importorskip("torch")
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("performance")
    sys.path.remove(str(ROOT / "bench"))
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def store(bench):
    return json.loads(bench.STORE.read_text(encoding="utf-8"))


def test_the_page_is_written_from_the_stored_figures(bench, store):
    text = bench.PAGE.read_text(encoding="utf-8")
    assert bench.page(text, store) == text


def test_a_figure_that_is_not_the_stored_one_is_seen(bench, store):
    text = bench.PAGE.read_text(encoding="utf-8")
    rate = f"{store['kernels']['rows'][0]['rates']['vnni']:.1f}"
    assert bench.page(text.replace(rate, "999.9"), store) == text


def test_what_is_not_measured_is_said(bench, store):
    rows = [{"skipped": "SCALE-Sim is not there"}]
    text = bench.section({**store, "scalesim": {"rows": rows}})
    assert "Not measured: SCALE-Sim is not there." in text


def test_the_cycles_that_the_page_shows_are_the_models(bench, store):
    from gatewise import EngineConfig
    from gatewise.sim.cycles import network_cycles
    from gatewise.sim.lower import lower

    row = next(row for row in store["model"]["rows"] if row["network"] == "ResNet-20")
    network = bench.cycle_model.NETWORKS["ResNet-20"]()
    assert isinstance(bench.cycle_model.ENGINE, EngineConfig)
    layers = network_cycles(lower(network, bench.cycle_model.ENGINE), bench.cycle_model.ENGINE)
    assert row["cycles"] == sum(layer.total for layer in layers)


def test_scalesim_is_skipped_with_a_line_where_it_is_not(bench):
    (row,) = bench.cycle_model.scalesim_rows(sys.executable, 1, 1, lambda: 0.0)
    assert row["skipped"].startswith("SCALE-Sim is not there: pip install scalesim")


def test_others_are_skipped_with_a_line_where_they_are_not(bench):
    layer = bench.kernels.SHAPES[8]
    with bench.kernels.Others(sys.executable, layer, 1) as others:
        assert others.runs.keys() == others.versions.keys()
        for name, text in others.missing.items():
            assert text.startswith((f"{name} is not there: ", f"{name} does not run it: "))
        assert {*others.missing, *others.versions} == {"onnxruntime", "LiteRT"}
        for timed in others.runs.values():
            assert timed.seconds() > 0


def test_scalesim_reads_the_layers_of_the_network(bench):
    network = bench.cycle_model.NETWORKS["ResNet-20"]()
    rows = bench.cycle_model.topology(network)
    macs = sum(
        ((height - kernel) // stride + 1) * ((width - kernel) // stride + 1) * kernel * kernel * channels * filters
        for _, height, width, kernel, _, channels, filters, stride in rows
    )
    assert len(rows) == len(network.layers)
    assert macs == int(np.sum([network.macs(node) for node in network.mac_nodes()]))
