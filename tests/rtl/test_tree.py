import pytest
from amaranth import Signal
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench
from gatewise.rtl.tree import balanced_sum


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize(
    ("settings", "exhaustive"), [({"lanes": 2, "bits": 8}, True), ({}, False), ({"lanes": 1, "bits": 4}, True)]
)
def test_the_tree_adds_exactly(settings, exhaustive):
    result = run_bench(BLOCKS["tree"], settings, vectors=None if exhaustive else 4000)
    assert result.mismatch is None
    assert result.exhaustive is exhaustive


@pytest.mark.parametrize(("terms", "bits"), [(1, 1), (2, 2), (15, 5), (16, 5)])
def test_a_balanced_sum_grows_by_one_bit_a_level(terms, bits):
    assert len(balanced_sum([Signal() for _ in range(terms)])) == bits
