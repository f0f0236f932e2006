"""Shift rows: dot products with powers of two and, in focused layers, with powers of two about two means.

Source: Zhao, Gao, Bates, Mullins, Xu, "Focused Quantization for Sparse CNNs" (NeurIPS 2019). Its shift quantiser
(eq. 1) has the values ``s * 2**(e - b)`` with s in {-1, 0, 1}, e in 0..2**k - 1 and a bias b per layer. Its
recentralised quantiser (eq. 2) gives each weight one of two components, whose mean it adds: ``sigma * shift + mu``; a
pruned weight is zero. The means over sigma are powers of two here, sigma is one per layer and goes into the output's
scale, so that ``y = sum(s * (x << e)) + mu_minus * S_minus + mu_plus * S_plus``, S the input sums of the components.
Plain power-of-two layers (Zhou et al., "Incremental Network Quantization", ICLR 2017) are the same without means.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from .errors import FormatError
from .mac import DIGIT_BITS, signed_range
from .tree import AdderTree

__all__ = [
    "MAX_EXPONENT",
    "Midpoint",
    "ShiftFields",
    "ShiftFormat",
    "ShiftPE",
    "ShiftRow",
    "ShiftTerms",
    "fit_bias",
    "focused_format",
    "least_exponent",
    "nearest_codes",
    "power_of_two",
    "signed_digit_passes",
]

Midpoint = Literal["arithmetic", "log"]
"""Where a magnitude between two powers of two goes over to the greater: at 1.5 or at sqrt(2) times the lesser."""

MAX_EXPONENT = 15
"""Greatest shift of a digit, of a row's shift terms and of a component's sum."""
MAX_EXPONENT_BITS = 5
EXPONENT_FIELD = 4
"""Bits of the exponent in what a PE holds."""
ZERO, POSITIVE, NEGATIVE, PRUNED = range(4)
"""States of a code; a focused zero still counts for its mean, a pruned one for nothing."""
MAX_INTEGER_BITS = 8
CODE_BITS = 8
"""Bits of what a PE holds; the top one means nothing."""


class ShiftFields(NamedTuple):
    """What codes hold, in arrays of their shape: int8 -1, 0 or 1, uint8, uint8 0 or 1, and bool."""

    sign: np.ndarray
    exponent: np.ndarray
    component: np.ndarray
    pruned: np.ndarray


@dataclass(frozen=True, slots=True)
class ShiftFormat:
    """The codes of one layer: from bit 0 on the exponent (k bits), the state (2), in focused layers the component (1).

    States are 0 zero, 1 plus, 2 minus, 3 pruned (focused layers only). Zero and pruned codes have exponent 0, pruned
    ones component 0: each weight has one code.

    Parameters
    ----------
    exponent_bits : k, 0..5; exponents of 16 and more are refused
    focused : whether weights have components, whose means are added
    value_shift : focused layers: left shift of the shift term, so that it and the means have one least bit;
        exponent and it together are at most 15
    minus, plus : focused layers: sign and left shift of the mean of component 0 and 1, ``sign * 2**shift``
    """

    exponent_bits: int
    focused: bool = False
    value_shift: int = 0
    minus: tuple[int, int] = (-1, 0)
    plus: tuple[int, int] = (1, 0)

    def __post_init__(self) -> None:
        if not 0 <= self.exponent_bits <= MAX_EXPONENT_BITS:
            raise FormatError(f"shift exponents must have 0 to {MAX_EXPONENT_BITS} bits, not {self.exponent_bits}")
        if not self.focused and self.value_shift:
            raise FormatError(f"value shift of a plain shift format must be 0, not {self.value_shift}")
        if not 0 <= self.value_shift <= MAX_EXPONENT:
            raise FormatError(f"value shift must lie in 0..{MAX_EXPONENT}, not {self.value_shift}")
        for name, (sign, shift) in (("minus", self.minus), ("plus", self.plus)):
            if sign not in (-1, 1):
                raise FormatError(f"sign of the {name} component must be -1 or 1, not {sign}")
            if not 0 <= shift <= MAX_EXPONENT:
                raise FormatError(f"shift of the {name} component must lie in 0..{MAX_EXPONENT}, not {shift}")

    @property
    def bits(self) -> int:
        """Bits of a stored code."""
        return self.exponent_bits + (3 if self.focused else 2)

    @property
    def exponent_rule(self) -> str:
        """What holds of every exponent."""
        return f"shift exponents must be at most {MAX_EXPONENT - self.value_shift}"

    def split(self, codes: np.ndarray) -> ShiftFields:
        """The fields of integer codes of any shape; `FormatError` where a code is not one of this format."""
        wide = np.asarray(codes).astype(np.int64)
        if wide.size and (wide.min() < 0 or wide.max() >= 1 << self.bits):
            raise FormatError(f"shift codes must have {self.bits} bits, found {wide.min()}..{wide.max()}")
        exponent = wide & ((1 << self.exponent_bits) - 1)
        state = (wide >> self.exponent_bits) & 3
        component = wide >> (self.exponent_bits + 2)
        if not self.focused:
            _refuse(state == PRUNED, wide, "codes of a plain shift format must not be pruned")
        valueless = (state == ZERO) | (state == PRUNED)
        _refuse(valueless & (exponent != 0), wide, "shift codes without a value must have exponent 0")
        _refuse((state == PRUNED) & (component != 0), wide, "pruned shift codes must have component 0")
        _refuse(exponent + self.value_shift > MAX_EXPONENT, wide, self.exponent_rule)
        return ShiftFields(
            sign=((state == POSITIVE).astype(np.int8) - (state == NEGATIVE).astype(np.int8)),
            exponent=exponent.astype(np.uint8),
            component=component.astype(np.uint8),
            pruned=state == PRUNED,
        )

    def join(
        self,
        sign: np.ndarray,
        exponent: np.ndarray,
        component: np.ndarray | int = 0,
        pruned: np.ndarray | bool = False,
    ) -> np.ndarray:
        """The uint8 codes of fields that broadcast; `FormatError` where there is none in this format."""
        sign, exponent, component = (np.asarray(field).astype(np.int64) for field in (sign, exponent, component))
        pruned = np.asarray(pruned, dtype=np.bool_)
        for name, field, low, high in (
            ("signs", sign, -1, 1),
            ("exponents", exponent, 0, (1 << self.exponent_bits) - 1),
            ("components", component, 0, int(self.focused)),
        ):
            if field.size and (field.min() < low or field.max() > high):
                raise FormatError(f"shift {name} must lie in {low}..{high}, found {field.min()}..{field.max()}")
        if (pruned & (sign != 0)).any():
            raise FormatError("pruned shift codes must have sign 0")
        state = np.where(pruned, PRUNED, np.where(sign > 0, POSITIVE, np.where(sign < 0, NEGATIVE, ZERO)))
        codes = (exponent | state << self.exponent_bits | component << (self.exponent_bits + 2)).astype(np.uint8)
        self.split(codes)
        return codes

    def weights(self, codes: np.ndarray) -> np.ndarray:
        """Exact int32 weights in units of the least bit: ``s * 2**e``, in focused layers shifted, plus the mean."""
        fields = self.split(codes)
        values = fields.sign.astype(np.int32) << (fields.exponent.astype(np.int32) + self.value_shift)
        if not self.focused:
            return values
        means = np.array([sign << shift for sign, shift in (self.minus, self.plus)], dtype=np.int32)
        return np.asarray(np.where(fields.pruned, 0, values + means[fields.component]).astype(np.int32))

    def pe_codes(self, codes: np.ndarray) -> np.ndarray:
        """What PEs hold, uint8: exponent in bits 0..3, state in 4..5, component in 6."""
        fields = self.split(codes)
        state = (np.asarray(codes).astype(np.int64) >> self.exponent_bits) & 3
        packed = fields.exponent | state << EXPONENT_FIELD | fields.component << (EXPONENT_FIELD + 2)
        return np.asarray(packed.astype(np.uint8))


def _refuse(wrong: np.ndarray, codes: np.ndarray, rule: str) -> None:
    """Raise `FormatError` with the first code that breaks the rule."""
    if wrong.any():
        raise FormatError(f"{rule}, found code {codes[wrong].flat[0]}")


class ShiftTerms(NamedTuple):
    """What one PE adds to the row's three sums, int64: shifted digit, and the digit in its component's sum."""

    value: np.ndarray
    minus: np.ndarray
    plus: np.ndarray


@dataclass(frozen=True, slots=True)
class ShiftPE:
    """Golden model of one PE: a digit shifted by a code, and routed to its component's sum."""

    @property
    def digit_bits(self) -> int:
        """Bits of a digit as a signed value, and of its negative."""
        return DIGIT_BITS + 1

    @property
    def value_bits(self) -> int:
        """Bits of the signed shifted digit."""
        return self.digit_bits + MAX_EXPONENT

    def compute(self, digits: np.ndarray, pe_codes: np.ndarray) -> ShiftTerms:
        """Terms of digit values (0..15 or -8..7) and PE codes (as `ShiftFormat.pe_codes` gives) that broadcast.

        Any 8 bits have a meaning: bit 7 counts for nothing, nor does the exponent of a code without a value.
        """
        digits = np.asarray(digits, dtype=np.int64)
        codes = np.asarray(pe_codes).astype(np.int64)
        state = (codes >> EXPONENT_FIELD) & 3
        sign = (state == POSITIVE).astype(np.int64) - (state == NEGATIVE)
        plus = (codes >> (EXPONENT_FIELD + 2)) & 1
        counted = np.where(state == PRUNED, 0, digits)
        return ShiftTerms((sign * digits) << (codes & MAX_EXPONENT), counted * (1 - plus), counted * plus)


