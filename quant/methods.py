"""Quantisation methods by name, and the whole path from a trained network to an exported one."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from ..kernels.errors import FormatError
from ..sim.images import ImageSet
from ..sim.network import Network as ExportedNetwork
from ..sim.validation import first_problem
from .abcnet import AbcNetSettings, AbcNetTraining
from .aciq import AciqSettings, aciq
from .bayesian import BayesianBits, BayesianSettings, searched
from .capture import capture_unfolded
from .export import Requantise, export_network
from .fixed8 import Fixed8Settings, fixed8
from .flexor import FlexorSettings, flexor_training
from .focused import FocusedSettings, focused_training
from .graph import Graph
from .hawq import HawqSettings, hawq, search
from .inq import InqSettings, InqTraining
from .lqnet import LqNetSettings, LqNetTraining
from .minmax import MinMaxSettings, minmax
from .networks import load_network
from .preprocess import InputSpec
from .quantized import QuantizedGraph, accuracy
from .statistics import Statistics, collect
from .trainable import FakeQuantizer
from .training import EpochReport, Progress, Trained, TrainingSettings, fine_tune
from .uniform import UniformTraining

__all__ = ["METHODS", "Method", "Quantisation", "parse_settings", "quantize"]

BIT_OPTIONS = ("weight_bits", "activation_bits", "open_bits")
INPUT_OPTIONS = ("mean", "std", "divide")
DEFAULT_IMAGES = 32
"""Calibration images of the paper's offline statistics."""


class Choose(Protocol):
    """Makes of settings and labelled images what a method applies."""

    def __call__(
        self,
        graph: Graph,
        spec: InputSpec,
        statistics: Statistics,
        settings: Any,
        labelled: ImageSet,
        *,
        device: str | None,
        resume: str | Path | None,
        progress: Callable[[str, int, int], None] | None,
    ) -> Any:
        """Search on the float graph, folded."""


@dataclass(frozen=True)
class Method:
    """A method's settings class, the function that applies it, and what it is in training.

    `fine_tune` makes the method's quantiser of the unfolded float graph, its input, and the method's and the training's
    settings; unless given, that of `UniformTraining`, which asks no more than that `apply` ends in uniform integers. A
    method without `apply` is what its quantiser converts to without training. `training` are its own defaults of
    `TrainingSettings`; `search` chooses settings by trainings on the training images, each with settings of its own.
    What a method chooses by labelled images before all else it does in `choose`, whose result `apply` and `fine_tune`
    take in the place of the settings.
    """

    settings: type[Any]
    apply: Callable[[Graph, InputSpec, Statistics, Any], QuantizedGraph] | None = None
    fine_tune: Callable[[Graph, InputSpec, Any, TrainingSettings], FakeQuantizer] | None = None
    training: Mapping[str, object] = field(default_factory=dict)
    search: Callable[[Any, TrainingSettings, Callable[[Any, TrainingSettings], Trained]], Any] | None = None
    choose: Choose | None = None

    def quantizer(self, graph: Graph, spec: InputSpec, settings: Any, training: TrainingSettings) -> FakeQuantizer:
        """What the method does to an unfolded graph in training."""
        if self.fine_tune is not None:
            return self.fine_tune(graph, spec, settings, training)
        apply = self.apply
        assert apply is not None
        return UniformTraining(
            lambda folded, given, statistics: apply(folded, given, statistics, settings), spec, training.refresh
        )


ADAM: Mapping[str, object] = {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}

METHODS: Mapping[str, Method] = {
    "aciq": Method(AciqSettings, aciq),
    "minmax": Method(MinMaxSettings, minmax),
    "hawq": Method(HawqSettings, hawq, choose=search),
    "fixed8": Method(Fixed8Settings, fixed8),
    "focused": Method(FocusedSettings, fine_tune=focused_training),
    "inq": Method(InqSettings, fine_tune=InqTraining),
    "lqnet": Method(LqNetSettings, fine_tune=LqNetTraining),
    "abcnet": Method(AbcNetSettings, fine_tune=AbcNetTraining),
    "flexor": Method(FlexorSettings, fine_tune=flexor_training, training=ADAM),
    "bayesian": Method(BayesianSettings, fine_tune=BayesianBits, training=ADAM, search=searched),
}


