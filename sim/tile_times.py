"""When the tiles of a layer on the array compute and drain: the rules of the engine's schedule, played tile by tile.

`docs/microarchitecture.md` states the rules. They stand here once, for one engine and for many side by side: what a
layer's registers say is collected in a `Plan`, what engines differ in stands in arrays beside it, and one compiled loop
plays all of it. Coded weights play their decoders besides (`sim.coded`, `sim.xor_coded`), an engine at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ..kernels.jit import jit
from .engine import EngineConfig
from .engines import Count, Engines, by_engine, columns, greatest
from .image import TileLayout
from .lowered import LoweredLayer, RowGroup, container, row_group_runs, weight_digits, wide_words, words_of

__all__ = [
    "FREE_DELAY",
    "MIN_PIXELS",
    "SEARCH",
    "SLOT_DELAY",
    "Plan",
    "Played",
    "Run",
    "TileTimes",
    "Timing",
    "array_stages",
    "layer_end",
    "play",
    "slot_reads",
    "slot_tail",
    "stream_start",
    "tile_sizes",
    "tile_times",
    "with_taper",
]

MIN_PIXELS = 4
"""Least cycles of a digit pass: the shadow tile swaps in once per that many cycles at most."""

STREAM = 5
"""The first word of its stream can be taken, beyond the descriptor's words and twice the latency."""
SLOT_DELAY = 1
"""From a tile's end, or a layer's begin, to the first slot."""
READ_DELAY = 1
"""From a slot's last operand read to its first accumulator read; the last one of a tile frees the half."""
FREE_DELAY = 15
"""From there until the records' buffer can be written again, for a tile's last beat."""

WRITE_DELAY = {"mac": 20, "stream": 20, "max_pool": 4, "average_pool": 21}
"""From a slot's last operand read, its beats but one apart, to its first write."""

SEARCH = -1
"""In the place of a taper: the one that takes the fewest cycles."""


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


class Timing(NamedTuple):
    """A layer's registers that differ between engines (`lowered.timing_values`); its taper, or `SEARCH`."""

    tile_pixels: Count = 0
    beats: Count = 0
    interval: Count = 0
    taper: Count = SEARCH

    @classmethod
    def of(cls, layer: LoweredLayer) -> "Timing":
        """What the registers say; without the array there are no tiles."""
        return cls(*(layer.registers.get(name, 0) for name in cls._fields))


class Run(NamedTuple):
    """Row groups that follow each other and take the same time, `group` the first of them.

    Of the lane groups of a tap the ones from `wide[0]` on, before `wide[1]`, have `high` digit pairs each, the others
    `low`.
    """

    group: RowGroup
    number: int
    layout: TileLayout
    low: int
    high: int
    wide: tuple[int, int]

    @property
    def tap(self) -> list[int]:
        """The digit pairs of the lane groups of a tap."""
        (first, end), words = self.wide, self.group.lane_groups
        return [self.low] * first + [self.high] * (end - first) + [self.low] * (words - end)

    @property
    def pairs(self) -> int:
        """Digit pairs of a tap."""
        return self.low * self.group.lane_groups + (self.high - self.low) * (self.wide[1] - self.wide[0])

    def at(self, word: int) -> int:
        """Digit pairs of one of the lane groups of a tap, counted from the last one on if below 0."""
        word %= self.group.lane_groups
        return self.high if self.wide[0] <= word < self.wide[1] else self.low


