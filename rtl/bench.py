"""What a bench knows: the fields of a block's ports, its stimulus and its golden results.

The simulator side (`cocotb_bench`) moves packed bits and checks the handshake; it knows no
arithmetic. This side makes the vectors, packs them, and compares what comes back with the
kernel's golden model, so that the two can only agree by computing the same thing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Generic, TypeVar

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data

__all__ = ["EXHAUSTIVE_LIMIT", "Bench", "Fields", "Layout", "PortField"]

Fields = dict[str, np.ndarray]
"""Values by field: int64 arrays of shape (vectors,), or (vectors, lanes) for an array field."""

EXHAUSTIVE_LIMIT = 1 << 20
"""Input spaces up to this size are compared completely."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class PortField:
    """One field of a packed port: `lanes` elements of `bits` bits; no lane axis where None."""

    name: str
    bits: int
    signed: bool
    lanes: int | None = None

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest value that the field holds."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1

    @property
    def elements(self) -> int:
        """Elements of the field: 1 where it has no lane axis."""
        return 1 if self.lanes is None else self.lanes


@dataclass(frozen=True)
class Layout:
    """Fields of a port, packed from bit 0 upwards."""

    fields: tuple[PortField, ...]

    @classmethod
    def of(cls, members: Mapping[str, object]) -> "Layout":
        """The layout of Amaranth shapes by name, as `data.StructLayout` orders them."""
        fields = []
        for name, shape in members.items():
            lanes = None
            if isinstance(shape, data.ArrayLayout):
                shape, lanes = shape.elem_shape, shape.length
            cast = Shape.cast(shape)
            fields.append(PortField(name, cast.width, cast.signed, lanes))
        return cls(tuple(fields))

    @cached_property
    def bits(self) -> int:
        """Bits of the whole port."""
        return sum(field.bits * field.elements for field in self.fields)

    def pack(self, values: Fields) -> np.ndarray:
        """Two's complement bits, uint8 of shape (vectors, bits), least significant first."""
        count = len(next(iter(values.values())))
        packed = np.empty((count, self.bits), dtype=np.uint8)
        at = 0
        for field in self.fields:
            elements = np.asarray(values[field.name], dtype=np.int64).reshape(count, field.elements)
            for lane in range(field.elements):
                for bit in range(field.bits):
                    packed[:, at] = (elements[:, lane] >> bit) & 1
                    at += 1
        return packed

    def unpack(self, packed: np.ndarray) -> Fields:
        """The values of bits of shape (vectors, bits)."""
        values: Fields = {}
        at = 0
        for field in self.fields:
            elements = np.zeros((len(packed), field.elements), dtype=np.int64)
            for lane in range(field.elements):
                for bit in range(field.bits):
                    elements[:, lane] |= packed[:, at].astype(np.int64) << bit
                    at += 1
            if field.signed:
                sign = np.int64(1) << (field.bits - 1)
                elements = (elements ^ sign) - sign
            values[field.name] = elements if field.lanes is not None else elements[:, 0]
        return values


class Bench(ABC, Generic[P]):
    """Stimulus and golden model of a block with the given parameters."""

    def __init__(self, parameters: P) -> None:
        self.parameters = parameters

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Legal values of the fields that do not use their whole width."""
        return {}

    @abstractmethod
    def expected(self, inputs: Fields) -> Fields:
        """The golden result of every input vector, in order."""

    def space(self, layout: Layout) -> int:
        """Number of distinct input vectors."""
        return prod((high - low + 1) ** field.elements for field, low, high in self._legal(layout))

    def exhaustive(self, layout: Layout) -> Fields:
        """Every input vector once."""
        legal = self._legal(layout)
        sizes = [high - low + 1 for field, low, high in legal for _ in range(field.elements)]
        indices = iter(np.unravel_index(np.arange(prod(sizes)), sizes))
        vectors: Fields = {}
        for field, low, _ in legal:
            elements = np.stack([next(indices) + low for _ in range(field.elements)], axis=1)
            vectors[field.name] = elements if field.lanes is not None else elements[:, 0]
        return vectors

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        """`count` random vectors: a third uniform, a third of random magnitude, a third corners.

        In one vector of four, every lane of an array field holds the same value, so that sums
        reach their ends.
        """
        vectors: Fields = {}
        for field, low, high in self._legal(layout):
            shape = (count, field.elements)
            uniform = rng.integers(low, high, shape, endpoint=True)
            magnitude = uniform >> rng.integers(0, field.bits, shape)
            corners = np.array([low, low, high, high, low + 1, high - 1, 0, 1, -1, 1 << max(field.bits - 2, 0)])
            kind = rng.integers(0, 3, shape)
            elements = np.choose(kind, [uniform, magnitude, rng.choice(corners, shape)]).clip(low, high)
            same = rng.random(count) < 1 / 4
            elements[same] = elements[same, :1]
            vectors[field.name] = elements if field.lanes is not None else elements[:, 0]
        return vectors

    def _legal(self, layout: Layout) -> list[tuple[PortField, int, int]]:
        ranges = self.ranges
        return [(field, *ranges.get(field.name, field.range)) for field in layout.fields]
