"""Weights of a layer: from plain integers to a file's arrays, and back.

`WeightCodes` is what users with their own training code hand to `NetworkBuilder`; `decode_weights` reads any
scheme's arrays. Formulas of the schemes: `gatewise.kernels.shift`, `xor`, `planes` and `huffman`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..kernels.addressing import TileOrder, stream_weights, weight_stream
from ..kernels.conv import ConvShape
from ..kernels.errors import FormatError
from ..kernels.huffman import HuffmanCode
from ..kernels.mac import signed_range
from ..kernels.nested import NestedGrid
from ..kernels.packing import pack_codes, pack_rows, unpack_codes, unpack_rows
from ..kernels.planes import COEFFICIENT_BITS, MAX_PLANE_FRACTION, TABLE_PLANES, fixed_coefficients, pair_coefficients
from ..kernels.shift import MAX_EXPONENT
from ..kernels.xor import XorNetwork
from .graph import PlaneWeights, plane_bytes
from .manifest import (
    ActivationPlanes,
    BasisWeights,
    Coding,
    FocusedWeights,
    IntWeights,
    ShiftWeights,
    Weights,
    XorNetworkSpec,
    XorWeights,
)
from .validation import checked
from .widths import check_codes, check_widths

__all__ = ["LayerWeights", "Symbols", "WeightCodes", "decode_weights", "huffman_code", "least_code", "symbol_arrays"]

MAX_WIDTH = 8
"""Bits of a channel's weights."""

Symbols = IntWeights | ShiftWeights | FocusedWeights
"""Weights that are one code each."""
Arrays = Callable[[str], np.ndarray]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Decoded weights of a layer, (out, in per group, ky, kx) unless stated otherwise."""

    codes: np.ndarray
    """int: signed codes, int16. shift, focused: stored codes, uint8. xor, basis: bit p is plane p, uint8."""
    weights: np.ndarray
    """Exact integers; in units of the coefficients' fraction for xor and basis, int32, of the codes for the rest."""
    planes: np.ndarray
    """Sign bits (planes, out, in per group, ky, kx), 1 for +1 and 0 for -1, uint8; no planes but for xor, basis."""
    coefs: np.ndarray
    """Coefficients (planes, out), int16; of pairs of planes where activations are planes."""
    widths: np.ndarray
    """Bits of each output channel's weights, int64 (out,): those of all unless the layer says otherwise."""


