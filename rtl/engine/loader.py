"""Weight loader: bus words become a tile of whole codes behind the one that computes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...sim.engine import EngineConfig

__all__ = ["AMOUNT_BITS", "CODE_BITS", "CONTAINER_BITS", "WeightLoader", "code_bits", "diagonals"]

CODE_BITS = 8
"""Bits of a code's register, but where a code is a sign."""
AMOUNT_BITS = 8
"""Bits of a lane's alignment amount in the stream."""
CONTAINER_BITS = (1, 2, 4, 8)
"""What a code stands in: the next power of two of its bits; `container` is the index of one of these."""


def code_bits(config: EngineConfig) -> int:
    """Bits of a code's register in the tile."""
    return 1 if config.array == "sign" else CODE_BITS


def diagonals(config: EngineConfig) -> int:
    """How many row groups of a depthwise layer can share a word."""
    return config.lanes // min(config.rows, config.lanes)


class WeightLoader(wiring.Component):  # type: ignore[misc]
    """Fills the shadow tile with one bus word a cycle while the active tile computes.

    A tile starts on a fresh word: an amounts row (8 bits a lane) where the layer is `aligned`, then
    the codes of the used `rows`, row-major, in containers of ``1 << container`` bits. In a `depthwise` layer
    a row is one code, for lane ``lane_offset + row``. A digit array alone aligns, and its codes are sign-extended.
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
        self.aligns = config.aligns
        self.code_bits = code_bits(config)
        self.containers = CONTAINER_BITS[: self.code_bits.bit_length()]
        rows, lanes = config.rows, config.lanes
        amounts = data.ArrayLayout(AMOUNT_BITS, lanes)
        super().__init__(
            {
                "words": In(stream.Signature(config.bus_bits)),
                "enable": In(1),
                **({} if self.code_bits == 1 else {"container": In(range(len(CONTAINER_BITS)))}),
                **({"aligned": In(1), "amounts": Out(amounts)} if self.aligns else {}),
                "depthwise": In(1),
                "rows": In(range(rows + 1)),
                "lane_offset": In(range(lanes)),
                "swap": In(1),
                "loaded": Out(1),
                "codes": Out(data.ArrayLayout(self.code_bits, lanes)).array(rows),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, lanes = self.config.bus_bits, self.config.lanes
        word = self.words.payload

        most_words = max(lanes * AMOUNT_BITS, self.config.rows * lanes * self.code_bits) // bus
        index = Signal(range(max(2, most_words)))
        begun = Signal()  # the tile has its first word
        past_amounts = Signal()
        full = Signal()
        in_codes = Signal()
        last = Signal()
        take = Signal()
        m.d.comb += [
            in_codes.eq(~self.aligned | past_amounts if self.aligns else 1),
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
        if self.aligns:
            self._amounts(m, word, index, take & ~in_codes, take & ~begun)

        codes = self._shadow(m, word, index, take & in_codes, take & ~begun)
        for row, port in enumerate(self.codes):
            active = Signal.like(port, name=f"codes_{row}")
            m.d.comb += port.eq(active)
            with m.If(self.swap):
                m.d.sync += active.eq(codes[row * lanes * self.code_bits :][: lanes * self.code_bits])
        return m

    def _amounts(self, m: Module, word: Value, index: Value, load: Value, clear: Value) -> None:
        """The shadow tile's amounts and the active one's; `clear` comes with a tile's first word."""
        bus = self.config.bus_bits
        amounts, active = Signal.like(self.amounts), Signal.like(self.amounts, name="active_amounts")
        with m.If(clear):
            m.d.sync += amounts.as_value().eq(0)
        for at in range(-(-len(amounts.as_value()) // bus)):
            with m.If(load & (index == at)):
                m.d.sync += amounts.as_value()[at * bus : (at + 1) * bus].eq(word)
        m.d.comb += self.amounts.eq(active)
        with m.If(self.swap):
            m.d.sync += active.eq(amounts)

    def _code_words(self, m: Module) -> Value:
        """Words of the tile's codes; all sizes but the rows are powers of two, so shifts divide."""
        bus, lanes = self.config.bus_bits, self.config.lanes
        words = Signal(range(max(2, self.config.rows * lanes * self.code_bits // bus) + 1))
        with m.Switch(Cat(self.depthwise, self._container())):
            for depthwise in (0, 1):
                for container, bits in enumerate(self.containers):
                    with m.Case(depthwise | container << 1):
                        row_bits = bits if depthwise else bits * lanes
                        tile_bits = self.rows << ceil_log2(row_bits)
                        m.d.comb += words.eq((tile_bits + (bus - 1)) >> ceil_log2(bus))
        return words

    def _shadow(self, m: Module, word: Value, index: Value, load: Value, clear: Value) -> Value:
        """The codes of the shadow tile, row-major; `clear` comes with a tile's first word.

        They lie in blocks of as many as a word has of the widest codes, so that a block comes in one word,
        whatever the container; in a depthwise layer too, which has the codes of its rows in the word.
        """
        rows, lanes, bus = self.config.rows, self.config.lanes, self.config.bus_bits
        size = min(bus // self.code_bits, rows * lanes)
        used = Signal(rows)
        m.d.comb += used.eq(Cat(row < self.rows for row in range(rows)))
        blocks = []
        for begin in range(0, rows * lanes, size):
            block = Signal(size * self.code_bits, name=f"shadow_{begin // size}")
            here = Signal(name=f"here_{begin // size}")
            codes = range(begin, begin + size)
            with m.Switch(Cat(self.depthwise, self._container())):
                for container, bits in enumerate(self.containers):
                    in_word = bus // bits
                    with m.Case(container << 1):
                        m.d.comb += here.eq(index == begin // in_word)
                    with m.Case(1 | container << 1):
                        m.d.comb += here.eq(index == begin // lanes // in_word)
            with m.If(load & here):
                m.d.sync += block.eq(Cat(self._code(word, used, code) for code in codes))
            with m.Elif(clear):
                m.d.sync += block.eq(0)
            blocks.append(block)
        return Cat(blocks)

    def _code(self, word: Value, used: Value, code: int) -> Value:
        """One code of the tile out of the word that has it, sign-extended where codes are numbers."""
        lanes, bus = self.config.lanes, self.config.bus_bits
        diagonal = min(self.config.rows, lanes)
        row, lane = divmod(code, lanes)

        def taken(place: int) -> Value:
            value: Value = Const(0, self.code_bits)
            for container, bits in enumerate(self.containers):
                low = place * bits % bus
                held = word[low : low + bits].as_signed() if self.aligns else word[low : low + bits]
                value = Mux(self._container() == container, held, value)[: self.code_bits]
            return value

        offset = lane - row
        alone = taken(row) if row < diagonal and offset >= 0 and offset % diagonal == 0 else Const(0, self.code_bits)
        return Mux(used[row], Mux(self.depthwise, Mux(self.lane_offset == max(0, offset), alone, 0), taken(code)), 0)

    def _container(self) -> Value:
        """What codes stand in; signs always stand in one bit."""
        return Const(0, 1) if self.code_bits == 1 else self.container
