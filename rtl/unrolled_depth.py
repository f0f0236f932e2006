"""Depth of unrolled circuits: when each bit of each net arrives, in gates.

A layer has millions of additions, of which few differ in their adder and in when their operands arrive. So arrivals are
numbered, equal ones alike, and each addition, and each plan as a whole, is followed once for the numbers it is given.
"""

from collections.abc import Mapping

import numpy as np

from ..kernels.unrolled import ZERO, Adder, Circuit, ConstantMultiplier, Net, Plan, Step
from .depth import NOT_REACHED, Paths

__all__ = ["CircuitDepths", "Parameters"]

Parameters = Adder | ConstantMultiplier

_Delays = dict[str, np.ndarray]
"""For each operand of a module the gates from its bits (columns) to the result's (rows)."""


class CircuitDepths:
    """Depths of circuits, of the paths through the modules that they are made of."""

    def __init__(self, paths: Mapping[Parameters, Paths]) -> None:
        self._delays = {parameters: _delays(parameters, own) for parameters, own in paths.items()}
        self._numbers: dict[tuple[int, ...], int] = {}
        self._arrivals: list[np.ndarray] = []
        """Of the bits of a net, by number."""
        self._inputs: dict[Net, int] = {}
        self._products: dict[ConstantMultiplier, int] = {}
        self._steps: dict[tuple[object, ...], int] = {}
        self._plans: dict[tuple[int, tuple[int, ...]], tuple[Plan, int]] = {}
        """By identity, since a plan has thousands of steps to compare; each is kept, so that no other takes its id."""

    def depth(self, circuit: Circuit) -> int:
        """Gates on the longest path."""
        inputs = len(circuit.nets) - len(circuit.multipliers) - sum(len(plan.steps) for plan, _, _ in circuit.plans)
        found = {inputs + at: self._product(multiplier) for at, (multiplier, _) in enumerate(circuit.multipliers)}

        def number(net: int) -> int:
            return found[net] if net in found else self._input(ZERO if net < 0 else circuit.nets[net])

        for plan, given, first in circuit.plans:
            result = plan.result.net - len(given)
            if result >= 0:
                found[first + result] = self._plan(plan, tuple(map(number, given)))
        return int(self._arrivals[number(circuit.result.net)].max())

    def _number(self, arrivals: np.ndarray) -> int:
        number = self._numbers.setdefault(tuple(arrivals.tolist()), len(self._arrivals))
        if number == len(self._arrivals):
            self._arrivals.append(arrivals)
        return number

    def _input(self, net: Net) -> int:
        """An input's bits, or a constant's, are there at once."""
        if net not in self._inputs:
            self._inputs[net] = self._number(np.zeros(net.bits, dtype=int))
        return self._inputs[net]

    def _product(self, multiplier: ConstantMultiplier) -> int:
        if multiplier not in self._products:
            at_once = {"a": np.zeros(multiplier.bits, dtype=int)}
            self._products[multiplier] = self._number(_through(self._delays[multiplier], at_once))
        return self._products[multiplier]

    def _plan(self, plan: Plan, given: tuple[int, ...]) -> int:
        """The plan's result, which is none of what it is given."""
        key = id(plan), given
        if key not in self._plans:
            nothing = self._input(ZERO)
            numbers = list(given)
            for step in plan.steps:
                a, b, carry = (nothing if net < 0 else numbers[net] for net in step[:3])
                addition = a, b, carry, step.lift, step.place, step.adder, step.swapped
                if addition not in self._steps:
                    self._steps[addition] = self._step(step, a, b, carry)
                numbers.append(self._steps[addition])
            self._plans[key] = plan, numbers[plan.result.net]
        return self._plans[key][1]

    def _step(self, step: Step, *numbers: int) -> int:
        a, b, carry = (self._arrivals[at] for at in numbers)
        low = np.concatenate([a, np.full(max(0, step.place - len(a)), a[-1])])[: step.place]
        if step.adder is None:
            upper = b
        else:
            shifted = a[step.place :] if step.place < len(a) else a[-1:]
            operands = [np.concatenate([np.zeros(step.lift, dtype=int), shifted]), b]
            if step.swapped:
                operands.reverse()
            upper = _through(self._delays[step.adder], {"a": operands[0], "b": operands[1], "carry": carry})
        return self._number(np.concatenate([low, upper]))


def _delays(parameters: Parameters, paths: Paths) -> _Delays:
    """The longest paths through an adder or multiplier."""
    if isinstance(parameters, Adder):
        widths = {"a": parameters.a_bits, "b": parameters.b_bits} | ({"carry": 1} if parameters.carry else {})
        bits = parameters.out_bits
    else:
        widths, bits = {"a": parameters.bits}, parameters.net.bits
    found = {name: np.full((bits, width), NOT_REACHED) for name, width in widths.items()}
    for bit in range(bits):
        for pin, gates in paths.through.get(f"out[{bit}]", {}).items():
            name, _, index = pin.rstrip("]").partition("[")
            found[name][bit, int(index)] = gates
    return found


def _through(delays: _Delays, arrivals: Mapping[str, np.ndarray]) -> np.ndarray:
    """When a module's result bits arrive."""
    latest = [(delays[name] + arrivals[name]).max(axis=1) for name in delays]
    return np.asarray(np.maximum.reduce([*latest, np.zeros_like(latest[0])]))
