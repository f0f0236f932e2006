"""The cycle model: closed forms of the engine's schedule, from the registers that the engine itself reads.

``docs/microarchitecture.md`` states the rules with timing diagrams, and co-simulation holds every
layer's count to the RTL's own counter. Cycles depend on shapes, widths and the engine, with a decoder on
the weights too, and never on activations.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np

from ..kernels.fusion import utilised_bricks
from ..kernels.jit import jit
from ..kernels.mac import DIGIT_BITS
from .descriptor import descriptor_words
from .engine import EngineConfig
from .image import TileLayout
from .lowered import (
    LoweredLayer,
    RowGroup,
    activation_digits,
    container,
    lanes_of,
    row_groups,
    weight_digits,
    words_of,
)

__all__ = ["LayerCycles", "TileTimes", "layer_cycles", "network_cycles", "tile_sizes", "tile_times", "with_taper"]

MIN_PIXELS = 4
"""Least cycles of a digit pass: the shadow tile swaps in once per that many cycles at most."""

BEGIN = 2
"""A layer's units start in this cycle, beyond the words of the descriptor and the bus latency."""
STREAM = 5
"""The first word of its stream can be taken, beyond the descriptor's words and twice the latency."""
LOAD_STAGES, STORE_STAGES = 5, 5
"""What a transfer takes beyond its words, those of the descriptor and the latency (a load: twice)."""
SLOT_DELAY = 1
"""From a tile's end, or a layer's begin, to the first slot."""
READ_DELAY = 1
"""From a slot's last operand read to its first accumulator read; the last one of a tile frees the half."""
FREE_DELAY = 15
"""From there until the records' buffer can be written again, for a tile's last beat."""
WRITE_DELAY = {"mac": 20, "stream": 20, "max_pool": 4, "average_pool": 21}
"""From a slot's last operand read, its beats but one apart, to its first write."""

Bound = Literal["compute", "weights", "post", "drain", "fill", "host"]


