import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.fixed8 import Fixed8Settings, fixed8, power_of_two_step
from gatewise.quant.graph import Graph
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.statistics import collect

SPEC = InputSpec((3, 16, 16), (0.5,), (0.25,))


@pytest.mark.parametrize(
    ("low", "high", "ends", "step"),
    [
        (-1.0, 0.9, (-128, 127), 2.0**-7),
        (-1.01, 0.9, (-128, 127), 2.0**-6),
        (0.0, 255.0, (0, 255), 1.0),
        (0, 256.0, (0, 255), 2.0),
    ],
)
def test_a_step_is_the_least_power_of_two_that_reaches(
    low: float, high: float, ends: tuple[int, int], step: float
) -> None:
    assert power_of_two_step(low, high, *ends) == step


def test_every_scale_is_a_power_of_two_and_near_the_float_network(residual: Graph, residual_images: np.ndarray) -> None:
    statistics = collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))
    found = fixed8(residual, SPEC, statistics)
    for tensor in found.tensors.values():
        if tensor.bits == 8:
            assert np.frexp(tensor.scale)[0] == 0.5
            assert tensor.zero_point == 0
    for layer in found.layers:
        assert len(np.unique(layer.weights.scales)) == 1
        assert np.frexp(layer.weights.scales[0])[0] == 0.5
        assert not layer.weights.zero_points.any()
    with torch.no_grad():
        exact = residual.run(torch.from_numpy(SPEC.normalise(residual_images))).numpy()
    assert np.sqrt(np.mean((found.run(residual_images) - exact) ** 2)) < 0.05 * exact.std()


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(FormatError, match="weight bits must be 2 to 8, not 1"):
        Fixed8Settings(weight_bits=1)
