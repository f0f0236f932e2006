"""Limiting an exact value to a width: the hardware of `gatewise.kernels.mac.limit`."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from ..kernels.mac import Overflow

__all__ = ["limit", "limit_to", "limit_within", "settled", "width_layout", "width_of"]


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
    end = Cat(Mux(sign, 0, Const(-1, bits - 1)), sign)
    return Mux(lost, end, exact[:bits]).as_signed(), lost


def limit_to(m: Module, exact: Value, bits: Value, wrap: Value | int = 0) -> tuple[Value, Value]:
    """`limit` to a width that is a signal, 1 up to the value's own; saturates, or wraps where `wrap` is 1.

    Returns the limited value, sign-extended to the exact one's width, and whether the exact one did not fit.
    """
    exact = settled(m, exact)
    # The sign's place and all above it.
    above = settled(m, (Const(-1, len(exact)) << (bits - 1)[: len(bits)])[: len(exact)])
    return _limit_above(m, exact, above, wrap)


def width_layout(bits: int) -> data.StructLayout:
    """A width of 1 up to `bits` bits as hardware wants it: the sign's place and all above; whether it wraps."""
    return data.StructLayout({"above": bits, "wrap": 1})


def width_of(m: Module, bits: Value, wrap: Value, most: int) -> data.View:
    """The `width_layout` of a number of bits, of at most `most`."""
    width = Signal(width_layout(most))
    m.d.comb += [width.above.eq(Const(-1, most) << (bits - 1)[: len(bits)]), width.wrap.eq(wrap)]
    return width


def limit_within(
    m: Module, exact: Value, bits: int, overflow: Overflow, width: data.View | None, is_unsigned: Value | int = 0
) -> tuple[Value, Value]:
    """`limit` to the `bits` of this build or, where one is given, to a `width` that has at most so many.

    With a width, a value that is `is_unsigned` (and never negative) has no sign's place: it may reach twice as far.
    """
    if width is None:
        return limit(m, exact, bits, overflow)
    exact = settled(m, exact)
    above = width.above[: len(exact)] if len(exact) <= bits else Cat(width.above, Const(-1, len(exact) - bits))
    above = settled(m, Mux(is_unsigned, above << 1, above)[: len(exact)])
    value, lost = _limit_above(m, exact, above, width.wrap, is_unsigned)
    return value[:bits].as_signed(), lost


def _limit_above(
    m: Module, exact: Value, above: Value, wrap: Value | int, is_unsigned: Value | int = 0
) -> tuple[Value, Value]:
    """Limit to the places that `above` has not: its lowest is the sign's, or the first that an unsigned value lacks."""
    sign = exact[-1]
    lost = settled(m, (Mux(sign, ~exact, exact).as_unsigned() & above).any())
    end = Mux(sign, above, ~above)
    top = (exact & above & ~(above << 1)[: len(exact)]).any() & ~Value.cast(is_unsigned)[0]
    wrapped = Mux(top, exact | above, exact & ~above)
    return Mux(lost, Mux(wrap, wrapped, end), exact)[: len(exact)].as_signed(), lost
