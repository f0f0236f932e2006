"""Whole networks in their fast forms: the codes and counters of the faithful one, wherever a proof lets them run."""

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, ImageSet, InputSpec, MacFormat, NetworkBuilder, load
from gatewise.kernels import direct
from gatewise.kernels.direct import fast_forms
from gatewise.kernels.errors import UnsupportedError
from gatewise.sim.demo import load_demo
from gatewise.sim.engine import EngineConfig as Engine
from gatewise.sim.execute import Datapath
from gatewise.sim.fast import FastAdd, FastRequantise, fast_form, fast_nodes
from gatewise.sim.random_cases import Steered, random_cases
from gatewise.sim.report import run_summary
from gatewise.sim.run import run

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "sim" / "digits"
KINDS = ("product", "align", "acc", "post")
FORMS = (*fast_forms(), "popcount")


def assert_same(found, golden):
    assert np.array_equal(found.codes, golden.codes)
    for name, tensor in golden.tensors.items():
        assert np.array_equal(found.tensors[name], tensor), name
    for name, counts in golden.overflows.items():
        for kind in KINDS:
            assert np.array_equal(getattr(found.overflows[name], kind), getattr(counts, kind)), (name, kind)


def test_random_networks_are_the_same_in_all_forms():
    """Every operation and scheme, on every array, with widths of which some overflow."""
    faithful = fast = both = fused = adds = copies = counted = 0
    for case in random_cases(90, draw=Steered(11)):
        for form in FORMS:
            found = run(case.network, ImageSet(case.codes, coded=True), case.engine, trace=True, form=form)
            assert_same(found, case.golden)
            counted += sum(found.form(name) == "popcount" for name in found.overflows)
            nodes = fast_nodes(case.network, case.engine.array, case.engine.mac, form).values()
            adds += sum(isinstance(node, FastAdd) for node in nodes)
            copies += sum(isinstance(node, FastRequantise) for node in nodes)
            for name in case.network.layers:
                rest = found.faithful_channels(name)
                faithful += name not in found.fast
                fast += rest == 0
                both += name in found.fast and rest > 0
                fused += name in found.fast and found.fast[name].fused
    assert min(faithful, fast) > 60
    assert both > 3
    assert fast > fused > 60
    assert min(adds, copies, counted) > 10


@pytest.mark.parametrize("form", fast_forms())
def test_the_demo_is_the_same_in_all_forms(form):
    example = load_demo()
    golden = run(example.network, example.images, example.engine, trace=True, form="faithful")
    found = run(example.network, example.images, example.engine, trace=True, form=form)
    assert_same(found, golden)
    assert {found.form(name) for name in found.overflows} == {form}
    assert sum(map(found.faithful_channels, found.overflows)) == 0
    assert f"form                 {form} 122 of 122 output channels; fast forms where" in "\n".join(run_summary(found))
    assert "form                 faithful 122 of 122 output channels" in run_summary(golden)


@pytest.mark.parametrize("path", sorted(DIGITS.glob("digits-*.gw")), ids=lambda path: path.stem)
def test_digits_in_every_scheme_are_the_same_in_all_forms(path):
    network, images = load(path), load_demo().images[:12]
    golden = run(network, images, trace=True, form="faithful")
    for form in FORMS:
        found = run(network, images, trace=True, form=form)
        assert_same(found, golden)
        assert found.fast.keys() == found.overflows.keys()


@pytest.mark.parametrize("name", ["hawq-w4-ordered", "flexor-resnet20-0.8-s0", "focused-s61-w5", "resnet20-lqnet-w2a2"])
def test_a_trained_resnet20_is_the_same_in_all_forms_and_on_any_threads(name, monkeypatch):
    path = ROOT / "bench" / "trained" / f"{name}.gw"
    network = load(path)
    images = np.random.default_rng(0).integers(0, 256, (2, *network.manifest.input.shape), dtype=np.uint8)
    golden = run(network, images, trace=True, form="faithful")
    counted = False
    # Images in one part, and in a part for each of two threads.
    for form, count in product(FORMS, (1, 2)):
        monkeypatch.setattr(sys.modules["gatewise.sim.run"], "threads", lambda count=count: count)
        monkeypatch.setattr(sys.modules["gatewise.sim.run"], "PART_MACS", 1)
        found = run(network, images, trace=True, form=form)
        assert_same(found, golden)
        counted |= form == "popcount" and "popcount" in map(found.form, found.overflows)
    assert counted == ("basis" in network.scheme or "xor" in network.scheme)


