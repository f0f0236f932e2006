"""Canonical, length-limited Huffman codes, and the parameters of their decoders in hardware.

A code is given by its lengths alone: code words of one length are consecutive numbers, in the order of their
symbols, and a longer one begins where the shorter ones end (Schwartz and Kallick 1964, as in RFC 1951, 3.2.2).
Lengths are optimal under their limit (package-merge: Larmore and Hirschberg 1990).

A stream is the code words, most significant bit first, then an *end mark*: a 1, and zeros to the end of the last byte
or chunk. The mark costs a bit and makes every wrong number of symbols an error: with bare zeros after the last code
word, symbols whose code word is all zeros could be added or left out unseen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np

from .errors import FormatError
from .jit import jit

__all__ = [
    "MAX_ALPHABET",
    "MAX_LENGTH",
    "HuffmanCode",
    "HuffmanDecoder",
    "HuffmanError",
    "HuffmanResult",
    "HuffmanTable",
    "decode_rows",
    "entropy",
]

MAX_LENGTH = 16
MAX_ALPHABET = 256

CHUNK_BITS = (8, 16, 32, 64)

ESCAPE = 15
"""Nibble of a table after which the next one is no length of its own."""
ESCAPED_LENGTHS = (15, 16)
"""Lengths written as the escape and their place here; other nibbles after an escape repeat the length before."""
RUN = 16
"""Absent symbols, or repeats, that one pair of nibbles reaches."""


class HuffmanError(IntEnum):
    """What is wrong with a stream."""

    NONE = 0
    UNASSIGNED = 1
    """Its next bits begin no code word."""
    TRUNCATED = 2
    """It ends before its symbols or its end mark."""
    COUNT = 3
    """Behind its symbols there is something else than the end mark: a wrong number of symbols."""


class HuffmanTable(NamedTuple):
    """A canonical code as a decoder uses it.

    `limits` and `offsets` (int32, by length 0..16): the first `l` bits of a stream, as a number, are the code word of a
    symbol if they are below ``limits[l]`` (and no fewer are), and its place in `symbols` is their sum with
    ``offsets[l]``. `symbols` are in canonical order: by length, then by symbol.
    """

    limits: np.ndarray
    offsets: np.ndarray
    symbols: np.ndarray


class HuffmanResult(NamedTuple):
    """Symbols of a stream, (count,) or (rows, count), up to its first error; the symbols' own dtype."""

    symbols: np.ndarray
    error: HuffmanError


@jit
def _bit(data, at):  # type: ignore[no-untyped-def]
    return (data[at >> 3] >> (at & 7)) & 1


@jit
def _write(symbols, words, lengths, data):  # type: ignore[no-untyped-def]
    """Write code words and the end mark into zeroed bytes."""
    at = 0
    for symbol in symbols:
        word, length = words[symbol], lengths[symbol]
        for k in range(length - 1, -1, -1):
            data[at >> 3] |= ((word >> k) & 1) << (at & 7)
            at += 1
    data[at >> 3] |= 1 << (at & 7)


@jit
def _match(data, at, end, limits):  # type: ignore[no-untyped-def]
    """Length and value of the code word at a bit, as if zeros followed the end; length 0: no code word."""
    value = np.int32(0)
    for length in range(1, len(limits)):
        place = at + length - 1
        value = 2 * value + (np.int32(_bit(data, place)) if place < end else np.int32(0))
        if value < limits[length]:
            return length, value
    return 0, value


