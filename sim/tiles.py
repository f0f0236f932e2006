"""The weight tiles of a row group: what sits in the array for one step, in the order of the steps."""

from collections.abc import Iterator

import numpy as np

from .arrays import ArrayForm
from .lowered import RowGroup

__all__ = ["group_tiles", "step_tiles"]


def step_tiles(form: ArrayForm, group: RowGroup, pes: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """PE codes (rows, pes), depthwise (rows, 1), and amounts (pes,) where the layer is aligned, step by step."""
    codes, amounts = group_tiles(form, group, pes)
    for step, tile in enumerate(codes):
        yield tile, None if amounts is None else amounts[step]


def group_tiles(form: ArrayForm, group: RowGroup, pes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """PE codes (steps, rows, pes), depthwise (steps, rows, 1), and amounts (steps, pes) where the layer is aligned.

    The order is ky, kx, lane group, part. Lanes without a weight have code and amount 0.
    """
    layer, lanes = form.layer, pes * form.mode.lanes
    shape, align = layer.shape, layer.node.align
    codes = form.codes[:, group.first : group.first + group.rows]
    inputs = group.rows if shape.depthwise else shape.group_inputs
    start = group.first if shape.depthwise else group.group * shape.group_inputs
    parts, rows = codes.shape[:2]
    if not shape.depthwise:
        after = group.lane_groups * lanes - group.lane - inputs
        codes = np.pad(codes, ((0, 0), (0, 0), (group.lane, after), (0, 0), (0, 0)))
    # (part, row, lane group, lane, ky, kx) -> (ky, kx, lane group, part, row, lane)
    words = codes.reshape(parts, rows, group.lane_groups, -1, *shape.kernel)
    tiles = form.pe_codes(np.ascontiguousarray(words.transpose(4, 5, 2, 0, 1, 3)).reshape(-1, rows, words.shape[3]))
    if align is None:
        return tiles, None
    amounts = np.zeros(group.lane_groups * lanes, dtype=np.uint8)
    factors = layer.factors[start : start + inputs]
    amounts[group.lane : group.lane + inputs] = (
        factors if align == "mul" else [int(factor).bit_length() - 1 for factor in factors]
    )
    each = np.repeat(amounts.reshape(group.lane_groups, lanes), parts, axis=0)
    return tiles, np.tile(each, (shape.kernel[0] * shape.kernel[1], 1))
