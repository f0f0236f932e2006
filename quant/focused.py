"""Focused Quantisation: powers of two about the two modes of a pruned layer's weights.

Source: Zhao, Gao, Bates, Mullins, Xu, "Focused Quantization for Sparse CNNs" (NeurIPS 2019). A network is pruned; each
layer's weights that remain are taken for a mixture of two normal distributions, and each weight is a power of two about
the mean of one of them (eq. 2), which was drawn from the posterior; a layer without two modes has plain powers of two
(eq. 4); what is left of the training quantises ever more weights, the greatest first, as Zhou et al., "Incremental
Network Quantization" (ICLR 2017), do, and leaves the codes to Huffman.

As in the paper's experiments, both components have one deviation sigma, and it, the layer's learnt factor alpha and the
batch norm behind are one scale for each output channel. What then stands before the input sums is ``mu / sigma``, which
must be a power of two for an array without multipliers. The paper rounds mu alone and is silent on sigma; `means`
names the three ways to have the quotient, all of them exactly what the hardware holds.

The first and the last layer are 8-bit integers, activations uniform of `activation_bits`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.errors import FormatError
from ..kernels.shift import MAX_EXPONENT, Midpoint, fit_bias, power_of_two
from ..sim.manifest import Coding
from .affine import live_scales
from .graph import Graph, Layer
from .lowering import edge_layers
from .minmax import MinMaxSettings, minmax
from .mixture import Mixture, fit_mixture
from .preprocess import InputSpec
from .pruning import Allocation, Pruning, PruningKind, gradual_sparsity
from .quantized import EncodedWeights, QuantizedGraph, QuantizedLayer
from .settings import check_ranges
from .statistics import Statistics, collect
from .trainable import ByName, TrainableGraph, per_output, straight_through
from .training import TrainingSettings
from .training_data import epoch_generator
from .uniform import UniformTraining

__all__ = ["PORTIONS", "FocusedSettings", "FocusedTraining", "Phase", "focused_training"]

PORTIONS = (0.25, 0.5, 0.75, 0.875, 1.0)
"""Of each layer's weights that are quantised, one after another."""
SCHEDULED = 0.7
"""The share of the pruning epochs after which the whole sparsity is reached."""


@dataclass(frozen=True)
class FocusedSettings:
    """How a network is pruned, focused and coded.

    Parameters
    ----------
    weight_bits : n of the inner layers, 3..7: two components of n - 1 bits, or plain powers of two of n bits. Of the
        32 exponents of plain layers of 7 bits the hardware has the greatest 16
    activation_bits : of the tensors that inner layers read, 1..8
    sparsity : share of the inner layers' weights that is pruned
    pruning : "surgery" (dynamic network surgery) or "magnitude"
    allocation : magnitudes are compared within each "layer", among all ("global"), or among all over their layer's root
        mean square ("scaled")
    separation : a layer is recentralised where its components are at least so far apart
    means : how ``mu / sigma`` becomes a power of two. "kept" keeps the mean magnitude and takes the sigma that fits;
        "rounded" keeps sigma and rounds the means over it; "absolute" rounds both themselves
    components : "sampled" from the posterior, as published, or the "likeliest"
    midpoint : where a magnitude goes over to the next power of two, in "arithmetic" or "log" terms
    coding : of the codes in the file, "huffman" or "raw"
    pruning_share, ramp_share : of the epochs, that prune, and that quantise a part of the weights; the rest, at
        least one epoch, quantises all. The authors give the last two 12 and 10 epochs
    refit : whether mixtures are fitted anew while weights move, at intervals that double, or once
    seed : of the components
    """

    weight_bits: int = 5
    activation_bits: int = 8
    sparsity: float = 0.6
    pruning: PruningKind = "surgery"
    allocation: Allocation = "global"
    separation: float = 2.0
    means: Literal["kept", "rounded", "absolute"] = "kept"
    components: Literal["sampled", "likeliest"] = "sampled"
    midpoint: Midpoint = "arithmetic"
    coding: Coding = "huffman"
    pruning_share: float = 0.4
    ramp_share: float = 0.3
    refit: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, weight_bits=(3, 7), activation_bits=(1, 8))
        for name in ("sparsity", "pruning_share", "ramp_share"):
            if not 0 <= getattr(self, name) < 1:
                raise FormatError(f"{name.replace('_', ' ')} must be from 0 to less than 1, not {getattr(self, name)}")
        if self.pruning_share + self.ramp_share >= 1:
            raise FormatError(
                f"pruning share and ramp share must leave some of 1, not {self.pruning_share} + {self.ramp_share}"
            )
        if not self.separation >= 0:
            raise FormatError(f"separation must be 0 or more, not {self.separation}")


