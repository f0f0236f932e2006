import json
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from gatewise.kernels.errors import CapacityError, FormatError, MismatchError, UnsupportedError
from gatewise.quant import selection
from gatewise.quant.selection import Candidates

SIZES = 50


def seeded(seed: int, blocks: int, bits: tuple[int, ...] = (1, 2, 4, 8)) -> Candidates:
    """Blocks of random size, spread and sensitivity, with the errors of uniform rounding."""
    source = np.random.default_rng(seed)
    sensitivity = np.exp(source.normal(0, 2, blocks))
    weights = source.integers(500, 40_000, blocks)
    steps = np.exp(source.normal(0, 0.5, (blocks, 1))) / (2.0 ** np.array(bits) - 1)
    error = (sensitivity * weights)[:, None] * steps**2 / 12
    names = [f"block{block}" for block in range(blocks)]
    return Candidates.of(names, bits, error, weights[:, None] * np.array(bits), sensitivity)


def published(folder: Path, network: str) -> Candidates:
    """Traces and weight errors that were published with HAWQ-V3."""
    data = json.loads((folder / "hawq" / "sensitivity.json").read_text())[network]
    trace, weights = np.array(data["average_hessian_trace"]), np.array(data["parameters"])
    error = np.stack([data["weight_error_4bit_squared_l2"], data["weight_error_8bit_squared_l2"]], axis=1)
    names = [str(layer) for layer in range(len(trace))]
    return Candidates.of(names, (4, 8), trace[:, None] * error, weights[:, None] * np.array([4, 8]), trace)


def sizes(candidates: Candidates) -> list[int]:
    return [int(size) for size in np.linspace(*candidates.sizes, SIZES)]


def assert_enumeration_is_the_program(candidates: Candidates) -> list[int]:
    """At 50 sizes, with the ordering; returns the sizes where the program without it has less error."""
    front, free = candidates.front(search="enumeration"), candidates.front(ordered=False)
    lower = []
    for size in sizes(candidates):
        chosen, program = front.at(size), candidates.program(size, ordered=True)
        assert program.error == chosen.error
        assert program.cost <= size
        unordered = candidates.program(size)
        assert unordered.error == free.at(size).error <= chosen.error
        lower += [size] if unordered.error < chosen.error else []
    return lower


@pytest.mark.parametrize(("network", "lower"), [("resnet18", 15), ("resnet50", 39)])
def test_enumeration_is_the_integer_program_on_published_sensitivities(
    network: str, lower: int, data_folder: Path
) -> None:
    assert len(assert_enumeration_is_the_program(published(data_folder, network))) == lower


@pytest.mark.parametrize("seed", [0, 1])
def test_enumeration_is_the_integer_program_on_30_seeded_blocks(seed: int) -> None:
    candidates = seeded(seed, 30)
    assert candidates.settings(ordered=True) == 5456
    assert len(assert_enumeration_is_the_program(candidates)) > 30


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_dynamic_programming_finds_the_enumerated_front(seed: int, ordered: bool) -> None:
    # Few different sizes: many settings of one cost, and blocks of one sensitivity.
    source = np.random.default_rng(seed)
    cost = source.integers(1, 6, (6, 3)) * 4
    error = source.integers(0, 9, (6, 3)).astype(float)
    candidates = Candidates.of("abcdef", (2, 4, 8), error, cost, source.integers(0, 3, 6).astype(float))
    fronts = [candidates.front(ordered, search) for search in ("enumeration", "dynamic")]
    for front in fronts:
        assert np.array_equal(front.cost, fronts[0].cost)
        assert np.array_equal(front.error, fronts[0].error)
        assert np.array_equal(np.stack(candidates.totals(front.levels)), [front.cost, front.error])
        if ordered:
            assert (np.diff(front.levels[:, candidates.order], axis=1) >= 0).all()
    assert (np.diff(fronts[0].cost) > 0).all()
    assert (np.diff(fronts[0].error) < 0).all()


def test_a_setting_dropped_from_the_front_is_seen() -> None:
    front = seeded(3, 8).front()
    size = int(front.cost[5])
    assert front.at(size).error == front.candidates.program(size, ordered=True).error
    kept = np.arange(len(front)) != 5
    planted = selection.Front(front.candidates, front.levels[kept], front.cost[kept], front.error[kept])
    assert planted.at(size).error != front.candidates.program(size, ordered=True).error


def test_more_sensitive_blocks_never_have_fewer_bits() -> None:
    candidates = seeded(5, 12)
    chosen = candidates.front().at(sum(candidates.sizes) // 2)
    bits = [chosen.bits[candidates.names[block]] for block in candidates.order]
    assert bits == sorted(bits)
    assert len(set(bits)) > 1
    assert chosen.omega == pytest.approx(chosen.error * candidates.unit)


def test_the_front_of_many_settings_is_found_without_enumerating_them() -> None:
    candidates = seeded(2, 40)
    assert candidates.settings(ordered=False) == 4**40
    with pytest.raises(UnsupportedError, match="enumeration must be of at most 262144 settings"):
        candidates.front(ordered=False, search="enumeration")
    assert len(candidates.front(ordered=False)) > len(candidates.front())


def test_the_greatest_error_of_a_size_is_the_worst_of_the_ordering() -> None:
    candidates = seeded(4, 10)
    chosen = candidates.front().at(candidates.sizes[1] // 2)
    worst = candidates.highest(candidates.sizes[1] // 2, chosen.cost)
    cost, error = candidates.totals(candidates.enumerate())
    within = (cost >= chosen.cost) & (cost <= candidates.sizes[1] // 2)
    assert worst.error == error[within].max() >= chosen.error
    with pytest.raises(CapacityError, match="a setting must cost 9 to 8, and none in the ordering does"):
        candidates.highest(8, 9)


def test_errors_are_whole_numbers_of_a_fine_unit() -> None:
    candidates = Candidates.of("ab", (2, 4), np.array([[1.0, 1e-9], [3.0, 0.0]]), np.ones((2, 2), int), np.zeros(2))
    assert candidates.unit == 2.0**-57
    assert candidates.error.max() < 1 << 60
    np.testing.assert_allclose(candidates.error[0] * candidates.unit, [1.0, 1e-9], rtol=1e-8)


def test_a_solution_that_breaks_the_budget_is_no_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = seeded(1, 3)

    class Found:
        x, success, message = np.tile([0, 0, 0, 1.0], 3), True, "planted"

    monkeypatch.setattr(scipy.optimize, "milp", lambda *_, **__: Found)
    with pytest.raises(MismatchError, match="HiGHS must end in a setting that costs at most"):
        candidates.program(candidates.sizes[0])


def test_wrong_candidates_and_budgets_are_refused() -> None:
    ones = np.ones((2, 2))
    for change, message in (
        ({"bits": (4, 2)}, "candidates must be at least one block and rising widths"),
        ({"error": ones[:1]}, r"errors and costs must have shape \(2, 2\), not \(1, 2\)"),
        ({"error": -ones}, "errors must be finite and not negative"),
        ({"cost": ones}, "costs must be integers, not negative"),
    ):
        whole = {"names": "ab", "bits": (2, 4), "error": ones, "cost": ones.astype(int), "sensitivity": ones[0]}
        with pytest.raises(FormatError, match=message):
            Candidates.of(**(whole | change))
    candidates = seeded(0, 4)
    for least in (candidates.front().at, candidates.program):
        with pytest.raises(CapacityError, match=f"budget must be at least {candidates.sizes[0]}, not 3"):
            least(3)
