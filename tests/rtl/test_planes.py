import inspect
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import kernels
from gatewise.kernels import MacFormat
from gatewise.kernels.planes import TABLE_ENTRIES, TABLE_PLANES
from gatewise.rtl import planes
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.engine.post.correct import CorrectionStage
from gatewise.rtl.regress import run_bench


def planted(old, new):
    """The module's components with one line of its source changed."""
    source = inspect.getsource(planes)
    assert source.count(old) == 1
    names = {"__name__": planes.__name__, "__package__": planes.__package__}
    exec(compile(source.replace(old, new), "planted in gatewise.rtl.planes", "exec"), names)
    return names


class EveryTableBit(planes.PlaneTableBench):
    """Every count in every table that has one bit alone, and in every table that lacks one."""

    def stimulus(self, layout, rng, count):
        cells = TABLE_ENTRIES * self.parameters.planes
        alone = np.zeros((cells, TABLE_ENTRIES), dtype=np.int64)
        alone[np.arange(cells), np.arange(cells) // self.parameters.planes] = 1 << (
            np.arange(cells) % self.parameters.planes
        )
        tables = np.concatenate([alone, (1 << self.parameters.planes) - 1 - alone])
        counts = np.arange(TABLE_ENTRIES)
        return {"entries": np.repeat(tables, TABLE_ENTRIES, axis=0), "count": np.tile(counts, len(tables))}


@pytest.mark.usefixtures("icarus")
class TestBench:
    @pytest.mark.parametrize("acc", [12, 20, 32, 40])
    def test_planes_sum_and_saturate_as_the_golden_model_one_a_cycle(self, acc):
        assert run_bench(BLOCKS["planes"], {"acc": acc}, vectors=1500).mismatch is None

    @pytest.mark.parametrize("width", [3, TABLE_PLANES])
    def test_a_table_gives_every_bit_of_every_entry_to_its_count(self, width):
        block = replace(BLOCKS["plane_table"], bench=EveryTableBit)
        result = run_bench(block, {"planes": width}, vectors=1 << 14)
        assert result.mismatch is None
        assert run_bench(BLOCKS["plane_table"], {"planes": width}, vectors=2000).mismatch is None

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("Mux(first[1], bias - offset, total)", "Mux(first[0], bias - offset, total)"),
            ("Mux(first[1], bias - offset, total)", "Mux(first[1], bias, total)"),
            ("bias - offset", "bias + offset"),
            ("self.coef * acc", "self.coef * self.acc"),
            ("self.coef * acc", "self.coef[:-1] * acc"),
            ('"saturate", width', '"wrap", width'),
            ('parameters.out_bits, "saturate"', 'parameters.out_bits - 1, "saturate"'),
            ("overflow.eq(lost & ends)", "overflow.eq(lost)"),
            ("overflow.eq(lost & ends)", "overflow.eq(0)"),
            ("ends = valid[1] & last[1]", "ends = valid[1]"),
            ("signed(parameters.exact_bits)", "signed(parameters.out_bits)"),
            ('for name in ("coef", "zero", "bias"):', 'for name in ("zero", "bias", "coef")[1:]:'),
        ],
    )
    def test_a_planted_fault_in_the_stage_is_found(self, old, new):
        component = planted(old, new)["PlaneCorrection"]
        result = run_bench(replace(BLOCKS["planes"], component=component), {"acc": 20}, vectors=1500)
        assert result.mismatch is not None

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("[self.count]", "[self.count[:3]]"),
            ("[self.count]", "[self.count ^ 8]"),
            ("Array(self.entries[at] for at", "Array(self.entries[at ^ 1] for at"),
            ("Array(self.entries[at] for at", "Array(self.entries[at] | 1 for at"),
            ("Array(self.entries[at] for at", "Array(self.entries[min(at, 14)] for at"),
        ],
    )
    def test_a_planted_fault_in_the_table_is_found(self, old, new):
        block = replace(BLOCKS["plane_table"], component=planted(old, new)["PlaneTable"], bench=EveryTableBit)
        assert run_bench(block, {"planes": 2}, vectors=1024).mismatch is not None


