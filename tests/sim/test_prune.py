"""Channels that do not depend on the image are taken out, and nothing else changes."""

import inspect

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, InputSpec, MacFormat, NetworkBuilder, load
from gatewise.sim import prune
from gatewise.sim.compile import compile_network
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet
from gatewise.sim.prune import constant_channels, without_pruned
from gatewise.sim.run import run

SHAPE = (3, 9, 8)


def network(
    *, padding=0, zero_point=2, bias=0.0, coding="raw", pool=False, flat=False, thresholds=None, groups=1, align=None
):
    """Two layers; of the first one's 6 channels the second, third and last have only zero weights."""
    rng = np.random.default_rng(1)
    spec = InputSpec(shape=SHAPE, bits=4, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("pruned", spec)
    first = rng.integers(-7, 8, (6, 3, 3, 3))
    first[[1, 2, 5]] = 0
    amounts = np.arange(6) % 3 if align else None
    out = Grid(8.0, 4, zero_point=zero_point, align=align, amounts=amounts)
    biases = np.array([0, bias, -bias, 3.0, -2.0, 0]) * 8
    x = net.conv2d("first", net.input, first, bits=4, scale=0.5, out=out, bias=biases, padding=1, coding=coding)
    if pool:
        x = net.max_pool("pool", x, 2, padding=1)
        x = net.average_pool("mean", x, 2, 1)
    second = Grid(64.0, 16, signed=True)
    if flat:
        x = net.flatten("flat", x)
        codes = rng.integers(-7, 8, (5, x.shape[0]))
        net.linear("second", x, codes, bits=4, scale=0.5, out=second, zero_point=rng.integers(-3, 4, 5), coding=coding)
    else:
        codes = rng.integers(-7, 8, (5 if groups == 1 else 6, 6 // groups, 3, 2))
        net.conv2d(
            "second", x, codes, bits=4, scale=0.5, out=second, padding=padding, groups=groups,
            zero_point=rng.uniform(-3, 3, len(codes)), coding=coding,
        )  # fmt: skip
    return net.build()


def images():
    return ImageSet(np.random.default_rng(2).integers(0, 16, (3, *SHAPE)).astype(np.int16), coded=True)


CASES = {
    "unpadded, any code": {"bias": 1.0},
    "padded, the zero point": {"padding": (1, 1)},
    "coded": {"bias": 1.0, "coding": "huffman"},
    "behind pools": {"bias": 1.0, "pool": True},
    "flattened": {"bias": 2.0, "flat": True},
    "aligned": {"bias": 1.0, "align": "shift"},
}


@pytest.mark.parametrize("case", CASES)
def test_constant_channels_go_and_the_result_stays(case):
    whole = network(**CASES[case])
    pruned = without_pruned(whole)
    assert pruned.node("first").channels == 3
    assert 2 * pruned.layers["second"].shape.in_channels == whole.layers["second"].shape.in_channels
    assert np.array_equal(run(pruned, images()).codes, run(whole, images()).codes)
    assert run(pruned, images()).cycles_per_image <= run(whole, images()).cycles_per_image


def test_a_channel_that_padding_would_break_stays():
    whole = network(padding=1, bias=1.0)
    constant, codes = constant_channels(whole.layers["first"])
    assert constant.tolist() == [False, True, True, False, False, True]
    assert (codes[constant] == 2).tolist() == [False, False, True]
    pruned = without_pruned(whole)
    assert pruned.node("first").channels == 5
    assert np.array_equal(run(pruned, images()).codes, run(whole, images()).codes)


def test_where_nothing_can_go_the_network_is_the_same():
    groups = network(groups=2)
    assert without_pruned(groups) is groups
    pruned = without_pruned(network(bias=1.0))
    assert without_pruned(pruned) is pruned


def test_one_channel_stays_of_a_layer_that_is_all_zeros():
    spec = InputSpec(shape=SHAPE, bits=4, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("zeros", spec)
    x = net.conv2d("first", net.input, np.zeros((4, 3, 1, 1), dtype=int), bits=4, scale=1.0, out=Grid(1.0, 4), bias=3.0)
    net.conv2d("second", x, np.ones((2, 4, 1, 1), dtype=int), bits=4, scale=1.0, out=Grid(1.0, 8))
    pruned = without_pruned(net.build())
    assert pruned.node("first").channels == 1
    assert (run(pruned, images()).codes == 12).all()


def test_a_pruned_network_is_saved_and_compiled_like_any_other(tmp_path):
    whole = network(bias=1.0)
    pruned = without_pruned(whole)
    save_network(pruned, tmp_path / "pruned.gw")
    assert np.array_equal(run(load(tmp_path / "pruned.gw"), images()).codes, run(whole, images()).codes)
    engine = EngineConfig(rows=4, lanes=4, pixels=16, act_bytes=4096, mac=MacFormat())
    assert compile_network(pruned, engine).payload_bytes < compile_network(whole, engine).payload_bytes


def test_the_command_line_prunes_what_it_runs_and_compiles(tmp_path):
    from gatewise.cli.app import app
    from typer.testing import CliRunner

    save_network(network(bias=1.0), tmp_path / "whole.gw")
    sizes = []
    for options in ([], ["--prune"]):
        image = tmp_path / f"{len(options)}.bin"
        done = CliRunner().invoke(app, ["compile", str(tmp_path / "whole.gw"), "-o", str(image), *options])
        assert done.exit_code == 0, done.output
        sizes.append(image.stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("old", "new", "case"),
    [
        ("* layer.factors[gone].astype(np.int64)", "", "aligned"),
        ("<< layer.node.fraction", "<< 0", "unpadded, any code"),
        ("- layer.zero * int(constants.sum()) * taps", "", "unpadded, any code"),
        ("int(constants.sum()) * taps", "int(constants.sum())", "unpadded, any code"),
        ("np.repeat(codes, reader.features)", "np.tile(codes, reader.features)", "flattened"),
        ("goes &= codes == node.out.zero_point", "goes &= True", "padding"),
    ],
)
def test_a_planted_fault_is_found(old, new, case):
    source = inspect.getsource(prune)
    assert source.count(old) == 1
    names = dict(vars(prune))
    exec(compile(source.replace(old, new), "planted", "exec"), names)
    whole = network(padding=1, bias=1.0) if case == "padding" else network(**CASES[case])
    pruned = names["without_pruned"](whole)
    assert not np.array_equal(run(pruned, images()).codes, run(whole, images()).codes)


def test_bit_operations_are_those_of_the_channels_that_are_left():
    whole = network(bias=1.0)
    result = run(whole, images())
    sizes = [(9 * 8 * 6 * 3 * 9, 4, 4), (7 * 7 * 5 * 6 * 6, 4, 4)]
    assert result.bops == sum(macs * w * a for macs, w, a in sizes)
    assert run(without_pruned(whole), images()).bops == (sizes[0][0] // 2 + sizes[1][0] // 2) * 16
    layers = {layer["name"]: layer["bops"] for layer in result.to_json()["layers"]}
    assert layers["first"] == sizes[0][0] * 16
