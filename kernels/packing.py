"""Packing of b-bit codes into bytes: the first code in the lowest bits, codes may straddle bytes."""

import numpy as np

from .errors import FormatError
from .mac import signed_range

__all__ = ["pack_codes", "packed_bytes", "unpack_codes"]

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
