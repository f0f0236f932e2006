"""What a layer's sums can reach, whatever the image is: the proof that no width of a datapath overflows.

The bounds come of the very weights and of the range of the activations' codes. They hold for every partial sum, in
whatever order: each digit counts with its greatest magnitude.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.digits import digit_count
from ..kernels.mac import DIGIT_BITS, MacFormat
from .manifest import Codes

if TYPE_CHECKING:
    from .arrays import ArrayForm

__all__ = ["LayerBounds", "layer_bounds"]


@dataclass(frozen=True, slots=True)
class LayerBounds:
    """Greatest magnitudes in a layer; products and aligned ones are 0 where the array limits neither.

    `value` is what the requantiser takes, with its fraction bits.
    """

    form: "ArrayForm"
    product: int
    aligned: int
    acc: int
    value: int

    @property
    def acc_bits(self) -> int:
        """Bits of an accumulator that holds every sum."""
        return _signed_bits(self.acc)

    @property
    def needs(self) -> tuple[int, int, int]:
        """Least product, align and acc of a format in which nothing overflows and all constants fit."""
        more = self.form.corrected_bits(MacFormat()) - MacFormat().acc
        thresholds = self.form.layer.thresholds
        held = 0 if thresholds is None else _signed_bits(int(np.abs(thresholds).max(initial=0)))
        product = min(_signed_bits(self.product), 2 * DIGIT_BITS)
        return product, _signed_bits(self.aligned), max(self.acc_bits, _signed_bits(self.value) - more, held - more)

    def overflow(self, fmt: MacFormat) -> str | None:
        """The first width that may overflow, or that a constant does not fit; None where none can."""
        if _signed_bits(self.product) > fmt.product and fmt.product < 2 * DIGIT_BITS:
            return "product"
        if _signed_bits(self.aligned) > fmt.align:
            return "align"
        if self.acc_bits > fmt.acc:
            return "acc"
        if _signed_bits(self.value) > self.form.corrected_bits(fmt) or self.form.clipped_constants(fmt):
            return "post"
        return None


def layer_bounds(form: "ArrayForm", source: Codes) -> LayerBounds:
    """The bounds of a layer on its array, whose activations are `source`."""
    layer = form.layer
    shape = layer.shape
    # A plane of an activation is 0 and 1, or -1 and 1, and each pair of planes has an accumulator.
    planes = 1 if source.planes is None else len(source.planes.beta)
    digit, word = (_greatest_digit(source), _greatest_word(source)) if source.planes is None else (1, 1)
    factors = layer.factors.astype(np.int64).reshape(shape.groups, 1, shape.group_inputs)
    sizes = np.abs(form.weights.astype(np.int64)).sum(axis=(3, 4))  # (parts, out, in per group)
    sizes = sizes.reshape(len(sizes), shape.groups, shape.group_outputs, shape.group_inputs)
    sums = (sizes * factors).sum(axis=3).reshape(len(sizes), -1).astype(object) * word
    sums = sums.repeat(planes, axis=0)
    product = aligned = 0
    if form.exact_rows:
        accs = sums if form.coefficients is not None else sums.sum(axis=0)[None]
    else:
        places = np.array([1 << DIGIT_BITS * at for at in range(len(sums))], dtype=object)
        accs = (sums * places[:, None]).sum(axis=0)[None]
        each = np.abs(form.weights.astype(np.int64)).max(axis=(0, 3, 4), initial=0)
        product = int(each.max()) * digit
        aligned = int((each.reshape(shape.groups, shape.group_outputs, -1) * factors).max()) * digit
    taps = shape.kernel[0] * shape.kernel[1]
    inputs = factors.sum(axis=2).repeat(shape.group_outputs).astype(object) * taps * max(map(abs, source.range))
    weighed = (
        accs[0] << form.fraction
        if form.coefficients is None
        else (np.abs(form.coefficients).astype(object) * accs).sum(axis=0)
    )
    values = weighed + np.abs(layer.zero).astype(object) * inputs + np.abs(layer.bias).astype(object)
    return LayerBounds(form, product, aligned, int(accs.max()), int(values.max()))


def _signed_bits(magnitude: int) -> int:
    """Bits of a signed number that holds every value of at most this magnitude."""
    return magnitude.bit_length() + 1


def _greatest_digit(codes: Codes) -> int:
    """Greatest magnitude of a digit of these codes."""
    if digit_count(codes.bits) > 1:
        return (1 << DIGIT_BITS) - 1
    return max(map(abs, codes.range))


def _greatest_word(codes: Codes) -> int:
    """Greatest magnitude of the sum of some of a code's digits, each in its place."""
    below = DIGIT_BITS * (digit_count(codes.bits) - 1)
    return (1 << below) - 1 + (max(map(abs, codes.range)) >> below << below)
