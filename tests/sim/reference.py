"""A network file run node by node in plain NumPy and Python integers, from the number contract alone.

It shares nothing with the package: codes are unpacked, digits split, overflows made and results
rounded here once more, in the order that the contract names. Slow, and meant to be read.
"""

import numpy as np


def unpack(data, shape, bits):
    planes = np.unpackbits(data, bitorder="little")[: int(np.prod(shape)) * bits].reshape(-1, bits).astype(np.int64)
    values = (planes << np.arange(bits)).sum(axis=1)
    return np.where(planes[:, -1] == 1, values - (1 << bits), values).reshape(shape)


def bits_of(data, count):
    return np.unpackbits(data, bitorder="little")[:count].astype(np.int64)


def huffman(table, stream, count):
    """Symbols of a canonical Huffman stream, bit by bit, as the file's documents say."""
    nibbles = [nibble for byte in table[1:].tolist() for nibble in (byte & 15, byte >> 4)]
    lengths, at = [], 0
    while len(lengths) < int(table[0]) + 1:
        nibble, after = nibbles[at], [*nibbles, 0][at + 1]
        at += 2 if nibble in (0, 15) else 1
        if nibble == 0:
            lengths += [0] * (after + 1)
        elif nibble == 15:
            lengths += [15 + after] if after < 2 else [lengths[-1]] * (after + 1)
        else:
            lengths.append(nibble)
    words, word, last = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        word <<= length - last
        words[length, word], word, last = symbol, word + 1, length
    symbols, length, value = [], 0, 0
    for bit in bits_of(stream, 8 * len(stream)):
        length, value = length + 1, 2 * value + int(bit)
        if len(symbols) == count:
            assert value == 1, "the end mark"
            return np.array(symbols)
        if (length, value) in words:
            symbols.append(words[length, value])
            length = value = 0
    raise AssertionError("the stream has an end mark")


