"""XOR network: few encrypted bits to many binary weights (FleXOR, section 3 of the paper).

A network is a matrix M over GF(2). Each slice of `n_in` stored bits x makes `n_out` weight bits
y = M x, bit 1 being the weight +1 and bit 0 the weight -1. The paper writes the same in signs, where an
XOR of the n inputs s_j in {-1, +1} is (-1)^(n-1) * s_1 * ... * s_n (its equations 2 and 4). The two are one: the
product of the signs is (-1)^(n-k) with k the number of ones, so that with its factor it is -(-1)^k: +1 exactly
where k is odd. The factor is what makes even and odd numbers of taps alike; no output is ever inverted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import FormatError
from .jit import jit
from .xor_search import nearest_slices

__all__ = ["MAX_PLANES", "MAX_WIDTH", "XorNetwork", "XorProgrammable"]

MAX_WIDTH = 64
"""Most inputs, and most outputs, of a network."""

MAX_PLANES = 8
"""Most matrices that hardware holds side by side."""


@jit
def _decode_slices(data, rows, n_in, bits):  # type: ignore[no-untyped-def]
    """Weight bits of a packed stream; `bits` is as long as the outputs that are wanted."""
    n_out = len(rows)
    for base in range(0, len(bits), n_out):
        start = base // n_out * n_in
        word = np.uint64(0)
        for k in range(n_in):
            bit = data[(start + k) >> 3] >> ((start + k) & 7) & 1
            word |= np.uint64(bit) << np.uint64(k)
        for o in range(min(n_out, len(bits) - base)):
            parity = word & rows[o]
            for shift in (32, 16, 8, 4, 2, 1):
                parity ^= parity >> np.uint64(shift)
            bits[base + o] = parity & np.uint64(1)


def _check_size(what: str, value: int) -> None:
    if not 1 <= value <= MAX_WIDTH:
        raise FormatError(f"XOR network {what} must be 1 to {MAX_WIDTH}, not {value}")


@dataclass(frozen=True, slots=True)
class XorNetwork:
    """Parameters and golden model of one XOR network.

    Parameters
    ----------
    n_in : stored bits of a slice, 1..64
    n_out : weight bits of a slice, 1..64
    rows : for each output the inputs that it is the XOR of, as a mask: bit j is input j; none is 0
    """

    n_in: int
    n_out: int
    rows: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_size("inputs", self.n_in)
        _check_size("outputs", self.n_out)
        if len(self.rows) != self.n_out:
            raise FormatError(f"XOR network must have a row for each of {self.n_out} outputs, not {len(self.rows)}")
        for o, row in enumerate(self.rows):
            if not 0 < row < 1 << self.n_in:
                raise FormatError(f"row {o} of the XOR network must tap 1 to {self.n_in} inputs, not mask {row:#x}")

    @classmethod
    def random(cls, n_in: int, n_out: int, taps: int | None, seed: int) -> "XorNetwork":
        """A random network: `taps` distinct inputs a row, or each input with probability 1/2 where None.

        Rows may be equal, as in the paper; a row without taps is drawn again.
        """
        _check_size("inputs", n_in)
        _check_size("outputs", n_out)
        if taps is not None and not 1 <= taps <= n_in:
            raise FormatError(f"taps of a row must be 1 to {n_in}, not {taps}")
        rng = np.random.default_rng(seed)
        rows: list[int] = []
        while len(rows) < n_out:
            if taps is None:
                tapped = np.flatnonzero(rng.integers(0, 2, n_in))
            else:
                tapped = rng.choice(n_in, taps, replace=False)
            if tapped.size:
                rows.append(sum(1 << int(j) for j in tapped))
        return cls(n_in, n_out, tuple(rows))

    @classmethod
    def of(cls, matrix: np.ndarray) -> "XorNetwork":
        """The network of a matrix of zeros and ones, (n_out, n_in)."""
        matrix = np.asarray(matrix)
        if matrix.ndim != 2 or not np.isin(matrix, (0, 1)).all():
            raise FormatError("XOR matrix must be zeros and ones of shape (n_out, n_in)")
        rows = tuple(sum(int(bit) << j for j, bit in enumerate(row)) for row in matrix)
        return cls(matrix.shape[1], matrix.shape[0], rows)

    @property
    def matrix(self) -> np.ndarray:
        """M, uint8 of shape (n_out, n_in)."""
        return np.array([[row >> j & 1 for j in range(self.n_in)] for row in self.rows], dtype=np.uint8)

    @property
    def masks(self) -> np.ndarray:
        """The rows as uint64."""
        return np.array(self.rows, dtype=np.uint64)

    @property
    def rank(self) -> int:
        """Rank of M over GF(2): the decoder makes 2**rank different vectors."""
        basis: list[int] = []
        for row in self.rows:
            reduced = row
            for vector in basis:
                reduced = min(reduced, reduced ^ vector)
            if reduced:
                basis.append(reduced)
        return len(basis)

    @property
    def gates(self) -> int:
        """Two-input XOR gates without any sharing: the sum over the outputs of their taps less one."""
        return sum(row.bit_count() - 1 for row in self.rows)

    def slices(self, count: int) -> int:
        """Slices that hold `count` weights."""
        return -(-count // self.n_out)

    def stream_bytes(self, count: int) -> int:
        """Bytes of the packed stream of `count` weights."""
        return -(-self.slices(count) * self.n_in // 8)

    def decode(self, slices: np.ndarray) -> np.ndarray:
        """Weight bits (..., n_out), uint8, of slices of bits (..., n_in)."""
        slices = np.asarray(slices)
        if slices.shape[-1:] != (self.n_in,) or not np.isin(slices, (0, 1)).all():
            raise FormatError(f"slices must be bits of shape (..., {self.n_in}), not of {slices.shape}")
        # A row has at most 64 taps, so that the sum stays within 8 bits.
        sums: np.ndarray = slices.astype(np.uint8) @ self.matrix.T
        return sums & 1

    def decode_stream(self, data: np.ndarray | bytes, count: int) -> np.ndarray:
        """Weight bits (count,), uint8, of a packed stream.

        Slices follow each other without a gap, the first bit in bit 0 of byte 0. The surplus outputs of
        the last slice are dropped. The stream must have exactly its bytes, the spare bits of the last one 0.
        """
        given = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else np.ascontiguousarray(data)
        if given.dtype != np.uint8 or given.shape != (self.stream_bytes(count),):
            raise FormatError(
                f"{count} weights must be {self.stream_bytes(count)} bytes of uint8, "
                f"not {given.dtype} of shape {given.shape}"
            )
        used = self.slices(count) * self.n_in % 8
        if used and given[-1] >> used:
            raise FormatError(f"spare bits of an XOR stream must be 0, found {int(given[-1]) >> used:#x}")
        bits = np.empty(count, dtype=np.uint8)
        _decode_slices(given, self.masks, self.n_in, bits)
        return bits

    def encode(self, bits: np.ndarray, importance: np.ndarray | None = None) -> bytes:
        """The packed stream whose weights are nearest to `bits` (count,).

        Nearest is the least sum of `importance` (count,), by default 1 each, over the wrong signs of each
        slice. Up to 16 inputs the search is exact, and among equals the least slice wins; above,
        `xor_search` describes the heuristic.
        """
        bits = np.asarray(bits)
        if bits.ndim != 1 or not np.isin(bits, (0, 1)).all():
            raise FormatError(f"weight bits must be zeros and ones of shape (count,), not of {bits.shape}")
        cost = np.ones(bits.size) if importance is None else np.asarray(importance, dtype=np.float64)
        if cost.shape != bits.shape or not np.isfinite(cost).all() or (cost < 0).any():
            raise FormatError(f"importance must be finite, at least 0 and of shape {bits.shape}, not of {cost.shape}")
        # Surplus outputs of the last slice cost nothing.
        spare = (0, self.slices(bits.size) * self.n_out - bits.size)
        targets, costs = (np.pad(array, spare).reshape(-1, self.n_out) for array in (bits, cost))
        codes = nearest_slices(self.masks, self.n_in, targets.astype(np.uint8), costs)
        planes = (codes[:, None] >> np.arange(self.n_in, dtype=np.uint64)) & np.uint64(1)
        return np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()


@dataclass(frozen=True, slots=True)
class XorProgrammable:
    """Parameters and golden model of a decoder whose matrices are registers.

    Parameters
    ----------
    n_in, n_out : the largest network, 1..64 each
    planes : matrices held side by side, 1..8
    """

    n_in: int
    n_out: int
    planes: int = 1

    def __post_init__(self) -> None:
        _check_size("inputs", self.n_in)
        _check_size("outputs", self.n_out)
        if not 1 <= self.planes <= MAX_PLANES:
            raise FormatError(f"XOR planes must be 1 to {MAX_PLANES}, not {self.planes}")

    def check(self, networks: Sequence[XorNetwork]) -> None:
        """Raise `FormatError` unless the networks are of one size and fit the registers together."""
        sizes = {(network.n_in, network.n_out) for network in networks}
        if not 1 <= len(networks) <= self.planes or len(sizes) != 1:
            raise FormatError(
                f"a programmable XOR decoder must hold 1 to {self.planes} networks of one size, "
                f"not {len(networks)} of {len(sizes)} sizes"
            )
        ((n_in, n_out),) = sizes
        if n_in > self.n_in or n_out > self.n_out:
            raise FormatError(
                f"XOR networks must have at most {self.n_in} inputs and {self.n_out} outputs, not {n_in} and {n_out}"
            )

    def compute(self, masks: np.ndarray, slices: np.ndarray, n_out: np.ndarray) -> np.ndarray:
        """Output words (count,) of slice words (count,) under the row masks (count, n_out), all uint64.

        Outputs from the run-time `n_out` (count,) on are 0.
        """
        outputs = np.arange(self.n_out, dtype=np.uint64)
        used = (outputs < n_out[:, None]).astype(np.uint8)
        bits = np.bitwise_count(masks & slices[:, None]) & used
        words: np.ndarray = np.bitwise_or.reduce(bits.astype(np.uint64) << outputs, axis=1)
        return words
