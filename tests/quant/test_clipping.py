import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.quant.clipping import PUBLISHED, Prior, bin_factor, clip_factor, clipping_mse, kld_clip

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


@pytest.mark.parametrize("half", [False, True])
def test_bin_factors_are_the_optima_of_as_many_bins(half: bool) -> None:
    bins = np.array([2.0, 4.0, 8.0, 16.0, 256.0])
    exact = [clip_factor("laplace", int(bits), half, "exact") for bits in np.log2(bins)]
    # Between points of the table, which is coarse at the beginning of a decade.
    np.testing.assert_allclose(bin_factor("laplace", bins, half), exact, rtol=0.02)
    assert bin_factor("laplace", np.zeros(1), half)[0] == 0
    assert np.all(np.diff(bin_factor("gauss", np.arange(40), half)) > 0)


def naive_divergence(values: np.ndarray, clip: float, levels: int, bins: int) -> float:
    """Divergence of values, clipped and spread level by level, bin by bin and without arrays of candidates."""
    edges = np.linspace(0, clip, bins + 1)
    inside = np.histogram(values[values < clip], edges)[0].astype(float)
    reference = inside.copy()
    reference[-1] += np.sum(values >= clip)
    became = np.zeros(bins)
    for cell in np.split(np.arange(bins), levels):
        used = [each for each in cell if inside[each]]
        for each in used:
            became[each] = inside[cell].sum() / len(used)
    became = np.maximum(became / inside.sum(), 1e-4)
    share = reference / reference.sum()
    return float(sum(p * np.log(p / q) for p, q in zip(share, became, strict=True) if p))


def test_the_clip_of_least_divergence_is_that_of_a_search_one_by_one() -> None:
    generator = np.random.default_rng(3)
    values = np.abs(generator.laplace(size=20_000))
    end = values.max() * (1 + 1e-12)
    counts = np.histogram(np.append(values, -values), 512, (-end, end))[0][None]
    found = kld_clip(counts, 3, half=True)[0]
    tried = {size / 256: naive_divergence(values, end * size / 256, 8, size) for size in range(8, 257, 8)}
    assert tried[found] == pytest.approx(min(tried.values()), rel=1e-3)
    assert found < 0.9
    assert kld_clip(counts, 3)[0] == pytest.approx(found, abs=0.2)


def test_a_clip_of_least_divergence_leaves_what_has_no_tail() -> None:
    flat = np.full((1, 256), 7)
    assert kld_clip(flat, 4, half=True)[0] > 0.95
    assert kld_clip(np.zeros((2, 256), dtype=np.int64), 4).tolist() == [1.0, 1.0]
