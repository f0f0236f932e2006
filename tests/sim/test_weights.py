"""Weights of every scheme: plain integers in, the same integers out of the file, whoever reads it."""

from dataclasses import replace

import numpy as np
import pytest
from gatewise import (
    EngineConfig,
    FormatError,
    Grid,
    ImageSet,
    NetworkBuilder,
    UnsupportedError,
    WeightCodes,
    XorNetwork,
    load,
)
from gatewise.kernels.conv import ConvShape
from gatewise.kernels.huffman import HuffmanCode
from gatewise.kernels.nested import NestedGrid
from gatewise.kernels.shift import ShiftFormat
from gatewise.sim import weights as weights_module
from gatewise.sim.weights import decode_weights

LAYERS = ("int", "shift_raw", "focused_raw", "shift_huffman", "focused_huffman", "xor", "tiled", "basis")


def decoded(codes, groups=1):
    """Decoded weights of a layer that holds `codes`, and the arrays of its file."""
    out, inputs = codes.shape[:2]
    shape = ConvShape(inputs * groups, out, codes.shape[2:] or (1, 1), groups=groups)
    arrays = codes.arrays(shape)
    return decode_weights(codes.spec, shape, arrays.__getitem__, codes.networks), arrays


@pytest.fixture
def documented(samples, reference, schemes_file):
    """A layer's weights as a reader finds them that knows only the file's documents."""
    parts = samples.read(schemes_file)

    def read(layer):
        out, inputs, ky, kx = layer.codes.shape
        node, networks = parts.node(layer.node.name), parts.manifest["xor_networks"]
        return reference.weights_of(node, parts.arrays, (out, ky, kx, inputs), networks).transpose(0, 3, 1, 2)

    return read


@pytest.mark.parametrize("name", LAYERS)
def test_the_file_says_the_same_to_a_reader_that_knows_only_its_documents(documented, schemes_file, name):
    layer = load(schemes_file).layers[name]
    assert layer.weights.tolist() == documented(layer).tolist()
    assert len(np.unique(layer.weights)) > 1


def swap_sizes(original):
    return lambda *arguments: original(*arguments)[::-1]


def opposite_bits(original):
    return lambda *arguments: 1 - original(*arguments)


def another_tile(original):
    return lambda stream, shape, groups=1, tile=None: original(
        stream, shape, groups, tile and (*tile[1::-1], *tile[2:])
    )


def ungrouped(original):
    return lambda stream, shape, groups=1, tile=None: original(stream, shape, 1, tile)


def channels_first(original):
    return lambda stream, shape, groups=1, tile=None: (
        original(stream, shape, groups, tile) if tile else stream.reshape(shape)
    )


def next_code(original):
    return lambda spec: original(spec) + 1


def means_exchanged(original):
    return lambda self, codes: original(replace(self, minus=self.plus, plus=self.minus), codes)


def unshifted(original):
    return lambda self, codes: original(replace(self, value_shift=0), codes)


FAULTS = [
    (weights_module, "plane_bytes", swap_sizes, {"xor"}),
    (weights_module, "least_code", next_code, {"int"}),
    (weights_module, "stream_weights", another_tile, {"tiled"}),
    (weights_module, "stream_weights", ungrouped, {"tiled"}),
    (weights_module, "stream_weights", channels_first, {*LAYERS} - {"tiled", "basis"}),
    (XorNetwork, "decode_stream", opposite_bits, {"xor", "tiled"}),
    (ShiftFormat, "weights", means_exchanged, {"focused_raw", "focused_huffman"}),
    (ShiftFormat, "weights", unshifted, {"focused_raw", "focused_huffman"}),
]


