"""Every cycle of the Huffman decoders: models of their registers and handshakes, and benches behind `Stepped`.

The models hold bits as numbers and know of no cycle count: those of `kernels.huffman`, and what it makes of a stream,
are proved against the hardware apart from them.
"""

# ruff: noqa: D102 (a bench's methods say in their base class what they do)

from abc import ABC, abstractmethod
from typing import TypeVar

import numpy as np

from .. import kernels
from ..kernels.huffman import HuffmanError
from ..kernels.huffman_bank import QUEUE
from .stepped import Cycle, Driver, Spells, StepBench

__all__ = ["HuffmanBankBench", "HuffmanDecoderBench"]

MOST_SYMBOLS = 48
"""Symbols of a row in a stream of the benches."""

P = TypeVar("P")


class RowModel:
    """Registers of `HuffmanRow`: the bits that have come and are not used, and where in a chunk they begin."""

    def __init__(self, decoder: kernels.HuffmanDecoder) -> None:
        self.decoder = decoder
        self.held = self.level = self.begins = 0

    @property
    def room(self) -> bool:
        return self.begins + self.level < self.decoder.slots * self.decoder.chunk_bits

    def put(self, chunk: int) -> None:
        self.held |= chunk << self.level
        self.level += self.decoder.chunk_bits

    def match(self, limits: list[int]) -> tuple[int, int]:
        """Length and value of the next code word; length 0 where there is none."""
        value = 0
        for length, limit in enumerate(limits, start=1):
            value = 2 * value + (self.held >> (length - 1) & 1)
            if value < limit:
                return length, value
        return 0, 0

    def use(self, bits: int) -> bool:
        """Pass over bits; whether that uses up a chunk."""
        self.held >>= bits
        self.level -= bits
        crosses, self.begins = divmod(self.begins + bits, self.decoder.chunk_bits)
        return crosses > 0


class DecoderModel(ABC):
    """What a decoder and a bank have in common: the tables, and the course of a stream."""

    def __init__(self, decoder: kernels.HuffmanDecoder) -> None:
        self.decoder = decoder
        self.limits = [0] * decoder.max_length
        self.offsets = [0] * decoder.max_length
        self.symbols = [0] * decoder.alphabet
        self.rows: list[RowModel] = []
        self.state = "idle"
        self.remaining = self.symbol = 0
        self.error = HuffmanError.NONE
        self.offered = self.ended = self.first = self.last_blank = False

    @abstractmethod
    def begin(self, inputs: Cycle) -> None:
        """Take a start."""

    @property
    @abstractmethod
    def asks(self) -> bool:
        """Whether a chunk can be taken."""

    @property
    @abstractmethod
    def asked(self) -> bool:
        """Whether one will be."""

    @property
    @abstractmethod
    def held(self) -> bool:
        """Whether the next symbol must wait."""

    @abstractmethod
    def move(self, chunk: int | None, crossing: list[bool]) -> None:
        """The requests at the end of a cycle, in which a chunk may have been taken and rows used one up."""

    def step(self, inputs: Cycle) -> Cycle:
        outputs = {
            "start_ready": int(self.state == "idle"),
            "i_ready": int(not self.ended and (self.state == "drain" or (self.state == "run" and self.asks))),
            "o_valid": int(self.offered),
            "o": self.symbol if self.offered else 0,
            "done_valid": int(self.state == "done" and not self.offered),
            "done": int(self.error),
            "error": int(self.error),
        }
        taken = bool(outputs["i_ready"] and inputs["i_valid"])
        ended = self.ended
        crossing = [False] * len(self.rows)
        advance = not self.offered or bool(inputs["o_ready"])
        if advance:
            self.offered = False
        running = self.state == "run"
        if running and self.remaining:
            crossing = self.decode(advance)
        elif running and ended:
            self.look()
        elif running and not self.asked:
            self.fail(HuffmanError.COUNT)
        elif self.state == "drain" and ended:
            self.state = "done"
        elif outputs["done_valid"] and inputs["done_ready"]:
            self.state = "idle"
        self.move(inputs["i_chunk"] if taken else None, crossing)
        if taken and inputs["i_last"]:
            self.ended, self.last_blank = True, inputs["i_chunk"] == 0
        if outputs["start_ready"] and inputs["start_valid"]:
            self.state, self.error = "run", HuffmanError.NONE
            self.ended, self.first = False, True
            self.begin(inputs)
        if inputs["table_write"]:
            self.write(inputs["table_address"], inputs["table_value"])
        return outputs

    def decode(self, advance: bool) -> list[bool]:
        """Decode a symbol of each row, if all can: which rows used up a chunk."""
        found = [row.match(self.limits) for row in self.rows]
        idle = [False] * len(self.rows)
        if not all(length for length, _ in found):
            self.fail(HuffmanError.UNASSIGNED)
            return idle
        if any(length > row.level for (length, _), row in zip(found, self.rows, strict=True)):
            if self.ended:
                self.fail(HuffmanError.TRUNCATED)
            return idle
        if not advance or (self.held and not self.ended):
            return idle
        self.symbol = 0
        for index, (length, value) in enumerate(found):
            place = (value + self.offsets[length - 1]) % (1 << self.decoder.index_bits)
            self.symbol |= self.symbols[place] << (index * self.decoder.symbol_bits)
        self.offered = True
        self.remaining -= 1
        return [row.use(length) for (length, _), row in zip(found, self.rows, strict=True)]

    def look(self) -> None:
        """Look at what is left behind the symbols."""
        reach = self.decoder.max_length
        seen = [row.held & ((1 << reach) - 1) for row in self.rows]
        if self.first and not all(row.level for row in self.rows):
            self.fail(HuffmanError.TRUNCATED)
        elif self.last_blank or any(bits != self.first for bits in seen):
            self.fail(HuffmanError.COUNT)
        else:
            self.first = False
            if all(row.level <= reach for row in self.rows):
                self.state = "done"
            for row in self.rows:
                row.use(min(row.level, reach))

    def fail(self, error: HuffmanError) -> None:
        self.error, self.state = error, "drain"

    def write(self, address: int, value: int) -> None:
        """Write a word of the tables."""
        decoder = self.decoder
        upper = 1 << (decoder.address_bits - 1)
        if address >= upper:
            length = address - upper + 1
            self.limits[length - 1] = value & ((2 << length) - 1)
            self.offsets[length - 1] = value >> (decoder.max_length + 1)
        else:
            self.symbols[address] = value & ((1 << decoder.symbol_bits) - 1)


