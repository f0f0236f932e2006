"""Huffman decoders side by side on one stream of chunks: its order, what it holds, and when its symbols are there.

Which chunk goes to which row follows from the code words alone, and so does how many chunks a symbol waits for: both
are found once for a stream (`BankStream`), which is then played as often as tiles of pixels read it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import FormatError
from .huffman import HuffmanCode, HuffmanDecoder, HuffmanResult, HuffmanTable, decode_rows
from .jit import jit

__all__ = ["BankStream", "BankTimes", "HuffmanBank", "interleave"]

MAX_ROWS = 65
"""Of the largest array, and one of its alignment amounts."""

QUEUE = 4
"""Symbols whose requests for chunks may wait in a bank; the symbol after them waits too."""


class BankStream(NamedTuple):
    """The order of a bank's stream, and what its decoders wait for.

    Parameters
    ----------
    sizes : of the code words, int64 (rows used, symbols)
    order : the row that each chunk goes to, int64 (chunks,)
    needs : chunks that must have come before each symbol can be decoded, int64 (symbols,)
    asks : requests for chunks that come of each symbol, int64 (symbols,)
    first : chunks that are asked for in the beginning
    rest : cycles that it takes to look at what is left behind the last symbol
    """

    sizes: np.ndarray
    order: np.ndarray
    needs: np.ndarray
    asks: np.ndarray
    first: int
    rest: int


class BankTimes(NamedTuple):
    """When a bank and what takes its symbols in tiles do what.

    `times` are the cycles in which symbols are decoded, `first` those in which tiles are used, int64. `last_chunk` is
    the cycle of the last chunk, `done` the one in which the bank offers its end or, if that is later, the last symbol
    has been taken; `ready` is the cycle in which one more tile could be used; `wait` are the cycles in which the first
    tile waited for `half`.
    """

    times: np.ndarray
    first: np.ndarray
    last_chunk: int
    done: int
    ready: int
    wait: int


@jit
def _requests(lengths, chunk_bits, slots, order, asks):  # type: ignore[no-untyped-def]
    """Rows in the order in which they ask for chunks, and requests by symbol; returns how many there are."""
    rows, count = lengths.shape
    used = np.zeros(rows, dtype=np.int64)
    asked = 0
    for _ in range(slots):
        for row in range(rows):
            order[asked] = row
            asked += 1
    for k in range(count):
        before = asked
        for row in range(rows):
            filled = used[row] // chunk_bits
            used[row] += lengths[row, k]
            if used[row] // chunk_bits > filled:
                order[asked] = row
                asked += 1
        asks[k] = asked - before
    return asked


@jit
def _places(order, places):  # type: ignore[no-untyped-def]
    """Where each row's chunks are in the order, written to `places` (rows, chunks)."""
    found = np.zeros(len(places), dtype=np.int64)
    for at in range(len(order)):
        row = order[at]
        places[row, found[row]] = at
        found[row] += 1


