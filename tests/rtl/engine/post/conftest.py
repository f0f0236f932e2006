"""Compiled components for the tests of the post side."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from gatewise import ToolMissingError
from gatewise.rtl import cxxrtl


@pytest.fixture(scope="session")
def compiler():
    """Skip where there is no C++ compiler."""
    try:
        return cxxrtl.find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")


@pytest.fixture(scope="session")
def compiled(compiler, tmp_path_factory):
    """Compile a component; the cache is the test run's own."""
    cache = tmp_path_factory.mktemp("cosim")
    return lambda component: cxxrtl.compile_design(component, cache=cache)


def _packed(values, bits):
    """Integers (cycles, elements) of `bits` bits as a port's words, uint32 (cycles, words)."""
    values = np.asarray(values, dtype=np.int64)
    values = values.reshape(len(values), -1)
    planes = (values[:, :, None] >> np.arange(bits)) & 1
    return cxxrtl.words_of(planes.astype(np.uint8).reshape(len(values), -1))


def _unpacked(words, bits, elements):
    """The signed integers (cycles, elements) of a port's words."""
    planes = cxxrtl.bits_of(words, bits * elements).reshape(len(words), elements, bits).astype(np.int64)
    values = (planes << np.arange(bits)).sum(axis=2)
    return values - ((values >> (bits - 1)) << bits)


@pytest.fixture(scope="session")
def packed():
    return _packed


@pytest.fixture(scope="session")
def unpacked():
    return _unpacked


def _module(name):
    """A module of this folder: test folders are no packages, so it is loaded by path."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"post_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tensors():
    """Tensors in an activation memory."""
    return _module("tensors")


@pytest.fixture(scope="session")
def layers():
    """Random layers of the post lanes."""
    return _module("layers")
