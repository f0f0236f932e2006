"""A mapped netlist that runs: every gate evaluated in every cycle, and its changes counted.

What a gate-level simulator with zero delay counts. It is slow beside compiled RTL and knows one module at a time: it
says how far an estimate of a module's switching is from the switching of its gates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.errors import FormatError
from ..kernels.jit import jit
from .flows import TWO_INPUT, gate_netlist
from .yosys import run_flow

__all__ = ["Netlist", "NetlistRun"]

NOT = "NOT"
KINDS = (*TWO_INPUT, NOT)
"""Gates by their number in a netlist's table."""
ZERO, ONE = 0, 1
"""Nets of constants; what is undefined is 0."""


@jit
def _evaluate(gates, flip_flops, inputs, stimuli, values, outputs, found):  # type: ignore[no-untyped-def]
    """Run a netlist; returns the changes of every net, from the second cycle on.

    `gates` (gates, 4) are kind, both inputs and the output, in order; `stimuli` (cycles, inputs) and `found` (cycles,
    outputs) are bits, `values` (nets,) those of the nets before the first cycle.
    """
    changes = np.zeros(len(values), dtype=np.int64)
    held = np.zeros(len(flip_flops), dtype=np.uint8)
    before = values.copy()
    for cycle in range(len(stimuli)):
        for at in range(len(inputs)):
            values[inputs[at]] = stimuli[cycle, at]
        for at in range(len(gates)):
            kind, a, b, y = gates[at]
            left, right = values[a], values[b]
            if kind < 2:
                value = left & right
            elif kind < 4:
                value = left | right
            elif kind < 6:
                value = left ^ right
            else:
                value = left
            # NAND, NOR, XNOR and NOT.
            values[y] = value ^ (kind & 1 | kind >> 1 & kind >> 2)
        for at in range(len(outputs)):
            found[cycle, at] = values[outputs[at]]
        if cycle:
            for net in range(len(values)):
                changes[net] += values[net] != before[net]
        before[:] = values
        for at in range(len(flip_flops)):
            held[at] = values[flip_flops[at, 0]]
        for at in range(len(flip_flops)):
            values[flip_flops[at, 1]] = held[at]
    return changes


@dataclass(frozen=True)
class NetlistRun:
    """Outputs by name, uint8 (cycles, bits), and the changes of gates' outputs, of inverters' and of flip-flops'."""

    outputs: dict[str, np.ndarray]
    gate_changes: int
    inverter_changes: int
    flip_flop_changes: int
    cycles: int


@dataclass(frozen=True)
class Netlist:
    """A module as two-input gates, inverters and flip-flops of one clock."""

    found: Mapping[str, Any]

    @classmethod
    def of(
        cls, rtlil: str, top: str, cache: Path | None = None, notice: Callable[[str], None] | None = None
    ) -> "Netlist":
        """Map a design without memories, flattened; `cache` and `notice` are those of `run_flow`."""
        return cls(run_flow(gate_netlist(), rtlil, top, cache, notice))

    def __post_init__(self) -> None:
        found = self.found
        inputs = {net for way, bits in found["ports"].values() if way == "input" for net in bits}
        driven = {"0", "1", "x", *inputs, *(gate[3] for gate in found["gates"]), *(q for _, q in found["flip_flops"])}
        read = {net for gate in found["gates"] for net in gate[1:3]} | {d for d, _ in found["flip_flops"]}
        if not read <= driven:
            raise FormatError(f"a netlist must drive all nets that it reads, not so {len(read - driven)} of them")

    @cached_property
    def _nets(self) -> dict[Any, int]:
        """Places of the nets: both constants, then all others."""
        numbers: dict[Any, int] = {"0": ZERO, "x": ZERO, "1": ONE}
        count = 2
        for nets in (*(bits for _, bits in self.found["ports"].values()), *(gate[1:] for gate in self.found["gates"]),
                     *self.found["flip_flops"]):  # fmt: skip
            for net in nets:
                if net not in numbers:
                    numbers[net] = count
                    count += 1
        return numbers

    @cached_property
    def gates(self) -> np.ndarray:
        """Kind, inputs and output of every gate and inverter, each behind what it reads: int64 (gates, 4)."""
        numbers, waiting, order = self._nets, {}, []
        for kind, a, b, y in self.found["gates"]:
            waiting[numbers[y]] = KINDS.index(kind), numbers[a], numbers[b], numbers[y]
        for start in list(waiting):
            stack = [start]
            while stack:
                gate = waiting.get(stack[-1])
                if gate is None:
                    stack.pop()
                    continue
                before = [net for net in gate[1:3] if net in waiting]
                if before:
                    if len(stack) > len(self.found["gates"]):
                        raise AssertionError("a netlist must have no loop of gates")
                    stack += before
                else:
                    order.append(waiting.pop(stack.pop()))
        return np.array(order, dtype=np.int64).reshape(-1, 4)

    @property
    def two_input(self) -> int:
        """Gates of two inputs."""
        return int((self.gates[:, 0] < KINDS.index(NOT)).sum())

    @property
    def flip_flops(self) -> int:
        """Flip-flops."""
        return len(self.found["flip_flops"])

    def ports(self, direction: str) -> dict[str, int]:
        """Ports of a direction ("input", "output") and their bits, the clock apart."""
        found = {name: len(bits) for name, (way, bits) in self.found["ports"].items() if way == direction}
        return {name: bits for name, bits in found.items() if name != "clk"}

    def run(self, inputs: Mapping[str, np.ndarray]) -> NetlistRun:
        """Run from the initial state: bits (cycles, bits) of every input port, the clock apart, cycle by cycle."""
        wanted = self.ports("input")
        if set(inputs) != set(wanted):
            raise FormatError(f"inputs must be {', '.join(sorted(wanted))}, not {', '.join(sorted(inputs))}")
        numbers, ports = self._nets, self.found["ports"]
        for name, bits in wanted.items():
            if inputs[name].ndim != 2 or inputs[name].shape[1] != bits:
                raise FormatError(f"{name} must be bits of shape (cycles, {bits}), not {inputs[name].shape}")
        nets = np.array([numbers[net] for name in wanted for net in ports[name][1]], dtype=np.int64)
        stimuli = np.concatenate([inputs[name] for name in wanted], axis=1).astype(np.uint8)
        values = np.zeros(2 + len(numbers), dtype=np.uint8)
        values[ONE] = 1
        for net, bit in self.found["init"]:
            if net in numbers:
                values[numbers[net]] = bit
        names = self.ports("output")
        outputs = np.array([numbers[net] for name in names for net in ports[name][1]], dtype=np.int64)
        found = np.zeros((len(stimuli), len(outputs)), dtype=np.uint8)
        flip_flops = np.array([[numbers[d], numbers[q]] for d, q in self.found["flip_flops"]], dtype=np.int64)
        changes = _evaluate(self.gates, flip_flops.reshape(-1, 2), nets, stimuli, values, outputs, found)
        inverters = self.gates[:, 0] == KINDS.index(NOT)
        ends = np.cumsum(list(names.values()))
        return NetlistRun(
            {name: found[:, end - names[name] : end] for name, end in zip(names, ends, strict=True)},
            int(changes[self.gates[~inverters, 3]].sum()),
            int(changes[self.gates[inverters, 3]].sum()),
            int(changes[flip_flops.reshape(-1, 2)[:, 1]].sum()),
            len(stimuli),
        )