@jit
def _needs(lengths, chunk_bits, places, needs):  # type: ignore[no-untyped-def]
    """How many chunks have come when the last row has its code word of each symbol."""
    rows, count = lengths.shape
    for row in range(rows):
        used = 0
        for k in range(count):
            used += lengths[row, k]
            if used > 0:
                needs[k] = max(needs[k], places[row, (used - 1) // chunk_bits] + 1)


@jit
def _fill(symbols, words, lengths, chunk_bits, places, chunks):  # type: ignore[no-untyped-def]
    """Write the rows' code words, whose first bit is bit 0, and end marks into zeroed chunks at their places."""
    for row in range(len(symbols)):
        at = bits = 0
        chunk = np.uint64(0)
        for symbol in symbols[row]:
            word, length = words[symbol], lengths[symbol]
            chunk |= word << np.uint64(bits)
            bits += length
            if bits >= chunk_bits:
                chunks[places[row, at]] = chunk
                at += 1
                bits -= chunk_bits
                # What did not fit; all of it where the chunk was full.
                chunk = word >> np.uint64(length - bits) if bits else np.uint64(0)
        chunks[places[row, at]] = chunk | np.uint64(1) << np.uint64(bits)


@jit
def _play(needs, asks, chunks, settings, begin, shadow, ready, passes, half, times, first):  # type: ignore[no-untyped-def]
    """Play a bank of decoders, which takes its start in `begin`, and what takes its symbols: see `HuffmanBank.tiles`.

    `times` receives the cycles in which symbols are decoded, `first` those of the tiles. Returns the cycle of the last
    chunk, that in which the bank is done, `ready` behind the last tile, and the cycles in which the first one waited
    for `half`.

    The requests of a symbol are registered (`fresh`), wait in the queue, and become the ones that are served; the
    queue is passed over while it is empty. What the rows ask for in the beginning is served first.
    """
    serving, rest, columns = settings
    count = len(needs)
    queue = np.zeros(QUEUE + 1, dtype=np.int64)
    taken = k = waiting = fresh = column = tile = wait = 0
    valid = False
    cycle = begin + 1
    last_chunk = done = begin
    while k < count or taken < chunks or valid:
        if valid and cycle < shadow and (taken == chunks or serving + waiting + fresh == 0):
            # Nothing moves before the symbol is taken.
            cycle = shadow
        ended = k == count and taken == chunks
        take = valid and cycle >= shadow
        if take:
            column += 1
            if column == columns:
                column = 0
                can = max(ready, cycle)
                first[tile] = max(can, half) if tile == 0 else can
                wait += first[tile] - can
                shadow, ready = first[tile] + 1, first[tile] + passes[tile]
                tile += 1
        decodes = k < count and (not valid or take) and (taken == chunks or waiting + (fresh > 0) < QUEUE)
        decodes = decodes and needs[k] <= taken
        asked = 0
        if decodes:
            asked = asks[k]
            times[k] = cycle
            k += 1
        if serving and taken < chunks:
            taken += 1
            serving -= 1
            last_chunk = cycle
        if not serving and waiting:
            serving = queue[0]
            queue[:-1] = queue[1:]
            waiting -= 1
        elif not serving:
            serving, fresh = fresh, 0
        if fresh and taken < chunks:
            queue[waiting] = fresh
            waiting += 1
        fresh = asked
        valid = decodes or (valid and not take)
        if k == count and taken == chunks and not ended:
            # The rest of the streams is looked at from the next cycle on, whether or not the last symbols wait.
            done = cycle + 1 + rest
        cycle += 1
    return last_chunk, max(done, cycle), ready, wait


@dataclass(frozen=True, slots=True)
class HuffmanBank:
    """Parameters and golden model of `rows` decoders in lock-step on one stream of chunks.

    A row asks for as many chunks as its buffer holds in the beginning, and for the next one with every symbol that
    uses up a chunk. Requests are served in the order of the symbols, for one symbol in the order of the rows.
    """

    rows: int
    decoder: HuffmanDecoder

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MAX_ROWS:
            raise FormatError(f"a Huffman bank must have 1 to {MAX_ROWS} rows, not {self.rows}")
        if self.decoder.chunk_bits < self.decoder.max_length:
            raise FormatError(
                f"chunks of a Huffman bank must hold a code word of {self.decoder.max_length} bits, "
                f"not {self.decoder.chunk_bits} bits"
            )

    @property
    def row_bits(self) -> int:
        """Bits of a number of rows."""
        return self.rows.bit_length()

    def decode(self, chunks: np.ndarray, table: HuffmanTable, count: int, rows: int) -> HuffmanResult:
        """What the hardware makes of at least one chunk (uint64), whatever they are, with `rows` rows in use."""
        return decode_rows(self.decoder, chunks, table, count, rows)

    def stream(self, sizes: np.ndarray) -> BankStream:
        """The order of the stream whose code words have these sizes, (rows used, symbols)."""
        return self._stream(np.ascontiguousarray(sizes, dtype=np.int64))[0]

    def encode(self, symbols: np.ndarray, code: HuffmanCode) -> tuple[BankStream, np.ndarray]:
        """The stream of the rows' symbols, (rows used, symbols), and its chunks, uint64.

        A row whose stream ends before the others' may still ask for chunks: they are zeros.
        """
        symbols = np.ascontiguousarray(symbols)
        stream, places = self._stream(code.sizes(symbols).astype(np.int64))
        chunks = np.zeros(len(stream.order), dtype=np.uint64)
        lengths = np.array(code.lengths, dtype=np.int64)
        _fill(symbols, _first_bit_first(code), lengths, self.decoder.chunk_bits, places, chunks)
        # A chunk has as many bits as its word of 64 only where they are 64.
        return stream, chunks & np.uint64((1 << self.decoder.chunk_bits) - 1)

    def _stream(self, sizes: np.ndarray) -> tuple[BankStream, np.ndarray]:
        """The stream, and where each row's chunks are in it, int64 (rows, chunks)."""
        rows, slots, chunk_bits = len(sizes), self.decoder.slots, self.decoder.chunk_bits
        if not 1 <= rows <= self.rows:
            raise FormatError(f"a Huffman bank of {self.rows} rows must use 1 to {self.rows} of them, not {rows}")
        bits = sizes.sum(axis=1)
        # The last chunk is the last one that holds anything of its row's stream.
        needed = bits // chunk_bits
        order, asks = np.empty(rows * slots + int(needed.sum()), np.int64), np.empty(sizes.shape[1], np.int64)
        _requests(sizes, chunk_bits, slots, order, asks)
        places = np.zeros((rows, slots + int(needed.max())), dtype=np.int64)
        _places(order, places)
        order = order[: int(places[np.arange(rows), needed].max()) + 1]
        needs = np.zeros(sizes.shape[1], dtype=np.int64)
        _needs(sizes, chunk_bits, places, needs)
        left = np.bincount(order, minlength=rows) * chunk_bits - bits
        rest = max(1, int((-(-left // self.decoder.max_length)).max()))
        return BankStream(sizes, order, needs, asks, rows * slots, rest), places

    def times(self, sizes: np.ndarray) -> tuple[int, np.ndarray]:
        """Cycles of an intact stream whose code words have these sizes (rows used, symbols), and those of the symbols.

        Cycle 0 takes the start; a chunk is offered in every cycle until they are all taken, and every symbol is taken.
        A symbol is offered in the cycle after its own, and the cycles are complete when `done` is offered.
        """
        stream = self.stream(sizes)
        # No tile is ever complete.
        played = self.tiles(stream, len(stream.needs) + 1, begin=0, shadow=0, ready=0, passes=0, half=0)
        return played.done, played.times

    def tiles(
        self,
        stream: BankStream,
        columns: int,
        *,
        begin: int,
        shadow: int,
        ready: int,
        passes: int | np.ndarray,
        half: int,
    ) -> BankTimes:
        """Play an intact stream whose symbols leave in tiles; a chunk comes in every cycle in which one is asked for.

        Parameters
        ----------
        stream : its order
        columns : symbols of a tile
        begin : the cycle that takes the start
        shadow : the first cycle in which a symbol may be taken; then, the cycle after each tile's use
        ready : the first cycle in which a tile may be used, once its last symbol has been taken
        passes : cycles from each tile's use to the next one's at least, int64 (tiles,), or the same for all
        half : the first cycle in which the first tile may be used
        """
        count = len(stream.needs)
        times, first = np.zeros(count, dtype=np.int64), np.zeros(count // columns, dtype=np.int64)
        each = passes if isinstance(passes, np.ndarray) else np.full(first.shape, passes, dtype=np.int64)
        settings = (stream.first, stream.rest, columns)
        last_chunk, done, ready, wait = _play(
            stream.needs, stream.asks, len(stream.order), settings, begin, shadow, ready, each, half, times, first
        )
        return BankTimes(times, first, int(last_chunk), int(done), int(ready), int(wait))

    def cycles(self, sizes: np.ndarray) -> int:
        """Cycles from the start of an intact stream to its end, without stalls: see `times`."""
        return self.times(sizes)[0]

    def bound(self, count: int, chunks: int) -> int:
        """Cycles after which the bank is done with any stream, right or wrong, without stalls."""
        return 3 * count + chunks + -(-self.decoder.slots * self.decoder.chunk_bits // self.decoder.max_length) + 3


def _first_bit_first(code: HuffmanCode) -> np.ndarray:
    """Code words by symbol with their first bit as bit 0, uint64."""
    words = [int(f"{word:0{length}b}"[::-1], 2) for word, length in zip(code.words.tolist(), code.lengths, strict=True)]
    return np.array(words, dtype=np.uint64)


def interleave(row_streams: Sequence[np.ndarray], code: HuffmanCode, count: int, bank: HuffmanBank) -> np.ndarray:
    """The one stream of chunks, uint64, that a bank reads: of the rows' streams of `count` symbols, as bytes."""
    return bank.encode(np.stack([code.decode(data, count) for data in row_streams]), code)[1]
