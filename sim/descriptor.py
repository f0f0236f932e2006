"""The layer descriptor: every register of one layer, as it lies in the memory image.

One table for the compiler, which fills it in, for the engine, whose registers it is, and for the
documentation of an exported engine. Fields follow each other without gaps from bit 0 on; the whole is
padded with zeros to a multiple of 512 bits. All bytes of a descriptor XOR to `CHECK`, so that
neither zeros nor a damaged one pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import xor
from typing import Literal, get_args

import numpy as np

from ..kernels.errors import CapacityError
from ..kernels.fusion import FUSION_MODES
from ..kernels.planes import MAX_PLANES, TABLE_ENTRIES, TABLE_PLANES
from ..kernels.requant import Rounding
from .engine import EngineConfig

__all__ = [
    "ADDRESS_BITS",
    "CHECK",
    "COEFFICIENT_SLOTS",
    "DECODER_FIELDS",
    "DESCRIPTOR_STEP",
    "MAGIC",
    "MODE_BITS",
    "OPERATIONS",
    "PART_BITS",
    "PLANES",
    "PLANE_BITS",
    "RECORD_SLOTS",
    "SHIFT_BITS",
    "Field",
    "Operation",
    "act_address_bits",
    "act_words",
    "descriptor_bits",
    "descriptor_fields",
    "descriptor_words",
    "encode_descriptor",
    "half_address_bits",
    "has_register",
    "record_slots",
    "sub_address_bits",
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
MODE_BITS = 2
"""Of the number of a fused array's mode."""
PART_BITS = 3
"""Of the number of a weight's parts, less one; in a sign array of an activation's planes too."""
PLANE_BITS = (MAX_PLANES - 1).bit_length()
"""Of the number of accumulators of a pixel, less one."""
SHIFT_BITS = 4
"""Of a shift in a row of the shift array."""
ARRAY_FIELDS = {
    "digit": ("w_top", "container", "rest_from", "rest_container", "wide_first", "wide_end", "aligned", "multiply"),
    "fusion": (
        "w_top",
        "container",
        "aligned",
        "multiply",
        "mode",
        "narrow",
        "out_narrow",
        "second_narrow",
        "first_narrow",
        "other_narrow",
    ),
    "sign": (
        "part_top",
        "wide_first",
        "wide_end",
        "plane_top",
        "a_planes",
        "a_signs",
        "table",
        "out_table",
        "second_table",
    ),
    "shift": (
        "part_top",
        "wide_first",
        "wide_end",
        "container",
        "focused",
        "value_shift",
        "minus_shift",
        "minus_negative",
        "plus_shift",
        "plus_negative",
    ),
}
"""Registers that only some arrays have, by array."""
WIDE_FIELDS = ("part_top", "pair_stride")
"""Registers that digit arrays have for operands of more than 8 bits."""
DECODER_FIELDS = ("table_words", "weight_words")
"""Registers that engines with a decoder have."""
PLANES = 4
"""Digit planes of a 16-bit stream."""
RECORD_SLOTS = ("bias", "main", *(f"threshold_{index}" for index in range(15)), "own", "other", "sum", "copy")
"""What a channel's record may have, in the order of the stream; each is one field of 64 bits."""
COEFFICIENT_SLOTS = tuple(f"coefficients_{field}" for field in reversed(range(MAX_PLANES // 4)))
"""Before these in a sign array: the coefficients of four planes each, as many as there are, the last ones first."""


@dataclass(frozen=True, slots=True)
class Field:
    """Bits of a register, whether it is signed, and what it says."""

    bits: int
    signed: bool = False
    doc: str = ""

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest value."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


def act_words(engine: EngineConfig) -> int:
    """Words of W digits in the activation memory."""
    return engine.act_bytes * 8 // engine.word_bits


def act_address_bits(engine: EngineConfig) -> int:
    """Bits of the address of a word of W digits in the activation memory."""
    return (act_words(engine) - 1).bit_length()


def half_address_bits(engine: EngineConfig) -> int:
    """Bits of the address of a word of a tensor of the post lanes: in a fusion engine one more, for half-words."""
    return act_address_bits(engine) + (engine.array == "fusion")


def sub_address_bits(engine: EngineConfig) -> int:
    """Bits of an address of the walk over an input: in a fusion engine two more, for the lane groups of a word."""
    return act_address_bits(engine) + 2 * (engine.array == "fusion")


@lru_cache
def descriptor_fields(engine: EngineConfig) -> Mapping[str, Field]:
    """The registers of a layer by name, from bit 0 of the descriptor on.

    Addresses of activations are words modulo the address space, and so are the steps between them. What a
    layer does not use is 0.
    """
    pixel_bits = engine.pixels.bit_length()

    def flag(doc: str) -> Field:
        return Field(1, doc=doc)

    def size(doc: str) -> Field:
        return Field(SIZE_BITS, doc=doc)

    def address(doc: str) -> Field:
        return Field(half_address_bits(engine), doc=doc)

    def walked(doc: str) -> Field:
        return Field(sub_address_bits(engine), doc=doc)

    def code(doc: str) -> Field:
        return Field(CODE_BITS, signed=True, doc=doc)

    def channel(doc: str) -> Field:
        return Field(SIZE_BITS + 2, signed=True, doc=doc)

    def rounding(what: str) -> Field:
        return Field(
            3, doc=f"how {what} rounds: {', '.join(f'{i} {name}' for i, name in enumerate(get_args(Rounding)))}"
        )

    def placed(prefix: str, what: str) -> dict[str, Field]:
        """A tensor that the post lanes write or read, from its first pixel's first word on."""
        return {
            f"{prefix}_planes": Field(3, doc=f"digit planes of {what}; 0: there is none"),
            **{
                f"{prefix}_plane_{plane}": address(f"word of the first pixel in digit plane {plane} of {what}")
                for plane in range(PLANES)
            },
            f"{prefix}_channel": channel(
                f"where output channel 0 is in {what}, from lane 0 of a pixel's first word on"
            ),
            f"{prefix}_straddles": flag(f"a span of channels may lie in two words of {what}"),
            f"{prefix}_narrow": flag(f"words of {what} are half-words of codes of 2 bits, and addresses count them"),
        }

    def operand(prefix: str, what: str) -> dict[str, Field]:
        """What the post lanes read; a channel outside [first, end) is the zero point."""
        return {
            **placed(prefix, what),
            f"{prefix}_first": channel(f"first channel that {what} has, counted like `{prefix}_channel`"),
            f"{prefix}_end": channel(f"the channel after the last of {what}"),
            f"{prefix}_signed": flag(f"codes of {what} are signed"),
            f"{prefix}_zero": code(f"what stands in for channels that {what} does not have"),
        }

    def scaled(prefix: str, what: str) -> dict[str, Field]:
        """A rescale's end: rounding (index in `kernels.requant.Rounding`), zero point, clamp."""
        return {
            f"{prefix}_rounding": rounding(what),
            f"{prefix}_zero": code(f"zero point that {what} adds"),
            f"{prefix}_low": code(f"least code of {what}"),
            f"{prefix}_high": code(f"greatest code of {what}"),
        }

    passes = flag("activations have an upper digit")
    if engine.wide:
        passes = Field(2, doc="digits of an activation, less one")
    elif engine.array == "sign":
        passes = Field(PART_BITS, doc="passes of a weight tile, less one: digits of the activations, or their planes")
    operations = ", ".join(f"{index} {name}" for index, name in enumerate(OPERATIONS))
    modes = ", ".join(f"{index} {mode.a_bits}x{mode.w_bits}" for index, mode in enumerate(FUSION_MODES))
    fields = {
        "magic": Field(16, doc=f"{MAGIC:#06x}"),
        "check": Field(8, doc=f"makes the XOR of all bytes {CHECK:#04x}"),
        "op": Field(3, doc=operations),
        "stream": Field(
            ADDRESS_BITS, doc="bus word of the layer's records and weight tiles; of the data of a load or store"
        ),
        # The geometry of what is read under a window, and of the output.
        "out_pixels": Field(PIXEL_BITS, doc="pixels of the output"),
        "out_width": size("width of the output"),
        "kernel_y": size("rows of the window"),
        "kernel_x": size("columns of the window"),
        "in_height": size("height of the input"),
        "in_width": size("width of the input"),
        "stride_y": size("rows from window to window"),
        "stride_x": size("columns from window to window"),
        "last_x": size("column of a row's last window, without padding: (out_width - 1) * stride_x"),
        "dilation_y": size("rows from tap to tap"),
        "dilation_x": size("columns from tap to tap"),
        "pad_top": size("rows of padding above the input"),
        "pad_left": size("columns of padding left of the input"),
        "origin": walked(
            "word of output pixel 0's first tap, padding or not; without the array: from `first`'s planes on"
        ),
        "pixel_step": walked("words from a window to the next one in its row"),
        "row_step": walked("words from a row's last window to the first of the next row"),
        "kernel_x_step": walked("words from a tap to the next one in its row"),
        "kernel_y_step": walked("words from a row's last tap to the first of the next row"),
        # The array.
        "groups": size("convolution groups"),
        "group_inputs": size("input channels of a group; depthwise: of all"),
        "group_outputs": size("output channels of a group; depthwise and without the array: of all"),
        "depthwise": flag("each row has one input channel: the array's diagonal"),
        "in_lane": Field((engine.most_lanes - 1).bit_length(), doc="lane of input channel 0 in the step that has it"),
        "plane_stride": walked("words from the array's lower digit plane to the upper one"),
        "pair_stride": walked("words from the array's lower two digit planes to the upper two"),
        "pad_code": Field(engine.operand_bits, doc="code of the padding"),
        "tile_pixels": Field(pixel_bits, doc="pixels of a tile"),
        "taper": Field(
            pixel_bits,
            doc="in the last row group, with more than this left but not over a tile: half of them; 0: never",
        ),
        "serial": flag("a tile waits until the tile before it has drained: operands share a bank"),
        "a_top": passes,
        "wide_first": size("first word of a pixel's inputs whose activations have an upper digit"),
        "wide_end": size("the word after the last of these; 0: all words have one"),
        "w_top": flag("weights have an upper digit"),
        "a_signed": flag("activations are signed"),
        "container": Field(2, doc="a weight code takes 1 << container bits in the stream"),
        "rest_from": size("from this row group on weights have one digit, in other containers; 0: from none on"),
        "rest_container": Field(2, doc="a weight code takes 1 << rest_container bits from there on"),
        "aligned": flag("each weight tile starts with a row of alignment amounts"),
        "multiply": flag("alignment multiplies by its amounts; 0: it shifts"),
        "mode": Field(MODE_BITS, doc=f"bits of activations x weights in a PE: {modes}"),
        "narrow": flag("the input's words have two codes of two bits in a digit's place"),
        "part_top": Field(PART_BITS, doc="parts of a weight, each with a weight tile of its own, less one"),
        "plane_top": Field(PLANE_BITS, doc="accumulators of a pixel, less one: parts, times planes of activations"),
        "a_planes": flag("activations are planes, one bit of a word in each pass of a weight tile; 0: digits"),
        "a_signs": flag("planes of activations are -1 and +1; 0: 0 and 1"),
        "focused": flag("codes have a component, the sum of whose inputs is added"),
        "value_shift": Field(SHIFT_BITS, doc="bits by which the sum of the shifted inputs is shifted"),
        "minus_shift": Field(SHIFT_BITS, doc="bits by which the inputs' sum of the minus component is shifted"),
        "minus_negative": flag("the minus component is subtracted"),
        "plus_shift": Field(SHIFT_BITS, doc="bits by which the inputs' sum of the plus component is shifted"),
        "plus_negative": flag("the plus component is subtracted"),
        "table_words": Field(ADDRESS_BITS, doc="bus words of the decoder's table, the first ones of the stream"),
        "weight_words": Field(ADDRESS_BITS, doc="bus words of a row group's coded weights, for each tile of pixels"),
        # The post lanes.
        "interval": Field(INTERVAL_BITS, doc="cycles from slot to slot"),
        "beats": Field(engine.rows.bit_length(), doc="beats of `post_lanes` channels in a slot"),
        "fraction": Field(4, doc="fraction bits of the zero point constants and biases in the records"),
        "thresholds": Field(4, doc="thresholds of a record: 1, 3, 7 or 15; 0: the record's scale requantises"),
        **scaled("main", "the layer's requantisation"),
        "main_zero": code("zero point that the layer's requantisation adds; with thresholds, the code below the first"),
        "adds": flag("the other operand is added"),
        "own_zero": code("zero point of the own codes in the sum"),
        "operand_rounding": rounding("the rescale of both operands of the sum"),
        **scaled("sum", "the sum"),
        "copies": flag("the second tensor is rescaled; 0: it holds the same codes"),
        "copy_from": code("zero point of the codes that the copy is made from"),
        **scaled("copy", "the copy"),
        "table": Field(
            TABLE_PLANES * TABLE_ENTRIES, doc=f"words of planes, {TABLE_PLANES} bits each, that counts 0, 1, .. become"
        ),
        "out_table": flag("codes of the output are counts, and the table's words are written"),
        "second_table": flag("codes of the copy are counts, and the table's words are written"),
        **placed("out", "the output"),
        "out_pixel_step": address("words from pixel to pixel of the output"),
        **placed("second", "the copy"),
        "second_pixel_step": address("words from pixel to pixel of the copy"),
        **operand("first", "the first operand"),
        **operand("other", "the other operand"),
        "other_pixel_step": address("words from pixel to pixel of the other operand, in a row"),
        "other_row_step": address("words from a row's last pixel of the other operand to the next row"),
    }
    return {name: field for name, field in fields.items() if has_register(engine, name)}


def has_register(engine: EngineConfig, name: str) -> bool:
    """Whether the engine has that register: some are of some arrays, or of a decoder, only."""
    if name in DECODER_FIELDS:
        return engine.decoder != "raw"
    if name in WIDE_FIELDS and engine.wide:
        return True
    special = name in WIDE_FIELDS or any(name in names for names in ARRAY_FIELDS.values())
    return not special or name in ARRAY_FIELDS[engine.array]


def record_slots(engine: EngineConfig) -> tuple[str, ...]:
    """The fields of a channel's record by name, in the order in which they stream; a layer has some of them."""
    return (*(COEFFICIENT_SLOTS if engine.array == "sign" else ()), *RECORD_SLOTS)


@lru_cache
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
