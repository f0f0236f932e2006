"""Networks and data that the quantiser tests share."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gatewise.quant.capture import capture
from gatewise.quant.graph import Graph
from gatewise.quant.networks import Network, load_network
from gatewise.quant.statistics import Statistics, collect

HERE = Path(__file__).parent
# Test folders are no packages: the networks that a user would have on the path are put there.
sys.path.insert(0, str(HERE))

# The networks are small: more threads only wait for one another, most of all beside other test processes.
torch.set_num_threads(1)

from small_networks import Residual, shaken  # noqa: E402


@pytest.fixture(scope="session")
def residual() -> Graph:
    torch.manual_seed(3)
    return capture(shaken(Residual()), torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="session")
def residual_images() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = Path(os.environ.get("GATEWISE_DATA", HERE.parents[1] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}: set GATEWISE_DATA")
    return folder


@pytest.fixture(scope="session")
def resnet20(data_folder: Path) -> Network:
    return load_network("cifar-resnet20", data_folder / "cifar10" / "resnet20.safetensors")


@pytest.fixture(scope="session")
def resnet20_graph(resnet20: Network) -> Graph:
    return capture(resnet20.module, resnet20.example)


@pytest.fixture(scope="session")
def cifar_train(data_folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(data_folder / "cifar10" / "train.npz") as file:
        return file["images"][:1100], file["labels"][:1100]


@pytest.fixture(scope="session")
def resnet20_statistics(
    resnet20: Network, resnet20_graph: Graph, cifar_train: tuple[np.ndarray, np.ndarray]
) -> Statistics:
    return collect(resnet20_graph, torch.from_numpy(resnet20.input.normalise(cifar_train[0][:32])))
