"""The training loop: a network under a method's fake quantisation, from a float start to the hardware's integers.

Every epoch has its own randomness, drawn from the seed and the epoch's number, and a checkpoint that replaces the one
before it in one step: a training that is cut off goes on from its last epoch, on a CPU bit for bit. A part of
the training images can be held out: choices are made on it, and nobody chooses on test images. The last epoch counts.
"""

import hashlib
import io
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.errors import FormatError
from ..sim.atomic import write_bytes
from ..sim.images import ImageSet
from .graph import Graph
from .preprocess import InputSpec
from .quantized import QuantizedGraph
from .settings import check_positive
from .statistics import collect
from .trainable import FakeQuantizer, TrainableGraph
from .training_data import Augmentation, TrainingImages, epoch_generator

__all__ = ["EpochReport", "Progress", "Trained", "TrainingSettings", "fine_tune", "train", "training_device"]

CHECKPOINT = "checkpoint.pt"
STEP_FACTORS = ((0.75, 0.01), (0.5, 0.1), (0.0, 1.0))
"""The schedule "step": from these shares of the training on, the learning rate is multiplied by so much."""
SCORED = 500
"""Images at once when nothing is learnt."""
REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class TrainingSettings:
    """How a network trains, whatever the method.

    Parameters
    ----------
    epochs, seed : as they say; 0 epochs train nothing
    batch : images of a step
    optimizer : "sgd" (Nesterov's momentum) or "adam"
    learning_rate : at the start
    momentum : of "sgd"
    weight_decay : of the weights of layers alone
    schedule : of the learning rate, by steps: "cosine" to zero, "step" (a tenth after half, again after three quarters)
        or "constant"
    flip, crop : images mirrored half of the time, and moved by up to so many pixels
    held_out : share of the training images that does not train, and on which each epoch is measured
    norm_momentum : share of a batch in the running statistics of batch norms
    norm_images : training images on which batch norms are measured anew after the last epoch; 0 keeps what ran along
    refresh : whether grids that come of calibration are chosen anew before each epoch, or kept
    """

    epochs: int = 10
    seed: int = 0
    batch: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    flip: bool = False
    crop: int = 0
    held_out: float = 0.1
    norm_momentum: float = 0.1
    norm_images: int = 4096
    refresh: bool = False

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("seed", 0), ("batch", 1), ("crop", 0), ("norm_images", 0)):
            if getattr(self, name) < least:
                raise FormatError(f"{name.replace('_', ' ')} must be {least} or more, not {getattr(self, name)}")
        check_positive(self, "learning_rate")
        for name, most in (("momentum", 1.0), ("held_out", 1.0), ("norm_momentum", 1.0), ("weight_decay", math.inf)):
            if not 0 <= getattr(self, name) < most:
                raise FormatError(
                    f"{name.replace('_', ' ')} must be from 0 to less than {most:g}, not {getattr(self, name)}"
                )

    def rate(self, done: float) -> float:
        """What learning rates are multiplied by after a share `done` of all steps."""
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "step":
            return next(factor for share, factor in STEP_FACTORS if done >= share)
        return 1.0


@dataclass(frozen=True)
class EpochReport:
    """What an epoch came to: mean loss and top-1 on its own steps, top-1 on the held-out images (NaN without any).

    `facts` are the method's own figures.
    """

    epoch: int
    loss: float
    training_top1: float
    held_out_top1: float
    seconds: float
    facts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The documented JSON object: None where there is no figure."""
        return asdict(self) | ({"held_out_top1": None} if math.isnan(self.held_out_top1) else {})


class Progress:
    """Hears of a training; the base class says nothing."""

    def search(self, what: str, done: int, most: int) -> None:
        """Before the training: so much of something, of at most so much, is measured."""

    def start(self, epochs: int, steps: int, done: int) -> None:
        """So many epochs of so many steps; `done` epochs came from a checkpoint."""

    def step(self, epoch: int, step: int, loss: float, top1: float) -> None:
        """Now and then within an epoch: what it came to so far."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch has ended."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The network for the hardware, the float one behind it (folded), and the epochs."""

    quantized: QuantizedGraph
    graph: Graph
    history: tuple[EpochReport, ...]


def training_device(name: str | None = None) -> torch.device:
    """The device by its name: "cuda" where there is one unless given, else "cpu"."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        problem = (str(error).splitlines() or ["?"])[0]
        raise FormatError(f"device must be one that PyTorch has here, not {name}: {problem}") from error
    return device


