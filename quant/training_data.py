"""Images for training: whole sets of uint8 pixels on the device that trains, normalised and augmented there.

What is drawn (order, flips, crops) is drawn on the CPU from a generator of the epoch's own, so that all devices see the
same images and a resumed training goes on as if it had never stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.errors import FormatError
from ..sim.images import ImageSet
from .preprocess import InputSpec

__all__ = ["Augmentation", "TrainingImages", "epoch_generator"]


@dataclass(frozen=True)
class Augmentation:
    """Mirrored half of the time (`flip`); moved by up to `crop` pixels, what comes in from outside being black."""

    flip: bool = False
    crop: int = 0


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The randomness of one epoch."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Pixels, uint8 (N, C, H, W), labels, int64 (N,), and what makes inputs of pixels."""

    pixels: Tensor
    labels: Tensor
    spec: InputSpec

    @classmethod
    def of(cls, images: ImageSet, spec: InputSpec, device: torch.device | str = "cpu") -> "TrainingImages":
        """Take over an image set; `FormatError` unless it has pixels of the network's shape and labels."""
        if images.coded or images.labels is None:
            raise FormatError("training images must be uint8 pixels with labels")
        if images.images.shape[1:] != spec.shape:
            raise FormatError(f"training images must have shape {spec.shape}, not {images.images.shape[1:]}")
        if images.labels.min() < 0:
            raise FormatError(f"training labels must not be negative, found {images.labels.min()}")
        pixels = torch.from_numpy(np.ascontiguousarray(images.images))
        labels = torch.from_numpy(images.labels.astype(np.int64))
        return cls(pixels.to(device), labels.to(device), spec)

    def __len__(self) -> int:
        return len(self.pixels)

    def inputs(self, pixels: Tensor) -> Tensor:
        """Normalised float32 inputs."""
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device).reshape(-1, 1, 1)
            for values in (self.spec.mean, self.spec.std)
        )
        return (pixels.to(torch.float32) / self.spec.divide - mean) / std

    def split(self, share: float, seed: int) -> tuple["TrainingImages", "TrainingImages"]:
        """The images that train, and a `share` of them, drawn by `seed`, that is held out for choices."""
        held = round(share * len(self))
        if not 0 <= share < 1 or held == len(self):
            raise FormatError(f"held-out share must be from 0 to less than 1 and leave images to train on, not {share}")
        order = torch.randperm(len(self), generator=epoch_generator(seed, -1)).to(self.pixels.device)
        return self._part(order[held:].sort().values), self._part(order[:held].sort().values)

    def _part(self, chosen: Tensor) -> "TrainingImages":
        return TrainingImages(self.pixels[chosen], self.labels[chosen], self.spec)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels in order, as they are."""
        for first in range(0, len(self), size):
            yield self.inputs(self.pixels[first : first + size]), self.labels[first : first + size]

    def shuffled(
        self, size: int, generator: torch.Generator, augmentation: Augmentation
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels of one epoch, drawn by a CPU `generator`; a last batch of one image is left out."""
        device = self.pixels.device
        order = torch.randperm(len(self), generator=generator)
        flips = torch.rand(len(self), generator=generator) < 0.5
        moves = torch.randint(0, 2 * augmentation.crop + 1, (2, len(self)), generator=generator)
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            if len(order[part]) == 1 < len(self):
                continue
            index = order[part].to(device)
            pixels = self.pixels[index]
            if augmentation.flip:
                pixels = torch.where(flips[part].to(device).reshape(-1, 1, 1, 1), pixels.flip(3), pixels)
            if augmentation.crop:
                pixels = _moved(pixels, moves[:, part].to(device), augmentation.crop)
            yield self.inputs(pixels), self.labels[index]

    def steps(self, size: int) -> int:
        """Batches that `shuffled` gives."""
        whole, rest = divmod(len(self), size)
        return max(whole + (rest > 1), 1)


def _moved(pixels: Tensor, moves: Tensor, most: int) -> Tensor:
    """Each image (N, C, H, W) cut at its own (y, x) of `moves` (2, N) from one with a black border of `most` pixels."""
    height, width = pixels.shape[2:]
    padded = functional.pad(pixels, (most, most, most, most))
    images = torch.arange(len(pixels), device=pixels.device).reshape(-1, 1, 1)
    rows = (moves[0].reshape(-1, 1) + torch.arange(height, device=pixels.device)).reshape(len(pixels), height, 1)
    columns = (moves[1].reshape(-1, 1) + torch.arange(width, device=pixels.device)).reshape(len(pixels), 1, width)
    return padded.permute(0, 2, 3, 1)[images, rows, columns].permute(0, 3, 1, 2)
