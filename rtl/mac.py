"""Limiting an exact value to a width: the hardware of `gatewise.kernels.mac.limit`."""

from amaranth import Cat, Const, Module, Mux, Signal, Value

from ..kernels.mac import Overflow

__all__ = ["limit", "settled"]


def settled(m: Module, value: Value) -> Value:
    """A combinational signal that holds `value`.

    Amaranth writes an expression out anew wherever it is used; a signal is written once.
    """
    held = Signal(value.shape())
    m.d.comb += held.eq(value)
    return held


def limit(m: Module, exact: Value, bits: int, overflow: Overflow) -> tuple[Value, Value]:
    """Bring a signed value into `bits` signed bits.

    Returns the limited signed value and one bit: whether the exact value did not fit.
    """
    if len(exact) <= bits:
        return exact.as_signed(), Const(0, 1)
    exact = settled(m, exact)
    above = exact[bits - 1 :]
    lost = settled(m, above.any() & ~above.all())
    if overflow == "wrap":
        return exact[:bits].as_signed(), lost
    sign = exact[-1]
    end = Cat((~sign).replicate(bits - 1), sign)
    return Mux(lost, end, exact[:bits]).as_signed(), lost
