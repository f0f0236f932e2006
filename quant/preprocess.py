"""What the host does to an image before the network sees it."""

from dataclasses import dataclass

import numpy as np

from ..kernels.errors import FormatError

__all__ = ["InputSpec"]


@dataclass(frozen=True)
class InputSpec:
    """Shape (C, H, W) of the images and their normalisation ``(pixel / divide - mean) / std``.

    `mean` and `std` have one entry for each channel or one for all. A user's module states its own
    as the attribute ``gatewise_input``.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    divide: float = 255.0

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise FormatError(f"input shape must be (channels, height, width), all positive, not {self.shape}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.shape[0]):
                raise FormatError(f"input {name} must have 1 or {self.shape[0]} entries, not {len(values)}")
        if not np.isfinite((*self.mean, *self.std, self.divide)).all():
            raise FormatError(f"input mean, std and divide must be finite, not {self.mean}, {self.std}, {self.divide}")
        if min(self.std) <= 0 or self.divide <= 0:
            raise FormatError(f"input std and divide must be positive, not {self.std} and {self.divide}")

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W), usually uint8, to the network's float64 input.

        Raises `FormatError` where the images have another shape.
        """
        if images.shape[1:] != self.shape:
            raise FormatError(f"images must have shape (N, {', '.join(map(str, self.shape))}), not {images.shape}")
        mean, std = (np.asarray(values, dtype=np.float64).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return np.asarray((images / self.divide - mean) / std)

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest input value that a uint8 image can give."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return float(np.min((0.0 - mean) / std)), float(np.max((255.0 / self.divide - mean) / std))
