from typing import get_args

import numpy as np
import pytest
from gatewise import kernels
from gatewise.kernels.mac import signed_range
from gatewise.kernels.requant import CONSTANT, MAX_SHIFT, Rounding, narrowed
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


def differences(design, packed, unpacked, in_bits, ends=True, fault=0, seed=0, layers=30, count=400, narrows=False):
    """Codes and overflow flags, over layers of every rounding with gaps, that are not the golden ones."""
    rng = np.random.default_rng(seed)
    moving = ("valid", "value", "multiplier", "shift", *(("fewer",) if narrows else ()))
    columns = {name: [] for name in (*moving, "rounding", "zero_point", "low", "high")}
    wanted, lost, at = [], [], []
    cycle = 0
    for index in range(layers):
        rounding = ROUNDINGS[index % len(ROUNDINGS)]
        value, multiplier, shift, limits = layer(rng, in_bits, rounding, ends, count)
        valid = rng.random(count) < 0.8
        model = kernels.ScaleRequantizer(in_bits, 31, rounding)
        fewer = rng.integers(0, CONSTANT + 1, count) * narrows
        zero_point, *clamp = map(int, limits)
        clamp = [narrowed(end, fewer) for end in clamp]
        codes, overflow = model.compute(value[None], multiplier, shift, zero_point, *clamp)
        wanted += codes[0, valid].tolist()
        lost += overflow[valid].tolist()
        at += (cycle + np.flatnonzero(valid)).tolist()
        stands = [np.full(count + IDLE, each) for each in (ROUNDINGS.index(rounding), *limits)]
        moves = [valid.astype(int), value, multiplier, shift, *((fewer,) if narrows else ())]
        moves = [np.pad(each, (0, IDLE)) for each in moves]
        for name, column in zip(columns, [*moves, *stands], strict=True):
            columns[name].append(column)
        cycle += count + IDLE
    bits = {"valid": 1, "value": in_bits, "multiplier": 31, "shift": 6, "rounding": 3}
    bits |= dict.fromkeys(("zero_point", "low", "high"), 17) if ends else {}
    bits |= {"fewer": 4} if narrows else {}
    with design.simulate() as simulation:
        if fault:
            simulation.poke("fault", fault)
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
    component = Rescale(in_bits) if ends else Rescale(in_bits, 16, ends=False)
    assert differences(compiled(component), packed, unpacked, in_bits, ends) == 0


def test_each_channel_has_its_own_ends(compiled, packed, unpacked):
    assert differences(compiled(Rescale(40, narrows=True)), packed, unpacked, 40, narrows=True) == 0


FAULTS = {
    "increment lost": (
        "quotient + zero_point + increment",
        "quotient + zero_point + increment",
        "quotient + zero_point",
    ),
    "nudge lost": ("(product[TFLITE_SHIFT - 1] & tflite)", "product[TFLITE_SHIFT - 1] & tflite", "Const(0, 1)"),
    "second rounding sees the first": ("low = Mux(tflite, 0, ", "tflite", "0"),
    "sticky bit": ("below |= bit & shifted[:step].any()", "shifted[:step].any()", "shifted[0]"),
    "floor rounds": ('& ~_is(rounding, "floor")', '~_is(rounding, "floor")', "Const(1, 1)"),
    "half up": ('_is(rounding, "half_up") | ~negative', '_is(rounding, "half_up") | ~negative', "~negative"),
    "half even": ('Mux(_is(rounding, "half_even"), odd, ', '_is(rounding, "half_even")', "0"),
    "32 bits": ("Mux(tflite, limited, value)", "tflite", "0"),
    "low end": ("Mux(total < low, low, total)", "total < low", "0"),
    "loss above a long shift": (
        "Mux(bit, _beyond(moved, bits + step), ",
        "_beyond(moved, bits + step)",
        "0",
    ),
    "loss above": ("_beyond(shifted, bits + step))", "_beyond(shifted, bits + step)", "Const(0, 1)"),
}
"""In what the rescalers have of `requant.py`."""


@pytest.fixture(scope="module")
def faulty(compiled, planted_together):
    """A build with all of them, of which an input chooses one."""
    names, choosing = planted_together({fault: (requant_module, *what) for fault, what in FAULTS.items()})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("scale_product", "scale_quotient", "scale_code"):
            patch.setattr(rescale_module, name, names[requant_module][name])
        return compiled(choosing(Rescale(56)))


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_planted_fault_is_found(packed, unpacked, faulty, fault):
    number = 0 if fault is None else 1 + list(FAULTS).index(fault)
    assert (differences(faulty, packed, unpacked, 56, fault=number) == 0) == (fault is None)


@pytest.mark.parametrize(
    ("old", "new"),
    [("valid[0]", "self.valid"), ("self.rounding, self.out_bits + 2)", "self.rounding, self.out_bits)")],
    ids=["stage", "narrow quotient"],
)
def test_a_fault_in_a_rescaler_is_found(compiled, packed, unpacked, planted, old, new):
    component = planted(rescale_module, old, new)["Rescale"]
    assert differences(compiled(component(56)), packed, unpacked, 56) > 0


def test_a_tflite_overflow_is_told(compiled, packed, unpacked, planted, monkeypatch):
    faulty = planted(requant_module, "shift, lost & tflite", "shift, lost")
    monkeypatch.setattr(rescale_module, "scale_product", faulty["scale_product"])
    assert differences(compiled(Rescale(40)), packed, unpacked, 40) > 0
