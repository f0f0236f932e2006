"""ACIQ: analytical clipping, per-channel steps and bias-corrected weights, without training.

Source: Banner, Nahshan, Soudry, "Post training 4-bit quantization of convolutional networks for
rapid-deployment" (NeurIPS 2019). Activations are clipped where the modelled error of their prior is
least (`clipping`), each channel with its own step, which the integer datapath brings to a common
base by a shift or by an 8-bit multiplier; weights keep their extremes for each output channel, and
their rounding's bias goes into a fractional zero point. The first and last layers have 8 bits
and one min-max step per tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from ..kernels.align import MAX_MULTIPLIER, MAX_SHIFT, Alignment
from ..kernels.errors import FormatError
from .affine import WeightSettings, common_zero_point, quantize_weights
from .clipping import Constants, Prior, clip_factor
from .graph import Clamping, Graph, Layer, Node, Parameters
from .lowering import Grid, Quantizer, edge_layers, lower, stream_grid
from .minmax import minmax_grid
from .preprocess import InputSpec
from .quantized import QuantizedGraph, QuantizedTensor, QuantizedWeights
from .statistics import Statistics

__all__ = ["AciqSettings", "StepRounding", "aciq", "align_steps"]

StepRounding = Literal["round", "ceil"]


@dataclass(frozen=True)
class AciqSettings:
    """Settings of ACIQ.

    Parameters
    ----------
    weight_bits, activation_bits : 1..8; 4-bit layers only with "mul" alignment
    edge_bits : both, for the first and last layers
    prior : of a convolution's output: "laplace" or "gauss"
    constants : clip factors as published, or exact
    clip : analytical clipping; without it a channel keeps its extremes
    per_channel : a step for each input channel; without it one per tensor
    alignment : how steps meet the base: "shift" (powers of two) or "mul" (8-bit multiples)
    step_rounding : how a step becomes a power of two times the base: to the nearest in log2 ("round")
        or up, so that nothing more clips ("ceil")
    mean_correction, variance_correction : of weights
    within_observed : a clip beyond what calibration saw ends there (the authors do so at the lower end)
    """

    weight_bits: int = 4
    activation_bits: int = 4
    edge_bits: int = 8
    prior: Prior = "laplace"
    constants: Constants = "published"
    clip: bool = True
    per_channel: bool = True
    alignment: Alignment = "shift"
    step_rounding: StepRounding = "round"
    mean_correction: bool = True
    variance_correction: bool = False
    within_observed: bool = True

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "edge_bits"):
            if not 1 <= getattr(self, name) <= 8:
                raise FormatError(f"{name.replace('_', ' ')} must be 1 to 8, not {getattr(self, name)}")
        if self.alignment == "mul" and max(self.weight_bits, self.activation_bits) > 4:
            raise FormatError("mul alignment must have weights and activations of at most 4 bits")


def align_steps(steps: np.ndarray, kind: Alignment, rounding: StepRounding = "round") -> tuple[float, np.ndarray]:
    """Base scale and amounts (int64 (C,)) that bring steps (C,) to ``base * 2**k`` or ``base * m``.

    A step of 0 belongs to a dead channel, whose codes are all zero, and takes the least amount. So
    does a step under 1/256 (shift) or 1/255 (mul) of the greatest.

    >>> align_steps(np.array([0.1, 0.21, 0.8]), "shift")
    (0.1, array([0, 1, 3]))
    """
    greatest = float(steps.max())
    live = steps > 0
    if not live.any():
        return 1.0, np.full(steps.shape, 0 if kind == "shift" else 1, dtype=np.int64)
    if kind == "mul":
        base = greatest / MAX_MULTIPLIER
        return base, np.clip(np.rint(steps / base), 1, MAX_MULTIPLIER).astype(np.int64)
    exponents = np.log2(np.where(live, steps, greatest) / greatest) + MAX_SHIFT
    powers = np.rint(exponents) if rounding == "round" else np.ceil(exponents)
    powers = np.clip(powers, 0, MAX_SHIFT).astype(np.int64)
    least = int(powers[live].min())
    return greatest / 2.0 ** (MAX_SHIFT - least), np.where(live, powers - least, 0)


@dataclass(frozen=True, eq=False)
class _Aciq(Quantizer):
    graph: Graph
    spec: InputSpec
    statistics: Statistics
    chosen: AciqSettings
    edges: frozenset[str]
    method = "aciq"

    @property
    def settings(self) -> Mapping[str, object]:
        return asdict(self.chosen)

    def input_bits(self, layer: Layer) -> int:
        return self.chosen.edge_bits if layer.name in self.edges else self.chosen.activation_bits

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        chosen = self.chosen
        clipped = all(isinstance(node, Clamping) for node in producers)
        if (bits == chosen.edge_bits != chosen.activation_bits) or not clipped:
            return minmax_grid(producers, bits, self.statistics, self.spec)
        low, high = (
            np.concatenate(ends) for ends in zip(*(self._channel_ranges(node, bits) for node in producers), strict=True)
        )
        if not chosen.per_channel:
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        steps, zero_point = common_zero_point(low, high, bits)
        scale, amounts = align_steps(steps, chosen.alignment, chosen.step_rounding)
        return Grid(bits, False, scale, zero_point, amounts, chosen.alignment)

    def _channel_ranges(self, node: Node, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest value kept of each channel (C,)."""
        chosen = self.chosen
        assert isinstance(node, Clamping)
        half = node.low == 0
        seen = self.statistics[node.name].channel if chosen.per_channel else self.statistics[node.name].tensor
        spread = seen.b if chosen.prior == "laplace" else seen.std
        factor = clip_factor(chosen.prior, bits, half, chosen.constants)
        low, high = seen.min, seen.max
        if chosen.clip:
            low = np.maximum(low, seen.mean - factor * spread)
            high = (np.maximum(seen.mean, 0) if half else seen.mean) + factor * spread
            if chosen.within_observed:
                high = np.minimum(high, seen.max)
        low, high = np.clip(low, min(node.low, 0), 0), np.clip(high, 0, max(node.high, 0))
        return np.broadcast_to(low, node.channels), np.broadcast_to(high, node.channels)

    def stream_grid(self, producers: Sequence[Node]) -> Grid:
        return stream_grid(producers, self.statistics)

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights, np.ndarray]:
        bits = self.chosen.edge_bits if layer.name in self.edges else self.chosen.weight_bits
        corrections = WeightSettings(True, self.chosen.mean_correction, self.chosen.variance_correction)
        return quantize_weights(layer, parameters, source, bits, corrections), parameters.bias


def aciq(graph: Graph, spec: InputSpec, statistics: Statistics, settings: AciqSettings | None = None) -> QuantizedGraph:
    """Quantise `graph` by ACIQ with the calibration `statistics` of its nodes.

    >>> statistics = collect(graph, torch.from_numpy(spec.normalise(images[:32])))
    >>> logits = aciq(graph, spec, statistics).run(test_images)
    """
    return lower(graph, spec, _Aciq(graph, spec, statistics, settings or AciqSettings(), edge_layers(graph)))
