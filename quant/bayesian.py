"""Bayesian Bits: gates that learn how many bits each tensor has, and which output channels have any.

Source: van Baalen et al., "Bayesian Bits: Unifying Quantization and Pruning" (NeurIPS 2020). A tensor is decomposed
into roundings of 2, 4, 8, 16 and 32 bits, each of what the coarser ones left (`gatewise.kernels.nested`); a gate stands
before each step,

    x = z2 (x2 + z4 (e4 + z8 (e8 + z16 (e16 + z32 e32)))),

and z2, one for each output channel of weights, prunes. Gates are hard concrete (equation 22) and pay for being open by
the bit operations behind them (equation 16 with the BOPs of section 4): the loss has

    strength * sum of (1 / C) sum_c q2c (l2 + l4 q4 + l8 q4 q8 + ...),   l_b = b * MACs / greatest MACs of a layer

over all quantisers, where q is the probability that a gate is open and the MACs of an activation are those of all
layers that read it. A gate is open in the end where ``P(z = 0) < 0.34``. The last epochs train with fixed gates.

The network's input has 8 bits, and what joins in residual additions the 16 bits of the hardware's streams: neither has
gates. The layer that makes the logits is not pruned.

Where the paper is silent: Gumbel-softmax gates are binary forward (1 where the sampled logit is positive), with the
gradient of the relaxation, and end by the same rule. Ranges and gates train with learning rates of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.nested import CLIP, FULL_BITS, LayerBops, NestedGrid, relative_bops
from ..sim.manifest import Coding
from .affine import BIAS_BITS, SCALE_FLOOR
from .graph import Clamping, Graph, Input, Layer, Node, Parameters
from .lowering import INPUT_BITS, Grid, Quantizer, last_layers, lower, reads
from .minmax import minmax_grid
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedTensor, QuantizedWeights
from .settings import check_positive
from .statistics import Statistics
from .trainable import ByName, FakeQuantizer, TrainableGraph, per_output, straight_through
from .training import Trained, TrainingSettings

__all__ = ["BayesianBits", "BayesianSettings", "Decomposed", "searched", "strength_for"]

Mode = Literal["full", "quantise", "prune"]
Gates = Literal["hard_concrete", "gumbel"]

WIDTHS = (4, 8, 16, FULL_BITS)
"""Bits that the four gates of a tensor's width lead to; without any it has 2."""
HELD_BITS = 8
"""Of weights and activations in hardware."""
TEMPERATURE = 2 / 3
STRETCH = (-0.1, 1.1)
"""Ends of the hard concrete distribution before it is clipped to [0, 1]."""
CLOSED = 0.34
"""A gate is closed in the end where the probability of 0 is not below this."""
DEAD = -2.0
"""A gate whose parameter is no greater is 0 in training too, and all finer ones with it (the authors' code)."""
INSIDE = 1 - CLIP
RADICES = (*NestedGrid(16, signed=True).radices, (1 << 16) + 1)
"""By what the steps of the four gates' roundings divide those before them."""
LEAST_LIMIT = 1e-6
WIDEN = 4.0
"""By what the strength changes until the target of a search is between two."""
PROBE_BITS = 4
"""Any width that is none of an input or a stream: what reads what does not depend on it."""


