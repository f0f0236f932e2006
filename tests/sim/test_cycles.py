"""The cycle model against a cycle-by-cycle play of the stated rules, and against sums done by hand.

Co-simulation holds the same model to the RTL's own counters; here it is held to the rules as they are told.
"""

import math
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, NetworkBuilder, PlaneBasis, Thresholds, WeightCodes
from gatewise.kernels.digits import digit_count
from gatewise.sim.cycles import layer_cycles, network_cycles
from gatewise.sim.descriptor import descriptor_words
from gatewise.sim.lower import lower
from gatewise.sim.lowered import row_groups
from hypothesis import given, settings
from hypothesis import strategies as st

PARTS = ("compute", "weight_stall", "post_stall", "drain", "fill", "host")
RECORDS = 2 + 3 + 1
"""Fields of a record that has everything but thresholds."""


def layers(net, engine, network=None):
    network = network or net.build()
    return network_cycles(lower(network, engine), engine)


def words(bits, bus_bits):
    return -(-bits // bus_bits)


def play(engine, r, fields, op, planes=1):
    """Play a layer, a cycle at a time: bus, array and post lanes meet in shadow tile, halves and record buffers.

    Every part of the weights is a step of its own; planes are parts with accumulators, and so beats, of their own.

    Returns the cycle after its last write, the cycles in which the array reads, and the words read.
    """
    limit = min(engine.rows, engine.lanes) if r["depthwise"] else engine.rows
    taps = r["kernel_y"] * r["kernel_x"]
    parts = 1 + r.get("part_top", 0)
    span = min(engine.rows, engine.lanes)
    lanes = engine.lanes * (1, 2, 2, 4)[r.get("mode", 0)]

    def rest(index):
        return 0 < r.get("rest_from", 0) <= index

    def pairs(index, word):
        wide = not r.get("wide_end") or r["wide_first"] <= word < r["wide_end"]
        return (1 + r.get("a_top", 0) * wide) * (1 if rest(index) else 1 + r.get("w_top", 0))

    # Row groups: rows, lane words, the first of these.
    groups, first = [], 0
    for group in range(r["groups"]):
        start = r["in_lane"] + group * r["group_inputs"]
        left = r["group_outputs"]
        while left:
            rows = min(left, limit)
            if r["depthwise"]:
                groups.append((rows, 1, (r["in_lane"] + first) // lanes))
            else:
                groups.append((rows, words(start % lanes + r["group_inputs"], lanes), start // lanes))
            left, first = left - rows, first + rows
    tiles = []
    for index in range(len(groups)):
        left = r["out_pixels"]
        sizes = []
        while left and op == "mac":
            n = min(left, r["tile_pixels"])
            if index == len(groups) - 1 and left <= r["tile_pixels"] and 0 < r["taper"] < left:
                n = words(left, 2)
            sizes.append(n)
            left -= n
        tiles.append(sizes or [r["out_pixels"]])

    # The stream, word by word: what each is, and the cycles that it takes.
    stream = deque()
    read = descriptor_words(engine)
    for index, (rows, lane_words, _) in enumerate(groups):
        records = words(rows * fields * 64, engine.bus_bits)
        read += records
        if fields:
            stream.append(("records", rows * fields * max(1, 64 // engine.bus_bits), index))
        if op != "mac":
            continue
        count = rows * (1 if r["depthwise"] else engine.lanes)
        load = words(count << r.get("rest_container" if rest(index) else "container", 0), engine.bus_bits)
        load += words(engine.lanes * 8, engine.bus_bits) if r.get("aligned") else 0
        for _ in tiles[index]:
            for _ in range(taps * lane_words * parts):
                stream.append(("tile", load, index))
                read += load
    begins = descriptor_words(engine) + engine.bus_latency + 2

    # Post side: finished tiles wait for slots.
    reads = r.get("other_planes", 0) * (1 + r.get("other_straddles", 0))
    if op != "mac":
        reads += taps * r["first_planes"] * (1 + r["first_straddles"])
    written = sum(r.get(f"{name}_planes", 0) * (1 + r.get(f"{name}_straddles", 0)) for name in ("out", "second"))
    write_delay = {"mac": 20, "stream": 20, "max_pool": 4, "average_pool": 21}[op]
    queue = deque()  # [row group, half, slots left, cycle from which it may begin, last tile of its row group]
    if op != "mac":
        for index, (rows, *_) in enumerate(groups):
            queue.append([index, 0, r["out_pixels"] * words(rows, span), begins + 1, True])
    events = {}  # what happens in a later cycle

    jobs = deque(
        (index, n, step, taps * lane_words * parts, t == len(tiles[index]) - 1)
        for index, (_, lane_words, _) in enumerate(groups)
        for t, n in enumerate(tiles[index])
        for step in range(taps * lane_words * parts)
        if op == "mac"
    )
    half, half_busy, buffers, full = 0, [False, False], 0, 0
    shadow_free, shadow_full, ready, taken = True, False, 0, 0
    slot_at, end, busy, t = 0, 0, 0, 0
    while jobs or queue or events:
        assert t < 2_000_000
        for event, value in events.pop(t, []):
            if event == "half":
                half_busy[value] = False
            elif event == "buffer":
                buffers -= 1
            elif event == "done":
                queue.append(value)
            elif event == "full":
                full += 1
        if t >= begins + engine.bus_latency + 3 and stream:
            kind, count, index = stream[0]
            if taken or (buffers < 2 if kind == "records" else shadow_free):
                if taken == 0 and kind == "records":
                    buffers += 1
                elif taken == 0:
                    shadow_free = False
                taken += 1
                if taken == count:
                    taken = 0
                    stream.popleft()
                    if kind == "records":
                        events.setdefault(t + 1, []).append(("full", index))
                    else:
                        shadow_full = True
        if jobs and shadow_full and t >= ready:
            index, n, step, steps, last_tile = jobs[0]
            blocked = any(half_busy) if r["serial"] else half_busy[half]
            if step or not blocked:
                jobs.popleft()
                _, lane_words, word = groups[index]
                each = pairs(index, word + step // parts % lane_words)
                passes = each * max(n, 4)
                busy += each * n
                ready, shadow_full = t + passes, False
                events.setdefault(t + 1, []).append(("shadow", 0))
                half_busy[half] = True
                if step == steps - 1:
                    done = t + passes + 4 + words(engine.lanes.bit_length() - 1, 2)
                    slots = n * words(groups[index][0], span)
                    events.setdefault(done, []).append(("done", [index, half, slots, done + 1, last_tile]))
                    half = 1 - half
        if queue and t >= slot_at and t >= queue[0][3] and (not fields or full > queue[0][0]):
            job = queue[0]
            job[2] -= 1
            slot_at = t + r["interval"]
            beats = t + reads + r["beats"] * planes - 1
            end = beats + write_delay + written
            if job[2] == 0:
                queue.popleft()
                if op == "mac":
                    events.setdefault(beats + 1, []).append(("half", job[1]))
                if job[4] and fields:
                    events.setdefault(beats + 15, []).append(("buffer", job[0]))
        if ("shadow", 0) in events.get(t + 1, []):
            events[t + 1].remove(("shadow", 0))
            shadow_free = True  # in the cycle of the swap itself
            if not events[t + 1]:
                del events[t + 1]
        # The first half given back in this very cycle counts at once: see the order above.
        t += 1
        if not (jobs or queue) and all(
            kind in ("half", "buffer", "full") for items in events.values() for kind, _ in items
        ):
            break
    return end, busy, read


engines = st.builds(
    lambda rows, lanes, pixels, share, bus, latency, array: EngineConfig(
        rows=rows, lanes=lanes, pixels=pixels, post_lanes=min(rows, lanes) >> share, bus_bits=bus,
        bus_latency=latency, act_bytes=1 << 22, array=array,
    ),
    st.sampled_from([4, 8, 16, 32]), st.sampled_from([4, 8, 16, 64]), st.sampled_from([16, 20, 33, 64]),
    st.integers(0, 2), st.sampled_from([8, 16, 64, 128, 512]), st.integers(0, 60),
    st.sampled_from(["digit", "digit", "fusion", "fusion", "sign", "shift"]),
)  # fmt: skip


@st.composite
def convolutions(draw):
    kind = draw(st.sampled_from(["dense", "grouped", "depthwise", "linear"]))
    a_bits, w_bits = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    groups = 1
    inputs, channels = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    if kind == "grouped":
        groups = draw(st.integers(2, 4))
        inputs, channels = groups * draw(st.integers(2, 9)), groups * draw(st.integers(1, 9))
    if kind == "depthwise":
        inputs = channels = groups = draw(st.integers(2, 40))
    if kind == "linear":
        height = width = 1
        kernel = (1, 1)
    adds = draw(st.booleans())
    return SimpleNamespace(kind=kind, a_bits=a_bits, w_bits=w_bits, height=height, width=width, kernel=kernel,
                           groups=groups, inputs=inputs, channels=channels, adds=adds)  # fmt: skip


def build(samples, layer, thresholds=None, stride=1):
    net = NetworkBuilder(
        "net", samples.input_spec((layer.inputs, layer.height, layer.width), bits=layer.a_bits, zero_point=0)
    )
    shape = (layer.channels, layer.inputs // layer.groups, *layer.kernel)
    adds = getattr(layer, "adds", False)
    out = Grid(0.1, 16, signed=True) if adds else Grid(0.1, 3 if thresholds else 8)
    settings = {"bits": layer.w_bits, "scale": 0.1, "out": out, "thresholds": thresholds}
    # All codes that there are, so that a shift array needs as many parts as it ever does.
    codes = np.resize(np.arange(1 << layer.w_bits) - (1 << layer.w_bits >> 1), shape)
    # A flat copy of the input keeps the host from unfolding it: only a layer that reads the input can be unfolded.
    x = net.stride_slice("view", net.input, 1)
    if layer.kind == "linear":
        made = net.linear("layer", x, codes[..., 0, 0], **settings)
    else:
        pads = layer.kernel[0] - 1, layer.kernel[1] - 1, 0, 0
        made = net.conv2d("layer", x, codes, padding=pads, groups=layer.groups, stride=stride, **settings)
    if adds:
        few = max(0, layer.channels - layer.inputs)
        if layer.channels >= layer.inputs:
            other = net.channel_pad("pad", x, few // 2, few - few // 2)
            net.requantise("copy", net.add("sum", made, other, out=out), out=Grid(0.1, 4))
    return net.build()


def parts_of_weights(engine, layer):
    """Digits, planes, or the signed powers of two that all codes have been drawn from (at least those of the first)."""
    if engine.array == "digit":
        return digit_count(layer.w_bits)
    if engine.array == "sign":
        return layer.w_bits
    count = layer.channels * layer.inputs // layer.groups * int(np.prod(layer.kernel))
    codes = np.resize(np.arange(1 << layer.w_bits) - (1 << layer.w_bits >> 1), count)
    # The non-adjacent form of a number n has a term for each one of (3 n) ^ n but the lowest bit.
    return max(1, *(bin((3 * code ^ code) >> 1 if code >= 0 else (-3 * code ^ -code) >> 1).count("1")
                    for code in codes.tolist()))  # fmt: skip


@given(layer=convolutions(), engine=engines, data=st.data())
@settings(max_examples=80)
def test_layers_of_mixed_widths_take_the_cycles_that_the_played_rules_take(samples, layer, engine, data):
    engine = engine.model_copy(update={"array": "digit" if engine.array == "fusion" else engine.array})
    lowered = next(one for one in lower(build(samples, layer), engine) if one.op == "mac")
    groups = list(row_groups(lowered.registers, engine))
    last = max(group.word + group.lane_groups for group in groups)
    first = data.draw(st.integers(0, last))
    mixed = {"a_top": 1, "wide_first": first, "wide_end": data.draw(st.integers(max(first, 1), last))}
    if engine.array == "digit":
        mixed |= {"w_top": 1, "container": 3, "rest_container": data.draw(st.integers(0, 2))}
        mixed["rest_from"] = data.draw(st.integers(0, len(groups)))
    lowered = replace(lowered, registers={**lowered.registers, **mixed})
    found = layer_cycles(lowered, engine)
    end, busy, read = play(engine, lowered.registers, lowered.record.fields, "mac", lowered.planes)
    assert (found.total, found.compute, found.bytes_read) == (end, busy, read * engine.bus_bits // 8)
    assert min(getattr(found, part) for part in PARTS) >= 0


@given(layer=convolutions(), engine=engines)
@settings(max_examples=120)
def test_array_layers_take_the_cycles_that_the_played_rules_take(samples, layer, engine):
    lowered = lower(build(samples, layer), engine)
    for one in lowered[1:-1]:
        found = layer_cycles(one, engine)
        end, busy, read = play(engine, one.registers, one.record.fields, one.op, one.planes)
        assert found.total == end
        assert found.bytes_read == read * engine.bus_bits // 8
        if one.op == "mac":
            assert found.compute == busy
        assert min(getattr(found, part) for part in PARTS) >= 0
        assert found.total == sum(getattr(found, part) for part in PARTS) > 0
        assert 0 <= found.utilisation(engine) <= 1
        assert getattr(
            found, {"weights": "weight_stall", "post": "post_stall"}.get(found.bound_by, found.bound_by)
        ) == max(getattr(found, part) for part in PARTS)
    array = next(layer_cycles(one, engine) for one in lowered if one.name == "layer")
    assert array.weight_bits == layer.w_bits
    macs = layer.height * layer.width * layer.channels * layer.inputs // layer.groups * np.prod(layer.kernel)
    assert array.macs == macs
    if engine.array == "fusion":
        slices = math.ceil(layer.a_bits / 2) * math.ceil(layer.w_bits / 2)
        assert array.products == macs * slices
    else:
        assert array.products == macs * digit_count(layer.a_bits) * parts_of_weights(engine, layer)
    assert array.lanes in (engine.lanes, *((2 * engine.lanes, 4 * engine.lanes) if engine.array == "fusion" else ()))
    assert 0 <= array.idle_lanes < array.lanes


@pytest.mark.parametrize(
    "engine", [EngineConfig(), EngineConfig(rows=8, lanes=4, pixels=16, post_lanes=1, bus_bits=16)]
)
def test_every_layer_of_a_network_takes_the_cycles_that_the_played_rules_take(samples, engine):
    for one in lower(samples.small().build(), engine)[1:-1]:
        end, _, read = play(engine, one.registers, one.record.fields, one.op)
        found = layer_cycles(one, engine)
        assert (one.name, found.total, found.bytes_read) == (one.name, end, read * engine.bus_bits // 8)


@pytest.mark.parametrize(
    "change", [{"interval": 3}, {"serial": 1}, {"container": 3}, {"tile_pixels": 19}, {"taper": 0}, {"beats": 3}]
)
def test_the_comparison_finds_one_changed_register(samples, change):
    engine = EngineConfig(rows=8, lanes=8, pixels=20, post_lanes=2, bus_bits=32)
    layer = SimpleNamespace(
        kind="conv", a_bits=4, w_bits=4, height=6, width=6, kernel=(3, 3), groups=1, inputs=8, channels=20
    )
    one = next(one for one in lower(build(samples, layer), engine) if one.name == "layer")
    one = replace(one, registers={**one.registers, "taper": 8})
    assert play(engine, one.registers, 2, "mac")[0] == layer_cycles(one, engine).total
    assert play(engine, {**one.registers, **change}, 2, "mac")[0] != layer_cycles(one, engine).total


@pytest.mark.parametrize("array", ["sign", "shift"])
@pytest.mark.parametrize("change", [{"part_top": 3}, {"interval": 3}, {"tile_pixels": 2}, {"beats": 2}, {"planes": 5}])
def test_the_comparison_finds_what_is_changed_of_parts(samples, array, change):
    engine = EngineConfig(rows=8, lanes=8, pixels=48, post_lanes=2, bus_bits=32, array=array)
    layer = SimpleNamespace(
        kind="conv", a_bits=4, w_bits=6, height=6, width=6, kernel=(3, 3), groups=1, inputs=8, channels=20
    )
    one = next(one for one in lower(build(samples, layer), engine) if one.name == "layer")
    planes = one.planes
    assert (planes, one.registers["part_top"], one.record.fields) == ((6, 5, 4) if array == "sign" else (1, 2, 2))
    fields = one.record.fields
    assert play(engine, one.registers, fields, "mac", planes)[0] == layer_cycles(one, engine).total
    changed = {**one.registers, **change}
    assert play(engine, changed, fields, "mac", changed.get("planes", planes))[0] != layer_cycles(one, engine).total


@given(layer=convolutions(), engine=engines, weights=st.integers(1, 8), planes=st.integers(1, 8), signs=st.booleans())
@settings(max_examples=60)
def test_pairs_of_planes_take_the_cycles_that_the_played_rules_take(samples, layer, engine, weights, planes, signs):
    engine = engine.model_copy(update={"array": "sign"})
    weights = min(weights, engine.pixels // planes)
    net = NetworkBuilder("net", samples.input_spec((layer.inputs, layer.height, layer.width)))
    basis = PlaneBasis.abc_net([1.0] * planes, [0.0] * planes) if signs else PlaneBasis.lq_net([1.0] * min(planes, 4))
    planes = len(basis.spec.beta)
    x = net.requantise("planes", net.input, out=Grid.of_planes(basis))
    shape = (weights, layer.channels, layer.inputs // layer.groups, *layer.kernel)
    codes = WeightCodes.basis(np.resize((1, -1), shape), np.ones((weights, layer.channels)))
    settings = {"scale": 1.0, "out": Grid(1.0, 8)}
    pads = layer.kernel[0] - 1, layer.kernel[1] - 1, 0, 0
    net.conv2d("layer", x, codes, padding=pads, groups=layer.groups, **settings)
    one = next(one for one in lower(net.build(), engine) if one.name == "layer")
    assert one.planes == weights * planes
    assert one.record.fields == -(-weights * planes // 4) + 2
    end, busy, read = play(engine, one.registers, one.record.fields, one.op, one.planes)
    found = layer_cycles(one, engine)
    assert (found.total, found.compute, found.bytes_read) == (end, busy, read * engine.bus_bits // 8)
    assert found.products == found.macs * weights * planes
    # A plane less in one of both is another number of cycles: the play looks at both.
    for name in ("a_top", "part_top"):
        if one.registers[name]:
            fewer = {**one.registers, name: one.registers[name] - 1}
            assert play(engine, fewer, one.record.fields, one.op, one.planes)[1] < busy


def test_planes_are_steps_and_beats_by_hand(samples):
    engine = EngineConfig(array="sign")
    found = conv(samples, engine, 16, 16, (8, 8), w_bits=3)
    assert parts_of(found) == {
        "compute": 9 * 3 * 64,  # nine taps, three planes, 64 pixels: 192 accumulators of the 256
        "drain": closing(64, 2 * 3, 2 * 3, 2),  # 16 rows through 8 post lanes, a beat for each plane
        "fill": opening(engine, 16 * 3, 16 * 16 // 128),  # one field of coefficients in a record; signs of a tile
    }
    assert found.bytes_read == (descriptor_words(engine) + 16 * 3 // 2 + 9 * 3 * 2) * 16
    assert found.products == 9 * 16 * 16 * 64 * 3
    # Five planes leave 51 pixels to a tile, and have two fields of coefficients.
    found = conv(samples, engine, 16, 16, (8, 8), w_bits=5)
    assert found.compute == 9 * 5 * 64
    assert found.bytes_read == (descriptor_words(engine) + 16 * 4 // 2 + 2 * 9 * 5 * 2) * 16


def test_parts_of_a_shift_array_are_steps_by_hand(samples):
    engine = EngineConfig(array="shift")
    found = conv(samples, engine, 16, 16, (16, 16), w_bits=4)
    assert parts_of(found) == {
        "compute": 9 * 2 * 256,  # four bits are two signed powers of two
        "drain": closing(256, 2, 2, 2),
        "fill": opening(engine, 16 * 2, 16 * 16 * 4 // 128),  # two bits of exponent, two of state
    }
    assert found.bytes_read == (descriptor_words(engine) + 16 + 9 * 2 * 8) * 16


@pytest.mark.parametrize(
    ("a_bits", "w_bits", "steps", "code_bits", "bricks", "idle"),
    [(4, 4, 3, 4, 4, 8 / 3), (3, 1, 2, 4, 2, 12), (2, 3, 2, 8, 2, 12), (2, 2, 1, 8, 1, 24), (2, 8, 3, 8, 4, 8 / 3)],
)
def test_narrow_operands_of_a_fused_array_share_steps_by_hand(samples, a_bits, w_bits, steps, code_bits, bricks, idle):
    engine = EngineConfig(array="fusion")
    found = conv(samples, engine, 16, 40, (16, 16), a_bits=a_bits, w_bits=w_bits)
    pairs = 2 if w_bits == 8 else 1
    assert parts_of(found) == {
        "compute": 9 * 256 * steps * pairs,  # 40 inputs in steps of 16, 32 or 64
        "drain": closing(256, 2, 2, 2),
        "fill": opening(engine, 16 * 2, 16 * 16 * code_bits // 128),
    }
    assert found.bytes_read == (descriptor_words(engine) + 16 + 9 * steps * 2 * code_bits) * 16
    assert found.idle_lanes == pytest.approx(idle)
    # Bits of both codes in pairs of two.
    assert found.utilisation(engine) == 9 * 256 * 40 * 16 * bricks / (4 * 16 * 16 * found.total)


def test_the_taper_is_the_one_that_takes_the_fewest_cycles(samples):
    engine = EngineConfig()
    layer = SimpleNamespace(
        kind="conv", a_bits=4, w_bits=4, height=16, width=16, kernel=(3, 3), groups=1, inputs=16, channels=16
    )
    one = next(one for one in lower(build(samples, layer), engine) if one.name == "layer")
    totals = {
        taper: play(engine, {**one.registers, "taper": taper}, 2, "mac")[0] for taper in (0, 4, 8, 16, 32, 64, 128)
    }
    assert totals[one.registers["taper"]] == min(totals.values()) < totals[0]


def parts_of(layer):
    return {part: getattr(layer, part) for part in PARTS if getattr(layer, part)}


def conv(samples, engine, channels, inputs, size, kernel=3, **kinds):
    """The cycles of a convolution whose last tiles do not taper."""
    layer = SimpleNamespace(kind="conv", a_bits=4, w_bits=4, height=size[0], width=size[1], kernel=(kernel, kernel),
                            groups=1, inputs=inputs, channels=channels)  # fmt: skip
    vars(layer).update(kinds)
    one = lower(build(samples, layer), engine)[1]
    return layer_cycles(replace(one, registers={**one.registers, "taper": 0}), engine)


def opening(engine, records, load):
    """Cycles before the first read: descriptor, latency there and back, records, the first tile of weights."""
    return descriptor_words(engine) + 2 * engine.bus_latency + 5 + records + load - 1


def closing(slots, interval, beats, planes, stages=6):
    """Cycles from a tile's last read: array, slots, a beat less, post lanes, writes."""
    return stages + 1 + (slots - 1) * interval + (beats - 1) + 20 + planes


def test_one_tile_of_one_row_group_by_hand(samples):
    found = conv(samples, EngineConfig(), 16, 16, (16, 16))
    parts = {
        "compute": 9 * 256,  # nine taps, 256 pixels, one digit pair
        "drain": closing(256, 2, 2, 2),  # 16 rows through 8 post lanes; two digit planes
        "fill": opening(EngineConfig(), 16 * 2, 16 * 16 * 4 // 128),
    }
    assert parts_of(found) == parts
    assert found.bytes_read == (12 + 16 + 9 * 8) * 16
    assert found.utilisation(EngineConfig()) == 2304 * 256 / (256 * sum(parts.values()))
    assert found.bound_by == "compute"


def test_eight_bit_operands_make_four_passes_over_one_load(samples):
    found = conv(samples, EngineConfig(), 16, 16, (16, 16), a_bits=8, w_bits=8)
    expected = {"compute": 9 * 256 * 4, "drain": closing(256, 2, 2, 2), "fill": opening(EngineConfig(), 32, 16)}
    assert parts_of(found) == expected
    assert found.bytes_read == (12 + 16 + 9 * 16) * 16


def test_a_narrow_bus_stalls_every_step_but_the_last(samples):
    engine = EngineConfig(bus_bits=8)
    found = conv(samples, engine, 16, 16, (4, 4))
    load = 16 * 16 * 4 // 8
    assert load == 128
    assert found.compute == 9 * 16
    assert found.weight_stall == 8 * (load - 16)
    assert found.fill == opening(engine, 16 * 128 // 8, load)


def test_a_second_row_group_brings_its_records_before_its_weights(samples):
    engine = EngineConfig(bus_bits=8)
    found = conv(samples, engine, 20, 16, (4, 4), kernel=1)
    records, load = 4 * 128 // 8, 4 * 16 * 4 // 8
    # The records come while the first tile waits to be swapped in, all but the first tile's own cycles.
    assert parts_of(found) == {
        "compute": 16 + 16,
        "weight_stall": records + load - 16,
        "drain": closing(16, 2, 2, 2),
        "fill": opening(engine, 16 * 128 // 8, 16 * 16 * 4 // 8),
    }


def test_fewer_than_four_pixels_take_four_cycles_a_pass(samples):
    found = conv(samples, EngineConfig(bus_bits=512), 16, 16, (1, 3), kernel=1)
    assert (found.compute, found.weight_stall) == (3, 1)
    doubled = conv(samples, EngineConfig(bus_bits=512), 16, 16, (1, 3), kernel=1, a_bits=8)
    assert (doubled.compute, doubled.weight_stall) == (6, 2)


def test_a_slow_drain_stalls_the_third_tile(samples):
    engine = EngineConfig(pixels=16, post_lanes=1, bus_bits=512)
    found = conv(samples, engine, 16, 16, (8, 6), kernel=1)
    # The first half is free with its last slot's last accumulator read; drains follow each other.
    free = 16 + 6 + 1 + 15 * 16 + 15 + 1
    assert parts_of(found) == {
        "compute": 3 * 16,
        "post_stall": free - 32,
        "drain": (16 + closing(3 * 16, 16, 16, 2)) - (free + 16),
        "fill": opening(engine, 32, 2),
    }


def test_a_linear_layer_is_bound_by_its_weight_stream(samples):
    engine = EngineConfig(bus_bits=32)
    net = NetworkBuilder("fc", samples.input_spec((64, 1, 1), bits=4, zero_point=0))
    net.linear("fc", net.input, np.zeros((10, 64), int), bits=4, scale=0.1, out=Grid(0.1, 8))
    found = layers(net, engine)[1]
    load = 10 * 16 * 4 // 32
    assert parts_of(found) == {
        "compute": 4,
        "weight_stall": 3 * (load - 1) + 3,
        "drain": closing(1, 2, 2, 2),
        "fill": opening(engine, 10 * 128 // 32, load),
    }


def test_a_depthwise_layer_uses_the_diagonal_and_loads_only_that(samples):
    engine = EngineConfig(rows=8, lanes=16, bus_bits=16)
    found = conv(samples, engine, 12, 12, (5, 5), groups=12)
    assert found.compute == 2 * 9 * 25  # 12 channels on the 8 diagonal PEs: two row groups
    words_read = descriptor_words(engine) + (8 + 4) * 128 // 16 + 9 * (8 * 4 // 16 + 4 * 4 // 16)
    assert found.bytes_read == words_read * 2
    assert found.products == 12 * 9 * 25


def test_grouped_layers_run_group_by_group_in_whole_words(samples):
    engine = EngineConfig(bus_bits=512)
    found = conv(samples, engine, 36, 8, (4, 4), groups=2, kernel=1)
    assert found.compute == 2 * 2 * 16  # two groups of 18 channels: row groups of 16 and 2
    # Groups of 24 inputs: the first has channels 0 to 23, of two words, the second 24 to 47, of two words.
    assert conv(samples, engine, 4, 48, (4, 4), groups=2, kernel=1).compute == 2 * 2 * 16
    # Groups of 10: channels 10 to 19 lie in two words.
    assert conv(samples, engine, 4, 20, (4, 4), groups=2, kernel=1).compute == (1 + 2) * 16


def test_an_aligned_layer_loads_a_row_of_amounts_with_every_tile(samples):
    engine = EngineConfig(bus_bits=64)
    net = NetworkBuilder("net", samples.input_spec((16, 4, 4), bits=4, zero_point=0))
    steps = Grid(0.1, 4, align="shift", amounts=np.arange(16) % 3)
    x = net.requantise("steps", net.input, out=steps)
    net.conv2d("conv", x, np.zeros((16, 16, 3, 3), int), bits=3, scale=0.1, padding=1, out=Grid(0.1, 8))
    one = next(one for one in lower(net.build(), engine) if one.name == "conv")
    found = layer_cycles(replace(one, registers={**one.registers, "taper": 0}), engine)
    tile = 16 * 8 // 64 + 16 * 16 * 4 // 64  # three-bit codes stand in containers of four
    assert found.bytes_read == (descriptor_words(engine) + 16 * 128 // 64 + 9 * tile) * 8


def test_what_rides_along_brings_its_own_fields_reads_and_writes(samples):
    engine = EngineConfig(bus_bits=64)
    net = NetworkBuilder("net", samples.input_spec((16, 4, 4), bits=4, zero_point=0))
    made = net.conv2d("conv", net.stride_slice("view", net.input, 1), np.zeros((16, 16, 1, 1), int), bits=4, scale=0.1,
                      out=Grid(0.1, 16, signed=True))  # fmt: skip
    total = net.add("sum", made, net.input, out=Grid(0.1, 16, signed=True))
    net.requantise("copy", total, out=Grid(0.1, 4))
    net.max_pool("pool", total, 1)
    one = next(one for one in lower(net.build(), engine) if one.name == "conv")
    found = layer_cycles(replace(one, registers={**one.registers, "taper": 0}), engine)
    assert found.op == "conv2d+add+requantise"
    assert found.bytes_read == descriptor_words(engine) * 8 + (16 * (2 + 3 + 1) * 64 + 16 * 16 * 4) // 8
    # A slot reads one word of the input, and writes four of the sum and one of its copy.
    assert found.drain == closing(16, 5, 2, 5) + 1
    assert found.fill == opening(engine, 16 * 6, 16 * 16 * 4 // 64)


def test_thresholds_stream_with_the_records(samples):
    layer = SimpleNamespace(
        kind="conv", a_bits=4, w_bits=4, height=4, width=4, kernel=(1, 1), groups=1, inputs=16, channels=16
    )
    engine = EngineConfig(bus_bits=32)
    one = lower(build(samples, layer, Thresholds(np.zeros((16, 7), int))), engine)[1]
    assert one.record.fields == 2 + 7
    assert layer_cycles(one, engine).fill == opening(engine, 16 * 9 * 2, 16 * 16 * 4 // 32)


def test_load_and_store_move_whole_words_of_lanes(samples):
    engine = EngineConfig(bus_bits=64, bus_latency=7)
    net = NetworkBuilder("fc", samples.input_spec((17, 3, 2), bits=8))
    net.conv2d("conv", net.input, np.zeros((5, 17, 1, 1), int), bits=4, scale=0.1, out=Grid(0.1, 16, signed=True))
    load, _, store = layers(net, engine)
    # 17 channels are two words of 16, two digits each.
    descriptor = descriptor_words(engine)
    assert parts_of(load) == {"host": 3 * 2 * 2 * 2 + descriptor + 2 * 7 + 5}
    assert parts_of(store) == {"host": 3 * 2 * 4 + descriptor + 7 + 5}
    assert (load.op, store.op, load.bytes_read) == ("load", "store", descriptor * 8)
    narrow = EngineConfig(bus_bits=16, bus_latency=7)
    assert parts_of(layers(net, narrow)[0]) == {"host": 24 * 4 + descriptor_words(narrow) + 2 * 7 + 5}


def test_an_unfolded_stem_is_loaded_wider_and_computed_shorter(samples):
    net = NetworkBuilder("stem", samples.input_spec((3, 8, 8), bits=4, zero_point=0))
    net.conv2d("conv", net.input, np.zeros((16, 3, 3, 3), int), bits=4, scale=0.1, padding=1, out=Grid(0.1, 8))
    load, stem, _ = layers(net, EngineConfig())
    assert load.host == 8 * 8 + 12 + 2 * 20 + 5
    assert stem.compute == 3 * 64  # three rows of taps, the columns in nine lanes
    assert stem.macs == 64 * 16 * 27


def test_post_only_layers_take_a_slot_for_each_pixel_and_span(samples):
    net = NetworkBuilder("pool", samples.input_spec((20, 8, 8), bits=4, zero_point=0))
    pooled = net.max_pool("pool", net.input, 3, 2)
    copy = net.requantise("copy", net.global_average_pool("mean", pooled), out=Grid(0.1, 8))
    net.add("sum", copy, copy, out=Grid(0.1, 8))
    _, pool, mean, second, total, _ = layers(net, EngineConfig())
    start = 12 + 20 + 3
    # Two spans of channels; nine taps of one word each; the last slot's own cycles count as compute.
    assert parts_of(pool) == {"compute": 2 * 9 * 9, "drain": 9 + 4 + 1 - 9, "fill": start}
    # An average needs 17 cycles a slot for its division.
    assert parts_of(mean) == {"compute": 2 * 17, "drain": 9 + 21 + 1 - 17, "fill": start}
    # A rescale is a field of 64 bits for each of 20 channels, an add has three: 16 channels' before the first slot.
    records = 12 + 40 + 5
    waits = 4 * 1 - 2  # the other 4 channels' records, less the first row group's slot
    assert parts_of(second) == {"compute": 4, "weight_stall": waits, "drain": 1 + 1 + 20 + 2 - 2, "fill": records + 16}
    waits = 4 * 3 - 4
    assert parts_of(total) == {"compute": 8, "weight_stall": waits, "drain": 4 + 1 + 20 + 2 - 4, "fill": records + 48}
    assert (second.bytes_read, total.bytes_read) == ((12 + 8 + 2) * 16, (12 + 24 + 6) * 16)
    assert pool.bytes_read == 12 * 16


def test_layers_add_up_to_the_image(samples):
    network = samples.small().build()
    result = network.run(samples.pixels(network, 1))
    assert result.cycles_per_image == sum(getattr(layer, part) for layer in result.layers for part in PARTS)
    names = "input stem down copy block depth max grouped mean steps hidden classes classes"
    assert [layer.name for layer in result.layers] == names.split()


def test_cycles_do_not_depend_on_codes(samples):
    network = samples.small().build()
    first, second = (network.run(samples.pixels(network, 1, seed)) for seed in (1, 2))
    assert not np.array_equal(first.codes, second.codes)
    assert first.layers == second.layers
