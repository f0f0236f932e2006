"""Bounds of a layer's sums: what they allow never overflows, and they are no wider than the worst image needs."""

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, ImageSet, InputSpec, MacFormat, NetworkBuilder, WeightCodes
from gatewise.kernels.digits import split_digits
from gatewise.sim import bounds
from gatewise.sim.arrays import array_form
from gatewise.sim.bounds import layer_bounds
from gatewise.sim.manifest import Codes
from gatewise.sim.random_cases import Steered, random_cases


def layer(codes, bits, signed, fmt=None, *, array="digit", weights=4, bias=0.0, zero_point=0.0):
    """A 1 x 1 layer on two inputs of these bits, and its bounds."""
    spec = InputSpec(shape=(2, 1, 1), bits=bits, signed=signed, scale=1.0, mean=(0.0,) * 2, std=(1.0,) * 2)
    net = NetworkBuilder("layer", spec)
    net.conv2d(
        "a", net.input, np.asarray(codes).reshape(-1, 2, 1, 1), bits=weights, scale=1.0, out=Grid(1.0, 16, signed=True),
        bias=bias, zero_point=zero_point,
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
def test_a_word_and_a_digit_are_as_great_as_the_greatest_code_makes_them(bits, signed):
    codes = Codes(bits=bits, signed=signed or bits > 8)
    low, high = codes.range
    digits = np.abs(split_digits(np.arange(low, high + 1), bits, codes.signed))
    places = 1 << 4 * np.arange(len(digits))
    assert bounds._greatest_word(codes) == (digits * places[:, None]).sum(axis=0).max()
    assert bounds._greatest_digit(codes) == digits.max()


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
    assert (found.product, found.aligned, found.acc, found.value) == (105, 105, 210, 210)
    assert found.overflow(MacFormat(**fmt)) == width


def test_one_bit_less_than_the_bound_needs_overflows_with_the_worst_image():
    network, found = layer([[7, 7], [1, 0]] * 2, 8, False)
    assert found.acc == 2 * 7 * 255
    assert found.acc_bits == 13
    for acc, overflows in ((13, 0), (12, 2)):
        mac = MacFormat(acc=acc)
        assert (found.overflow(mac) is None) == (overflows == 0)
        images = ImageSet(np.full((1, 2, 1, 1), 255, dtype=np.int16), coded=True)
        result = network.run(images, EngineConfig(rows=4, lanes=4, mac=mac))
        assert (result.overflows["a"].acc > 0).sum() == overflows


def test_constants_count():
    _, found = layer([[1, 1]], 4, False, bias=2000.0)
    assert found.acc == 30
    assert found.value == 2030
    assert found.overflow(MacFormat(acc=12)) is None
    assert layer([[1, 1]], 4, False, bias=2020.0)[1].overflow(MacFormat(acc=12)) == "post"
    _, zero = layer([[1, 1]], 4, False, zero_point=3.0)
    assert zero.value == 30 + 3 * 30


def test_planes_have_accumulators_of_their_own():
    signs = np.array([[[[[1]], [[-1]]]], [[[[1]], [[1]]]]])
    spec = InputSpec(shape=(2, 1, 1), bits=4, scale=1.0, mean=(0.0,) * 2, std=(1.0,) * 2)
    net = NetworkBuilder("planes", spec)
    codes = WeightCodes.basis(signs, np.array([3, 100]))
    net.conv2d("a", net.input, codes, scale=1.0, out=Grid(1.0, 16, signed=True))
    network = net.build()
    found = layer_bounds(array_form(network.layers["a"], "sign"), network.values["input"].codes)
    assert (found.product, found.aligned, found.acc, found.value) == (0, 0, 30, 3 * 30 + 100 * 30)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(1 << below) - 1 + ", ""),
        ("* places[:, None]", ""),
        (".astype(object) * word", ".astype(object)"),
        ("* factors).sum(axis=3)", ").sum(axis=3)"),
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
    net.conv2d("b", x, np.full((1, 2, 1, 1), 100), bits=8, scale=1.0, out=Grid(1.0, 16, signed=True))
    network = net.build()
    form, codes = array_form(network.layers["b"], "digit"), network.values["a"].codes
    assert names["layer_bounds"](form, codes).acc < layer_bounds(form, codes).acc == 9 * 100 * 255
