"""The post unit over whole layers: every read, write, release and count, and the cycle of each."""

from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.correction import Correction
from gatewise.kernels.mac import MacFormat
from gatewise.kernels.planes import PlaneCorrection
from gatewise.kernels.pool import PoolShape, average_pool, max_pool
from gatewise.kernels.requant import Rounding, ScaleRequantizer, ThresholdRequantizer
from gatewise.kernels.residual import AddOperand, ResidualAdd
from gatewise.rtl.engine.post import drain as drain_module
from gatewise.rtl.engine.post import sequencer as sequencer_module
from gatewise.rtl.engine.post import unit as unit_module
from gatewise.rtl.engine.post.lanes import PostLanes
from gatewise.rtl.engine.post.pool import Pool
from gatewise.rtl.engine.post.slots import CODE_BITS, runs
from gatewise.rtl.engine.post.unit import PostUnit
from gatewise.rtl.engine.registers import address_bits, descriptor_layout
from gatewise.rtl.engine.row_groups import RowGroups
from gatewise.sim.descriptor import OPERATIONS

ROUNDINGS = get_args(Rounding)
TILES = 256
"""Accumulators of a half that the bench keeps, one after the other."""


class PlainLanes(wiring.Component):
    """Post lanes of a plain sum, for tests of what is around them; a channel's record is one bus word."""

    latency = 3
    last_read = 2
    close_delay = 1

    def __init__(self, config, formats=False):
        self.config = config
        lanes = config.post_lanes
        codes = data.ArrayLayout(signed(CODE_BITS), lanes)
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "words": In(stream.Signature(config.bus_bits)),
                "beat": In(1),
                "beat_buffer": In(1),
                "beat_chunk": In(range(max(1, config.rows // lanes))),
                "beat_mask": In(lanes),
                "acc": In(data.ArrayLayout(signed(config.mac.acc), lanes)),
                "xsum": In(data.ArrayLayout(signed(32), lanes)),
                "first": In(codes),
                "other": In(codes),
                "records_free": In(1),
                "close": In(1),
                "codes_valid": Out(1),
                "codes_chunk": Out(range(max(1, config.rows // lanes))),
                "out": Out(codes),
                "second": Out(codes),
                "records_ready": Out(range(3)),
                "post_count": Out(data.ArrayLayout(32, config.rows)),
                "post_closed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, layer = self.config, self.layer
        m.submodules.groups = groups = RowGroups(config)
        taken = Signal(range(config.rows + 1))
        active, last = Signal(), Signal()
        takes = self.words.valid & self.words.ready
        m.d.comb += [
            groups.layer.eq(layer),
            groups.start.eq(self.start),
            self.words.ready.eq(active & (self.records_ready < 2)),
            last.eq(takes & (taken + 1 == groups.rows)),
            groups.next.eq(last),
        ]
        m.d.sync += self.records_ready.eq(self.records_ready + last - self.records_free)
        with m.If(takes):
            m.d.sync += taken.eq(Mux(last, 0, taken + 1))
        with m.If(last & groups.last):
            m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += [active.eq(runs(layer, "mac") | layer.adds | layer.copies), taken.eq(0)]

        # The parity of the buffer is part of the result, and so are the lanes that count.
        stages = [(self.beat, self.beat_chunk, self.out, self.second)]
        for stage in range(self.latency):
            valid, chunk = Signal(name=f"valid_{stage}"), Signal.like(self.beat_chunk, name=f"chunk_{stage}")
            out, second = (Signal.like(self.out, name=f"{name}_{stage}") for name in ("out", "second"))
            m.d.sync += [valid.eq(stages[-1][0]), chunk.eq(stages[-1][1])]
            if stage:
                m.d.sync += [out.eq(stages[-1][2]), second.eq(stages[-1][3])]
            else:
                for lane in range(config.post_lanes):
                    own = Mux(runs(layer, "mac"), self.acc[lane] + 3 * self.xsum[lane], self.first[lane])
                    total = own + Mux(layer.adds, 7 * self.other[lane], 0) + self.beat_buffer
                    m.d.sync += [out[lane].eq(total), second[lane].eq(~total)]
            stages.append((valid, chunk, out, second))
        valid, chunk, out, second = stages[-1]
        m.d.comb += [self.codes_valid.eq(valid), self.codes_chunk.eq(chunk), self.out.eq(out), self.second.eq(second)]

        m.d.sync += self.post_closed.eq(self.close)
        for row in range(config.rows):
            chunk, lane = divmod(row, config.post_lanes)
            count, held = Signal(32, name=f"count_{row}"), Signal(32, name=f"held_{row}")
            after = Signal(32, name=f"after_{row}")
            counts = self.beat & (self.beat_chunk == chunk) & self.beat_mask[lane] & runs(layer, "mac")
            m.d.comb += after.eq(count + counts)
            m.d.sync += count.eq(Mux(self.close, 0, after))
            with m.If(self.close):
                m.d.sync += held.eq(after)
            m.d.comb += self.post_count[row].eq(held)
        return m


class Bench(wiring.Component):
    """The unit between a memory of activations, tiles of accumulators, and a stream of records.

    What was not read, and a half that was released, holds anything.
    """

    outputs = (
        "fetch_read", "fetch_address", "write_mask", "write_address", "write_data", "done", "release", "drain_half",
        "drain_pixel", "records_free", "post_closed", "post_count",
    )  # fmt: skip

    def __init__(self, config, unit=PostUnit):
        self.config = config
        self.unit = unit(config)
        self.acc_bits = config.rows * config.mac.acc
        word = data.ArrayLayout(config.enable_bits, config.word_enables)
        self.words = memory.Memory(shape=word, depth=1 << address_bits(config), init=[])
        self.tiles = memory.Memory(shape=self.acc_bits + 32 * config.rows, depth=TILES, init=[])
        self.records = memory.Memory(shape=config.bus_bits, depth=4096, init=[])
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "tile_done": In(1),
                "done_half": In(1),
                "done_pixels": In(range(config.pixels + 1)),
                "tile_base": In(range(TILES)),
                "feed": In(1),
                "record_words": In(range(4097)),
                **{name: Out(self.unit.signature.members[name].shape) for name in self.outputs},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        m.submodules.words, m.submodules.tiles, m.submodules.records = self.words, self.tiles, self.records
        m.d.comb += [
            unit.layer.eq(self.layer),
            unit.start.eq(self.start),
            unit.tile_done.eq(self.tile_done),
            unit.done_half.eq(self.done_half),
            unit.done_tile.pixels.eq(self.done_pixels),
            *(getattr(self, name).eq(getattr(unit, name)) for name in self.outputs),
        ]

        read, write = self.words.read_port(), self.words.write_port(granularity=1)
        was_read = Signal()
        m.d.sync += was_read.eq(unit.fetch_read)
        digits = read.data.as_value()
        m.d.comb += [
            read.addr.eq(unit.fetch_address),
            unit.fetch_data.eq(Mux(was_read, digits, ~digits)),
            write.addr.eq(unit.write_address),
            write.data.as_value().eq(unit.write_data),
            write.en.eq(unit.write_mask),
        ]

        base = [Signal(range(TILES), name=f"base_{half}") for half in (0, 1)]
        for half in (0, 1):
            with m.If(unit.release[half]):
                m.d.sync += base[half].eq(base[half] + 77)
            with m.If(self.tile_done & (self.done_half == half)):
                m.d.sync += base[half].eq(self.tile_base)
        drained = self.tiles.read_port()
        m.d.comb += [
            drained.addr.eq(Mux(unit.drain_half, base[1], base[0]) + unit.drain_pixel),
            unit.drain_acc.eq(drained.data[: self.acc_bits]),
            unit.drain_input_sum.eq(drained.data[self.acc_bits :]),
        ]

        record = self.records.read_port(domain="comb")
        place, offered = Signal(range(4097)), Signal()
        m.d.comb += [
            record.addr.eq(place),
            unit.words.payload.eq(record.data),
            unit.words.valid.eq((self.feed | offered) & (place != self.record_words)),
        ]
        m.d.sync += [
            offered.eq(unit.words.valid & ~unit.words.ready),
            place.eq(place + (unit.words.valid & unit.words.ready)),
        ]
        with m.If(self.start):
            m.d.sync += [place.eq(0), offered.eq(0)]
        return m


@dataclass
class Layer:
    """A layer of the post unit; a shift is the tensor's channel that output channel 0 meets."""

    op: str
    outputs: int
    out_size: tuple
    first: object = None
    other: object = None
    out: object = None
    second: object = None
    kernel: tuple = (1, 1)
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    other_stride: tuple = (1, 1)
    first_shift: int = 0
    other_shift: int = 0
    out_shift: int = 0
    zeros: tuple = (0, 0)
    straddles: int = 0
    groups: int = 1
    depthwise: bool = False
    tile_pixels: int = 16
    slack: int = 0
    extra: dict = field(default_factory=dict)

    @property
    def targets(self):
        return [("out", self.out, self.out_shift), ("second", self.second, self.out_shift)]


def random_layer(config, room, rng, op):
    def planes():
        return int(rng.choice([1, 2, 4]))

    def size(out, kernel, stride, padding):
        least = [(o - 1) * s + k - 2 * p for o, k, s, p in zip(out, kernel, stride, padding, strict=True)]
        return tuple(max(1, at) + int(rng.integers(0, 2)) for at in least)

    outputs = int(rng.integers(1, 2 * config.rows + 2))
    layer = Layer(op, outputs, tuple(int(at) for at in rng.integers(1, 5, 2)))
    layer.stride, layer.other_stride = (tuple(int(at) for at in rng.integers(1, 3, 2)) for _ in range(2))
    if op == "mac":
        layer.groups, layer.depthwise = int(rng.choice([1, 2])), bool(rng.integers(0, 2))
        layer.tile_pixels = int(rng.integers(1, 6))
    channels = layer.outputs * layer.groups
    if op in ("max_pool", "average_pool"):
        layer.kernel = tuple(int(at) for at in rng.integers(1, 4, 2))
        layer.padding = tuple(int(rng.integers(0, at)) for at in layer.kernel)
    if op != "mac":
        inside = size(layer.out_size, layer.kernel, layer.stride, layer.padding)
        layer.first = room.filled((channels, *inside), planes(), bool(rng.integers(0, 2)))
    if op in ("mac", "stream") and rng.random() < 0.6:
        less = int(rng.integers(0, channels))
        shape = (channels - less, *size(layer.out_size, (1, 1), layer.other_stride, (0, 0)))
        layer.other = room.filled(shape, planes(), bool(less % 2))
        layer.other_shift = -int(rng.integers(0, less + 1))
    # The result may be a part of a concatenation.
    before, after = (int(more) for more in rng.integers(0, 3, 2))
    kind = int(rng.integers(0, 3)) if op in ("mac", "stream") else 1
    shape = (before + channels + after, *layer.out_size)
    layer.out_shift = before
    if kind != 2:
        layer.out = room.empty(shape, planes())
    if kind != 1:
        layer.second = room.empty(shape, planes())
    layer.zeros = tuple(int(at) for at in rng.integers(-(1 << 15), 1 << 15, 2))
    layer.straddles = int(rng.integers(0, 2))
    layer.slack = int(rng.integers(0, 3)) * int(rng.integers(0, 2))
    return layer


def registers(config, layer, tensors, blocks):
    values = {
        **tensors.fetch_registers(config, layer, blocks),
        **tensors.write_registers(config, layer, blocks),
        "op": OPERATIONS.index(layer.op),
        "adds": int(layer.other is not None),
        "copies": int(layer.second is not None and layer.op in ("mac", "stream")),
        "tile_pixels": layer.tile_pixels,
        **layer.extra,
    }
    reads, writes = slot_words(values, "first", "other"), slot_words(values, "out", "second")
    taps = layer.kernel[0] * layer.kernel[1]
    reads += (taps - 1) * slot_words(values, "first")
    pools = layer.op in ("max_pool", "average_pool")
    division = Pool.divider_cycles if layer.op == "average_pool" else 1
    values["interval"] = max(1, reads, writes, 1 if pools else beat_cycles(values), division) + layer.slack
    return values


def beat_cycles(values):
    """Of a slot: its beats, in a sign array one for each plane."""
    return values["beats"] * (1 + values.get("plane_top", 0))


def slot_words(values, *tensors):
    return sum(values.get(f"{name}_planes", 0) * (1 + values.get(f"{name}_straddles", 0)) for name in tensors)


def tile_sizes(pixels, layer):
    return [min(layer.tile_pixels, pixels - at) for at in range(0, pixels, layer.tile_pixels)]


@dataclass
class Play:
    """A layer's inputs and outputs by cycle; cycle 0 is that of `start`."""

    values: dict
    tiles: dict = field(default_factory=dict)
    reads: dict = field(default_factory=dict)
    drains: dict = field(default_factory=dict)
    writes: dict = field(default_factory=dict)
    releases: dict = field(default_factory=dict)
    frees: list = field(default_factory=list)
    closes: dict = field(default_factory=dict)
    records: list = field(default_factory=list)
    done: int = 0


class PlainModel:
    """What `PlainLanes` make of a layer."""

    lanes = PlainLanes

    def begin(self, config, layer, rng):
        """Choose a layer's constants."""
        self.fields = 1

    def records(self, config, blocks):
        """The words of the records."""
        return [0] * sum(rows for _, rows in blocks)

    def field_cycles(self, config):
        return 1

    def results(self, config, layer, slot, acc, xsum, first, other):
        """A slot's codes in both tensors, and how often each channel's value did not fit."""
        own = acc[0] + 3 * xsum if layer.op == "mac" else first
        total = own + (0 if other is None else 7 * other) + slot.row_group % 2
        return total, ~total, [1] * slot.count


class GoldenModel:
    """What the kernels make of a layer, with random constants."""

    lanes = PostLanes

    def begin(self, config, layer, rng):
        def whole(low, high, size=None):
            return rng.integers(low, high + 1, size)

        def scales(shift):
            """Multipliers and shifts."""
            return whole(0, (1 << 31) - 1, count) >> whole(0, 3, count), whole(shift, shift + 3, count)

        def ends(name):
            low, high = int(whole(-(1 << 15), -1000)), int(whole(1000, (1 << 15) - 1))
            self.values |= {
                f"{name}_rounding": ROUNDINGS.index(self.rounding[name]),
                f"{name}_zero": int(whole(-99, 99)),
                f"{name}_low": low,
                f"{name}_high": high,
            }

        count = layer.outputs * layer.groups
        self.adds, self.copies = layer.other is not None, layer.second is not None
        self.rounding = {name: str(rng.choice(ROUNDINGS)) for name in ("main", "sum", "copy")}
        self.values, self.constants = {}, {}
        self.thresholds = self.planes = 0
        if layer.op == "mac":
            self.values["fraction"] = 0 if self.rounding["main"] == "tflite" else int(whole(0, 8))
            bits = config.mac.acc + self.values["fraction"]
            if config.array == "sign":
                bits = config.mac.acc + 16
                self.planes = int(whole(1, min(64, config.pixels // layer.tile_pixels)))
                self.values["plane_top"] = self.planes - 1
                self.constants["coefficients"] = whole(-(1 << 15), (1 << 15) - 1, (count, self.planes))
            self.thresholds = int(rng.choice([0, 0, 0, 0, 1, 3, 7, 15]))
            ends("main")
            self.values["thresholds"] = self.thresholds
            if self.thresholds:
                # Codes are from the counter's base on.
                self.values["main_zero"] = -(self.thresholds + 1 >> 1)
            limit = (1 << bits - 1) - 1
            self.constants |= {
                "bias": whole(-limit, limit, count) >> whole(1, 9, count),
                "zero": whole(-(1 << 15), (1 << 15) - 1, count) >> whole(4, 16, count),
                "main": scales(min(59, max(31, bits + 31 - 16))),
                "descending": whole(0, 1, count),
                "thresholds": whole(-limit, limit, (count, self.thresholds)),
            }
        if self.adds:
            ends("sum")
            self.values |= {"own_zero": int(whole(-99, 99)), "operand_rounding": self.values["sum_rounding"]}
            self.constants |= {name: scales(31) for name in ("own", "other", "sum")}
        if self.copies:
            ends("copy")
            self.values["copy_from"] = int(whole(-999, 999))
            self.constants["copy"] = scales(31)
        self.fields = (2 + self.thresholds) * (layer.op == "mac") + 3 * self.adds + self.copies + -(-self.planes // 4)
        layer.extra |= self.values

    def records(self, config, blocks):
        bus, words = config.bus_bits, []
        for first, rows in blocks:
            fields = [field for channel in range(first, first + rows) for field in self.record(channel)]
            block = joined(fields, 64)
            words += [block >> low & (1 << bus) - 1 for low in range(0, 64 * len(fields), bus)]
        return words

    def record(self, channel):
        """The fields of a channel."""
        fields = []
        if self.planes:
            coefficients = self.constants["coefficients"][channel]
            fields = [joined(coefficients[at : at + 4], 16) for at in range(0, self.planes, 4)][::-1]
        if "bias" in self.constants:
            multiplier, shift = (int(part[channel]) for part in self.constants["main"])
            zero = int(self.constants["zero"][channel]) & 0xFFFF
            descending = int(self.constants["descending"][channel])
            fields += [self.constants["bias"][channel], zero | multiplier << 16 | shift << 47 | descending << 53]
            fields += list(self.constants["thresholds"][channel])
        for name in ("own", "other", "sum", "copy"):
            if name in self.constants:
                multiplier, shift = self.constants[name]
                fields.append(int(multiplier[channel]) | int(shift[channel]) << 31)
        return fields

    def field_cycles(self, config):
        return max(1, 64 // config.bus_bits)

    def results(self, config, layer, slot, acc, xsum, first, other):
        chosen = slice(slot.channel, slot.channel + slot.count)

        def of(name):
            return (part[chosen] for part in self.constants[name])

        def ends(name):
            return (self.values[f"{name}_{end}"] for end in ("zero", "low", "high"))

        def codes(values):
            return np.asarray(values, dtype=np.int64).reshape(1, -1, 1)

        lost = np.zeros(slot.count, dtype=np.int64)
        if layer.op == "mac":
            zero, bias = (codes(self.constants[name][chosen]) for name in ("zero", "bias"))
            if self.planes:
                correction = PlaneCorrection(config.mac)
                accs = np.asarray(acc, dtype=np.int64)[:, None, :, None]
                coefficients = self.constants["coefficients"][chosen].T[:, None, :, None]
                value, clipped = correction.compute(accs, coefficients, codes(xsum), zero, bias)
            else:
                correction = Correction(config.mac, self.values["fraction"])
                value, clipped = correction.compute(codes(acc[0]), codes(xsum), zero, bias)
            lost += clipped.reshape(-1)
            if self.thresholds:
                counter = ThresholdRequantizer(correction.out_bits, (self.thresholds + 1).bit_length() - 1, True)
                own = counter.compute(value, self.constants["thresholds"][chosen], self.constants["descending"][chosen])
            else:
                scaler = ScaleRequantizer(correction.out_bits, 31, self.rounding["main"])
                own, saturated = scaler.compute(value, *of("main"), *ends("main"))
                lost += saturated
        else:
            own = codes(first)
        out = own
        if self.adds:
            unit = ResidualAdd(31, self.rounding["sum"])
            operands = (
                AddOperand(own, self.values["own_zero"], *of("own")),
                AddOperand(codes(other), layer.zeros[1], *of("other")),
            )
            out = unit.compute(operands, *of("sum"), *ends("sum"))
        second = out
        if self.copies:
            scaler = ScaleRequantizer(17, 31, self.rounding["copy"])
            moved = out.astype(np.int64) - self.values["copy_from"]
            second = scaler.compute(moved, *of("copy"), *ends("copy"))[0]
        return out.reshape(-1), second.reshape(-1), lost


def filled(config, model, blocks, before, freed):
    """The first cycle in which the records of the next row group are there."""
    group = len(before)
    begins = max(before[-1] if group else 1, freed[group - 2] + 1 if group > 1 else 1)
    return begins + blocks[group][1] * model.fields * model.field_cycles(config)


def play(config, layer, tensors, unit, rng, accumulators, model):
    """The layer by the unit's stated rules; its results go into its tensors."""
    blocks = tensors.row_groups(config, layer.outputs, layer.groups, layer.depthwise)
    model.begin(config, layer, rng)
    values = registers(config, layer, tensors, blocks)
    plan = tensors.fetched_slots(config, layer, values, blocks)
    drains, pools = layer.op == "mac", layer.op in ("max_pool", "average_pool")
    beats, planes = 1 if pools else beat_cycles(values), 1 + values.get("plane_top", 0)
    found = Play(values)
    has_records = drains or values["adds"] or values["copies"]
    if has_records:
        found.records = model.records(config, blocks)
    sizes = [n for _ in blocks for n in tile_sizes(values["out_pixels"], layer)] if drains else []
    first_half = int(rng.integers(0, 2))
    done, released, record_times = [], [], []
    tile, pixel, base, at = -1, 0, 0, -(1 << 30)
    counts = np.zeros(config.rows, dtype=np.int64)
    begins = []
    pooled = pool_results(layer) if pools else None
    for number, (slot, addresses, taps, other) in enumerate(plan):
        pixel_begins = number == 0 or plan[number - 1][0][2:4] != slot[2:4]
        pixel_ends = number + 1 == len(plan) or plan[number + 1][0][2:4] != slot[2:4]
        earliest = 1
        if has_records and slot.first_of_group:
            record_times.append(filled(config, model, blocks, record_times, found.frees))
            earliest = record_times[-1]
        if drains:
            if pixel_begins:
                pixel += 1
                if tile < 0 or pixel == sizes[tile]:
                    tile, pixel = tile + 1, 0
                    # Weights come behind records, so a tile is done later than its records are there.
                    at_least = [earliest, *(each + 1 for each in done[-1:])]
                    at_least += [released[tile - 2] + 3] if tile > 1 else []
                    done.append(max(at_least) + int(rng.integers(0, 3) * rng.integers(0, 8)))
                    base = int(rng.integers(0, TILES - config.pixels))
                    found.tiles[done[-1]] = (first_half ^ tile & 1, sizes[tile], base)
            earliest = done[tile] + unit.slot_delay
        half = first_half ^ tile & 1
        at = max(at + values["interval"], earliest)
        begins.append(at)
        last_beat = at + len(addresses) + beats - 1
        found.reads |= {at + n: address for n, address in enumerate(addresses)}
        if drains:
            first_read = at + len(addresses) + unit.read_delay
            # A beat's planes follow each other, as many pixels apart as a tile has.
            found.drains |= {
                first_read + beat: (half, pixel + beat % planes * layer.tile_pixels) for beat in range(beats)
            }
            if pixel_ends and pixel == sizes[tile] - 1:
                released.append(last_beat + unit.read_delay)
                found.releases[released[-1]] = 1 << half
        if pools:
            codes = pooled[slot.channel : slot.channel + slot.count, slot.pixel], None
        else:
            row = slot.channel - blocks[slot.row_group][0]
            places = base + pixel + layer.tile_pixels * np.arange(planes if drains else 1)
            acc, xsum = (each[places, row : row + slot.count] for each in accumulators)
            first = np.array(taps[-1], dtype=object) if taps else None
            second = None if other is None else np.array(other, dtype=object)
            *codes, lost = model.results(config, layer, slot, acc, xsum[0], first, second)
            counts[row : row + slot.count] += lost
        for (_, tensor, shift), part in zip(layer.targets, codes, strict=True):
            if tensor is not None:
                channels = tensor.codes.reshape(len(tensor.codes), -1)
                low = slot.channel + shift
                channels[low : low + slot.count, slot.pixel] = [int(code) & 0xFFFF for code in part]
        if slot.last_of_group:
            if has_records:
                found.frees.append(last_beat + unit.free_delay)
            if drains:
                found.closes[last_beat + unit.beat_delay + model.lanes.close_delay] = counts.tolist()
            counts[:] = 0
    for (slot, addresses, _, _), begin in zip(plan, begins, strict=True):
        first_write = begin + len(addresses) + beats - 1 + unit.write_delay(layer.op)
        writes = tensors.slot_writes(config, layer, values, slot)
        found.writes |= {first_write + n: write for n, write in enumerate(writes)}
    found.done = max(found.writes)
    return found


def pool_results(layer):
    """Codes (channels, pixels) of the golden model."""
    top, left = layer.padding
    shape = PoolShape(layer.kernel, layer.stride, (top, left, top, left))
    run = max_pool if layer.op == "max_pool" else average_pool
    rows, columns = layer.out_size
    return run(layer.first.codes[None], shape)[0][:, :rows, :columns].reshape(len(layer.first.codes), -1)


def in_python(bench, setup, jobs):
    """Outputs of every job by name, a list of numbers a cycle; Amaranth's own simulator."""
    found = []

    async def testbench(ctx):
        for name, rows in setup.items():
            for at, value in enumerate(rows):
                ctx.set(getattr(bench, name).data[at], value)
        for values, records, inputs, done, noise in jobs:
            for at, record in enumerate(records):
                ctx.set(bench.records.data[at], record)
            ctx.set(bench.layer, values)
            ctx.set(bench.record_words, len(records))
            outputs = {name: [] for name in bench.outputs}
            for cycle in range(len(inputs["start"])):
                if cycle == done + 1:
                    ctx.set(bench.layer.as_value(), noise)
                for name, column in inputs.items():
                    ctx.set(getattr(bench, name), int(column[cycle]))
                for name, column in outputs.items():
                    port = getattr(bench, name)
                    column.append(ctx.get(port if name != "write_data" and name != "post_count" else port.as_value()))
                await ctx.tick()
            found.append(outputs)

    simulator = Simulator(bench)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return found


def compiled_runner(compiled, level=""):
    """The same with native code; `level` of the hierarchy has the bench's memories."""

    def run(bench, setup, jobs):
        found, bits = [], bench.config.enable_bits
        with compiled(bench).simulate() as simulation:
            for name, rows in setup.items():
                for at, value in enumerate(rows):
                    simulation.poke(level + name, value if isinstance(value, int) else joined(value, bits), at)
            for values, records, inputs, done, noise in jobs:
                for at, record in enumerate(records):
                    simulation.poke(f"{level}records", record, at)
                simulation.poke("layer", bench.layer.shape().const(values).as_value().value)
                simulation.poke("record_words", len(records))
                outputs = {name: [] for name in bench.outputs}
                for part in (slice(done + 1), slice(done + 1, None)):
                    columns = {name: np.asarray(column[part], dtype=np.uint32) for name, column in inputs.items()}
                    if len(columns["start"]):
                        for name, rows in simulation.vectors(columns, bench.outputs).items():
                            outputs[name] += [int.from_bytes(row.tobytes(), "little") for row in rows]
                    simulation.poke("layer", noise)
                found.append(outputs)
        return found

    return run


def differences(config, layers, tensors, rng, memory_digits, model, run=in_python, unit=PostUnit):
    """What a unit does otherwise than the model and the rules say, as text."""
    bench = Bench(config, unit)
    acc_bits = config.mac.acc
    accumulators = [rng.integers(-(1 << bits - 1), 1 << bits - 1, (TILES, config.rows)) for bits in (acc_bits, 32)]
    accumulators[1] >>= rng.integers(0, 31, (TILES, config.rows))
    accumulators = [values.astype(object) for values in accumulators]
    setup = {
        "words": [[int(part) for part in row] for row in enable_parts(config, memory_digits)],
        "tiles": [
            joined(acc, acc_bits) | joined(xsum, 32) << acc_bits * config.rows
            for acc, xsum in zip(*accumulators, strict=True)
        ],
    }
    plays = [play(config, layer, tensors, bench.unit, rng, accumulators, model) for layer in layers]
    jobs = []
    for each in plays:
        # The next layer starts in the cycle after the last write, or some later.
        cycles = each.done + 1 + int(rng.integers(0, 2) * rng.integers(0, 12))
        inputs = {name: np.zeros(cycles, dtype=int) for name in ("tile_done", "done_half", "done_pixels", "tile_base")}
        inputs["start"] = np.arange(cycles) == 0
        inputs["feed"] = np.ones(cycles, dtype=int)
        for cycle, tile in each.tiles.items():
            inputs["tile_done"][cycle] = 1
            for name, value in zip(("done_half", "done_pixels", "tile_base"), tile, strict=True):
                inputs[name][cycle] = value
        # Between two layers the registers hold anything.
        noise = int.from_bytes(rng.bytes(bench.layer.shape().size // 8), "little")
        jobs.append((each.values, each.records, inputs, each.done, noise))
    wrong = []
    for index, (each, found) in enumerate(zip(plays, run(bench, setup, jobs), strict=True)):
        wrong += [f"layer {index} ({layers[index].op}) {text}" for text in compared(config, each, found, tensors)]
    return wrong


def enable_parts(config, digits):
    """Digits (words, W) as what each write enable covers, the lowest first."""
    bits = config.enable_bits
    return (digits[:, :, None] >> np.arange(0, 4, bits) & (1 << bits) - 1).reshape(len(digits), -1)


def joined(values, bits):
    return sum((int(value) & (1 << bits) - 1) << at * bits for at, value in enumerate(values))


def compared(config, each, found, tensors):
    """Differences between what must be and what was, cycle by cycle."""
    for cycle in range(len(found["done"])):
        now = {name: column[cycle] for name, column in found.items()}
        parts = tensors.written(config, now["write_mask"], now["write_data"])
        place, wanted = each.writes.get(cycle, (None, {}))
        pairs = {
            "read": (now["fetch_address"] if now["fetch_read"] else None, each.reads.get(cycle)),
            "write": ((now["write_address"], parts) if parts else None, (place, wanted) if wanted else None),
            "done": (now["done"], int(cycle == each.done)),
            "release": (now["release"], each.releases.get(cycle, 0)),
            "records_free": (now["records_free"], int(cycle in each.frees)),
            "post_closed": (now["post_closed"], int(cycle in each.closes)),
        }
        if cycle in each.drains:
            pairs["drain"] = (now["drain_half"], now["drain_pixel"]), each.drains[cycle]
        if cycle in each.closes:
            counts = each.closes[cycle]
            pairs["counts"] = [now["post_count"] >> 32 * row & 0xFFFFFFFF for row in range(len(counts))], counts
        for name, (was, must) in pairs.items():
            if was != must:
                yield f"cycle {cycle}: {name} {was}, not {must}"


def made(config, tensors, seed, operations):
    """Layers, the memory's digits, and what else is random."""
    rng = np.random.default_rng(seed)
    room = tensors.Room(config, rng)
    digits = rng.integers(0, 16, (room.size, config.word_digits))
    layers = [random_layer(config, room, rng, op) for op in operations]
    for layer in layers:
        for tensor in filter(None, (layer.first, layer.other)):
            tensor.store(digits)
    return layers, rng, digits


OPERATIONS_TESTED = ("mac", "stream", "mac", "average_pool", "stream", "max_pool", "mac")


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(unit_module, "PostLanes", PlainLanes)
    return PlainModel()


@pytest.mark.parametrize(
    ("rows", "lanes", "post_lanes", "seed"),
    [(4, 4, 4, 1), (8, 4, 1, 2), (8, 4, 4, 3), (4, 8, 2, 4), (4, 4, 1, 5)],
)
def test_every_cycle_is_the_stated_one(rows, lanes, post_lanes, seed, plain, tensors):
    config = EngineConfig(rows=rows, lanes=lanes, pixels=16, post_lanes=post_lanes, bus_bits=64, act_bytes=1 << 13)
    layers, rng, digits = made(config, tensors, seed, OPERATIONS_TESTED)
    assert differences(config, layers, tensors, rng, digits, plain)[:5] == []


@pytest.mark.parametrize(
    ("rows", "lanes", "post_lanes", "bus", "acc", "seed", "array"),
    [
        (4, 4, 4, 32, 32, 1, "digit"),
        (8, 4, 2, 128, 18, 2, "digit"),
        (4, 8, 1, 64, 32, 3, "digit"),
        (8, 4, 2, 64, 24, 4, "sign"),
        (4, 8, 1, 16, 40, 5, "sign"),
        (8, 4, 2, 64, 32, 6, "fusion"),
    ],
)
def test_layers_are_those_of_the_kernels(rows, lanes, post_lanes, bus, acc, seed, array, compiled, tensors):
    config = EngineConfig(
        rows=rows,
        lanes=lanes,
        pixels=16,
        post_lanes=post_lanes,
        bus_bits=bus,
        act_bytes=1 << 15,
        mac=MacFormat(acc=acc, align=min(16, acc)),
        array=array,
    )
    layers, rng, digits = made(config, tensors, seed, 4 * OPERATIONS_TESTED)
    assert differences(config, layers, tensors, rng, digits, GoldenModel(), compiled_runner(compiled))[:5] == []


FAULTS = {
    "second tile lost": (sequencer_module, "with m.If(count == leaves):", "with m.If(count == 0):"),
    "tile walked on": (sequencer_module, "Mux(self.last, 0, self.pixel + 1)", "self.pixel + 1"),
    "slot a cycle late": (sequencer_module, "wait.eq(layer.interval - 1)", "wait.eq(layer.interval)"),
    "slots without a tile": (sequencer_module, "(tiles.valid | ~drains)", "1"),
    "records not awaited": (sequencer_module, "(self.full > begun)", "(self.full > 0)"),
    "records awaited once": (sequencer_module, "group_first.eq(slots.pixel_last)", "group_first.eq(0)"),
    "wait of the layer before": (sequencer_module, "[wait.eq(0), group_first", "[group_first"),
    "release at the first span": (drain_module, "tile_end.eq(slot_end & slots.span_last & ", "tile_end.eq(slot_end & "),
    "release at the first beat": (drain_module, "tile_end.eq(slot_end & ", "tile_end.eq(reading & "),
    "release of the other half": (drain_module, "Cat(tile_end & ~", "Cat(tile_end & "),
    "every lane counts": (drain_module, "slots.channels > part", "slots.channels >= part"),
    "one buffer": (drain_module, "buffer.eq(~buffer)", "buffer.eq(buffer)"),
    "buffer of the layer before": (drain_module, "with m.If(self.start):", "with m.If(0):"),
    "first span's accumulators": (drain_module, "// post_lanes)], slots.span)", "// post_lanes)], 0)"),
    "group ends with its span": (drain_module, "group_last.eq(slot_end & slots.pixel_last)", "group_last.eq(slot_end)"),
    "first part of an operand": (unit_module, "fetch.other, drain.part)", "fetch.other, 0)"),
    "records freed early": (unit_module, "has_records, PostLanes.last_read", "has_records, PostLanes.last_read - 1"),
    "records freed that are none": (unit_module, "group_last & has_records", "group_last"),
    "counts of a stream": (unit_module, 'close.eq(group_last & runs(layer, "mac"))', "close.eq(group_last)"),
    "one tap a window": (unit_module, "pool.last.eq(fetch.ready)", "pool.last.eq(1)"),
    "padding pooled": (unit_module, "pool.inside.eq(fetch.tap_inside)", "pool.inside.eq(1)"),
    "taps of a stream": (unit_module, "fetch.tap_valid & ~in_lanes", "fetch.tap_valid"),
}  # fmt: skip


def fault_layers(config, tensors):
    """Few cycles in which all of it happens."""
    rng = np.random.default_rng(8)
    room = tensors.Room(config, rng)
    digits = rng.integers(0, 16, (room.size, config.word_digits))

    def layer(op, outputs, out_size, first=None, second=False, other=False, **settings):
        made = Layer(op, outputs, out_size, **settings)
        made.first = None if first is None else room.filled((outputs, *first), 1)
        made.other = room.filled((outputs, *out_size), 1) if other else None
        made.out = room.empty((outputs, *out_size), 2)
        made.second = room.empty((outputs, *out_size), 1) if second else None
        for tensor in filter(None, (made.first, made.other)):
            tensor.store(digits)
        return made

    window = {"kernel": (2, 2), "padding": (1, 1)}
    layers = [
        layer("mac", 10, (3, 3), tile_pixels=1),
        layer("stream", 20, (1, 1), (1, 1), other=True),
        layer("stream", 3, (1, 2), (1, 2)),
        # Slots so far apart that the next layer starts before another one could.
        layer("max_pool", 2, (1, 1), (1, 1), slack=99),
        layer("mac", 9, (2, 3), other=True, tile_pixels=4),
        layer("average_pool", 9, (2, 1), (1, 1), **window),
        layer("mac", 5, (1, 4), depthwise=True, tile_pixels=2, second=True),
        layer("max_pool", 3, (2, 2), (1, 1), **window),
        layer("mac", 12, (4, 2), groups=1, tile_pixels=1, second=True, slack=1),
        layer("stream", 9, (1, 3), (1, 3), other=True, second=True),
    ]
    return layers, rng, digits


FAULT_CONFIG = EngineConfig(rows=8, lanes=4, pixels=16, post_lanes=2, bus_bits=64, act_bytes=1 << 12)


def test_the_layers_of_the_faults_agree(plain, tensors):
    layers, rng, digits = fault_layers(FAULT_CONFIG, tensors)
    assert differences(FAULT_CONFIG, layers, tensors, rng, digits, plain)[:5] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, plain, planted, monkeypatch, tensors):
    module, old, new = FAULTS[fault]
    names = planted(module, old, new)
    unit = PostUnit
    if module is unit_module:
        # Made anew, so that it has its own names of the parts.
        names["PostLanes"] = PlainLanes
        unit = names["PostUnit"]
    elif module is drain_module:
        monkeypatch.setattr(unit_module, "Drain", names["Drain"])
    else:
        monkeypatch.setattr(unit_module, "SlotSequencer", names["SlotSequencer"])
        monkeypatch.setattr(drain_module, "TileWalk", names["TileWalk"])
    layers, rng, digits = fault_layers(FAULT_CONFIG, tensors)
    assert differences(FAULT_CONFIG, layers, tensors, rng, digits, plain, unit=unit) != []


PLANE_FAULTS = {
    "planes a pixel apart": ("plane_pixel + layer.tile_pixels", "layer.tile_pixels", "1"),
    "planes from where they ended": ("Mux(plane_last, 0, plane_pixel", "plane_last", "0"),
    "one coefficient": ("eq(plane),", "plane", "0"),
    "a value of each plane": ("eq(plane_last),", "plane_last", "1"),
    "the next part with every plane": ("with m.If(plane_last):", "plane_last", "1"),
    "one plane of the last part": ("(part == layer.beats - 1) & plane_last", "plane_last", "1"),
}


@pytest.mark.parametrize("fault", [None, *PLANE_FAULTS])
def test_a_fault_in_the_drain_of_planes_is_found(fault, compiled, planted_together, with_fault, monkeypatch, tensors):
    config = EngineConfig(
        rows=4, lanes=4, pixels=16, post_lanes=2, bus_bits=64, act_bytes=1 << 12, array="sign", mac=MacFormat(acc=24)
    )
    # All faults are in one design, which is compiled once.
    names, choosing = planted_together({name: (drain_module, *each) for name, each in PLANE_FAULTS.items()})
    monkeypatch.setattr(unit_module, "Drain", names[drain_module]["Drain"])
    number = 0 if fault is None else 1 + list(PLANE_FAULTS).index(fault)
    run = compiled_runner(lambda bench: with_fault(compiled(choosing(bench)), number), "inner.")
    layers, rng, digits = made(config, tensors, 7, ("mac", "mac", "mac"))
    assert (differences(config, layers, tensors, rng, digits, GoldenModel(), run) == []) == (fault is None)
