import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.inq import InqSettings, greatest_exponent, powers_of_two


@pytest.mark.parametrize(("greatest", "exponent"), [(0.74, -1), (0.76, 0), (1.0, 0), (1.49, 0), (1.5, 1), (0.0, 0)])
def test_the_greatest_power_is_the_papers(greatest: float, exponent: int) -> None:
    assert greatest_exponent(torch.tensor([greatest / 100, -greatest])) == exponent


def test_weights_go_to_the_nearest_of_the_papers_levels() -> None:
    """Levels of 4 bits from 2**0 down are 1, 1/2, 1/4, 1/8: n2 = n1 + 1 - 2**3 / 2 = -3."""
    weight = np.array([1.4, 1.0, 0.76, 0.74, -0.37, 0.26, 0.13, 0.07, -0.0624, 0.0])
    sign, exponent = powers_of_two(weight, 0, 2)
    np.testing.assert_array_equal(np.ldexp(sign, exponent), [1, 1, 1, 0.5, -0.25, 0.25, 0.125, 0.125, 0, 0])


def test_portions_are_read_from_text() -> None:
    assert InqSettings(portions="0.25, 1").shares == (0.25, 1.0)
    with pytest.raises(FormatError, match="portions must be numbers joined by commas"):
        InqSettings(portions="half")
    with pytest.raises(FormatError, match="weight bits must be 2 to 6, not 7"):
        InqSettings(weight_bits=7)
