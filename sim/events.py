"""What an engine does for one image, counted: operations of its arithmetic and accesses of its memories.

The counts follow from the registers of each layer, as cycles and `bytes_read` do, and never from activations or from
the weights' values: a weight of zero counts like any other. Co-simulation holds the accesses to the strobes of the RTL
(`rtl/activity.py`). What an operation is worth in energy says `energy.py`.

An operation counts where it has something to do: rows and lanes without a channel do nothing, taps in the padding are
computed like all others, and a layer without an alignment aligns nothing. Adders have the widths that the RTL gives
them. A read counts where its word is used: the ports of the accumulators read in every cycle.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..kernels.correction import INPUT_SUM_BITS, ZERO_POINT_BITS, Correction
from ..kernels.fusion import BRICKS, FUSION_MODES, OPERAND_BITS, SLICE_BITS
from ..kernels.mac import DIGIT_BITS
from ..kernels.planes import COEFFICIENT_BITS, PlaneCorrection
from ..kernels.residual import STREAM_BITS
from ..kernels.shift import ShiftRow
from ..kernels.sign import SignRow
from .coded import HuffmanStreams
from .descriptor import CODE_BITS, SHIFT_BITS, descriptor_words
from .engine import EngineConfig
from .image import AMOUNT_BITS, FIELD_BITS, TileLayout
from .lowered import (
    DIVIDER_CYCLES,
    LoweredLayer,
    RowGroup,
    activation_digits,
    container,
    lanes_of,
    row_groups,
    weight_digits,
    words_of,
)
from .manifest import AddNode, RequantiseNode, ScaleRequant
from .tile_times import tile_sizes

__all__ = [
    "PARTS",
    "Event",
    "Group",
    "Kind",
    "StreamWords",
    "layer_events",
    "slot_count",
    "stream_words",
    "weight_tiles",
]

Kind = Literal["multiply", "add", "gate", "register", "sram", "dram"]
"""What an event's `size` counts: products of bits, bits of an adder, two-input gates, bits of the others."""
Group = Literal["arithmetic", "on-chip memory", "DRAM"]

PARTS: dict[str, Group] = {
    "multiply": "arithmetic",
    "combine": "arithmetic",
    "shift": "arithmetic",
    "sign": "arithmetic",
    "align": "arithmetic",
    "adder tree": "arithmetic",
    "component sums": "arithmetic",
    "accumulate": "arithmetic",
    "input sum": "arithmetic",
    "correct": "arithmetic",
    "requantise": "arithmetic",
    "pool": "arithmetic",
    "decode": "arithmetic",
    "prefetch": "on-chip memory",
    "weight registers": "on-chip memory",
    "operand registers": "on-chip memory",
    "activation reads": "on-chip memory",
    "activation writes": "on-chip memory",
    "accumulator reads": "on-chip memory",
    "accumulator writes": "on-chip memory",
    "input-sum memory": "on-chip memory",
    "record memory": "on-chip memory",
    "weights": "DRAM",
    "records": "DRAM",
    "images": "DRAM",
}
"""Parts of an image's energy, and what they are of.

`combine` are the additions of a fused PE's 2 x 2 bit products, `sign` what a sign array does before its trees (XNOR,
mask), `component sums` those of a focused layer's inputs, `weight registers` the shadow tile and the active one,
`records` the channels' constants and the layers' descriptors, `images` the input and the result.
"""

LIMITS, LIMIT_BITS, OFFSET_BITS, SYMBOL_BITS = 16, 17, 8, 8
"""A Huffman decoder's step: comparisons with the limits of all lengths, an offset added, a symbol read."""
MUX_GATES = 3
"""Two-input gates of a two-way multiplexer of a bit."""
SIGN_GATES = {False: 2 * (DIGIT_BITS + 1), True: 2}
"""Of a lane of the sign array: a gate to negate and one to mask every bit of a digit; of a plane, one bit."""


@dataclass(frozen=True, slots=True)
class Event:
    """So many equal operations or accesses of one part; `size` is what `Kind` says, `memory` the memory's bytes."""

    part: str
    kind: Kind
    count: int
    size: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class StreamWords:
    """Bus words of a layer, an image: its descriptor, a decoder's table, records, weights; data of a load or store."""

    descriptor: int
    table: int = 0
    records: int = 0
    weights: int = 0
    loaded: int = 0
    stored: int = 0

    @property
    def read(self) -> int:
        """All that come: what `LayerCycles.bytes_read` counts, and a load's data."""
        return self.descriptor + self.table + self.records + self.weights + self.loaded


