import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.accumulator import Accumulator
from gatewise.kernels.mac import MacFormat
from gatewise.rtl.engine import accumulators as accumulators_module
from gatewise.rtl.engine import counters as counters_module
from gatewise.rtl.engine.accumulators import AccumulatorBank
from gatewise.rtl.engine.counters import OverflowCounters

PIXELS = 16


def steps(config, seed):
    """Two tiles, one in each half and then one more, with the pixels in bursts and bubbles between them."""
    rng = np.random.default_rng(seed)
    row_bits = config.mac.row_bits(config.lanes)
    plan = []
    for tile in range(3):
        n = int(rng.integers(4, PIXELS + 1))
        for pass_index in range(4):
            for pixel in range(n):
                plan.append(
                    {
                        "half": tile % 2,
                        "pixel": pixel,
                        "first": int(pass_index == 0),
                        "digit_shift": pass_index if pass_index < 2 else pass_index - 1,
                        "add_input": int(pass_index < 2),
                        "close": int(pixel == pass_index == 0 and tile > 0),
                        "row_sums": rng.integers(-(1 << row_bits - 1), 1 << row_bits - 1, config.rows)
                        >> rng.integers(0, row_bits, config.rows),
                        "product_overflows": rng.integers(0, config.lanes + 1, config.rows),
                        "align_overflows": rng.integers(0, config.lanes + 1, config.rows),
                        "input_sums": rng.integers(-(1 << 13), 1 << 13, min(config.rows, config.lanes)),
                    }
                )
                if rng.random() < 0.2:
                    plan.append(None)
    return plan


def expected(config, plan):
    adder = Accumulator(config.mac, config.mac.row_bits(config.lanes))
    acc = np.zeros((2, PIXELS, config.rows), dtype=np.int64)
    sums = np.zeros((2, PIXELS, min(config.rows, config.lanes)), dtype=np.int64)
    counts, closed = np.zeros((3, config.rows), dtype=int), []
    for step in filter(None, plan):
        at = step["half"], step["pixel"]
        if step["close"]:
            closed.append(counts.tolist())
            counts = np.zeros_like(counts)
        start = np.zeros(config.rows, dtype=np.int64) if step["first"] else acc[at]
        acc[at], lost = adder.compute(start, step["row_sums"], step["digit_shift"])
        counts = counts + np.array([step["product_overflows"], step["align_overflows"], lost])
        if step["add_input"]:
            sums[at] = (0 if step["first"] else sums[at]) + (step["input_sums"] << 4 * step["digit_shift"])
    shared = np.repeat(sums[..., :1], config.rows - sums.shape[-1], axis=-1)
    return acc, np.concatenate([sums, shared], axis=-1), closed


def played(config, plan, bank=AccumulatorBank):
    """The final accumulators and input sums, and the counters after each close."""
    dut = bank(config)
    acc = np.zeros((2, PIXELS, config.rows), dtype=np.int64)
    sums = np.zeros_like(acc)
    closed = []

    async def bench(ctx):
        before = None
        for step in [*plan, None]:
            # Where a pixel lies comes a cycle before its sums.
            ctx.set(dut.valid, int(step is not None))
            for name in ("half", "pixel", "first", "digit_shift", "add_input"):
                if step is not None:
                    ctx.set(getattr(dut, name), step[name])
            ctx.set(dut.close, 0 if before is None else before["close"])
            if before is not None:
                for row in range(config.rows):
                    for name in ("row_sums", "product_overflows", "align_overflows"):
                        ctx.set(getattr(dut, name)[row], int(before[name][row]))
                for row, value in enumerate(before["input_sums"]):
                    ctx.set(dut.input_sums[row], int(value))
            closing = before is not None and before["close"]
            await ctx.tick()
            if closing:
                names = (dut.product_count, dut.align_count, dut.acc_count)
                closed.append([[ctx.get(port[row]) for row in range(config.rows)] for port in names])
            before = step
        ctx.set(dut.valid, 0)
        for half in (0, 1):
            for pixel in range(PIXELS):
                ctx.set(dut.drain_half, half)
                ctx.set(dut.drain_pixel, pixel)
                await ctx.tick()
                acc[half, pixel] = [ctx.get(dut.drain_acc[row]) for row in range(config.rows)]
                sums[half, pixel] = [ctx.get(dut.drain_input_sum[row]) for row in range(config.rows)]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return acc, sums, closed


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("rows", [4, 8])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_accumulators_input_sums_and_counters_are_the_golden_ones(overflow, rows):
    config = EngineConfig(
        rows=rows, lanes=4, pixels=PIXELS, mac=MacFormat(product=7, align=10, acc=14, overflow=overflow)
    )
    plan = steps(config, 5)
    wanted = expected(config, plan)
    assert same(played(config, plan), wanted)
    assert np.min(wanted[2][0]) > 0


