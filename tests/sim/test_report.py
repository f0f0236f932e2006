"""Tables: readable at 80 columns and in a pipe, and names are printed as they stand."""

import io

import numpy as np
import pytest
from gatewise import Grid, NetworkBuilder
from gatewise.sim.inspect import inspect_file
from gatewise.sim.report import inspection_report, run_report, terminal
from rich.console import Console


def printed(report, found, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    console = terminal()
    console.file = stream
    assert isinstance(console, Console)
    console.print(report(found, console))
    return stream.getvalue()


@pytest.fixture
def result(samples):
    network = samples.small().build()
    return network.run(samples.pixels(network, 2))


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_no_figure_is_cut_off_at_any_usual_width(result, small_file, schemes_file, monkeypatch, width):
    text = printed(run_report, result, width, monkeypatch)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for layer in result.layers:
        assert f" {layer.total:,} " in text
        assert f" {layer.name} " in text
    for file in (small_file, schemes_file):
        text = printed(inspection_report, inspect_file(file), width, monkeypatch)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width


def test_all_columns_are_there_where_they_fit_and_the_parts_go_first(result, monkeypatch):
    wide, narrow = (printed(run_report, result, width, monkeypatch) for width in (200, 80))
    for column in ("compute", "stall", "drain", "fill", "host", "MMAC"):
        assert f" {column} " in "".join(wide.splitlines()[1:4])
        assert f" {column} " not in "".join(narrow.splitlines()[1:4])
    for column in ("cycles", "utilisation", "bound by", "overflows"):
        assert column in wide
        assert column in narrow


def test_a_pipe_is_wide_enough_for_every_column(result, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal().width >= 140


def test_long_names_are_folded_and_not_cut(samples, monkeypatch):
    net = NetworkBuilder("long", samples.input_spec((4, 1, 1)))
    name = "features.denseblock1.denselayer1.conv2.weight_quantised_by_the_author"
    net.linear(name, net.input, np.ones((3, 4), int), bits=4, scale=0.1, out=Grid(0.1, 8))
    network = net.build()
    text = printed(run_report, network.run(samples.pixels(network, 1)), 80, monkeypatch)
    assert "…" not in text
    column = "".join(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│"))
    assert column.count(name) == 2  # the layer and the store of its result


def test_markup_in_a_networks_name_is_printed_as_it_stands(samples, tmp_path, monkeypatch):
    net = samples.tiny()
    net.name = "[red]a[/b] :smile:"
    net.provenance = {"note": "[/bold]"}
    network = net.save(tmp_path / "odd.gw")
    assert "[red]a[/b] :smile: on 16" in printed(run_report, network.run(samples.pixels(network, 1)), 200, monkeypatch)
    text = printed(inspection_report, inspect_file(tmp_path / "odd.gw"), 200, monkeypatch)
    assert "[red]a[/b] :smile: (int)" in text
    assert "[/bold]" in text


def test_overflows_are_shown_by_layer_and_with_their_warning(samples, monkeypatch):
    from gatewise import EngineConfig, MacFormat

    network = samples.small().build()
    found = network.run(samples.pixels(network, 2), EngineConfig(mac=MacFormat(acc=15)))
    text = printed(run_report, found, 200, monkeypatch)
    assert f"acc {found.overflow('acc'):,}" in text
    assert "the codes depend on the 16 lanes where a width overflows" in text
    text = printed(run_report, network.run(samples.pixels(network, 2)), 200, monkeypatch)
    assert "depend on" not in text


def test_coded_weights_are_shown_with_their_entropy(schemes_file, monkeypatch):
    found = inspect_file(schemes_file)
    text = printed(inspection_report, found, 180, monkeypatch)
    for node in found.nodes:
        if node.stored is not None:
            assert f" {node.stored.bits_per_weight:.3f} " in text
        if node.stored is not None and node.stored.entropy is not None:
            assert f" {node.stored.scheme} huffman " in text
            assert f" {node.stored.entropy:.3f} " in text
