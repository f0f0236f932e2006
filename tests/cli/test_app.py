"""The command as a whole: help, exit codes, one line for every error."""

import subprocess
import sys
from pathlib import Path

import pytest
from gatewise.cli.app import app
from gatewise.kernels.errors import MismatchError, ToolMissingError
from gatewise.sim import doctor

COMMAND = Path(sys.executable).with_name("gatewise")
VERBS = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]


def test_the_installed_command_prints_its_help_and_the_verbs():
    result = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    for verb in VERBS:
        assert f"\n  {verb} " in result.stdout


def test_the_installed_command_gives_one_line_and_exit_code_2():
    result = subprocess.run([COMMAND, "inspect", "/none.gw"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: /none.gw: must be a readable file")
    assert result.stderr.count("\n") == 1


def test_help_loads_no_heavy_package():
    heavy = {"numpy", "numba", "pydantic", "torch", "amaranth", "rich.table"}
    code = f"import sys, gatewise.cli.app; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_no_arguments_print_the_help(gatewise):
    assert gatewise().out == gatewise("--help").out


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_verb_has_help(gatewise, verb, option):
    result = gatewise(verb, option)
    assert (result.code, result.err) == (0, "")
    assert f" {verb} [OPTIONS]" in result.out.splitlines()[0]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_writes_json(gatewise, verb):
    assert "--json" in gatewise(verb, "--help").out


def test_unknown_verbs_and_options_are_refused(refused):
    assert "No such command 'fly'" in refused("fly")
    assert "No such option" in refused("--fly")
    assert "No such option" in refused("demo", "--fly")
    assert "Missing argument 'F.gw'" in refused("inspect")
    assert "unexpected extra argument" in refused("inspect", "a.gw", "b.gw")


@pytest.mark.parametrize(("error", "code"), [(MismatchError("bit 3 differs"), 1), (ToolMissingError("a\n  b"), 2)])
def test_errors_become_one_line_and_an_exit_code(gatewise, monkeypatch, error, code):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    result = gatewise("doctor")
    assert (result.code, result.out) == (code, "")
    assert result.err == f"error: {' '.join(str(error).split())}\n"


def test_an_interrupt_leaves_no_traceback(gatewise, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", interrupt)
    result = gatewise("doctor")
    assert result.code == 130
    assert "Traceback" not in result.err


def test_a_reader_that_goes_away_is_no_error(network):
    script = f"'{COMMAND}' inspect '{network}' | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("0\n", "")
