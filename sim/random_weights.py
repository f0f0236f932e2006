"""Random weights of every scheme, for random networks: spread over what the codes of each can say."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..kernels.conv import ConvShape
from ..kernels.digits import BYTE_BITS
from ..kernels.shift import MAX_EXPONENT
from ..kernels.xor import XorNetwork
from .manifest import ActivationPlanes
from .random_options import EXPONENT_BITS, GROUPS, PLANES, Decisions
from .weights import WeightCodes, decode_weights

__all__ = ["RandomWeights", "ZeroTerm", "draw_weights", "draw_widths"]

ZeroTerm = Literal["none", "whole", "fraction"]

MOST_ZERO = {"int": 2000, "shift": 2000, "focused": 2000, "xor": 30_000, "basis": 30_000}
"""Greatest zero points in steps: with three fraction bits, or those of the coefficients, they have 16 bits."""
MAX_FOCUSED_BITS = 4
"""Exponent bits of focused codes: with 5 no exponent is greater."""
MAX_SLICE = 20
"""Inputs and outputs of an XOR network."""
MAX_SIDE = 64


@dataclass(frozen=True, slots=True)
class RandomWeights:
    """Weights of a layer as `NetworkBuilder` takes them, and what they stand for in units of the layer's scale.

    Parameters
    ----------
    codes : for the builder
    real : the weights, float64
    zero : their zero points, float64 (out,)
    step : of the corrected value, before fraction bits that the zero points need, float64 (out,)
    """

    codes: WeightCodes
    real: np.ndarray
    zero: np.ndarray
    step: np.ndarray

    @property
    def reach(self) -> float:
        """What one step of the accumulators is in the corrected value, about."""
        if self.codes.coefs is None:
            return float(np.median(self.step))
        return float(np.median(self.step * np.sqrt((self.codes.coefs.astype(np.float64) ** 2).sum(axis=0))))


def draw_weights(
    draw: Decisions,
    rng: np.random.Generator,
    scheme: str,
    shape: tuple[int, ...],
    groups: int,
    term: ZeroTerm,
    *,
    whole: bool,
    widths: Sequence[int],
    most_planes: int = 8,
    activations: ActivationPlanes | None = None,
) -> RandomWeights:
    """Weights (out, in per group, ky, kx) or (out, in) of a scheme, with zero points of a kind.

    `whole` is whether coefficients must come without fraction bits; `widths` are what integer codes may have,
    `most_planes` bounds sign planes; `activations` are the planes that they meet, if they do.
    """
    match scheme:
        case "shift":
            codes = _shift(draw, rng, shape)
        case "focused":
            codes = _focused(draw, rng, shape)
        case "xor":
            codes = _xor(draw, rng, shape, term, whole, most_planes)
        case "basis":
            planes = _planes(draw, most_planes)
            numbers, fraction = _coefficients(rng, planes, shape[0], term, whole)
            signs = np.where(rng.random((planes, *shape)) < _share(draw, rng), 1, -1)
            codes = WeightCodes.basis(signs, numbers, fraction)
        case _:
            return _integers(draw, rng, shape, term, widths)
    found = _with_zeros(rng, codes, groups, term)
    if activations is None:
        return found
    paired = codes.meeting(activations)
    return replace(found, codes=paired, step=np.broadcast_to(paired.unit, (shape[0],)).copy())


def _integers(
    draw: Decisions, rng: np.random.Generator, shape: tuple[int, ...], term: ZeroTerm, widths: Sequence[int]
) -> RandomWeights:
    bits = draw.option("weight bits", widths)
    if bits <= BYTE_BITS and draw.option("weight widths", ("one", "mixed")) == "mixed":
        few, most = draw.option("fewer digits", ("in row groups", "anywhere")) != "anywhere", max(widths)
        return _mixed(rng, shape, term, draw.between(min(5, most), most) if few else bits, few)
    signed = term == "none" or bool(draw.between(0, 1))
    low = -(1 << (bits - 1)) if signed else 0
    codes = rng.integers(low, low + (1 << bits), shape)
    zero = np.zeros(shape[0])
    if term != "none":
        zero = rng.integers(low, low + (1 << bits), shape[0]).astype(np.float64)
    return RandomWeights(
        WeightCodes.integer(codes, bits, signed), codes, _certain(rng, zero, term, np.ones(1)), np.ones(shape[0])
    )


def _mixed(rng: np.random.Generator, shape: tuple[int, ...], term: ZeroTerm, bits: int, few: bool) -> RandomWeights:
    """Codes whose width is each output channel's own; `few` are wide."""
    widths = draw_widths(rng, shape[0], bits, few)
    ends = np.where(widths > 0, 1 << np.maximum(widths - 1, 0), 0).reshape(-1, *[1] * (len(shape) - 1))
    codes = rng.integers(-ends, np.maximum(ends, 1), shape)
    zero = np.zeros(shape[0])
    if term != "none":
        zero = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape[0]).astype(np.float64)
    made = WeightCodes.integer(codes, widths)
    return RandomWeights(made, codes, _certain(rng, zero, term, np.ones(1)), np.ones(shape[0]))


