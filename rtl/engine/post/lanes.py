"""The post lanes: Q channels a cycle from accumulators or operands to output codes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from ....kernels.correction import INPUT_SUM_BITS
from ....kernels.planes import COEFFICIENT_BITS, PlaneCorrection, PlaneTable
from ....kernels.residual import STREAM_BITS
from ....sim.descriptor import CODE_BITS, PLANE_BITS
from ....sim.engine import EngineConfig
from ...mac import width_of
from ...planes import PlaneStage
from ...planes import PlaneTable as PlaneWords
from ..counters import COUNTER_BITS
from ..format import format_layout
from ..pipeline import delayed
from ..registers import descriptor_layout
from .correct import CorrectionStage, value_bits
from .counters import PostCounters
from .delay import DelayLine
from .records import BUFFERS, COEFFICIENTS_IN_FIELD, RecordLoader, RecordStore
from .rescale import Rescale
from .slots import runs
from .threshold import THRESHOLDS, ThresholdStage

__all__ = ["PostLanes"]

MAIN = CorrectionStage.latency
"""Cycles from a beat to each of its stages: here the corrected accumulator is there."""
OWN = MAIN + Rescale.latency
"""The own code is there, computed or given, and meets the other operand."""
SUM = OWN + Rescale.latency
"""Both operands are there in the sum's grid."""
OUT = SUM + Rescale.latency
"""The output code is there, and its copy is made."""
END = OUT + Rescale.latency
"""The copy is there, and the output code with it."""
COUNT = MAIN + 1
"""It is known how often a value did not fit."""


