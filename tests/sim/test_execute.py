"""Whole networks through `gatewise.sim.execute`, against the plain model in ``reference.py``."""

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, MacFormat, NetworkBuilder
from gatewise.sim import execute as execution
from gatewise.sim.execute import Datapath
from gatewise.sim.images import ImageSet, quantise_images

KINDS = ("product", "align", "acc", "post")


def input_codes(samples, network, count=3):
    return quantise_images(ImageSet(samples.pixels(network, count)), network.manifest.input)


def assert_same(trace, tensors, counts):
    assert trace.tensors.keys() == tensors.keys()
    for name, codes in tensors.items():
        np.testing.assert_array_equal(trace.tensors[name], codes, err_msg=name)
    assert trace.overflows.keys() == counts.keys()
    for name, found in counts.items():
        for kind in KINDS:
            np.testing.assert_array_equal(getattr(trace.overflows[name], kind), found[kind], err_msg=f"{name} {kind}")


@pytest.fixture
def parts(samples, tmp_path):
    """Saves a builder's network and takes its file apart."""

    def save(net):
        path = tmp_path / "net.gw"
        return net.save(path), samples.read(path)

    return save


@pytest.mark.parametrize(("rounding", "bits"), [
    ("half_even", 24), ("half_up", 16), ("half_away", 31), ("floor", 24), ("tflite", 31),
])  # fmt: skip
@pytest.mark.parametrize("mac", [
    {},
    {"product": 7, "align": 8, "acc": 15},
    {"product": 6, "align": 8, "acc": 15, "overflow": "wrap"},
])  # fmt: skip
def test_every_tensor_and_overflow_equals_the_reference(samples, reference, parts, rounding, bits, mac):
    network, content = parts(samples.small(rounding, bits))
    codes = input_codes(samples, network)
    trace = Datapath(network, MacFormat(**mac), 4).execute(codes, keep=True)
    assert_same(trace, *reference.Model(content).run(codes, lanes=4, **mac))
    for name, tensor in trace.tensors.items():
        assert len(np.unique(tensor)) > 1, f"{name} must vary, or the comparison says nothing"


def test_narrow_widths_overflow_in_every_stage(samples, parts):
    network, _ = parts(samples.small())
    codes = input_codes(samples, network)
    found = Datapath(network, MacFormat(product=6, align=8, acc=15), 4).execute(codes).overflows.values()
    for kind in KINDS:
        assert sum(getattr(counts, kind).sum() for counts in found) > 0, kind


def test_tflite_saturations_to_32_bits_are_counted_in_the_post_lanes(samples, reference, parts):
    net = NetworkBuilder("wide", samples.input_spec((4, 2, 2), scale=1.0, zero_point=0), 31, "tflite")
    bias = np.array([0.0, 2.0**31 + 1000, -(2.0**31) - 1000])
    settings = {"bits": 4, "scale": 1.0, "bias": bias, "out": Grid(2.0**20, 16, signed=True)}
    net.conv2d("conv", net.input, samples.codes(np.random.default_rng(1), 4, 3, 4, 1, 1), **settings)
    network, content = parts(net)
    codes = input_codes(samples, network)
    trace = Datapath(network, MacFormat(acc=40), 16).execute(codes, keep=True)
    assert_same(trace, *reference.Model(content).run(codes, acc=40))
    assert trace.overflows["conv"].post.tolist() == [0, 12, 12]


def test_the_comparison_finds_one_changed_weight(samples, reference, parts):
    network, content = parts(samples.small())
    codes = input_codes(samples, network)
    content.arrays["down.weight"][0] ^= 0x77
    with pytest.raises(AssertionError, match="down"):
        assert_same(
            Datapath(network, MacFormat(), 4).execute(codes, keep=True), *reference.Model(content).run(codes, lanes=4)
        )


def test_the_comparison_finds_an_overflow_too_many(samples, reference, parts):
    network, content = parts(samples.small())
    codes = input_codes(samples, network)
    tensors, counts = reference.Model(content).run(codes, lanes=4, acc=15)
    counts["grouped"]["acc"][3] += 1
    with pytest.raises(AssertionError, match="grouped acc"):
        assert_same(Datapath(network, MacFormat(acc=15), 4).execute(codes, keep=True), tensors, counts)


@pytest.mark.parametrize("lanes", [4, 16, 64])
def test_lanes_do_not_change_a_bit_where_nothing_overflows(samples, reference, parts, lanes):
    network, content = parts(samples.small())
    codes = input_codes(samples, network)
    assert_same(
        Datapath(network, MacFormat(), lanes).execute(codes, keep=True), *reference.Model(content).run(codes, lanes=4)
    )


