"""Huffman loader: coded words become a tile of whole codes behind the one that computes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from enum import Enum
from itertools import pairwise

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...kernels.huffman import HuffmanError
from ...sim.coded import ROWS_AT, huffman_bank
from ...sim.descriptor import ADDRESS_BITS
from ...sim.engine import CHUNK_BITS, EngineConfig
from ..huffman import HuffmanBank
from .chunks import chunks_of
from .loader import AMOUNT_BITS, CODE_BITS

__all__ = ["HuffmanLoader"]


class State(Enum):
    """What the next chunk is; `START` and `DONE` take none."""

    ADDRESS = 0
    VALUE = 1
    SYMBOLS = 2
    CODED = 3
    START = 4
    RUN = 5
    ZEROS = 6
    DONE = 7


class HuffmanLoader(wiring.Component):  # type: ignore[misc]
    """Fills the shadow tile with one code of every row a cycle while the active tile computes.

    Words are taken apart into chunks of 32 bits, one a cycle. From `start` on, `table_words` words are the
    decoders' table; then each pass of `weight_words` words is a stream of its own (`sim.coded`): symbols and rows in
    use, the number of coded chunks, these chunks, zeros. The next pass begins when the decoders are through with the
    one before.

    A symbol is one lane's code of all rows. A tile has L of them, in a `depthwise` layer that is not `aligned` one:
    row r's code for lane ``lane_offset + r``. Where the layer is `aligned` the first row of the stream are the
    lanes' amounts. `loaded`, `swap`, and what the settings describe are as in `WeightLoader`. `error` stays up from
    a stream's error to the next `start`: a code word that is none, a stream that ends too early or too late, zeros
    or spare bits that are none, codes of another number of rows than `rows`, a tile that is not the stream's first
    where a pass begins (`swap_first` with `swap`) or is where none does, codes for a tile that nobody needs
    (`running` is low). `waits`: for the next pass, with nothing left to do.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.aligns = config.aligns
        rows, lanes = config.rows, config.lanes
        amounts = data.ArrayLayout(AMOUNT_BITS, lanes)
        super().__init__(
            {
                "words": In(stream.Signature(config.bus_bits)),
                "start": In(1),
                "table_words": In(ADDRESS_BITS),
                "weight_words": In(ADDRESS_BITS),
                "running": In(1),
                "enable": In(1),
                "rows": In(range(rows + 1)),
                **({"aligned": In(1), "amounts": Out(amounts)} if self.aligns else {}),
                "depthwise": In(1),
                "lane_offset": In(range(lanes)),
                "swap": In(1),
                "swap_first": In(1),
                "loaded": Out(1),
                "codes": Out(data.ArrayLayout(CODE_BITS, lanes)).array(rows),
                "waits": Out(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = huffman_bank(self.config)
        m.submodules.bank = bank = HuffmanBank(parameters)
        chunk, chunk_valid, take = chunks_of(m, self.words)

        # Chunks of the table, or of a pass, that have not been taken; those of the coded stream.
        left, coded = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        symbols = Signal(parameters.decoder.count_bits)
        rows = Signal(CHUNK_BITS - ROWS_AT)
        address = Signal(parameters.decoder.address_bits, reset_less=True)
        state = Signal(State)
        wrong, pass_first, column_first = Signal(), Signal(), Signal()
        m.d.comb += [
            bank.table.address.eq(address),
            bank.table.value.eq(chunk),
            bank.start.payload.symbols.eq(symbols),
            bank.start.payload.rows.eq(rows),
            bank.i.payload.chunk.eq(chunk),
            bank.i.payload.last.eq(coded == 1),
        ]
        per_word = ceil_log2(self.config.bus_bits // CHUNK_BITS)
        with m.If(take):
            m.d.sync += left.eq(left - 1)
        with m.Switch(state):
            with m.Case(State.ADDRESS):
                m.d.comb += take.eq(chunk_valid)
                with m.If(take):
                    m.d.sync += [address.eq(chunk), state.eq(State.VALUE)]
                    m.d.comb += wrong.eq((left == 1) | chunk[len(address) :].any())
            with m.Case(State.VALUE):
                m.d.comb += [take.eq(chunk_valid), bank.table.write.eq(take)]
                with m.If(take):
                    m.d.sync += state.eq(State.ADDRESS)
                    m.d.comb += wrong.eq(chunk[len(bank.table.value) :].any())
                    with m.If(left == 1):
                        m.d.sync += [left.eq(self.weight_words << per_word), state.eq(State.SYMBOLS)]
            with m.Case(State.SYMBOLS):
                m.d.comb += take.eq(chunk_valid)
                with m.If(take):
                    m.d.sync += [symbols.eq(chunk), rows.eq(chunk[ROWS_AT:]), state.eq(State.CODED)]
                    m.d.comb += wrong.eq(left == 1)
            with m.Case(State.CODED):
                m.d.comb += take.eq(chunk_valid)
                with m.If(take):
                    m.d.sync += [coded.eq(chunk), state.eq(State.START)]
                    m.d.comb += wrong.eq(left == 1)
            with m.Case(State.START):
                m.d.comb += bank.start.valid.eq(1)
                m.d.sync += [state.eq(State.RUN), pass_first.eq(1)]
            with m.Case(State.RUN):
                m.d.comb += [bank.i.valid.eq(chunk_valid), take.eq(chunk_valid & bank.i.ready)]
                with m.If(take):
                    m.d.sync += coded.eq(coded - 1)
                    with m.If(left == 1):
                        m.d.sync += state.eq(State.DONE)
                        m.d.comb += wrong.eq(coded != 1)
                    with m.Elif(coded == 1):
                        m.d.sync += state.eq(State.ZEROS)
            with m.Case(State.ZEROS):
                m.d.comb += [take.eq(chunk_valid), wrong.eq(take & (chunk != 0))]
                with m.If(take & (left == 1)):
                    m.d.sync += state.eq(State.DONE)
            with m.Case(State.DONE):
                m.d.comb += bank.done.ready.eq(1)
                with m.If(bank.done.valid):
                    m.d.sync += [left.eq(self.weight_words << per_word), state.eq(State.SYMBOLS)]
                    m.d.comb += wrong.eq(~column_first)
        with m.If(self.start):
            m.d.sync += [left.eq(self.table_words << per_word), state.eq(State.ADDRESS)]

        # A lane of the shadow tile a cycle.
        lanes = self.config.lanes
        alone = self.depthwise & ~self.aligned if self.aligns else self.depthwise
        column, last = Signal(range(lanes)), Signal()
        full, taken = Signal(), Signal()
        tile_first = Signal()
        m.d.comb += [
            last.eq(alone | (column == lanes - 1)),
            column_first.eq(column == 0),
            bank.o.ready.eq(self.enable & (~full | self.swap)),
            taken.eq(bank.o.valid & bank.o.ready),
            self.loaded.eq((full & ~self.swap) | (taken & last)),
        ]
        m.d.sync += full.eq(self.loaded)
        with m.If(taken):
            m.d.sync += column.eq(Mux(last, 0, column + 1))
            with m.If(last):
                m.d.sync += [tile_first.eq(pass_first), pass_first.eq(0)]
        with m.If(self.start):
            m.d.sync += column.eq(0)
        self._tile(m, bank.o.payload, column, taken, alone)

        m.d.comb += self.waits.eq(state == State.SYMBOLS)
        surplus = ~self.running & (full | bank.o.valid)
        # In time for the tile that is on its way.
        other_rows = taken & (rows != self.rows + (self.aligned if self.aligns else 0))
        m.d.sync += self.error.eq(
            ~self.start
            & (
                self.error
                | wrong
                | surplus
                | other_rows
                | (bank.error != HuffmanError.NONE)
                | (self.swap & (self.swap_first ^ tile_first))
            )
        )
        return m

    def _tile(self, m: Module, symbols: data.View, column: Value, taken: Value, alone: Value) -> None:
        """Shadow and active tile; `symbols` are a lane's, of the amounts first where there are any."""
        lanes = self.config.lanes
        own = list(symbols)
        if self.aligns:
            own = [Mux(self.aligned, after, before) for before, after in pairwise(own)]
            amounts, active = Signal.like(self.amounts, name="shadow_amounts"), Signal.like(self.amounts, name="active")
            for lane in range(lanes):
                with m.If(taken & (alone | (column == lane))):
                    m.d.sync += amounts[lane].eq(Mux(self.aligned, symbols[0], 0))
            with m.If(self.swap):
                m.d.sync += active.eq(amounts)
            m.d.comb += self.amounts.eq(active)
        for row, port in enumerate(self.codes):
            shadow = Signal.like(port, name=f"shadow_{row}")
            active = Signal.like(port, name=f"codes_{row}")
            diagonal = self.lane_offset + row
            for lane in range(lanes):
                with m.If(taken & (alone | (column == lane))):
                    m.d.sync += shadow[lane].eq(Mux(alone & (diagonal != lane), 0, own[row]))
            with m.If(self.swap):
                m.d.sync += active.eq(shadow)
            m.d.comb += port.eq(active)
