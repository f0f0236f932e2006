"""XOR-coded weight stream: bus words to slices, slices to weight bits, weight bits to runs of rows.

A *frame* is a packed stream of slices, first bit in bit 0 of the first word, and the runs that read it. A *run* is a
number of consecutive weight bits that leave in *rows* of W bits. It continues where the run before it ended, within a
slice or not, or it restarts: at the next slice of the stream, whose first `skip` outputs are dropped. In the order in
which the slices were coded runs continue; in any other order the stream holds every slice that a run touches once
more, and the run restarts.

Cycles, words always offered and rows always taken. The hardware takes a word when the next slice is incomplete, and
decodes a slice when a row lacks bits. Let w(s) = ceil(s * n_in / B) be the words of the first s slices. The first slice
of a frame is decoded w(1) cycles after the frame's first cycle. Slice s, counted from 0, is decoded
max(w(s + 1) - w(s), 1 + e) cycles after the one before, e being the rows in between that needed no slice: one slice a
cycle wherever B >= n_in and rows can take them, else one in n_in / B cycles on average. A run ends as many cycles after
its last slice as rows follow that need none; its cycles are counted from the end of the run before.

Where B >= n_in, a run of R = ceil(length / W) rows has a closed form. It needs p(d) slices for its first d bits:

    p(d) = ceil((skip + d) / n_out)           if it restarts, p(0) = 0
    p(d) = ceil((s + d) / n_out) - [s > 0]    if it continues after s outputs of a slice, 0 <= s < n_out

    cycles = R + [p(min(W, length)) > 1]                          if W <= n_out
    cycles = p(length) + [p(length) = p((R - 1) * W)]             if W > n_out

and one more cycle for the first run of a frame, in which its first word comes. Both are the sum over the rows of
max(1, slices that the row needs). Where B < n_in and W >= n_out, the first run of a frame takes
w(p(length)) + 1 + [p(length) = p((R - 1) * W)] cycles: the words set the pace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import FormatError
from .jit import jit
from .xor import XorNetwork, XorProgrammable

__all__ = [
    "MAX_ROW_BITS",
    "WORD_BITS",
    "XorDecoder",
    "XorRows",
    "XorRun",
    "XorSchedule",
    "XorStream",
    "run_cycles",
    "schedule_runs",
]

WORD_BITS = (8, 16, 32, 64, 128, 256, 512)
MAX_ROW_BITS = 64


class XorRun(NamedTuple):
    """A run of `length` weight bits, at least 1, of the matrix `plane`.

    `skip` counts only where it restarts; the first run of a frame begins at its first slice either way.
    """

    length: int
    skip: int = 0
    restart: bool = True
    plane: int = 0


class XorSchedule(NamedTuple):
    """What each run of a frame takes; int64 arrays of shape (runs,).

    `slices` are decoded, `words` taken, `rows` leave; `cycles` lead from the end of the run before to the cycle in
    which the last row is made.
    """

    slices: np.ndarray
    words: np.ndarray
    rows: np.ndarray
    cycles: np.ndarray


@jit
def _schedule(length, skip, restart, n_in, n_out, word_bits, row_bits, slices, words, cycles):  # type: ignore[no-untyped-def]
    decoded, level = 0, 0
    now, last = -1, 0
    for run in range(len(length)):
        start, first_slice = now, decoded
        dropped = 0
        if restart[run]:
            level, dropped = 0, skip[run]
        left = length[run]
        while left > 0:
            take = min(left, row_bits)
            end = now
            while level < take:
                before = -(-decoded * n_in // word_bits)
                wait = -(-(decoded + 1) * n_in // word_bits) - before
                last = end = max(end + 1, last + wait)
                decoded += 1
                level += n_out - dropped
                dropped = 0
            now = max(end, now + 1)
            level -= take
            left -= take
        slices[run] = decoded - first_slice
        words[run] = -(-decoded * n_in // word_bits) + (-first_slice * n_in // word_bits)
        cycles[run] = now - start


def schedule_runs(runs: Sequence[XorRun], n_in: int, n_out: int, word_bits: int, row_bits: int) -> XorSchedule:
    """Slices, words, rows and cycles of the runs of one frame."""
    table = np.array([(run.length, run.skip, run.restart) for run in runs], dtype=np.int64).reshape(-1, 3)
    length, skip, restart = (np.ascontiguousarray(column) for column in table.T)
    if table.size and (length.min() < 1 or skip.min() < 0 or skip.max() >= n_out):
        raise FormatError(f"an XOR run must have at least 1 bit and skip 0 to {n_out - 1} outputs")
    slices, words, cycles = (np.zeros_like(length) for _ in range(3))
    _schedule(length, skip, restart, n_in, n_out, word_bits, row_bits, slices, words, cycles)
    return XorSchedule(slices, words, -(-length // row_bits), cycles)


def run_cycles(length: int, offset: int, restart: bool, n_out: int, row_bits: int) -> int:
    """Cycles of a run where a word holds at least a slice: the closed form of the module's docstring.

    `offset` is the run's `skip` where it restarts, else the outputs of the present slice that are gone. The cycle in
    which the first word of a frame comes is not counted.
    """
    gone = 0 if restart or offset == 0 else 1

    def needed(bits: int) -> int:
        return -(-(offset + bits) // n_out) - gone if bits else 0

    rows = -(-length // row_bits)
    if row_bits <= n_out:
        return rows + (needed(min(row_bits, length)) > 1)
    return needed(length) + (needed(length) == needed((rows - 1) * row_bits))


@dataclass(frozen=True, slots=True)
class XorStream:
    """Parameters of the decoder of bus words to vectors of weight bits.

    Parameters
    ----------
    matrices : networks of one size, one a plane, which become gates; or the registers that hold them
    word_bits : bits of a bus word, a power of two from 8 to 512
    """

    matrices: tuple[XorNetwork, ...] | XorProgrammable
    word_bits: int = 128

    def __post_init__(self) -> None:
        if self.word_bits not in WORD_BITS:
            raise FormatError(f"XOR stream words must have {', '.join(map(str, WORD_BITS))} bits, not {self.word_bits}")
        if isinstance(self.matrices, tuple):
            sizes = {(network.n_in, network.n_out) for network in self.matrices}
            if len(sizes) != 1:
                raise FormatError(f"XOR planes must be at least one network, all of one size, not {len(sizes)} sizes")

    @property
    def programmable(self) -> bool:
        """Whether the matrices are registers."""
        return isinstance(self.matrices, XorProgrammable)

    @property
    def n_in(self) -> int:
        """Most inputs of a slice."""
        return self.matrices[0].n_in if isinstance(self.matrices, tuple) else self.matrices.n_in

    @property
    def n_out(self) -> int:
        """Most outputs of a slice."""
        return self.matrices[0].n_out if isinstance(self.matrices, tuple) else self.matrices.n_out

    @property
    def planes(self) -> int:
        """Matrices side by side."""
        return len(self.matrices) if isinstance(self.matrices, tuple) else self.matrices.planes

    @property
    def grain(self) -> int:
        """What every number of bits held between slices is a multiple of: gcd(n_in, B), a power of two."""
        return 1 if self.programmable else min(self.n_in & -self.n_in, self.word_bits)

    def words(self, data: bytes) -> list[int]:
        """A packed stream as bus words; the last is filled up with zeros."""
        size = self.word_bits // 8
        return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


@dataclass(frozen=True, slots=True)
class XorRows:
    """Parameters of the cutting of vectors of weight bits into runs of rows.

    Parameters
    ----------
    n_out : most bits of a vector, 1..64
    row_bits : W, bits of a row, a power of two from 1 to 64
    length_bits : bits of a run's length, 1..32
    planes : matrices that a run can name
    programmable : whether the bits of a vector are set at run time
    """

    n_out: int
    row_bits: int = 16
    length_bits: int = 16
    planes: int = 1
    programmable: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.row_bits <= MAX_ROW_BITS or self.row_bits & (self.row_bits - 1):
            raise FormatError(f"XOR rows must have a power of two from 1 to {MAX_ROW_BITS} bits, not {self.row_bits}")
        if not 1 <= self.length_bits <= 32:
            raise FormatError(f"XOR run lengths must have 1 to 32 bits, not {self.length_bits}")

    @property
    def pool_bits(self) -> int:
        """Most bits that are kept from one cycle to the next."""
        return max(self.row_bits, self.n_out) - 1

    def cut(self, bits: np.ndarray, runs: Sequence[XorRun], n_out: int) -> np.ndarray:
        """Rows (rows, W), uint8, of the outputs `bits` of all slices in order; beyond its run's length a row is 0."""
        rows, at = [], 0
        for run in runs:
            if run.restart:
                at = -(-at // n_out) * n_out + run.skip
            padded = np.zeros(-(-run.length // self.row_bits) * self.row_bits, dtype=np.uint8)
            padded[: run.length] = bits[at : at + run.length]
            rows.append(padded.reshape(-1, self.row_bits))
            at += run.length
        return np.concatenate(rows)


@dataclass(frozen=True, slots=True)
class XorDecoder:
    """Parameters and golden model of bus words to runs of rows."""

    stream: XorStream
    row_bits: int = 16
    length_bits: int = 16

    def __post_init__(self) -> None:
        _ = self.rows  # it checks the widths

    @property
    def rows(self) -> XorRows:
        """Parameters of the cutting."""
        stream = self.stream
        return XorRows(stream.n_out, self.row_bits, self.length_bits, stream.planes, stream.programmable)

    def networks(self, networks: Sequence[XorNetwork] | None) -> Sequence[XorNetwork]:
        """The constant matrices, or the given ones where they are registers."""
        if isinstance(self.stream.matrices, tuple):
            return self.stream.matrices
        self.stream.matrices.check(networks or ())
        return networks or ()

    def schedule(self, runs: Sequence[XorRun], networks: Sequence[XorNetwork] | None = None) -> XorSchedule:
        """Slices, words, rows and cycles of the runs of one frame."""
        network = self.networks(networks)[0]
        return self.schedule_of(runs, network.n_in, network.n_out)

    def schedule_of(self, runs: Sequence[XorRun], n_in: int, n_out: int) -> XorSchedule:
        """The same for networks of a given size, which may be less than the maxima."""
        return schedule_runs(runs, n_in, n_out, self.stream.word_bits, self.row_bits)

    def compute(
        self, data: bytes, runs: Sequence[XorRun], networks: Sequence[XorNetwork] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (rows, W), uint8, of one frame, and which of them lack bits, bool (rows,).

        `data` is the packed stream, as many bytes as it was cut short to: a slice that it does not hold whole
        gives zeros, and every row from the first that needs it up to the next restart is marked.
        """
        held = self.networks(networks)
        n_in, n_out = held[0].n_in, held[0].n_out
        counts = self.schedule(runs, networks).slices
        present = len(data) * 8 // n_in
        stored = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")[: present * n_in]
        slices = np.zeros((max(int(counts.sum()), present), n_in), dtype=np.uint8)
        slices[:present] = stored.reshape(-1, n_in)
        planes = np.repeat([run.plane for run in runs], counts)
        vectors = np.zeros((counts.sum(), n_out), dtype=np.uint8)
        for plane, network in enumerate(held):
            vectors[planes == plane] = network.decode(slices[: counts.sum()][planes == plane])
        rows = self.rows.cut(vectors.reshape(-1), runs, n_out)
        return rows, self._short(runs, counts, present, n_out)

    def _short(self, runs: Sequence[XorRun], counts: np.ndarray, present: int, n_out: int) -> np.ndarray:
        """Which rows come after the stream's end."""
        marks = []
        at, lost = 0, False
        for run, first in zip(runs, (np.cumsum(counts) - counts).tolist(), strict=True):
            if run.restart:
                at, lost = first * n_out + run.skip, False
            for start in range(0, run.length, self.row_bits):
                needed = -(-(at + min(start + self.row_bits, run.length)) // n_out)
                lost = lost or needed > present
                marks.append(lost)
            at += run.length
        return np.array(marks, dtype=np.bool_)
