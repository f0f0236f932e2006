"""XOR-coded weights as they stream to the engine, and when its loader has decoded them.

A layer's stream begins with its networks: for each one a chunk of 32 bits with inputs and outputs, and the mask of
every output in a chunk of its own. In the place of a row group's weight tiles stand *runs*: rows of the tiles whose
signs follow each other in the order in which they were encrypted. A run is a header of two chunks, `RUN_FIELDS` and
the number of the chunks behind it, and then the slices that hold its signs, as they are stored. Zeros fill every row
group's runs up to equally many words: a register says how many. Each tile of pixels reads them anew.

A row whose signs do not follow each other, or do not fill the lanes, takes runs of its own. So a layer of one plane,
encrypted in the order of this array's tiles, is one run a row group, of hardly more than n_in / n_out bits a weight;
in every other order, or where planes take turns, a slice stands there once for each run that needs some of it.

Layers that are not encrypted have the identity for a network, and are one run a row group, with signs for all lanes.
In a depthwise layer the signs of a tile are one row, which has each channel's in its own lane.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..kernels.jit import jit
from ..kernels.xor import XorNetwork, XorProgrammable
from ..kernels.xor_stream import XorDecoder, XorStream
from .arrays import ArrayForm
from .coded import PassTimes
from .engine import CHUNK_BITS, XOR_NETWORKS, XOR_WIDTH, EngineConfig
from .lowered import RowGroup
from .tiles import step_tiles

__all__ = ["HEADER_CHUNKS", "LENGTH_BITS", "OUTPUTS_AT", "RUN_FIELDS", "XorSigns", "XorStreams", "xor_decoder"]

LENGTH_BITS = 16
"""Of a run's length."""
OUTPUTS_AT = 8
"""Place of a network's outputs in the chunk with its sizes; below it stand its inputs."""
HEADER_CHUNKS = 2
RUN_FIELDS = {"length": LENGTH_BITS, "skip": 5, "lane": 6, "network": 2, "row_end": 1, "pass_end": 1}
"""Bits of the fields of a run's first chunk, from bit 0 on.

Signs; outputs of the first slice that are none of them; the lane of the first sign; the network; whether the last row
of a tile's lanes is complete with this run; whether the pass is.
"""


def xor_decoder(engine: EngineConfig) -> XorDecoder:
    """The decoder of an engine, a row of lanes wide."""
    matrices = XorProgrammable(XOR_WIDTH, XOR_WIDTH, XOR_NETWORKS)
    return XorDecoder(XorStream(matrices, CHUNK_BITS), engine.lanes, LENGTH_BITS)


@dataclass(frozen=True, slots=True)
class XorSigns:
    """The encrypted signs of a layer.

    Parameters
    ----------
    networks : of each plane
    slices : of each plane, uint8 (slices, n_in)
    places : of the signs in the order of their slices, int64 (out, in per group, ky, kx)
    """

    networks: tuple[XorNetwork, ...]
    slices: tuple[np.ndarray, ...]
    places: np.ndarray


