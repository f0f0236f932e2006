"""Schemes beside each other: the composed counts are those of the circuits, and the tables say what was found."""

import csv
import io
import json
import os
from pathlib import Path

import gatewise
import pytest
from gatewise.cli.app import run_app
from gatewise.rtl.compare import Assumptions, Comparison, compare_layer, network_rows, parse_layer
from gatewise.rtl.compare_report import as_csv, as_latex, as_markdown
from gatewise.rtl.runner import Runner
from gatewise.rtl.synth import synthesize_component
from gatewise.rtl.unrolled import UnrolledDot
from gatewise.rtl.unrolled_layer import LayerCount, Register
from gatewise.rtl.yosys import YosysError
from gatewise.sim.arrays import SCHEMES as ARRAYS
from gatewise.sim.unrolled import SCHEMES, load_layer, seeded_layer

from .engine_models import made_models

DIGITS = Path(gatewise.__file__).parent / "sim" / "digits"
SMALL = "1,3,2,2,1"


@pytest.fixture(scope="module")
def small(synth_cache):
    """Two schemes in both architectures, and the check."""
    return compare_layer(parse_layer(SMALL), schemes=["focused5", "flexor-0.8"], check=True, cache=synth_cache)


@pytest.mark.parametrize(("scheme", "structure"), [("focused5", "grouped"), ("bayesian4", "direct")])
def test_a_composed_pixel_costs_what_its_circuit_does(scheme, structure, synth_cache):
    layer = seeded_layer(SCHEMES[scheme], parse_layer("1,4,1,1,1").shape).unrolled
    with Runner(synth_cache) as runner:
        composed = LayerCount(layer, (1, 1), structure, runner).report()
    circuit = UnrolledDot(layer.dot(0, structure))
    whole = synthesize_component(circuit, "dot", cache=synth_cache)
    register = synthesize_component(Register(), "register", cache=synth_cache)
    # Four activations, and the sum.
    bits = composed.gates.flip_flops
    assert bits == 4 * layer.bits + len(circuit.sum)
    assert composed.gates.depth == whole.gates.depth
    assert composed.alm.aluts == whole.alm.aluts
    assert composed.alm.carry_bits == whole.alm.carry_bits
    # The order of a module's ports, which is its surroundings' in a circuit, moves the mapping by a gate or two.
    assert abs(composed.gates.two_input - whole.gates.two_input) <= 0.01 * whole.gates.two_input
    transistors = composed.gates.transistors - bits * register.gates.transistors
    assert abs(transistors - whole.gates.transistors) <= 0.01 * whole.gates.transistors


def test_a_layer_is_as_many_circuits_as_it_has_pixels(small, synth_cache):
    one = compare_layer(parse_layer("1,3,2,1,1"), schemes=["focused5"], architectures=["direct"], cache=synth_cache)
    rows = {(row.scheme, row.architecture): row for row in small.rows}
    two = rows["focused5", "direct"].report
    assert two.gates.two_input == 2 * one.rows[0].report.gates.two_input
    assert two.gates.flip_flops == 2 * one.rows[0].report.gates.flip_flops
    assert two.gates.depth == one.rows[0].report.gates.depth


def test_taps_in_the_padding_cost_nothing_unless_they_are_kept(synth_cache):
    sparse, kept = (
        compare_layer(
            parse_layer("3,1,1,2,2"),
            schemes=["ternary"],
            architectures=["direct"],
            assumptions=Assumptions(padded_taps=padded),
            cache=synth_cache,
        )
        for padded in (False, True)
    )
    assert (sparse.macs, kept.macs) == (4 * 4, 4 * 9)
    assert sparse.rows[0].report.gates.two_input < kept.rows[0].report.gates.two_input


def test_assumptions_change_the_constants():
    shift = seeded_layer(SCHEMES["shift"], parse_layer("1,64,4,1,1").shape).unrolled
    dense = Assumptions(no_zeros=True).applied(shift)
    zeros = shift.weights == 0
    assert zeros.any()
    assert set(dense.weights[zeros].tolist()) == {-1, 1}
    assert (dense.weights[~zeros] == shift.weights[~zeros]).all()
    abcnet = seeded_layer(SCHEMES["abcnet"], parse_layer("1,64,4,1,1").shape).unrolled
    rounded = Assumptions(coefficient_bits=8).applied(abcnet).coefs
    assert abs(rounded * 256 - abcnet.coefs).max() <= 128
    assert Assumptions().applied(abcnet) is abcnet
    assert Assumptions(activation_bits=9).applied(shift).bits == 9
    assert Assumptions(activation_bits=9).applied(abcnet).bits == 5