@dataclass(frozen=True)
class BayesianSettings:
    """The method's settings.

    Parameters
    ----------
    strength : of the regulariser, the paper's mu
    mode : "full", "quantise" (no channels are pruned) or "prune" (all tensors keep `prune_bits`)
    prune_bits : 2, 4 or 8
    open_bits : width at whose gates training begins open: 2, 4, 8, 16 or 32; gates of more begin closed
    initial_gate : the gates' parameters at the beginning, negative where closed
    gates : "hard_concrete" or "gumbel"
    cost : what an open gate pays: "bops", or "equal", one for each
    gate_rate, range_rate : learning rates of gates and of ranges
    fixed_share : of the epochs, the last: their gates are fixed
    target_bops : share of the BOPs in 32 x 32 bits that the `strength` is searched for, by bisection, on training
        images; 0 takes the strength as it is
    search_runs, search_epochs : of the search; 0 epochs are as many as the training's
    coding : of the weights in the file, "raw" or "huffman"
    """

    strength: float = 0.05
    mode: Mode = "full"
    prune_bits: int = 8
    open_bits: int = 8
    initial_gate: float = 6.0
    gates: Gates = "hard_concrete"
    cost: Literal["bops", "equal"] = "bops"
    gate_rate: float = 0.01
    range_rate: float = 0.001
    fixed_share: float = 0.25
    target_bops: float = 0.0
    search_runs: int = 6
    search_epochs: int = 0
    coding: Coding = "raw"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise FormatError(f"strength must not be negative, not {self.strength}")
        for name, allowed in (("prune_bits", (2, 4, 8)), ("open_bits", (2, *WIDTHS))):
            if getattr(self, name) not in allowed:
                raise FormatError(
                    f"{name.replace('_', ' ')} must be {', '.join(map(str, allowed[:-1]))} or {allowed[-1]}, "
                    f"not {getattr(self, name)}"
                )
        check_positive(self, "initial_gate", "gate_rate", "range_rate")
        if not 0 <= self.fixed_share < 1:
            raise FormatError(f"fixed share must be from 0 to less than 1, not {self.fixed_share}")
        if not 0 <= self.target_bops < 1:
            raise FormatError(f"target bops must be a share from 0 to less than 1, not {self.target_bops}")
        if self.target_bops and not self.strength:
            raise FormatError("strength must be positive where it is searched from")
        if self.search_runs < 1 or self.search_epochs < 0:
            raise FormatError(f"search must have a run and epochs, not {self.search_runs} and {self.search_epochs}")

    @property
    def prunes(self) -> bool:
        """Whether channels have gates."""
        return self.mode != "quantise"

    @property
    def offset(self) -> float:
        """What is added to a gate's parameter for the logit of being open."""
        return -TEMPERATURE * math.log(-STRETCH[0] / STRETCH[1]) if self.gates == "hard_concrete" else 0.0

    @property
    def threshold(self) -> float:
        """A gate whose parameter is greater is open in the end."""
        return math.log((1 - CLOSED) / CLOSED) - self.offset

    def sample(self, parameter: Tensor) -> Tensor:
        """Gates from 0 to 1, drawn, in the shape of their parameters."""
        uniform = torch.rand_like(parameter)
        logits = (torch.log(uniform) - torch.log1p(-uniform) + parameter) / TEMPERATURE
        soft = torch.sigmoid(logits)
        if self.gates == "gumbel":
            drawn = straight_through(soft, (logits > 0).to(soft.dtype))
        else:
            drawn = (soft * (STRETCH[1] - STRETCH[0]) + STRETCH[0]).clamp(0, 1)
        return drawn * (parameter > DEAD)


