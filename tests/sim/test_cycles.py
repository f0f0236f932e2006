"""The cycle model against a cycle-by-cycle play of the stated rules, and against sums done by hand."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, NetworkBuilder, Thresholds
from gatewise.kernels.digits import digit_count
from gatewise.sim.cycles import network_cycles
from gatewise.sim.schedule import schedule
from hypothesis import given, settings
from hypothesis import strategies as st

PARTS = ("compute", "weight_stall", "post_stall", "drain", "fill", "host")


def layers(net, engine, network=None):
    network = network or net.build()
    return network_cycles(network, schedule(network, engine), engine)


def words(bits, bus_bits):
    return -(-bits // bus_bits)


def play(*, rows, lanes, pixels, post_lanes, bus_bits, latency, channels, inputs, groups, taps, out_pixels, pairs, bits,
         parameter_bits=128):  # fmt: skip
    """Play one array layer, a cycle at a time, by the rules of the microarchitecture page.

    Bus, array and post lanes are three actors that meet in the shadow tile (one, loaded from the moment the
    one before it is swapped in) and in the two halves of the accumulators.
    """
    depthwise = groups == channels == inputs
    width = min(rows, lanes) if depthwise else rows
    per_group = channels if depthwise else channels // groups
    sizes = [min(width, per_group - first) for first in range(0, per_group, width)] * (1 if depthwise else groups)
    steps = taps * (1 if depthwise else -(-(inputs // groups) // lanes))
    tiles = [min(pixels, out_pixels - first) for first in range(0, out_pixels, pixels)]

    # What the bus brings, one entry for each step: a tile of weights, before a new row group its parameters too.
    loads, jobs = [], []
    for size in sizes:
        for t, n in enumerate(tiles):
            jobs.append((size, n))
            for s in range(steps):
                container = next(wide for wide in (1, 2, 4, 8) if wide >= bits)
                load = words(size * (1 if depthwise else lanes) * container, bus_bits)
                loads.append(load + (words(size * parameter_bits, bus_bits) if t == s == 0 else 0))

    pipeline = 4 + -(-(lanes.bit_length() - 1) // 2)
    fill = latency + words(512, bus_bits) + latency + loads[0] - 1 + pipeline
    counts = SimpleNamespace(
        compute=0, weight_stall=0, post_stall=0, drain=0, fill=fill, words=words(512, bus_bits) + sum(loads)
    )
    queue, halves = deque(), [0, 0]  # drains to do; cycles of drain that each half still waits for
    held = [0, 0]  # cycles that each half is held at least, because its last sums are in the pipeline
    coming = deque(loads[1:])
    missing = 0  # words of the next tile still to come

    def tick(part):
        nonlocal missing
        setattr(counts, part, getattr(counts, part) + 1)
        missing = max(missing - 1, 0)
        held[:] = [max(cycles - 1, 0) for cycles in held]
        if queue:
            halves[queue[0]] -= 1
            if halves[queue[0]] == 0:
                queue.popleft()

    for job, (size, n) in enumerate(jobs):
        half = job % 2
        while halves[half] or held[half]:
            tick("post_stall")
        for step in range(steps):
            missing = coming.popleft() if coming else 0
            for _ in range(pairs * n):
                tick("compute")
            for _ in range(pairs * max(n, 4) - pairs * n):
                tick("weight_stall")
            if step == steps - 1:
                queue.append(half)
                halves[half] = n * -(-size // post_lanes)
                held[half] = pipeline
            while missing:
                tick("weight_stall")
    while queue:
        tick("drain")
    counts.drain += 6
    return counts


engines = st.builds(
    lambda rows, lanes, pixels, share, bus, latency: EngineConfig(
        rows=rows, lanes=lanes, pixels=pixels, post_lanes=max(1, rows * share // 4), bus_bits=bus, bus_latency=latency,
        act_bytes=1 << 24,
    ),
    st.sampled_from([4, 8, 16, 32]), st.sampled_from([4, 8, 16, 64]), st.sampled_from([16, 20, 33, 64]),
    st.integers(0, 4), st.sampled_from([8, 16, 64, 128, 512]), st.integers(0, 60),
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
        kernel = height = width = 1
        kernel = (1, 1)
    return SimpleNamespace(kind=kind, a_bits=a_bits, w_bits=w_bits, height=height, width=width, kernel=kernel,
                           groups=groups, inputs=inputs, channels=channels)  # fmt: skip


def build(samples, layer, thresholds=None, stride=1):
    net = NetworkBuilder(
        "net", samples.input_spec((layer.inputs, layer.height, layer.width), bits=layer.a_bits, zero_point=0)
    )
    shape = (layer.channels, layer.inputs // layer.groups, *layer.kernel)
    settings = {"bits": layer.w_bits, "scale": 0.1, "out": Grid(0.1, 3 if thresholds else 8), "thresholds": thresholds}
    # A flat copy of the input keeps the host from unfolding it: only a layer that reads the input can be unfolded.
    x = net.stride_slice("view", net.input, 1)
    if layer.kind == "linear":
        net.linear("layer", x, np.zeros(shape[:2], int), **settings)
    else:
        pads = layer.kernel[0] - 1, layer.kernel[1] - 1, 0, 0
        net.conv2d("layer", x, np.zeros(shape, int), padding=pads, groups=layer.groups, stride=stride, **settings)
    return net.build()


def played(layer, engine, out_pixels, **more):
    return play(
        rows=engine.rows, lanes=engine.lanes, pixels=engine.pixels, post_lanes=engine.post_lanes,
        bus_bits=engine.bus_bits, latency=engine.bus_latency, channels=layer.channels, inputs=layer.inputs,
        groups=layer.groups, taps=layer.kernel[0] * layer.kernel[1], out_pixels=out_pixels,
        pairs=digit_count(layer.a_bits) * digit_count(layer.w_bits), bits=layer.w_bits, **more,
    )  # fmt: skip


def assert_as_played(found, counts, engine):
    expected = [counts.compute, counts.weight_stall, counts.post_stall, counts.drain, counts.fill, 0]
    assert [getattr(found, part) for part in PARTS] == expected
    assert found.bytes_read == counts.words * engine.bus_bits // 8


@given(layer=convolutions(), engine=engines)
@settings(max_examples=150)
def test_array_layers_take_the_cycles_that_the_played_rules_take(samples, layer, engine):
    network = build(samples, layer)
    found = layers(None, engine, network)
    array = next(one for one in found if one.name == "layer")
    assert_as_played(array, played(layer, engine, layer.height * layer.width), engine)
    for one in found:
        assert min(getattr(one, part) for part in PARTS) >= 0
        assert one.total == sum(getattr(one, part) for part in PARTS) > 0
        assert 0 <= one.utilisation(engine) <= 1
        assert getattr(one, {"weights": "weight_stall", "post": "post_stall"}.get(one.bound_by, one.bound_by)) == max(
            getattr(one, part) for part in PARTS
        )
    assert array.weight_bits == layer.w_bits
    macs = layer.height * layer.width * layer.channels * layer.inputs // layer.groups * np.prod(layer.kernel)
    assert array.macs == macs
    assert array.digit_macs == macs * digit_count(layer.a_bits) * digit_count(layer.w_bits)


def test_the_played_rules_reach_every_kind_of_stall(samples):
    engine = EngineConfig(rows=16, lanes=4, pixels=16, post_lanes=1, bus_bits=8, bus_latency=0)
    layer = SimpleNamespace(
        kind="conv", a_bits=4, w_bits=8, height=8, width=9, kernel=(1, 1), groups=1, inputs=4, channels=16
    )
    counts = played(layer, engine, 72)
    assert min(counts.weight_stall, counts.post_stall, counts.drain) > 0
    assert_as_played(layers(None, engine, build(samples, layer))[1], counts, engine)


@pytest.mark.parametrize("fault", [{"bits": 5}, {"out_pixels": 35}, {"pixels": 33}, {"post_lanes": 3}, {"latency": 21}])
def test_the_comparison_finds_one_changed_parameter(samples, fault):
    engine = EngineConfig(rows=8, lanes=8, pixels=32, post_lanes=2, bus_bits=32)
    layer = SimpleNamespace(
        kind="conv", a_bits=4, w_bits=4, height=6, width=6, kernel=(3, 3), groups=1, inputs=8, channels=20
    )
    found = layers(None, engine, build(samples, layer))[1]
    shape = {"channels": 20, "inputs": 8, "groups": 1, "taps": 9, "out_pixels": 36, "pairs": 1, "bits": 4}
    known = {"rows": 8, "lanes": 8, "pixels": 32, "post_lanes": 2, "bus_bits": 32, "latency": 20} | shape
    assert_as_played(found, play(**known), engine)
    with pytest.raises(AssertionError):
        assert_as_played(found, play(**known | fault), engine)


def parts_of(layer):
    return {part: getattr(layer, part) for part in PARTS if getattr(layer, part)}


def conv(samples, engine, channels, inputs, size, kernel=3, **kinds):
    layer = SimpleNamespace(kind="conv", a_bits=4, w_bits=4, height=size[0], width=size[1], kernel=(kernel, kernel),
                            groups=1, inputs=inputs, channels=channels)  # fmt: skip
    vars(layer).update(kinds)
    return layers(None, engine, build(samples, layer))[1]


def test_one_tile_of_one_row_group_by_hand(samples):
    found = conv(samples, EngineConfig(), 16, 16, (16, 16))
    assert parts_of(found) == {
        "compute": 9 * 256,  # nine taps, 256 pixels, one digit pair
        "drain": 256 * 2 + 6,  # 16 rows through 8 post lanes, then the pipeline
        "fill": 2 * 20 + 512 // 128 + 16 * 128 // 128 + 16 * 16 * 4 // 128 - 1 + 4 + 2,
    }
    assert found.bytes_read == (4 + 16 + 9 * 8) * 16
    assert found.utilisation(EngineConfig()) == 2304 * 256 / (256 * (2304 + 518 + 73))
    assert found.bound_by == "compute"


def test_eight_bit_operands_make_four_passes_over_one_load(samples):
    found = conv(samples, EngineConfig(), 16, 16, (16, 16), a_bits=8, w_bits=8)
    assert parts_of(found) == {"compute": 9 * 256 * 4, "drain": 518, "fill": 40 + 4 + 16 + 16 + 5}
    assert found.bytes_read == (4 + 16 + 9 * 16) * 16


def test_a_narrow_bus_stalls_every_step_but_the_last(samples):
    engine = EngineConfig(bus_bits=8)
    found = conv(samples, engine, 16, 16, (4, 4))
    load = 16 * 16 * 4 // 8
    assert load == 128
    assert found.compute == 9 * 16
    assert found.weight_stall == 8 * (load - 16)
    assert found.fill == 40 + 512 // 8 + 16 * 128 // 8 + load + 5


def test_a_second_row_group_brings_its_parameters_before_its_weights(samples):
    engine = EngineConfig(bus_bits=8)
    found = conv(samples, engine, 20, 16, (4, 4), kernel=1)
    parameters, load = 4 * 128 // 8, 4 * 16 * 4 // 8
    assert parameters + load == 96
    assert parts_of(found) == {
        "compute": 16 + 16,
        "weight_stall": 96 - 16,
        # The first tile is done at 16 and has drained before the second, done at 112, drains.
        "drain": 16 * 1 + 6,
        "fill": 40 + 64 + 16 * 128 // 8 + 16 * 16 * 4 // 8 + 5,
    }


def test_fewer_than_four_pixels_take_four_cycles_a_pass(samples):
    found = conv(samples, EngineConfig(bus_bits=512), 16, 16, (1, 3), kernel=1)
    assert (found.compute, found.weight_stall) == (3, 1)
    doubled = conv(samples, EngineConfig(bus_bits=512), 16, 16, (1, 3), kernel=1, a_bits=8)
    assert (doubled.compute, doubled.weight_stall) == (6, 2)


def test_a_slow_drain_stalls_the_third_tile(samples):
    engine = EngineConfig(pixels=16, post_lanes=1, bus_bits=512)
    found = conv(samples, engine, 16, 16, (8, 6), kernel=1)
    drain = 16 * 16
    # Tiles end at 16 and 32; the first drain ends at 16 + 256, where the third tile may start.
    assert parts_of(found) == {
        "compute": 3 * 16,
        "post_stall": 16 + drain - 32,
        "drain": (16 + 3 * drain) - (16 + drain + 16) + 6,
        "fill": 40 + 1 + 4 + 2 + 5,
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
        "drain": 2 + 6,
        "fill": 40 + 16 + 10 * 128 // 32 + load + 5,
    }


def test_a_depthwise_layer_uses_the_diagonal_and_loads_only_that(samples):
    engine = EngineConfig(rows=8, lanes=16, bus_bits=16)
    found = conv(samples, engine, 12, 12, (5, 5), groups=12)
    assert found.compute == 2 * 9 * 25  # 12 channels on the 8 diagonal PEs: two row groups
    assert found.bytes_read == (32 + (8 + 4) * 128 // 16 + 9 * (8 * 4 // 16 + 4 * 4 // 16)) * 2
    assert found.digit_macs == 12 * 9 * 25


def test_grouped_layers_run_group_by_group(samples):
    engine = EngineConfig(bus_bits=512)
    found = conv(samples, engine, 36, 8, (4, 4), groups=2, kernel=1)
    assert found.compute == 2 * 2 * 16  # two groups of 18 channels: row groups of 16 and 2


def test_an_aligned_layer_loads_a_row_of_amounts_with_every_tile(samples):
    engine = EngineConfig(bus_bits=64)
    net = NetworkBuilder("net", samples.input_spec((16, 4, 4), bits=4, zero_point=0))
    steps = Grid(0.1, 4, align="shift", amounts=np.arange(16) % 3)
    x = net.requantise("steps", net.input, out=steps)
    net.conv2d("conv", x, np.zeros((16, 16, 3, 3), int), bits=3, scale=0.1, padding=1, out=Grid(0.1, 8))
    found = next(layer for layer in layers(net, engine) if layer.name == "conv")
    tile = 16 * 8 // 64 + 16 * 16 * 4 // 64  # three-bit codes stand in containers of four
    assert found.bytes_read == (512 // 64 + 16 * 128 // 64 + 9 * tile) * 8


def test_what_rides_along_brings_its_own_fields(samples):
    engine = EngineConfig(bus_bits=64)
    net = NetworkBuilder("net", samples.input_spec((16, 4, 4), bits=4, zero_point=0))
    made = net.conv2d("conv", net.stride_slice("view", net.input, 1), np.zeros((16, 16, 1, 1), int), bits=4, scale=0.1,
                      out=Grid(0.1, 16, signed=True))  # fmt: skip
    total = net.add("sum", made, net.input, out=Grid(0.1, 16, signed=True))
    net.requantise("copy", total, out=Grid(0.1, 4))
    found = next(layer for layer in layers(net, engine) if layer.name == "conv")
    assert found.op == "conv2d+add+requantise"
    assert found.bytes_read == (512 + 16 * (2 + 3 + 1) * 64 + 16 * 16 * 4) // 8


def test_thresholds_stream_with_the_parameters(samples):
    layer = SimpleNamespace(
        kind="conv", a_bits=4, w_bits=4, height=4, width=4, kernel=(1, 1), groups=1, inputs=16, channels=16
    )
    engine = EngineConfig(bus_bits=32)
    network = build(samples, layer, Thresholds(np.zeros((16, 7), int)))
    counts = played(layer, engine, 16, parameter_bits=128 + 7 * 64)
    assert_as_played(layers(None, engine, network)[1], counts, engine)


def test_load_and_store_move_whole_words_of_lanes(samples):
    engine = EngineConfig(bus_bits=64, bus_latency=7)
    net = NetworkBuilder("fc", samples.input_spec((17, 3, 2), bits=8))
    net.conv2d("conv", net.input, np.zeros((5, 17, 1, 1), int), bits=4, scale=0.1, out=Grid(0.1, 16, signed=True))
    load, _, store = layers(net, engine)
    assert parts_of(load) == {"host": 7 + 3 * 2 * 32 * 2 * 4 // 64}  # 17 channels are two words of 16, two digits each
    assert parts_of(store) == {"host": 7 + 3 * 2 * 16 * 4 * 4 // 64}
    assert (load.op, store.op, load.bytes_read) == ("load", "store", 0)


def test_an_unfolded_stem_is_loaded_wider_and_computed_shorter(samples):
    net = NetworkBuilder("stem", samples.input_spec((3, 8, 8), bits=4, zero_point=0))
    net.conv2d("conv", net.input, np.zeros((16, 3, 3, 3), int), bits=4, scale=0.1, padding=1, out=Grid(0.1, 8))
    load, stem, _ = layers(net, EngineConfig())
    assert load.host == 20 + 8 * 8 * 16 * 4 // 128
    assert stem.compute == 3 * 64  # three rows of taps, the columns in nine lanes
    assert stem.macs == 64 * 16 * 27


def test_post_only_layers_take_a_pixel_of_post_lanes_a_cycle(samples):
    net = NetworkBuilder("pool", samples.input_spec((20, 8, 8), bits=4, zero_point=0))
    pooled = net.max_pool("pool", net.input, 3, 2)
    copy = net.requantise("copy", net.global_average_pool("mean", pooled), out=Grid(0.1, 8))
    net.add("sum", copy, copy, out=Grid(0.1, 8))
    _, pool, mean, second, total, _ = layers(net, EngineConfig())
    assert parts_of(pool) == {"compute": 3 * 3 * 9 * 3, "drain": 6, "fill": 20 + 4}
    assert parts_of(mean) == {"compute": 1 * 9 * 3, "drain": 6, "fill": 20 + 4}
    # A rescale is a field of 64 bits for each of 20 channels; an add has three.
    for scaled, fields in ((second, 1), (total, 3)):
        assert parts_of(scaled) == {"compute": 3, "drain": 6, "fill": 20 + 4 + 20 * 64 * fields // 128}
        assert scaled.bytes_read == (4 + 10 * fields) * 16
    assert pool.bytes_read == 4 * 16


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
