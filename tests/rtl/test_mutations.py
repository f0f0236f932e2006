"""The list of planted faults fits today's sources and reaches every block; the bench tells caught ones from others."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import gatewise
import pytest
from gatewise import ToolMissingError
from gatewise.rtl.cxxrtl import find_compiler
from gatewise.sim.random_cases import ENGINES, random_cases

BENCH = Path(__file__).parents[2] / "bench"
PACKAGE = Path(gatewise.__file__).resolve().parent
BLOCKS = {
    "accumulator", "align", "huffman", "mac", "multiplier", "planes", "requant", "shift", "sign", "tree", "xor_stream",
    "engine/accumulators", "engine/act_memory", "engine/address", "engine/array", "engine/check", "engine/compute",
    "engine/control", "engine/counters", "engine/engine", "engine/format", "engine/gearbox", "engine/huffman_loader",
    "engine/input_sums", "engine/loader", "engine/pipeline", "engine/plane_walk", "engine/prefetch",
    "engine/reader", "engine/registers", "engine/row",
    "engine/row_groups", "engine/rows", "engine/sequencer", "engine/shift_array", "engine/sign_array",
    "engine/stream_walk", "engine/transfer", "engine/xor_loader",
    "engine/post/correct", "engine/post/counters", "engine/post/delay", "engine/post/drain", "engine/post/fetch",
    "engine/post/lanes", "engine/post/pool", "engine/post/records", "engine/post/rescale", "engine/post/sequencer",
    "engine/post/slots", "engine/post/threshold", "engine/post/unit", "engine/post/writer",
}  # fmt: skip
"""What the engine is made of, at least."""


@pytest.fixture
def bench(monkeypatch):
    """The benches' modules, by name."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield __import__
    for name in ("mutation", "mutation_regress", "mutations"):
        sys.modules.pop(name, None)


def test_every_text_occurs_once_and_the_change_is_one_line(bench):
    mutations = bench("mutations").MUTATIONS
    names = Counter(mutation.name for mutation in mutations)
    assert max(names.values()) == 1
    changes = Counter((mutation.file, mutation.old, mutation.new) for mutation in mutations)
    assert max(changes.values()) == 1
    wrong = {
        mutation.name: (PACKAGE / mutation.file).read_text(encoding="utf-8").count(mutation.old)
        for mutation in mutations
        if (PACKAGE / mutation.file).read_text(encoding="utf-8").count(mutation.old) != 1
    }
    assert wrong == {}
    assert all("\n" not in mutation.old + mutation.new and mutation.old != mutation.new for mutation in mutations)


def test_every_block_of_the_engine_has_one(bench):
    mutations = bench("mutations")
    blocks = mutations.engine_blocks(PACKAGE)
    assert {f"rtl/{block}.py" for block in BLOCKS} <= blocks
    assert {mutation.file for mutation in mutations.MUTATIONS} == blocks


def test_there_are_enough_of_every_kind(bench):
    mutations = bench("mutations").MUTATIONS
    kinds = Counter(mutation.kind for mutation in mutations)
    assert len(mutations) >= 24
    assert kinds["cycles"] >= 5
    assert kinds["counters"] >= 3
    assert set(kinds) == set(bench("mutation_regress").KINDS)


def test_every_array_and_decoder_has_its_own(bench):
    mutations = bench("mutations").MUTATIONS
    assert {mutation.build for mutation in mutations} == set(bench("mutation_regress").CASES) <= set(ENGINES)
    assert {(engine.array, engine.decoder) for engine in ENGINES.values()} - {
        (ENGINES[mutation.build].array, ENGINES[mutation.build].decoder) for mutation in mutations
    } <= {("shift", "huffman"), ("fusion", "huffman")}
    sign, shift = (
        [mutation for mutation in mutations if ENGINES[mutation.build].array == kind] for kind in ("sign", "shift")
    )
    assert sum(mutation.block in ("sign", "engine/sign_array") for mutation in sign) >= 5
    assert sum(mutation.block in ("planes", "engine/post/drain", "engine/post/records") for mutation in sign) >= 5
    assert sum(mutation.block in ("shift", "engine/shift_array") for mutation in shift) >= 5
    fused = [mutation for mutation in mutations if ENGINES[mutation.build].array == "fusion"]
    assert sum(mutation.block in ("fusion", "engine/fusion_array", "engine/fusion_operands") for mutation in fused) >= 8


def test_random_cases_of_an_engine_run_on_it(bench):
    regress = bench("mutation_regress")
    for name in regress.CASES:
        engine = ENGINES[name]
        draw = regress._Narrow(3, engine)
        assert {case.build for case in random_cases(3, 3, draw)} == {name}


def test_a_text_that_is_gone_is_an_error_in_one_line(bench, tmp_path):
    first = bench("mutations").MUTATIONS[0]
    (tmp_path / first.file).parent.mkdir(parents=True)
    (tmp_path / first.file).write_text("nothing of it")
    with pytest.raises(ValueError, match=f"^{first.name}: the text must occur once in {first.file}, not 0 times$"):
        first.apply(tmp_path)


def outcome(first=None, **different):
    """What a worker reports."""
    runs = {kind: different.get(kind, 0) for kind in ("stops", "digits", "counters", "cycles")}
    return {"first": first, "first_kind": next(iter(different), None), "different": runs}


@pytest.mark.parametrize(
    ("kind", "found", "verdict"),
    [
        ("digits", outcome("x", digits=1), None),
        ("digits", outcome("x", digits=1, counters=1, cycles=1), None),
        ("digits", outcome("x", cycles=3), "must differ in digits, not in cycles"),
        ("digits", outcome(), "SURVIVES"),
        ("cycles", outcome("x", cycles=9), None),
        ("cycles", outcome("x", cycles=9, digits=1), "must differ in cycles, not in cycles and digits"),
        ("cycles", outcome("x", stops=1, cycles=1), "must differ in cycles, not in cycles and stops"),
        ("counters", outcome("x", counters=2), None),
        ("counters", outcome("x", counters=2, cycles=1), "must differ in counters, not in counters and cycles"),
        ("stops", {"error": "the RTL must differ"}, "error: the RTL must differ"),
    ],
)
def test_what_differs_must_be_what_the_list_says(bench, kind, found, verdict):
    mutations = bench("mutations")
    mutation = mutations.Mutation("name", "rtl/engine/row.py", "old", "new", kind, "a fault")
    assert bench("mutation")._verdict(mutation, found) == verdict


def call(*arguments):
    """Run the bench in a process of its own."""
    return subprocess.run(
        [sys.executable, str(BENCH / "mutation.py"), *arguments], capture_output=True, text=True, timeout=900
    )


def test_an_unknown_name_is_an_error_in_one_line():
    done = call("no-such-fault")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: a mutation's name must be one of --list, not no-such-fault\n"


def test_the_unchanged_engine_passes_and_a_fault_is_caught():
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    done = call("control-cycles")
    assert done.returncode == 0, done.stderr
    assert "unchanged engine 4x4/8: passes, " in done.stderr
    assert "control-cycles: residual (saturate), image 0, layer input: cycles of the layer: expected " in done.stderr
    assert "1 of 1 mutations caught, in 1 blocks, 0 in counters alone, 1 in cycles alone; " in done.stdout
    assert "cycles alone, in " in done.stdout
