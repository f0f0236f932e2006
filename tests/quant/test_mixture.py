import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.quant.mixture import Mixture, fit_mixture


def drawn(means: tuple[float, float], deviations: tuple[float, float], share: float, count: int = 40000) -> np.ndarray:
    rng = np.random.default_rng(1)
    second = rng.random(count) < share
    return rng.normal(np.take(means, second.astype(int)), np.take(deviations, second.astype(int)))


@pytest.mark.parametrize("equal", [False, True])
def test_a_mixture_is_found_again(equal: bool) -> None:
    deviations = (0.3, 0.3) if equal else (0.4, 0.2)
    found = fit_mixture(drawn((-1.0, 0.8), deviations, 0.3), equal)
    np.testing.assert_allclose(found.means, (-1.0, 0.8), atol=0.02)
    np.testing.assert_allclose(found.deviations, deviations, atol=0.02)
    np.testing.assert_allclose(found.shares, (0.7, 0.3), atol=0.02)
    assert (found.deviations[0] == found.deviations[1]) == equal


def test_the_tie_pools_what_overlapping_components_would_have_apart() -> None:
    values = drawn((-0.5, 1.0), (0.2, 0.6), 0.5)
    apart, tied = (fit_mixture(values, equal) for equal in (False, True))
    assert apart.deviations[0] < tied.deviations[0] < apart.deviations[1]


def test_each_iteration_raises_the_likelihood() -> None:
    values = drawn((-0.5, 0.4), (0.3, 0.5), 0.6, 3000)

    def likelihood(mixture: Mixture) -> float:
        return float(np.log(np.exp(mixture._log_densities(values)).sum(axis=0)).mean())

    start = Mixture(np.array([-0.6, 0.6]), np.array([0.4, 0.4]), np.array([0.5, 0.5]))
    for equal in (False, True):
        assert likelihood(fit_mixture(values, equal)) > likelihood(start)


def test_the_posterior_is_bayes_rule() -> None:
    mixture = Mixture(np.array([-1.0, 2.0]), np.array([0.5, 1.5]), np.array([0.25, 0.75]))
    values = np.linspace(-3, 4, 12).reshape(3, 4)
    densities = [
        share / deviation * np.exp(-(((values - mean) / deviation) ** 2) / 2)
        for mean, deviation, share in zip(*mixture, strict=True)
    ]
    np.testing.assert_allclose(mixture.posterior(values), densities[1] / (densities[0] + densities[1]), rtol=1e-12)
    assert mixture.posterior(np.array([-1e6, 1e6])).tolist() == [1.0, 1.0]  # the wider one has the tails


def test_the_separation_is_the_papers() -> None:
    mixture = Mixture(np.array([-1.0, 1.0]), np.array([0.5, 1.0]), np.array([0.5, 0.5]))
    assert mixture.separation(2.0) == (4 + 0.25) / 4


def test_equal_weights_of_each_sign_are_two_points() -> None:
    found = fit_mixture(np.repeat([-0.25, 0.5], [3, 5]))
    np.testing.assert_allclose(found.means, (-0.25, 0.5))
    assert 0 < found.deviations.max() < 1e-5
    np.testing.assert_allclose(found.shares, (3 / 8, 5 / 8))


def test_values_of_one_sign_are_refused() -> None:
    with pytest.raises(FormatError, match="values of both signs, found 0 negative and 2 positive ones"):
        fit_mixture(np.array([0.5, 0.25]))
