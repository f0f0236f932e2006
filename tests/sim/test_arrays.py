"""`gatewise.sim.arrays`: what each array makes of a layer, and that all of them find the same."""

from dataclasses import replace

import numpy as np
import pytest
from gatewise import (
    EngineConfig,
    Grid,
    ImageSet,
    InputSpec,
    MacFormat,
    NetworkBuilder,
    Thresholds,
    UnsupportedError,
    WeightCodes,
    XorNetwork,
    load,
)
from gatewise.kernels.fusion import FUSION_MODES, FusionMode, fusion_mode
from gatewise.kernels.mac import signed_range
from gatewise.kernels.requant import ScaleRequantizer
from gatewise.kernels.shift import signed_digit_passes
from gatewise.sim import arrays
from gatewise.sim.arrays import SCHEMES, array_form, default_engine
from gatewise.sim.bounds import layer_bounds
from gatewise.sim.compile import compile_network
from gatewise.sim.demo import FOLDER
from gatewise.sim.execute import Datapath
from gatewise.sim.lower import lower
from gatewise.sim.schedule import schedule

WIDE = MacFormat(product=10, align=24, acc=40)
ROUNDINGS = ("half_even", "half_up", "half_away", "floor", "tflite")


def start(samples, channels=6, bits=4, **more):
    return NetworkBuilder("net", samples.input_spec((channels, 5, 4), bits=bits, **{"zero_point": 0} | more))


def layer_of(samples, codes, channels=6, **settings):
    """The one layer of a network of a convolution."""
    net = start(samples, channels)
    net.conv2d("conv", net.input, codes, **{"scale": 0.1, "out": Grid(0.2, 8, signed=True)} | settings)
    return net.build().layers["conv"]


def integers(samples, bits, rounding="half_even", signed=False, activations=8):
    """Layers of every geometry, with weights of `bits` bits: fractional zero points, thresholds, groups, a map."""
    rng = np.random.default_rng(bits)
    # TFLite's rounding has no zero points with fraction bits, and its factors are below 1.
    low, high = signed_range(activations) if signed else (0, (1 << activations) - 1)
    net = start(samples, bits=activations, signed=signed, zero_point=max(low, -20) if signed else min(9, high))
    net.rounding, net.multiplier_bits = rounding, 31

    def settings(shape, x, **more):
        """Such that codes are spread over eight bits; grids all have the input's step."""
        zeros = rng.integers(-3, 4, shape[0]) if rounding == "tflite" else rng.uniform(-3, 3, shape[0])
        out = Grid(x.grid.scale, activations, signed=True, zero_point=max(signed_range(activations)[0], -5))
        scale = 0.5 ** (bits + 1) / np.sqrt(np.prod(shape[1:]))
        bias = rng.normal(0, 10 * x.grid.scale, shape[0])
        return {"bits": bits, "scale": scale, "zero_point": zeros, "bias": bias, "out": out} | more

    def conv(name, x, *shape, groups=1, padding=0, stride=1, **more):
        codes = rng.integers(*signed_range(bits), shape, endpoint=True)
        geometry = {"groups": groups, "padding": padding, "stride": stride}
        return net.conv2d(name, x, codes, **geometry, **settings(shape, x, **more))

    x = conv("first", net.input, 7, 6, 3, 2, padding=(1, 0, 1, 1), stride=(1, 2))
    x = conv("whole", x, 6, 7, 1, 1, zero_point=0)
    x = conv("groups", x, 8, 3, 1, 1, groups=2)
    x = conv("depthwise", x, 8, 1, 3, 1, groups=8, padding=(1, 0))
    if rounding != "tflite":
        steps = Thresholds(np.sort(rng.integers(-4 << bits, 5 << bits, (5, 7)), axis=1), np.arange(5) % 2)
        x = conv("steps", x, 5, 8, 1, 1, scale=1.0, out=Grid(0.5, 3), thresholds=steps, bias=0.0, zero_point=0)
    flat = net.flatten("flat", x)
    shape = (4, np.prod(x.shape))
    codes = rng.integers(*signed_range(bits), shape, endpoint=True)
    net.linear("end", flat, codes, **settings(shape, flat, out=Grid(x.grid.scale / 99, 16, signed=True)))
    return net.build()


