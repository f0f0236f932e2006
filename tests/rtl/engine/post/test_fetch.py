"""Operand fetch: every read, every code, and the cycle of each."""

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.rtl.engine.post import fetch as fetch_module
from gatewise.rtl.engine.post.fetch import Fetch


@dataclass
class Case:
    """Operands of a layer; a `shift` is the operand's channel that meets output channel 0."""

    outputs: int
    out_size: tuple
    first: object = None
    other: object = None
    kernel: tuple = (1, 1)
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    first_shift: int = 0
    other_shift: int = 0
    other_stride: tuple = (1, 1)
    zeros: tuple = (0, 0)
    straddles: int = 0
    groups: int = 1
    depthwise: bool = False


def random_case(config, room, rng, pool):
    def planes():
        return int(rng.choice([1, 2, 4]))

    def size(out, kernel, stride, padding):
        # Some rows and columns may be left over, and the last windows may lie in the padding.
        least = [(o - 1) * s + k - 2 * p for o, k, s, p in zip(out, kernel, stride, padding, strict=True)]
        return tuple(max(1, at) + int(rng.integers(0, 2)) for at in least)

    outputs = int(rng.integers(1, 2 * config.rows + 2))
    out = tuple(int(at) for at in rng.integers(1, 5, 2))
    pair = [tuple(int(at) for at in rng.integers(1, 3, 2)) for _ in range(2)]
    case = Case(outputs, out, stride=pair[0], other_stride=pair[1])
    if not pool:
        case.groups, case.depthwise = int(rng.choice([1, 2])), bool(rng.integers(0, 2))
    channels = outputs * case.groups
    if pool:
        case.kernel = tuple(int(at) for at in rng.integers(1, 4, 2))
        case.padding = tuple(int(rng.integers(0, at)) for at in case.kernel)
    if pool or rng.random() < 0.7:
        inside = size(out, case.kernel, case.stride, case.padding)
        case.first = room.filled((channels, *inside), planes(), bool(rng.integers(0, 2)))
    if not pool and (case.first is None or rng.random() < 0.7):
        less = int(rng.integers(0, channels))
        case.other = room.filled((channels - less, *size(out, (1, 1), pair[1], (0, 0))), planes(), bool(less % 2))
        case.other_shift = -int(rng.integers(0, less + 1))
    if not pool and case.first is not None:
        case.first_shift = int(rng.integers(-2, 3))
    case.zeros = tuple(int(at) for at in rng.integers(-(1 << 15), 1 << 15, 2))
    case.straddles = int(rng.integers(0, 2))
    return case


