"""Networks by name, or by the ``package.module:factory`` of a user's own.

The built-in ones are the option-A ResNets for CIFAR-10 of He et al., "Deep residual learning for
image recognition" (2016), section 4.2: three stages of n basic blocks, shortcuts without parameters
(every second pixel, then zero channels on both sides). Parameter names follow the widely
used PyTorch checkpoints of these networks. The LeNet-5 for MNIST are FleXOR's, whose maps are padded to keep their size
(32C5-MP2-64C5-MP2-512FC-10: 1,663,370 weights and biases), and the one without padding of Bayesian Bits (1024-512-10:
582,026); they come untrained.
"""

import importlib
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..kernels.errors import FormatError
from .preprocess import InputSpec
from .user_code import reason

__all__ = ["NETWORKS", "CifarResNet", "LeNet5", "Network", "load_network", "load_weights"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and an option-A shortcut."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride = stride
        self.added = planes - in_planes

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, planes, H / stride, W / stride)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x
        if self.added:
            before = self.added // 2
            strided = x[:, :, :: self.stride, :: self.stride]
            shortcut = functional.pad(strided, (0, 0, 0, 0, before, self.added - before))
        return functional.relu(out + shortcut)


class CifarResNet(nn.Module):
    """Option-A ResNet of 6 * `blocks` + 2 layers for 32 x 32 images and ten classes."""

    gatewise_input = InputSpec((3, 32, 32), IMAGENET_MEAN, IMAGENET_STD)

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_planes, planes, stride)
        return nn.Sequential(first, *(BasicBlock(planes, planes, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to logits (N, classes)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = functional.avg_pool2d(out, out.shape[3])
        return self.linear(out.flatten(1))  # type: ignore[no-any-return]


class LeNet5(nn.Sequential):
    """Two 5 x 5 convolutions, whose maps keep their size or not, and two linear layers for 28 x 28 grey images."""

    gatewise_input = InputSpec((1, 28, 28))

    def __init__(self, padded: bool, classes: int = 10) -> None:
        padding, pixels = (2, 7 * 7) if padded else (0, 4 * 4)
        super().__init__(
            nn.Conv2d(1, 32, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * pixels, 512), nn.ReLU(), nn.Linear(512, classes),
        )  # fmt: skip


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "cifar-resnet20": partial(CifarResNet, 3),
    "cifar-resnet32": partial(CifarResNet, 5),
    "lenet5": partial(LeNet5, True),
    "lenet5-unpadded": partial(LeNet5, False),
}
"""Built-in networks: name to factory."""


@dataclass(frozen=True, eq=False)
class Network:
    """A module in eval mode with its trained weights, and what its input is."""

    name: str
    module: nn.Module
    input: InputSpec

    @property
    def example(self) -> Tensor:
        """One input of zeros (1, C, H, W), for capture."""
        return torch.zeros(1, *self.input.shape)


def load_network(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    spec: InputSpec | None = None,
    override: bool = False,
) -> Network:
    """Build a network by registry name or ``package.module:factory`` and load its weights.

    The factory takes no arguments and returns an `nn.Module` whose attribute ``gatewise_input`` is
    an `InputSpec`; without the attribute, or with `override`, `spec` stands in for it. The current
    folder is on the import path. `weights` is a .safetensors file, or a .pt or .pth file that holds
    a plain state dict (read without executing code); None keeps what the factory built. Raises
    `FormatError` where any of this does not hold.
    """
    module = NETWORKS[name]() if name in NETWORKS else _built(name)
    spec = spec if override else getattr(module, "gatewise_input", spec)
    if not isinstance(spec, InputSpec):
        raise FormatError(f"the module of {name} must have an InputSpec as its gatewise_input, not {spec!r}")
    if weights is not None:
        _load_state(module, name, Path(weights))
    return Network(name, module.eval(), spec)


def _built(name: str) -> nn.Module:
    """Import the factory that `name` spells and call it."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise FormatError(f"network must be package.module:factory or one of {', '.join(NETWORKS)}, not {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise FormatError(f"module {module_name} must be importable: {error}") from error
    except Exception as error:  # a user's module may raise anything
        raise FormatError(f"module {module_name} must be importable: {reason(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise FormatError(f"{module_name} must have a callable {attribute}, and has none")
    try:
        built = factory()
    except Exception as error:  # and so may a user's factory
        raise FormatError(f"{name} must build a module: {reason(error)}") from error
    if not isinstance(built, nn.Module):
        raise FormatError(f"{name} must return an nn.Module, not {type(built).__name__}")
    return built


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; ``{"state_dict": ...}`` and a common ``module.`` prefix are unwrapped."""
    if not path.is_file():
        raise FormatError(f"weights file must exist: {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix not in (".pt", ".pth"):
            raise FormatError(f"weights must be a .safetensors, .pt or .pth file, not {path.name}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FormatError:
        raise
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path} must hold plain tensors that load without executing code: save module.state_dict(), not the module"
        ) from error
    except Exception as error:  # each format's reader raises its own kinds on what it cannot read
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path} must hold plain tensors that load without executing code: {problem}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FormatError(f"{path} must hold a state dict of tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_state(module: nn.Module, name: str, path: Path) -> None:
    """Load weights; counters of batches seen may be absent, everything else must match."""
    state = load_weights(path)
    expected = module.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in expected]
    if missing or extra:
        found = [f"without {len(missing)} of its tensors ({missing[0]}, ..)"] if missing else []
        found += [f"with {len(extra)} others ({extra[0]}, ..)"] if extra else []
        raise FormatError(f"{path} must match the parameters of {name}, found it {' and '.join(found)}")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            want, have = tuple(expected[key].shape), tuple(value.shape)
            raise FormatError(f"{key} of {path} must have shape {want}, not {have}")
        if not value.isfinite().all():
            raise FormatError(f"{key} of {path} must be finite, found {value[~value.isfinite()][0].item()}")
    module.load_state_dict(state, strict=False)
