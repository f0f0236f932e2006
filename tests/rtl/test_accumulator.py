import pytest
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("settings", [{}, {"acc": 18, "overflow": "wrap"}, {"acc": 48, "align": 24}])
def test_steps_accumulate_and_overflow_as_the_golden_model(settings):
    assert run_bench(BLOCKS["accumulator"], settings, vectors=6000).mismatch is None
