"""Random networks through the whole engine in compiled RTL: every digit, counter and cycle as the simulator has it."""

from gatewise.rtl.engine.cosim import compile_engine
from gatewise.rtl.engine.random_regress import regress_random
from gatewise.sim.random_cases import ENGINES, TIED

CASES, SEED = 60, 23
"""They reach every engine."""


def test_random_networks_run_in_rtl_as_in_the_simulator():
    result = regress_random(CASES, lambda name: compile_engine(ENGINES[name], formats=name != TIED), seed=SEED)
    assert [case.mismatch for case in result.failed] == []
    assert set(result.build_seconds) == set(ENGINES)
    assert result.overflowing >= CASES // 5
    assert CASES // 5 <= result.stalled <= CASES * 4 // 5
    assert sum(case.cycles for case in result.cases) > 100_000
