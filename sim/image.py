"""What streams to the engine, word by word: weight tiles and parameter records.

The cycle model counts the words of these layouts, and a compiled network consists of them. All
sizes are powers of two, so that a loader needs no gearbox: codes stand in containers of 1, 2, 4
or 8 bits, rows of containers fill whole words or whole words fill a row, and every tile and every
block of records starts on a fresh word. Bit 0 of a word is the first.
"""

from dataclasses import dataclass
from typing import overload

import numpy as np

from ..kernels.packing import pack_codes, unpack_codes
from ..kernels.planes import COEFFICIENT_BITS
from .engines import Count
from .manifest import AddNode, Conv2dNode, LinearNode, Node, RequantiseNode

__all__ = [
    "RecordLayout",
    "TileLayout",
    "coefficient_field",
    "container_bits",
    "in_words",
    "main_field",
    "rescale_field",
]

AMOUNT_BITS = 8
"""Of a lane's alignment amount: a shift or a multiplier."""
FIELD_BITS = 64
"""Of one field of a channel's record."""
COEFFICIENTS = FIELD_BITS // COEFFICIENT_BITS
"""In a field."""


def container_bits(bits: int) -> int:
    """Bits that a code of `bits` bits takes in the image: the next power of two."""
    return 1 << (bits - 1).bit_length()


@overload
def _words(bits: int, bus_bits: int) -> int: ...
@overload
def _words(bits: int, bus_bits: Count) -> Count: ...
def _words(bits: int, bus_bits: Count) -> Count:
    return -(-bits // bus_bits)


def in_words(data: np.ndarray, bus_bits: int) -> np.ndarray:
    """Packed bytes as whole words: uint8 (words, bus_bits / 8)."""
    padding = -len(data) % (bus_bits // 8)
    return np.pad(data, (0, padding)).reshape(-1, bus_bits // 8)


@dataclass(frozen=True, slots=True)
class TileLayout:
    """One weight tile: the codes that sit in the array for one step.

    Parameters
    ----------
    rows : rows of the row group in use
    lanes : L
    bits : of a code
    aligned : whether a row of L amounts comes first, in words of its own
    depthwise : one code for each row, for the diagonal PEs, instead of L
    signed : whether codes are extended by their sign
    """

    rows: int
    lanes: int
    bits: int
    aligned: bool = False
    depthwise: bool = False
    signed: bool = True

    @property
    def row_codes(self) -> int:
        """Codes of a row."""
        return 1 if self.depthwise else self.lanes

    @overload
    def words(self, bus_bits: int) -> int: ...
    @overload
    def words(self, bus_bits: Count) -> Count: ...
    def words(self, bus_bits: Count) -> Count:
        """Bus words of the tile."""
        amounts = _words(self.lanes * AMOUNT_BITS, bus_bits) if self.aligned else 0
        return amounts + _words(self.rows * self.row_codes * container_bits(self.bits), bus_bits)

    def encode(self, codes: np.ndarray, amounts: np.ndarray | None, bus_bits: int) -> np.ndarray:
        """Codes (rows, row_codes) and amounts (lanes,) as words, uint8 (words, bus_bits / 8)."""
        parts = [in_words(pack_codes(codes, container_bits(self.bits), self.signed), bus_bits)]
        if self.aligned and amounts is not None:
            parts.insert(0, in_words(np.asarray(amounts, dtype=np.uint8), bus_bits))
        return np.concatenate(parts)

    def decode(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Codes and amounts of encoded words."""
        bus_bits = words.shape[1] * 8
        split = _words(self.lanes * AMOUNT_BITS, bus_bits) if self.aligned else 0
        amounts = words[:split].reshape(-1)[: self.lanes] if self.aligned else None
        count, bits = self.rows * self.row_codes, container_bits(self.bits)
        data = words[split:].reshape(-1)[: -(-count * bits // 8)]
        return unpack_codes(data, count, bits, self.signed).reshape(self.rows, self.row_codes), amounts


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """The record of one channel: fields of 64 bits that stream to the post lanes with its row group.

    A layer of the array has its bias in one field, zero-point constant (16 bits), multiplier (31), shift (6), direction
    (1) and the bits that the channel's codes have less than the tensor's (4) in the next, and one field for each
    threshold; in a sign array the planes' coefficients come before, four to a field.
    Each further rescale (both operands and the sum of an add, a copy) is a field of multiplier and shift.
    """

    fields: int

    @classmethod
    def of(cls, nodes: tuple[Node, ...], coefficients: int = 0) -> "RecordLayout":
        """The record of an engine layer that runs these nodes, with so many planes' coefficients."""
        fields = -(-coefficients // COEFFICIENTS)
        for node in nodes:
            match node:
                case Conv2dNode() | LinearNode():
                    fields += 2 + node.thresholds
                case AddNode():
                    fields += 3
                case RequantiseNode():
                    fields += 1
        return cls(fields)

    @overload
    def words(self, channels: int, bus_bits: int) -> int: ...
    @overload
    def words(self, channels: int, bus_bits: Count) -> Count: ...
    def words(self, channels: int, bus_bits: Count) -> Count:
        """Bus words of the records of `channels` channels."""
        return _words(channels * self.fields * FIELD_BITS, bus_bits)

    @overload
    def cycles(self, channels: int, bus_bits: int) -> int: ...
    @overload
    def cycles(self, channels: int, bus_bits: Count) -> Count: ...
    def cycles(self, channels: int, bus_bits: Count) -> Count:
        """Cycles in which the engine takes them: a field each, or the words of a field."""
        return channels * self.fields * _words(FIELD_BITS, bus_bits)


def main_field(
    zero: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, descending: np.ndarray, fewer: np.ndarray
) -> np.ndarray:
    """Zero-point constants (bits 0..15), multipliers (16..46), shifts (47..52), directions (53), fewer bits (54..57).

    The last are those of `kernels.requant.narrowed`. Returns int64 (channels,).
    """
    return np.asarray((zero & 0xFFFF) | multiplier << 16 | shift << 47 | descending << 53 | fewer << 54)


def coefficient_field(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients (at most 4, channels), the first in the lowest bits: int64 (channels,)."""
    places = COEFFICIENT_BITS * np.arange(len(coefficients))[:, None]
    return np.asarray(((coefficients & ((1 << COEFFICIENT_BITS) - 1)) << places).sum(axis=0))


def rescale_field(multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Multipliers (bits 0..30) and shifts (31..36) of a further rescale: int64 (channels,)."""
    return np.asarray(multiplier | shift << 31)
