"""Limiting an exact value to a width: the hardware of `gatewise.kernels.mac.limit`."""

from amaranth import Cat, Const, Mux, Value

from ..kernels.mac import Overflow

__all__ = ["limit"]


def limit(exact: Value, bits: int, overflow: Overflow) -> tuple[Value, Value]:
    """Bring a signed value into `bits` signed bits.

    Returns the limited signed value and one bit: whether the exact value did not fit.
    """
    if len(exact) <= bits:
        return exact.as_signed(), Const(0, 1)
    above = exact[bits - 1 :]
    lost = above.any() & ~above.all()
    if overflow == "wrap":
        return exact[:bits].as_signed(), lost
    sign = exact[-1]
    end = Cat((~sign).replicate(bits - 1), sign)
    return Mux(lost, end, exact[:bits]).as_signed(), lost
