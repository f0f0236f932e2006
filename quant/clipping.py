"""Analytical clipping of ACIQ: where to clip a Laplace or Gauss distribution before M-bit rounding.

Source: Banner, Nahshan, Soudry, "Post training 4-bit quantization of convolutional networks for
rapid-deployment" (NeurIPS 2019), section 3. For a clip at +-alpha and a step of 2 alpha / 2^M the mean
square error is the clipped tails' plus the rounding's, step^2 / 12. A half range [0, alpha], behind
a ReLU, has half the mass and half the step, so its error at M bits is half the full range's at
M + 1, and so are their optima the same.
"""

import math
from functools import cache
from typing import Literal, get_args

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import erfc, lambertw

from ..kernels.errors import FormatError

__all__ = ["MAX_BITS", "PUBLISHED", "Constants", "Prior", "clip_factor", "clipping_mse"]

Prior = Literal["laplace", "gauss"]
Constants = Literal["published", "exact"]

MAX_BITS = 8

PUBLISHED: dict[tuple[Prior, bool], dict[int, float]] = {
    ("laplace", False): dict(enumerate((1.05, 1.86, 2.83, 3.89, 5.03, 6.2, 7.41, 8.64, 9.89))),
    ("laplace", True): dict(enumerate((1.86, 2.83, 3.89, 5.02, 6.2, 7.41, 8.64, 9.89, 11.16))),
    ("gauss", False): dict(enumerate((1.24, 1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92), start=1)),
    ("gauss", True): dict(enumerate((1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92, 4.2), start=1)),
}
"""The constants of the authors' code by (prior, half range) and bits; mostly cut, not rounded."""


def clipping_mse(prior: Prior, alpha: float | np.ndarray, bits: int, half: bool = False) -> np.ndarray:
    """Modelled mean square error of clips at `alpha`, for b = 1 (Laplace) or sigma = 1 (Gauss)."""
    alpha = np.asarray(alpha, dtype=np.float64)
    if prior == "laplace":
        clipped = 2 * np.exp(-alpha)
    else:
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
    if prior == "laplace":
        return float(np.real(lambertw(3 * 4 ** (bits + half))))
    model = minimize_scalar(
        lambda alpha: float(clipping_mse("gauss", alpha, bits, half)), bounds=(0.1, 12.0), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    return float(model.x)
