"""ACIQ: analytical clipping, per-channel steps and bias-corrected weights, without training.

Source: Banner, Nahshan, Soudry, "Post training 4-bit quantization of convolutional networks for
rapid-deployment" (NeurIPS 2019). Activations are clipped where the modelled error of their prior is
least (`clipping`), each channel with its own step, which the integer datapath brings to a common
base by a shift or by an 8-bit multiplier; weights keep their extremes for each output channel, and
their rounding's bias goes into a fractional zero point. Of 4 bits and fewer, channels share their tensor's bits by
equation 11 (`kernels.allocation`): each has a width and the clip of its own width. The first and last layers have 8
bits and one min-max step per tensor.

Channels of activations can have widths where hardware has them: in tensors that layers alone write, behind a ReLU (the
zero point is 0). What an add writes, or what is copied from a 16-bit stream, has the base width.

The mid-tread variant gives each channel a number omega of bins that is no power of two: a step is the clipped range
over omega, zero is a code, and the zero point is 0. Its codes differ much in how often they occur, which is for Huffman
coding: their entropy counts, not the width that holds them. Bounds are rounded to codes, and those of activations up to
the greatest code of the channel's width, or of the tensor's where its channels have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from ..kernels.align import MAX_MULTIPLIER, MAX_SHIFT, Alignment
from ..kernels.allocation import MAX_CHANNEL_BITS, allocate_bins, allocate_bits
from ..kernels.errors import FormatError
from ..kernels.mac import DIGIT_BITS
from ..sim.manifest import Coding
from .affine import (
    WeightSettings,
    code_range,
    common_zero_point,
    holding_bits,
    quantize_weights,
    quantize_weights_to_bins,
)
from .clipping import Clip, Constants, Prior, bin_factor, clip_factor, kld_clip
from .graph import ChannelPad, Clamping, Flatten, Graph, Layer, MaxPool2d, Node, Parameters, StrideSlice
from .lowering import EdgeQuantizer, Grid, edge_layers, lower
from .minmax import minmax_grid
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedTensor, QuantizedWeights
from .settings import check_ranges
from .statistics import Moments, Statistics, collect

__all__ = [
    "AciqSettings",
    "StepRatio",
    "StepRounding",
    "aciq",
    "align_steps",
    "clip_range",
    "kld_ratios",
    "run_time_logits",
]

StepRounding = Literal["round", "ceil"]
PHASES = 32
"""Bases in an octave that are tried."""
SIGMAS = 2.0
"""Standard deviations from the mean to a clip that knows no better."""


@dataclass(frozen=True)
class AciqSettings:
    """Settings of ACIQ.

    Parameters
    ----------
    weight_bits, activation_bits : 1..8; 4-bit layers only with "mul" alignment
    edge_bits : both, for the first and last layers
    prior : of a convolution's output: "laplace" or "gauss"
    constants : clip factors as published, or exact
    clip : where activations are clipped: "analytical", "kld" (least Kullback-Leibler divergence), "sigma2" (two
        standard deviations from the mean) or "minmax"
    per_channel : a step for each channel of activations; without it one per tensor
    per_channel_weights : a step for each output channel of weights; without it one per layer
    allocate_weights, allocate_activations : bits of single channels by equation 11, where `weight_bits` or
        `activation_bits` is at most 4 (bins at any width); needs steps of single channels, and "shift" alignment
    allocation_rounding : of these bits, "round" or "ceil"
    mid_tread : bins of any number instead of bits: ``2**bits`` of them on average, allocated as bits are; needs
        analytical clips and "shift" alignment
    coding : of weights in the file, "raw" or "huffman"
    alignment : how steps meet the base: "shift" (powers of two) or "mul" (8-bit multiples)
    step_rounding : how a step becomes a power of two times the base: to the nearest in log2 ("round")
        or up, so that nothing more clips ("ceil"); the base follows (`align_steps`)
    mean_correction, variance_correction : of weights
    within_observed : a clip beyond what calibration saw ends there (the authors do so at the lower end)
    """

    weight_bits: int = 4
    activation_bits: int = 4
    edge_bits: int = 8
    prior: Prior = "laplace"
    constants: Constants = "published"
    clip: Clip = "analytical"
    per_channel: bool = True
    per_channel_weights: bool = True
    allocate_weights: bool = False
    allocate_activations: bool = False
    allocation_rounding: Literal["round", "ceil"] = "round"
    mid_tread: bool = False
    coding: Coding = "raw"
    alignment: Alignment = "shift"
    step_rounding: StepRounding = "round"
    mean_correction: bool = True
    variance_correction: bool = False
    within_observed: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, weight_bits=(1, 8), activation_bits=(1, 8), edge_bits=(1, 8))
        if self.alignment == "mul" and max(self.weight_bits, self.activation_bits) > 4:
            raise FormatError("mul alignment must have weights and activations of at most 4 bits")
        if self.mid_tread and (self.alignment == "mul" or self.clip != "analytical"):
            raise FormatError(
                f"the mid-tread variant must have analytical clips and shift alignment, "
                f"not {self.clip} and {self.alignment}"
            )
        if self.alignment == "mul" and (self.allocates_weights or self.allocates_activations):
            raise FormatError("bit allocation, which gives some channels more than 4 bits, must have shift alignment")
        for what, allocates, steps in (
            ("weights", self.allocates_weights, self.per_channel_weights),
            ("activations", self.allocates_activations, self.per_channel),
        ):
            if allocates and not steps:
                raise FormatError(f"bit allocation of {what} must have a step for each channel")

    @property
    def allocates_weights(self) -> bool:
        """Whether output channels share their layer's bits, or bins."""
        return self.allocate_weights and (self.mid_tread or self.weight_bits <= DIGIT_BITS)

    @property
    def allocates_activations(self) -> bool:
        """Whether channels share their tensor's bits, or bins."""
        return self.allocate_activations and (self.mid_tread or self.activation_bits <= DIGIT_BITS)

    @property
    def most_shift(self) -> int:
        """Of a step: where codes have several digits, the products of unsigned ones leave 7 of the aligned 16 bits."""
        return MAX_SHIFT - (self.mid_tread or self.allocates_weights or self.weight_bits > DIGIT_BITS)


