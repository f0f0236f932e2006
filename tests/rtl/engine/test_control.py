"""Control with the bus reader, the transfers and the memory: all of the engine but its arithmetic."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator
from gatewise import EngineConfig, ToolMissingError
from gatewise.rtl import cxxrtl
from gatewise.rtl.cxxrtl import BusPorts, BusTiming
from gatewise.rtl.engine import check, control
from gatewise.rtl.engine.act_memory import ActMemory
from gatewise.rtl.engine.check import ErrorCode
from gatewise.rtl.engine.control import Control
from gatewise.rtl.engine.reader import BusReader
from gatewise.rtl.engine.transfer import Transfer, write_layout
from gatewise.sim.descriptor import ADDRESS_BITS, OPERATIONS, act_words, descriptor_words, encode_descriptor

BUS = BusPorts("request", "words", "write")
POST_CYCLES = 9
POST_OPS = (OPERATIONS.index("max_pool"), OPERATIONS.index("average_pool"))


class Outside(wiring.Component):
    """An engine without array and post unit: a pool writes nothing and is done `POST_CYCLES` after its `begin`.

    With `clash` another reader of the memory reads what the transfer reads.
    """

    def __init__(self, config):
        self.config = config
        self.control = Control(config)
        states = ("error", "error_layer", "current", "layer_done", "layer_index", "layer_cycles", "total_cycles")
        members = self.control.signature.members
        super().__init__(
            {
                "start": In(1),
                "base": In(ADDRESS_BITS),
                "clash": In(1),
                "select": In(8),
                "request": Out(stream.Signature(ADDRESS_BITS)),
                "words": In(stream.Signature(config.bus_bits)),
                "write": Out(stream.Signature(write_layout(config))),
                "idle": Out(1),
                "value": Out(32),
                **{name: members[name] for name in states},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = self.control
        m.submodules.reader = reader = BusReader(self.config)
        m.submodules.memory = memory = ActMemory(self.config)
        m.submodules.transfer = transfer = Transfer(self.config)
        connect(m, flipped(self.words), reader.words)
        connect(m, reader.request, flipped(self.request))
        connect(m, reader.descriptor, control.words)
        connect(m, reader.data, transfer.words)
        connect(m, transfer.write, flipped(self.write))
        left = Signal(range(POST_CYCLES + 1))
        with m.If(control.begin & control.layer.op.matches(*POST_OPS)):
            m.d.sync += left.eq(POST_CYCLES)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        for name in ("start", "base", "select"):
            m.d.comb += getattr(control, name).eq(getattr(self, name))
        for name in self.signature.members:
            if name in control.signature.members and name not in ("start", "base", "select", "words"):
                m.d.comb += getattr(self, name).eq(getattr(control, name))
        m.d.comb += [
            self.idle.eq(~control.busy),
            reader.layer.eq(control.layer),
            reader.fetch.eq(control.fetch),
            reader.fetch_address.eq(control.fetch_address),
            reader.start.eq(control.begin),
            transfer.layer.eq(control.layer),
            transfer.start.eq(control.begin),
            memory.array_read.eq(self.clash),
            memory.array_address.eq(transfer.act_address),
            memory.post_read.eq(transfer.act_read),
            memory.post_address.eq(transfer.act_address),
            transfer.act_read_data.eq(memory.post_data),
            memory.write_mask.eq(transfer.act_write.replicate(self.config.lanes)),
            memory.write_address.eq(transfer.act_address),
            memory.write_data.eq(transfer.act_write_data),
            control.conflict.eq(memory.conflict),
            control.done.eq(transfer.done | (left == 1)),
        ]
        return m


CONFIGS = [
    EngineConfig(rows=4, lanes=lanes, pixels=16, bus_bits=bus, bus_latency=200, act_bytes=4096)
    for lanes, bus in ((4, 8), (4, 64), (16, 64))
]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: f"{config.bus_bits} bits, {config.lanes} lanes")
def outside(request, tmp_path_factory):
    try:
        cxxrtl.find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    config = request.param
    return config, cxxrtl.compile_design(Outside(config), cache=tmp_path_factory.mktemp("cosim"))


POOL = {
    "out_pixels": 5, "groups": 1, "group_outputs": 3, "kernel_y": 2, "kernel_x": 2, "interval": 7,
    "first_planes": 1, "out_planes": 1,
}  # fmt: skip


def round_trip(rng, config, base):
    """A program that loads tensors, waits, and stores them elsewhere, planes changing their order.

    Returns the layers, a memory image, what it must hold at the end, and the words that each layer moves.
    """
    bits, bus = 4 * config.lanes, config.bus_bits
    room = act_words(config) // 8
    size = base + 12 * descriptor_words(config) + 6 * 36 * max(1, bits // bus)
    program, moved = [], []
    memory = rng.integers(0, 256, (size, bus // 8), dtype=np.uint8)
    wanted = memory.copy()
    at = base + 12 * descriptor_words(config)
    for tensor in range(3):
        planes, pixels, step = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
        words = planes * pixels * step
        starts = [int(start) * room + int(rng.integers(room - 9)) for start in rng.permutation(8)[:planes]]
        bus_words = -(-words * bits // bus)
        load = {"stream": at, "out_pixels": pixels, "out_planes": planes, "out_pixel_step": step}
        store = {"stream": at + bus_words, "out_pixels": pixels * step, "first_planes": planes, "pixel_step": 1}
        program.append(("load", load | {f"out_plane_{plane}": start for plane, start in enumerate(starts)}))
        if tensor == 1:
            program.append(("max_pool", POOL))
        program.append(("store", store | {f"first_plane_{plane}": start for plane, start in enumerate(starts[::-1])}))
        moved += [words] + [0] * (tensor == 1) + [words]
        data = int.from_bytes(memory[at : at + bus_words].tobytes(), "little") & ((1 << words * bits) - 1)
        plane_bits = pixels * step * bits
        parts = [data >> plane * plane_bits & ((1 << plane_bits) - 1) for plane in range(planes)]
        turned = sum(part << plane * plane_bits for plane, part in enumerate(parts[::-1]))
        at += bus_words
        stored = np.frombuffer(turned.to_bytes(bus_words * bus // 8, "little"), dtype=np.uint8)
        wanted[at : at + bus_words] = stored.reshape(bus_words, -1)
        at += bus_words
    descriptors = np.concatenate([encode_descriptor(config, op, layer) for op, layer in [*program, ("end", {})]])
    for image in (memory, wanted):
        image[base : base + len(descriptors)] = descriptors
    return program, memory, wanted, moved


def stated_cycles(config, op, words, latency):
    """Of a layer, by the rules in the docstring of `Control`."""
    descriptor = descriptor_words(config)
    begin = descriptor + latency + 3
    if op == "load":
        return begin + latency + 2 + words * max(1, 4 * config.lanes // config.bus_bits)
    if op == "store":
        return begin + 2 + words * max(1, 4 * config.lanes // config.bus_bits)
    return begin + POST_CYCLES


@pytest.mark.parametrize("latency", [0, 1, 20, 200])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_tensors_come_back_and_layers_take_their_cycles(outside, latency, stall):
    config, design = outside
    rng = np.random.default_rng(latency)
    with design.simulate() as simulation:
        base = int(rng.integers(20))
        program, memory, wanted, moved = round_trip(rng, config, base)
        bus = simulation.attach_bus(BUS, memory, BusTiming(latency, stall, seed=1))
        layers = simulation.record("layer_done", ["layer_index", "layer_cycles"])
        for _ in range(2):
            simulation.poke("base", base)
            simulation.poke("start", 1)
            simulation.run(1)
            begun = simulation.cycle
            simulation.poke("start", 0)
            assert simulation.peek("idle") == 0
            passed = simulation.run(100_000, "idle")
            assert np.array_equal(memory, wanted)
            taken = layers.take()
            cycles = taken.words["layer_cycles"][:, 0].tolist()
            assert taken.words["layer_index"][:, 0].tolist() == list(range(len(program)))
            if not stall:
                assert cycles == [
                    stated_cycles(config, op, n, latency) for (op, _), n in zip(program, moved, strict=True)
                ]
                assert passed == sum(cycles) + descriptor_words(config) + latency + 3
            assert (taken.cycles - begun).tolist() == np.cumsum(cycles).tolist()
            assert simulation.peek("total_cycles") == sum(cycles)
            assert simulation.peek("error") == ErrorCode.NONE
            for number, count in enumerate(cycles):
                simulation.poke("select", number)
                simulation.run(1)
                assert simulation.peek("value") == count
        bits = config.bus_bits
        read = sum(-(-n * 4 * config.lanes // bits) for (op, _), n in zip(program, moved, strict=True) if op == "load")
        assert bus.words_read == 2 * (read + (len(program) + 1) * descriptor_words(config))


def test_readers_that_meet_in_a_bank_stop_the_engine_after_the_layer(outside):
    config, design = outside
    with design.simulate() as simulation:
        program, memory, _, moved = round_trip(np.random.default_rng(2), config, 0)
        simulation.attach_bus(BUS, memory, BusTiming(0))
        layers = simulation.record("layer_done", ["layer_cycles"])
        for clash, error in ((1, ErrorCode.BANK_CONFLICT), (0, ErrorCode.NONE)):
            simulation.poke("clash", clash)
            simulation.poke("start", 1)
            simulation.run(1)
            simulation.poke("start", 0)
            simulation.run(100_000, "idle")
            assert simulation.peek("error") == error
            assert simulation.peek("error_layer") == (1 if clash else 0)
            cycles = layers.take().words["layer_cycles"][:, 0].tolist()
            done = program[:2] if clash else program
            assert cycles == [stated_cycles(config, op, n, 0) for (op, _), n in zip(done, moved, strict=False)]


CONFIG = EngineConfig(rows=8, lanes=4, pixels=16, bus_bits=128, act_bytes=4096, post_lanes=2)
WINDOW = {"groups": 1, "group_outputs": 3, "kernel_y": 2, "kernel_x": 3, "out_planes": 1, "out_pixels": 9}
GOOD = {
    "load": {"out_pixels": 1, "out_planes": 4, "out_pixel_step": 1},
    "store": {"out_pixels": 1, "first_planes": 4, "pixel_step": 1},
    "mac": {
        **WINDOW, "groups": 2, "group_inputs": 5, "tile_pixels": 16, "beats": 4, "thresholds": 15, "other_planes": 4,
        "other_straddles": 1, "interval": 8,
    },
    "max_pool": {**WINDOW, "first_planes": 4, "interval": 24},
    "average_pool": {**WINDOW, "first_planes": 1, "interval": 17},
    "stream": {
        **WINDOW, "kernel_y": 1, "kernel_x": 1, "first_planes": 1, "beats": 1, "out_planes": 0, "second_planes": 4,
        "second_straddles": 1, "interval": 8,
    },
}  # fmt: skip
STATE = ("error", "error_layer", "current", "total_cycles")
POSTED = ("mac", "max_pool", "average_pool", "stream")
BAD = {
    "magic": ("load", {"magic": 0x6758}, ErrorCode.MAGIC),
    "an interval below the beats": ("mac", {"other_planes": 0, "interval": 3}, ErrorCode.SIZE),
    "end without magic": ("end", {"magic": 0}, ErrorCode.MAGIC),
    "operation": ("load", {"op": 7}, ErrorCode.OPERATION),
    **{f"{op} of no pixels": (op, {"out_pixels": 0}, ErrorCode.SIZE) for op in GOOD},
    **{
        f"{op} of {name} {value}": (op, {name: value}, ErrorCode.SIZE)
        for ops, name, values in (
            (("load",), "out_planes", (0, 5)),
            (("load",), "out_pixel_step", (0,)),
            (("store",), "first_planes", (0, 5)),
            (("store",), "pixel_step", (0,)),
            *((POSTED, name, (0,)) for name in ("groups", "group_outputs", "kernel_y", "kernel_x", "interval")),
            *((POSTED, f"{name}_planes", (5,)) for name in ("out", "second", "first", "other")),
            (("mac", "max_pool", "average_pool"), "out_planes", (0,)),
            (("stream",), "second_planes", (0,)),
            (("stream", "max_pool", "average_pool"), "first_planes", (0,)),
            (("mac",), "group_inputs", (0,)),
            (("mac",), "first_planes", (1,)),
            (("stream", "max_pool", "average_pool"), "groups", (2,)),
            (("stream", "max_pool", "average_pool"), "depthwise", (1,)),
            (("stream",), "kernel_y", (2,)),
            (("stream",), "kernel_x", (2,)),
            *((("max_pool", "average_pool"), f"{name}_planes", (1,)) for name in ("second", "other")),
            (("max_pool", "average_pool"), "adds", (1,)),
            (("max_pool", "average_pool"), "copies", (1,)),
            (("mac", "stream"), "interval", (7,)),
            (("max_pool",), "interval", (23,)),
            (("max_pool",), "first_straddles", (1,)),
            (("average_pool",), "interval", (16,)),
            (("average_pool",), "kernel_y", (6, 0xFFFF)),
            (("mac",), "tile_pixels", (0, 17, 31)),
            (("mac",), "thresholds", (2, 4, 14)),
            (("mac", "stream"), "beats", (0, 5)),
        )
        for op in ops
        for value in values
    },
}


SIGNS = CONFIG.model_copy(update={"array": "sign"})
PLANED = {
    **GOOD["mac"],
    "part_top": 4,
    "plane_top": 4,
    "tile_pixels": 3,
    "beats": 4,
    "other_straddles": 0,
    "interval": 20,
}
"""Five planes: 15 of the 16 accumulators, 20 beats."""
PAIRS = {
    "part_top": 7, "a_top": 1, "a_planes": 1, "plane_top": 15, "tile_pixels": 1, "interval": 64, "thresholds": 5,
}  # fmt: skip
PLANES_BAD = {
    "accumulators of all planes": {"tile_pixels": 4, "interval": 99},
    "accumulators of one plane more": {"part_top": 5, "plane_top": 5, "interval": 24},
    "beats of all planes": {"interval": 19},
    "beats of one plane": {"part_top": 0, "plane_top": 0, "tile_pixels": 17},
    "more parts than planes": {"part_top": 5},
    "fewer parts than planes": {"part_top": 3},
    "fewer pairs than planes": {"part_top": 1, "a_top": 1, "a_planes": 1},
    "digits that are no planes": {"part_top": 0, "a_top": 4},
}


def verdict(config, values, component=None):
    """The sizes' verdict on a layer of the array."""
    dut = (component or check.LayerCheck)(config)
    found = []

    async def bench(ctx):
        ctx.set(dut.layer, {"op": OPERATIONS.index("mac"), **values})
        await ctx.delay(1e-9)
        found.append(ctx.get(dut.bad_size))

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    return found[0]