@dataclass(frozen=True, slots=True)
class LayerCycles:
    """Cycles of one engine layer; the six parts add up to `total`.

    `products` are the useful ones of the array (`EngineConfig.products`). A step has `lanes` input channels, of which
    `idle_lanes` are on average none.
    """

    name: str
    op: str
    macs: int = 0
    products: int = 0
    compute: int = 0
    weight_stall: int = 0
    post_stall: int = 0
    drain: int = 0
    fill: int = 0
    host: int = 0
    bytes_read: int = 0
    weight_bits: int = 0
    lanes: int = 0
    idle_lanes: float = 0.0

    @property
    def total(self) -> int:
        """The layer's cycles."""
        return self.compute + self.weight_stall + self.post_stall + self.drain + self.fill + self.host

    @property
    def bound_by(self) -> Bound:
        """The greatest part."""
        parts: dict[Bound, int] = {
            "compute": self.compute,
            "weights": self.weight_stall,
            "post": self.post_stall,
            "drain": self.drain,
            "fill": self.fill,
            "host": self.host,
        }
        return max(parts, key=lambda part: parts[part])

    def utilisation(self, engine: EngineConfig) -> float:
        """Useful products over what the array could have done in the layer's cycles."""
        return self.products / (engine.products * self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class TileTimes:
    """When one tile of pixels computes and drains, in cycles from the layer's first on.

    `first` and `last` are the first reads of its first and last step, those of all lie `offsets` behind `first`;
    `pairs` are the digit pairs of each step, `passes` the cycles that the last one takes at least, `post_wait` the
    cycles in which only the tile's half of the accumulators was missing. `done` is the tile's end in the accumulators;
    its slots begin in cycles `slot`, `slot + interval`, ..., `last_slot`. In cycle `decoded` the decoders are
    through with its weights.
    """

    row_group: int
    tile: int
    pixels: int
    pairs: Sequence[int]
    offsets: Sequence[int]
    first: int
    last: int
    passes: int
    post_wait: int
    done: int
    slot: int
    last_slot: int
    decoded: int = 0

    @property
    def starts(self) -> list[int]:
        """The first read of each step."""
        return [self.first + offset for offset in self.offsets]

    @property
    def reads(self) -> list[int]:
        """Cycles in which each step reads."""
        return [pairs * self.pixels for pairs in self.pairs]


def network_cycles(layers: Sequence[LoweredLayer], engine: EngineConfig) -> list[LayerCycles]:
    """Cycles per image of a lowered network: the input's load, every engine layer, the result's store."""
    return [layer_cycles(layer, engine) for layer in layers]


def layer_cycles(layer: LoweredLayer, engine: EngineConfig) -> LayerCycles:
    """The cycles of one layer, in their parts."""
    if layer.op in ("load", "store"):
        return _transfer(layer, engine)
    if layer.op == "mac":
        return _mac(layer, engine)
    return _post_only(layer, engine)


def tile_sizes(registers: Mapping[str, int], last_row_group: bool) -> Iterator[int]:
    """The pixels of a row group's tiles: the last row group's taper, so that its last drain is short."""
    left, taper = registers["out_pixels"], registers["taper"] if last_row_group else 0
    while left:
        whole = left > registers["tile_pixels"]
        n = registers["tile_pixels"] if whole else -(-left // 2) if 0 < taper < left else left
        yield n
        left -= n


def array_stages(engine: EngineConfig) -> int:
    """Cycles from an activation word's read to its sum in the accumulator."""
    return 4 + engine.lanes.bit_length() // 2


class _Steps(NamedTuple):
    """The steps of a tile: their digit pairs, and where each begins after the first if only the bus delays it."""

    pairs: tuple[int, ...]
    offsets: tuple[int, ...]


@lru_cache(64)
def _steps(tap: tuple[int, ...], parts: int, taps: int, cycles: int, load: int) -> _Steps:
    """Of `taps` times the lane groups of a tap, of which each has its digit pairs, and `parts` of a weight.

    A digit pair takes `cycles`, a weight tile `load` to come.
    """
    pairs = tuple(each for each in tap for _ in range(parts)) * taps
    gaps = (max(each * cycles, load) for each in pairs[:-1])
    return _Steps(pairs, tuple(accumulate(gaps, initial=0)))


class _Plan(NamedTuple):
    """What of a layer's registers its schedule comes of.

    `numbers` (row groups, 3) are the cycles of a row group's records, the bus words of its weight tile and its spans,
    `taps` the digit pairs of the lane groups of a tap, by row group.
    """

    groups: list[RowGroup]
    numbers: np.ndarray
    taps: list[tuple[int, ...]]

    @classmethod
    def of(cls, layer: LoweredLayer, engine: EngineConfig) -> "_Plan":
        """A layer's, whatever its taper is."""
        registers, known = layer.registers, {}
        groups, numbers, taps = list(row_groups(registers, engine)), [], []
        for index, group in enumerate(groups):
            digits = weight_digits(registers, index)
            key = group.rows, container(registers, index), digits, group.word, group.lane_groups
            if key not in known:
                records = layer.record.cycles(group.rows, engine.bus_bits) if layer.record.fields else 0
                load = _tile_layout(registers, index, group, engine).words(engine.bus_bits)
                spans = -(-group.rows // min(engine.rows, engine.lanes))
                words = range(group.word, group.word + group.lane_groups)
                tap = tuple(digits * activation_digits(registers, word) for word in words)
                known[key] = (records, load, spans), tap
            numbers.append(known[key][0])
            taps.append(known[key][1])
        return cls(groups, np.array(numbers, dtype=np.int64), taps)

    def padded(self) -> np.ndarray:
        """The taps as an array (row groups, lane groups), zeros behind the shorter ones."""
        if len(set(self.taps)) == 1:
            return np.broadcast_to(np.array(self.taps[0]), (len(self.taps), len(self.taps[0])))
        most = max(map(len, self.taps))
        return np.array([(*tap, *(most - len(tap)) * (0,)) for tap in self.taps])


TAKEN, SHADOW, READY, SLOT_FREE, HALF_FREE, BUFFER_FREE = 0, 1, 2, 3, 4, 6
"""Of an array's state: the last word taken; the shadow tile is free; the tile before is through with its reads; the
post lanes are free; so are the halves of the accumulators, and the records' buffers, two each."""


class Timing(NamedTuple):
    """Constants of a layer's schedule: cycles of a slot, from a slot to its last beat, and of the array's stages."""

    interval: int
    beats: int
    stages: int
    serial: bool
    records: bool


@jit
def _begin_records(state, group, cycles):  # type: ignore[no-untyped-def]
    state[TAKEN] = max(state[TAKEN] + 1, state[BUFFER_FREE + group % 2]) + cycles - 1


@jit
def _half_free(state, count, serial):  # type: ignore[no-untyped-def]
    """A serial layer reads with its post lanes where it reads with its array: one after the other."""
    if serial:
        return max(state[HALF_FREE], state[HALF_FREE + 1])
    return state[HALF_FREE + count % 2]


@jit
def _end_tile(state, group, count, last, passes, slots, timing, out):  # type: ignore[no-untyped-def]
    """A tile's reads are known: its slots follow; writes `TILE`'s columns from its end on."""
    interval, beats, stages = timing[0], timing[1], timing[2]
    state[SHADOW], state[READY] = last + 1, last + passes
    done = last + passes + stages
    slot = max(done + SLOT_DELAY, state[SLOT_FREE])
    last_slot = slot + (slots - 1) * interval
    state[SLOT_FREE] = last_slot + interval
    state[HALF_FREE + count % 2] = last_slot + beats + READ_DELAY
    # The row group's last tile has the last word.
    state[BUFFER_FREE + group % 2] = last_slot + beats + FREE_DELAY
    out[DONE], out[SLOT], out[LAST_SLOT] = done, slot, last_slot


GROUP, TILE, PIXELS, FIRST, LAST, PASSES, POST_WAIT, DONE, SLOT, LAST_SLOT, DECODED = range(11)
"""Columns of a layer's tiles: `TileTimes` says what they are."""


@jit
def _play(state, numbers, taps, counts, parts, tap_count, sizes, last_sizes, timing, out):  # type: ignore[no-untyped-def]
    """Play a layer whose weights stream as they are, tile by tile; `counts` are the lane groups of each tap."""
    count = 0
    for group in range(len(numbers)):
        load, spans, used = numbers[group, 1], numbers[group, 2], counts[group]
        if timing[4]:
            _begin_records(state, group, numbers[group, 0])
        tile = 0
        for n in last_sizes if group == len(numbers) - 1 else sizes:
            cycles = max(n, MIN_PIXELS)
            passes = taps[group, used - 1] * cycles
            # The last step begins when all others have had their cycles, and the last word comes one step earlier.
            behind = np.int64(0)
            for word in range(used):
                behind += max(taps[group, word] * cycles, load)
            behind = behind * parts * tap_count - max(passes, load)
            steps = parts * tap_count * used
            before = passes if parts > 1 or used == 1 else taps[group, used - 2] * cycles
            loaded = max(state[TAKEN] + 1, state[SHADOW]) + load - 1
            can = max(state[READY], loaded)
            first = max(can, _half_free(state, count, timing[3]))
            last = first + behind
            state[TAKEN] = loaded if steps == 1 else last - max(before, load) + load
            row = out[count]
            row[GROUP], row[TILE], row[PIXELS], row[FIRST], row[LAST] = group, tile, n, first, last
            row[PASSES], row[POST_WAIT], row[DECODED] = passes, first - can, 0
            _end_tile(state, group, count, last, passes, n * spans, timing, row)
            count += 1
            tile += 1


def _tiles(layer: LoweredLayer, engine: EngineConfig, plan: _Plan) -> tuple[np.ndarray, list[Sequence[int]]]:
    """A layer's tiles (tiles, columns), and of coded ones where their steps begin after the first."""
    registers, groups = layer.registers, plan.groups
    taps, parts = registers["kernel_y"] * registers["kernel_x"], 1 + registers.get("part_top", 0)
    beats = _reads(layer) + layer.beat_cycles - 1  # from a slot to its last beat
    timing = Timing(
        registers["interval"], beats, array_stages(engine), bool(registers["serial"]), bool(layer.record.fields)
    )
    sizes, last_sizes = (np.array(list(tile_sizes(registers, last))) for last in (False, True))
    out = np.empty(((len(groups) - 1) * len(sizes) + len(last_sizes), DECODED + 1), dtype=np.int64)
    state = np.zeros(BUFFER_FREE + 2, dtype=np.int64)
    state[TAKEN] = _stream_start(engine) - 1
    if layer.coded is None:
        counts = np.array([len(tap) for tap in plan.taps])
        _play(state, plan.numbers, plan.padded(), counts, parts, taps, sizes, last_sizes, timing, out)
        return out, []

    state[TAKEN] += layer.coded.table_chunks
    decoded, count, offsets = 0, 0, []  # the decoder is through with what it has begun
    for group, tap in enumerate(plan.taps):
        records, load, spans = plan.numbers[group].tolist()
        if timing.records:
            _begin_records(state, group, records)
        for tile, n in enumerate((last_sizes if group == len(groups) - 1 else sizes).tolist()):
            cycles = max(n, MIN_PIXELS)
            each = np.array(_steps(tap, parts, taps, cycles, load).pairs) * cycles
            half = int(_half_free(state, count, timing.serial))
            begin = max(int(state[TAKEN]) + 1, decoded)
            coded = layer.coded.times(group, begin, int(state[SHADOW]), int(state[READY]), each, half)
            first, last, passes = int(coded.first[0]), int(coded.first[-1]), int(each[-1])
            state[TAKEN], decoded = coded.taken, coded.done
            out[count, :DONE] = group, tile, n, first, last, passes, coded.post_wait
            out[count, DECODED] = decoded
            _end_tile(state, group, count, last, passes, n * spans, timing, out[count])
            offsets.append((coded.first - first).tolist())
            count += 1
    return out, offsets


def tile_times(layer: LoweredLayer, engine: EngineConfig) -> Iterator[TileTimes]:
    """Play a layer of the array tile by tile."""
    registers, plan = layer.registers, _Plan.of(layer, engine)
    taps, parts = registers["kernel_y"] * registers["kernel_x"], 1 + registers.get("part_top", 0)
    tiles, coded = _tiles(layer, engine, plan)
    for index, (group, tile, n, first, last, passes, wait, done, slot, last_slot, decoded) in enumerate(tiles.tolist()):
        load = int(plan.numbers[group, 1])
        pairs, offsets = _steps(plan.taps[group], parts, taps, max(n, MIN_PIXELS), load)
        steps = coded[index] if coded else offsets
        yield TileTimes(group, tile, n, pairs, steps, first, last, passes, wait, done, slot, last_slot, decoded)


def _tile_layout(registers: Mapping[str, int], index: int, group: RowGroup, engine: EngineConfig) -> TileLayout:
    return TileLayout(
        group.rows,
        engine.lanes,
        container(registers, index),
        bool(registers.get("aligned", 0)),
        bool(registers["depthwise"]),
    )


def _transfer(layer: LoweredLayer, engine: EngineConfig) -> LayerCycles:
    """A tensor moves word by word, of the memory or of the bus, whichever are more."""
    registers = layer.registers
    prefix, step = ("out", "out_pixel_step") if layer.op == "load" else ("first", "pixel_step")
    words = registers[f"{prefix}_planes"] * registers["out_pixels"] * registers[step]
    cycles = words * max(1, engine.word_bits // engine.bus_bits) + descriptor_words(engine) + engine.bus_latency
    cycles += engine.bus_latency + LOAD_STAGES if layer.op == "load" else STORE_STAGES
    read = descriptor_words(engine) * engine.bus_bits // 8
    return LayerCycles(layer.name, layer.label, host=cycles, bytes_read=read)


def _stream_start(engine: EngineConfig) -> int:
    """The cycle in which the first word of a layer's stream can be taken."""
    return descriptor_words(engine) + 2 * engine.bus_latency + STREAM


def _reads(layer: LoweredLayer) -> int:
    """Operand words that a slot reads."""
    registers = layer.registers
    if layer.op == "mac":
        return words_of(registers, "other")
    taps = registers["kernel_y"] * registers["kernel_x"]
    return taps * words_of(registers, "first") + words_of(registers, "other")


def _tail(layer: LoweredLayer) -> int:
    """From a layer's last slot to the end of the cycle of its last write."""
    registers = layer.registers
    written = words_of(registers, "out") + words_of(registers, "second")
    return _reads(layer) + layer.beat_cycles - 1 + WRITE_DELAY[layer.op] + written


def _mac(layer: LoweredLayer, engine: EngineConfig) -> LayerCycles:
    registers, bus = layer.registers, engine.bus_bits
    plan = _Plan.of(layer, engine)
    tiles, _ = _tiles(layer, engine, plan)
    groups = plan.groups
    taps = registers["kernel_y"] * registers["kernel_x"] * (1 + registers.get("part_top", 0))
    fill = int(tiles[0, FIRST])
    through = int(tiles[-1, LAST] + tiles[-1, PASSES])
    pairs = taps * plan.padded().sum(axis=1)
    compute = int((tiles[:, PIXELS] * pairs[tiles[:, GROUP]]).sum())
    post_stall = int(tiles[:, POST_WAIT].sum())
    words = descriptor_words(engine) + sum(layer.record.words(group.rows, bus) for group in groups)
    if layer.coded is not None:
        words += layer.coded.table_words + len(tiles) * layer.coded.weight_words
    else:
        steps = taps * np.array([len(tap) for tap in plan.taps])
        words += int((steps * plan.numbers[:, 1])[tiles[:, GROUP]].sum())
    assert layer.mac is not None
    shape = layer.mac.shape
    macs = registers["out_pixels"] * shape.out_channels * shape.group_inputs * shape.kernel[0] * shape.kernel[1]
    return LayerCycles(
        layer.name,
        layer.label,
        macs=macs,
        products=_products(layer, macs, engine),
        compute=compute,
        weight_stall=through - fill - compute - post_stall,
        post_stall=post_stall,
        # A layer does not end before its stream.
        drain=_end(layer, tiles) - through,
        fill=fill,
        bytes_read=words * bus // 8,
        weight_bits=layer.mac.node.weights.bits,
        lanes=lanes_of(registers, engine),
        idle_lanes=_idle_lanes(registers, groups, engine),
    )


def _end(layer: LoweredLayer, tiles: np.ndarray) -> int:
    """The cycle in which a layer of the array is over: with its last write, or its decoders' end."""
    return max(int(tiles[-1, LAST_SLOT]) + _tail(layer), int(tiles[-1, DECODED]) + 1)


def _products(layer: LoweredLayer, macs: int, engine: EngineConfig) -> int:
    """Useful products: of each weight its own digits, or its parts, with each activation's own digits, or its planes.

    In a fused array pairs of slices of 2 bits that hold bits of both codes.
    """
    mac = layer.mac
    assert mac is not None
    if engine.array == "fusion":
        return macs * utilised_bricks(mac.operands.a_bits, mac.operands.w_bits)
    shape, registers = mac.shape, layer.registers
    activations, weights = -(-mac.lane_widths // DIGIT_BITS), -(-mac.row_widths // DIGIT_BITS)
    if mac.activations is not None:
        activations = mac.lane_widths
    if engine.array != "digit":
        weights = np.full(shape.out_channels, 1 + registers["part_top"])
    pairs = weights.reshape(shape.groups, -1).sum(axis=1) @ activations.reshape(shape.groups, -1).sum(axis=1)
    return int(pairs) * registers["out_pixels"] * shape.kernel[0] * shape.kernel[1]


def _idle_lanes(registers: Mapping[str, int], groups: Sequence[RowGroup], engine: EngineConfig) -> float:
    """Lanes of a step without an input channel, on average; a row of a depthwise layer has one of the diagonal's."""
    there = sum(group.lane_groups for group in groups) * lanes_of(registers, engine)
    used = sum(group.rows if registers["depthwise"] else registers["group_inputs"] for group in groups)
    return (there - used) / sum(group.lane_groups for group in groups)


def _post_only(layer: LoweredLayer, engine: EngineConfig) -> LayerCycles:
    """Row group after row group, slot after slot; the next row group's records come while one runs."""
    registers, interval = layer.registers, layer.registers["interval"]
    next_slot = descriptor_words(engine) + engine.bus_latency + BEGIN + SLOT_DELAY
    taken = _stream_start(engine) - 1
    buffer_free = [0, 0]
    slots: list[tuple[int, int]] = []  # the first one and the number, by row group
    words = descriptor_words(engine)
    for index, group in enumerate(row_groups(registers, engine)):
        count = registers["out_pixels"] * -(-group.rows // min(engine.rows, engine.lanes))
        if layer.record.fields:
            taken = max(taken + 1, buffer_free[index % 2]) + layer.record.cycles(group.rows, engine.bus_bits) - 1
            next_slot = max(next_slot, taken + 1)
            words += layer.record.words(group.rows, engine.bus_bits)
        slots.append((next_slot, count))
        next_slot += count * interval
        buffer_free[index % 2] = next_slot - interval + _reads(layer) + layer.beat_cycles - 1 + FREE_DELAY
    fill = slots[0][0]
    compute = sum(count for _, count in slots) * interval
    return LayerCycles(
        layer.name,
        layer.label,
        compute=compute,
        weight_stall=next_slot - fill - compute,
        drain=_tail(layer) - interval,
        fill=fill,
        bytes_read=words * engine.bus_bits // 8,
    )


def with_taper(layer: LoweredLayer, engine: EngineConfig) -> LoweredLayer:
    """The layer with the taper that takes the fewest cycles."""
    if layer.op != "mac":
        return layer
    most = min(engine.pixels, layer.registers["out_pixels"])
    tapers = [0, *(1 << power for power in range(2, most.bit_length()) if 1 << power < most)]
    plan = _Plan.of(layer, engine)
    choices = [replace(layer, registers={**layer.registers, "taper": taper}) for taper in tapers]
    return min(choices, key=lambda choice: _end(choice, _tiles(choice, engine, plan)[0]))