class Decomposed(torch.autograd.Function):
    """``x2 + z4 (e4 + z8 (e8 + ...))`` on the grid of `limit`, whose roundings pass gradients on.

    What is clipped passes none to the value, but to the limit; the limit scales the whole grid. With all roundings
    straight through, ``x2 + e4 + ...`` has the gradient of x in x, and ``(result - x) / limit`` in the limit.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: Tensor, gates: Tensor, signed: bool) -> Tensor:
        """`x` of any shape; `limit` (), positive; `gates` (levels,) from 0 to 1, up to four."""
        parts, units = [], [1.0]
        rest = (x / limit).clamp(-INSIDE if signed else 0.0, INSIDE) * (3 / 2 if signed else 3.0)
        for radix in RADICES[: len(gates)]:
            parts.append(rest.round())
            rest = (rest - parts[-1]) * radix
            units.append(units[-1] / radix)
        value, finer = rest.round() * units.pop(), []
        for gate, part, unit in zip(reversed(gates.unbind()), reversed(parts), reversed(units), strict=True):
            finer.append(value)
            value = torch.add(gate * value, part, alpha=unit)
        ctx.signed, scale = signed, limit / (3 / 2 if signed else 3.0)
        value = value * scale
        ctx.save_for_backward(x, limit, gates, scale, value, *finer[::-1])
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:  # type: ignore[override]
        """Gradients of `x`, `limit` and `gates`."""
        x, limit, gates, scale, value, *finer = ctx.saved_tensors
        inside = (x.abs() <= limit) if ctx.signed else (x >= 0) & (x <= limit)
        passed = torch.where(inside, gradient, torch.zeros_like(limit))
        of_limit = (torch.dot(gradient.flatten(), value.flatten()) - torch.dot(passed.flatten(), x.flatten())) / limit
        of_gates = None
        if ctx.needs_input_grad[2] and finer:
            before = torch.cat([scale.reshape(1), gates[:-1]]).cumprod(0)
            flat = gradient.flatten()
            of_gates = before * torch.stack([torch.dot(flat, part.flatten()) for part in finer])
        return passed, of_limit, of_gates, None


class _Gated(nn.Module):
    """A tensor's quantiser: its range, the gates of its width and those of its channels.

    Parameters
    ----------
    limit : greatest value in magnitude at the beginning
    signed : whether the grid is symmetric, or begins at 0
    share : of the MACs of the layers that multiply the tensor in the greatest MACs of a layer
    channels : how many have gates; 0 prunes none
    ceiling : what the limit never exceeds
    """

    costs: Tensor

    def __init__(
        self, settings: BayesianSettings, limit: float, signed: bool, share: float, channels: int, ceiling: float
    ) -> None:
        super().__init__()
        self.settings, self.signed, self.ceiling = settings, signed, ceiling
        self.limit = nn.Parameter(torch.tensor(max(limit, LEAST_LIMIT)))
        begin = [settings.initial_gate * (1 if bits <= settings.open_bits else -1) for bits in WIDTHS]
        self.width = nn.Parameter(torch.tensor(begin)) if settings.mode != "prune" else None
        self.channel = nn.Parameter(torch.full((channels,), settings.initial_gate)) if channels else None
        costs = [share * bits if settings.cost == "bops" else 1.0 for bits in (2, *WIDTHS)]
        self.register_buffer("costs", torch.tensor(costs), persistent=False)
        self.fixed = False
        self.levels = len(WIDTHS)

    @property
    def span(self) -> Tensor:
        """The range's end, positive."""
        return self.limit.abs().clamp(LEAST_LIMIT, self.ceiling)

    @property
    def bits(self) -> int:
        """Width in the end."""
        if self.width is None:
            return self.settings.prune_bits
        return 2 << self._leading(self.settings.threshold)

    def _leading(self, threshold: float) -> int:
        """Gates up to the first that is not above."""
        assert self.width is not None
        return int((self.width.detach() > threshold).to(torch.int64).cumprod(0).sum())

    @property
    def kept(self) -> Tensor | None:
        """Which channels have weights in the end, bool (C,); None where all have."""
        return None if self.channel is None else self.channel.detach() > self.settings.threshold

    @property
    def gate_parameters(self) -> list[nn.Parameter]:
        """Of the width and of the channels."""
        return [parameter for parameter in (self.width, self.channel) if parameter is not None]

    def begin_epoch(self, fixed: bool) -> None:
        """Gates that are fixed from now on, or those that can still open."""
        self.fixed = fixed
        if self.width is None or fixed:
            self.levels = self.bits.bit_length() - 2
        else:
            self.levels = self._leading(DEAD)

    def forward(self, x: Tensor) -> Tensor:
        """The tensor on its grid: as its gates are drawn in training, as they are in the end otherwise."""
        certain = self.fixed or not self.training
        if certain or self.width is None:
            levels = self.levels if self.training else self.bits.bit_length() - 2
            gates = torch.ones(levels, device=x.device, dtype=x.dtype)
        else:
            gates = self.settings.sample(self.width[: self.levels])
        value: Tensor = Decomposed.apply(x, self.span, gates, self.signed)  # type: ignore[no-untyped-call]
        if self.channel is None:
            return value
        kept = self.kept if certain else self.settings.sample(self.channel)
        assert kept is not None
        return value * per_output(kept.to(value.dtype), value)

    def penalty(self) -> Tensor | None:
        """What the gates pay, before the strength."""
        if self.fixed or not self.gate_parameters:
            return None
        offset, costs = self.settings.offset, self.costs
        if self.width is None:
            paid = costs[: self.bits.bit_length() - 1].sum()
        else:
            paid = costs[0] + (costs[1:] * torch.sigmoid(self.width + offset).cumprod(0)).sum()
        return paid if self.channel is None else paid * torch.sigmoid(self.channel + offset).mean()