@pytest.mark.skipif(not direct.COUNTS_BITS, reason="bits are not counted where the processor has no instruction for it")
def test_planes_of_weights_and_activations_are_counted_where_nobody_asks():
    network = load(ROOT / "bench" / "trained" / "resnet20-lqnet-w2a2.gw")
    images = np.zeros((1, *network.manifest.input.shape), dtype=np.uint8)
    found = run(network, images)
    forms = [found.form(node.name) for node in network.mac_nodes()]
    assert forms[0] == forms[-1] == "vnni"
    assert set(forms[1:-1]) == {"popcount"}
    assert set(map(run(network, images, form="vnni").form, found.overflows)) == {"vnni"}
    # Eight planes of signs are odd numbers of 9 bits, and a limb all the same.
    assert [found.fast[name].conv.passes for name in (network.mac_nodes()[0].name, network.output)] == [1, 1]


def narrow_layer():
    """Two layers of which some channels overflow 12 bits and some cannot."""
    rng = np.random.default_rng(2)
    net = NetworkBuilder("narrow", InputSpec(shape=(3, 6, 6), bits=8, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3))
    codes = rng.integers(-8, 8, (6, 3, 3, 3))
    codes[::2] = 0
    codes[::2, :, 1, 1] = rng.integers(-2, 3, (3, 3))
    x = net.conv2d("a", net.input, codes, bits=4, scale=1.0, out=Grid(40.0, 4), padding=1, zero_point=np.arange(6) % 3)
    net.conv2d("b", x, rng.integers(-8, 8, (5, 6, 1, 1)), bits=4, scale=1.0, out=Grid(9.0, 16, signed=True))
    return net.build()


def test_only_channels_that_no_proof_holds_of_run_in_the_faithful_form():
    network, engine = narrow_layer(), EngineConfig(mac=MacFormat(acc=12))
    images = ImageSet(np.random.default_rng(3).integers(128, 256, (3, 3, 6, 6)), coded=True)
    golden, found = (run(network, images, engine, trace=True, form=form) for form in ("faithful", "auto"))
    assert_same(found, golden)
    exact = found.fast["a"].exact
    assert 0 < found.faithful_channels("a") == (~exact).sum() < 6
    assert golden.overflows["a"].acc[~exact].any()
    assert not golden.overflows["a"].acc[exact].any()
    layer = next(layer for layer in found.to_json()["layers"] if layer["name"] == "a")
    assert (layer["form"], layer["faithful_channels"]) == (found.fast["a"].conv.form, (~exact).sum())

    # If the proof were wrong, it would show.
    wrong = {"a": replace(found.fast["a"], exact=np.ones(6, dtype=bool))}
    codes = images.images.astype(np.int16)
    trace = Datapath(network, engine.mac, engine.lanes).execute(codes, keep=True, fast=wrong)
    assert not np.array_equal(trace.tensors["a"], golden.tensors["a"])


def test_values_that_overflow_behind_the_sums_are_limited_and_counted():
    net = NetworkBuilder("post", InputSpec(shape=(2, 1, 1), bits=4, scale=1.0, mean=(0.0,) * 2, std=(1.0,) * 2))
    out = Grid(1.0, 16, signed=True)
    net.conv2d("a", net.input, np.ones((1, 2, 1, 1), int), bits=2, scale=1.0, out=out, bias=2030.0)
    network, engine = net.build(), EngineConfig(mac=MacFormat(acc=12))
    images = ImageSet(np.array([[0, 0], [15, 15], [9, 9]]).reshape(3, 2, 1, 1), coded=True)
    found = run(network, images, engine)
    assert found.codes.ravel().tolist() == [2030, 2047, 2047]
    assert found.overflow("post") == 2
    assert not found.fast["a"].fused
    assert_same(found, run(network, images, engine, form="faithful"))


def test_layers_are_packed_once_for_a_network_and_a_datapath():
    network = narrow_layer()
    first = fast_nodes(network, "digit", MacFormat(), "auto")
    assert fast_nodes(network, "digit", MacFormat(), "auto") is first
    assert fast_nodes(network, "digit", MacFormat(acc=12), "auto") is not first
    assert fast_nodes(network, "digit", MacFormat(), "faithful") == {}


def test_the_form_of_another_processor_is_refused(monkeypatch):
    monkeypatch.setattr(direct, "VNNI", False)
    assert fast_form("auto") == "portable"
    with pytest.raises(UnsupportedError, match=r"^form vnni must run on a processor with AVX-512 VNNI or AVX-VNNI"):
        run(narrow_layer(), np.zeros((1, 3, 6, 6), np.uint8), Engine(), form="vnni")
