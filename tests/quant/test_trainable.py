import numpy as np
import pytest
import torch
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.graph import BatchNorm, Graph, Layer
from gatewise.quant.trainable import FakeQuantizer, TrainableGraph, folded_weight, per_output, straight_through
from small_networks import Residual, shaken
from torch import Tensor, nn


class Normed(nn.Module):
    """Convolutions and a linear layer before batch norms, one of them doubled, one with negative gains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(1)
    built = shaken(Normed())
    with torch.no_grad():
        built.body[1].weight[:3] *= -1
    return built.double()


@pytest.fixture(scope="module")
def graph(module: nn.Module) -> Graph:
    return capture_unfolded(module, torch.zeros(1, 2, 8, 8, dtype=torch.float64))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(7, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_an_unfolded_graph_its_folded_form_and_the_module_are_one_function(
    module: nn.Module, graph: Graph, x: Tensor
) -> None:
    assert set(graph.norms) == {"body.0", "body.3", "body.8"}
    assert not any(isinstance(node, BatchNorm) for node in graph.nodes)
    with torch.no_grad():
        wanted = module(x)
        torch.testing.assert_close(graph.run(x), wanted)
        torch.testing.assert_close(graph.folded().run(x), wanted)
    assert (graph.folded().gains["body.0"] < 0).sum() == 3
    assert not graph.folded().norms


def test_in_eval_mode_a_network_in_training_is_the_float_one(graph: Graph, x: Tensor) -> None:
    network = TrainableGraph(graph).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x).double(), graph.run(x), rtol=1e-4, atol=1e-4)
    exported = network.graph()
    for layer in graph.layers:
        np.testing.assert_allclose(
            exported.folded().parameters[layer.name].bias, graph.folded().parameters[layer.name].bias, atol=1e-5
        )


def test_batch_norms_follow_the_batch_in_training(module: nn.Module, graph: Graph, x: Tensor) -> None:
    network = TrainableGraph(graph, norm_momentum=0.1).train()
    twin = shaken(Normed())
    twin.load_state_dict(module.state_dict())
    twin.double().train()
    twin.body[5].eval()  # the second of two has become a part of the first
    logits = network(x)
    torch.testing.assert_close(logits.double(), twin(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        network.layers["body.0"].variance.double(), twin.body[1].running_var, rtol=1e-4, atol=1e-4
    )


class Rounded(FakeQuantizer):
    """Folded weights rounded to multiples of 1/8, inputs to multiples of 1/4."""

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        folded, safe = folded_weight(weight, gain)
        return straight_through(folded, (folded * 8).round() / 8) / safe

    def activation(self, layer: Layer, value: Tensor) -> Tensor:
        return straight_through(value, (value * 4).round() / 4)


def test_quantised_folded_weights_are_what_the_folded_network_multiplies(graph: Graph, x: Tensor) -> None:
    network = TrainableGraph(graph, Rounded()).eval().double()
    folded = network.graph().folded()
    for layer in graph.layers:
        own = network.layers[layer.name]
        used = network.quantizer.weight(layer, own.weight, own.gain) * per_output(own.gain, own.weight)
        wanted = np.rint(folded.parameters[layer.name].weight * 8) / 8
        np.testing.assert_allclose(used.detach().numpy(), wanted, atol=1e-12)


def test_gradients_pass_straight_through(graph: Graph, x: Tensor) -> None:
    network = TrainableGraph(graph, Rounded()).train()
    network(x).square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_a_dead_channel_neither_divides_by_zero_nor_changes(graph: Graph, x: Tensor) -> None:
    network = TrainableGraph(graph, Rounded()).eval()
    with torch.no_grad():
        network.layers["body.0"].norm_weight[1] = 0
        assert network(x).isfinite().all()


def test_layers_without_batch_norm_keep_their_bias() -> None:
    torch.manual_seed(3)
    graph = capture_unfolded(shaken(Residual()), torch.zeros(1, 3, 16, 16))
    network = TrainableGraph(graph)
    assert set(graph.norms) == {"stem.0"}
    np.testing.assert_allclose(network.graph().parameters["fc"].bias, graph.parameters["fc"].bias)
    assert network.layers["fc"].gain.tolist() == [1.0] * 5
