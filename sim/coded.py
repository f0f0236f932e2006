"""Huffman-coded weights as they stream to the engine, and when its loader has decoded them.

A layer's stream begins with the decoder's table: chunks of 32 bits, address and value of an entry in turn. In the
place of a row group's weight tiles stands what it takes to decode them: symbols and rows in use in one chunk,
the number of the coded chunks in the next, then these (`kernels.huffman_bank`), then zeros, for all
row groups of a layer equally many words: a register says how many. Each tile of pixels reads them anew.

The symbols are the bytes of the codes: of a row's lanes in turn, tile by tile. Where the layer is aligned, the
amounts are row 0, and the rows of the array follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..kernels.huffman import HuffmanCode, HuffmanDecoder
from ..kernels.huffman_bank import BankStream, HuffmanBank
from .arrays import ArrayForm
from .engine import CHUNK_BITS, EngineConfig
from .lowered import RowGroup
from .tiles import group_tiles

__all__ = ["HEADER_CHUNKS", "ROWS_AT", "CodedPass", "HuffmanStreams", "PassTimes", "huffman_bank"]

HEADER_CHUNKS = 2
ROWS_AT = 24
"""Place of the number of rows in a header's first chunk; below it stands the number of symbols."""


def huffman_bank(engine: EngineConfig) -> HuffmanBank:
    """The decoders of an engine: one for each row, and where it aligns one for the amounts."""
    rows = engine.rows + engine.aligns
    return HuffmanBank(rows, HuffmanDecoder(chunk_bits=CHUNK_BITS, count_bits=ROWS_AT))


@dataclass(frozen=True, slots=True)
class PassTimes:
    """When the tiles of a row group's stream are there: `first` are the first reads of its steps.

    `header` is the cycle of the first chunk of the stream, `taken` that of its last word, `done` the first cycle in
    which the next stream can begin, `ready` that in which the array is through with the last step's reads.
    """

    first: np.ndarray
    header: int
    taken: int
    done: int
    ready: int
    post_wait: int


@dataclass(frozen=True)
class CodedPass:
    """A row group's stream, its chunks, and the columns of a tile."""

    stream: BankStream
    chunks: np.ndarray
    columns: int

    def times(
        self,
        bank: HuffmanBank,
        header: int,
        padding: int,
        shadow: int,
        ready: int,
        passes: int | np.ndarray,
        half: int,
    ) -> PassTimes:
        """Play the stream.

        Parameters
        ----------
        header : the cycle of its first chunk
        padding : chunks of zeros behind it
        shadow : the first cycle in which the shadow tile takes codes
        ready : the first cycle in which the next step may begin, its weights apart
        passes : cycles from each step to the next one at least, int64 (steps,), or the same for all
        half : the first cycle in which the tile's half of the accumulators is free
        """
        begin = header + HEADER_CHUNKS
        played = bank.tiles(
            self.stream,
            self.columns,
            begin=begin,
            shadow=shadow,
            ready=ready,
            passes=passes,
            half=half,
        )
        last_chunk = max(played.last_chunk, begin) + padding
        return PassTimes(
            played.first, header, last_chunk, max(played.done, last_chunk + 1) + 1, played.ready, played.wait
        )


class HuffmanStreams:
    """A layer's table and streams.

    `table` are words, uint8 (words, bus_bits / 8).
    """

    def __init__(self, form: ArrayForm, groups: Sequence[RowGroup], engine: EngineConfig) -> None:
        self.engine = engine
        self.bank = huffman_bank(engine)
        symbols = [_symbols(form, group, engine.lanes) for group in groups]
        counts = sum(np.bincount(rows.reshape(-1), minlength=256) for rows in symbols)
        self.code = HuffmanCode.of(np.asarray(counts))
        self.columns = symbols[0].shape[1] // _steps(form, groups[0])
        entries = self.bank.decoder.table_words(self.code)
        # The last word is filled up with what is written already.
        entries = np.pad(entries, ((0, -len(entries) % max(1, engine.bus_bits // CHUNK_BITS // 2)), (0, 0)), "edge")
        self.table = self._words(entries.reshape(-1))
        self.passes = tuple(CodedPass(*self.bank.encode(rows, self.code), self.columns) for rows in symbols)

    @property
    def table_words(self) -> int:
        """Bus words of the table."""
        return len(self.table)

    @property
    def table_chunks(self) -> int:
        """Chunks of the table, those included that fill up its last word."""
        return self.table_words * self.engine.bus_bits // CHUNK_BITS

    def times(self, index: int, header: int, shadow: int, ready: int, passes: int | np.ndarray, half: int) -> PassTimes:
        """Play the stream of a row group: see `CodedPass.times`."""
        return self.passes[index].times(self.bank, header, self.padding(index), shadow, ready, passes, half)

    @cached_property
    def weight_words(self) -> int:
        """Bus words of a row group's stream."""
        most = max(len(each.chunks) for each in self.passes) + HEADER_CHUNKS
        return -(-most * CHUNK_BITS // self.engine.bus_bits)

    @property
    def chunks(self) -> int:
        """Chunks of a row group's stream, zeros included."""
        return self.weight_words * self.engine.bus_bits // CHUNK_BITS

    def padding(self, index: int) -> int:
        """Chunks of zeros at the end of a row group's stream."""
        return self.chunks - HEADER_CHUNKS - len(self.passes[index].chunks)

    def words(self, index: int) -> np.ndarray:
        """A row group's stream, uint8 (words, bus_bits / 8)."""
        each = self.passes[index]
        rows, symbols = each.stream.sizes.shape
        return self._words(
            np.pad([symbols | rows << ROWS_AT, len(each.chunks), *each.chunks], (0, self.padding(index)))
        )

    def _words(self, chunks: np.ndarray) -> np.ndarray:
        size = self.engine.bus_bits // CHUNK_BITS
        padded = np.pad(np.asarray(chunks).astype(np.uint32), (0, -len(chunks) % size))
        return padded.view(np.uint8).reshape(-1, self.engine.bus_bits // 8)


def _steps(form: ArrayForm, group: RowGroup) -> int:
    kernel = form.layer.shape.kernel
    return kernel[0] * kernel[1] * group.lane_groups * len(form.codes)


def _symbols(form: ArrayForm, group: RowGroup, lanes: int) -> np.ndarray:
    """Bytes of the codes, uint8 (rows, symbols), amounts first where there are any."""
    codes, amounts = group_tiles(form, group, lanes)
    whole = codes.astype(np.uint8)
    if amounts is not None:
        if codes.shape[2] == 1 and form.layer.shape.depthwise:
            # Amounts have as many columns as lanes; so have the weights beside them.
            rows = np.arange(codes.shape[1])
            diagonal = np.zeros((*codes.shape[:2], lanes), dtype=np.uint8)
            diagonal[:, rows, group.lane + rows] = whole[:, :, 0]
            whole = diagonal
        whole = np.concatenate([amounts[:, None].astype(np.uint8), whole], axis=1)
    return np.ascontiguousarray(whole.transpose(1, 0, 2)).reshape(whole.shape[1], -1)
