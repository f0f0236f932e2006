"""Max, average and global pooling."""

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.pool import PoolShape, average_pool, global_average_pool, max_pool
from hypothesis import given
from hypothesis import strategies as st


def expected_pool(reference, x, shape, average):
    return [
        [reference.pooled(plane, shape.kernel, shape.stride, shape.padding, average) for plane in image]
        for image in x.tolist()
    ]


@st.composite
def pools(draw):
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = tuple(draw(st.integers(0, kernel[side % 2] - 1)) for side in range(4))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    height = draw(st.integers(max(1, kernel[0] - padding[0] - padding[2]), 7))
    width = draw(st.integers(max(1, kernel[1] - padding[1] - padding[3]), 7))
    dtype, low, high = draw(
        st.sampled_from([(np.int8, -8, 7), (np.uint8, 0, 255), (np.int16, -(2**15), 2**15 - 1), (np.int64, -1, 1)])
    )
    seed = draw(st.integers(0, 2**32 - 1))
    codes = np.random.default_rng(seed).integers(low, high + 1, (draw(st.integers(1, 2)), 2, height, width))
    return codes.astype(dtype), PoolShape(kernel, stride, padding)


@given(pool=pools())
def test_any_window_pools_as_the_reference_pools_it(reference, pool):
    x, shape = pool
    for run, average in ((max_pool, False), (average_pool, True)):
        found = run(x, shape)
        assert found.dtype == x.dtype
        assert found.tolist() == expected_pool(reference, x, shape, average)


def test_averages_round_half_away_from_zero_at_every_sum_and_count(reference):
    for count in range(1, 10):
        sums = np.arange(-3 * count, 3 * count + 1)
        x = np.zeros((1, sums.size, 1, count), np.int16)
        x[0, :, 0, :] = sums[:, None] // count
        x[0, :, 0, 0] += (sums % count).astype(np.int16)
        assert x.sum(axis=-1).reshape(-1).tolist() == sums.tolist()
        found = average_pool(x, PoolShape((1, count), (1, 1))).reshape(-1).tolist()
        assert found == [reference.rounded(reference.Fraction(int(s), count), "half_away") for s in sums]
        assert found == [-code for code in found[::-1]]


def test_padding_is_no_value():
    x = np.full((1, 1, 2, 2), -5, np.int8)
    shape = PoolShape((3, 3), (1, 1), (1, 1, 1, 1))
    assert max_pool(x, shape).tolist() == np.full((1, 1, 2, 2), -5).tolist()
    assert average_pool(x, shape).tolist() == np.full((1, 1, 2, 2), -5).tolist()
    y = np.array([[[[1, 2], [3, 5]]]], np.int8)
    asymmetric = PoolShape((2, 2), (1, 1), (1, 1, 0, 0))
    assert max_pool(y, asymmetric).tolist() == [[[[1, 2], [3, 5]]]]
    assert average_pool(y, asymmetric).tolist() == [[[[1, 2], [2, 3]]]]  # 1, 3/2, 4/2, 11/4


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 5)])
def test_global_pooling_is_the_rounded_mean_of_a_channel(reference, size):
    x = np.random.default_rng(4).integers(-128, 128, (2, 3, *size)).astype(np.int8)
    found = global_average_pool(x)
    assert found.shape == (2, 3, 1, 1)
    assert found.tolist() == expected_pool(reference, x, PoolShape(size, (1, 1)), True)


def test_sums_of_extreme_codes_do_not_overflow():
    x = np.full((1, 1, 64, 64), -(2**15), np.int16)
    assert global_average_pool(x).item() == -(2**15)


def test_views_and_other_layouts_pool_alike():
    x = np.random.default_rng(5).integers(0, 16, (2, 8, 8, 3)).astype(np.uint8).transpose(0, 3, 1, 2)
    shape = PoolShape((2, 2), (2, 2))
    assert max_pool(x, shape).tolist() == max_pool(np.ascontiguousarray(x), shape).tolist()


@pytest.mark.parametrize(
    "arguments",
    [((0, 2), (1, 1)), ((2, 2), (1, 0)), ((2, 2), (1, 1), (0, 0, -1, 0))],
)
def test_a_window_that_is_empty_is_refused(arguments):
    with pytest.raises(FormatError) as error:
        PoolShape(*arguments)
    kernel, stride, padding = (*arguments, (0, 0, 0, 0))[:3]
    assert str(error.value) == (
        "pool kernel and stride must be positive and padding not negative, "
        f"not PoolShape(kernel={kernel}, stride={stride}, padding={padding})"
    )


@pytest.mark.parametrize("padding", [(2, 0, 0, 0), (0, 3, 0, 0), (0, 0, 2, 0), (0, 0, 0, 3)])
def test_padding_as_large_as_the_window_is_refused(padding):
    with pytest.raises(FormatError) as error:
        PoolShape((2, 3), (1, 1), padding)
    assert str(error.value) == (
        f"pool padding must be smaller than the window (2, 3), so that no window is empty, not {padding}"
    )


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(FormatError) as error:
        max_pool(np.zeros((1, 1, 4, 2), np.int8), PoolShape((3, 3), (1, 1)))
    assert str(error.value) == "pool window (3, 3) must fit the padded 4 x 2 input"


def test_the_check_catches_one_pixel_and_a_padding_off(reference):
    x = np.random.default_rng(6).permutation(36).reshape(1, 1, 6, 6)
    shape, other = PoolShape((3, 3), (2, 2), (1, 1, 0, 0)), PoolShape((3, 3), (2, 2), (0, 0, 1, 1))
    damaged = x.copy()
    damaged[0, 0, 2, 2] += 100
    for run, average in ((max_pool, False), (average_pool, True)):
        expected = expected_pool(reference, x, shape, average)
        assert run(x, shape).tolist() == expected
        assert run(damaged, shape).tolist() != expected
        assert run(x, other).tolist() != expected
