"""The sign array and the shift array, and the input sums beside every array, word by word against golden rows."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig, MacFormat
from gatewise.kernels.shift import ShiftFormat, ShiftRow
from gatewise.kernels.sign import SignRow
from gatewise.rtl import shift as shift_module
from gatewise.rtl import sign as sign_module
from gatewise.rtl.engine import input_sums as sums_module
from gatewise.rtl.engine import shift_array as shift_array_module
from gatewise.rtl.engine import sign_array as sign_array_module
from gatewise.rtl.engine.array import MacArray
from gatewise.rtl.engine.input_sums import InputSums
from gatewise.rtl.engine.row import factor_bits
from gatewise.rtl.engine.shift_array import SHIFT_SETTINGS, ShiftArray
from gatewise.rtl.engine.sign_array import SignArray
from gatewise.rtl.multiplier import digit_values

WORDS = 80
SIZES = [(4, 4), (4, 8), (4, 16), (8, 4)]
PLAIN = ShiftFormat(4)
FORMATS = {
    "plain": PLAIN,
    "focused": ShiftFormat(3, True, 5, (-1, 4), (1, 9)),
    "both above": ShiftFormat(2, True, 0, (1, 0), (1, 15)),
    "both below": ShiftFormat(4, True, 0, (-1, 15), (-1, 2)),
}


def config_of(array, rows, lanes):
    return EngineConfig(rows=rows, lanes=lanes, array=array, mac=MacFormat(acc=40))


def words(config, seed, depthwise):
    """One activation word after another with its modes; `diagonal` keeps to the lanes of a row group."""
    rng = np.random.default_rng(seed)
    rows, lanes = config.rows, config.lanes
    digits = rng.integers(16, size=(WORDS, lanes))
    digits[:2] = [[15] * lanes, [8] * lanes]
    return rng, {
        "digits": digits,
        "sum_mask": rng.integers(2, size=(WORDS, lanes)),
        "a_signed": rng.integers(2, size=WORDS),
        "depthwise": np.full(WORDS, depthwise),
        "diagonal": rng.integers(max(1, lanes // rows), size=WORDS),
    }


def own_lanes(config, given):
    """Row r's own lane of each word, (words, rows)."""
    size = min(config.rows, config.lanes)
    return given["diagonal"][:, None] * size + np.arange(config.rows) % size


def sign_words(config, seed, depthwise, fmt=None):
    rng, given = words(config, seed, depthwise)
    codes = rng.integers(2, size=(WORDS, config.rows, config.lanes))
    return given | {"codes": codes, "binary": rng.integers(2, size=WORDS)}


def shift_words(config, seed, depthwise, fmt):
    """Codes as they stream; in a depthwise layer those of the other lanes are 0."""
    rng, given = words(config, seed, depthwise)
    shape = (WORDS, config.rows, config.lanes)
    state = rng.integers(4, size=shape) if fmt.focused else rng.integers(3, size=shape)
    exponent = np.where((state == 0) | (state == 3), 0, rng.integers(min(16, 1 << fmt.exponent_bits), size=shape))
    exponent = np.minimum(exponent, 15 - fmt.value_shift)
    component = np.where(state == 3, 0, rng.integers(2, size=shape)) if fmt.focused else np.zeros(shape, int)
    streamed = (3 - state) | (component << 2 | exponent << 3 if fmt.focused else exponent << 2)
    pe_codes = exponent | state << 4 | component << 6
    if depthwise:
        used = np.arange(config.lanes) == own_lanes(config, given)[:, :, None]
        streamed, pe_codes = np.where(used, streamed, 0), np.where(used, pe_codes, 0x30)
    return given | {"codes": streamed, "pe_codes": pe_codes}


def golden_sums(config, given):
    """Input sums (words, min(R, L))."""
    a = digit_values(given["digits"], given["a_signed"][:, None]) * given["sum_mask"]
    size = min(config.rows, config.lanes)
    total = np.repeat(a.sum(axis=1)[:, None], size, axis=1)
    own = np.take_along_axis(a, own_lanes(config, given)[:, :size], axis=1)
    return np.where(given["depthwise"][:, None], own, total)


def sign_rows(config, given, fmt=None):
    row, modes = SignRow(config.lanes), (given[name][:, None] for name in ("a_signed", "binary"))
    a = row.values(given["digits"], *modes)[:, None]
    own = np.arange(config.lanes) == own_lanes(config, given)[:, :, None]
    mask = np.where(given["depthwise"][:, None, None], own, given["sum_mask"][:, None])
    return row.compute(a, given["codes"], mask)


def shift_rows(config, given, fmt):
    a = digit_values(given["digits"], given["a_signed"][:, None])[:, None]
    return ShiftRow(config.lanes).compute(a, given["pe_codes"], fmt)


def settings_of(fmt):
    values = {"focused": int(fmt.focused), "value_shift": fmt.value_shift}
    for name, (sign, shift) in (("minus", fmt.minus), ("plus", fmt.plus)):
        values |= {f"{name}_shift": shift, f"{name}_negative": int(sign < 0)}
    return values


