import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.quant.preprocess import InputSpec


def test_normalisation_is_per_channel() -> None:
    spec = InputSpec((2, 1, 1), mean=(0.5, 0.25), std=(0.5, 0.25))
    images = np.array([[[[255]], [[0]]]], dtype=np.uint8)
    np.testing.assert_array_equal(spec.normalise(images).ravel(), [1.0, -1.0])
    assert spec.range == (-1.0, 3.0)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(FormatError, match=r"input shape must be \(channels, height, width\), all positive"):
        InputSpec((3, 0, 3))
    with pytest.raises(FormatError, match="input mean must have 1 or 3 entries, not 2"):
        InputSpec((3, 4, 4), mean=(0.0, 1.0))
    with pytest.raises(FormatError, match="std and divide must be positive"):
        InputSpec((3, 4, 4), std=(0.0,))
    with pytest.raises(FormatError, match="mean, std and divide must be finite"):
        InputSpec((3, 4, 4), divide=float("nan"))
    with pytest.raises(FormatError, match=r"images must have shape \(N, 3, 4, 4\), not \(1, 3, 5, 4\)"):
        InputSpec((3, 4, 4)).normalise(np.zeros((1, 3, 5, 4), dtype=np.uint8))
