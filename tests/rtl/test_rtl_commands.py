import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from gatewise.cli.app import run_app
from gatewise.kernels import DigitMultiplier, MacFormat
from gatewise.rtl import blocks, synth

MULTIPLIER = blocks.BLOCKS["multiplier"]


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    # Yosys's own compiled form stays where it is; results go elsewhere.
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    monkeypatch.setenv("YOWASP_CACHE_DIR", os.environ.get("YOWASP_CACHE_DIR", str(base / "YoWASP")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def exit_code(*arguments):
    with pytest.raises(SystemExit) as exit:
        run_app(list(arguments))
    return exit.value.code


def test_synth_prints_the_counts_and_writes_them(tmp_path, capsys):
    file = tmp_path / "counts.json"
    assert exit_code("synth", "--block", "multiplier", "--param", "product=7", "--json", str(file)) == 0
    output = capsys.readouterr().out
    assert "multiplier product=7 overflow=saturate" in output
    content = json.loads(file.read_text())
    assert (content["schema"], content["block"], content["params"]["product"]) == (1, "multiplier", 7)
    assert f"{content['gates']['two_input']} (" in output
    assert (tmp_path / "cache" / "gatewise" / "synth").is_dir()


def test_synth_refuses_an_unknown_block(capsys):
    assert exit_code("synth", "--block", "divider") == 2
    assert capsys.readouterr().err.startswith("error: block must be one of multiplier, align, ")


def test_synth_counts_an_engine_by_part(tmp_path, monkeypatch, capsys, two_memories):
    # The whole way but for the engine itself: a small design of two levels stands for it.
    made = []

    class Standing(two_memories):
        def __init__(self, config):
            made.append(config)
            super().__init__()

    monkeypatch.setattr(synth, "Engine", Standing)
    (tmp_path / "e.toml").write_text("rows = 8\n[mac]\nacc = 24\n")
    file = tmp_path / "counts.json"
    assert exit_code("synth", "--engine", str(tmp_path / "e.toml"), "--json", str(file)) == 0
    assert (made[0].rows, made[0].mac.acc) == (8, 24)
    output = capsys.readouterr().out
    assert "each of 3 distinct modules synthesised once" in output
    assert "engine rows=8 lanes=16" in output
    content = json.loads(file.read_text())
    assert (content["block"], content["params"]["mac.acc"], content["memory"]["bits"]) == ("engine", 24, 2 * 64 * 8)
    assert [level["path"] for level in content["levels"]] == [["left"], ["right"]]
    assert [level["memory"]["bits"] for level in content["levels"]] == [512, 512]


@pytest.mark.parametrize("arguments", [[], ["--block", "dot", "--engine", "e.toml"]])
def test_synth_wants_a_block_or_an_engine(arguments, capsys):
    assert exit_code("synth", *arguments) == 2
    assert capsys.readouterr().err == "error: exactly one of --block and --engine must be given\n"


def test_synth_takes_an_engines_parameters_from_its_file(capsys):
    assert exit_code("synth", "--engine", "e.toml", "--param", "rows=4") == 2
    assert capsys.readouterr().err == "error: --param must go with --block; an engine's parameters are in its file\n"


@pytest.mark.usefixtures("icarus")
def test_regress_prints_and_writes_every_bench(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(blocks.BLOCKS, "multiplier", replace(MULTIPLIER, cases=({},)))
    file = tmp_path / "regress.json"
    assert exit_code("regress", "--block", "multiplier", "--json", str(file)) == 0
    assert "equal" in capsys.readouterr().out
    content = json.loads(file.read_text())
    assert (content["schema"], content["passed"], content["results"][0]["vectors"]) == (1, True, 1024)


@pytest.mark.usefixtures("icarus")
def test_regress_fails_on_a_planted_fault_and_still_writes(tmp_path, monkeypatch, capsys):
    def wrapping(parameters):
        return MULTIPLIER.component(DigitMultiplier(MacFormat(product=parameters.format.product, overflow="wrap")))

    planted = replace(MULTIPLIER, component=wrapping, cases=({"product": 6},))
    monkeypatch.setitem(blocks.BLOCKS, "multiplier", planted)
    file = tmp_path / "regress.json"
    assert exit_code("regress", "--block", "multiplier", "--json", str(file)) == 1
    output = capsys.readouterr()
    assert output.err == "error: 1 of 1 benches differ from the golden model\n"
    assert "multiplier: vector" in output.out
    assert not json.loads(file.read_text())["passed"]


def test_regress_without_a_simulator_names_its_package(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert exit_code("regress") == 2
    assert capsys.readouterr().err == "error: iverilog must be on the PATH: apt-get install iverilog\n"
