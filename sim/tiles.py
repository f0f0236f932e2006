"""The weight tiles of a row group: what sits in the array for one step, in the order of the steps."""

from collections.abc import Iterator

import numpy as np

from .arrays import ArrayForm
from .lowered import RowGroup

__all__ = ["step_tiles"]


def step_tiles(form: ArrayForm, group: RowGroup, pes: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """PE codes (rows, pes), depthwise (rows, 1), and amounts (pes,) where the layer is aligned.

    The order is ky, kx, lane group, part. Lanes without a weight have code and amount 0.
    """
    layer, lanes = form.layer, pes * form.mode.lanes
    shape, align = layer.shape, layer.node.align
    codes = form.codes[:, group.first : group.first + group.rows]
    inputs = group.rows if shape.depthwise else shape.group_inputs
    start = group.first if shape.depthwise else group.group * shape.group_inputs
    amounts = np.zeros(group.lane_groups * lanes, dtype=np.uint8)
    if align is not None:
        factors = layer.factors[start : start + inputs]
        amounts[group.lane : group.lane + inputs] = (
            factors if align == "mul" else [int(factor).bit_length() - 1 for factor in factors]
        )
    if not shape.depthwise:
        after = group.lane_groups * lanes - group.lane - inputs
        codes = np.pad(codes, ((0, 0), (0, 0), (group.lane, after), (0, 0), (0, 0)))
    for ky in range(shape.kernel[0]):
        for kx in range(shape.kernel[1]):
            for at in range(0, group.lane_groups * lanes, lanes):
                for part in codes:
                    tile = part[:, :, ky, kx] if shape.depthwise else part[:, at : at + lanes, ky, kx]
                    yield form.pe_codes(tile), None if align is None else amounts[at : at + lanes]
