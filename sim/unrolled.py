"""Layers for the unrolled architecture: their constants, seeded by scheme or taken from a network.

A seeded layer has Gaussian weights, brought to codes by the formula of each scheme's paper: what a trained layer of the
scheme looks like, where none is at hand. Focused layers are drawn about two means, two standard deviations from zero,
as trained ones are; nothing is pruned, since the paper's gate counts skip no zeros (its section 4.2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..kernels.conv import ConvShape
from ..kernels.errors import FormatError
from ..kernels.mac import signed_range
from ..kernels.nested import NestedGrid
from ..kernels.planes import TABLE_ENTRIES
from ..kernels.shift import ShiftFormat, fit_bias, least_exponent, nearest_codes
from ..kernels.unrolled import UnrolledLayer
from ..kernels.xor import XorNetwork
from .file import load
from .layer import MacLayer
from .manifest import Coding
from .plane_basis import PlaneBasis
from .weights import LayerWeights, WeightCodes, decode_weights

__all__ = [
    "SCHEMES",
    "Scheme",
    "SeededLayer",
    "load_layer",
    "network_layer",
    "scheme_named",
    "seeded_layer",
    "unrolled_layer",
]

FLEXOR_OUTPUTS = 20
FLEXOR_TAPS = 2
FOCUSED_MEAN_PLACE = 1
"""Of mu / sigma = 2, as a power of two."""
TERNARY_THRESHOLD = 0.7
"""Of the mean magnitude (Li, Zhang, Liu, "Ternary weight networks", 2016, eq. 6)."""
QEM_ROUNDS = 20


class Drawn(NamedTuple):
    """What a scheme makes of Gaussian weights."""

    codes: WeightCodes
    zero: np.ndarray | int = 0
    """Zero points of the weights, (out,)."""
    basis: PlaneBasis | None = None
    """Of activations that are planes."""
    amounts: np.ndarray | None = None
    """Alignment shifts of the input channels, (in,)."""


Shape = tuple[int, int, int, int]
Draw = Callable[[np.random.Generator, Shape], Drawn]


@dataclass(frozen=True)
class Scheme:
    """One scheme of the comparison.

    Parameters
    ----------
    name : on the command line and in reports
    title : with its source
    draw : makes a layer's codes of a generator and a weight shape
    activation_bits : bits of an activation
    """

    name: str
    title: str
    draw: Draw
    activation_bits: int = 8


@dataclass(frozen=True)
class SeededLayer:
    """A layer of a scheme: its codes, as a file has them, and its constants."""

    scheme: Scheme
    drawn: Drawn
    unrolled: UnrolledLayer

    @property
    def coded_bytes(self) -> int:
        """That its weights take in a file."""
        return int(self.drawn.codes.arrays(self.unrolled.shape)["weight"].nbytes)


def _fixed(bits: int) -> Draw:
    """Symmetric codes with one power of two as the step, the greatest magnitude inside."""

    def draw(rng: np.random.Generator, shape: Shape) -> Drawn:
        weights = rng.normal(size=shape)
        low, high = signed_range(bits)
        step = 2.0 ** np.ceil(np.log2(np.abs(weights).max() / high))
        return Drawn(WeightCodes.integer(np.clip(np.rint(weights / step), low, high).astype(np.int64), bits))

    return draw


def _nested(bits: int) -> Draw:
    def draw(rng: np.random.Generator, shape: Shape) -> Drawn:
        weights = rng.normal(size=shape)
        # Of three standard deviations: the learnt range of a wide tensor is not its greatest magnitude.
        return Drawn(WeightCodes.integer(NestedGrid(bits, signed=True).codes(weights, 3.0).astype(np.int64), bits))

    return draw


def _aciq(rng: np.random.Generator, shape: Shape) -> Drawn:
    """4-bit codes over each output channel's extremes with a whole zero point; steps of inputs one to four apart."""
    bits = 4
    weights = rng.normal(size=shape).reshape(shape[0], -1)
    low, high = weights.min(axis=1), weights.max(axis=1)
    step = (high - low) / ((1 << bits) - 1)
    zero = np.rint(-low / step)
    half = 1 << (bits - 1)
    codes = np.clip(np.rint(weights / step[:, None] + zero[:, None]), 0, (1 << bits) - 1) - half
    amounts = np.clip(np.rint(rng.normal(1, 0.5, shape[1])), 0, 2).astype(np.int64)
    return Drawn(WeightCodes.integer(codes.reshape(shape).astype(np.int64), bits), zero - half, amounts=amounts)


def _ternary(rng: np.random.Generator, shape: Shape) -> Drawn:
    weights = rng.normal(size=shape)
    codes = np.sign(weights) * (np.abs(weights) > TERNARY_THRESHOLD * np.abs(weights).mean())
    return Drawn(WeightCodes.integer(codes.astype(np.int64), 2))


def _shift(exponent_bits: int) -> Draw:
    def draw(rng: np.random.Generator, shape: Shape) -> Drawn:
        weights = rng.normal(size=shape)
        fmt = ShiftFormat(exponent_bits)
        fields = fmt.split(nearest_codes(weights, fmt, fit_bias(weights, exponent_bits, fmt.bits)))
        return Drawn(WeightCodes.shift(fields.sign, fields.exponent.astype(np.int64), exponent_bits))

    return draw


