"""NetworkBuilder: integer networks do what their real numbers say, and what cannot be built is refused by name."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from gatewise import (
    EngineConfig,
    FormatError,
    GatewiseError,
    Grid,
    ImageSet,
    InputSpec,
    MacFormat,
    NetworkBuilder,
    Thresholds,
    UnsupportedError,
    WeightCodes,
    load,
)
from gatewise.kernels.nested import NestedGrid

RNG = np.random.default_rng(11)


def factors(grid, channels):
    if grid.align is None:
        return np.ones((channels, 1, 1))
    amounts = np.asarray(grid.amounts, dtype=np.float64).reshape(-1, 1, 1)
    return 2.0**amounts if grid.align == "shift" else amounts


def real_values(codes, grid):
    """What integer codes (N, C, H, W) stand for."""
    return grid.scale * factors(grid, codes.shape[1]) * (codes.astype(np.float64) - grid.zero_point)


def real_conv(x, weights, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """Convolution of real numbers, zeros around the image."""
    top, left, bottom, right = padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    channels, inputs, ky, kx = weights.shape
    rows = (x.shape[2] - dilation[0] * (ky - 1) - 1) // stride[0] + 1
    columns = (x.shape[3] - dilation[1] * (kx - 1) - 1) // stride[1] + 1
    result = np.zeros((len(x), channels, rows, columns))
    for o in range(channels):
        first = o // (channels // groups) * inputs
        for y in range(ky):
            for c in range(kx):
                window = x[:, first : first + inputs, y * dilation[0] :: stride[0], c * dilation[1] :: stride[1]]
                result[:, o] += np.einsum("nihw,i->nhw", window[:, :, :rows, :columns], weights[o, :, y, c])
    return result


def assert_rounds_to(codes, real, grid, low=None, slack=0.0):
    """`codes` are the nearest ones to real values; either neighbour will do within `slack` of a tie."""
    least, greatest = (-(1 << grid.bits - 1), (1 << grid.bits - 1) - 1) if grid.signed else (0, (1 << grid.bits) - 1)
    least = least if low is None else low
    exact = np.clip(real / (grid.scale * factors(grid, codes.shape[1])) + grid.zero_point, least, greatest)
    slack = slack + 1e-6 * np.abs(exact)
    distance = np.abs(codes - exact)
    assert (distance <= 0.5 + slack).all(), distance.max()
    assert (least < codes).any()
    assert len(np.unique(codes)) > 3


def trace(net, x, mac=None):
    codes = ImageSet(np.asarray(x), coded=True)
    return net.build().run(codes, EngineConfig(mac=mac or MacFormat()), trace=True).tensors


def input_codes(samples, shape, bits=8, zero_point=0, scale=0.02, count=3, seed=0):
    """A builder with that input, its codes, and the real numbers that they stand for."""
    net = NetworkBuilder("net", samples.input_spec(shape, bits=bits, zero_point=zero_point, scale=scale))
    x = np.random.default_rng(seed).integers(0, 1 << bits, (count, *shape))
    return net, x, real_values(x, net.input.grid)


GEOMETRIES = [
    {},
    {"stride": (2, 1), "padding": (1, 0, 2, 1)},
    {"dilation": (1, 2), "padding": (0, 2, 0, 2)},
    {"groups": 2, "padding": (1, 1, 1, 1)},
    {"groups": 4, "stride": (2, 2), "padding": (1, 1, 1, 1)},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("zero_point", [0, 37])
@pytest.mark.parametrize("weight_zero", ["none", "whole", "fraction"])
def test_a_convolution_rounds_the_real_one(samples, geometry, zero_point, weight_zero):
    net, x, real = input_codes(samples, (4, 7, 8), zero_point=zero_point)
    groups = geometry.get("groups", 1)
    codes = RNG.integers(-8, 8, (8, 4 // groups, 3, 2))
    scale, bias = RNG.uniform(0.02, 0.05, 8), RNG.normal(0, 1, 8)
    # Fractions of 1/256 are exact: what is left between real and integer is the rounding of the bias.
    zero = {"none": 0.0, "whole": 3.0, "fraction": RNG.integers(-600, 600, 8) / 256}[weight_zero]
    out = Grid(0.03, 8, signed=True, zero_point=-11)
    y = net.conv2d("conv", net.input, codes, bits=4, scale=scale, zero_point=zero, bias=bias, out=out, **geometry)
    weights = scale[:, None, None, None] * (codes - np.reshape(zero, (-1, 1, 1, 1)))
    expected = real_conv(real, weights, **geometry) + bias[:, None, None]
    found = trace(net, x)["conv"]
    assert found.shape[1:] == y.shape
    assert_rounds_to(found, expected, out, slack=0.5 * scale.max() * 0.02 / 0.03)


def test_the_comparison_finds_a_bias_of_one_output_step_and_a_zero_point_of_one(samples):
    net, x, real = input_codes(samples, (4, 7, 8))
    codes, out = RNG.integers(-8, 8, (8, 4, 3, 3)), Grid(0.03, 8, signed=True)
    net.conv2d("conv", net.input, codes, bits=4, scale=0.02, out=out)
    found = trace(net, x)["conv"]
    assert_rounds_to(found, real_conv(real, 0.02 * codes), out, slack=0.01)
    for wrong in (real_conv(real, 0.02 * codes) + 0.03, real_conv(real, 0.02 * (codes - 1))):
        with pytest.raises(AssertionError):
            assert_rounds_to(found, wrong, out, slack=0.01)


def test_zero_points_that_256ths_do_not_hold_are_rounded_to_them(samples):
    net, x, real = input_codes(samples, (4, 5, 5))
    codes, zero, out = RNG.integers(-8, 8, (3, 4, 1, 1)), np.array([0.1, -1.3, 2.7]), Grid(0.02, 8, signed=True)
    net.conv2d("conv", net.input, codes, bits=4, scale=0.02, zero_point=zero, out=out)
    found = trace(net, x)["conv"]
    rounded = np.rint(zero * 256) / 256
    assert_rounds_to(found, real_conv(real, 0.02 * (codes - rounded[:, None, None, None])), out, slack=1e-6)
    assert net.build().node("conv").fraction == 8


def test_zero_points_too_large_for_their_fraction_lose_fraction_bits(samples):
    for zero, fraction in ((100.5, 8), (200.5, 7), (20000.5, 0), (20000.0, 0), (0.0, 0)):
        net, _, _ = input_codes(samples, (4, 1, 1))
        net.linear("fc", net.input, np.ones((2, 4), int), bits=4, scale=0.1, zero_point=zero, out=Grid(0.1, 8))
        assert net.build().node("fc").fraction == fraction


def test_unsigned_codes_are_the_signed_ones_moved(samples):
    net, x, _ = input_codes(samples, (4, 5, 5), zero_point=9)
    codes, zero, out = RNG.integers(0, 16, (3, 4, 2, 2)), 7.25, Grid(0.05, 8, zero_point=100)
    net.conv2d("unsigned", net.input, codes, bits=4, scale=0.02, zero_point=zero, signed=False, out=out)
    net.conv2d("signed", net.input, codes - 8, bits=4, scale=0.02, zero_point=zero - 8, out=out)
    found = trace(net, x)
    np.testing.assert_array_equal(found["unsigned"], found["signed"])
    assert len(np.unique(found["signed"])) > 3


@pytest.mark.parametrize(("align", "amounts"), [("shift", [0, 3, 1, 2]), ("mul", [1, 7, 100, 30])])
def test_steps_of_each_channel_align_in_the_next_layer(samples, align, amounts):
    net, x, _ = input_codes(samples, (3, 6, 6), zero_point=128)
    middle = Grid(0.02, 4, zero_point=3, align=align, amounts=np.array(amounts))
    first = net.conv2d("first", net.input, RNG.integers(-8, 8, (4, 3, 2, 2)), bits=4, scale=0.1, out=middle)
    codes, out = RNG.integers(-8, 8, (5, 4, 3, 3)), Grid(0.05, 8, signed=True)
    net.conv2d("second", first, codes, bits=4, scale=0.01, zero_point=0.5, padding=1, bias=0.7, out=out)
    found = trace(net, x, MacFormat(align=24))
    assert all(len(np.unique(found["first"][:, c])) > 1 for c in range(4))
    expected = real_conv(real_values(found["first"], middle), 0.01 * (codes - 0.5), padding=(1, 1, 1, 1)) + 0.7
    assert_rounds_to(found["second"], expected, out, slack=1e-3)


def test_relu_and_a_ceiling_are_clamps_at_the_codes_of_zero_and_of_the_ceiling(samples):
    net, x, real = input_codes(samples, (4, 5, 5), zero_point=100)
    codes = RNG.integers(-8, 8, (6, 4, 1, 1))
    grid = Grid(0.02, 8, signed=True, zero_point=-30, high=20)
    net.conv2d("relu", net.input, codes, bits=4, scale=0.1, out=grid, relu=True)
    found, expected = trace(net, x)["relu"], np.clip(real_conv(real, 0.1 * codes), 0, (20 + 30) * 0.02)
    assert (found.min(), found.max()) == (-30, 20)
    assert_rounds_to(found, expected, grid, slack=1e-6)


def test_a_linear_layer_rounds_the_real_product(samples):
    net, x, real = input_codes(samples, (20, 1, 1), zero_point=128)
    codes, scale, bias = RNG.integers(-128, 128, (7, 20)), RNG.uniform(0.001, 0.01, 7), RNG.normal(0, 1, 7)
    out = Grid(0.001, 16, signed=True)
    net.linear("fc", net.input, codes, bits=8, scale=scale, bias=bias, out=out)
    expected = real[:, :, 0, 0] @ (codes * scale[:, None]).T + bias
    assert_rounds_to(trace(net, x)["fc"], expected[:, :, None, None], out, slack=0.5 * 0.02 * 0.01 / 0.001)


OPERANDS = [
    (Grid(0.05, 8), Grid(0.02, 8)),
    (Grid(0.05, 4, zero_point=5), Grid(0.02, 16, signed=True)),
    (Grid(0.05, 8, signed=True, zero_point=-128), Grid(0.04, 8, signed=True, zero_point=100)),
    (Grid(0.01, 4, align="shift", amounts=np.array([0, 1, 2, 3])), Grid(0.02, 8, signed=True, zero_point=-128)),
]


@pytest.mark.parametrize(("first", "second"), OPERANDS)
@pytest.mark.parametrize("relu", [False, True])
def test_a_residual_add_rounds_the_real_sum(samples, first, second, relu):
    net, x, _ = input_codes(samples, (4, 6, 6), zero_point=128)
    out = Grid(0.1, 8, signed=True, zero_point=-7)
    left = net.conv2d("left", net.input, RNG.integers(-8, 8, (4, 4, 1, 1)), bits=4, scale=0.15, out=first)
    right = net.conv2d("right", net.input, RNG.integers(-8, 8, (4, 4, 1, 1)), bits=4, scale=0.15, out=second)
    net.add("sum", left, right, out=out, relu=relu)
    found = trace(net, x)
    for name, grid in (("left", first), ("right", second)):
        reached = found[name].astype(int) - grid.zero_point
        assert np.abs(reached).max() > (1 << grid.bits - 1) - 40 or grid.bits == 16  # the far ends of the range occur
    expected = real_values(found["left"], first) + real_values(found["right"], second)
    # Each operand is rounded to 16 bits of the greater one's range first.
    step = max(2.0 ** (g.bits + 1) * g.scale * factors(g, 4).max() for g in (first, second)) / 65536
    assert_rounds_to(found["sum"], expected, out, low=-7 if relu else None, slack=2 * step / 0.1)


@pytest.mark.parametrize("relu", [False, True])
def test_requantise_rounds_to_the_other_grid(samples, relu):
    net, x, real = input_codes(samples, (4, 6, 6), zero_point=128)
    out = Grid(0.01, 6, signed=True, zero_point=3, align="shift", amounts=np.array([0, 3, 2, 1]))
    net.requantise("copy", net.input, out=out, relu=relu)
    assert_rounds_to(trace(net, x)["copy"], real, out, low=3 if relu else None)


def test_average_pools_round_the_mean_of_the_real_pixels(samples):
    net, x, _ = input_codes(samples, (2, 5, 6))
    net.average_pool("mean", net.input, 3, 2, 1)
    net.global_average_pool("whole", net.input)
    found = trace(net, x)
    np.testing.assert_array_equal(found["whole"][..., 0, 0], np.floor(x.mean(axis=(2, 3)) + 0.5))
    inside = np.pad(np.ones((1, 1, 5, 6)), ((0, 0), (0, 0), (1, 1), (1, 1)))
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    ones = np.ones((2, 1, 3, 3))
    sums, counts = (
        real_conv(array, ones[:, :1], (2, 2), groups=array.shape[1]) for array in (padded, inside[:, [0, 0]])
    )
    np.testing.assert_array_equal(found["mean"], np.floor(sums / counts + 0.5))


def test_max_pool_ignores_its_padding(samples):
    net, x, _ = input_codes(samples, (2, 5, 6), zero_point=200)
    net.max_pool("max", net.input, 2, 2, (0, 0, 1, 0))
    found = trace(net, x)["max"]
    np.testing.assert_array_equal(found[:, :, 2], x[:, :, 4].reshape(3, 2, 3, 2).max(axis=3))


def test_views_move_codes_and_their_steps(samples):
    net, x, _ = input_codes(samples, (2, 4, 4), zero_point=7)
    amounts = np.array([1, 3, 2])
    grid = Grid(0.05, 4, zero_point=2, align="shift", amounts=amounts)
    y = net.conv2d("conv", net.input, RNG.integers(-8, 8, (3, 2, 1, 1)), bits=4, scale=0.02, out=grid)
    cut = net.stride_slice("cut", y, (2, 3))
    padded = net.channel_pad("padded", cut, 1, 2)
    joined = net.concat("joined", [padded, cut])
    flat = net.flatten("flat", joined)
    found = trace(net, x)
    np.testing.assert_array_equal(found["cut"], found["conv"][:, :, ::2, ::3])
    np.testing.assert_array_equal(found["padded"][:, 1:4], found["cut"])
    assert (found["padded"][:, [0, 4, 5]] == 2).all()
    np.testing.assert_array_equal(found["joined"], np.concatenate([found["padded"], found["cut"]], axis=1))
    np.testing.assert_array_equal(found["flat"][:, :, 0, 0], found["joined"].reshape(3, -1))
    assert joined.grid.amounts.tolist() == [0, 1, 3, 2, 0, 0, 1, 3, 2]
    assert flat.grid.amounts.tolist() == np.repeat(joined.grid.amounts, 4).tolist()


def test_thresholds_count_the_values_that_are_reached(samples):
    net, x, _ = input_codes(samples, (4, 6, 6))
    codes = RNG.integers(-8, 8, (3, 4, 1, 1))
    steps = np.sort(RNG.integers(-3000, 3000, (3, 15)), axis=1)
    descending = np.array([False, True, False])
    net.conv2d(
        "steps", net.input, codes, bits=4, scale=1.0, bias=np.array([0.02, 0, -0.1]) * 50, out=Grid(1.0, 4),
        thresholds=Thresholds(steps, descending),
    )  # fmt: skip
    exact = real_conv(x.astype(float), codes.astype(float)) + np.array([50, 0, -250]).reshape(-1, 1, 1)
    up, down = exact[..., None] >= steps[:, None, None], exact[..., None] <= steps[:, None, None]
    expected = np.where(descending[:, None, None, None], down, up).sum(axis=-1)
    np.testing.assert_array_equal(trace(net, x)["steps"], expected)
    assert len(np.unique(expected)) > 10


def nested_network(rounding="half_even", multiplier_bits=24):
    """Steps of powers of two, so that many values lie halfway between two codes."""
    rng = np.random.default_rng(8)
    spec = InputSpec(shape=(3, 6, 5), bits=8, signed=True, scale=0.25, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("nested", spec, rounding=rounding, multiplier_bits=multiplier_bits)
    first = WeightCodes.nested(rng.normal(0, 1, (6, 3, 3, 3)), 4, 3.75)
    bias = rng.integers(-9, 9, 6) / 8
    x = net.conv2d("four", net.input, first, scale=1.0, out=Grid(0.5, 4, rounding="nested"), bias=bias, relu=True)
    second = WeightCodes.nested(rng.normal(0, 1, (6, 6, 1, 1)), 2, 1.5, rng.random(6) < 0.3)
    y = net.conv2d("eight", x, second, scale=1.0, out=Grid(0.5, 8, signed=True, rounding="nested"))
    z = net.conv2d("two", y, second, scale=1.0, out=Grid(4.0, 2, signed=True, rounding="nested"), relu=True)
    net.requantise("copy", z, out=Grid(2.0, 8, rounding="nested"))
    wide = net.conv2d("wide", y, second, scale=1.0, out=Grid(0.5, 16, signed=True))
    net.add("sum", y, wide, out=Grid(4.0, 4, rounding="nested"), relu=True)
    return net.build()


def test_nested_grids_round_as_the_fake_quantised_network_does_in_exact_fractions():
    network = nested_network()
    codes = np.random.default_rng(9).integers(-9, 10, (16, 3, 6, 5)).astype(np.int16)
    tensors = network.run(ImageSet(codes, coded=True), trace=True).tensors
    halves = 0
    for name in ("four", "eight", "two"):
        layer, node = network.layers[name], network.node(name)
        x = tensors[node.inputs[0]]
        values = real_conv(x, layer.weights) + layer.bias[:, None, None]
        source, out = network.source(node).codes.scale, node.out
        grid = NestedGrid(out.bits, out.signed)
        if layer.scale is None:  # thresholds stand for the very scales
            (unit,) = {"four": {0.5}, "two": {1.0}}[name]
            ratios = [Fraction(unit * source / out.scale)] * len(values[0])
        else:
            ratios = [
                Fraction(int(m), 1 << int(s)) for m, s in zip(layer.scale.multiplier, layer.scale.shift, strict=True)
            ]
        for channel, ratio in enumerate(ratios):
            exact = [int(v) * ratio for v in values[:, channel].ravel()]
            wanted = [grid.round_exact(value) for value in exact]
            wanted = np.maximum(wanted, 0) if name == "two" else wanted
            assert tensors[name][:, channel].ravel().tolist() == list(wanted)
            direct = [max(grid.code_range[0], min(grid.code_range[1], round(value))) for value in exact]
            halves += sum(one != other for one, other in zip(wanted, direct, strict=True) if name == "four")
    assert halves > 20  # where direct rounding would give other codes


def test_rescales_to_nested_grids_reach_no_half():
    network = nested_network()
    grids = {("eight", ""): 8, ("copy", ""): 8, ("sum", ""): 4}
    scales = network.scales | {("eight", ""): network.layers["eight"].scale}
    for key, bits in grids.items():
        constants = zip(scales[key].multiplier.tolist(), scales[key].shift.tolist(), strict=True)
        assert all(NestedGrid(bits, key[0] == "eight").rounds_directly(*each) for each in constants)
    assert not NestedGrid(8, True).rounds_directly(1, 1)
    for other in ("half_up", "half_away"):
        assert [each.tolist() for each in nested_network(other).arrays.values()] == [
            each.tolist() for each in network.arrays.values()
        ]


def tiny_factor():
    spec = InputSpec(shape=(1, 1, 1), bits=8, scale=1.0, mean=(0.0,), std=(1.0,))
    net = NetworkBuilder("tiny", spec)
    return net.requantise("q", net.input, out=Grid(2.0**60, 8, rounding="nested"))


@pytest.mark.parametrize("signed", [False, True])
def test_nested_grids_of_16_bits_on_both_sides_run_as_in_exact_fractions(signed):
    rng = np.random.default_rng(16)
    spec = InputSpec(shape=(3, 4, 4), bits=8, signed=True, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("sixteen", spec)
    first = WeightCodes.nested(rng.normal(0, 1, (4, 3, 2, 2)), 8, 2.5)
    x = net.conv2d("a", net.input, first, scale=1.0, out=Grid.nested(16, signed, 600.0))
    weights = WeightCodes.nested(rng.normal(0, 1, (5, 4, 3, 3)), 16, 2.5)
    net.conv2d("b", x, weights, scale=1.0, out=Grid.nested(16, True, 2000.0), padding=1)
    network = net.build()
    engine = EngineConfig(rows=4, lanes=4, operand_bits=16, mac=MacFormat(acc=44))
    codes = rng.integers(-128, 128, (2, 3, 4, 4)).astype(np.int16)
    tensors = network.run(ImageSet(codes, coded=True), engine, trace=True).tensors
    # The grid's codes are those less the zero point, which padding feeds.
    lifted = tensors["a"].astype(np.int64) - x.grid.zero_point
    assert (lifted.min() < 0) == signed
    assert lifted.max() > 10_000
    layer = network.layers["b"]
    values = real_conv(lifted, layer.weights, padding=(1, 1, 1, 1))
    grid = NestedGrid(16, signed=True)
    for channel, (m, s) in enumerate(zip(layer.scale.multiplier, layer.scale.shift, strict=True)):
        wanted = [grid.round_exact(Fraction(int(v) * int(m), 1 << int(s))) for v in values[:, channel].ravel()]
        assert tensors["b"][:, channel].ravel().tolist() == wanted


def test_an_unsigned_nested_grid_of_16_bits_is_a_signed_stream():
    grid = Grid.nested(16, signed=False, limit=65535.0)
    assert (grid.scale, grid.signed, grid.zero_point, grid.clamp) == (1.0, True, -32768, (-32768, 32767))
    assert Grid.nested(16, signed=True, limit=32767.5).clamp == (-32767, 32767)
    assert Grid.nested(4, signed=False, limit=15.0) == Grid(1.0, 4, rounding="nested")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: Grid(1.0, 3, rounding="nested"), "nested bits must be 0, 2, 4, 8 or 16, not 3"),
        (
            lambda: Grid(1.0, 4, zero_point=2, rounding="nested"),
            "a nested grid must have 2, 4, 8 or 16 bits, zero point",
        ),
        (lambda: Grid(1.0, 4, high=9, rounding="nested"), "no other clamp than its own, not 4 bits, 0 and None..9"),
        (lambda: Grid(1.0, 4, rounding="up"), "rounding of a grid must be direct or nested, not 'up'"),
        (
            lambda: nested_network("floor"),
            "eight: rounding of a nested grid must be one of half_even, half_up, half_away",
        ),
        (tiny_factor, "q: odd part of a multiplier to a nested grid must be above 510, not 3 in channel 0"),
    ],
)
def test_what_would_not_round_nested_is_refused(call, expected):
    with pytest.raises(GatewiseError, match=expected):
        call()


def test_the_example_of_the_docstring_builds(samples):
    net = NetworkBuilder("tiny", samples.input_spec((1, 8, 8)))
    codes = np.zeros((2, 1, 3, 3), int)
    y = net.conv2d("conv", net.input, codes, bits=4, scale=0.1, out=Grid(0.05, 4), relu=True, padding=1)
    assert (y.name, y.shape) == ("conv", (2, 8, 8))


def conv(**changes):
    settings = {"codes": np.ones((2, 3, 3, 3), int), "bits": 4, "scale": 0.1, "out": Grid(0.1, 8)}
    return lambda net: net.conv2d("layer", net.input, **settings | changes)


WRONG = [
    (conv(codes=np.full((2, 3, 3, 3), 8)), "layer: 4-bit codes must lie in -8..7, found 8..8"),
    (conv(codes=np.full((2, 3, 3, 3), 16), signed=False), "layer: 4-bit codes must lie in -8..7, found 8..8"),
    (conv(codes=np.ones((2, 3, 3, 3))), r"layer: codes must be integers \(out, in, ky, kx\), not float64 of shape"),
    (conv(codes=np.ones((2, 3), int)), r"layer: codes must be integers \(out, in, ky, kx\), not int64 of shape"),
    (conv(codes=np.ones((2, 4, 3, 3), int)), r"layer: codes must have shape \(2, 3, 3, 3\), not \(2, 4, 3, 3\)"),
    (conv(bits=17), "layer: bits: input should be less than or equal to 16, not '17'"),
    (conv(bits=0, signed=False), "layer: bits: input should be greater than or equal to 1, not '0'"),
    (conv(scale=0.0), "layer: scale must be positive, not 0.0"),
    (conv(scale=np.array([0.1, -0.1])), "layer: scale must be positive, not -0.1"),
    (conv(scale=np.ones(3)), r"layer: scale must be one number or 2, not of shape \(3,\)"),
    (conv(scale=np.nan), "layer: scale must be finite, found nan"),
    (conv(bias=np.array([1.0, np.inf])), "layer: bias must be finite, found inf"),
    (conv(zero_point=np.nan), "layer: zero point must be finite, found nan"),
    (conv(zero_point=1e5), "layer: weight zero points must fit 16 signed bits"),
    (conv(bias=1e20), "layer: bias must be below .* accumulator steps"),
    (conv(scale=1e30), "layer: rescale factors must be below"),
    (conv(out=Grid(0.1, 17)), "layer: bits: "),
    (conv(out=Grid(-0.1, 8)), "layer: scale: "),
    (conv(out=Grid(0.1, 8, zero_point=256)), "layer: zero point must be a code from 0 to 255, not 256"),
    (conv(out=Grid(0.1, 8, high=300)), r"layer: clamp must lie in 0\.\.255, not 0\.\.300"),
    (conv(out=Grid(0.1, 4, align="shift", amounts=np.array([1, 2, 3]))), r"layer: alignment amounts must have"),
    (conv(out=Grid(0.1, 4, align="shift", amounts=np.array([1, 9]))), "layer: shift alignment must lie in 0..8"),
    (conv(out=Grid(0.1, 4, align="half", amounts=np.array([1, 1]))), "layer: alignment must be shift or mul"),
    (conv(groups=2), "layer: channels must divide into 2 groups"),
    (conv(stride=0), "layer: stride"),
    (conv(padding=(1, 2, 3)), "layer: padding"),
    (conv(codes=np.ones((2, 3, 13, 3), int)), "layer: kernel .* must fit the padded 12 x 12 input"),
    (conv(thresholds=Thresholds(np.zeros((2, 255), int))), "layer: threshold outputs must have 1 to 4 bits, not 8"),
    (conv(thresholds=Thresholds(np.zeros((2, 7)) + 0.5), out=Grid(1.0, 3)), "layer: thresholds must be integers, not"),
    (conv(thresholds=Thresholds(np.zeros((2, 7), int), np.zeros(3, bool)), out=Grid(1.0, 3)), "layer: descending"),
    (lambda net: net.linear("layer", net.input, np.ones((2, 3), int), bits=4, scale=1.0, out=Grid(1.0, 8)),
     "layer: a linear layer's input must be flat"),
    (lambda net: net.add("layer", net.input, net.stride_slice("cut", net.input, 2), out=Grid(1.0, 8)),
     "layer: operands must have one shape"),
    (lambda net: net.requantise("layer", net.input, out=Grid(1e-30, 8)), "layer: rescale factors must be below"),
    (lambda net: net.max_pool("layer", net.input, 2, 2, 2), "layer: pool padding must be smaller than the window"),
    (lambda net: net.max_pool("layer", net.input, 13), "layer: pool window .* must fit the padded 12 x 12 input"),
    (lambda net: net.concat("layer", [net.input]), "layer: must have two or more inputs, not 1"),
    (lambda net: net.channel_pad("layer", net.input, -1, 0), "layer: before: "),
    (lambda net: net.flatten("input", net.input), "input: the name must stand for one tensor only"),
    (lambda net: net.flatten("a b", net.input), "a b: name: string should match pattern"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "expected"), WRONG)
def test_what_cannot_be_built_is_refused_in_one_line_with_the_node(samples, call, expected):
    net = NetworkBuilder("net", samples.input_spec())
    with pytest.raises(GatewiseError, match=f"^{expected}") as caught:
        call(net)
    assert "\n" not in str(caught.value)


def test_a_refused_node_leaves_the_builder_as_it_was(samples):
    net = samples.small()
    before = net.build().manifest
    last = net._nodes[-1]
    with pytest.raises(FormatError, match=r"^classes: the name must stand for one tensor only$"):
        net.flatten("classes", net.input)
    with pytest.raises(FormatError, match=r"^wrong: 4-bit codes"):
        net.conv2d("wrong", net.input, np.full((1, 3, 1, 1), 9), bits=4, scale=1.0, out=Grid(1.0, 8))
    assert net._nodes[-1] is last
    assert net.build().manifest == before


def test_a_tensor_of_another_builder_is_refused(samples):
    foreign = samples.small().flatten("foreign", samples.small().input)
    with pytest.raises(FormatError, match=r"^next: input 'foreign' must be the network's input or an earlier node$"):
        NetworkBuilder("net", samples.input_spec()).stride_slice("next", foreign, 1)


def test_tensors_of_different_steps_are_not_joined(samples):
    net = NetworkBuilder("net", samples.input_spec())
    codes = np.ones((2, 3, 1, 1), int)
    plain = net.conv2d("plain", net.input, codes, bits=4, scale=0.1, out=Grid(0.1, 4))
    aligned = Grid(0.1, 4, align="shift", amounts=np.array([1, 2]))
    stepped = net.conv2d("stepped", net.input, codes, bits=4, scale=0.1, out=aligned)
    for pair in ([plain, stepped], [stepped, plain]):
        with pytest.raises(
            FormatError, match=r"^joined: inputs must have one alignment, not (None|shift) and (None|shift)$"
        ):
            net.concat("joined", pair)


def test_wide_operands_do_not_meet_a_multiplier_alignment(samples):
    net = NetworkBuilder("net", samples.input_spec())
    grid = Grid(0.1, 4, align="mul", amounts=np.array([1, 2]))
    x = net.conv2d("first", net.input, np.ones((2, 3, 1, 1), int), bits=4, scale=0.1, out=grid)
    with pytest.raises(UnsupportedError, match=r"^second: multiplier alignment must have operands of at most 4 bits"):
        net.conv2d("second", x, np.ones((2, 2, 1, 1), int), bits=5, scale=0.1, out=Grid(0.1, 4))


def test_tflite_rounding_comes_without_fraction_bits(samples):
    net = NetworkBuilder("net", samples.input_spec(), multiplier_bits=31, rounding="tflite")
    settings = {"bits": 4, "scale": 0.1, "out": Grid(0.1, 8)}
    net.conv2d("whole", net.input, np.ones((2, 3, 1, 1), int), zero_point=1.0, **settings)
    with pytest.raises(UnsupportedError, match=r"^half: tflite rounding must come without fraction bits, not with 8$"):
        net.conv2d("half", net.input, np.ones((2, 3, 1, 1), int), zero_point=0.5, **settings)
    with pytest.raises(FormatError, match=r"must have 31 multiplier bits, not 24$"):
        NetworkBuilder("net", samples.input_spec(), rounding="tflite").requantise("copy", net.input, out=Grid(1.0, 8))


def test_the_example_builds_writes_and_runs_a_network(tmp_path):
    example = Path(__file__).parents[2] / "examples" / "build_network.py"
    arguments = [sys.executable, example, tmp_path / "tiny.gw"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert (result.stdout.startswith("classes: ["), result.stderr) == (True, "")
    assert load(tmp_path / "tiny.gw").name == "tiny"
