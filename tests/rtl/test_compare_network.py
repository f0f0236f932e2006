"""Networks on equal silicon: what is chosen is the best that there is, with the cycles that a run has."""

import csv
import io
import json
from pathlib import Path

import gatewise
import numpy as np
import pytest
from gatewise.cli.app import run_app
from gatewise.kernels.errors import CapacityError, FormatError
from gatewise.rtl.compare_network import Goal, compare_networks, default_budget, file_subject, shape_subjects
from gatewise.rtl.compare_report import as_csv, as_latex, as_markdown
from gatewise.sim.engine import EngineConfig
from gatewise.sim.shapes import shaped_network
from gatewise.sim.sizing import Workload, engines

from .engine_models import made_models

DIGITS = Path(gatewise.__file__).parent / "sim" / "digits"
BUDGET = 300_000


@pytest.fixture(scope="module")
def found():
    """A file and two shapes within a budget of gates."""
    subjects = [file_subject(DIGITS / "digits-w4a4.gw"), *shape_subjects("resnet8", ["focused5", "flexor-0.8"])]
    return compare_networks(subjects, Goal("gates", BUDGET), models=made_models())


def test_every_array_that_takes_a_network_has_a_row(found):
    rows = [(row.network, row.sized.engine.array) for row in found.rows]
    assert rows == [
        *(("digits-w4a4", array) for array in ("digit", "fusion")),
        ("resnet8-focused5", "shift"),
        ("resnet8-flexor-0.8", "sign"),
    ]


def test_cycles_are_those_of_a_run_and_images_those_of_the_clock(found):
    images = np.zeros((1, 3, 32, 32), dtype=np.uint8)
    row = next(row for row in found.rows if row.sized.engine.array == "shift")
    ran = shaped_network("resnet8", "focused5").run(images, row.sized.engine)
    assert row.sized.cycles == ran.cycles_per_image
    assert row.sized.bytes_read == sum(layer.bytes_read for layer in ran.layers)
    assert row.images_per_second == 200e6 / ran.cycles_per_image


def test_no_engine_within_the_budget_is_faster(found):
    models, (row, *_) = made_models(), found.rows
    network = gatewise.load(DIGITS / "digits-w4a4.gw")
    work = Workload(lambda engine: network)
    model = models.of("digit", "raw")
    within = [each for each in engines(EngineConfig()) if model.cost(each).gates <= BUDGET]
    assert row.sized.cost.gates <= BUDGET
    assert row.sized.cycles == min(map(work.cycles, within))


def test_the_reverse_gives_the_gates_of_a_speed():
    goal = Goal("images_per_second", 2000, clock_mhz=100)
    found = compare_networks(shape_subjects("resnet8", ["bayesian4"]), goal, arrays=["digit"], models=made_models())
    (row,) = found.rows
    assert row.images_per_second >= 2000
    assert row.sized.cycles < row.sized.target == goal.target_cycles == 50_000
    assert row.sized.gates_at_target == row.sized.cost.gates * row.sized.cycles / 50_000


def test_engines_of_one_size_are_compared_as_they_are():
    goal = Goal.of_size("4x4", 50)
    found = compare_networks(shape_subjects("resnet8", ["focused5-huffman"]), goal, models=made_models())
    plain, row = found.rows
    engine = row.sized.engine
    assert (plain.sized.engine.decoder, engine.decoder) == ("raw", "huffman")
    assert row.sized.bytes_read < plain.sized.bytes_read
    assert (engine.rows, engine.lanes, engine.post_lanes) == (4, 4, 2)
    ran = shaped_network("resnet8", "focused5-huffman").run(np.zeros((1, 3, 32, 32), dtype=np.uint8), engine)
    assert row.images_per_second == 50e6 / ran.cycles_per_image
    assert "engines of 4 x 4, Q 2" in found.notes()[0]
    with pytest.raises(FormatError, match=r"^size must be RxL or RxLxQ, not '4by4'$"):
        Goal.of_size("4by4", 50)
    with pytest.raises(FormatError, match=r"^engine: rows must be a power of two from 4 to 64, not 5$"):
        Goal.of_size("5x4", 50)


def test_alms_bound_the_upper_bound():
    goal = Goal("alms", 50_000)
    found = compare_networks(shape_subjects("resnet8", ["shift"]), goal, models=made_models())
    assert all(row.sized.cost.alms_high <= 50_000 for row in found.rows)


def test_a_budget_that_is_too_small_says_the_least_one():
    least = min(made_models().of("shift", "raw").cost(each).gates for each in engines(EngineConfig(array="shift")))
    with pytest.raises(CapacityError, match=rf"^resnet8-shift: budget must be at least {least:,.0f} gates for a shift"):
        compare_networks(shape_subjects("resnet8", ["shift"]), Goal("gates", 10), models=made_models())


def test_arrays_that_are_over_the_budget_are_named():
    models = made_models()
    sign = min(models.of("digit", "raw").cost(each).gates for each in engines(EngineConfig()))
    found = compare_networks(shape_subjects("resnet8", ["bayesian4"]), Goal("gates", sign - 1), models=models)
    assert "digit" not in [row.sized.engine.array for row in found.rows]
    assert any("budget must be at least" in text and "digit" in text for text in found.notes())


def test_the_default_budget_is_the_default_engines():
    assert default_budget(made_models()) == made_models().of("digit", "raw").cost(EngineConfig()).gates


def test_every_form_has_every_row(found):
    content = json.loads(json.dumps(found.to_json()))
    assert (content["schema"], content["goal"], content["clock_mhz"]) == (1, "gates", 200)
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [int(row["cycles"]) for row in table] == [row["cycles"] for row in content["rows"]]
    for row in found.rows:
        assert f"| {row.network} | {row.sized.engine.array} |" in as_markdown(found)
        assert f"{row.sized.cycles:,}" in as_latex(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "compare must have --layer, or --network or --shape"),
        (
            ("--layer", "3,4,4,8,8", "--shape", "resnet8"),
            "compare must have --layer, or --network or --shape",
        ),
        (("--layer", "3,4,4,8,8", "--gates", "9"), "--gates must be left out with --layer"),
        (("--shape", "resnet8", "--check"), "--check must be left out with --network or --shape"),
        (("--shape", "vgg16"), "shape must be one of resnet8, resnet18, resnet50, not 'vgg16'"),
        (("--shape", "resnet8", "--array", "cube"), "--array must be one of digit, fusion, sign, shift, not 'cube'"),
        (
            ("--shape", "resnet8", "--gates", "9", "--images-per-second", "9"),
            "one goal must be given, not --gates and --images-per-second",
        ),
        (
            ("--network", str(DIGITS / "digits-w4a4.gw"), "--scheme", "shift"),
            "--scheme must come with --layer or --shape: a network's file has its schemes",
        ),
        (
            ("--network", str(DIGITS / "digits-focused5.gw"), "--gates", "9e5", "--array", "digit"),
            'digits-focused5: conv2: scheme focused must run on an engine with array = "shift", not array = "digit"',
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        run_app(["compare", *arguments])
    assert exit.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises((FormatError, FileNotFoundError)):
        file_subject(tmp_path / "none.gw")
