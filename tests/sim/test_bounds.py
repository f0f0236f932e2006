"""Bounds of a layer's sums: what they allow never overflows, and they are no wider than the worst image needs."""

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, ImageSet, InputSpec, MacFormat, NetworkBuilder, WeightCodes
from gatewise.kernels import ConvShape, Operands, conv2d
from gatewise.kernels.digits import split_digits
from gatewise.sim import bounds
from gatewise.sim.arrays import array_form
from gatewise.sim.bounds import layer_bounds
from gatewise.sim.manifest import Codes
from gatewise.sim.random_cases import Steered, random_cases


def layer(codes, bits, signed, *, array="digit", weights=4, bias=0.0, zero_point=0.0, inputs=2):
    """A 1 x 1 layer on inputs of these bits, and its bounds."""
    spec = InputSpec(
        shape=(inputs, 1, 1), bits=bits, signed=signed, scale=1.0, mean=(0.0,) * inputs, std=(1.0,) * inputs
    )
    net = NetworkBuilder("layer", spec)
    net.conv2d(
        "a", net.input, np.asarray(codes).reshape(-1, inputs, 1, 1), bits=weights, scale=1.0,
        out=Grid(1.0, 16, signed=True), bias=bias, zero_point=zero_point,
    )  # fmt: skip
    network = net.build()
    return network, layer_bounds(array_form(network.layers["a"], array), network.values["input"].codes)


def test_random_networks_overflow_only_where_the_bounds_allow_it():
    """On every array, in formats of all widths."""
    proved = refuted = 0
    for case in random_cases(60, draw=Steered(5)):
        for name, each in case.network.layers.items():
            found = layer_bounds(array_form(each, case.engine.array), case.network.source(each.node).codes)
            counts = case.golden.overflows[name]
            if found.overflow(case.engine.mac) is None:
                tflite = getattr(each.node.requant, "rounding", "") == "tflite"  # counts values beyond 32 bits
                kinds = ("product", "align", "acc", *(() if tflite else ("post",)))
                assert not any(getattr(counts, kind).any() for kind in kinds)
                proved += 1
            refuted += counts.acc.any() or counts.align.any() or counts.product.any()
    assert proved > 20
    assert refuted > 10


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 3, 4, 5, 8, 16])
def test_digits_have_the_ends_that_some_code_gives_them(bits, signed):
    codes = Codes(bits=bits, signed=signed or bits > 8)
    low, high = codes.range
    digits = split_digits(np.arange(low, high + 1), bits, codes.signed)
    assert bounds._digits(codes) == [(digit.min(), digit.max()) for digit in digits]


@pytest.mark.parametrize(
    ("fmt", "width"),
    [
        ({}, None),
        ({"product": 7}, "product"),
        ({"align": 8}, None),
        ({"acc": 12}, None),
        ({"product": 6, "acc": 12}, "product"),
    ],
)
def test_widths_are_named_in_the_order_of_the_datapath(fmt, width):
    _, found = layer([[7, -7]], 4, False)
    for reach in (found.product, found.aligned, found.acc, found.value):
        assert (reach.low.item(), reach.high.item()) == (-105, 105)
    assert found.overflow(MacFormat(**fmt)) == width


def test_one_bit_less_than_the_bound_needs_overflows_with_the_worst_image():
    network, found = layer([[7, 7], [1, 0]] * 2, 8, False)
    assert found.acc.high.tolist() == [[2 * 7 * 255, 255] * 2]
    assert found.acc.bits.tolist() == [[13, 9] * 2]
    assert found.acc_bits == 13
    assert found.margins(MacFormat(acc=12)).acc.tolist() == [-1, 3, -1, 3]
    assert found.margins(MacFormat(acc=12)).proved.tolist() == [False, True] * 2
    for acc, overflows in ((13, 0), (12, 2)):
        mac = MacFormat(acc=acc)
        assert (found.overflow(mac) is None) == (overflows == 0)
        images = ImageSet(np.full((1, 2, 1, 1), 255, dtype=np.int16), coded=True)
        result = network.run(images, EngineConfig(rows=4, lanes=4, mac=mac))
        assert (result.overflows["a"].acc > 0).sum() == overflows


