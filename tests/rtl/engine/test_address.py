import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.kernels.conv import ConvShape, Operands
from gatewise.rtl.engine import address as address_module
from gatewise.rtl.engine.address import AddressGenerator
from gatewise.sim.geometry import layer_values

CONFIG = EngineConfig(rows=4, lanes=4, pixels=16, act_bytes=1024)
BASE = 37


def group_words(shape, group, channel):
    """The words of a pixel in which a convolution group's channels lie."""
    begin = channel + group * shape.group_inputs
    return range(begin // 4, (begin + shape.group_inputs - 1) // 4 + 1)


def expected(shape, size, digits, tiles, row_groups, channel, words):
    """Address (None in the padding) of every pixel, in the order of the steps, from the definition."""
    height, width = size
    out_width = shape.output_size(*size)[1]
    reads = []
    for group in range(shape.groups):
        for _ in range(row_groups):
            for pixels in tiles:
                for ky in range(shape.kernel[0]):
                    for kx in range(shape.kernel[1]):
                        for word in group_words(shape, group, channel):
                            for digit in range(digits):
                                for pixel in pixels:
                                    oy, ox = divmod(pixel, out_width)
                                    iy = oy * shape.stride[0] + ky * shape.dilation[0] - shape.padding[0]
                                    ix = ox * shape.stride[1] + kx * shape.dilation[1] - shape.padding[1]
                                    inside = 0 <= iy < height and 0 <= ix < width
                                    place = BASE + (digit * height * width + iy * width + ix) * words + word
                                    reads.append(place if inside else None)
    return reads


def found(shape, size, digits, tiles, row_groups, channel, words, generator=AddressGenerator):
    dut = generator(CONFIG)
    operands = Operands(4 * digits, False, 4)
    values = layer_values(CONFIG, shape, operands, size, base=BASE, channel=channel, words=words)
    strobes = ("start", "advance", "pass_end", "tile_end", "row_group_end")
    strobes += ("lane", "kernel_x", "kernel_y", "first_tap")
    reads = []

    async def pulse(ctx, names):
        for name in strobes:
            ctx.set(getattr(dut, name), int(name in names))
        await ctx.tick()

    async def bench(ctx):
        ctx.set(dut.layer, values)
        await pulse(ctx, {"start"})
        passes = [
            (group, row_group, t, ky, kx, word, digit)
            for group in range(shape.groups)
            for row_group in range(row_groups)
            for t in range(len(tiles))
            for ky in range(shape.kernel[0])
            for kx in range(shape.kernel[1])
            for word in group_words(shape, group, channel)
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
            # Which word comes first is told with the first tap alone.
            first_word = group_words(shape, max(0, following[0]), channel)[0] - channel // 4
            ctx.set(dut.upper_digit, key[-1])
            n = len(tiles[key[2]])
            for pixel in range(max(n, 4)):
                if pixel < n:
                    reads.append(ctx.get(dut.address) if ctx.get(dut.inside) else None)
                last = pixel == max(n, 4) - 1
                ctx.set(dut.first_word, first_word if last and "first_tap" in ends else pixel % 3)
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
    (ConvShape(15, 3, (2, 2), groups=3), (3, 3), 1, 16, 2),
]
PLACES = [(0, None), (3, None), (6, 7)]
"""Where the input begins in its tensor, and the words of the tensor's pixels."""


def least_words(shape, channel, words):
    return -(-(channel + shape.in_channels) // 4) if words is None else words


@pytest.mark.parametrize(("channel", "words"), PLACES)
@pytest.mark.parametrize(("shape", "size", "digits", "tile", "row_groups"), CASES)
def test_addresses_are_those_of_the_definition(shape, size, digits, tile, row_groups, channel, words):
    tiles = cut(int(np.prod(shape.output_size(*size))), tile)
    reads = expected(shape, size, digits, tiles, row_groups, channel, least_words(shape, channel, words))
    assert found(shape, size, digits, tiles, row_groups, channel, words) == reads


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("after.address.eq(pixel.address + layer.row_step)", "after.address.eq(pixel.address + layer.row_step + 1)"),
        ("(y < layer.in_height) & (x < layer.in_width)", "(y < layer.in_height)"),
        ("[pixel.eq(after), tile.eq(after)]", "[pixel.eq(after), tile.eq(pixel)]"),
        ("next_first.eq(layer.origin + self.first_word)", "next_first.eq(layer.origin)"),
        ("next_first.eq(first + layer.kernel_x_step)", "next_first.eq(tap.address + layer.kernel_x_step)"),
        ("plane = Mux(upper, ", "plane = Mux(0, "),
    ],
    ids=["off by one", "no right padding", "tile starts early", "group behind", "from the last word", "one plane"],
)
def test_a_planted_fault_is_found(planted, old, new):
    faulty = planted(address_module, old, new)["AddressGenerator"]
    different = []
    for shape, size, digits, tile, row_groups in CASES:
        tiles = cut(int(np.prod(shape.output_size(*size))), tile)
        reads = expected(shape, size, digits, tiles, row_groups, 3, least_words(shape, 3, None))
        different.append(found(shape, size, digits, tiles, row_groups, 3, None, faulty) != reads)
    assert any(different)
