"""The number contract in plain Python: big integers, loops, one width at a time.

Slow on purpose and written from the contract, not from the kernels: nothing here is an array,
nothing can overflow unless a line says so. Arrays come in and go out as nested lists.
"""

import math
from fractions import Fraction

DIGIT_BITS = 4


# Widths


def signed_limits(bits):
    """Least and greatest two's complement number of `bits` bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def unsigned_limits(bits):
    """Least and greatest unsigned number of `bits` bits."""
    return 0, 2**bits - 1


def limited(value, limits, overflow):
    """An exact value brought into a width, and whether it did not fit."""
    low, high = limits
    if low <= value <= high:
        return value, False
    if overflow == "saturate":
        return (low if value < low else high), True
    assert overflow == "wrap"
    span = high - low + 1
    while value < low:
        value += span * max(1, (low - value) // span)
    while value > high:
        value -= span * max(1, (value - high) // span)
    return value, True


# Codes


def packed(codes, bits):
    """Bytes of b-bit codes, the first in the lowest bits: one long little-endian number."""
    number = 0
    for position, code in enumerate(codes):
        number += (code % 2**bits) * 2 ** (bits * position)
    return number.to_bytes(math.ceil(len(codes) * bits / 8), "little")


def digits_of(code, bits, signed):
    """4-bit digits, low first: the top one carries the sign, the others are unsigned."""
    count = math.ceil(bits / DIGIT_BITS)
    pattern = code % 16**count
    digits = []
    for position in range(count):
        digit = (pattern // 16**position) % 16
        if signed and position == count - 1 and digit >= 8:
            digit -= 16
        digits.append(digit)
    return digits


# Multiply, align, reduce, accumulate


def multiplied(a, w, either_signed, product_bits, overflow):
    """4b x 4b -> product, signed if either digit is."""
    limits = signed_limits(product_bits) if either_signed else unsigned_limits(product_bits)
    return limited(a * w, limits, overflow)


def aligned(product, kind, amount, align_bits, overflow):
    """The product shifted left by k, or times an unsigned m, as a signed number of `align_bits` bits."""
    if kind == "shift":
        assert 0 <= amount <= 8
        exact = product * 2**amount
    else:
        assert 0 <= amount <= 255
        exact = product * amount
    return limited(exact, signed_limits(align_bits), overflow)


def accumulated(acc, row_sum, digit_shift, acc_bits, overflow):
    """The row sum, shifted by its digit pair, added exactly and limited once."""
    return limited(acc + row_sum * 16**digit_shift, signed_limits(acc_bits), overflow)


def digit_pair_order(w_digits, a_digits):
    """(weight digit j, activation digit i) in the order of the hardware: j outside, low digits first."""
    return [(j, i) for j in range(w_digits) for i in range(a_digits)]


def convolved(x, weights, layer, widths):
    """A layer in hardware order.

    `x` (N, C, H, W) and `weights` (O, C per group, kh, kw) are codes; `layer` names stride, padding
    (top, left, bottom, right), dilation, groups, lanes, first_lane, pad_code, a_bits, a_signed, w_bits, w_signed,
    kind and amounts, and where channels have different widths w_counts (digits of each output channel) and a_counts (of
    each word); `widths` names product, align, acc and overflow. Returns a dict of nested lists:
    acc (N, O, H, W), input_sum (N, groups, H, W) and per-channel counts product, align, acc_over.
    """
    images, channels, height, width = len(x), len(x[0]), len(x[0][0]), len(x[0][0][0])
    outputs, group_inputs = len(weights), len(weights[0])
    kernel_y, kernel_x = len(weights[0][0]), len(weights[0][0][0])
    top, left, bottom, right = layer["padding"]
    stride_y, stride_x = layer["stride"]
    dilation_y, dilation_x = layer["dilation"]
    groups, lanes = layer["groups"], layer["lanes"]
    a_bits, a_signed, w_bits, w_signed = layer["a_bits"], layer["a_signed"], layer["w_bits"], layer["w_signed"]
    kind, amounts, overflow = layer["kind"], layer["amounts"], widths["overflow"]
    assert channels == group_inputs * groups
    out_height = (height + top + bottom - dilation_y * (kernel_y - 1) - 1) // stride_y + 1
    out_width = (width + left + right - dilation_x * (kernel_x - 1) - 1) // stride_x + 1

    a_count = math.ceil(a_bits / DIGIT_BITS)
    w_count = math.ceil(w_bits / DIGIT_BITS)
    words = (layer["first_lane"] + channels) // lanes + 1
    w_counts = layer.get("w_counts") or [w_count] * outputs
    a_counts = layer.get("a_counts") or [a_count] * words
    w_digits = [
        [
            [[digits_of(w, DIGIT_BITS * w_counts[o] if w_signed else w_bits, w_signed) for w in r] for r in c]
            for c in out
        ]
        for o, out in enumerate(weights)
    ]
    # Every code's digits once: slow is fine, hopeless is not.
    found = {code for n in x for c in n for r in c for code in r} | {layer["pad_code"]}
    a_digits = {
        (code, count): digits_of(code, DIGIT_BITS * count, a_signed)
        for count in set(a_counts)
        for code in found
        if count == a_count or -8 * a_signed <= code < (8 if a_signed else 16)
    }

    def activation(n, channel, oy, ox, ky, kx):
        iy = oy * stride_y + ky * dilation_y - top
        ix = ox * stride_x + kx * dilation_x - left
        real = 0 <= iy < height and 0 <= ix < width
        count = a_counts[(layer["first_lane"] + channel) // lanes]
        return a_digits[x[n][channel][iy][ix] if real else layer["pad_code"], count]

    def pixel(n, o, oy, ox):
        first = o // (outputs // groups) * group_inputs
        acc = 0
        product_count = align_count = acc_count = 0
        for ky in range(kernel_y):
            for kx in range(kernel_x):
                for word in range(words):
                    group = [c for c in range(group_inputs) if (layer["first_lane"] + first + c) // lanes == word]
                    if not group:
                        continue
                    operands = [(activation(n, first + c, oy, ox, ky, kx), w_digits[o][c][ky][kx]) for c in group]
                    for j, i in digit_pair_order(w_counts[o], a_counts[word]):
                        either_signed = (a_signed and i == a_counts[word] - 1) or (w_signed and j == w_counts[o] - 1)
                        row_sum = 0
                        for c, (a, w) in zip(group, operands, strict=True):
                            product, over = multiplied(a[i], w[j], either_signed, widths["product"], overflow)
                            product_count += over
                            value, over = aligned(product, kind, amounts[first + c], widths["align"], overflow)
                            align_count += over
                            row_sum += value
                        acc, over = accumulated(acc, row_sum, i + j, widths["acc"], overflow)
                        acc_count += over
        return acc, product_count, align_count, acc_count

    def input_sum(n, group, oy, ox):
        total = 0
        for c in range(group * group_inputs, (group + 1) * group_inputs):
            factor = 2 ** amounts[c] if kind == "shift" else amounts[c]
            for ky in range(kernel_y):
                for kx in range(kernel_x):
                    for i, digit in enumerate(activation(n, c, oy, ox, ky, kx)):
                        total += digit * factor * 16**i
        return total

    result = {"acc": [], "input_sum": [], "product": [0] * outputs, "align": [0] * outputs, "acc_over": [0] * outputs}
    for n in range(images):
        planes = []
        for o in range(outputs):
            plane = []
            for oy in range(out_height):
                row = []
                for ox in range(out_width):
                    acc, *counts = pixel(n, o, oy, ox)
                    row.append(acc)
                    for name, count in zip(("product", "align", "acc_over"), counts, strict=True):
                        result[name][o] += count
                plane.append(row)
            planes.append(plane)
        result["acc"].append(planes)
        result["input_sum"].append(
            [[[input_sum(n, g, oy, ox) for ox in range(out_width)] for oy in range(out_height)] for g in range(groups)]
        )
    return result


def exact_convolution(x, weights, layer):
    """The mathematical convolution of codes, each input channel times its alignment factor; no widths."""
    channels, height, width = len(x[0]), len(x[0][0]), len(x[0][0][0])
    outputs, group_inputs = len(weights), len(weights[0])
    kernel_y, kernel_x = len(weights[0][0]), len(weights[0][0][0])
    top, left, bottom, right = layer["padding"]
    out_height = (height + top + bottom - layer["dilation"][0] * (kernel_y - 1) - 1) // layer["stride"][0] + 1
    out_width = (width + left + right - layer["dilation"][1] * (kernel_x - 1) - 1) // layer["stride"][1] + 1
    factors = [2**k for k in layer["amounts"]] if layer["kind"] == "shift" else layer["amounts"]
    assert channels == group_inputs * layer["groups"]

    def tap(image, c, y, z):
        return image[c][y][z] if 0 <= y < height and 0 <= z < width else layer["pad_code"]

    def value(image, o, oy, ox):
        first = o // (outputs // layer["groups"]) * group_inputs
        return sum(
            factors[first + c]
            * weights[o][c][ky][kx]
            * tap(
                image,
                first + c,
                oy * layer["stride"][0] + ky * layer["dilation"][0] - top,
                ox * layer["stride"][1] + kx * layer["dilation"][1] - left,
            )
            for c in range(group_inputs)
            for ky in range(kernel_y)
            for kx in range(kernel_x)
        )

    return [
        [[[value(image, o, oy, ox) for ox in range(out_width)] for oy in range(out_height)] for o in range(outputs)]
        for image in x
    ]


# Requantise


def corrected(acc, xsum, zwf, bias, fraction, acc_bits):
    """(acc << F) - zwf*xsum + bias, exact in max(acc+F, 48)+2 bits, then clipped to acc+F bits."""
    exact = acc * 2**fraction - zwf * xsum + bias
    low, high = signed_limits(max(acc_bits + fraction, 48) + 2)
    assert low <= exact <= high
    return limited(exact, signed_limits(acc_bits + fraction), "saturate")


def rounded(quotient, rounding):
    """A fraction to a whole number."""
    half = Fraction(1, 2)
    if rounding == "half_even":
        return round(quotient)
    if rounding == "half_up":
        return math.floor(quotient + half)
    if rounding == "half_away":
        magnitude = math.floor(abs(quotient) + half)
        return -magnitude if quotient < 0 else magnitude
    assert rounding == "floor"
    return math.floor(quotient)


def truncated_division(dividend, divisor):
    """C's integer division: toward zero."""
    magnitude = abs(dividend) // abs(divisor)
    return magnitude if (dividend < 0) == (divisor < 0) else -magnitude


