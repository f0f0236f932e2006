"""Words of the activation memory: how the codes of a tensor lie in them.

A word has W slots of a digit each. A tensor has a plane of words for each digit of its codes, a pixel begins on a
fresh word, and its channels stand in the slots in order. A fusion engine has *narrow* tensors besides, whose codes have
at most 2 bits: there a word is two *half-words* of W codes, the first one in the lower two bits of its digits, the
second one in the upper two. Channel c of a pixel is in its half-word c // W, at slot c % W.
"""

import numpy as np

from ..kernels.digits import digit_count, split_digits
from ..kernels.mac import DIGIT_BITS
from .engine import EngineConfig

__all__ = ["pixel_words", "slot_bits", "tensor_codes", "tensor_words", "word_parts"]


def slot_bits(engine: EngineConfig, bits: int) -> int:
    """Bits of a slot that holds a code of `bits` bits, or a digit of it: 2 in narrow tensors, 4 in all others."""
    return engine.enable_bits if bits <= engine.enable_bits else DIGIT_BITS


def word_parts(engine: EngineConfig, bits: int) -> int:
    """The half-words of a word, 2, of a tensor with codes of `bits` bits; 1 where it is not narrow."""
    return DIGIT_BITS // slot_bits(engine, bits)


def pixel_words(engine: EngineConfig, channels: int, bits: int) -> int:
    """Words of one pixel in one digit plane."""
    return -(-channels * slot_bits(engine, bits) // engine.word_bits)


def tensor_words(codes: np.ndarray, bits: int, engine: EngineConfig) -> np.ndarray:
    """Codes (C, H, W) as digits in the memory's words: uint8 (planes, H * W * words of a pixel, digits of a word)."""
    channels = len(codes)
    slot, parts = slot_bits(engine, bits), word_parts(engine, bits)
    slots = pixel_words(engine, channels, bits) * parts * engine.word_digits
    padded = np.pad(codes.transpose(1, 2, 0).astype(np.int64), ((0, 0), (0, 0), (0, slots - channels)))
    # The sign is the digit's own business here.
    planes = split_digits(padded, bits, signed=False) & ((1 << slot) - 1)
    halves = planes.reshape(len(planes), -1, parts, engine.word_digits) << slot * np.arange(parts)[:, None]
    return np.asarray(halves.sum(axis=2), dtype=np.uint8)


def tensor_codes(
    digits: np.ndarray, shape: tuple[int, int, int], bits: int, signed: bool, engine: EngineConfig
) -> np.ndarray:
    """The inverse of `tensor_words`: int32 codes (C, H, W)."""
    channels, height, width = shape
    slot, parts = slot_bits(engine, bits), word_parts(engine, bits)
    planes = digits[:, :, None].astype(np.int32) >> slot * np.arange(parts)[:, None] & ((1 << slot) - 1)
    value = np.asarray(sum(plane << DIGIT_BITS * at for at, plane in enumerate(planes)))
    value = value.reshape(height, width, -1)[:, :, :channels].transpose(2, 0, 1)
    top = digit_count(bits) * slot
    return value - ((value >> (top - 1)) << top) if signed else value
