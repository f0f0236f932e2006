"""Widths of single channels: those of a layer's weights and of an activation tensor, 0 to 8 bits each.

The source is ACIQ's bit allocation (Banner, Nahshan, Soudry, NeurIPS 2019, eq. 11). A weight of 0 bits is 0, an
activation of 0 bits is its tensor's zero point, which is 0 where channels have widths.
"""

from collections.abc import Mapping

import numpy as np

from ..kernels.errors import FormatError
from ..kernels.mac import signed_range
from ..kernels.requant import CONSTANT
from .graph import Value
from .manifest import (
    AveragePoolNode,
    ChannelPadNode,
    ConcatNode,
    Conv2dNode,
    FlattenNode,
    GlobalAveragePoolNode,
    LinearNode,
    Manifest,
    MaxPoolNode,
    StrideSliceNode,
)

__all__ = ["activation_widths", "check_codes", "check_widths", "fewer_bits"]


def check_widths(what: str, widths: np.ndarray, bits: int) -> np.ndarray:
    """Widths as int64; `FormatError` where one is greater than the layer's or tensor's bits."""
    if widths.max(initial=0) > bits:
        raise FormatError(f"{what} must be from 0 to {bits} bits, found {widths.max()}")
    return widths.astype(np.int64)


def check_codes(codes: np.ndarray, widths: np.ndarray) -> None:
    """Raise `FormatError` unless the signed codes (rows, ...) of each row fit its width."""
    flat = codes.reshape(len(codes), -1)
    for row, (own, width) in enumerate(zip(flat, widths.tolist(), strict=True)):
        low, high = signed_range(width) if width else (0, 0)
        if own.size and (own.min() < low or own.max() > high):
            raise FormatError(
                f"{width}-bit weight codes of output channel {row} must lie in {low}..{high}, "
                f"found {own.min()}..{own.max()}"
            )


def fewer_bits(widths: np.ndarray, bits: int) -> np.ndarray:
    """By how many bits each channel's codes are narrower than the tensor's (`kernels.requant.narrowed`), int64."""
    return np.where(widths == 0, CONSTANT, bits - widths.astype(np.int64))


def activation_widths(
    manifest: Manifest, values: Mapping[str, Value], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The widths (channels,), int64, of every tensor whose channels have different ones.

    Pools, views and concatenations hand them on; what an add or another grid makes of them has the tensor's bits.
    """
    found: dict[str, np.ndarray] = {}
    for node in manifest.nodes:
        own = [found.get(name) for name in node.inputs]
        bits = values[node.name].codes.bits
        match node:
            case Conv2dNode() | LinearNode() if node.out_widths:
                widths = arrays[f"{node.name}.out_widths"]
                found[node.name] = check_widths(f"{node.name}: widths of channels", widths, bits)
            case MaxPoolNode() | AveragePoolNode() | GlobalAveragePoolNode() | StrideSliceNode() if own[0] is not None:
                found[node.name] = own[0]
            case FlattenNode() if own[0] is not None:
                found[node.name] = np.repeat(own[0], values[node.name].shape[0] // len(own[0]))
            case ChannelPadNode() if own[0] is not None:
                found[node.name] = np.pad(own[0], (node.before, node.after))
            case ConcatNode() if any(widths is not None for widths in own):
                found[node.name] = np.concatenate(
                    [
                        np.full(values[name].shape[0], bits, dtype=np.int64) if widths is None else widths
                        for name, widths in zip(node.inputs, own, strict=True)
                    ]
                )
    return found
