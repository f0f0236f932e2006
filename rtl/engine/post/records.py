"""Records: the constants of a row group's channels, loaded behind those in use."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.hdl import Shape, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ....kernels.correction import ZERO_POINT_BITS
from ....kernels.planes import COEFFICIENT_BITS
from ....sim.descriptor import COEFFICIENT_SLOTS, record_slots
from ....sim.engine import EngineConfig
from ....sim.image import FIELD_BITS
from ..registers import descriptor_layout
from ..row_groups import RowGroups
from .correct import value_bits
from .rescale import FEWER_BITS, MULTIPLIER_BITS, SHIFT_BITS
from .slots import runs
from .threshold import THRESHOLDS

__all__ = ["BUFFERS", "COEFFICIENTS_IN_FIELD", "RecordLoader", "RecordStore", "buffer_index_layout", "scale_layout"]

BUFFERS = 2
COEFFICIENTS_IN_FIELD = FIELD_BITS // COEFFICIENT_BITS


def scale_layout() -> data.StructLayout:
    """How a channel's rescale lies in its field."""
    return data.StructLayout({"multiplier": MULTIPLIER_BITS, "shift": SHIFT_BITS})


def main_layout() -> data.StructLayout:
    """How the field of a channel of the array lies, its zero-point constant apart."""
    return data.StructLayout({"multiplier": MULTIPLIER_BITS, "shift": SHIFT_BITS, "descending": 1, "fewer": FEWER_BITS})


