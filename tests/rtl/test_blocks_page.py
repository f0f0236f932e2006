"""The guide to the blocks has every block, and its figures are the pinned Yosys's."""

import sys
from pathlib import Path

import pytest
from gatewise.rtl.blocks import BLOCKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "blocks.md").read_text(encoding="utf-8")
LARGE = {"dot", "fusion", "huffman_bank", "planes", "shift", "scale", "correction"}
"""Blocks whose synthesis takes long: these are counted by `bench/blocks.py` alone."""


@pytest.fixture
def rows(monkeypatch):
    """The rows of figures of the page, by block and parameters."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    yield {(row.block, row.parameters): row for row in __import__("blocks").rows(PAGE)}
    sys.modules.pop("blocks", None)


def test_every_block_has_figures_at_its_defaults(rows):
    assert {block for block, parameters in rows if parameters == "defaults"} == set(BLOCKS)
    assert set(BLOCKS) > LARGE


@pytest.mark.parametrize("block", sorted(set(BLOCKS) - LARGE))
def test_figures_are_what_synthesis_counts(block, rows, pinned_yosys):
    row = rows[block, "defaults"]
    assert row.count() == PAGE.splitlines()[row.line]


def test_another_figure_is_found(rows, pinned_yosys):
    row = rows["multiplier", "defaults"]
    changed = PAGE.splitlines()[row.line].replace("90", "91", 1)
    assert row.count() != changed