def stream_words(layer: LoweredLayer, engine: EngineConfig) -> StreamWords:
    """The bus words of a layer."""
    registers, bus, descriptor = layer.registers, engine.bus_bits, descriptor_words(engine)
    if layer.op in ("load", "store"):
        words = -(-transfer_words(layer) * engine.word_bits // bus)
        return StreamWords(descriptor, **{"loaded" if layer.op == "load" else "stored": words})
    groups = list(row_groups(registers, engine))
    records = sum(layer.record.words(group.rows, bus) for group in groups) if layer.record.fields else 0
    if layer.op != "mac":
        return StreamWords(descriptor, records=records)
    if layer.coded is not None:
        tiles = sum(_tiles(registers, index == len(groups) - 1) for index in range(len(groups)))
        return StreamWords(descriptor, layer.coded.table_words, records, tiles * layer.coded.weight_words)
    weights = 0
    for index, group in enumerate(groups):
        tile = TileLayout(
            group.rows,
            engine.lanes,
            container(registers, index),
            bool(registers.get("aligned", 0)),
            bool(registers["depthwise"]),
        )
        weights += _steps(layer, group, index == len(groups) - 1) * tile.words(bus)
    return StreamWords(descriptor, records=records, weights=weights)


def weight_tiles(layer: LoweredLayer, engine: EngineConfig) -> int:
    """Weight tiles that come into the array: the steps of all tiles of pixels."""
    if layer.op != "mac":
        return 0
    groups = list(row_groups(layer.registers, engine))
    return sum(_steps(layer, group, index == len(groups) - 1) for index, group in enumerate(groups))


def _steps(layer: LoweredLayer, group: RowGroup, last: bool) -> int:
    """Steps of a row group, in all its tiles of pixels."""
    return _tiles(layer.registers, last) * _tap_steps(layer.registers) * group.lane_groups


def _tiles(registers: Mapping[str, int], last: bool) -> int:
    """Tiles of pixels of a row group."""
    return len(list(tile_sizes(registers, last)))


def slot_count(layer: LoweredLayer, engine: EngineConfig) -> int:
    """Slots of the post lanes: every pixel's spans of every row group."""
    spans = (-(-group.rows // min(engine.rows, engine.lanes)) for group in row_groups(layer.registers, engine))
    return layer.registers["out_pixels"] * sum(spans)


def transfer_words(layer: LoweredLayer) -> int:
    """Words of the activation memory that a load writes or a store reads."""
    registers = layer.registers
    prefix, step = ("out", "out_pixel_step") if layer.op == "load" else ("first", "pixel_step")
    return registers[f"{prefix}_planes"] * registers["out_pixels"] * registers[step]


def layer_events(layer: LoweredLayer, engine: EngineConfig) -> list[Event]:
    """Events of one layer, for one image; none with a count of 0."""
    events = [*_bus(layer, engine)]
    if layer.op in ("load", "store"):
        part = "activation writes" if layer.op == "load" else "activation reads"
        events.append(Event(part, "sram", transfer_words(layer), engine.word_bits, _bank_bytes(engine)))
    else:
        if layer.op == "mac":
            events += _Array(layer, engine).events()
        events += _post(layer, engine)
    return [event for event in events if event.count and event.size]


def _bus(layer: LoweredLayer, engine: EngineConfig) -> Iterator[Event]:
    words, bits = stream_words(layer, engine), engine.bus_bits
    yield Event("weights", "dram", words.table + words.weights, bits)
    yield Event("records", "dram", words.descriptor + words.records, bits)
    yield Event("images", "dram", words.loaded + words.stored, bits)
    # Written once and read once.
    yield Event("prefetch", "sram", 2 * words.read, bits, engine.prefetch_words * bits // 8)


def _bank_bytes(engine: EngineConfig) -> int:
    return engine.act_bytes // engine.act_banks


def _tap_steps(registers: Mapping[str, int]) -> int:
    """Steps of a tile under all taps, of one lane group."""
    return registers["kernel_y"] * registers["kernel_x"] * (1 + registers.get("part_top", 0))


def _inside(registers: Mapping[str, int]) -> int:
    """Pairs of an output pixel and a tap that is in the image."""
    width = registers["out_width"]
    counts = []
    for axis, outputs, pad in (("y", registers["out_pixels"] // width, "pad_top"), ("x", width, "pad_left")):
        window = np.arange(outputs)[:, None] * registers[f"stride_{axis}"] - registers[pad]
        place = window + np.arange(registers[f"kernel_{axis}"]) * registers[f"dilation_{axis}"]
        size = registers["in_height" if axis == "y" else "in_width"]
        counts.append(int(((place >= 0) & (place < size)).sum()))
    return counts[0] * counts[1]


def tree_adders(active: np.ndarray) -> list[int]:
    """Adders with something to add on both sides, level by level, of a tree whose leaves (lanes,) are `active`."""
    found = []
    nodes = active
    while len(nodes) > 1:
        pairs = nodes.reshape(-1, 2)
        found.append(int(pairs.all(axis=1).sum()))
        nodes = np.asarray(pairs.any(axis=1))
    return found


class _Array:
    """A layer of the array: sums over its row groups of what happens in a pass over one activation word."""

    def __init__(self, layer: LoweredLayer, engine: EngineConfig) -> None:
        self.layer, self.engine, self.registers = layer, engine, layer.registers
        self.mode = FUSION_MODES[self.registers.get("mode", 0)]
        self.depthwise = bool(self.registers["depthwise"])

    @cached_property
    def _pixels(self) -> int:
        return self.registers["out_pixels"]

    @cached_property
    def _taps(self) -> int:
        return self.registers["kernel_y"] * self.registers["kernel_x"]

    def _active(self, group: RowGroup, word: int) -> np.ndarray:
        """Lanes with a channel, of each PE of a row, (PEs,), in a word of the row group's inputs."""
        if self.depthwise:
            return np.eye(1, self.engine.lanes, dtype=np.int64).reshape(-1)
        lanes = lanes_of(self.registers, self.engine)
        lane = word * lanes + np.arange(lanes) - group.lane
        there = (lane >= 0) & (lane < self.registers["group_inputs"])
        return np.asarray(there[self.mode.channels(self.engine.lanes)].sum(axis=1))

    def events(self) -> Iterator[Event]:
        """All of the array's side, its memories included."""
        registers, engine = self.registers, self.engine
        parts, inside = 1 + registers.get("part_top", 0), _inside(registers)
        zeros = np.zeros(engine.lanes.bit_length() - 1, dtype=np.int64)
        tree, sum_levels = zeros.copy(), zeros.copy()
        lanes = pes = sum_lanes = 0
        row_passes = passes = reads = sum_passes = 0
        groups = list(row_groups(registers, engine))
        known: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        for index, group in enumerate(groups):
            for word in range(group.lane_groups):
                digits = activation_digits(registers, group.word + word)
                if (word, group.lane) not in known:
                    active = self._active(group, word)
                    known[word, group.lane] = active, np.array(tree_adders(active > 0), dtype=np.int64)
                active, adders = known[word, group.lane]
                each = weight_digits(registers, index) * digits * parts
                rows = each * self._taps * self._pixels * group.rows
                passes += each * self._taps * self._pixels
                reads += each * inside
                row_passes += rows
                lanes += rows * int(active.sum())
                pes += rows * int((active > 0).sum())
                tree += rows * adders
                # The input sum takes a word with its first weight digit, or part.
                first = digits * self._taps * self._pixels
                sum_passes += first
                sum_lanes += first * (group.rows if self.depthwise else int((active > 0).sum()))
                sum_levels += first * adders

        yield from self._products(lanes, pes)
        yield from self._tree(tree, row_passes)
        yield Event("accumulate", "add", row_passes, engine.mac.acc)
        yield from self._input_sums(sum_lanes, sum_levels, sum_passes, len(groups))
        yield from self._memories(groups, passes, reads)
        yield from self._weights(groups)

    def _products(self, lanes: int, pes: int) -> Iterator[Event]:
        """What PEs make of activations and weights: `lanes` with a channel, in `pes`, over all passes and rows."""
        engine, registers = self.engine, self.registers
        match engine.array:
            case "digit":
                yield Event("multiply", "multiply", lanes, DIGIT_BITS**2)
            case "fusion":
                bricks = lanes * BRICKS // self.mode.lanes
                yield Event("multiply", "multiply", bricks, SLICE_BITS**2)
                yield Event("combine", "add", bricks - pes, OPERAND_BITS)
            case "shift":
                # A level of the shifter is as wide as what it may hold by then; then the sign.
                pe = ShiftRow(engine.lanes).pe
                widths = [pe.digit_bits + (2 << level) - 1 for level in range(SHIFT_BITS)]
                yield Event("shift", "gate", lanes, MUX_GATES * sum(widths) + pe.value_bits)
            case "sign":
                yield Event("sign", "gate", lanes, SIGN_GATES[bool(registers.get("a_planes"))])
        if registers.get("aligned"):
            width = engine.mac.product
            if registers["multiply"]:
                yield Event("align", "multiply", lanes, width * AMOUNT_BITS)
            else:
                yield Event("align", "gate", lanes, MUX_GATES * DIGIT_BITS * engine.mac.align)

    def _tree(self, levels: np.ndarray, row_passes: int) -> Iterator[Event]:
        """The rows' sums: an adder is a bit wider than what it adds."""
        engine = self.engine
        leaf = {"shift": ShiftRow(engine.lanes).pe.value_bits, "sign": SignRow(engine.lanes).tree.bits}
        for level, count in enumerate(levels.tolist(), 1):
            yield Event("adder tree", "add", count, leaf.get(engine.array, engine.mac.align) + level)
        if self.registers.get("focused"):
            # Both components' inputs are summed, shifted and added; so is what the shifts make.
            row = ShiftRow(engine.lanes)
            for level, count in enumerate(levels.tolist(), 1):
                yield Event("component sums", "add", 2 * count, row.pe.digit_bits + level)
            yield Event("component sums", "add", 2 * row_passes, row.out_bits)
            yield Event("component sums", "gate", 3 * row_passes, MUX_GATES * SHIFT_BITS * row.out_bits)

    def _input_sums(self, lanes: int, levels: np.ndarray, passes: int, groups: int) -> Iterator[Event]:
        """The tree over the activations, and the sums of min(R, L) rows: all the same, but in depthwise layers."""
        engine, registers = self.engine, self.registers
        leaf = DIGIT_BITS + 1 + (AMOUNT_BITS if engine.aligns else 0)
        if registers.get("aligned"):
            if registers["multiply"]:
                yield Event("input sum", "multiply", lanes, DIGIT_BITS * AMOUNT_BITS)
            else:
                yield Event("input sum", "gate", lanes, MUX_GATES * DIGIT_BITS * leaf)
        if not self.depthwise:
            for level, count in enumerate(levels.tolist(), 1):
                yield Event("input sum", "add", count, leaf + level)
        copies = min(engine.rows, engine.lanes)
        yield Event("input sum", "add", passes * copies, INPUT_SUM_BITS)
        zeros = groups * self._pixels * (1 + registers["a_top"] if registers.get("a_planes") else 1)
        half = engine.pixels * copies * INPUT_SUM_BITS // 8
        yield Event("input-sum memory", "sram", passes + (passes - zeros), copies * INPUT_SUM_BITS, half)

    def _memories(self, groups: Sequence[RowGroup], passes: int, reads: int) -> Iterator[Event]:
        engine = self.engine
        yield Event("activation reads", "sram", reads, engine.word_bits, _bank_bytes(engine))
        yield Event("operand registers", "register", passes, engine.word_bits)
        zeros = len(groups) * self._pixels * self.layer.planes
        bits = engine.rows * engine.mac.acc
        half = engine.pixels * bits // 8
        yield Event("accumulator reads", "sram", passes - zeros, bits, half)
        yield Event("accumulator writes", "sram", passes, bits, half)

    def _weights(self, groups: Sequence[RowGroup]) -> Iterator[Event]:
        """Tiles into the shadow registers, and from there into the active ones; what a decoder does for them."""
        engine, registers, coded = self.engine, self.registers, self.layer.coded
        code = 1 if engine.array == "sign" else OPERAND_BITS
        for index, group in enumerate(groups):
            last = index == len(groups) - 1
            tiles, steps = _tiles(registers, last), _steps(self.layer, group, last)
            row = 1 if self.depthwise else engine.lanes
            yield Event("weight registers", "register", steps, group.rows * row * code)
            yield Event("weight registers", "register", steps, engine.rows * engine.lanes * code)
            if registers.get("aligned"):
                yield Event("weight registers", "register", 2 * steps, engine.lanes * AMOUNT_BITS)
            if isinstance(coded, HuffmanStreams):
                symbols = tiles * coded.passes[index].stream.sizes.size
                yield Event("decode", "add", symbols * LIMITS, LIMIT_BITS)
                yield Event("decode", "add", symbols, OFFSET_BITS)
                yield Event("decode", "sram", symbols, SYMBOL_BITS, 256 * SYMBOL_BITS // 8)
            elif coded is not None:
                runs = coded.passes[index]
                for number, network in enumerate(coded.networks):
                    mine = coded.network_of[runs.plane] == number
                    gates = sum(max(0, mask.bit_count() - 1) for mask in network.rows)
                    yield Event("decode", "gate", tiles * int(runs.counts[mine].sum()), gates)


def _post(layer: LoweredLayer, engine: EngineConfig) -> Iterator[Event]:
    """The post lanes, what they read and write, and the records."""
    registers = layer.registers
    groups = list(row_groups(registers, engine))
    pixels = registers["out_pixels"]
    slots = slot_count(layer, engine)
    channels = pixels * sum(group.rows for group in groups)
    bank = _bank_bytes(engine)
    taps = registers["kernel_y"] * registers["kernel_x"]
    read = words_of(registers, "other")
    if layer.op != "mac":
        read += taps * words_of(registers, "first")
    yield Event("activation reads", "sram", slots * read, engine.word_bits, bank)
    written = words_of(registers, "out") + words_of(registers, "second")
    yield Event("activation writes", "sram", slots * written, engine.word_bits, bank)

    if layer.op == "mac":
        sums = min(engine.rows, engine.lanes) * INPUT_SUM_BITS
        for part, bits in (("accumulator reads", engine.rows * engine.mac.acc), ("input-sum memory", sums)):
            yield Event(part, "sram", slots * layer.beat_cycles, bits, engine.pixels * bits // 8)
        yield from _corrected(layer, engine, channels)
    elif layer.op == "max_pool":
        yield Event("pool", "add", channels * (taps - 1), CODE_BITS)
    elif layer.op == "average_pool":
        yield Event("pool", "add", channels * (taps - 1 + DIVIDER_CYCLES), CODE_BITS)
    yield from _rescaled(layer, channels)

    # A part's memory holds a field of every row, twice.
    store = 2 * engine.rows * FIELD_BITS // 8
    fields = layer.record.fields
    yield Event("record memory", "sram", fields * sum(group.rows for group in groups), FIELD_BITS, store)
    beats = slots * registers["beats"] if fields else 0
    yield Event("record memory", "sram", beats * fields, engine.post_lanes * FIELD_BITS, store)


def _corrected(layer: LoweredLayer, engine: EngineConfig, channels: int) -> Iterator[Event]:
    """The zero points' correction, planes' coefficients, and the layer's own requantisation."""
    assert layer.mac is not None
    if engine.array == "sign":
        bits = PlaneCorrection(engine.mac).out_bits
        yield Event("correct", "multiply", channels * layer.planes, COEFFICIENT_BITS * engine.mac.acc)
        yield Event("correct", "add", channels * (layer.planes - 1), bits)
    else:
        bits = Correction(engine.mac, layer.registers["fraction"]).out_bits
    yield Event("correct", "multiply", channels, ZERO_POINT_BITS * INPUT_SUM_BITS)
    yield Event("correct", "add", 2 * channels, bits)
    requant = layer.mac.node.requant
    if isinstance(requant, ScaleRequant):
        yield Event("requantise", "multiply", channels, bits * requant.multiplier_bits)
        yield Event("requantise", "add", channels, bits)
    else:
        yield Event("requantise", "add", channels * layer.registers["thresholds"], bits)


def _rescaled(layer: LoweredLayer, channels: int) -> Iterator[Event]:
    """The add of a residual and the copy: each rescale is a multiplication and a rounding."""
    for node in () if layer.source is None else layer.source.nodes:
        if isinstance(node, AddNode | RequantiseNode):
            # Of a sum both operands and the sum itself; and it is an addition more.
            rescales, additions = (3, 4) if isinstance(node, AddNode) else (1, 1)
            size = CODE_BITS * node.requant.multiplier_bits
            yield Event("requantise", "multiply", channels * rescales, size)
            yield Event("requantise", "add", channels * additions, STREAM_BITS)