def test_constants_count():
    _, found = layer([[1, 1]], 4, False, bias=2000.0)
    assert found.acc.high == 30
    assert (found.value.low, found.value.high) == (2000, 2030)
    assert found.overflow(MacFormat(acc=12)) is None
    assert layer([[1, 1]], 4, False, bias=2020.0)[1].overflow(MacFormat(acc=12)) == "post"
    _, zero = layer([[1, 1]], 4, False, zero_point=3.0)
    assert (zero.value.low, zero.value.high) == (-2 * 30, 0)


def test_planes_have_accumulators_of_their_own():
    signs = np.array([[[[[1]], [[-1]]]], [[[[1]], [[1]]]]])
    spec = InputSpec(shape=(2, 1, 1), bits=4, scale=1.0, mean=(0.0,) * 2, std=(1.0,) * 2)
    net = NetworkBuilder("planes", spec)
    codes = WeightCodes.basis(signs, np.array([3, 100]))
    net.conv2d("a", net.input, codes, scale=1.0, out=Grid(1.0, 16, signed=True))
    network = net.build()
    found = layer_bounds(array_form(network.layers["a"], "sign"), network.values["input"].codes)
    assert (found.acc.low.tolist(), found.acc.high.tolist()) == ([[-15], [0]], [[15], [30]])
    assert (found.value.low, found.value.high) == (0, 103 * 15 + 97 * 15)
    assert found.margins(MacFormat())[:2] == (None, None)


def test_small_layers_reach_exactly_what_brute_force_finds():
    """All images of three inputs of 1 to 3 bits; weights of one and two digits, planes and shifts, zero points."""
    rng, reached = np.random.default_rng(0), 0
    for _ in range(24):
        bits, signed, width = (int(rng.choice(each)) for each in ((1, 2, 3), (0, 1), (3, 4, 7)))
        array = str(rng.choice(["digit", "sign", "shift"] if width < 7 else ["digit"]))
        half = 1 << (width - 1)
        codes = rng.integers(-half, half, (3, 3))
        network, found = layer(
            codes, bits, bool(signed), array=array, weights=width, bias=float(rng.integers(-9, 9)),
            zero_point=float(rng.integers(0, 3)), inputs=3,
        )  # fmt: skip
        low, high = network.values["input"].codes.range
        every = np.stack(np.meshgrid(*[np.arange(low, high + 1)] * 3, indexing="ij")).reshape(3, -1)
        form = array_form(network.layers["a"], array)
        weighed = [(each[:, :, 0, 0] @ every) for each in form.value_weights]
        xsum = every.sum(axis=0)
        exact = sum(weighed) - form.layer.zero[:, None] * xsum + form.layer.bias[:, None]
        assert (found.value.low == exact.min(axis=1)).all()
        assert (found.value.high == exact.max(axis=1)).all()
        if array != "sign":
            assert (weighed[0] == codes @ every << form.fraction).all()
        # Every partial sum, in any order, of any image: each digit pair of each input may be there or not.
        parts = form.weights[:, :, :, 0, 0].astype(np.int64)
        places = 1 if form.exact_rows else (1 << 4 * np.arange(len(parts)))[:, None, None]
        terms = (parts * places)[..., None] * every[:, None, :].transpose(1, 0, 2)  # (parts, out, in, images)
        axes = (2,) if form.coefficients is not None else (0, 2)
        ends = (np.minimum(terms, 0).sum(axis=axes), np.maximum(terms, 0).sum(axis=axes))
        low_end, high_end = ends[0].min(axis=-1), ends[1].max(axis=-1)
        assert (found.acc.low <= low_end).all()
        assert (found.acc.high >= high_end).all()
        if not signed or len(parts) == 1 or form.coefficients is not None:
            assert (found.acc.low == low_end).all()
            assert (found.acc.high == high_end).all()
            reached += 1
        if not form.exact_rows:
            products = form.weights[:, :, :, 0, 0].astype(np.int64)[..., None] * np.arange(low, high + 1)
            assert (found.product.low == products.min(axis=(0, 2, 3)).clip(max=0)).all()
            assert (found.product.high == products.max(axis=(0, 2, 3)).clip(min=0)).all()
        else:
            assert not found.product.high.any()
    assert reached > 12


