"""The registers of a layer's geometry: how it walks over an input in words of the activation memory.

A word holds W digits of one pixel; a pixel's channels stand in consecutive words, and pixels row-major. A tensor
may lie inside a wider one. Addresses and the steps between them are words modulo the address space; those from row
to row and from kernel row to kernel row include the way back to the left, so that the hardware only adds. What a fused
array reads is counted in lane groups, of which a word has 1, 2 or 4.
"""

from ..kernels.align import Alignment
from ..kernels.conv import ConvShape, Operands
from ..kernels.digits import BYTE_BITS, digit_count
from ..kernels.errors import CapacityError
from ..kernels.fusion import FUSION_MODES, FusionMode, fusion_mode
from ..kernels.mac import DIGIT_BITS
from .descriptor import act_address_bits, has_register, sub_address_bits
from .engine import Array, EngineConfig
from .image import container_bits
from .words import slot_bits

__all__ = ["layer_mode", "layer_values", "window_values"]


def layer_mode(array: Array, shape: ConvShape, operands: Operands, aligned: bool) -> FusionMode:
    """Bits of the operands that meet in a PE: what a fused array makes of the layer's, 4x4 in all others.

    There too, aligned and depthwise layers run in 4x4.
    """
    if array != "fusion" or aligned or shape.depthwise:
        return FUSION_MODES[0]
    return fusion_mode(operands.a_bits, operands.w_bits)


def window_values(
    engine: EngineConfig,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    out_size: tuple[int, int],
    *,
    words: int,
    first_word: int = 0,
    view: tuple[int, int] = (1, 1),
    row: int | None = None,
) -> dict[str, int]:
    """Registers of a window that moves over an input of `size`; every pair is (y, x), of padding (top, left).

    Parameters
    ----------
    words : from one pixel to the next
    first_word : where the first pixel's first word lies
    view : rows and columns of the stored tensor from one row or column of the input to the next
    row : columns of the stored tensor, by default those of the input

    `origin` is the word of the first tap of output pixel 0. The taps' steps lead from tap to tap within a row of the
    kernel and from its end to the next row; a step from one word of a pixel to the next is not in them.
    """
    (height, width), (out_height, out_width) = size, out_size
    down, right = view[0] * (width if row is None else row) * words, view[1] * words
    (stride_y, stride_x), (dilation_y, dilation_x), (top, left) = stride, dilation, padding
    last_x = (out_width - 1) * stride_x
    space = 1 << sub_address_bits(engine)
    return {
        "out_pixels": out_height * out_width,
        "out_width": out_width,
        "kernel_y": kernel[0],
        "kernel_x": kernel[1],
        "in_height": height,
        "in_width": width,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "last_x": last_x,
        "dilation_y": dilation_y,
        "dilation_x": dilation_x,
        "pad_top": top,
        "pad_left": left,
        "origin": (first_word - top * down - left * right) % space,
        "pixel_step": stride_x * right % space,
        "row_step": (stride_y * down - last_x * right) % space,
        "kernel_x_step": dilation_x * right % space,
        "kernel_y_step": (dilation_y * down - (kernel[1] - 1) * dilation_x * right) % space,
    }


def layer_values(
    engine: EngineConfig,
    shape: ConvShape,
    operands: Operands,
    size: tuple[int, int],
    *,
    base: int = 0,
    channel: int = 0,
    words: int | None = None,
    view: tuple[int, int] = (1, 1),
    row: int | None = None,
    plane_stride: int | None = None,
    pair_stride: int | None = None,
    pad_code: int = 0,
    alignment: Alignment | None = None,
    code_bits: int | None = None,
    tile_pixels: int | None = None,
    taper: int = 0,
    serial: bool = False,
) -> dict[str, int]:
    """Registers of the array's side of a convolution over an input of `size` (height, width).

    Parameters
    ----------
    base : the word in which channel 0 of the tensor's pixel 0 lies, low digit
    channel : the tensor's channel at which the layer's input begins
    words : from one pixel of the tensor to the next, by default as few as hold the input
    view, row : of a strided input, as in `window_values`
    plane_stride : words from one digit plane to the next, by default no gap
    pair_stride : words from the first pair of digit planes to the second, by default no gap
    code_bits : of a weight code in the stream, by default those of the operands
    tile_pixels : pixels of a tile, by default all that the accumulators hold
    taper : tiles of the last row group halve what is left down to this many pixels; 0: they do not
    serial : whether no tile begins before the drain of the one before it is over

    Raises `CapacityError` where the input does not end within the memory.
    """
    mode = layer_mode(engine.array, shape, operands, alignment is not None)
    lanes = engine.lanes * mode.lanes
    slots = engine.word_bits // slot_bits(engine, operands.a_bits)
    groups = slots // lanes  # of lanes, in a word
    depthwise = shape.depthwise
    if words is None:
        words = -(-(channel + shape.in_channels) // slots)
    plane = size[0] * size[1] * words if plane_stride is None else plane_stride
    top_digit = digit_count(operands.a_bits) - 1
    space = 1 << act_address_bits(engine)
    pair = 2 * plane if pair_stride is None else pair_stride
    last = max(plane * (digit % 2) + pair * (digit // 2) for digit in range(top_digit + 1))
    end = base + last + size[0] * size[1] * words
    if end > space:
        raise CapacityError(f"the input must end within {space} words, not at {end}")
    top, left = shape.padding[:2]
    window = window_values(
        engine,
        shape.kernel,
        shape.stride,
        (top, left),
        shape.dilation,
        size,
        shape.output_size(*size),
        words=words * groups,
        first_word=base * groups + channel // lanes,
        view=view,
        row=row,
    )
    values = {
        **window,
        # The channels of a depthwise layer run beside each other, as if they were one group.
        "groups": 1 if depthwise else shape.groups,
        "group_inputs": shape.in_channels if depthwise else shape.group_inputs,
        "group_outputs": shape.out_channels if depthwise else shape.group_outputs,
        "depthwise": int(depthwise),
        "in_lane": channel % lanes,
        "plane_stride": plane * groups % (1 << sub_address_bits(engine)),
        "pair_stride": pair * groups % (1 << sub_address_bits(engine)),
        "pad_code": pad_code % (1 << engine.operand_bits),
        "tile_pixels": engine.pixels if tile_pixels is None else tile_pixels,
        "taper": taper,
        "serial": int(serial),
        "a_top": top_digit,
        "a_signed": int(operands.a_signed),
        "container": container_bits(code_bits or min(BYTE_BITS, operands.w_bits)).bit_length() - 1,
        "w_top": digit_count(min(BYTE_BITS, operands.w_bits)) - 1,
        "aligned": int(alignment is not None),
        "multiply": int(alignment == "mul"),
        "mode": FUSION_MODES.index(mode),
        "narrow": int(slot_bits(engine, operands.a_bits) < DIGIT_BITS),
    }
    return {name: value for name, value in values.items() if has_register(engine, name)}
