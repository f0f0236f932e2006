"""LQ-Net: learned bases for weights and activations (Zhang, Yang, Ye, Hua, "LQ-Nets", ECCV 2018).

A quantiser's levels are the inner products of a basis v, of K numbers, with all codes: of {-1, 1}^K for weights, one
basis for each output channel, and of {0, 1}^K for activations, one basis for a tensor. Values go to the nearest
level. Bases are learnt by minimising the quantisation error in turns (QEM, algorithm 1): given v, the codes; given
the codes, v by least squares, ``v = (B B^T)^-1 B x``. In training each step makes one turn on its batch, and v moves
a tenth of the way (section 3.3). Gradients pass straight through; those of activations stop beyond the greatest
level.

The paper leaves open how a float network begins: here by `turns` of the algorithm on its weights and on what
calibration sees, instead of from constants. Straight-through gradients and moving averages are as in the authors'
code; so is the small weight that keeps the least squares from being singular.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.errors import FormatError
from ..sim.plane_basis import PlaneBasis
from .graph import Graph, Layer
from .planes import PlaneActivation, PlaneTraining, SignPlanes
from .preprocess import InputSpec
from .settings import check_ranges
from .trainable import ByName, straight_through
from .training import TrainingSettings

__all__ = ["LqNetSettings", "LqNetTraining", "nearest_levels", "qem"]

KEPT = 0.9
"""Of a basis in a step of training."""
RIDGE = 1e-4
"""Weight of the present basis in its least squares."""


@dataclass(frozen=True)
class LqNetSettings:
    """Settings of LQ-Net.

    Parameters
    ----------
    weight_bits : K of weights, 1..4
    activation_bits : K of activations, 1..4
    edge_bits : of weights and activations of the first and last layers
    turns : of the algorithm before training
    settled : share of the epochs, the last ones, in which activations' bases are fixed as hardware has them
    """

    weight_bits: int = 2
    activation_bits: int = 2
    edge_bits: int = 8
    turns: int = 20
    settled: float = 0.25

    def __post_init__(self) -> None:
        check_ranges(self, weight_bits=(1, 4), activation_bits=(1, 4), edge_bits=(5, 8), settled=(0, 1))
        if self.turns < 0:
            raise FormatError(f"turns must not be negative, not {self.turns}")


def codes(planes: int, signs: bool, like: Tensor) -> Tensor:
    """All codes (2**planes, planes) of {-1, 1} or {0, 1}; plane 0 changes fastest."""
    bits = torch.arange(1 << planes, device=like.device)[:, None] >> torch.arange(planes, device=like.device) & 1
    return (2 * bits - 1 if signs else bits).to(like.dtype)


def nearest_levels(values: Tensor, basis: Tensor) -> Tensor:
    """The codes (rows, n), int64, of the levels that are nearest to `values` (rows, n) by each row's `basis` (rows,
    K).

    Codes are of {-1, 1}. Of two levels that are as near the greater one is taken.
    """
    levels = basis @ codes(basis.shape[1], True, basis).T
    ordered, order = levels.sort(dim=1, stable=True)
    middles = (ordered[:, 1:] + ordered[:, :-1]) / 2
    reached = torch.searchsorted(middles.contiguous(), values.contiguous(), right=True)
    return order.gather(1, reached)


def qem(values: Tensor, basis: Tensor) -> Tensor:
    """One turn for each row: nearest codes of `values` (rows, n), then the basis (rows, K) of least squares."""
    all_codes = codes(basis.shape[1], True, basis)
    chosen = all_codes[nearest_levels(values, basis)]
    return _least_squares(
        torch.einsum("rnk,rnl->rkl", chosen, chosen), torch.einsum("rnk,rn->rk", chosen, values), basis
    )


def _least_squares(products: Tensor, sums: Tensor, basis: Tensor) -> Tensor:
    """The basis (..., K) that solves ``products @ v = sums``, kept near the present one where that is singular."""
    eye = torch.eye(basis.shape[-1], dtype=torch.float64, device=basis.device)
    ridged = products.double() + RIDGE * eye
    solved: Tensor = torch.linalg.solve_ex(ridged, sums.double() + RIDGE * basis.double()).result
    return solved.to(basis.dtype)


class LqActivation(PlaneActivation):
    """A tensor's basis (K,)."""

    beta: Tensor

    def __init__(self, planes: int, turns: int, direct: bool) -> None:
        super().__init__((1 << planes) - 1, direct)
        self.turns = turns
        self.register_buffer("beta", 2.0 ** torch.arange(planes) / ((1 << planes) - 1))

    def fit(self, values: Tensor) -> None:
        """Begin with equal steps up to the greatest value, and make some turns."""
        greatest = values.max().clamp(min=1e-6)
        planes = len(self.beta)
        self.beta.copy_(greatest * 2.0 ** torch.arange(planes, device=values.device) / ((1 << planes) - 1))
        for _ in range(self.turns):
            self.beta.copy_(self._turn(values, self._thresholds()))

    def basis(self) -> PlaneBasis:
        """The basis as it is now."""
        return PlaneBasis.lq_net(self.beta.tolist())

    def _order(self) -> tuple[Tensor, Tensor]:
        """Levels that rise, and their codes (2**K, K)."""
        all_codes = codes(len(self.beta), False, self.beta)
        levels, order = (all_codes @ self.beta).sort(stable=True)
        return levels, all_codes[order]

    def levels(self) -> Tensor:
        """The levels, on the device."""
        return self._order()[0]

    def _thresholds(self) -> Tensor:
        levels = self.levels()
        return (levels[1:] + levels[:-1]) / 2

    def _turn(self, values: Tensor, thresholds: Tensor) -> Tensor:
        """The basis of least squares of values whose codes the thresholds say."""
        reached = [values >= threshold for threshold in thresholds]
        ends = [(values.numel(), values.sum(dtype=torch.float64))]
        ends += [(hit.sum(), (values * hit).sum(dtype=torch.float64)) for hit in reached]
        counts = torch.stack([torch.as_tensor(count, device=values.device).double() for count, _ in ends])
        sums = torch.stack([total for _, total in ends])
        nothing = torch.zeros(1, dtype=torch.float64, device=values.device)
        counts, sums = (part - torch.cat([part[1:], nothing]) for part in (counts, sums))
        own = self._order()[1].double()
        return _least_squares(own.T @ (own * counts[:, None]), own.T @ sums, self.beta)

    def forward(self, value: Tensor) -> Tensor:
        """Values on their levels; in training the basis moves."""
        thresholds = self.met if self.fixed else self._thresholds()
        levels = self.levels()
        quantised = levels[0].expand_as(value)
        for threshold, step in zip(thresholds, levels.diff(), strict=True):
            quantised = quantised + (value.detach() >= threshold) * step
        clipped = torch.minimum(value, levels[-1])
        if self.training and not self.fixed:
            with torch.no_grad():
                self.beta.lerp_(self._turn(value.detach(), thresholds), 1 - KEPT)
        return straight_through(clipped, quantised)


