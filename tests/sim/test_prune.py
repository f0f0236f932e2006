"""Channels that do not depend on the image are taken out, and nothing else changes."""

import inspect

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, InputSpec, MacFormat, NetworkBuilder, UnsupportedError, load
from gatewise.sim import prune
from gatewise.sim.arrays import array_form
from gatewise.sim.bounds import layer_bounds
from gatewise.sim.compile import compile_network
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet
from gatewise.sim.prune import constant_channels, without_pruned
from gatewise.sim.report import run_summary
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


def test_channels_go_by_default_where_no_width_can_overflow():
    whole = network(bias=1.0)
    need = layer_bounds(array_form(whole.layers["second"], "digit"), whole.values["first"].codes)
    assert need.needs[0] == 8
    for product, goes in ((10, True), (8, True), (7, False)):
        engine = EngineConfig(rows=4, lanes=4, mac=MacFormat(product=product, acc=16))
        pruned = without_pruned(whole, engine)
        assert (pruned is not whole) == goes
        same = np.array_equal(run(pruned, images(), engine).codes, run(whole, images(), engine).codes)
        assert same


def test_where_a_width_overflows_pruning_would_change_the_result():
    """Two constant codes of 15 and weights of 127 are more than 12 bits hold."""
    net = NetworkBuilder("full", InputSpec(shape=SHAPE, bits=4, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3))
    first = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0]]).reshape(3, 3, 1, 1)
    x = net.conv2d("first", net.input, first, bits=2, scale=1.0, out=Grid(1.0, 4), bias=[0.0, 15.0, 15.0])
    second = np.array([-100, 127, 127]).reshape(1, 3, 1, 1)
    net.conv2d("second", x, second, bits=8, scale=1.0, out=Grid(1.0, 16, signed=True))
    whole, narrow = net.build(), EngineConfig(rows=4, lanes=4, mac=MacFormat(acc=12))
    assert without_pruned(whole, narrow) is whole
    unproved = run(without_pruned(whole), images(), narrow)
    assert not np.array_equal(unproved.codes, run(whole, images(), narrow).codes)
    assert without_pruned(whole, EngineConfig()).node("first").channels == 1


def test_a_channel_whose_own_bias_does_not_fit_stays():
    """The engine holds the nearest bias, whose code is another."""
    whole = network(bias=900.0)
    wide = EngineConfig(rows=4, lanes=4)
    assert without_pruned(whole, wide).node("first").channels == 3
    bounds = layer_bounds(array_form(whole.layers["first"], "digit"), whole.values["input"].codes)
    assert bounds.overflow(MacFormat(acc=12)) == "post"


def test_an_engine_that_does_not_run_the_network_says_so():
    with pytest.raises(UnsupportedError, match="an aligned layer must run on an engine with array"):
        without_pruned(network(align="shift"), EngineConfig(array="shift"))


def compiled_bytes(path, *options):
    from gatewise.cli.app import app
    from typer.testing import CliRunner

    image = path.parent / "image.bin"
    done = CliRunner().invoke(app, ["compile", str(path), "-o", str(image), *options])
    assert done.exit_code == 0, done.output
    return image.stat().st_size


def test_the_command_line_prunes_what_it_compiles_where_that_is_exact(tmp_path):
    save_network(network(bias=1.0), tmp_path / "whole.gw")
    narrow = tmp_path / "narrow.toml"
    narrow.write_text("[mac]\nproduct = 7\n")
    default, never, always = (
        compiled_bytes(tmp_path / "whole.gw", *each) for each in ([], ["--no-prune"], ["--prune"])
    )
    assert default == always < never
    options = (["--engine", narrow], ["--engine", narrow, "--no-prune"], ["--engine", narrow, "--prune"])
    default, never, always = (compiled_bytes(tmp_path / "whole.gw", *map(str, each)) for each in options)
    assert always < never == default


def test_a_run_says_what_was_taken_out_and_what_it_cost(tmp_path):
    whole = network(bias=1.0)
    pruned = without_pruned(whole)
    result, all_of_it = run(pruned, images(), whole=whole), run(whole, images())
    assert all_of_it.before is None
    assert all_of_it.to_json()["pruned"] is None
    assert result.to_json()["pruned"] == {
        "channels": {"first": 3},
        "bops_before": all_of_it.bops,
        "cycles_before": all_of_it.cycles_per_image,
        "bytes_read_before": all_of_it.bytes_read,
    }
    # The paper's formula with the shares that are kept, and the MACs that are left.
    assert result.bops == sum(layer.macs * layer.weight_bits * 4 for layer in result.layers)
    assert result.relative_bops == result.bops / all_of_it.bops * 16 / 1024
    text = "\n".join(run_summary(result))
    assert "taken out: first 3" in text
    assert f"{all_of_it.cycles_per_image:,} cycles with them, {result.cycles_per_image:,} without" in text
    small = EngineConfig(rows=4, lanes=4, act_bytes=1024)
    tight = run(pruned, images(), small, whole=whole)
    assert tight.before.cycles is tight.before.bytes_read is None
    assert "with them the network does not fit the engine" in "\n".join(run_summary(tight))


def test_tensors_are_dumped_as_the_file_has_them(tmp_path):
    from gatewise.cli.app import app
    from typer.testing import CliRunner

    save_network(network(bias=1.0), tmp_path / "whole.gw")
    np.savez(tmp_path / "images.npz", codes=images().images)
    for options, channels in ([], 6), (["--prune"], 3):
        dump = tmp_path / "dump.npz"
        arguments = [str(tmp_path / "whole.gw"), str(tmp_path / "images.npz"), "--dump-layers", str(dump)]
        done = CliRunner().invoke(app, ["run", *arguments, *options])
        assert done.exit_code == 0, done.output
        assert np.load(dump)["first"].shape[1] == channels


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