def test_a_decoder_stands_beside_every_channel(small):
    row = next(row for row in small.rows if row.scheme == "flexor-0.8")
    assert [(module.name, module.instances) for module in row.report.modules if "XOR" in module.name] == [
        ("XOR network", 2)
    ]


def test_sums_agree_with_flattened_channels(small):
    for row in small.rows:
        assert row.check.params["taps"] == 3
        assert abs(row.difference) < 0.1


def test_ratios_are_to_focused_quantisation_in_the_same_architecture(small, synth_cache):
    ratios = {(row.scheme, row.architecture): small.ratio(row) for row in small.rows}
    assert ratios["focused5", "direct"] == ratios["focused5", "grouped"] == 1
    assert ratios["flexor-0.8", "direct"] < ratios["flexor-0.8", "grouped"] < 1
    alone = compare_layer(parse_layer(SMALL), schemes=["ternary"], architectures=["direct"], cache=synth_cache)
    assert alone.ratio(alone.rows[0]) is None
    assert "| ternary | direct |" in as_markdown(alone)


def test_every_form_has_every_row(small):
    content = json.loads(json.dumps(small.to_json()))
    assert content["schema"] == 1
    names = [(row["scheme"], row["architecture"]) for row in content["rows"]]
    assert names == [(row.scheme, row.architecture) for row in small.rows]
    table = list(csv.DictReader(io.StringIO(as_csv(small))))
    assert [int(row["gates"]) for row in table] == [row["gates"] for row in content["rows"]]
    markdown, latex = as_markdown(small), as_latex(small)
    for row in small.rows:
        gates = f"{row.report.gates.two_input:,}"
        assert f"| {row.scheme} | {row.architecture} | {gates} |" in markdown
        assert f"{row.scheme} & {row.architecture} & {gates} &" in latex
    assert r"\%" in latex
    assert small.rows[0].report.tool in markdown