def fine_tune(
    graph: Graph,
    spec: InputSpec,
    quantizer: FakeQuantizer,
    calibration: np.ndarray,
    images: ImageSet | None = None,
    settings: TrainingSettings | None = None,
    *,
    resume: str | Path | None = None,
    what: Mapping[str, object] | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Bring a float network under a method's quantisation, training it on `images` where there are any.

    Parameters
    ----------
    graph : unfolded, of `capture_unfolded`
    spec : of its input
    quantizer : the method, fresh
    calibration : uint8 (N, C, H, W): what ranges and statistics are taken of, before training and after
    images : labelled training images; without them, or with 0 epochs, the network is converted as it is
    resume : folder of checkpoints: goes on from the one that is there, and writes one for each epoch
    what : of the training, besides its settings, that a checkpoint must agree with
    device : "cpu", "cuda", ..; "cuda" where there is one unless given

    >>> trained = fine_tune(graph, spec, quantizer, images.images[:32], images, TrainingSettings(epochs=3))
    >>> network = export_network(trained.quantized, "mine", {})
    """
    settings = settings or TrainingSettings(epochs=0)
    chosen = training_device(device)
    network = TrainableGraph(graph, quantizer, settings.norm_momentum).to(chosen)
    pixels = torch.from_numpy(spec.normalise(calibration))
    history: list[EpochReport] = []
    network.eval()
    with torch.no_grad():
        quantizer.begin(network, pixels.to(chosen, network.dtype))
    quantizer.to(chosen)
    if images is not None and settings.epochs:
        data = TrainingImages.of(images, spec, chosen)
        facts = {"images": _digest(images), "network": _digest_graph(graph), **(what or {})}
        history = train(network, data, settings, resume=resume, what=facts, progress=progress)
    else:
        with torch.no_grad():
            quantizer.end(network)
    network.to("cpu").eval()
    with torch.no_grad():
        statistics = collect(network, pixels)
        quantized = quantizer.quantized(network, spec, statistics)
    return Trained(quantized, network.graph().folded(), tuple(history))


def train(
    network: TrainableGraph,
    images: TrainingImages,
    settings: TrainingSettings,
    *,
    resume: str | Path | None = None,
    what: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> list[EpochReport]:
    """Train a network whose quantiser has begun, and measure its batch norms anew; the epochs' reports."""
    listener = progress or Progress()
    own, held = images.split(settings.held_out, settings.seed)
    optimizer = _optimizer(network, settings)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = own.steps(settings.batch)
    augmentation = Augmentation(settings.flip, settings.crop)
    checkpoints = None if resume is None else _Checkpoints(Path(resume), {**asdict(settings), **(what or {})})
    history = [] if checkpoints is None else checkpoints.restore(network, optimizer)
    listener.start(settings.epochs, steps, len(history))
    with (
        _exact_convolutions(),
        torch.random.fork_rng(devices=[network.device] if network.device.type == "cuda" else []),
    ):
        for epoch in range(len(history), settings.epochs):
            began = time.monotonic()
            generator = epoch_generator(settings.seed, epoch)
            torch.manual_seed(generator.initial_seed())
            network.train()
            with torch.no_grad():
                network.quantizer.begin_epoch(network, epoch, settings.epochs)
            totals = torch.zeros(3, dtype=torch.float64, device=network.device)
            spoke = began
            for step, (x, labels) in enumerate(own.shuffled(settings.batch, generator, augmentation)):
                factor = settings.rate((epoch * steps + step) / (settings.epochs * steps))
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                totals += _step(network, optimizer, x, labels)
                if time.monotonic() - spoke > REPORT_SECONDS:
                    spoke = time.monotonic()
                    loss, right, count = totals.tolist()
                    listener.step(epoch, step + 1, loss / count, right / count)
            loss, right, count = totals.tolist()
            if not math.isfinite(loss):
                raise FormatError(f"training loss must be finite, and is not in epoch {epoch}: lower the learning rate")
            seconds = time.monotonic() - began
            held_top1, facts = _top1(network, held), network.quantizer.facts(network)
            history.append(EpochReport(epoch, loss / count, right / count, held_top1, seconds, facts))
            if checkpoints is not None:
                checkpoints.write(network, optimizer, history)
            listener.epoch(history[-1])
        with torch.no_grad():
            network.quantizer.end(network)
            _measure_norms(network, own, settings)
    return history


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """Without TF32, which rounds what quantisation made exact."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _step(network: TrainableGraph, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> Tensor:
    """One step; the summed loss, the images that were right, all images."""
    logits = network(x)
    loss = functional.cross_entropy(logits, labels)
    penalty = network.quantizer.penalty()
    optimizer.zero_grad(set_to_none=True)
    (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        network.quantizer.end_step(network)
        right = (logits.argmax(1) == labels).sum()
        return torch.stack([loss.detach() * len(labels), right, torch.full_like(right, len(labels))]).to(torch.float64)


def _optimizer(network: TrainableGraph, settings: TrainingSettings) -> torch.optim.Optimizer:
    layers = [network.layers[layer.name] for layer in network.structure.layers]
    weights = [layer.weight for layer in layers]
    others = [parameter for layer in layers for name, parameter in layer.named_parameters() if name != "weight"]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
        *network.quantizer.parameter_groups(),
    ]
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, settings.learning_rate)
    return torch.optim.SGD(groups, settings.learning_rate, settings.momentum, nesterov=settings.momentum > 0)


def _top1(network: TrainableGraph, images: TrainingImages) -> float:
    """Share of images that a network in eval mode has right."""
    if not len(images):
        return math.nan
    network.eval()
    with torch.no_grad():
        right = sum(int((network(x).argmax(1) == labels).sum()) for x, labels in images.batches(SCORED))
    return right / len(images)


def _measure_norms(network: TrainableGraph, images: TrainingImages, settings: TrainingSettings) -> None:
    """Running statistics as the plain mean over batches of training images, by the weights of the end.

    They are augmented as in training: the black that moved images bring along is in the statistics that the weights
    have learnt with. A ResNet-20 whose norms see unmoved images alone loses three points.
    """
    if not settings.norm_images or not network.structure.norms:
        return
    network.train()
    network.quantizer.eval()
    generator = epoch_generator(settings.seed, settings.epochs)
    augmentation = Augmentation(settings.flip, settings.crop)
    momentum = network.norm_momentum
    for count, (x, _) in enumerate(images.shuffled(settings.batch, generator, augmentation)):
        if count * settings.batch >= settings.norm_images:
            break
        network.norm_momentum = 1 / (count + 1)
        network(x)
    network.norm_momentum = momentum


class _Checkpoints:
    """The one checkpoint of a folder, and what it must be of."""

    def __init__(self, folder: Path, what: Mapping[str, object]) -> None:
        self.path = folder / CHECKPOINT
        self.what = {key: str(value) for key, value in what.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FormatError(f"{folder}: must be a folder for checkpoints: {error.strerror}") from error

    def write(self, network: TrainableGraph, optimizer: torch.optim.Optimizer, history: list[EpochReport]) -> None:
        content = {
            "schema": 1,
            "what": self.what,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": [asdict(report) for report in history],
        }
        data = io.BytesIO()
        torch.save(content, data)
        write_bytes(self.path, data.getvalue())

    def restore(self, network: TrainableGraph, optimizer: torch.optim.Optimizer) -> list[EpochReport]:
        """Take over the checkpoint, where there is one; the epochs that it has."""
        if not self.path.exists():
            return []
        try:
            content = torch.load(self.path, map_location=network.device, weights_only=True)
            if content["schema"] != 1:
                raise FormatError(f"{self.path}: must be a checkpoint of schema 1, not {content['schema']}")
            self._compare(content["what"])
            network.load_state_dict(content["network"])
            optimizer.load_state_dict(content["optimizer"])
            return [EpochReport(**report) for report in content["history"]]
        except FormatError:
            raise
        except Exception as error:  # torch.load raises many kinds on what it cannot read
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise FormatError(f"{self.path}: must be an intact checkpoint of this training: {problem}") from error

    def _compare(self, found: Mapping[str, str]) -> None:
        for key in {**self.what, **found}:
            if self.what.get(key) != found.get(key):
                raise FormatError(
                    f"{self.path}: must be a checkpoint of this very training, with {key} {self.what.get(key)}, "
                    f"not {found.get(key)}: resume elsewhere or delete it"
                )


def _digest(images: ImageSet) -> str:
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(b"" if images.labels is None else images.labels.astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def _digest_graph(graph: Graph) -> str:
    digest = hashlib.sha256()
    for layer in graph.layers:
        digest.update(graph.parameters[layer.name].weight.tobytes())
    return digest.hexdigest()[:16]