@dataclass(frozen=True, slots=True)
class ShiftRow:
    """Parameters and golden model of a row of `lanes` PEs (a power of two)."""

    lanes: int

    def __post_init__(self) -> None:
        _ = self.out_bits  # the tree checks the lanes

    @property
    def pe(self) -> ShiftPE:
        return ShiftPE()

    @property
    def value_tree(self) -> AdderTree:
        """Sums the shifted digits."""
        return AdderTree(self.lanes, self.pe.value_bits)

    @property
    def digit_tree(self) -> AdderTree:
        """Sums the digits of one component."""
        return AdderTree(self.lanes, self.pe.digit_bits)

    @property
    def out_bits(self) -> int:
        """Bits of the exact signed sum: a weight is at most twice the greatest power of two."""
        return self.value_tree.out_bits + 1

    def compute(self, digits: np.ndarray, pe_codes: np.ndarray, fmt: ShiftFormat) -> np.ndarray:
        """Exact int64 row sums, shape (...), of digit values and PE codes (..., lanes) that broadcast.

        Of `fmt` it takes what a layer's registers hold: focused, and then the value shift and the means. `FormatError`
        where an exponent and the value shift come to more than 15.
        """
        codes = np.asarray(pe_codes).astype(np.int64)
        _refuse((codes & MAX_EXPONENT) + fmt.value_shift > MAX_EXPONENT, codes, fmt.exponent_rule)
        means = (np.int64(sign << shift) for sign, shift in (fmt.minus, fmt.plus))
        return self.combine(self.sums(digits, pe_codes), np.bool_(fmt.focused), np.int64(fmt.value_shift), *means)

    def sums(self, digits: np.ndarray, pe_codes: np.ndarray) -> ShiftTerms:
        """The row's three sums over the lanes: of shifted digits, and of the digits of each component."""
        terms = np.broadcast_arrays(*self.pe.compute(digits, pe_codes))
        trees = (self.value_tree, self.digit_tree, self.digit_tree)
        return ShiftTerms(*(tree.compute(term) for tree, term in zip(trees, terms, strict=True)))

    @staticmethod
    def combine(
        sums: ShiftTerms,
        focused: np.ndarray | np.bool_,
        value_shift: np.ndarray | np.int64,
        minus_mean: np.ndarray | np.int64,
        plus_mean: np.ndarray | np.int64,
    ) -> np.ndarray:
        """The row sum of three sums; where it is not focused, the shift and the means count for nothing."""
        with_means = (sums.value << value_shift) + minus_mean * sums.minus + plus_mean * sums.plus
        return np.asarray(np.where(focused, with_means, sums.value))


