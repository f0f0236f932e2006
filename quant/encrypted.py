"""Encrypted signs in training: the XOR networks of FleXOR with a gradient, all layers decoded at once.

The signs of a slice x of real numbers are the XOR of the signs of its entries, as `kernels.xor` has them: output o is
``(-1)^(n-1) * prod_j sign(x_j)`` over its n taps, sign(0) being +1. Going backward, by the paper's equation 6, each tap
has the slope of a tanh in the place of its own sign, and the signs of the others:

    dy_o / dx_i = S * (1 - tanh^2(S * x_i)) * (-1)^(n-1) * prod_{j != i} sign(x_j)

The last two factors are ``y_o * sign(x_i)``, so that one product with the matrix gives the gradient of a slice. S is
the *slope*. Two other gradients are the paper's ablations: straight-through has slope 1 for entries within [-1, 1], and
0 elsewhere; analog is the gradient of the whole product of ``tanh(S * x_j)``, without signs. That product may also be
the output in training, real numbers of which inference keeps the signs: "real".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.xor import XorNetwork

__all__ = ["EncryptedLayer", "EncryptedSigns", "Gradient", "XorMatrix", "relative", "stages", "xor_signs"]

COEFFICIENT_FRACTION = 14
"""Of coefficients whose greatest is 1, in `kernels.planes.fixed_coefficients`."""

Gradient = Literal["tanh", "straight-through", "analog", "real"]


def _signs(values: Tensor) -> Tensor:
    """-1 and +1, which is also the sign of 0."""
    return (values >= 0).to(values.dtype) * 2 - 1


class _Decode(torch.autograd.Function):
    """Signs (slices, n_out) of slices (slices, n_in); `slope` is S, or None for straight-through."""

    @staticmethod
    def forward(ctx: Any, slices: Tensor, matrix: Tensor, slope: float | None) -> Tensor:
        ones = (slices >= 0).to(slices.dtype) @ matrix.T
        outputs: Tensor = ones % 2 * 2 - 1
        ctx.save_for_backward(slices, matrix, outputs)
        ctx.slope = slope
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        slices, matrix, outputs = ctx.saved_tensors
        others = (gradients[0] * outputs) @ matrix * _signs(slices)
        if ctx.slope is None:
            return others * (slices.abs() <= 1), None, None
        return others * (ctx.slope * (1 - torch.tanh(ctx.slope * slices) ** 2)), None, None


class _Take(torch.autograd.Function):
    """Entries of a vector at places that all differ: so that the gradient is put there, and nothing is added up."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.count = len(values)
        return values.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradients[0].new_zeros(ctx.count).scatter_(0, places, gradients[0]), None


class XorMatrix(nn.Module):
    """A network's matrix as tensors: (n_out, n_in), and for each output its taps, padded by n_in."""

    matrix: Tensor
    taps: Tensor
    parity: Tensor

    def __init__(self, network: XorNetwork) -> None:
        super().__init__()
        matrix = network.matrix
        counts = matrix.sum(axis=1, dtype=np.int64)
        taps = np.full((network.n_out, counts.max()), network.n_in, dtype=np.int64)
        for output, row in enumerate(matrix):
            taps[output, : counts[output]] = np.flatnonzero(row)
        parity = 2 * (counts % 2) - 1
        for name, values in (("matrix", matrix.astype(np.float32)), ("taps", taps), ("parity", parity)):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, slices: Tensor, gradient: Gradient, slope: float) -> Tensor:
        """Outputs (slices, n_out) of slices (slices, n_in): signs, but real numbers in training with "real"."""
        chosen = slope if gradient == "tanh" else None
        decoded: Tensor = _Decode.apply(slices, self.matrix, chosen)  # type: ignore[no-untyped-call]
        if gradient not in ("analog", "real") or not self.training:
            return decoded
        factors = torch.cat([torch.tanh(slope * slices), torch.ones_like(slices[:, :1])], dim=1)
        real: Tensor = factors[:, self.taps].prod(dim=2) * self.parity
        # The difference is 0 going forward: what is added to a sign leaves it exact.
        return real if gradient == "real" else decoded.detach() + (real - real.detach())


def xor_signs(network: XorNetwork, slices: Tensor, gradient: Gradient = "tanh", slope: float = 1.0) -> Tensor:
    """Outputs (slices, n_out) of real slices (slices, n_in), in training.

    >>> xor_signs(XorNetwork(2, 1, (3,)), torch.tensor([[0.5, -0.1], [0.5, 0.1]]))
    tensor([[ 1.], [-1.]])
    """
    outputs: Tensor = XorMatrix(network)(slices, gradient, slope)
    return outputs


class EncryptedLayer(NamedTuple):
    """A layer: its weights' shape, the network of each plane, and the places of its weights in the order of a stream.

    `places` is int64 (weights,), a permutation; `alpha` (planes, out) and `slices`, for each plane (slices, n_in), are
    what training begins with.
    """

    shape: tuple[int, ...]
    networks: tuple[XorNetwork, ...]
    places: np.ndarray
    slices: tuple[np.ndarray, ...]
    alpha: np.ndarray


