"""The compute unit over whole layers: every accumulator, input sum and count, and the cycle of every tile."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.align import alignment_factors
from gatewise.kernels.conv import ConvShape, Operands, conv2d
from gatewise.kernels.digits import digit_count, split_digits
from gatewise.kernels.mac import MacFormat
from gatewise.rtl import accumulator, align, mac, multiplier
from gatewise.rtl.engine import (
    accumulators,
    address,
    array,
    compute,
    counters,
    input_sums,
    loader,
    registers,
    row,
    sequencer,
)
from gatewise.rtl.engine.compute import ComputeUnit
from gatewise.sim.geometry import layer_values


@dataclass
class Layer:
    """A layer with its data; its input begins at `channel` of a tensor of at least as many channels.

    `alignment` is None, "shift" or "mul"; `words` of the tensor are None where they are as few as hold the input.
    """

    shape: ConvShape
    operands: Operands
    x: np.ndarray
    weights: np.ndarray
    amounts: np.ndarray
    alignment: str | None = None
    pad_code: int = 0
    tile_pixels: int = 16
    base: int = 0
    channel: int = 0
    words: int | None = None
    taper: int = 0
    serial: bool = False

    @property
    def depthwise(self):
        return self.shape.group_inputs == self.shape.group_outputs == 1

    @property
    def size(self):
        return self.x.shape[1:]

    @property
    def pixels(self):
        return int(np.prod(self.shape.output_size(*self.size)))


@dataclass
class Run:
    """What a run leaves behind: sums by output channel; counts (3, out channels); what `done_tile` said."""

    acc: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    tiles: list = field(default_factory=list)
    done: list = field(default_factory=list)


def code_limits(bits, signed):
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def random_layer(rng, depthwise=False, most=10, **fixed):
    groups = int(rng.choice([1, 1, 2, 3]))
    inputs, outputs = (int(value) for value in rng.integers(1, most + 1, 2))
    if depthwise:
        groups, inputs, outputs = int(rng.integers(2, 14)), 1, 1
    kernel = tuple(int(value) for value in rng.choice([1, 1, 2, 2, 3, 3, 7], 2))
    dilation = tuple(int(value) for value in rng.integers(1, 3, 2))
    padding = tuple(int(value) for value in rng.integers(0, 3, 4))
    stride = tuple(int(value) for value in rng.integers(1, 4, 2))
    least = [1 + max(0, dilation[i] * (kernel[i] - 1) - padding[i]) for i in (0, 1)]
    size = [edge + int(rng.integers(6)) for edge in least]
    shape = ConvShape(groups * inputs, groups * outputs, kernel, stride, padding, dilation, groups)
    operands = Operands(int(rng.integers(1, 9)), bool(rng.integers(2)), int(rng.integers(1, 9)))
    alignment = [None, "shift", "mul"][rng.integers(3)]
    settings = {"shape": shape, "operands": operands, "size": size, "alignment": alignment, **fixed}
    layer = filled_layer(rng, **settings)
    # A depthwise layer's channels begin where a row group's may.
    diagonal = 4 if layer.depthwise else 1
    layer.channel = int(rng.choice([0, 1, 2, 5])) * diagonal
    layer.words = None if rng.integers(2) else (layer.channel + shape.in_channels) // 4 + 2
    layer.taper = int(rng.choice([0, 2, 5]))
    layer.serial = bool(rng.integers(4) == 0)
    return layer


def filled_layer(rng, shape, operands, size, alignment=None, tile_pixels=None, **more):
    low, high = code_limits(operands.a_bits, operands.a_signed)
    w_low, w_high = code_limits(operands.w_bits, True)
    amounts = np.zeros(shape.in_channels, dtype=int)
    if alignment is not None:
        amounts = rng.integers(0, 9 if alignment == "shift" else 256, shape.in_channels)
        amounts >>= rng.integers(0, 4)
    return Layer(
        shape,
        operands,
        rng.integers(low, high + 1, (shape.in_channels, *size)),
        rng.integers(w_low, w_high + 1, shape.weight_shape),
        amounts,
        alignment,
        int(rng.integers(low, high + 1)),
        int(rng.choice([16, 16, 3, 7])) if tile_pixels is None else tile_pixels,
        int(rng.integers(50)),
        **more,
    )


def operand_bits(layer, config):
    """Bits of activations and weights in a PE."""
    if config.array != "fusion" or layer.alignment is not None or layer.depthwise:
        return 4, 4
    operands = layer.operands
    return 2 if operands.a_bits <= 2 and operands.w_bits <= 4 else 4, 2 if operands.w_bits <= 2 else 4


def step_lanes(layer, config):
    a_bits, w_bits = operand_bits(layer, config)
    return config.lanes * 16 // (a_bits * w_bits)


def pe_codes(codes, layer, config):
    """What streams for the codes (rows, lanes) of a step, and its bits: the lanes that a PE holds beside each other."""
    size = config.lanes
    match operand_bits(layer, config):
        case (4, 2):
            return codes[:, :size] & 3 | (codes[:, size:] & 3) << 2, 4
        case (2, 4):
            return codes[:, :size] & 15 | (codes[:, size:] & 15) << 4, 8
        case (2, 2):
            # The upper half of a word's slots is in the upper half of a PE, two half-words beside each other in both.
            first, second, third, last = (codes[:, at * size : (at + 1) * size] & 3 for at in (0, 2, 1, 3))
            return first | second << 2 | third << 4 | last << 6, 8
    return codes, 1 << (layer.operands.w_bits - 1).bit_length()


def golden(layer, config, fmt=None):
    """What a run must leave behind, at the widths of the configuration or of a narrower format."""
    kind = layer.alignment or "shift"
    shape = layer.shape
    exact = operand_bits(layer, config) != (4, 4)
    result = conv2d(
        layer.x[None],
        layer.weights[None] if exact else split_digits(layer.weights, layer.operands.w_bits, True),
        alignment_factors(kind, layer.amounts),
        shape,
        layer.operands,
        fmt or config.mac,
        step_lanes(layer, config),
        layer.pad_code,
        layer.channel,
        exact,
    )
    sums = np.repeat(result.input_sum[0].reshape(shape.groups, -1), shape.group_outputs, axis=0)
    counts = np.array([result.product_overflows, result.align_overflows, result.acc_overflows])
    groups = row_groups(layer, config)
    tiles = []
    for at, (_, rows, _) in enumerate(groups):
        sizes = tile_sizes(layer, at == len(groups) - 1)
        for number, n in enumerate(sizes):
            last = number == len(sizes) - 1
            tiles.append((n, rows, at, last, last and at == len(groups) - 1))
    return Run(result.acc[0].reshape(shape.out_channels, -1), sums, counts, tiles)


def row_groups(layer, config):
    """(first output channel, channels, convolution group) of every row group."""
    if layer.depthwise:
        size = min(config.rows, config.lanes)
        return [(at, min(size, layer.shape.groups - at), 0) for at in range(0, layer.shape.groups, size)]
    outputs = layer.shape.group_outputs
    return [
        (group * outputs + at, min(config.rows, outputs - at), group)
        for group in range(layer.shape.groups)
        for at in range(0, outputs, config.rows)
    ]


def tile_sizes(layer, is_last):
    """Pixels of the tiles of a row group; `is_last`: of the layer's last."""
    left, sizes = layer.pixels, []
    while left > 0:
        if left > layer.tile_pixels:
            sizes.append(layer.tile_pixels)
        elif is_last and 0 < layer.taper < left:
            sizes.append(left - left // 2)
        else:
            sizes.append(left)
        left -= sizes[-1]
    return sizes


def step_tiles(layer, config, tile_words, first, count, group):
    """The words of every step's weight tile of one row group."""
    lanes, inputs = step_lanes(layer, config), layer.shape.group_inputs
    begin = layer.channel + (first if layer.depthwise else group * inputs)
    tiles = []
    for ky in range(layer.shape.kernel[0]):
        for kx in range(layer.shape.kernel[1]):
            for word in range(begin // lanes, (begin + inputs - 1) // lanes + 1):
                codes = np.zeros((count, lanes), dtype=int)
                amounts = np.full(lanes, 8)
                for lane in range(lanes):
                    channel = word * lanes + lane - layer.channel
                    if 0 <= channel < layer.shape.in_channels:
                        amounts[lane] = layer.amounts[channel]
                    if not layer.depthwise and 0 <= channel - group * inputs < inputs:
                        codes[:, lane] = layer.weights[first : first + count, channel - group * inputs, ky, kx]
                if layer.depthwise:
                    codes = layer.weights[first : first + count, 0, ky, kx]
                codes, bits = pe_codes(codes, layer, config)
                tiles.append(tile_words(codes, bits, config.bus_bits, amounts if layer.alignment else None))
    return tiles


def activation_words(layer, config, rng):
    """The memory's words by address; lanes without a channel of the layer hold anything."""
    (height, width), size = layer.size, config.word_digits
    # A fused array's codes of up to two bits share a digit: those of the next word of channels are its upper half.
    shared = 2 if config.array == "fusion" and layer.operands.a_bits <= 2 else 1
    slots = size * shared
    words = layer.words or -(-(layer.channel + layer.shape.in_channels) // slots)
    memory = {}
    for i in range(digit_count(layer.operands.a_bits)):
        for y in range(height):
            for x in range(width):
                digits = rng.integers(0, 16 // shared**2, words * slots)
                codes = layer.x[:, y, x] >> 4 * i & 16 // shared**2 - 1
                digits[layer.channel :][: layer.shape.in_channels] = codes
                for word in range(words):
                    here = digits[word * slots : (word + 1) * slots]
                    if shared == 2:
                        here = here[:size] | here[size:] << 2
                    place = ((i * height + y) * width + x) * words + word
                    memory[layer.base + place] = sum(int(digit) << 4 * lane for lane, digit in enumerate(here))
    return memory


def pipeline_cycles(config):
    """From a word's read to the first cycle in which its accumulator is written."""
    return 4 + math.ceil(math.log2(config.lanes) / 2)


def stated_cycles(layer, config, tile_words, latency):
    """The cycle of every `tile_done`, from the rules; cycle 0 is the first one in which the unit is busy."""
    pairs = layer.operands.digit_pairs
    steps = []  # (load, pixels, rows where this is a tile's last step, whether it is the first)
    groups = row_groups(layer, config)
    for first, count, group in groups:
        loads = [len(words) for words in step_tiles(layer, config, tile_words, first, count, group)]
        for n in tile_sizes(layer, (first, count, group) == groups[-1]):
            for at, load in enumerate(loads):
                steps.append((load, n, count if at == len(loads) - 1 else 0, at == 0))
    done, released = [], []
    now = loaded = steps[0][0] - 1
    drained = 0
    for at, (_, n, rows, is_first) in enumerate(steps):
        now = max(now, loaded)
        if is_first:
            waits_for = released if layer.serial else released[:-1]
            now = max(now, *waits_for, 0)
        loaded = now + (steps[at + 1][0] if at + 1 < len(steps) else 0)
        now += pairs * max(n, 4)
        if rows:
            done.append(now + latency)
            drained = max(done[-1], drained) + n * -(-rows // config.post_lanes)
            released.append(max(done[-1], drained - latency))
    return done


def play(config, layers, tile_words, gap=0.0, unit=ComputeUnit, seed=0, patience=20_000, wanted=None, formats=()):
    """Run the layers one after the other through one unit, with a drain of `post_lanes` accumulators a cycle.

    Stops after the first layer that is not the one `wanted`. With `formats`, one for each layer, the unit is a build
    whose widths are inputs.
    """
    dut = unit(config, formats=bool(formats))
    rng = np.random.default_rng(seed)
    runs = []

    async def bench(ctx):
        for at, layer in enumerate(layers):
            if formats:
                fmt = formats[at]
                widths = {name: getattr(fmt, name) for name in ("product", "align", "acc")}
                ctx.set(dut.format, {**widths, "wrap": int(fmt.overflow == "wrap")})
            runs.append(await run_layer(ctx, layer))
            if wanted is not None and differences([runs[at]], [wanted[at]]):
                return

    async def run_layer(ctx, layer):
        groups = row_groups(layer, config)
        words = []
        for group in groups:
            tiles = step_tiles(layer, config, tile_words, *group)
            words += [word for tile in tiles for word in tile] * len(tile_sizes(layer, group == groups[-1]))
        memory = activation_words(layer, config, rng)
        run = Run(
            np.zeros((layer.shape.out_channels, layer.pixels), dtype=np.int64),
            np.zeros((layer.shape.out_channels, layer.pixels), dtype=np.int64),
            np.zeros((3, layer.shape.out_channels), dtype=np.int64),
        )
        values = layer_values(
            config,
            layer.shape,
            layer.operands,
            layer.size,
            code_bits=pe_codes(np.zeros((1, step_lanes(layer, config)), dtype=int), layer, config)[1],
            **{
                name: getattr(layer, name)
                for name in (
                    "base",
                    "channel",
                    "words",
                    "pad_code",
                    "alignment",
                    "tile_pixels",
                    "taper",
                    "serial",
                )
            },
        )
        ctx.set(dut.layer, values)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)

        words.reverse()
        first_pixel = [0] * len(groups)
        reads, releases = {}, {}
        drained = 0
        sample = counted = None
        offered = False
        for cycle in range(patience):
            # A word that was offered stays.
            offered = offered or (bool(words) and rng.random() >= gap)
            ctx.set(dut.words.valid, int(offered))
            if offered:
                ctx.set(dut.words.payload, words[-1])
            if ctx.get(dut.tile_done):
                tile = SimpleNamespace(**{name: ctx.get(getattr(dut.done_tile, name)) for name in (
                    "pixels", "rows", "row_group", "row_group_last", "layer_last")})  # fmt: skip
                half = ctx.get(dut.done_half)
                run.done.append(cycle)
                run.tiles.append(tuple(vars(tile).values()))
                per_pixel = -(-tile.rows // config.post_lanes)
                begin = max(cycle, drained)
                drained = begin + tile.pixels * per_pixel
                for pixel in range(tile.pixels):
                    reads[begin + pixel * per_pixel] = (half, pixel, tile, first_pixel[tile.row_group] + pixel)
                first_pixel[tile.row_group] += tile.pixels
                releases[max(cycle, drained - dut.latency)] = half
                counted = (cycle + 1, tile) if tile.row_group_last else None
                last = tile.layer_last
            if counted and counted[0] == cycle:
                first, count, _ = groups[counted[1].row_group]
                assert counted[1].rows == count
                ports = (dut.product_count, dut.align_count, dut.acc_count)
                run.counts[:, first : first + count] = [[ctx.get(port[r]) for r in range(count)] for port in ports]
            ctx.set(dut.release, 1 << releases.pop(cycle) if cycle in releases else 0)
            sample = reads.pop(cycle, None)
            if sample:
                ctx.set(dut.drain_half, sample[0])
                ctx.set(dut.drain_pixel, sample[1])
            read, place = ctx.get(dut.act_read), ctx.get(dut.act_address)
            took = offered and ctx.get(dut.words.ready)
            await ctx.tick()
            ctx.set(
                dut.act_data.as_value(),
                memory[place] if read else int.from_bytes(rng.bytes(config.word_digits // 2), "little"),
            )
            if took:
                words.pop()
                offered = False
            if sample:
                _, _, tile, pixel = sample
                first, count, _ = groups[tile.row_group]
                run.acc[first : first + count, pixel] = [ctx.get(dut.drain_acc[r]) for r in range(count)]
                run.sums[first : first + count, pixel] = [ctx.get(dut.drain_input_sum[r]) for r in range(count)]
            if run.done and last and not reads and not releases and cycle > run.done[-1]:
                assert not words
                assert not ctx.get(dut.busy)
                return run
        raise AssertionError("the layer must end")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert dut.latency == pipeline_cycles(config)
    return runs


def differences(runs, wanted):
    return [
        (at, name)
        for at, (run, expected) in enumerate(zip(runs, wanted, strict=True))
        for name in ("acc", "sums", "counts", "tiles", "done")
        if not np.array_equal(getattr(run, name), getattr(expected, name))
    ]


NARROW = {"align": 10, "acc": 14}


@pytest.mark.parametrize(
    ("rows", "lanes", "bus", "post_lanes", "widths", "seed"),
    [
        (4, 4, 32, 2, NARROW, 1),
        (4, 4, 8, 4, {**NARROW, "overflow": "wrap"}, 2),
        (4, 4, 128, 1, {**NARROW, "product": 6}, 3),
        (8, 4, 64, 4, {**NARROW, "product": 7, "overflow": "wrap"}, 4),
        (4, 8, 16, 1, {}, 5),
    ],
)
@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_layers_are_the_golden_ones_and_tiles_end_in_their_cycles(
    rows, lanes, bus, post_lanes, widths, seed, gap, tile_words
):
    config = EngineConfig(
        rows=rows, lanes=lanes, pixels=16, bus_bits=bus, post_lanes=post_lanes, act_bytes=4096, mac=MacFormat(**widths)
    )
    rng = np.random.default_rng(seed if not gap else seed + 100)
    # The first layer's wide codes and shifts overflow in the narrow formats.
    layers = [random_layer(rng, operands=Operands(8, False, 8), alignment="shift")]
    layers[0].amounts[:] = 8
    layers += [random_layer(rng, depthwise=at % 4 == 3) for at in range(1, 3 if gap else 8)]
    wanted = [golden(layer, config) for layer in layers]
    runs = play(config, layers, tile_words, gap)
    for layer, run, expected in zip(layers, runs, wanted, strict=True):
        expected.done = run.done if gap else stated_cycles(layer, config, tile_words, pipeline_cycles(config))
    assert differences(runs, wanted) == []
    if widths and not gap:
        product, align, acc = (sum(int(run.counts[kind].sum()) for run in runs) for kind in range(3))
        assert (product > 0) == ("product" in widths)
        assert align > 0
        assert acc > 0


def fused_layers(rng, number):
    """A layer of a fused array in every mode, an aligned and a depthwise one."""
    bits = [(2, 2), (1, 1), (2, 2), (2, 4), (2, 3), (1, 4), (4, 2), (3, 1), (8, 2), (4, 4), (2, 8), (8, 8)]
    kinds = [(bits[at], None, False) for at in range(number, len(bits), 3)]
    kinds += [((2, 2), "shift", False), ((8, 4), "mul", False), ((2, 4), "mul", True)][number : number + 1]
    kinds += [((2, 2), None, True), ((4, 1), "mul", True), ((8, 8), None, True)][number : number + 1]
    layers = [
        random_layer(rng, depthwise, 12, operands=Operands(a_bits, bool(rng.integers(2)), w_bits), alignment=kind)
        for (a_bits, w_bits), kind, depthwise in kinds
    ]
    # Sums of many wide inputs, which a narrow accumulator cannot hold.
    return [*layers, filled_layer(rng, ConvShape(40, 6, (1, 2)), Operands(8, False, 2), (2, 5), None)]


@pytest.mark.parametrize(
    ("rows", "lanes", "bus", "post_lanes", "widths", "number"),
    [
        (4, 4, 32, 2, {"align": 10, "acc": 12}, 0),
        (8, 4, 16, 4, {"product": 7, "acc": 12, "overflow": "wrap"}, 1),
        (4, 8, 64, 1, {"acc": 12}, 2),
    ],
)
def test_layers_of_a_fused_array_are_the_golden_ones(rows, lanes, bus, post_lanes, widths, number, tile_words):
    config = EngineConfig(
        rows=rows,
        lanes=lanes,
        pixels=16,
        bus_bits=bus,
        post_lanes=post_lanes,
        act_bytes=8192,
        array="fusion",
        mac=MacFormat(**widths),
    )
    layers = fused_layers(np.random.default_rng(number), number)
    wanted = [golden(layer, config) for layer in layers]
    for layer, expected in zip(layers, wanted, strict=True):
        expected.done = stated_cycles(layer, config, tile_words, pipeline_cycles(config))
    runs = play(config, layers, tile_words)
    assert differences(runs, wanted) == []
    counts = [run.counts.sum(axis=1).tolist() for run in runs]
    assert {operand_bits(layer, config) for layer in layers} == {(2, 2), (2, 4), (4, 2), (4, 4)}
    assert not any(sum(counts[at][:2]) for at, layer in enumerate(layers) if operand_bits(layer, config) != (4, 4))
    assert counts[-1][2] > 0


WIDEST = MacFormat(product=10, align=24, acc=48)
FORMATS = [
    MacFormat(product=6, align=8, acc=12),
    MacFormat(product=7, align=9, acc=13, overflow="wrap"),
    MacFormat(product=6, align=10, acc=14, overflow="wrap"),
    MacFormat(product=10, align=24, acc=48),
    MacFormat(product=9, align=12, acc=16),
    MacFormat(product=7, align=16, acc=32),
    MacFormat(product=8, align=11, acc=14, overflow="wrap"),
]


def format_layers():
    """A layer for each format; wide codes, signed ones and both kinds of alignment overflow in the narrow ones."""
    rng = np.random.default_rng(21)
    shape = ConvShape(6, 5, (2, 1))
    kinds = [
        (Operands(8, False, 8), "shift"),
        (Operands(8, False, 8), "mul"),
        (Operands(4, True, 4), "mul"),
        (Operands(8, True, 8), "mul"),
        (Operands(8, True, 8), "shift"),
        (Operands(4, False, 4), None),
        (Operands(8, False, 5), "shift"),
    ]
    layers = [filled_layer(rng, shape, operands, (3, 3), kind) for operands, kind in kinds]
    for layer in layers:
        layer.amounts[:3] = 8 if layer.alignment == "shift" else 0 if layer.alignment is None else 250
    return layers


def test_widths_may_be_inputs(tile_words):
    config = EngineConfig(rows=4, lanes=4, pixels=16, bus_bits=32, act_bytes=4096, mac=WIDEST)
    layers = format_layers()
    wanted = [golden(layer, config, fmt) for layer, fmt in zip(layers, FORMATS, strict=True)]
    runs = play(config, layers, tile_words, formats=FORMATS)
    for layer, expected in zip(layers, wanted, strict=True):
        expected.done = stated_cycles(layer, config, tile_words, pipeline_cycles(config))
    assert differences(runs, wanted) == []
    assert all(run.counts.sum(axis=1).all() for run in runs[:2])
    assert not runs[3].counts.any()


def test_widths_as_inputs_are_at_most_those_of_the_configuration(tile_words):
    # A build of the default widths whose inputs say just them is the default build.
    config = EngineConfig(rows=4, lanes=4, pixels=16, bus_bits=32, act_bytes=4096)
    layers = format_layers()[:2]
    runs = play(config, layers, tile_words, formats=[MacFormat(), MacFormat(align=9, overflow="wrap")])
    wanted = [golden(layers[0], config), golden(layers[1], config, MacFormat(align=9, overflow="wrap"))]
    for run, expected in zip(runs, wanted, strict=True):
        expected.done = run.done
    assert differences(runs, wanted) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Mux(is_unsigned, above << 1, above)", "above"),
        ("& ~Value.cast(is_unsigned)[0]", ""),
        ("Mux(wrap, wrapped, end)", "end"),
        ("Mux(sign, above, ~above)", "~above"),
        ("Mux(top, exact | above, exact & ~above)", "exact & ~above"),
        ("width.wrap.eq(wrap)", "width.wrap.eq(0)"),
    ],
    ids=["product signed", "unsigned wraps to a sign", "never wraps", "one end", "wraps unsigned", "wrap forgotten"],
)
def test_a_fault_in_a_width_is_found(old, new, planted, monkeypatch, tile_words):
    names = planted(mac, old, new)
    for user in (multiplier, align, accumulator):
        monkeypatch.setattr(user, "limit_within", names["limit_within"])
    monkeypatch.setattr(compute, "width_of", names["width_of"])
    config = EngineConfig(rows=4, lanes=4, pixels=16, bus_bits=32, act_bytes=4096, mac=WIDEST)
    layers = format_layers()[:3]
    wanted = [golden(layer, config, fmt) for layer, fmt in zip(layers, FORMATS, strict=False)]
    for layer, expected in zip(layers, wanted, strict=True):
        expected.done = stated_cycles(layer, config, tile_words, pipeline_cycles(config))
    runs = play(config, layers, tile_words, formats=FORMATS, wanted=wanted)
    assert differences(runs, wanted[: len(runs)]) != []


def found_by(config, layers, tile_words, unit=ComputeUnit):
    """What differs from the golden model and the stated cycles, in the first layer that differs."""
    wanted = [golden(layer, config) for layer in layers]
    for layer, run in zip(layers, wanted, strict=True):
        run.done = stated_cycles(layer, config, tile_words, pipeline_cycles(config))
    try:
        runs = play(config, layers, tile_words, unit=unit, patience=3000, wanted=wanted)
    except (AssertionError, KeyError) as error:  # it never ends, or reads where nothing lies
        return str(error)
    return differences(runs, wanted[: len(runs)])


FAULTS = {
    "sign extension dropped": (loader, "word[low : low + bits].as_signed()", "word[low : low + bits]"),
    "swap a word late": (loader, "& (~full | self.swap)", "& ~full"),
    "address off by one": (address, "pixel.address + layer.pixel_step", "pixel.address + layer.pixel_step + 1"),
    "missing padding": (compute, "Mux(inside, ", "Mux(1, "),
    "one digit of the padding": (compute, "Mux(fetched.a_upper, layer.pad_code", "Mux(0, layer.pad_code"),
    "counter not cleared": (counters, "Mux(self.close, 0, counter)", "counter"),
    "upper weight digit": (row, "Mux(self.w_high, ", "Mux(0, "),
    "not from zero": (accumulators, "running = settled(m, Mux(first, 0, ", "running = settled(m, Mux(0, 0, "),
    "half taken too early": (sequencer, "~still_occupied.bit_select(half, 1)", "1"),
    "rows of the group before": (sequencer, "Mux(new_rows, next_rows, used_rows)", "used_rows"),
    "low digit signed": (sequencer, "self.step.w_signed.eq(w_signed)", "self.step.w_signed.eq(1)"),
    "every lane summed": (sequencer, "(lane < word_end)", "(lane < lanes.most)"),
    "lanes before the group summed": (sequencer, "(lane >= word_begin) & ", ""),
    "the next word masked": (sequencer, "word_begin.eq(0), word_end", "word_end"),
    "a word for each group": (sequencer, "lanes.groups(next_begin)", "lanes.groups(next_begin + (lanes.count - 1))"),
    "group a word behind": (sequencer, "Mux(self.tile_end, next_begin, begin)", "begin"),
    "taper in every row group": (sequencer, "Mux(last_row_group & ", "Mux("),
    "taper rounded down": (sequencer, "(rest + 1) >> 1", "rest >> 1"),
    "taper too far": (sequencer, "(rest > layer.taper)", "(rest >= layer.taper)"),
    "not serial": (sequencer, "Mux(layer.serial, ", "Mux(0, "),
    "one input sum": (input_sums, "Mux(self.depthwise, own, total)", "total"),
    "digit pass too short": (sequencer, "(pixel >= MIN_PIXELS - 1)", "(pixel >= MIN_PIXELS - 2)"),
    "first step repeated": (sequencer, "tile_first.eq(last_tap)", "tile_first.eq(1)"),
}


def small_layers():
    """Few cycles in which all of it happens: padding, digits, part tiles and row groups, slow drains, loads."""
    rng = np.random.default_rng(11)
    eights = Operands(8, False, 8)
    return [
        filled_layer(
            rng, ConvShape(15, 9, (1, 2), groups=3), Operands(4, False, 4), (2, 4), "shift", 4, channel=3, taper=2
        ),
        filled_layer(rng, ConvShape(6, 6, (2, 1), groups=6), Operands(4, True, 4), (3, 3), "shift", 16, channel=4),
        filled_layer(rng, ConvShape(3, 6), Operands(4, True, 4), (3, 4), None, 3, serial=True, taper=2),
        filled_layer(rng, ConvShape(5, 6, (2, 2), padding=(1, 1, 0, 0)), eights, (4, 4), "shift", 3),
        filled_layer(rng, ConvShape(6, 10), Operands(4, True, 3), (3, 3), None, 16),
        filled_layer(rng, ConvShape(2, 4, (1, 1)), Operands(2, False, 2), (6, 4), "mul", 7),
        filled_layer(rng, ConvShape(9, 5), Operands(4, False, 8), (1, 1), "shift", 16),
        filled_layer(rng, ConvShape(1, 1, (2, 2)), Operands(3, True, 5), (4, 4), None, 16),
    ]


FAULT_CONFIG = EngineConfig(
    rows=4, lanes=4, pixels=16, bus_bits=16, post_lanes=1, act_bytes=4096, mac=MacFormat(align=10, acc=16)
)


def test_the_small_layers_agree(tile_words):
    assert found_by(FAULT_CONFIG, small_layers(), tile_words) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted, monkeypatch, tile_words):
    module, old, new = FAULTS[fault]
    names = planted(module, old, new)
    for user, name in (
        (compute, "WeightLoader"),
        (compute, "AddressGenerator"),
        (compute, "AccumulatorBank"),
        (compute, "MacArray"),
        (compute, "ComputeSequencer"),
        (accumulators, "OverflowCounters"),
        (array, "MacRow"),
        (array, "InputSums"),
    ):
        if name in names and names[name].__module__ == module.__name__ and hasattr(module, name):
            monkeypatch.setattr(user, name, names[name])
    assert found_by(FAULT_CONFIG, small_layers(), tile_words, names.get("ComputeUnit", ComputeUnit)) != []


FUSED_FAULTS = {
    "lanes of 4x4": (registers, "self.more = layer.mode[0] + layer.mode[1]", "self.more = layer.mode[0] & 0"),
    "lanes of one narrow operand": (registers, "layer.mode[0] + layer.mode[1]", "layer.mode[0] | layer.mode[1]"),
    "groups of L lanes": (registers, "else groups >> self.more", "else groups"),
    "a group's lane of L": (registers, "channel & (self.count - 1)", "channel & (self.lanes - 1)"),
    "narrow words taken for others": (compute, "unit.narrow.eq(layer.narrow)", "unit.narrow.eq(0)"),
    "4x4 alone": (compute, "array.mode.eq(layer.mode)", "array.mode.eq(0)"),
    "sub-word too early": (compute, "m.d.sync += sub.eq(split.sub)", "m.d.comb += sub.eq(split.sub)"),
    "codes not extended": (compute, "operands.a_signed.eq(a_signed)", "operands.a_signed.eq(0)"),
    "no padding": (compute, "operands.inside.eq(inside)", "operands.inside.eq(1)"),
}


def small_fused_layers():
    """Few cycles in every mode, groups that begin within words and sub-words, padding, signed narrow codes."""
    rng = np.random.default_rng(12)
    return [
        filled_layer(rng, ConvShape(40, 3, groups=1), Operands(2, True, 2), (2, 2), channel=5),
        filled_layer(rng, ConvShape(27, 9, groups=3), Operands(1, False, 3), (2, 2), channel=6),
        filled_layer(rng, ConvShape(22, 4, groups=2, padding=(0, 1, 0, 0)), Operands(4, True, 2), (2, 2), channel=11),
        filled_layer(rng, ConvShape(10, 5, padding=(1, 0, 0, 0)), Operands(2, True, 5), (2, 2), channel=7),
        filled_layer(rng, ConvShape(6, 6, groups=6), Operands(2, True, 2), (2, 2), channel=12),
    ]


FUSED_CONFIG = FAULT_CONFIG.model_copy(update={"array": "fusion"})


def test_the_small_fused_layers_agree(tile_words):
    assert found_by(FUSED_CONFIG, small_fused_layers(), tile_words) == []


@pytest.mark.parametrize("fault", FUSED_FAULTS)
def test_a_fault_planted_in_a_fused_unit_is_found(fault, planted, monkeypatch, tile_words):
    module, old, new = FUSED_FAULTS[fault]
    names = planted(module, old, new)
    if module is registers:
        monkeypatch.setattr(sequencer, "StepLanes", names["StepLanes"])
    unit = ComputeUnit if module is registers else names["ComputeUnit"]
    assert found_by(FUSED_CONFIG, small_fused_layers(), tile_words, unit) != []