def _focused(bits: int, coding: Coding) -> Draw:
    """n-bit codes: the component, and a shift of n - 1 bits about its mean."""

    def draw(rng: np.random.Generator, shape: Shape) -> Drawn:
        rests, components = rng.normal(size=shape), rng.integers(0, 2, shape)
        exponent_bits = bits - 3
        fmt = ShiftFormat(exponent_bits, focused=True)
        bias = fit_bias(rests, exponent_bits, bits)
        least = least_exponent(rests, exponent_bits, bias, flush=True)
        found = fmt.split(nearest_codes(rests, fmt, bias, component=components, least=least, flush=True))
        codes = WeightCodes.focused(
            found.sign,
            found.exponent.astype(np.int64) + least - bias,
            components,
            minus=(-1, FOCUSED_MEAN_PLACE),
            plus=(1, FOCUSED_MEAN_PLACE),
            exponent_bits=exponent_bits,
            coding=coding,
        )
        return Drawn(codes)

    return draw


def _flexor(n_in: int) -> Draw:
    """Encrypted bits of noise: a trained layer's signs are as random."""

    def draw(rng: np.random.Generator, shape: Shape) -> Drawn:
        network = XorNetwork.random(n_in, FLEXOR_OUTPUTS, FLEXOR_TAPS, int(rng.integers(1 << 31)))
        encrypted = rng.integers(0, 2, (network.slices(int(np.prod(shape))), n_in)).astype(np.uint8)
        return Drawn(WeightCodes.xor([encrypted], [network], np.ones((1, shape[0]), dtype=np.int64), shape))

    return draw


def _binary_basis(planes: int) -> PlaneBasis:
    """The planes of a uniform grid, each worth half of the next.

    How values become words is not the array's business: of more than four planes, words follow single thresholds.
    """
    beta = [2.0**plane for plane in range(planes)]
    if planes < TABLE_ENTRIES.bit_length():
        return PlaneBasis.lq_net(beta)
    return PlaneBasis.abc_net(beta, np.linspace(0.1, 0.9, planes).tolist())


def _lqnet(activation_bits: int, planes: bool) -> Draw:
    """Two planes by quantisation error minimisation (Zhang et al., 2018, algorithm 1), each channel by itself.

    Activations of planes have the basis of a uniform grid.
    """

    def draw(rng: np.random.Generator, shape: Shape) -> Drawn:
        weights = rng.normal(size=shape).reshape(shape[0], -1)
        patterns = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])
        alpha = np.tile((0.5, 1.0), (shape[0], 1))
        for _ in range(QEM_ROUNDS):
            levels = alpha @ patterns.T
            nearest = np.abs(weights[:, :, None] - levels[:, None]).argmin(axis=2)
            signs = patterns[nearest]
            alpha = np.stack(
                [np.linalg.lstsq(each, row, rcond=None)[0] for each, row in zip(signs, weights, strict=True)]
            )
        found = signs.transpose(2, 0, 1).reshape(2, *shape)
        basis = _binary_basis(activation_bits) if planes else None
        return Drawn(WeightCodes.basis(found, alpha.T), basis=basis)

    return draw


def _abcnet(rng: np.random.Generator, shape: Shape) -> Drawn:
    """Five bases about shifted means with their least-squares coefficients (Lin et al., 2017, eq. 2 to 4).

    Five planes of activations have thresholds of their own.
    """
    count = 5
    weights = rng.normal(size=shape).reshape(shape[0], -1)
    shifts = np.linspace(-1, 1, count)[:, None, None] * weights.std(axis=1, keepdims=True)
    signs = np.where(weights - weights.mean(axis=1, keepdims=True) + shifts >= 0, 1, -1)
    alpha = np.stack(
        [np.linalg.lstsq(signs[:, c].T.astype(np.float64), weights[c], rcond=None)[0] for c in range(shape[0])]
    )
    basis = PlaneBasis.abc_net(rng.uniform(0.1, 0.4, count).tolist(), np.linspace(0.1, 0.9, count).tolist())
    return Drawn(WeightCodes.basis(signs.reshape(count, *shape), alpha.T), basis=basis)


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("abcnet", "ABC-Net, 5 bases, 5 bits", _abcnet, 5),
        Scheme("lqnet-a2", "LQ-Net, 2 bits, activations of 2 bits", _lqnet(2, planes=True), 2),
        Scheme("lqnet-a5", "LQ-Net, 2 bits, activations of 5 planes", _lqnet(5, planes=True), 5),
        Scheme("lqnet-a8", "LQ-Net, 2 bits, activations of 8 bits", _lqnet(8, planes=False)),
        Scheme("shift", "shift quantisation, 2-bit exponents", _shift(2)),
        Scheme("focused3", "Focused Quantisation, 3 bits", _focused(3, "raw")),
        Scheme("focused5", "Focused Quantisation, 5 bits", _focused(5, "raw")),
        Scheme("focused7", "Focused Quantisation, 7 bits", _focused(7, "raw")),
        Scheme("focused5-huffman", "Focused Quantisation, 5 bits, Huffman", _focused(5, "huffman")),
        Scheme("fixed8", "8-bit fixed point", _fixed(8)),
        Scheme("aciq", "ACIQ, 4-bit weights and activations", _aciq, 4),
        Scheme("flexor-0.4", "FleXOR, 0.4 bits", _flexor(8)),
        Scheme("flexor-0.6", "FleXOR, 0.6 bits", _flexor(12)),
        Scheme("flexor-0.8", "FleXOR, 0.8 bits", _flexor(16)),
        Scheme("bayesian2", "Bayesian Bits, 2 bits", _nested(2), 2),
        Scheme("bayesian4", "Bayesian Bits, 4 bits", _nested(4), 4),
        Scheme("bayesian8", "Bayesian Bits, 8 bits", _nested(8), 8),
        Scheme("ternary", "ternary weights", _ternary),
    )
}


