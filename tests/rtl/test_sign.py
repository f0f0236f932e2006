import inspect
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import kernels
from gatewise.rtl import sign
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.engine.pipeline import tree_stages
from gatewise.rtl.regress import run_bench


def every_word(bench):
    """The bench with every input word once."""

    class Exhaustive(bench):
        def stimulus(self, layout, rng, count):
            words = self.exhaustive(layout)
            return {name: values[rng.permutation(self.space(layout))] for name, values in words.items()}

    return Exhaustive


def planted(old, new):
    """The module's components with one line of its source changed."""
    source = inspect.getsource(sign)
    assert source.count(old) == 1
    names = {"__name__": sign.__name__, "__package__": sign.__package__}
    exec(compile(source.replace(old, new), "planted in gatewise.rtl.sign", "exec"), names)
    return names


@pytest.mark.usefixtures("icarus")
class TestBench:
    @pytest.mark.parametrize("lanes", [1, 4, 16, 64])
    @pytest.mark.parametrize("block", ["sign", "popcount"])
    def test_a_row_sums_as_the_golden_model_one_word_a_cycle(self, block, lanes):
        assert run_bench(BLOCKS[block], {"lanes": lanes}, vectors=600).mismatch is None

    @pytest.mark.parametrize(("block", "lanes", "words"), [("sign", 2, 2**14), ("popcount", 4, 2**12)])
    def test_every_word_of_a_small_row(self, block, lanes, words):
        block = BLOCKS[block]
        result = run_bench(replace(block, bench=every_word(block.bench)), {"lanes": lanes})
        assert result.mismatch is None
        assert result.vectors == words

    @pytest.mark.parametrize(
        ("block", "old", "new"),
        [
            ("sign", "settled(m, self.bits[lane] ^", "settled(m, ~self.bits[lane] ^"),
            ("sign", "(digit[0] | ~self.binary))", "1)"),
            ("sign", "mask & ~self.binary)", "mask)"),
            ("sign", "digit[-1] & upper & self.a_signed", "digit[-1] & upper"),
            ("sign", "(digit[0] | self.binary) & mask", "digit[0] & mask"),
            ("sign", "(digit[0] | self.binary) & mask", "digit[0] | self.binary"),
            ("sign", "return terms[0] + carries[0]", "return terms[0]"),
            ("sign", "Cat(carries.pop(), upper)", "Cat(carries[-1], upper)"),
            ("sign", "carries = list(held)", "carries = list(carries)"),
            ("sign", "Cat(Const(1, 1), lower).as_signed()", "Cat(Const(1, 1), lower)"),
            ("sign", "terms[:middle], terms[middle:])", "terms[:middle], terms[:middle])"),
            ("popcount", "~(self.a.as_value() ^", "(self.a.as_value() ^"),
            ("popcount", " & self.mask.as_value())", ")"),
            ("popcount", "(count << 1) - self.active", "(count << 1) + self.active"),
            ("popcount", "(count << 1) - self.active", "count - self.active"),
            ("popcount", "m.d.sync += mask.eq(self.mask)", "m.d.comb += mask.eq(self.mask)"),
            ("popcount", "m.d.sync += agrees.eq(", "m.d.comb += agrees.eq("),
        ],
    )
    def test_a_planted_fault_is_found(self, block, old, new):
        component = planted(old, new)[f"streamed_{block}_row"]
        result = run_bench(replace(BLOCKS[block], component=component), {"lanes": 8}, vectors=400)
        assert result.mismatch is not None


def test_a_row_runs_freely_with_the_timing_of_a_digit_row():
    parameters = kernels.SignRow(16)
    row, rng, words = sign.SignRow(parameters), np.random.default_rng(3), 40
    assert row.latency == 2 + tree_stages(16)
    digits, bits, mask = (rng.integers(0, most, (words, 16)) for most in (16, 2, 2))
    modes = rng.integers(0, 2, (2, words))
    found = []

    async def bench(ctx):
        for at in range(words + row.latency):
            if at < words:
                ctx.set(row.digits, digits[at].tolist())
                ctx.set(row.bits, bits[at].tolist())
                ctx.set(row.mask, mask[at].tolist())
                ctx.set(row.a_signed, int(modes[0, at]))
                ctx.set(row.binary, int(modes[1, at]))
            if at >= row.latency:
                found.append(ctx.get(row.sum))
            await ctx.tick()

    simulator = Simulator(row)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    values = parameters.values(digits, *(mode[:, None] for mode in modes))
    assert found == parameters.compute(values, bits, mask).tolist()
