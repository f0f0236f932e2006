"""Channels of 0 to 8 bits: in the file, in the results, and what a damaged file says of them."""

from dataclasses import replace

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, InputSpec, MacFormat, NetworkBuilder, WeightCodes, load
from gatewise.kernels.errors import FormatError, UnsupportedError
from gatewise.kernels.requant import CONSTANT
from gatewise.sim.compile import compile_network
from gatewise.sim.file import payload_digest, save_network
from gatewise.sim.images import ImageSet
from gatewise.sim.inspect import inspect_file, spread
from gatewise.sim.network import Network
from gatewise.sim.prune import constant_channels, without_pruned
from gatewise.sim.random_weights import draw_widths
from gatewise.sim.run import run

SHAPE = (5, 6, 7)
ENGINE = EngineConfig(rows=4, lanes=4, pixels=16, post_lanes=2, act_bytes=1 << 16, mac=MacFormat(align=24, acc=44))


def images(count=2):
    return ImageSet(np.random.default_rng(2).integers(0, 256, (count, *SHAPE)).astype(np.int16), coded=True)


def codes_of(rng, widths, *rest):
    ends = np.where(widths > 0, 1 << np.maximum(widths - 1, 0), 0).reshape(-1, *[1] * len(rest))
    return rng.integers(-ends, np.maximum(ends, 1), (len(widths), *rest))


def parts(seed=1):
    """Widths and codes of two layers, and the widths of the tensor between them."""
    rng = np.random.default_rng(seed)
    first, second, middle = draw_widths(rng, 13, 8), draw_widths(rng, 9, 8), draw_widths(rng, 13, 8)
    return first, second, middle, codes_of(rng, first, 5, 3, 3), codes_of(rng, second, 13, 3, 3)


def network(*, mixed=True, coding="raw", signed=False, seed=1, middle=None, flat=False, bits=8):
    """Two layers of mixed widths with a tensor of mixed widths between; `mixed` false: the same codes at 8 bits."""
    first, second, between, one, two = parts(seed)
    rng = np.random.default_rng(seed)
    spec = InputSpec(shape=SHAPE, bits=8, scale=1.0, mean=(0.0,) * 5, std=(1.0,) * 5)
    net = NetworkBuilder("widths", spec)
    out = Grid(8.0, bits, signed)
    if bits == 8:
        out = replace(out, widths=between if middle is None else middle)
    scale = 2.0 ** (rng.integers(-4, 1, 13) - 4)
    x = net.conv2d("first", net.input, WeightCodes.integer(one, first if mixed else 8, coding=coding), scale=scale,
                   out=out, padding=1, bias=rng.normal(0, 100, 13))  # fmt: skip
    if flat:
        x = net.flatten("flat", net.max_pool("pool", x, 2))
        two = np.resize(two, (9, x.shape[0]))
        two = np.clip(two, -(1 << np.maximum(second - 1, 0))[:, None], ((1 << np.maximum(second - 1, 0)) - 1)[:, None])
        net.linear("second", x, WeightCodes.integer(two, second if mixed else 8), scale=0.5,
                   out=Grid(64.0, 16, signed=True))  # fmt: skip
    else:
        net.conv2d("second", x, WeightCodes.integer(two, second if mixed else 8, coding=coding), scale=0.5, padding=1,
                   out=Grid(64.0, 16, signed=True), zero_point=rng.normal(0, 3, 9))  # fmt: skip
    return net.build()


