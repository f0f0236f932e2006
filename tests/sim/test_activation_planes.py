"""Layers on activation planes: sums of pairs as plain loops make them, what equals digits, what is refused."""

import numpy as np
import pytest
from gatewise import (
    CapacityError,
    EngineConfig,
    FormatError,
    Grid,
    ImageSet,
    InputSpec,
    MacFormat,
    NetworkBuilder,
    PlaneBasis,
    Thresholds,
    UnsupportedError,
    WeightCodes,
    load,
)
from gatewise.kernels.planes import pair_coefficients
from gatewise.sim.compile import compile_network
from gatewise.sim.descriptor import descriptor_words
from gatewise.sim.images import input_table
from gatewise.sim.inspect import inspect_file
from gatewise.sim.lower import lower

from .machine import Machine

SIGN = EngineConfig(rows=4, lanes=4, pixels=64, array="sign", act_bytes=1 << 16)
LQ = Grid.of_planes(PlaneBasis.lq_net([0.7, 1.5]))
ABC = Grid.of_planes(PlaneBasis.abc_net([0.5, 0.3, 0.2, 0.4, 0.1], [-1.0, 0.0, 1.0, 2.0, 0.5]))
WIDE = Grid(0.01, 16, signed=True)


def spec(shape=(3, 6, 6), **changes):
    channels = shape[0]
    return InputSpec(
        **{"shape": shape, "bits": 8, "scale": 1.0, "mean": (0.0,) * channels, "std": (1.0,) * channels} | changes
    )


def signs(rng, *shape):
    return rng.choice((-1, 1), shape)


