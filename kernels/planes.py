"""Sign planes: from the accumulators of a pixel, one for each plane, to the value that is requantised.

``v = sum_p coef_p * acc_p - zero * input_sum + bias``: the first stage of a sign engine's post lane, in the
place of `kernels.correction`. Coefficients and the zero constant are signed 16-bit numbers; they and the bias
have the same number F of fraction bits (0..15), and so has v: the requantiser's multiplier takes it away. Exact, then
limited once to acc + 16 bits (always by saturation).

What makes coefficients:

- `int_planes`: a layer of b-bit integer codes, exactly;
- `fixed_coefficients`: FleXOR's ``W = sum_p alpha_p b_p``, one alpha for each output channel and plane (Lee, Kwon,
  Kim, Wei, "FleXOR: trainable fractional quantization", NeurIPS 2020);
- `pair_coefficients`: weights ``sum_p alpha_p b_p`` and activations ``sum_j beta_j s_j`` of LQ-Net (Zhang, Yang, Ye,
  Hua, ECCV 2018) and ABC-Net (Lin, Zhao, Pan, NeurIPS 2017).

Activations of a basis come out of a requantiser as a count; `PlaneTable` makes a word of their planes of it, and
`activation_planes` says what the bits of such words are worth to the array.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .correction import INPUT_SUM_BITS, ZERO_POINT_BITS
from .errors import FormatError
from .mac import MacFormat, limit, signed_range

__all__ = [
    "COEFFICIENT_BITS",
    "MAX_PLANES",
    "MAX_PLANE_ACC",
    "MAX_PLANE_FRACTION",
    "TABLE_ENTRIES",
    "TABLE_PLANES",
    "FixedCoefficients",
    "IntPlanes",
    "PlaneCorrection",
    "PlaneTable",
    "activation_planes",
    "fixed_coefficients",
    "int_planes",
    "pair_coefficients",
    "sign_planes",
]

COEFFICIENT_BITS = 16
MAX_PLANES = 64
"""Accumulators that one value is made of: 8 weight planes by 8 activation planes."""
MAX_PLANE_FRACTION = COEFFICIENT_BITS - 1
MAX_PLANE_ACC = 40
"""Bits of the widest accumulator: the requantisers take values of 56 bits."""
MAX_CODE_BITS = 8
LEAST_EXPONENT = -1074
"""Of the least float64 above zero."""

TABLE_ENTRIES = 16
"""Counts that a threshold requantiser has: 0..15."""
TABLE_PLANES = 8


@dataclass(frozen=True, slots=True)
class PlaneCorrection:
    """Parameters and golden model of the weighted sum of plane accumulators of `format.acc` bits (at most 40)."""

    format: MacFormat

    def __post_init__(self) -> None:
        if self.format.acc > MAX_PLANE_ACC:
            raise FormatError(f"accumulators of planes must have at most {MAX_PLANE_ACC} bits, not {self.format.acc}")

    @property
    def out_bits(self) -> int:
        """Bits of the value and of the bias constant."""
        return self.format.acc + COEFFICIENT_BITS

    @property
    def exact_bits(self) -> int:
        """Bits that hold every exact sum before it is limited."""
        terms = MAX_PLANES << (COEFFICIENT_BITS - 1 + self.format.acc - 1)
        zero = 1 << (ZERO_POINT_BITS - 1 + INPUT_SUM_BITS - 1)
        return (terms + zero + (1 << (self.out_bits - 1))).bit_length() + 1

    def compute(
        self, accs: np.ndarray, coefs: np.ndarray, input_sum: np.ndarray, zero: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weigh accumulators (planes, ...) by coefficients (planes, ...) and add the constants.

        All are integer arrays: `accs` and `coefs` broadcast, and so do their sum and the other three. Returns int64
        values of `out_bits` bits and a boolean array: where a value did not fit.
        """
        accs, coefs, input_sum, zero, bias = (
            np.asarray(part, dtype=np.int64) for part in (accs, coefs, input_sum, zero, bias)
        )
        if not 1 <= len(accs) <= MAX_PLANES or len(coefs) != len(accs):
            raise FormatError(
                f"planes must be 1 to {MAX_PLANES}, with a coefficient each, not {len(accs)} and {len(coefs)}"
            )
        exact = (coefs * accs).sum(axis=0) - zero * input_sum + bias
        return limit(exact, *signed_range(self.out_bits), "saturate")


