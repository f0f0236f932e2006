"""Random weights of every scheme: what many of them cover, and that they stand for what they say."""

import numpy as np
import pytest
from gatewise.kernels.conv import ConvShape
from gatewise.sim.random_cases import Steered
from gatewise.sim.random_options import GROUPS
from gatewise.sim.random_weights import draw_weights
from gatewise.sim.weights import decode_weights

SHAPE, GROUPS_OF = (6, 4, 3, 1), 2
DRAWS = 150


def decoded(weights, shape=SHAPE):
    conv = ConvShape(shape[1] * GROUPS_OF, shape[0], shape[2:], groups=GROUPS_OF)
    return decode_weights(weights.codes.spec, conv, weights.codes.arrays(conv).__getitem__, weights.codes.networks)


def drawn(scheme, term="none", whole=False, count=DRAWS):
    draw, rng = Steered(1), np.random.default_rng(2)
    return [
        draw_weights(draw, rng, scheme, SHAPE, GROUPS_OF, term, whole=whole, widths=range(1, 9)) for _ in range(count)
    ]


@pytest.mark.parametrize("scheme", GROUPS["scheme"])
@pytest.mark.parametrize("term", ["none", "whole", "fraction"])
def test_weights_are_what_their_codes_decode_to(scheme, term):
    for weights in drawn(scheme, term, count=20):
        assert weights.codes.spec.scheme == scheme
        integers = decoded(weights).weights + weights.codes.offset
        assert (integers * weights.step[:, None, None, None]).tolist() == weights.real.tolist()
        assert weights.zero.any() == (term != "none")
        steps = (weights.zero / weights.step)[0]
        if weights.codes.coefs is None:
            assert (steps % 1 != 0) == (term == "fraction")
        else:
            assert steps % 1 == 0
            assert term == "none" or (weights.codes.fraction > 0) == (term == "fraction")


def test_reach_is_the_size_of_the_coefficients():
    for weights in drawn("basis", count=20):
        sizes = weights.step * np.sqrt((weights.codes.coefs.astype(float) ** 2).sum(axis=0))
        assert weights.reach == np.median(sizes)
    assert {weights.reach for weights in drawn("int", count=5)} == {1.0}


@pytest.mark.parametrize("scheme", ["xor", "basis"])
def test_coefficients_are_whole_where_they_must_be(scheme):
    assert {weights.codes.fraction for weights in drawn(scheme, whole=True, count=30)} == {0}
    assert len({weights.codes.fraction for weights in drawn(scheme)}) > 10


def test_integers_have_one_to_eight_bits():
    assert {weights.codes.spec.bits for weights in drawn("int")} == set(range(1, 9))


def test_shift_codes_cover_their_exponents():
    specs = [(weights.codes.spec, decoded(weights)) for weights in drawn("shift")]
    assert {spec.exponent_bits for spec, _ in specs} == set(range(6))
    spans = {int(spec.format.split(layer.codes).exponent.max()) for spec, layer in specs}
    assert {0, 1, 15} < spans
    assert len(spans) > 12
    assert any((layer.weights == 0).any() for _, layer in specs)
    assert any((layer.weights != 0).all() for _, layer in specs)


def test_focused_codes_cover_their_means_and_zeros():
    layers = [(weights.codes.spec, decoded(weights)) for weights in drawn("focused")]
    assert {spec.exponent_bits for spec, _ in layers} == set(range(5))
    assert {(spec.minus[0], spec.plus[0]) for spec, _ in layers} == {(-1, 1), (1, -1), (1, 1), (-1, -1)}
    assert {0, 1, 2, 15} <= {spec.value_shift for spec, _ in layers}
    assert len({spec.minus[1] for spec, _ in layers} | {spec.plus[1] for spec, _ in layers}) > 10
    fields = [spec.format.split(layer.codes) for spec, layer in layers]
    assert any(each.pruned.any() for each in fields)
    assert any(not each.pruned.any() for each in fields)
    assert any(((each.sign == 0) & ~each.pruned).any() for each in fields)


@pytest.mark.parametrize("scheme", ["xor", "basis"])
def test_planes_cover_their_number_and_the_ends_of_their_coefficients(scheme):
    layers = drawn(scheme)
    assert {weights.codes.spec.bits for weights in layers} == set(range(1, 9))
    coefficients = np.concatenate([weights.codes.coefs.reshape(-1) for weights in layers])
    assert (coefficients.min(), coefficients.max()) == (-32768, 32767)
    shares = [decoded(weights).planes.mean() for weights in layers]
    assert min(shares) < 0.2
    assert any(0.4 < share < 0.6 for share in shares)


def test_xor_layers_cover_orders_and_networks_of_all_sizes():
    layers = drawn("xor")
    assert {weights.codes.spec.order for weights in layers} == {"natural", "tile"}
    assert {len(set(weights.codes.spec.planes)) for weights in layers} == {1, 2, 3}
    networks = [network for weights in layers for network in weights.codes.networks.values()]
    assert any(network.n_in > network.n_out for network in networks)
    assert {network.n_in for network in networks} == {network.n_out for network in networks} == set(range(1, 21))