def test_a_code_that_is_one_digit_in_some_row_groups_counts_as_one_and_as_two():
    """-8 is 8 - 16 in a row group of wider weights: of signed activations -8 * -8 is more than 8 * 7."""
    spec = InputSpec(shape=(2, 1, 1), bits=4, signed=True, scale=1.0, mean=(0.0,) * 2, std=(1.0,) * 2)
    net = NetworkBuilder("mixed", spec)
    codes = WeightCodes.integer(np.array([[-8, -8], [17, 0]]).reshape(2, 2, 1, 1), np.array([4, 8]))
    net.conv2d("a", net.input, codes, scale=1.0, out=Grid(1.0, 16, signed=True))
    network = net.build()
    found = layer_bounds(array_form(network.layers["a"], "digit"), network.values["input"].codes)
    assert (found.product.low.tolist(), found.product.high.tolist()) == ([-64, -8], [64, 7])
    assert found.margins(MacFormat(product=7)).product.tolist() == [-1, 3]


@pytest.mark.parametrize("sign", [1, -1])
def test_an_image_made_against_a_channel_reaches_its_bound_and_needs_every_bit(sign):
    """Aligned 4-bit weights over 3 x 3 pixels: where a weight is positive the greatest code, else the least."""
    rng = np.random.default_rng(7)
    codes = rng.integers(-8, 8, (2, 3, 3, 3))
    spec = InputSpec(shape=(3, 3, 3), bits=4, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("aligned", spec)
    amounts = np.array([0, 3, 5])
    x = net.conv2d("a", net.input, np.eye(3, dtype=int).reshape(3, 3, 1, 1), bits=2, scale=1.0,
                   out=Grid(1.0, 4, align="shift", amounts=amounts))  # fmt: skip
    net.conv2d("b", x, codes, bits=4, scale=1.0, out=Grid(1.0, 16, signed=True))
    network = net.build()
    found = layer_bounds(array_form(network.layers["b"], "digit"), network.values["a"].codes)
    for channel in range(2):
        worst = np.where(sign * codes[channel] > 0, 15, 0)
        # The first layer passes the image on: its step is that of each channel's alignment.
        image = worst * (1 << amounts)[:, None, None]
        reached = int((codes[channel] * image).sum())
        bound = (found.acc.high if sign > 0 else found.acc.low)[0, channel]
        assert reached == bound
        bits = int(max(bound, -1 - bound)).bit_length() + 1
        for acc, overflows in ((bits, 0), (bits - 1, 1)):
            mac = MacFormat(acc=acc)
            result = conv2d(
                worst[None], split_digits(codes[[channel]], 4, signed=True), (1 << amounts).astype(np.int32),
                ConvShape(3, 1, (3, 3)), Operands(4, False, 4), mac, 4,
            )  # fmt: skip
            assert (result.acc_overflows[0] > 0) == overflows
            assert (result.acc.item() == bound) == (not overflows)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(0, (1 << DIGIT_BITS) - 1)", "(0, 0)"),
        ("side * places for side in parts", "side for side in parts"),
        ("times(low, high)", "times(0, 15)"),
        ("(grouped * factors)", "(grouped)"),
        ("low + negative * high", "low"),
    ],
)
def test_a_planted_fault_is_found(old, new):
    import inspect

    source = inspect.getsource(bounds)
    assert source.count(old) == 1
    names = dict(vars(bounds))
    exec(compile(source.replace(old, new), "planted", "exec"), names)
    spec = InputSpec(shape=(2, 1, 1), bits=8, scale=1.0, mean=(0.0,) * 2, std=(1.0,) * 2)
    net = NetworkBuilder("aligned", spec)
    out = Grid(1.0, 8, align="shift", amounts=np.array([0, 3]))
    x = net.conv2d("a", net.input, np.ones((2, 2, 1, 1), int), bits=4, scale=1.0, out=out)
    net.conv2d("b", x, np.full((2, 2, 1, 1), 100) * [[[[1]]], [[[-1]]]], bits=8, scale=1.0,
               out=Grid(1.0, 16, signed=True))  # fmt: skip
    network = net.build()
    form, codes = array_form(network.layers["b"], "digit"), network.values["a"].codes
    found = layer_bounds(form, codes).acc
    # -100 is -7 * 16 + 12: its low digit alone adds.
    assert (found.low.tolist(), found.high.tolist()) == ([[0, -9 * 112 * 255]], [[9 * 100 * 255, 9 * 12 * 255]])
    other = names["layer_bounds"](form, codes).acc
    assert (other.low != found.low).any() or (other.high != found.high).any()