@pytest.mark.parametrize("coding", ["raw", "huffman"])
def test_a_file_holds_each_channel_at_its_own_width(tmp_path, coding):
    built = network(coding=coding)
    save_network(built, tmp_path / "w.gw")
    found = load(tmp_path / "w.gw")
    first, second, middle, one, two = parts()
    for name, widths, codes in (("first", first, one), ("second", second, two)):
        layer = found.layers[name]
        assert layer.codes.tolist() == codes.tolist()
        assert layer.row_widths.tolist() == widths.tolist()
        assert layer.node.weights.widths
        assert layer.node.weights.bits == widths.max()
        if coding == "raw":
            assert len(found.arrays[f"{name}.weight"]) == -(-int(widths.sum()) * codes[0].size // 8)
    assert found.widths["first"].tolist() == middle.tolist()
    assert found.layers["second"].lane_widths.tolist() == middle.tolist()
    assert found.layers["first"].fewer.tolist() == np.where(middle == 0, CONSTANT, 8 - middle).tolist()


@pytest.mark.parametrize("coding", ["raw", "huffman"])
@pytest.mark.parametrize("signed", [False, True])
def test_the_result_is_that_of_the_same_codes_at_one_width_where_nothing_overflows(coding, signed):
    cycles = np.zeros(2, dtype=np.int64)
    for seed in range(6):
        own = run(network(coding=coding, signed=signed, seed=seed), images(), ENGINE, trace=True)
        same = run(network(mixed=False, signed=signed, seed=seed), images(), ENGINE, trace=True)
        assert not own.overflow("acc")
        assert np.array_equal(own.codes, same.codes)
        assert np.array_equal(own.tensors["first"], same.tensors["first"])
        cycles += own.cycles_per_image, same.cycles_per_image
    assert cycles[0] < cycles[1]


@pytest.mark.parametrize("signed", [False, True])
def test_each_channel_of_a_tensor_keeps_to_its_own_codes(signed):
    found = run(network(signed=signed), images(), ENGINE, trace=True).tensors["first"]
    whole = run(network(signed=signed, middle=np.full(13, 8)), images(), ENGINE, trace=True).tensors["first"]
    widths = parts()[2]
    assert len(set(widths.tolist())) > 3
    for channel, bits in enumerate(widths.tolist()):
        low, high = (-(1 << bits >> 1), (1 << max(bits, 1) - 1) - 1) if signed else (0, (1 << bits) - 1)
        assert np.array_equal(found[:, channel], np.clip(whole[:, channel], low, high if bits else 0))


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_channels_that_are_all_narrow_run_as_a_narrow_tensor_does(overflow):
    engine = ENGINE.model_copy(update={"mac": MacFormat(product=7, align=8, acc=14, overflow=overflow)})
    found = run(network(middle=np.full(13, 4)), images(), engine)
    narrow = run(network(middle=None, bits=4), images(), engine)
    assert found.overflow("acc") == narrow.overflow("acc") > 0
    assert np.array_equal(found.codes, narrow.codes)
    assert [layer.compute for layer in found.layers] == [layer.compute for layer in narrow.layers]


def test_weights_of_16_bits_meet_words_of_one_digit(monkeypatch):
    engine = ENGINE.model_copy(update={"operand_bits": 16, "mac": MacFormat(align=24, acc=48)})
    rng = np.random.default_rng(7)
    net = NetworkBuilder("wide", InputSpec(shape=SHAPE, bits=8, scale=1.0, mean=(0.0,) * 5, std=(1.0,) * 5))
    out = Grid(8.0, 8, signed=True, widths=np.repeat([3, 8, 4], 4))
    x = net.conv2d("first", net.input, rng.integers(-128, 128, (12, 5, 3, 3)), bits=8, scale=0.1, out=out)
    codes = rng.integers(-32768, 32768, (6, 12, 2, 2))
    net.conv2d("second", x, codes, bits=16, scale=0.1, out=Grid(2.0**14, 16, signed=True))
    built = net.build()
    found = run(built, images(), engine)
    assert found.lowered[2].registers["wide_end"] == 1
    monkeypatch.setattr("gatewise.sim.lower.width_values", lambda *_: {})
    built.compiled.clear()
    plain = run(built, images(), engine)
    assert np.array_equal(found.codes, plain.codes)
    assert len(np.unique(found.codes)) > 100
    assert found.cycles_per_image < plain.cycles_per_image


@pytest.mark.parametrize("array", ["sign", "shift"])
def test_arrays_without_digits_run_every_layer_at_its_greatest_width(array):
    engine = ENGINE.model_copy(update={"array": array, "mac": MacFormat(acc=40)})
    built = network(flat=True)
    assert np.array_equal(run(built, images(), engine).codes, run(built, images(), ENGINE).codes)
    layers = [layer for layer in compile_network(built, engine).layers if layer.op == "mac"]
    assert not any(layer.registers.get("rest_from") for layer in layers)


def test_widths_go_on_through_pools_views_and_concatenations():
    first, _, middle, one, _ = parts()
    net = NetworkBuilder("on", InputSpec(shape=SHAPE, bits=8, scale=1.0, mean=(0.0,) * 5, std=(1.0,) * 5))
    x = net.conv2d("a", net.input, WeightCodes.integer(one, first), scale=0.1, out=Grid(8.0, 8, widths=middle))
    y = net.conv2d("b", net.input, one[:3], bits=8, scale=0.1, out=Grid(8.0, 8))
    x = net.concat("join", [net.average_pool("mean", net.max_pool("max", x, 2, 1), 2, 1), net.max_pool("c", y, 3, 1)])
    x = net.flatten("flat", net.stride_slice("slice", net.channel_pad("pad", x, 2, 1), 2))
    net.linear("fc", x, np.ones((3, x.shape[0]), np.int64), bits=2, scale=1.0, out=Grid(99.0, 8))
    found = net.build().widths
    joined = [*middle.tolist(), 8, 8, 8]
    assert found["join"].tolist() == joined
    assert found["flat"].tolist() == np.repeat([0, 0, *joined, 0], x.shape[0] // 19).tolist()
    assert not {"b", "c", "fc"} & set(found)


def changed(built, **arrays):
    """The network with other arrays, their digest right."""
    new = dict(built.arrays) | {name.replace("__", "."): array for name, array in arrays.items()}
    return Network(built.manifest.model_copy(update={"payload_sha256": payload_digest(new)}), new)


def test_a_damaged_file_is_refused_by_name():
    built = network()
    first, _, middle, _, _ = parts()
    assert changed(built).layers
    nine = first.astype(np.uint8)
    nine[1] = 9
    with pytest.raises(FormatError, match="first: widths of weights must be from 0 to 8 bits, found 9"):
        changed(built, first__widths=nine)
    less = first.astype(np.uint8)
    less[first.argmax()] -= 1
    with pytest.raises(FormatError, match=r"first: 13 rows of 45 codes must be \d+ bytes of uint8 at their widths"):
        changed(built, first__widths=less)
    data = built.arrays["first.weight"]
    with pytest.raises(FormatError, match=r"first: 13 rows of 45 codes must be \d+ bytes .*, not uint8 of shape"):
        changed(built, first__weight=np.append(data, np.uint8(0)))
    with pytest.raises(FormatError, match=r"tensor 'first.widths' must be uint8 of shape \(13,\), not uint8 of shape"):
        changed(built, first__widths=nine[1:])
    with pytest.raises(FormatError, match="first: widths of channels must be from 0 to 8 bits, found 9"):
        changed(built, first__out_widths=np.where(middle == 8, 9, middle).astype(np.uint8))
    coded = network(coding="huffman")
    with pytest.raises(FormatError, match="first: 7-bit weight codes of output channel"):
        changed(coded, first__widths=np.minimum(first, 7).astype(np.uint8))
    spare = data.copy()
    spare[-1] |= 0x80
    assert int(first.sum()) * 45 % 8
    with pytest.raises(FormatError, match="first: the spare bits behind the last code must be 0"):
        changed(built, first__weight=spare)


def test_widths_that_a_layer_cannot_have_are_refused():
    codes, widths = np.zeros((3, 5, 1, 1), np.int64), np.array([4, 0, 8])

    def conv(weights=codes, **out):
        net = NetworkBuilder("w", InputSpec(shape=SHAPE, bits=8, scale=1.0, mean=(0.0,) * 5, std=(1.0,) * 5))
        return net.conv2d("a", net.input, weights, bits=8, scale=1.0, out=Grid(**{"scale": 1.0, "bits": 8} | out))

    conv(widths=widths)
    with pytest.raises(UnsupportedError, match="a: a tensor with widths of channels must have zero point 0, not 3"):
        conv(widths=widths, zero_point=3)
    with pytest.raises(UnsupportedError, match="a tensor with widths of channels must have 1 to 8 bits, not 16"):
        conv(widths=widths, bits=16, signed=True)
    with pytest.raises(FormatError, match=r"widths of channels must be whole numbers from 0 to 4, not \[4, 0, 8\]"):
        conv(widths=widths, bits=4)
    with pytest.raises(FormatError, match=r"widths of channels must have shape \(3,\), not \(2,\)"):
        conv(widths=widths[:2])
    with pytest.raises(FormatError, match=r"widths must be from 0 to 8 bits, found 0\.\.9"):
        WeightCodes.integer(codes, np.array([9, 0, 1]))
    one = codes.copy()
    one[2, 0] = 1
    with pytest.raises(FormatError, match=r"1-bit weight codes of output channel 2 must lie in -1\.\.0, found 0\.\.1"):
        WeightCodes.integer(one, np.array([8, 0, 1]))
    with pytest.raises(FormatError, match="codes of different widths must be signed"):
        WeightCodes.integer(codes, widths, signed=False)
    net = NetworkBuilder("w", InputSpec(shape=SHAPE, bits=8, scale=1.0, mean=(0.0,) * 5, std=(1.0,) * 5))
    for make in (
        lambda out: net.add("sum", net.input, net.input, out=out),
        lambda out: net.requantise("copy", net.input, out=out),
    ):
        with pytest.raises(FormatError, match="widths of channels must come with a convolution or linear layer"):
            make(Grid(1.0, 8, widths=np.full(5, 3)))


@pytest.mark.parametrize("coding", ["raw", "huffman"])
def test_a_run_says_what_mixed_widths_cost_and_save(coding):
    engine = ENGINE.model_copy(update={"decoder": coding})
    built = network(coding=coding, seed=3)
    result = run(built, images(), engine)
    first, second, middle, one, two = parts(3)
    load, *layers, store = result.to_json()["layers"]
    assert "mixed" not in load | store
    for layer in layers:
        mixed = layer["mixed"]
        widths, codes = (first, one) if layer["name"] == "first" else (second, two)
        assert mixed["weight_bits"] == widths.mean()
        assert mixed["activation_bits"] == (8 if layer["name"] == "first" else middle.mean())
        assert mixed["cycles"] == layer["cycles"] <= mixed["cycles_greatest"]
        assert mixed["bytes_read"] == layer["bytes_read"]
        bits = int(np.ceil(widths.mean()))
        assert mixed["stored_bytes_greatest"] == codes.size
        assert mixed["stored_bytes_mean"] == -(-codes.size * bits // 8)
        if coding == "raw":
            assert mixed["stored_bytes"] == len(widths) - (-int(widths.sum()) * codes[0].size // 8)
            assert mixed["bytes_read"] <= mixed["bytes_read_greatest"]
    if coding == "raw":
        # At the greatest width a layer is what its codes at 8 bits are.
        same = run(network(mixed=False, seed=3, middle=np.full(13, 8)), images(), ENGINE).layers[1:3]
        assert [layer["mixed"]["cycles_greatest"] for layer in layers] == [layer.total for layer in same]
    macs = {name: built.macs(built.node(name)) for name in ("first", "second")}
    assert result.bops == round(macs["first"] * first.mean() * 8 + macs["second"] * second.mean() * middle.mean())


def test_a_layer_of_one_width_says_nothing_of_them(samples):
    layers = run(samples.small().build(), np.zeros((1, 3, 12, 12), np.uint8)).to_json()["layers"]
    assert not any("mixed" in layer for layer in layers)


def test_an_inspection_counts_channels_by_their_widths(tmp_path):
    save_network(network(), tmp_path / "w.gw")
    first, second, middle, _, _ = parts()
    layers = inspect_file(tmp_path / "w.gw").to_json()["layers"]
    assert [layer["weight_widths"] for layer in layers] == [
        np.bincount(widths, minlength=9).tolist() for widths in (first, second)
    ]
    assert [layer["widths"] for layer in layers] == [np.bincount(middle, minlength=9).tolist(), None]
    assert [spread(layer["weight_widths"]) for layer in layers] == [
        f"{widths.min()}..{widths.max()}" for widths in (first, second)
    ]
    assert (spread([0, 0, 0, 5, 0]), spread(None)) == ("3", "")


@pytest.mark.parametrize("coding", ["raw", "huffman"])
def test_channels_of_0_bits_go_where_channels_are_pruned(coding):
    middle = parts()[2].copy()
    middle[[1, 5]] = 0
    built = network(coding=coding, middle=middle)
    found = run(built, images(), ENGINE, trace=True)
    assert not found.tensors["first"][:, middle == 0].any()
    # Padding feeds the zero point, which is all that such a channel ever is.
    less = without_pruned(built, ENGINE)
    stays, _ = constant_channels(built.layers["first"])
    stays = ~(stays & (found.tensors["first"] == 0).all(axis=(0, 2, 3)))
    assert not stays[middle == 0].any()
    assert less.widths["first"].tolist() == middle[stays].tolist()
    assert less.layers["first"].row_widths.tolist() == parts()[0][stays].tolist()
    pruned = run(less, images(), ENGINE, whole=built)
    assert np.array_equal(pruned.codes, found.codes)
    assert pruned.before.cycles == found.cycles_per_image
