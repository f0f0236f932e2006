"""The fused array word by word against golden rows, and the input sums beside it."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig, MacFormat
from gatewise.kernels.align import alignment_factors
from gatewise.kernels.fusion import FUSION_MODES, FusionRow
from gatewise.rtl import fusion as fusion_module
from gatewise.rtl.engine import array as array_module
from gatewise.rtl.engine import fusion_array as fusion_array_module
from gatewise.rtl.engine import input_sums as sums_module
from gatewise.rtl.engine.array import MacArray
from gatewise.rtl.engine.fusion_array import FusionArray

WORDS = 20
SINGLE = ("w_high", "a_signed", "w_signed", "multiply", "depthwise", "diagonal", "mode")


def vectors(config, seed, mode, depthwise=0):
    """One activation word after another, each with a tile and signs of its own; narrow operands are not aligned."""
    rng = np.random.default_rng(seed)
    rows, lanes = config.rows, config.lanes
    multiply = int(rng.integers(2)) if not mode else 0
    amounts = rng.integers(256 if multiply else 9, size=(WORDS, lanes))
    digits = rng.integers(256, size=(WORDS, lanes))
    digits[:2] = [[255] * lanes, [0x88] * lanes]
    return {
        "digits": digits,
        "codes": rng.integers(256, size=(WORDS, rows, lanes)),
        "amounts": amounts if not mode else np.zeros_like(amounts),
        "sum_mask": rng.integers(2, size=(WORDS, 4 * lanes)),
        "w_high": rng.integers(2, size=WORDS),
        "a_signed": rng.integers(2, size=WORDS),
        "w_signed": rng.integers(2, size=WORDS),
        "multiply": np.full(WORDS, multiply),
        "depthwise": np.full(WORDS, depthwise),
        "diagonal": rng.integers(max(1, lanes // rows), size=WORDS),
        "mode": np.full(WORDS, mode),
    }


def expected(config, given):
    mode, lanes = FUSION_MODES[given["mode"][0]], config.lanes
    kind = "mul" if given["multiply"][0] else "shift"
    row = FusionRow(lanes, config.mac, kind)
    size = min(config.rows, lanes)
    found = []
    for t in range(WORDS):
        a_signed, amount = bool(given["a_signed"][t]), given["amounts"][t]
        step = row.compute(
            given["digits"][t],
            given["codes"][t],
            amount,
            mode,
            bool(given["w_high"][t]),
            a_signed,
            bool(given["w_signed"][t]),
        )
        sums = np.zeros(lanes, dtype=int)
        for lane in range(mode.lanes):
            code = given["digits"][t] >> mode.a_bits * lane & (1 << mode.a_bits) - 1
            code = code - (code >> mode.a_bits - 1 << mode.a_bits) if a_signed else code
            sums += code * given["sum_mask"][t][mode.channels(lanes)[:, lane]]
        sums = sums * alignment_factors(kind, amount)
        own = [sums[given["diagonal"][t] * size + at] for at in range(size)]
        counts = step.product_overflows.tolist(), step.align_overflows.tolist()
        found.append((step.sum.tolist(), *counts, own if given["depthwise"][t] else [sums.sum()] * size))
    return found


def pack(values, bits):
    return sum(int(value) << bits * at for at, value in enumerate(np.asarray(values).reshape(-1)))


def found(config, given, array=FusionArray):
    dut = array(config)
    results = []

    async def bench(ctx):
        for t in range(WORDS + dut.latency):
            if t < WORDS:
                for row, codes in enumerate(given["codes"][t]):
                    ctx.set(dut.codes[row].as_value(), pack(codes, 8))
                ctx.set(dut.digits.as_value(), pack(given["digits"][t], 8))
                ctx.set(dut.amounts.as_value(), pack(given["amounts"][t], 8))
                ctx.set(dut.sum_mask, pack(given["sum_mask"][t], 1))
                for name in SINGLE:
                    ctx.set(getattr(dut, name), int(given[name][t]))
            if t >= dut.latency:
                ports = (dut.row_sums, dut.product_overflows, dut.align_overflows, dut.input_sums)
                results.append(tuple([ctx.get(value) for value in port] for port in ports))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


def config_of(rows, lanes, **widths):
    return EngineConfig(rows=rows, lanes=lanes, array="fusion", mac=MacFormat(acc=48, **widths))


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize(
    ("rows", "lanes", "widths"),
    [
        (4, 4, {"product": 6, "align": 10, "overflow": "wrap"}),
        (4, 8, {"product": 7, "align": 8}),
        (8, 4, {"align": 12}),
    ],
)
def test_sums_and_counts_are_the_golden_row_s_one_word_a_cycle(rows, lanes, widths, mode):
    config = config_of(rows, lanes, **widths)
    given = vectors(config, mode, mode)
    results = expected(config, given)
    assert found(config, given) == results
    assert (sum(sum(result[1]) + sum(result[2]) for result in results) > 0) == (not mode)


def test_a_depthwise_row_has_its_own_input_sum():
    config = config_of(4, 8)
    given = vectors(config, 9, 0, depthwise=1)
    assert found(config, given) == expected(config, given)


def test_the_latency_is_that_of_the_digit_array():
    for lanes in (4, 8, 16, 64):
        unit, digit = FusionArray(config_of(4, lanes)), MacArray(EngineConfig(rows=4, lanes=lanes))
        unit._MustUse__used = digit._MustUse__used = True
        assert unit.latency == digit.latency


FAULTS = {
    "mode of the sums": (fusion_array_module, '(*MacArray._sum_ports, "mode")', "MacArray._sum_ports"),
    "mode of the rows": (fusion_array_module, "row.mode.eq(self.mode)", "row.mode.eq(0)"),
    "mask of four-bit lanes": (sums_module, ".replicate(mode.a_bits // SLICE_BITS)", ""),
    "lanes of one row": (sums_module, "mode.channels(self.config.lanes)[pe]", "mode.channels(self.config.lanes)[0]"),
    "digits": (sums_module, "Mux(self.mode[0], apart, ", "Mux(0, apart, "),
    "low code unsigned": (sums_module, "low[-1] & self.a_signed, high", "0 & low[-1], high"),
    "one half": (sums_module, "return halves[0] + halves[1]", "return halves[0]"),
    "upper digit in 2x4": (fusion_module, "upper = settled(m, self.w_high & ~self.mode.any())", "upper = self.w_high"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(planted, monkeypatch, fault):
    module, old, new = FAULTS[fault]
    names = planted(module, old, new)
    for user, name in ((array_module, "InputSums"), (fusion_array_module, "FusionRow")):
        if names.get(name) and names[name].__module__ == module.__name__:
            monkeypatch.setattr(user, name, names[name])
    config = config_of(4, 4)
    cases = [vectors(config, mode, mode) for mode in range(4)]
    unit = names.get("FusionArray", FusionArray)
    assert any(found(config, given, unit) != expected(config, given) for given in cases)