def tensors(network, array, seed=0):
    spec = network.manifest.input
    codes = np.random.default_rng(seed).integers(*spec.range, (3, *spec.shape), endpoint=True).astype(np.int16)
    trace = Datapath(network, WIDE, 8, array=array).execute(codes, keep=True)
    assert not any(counts.acc.any() or counts.post.any() for counts in trace.overflows.values())
    return trace.tensors


def unequal(network, array):
    wanted, found = tensors(network, "digit"), tensors(network, array)
    assert all(len(np.unique(tensor)) > 1 for tensor in wanted.values())
    return [name for name in wanted if not np.array_equal(wanted[name], found[name])]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("array", ["sign", "shift"])
def test_integers_in_parts_give_the_digit_arrays_results(samples, array, bits, signed):
    assert unequal(integers(samples, bits, signed=signed), array) == []


@pytest.mark.parametrize("activations", [1, 2, 4, 8])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_a_fused_array_gives_the_digit_arrays_results(samples, bits, activations):
    network = integers(samples, bits, signed=bool(bits % 2), activations=activations)
    assert unequal(network, "fusion") == []
    modes = {name: array_form(layer, "fusion").mode for name, layer in network.layers.items()}
    assert modes.pop("depthwise") == FUSION_MODES[0]
    assert modes["first"] == modes["whole"] == fusion_mode(activations, bits)


def test_aligned_layers_run_in_4x4_on_a_fused_array(samples):
    codes = np.random.default_rng(1).integers(-2, 2, (5, 6, 2, 3))
    net = start(samples, bits=2)
    grid = Grid(0.2, 2, align="shift", amounts=np.arange(6) % 3)
    mixed = np.random.default_rng(2).integers(-2, 2, (6, 6, 1, 1))
    x = net.conv2d("wide", net.input, mixed, bits=2, scale=5.0, out=grid)
    net.conv2d("conv", x, codes, bits=2, scale=0.1, out=Grid(0.2, 8, signed=True))
    network = net.build()
    assert array_form(network.layers["wide"], "fusion").mode == FusionMode(2, 2)
    form = array_form(network.layers["conv"], "fusion")
    assert (form.mode, form.bits, form.signed, form.exact_rows) == (FusionMode(4, 4), 2, True, False)
    assert unequal(network, "fusion") == []


@pytest.mark.parametrize(
    ("activations", "bits", "lanes", "streamed"),
    [
        # Channels 0 .. lanes - 1 of a step of two PEs, by PE: the first lane in the lowest bits.
        (4, 2, [1, -1, -2, 0], [0b1001, 0b0011]),
        (2, 4, [7, -8, -1, 3], [0xF7, 0x38]),
        (2, 3, [3, -4, -1, 2], [0xF3, 0x2C]),
        (2, 2, [1, -1, 0, 1, -2, 1, -1, 0], [0b11001001, 0b00010111]),
        (1, 1, [-1, 0, 0, 0, 0, 0, 0, -1], [0b00000011, 0b11000000]),
        (4, 4, [7, -8], [7, -8]),
    ],
)
def test_pes_hold_the_lanes_of_a_step(samples, activations, bits, lanes, streamed):
    net = start(samples, len(lanes), bits=activations)
    net.conv2d("conv", net.input, np.array(lanes).reshape(1, -1, 1, 1), bits=bits, scale=0.1, out=Grid(0.2, 8))
    form = array_form(net.build().layers["conv"], "fusion")
    assert form.pe_codes(np.array([lanes])).tolist() == [streamed]
    assert form.bits == {1: bits, 2: 2 * form.mode.w_bits, 4: 8}[form.mode.lanes]


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_rounding_is_that_of_the_digit_array(samples, rounding):
    network = integers(samples, 5, rounding)
    assert unequal(network, "shift") == []
    if rounding == "tflite":
        with pytest.raises(UnsupportedError, match=r'^first: tflite rounding .* must run on an engine with array = "d'):
            unequal(network, "sign")
    else:
        assert unequal(network, "sign") == []


