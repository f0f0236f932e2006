import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.quant.clipping import PUBLISHED, Prior, clip_factor, clipping_mse

# Solutions of the closed forms, to four places.
EXACT = {
    ("laplace", False): (1.0499, 1.8628, 2.8307, 3.8972, 5.0286, 6.2048, 7.4131, 8.6456, 9.8968),
    ("laplace", True): (1.8628, 2.8307, 3.8972, 5.0286, 6.2048, 7.4131, 8.6456, 9.8968, 11.1627),
    ("gauss", False): (0.7658, 1.2399, 1.7106, 2.1516, 2.5591, 2.9362, 3.2869, 3.6151, 3.9240),
    ("gauss", True): (1.2399, 1.7106, 2.1516, 2.5591, 2.9362, 3.2869, 3.6151, 3.9240, 4.2163),
}
KINDS: list[tuple[Prior, bool]] = [("laplace", False), ("laplace", True), ("gauss", False), ("gauss", True)]


@pytest.mark.parametrize(("prior", "half"), KINDS)
def test_exact_factors_are_the_table_and_published_ones_are_near(prior: Prior, half: bool) -> None:
    exact = [clip_factor(prior, bits, half, "exact") for bits in range(9)]
    np.testing.assert_allclose(exact, EXACT[prior, half], atol=6e-5)
    for bits, factor in PUBLISHED[prior, half].items():
        assert clip_factor(prior, bits, half) == factor
        assert abs(factor - exact[bits]) < 0.02


@pytest.mark.parametrize(("prior", "half"), KINDS)
def test_exact_factors_minimise_the_modelled_error(prior: Prior, half: bool) -> None:
    grid = np.arange(0.1, 14, 0.0005)
    for bits in range(9):
        brute = grid[np.argmin(clipping_mse(prior, grid, bits, half))]
        assert abs(clip_factor(prior, bits, half, "exact") - brute) < 1e-3


def rounded(values: np.ndarray, alpha: float, bits: int, half: bool) -> np.ndarray:
    """The model's quantiser: 2^bits cells, each represented by its middle."""
    low, span = (0.0, alpha) if half else (-alpha, 2 * alpha)
    step = span / 2**bits
    cells = np.clip(np.floor((values - low) / step), 0, 2**bits - 1)
    return low + (cells + 0.5) * step


@pytest.mark.parametrize(("prior", "half"), KINDS)
@pytest.mark.parametrize("bits", [4, 6])
def test_factors_are_near_the_best_on_sampled_data(prior: Prior, half: bool, bits: int) -> None:
    generator = np.random.default_rng(5)
    sample = generator.laplace(size=200_000) if prior == "laplace" else generator.normal(size=200_000)
    values = sample[sample > 0] if half else sample

    def error(alpha: float) -> float:
        return float(np.mean((rounded(values, alpha, bits, half) - values) ** 2))

    factor = clip_factor(prior, bits, half, "exact")
    best = min(error(alpha) for alpha in np.linspace(0.5, 10, 96))
    assert error(factor) < 1.03 * best
    share = 0.5 if half else 1.0
    assert error(factor) * share == pytest.approx(float(clipping_mse(prior, factor, bits, half)), rel=0.2)
    assert error(2 * factor) > 1.5 * best


def test_a_half_range_has_the_optimum_of_one_more_bit() -> None:
    for prior in ("laplace", "gauss"):
        for bits in range(8):
            assert clip_factor(prior, bits, True, "exact") == clip_factor(prior, bits + 1, False, "exact")


def test_bad_questions_are_refused() -> None:
    with pytest.raises(FormatError, match="clipped bits must be 0 to 8, not 9"):
        clip_factor("laplace", 9)
    with pytest.raises(FormatError, match="published gauss constants must be asked for 1 to 8 bits, not 0"):
        clip_factor("gauss", 0)
    with pytest.raises(FormatError, match="prior must be laplace or gauss, not 'cauchy'"):
        clip_factor("cauchy", 4)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="constants must be published or exact, not 'guess'"):
        clip_factor("gauss", 4, False, "guess")  # type: ignore[arg-type]