class PostLanes(wiring.Component):  # type: ignore[misc]
    """Q equal lanes: correction, scale or thresholds, add, copy, each where the layer has it.

    In a sign array the codes of `out` (`out_table`) or `second` (`second_table`) may be counts that the layer's table
    makes words of planes of, on their way out.

    A `beat` brings, in one cycle, accumulators and input sums (op mac) or first codes (op stream), and the other
    operand's codes where the layer adds, of the Q channels from ``beat_chunk * Q`` on of the row group whose
    records are in `beat_buffer`, its number's parity. `out` and `second` leave `latency` cycles later with
    `codes_valid` and the beat's chunk, whatever the layer does; one beat a cycle. Lanes outside of `beat_mask`
    give codes without meaning and count no overflows.

    Records come as `RecordLoader` says; `records_ready` is its count of full buffers. A beat may come as soon
    as its row group's buffer is counted; `records_free` hands the older buffer back, `last_read` cycles after the
    row group's last beat at the earliest.

    `close` hands the overflow counters of the rows over: beats up to its own cycle are in `post_count`, which
    holds them from the cycle of `post_closed`, `close_delay` cycles later, to the next; later beats start from zero.
    Beats, and frees, end before the next `start`.
    """

    latency = END
    last_read = OUT - 1
    close_delay = COUNT + 1

    def __init__(self, config: EngineConfig, formats: bool = False) -> None:
        self.config = config
        self.formats = formats
        self.planes = config.array == "sign"
        lanes = config.post_lanes
        chunk = range(max(1, config.rows // lanes))
        codes = data.ArrayLayout(signed(CODE_BITS), lanes)
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                **({"format": In(format_layout())} if formats else {}),
                "start": In(1),
                "words": In(stream.Signature(config.bus_bits)),
                "beat": In(1),
                "beat_buffer": In(1),
                "beat_chunk": In(chunk),
                "beat_mask": In(lanes),
                **({"beat_plane": In(PLANE_BITS), "beat_first": In(1), "beat_last": In(1)} if self.planes else {}),
                "acc": In(data.ArrayLayout(signed(config.mac.acc), lanes)),
                "xsum": In(data.ArrayLayout(signed(INPUT_SUM_BITS), lanes)),
                "first": In(codes),
                "other": In(codes),
                "records_free": In(1),
                "close": In(1),
                "codes_valid": Out(1),
                "codes_chunk": Out(chunk),
                "out": Out(codes),
                "second": Out(codes),
                "records_ready": Out(range(BUFFERS + 1)),
                "post_count": Out(data.ArrayLayout(COUNTER_BITS, config.rows)),
                "post_closed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer, lanes = self.config, self.layer, self.config.post_lanes

        m.submodules.loader = loader = RecordLoader(config)
        m.submodules.store = store = RecordStore(config)
        connect(m, flipped(self.words), loader.words)
        m.d.comb += [
            loader.layer.eq(layer),
            loader.start.eq(self.start),
            loader.free.eq(self.records_free),
            store.write.eq(loader.write),
            self.records_ready.eq(loader.full),
        ]

        # What the layer does, and where its beats are: bit k of `valid` is the beat that came k cycles ago.
        drains, scales, compares = Signal(), Signal(), Signal()
        valid = Signal(END + 1)
        since = Signal(END)
        m.d.comb += [
            drains.eq(runs(layer, "mac")),
            compares.eq(drains & (layer.thresholds != 0)),
            scales.eq(drains & (layer.thresholds == 0)),
            valid.eq(Cat(self.beat & self.beat_last if self.planes else self.beat, since)),
        ]
        m.d.sync += since.eq(valid)
        chunks, buffers = [self.beat_chunk], [self.beat_buffer]
        for stage in range(1, END + 1):
            chunks.append(delayed(m, chunks[-1], 1, f"chunk_{stage}"))
            buffers.append(delayed(m, buffers[-1], 1, f"buffer_{stage}"))

        # Each part of the records is read in the cycle before the stage that needs it.
        for part, stage, used in (
            ("main", MAIN, drains),
            ("thresholds", MAIN, compares),
            ("operands", OWN, layer.adds),
            ("sum", SUM, layer.adds),
            ("copy", OUT, layer.copies),
        ):
            index: data.View = getattr(store, f"{part}_index")
            m.d.comb += [
                getattr(store, f"{part}_read").eq(valid[stage - 1] & used),
                index.chunk.eq(chunks[stage - 1]),
                index.buffer.eq(buffers[stage - 1]),
            ]

        m.d.comb += [
            store.correction_read.eq(self.beat & drains),
            store.correction_index.chunk.eq(self.beat_chunk),
            store.correction_index.buffer.eq(self.beat_buffer),
        ]
        if self.planes:
            m.d.comb += [
                store.coefficients_read.eq(self.beat & drains),
                store.coefficients_index.chunk.eq(self.beat_chunk),
                store.coefficients_index.buffer.eq(self.beat_buffer),
                store.coefficients_field.eq(self.beat_plane >> ceil_log2(COEFFICIENTS_IN_FIELD)),
            ]

        # Codes that stages have no use for wait until their beat's turn.
        m.submodules.given = given = DelayLine(2 * len(self.first.as_value()), OWN)
        m.submodules.passed = passed = DelayLine(len(self.first.as_value()), OUT - OWN)
        m.submodules.finished = finished = DelayLine(len(self.out.as_value()), END - OUT)
        uses_given = ~drains | layer.adds
        first, other = Signal.like(self.first), Signal.like(self.other)
        own, out = Signal.like(self.first), Signal.like(self.out)
        passed_codes = Signal.like(self.first)
        m.d.comb += [
            given.i.eq(Cat(self.first, self.other)),
            given.enter.eq(valid[0] & uses_given),
            given.leave.eq(valid[OWN - 1] & uses_given),
            Cat(first, other).eq(given.o),
            passed.i.eq(own),
            passed.enter.eq(valid[OWN] & ~layer.adds),
            passed.leave.eq(valid[OUT - 1] & ~layer.adds),
            passed_codes.as_value().eq(passed.o),
            finished.i.eq(out),
            finished.enter.eq(valid[OUT]),
            finished.leave.eq(valid[END - 1]),
            self.codes_valid.eq(valid[END]),
            self.codes_chunk.eq(chunks[END]),
        ]

        m.submodules.counters = counters = PostCounters(config)
        close = delayed(m, self.close, COUNT, "close", reset_less=False)
        mask = delayed(m, self.beat_mask, COUNT, "mask")
        done = data.View(self.out.shape(), finished.o)
        m.d.comb += [
            counters.valid.eq(valid[COUNT] & drains),
            counters.chunk.eq(chunks[COUNT]),
            counters.close.eq(close),
            self.post_count.eq(counters.counts),
        ]
        m.d.sync += self.post_closed.eq(close)

        acc_bits = self.format.acc if self.formats else Const(config.mac.acc)
        fraction = COEFFICIENT_BITS if self.planes else layer.fraction
        width = width_of(m, (acc_bits + fraction)[:6], Const(0, 1), value_bits(config))
        plane = delayed(m, self.beat_plane[: ceil_log2(COEFFICIENTS_IN_FIELD)], 1, "plane") if self.planes else None
        for lane in range(lanes):
            m.submodules[f"correction_{lane}"] = correction = self._correction(m, store, width, plane, lane)
            m.submodules[f"main_{lane}"] = main = Rescale(value_bits(config), narrows=True)
            m.submodules[f"thresholds_{lane}"] = thresholds = ThresholdStage(value_bits(config))
            m.submodules[f"own_{lane}"] = own_operand = Rescale(CODE_BITS + 1, STREAM_BITS, ends=False)
            m.submodules[f"other_{lane}"] = other_operand = Rescale(CODE_BITS + 1, STREAM_BITS, ends=False)
            m.submodules[f"sum_{lane}"] = total = Rescale(STREAM_BITS + 1)
            m.submodules[f"copy_{lane}"] = copy = Rescale(CODE_BITS + 1)

            m.d.comb += [
                correction.valid.eq(self.beat & drains),
                correction.acc.eq(self.acc[lane]),
                correction.xsum.eq(self.xsum[lane]),
                correction.zero.eq(store.zero[lane]),
                correction.bias.eq(store.bias[lane]),
                main.fewer.eq(store.main[lane].fewer),
                thresholds.valid.eq(valid[MAIN] & compares),
                thresholds.value.eq(correction.value),
                thresholds.descending.eq(store.main[lane].descending),
                thresholds.count.eq(layer.thresholds),
                thresholds.base.eq(layer.main_zero),
                *(
                    getattr(thresholds, f"threshold_{index}").eq(getattr(store, f"threshold_{index}")[lane])
                    for index in range(THRESHOLDS)
                ),
                own[lane].eq(Mux(drains, Mux(compares, thresholds.code, main.code), first[lane])),
                out[lane].eq(Mux(layer.adds, total.code, passed_codes[lane])),
            ]
            first_code, second_code = done[lane], copy.code
            if self.planes:
                m.submodules[f"table_{lane}"] = table = PlaneWords(PlaneTable())
                m.d.comb += [
                    table.entries.eq(layer.table),
                    table.count.eq(Mux(layer.second_table, second_code, first_code)),
                ]
                first_code = Mux(layer.out_table, table.word, first_code)
                second_code = Mux(layer.second_table, table.word, second_code)
            m.d.comb += [self.out[lane].eq(first_code), self.second[lane].eq(second_code)]
            rescales: tuple[tuple[Rescale, str, Value, Value, Value], ...] = (
                (main, "main", valid[MAIN] & scales, correction.value, layer.main_rounding),
                (own_operand, "own", valid[OWN] & layer.adds, own[lane] - layer.own_zero, layer.operand_rounding),
                (
                    other_operand,
                    "other",
                    valid[OWN] & layer.adds,
                    other[lane] - layer.other_zero,
                    layer.operand_rounding,
                ),
                (total, "sum", valid[SUM] & layer.adds, own_operand.code + other_operand.code, layer.sum_rounding),
                (copy, "copy", valid[OUT] & layer.copies, out[lane] - layer.copy_from, layer.copy_rounding),
            )
            for unit, name, unit_valid, value, rounding in rescales:
                constants = getattr(store, name)[lane]
                m.d.comb += [
                    unit.valid.eq(unit_valid),
                    unit.value.eq(value),
                    unit.multiplier.eq(constants.multiplier),
                    unit.shift.eq(constants.shift),
                    unit.rounding.eq(rounding),
                ]
                if unit.ends:
                    m.d.comb += [
                        unit.zero_point.eq(layer[f"{name}_zero"]),
                        unit.low.eq(layer[f"{name}_low"]),
                        unit.high.eq(layer[f"{name}_high"]),
                    ]

            # tflite's overflow is known a cycle after the correction's.
            clipped = delayed(m, correction.overflow, COUNT - MAIN, f"clipped_{lane}")
            m.d.comb += counters.overflows[lane].eq(Mux(mask[lane], clipped + main.overflow, 0))
        return m

    def _correction(
        self, m: Module, store: RecordStore, width: data.View, plane: Value | None, lane: int
    ) -> CorrectionStage | PlaneStage:
        """The first stage of a lane, less what all kinds of it have in common; `plane` comes with the coefficients."""
        if plane is None:
            stage = CorrectionStage(self.config)
            m.d.comb += [stage.fraction.eq(self.layer.fraction), stage.places.eq(width.above)]
            return stage
        planes = PlaneStage(PlaneCorrection(self.config.mac), self.formats)
        m.d.comb += [
            planes.first.eq(self.beat_first),
            planes.last.eq(self.beat_last),
            planes.coef.eq(Array(store.coefficients[lane])[plane]),
        ]
        if self.formats:
            m.d.comb += planes.width.eq(width)
        return planes
