"""What an engine does for an image: counts held to a walk over the descriptors, one pixel, word and lane at a time."""

from collections import Counter
from pathlib import Path

import gatewise
import numpy as np
import pytest
from gatewise import EngineConfig, Grid, NetworkBuilder
from gatewise.sim.compile import compile_network
from gatewise.sim.cycles import network_cycles
from gatewise.sim.descriptor import OPERATIONS, descriptor_bits
from gatewise.sim.events import PARTS, layer_events, stream_words, tree_adders
from gatewise.sim.file import load
from gatewise.sim.random_cases import ENGINES, random_cases

from .machine import OPERAND_BITS, Machine, parse

FOLDER = Path(gatewise.__file__).parent / "sim" / "digits"
DIGITS = {"int4": "digit", "mixed": "fusion", "shift4": "shift", "focused5": "shift", "xor0.8": "sign", "lq2a2": "sign"}


class Walk(Machine):
    """Counts instead of computing: the walk over an image's descriptors, every pass and lane on its own."""

    def __init__(self, compiled):
        super().__init__(compiled.engine, compiled.image)
        self.compiled, self.counts = compiled, []

    def run(self):
        word = 0
        for layer in self.compiled.layers:
            r, word = parse(self.engine, self.image, word)
            self.found = Counter()
            op = OPERATIONS[r["op"]]
            if op in ("load", "store"):
                self.found["activation writes" if op == "load" else "activation reads"] += self.moved(r, op)
            else:
                if op == "mac":
                    self.walk(r, layer)
                self.post(r, op, layer)
            self.counts.append(self.found)
        return self.counts

    def moved(self, r, op):
        prefix, step = ("out", "out_pixel_step") if op == "load" else ("first", "pixel_step")
        return sum(1 for _ in range(r[f"{prefix}_planes"]) for _ in range(r["out_pixels"]) for _ in range(r[step]))

    def lanes(self, r, group, rows, first, word):
        """How many channels each PE has, from the lanes that the word holds of the group's channels."""
        pes, lanes = self.engine.lanes, self.step_lanes(r)
        start = r["in_lane"] + (first if r["depthwise"] else group * r["group_inputs"])
        if r["depthwise"]:
            return Counter({start % lanes: 1}), start // lanes
        # Channel c of a step is in PE c % PEs, whatever the mode.
        held = Counter()
        for channel in range(start, start + r["group_inputs"]):
            if channel // lanes == start // lanes + word:
                held[channel % lanes % pes] += 1
        return held, start // lanes + word

    def adders(self, pes, size):
        """Adders of a tree over [0, size) that have something on both sides."""
        if size == 1:
            return 0
        half = size // 2
        left, right = {pe for pe in pes if pe < half}, {pe - half for pe in pes if pe >= half}
        return self.adders(left, half) + self.adders(right, half) + bool(left and right)

    def walk(self, r, layer):
        found, engine = self.found, self.engine
        parts, planes = 1 + r.get("part_top", 0), r.get("a_planes", 0)
        groups = list(self.row_groups(r))
        for index, (first, rows, group) in enumerate(groups):
            rest = 0 < r.get("rest_from", 0) <= index
            digits = 1 if rest else 1 + r.get("w_top", 0)
            start = (r["in_lane"] + (0 if r["depthwise"] else group * r["group_inputs"])) % self.step_lanes(r)
            words = 1 if r["depthwise"] else -(-(start + r["group_inputs"]) // self.step_lanes(r))
            kept = [self.lanes(r, group, rows, first, word) for word in range(words)]
            adders = [self.adders(set(held), engine.lanes) for held, _ in kept]
            tiles = self.tiles(r, index == len(groups) - 1)
            code = 1 if engine.array == "sign" else 8
            for _ in range(len(tiles) * r["kernel_y"] * r["kernel_x"] * words * parts):
                # The rows in use come into the shadow tile, and all go on; amounts do both.
                found["register bits"] += rows * (1 if r["depthwise"] else engine.lanes) * code
                found["register bits"] += engine.rows * engine.lanes * code
                found["register bits"] += 2 * 8 * engine.lanes * r.get("aligned", 0)
            for y, x, _ in self.window(r):
                started = set()
                for dy, dx, _ in self.taps(r):
                    for (held, word), tree in zip(kept, adders, strict=True):
                        here = not r.get("wide_end") or r["wide_first"] <= word < r["wide_end"]
                        for part in range(parts):
                            for j in range(digits):
                                for i in range((r["a_top"] if here else 0) + 1):
                                    plane = (part if engine.array == "sign" else 0, i if planes else 0)
                                    self.one_pass(r, rows, held, tree, part == j == 0, plane, started)
                                    found["activation reads"] += self.inside(r, y + dy, x + dx)

    def one_pass(self, r, rows, held, tree, summed, plane, started):
        found = self.found
        found["accumulator writes"] += 1
        found["accumulator reads"] += plane in started
        found["input-sum memory"] += summed * (1 + (plane in started))
        started.add(plane)
        a_bits, w_bits = OPERAND_BITS[r.get("mode", 0)]
        found["products"] += rows * held.total() * (a_bits * w_bits // 4 if self.engine.array == "fusion" else 1)
        found["adder tree"] += rows * tree
        found["accumulate"] += rows

    def tiles(self, r, last):
        left, sizes = r["out_pixels"], []
        while left:
            n = min(left, r["tile_pixels"])
            if last and r["taper"] and r["taper"] < left <= r["tile_pixels"]:
                n = -(-left // 2)
            sizes.append(n)
            left -= n
        return sizes

    def post(self, r, op, layer):
        found, span = self.found, min(self.engine.rows, self.engine.lanes)
        taps = r["kernel_y"] * r["kernel_x"]
        for _, rows, _ in self.row_groups(r):
            for _ in range(r["out_pixels"]):
                for _ in range(0, rows, span):
                    found["activation reads"] += r["other_planes"] * (1 + r["other_straddles"])
                    if op != "mac":
                        found["activation reads"] += taps * r["first_planes"] * (1 + r["first_straddles"])
                    else:
                        beats = r["beats"] * (1 + r.get("plane_top", 0))
                        found["accumulator reads"] += beats
                        found["input-sum memory"] += beats
                    for prefix in ("out", "second"):
                        found["activation writes"] += r[f"{prefix}_planes"] * (1 + r[f"{prefix}_straddles"])


PRODUCTS = {"digit": "multiply", "fusion": "multiply", "shift": "shift", "sign": "sign"}
MEMORY = ("activation reads", "activation writes", "accumulator reads", "accumulator writes", "input-sum memory")


def counted(layer, engine):
    """The model's counts under the walk's names."""
    found = Counter()
    for event in layer_events(layer, engine):
        assert event.part in PARTS
        if event.part in (*MEMORY, "accumulate", "adder tree"):
            found[event.part] += event.count
        elif event.part == PRODUCTS[engine.array]:
            found["products"] += event.count
        elif event.part == "weight registers":
            found["register bits"] += event.count * event.size
    return found


def check(compiled):
    """Every count of every layer; returns in how many layers each was not 0."""
    walked, engine, hits = Walk(compiled).run(), compiled.engine, Counter()
    for layer, expected in zip(compiled.layers, walked, strict=True):
        found = counted(layer, engine)
        for name in (*MEMORY, "accumulate", "adder tree", "products", "register bits"):
            assert found[name] == expected[name], (layer.name, name)
            hits[name] += expected[name] > 0
    return hits


@pytest.mark.parametrize(("name", "array"), DIGITS.items())
def test_counts_of_the_digits_networks_are_those_of_a_walk(name, array):
    engine = EngineConfig.load(FOLDER / f"engine-{array}.toml")
    hits = check(compile_network(load(FOLDER / f"digits-{name}.gw"), engine))
    assert all(hits[each] for each in (*MEMORY, "products", "adder tree", "register bits"))


def test_counts_of_random_networks_on_every_engine_are_those_of_a_walk():
    seen = Counter()
    for case in random_cases(2 * len(ENGINES), seed=3):
        seen[case.engine.array] += 1
        if case.golden.cycles_per_image < 2_500:
            check(compile_network(case.network, case.engine))
    assert min(seen[array] for array in PRODUCTS) > 2


def test_words_of_the_stream_are_the_bytes_of_the_cycle_model_and_of_the_image():
    decoders = Counter()
    for case in random_cases(2 * len(ENGINES), seed=4):
        compiled = compile_network(case.network, case.engine)
        bus, streamed = case.engine.bus_bits, 0
        for layer, cycles, (_, words) in zip(
            compiled.layers, network_cycles(compiled.layers, case.engine), compiled.stream_words, strict=True
        ):
            counted = stream_words(layer, case.engine)
            assert (counted.read - counted.loaded) * bus // 8 == cycles.bytes_read
            assert counted.descriptor == descriptor_bits(case.engine) // bus
            if layer.op in ("load", "store"):
                assert counted.loaded + counted.stored == words
            else:
                # A row group's weights come once for each of its tiles.
                streamed += counted.table + counted.records + counted.weights >= words
        decoders[case.engine.decoder] += streamed
    assert min(decoders[name] for name in ("raw", "huffman", "xor")) > 0


def test_a_small_convolution_by_hand(samples):
    """5 inputs and 3 outputs on 4 x 4: two lane groups, of four lanes and of one."""
    engine = EngineConfig(rows=4, lanes=4, pixels=16, post_lanes=2, act_bytes=1 << 14, bus_bits=32)
    net = NetworkBuilder("hand", samples.input_spec((5, 2, 2)))
    codes = np.ones((3, 5, 1, 1), dtype=np.int64)
    net.conv2d("conv", net.input, codes, bits=4, scale=0.1, out=Grid(0.1, 4))
    compiled = compile_network(net.build(), engine)
    layer = next(layer for layer in compiled.layers if layer.op == "mac")
    found = Counter()
    for event in layer_events(layer, engine):
        found[event.part, event.kind, event.size] += event.count
    digits = 1 + layer.registers["a_top"]
    pixels, rows = 4, 3
    assert found["multiply", "multiply", 16] == pixels * rows * 5 * digits
    assert found["adder tree", "add", 17] == pixels * rows * 2 * digits  # two pairs of the four lanes
    assert found["adder tree", "add", 18] == pixels * rows * 1 * digits
    assert found["accumulate", "add", 32] == pixels * rows * 2 * digits
    assert found["activation reads", "sram", 16] == pixels * 2 * digits
    assert found["accumulator writes", "sram", 128] == pixels * 2 * digits
    # All but the first pass of a pixel, and two beats of two channels.
    assert found["accumulator reads", "sram", 128] == pixels * (2 * digits - 1) + pixels * 2
    assert found["correct", "multiply", 16 * 32] == pixels * rows
    assert found["weight registers", "register", 4 * 4 * 8] == 2
    assert found["weight registers", "register", 3 * 4 * 8] == 2


def test_adders_of_a_tree_count_where_both_sides_have_something():
    assert tree_adders(np.array([1, 1, 1, 1], dtype=bool)) == [2, 1]
    assert tree_adders(np.array([1, 0, 1, 0], dtype=bool)) == [0, 1]
    assert tree_adders(np.array([0, 1, 1, 1, 1, 0, 0, 0], dtype=bool)) == [1, 1, 1]
    for seed in range(20):
        lanes = np.random.default_rng(seed).random(16) < 0.4
        assert sum(tree_adders(lanes)) == max(0, int(lanes.sum()) - 1)


@pytest.mark.parametrize("change", [("kernel_x", 1), ("pad_left", 1), ("in_width", -1), ("stride_x", 1)])
def test_the_walk_finds_one_changed_register(change):
    engine = EngineConfig.load(FOLDER / "engine-digit.toml")
    compiled = compile_network(load(FOLDER / "digits-int4.gw"), engine)
    at = next(index for index, layer in enumerate(compiled.layers) if layer.name == "conv3")
    layer, (name, more) = compiled.layers[at], change
    layer.registers[name] += more
    with pytest.raises(AssertionError):
        check(compiled)
