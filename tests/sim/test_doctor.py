"""`gatewise.sim.doctor`: what is missing is named with the command that installs it."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
from gatewise.sim import doctor


def test_everything_listed_has_a_purpose():
    pieces = doctor.examine()
    assert len({piece.name for piece in pieces}) == len(pieces)
    assert all(piece.purpose for piece in pieces)
    assert int(next(piece.found for piece in pieces if piece.name == "threads")) >= 1


def test_a_missing_package_names_its_extra(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    found = {piece.name: piece for piece in doctor.examine()}
    assert found["torch"].found == ""
    assert found["torch"].purpose.endswith("; install it with: pip install 'gatewise[quant]'")
    assert found["cocotb"].purpose.endswith("; install it with: pip install 'gatewise[rtl]'")


def test_a_missing_program_names_what_installs_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = {piece.name: piece for piece in doctor.examine()}
    assert found["iverilog"].found == ""
    assert found["iverilog"].purpose.endswith("install it with: apt-get install iverilog")
    assert found["C++ compiler"].found == ""
    assert found["C++ compiler"].purpose.endswith("install one with: apt-get install clang")


@pytest.mark.parametrize(("installed", "taken", "hint"), [
    ({"g++", "clang++-15", "clang++"}, "clang++", False), ({"g++", "clang++-19", "clang++-14"}, "clang++-14", False),
    ({"g++"}, "g++", True),
])  # fmt: skip
def test_the_compiler_that_is_taken_is_named(monkeypatch, installed, taken, hint):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in installed else None)
    answer = SimpleNamespace(returncode=0, stdout="release 14\n", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    piece = next(piece for piece in doctor._programs() if piece.name == "C++ compiler")
    assert piece.found == f"/usr/bin/{taken}: release 14"
    assert piece.purpose.endswith("apt-get install clang") == hint


@pytest.mark.parametrize(("code", "output", "expected"), [
    (0, "Icarus 11\nmore", "Icarus 11"), (1, "Icarus 11", "does not start"), (0, "", "of unknown version"),
])  # fmt: skip
def test_a_program_is_asked_for_its_version(monkeypatch, code, output, expected):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    answer = SimpleNamespace(returncode=code, stdout=output, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert next(piece.found for piece in doctor._programs() if piece.name == "iverilog") == expected
