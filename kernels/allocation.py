"""Bits of single channels: more for those that spread more, so many on average.

Source: Banner, Nahshan, Soudry, "Post training 4-bit quantization of convolutional networks for rapid-deployment"
(NeurIPS 2019), equation 11, and the authors' code: of the B steps that all channels have together each gets a share
in proportion to the 2/3rd power of its spread, in whole bits; B is steered until the mean is what was wanted. The
mid-tread variant, whose codes are for Huffman coding, hands out the steps themselves.
"""

from typing import Literal

import numpy as np

from .errors import FormatError

__all__ = ["MAX_CHANNEL_BITS", "allocate_bins", "allocate_bits", "channel_bits"]

MAX_CHANNEL_BITS = 8
"""Of a channel; the least are 0."""
ROUNDS = 10
"""Of the steering, at most."""
NEAR = 0.01
"""Of the mean to what is wanted: then the steering ends."""


def _shares(spread: np.ndarray) -> np.ndarray:
    """Each channel's part of the steps, 1 where all have as many, 0 without spread."""
    spread = np.asarray(spread, dtype=np.float64)
    if spread.ndim != 1 or not np.isfinite(spread).all() or (spread < 0).any():
        raise FormatError(f"spreads of channels must be finite and not negative, not {spread!r}")
    shares: np.ndarray = spread ** (2 / 3)
    total = float(shares.sum())
    if total:
        shares *= len(shares) / total
    return shares


def allocate_bins(spread: np.ndarray, target: float) -> np.ndarray:
    """Steps of channels (C,) of these spreads, int64: ``round(C * 2**target * a_i**(2/3) / sum_j a_j**(2/3))``.

    They are no powers of two, and none for a channel without spread. Half to even.
    """
    return np.asarray(np.rint(_shares(spread) * 2.0**target), dtype=np.int64)


def channel_bits(spread: np.ndarray, target: float, rounding: Literal["round", "ceil"] = "round") -> np.ndarray:
    """Equation 11: bits of channels (C,) of these spreads, int64, with ``B = C * 2**target`` steps in all.

    ``M_i = round(log2(B * a_i**(2/3) / sum_j a_j**(2/3)))``, half to even, within 0..8; a channel without spread has 0.

    Parameters
    ----------
    spread : standard deviations, or a Laplace prior's b, not negative
    rounding : "round", or "ceil" to the next greater
    """
    shares = _shares(spread)
    used = shares > 0
    bits = np.zeros(len(shares))
    bits[used] = np.log2(shares[used]) + target
    whole = np.rint(bits) if rounding == "round" else np.ceil(bits)
    return np.where(used, np.clip(whole, 0, MAX_CHANNEL_BITS), 0).astype(np.int64)


def allocate_bits(spread: np.ndarray, goal: float, rounding: Literal["round", "ceil"] = "round") -> np.ndarray:
    """`channel_bits` with a mean of `goal` bits, as nearly as steering brings it there, int64 (C,).

    From ``target = goal`` on, up to ten times, ``target += (goal - mean) / 2``, until the mean is within 0.01; what
    the last target gives counts.
    """
    target = goal
    bits = channel_bits(spread, target, rounding)
    for _ in range(ROUNDS):
        error = goal - float(bits.mean())
        if abs(error) <= NEAR:
            break
        target += error / 2
        bits = channel_bits(spread, target, rounding)
    return bits
