"""What each PE of a fused array gets of a word of the memory, from the definition of the words."""

from itertools import product

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.fusion import FUSION_MODES
from gatewise.rtl.engine import fusion_operands
from gatewise.rtl.engine.fusion_operands import FusionAddress, FusionOperands

SUBS = {(0, "4x4"): 2, (0, "4x2"): 1, (1, "4x4"): 4, (1, "2x4"): 2, (1, "2x2"): 1}
"""The lane groups of a word, by whether it is narrow and by mode."""
NAMES = [f"{mode.a_bits}x{mode.w_bits}" for mode in FUSION_MODES]


def config_of(lanes):
    return EngineConfig(rows=4, lanes=lanes, array="fusion", act_bytes=4096)


def lane_slots(name, narrow, sub, pe, lanes):
    """(half-word, slot) of every lane of a PE, lane 0 first: as docs/microarchitecture.md has them."""
    match name:
        case "4x4":
            return [(sub // 2, sub % 2 * lanes + pe)] if narrow else [(0, sub * lanes + pe)]
        case "4x2":
            return [(0, pe), (0, lanes + pe)]
        case "2x4":
            return [(sub, pe), (sub, lanes + pe)]
    return [(0, pe), (1, pe), (0, lanes + pe), (1, lanes + pe)]


def register(name, narrow, sub, pe, word, lanes, signed, inside, pad):
    """What the PE must hold, and the bits of it that count."""
    bits = int(name[0])
    value, count = 0, 0
    for half, slot in lane_slots(name, narrow, sub, pe, lanes):
        code = word[slot] >> 2 * half & 3 if narrow else word[slot]
        if narrow and bits == 4 and signed:
            code = (code ^ 2) - 2
        value |= ((code if inside else pad) & (1 << bits) - 1) << count
        count += bits
    return value, (1 << count) - 1


def differences(lanes, unit=FusionOperands):
    """The cases in which a PE's register is not that of the definition."""
    dut = unit(config_of(lanes))
    rng = np.random.default_rng(lanes)
    wrong = []

    async def bench(ctx):
        for ((narrow, name), subs), signed, inside, _ in product(SUBS.items(), (0, 1), (0, 1), range(3)):
            for sub in range(subs):
                word, pad = rng.integers(16, size=2 * lanes).tolist(), int(rng.integers(16))
                ctx.set(dut.word.as_value(), sum(digit << 4 * at for at, digit in enumerate(word)))
                for port, value in (("mode", NAMES.index(name)), ("narrow", narrow), ("sub", sub), ("pad", pad)):
                    ctx.set(getattr(dut, port), value)
                ctx.set(dut.a_signed, signed)
                ctx.set(dut.inside, inside)
                for pe in range(lanes):
                    wanted, mask = register(name, narrow, sub, pe, word, lanes, signed, inside, pad)
                    if ctx.get(dut.digits[pe]) & mask != wanted:
                        wrong.append((narrow, name, sub, pe))

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    return wrong


@pytest.mark.parametrize("lanes", [4, 8])
def test_every_pe_has_the_lanes_of_its_mode_and_sub_word(lanes):
    assert differences(lanes) == []


@pytest.mark.parametrize(("narrow", "name"), SUBS)
def test_the_kernel_deals_channels_as_the_words_do(narrow, name):
    lanes = 8
    channels = FUSION_MODES[NAMES.index(name)].channels(lanes)
    for sub in range(SUBS[narrow, name]):
        for pe in range(lanes):
            places = [half * 2 * lanes + slot for half, slot in lane_slots(name, narrow, sub, pe, lanes)]
            assert [place - sub * channels.size for place in places] == channels[pe].tolist()


FAULTS = {
    "no upper slots": ("self.sub[0] & ~two_lanes", "0"),
    "upper slots of two lanes": ("self.sub[0] & ~two_lanes", "self.sub[0]"),
    "other half": ("Mux(two_lanes, self.sub[0], self.sub[1])", "self.sub[1]"),
    "not extended": ("extends.eq(self.narrow & single)", "extends.eq(0)"),
    "unsigned": ("first[-1] & self.a_signed", "first[-1]"),
    "padding of four bits": ("Mux(narrow_a, self.pad[:SLICE_BITS].replicate(4), ", "Mux(0, self.pad, "),
    "padding forgotten": ("Mux(self.inside, taken, pad)", "taken"),
    "one lane": ("second), high)", "second), low)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(planted, fault):
    assert differences(4, planted(fusion_operands, *FAULTS[fault])["FusionOperands"])


def split(address, narrow, name, unit=FusionAddress):
    dut = unit(config_of(4))
    found = []

    async def bench(ctx):
        ctx.set(dut.address, address)
        ctx.set(dut.mode, NAMES.index(name))
        ctx.set(dut.narrow, narrow)
        found.extend((ctx.get(dut.word), ctx.get(dut.sub)))

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    return tuple(found)


@pytest.mark.parametrize(("narrow", "name"), SUBS)
def test_an_address_counts_the_lane_groups_of_words(narrow, name):
    words = 4096 // 4
    for place in (0, 5, 6, 7, 3 * words, 4 * words - 1):
        address = place % (words * SUBS[narrow, name])
        assert split(address, narrow, name) == divmod(address, SUBS[narrow, name])


@pytest.mark.parametrize(
    ("old", "new"),
    [("fours = settled(m, self.narrow", "fours = settled(m, 0 & self.narrow"), ("self.mode.xor()) |", "0) |")],
)
def test_a_fault_in_the_address_is_found(planted, old, new):
    faulty = planted(fusion_operands, old, new)["FusionAddress"]
    assert any(
        split(7 % count, narrow, name, faulty) != divmod(7 % count, count) for (narrow, name), count in SUBS.items()
    )
