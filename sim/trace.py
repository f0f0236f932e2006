"""The stall trace: every step of the array and every drain with its cycles, from the cycle model alone.

As CSV, a line a step; or as JSON in the trace event format that Perfetto and Chrome open, where one
microsecond stands for one cycle.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

from ..kernels.errors import FormatError
from .atomic import write_bytes
from .cycles import layer_cycles
from .engine import EngineConfig
from .lowered import LoweredLayer
from .tile_times import tile_times

__all__ = ["Step", "check_trace_name", "steps", "write_trace"]

ARRAY, POST, LAYERS = 1, 2, 0
"""Tracks of the JSON form."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the array: its first cycle, the cycles in which it reads, and those that it waits afterwards.

    Cycles count from the network's first. `weight_stall` are cycles without a word until the next step's weights
    are there (or a digit pass of at least 4 cycles is over), `post_stall` those until a half of the
    accumulators is free.
    """

    layer: str
    row_group: int
    tile: int
    step: int
    start: int
    reads: int
    weight_stall: int
    post_stall: int


def steps(layers: Sequence[LoweredLayer], engine: EngineConfig) -> Iterator[Step]:
    """Every step of a lowered network's layers on the array, in order."""
    begun = 0
    for layer in layers:
        if layer.op == "mac":
            tiles = list(tile_times(layer, engine))
            for tile, after in [*pairwise(tiles), (tiles[-1], None)]:
                end = after.first - after.post_wait if after is not None else tile.last + tile.passes
                for index, reads in enumerate(tile.reads):
                    last = index == len(tile.pairs) - 1
                    taken = end - tile.last if last else tile.starts[index + 1] - tile.starts[index]
                    yield Step(
                        layer.name,
                        tile.row_group,
                        tile.tile,
                        index,
                        begun + tile.starts[index],
                        reads,
                        taken - reads,
                        after.post_wait if last and after is not None else 0,
                    )
        begun += layer_cycles(layer, engine).total


def check_trace_name(path: str | Path | None) -> None:
    """Raise `FormatError` for a name that ends in neither .csv nor .json."""
    if path is not None and Path(path).suffix not in (".csv", ".json"):
        raise FormatError(f"{path}: a stall trace must be called .csv or .json")


def write_trace(path: str | Path, layers: Sequence[LoweredLayer], engine: EngineConfig) -> None:
    """Write the trace of a lowered network: CSV or JSON, as the file's name ends."""
    check_trace_name(path)
    text = _csv(layers, engine) if Path(path).suffix == ".csv" else _json(layers, engine)
    write_bytes(path, text.encode())


def _csv(layers: Sequence[LoweredLayer], engine: EngineConfig) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Step)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(step) for step in steps(layers, engine))
    return text.getvalue()


def _json(layers: Sequence[LoweredLayer], engine: EngineConfig) -> str:
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": track, "args": {"name": name}}
        for track, name in ((LAYERS, "layers"), (ARRAY, "array"), (POST, "post lanes"))
    ]

    def event(track: int, name: str, start: int, cycles: int, **details: int) -> None:
        if cycles:
            events.append(
                {"ph": "X", "name": name, "pid": 0, "tid": track, "ts": start, "dur": cycles, "args": details}
            )

    begun = 0
    for layer in layers:
        cycles = layer_cycles(layer, engine)
        event(LAYERS, f"{layer.name} ({layer.label})", begun, cycles.total)
        if layer.op == "mac":
            for tile in tile_times(layer, engine):
                drain = tile.last_slot + layer.registers["interval"] - tile.slot
                event(POST, "drain", begun + tile.slot, drain, row_group=tile.row_group, tile=tile.tile)
        begun += cycles.total
    for step in steps(layers, engine):
        place = {"row_group": step.row_group, "tile": step.tile, "step": step.step}
        event(ARRAY, "compute", step.start, step.reads, **place)
        event(ARRAY, "weight stall", step.start + step.reads, step.weight_stall, **place)
        event(ARRAY, "post stall", step.start + step.reads + step.weight_stall, step.post_stall, **place)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}, separators=(",", ":")) + "\n"
