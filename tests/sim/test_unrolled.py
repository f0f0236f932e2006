"""Constants of unrolled layers: what each scheme's formula makes of Gaussian weights, and those of networks."""

from pathlib import Path

import gatewise
import numpy as np
import pytest
from gatewise import load
from gatewise.kernels.conv import ConvShape
from gatewise.kernels.errors import FormatError
from gatewise.sim.unrolled import SCHEMES, network_layer, scheme_named, seeded_layer

DIGITS = Path(gatewise.__file__).parent / "sim" / "digits"
SHAPE = ConvShape(6, 5, (3, 3), (2, 1), (1, 1, 0, 1))
LARGE = ConvShape(64, 8, (3, 3), padding=(1, 1, 1, 1))


def constants(name, shape=LARGE):
    return seeded_layer(SCHEMES[name], shape).unrolled


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("ternary", {0, 1}),
        ("flexor-0.4", {1}),
        ("shift", {0, 1, 2, 4, 8}),
        ("focused3", {0, 1, 2}),
        ("focused5", {8, 4, 6, 7, 9, 10, 12, 16, 0}),
        ("bayesian2", {0, 1}),
        ("bayesian4", set(range(8))),
        ("fixed8", set(range(129))),
    ],
)
def test_constants_are_those_of_the_scheme(name, allowed):
    weights = constants(name).weights
    assert set(np.unique(np.abs(weights)).tolist()) <= allowed
    assert abs(weights.mean()) < 0.1 * np.abs(weights).max()


def test_planes_have_the_bases_of_their_papers():
    abcnet, lqnet, wide = (constants(name) for name in ("abcnet", "lqnet-a2", "lqnet-a8"))
    assert (abcnet.weights.shape[0], abcnet.coefs.shape, abcnet.bits) == (5, (25, 8), 5)
    assert (lqnet.weights.shape[0], lqnet.coefs.shape, lqnet.bits) == (2, (4, 8), 2)
    assert (wide.weights.shape[0], wide.coefs.shape, wide.activation_planes) == (2, (2, 8), False)
    # The best four levels of a Gaussian are +-0.4528 and +-1.510 (Max, 1960): bases of 0.981 and 0.529.
    assert np.allclose(wide.coefs.max(axis=0) / wide.coefs.min(axis=0), 0.981 / 0.529, rtol=0.1)


def test_aciq_takes_zero_points_and_alignment_into_the_constants():
    layer = seeded_layer(SCHEMES["aciq"], LARGE)
    codes = layer.drawn.codes.values - layer.drawn.zero.reshape(-1, 1, 1, 1)
    assert set(layer.drawn.amounts.tolist()) == {0, 1, 2}
    assert (layer.unrolled.weights[0] == codes * (1 << layer.drawn.amounts).reshape(1, -1, 1, 1)).all()


def test_the_same_seed_gives_the_same_layer_and_another_one_another():
    first, again, other = (seeded_layer(SCHEMES["fixed8"], SHAPE, seed).unrolled.weights for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("structure", ["direct", "grouped"])
def test_windows_and_circuits_are_the_convolution(structure):
    layer = constants("fixed8", SHAPE)
    height, width = 5, 4
    image = np.random.default_rng(0).integers(0, 256, (6, height, width))
    padded = np.pad(image, ((0, 0), (1, 0), (1, 1)))
    rows, columns = SHAPE.output_size(height, width)
    windows = {(w.rows, w.columns): w for w in layer.windows(height, width)}
    assert sum(window.pixels for window in windows.values()) == rows * columns
    for y in range(rows):
        for x in range(columns):
            seen = padded[:, 2 * y : 2 * y + 3, x : x + 3]
            inside = (tuple(k for k in range(3) if 0 <= 2 * y + k - 1 < height),)
            inside += (tuple(k for k in range(3) if 0 <= x + k - 1 < width),)
            taps = seen[:, inside[0]][:, :, inside[1]].reshape(-1)
            for channel in range(5):
                dot = layer.dot(channel, structure, windows[inside])
                assert dot.compute(taps) == (layer.weights[0, channel] * seen).sum()


def test_all_taps_count_where_padding_is_kept():
    (window,) = constants("ternary", SHAPE).windows(5, 4, padded=True)
    assert window == ((0, 1, 2), (0, 1, 2), 2 * 4)


@pytest.mark.parametrize("name", ["w4a4", "focused5", "xor0.8"])
def test_a_networks_layer_has_its_very_constants(name):
    layer = load(DIGITS / f"digits-{name}.gw").layers["conv2"]
    found = network_layer(layer)
    scaled = layer.weights.astype(np.int64) * layer.factors.astype(np.int64).reshape(1, -1, 1, 1)
    if len(layer.planes):
        exact = np.einsum("po,poikl->oikl", found.coefs, found.weights)
        assert (exact == layer.weights - layer.zero.reshape(-1, 1, 1, 1)).all()
    else:
        zero = layer.zero.reshape(-1, 1, 1, 1) * layer.factors.reshape(1, -1, 1, 1)
        assert (found.weights[0] == (scaled << layer.node.fraction) - zero).all()


def test_a_scheme_that_is_none_is_refused():
    with pytest.raises(FormatError, match=r"^scheme must be one of abcnet, .*, ternary, not 'binary'$"):
        scheme_named("binary")
