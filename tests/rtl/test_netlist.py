"""Mapped netlists: what their gates give is what the component gives, and changes are those counted by hand."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from gatewise.kernels.errors import FormatError
from gatewise.rtl.blocks import block_named
from gatewise.rtl.netlist import KINDS, Netlist
from gatewise.rtl.verilog import to_rtlil


class Counter(wiring.Component):
    """Four bits and their complement."""

    def __init__(self):
        super().__init__({"enable": In(1), "count": Out(4), "other": Out(4)})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += self.count.eq(self.count + 1)
        m.d.comb += self.other.eq(~self.count)
        return m


def bits(values, width):
    return np.asarray(values)[:, None] >> np.arange(width) & 1


def test_every_kind_of_gate_is_its_truth_table():
    ports = {name: ["input", [at + 2]] for at, name in enumerate("ab")}
    gates = [[kind, 2, 3, at + 4] for at, kind in enumerate(KINDS)]
    ports |= {kind: ["output", [at + 4]] for at, kind in enumerate(KINDS)}
    netlist = Netlist({"ports": ports, "gates": gates, "flip_flops": [], "init": []})
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    found = netlist.run({"a": a[:, None], "b": b[:, None]}).outputs
    expected = {"AND": a & b, "NAND": 1 - (a & b), "OR": a | b, "NOR": 1 - (a | b), "XOR": a ^ b, "XNOR": 1 - (a ^ b)}
    for kind, values in (expected | {"NOT": 1 - a}).items():
        assert found[kind][:, 0].tolist() == values.tolist(), kind


def test_a_counters_flip_flops_and_inverters_change_as_counted_by_hand(synth_cache):
    netlist = Netlist.of(to_rtlil(Counter(), "counter"), "counter", synth_cache)
    assert netlist.flip_flops == 4
    cycles = 161
    inputs = {"enable": np.ones((cycles, 1)), "rst": np.zeros((cycles, 1))}
    run = netlist.run(inputs)
    assert (run.outputs["count"] == bits(np.arange(cycles), 4)).all()
    assert (run.outputs["other"] == 1 - bits(np.arange(cycles), 4)).all()
    assert run.flip_flop_changes == 10 * (16 + 8 + 4 + 2)
    still = netlist.run({**inputs, "enable": np.zeros((cycles, 1))})
    assert still.flip_flop_changes == still.gate_changes == still.inverter_changes == 0


def test_a_multipliers_gates_give_its_products(synth_cache):
    _, component = block_named("multiplier").create({})
    netlist = Netlist.of(to_rtlil(component, "multiplier"), "multiplier", synth_cache)
    rng = np.random.default_rng(0)
    names = [name for name in netlist.ports("input") if name not in ("rst",)]
    values = {name: rng.integers(0, 2, (500, netlist.ports("input")[name])) for name in netlist.ports("input")}
    assert {"a", "w", "a_signed", "w_signed"} == set(names)
    run = netlist.run(values)
    signed = {name: values[f"{name}_signed"][:, 0] for name in "aw"}
    number = {name: values[name] @ (1 << np.arange(4)) - (16 * signed[name] * values[name][:, 3]) for name in "aw"}
    product = number["a"] * number["w"]
    assert (run.outputs["product"] == bits(product & 255, 8)).all()
    assert 0 < run.gate_changes < 500 * netlist.two_input


def test_a_loop_of_gates_and_wrong_inputs_are_refused():
    ports = {"a": ["input", [2]], "y": ["output", [3]]}
    with pytest.raises(FormatError, match="must drive all nets that it reads, not so 1 of them"):
        Netlist({"ports": ports, "gates": [["AND", 2, 9, 3]], "flip_flops": [], "init": []})
    loop = Netlist({"ports": ports, "gates": [["AND", 2, 4, 3], ["OR", 3, 2, 4]], "flip_flops": [], "init": []})
    with pytest.raises(AssertionError, match="no loop"):
        _ = loop.gates
    netlist = Netlist({"ports": ports, "gates": [["NOT", 2, 2, 3]], "flip_flops": [], "init": []})
    with pytest.raises(FormatError, match="inputs must be a, not b"):
        netlist.run({"b": np.zeros((2, 1))})
    with pytest.raises(FormatError, match=r"a must be bits of shape \(cycles, 1\)"):
        netlist.run({"a": np.zeros((2, 3))})
