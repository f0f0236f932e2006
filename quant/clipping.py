"""Where to clip values before M-bit rounding: analytically, as ACIQ does, and by the rules it is compared with.

Source: Banner, Nahshan, Soudry, "Post training 4-bit quantization of convolutional networks for
rapid-deployment" (NeurIPS 2019), section 3. For a clip at +-alpha and a step of 2 alpha / 2^M the mean
square error is the clipped tails' plus the rounding's, step^2 / 12. A half range [0, alpha], behind
a ReLU, has half the mass and half the step, so its error at M bits is half the full range's at
M + 1, and so are their optima the same.

The mid-tread variant has any number omega of bins instead of 2^M; its factors are interpolated in a table, as in the
authors' code. The rules for comparison are least Kullback-Leibler divergence of histograms (Migacz, "8-bit inference
with TensorRT", GTC 2017), two standard deviations, and the extremes.
"""

import math
from functools import cache
from typing import Literal, get_args

import numpy as np

from ..kernels.errors import FormatError

__all__ = [
    "MAX_BITS",
    "PUBLISHED",
    "Clip",
    "Constants",
    "Prior",
    "bin_factor",
    "clip_factor",
    "clipping_mse",
    "kld_clip",
]

Prior = Literal["laplace", "gauss"]
Clip = Literal["analytical", "kld", "sigma2", "minmax"]
"""Where a range ends: at the prior's best clip, at the least Kullback-Leibler divergence, two standard deviations from
the mean, or at the extremes."""
Constants = Literal["published", "exact"]

MAX_BITS = 8

PUBLISHED: dict[tuple[Prior, bool], dict[int, float]] = {
    ("laplace", False): dict(enumerate((1.05, 1.86, 2.83, 3.89, 5.03, 6.2, 7.41, 8.64, 9.89))),
    ("laplace", True): dict(enumerate((1.86, 2.83, 3.89, 5.02, 6.2, 7.41, 8.64, 9.89, 11.16))),
    ("gauss", False): dict(enumerate((1.24, 1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92), start=1)),
    ("gauss", True): dict(enumerate((1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92, 4.2), start=1)),
}
"""The constants of the authors' code by (prior, half range) and bits; mostly cut, not rounded."""


def clipping_mse(prior: Prior, alpha: float | np.ndarray, bits: float, half: bool = False) -> np.ndarray:
    """Modelled mean square error of clips at `alpha`, for b = 1 (Laplace) or sigma = 1 (Gauss)."""
    alpha = np.asarray(alpha, dtype=np.float64)
    if prior == "laplace":
        clipped = 2 * np.exp(-alpha)
    else:
        from scipy.special import erfc

        tail = erfc(alpha / math.sqrt(2))
        clipped = (1 + alpha**2) * tail - math.sqrt(2 / math.pi) * alpha * np.exp(-(alpha**2) / 2)
    return np.asarray((clipped + alpha**2 / (3 * 4 ** (bits + half))) / (1 + half))


@cache
def clip_factor(prior: Prior, bits: int, half: bool = False, constants: Constants = "published") -> float:
    """Best alpha / b (Laplace) or alpha / sigma (Gauss) at `bits` bits, 0..8.

    ``published`` constants are those of the authors' code (no Gauss entry at 0 bits); ``exact`` is the
    minimum of `clipping_mse`: alpha = W(3 * 4^M) for Laplace (Lambert's W), numeric for Gauss.

    >>> clip_factor("laplace", 4), round(clip_factor("laplace", 4, constants="exact"), 4)
    (5.03, 5.0286)
    """
    if prior not in get_args(Prior):
        raise FormatError(f"prior must be laplace or gauss, not {prior!r}")
    if constants not in get_args(Constants):
        raise FormatError(f"constants must be published or exact, not {constants!r}")
    if not 0 <= bits <= MAX_BITS:
        raise FormatError(f"clipped bits must be 0 to {MAX_BITS}, not {bits}")
    if constants == "published":
        table = PUBLISHED[prior, half]
        if bits not in table:
            raise FormatError(f"published {prior} constants must be asked for 1 to {MAX_BITS} bits, not {bits}")
        return table[bits]
    return _optimum(prior, 2.0 ** (bits + half))


@cache
def _optimum(prior: Prior, cells: float) -> float:
    """Best clip of a full range that is divided into `cells`, which need not be whole."""
    if prior == "laplace":
        from scipy.special import lambertw

        return float(np.real(lambertw(3 * cells**2)))
    bits = math.log2(cells)
    from scipy.optimize import minimize_scalar

    model = minimize_scalar(
        lambda alpha: float(clipping_mse("gauss", alpha, bits)), bounds=(1e-3, 12.0), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    return float(model.x)


def bin_factor(prior: Prior, bins: np.ndarray, half: bool = False) -> np.ndarray:
    """Best alpha / b (Laplace) or alpha / sigma (Gauss) for `bins` (C,) of any number; float64 (C,), 0 without bins.

    Interpolated between 100 optima, 20 evenly spaced in each decade from 0.01 to 1000 bins, and the origin; a half
    range has twice the bins of a full one.
    """
    points = np.concatenate([np.linspace(10.0**power, 10.0 ** (power + 1), 20) for power in range(-2, 3)])
    best = [_optimum(prior, float(point)) for point in points]
    return np.asarray(np.interp(np.asarray(bins) * (1 + half), np.append(0.0, points), np.append(0.0, best)))


SMOOTHED = 1e-4
"""The least share of a bin that has values but no level near it, so that the divergence stays finite."""


def kld_clip(counts: np.ndarray, bits: int, half: bool = False) -> np.ndarray:
    """Clips (C,) of least Kullback-Leibler divergence at `bits` bits, as parts of the greatest magnitude, 0..1.

    The divergence is that of the values, those beyond the clip counted in the last bins, from what they become on
    2^M levels: each level's values spread over those of its bins that have any. Tried are the clips at which every
    level has a whole number of bins. Half ranges are those of positive values: behind a ReLU zero is exact.

    Parameters
    ----------
    counts : int64 (C, bins), the histograms of `Statistics`: equal bins from minus the greatest magnitude to it
    """
    middle = counts.shape[1] // 2
    levels = 1 << max(bits, 1)
    if half:
        sides, stride = np.asarray(counts[:, middle:], dtype=np.float64), levels
    else:
        sides, stride = np.asarray(counts, dtype=np.float64), levels // 2
    best, clips = np.full(len(counts), np.inf), np.ones(len(counts))
    for size in range(stride, middle + 1, stride):
        first, last = (0, size) if half else (middle - size, middle + size)
        inside = sides[:, first:last]
        reference = inside.copy()
        reference[:, 0] += sides[:, :first].sum(1)
        reference[:, -1] += sides[:, last:].sum(1)
        total, kept = reference.sum(1, keepdims=True), inside.sum(1, keepdims=True)
        used = inside > 0
        cells = (len(counts), levels, -1)
        held = used.reshape(cells).sum(2)
        level = inside.reshape(cells).sum(2) / np.maximum(held, 1)
        became = np.where(used, np.repeat(level, inside.shape[1] // levels, axis=1), 0) / np.maximum(kept, 1)
        share = reference / np.maximum(total, 1)
        terms = share * np.log(np.where(share > 0, share, 1) / np.maximum(became, SMOOTHED))
        divergence = terms.sum(1)
        better = divergence < best
        best, clips = np.where(better, divergence, best), np.where(better, size / middle, clips)
    return np.where(sides.sum(1) > 0, clips, 1.0)
