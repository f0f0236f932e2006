"""The layer descriptor: every register of one layer, as it lies in the memory image.

One table for the compiler, which fills it in, for the engine, whose registers it is, and for the
documentation of an exported engine. Fields follow each other without gaps from bit 0 on; the whole is
padded with zeros to a multiple of 512 bits. All bytes of a descriptor XOR to `CHECK`, so that
neither zeros nor a damaged one pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Literal, get_args

import numpy as np

from ..kernels.errors import CapacityError
from ..kernels.mac import DIGIT_BITS
from .engine import EngineConfig

__all__ = [
    "ADDRESS_BITS",
    "CHECK",
    "DESCRIPTOR_STEP",
    "MAGIC",
    "OPERATIONS",
    "PLANES",
    "RECORD_SLOTS",
    "Field",
    "Operation",
    "act_address_bits",
    "act_words",
    "descriptor_bits",
    "descriptor_fields",
    "descriptor_words",
    "encode_descriptor",
]

Operation = Literal["end", "load", "store", "mac", "max_pool", "average_pool", "stream"]
OPERATIONS = get_args(Operation)
"""What a layer does; a field `op` holds the index."""

MAGIC = 0x6757
CHECK = 0xA5
DESCRIPTOR_STEP = 512
ADDRESS_BITS = 32
"""Of a bus word's address."""
SIZE_BITS = 16
"""Of heights, widths, channels, strides, dilations."""
PIXEL_BITS = 24
"""Of the count of output pixels."""
CODE_BITS = 17
"""Of a code in the post lanes: 16-bit streams, and 8-bit codes without a sign."""
INTERVAL_BITS = 24
PLANES = 4
"""Digit planes of a 16-bit stream."""
RECORD_SLOTS = ("bias", "main", *(f"threshold_{index}" for index in range(15)), "own", "other", "sum", "copy")
"""What a channel's record may have, in the order of the stream; each is one field of 64 bits."""


@dataclass(frozen=True, slots=True)
class Field:
    """Bits of a register and whether it is signed."""

    bits: int
    signed: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest value."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


def act_words(engine: EngineConfig) -> int:
    """Words of L digits in the activation memory."""
    return engine.act_bytes * 8 // (engine.lanes * DIGIT_BITS)


def act_address_bits(engine: EngineConfig) -> int:
    """Bits of the address of a word of L digits in the activation memory."""
    return (act_words(engine) - 1).bit_length()


def descriptor_fields(engine: EngineConfig) -> dict[str, Field]:
    """The registers of a layer by name, from bit 0 of the descriptor on.

    Addresses of activations are words modulo the address space, and so are the steps between them. What a
    layer does not use is 0.
    """
    address, size, code = Field(act_address_bits(engine)), Field(SIZE_BITS), Field(CODE_BITS, signed=True)
    channel = Field(SIZE_BITS + 2, signed=True)
    pixels = Field(engine.pixels.bit_length())
    flag, rounding = Field(1), Field(3)

    def placed(prefix: str) -> dict[str, Field]:
        """A tensor that the post lanes write or read, from its first pixel's first word on."""
        return {
            f"{prefix}_planes": Field(3),
            **{f"{prefix}_plane_{plane}": address for plane in range(PLANES)},
            # Where output channel 0 is, counted from lane 0 of the pixel's first word.
            f"{prefix}_channel": channel,
            # Whether a span of channels may lie in two words.
            f"{prefix}_straddles": flag,
        }

    def operand(prefix: str) -> dict[str, Field]:
        """What the post lanes read; a channel outside [first, end) is the zero point."""
        return {
            **placed(prefix),
            f"{prefix}_first": channel,
            f"{prefix}_end": channel,
            f"{prefix}_signed": flag,
            f"{prefix}_zero": code,
        }

    def scaled(prefix: str) -> dict[str, Field]:
        """A rescale's end: rounding (index in `kernels.requant.Rounding`), zero point, clamp."""
        return {f"{prefix}_rounding": rounding, f"{prefix}_zero": code, f"{prefix}_low": code, f"{prefix}_high": code}

    return {
        "magic": Field(16),
        "check": Field(8),
        "op": Field(3),
        "stream": Field(ADDRESS_BITS),
        # The geometry of what is read under a window, and of the output.
        "out_pixels": Field(PIXEL_BITS),
        "out_width": size,
        "kernel_y": size,
        "kernel_x": size,
        "in_height": size,
        "in_width": size,
        "stride_y": size,
        "stride_x": size,
        "last_x": size,
        "dilation_y": size,
        "dilation_x": size,
        "pad_top": size,
        "pad_left": size,
        "origin": address,
        "pixel_step": address,
        "row_step": address,
        "kernel_x_step": address,
        "kernel_y_step": address,
        # The array.
        "groups": size,
        "group_inputs": size,
        "group_outputs": size,
        "depthwise": flag,
        "in_lane": Field((engine.lanes - 1).bit_length()),
        "plane_stride": address,
        "pad_code": Field(2 * DIGIT_BITS),
        "tile_pixels": pixels,
        "taper": pixels,
        "serial": flag,
        "a_top": flag,
        "w_top": flag,
        "a_signed": flag,
        "container": Field(2),
        "aligned": flag,
        "multiply": flag,
        # The post lanes.
        "interval": Field(INTERVAL_BITS),
        "beats": Field(engine.rows.bit_length()),
        "fraction": Field(4),
        "thresholds": Field(4),
        **scaled("main"),
        "adds": flag,
        "own_zero": code,
        "operand_rounding": rounding,
        **scaled("sum"),
        "copies": flag,
        "copy_from": code,
        **scaled("copy"),
        **placed("out"),
        "out_pixel_step": address,
        **placed("second"),
        "second_pixel_step": address,
        **operand("first"),
        **operand("other"),
        "other_pixel_step": address,
        "other_row_step": address,
    }


def descriptor_bits(engine: EngineConfig) -> int:
    """Bits of a descriptor, a multiple of 512."""
    used = sum(field.bits for field in descriptor_fields(engine).values())
    return -(-used // DESCRIPTOR_STEP) * DESCRIPTOR_STEP


def descriptor_words(engine: EngineConfig) -> int:
    """Bus words of a descriptor."""
    return descriptor_bits(engine) // engine.bus_bits


def encode_descriptor(engine: EngineConfig, op: Operation, values: Mapping[str, int]) -> np.ndarray:
    """A descriptor as words, uint8 (words, bus_bits / 8).

    Raises `CapacityError` where a value does not fit its register.
    """
    fields = descriptor_fields(engine)
    given = {"magic": MAGIC, "op": OPERATIONS.index(op), **values}
    if unknown := given.keys() - fields.keys():
        raise KeyError(f"no register is called {', '.join(sorted(unknown))}")
    number, at, check_at = 0, 0, 0
    for name, field in fields.items():
        value = int(given.get(name, 0))
        low, high = field.range
        if not low <= value <= high:
            raise CapacityError(f"{name} must be from {low} to {high} in this engine, not {value}")
        if name == "check":
            check_at = at
        number |= (value & ((1 << field.bits) - 1)) << at
        at += field.bits
    size = descriptor_bits(engine) // 8
    number |= (reduce(xor, number.to_bytes(size, "little")) ^ CHECK) << check_at
    return np.frombuffer(number.to_bytes(size, "little"), dtype=np.uint8).reshape(-1, engine.bus_bits // 8)
