from typing import get_args

import numpy as np
import pytest
from gatewise import kernels
from gatewise.kernels.mac import signed_range
from gatewise.kernels.requant import MAX_SHIFT, Rounding
from gatewise.rtl import requant as requant_module
from gatewise.rtl.engine.post import rescale as rescale_module
from gatewise.rtl.engine.post.rescale import Rescale

ROUNDINGS = get_args(Rounding)
IDLE = 4
"""Cycles between layers, in which the last value leaves."""


def layer(rng, in_bits, rounding, ends, count):
    """Values of one layer with their constants: uniform, of any size, corners, and exact ties."""
    least_shift = 31 if rounding == "tflite" else 0
    low, high = signed_range(in_bits)
    uniform = rng.integers(low, high, count, endpoint=True)
    sized = uniform >> rng.integers(0, in_bits, count)
    corners = rng.choice([low, low + 1, high, high - 1, 0, 1, -1], count)
    value = np.choose(rng.integers(0, 4, count), [uniform, sized, sized, corners])
    multiplier = rng.integers(0, 1 << 31, count) >> rng.integers(0, 31, count)
    multiplier[rng.random(count) < 0.1] = (1 << 31) - 1
    size = np.frexp(np.abs(value).astype(float) * multiplier)[1]
    aimed = size - rng.integers(0, 18, count)
    shift = np.where(rng.random(count) < 0.7, aimed, rng.integers(0, MAX_SHIFT + 1, count))
    # An odd multiple of half a step; tflite's first step is 2**31.
    tie = rng.random(count) < 0.4
    power = rng.integers(0, 31, count) if rounding != "tflite" else np.full(count, 30)
    above = rng.integers(0, 4, count)
    odd = rng.integers(-(1 << 12), 1 << 12, count) | 1
    value, multiplier = np.where(tie, odd << above, value), np.where(tie, 1 << power, multiplier)
    shift = np.where(tie, power + 1 + above, shift).clip(least_shift, MAX_SHIFT)
    if not ends:
        return value, multiplier, shift, (0, *signed_range(16))
    zero_point, first, second = rng.choice(
        [*signed_range(16), *rng.integers(-(1 << 15), 1 << 15, 6), *rng.integers(-128, 128, 6)], 3
    )
    if rng.random() < 0.5:
        first, second = signed_range(16)
    return value, multiplier, shift, (zero_point, min(first, second), max(first, second))


def differences(compiled, packed, unpacked, in_bits, ends, component=Rescale, seed=0, layers=30, count=400):
    """Codes and overflow flags, over layers of every rounding with gaps, that are not the golden ones."""
    design = compiled(component(in_bits) if ends else component(in_bits, 16, ends=False))
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("valid", "value", "multiplier", "shift", "rounding", "zero_point", "low", "high")}
    wanted, lost, at = [], [], []
    cycle = 0
    for index in range(layers):
        rounding = ROUNDINGS[index % len(ROUNDINGS)]
        value, multiplier, shift, limits = layer(rng, in_bits, rounding, ends, count)
        valid = rng.random(count) < 0.8
        model = kernels.ScaleRequantizer(in_bits, 31, rounding)
        codes, overflow = model.compute(value[None], multiplier, shift, *map(int, limits))
        wanted += codes[0, valid].tolist()
        lost += overflow[valid].tolist()
        at += (cycle + np.flatnonzero(valid)).tolist()
        stands = [np.full(count + IDLE, each) for each in (ROUNDINGS.index(rounding), *limits)]
        moves = [np.pad(each, (0, IDLE)) for each in (valid.astype(int), value, multiplier, shift)]
        for name, column in zip(columns, [*moves, *stands], strict=True):
            columns[name].append(column)
        cycle += count + IDLE
    bits = {"valid": 1, "value": in_bits, "multiplier": 31, "shift": 6, "rounding": 3}
    bits |= dict.fromkeys(("zero_point", "low", "high"), 17) if ends else {}
    with design.simulate() as simulation:
        found = simulation.vectors(
            {name: packed(np.concatenate(columns[name]), width) for name, width in bits.items()}, ["code", "overflow"]
        )
    at = np.array(at)
    codes = unpacked(found["code"], 17 if ends else 16, 1)[:, 0]
    flags = found["overflow"][:, 0]
    assert len(set(wanted)) > 1000
    return int((codes[at + Rescale.latency] != wanted).sum()) + int((flags[at + 1] != lost).sum())


@pytest.mark.parametrize(("in_bits", "ends"), [(40, True), (56, True), (20, True), (18, False), (17, True)])
def test_every_rounding_is_the_golden_one(compiled, packed, unpacked, in_bits, ends):
    assert differences(compiled, packed, unpacked, in_bits, ends) == 0


@pytest.mark.parametrize(
    ("module", "name", "old", "new"),
    [
        (requant_module, "scale_code", "quotient + zero_point + increment", "quotient + zero_point"),
        (requant_module, "scale_quotient", "(product[TFLITE_SHIFT - 1] & tflite)", "Const(0, 1)"),
        (requant_module, "scale_quotient", "low = Mux(tflite, 0, ", "low = Mux(0, 0, "),
        (requant_module, "scale_quotient", "below |= bit & shifted[:step].any()", "below |= bit & shifted[0]"),
        (requant_module, "scale_quotient", '& ~_is(rounding, "floor")', ""),
        (requant_module, "scale_quotient", '_is(rounding, "half_up") | ~negative', "~negative"),
        (requant_module, "scale_quotient", 'Mux(_is(rounding, "half_even"), odd, ', "Mux(0, 0, "),
        (requant_module, "scale_product", "Mux(tflite, limited, value)", "Mux(0, 0, value)"),
        (requant_module, "scale_code", "Mux(total < low, low, total)", "total"),
        (rescale_module, "Rescale", "valid[0]", "self.valid"),
        (requant_module, "scale_quotient", "Mux(bit, _beyond(moved, bits + step), ", "Mux(bit, 0, "),
        (requant_module, "scale_quotient", "_beyond(shifted, bits + step))", "Const(0, 1))"),
        (rescale_module, "Rescale", "self.rounding, self.out_bits + 2)", "self.rounding, self.out_bits)"),
    ],
    ids=[
        "increment lost",
        "nudge lost",
        "second rounding sees the first",
        "sticky bit",
        "floor rounds",
        "half up",
        "half even",
        "32 bits",
        "low end",
        "stage",
        "loss above a long shift",
        "loss above",
        "narrow quotient",
    ],
)
def test_a_planted_fault_is_found(compiled, packed, unpacked, planted, monkeypatch, module, name, old, new):
    faulty = planted(module, old, new)
    component = faulty.get("Rescale", Rescale)
    if module is requant_module:
        monkeypatch.setattr(rescale_module, name, faulty[name])
    assert differences(compiled, packed, unpacked, 56, True, component) > 0


def test_a_tflite_overflow_is_told(compiled, packed, unpacked, planted, monkeypatch):
    faulty = planted(requant_module, "shift, lost & tflite", "shift, lost")
    monkeypatch.setattr(rescale_module, "scale_product", faulty["scale_product"])
    assert differences(compiled, packed, unpacked, 40, True) > 0
