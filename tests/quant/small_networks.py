"""Small networks for tests, batch norms that do something, and images to learn from."""

import numpy as np
import torch
from gatewise.sim.images import ImageSet
from torch import Tensor, nn


class Residual(nn.Module):
    """A small net with a strided option-A shortcut, projections, max pool and a clamp at 6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.left = nn.Conv2d(8, 12, 3, 2, 1)
        self.right = nn.Conv2d(12, 12, 3, 1, 1, groups=4)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.right(nn.functional.relu6(self.left(x)))
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.fc(self.pool(torch.relu(y + shortcut)).mean((2, 3)))


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics that matter, and return the module in eval mode."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module.eval()


def blob_images(count: int) -> ImageSet:
    """Images (count, 2, 8, 8) of three classes: where the bright part of noise is."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    pixels = rng.integers(0, 120, (count, 2, 8, 8))
    for image, label in zip(pixels, labels, strict=True):
        image[label % 2, 2 + 2 * (label // 2) : 5 + 2 * (label // 2), 1:7] += 100
    return ImageSet(pixels.astype(np.uint8), labels)
