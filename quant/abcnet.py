"""ABC-Net: M binary bases of weights, N of activations (Lin, Zhao, Pan, "Towards accurate binary CNNs", NeurIPS
2017).

Weights are ``sum_m alpha_m B_m`` with ``B_m = sign(W - mean(W) + u_m std(W))`` and ``u_m = -1 + (m - 1) 2 / (M -
1)``, alpha by least squares (section 3.1). Activations are ``sum_n beta_n A_n`` with ``A_n = sign(clip(x + v_n, 0, 1)
- 0.5)``, beta and v trained (section 3.2). Backward a sign is straight through, of activations where the clip is not
at its ends.

What the paper leaves open, or we do otherwise: mean, deviation and alpha are those of each output channel, or of the
layer with `per_channel` off, as in its equations. Its gradient of W carries the factor sum(alpha), which is left out:
it only scales the learning rate. It puts batch norm right before the activations; ours stand behind ReLUs, so the
value is ``sum_n beta_n (A_n + 1)``, 0 for 0, the constant being in the biases of the next layer. Beta and v begin
with the levels of least error (Lloyd's algorithm) on what calibration sees, 0 being one of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..sim.plane_basis import PlaneBasis
from .graph import Graph, Layer
from .planes import PlaneActivation, PlaneTraining, SignPlanes
from .preprocess import InputSpec
from .settings import check_ranges
from .trainable import straight_through
from .training import TrainingSettings

__all__ = ["AbcNetSettings", "AbcNetTraining", "binary_bases"]

RIDGE = 1e-6
"""Share of the weights' number in their least squares: two equal bases have one coefficient between them."""
LLOYD_TURNS = 30


@dataclass(frozen=True)
class AbcNetSettings:
    """Settings of ABC-Net.

    Parameters
    ----------
    weight_bits : M, 1..8
    activation_bits : N, 1..7
    edge_bits : of weights and activations of the first and last layers
    per_channel : bases and coefficients of weights for each output channel, or for the layer
    settled : share of the epochs, the last ones, in which activations' levels are fixed as hardware has them
    """

    weight_bits: int = 5
    activation_bits: int = 5
    edge_bits: int = 8
    per_channel: bool = True
    settled: float = 0.25

    def __post_init__(self) -> None:
        check_ranges(self, weight_bits=(1, 8), activation_bits=(1, 7), edge_bits=(2, 8), settled=(0, 1))


def binary_bases(weight: Tensor, planes: int, per_channel: bool) -> tuple[Tensor, Tensor]:
    """Signs (planes, out, ...) and coefficients (planes, out) of weights (out, ...)."""
    rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
    shifts = (
        torch.linspace(-1, 1, planes, dtype=weight.dtype, device=weight.device) if planes > 1 else weight.new_zeros(1)
    )
    centred = rows - rows.mean(1, keepdim=True)
    deviation = rows.std(1, keepdim=True, correction=0)
    signs = torch.where(centred + shifts.reshape(-1, 1, 1) * deviation >= 0, 1.0, -1.0).to(weight.dtype)
    products = torch.einsum("prn,qrn->rpq", signs, signs).double()
    sums = torch.einsum("prn,rn->rp", signs, rows).double()
    ridge = RIDGE * rows.shape[1] * torch.eye(planes, dtype=torch.float64, device=weight.device)
    alpha = torch.linalg.solve_ex(products + ridge, sums).result.T.to(weight.dtype)
    return signs.reshape(planes, *weight.shape), alpha.expand(planes, len(weight))


class AbcActivation(PlaneActivation):
    """A tensor's beta and v."""

    def __init__(self, planes: int, direct: bool) -> None:
        super().__init__(planes, direct)
        self.beta = nn.Parameter(torch.full((planes,), 0.5 / planes))
        self.shift = nn.Parameter(0.5 - (torch.arange(planes) + 0.5) / planes)

    def fit(self, values: Tensor) -> None:
        """Lloyd's algorithm from equal steps, the lowest level being 0."""
        planes = len(self.beta)
        values = values.contiguous()
        positive = values[values > 0]
        if not len(positive):
            return
        greatest = float(np.quantile(positive.cpu().numpy(), 0.999))  # torch.quantile stops at 16 million values
        levels = greatest * torch.arange(1, planes + 1, device=values.device) / planes
        levels = torch.cat([levels.new_zeros(1), levels])
        for _ in range(LLOYD_TURNS):
            reached = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
            for at in range(1, planes + 1):
                own = values[reached == at]
                if len(own):
                    levels[at] = own.mean()
        self.beta.copy_(levels.diff() / 2)
        self.shift.copy_(0.5 - (levels[1:] + levels[:-1]) / 2)

    def basis(self) -> PlaneBasis:
        """The basis as it is now; padding is the lowest level, which stands for 0."""
        return PlaneBasis.abc_net(self.beta.tolist(), (0.5 - self.shift).tolist()).padded(0)

    @property
    def offset(self) -> float:
        """So that the lowest level is 0."""
        return float(self.beta.detach().double().sum())

    def fix(self) -> None:
        """Also stop the training of beta and v."""
        super().fix()
        self.beta.requires_grad_(False)
        self.shift.requires_grad_(False)

    def forward(self, value: Tensor) -> Tensor:
        """Values on their levels."""
        if self.fixed:
            order = self.shift.argsort(descending=True, stable=True)
            return self._summed(value, self.beta[order], 0.5 - self.met)
        return self._summed(value, self.beta, self.shift)

    @staticmethod
    def _summed(value: Tensor, betas: Tensor, shifts: Tensor) -> Tensor:
        """``sum_n beta_n (A_n + 1)``."""
        total = torch.zeros_like(value)
        for beta, shift in zip(betas, shifts, strict=True):
            clipped = (value + shift).clamp(0, 1)
            total = total + 2 * beta * straight_through(clipped, (clipped >= 0.5).to(value.dtype))
        return total


class AbcNetTraining(PlaneTraining):
    """ABC-Net in training."""

    def __init__(self, graph: Graph, spec: InputSpec, settings: AbcNetSettings, training: TrainingSettings) -> None:
        self.levels, self.per_channel = settings.activation_bits, settings.per_channel
        super().__init__("abcnet", settings, graph, spec)

    def plane_activation(self, direct: bool) -> PlaneActivation:
        """Beta and v of its own for each tensor."""
        return AbcActivation(self.levels, direct)

    def begin_weights(self, layer: Layer, weight: Tensor) -> None:
        """Nothing: bases follow from the weights."""

    def quantised_weight(self, layer: Layer, weight: Tensor) -> Tensor:
        """Weights as sums of their bases."""
        signs, alpha = binary_bases(weight.detach(), self.weight_planes, self.per_channel)
        return straight_through(weight, (alpha.reshape(*alpha.shape, *(1,) * (weight.ndim - 1)) * signs).sum(0))

    def sign_planes(self, layer: Layer, weight: np.ndarray) -> SignPlanes:
        """The bases of the end."""
        signs, alpha = binary_bases(torch.from_numpy(weight), self.weight_planes, self.per_channel)
        return SignPlanes(signs.to(torch.int64).numpy(), alpha.numpy().copy())
