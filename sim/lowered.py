"""A layer as the engine knows it: its registers by name, and the walk over its row groups."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.digits import DigitCounts
from ..kernels.fusion import FUSION_MODES
from ..kernels.mac import DIGIT_BITS
from .descriptor import Operation, has_register
from .engine import EngineConfig
from .engines import Count, Engines, greatest
from .image import RecordLayout, container_bits
from .layer import MacLayer
from .schedule import EngineLayer

if TYPE_CHECKING:
    from .coded import HuffmanStreams
    from .xor_coded import XorStreams

__all__ = [
    "DIVIDER_CYCLES",
    "LoweredLayer",
    "RowGroup",
    "activation_digits",
    "container",
    "digit_counts",
    "lanes_of",
    "row_group_runs",
    "row_groups",
    "timing_values",
    "weight_digits",
    "wide_words",
    "width_values",
    "words_of",
]

DIVIDER_CYCLES = 17
"""An average's division: a bit of the quotient a cycle."""
EMPTY = RecordLayout(0)


@dataclass(frozen=True, slots=True)
class LoweredLayer:
    """One descriptor to be: the registers by name, and what streams with it.

    `label` are the operations of the network that the layer runs, `source` where it comes from: nothing
    for the input's load and the result's store. `planes` are the accumulators of a pixel and row,
    `coded` what streams in the place of weight tiles where they are coded.
    """

    name: str
    label: str
    op: Operation
    registers: Mapping[str, int]
    source: EngineLayer | None = None
    mac: MacLayer | None = None
    record: RecordLayout = EMPTY
    planes: int = 1
    coded: "HuffmanStreams | XorStreams | None" = None

    @property
    def beat_cycles(self) -> int:
        """Cycles of a slot's beats: one for each plane."""
        return self.registers["beats"] * self.planes


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Output channels that run in parallel: `rows` from `first` on, over `lane_groups` steps of inputs.

    The inputs begin at lane `lane` of step `word` of a pixel, counted from that of the layer's first input.
    """

    first: int
    rows: int
    lane: int
    lane_groups: int
    group: int
    word: int


def lanes_of(registers: Mapping[str, int], engine: EngineConfig) -> int:
    """Input channels that a row reduces in a step: a fused array's narrow operands multiply those of its PEs."""
    return engine.lanes * FUSION_MODES[registers.get("mode", 0)].lanes