def align_steps(
    steps: np.ndarray, kind: Alignment, rounding: StepRounding = "round", most: int = MAX_SHIFT
) -> tuple[float, np.ndarray]:
    """Base scale and amounts (int64 (C,)) that bring steps (C,) to ``base * 2**k``, k up to `most`, or ``base * m``.

    The base of shifts is free: of `PHASES` in an octave it is the one that brings steps nearest to powers of two, by
    the squares of their logarithms' errors, weighed by the steps' own squares. A step of 0 belongs to a dead channel,
    whose codes are all zero, and takes the least amount. So does a step under ``2**-most`` (shift) or 1/255 (mul) of
    the greatest.

    >>> align_steps(np.array([0.1, 0.2, 0.8]), "shift")
    (0.1, array([0, 1, 3]))
    """
    greatest = float(steps.max())
    live = steps > 0
    if not live.any():
        return 1.0, np.full(steps.shape, 0 if kind == "shift" else 1, dtype=np.int64)
    if kind == "mul":
        base = greatest / MAX_MULTIPLIER
        return base, np.clip(np.rint(steps / base), 1, MAX_MULTIPLIER).astype(np.int64)
    exponents = np.log2(steps[live] / greatest)
    phases = np.arange(PHASES)[:, None] / PHASES - 0.5
    powers = np.rint(exponents - phases) if rounding == "round" else np.ceil(exponents - phases)
    powers = np.maximum(powers, powers.max(axis=1, keepdims=True) - most)
    cost = (steps[live] ** 2 * (powers + phases - exponents) ** 2).sum(axis=1)
    best = int(np.argmin(cost))
    amounts = np.zeros(steps.shape, dtype=np.int64)
    amounts[live] = powers[best] - powers[best].min()
    return greatest * 2.0 ** float(phases[best, 0] + powers[best].min()), amounts


def clip_range(seen: Moments, bits: np.ndarray, half: bool, settings: AciqSettings) -> tuple[np.ndarray, np.ndarray]:
    """Where values (C,) of these moments, before their clamp, are cut off at `bits` (C,) bits: least and greatest.

    `half` is behind a ReLU: the range begins at 0, and positive values alone tell where it ends. A mean and a spread
    say nothing of where values end, so a clip beyond what calibration saw ends there (`within_observed`).
    """
    if settings.clip == "minmax":
        return seen.min, seen.max
    if settings.clip == "kld":
        ends = np.maximum(-seen.min, seen.max)
        parts = np.empty(len(bits))
        for width in np.unique(bits):
            own = bits == width
            parts[own] = kld_clip(seen.counts[own], int(width), half)
        low, high = -parts * ends, parts * ends
    else:
        centre = np.maximum(seen.mean, 0) if half else seen.mean
        if settings.clip == "sigma2":
            reach = SIGMAS * seen.std
        else:
            # A channel without bits has no clip; that of one bit stands in its place.
            known = [clip_factor(settings.prior, max(int(width), 1), half, settings.constants) for width in bits]
            reach = np.array(known) * (seen.b if settings.prior == "laplace" else seen.std)
        low, high = seen.mean - reach, centre + reach
    if settings.within_observed:
        high = np.minimum(high, seen.max)
    return np.maximum(low, seen.min), high


