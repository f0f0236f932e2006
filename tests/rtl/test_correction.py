import pytest
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("settings", [{}, {"acc": 12, "fraction": 8}])
def test_the_correction_is_exact_and_saturates_as_the_golden_model(settings):
    assert run_bench(BLOCKS["correction"], settings, vectors=1000).mismatch is None
