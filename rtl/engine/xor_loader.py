"""XOR loader: encrypted slices become a tile of signs behind the one that computes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from enum import Enum

from amaranth import Array, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...sim.descriptor import ADDRESS_BITS
from ...sim.engine import CHUNK_BITS, XOR_NETWORKS, XOR_WIDTH, EngineConfig
from ...sim.xor_coded import OUTPUTS_AT, RUN_FIELDS, xor_decoder
from ..xor_stream import XorDecoder
from .chunks import chunks_of

__all__ = ["XorLoader"]


class State(Enum):
    """What the next chunk is."""

    SIZE = 0
    MASK = 1
    RUN = 2
    COUNT = 3
    CODED = 4
    ZEROS = 5


class XorLoader(wiring.Component):  # type: ignore[misc]
    """Fills the shadow tile with a row of decoded signs a cycle while the active tile computes.

    Words are taken apart into chunks of 32 bits, one a cycle. From `start` on, `table_words` words are networks; then
    each pass of `weight_words` words is a sequence of runs (`sim.xor_coded`), each of them a frame of the decoder,
    and zeros. A run's first chunk is taken from the cycle on in which the last row of the run before is made,
    a pass's when the shadow tile has taken the last row of the one before.

    A tile has `rows` rows; in a `depthwise` layer one, which all rows of the tile get: the array knows
    their lanes. Lanes that a row's runs do not reach hold any sign. `loaded`, `swap`, and what the settings describe
    are as in `WeightLoader`. `error` stays up from a stream's error to the next `start`: a network or a run that is
    none, slices that are too few or too many, a pass that ends too early, within a tile, or with other chunks than
    zeros, a tile that is not the pass's first where a pass begins (`swap_first` with `swap`) or is where none does,
    signs for a tile that nobody needs (`running` is low). `waits`: for the next pass, with nothing left to do.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        rows, lanes = config.rows, config.lanes
        super().__init__(
            {
                "words": In(stream.Signature(config.bus_bits)),
                "start": In(1),
                "table_words": In(ADDRESS_BITS),
                "weight_words": In(ADDRESS_BITS),
                "running": In(1),
                "enable": In(1),
                "depthwise": In(1),
                "rows": In(range(rows + 1)),
                "swap": In(1),
                "swap_first": In(1),
                "loaded": Out(1),
                "codes": Out(data.ArrayLayout(1, lanes)).array(rows),
                "waits": Out(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = XorDecoder(xor_decoder(self.config))
        chunk, chunk_valid, take = chunks_of(m, self.words)
        per_word = ceil_log2(self.config.bus_bits // CHUNK_BITS)

        # Chunks of the table, or of a pass, that have not been taken; those of the run's slices.
        left, coded = Signal(ADDRESS_BITS), Signal(CHUNK_BITS)
        state = Signal(State)
        final, bad = Signal(), Signal()
        pass_begin = Signal()
        with m.If(take):
            m.d.sync += left.eq(left - 1)
        m.d.comb += final.eq(left == 1)

        # A network that was never sent has some size, too.
        sizes = data.StructLayout({"n_in": range(XOR_WIDTH + 1), "n_out": range(XOR_WIDTH + 1)})
        networks = Array(Signal(sizes, name=f"sizes_{at}", init={"n_in": 1, "n_out": 1}) for at in range(XOR_NETWORKS))
        network, output = Signal(range(XOR_NETWORKS)), Signal(range(XOR_WIDTH))
        run = Signal(data.StructLayout(RUN_FIELDS))
        size = Signal(sizes)
        run_valid, run_done = Signal(), Signal()
        m.d.comb += [
            size.eq(networks[run.network]),
            run_done.eq(run_valid & decoder.runs.ready),
            decoder.n_in.eq(size.n_in),
            decoder.n_out.eq(size.n_out),
            decoder.write_plane.eq(network),
            decoder.write_row.eq(output),
            decoder.write_mask.eq(chunk),
            decoder.runs.valid.eq(run_valid),
            decoder.runs.payload.length.eq(run.length),
            decoder.runs.payload.skip.eq(run.skip),
            decoder.runs.payload.plane.eq(run.network),
            decoder.runs.payload.restart.eq(1),
            decoder.runs.payload.last.eq(1),
            decoder.words.payload.bits.eq(chunk),
            decoder.words.payload.last.eq(coded == 1),
        ]
        with m.If(run_done):
            m.d.sync += run_valid.eq(0)
        last_output = Signal(range(XOR_WIDTH + 1))
        inputs, outputs = chunk[:OUTPUTS_AT], chunk[OUTPUTS_AT:]
        with m.Switch(state):
            with m.Case(State.SIZE):
                m.d.comb += take.eq(chunk_valid)
                # Zeros fill up the last word.
                with m.If(take & (chunk != 0)):
                    m.d.comb += bad.eq(
                        (inputs == 0) | (inputs > XOR_WIDTH) | (outputs == 0) | (outputs > XOR_WIDTH) | final
                    )
                    m.d.sync += [
                        networks[network].n_in.eq(inputs),
                        networks[network].n_out.eq(outputs),
                        last_output.eq(outputs - 1),
                        state.eq(State.MASK),
                    ]
            with m.Case(State.MASK):
                m.d.comb += [take.eq(chunk_valid), decoder.write.eq(take)]
                with m.If(take):
                    m.d.sync += output.eq(output + 1)
                    with m.If(output == last_output):
                        m.d.sync += [output.eq(0), network.eq(network + 1), state.eq(State.SIZE)]
                    m.d.comb += bad.eq(final & (output != last_output))
            with m.Case(State.RUN):
                through = Mux(pass_begin, ~run_valid & ~decoder.o.valid, ~run_valid | run_done)
                m.d.comb += [take.eq(chunk_valid & through), bad.eq(take & final)]
                with m.If(take):
                    m.d.sync += [run.eq(chunk), run_valid.eq(1), pass_begin.eq(0), state.eq(State.COUNT)]
            with m.Case(State.COUNT):
                m.d.comb += [
                    take.eq(chunk_valid),
                    bad.eq(take & (final | (chunk == 0) | (run.length == 0) | (run.skip >= size.n_out))),
                ]
                with m.If(take):
                    m.d.sync += [coded.eq(chunk), state.eq(State.CODED)]
            with m.Case(State.CODED):
                m.d.comb += [
                    decoder.words.valid.eq(chunk_valid),
                    take.eq(chunk_valid & decoder.words.ready),
                    # Rows need every chunk.
                    bad.eq(run_done | (take & final & ((coded != 1) | ~run.pass_end))),
                ]
                with m.If(take):
                    m.d.sync += coded.eq(coded - 1)
                    with m.If(coded == 1):
                        m.d.sync += state.eq(Mux(run.pass_end, State.ZEROS, State.RUN))
            with m.Case(State.ZEROS):
                m.d.comb += [take.eq(chunk_valid), bad.eq(take & (chunk != 0))]
        with m.If(take & final):
            m.d.sync += [left.eq(self.weight_words << per_word), pass_begin.eq(1), state.eq(State.RUN)]
        with m.If(self.start):
            m.d.sync += [
                left.eq(self.table_words << per_word),
                network.eq(0),
                output.eq(0),
                state.eq(State.SIZE),
            ]

        # A row of the shadow tile, or a part of one, a cycle.
        row, full, taken = Signal(range(self.config.rows)), Signal(), Signal()
        row_end, tile_end, pass_end = Signal(), Signal(), Signal()
        made = Signal.like(run)  # the run of the row that is offered
        tile_first, pass_first = Signal(), Signal()
        with m.If(~decoder.o.valid | decoder.o.ready):
            m.d.sync += made.eq(run)
        m.d.comb += [
            decoder.o.ready.eq(self.enable & (~full | self.swap)),
            taken.eq(decoder.o.valid & decoder.o.ready),
            row_end.eq(taken & (made.row_end | ~decoder.o.payload.last)),
            pass_end.eq(taken & made.pass_end & decoder.o.payload.last),
            tile_end.eq(row_end & (self.depthwise | (row == self.rows - 1))),
            self.loaded.eq((full & ~self.swap) | tile_end),
        ]
        m.d.sync += full.eq(self.loaded)
        with m.If(row_end):
            m.d.sync += row.eq(Mux(tile_end, 0, row + 1))
        with m.If(tile_end):
            m.d.sync += [tile_first.eq(pass_first), pass_first.eq(pass_end)]
        with m.If(self.start):
            m.d.sync += [row.eq(0), pass_first.eq(1)]
        self._tile(m, decoder.o.payload.bits, made.lane, row, taken)

        m.d.comb += self.waits.eq((state == State.RUN) & pass_begin & ~run_valid & ~decoder.o.valid)
        m.d.sync += self.error.eq(
            ~self.start
            & (
                self.error
                | bad
                | (taken & decoder.o.payload.short)
                | (pass_end & ~tile_end)
                | (~self.running & (full | decoder.o.valid))
                | (self.swap & (self.swap_first ^ tile_first))
            )
        )
        return m

    def _tile(self, m: Module, bits: Value, lane: Value, row: Value, taken: Value) -> None:
        """Shadow and active tile; the first one of `bits` is for `lane`, and later runs of a row for higher ones."""
        lanes = self.config.lanes
        placed, reached = Signal(lanes), Signal(lanes)
        m.d.comb += [placed.eq(bits << lane), reached.eq(((1 << lanes) - 1) << lane)]
        for at, port in enumerate(self.codes):
            shadow = Signal(lanes, name=f"shadow_{at}")
            active = Signal.like(port, name=f"codes_{at}")
            with m.If(taken & (self.depthwise | (row == at))):
                m.d.sync += shadow.eq((shadow & ~reached) | (placed & reached))
            with m.If(self.swap):
                m.d.sync += active.eq(shadow)
            m.d.comb += port.eq(active)