def half_too_little(bits, fraction=1):
    planes = arrays.int_planes.genuine(bits, fraction)
    return planes._replace(zero=0)


def positive_top(bits, fraction=1):
    planes = arrays.int_planes.genuine(bits, fraction)
    return planes._replace(coefficients=np.abs(planes.coefficients))


def no_more(layer, fraction):
    return layer


def constants_stay(layer, fraction):
    return replace(arrays._finer.genuine(layer, fraction), bias=layer.bias)


def thresholds_stay(layer, fraction):
    return replace(arrays._finer.genuine(layer, fraction), thresholds=layer.thresholds)


def one_part_less(codes, bits):
    return signed_digit_passes(codes, bits)[:-1]


def all_positive(codes, bits):
    passes = signed_digit_passes(codes, bits)
    return np.where(passes >> 4 == 2, passes ^ 0x30, passes)


FAULTS = {
    "the half on top of the zero point is missing": ("sign", "int_planes", half_too_little),
    "the top plane is added": ("sign", "int_planes", positive_top),
    "no fraction bit is added to the constants": ("sign", "_finer", no_more),
    "the bias keeps its fraction bits": ("sign", "_finer", constants_stay),
    "thresholds keep their fraction bits": ("sign", "_finer", thresholds_stay),
    "the last part is left out": ("shift", "signed_digit_passes", one_part_less),
    "negative parts are positive": ("shift", "signed_digit_passes", all_positive),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(samples, monkeypatch, fault):
    array, name, faulty = FAULTS[fault]
    genuine = getattr(arrays, name)
    # What the fault is made of stays at hand, under the name that it takes.
    monkeypatch.setattr(faulty, "genuine", genuine, raising=False)
    monkeypatch.setattr(arrays, name, faulty)
    assert unequal(integers(samples, 6), array) != []


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_planes_of_integers_are_their_bits(samples, bits):
    rng = np.random.default_rng(bits)
    layer = layer_of(samples, rng.integers(*signed_range(bits), (5, 6, 2, 3), endpoint=True), bits=bits)
    form = array_form(layer, "sign")
    assert (form.planes, form.bits, form.signed, form.exact_rows) == (bits, 1, False, True)
    assert form.registers == {"part_top": bits - 1, "plane_top": bits - 1}
    assert np.array_equal(form.weights, 2 * form.codes.astype(int) - 1)
    # Twice a weight, a fraction bit more, is the sum of its planes and what the zero point takes away.
    weighed = (form.coefficients[:, :, None, None, None] * form.weights).sum(axis=0)
    half = (form.layer.zero - (layer.zero << 1))[:, None, None, None]
    assert np.array_equal(weighed - half, layer.codes.astype(int) << 1)
    assert form.fraction == 1
    assert array_form(layer, "digit").fraction == layer.node.fraction == 0


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_parts_of_integers_are_signed_powers_of_two(samples, bits):
    codes = np.arange(1 << bits).reshape(-1, 1, 1, 1) - (1 << (bits - 1))
    layer = layer_of(samples, np.repeat(codes, 6, axis=1), bits=bits)
    form = array_form(layer, "shift")
    assert np.array_equal(form.weights.sum(axis=0), layer.codes)
    magnitude = np.abs(form.weights)
    assert (magnitude & (magnitude - 1)).max() == 0
    assert form.registers == {"part_top": len(form.weights) - 1}
    assert len(form.weights) == (bits + 1) // 2
    assert (form.planes, form.coefficients, form.signed, form.exact_rows) == (1, None, False, True)
    assert form.codes.max() < 1 << form.bits


def streamed_weights(form):
    """Weights of codes as they stream, from the layout alone."""
    codes, registers = form.codes.astype(int), form.registers
    sign = np.array([0, -1, 1, 0])[codes & 3]
    if not registers.get("focused"):
        return sign << (codes >> 2)
    mean = [(-1 if registers[f"{name}_negative"] else 1) << registers[f"{name}_shift"] for name in ("minus", "plus")]
    value = (sign << (codes >> 3) + registers["value_shift"]) + np.array(mean)[codes >> 2 & 1]
    return np.where(codes & 3 == 0, 0, value)


@pytest.mark.parametrize("coding", ["raw", "huffman"])
def test_shift_codes_stream_with_what_they_say(samples, coding):
    rng = np.random.default_rng(2)
    plain = WeightCodes.shift(rng.choice((-1, 0, 1), (5, 6, 2, 1)), rng.integers(-9, 3, (5, 6, 2, 1)), coding=coding)
    focused = samples.focused(rng, 5, 6, 2, 1, coding=coding)
    for codes in (plain, focused):
        layer = layer_of(samples, codes)
        form = array_form(layer, "shift")
        assert np.array_equal(streamed_weights(form), layer.weights[None])
        assert np.array_equal(form.weights, layer.weights[None])
        assert (form.bits, form.fraction, form.coefficients) == (layer.node.weights.format.bits, 0, None)
        assert form.codes.max() < 1 << form.bits
        # Zeros, which stand in lanes without a weight, weigh nothing.
        empty = replace(form, codes=np.zeros_like(form.codes))
        assert not streamed_weights(empty).any()


def test_an_integer_streams_as_its_parts(samples):
    layer = layer_of(samples, np.random.default_rng(1).integers(-128, 128, (5, 6, 1, 1)), bits=8)
    form = array_form(layer, "shift")
    assert np.array_equal(streamed_weights(form), form.weights)


def test_planes_of_bases_and_networks_are_their_signs_and_coefficients(samples):
    rng = np.random.default_rng(3)
    bits = rng.choice((-1, 1), (6, 5, 6, 1, 2))
    coefs = rng.integers(-999, 999, (6, 5))
    basis = layer_of(samples, WeightCodes.basis(bits, coefs, 7))
    form = array_form(basis, "sign")
    assert np.array_equal(form.weights, bits)
    assert np.array_equal(form.coefficients, coefs)
    assert (form.fraction, form.registers) == (7, {"part_top": 5, "plane_top": 5})
    assert np.array_equal(form.layer.zero, basis.zero)
    network = XorNetwork.random(12, 10, 2, 4)
    encrypted = layer_of(samples, WeightCodes.encrypt(bits[:1], [network], np.ones((1, 5), int)))
    assert np.array_equal(array_form(encrypted, "sign").codes, encrypted.planes)
    assert array_form(encrypted, "sign").registers == {"part_top": 0, "plane_top": 0}


def test_a_digit_array_takes_whole_codes_and_their_digits(samples):
    layer = layer_of(samples, np.random.default_rng(1).integers(-16, 16, (5, 6, 1, 1)), bits=5, zero_point=0.5)
    form = array_form(layer, "digit")
    assert np.array_equal(form.codes, layer.codes[None])
    assert form.weights is layer.digits
    assert (form.bits, form.signed, form.exact_rows, form.planes, form.registers) == (5, True, False, 1, {})
    assert form.fraction == layer.node.fraction > 0


@pytest.mark.parametrize("array", SCHEMES)
def test_every_scheme_runs_on_the_arrays_that_say_so(samples, array):
    engine = EngineConfig(array=array)
    rng = np.random.default_rng(0)
    made = {
        "int": rng.integers(-8, 8, (5, 6, 1, 1)),
        "shift": WeightCodes.shift(rng.choice((-1, 1), (5, 6, 1, 1)), rng.integers(0, 3, (5, 6, 1, 1))),
        "focused": samples.focused(rng, 5, 6, 1, 1),
        "basis": WeightCodes.basis(rng.choice((-1, 1), (2, 5, 6, 1, 1)), np.array([2, 1])),
        "xor": WeightCodes.encrypt(
            rng.choice((-1, 1), (1, 5, 6, 1, 1)), [XorNetwork.random(8, 9, 2, 1)], np.array([1])
        ),
    }
    for scheme, codes in made.items():
        net = start(samples)
        net.conv2d("conv", net.input, codes, bits=4 if scheme == "int" else None, scale=0.1, out=Grid(0.1, 8))
        network = net.build()
        if scheme in SCHEMES[array]:
            layer = lower(network, engine)[1]
            form = array_form(network.layers["conv"], array)
            assert form.registers.items() <= layer.registers.items()
            assert layer.planes == form.planes
            continue
        able = next(name for name, schemes in SCHEMES.items() if scheme in schemes)
        message = f'^conv: scheme {scheme} must run on an engine with array = "{able}", not array = "{array}"$'
        with pytest.raises(UnsupportedError, match=message):
            lower(network, engine)


def test_constants_that_a_sign_array_does_not_hold_are_refused(samples):
    layer = layer_of(samples, np.zeros((5, 6, 1, 1), int), bits=4, zero_point=0.5)
    one = array_form(layer, "sign")
    assert one.fraction == layer.node.fraction
    high = (1 << 15) - 1 - int(one.layer.zero[0] - layer.zero[0])
    array_form(replace(layer, zero=np.full(5, high)), "sign")
    with pytest.raises(
        UnsupportedError, match=r"^conv: zero-point constants must lie in -32768\.\.32767 on a sign arr"
    ):
        array_form(replace(layer, zero=np.full(5, high + 1)), "sign")
    array_form(replace(layer, zero=np.full(5, 32767)), "digit")

    whole = layer_of(samples, np.zeros((5, 6, 1, 1), int), bits=4)
    deep = replace(whole, scale=replace(whole.scale, shift=np.full(5, 61)))
    assert array_form(deep, "sign").layer.scale.shift.tolist() == [62] * 5
    deeper = replace(whole, scale=replace(whole.scale, shift=np.full(5, 62)))
    with pytest.raises(UnsupportedError, match=r"^conv: shifts must be at most 61 on a sign array, not 62$"):
        array_form(deeper, "sign")
    assert array_form(deeper, "shift").layer is deeper


@pytest.mark.parametrize(("array", "more"), [("digit", 0), ("shift", 0), ("sign", 16)])
def test_constants_are_held_in_the_bits_of_the_corrected_value(samples, array, more):
    layer = layer_of(samples, np.zeros((5, 6, 1, 1), int), bits=4)
    fmt = MacFormat(acc=12)
    low, high = signed_range(12 + more)
    form = array_form(layer, array)
    assert form.corrected_bits(fmt) == 12 + more
    bias = np.array([low - 1, low, 0, high, high + 1])
    thresholds = np.array([[low - 5, 3, high + 1]] * 5)
    form = replace(form, layer=replace(form.layer, bias=bias, thresholds=thresholds))
    held = form.held(fmt)
    assert held.bias.tolist() == [low, low, 0, high, high]
    assert held.thresholds.tolist() == [[low, 3, high]] * 5
    assert form.clipped_constants(fmt) == 2 + 10
    assert form.clipped_constants(MacFormat(acc=20)) == 0


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("int4", "digit"),
        ("w4a4", "digit"),
        ("shift5", "shift"),
        ("focused5", "shift"),
        ("xor0.8", "sign"),
        ("basis2", "sign"),
    ],
)
def test_the_default_engine_has_an_array_that_runs_the_network(name, array):
    engine = default_engine(load(FOLDER / f"digits-{name}.gw"))
    assert engine == EngineConfig(array=array)


