"""An interpreter of memory images: runs what a compiled network says, word by word, without its network.

It knows descriptors, streams and addresses, and nothing of graphs; sums are exact, so it stands for the
engine wherever no width overflows. Slow and plain on purpose.
"""

import numpy as np
from gatewise.kernels.requant import ScaleRequantizer, ThresholdRequantizer
from gatewise.sim.descriptor import CHECK, MAGIC, OPERATIONS, act_words, descriptor_bits, descriptor_fields

OPERAND_BITS = ((4, 4), (2, 4), (4, 2), (2, 2))
"""Of activations and weights in a PE of a fused array, by its mode."""
ROUNDINGS = ("half_even", "half_up", "half_away", "floor", "tflite")


def parse(engine, image, word):
    """The registers of the descriptor at a word."""
    words = descriptor_bits(engine) // engine.bus_bits
    data = image[word : word + words].tobytes()
    assert np.bitwise_xor.reduce(np.frombuffer(data, np.uint8)) == CHECK
    number, registers = int.from_bytes(data, "little"), {}
    for name, field in descriptor_fields(engine).items():
        value = number & ((1 << field.bits) - 1)
        registers[name] = value - (1 << field.bits) if field.signed and value >> (field.bits - 1) else value
        number >>= field.bits
    assert number == 0
    assert registers["magic"] == MAGIC
    return registers, word + words


