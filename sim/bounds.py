"""What a layer's sums can reach, whatever the image is: the proof that no width of a datapath overflows.

The bounds come of the very weights, of the alignment and of the range of the activations' codes, and each output
channel has its own. Those of products, aligned products and accumulators hold for every partial sum, in whatever
order the digits come: each digit counts where it adds, never where it takes away. Where weights have one digit each, or
activations no sign, some image reaches them. What is requantised is one sum, and some image always reaches its bound.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..kernels.digits import digit_count
from ..kernels.mac import DIGIT_BITS, MacFormat, signed_range
from .manifest import Codes

if TYPE_CHECKING:
    from .arrays import ArrayForm
    from .layer import MacLayer

__all__ = ["LayerBounds", "Margins", "Reach", "layer_bounds"]


class Reach(NamedTuple):
    """Least and greatest values, integers of any size: (out,), of accumulators (planes, out). 0 is between them."""

    low: np.ndarray
    high: np.ndarray

    @property
    def bits(self) -> np.ndarray:
        """Bits of a two's complement number that holds all of them, int64."""
        return np.asarray(_SIGNED_BITS(self.low, self.high), dtype=np.int64)

    def times(self, low: int, high: int) -> "Reach":
        """Of sums of negative and of positive weights: of the sums with factors from `low` <= 0 to `high` >= 0."""
        negative, positive = (each.astype(object) for each in self)
        return Reach(positive * low + negative * high, positive * high + negative * low)


class Margins(NamedTuple):
    """Bits of each output channel that a width has more than its values need, int64 (out,); negative: it may overflow.

    None where the array does not limit what the width is of.
    """

    product: np.ndarray | None
    align: np.ndarray | None
    acc: np.ndarray
    post: np.ndarray

    @property
    def proved(self) -> np.ndarray:
        """Output channels in which neither product nor alignment nor accumulator can overflow, bool (out,)."""
        limited = [each for each in (self.product, self.align, self.acc) if each is not None]
        return np.asarray(np.min(limited, axis=0) >= 0)

    @property
    def least(self) -> dict[str, int | None]:
        """The least of all channels, by width."""
        return {name: None if each is None else int(each.min()) for name, each in self._asdict().items()}


@dataclass(frozen=True, slots=True)
class LayerBounds:
    """What each output channel of a layer can reach; products and aligned ones are 0 where the array limits neither.

    `value` is what the requantiser takes, with its fraction bits.
    """

    form: "ArrayForm"
    product: Reach
    aligned: Reach
    acc: Reach
    value: Reach

    @property
    def acc_bits(self) -> int:
        """Bits of an accumulator that holds every sum."""
        return int(self.acc.bits.max())

    @property
    def needs(self) -> tuple[int, int, int]:
        """Least product, align and acc of a format in which nothing overflows and all constants fit."""
        more = self.form.corrected_bits(MacFormat()) - MacFormat().acc
        thresholds = self.form.layer.thresholds
        held = 0
        if thresholds is not None and thresholds.size:
            held = int(Reach(thresholds.min(keepdims=True), thresholds.max(keepdims=True)).bits.max())
        product, aligned, value = (int(each.bits.max()) for each in (self.product, self.aligned, self.value))
        return min(product, 2 * DIGIT_BITS), aligned, max(self.acc_bits, value - more, held - more)

    def margins(self, fmt: MacFormat) -> Margins:
        """What the widths of a format leave, channel by channel."""
        product = align = None
        if not self.form.exact_rows:
            product = fmt.product - np.minimum(self.product.bits, 2 * DIGIT_BITS)
            align = fmt.align - self.aligned.bits
        post = self.form.corrected_bits(fmt) - self.value.bits
        return Margins(product, align, fmt.acc - self.acc.bits.max(axis=0), post)

    def overflow(self, fmt: MacFormat) -> str | None:
        """The first width that may overflow, or that a constant does not fit; None where none can."""
        for width, margin in self.margins(fmt).least.items():
            if margin is not None and margin < 0:
                return width
        return "post" if self.form.clipped_constants(fmt) else None


