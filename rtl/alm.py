"""Packs mapped ALUTs, carry bits and registers into ALMs: a lower and an upper bound.

Documented facts (Intel's Stratix 10 and Cyclone V ALM descriptions): an ALM has eight inputs, two
ALUTs, two full adders and four registers. It holds one function of six inputs; two of at most
four; one of five and one of at most three; 5 + 4 that share an input; 5 + 5 that share two; and
6 + 6 only with four shared inputs and the same function.

Both bounds are about logic alone: control sets, placement and routing of a real fitter are beyond
them. Modules are tallied one by one and their tallies added.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations
from typing import Any, NamedTuple

__all__ = ["AlmBounds", "AlmTally", "pack", "tally"]

REGISTERS_PER_ALM = 4
REGISTERS_PER_ALUT = 2
SHARED_BY_SIXES = 4

Cell = dict[str, Any]


class AlmBounds(NamedTuple):
    """Least and greatest number of ALMs."""

    low: int
    high: int


class AlmTally(NamedTuple):
    """What packing needs to know of a netlist; the tallies of several modules add up."""

    sixes: int = 0
    partnered_sixes: int = 0
    """Of the `sixes`, those that share four inputs with another one of their module."""
    fives: int = 0
    fours: int = 0
    threes: int = 0
    """Of three inputs and two."""
    inverters: int = 0
    carry_bits: int = 0
    chain_alms: int = 0
    """Of carry chains that keep to themselves."""
    registers: int = 0
    loose_registers: int = 0
    """Registers without a place behind the ALUT that feeds them."""

    def times(self, count: int) -> "AlmTally":
        """Of so many equal modules."""
        return AlmTally(*(count * value for value in self))

    def plus(self, other: "AlmTally") -> "AlmTally":
        """Of both."""
        return AlmTally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def bounds(self) -> AlmBounds:
        """Least and greatest number of ALMs.

        - Low: every ALUT and carry bit finds a partner, inverters vanish into their readers, and
          registers fill the ALMs that are there. A six-input ALUT finds one only among those of its module
          with which it shares four inputs.
        - High: no two ALUTs share an input, so only 4 + 4 and 5 + 3 pair; carry chains keep to
          themselves and start in an ALM of their own, a bit later where their carry-in is not zero;
          registers that no ALUT of their module feeds, beyond two for each that does, stand in ALMs of their own.
        """
        pairable = self.fives + self.fours + self.threes + self.carry_bits
        logic_low = self.sixes - self.partnered_sixes + _half(self.partnered_sixes) + _half(pairable)
        low = max(logic_low, -(-self.registers // REGISTERS_PER_ALM))
        small = self.threes + self.inverters
        beside_fives = min(self.fives, small)
        logic_high = self.sixes + self.fives + _half(self.fours + small - beside_fives)
        return AlmBounds(low, logic_high + self.chain_alms + -(-self.loose_registers // REGISTERS_PER_ALM))


def tally(cells: Iterable[Cell]) -> AlmTally:
    """Tally a netlist of MISTRAL cells, as Yosys's JSON gives them."""
    kinds: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        kinds[cell["type"]].append(cell)
    sizes = {size: kinds[f"MISTRAL_ALUT{size}"] for size in range(2, 7)}
    inverters, adders, registers = (kinds[f"MISTRAL_{name}"] for name in ("NOT", "ALUT_ARITH", "FF"))
    logic = [cell for size in sizes.values() for cell in size] + adders + inverters
    return AlmTally(
        sixes=len(sizes[6]),
        partnered_sixes=_sharing_sixes([_inputs(cell) for cell in sizes[6]]),
        fives=len(sizes[5]),
        fours=len(sizes[4]),
        threes=len(sizes[3]) + len(sizes[2]),
        inverters=len(inverters),
        carry_bits=len(adders),
        chain_alms=sum(_half(length) for length in _chains(adders)),
        registers=len(registers),
        loose_registers=_loose_registers(registers, logic),
    )


def pack(cells: Iterable[Cell]) -> AlmBounds:
    """Bounds for one netlist: see `AlmTally.bounds`."""
    return tally(cells).bounds


def _half(count: int) -> int:
    return -(-count // 2)


def _inputs(cell: Cell) -> frozenset[int]:
    """The nets that feed a cell; constants, which the netlist writes as text, need no input."""
    nets = (bit for port, bits in cell["connections"].items() if port not in ("Q", "SO", "CO") for bit in bits)
    return frozenset(bit for bit in nets if isinstance(bit, int))


def _sharing_sixes(inputs: list[frozenset[int]]) -> int:
    """How many of the six-input ALUTs share four inputs with at least one other."""
    fours = [list(combinations(sorted(nets), SHARED_BY_SIXES)) for nets in inputs]
    users = Counter(four for own in fours for four in own)
    return sum(any(users[four] > 1 for four in own) for own in fours)


def _chains(adders: list[Cell]) -> list[int]:
    """Half ALMs of every carry chain."""
    by_carry_in = {cell["connections"]["CI"][0]: cell for cell in adders}
    carries = {bit for cell in adders for bit in cell["connections"].get("CO", [])}
    lengths: list[int] = []
    for cell in adders:
        carry_in = cell["connections"]["CI"][0]
        if carry_in in carries:
            continue
        length = 0 if carry_in == "0" else 1
        follower: Cell | None = cell
        while follower is not None:
            length += 1
            carry_out = follower["connections"].get("CO", [])
            follower = by_carry_in.get(carry_out[0]) if carry_out else None
        lengths.append(length)
    return lengths


def _loose_registers(registers: list[Cell], logic: list[Cell]) -> int:
    """Registers without a place behind the ALUT that feeds them."""
    places = {
        bit: REGISTERS_PER_ALUT for cell in logic for port in ("Q", "SO") for bit in cell["connections"].get(port, [])
    }
    loose = 0
    for register in registers:
        net = register["connections"]["DATAIN"][0]
        if places.get(net, 0):
            places[net] -= 1
        else:
            loose += 1
    return loose
