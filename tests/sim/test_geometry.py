import numpy as np
import pytest
from gatewise import EngineConfig
from gatewise.kernels.conv import ConvShape, Operands
from gatewise.kernels.errors import CapacityError
from gatewise.sim.descriptor import CHECK, descriptor_fields, encode_descriptor
from gatewise.sim.geometry import layer_values

ENGINE = EngineConfig(rows=4, lanes=4, pixels=16, act_bytes=1024)
SPACE = 512


def test_a_convolutions_registers_are_those_of_its_geometry():
    shape = ConvShape(10, 6, (2, 3), (3, 2), (1, 2, 0, 0), (1, 2), groups=2)
    values = layer_values(
        ENGINE,
        shape,
        Operands(8, True, 3),
        (5, 9),
        base=7,
        channel=6,
        words=5,
        pad_code=-2,
        alignment="mul",
        tile_pixels=9,
        taper=3,
        serial=True,
    )
    out_width = (9 + 2 - 4 - 1) // 2 + 1
    assert values == {
        "out_pixels": 2 * out_width,
        "out_width": out_width,
        "kernel_y": 2,
        "kernel_x": 3,
        "in_height": 5,
        "in_width": 9,
        "stride_y": 3,
        "stride_x": 2,
        "last_x": (out_width - 1) * 2,
        "dilation_y": 1,
        "dilation_x": 2,
        "pad_top": 1,
        "pad_left": 2,
        "origin": (7 + 1 - (9 + 2) * 5) % SPACE,
        "pixel_step": 2 * 5,
        "row_step": (3 * 9 - (out_width - 1) * 2) * 5,
        "kernel_x_step": 2 * 5,
        "kernel_y_step": (9 - 2 * 2) * 5,
        "groups": 2,
        "group_inputs": 5,
        "group_outputs": 3,
        "depthwise": 0,
        "in_lane": 2,
        "plane_stride": 5 * 9 * 5,
        "pad_code": 254,
        "tile_pixels": 9,
        "taper": 3,
        "serial": 1,
        "a_top": 1,
        "w_top": 0,
        "a_signed": 1,
        "container": 2,
        "aligned": 1,
        "multiply": 1,
    }


def test_four_digit_planes_lie_in_two_pairs():
    wide = ENGINE.model_copy(update={"operand_bits": 16})
    shape, size = ConvShape(4, 4), (3, 3)
    settings = {"base": 20, "plane_stride": 9, "pair_stride": -20, "pad_code": -2}
    values = layer_values(wide, shape, Operands(16, True, 16), size, **settings)
    assert (values["plane_stride"], values["pair_stride"], values["pad_code"]) == (9, SPACE - 20, 0xFFFE)
    assert (values["a_top"], values["w_top"], values["container"]) == (3, 1, 3)
    assert layer_values(wide, shape, Operands(12, True, 8), size)["pair_stride"] == 18
    with pytest.raises(CapacityError):
        layer_values(wide, shape, Operands(9, True, 8), size, **settings | {"pair_stride": SPACE - 28})
    assert "pair_stride" not in layer_values(ENGINE, shape, Operands(8, True, 8), size)


def test_every_value_is_one_of_the_descriptors():
    shape = ConvShape(8, 8, (3, 3), padding=(1, 1, 1, 1), groups=8)
    values = layer_values(ENGINE, shape, Operands(4, False, 1), (4, 4))
    assert (values["depthwise"], values["groups"], values["group_inputs"], values["container"]) == (1, 1, 8, 0)
    words = encode_descriptor(ENGINE, "mac", values)
    assert np.bitwise_xor.reduce(words, axis=None) == CHECK
    assert set(values) <= set(descriptor_fields(ENGINE))


def test_an_input_that_does_not_end_within_the_memory_is_refused():
    settings = {"base": SPACE - 18, "plane_stride": 9}
    layer_values(ENGINE, ConvShape(4, 4), Operands(8, False, 4), (3, 3), **settings)
    with pytest.raises(CapacityError) as error:
        layer_values(ENGINE, ConvShape(5, 4), Operands(8, False, 4), (3, 3), **settings)
    assert str(error.value) == "the input must end within 512 words, not at 521"


FUSED = EngineConfig(rows=4, lanes=4, pixels=16, act_bytes=1024, array="fusion")


@pytest.mark.parametrize(
    ("a_bits", "w_bits", "mode", "narrow", "subs", "lanes"),
    [
        # Words have 8 digits, or 16 codes of 2 bits: so many lane groups of so many lanes.
        (4, 4, 0, 0, 2, 4),
        (8, 2, 2, 0, 1, 8),
        (2, 8, 0, 1, 4, 4),
        (2, 3, 1, 1, 2, 8),
        (1, 1, 3, 1, 1, 16),
    ],
)
def test_a_fused_arrays_addresses_count_lane_groups(a_bits, w_bits, mode, narrow, subs, lanes):
    shape = ConvShape(30, 6, (2, 2), (1, 2), (1, 0, 0, 1))
    settings = {"base": 5, "channel": 27, "words": 9, "plane_stride": 50}
    values = layer_values(FUSED, shape, Operands(a_bits, False, w_bits), (3, 5), **settings)
    space = 4 * 1024 // 4
    assert (values["mode"], values["narrow"], values["in_lane"]) == (mode, narrow, 27 % lanes)
    assert values["origin"] == (5 * subs + 27 // lanes - 5 * 9 * subs) % space
    assert (values["pixel_step"], values["kernel_x_step"], values["plane_stride"]) == (18 * subs, 9 * subs, 50 * subs)
    assert values["row_step"] == (5 - 2 * 2) * 9 * subs
    assert set(values) <= set(descriptor_fields(FUSED))


@pytest.mark.parametrize(("inputs", "outputs", "groups", "alignment"), [(6, 6, 6, None), (6, 5, 1, "shift")])
def test_depthwise_and_aligned_layers_of_a_fused_array_have_a_lane_a_pe(inputs, outputs, groups, alignment):
    shape = ConvShape(inputs, outputs, groups=groups)
    values = layer_values(FUSED, shape, Operands(2, True, 2), (3, 3), alignment=alignment)
    # Four lane groups of narrow codes to a word, of which 6 channels fill no second one.
    assert (values["mode"], values["narrow"], values["pixel_step"]) == (0, 1, 4)
