"""Random layers of the post lanes: registers, records, operands, and the codes that the kernels make of them."""

from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from gatewise import kernels
from gatewise.kernels.mac import MacFormat, signed_range
from gatewise.kernels.requant import Rounding
from gatewise.kernels.residual import AddOperand, ResidualAdd
from gatewise.sim.descriptor import OPERATIONS, descriptor_fields

ROUNDINGS = get_args(Rounding)
CODES = signed_range(16)


@dataclass
class Group:
    """One row group: arrays are (rows,) or (rows, pixels)."""

    rows: int
    fields: list
    """The 64-bit fields of all its channels, in the order of the stream."""
    acc: np.ndarray = None
    """(1, rows, pixels); in a sign array of each plane."""
    xsum: np.ndarray = None
    first: np.ndarray = None
    other: np.ndarray = None
    out: np.ndarray = None
    second: np.ndarray = None
    post: np.ndarray = None
    words: list = field(default_factory=list)
    holds: list = field(default_factory=list)
    """Cycles that each word takes."""


@dataclass
class Layer:
    registers: dict
    groups: list
    acc_bits: int

    @property
    def own_fields(self):
        return len(self.groups[0].fields) // self.groups[0].rows


def packed_registers(config, values):
    """The layer's registers as one number."""
    number, at = 0, 0
    for name, each in descriptor_fields(config).items():
        number |= (int(values.get(name, 0)) & ((1 << each.bits) - 1)) << at
        at += each.bits
    return number, at


def row_groups(config, groups, outputs, depthwise):
    """Rows of each row group."""
    most = min(config.rows, config.lanes) if depthwise else config.rows
    return [min(most, outputs - at) for _ in range(groups) for at in range(0, outputs, most)]


