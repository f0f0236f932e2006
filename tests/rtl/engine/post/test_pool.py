"""Pooling against the golden model, window after window, and the cycle of every result."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.pool import PoolShape, average_pool, max_pool
from gatewise.rtl.engine.post import pool as pool_module
from gatewise.rtl.engine.post.pool import Pool

CONFIG = EngineConfig(rows=4, lanes=8, pixels=16)
CHANNELS = 4


def cases(rng):
    """(codes of 4 channels, shape)."""
    ends = {8: (0, 255), 4: (-8, 7), 16: (-(1 << 15), (1 << 15) - 1), 17: (0, (1 << 16) - 1)}
    shapes = [
        (PoolShape((3, 3), (2, 2), (1, 1, 1, 1)), (5, 4), 8),
        (PoolShape((2, 3), (1, 2), (1, 2, 0, 1)), (3, 5), 16),
        (PoolShape((1, 1), (1, 1)), (2, 2), 4),
        (PoolShape((6, 5), (6, 5)), (6, 5), 17),
        (PoolShape((2, 2), (2, 2)), (4, 4), 4),
        (PoolShape((4, 4), (2, 1), (3, 2, 1, 3)), (5, 5), 16),
    ]
    for shape, size, bits in shapes:
        low, high = ends[bits]
        codes = rng.integers(low, high + 1, (CHANNELS, *size))
        codes[0] = low
        codes[1] = high
        yield codes, shape


def windows(codes, shape):
    """The taps (code, inside) of every window."""
    height, width = codes.shape[1:]
    rows, columns = shape.output_size(height, width)
    for oy in range(rows):
        for ox in range(columns):
            taps = []
            for ky in range(shape.kernel[0]):
                for kx in range(shape.kernel[1]):
                    y = oy * shape.stride[0] + ky - shape.padding[0]
                    x = ox * shape.stride[1] + kx - shape.padding[1]
                    inside = 0 <= y < height and 0 <= x < width
                    taps.append((codes[:, y, x] if inside else None, inside))
            yield taps


def differences(average, unit=Pool):
    """Results or cycles that are not the golden ones."""
    dut = unit(CONFIG)
    rng = np.random.default_rng(3)
    plan, wanted = {}, {}
    end = 5
    for codes, shape in cases(rng):
        golden = (average_pool if average else max_pool)(codes[None], shape)[0].reshape(CHANNELS, -1)
        for pixel, taps in enumerate(windows(codes, shape)):
            # As early as the window may end, now and then a little later.
            at = max(end + 1, end + 17 - len(taps) + 1 if average else 0) + (pixel % 3 == 2)
            for number, tap in enumerate(taps):
                plan[at] = (*tap, number == len(taps) - 1)
                end = at
                at += 1 + int(rng.integers(0, 2)) * (pixel % 2)
            wanted[end + (18 if average else 1)] = golden[:, pixel].tolist()
    found = {}

    async def bench(ctx):
        ctx.set(dut.average, int(average))
        for cycle in range(max(wanted) + 5):
            codes, inside, last = plan.get(cycle, (None, 0, int(rng.integers(0, 2))))
            ctx.set(dut.tap_valid, int(cycle in plan))
            ctx.set(dut.inside, int(inside))
            ctx.set(dut.last, int(last))
            noise = rng.integers(-(1 << 16), 1 << 16, CHANNELS)
            ctx.set(dut.tap, [int(code) for code in (noise if codes is None else codes)])
            if ctx.get(dut.valid):
                found[cycle] = [ctx.get(dut.codes[lane]) for lane in range(CHANNELS)]
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return sorted(cycle for cycle in found.keys() | wanted.keys() if found.get(cycle) != wanted.get(cycle))


@pytest.mark.parametrize("average", [False, True])
def test_pools_are_the_golden_ones_in_their_cycles(average):
    assert (Pool.max_delay, Pool.average_delay, Pool.divider_cycles) == (1, 18, 17)
    assert differences(average) == []


FAULTS = {
    "padding counted": ("count.eq(before + self.inside)", "count.eq(before + 1)"),
    "padding compared": ("self.tap_valid & self.inside & (empty", "self.tap_valid & (empty"),
    "old window kept": ("before.eq(Mux(fresh, 0, count))", "before.eq(count)"),
    "rounded down": ("<< 1) + count)", "<< 1))"),
    "rounded up": ("Mux(total < 0, -total, total)", "(total)"),
    "sign lost": ("Mux(negative, -quotient, quotient)", "quotient"),
    "a bit short": ("[left.eq(STORED_BITS), ", "[left.eq(STORED_BITS - 1), "),
    "sum too narrow": ("SUM_BITS = COUNT_BITS - 1 + CODE_BITS", "SUM_BITS = CODE_BITS"),
    "unsigned comparison": ("(tap > total)", "(tap.as_unsigned() > total)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted):
    unit = planted(pool_module, *FAULTS[fault])["Pool"]
    assert differences(True, unit) + differences(False, unit) != []
