"""Operations that cost no arithmetic: the engine does them by addressing alone.

Channel pad and stride slice are the parameter-free shortcut of ResNet's option A (He et al.
2016, section 4.2); the unfolding in x packs a layer of few channels into more lanes. The orders of
weights say which weight is the n-th of a stream that cannot be re-tiled.
"""

import numpy as np

__all__ = [
    "channel_pad",
    "from_order",
    "natural_order",
    "stride_slice",
    "tile_order",
    "unfold_x",
    "unfold_x_weights",
]


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


def natural_order(shape: tuple[int, int, int, int]) -> np.ndarray:
    """Places in flat (out, in per group, ky, kx) weights, int64 (count,), in the order (out, ky, kx, in)."""
    return np.ascontiguousarray(np.arange(np.prod(shape)).reshape(shape).transpose(0, 2, 3, 1)).reshape(-1)


def tile_order(shape: tuple[int, int, int, int], groups: int, rows: int, lanes: int) -> np.ndarray:
    """The same places in the order in which an array of `rows` x `lanes` takes them: a permutation, int64 (count,).

    From the slowest: convolution group, row group, ky, kx, lane group, row, lane; rows and lanes that a tile
    does not use are left out. Input channel 0 is in lane 0 of a word, and groups follow each other through the words.
    Depthwise layers use the diagonal of the array: row groups of min(rows, lanes) channels, then ky, kx, channel.
    """
    out, inputs = shape[:2]
    places = np.arange(np.prod(shape)).reshape(shape)
    if inputs == 1 and out == groups:
        return _tiles(places, min(rows, lanes), 1, 0)
    each = out // groups
    first = [group * inputs % lanes for group in range(groups)]
    return np.concatenate([_tiles(places[g * each : (g + 1) * each], rows, lanes, first[g]) for g in range(groups)])


def _tiles(places: np.ndarray, rows: int, lanes: int, first_lane: int) -> np.ndarray:
    out, inputs, ky, kx = places.shape
    after = -(first_lane + inputs) % lanes
    padded = np.pad(places, ((0, -out % rows), (first_lane, after), (0, 0), (0, 0)), constant_values=-1)
    tiled = padded.reshape(-1, rows, (first_lane + inputs + after) // lanes, lanes, ky, kx)
    flat = tiled.transpose(0, 4, 5, 2, 1, 3).reshape(-1)
    return flat[flat >= 0]


def from_order(stream: np.ndarray, order: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo ``stream = weights.reshape(-1)[order]``: the weights, of `shape`, of the stream's dtype."""
    weights = np.empty(len(order), dtype=stream.dtype)
    weights[order] = stream
    return weights.reshape(shape)
