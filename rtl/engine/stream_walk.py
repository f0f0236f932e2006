"""The walk over a layer's stream: row groups, their records, tiles of pixels, steps, words of a weight tile."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...sim.descriptor import OPERATIONS, PART_BITS, PIXEL_BITS, SIZE_BITS, record_slots
from ...sim.engine import EngineConfig
from ...sim.image import AMOUNT_BITS, FIELD_BITS
from .registers import StepLanes, container, descriptor_layout, optional
from .row_groups import RowGroups

__all__ = ["StreamWalk"]

MAC_FIELDS = 2
"""Record fields of every channel of the array: bias and main."""
ADD_FIELDS = 3
"""Record fields of an add: own, other and sum."""


class StreamWalk(wiring.Component):  # type: ignore[misc]
    """Says of each word of a layer's stream what it is, and where the next one lies.

    `start` begins with the first word in the next cycle; `advance`, while `running`, moves on by one, without
    a gap anywhere. The present word is a weight (`weight`) or a record's; it is the last of its records
    (`records_end`), or the last of a tile of pixels before another one of its row group (`again`): the next
    word then is that after the records. In all other cases the next word is the next in memory.

    A layer of the array has `records`, then for each tile of pixels the weights of all steps; the
    other layers that have records have only these, and one without any never runs.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "advance": In(1),
                "running": Out(1),
                "weight": Out(1),
                "records_end": Out(1),
                "again": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        bus, lanes = config.bus_bits, config.lanes
        step_lanes = StepLanes(config, layer)
        m.submodules.row_groups = row_groups = RowGroups(config)
        m.d.comb += [row_groups.layer.eq(layer), row_groups.start.eq(self.start)]

        is_mac = layer.op == OPERATIONS.index("mac")
        # The walk over the row groups is one ahead while weights are read: what they need is kept.
        rows = Signal.like(row_groups.rows)
        last_group = Signal()
        lane_groups, first_lane = Signal(SIZE_BITS + 1), Signal(range(step_lanes.most))
        group_lanes = Signal(SIZE_BITS + 2)
        m.d.comb += group_lanes.eq(first_lane + layer.group_inputs)

        fields = self._fields(m)
        record_words = Signal(range(config.rows * len(record_slots(config)) * FIELD_BITS // bus + 2))
        code_words = Signal(range(max(2, config.rows * lanes * 8 // bus) + 1))
        amount_words = -(-lanes * AMOUNT_BITS // bus)
        row_group, code_container = Signal(SIZE_BITS), Signal(2)
        row_bits = Mux(layer.depthwise, rows, rows << ceil_log2(lanes)) << code_container
        m.d.comb += [
            record_words.eq(_words((row_groups.rows * fields) << ceil_log2(FIELD_BITS), bus)),
            code_words.eq(_words(row_bits, bus)),
        ]

        # Coded weights of all steps are one block, whose words the registers say; before all records is a table.
        coded, table = config.decoder != "raw", Signal()
        weight_words = code_words + Mux(optional(layer, "aligned"), amount_words, 0)
        if coded:
            weight_words = Mux(table, layer.table_words, layer.weight_words)
        word = Signal(max(len(record_words), len(weight_words)))
        last_word = Signal.like(word)
        lane_group, kernel_x, kernel_y = Signal(SIZE_BITS + 1), Signal(SIZE_BITS), Signal(SIZE_BITS)
        part, part_end = Signal(PART_BITS), Signal()
        left, pixels = Signal(PIXEL_BITS), Signal(PIXEL_BITS)
        block_end, lane_end, x_end, y_end, tile_end, row_group_end = (
            Signal(name=name) for name in ("block_end", "lane_end", "x_end", "y_end", "tile_end", "row_group_end")
        )
        with m.If(left > layer.tile_pixels):
            m.d.comb += pixels.eq(layer.tile_pixels)
        with m.Elif(last_group & (layer.taper != 0) & (left > layer.taper)):
            m.d.comb += pixels.eq((left + 1) >> 1)
        with m.Else():
            m.d.comb += pixels.eq(left)
        m.d.comb += [
            last_word.eq(Mux(self.weight, weight_words, record_words) - 1),
            block_end.eq(word == last_word),
            part_end.eq(part == optional(layer, "part_top")),
            lane_end.eq((lane_group == lane_groups - 1) & part_end),
            x_end.eq(kernel_x == layer.kernel_x - 1),
            y_end.eq(kernel_y == layer.kernel_y - 1),
            tile_end.eq(self.weight & block_end & (~table if coded else lane_end & x_end & y_end)),
            row_group_end.eq(tile_end & (left == pixels)),
            self.records_end.eq(~self.weight & block_end),
            self.again.eq(tile_end & ~row_group_end),
            row_groups.next.eq(self.advance & self.records_end),
        ]

        with m.If(self.advance):
            m.d.sync += word.eq(Mux(block_end, 0, word + 1))
            with m.If(self.records_end):
                m.d.sync += [rows.eq(row_groups.rows), last_group.eq(row_groups.last), left.eq(layer.out_pixels)]
                m.d.sync += [code_container.eq(container(layer, row_group)), row_group.eq(row_group + 1)]
                in_words = step_lanes.groups(group_lanes + (step_lanes.count - 1))
                m.d.sync += lane_groups.eq(Mux(layer.depthwise, 1, in_words))
                with m.If(row_groups.group_end):
                    m.d.sync += first_lane.eq(step_lanes.within(group_lanes))
                with m.If(is_mac):
                    m.d.sync += self.weight.eq(1)
                with m.Else():
                    m.d.sync += self.running.eq(~row_groups.last)
            with m.If(table & block_end):
                m.d.sync += [table.eq(0), self.weight.eq(0)]
            with m.If(self.weight & block_end):
                if config.has_parts:
                    m.d.sync += part.eq(Mux(part_end, 0, part + 1))
                with m.If(part_end):
                    m.d.sync += lane_group.eq(Mux(lane_end, 0, lane_group + 1))
                with m.If(lane_end):
                    m.d.sync += kernel_x.eq(Mux(x_end, 0, kernel_x + 1))
                    with m.If(x_end):
                        m.d.sync += kernel_y.eq(Mux(y_end, 0, kernel_y + 1))
            with m.If(tile_end):
                m.d.sync += left.eq(left - pixels)
            with m.If(row_group_end):
                m.d.sync += [self.weight.eq(0), self.running.eq(~last_group)]
        with m.If(self.start):
            m.d.sync += [
                self.running.eq(fields != 0),
                self.weight.eq(coded & is_mac),
                table.eq(coded & is_mac),
                word.eq(0),
                lane_group.eq(0),
                part.eq(0),
                kernel_x.eq(0),
                kernel_y.eq(0),
                row_group.eq(0),
                first_lane.eq(layer.in_lane),
            ]
        return m

    def _fields(self, m: Module) -> Signal:
        """Fields of a channel's record in this layer."""
        layer = self.layer
        fields = Signal(range(len(record_slots(self.config)) + 1))
        post = Mux(layer.adds, ADD_FIELDS, 0) + layer.copies
        with m.Switch(layer.op):
            with m.Case(OPERATIONS.index("mac")):
                coefficients = 1 + (layer.plane_top >> 2) if self.config.array == "sign" else 0
                m.d.comb += fields.eq(MAC_FIELDS + coefficients + layer.thresholds + post)
            with m.Case(OPERATIONS.index("stream")):
                m.d.comb += fields.eq(post)
        return fields


def _words(bits: Value, bus: int) -> Value:
    """Bus words of so many bits."""
    return (bits + (bus - 1)) >> ceil_log2(bus)