class IntPlanes(NamedTuple):
    """An integer layer as sign planes, with the fraction bits that were asked for."""

    coefficients: np.ndarray
    """int16 (bits,): of the planes, lowest bit of the codes first."""
    zero: int
    """What the layer's zero constant is greater by: one half."""


def int_planes(bits: int, fraction: int = 1) -> IntPlanes:
    """How signed codes of `bits` bits (1..8) run as that many sign planes, with `fraction` (1..15) fraction bits.

    A two's complement code is ``sum_p c_p * bit_p`` with c = 1, 2, .., -2**(bits - 1). With signs, ``bit_p =
    (1 + s_p) / 2``: so each plane weighs ``c_p / 2``, and ``sum_p c_p / 2 = -1/2`` of the input sum remains,
    whatever `bits` is: half a step on top of the zero point. One fraction bit makes both exact.
    """
    if not 1 <= bits <= MAX_CODE_BITS:
        raise FormatError(f"integer codes on sign planes must have 1 to {MAX_CODE_BITS} bits, not {bits}")
    most = min(MAX_PLANE_FRACTION, COEFFICIENT_BITS + 1 - bits)
    if not 1 <= fraction <= most:
        raise FormatError(f"fraction of {bits}-bit codes on sign planes must be 1 to {most} bits, not {fraction}")
    coefficients = np.left_shift(np.int64(1) << (fraction - 1), np.arange(bits))
    coefficients[-1] *= -1
    return IntPlanes(coefficients.astype(np.int16), 1 << (fraction - 1))


def sign_planes(codes: np.ndarray, bits: int) -> np.ndarray:
    """The planes of signed codes, lowest first: uint8 (bits, *shape) of 0 and 1, as `int_planes` weighs them."""
    codes = np.asarray(codes, dtype=np.int64)
    low, high = signed_range(bits)
    if codes.size and (codes.min() < low or codes.max() > high):
        raise FormatError(f"{bits}-bit codes must lie in {low}..{high}, not {codes.min()}..{codes.max()}")
    places = np.arange(bits).reshape(bits, *[1] * codes.ndim)
    return ((codes >> places) & 1).astype(np.uint8)


class FixedCoefficients(NamedTuple):
    """Coefficients in fixed point: ``coefs * scale[:, None]`` are what the hardware multiplies by."""

    coefs: np.ndarray
    """int16 (out, planes), within +-32767."""
    scale: np.ndarray
    """float64 (out,): a power of two for each output channel, which its requantiser's multiplier takes in."""


def fixed_coefficients(alpha: np.ndarray) -> FixedCoefficients:
    """Round float coefficients (out, planes) to 16 bits, with a step for each output channel.

    The step is the power of two that brings the channel's greatest magnitude to 2**14 and more: every coefficient is
    right to 1/32767 of the greatest. A power of two, so that floats multiply what the hardware holds.
    """
    alpha = np.asarray(alpha, dtype=np.float64)
    if alpha.ndim != 2 or not alpha.size or not np.isfinite(alpha).all():
        raise FormatError(f"plane coefficients must be finite and of shape (out, planes), not {alpha.shape}")
    greatest = np.abs(alpha).max(axis=1)
    most = signed_range(COEFFICIENT_BITS)[1]
    _, exponent = np.frexp(greatest)
    # No step is below the least float: coefficients of a few of those are whole numbers of them.
    step = np.maximum(exponent - most.bit_length(), LEAST_EXPONENT)
    scale = np.where(greatest > 0, np.ldexp(1.0, step), 1.0)
    coefs = np.clip(np.rint(alpha / scale[:, None]), -most, most).astype(np.int16)
    return FixedCoefficients(coefs, scale)


