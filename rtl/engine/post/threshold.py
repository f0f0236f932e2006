"""Threshold requantisation with a number of thresholds that is a register."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Signal
from amaranth.hdl import signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....sim.descriptor import CODE_BITS, RECORD_SLOTS
from ...tree import balanced_sum

__all__ = ["THRESHOLDS", "ThresholdStage"]

THRESHOLDS = sum(name.startswith("threshold_") for name in RECORD_SLOTS)


class ThresholdStage(wiring.Component):  # type: ignore[misc]
    """`base` and how many of the first `count` thresholds a value reaches, from below or, `descending`, from above.

    Latency 3 cycles (comparisons, sum, code), one value a cycle; `count` and `base` stand still. Where `valid` is
    low nothing is computed. The thresholds of a descending channel come complemented, as the record store
    holds them: ``v <= t`` is ``~v >= ~t``.
    """

    latency = 3

    def __init__(self, bits: int) -> None:
        value = signed(bits)
        super().__init__(
            {
                "valid": In(1),
                "value": In(value),
                # One port each: simulators copy an array for every element that is read.
                **{f"threshold_{index}": In(value) for index in range(THRESHOLDS)},
                "descending": In(1),
                "count": In(range(THRESHOLDS + 1)),
                "base": In(signed(CODE_BITS)),
                "code": Out(signed(CODE_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = Signal(2)
        m.d.sync += valid.eq((valid << 1) | self.valid)

        operand = Signal(self.value.shape())
        m.d.comb += operand.eq(self.value ^ self.descending.replicate(len(self.value)).as_signed())
        reached = Signal(THRESHOLDS, reset_less=True)
        with m.If(self.valid):
            m.d.sync += reached.eq(
                Cat(
                    (self.count > index) & (operand >= getattr(self, f"threshold_{index}"))
                    for index in range(THRESHOLDS)
                )
            )
        sum_of = Signal(range(THRESHOLDS + 1), reset_less=True)
        with m.If(valid[0]):
            m.d.sync += sum_of.eq(balanced_sum(list(reached)))
        code = Signal(signed(CODE_BITS), reset_less=True)
        with m.If(valid[1]):
            m.d.sync += code.eq(self.base + sum_of)
        m.d.comb += self.code.eq(code)
        return m