def test_planes_take_accumulators_and_beats_of_their_own():
    assert not verdict(SIGNS, PLANED)
    assert not verdict(SIGNS, PLANED | {"part_top": 7, "plane_top": 7, "tile_pixels": 2, "interval": 32})
    assert not verdict(SIGNS, PLANED | {"part_top": 0, "plane_top": 0, "tile_pixels": 16, "interval": 4})
    assert not verdict(SIGNS, PLANED | {"part_top": 0, "a_top": 4, "a_planes": 1})
    assert not verdict(SIGNS, PLANED | PAIRS)
    assert [name for name, change in PLANES_BAD.items() if not verdict(SIGNS, PLANED | change)] == []
    # The parts of a shift array share accumulators and beats.
    shifts = CONFIG.model_copy(update={"array": "shift"})
    parts = {name: value for name, value in PLANED.items() if name != "plane_top"}
    assert not verdict(shifts, parts | {"tile_pixels": 16, "interval": 4})
    assert verdict(shifts, parts | {"tile_pixels": 17})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("layer.tile_pixels * planes <= config.pixels", "layer.tile_pixels <= config.pixels"),
        ("layer.tile_pixels * planes <= config.pixels", "layer.tile_pixels * planes < config.pixels"),
        ("layer.interval >= layer.beats * planes", "layer.interval >= layer.beats"),
        ("layer.interval >= layer.beats * planes", "layer.interval > layer.beats * planes"),
        ("layer.plane_top + 1", "layer.plane_top"),
        ("(layer.part_top + 1) * Mux", "layer.part_top * Mux"),
        ("Mux(layer.a_planes, layer.a_top + 1, 1)", "(layer.a_top + 1)"),
        ("Mux(layer.a_planes, layer.a_top + 1, 1)", "1"),
        ("settled(m, layer.plane_top + 1), Const(1)", "settled(m, layer.plane_top + 1), thresholds"),
    ],
)
def test_a_fault_in_the_check_of_planes_is_found(planted, old, new):
    faulty = planted(check, old, new)["LayerCheck"]
    good = (PLANED, PLANED | {"part_top": 7, "plane_top": 7, "tile_pixels": 2, "interval": 32}, PLANED | PAIRS)
    good += (PLANED | {"a_top": 1},)
    bad = [PLANED | change for change in PLANES_BAD.values()]
    found = [verdict(SIGNS, values, faulty) for values in (*good, *bad)]
    assert found != [0] * len(good) + [1] * len(bad)