class SingleModel(DecoderModel):
    """`HuffmanDecoder`: asks for a chunk while there is room."""

    def begin(self, inputs: Cycle) -> None:
        self.rows = [RowModel(self.decoder)]
        self.remaining = inputs["start"]

    @property
    def asks(self) -> bool:
        return self.rows[0].room

    @property
    def asked(self) -> bool:
        return self.asks

    @property
    def held(self) -> bool:
        return False

    def move(self, chunk: int | None, crossing: list[bool]) -> None:
        if chunk is not None and self.rows:
            self.rows[0].put(chunk)


class BankModel(DecoderModel):
    """`HuffmanBank`: requests in groups, the first one being served, the last one just made."""

    def __init__(self, bank: kernels.HuffmanBank) -> None:
        super().__init__(bank.decoder)
        self.serving: list[int] = []
        self.queue: list[list[int]] = []
        self.fresh: list[int] = []

    def begin(self, inputs: Cycle) -> None:
        self.rows = [RowModel(self.decoder) for _ in range(inputs["start_rows"])]
        self.remaining = inputs["start_symbols"]
        self.serving = list(range(len(self.rows))) * self.decoder.slots
        self.queue, self.fresh = [], []

    @property
    def asks(self) -> bool:
        return bool(self.serving)

    @property
    def asked(self) -> bool:
        return bool(self.serving or self.queue or self.fresh)

    @property
    def held(self) -> bool:
        return len(self.queue) + bool(self.fresh) >= QUEUE

    def move(self, chunk: int | None, crossing: list[bool]) -> None:
        if chunk is not None and self.serving:
            self.rows[self.serving.pop(0)].put(chunk)
        # An empty stage is passed over.
        if not self.serving and self.queue:
            self.serving = self.queue.pop(0)
        elif not self.serving:
            self.serving, self.fresh = self.fresh, []
        if self.fresh and not self.ended:
            self.queue.append(self.fresh)
        self.fresh = [row for row, crosses in enumerate(crossing) if crosses]


def _random_code(decoder: kernels.HuffmanDecoder, rng: np.random.Generator) -> kernels.HuffmanCode:
    """A code that the decoder takes, at times without its last code words."""
    most = min(decoder.alphabet, 1 << decoder.max_length)
    counts = np.zeros(decoder.alphabet, dtype=np.int64)
    used = rng.choice(decoder.alphabet, rng.integers(1, most, endpoint=True), replace=False)
    counts[used] = 1 + rng.geometric(0.5 ** rng.integers(1, 12), len(used)) ** 2
    lengths = np.array(kernels.HuffmanCode.of(counts, decoder.max_length).lengths)
    if rng.random() < 0.3 and (lengths > 0).sum() > 1:
        lengths[rng.choice(np.flatnonzero(lengths))] = 0
    return kernels.HuffmanCode(tuple(lengths.tolist()))


