import re
from collections.abc import Callable

import pytest
import torch
from gatewise.kernels.errors import FormatError, UnsupportedError
from gatewise.quant.capture import capture
from gatewise.quant.graph import (
    Add,
    AvgPool2d,
    ChannelPad,
    Clamp,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    StrideSlice,
)
from gatewise.quant.networks import NETWORKS
from small_networks import Residual, shaken
from torch import Tensor, nn
from torch.nn import functional
from torchvision_style import resnet18


class Function(nn.Module):
    """A module whose forward is a given function of it and the input."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def check(module: nn.Module, *shape: int, kinds: tuple[type, ...] | None = None) -> None:
    """The captured graph computes the module's function to 1e-9 on a batch of two; and has these nodes."""
    shaken(module)
    graph = capture(module, torch.zeros(1, *shape))
    x = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = module.double()(x.clone())
        torch.testing.assert_close(graph.run(x), expected, rtol=0, atol=1e-9)
    if kinds is not None:
        assert tuple(type(node) for node in graph.nodes[1:]) == kinds
    for node in graph.nodes[1:]:
        assert node.shape


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_built_in_network_is_its_graph(name: str) -> None:
    module = NETWORKS[name]()
    check(module, *module.gatewise_input.shape)


def test_a_torchvision_style_resnet_is_its_graph() -> None:
    check(resnet18(), 3, 64, 64)


def test_names_are_the_module_paths() -> None:
    graph = capture(NETWORKS["cifar-resnet20"]().eval(), torch.zeros(1, 3, 32, 32))
    names = [layer.name for layer in graph.layers]
    assert names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert names[-1] == "linear"
    assert len(names) == 20
    assert "layer2.0.add" in graph.by_name


CASES: dict[str, tuple[nn.Module, tuple[int, ...], tuple[type, ...]]] = {
    "residual": (
        Residual(),
        (3, 16, 16),
        (Conv2d, Conv2d, Conv2d, StrideSlice, ChannelPad, Add, MaxPool2d, GlobalAvgPool, Flatten, Linear),
    ),
    "same padding": (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (3, 8, 8), (Conv2d,)),
    "zero padding folds": (nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(3, 4, 3, 2)), (3, 8, 8), (Conv2d,)),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6, padding=1), (6, 8, 8), (Conv2d,)),
    "linear batch norm": (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU6()), (6,), (Linear,)),
    "batch norm first": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)), (3, 8, 8), (Conv2d, Conv2d)),
    "dropout goes": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout2d(), nn.Identity()), (3, 8, 8), (Conv2d,)),
    "padded average": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (3, 8, 8), (AvgPool2d,)),
    "ceiling average": (nn.AvgPool2d(3, 2, ceil_mode=True), (3, 8, 8), (AvgPool2d,)),
    "ceiling maximum": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (3, 8, 8), (MaxPool2d,)),
    "average of all": (nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), (3, 8, 8), (GlobalAvgPool, Flatten)),
    "adaptive average": (nn.AdaptiveAvgPool2d((2, 4)), (3, 8, 8), (AvgPool2d,)),
    "adaptive identity": (nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(8)), (3, 8, 8), (Conv2d,)),
    "hardtanh": (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Hardtanh(-2.0, 0.5)), (3, 8, 8), (Conv2d,)),
    "clamp above": (Function(lambda self, x: x.clamp(max=0.5)), (3, 8, 8), (Clamp,)),
    "kept before its relu": (
        Function(
            lambda self, x: torch.relu(self.conv(x)) + self.conv2(x), conv=nn.Conv2d(3, 3, 1), conv2=nn.Conv2d(3, 3, 1)
        ),
        (3, 8, 8),
        (Conv2d, Conv2d, Add),
    ),
    "relu behind the pool": (
        Function(lambda self, x: functional.relu(functional.max_pool2d(self.conv(x), 2)), conv=nn.Conv2d(3, 4, 3)),
        (3, 8, 8),
        (Conv2d, MaxPool2d),
    ),
    "concat": (
        Function(lambda self, x: torch.relu(torch.cat([self.conv(x), x], 1)), conv=nn.Conv2d(3, 4, 1)),
        (3, 8, 8),
        (Conv2d, Concat, Clamp),
    ),
    "in place after use": (
        Function(lambda self, x: self.act(y := self.conv(x)) + y, conv=nn.Conv2d(3, 4, 1), act=nn.ReLU(inplace=True)),
        (3, 8, 8),
        (Conv2d, Add),
    ),
    "batch norm beside another reader": (
        Function(lambda self, x: self.bn(y := self.conv(x)) + y, conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4)),
        (3, 8, 8),
        (Conv2d, Conv2d, Add),
    ),
    "view": (Function(lambda self, x: x.view(x.size(0), -1)), (3, 4, 4), (Flatten,)),
    "squeeze": (
        Function(lambda self, x: x.mean((-1, -2), keepdim=True).squeeze()),
        (3, 4, 4),
        (GlobalAvgPool, Flatten),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_is_its_node(case: str) -> None:
    module, shape, kinds = CASES[case]
    check(module, *shape, kinds=kinds)


def test_a_changed_weight_is_noticed() -> None:
    module = shaken(Residual())
    graph = capture(module, torch.zeros(1, 3, 16, 16))
    graph.parameters["left"].weight[0, 0, 0, 0] += 1e-3
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert (graph.run(x) - module.double()(x)).abs().max() > 1e-9


REFUSALS = {
    "aten.sigmoid is not an operation that Gatewise has": lambda self, x: torch.sigmoid(x),
    "aten.add.Tensor must add two tensors without a factor": lambda self, x: torch.add(x, x, alpha=2),
    "aten.avg_pool2d with padding must have count_include_pad=False": lambda self, x: functional.avg_pool2d(x, 3, 1, 1),
    "aten.max_pool2d must have no dilation, not (2, 2)": lambda self, x: functional.max_pool2d(x, 2, dilation=2),
    "aten.slice.Tensor must be every s-th row or column": lambda self, x: x[:, :, 1::2],
    "aten.cat must concatenate channels (dimension 1), not dimension 2": lambda self, x: torch.cat([x, x], 2),
    "aten.view must give a batch of images or of vectors, not 1 x 576 for 3 images": lambda self, x: x.reshape(1, -1),
    "aten.pad must pad images with zeros, not mode reflect": lambda self, x: functional.pad(x, (1, 1, 1, 1), "reflect"),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_a_refusal_names_the_operation_and_its_source_line(message: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(message)) as caught:
        capture(Function(REFUSALS[message]).eval(), torch.zeros(1, 3, 8, 8))
    assert re.search(r"\(.*test_capture\.py:\d+\)$", str(caught.value))
    assert "\n" not in str(caught.value)


def test_padding_before_a_pool_is_refused() -> None:
    module = nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2)).eval()
    with pytest.raises(UnsupportedError, match="must be read by convolutions only"):
        capture(module, torch.zeros(1, 3, 8, 8))


def test_control_flow_on_values_is_refused_in_one_line() -> None:
    module = Function(lambda self, x: x if x.sum() > 0 else -x).eval()
    with pytest.raises(UnsupportedError, match=r"torch\.export must be able to capture Function: ") as caught:
        capture(module, torch.zeros(1, 3, 8, 8))
    assert "\n" not in str(caught.value)


def test_training_mode_is_refused() -> None:
    with pytest.raises(FormatError, match="must be in eval mode"):
        capture(Residual(), torch.zeros(1, 3, 16, 16))