def pair_coefficients(alpha: np.ndarray, beta: np.ndarray) -> FixedCoefficients:
    """Coefficients of every pair of a weight plane and an activation plane, rounded as `fixed_coefficients` does.

    `alpha` is (out, P) and `beta` is (J,). Pair ``p * J + j`` is a pass of its own, with an accumulator of its
    own: the dot product of weight plane p and activation plane j. Activation planes of {-1, +1} are binary operands,
    planes of {0, 1} are unsigned digits of one bit: either way the accumulator holds the exact sum, and the
    coefficient is ``alpha_p * beta_j``.
    """
    alpha, beta = np.asarray(alpha, dtype=np.float64), np.asarray(beta, dtype=np.float64)
    if alpha.ndim != 2 or beta.ndim != 1:
        raise FormatError(f"alpha and beta must be of shape (out, P) and (J,), not {alpha.shape} and {beta.shape}")
    if not 1 <= alpha.shape[1] * len(beta) <= MAX_PLANES:
        raise FormatError(f"plane pairs must be 1 to {MAX_PLANES}, not {alpha.shape[1]} by {len(beta)}")
    return fixed_coefficients((alpha[:, :, None] * beta).reshape(len(alpha), -1))


def activation_planes(words: np.ndarray, planes: int, signs: bool) -> np.ndarray:
    """What the planes of plane words are worth: int16 (planes, *words.shape), 0 and 1, or with `signs` -1 and +1."""
    words = np.asarray(words)
    bits = (words >> np.arange(planes).reshape(planes, *[1] * words.ndim)) & 1
    return (2 * bits - 1 if signs else bits).astype(np.int16)


@dataclass(frozen=True, slots=True)
class PlaneTable:
    """Parameters and golden model of a layer's table from a threshold count to a word of activation planes.

    Parameters
    ----------
    entries : 16 words of `planes` bits; bit j of entry n is plane j of an activation that reaches n thresholds
    planes : bits of a word (1..8)
    """

    entries: tuple[int, ...] = tuple(range(TABLE_ENTRIES))
    planes: int = TABLE_PLANES

    def __post_init__(self) -> None:
        if not 1 <= self.planes <= TABLE_PLANES:
            raise FormatError(f"planes of a table must be 1 to {TABLE_PLANES}, not {self.planes}")
        if len(self.entries) != TABLE_ENTRIES:
            raise FormatError(f"plane table must have {TABLE_ENTRIES} entries, not {len(self.entries)}")
        for at, word in enumerate(self.entries):
            if not 0 <= word < 1 << self.planes:
                raise FormatError(f"entry {at} of a table of {self.planes} planes must fit its bits, not {word}")

    @classmethod
    def of_basis(cls, beta: np.ndarray, signs: bool) -> "PlaneTable":
        """The table of the activations ``sum_j beta_j s_j``, J at most 4, with s in {-1, +1} (`signs`) or {0, 1}.

        Entries go up by value, the lower word first where two are equal; those beyond 2**J repeat the last.
        """
        beta = np.asarray(beta, dtype=np.float64)
        if beta.ndim != 1 or not 1 <= len(beta) < TABLE_ENTRIES.bit_length():
            raise FormatError(f"beta must be of shape (J,) with J of 1 to 4, not {beta.shape}")
        words = np.arange(1 << len(beta))
        ones = (words[:, None] >> np.arange(len(beta))) & 1
        order = words[np.argsort((2 * ones - 1 if signs else ones) @ beta, kind="stable")].tolist()
        return cls((*order, *[order[-1]] * (TABLE_ENTRIES - len(order))), len(beta))

    def compute(self, counts: np.ndarray) -> np.ndarray:
        """The plane words (uint8) of counts 0..15 of any shape."""
        counts = np.asarray(counts)
        if counts.size and (counts.min() < 0 or counts.max() >= TABLE_ENTRIES):
            raise FormatError(f"counts must lie in 0..{TABLE_ENTRIES - 1}, not {counts.min()}..{counts.max()}")
        return np.asarray(np.array(self.entries, dtype=np.uint8)[counts])
