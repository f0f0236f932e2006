"""``gatewise regress --network`` and ``--random``: arguments, results, exit codes."""

import json

import pytest

ENGINE = "rows = 4\nlanes = 4\npixels = 16\nact_bytes = 32768\nbus_bits = 32\nbus_latency = 7\n"


@pytest.fixture
def engine(tmp_path):
    (tmp_path / "e.toml").write_text(ENGINE)
    return tmp_path / "e.toml"


def test_a_network_runs_through_the_rtl(gatewise, network, engine, tmp_path):
    files = "--json", tmp_path / "r.json", "--vcd", tmp_path / "w.vcd", "--from", 100, "--to", 200
    result = gatewise("regress", "--network", network, "--engine", engine, "--images", 2, *files)
    assert (result.code, result.out.splitlines()[-1]) == (0, "equal: every digit, every counter, every layer's cycles")
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["passed"], found["images"], found["layers"]) == (True, 2, 13)
    waveform = (tmp_path / "w.vcd").read_text()
    assert "\n#1000\n" in waveform
    assert "\n#2100\n" not in waveform


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--random", 3, "--block", "tree"), "--block must not come with --random"),
        (("--stall", 0.5), "--engine, --images, --data, --stall, --vcd and --prune must come with --network"),
        (("--network", "none.gw"), "none.gw: must be a readable file"),
        (("--network", "x.gw", "--from", 5, "--to", 5), "--to must be greater than --from (5), not 5"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(refused, arguments, message):
    assert message in refused("regress", *arguments)
