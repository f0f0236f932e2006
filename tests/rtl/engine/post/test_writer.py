"""The writer: every write, in its cycle, and nothing else in the memory changed."""

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.rtl.engine.post import writer as writer_module
from gatewise.rtl.engine.post.writer import Writer


@dataclass
class Case:
    """A layer's results; `shifts` are the channels of the tensors that output channel 0 is."""

    outputs: int
    pixels: int
    out: object = None
    second: object = None
    shifts: tuple = (0, 0)
    groups: int = 1
    depthwise: bool = False
    pool: bool = False
    straddles: int = 0

    @property
    def targets(self):
        return [("out", self.out, self.shifts[0]), ("second", self.second, self.shifts[1])]


def random_case(config, room, rng, at):
    case = Case(int(rng.integers(1, 2 * config.rows + 2)), int(rng.integers(1, 5)), pool=at % 3 == 2)
    if not case.pool:
        case.groups, case.depthwise = int(rng.choice([1, 2])), bool(rng.integers(0, 2))
    channels = case.outputs * case.groups
    # More channels than the layer writes: a part of a concatenation.
    before, after = (int(more) for more in rng.integers(0, 4, 2))
    kinds = [True, False] if case.pool else [[True, True], [True, False], [False, True]][at % 3]
    tensors = []
    for wanted in kinds:
        planes = int(rng.choice([1, 2, 4]))
        shape = (before + channels + after, 1, case.pixels)
        tensors.append(room.filled(shape, planes, bool(rng.integers(0, 2))) if wanted else None)
    case.out, case.second = tensors
    case.shifts = before, before
    case.straddles = int(rng.integers(0, 2))
    return case


def differences(config, cases, tensors, rng, unit=Writer):
    dut = unit(config)
    wrong = []
    size, post_lanes = min(config.rows, config.lanes), config.post_lanes

    def layer_plan(case):
        """By cycle: codes that come, the writes that must follow; and the cycle of the last."""
        blocks = tensors.row_groups(config, case.outputs, case.groups, case.depthwise)
        values = {
            "out_pixels": case.pixels,
            "groups": case.groups,
            "group_outputs": case.outputs,
            "depthwise": int(case.depthwise),
            **tensors.write_registers(config, case, blocks),
        }
        given, writes = {}, {}
        end = -1
        for number, slot in enumerate(tensors.slots(config, blocks, case.pixels)):

            def codes(tensor, shift, slot=slot):
                noise = rng.integers(-(1 << 16), 1 << 16, size)
                if tensor is not None:
                    low = shift + slot.channel
                    noise[: slot.count] = tensor.codes[low : low + slot.count, 0, slot.pixel]
                return noise.tolist()

            words = [codes(tensor, shift) for _, tensor, shift in case.targets]
            first_chunk = (slot.channel - blocks[slot.row_group][0]) // post_lanes
            expected = tensors.slot_writes(config, case, values, slot)
            beats = 1 if case.pool else values["beats"]
            # The codes come as early as the writes before allow, now and then a little later.
            at = max(end + 1, end + len(expected) - beats + 1) + (number % 4 == 3)
            for beat in range(beats):
                given[at + beat] = first_chunk + beat, beat, words
            end = at + beats - 1
            writes |= {end + 2 + n: write for n, write in enumerate(expected)}
        return values, given, writes

    async def bench(ctx):
        for index, case in enumerate(cases):
            values, given, writes = layer_plan(case)
            ctx.set(dut.layer, values)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for cycle in range(max(writes) + 6):
                chunk, beat, words = given.get(cycle, (0, 0, None))
                ctx.set(dut.pool_valid, int(words is not None and case.pool))
                ctx.set(dut.codes_valid, int(words is not None and not case.pool))
                ctx.set(dut.codes_chunk, chunk)
                part = slice(beat * post_lanes, (beat + 1) * post_lanes)
                for port, port_codes in zip((dut.out, dut.second), words or (), strict=False):
                    ctx.set(port, port_codes[part])
                if words is not None:
                    ctx.set(dut.pool, words[0])
                mask = ctx.get(dut.write_mask)
                parts = tensors.written(config, mask, ctx.get(dut.write_data.as_value()))
                found = (ctx.get(dut.write_address), parts) if mask else None
                wanted = writes.get(cycle)
                if wanted is not None and not wanted[1]:
                    wanted = None
                if found != wanted:
                    wrong.append(f"layer {index} cycle {cycle}: {found}, not {wanted}")
                if bool(ctx.get(dut.done)) != (cycle == max(writes)):
                    wrong.append(f"layer {index} cycle {cycle}: done is {ctx.get(dut.done)}")
                if len(wrong) > 3:
                    return
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return wrong


def layers(config, tensors, seed, count):
    rng = np.random.default_rng(seed)
    room = tensors.Room(config, rng)
    cases = [random_case(config, room, rng, at) for at in range(count - 1)]
    # A slot of one beat whatever the post lanes are.
    cases.append(Case(config.post_lanes, 4, room.filled((config.post_lanes, 1, 4), 1)))
    return cases, rng


