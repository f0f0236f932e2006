"""Logic depth over a hierarchy: longest paths through each distinct module, joined where it is instantiated.

A path counts gates and inverters; it starts and ends at registers, memories and ports. What a module adds
to a path is kept by bit, so that the joined depth is that of the flattened netlist.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

__all__ = ["Paths", "join", "join_all", "own_paths"]

NOT_REACHED = -20_000
"""Below any depth, whatever is added to it on the way."""

Pin = str
"""``port[3]`` of the module itself, ``instance port[3]`` of a submodule."""


@dataclass(slots=True)
class Paths:
    """Longest paths of a module, in gates."""

    worst: int = 0
    """Of paths that start inside."""
    reach: dict[Pin, int] = field(default_factory=dict)
    """From an input to anywhere."""
    start: dict[Pin, int] = field(default_factory=dict)
    """From inside to an output."""
    through: dict[Pin, dict[Pin, int]] = field(default_factory=dict)
    """To an output, from each input that has a path to it."""

    @property
    def depth(self) -> int:
        """The longest path of all."""
        return max(self.worst, *self.reach.values(), 0)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"worst": self.worst, "reach": self.reach, "start": self.start, "through": self.through}


def _pins(netlist: dict[str, Any], boxes: list[str]) -> tuple[dict[int, list[Pin]], list[tuple[Pin, Any]]]:
    """Where paths enter (pins by net) and where they leave (pin and net): the ports, and the boxes' the other way."""
    sources: dict[int, list[Pin]] = defaultdict(list)
    sinks: list[tuple[Pin, Any]] = []

    def add(name: str, bits: list[Any], enters: bool) -> None:
        for index, net in enumerate(bits):
            pin = f"{name}[{index}]"
            if not enters:
                sinks.append((pin, net))
            elif isinstance(net, int):
                sources[net].append(pin)

    for port, about in netlist["ports"].items():
        add(port, about["bits"], about["direction"] == "input")
    for instance in boxes:
        cell = netlist["cells"][instance]
        for port, bits in cell["connections"].items():
            add(f"{instance} {port}", bits, cell["port_directions"][port] == "output")
    return sources, sinks


def own_paths(netlist: dict[str, Any]) -> Paths:
    """Paths through a module's own gates, its submodules (cells ``box_...``) cut out.

    `netlist` is a module of Yosys's JSON, mapped to gates. A submodule's outputs count as inputs here, and
    its inputs as outputs.
    """
    cells = netlist["cells"]
    boxes = [name for name, cell in cells.items() if cell["type"].startswith("box_")]
    sources, sinks = _pins(netlist, boxes)
    column = {net: 1 + index for index, net in enumerate(sources)}
    gates: dict[int, list[Any]] = {}
    for cell in cells.values():
        nets = cell["connections"]
        if "Y" in nets and cell["type"].startswith("$_"):
            gates[nets["Y"][0]] = [nets[port][0] for port in nets if port != "Y"]
    uses: dict[Any, int] = defaultdict(int)
    for inputs in gates.values():
        for net in inputs:
            uses[net] += 1
    for _, net in sinks:
        uses[net] += 1

    def entering(net: Any) -> np.ndarray:
        depths = np.full(1 + len(column), NOT_REACHED, np.int16)
        depths[column.get(net, 0)] = 0
        return depths

    # Column 0 counts from inside. A row is dropped with its last use: wide modules have few at a time.
    rows: dict[Any, np.ndarray] = {}
    most = np.full(1 + len(column), NOT_REACHED, np.int16)

    def used(net: Any) -> np.ndarray:
        depths = rows[net] if net in gates else entering(net)
        uses[net] -= 1
        if not uses[net]:
            rows.pop(net, None)
        return depths

    for net in _in_order(gates):
        depths = entering(None)
        for before in gates[net]:
            np.maximum(depths, used(before), out=depths)
        rows[net] = depths = depths + np.int16(1)
        np.maximum(most, depths, out=most)

    found = Paths(worst=max(0, int(most[0])))
    names = {index: sources[net] for net, index in column.items()}
    for index in np.flatnonzero(most[1:] > 0) + 1:
        found.reach.update(dict.fromkeys(names[int(index)], int(most[index])))
    for pin, net in sinks:
        depths = used(net)
        if depths[0] > 0:
            found.start[pin] = int(depths[0])
        reached = np.flatnonzero(depths[1:] >= 0) + 1
        if len(reached):
            found.through[pin] = {name: int(depths[index]) for index in reached for name in names[int(index)]}
    return found


def _in_order(gates: dict[int, list[Any]]) -> list[int]:
    """Gates by their output nets, each after those that feed it."""
    waiting = {net: sum(before in gates for before in inputs) for net, inputs in gates.items()}
    readers: dict[int, list[int]] = defaultdict(list)
    for net, inputs in gates.items():
        for before in inputs:
            if before in gates:
                readers[before].append(net)
    order = [net for net, count in waiting.items() if not count]
    for net in order:
        for reader in readers[net]:
            waiting[reader] -= 1
            if not waiting[reader]:
                order.append(reader)
    if len(order) != len(gates):
        raise AssertionError("gates must not form a loop")
    return order


def join_all(own: Mapping[str, Paths], children: Callable[[str], Iterable[tuple[str, str]]], top: str) -> Paths:
    """Paths of a whole design: `own` are those of its modules, `children` says which instances of which each has."""

    @cache
    def joined(module: str) -> Paths:
        return join(own[module], {name: joined(inner) for name, inner in children(module)})

    return joined(top)


def join(own: Paths, children: Mapping[str, Paths]) -> Paths:
    """Paths of a module with its submodules, given by instance, in their places."""
    Arrival = tuple[dict[Pin, int], int]

    def later(arrivals: list[tuple[Arrival, int]], inside: int) -> Arrival:
        """The latest of arrivals, each with what comes on top of it."""
        latest: dict[Pin, int] = {}
        for (before, base), more in arrivals:
            inside = max(inside, base + more)
            for pin, depth in before.items():
                latest[pin] = max(latest.get(pin, 0), depth + more)
        return latest, inside

    @cache
    def entering(pin: Pin) -> Arrival:
        """At one of the module's inputs, or at a submodule's output."""
        instance, space, port = pin.rpartition(" ")
        if not space:
            return {pin: 0}, 0
        child = children[instance]
        arrivals = [(leaving(f"{instance} {inner}"), depth) for inner, depth in child.through.get(port, {}).items()]
        return later(arrivals, child.start.get(port, 0))

    @cache
    def leaving(pin: Pin) -> Arrival:
        """At one of the module's outputs, or at a submodule's input."""
        arrivals = [(entering(source), depth) for source, depth in own.through.get(pin, {}).items()]
        return later(arrivals, own.start.get(pin, 0))

    found = Paths(worst=max([own.worst, *(child.worst for child in children.values())]))
    ends = [(entering(pin), depth) for pin, depth in own.reach.items()]
    ends += [
        (leaving(f"{instance} {pin}"), depth)
        for instance, child in children.items()
        for pin, depth in child.reach.items()
    ]
    outputs = [pin for pin in {**own.start, **own.through} if " " not in pin]
    for pin in outputs:
        through, start = leaving(pin)
        if through:
            found.through[pin] = through
        if start:
            found.start[pin] = start
        ends.append((leaving(pin), 0))
    found.reach, found.worst = later(ends, found.worst)
    return found