def draw_widths(rng: np.random.Generator, channels: int, bits: int, few: bool = False) -> np.ndarray:
    """Widths of channels, 0 to `bits`, which one has: few or many of them wide, in any order or in their own."""
    wide = rng.random(channels) < (0.1 if few else rng.choice((0.1, 0.3, 0.7)))
    widths = np.where(wide, rng.integers(min(5, bits), bits + 1, channels), rng.integers(0, min(4, bits) + 1, channels))
    widths[rng.integers(channels)] = bits
    return np.asarray((widths, np.sort(widths), np.sort(widths)[::-1])[rng.integers(3)])


def _with_zeros(rng: np.random.Generator, codes: WeightCodes, groups: int, term: ZeroTerm) -> RandomWeights:
    """With what the stored codes say, and zero points of the size of the weights."""
    out, inputs, *kernel = codes.shape
    shape = ConvShape(inputs * groups, out, (kernel[0], kernel[1]) if kernel else (1, 1), groups=groups)
    decoded = decode_weights(codes.spec, shape, codes.arrays(shape).__getitem__, codes.networks).weights
    step = np.broadcast_to(codes.unit * 2.0**-codes.fraction, (out,)).copy()
    real = (decoded.reshape(out, -1) * step[:, None]).reshape(codes.shape)
    zero = np.zeros(out)
    if term != "none":
        most = MOST_ZERO[codes.spec.scheme]
        size = min(float(decoded.std()) + 1, most / 4)
        zero = np.clip(np.rint(rng.normal(0, size, out)), -most, most) * step
    fraction = term if codes.coefs is None or term == "none" else "whole"
    return RandomWeights(codes, real, _certain(rng, zero, fraction, step), step)


def _certain(rng: np.random.Generator, zero: np.ndarray, term: ZeroTerm, step: np.ndarray) -> np.ndarray:
    """Zero points of which one at least is what `term` says."""
    if term != "none":
        zero[0] += step[0] * (not zero.any())
    if term == "fraction":
        zero += step * rng.uniform(-0.5, 0.5, len(zero))
        zero[0] = (np.floor(zero[0] / step[0]) + 0.25) * step[0]
    return zero