def _finite(values: np.ndarray, midpoint: Midpoint) -> np.ndarray:
    """Checked float64 values."""
    if midpoint not in get_args(Midpoint):
        raise FormatError(f"midpoint must be {' or '.join(get_args(Midpoint))}, not {midpoint!r}")
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise FormatError("values of a shift layer must be finite numbers")
    return values


def _nearest_exponents(magnitudes: np.ndarray, midpoint: Midpoint) -> np.ndarray:
    """Exponents t of the powers of two ``2**t`` nearest to positive magnitudes, int64; unlimited.

    Half way in arithmetic terms goes up: a mantissa of 1.5 rounds half to even. No float64 is half way in logarithmic
    ones, and the float64 next to sqrt(2) lies above it, so that this comparison is exact.
    """
    mantissas, exponents = np.frexp(magnitudes)
    up = 2 * mantissas >= (1.5 if midpoint == "arithmetic" else math.sqrt(2))
    return np.asarray(exponents.astype(np.int64) - 1 + up)


def _quantised(values: np.ndarray, exponent_bits: int, bias: int, midpoint: Midpoint) -> tuple[np.ndarray, np.ndarray]:
    """Signs and exponents 0..2**k - 1 of the nearest ``s * 2**(e - bias)``: the shift quantiser, saturating.

    A mantissa that rounds up is saturated after it has; at half of the least magnitude and below, values are zero.
    """
    values = _finite(values, midpoint)
    magnitudes = np.abs(values)
    zero = magnitudes <= math.ldexp(0.5, -bias)
    exponents = _nearest_exponents(np.where(zero, 1.0, magnitudes), midpoint) + bias
    exponents = np.where(zero, 0, exponents.clip(0, (1 << exponent_bits) - 1))
    return np.where(zero, 0, np.sign(values)).astype(np.int8), exponents


