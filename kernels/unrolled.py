"""Unrolled layers: one circuit for each output, its weights wired in as constants.

A constant costs no memory, no decoder and no run-time shifter, and a weight of zero costs nothing: additions alone
remain. An output is ``sum_pj coef_pj * sum_t w_pt * a_jt``: P planes of weights, J planes of activations, both one but
for LQ-Net and ABC-Net. Its additions are made in one of two structures:

- ``direct``: every activation meets its constant, and a tree adds the products. Signs are those of the paper that
  defines a scheme: N planes of weights and M of activations are N times M sums.
- ``grouped``: activations of equal constants are added first, those whose constants differ by a power of two next, and
  the constants follow once for each odd number. It is the distributive law, nothing is approximated; planes are made of
  the sums of equal sign patterns.

Constants are sums of signed powers of two (the non-adjacent form): shifts are wires, so a constant of n digits is n - 1
adders. What is added and what is subtracted is summed apart, with unsigned numbers, and subtracted once. The order of
additions is fixed by the widths: terms of one binary place before those of different ones, narrow ones first.

An adder's width follows from the range of its result, for every activation there can be: nothing overflows.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np

from .conv import ConvShape
from .errors import FormatError

__all__ = [
    "MAX_ACTIVATION_BITS",
    "STRUCTURES",
    "ZERO",
    "Adder",
    "Circuit",
    "ConstantMultiplier",
    "Net",
    "Plan",
    "Step",
    "Structure",
    "Term",
    "UnrolledDot",
    "UnrolledLayer",
    "Window",
    "signed_digits",
]

Structure = Literal["direct", "grouped"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)

PLANS = 1 << 16
"""Sums that are kept: those of a layer's circuits come again and again, those of another layer hardly ever."""
MAX_ACTIVATION_BITS = 16
MAX_CONSTANT_BITS = 24
"""Of a weight or a coefficient with its sign."""


class Net(NamedTuple):
    """A number on wires: the least and the greatest value that it takes."""

    low: int
    high: int

    @property
    def signed(self) -> bool:
        """Whether it is ever negative."""
        return self.low < 0

    @property
    def bits(self) -> int:
        """Wires that it needs, one at least."""
        return _bits(self)


@cache
def _bits(net: Net) -> int:
    most = max(net.high, -1 - net.low)
    return max(1, most.bit_length() + net.signed)


ZERO, ONE_BIT = Net(0, 0), Net(0, 1)


class Term(NamedTuple):
    """A net (by its index) that counts ``2 ** place``."""

    net: int
    place: int


NOTHING = Term(-1, 0)
"""The constant zero."""


@dataclass(frozen=True, slots=True)
class Adder:
    """Parameters and golden model of one adder: `a + b`, `a + b + carry` or `a - b`, of a result that is known to fit.

    Parameters
    ----------
    a_bits, a_signed, b_bits, b_signed, out_bits, out_signed : the operands' and the result's widths; of operands that
        are added, `a` is the wider one
    subtract : the result is ``a - b``
    carry : a third operand of one bit is added
    """

    a_bits: int
    a_signed: bool
    b_bits: int
    b_signed: bool
    out_bits: int
    out_signed: bool
    subtract: bool = False
    carry: bool = False

    def compute(self, a: np.ndarray, b: np.ndarray, carry: np.ndarray | int = 0) -> np.ndarray:
        """The sum or difference of int64 operands, of which the low `out_bits` are kept and read as the result is."""
        exact = np.asarray(a, dtype=np.int64) + (-1 if self.subtract else 1) * np.asarray(b, dtype=np.int64) + carry
        low = -(1 << (self.out_bits - 1)) if self.out_signed else 0
        return np.asarray((exact - low) % (1 << self.out_bits) + low)