def layer_bounds(form: "ArrayForm", source: Codes) -> LayerBounds:
    """The bounds of a layer on its array, whose activations are `source`."""
    layer, shape = form.layer, form.layer.shape
    factors = layer.factors.astype(np.int64).reshape(shape.groups, 1, shape.group_inputs)

    def sums(weights: np.ndarray) -> Reach:
        """Sums of the negative and of the positive weights (..., out, in, ky, kx), aligned: int64 (..., out)."""
        found = []
        for part in (np.minimum(weights, 0), np.maximum(weights, 0)):
            taps = part.sum(axis=(-2, -1), dtype=np.int64)
            grouped = taps.reshape(*taps.shape[:-2], shape.groups, shape.group_outputs, shape.group_inputs)
            found.append((grouped * factors).sum(axis=-1).reshape(taps.shape[:-1]))
        return Reach(*found)

    # A plane of an activation is 0 and 1, or -1 and 1, and each pair of planes has an accumulator.
    planes = 1 if source.planes is None else len(source.planes.beta)
    ends = source.range if source.planes is None else (-1 if source.planes.signs else 0, 1)
    digits = _digits(source) if source.planes is None else [ends]
    low, high = (sum(each[side] << DIGIT_BITS * place for place, each in enumerate(digits)) for side in (0, 1))

    nothing = np.zeros(shape.out_channels, dtype=np.int64)
    product = aligned = Reach(nothing, nothing)
    parts = sums(form.weights)
    if not form.exact_rows:
        product, aligned = _products(layer, form.weights, factors, digits)
        places = (1 << DIGIT_BITS * np.arange(len(form.weights))).reshape(-1, 1)
        parts = Reach(*(side * places for side in parts))
    if form.coefficients is None:
        parts = Reach(*(side.sum(axis=0, keepdims=True) for side in parts))
    acc = Reach(*(side.repeat(planes, axis=0) for side in parts.times(low, high)))

    zero = layer.zero.reshape(-1, 1, 1, 1)
    values = [sums(weights.astype(np.int64) - zero).times(*ends) for weights in form.value_weights]
    value = Reach(*(sum(sides) + layer.bias for sides in zip(*values, strict=True)))
    return LayerBounds(form, product, aligned, acc, value)


def _products(
    layer: "MacLayer", weights: np.ndarray, factors: np.ndarray, digits: list[tuple[int, int]]
) -> tuple[Reach, Reach]:
    """Products of weight digits (digits, out, in, ky, kx) with activation digits, and the same aligned.

    In layers of mixed widths a narrow code is one digit in some row groups and words, and two in others: both count.
    """
    if layer.mixed:
        narrow = (layer.row_widths <= DIGIT_BITS).reshape(-1, 1, 1, 1)
        weights = np.concatenate([weights, np.where(narrow, layer.codes, 0)[None]])
        if layer.operands.a_signed and layer.lane_widths.min() <= DIGIT_BITS:
            digits = [*digits, signed_range(DIGIT_BITS)]
    ends = Reach(
        np.minimum(weights.min(axis=(0, 3, 4)), 0).astype(np.int64),
        np.maximum(weights.max(axis=(0, 3, 4)), 0).astype(np.int64),
    )
    low, high = min(each[0] for each in digits), max(each[1] for each in digits)
    least, most = np.minimum(ends.high * low, ends.low * high), np.maximum(ends.high * high, ends.low * low)
    grouped = [side.reshape(len(factors), -1, factors.shape[-1]) * factors for side in (least, most)]
    whole = [side.reshape(least.shape) for side in grouped]
    return Reach(least.min(axis=1), most.max(axis=1)), Reach(whole[0].min(axis=1), whole[1].max(axis=1))


def _digits(codes: Codes) -> list[tuple[int, int]]:
    """Least and greatest value of each digit of these codes."""
    low, high = codes.range
    below = DIGIT_BITS * (digit_count(codes.bits) - 1)
    return [(0, (1 << DIGIT_BITS) - 1)] * (below // DIGIT_BITS) + [(low >> below, high >> below)]


def _bits(low: int, high: int) -> int:
    return max(-1 - int(low) if low < 0 else 0, int(high)).bit_length() + 1


_SIGNED_BITS = np.frompyfunc(_bits, 2, 1)