def scheme_named(name: str) -> Scheme:
    """A scheme; `FormatError` where there is none of that name."""
    if name not in SCHEMES:
        raise FormatError(f"scheme must be one of {', '.join(SCHEMES)}, not {name!r}")
    return SCHEMES[name]


def seeded_layer(scheme: Scheme, shape: ConvShape, seed: int = 0) -> SeededLayer:
    """A layer of a scheme with seeded weights.

    >>> seeded_layer(SCHEMES["ternary"], ConvShape(16, 16, (3, 3))).unrolled.weights.shape
    (1, 16, 16, 3, 3)
    """
    drawn = scheme.draw(np.random.default_rng(seed), shape.weight_shape)
    codes = drawn.codes.meeting(None if drawn.basis is None else drawn.basis.spec)
    drawn = drawn._replace(codes=codes)
    planes = 1 if drawn.basis is None else len(drawn.basis.spec.beta)
    weights = decode_weights(codes.spec, shape, codes.arrays(shape).__getitem__, codes.networks, planes)
    factors = np.ones(shape.in_channels, dtype=np.int64) if drawn.amounts is None else 1 << drawn.amounts
    zero = np.broadcast_to(np.asarray(drawn.zero, dtype=np.int64), (shape.out_channels,))
    unrolled = unrolled_layer(shape, weights, factors, zero, 0, scheme.activation_bits, False, drawn.basis is not None)
    return SeededLayer(scheme, drawn, unrolled)


def unrolled_layer(
    shape: ConvShape,
    weights: LayerWeights | MacLayer,
    factors: np.ndarray,
    zero: np.ndarray,
    fraction: int,
    bits: int,
    signed: bool,
    activation_planes: bool,
) -> UnrolledLayer:
    """A layer's constants: zero points and alignment go into the weights, one plane's coefficient into the scale.

    Of a zero point with fraction bits, every weight has them: the outputs are in their units.
    """
    if len(weights.planes):
        signs = 2 * weights.planes.astype(np.int64) - 1
        coefs = weights.coefs.astype(np.int64)
        if zero.any():
            # What a zero point takes away is a plane of ones.
            signs = np.concatenate([signs, np.ones_like(signs[:1])])
            coefs = np.concatenate([coefs, -zero[None]])
        elif len(coefs) == 1:
            coefs = np.ones_like(coefs)
        return UnrolledLayer(shape, signs, coefs, bits, signed, activation_planes)
    each = (weights.weights.astype(np.int64) << fraction) - zero.reshape(-1, 1, 1, 1)
    if shape.groups == 1:
        each = each * factors.astype(np.int64).reshape(1, -1, 1, 1)
    elif (factors != factors[0]).any():
        raise FormatError("alignment of a grouped layer must be one for all channels to be unrolled")
    ones = np.ones((1, shape.out_channels), dtype=np.int64)
    return UnrolledLayer(shape, each[None], ones, bits, signed)


def network_layer(layer: MacLayer) -> UnrolledLayer:
    """The constants of a layer of a network."""
    if layer.mixed:
        raise FormatError(f"{layer.node.name}: a layer of mixed widths must not be unrolled")
    if layer.activations is not None and layer.zero.any():
        raise FormatError(f"{layer.node.name}: planes of activations with a zero point must not be unrolled")
    return unrolled_layer(
        layer.shape,
        layer,
        layer.factors,
        layer.zero,
        layer.node.fraction,
        layer.operands.a_bits,
        layer.operands.a_signed,
        layer.activations is not None,
    )


def load_layer(text: str) -> tuple[MacLayer, int]:
    """The layer that ``F.gw:NODE`` names, and the bytes of its weights in the file."""
    path, colon, name = text.rpartition(":")
    if not (path and colon and name):
        raise FormatError(f"weights must be given as F.gw:NODE, not {text!r}")
    network = load(path)
    if name not in network.layers:
        raise FormatError(f"{path}: {name!r} must be one of its layers: {', '.join(network.layers)}")
    return network.layers[name], network.arrays[f"{name}.weight"].nbytes