@dataclass(frozen=True)
class Phase:
    """An epoch's share of zeros, share of quantised weights, and whether it begins with fitting."""

    sparsity: float
    portion: float
    fits: bool

    @classmethod
    def of(cls, settings: FocusedSettings, epoch: int, epochs: int) -> "Phase":
        """What epoch 0, 1, .. of so many does."""
        pruning = min(round(settings.pruning_share * epochs), epochs - 1)
        ramp = min(round(settings.ramp_share * epochs), epochs - 1 - pruning)
        if epoch < pruning:
            scheduled = max(math.ceil(SCHEDULED * pruning), 1)
            return cls(gradual_sparsity((epoch + 1) / scheduled, settings.sparsity), 0.0, False)
        after = epoch - pruning
        portion = PORTIONS[after * (len(PORTIONS) - 1) // ramp] if after < ramp else PORTIONS[-1]
        # Epochs 0, 1, 3, 7, .. of the quantisation: intervals of 1, 2, 4, ..
        return cls(settings.sparsity, portion, after == 0 or (settings.refit and (after + 1).bit_count() == 1))


class _FocusedLayer(nn.Module):
    """A layer's quantiser: ``alpha * (sigma * s * 2**e + mu)``, in plain layers with sigma 1 and both mu 0."""

    log_alpha: nn.Parameter
    means: Tensor
    sigma: Tensor
    exponents: Tensor
    recentralised: Tensor
    plus: Tensor
    quantised: Tensor

    def __init__(self, weight: Tensor, midpoint: Midpoint) -> None:
        super().__init__()
        self.midpoint = midpoint
        zero = weight.new_zeros(())
        self.log_alpha = nn.Parameter(zero.clone())
        self.register_buffer("means", weight.new_zeros(2))
        self.register_buffer("sigma", zero + 1)
        self.register_buffer("exponents", torch.zeros(2, dtype=torch.int32, device=weight.device))
        self.register_buffer("recentralised", torch.zeros((), dtype=torch.bool, device=weight.device))
        self.register_buffer("plus", torch.zeros_like(weight, dtype=torch.bool))
        self.register_buffer("quantised", torch.zeros_like(weight, dtype=torch.bool))

    def fit(self, weight: np.ndarray, kept: np.ndarray, settings: FocusedSettings, draw: np.ndarray) -> None:
        """Choose everything from the weights that are kept (bool, their shape); `draw` is uniform in [0, 1)."""
        found, values = _Fit.of(weight[kept], settings), np.zeros(weight.shape, dtype=bool)
        if found.mixture is not None:
            posterior = found.mixture.posterior(weight)
            values = posterior > (draw if settings.components == "sampled" else 0.5)
        exponents = found.exponents(weight[kept], values[kept], settings)
        for buffer, value in (
            (self.means, found.sigma * found.quotients),
            (self.sigma, np.array(found.sigma)),
            (self.exponents, np.array(exponents)),
            (self.recentralised, np.array(found.mixture is not None)),
            (self.plus, values),
        ):
            buffer.copy_(torch.from_numpy(np.asarray(value)))

    def hold(self, weight: Tensor, kept: Tensor, portion: float) -> None:
        """Quantise so much of the weights that are kept: those that are already, then the greatest."""
        order = torch.where(self.quantised, torch.inf, weight.detach().abs())
        order = torch.where(kept, order, -1.0).reshape(-1)
        chosen = torch.zeros_like(order, dtype=torch.bool)
        chosen[order.argsort(descending=True, stable=True)[: math.ceil(portion * int(kept.sum()))]] = True
        self.quantised.copy_(chosen.reshape(weight.shape) & kept)

    @property
    def alpha(self) -> Tensor:
        """The layer's learnt factor; 1 at first, and always positive."""
        return self.log_alpha.exp()

    def parts(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Signs -1, 0, 1 of the power of two in each weight, and its exponents (int32), 0 where there is none."""
        return nearest_shift((weight - self._mean()) / self.sigma, self.exponents, self.midpoint)

    def _mean(self) -> Tensor:
        return torch.where(self.plus, self.means[1], self.means[0])

    def forward(self, weight: Tensor) -> Tensor:
        """Pruned weights with those of the portion quantised; none of them is pruned."""
        with torch.no_grad():
            sign, exponent = self.parts(weight)
            rounded = torch.ldexp(sign.to(weight.dtype), exponent) * self.sigma + self._mean()
        quantised = self.alpha * straight_through(weight, rounded)
        return torch.where(self.quantised, quantised, weight)


def nearest_shift(values: Tensor, exponents: Tensor, midpoint: Midpoint) -> tuple[Tensor, Tensor]:
    """The shift quantiser (eq. 1) on a device: `kernels.shift.nearest_codes` as tensors.

    Signs (in the values' dtype) and exponents (int32) of the nearest ``s * 2**e`` with e from ``exponents[0]`` to
    ``exponents[1]``; zero up to half of the least power of two.
    """
    mantissas, powers = torch.frexp(values.abs())
    up = 2 * mantissas >= (1.5 if midpoint == "arithmetic" else math.sqrt(2))
    exponent = torch.clamp(powers - 1 + up, exponents[0], exponents[1])
    zero = values.abs() <= torch.ldexp(torch.full((), 0.5, dtype=values.dtype, device=values.device), exponents[0])
    return torch.where(zero, 0.0, values.sign()), torch.where(zero, 0, exponent).to(torch.int32)


@dataclass(frozen=True, eq=False)
class _Fit:
    """What a layer's weights are rounded about: `quotients` are both ``mu / sigma``, 0 in plain layers."""

    mixture: Mixture | None
    sigma: float
    quotients: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, settings: FocusedSettings) -> "_Fit":
        """Of the weights (n,) that are not pruned."""
        plain = cls(None, 1.0, np.zeros(2))
        if not ((weights < 0).any() and (weights > 0).any()):
            return plain
        mixture = fit_mixture(weights)
        if mixture.separation(float(weights.std())) < settings.separation:
            return plain
        means, sigma = mixture.means, float(mixture.deviations[0])
        if settings.means == "absolute":
            sigma = math.ldexp(*power_of_two(sigma, settings.midpoint))
            rounded = np.array([math.ldexp(*power_of_two(float(mean), settings.midpoint)) for mean in means])
            return cls(mixture, sigma, rounded / sigma)
        powers = [power_of_two(float(mean) / sigma, settings.midpoint) for mean in means]
        quotients = np.array([math.ldexp(*power) for power in powers])
        if settings.means == "kept":
            # The least squares of both means, each as often as it is used.
            weighed = mixture.shares * quotients
            sigma = float((weighed * means).sum() / (weighed * quotients).sum())
        return cls(mixture, sigma, quotients)

    def exponents(self, weights: np.ndarray, plus: np.ndarray, settings: FocusedSettings) -> tuple[int, int]:
        """Least and greatest exponent: the greatest by the paper's rate of overflows, and as many as there are bits."""
        bits = settings.weight_bits
        rest = weights / self.sigma - np.where(plus, self.quotients[1], self.quotients[0])
        count = 1 << (bits - 2 if self.mixture is None else bits - 3)
        greatest = count - 1 - fit_bias(rest, count.bit_length() - 1, bits, settings.midpoint)
        least = greatest - min(count, MAX_EXPONENT + 1) + 1
        if self.mixture is not None:
            # Means are shifted as far as digits at most. With more room above nothing is lost but the least powers.
            most = round(math.log2(np.abs(self.quotients).max()))
            least = max(least, most - MAX_EXPONENT)
            greatest = least + count - 1
        return least, greatest


class FocusedTraining(UniformTraining):
    """A network under pruning and focused quantisation.

    Parameters
    ----------
    spec : of the network's input
    settings : the method's
    training : the training's, for its epochs and whether activations are calibrated anew
    """

    def __init__(self, spec: InputSpec, settings: FocusedSettings, training: TrainingSettings) -> None:
        integers = MinMaxSettings(8, settings.activation_bits, 8, per_channel_weights=True)

        def before(graph: Graph, given: InputSpec, statistics: Statistics) -> QuantizedGraph:
            """The network with integers everywhere: the grids of activations and the layers at the edges stay."""
            return replace(minmax(graph, given, statistics, integers), method="focused", settings=asdict(settings))

        super().__init__(before, spec, training.refresh)
        self.settings = settings
        self.phase: Phase | None = None
        self.pruned: Graph | None = None
        """The pruned float network, unfolded, before anything was quantised; none where a checkpoint came later."""

    def begin(self, network: TrainableGraph, calibration: Tensor) -> None:
        """Take note of the inner layers, and calibrate."""
        edges = edge_layers(network.structure)
        self.inner = [layer for layer in network.structure.layers if layer.name not in edges]
        if not self.inner:
            raise FormatError("a network to be focused must have layers between its first and its last one")
        weights = self._weights(network)
        self.pruning = Pruning(weights, self.settings.pruning, self.settings.allocation)
        self.focused = ByName({name: _FocusedLayer(weight, self.settings.midpoint) for name, weight in weights.items()})
        super().begin(network, calibration)

    def _weights(self, network: TrainableGraph) -> dict[str, Tensor]:
        """The inner layers' weights as they are quantised: batch norms behind them multiply by positive numbers."""
        return {layer.name: _positive(network.weight(layer), network.gain(layer)) for layer in self.inner}

    def multiplied(self, network: TrainableGraph) -> Graph:
        """The float network, unfolded, with the inner layers' weights as they are multiplied at the moment."""
        graph = network.graph()
        parameters = dict(graph.parameters)
        with torch.no_grad():
            for layer in self.inner:
                weight = self.weight(layer, network.weight(layer), network.gain(layer))
                parameters[layer.name] = parameters[layer.name]._replace(weight=weight.to("cpu", torch.float64).numpy())
        return Graph(graph.nodes, parameters, graph.output, graph.norms)

    def _lowered(self, network: TrainableGraph) -> QuantizedGraph:
        graph = self.multiplied(network).folded()
        return self.method(graph, self.spec, collect(graph, self.calibration))

    def begin_epoch(self, network: TrainableGraph, epoch: int, epochs: int) -> None:
        """Prune, fit or quantise more, as the epoch's phase has it."""
        super().begin_epoch(network, epoch, epochs)
        self.phase = phase = Phase.of(self.settings, epoch, epochs)
        weights = self._weights(network)
        if not phase.portion:
            self.pruning.begin_epoch(weights, phase.sparsity)
            return
        if phase.fits and not self.quantising:
            self.pruning.prune(weights, self.settings.sparsity)
            self.pruned = self.multiplied(network)
        self._quantise(weights, phase.portion, epoch if phase.fits else None)

    @property
    def quantising(self) -> bool:
        """Whether any weight is quantised yet."""
        return any(bool(self.focused[layer.name].quantised.any()) for layer in self.inner)

    def _quantise(self, weights: Mapping[str, Tensor], portion: float, epoch: int | None) -> None:
        """Quantise a part of the weights; fit before, with the randomness of an epoch, where one is given."""
        generator = None if epoch is None else epoch_generator(self.settings.seed, epoch)
        for name, weight in weights.items():
            layer: _FocusedLayer = self.focused[name]
            kept = self.pruning.kept(name)
            if generator is not None:
                draw = torch.rand(weight.shape, generator=generator, dtype=torch.float64).numpy()
                layer.fit(weight.to("cpu", torch.float64).numpy(), kept.cpu().numpy(), self.settings, draw)
            layer.hold(weight, kept, portion)

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        """Of an inner layer with zeros and, of the portion that is, quantised; else on the integers' grid."""
        if layer.name not in self.focused:
            return super().weight(layer, weight, gain)
        pruned = self.pruning.apply_to(layer.name, _positive(weight, gain))
        if self.phase is None or self.phase.portion:  # before the first portion that would change nothing
            pruned = self.focused[layer.name](pruned)
        return _positive(pruned, gain)

    def end_step(self, network: TrainableGraph) -> None:
        """Operate on the masks while nothing is quantised."""
        if self.phase is not None and not self.phase.portion and self.pruning.operates():
            self.pruning.operate(self._weights(network))

    def end(self, network: TrainableGraph) -> None:
        """Without epochs: prune and quantise all at once."""
        if not self.quantising:
            weights = self._weights(network)
            self.pruning.prune(weights, self.settings.sparsity)
            self.pruned = self.multiplied(network)
            self._quantise(weights, PORTIONS[-1], 0)

    def quantized(self, network: TrainableGraph, spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        """The codes of the end on the grids of the start, or on those of the end where they are refreshed."""
        if self.refresh:
            self.first = self._lowered(network)
        nodes = tuple(
            self.with_weights(node, network, network.graph().folded()) if isinstance(node, QuantizedLayer) else node
            for node in self.first.nodes
        )
        return replace(self.first, nodes=nodes)

    def with_weights(self, layer: QuantizedLayer, network: TrainableGraph, graph: Graph) -> QuantizedLayer:
        """The layer with its codes."""
        if layer.name not in self.focused:
            return super().with_weights(layer, network, graph)
        op = next(op for op in self.inner if op.name == layer.name)
        own: _FocusedLayer = self.focused[layer.name]
        gain, bias = network.gain(op), graph.parameters[layer.name].bias
        kept = self.pruning.kept(layer.name).cpu().numpy()
        sign, exponent = (part.cpu().numpy() for part in own.parts(_positive(network.weight(op), gain)))
        scales = gain.abs().to("cpu", torch.float64).numpy() * float(own.alpha) * float(own.sigma)
        scales, live = live_scales(scales, bias, self.first.tensors[layer.inputs[0]])
        kept = kept & live.reshape(-1, *(1,) * (kept.ndim - 1))
        sign = np.where(kept, sign, 0).astype(np.int8)
        bits, coding = self.settings.weight_bits, self.settings.coding
        if not own.recentralised:
            weights = EncodedWeights.shift(sign, exponent, scales, min(bits - 2, 4), coding)
        else:
            minus, plus = (power_of_two(float(mean) / float(own.sigma)) for mean in own.means)
            weights = EncodedWeights.focused(
                sign, exponent, own.plus.cpu().numpy().astype(np.int64), ~kept, scales,
                minus=minus, plus=plus, exponent_bits=bits - 3, coding=coding,
            )  # fmt: skip
        return replace(layer, weights=weights, bias=bias)


def _positive(weight: Tensor, gain: Tensor) -> Tensor:
    """Weights (out, ...) before gains (out,) that are not negative; and, given such ones, the weights again."""
    return weight * per_output(torch.where(gain < 0, -1.0, 1.0), weight)


def focused_training(
    graph: Graph, spec: InputSpec, settings: FocusedSettings, training: TrainingSettings
) -> FocusedTraining:
    """The method's quantiser, for the registry."""
    return FocusedTraining(spec, settings, training)
