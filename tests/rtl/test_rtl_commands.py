import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from gatewise import GatewiseError, MismatchError, ToolMissingError
from gatewise.cli.rtl_commands import regress, synth
from gatewise.kernels import DigitMultiplier, MacFormat
from gatewise.rtl import blocks
from typer.testing import CliRunner

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(synth)
app.command()(regress)

MULTIPLIER = blocks.BLOCKS["multiplier"]


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    # Yosys's own compiled form stays where it is; results go elsewhere.
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    monkeypatch.setenv("YOWASP_CACHE_DIR", os.environ.get("YOWASP_CACHE_DIR", str(base / "YoWASP")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def invoke(*arguments):
    return CliRunner().invoke(app, arguments)


def test_synth_prints_the_counts_and_writes_them(tmp_path):
    file = tmp_path / "counts.json"
    result = invoke("synth", "--block", "multiplier", "--param", "product=7", "--json", str(file))
    assert result.exit_code == 0
    assert "multiplier product=7 overflow=saturate" in result.stdout
    content = json.loads(file.read_text())
    assert (content["schema"], content["block"], content["params"]["product"]) == (1, "multiplier", 7)
    assert f"{content['gates']['two_input']} (" in result.stdout
    assert (tmp_path / "cache" / "gatewise" / "synth").is_dir()


def test_synth_refuses_an_unknown_block():
    result = invoke("synth", "--block", "divider")
    assert isinstance(result.exception, GatewiseError)
    assert "block must be one of multiplier" in str(result.exception)


@pytest.mark.usefixtures("icarus")
def test_regress_prints_and_writes_every_bench(tmp_path, monkeypatch):
    monkeypatch.setitem(blocks.BLOCKS, "multiplier", replace(MULTIPLIER, cases=({},)))
    file = tmp_path / "regress.json"
    result = invoke("regress", "--block", "multiplier", "--json", str(file))
    assert result.exit_code == 0
    assert "equal" in result.stdout
    content = json.loads(file.read_text())
    assert (content["schema"], content["passed"], content["results"][0]["vectors"]) == (1, True, 1024)


@pytest.mark.usefixtures("icarus")
def test_regress_fails_on_a_planted_fault_and_still_writes(tmp_path, monkeypatch):
    def wrapping(parameters):
        return MULTIPLIER.component(DigitMultiplier(MacFormat(product=parameters.format.product, overflow="wrap")))

    planted = replace(MULTIPLIER, component=wrapping, cases=({"product": 6},))
    monkeypatch.setitem(blocks.BLOCKS, "multiplier", planted)
    file = tmp_path / "regress.json"
    result = invoke("regress", "--block", "multiplier", "--json", str(file))
    assert isinstance(result.exception, MismatchError)
    assert str(result.exception) == "1 of 1 benches differ from the golden model"
    assert "multiplier: vector" in result.stdout
    assert not json.loads(file.read_text())["passed"]


def test_regress_without_a_simulator_names_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    result = invoke("regress")
    assert isinstance(result.exception, ToolMissingError)
    assert "apt-get install iverilog" in str(result.exception)
