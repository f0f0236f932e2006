from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator
from gatewise import kernels
from gatewise.kernels.shift import focused_format, nearest_codes, signed_digit_passes
from gatewise.rtl import shift
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.icarus import interface_of, simulate
from gatewise.rtl.regress import run_bench
from gatewise.rtl.shift import ShiftPE, ShiftRow, streamed_shift_row
from gatewise.rtl.streamed import Streamed

PRUNED = 0x30
"""What a PE without a weight holds."""


def sums_of(component, words, folder):
    """What a streamed row makes of words, given as fields of its input."""
    interface = interface_of(component)
    record = simulate(component, interface.inputs.pack(words), 1, folder)
    assert record.violation is None
    return interface.outputs.unpack(record.outputs)["sum"]


def registers_of(fmt, count):
    """The registers of a layer, held for `count` words."""
    held = {
        "focused": int(fmt.focused),
        "value_shift": fmt.value_shift,
        "minus_shift": fmt.minus[1],
        "plus_shift": fmt.plus[1],
        "minus_negative": int(fmt.minus[0] < 0),
        "plus_negative": int(fmt.plus[0] < 0),
    }
    return {name: np.full(count, value) for name, value in held.items()}


@pytest.mark.usefixtures("icarus")
def test_every_digit_with_every_code_in_both_sign_modes_is_the_golden_one():
    result = run_bench(BLOCKS["shift_pe"], {})
    assert result.mismatch is None
    assert result.exhaustive
    assert result.vectors == 16 * 256 * 2


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("lanes", [1, 2, 4, 16])
def test_a_row_sums_words_of_any_layer_as_the_golden_model(lanes):
    assert run_bench(BLOCKS["shift"], {"lanes": lanes}, vectors=800).mismatch is None


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_a_free_running_row_takes_a_word_a_cycle_and_states_its_latency(lanes):
    row = ShiftRow(kernels.ShiftRow(lanes))
    assert row.latency == 2 + -(-(lanes.bit_length() - 1) // 2)
    rng = np.random.default_rng(3)
    fmt = kernels.ShiftFormat(2, True, 3, (1, 5), (-1, 12))
    digits = rng.integers(0, 16, (40, lanes))
    codes = fmt.pe_codes(rng.choice([0, 4, 5, 6, 7, 8, 11, 12, 16, 21, 26], (40, lanes)))
    a_signed = rng.integers(0, 2, 40)
    values = shift.digit_values(digits, a_signed[:, None])
    expected = row.parameters.compute(values, codes, fmt).tolist()
    found = []

    async def drive(ctx):
        for name, held in registers_of(fmt, 1).items():
            ctx.set(getattr(row, name), int(held[0]))
        for cycle in range(40 + row.latency):
            if cycle < 40:
                ctx.set(row.digits, digits[cycle].tolist())
                ctx.set(row.codes, codes[cycle].tolist())
                ctx.set(row.a_signed, int(a_signed[cycle]))
            if cycle >= row.latency:
                found.append(ctx.get(row.sum))
            await ctx.tick()

    simulator = Simulator(row)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    assert found == expected


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("midpoint", ["arithmetic", "log"])
def test_the_published_example_in_two_digit_passes(midpoint, tmp_path):
    """The focused paper's poster: weights over 128 about means of -4 and 4, inputs over 8, the sum over 1024."""
    inputs = np.zeros(16, dtype=np.int64)
    inputs[:9] = [1, 1, 2, 12, 35, 4, 2, 6, 3]
    original = np.array([0, -3.81, 1.50, 5.63, 0, -5.69, 4.54, -3.13, 2.44])
    fmt, unit = focused_format(2, 2, (-1, 2), (1, 2))
    normalised = original - np.where(original > 0, 4, -4)
    codes = np.full((2, 16), PRUNED)
    codes[:, :9] = fmt.pe_codes(
        nearest_codes(normalised, fmt, 2, midpoint, component=original > 0, pruned=original == 0)
    )
    # Eight-bit inputs: the lower digit is unsigned, the upper one carries the sign.
    words = {"digits": np.stack([inputs & 15, inputs >> 4]), "codes": codes, "a_signed": np.array([0, 1])}
    row = streamed_shift_row(kernels.ShiftRow(16))
    lower, upper = sums_of(row, {**words, **registers_of(fmt, 2)}, tmp_path)
    assert (lower + (upper << 4)) * 2.0**unit == 45.25
    # The input that has an upper digit meets a pruned weight: nothing of it may come through.
    assert upper == 0


@pytest.mark.usefixtures("icarus")
def test_an_integer_layer_runs_as_passes_of_signed_powers_of_two(tmp_path):
    rng = np.random.default_rng(5)
    weights = rng.integers(-128, 128, 16)
    inputs = rng.integers(-128, 128, 16)
    passes = signed_digit_passes(weights)
    fmt = kernels.ShiftFormat(3)
    words = {
        "digits": np.concatenate([np.tile(digit, (len(passes), 1)) for digit in (inputs & 15, inputs >> 4)]),
        "codes": np.tile(passes, (2, 1)),
        "a_signed": np.repeat([0, 1], len(passes)),
        **registers_of(fmt, 2 * len(passes)),
    }
    words["digits"] &= 15
    sums = sums_of(streamed_shift_row(kernels.ShiftRow(16)), words, tmp_path)
    lower, upper = sums[: len(passes)].sum(), sums[len(passes) :].sum()
    assert lower + (upper << 4) == (weights * inputs).sum()


# Faults.


def result_is_wrong(result):
    """Whether it was an output's value that gave the fault away."""
    return any(f"{output} must be" in (result.mismatch or "") for output in ("value", "minus", "plus", "sum"))


Rewiring = Callable[[Module, Any], dict[str, Any]]
"""From the outer component, what some inputs of the inner one become."""


class Rewired(wiring.Component):
    """A component with some inputs, or all outputs, wired wrongly."""

    def __init__(self, inner, rewiring):
        self.inner, self.rewiring = inner, rewiring
        self.latency = getattr(inner, "latency", 0)
        super().__init__(inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = self.inner
        changed = self.rewiring(m, self)
        for name, member in self.signature.members.items():
            inner, outer = getattr(self.inner, name), getattr(self, name)
            if member.flow == In:
                m.d.comb += inner.eq(changed.get(name, outer))
            else:
                m.d.comb += outer.eq(getattr(self.inner, changed.get(name, name)))
        return m


@dataclass(frozen=True)
class Fault:
    """One wrong wiring of a block."""

    name: str
    rewiring: Rewiring


def with_state(outer, state):
    return Cat(outer.code[:4], state, outer.code[6:])


PE_FAULTS = (
    Fault("pruned counts", lambda m, pe: {"code": with_state(pe, Mux(pe.code[4:6] == 3, 0, pe.code[4:6]))}),
    Fault("zero is pruned", lambda m, pe: {"code": with_state(pe, Mux(pe.code[4:6] == 0, 3, pe.code[4:6]))}),
    Fault("signs swapped", lambda m, pe: {"code": with_state(pe, Cat(pe.code[5], pe.code[4]))}),
    Fault("unsigned digits", lambda m, pe: {"a_signed": 0}),
    Fault("short exponent", lambda m, pe: {"code": Cat(pe.code[:3], 0, pe.code[4:])}),
    Fault("components swapped", lambda m, pe: {"minus": "plus", "plus": "minus"}),
    Fault("component in the top bit", lambda m, pe: {"code": Cat(pe.code[:6], pe.code[7], pe.code[6])}),
)


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("fault", PE_FAULTS, ids=lambda fault: fault.name)
def test_a_wrongly_wired_pe_is_found(fault):
    block = replace(BLOCKS["shift_pe"], component=lambda parameters: Rewired(ShiftPE(parameters), fault.rewiring))
    assert result_is_wrong(run_bench(block, {}))


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_negated", lambda m, value, negative: value),
        ("_negated", lambda m, value, negative: (value ^ negative.replicate(len(value)))[: len(value)].as_signed()),
        ("_shifted", lambda m, value, amount, bits: (value.as_unsigned() << amount)[:bits].as_signed()),
        ("_shifted", lambda m, value, amount, bits: (value << amount)[: bits - 1].as_signed()),
    ],
    ids=["sign ignored", "inverted alone", "not extended", "a bit short"],
)
@pytest.mark.parametrize("block", ["shift_pe", "shift"])
def test_wrong_arithmetic_is_found(block, name, wrong, monkeypatch):
    monkeypatch.setattr(shift, name, wrong)
    settings = {} if block == "shift_pe" else {"lanes": 2}
    assert result_is_wrong(run_bench(BLOCKS[block], settings, vectors=None if block == "shift_pe" else 600))