def in_words(fields, bus):
    """Bus words of a block of fields, and the cycles that each takes."""
    whole = sum((value & ((1 << 64) - 1)) << (64 * at) for at, value in enumerate(fields))
    count = -(-64 * len(fields) // bus)
    words = [whole >> (bus * at) & ((1 << bus) - 1) for at in range(count)]
    each = bus // 64
    holds = [1] * count if bus < 64 else [min(each, len(fields) - each * at) for at in range(count)]
    return words, holds


def scale(rng, rounding, count, value_bits, code_bits):
    """Multipliers and shifts that leave about a code, now and then nothing or far more."""
    multiplier = rng.integers(0, 1 << 31, count) >> rng.integers(0, 24, count)
    power = rng.random(count) < 0.2
    multiplier = np.where(power, 1 << rng.integers(0, 31, count), multiplier)
    size = np.frexp(multiplier.astype(float))[1] + value_bits - 1
    shift = size - rng.integers(1, code_bits + 2, count)
    shift = np.where(rng.random(count) < 0.1, rng.integers(0, 63, count), shift)
    return multiplier, shift.clip(31 if rounding == "tflite" else 0, 62)


def spread(rng, bits, shape):
    """Signed values of every size, with the ends among them."""
    low, high = signed_range(bits)
    value = rng.integers(low, high, shape, endpoint=True) >> rng.integers(0, bits, shape)
    return np.where(rng.random(shape) < 0.05, rng.choice([low, high], shape), value)


def ends(rng):
    """A zero point and a clamp within 16 bits."""
    zero, one, other = rng.integers(*CODES, 3, endpoint=True) >> rng.choice([0, 8], 3)
    low, high = CODES if rng.random() < 0.4 else sorted((int(one), int(other)))
    return int(zero), low, high


def random_layer(
    config, rng, op, adds, copies, thresholds=0, rounding=None, fraction=0, acc_bits=None, pixels=5, most_groups=4
):
    """A layer with operands of `pixels` pixels; `rounding` is that of the main scale."""
    mac = op == "mac"
    depthwise = mac and rng.random() < 0.3
    acc_bits = config.mac.acc if acc_bits is None else acc_bits
    groups = 1 if depthwise or not mac else int(rng.integers(1, most_groups + 1))
    outputs = int(rng.integers(1, max(2, most_groups * config.rows // groups)))
    main_rounding = rounding or ROUNDINGS[rng.integers(5)]
    operand_rounding, sum_rounding, copy_rounding = (ROUNDINGS[index] for index in rng.integers(0, 5, 3))
    if rng.random() < 0.3:
        sum_rounding = operand_rounding
    (main_zero, main_low, main_high), (sum_zero, sum_low, sum_high), (copy_zero, copy_low, copy_high) = (
        ends(rng) for _ in range(3)
    )
    signed_codes = bool(rng.integers(2))
    if thresholds:
        main_zero = -(thresholds + 1) // 2 if signed_codes else 0
    own_zero, other_zero, copy_from = rng.integers(*CODES, 3, endpoint=True).tolist()
    registers = {
        "op": OPERATIONS.index(op), "groups": groups, "group_outputs": outputs, "depthwise": int(depthwise),
        "out_pixels": pixels, "fraction": fraction, "thresholds": thresholds,
        "main_rounding": ROUNDINGS.index(main_rounding), "main_zero": main_zero, "main_low": main_low,
        "main_high": main_high, "adds": int(adds), "own_zero": own_zero, "other_zero": other_zero,
        "operand_rounding": ROUNDINGS.index(operand_rounding), "sum_rounding": ROUNDINGS.index(sum_rounding),
        "sum_zero": sum_zero, "sum_low": sum_low, "sum_high": sum_high, "copies": int(copies),
        "copy_from": copy_from, "copy_rounding": ROUNDINGS.index(copy_rounding), "copy_zero": copy_zero,
        "copy_low": copy_low, "copy_high": copy_high,
    }  # fmt: skip
    # Whole fields of coefficients, and one coefficient more.
    planes = int(rng.choice((1, 4, 5, 8, 9, *rng.integers(1, 65, 2)))) if mac and config.array == "sign" else 0
    table = np.arange(1 << 17)
    if config.array == "sign":
        # Of codes that are no counts the table takes the lowest four bits.
        table = rng.integers(0, 256, 16)[table & 15]
        registers |= {
            "plane_top": max(0, planes - 1),
            "table": sum(int(word) << 8 * count for count, word in enumerate(table[:16])),
            "out_table": int(rng.integers(2)),
        }
        registers["second_table"] = int(not registers["out_table"] and rng.integers(2))
    bits = acc_bits + (16 if planes else fraction)
    layer = Layer(registers, [], acc_bits)
    for rows in row_groups(config, groups, outputs, depthwise):
        channels = [[] for _ in range(rows)]
        shape = (1, rows, pixels)
        group = Group(rows, [])
        layer.groups.append(group)
        group.first, group.other = spread(rng, 16, shape), spread(rng, 16, shape)
        group.post = np.zeros(rows, dtype=np.int64)
        own = group.first
        if mac:
            group.acc = spread(rng, acc_bits, shape)
            group.xsum = spread(rng, 32, shape) >> rng.choice([0, 0, 12])
            zero, bias = spread(rng, 16, rows), spread(rng, bits, rows)
            if planes:
                coefs = spread(rng, 16, (planes, rows))
                group.acc = spread(rng, acc_bits, (planes, rows, pixels))
                if rng.random() < 0.5:  # so great that sums do not fit
                    coefs = rng.choice(signed_range(16), coefs.shape)
                    group.acc[:, rng.random((rows, pixels)) < 0.5] = rng.choice(signed_range(acc_bits))
                values, clipped = kernels.PlaneCorrection(MacFormat(acc=acc_bits)).compute(
                    group.acc, coefs[:, :, None], group.xsum[0], zero[:, None], bias[:, None]
                )
                values, clipped = values[None], clipped[None]
                for channel in range(rows):
                    channels[channel] += coefficient_fields(coefs[:, channel])
            else:
                values, clipped = kernels.Correction(MacFormat(acc=acc_bits), fraction).compute(
                    group.acc, group.xsum, zero[:, None], bias[:, None]
                )
            group.post += clipped.sum(axis=(0, 2))
            multiplier, shift = scale(rng, main_rounding, rows, bits, 16)
            descending = rng.integers(0, 2, rows)
            if thresholds:
                model = kernels.ThresholdRequantizer(bits, (thresholds + 1).bit_length() - 1, signed_codes)
                steps = spread(rng, bits, (rows, thresholds))
                # A few thresholds are values themselves.
                steps[:, 0] = values[0, :, 0]
                own = model.compute(values, steps, descending)
            else:
                model = kernels.ScaleRequantizer(bits, 31, main_rounding)
                own, lost = model.compute(values, multiplier, shift, main_zero, main_low, main_high)
                group.post += lost
            for channel in range(rows):
                main = zero[channel] & 0xFFFF | int(multiplier[channel]) << 16
                main |= int(shift[channel]) << 47 | int(descending[channel]) << 53
                channels[channel] += [bias[channel], int(main)]
                channels[channel] += steps[channel].tolist() if thresholds else []
        group.out = own
        if adds:
            scales = [scale(rng, each, rows, 17, 16) for each in (operand_rounding, operand_rounding, sum_rounding)]
            operands = [
                AddOperand(codes, zero, *each)
                for codes, zero, each in zip((own, group.other), (own_zero, other_zero), scales, strict=False)
            ]
            group.out = added(operands, scales[2], operand_rounding, sum_rounding, (sum_zero, sum_low, sum_high))
            for multiplier, shift in scales:
                for channel in range(rows):
                    channels[channel].append(int(multiplier[channel]) | int(shift[channel]) << 31)
        if copies:
            multiplier, shift = scale(rng, copy_rounding, rows, 17, 16)
            group.second = kernels.ScaleRequantizer(17, 31, copy_rounding).compute(
                group.out.astype(np.int64) - copy_from, multiplier, shift, copy_zero, copy_low, copy_high
            )[0]
            for channel in range(rows):
                channels[channel].append(int(multiplier[channel]) | int(shift[channel]) << 31)
        if registers.get("out_table"):
            group.out = table[group.out & 15]
        if copies and registers.get("second_table"):
            group.second = table[group.second & 15]
        group.fields = [int(value) for channel in channels for value in channel]
        group.words, group.holds = in_words(group.fields, config.bus_bits)
    return layer


def coefficient_fields(coefs):
    """Four of a channel's coefficients to a field, the first in the lowest bits; the last ones' field comes first."""
    fields = [
        sum((int(coef) & 0xFFFF) << 16 * at for at, coef in enumerate(coefs[first : first + 4]))
        for first in range(0, len(coefs), 4)
    ]
    return fields[::-1]


def added(operands, scales, operand_rounding, sum_rounding, limits):
    """The residual add, whose two roundings may differ."""
    if operand_rounding == sum_rounding:
        return ResidualAdd(31, sum_rounding).compute(tuple(operands), *scales, *limits)
    unit = ResidualAdd(31, operand_rounding).operand
    total = sum(
        unit.compute(each.codes.astype(np.int64) - each.zero_point, each.multiplier, each.shift, 0, *CODES)[0].astype(
            np.int64
        )
        for each in operands
    )
    return ResidualAdd(31, sum_rounding).output.compute(total, *scales, *limits)[0]


class RecordPlay:
    """The rule by which records are absorbed, a cycle a step; cycle 0 is the one after `start`."""

    def __init__(self, groups):
        self.queue = [
            (word, hold, at == len(group.words) - 1)
            for group in groups
            for at, (word, hold) in enumerate(zip(group.words, group.holds, strict=True))
        ]
        self.none = not self.queue
        self.held = 0
        self.full = 0

    @property
    def ready(self):
        """Whether the word at the stream leaves in this cycle, if it is there."""
        return bool(self.queue) and self.full < 2 and self.held + 1 == self.queue[0][1]

    @property
    def count(self):
        return 2 if self.none else self.full

    def step(self, valid, free):
        """Whether a word was taken."""
        open_, taken = self.full < 2, False
        if self.queue and open_ and valid:
            _, hold, last = self.queue[0]
            self.held += 1
            if self.held == hold:
                self.queue.pop(0)
                self.held, taken = 0, True
                self.full += last
        self.full -= free and not self.none
        return taken