def test_the_unfolded_stem_equals_the_direct_one(samples, parts):
    network, _ = parts(samples.small())
    codes = input_codes(samples, network)
    direct = Datapath(network, MacFormat(), 16).execute(codes, keep=True)
    unfolded = Datapath(network, MacFormat(), 16, "stem").execute(codes, keep=True)
    assert_same(unfolded, direct.tensors, {n: {k: getattr(o, k) for k in KINDS} for n, o in direct.overflows.items()})


def test_unfolding_reorders_the_sums_where_the_accumulator_overflows(samples, parts):
    network, _ = parts(samples.small())
    codes = input_codes(samples, network)
    direct, unfolded = (
        Datapath(network, MacFormat(acc=15), 16, name).execute(codes).overflows["stem"] for name in (None, "stem")
    )
    assert direct.acc.sum() != unfolded.acc.sum()


def test_an_unfolded_stem_with_stride_dilation_and_uneven_padding_equals_the_direct_one(samples, parts):
    rng = np.random.default_rng(2)
    net = NetworkBuilder("stem", samples.input_spec((2, 9, 10), bits=4, zero_point=5, scale=0.3))
    weights = samples.codes(rng, 4, 5, 2, 2, 3)
    net.conv2d(
        "stem", net.input, weights, bits=4, scale=0.02, zero_point=0.5, stride=(1, 2), dilation=(2, 3),
        padding=(1, 3, 0, 2), out=Grid(0.05, 8, signed=True),
    )  # fmt: skip
    network, _ = parts(net)
    codes = input_codes(samples, network)
    direct, unfolded = (Datapath(network, MacFormat(), 8, name).execute(codes).result for name in (None, "stem"))
    np.testing.assert_array_equal(direct, unfolded)
    assert len(np.unique(direct)) > 2


def test_the_default_engine_unfolds_the_stem_and_finds_the_reference_result(samples, reference, parts):
    network, content = parts(samples.small())
    result = network.run(samples.pixels(network, 2), EngineConfig(), trace=True)
    assert result.plan.unfolded == "stem"
    tensors, _ = reference.Model(content).run(result.tensors["input"], lanes=16)
    np.testing.assert_array_equal(result.codes, tensors["classes"].reshape(2, -1))


def test_tensors_are_kept_only_on_demand(samples):
    network = samples.small().build()
    assert Datapath(network, MacFormat(), 16).execute(input_codes(samples, network)).tensors == {}


def test_a_tensor_is_dropped_after_its_last_reader_and_not_before(samples, monkeypatch):
    network = samples.small().build()
    held = []
    original = execution._plain
    monkeypatch.setattr(
        execution, "_plain", lambda n, node, sources: held.append(node.name) or original(n, node, sources)
    )
    trace = Datapath(network, MacFormat(), 16).execute(input_codes(samples, network))
    assert held == ["slice", "pad", "copy", "block", "max", "joined", "mean", "flat"]
    assert trace.result.shape == (3, 7, 1, 1)


@pytest.mark.parametrize("acc", [32, 12])
def test_a_linear_layer_on_a_flattened_map_is_the_convolution_over_the_map(samples, acc):
    rng = np.random.default_rng(4)
    codes = rng.integers(-3, 8, (7, 6, 3, 2))
    settings = {"bits": 4, "scale": 0.1, "zero_point": 1.5, "out": Grid(0.2, 16, signed=True)}
    nets = [NetworkBuilder("net", samples.input_spec((6, 3, 2), bits=4, zero_point=2)) for _ in range(2)]
    steps = Grid(nets[0].spec.scale, 4, zero_point=2, align="shift", amounts=np.arange(6) // 2)
    first, second = (net.requantise("steps", net.input, out=steps) for net in nets)
    nets[0].linear("last", nets[0].flatten("flat", first), codes.reshape(7, 36), **settings)
    nets[1].conv2d("last", second, codes, **settings)
    engine = EngineConfig(rows=4, lanes=4, mac=MacFormat(align=12, acc=acc))
    images = rng.integers(0, 256, (9, 6, 3, 2), dtype=np.uint8)
    linear, conv = (net.build().run(images, engine) for net in nets)
    assert np.array_equal(linear.codes, conv.codes)
    for kind in ("align", "acc", "post"):
        assert np.array_equal(getattr(linear.overflows["last"], kind), getattr(conv.overflows["last"], kind))
    assert (linear.overflow("acc") > 0) == (acc == 12)
    assert linear.layers[-2].total == conv.layers[-2].total
    assert linear.layers[-2].compute == 2 * 3 * 2 * 2  # two row groups, six pixels of the map, two words of lanes
