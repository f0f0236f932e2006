"""Packs mapped ALUTs, carry bits and registers into ALMs: a lower and an upper bound.

Documented facts (Intel's Stratix 10 and Cyclone V ALM descriptions): an ALM has eight inputs, two
ALUTs, two full adders and four registers. It holds one function of six inputs; two of at most
four; one of five and one of at most three; 5 + 4 that share an input; 5 + 5 that share two; and
6 + 6 only with four shared inputs and the same function.

Both bounds are about logic alone: control sets, placement and routing of a real fitter are beyond
them.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["AlmBounds", "pack"]

REGISTERS_PER_ALM = 4
REGISTERS_PER_ALUT = 2
SHARED_BY_SIXES = 4

Cell = dict[str, Any]


class AlmBounds(NamedTuple):
    """Least and greatest number of ALMs."""

    low: int
    high: int


def pack(cells: Iterable[Cell]) -> AlmBounds:
    """Bounds for a flat netlist of MISTRAL cells, as Yosys's JSON gives them.

    - Low: every ALUT and carry bit finds a partner, inverters vanish into their readers, and
      registers fill the ALMs that are there. A six-input ALUT finds one only among those with
      which it shares four inputs.
    - High: no two ALUTs share an input, so only 4 + 4 and 5 + 3 pair; carry chains keep to
      themselves and start in an ALM of their own, a bit later where their carry-in is not zero;
      registers that no ALUT feeds, beyond two for each that does, stand in ALMs of their own.
    """
    kinds: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        kinds[cell["type"]].append(cell)
    sizes = {size: kinds[f"MISTRAL_ALUT{size}"] for size in range(2, 7)}
    inverters, adders, registers = (kinds[f"MISTRAL_{name}"] for name in ("NOT", "ALUT_ARITH", "FF"))

    partnered = _sharing_sixes([_inputs(cell) for cell in sizes[6]])
    pairable = sum(len(sizes[size]) for size in range(2, 6)) + len(adders)
    logic_low = len(sizes[6]) - partnered + _half(partnered) + _half(pairable)
    low = max(logic_low, -(-len(registers) // REGISTERS_PER_ALM))

    small = len(sizes[2]) + len(sizes[3]) + len(inverters)
    beside_fives = min(len(sizes[5]), small)
    logic_high = len(sizes[6]) + len(sizes[5]) + _half(len(sizes[4]) + small - beside_fives)
    chains = sum(_half(length) for length in _chains(adders))
    logic = [cell for size in sizes.values() for cell in size] + adders + inverters
    loose = _loose_registers(registers, logic)
    return AlmBounds(low, logic_high + chains + -(-loose // REGISTERS_PER_ALM))


def _half(count: int) -> int:
    return -(-count // 2)


def _inputs(cell: Cell) -> frozenset[int]:
    """The nets that feed a cell; constants, which the netlist writes as text, need no input."""
    nets = (bit for port, bits in cell["connections"].items() if port not in ("Q", "SO", "CO") for bit in bits)
    return frozenset(bit for bit in nets if isinstance(bit, int))


def _sharing_sixes(inputs: list[frozenset[int]]) -> int:
    """How many of the six-input ALUTs share four inputs with at least one other."""
    readers: dict[int, list[int]] = defaultdict(list)
    for index, nets in enumerate(inputs):
        for net in nets:
            readers[net].append(index)
    sharing = 0
    for index, nets in enumerate(inputs):
        shared: dict[int, int] = defaultdict(int)
        for net in nets:
            for other in readers[net]:
                shared[other] += other != index
        sharing += any(count >= SHARED_BY_SIXES for count in shared.values())
    return sharing


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
