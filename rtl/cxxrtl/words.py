"""Bits as arrays of 32-bit words, and what of Python's the C++ side takes."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["CHUNK_BITS", "bits_of", "c_names", "c_pointers", "chunks", "words_of"]

CHUNK_BITS = 32


def words_of(bits: np.ndarray) -> np.ndarray:
    """The uint32 words, (vectors, ceil(bits / 32)), of bits (vectors, bits), least significant first."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
    return np.ascontiguousarray(packed).view("<u4")


def bits_of(words: np.ndarray, bits: int) -> np.ndarray:
    """The bits, uint8 of shape (vectors, bits), of uint32 words: the inverse of `words_of`."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little", count=bits)


def chunks(bits: int) -> int:
    """Words that hold so many bits."""
    return -(-bits // CHUNK_BITS)


def c_pointers(arrays: Sequence[np.ndarray]) -> Any:
    """The arrays' addresses as a C array."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def c_names(names: Sequence[str]) -> Any:
    """Names as a C array of C strings."""
    return (ctypes.c_char_p * len(names))(*(name.encode() for name in names))
