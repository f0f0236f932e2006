"""What the rows of each array have in common."""

from ...kernels.shift import ShiftRow
from ...kernels.sign import SignRow
from ...sim.engine import EngineConfig

__all__ = ["row_bits"]


def row_bits(config: EngineConfig) -> int:
    """Bits of a row's exact sum."""
    if config.array == "shift":
        return ShiftRow(config.lanes).out_bits
    if config.array == "sign":
        return SignRow(config.lanes).out_bits
    return config.mac.row_bits(config.lanes)
