import numpy as np
import torch
from gatewise.quant.aciq import AciqSettings, aciq
from gatewise.quant.capture import capture
from gatewise.quant.graph import Add, Clamp, Concat, Graph, Input
from gatewise.quant.lowering import edge_layers
from gatewise.quant.networks import NETWORKS
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import QuantizedGraph
from gatewise.quant.statistics import collect
from small_networks import shaken
from torch import Tensor, nn
from torchvision_style import resnet18


def quantised(module: nn.Module, spec: InputSpec, bits: int = 4) -> tuple[Graph, QuantizedGraph, np.ndarray]:
    """The graph, its quantised form at `bits` bits everywhere, and the images of its calibration."""
    graph = capture(module.eval(), torch.zeros(1, *spec.shape))
    images = np.random.default_rng(2).integers(0, 256, (4, *spec.shape), dtype=np.uint8)
    statistics = collect(graph, torch.from_numpy(spec.normalise(images)))
    settings = AciqSettings(bits, bits, clip="minmax", mean_correction=False, step_rounding="ceil")
    return graph, aciq(graph, spec, statistics, settings), images


def check_close(module: nn.Module, spec: InputSpec, tolerance: float = 0.05) -> QuantizedGraph:
    """At 8 bits without clipping the quantised network is near the float one."""
    graph, network, images = quantised(module, spec, 8)
    with torch.no_grad():
        expected = graph.run(torch.from_numpy(spec.normalise(images))).numpy()
    error = network.run(images) - expected
    assert np.sqrt(np.mean(error**2)) < tolerance * np.sqrt(np.mean(expected**2))
    return network


class Branches(nn.Module):
    """Concatenations that share a tensor, a pool between, a clamp of its own and a signed bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 6, 3, padding=1)
        self.c = nn.Conv2d(10, 4, 1)
        self.d = nn.Conv2d(14, 5, 3)
        self.fc = nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.a(x))
        ab = torch.cat([a, torch.relu(self.b(a))], 1)
        c = self.c(ab)
        x = nn.functional.avg_pool2d(self.d(torch.relu(torch.cat([ab, c], 1))), 3)
        return self.fc(x.flatten(1))


def test_forms_of_a_residual_network_are_streams_and_copies() -> None:
    network = quantised(NETWORKS["cifar-resnet20"](), InputSpec((3, 32, 32)))[1]
    by_name = {node.name: node for node in network.nodes}
    assert by_name["conv1"].outputs == ("conv1@16", "conv1@4")
    assert by_name["layer1.0.conv1"].outputs == ("layer1.0.conv1@4",)
    assert by_name["layer1.0.conv2"].outputs == ("layer1.0.conv2@16",)
    assert by_name["layer1.0.add"].outputs == ("layer1.0.add@16", "layer1.0.add@4")
    assert by_name["layer2.0.slice"].inputs == ("layer1.2.add@16",)
    assert by_name["layer3.2.add"].outputs == ("layer3.2.add@16",)
    assert by_name["linear"].outputs == ("linear@16",)
    requantised = by_name["avg_pool2d.requantise"]
    assert isinstance(requantised.op, Clamp)
    assert (requantised.inputs, requantised.outputs) == (("avg_pool2d@16",), ("avg_pool2d@8",))
    assert by_name["linear"].inputs == ("view@8",)
    widths = {layer.name: layer.weights.bits for layer in network.layers}
    assert [name for name, bits in widths.items() if bits == 8] == ["conv1", "linear"]
    for tensor in network.tensors.values():
        assert tensor.amounts.min() >= 0
        assert tensor.amounts.max() <= 8
    assert network.tensors["conv1@16"].low == network.tensors["conv1@4"].low == 0
    assert network.tensors["layer1.0.conv2@16"].low == -(1 << 15)


def test_a_projection_shortcut_and_a_max_pool_lower() -> None:
    module = resnet18()
    network = check_close(module, module.gatewise_input, 0.1)
    assert sum(isinstance(node.op, Add) for node in network.nodes) == 8


def test_concatenated_tensors_share_a_base_and_a_zero_point() -> None:
    torch.manual_seed(1)
    network = check_close(Branches(), InputSpec((2, 8, 8), (0.5,), (0.25,)))
    for node in network.nodes:
        if isinstance(node.op, Concat):
            (out,) = (network.tensors[name] for name in node.outputs)
            parts = [network.tensors[name] for name in node.inputs]
            assert {(part.scale, part.zero_point, part.bits) for part in parts} == {
                (out.scale, out.zero_point, out.bits)
            }
            np.testing.assert_array_equal(np.concatenate([part.amounts for part in parts]), out.amounts)


def test_a_signed_tensor_has_a_zero_point_within_its_codes() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    network = check_close(module, InputSpec((2, 8, 8), (0.5,), (0.25,)))
    assert 0 < network.tensors["0@8"].zero_point < 255


def test_a_batch_norm_on_the_input_and_a_relu6_lower() -> None:
    torch.manual_seed(4)
    module = shaken(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.Conv2d(4, 3, 6), nn.Flatten()))
    check_close(module, InputSpec((2, 8, 8), (0.5,), (0.25,)))


def test_an_input_that_feeds_an_add_has_a_stream_of_its_own() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + x

    network = check_close(Skip(), InputSpec((2, 8, 8), (0.5,), (0.25,)))
    assert isinstance(network.nodes[0].op, Input)
    assert network.nodes[0].outputs == ("input@8",)
    assert network.nodes[1].outputs == ("input@16",)


def test_edge_layers_read_the_input_or_give_the_output() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 4), nn.Flatten())
    assert edge_layers(capture(module.eval(), torch.zeros(1, 2, 8, 8))) == {"1", "3"}
