"""The module hierarchy of a design: identical bodies once, with their numbers of instances.

Amaranth emits one module for each instance. Synthesis time and reports should not grow with the
number of equal parts, so modules whose bodies are the same text become one.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Design", "Instance", "Memory", "parse_design", "subdesign"]

_MODULE = re.compile(r"^module (\\\S+)\n(.*?)^end$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^  cell \\(\S+) \\?(\S+)\n(.*?^  end)$", re.MULTILINE | re.DOTALL)
_MEMORY = re.compile(r"^  memory width (\d+) size (\d+) ", re.MULTILINE)
_PORT = re.compile(r"^  wire .*(?:input|output) .*$", re.MULTILINE)
_NUMBERED = re.compile(r"\\port\$\d+\$\d+(?!\S)")
_PIN = re.compile(r"^    connect (\\\S+) (.*)$", re.MULTILINE)
_CELL_OR_NUMBERED = re.compile(f"{_CELL.pattern}|{_NUMBERED.pattern}", re.MULTILINE | re.DOTALL)

M20K_SHAPES = ((512, 40), (1024, 20), (2048, 10))
MLAB_SHAPE = (32, 20)


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory: `depth` words of `width` bits."""

    width: int
    depth: int

    @property
    def bits(self) -> int:
        """Bits that it holds."""
        return self.width * self.depth

    @property
    def mlabs(self) -> int:
        """MLABs, where 32 words are enough; else none."""
        depth, width = MLAB_SHAPE
        return -(-self.width // width) if self.depth <= depth else 0

    @property
    def m20ks(self) -> int:
        """M20K blocks in the best of their shapes, for a memory too deep for MLABs."""
        if self.mlabs:
            return 0
        return min(-(-self.width // width) * -(-self.depth // depth) for depth, width in M20K_SHAPES)


@dataclass(frozen=True, slots=True)
class Instance:
    """A module's place in another one."""

    name: str
    module: str


@dataclass
class Design:
    """Distinct modules of a design (without RTLIL's backslash) and how often each stands in it."""

    top: str
    bodies: dict[str, str]
    instances: Counter[str] = field(default_factory=Counter)
    memories: dict[str, list[Memory]] = field(default_factory=dict)
    children: dict[str, list[Instance]] = field(default_factory=dict)

    @property
    def rtlil(self) -> str:
        """The distinct modules as one text."""
        return "\n".join(f"module \\{name}\n{body}end\n" for name, body in self.bodies.items())

    @property
    def sha256(self) -> str:
        """Hash of the deduplicated RTLIL."""
        return hashlib.sha256(self.rtlil.encode()).hexdigest()

    def all_memories(self) -> list[Memory]:
        """Every memory of the design, as often as it stands in it."""
        return [memory for name, count in self.instances.items() for memory in self.memories[name] * count]

    def alone(self, name: str) -> str:
        """One module as `top`, its submodules as empty boxes `box_0`, ...: the text is the same wherever it stands."""
        kinds = list(dict.fromkeys(child.module for child in self.children[name]))
        boxes = {kind: f"box_{index}" for index, kind in enumerate(kinds)}
        body = _CELL.sub(lambda cell: f"  cell \\{boxes[cell[1]]} \\{cell[2]}\n{cell[3]}", self.bodies[name])
        empty = [
            "\n".join(["attribute \\blackbox 1", f"module \\{box}", *_PORT.findall(self.bodies[kind]), "end\n"])
            for kind, box in boxes.items()
        ]
        return "\n".join([*empty, f"module \\top\n{body}end\n"])

    def renamed(self) -> "Design":
        """The same design with module names that need no escape: words joined by underscores."""
        names: dict[str, str] = {}
        for name in self.bodies:
            plain = re.sub(r"\W+", "_", re.sub(r"(_\d+)?(\$\d+)?(?=\.|$)", "", name))
            while plain in names.values():
                plain += "_"
            names[name] = plain

        def placed(cell: re.Match[str]) -> str:
            return f"  cell \\{names[cell[1]]} \\{cell[2]}\n{cell[3]}"

        return Design(names[self.top], {names[name]: _CELL.sub(placed, body) for name, body in self.bodies.items()})


def _numbered(body: str) -> dict[str, str]:
    """Names for the ports that Amaranth calls by numbers counted over the whole design."""
    return {name: f"\\port${index}" for index, name in enumerate(dict.fromkeys(_NUMBERED.findall(body)))}


def parse_design(rtlil: str, top: str) -> Design:
    """Read Amaranth's RTLIL and fold modules of equal bodies together."""
    bodies = {name[1:]: body for name, body in _MODULE.findall(rtlil)}
    kept: dict[str, str] = {}
    same: dict[str, str] = {}
    by_body: dict[str, str] = {}

    ports = {name: _numbered("\n".join(_PORT.findall(body))) for name, body in bodies.items()}

    def fold(name: str) -> str:
        """The module that stands for `name`."""

        def renamed(port: re.Match[str]) -> str:
            return ports[name].get(port[0], port[0])

        def connected(pin: re.Match[str], module: str) -> str:
            return f"    connect {ports[module].get(pin[1], pin[1])} {_NUMBERED.sub(renamed, pin[2])}"

        def folded(found: re.Match[str]) -> str:
            module, instance, pins = found.groups()
            if module is None:
                return renamed(found)
            pins = _PIN.sub(lambda pin: connected(pin, module), pins)
            return f"  cell \\{fold(module)} \\{instance}\n{pins}"

        if name not in same:
            body = _CELL_OR_NUMBERED.sub(folded, bodies[name])
            same[name] = by_body.setdefault(body, name)
            kept.setdefault(same[name], body)
        return same[name]

    fold(top)
    design = Design(top, kept)
    for name, body in kept.items():
        design.memories[name] = [Memory(int(width), int(depth)) for width, depth in _MEMORY.findall(body)]
        design.children[name] = [Instance(cell[2], cell[1]) for cell in _CELL.finditer(body)]

    def count(name: str) -> None:
        design.instances[name] += 1
        for child in design.children[name]:
            count(child.module)

    count(top)
    return design


def subdesign(rtlil: str, top: str) -> Design:
    """A module of Amaranth's RTLIL with all below it as a design, nothing folded: its ports have the names they had."""
    bodies = {name[1:]: body for name, body in _MODULE.findall(rtlil)}
    kept: dict[str, str] = {}
    waiting = [top]
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept[name] = bodies[name]
            waiting += [cell[1] for cell in _CELL.finditer(bodies[name]) if cell[1] in bodies]
    return Design(top, kept).renamed()
