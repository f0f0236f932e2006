"""XOR-coded weight stream: bus words to vectors of weight bits, and vectors to runs of rows."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from .mac import settled
from .xor import XorGates, XorProgrammable, index_shape

__all__ = ["XorDecoder", "XorRows", "XorStream"]


def _run_time_ports(stream_: kernels.XorStream) -> dict[str, Any]:
    """The ports of a decoder whose matrices are registers."""
    if not isinstance(stream_.matrices, kernels.XorProgrammable):
        return {}
    return {
        "n_in": In(range(stream_.n_in + 1)),
        "n_out": In(range(stream_.n_out + 1)),
        "write": In(1),
        "write_plane": In(index_shape(stream_.planes)),
        "write_row": In(index_shape(stream_.n_out)),
        "write_mask": In(stream_.n_in),
    }


class XorStream(wiring.Component):  # type: ignore[misc]
    """Words of B bits to vectors of n_out weight bits: a gearbox that takes n_in bits a slice, and the XOR network.

    Latency 1 cycle: a slice is offered, decoded, in the cycle after its last word was taken. Throughput one vector a
    cycle as long as the words keep up, B >= n_in; else slice s of a frame, counted from 0, is offered max(1, w(s + 1)
    - w(s)) cycles after slice s - 1 was taken, w(s) = ceil(s * n_in / B): one in n_in / B cycles on average. A word
    is taken exactly in the cycles in which the bits held, less those that leave, are less than a slice; `words.ready`
    therefore follows `o.ready` in the same cycle.

    A frame's last word is marked `last`; what it holds beyond the last whole slice is dropped. From then on no word
    is taken, and `ended` is up when no whole slice is left: a consumer, which knows how many it needs, and waits
    then, has been given a stream cut short. `flush` ends the frame in one cycle; if its marked word has not come,
    words are dropped up to and including it. `plane` chooses the matrix of the vector on offer. With registers for
    matrices, their ports are `XorProgrammable`'s, and `n_in` and `n_out` are set for each frame, within the maxima.
    """

    def __init__(self, parameters: kernels.XorStream) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "words": In(stream.Signature(data.StructLayout({"bits": parameters.word_bits, "last": 1}))),
                "o": Out(stream.Signature(parameters.n_out)),
                "plane": In(index_shape(parameters.planes)),
                "flush": In(1),
                "ended": Out(1),
                **_run_time_ports(parameters),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = self.parameters
        grain = parameters.grain
        capacity = parameters.n_in - grain + parameters.word_bits
        # Bits above the level are 0.
        held = Signal(capacity, reset_less=True)
        grains = Signal(range(capacity // grain + 1))
        level = Cat(Const(0, grain.bit_length() - 1), grains)
        stopped, draining = Signal(), Signal()
        n_in: Value = self.n_in if parameters.programmable else Const(parameters.n_in)

        m.d.comb += self.o.payload.eq(self._decoded(m, held[: parameters.n_in]))
        complete = settled(m, level >= n_in)
        given = settled(m, self.o.valid & self.o.ready)
        rest = Signal(range(capacity + 1))
        taken = settled(m, self.words.valid & self.words.ready)
        m.d.comb += [
            self.o.valid.eq(complete),
            self.ended.eq(stopped & ~complete),
            rest.eq(Mux(given, level - n_in, level)),
            self.words.ready.eq(draining | (~stopped & (rest < n_in))),
        ]

        kept = settled(m, Mux(given, held >> n_in, held))
        # Less than a slice is left wherever a word is taken.
        place = Signal(range(parameters.n_in))
        m.d.comb += place.eq(Cat(Const(0, grain.bit_length() - 1), rest[grain.bit_length() - 1 :]))
        last = taken & self.words.payload.last
        with m.If(draining):
            with m.If(last):
                m.d.sync += draining.eq(0)
        with m.Elif(self.flush):
            m.d.sync += [held.eq(0), grains.eq(0), stopped.eq(0), draining.eq(~(stopped | last))]
        with m.Else():
            full = settled(m, Mux(taken, rest + parameters.word_bits, rest))
            m.d.sync += [
                held.eq(kept | Mux(taken, self.words.payload.bits, 0) << place),
                grains.eq(full[grain.bit_length() - 1 :]),
            ]
            with m.If(last):
                m.d.sync += stopped.eq(1)
        return m

    def _decoded(self, m: Module, slice_: Value) -> Value:
        """The vector of a slice under the matrix of `plane`."""
        if isinstance(self.parameters.matrices, kernels.XorProgrammable):
            m.submodules.matrix = matrix = XorProgrammable(self.parameters.matrices)
            for name in ("write", "write_plane", "write_row", "write_mask", "plane", "n_out"):
                m.d.comb += getattr(matrix, name).eq(getattr(self, name))
            m.d.comb += matrix.x.eq(slice_)
            return matrix.y
        vector: Value = Const(0, self.parameters.n_out)
        for plane, network in reversed(list(enumerate(self.parameters.matrices))):
            m.submodules[f"gates_{plane}"] = gates = XorGates(network)
            m.d.comb += gates.x.eq(slice_)
            vector = gates.y if plane == self.parameters.planes - 1 else Mux(self.plane == plane, gates.y, vector)
        return vector


class XorRows(wiring.Component):  # type: ignore[misc]
    """Vectors of weight bits to runs of rows of W bits.

    A run waits at the head of `runs` until its last row is made: `length` bits, at least 1, that continue where the
    run before ended, or, with `restart`, begin `skip` outputs (less than n_out) into a fresh vector. Rows leave in
    `o`; the last one of a run is marked `last` and 0 beyond the run's bits. A vector is taken only when a row needs
    it, under the `plane` of that run.

    Latency 1 cycle from the vector that completes a row to the row's offer; throughput one row a cycle while W <=
    n_out, else one vector a cycle; runs follow each other without a pause. The cycles of a run are those of
    `kernels.xor_stream`: the sum over its rows of max(1, vectors that the row needs).

    The last run of a frame is marked `last` too: with its last row, `finish` is up for a cycle, and what is left of
    the vector is dropped. While `ended` is up and no vector comes, zeros stand for it, and rows from there up to the
    next restart are marked `short`: a frame that is cut short takes as many rows as any other.
    """

    def __init__(self, parameters: kernels.XorRows) -> None:
        self.parameters = parameters
        plane = index_shape(parameters.planes)
        run = {
            "length": parameters.length_bits,
            "skip": index_shape(parameters.n_out),
            "plane": plane,
            "restart": 1,
            "last": 1,
        }
        super().__init__(
            {
                "vectors": In(stream.Signature(parameters.n_out)),
                "runs": In(stream.Signature(data.StructLayout(run))),
                "o": Out(stream.Signature(data.StructLayout({"bits": parameters.row_bits, "last": 1, "short": 1}))),
                "plane": Out(plane),
                "ended": In(1),
                "finish": Out(1),
                **({"n_out": In(range(parameters.n_out + 1))} if parameters.programmable else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = self.parameters
        row_bits, pool_bits = parameters.row_bits, max(1, parameters.pool_bits)
        n_out: Value = self.n_out if parameters.programmable else Const(parameters.n_out)
        run = self.runs.payload
        # Bits above the level are 0.
        pool = Signal(pool_bits, reset_less=True)
        level = Signal(range(pool_bits + 1))
        first = Signal(init=1)
        left = Signal(parameters.length_bits, reset_less=True)
        short = Signal()

        fresh = settled(m, first & run.restart)
        base = settled(m, Mux(fresh, 0, level))
        remaining = settled(m, Mux(first, run.length, left))
        final = settled(m, remaining <= row_bits)
        take = Signal(range(row_bits + 1))
        m.d.comb += take.eq(Mux(final, remaining, row_bits))
        pull = settled(m, base < take)
        step = settled(m, self.runs.valid & (~self.o.valid | self.o.ready))
        go = settled(m, step & (~pull | self.vectors.valid | self.ended))
        m.d.comb += [self.plane.eq(run.plane), self.vectors.ready.eq(step & pull)]

        vector = settled(m, Mux(pull & self.vectors.valid, self.vectors.payload, 0))
        fed = settled(m, Mux(fresh, vector >> run.skip, vector))
        # A vector is added below a row's width, at most.
        width = max(row_bits - 1 + parameters.n_out, pool_bits)
        place = Signal(range(row_bits))
        merged = Signal(width)
        have = Signal(range(width + 1))
        emit = settled(m, have >= take)
        m.d.comb += [
            place.eq(base),
            merged.eq(Mux(fresh, 0, pool) | (fed << place)),
            have.eq(base + Mux(pull, n_out - Mux(fresh, run.skip, 0), 0)),
        ]
        lost = settled(m, (short & ~fresh) | (pull & ~self.vectors.valid))
        done = settled(m, go & emit & final)
        m.d.comb += [self.runs.ready.eq(done), self.finish.eq(done & run.last)]

        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += self.o.valid.eq(go & emit)
        with m.If(go):
            m.d.sync += [
                pool.eq(Mux(emit, merged >> take, merged)),
                level.eq(Mux(emit, have - take, have)),
                short.eq(lost),
                first.eq(done),
                left.eq(Mux(emit, remaining - row_bits, remaining)),
            ]
            with m.If(emit):
                m.d.sync += [
                    self.o.payload.bits.eq(merged[:row_bits] & ~(Const(-1, row_bits) << take)[:row_bits]),
                    self.o.payload.last.eq(final),
                    self.o.payload.short.eq(lost),
                ]
        with m.If(self.finish):
            m.d.sync += [pool.eq(0), level.eq(0), short.eq(0)]
        return m


class XorDecoder(wiring.Component):  # type: ignore[misc]
    """Bus words and runs to rows of weight bits: `XorStream` and `XorRows`, each frame ended by its last run.

    Latency 2 cycles from the word that completes a slice to the row that its vector completes. The cycles of every
    run are `parameters.schedule`'s as long as words are offered and rows are taken. A frame of n rows ends after that
    count whatever its words are: where they end too early the rows from there on are `short`; where they are too
    many, those up to the marked one are dropped, one a cycle. It waits only for a marked word that is never offered.
    """

    def __init__(self, parameters: kernels.XorDecoder) -> None:
        self.parameters = parameters
        self.stream, self.rows = XorStream(parameters.stream), XorRows(parameters.rows)
        super().__init__(
            {
                "words": In(self.stream.words.signature.flip()),
                "runs": In(self.rows.runs.signature.flip()),
                "o": Out(self.rows.o.signature),
                **_run_time_ports(parameters.stream),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.stream, m.submodules.rows = self.stream, self.rows
        wiring.connect(m, wiring.flipped(self.words), self.stream.words)
        wiring.connect(m, wiring.flipped(self.runs), self.rows.runs)
        wiring.connect(m, self.stream.o, self.rows.vectors)
        wiring.connect(m, self.rows.o, wiring.flipped(self.o))
        m.d.comb += [
            self.stream.plane.eq(self.rows.plane),
            self.stream.flush.eq(self.rows.finish),
            self.rows.ended.eq(self.stream.ended),
        ]
        for name in _run_time_ports(self.parameters.stream):
            m.d.comb += getattr(self.stream, name).eq(getattr(self, name))
        if self.parameters.stream.programmable:
            m.d.comb += self.rows.n_out.eq(self.n_out)
        return m
