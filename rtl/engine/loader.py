"""Weight loader: bus words become a tile of whole codes behind the one that computes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...sim.engine import EngineConfig

__all__ = ["AMOUNT_BITS", "CODE_BITS", "CONTAINER_BITS", "WeightLoader", "diagonals"]

CODE_BITS = 8
"""Bits of a code's register."""
AMOUNT_BITS = 8
"""Bits of a lane's alignment amount in the stream."""
CONTAINER_BITS = (1, 2, 4, 8)
"""What a code stands in: the next power of two of its bits; `container` is the index of one of these."""


def diagonals(config: EngineConfig) -> int:
    """How many row groups of a depthwise layer can share a word."""
    return config.lanes // min(config.rows, config.lanes)


class WeightLoader(wiring.Component):  # type: ignore[misc]
    """Fills the shadow tile with one bus word a cycle while the active tile computes.

    A tile starts on a fresh word: an amounts row (8 bits a lane) where the layer is `aligned`, then
    the codes of the used `rows`, row-major, in containers of ``1 << container`` bits, sign-extended
    as they are loaded. In a `depthwise` layer a row is one code, for lane ``lane_offset + row``.
    Whatever the words do not reach is zero. With words of B bits a tile takes
    ``[ceil(8 * L / B)] + ceil(rows * L * c / B)`` cycles (depthwise: ``ceil(rows * c / B)``).

    `loaded` says that the tile is complete after this cycle; `swap`, in a later cycle, makes it the
    active one from the next cycle on, and the next tile's first word is accepted in the cycle of the
    swap itself: with an unbroken stream tiles follow each other without a lost cycle. The settings
    describe the tile in the shadow registers; while `swap` is up, already the next one. No word is
    accepted while `enable` is low.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        rows, lanes = config.rows, config.lanes
        super().__init__(
            {
                "words": In(stream.Signature(config.bus_bits)),
                "enable": In(1),
                "container": In(range(len(CONTAINER_BITS))),
                "aligned": In(1),
                "depthwise": In(1),
                "rows": In(range(rows + 1)),
                "lane_offset": In(range(lanes)),
                "swap": In(1),
                "loaded": Out(1),
                "codes": Out(data.ArrayLayout(data.ArrayLayout(CODE_BITS, lanes), rows)),
                "amounts": Out(data.ArrayLayout(AMOUNT_BITS, lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, lanes = self.config.bus_bits, self.config.lanes
        word = self.words.payload
        codes = Signal.like(self.codes)
        amounts = Signal.like(self.amounts)
        active_codes = Signal.like(self.codes)
        active_amounts = Signal.like(self.amounts)

        most_words = max(lanes * AMOUNT_BITS, self.config.rows * lanes * CODE_BITS) // bus
        index = Signal(range(max(2, most_words)))
        begun = Signal()  # the tile has its first word
        past_amounts = Signal()
        full = Signal()
        in_codes = Signal()
        last = Signal()
        take = Signal()
        m.d.comb += [
            in_codes.eq(~self.aligned | past_amounts),
            last.eq(index == Mux(in_codes, self._code_words(m) - 1, -(-lanes * AMOUNT_BITS // bus) - 1)),
            self.words.ready.eq(self.enable & (~full | self.swap)),
            take.eq(self.words.valid & self.words.ready),
            self.loaded.eq((full & ~self.swap) | (take & in_codes & last)),
        ]
        m.d.sync += full.eq(self.loaded)
        with m.If(take):
            m.d.sync += [
                begun.eq(~(in_codes & last)),
                past_amounts.eq((past_amounts | (~in_codes & last)) & ~(in_codes & last)),
                index.eq(Mux(last, 0, index + 1)),
            ]
            with m.If(~begun):
                m.d.sync += [codes.as_value().eq(0), amounts.as_value().eq(0)]
            with m.If(~in_codes):
                for at in range(-(-lanes * AMOUNT_BITS // bus)):
                    with m.If(index == at):
                        m.d.sync += amounts.as_value()[at * bus : (at + 1) * bus].eq(word)
            with m.Else():
                self._load_codes(m, word, index, codes)

        with m.If(self.swap):
            m.d.sync += [active_codes.eq(codes), active_amounts.eq(amounts)]
        m.d.comb += [self.codes.eq(active_codes), self.amounts.eq(active_amounts)]
        return m

    def _code_words(self, m: Module) -> Value:
        """Words of the tile's codes; all sizes but the rows are powers of two, so shifts divide."""
        bus, lanes = self.config.bus_bits, self.config.lanes
        words = Signal(range(max(2, self.config.rows * lanes * CODE_BITS // bus) + 1))
        with m.Switch(Cat(self.container, self.depthwise)):
            for depthwise in (0, 1):
                for container, bits in enumerate(CONTAINER_BITS):
                    with m.Case(container | depthwise << len(self.container)):
                        row_bits = bits if depthwise else bits * lanes
                        tile_bits = self.rows << ceil_log2(row_bits)
                        m.d.comb += words.eq((tile_bits + (bus - 1)) >> ceil_log2(bus))
        return words

    def _load_codes(self, m: Module, word: Value, index: Value, codes: data.View) -> None:
        """Each container of the word goes to its code: where, the container's width and the mode say."""
        rows, lanes, bus = self.config.rows, self.config.lanes, self.config.bus_bits
        diagonal = min(rows, lanes)
        used = Signal(rows)
        m.d.comb += used.eq(Cat(row < self.rows for row in range(rows)))
        with m.Switch(self.container):
            for container, bits in enumerate(CONTAINER_BITS):
                in_word = bus // bits
                with m.Case(container):
                    with m.If(~self.depthwise):
                        for at in range(-(-rows * lanes // in_word)):
                            with m.If(index == at):
                                for code in range(at * in_word, min((at + 1) * in_word, rows * lanes)):
                                    row, lane = divmod(code, lanes)
                                    low = code % in_word * bits
                                    with m.If(used[row]):
                                        m.d.sync += codes[row][lane].eq(word[low : low + bits].as_signed())
                    with m.Else():
                        for row in range(diagonal):
                            low = row % in_word * bits
                            value = word[low : low + bits].as_signed()
                            for offset in range(0, lanes, diagonal):
                                with m.If((index == row // in_word) & (self.lane_offset == offset) & used[row]):
                                    m.d.sync += codes[row][offset + row].eq(value)
