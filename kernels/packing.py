"""Packing of b-bit codes into bytes: the first code in the lowest bits, codes may straddle bytes."""

import numpy as np

from .errors import FormatError
from .mac import signed_range

__all__ = ["pack_codes", "pack_rows", "packed_bytes", "unpack_codes", "unpack_rows"]

MAX_BITS = 16


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise FormatError(f"codes must have 1 to {MAX_BITS} bits, not {bits}")


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that hold `count` codes of `bits` bits."""
    return -(-count * bits // 8)


def pack_codes(codes: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Pack integer codes of any shape, in C order, into a uint8 array; spare bits at the end are 0."""
    _check_bits(bits)
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer):
        raise FormatError(f"codes must be integers, not {codes.dtype}")
    low, high = signed_range(bits) if signed else (0, (1 << bits) - 1)
    if codes.size and (codes.min() < low or codes.max() > high):
        raise FormatError(f"{bits}-bit codes must lie in {low}..{high}, found {codes.min()}..{codes.max()}")
    flat = codes.reshape(-1).astype(np.int64) & ((1 << bits) - 1)
    planes = (flat[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8), bitorder="little")


def unpack_codes(data: np.ndarray, count: int, bits: int, signed: bool) -> np.ndarray:
    """Unpack `count` codes of `bits` bits from a uint8 array into an int16 array (int32 for unsigned 16)."""
    _check_bits(bits)
    if data.dtype != np.uint8 or data.shape != (packed_bytes(count, bits),):
        raise FormatError(
            f"{count} codes of {bits} bits must be {packed_bytes(count, bits)} bytes of uint8, "
            f"not {data.dtype} of shape {data.shape}"
        )
    planes = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    codes = planes.astype(np.int32) @ (1 << np.arange(bits, dtype=np.int32))
    if signed:
        codes -= (codes >> (bits - 1)) << bits
    return codes if bits == MAX_BITS and not signed else codes.astype(np.int16)


def pack_rows(codes: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Pack signed codes (rows, columns), those of a row in ``widths[row]`` bits, 0..8: nothing where it is 0."""
    bits = []
    for row, width in zip(np.asarray(codes).astype(np.int64), widths.tolist(), strict=True):
        low, high = signed_range(width) if width else (0, 0)
        if row.size and (row.min() < low or row.max() > high):
            raise FormatError(f"{width}-bit codes must lie in {low}..{high}, found {row.min()}..{row.max()}")
        bits.append((row[:, None] >> np.arange(width) & 1).astype(np.uint8).reshape(-1))
    return np.packbits(np.concatenate(bits), bitorder="little")


def unpack_rows(data: np.ndarray, widths: np.ndarray, columns: int) -> np.ndarray:
    """Unpack what `pack_rows` packed: signed codes, int16 (rows, columns). Spare bits at the end must be 0."""
    ends = np.cumsum(widths.astype(np.int64) * columns)
    total = int(ends[-1])
    if data.dtype != np.uint8 or data.shape != (-(-total // 8),):
        raise FormatError(
            f"{len(widths)} rows of {columns} codes must be {-(-total // 8)} bytes of uint8 at their widths, "
            f"not {data.dtype} of shape {data.shape}"
        )
    bits = np.unpackbits(data, bitorder="little").astype(np.int16)
    if bits[total:].any():
        raise FormatError("the spare bits behind the last code must be 0")
    codes = np.zeros((len(widths), columns), dtype=np.int16)
    for row, width, end in zip(codes, widths.tolist(), ends.tolist(), strict=True):
        if width:
            own = bits[end - width * columns : end].reshape(columns, width)
            row[:] = own @ (1 << np.arange(width, dtype=np.int16))
            row -= (row >> (width - 1)) << width
    return codes