@dataclass(frozen=True)
class ConstantMultiplier:
    """Parameters and golden model of an activation times an odd constant greater than 1."""

    bits: int
    signed: bool
    constant: int

    def __post_init__(self) -> None:
        if self.constant < 3 or not self.constant & 1:
            raise FormatError(f"constant of a multiplier must be odd and at least 3, not {self.constant}")

    @cached_property
    def net(self) -> Net:
        """The range of its product."""
        low, high = _activation(self.bits, self.signed)
        return Net(low * self.constant, high * self.constant)

    def compute(self, values: np.ndarray) -> np.ndarray:
        """Products, int64."""
        return np.asarray(np.asarray(values, dtype=np.int64) * self.constant)


_multiplier = cache(ConstantMultiplier)
"""There are few, each of them thousands of times in a layer."""


class Step(NamedTuple):
    """One addition of a plan: ``(a << lift) +- (b << place) + carry``.

    `lift` or `place` is 0. Of `a`, the low `place` bits pass by the adder. `a`, `b` and `carry` are indices of nets:
    first those that the plan is given, then its steps' results; -1 is the constant zero, or no carry.
    """

    a: int
    b: int
    carry: int
    lift: int
    place: int
    adder: Adder | None
    """None where operands do not overlap, so that the result is nothing but wires."""
    swapped: bool
    """Whether the adder takes `b` first, as the wider one."""
    net: Net


@dataclass(frozen=True)
class Plan:
    """The additions that make one term of several."""

    steps: tuple[Step, ...]
    result: Term

    @cached_property
    def adders(self) -> Counter[Adder]:
        """How often it has each adder."""
        return Counter(step.adder for step in self.steps if step.adder is not None)


def signed_digits(constant: int) -> list[tuple[int, int]]:
    """Signs and places of the non-adjacent form of an integer, lowest first: the fewest signed powers of two.

    >>> signed_digits(7)
    [(-1, 0), (1, 3)]
    """
    digits = []
    place = 0
    while constant:
        if constant & 1:
            sign = 2 - (constant & 3)
            digits.append((sign, place))
            constant -= sign
        constant >>= 1
        place += 1
    return digits


