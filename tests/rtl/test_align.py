import pytest
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize(
    ("settings", "vectors"),
    [
        ({}, 2**9 * 9),
        ({"align": 12, "overflow": "wrap"}, 2**9 * 9),
        ({"kind": "mul", "product": 6, "align": 8}, 2**7 * 256),
    ],
    ids=["shift", "wraps", "multiplies"],
)
def test_every_product_and_amount_aligns_as_the_golden_model(settings, vectors):
    result = run_bench(BLOCKS["align"], settings)
    assert result.mismatch is None
    assert result.exhaustive
    assert result.vectors == vectors
