"""HAWQ-V2: widths of each layer's weights and activations by the Hessian of the loss, without training.

Source: Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks" (NeurIPS 2020). A layer's
error is ``Omega_i(b) = mean trace of H_i x ||Q_b(W_i) - W_i||^2`` (equation 10, without its factor 1/2); of the
settings in which more sensitive layers do not have fewer bits the one of least total Omega within the budget is taken.
Activations come first, by the same rule with the Hessian of each layer's input, averaged over images (equations 8 and
9), and bits of an image's activations as the budget.

The paper's one budget is model size. BOPs and cycles are others, the latter from the cycle model of an engine, layer by
layer: a layer's cycles depend on its own weights' width alone once activations are chosen.

Where the paper is silent:

* blocks are layers, the first and the last like the others; `edge_bits` gives those two a width of their own;
* weights are those that hardware multiplies by, batch norms folded in, and so is their Hessian;
* their grids are asymmetric, one for each output channel or for each layer, over the extremes or, for the sake of the
  very error in Omega, over that share of them with the least squared error; activations have one for each tensor, over
  the extremes;
* a layer that reads the network's input reads its 8 bits;
* ``||Q(a) - a||^2`` is of an image's activations in the float network, averaged over images.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..kernels.errors import FormatError, MismatchError
from ..kernels.nested import bops
from ..sim.cycles import network_cycles
from ..sim.engine import EngineConfig
from ..sim.images import ImageSet
from ..sim.lower import lower as lower_on_engine
from ..sim.prune import layer_bops
from .export import export_network
from .graph import Graph, Hook, Node
from .hessian import Curvature, Tensors, TraceEstimate
from .lowering import INPUT_BITS, edge_layers, lower
from .minmax import LayerBits, MinMaxQuantizer
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedTensor
from .selection import Candidates, Setting
from .statistics import Statistics

__all__ = [
    "Budget",
    "HawqChoice",
    "HawqSettings",
    "Metric",
    "Range",
    "Sensitivities",
    "choose",
    "hawq",
    "search",
    "weight_budget",
]

Budget = Literal["size", "bops", "cycles"]
Metric = Literal["hessian", "l2"]
Range = Literal["minmax", "least_error"]
Selection = Literal["ordered", "integer", "highest"]
MAX_BITS = 8
FLOAT_BITS = 32
ERROR_BATCH = 32


@dataclass(frozen=True)
class HawqSettings:
    """Settings of HAWQ-V2.

    Parameters
    ----------
    weight_bits : average bits of a weight
    activation_bits : average bits of an activation that a layer reads
    weight_choices, activation_choices : widths, joined by commas
    edge_bits : of the first and last layers' weights and activations; 0 where they are chosen like the others
    per_channel_weights : a grid for each output channel, or for each layer
    weight_range : of a grid: "minmax", or the share of the extremes with "least_error"
    selection : "ordered" by sensitivity, as in the paper; "integer": any setting; or "highest": the paper's ablation,
        the greatest error of the settings in the ordering that cost as much as its choice or more
    metric : of the errors: "hessian", or "l2" without the traces (the paper's ablation)
    budget : "size" in bits of weights, "bops", or "cycles" on an engine with a fused array
    limit : of the budget, in bits, BOPs or cycles of an image; 0: what all layers take at `weight_bits`
    hessian_images : labelled images for the Hessian, the first of those given
    least_sweeps, sweeps : over these images, for each Hessian
    tolerance : standard error of a trace, as a share of it, at which sweeps end
    seed : of the probes
    rows, lanes : of the engine whose cycles count
    """

    weight_bits: float = 4.0
    activation_bits: float = 8.0
    weight_choices: str = "2,4,8"
    activation_choices: str = "4,8"
    edge_bits: int = 0
    per_channel_weights: bool = True
    weight_range: Range = "least_error"
    selection: Selection = "ordered"
    metric: Metric = "hessian"
    budget: Budget = "size"
    limit: int = 0
    hessian_images: int = 256
    least_sweeps: int = 4
    sweeps: int = 8
    tolerance: float = 0.05
    seed: int = 0
    rows: int = 16
    lanes: int = 16

    def __post_init__(self) -> None:
        for name in ("weight", "activation"):
            choices, average = getattr(self, f"{name}_widths"), getattr(self, f"{name}_bits")
            if not choices[0] <= average <= MAX_BITS:
                raise FormatError(
                    f"{name} bits must be on average {choices[0]}, the least of the choices, to {MAX_BITS}, "
                    f"not {average:g}"
                )
        if self.edge_bits and not 1 <= self.edge_bits <= MAX_BITS:
            raise FormatError(f"edge bits must be 0 or 1 to {MAX_BITS}, not {self.edge_bits}")
        if self.limit < 0 or self.hessian_images < 1:
            raise FormatError(
                f"limit must not be negative and Hessian images be at least 1, not {self.limit} and "
                f"{self.hessian_images}"
            )
        if self.budget == "cycles" and not self.limit and self.weight_bits not in self.weight_widths:
            raise FormatError(
                f"weight bits must be one of {self.weight_choices} for the budget cycles without a limit, not "
                f"{self.weight_bits:g}"
            )
        _ = self.engine

    @staticmethod
    def _widths(name: str, text: str) -> tuple[int, ...]:
        try:
            widths = tuple(int(part) for part in text.split(","))
        except ValueError:
            widths = ()
        if not widths or list(widths) != sorted(set(widths)) or not 1 <= widths[0] <= widths[-1] <= MAX_BITS:
            raise FormatError(f"{name} choices must be rising widths of 1 to {MAX_BITS} bits with commas, not {text!r}")
        return widths

    @property
    def weight_widths(self) -> tuple[int, ...]:
        """The widths that weights may have."""
        return self._widths("weight", self.weight_choices)

    @property
    def activation_widths(self) -> tuple[int, ...]:
        """The widths that activations may have."""
        return self._widths("activation", self.activation_choices)

    @property
    def least_activations(self) -> int:
        """The widest choice that the average allows for all layers."""
        return max(width for width in self.activation_widths if width <= self.activation_bits)

    @property
    def mixes_activations(self) -> bool:
        """Whether the average leaves room for wider ones, which traces then choose."""
        return self.least_activations < min(self.activation_bits, self.activation_widths[-1])

    @property
    def engine(self) -> EngineConfig:
        """The engine whose cycles count."""
        return EngineConfig(rows=self.rows, lanes=self.lanes, array="fusion")


class _InputErrors(Hook):
    """``||Q(a) - a||^2`` of every layer's input, added over images, on the grids `tensors` by layer."""

    def __init__(self, tensors: Mapping[str, QuantizedTensor]) -> None:
        self.tensors = tensors
        self.total = dict.fromkeys(tensors, 0.0)

    def layer_input(self, node: Node, value: Tensor) -> Tensor:
        """Measure one layer's input."""
        grid = self.tensors[node.name]
        self.total[node.name] += float(((grid.dequantize(grid.quantize(value)) - value) ** 2).sum())
        return value


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """What widths do to a network and what they cost: all that a choice needs, once the traces are known.

    Parameters
    ----------
    graph, spec, statistics : the float network, its input, and calibration of its ranges
    settings : those that say what is measured: choices, edges, grids, engine
    x : normalised images (N, C, H, W) of the traces
    weights, activations : traces by layer
    """

    graph: Graph
    spec: InputSpec
    statistics: Statistics
    settings: HawqSettings
    x: Tensor
    weights: Mapping[str, TraceEstimate]
    activations: Mapping[str, TraceEstimate] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All layers, in order."""
        return tuple(layer.name for layer in self.graph.layers)

    @cached_property
    def fixed_weights(self) -> dict[str, int]:
        """Layers whose weights' width is none of the choices'."""
        edges = edge_layers(self.graph) if self.settings.edge_bits else ()
        return {name: self.settings.edge_bits for name in self.names if name in edges}

    @cached_property
    def fixed_activations(self) -> dict[str, int]:
        """Layers whose input's width is none."""
        first = {layer.name: INPUT_BITS for layer in self.graph.layers if layer.inputs[0] == self.graph.input.name}
        return {**self.fixed_weights, **first}

    def lowered(self, bits: LayerBits) -> QuantizedGraph:
        """The network with these widths."""
        return _lowered(self.graph, self.spec, self.statistics, bits, self.settings, asdict(self.settings))

    @cached_property
    def inputs(self) -> dict[str, int]:
        """Activations of an image that each layer reads."""
        return {layer.name: int(np.prod(self.graph.by_name[layer.inputs[0]].shape)) for layer in self.graph.layers}

    def _of(self, tensors: Tensors) -> tuple[Mapping[str, TraceEstimate], Mapping[str, int], tuple[int, ...]]:
        """Traces, fixed widths and choices."""
        if tensors == "weights":
            return self.weights, self.fixed_weights, self.settings.weight_widths
        return self.activations, self.fixed_activations, self.settings.activation_widths

    def _candidates(
        self,
        tensors: Tensors,
        errors: Sequence[Mapping[str, float]],
        costs: Sequence[Mapping[str, int]],
        metric: Metric,
    ) -> Candidates:
        """Candidates of all layers whose width is free; errors and costs by width and layer."""
        traces, fixed, widths = self._of(tensors)
        names = [name for name in self.names if name not in fixed]
        if not names:
            raise FormatError("a network must have layers whose width is free, and all of its layers are edges")
        average = np.array([traces[name].average for name in names])
        error, cost = (np.array([[each[name] for each in values] for name in names]) for values in (errors, costs))
        weighted = error if metric == "l2" else average[:, None] * error
        return Candidates.of(names, widths, weighted, cost, average)

    def activation_candidates(self, metric: Metric = "hessian") -> Candidates:
        """Candidates for the inputs of layers; costs are bits of an image's."""
        errors, costs = [], []
        for bits in self.settings.activation_widths:
            network = self.lowered(
                LayerBits(
                    dict.fromkeys(self.names, MAX_BITS), {**dict.fromkeys(self.names, bits), **self.fixed_activations}
                )
            )
            measured = _InputErrors({layer.name: network.tensors[layer.inputs[0]] for layer in network.layers})
            with torch.no_grad():
                for first in range(0, len(self.x), ERROR_BATCH):
                    self.graph.run(self.x[first : first + ERROR_BATCH], hook=measured)
            errors.append({name: total / len(self.x) for name, total in measured.total.items()})
            costs.append({name: self.inputs[name] * bits for name in self.names})
        return self._candidates("activations", errors, costs, metric)

    def weight_candidates(
        self, activations: Mapping[str, int], budget: Budget = "size", metric: Metric = "hessian"
    ) -> tuple[Candidates, int]:
        """Candidates for the weights where layers read activations of these widths, and what all else costs."""
        errors, costs = [], []
        for bits in self.settings.weight_widths:
            weights = {**dict.fromkeys(self.names, bits), **self.fixed_weights}
            network = self.lowered(LayerBits(weights, activations))
            errors.append(self.weight_errors(network))
            costs.append(self.costs(network, budget))
        # Other layers' cycles may depend on the first layer's width: the input's load, where the stem is unfolded.
        rest = [each.pop("") + sum(each[name] for name in self.fixed_weights) for each in costs]
        for each, other in zip(costs, rest, strict=True):
            each[self.names[0]] += other - min(rest)
        return self._candidates("weights", errors, costs, metric), min(rest)

    def weight_errors(self, network: QuantizedGraph) -> dict[str, float]:
        """``||Q(W) - W||^2`` by layer."""
        return {
            layer.name: float(((layer.weights.real - self.graph.parameters[layer.name].weight) ** 2).sum())
            for layer in network.layers
        }

    def costs(self, network: QuantizedGraph, budget: Budget) -> dict[str, int]:
        """What each layer costs, and under the name "" what is not of the layers: cycles alone."""
        if budget == "size":
            weights = {layer.name: self.graph.parameters[layer.name].weight.size for layer in network.layers}
            return {"": 0, **{layer.name: weights[layer.name] * layer.weights.bits for layer in network.layers}}
        exported = export_network(network, "costs", {})
        names = dict(zip((node.name for node in exported.mac_nodes()), self.names, strict=True))
        if budget == "bops":
            each = layer_bops(exported)
            return {"": 0, **{own: int(bops([each[name]])) for name, own in names.items()}}
        found = {"": 0}
        for layer in network_cycles(lower_on_engine(exported, self.settings.engine), self.settings.engine):
            own = names.get(layer.name, "") if layer.macs else ""
            found[own] = found.get(own, 0) + layer.total
        return found

    def facts(self, bits: LayerBits) -> dict[str, str | int | float]:
        """What a file says of its widths and of the traces behind them."""
        weights = {layer.name: self.graph.parameters[layer.name].weight.size for layer in self.graph.layers}
        compressed = sum(self.inputs[name] * bits.activations[name] for name in self.names)
        flagged = [each.name for found in (self.weights, self.activations) for each in found.values() if each.flagged]
        return {
            "weight_widths": ",".join(str(bits.weights[name]) for name in self.names),
            "activation_widths": ",".join(str(bits.activations[name]) for name in self.names),
            "mean_weight_bits": sum(weights[name] * bits.weights[name] for name in self.names) / sum(weights.values()),
            "activation_compression": FLOAT_BITS * sum(self.inputs.values()) / compressed,
            "clamped_traces": ",".join(flagged) or "none",
        }


def _lowered(
    graph: Graph,
    spec: InputSpec,
    statistics: Statistics,
    bits: LayerBits,
    settings: HawqSettings,
    record: Mapping[str, object],
) -> QuantizedGraph:
    quantizer = MinMaxQuantizer(
        spec, statistics, bits, settings.per_channel_weights, "hawq", record, settings.weight_range == "least_error"
    )
    return lower(graph, spec, quantizer)


@dataclass(frozen=True)
class HawqChoice:
    """What a search has chosen: each layer's bits, and facts for the record.

    `trace_seconds` went into the traces, `choice_seconds` into all else: errors, costs, the selection.
    """

    settings: HawqSettings
    bits: LayerBits
    facts: Mapping[str, str | int | float]
    trace_seconds: float = field(default=0.0, compare=False)
    choice_seconds: float = field(default=0.0, compare=False)


def choose(found: Sensitivities) -> tuple[LayerBits, Setting, int]:
    """Bits of all layers by the settings of `found`, the setting of the free weights, and what all else costs."""
    settings = found.settings
    ordered = settings.selection != "integer"
    if found.activations:
        free = found.activation_candidates(settings.metric)
        budget = int(settings.activation_bits * sum(found.inputs[name] for name in free.names))
        activations = {**free.front(ordered).at(budget).bits, **found.fixed_activations}
    else:
        activations = {**dict.fromkeys(found.names, settings.least_activations), **found.fixed_activations}
    candidates, rest = found.weight_candidates(activations, settings.budget, settings.metric)
    most = weight_budget(settings, candidates, rest)
    chosen = candidates.front(ordered).at(most)
    if settings.selection == "highest":
        chosen = candidates.highest(most, chosen.cost)
    return LayerBits({**found.fixed_weights, **chosen.bits}, activations), chosen, rest


def weight_budget(settings: HawqSettings, candidates: Candidates, rest: int) -> int:
    """What the layers whose width is free may cost, where all else costs `rest`."""
    if settings.limit:
        return settings.limit - rest
    if settings.budget == "cycles":
        return int(candidates.cost[:, candidates.bits.index(int(settings.weight_bits))].sum())
    # Sizes and BOPs are proportional to the width.
    return int(candidates.cost[:, 0].sum() * settings.weight_bits / candidates.bits[0])


def search(
    graph: Graph,
    spec: InputSpec,
    statistics: Statistics,
    settings: HawqSettings,
    labelled: ImageSet,
    *,
    device: str | None = None,
    resume: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> HawqChoice:
    """Choose each layer's bits by the Hessian on labelled training images.

    `resume` is a folder where the traces' samples are kept after every sweep, `progress` is called with what is being
    measured, the sweeps done, and the most that there can be.
    """
    if labelled.labels is None or labelled.coded:
        raise FormatError("hawq must have images for its Hessian that are uint8 pixels with labels")
    images, labels = labelled.images[: settings.hessian_images], labelled.labels[: settings.hessian_images]
    x = torch.from_numpy(spec.normalise(images))
    begun = time.perf_counter()

    def traces(tensors: Tensors) -> dict[str, TraceEstimate]:
        done = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(f"Hessian of {tensors}", done, max(done, settings.sweeps))

        return Curvature(graph, x, labels, tensors, device=device).traces(
            tolerance=settings.tolerance,
            least=min(settings.least_sweeps, settings.sweeps),
            most=settings.sweeps,
            extra=settings.sweeps,
            seed=settings.seed,
            progress=step,
            resume=None if resume is None else Path(resume) / f"hessian-{tensors}.json",
        )

    inputs = traces("activations") if settings.mixes_activations else {}
    measured = Sensitivities(graph, spec, statistics, settings, x, traces("weights"), inputs)
    middle = time.perf_counter()
    bits, chosen, rest = choose(measured)
    cycles = sum(measured.costs(measured.lowered(bits), "cycles").values())
    if settings.budget == "cycles" and cycles != chosen.cost + rest:
        raise MismatchError(f"cycles must be the sum of the layers', {chosen.cost + rest}, not {cycles}")
    facts = {"omega": chosen.omega, "fusion_cycles": cycles, **measured.facts(bits)}
    return HawqChoice(settings, bits, facts, middle - begun, time.perf_counter() - middle)


def hawq(graph: Graph, spec: InputSpec, statistics: Statistics, choice: HawqChoice) -> QuantizedGraph:
    """Quantise `graph` with the widths that `search` has chosen.

    >>> choice = search(graph, spec, statistics, HawqSettings(weight_bits=3.5), training_images)
    >>> quantized = hawq(graph, spec, statistics, choice)
    """
    record = {**asdict(choice.settings), **choice.facts}
    return _lowered(graph, spec, statistics, choice.bits, choice.settings, record)
