"""The module hierarchy of a design: identical bodies once, with their numbers of instances.

Amaranth emits one module for each instance. Synthesis time and reports should not grow with the
number of equal parts, so modules whose bodies are the same text become one.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Design", "Memory", "parse_design"]

_MODULE = re.compile(r"^module (\\\S+)\n(.*?)^end$", re.MULTILINE | re.DOTALL)
_INSTANCE = re.compile(r"^(  cell )(\\\S+)( \S+)$", re.MULTILINE)
_MEMORY = re.compile(r"^  memory width (\d+) size (\d+) ", re.MULTILINE)

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


@dataclass
class Design:
    """Distinct modules of a design (without RTLIL's backslash) and how often each stands in it."""

    top: str
    rtlil: str
    instances: Counter[str] = field(default_factory=Counter)
    memories: dict[str, list[Memory]] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of the deduplicated RTLIL."""
        return hashlib.sha256(self.rtlil.encode()).hexdigest()

    def all_memories(self) -> list[Memory]:
        """Every memory of the design, as often as it stands in it."""
        return [memory for name, count in self.instances.items() for memory in self.memories[name] * count]


def parse_design(rtlil: str, top: str) -> Design:
    """Read Amaranth's RTLIL and fold modules of equal bodies together."""
    bodies = {name[1:]: body for name, body in _MODULE.findall(rtlil)}
    kept: dict[str, str] = {}
    same: dict[str, str] = {}
    by_body: dict[str, str] = {}

    def fold(name: str) -> str:
        """The module that stands for `name`."""
        if name not in same:
            body = _INSTANCE.sub(lambda cell: f"{cell[1]}\\{fold(cell[2][1:])}{cell[3]}", bodies[name])
            same[name] = by_body.setdefault(body, name)
            kept.setdefault(same[name], body)
        return same[name]

    fold(top)
    design = Design(top, "\n".join(f"module \\{name}\n{body}end\n" for name, body in kept.items()))
    design.memories = {
        name: [Memory(int(width), int(depth)) for width, depth in _MEMORY.findall(body)] for name, body in kept.items()
    }

    def count(name: str) -> None:
        design.instances[name] += 1
        for cell in _INSTANCE.finditer(kept[name]):
            count(cell[2][1:])

    count(top)
    return design