def buffer_index_layout(config: EngineConfig) -> data.StructLayout:
    """Where the records of a beat's channels are: chunk of the row group, buffer of the record store."""
    return data.StructLayout({"chunk": range(max(1, config.rows // config.post_lanes)), "buffer": 1})


def write_layout(config: EngineConfig) -> data.StructLayout:
    """One field on its way to the store."""
    return data.StructLayout(
        {
            "valid": 1,
            "slot": range(len(record_slots(config))),
            "lane": range(config.post_lanes),
            "index": buffer_index_layout(config),
            "field": FIELD_BITS,
        }
    )


class RecordLoader(wiring.Component):  # type: ignore[misc]
    """Takes a layer's records apart, one field a cycle: row group after row group, channel after channel.

    A word of B > 64 bits waits at the stream while its B / 64 fields leave, the last word of a row group only for those
    it has; where B < 64 a field leaves with the last of its 64 / B words. With an unbroken stream a row group of
    r channels with f fields each takes ``r * f * max(1, 64 / B)`` cycles, and row groups follow each other without
    a lost cycle, the first one from the cycle after `start` on.

    There are two buffers: no word is taken while both are full. `full` counts those that are, up from the cycle
    after a row group's last field; `free` hands the older one back, and in the next cycle the first word of
    another row group may be taken. Where the layer has no records both always count as full, and `free` means nothing.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "words": In(stream.Signature(config.bus_bits)),
                "free": In(1),
                "full": Out(range(BUFFERS + 1)),
                "write": Out(write_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        m.submodules.row_groups = row_groups = RowGroups(config)
        running, enable, field_done, channel_last, group_last, parity = (Signal() for _ in range(6))
        has_main, has_records = Signal(), Signal()
        slots = record_slots(config)
        bias, main, own, sum_, copy = map(slots.index, ("bias", "main", "own", "sum", "copy"))
        slot, first_slot, next_slot = (Signal(range(len(slots))) for _ in range(3))
        row = Signal(range(config.rows))
        count = Signal(range(BUFFERS + 1))

        m.d.comb += [
            has_main.eq(runs(layer, "mac")),
            has_records.eq(has_main | layer.adds | layer.copies),
            enable.eq(running & (count != BUFFERS)),
            self.full.eq(Mux(has_records, count, BUFFERS)),
            row_groups.layer.eq(layer),
            row_groups.start.eq(self.start),
            row_groups.next.eq(field_done & group_last),
        ]

        # The walk over a channel's fields.
        own_or_copy = Mux(layer.adds, own, copy)
        in_main = slot < own
        main_last = slot == main + layer.thresholds
        first_of_main: Value = Const(bias)
        if config.array == "sign":
            # The slots of coefficients come first, the last planes' before the others'.
            first_of_main = len(COEFFICIENT_SLOTS) - 1 - (layer.plane_top >> ceil_log2(COEFFICIENTS_IN_FIELD))
        m.d.comb += [
            first_slot.eq(Mux(has_main, first_of_main, own_or_copy)),
            group_last.eq(channel_last & (row + 1 == row_groups.rows)),
        ]
        with m.If(in_main):
            m.d.comb += [
                channel_last.eq(main_last & ~layer.adds & ~layer.copies),
                next_slot.eq(Mux(main_last, own_or_copy, slot + 1)),
            ]
        with m.Else():
            m.d.comb += [
                channel_last.eq(Mux(slot == sum_, ~layer.copies, slot == copy)),
                next_slot.eq(slot + 1),
            ]

        with m.If(field_done):
            m.d.sync += slot.eq(Mux(channel_last, first_slot, next_slot))
            with m.If(channel_last):
                m.d.sync += row.eq(Mux(group_last, 0, row + 1))
            with m.If(group_last):
                m.d.sync += [parity.eq(~parity), running.eq(~row_groups.last)]
        m.d.sync += count.eq(count + (field_done & group_last) - (self.free & has_records))
        with m.If(self.start):
            m.d.sync += [running.eq(has_records), slot.eq(first_slot), row.eq(0), parity.eq(0), count.eq(0)]

        lane_bits = ceil_log2(config.post_lanes)
        m.d.comb += [
            self.write.valid.eq(field_done),
            self.write.slot.eq(slot),
            self.write.lane.eq(row[:lane_bits]),
            self.write.index.chunk.eq(row[lane_bits:]),
            self.write.index.buffer.eq(parity),
            self.write.field.eq(self._field(m, enable, field_done, group_last)),
        ]
        return m

    def _field(self, m: Module, enable: Value, field_done: Value, group_last: Value) -> Value:
        """The field that leaves, and when; takes the words."""
        word, bus = self.words.payload, self.config.bus_bits
        take = self.words.valid & enable
        if bus == FIELD_BITS:
            m.d.comb += [self.words.ready.eq(enable), field_done.eq(take)]
            return word
        parts = max(bus, FIELD_BITS) // min(bus, FIELD_BITS)
        part = Signal(range(parts))
        if bus > FIELD_BITS:
            last = (part == parts - 1) | group_last
            m.d.comb += [self.words.ready.eq(enable & last), field_done.eq(take)]
            field = word.word_select(part, FIELD_BITS)
        else:
            last = part == parts - 1
            m.d.comb += [self.words.ready.eq(enable), field_done.eq(take & last)]
            before = Signal(FIELD_BITS - bus, reset_less=True)
            field = Cat(before, word)
            with m.If(take & ~last):
                m.d.sync += before.eq(field[bus:])
        with m.If(take):
            m.d.sync += part.eq(Mux(last, 0, part + 1))
        with m.If(self.start):
            m.d.sync += part.eq(0)
        return field


class RecordStore(wiring.Component):  # type: ignore[misc]
    """Memories for what the records of two row groups hold, read by all post lanes at once, each part on its own.

    A part's constants come in the cycle after its `read`; what is written in a cycle is there for the reads of later
    ones. Thresholds of a descending channel are held complemented (`ThresholdStage`). Of a sign array's coefficients
    four planes' are read at a time, those of the field `coefficients_field`.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        value = signed(value_bits(config))
        four = data.ArrayLayout(signed(COEFFICIENT_BITS), COEFFICIENTS_IN_FIELD)
        planes = config.array == "sign"
        self.parts: dict[str, dict[str, object]] = {
            **({"coefficients": {"coefficients": four}} if planes else {}),
            "correction": {"bias": value, "zero": signed(ZERO_POINT_BITS)},
            "main": {"main": main_layout()},
            "thresholds": {f"threshold_{index}": value for index in range(THRESHOLDS)},
            "operands": {"own": scale_layout(), "other": scale_layout()},
            "sum": {"sum": scale_layout()},
            "copy": {"copy": scale_layout()},
        }
        part = {"read": In(1), "index": In(buffer_index_layout(config))}
        super().__init__(
            {
                "write": In(write_layout(config)),
                **{f"{name}_{port}": member for name in self.parts for port, member in part.items()},
                **({"coefficients_field": In(range(len(COEFFICIENT_SLOTS)))} if planes else {}),
                **{
                    name: Out(data.ArrayLayout(shape, config.post_lanes))
                    for shapes in self.parts.values()
                    for name, shape in shapes.items()
                },
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        write = self.write
        descending = Signal()
        turn = descending.replicate(value_bits(self.config))
        main = data.View(main_layout(), write.field[ZERO_POINT_BITS:][: main_layout().size])
        slots = record_slots(self.config)
        with m.If(write.valid & (write.slot == slots.index("main"))):
            m.d.sync += descending.eq(main.descending)
        for part, shapes in self.parts.items():
            for name, shape in shapes.items():
                bits = Shape.cast(shape).width
                written: Value = write.field[:bits]
                index, read_index, count = write.index.as_value(), getattr(self, f"{part}_index").as_value(), 1
                if name == "coefficients":
                    count = len(COEFFICIENT_SLOTS)
                    chosen = write.slot < count
                    index = Cat((count - 1 - write.slot)[: ceil_log2(count)], index)
                    read_index = Cat(self.coefficients_field, read_index)
                else:
                    chosen = write.slot == slots.index("main" if name == "zero" else name)
                if name == "main":
                    written = main.as_value()
                elif part == "thresholds":
                    written = written ^ turn
                m.submodules[name] = cells = memory.Memory(
                    shape=data.ArrayLayout(unsigned(bits), self.config.post_lanes),
                    depth=count * BUFFERS * self.config.rows // self.config.post_lanes,
                    init=[],
                )
                writes, reads = cells.write_port(granularity=1), cells.read_port()
                m.d.comb += [
                    writes.en.eq(Mux(write.valid & chosen, 1 << write.lane, 0)),
                    writes.addr.eq(index),
                    writes.data.as_value().eq(written.replicate(self.config.post_lanes)),
                    reads.en.eq(getattr(self, f"{part}_read")),
                    reads.addr.eq(read_index),
                    getattr(self, name).as_value().eq(reads.data.as_value()),
                ]
        return m
