from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import kernels
from gatewise.kernels.fusion import FUSION_MODES, FusionMode
from gatewise.kernels.mac import MacFormat
from gatewise.rtl import fusion
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.multiplier import digit_values
from gatewise.rtl.regress import run_bench

PRODUCT_MODES = [{}, {"product": 6}, {"product": 7, "overflow": "wrap"}]


class AsDigitMultiplier(fusion.FusionPEBench):
    """The golden results, those of 4x4 by `DigitMultiplier` instead."""

    def expected(self, inputs):
        results = super().expected(inputs)
        golden = {name: values.copy() for name, values in results.items()}
        multiplier = kernels.DigitMultiplier(self.parameters.format)
        a = digit_values(inputs["acts"] & 15, inputs["a_signed"])
        w = digit_values(inputs["codes"] & 15, inputs["w_signed"])
        unsigned = (inputs["a_signed"] | inputs["w_signed"]) == 0
        for neither in (False, True):
            here = (inputs["mode"] == 0) & (unsigned == neither)
            results["product"][here], results["overflow"][here] = multiplier.compute(a[here], w[here], neither)
        assert all((golden[name] == results[name]).all() for name in golden)
        return results


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize("settings", PRODUCT_MODES, ids=["8 bits", "saturates", "wraps"])
def test_every_result_of_every_mode_is_the_golden_one_and_in_4x4_the_digit_multiplier_s(settings):
    result = run_bench(replace(BLOCKS["fusion_pe"], bench=AsDigitMultiplier), settings)
    assert result.mismatch is None
    assert result.exhaustive
    assert result.vectors == 256 * 256 * 4 * 4


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize(
    "settings",
    [
        {"lanes": 4, "product": 6, "align": 10},
        {"lanes": 8, "product": 7, "align": 12, "overflow": "wrap"},
        {"lanes": 16},
        {"lanes": 2, "kind": "mul", "align": 8},
    ],
    ids=["saturates", "wraps", "16 lanes", "multiplies"],
)
def test_a_row_sums_and_counts_as_the_golden_model_one_word_a_cycle(settings):
    assert run_bench(BLOCKS["fusion"], settings, vectors=1500).mismatch is None


PE_FAULTS = {
    "unsigned slice": ("a[0], w[0], a_signed & narrow_a,", "a[0], w[0], a_signed,"),
    "signed slice": ("w_signed & (narrow_w | ~narrow_a)", "w_signed & narrow_w"),
    "wrong weight": ("Mux(narrow_w, w[1], w[3])", "w[1]"),
    "wrong activation": ("Mux(narrow_w, a[2], a[1])", "Mux(both, a[2], a[1])"),
    "no shift": ("Mux(both, middle, middle << 2)", "Mux(narrow_w, middle, middle << 2)"),
    "lost carry": ("low[DIGIT_BITS] | high[0]", "high[0]"),
    "other constant": ("4 * (a ^ w)", "4 * (a | w)"),
    "limited sum": ("overflow = lost & ~narrow", "overflow = lost"),
    "narrow sum limited": ("value = Mux(narrow, value, ", "value = Mux(both, value, "),
    "no sign": ("Cat(limited, limited[-1] & ~unsigned)", "Cat(limited, Const(0, 1))"),
}


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize(("old", "new"), PE_FAULTS.values(), ids=PE_FAULTS)
def test_a_fault_planted_in_a_pe_is_found(planted, old, new):
    names = planted(fusion, old, new)
    result = run_bench(replace(BLOCKS["fusion_pe"], component=names["FusionPE"]), {"product": 6}, vectors=20_000)
    assert "must be" in result.mismatch


ROW_FAULTS = {
    "upper in every mode": ("settled(m, self.w_high & ~self.mode.any())", "self.w_high"),
    "never upper": ("Mux(upper, code[DIGIT_BITS:], code[:DIGIT_BITS])", "code[:DIGIT_BITS]"),
    "always aligned": ('Mux(narrow, 0 if kind == "shift" else 1, self.factors[lane])', "self.factors[lane]"),
    "always signed": ("unsigned.eq(~(self.a_signed | self.w_signed))", "unsigned.eq(0)"),
    "early flag": ("flag.eq(Cat(pe.overflow, flag[0]))", "flag.eq(pe.overflow.replicate(2))"),
    "mode of the next word": (", narrow.eq(self.mode.any())]", "]; m.d.comb += narrow.eq(self.mode.any())"),
    "factors too early": ('later={"factors": 1}', "later={}"),
    "one latency more": ("return 2 + tree_stages", "return 3 + tree_stages"),
    "one lane for all": ("pe.acts.eq(self.acts[lane])", "pe.acts.eq(self.acts[0])"),
}


