"""The verb quantize: what it refuses before it quantises anything."""

import importlib.util

import pytest

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
