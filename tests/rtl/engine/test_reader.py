import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.rtl.engine import prefetch, reader, row_groups, stream_walk
from gatewise.rtl.engine.plane_walk import PlaneWalk
from gatewise.rtl.engine.prefetch import KINDS, Prefetch
from gatewise.rtl.engine.reader import BusReader
from gatewise.rtl.engine.row_groups import RowGroups
from gatewise.rtl.engine.stream_walk import StreamWalk
from gatewise.sim.descriptor import descriptor_words, encode_descriptor

CONTAINERS = (1, 2, 4, 8)
FETCH_ADDRESS = 5


def engine(rows, lanes, bus, prefetch_words=32, latency=0):
    return EngineConfig(
        rows=rows,
        lanes=lanes,
        pixels=16,
        bus_bits=bus,
        bus_latency=latency,
        prefetch_words=max(prefetch_words, latency + 4),
        act_bytes=4096,
        post_lanes=1,
    )


def fetched(config):
    return [("descriptor", FETCH_ADDRESS + word) for word in range(descriptor_words(config))]


def wanted_words(config, op, layer):
    """Kind and address of every word of a layer's stream, loop by loop."""
    bus, lanes = config.bus_bits, config.lanes
    at = layer["stream"]
    if op == "load":
        digits = layer["out_planes"] * layer["out_pixels"] * layer["out_pixel_step"] * lanes
        return [("data", at + word) for word in range(-(-4 * digits // bus))]
    if op not in ("mac", "stream"):
        return []
    fields = 3 * layer.get("adds", 0) + layer.get("copies", 0)
    fields += 2 + layer.get("thresholds", 0) if op == "mac" else 0
    depthwise = layer.get("depthwise", 0)
    most = min(config.rows, lanes) if depthwise else config.rows
    row_groups = [
        (group, min(most, layer["group_outputs"] - first))
        for group in range(layer["groups"])
        for first in range(0, layer["group_outputs"], most)
    ]
    words = []
    for number, (group, rows) in enumerate(row_groups):
        records = -(-rows * fields * 64 // bus)
        words += [("records", at + word) for word in range(records)]
        at += records
        if op == "stream":
            continue
        lane = (layer["in_lane"] + group * layer["group_inputs"]) % lanes
        lane_groups = 1 if depthwise else -(-(lane + layer["group_inputs"]) // lanes)
        tile = -(-rows * (1 if depthwise else lanes) * CONTAINERS[layer["container"]] // bus)
        tile += -(-8 * lanes // bus) if layer["aligned"] else 0
        weights = layer["kernel_y"] * layer["kernel_x"] * lane_groups * tile
        left = layer["out_pixels"]
        while left:
            words += [("weights", at + word) for word in range(weights)]
            if left > layer["tile_pixels"]:
                left -= layer["tile_pixels"]
            elif number == len(row_groups) - 1 and layer["taper"] and left > layer["taper"]:
                left -= (left + 1) // 2
            else:
                left = 0
        at += weights
    return words


def random_layer(rng, config, op):
    """Registers of a layer with a short stream."""
    layer = {
        "stream": int(rng.integers(1000)),
        "out_pixels": int(rng.integers(1, 40)),
        "groups": 1,
        "group_outputs": int(rng.integers(1, 2 * config.rows + 2)),
        "adds": int(rng.integers(2)),
        "copies": int(rng.integers(2)),
    }
    if op == "load":
        return layer | {"out_planes": int(rng.integers(1, 5)), "out_pixel_step": int(rng.integers(1, 4))}
    if op == "stream":
        return layer
    depthwise = int(rng.integers(2))
    return layer | {
        "groups": 1 if depthwise else int(rng.integers(1, 4)),
        "group_inputs": int(rng.integers(1, 2 * config.lanes + 2)),
        "depthwise": depthwise,
        "in_lane": int(rng.integers(config.lanes)),
        "kernel_y": int(rng.integers(1, 3)),
        "kernel_x": int(rng.integers(1, 4)),
        "container": int(rng.integers(4)),
        "aligned": int(rng.integers(2)),
        "thresholds": int(rng.choice([0, 1, 3, 7])),
        "tile_pixels": int(rng.integers(7, 17)),
        "taper": int(rng.choice([0, 4, 9])),
    }


def jobs_of(rng, config, count, ops=("mac", "stream", "mac", "load", "max_pool", "mac")):
    """Descriptors and layers in turn, as (op, registers, words): a fetch has no registers."""
    jobs = []
    for at in range(count):
        op = ops[at % len(ops)]
        layer = random_layer(rng, config, "stream" if op == "max_pool" else op)
        jobs += [("fetch", None, fetched(config)), (op, layer, wanted_words(config, op, layer))]
    return jobs


def play(config, jobs, latency, lazy=0.0, seed=0, dut=None):
    """Run the jobs; for each: its strobe's cycle, and of every word the kind, address and cycle.

    Every word is the complement of its address. Takers sit out `lazy` of the cycles; returns which, too.
    """
    dut = dut or BusReader(config)
    rng = np.random.default_rng(seed)
    mask = (1 << config.bus_bits) - 1
    found, ready_at = [], {kind: [] for kind in KINDS}

    async def bench(ctx):
        pending, outputs, expected = [], [], 0
        waiting = list(jobs)
        idle = last = 0
        for cycle in range(100_000):
            assert cycle < last + 1000
            strobe = {"fetch": 0, "start": 0}
            if waiting and (not found or len(found[-1][1]) == expected) and idle == 3:
                op, layer, words = waiting.pop(0)
                if layer is None:
                    strobe["fetch"] = 1
                    ctx.set(dut.fetch_address, FETCH_ADDRESS)
                else:
                    strobe["start"] = 1
                    number = int.from_bytes(encode_descriptor(config, op, layer).tobytes(), "little")
                    ctx.set(dut.layer.as_value(), number)
                expected, idle = len(words), 0
                outputs = []
                found.append((cycle, outputs))
            for name, value in strobe.items():
                ctx.set(getattr(dut, name), value)
            ctx.set(dut.request.ready, 1)
            due = bool(pending) and pending[0][1] <= cycle
            ctx.set(dut.words.valid, due)
            ctx.set(dut.words.payload, ~pending[0][0] & mask if due else int(rng.integers(256)) & mask)
            for kind in KINDS:
                ready_at[kind].append(bool(rng.random() >= lazy))
                ctx.set(getattr(dut, kind).ready, ready_at[kind][-1])
            if due:
                assert ctx.get(dut.words.ready)
                pending.pop(0)
            if ctx.get(dut.request.valid):
                pending.append((ctx.get(dut.request.payload), cycle + 1 + latency))
            took = []
            for kind in KINDS:
                out = getattr(dut, kind)
                if ctx.get(out.valid) and ready_at[kind][-1]:
                    took.append((kind, ~ctx.get(out.payload) & mask, cycle))
            assert len(took) <= 1
            outputs += took
            last = cycle if took or any(strobe.values()) else last
            await ctx.tick()
            quiet = not pending and not took and len(outputs) >= expected
            idle = min(3, idle + 1) if quiet else 0
            if not waiting and idle == 3:
                return
        raise AssertionError("the words must come")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found, ready_at


def stated_cycles(config, job, strobe, latency, ready_at):
    """When each word of a job leaves, by the rule in the docstring of `BusReader`."""
    op, _, words = job
    apart = max(1, config.bus_bits // (4 * config.lanes)) if op == "load" else 1
    asked, left = [], []
    for at, (kind, _) in enumerate(words):
        asked.append(max(asked[-1] + apart, 0) if asked else strobe + 1)
        if at >= config.prefetch_words:
            asked[-1] = max(asked[-1], left[at - config.prefetch_words] + 1)
        cycle = max(left[-1] + 1 if left else 0, asked[-1] + latency + 2)
        while not ready_at[kind][cycle]:
            cycle += 1
        left.append(cycle)
    return left


def differences(config, jobs, latency, lazy=0.0, seed=0, dut=None):
    found, ready_at = play(config, jobs, latency, lazy, seed, dut)
    mask = (1 << config.bus_bits) - 1
    wrong = []
    for job, (strobe, words) in zip(jobs, found, strict=True):
        cycles = stated_cycles(config, job, strobe, latency, ready_at)
        wanted = [(kind, address & mask, cycle) for (kind, address), cycle in zip(job[2], cycles, strict=True)]
        if words != wanted:
            wrong.append((job[0], job[1]))
    return wrong


@pytest.mark.parametrize(
    ("rows", "lanes", "bus", "prefetch_words", "latency"),
    [(4, 4, 32, 8, 0), (4, 8, 128, 24, 20), (8, 4, 16, 16, 3), (4, 4, 8, 5, 1), (8, 8, 512, 204, 200)],
)
@pytest.mark.parametrize("lazy", [0.0, 0.4])
def test_words_come_in_the_order_of_the_stream_in_their_cycles(rows, lanes, bus, prefetch_words, latency, lazy):
    config = engine(rows, lanes, bus, prefetch_words, latency)
    rng = np.random.default_rng(rows * lanes + bus)
    jobs = jobs_of(rng, config, 6 if bus > 8 else 3)
    kinds = {kind for _, _, words in jobs for kind, _ in words}
    assert kinds == set(KINDS) or bus == 8
    assert differences(config, jobs, latency, lazy) == []


def test_a_prefetch_smaller_than_the_bus_is_long_bounds_the_rate_as_stated():
    config = engine(4, 4, 64, 6)
    jobs = jobs_of(np.random.default_rng(1), config, 4)
    assert differences(config, jobs, latency=12) == []
    # Six words in flight at most, each 15 cycles from its request to the next one in its place.
    (strobe, words), _ = play(config, jobs, latency=12)[0][:2]
    cycles = [cycle - strobe for _, _, cycle in words]
    assert cycles[0] == 15
    assert cycles[6] - cycles[0] == 15


def test_a_prefetch_of_latency_and_three_keeps_up():
    config = engine(4, 4, 64, 16, latency=12)
    for prefetch_words, full in ((15, True), (14, False)):
        smaller = config.model_copy(update={"prefetch_words": prefetch_words})
        jobs = jobs_of(np.random.default_rng(1), smaller, 1, ("mac",))
        _, words = play(smaller, jobs, latency=12)[0][1]
        assert len(words) > 40
        assert (words[-1][2] - words[0][2] == len(words) - 1) == full


FAULTS = {
    "a credit too many": (prefetch, "Signal(range(depth + 1), init=depth)", "Signal(range(depth + 2), init=depth + 1)"),
    "credit given back early": (prefetch, "places + leave", "places + come"),
    "tag of the word that comes": (prefetch, "tag_read.addr.eq(next_head)", "tag_read.addr.eq(filled)"),
    "word not seen as it comes": (prefetch, "transparent_for=[cell_write]", "transparent_for=[]"),
    "one tile of pixels": (stream_walk, "self.again.eq(tile_end & ~row_group_end)", "self.again.eq(0)"),
    "never on to the next group": (stream_walk, "self.again.eq(tile_end & ~row_group_end)", "self.again.eq(tile_end)"),
    "taper in every row group": (stream_walk, "m.Elif(last_group & (", "m.Elif(("),
    "taper rounded down": (stream_walk, "(left + 1) >> 1", "left >> 1"),
    "amounts forgotten": (stream_walk, 'Mux(optional(layer, "aligned"), amount_words, 0)', "0"),
    "lane groups from lane 0": (stream_walk, "first_lane.eq(layer.in_lane)", "first_lane.eq(0)"),
    "every group in the first one's lane": (stream_walk, "step_lanes.within(group_lanes)", "first_lane"),
    "rows of the next group": (stream_walk, "(layer.depthwise, rows, rows", "(layer.depthwise, rows, row_groups.rows"),
    "copy without a field": (stream_walk, "0) + layer.copies", "0)"),
    "back to the records": (reader, "first_weight.eq(address + 1)", "first_weight.eq(address)"),
    "groups without an end": (row_groups, "Mux(self.group_end, layer.group_outputs, ", "Mux(0, 0, "),
}  # fmt: skip


def fault_jobs(config):
    base = {"groups": 1, "in_lane": 3, "kernel_y": 1, "kernel_x": 2, "container": 3, "aligned": 1, "stream": 9}
    layers = [
        {**base, "group_inputs": 6, "group_outputs": 6, "out_pixels": 41, "tile_pixels": 16, "taper": 4, "groups": 2},
        {**base, "group_inputs": 6, "group_outputs": 6, "out_pixels": 9, "tile_pixels": 16, "taper": 0, "copies": 1,
         "depthwise": 1},
    ]  # fmt: skip
    jobs = []
    for layer in layers:
        jobs += [("fetch", None, fetched(config)), ("mac", layer, wanted_words(config, "mac", layer))]
    return jobs


FAULT_CONFIG = engine(4, 4, 64, 7, latency=3)


def found_by(**names):
    dut = names.get("BusReader", BusReader)(FAULT_CONFIG)
    try:
        return differences(FAULT_CONFIG, fault_jobs(FAULT_CONFIG), 3, lazy=0.3, dut=dut)
    except (AssertionError, IndexError) as error:
        return [str(error)]


def test_the_small_layers_agree():
    assert found_by() == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted, monkeypatch):
    module, old, new = FAULTS[fault]
    names = planted(module, old, new)
    for user, component in (
        (reader, Prefetch),
        (reader, StreamWalk),
        (reader, PlaneWalk),
        (stream_walk, RowGroups),
    ):
        name = component.__name__
        if name in names and names[name] is not component:
            monkeypatch.setattr(user, name, names[name])
    own = {"BusReader": names["BusReader"]} if module is reader else {}
    assert found_by(**own) != []