def test_where_no_array_runs_all_layers_the_default_engine_names_the_first_that_is_wrong(samples):
    network = samples.schemes().build()
    assert default_engine(network) == EngineConfig()
    with pytest.raises(UnsupportedError, match=r"^shift_raw: scheme shift must run on"):
        compile_network(network)


def wide_network(bits=16, weight_bits=16, zero_point=-32768):
    """A layer that makes `bits`-bit activations, and one that reads them with weights of `weight_bits`, padded."""
    rng = np.random.default_rng(bits * weight_bits)
    spec = InputSpec(shape=(3, 4, 5), bits=8, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("wide", spec)
    grid = Grid(2.0 ** (18 - bits), bits, signed=bits > 8, zero_point=zero_point)
    first = rng.integers(-128, 128, (5, 3, 2, 2))
    x = net.conv2d("first", net.input, first, bits=8, scale=1.0, out=grid, bias=2.0**16)
    low = -(1 << weight_bits - 1)
    codes = rng.integers(low, -low, (4, 5, 3, 3))
    codes[0, :, 0, 0] = low, -low - 1, low, 0, -1
    net.conv2d(
        "second", x, codes, bits=weight_bits, scale=1.0, out=Grid(2.0 ** (weight_bits + 8), 16, signed=True),
        padding=1, zero_point=rng.integers(-99, 99, 4), bias=rng.normal(0, 2.0**24, 4),
    )  # fmt: skip
    return net.build()


WIDE_ENGINE = EngineConfig(rows=4, lanes=4, operand_bits=16, mac=MacFormat(acc=48))


@pytest.mark.parametrize(
    ("bits", "weight_bits", "zero_point"),
    [(16, 16, -32768), (16, 9, 77), (12, 16, -5), (9, 11, 0), (8, 16, 3), (16, 3, 9)],
)
def test_operands_of_more_than_8_bits_give_the_exact_sums(bits, weight_bits, zero_point):
    network = wide_network(bits, weight_bits, zero_point)
    codes = np.random.default_rng(1).integers(0, 256, (3, 3, 4, 5)).astype(np.int16)
    found = network.run(ImageSet(codes, coded=True), WIDE_ENGINE, trace=True)
    layer = network.layers["second"]
    x = np.pad(found.tensors["first"].astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=zero_point)
    assert x.max() - x.min() > 1 << bits - 2
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    acc = np.einsum("nihwyx,oiyx->nohw", windows, layer.weights.astype(np.int64))
    sums = windows.sum(axis=(1, 4, 5))[:, None]
    values = (acc << layer.node.fraction) - layer.zero[:, None, None] * sums + layer.bias[:, None, None]
    unit = ScaleRequantizer(56, layer.node.requant.multiplier_bits, "half_even", 16, True)
    wanted, _ = unit.compute(values, layer.scale.multiplier, layer.scale.shift, 0, -32768, 32767)
    assert np.array_equal(found.tensors["second"], wanted)
    assert np.abs(wanted).max() > 500
    assert sum(found.overflow(kind) for kind in ("product", "align", "acc", "post")) == 0


def test_wide_weights_meet_activations_of_their_own_widths():
    """Words without an upper activation digit take as many passes of weight digits as the others."""
    rng = np.random.default_rng(4)
    spec = InputSpec(shape=(3, 4, 5), bits=8, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("mixed", spec)
    grid = Grid(40.0, 8, widths=np.array([8, 8, 7, 6, 4, 4, 3, 2, 1, 4]))
    x = net.conv2d("first", net.input, rng.integers(-8, 8, (10, 3, 1, 1)), bits=4, scale=1.0, out=grid)
    codes = rng.integers(-(1 << 14), 1 << 14, (4, 10, 2, 2))
    net.conv2d("second", x, codes, bits=15, scale=1.0, out=Grid(40.0 * 2.0**12, 16, signed=True))
    network = net.build()
    codes = rng.integers(0, 256, (3, 3, 4, 5)).astype(np.int16)
    registers = next(each.registers for each in lower(network, WIDE_ENGINE) if each.name == "second")
    assert (registers["part_top"], registers["a_top"], registers["wide_end"]) == (1, 1, 1)
    found = network.run(ImageSet(codes, coded=True), WIDE_ENGINE, trace=True).tensors
    windows = np.lib.stride_tricks.sliding_window_view(found["first"].astype(np.int64), (2, 2), axis=(2, 3))
    layer = network.layers["second"]
    values = np.einsum("nihwyx,oiyx->nohw", windows, layer.weights.astype(np.int64))
    unit = ScaleRequantizer(56, layer.node.requant.multiplier_bits, "half_even", 16, True)
    wanted, _ = unit.compute(values, layer.scale.multiplier, layer.scale.shift, 0, -32768, 32767)
    assert np.array_equal(found["second"], wanted)
    assert np.abs(wanted).max() > 100


def test_two_bytes_stream_as_two_signed_codes():
    layer = wide_network().layers["second"]
    form = array_form(layer, "digit")
    low, high = form.codes.astype(np.int64)
    assert (256 * high + low % 256 == layer.codes).all()
    assert -128 <= form.codes.min() < form.codes.max() <= 127
    assert (form.bits, form.registers, len(form.weights)) == (8, {"part_top": 1}, 4)
    lowered = next(each for each in lower(wide_network(), WIDE_ENGINE) if each.name == "second")
    wanted = {"part_top": 1, "w_top": 1, "a_top": 3, "container": 3, "pad_code": 0x8000}
    assert {name: lowered.registers[name] for name in wanted} == wanted
    planes = schedule(wide_network(), WIDE_ENGINE).memory.tensors["first"].planes
    strides = lowered.registers["plane_stride"], lowered.registers["pair_stride"]
    assert strides == (planes[1] - planes[0], planes[2] - planes[0])


@pytest.mark.parametrize("array", ["digit", "sign", "shift"])
def test_an_engine_of_8_bits_names_the_one_that_runs_wide_operands(array):
    for network, what in ((wide_network(8, 12, 0), "weights of 12"), (wide_network(12, 4, 0), "activations of 12")):
        with pytest.raises(UnsupportedError) as error:
            lower(network, EngineConfig(rows=4, lanes=4, array=array))
        assert str(error.value) == (
            f'second: {what} bits must run on an engine with array = "digit" and operand_bits = 16, '
            f'not array = "{array}" and operand_bits = 8'
        )


def test_without_an_engine_wide_operands_have_one_of_16_bits():
    assert default_engine(wide_network(12, 4, 0)) == EngineConfig(operand_bits=16)
    assert default_engine(wide_network(8, 9, 0)) == EngineConfig(operand_bits=16)


def test_what_could_overflow_is_refused_with_the_widths_that_would_do():
    network = wide_network()
    bounds = layer_bounds(array_form(network.layers["second"], "digit"), network.values["first"].codes)
    product, align, acc = bounds.needs
    assert (product, align) == (8, 9)
    assert 32 < acc <= 48
    lower(network, WIDE_ENGINE.with_mac(MacFormat(8, 9, acc)))
    for mac in (MacFormat(8, 9, acc - 1), MacFormat(7, 9, acc), MacFormat(8, 8, acc), MacFormat()):
        with pytest.raises(UnsupportedError) as error:
            lower(network, WIDE_ENGINE.with_mac(mac))
        assert str(error.value) == (
            "second: with operands of more than 8 bits nothing may overflow, whatever the image: mac must have "
            f"product >= 8, align >= 9 and acc >= {acc}, not {mac.product}, {mac.align} and {mac.acc}"
        )


def test_wide_activations_meet_integers_alone(samples):
    net = start(samples)
    x = net.requantise("wide", net.input, out=Grid(1.0, 16, signed=True))
    with pytest.raises(UnsupportedError, match="activations of a layer of scheme basis must have 1 to 8 bits, not 16"):
        net.conv2d("a", x, WeightCodes.basis(np.ones((1, 2, 6, 1, 1), int), np.ones(1)), scale=1.0, out=Grid(1.0, 8))