def _corrupted(chunks: np.ndarray, chunk_bits: int, rng: np.random.Generator) -> np.ndarray:
    """The chunks, half the time with a fault."""
    chunks = chunks.copy()
    match rng.integers(0, 8):
        case 0:
            chunks[rng.integers(0, len(chunks))] ^= np.uint64(1 << int(rng.integers(0, chunk_bits)))
        case 1:
            chunks = chunks[: max(1, len(chunks) - int(rng.integers(1, 3)))]
        case 2:
            chunks = np.append(chunks, rng.integers(0, 2, rng.integers(1, 5))).astype(np.uint64)
        case 3:
            chunks[-1] = 0
    return chunks


class StreamsBench(StepBench[P]):
    """Streams of random codes, right and wrong ones, one after the other."""

    @property
    @abstractmethod
    def decoder(self) -> kernels.HuffmanDecoder:
        """The parameters of a row."""

    @abstractmethod
    def stream(self, code: kernels.HuffmanCode, count: int, rng: np.random.Generator) -> tuple[Cycle, np.ndarray]:
        """The start of a stream of at least `count` symbols of each row, and its chunks."""

    def symbols(self, code: kernels.HuffmanCode, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Random symbols of a code: as often as its code words are short, or all alike."""
        used = np.flatnonzero(code.lengths)
        shares = 0.5 ** np.array(code.lengths)[used] if rng.random() < 0.5 else np.ones(len(used))
        return rng.choice(used, shape, p=shares / shares.sum())

    def driver(self, rng: np.random.Generator) -> Driver:
        decoder = self.decoder
        offering, ready, ending = Spells(rng), Spells(rng), Spells(rng)
        while True:
            code = _random_code(decoder, rng)
            for address, value in rng.permutation(decoder.table_words(code)).tolist():
                word = {"table_write": 1, "table_address": address, "table_value": value}
                yield {**word, "start_valid": 0, "i_valid": 0, "o_ready": int(ready.go()), "done_ready": 0}
            for _ in range(rng.integers(1, 4)):
                start, chunks = self.stream(code, int(rng.integers(0, MOST_SYMBOLS)), rng)
                chunks = _corrupted(chunks, decoder.chunk_bits, rng)
                sent, offered, idle, done = 0, False, True, False
                while not done:
                    offered = sent < len(chunks) and (offered or offering.go())
                    cycle = {"table_write": 0, "i_valid": int(offered), "o_ready": int(ready.go())}
                    cycle |= {"start_valid": int(idle), "done_ready": int(ending.go()), **(start if idle else {})}
                    if offered:
                        cycle |= {"i_chunk": int(chunks[sent]), "i_last": int(sent == len(chunks) - 1)}
                    outputs = yield cycle
                    idle = False
                    if offered and outputs["i_ready"]:
                        sent, offered = sent + 1, False
                    done = bool(outputs["done_valid"] and cycle["done_ready"])


def _wrong_count(count: int, rng: np.random.Generator) -> int:
    """The number of symbols, or now and then another one."""
    return max(0, count + int(rng.integers(-3, 3, endpoint=True))) if rng.random() < 0.15 else count


class HuffmanDecoderBench(StreamsBench[kernels.HuffmanDecoder]):
    """Streams through one decoder."""

    @property
    def decoder(self) -> kernels.HuffmanDecoder:
        return self.parameters

    def model(self) -> DecoderModel:
        return SingleModel(self.parameters)

    def stream(self, code: kernels.HuffmanCode, count: int, rng: np.random.Generator) -> tuple[Cycle, np.ndarray]:
        chunks = self.decoder.chunks(code.encode(self.symbols(code, (count,), rng)))
        return {"start": _wrong_count(count, rng)}, chunks


class HuffmanBankBench(StreamsBench[kernels.HuffmanBank]):
    """Streams through a bank, of one row or more."""

    @property
    def decoder(self) -> kernels.HuffmanDecoder:
        return self.parameters.decoder

    def model(self) -> DecoderModel:
        return BankModel(self.parameters)

    def stream(self, code: kernels.HuffmanCode, count: int, rng: np.random.Generator) -> tuple[Cycle, np.ndarray]:
        rows = int(rng.integers(1, self.parameters.rows, endpoint=True))
        streams = [code.encode(symbols) for symbols in self.symbols(code, (rows, count), rng)]
        start = {"start_symbols": _wrong_count(count, rng), "start_rows": rows}
        return start, kernels.interleave(streams, code, count, self.parameters)
