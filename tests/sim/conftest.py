"""Sample networks and the reference model as fixtures: test folders are no packages, so they are loaded by path."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def load_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sim_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """Small networks, and a way to write files with valid digests around any content."""
    return load_module("samples")


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The slow node-by-node model of a network file."""
    return load_module("reference")


@pytest.fixture
def small_file(samples, tmp_path) -> Path:
    """A small network with every operation, written to a file."""
    path = tmp_path / "small.gw"
    samples.small().save(path)
    return path


@pytest.fixture
def schemes_file(samples, tmp_path) -> Path:
    """A network with every scheme, written to a file."""
    path = tmp_path / "schemes.gw"
    samples.schemes().save(path)
    return path