FUSED = CONFIG.model_copy(update={"array": "fusion"})
MODES_BAD = {
    "2x4 of codes of four bits": {"mode": 1},
    "4x2 of codes of two bits": {"mode": 2, "narrow": 1},
    "2x2 of codes of four bits": {"mode": 3},
    "depthwise": {"mode": 3, "narrow": 1, "depthwise": 1},
    "aligned": {"mode": 2, "aligned": 1},
}
MODES_GOOD = [
    {"mode": mode, "narrow": narrow, "depthwise": depthwise, "aligned": aligned}
    for mode, narrow, depthwise, aligned in (
        *((0, narrow, depthwise, aligned) for narrow in (0, 1) for depthwise in (0, 1) for aligned in (0, 1)),
        *((1, 1, 0, 0), (2, 0, 0, 0), (3, 1, 0, 0)),
    )
]


def test_lanes_share_pes_only_where_the_input_has_them():
    assert [mode for mode in MODES_GOOD if verdict(FUSED, GOOD["mac"] | mode)] == []
    assert [name for name, mode in MODES_BAD.items() if not verdict(FUSED, GOOD["mac"] | mode)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(layer.mode[0] == layer.narrow) & ", ""),
        ("& ~layer.depthwise & ", "& "),
        ("~layer.depthwise & ~layer.aligned", "~layer.depthwise"),
        ("(layer.mode == 0) | ", ""),
    ],
)
def test_a_fault_in_the_check_of_modes_is_found(planted, old, new):
    faulty = planted(check, old, new)["LayerCheck"]
    found = [verdict(FUSED, GOOD["mac"] | mode, faulty) for mode in (*MODES_GOOD, *MODES_BAD.values())]
    assert found != [0] * len(MODES_GOOD) + [1] * len(MODES_BAD)


