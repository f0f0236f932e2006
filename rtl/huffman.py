"""Canonical Huffman decoders: one of one symbol a cycle, and a bank of them in lock-step on one stream."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from typing import NamedTuple

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.huffman import HuffmanError
from ..kernels.huffman_bank import QUEUE
from .mac import settled

__all__ = ["HuffmanBank", "HuffmanDecoder"]

ERROR_BITS = max(HuffmanError).bit_length()


def _limits(decoder: kernels.HuffmanDecoder) -> data.StructLayout:
    """The limits of all lengths: that of length l has l + 1 bits."""
    return data.StructLayout({f"length_{length}": length + 1 for length in range(1, decoder.max_length + 1)})


def _offsets(decoder: kernels.HuffmanDecoder) -> data.ArrayLayout:
    return data.ArrayLayout(decoder.index_bits, decoder.max_length)


def _table_port(decoder: kernels.HuffmanDecoder) -> wiring.Signature:
    """The write port of the tables: see `kernels.HuffmanDecoder.table_words`."""
    return wiring.Signature({"write": Out(1), "address": Out(decoder.address_bits), "value": Out(decoder.value_bits)})


def _chunk(decoder: kernels.HuffmanDecoder) -> data.StructLayout:
    """A chunk of the stream, and whether it is the last one."""
    return data.StructLayout({"chunk": decoder.chunk_bits, "last": 1})


class HuffmanLengths(wiring.Component):  # type: ignore[misc]
    """Limits and offsets of the code words of each length: the registers that all rows share."""

    def __init__(self, decoder: kernels.HuffmanDecoder) -> None:
        self.decoder = decoder
        super().__init__(
            {"table": In(_table_port(decoder)), "limits": Out(_limits(decoder)), "offsets": Out(_offsets(decoder))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = Signal(_limits(self.decoder), reset_less=True)
        offsets = Signal(_offsets(self.decoder), reset_less=True)
        m.d.comb += [self.limits.eq(limits), self.offsets.eq(offsets)]
        limit_bits = self.decoder.max_length + 1
        for length in range(1, limit_bits):
            with m.If(self.table.write & self.table.address[-1] & (self.table.address[:-1] == length - 1)):
                m.d.sync += [
                    limits[f"length_{length}"].eq(self.table.value),
                    offsets[length - 1].eq(self.table.value[limit_bits:]),
                ]
        return m


class HuffmanRow(wiring.Component):  # type: ignore[misc]
    """Buffer, matcher and symbol memory of one row.

    The buffer is a ring of chunks with a pointer to the first bit not yet used. The bits from there on, as many as a
    code word may have, are looked at as if zeros followed those that have come. All outputs are of the present
    cycle but `symbol`, which is there in the cycle after a `step`.

    - `put` takes a chunk into the buffer: `room` says that there is a place for one
    - `enough`: the next code word is there; `unassigned`: none begins with these bits, whatever follows
    - `step` passes over the code word, with `tail` over as many bits as are looked at
    - `empty`: no bits are left; `short`: none beyond those looked at
    - `mark`: the bits looked at are a 1 and zeros; `blank`: they are zeros
    - `crosses`: a step uses up a chunk
    """

    def __init__(self, decoder: kernels.HuffmanDecoder) -> None:
        self.decoder = decoder
        super().__init__(
            {
                "table": In(_table_port(decoder)),
                "limits": In(_limits(decoder)),
                "offsets": In(_offsets(decoder)),
                "clear": In(1),
                "put": In(1),
                "chunk": In(decoder.chunk_bits),
                "step": In(1),
                "tail": In(1),
                "room": Out(1),
                "enough": Out(1),
                "unassigned": Out(1),
                "empty": Out(1),
                "short": Out(1),
                "mark": Out(1),
                "blank": Out(1),
                "crosses": Out(1),
                "symbol": Out(decoder.symbol_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        decoder = self.decoder
        longest, slots = decoder.max_length, decoder.slots
        place_bits, slot_bits = decoder.chunk_bits.bit_length() - 1, slots.bit_length() - 1
        lengths = range(1, longest + 1)

        # One bit more than a place needs tells a full buffer from an empty one.
        ring = [Signal(decoder.chunk_bits, name=f"chunk_{slot}", reset_less=True) for slot in range(slots)]
        filled = Signal(slot_bits + 1)
        used = Signal(place_bits + slot_bits + 1)
        for slot in range(slots):
            with m.If(self.put & (filled[:slot_bits] == slot)):
                m.d.sync += ring[slot].eq(self.chunk)
        there = settled(m, ((filled << place_bits) - used)[: len(used)])
        m.d.comb += [
            self.room.eq(_room(filled, used[place_bits:], slot_bits)),
            self.empty.eq(there == 0),
            self.short.eq(there <= longest),
        ]

        # The bits looked at.
        come = Signal(longest)
        m.d.comb += [come[length - 1].eq(there >= length) for length in lengths]
        window = settled(m, _window(m, Cat(ring), used[: place_bits + slot_bits], longest) & come)
        m.d.comb += [self.mark.eq(window == 1), self.blank.eq(window == 0)]

        # The shortest length whose first bits are below its limit: all longer ones are, too.
        below = Signal(longest + 1)
        values = [Cat(reversed([window[k] for k in range(length)])) for length in lengths]
        m.d.comb += [
            below[length].eq(_below(value, self.limits[f"length_{length}"]))
            for length, value in zip(lengths, values, strict=True)
        ]
        match = settled(m, (below & ~(below << 1)[: longest + 1])[1:])
        m.d.comb += [
            self.unassigned.eq(~below[longest]),
            self.enough.eq((match & come).any()),
        ]
        matched = settled(m, _chosen(match, [Value.cast(length) for length in lengths]))
        least = Mux(come[longest - 1], longest, there[: len(matched)])
        after = settled(m, (used + Mux(self.tail, least, matched))[: len(used)])
        m.d.comb += self.crosses.eq(after[place_bits:] != used[place_bits:])
        with m.If(self.clear):
            m.d.sync += [filled.eq(0), used.eq(0)]
        with m.Else():
            with m.If(self.put):
                m.d.sync += filled.eq(filled + 1)
            with m.If(self.step):
                m.d.sync += used.eq(after)

        m.submodules.symbols = symbols = memory.Memory(shape=decoder.symbol_bits, depth=decoder.alphabet, init=[])
        write, read = symbols.write_port(), symbols.read_port()
        index = _chosen(match, values)[: decoder.index_bits] + _chosen(match, list(self.offsets))
        m.d.comb += [
            write.en.eq(self.table.write & ~self.table.address[-1]),
            write.addr.eq(self.table.address[: decoder.index_bits]),
            write.data.eq(self.table.value),
            read.en.eq(self.step & ~self.tail),
            read.addr.eq(index),
            self.symbol.eq(read.data),
        ]
        return m


def _room(filled: Value, used: Value, slot_bits: int) -> Value:
    """Whether a buffer has a place for a chunk: its chunks are counted with the first one that is not all used."""
    return (filled[:slot_bits] != used[:slot_bits]) | (filled[slot_bits] == used[slot_bits])


def _window(m: Module, ring: Value, at: Value, bits: int) -> Value:
    """`bits` bits of a ring of 2**len(at) bits, from bit `at` on."""
    ring = Cat(ring, ring)
    for index in reversed(range(len(at))):
        # The shorter steps can still move so many bits into the window.
        width = bits - 1 + (1 << index)
        ring = settled(m, Mux(at[index], ring[1 << index :][:width], ring[:width]))
    return ring


def _below(value: Value, limit: Value) -> Value:
    """Whether the first bits of a stream are below the limit of their length."""
    return value < limit


def _chosen(match: Value, values: list[Value]) -> Value:
    """The value whose bit of `match` is 1, or 0 where none is."""
    bits = max(len(value) for value in values)
    columns = [
        Cat(choice & value[bit] for choice, value in zip(match, values, strict=True) if bit < len(value)).any()
        for bit in range(bits)
    ]
    return Cat(columns)


class Seen(NamedTuple):
    """The outputs of `HuffmanRow`, for all rows in use together or (`unassigned`, `empty`) any of them."""

    enough: Value
    unassigned: Value
    empty: Value
    short: Value
    mark: Value
    blank: Value


class Control(NamedTuple):
    """What the rows are to do in the present cycle."""

    begin: Signal
    put: Signal
    decode: Signal
    tail: Signal


def _control(
    m: Module, top: wiring.Component, symbols: Value, seen: Seen, asks: Value, asked: Value, held: Value | int
) -> tuple[Control, Value]:
    """Run the streams of a decoder or a bank: `symbols` symbols from the start, then the end mark.

    `asks`: a chunk can be taken; `asked`: one will be, sooner or later; `held`: the next symbol must wait.
    Returns what the rows are to do and whether the last chunk has come.
    """
    control = Control(*(Signal(name=name) for name in Control._fields))
    remaining = Signal.like(symbols, name="remaining")
    ended, first, last_blank = Signal(), Signal(), Signal()
    error = Signal(ERROR_BITS)
    advance = Signal()
    m.d.comb += [
        advance.eq(~top.o.valid | top.o.ready),
        control.put.eq(top.i.valid & top.i.ready),
        top.error.eq(error),
        top.done.payload.eq(error),
    ]
    with m.If(control.decode):
        m.d.sync += [top.o.valid.eq(1), remaining.eq(remaining - 1)]
    with m.Elif(top.o.ready):
        m.d.sync += top.o.valid.eq(0)
    with m.If(control.put & top.i.payload.last):
        m.d.sync += [ended.eq(1), last_blank.eq(top.i.payload.chunk == 0)]
    with m.FSM():
        with m.State("idle"):
            m.d.comb += [top.start.ready.eq(1), control.begin.eq(top.start.valid)]
            with m.If(control.begin):
                m.d.sync += [remaining.eq(symbols), ended.eq(0), first.eq(1), error.eq(HuffmanError.NONE)]
                m.next = "run"
        with m.State("run"):
            m.d.comb += top.i.ready.eq(asks & ~ended)
            with m.If(remaining != 0):
                m.d.comb += control.decode.eq(seen.enough & advance & (ended | ~Value.cast(held)[0]))
                with m.If(seen.unassigned):
                    m.d.sync += error.eq(HuffmanError.UNASSIGNED)
                    m.next = "drain"
                with m.Elif(ended & ~seen.enough):
                    m.d.sync += error.eq(HuffmanError.TRUNCATED)
                    m.next = "drain"
            with m.Elif(ended):
                with m.If(first & seen.empty):
                    m.d.sync += error.eq(HuffmanError.TRUNCATED)
                    m.next = "drain"
                with m.Elif(last_blank | Mux(first, ~seen.mark, ~seen.blank)):
                    m.d.sync += error.eq(HuffmanError.COUNT)
                    m.next = "drain"
                with m.Else():
                    m.d.comb += control.tail.eq(1)
                    m.d.sync += first.eq(0)
                    with m.If(seen.short):
                        m.next = "done"
            with m.Elif(~asked):
                m.d.sync += error.eq(HuffmanError.COUNT)
                m.next = "drain"
        with m.State("drain"):
            m.d.comb += top.i.ready.eq(~ended)
            with m.If(ended):
                m.next = "done"
        with m.State("done"):
            # The rows in use must not change while their last symbols wait.
            m.d.comb += top.done.valid.eq(~top.o.valid)
            with m.If(top.done.valid & top.done.ready):
                m.next = "idle"
    return control, ended


class HuffmanDecoder(wiring.Component):  # type: ignore[misc]
    """A decoder of one symbol a cycle.

    The tables are written through `table` while no stream runs. `start` then takes the number of symbols, `i` chunks
    up to the one that is `last`, and `o` gives the symbols; behind them `done` gives the stream's error, which is also
    at `error` from where it is found up to the next start. After an error there are no more symbols, and chunks
    are taken and thrown away up to the last one.

    Latency: a chunk is looked at in the cycle after the one that takes it, and a symbol is offered in the cycle after
    the one that decodes it. Throughput: one symbol a cycle while chunks come. Where no code word has more bits than a
    chunk, no symbol waits; where some have, one waits only for bits that have not come, with all chunks before them
    taken one a cycle or the buffer full. `kernels.HuffmanDecoder.times` is exact.
    """

    def __init__(self, parameters: kernels.HuffmanDecoder) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "table": In(_table_port(parameters)),
                "start": In(stream.Signature(parameters.count_bits)),
                "i": In(stream.Signature(_chunk(parameters))),
                "o": Out(stream.Signature(parameters.symbol_bits)),
                "done": Out(stream.Signature(ERROR_BITS)),
                "error": Out(ERROR_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lengths = lengths = HuffmanLengths(self.parameters)
        m.submodules.row = row = HuffmanRow(self.parameters)
        seen = Seen(**{name: getattr(row, name) for name in Seen._fields})
        control, _ = _control(m, self, self.start.payload, seen, row.room, row.room, 0)
        wiring.connect(m, wiring.flipped(self.table), lengths.table)
        wiring.connect(m, wiring.flipped(self.table), row.table)
        m.d.comb += [
            row.limits.eq(lengths.limits),
            row.offsets.eq(lengths.offsets),
            row.clear.eq(control.begin),
            row.put.eq(control.put),
            row.chunk.eq(self.i.payload.chunk),
            row.step.eq(control.decode | control.tail),
            row.tail.eq(control.tail),
            self.o.payload.eq(Mux(self.o.valid, row.symbol, 0)),
        ]
        return m


class HuffmanBank(wiring.Component):  # type: ignore[misc]
    """Rows of decoders in lock-step: in one cycle every row in use decodes its next symbol, or none does.

    As `HuffmanDecoder`, with the number of rows in use beside the number of symbols, and a symbol of each row in a
    transfer of `o`; rows that are not in use give 0. One stream of chunks serves all rows in the order of
    `kernels.interleave`: the order in which the rows ask, which depends on the code words alone, so no stall changes
    it. The rows that ask with one symbol are a group; groups wait in a queue, and while it is full the next symbol
    waits. All rows share limits and offsets; each has a symbol memory of its own, written with the others'.

    Throughput one symbol of every row a cycle as long as the chunks, one a cycle for all rows, have come:
    `kernels.HuffmanBank.times` is exact.
    """

    def __init__(self, parameters: kernels.HuffmanBank) -> None:
        self.parameters = parameters
        decoder = parameters.decoder
        start = data.StructLayout({"symbols": decoder.count_bits, "rows": parameters.row_bits})
        super().__init__(
            {
                "table": In(_table_port(decoder)),
                "start": In(stream.Signature(start)),
                "i": In(stream.Signature(_chunk(decoder))),
                "o": Out(stream.Signature(data.ArrayLayout(decoder.symbol_bits, parameters.rows))),
                "done": Out(stream.Signature(ERROR_BITS)),
                "error": Out(ERROR_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        decoder, count = self.parameters.decoder, self.parameters.rows
        m.submodules.lengths = lengths = HuffmanLengths(decoder)
        wiring.connect(m, wiring.flipped(self.table), lengths.table)
        rows = [HuffmanRow(decoder) for _ in range(count)]
        in_use = Signal(count)

        def every(name: str) -> Value:
            return (Cat(getattr(row, name) for row in rows) | ~in_use).all()

        def some(name: str) -> Value:
            return (Cat(getattr(row, name) for row in rows) & in_use).any()

        seen = Seen(every("enough"), some("unassigned"), some("empty"), every("short"), every("mark"), every("blank"))
        serving, fresh = Signal(count), Signal(count)
        queue = Array(Signal(count, name=f"queue_{place}", reset_less=True) for place in range(QUEUE))
        waiting = Signal(range(QUEUE + 1))
        rounds = Signal(range(decoder.slots))
        asks, asked, held = Signal(), Signal(), Signal()
        m.d.comb += [
            asks.eq(serving.any()),
            asked.eq(asks | fresh.any() | (waiting != 0)),
            held.eq(waiting + fresh.any() >= QUEUE),
        ]
        control, ended = _control(m, self, self.start.payload.symbols, seen, asks, asked, held)

        # Requests of one symbol, served one row after the other.
        row_put, left = Signal(count), Signal(count)
        chosen = _next_row(serving)
        m.d.comb += [
            row_put.eq(Mux(control.put, chosen, 0)),
            left.eq(serving & ~row_put),
        ]
        passes, leaves = Signal(), Signal()
        m.d.sync += [serving.eq(left), fresh.eq(Mux(control.decode, Cat(row.crosses for row in rows) & in_use, 0))]
        with m.If(left == 0):
            with m.If(rounds != 0):
                m.d.sync += [serving.eq(in_use), rounds.eq(rounds - 1)]
            with m.Elif(waiting != 0):
                m.d.comb += leaves.eq(1)
                m.d.sync += serving.eq(queue[0])
            with m.Else():
                m.d.comb += passes.eq(1)
                m.d.sync += serving.eq(fresh)
        enters = settled(m, fresh.any() & ~passes & ~ended)
        end = settled(m, (waiting - leaves)[: len(waiting)])
        m.d.sync += waiting.eq(end + enters)
        for place in range(QUEUE):
            with m.If(enters & (end == place)):
                m.d.sync += queue[place].eq(fresh)
            with m.Elif(leaves):
                if place + 1 < QUEUE:
                    m.d.sync += queue[place].eq(queue[place + 1])
        with m.If(control.begin):
            wanted = Cat(self.start.payload.rows > row for row in range(count))
            m.d.sync += [
                in_use.eq(wanted),
                serving.eq(wanted),
                rounds.eq(decoder.slots - 1),
                fresh.eq(0),
                waiting.eq(0),
            ]

        for index, row in enumerate(rows):
            m.submodules[f"row_{index}"] = row
            wiring.connect(m, wiring.flipped(self.table), row.table)
            m.d.comb += [
                row.limits.eq(lengths.limits),
                row.offsets.eq(lengths.offsets),
                row.clear.eq(control.begin),
                row.put.eq(row_put[index]),
                row.chunk.eq(self.i.payload.chunk),
                row.step.eq(control.decode | control.tail),
                row.tail.eq(control.tail),
                self.o.payload[index].eq(Mux(self.o.valid & in_use[index], row.symbol, 0)),
            ]
        return m


def _next_row(asking: Value) -> Value:
    """The lowest row that asks, as one bit of all."""
    return Cat(asking[row] & ~asking[:row].any() if row else asking[0] for row in range(len(asking)))
