from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph
from gatewise.quant.minmax import MinMaxSettings, minmax
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.trainable import TrainableGraph
from gatewise.quant.training import EpochReport, Progress, TrainingSettings, fine_tune
from gatewise.quant.uniform import UniformTraining
from gatewise.sim.images import ImageSet
from small_networks import blob_images, shaken
from torch import nn

SPEC = InputSpec((2, 8, 8), (0.5,), (0.25,))
SETTINGS = TrainingSettings(epochs=3, batch=32, learning_rate=0.05, held_out=0.2, flip=True, crop=1)


class Blobs(nn.Sequential):
    """Two convolutions with batch norms, and a linear layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return blob_images(240)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return capture_unfolded(shaken(Blobs()), torch.zeros(1, 2, 8, 8))


def quantizer(refresh: bool = False, bits: int = 3) -> UniformTraining:
    settings = MinMaxSettings(bits, bits, per_channel_weights=True)
    return UniformTraining(lambda *given: minmax(*given, settings), SPEC, refresh)


@pytest.mark.parametrize("refresh", [False, True])
def test_a_network_learns_under_its_quantisation(graph: Graph, images: ImageSet, refresh: bool) -> None:
    before = fine_tune(graph, SPEC, quantizer(refresh), images.images[:32])
    after = fine_tune(graph, SPEC, quantizer(refresh), images.images[:32], images, SETTINGS)
    right = [np.mean(found.quantized.run(images.images).argmax(1) == images.labels) for found in (before, after)]
    assert right[0] < 0.7 < 0.85 < right[1]
    assert [report.epoch for report in after.history] == [0, 1, 2]
    assert after.history[-1].loss < after.history[0].loss
    assert after.history[-1].held_out_top1 > 0.6
    result = export_network(after.quantized, "blobs", {}).run(images)
    assert np.mean(result.predictions == after.quantized.run(images.images).argmax(1)) > 0.99


class Kept(UniformTraining):
    """Keeps the network that it was asked to quantise."""

    def quantized(self, network, spec, statistics):  # type: ignore[no-untyped-def]
        self.network = network
        return super().quantized(network, spec, statistics)


def test_what_trains_is_what_is_exported(graph: Graph, images: ImageSet) -> None:
    settings = MinMaxSettings(3, 3)
    kept = Kept(lambda *given: minmax(*given, settings), SPEC)
    negative = {name: norm._replace(weight=norm.weight * -1) for name, norm in graph.norms.items()}
    graph = replace(graph, norms=negative)
    found = fine_tune(graph, SPEC, kept, images.images[:32], images, SETTINGS)
    network: TrainableGraph = kept.network
    for layer in found.quantized.layers:
        own = network.layers[layer.name]
        used = network.quantizer.weight(layer.op, own.weight, own.gain) * own.gain.reshape(
            -1, *(1,) * (own.weight.ndim - 1)
        )
        np.testing.assert_allclose(used.detach().numpy(), layer.weights.real, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        fake = network(torch.from_numpy(SPEC.normalise(images.images))).numpy()
    exact = found.quantized.run(images.images)
    assert np.mean(exact.argmax(1) == fake.argmax(1)) > 0.97
    # Biases are whole numbers of accumulator steps in hardware, which moves a code now and then.
    assert np.mean(np.abs(exact - fake) < 0.05 * np.abs(fake).max()) > 0.85


def test_a_resumed_training_goes_on_bit_for_bit(graph: Graph, images: ImageSet, tmp_path: Path) -> None:
    class Cut(Progress):
        def epoch(self, report: EpochReport) -> None:
            if report.epoch == 1:
                raise KeyboardInterrupt

    whole = fine_tune(graph, SPEC, quantizer(), images.images[:32], images, SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(graph, SPEC, quantizer(), images.images[:32], images, SETTINGS, resume=tmp_path, progress=Cut())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    resumed = fine_tune(graph, SPEC, quantizer(), images.images[:32], images, SETTINGS, resume=tmp_path)
    for layer in graph.layers:
        for first, second in zip(whole.graph.parameters[layer.name], resumed.graph.parameters[layer.name], strict=True):
            np.testing.assert_array_equal(first, second)
    assert [replace(report, seconds=0) for report in resumed.history] == [
        replace(report, seconds=0) for report in whole.history
    ]


def test_a_checkpoint_of_another_training_is_refused(graph: Graph, images: ImageSet, tmp_path: Path) -> None:
    short = replace(SETTINGS, epochs=1)
    fine_tune(graph, SPEC, quantizer(), images.images[:32], images, short, resume=tmp_path)
    with pytest.raises(FormatError, match="with batch 16, not 32: resume elsewhere or delete it"):
        fine_tune(graph, SPEC, quantizer(), images.images[:32], images, replace(short, batch=16), resume=tmp_path)
    with pytest.raises(FormatError, match="this very training, with images "):
        fine_tune(graph, SPEC, quantizer(), images.images[:32], images[:100], short, resume=tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="must be an intact checkpoint of this training"):
        fine_tune(graph, SPEC, quantizer(), images.images[:32], images, short, resume=tmp_path)


def test_seeds_differ_and_repeat(graph: Graph, images: ImageSet) -> None:
    def weights(seed: int) -> np.ndarray:
        short = replace(SETTINGS, epochs=1, seed=seed)
        return fine_tune(graph, SPEC, quantizer(), images.images[:32], images, short).graph.parameters["0"].weight

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).any()


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.01]),
        ("cosine", [1, 0.8535533905932737, 0.5, 0.1464466094067262]),
    ],
)
def test_learning_rates_follow_their_schedule(schedule: str, rates: list[float]) -> None:
    settings = TrainingSettings(schedule=schedule)  # type: ignore[arg-type]
    assert [settings.rate(done) for done in (0, 0.25, 0.5, 0.75)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": -1}, "epochs must be 0 or more, not -1"),
        ({"learning_rate": 0.0}, "learning rate must be positive, not 0.0"),
        ({"held_out": 1.0}, "held out must be from 0 to less than 1, not 1.0"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        TrainingSettings(**change)  # type: ignore[arg-type]


def test_a_training_that_runs_away_says_so(graph: Graph, images: ImageSet) -> None:
    with pytest.raises(FormatError, match="training loss must be finite"):
        fine_tune(graph, SPEC, quantizer(), images.images[:32], images, replace(SETTINGS, learning_rate=1e30, epochs=2))


def test_a_device_that_is_not_there_is_refused(graph: Graph, images: ImageSet) -> None:
    with pytest.raises(FormatError, match="device must be one that PyTorch has here, not nowhere"):
        fine_tune(graph, SPEC, quantizer(), images.images[:32], device="nowhere")
