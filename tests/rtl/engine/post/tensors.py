"""Tensors in an activation memory of words of W digits, and the slots of a layer, written from their definitions."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
from gatewise.sim.descriptor import act_address_bits, half_address_bits, sub_address_bits

Slot = namedtuple("Slot", "channel count pixel row_group first_of_group last_of_group")


def row_groups(config, outputs, groups=1, depthwise=False):
    """(first channel, channels) of every row group; `outputs` of each convolution group."""
    most = min(config.rows, config.lanes) if depthwise else config.rows
    return [
        (group * outputs + at, min(most, outputs - at)) for group in range(groups) for at in range(0, outputs, most)
    ]


def slots(config, blocks, pixels):
    """Every slot of a layer, in order."""
    size = min(config.rows, config.lanes)
    found = []
    for at, (first, rows) in enumerate(blocks):
        spans = [(first + low, min(size, rows - low)) for low in range(0, rows, size)]
        for pixel in range(pixels):
            for channel, count in spans:
                begins = pixel == 0 and channel == first
                ends = pixel == pixels - 1 and channel == spans[-1][0]
                found.append(Slot(channel, count, pixel, at, begins, ends))
    return found


def code_range(bits, signed):
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


@dataclass
class Tensor:
    """Codes (channels, height, width) of a number of digit planes, from `lane` of each pixel's first word on.

    A pixel has `words` words; `bases` are the addresses of the planes' first words. The words of a `narrow` tensor are
    half-words, and its addresses count them.
    """

    codes: np.ndarray
    planes: int
    signed: bool
    lane: int
    words: int
    bases: tuple[int, ...]
    narrow: bool = False

    def place(self, channel, y, x, plane, slots):
        """(address, slot) of a digit."""
        word, slot = divmod(self.lane + channel, slots)
        return self.bases[plane] + (y * self.codes.shape[2] + x) * self.words + word, slot

    def address(self, config, word):
        """The address in the memory of one of the tensor's words."""
        space = 1 << act_address_bits(config)
        return word // 2 % space if self.narrow else word % space

    def store(self, memory):
        """Write the tensor into `memory`, digits (addresses, W)."""
        channels, height, width = self.codes.shape
        for plane in range(self.planes):
            for channel in range(channels):
                for y in range(height):
                    for x in range(width):
                        digit = int(self.codes[channel, y, x]) >> 4 * plane & 15
                        word, slot = self.place(channel, y, x, plane, memory.shape[1])
                        if self.narrow:
                            shift = 2 * (word % 2)
                            kept = memory[word // 2, slot] & ~(3 << shift)
                            memory[word // 2, slot] = kept | (digit & 3) << shift
                        else:
                            memory[word, slot] = digit

    def planes_registers(self, prefix, channel):
        """Registers of planes; output channel 0 is the tensor's channel `channel`."""
        return {
            f"{prefix}_planes": self.planes,
            **{f"{prefix}_plane_{plane}": base for plane, base in enumerate(self.bases)},
            f"{prefix}_channel": self.lane + channel,
            **({f"{prefix}_narrow": 1} if self.narrow else {}),
        }

    def straddles(self, config, blocks, channel):
        """Whether any span lies in two words."""
        room = config.word_digits
        firsts = slots(config, blocks, 1)
        return int(any((self.lane + channel + s.channel) % room + s.count > room for s in firsts))

    def operand_registers(self, prefix, channel, zero):
        return {
            **self.planes_registers(prefix, channel),
            f"{prefix}_first": self.lane,
            f"{prefix}_end": self.lane + self.codes.shape[0],
            f"{prefix}_signed": int(self.signed),
            f"{prefix}_zero": zero,
        }


class Room:
    """Places for tensors in a memory, in order, with gaps between them."""

    def __init__(self, config, rng):
        self.rng, self.config = rng, config
        self.size = 1 << act_address_bits(config)
        self.next = 0

    def empty(self, shape, planes, signed=False, spare=True):
        """A tensor of zeros; with `spare` from a random lane on, in words that may have more channels.

        In a fusion engine two of three of one plane are narrow.
        """
        rng, slots = self.rng, self.config.word_digits
        narrow = self.config.array == "fusion" and planes == 1 and rng.random() < 0.67
        if narrow:
            slots *= 2
        channels, height, width = shape
        lane = int(rng.integers(0, slots)) if spare else 0
        words = -(-(lane + channels) // slots) + (int(rng.integers(0, 2)) if spare else 0)
        bases = []
        for _ in range(planes):
            self.next += int(rng.integers(0, 4))
            bases.append(self.next)
            self.next += height * width * words
        assert self.next <= self.size
        halves = 1 + narrow
        bases = tuple(base * halves for base in bases)
        return Tensor(np.zeros(shape, dtype=np.int64), planes, signed, lane, words * halves, bases, narrow)

    def filled(self, shape, planes, signed=False, spare=True):
        """A tensor of random codes, the ends of their range among them."""
        tensor = self.empty(shape, planes, signed, spare)
        low, high = code_range(2 if tensor.narrow else 4 * planes, signed)
        tensor.codes[:] = self.rng.integers(low, high + 1, shape)
        ends = self.rng.random(shape)
        tensor.codes[ends < 0.1] = low
        tensor.codes[ends > 0.9] = high
        return tensor


def window_registers(config, tensor, kernel, stride, padding, out_size):
    """How the first operand is walked: the window's taps over each output pixel."""
    height, width = tensor.codes.shape[1:]
    space = 1 << sub_address_bits(config)
    last_x = (out_size[1] - 1) * stride[1]
    words = tensor.words
    return {
        "out_pixels": out_size[0] * out_size[1],
        "out_width": out_size[1],
        "kernel_y": kernel[0],
        "kernel_x": kernel[1],
        "in_height": height,
        "in_width": width,
        "stride_y": stride[0],
        "stride_x": stride[1],
        "last_x": last_x,
        "pad_top": padding[0],
        "pad_left": padding[1],
        "origin": -(padding[0] * width + padding[1]) * words % space,
        "pixel_step": stride[1] * words % space,
        "row_step": (stride[0] * width - last_x) * words % space,
        "kernel_x_step": words,
        "kernel_y_step": (width - kernel[1] + 1) * words % space,
    }


def other_registers(config, tensor, stride, out_size):
    space = 1 << half_address_bits(config)
    last_x = (out_size[1] - 1) * stride[1]
    return {
        "other_pixel_step": stride[1] * tensor.words % space,
        "other_row_step": (stride[0] * tensor.codes.shape[2] - last_x) * tensor.words % space,
    }


def fetch_registers(config, case, blocks):
    """Registers of a layer's operands and of its output's pixels."""
    values = {
        "out_pixels": case.out_size[0] * case.out_size[1],
        "out_width": case.out_size[1],
        "groups": case.groups,
        "group_outputs": case.outputs,
        "depthwise": int(case.depthwise),
    }
    if case.first is not None:
        values |= window_registers(config, case.first, case.kernel, case.stride, case.padding, case.out_size)
        values |= case.first.operand_registers("first", case.first_shift, case.zeros[0])
        # Two reads where one would do change nothing.
        values["first_straddles"] = case.straddles | case.first.straddles(config, blocks, case.first_shift)
    if case.other is not None:
        values |= other_registers(config, case.other, case.other_stride, case.out_size)
        values |= case.other.operand_registers("other", case.other_shift, case.zeros[1])
        values["other_straddles"] = case.straddles | case.other.straddles(config, blocks, case.other_shift)
    return values


def operand(tensor, shift, zero, slot, position):
    """The codes of a slot's channels at a position (y, x), or None outside of the image."""
    channels, height, width = tensor.codes.shape
    y, x = position
    if not (0 <= y < height and 0 <= x < width):
        return None
    wanted = range(slot.channel + shift, slot.channel + shift + slot.count)
    return [int(tensor.codes[channel, y, x]) if 0 <= channel < channels else zero for channel in wanted]


def fetched_slots(config, case, values, blocks):
    """For every slot: the addresses of its reads, the codes under each tap, and the other operand's."""
    found = []
    for slot in slots(config, blocks, values["out_pixels"]):
        oy, ox = divmod(slot.pixel, case.out_size[1])
        reads, taps, other = [], [], None

        def add(tensor, shift, straddles, y, x, slot=slot, reads=reads):
            word = (tensor.lane + shift + slot.channel) // config.word_digits
            for plane in range(tensor.planes):
                at = tensor.bases[plane] + (y * tensor.codes.shape[2] + x) * tensor.words + word
                reads += [tensor.address(config, at + half) for half in range(1 + straddles)]

        if case.first is not None:
            for ky in range(case.kernel[0]):
                for kx in range(case.kernel[1]):
                    y = oy * case.stride[0] + ky - case.padding[0]
                    x = ox * case.stride[1] + kx - case.padding[1]
                    add(case.first, case.first_shift, values["first_straddles"], y, x)
                    taps.append(operand(case.first, case.first_shift, case.zeros[0], slot, (y, x)))
        if case.other is not None:
            y, x = oy * case.other_stride[0], ox * case.other_stride[1]
            add(case.other, case.other_shift, values["other_straddles"], y, x)
            other = operand(case.other, case.other_shift, case.zeros[1], slot, (y, x))
        found.append((slot, reads, taps, other))
    return found


def write_registers(config, case, blocks):
    """Registers of what a layer writes."""
    most = min(config.rows, config.lanes, max(rows for _, rows in blocks))
    values = {"beats": -(-most // config.post_lanes)}
    for prefix, tensor, shift in case.targets:
        if tensor is not None:
            values |= tensor.planes_registers(prefix, shift)
            values[f"{prefix}_pixel_step"] = tensor.words
            values[f"{prefix}_straddles"] = case.straddles | tensor.straddles(config, blocks, shift)
    return values


def enabled(config, slot, digit, tensor, word):
    """What of a word is written with a tensor's digit, by its enable."""
    if config.enable_bits == 4:
        return {slot: digit}
    if tensor.narrow:
        return {2 * slot + word % 2: digit & 3}
    return {2 * slot: digit & 3, 2 * slot + 1: digit >> 2}


def written(config, mask, word):
    """What a write changes, by its enable."""
    bits = config.enable_bits
    return {at: word >> bits * at & (1 << bits) - 1 for at in range(config.word_enables) if mask >> at & 1}


def slot_writes(config, case, values, slot):
    """(address, what is written by its enable) of every write of a slot, in order."""
    found = []
    for prefix, tensor, shift in case.targets:
        if tensor is None:
            continue
        codes = tensor.codes.reshape(len(tensor.codes), -1)
        first = tensor.lane + shift + slot.channel
        for plane in range(tensor.planes):
            for half in range(1 + values[f"{prefix}_straddles"]):
                word = first // config.word_digits + half
                place = tensor.bases[plane] + slot.pixel * tensor.words + word
                parts = {}
                for channel in range(slot.channel + shift, slot.channel + shift + slot.count):
                    if (tensor.lane + channel) // config.word_digits == word:
                        digit = int(codes[channel, slot.pixel]) >> 4 * plane & 15
                        at = (tensor.lane + channel) % config.word_digits
                        parts |= enabled(config, at, digit, tensor, place)
                found.append((tensor.address(config, place), parts))
    return found
