"""The cycle model: closed forms of the engine's schedule, from the registers that the engine itself reads.

``docs/microarchitecture.md`` states the rules with timing diagrams, and co-simulation holds every
layer's count to the RTL's own counter. Cycles depend on shapes, widths and the engine, with a decoder on
the weights too, and never on activations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..kernels.fusion import utilised_bricks
from ..kernels.jit import jit
from ..kernels.mac import DIGIT_BITS
from .engine import EngineConfig
from .engines import Count, Engines, by_engine, columns
from .lowered import LoweredLayer, lanes_of, row_group_runs
from .tile_times import FREE_DELAY, SLOT_DELAY, Plan, Timing, layer_end, play, slot_reads, slot_tail, stream_start

__all__ = ["Bound", "LayerCycles", "Parts", "array_facts", "layer_cycles", "layer_parts", "network_cycles"]

BEGIN = 2
"""A layer's units start in this cycle, beyond the words of the descriptor and the bus latency."""
LOAD_STAGES, STORE_STAGES = 5, 5
"""What a transfer takes beyond its words, those of the descriptor and the latency (a load: twice)."""

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


class Parts(NamedTuple):
    """The parts of a layer's cycles, which `LayerCycles` explains, and the bytes that it reads."""

    compute: Count = 0
    weight_stall: Count = 0
    post_stall: Count = 0
    drain: Count = 0
    fill: Count = 0
    host: Count = 0
    bytes_read: Count = 0


def network_cycles(layers: Sequence[LoweredLayer], engine: EngineConfig) -> list[LayerCycles]:
    """Cycles per image of a lowered network: the input's load, every engine layer, the result's store."""
    return [layer_cycles(layer, engine) for layer in layers]


def layer_cycles(layer: LoweredLayer, engine: EngineConfig) -> LayerCycles:
    """The cycles of one layer, in their parts."""
    parts = layer_parts(layer, Timing.of(layer), Engines.of(engine))
    own = {} if layer.mac is None else array_facts(layer, engine)
    return LayerCycles(layer.name, layer.label, **parts._asdict(), **own)


def layer_parts(layer: LoweredLayer, timing: Timing, engines: Engines) -> Parts:
    """The parts of a layer's cycles on one engine, or on many side by side."""
    if layer.op in ("load", "store"):
        return _transfer(layer, engines)
    return _array(layer, timing, engines) if layer.op == "mac" else _post_only(layer, timing, engines)


def _transfer(layer: LoweredLayer, engines: Engines) -> Parts:
    """A tensor moves word by word, of the memory or of the bus, whichever are more."""
    registers = layer.registers
    prefix, step = ("out", "out_pixel_step") if layer.op == "load" else ("first", "pixel_step")
    words = registers[f"{prefix}_planes"] * registers["out_pixels"] * registers[step]
    there = engines.bus_latency + LOAD_STAGES if layer.op == "load" else STORE_STAGES
    moved = words * -(-engines.shared.word_bits // engines.bus_bits)
    cycles = moved + engines.descriptor_words + engines.bus_latency + there
    return Parts(host=cycles, bytes_read=engines.descriptor_words * engines.bus_bits // 8)


def _array(layer: LoweredLayer, timing: Timing, engines: Engines) -> Parts:
    """Row group after row group, tile after tile."""
    plan, bus = Plan.of(layer, engines.shared), engines.bus_bits
    played = play(plan, timing, engines)
    compute = layer.registers["out_pixels"] * plan.pairs
    records = sum(run.number * layer.record.words(run.group.rows, bus) for run in plan.runs)
    words = engines.descriptor_words + records + played.words
    return Parts(
        compute,
        played.through - played.fill - compute - played.wait,
        played.wait,
        # A layer does not end before its stream.
        layer_end(layer, timing, played) - played.through,
        played.fill,
        bytes_read=words * bus // 8,
    )


def array_facts(layer: LoweredLayer, engine: EngineConfig) -> dict[str, Any]:
    """What of a layer of the array does not depend on its timing."""
    mac, registers = layer.mac, layer.registers
    assert mac is not None
    shape = mac.shape
    macs = registers["out_pixels"] * shape.out_channels * shape.group_inputs * shape.kernel[0] * shape.kernel[1]
    return {
        "macs": macs,
        "products": _products(layer, macs, engine),
        "weight_bits": mac.node.weights.bits,
        "lanes": lanes_of(registers, engine),
        "idle_lanes": _idle_lanes(registers, engine),
    }


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


def _idle_lanes(registers: Mapping[str, int], engine: EngineConfig) -> float:
    """Lanes of a step without an input channel, on average; a row of a depthwise layer has one of the diagonal's."""
    steps = used = 0
    for group, count in row_group_runs(registers, engine):
        steps += count * group.lane_groups
        used += count * (group.rows if registers["depthwise"] else registers["group_inputs"])
    return (steps * lanes_of(registers, engine) - used) / steps


@jit
def _play_slots(counts, slots, records, settings, found):  # type: ignore[no-untyped-def]
    """Row group after row group, slot after slot; the next row group's records come while one runs.

    `counts` and `slots` are row groups and the slots of each, by run; `records` and `settings` stand engine by engine.
    Writes rows of `found`: the first slot, and the one after the last.
    """
    for at in range(len(settings)):
        next_slot, taken, interval, free = settings[at]
        buffers = np.zeros(2, dtype=np.int64)
        group = 0
        for run in range(len(counts)):
            for _ in range(counts[run]):
                if records[at, run] > 0:
                    taken = max(taken + 1, buffers[group % 2]) + records[at, run] - 1
                    next_slot = max(next_slot, taken + 1)
                if group == 0:
                    found[at, 0] = next_slot
                next_slot += slots[run] * interval
                buffers[group % 2] = next_slot - interval + free
                group += 1
        found[at, 1] = next_slot


def _post_only(layer: LoweredLayer, timing: Timing, engines: Engines) -> Parts:
    registers, shared, bus = layer.registers, engines.shared, engines.bus_bits
    runs = list(row_group_runs(registers, shared))
    span = min(shared.rows, shared.lanes)
    slots = [registers["out_pixels"] * -(-group.rows // span) for group, _ in runs]
    counts = [count for _, count in runs]
    setting = (
        engines.descriptor_words + engines.bus_latency + BEGIN + SLOT_DELAY,
        stream_start(engines) - 1,
        timing.interval,
        slot_reads(layer) + timing.beats * layer.planes - 1 + FREE_DELAY,
    )
    records = columns(engines, [layer.record.cycles(group.rows, bus) for group, _ in runs])
    settings = columns(engines, setting)
    found = np.empty((len(settings), 2), dtype=np.int64)
    _play_slots(np.array(counts), np.array(slots), records, settings, found)
    fill, end = by_engine(engines, found)
    slot_count = sum(count * each for count, each in zip(counts, slots, strict=True))
    words = engines.descriptor_words + sum(count * layer.record.words(group.rows, bus) for group, count in runs)
    return Parts(
        slot_count * timing.interval,
        end - fill - slot_count * timing.interval,
        drain=slot_tail(layer, timing) - timing.interval,
        fill=fill,
        bytes_read=words * bus // 8,
    )