def play(descriptors, conflicts=(), dut=None, gap=0):
    """Give control the words of its descriptors; layer i is done 3 + i cycles after its `begin`.

    Returns the events with their cycles, and the state when it is idle.
    """
    dut = dut or Control(CONFIG)
    events = []
    words = [int.from_bytes(word.tobytes(), "little") for words in descriptors for word in words]
    state = {}

    async def bench(ctx):
        for run in range(2):
            incoming, done_at, clash_at = [], None, None
            base, each = 100 + run, descriptor_words(CONFIG)
            ctx.set(dut.base, base)
            begun = 0
            for cycle in range(1000):
                ctx.set(dut.start, int(cycle == 0))
                ctx.set(dut.done, int(cycle == done_at))
                ctx.set(dut.conflict, int(cycle == clash_at))
                if cycle == 1:
                    assert not any(ctx.get(getattr(dut, name)) for name in STATE)
                valid = bool(incoming) and incoming[0][1] <= cycle
                ctx.set(dut.words.valid, valid)
                ctx.set(dut.words.payload, incoming[0][0] if valid else 0x5555)
                if valid:
                    assert ctx.get(dut.words.ready)
                    incoming.pop(0)
                if ctx.get(dut.fetch):
                    at = ctx.get(dut.fetch_address)
                    events.append(("fetch", at - base, cycle))
                    incoming = [
                        (word, cycle + 4 + place * (1 + gap))
                        for place, word in enumerate(words[at - base : at - base + each])
                    ]
                if ctx.get(dut.begin):
                    events.append(("begin", ctx.get(dut.layer.op), cycle))
                    done_at = cycle + 3 + begun
                    clash_at = (cycle + 3 if begun == 0 else cycle + 1) if begun in conflicts else None
                    begun += 1
                if ctx.get(dut.layer_done):
                    events.append(("done", ctx.get(dut.layer_index), ctx.get(dut.layer_cycles), cycle))
                if cycle and not ctx.get(dut.busy):
                    events.append(("idle", cycle))
                    break
                await ctx.tick()
            else:
                raise AssertionError("control must stop")
            await ctx.tick()
            state[run] = [ctx.get(getattr(dut, name)) for name in STATE]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return events, state


