"""Operand fetch: the words of each slot's operands, turned and joined into codes that meet the accumulators' lanes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ....kernels.fusion import SLICE_BITS
from ....kernels.mac import DIGIT_BITS
from ....sim.descriptor import CODE_BITS, PLANES, SIZE_BITS, half_address_bits
from ....sim.engine import EngineConfig
from ...mac import settled
from ..address import POSITION_BITS
from ..registers import address_bits, descriptor_layout
from .slots import (
    MEMORY_CHANNEL_BITS,
    SlotWalk,
    WordWalk,
    is_narrow,
    memory_channel,
    plane_address,
    shift_digits,
    span_channels,
    word_address,
)

__all__ = ["Fetch"]


class Fetch(wiring.Component):  # type: ignore[misc]
    """Reads a slot's operands and gives the codes of its G = min(R, L) lanes.

    `start` begins a layer, `slot` a slot, from the next cycle on and in the order of `SlotWalk`. The first operand
    is read under every tap of its window, then the other operand, each plane by plane and half by half: N reads,
    one a cycle, the first one in the slot's own cycle s. `data` is the word read in the cycle before, of a narrow
    operand's half-words the one that was asked for is taken.
    A slot may begin N cycles after the one before it, and in the next cycle where N is 0.

    - `tap_valid` two cycles after a tap's last read: `tap` are the first operand's codes under it, `tap_inside` says
      whether it is in the image; what is read outside is never used.
    - `ready` in cycle s + N + 1: `first` (under the last tap) and `other` are the slot's codes from the next
      cycle on, until the one after the next `ready`.

    A code whose memory channel is outside an operand's [first, end) is the operand's zero point. In lanes past
    the row group's channels stands anything.
    """

    ready_delay = 1
    """`ready` comes so many cycles after slot start and reads."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        codes = data.ArrayLayout(signed(CODE_BITS), span_channels(config))
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "slot": In(1),
                "data": In(data.ArrayLayout(DIGIT_BITS, config.word_digits)),
                "read": Out(1),
                "address": Out(address_bits(config)),
                "tap_valid": Out(1),
                "tap_inside": Out(1),
                "tap": Out(codes),
                "ready": Out(1),
                "first": Out(codes),
                "other": Out(codes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer
        m.submodules.slots = slots = SlotWalk(self.config)
        m.submodules.words = words = WordWalk()
        none, running, tap_last, in_image = Signal(), Signal(), Signal(), Signal()
        channel = Signal(signed(MEMORY_CHANNEL_BITS))
        place = Signal(half_address_bits(self.config))
        m.d.comb += [
            none.eq((layer.first_planes == 0) & (layer.other_planes == 0)),
            self.read.eq((self.slot & ~none) | running),
            words.planes[0].eq(layer.first_planes),
            words.planes[1].eq(layer.other_planes),
            words.straddles.eq(Cat(layer.first_straddles, layer.other_straddles)),
            words.again.eq(~tap_last & ~words.tensor),
            words.step.eq(self.read),
            slots.layer.eq(layer),
            slots.start.eq(self.start),
            slots.next.eq(self.read & words.slot_last),
        ]
        m.d.sync += running.eq(self.read & ~words.slot_last)
        self._walk_places(m, slots, words, tap_last, in_image, place)

        # Cycle 0: the address.
        tensor_channel = [memory_channel(layer, prefix, slots.channel) for prefix in ("first", "other")]
        planes = [settled(m, plane_address(layer, prefix, words.plane)) for prefix in ("first", "other")]
        address = (place + Mux(words.tensor, planes[1], planes[0])) + (
            (channel >> ceil_log2(self.config.word_digits)) + words.half
        )
        narrow, upper = is_narrow(layer, words.tensor, ("first", "other")), Signal(reset_less=True)
        if narrow is not None:
            address = settled(m, address)
            m.d.sync += upper.eq(address[0])
        m.d.comb += [
            channel.eq(Mux(words.tensor, tensor_channel[1], tensor_channel[0])),
            self.address.eq(word_address(address, narrow)),
        ]

        # Cycle 1: the word; cycle 2: its digits in the lanes.
        tag = data.StructLayout(
            {"valid": 1, "tensor": 1, "plane": range(PLANES), "half": 1, "inside": 1, "tensor_last": 1, "slot_last": 1}
        )
        word, done = Signal(tag), Signal(tag)
        word_channel = Signal.like(channel, reset_less=True)
        ready = Signal()
        m.d.sync += [
            word.valid.eq(self.read),
            word.tensor.eq(words.tensor),
            word.plane.eq(words.plane),
            word.half.eq(words.half),
            word.inside.eq(in_image),
            word.tensor_last.eq(words.tensor_last),
            word.slot_last.eq(words.slot_last),
            word_channel.eq(channel),
            done.eq(word),
            ready.eq((word.valid & word.slot_last) | (self.slot & none)),
        ]
        self._codes(m, word, word_channel, upper, done)
        m.d.comb += [
            self.tap_valid.eq(done.valid & done.tensor_last & ~done.tensor),
            self.tap_inside.eq(done.inside),
            self.ready.eq(ready),
        ]

        # The first operand waits for the other one.
        waiting = Signal.like(self.first, reset_less=True)
        with m.If(self.tap_valid):
            m.d.sync += waiting.eq(self.tap)
        with m.If(ready):
            m.d.sync += [self.first.eq(Mux(done.tensor, waiting, self.tap)), self.other.eq(self.tap)]
        return m

    def _walk_places(
        self, m: Module, slots: SlotWalk, words: WordWalk, tap_last: Signal, in_image: Signal, place: Signal
    ) -> None:
        """Where the present word's pixel is, counted from its plane's first word: as `AddressGenerator` walks."""
        layer = self.layer
        bits = half_address_bits(self.config)
        position = data.StructLayout({"y": POSITION_BITS, "x": POSITION_BITS, "address": bits})
        pixel, tap, first_tap = Signal(position), Signal(position), Signal(position)
        other = Signal(bits)
        column, kernel_y, kernel_x = Signal(SIZE_BITS), Signal(SIZE_BITS), Signal(SIZE_BITS)
        row_last, kernel_row_last = Signal(), Signal()
        y, x = Signal(POSITION_BITS), Signal(POSITION_BITS)
        m.d.comb += [
            row_last.eq(column == layer.out_width - 1),
            kernel_row_last.eq(kernel_x == layer.kernel_x - 1),
            tap_last.eq(kernel_row_last & (kernel_y == layer.kernel_y - 1)),
            first_tap.y.eq(-layer.pad_top),
            first_tap.x.eq(-layer.pad_left),
            first_tap.address.eq(layer.origin),
            y.eq(pixel.y + tap.y),
            x.eq(pixel.x + tap.x),
            in_image.eq((y < layer.in_height) & (x < layer.in_width)),
            place.eq(Mux(words.tensor, other, pixel.address + tap.address)),
        ]
        with m.If(slots.next & slots.span_last):
            with m.If(row_last):
                m.d.sync += [
                    column.eq(0),
                    pixel.y.eq(pixel.y + layer.stride_y),
                    pixel.x.eq(0),
                    pixel.address.eq(pixel.address + layer.row_step),
                    other.eq(other + layer.other_row_step),
                ]
            with m.Else():
                m.d.sync += [
                    column.eq(column + 1),
                    pixel.x.eq(pixel.x + layer.stride_x),
                    pixel.address.eq(pixel.address + layer.pixel_step),
                    other.eq(other + layer.other_pixel_step),
                ]
            with m.If(slots.pixel_last):
                m.d.sync += [column.eq(0), pixel.as_value().eq(0), other.eq(0)]
        with m.If(self.read & words.tensor_last & ~words.tensor):
            with m.If(tap_last):
                m.d.sync += [kernel_y.eq(0), kernel_x.eq(0), tap.eq(first_tap)]
            with m.Elif(kernel_row_last):
                m.d.sync += [
                    kernel_y.eq(kernel_y + 1),
                    kernel_x.eq(0),
                    tap.y.eq(tap.y + 1),
                    tap.x.eq(first_tap.x),
                    tap.address.eq(tap.address + layer.kernel_y_step),
                ]
            with m.Else():
                m.d.sync += [
                    kernel_x.eq(kernel_x + 1),
                    tap.x.eq(tap.x + 1),
                    tap.address.eq(tap.address + layer.kernel_x_step),
                ]
        with m.If(self.start):
            m.d.sync += [column.eq(0), pixel.as_value().eq(0), other.eq(0), tap.eq(first_tap)]

    def _codes(self, m: Module, word: data.View, channel: Value, upper: Value, done: data.View) -> None:
        """Turn a word until its channels meet the lanes, put its digits in their plane, and read the planes' codes."""
        layer, word_digits = self.layer, self.config.word_digits
        size = span_channels(self.config)
        turn = channel[: ceil_log2(word_digits)]
        narrow = is_narrow(layer, word.tensor, ("first", "other"))
        read = self.data.as_value()
        if narrow is not None:
            read = settled(m, Mux(narrow, self._half_word(upper, self._has_sign(m, word)), read))
        turned = settled(m, shift_digits(Cat(read, read), turn, right=True)[: size * DIGIT_BITS])
        in_second = Cat(turn >= word_digits - lane for lane in range(size))
        taken = settled(m, ~(in_second ^ word.half.replicate(size)))
        taken_bits = settled(m, Cat(bit.replicate(DIGIT_BITS) for bit in taken))

        # The planes above a digit get its sign: the top one, which comes last, leaves the right one.
        has_sign = self._has_sign(m, word)
        above = settled(
            m, Cat((turned[DIGIT_BITS * (lane + 1) - 1] & has_sign).replicate(DIGIT_BITS) for lane in range(size))
        )
        digits = [Signal(size * DIGIT_BITS, name=f"digits_{plane}", reset_less=True) for plane in range(PLANES)]
        for plane, register in enumerate(digits):
            with m.If(word.valid & (word.plane <= plane)):
                value = Mux(word.plane == plane, turned, above)
                m.d.sync += register.eq((register & ~taken_bits) | (value & taken_bits))

        # Lanes of channels that the operand has.
        bounds = []
        for end in ("first", "end"):
            bound = Mux(word.tensor, layer[f"other_{end}"], layer[f"first_{end}"]).as_signed()
            distance = settled(m, bound - channel)
            bounds.append(settled(m, Mux(distance < 0, 0, Mux(distance > size, size, distance))[: size.bit_length()]))
        present = Signal(size, reset_less=True)
        m.d.sync += present.eq(Cat((bounds[0] <= lane) & (bounds[1] > lane) for lane in range(size)))

        zero = settled(m, Mux(done.tensor, layer.other_zero, layer.first_zero))
        has_sign = self._has_sign(m, done)
        for lane in range(size):
            code = Cat(register[DIGIT_BITS * lane : DIGIT_BITS * (lane + 1)] for register in digits)
            m.d.comb += self.tap[lane].eq(Mux(present[lane], Cat(code, code[-1] & has_sign), zero))

    def _has_sign(self, m: Module, word: data.View) -> Value:
        return settled(m, Mux(word.tensor, self.layer.other_signed, self.layer.first_signed))

    def _half_word(self, upper: Value, has_sign: Value) -> Value:
        """The codes of 2 bits in one half of the word's digits, as digits."""
        codes = [Mux(upper, digit[SLICE_BITS:], digit[:SLICE_BITS]) for digit in self.data]
        return Cat(Cat(code, (code[-1] & has_sign).replicate(DIGIT_BITS - SLICE_BITS)) for code in codes)
