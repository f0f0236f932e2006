"""Shift and basis layers and activation planes, from training to the file: signs, dead channels, groups, padding."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError, UnsupportedError
from gatewise.quant.abcnet import AbcNetSettings, AbcNetTraining
from gatewise.quant.agreement import agreement
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph
from gatewise.quant.inq import InqSettings, InqTraining
from gatewise.quant.lqnet import LqNetSettings, LqNetTraining
from gatewise.quant.methods import Quantisation
from gatewise.quant.planes import stepped
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import EncodedWeights
from gatewise.quant.trainable import FakeQuantizer, TrainableGraph
from gatewise.quant.training import TrainingSettings, fine_tune
from gatewise.sim.plane_basis import PlaneBasis
from small_networks import shaken
from torch import Tensor, nn

SPEC = InputSpec((3, 12, 12), (0.5,), (0.25,))
PLAIN = TrainingSettings(epochs=0)


class Shortcut(nn.Module):
    """Padded, strided and grouped convolutions with batch norms around an add, all behind ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8))
        self.right = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=2, bias=False), nn.BatchNorm2d(8))
        self.last = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.right(torch.relu(self.left(x))))
        return self.fc(torch.relu(self.last(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    """With negative gains in every norm, and in one a channel whose gain is 0."""
    torch.manual_seed(5)
    found = capture_unfolded(shaken(Shortcut()), torch.zeros(1, 3, 12, 12))
    norms = dict(found.norms)
    for name, norm in norms.items():
        weight = norm.weight * np.where(np.arange(len(norm.weight)) % 3 == 0, -1, 1)
        weight[4] *= name != "left.0"
        norms[name] = norm._replace(weight=weight)
    return replace(found, norms=norms)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 3, 12, 12), dtype=np.uint8)


def method(name: str, graph: Graph) -> FakeQuantizer:
    if name == "inq":
        return InqTraining(graph, SPEC, InqSettings(), PLAIN)
    if name == "lqnet":
        return LqNetTraining(graph, SPEC, LqNetSettings(3, 3), PLAIN)
    return AbcNetTraining(graph, SPEC, AbcNetSettings(4, 5, per_channel=name == "abcnet"), PLAIN)


@pytest.mark.parametrize("name", ["inq", "lqnet", "abcnet", "abcnet by layer"])
def test_the_file_computes_what_the_training_did(name: str, graph: Graph, images: np.ndarray) -> None:
    quantizer = method(name, graph)
    trained = fine_tune(graph, SPEC, quantizer, images)
    found = Quantisation(graph.folded(), trained.quantized, export_network(trained.quantized, "shortcut", {}))
    compared = agreement(found, images)
    assert compared.worst("threshold") == 0
    assert compared.worst("scale") < 1e-3
    assert all(tensor.differing == 0 for tensor in compared.tensors if tensor.op == "copy" and tensor.bits < 8)
    network = TrainableGraph(graph, quantizer).eval()
    with torch.no_grad():
        quantizer.end(network)
        fake = network(torch.from_numpy(SPEC.normalise(images))).numpy()
    exact = trained.quantized.run(images)
    # Rounded biases and the 8 bits of the first and last layers' inputs move a level now and then.
    assert np.median(np.abs(exact - fake)) < 0.05 * fake.std()
    assert np.corrcoef(exact.reshape(-1), fake.reshape(-1))[0, 1] > 0.98
    for layer in trained.quantized.layers[1:-1]:
        assert isinstance(layer.weights, EncodedWeights)
        gain = graph.folded().gains[layer.name]
        own = network.layers[layer.name].weight
        with torch.no_grad():
            used = network.quantizer.weight(layer.op, own, torch.ones(len(gain))).numpy()  # type: ignore[arg-type]
        wanted = used * gain.reshape(-1, 1, 1, 1)
        basis = trained.quantized.tensors[layer.inputs[0]].basis
        if basis is None:
            np.testing.assert_allclose(layer.weights.real, wanted, rtol=1e-5, atol=1e-6)
            continue
        for beta, part in zip(basis.spec.beta, layer.weights.parts, strict=True):
            real = part * layer.weights.scales.reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(real, beta * wanted, atol=2e-4 * np.abs(beta * wanted).max() + 1e-6)


@pytest.mark.parametrize("name", ["inq", "lqnet"])
def test_a_wrong_weight_in_the_file_is_noticed(name: str, graph: Graph, images: np.ndarray) -> None:
    quantized = fine_tune(graph, SPEC, method(name, graph), images).quantized
    layer = quantized.layers[1]
    parts = layer.weights.parts.copy()
    parts[..., 1, 1] *= -1
    wrong = replace(layer, weights=replace(layer.weights, parts=parts))
    nodes = tuple(wrong if node is layer else node for node in quantized.nodes)
    network = export_network(quantized, "shortcut", {})
    compared = agreement(Quantisation(graph.folded(), replace(quantized, nodes=nodes), network), images)
    by_name = {tensor.name: tensor.differing for tensor in compared.layers}
    assert by_name[layer.name] > 0
    assert by_name["last.0"] <= 2


def test_planes_are_refused_for_values_of_both_signs() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    graph = capture_unfolded(module.eval(), torch.zeros(1, 3, 12, 12))
    with pytest.raises(UnsupportedError, match="1 must read what a ReLU gives, not 0"):
        LqNetTraining(graph, SPEC, LqNetSettings(), PLAIN)


def test_planes_must_be_fewer_than_the_edges_bits(graph: Graph) -> None:
    with pytest.raises(FormatError, match="activation planes must be fewer than the 4 bits"):
        AbcNetTraining(graph, SPEC, AbcNetSettings(edge_bits=4), PLAIN)


@pytest.mark.parametrize(
    "basis",
    [PlaneBasis.lq_net([0.3, 0.7]), PlaneBasis.abc_net([0.2, 0.4, 0.1], [0.1, 0.9, 0.35]), PlaneBasis.sign()],
)
def test_stepped_thresholds_are_where_the_requantiser_changes_its_word(basis: PlaneBasis) -> None:
    found = np.array(stepped(basis))
    assert len(found) == len(basis.thresholds)
    step = max(map(abs, basis.thresholds)) / (1 << 14) or 2.0**-14
    counts = basis.uniform(step)
    values = np.linspace(min(basis.thresholds) - 0.2, max(basis.thresholds) + 0.2, 2001)
    table = np.array(counts.table)[np.clip(np.rint(values / counts.step) + counts.zero, 0, 15).astype(int)]
    words = np.array(basis.words)[(values[:, None] >= found).sum(1)]
    assert np.mean(table != words) < 0.002