def stated(descriptors, ops, error=ErrorCode.NONE, error_layer=0, conflict=None, gap=0):
    """What `play` must find where the layers in `ops` run and then the list ends as said."""
    each = descriptor_words(CONFIG)
    assert all(len(words) == each for words in descriptors)
    read = 4 + (each - 1) * (1 + gap) + 1  # from a fetch to the check
    events, cycle, total = [], 0, 0
    for number, op in enumerate(ops):
        events += [("fetch", number * each, cycle), ("begin", OPERATIONS.index(op), cycle + read)]
        taken = read + 3 + number
        cycle += taken
        total += taken
        events.append(("done", number, taken, cycle + 1))
    if conflict is None:
        events.append(("fetch", len(ops) * each, cycle))
        cycle += read
    events.append(("idle", cycle + 1))
    # The next layer is fetched in the cycle of the write before, of which `layer_done` tells a cycle later.
    events.sort(key=lambda event: (event[-1], ("done", "fetch", "begin", "idle").index(event[0])))
    state = [error, error_layer, len(ops), total]
    return events * 2, {0: state, 1: state}


def encoded(ops):
    return [encode_descriptor(CONFIG, op, GOOD.get(op, {})) for op in ops]


@pytest.mark.parametrize("gap", [0, 2])
def test_layers_follow_each_other_in_their_cycles(gap):
    ops = ("load", "mac", "max_pool", "stream", "average_pool", "store")
    descriptors = encoded((*ops, "end"))
    assert play(descriptors, gap=gap) == stated(descriptors, ops, gap=gap)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_descriptor_stops_with_its_error(name):
    op, change, error = BAD[name]
    descriptors = [*encoded(["load"]), encode_descriptor(CONFIG, op, GOOD.get(op, {}) | change), *encoded(["end"])]
    assert play(descriptors) == stated(descriptors, ["load"], error, 1)