@pytest.fixture
def command(monkeypatch, synth_cache):
    """The exit code of a command, its results in the tests' cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    monkeypatch.setenv("YOWASP_CACHE_DIR", os.environ.get("YOWASP_CACHE_DIR", str(base / "YoWASP")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(synth_cache))

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            run_app(["compare", *arguments])
        return exit.value.code

    return run


def test_the_command_prints_and_writes_what_it_found(command, tmp_path, capsys):
    file = tmp_path / "compare.json"
    arguments = ("--layer", SMALL, "--scheme", "ternary", "--architecture", "direct", "--format", "md")
    assert command(*arguments, "--json", str(file)) == 0
    output = capsys.readouterr().out
    content = json.loads(file.read_text())
    assert f"| ternary | direct | {content['rows'][0]['gates']:,} |" in output


def test_a_layer_is_unrolled_and_on_engines_unless_one_is_named(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gatewise.rtl.compare.Models", lambda **_: made_models())
    file = tmp_path / "compare.json"
    arguments = ("--layer", SMALL, "--scheme", "ternary", "--scheme", "shift", "--json", str(file))
    assert command(*arguments, "--format", "md") == 0
    rows = json.loads(file.read_text())["rows"]
    kinds = list(dict.fromkeys((row["scheme"], row["architecture"]) for row in rows))
    assert kinds == [(name, kind) for name in ("ternary", "shift") for kind in ("direct", "grouped", "engine")]
    # They have columns of their own, and so a table.
    unrolled, on_engines, *_ = capsys.readouterr().out.split("\n\n")
    assert "gates/MAC" in unrolled
    assert "| ternary | engine |" not in unrolled
    assert "gates at target" in on_engines
    assert (
        sum(f"| {name} | engine | " in line for line in on_engines.splitlines() for name in ("ternary", "shift"))
        == len(rows) - 4
    )
    assert command(*arguments) == 0
    output = capsys.readouterr().out
    assert output.index(f"layer {SMALL}, unrolled") < output.index(f"layer {SMALL}, on engines")
    assert command(*arguments, "--format", "latex") == 0
    for table in capsys.readouterr().out.split(r"\begin{tabular}{")[1:]:
        columns, lines = table.split("}", 1)
        found = [line.count("&") for line in lines.splitlines() if line.endswith(r"\\")]
        assert set(found) == {len(columns) - 1}
    assert command(*arguments, "--format", "csv") == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [bool(row["engine_rows"]) for row in table] == [row["architecture"] == "engine" for row in table]
    # Assumptions are of circuits.
    assert command(*arguments, "--no-zeros") == 0
    assert {row["architecture"] for row in json.loads(file.read_text())["rows"]} == {"direct", "grouped"}


def test_what_no_engine_does_in_time_is_refused_by_name(synth_cache):
    found = compare_layer(
        parse_layer(SMALL), schemes=["ternary"], architectures=["direct", "engine"], models=made_models(), cycles=3,
        cache=synth_cache,
    )  # fmt: skip
    assert [row.architecture for row in found.rows] == ["direct"]
    assert len(found.refused) == len(ARRAYS)
    assert all(reason.startswith("ternary on engines: cycles must be at least ") for reason in found.refused)
    assert {f"left out: {reason}" for reason in found.refused} <= set(found.notes())
    assert found.to_json()["refused"] == found.refused


def test_a_tool_that_fails_is_one_line(command, capsys, monkeypatch):
    def run_flow(*_):
        raise YosysError("ERROR: no more\nmemory")

    monkeypatch.setattr("gatewise.rtl.runner.run_flow", run_flow)
    assert command("--layer", "1,2,1,1,1", "--scheme", "ternary", "--architecture", "direct") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: ERROR: no more memory"


def test_a_wrong_layer_of_a_network_is_refused_before_anything_is_counted(command, capsys, monkeypatch):
    monkeypatch.setattr("gatewise.rtl.compare.compare_layer", lambda *_, **__: pytest.fail("counted"))
    weights = f"{DIGITS / 'digits-w4a4.gw'}:conv2"
    assert command("--layer", SMALL, "--scheme", "ternary", "--weights", weights) == 2
    assert "error: conv2 must be a layer" in capsys.readouterr().err
    assert command("--layer", SMALL, "--architecture", "engine", "--weights", weights) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "3,4,4,8"), "layer must be K,CIN,COUT,H,W: five positive whole numbers, K odd, not '3,4,4,8'"),
        (("--layer", "2,4,4,8,8"), "layer must be K,CIN,COUT,H,W: five positive whole numbers, K odd, not '2,4,4,8,8'"),
        (("--layer", "3,4,0,8,8"), "layer must be K,CIN,COUT,H,W: five positive whole numbers, K odd, not '3,4,0,8,8'"),
        (("--layer", SMALL, "--scheme", "float"), f"scheme must be one of {', '.join(SCHEMES)}, not 'float'"),
        (
            ("--layer", SMALL, "--architecture", "flat"),
            "architecture must be one of direct, grouped, engine, not 'flat'",
        ),
        (("--layer", SMALL, "--format", "html"), "--format must be one of table, md, csv, latex, not 'html'"),
        (("--layer", SMALL, "--coefficient-bits", "1"), "coefficient bits must be 2 to 16, not 1"),
        (("--layer", SMALL, "--activation-bits", "17"), "activation bits must be 1 to 16, not 17"),
        (
            ("--layer", SMALL, "--cycles", "9", "--no-zeros"),
            "--cycles must be left out with --check and with assumptions: engines are left out",
        ),
        (("--layer", SMALL, "--weights", "net.gw"), "weights must be given as F.gw:NODE, not 'net.gw'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, command, capsys):
    assert command(*arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"


def test_a_layer_of_a_network_must_have_the_shape(command, capsys):
    weights = f"{DIGITS / 'digits-w4a4.gw'}:conv2"
    arguments = ("--layer", SMALL, "--scheme", "ternary", "--architecture", "direct", "--weights", weights)
    assert command(*arguments) == 2
    assert f"error: conv2 must be a layer {SMALL} of stride 1, not " in capsys.readouterr().err
    assert command(*arguments[:-1], weights.replace("conv2", "conv9")) == 2
    assert "'conv9' must be one of its layers: " in capsys.readouterr().err


def test_a_real_layers_weights_stand_beside_the_seeded_ones(synth_cache):
    node, coded = load_layer(f"{DIGITS / 'digits-binary.gw'}:conv3")
    found = Comparison(parse_layer("3,32,32,1,1"))
    network_rows(found, "digits", node, coded, cache=synth_cache)
    row = found.rows[0]
    assert [each.architecture for each in found.rows] == ["direct", "grouped"]
    # Of signs by signs, a pixel that is alone sees one tap of each channel: 31 additions of bits, and no others.
    adders = {module.name: module.instances for module in row.report.modules if module.name.startswith("adder")}
    assert sum(adders.values()) <= 32 * 31
    assert coded == 32 * 32 * 9 // 8
    assert found.ratio(row) is None
