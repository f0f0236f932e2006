"""Tensors in an activation memory of words of L digits, and the slots of a layer, written from their definitions."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
from gatewise.sim.descriptor import act_address_bits

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

    A pixel has `words` words; `bases` are the addresses of the planes' first words.
    """

    codes: np.ndarray
    planes: int
    signed: bool
    lane: int
    words: int
    bases: tuple[int, ...]

    def place(self, channel, y, x, plane, lanes):
        """(address, lane) of a digit."""
        word, lane = divmod(self.lane + channel, lanes)
        return self.bases[plane] + (y * self.codes.shape[2] + x) * self.words + word, lane

    def store(self, memory):
        """Write the tensor into `memory`, digits (addresses, L)."""
        channels, height, width = self.codes.shape
        for plane in range(self.planes):
            for channel in range(channels):
                for y in range(height):
                    for x in range(width):
                        digit = int(self.codes[channel, y, x]) >> 4 * plane & 15
                        memory[self.place(channel, y, x, plane, memory.shape[1])] = digit

    def planes_registers(self, prefix, channel):
        """Registers of planes; output channel 0 is the tensor's channel `channel`."""
        return {
            f"{prefix}_planes": self.planes,
            **{f"{prefix}_plane_{plane}": base for plane, base in enumerate(self.bases)},
            f"{prefix}_channel": self.lane + channel,
        }

    def straddles(self, config, blocks, channel):
        """Whether any span lies in two words."""
        lanes = config.lanes
        firsts = slots(config, blocks, 1)
        return int(any((self.lane + channel + s.channel) % lanes + s.count > lanes for s in firsts))

    def operand_registers(self, prefix, channel, zero):
        return {
            **self.planes_registers(prefix, channel),
            f"{prefix}_first": self.lane,
            f"{prefix}_end": self.lane + self.codes.shape[0],
            f"{prefix}_signed": int(self.signed),
            f"{prefix}_zero": zero,
        }

    def windows(self, channel, zero, blocks, pixels):
        """Codes (output channels, pixels) at positions [(y, x)], the zero point outside of the channels."""
        outputs = sum(rows for _, rows in blocks)
        found = np.full((outputs, len(pixels)), zero)
        for output in range(outputs):
            if 0 <= channel + output < self.codes.shape[0]:
                found[output] = [self.codes[channel + output, y, x] for y, x in pixels]
        return found


class Room:
    """Places for tensors in a memory, in order, with gaps between them."""

    def __init__(self, config, rng):
        self.rng, self.lanes = rng, config.lanes
        self.size = 1 << act_address_bits(config)
        self.next = 0

    def empty(self, shape, planes, signed=False, spare=True):
        """A tensor of zeros; with `spare` from a random lane on, in words that may have more channels."""
        rng = self.rng
        channels, height, width = shape
        lane = int(rng.integers(0, self.lanes)) if spare else 0
        words = -(-(lane + channels) // self.lanes) + (int(rng.integers(0, 2)) if spare else 0)
        bases = []
        for _ in range(planes):
            self.next += int(rng.integers(0, 4))
            bases.append(self.next)
            self.next += height * width * words
        assert self.next <= self.size
        return Tensor(np.zeros(shape, dtype=np.int64), planes, signed, lane, words, tuple(bases))

    def filled(self, shape, planes, signed=False, spare=True):
        """A tensor of random codes, the ends of their range among them."""
        tensor = self.empty(shape, planes, signed, spare)
        low, high = code_range(4 * planes, signed)
        tensor.codes[:] = self.rng.integers(low, high + 1, shape)
        ends = self.rng.random(shape)
        tensor.codes[ends < 0.1] = low
        tensor.codes[ends > 0.9] = high
        return tensor


def window_registers(config, tensor, kernel, stride, padding, out_size):
    """How the first operand is walked: the window's taps over each output pixel."""
    height, width = tensor.codes.shape[1:]
    space = 1 << act_address_bits(config)
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
    space = 1 << act_address_bits(config)
    last_x = (out_size[1] - 1) * stride[1]
    return {
        "other_pixel_step": stride[1] * tensor.words % space,
        "other_row_step": (stride[0] * tensor.codes.shape[2] - last_x) * tensor.words % space,
    }