def test_every_damaged_bit_is_found():
    rng = np.random.default_rng(1)
    (words,) = encoded(["mac"])
    for _ in range(30):
        damaged = words.copy()
        damaged[rng.integers(len(words)), rng.integers(words.shape[1])] ^= 1 << int(rng.integers(8))
        error = ErrorCode.CHECK if damaged[0, :2].tolist() == words[0, :2].tolist() else ErrorCode.MAGIC
        assert play([damaged]) == stated([damaged], [], error, 0)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_conflict_stops_after_its_layer(layer):
    descriptors = encoded(("load", "mac", "store", "end"))
    error = ErrorCode.BANK_CONFLICT
    found = play(descriptors, conflicts=(layer,))
    assert found == stated(descriptors, ("load", "mac")[: layer + 1], error, layer, conflict=layer)


FAULTS = {
    "check ignored": (control, "folded != CHECK", "0"),
    "check not from zero": (control, "folded.eq(0),", ""),
    "magic ignored": (check, "layer.magic != MAGIC", "0"),
    "operation ignored": (check, "layer.op >= len(OPERATIONS)", "0"),
    "sizes ignored": (check, "~fits | ", ""),
    "counter not cleared": (control, "cycles.eq(1),", ""),
    "counter from zero": (control, "cycles.eq(1),", "cycles.eq(0),"),
    "total not cleared": (control, "self.total_cycles.eq(0),", ""),
    "error not cleared": (control, "self.error.eq(ErrorCode.NONE),", ""),
    "conflict forgotten": (control, "conflicted | self.conflict", "self.conflict"),
    "conflict seen late": (control, "conflicted | self.conflict", "conflicted"),
    "list does not go on": (control, "self.fetch_address + count", "self.fetch_address"),
    "words from the bottom": (control, "Cat(descriptor, word) >> bus", "Cat(word, descriptor)"),
}


def found_by(dut):
    """Whether the play of a good and of four bad lists differs from the rules."""
    good = encoded(("load", "mac", "store", "end"))
    damaged = encoded(["load"])[0].copy()
    damaged[-1, -1] ^= 64
    bad = [encode_descriptor(CONFIG, op, GOOD["load"] | change) for op, change, _ in (BAD["magic"], BAD["operation"])]
    bad.append(encode_descriptor(CONFIG, "load", GOOD["load"] | {"out_planes": 0}))
    try:
        return (
            play(good, dut=dut()) != stated(good, ("load", "mac", "store"))
            or any(
                play(good, (at,), dut()) != stated(good, ("load", "mac")[: at + 1], ErrorCode.BANK_CONFLICT, at, at)
                for at in (0, 1)
            )
            or any(
                play([words], dut=dut()) != stated([words], [], error)
                for words, error in zip(
                    [damaged, *bad],
                    (ErrorCode.CHECK, ErrorCode.MAGIC, ErrorCode.OPERATION, ErrorCode.SIZE),
                    strict=True,
                )
            )
        )
    except AssertionError:
        return True


def test_the_lists_agree():
    assert not found_by(lambda: Control(CONFIG))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted, monkeypatch):
    module, old, new = FAULTS[fault]
    names = planted(module, old, new)
    if module is check:
        monkeypatch.setattr(control, "LayerCheck", names["LayerCheck"])
    made = Control if module is check else names["Control"]
    assert found_by(lambda: made(CONFIG))