def saturating_rounding_doubling_high_mul(a, b):
    """gemmlowp, fixedpoint.h, for int32."""
    if a == b == -(2**31):
        return 2**31 - 1
    ab = a * b
    nudge = 2**30 if ab >= 0 else 1 - 2**30
    return truncated_division(ab + nudge, 2**31)


def rounding_divide_by_pot(x, exponent):
    """gemmlowp, fixedpoint.h."""
    assert 0 <= exponent <= 31
    mask = 2**exponent - 1
    remainder = x & mask
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if remainder > threshold else 0)


def requantised(value, multiplier, shift, rounding, zero_point, low, high):
    """By scale: the code, and whether the value was saturated on the way in (TFLite only)."""
    over = False
    if rounding == "tflite":
        value, over = limited(value, signed_limits(32), "saturate")
        quotient = rounding_divide_by_pot(saturating_rounding_doubling_high_mul(value, multiplier), shift - 31)
    else:
        quotient = rounded(Fraction(value * multiplier, 2**shift), rounding)
    return max(low, min(high, quotient + zero_point)), over


def thresholded(value, thresholds, descending, base):
    """How many thresholds the value reaches, from the base code."""
    count = 0
    for threshold in thresholds:
        if (value <= threshold) if descending else (value >= threshold):
            count += 1
    return base + count


def residual_sum(operands, scale, rounding, zero_point, low, high):
    """Two (code, zero_point, multiplier, shift), each rescaled to 16 bits; the sum rescaled by `scale`."""
    total = 0
    for code, operand_zero, multiplier, shift in operands:
        total += requantised(code - operand_zero, multiplier, shift, rounding, 0, *signed_limits(16))[0]
    return requantised(total, *scale, rounding, zero_point, low, high)[0]


# Pool


def pooled(plane, kernel, stride, padding, average):
    """Max or average of one (H, W) plane; only real pixels count, averages round half away from zero."""
    height, width = len(plane), len(plane[0])
    top, left, bottom, right = padding
    out = []
    for y0 in range(-top, height + bottom - kernel[0] + 1, stride[0]):
        row = []
        for x0 in range(-left, width + right - kernel[1] + 1, stride[1]):
            window = [
                plane[y][z]
                for y in range(y0, y0 + kernel[0])
                for z in range(x0, x0 + kernel[1])
                if 0 <= y < height and 0 <= z < width
            ]
            row.append(rounded(Fraction(sum(window), len(window)), "half_away") if average else max(window))
        out.append(row)
    return out
