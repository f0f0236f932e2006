"""A layer as the engine knows it: its registers by name, and the walk over its row groups."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kernels.fusion import FUSION_MODES
from .descriptor import Operation
from .engine import EngineConfig
from .image import RecordLayout
from .layer import MacLayer
from .schedule import EngineLayer

if TYPE_CHECKING:
    from .coded import HuffmanStreams
    from .xor_coded import XorStreams

__all__ = ["DIVIDER_CYCLES", "LoweredLayer", "RowGroup", "lanes_of", "row_groups", "words_of"]

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

    The inputs begin at lane `lane` of the first one.
    """

    first: int
    rows: int
    lane: int
    lane_groups: int
    group: int


def lanes_of(registers: Mapping[str, int], engine: EngineConfig) -> int:
    """Input channels that a row reduces in a step: a fused array's narrow operands multiply those of its PEs."""
    return engine.lanes * FUSION_MODES[registers.get("mode", 0)].lanes


def row_groups(registers: Mapping[str, int], engine: EngineConfig) -> Iterator[RowGroup]:
    """The row groups of a layer in the order in which they run: the walk that the hardware makes."""
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
            at = registers["in_lane"] + first if depthwise else start
            yield RowGroup(first, rows, at % lanes, 1 if depthwise else words, group)
            first, left = first + rows, left - rows


def words_of(registers: Mapping[str, int], prefix: str) -> int:
    """Words that a slot reads or writes of one tensor under one tap."""
    return registers.get(f"{prefix}_planes", 0) * (1 + registers.get(f"{prefix}_straddles", 0))