@pytest.mark.parametrize(("owner", "name", "fault", "wrong"), FAULTS, ids=[fault.__name__ for _, _, fault, _ in FAULTS])
def test_that_reader_sees_faults(documented, schemes_file, monkeypatch, owner, name, fault, wrong):
    monkeypatch.setattr(owner, name, fault(getattr(owner, name)))
    try:
        layers = load(schemes_file).layers.values()
    except FormatError as error:
        found = {str(error).removeprefix(f"{schemes_file}: ").partition(":")[0]}
    else:
        found = {layer.node.name for layer in layers if layer.weights.tolist() != documented(layer).tolist()}
    assert found == wrong


def test_decoded_layers_have_the_documented_types_and_shapes(schemes_file):
    for name, layer in load(schemes_file).layers.items():
        scheme, shape = layer.node.weights.scheme, layer.shape.weight_shape
        assert layer.codes.shape == layer.weights.shape == shape
        planes = {"xor": 2, "tiled": 1, "basis": 3}.get(name, 0)
        assert (layer.planes.shape, layer.planes.dtype) == ((planes, *shape), np.uint8)
        assert (layer.coefs.shape, layer.coefs.dtype) == ((planes, shape[0]), np.int16)
        assert layer.digits.shape == (int(scheme == "int"), *shape)
        assert layer.codes.dtype == (np.int16 if scheme == "int" else np.uint8)
        assert layer.weights.dtype == (np.int16 if scheme == "int" else np.int32)


def test_plane_words_hold_the_planes(schemes_file):
    for name in ("xor", "tiled", "basis"):
        layer = load(schemes_file).layers[name]
        bits = layer.codes[None] >> np.arange(len(layer.planes)).reshape(-1, 1, 1, 1, 1) & 1
        assert bits.tolist() == layer.planes.tolist()
        assert set(np.unique(layer.planes)) == {0, 1}


def test_layers_keep_their_weights_together_when_they_are_unfolded_or_put_over_a_map(samples):
    net = samples.schemes()
    for name in LAYERS:
        layer = net.build().layers[name]
        if layer.shape.groups == 1 and name != "basis":
            other = layer.unfold()
        elif name == "basis":
            other = layer.over_map((2, 1) if layer.shape.in_channels % 2 == 0 else (1, 1))
        else:
            continue
        assert other.codes.shape == other.weights.shape == other.planes.shape[1:] == other.digits.shape[1:]
        assert other.codes.shape == other.shape.weight_shape
        pairs = set(zip(layer.codes.flat, layer.weights.flat, strict=True))
        if name != "basis":
            assert set(zip(other.codes.flat, other.weights.flat, strict=True)) == pairs
        signs = 2 * other.planes.astype(int) - 1
        if len(signs):
            assert other.weights.tolist() == (signs * other.coefs[:, :, None, None, None]).sum(axis=0).tolist()


# Each scheme: `weight` is what its constructor says.


@pytest.mark.parametrize("coding", ["raw", "huffman"])
@pytest.mark.parametrize(("bits", "signed"), [(1, True), (3, False), (4, True), (8, True), (8, False)])
def test_integers_are_kept(bits, signed, coding):
    low = -(1 << bits - 1) if signed else 0
    codes = np.random.default_rng(bits).integers(low, low + (1 << bits), (5, 3, 3, 2))
    codes.flat[:2] = low, low + (1 << bits) - 1
    weights = WeightCodes.integer(codes, bits, signed, coding)
    found, _ = decoded(weights)
    assert (found.weights + weights.offset).tolist() == codes.tolist()
    assert found.codes is found.weights


