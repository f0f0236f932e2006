"""The command as a function: arguments in; exit code, output and errors out."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from gatewise.cli.app import run_app


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """Small networks, and a way to write files with valid digests around any content."""
    path = Path(__file__).parent.parent / "sim" / "samples.py"
    spec = importlib.util.spec_from_file_location("cli_samples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gatewise(capsys):
    """Runs the command in this process."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            run_app([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def refused(gatewise):
    """Runs the command, which must refuse: exit code 2 and one line; gives the line without its prefix."""

    def run(*arguments):
        result = gatewise(*arguments)
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert result.err.startswith("error: ")
        assert "Traceback" not in result.err
        return result.err.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def network(samples, tmp_path) -> Path:
    """A small network in a file."""
    samples.small().save(tmp_path / "small.gw")
    return tmp_path / "small.gw"


@pytest.fixture
def images(samples, tmp_path) -> Path:
    """Images for it, with labels."""
    shape = samples.small().spec.shape
    pixels = np.random.default_rng(1).integers(0, 256, (4, *shape), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(4))
    return tmp_path / "images.npz"
