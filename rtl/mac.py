"""Limiting an exact value to a width: the hardware of `gatewise.kernels.mac.limit`."""

from amaranth import Cat, Const, Module, Mux, Signal, Value

from ..kernels.mac import Overflow

__all__ = ["limit", "limit_to", "settled"]


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


def limit_to(m: Module, exact: Value, bits: Value, wrap: Value | int = 0) -> tuple[Value, Value]:
    """`limit` to a width that is a signal, 1 up to the value's own; saturates, or wraps where `wrap` is 1.

    Returns the limited value, sign-extended to the exact one's width, and whether the exact one did not fit.
    """
    exact = settled(m, exact)
    # The sign's place and all above it.
    above = settled(m, (Const(-1, len(exact)) << (bits - 1)[: len(bits)])[: len(exact)])
    sign = exact[-1]
    lost = settled(m, ((exact ^ sign.replicate(len(exact))) & above).any())
    end = Mux(sign, above, ~above)
    top = (exact & above & ~(above << 1)[: len(exact)]).any()
    wrapped = Mux(top, exact | above, exact & ~above)
    return Mux(lost, Mux(wrap, wrapped, end), exact)[: len(exact)].as_signed(), lost
