"""Activation memory: where tensors lie, from their lifetimes.

The memory is `act_banks` banks of words of W digits, addressed in one row. A tensor is one plane of
words for each digit (`words`). One or two planes lie together; the four planes of a 16-bit stream lie in two
pairs, in different banks where there is room. A piece that no bank can hold spans banks. A layer
reads its input for the array and the other operand of its add for the post lanes at the same
time: where those share a bank, the layer is *serial*: it drains before it computes on.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..kernels.digits import digit_count
from ..kernels.errors import CapacityError
from .descriptor import act_words
from .engine import EngineConfig
from .graph import Value
from .words import pixel_words

__all__ = ["Lifetime", "Memory", "Placement", "place", "plane_words", "tensor_bytes"]

PAIR = 2
"""Digit planes that lie together."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The layers, by position, from the one that writes a tensor to the last that reads it."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Placement:
    """One tensor's digit planes: the address of the first word of each, and the words of one."""

    planes: tuple[int, ...]
    words: int


@dataclass(frozen=True, slots=True)
class Memory:
    """All tensors in place; `serial` are the layers whose operands share a bank."""

    bank_words: int
    tensors: Mapping[str, Placement]
    serial: frozenset[int] = field(default_factory=frozenset)

    def banks(self, name: str) -> set[int]:
        """The banks that a tensor touches."""
        placed = self.tensors[name]
        return {
            bank
            for first in placed.planes
            for bank in range(first // self.bank_words, (first + placed.words - 1) // self.bank_words + 1)
        }


def plane_words(value: Value, engine: EngineConfig) -> int:
    """Words of one digit plane of one image's tensor."""
    channels, height, width = value.shape
    return height * width * pixel_words(engine, channels, value.codes.bits)


def tensor_bytes(value: Value, engine: EngineConfig) -> int:
    """On-chip bytes of one image's tensor: words of W digits, one plane per digit."""
    return plane_words(value, engine) * digit_count(value.codes.bits) * engine.word_bits // 8


def place(
    values: Mapping[str, Value],
    lifetimes: Mapping[str, Lifetime],
    together: Mapping[int, tuple[set[str], set[str]]],
    engine: EngineConfig,
) -> Memory:
    """Give every tensor its addresses, in the order in which they are written.

    Where that leaves the free words in pieces that are too small, the greatest tensors are placed first, whenever they
    are written; where that does not fit either, tensors follow one another across the banks. `together` holds, by
    layer, the tensors that the array and that the post lanes read. Raises `CapacityError` where nothing fits.
    """
    written = sorted(lifetimes, key=lambda name: lifetimes[name].first)
    greatest = sorted(written, key=lambda name: -tensor_bytes(values[name], engine))
    refusal: CapacityError | None = None
    for order, in_banks in ((written, True), (greatest, True), (written, False), (greatest, False)):
        try:
            return _place(order, in_banks, values, lifetimes, together, engine)
        except CapacityError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _place(
    order: Sequence[str],
    in_banks: bool,
    values: Mapping[str, Value],
    lifetimes: Mapping[str, Lifetime],
    together: Mapping[int, tuple[set[str], set[str]]],
    engine: EngineConfig,
) -> Memory:
    """The same in one order; `in_banks` is whether a piece that one bank can hold lies in one."""
    memory = _Allocation(act_words(engine) // engine.act_banks, engine.act_banks)
    apart: dict[str, set[str]] = {name: set() for name in values}
    for array, post in together.values():
        for first in array:
            for second in post - {first}:
                apart[first].add(second)
                apart[second].add(first)

    placed: dict[str, Placement] = {}
    for name in order:
        mine = lifetimes[name]
        memory.meet(
            other for other in placed if lifetimes[other].last >= mine.first and lifetimes[other].first <= mine.last
        )
        avoid = {bank for other in apart[name] for bank in memory.banks(other)}
        words, digits = plane_words(values[name], engine), digit_count(values[name].codes.bits)
        planes: list[int] = []
        for digit in range(0, digits, PAIR):
            count = min(PAIR, digits - digit)
            start = memory.take(name, count * words, avoid | memory.banks(name), in_banks)
            if start is None:
                raise CapacityError(
                    f"{name}: needs {count * words * engine.word_bits // 8} bytes of activation memory in one "
                    f"piece, but the free ones lie apart: choose a greater act_bytes than {engine.act_bytes}"
                )
            planes += [start + plane * words for plane in range(count)]
        placed[name] = Placement(tuple(planes), words)

    found = Memory(memory.bank_words, placed)
    serial = {
        layer
        for layer, (array, post) in together.items()
        if any(found.banks(first) & found.banks(second) for first in array for second in post)
    }
    return Memory(memory.bank_words, placed, frozenset(serial))


class _Allocation:
    """Pieces of the memory, (start, words) by tensor: all that are placed, and those that live with the next one."""

    def __init__(self, bank_words: int, banks: int) -> None:
        self.bank_words = bank_words
        self.bank_count = banks
        self.pieces: dict[str, list[tuple[int, int]]] = {}
        self.live: list[tuple[int, int]] = []
        """In the order of their addresses."""

    def meet(self, names: Iterable[str]) -> None:
        """What the next tensor must not lie upon."""
        self.live = sorted(piece for name in names for piece in self.pieces[name])

    def banks(self, name: str) -> set[int]:
        return {
            bank
            for start, words in self.pieces.get(name, [])
            for bank in range(start // self.bank_words, (start + words - 1) // self.bank_words + 1)
        }

    def take(self, name: str, words: int, avoid: set[int], in_banks: bool) -> int | None:
        """The first address of a free piece: `in_banks` in a bank to be preferred or in any bank; across banks."""
        banks = sorted(range(self.bank_count), key=lambda bank: (bank in avoid, bank)) if in_banks else ()
        for bank in banks:
            start = self._gap(bank * self.bank_words, (bank + 1) * self.bank_words, words)
            if start is not None:
                break
        else:
            start = self._gap(0, self.bank_count * self.bank_words, words)
        if start is not None:
            self.pieces.setdefault(name, []).append((start, words))
            insort(self.live, (start, words))
        return start

    def _gap(self, low: int, high: int, words: int) -> int | None:
        """The first gap of `words` within [low, high)."""
        start = low
        for first, length in self.live:
            if first + length <= start:
                continue
            if first - start >= words or first >= high:
                break
            start = first + length
        return start if start + words <= high else None