class Plan(NamedTuple):
    """What of a layer its schedule comes of, on every engine that it was lowered for."""

    layer: LoweredLayer
    runs: list[Run]
    span: int
    taps: int
    parts: int

    @classmethod
    def of(cls, layer: LoweredLayer, engine: EngineConfig) -> "Plan":
        """A layer's."""
        registers = layer.registers
        runs: list[Run] = []
        for index, group, count in _alike(layer, engine):
            digits = weight_digits(registers, index)
            layout = TileLayout(
                group.rows,
                engine.lanes,
                container(registers, index),
                bool(registers.get("aligned", 0)),
                bool(registers["depthwise"]),
            )
            wide = wide_words(registers, group.word, group.lane_groups)
            run = Run(group, count, layout, digits, digits * (1 + registers["a_top"]), wide)
            if runs and run[2:] == runs[-1][2:] and group.lane_groups == runs[-1].group.lane_groups:
                run = runs[-1]._replace(number=runs.pop().number + count)
            runs.append(run)
        taps = registers["kernel_y"] * registers["kernel_x"]
        return cls(layer, runs, min(engine.rows, engine.lanes), taps, 1 + registers.get("part_top", 0))

    @property
    def pairs(self) -> int:
        """Digit pairs of all steps of all row groups, each over the pixels of the output."""
        return self.taps * self.parts * sum(run.number * run.pairs for run in self.runs)

    def loads(self, bus_bits: Count) -> list[Count]:
        """Bus words of a weight tile, by run."""
        return [run.layout.words(bus_bits) for run in self.runs]

    def records(self, bus_bits: Count) -> list[Count]:
        """Cycles of a row group's records, by run; 0: there are none."""
        return [self.layer.record.cycles(run.group.rows, bus_bits) for run in self.runs]

    def table(self) -> np.ndarray:
        """The runs as the compiled loop takes them, int64 (runs, `BEFORE` + 1)."""
        rows = np.empty((len(self.runs), BEFORE + 1), dtype=np.int64)
        for row, run in zip(rows, self.runs, strict=True):
            words, high = run.group.lane_groups, run.wide[1] - run.wide[0]
            # Parts of a word follow each other.
            before = run.at(-1 if self.parts > 1 else -2)
            spans = -(-run.group.rows // self.span)
            row[:] = run.number, spans, run.low, words - high, run.high, high, run.at(-1), before
        return rows


def _alike(layer: LoweredLayer, engine: EngineConfig) -> Iterator[tuple[int, RowGroup, int]]:
    """Position, row group and number of those that walk and stream alike."""
    rest, index = layer.registers.get("rest_from", 0), 0
    for group, count in row_group_runs(layer.registers, engine):
        lead = min(count, max(rest - index, 0))
        if lead:
            yield index, group, lead
        if count > lead:
            after = replace(group, first=group.first + lead * group.rows) if lead else group
            yield index + lead, after, count - lead
        index += count


COUNT, SPANS, LOW, LOW_WORDS, HIGH, HIGH_WORDS, LAST_PAIRS, BEFORE = range(8)
"""Columns of a plan's table: row groups of the run and spans of each, digit pairs of the lane groups and how many there
are, those of a tap's last step and of the step before it."""

BEGIN, OUT_PIXELS, STEPS, STAGES, SERIAL, TILE_PIXELS, TAPER, INTERVAL, BEATS = range(9)
"""Columns of a layer's settings, engine by engine: the last cycle before its stream, pixels of the output, steps of a
lane group in a tile, of the array's stages; then what `Timing` says, and cycles from a slot to its last beat."""

TAKEN, SHADOW, READY, SLOT_FREE, HALF_FREE, BUFFER_FREE, TILES, TILE, FILL, WAIT, END, WORDS, SIZE = (
    *(0, 1, 2, 3, 4),
    *(6, 8, 9, 10, 11, 12, 13, 14),
)
"""Of an array's state: the last word taken; the shadow tile is free; the tile before is through with its reads; the
post lanes are free; so are the halves of the accumulators, and the records' buffers, two each. Then tiles so far,
also of the row group; the first read, cycles in which a tile waited for its half, the last slot, words of weights."""

GROUP, NUMBER, PIXELS, FIRST, LAST, PASSES, POST_WAIT, DONE, SLOT, LAST_SLOT, DECODED = range(11)
"""Columns of a layer's tiles: `TileTimes` says what they are."""


@jit
def _begin_group(state, group, records):  # type: ignore[no-untyped-def]
    if records > 0:
        state[TAKEN] = max(state[TAKEN] + 1, state[BUFFER_FREE + group % 2]) + records - 1
    state[TILE] = 0


@jit
def _tile_size(left, tile_pixels, taper):  # type: ignore[no-untyped-def]
    """Pixels of the next tile: the last row group's taper, so that its last drain is short."""
    if left > tile_pixels:
        return tile_pixels
    return (left + 1) // 2 if 0 < taper < left else left


@jit
def _half_free(state, serial):  # type: ignore[no-untyped-def]
    """A serial layer reads with its post lanes where it reads with its array: one after the other."""
    if serial:
        return max(state[HALF_FREE], state[HALF_FREE + 1])
    return state[HALF_FREE + state[TILES] % 2]


@jit
def _end_tile(state, group, n, first, last, passes, wait, slots, setting, tiles):  # type: ignore[no-untyped-def]
    """A tile's reads are known: its slots follow; writes a row of `tiles`, if there are any."""
    count = state[TILES]
    state[SHADOW], state[READY] = last + 1, last + passes
    done = last + passes + setting[STAGES]
    slot = max(done + SLOT_DELAY, state[SLOT_FREE])
    last_slot = slot + (slots - 1) * setting[INTERVAL]
    state[SLOT_FREE] = last_slot + setting[INTERVAL]
    state[HALF_FREE + count % 2] = last_slot + setting[BEATS] + READ_DELAY
    # The row group's last tile has the last word.
    state[BUFFER_FREE + group % 2] = last_slot + setting[BEATS] + FREE_DELAY
    if len(tiles):
        row = tiles[count]
        row[GROUP], row[NUMBER], row[PIXELS], row[FIRST], row[LAST] = group, state[TILE], n, first, last
        row[PASSES], row[POST_WAIT], row[DONE], row[SLOT], row[LAST_SLOT] = passes, wait, done, slot, last_slot
        row[DECODED] = 0
    if count == 0:
        state[FILL] = first
    state[WAIT] += wait
    state[END] = last_slot
    state[TILES] += 1
    state[TILE] += 1


@jit
def _play_tiles(state, group, run, load, setting, left, until, taper, tiles):  # type: ignore[no-untyped-def]
    """Play the tiles of a row group while more than `until` pixels are left; returns how many are."""
    words = run[LOW_WORDS] + run[HIGH_WORDS]
    steps = setting[STEPS] * words
    while left > until:
        n = _tile_size(left, setting[TILE_PIXELS], taper)
        left -= n
        cycles = max(n, MIN_PIXELS)
        passes = run[LAST_PAIRS] * cycles
        # The last step begins when all others have had their cycles, and the last word comes one step earlier.
        behind = run[LOW_WORDS] * max(run[LOW] * cycles, load) + run[HIGH_WORDS] * max(run[HIGH] * cycles, load)
        behind = behind * setting[STEPS] - max(passes, load)
        loaded = max(state[TAKEN] + 1, state[SHADOW]) + load - 1
        can = max(state[READY], loaded)
        first = max(can, _half_free(state, setting[SERIAL]))
        last = first + behind
        state[TAKEN] = loaded if steps == 1 else last - max(run[BEFORE] * cycles, load) + load
        state[WORDS] += steps * load
        _end_tile(state, group, n, first, last, passes, first - can, n * run[SPANS], setting, tiles)
    return left


@jit
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Copy a state; what an assignment does with other shapes would be two seconds' compilation."""
    for place in range(SIZE):
        target[place] = source[place]


@jit
def _play(table, loads, records, settings, tiles, found):  # type: ignore[no-untyped-def]
    """Play a layer whose weights stream as they are, engine by engine.

    Writes rows of `found`: the state at the end, and in its last column the taper. `tiles` are those of the last
    engine, or has no rows.
    """
    begun = np.empty(SIZE, dtype=np.int64)
    state = np.empty(SIZE, dtype=np.int64)
    for at in range(len(settings)):
        setting = settings[at]
        out_pixels, tile_pixels = setting[OUT_PIXELS], setting[TILE_PIXELS]
        state[:] = 0
        state[TAKEN] = setting[BEGIN]
        group = left = 0
        for index in range(len(table)):
            run, load = table[index], loads[at, index]
            last_run = index == len(table) - 1
            for each in range(run[COUNT]):
                _begin_group(state, group, records[at, index])
                # Of the last row group the tiles that may taper come below.
                until = tile_pixels if last_run and each == run[COUNT] - 1 else 0
                left = _play_tiles(state, group, run, load, setting, out_pixels, until, 0, tiles)
                group += 1
        run, load = table[-1], loads[at, -1]
        best = max(setting[TAPER], 0)
        _copy(state, begun)
        _play_tiles(state, group - 1, run, load, setting, left, 0, best, tiles)
        _copy(state, found[at])
        taper = MIN_PIXELS
        while setting[TAPER] < 0 and taper < left:
            _copy(begun, state)
            _play_tiles(state, group - 1, run, load, setting, left, 0, taper, tiles)
            if state[END] < found[at, END]:
                _copy(state, found[at])
                best = taper
            taper *= 2
        found[at, SIZE] = best


class Played(NamedTuple):
    """How a layer of the array goes.

    `fill` is its first read, `through` the cycle after its last digit pass, `wait` the cycles in which tiles waited for
    a half of the accumulators alone, `last_slot` its last slot, `words` the bus words of its weights, `taper` the
    taper, and `decoded` the cycle in which its decoders are through.
    """

    fill: Count
    through: Count
    wait: Count
    last_slot: Count
    words: Count
    taper: Count
    decoded: Count = 0


def play(plan: Plan, timing: Timing, engines: Engines, tiles: np.ndarray | None = None) -> Played:
    """Play a layer on one engine or many; on one, `tiles` receives what its tiles do, int64 (tiles, `DECODED` + 1)."""
    if plan.layer.coded is not None:
        return _play_coded(plan, timing, engines)[0]
    loads, records = (columns(engines, each(engines.bus_bits)) for each in (plan.loads, plan.records))
    settings = _settings(plan, timing, engines)
    found = np.empty((len(settings), SIZE + 1), dtype=np.int64)
    _play(plan.table(), loads, records, settings, np.empty((0, 0), np.int64) if tiles is None else tiles, found)
    state = by_engine(engines, found)
    return Played(*(state[at] for at in (FILL, READY, WAIT, END, WORDS, SIZE)))


def _settings(plan: Plan, timing: Timing, engines: Engines) -> np.ndarray:
    registers, shared = plan.layer.registers, engines.shared
    return columns(
        engines,
        (
            stream_start(engines) - 1,
            registers["out_pixels"],
            plan.taps * plan.parts,
            array_stages(shared),
            registers["serial"],
            timing.tile_pixels,
            timing.taper,
            timing.interval,
            slot_reads(plan.layer) + timing.beats * plan.layer.planes - 1,
        ),
    )


def stream_start(engines: Engines) -> Count:
    """The cycle in which the first word of a layer's stream can be taken."""
    return engines.descriptor_words + 2 * engines.bus_latency + STREAM


def array_stages(engine: EngineConfig) -> int:
    """Cycles from an activation word's read to its sum in the accumulator."""
    return 4 + engine.lanes.bit_length() // 2


def slot_reads(layer: LoweredLayer) -> int:
    """Operand words that a slot reads."""
    registers = layer.registers
    if layer.op == "mac":
        return words_of(registers, "other")
    taps = registers["kernel_y"] * registers["kernel_x"]
    return taps * words_of(registers, "first") + words_of(registers, "other")


def slot_tail(layer: LoweredLayer, timing: Timing) -> Count:
    """From a layer's last slot to the end of the cycle of its last write."""
    registers = layer.registers
    written = words_of(registers, "out") + words_of(registers, "second")
    return slot_reads(layer) + timing.beats * layer.planes - 1 + WRITE_DELAY[layer.op] + written


def layer_end(layer: LoweredLayer, timing: Timing, played: Played) -> Count:
    """The cycle in which a layer of the array is over: with its last write, or its decoders' end."""
    return greatest(played.last_slot + slot_tail(layer, timing), played.decoded + 1)


class _CodedPlayer:
    """Plays a layer whose weights are decoded, tile by tile; `offsets` are those of each tile's steps."""

    def __init__(self, plan: Plan, setting: np.ndarray, engine: EngineConfig, tiles: np.ndarray) -> None:
        assert plan.layer.coded is not None
        self.plan, self.coded, self.setting, self.tiles = plan, plan.layer.coded, setting, tiles
        self.state = np.zeros(SIZE, dtype=np.int64)
        self.state[TAKEN] = setting[BEGIN] + self.coded.table_chunks
        self.state[WORDS] = self.coded.table_words
        self.records = plan.records(engine.bus_bits)
        self.offsets: list[list[int]] = []
        self.decoded = 0

    def begin(self, group: int, run: int) -> None:
        """Take a row group's records."""
        _begin_group(self.state, group, self.records[run])

    def play(self, group: int, run: Run, left: int, until: int, taper: int) -> int:
        """Play the tiles of a row group while more than `until` pixels are left; returns how many are."""
        state, setting = self.state, self.setting
        pairs = np.tile(np.repeat(run.tap, self.plan.parts), self.plan.taps)
        while left > until:
            n = int(_tile_size(left, setting[TILE_PIXELS], taper))
            left -= n
            each = pairs * max(n, MIN_PIXELS)
            taken, shadow, ready = state[: READY + 1].tolist()
            half = _half_free(state, setting[SERIAL])
            # The decoder is through with what it has begun.
            coded = self.coded.times(group, max(taken + 1, self.decoded), shadow, ready, each, half)
            state[TAKEN], self.decoded = coded.taken, coded.done
            state[WORDS] += self.coded.weight_words
            first, last, count = int(coded.first[0]), int(coded.first[-1]), int(state[TILES])
            slots = n * -(-run.group.rows // self.plan.span)
            wait = coded.post_wait
            _end_tile(state, group, n, first, last, int(each[-1]), wait, slots, setting, self.tiles)
            if len(self.tiles):
                self.tiles[count, DECODED] = self.decoded
                self.offsets.append((coded.first - first).tolist())
        return left

    def result(self, taper: int) -> Played:
        """What has been played."""
        fill, through, wait, last_slot, words = (int(self.state[at]) for at in (FILL, READY, WAIT, END, WORDS))
        return Played(fill, through, wait, last_slot, words, taper, self.decoded)


def _play_coded(
    plan: Plan, timing: Timing, engines: Engines, tiles: np.ndarray | None = None
) -> tuple[Played, list[list[int]]]:
    """Play a layer whose weights are decoded, on one engine; with `tiles` there are offsets of their steps."""
    (setting,) = _settings(plan, timing, engines)
    out_pixels, tile_pixels, taper = (int(setting[at]) for at in (OUT_PIXELS, TILE_PIXELS, TAPER))
    player = _CodedPlayer(plan, setting, engines.shared, np.empty((0, 0), np.int64) if tiles is None else tiles)
    group = left = 0
    for index, run in enumerate(plan.runs):
        for each in range(run.number):
            player.begin(group, index)
            last = index == len(plan.runs) - 1 and each == run.number - 1
            # Of the last row group the tiles that may taper come below.
            left = player.play(group, run, out_pixels, tile_pixels if last else 0, 0)
            group += 1
    begun = player.state.copy(), player.decoded
    choices = []
    tapers = [max(taper, 0), *(1 << power for power in range(2, left.bit_length()) if 1 << power < left and taper < 0)]
    for choice in tapers:
        player.state[:], player.decoded = begun
        player.play(group - 1, plan.runs[-1], left, 0, choice)
        choices.append(player.result(choice))
    return min(choices, key=lambda played: layer_end(plan.layer, timing, played)), player.offsets


def tile_times(layer: LoweredLayer, engine: EngineConfig) -> Iterator[TileTimes]:
    """Play a layer of the array tile by tile."""
    engines, plan, timing = Engines.of(engine), Plan.of(layer, engine), Timing.of(layer)
    runs = [run for run in plan.runs for _ in range(run.number)]
    loads = [load for run, load in zip(plan.runs, plan.loads(engine.bus_bits), strict=True) for _ in range(run.number)]
    each, last = (len(list(tile_sizes(layer.registers, last))) for last in (False, True))
    tiles = np.empty(((len(runs) - 1) * each + last, DECODED + 1), dtype=np.int64)
    coded: list[list[int]] = []
    if layer.coded is None:
        play(plan, timing, engines, tiles)
    else:
        _, coded = _play_coded(plan, timing, engines, tiles)
    for index, (group, tile, n, first, last, passes, wait, done, slot, last_slot, decoded) in enumerate(tiles.tolist()):
        pairs, offsets = _steps(tuple(runs[group].tap), plan.parts, plan.taps, max(n, MIN_PIXELS), int(loads[group]))
        steps = coded[index] if coded else offsets
        yield TileTimes(group, tile, n, pairs, steps, first, last, passes, wait, done, slot, last_slot, decoded)


def tile_sizes(registers: Mapping[str, int], last_row_group: bool) -> Iterator[int]:
    """The pixels of a row group's tiles."""
    left, taper = registers["out_pixels"], registers["taper"] if last_row_group else 0
    while left > 0:
        size = int(_tile_size(left, registers["tile_pixels"], taper))
        yield size
        left -= size


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


def with_taper(layer: LoweredLayer, engine: EngineConfig) -> LoweredLayer:
    """The layer with the taper that takes the fewest cycles."""
    if layer.op != "mac":
        return layer
    timing = Timing.of(layer)._replace(taper=SEARCH)
    taper = int(play(Plan.of(layer, engine), timing, Engines.of(engine)).taper)
    return replace(layer, registers={**layer.registers, "taper": taper})
