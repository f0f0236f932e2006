"""The reference model as a fixture: test folders are no packages, so it is loaded by its path."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The slow big-integer model of the number contract."""
    spec = importlib.util.spec_from_file_location("kernel_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
