from dataclasses import replace

import pytest
from amaranth import Const
from gatewise import kernels
from gatewise.rtl import dot
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench

pytestmark = pytest.mark.usefixtures("icarus")


@pytest.mark.parametrize(
    "settings",
    [
        {"lanes": 4, "product": 6, "align": 10, "acc": 16},
        {"lanes": 8, "product": 7, "align": 12, "acc": 18, "overflow": "wrap"},
        {"lanes": 2, "kind": "mul", "acc": 24},
    ],
    ids=["saturates", "wraps", "multiplies"],
)
def test_a_row_accumulates_and_counts_as_the_golden_model(settings):
    assert run_bench(BLOCKS["dot"], settings, vectors=800).mismatch is None


def test_a_row_that_accumulates_bubbles_is_found(monkeypatch):
    advance_together = dot.advance_together

    def always_valid(*arguments):
        advance, _ = advance_together(*arguments)
        return advance, [Const(1), Const(1), Const(1)]

    monkeypatch.setattr(dot, "advance_together", always_valid)
    result = run_bench(BLOCKS["dot"], {"lanes": 2}, vectors=400)
    assert "acc must be" in result.mismatch


def test_a_row_that_clips_in_another_width_is_found():
    def narrower(parameters):
        fmt = replace(parameters.format, align=parameters.format.align - 1)
        return dot.DotProductRow(kernels.DotProductRow(fmt, parameters.lanes, parameters.kind))

    result = run_bench(replace(BLOCKS["dot"], component=narrower), {"lanes": 2}, vectors=400)
    assert result.mismatch is not None