class EncryptedSigns(nn.Module):
    """The encrypted weights of several layers, and what each plane of an output channel is worth: the parameters.

    Layers that share a network are decoded together, once for each run of the network that they are in: their weights
    are to be asked for once in a run, and in order.
    """

    def __init__(self, layers: Mapping[str, EncryptedLayer], gradient: Gradient, slope: float) -> None:
        super().__init__()
        self.shapes = {name: layer.shape for name, layer in layers.items()}
        self.networks = {name: layer.networks for name, layer in layers.items()}
        self.gradient: Gradient = gradient
        self.slope = slope
        (self.planes,) = {len(layer.networks) for layer in layers.values()}
        alpha = np.concatenate([layer.alpha for layer in layers.values()], axis=1)
        self.alpha = nn.Parameter(torch.from_numpy(alpha.astype(np.float32)))
        self.slices, self.matrices = nn.ParameterList(), nn.ModuleList()
        self.members: list[list[tuple[str, int]]] = []
        """For each network, the layer and the plane of its streams in order."""
        for network in dict.fromkeys(network for layer in layers.values() for network in layer.networks):
            own = [
                (name, plane)
                for name, layer in layers.items()
                for plane, each in enumerate(layer.networks)
                if each == network
            ]
            parts = [layers[name].slices[plane] for name, plane in own]
            self.slices.append(nn.Parameter(torch.from_numpy(np.concatenate(parts).astype(np.float32))))
            self.matrices.append(XorMatrix(network))
            first, index = 0, []
            for (name, _), part in zip(own, parts, strict=True):
                inverse = np.empty_like(layers[name].places)
                inverse[layers[name].places] = np.arange(len(inverse))
                index.append(first + inverse)
                first += len(part) * network.n_out
            self.register_buffer(f"index{len(self.members)}", torch.from_numpy(np.concatenate(index)), persistent=False)
            self.members.append(own)
        self._decoded: dict[str, Tensor] = {}
        self._state: tuple[object, ...] = ()

    def weight(self, name: str) -> Tensor:
        """The weights of a layer: the sum over the planes of alpha times signs."""
        state = (
            self.training,
            torch.is_grad_enabled(),
            self.slope,
            self.gradient,
            *((id(each), each._version, each.device) for each in (self.alpha, *self.slices)),
        )
        if name not in self._decoded or state != self._state:
            self._decoded, self._state = self._weights(), state
        return self._decoded.pop(name)

    def _weights(self) -> dict[str, Tensor]:
        signs = self._signs()
        alpha = torch.split(_on_grid(self.alpha), [shape[0] for shape in self.shapes.values()], dim=1)
        found = {}
        for (name, shape), own in zip(self.shapes.items(), alpha, strict=True):
            axes = (1,) * (len(shape) - 1)
            parts = [signs[name, plane] * own[plane].reshape(-1, *axes) for plane in range(self.planes)]
            found[name] = sum(parts[1:], parts[0])
        return found

    def _signs(self) -> dict[tuple[str, int], Tensor]:
        """By layer and plane, in the shape of the weights."""
        found = {}
        for at, (slices, matrix, own) in enumerate(zip(self.slices, self.matrices, self.members, strict=True)):
            outputs = matrix(slices, self.gradient, self.slope)
            index = self.get_buffer(f"index{at}")
            weights: Tensor = _Take.apply(outputs.reshape(-1), index)  # type: ignore[no-untyped-call]
            sizes = [math.prod(self.shapes[name]) for name, _ in own]
            for (name, plane), part in zip(own, torch.split(weights, sizes), strict=True):
                found[name, plane] = part.reshape(self.shapes[name])
        return found

    def finish(self) -> None:
        """Give signs from now on, in training as well: what is measured then is what inference has."""
        if self.gradient == "real":
            self.gradient = "tanh"

    def limit(self, most: float) -> None:
        """Keep the encrypted weights within +-`most`."""
        for slices in self.slices:
            slices.clamp_(-most, most)

    def bits(self, name: str) -> list[np.ndarray]:
        """The stored bits of a layer: for each plane its slices, uint8 (slices, n_in)."""
        found: list[np.ndarray] = [np.empty(0)] * self.planes
        for slices, own in zip(self.slices, self.members, strict=True):
            counts = [self.networks[each][plane].slices(math.prod(self.shapes[each])) for each, plane in own]
            for (each, plane), part in zip(own, torch.split(slices.detach(), counts), strict=True):
                if each == name:
                    found[plane] = (part >= 0).to(torch.uint8).cpu().numpy()
        return found

    def coefficients(self, name: str) -> np.ndarray:
        """What each plane is worth, float64 (planes, out), before it is rounded."""
        sizes = [shape[0] for shape in self.shapes.values()]
        own = torch.split(self.alpha.detach(), sizes, dim=1)[list(self.shapes).index(name)]
        return np.asarray(own.cpu().to(torch.float64).numpy())


def relative(alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (planes, out) over the greatest magnitude of their channel, and that (out,)."""
    greatest = np.abs(alpha).max(axis=0)
    return alpha / np.where(greatest > 0, greatest, 1), greatest


def _on_grid(alpha: Tensor) -> Tensor:
    """Coefficients (planes, out) as hardware holds them, going forward: `kernels.planes.fixed_coefficients`.

    Their step is 2**-14 of the greatest magnitude of the channel. A single plane needs no rounding: the scale of the
    channel is all of it.
    """
    if len(alpha) == 1:
        return alpha
    with torch.no_grad():
        greatest = alpha.abs().amax(dim=0)
        safe = torch.where(greatest > 0, greatest, 1)
        rounded = (alpha / safe * (1 << COEFFICIENT_FRACTION)).round() / (1 << COEFFICIENT_FRACTION) * safe
    return alpha + (rounded - alpha).detach()


def stages(channels: Sequence[int]) -> list[int]:
    """The stage of each layer, from 0: layers one after another with as many output channels are one."""
    found: list[int] = []
    for at, own in enumerate(channels):
        found.append(0 if not at else found[-1] + (own != channels[at - 1]))
    return found