def differences(config, cases, tensors, memory, rng, unit=Fetch):
    """What the unit does otherwise than it must, as text."""
    dut = unit(config)
    wrong = []

    async def bench(ctx):
        for at, case in enumerate(cases):
            await run_layer(ctx, at, case)

    async def run_layer(ctx, index, case):
        blocks = tensors.row_groups(config, case.outputs, case.groups, case.depthwise)
        values = tensors.fetch_registers(config, case, blocks)
        plan = tensors.fetched_slots(config, case, values, blocks)
        begins, reads, taps, words, ready = set(), {}, {}, {}, set()
        at = 0
        for number, (slot, addresses, tap_codes, other) in enumerate(plan):
            begins.add(at)
            reads |= {at + n: address for n, address in enumerate(addresses)}
            size = len(addresses) - (case.other.planes * (1 + values["other_straddles"]) if case.other else 0)
            for n, codes in enumerate(tap_codes):
                taps[at + size // len(tap_codes) * (n + 1) + 1] = slot, codes
            ready.add(at + len(addresses) + 1)
            least = max(1, len(addresses))
            step = least if number % 3 else least + int(rng.integers(0, 4))
            first = tap_codes[-1] if tap_codes else None
            # They stand until the next slot's are there.
            for cycle in (at + len(addresses) + 2, at + step + len(addresses) + 1):
                words[cycle] = slot, first, other
            at += step
        ctx.set(dut.layer, values)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(at + 30):
            ctx.set(dut.slot, int(cycle in begins))
            read, address = ctx.get(dut.read), ctx.get(dut.address)
            found = {
                "read": (bool(read), address if read else None),
                "tap": (bool(ctx.get(dut.tap_valid)), None),
                "ready": bool(ctx.get(dut.ready)),
            }
            wanted = {"read": (cycle in reads, reads.get(cycle)), "tap": (cycle in taps, None), "ready": cycle in ready}
            if cycle in taps and found["tap"][0]:
                slot, codes = taps[cycle]
                inside = bool(ctx.get(dut.tap_inside))
                found["tap"] = inside, [ctx.get(dut.tap[lane]) for lane in range(slot.count)] if inside else None
                wanted["tap"] = codes is not None, codes
            if cycle in words:
                slot, first, other = words[cycle]
                for name, codes in (("first", first), ("other", other)):
                    if codes is not None:
                        port = getattr(dut, name)
                        found[name] = [ctx.get(port[lane]) for lane in range(slot.count)]
                        wanted[name] = codes
            wrong.extend(
                f"layer {index} cycle {cycle}: {name} {found[name]}, not {wanted[name]}"
                for name in found
                if found[name] != wanted[name]
            )
            if len(wrong) > 3:
                return
            await ctx.tick()
            row = memory[address] if read else rng.integers(0, 16, config.word_digits)
            ctx.set(dut.data, [int(digit) for digit in row])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return wrong


def layers(config, tensors, seed, count):
    rng = np.random.default_rng(seed)
    room = tensors.Room(config, rng)
    memory = rng.integers(0, 16, (room.size, config.word_digits))
    cases = [random_case(config, room, rng, at % 3 == 2) for at in range(count - 2)]
    # Nothing to read; a window that lies in the padding on every side.
    cases.insert(1, Case(config.rows + 1, (2, 1)))
    image = room.filled((config.lanes + 1, 3, 3), 1)
    cases.append(Case(config.lanes + 1, (2, 2), image, kernel=(3, 3), stride=(2, 2), padding=(1, 1)))
    for case in cases:
        for tensor in filter(None, (case.first, case.other)):
            tensor.store(memory)
    return cases, memory, rng


@pytest.mark.parametrize(
    ("rows", "lanes", "seed", "array"),
    [(4, 4, 1, "digit"), (8, 4, 2, "digit"), (4, 8, 3, "digit"), (4, 16, 4, "digit"), (8, 4, 2, "fusion")],
)
def test_reads_and_codes_are_those_of_the_definition(rows, lanes, seed, array, tensors):
    config = EngineConfig(rows=rows, lanes=lanes, pixels=16, act_bytes=1 << 14, array=array)
    cases, *rest = arranged(layers(config, tensors, seed, 9), tensors)
    kinds = {(tensor.narrow, tensor.signed) for case in cases for tensor in (case.first, case.other) if tensor}
    assert {(True, False), (True, True)} <= kinds or array == "digit"
    assert differences(config, cases, *rest) == []


def arranged(made, tensors):
    cases, memory, rng = made
    return cases, tensors, memory, rng


FAULTS = {
    "address off by one": ("pixel.address + layer.row_step", "pixel.address + layer.row_step + 1"),
    "other address off by one": ("other + layer.other_row_step", "other + layer.other_row_step - 1"),
    "turned the other way": ("turn = channel[", "turn = (-channel)["),
    "a lane from the wrong half": ("Cat(turn >= word_digits - lane", "Cat(turn > word_digits - lane"),
    "stale half": ("in_second ^ word.half.replicate(size)", "in_second & ~word.half.replicate(size)"),
    "plane order": ("(value & taken_bits)", "(turned & taken_bits)"),
    "unsigned": ("Cat(code, code[-1] & has_sign)", "Cat(code, 0)"),
    "no sign above": ("turned[DIGIT_BITS * (lane + 1) - 1] & has_sign", "turned[DIGIT_BITS * (lane + 1) - 1] & 0"),
    "zero points swapped": ("Mux(done.tensor, layer.other_zero", "Mux(~done.tensor, layer.other_zero"),
    "one channel too many": ("(bounds[1] > lane)", "(bounds[1] >= lane)"),
    "pixel not reset": ("with m.If(slots.pixel_last):", "with m.If(0):"),
    "tap not reset": ("tap.eq(first_tap)]\n            with m.Elif", "tap.x.eq(first_tap.x)]\n            with m.Elif"),
    "padding not outside": ("(y < layer.in_height) & (x < layer.in_width)", "(y < layer.in_height)"),
    "first operand too late": ("Mux(done.tensor, waiting, self.tap)", "self.tap"),
    "ready a cycle early": ("word.valid & word.slot_last)", "self.read & words.slot_last)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted, tensors):
    config = EngineConfig(rows=8, lanes=4, pixels=16, act_bytes=1 << 14)
    unit = planted(fetch_module, *FAULTS[fault])["Fetch"]
    assert differences(config, *arranged(layers(config, tensors, 5, 12), tensors), unit) != []


NARROW_FAULTS = {
    "the other half": ("Mux(upper, digit[SLICE_BITS:], digit[:SLICE_BITS])", "Mux(upper, digit[:2], digit[2:])"),
    "half of the next read": ("m.d.sync += upper.eq(address[0])", "m.d.comb += upper.eq(address[0])"),
    "no sign above": ("(code[-1] & has_sign).replicate", "(code[-1] & 0).replicate"),
    "sign of the other operand": ("self._half_word(upper, self._has_sign(m, word))", "self._half_word(upper, 1)"),
    "half-words for words": ("word_address(address, narrow)", "word_address(address, None)"),
    "narrow as the other operand": ('word.tensor, ("first", "other")', 'word.tensor, ("other", "first")'),
    "addresses as the other operand": ('words.tensor, ("first", "other")', 'words.tensor, ("other", "first")'),
}


@pytest.mark.parametrize("fault", NARROW_FAULTS)
def test_a_fault_in_half_words_is_found(fault, planted, tensors):
    config = EngineConfig(rows=8, lanes=4, pixels=16, act_bytes=1 << 14, array="fusion")
    unit = planted(fetch_module, *NARROW_FAULTS[fault])["Fetch"]
    assert differences(config, *arranged(layers(config, tensors, 3, 12), tensors), unit) != []


@pytest.mark.parametrize(("array", "seed"), [("digit", 5), ("fusion", 3)])
def test_the_layers_of_the_faults_agree(array, seed, tensors):
    config = EngineConfig(rows=8, lanes=4, pixels=16, act_bytes=1 << 14, array=array)
    assert differences(config, *arranged(layers(config, tensors, seed, 12), tensors)) == []
