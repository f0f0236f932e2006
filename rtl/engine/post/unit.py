"""The post unit: what comes after the accumulators, and the layers that need no array."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ....kernels.correction import INPUT_SUM_BITS
from ....kernels.mac import DIGIT_BITS
from ....sim.descriptor import Operation
from ....sim.engine import EngineConfig
from ..counters import COUNTER_BITS
from ..format import format_layout
from ..pipeline import delayed
from ..registers import address_bits, descriptor_layout
from ..sequencer import tile_layout
from .drain import Drain
from .fetch import Fetch
from .lanes import PostLanes
from .pool import Pool
from .sequencer import SlotSequencer
from .slots import runs
from .writer import Writer

__all__ = ["PostUnit"]


class PostUnit(wiring.Component):  # type: ignore[misc]
    """Runs the post side of the layer that the registers describe, from `start` to `done`.

    Operations `mac`: drains the tiles that `tile_done` announces, two of which may wait; `stream` and the pools:
    walks all pixels of one row group after the other. A slot (a pixel's channels of a span) takes N reads of
    operands, `beats` beats of Q channels each (pools: none, as if it were 1), and W writes:

        N = taps * first_planes * (1 + first_straddles) + other_planes * (1 + other_straddles)
        W = out_planes * (1 + out_straddles) + second_planes * (1 + second_straddles)

    `interval` must be at least 1, N, `beats`, W and, for averages, `Pool.divider_cycles`. Of a slot in cycle s:

    ============================  =====================================================================
    slot                          s: `interval` after the slot before, or later: not before `slot_delay`
                                  cycles after its tile's `tile_done` or after `start`, nor before the
                                  cycle in which its row group's records are there
    operand reads                 s ... s + N - 1; `fetch_data` comes in the cycle after each
    accumulator reads             s + N + `read_delay` ...; `drain_acc`, `drain_input_sum` a cycle after each
    beats enter the post lanes    s + N + `beat_delay` ... s + N + `beat_delay` + beats - 1
    writes                        s + N + beats - 1 + `write_delay` ... + W - 1
    ============================  =====================================================================

    With the last slot of a tile `release` gives its half back in the cycle of the last accumulator read,
    s + N + `read_delay` + beats - 1; with the last one of a row group `records_free` hands its records' buffer
    back `free_delay` cycles after s + N + beats - 1, and the overflow counters leave (`post_count`, with
    `post_closed`), in layers that drain accumulators; with the layer's last one `done` comes in the cycle of
    its last write.
    """

    slot_delay = 1
    read_delay = Fetch.ready_delay
    beat_delay = read_delay + 2

    def __init__(self, config: EngineConfig, formats: bool = False) -> None:
        self.config = config
        self.formats = formats
        rows = config.rows
        word = data.ArrayLayout(DIGIT_BITS, config.word_digits)
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                **({"format": In(format_layout())} if formats else {}),
                "start": In(1),
                "done": Out(1),
                "words": In(stream.Signature(config.bus_bits)),
                "tile_done": In(1),
                "done_half": In(1),
                "done_tile": In(tile_layout(config)),
                "release": Out(2),
                "drain_half": Out(1),
                "drain_pixel": Out(range(config.pixels)),
                "drain_acc": In(data.ArrayLayout(signed(config.mac.acc), rows)),
                "drain_input_sum": In(data.ArrayLayout(signed(INPUT_SUM_BITS), rows)),
                "fetch_read": Out(1),
                "fetch_address": Out(address_bits(config)),
                "fetch_data": In(word),
                "write_mask": Out(config.word_enables),
                "write_address": Out(address_bits(config)),
                "write_data": Out(word),
                "records_free": Out(1),
                "post_count": Out(data.ArrayLayout(COUNTER_BITS, rows)),
                "post_closed": Out(1),
            }
        )

    @property
    def free_delay(self) -> int:
        """See above: the post lanes have read the last of a beat's records."""
        return self.beat_delay + PostLanes.last_read

    def write_delay(self, op: Operation) -> int:
        """See above."""
        through = {
            "max_pool": self.read_delay + Pool.max_delay,
            "average_pool": self.read_delay + Pool.average_delay,
        }
        return Writer.latency + through.get(op, self.beat_delay + PostLanes.latency)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        m.submodules.sequencer = sequencer = SlotSequencer(config)
        m.submodules.fetch = fetch = Fetch(config)
        m.submodules.drain = drain = Drain(config)
        m.submodules.lanes = lanes = PostLanes(config, self.formats)
        m.submodules.pool = pool = Pool(config)
        m.submodules.writer = writer = Writer(config)

        connect(m, flipped(self.words), lanes.words)
        if self.formats:
            m.d.comb += lanes.format.eq(self.format)
        for part in (sequencer, fetch, drain, lanes, writer):
            m.d.comb += [part.layer.eq(layer), part.start.eq(self.start)]
        for part in (sequencer, drain):
            m.d.comb += [
                part.tile_done.eq(self.tile_done),
                part.done_half.eq(self.done_half),
                part.done_tile.eq(self.done_tile),
            ]

        in_lanes = Signal()
        m.d.comb += [
            in_lanes.eq(runs(layer, "mac", "stream")),
            sequencer.full.eq(lanes.records_ready),
            sequencer.records_free.eq(self.records_free),
            fetch.slot.eq(sequencer.slot),
            fetch.data.eq(self.fetch_data),
            self.fetch_read.eq(fetch.read),
            self.fetch_address.eq(fetch.address),
            drain.ready.eq(fetch.ready & in_lanes),
            self.drain_half.eq(drain.drain_half),
            self.drain_pixel.eq(drain.drain_pixel),
            self.release.eq(drain.release),
        ]

        # Of what a beat reads its Q channels go on.
        beat, group_last = Signal(), Signal()
        m.d.sync += [beat.eq(drain.valid), group_last.eq(drain.valid & drain.group_last)]
        with m.If(drain.valid):
            m.d.sync += [
                lanes.beat_buffer.eq(drain.buffer),
                lanes.beat_chunk.eq(drain.chunk),
                lanes.beat_mask.eq(drain.mask),
            ]
            if config.array == "sign":
                m.d.sync += [
                    lanes.beat_plane.eq(drain.plane),
                    lanes.beat_first.eq(drain.plane == 0),
                    lanes.beat_last.eq(drain.plane_last),
                ]
        for port, source, index in (
            (lanes.acc, self.drain_acc, drain.chunk),
            (lanes.xsum, self.drain_input_sum, drain.chunk),
            (lanes.first, fetch.first, drain.part),
            (lanes.other, fetch.other, drain.part),
        ):
            selected = Signal.like(port, reset_less=True)
            with m.If(drain.valid):
                m.d.sync += selected.as_value().eq(_word(source, index, len(port.as_value())))
            m.d.comb += port.eq(selected)
        has_records = runs(layer, "mac") | layer.adds | layer.copies
        m.d.comb += [
            lanes.beat.eq(beat),
            lanes.close.eq(group_last & runs(layer, "mac")),
            lanes.records_free.eq(self.records_free),
            self.records_free.eq(
                delayed(m, group_last & has_records, PostLanes.last_read, "records_read", reset_less=False)
            ),
            self.post_count.eq(lanes.post_count),
            self.post_closed.eq(lanes.post_closed),
        ]

        m.d.comb += [
            pool.average.eq(runs(layer, "average_pool")),
            pool.tap_valid.eq(fetch.tap_valid & ~in_lanes),
            pool.inside.eq(fetch.tap_inside),
            pool.last.eq(fetch.ready),
            pool.tap.eq(fetch.tap),
        ]

        m.d.comb += [
            writer.codes_valid.eq(lanes.codes_valid),
            writer.codes_chunk.eq(lanes.codes_chunk),
            writer.out.eq(lanes.out),
            writer.second.eq(lanes.second),
            writer.pool_valid.eq(pool.valid),
            writer.pool.eq(pool.codes),
            self.write_mask.eq(writer.write_mask),
            self.write_address.eq(writer.write_address),
            self.write_data.eq(writer.write_data),
            self.done.eq(writer.done),
        ]
        return m


def _word(source: data.View, index: Value, bits: int) -> Value:
    """The part of `bits` bits with that number."""
    whole = source.as_value()
    return whole if len(whole) == bits else whole.word_select(index, bits)
