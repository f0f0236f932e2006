import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.align import alignment_factors
from gatewise.kernels.dot import DotProductRow
from gatewise.kernels.mac import MacFormat
from gatewise.rtl.engine import array as array_module
from gatewise.rtl.engine import input_sums as sums_module
from gatewise.rtl.engine import row as row_module
from gatewise.rtl.engine.array import MacArray
from gatewise.rtl.multiplier import digit_values

WORDS = 60


def vectors(config, seed, depthwise):
    """One activation word after another, each with a tile and modes of its own."""
    rng = np.random.default_rng(seed)
    rows, lanes = config.rows, config.lanes
    multiply = rng.integers(2)
    return {
        "digits": rng.integers(16, size=(WORDS, lanes)),
        "codes": rng.integers(256, size=(WORDS, rows, lanes)),
        "amounts": rng.integers(256 if multiply else 9, size=(WORDS, lanes)),
        "sum_mask": rng.integers(2, size=(WORDS, lanes)),
        "w_high": rng.integers(2, size=WORDS),
        "a_signed": rng.integers(2, size=WORDS),
        "w_signed": rng.integers(2, size=WORDS),
        "multiply": np.full(WORDS, multiply),
        "depthwise": np.full(WORDS, depthwise),
        "diagonal": rng.integers(max(1, lanes // rows), size=WORDS),
    }


def expected(config, given):
    kind = "mul" if given["multiply"][0] else "shift"
    row = DotProductRow(config.mac, config.lanes, kind)
    found = []
    for t in range(WORDS):
        a = digit_values(given["digits"][t], given["a_signed"][t])
        w = digit_values(given["codes"][t] >> 4 * given["w_high"][t] & 15, given["w_signed"][t])
        amount = given["amounts"][t]
        unsigned = not (given["a_signed"][t] or given["w_signed"][t])
        step = row.compute(np.zeros(config.rows, dtype=np.int64), a[None], w, amount[None], unsigned, 0)
        # The widest accumulator holds every row sum: what it holds after one step is the sum.
        digits = a * alignment_factors(kind, amount) * given["sum_mask"][t]
        size = min(config.rows, config.lanes)
        sums = [digits.sum()] * size
        if given["depthwise"][t]:
            sums = [digits[given["diagonal"][t] * size + row] for row in range(size)]
        found.append((step.acc.tolist(), step.product_overflows.tolist(), step.align_overflows.tolist(), sums))
    return found


def pack(values, bits):
    return sum((int(value) & (1 << bits) - 1) << bits * at for at, value in enumerate(np.asarray(values).reshape(-1)))


def found(config, given, array=MacArray):
    dut = array(config)
    results = []

    async def bench(ctx):
        for t in range(WORDS + dut.latency):
            if t < WORDS:
                for row, codes in enumerate(given["codes"][t]):
                    ctx.set(dut.codes[row].as_value(), pack(codes, 8))
                for name, bits in (("digits", 4), ("amounts", 8), ("sum_mask", 1)):
                    port = getattr(dut, name)
                    ctx.set(port if name == "sum_mask" else port.as_value(), pack(given[name][t], bits))
                for name in ("w_high", "a_signed", "w_signed", "multiply", "depthwise", "diagonal"):
                    ctx.set(getattr(dut, name), int(given[name][t]))
            if t >= dut.latency:
                rows = range(config.rows)
                results.append(
                    (
                        [ctx.get(dut.row_sums[row]) for row in rows],
                        [ctx.get(dut.product_overflows[row]) for row in rows],
                        [ctx.get(dut.align_overflows[row]) for row in rows],
                        [ctx.get(total) for total in dut.input_sums],
                    )
                )
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


@pytest.mark.parametrize(
    ("rows", "lanes", "widths"),
    [
        (4, 4, {"align": 10}),
        (4, 4, {"product": 6, "align": 10, "overflow": "wrap"}),
        (4, 8, {"product": 7, "align": 12}),
        (4, 16, {}),
        (8, 4, {"align": 10}),
    ],
)
@pytest.mark.parametrize(("seed", "depthwise"), [(0, 0), (3, 1), (4, 1)])
def test_sums_and_counts_are_the_golden_row_s_one_word_a_cycle(rows, lanes, widths, seed, depthwise):
    config = EngineConfig(rows=rows, lanes=lanes, mac=MacFormat(**{"acc": 48, **widths}))
    given = vectors(config, seed, depthwise)
    results = expected(config, given)
    assert found(config, given) == results
    if widths:
        assert sum(sum(result[2]) for result in results) > 0


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (row_module, "Mux(self.w_high, ", "Mux(~self.w_high, "),
        (row_module, "unsigned.eq(~(self.a_signed | self.w_signed))", "unsigned.eq(0)"),
        (row_module, "flag.eq(Cat(multiplier.overflow, flag[0]))", "flag.eq(multiplier.overflow.replicate(2))"),
        (array_module, "m.d.sync += [factor.eq(", "m.d.comb += [factor.eq("),
        (sums_module, "Cat(raw, raw[-1] & self.a_signed)", "raw"),
        (sums_module, "Mux(self.sum_mask[lane], ", "Mux(1, "),
        (sums_module, "Mux(self.depthwise, own, total)", "total"),
        (sums_module, "Mux(diagonal == place, ", "Mux(0, "),
        (sums_module, "delayed(m, self.diagonal, 2,", "delayed(m, self.diagonal, 1,"),
    ],
    ids=[
        "other digit",
        "always signed",
        "early flag",
        "amounts too early",
        "unsigned sum",
        "mask ignored",
        "one sum",
        "one diagonal",
        "early",
    ],
)
def test_a_planted_fault_is_found(planted, monkeypatch, module, old, new):
    config = EngineConfig(rows=4, lanes=8, mac=MacFormat(product=6, align=10, acc=48))
    given = vectors(config, 0, int("Mux(1, " not in new))
    names = planted(module, old, new)
    for used, name in ((row_module, "MacRow"), (sums_module, "InputSums")):
        if module is used:
            monkeypatch.setattr(array_module, name, names[name])
    assert found(config, given, names.get("MacArray", MacArray)) != expected(config, given)
