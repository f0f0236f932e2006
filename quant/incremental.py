"""Weights that are quantised in portions, the greatest first, while the others train on and make up for it.

Source: Zhou, Yao, Guo, Xu, Chen, "Incremental network quantization" (ICLR 2017), section 2.2: of its two strategies
the pruning-inspired one. Weights that are quantised stay as they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..kernels.errors import FormatError

__all__ = ["Portions", "portion_at"]


def portion_at(portions: Sequence[float], epoch: int, epochs: int) -> float:
    """The share that is quantised from the start of `epoch` on: all have the same number of epochs, the first the
    rest.

    >>> [portion_at((0.5, 0.75, 0.875, 1.0), epoch, 5) for epoch in range(5)]
    [0.5, 0.5, 0.75, 0.875, 1.0]
    """
    if not portions or sorted(portions) != list(portions) or not 0 <= portions[0] or portions[-1] != 1:
        raise FormatError(f"portions must rise from 0 or more to 1, not {tuple(portions)}")
    each = max(epochs // len(portions), 1)
    return portions[max(0, len(portions) - 1 - (epochs - 1 - epoch) // each)]


class Portions(nn.Module):
    """Which of a layer's weights are quantised by now, and to what."""

    held: Tensor
    values: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("held", torch.zeros_like(weight, dtype=torch.bool))
        self.register_buffer("values", torch.zeros_like(weight))

    def extend(self, weight: Tensor, quantised: Tensor, share: float) -> None:
        """Quantise the greatest of the others until a `share` of all is."""
        wanted = round(share * weight.numel()) - int(self.held.sum())
        if wanted <= 0:
            return
        sizes = torch.where(self.held, torch.full_like(weight, -1.0), weight.abs()).flatten()
        chosen = torch.zeros_like(self.held).flatten()
        chosen[sizes.argsort(descending=True, stable=True)[:wanted]] = True
        chosen = chosen.reshape(weight.shape)
        self.values.copy_(torch.where(chosen, quantised, self.values))
        self.held |= chosen

    def hold(self, weight: Tensor) -> None:
        """Undo in place what a step did to the quantised weights."""
        weight.copy_(torch.where(self.held, self.values, weight))