def test_a_single_code_and_an_alphabet_of_256_are_huffman_coded():
    same, arrays = decoded(WeightCodes.integer(np.full((4, 9), -3), 5, coding="huffman"))
    assert set(same.codes.flat) == {-3}
    assert len(arrays["weight"]) == 5  # 36 code words of one bit and the end mark
    counts = np.arange(256).repeat(np.maximum(1, 4000 >> np.arange(256) // 8)) - 128
    skew = WeightCodes.integer(counts.reshape(1, -1), 8, coding="huffman")
    found, arrays = decoded(skew)
    assert found.codes.reshape(-1).tolist() == counts.tolist()
    assert max(HuffmanCode.from_table(arrays["huffman"]).lengths) == 16
    assert len(arrays["weight"]) < counts.size


@pytest.mark.parametrize("coding", ["raw", "huffman"])
@pytest.mark.parametrize("least", [-9, 0, 4])
def test_signs_and_exponents_are_powers_of_two_in_units_of_the_least(least, coding):
    rng = np.random.default_rng(2)
    sign, exponent = rng.choice((-1, 0, 1), (6, 5, 3, 3)), rng.integers(least, least + 4, (6, 5, 3, 3))
    exponent[sign == 0] = least - 20
    codes = WeightCodes.shift(sign, exponent, coding=coding)
    found, _ = decoded(codes)
    assert codes.unit == 2.0**least
    assert (found.weights * codes.unit).tolist() == (sign * 2.0**exponent).tolist()
    assert codes.spec.exponent_bits == 2


@pytest.mark.parametrize("exponents", [0, 1, 15])
def test_exponents_take_as_few_bits_as_hold_them_or_as_many_as_are_asked_for(exponents):
    sign, exponent = np.array([[1, -1, 0]]), np.array([[7, 7 + exponents, 99]])
    codes = WeightCodes.shift(sign, exponent)
    assert codes.spec.exponent_bits == exponents.bit_length()
    wide = WeightCodes.shift(sign, exponent, exponent_bits=5)
    assert wide.spec.bits == 7
    assert decoded(codes)[0].weights.tolist() == decoded(wide)[0].weights.tolist()


def test_layers_of_zeros_alone_are_stored():
    zeros = np.zeros((2, 3), int)
    assert decoded(WeightCodes.shift(zeros, zeros - 7))[0].weights.any() == np.False_
    mean = WeightCodes.focused(zeros, zeros, zeros, minus=(1, 3), plus=(-1, 5))
    assert (decoded(mean)[0].weights * mean.unit == 8).all()
    assert mean.unit == 8
    assert not decoded(WeightCodes.focused(zeros, zeros, zeros, zeros == 0))[0].weights.any()


@pytest.mark.parametrize("coding", ["raw", "huffman"])
@pytest.mark.parametrize(("minus", "plus"), [((-1, 0), (1, 0)), ((-1, -4), (1, 2)), ((1, 3), (-1, 3))])
def test_focused_weights_are_a_power_of_two_about_their_mean(minus, plus, coding):
    rng = np.random.default_rng(3)
    shape = (6, 5, 3, 3)
    sign, exponent, component = rng.choice((-1, 0, 1), shape), rng.integers(-2, 2, shape), rng.integers(0, 2, shape)
    pruned = rng.random(shape) < 0.3
    codes = WeightCodes.focused(sign, exponent, component, pruned, minus=minus, plus=plus, coding=coding)
    mu = np.where(component == 1, plus[0] * 2.0 ** plus[1], minus[0] * 2.0 ** minus[1])
    expected = np.where(pruned, 0, sign * 2.0**exponent + mu)
    assert (decoded(codes)[0].weights * codes.unit).tolist() == expected.tolist()
    assert codes.unit == 2.0 ** min(-2, minus[1], plus[1])


def test_planes_with_whole_coefficients_are_exact():
    rng = np.random.default_rng(4)
    signs, coefs = rng.choice((-1, 1), (8, 7, 5, 1, 3)), rng.integers(-32768, 32768, (8, 7))
    found, _ = decoded(WeightCodes.basis(signs, coefs, fraction=15))
    assert found.planes.tolist() == (signs > 0).astype(int).tolist()
    assert found.weights.tolist() == (signs * coefs[:, :, None, None, None]).sum(axis=0).tolist()


def test_one_coefficient_a_plane_serves_all_channels():
    signs = np.random.default_rng(5).choice((-1, 1), (2, 3, 4))
    codes = WeightCodes.basis(signs, np.array([3, -1]))
    assert codes.coefs.tolist() == [[3] * 3, [-1] * 3]
    assert decoded(codes)[0].weights[:, :, 0, 0].tolist() == (3 * signs[0] - signs[1]).tolist()


def test_real_coefficients_are_right_to_a_thirty_thousandth_of_the_channels_greatest():
    rng = np.random.default_rng(6)
    signs, coefs = rng.choice((-1, 1), (3, 4, 9)), rng.normal(0, 1, (3, 4)) * np.array([1e-6, 1, 300, 7])
    codes = WeightCodes.basis(signs, coefs)
    error = codes.unit * codes.coefs - coefs
    assert (np.abs(error) <= np.abs(coefs).max(axis=0) / 32767).all()
    assert (np.frexp(codes.unit)[0] == 0.5).all()


@pytest.mark.parametrize("tile", [None, (4, 4), (2, 8), (16, 16)])
@pytest.mark.parametrize(("groups", "shape"), [(1, (5, 6, 3, 2)), (2, (6, 3, 1, 3)), (6, (6, 1, 3, 3)), (1, (7, 11))])
def test_signs_that_a_network_can_give_come_back(groups, shape, tile):
    networks = [XorNetwork(7, 7, tuple(1 << j for j in range(7))), XorNetwork(3, 2, (0b101, 0b011))]
    signs = np.random.default_rng(7).choice((-1, 1), (2, *shape))
    codes = WeightCodes.encrypt(signs, networks, np.array([1, 5]), groups=groups, tile=tile)
    found, arrays = decoded(codes, groups)
    count = np.prod(shape)
    assert found.planes.reshape(signs.shape).tolist() == (signs > 0).astype(int).tolist()
    assert len(arrays["weight"]) == sum(-(-(-(-count // n.n_out) * n.n_in) // 8) for n in networks)


def test_encrypted_slices_are_what_the_network_decodes():
    network = XorNetwork.random(4, 10, None, 3)
    slices = np.random.default_rng(8).integers(0, 2, (4, 4))
    found, _ = decoded(WeightCodes.xor([slices], [network], np.array([1]), (3, 11)))
    assert found.planes.reshape(-1).tolist() == network.decode(slices).reshape(-1)[:33].tolist()


@pytest.mark.parametrize("tile", [None, (2, 4)])
def test_important_signs_are_kept_where_not_all_can_be(tile):
    rng, network = np.random.default_rng(9), XorNetwork.random(4, 12, None, 1)
    signs, important = rng.choice((-1, 1), (1, 16, 36)), rng.random((1, 16, 36)) < 0.2
    plain, weighted = (
        decoded(WeightCodes.encrypt(signs, [network], np.array([1]), importance=costs, tile=tile))[0].weights
        for costs in (None, np.where(important, 1.0, 1e-3))
    )
    wrong = [(found[..., 0, 0] != signs[0])[important[0]].mean() for found in (plain, weighted)]
    assert wrong[1] < wrong[0] / 3


def test_a_network_stands_once_in_the_manifest_whoever_uses_it(schemes_file, samples):
    networks = samples.read(schemes_file).manifest["xor_networks"]
    assert [(network["n_in"], network["n_out"]) for network in networks.values()] == [(5, 11), (12, 10)]
    planes = [samples.read(schemes_file).node(name)["weights"]["planes"] for name in ("xor", "tiled")]
    assert planes[0][0] == planes[1][0] != planes[0][1]


def test_a_network_of_a_refused_layer_is_not_in_the_file(samples):
    net = NetworkBuilder("net", samples.input_spec((4, 1, 1)))
    codes = WeightCodes.encrypt(np.ones((1, 2, 4), int), [XorNetwork.random(4, 8, 2, 0)], np.ones(1))
    with pytest.raises(FormatError, match=r"^input: the name must stand for one tensor only$"):
        net.linear("input", net.input, codes, scale=1.0, out=Grid(1.0, 8))
    net.linear("fc", net.input, np.ones((2, 4), int), bits=2, scale=1.0, out=Grid(1.0, 8))
    assert not net.build().manifest.xor_networks


# What layers of every scheme stand for.


def real_output(network, name, x):
    """What a layer's integers say of input codes (N, features): real numbers, before they are rounded."""
    layer, source = network.layers[name], network.manifest.input
    acc = x @ layer.weights[:, :, 0, 0].astype(np.int64).T
    if layer.node.weights.scheme not in ("xor", "basis"):
        acc <<= layer.node.fraction
    value = acc - layer.zero * x.sum(axis=1, keepdims=True) + layer.bias
    multiplier = layer.scale.multiplier * 2.0 ** -layer.scale.shift.astype(float)
    assert source.zero_point > 0
    return value * multiplier * layer.node.out.scale


def case(kind, rng, shape=(5, 40)):
    """Weights of a kind and the real numbers that they stand for."""
    sign, exponent = rng.choice((-1, 0, 1), shape), rng.integers(-2, 3, shape)
    component, pruned = rng.integers(0, 2, shape), rng.random(shape) < 0.3
    planes, coefs = rng.choice((-1, 1), (2, *shape)), rng.normal(0, 1, (2, shape[0]))
    whole, channels = rng.integers(-500, 500, (2, shape[0])), (2, shape[0], *[1] * (len(shape) - 1))
    match kind:
        case "int":
            codes = rng.integers(0, 16, shape)
            return WeightCodes.integer(codes, 4, signed=False, coding="huffman"), codes
        case "shift":
            return WeightCodes.shift(sign, exponent), sign * 2.0**exponent
        case "focused":
            mu = np.where(component, 4.0, -0.125)
            codes = WeightCodes.focused(sign, exponent, component, pruned, minus=(-1, -3), plus=(1, 2))
            return codes, np.where(pruned, 0, sign * 2.0**exponent + mu)
        case "basis":
            return WeightCodes.basis(planes, whole, fraction=7), (planes * whole.reshape(channels) / 128.0).sum(axis=0)
        case "xor":
            network = XorNetwork(5, 5, (1, 3, 6, 12, 24))
            return WeightCodes.encrypt(planes, [network] * 2, coefs), (planes * coefs.reshape(channels)).sum(axis=0)


@pytest.mark.parametrize("zero_point", [0.0, 0.75])
@pytest.mark.parametrize("kind", ["int", "shift", "focused", "basis", "xor"])
def test_a_layer_computes_what_its_real_weights_do(samples, kind, zero_point):
    rng = np.random.default_rng(10)
    codes, weights = case(kind, rng)
    spec = samples.input_spec((40, 1, 1), zero_point=37, scale=0.02)
    net = NetworkBuilder("net", spec)
    scale, bias = rng.uniform(0.01, 0.1, 5), rng.normal(0, 1, 5)
    net.linear("fc", net.input, codes, scale=scale, bias=bias, zero_point=zero_point, out=Grid(0.01, 16, signed=True))
    x = rng.integers(0, 256, (20, 40))
    expected = 0.02 * (x - 37) @ (scale[:, None] * (weights - zero_point)).T + bias
    found = real_output(net.build(), "fc", x)
    # The bias is rounded to a step, coefficients to 1/32767 and multipliers to 24 bits.
    steps = scale * codes.unit * 0.02
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=float(np.max(steps)) / 2 + 2e-3 * (kind == "xor"))
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize(("kind", "array"), [
    ("int", "digit"), ("int", "shift"), ("int", "sign"), ("shift", "shift"), ("focused", "shift"),
    ("basis", "sign"), ("xor", "sign"),
])  # fmt: skip
def test_an_engine_rounds_what_the_real_weights_give(samples, kind, array):
    rng = np.random.default_rng(12)
    codes, weights = case(kind, rng, (5, 8, 3, 2))
    net = NetworkBuilder("net", samples.input_spec((8, 6, 5), zero_point=37, scale=0.02))
    scale, bias, out = rng.uniform(0.01, 0.1, 5), rng.normal(0, 1, 5), Grid(0.1, 12, signed=True, zero_point=5)
    zero_point = 0.0 if kind == "xor" else 0.5
    if kind == "int":
        codes = WeightCodes.integer(weights, 4, signed=False)
    net.conv2d("conv", net.input, codes, scale=scale, bias=bias, zero_point=zero_point, padding=1, out=out)
    x = rng.integers(0, 256, (3, 8, 6, 5))
    found = net.build().run(ImageSet(x, coded=True), EngineConfig(array=array)).codes.reshape(3, 5, 6, 6)
    real = np.pad(0.02 * (x - 37.0), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(real, (3, 2), axis=(2, 3))
    expected = np.einsum("niyxab,oiab->noyx", windows, scale[:, None, None, None] * (weights - zero_point))
    exact = (expected + bias[:, None, None]) / 0.1 + 5
    distance = np.abs(found - np.clip(exact, -2048, 2047))
    # Halfway between codes either will do, within the rounding of coefficients and multipliers.
    assert (distance <= 0.5 + 1e-3 * np.abs(exact) + 0.05).all(), distance.max()
    assert len(np.unique(found)) > 50


@pytest.mark.parametrize("fault", ["unit", "offset", "zero", "bias"])
def test_the_comparison_sees_a_wrong_constant(samples, fault):
    kind = {"offset": "int"}.get(fault, "shift")
    codes, weights = case(kind, np.random.default_rng(10))
    net = NetworkBuilder("net", samples.input_spec((40, 1, 1), zero_point=37, scale=0.02))
    net.linear("fc", net.input, codes, scale=0.1, zero_point=0.5, out=Grid(0.01, 16, signed=True))
    x = np.random.default_rng(1).integers(0, 256, (20, 40))
    real = 0.1 * (weights - 0.5)
    wrong = {"unit": 2 * real, "offset": real + 0.1, "zero": real + 0.05, "bias": real}[fault]
    expected = 0.02 * (x - 37) @ wrong.T + 0.01 * (fault == "bias")
    found = real_output(net.build(), "fc", x)
    assert not np.allclose(found, expected, rtol=1e-4, atol=0.001)


def test_a_zero_point_that_the_coefficients_steps_cannot_hold_is_refused(samples):
    net = NetworkBuilder("net", samples.input_spec((4, 1, 1)))
    codes = WeightCodes.basis(np.ones((1, 2, 4), int), np.array([100]), fraction=14)
    with pytest.raises(UnsupportedError, match=r"^fc: weight zero points with 14 fraction bits must fit 16 signed"):
        net.linear("fc", net.input, codes, scale=1.0, zero_point=3.0, out=Grid(1.0, 8))


@pytest.mark.parametrize("bits", range(9, 17))
def test_integers_of_two_bytes_come_out_of_the_file_as_they_went_in(bits):
    low = -(1 << bits - 1)
    weights = np.random.default_rng(bits).integers(low, -low, (4, 3, 2, 2))
    weights[0, 0, 0] = low, -low - 1
    held, arrays = decoded(WeightCodes.integer(weights, bits))
    assert (held.weights == weights).all()
    assert len(arrays["weight"]) == -(-weights.size * bits // 8)
    unsigned, _ = decoded(WeightCodes.integer(weights - low, bits, signed=False))
    assert (unsigned.weights == weights).all()


@pytest.mark.parametrize(("bits", "coding"), [*((b, c) for b in (0, 2, 4, 8) for c in ("raw", "huffman")), (16, "raw")])
def test_nested_weights_stand_for_what_the_grid_makes_of_them(bits, coding):
    weights = np.random.default_rng(bits).normal(0, 0.3, (5, 4, 3, 2))
    pruned = np.array([False, True, False, True, False])
    codes = WeightCodes.nested(weights, bits, 0.7, pruned, coding)
    held, _ = decoded(codes)
    grid = NestedGrid(bits, signed=True)
    expected = grid.codes(weights, 0.7) * ~pruned[:, None, None, None]
    assert (held.weights == expected).all()
    assert codes.spec.bits == (bits or 2)
    assert bits == 0 or codes.unit == grid.step(0.7)


ONES = np.ones((2, 4), int)
NETWORK = XorNetwork(2, 3, (1, 2, 3))
WRONG = [
    (lambda: WeightCodes.integer(ONES * 8, 4), "4-bit codes must lie in -8..7, found 8..8"),
    (lambda: WeightCodes.integer(ONES * 8, 4, coding="huffman"), "4-bit codes must lie in -8..7, found 8..8"),
    (lambda: WeightCodes.integer(ONES, 4, coding="zip"), "coding: input should be 'raw' or 'huffman', not 'zip'"),
    (lambda: WeightCodes.integer(ONES, 9, coding="huffman"), "huffman coding must have codes of at most 8 bits, not 9"),
    (lambda: WeightCodes.integer(ONES, 17), "bits: input should be less than or equal to 16, not '17'"),
    (lambda: WeightCodes.integer(ONES * 0.5, 4), "codes must be integers, not float64"),
    (lambda: WeightCodes.nested(ONES, 3, 1.0), "nested bits must be 0, 2, 4, 8 or 16, not 3"),
    (lambda: WeightCodes.nested(ONES, 4, 1.0, ONES[0]), r"pruned channels must have shape \(2,\), not \(4,\)"),
    (lambda: WeightCodes.shift(2 * ONES, ONES), "signs must be -1, 0 or 1, found 2..2"),
    (lambda: WeightCodes.shift(ONES, ONES[:1]), r"exponents must have the shape of the signs \(2, 4\), not \(1, 4\)"),
    (lambda: WeightCodes.shift(ONES, ONES / 2), "exponents must be integers, not float64"),
    (lambda: WeightCodes.shift(ONES, [[0, 1, 2, 16]] * 2), "exponents must be at most 15 more than the least, not 16"),
    (lambda: WeightCodes.shift(ONES, [[0, 1, 2, 4]] * 2, 2), "exponents from 0 to 4 must have 3 bits or more, not 2"),
    (lambda: WeightCodes.shift(ONES, ONES, 6), "exponent_bits: input should be less than or equal to 5, not '6'"),
    (lambda: WeightCodes.focused(ONES, ONES, 2 * ONES), "components must be 0 or 1, found 2..2"),
    (lambda: WeightCodes.focused(ONES, ONES, ONES[0]), r"components must have the shape of the signs \(2, 4\)"),
    (lambda: WeightCodes.focused(ONES, ONES, ONES, ONES[0]), r"pruned weights must have the shape of the signs"),
    (lambda: WeightCodes.focused(ONES, ONES, ONES, minus=(-1, -16)), "value_shift: input should be less than"),
    (lambda: WeightCodes.focused(ONES, ONES, ONES, plus=(1, 17)), r"plus\.1: input should be less than or equal to 15"),
    (lambda: WeightCodes.focused(ONES, ONES, ONES, plus=(0, 0)), r"plus\.0: input should be -1 or 1, not '0'"),
    (lambda: WeightCodes.focused(ONES, [[0, 0, 0, 9]] * 2, ONES, plus=(1, -9)), "shift exponents must be at most 6"),
    (lambda: WeightCodes.basis(ONES, np.ones(1)), "signs must be planes"),
    (lambda: WeightCodes.basis(0 * ONES[None], np.ones(1)), r"signs must be -1 or 1, found \[0\]"),
    (lambda: WeightCodes.basis(ONES[None], np.ones(2)), r"coefficients must have shape \(1,\) or \(1, 2\), not \(2,\)"),
    (lambda: WeightCodes.basis(ONES[None], np.array([40000])), "coefficients must lie in -32768..32767, found 40000"),
    (lambda: WeightCodes.basis(ONES[None], np.array([np.nan])), "plane coefficients must be finite"),
    (lambda: WeightCodes.basis(ONES[None], np.array([1]), 16), "fraction of coefficients must be 0 to 15 bits, not 16"),
    (lambda: WeightCodes.basis(ONES[None], np.array([0.5]), 3), "fraction of real coefficients must be 0, not 3"),
    (lambda: WeightCodes.basis(np.ones((9, 2, 4), int), np.ones(9)), "planes: input should be less than or equal to 8"),
    (lambda: WeightCodes.xor([ONES], [NETWORK] * 2, np.ones(2), (2, 4)), "encrypted planes must have a network each"),
    (lambda: WeightCodes.xor([ONES], [NETWORK], np.ones(1), (2, 4)), r"encrypted bits must have shape \(3, 2\), not"),
    (lambda: WeightCodes.xor([np.full((3, 2), 2)], [NETWORK], np.ones(1), (2, 4)), "1-bit codes must lie in 0..1"),
    (lambda: WeightCodes.xor([], [], np.ones(0), (2, 4)), "planes: "),
    (lambda: WeightCodes.encrypt(ONES[None], [NETWORK] * 2, np.ones(1)), "sign planes must have a network each"),
    (lambda: WeightCodes.encrypt(ONES[None], [NETWORK], np.ones(1), tile=(0, 4)), "a tile must have"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), WRONG, ids=[expected[:40] for _, expected in WRONG])
def test_weights_that_have_no_codes_are_refused_in_one_line(make, expected):
    with pytest.raises(FormatError, match=f"^{expected}") as caught:
        make()
    assert "\n" not in str(caught.value)


def layer(codes, **changes):
    return lambda net: net.linear("layer", net.input, codes, **{"scale": 1.0, "out": Grid(1.0, 8)} | changes)


SHIFT = WeightCodes.shift(ONES, ONES)
MISUSED = [
    (layer(ONES), "layer: bits must be given with integer codes"),
    (layer(SHIFT, bits=4), "layer: bits, signed and coding must be told to WeightCodes, not to the layer"),
    (layer(SHIFT, signed=False), "layer: bits, signed and coding must be told to WeightCodes, not to the layer"),
    (layer(SHIFT, coding="huffman"), "layer: bits, signed and coding must be told to WeightCodes, not to the layer"),
    (layer(WeightCodes.shift(ONES[None, None], ONES[None, None])), r"layer: weights must be \(out, in\), not of shape"),
    (layer(WeightCodes.shift(ONES[:, :3], ONES[:, :3])), r"layer: codes must have shape \(2, 4, 1, 1\), not \(2, 3\)"),
]


@pytest.mark.parametrize(("call", "expected"), MISUSED)
def test_weights_are_told_what_they_are_once(samples, call, expected):
    with pytest.raises(FormatError, match=f"^{expected}"):
        call(NetworkBuilder("net", samples.input_spec((4, 1, 1))))


def test_aligned_inputs_meet_integer_weights_alone(samples):
    net = NetworkBuilder("net", samples.input_spec((4, 1, 1)))
    steps = Grid(1.0, 4, align="shift", amounts=np.arange(2))
    x = net.linear("first", net.input, ONES, bits=2, scale=1.0, out=steps)
    with pytest.raises(UnsupportedError, match=r"^layer: alignment must come with scheme int, not with shift$"):
        net.linear("layer", x, WeightCodes.shift(ONES[:, :2], ONES[:, :2]), scale=1.0, out=Grid(1.0, 8))
