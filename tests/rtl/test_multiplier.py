import pytest
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize(
    "settings", [{}, {"product": 6}, {"product": 7, "overflow": "wrap"}], ids=["8 bits", "saturates", "wraps"]
)
def test_every_product_of_every_mode_is_the_golden_one(settings):
    result = run_bench(BLOCKS["multiplier"], settings)
    assert result.mismatch is None
    assert result.exhaustive
    assert result.vectors == 16 * 16 * 4