class Machine:
    """One engine: `run` walks through the descriptors of an image and leaves the result in it."""

    def __init__(self, engine, image):
        self.engine, self.image = engine, image.copy()
        self.word = engine.lanes * (2 if engine.array == "fusion" else 1)  # digits
        self.memory = np.random.default_rng(1).integers(0, 16, (act_words(engine), self.word)).astype(np.int64)
        self.space = 1 << (act_words(engine) - 1).bit_length()
        self.layers = []

    def run(self):
        word = 0
        while True:
            r, word = parse(self.engine, self.image, word)
            op = OPERATIONS[r["op"]]
            if op == "end":
                return self.image
            self.layers.append((op, r))
            getattr(self, op if op in ("load", "store", "mac") else "post_only")(r)

    # Bus side.

    def load(self, r):
        count = r["out_pixels"] * r["out_pixel_step"]
        data = self.image[r["stream"] :].reshape(-1)
        digits = np.stack([data & 15, data >> 4], 1).reshape(-1)
        for plane in range(r["out_planes"]):
            at = plane * count * self.word
            start = r[f"out_plane_{plane}"]
            self.memory[start : start + count] = digits[at : at + count * self.word].reshape(count, -1)

    def store(self, r):
        count = r["out_pixels"] * r["pixel_step"]
        planes = [self.memory[r[f"first_plane_{p}"] :][:count] for p in range(r["first_planes"])]
        flat = np.concatenate(planes).reshape(-1, 2)
        data = (flat[:, 0] | flat[:, 1] << 4).astype(np.uint8)
        self.image[r["stream"] :].reshape(-1)[: len(data)] = data

    def take(self, words):
        data = self.image[self.at : self.at + words].reshape(-1)
        self.at += words
        return data

    def records(self, r, rows, mac):
        planes = r["plane_top"] + 1 if mac and self.engine.array == "sign" else 0
        count = (-(-planes // 4) + 2 + r["thresholds"] if mac else 0) + 3 * r["adds"] + r["copies"]
        words = -(-rows * count * 64 // self.engine.bus_bits)
        return self.take(words)[: rows * count * 8].view(np.int64).reshape(rows, count)

    # What a window reads.

    def codes(self, words, signed, bits=4):
        """Codes of words, one for each digit of `bits` bits."""
        value = sum(word << 4 * p for p, word in enumerate(words))
        top = bits * len(words)
        return value - ((value >> (top - 1)) << top) if signed else value

    def step_lanes(self, r):
        a_bits, w_bits = OPERAND_BITS[r.get("mode", 0)]
        return self.engine.lanes * 16 // (a_bits * w_bits)

    def read_lanes(self, r, address, top):
        """The activations at an address of the array: a word, or the part of one that has a step's lanes."""
        lanes, narrow = self.step_lanes(r), r.get("narrow", 0)
        count = self.word * (1 + narrow) // lanes
        space = self.space * (4 if self.engine.array == "fusion" else 1)
        words = []
        for plane in range(top + 1):
            stride = plane % 2 * r["plane_stride"] + plane // 2 * r.get("pair_stride", 0)
            place, part = divmod((address + stride) % space, count)
            word = self.memory[place % self.space]
            word = np.concatenate([word & 3, word >> 2]) if narrow else word
            words.append(word[part * lanes : (part + 1) * lanes])
        return self.codes(words, r["a_signed"], 2 if narrow else 4)

    def lane_weights(self, r, codes):
        """Weights by lane of PE codes (rows, PEs), two or four lanes beside each other in each."""
        a_bits, bits = OPERAND_BITS[r.get("mode", 0)]
        if (a_bits, bits) == (4, 4):
            return codes
        held = [codes >> bits * lane & (1 << bits) - 1 for lane in range(16 // (a_bits * bits))]
        held = [code - (code >> bits - 1 << bits) for code in held]
        return np.concatenate([held[at] for at in ([0, 2, 1, 3] if len(held) == 4 else [0, 1])], axis=1)

    def window(self, r):
        """For each output pixel: its place and position, counted without the kernel."""
        y = x = place = 0
        for _ in range(r["out_pixels"]):
            yield y, x, place
            if x == r["last_x"]:
                y, x, place = y + r["stride_y"], 0, place + r["row_step"]
            else:
                x, place = x + r["stride_x"], place + r["pixel_step"]

    def taps(self, r):
        place = r["origin"]
        for ky in range(r["kernel_y"]):
            for kx in range(r["kernel_x"]):
                yield ky * r["dilation_y"] - r["pad_top"], kx * r["dilation_x"] - r["pad_left"], place
                place += r["kernel_x_step"] if kx + 1 < r["kernel_x"] else r["kernel_y_step"]

    def inside(self, r, y, x):
        return 0 <= y < r["in_height"] and 0 <= x < r["in_width"]

    def row_groups(self, r):
        limit = min(self.engine.rows, self.engine.lanes) if r["depthwise"] else self.engine.rows
        first = 0
        for group in range(r["groups"]):
            left = r["group_outputs"]
            while left:
                rows = min(left, limit)
                yield first, rows, group
                first, left = first + rows, left - rows

    # The array.

    def mac(self, r):
        pes, lanes, bus = self.engine.lanes, self.step_lanes(r), self.engine.bus_bits
        self.at = r["stream"]
        sign, parts = self.engine.array == "sign", r.get("part_top", 0) + 1
        decode = None
        if self.engine.decoder != "raw":
            table, decode = (
                (self.table, self.symbols) if self.engine.decoder == "huffman" else (self.networks, self.signs)
            )
            coded = table(r)
        for index, (first, rows, group) in enumerate(self.row_groups(r)):
            rest = 0 < r.get("rest_from", 0) <= index
            bits = 1 << r.get("rest_container" if rest else "container", 0)
            fields = self.records(r, rows, mac=True)
            symbols = None if decode is None else iter(decode(r, rows, *coded))
            start = r["in_lane"] + (first if r["depthwise"] else group * r["group_inputs"])
            inputs = rows if r["depthwise"] else r["group_inputs"]
            words = 1 if r["depthwise"] else -(-(start % lanes + inputs) // lanes)
            acc = np.zeros((r["plane_top"] + 1 if sign else 1, rows, r["out_pixels"]), dtype=np.int64)
            sums = np.zeros((rows, r["out_pixels"]), dtype=np.int64)
            for dy, dx, place in self.taps(r):
                for lane_word in range(words):
                    amounts = np.zeros(lanes, dtype=np.int64)
                    if symbols is not None:
                        tiles = [next(symbols) for _ in range(parts)]
                        amounts = tiles[0][0] if r.get("aligned") else amounts
                    low = start % lanes - lane_word * lanes
                    used = (np.arange(lanes) >= low) & (np.arange(lanes) < low + inputs)
                    count = rows if r["depthwise"] else rows * pes
                    weights = np.zeros((parts, rows, lanes), dtype=np.int64)
                    for at, part in enumerate(weights):
                        if symbols is not None:
                            values = self.values(r, tiles[at][bool(r.get("aligned")) :], 8)
                            if values.shape[1] == 1:
                                values = values[:, 0]
                            elif r["depthwise"]:
                                values = values[np.arange(rows), start % lanes + np.arange(rows)]
                        else:
                            if r.get("aligned"):
                                amounts = self.take(-(-8 * pes // bus))[:pes].astype(np.int64)
                            data = self.take(-(-count * bits // bus))
                            raw = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
                            values = self.values(r, raw.astype(np.int64) @ (1 << np.arange(bits)), bits)
                        if r["depthwise"]:
                            part[np.arange(rows), start % lanes + np.arange(rows)] = values
                        else:
                            part[:] = self.lane_weights(r, values.reshape(rows, pes)) * (used if sign else 1)
                    factors = amounts if r.get("multiply") else 1 << amounts
                    if not sign:
                        # Bytes of a wide engine's weights, or parts that add up.
                        if self.engine.array == "digit" and parts > 1:
                            weights[0], weights[1] = weights[0] % 256, 256 * weights[1]
                        weights = weights.sum(axis=0, keepdims=True)
                    for at, (y, x, pixel) in enumerate(self.window(r)):
                        if r.get("a_planes"):
                            # A word of planes: each of them meets each part of the weights.
                            planes = np.full(lanes, r["pad_code"])
                            if self.inside(r, y + dy, x + dx):
                                planes = self.read_lanes(r, pixel + place + start // lanes + lane_word, r["a_top"] // 4)
                            ones = planes >> np.arange(r["a_top"] + 1)[:, None] & 1
                            products = (2 * ones - 1 if r["a_signs"] else ones) @ weights.transpose(0, 2, 1)
                            acc[:, :, at] += products.reshape(-1, rows)
                            continue
                        word = start // lanes + lane_word
                        here = not r.get("wide_end") or r["wide_first"] <= word < r["wide_end"]
                        top = r["a_top"] if here else 0
                        if self.inside(r, y + dy, x + dx):
                            a = self.read_lanes(r, pixel + place + start // lanes + lane_word, top)
                        else:
                            bit = 4 * (top + 1)
                            pad = r["pad_code"] & ((1 << bit) - 1)
                            a = np.full(lanes, pad - ((pad >> (bit - 1)) << bit if r["a_signed"] else 0))
                        aligned = a * factors
                        acc[:, :, at] += weights @ aligned
                        if r["depthwise"]:
                            sums[:, at] += aligned[start % lanes + np.arange(rows)]
                        else:
                            sums[:, at] += (aligned * used).sum()
            planes = -(-len(acc) // 4) if sign else 0
            own = self.main(r, acc, sums, fields[:, :planes], fields[:, planes:])
            self.finish(r, first, rows, own, fields[:, planes + 2 + r["thresholds"] :])

    def table(self, r):
        """Symbols by place, and limits and offsets by length, of a layer's coded weights."""
        symbols, limits, offsets = {}, {}, {}
        for address, value in self.take(r["table_words"]).reshape(-1).view(np.uint32).reshape(-1, 2).tolist():
            if address < 256:
                symbols[address] = value
            else:
                limits[address - 255], offsets[address - 255] = value & 0x1FFFF, value >> 17
        return symbols, limits, offsets

    def symbols(self, r, rows, symbols, limits, offsets):
        """A row group's weight tiles, (rows, lanes), amounts first; depthwise without amounts (rows, 1)."""
        head, count, *chunks = self.take(r["weight_words"]).reshape(-1).view(np.uint32).tolist()
        assert not any(chunks[count:])
        chunks = iter(chunks[:count])
        streams = rows + r.get("aligned", 0)
        assert head >> 24 == streams
        bits, used = [[] for _ in range(streams)], [0] * streams
        asks = 2 * list(range(streams))
        found = np.zeros((streams, head & 0xFFFFFF), dtype=np.int64)
        for at in range(found.shape[1]):
            for row in asks:
                chunk = next(chunks, 0)
                bits[row] += [chunk >> bit & 1 for bit in range(32)]
            asks = []
            for row in range(streams):
                value = length = 0
                while length == 0 or value >= limits[length]:
                    value, length = 2 * value + bits[row][used[row] + length], length + 1
                found[row, at] = symbols[(value + offsets[length]) % 256]
                used[row] += length
                if used[row] // 32 > (used[row] - length) // 32:
                    asks.append(row)
        for row in asks:
            chunk = next(chunks, 0)
            bits[row] += [chunk >> bit & 1 for bit in range(32)]
        assert next(chunks, None) is None
        assert all(own[end] == 1 and not any(own[end + 1 :]) for own, end in zip(bits, used, strict=True))
        columns = 1 if r["depthwise"] and not r.get("aligned") else self.engine.lanes
        return np.split(found, range(columns, found.shape[1], columns), axis=1)

    def networks(self, r):
        """Inputs and masks of a layer's XOR networks."""
        chunks = iter(self.take(r["table_words"]).reshape(-1).view(np.uint32).tolist())
        return [(sizes & 255, [next(chunks) for _ in range(sizes >> 8)]) for sizes in chunks if sizes]

    def signs(self, r, rows, *networks):
        """A row group's weight tiles, (rows, lanes); a depthwise one is one row, for all rows."""
        chunks = iter(self.take(r["weight_words"]).reshape(-1).view(np.uint32).tolist())
        lanes, found, ended = self.engine.lanes, [[]], False
        while not ended:
            head = next(chunks)
            length, skip, lane = head & 0xFFFF, head >> 16 & 31, head >> 21 & 63
            row_end, ended = head >> 29 & 1, head >> 30 & 1
            inputs, masks = networks[head >> 27 & 3]
            stored = sum(next(chunks) << 32 * at for at in range(next(chunks)))
            slices = -(-(skip + length) // len(masks))
            vectors = [stored >> at * inputs & (1 << inputs) - 1 for at in range(slices)]
            bits = [(vector & mask).bit_count() & 1 for vector in vectors for mask in masks]
            assert stored >> slices * inputs == 0
            for at, bit in enumerate(bits[skip : skip + length]):
                if at and at % lanes == 0:
                    found.append([])
                # Lanes before the run's first one, that no run has reached, have any sign.
                found[-1] += [0] * (lane - len(found[-1])) + [bit]
            if row_end:
                found.append([])
        assert not found.pop()
        assert not any(chunks)
        full = np.array([row + [0] * (lanes - len(row)) for row in found])
        tiles = full[:, None] if r["depthwise"] else full.reshape(-1, rows, lanes)
        return np.broadcast_to(tiles, (len(tiles), rows, lanes))

    def values(self, r, codes, bits):
        """What streamed codes are worth."""
        if self.engine.array == "sign":
            return 2 * codes - 1
        if self.engine.array in ("digit", "fusion"):
            return codes - ((codes >> (bits - 1)) << bits)
        state, exponent = codes & 3, codes >> (3 if r["focused"] else 2) & 15
        powers = np.array([0, -1, 1, 0])[state] << exponent
        if not r["focused"]:
            return powers
        means = [(-1 if r[f"{name}_negative"] else 1) << r[f"{name}_shift"] for name in ("minus", "plus")]
        return (powers << r["value_shift"]) + np.where(state == 0, 0, np.array(means)[codes >> 2 & 1])

    def main(self, r, acc, sums, planes, fields):
        bias, main = fields[:, 0], fields[:, 1]
        zero = ((main & 0xFFFF) ^ 0x8000) - 0x8000
        if self.engine.array == "sign":
            words = planes[:, ::-1].copy().view(np.int16).astype(np.int64)
            value, bits = (words.T[: len(acc), :, None] * acc).sum(axis=0), self.engine.mac.acc + 16
        else:
            value, bits = acc[0] << r["fraction"], self.engine.mac.acc + r["fraction"]
        value = value - zero[:, None] * sums + bias[:, None]
        limit = 1 << (bits - 1)
        value = np.clip(value, -limit, limit - 1)
        if r["thresholds"]:
            unit = ThresholdRequantizer(bits, r["thresholds"].bit_length(), False)
            thresholds = fields[:, 2 : 2 + r["thresholds"]]
            return unit.compute(value[None], thresholds, main >> 53 & 1)[0] + r["main_zero"]
        unit = ScaleRequantizer(bits, 31, ROUNDINGS[r["main_rounding"]])
        fewer = main >> 54 & 15
        ends = [np.where(fewer == 8, 0, r[f"main_{end}"] >> (fewer & 7)) for end in ("low", "high")]
        scale = main >> 16 & 0x7FFFFFFF, main >> 47 & 63
        return unit.compute(value[None], *scale, r["main_zero"], *ends)[0][0].astype(np.int64)

    # The post lanes.

    def post_only(self, r):
        self.at = r["stream"]
        for first, rows, _ in self.row_groups(r):
            fields = self.records(r, rows, mac=False)
            own = np.zeros((rows, r["out_pixels"]), dtype=np.int64)
            for at, (y, x, pixel) in enumerate(self.window(r)):
                seen = [
                    self.operand(r, "first", pixel + place, first, rows)
                    for dy, dx, place in self.taps(r)
                    if self.inside(r, y + dy, x + dx)
                ]
                if OPERATIONS[r["op"]] == "average_pool":
                    total, count = np.sum(seen, axis=0), len(seen)
                    own[:, at] = np.sign(total) * ((2 * np.abs(total) + count) // (2 * count))
                else:
                    own[:, at] = np.max(seen, axis=0)
            self.finish(r, first, rows, own, fields)

    def operand(self, r, prefix, place, first, rows):
        """Codes of a row group's channels at a pixel."""
        channels = r[f"{prefix}_channel"] + first + np.arange(rows)
        planes = r[f"{prefix}_planes"]
        value = np.zeros(rows, dtype=np.int64)
        for at, channel in enumerate(channels):
            if not r[f"{prefix}_first"] <= channel < r[f"{prefix}_end"]:
                value[at] = r[f"{prefix}_zero"]
                continue
            places = [self.slot(r, prefix, r[f"{prefix}_plane_{p}"] + place, channel) for p in range(planes)]
            digits = [self.memory[at] >> shift & (1 << bits) - 1 for at, shift, bits in places]
            value[at] = self.codes(digits, r[f"{prefix}_signed"], places[0][2])
        return value

    def slot(self, r, prefix, place, channel):
        """Where a channel is that the post lanes read or write: word and digit of the memory, shift and bits in it."""
        narrow = r.get(f"{prefix}_narrow", 0)
        word, half = divmod(place + channel // self.word, 1 + narrow)
        return (word % self.space, channel % self.word), 2 * half, 4 - 2 * narrow

    def finish(self, r, first, rows, own, fields):
        def rescale(values, field, rounding, ends):
            unit = ScaleRequantizer(18, 31, ROUNDINGS[rounding])
            return unit.compute(values[None], field & 0x7FFFFFFF, field >> 31 & 63, *ends)[0][0].astype(np.int64)

        out = own
        stream = (0, -(1 << 15), (1 << 15) - 1)
        if r["adds"]:
            other = np.zeros_like(own)
            x = place = 0
            for at in range(r["out_pixels"]):
                other[:, at] = self.operand(r, "other", place, first, rows)
                last = x == r["out_width"] - 1
                place, x = place + r["other_row_step" if last else "other_pixel_step"], 0 if last else x + 1
            a = rescale(own - r["own_zero"], fields[:, 0], r["operand_rounding"], stream)
            b = rescale(other - r["other_zero"], fields[:, 1], r["operand_rounding"], stream)
            out = rescale(a + b, fields[:, 2], r["sum_rounding"], (r["sum_zero"], r["sum_low"], r["sum_high"]))
        if r["copies"]:
            ends = r["copy_zero"], r["copy_low"], r["copy_high"]
            second = rescale(out - r["copy_from"], fields[:, -1], r["copy_rounding"], ends)
            self.write(r, "second", first, second)
        self.write(r, "out", first, out)

    def write(self, r, prefix, first, codes):
        if r.get(f"{prefix}_table"):
            codes = np.array([r["table"] >> 8 * count & 255 for count in range(16)])[codes]
        for row, values in enumerate(codes):
            channel = r[f"{prefix}_channel"] + first + row
            for at, value in enumerate(values):
                for plane in range(r[f"{prefix}_planes"]):
                    place = r[f"{prefix}_plane_{plane}"] + at * r[f"{prefix}_pixel_step"]
                    slot, shift, bits = self.slot(r, prefix, place, channel)
                    mask = (1 << bits) - 1
                    digit = int(value) >> 4 * plane & mask
                    self.memory[slot] = self.memory[slot] & ~(mask << shift) | digit << shift
