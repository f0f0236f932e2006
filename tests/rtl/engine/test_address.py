import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.conv import ConvShape, Operands
from gatewise.rtl.engine import address as address_module
from gatewise.rtl.engine.address import AddressGenerator
from gatewise.rtl.engine.registers import layer_values

CONFIG = EngineConfig(rows=4, lanes=4, pixels=16, act_bytes=1024)
BASE = 37


def expected(shape, size, digits, tiles, row_groups):
    """Address (None in the padding) of every pixel, in the order of the steps, from the definition."""
    height, width = size
    out_width = shape.output_size(*size)[1]
    group_lanes = -(-shape.group_inputs // 4)
    words = group_lanes * shape.groups
    reads = []
    for group in range(shape.groups):
        for _ in range(row_groups):
            for pixels in tiles:
                for ky in range(shape.kernel[0]):
                    for kx in range(shape.kernel[1]):
                        for lane_group in range(group_lanes):
                            for digit in range(digits):
                                for pixel in pixels:
                                    oy, ox = divmod(pixel, out_width)
                                    iy = oy * shape.stride[0] + ky * shape.dilation[0] - shape.padding[0]
                                    ix = ox * shape.stride[1] + kx * shape.dilation[1] - shape.padding[1]
                                    word = (iy * width + ix) * words + group * group_lanes + lane_group
                                    inside = 0 <= iy < height and 0 <= ix < width
                                    place = BASE + digit * height * width * words + word
                                    reads.append(place if inside else None)
    return reads


def found(shape, size, digits, tiles, row_groups, generator=AddressGenerator):
    dut = generator(CONFIG)
    operands = Operands(4 * digits, False, 4)
    values = layer_values(CONFIG, shape, operands, size, base=BASE)
    strobes = ("start", "advance", "pass_end", "tile_end", "row_group_end")
    strobes += ("lane", "kernel_x", "kernel_y", "first_tap", "group")
    reads = []

    async def pulse(ctx, names):
        for name in strobes:
            ctx.set(getattr(dut, name), int(name in names))
        await ctx.tick()

    async def bench(ctx):
        ctx.set(dut.layer, values)
        await pulse(ctx, {"start"})
        passes = [
            (group, row_group, t, ky, kx, lane, digit)
            for group in range(shape.groups)
            for row_group in range(row_groups)
            for t in range(len(tiles))
            for ky in range(shape.kernel[0])
            for kx in range(shape.kernel[1])
            for lane in range(values["lane_groups"])
            for digit in range(digits)
        ]
        for at, key in enumerate(passes):
            following = passes[at + 1] if at + 1 < len(passes) else (-1,) * 7
            ends = {"pass_end"}
            if following[:3] != key[:3]:
                ends |= {"tile_end", "first_tap"}
            elif following[3] != key[3]:
                ends |= {"kernel_y"}
            elif following[4] != key[4]:
                ends |= {"kernel_x"}
            elif following[5] != key[5]:
                ends |= {"lane"}
            if following[:2] != key[:2]:
                ends |= {"row_group_end"}
            if following[0] != key[0]:
                ends |= {"group"}
            ctx.set(dut.upper_digit, key[-1])
            n = len(tiles[key[2]])
            for pixel in range(max(n, 4)):
                if pixel < n:
                    reads.append(ctx.get(dut.address) if ctx.get(dut.inside) else None)
                last = pixel == max(n, 4) - 1
                await pulse(ctx, ({"advance"} if pixel < n else set()) | (ends if last else set()))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return reads


def cut(pixels, size):
    return [range(at, min(at + size, pixels)) for at in range(0, pixels, size)]


CASES = [
    (ConvShape(3, 5, (3, 3), (1, 1), (1, 1, 1, 1)), (5, 4), 1, 7, 2),
    (ConvShape(6, 5, (2, 3), (2, 1), (0, 2, 3, 1), (1, 2)), (4, 5), 2, 16, 1),
    (ConvShape(10, 4, (3, 2), (3, 2), (2, 1, 2, 0), (2, 1), 2), (7, 6), 1, 2, 2),
    (ConvShape(9, 4), (1, 1), 2, 16, 1),
]


@pytest.mark.parametrize(("shape", "size", "digits", "tile", "row_groups"), CASES)
def test_addresses_are_those_of_the_definition(shape, size, digits, tile, row_groups):
    tiles = cut(int(np.prod(shape.output_size(*size))), tile)
    reads = expected(shape, size, digits, tiles, row_groups)
    assert found(shape, size, digits, tiles, row_groups) == reads


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("after.address.eq(pixel.address + layer.row_step)", "after.address.eq(pixel.address + layer.row_step + 1)"),
        ("(y < layer.in_height) & (x < layer.in_width)", "(y < layer.in_height)"),
        ("[pixel.eq(after), tile.eq(after)]", "[pixel.eq(after), tile.eq(pixel)]"),
        ("tap.address.eq(next_origin)", "tap.address.eq(origin)"),
        ("plane = Mux(self.upper_digit, ", "plane = Mux(0, "),
    ],
    ids=["off by one", "no right padding", "tile starts early", "group behind", "one plane"],
)
def test_a_planted_fault_is_found(planted, old, new):
    faulty = planted(address_module, old, new)["AddressGenerator"]
    different = []
    for shape, size, digits, tile, row_groups in CASES:
        tiles = cut(int(np.prod(shape.output_size(*size))), tile)
        different.append(
            found(shape, size, digits, tiles, row_groups, faulty) != expected(shape, size, digits, tiles, row_groups)
        )
    assert any(different)