def _exponents(draw: Decisions, rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """From 0 up to as many as `bits` bits hold or fewer; all alike, or the small ones more often."""
    most = min((1 << bits) - 1, MAX_EXPONENT)
    most = draw.between(0, most) if draw.between(0, 1) else most
    return rng.integers(0, most + 1, shape) if draw.between(0, 1) else np.minimum(rng.geometric(0.5, shape) - 1, most)


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """-1, 0 and 1, the zeros of which may be few or many."""
    zeros = rng.choice((0, 0.1, 0.4))
    return rng.choice((-1, 0, 1), shape, p=((1 - zeros) / 2, zeros, (1 - zeros) / 2))


def _shift(draw: Decisions, rng: np.random.Generator, shape: tuple[int, ...]) -> WeightCodes:
    bits = draw.between(*EXPONENT_BITS[draw.option("exponent bits", tuple(EXPONENT_BITS))])
    exponents = _exponents(draw, rng, bits, shape) + draw.between(-6, 3)
    return WeightCodes.shift(_signs(rng, shape), exponents, bits)


def _focused(draw: Decisions, rng: np.random.Generator, shape: tuple[int, ...]) -> WeightCodes:
    """Means up to fifteen binary places below and above the least power of two, both of any sign."""
    low, high = EXPONENT_BITS[draw.option("exponent bits", tuple(EXPONENT_BITS))]
    bits = draw.between(low, min(high, MAX_FOCUSED_BITS))
    exponents = _exponents(draw, rng, bits, shape)
    least = -draw.between(0, min(MAX_EXPONENT - int(exponents.max()), draw.option("value shift", (0, 2, 15))))
    # Means beyond the greatest weights would leave no others.
    top = min(least + MAX_EXPONENT, max(int(exponents.max()), least) + draw.between(0, 1))
    means = [(int(rng.choice((-1, 1))), draw.between(least, top)) for _ in range(2)]
    if draw.between(0, 1):
        means = [(-1, means[0][1]), (1, means[1][1])]
    pruned = rng.random(shape) < draw.option("pruned", (0, 0.2, 0.7))
    components = rng.integers(0, 2, shape)
    return WeightCodes.focused(
        _signs(rng, shape), exponents, components, pruned, minus=means[0], plus=means[1], exponent_bits=bits
    )


def _share(draw: Decisions, rng: np.random.Generator) -> float:
    """Share of ones: half, or so few that the sums of a plane are great."""
    return 0.5 if draw.between(0, 1) else float(rng.uniform(0, 0.2))


def _planes(draw: Decisions, most: int) -> int:
    ranges = {name: (low, min(high, most)) for name, (low, high) in PLANES.items() if low <= most}
    return draw.between(*ranges[draw.option("planes", tuple(ranges))])


def _xor(
    draw: Decisions, rng: np.random.Generator, shape: tuple[int, ...], term: ZeroTerm, whole: bool, most: int
) -> WeightCodes:
    """Planes of up to three networks; slices of noise, so that signs are what the networks make of it."""
    networks = [
        XorNetwork.random(inputs, draw.between(1, MAX_SLICE), draw.option("taps", (None, min(2, inputs))), at)
        for at, inputs in enumerate(draw.between(1, MAX_SLICE) for _ in range(draw.between(1, 3)))
    ]
    chosen = [networks[draw.between(0, len(networks) - 1)] for _ in range(_planes(draw, most))]
    count = int(np.prod(shape))
    share = _share(draw, rng)
    encrypted = [(rng.random((network.slices(count), network.n_in)) < share).astype(np.uint8) for network in chosen]
    tile = None
    if draw.option("order", GROUPS["order"]) == "tile":
        tile = draw.between(1, MAX_SIDE), draw.between(1, MAX_SIDE)
    numbers, fraction = _coefficients(rng, len(chosen), shape[0], term, whole)
    return WeightCodes.xor(encrypted, chosen, numbers, shape, fraction=fraction, tile=tile)


def _coefficients(
    rng: np.random.Generator, planes: int, out: int, term: ZeroTerm, whole: bool
) -> tuple[np.ndarray, int]:
    """Real ones that halve from plane to plane, small whole ones, or the ends of 16 bits among others."""
    fraction = 0 if whole or term == "whole" else int(rng.integers(term == "fraction", 16))
    match rng.integers(3):
        case 0 if not fraction:
            sizes = rng.uniform(0.5, 1, (planes, out)) * 2.0 ** -np.arange(planes)[:, None]
            return sizes * rng.choice((-1, 1), (planes, out)), 0
        case 1:
            ends = rng.choice((-32768, -32767, 32767), (planes, out))
            return np.where(rng.random((planes, out)) < 0.5, ends, rng.integers(-32768, 32768, (planes, out))), fraction
        case _:
            return rng.integers(-300, 301, (planes, out)), fraction