def test_the_drain_reads_one_half_while_the_other_sums():
    config = EngineConfig(rows=4, lanes=4, pixels=PIXELS)
    dut = AccumulatorBank(config)
    seen = []

    async def bench(ctx):
        for half in (0, 1):
            for pixel in range(PIXELS):
                ctx.set(dut.valid, 1)
                ctx.set(dut.first, 1)
                ctx.set(dut.half, half)
                ctx.set(dut.pixel, pixel)
                ctx.set(dut.drain_half, 0)
                ctx.set(dut.drain_pixel, PIXELS - 1 - pixel)
                await ctx.tick()
                ctx.set(dut.row_sums[0], 100 * half + pixel)
                if half and pixel:
                    seen.append(ctx.get(dut.drain_acc[0]))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [PIXELS - 1 - pixel for pixel in range(1, PIXELS)]


def test_a_counter_stays_at_its_end(monkeypatch):
    monkeypatch.setattr(counters_module, "COUNTER_BITS", 5)
    dut = OverflowCounters(EngineConfig(rows=4, lanes=4, mac=MacFormat(product=7)))
    seen = []

    async def bench(ctx):
        ctx.set(dut.valid, 1)
        ctx.set(dut.product_overflows[2], 4)
        await ctx.tick().repeat(9)
        ctx.set(dut.close, 1)
        for _ in range(2):
            await ctx.tick()
            seen.append([ctx.get(dut.product_count[2]), ctx.get(dut.align_count[2])])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [[31, 0], [4, 0]]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (counters_module, "Mux(self.close, 0, counter)", "counter"),
        (counters_module, "Mux(self.valid, step, 0)", "step"),
        (accumulators_module, "adder.digit_shift.eq(digit_shift)", "adder.digit_shift.eq(digit_shift[0])"),
        (accumulators_module, "running = settled(m, Mux(first, 0, ", "running = settled(m, Mux(0, 0, "),
        (accumulators_module, "valid & add_input & (half == h)", "valid & (half == h)"),
        (accumulators_module, "write.addr.eq(pixel)", "write.addr.eq(self.pixel)"),
        (accumulators_module, "Mux(digit_shift[0], step << DIGIT_BITS, step)", "step"),
        (accumulators_module, "row if row < len(drained_sums) else 0", "0"),
    ],
    ids=[
        "counter not cleared",
        "bubbles counted",
        "shift",
        "not from zero",
        "input sum of j = 1",
        "off by one",
        "sum not shifted",
        "one sum",
    ],
)
def test_a_planted_fault_is_found(planted, monkeypatch, module, old, new):
    config = EngineConfig(rows=4, lanes=4, pixels=PIXELS, mac=MacFormat(product=7, align=10, acc=14))
    plan = steps(config, 6)
    names = planted(module, old, new)
    if module is counters_module:
        monkeypatch.setattr(accumulators_module, "OverflowCounters", names["OverflowCounters"])
    assert not same(played(config, plan, names.get("AccumulatorBank", AccumulatorBank)), expected(config, plan))
