"""Registered adder trees and delay lines: how values of one step stay together in the array."""

from collections.abc import Sequence

from amaranth import Module, Signal, Value

from ..tree import balanced_sum

__all__ = ["delayed", "pipelined_sum", "tree_stages"]

STAGE_FAN_IN = 4
"""Terms that one stage sums: two levels of adders between registers."""


def tree_stages(lanes: int) -> int:
    """Register stages of `pipelined_sum` over `lanes` terms, a power of two: ``ceil(log2(lanes) / 2)``."""
    return lanes.bit_length() // 2


def pipelined_sum(m: Module, terms: Sequence[Value], name: str) -> Value:
    """Exact sum, registered after every two levels: latency `tree_stages`, one sum a cycle."""
    stage = 0
    while len(terms) > 1:
        sums = [balanced_sum(terms[at : at + STAGE_FAN_IN]) for at in range(0, len(terms), STAGE_FAN_IN)]
        terms = [Signal(value.shape(), name=f"{name}_{stage}_{at}", reset_less=True) for at, value in enumerate(sums)]
        m.d.sync += [register.eq(value) for register, value in zip(terms, sums, strict=True)]
        stage += 1
    return terms[0]


def delayed(m: Module, value: Value, cycles: int, name: str, reset_less: bool = True) -> Value:
    """`value` as it was so many cycles ago."""
    for stage in range(cycles):
        register = Signal(value.shape(), name=f"{name}_{stage}", reset_less=reset_less)
        m.d.sync += register.eq(value)
        value = register
    return value