@jit
def _read(data, chunk_bytes, rows, slots, limits, offsets, symbols, out):  # type: ignore[no-untyped-def]
    """Decode the rows' streams out of one stream of chunks, (chunks, chunk_bytes): the symbols and the error.

    Each row first asks for `slots` chunks, then for the next one whenever it has used one up.
    """
    chunks = len(data)
    count = out.shape[1]
    size = 8 * chunk_bytes
    # What each row has been given, and the bits that it has used.
    store = np.zeros((rows, (chunks + 1) * chunk_bytes), dtype=np.uint8)
    filled = np.zeros(rows, dtype=np.int64)
    used = np.zeros(rows, dtype=np.int64)
    lengths = np.zeros(rows, dtype=np.int64)
    indices = np.zeros(rows, dtype=np.int64)
    taken = 0
    for _ in range(slots):
        for row in range(rows):
            if taken < chunks:
                store[row, filled[row] : filled[row] + chunk_bytes] = data[taken]
                filled[row] += chunk_bytes
                taken += 1
    for k in range(count):
        lacks = False
        for row in range(rows):
            length, value = _match(store[row], used[row], 8 * filled[row], limits)
            if length == 0:
                return k, 1
            lacks |= used[row] + length > 8 * filled[row]
            lengths[row], indices[row] = length, value + offsets[length]
        if lacks:
            return k, 2
        for row in range(rows):
            out[row, k] = symbols[indices[row]]
            before = used[row] // size
            used[row] += lengths[row]
            for _ in range(used[row] // size - before):
                if taken < chunks:
                    store[row, filled[row] : filled[row] + chunk_bytes] = data[taken]
                    filled[row] += chunk_bytes
                    taken += 1
    if taken < chunks:
        return count, 3
    for row in range(rows):
        if used[row] == 8 * filled[row]:
            return count, 2
    if not data[chunks - 1].any():
        return count, 3
    for row in range(rows):
        for at in range(used[row], 8 * filled[row]):
            if _bit(store[row], at) != (at == used[row]):
                return count, 3
    return count, 0


@jit
def _decoder_cycles(lengths, chunks, size, slots, step, times):  # type: ignore[no-untyped-def]
    """Cycles of one decoder; `times` receives those in which the symbols are decoded."""
    taken = used = k = 0
    cycle = 1
    while k < len(lengths) or taken < chunks:
        ready = taken < chunks and taken - used // size < slots
        if k < len(lengths) and lengths[k] <= taken * size - used:
            used += lengths[k]
            times[k] = cycle
            k += 1
        taken += ready
        cycle += 1
    return cycle + max(1, -(-(taken * size - used) // step))


def entropy(counts: np.ndarray) -> float:
    """Shannon entropy in bits a symbol of symbols that occur `counts` times; 0 where none does."""
    counts = np.asarray(counts, dtype=np.float64)
    shares = counts[counts > 0] / max(counts.sum(), 1.0)
    return abs(float((shares * np.log2(shares)).sum()))


def _package_merge(weights: Sequence[int], limit: int) -> list[int]:
    """Optimal code word lengths of at most `limit` for at least two ascending weights."""
    singles = [(weight, True) for weight in weights]
    levels = [singles]
    for _ in range(limit - 1):
        last = levels[-1]
        packages = [(last[k][0] + last[k + 1][0], False) for k in range(0, len(last) - 1, 2)]
        # The sort is stable: singles come first among equals.
        levels.append(sorted(singles + packages, key=lambda item: item[0]))
    lengths = [0] * len(weights)
    taken = 2 * len(weights) - 2
    for level in reversed(levels):
        chosen = sum(single for _, single in level[:taken])
        for k in range(chosen):
            lengths[k] += 1
        taken = 2 * (taken - chosen)
    return lengths


@dataclass(frozen=True, slots=True)
class HuffmanCode:
    """A canonical code: `lengths` of its code words by symbol, 0 for a symbol that has none.

    At most 256 symbols and 16 bits a code word; the code need not be complete.
    """

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.lengths) <= MAX_ALPHABET:
            raise FormatError(f"a Huffman alphabet must have 1 to {MAX_ALPHABET} symbols, not {len(self.lengths)}")
        for length in self.lengths:
            if not 0 <= length <= MAX_LENGTH:
                raise FormatError(f"Huffman code words must have 0 to {MAX_LENGTH} bits, not {length}")
        if not any(self.lengths):
            raise FormatError("a Huffman code must have a code word for at least one symbol")
        if self.kraft_sum > 1 << MAX_LENGTH:
            raise FormatError(
                f"Huffman lengths must have a Kraft sum of at most 1, not {self.kraft_sum / (1 << MAX_LENGTH)}"
            )

    @classmethod
    def of(cls, counts: Sequence[int] | np.ndarray, max_length: int = MAX_LENGTH) -> "HuffmanCode":
        """The code of least total length for symbols that occur `counts` times, by symbol.

        No code word has more than `max_length` bits; symbols that do not occur have none, a single one has one bit.
        """
        if not 1 <= max_length <= MAX_LENGTH:
            raise FormatError(f"the Huffman length limit must be from 1 to {MAX_LENGTH}, not {max_length}")
        weights = [int(count) for count in counts]
        if any(weight < 0 for weight in weights):
            raise FormatError(f"symbol counts must not be negative, found {min(weights)}")
        used = sorted((symbol for symbol, weight in enumerate(weights) if weight), key=lambda symbol: weights[symbol])
        if len(used) > 1 << max_length:
            raise FormatError(
                f"code words of {max_length} bits must be for at most {1 << max_length} symbols, not {len(used)}"
            )
        lengths = [0] * len(weights)
        chosen = _package_merge([weights[symbol] for symbol in used], max_length) if len(used) > 1 else [1]
        for symbol, length in zip(used, chosen, strict=False):
            lengths[symbol] = length
        return cls(tuple(lengths))

    @property
    def kraft_sum(self) -> int:
        """Sum of 2**-length over the symbols, in units of 2**-16: at most 2**16, and that for a complete code."""
        return sum(1 << (MAX_LENGTH - length) for length in self.lengths if length)

    @property
    def longest(self) -> int:
        """Bits of the longest code word."""
        return max(self.lengths)

    @property
    def canonical(self) -> HuffmanTable:
        """The code as decoders use it."""
        limits, offsets, symbols = _canonical(self.lengths)
        return HuffmanTable(limits.copy(), offsets.copy(), symbols.copy())

    @property
    def words(self) -> np.ndarray:
        """Code words by symbol, uint16, to be written most significant bit first; 0 where there is none."""
        _, offsets, symbols = _canonical(self.lengths)
        words = np.zeros(len(self.lengths), dtype=np.uint16)
        words[symbols] = np.arange(len(symbols)) - offsets[np.array(self.lengths)[symbols]]
        return words

    def sizes(self, symbols: np.ndarray) -> np.ndarray:
        """Bits of the code word of each symbol, uint8, in the shape of `symbols`."""
        symbols = np.asarray(symbols)
        if not np.issubdtype(symbols.dtype, np.integer):
            raise FormatError(f"symbols must be integers, not {symbols.dtype}")
        if symbols.size and not 0 <= symbols.min() <= symbols.max() < len(self.lengths):
            raise FormatError(f"symbols must lie in 0..{len(self.lengths) - 1}, found {symbols.min()}..{symbols.max()}")
        sizes = np.array(self.lengths, dtype=np.uint8)[symbols]
        if symbols.size and not sizes.min():
            raise FormatError(f"every symbol must have a code word, but {symbols[sizes == 0].flat[0]} has none")
        return np.asarray(sizes)

    def encode(self, symbols: np.ndarray) -> np.ndarray:
        """The stream of symbols of any shape, in C order, with its end mark: uint8 bytes.

        The first bit is bit 0 of the first byte; code words come most significant bit first.
        """
        sizes = self.sizes(symbols)
        data = np.zeros(int(sizes.sum(dtype=np.int64)) // 8 + 1, dtype=np.uint8)
        flat = np.ascontiguousarray(symbols).reshape(-1)
        _write(flat, self.words.astype(np.int64), np.array(self.lengths, dtype=np.int64), data)
        return data

    def decode(self, data: np.ndarray, count: int) -> np.ndarray:
        """The `count` symbols, uint8 (count,), of a whole stream as `encode` writes it; any other is refused."""
        data = _checked_bytes(data)
        out = np.zeros((1, max(count, 0)), dtype=np.uint8)
        limits, offsets, symbols = self.canonical
        # Bytes are chunks, all of which are there from the beginning.
        done, error = _read(data[:, None], 1, 1, len(data), limits, offsets, symbols, out)
        match error:
            case HuffmanError.UNASSIGNED:
                raise FormatError(f"a Huffman stream must hold code words only, not at symbol {done}")
            case HuffmanError.TRUNCATED:
                raise FormatError(f"a Huffman stream must hold {count} symbols and an end mark, but ends after {done}")
            case HuffmanError.COUNT:
                raise FormatError(f"a Huffman stream must end after {count} symbols, but something else follows")
        return np.asarray(out[0])

    def average_bits(self, counts: Sequence[int] | np.ndarray) -> float:
        """Bits a symbol of symbols that occur `counts` times, the end mark apart; 0 where none does."""
        counts = np.asarray(counts, dtype=np.int64)
        sizes = self.sizes(np.flatnonzero(counts)).astype(np.int64)
        return float((counts[counts != 0] * sizes).sum() / max(counts.sum(), 1))

    def table(self) -> np.ndarray:
        """The lengths as the file holds them, uint8: the number of symbols less 1, then nibbles, the lower one first.

        A nibble 1..14 is a length. 0 and a nibble n are n + 1 symbols without a code word; 15 and a nibble n are the
        length 15 (n = 0) or 16 (n = 1), or repeat the length before n + 1 times (n = 2..15). A spare nibble is 0.
        """
        nibbles = [nibble for length, run in groupby(self.lengths) for nibble in _nibbles(length, len(list(run)))]
        nibbles += [0] * (len(nibbles) % 2)
        pairs = np.array(nibbles, dtype=np.uint8).reshape(-1, 2)
        return np.concatenate(([np.uint8(len(self.lengths) - 1)], pairs[:, 0] | pairs[:, 1] << 4)).astype(np.uint8)

    @classmethod
    def from_table(cls, data: np.ndarray) -> "HuffmanCode":
        """The code of a table; one that `table` would not write is refused."""
        data = _checked_bytes(data)
        nibbles = iter(np.stack([data & 15, data >> 4], axis=1).reshape(-1)[2:].tolist())
        count = int(data[0]) + 1 if len(data) else 1
        lengths: list[int] = []
        while len(lengths) < count:
            nibble, low = next(nibbles, None), 0
            if nibble in (0, ESCAPE):
                low = next(nibbles, -1)
            if nibble is None or low < 0 or (nibble == ESCAPE and low >= len(ESCAPED_LENGTHS) and not lengths):
                raise FormatError(
                    f"a Huffman table must give the lengths of {count} symbols, found only {len(lengths)}"
                )
            if nibble == ESCAPE:
                lengths += [ESCAPED_LENGTHS[low]] if low < len(ESCAPED_LENGTHS) else [lengths[-1]] * (low + 1)
            else:
                lengths += [nibble] if nibble else [0] * (low + 1)
        code = cls(tuple(lengths[:MAX_ALPHABET]))
        if not np.array_equal(code.table(), data):
            raise FormatError("a Huffman table must be written in its one shortest way, without anything behind it")
        return code


@lru_cache(64)
def _canonical(lengths: tuple[int, ...]) -> HuffmanTable:
    symbols = sorted((symbol for symbol, length in enumerate(lengths) if length), key=lengths.__getitem__)
    limits, offsets = (np.zeros(MAX_LENGTH + 1, dtype=np.int32) for _ in range(2))
    limit = place = 0
    for length in range(1, MAX_LENGTH + 1):
        first = 2 * limit
        offsets[length] = place - first
        words = lengths.count(length)
        limit, place = first + words, place + words
        limits[length] = limit
    return HuffmanTable(limits, offsets, np.array(symbols, dtype=np.uint8))


def _nibbles(length: int, run: int) -> Iterator[int]:
    """The nibbles of a table for `run` symbols in a row of one length."""
    if length == 0:
        for start in range(0, run, RUN):
            yield from (0, min(run - start, RUN) - 1)
        return
    one = (ESCAPE, ESCAPED_LENGTHS.index(length)) if length in ESCAPED_LENGTHS else (length,)
    yield from one
    for start in range(0, run - 1, RUN):
        repeats = min(run - 1 - start, RUN)
        if repeats > len(ESCAPED_LENGTHS):
            yield from (ESCAPE, repeats - 1)
        else:
            yield from one * repeats


def _checked_bytes(data: np.ndarray) -> np.ndarray:
    data = np.ascontiguousarray(data)
    if data.dtype != np.uint8 or data.ndim != 1:
        raise FormatError(f"Huffman data must be uint8 of one dimension, not {data.dtype} of shape {data.shape}")
    return data


def _chunks_of(data: np.ndarray, size: int) -> np.ndarray:
    """A stream's bytes as chunks of `size` bytes, (chunks, size), filled up with zeros."""
    return np.pad(_checked_bytes(data), (0, -len(data) % size)).reshape(-1, size)


def decode_rows(
    decoder: "HuffmanDecoder", chunks: np.ndarray, table: HuffmanTable, count: int, rows: int
) -> HuffmanResult:
    """Symbols of `rows` rows and the error, out of chunks of any content."""
    size = decoder.chunk_bits // 8
    chunks = np.ascontiguousarray(chunks, dtype=np.uint64)
    data = np.ascontiguousarray(chunks[:, None].view(np.uint8)[:, :size])
    out = np.zeros((rows, count), dtype=table.symbols.dtype)
    limits, offsets, symbols = table
    done, error = _read(data, size, rows, decoder.slots, limits, offsets, symbols, out)
    return HuffmanResult(out[:, :done], HuffmanError(error))


@dataclass(frozen=True, slots=True)
class HuffmanDecoder:
    """Parameters and golden model of a decoder of one symbol a cycle.

    Parameters
    ----------
    max_length : bits of the longest code word, 1..16
    alphabet : words of the symbol memory, 2..256: symbols that have a code word
    symbol_bits : bits of such a word, 1..16
    chunk_bits : bits of a chunk of the stream, 8, 16, 32 or 64
    count_bits : bits of the number of symbols of a stream, 1..32
    """

    max_length: int = MAX_LENGTH
    alphabet: int = MAX_ALPHABET
    symbol_bits: int = 8
    chunk_bits: int = 32
    count_bits: int = 24

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("length limit", self.max_length, 1, MAX_LENGTH),
            ("alphabet", self.alphabet, 2, MAX_ALPHABET),
            ("symbol bits", self.symbol_bits, 1, 16),
            ("count bits", self.count_bits, 1, 32),
        ):
            if not low <= value <= high:
                raise FormatError(f"Huffman decoder {name} must be from {low} to {high}, not {value}")
        if self.chunk_bits not in CHUNK_BITS:
            raise FormatError(f"Huffman chunks must have 8, 16, 32 or 64 bits, not {self.chunk_bits}")

    @property
    def index_bits(self) -> int:
        """Bits of a place in the symbol memory."""
        return (self.alphabet - 1).bit_length()

    @property
    def slots(self) -> int:
        """Chunks that the buffer holds: a power of two, enough for a code word a cycle while a chunk comes a cycle.

        A chunk is asked for in the cycle after the one that frees its place and is there a cycle later: what the other
        places hold must reach for two code words.
        """
        others = -(-(2 * self.max_length - 1) // self.chunk_bits)
        return 1 << others.bit_length()

    @property
    def address_bits(self) -> int:
        """Bits of an address of the table's write port."""
        return max(self.index_bits, (self.max_length - 1).bit_length()) + 1

    @property
    def value_bits(self) -> int:
        """Bits of a value at the table's write port."""
        return max(self.symbol_bits, self.max_length + 1 + self.index_bits)

    def table_words(self, code: HuffmanCode, values: np.ndarray | None = None) -> np.ndarray:
        """What the write port takes for a code: (words, 2) int64 of address and value.

        Addresses below half of their range are the symbol memory's. In the upper half, at ``l - 1``, stands length `l`:
        its limit in the low ``max_length + 1`` bits, then its offset. `values` are the words of the symbol memory
        by symbol; the symbols themselves by default.
        """
        table = code.canonical
        if code.longest > self.max_length:
            raise FormatError(f"code words must have at most {self.max_length} bits, not {code.longest}")
        if len(table.symbols) > self.alphabet:
            raise FormatError(f"a code must have at most {self.alphabet} symbols, not {len(table.symbols)}")
        words = (np.arange(len(code.lengths)) if values is None else np.asarray(values))[table.symbols].astype(np.int64)
        if not 0 <= words.min() <= words.max() < 1 << self.symbol_bits:
            raise FormatError(f"symbols must fit {self.symbol_bits} unsigned bits, found {words.min()}..{words.max()}")
        limits, offsets = (array[1 : self.max_length + 1].astype(np.int64) for array in table[:2])
        offsets &= (1 << self.index_bits) - 1
        upper = 1 << (self.address_bits - 1)
        memory = np.stack([np.arange(len(words)), words], axis=1)
        registers = np.stack([upper + np.arange(self.max_length), limits | offsets << (self.max_length + 1)], axis=1)
        return np.concatenate([memory, registers])

    def chunks(self, data: np.ndarray) -> np.ndarray:
        """A stream's bytes as chunks, uint64, filled up with zeros."""
        size = self.chunk_bits // 8
        return np.pad(_chunks_of(data, size), ((0, 0), (0, 8 - size))).view(np.uint64)[:, 0]

    def decode(self, chunks: np.ndarray, table: HuffmanTable, count: int) -> HuffmanResult:
        """What the hardware makes of at least one chunk (uint64), whatever they are."""
        result = decode_rows(self, chunks, table, count, 1)
        return HuffmanResult(result.symbols[0], result.error)

    def times(self, sizes: np.ndarray) -> tuple[int, np.ndarray]:
        """Cycles of an intact stream whose code words have these sizes, and those in which the symbols are decoded.

        Cycle 0 takes the start; a chunk is offered in every cycle until they are all taken, and every symbol is taken.
        A symbol is offered in the cycle after its own, and the cycles are complete when `done` is offered.
        """
        sizes = np.ascontiguousarray(sizes, dtype=np.int64)
        times = np.zeros(len(sizes), dtype=np.int64)
        chunks = int(sizes.sum()) // self.chunk_bits + 1
        return _decoder_cycles(sizes, chunks, self.chunk_bits, self.slots, self.max_length, times), times

    def cycles(self, sizes: np.ndarray) -> int:
        """Cycles from the start of an intact stream to its end, without stalls: see `times`."""
        return self.times(sizes)[0]

    def bound(self, count: int, chunks: int) -> int:
        """Cycles after which the decoder is done with any stream, right or wrong, without stalls."""
        return count + chunks + -(-self.slots * self.chunk_bits // self.max_length) + 3
