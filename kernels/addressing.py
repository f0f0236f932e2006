"""Operations that cost no arithmetic: the engine does them by addressing alone.

Channel pad and stride slice are the parameter-free shortcut of ResNet's option A (He et al.
2016, section 4.2); the unfolding in x packs a layer of few channels into more lanes. The orders of
weights say which weight is the n-th of a stream that cannot be re-tiled.
"""

from typing import NamedTuple

import numpy as np

from .errors import FormatError

__all__ = [
    "TileOrder",
    "channel_pad",
    "stream_weights",
    "stride_slice",
    "tile_order",
    "unfold_x",
    "unfold_x_weights",
    "weight_stream",
]


def channel_pad(x: np.ndarray, before: int, after: int, code: int) -> np.ndarray:
    """Add `before` and `after` channels that hold `code` (the zero point) to (N, C, H, W) codes.

    The result has its channels last in memory.
    """
    images, channels, height, width = x.shape
    padded = np.full((images, height, width, before + channels + after), code, dtype=x.dtype)
    padded[..., before : before + channels] = x.transpose(0, 2, 3, 1)
    return padded.transpose(0, 3, 1, 2)


def stride_slice(x: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """Every stride-th row and column of (N, C, H, W) codes, from the first; channels are last in memory."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]).transpose(0, 3, 1, 2)


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


class TileOrder(NamedTuple):
    """How an array takes the weights of a layer: `rows` x `lanes` at a time.

    `size` is the (height, width) of the map that was flattened before a linear layer, which an array takes as a
    convolution over that map; `unfolded` says that the host unfolds the layer's input in x.
    """

    rows: int
    lanes: int
    size: tuple[int, int] = (1, 1)
    unfolded: bool = False


def tile_order(
    shape: tuple[int, int, int, int],
    groups: int,
    rows: int,
    lanes: int,
    size: tuple[int, int] = (1, 1),
    unfolded: bool = False,
) -> np.ndarray:
    """Places in flat (out, in per group, ky, kx) weights in the order in which an array of `rows` x `lanes` takes them.

    A permutation, int64 (count,). From the slowest: convolution group, row group, ky, kx, lane group, row, lane; rows
    and lanes that a tile does not use are left out. Input channel 0 is in lane 0 of a word, and groups follow each
    other through the words. Depthwise layers use the diagonal of the array: row groups of min(rows, lanes)
    channels, then ky, kx, channel. `size` and `unfolded` are those of `TileOrder`.
    """
    if min(rows, lanes) < 1:
        raise FormatError(f"a tile must have rows and lanes, not {rows} x {lanes}")
    out, inputs, ky, kx = shape
    if size != (1, 1):
        pixels = size[0] * size[1]
        if (groups, ky, kx) != (1, 1, 1) or inputs % pixels or unfolded:
            raise FormatError(f"weights over a map of {size} must be those of its features, not of shape {shape}")
        # Features are numbered channel by channel, as the taps of a kernel are: the places are the same.
        return tile_order((out, inputs // pixels, *size), 1, rows, lanes)
    if unfolded:
        if groups != 1:
            raise FormatError(f"weights unfolded in x must be of 1 group, not {groups}")
        places = unfold_x_weights(np.arange(out * inputs * ky * kx).reshape(shape))
        return np.asarray(places.reshape(-1)[tile_order((out, kx * inputs, ky, 1), 1, rows, lanes)])
    output, channel, y, x = np.ogrid[:out, :inputs, :ky, :kx]
    if inputs == 1 and out == groups:
        rows = min(rows, lanes)
        row_group, row = output // rows, output % rows
        word = lane = np.zeros_like(channel)
    else:
        each = out // groups
        group, within = output // each, output % each
        row_group, row = group * -(-each // rows) + within // rows, within % rows
        word, lane = np.divmod(group * inputs + channel, lanes)
    words = np.max(word) + 1
    return np.argsort(
        (((((row_group * ky + y) * kx + x) * words + word) * rows + row) * lanes + lane).reshape(-1), kind="stable"
    )


def weight_stream(weights: np.ndarray, groups: int = 1, tile: TileOrder | tuple[int, int] | None = None) -> np.ndarray:
    """Weights (out, in per group, ky, kx) in stream order, flat.

    That is (out, ky, kx, in), or, with a tile of (rows, lanes) or a `TileOrder`, `tile_order`.
    """
    if tile is None:
        return np.ascontiguousarray(weights.transpose(0, 2, 3, 1)).reshape(-1)
    out, inputs, ky, kx = weights.shape
    return np.asarray(weights.reshape(-1)[tile_order((out, inputs, ky, kx), groups, *tile)])


def stream_weights(
    stream: np.ndarray,
    shape: tuple[int, int, int, int],
    groups: int = 1,
    tile: TileOrder | tuple[int, int] | None = None,
) -> np.ndarray:
    """Undo `weight_stream`: the weights, of `shape`."""
    if tile is None:
        out, inputs, ky, kx = shape
        return np.ascontiguousarray(stream.reshape(out, ky, kx, inputs).transpose(0, 3, 1, 2))
    weights = np.empty(shape, dtype=stream.dtype)
    weights.reshape(-1)[tile_order(shape, groups, *tile)] = stream
    return weights