def pack(values, bits):
    return sum((int(value) & ((1 << bits) - 1)) << bits * at for at, value in enumerate(np.asarray(values).reshape(-1)))


def found(dut, given, code_bits, settings):
    """Row sums (words, rows) and input sums of a stream without a gap."""
    results = [], []

    async def bench(ctx):
        for name, value in settings.items():
            ctx.set(getattr(dut, name), value)
        for t in range(WORDS + dut.latency):
            if t < WORDS:
                for row, codes in enumerate(given["codes"][t]):
                    ctx.set(dut.codes[row].as_value(), pack(codes, code_bits))
                ctx.set(dut.digits.as_value(), pack(given["digits"][t], 4))
                ctx.set(dut.sum_mask, pack(given["sum_mask"][t], 1))
                for name in given.keys() & {"a_signed", "binary", "depthwise", "diagonal"}:
                    ctx.set(getattr(dut, name), int(given[name][t]))
            if t >= dut.latency:
                results[0].append([ctx.get(total) for total in dut.row_sums])
                results[1].append([ctx.get(total) for total in dut.input_sums])
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return tuple(np.array(each) for each in results)


KINDS = {
    "sign": (SignArray, sign_words, sign_rows, 1),
    "shift": (ShiftArray, shift_words, shift_rows, 8),
}


def differences(array, rows, lanes, seed, depthwise, fmt=PLAIN, component=None):
    """What of an array differs from the golden rows: rows, sums."""
    config = config_of(array, rows, lanes)
    genuine, make, golden, code_bits = KINDS[array]
    given = make(config, seed, depthwise, fmt)
    settings = settings_of(fmt) if array == "shift" else {}
    assert settings.keys() == (SHIFT_SETTINGS.keys() if array == "shift" else set())
    row_sums, input_sums = found((component or genuine)(config), given, code_bits, settings)
    wanted = golden(config, given, fmt)
    assert len(np.unique(wanted)) > 20
    same = np.array_equal(row_sums, wanted), np.array_equal(input_sums, golden_sums(config, given))
    return [name for name, equal in zip(("rows", "sums"), same, strict=True) if not equal]


@pytest.mark.parametrize(("rows", "lanes"), SIZES)
@pytest.mark.parametrize(("seed", "depthwise"), [(0, 0), (1, 1), (2, 0)])
def test_a_sign_array_has_the_golden_sums_of_the_lanes_that_it_is_told(rows, lanes, seed, depthwise):
    assert differences("sign", rows, lanes, seed, depthwise) == []


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("rows", "lanes"), SIZES)
@pytest.mark.parametrize(("seed", "depthwise"), [(0, 0), (1, 1)])
def test_a_shift_array_has_the_golden_sums_of_every_format(rows, lanes, seed, depthwise, fmt):
    assert differences("shift", rows, lanes, seed, depthwise, FORMATS[fmt]) == []


def test_registers_of_other_layers_do_nothing_where_a_layer_is_not_focused():
    config = config_of("shift", 4, 4)
    given = shift_words(config, 5, 0, PLAIN)
    settings = settings_of(FORMATS["focused"]) | {"focused": 0}
    row_sums, _ = found(ShiftArray(config), given, 8, settings)
    assert np.array_equal(row_sums, shift_rows(config, given, PLAIN))


@pytest.mark.parametrize(("array", "dut"), [("sign", SignArray), ("shift", ShiftArray)])
def test_the_latency_is_that_of_the_digit_array(array, dut):
    for lanes in (4, 8, 16, 64):
        unit, digit = dut(config_of(array, 4, lanes)), MacArray(config_of("digit", 4, lanes))
        unit._MustUse__used = digit._MustUse__used = True
        assert unit.latency == digit.latency


SIGN_FAULTS = {
    "all lanes": (sign_array_module, "Mux(self.depthwise, own, self.sum_mask)", "-1"),
    "all lanes of a depthwise word": (sign_array_module, "Mux(self.depthwise, own, self.sum_mask)", "self.sum_mask"),
    "first diagonal": (sign_array_module, "<< (self.diagonal * size)", "<< (self.diagonal * 0)"),
    "unsigned": (sign_array_module, "row.a_signed.eq(self.a_signed)", "row.a_signed.eq(0)"),
    "never binary": (sign_array_module, "row.binary.eq(self.binary)", "row.binary.eq(0)"),
    "other row": (sign_array_module, "row.bits.eq(self.codes[at])", "row.bits.eq(self.codes[at ^ 1])"),
    "no input mask": (sign_array_module, '("digits", "sum_mask", "a', '("digits", "a'),
    "other sign": (sign_module, "self.bits[lane] ^ (digit[0]", "~self.bits[lane] ^ (digit[0]"),
    "no last carry": (sign_module, "return terms[0] + carries[0]", "return terms[0]"),
    "signed always": (sign_module, "digit[-1] & upper & self.a_signed", "digit[-1] & upper"),
}
SHIFT_FAULTS = {
    "state as it streams": (shift_array_module, "~code[:2]", "code[:2]"),
    "no component": (shift_array_module, "self.focused & code[2]", "0 & code[2]"),
    "exponent from bit 2": (shift_array_module, "code[3 : 3 + SHIFT_BITS]", "code[2 : 2 + SHIFT_BITS]"),
    "unsigned": (shift_array_module, "row.a_signed.eq(self.a_signed)", "row.a_signed.eq(0)"),
    "registers": (shift_array_module, "for name in SHIFT_SETTINGS)", 'for name in ("focused", "value_shift"))'),
    "no diagonal": (shift_array_module, '"depthwise", "diagonal")', '"depthwise")'),
    "pruned components": (shift_module, "settled(m, ~(odd & negative))", "1"),
    "value not shifted": (shift_module, "Mux(self.focused, self.value_shift, 0)", "self.value_shift & 0"),
    "plus for minus": (shift_module, "counted & component, digit", "counted & ~component, digit"),
}