@dataclass(frozen=True)
class _Runs:
    """The runs of a pass; int64 (runs,) each, but for `slices`: those of each plane, uint8 (slices, n_in)."""

    plane: np.ndarray
    place: np.ndarray
    lane: np.ndarray
    length: np.ndarray
    row_end: np.ndarray
    slices: tuple[np.ndarray, ...]
    outputs: np.ndarray

    @cached_property
    def inputs(self) -> np.ndarray:
        """Bits of a slice."""
        return np.asarray(np.array([each.shape[1] for each in self.slices])[self.plane])

    @cached_property
    def counts(self) -> np.ndarray:
        """Slices."""
        return np.asarray(-(-(self.place % self.outputs + self.length) // self.outputs))

    @cached_property
    def chunks(self) -> np.ndarray:
        """Chunks of the slices."""
        return np.asarray(-(-self.counts * self.inputs // CHUNK_BITS))

    @property
    def total(self) -> int:
        """Chunks of the pass, without the zeros behind."""
        return int(self.chunks.sum()) + HEADER_CHUNKS * len(self.plane)


class XorStreams:
    """A layer's networks and streams: `signs` as they are encrypted, or None.

    `table` are words, uint8 (words, bus_bits / 8).
    """

    def __init__(
        self, form: ArrayForm, groups: Sequence[RowGroup], engine: EngineConfig, signs: XorSigns | None
    ) -> None:
        self.engine = engine
        if signs is None:
            size = min(engine.lanes, XOR_WIDTH)
            self.networks: tuple[XorNetwork, ...] = (XorNetwork(size, size, tuple(1 << at for at in range(size))),)
            self.network_of = np.zeros(1, dtype=np.int64)
        else:
            self.networks = tuple(dict.fromkeys(signs.networks))
            self.network_of = np.array([self.networks.index(network) for network in signs.networks])
        entries = [
            chunk for network in self.networks for chunk in (network.n_in | network.n_out << OUTPUTS_AT, *network.rows)
        ]
        self.table = self._words(np.array(entries))
        self.tile_rows = tuple(1 if form.layer.shape.depthwise else group.rows for group in groups)
        self.passes = tuple(
            self._plain(form, group) if signs is None else self._encrypted(form, group, signs) for group in groups
        )

    @property
    def table_words(self) -> int:
        """Bus words of the networks."""
        return len(self.table)

    @property
    def table_chunks(self) -> int:
        """Chunks of the networks, those included that fill up the last word."""
        return self.table_words * self.engine.bus_bits // CHUNK_BITS

    @cached_property
    def weight_words(self) -> int:
        """Bus words of a row group's stream."""
        return -(-max(runs.total for runs in self.passes) * CHUNK_BITS // self.engine.bus_bits)

    def padding(self, index: int) -> int:
        """Chunks of zeros at the end of a row group's stream."""
        return self.weight_words * self.engine.bus_bits // CHUNK_BITS - self.passes[index].total

    def times(self, index: int, header: int, shadow: int, ready: int, passes: int | np.ndarray, half: int) -> PassTimes:
        """Play the stream of a row group, whose first chunk comes in cycle `header`: see `CodedPass.times`."""
        runs = self.passes[index]
        table = np.stack(
            [runs.length, runs.place % runs.outputs, runs.inputs, runs.outputs, runs.row_end], axis=1
        ).astype(np.int64)
        rows = int(np.where(runs.row_end, -(-runs.length // self.engine.lanes), 0).sum())
        first = np.zeros(rows // self.tile_rows[index], dtype=np.int64)
        settings = np.array([CHUNK_BITS, self.engine.lanes, self.tile_rows[index]])
        each = np.full(first.shape, passes, dtype=np.int64)
        result = _pass_times(table, settings, header, shadow, ready, each, half, first)
        last_chunk, last_row, ready, post_wait = (int(value) for value in result)
        taken = last_chunk + self.padding(index)
        return PassTimes(first, header, taken, max(taken, last_row) + 1, ready, post_wait)

    def words(self, index: int) -> np.ndarray:
        """A row group's stream, uint8 (words, bus_bits / 8)."""
        runs = self.passes[index]
        networks = self.network_of[runs.plane]
        ends = np.arange(len(networks)) == len(networks) - 1
        fields = (runs.length, runs.place % runs.outputs, runs.lane, networks, runs.row_end, ends)
        heads, at = np.zeros(len(networks), dtype=np.int64), 0
        for values, bits in zip(fields, RUN_FIELDS.values(), strict=True):
            heads |= values.astype(np.int64) << at
            at += bits
        chunks = np.zeros(runs.total + self.padding(index), dtype=np.uint32)
        begins = np.cumsum(runs.chunks + HEADER_CHUNKS) - runs.chunks
        chunks[begins - 2], chunks[begins - 1] = heads, runs.chunks
        content = chunks.view(np.uint8)
        firsts = runs.place // runs.outputs
        for plane, first, count, begin in zip(runs.plane, firsts, runs.counts, begins, strict=True):
            packed = np.packbits(runs.slices[plane][first : first + count].reshape(-1), bitorder="little")
            content[4 * begin : 4 * begin + len(packed)] = packed
        return self._words(chunks)

    def _words(self, chunks: np.ndarray) -> np.ndarray:
        size = self.engine.bus_bits // CHUNK_BITS
        padded = np.pad(chunks.astype(np.uint32), (0, -len(chunks) % size))
        return padded.view(np.uint8).reshape(-1, self.engine.bus_bits // 8)

    def _rows(self, form: ArrayForm, group: RowGroup) -> np.ndarray:
        """Rows of all tiles in turn, (tiles, rows, lanes)."""
        tiles = []
        for codes, _ in step_tiles(form, group, self.engine.lanes):
            rows = codes
            if form.layer.shape.depthwise:
                rows = np.zeros((1, self.engine.lanes), dtype=codes.dtype)
                rows[0, group.lane : group.lane + group.rows] = codes[:, 0]
            tiles.append(rows)
        return np.stack(tiles)

    def _plain(self, form: ArrayForm, group: RowGroup) -> _Runs:
        lanes, size = self.engine.lanes, self.networks[0].n_out
        bits = self._rows(form, group).astype(np.uint8).reshape(-1)
        most = _most_rows(lanes) * lanes
        place = np.arange(0, len(bits), most)
        length = np.minimum(len(bits) - place, most)
        same = np.zeros_like(place)
        return _Runs(same, place, same, length, same + 1, (bits.reshape(-1, size),), same + size)

    def _encrypted(self, form: ArrayForm, group: RowGroup, signs: XorSigns) -> _Runs:
        lanes, planes = self.engine.lanes, len(signs.networks)
        # Places from 1 on: 0 is a lane without a weight.
        each = np.broadcast_to(signs.places + 1, (planes, *signs.places.shape))
        tiles = self._rows(replace(form, codes=each), group)
        rows = tiles.reshape(-1, lanes)
        plane_of_row = np.arange(len(rows)) // tiles.shape[1] % planes

        # The parts of each row that lie together.
        before = np.pad(rows, ((0, 0), (1, 0)))[:, :-1]
        begins = (rows > 0) & ((before == 0) | (rows != before + 1))
        row, lane = np.nonzero(begins)
        part = np.cumsum(begins.reshape(-1)) - 1
        length = np.bincount(part[rows.reshape(-1) > 0], minlength=len(row))
        place, plane = rows[row, lane] - 1, plane_of_row[row]
        row_end = np.append(row[1:] != row[:-1], True)

        # Whole rows that lie together are one run.
        whole = length == lanes
        joined = np.zeros(len(row), dtype=np.bool_)
        joined[1:] = whole[1:] & whole[:-1] & (plane[1:] == plane[:-1]) & (place[1:] == place[:-1] + lanes)
        starts = np.flatnonzero(~joined)
        since = np.arange(len(row)) - starts[np.cumsum(~joined) - 1]
        starts = np.flatnonzero(~joined | (since % _most_rows(lanes) == 0))
        outputs = np.array([network.n_out for network in signs.networks])[plane[starts]]
        lengths = np.add.reduceat(length, starts)
        return _Runs(plane[starts], place[starts], lane[starts], lengths, row_end[starts], signs.slices, outputs)


def _most_rows(lanes: int) -> int:
    """Rows of the longest run: whole slices of every size that a plain layer's network has."""
    return ((1 << LENGTH_BITS) - 1) // (XOR_WIDTH * lanes) * XOR_WIDTH


@jit
def _pass_times(runs, settings, begin, shadow, ready, passes, half, first):  # type: ignore[no-untyped-def]
    """Play the runs of a pass by the rules of `kernels.xor_stream`, with rows that wait for the shadow tile.

    Returns the cycles of the last chunk and of the last row's taking, `ready` behind the last step, and the cycles
    in which the first step waited for its half.
    """
    chunk, row_bits, tile_rows = settings
    now = last_chunk = begin
    taken = row = tile = post_wait = 0
    for run in range(len(runs)):
        left, dropped, n_in, n_out, row_end = runs[run]
        # The header comes when the run before is decoded, the first slice behind its two chunks.
        last = now + 2
        decoded = level = 0
        while left > 0:
            take = min(left, row_bits)
            now = max(now, taken - 1)
            end = now
            while level < take:
                wait = (decoded * n_in + n_in + chunk - 1) // chunk - (decoded * n_in + chunk - 1) // chunk
                if wait > 0:
                    last_chunk = last + wait - 1
                last = end = max(end + 1, last + wait)
                decoded += 1
                level += n_out - dropped
                dropped = 0
            now = max(end, now + 1)
            level -= take
            left -= take
            taken = max(now + 1, shadow)
            if left > 0 or row_end:
                row += 1
            if row == tile_rows:
                row = 0
                can = max(ready, taken)
                first[tile] = max(can, half) if tile == 0 else can
                post_wait += first[tile] - can
                shadow, ready = first[tile] + 1, first[tile] + passes[tile]
                tile += 1
    return last_chunk, taken, ready, post_wait