@dataclass(frozen=True, eq=False)
class Quantisation:
    """The float graph, its quantised form and the network for the hardware, which compute alike.

    `graph` is what was given, folded, or what training ended with where no weights were given; `history` has the epochs
    of the training, if any.
    """

    graph: Graph
    quantized: QuantizedGraph
    network: ExportedNetwork
    history: tuple[EpochReport, ...] = ()

    def float_logits(self, images: np.ndarray, batch: int = 32) -> np.ndarray:
        """Logits (N, classes) of the float network in float64."""
        parts = [
            self.graph.run(torch.from_numpy(self.quantized.input.normalise(images[first : first + batch])))
            for first in range(0, len(images), batch)
        ]
        return torch.cat(parts).numpy()


def parse_settings(kind: type[Any], values: Mapping[str, object]) -> Any:
    """A settings object from text values; `FormatError` names what is wrong."""
    known = [field.name for field in fields(kind)]
    for key in values:
        if key not in known:
            raise FormatError(f"option must be one of {', '.join(known)}, not {key!r}")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise FormatError(f"option {first_problem(error)}") from error


def quantize(
    method: str,
    network: str,
    weights: str | None,
    calibration: ImageSet,
    *,
    images: int = DEFAULT_IMAGES,
    bits: int | None = None,
    options: Mapping[str, str] | None = None,
    requantise: Requantise = "scale",
    test: ImageSet | None = None,
    train: ImageSet | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Quantisation:
    """Quantise a trained network, after training or with more of it.

    Parameters
    ----------
    method : a key of `METHODS`
    network : a key of `networks.NETWORKS`, or ``package.module:factory``
    weights : a .safetensors, .pt or .pth file; without one the network is what its factory draws by the seed, and grids
        that come of calibration are chosen anew before each epoch unless options say otherwise
    calibration : the first `images` of them give the statistics; labels are not used
    bits : of weights and activations, first and last layers apart; where they are learnt, at the beginning
    options : the method's settings by name, as text, and those of `TrainingSettings`; also ``mean``, ``std`` (values
        joined by commas) and ``divide`` for a module without an input specification of its own
    requantise : how layers come to codes: by "scale", or by "threshold" where hardware can (at most 4 bits)
    test : images on which the float network's top-1 is measured, for the file's provenance
    train : labelled images on which the network is fine-tuned in its quantised form, for so many `epochs`; a method's
        search for widths is on them, and without them on the calibration set, which must have labels then
    seed : of everything that is drawn; 0 unless given
    resume, device, progress : of the training: see `training.fine_tune`
    """
    if method not in METHODS:
        raise FormatError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if calibration.coded:
        raise FormatError("calibration images must be uint8 pixels, not integer codes")
    if not 1 <= images <= len(calibration):
        raise FormatError(f"images must be 1 to the {len(calibration)} of the calibration set, not {images}")
    if train is None and (epochs is not None or resume is not None):
        raise FormatError(f"{'resume' if epochs is None else 'epochs'} must come with images to train on, and has none")
    chosen = dict(options or {})
    given = {key: chosen.pop(key) for key in INPUT_OPTIONS if key in chosen}
    kind = METHODS[method].settings
    # Ranges of a network that has learnt nothing are not those that it ends with.
    fresh: dict[str, object] = {"refresh": weights is None}
    training = _training_settings(chosen, METHODS[method], fresh, 0 if train is None else epochs, seed)
    widths: dict[str, object] = {} if bits is None else {name: bits for name in BIT_OPTIONS if _has(kind, name)}
    drawn: dict[str, object] = {"seed": seed} if seed is not None and _has(kind, "seed") else {}
    settings = parse_settings(kind, widths | drawn | chosen)
    spec = _input_spec(given, calibration) if given else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        loaded = load_network(network, weights, spec or InputSpec(calibration.images.shape[1:]), override=bool(given))

    unfolded = capture_unfolded(loaded.module, loaded.example)
    graph, pixels = unfolded.folded(), calibration.images[:images]
    history: tuple[EpochReport, ...] = ()
    apply, choose = METHODS[method].apply, METHODS[method].choose
    if choose is not None:
        ranges = collect(graph, torch.from_numpy(loaded.input.normalise(pixels)))
        told = None if progress is None else progress.search
        settings = choose(
            graph, loaded.input, ranges, settings, train or calibration, device=device, resume=resume, progress=told
        )
    if train is None and apply is not None:
        statistics = collect(graph, torch.from_numpy(loaded.input.normalise(pixels)))
        quantized = apply(graph, loaded.input, statistics, settings)
    else:

        def fitted(settings: Any, training: TrainingSettings, folder: str | Path | None) -> Trained:
            quantizer = METHODS[method].quantizer(unfolded, loaded.input, settings, training)
            what = {"method": method, **asdict(settings)}
            return fine_tune(
                unfolded, loaded.input, quantizer, pixels, train, training,
                resume=folder, what=what, device=device, progress=progress,
            )  # fmt: skip

        search, trials = METHODS[method].search, count()
        if search is not None:

            def tried(settings: Any, training: TrainingSettings) -> Trained:
                trial = next(trials)
                return fitted(settings, training, None if resume is None else Path(resume) / f"search-{trial}")

            settings = search(settings, training, tried)
        trained = fitted(settings, training, resume)
        quantized, history = trained.quantized, trained.history
        if weights is None:
            graph = trained.graph
    name = loaded.name.rpartition(":")[2]
    provenance: dict[str, str | int | float] = {
        "gatewise": _version(),
        "source": loaded.name,
        "method": method,
        "calibration_images": images,
        "requantise": requantise,
        **{key: _plain(value) for key, value in quantized.settings.items()},
        **({} if train is None else _training_facts(training, train, history)),
    }
    found = Quantisation(graph, quantized, export_network(quantized, name, provenance, requantise), history)
    if test is None:
        return found
    if test.labels is None or test.coded:
        raise FormatError("test images must be uint8 pixels with labels")
    provenance["float_top1"] = accuracy(found.float_logits(test.images), test.labels)
    provenance["float_images"] = len(test)
    return replace(found, network=export_network(quantized, name, provenance, requantise))


def _version() -> str:
    try:
        return version("gatewise")
    except PackageNotFoundError:
        return "not installed"


def _has(kind: type[Any], name: str) -> bool:
    return any(field.name == name for field in fields(kind))


def _training_settings(
    chosen: dict[str, str], method: Method, default: Mapping[str, object], epochs: int | None, seed: int | None
) -> TrainingSettings:
    """The training's settings, taken out of the options; a method's own setting of the same name stays."""
    names = [field.name for field in fields(TrainingSettings) if not _has(method.settings, field.name)]
    own: dict[str, object] = {name: chosen.pop(name) for name in names if name in chosen}
    named = {"epochs": epochs, "seed": seed}
    training: TrainingSettings = parse_settings(
        TrainingSettings,
        {**default, **method.training, **own} | {name: value for name, value in named.items() if value is not None},
    )
    return training


def _training_facts(
    training: TrainingSettings, train: ImageSet, history: tuple[EpochReport, ...]
) -> dict[str, str | int | float]:
    """What a file says of its training."""
    held = history[-1].held_out_top1 if history else float("nan")
    return {
        "training_images": len(train),
        **{f"training_{key}": _plain(value) for key, value in asdict(training).items()},
        **({"held_out_top1": held} if held == held else {}),
    }


def _input_spec(given: Mapping[str, str], calibration: ImageSet) -> InputSpec:
    try:
        values = {key: tuple(float(part) for part in text.split(",")) for key, text in given.items()}
    except ValueError as error:
        raise FormatError(f"options mean, std and divide must be numbers joined by commas: {error}") from error
    divide = values.get("divide", (255.0,))
    if len(divide) != 1:
        raise FormatError(f"option divide must be one number, not {len(divide)}")
    return InputSpec(calibration.images.shape[1:], values.get("mean", (0.0,)), values.get("std", (1.0,)), divide[0])


def _plain(value: object) -> str | int | float:
    return value if isinstance(value, str | int | float) else str(value)