def least_exponent(
    values: np.ndarray,
    exponent_bits: int,
    bias: int,
    midpoint: Midpoint = "arithmetic",
    *,
    span: int = MAX_EXPONENT,
    flush: bool = False,
) -> int:
    """The exponent that a layer stores as 0: the smallest that its nearest codes use.

    Stored exponents are at most `span`: 15, in focused layers less the value shift. Where more are used, `FormatError`;
    with `flush` the least that keeps the greatest, and `nearest_codes` turns what lies below into zeros.
    """
    signs, exponents = _quantised(values, exponent_bits, bias, midpoint)
    used = exponents[signs != 0]
    if not used.size:
        return 0
    least, most = int(used.min()), int(used.max())
    if most - least > span and not flush:
        raise FormatError(f"exponents of a shift layer must span at most {span}, found {least}..{most}")
    return max(least, most - span)


def nearest_codes(
    values: np.ndarray,
    fmt: ShiftFormat,
    bias: int,
    midpoint: Midpoint = "arithmetic",
    *,
    component: np.ndarray | int = 0,
    pruned: np.ndarray | bool = False,
    least: int = 0,
    flush: bool = False,
) -> np.ndarray:
    """Codes (uint8, the values' shape) of the nearest values ``s * 2**(e - bias)``, e in 0..2**k - 1.

    Parameters
    ----------
    values : floats; in focused layers ``(t - mu) / sigma`` of each weight, by its component
    component, pruned : focused layers: which mean was taken off, and which weights are pruned (whatever their values)
    least : exponent that is stored as 0 (`least_exponent`): the codes are worth ``s * 2**(e + least - bias)``
    flush : turn values of lesser exponents than `least` into zeros; without, they are refused
    """
    pruned = np.broadcast_to(np.asarray(pruned, dtype=np.bool_), np.shape(values))
    component = np.where(pruned, 0, component)
    signs, exponents = _quantised(np.where(pruned, 0.0, values), fmt.exponent_bits, bias, midpoint)
    small = (signs != 0) & (exponents < least)
    if small.any() and not flush:
        raise FormatError(f"exponents of a shift layer must be at least {least}, found {exponents[small].min()}")
    signs = np.where(small, 0, signs)
    return fmt.join(signs, np.where(signs != 0, exponents - least, 0), component, pruned)


