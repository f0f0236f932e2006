"""Sorted channels: the same function, fewer row groups and words with an upper digit, and nothing else touched."""

import importlib

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, InputSpec, MacFormat, NetworkBuilder, WeightCodes
from gatewise.sim.compile import compile_network
from gatewise.sim.execute import Datapath
from gatewise.sim.images import ImageSet
from gatewise.sim.lower import lower
from gatewise.sim.lowered import digit_counts
from gatewise.sim.run import run
from gatewise.sim.sort import SortedNetwork, sorted_by_width

# The package's function of the same name hides the module.
run_module = importlib.import_module("gatewise.sim.run")
ENGINE = EngineConfig(rows=4, lanes=4, pixels=16, post_lanes=2, act_bytes=1 << 16, mac=MacFormat(align=24, acc=44))
SHAPE = (4, 6, 6)
WIDTHS = np.array([2, 8, 4, 7, 1, 8, 0, 5, 3, 4, 6, 2])
CODES = np.array([8, 3, 4, 8, 7, 2, 5, 4, 0, 6, 1, 4])


def conv(net, name, x, widths=None, out_widths=None, kernel=1, seed=0, out=None, align=None, **settings):
    rng = np.random.default_rng(seed)
    widths = np.full(12, 4) if widths is None else widths
    ends = np.where(widths > 0, 1 << np.maximum(widths - 1, 0), 0).reshape(-1, 1, 1, 1)
    groups = settings.get("groups", 1)
    codes = rng.integers(-ends, np.maximum(ends, 1), (len(widths), x.shape[0] // groups, kernel, kernel))
    grid = out or Grid(4.0, 8, widths=out_widths, align=align, amounts=None if align is None else np.arange(12) % 4)
    return net.conv2d(name, x, WeightCodes.integer(codes, widths), scale=rng.uniform(0.1, 1, len(widths)), out=grid,
                      bias=rng.normal(0, 20, len(widths)), **settings)  # fmt: skip


def begin():
    return NetworkBuilder("s", InputSpec(shape=SHAPE, bits=8, scale=1.0, mean=(0.0,) * 4, std=(1.0,) * 4))


def chain(**settings):
    """Everything that hands an order on, from one sorted layer to the next."""
    net = begin()
    x = conv(net, "a", net.input, WIDTHS, CODES, 3, padding=1, **settings)
    y = net.requantise("grid", net.stride_slice("slice", net.max_pool("pool", x, 2, 1), 1), out=Grid(4.0, 8))
    y = conv(net, "b", y, WIDTHS[::-1], CODES, 3, seed=1, zero_point=1.5)
    z = conv(net, "c", x, WIDTHS, CODES[::-1], 5, seed=2)
    z = net.flatten("flat", net.average_pool("mean", z, 2, 1))
    for name, tensor in (("fc", z), ("fb", net.global_average_pool("whole", y))):
        tensor = net.flatten(f"flat_{name}", tensor) if name == "fb" else tensor
        rng = np.random.default_rng(5)
        codes = rng.integers(-8, 8, (6, tensor.shape[0]))
        made = net.linear(name, tensor, codes, bits=4, scale=1.0, out=Grid(64.0, 8))
    net.add("sum", made, made, out=Grid(64.0, 8))
    return net.build()


def images():
    return ImageSet(np.random.default_rng(3).integers(0, 256, (2, *SHAPE)).astype(np.int16), coded=True)


def unsorted(monkeypatch, network, engine):
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "sorted_by_width", lambda network: SortedNetwork(network, {}))
        found = run(network, images(), engine, trace=True)
    network.compiled.clear()
    return found


@pytest.mark.parametrize("align", [None, "shift"])
def test_a_sorted_network_is_the_same_function_in_its_own_order(monkeypatch, align):
    network = chain(align=align)
    assert set(sorted_by_width(network).orders) == {
        "a", "pool", "slice", "grid", "b", "whole", "flat_fb", "c", "mean", "flat"
    }  # fmt: skip
    plain, found = unsorted(monkeypatch, network, ENGINE), run(network, images(), ENGINE, trace=True)
    assert found.tensors.keys() == plain.tensors.keys()
    for name, tensor in plain.tensors.items():
        assert np.array_equal(found.tensors[name], tensor), name
    assert found.cycles_per_image < plain.cycles_per_image


def test_overflows_stand_by_the_networks_own_channels():
    network = chain()
    engine = ENGINE.model_copy(update={"mac": MacFormat(acc=14)})
    found = run(network, images(), engine).overflows["a"].acc
    arranged = sorted_by_width(network)
    order = arranged.orders["a"]
    layer = next(each for each in lower(arranged.network, engine) if each.name == "a")
    datapath = Datapath(arranged.network, engine.mac, 4, digits={"a": digit_counts(layer, engine)})
    counts = datapath.execute(images().images)
    assert not np.array_equal(found, found[order])
    assert np.array_equal(found[order], counts.overflows["a"].acc)


def test_wide_rows_come_first_and_wide_codes_are_one_range():
    network = sorted_by_width(chain()).network
    layer = network.layers["a"]
    rows, codes = layer.row_widths > 4, network.widths["a"] > 4
    assert rows.tolist() == sorted(rows.tolist(), reverse=True)
    assert np.count_nonzero(np.diff(np.pad(codes.astype(int), 1))) == 2
    registers = {each.name: each.registers for each in lower(network, ENGINE)}
    assert (registers["a"]["rest_from"], registers["a"]["rest_container"]) == (2, 2)
    assert (registers["c"]["wide_first"], registers["c"]["wide_end"]) == (1, 3)


def test_a_sorted_network_stays_as_it_is():
    network = sorted_by_width(chain()).network
    again = sorted_by_width(network)
    assert again.network is network
    assert not again.orders
    assert compile_network(network, ENGINE).network is network


def test_what_has_one_width_is_not_touched(samples):
    network = samples.small().build()
    assert sorted_by_width(network) == SortedNetwork(network, {})


def fixed(kind):
    """A layer of mixed widths whose reader fixes its order."""
    net = begin()
    out = Grid(4.0, 8, widths=CODES)
    x = conv(net, "a", net.input, WIDTHS, out=out, groups=2 if kind == "own groups" else 1)
    match kind:
        case "result":
            return net.build()
        case "add":
            x = net.add("end", x, x, out=Grid(4.0, 8))
        case "concat":
            x = net.concat("join", [x, x])
        case "pad":
            x = net.channel_pad("pad", x, 1, 1)
        case "pooled result":
            net.max_pool("end", x, 2)
            return net.build()
        case "groups" | "depthwise":
            x = conv(net, "d", x, groups=3 if kind == "groups" else 12)
        case "planes":
            rng = np.random.default_rng(1)
            weights = WeightCodes.basis(rng.choice((-1, 1), (2, 12, 12, 1, 1)), np.array([3, 1]))
            x = net.conv2d("d", x, weights, scale=1.0, out=Grid(4.0, 8))
    conv(net, "end2", x, np.full(12, 3), seed=4)
    return net.build()


@pytest.mark.parametrize(
    "kind", ["add", "concat", "pad", "groups", "depthwise", "planes", "result", "pooled result", "own groups"]
)
def test_what_fixes_an_order_is_left_alone_and_still_exact(monkeypatch, kind):
    network = fixed(kind)
    assert "a" not in sorted_by_width(network).orders
    assert sorted_by_width(network).network is network
    if kind != "planes":
        registers = compile_network(network, ENGINE).layers[1].registers
        assert registers.get("rest_from", 0) in (0, 3 if kind != "own groups" else 4)
        assert run(network, images(), ENGINE).codes.any()


def test_an_order_that_readers_do_not_share_is_found(monkeypatch):
    network = chain()
    found = sorted_by_width(network)
    order = found.orders["a"]
    assert (np.argsort(order) != order).any()
    moved = SortedNetwork(found.network, found.orders | {"a": np.argsort(order)})
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "sorted_by_width", lambda network: moved)
        wrong = run(network, images(), ENGINE, trace=True).tensors["a"]
    network.compiled.clear()
    assert not np.array_equal(wrong, run(network, images(), ENGINE, trace=True).tensors["a"])
