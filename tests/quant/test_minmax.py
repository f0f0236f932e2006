import numpy as np
import torch
from gatewise.quant.graph import Graph
from gatewise.quant.minmax import MinMaxSettings, minmax
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.statistics import collect

SPEC = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))


def test_every_tensor_has_one_step_over_what_calibration_saw(residual: Graph, residual_images: np.ndarray) -> None:
    statistics = collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))
    network = minmax(residual, SPEC, statistics)
    assert all(not tensor.amounts.any() for tensor in network.tensors.values())
    copy = network.tensors["stem.0@4"]
    assert (copy.zero_point, copy.low) == (0, 0)
    np.testing.assert_allclose(copy.scale * 15, statistics["stem.0"].tensor.max[0])
    for layer in network.layers:
        assert len(set(layer.weights.scales)) == 1
        assert layer.weights.fraction == 0
    assert network.method == "minmax"


def test_more_bits_are_nearer_to_the_float_network(residual: Graph, residual_images: np.ndarray) -> None:
    x = torch.from_numpy(SPEC.normalise(residual_images))
    statistics = collect(residual, x)
    with torch.no_grad():
        expected = residual.run(x).numpy()

    def error(settings: MinMaxSettings) -> float:
        return float(np.mean((minmax(residual, SPEC, statistics, settings).run(residual_images) - expected) ** 2))

    errors = [error(MinMaxSettings(bits, bits)) for bits in (3, 4, 5)]
    assert errors == sorted(errors, reverse=True)
    assert error(MinMaxSettings(per_channel_weights=True)) < errors[1]
