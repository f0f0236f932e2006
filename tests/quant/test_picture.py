from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.aciq import aciq
from gatewise.quant.export import Requantise, export_network
from gatewise.quant.graph import Graph
from gatewise.quant.picture import activation_panel, draw, weight_panel
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import QuantizedGraph, QuantizedWeights
from gatewise.quant.statistics import collect
from gatewise.sim.images import ImageSet
from gatewise.sim.network import Network

SPEC = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))


@pytest.fixture(scope="module")
def quantized(residual: Graph, residual_images: np.ndarray) -> QuantizedGraph:
    statistics = collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))
    return aciq(residual, SPEC, statistics)


@pytest.fixture(scope="module", params=get_args(Requantise))
def network(request: pytest.FixtureRequest, quantized: QuantizedGraph) -> Network:
    return export_network(quantized, "residual", {}, request.param)


def test_weights_and_levels_are_the_quantised_ones_in_real_units(network: Network, quantized: QuantizedGraph) -> None:
    for layer in quantized.layers:
        assert isinstance(layer.weights, QuantizedWeights)
        real = layer.weights.real.reshape(len(layer.weights.codes), -1)
        exact = network.layers[layer.name].scale is not None
        # Thresholds are whole numbers: the step between them is known as well as there are many units in it.
        rough = {"rtol": 1e-6 if exact else 2e-2, "atol": 1e-9}
        panel = weight_panel(network, layer.name)
        np.testing.assert_allclose(panel.values, real.reshape(-1), **rough)
        one = weight_panel(network, layer.name, channel=2)
        np.testing.assert_allclose(one.values, real[2], **rough)
        assert len(one.levels) == len(np.unique(layer.weights.codes[2]))


def test_activations_round_to_the_codes_that_the_network_writes(
    network: Network, quantized: QuantizedGraph, residual_images: np.ndarray
) -> None:
    tensors = network.run(residual_images, trace=True).tensors
    for name, written in (("left", "left"), ("stem.0", "stem.0.q4")):
        for channel in (None, 3):
            panel = activation_panel(network, name, ImageSet(residual_images), channel)
            tensor = quantized.tensors[f"{name}@4"]
            codes = tensors[written] if channel is None else tensors[written][:, channel]
            steps = tensor.steps.reshape(-1, 1, 1) if channel is None else tensor.steps[channel]
            found = np.clip(np.rint(panel.values.reshape(codes.shape) / steps), tensor.low, tensor.high)
            exact = network.layers[name].scale is not None
            assert np.mean(found != codes) < (2e-3 if exact else 2e-2)
            if channel is not None:
                expected = tensor.steps[channel] * np.arange(tensor.high + 1)
                np.testing.assert_allclose(panel.levels, expected, rtol=1e-9)
            assert panel.rectified


def test_clips_are_those_of_the_values(network: Network, residual_images: np.ndarray) -> None:
    panel = activation_panel(network, "left", ImageSet(residual_images))
    values = panel.values
    b, mean = np.abs(values - values.mean()).mean(), values.mean()
    assert panel.clips["analytical"][1] == pytest.approx(min(max(mean, 0) + 6.2 * b, values.max()))
    assert 0 < panel.clips["kld"][1] <= values.max() * (1 + 1e-12)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_the_same_bytes_each_time(suffix: str, network: Network, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    panels = [weight_panel(network, "right"), weight_panel(network, "right", channel=0)]
    for name in ("one", "two"):
        draw(network, panels, "right", tmp_path / f"{name}{suffix}")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
    assert first == second
    assert len(first) > 5000


def test_what_no_picture_can_be_of_is_named(network: Network, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"layer must be one of stem.0, left, right, fc, not 'nowhere'"):
        weight_panel(network, "nowhere")
    with pytest.raises(FormatError, match="output channel must be 0 to 11, not 12"):
        weight_panel(network, "left", channel=12)
    with pytest.raises(FormatError, match=r"a picture must be a file of \.png or \.svg, not a\.gif"):
        draw(network, [weight_panel(network, "left")], "left", tmp_path / "a.gif")
