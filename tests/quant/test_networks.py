import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.networks import NETWORKS, Network, load_network
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent


@pytest.fixture
def users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is the user's, and the import path does not have it yet."""
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry) != HERE])
    monkeypatch.delitem(sys.modules, "torchvision_style", raising=False)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return load_network("cifar-resnet20").module.state_dict()


@pytest.mark.usefixtures("users_folder")
def test_a_users_factory_is_found_in_the_current_folder() -> None:
    network = load_network("torchvision_style:resnet18")
    assert not network.module.training
    assert network.input.shape == (3, 64, 64)
    assert network.example.shape == (1, 3, 64, 64)


@pytest.mark.usefixtures("users_folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet1000",
            f"network must be package.module:factory or one of {', '.join(NETWORKS)}, not 'resnet1000'",
        ),
        ("no_such_package:net", "module no_such_package must be importable: No module named 'no_such_package'"),
        ("torchvision_style:missing", "torchvision_style must have a callable missing, and has none"),
        ("torchvision_style:not_a_factory", "torchvision_style must have a callable not_a_factory, and has none"),
        ("torchvision_style:a_number", "torchvision_style:a_number must return an nn.Module, not int"),
        ("torch.nn:Identity", "the module of torch.nn:Identity must have an InputSpec as its gatewise_input, not None"),
    ],
)
def test_a_bad_network_name_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        load_network(name)
    assert str(caught.value) == message


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_load_from_every_format(suffix: str, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    loaded = load_network("cifar-resnet20", path).module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_pickle_that_executes_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(FormatError, match="must hold plain tensors that load without executing code"):
        load_network("cifar-resnet20", path)


def test_weights_of_another_network_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    with pytest.raises(FormatError, match=r"must match the parameters of cifar-resnet32, found it without 60 of"):
        load_network("cifar-resnet32", path)
    state["linear.bias"] = torch.zeros(11)
    save_file(state, path)
    with pytest.raises(FormatError, match=r"linear.bias of .* must have shape \(10,\), not \(11,\)"):
        load_network("cifar-resnet20", path)
    state["linear.bias"] = torch.full((10,), torch.inf)
    save_file(state, path)
    with pytest.raises(FormatError, match=r"linear.bias of .* must be finite, found inf"):
        load_network("cifar-resnet20", path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(FormatError, match="must hold plain tensors"):
        load_network("cifar-resnet20", path)
    with pytest.raises(FormatError, match="weights file must exist"):
        load_network("cifar-resnet20", tmp_path / "absent.pt")


def test_published_weights_classify_lossless_images(resnet20: Network, data_folder: Path) -> None:
    with np.load(data_folder / "cifar10" / "test.npz") as file:
        images, labels = file["images"][:128], file["labels"][:128]
    with torch.no_grad():
        logits = resnet20.module(torch.from_numpy(resnet20.input.normalise(images)).float())
    assert np.mean(logits.argmax(1).numpy() == labels) > 0.85


def test_the_lenet5_without_padding_is_the_published_one() -> None:
    network = load_network("lenet5-unpadded")
    assert sum(parameter.numel() for parameter in network.module.parameters()) == 582_026
    assert network.module(network.example).shape == (1, 10)
