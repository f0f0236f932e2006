"""A mixture of two normal distributions, fitted to a layer's weights by expectation maximisation.

Source: Zhao, Gao, Bates, Mullins, Xu, "Focused Quantization for Sparse CNNs" (NeurIPS 2019), sections 3.3 and 3.4: the
start from the negative and the positive weights, components drawn from the posterior, and the separation (eq. 4) that
says whether a layer has two modes at all.
"""

from typing import NamedTuple

import numpy as np

from ..kernels.errors import FormatError

__all__ = ["Mixture", "fit_mixture"]

ITERATIONS = 300
TOLERANCE = 1e-6
"""Of the mean log-likelihood: what gains less in an iteration is the end."""
LEAST_DEVIATION = 1e-6
"""In units of the values' own: equal weights have none."""


class Mixture(NamedTuple):
    """Two components, the lesser mean usually first: float64 (2,) each; `shares` add up to 1."""

    means: np.ndarray
    deviations: np.ndarray
    shares: np.ndarray

    def _log_densities(self, values: np.ndarray) -> np.ndarray:
        """Logarithms of each component's share times its density, less a constant: (2, values)."""
        scaled = (values - self.means[:, None]) / self.deviations[:, None]
        with np.errstate(divide="ignore"):  # a component that has died out has a share of 0
            return np.asarray(np.log(self.shares / self.deviations)[:, None] - scaled**2 / 2)

    def posterior(self, values: np.ndarray) -> np.ndarray:
        """Probability, in the values' shape, that a value is of the second component."""
        first, second = self._log_densities(values.reshape(-1))
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(first - second))).reshape(values.shape)

    def separation(self, deviation: float) -> float:
        """Squared Wasserstein distance of the components, over the variance of all values (eq. 4).

        >>> Mixture(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), np.array([0.5, 0.5])).separation(1.25**0.5)
        3.2
        """
        apart = (self.means[0] - self.means[1]) ** 2 + (self.deviations[0] - self.deviations[1]) ** 2
        return float(apart / deviation**2)


def fit_mixture(values: np.ndarray, equal_deviations: bool = True) -> Mixture:
    """Fit float64 values (n,), none of them zero; `FormatError` unless some are negative and some positive.

    `equal_deviations` ties the two, as the hardware needs them: each maximisation pools the components' variances.
    """
    values = np.asarray(values, dtype=np.float64)
    sides = values[values < 0], values[values > 0]
    if not all(side.size for side in sides):
        raise FormatError(
            f"a mixture must be fitted to values of both signs, found {sides[0].size} negative and {sides[1].size} "
            "positive ones"
        )
    floor = LEAST_DEVIATION * float(values.std())
    means = np.array([side.mean() for side in sides])
    deviations = np.maximum([side.std() for side in sides], floor)
    found = Mixture(means, deviations, np.array([0.5, 0.5]))
    if equal_deviations:
        variance = sum(side.size * side.var() for side in sides) / values.size
        found = found._replace(deviations=np.full(2, max(float(np.sqrt(variance)), floor)))
    before = -np.inf
    for _ in range(ITERATIONS):
        logs = found._log_densities(values)
        greatest = logs.max(axis=0)
        weights = np.exp(logs - greatest)
        total = weights.sum(axis=0)
        likelihood = float((greatest + np.log(total)).mean())
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
        found = _maximised(values, weights / total, found, floor, equal_deviations)
    return found


def _maximised(values: np.ndarray, each: np.ndarray, last: Mixture, floor: float, equal: bool) -> Mixture:
    """The mixture of the greatest likelihood, given how much of each value is each component's, (2, values)."""
    counts = each.sum(axis=1)
    if (counts < 1).any():
        return last  # nothing is left of a component
    means = each @ values / counts
    variances = (each * (values - means[:, None]) ** 2).sum(axis=1) / counts
    if equal:
        variances = np.full(2, (variances * counts).sum() / values.size)
    return Mixture(means, np.maximum(np.sqrt(variances), floor), counts / values.size)
