"""The digits network in every weight scheme: the shipped files are the conversion's, and run alike on every array."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from gatewise import load
from gatewise.kernels.nested import NestedGrid
from gatewise.sim.arrays import array_form
from gatewise.sim.demo import load_demo
from gatewise.sim.random_options import GROUPS

ROOT = Path(__file__).parents[2]
LEAST = {
    "int4": 0.98, "shift4": 0.97, "shift5": 0.98, "focused5": 0.97, "xor0.8": 0.25, "xor1.6": 0.9, "basis2": 0.95,
    "lq2a2": 0.95, "binary": 0.35, "mixed": 0.96, "allocated4": 0.95, "bayesian": 0.93,
}  # fmt: skip
"""Top-1 on the held-out images; one plane of signs, and activations of one bit, need training."""


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("examples.digits.schemes")


def test_there_is_one_of_every_scheme(example):
    assert set(example.SCHEMES) == set(LEAST)
    found = {node.weights.scheme for name in LEAST for node in load(example.shipped(name)).mac_nodes()}
    assert found == set(GROUPS["scheme"])


@pytest.mark.parametrize("name", LEAST)
def test_a_shipped_network_is_the_conversion(example, name):
    shipped, made = load(example.shipped(name)), example.convert(name)
    assert shipped.manifest == made.manifest
    for layer, wanted in shipped.layers.items():
        np.testing.assert_array_equal(made.layers[layer].codes, wanted.codes)


@pytest.mark.parametrize("name", LEAST)
def test_it_classifies_held_out_digits_alike_on_all_its_arrays(example, name):
    images = load_demo().images
    results = [load(example.shipped(name)).run(images, example.engine(array)) for array in example.SCHEMES[name][1]]
    assert results[0].top(1) >= LEAST[name]
    for result in results:
        assert np.array_equal(result.codes, results[0].codes)
        assert sum(result.overflow(kind) for kind in ("product", "align", "acc", "post")) == 0


def test_the_mixed_network_has_every_mode_of_a_fused_array_and_gains_cycles(example):
    network, images = load(example.shipped("mixed")), load_demo().images
    modes = {name: array_form(layer, "fusion").mode for name, layer in network.layers.items()}
    assert {f"{mode.a_bits}x{mode.w_bits}" for mode in modes.values()} == {"4x4", "4x2", "2x4", "2x2"}
    cycles = {
        array: {layer.name: layer.compute for layer in network.run(images[:1], example.engine(array)).layers}
        for array in ("digit", "fusion")
    }
    for name, mode in modes.items():
        # A layer has as many lane groups less as its mode has lanes more, but not less than one.
        groups = -(-network.layers[name].shape.in_channels // 8)
        gained = groups / -(-groups // mode.lanes)
        assert cycles["digit"][name] == gained * cycles["fusion"][name] or name in ("conv1", "linear")
    assert [modes[name].lanes for name in ("conv2", "conv3", "conv4")] == [2, 2, 4]


def test_the_bayesian_network_has_every_width_nested_grids_and_pruned_channels(example):
    network = load(example.shipped("bayesian"))
    assert {node.weights.bits for node in network.mac_nodes()} == {2, 4, 8}
    for name, count in (("conv1", 2), ("conv2", 0), ("conv3", 4), ("conv4", 0), ("linear", 0)):
        layer = network.layers[name]
        assert (layer.weights == 0).all(axis=(1, 2, 3)).sum() == count
        low, high = NestedGrid(layer.node.weights.bits, signed=True).code_range
        assert low <= layer.weights.min() <= layer.weights.max() <= high
    assert all(network.node(name).requant.kind == "threshold" for name in ("conv1", "conv3"))
    for name, bits in (("conv2.q4", 4), ("pool.q8", 8)):
        scale = network.scales[name, ""]
        assert NestedGrid(bits, signed=False).rounds_directly(int(scale.multiplier[0]), int(scale.shift[0]))


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_encoded_weights_are_as_near_as_their_bits_allow(example, bits):
    weights = np.random.default_rng(bits).normal(0, 1, (6, 20, 3, 3))
    # What a uniform quantiser of nine standard deviations loses, and what a relative error of a third of one does.
    bounds = {"integers": (9 / (1 << bits)) ** 2 / 12, "powers_of_two": 0.05, "focused": 0.05}
    for name, bound in bounds.items():
        encoded = getattr(example, name)(bits)(weights)
        assert ((encoded.real - weights) ** 2).mean() < bound


# The least errors of normal values in 2, 4 and 8 levels (Max, 1960) are 0.363, 0.117 and 0.035.
@pytest.mark.parametrize(("planes", "free", "decoded"), [(1, 0.37, 0.45), (2, 0.13, 0.21), (3, 0.05, 0.11)])
def test_planes_of_free_and_of_decoded_signs_come_near_the_best_quantisers(example, planes, free, decoded):
    weights = np.random.default_rng(0).normal(0, 1, (5, 30, 3, 3))
    for scheme, most in ((example.sign_planes(planes), free), (example.encrypted(8, 10, planes), decoded)):
        assert ((scheme(weights).real - weights) ** 2).mean() < most


def test_make_regress_runs_every_network_on_all_its_arrays(example):
    (runs,) = re.findall(r"^SCHEMES := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert runs.replace("\\", "").split() == [
        f"{name}:{array}" for name, (_, arrays) in example.SCHEMES.items() for array in arrays
    ]