def decode_weights(
    spec: Weights, shape: ConvShape, array: Arrays, networks: Mapping[str, XorNetworkSpec], activations: int = 1
) -> LayerWeights:
    """Read the weights of a layer; `array(role)` gives a stored array whose shape and dtype have been checked.

    `activations` are the planes of activations that each weight plane meets.
    """
    widths = np.full(shape.out_channels, spec.bits, dtype=np.int64)
    if isinstance(spec, PlaneWeights):
        planes = _decode_planes(spec, shape, array("weight"), networks)
        coefs = array("coef")
        signs = 2 * planes.astype(np.int32) - 1
        each = coefs.astype(np.int32).reshape(len(planes), activations, -1).sum(axis=1, dtype=np.int32)
        weights = (signs * each.reshape(*each.shape, 1, 1, 1)).sum(axis=0, dtype=np.int32)
        places = np.arange(len(planes), dtype=np.uint8).reshape(-1, 1, 1, 1, 1)
        return LayerWeights(np.bitwise_or.reduce(planes << places, axis=0), weights, planes, coefs, widths)
    count = int(np.prod(shape.weight_shape))
    mixed = isinstance(spec, IntWeights) and spec.widths
    if mixed:
        widths = check_widths("widths of weights", array("widths"), spec.bits)
    if spec.coding == "huffman":
        stored = _decode_symbols(spec, count, array)
    elif mixed:
        stored = unpack_rows(array("weight"), widths, count // len(widths)).reshape(-1)
    else:
        stored = _unpack(spec, count, array("weight"))
    codes = stream_weights(stored, shape.weight_shape)
    if mixed:
        check_codes(codes, widths)
    planes, coefs = np.empty((0, *codes.shape), dtype=np.uint8), np.empty((0, len(codes)), dtype=np.int16)
    weights = codes if isinstance(spec, IntWeights) else spec.format.weights(codes)
    return LayerWeights(codes, weights, planes, coefs, widths)


def least_code(spec: Symbols) -> int:
    """The code that Huffman symbol 0 stands for; the others follow."""
    return signed_range(spec.bits)[0] if isinstance(spec, IntWeights) else 0


def _unpack(spec: Symbols, count: int, data: np.ndarray) -> np.ndarray:
    if isinstance(spec, IntWeights):
        return unpack_codes(data, count, spec.bits, signed=True)
    _check_spare(data, count * spec.bits)
    return unpack_codes(data, count, spec.bits, signed=False).astype(np.uint8)


def _decode_symbols(spec: Symbols, count: int, array: Arrays) -> np.ndarray:
    symbols = huffman_code(spec, array("huffman")).decode(array("weight"), count)
    if isinstance(spec, IntWeights):
        return symbols.astype(np.int16) + np.int16(least_code(spec))
    return symbols.astype(np.uint8)


def huffman_code(spec: Symbols, table: np.ndarray) -> HuffmanCode:
    """The code of a layer, which has a symbol for each of the layer's codes."""
    code = HuffmanCode.from_table(table)
    if len(code.lengths) != 1 << spec.bits:
        raise FormatError(
            f"the Huffman table of {spec.bits}-bit codes must have {1 << spec.bits} symbols, not {len(code.lengths)}"
        )
    return code


def _decode_planes(
    spec: PlaneWeights, shape: ConvShape, data: np.ndarray, networks: Mapping[str, XorNetworkSpec]
) -> np.ndarray:
    count = int(np.prod(shape.weight_shape))
    sizes = plane_bytes(spec, count, networks)
    tile = spec.tile.order if isinstance(spec, XorWeights) and spec.tile else None
    planes = np.empty((len(sizes), *shape.weight_shape), dtype=np.uint8)
    for plane, part in enumerate(np.split(data, np.cumsum(sizes)[:-1])):
        if isinstance(spec, XorWeights):
            bits = networks[spec.planes[plane]].network.decode_stream(part, count)
        else:
            _check_spare(part, count)
            bits = np.unpackbits(part, count=count, bitorder="little")
        planes[plane] = stream_weights(bits, shape.weight_shape, shape.groups, tile)
    return planes


def _check_spare(data: np.ndarray, bits: int) -> None:
    """Bits of the last byte that belong to no code are 0, so that one content has one form."""
    spare = -bits % 8
    if spare and int(data[-1]) >> (8 - spare):
        raise FormatError(f"the last {spare} bits of a weight stream must be 0, not {int(data[-1]) >> (8 - spare):#x}")


@dataclass(frozen=True, slots=True, eq=False)
class WeightCodes:
    """Weights of one layer from plain arrays: `integer`, `nested`, `shift`, `focused`, `basis`, `xor` and `encrypt`
    make them.

    Arrays have the shape of the weights, (out, in per group, ky, kx) or (out, in) for a linear layer; planes come
    before it. Weights stand for ``real = scale * (weight - zero_point)``, with the `scale` and `zero_point` that
    `NetworkBuilder` is told and the `weight` that each constructor defines.

    Example
    -------
    >>> net.conv2d("a", x, WeightCodes.shift(sign, exponent, coding="huffman"), scale=0.01, out=Grid(0.05, 4))
    >>> net.conv2d("b", x, WeightCodes.basis(signs, alpha), scale=1.0, out=Grid(0.05, 4))
    """

    spec: Weights
    """The manifest's entry."""
    shape: tuple[int, ...]
    values: np.ndarray
    """Codes (*shape), sign bits (planes, *shape), or the bytes of encrypted planes."""
    coefs: np.ndarray | None = None
    """Coefficients of planes, or of pairs with activation planes, int16 (planes, out)."""
    alpha: np.ndarray | None = None
    """What the coefficients of weight planes are before any rounding, float64 (planes, out); none of given pairs."""
    fraction: int = 0
    """Fraction bits of the coefficients."""
    unit: np.ndarray | float = 1.0
    """What one step of the stored integers, the fraction included, is in units of `scale`: for all, or by channel.

    Thresholds count steps of ``scale * unit * 2**-fraction``, times the input's scale.
    """
    offset: int = 0
    """What stored integers and zero points are less than the user's."""
    networks: Mapping[str, XorNetworkSpec] = field(default_factory=dict)
    """XOR networks by the name that `spec` has for them, which their content makes."""
    widths: np.ndarray | None = None
    """Bits of each output channel's codes, uint8 (out,), where they have different ones."""

    @classmethod
    def integer(
        cls, codes: np.ndarray, bits: int | np.ndarray, signed: bool = True, coding: Coding = "raw"
    ) -> "WeightCodes":
        """Scheme ``int``: weights are `codes` of 1..16 bits; unsigned ones are stored less ``2**(bits - 1)``.

        With an array (out,) of `bits` each output channel has its own, 0..8, and its codes are signed: a channel of
        0 bits has zeros.
        """
        if np.ndim(bits):
            return cls._mixed(codes, np.asarray(bits), signed, coding)
        bits = int(bits)
        spec = checked(IntWeights, bits=bits, coding=coding)
        offset = 0 if signed else 1 << (bits - 1)
        stored = _integers("codes", codes).astype(np.int64) - offset
        low, high = signed_range(bits)
        if stored.size and (stored.min() < low or stored.max() > high):
            raise FormatError(f"{bits}-bit codes must lie in {low}..{high}, found {stored.min()}..{stored.max()}")
        return cls(spec, stored.shape, stored, offset=offset)

    @classmethod
    def nested(
        cls,
        weights: np.ndarray,
        bits: int,
        limit: float,
        pruned: np.ndarray | None = None,
        coding: Coding = "raw",
    ) -> "WeightCodes":
        """Scheme ``int``: real `weights` on Bayesian Bits' symmetric grid (`gatewise.kernels.nested.NestedGrid`).

        Parameters
        ----------
        bits : 0, 2, 4, 8 or 16; with 0 all is pruned, and stored as 2 bits
        limit : greatest value in magnitude; beyond it weights are clipped
        pruned : output channels (out,) whose weights are all 0
        coding : "raw" or "huffman"

        The grid's step is in `unit`: the weights are those given where `scale` is 1.
        """
        grid = NestedGrid(bits, signed=True)
        codes = grid.codes(weights, limit)
        if pruned is not None:
            if np.shape(pruned) != codes.shape[:1]:
                raise FormatError(f"pruned channels must have shape {codes.shape[:1]}, not {np.shape(pruned)}")
            codes[np.asarray(pruned).astype(bool)] = 0
        step = grid.step(limit) if bits else limit
        return replace(cls.integer(codes, bits or 2, coding=coding), unit=step)

    @classmethod
    def _mixed(cls, codes: np.ndarray, widths: np.ndarray, signed: bool, coding: Coding) -> "WeightCodes":
        stored = _integers("codes", codes).astype(np.int64)
        widths = _integers("widths", widths)
        if not signed:
            raise FormatError("codes of different widths must be signed: unsigned ones have one zero point less each")
        if widths.shape != stored.shape[:1]:
            raise FormatError(f"widths must have shape {stored.shape[:1]}, not {widths.shape}")
        if widths.min(initial=0) < 0 or widths.max(initial=0) > MAX_WIDTH:
            raise FormatError(f"widths must be from 0 to {MAX_WIDTH} bits, found {widths.min()}..{widths.max()}")
        check_codes(stored, widths)
        spec = checked(IntWeights, bits=max(1, int(widths.max())), coding=coding, widths=True)
        return cls(spec, stored.shape, stored, widths=widths.astype(np.uint8))

    @classmethod
    def shift(
        cls, sign: np.ndarray, exponent: np.ndarray, exponent_bits: int | None = None, coding: Coding = "raw"
    ) -> "WeightCodes":
        """Scheme ``shift``: weights ``sign * 2**exponent``.

        Parameters
        ----------
        sign : -1, 0 or 1
        exponent : whole numbers, at most 15 more than the least; where the sign is 0 they do not count
        exponent_bits : 0..5; as many as the exponents need unless given
        coding : "raw" or "huffman"

        Exponents are stored less the least, which `unit` takes in.
        """
        signs, exponents = _signs_and_exponents(sign, exponent)
        stored, least = _from_least(exponents, signs != 0)
        spec = checked(ShiftWeights, exponent_bits=_exponent_bits(stored, exponent_bits), coding=coding)
        nothing = np.zeros(signs.shape, dtype=np.uint8)
        codes = spec.format.join(signs, stored, nothing, nothing.astype(bool))
        return cls(spec, codes.shape, codes, unit=2.0**least)

    @classmethod
    def focused(
        cls,
        sign: np.ndarray,
        exponent: np.ndarray,
        component: np.ndarray,
        pruned: np.ndarray | None = None,
        *,
        minus: tuple[int, int] = (-1, 0),
        plus: tuple[int, int] = (1, 0),
        exponent_bits: int | None = None,
        coding: Coding = "raw",
    ) -> "WeightCodes":
        """Scheme ``focused``: weights ``sign * 2**exponent + mu``, with the mu of a weight's component, and zeros.

        Parameters
        ----------
        sign : -1, 0 or 1; with 0 the weight is mu
        exponent : whole numbers, at most 15 more than the least; where the sign is 0 they do not count
        component : 0 for the minus component, 1 for the plus component
        pruned : whether a weight is zero, whatever the others say; none is unless given
        minus, plus : the mu of each component, ``sign * 2**exponent``, as (sign, exponent)
        exponent_bits : 0..5; as many as the exponents need unless given
        coding : "raw" or "huffman"

        All powers of two are stored less the least of them, which `unit` takes in.
        """
        signs, exponents = _signs_and_exponents(sign, exponent)
        components = _integers("components", np.asarray(component).astype(np.int64))
        zeros = np.zeros(signs.shape, dtype=bool) if pruned is None else np.asarray(pruned).astype(bool)
        for what, found in (("components", components), ("pruned weights", zeros)):
            if found.shape != signs.shape:
                raise FormatError(f"{what} must have the shape of the signs {signs.shape}, not {found.shape}")
        if not np.isin(components, (0, 1)).all():
            raise FormatError(f"components must be 0 or 1, found {components.min()}..{components.max()}")
        signs, components = np.where(zeros, 0, signs), np.where(zeros, 0, components)
        stored, first = _from_least(exponents, signs != 0)
        first = first if signs.any() else min(minus[1], plus[1])
        least = min(first, minus[1], plus[1])
        spec = checked(
            FocusedWeights,
            exponent_bits=_exponent_bits(stored, exponent_bits),
            value_shift=first - least,
            minus=(minus[0], minus[1] - least),
            plus=(plus[0], plus[1] - least),
            coding=coding,
        )
        codes = spec.format.join(signs.astype(np.int8), stored, components.astype(np.uint8), zeros)
        return cls(spec, codes.shape, codes, unit=2.0**least)

    @classmethod
    def basis(cls, signs: np.ndarray, coefs: np.ndarray, fraction: int = 0) -> "WeightCodes":
        """Scheme ``basis``: weights ``sum_p coefs[p] * 2**-fraction * signs[p]``.

        Parameters
        ----------
        signs : -1 and +1, (planes, *shape), 1..8 planes
        coefs : (planes,) or (planes, out). Integers of 16 bits are stored as they are; real numbers are rounded by
            `gatewise.kernels.planes.fixed_coefficients`, whose step for each channel `unit` takes in. Where activations
            are planes too, their products with beta are rounded, once (`pair_coefficients`); or the coefficients
            of the pairs are given, (planes, activation planes, out)
        fraction : fraction bits of integer coefficients, 0..15
        """
        bits = _sign_bits(signs)
        spec = checked(BasisWeights, planes=len(bits))
        return cls(spec, bits.shape[1:], bits, **_coefficients(coefs, len(bits), bits.shape[1], fraction))

    @classmethod
    def xor(
        cls,
        encrypted: Sequence[np.ndarray],
        networks: Sequence[XorNetwork],
        coefs: np.ndarray,
        shape: tuple[int, ...],
        *,
        fraction: int = 0,
        tile: TileOrder | tuple[int, int] | None = None,
    ) -> "WeightCodes":
        """Scheme ``xor``: weights as for `basis`, their signs decoded from encrypted bits.

        Parameters
        ----------
        encrypted : for each plane its slices, (slices, n_in) of 0 and 1
        networks : for each plane the network that decodes it
        coefs, fraction : as for `basis`
        shape : of the weights
        tile : (rows, lanes) of the array in whose order the signs stand, or a `TileOrder`
            (`gatewise.kernels.addressing.tile_order`); unless given the order is (out, ky, kx, in)
        """
        if len(encrypted) != len(networks):
            raise FormatError(f"encrypted planes must have a network each, not {len(encrypted)} and {len(networks)}")
        count = math.prod(shape)
        streams = []
        for plane, network in zip(encrypted, networks, strict=True):
            wanted, bits = (-(-count // network.n_out), network.n_in), _integers("encrypted bits", plane)
            if bits.shape != wanted:
                raise FormatError(f"encrypted bits must have shape {wanted}, not {bits.shape}")
            streams.append(pack_codes(bits, 1, signed=False))
        named = {_network_name(network): _network_spec(network) for network in networks}
        order = {} if tile is None else {"order": "tile", "tile": TileOrder(*tile)._asdict()}
        spec = checked(XorWeights, planes=tuple(_network_name(network) for network in networks), **order)
        numbers = _coefficients(coefs, len(networks), shape[0], fraction)
        return cls(spec, tuple(shape), np.concatenate(streams), **numbers, networks=named)

    @classmethod
    def encrypt(
        cls,
        signs: np.ndarray,
        networks: Sequence[XorNetwork],
        coefs: np.ndarray,
        *,
        importance: np.ndarray | None = None,
        groups: int = 1,
        fraction: int = 0,
        tile: TileOrder | tuple[int, int] | None = None,
    ) -> "WeightCodes":
        """Scheme ``xor`` from the signs themselves, as for `basis`: encrypted to the nearest that the networks give.

        `importance` (planes, *shape) weighs wrong signs; `groups` is the convolution's, which the order of a `tile`
        depends on. A network of fewer inputs than outputs cannot give every sign.
        """
        bits = _sign_bits(signs)
        if len(bits) != len(networks):
            raise FormatError(f"sign planes must have a network each, not {len(bits)} and {len(networks)}")
        shape = bits.shape[1:]
        encrypted = []
        for plane, network in enumerate(networks):
            wanted = weight_stream(_four_axes(bits[plane]), groups, tile)
            costs = None if importance is None else _four_axes(np.asarray(importance)[plane])
            stream = network.encode(wanted, None if costs is None else weight_stream(costs, groups, tile))
            slices = -(-len(wanted) // network.n_out)
            unpacked = np.unpackbits(np.frombuffer(stream, np.uint8), count=slices * network.n_in, bitorder="little")
            encrypted.append(unpacked.reshape(slices, network.n_in))
        return cls.xor(encrypted, networks, coefs, shape, fraction=fraction, tile=tile)

    def meeting(self, activations: ActivationPlanes | None) -> "WeightCodes":
        """The weights with the coefficients that such activations need: of pairs of planes, rounded once."""
        if self.coefs is None:
            return self
        wanted = self.spec.bits * (1 if activations is None else len(activations.beta))
        if self.alpha is None:
            if len(self.coefs) != wanted:
                raise FormatError(
                    f"coefficients of pairs must be those of {wanted} pairs of planes here, not {len(self.coefs)}"
                )
            return self
        if activations is None:
            return self
        fixed = pair_coefficients(self.alpha.T, np.array(activations.beta))
        return replace(self, coefs=np.ascontiguousarray(fixed.coefs.T), fraction=0, unit=fixed.scale)

    def arrays(self, shape: ConvShape) -> dict[str, np.ndarray]:
        """The file's arrays by role, of a layer of that shape."""
        spec = self.spec
        if isinstance(spec, PlaneWeights):
            assert self.coefs is not None
            if isinstance(spec, XorWeights):
                return {"weight": self.values, "coef": self.coefs}
            planes = self.values.reshape(len(self.values), *shape.weight_shape)
            streams = [pack_codes(weight_stream(plane), 1, signed=False) for plane in planes]
            return {"weight": np.concatenate(streams), "coef": self.coefs}
        return symbol_arrays(spec, self.values.reshape(shape.weight_shape), self.widths)


def symbol_arrays(spec: Symbols, codes: np.ndarray, widths: np.ndarray | None) -> dict[str, np.ndarray]:
    """The file's arrays by role of a layer's codes (out, in per group, ky, kx), of these widths where it has any."""
    widths = widths if isinstance(spec, IntWeights) and spec.widths else None
    own = {} if widths is None else {"widths": widths.astype(np.uint8)}
    ordered = weight_stream(codes)
    if spec.coding == "huffman":
        symbols = (ordered.astype(np.int64) - least_code(spec)).astype(np.uint8)
        code = HuffmanCode.of(np.bincount(symbols, minlength=1 << spec.bits))
        return {"weight": code.encode(symbols), "huffman": code.table(), **own}
    if widths is not None:
        return {"weight": pack_rows(ordered.reshape(len(codes), -1), widths), **own}
    return {"weight": pack_codes(ordered, spec.bits, signed=isinstance(spec, IntWeights))}


def _four_axes(weights: np.ndarray) -> np.ndarray:
    """A linear layer's weights as a 1 x 1 convolution's."""
    return weights.reshape(*weights.shape, 1, 1) if weights.ndim == 2 else weights


def _integers(what: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        raise FormatError(f"{what} must be integers, not {values.dtype}")
    return values


def _signs_and_exponents(sign: np.ndarray, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    signs, exponents = _integers("signs", sign), _integers("exponents", exponent)
    if signs.shape != exponents.shape:
        raise FormatError(f"exponents must have the shape of the signs {signs.shape}, not {exponents.shape}")
    if not np.isin(signs, (-1, 0, 1)).all():
        raise FormatError(f"signs must be -1, 0 or 1, found {signs.min()}..{signs.max()}")
    return signs.astype(np.int8), exponents.astype(np.int64)


def _from_least(exponents: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, int]:
    """Exponents less the least used one, 0 where they are not used; and that one."""
    least = int(exponents[used].min()) if used.any() else 0
    stored = np.where(used, exponents - least, 0)
    if stored.max(initial=0) > MAX_EXPONENT:
        raise FormatError(f"exponents must be at most {MAX_EXPONENT} more than the least, not {stored.max()}")
    return stored.astype(np.uint8), least


def _exponent_bits(stored: np.ndarray, wanted: int | None) -> int:
    needed = int(stored.max(initial=0)).bit_length()
    if wanted is not None and wanted < needed:
        raise FormatError(f"exponents from 0 to {stored.max()} must have {needed} bits or more, not {wanted}")
    return needed if wanted is None else wanted


def _sign_bits(signs: np.ndarray) -> np.ndarray:
    """Planes of -1 and +1 as bits, uint8."""
    signs = _integers("signs", signs)
    if signs.ndim not in (3, 5):
        raise FormatError(f"signs must be planes (planes, out, in, ky, kx) or (planes, out, in), not {signs.shape}")
    if not np.isin(signs, (-1, 1)).all():
        raise FormatError(f"signs must be -1 or 1, found {np.unique(signs)[:3].tolist()}")
    return (signs > 0).astype(np.uint8)


def _coefficients(coefs: np.ndarray, planes: int, out: int, fraction: int) -> dict[str, Any]:
    """Stored coefficients, int16 (planes, out) or (pairs, out), their fraction bits and unit, and what was given."""
    coefs = np.asarray(coefs)
    pairs = coefs.ndim == 3 and 1 <= coefs.shape[1] <= TABLE_PLANES and coefs.shape[::2] == (planes, out)
    if coefs.shape not in ((planes,), (planes, out)) and not pairs:
        raise FormatError(f"coefficients must have shape ({planes},) or ({planes}, {out}), not {coefs.shape}")
    if not 0 <= fraction <= MAX_PLANE_FRACTION:
        raise FormatError(f"fraction of coefficients must be 0 to {MAX_PLANE_FRACTION} bits, not {fraction}")
    coefs = coefs.reshape(-1, out) if pairs else np.broadcast_to(coefs.reshape(planes, -1), (planes, out))
    alpha = None if pairs else np.ldexp(coefs.astype(np.float64), -fraction)
    if np.issubdtype(coefs.dtype, np.integer):
        low, high = signed_range(COEFFICIENT_BITS)
        if coefs.min() < low or coefs.max() > high:
            raise FormatError(f"coefficients must lie in {low}..{high}, found {coefs.min()}..{coefs.max()}")
        return {"coefs": np.ascontiguousarray(coefs.astype(np.int16)), "alpha": alpha, "fraction": fraction}
    if fraction:
        raise FormatError(f"fraction of real coefficients must be 0, not {fraction}: each channel has a unit")
    fixed = fixed_coefficients(coefs.T)
    return {"coefs": np.ascontiguousarray(fixed.coefs.T), "alpha": alpha, "unit": fixed.scale}


def _network_spec(network: XorNetwork) -> XorNetworkSpec:
    rows = tuple(f"{row:x}" for row in network.rows)
    return XorNetworkSpec(n_in=network.n_in, n_out=network.n_out, rows=rows)


def _network_name(network: XorNetwork) -> str:
    digest = hashlib.sha256(",".join(_network_spec(network).rows).encode()).hexdigest()[:8]
    return f"xor{network.n_in}of{network.n_out}-{digest}"