class LqWeight(nn.Module):
    """A layer's bases (out, K)."""

    basis: Tensor

    def __init__(self, outputs: int, planes: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.ones(outputs, planes))

    def begin(self, weight: Tensor, turns: int) -> None:
        """Equal steps over twice the mean magnitude, and some turns."""
        flat = weight.flatten(1)
        planes = self.basis.shape[1]
        size = flat.abs().mean(1, keepdim=True).clamp(min=1e-12)
        self.basis.copy_(2 * size * 2.0 ** torch.arange(planes, device=size.device) / (1 << planes))
        for _ in range(turns):
            self.basis.copy_(qem(flat, self.basis))

    def forward(self, weight: Tensor) -> Tensor:
        """Weights on their levels; in training the bases move."""
        flat = weight.detach().flatten(1)
        chosen = codes(self.basis.shape[1], True, self.basis)[nearest_levels(flat, self.basis)]
        quantised = (chosen * self.basis[:, None]).sum(-1).reshape(weight.shape)
        if self.training:
            with torch.no_grad():
                self.basis.lerp_(qem(flat, self.basis), 1 - KEPT)
        return straight_through(weight, quantised)


class LqNetTraining(PlaneTraining):
    """LQ-Net in training."""

    def __init__(self, graph: Graph, spec: InputSpec, settings: LqNetSettings, training: TrainingSettings) -> None:
        self.turns, self.levels = settings.turns, settings.activation_bits
        super().__init__("lqnet", settings, graph, spec)
        self.bases = ByName(
            {
                layer.name: LqWeight(layer.channels, settings.weight_bits)
                for layer in graph.layers
                if layer.name not in self.edges
            }
        )

    def plane_activation(self, direct: bool) -> PlaneActivation:
        """A basis of its own for each tensor."""
        return LqActivation(self.levels, self.turns, direct)

    def begin_weights(self, layer: Layer, weight: Tensor) -> None:
        """Bases of the float weights."""
        self.bases[layer.name].begin(weight, self.turns)

    def quantised_weight(self, layer: Layer, weight: Tensor) -> Tensor:
        """Weights on their levels."""
        quantised: Tensor = self.bases[layer.name](weight)
        return quantised

    def sign_planes(self, layer: Layer, weight: np.ndarray) -> SignPlanes:
        """Nearest codes by the bases of the end."""
        basis = self.bases[layer.name].basis.double().cpu()
        flat = torch.from_numpy(weight.reshape(len(weight), -1))
        chosen = codes(basis.shape[1], True, basis)[nearest_levels(flat, basis)].to(torch.int64)
        signs = chosen.permute(2, 0, 1).reshape(-1, *weight.shape).numpy()
        return SignPlanes(signs, basis.T.numpy().copy())
