"""The configuration registers of one layer, and their values for a convolution."""

from amaranth.hdl import Shape
from amaranth.lib import data
from amaranth.utils import ceil_log2

from ...kernels.align import Alignment
from ...kernels.conv import ConvShape, Operands
from ...kernels.digits import digit_count
from ...kernels.errors import CapacityError
from ...kernels.mac import DIGIT_BITS
from ...sim.descriptor import descriptor_fields
from ...sim.engine import EngineConfig
from .loader import CONTAINER_BITS

__all__ = ["address_bits", "container_index", "descriptor_layout", "layer_registers", "layer_values"]

SIZE_BITS = 16
"""Bits of heights, widths, channels, strides and dilations."""
PIXEL_BITS = 24
"""Bits of the count of output pixels."""
ADDRESSES = (
    "origin", "pixel_step", "row_step", "lane_step", "kernel_x_step", "kernel_y_step", "group_step", "plane_stride",
)  # fmt: skip
"""The registers that are addresses or steps between them."""


def address_bits(config: EngineConfig) -> int:
    """Bits of the address of a word of L digits in the activation memory."""
    return int(ceil_log2(config.act_bytes * 8 // (config.lanes * DIGIT_BITS)))


def descriptor_layout(config: EngineConfig) -> data.StructLayout:
    """The registers of a layer as the hardware holds them: those of `sim.descriptor`, from bit 0 on."""
    fields = descriptor_fields(config)
    return data.StructLayout({name: Shape(field.bits, field.signed) for name, field in fields.items()})


def container_index(bits: int) -> int:
    """Which of `CONTAINER_BITS` holds a code of so many bits."""
    return int(ceil_log2(bits))


def layer_registers(config: EngineConfig) -> data.StructLayout:
    """The registers that the compute side reads; they stand still while a layer runs.

    Addresses and their steps are words modulo the memory's address space. The steps of the pixels and
    of the kernel's taps include the way back to the left, so that the hardware only adds.
    """
    address = address_bits(config)
    return data.StructLayout(
        {
            "groups": SIZE_BITS,
            "group_inputs": SIZE_BITS,
            "group_outputs": SIZE_BITS,
            "depthwise": 1,
            "out_pixels": PIXEL_BITS,
            "tile_pixels": range(config.pixels + 1),
            "kernel_y": SIZE_BITS,
            "kernel_x": SIZE_BITS,
            "lane_groups": SIZE_BITS,
            "in_height": SIZE_BITS,
            "in_width": SIZE_BITS,
            "stride_y": SIZE_BITS,
            "stride_x": SIZE_BITS,
            "last_x": SIZE_BITS,
            "dilation_y": SIZE_BITS,
            "dilation_x": SIZE_BITS,
            "pad_top": SIZE_BITS,
            "pad_left": SIZE_BITS,
            "pad_code": 2 * DIGIT_BITS,
            **dict.fromkeys(ADDRESSES, address),
            "a_top": 1,
            "w_top": 1,
            "a_signed": 1,
            "container": range(len(CONTAINER_BITS)),
            "aligned": 1,
            "multiply": 1,
        }
    )


def layer_values(
    config: EngineConfig,
    shape: ConvShape,
    operands: Operands,
    size: tuple[int, int],
    *,
    base: int = 0,
    plane_stride: int | None = None,
    pad_code: int = 0,
    alignment: Alignment | None = None,
    tile_pixels: int | None = None,
) -> dict[str, int]:
    """What `layer_registers` hold for a convolution over an input of `size` (height, width).

    The input lies at `base`, pixels row-major, the lane groups of a pixel in consecutive words, those of
    each convolution group (of all channels, where the layer is depthwise) from a fresh word on; digit
    planes are `plane_stride` words apart, by default without a gap.
    """
    height, width = size
    out_height, out_width = shape.output_size(height, width)
    depthwise = shape.group_inputs == 1 and shape.group_outputs == 1
    group_inputs = shape.in_channels if depthwise else shape.group_inputs
    group_lanes = -(-group_inputs // config.lanes)
    words = group_lanes * (1 if depthwise else shape.groups)  # of one pixel
    steps = 1 if depthwise else group_lanes
    stride_y, stride_x = shape.stride
    dilation_y, dilation_x = shape.dilation
    top, left = shape.padding[:2]
    plane = height * width * words if plane_stride is None else plane_stride
    last_x = (out_width - 1) * stride_x
    values = {
        "groups": 1 if depthwise else shape.groups,
        "group_inputs": group_inputs,
        "group_outputs": shape.out_channels if depthwise else shape.group_outputs,
        "depthwise": int(depthwise),
        "out_pixels": out_height * out_width,
        "tile_pixels": config.pixels if tile_pixels is None else tile_pixels,
        "kernel_y": shape.kernel[0],
        "kernel_x": shape.kernel[1],
        "lane_groups": steps,
        "in_height": height,
        "in_width": width,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "last_x": last_x,
        "dilation_y": dilation_y,
        "dilation_x": dilation_x,
        "pad_top": top,
        "pad_left": left,
        "pad_code": pad_code % (1 << 2 * DIGIT_BITS),
        "origin": base - (top * width + left) * words,
        "pixel_step": stride_x * words,
        "row_step": (stride_y * width - last_x) * words,
        "lane_step": 1,
        "kernel_x_step": dilation_x * words - (steps - 1),
        "kernel_y_step": (dilation_y * width - (shape.kernel[1] - 1) * dilation_x) * words - (steps - 1),
        "group_step": 1 if depthwise else steps,
        "plane_stride": plane,
        "a_top": digit_count(operands.a_bits) - 1,
        "w_top": digit_count(operands.w_bits) - 1,
        "a_signed": int(operands.a_signed),
        "container": container_index(operands.w_bits),
        "aligned": int(alignment is not None),
        "multiply": int(alignment == "mul"),
    }
    space = 1 << address_bits(config)
    if base + plane * (values["a_top"] + 1) > space:
        raise CapacityError(f"the input must end within {space} words, not at {base + plane * (values['a_top'] + 1)}")
    return {name: value % space if name in ADDRESSES else value for name, value in values.items()}