def late(m, value):
    held = Signal.like(value)
    m.d.sync += held.eq(value)
    return held


ROW_FAULTS = (
    Fault("focused for ever", lambda m, row: {"focused": 1}),
    Fault("never focused", lambda m, row: {"focused": 0}),
    Fault("no value shift", lambda m, row: {"value_shift": 0}),
    Fault("one shift for both means", lambda m, row: {"plus_shift": row.minus_shift}),
    Fault("one sign for both means", lambda m, row: {"minus_negative": row.plus_negative}),
    Fault("sign mode of the word before", lambda m, row: {"a_signed": late(m, row.a_signed)}),
    Fault("codes of the word before", lambda m, row: {"codes": late(m, row.codes)}),
    Fault("registers a cycle late", lambda m, row: {"value_shift": late(m, row.value_shift)}),
    Fault("lanes out of order", lambda m, row: {"codes": Cat(row.codes[1], row.codes[0], *list(row.codes)[2:])}),
)


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("fault", ROW_FAULTS, ids=lambda fault: fault.name)
def test_a_wrongly_wired_row_is_found(fault):
    def faulty(parameters):
        row = Rewired(ShiftRow(parameters), fault.rewiring)
        return Streamed(row, dict.fromkeys(shift.REGISTERS, row.latency - 2))

    result = run_bench(replace(BLOCKS["shift"], component=faulty), {"lanes": 4}, vectors=400)
    assert result_is_wrong(result)
