"""Writer: a slot's codes become words of the activation memory."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ....kernels.fusion import SLICE_BITS
from ....kernels.mac import DIGIT_BITS
from ....sim.descriptor import CODE_BITS, PLANES, half_address_bits
from ....sim.engine import EngineConfig
from ...mac import settled
from ..registers import address_bits, descriptor_layout
from .slots import (
    MEMORY_CHANNEL_BITS,
    STORED_BITS,
    SlotWalk,
    WordWalk,
    is_narrow,
    memory_channel,
    plane_address,
    shift_digits,
    span_channels,
    word_address,
)

__all__ = ["Writer"]


class Writer(wiring.Component):  # type: ignore[misc]
    """Collects a slot's codes and writes them: W words, `out` before `second`, plane by plane, half by half.

    Codes come from the post lanes, Q at a time with the number of their chunk in the row group, in rising order,
    `beats` chunks a slot; or from the pool, all at once. Slots follow in the order of `SlotWalk`. The first write
    is `latency` cycles after the slot's last codes, the others follow one a cycle; so slots may end W cycles
    after each other. A write changes the digits that `write_mask` enables alone: those of the channels that the slot
    has. Of a narrow tensor they are the low two bits of each code, and go to the lower or upper half of the word's
    digits. `done` is up in the cycle of the layer's last write.
    """

    latency = 2

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        post_lanes = config.post_lanes
        codes = data.ArrayLayout(signed(CODE_BITS), post_lanes)
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "codes_valid": In(1),
                "codes_chunk": In(range(max(1, config.rows // post_lanes))),
                "out": In(codes),
                "second": In(codes),
                "pool_valid": In(1),
                "pool": In(data.ArrayLayout(signed(CODE_BITS), span_channels(config))),
                "write_mask": Out(config.word_enables),
                "write_address": Out(address_bits(config)),
                "write_data": Out(data.ArrayLayout(DIGIT_BITS, config.word_digits)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        size, word_digits = span_channels(config), config.word_digits
        m.submodules.slots = slots = SlotWalk(config)
        m.submodules.words = words = WordWalk()
        complete, writing, slot_end = Signal(), Signal(), Signal()
        codes = self._collect(m, complete)
        m.d.sync += writing.eq(complete | (writing & ~words.slot_last))
        m.d.comb += [
            words.planes[0].eq(layer.out_planes),
            words.planes[1].eq(layer.second_planes),
            words.straddles.eq(Cat(layer.out_straddles, layer.second_straddles)),
            words.step.eq(writing),
            slot_end.eq(writing & words.slot_last),
            slots.layer.eq(layer),
            slots.start.eq(self.start),
            slots.next.eq(slot_end),
        ]

        # Where the word is.
        places = []
        for prefix in ("out", "second"):
            place = Signal(half_address_bits(config), name=f"{prefix}_place")
            with m.If(slot_end & slots.span_last):
                m.d.sync += place.eq(Mux(slots.pixel_last, 0, place + layer[f"{prefix}_pixel_step"]))
            with m.If(self.start):
                m.d.sync += place.eq(0)
            places.append(settled(m, place + plane_address(layer, prefix, words.plane)))
        channels = [memory_channel(layer, prefix, slots.channel) for prefix in ("out", "second")]
        channel = Signal(signed(MEMORY_CHANNEL_BITS))
        m.d.comb += channel.eq(Mux(words.tensor, channels[1], channels[0]))
        address = Mux(words.tensor, places[1], places[0]) + ((channel >> ceil_log2(word_digits)) + words.half)
        narrow = is_narrow(layer, words.tensor, ("out", "second"))

        # What it holds: the slot's lanes, turned to where their channels are, over two words.
        turn = channel[: ceil_log2(word_digits)]
        digits = Array(
            Cat(codes[tensor][lane][DIGIT_BITS * plane : DIGIT_BITS * (plane + 1)] for lane in range(size))
            for tensor in range(2)
            for plane in range(PLANES)
        )[Cat(words.plane, words.tensor)]
        used = Cat(slots.channels > lane for lane in range(size))
        digits_moved = settled(m, shift_digits(settled(m, digits), turn)[: 2 * word_digits * DIGIT_BITS])
        used_moved = settled(m, (used << turn)[: 2 * word_digits])
        mask = Mux(words.half, used_moved[word_digits:], used_moved[:word_digits])
        word = digits_moved[: config.word_bits] | digits_moved[config.word_bits :]
        if narrow is not None:
            address = settled(m, address)
            mask, word = _half_word(m, narrow, address[0], settled(m, mask), settled(m, word))
        m.d.sync += [
            self.write_mask.eq(Mux(writing, mask, 0)),
            self.done.eq(slot_end & slots.layer_last),
        ]
        with m.If(writing):
            m.d.sync += [
                self.write_address.eq(word_address(address, narrow)),
                self.write_data.as_value().eq(word),
            ]
        return m

    def _collect(self, m: Module, complete: Signal) -> tuple[data.View, data.View]:
        """The codes of `out` and `second` that are to be written, from the cycle after `complete` on."""
        size, post_lanes = span_channels(self.config), self.config.post_lanes
        chunks = size // post_lanes
        chunk = Signal(range(max(2, chunks)))
        m.d.comb += [
            chunk.eq(self.codes_chunk[: ceil_log2(chunks)]),
            complete.eq(self.pool_valid | (self.codes_valid & (chunk == self.layer.beats - 1))),
        ]
        word = data.ArrayLayout(STORED_BITS, size)
        part_bits = post_lanes * STORED_BITS
        held = []
        for name, codes in (("out", self.out), ("second", self.second)):
            part = Cat(codes[lane][:STORED_BITS] for lane in range(post_lanes))
            parts = []
            for at in range(chunks - 1):
                # A slot's earlier chunks wait for its last one.
                waiting = Signal(part_bits, name=f"{name}_waiting_{at}", reset_less=True)
                with m.If(self.codes_valid & (chunk == at)):
                    m.d.sync += waiting.eq(part)
                parts.append(Mux(chunk == at, part, waiting))
            register = Signal(word, name=f"{name}_codes", reset_less=True)
            with m.If(complete):
                m.d.sync += register.eq(Cat(*parts, part))
            held.append(register)
        with m.If(self.pool_valid):
            m.d.sync += held[0].eq(Cat(self.pool[lane][:STORED_BITS] for lane in range(size)))
        return held[0], held[1]


def _half_word(m: Module, narrow: Value, upper: Value, used: Value, word: Value) -> tuple[Value, Value]:
    """Enables of both halves of each digit, and the digits: of a narrow tensor the low bits, in one of the halves."""
    lower_half, upper_half = settled(m, ~(narrow & upper)), settled(m, ~(narrow & ~upper))
    mask = Cat(Cat(bit & lower_half, bit & upper_half) for bit in used)
    digits = [word[at : at + DIGIT_BITS] for at in range(0, len(word), DIGIT_BITS)]
    return mask, Cat(Cat(digit[:SLICE_BITS], Mux(narrow, digit[:SLICE_BITS], digit[SLICE_BITS:])) for digit in digits)