def fit_bias(values: np.ndarray, exponent_bits: int, bits: int, midpoint: Midpoint = "arithmetic") -> int:
    """The greatest bias at which at most a fraction ``1 / (2**bits + 1)`` of the values overflows (section 3.3).

    A value overflows where its nearest power of two is beyond the greatest of the format, so that it is clipped. `bits`
    is n, the bits of a whole weight.
    """
    values = _finite(values, midpoint)
    magnitudes = np.abs(values[values != 0])
    if not magnitudes.size:
        return 0
    exponents = np.sort(_nearest_exponents(magnitudes, midpoint))
    allowed = values.size // ((1 << bits) + 1)
    # What is allowed to overflow leaves a greatest exponent behind, or nothing does: then the least will do.
    top = exponents[max(len(exponents) - 1 - allowed, 0)]
    return (1 << exponent_bits) - 1 - int(top)


def power_of_two(value: float, midpoint: Midpoint = "arithmetic") -> tuple[int, int]:
    """Sign and exponent t of the nearest ``sign * 2**t``, as the means of a focused layer are rounded."""
    if not math.isfinite(value) or value == 0:
        raise FormatError(f"mean of a component must be a finite number other than 0, not {value}")
    return (1 if value > 0 else -1), int(_nearest_exponents(_finite(np.abs(value), midpoint), midpoint))


def focused_format(
    exponent_bits: int, bias: int, minus: tuple[int, int], plus: tuple[int, int]
) -> tuple[ShiftFormat, int]:
    """Format of a focused layer, and the exponent u of its least bit: a weight is worth ``weights * 2**u``.

    `bias` is that of the stored exponents (the layer's own less `least_exponent`); `minus` and `plus` are the
    means over sigma, ``sign * 2**t`` as `power_of_two` gives them. ``u = -max(bias, -t)``.
    """
    places = max(bias, -minus[1], -plus[1])
    means = [(sign, exponent + places) for sign, exponent in (minus, plus)]
    return ShiftFormat(exponent_bits, True, places - bias, *means), -places


def signed_digit_passes(codes: np.ndarray, bits: int = MAX_INTEGER_BITS) -> np.ndarray:
    """Signed integers of `bits` bits as sums of signed powers of two: PE codes (passes, *shape), uint8.

    The non-adjacent form (Reitwiesner, 1960) has the fewest terms that an integer can have: at most ``ceil(bits / 2)``
    here. Least powers come first; there are as many passes as the longest code needs, at least one, and codes that
    need fewer hold zeros. No code is pruned, and all are codes of a plain layer.
    """
    if not 1 <= bits <= MAX_INTEGER_BITS:
        raise FormatError(f"integers of a shift array must have 1 to {MAX_INTEGER_BITS} bits, not {bits}")
    rest = np.array(codes, dtype=np.int64)
    low, high = signed_range(bits)
    if rest.size and (rest.min() < low or rest.max() > high):
        raise FormatError(f"integers of {bits} bits must lie in {low}..{high}, found {rest.min()}..{rest.max()}")
    shape, rest = rest.shape, rest.ravel()
    passes = np.zeros((-(-bits // 2), rest.size), dtype=np.uint8)
    used = np.zeros(rest.shape, dtype=np.int64)
    for exponent in range(bits):
        # An odd rest takes the one of +1 and -1 that leaves a multiple of four.
        digit = np.where(rest & 1, 2 - (rest & 3), 0)
        rest = (rest - digit) >> 1
        pe_code = exponent | np.where(digit > 0, POSITIVE, NEGATIVE) << EXPONENT_FIELD
        at = np.flatnonzero(digit)
        passes[used[at], at] = pe_code[at]
        used[at] += 1
    count = max(1, int(used.max(initial=0)))
    return passes[:count].reshape(count, *shape)
