"""Quantisation methods by name, and the whole path from a trained network to an exported one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from ..kernels.errors import FormatError
from ..sim.images import ImageSet
from ..sim.network import Network as ExportedNetwork
from ..sim.validation import first_problem
from .aciq import AciqSettings, aciq
from .capture import capture
from .export import Requantise, export_network
from .graph import Graph
from .minmax import MinMaxSettings, minmax
from .networks import load_network
from .preprocess import InputSpec
from .quantized import QuantizedGraph, accuracy
from .statistics import Statistics, collect

__all__ = ["METHODS", "Method", "Quantisation", "parse_settings", "quantize"]

INPUT_OPTIONS = ("mean", "std", "divide")
DEFAULT_IMAGES = 32
"""Calibration images of the paper's offline statistics."""


@dataclass(frozen=True)
class Method:
    """A method's settings class and the function that applies it."""

    settings: type[Any]
    apply: Callable[[Graph, InputSpec, Statistics, Any], QuantizedGraph]


METHODS: Mapping[str, Method] = {
    "aciq": Method(AciqSettings, aciq),
    "minmax": Method(MinMaxSettings, minmax),
}


@dataclass(frozen=True, eq=False)
class Quantisation:
    """The float graph, its quantised form and the network for the hardware, which compute alike."""

    graph: Graph
    quantized: QuantizedGraph
    network: ExportedNetwork

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
) -> Quantisation:
    """Quantise a trained network after training.

    Parameters
    ----------
    method : a key of `METHODS`
    network : a key of `networks.NETWORKS`, or ``package.module:factory``
    weights : a .safetensors, .pt or .pth file
    calibration : the first `images` of them give the statistics; labels are not used
    bits : of weights and activations, first and last layers apart
    options : the method's settings by name, as text; also ``mean``, ``std`` (values joined by commas) and
        ``divide`` for a module without an input specification of its own
    requantise : how layers come to codes: by "scale", or by "threshold" where hardware can (at most 4 bits)
    test : images on which the float network's top-1 is measured, for the file's provenance
    """
    if method not in METHODS:
        raise FormatError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if calibration.coded:
        raise FormatError("calibration images must be uint8 pixels, not integer codes")
    if not 1 <= images <= len(calibration):
        raise FormatError(f"images must be 1 to the {len(calibration)} of the calibration set, not {images}")
    chosen = dict(options or {})
    given = {key: chosen.pop(key) for key in INPUT_OPTIONS if key in chosen}
    widths: dict[str, object] = {} if bits is None else {"weight_bits": bits, "activation_bits": bits}
    settings = parse_settings(METHODS[method].settings, widths | chosen)
    spec = _input_spec(given, calibration) if given else None
    loaded = load_network(network, weights, spec or InputSpec(calibration.images.shape[1:]), override=bool(given))

    pixels = loaded.input.normalise(calibration.images[:images])
    graph = capture(loaded.module, loaded.example)
    quantized = METHODS[method].apply(graph, loaded.input, collect(graph, torch.from_numpy(pixels)), settings)
    name = loaded.name.rpartition(":")[2]
    provenance: dict[str, str | int | float] = {
        "gatewise": version("gatewise"),
        "source": loaded.name,
        "method": method,
        "calibration_images": images,
        "requantise": requantise,
        **{key: _plain(value) for key, value in quantized.settings.items()},
    }
    found = Quantisation(graph, quantized, export_network(quantized, name, provenance, requantise))
    if test is None:
        return found
    if test.labels is None or test.coded:
        raise FormatError("test images must be uint8 pixels with labels")
    provenance["float_top1"] = accuracy(found.float_logits(test.images), test.labels)
    provenance["float_images"] = len(test)
    return replace(found, network=export_network(quantized, name, provenance, requantise))


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