@pytest.mark.usefixtures("icarus")
@pytest.mark.parametrize(("old", "new"), ROW_FAULTS.values(), ids=ROW_FAULTS)
def test_a_fault_planted_in_a_row_is_found(planted, old, new):
    names = planted(fusion, old, new)
    block = replace(BLOCKS["fusion"], component=names["streamed_row"])
    cases = ({"lanes": 4, "product": 6, "align": 10}, {"lanes": 4, "align": 10})
    assert any(run_bench(block, settings, vectors=600).mismatch is not None for settings in cases)


WORDS = 200
"""Of the build whose formats and kinds of alignment are inputs."""


def format_words(lanes, seed):
    rng = np.random.default_rng(seed)
    return {
        "acts": rng.integers(256, size=(WORDS, lanes)),
        "codes": rng.integers(256, size=(WORDS, lanes)),
        "amounts": rng.integers(9, size=(WORDS, lanes)),
        "mode": rng.integers(4, size=WORDS) * rng.integers(2, size=WORDS),
        "w_high": rng.integers(2, size=WORDS),
        "a_signed": rng.integers(2, size=WORDS),
        "w_signed": rng.integers(2, size=WORDS),
    }


def found_with_formats(row, given, fmt):
    """Sums and counts of a build for every format, told this one."""
    results = []

    async def bench(ctx):
        for name in ("product", "align"):
            width = getattr(row.widths, name)
            bits, most = getattr(fmt, name), len(width.above)
            ctx.set(width.above, (-1 << (bits - 1)) & ((1 << most) - 1))
            ctx.set(width.wrap, int(fmt.overflow == "wrap"))
        for t in range(WORDS + row.latency):
            if t < WORDS:
                for name in ("acts", "codes"):
                    for lane, value in enumerate(given[name][t]):
                        ctx.set(getattr(row, name)[lane], int(value))
                for name in ("mode", "w_high", "a_signed", "w_signed"):
                    ctx.set(getattr(row, name), int(given[name][t]))
            if 1 <= t <= WORDS:
                for lane, amount in enumerate(given["amounts"][t - 1]):
                    ctx.set(row.factors[lane], 1 << int(amount))
            if t >= row.latency:
                results.append((ctx.get(row.sum), ctx.get(row.product_overflows), ctx.get(row.align_overflows)))
            await ctx.tick()

    simulator = Simulator(row)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


@pytest.mark.parametrize(
    ("build", "told"),
    [
        ({}, {}),
        ({"product": 10, "align": 24}, {"product": 6, "align": 10}),
        ({"product": 9}, {"product": 7, "align": 9, "overflow": "wrap"}),
        ({"product": 7}, {"product": 6, "align": 12}),
    ],
    ids=["its own", "saturates", "wraps", "narrow build"],
)
def test_a_row_of_every_format_and_alignment_is_the_golden_one_of_each(build, told):
    widths = MacFormat(**{**build, "acc": 48})
    fmt = MacFormat(**{"product": widths.product, "align": widths.align, "acc": 48, **told})
    row = fusion.FusionRow(kernels.FusionRow(4, widths), ("shift", "mul"), formats=True)
    given = format_words(4, seed=1)
    golden = kernels.FusionRow(4, fmt)
    expected = []
    for t in range(WORDS):
        acts, codes, amounts = (given[name][t] for name in ("acts", "codes", "amounts"))
        modes = [bool(given[name][t]) for name in ("w_high", "a_signed", "w_signed")]
        step = golden.compute(acts, codes, amounts, FUSION_MODES[given["mode"][t]], *modes)
        expected.append(tuple(int(part) for part in step))
    assert found_with_formats(row, given, fmt) == expected
    if told:
        assert all(sum(step[at] for step in expected) > 0 for at in (1, 2))


def test_the_mode_s_number_says_which_operands_are_narrow():
    assert [(mode.a_bits == 2) | (mode.w_bits == 2) << 1 for mode in FUSION_MODES] == [0, 1, 2, 3]
    assert FusionMode(4, 4) == FUSION_MODES[0]