def planted_array(planted, monkeypatch, module, old, new, array_module, names):
    """The array's class with a fault in its own file, or in that of its rows."""
    faulty = planted(module, old, new)
    if module is array_module:
        return faulty[names[0]]
    monkeypatch.setattr(array_module, names[1], faulty[names[1]])
    return None


@pytest.mark.parametrize("fault", SIGN_FAULTS)
def test_a_fault_in_a_sign_array_is_found(planted, monkeypatch, fault):
    dut = planted_array(planted, monkeypatch, *SIGN_FAULTS[fault], sign_array_module, ("SignArray", "SignRow"))
    assert any(differences("sign", 4, 8, 0, depthwise, component=dut) for depthwise in (0, 1))


@pytest.mark.parametrize("fault", SHIFT_FAULTS)
def test_a_fault_in_a_shift_array_is_found(planted, monkeypatch, fault):
    dut = planted_array(planted, monkeypatch, *SHIFT_FAULTS[fault], shift_array_module, ("ShiftArray", "ShiftRow"))
    fmt = FORMATS["focused"]
    assert any(differences("shift", 4, 8, 0, depthwise, fmt, dut) for depthwise in (0, 1))


def summed(alignments, rows, lanes, seed, depthwise, component=InputSums):
    """Whether the input sums are those of the aligned digits; factors come a cycle after their word."""
    array = "digit" if alignments else "sign"
    config = config_of(array, rows, lanes)
    rng, given = words(config, seed, depthwise)
    most = 9 if alignments == ("shift",) else 256
    factors = rng.integers(most, size=(WORDS, lanes))
    dut = component(config, alignments)
    latency = 2 + -(-(lanes.bit_length() - 1) // 2)
    results = []

    async def bench(ctx):
        for t in range(WORDS + latency):
            if t < WORDS:
                ctx.set(dut.digits.as_value(), pack(given["digits"][t], 4))
                ctx.set(dut.sum_mask, pack(given["sum_mask"][t], 1))
                for name in ("a_signed", "depthwise", "diagonal"):
                    ctx.set(getattr(dut, name), int(given[name][t]))
            if alignments and 0 < t <= WORDS:
                ctx.set(dut.factors.as_value(), pack(factors[t - 1], factor_bits(alignments)))
            if t >= latency:
                results.append([ctx.get(total) for total in dut.sums])
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    scale = 1 if not alignments else 1 << factors if alignments == ("shift",) else factors
    a = digit_values(given["digits"], given["a_signed"][:, None]) * given["sum_mask"] * scale
    size = min(rows, lanes)
    own = np.take_along_axis(a, own_lanes(config, given)[:, :size], axis=1)
    wanted = own if depthwise else np.repeat(a.sum(axis=1)[:, None], size, axis=1)
    return np.array_equal(results, wanted)


@pytest.mark.parametrize("alignments", [(), ("shift",), ("mul",), ("shift", "mul")], ids=lambda kinds: "-".join(kinds))
@pytest.mark.parametrize(("rows", "lanes"), SIZES)
@pytest.mark.parametrize("depthwise", [0, 1])
def test_input_sums_are_those_of_the_aligned_digits(alignments, rows, lanes, depthwise):
    assert summed(alignments, rows, lanes, 3, depthwise)


@pytest.mark.parametrize(
    ("alignments", "old", "new"),
    [
        ((), "Cat(raw, raw[-1] & self.a_signed)", "raw"),
        ((), "Mux(self.sum_mask[lane], ", "Mux(1, "),
        ((), "Mux(self.depthwise, own, total)", "total"),
        ((), "aligned[place * size + at]", "aligned[at]"),
        ((), "delayed(m, self.diagonal, 2,", "delayed(m, self.diagonal, 1,"),
        (("shift",), "(digit << self.factors[lane])", "digit"),
        (("mul",), "digit * self.factors[lane]", "digit * self.factors[0]"),
    ],
    ids=["unsigned", "mask ignored", "one sum", "one diagonal", "early", "not shifted", "one factor"],
)
def test_a_fault_in_the_input_sums_is_found(planted, alignments, old, new):
    faulty = planted(sums_module, old, new)["InputSums"]
    assert not all(summed(alignments, 4, 8, 3, depthwise, faulty) for depthwise in (0, 1))
