"""Sign planes: the weighted sum of a pixel's plane accumulators, and the table that makes planes of a count."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Array, EnableInserter, Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.correction import INPUT_SUM_BITS, ZERO_POINT_BITS
from ..kernels.planes import COEFFICIENT_BITS, TABLE_ENTRIES
from .bench import Bench, Fields, Layout
from .mac import limit_within, width_layout
from .pipeline import advance_together

__all__ = ["PlaneCorrection", "PlaneCorrectionBench", "PlaneStage", "PlaneTable", "PlaneTableBench"]


class PlaneStage(wiring.Component):  # type: ignore[misc]
    """``saturate(sum_p coef_p * acc_p - zero * xsum + bias)`` to acc + 16 bits.

    Latency 3 cycles from the last plane (accumulator, product, sum), one plane a cycle: a value of q planes takes q
    cycles, and the next may follow at once. `first` and `last` mark the ends of a value, between which there may be
    gaps; its planes come in any order. `xsum` belongs to the first. `coef` comes a cycle after its accumulator, `zero`
    and `bias` a cycle after the first one's. Where `valid` is low nothing is computed. `value` stands until the next
    one; `overflow` says with the value, and only then, that it did not fit. With `formats` the width is an input, up to
    that of the parameters.
    """

    latency = 3

    def __init__(self, parameters: kernels.PlaneCorrection, formats: bool = False) -> None:
        self.parameters = parameters
        self.formats = formats
        value = signed(parameters.out_bits)
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "acc": In(signed(parameters.format.acc)),
                "xsum": In(signed(INPUT_SUM_BITS)),
                "coef": In(signed(COEFFICIENT_BITS)),
                "zero": In(signed(ZERO_POINT_BITS)),
                "bias": In(value),
                **({"width": In(width_layout(parameters.out_bits))} if formats else {}),
                "value": Out(value),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = self.parameters
        valid, first, last = Signal(2), Signal(2, reset_less=True), Signal(2, reset_less=True)
        m.d.sync += [
            valid.eq((valid << 1) | self.valid),
            first.eq((first << 1) | self.first),
            last.eq((last << 1) | self.last),
        ]

        acc = Signal.like(self.acc, reset_less=True)
        xsum = Signal.like(self.xsum, reset_less=True)
        with m.If(self.valid):
            m.d.sync += acc.eq(self.acc)
            with m.If(self.first):
                m.d.sync += xsum.eq(self.xsum)

        product = Signal(signed(COEFFICIENT_BITS + parameters.format.acc), reset_less=True)
        offset = Signal(signed(ZERO_POINT_BITS + INPUT_SUM_BITS), reset_less=True)
        bias = Signal.like(self.bias, reset_less=True)
        with m.If(valid[0]):
            m.d.sync += product.eq(self.coef * acc)
            with m.If(first[0]):
                m.d.sync += [offset.eq(self.zero * xsum), bias.eq(self.bias)]

        total = Signal(signed(parameters.exact_bits), reset_less=True)
        exact = Signal(total.shape())
        m.d.comb += exact.eq(Mux(first[1], bias - offset, total) + product)
        width = self.width if self.formats else None
        limited, lost = limit_within(m, exact, parameters.out_bits, "saturate", width)
        value = Signal(self.value.shape(), reset_less=True)
        overflow = Signal()
        ends = valid[1] & last[1]
        m.d.sync += overflow.eq(lost & ends)
        with m.If(valid[1]):
            m.d.sync += total.eq(exact)
        with m.If(ends):
            m.d.sync += value.eq(limited)
        m.d.comb += [self.value.eq(value), self.overflow.eq(overflow)]
        return m


class PlaneCorrection(wiring.Component):  # type: ignore[misc]
    """A `PlaneStage` between streams: a plane with its coefficient and constants in, one a cycle; latency 3.

    Every plane leaves with the value that the stage holds then: its own where it is `last`, else the one before.
    """

    latency = PlaneStage.latency

    def __init__(self, parameters: kernels.PlaneCorrection) -> None:
        self.parameters = parameters
        value = signed(parameters.out_bits)
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "acc": signed(parameters.format.acc),
                                "coef": signed(COEFFICIENT_BITS),
                                "first": 1,
                                "last": 1,
                                "xsum": signed(INPUT_SUM_BITS),
                                "zero": signed(ZERO_POINT_BITS),
                                "bias": value,
                            }
                        )
                    )
                ),
                "o": Out(stream.Signature(data.StructLayout({"value": value, "overflow": 1}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        plane = self.i.payload
        advance, _ = advance_together(m, self.i, self.o, self.latency)
        stage = PlaneStage(self.parameters)
        m.submodules.stage = EnableInserter(advance)(stage)
        m.d.comb += [
            stage.valid.eq(self.i.valid),
            *(getattr(stage, name).eq(plane[name]) for name in ("first", "last", "acc", "xsum")),
            self.o.payload.value.eq(stage.value),
            self.o.payload.overflow.eq(stage.overflow),
        ]
        for name in ("coef", "zero", "bias"):
            held = Signal.like(plane[name], name=name, reset_less=True)
            with m.If(advance):
                m.d.sync += held.eq(plane[name])
            m.d.comb += getattr(stage, name).eq(held)
        return m


class PlaneTable(wiring.Component):  # type: ignore[misc]
    """The word of activation planes of a count of thresholds, by a table of 16 words that a layer brings.

    Combinational: latency 0, one word a cycle. Of the parameters only `planes`, the width of a word, is built in.
    """

    def __init__(self, parameters: kernels.PlaneTable) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "entries": In(data.ArrayLayout(parameters.planes, TABLE_ENTRIES)),
                "count": In(range(TABLE_ENTRIES)),
                "word": Out(parameters.planes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.word.eq(Array(self.entries[at] for at in range(TABLE_ENTRIES))[self.count])
        return m


class PlaneCorrectionBench(Bench[kernels.PlaneCorrection]):
    """Values of one to eight planes, within and beyond their width, some begun anew before they ended."""

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        planes = super().stimulus(layout, rng, count)
        planes["last"] = (rng.random(count) < 1 / 3).astype(np.int64)
        begins = np.concatenate([[1], planes["last"][:-1]]) | (rng.random(count) < 1 / 20)
        # No value has more planes than the exact sum has room for.
        begins[:: kernels.planes.MAX_PLANES] = 1
        planes["first"] = begins.astype(np.int64)
        return planes

    def expected(self, inputs: Fields) -> Fields:
        value, start = np.zeros((), dtype=np.int64), 0
        values, overflows = [], []
        for at, (first, last) in enumerate(zip(inputs["first"], inputs["last"], strict=True)):
            overflow = np.zeros((), dtype=bool)
            if first:
                start = at
            if last:
                acc, coef = (inputs[name][start : at + 1] for name in ("acc", "coef"))
                value, overflow = self.parameters.compute(
                    acc, coef, *(inputs[name][start] for name in ("xsum", "zero", "bias"))
                )
            values.append(value)
            overflows.append(overflow)
        return {"value": np.array(values), "overflow": np.array(overflows)}


class PlaneTableBench(Bench[kernels.PlaneTable]):
    """Every count in random tables, and in those whose entries are all equal."""

    def expected(self, inputs: Fields) -> Fields:
        tables, table = np.unique(inputs["entries"], axis=0, return_inverse=True)
        counts = np.arange(TABLE_ENTRIES)
        words = [
            kernels.PlaneTable(tuple(entries), self.parameters.planes).compute(counts) for entries in tables.tolist()
        ]
        return {"word": np.stack(words)[table.reshape(-1), inputs["count"]]}