@dataclass(frozen=True, eq=False)
class _Aciq(EdgeQuantizer):
    chosen: AciqSettings
    method = "aciq"

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        chosen = self.chosen
        clipped = all(isinstance(node, Clamping) for node in producers)
        if (bits == chosen.edge_bits != chosen.activation_bits) or not clipped:
            return minmax_grid(producers, bits, self.statistics, self.spec)
        if chosen.mid_tread:
            return self._bin_grid(producers, bits, direct=False)
        low, high = (
            np.concatenate(ends)
            for ends in zip(
                *(self._channel_ranges(node, np.full(node.channels, bits)) for node in producers), strict=True
            )
        )
        if not chosen.per_channel:
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        steps, zero_point = common_zero_point(low, high, bits)
        scale, amounts = align_steps(steps, chosen.alignment, chosen.step_rounding, chosen.most_shift)
        return Grid(bits, False, scale, zero_point, amounts, chosen.alignment)

    def direct_grid(self, producers: Sequence[Layer], bits: int) -> Grid:
        chosen = self.chosen
        rectified = all(node.low >= 0 for node in producers)
        if not (rectified and bits == chosen.activation_bits):
            return self.activation_grid(producers, bits)
        if chosen.mid_tread:
            return self._bin_grid(producers, bits, direct=True)
        if not chosen.allocates_activations:
            return self.activation_grid(producers, bits)
        widths = allocate_bits(self._spread(producers), bits, chosen.allocation_rounding)
        own = np.split(widths, np.cumsum([node.channels for node in producers])[:-1])
        high = np.concatenate([self._channel_ranges(node, each)[1] for node, each in zip(producers, own, strict=True)])
        steps = np.where(widths > 0, high / np.maximum((1 << widths) - 1, 1), 0)
        scale, amounts = align_steps(steps, chosen.alignment, chosen.step_rounding, chosen.most_shift)
        return Grid(max(1, int(widths.max())), False, scale, 0, amounts, chosen.alignment, widths)

    def _spread(self, producers: Sequence[Node]) -> np.ndarray:
        """What channels share their bits by; one that is never positive behind a ReLU is constant and takes none."""
        spreads = []
        for node in producers:
            seen = self.statistics[node.name].channel
            dead = isinstance(node, Clamping) and node.low == 0 and seen.max <= 0
            spreads.append(np.where(dead, 0, self._deviation(seen)))
        return np.concatenate(spreads)

    def _deviation(self, seen: Moments) -> np.ndarray:
        return seen.b if self.chosen.prior == "laplace" else seen.std

    def _bin_grid(self, producers: Sequence[Node], bits: int, direct: bool) -> Grid:
        """The mid-tread grid; where layers write it `direct`, each channel has the width of its greatest code."""
        chosen = self.chosen
        channels = sum(node.channels for node in producers)
        bins = np.full(channels, 1 << bits)
        if chosen.allocates_activations:
            bins = allocate_bins(self._spread(producers), bits)
        lows, highs, steps = [], [], []
        ends = np.cumsum([node.channels for node in producers])[:-1]
        for node, own in zip(producers, np.split(bins, ends), strict=True):
            assert isinstance(node, Clamping)
            seen = self.statistics[node.name].channel if chosen.per_channel else self.statistics[node.name].tensor
            half = node.low == 0
            centre = np.maximum(seen.mean, 0) if half else seen.mean
            alpha = bin_factor(chosen.prior, own, half) * self._deviation(seen)
            steps.append(np.where(own > 0, alpha * (2 - half) / np.maximum(own, 1), 0))
            lows.append(np.clip(np.broadcast_to(centre - alpha, node.channels), min(node.low, 0), 0))
            highs.append(np.clip(np.broadcast_to(centre + alpha, node.channels), 0, max(node.high, 0)))
        low, high, step = (np.concatenate(parts) for parts in (lows, highs, steps))
        signed = bool(low.min() < 0)
        least, greatest = code_range(MAX_CHANNEL_BITS, signed)
        step = np.where(step > 0, np.maximum(step, np.maximum(high / greatest, low / min(least, -1))), 0)
        scale, amounts = align_steps(step, chosen.alignment, chosen.step_rounding, chosen.most_shift)
        aligned = np.where(step > 0, scale * 2.0**amounts, np.inf)
        widths = holding_bits(np.rint(low / aligned), np.rint(high / aligned), signed)
        most = max(1, int(widths.max()))
        return Grid(most, signed, scale, 0, amounts, chosen.alignment, widths if direct else None)

    def _channel_ranges(self, node: Node, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest value kept of each channel (C,), which has `bits` (C,)."""
        chosen = self.chosen
        assert isinstance(node, Clamping)
        seen = self.statistics[node.name].channel if chosen.per_channel else self.statistics[node.name].tensor
        low, high = clip_range(seen, bits[: len(seen.mean)], node.low == 0, chosen)
        low, high = np.clip(low, min(node.low, 0), 0), np.clip(high, 0, max(node.high, 0))
        return np.broadcast_to(low, node.channels), np.broadcast_to(high, node.channels)

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights, np.ndarray]:
        chosen, edge = self.chosen, layer.name in self.edges
        corrections = WeightSettings(chosen.per_channel_weights, chosen.mean_correction, chosen.variance_correction)
        spread = parameters.weight.reshape(len(parameters.weight), -1)
        spread = spread.std(1, ddof=min(1, spread.shape[1] - 1))
        if chosen.mid_tread and not edge:
            bins = (
                allocate_bins(spread, chosen.weight_bits)
                if chosen.allocates_weights
                else np.full(len(spread), 1 << chosen.weight_bits)
            )
            weights = quantize_weights_to_bins(layer, parameters, source, bins, corrections)
        else:
            widths = None
            if chosen.allocates_weights and not edge:
                widths = allocate_bits(spread, chosen.weight_bits, chosen.allocation_rounding)
            bits = chosen.edge_bits if edge else chosen.weight_bits
            weights = quantize_weights(layer, parameters, source, bits, corrections, widths)
        return replace(weights, coding=chosen.coding), parameters.bias


def aciq(graph: Graph, spec: InputSpec, statistics: Statistics, settings: AciqSettings | None = None) -> QuantizedGraph:
    """Quantise `graph` by ACIQ with the calibration `statistics` of its nodes.

    >>> statistics = collect(graph, torch.from_numpy(spec.normalise(images[:32])))
    >>> logits = aciq(graph, spec, statistics).run(test_images)
    """
    return lower(graph, spec, _Aciq(graph, spec, statistics, settings or AciqSettings(), edge_layers(graph)))


def run_time_logits(
    graph: Graph, spec: InputSpec, images: np.ndarray, settings: AciqSettings | None = None, batch: int = 32
) -> np.ndarray:
    """Logits (N, classes) of the fake-quantised network with clips, widths and steps from each batch itself.

    This is how the paper's headline figures were made. It has no hardware form: the constants of every batch are
    others, and come of the float network's values, which hardware never has. A last batch that is smaller has
    statistics of fewer images.
    """
    parts = []
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        statistics = collect(graph, torch.from_numpy(spec.normalise(part)))
        parts.append(aciq(graph, spec, statistics, settings).run(part))
    return np.concatenate(parts)


class StepRatio(NamedTuple):
    """The step (the clip, that is) of ACIQ over that of least Kullback-Leibler divergence, behind one node."""

    name: str
    tensor: float
    """One step for the tensor."""
    channels: float
    """Steps of single channels: the mean of their ratios, over channels that are ever positive."""


def kld_ratios(graph: Graph, statistics: Statistics, settings: AciqSettings | None = None) -> tuple[StepRatio, ...]:
    """For every rectified tensor that an inner layer reads, in execution order."""
    chosen, edges = settings or AciqSettings(), edge_layers(graph)
    read = {_writer(graph, name) for layer in graph.layers if layer.name not in edges for name in layer.inputs}
    found = []
    for node in graph.nodes:
        if node.name not in read or not isinstance(node, Clamping) or node.low != 0:
            continue
        ratios = []
        for seen in (statistics[node.name].tensor, statistics[node.name].channel):
            bits = np.full(len(seen.mean), chosen.activation_bits)
            ends = [clip_range(seen, bits, True, replace(chosen, clip=clip))[1] for clip in ("analytical", "kld")]
            live = seen.max > 0
            ratios.append(float(np.mean(ends[0][live] / ends[1][live])) if live.any() else float("nan"))
        found.append(StepRatio(node.name, *ratios))
    return tuple(found)


def _writer(graph: Graph, name: str) -> str:
    """The node that makes the values which `name` hands on."""
    node = graph.by_name[name]
    while isinstance(node, MaxPool2d | Flatten | ChannelPad | StrideSlice):
        node = graph.by_name[node.inputs[0]]
    return node.name