def row_group_runs(registers: Mapping[str, int], engine: EngineConfig) -> Iterator[tuple[RowGroup, int]]:
    """The row groups of a layer in the order in which they run, those that differ in `first` alone as one and a number.

    Each of such a run begins where the one before it ends.
    """
    lanes = lanes_of(registers, engine)
    depthwise = bool(registers["depthwise"])
    limit = min(engine.rows, engine.lanes) if depthwise else engine.rows
    first = 0
    for group in range(registers["groups"]):
        start = registers["in_lane"] + (0 if depthwise else group * registers["group_inputs"])
        words = -(-(start % lanes + registers["group_inputs"]) // lanes)
        left = registers["group_outputs"]
        while left:
            rows = min(left, limit)
            count = 1 if depthwise else left // rows
            at = registers["in_lane"] + first if depthwise else start
            yield RowGroup(first, rows, at % lanes, 1 if depthwise else words, group, at // lanes), count
            first, left = first + count * rows, left - count * rows


def row_groups(registers: Mapping[str, int], engine: EngineConfig) -> Iterator[RowGroup]:
    """The row groups of a layer in the order in which they run: the walk that the hardware makes."""
    for group, count in row_group_runs(registers, engine):
        for each in range(count):
            yield group if each == 0 else replace(group, first=group.first + each * group.rows)


def words_of(registers: Mapping[str, int], prefix: str) -> int:
    """Words that a slot reads or writes of one tensor under one tap."""
    return registers.get(f"{prefix}_planes", 0) * (1 + registers.get(f"{prefix}_straddles", 0))


def container(registers: Mapping[str, int], index: int) -> int:
    """Bits that a weight code of row group `index` takes in the stream."""
    rest = 0 < registers.get("rest_from", 0) <= index
    return 1 << registers.get("rest_container" if rest else "container", 0)


def weight_digits(registers: Mapping[str, int], index: int) -> int:
    """Digits of the weights of row group `index`."""
    return 1 if 0 < registers.get("rest_from", 0) <= index else 1 + registers.get("w_top", 0)


def wide_words(registers: Mapping[str, int], word: int, count: int) -> tuple[int, int]:
    """Of `count` words of a pixel's inputs from `word` on, the first that has upper digits, and the one after the last.

    Both count from `word` on.
    """
    end = registers.get("wide_end", 0)
    if end == 0:
        return 0, count
    first = min(max(registers["wide_first"] - word, 0), count)
    return first, max(first, min(end - word, count))


def activation_digits(registers: Mapping[str, int], word: int) -> int:
    """Digits of the activations in a word of a pixel's inputs."""
    first, end = wide_words(registers, word, 1)
    return 1 + registers["a_top"] * (end - first)


def timing_values(op: Operation, registers: Mapping[str, int], planes: int, engines: Engines) -> dict[str, Count]:
    """Registers that follow from all others: the beats and the cycles of a slot, on the array the pixels of a tile.

    `planes` are the accumulators of a pixel and row.
    """
    shared = engines.shared
    span = min(shared.rows, shared.lanes)
    most = max(group.rows for group, _ in row_group_runs(registers, shared))
    lanes = engines.post_lanes if op in ("mac", "stream") else span  # a pool's word comes at once
    beats = -(-min(most, span) // lanes)
    tile = {"tile_pixels": engines.pixels // planes} if op == "mac" else {}
    return {"beats": beats, "interval": _interval(op, registers, beats * planes), **tile}


def _interval(op: Operation, registers: Mapping[str, int], beat_cycles: Count) -> Count:
    """Cycles from slot to slot: the greatest of what each part of the post unit needs for one."""
    written = words_of(registers, "out") + words_of(registers, "second")
    if op in ("max_pool", "average_pool"):
        taps = registers["kernel_y"] * registers["kernel_x"]
        division = DIVIDER_CYCLES if op == "average_pool" else 1
        return max(taps * words_of(registers, "first"), written, division)
    read = words_of(registers, "other") + (words_of(registers, "first") if op == "stream" else 0)
    return greatest(beat_cycles, max(written, read))


def digit_counts(layer: LoweredLayer, engine: EngineConfig) -> DigitCounts:
    """The digits of a layer's rows and words, as the engine's registers say."""
    assert layer.mac is not None
    registers, shape = layer.registers, layer.mac.shape
    # The parts of a digit array are bytes of one code.
    parts = 1 + registers.get("part_top", 0) if engine.array == "digit" else 1
    rows = [
        np.full(group.rows, parts * weight_digits(registers, index))
        for index, group in enumerate(row_groups(registers, engine))
    ]
    lanes = lanes_of(registers, engine)
    words = -(-(registers["in_lane"] + shape.in_channels) // lanes)
    return DigitCounts(
        np.concatenate(rows), np.array([activation_digits(registers, word) for word in range(words)], dtype=np.int64)
    )


def width_values(
    engine: EngineConfig, registers: Mapping[str, int], lane_widths: np.ndarray, row_widths: np.ndarray | None
) -> dict[str, int]:
    """Registers of a layer of mixed widths, given those of its geometry; none where all are the same to the engine.

    The fusion array has none of them: there a layer runs at its greatest widths, which is exact too.

    `lane_widths` (in,) are the bits of the activations, `row_widths` (out,) those of the weights. Row groups stand in
    the greatest container up to the last that needs it, and words have an upper digit from the first to the last that
    needs one.
    """
    found: dict[str, int] = {}
    if registers["a_top"] and has_register(engine, "wide_end") and not registers.get("a_planes"):
        words = (registers["in_lane"] + np.arange(len(lane_widths))) // engine.lanes
        wide = words[lane_widths > DIGIT_BITS]
        # From 1 to 1: none.
        first, end = (int(wide.min()), int(wide.max()) + 1) if wide.size else (1, 1)
        if (first, end) != (0, int(words.max()) + 1):
            found |= {"wide_first": first, "wide_end": end}
    if row_widths is not None and has_register(engine, "rest_from"):
        groups = row_groups(registers, engine)
        needs = [max(1, int(row_widths[group.first : group.first + group.rows].max())) for group in groups]
        containers = [container_bits(bits) for bits in needs]
        lead = len(containers) - containers[::-1].index(max(containers))
        if lead < len(containers):
            found |= {"rest_from": lead, "rest_container": max(containers[lead:]).bit_length() - 1}
    return found