class BayesianBits(FakeQuantizer):
    """The method in training.

    Parameters
    ----------
    graph, spec : unfolded, and its input's
    settings, training : the method's and the training's
    """

    def __init__(
        self, graph: Graph, spec: InputSpec, settings: BayesianSettings, training: TrainingSettings | None = None
    ) -> None:
        super().__init__()
        if training is not None and training.epochs and training.optimizer != "adam":
            raise FormatError(
                f"optimizer must be adam, not {training.optimizer}: the gradients of open gates are too small for "
                "steps in proportion to them"
            )
        self.chosen = settings
        self.seen: dict[str, Tensor] | None = None
        self.macs = {layer.name: _macs(graph, layer) for layer in graph.layers}
        self.reads = reads(graph, spec, lambda layer: PROBE_BITS)
        self.readers: dict[str, list[str]] = {}
        self.keys: dict[str, str | None] = {}
        for layer in graph.layers:
            producers = self.reads[layer.name].producers
            if len(producers) > 1 and graph.input.name in producers:
                raise UnsupportedError(f"{layer.name} must read the network's input alone, or not at all")
            key = None if producers == (graph.input.name,) else "+".join(producers)
            self.keys[layer.name] = key
            if key is not None:
                self.readers.setdefault(key, []).append(layer.name)

    def begin(self, network: TrainableGraph, calibration: Tensor) -> None:
        """Take ranges from the float network: the greatest values of weights, and of what layers read."""
        graph = network.structure
        self.seen = {}
        network(calibration)
        ends, self.seen = {key: values.tolist() for key, values in self.seen.items()}, None
        most, last = max(self.macs.values()), last_layers(graph)
        weights, activations = {}, {}
        for layer in graph.layers:
            limit = float(network.weight(layer).abs().max())
            pruned = layer.channels if self.chosen.prunes and layer.name not in last else 0
            share = self.macs[layer.name] / most
            weights[layer.name] = _Gated(self.chosen, limit, True, share, pruned, math.inf)
        for key, readers in self.readers.items():
            low, high = ends[key]
            share = sum(self.macs[name] for name in readers) / most
            ceiling = min(_high(graph.by_name[name]) for name in key.split("+"))
            activations[key] = _Gated(self.chosen, max(-low, high), low < 0, share, 0, ceiling)
        self.weights, self.activations = ByName(weights), ByName(activations)

    @property
    def tensors(self) -> list[_Gated]:
        """All quantisers: of weights, then of activations."""
        return [*self.weights.values(), *self.activations.values()]  # type: ignore[list-item]

    @property
    def gate_count(self) -> int:
        """Gates of the network: all that the method adds to its parameters, but for a range for each tensor."""
        return sum(parameter.numel() for tensor in self.tensors for parameter in tensor.gate_parameters)

    def parameter_groups(self) -> Sequence[dict[str, Any]]:
        """Gates and ranges, at their own learning rates."""
        gates = [parameter for tensor in self.tensors for parameter in tensor.gate_parameters]
        ranges = [tensor.limit for tensor in self.tensors]
        rates = ((gates, self.chosen.gate_rate), (ranges, self.chosen.range_rate))
        return [{"params": params, "lr": rate, "weight_decay": 0.0} for params, rate in rates]

    def begin_epoch(self, network: TrainableGraph, epoch: int, epochs: int) -> None:
        """Fix the gates when their time is over."""
        self._begin(epoch >= epochs - round(self.chosen.fixed_share * epochs))

    def end(self, network: TrainableGraph) -> None:
        """Fix the gates."""
        self._begin(True)

    def _begin(self, fixed: bool) -> None:
        for tensor in self.tensors:
            tensor.begin_epoch(fixed)

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        """A layer's own weights, decomposed: the grid is symmetric, so that the sign of the gain changes nothing."""
        return weight if self.seen is not None else self.weights[layer.name](weight)

    def activation(self, layer: Layer, value: Tensor) -> Tensor:
        """What a layer reads, decomposed; the network's input as it is."""
        key = self.keys[layer.name]
        if key is None:
            return value
        if self.seen is None:
            quantised: Tensor = self.activations[key](value)
            return quantised
        ends = torch.stack([value.min(), value.max()])
        former = self.seen.get(key, ends)
        self.seen[key] = torch.stack([torch.minimum(ends[0], former[0]), torch.maximum(ends[1], former[1])])
        return value

    def penalty(self) -> Tensor | None:
        """What all gates pay."""
        paid = [part for part in (tensor.penalty() for tensor in self.tensors) if part is not None]
        return self.chosen.strength * torch.stack(paid).sum() if paid and self.chosen.strength else None

    def weight_bits(self, layer: Layer) -> int:
        """Width of a layer's weights in the end."""
        bits: int = self.weights[layer.name].bits
        return bits

    def read_bits(self, layer: Layer) -> int:
        """Width of what a layer reads in the end."""
        key = self.keys[layer.name]
        bits: int = INPUT_BITS if key is None else self.activations[key].bits
        return bits

    def kept(self, name: str) -> Fraction:
        """Share of a layer's output channels that have weights in the end."""
        kept = self.weights[name].kept
        return Fraction(1) if kept is None else Fraction(int(kept.sum()), len(kept))

    def layer_bops(self, network: TrainableGraph) -> dict[str, LayerBops]:
        """What each layer's BOPs come of in the end, as published.

        Input channels are gone where a layer alone makes them, straight or through pools and flattening.
        """
        found = {}
        for layer in network.structure.layers:
            made = self.reads[layer.name].producers
            kept_in = self.kept(made[0]) if len(made) == 1 and made[0] in self.macs else Fraction(1)
            found[layer.name] = LayerBops(
                self.macs[layer.name], self.weight_bits(layer), self.read_bits(layer), self.kept(layer.name), kept_in
            )
        return found

    def facts(self, network: TrainableGraph) -> Mapping[str, float]:
        """BOPs in 32 x 32 bits' share; bits of weights and of what is read, and the share of channels, by layer."""
        layers = self.layer_bops(network)
        found = {"bops": relative_bops(list(layers.values()))}
        for name, each in layers.items():
            for what, value in (("weights", each.w_bits), ("reads", each.a_bits), ("kept", each.keep_out)):
                found[f"{name} {what}"] = float(value)
        return found

    def quantized(self, network: TrainableGraph, spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        """Lower with the gates of the end."""
        for layer in network.structure.layers:
            for what, bits in (("weights", self.weight_bits(layer)), ("inputs", self.read_bits(layer))):
                if bits > HELD_BITS:
                    raise UnsupportedError(
                        f"{layer.name} must have {what} of at most {HELD_BITS} bits in hardware, not {bits}: begin "
                        f"with open_bits={HELD_BITS}, or with more strength"
                    )
        unfolded = network.graph()
        folded = unfolded.folded()
        bops = self.facts(network)["bops"]
        return lower(folded, spec, _Lowered(self, unfolded, spec, statistics, folded.gains, bops))


@dataclass(frozen=True, eq=False)
class _Lowered(Quantizer):
    training: BayesianBits
    graph: Graph
    """Unfolded."""
    spec: InputSpec
    statistics: Statistics
    gains: Mapping[str, np.ndarray]
    bops: float
    method = "bayesian"

    @property
    def settings(self) -> Mapping[str, object]:
        return {**asdict(self.training.chosen), "bops": self.bops}

    def input_bits(self, layer: Layer) -> int:
        return self.training.read_bits(layer)

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        if all(isinstance(node, Input) for node in producers):
            return minmax_grid(producers, bits, self.statistics, self.spec)
        key = "+".join(node.name for node in producers)
        gated: _Gated = self.training.activations[key]
        for node in producers:
            if gated.signed and isinstance(node, Clamping) and node.clamps:
                raise UnsupportedError(
                    f"{node.name} must not be clamped where others of its grid are negative: the grid is {key}'s"
                )
        limit = float(gated.span.double())
        scale = NestedGrid(bits, gated.signed).step(limit)
        amounts = np.zeros(sum(node.channels for node in producers), dtype=np.int64)
        return Grid(bits, gated.signed, scale, 0, amounts, rounding="nested")

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights, np.ndarray]:
        gated: _Gated = self.training.weights[layer.name]
        weight = self.graph.parameters[layer.name].weight
        gain = self.gains.get(layer.name, np.ones(len(weight)))
        grid, limit = NestedGrid(gated.bits, signed=True), float(gated.span.double())
        kept = np.ones(len(weight), dtype=bool) if gated.kept is None else gated.kept.cpu().numpy()
        scales = grid.step(limit) * np.abs(gain)
        floor = np.maximum(SCALE_FLOOR, np.abs(parameters.bias) / (source.scale * 2.0**BIAS_BITS))
        live = kept & (scales >= floor)
        signs = np.where(live, np.sign(gain), 0).reshape(-1, *(1,) * (weight.ndim - 1))
        codes = (grid.codes(weight, limit) * signs).astype(np.int16)
        scales = np.where(live, scales, np.maximum(scales, floor))
        return QuantizedWeights(
            gated.bits, codes, scales, np.zeros(len(weight)), 0, coding=self.training.chosen.coding
        ), parameters.bias