def stem(net, out, seed=0, channels=6):
    """Activation planes from a layer of integers."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-8, 8, (channels, net.spec.shape[0], 3, 3))
    return net.conv2d("stem", net.input, weights, bits=4, scale=0.004, padding=1, out=out)


def images(count=2, shape=(3, 6, 6), seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def real_sums(words, basis, weights, stride=1, padding=0, dilation=1, groups=1):
    """A convolution of what words stand for, the pad's worth around the image: plain loops in float64."""
    x = np.pad(basis.worth(words), ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2),
               constant_values=float(basis.worth(np.array(basis.pad))))  # fmt: skip
    out, inputs, ky, kx = weights.shape
    span_y, span_x = dilation * (ky - 1) + 1, dilation * (kx - 1) + 1
    result = np.zeros((len(x), out, (x.shape[2] - span_y) // stride + 1, (x.shape[3] - span_x) // stride + 1))
    for n, o, row, column in np.ndindex(result.shape):
        first = o // (out // groups) * inputs
        y, at = row * stride, column * stride
        window = x[n, first : first + inputs, y : y + span_y : dilation, at : at + span_x : dilation]
        result[n, o, row, column] = (window * weights[o]).sum()
    return result


@pytest.mark.parametrize("grid", [LQ, ABC, Grid.of_planes(PlaneBasis.sign(0.6).padded(0))], ids=["lq", "abc", "sign"])
@pytest.mark.parametrize(
    "geometry",
    [{"padding": 1}, {"stride": 2, "padding": 2, "dilation": 2}, {"groups": 2}, {"groups": 6, "padding": 1}],
    ids=["padded", "dilated", "grouped", "depthwise"],
)
def test_a_layer_of_pairs_is_the_real_convolution(grid, geometry):
    rng = np.random.default_rng(7)
    net = NetworkBuilder("pairs", spec())
    made = stem(net, grid)
    groups = geometry.get("groups", 1)
    planes, alpha = signs(rng, 3, 6, 6 // groups, 3, 3), rng.uniform(0.1, 1, (3, 6))
    bias, scale = rng.normal(0, 1, 6), rng.uniform(0.5, 1, 6)
    net.conv2d("pairs", made, WeightCodes.basis(planes, alpha), scale=scale, bias=bias, out=WIDE, **geometry)
    network = net.build()
    result = network.run(images(), SIGN, trace=True)
    real = (planes * alpha[:, :, None, None, None]).sum(axis=0)
    wanted = real_sums(result.tensors["stem"], grid.basis, real, **geometry) * scale[:, None, None]
    found = WIDE.scale * result.tensors["pairs"]
    # Coefficients are right to 1/32767 of the greatest, codes to half a step.
    assert len(np.unique(result.tensors["stem"])) == len(grid.basis.words)
    assert np.abs(found - wanted - bias[:, None, None]).max() < 0.5 * WIDE.scale + 0.01
    fixed = pair_coefficients(alpha.T, np.array(grid.basis.spec.beta))
    assert np.array_equal(network.layers["pairs"].coefs, fixed.coefs.T)
    assert result.overflow("acc") == result.overflow("post") == 0


def test_thresholds_make_the_words_of_the_real_values():
    rng = np.random.default_rng(2)
    net = NetworkBuilder("words", spec())
    plain, made = stem(net, WIDE), None
    weights = rng.integers(-8, 8, (5, 6, 1, 1))
    bias = rng.normal(0, 1, 5)
    settings = {"bits": 4, "scale": 0.25, "bias": bias}
    for name, grid in (("lq", LQ), ("abc", ABC)):
        narrow = net.requantise(f"{name}.in", plain, out=Grid(0.05, 8, signed=True))
        made = net.conv2d(name, narrow, weights, out=grid, **settings)
    assert made is not None
    found = net.build().run(images(), SIGN, trace=True).tensors
    for name, grid in (("lq", LQ), ("abc", ABC)):
        real = np.einsum("nihw,oi->nohw", found[f"{name}.in"] * 0.05, weights[..., 0, 0] * 0.25)
        # A bias is rounded to the step of the accumulator, half of which on the sign array.
        bias_there = np.rint(bias / 0.0125)[:, None, None] * 0.0125
        reached = (real + bias_there)[..., None] >= np.array(grid.basis.thresholds) - 1e-9
        assert np.array_equal(found[name], np.array(grid.basis.words)[reached.sum(axis=-1)])


def test_one_plane_of_bits_is_a_one_bit_code():
    """Codes, overflows and cycles of {0, 1} as a plane are those of {0, 1} as a digit."""
    rng = np.random.default_rng(5)
    planes, coefs = signs(rng, 4, 6, 8, 3, 3), rng.integers(-300, 300, (4, 6))
    found = []
    for grid in (Grid(1.0, 1), Grid.of_planes(PlaneBasis.lq_net([1.0]))):
        net = NetworkBuilder("bit", spec())
        steps = Thresholds(np.zeros((8, 1), dtype=np.int64))
        first = net.conv2d(
            "stem", net.input, rng.integers(0, 1, (8, 3, 1, 1)) + 1, bits=4, scale=1.0, bias=-1000.0 * np.arange(8) / 8,
            out=grid, thresholds=steps,
        )  # fmt: skip
        net.conv2d("pairs", first, WeightCodes.basis(planes, coefs), scale=1.0, out=WIDE, padding=1)
        engine = SIGN.with_mac(MacFormat(acc=12))
        found.append(net.build().run(images(), engine, trace=True))
    digits, bits = found
    assert np.array_equal(digits.codes, bits.codes)
    assert [layer.total for layer in digits.layers] == [layer.total for layer in bits.layers]
    assert all(
        np.array_equal(getattr(digits.overflows[name], kind), getattr(bits.overflows[name], kind))
        for name in digits.overflows
        for kind in ("acc", "post")
    )


def test_pairs_overflow_each_in_its_own_accumulator():
    rng = np.random.default_rng(6)
    net = NetworkBuilder("over", spec((64, 4, 4)))
    # Padding feeds ones, and nearly all weights are +1.
    grid = Grid.of_planes(PlaneBasis.lq_net([0.7, 1.5]).padded(3))
    made = net.conv2d("stem", net.input, rng.integers(-8, 8, (64, 64, 1, 1)), bits=4, scale=0.05, out=grid)
    planes = np.where(rng.random((2, 4, 64, 7, 7)) < 0.01, -1, 1)
    net.conv2d("pairs", made, WeightCodes.basis(planes, np.array([3, 1])), scale=0.1, out=WIDE, padding=3)
    network = net.build()
    engine = SIGN.with_mac(MacFormat(acc=12, overflow="wrap")).model_copy(update={"lanes": 64})
    result = network.run(images(1, (64, 4, 4)), engine, trace=True)
    words = result.tensors["stem"][0]
    count, values = np.zeros(4, dtype=np.int64), np.zeros((4, 4, 4, 4), dtype=np.int64)
    for pair in range(4):
        x = np.pad(words >> pair % 2 & 1, ((0, 0), (3, 3), (3, 3)), constant_values=1)
        for o, row, column in np.ndindex(4, 4, 4):
            acc = 0
            for ky, kx in np.ndindex(7, 7):
                acc += int((x[:, row + ky, column + kx] * planes[pair // 2, o, :, ky, kx]).sum())
                wrapped = (acc + 2048) % 4096 - 2048
                count[o] += wrapped != acc
                acc = wrapped
            values[pair, o, row, column] = acc
    assert count.min() > 0
    assert np.array_equal(result.overflows["pairs"].acc, count)
    layer = network.layers["pairs"]
    total = (layer.coefs.astype(int)[:, :, None, None] * values).sum(axis=0) + layer.bias[:, None, None]
    scaled = total * layer.scale.multiplier[:, None, None] / 2.0 ** layer.scale.shift[:, None, None]
    assert np.array_equal(np.clip(np.rint(scaled), -(1 << 15), (1 << 15) - 1), result.tensors["pairs"][0])


def binary_mlp():
    """The binary perceptron of three layers that QONNX ships, in small: signs in, signs between, signs as weights."""
    rng = np.random.default_rng(8)
    plane = Grid.of_planes(PlaneBasis.sign()).codes.planes
    net = NetworkBuilder("tfc", spec((20, 1, 1), bits=1, planes=plane, mean=(127.5,) * 20))
    x, weights = net.input, [signs(rng, 1, 12, 20), signs(rng, 1, 12, 12), signs(rng, 1, 5, 12)]
    for at, each in enumerate(weights[:-1]):
        x = net.linear(f"fc{at}", x, WeightCodes.basis(each, [1.0]), scale=1.0, out=Grid.of_planes(PlaneBasis.sign()))
    net.linear("out", x, WeightCodes.basis(weights[-1], [1.0]), scale=1.0, out=Grid(1.0, 8, signed=True))
    return net, [each[0] for each in weights]


def test_a_binary_perceptron_takes_the_signs_of_exact_sums():
    net, weights = binary_mlp()
    network, pixels = net.build(), images(50, (20, 1, 1))
    x = np.where(pixels[:, :, 0, 0] >= 127.5, 1, -1)
    for each in weights[:-1]:
        x = np.where(x @ each.T >= 0, 1, -1)
    assert np.array_equal(network.run(pixels, SIGN).codes, x @ weights[-1].T)
    assert input_table(network.manifest.input)[0].tolist() == [0] * 128 + [1] * 128
    # The tie is +1: twenty inputs have as many of one sign as of the other often enough.
    codes = np.where(weights[0][:1, :, None, None] > 0, 1, 0).astype(np.int16)
    codes[0, np.flatnonzero(codes[0, :, 0, 0])[: int(codes.sum()) - 10]] ^= 1
    tie = network.run(ImageSet(codes, coded=True), SIGN, trace=True)
    assert int((2 * codes[0, :, 0, 0] - 1) @ weights[0][0]) in range(-20, 21)
    assert tie.tensors["fc0"][0, :, 0, 0].tolist() == [
        int((2 * codes[0, :, 0, 0].astype(int) - 1) @ row >= 0) for row in weights[0]
    ]


def everything():
    """Planes made in both ways and looked at in all: views, a pool, a copy beside a sum, a linear layer over a map."""
    rng = np.random.default_rng(9)
    net = NetworkBuilder("everything", spec())
    first = stem(net, LQ, channels=5)
    pooled = net.max_pool("pool", first, 3, 1, 1)
    joined = net.concat("join", [pooled, net.stride_slice("cut", first, 1)])
    basis = WeightCodes.basis(signs(rng, 2, 7, 10, 3, 3), rng.uniform(0.2, 1, (2, 7)))
    stream = net.conv2d("wide", joined, basis, scale=0.3, out=WIDE, padding=1)
    planes = net.requantise("planes", stream, out=ABC)
    basis = WeightCodes.basis(signs(rng, 5, 7, 7, 3, 3), rng.uniform(0.2, 1, (5, 7)))
    own = net.conv2d("pairs", planes, basis, scale=0.1, out=WIDE, padding=1)
    total = net.add("add", own, stream, out=WIDE)
    eight = PlaneBasis.abc_net(rng.uniform(0.1, 1, 8), rng.normal(0, 2, 8)).padded(0b10110101)
    copy = net.requantise("copy", total, out=Grid.of_planes(eight))
    basis = WeightCodes.basis(signs(rng, 1, 7, 1, 3, 3), np.ones((1, 7)))
    thin = net.conv2d("thin", copy, basis, scale=0.3, out=LQ, stride=2, padding=1, groups=7)
    basis = WeightCodes.basis(signs(rng, 3, 5, 63), rng.uniform(0.2, 1, (3, 5)))
    net.linear("fc", net.flatten("flat", thin), basis, scale=0.1, out=WIDE)
    return net


def test_the_memory_image_says_all_of_it():
    network = everything().build()
    compiled = compile_network(network, SIGN)
    result = network.run(images(), SIGN, trace=True)
    for codes, wanted in zip(result.tensors["input"], result.tensors["fc"], strict=True):
        image = Machine(SIGN, compiled.with_input(codes)).run()
        assert np.array_equal(compiled.decode_result(image), wanted)
    assert len(np.unique(result.tensors["copy"])) > 4
    assert result.tensors["copy"].max() > 15
    assert len(np.unique(result.codes)) > 4


def test_a_file_keeps_planes_and_tables(tmp_path):
    path = tmp_path / "planes.gw"
    wanted = everything().save(path).run(images(), SIGN)
    assert np.array_equal(load(path).run(images(), SIGN).codes, wanted.codes)
    facts = {node.name: node for node in inspect_file(path).nodes}
    assert facts["stem"].detail == "5 x 6 x 6 2 of 0, 1"
    assert facts["copy"].detail == "7 x 6 x 6 8 of -1, +1"
    rows = {row["name"]: row for row in inspect_file(path).to_json()["layers"]}
    assert rows["stem"]["planes"] == {"values": "bits", "beta": [0.7, 1.5]}
    assert rows["fc"]["planes"] is None


def test_pairs_are_passes_of_a_weight_tile():
    """The cycles of 5 x 5 pairs by hand: a tile of signs serves five passes, a pixel has 25 accumulators."""
    rng = np.random.default_rng(1)
    engine = EngineConfig(array="sign")
    net = NetworkBuilder("abc", spec((16, 8, 8)))
    made = stem(net, ABC, channels=16)
    net.conv2d("pairs", made, WeightCodes.basis(signs(rng, 5, 16, 16, 3, 3), np.ones((5, 16))), scale=1.0, out=WIDE,
               padding=1)  # fmt: skip
    found = next(layer for layer in net.build().run(images(1, (16, 8, 8)), engine).layers if layer.name == "pairs")
    tiles = [10] * 7  # of 256 // 25 pixels; 64 = 6 * 10 + 4, the last one halved or not
    assert found.compute == 9 * 25 * 64
    assert found.products == 9 * 16 * 16 * 64 * 25
    row = next(layer for layer in lower(net.build(), engine) if layer.name == "pairs")
    registers = {name: row.registers[name] for name in ("tile_pixels", "part_top", "a_top", "plane_top", "a_planes")}
    assert registers == {"tile_pixels": 10, "part_top": 4, "a_top": 4, "plane_top": 24, "a_planes": 1}
    assert row.record.fields == 7 + 2
    if row.registers["taper"] == 0:
        weights = len(tiles) * 9 * 5 * 2
        assert found.bytes_read == (descriptor_words(engine) + 16 * 9 // 2 + weights) * 16
    # A slot lasts two beats of 25 planes, the array 45 steps of 50 cycles for each tile: the drain hides.
    assert row.registers["interval"] == 50


REFUSED = {
    "integers": (
        lambda net, x: net.conv2d("b", x, np.ones((2, 6, 1, 1), int), bits=4, scale=1.0, out=WIDE),
        UnsupportedError, "b: activation planes must meet weights of scheme basis or xor, not int",
    ),
    "shifts": (
        lambda net, x: net.conv2d("b", x, WeightCodes.shift(np.ones((2, 6, 1, 1), int), np.zeros((2, 6, 1, 1), int)),
                                  scale=1.0, out=WIDE),
        UnsupportedError, "b: activation planes must meet weights of scheme basis or xor, not shift",
    ),
    "zero points": (
        lambda net, x: net.conv2d("b", x, WeightCodes.basis(np.ones((1, 2, 6, 1, 1), int), [2]), scale=1.0, out=WIDE,
                                  zero_point=1.0),
        UnsupportedError, "b: weights that meet activation planes must have no zero-point term: they are signs",
    ),
    "other pairs": (
        lambda net, x: net.conv2d("b", x, WeightCodes.basis(np.ones((1, 2, 6, 1, 1), int), np.ones((1, 3, 2), int)),
                                  scale=1.0, out=WIDE),
        FormatError, "b: coefficients of pairs must be those of 2 pairs of planes here, not 3",
    ),
    "a sum": (
        lambda net, x: net.add("b", x, x, out=WIDE),
        UnsupportedError, "b: add must read numbers, not words of activation planes",
    ),
    "a copy": (
        lambda net, x: net.requantise("b", x, out=WIDE),
        UnsupportedError, "b: requantise must read numbers, not words of activation planes",
    ),
    "an average": (
        lambda net, x: net.average_pool("b", x, 2),
        UnsupportedError, "b: average_pool must read numbers, not words of activation planes",
    ),
    "a mean": (
        lambda net, x: net.global_average_pool("b", x),
        UnsupportedError, "b: global_average_pool must read numbers, not words of activation planes",
    ),
    "more channels": (
        lambda net, x: net.channel_pad("b", x, 1, 1),
        UnsupportedError, "b: channel_pad must read numbers, not words of activation planes",
    ),
    "a sum of planes": (
        lambda net, x: net.add("b", *(2 * [net.requantise("c", net.input, out=WIDE)]), out=LQ),
        UnsupportedError, "b: the sum of an add must be numbers, not activation planes: requantise it to them",
    ),
    "others in a concat": (
        lambda net, x: net.concat("b", [x, net.requantise("c", net.input, out=Grid(1.0, 2))]),
        FormatError, "b: inputs must have the same codes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_read_planes_is_refused_by_name(case):
    make, kind, message = REFUSED[case]
    net = NetworkBuilder("refused", spec())
    made = stem(net, LQ)
    with pytest.raises(kind) as error:
        make(net, made)
    assert str(error.value).startswith(message)


def test_a_maximum_wants_words_in_the_order_of_their_values():
    net = NetworkBuilder("max", spec())
    made = stem(net, Grid.of_planes(PlaneBasis.lq_net([1.5, 0.4])))
    with pytest.raises(UnsupportedError, match=r"^b: max_pool must read numbers, or planes whose words are in the ord"):
        net.max_pool("b", made, 2)
    basis = PlaneBasis.lq_net([0.4, 1.5])
    net = NetworkBuilder("max", spec())
    net.max_pool("b", stem(net, Grid.of_planes(basis)), 2)
    found = net.build().run(images(), SIGN, trace=True).tensors
    worth = basis.worth(found["stem"]).reshape(2, 6, 3, 2, 3, 2).max(axis=(3, 5))
    assert np.array_equal(basis.worth(found["b"]), worth)


def test_planes_of_an_input_are_one_of_signs():
    plane = {"values": "bits", "beta": (1.0,)}
    with pytest.raises(ValueError, match="input planes must be one plane of signs, not 1 of bits"):
        spec(bits=1, planes=plane)
    with pytest.raises(
        ValueError, match="words of planes must be unsigned, with a beta for each bit, not 1 for unsign"
    ):
        spec(bits=2, planes=plane)


@pytest.mark.parametrize(
    ("engine", "kind", "message"),
    [
        (EngineConfig(), UnsupportedError, 'stem: activation planes must be on an engine with array = "sign", not arr'),
        (
            SIGN.model_copy(update={"pixels": 16}),
            CapacityError,
            "b: pairs of planes must be at most pixels = 16, not 2",
        ),
    ],
    ids=["array", "pixels"],
)
def test_engines_that_cannot_hold_planes_say_so(engine, kind, message):
    net = NetworkBuilder("net", spec())
    made = stem(net, ABC)
    weights = WeightCodes.basis(signs(np.random.default_rng(0), 5, 4, 6, 1, 1), np.ones((5, 4)))
    net.conv2d("b", made, weights, scale=1.0, out=WIDE)
    with pytest.raises(kind) as error:
        net.build().run(images(), engine)
    assert str(error.value).startswith(message)


DAMAGED = {
    "word": (("table", [0, 1, 4, 3]), "stem: words of a table must fit 2 planes, not 4"),
    "table": (("table", None), "stem: a table must come with activation planes, and they with it"),
    "thresholds": (("table", [0, 1]), "tensor 'stem.thresholds' must be"),
    "length": (("table", [0]), "table: tuple should have at least 2 items after validation, not 1"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_table_is_refused(samples, tmp_path, case):
    (key, value), message = DAMAGED[case]
    net = NetworkBuilder("net", spec())
    stem(net, LQ)
    path = tmp_path / "damaged.gw"
    net.save(path)
    parts = samples.read(path)
    parts.manifest["nodes"][0][key] = value
    samples.write(path, parts)
    with pytest.raises(FormatError) as error:
        load(path)
    assert message in str(error.value)