def tile_walk(shape, rows, lanes, groups):
    """(out, in, ky, kx) of every weight in the order in which an array of rows x lanes takes them."""
    out, ky, kx, inputs = shape
    each = out // groups
    for group in range(groups):
        for first in range(0, each, rows):
            for y in range(ky):
                for x in range(kx):
                    for word in range(groups * inputs // lanes + 1):
                        for row in range(first, min(first + rows, each)):
                            for channel in range(inputs):
                                if (group * inputs + channel) // lanes == word:
                                    yield group * each + row, y, x, channel


def weights_of(node, arrays, shape, networks):
    """Exact integer weights (out, ky, kx, in) of any scheme; those of planes with their coefficients' fraction bits."""
    spec, count = node["weights"], int(np.prod(shape))
    stream = arrays[f"{node['name']}.weight"]
    scheme = spec["scheme"]
    if scheme in ("xor", "basis"):
        coefs = arrays[f"{node['name']}.coef"].astype(np.int64)
        total = np.zeros(shape, dtype=np.int64)
        for plane, coef in enumerate(coefs):
            if scheme == "basis":
                used = -(-count // 8)
                bits = bits_of(stream, count)
            else:
                network = networks[spec["planes"][plane]]
                slices = -(-count // network["n_out"])
                used = -(-slices * network["n_in"] // 8)
                stored = bits_of(stream, slices * network["n_in"]).reshape(slices, -1)
                taps = np.array([[int(row, 16) >> j & 1 for j in range(network["n_in"])] for row in network["rows"]])
                bits = (stored @ taps.T % 2).reshape(-1)[:count]
            stream = stream[used:]
            signs = np.empty(shape, dtype=np.int64)
            if spec.get("order", "natural") == "natural":
                signs[...] = (2 * bits - 1).reshape(shape)
            else:
                walk = tile_walk(shape, spec["tile"]["rows"], spec["tile"]["lanes"], node.get("groups", 1))
                for place, bit in zip(walk, bits, strict=True):
                    signs[place] = 2 * bit - 1
            total += coef[:, None, None, None] * signs
        assert len(stream) == 0
        return total
    focused, k = scheme == "focused", spec.get("exponent_bits", 0)
    bits = spec["bits"] if scheme == "int" else k + 2 + focused
    if spec.get("coding") == "huffman":
        codes = huffman(arrays[f"{node['name']}.huffman"], stream, count).reshape(shape)
        if scheme == "int":
            return codes - (1 << (bits - 1))
    elif scheme == "int":
        return unpack(stream, shape, bits)
    else:
        codes = unpack(stream, shape, bits) & ((1 << bits) - 1)
    state = codes >> k & 3
    sign = np.array([0, 1, -1, 0])[state]
    if not focused:
        return sign << (codes & (1 << k) - 1)
    means = np.array([spec.get(name, default) for name, default in (("minus", (-1, 0)), ("plus", (1, 0)))])
    mu = (means[:, 0] << means[:, 1])[codes >> (k + 2)]
    return np.where(state == 3, 0, (sign << (codes & (1 << k) - 1) + spec.get("value_shift", 0)) + mu)


def digits(values, bits, signed):
    """(value, signed) of each 4-bit digit, the lowest first."""
    count = (bits + 3) // 4
    parts = [(values >> 4 * i) & 15 for i in range(count)]
    if signed:
        parts[-1] = values >> 4 * (count - 1)
    return [(part, signed and i == count - 1) for i, part in enumerate(parts)]


def limit(values, low, high, overflow):
    held = np.clip(values, low, high) if overflow == "saturate" else (values - low) % (high - low + 1) + low
    return held, held != values


def signed_range(bits):
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def divide(value, shift, rounding):
    """``value / 2**shift`` in Python integers."""
    quotient, rest = value >> shift, value & ((1 << shift) - 1)
    twice = 2 * rest - (1 << shift)
    if rounding == "floor" or shift == 0 or twice < 0:
        return quotient
    if twice > 0 or rounding == "half_up":
        return quotient + 1
    if rounding == "half_even":
        return quotient + (quotient & 1)
    return quotient + (value >= 0)


def scale(values, multiplier, shift, requant, zero_point=0, clamp=None):
    """Rescale (N, C, H, W); returns codes and how many 32-bit saturations TFLite's rounding made, by channel."""
    rounding = requant.get("rounding", "half_even")
    low, high = clamp or (requant["low"], requant["high"])
    result, saturated = np.zeros(values.shape, dtype=np.int64), np.zeros(values.shape[1], dtype=np.int64)
    for index, value in np.ndenumerate(values):
        channel = index[1]
        m, s, v = int(multiplier[channel % len(multiplier)]), int(shift[channel % len(shift)]), int(value)
        if rounding == "tflite":
            held = min(max(v, -(1 << 31)), (1 << 31) - 1)
            saturated[channel] += held != v
            product = held * m
            nudged = product + (1 << 30 if product >= 0 else 1 - (1 << 30))
            high_half = abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)
            code = divide(high_half, s - 31, "half_away")
        else:
            code = divide(v * m, s, rounding)
        result[index] = min(max(code + zero_point, low), high)
    return result, saturated


class Model:
    """A network's parts (manifest and arrays as dictionaries), run on input codes."""

    def __init__(self, parts):
        self.manifest, self.arrays = parts.manifest, parts.arrays

    def run(self, images, lanes=16, product=8, align=16, acc=32, overflow="saturate"):
        """All tensors by name, and overflow counts by layer: {name: {kind: (channels,)}}."""
        self.lanes, self.widths, self.overflow = lanes, (product, align, acc), overflow
        spec = self.manifest["input"]
        name = spec.get("name", "input")
        self.tensors, self.kinds, self.counts = {name: images.astype(np.int64)}, {name: spec}, {}
        for node in self.manifest["nodes"]:
            sources = [self.tensors[source] for source in node["inputs"]]
            self.kinds[node["name"]] = node.get("out", self.kinds[node["inputs"][0]])
            self.tensors[node["name"]] = getattr(self, node["op"])(node, *sources)
        return self.tensors, self.counts

    def array(self, node, role):
        return self.arrays[f"{node['name']}.{role}"].astype(np.int64)

    def kind(self, node, position=0):
        kind = self.kinds[node["inputs"][position]]
        return kind["bits"], kind.get("signed", False), kind.get("zero_point", 0)

    def linear(self, node, x):
        return self.conv2d({"kernel": (1, 1)} | node, x)

    def conv2d(self, node, x):
        a_bits, a_signed, zero_point = self.kind(node)
        w_bits, groups, channels = node["weights"]["bits"], node.get("groups", 1), node["channels"]
        (sy, sx), (dy, dx) = node.get("stride", (1, 1)), node.get("dilation", (1, 1))
        top, left, bottom, right = node.get("padding", (0, 0, 0, 0))
        ky, kx = node["kernel"]
        inputs = x.shape[1] // groups
        weights = unpack(self.array(node, "weight").astype(np.uint8), (channels, ky, kx, inputs), w_bits)
        factors = np.ones(x.shape[1], dtype=np.int64)
        if node.get("align"):
            amounts = self.array(node, "align")
            factors = 1 << amounts if node["align"] == "shift" else amounts
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero_point)
        rows = (x.shape[2] - dy * (ky - 1) - 1) // sy + 1
        columns = (x.shape[3] - dx * (kx - 1) - 1) // sx + 1
        product, align, acc_bits = self.widths
        acc = np.zeros((len(x), channels, rows, columns), dtype=np.int64)
        input_sum = np.zeros((len(x), channels, rows, columns), dtype=np.int64)
        counts = {kind: np.zeros(channels, dtype=np.int64) for kind in ("product", "align", "acc", "post")}
        for out in range(channels):
            start = out // (channels // groups) * inputs
            for y in range(ky):
                for xx in range(kx):
                    window = x[
                        :,
                        :,
                        y * dy : y * dy + (rows - 1) * sy + 1 : sy,
                        xx * dx : xx * dx + (columns - 1) * sx + 1 : sx,
                    ]
                    for word in range((start + inputs - 1) // self.lanes + 1):
                        part = [lane for lane in range(inputs) if (start + lane) // self.lanes == word]
                        for j, (w, w_top) in enumerate(digits(weights[out, y, xx], w_bits, True)):
                            for i in range((a_bits + 3) // 4):
                                row_sum = np.zeros_like(acc[:, 0])
                                for lane in part:
                                    a, a_top = digits(window[:, start + lane], a_bits, a_signed)[i]
                                    limits = signed_range(product) if a_top or w_top else (0, (1 << product) - 1)
                                    value, over = limit(a * w[lane], *limits, self.overflow)
                                    counts["product"][out] += over.sum()
                                    value, over = limit(
                                        value * factors[start + lane], *signed_range(align), self.overflow
                                    )
                                    counts["align"][out] += over.sum()
                                    row_sum += value
                                    if j == 0:
                                        input_sum[:, out] += (a * factors[start + lane]) << 4 * i
                                value = acc[:, out] + (row_sum << 4 * (i + j))
                                acc[:, out], over = limit(value, *signed_range(acc_bits), self.overflow)
                                counts["acc"][out] += over.sum()
        fraction = node.get("fraction", 0)
        zero = self.array(node, "zero") if node.get("zero_term") else np.zeros(channels, dtype=np.int64)
        bias = self.array(node, "bias")
        exact = (acc << fraction) - zero[:, None, None] * input_sum + bias[:, None, None]
        values, over = limit(exact, *signed_range(acc_bits + fraction), "saturate")
        counts["post"] += over.sum(axis=(0, 2, 3))
        self.counts[node["name"]] = counts
        out, requant = node["out"], node["requant"]
        if requant["kind"] == "scale":
            result, saturated = self._scaled(node, values, requant)
            counts["post"] += saturated
            return result
        thresholds, descending = self.array(node, "thresholds"), self.array(node, "descending")
        reached = np.zeros_like(values)
        for channel in range(channels):
            for threshold in thresholds[channel]:
                v = values[:, channel]
                reached[:, channel] += (v <= threshold) if descending[channel] else (v >= threshold)
        return reached - (1 << (out["bits"] - 1) if out.get("signed") else 0)

    def _scaled(self, node, values, requant):
        pair = self.array(node, "multiplier"), self.array(node, "shift")
        return scale(values, *pair, requant, node["out"].get("zero_point", 0))

    def requantise(self, node, x):
        return self._scaled(node, x - self.kind(node)[2], node["requant"])[0]

    def add(self, node, *sources):
        total = 0
        for position, prefix in enumerate(("first_", "second_")):
            pair = self.array(node, f"{prefix}multiplier"), self.array(node, f"{prefix}shift")
            shifted = sources[position] - self.kind(node, position)[2]
            total = total + scale(shifted, *pair, node["requant"], clamp=signed_range(16))[0]
        return self._scaled(node, total, node["requant"])[0]

    def _windows(self, node, x):
        top, left, bottom, right = node.get("padding", (0, 0, 0, 0))
        (ky, kx), (sy, sx) = node["kernel"], node["stride"]
        height, width = x.shape[2:]
        rows, columns = (height + top + bottom - ky) // sy + 1, (width + left + right - kx) // sx + 1
        for row in range(rows):
            for column in range(columns):
                y, xx = row * sy - top, column * sx - left
                yield row, column, x[:, :, max(y, 0) : min(y + ky, height), max(xx, 0) : min(xx + kx, width)]

    def _pool(self, node, x, reduce):
        found = {(row, column): reduce(window) for row, column, window in self._windows(node, x)}
        rows, columns = (1 + max(place[axis] for place in found) for axis in (0, 1))
        return np.stack([np.stack([found[r, c] for c in range(columns)], axis=-1) for r in range(rows)], axis=-2)

    def max_pool(self, node, x):
        return self._pool(node, x, lambda window: window.max(axis=(2, 3)))

    def average_pool(self, node, x):
        def mean(window):
            count, total = window.shape[2] * window.shape[3], window.sum(axis=(2, 3))
            return np.sign(total) * ((2 * abs(total) + count) // (2 * count))

        return self._pool(node, x, mean)

    def global_average_pool(self, node, x):
        return self.average_pool(node | {"kernel": x.shape[2:], "stride": (1, 1)}, x)

    def concat(self, node, *sources):
        return np.concatenate(sources, axis=1)

    def flatten(self, node, x):
        return x.reshape(len(x), -1, 1, 1)

    def channel_pad(self, node, x):
        blank = [np.full((len(x), node[side], *x.shape[2:]), self.kind(node)[2]) for side in ("before", "after")]
        return np.concatenate([blank[0], x, blank[1]], axis=1)

    def stride_slice(self, node, x):
        return x[:, :, :: node["stride"][0], :: node["stride"][1]]
