"""The activation memory: banks of words of W digits, two readers and one writer."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...kernels.mac import DIGIT_BITS
from ...sim.descriptor import act_address_bits, act_words
from ...sim.engine import EngineConfig

__all__ = ["ActMemory"]


class ActMemory(wiring.Component):  # type: ignore[misc]
    """`act_banks` banks of equal size with one read and one write port each; bank = address // `bank_words`.

    The array reads by the `array_*` ports, the post lanes and transfers by `post_*`: a word a cycle each,
    latency 1, for one cycle. Where both want the same bank in a cycle the array has it, what the other gets
    means nothing, and `conflict` is up in that cycle. `write_mask` says what of a word a write changes, a bit for each
    digit, in a fusion engine for each half of one (`enable_bits`); it is there for reads from the next cycle on, one
    in its own cycle finds the old word.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.bank_words = act_words(config) // config.act_banks
        address = act_address_bits(config)
        word = data.ArrayLayout(DIGIT_BITS, config.word_digits)
        super().__init__(
            {
                "array_read": In(1),
                "array_address": In(address),
                "array_data": Out(word),
                "post_read": In(1),
                "post_address": In(address),
                "post_data": Out(word),
                "conflict": Out(1),
                "write_mask": In(config.word_enables),
                "write_address": In(address),
                "write_data": In(word),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks = self.config.act_banks
        word = data.ArrayLayout(self.config.enable_bits, self.config.word_enables)
        array_hit, array_place = self._decode(m, "array", self.array_address)
        post_hit, post_place = self._decode(m, "post", self.post_address)
        write_hit, write_place = self._decode(m, "write", self.write_address)
        array_bank, post_bank = Signal(banks), Signal(banks)
        words = []
        for bank in range(banks):
            m.submodules[f"bank_{bank}"] = cells = memory.Memory(shape=word, depth=self.bank_words, init=[])
            read, write = cells.read_port(), cells.write_port(granularity=1)
            by_array = Signal(name=f"by_array_{bank}")
            m.d.comb += [
                by_array.eq(self.array_read & array_hit[bank]),
                read.en.eq(by_array | (self.post_read & post_hit[bank])),
                read.addr.eq(Mux(by_array, array_place, post_place)),
                write.en.eq(Mux(write_hit[bank], self.write_mask, 0)),
                write.addr.eq(write_place),
                write.data.as_value().eq(self.write_data),
            ]
            words.append(Value.cast(read.data))
        m.d.comb += self.conflict.eq(self.array_read & self.post_read & (array_hit & post_hit).any())
        m.d.sync += [array_bank.eq(array_hit), post_bank.eq(post_hit)]
        for out, bank_of in ((self.array_data, array_bank), (self.post_data, post_bank)):
            chosen = [Mux(bank_of[bank], word, 0) for bank, word in enumerate(words)]
            value = chosen[0]
            for word in chosen[1:]:
                value = value | word
            m.d.comb += out.eq(value)
        return m

    def _decode(self, m: Module, name: str, address: Value) -> tuple[Value, Value]:
        """Which bank holds a word, one bit each, and where in the bank it is."""
        banks, size = self.config.act_banks, self.bank_words
        hit = Signal(banks, name=f"{name}_hit")
        place = Signal(range(size), name=f"{name}_place")
        if size & (size - 1) == 0:
            m.d.comb += [hit.eq(Cat(address >> ceil_log2(size) == bank for bank in range(banks))), place.eq(address)]
            return hit, place
        from_bank = Cat(address >= bank * size for bank in range(banks + 1))
        m.d.comb += [
            hit.eq(from_bank[:banks] & ~from_bank[1:]),
            place.eq(address - Array([bank * size for bank in range(banks)])[self._index(m, name, hit)]),
        ]
        return hit, place

    def _index(self, m: Module, name: str, hit: Value) -> Value:
        """The number of the one bit that is up."""
        index = Signal(range(self.config.act_banks), name=f"{name}_bank")
        for bank in range(self.config.act_banks):
            with m.If(hit[bank]):
                m.d.comb += index.eq(bank)
        return index