def _activation(bits: int, signed: bool) -> Net:
    return Net(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else Net(0, (1 << bits) - 1)


@cache
def _addition(
    first: Net, second: Net, lift: int, place: int, subtract: bool, carry: bool
) -> tuple[Adder | None, bool, Net]:
    """The adder of a step, whether it takes the second operand first, and what it makes."""
    low, high = (-second.high, -second.low) if subtract else second
    net = Net((first.low << lift) + (low << place), (first.high << lift) + (high << place) + carry)
    if not (subtract or carry or first.signed or first.bits > place):
        return None, False, net
    # What reaches the adder of a: all of it lifted, or what is above the bits that pass by.
    a_bits = first.bits + lift if place == 0 else max(1, first.bits - place)
    a, b = (a_bits, first.signed), (second.bits, second.signed)
    swapped = not subtract and b > a
    if swapped:
        a, b = b, a
    return Adder(*a, *b, net.bits - place, net.signed, subtract, carry), swapped, net


class _Planner:
    """Additions in the making, over nets that are given."""

    def __init__(self, nets: Iterable[Net]) -> None:
        self.nets = list(nets)
        self.steps: list[Step] = []

    def step(self, a: Term, b: Term, subtract: bool = False, carry: int = -1) -> Term:
        """``a + b (+ carry)`` or ``a - b``."""
        if not subtract and a.place > b.place:
            a, b = b, a
        lift, place = max(0, a.place - b.place), max(0, b.place - a.place)
        first = ZERO if a.net < 0 else self.nets[a.net]
        second = ZERO if b.net < 0 else self.nets[b.net]
        adder, swapped, net = _addition(first, second, lift, place, subtract, carry >= 0)
        self.steps.append(Step(a.net, b.net, carry, lift, place, adder, swapped, net))
        self.nets.append(net)
        return Term(len(self.nets) - 1, min(a.place, b.place))

    def total(self, terms: Sequence[Term]) -> Term:
        """The sum of terms: those of one place first, narrow ones first; then from place to place upwards."""
        places: dict[int, list[int]] = {}
        for term in terms:
            places.setdefault(term.place, []).append(term.net)
        found: Term | None = None
        for place in sorted(places):
            nets = places[place]
            ones = [net for net in nets if self.nets[net] == ONE_BIT]
            others = nets if not ones else [net for net in nets if self.nets[net] != ONE_BIT]
            if ones:
                others.append(self._count(ones, place).net)
            heap = [(self.nets[net].bits, at, net) for at, net in enumerate(others)]
            heapq.heapify(heap)
            while len(heap) > 1:
                (_, _, first), (_, _, second) = heapq.heappop(heap), heapq.heappop(heap)
                made = self.step(Term(first, place), Term(second, place)).net
                heapq.heappush(heap, (self.nets[made].bits, len(self.nets), made))
            here = Term(heap[0][2], place)
            found = here if found is None else self.step(found, here)
        assert found is not None
        return found

    def _count(self, ones: list[int], place: int) -> Term:
        """How many of some bits are one: every adder takes a bit as its carry in, so that a bit costs a full adder."""
        if len(ones) == 1:
            return Term(ones[0], place)
        rest, carry = (ones[:-1], ones[-1]) if len(ones) > 2 else (ones, -1)
        middle = (len(rest) + 1) // 2
        return self.step(self._count(rest[:middle], place), self._count(rest[middle:], place), carry=carry)


@lru_cache(maxsize=PLANS)
def _sum_plan(added: tuple[tuple[int, Net], ...], subtracted: tuple[tuple[int, Net], ...]) -> Plan:
    """The plan of ``sum(added) - sum(subtracted)``, given as places and nets; one of both is not empty."""
    planner = _Planner(net for _, net in added + subtracted)
    terms = [Term(at, place) for at, (place, _) in enumerate(added + subtracted)]
    plus, minus = terms[: len(added)], terms[len(added) :]
    result = planner.total(plus) if plus else None
    if minus:
        less = planner.total(minus)
        result = planner.step(result or Term(-1, less.place), less, subtract=True)
    assert result is not None
    return Plan(tuple(planner.steps), result)


@dataclass
class Circuit:
    """The circuit of one output: its inputs, multipliers and plans, and the term that is the result.

    Nets are counted from the inputs on; then come the multipliers' products and the plans' results, in order.
    """

    nets: list[Net]
    multipliers: list[tuple[ConstantMultiplier, int]] = field(default_factory=list)
    """Each with the input that it multiplies; their products come right after the inputs."""
    plans: list[tuple[Plan, tuple[int, ...], int]] = field(default_factory=list)
    """Each with the nets that it is given and the first net of its own."""
    result: Term = NOTHING

    def multiply(self, constant: ConstantMultiplier, net: int) -> int:
        """The product of an input."""
        self.multipliers.append((constant, net))
        self.nets.append(constant.net)
        return len(self.nets) - 1

    def total(self, terms: Iterable[tuple[int, Term]]) -> Term:
        """The sum of terms with their signs, +1 or -1; of no terms it is the constant zero."""
        nets = self.nets
        ordered: tuple[list[tuple[int, Net, int]], ...] = [], []
        for sign, (net, place) in terms:
            ordered[sign < 0].append((place, nets[net], net))
        added, subtracted = ordered
        if not (added or subtracted):
            return NOTHING
        if len(added) == 1 and not subtracted:
            ((place, _, net),) = added
            return Term(net, place)
        for part in ordered:
            part.sort()
        plan = _sum_plan(*(tuple([term[:2] for term in part]) for part in ordered))
        given = tuple([net for part in ordered for _, _, net in part])
        first = len(self.nets)
        self.plans.append((plan, given, first))
        self.nets += [step.net for step in plan.steps]
        return Term(self._placed(plan.result.net, given, first), plan.result.place)

    def again(self, offset: int) -> Term:
        """The sum that was made last once more, of inputs so many nets further on."""
        plan, given, _ = self.plans[-1]
        first, moved = len(self.nets), tuple(net + offset for net in given)
        self.plans.append((plan, moved, first))
        self.nets += [step.net for step in plan.steps]
        return Term(self._placed(plan.result.net, moved, first), plan.result.place)

    @staticmethod
    def _placed(net: int, given: Sequence[int], first: int) -> int:
        """The net of the circuit that a plan's net is."""
        return net if net < 0 else given[net] if net < len(given) else first + net - len(given)

    def steps(self) -> Iterator[tuple[int, Step]]:
        """Every addition, its nets those of the circuit, after those that it needs; with the net that it makes."""
        for plan, given, first in self.plans:
            for at, step in enumerate(plan.steps):
                a, b, carry = (self._placed(net, given, first) for net in step[:3])
                yield first + at, step._replace(a=a, b=b, carry=carry)

    @property
    def net(self) -> Net:
        """The result without its place."""
        return ZERO if self.result.net < 0 else self.nets[self.result.net]


@dataclass(frozen=True)
class UnrolledDot:
    """Parameters and golden model of one output: constant weights by activations.

    Parameters
    ----------
    weights : planes of signed integers, one for each tap; int, shift, focused, ternary and sign layers have one plane
    coefs : coefficients of the planes or, with activation planes, of the pairs of a weight plane and, faster, an
        activation plane; integers
    bits, signed : of the activations. Where they are planes, bit j of an activation is its plane j, and counts 0 or 1:
        planes of -1 and +1 are twice that less one, which the output's scale and bias take in
    activation_planes : whether activations are planes
    structure : ``direct`` or ``grouped``
    """

    weights: tuple[tuple[int, ...], ...]
    coefs: tuple[int, ...] = (1,)
    bits: int = 8
    signed: bool = False
    activation_planes: bool = False
    structure: Structure = "grouped"

    def __post_init__(self) -> None:
        if self.structure not in STRUCTURES:
            raise FormatError(f"structure must be {' or '.join(STRUCTURES)}, not {self.structure!r}")
        if not 1 <= self.bits <= MAX_ACTIVATION_BITS:
            raise FormatError(f"activations must have 1 to {MAX_ACTIVATION_BITS} bits, not {self.bits}")
        if self.activation_planes and self.signed:
            raise FormatError("activation planes must be unsigned")
        taps = {len(plane) for plane in self.weights}
        if len(taps) != 1 or taps == {0}:
            raise FormatError(f"weight planes must have one number of taps, at least 1, not {sorted(taps)}")
        if len(self.coefs) != len(self.weights) * self.activation_count:
            raise FormatError(
                f"coefficients must be those of {len(self.weights) * self.activation_count} planes, "
                f"not {len(self.coefs)}"
            )
        for what, values in (("weights", [w for plane in self.weights for w in plane]), ("coefficients", self.coefs)):
            most = max(abs(value) for value in values)
            if most.bit_length() >= MAX_CONSTANT_BITS:
                raise FormatError(f"{what} must have at most {MAX_CONSTANT_BITS} bits, not {most.bit_length() + 1}")

    @property
    def taps(self) -> int:
        """Activations that the output is made of."""
        return len(self.weights[0])

    @property
    def activation_count(self) -> int:
        """Planes of activations: one where they are numbers."""
        return self.bits if self.activation_planes else 1

    def compute(self, activations: np.ndarray) -> np.ndarray:
        """The exact output, int64 (...), of activations (..., taps)."""
        values = np.asarray(activations, dtype=np.int64)
        parts = [values]
        if self.activation_planes:
            parts = [(values >> plane) & 1 for plane in range(self.bits)]
        sums = [part @ np.array(plane, dtype=np.int64) for plane in self.weights for part in parts]
        return np.asarray(sum(coef * total for coef, total in zip(self.coefs, sums, strict=True)))

    @cached_property
    def circuit(self) -> Circuit:
        """Its additions. Inputs are the taps or, of activation planes, plane 0 of all taps, plane 1, ..."""
        net = ONE_BIT if self.activation_planes else _activation(self.bits, self.signed)
        circuit = Circuit([net] * (self.taps * self.activation_count))
        sums = self._grouped(circuit) if self.structure == "grouped" else self._direct(circuit)
        terms: list[tuple[int, Term]] = []
        for coef, (sign, term) in zip(self.coefs, sums, strict=True):
            if term.net >= 0:
                terms += [(sign * digit, Term(term.net, term.place + place)) for digit, place in signed_digits(coef)]
        circuit.result = circuit.total(terms)
        return circuit

    def _direct(self, circuit: Circuit) -> list[tuple[int, Term]]:
        """The sum of each pair of planes, products made tap by tap."""
        # Products come first, those of equal constants and inputs once.
        made: dict[tuple[int, int], int] = {}

        def terms(plane: Sequence[int], j: int) -> list[tuple[int, Term]]:
            found = []
            for net, weight in enumerate(plane, j * self.taps):
                if weight:
                    odd, place = _odd(abs(weight))
                    if odd > 1:
                        if (net, odd) not in made:
                            made[net, odd] = circuit.multiply(_multiplier(self._input_bits, self.signed, odd), net)
                        net = made[net, odd]
                    found.append((1 if weight > 0 else -1, Term(net, place)))
            return found

        first = [terms(plane, 0) for plane in self.weights]
        if made:
            others = [[terms(plane, j) for j in range(1, self.activation_count)] for plane in self.weights]
            pairs = [[own, *rest] for own, rest in zip(first, others, strict=True)]
            return [(1, circuit.total(each)) for pair in pairs for each in pair]
        # Without products every plane of activations is added as the first one is.
        sums = []
        for own in first:
            term = circuit.total(own)
            sums.append((1, term))
            added = term.net >= self.taps * self.activation_count
            for j in range(1, self.activation_count):
                if added:
                    sums.append((1, circuit.again(self.taps)))
                else:
                    sums.append((1, Term(term.net + j * self.taps if own else -1, term.place)))
        return sums

    @property
    def _input_bits(self) -> int:
        return 1 if self.activation_planes else self.bits

    def _grouped(self, circuit: Circuit) -> list[tuple[int, Term]]:
        """The same, taps with the same constants in all planes added first."""
        signs_and_groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for tap, column in enumerate(zip(*self.weights, strict=True)):
            if any(column):
                sign = 1 if next(weight for weight in column if weight) > 0 else -1
                signs_and_groups.setdefault(tuple(sign * weight for weight in column), []).append((sign, tap))
        found: list[list[tuple[int, Term]]] = []
        for j in range(self.activation_count):
            sums = {
                column: circuit.total((sign, Term(j * self.taps + tap, 0)) for sign, tap in taps)
                if any(sign > 0 for sign, _ in taps)
                else self._sum_of_negatives(circuit, j, taps)
                for column, taps in sorted(signs_and_groups.items())
            }
            found.append([(1, self._weighed(circuit, p, signs_and_groups, sums)) for p in range(len(self.weights))])
        return [found[j][p] for p in range(len(self.weights)) for j in range(self.activation_count)]

    def _sum_of_negatives(self, circuit: Circuit, j: int, taps: list[tuple[int, int]]) -> Term:
        """A group of which every sign is minus: its plain sum, whose sign the group's user turns."""
        return circuit.total((1, Term(j * self.taps + tap, 0)) for _, tap in taps)

    def _weighed(
        self,
        circuit: Circuit,
        plane: int,
        groups: dict[tuple[int, ...], list[tuple[int, int]]],
        sums: dict[tuple[int, ...], Term],
    ) -> Term:
        """The sum of a plane, of the sums of its groups: first by odd constants, then by their digits."""
        by_odd: dict[int, list[tuple[int, Term]]] = {}
        for column, term in sums.items():
            weight = column[plane]
            if weight:
                odd, place = _odd(abs(weight))
                turned = all(sign < 0 for sign, _ in groups[column])
                sign = (1 if weight > 0 else -1) * (-1 if turned else 1)
                by_odd.setdefault(odd, []).append((sign, Term(term.net, place)))
        terms: list[tuple[int, Term]] = []
        for odd, parts in sorted(by_odd.items()):
            # Of parts that are all subtracted, the sum is subtracted.
            sign = 1 if any(sign > 0 for sign, _ in parts) else -1
            term = circuit.total((sign * own, part) for own, part in parts)
            terms += [(sign * digit, Term(term.net, term.place + place)) for digit, place in signed_digits(odd)]
        return circuit.total(terms)


@cache
def _odd(magnitude: int) -> tuple[int, int]:
    """An odd number and a place: ``odd << place``."""
    place = (magnitude & -magnitude).bit_length() - 1
    return magnitude >> place, place


class Window(NamedTuple):
    """The taps that some output pixels of a layer have in common: all others lie in the padding."""

    rows: tuple[int, ...]
    """Of the kernel, those that lie inside."""
    columns: tuple[int, ...]
    pixels: int


@dataclass(frozen=True, eq=False)
class UnrolledLayer:
    """A convolution of which every output has a circuit of its own.

    Parameters
    ----------
    shape : geometry
    weights : signed integers (planes, out, in per group, ky, kx)
    coefs : integers (planes or pairs of planes, out)
    bits, signed, activation_planes : as for `UnrolledDot`
    """

    shape: ConvShape
    weights: np.ndarray
    coefs: np.ndarray
    bits: int
    signed: bool = False
    activation_planes: bool = False

    def __post_init__(self) -> None:
        if self.weights.shape[1:] != self.shape.weight_shape:
            raise FormatError(f"weights must have shape (planes, *{self.shape.weight_shape}), not {self.weights.shape}")

    def windows(self, height: int, width: int, *, padded: bool = False) -> list[Window]:
        """What output pixels of a map see, those of equal taps together; with `padded` all taps count as inside."""
        shape = self.shape
        rows, columns = shape.output_size(height, width)
        sides = zip((rows, columns), (height, width), shape.kernel, strict=True)
        inside: list[Counter[tuple[int, ...]]] = []
        for axis, (count, size, kernel) in enumerate(sides):
            first = (
                np.arange(count)[:, None] * shape.stride[axis]
                - shape.padding[axis]
                + np.arange(kernel) * shape.dilation[axis]
            )
            reached = (first >= 0) & (first < size) | padded
            inside.append(Counter(tuple(np.flatnonzero(each).tolist()) for each in reached))
        return [Window(y, x, m * n) for y, m in inside[0].items() for x, n in inside[1].items() if y and x]

    def dense(self) -> "UnrolledLayer":
        """The same layer as if no weight were zero: zeros become the least magnitude that it has, of either sign."""
        zeros = self.weights == 0
        if not zeros.any():
            return self
        least = int(np.abs(self.weights[~zeros]).min()) if not zeros.all() else 1
        signs = np.where(np.arange(self.weights.size).reshape(self.weights.shape) % 2, least, -least)
        return replace(self, weights=np.where(zeros, signs, self.weights))

    def with_coefficient_bits(self, bits: int) -> "UnrolledLayer":
        """The same layer with coefficients of planes rounded to so many bits; a single plane has none."""
        if len(self.coefs) == 1:
            return self
        step = 1 << (int(np.abs(self.coefs).max()).bit_length() + 1 - bits)
        return replace(self, coefs=np.rint(self.coefs / step).astype(np.int64)) if step > 1 else self

    def dot(self, channel: int, structure: Structure, window: Window | None = None) -> UnrolledDot:
        """The circuit of an output channel, its taps in the order (in, ky, kx)."""
        weights = self.weights[:, channel]
        if window is not None:
            weights = weights[:, :, window.rows][:, :, :, window.columns]
        return UnrolledDot(
            tuple(tuple(plane) for plane in weights.reshape(len(weights), -1).tolist()),
            tuple(self.coefs[:, channel].tolist()),
            self.bits,
            self.signed,
            self.activation_planes,
            structure,
        )