def run_stage(stage, values, width=None):
    """What a free-running stage gives for values of several planes each, with gaps: (value, overflow) each."""
    rng, found, cycle = np.random.default_rng(5), [], 0
    schedule, results = {}, []
    for accs, coefs, xsum, zero, bias in values:
        for at, (acc, coef) in enumerate(zip(accs, coefs, strict=True)):
            cycle += 1 + int(rng.random() < 0.3)
            first, last = at == 0, at == len(accs) - 1
            schedule[cycle] = (acc, first, last, xsum if first else 77, coef, (zero, bias) if first else (3, 5))
        results.append(cycle + stage.latency)

    async def bench(ctx):
        late = None
        if width is not None:
            ctx.set(stage.width.above, -1 << (width - 1))
        for now in range(cycle + stage.latency + 1):
            if now in results:
                found.append((ctx.get(stage.value), bool(ctx.get(stage.overflow))))
            else:
                assert not ctx.get(stage.overflow)
            if late is not None:
                ctx.set(stage.coef, late[0])
                ctx.set(stage.zero, late[1][0])
                ctx.set(stage.bias, late[1][1])
            ctx.set(stage.valid, now in schedule)
            # In a gap nothing that the ports hold may count.
            idle = (int(rng.integers(99)), *rng.integers(2, size=2).tolist(), 7, 9, (3, 5))
            acc, first, last, xsum, *late = schedule.get(now, idle)
            ctx.set(stage.acc, acc)
            ctx.set(stage.first, first)
            ctx.set(stage.last, last)
            ctx.set(stage.xsum, xsum)
            await ctx.tick()

    simulator = Simulator(stage)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def some_values(rng, acc, count=60):
    """Random planes with constants: terms about as wide as an accumulator of `acc` bits allows."""

    def term(bits):
        return int(rng.integers(-(1 << (bits - 1)), 1 << (bits - 1)) >> rng.integers(0, bits))

    values = [
        ([term(acc) for _ in range(n)], [term(16) for _ in range(n)], term(32), term(16), term(acc + 16))
        for n in rng.integers(1, 6, count)
    ]
    values[count // 2] = ([-(1 << (acc - 1))] * 3, [-(1 << 15)] * 3, -(1 << 31), (1 << 15) - 1, -1)
    return values


@pytest.mark.parametrize("acc", [18, 32])
def test_a_stage_takes_the_place_of_the_correction_stage(acc):
    parameters = kernels.PlaneCorrection(MacFormat(acc=acc))
    stage = planes.PlaneStage(parameters)
    assert stage.latency == CorrectionStage.latency
    values = some_values(np.random.default_rng(acc), acc)
    golden = [parameters.compute(*map(np.array, value)) for value in values]
    assert run_stage(stage, values) == [(value.item(), over.item()) for value, over in golden]
    assert any(over for _, over in golden)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("with m.If(valid[1]):\n            m.d.sync += total", "with m.If(valid[0]):\n            m.d.sync += total"),
        ("with m.If(valid[0]):", "with m.If(self.valid):"),
        ("with m.If(self.first):", "with m.If(self.last):"),
        ("ends = valid[1] & last[1]", "ends = last[1]"),
        ("first.eq((first << 1) | self.first)", "first.eq(self.first.replicate(2))"),
    ],
    ids=["early sum", "early product", "other input sum", "no value", "early start"],
)
def test_a_fault_that_gaps_show_is_found(old, new):
    parameters = kernels.PlaneCorrection(MacFormat(acc=18))
    values = some_values(np.random.default_rng(1), 18)
    expected = [(value.item(), over.item()) for value, over in (parameters.compute(*map(np.array, v)) for v in values)]
    assert run_stage(planes.PlaneStage(parameters), values) == expected
    try:
        found = run_stage(planted(old, new)["PlaneStage"](parameters), values)
    except AssertionError:
        found = None
    assert found != expected


def test_a_stage_s_width_may_be_an_input():
    built, wanted = (kernels.PlaneCorrection(MacFormat(acc=acc)) for acc in (32, 18))
    values = some_values(np.random.default_rng(9), 18)
    golden = [wanted.compute(*map(np.array, value)) for value in values]
    expected = [(value.item(), over.item()) for value, over in golden]
    assert run_stage(planes.PlaneStage(built, formats=True), values, wanted.out_bits) == expected
    assert any(over for _, over in golden)
    assert run_stage(planes.PlaneStage(built, formats=True), values, wanted.out_bits + 1) != expected