@pytest.mark.parametrize(
    ("rows", "lanes", "post_lanes", "seed", "array"),
    [
        (4, 4, 4, 1, "digit"),
        (4, 4, 1, 2, "digit"),
        (8, 4, 2, 3, "digit"),
        (16, 4, 4, 4, "digit"),
        (4, 8, 2, 5, "digit"),
        (4, 16, 4, 6, "digit"),
        (8, 4, 2, 7, "fusion"),
        (4, 8, 4, 8, "fusion"),
    ],
)
def test_writes_are_those_of_the_definition(rows, lanes, post_lanes, seed, array, tensors):
    assert Writer.latency == 2
    config = EngineConfig(rows=rows, lanes=lanes, pixels=16, post_lanes=post_lanes, act_bytes=1 << 14, array=array)
    cases, rng = layers(config, tensors, seed, 8)
    kinds = {tensor.narrow for case in cases for _, tensor, _ in case.targets if tensor is not None}
    assert kinds == ({False, True} if array == "fusion" else {False})
    assert differences(config, cases, tensors, rng) == []


FAULTS = {
    "address off by one": ("place + layer[f", "place + 1 + layer[f"),
    "pixel not reset": ("Mux(slots.pixel_last, 0, place", "Mux(0, 0, place"),
    "second half at the first": ("ceil_log2(word_digits)) + words.half)", "ceil_log2(word_digits)))"),
    "turned the other way": ("turn = channel[", "turn = (-channel)["),
    "plane order": ("[Cat(words.plane, words.tensor)]", "[Cat(~words.plane, words.tensor)]"),
    "every lane": ("Cat(slots.channels > lane for", "Cat(slots.channels >= lane for"),
    "wrong half's lanes": ("Mux(words.half, used_moved[word_digits:]", "Mux(~words.half, used_moved[word_digits:]"),
    "stale chunk": ("parts.append(Mux(chunk == at, part, waiting))", "parts.append(waiting)"),
    "early word lost": (
        "complete | (writing & ~words.slot_last)",
        "complete & ~writing | (writing & ~words.slot_last)",
    ),
    "codes taken too early": ("with m.If(complete):", "with m.If(self.codes_valid):"),
    "done a slot early": ("slots.layer_last)", "slots.pixel_last)"),
    "tensors swapped": ("channels[1], channels[0]", "channels[0], channels[1]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted, tensors):
    config = EngineConfig(rows=8, lanes=4, pixels=16, post_lanes=2, act_bytes=1 << 14)
    unit = planted(writer_module, *FAULTS[fault])["Writer"]
    cases, rng = layers(config, tensors, 7, 6)
    assert differences(config, cases, tensors, rng, unit) != []


NARROW_FAULTS = {
    "both halves": ("bit & lower_half, bit & upper_half", "bit, bit"),
    "the other half": (
        "mask, word = _half_word(m, narrow, address[0]",
        "mask, word = _half_word(m, narrow, ~address[0]",
    ),
    "always the lower half": ("_half_word(m, narrow, address[0]", "_half_word(m, narrow, address[0] & 0"),
    "half-words for words": ("word_address(address, narrow)", "word_address(address, None)"),
    "upper bits of a narrow code": ("Mux(narrow, digit[:SLICE_BITS], digit", "Mux(~narrow, digit[:SLICE_BITS], digit"),
    "narrow as the other tensor": ('words.tensor, ("out", "second")', 'words.tensor, ("second", "out")'),
}


@pytest.mark.parametrize("fault", NARROW_FAULTS)
def test_a_fault_in_half_words_is_found(fault, planted, tensors):
    config = FUSION
    unit = planted(writer_module, *NARROW_FAULTS[fault])["Writer"]
    cases, rng = layers(config, tensors, 7, 6)
    assert differences(config, cases, tensors, rng, unit) != []


def test_codes_that_share_a_word_come_from_different_slots_and_leave_each_other_alone(tensors):
    """A write port that enables two bits at a time needs no read of the other half."""
    rng = np.random.default_rng(9)
    room = tensors.Room(FUSION, rng)
    case = Case(14, 3, room.filled((14, 1, 3), 1))
    while not case.out.narrow:
        case.out = room.filled((14, 1, 3), 1)
    blocks = tensors.row_groups(FUSION, case.outputs)
    values = tensors.write_registers(FUSION, case, blocks)
    writers = {}
    for number, slot in enumerate(tensors.slots(FUSION, blocks, case.pixels)):
        for address, parts in tensors.slot_writes(FUSION, case, values, slot):
            for enable in parts:
                writers.setdefault((address, enable // 2), set()).add((number, enable % 2))
    shared = [places for places in writers.values() if len({number for number, _ in places}) > 1]
    assert shared
    assert all(len({half for _, half in places}) == len(places) == 2 for places in shared)
    assert differences(FUSION, [case], tensors, rng) == []


FUSION = EngineConfig(rows=8, lanes=4, pixels=16, post_lanes=2, act_bytes=1 << 14, array="fusion")


def test_the_layers_of_the_faults_agree(tensors):
    config = EngineConfig(rows=8, lanes=4, pixels=16, post_lanes=2, act_bytes=1 << 14)
    cases, rng = layers(config, tensors, 7, 6)
    assert differences(config, cases, tensors, rng) == []
