"""Max and average pooling of integer codes. Padding is never a value: only real pixels count.

An average is the exact integer sum over the real pixels of a window divided by their count,
rounded half away from zero. Results have their channels last in memory.
"""

from dataclasses import dataclass

import numpy as np

from .errors import FormatError
from .jit import jit

__all__ = ["PoolShape", "average_pool", "global_average_pool", "max_pool"]


@dataclass(frozen=True, slots=True)
class PoolShape:
    """Window (height, width), stride (y, x) and padding (top, left, bottom, right) of a pooling."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.padding) < 0:
            raise FormatError(f"pool kernel and stride must be positive and padding not negative, not {self}")
        if max(self.padding[::2]) >= self.kernel[0] or max(self.padding[1::2]) >= self.kernel[1]:
            raise FormatError(
                f"pool padding must be smaller than the window {self.kernel}, so that no window is empty, "
                f"not {self.padding}"
            )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output."""
        top, left, bottom, right = self.padding
        rows = (height + top + bottom - self.kernel[0]) // self.stride[0] + 1
        columns = (width + left + right - self.kernel[1]) // self.stride[1] + 1
        if rows < 1 or columns < 1:
            raise FormatError(f"pool window {self.kernel} must fit the padded {height} x {width} input")
        return rows, columns


@jit
def _pool(x, kernel, stride, padding, average, out):  # type: ignore[no-untyped-def]
    """Pool codes (N, H, W, C): channels are the inner loop, so that it becomes vectors."""
    images, height, width, channels = x.shape
    totals = np.empty(channels, dtype=np.int64)
    for n in range(images):
        for oy in range(out.shape[1]):
            top = oy * stride[0] - padding[0]
            y0, y1 = max(top, 0), min(top + kernel[0], height)
            for ox in range(out.shape[2]):
                left = ox * stride[1] - padding[1]
                x0, x1 = max(left, 0), min(left + kernel[1], width)
                made = out[n, oy, ox]
                if average:
                    totals[:] = 0
                    for iy in range(y0, y1):
                        for ix in range(x0, x1):
                            values = x[n, iy, ix]
                            for c in range(channels):
                                totals[c] += values[c]
                    count = (y1 - y0) * (x1 - x0)
                    for c in range(channels):
                        magnitude = (2 * abs(totals[c]) + count) // (2 * count)
                        made[c] = magnitude if totals[c] >= 0 else -magnitude
                else:
                    # One by one: an assignment is compiled for other shapes too, and that takes seconds.
                    values = x[n, y0, x0]
                    for c in range(channels):
                        made[c] = values[c]
                    for iy in range(y0, y1):
                        for ix in range(x0, x1):
                            values = x[n, iy, ix]
                            for c in range(channels):
                                made[c] = max(made[c], values[c])


def _run(x: np.ndarray, shape: PoolShape, average: bool) -> np.ndarray:
    pixels = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    images, height, width, channels = pixels.shape
    out = np.empty((images, *shape.output_size(height, width), channels), dtype=x.dtype)
    _pool(pixels, shape.kernel, shape.stride, shape.padding, average, out)
    return out.transpose(0, 3, 1, 2)


def max_pool(x: np.ndarray, shape: PoolShape) -> np.ndarray:
    """Greatest code of each window; `x` is (N, C, H, W) of any integer dtype."""
    return _run(x, shape, average=False)


def average_pool(x: np.ndarray, shape: PoolShape) -> np.ndarray:
    """Rounded mean code of each window's real pixels; `x` is (N, C, H, W) of any integer dtype."""
    return _run(x, shape, average=True)


def global_average_pool(x: np.ndarray) -> np.ndarray:
    """Rounded mean code of each channel: (N, C, H, W) -> (N, C, 1, 1)."""
    height, width = x.shape[2:]
    return average_pool(x, PoolShape((height, width), (height, width)))