def _macs(graph: Graph, layer: Layer) -> int:
    return math.prod(layer.shape[1:]) * graph.parameters[layer.name].weight.size


def _high(node: Node) -> float:
    return node.high if isinstance(node, Clamping) else math.inf


def searched(
    settings: BayesianSettings,
    training: TrainingSettings,
    run: Callable[[BayesianSettings, TrainingSettings], Trained],
) -> BayesianSettings:
    """The settings with the strength that `strength_for` finds in trainings of `search_epochs`."""
    if not settings.target_bops:
        return settings
    if not training.epochs:
        raise FormatError("target bops must come with epochs of training, and has none")
    shorter = replace(training, epochs=settings.search_epochs or training.epochs)
    return strength_for(settings, lambda tried: run(tried, shorter).history[-1].facts["bops"])


def strength_for(settings: BayesianSettings, run: Callable[[BayesianSettings], float]) -> BayesianSettings:
    """The settings with the least strength found whose BOPs are not above `target_bops`; as they are without a target.

    `run` trains on training images and returns the share of BOPs in 32 x 32 bits. From the settings' strength on it is
    raised or lowered by `WIDEN` until the target lies between two strengths, then between them by the geometric mean,
    `search_runs` trainings in all. `FormatError` where none reaches the target.
    """
    if not settings.target_bops:
        return settings
    above, below = 0.0, math.inf
    strength, least = settings.strength, math.inf
    for _ in range(settings.search_runs):
        found = run(replace(settings, strength=strength))
        least = min(least, found)
        if found <= settings.target_bops:
            below = min(below, strength)
        else:
            above = max(above, strength)
        if not above:
            strength /= WIDEN
        elif below == math.inf:
            strength *= WIDEN
        else:
            strength = math.sqrt(above * below)
    if below == math.inf:
        raise FormatError(
            f"target bops must be reached in {settings.search_runs} trainings, not {settings.target_bops:.4g}: the "
            f"least were {least:.4g} at strength {above:.4g}; begin with more, or train longer"
        )
    return replace(settings, strength=below)
