"""The guide to the blocks has every block, and its figures are the pinned Yosys's of the RTL of today."""

import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from gatewise.rtl.align import Aligner
from gatewise.rtl.blocks import BLOCKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "blocks.md").read_text(encoding="utf-8")
LARGE = {"correction", "dot", "fusion", "huffman", "huffman_bank", "planes", "scale", "shift", "statistics", "unrolled"}
"""Blocks whose synthesis takes long: their RTL must be what was counted, and `make regress` counts it again."""
AMARANTH = "0.5.10"


@pytest.fixture(scope="module")
def page():
    """The module that writes the page."""
    sys.path.insert(0, str(ROOT / "bench"))
    yield __import__("blocks")
    sys.path.remove(str(ROOT / "bench"))
    sys.modules.pop("blocks", None)


@pytest.fixture(scope="module")
def counts(page):
    """The stored counts, by block and parameters."""
    return page.stored()[1]


@pytest.fixture
def rows(page):
    """The rows of figures of the page, by block and parameters."""
    return {(row.block, row.parameters): row for row in page.rows(PAGE)}


def stale(rows, counts):
    """The rows whose RTL is not what their figures were counted of."""
    if version("amaranth") != AMARANTH:
        pytest.skip(f"the stored hashes are of RTL by Amaranth {AMARANTH}, not {version('amaranth')}")
    return [row.key for row in rows if row.rtl != counts[row.key].rtl]


def test_every_block_has_figures_at_its_defaults(rows):
    assert {block for block, parameters in rows if parameters == "defaults"} == set(BLOCKS)
    assert set(BLOCKS) > LARGE


def test_the_page_is_written_from_the_stored_counts(page, counts):
    assert page.written(PAGE, counts) == PAGE
    assert [row.key for row in page.rows(PAGE)] == list(counts)
    one = replace(counts["align defaults"], depth=12)
    changed = page.written(PAGE, {**counts, "align defaults": one}).splitlines()
    assert sum(new != old for new, old in zip(changed, PAGE.splitlines(), strict=True)) == 2


def test_with_defaults_both_mappings_leave_the_same_registers(counts):
    defaults = [counts[f"{block} defaults"] for block in BLOCKS]
    assert [count.registers for count in defaults] == [count.flip_flops for count in defaults]


def test_the_counts_are_of_todays_tool_and_flows(page, pinned_yosys):
    assert page.stored()[0] == page.tools()


def test_the_counts_are_of_todays_rtl(rows, counts):
    assert not stale(rows.values(), counts), "python bench/blocks.py"


def test_a_block_that_changes_without_its_counts_is_found(rows, counts, monkeypatch):
    narrow = BLOCKS["align"].parameters(align=15)
    monkeypatch.setitem(BLOCKS, "align", replace(BLOCKS["align"], component=lambda parameters: Aligner(narrow)))
    those = [row for row in rows.values() if row.block in ("align", "tree")]
    assert stale(those, counts) == [row.key for row in those if row.block == "align"]
    assert len({row.block for row in those}) == 2


@pytest.mark.parametrize("block", sorted(set(BLOCKS) - LARGE))
def test_figures_are_what_synthesis_counts(block, rows, counts, pinned_yosys):
    row = rows[block, "defaults"]
    assert row.count() == counts[row.key]
