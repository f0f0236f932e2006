"""Operations that cost no arithmetic: the engine does them by addressing alone.

Channel pad and stride slice are the parameter-free shortcut of ResNet's option A (He et al.
2016, section 4.2); the unfolding in x packs a layer of few channels into more lanes.
"""

import numpy as np

__all__ = ["channel_pad", "stride_slice", "unfold_x", "unfold_x_weights"]


def channel_pad(x: np.ndarray, before: int, after: int, code: int) -> np.ndarray:
    """Add `before` and `after` channels that hold `code` (the zero point) to (N, C, H, W) codes."""
    return np.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)), constant_values=code)


def stride_slice(x: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """Every stride-th row and column of (N, C, H, W) codes, from the first."""
    return np.ascontiguousarray(x[:, :, :: stride[0], :: stride[1]])


def unfold_x(x: np.ndarray, kernel: int, stride: int, dilation: int, padding: tuple[int, int], code: int) -> np.ndarray:
    """Unfold a convolution's kernel columns into channels: (N, C, H, W) -> (N, kernel * C, H, W_out).

    Channel ``kx * C + c`` of the result holds channel c under kernel column kx; `padding` is
    (left, right), filled with `code`.
    """
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), padding), constant_values=code)
    width = (x.shape[3] - dilation * (kernel - 1) - 1) // stride + 1
    columns = [x[:, :, :, kx * dilation :: stride][:, :, :, :width] for kx in range(kernel)]
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


def unfold_x_weights(weights: np.ndarray) -> np.ndarray:
    """The weights that go with `unfold_x`: (O, C, kh, kw) -> (O, kw * C, kh, 1)."""
    out, channels, height, width = weights.shape
    return np.ascontiguousarray(weights.transpose(0, 3, 1, 2).reshape(out, width * channels, height, 1))
