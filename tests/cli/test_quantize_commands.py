"""The verb quantize: its file and figures, and what it refuses before it quantises anything."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from gatewise import load
from gatewise.sim import demo
from gatewise.sim.images import load_images

ARGUMENTS = ("quantize", "--method", "aciq", "--network", "resnet20", "--weights", "w.pt", "--calibration", "c.npz")


@pytest.mark.parametrize("package", ["torch", "scipy"])
def test_a_missing_package_names_its_extra(refused, monkeypatch, tmp_path, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else real(name, *more))
    expected = f"quantize needs {package}: pip install 'gatewise[quant]'"
    assert refused(*ARGUMENTS, "-o", tmp_path / "out.gw") == expected


def test_missing_options_are_named(refused):
    assert "--method" in refused("quantize")


def test_calibration_images_that_are_missing_are_refused(refused, tmp_path):
    pytest.importorskip("torch")
    assert refused(*ARGUMENTS, "-o", tmp_path / "out.gw") == "c.npz: must be readable: No such file or directory"


def test_quantize_writes_a_file_and_the_json_of_it(gatewise, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    images = demo.FOLDER / "test.npz"
    noise = tmp_path / "noise.npz"
    np.savez(noise, images=np.random.default_rng(5).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8))
    out, found = tmp_path / "out.gw", tmp_path / "found.json"
    result = gatewise(
        "quantize", "--method", "minmax", "--network", "examples.digits.network:digits_cnn",
        "--weights", root / "examples" / "digits" / "weights.safetensors", "--calibration", noise, "--bits", 8,
        "--test", images, "-o", out, "--json", found,
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    content = json.loads(found.read_text())
    assert (content["schema"], content["file"], content["bytes"]) == (1, str(out), out.stat().st_size)
    assert content["provenance"] == load(out).manifest.provenance
    assert f"float {100 * content['provenance']['float_top1']:.2f} %" in result.out
    assert f"integer {100 * content['top1']:.2f} %" in result.out
    assert content["top1"] == load(out).run(load_images(images)).top(1)


def test_quantize_fine_tunes_and_resumes(gatewise, refused, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    images = demo.FOLDER / "test.npz"
    common = (
        "quantize", "--method", "minmax", "--network", "examples.digits.network:digits_cnn", "--bits", 2,
        "--weights", root / "examples" / "digits" / "weights.safetensors", "--calibration", images,
    )  # fmt: skip
    files = [(tmp_path / f"{run}.gw", tmp_path / f"{run}.json") for run in ("first", "again")]
    for out, found in files:
        result = gatewise(
            *common, "--train", images, "--epochs", 2, "--seed", 3, "--resume", tmp_path / "kept",
            "--option", "learning_rate=0.02", "--option", "batch=32", "-o", out, "--json", found,
        )  # fmt: skip
        assert result.code == 0
    assert "epoch 2: loss " in gatewise(*common, "--train", images, "--epochs", 2, "-o", tmp_path / "x.gw").err
    content = json.loads(files[0][1].read_text())
    facts = content["provenance"]
    assert (facts["training_images"], facts["training_epochs"], facts["training_seed"]) == (360, 2, 3)
    assert facts["held_out_top1"] == content["epochs"][1]["held_out_top1"]
    assert facts["training_learning_rate"] == 0.02
    assert [epoch["epoch"] for epoch in content["epochs"]] == [0, 1]
    assert files[0][0].read_bytes() == files[1][0].read_bytes()
    assert refused(*common, "--epochs", 2, "-o", tmp_path / "x.gw").startswith("epochs must come with images to train")
