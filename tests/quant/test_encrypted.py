import math
from itertools import product

import numpy as np
import pytest
import torch
from gatewise.kernels.addressing import TileOrder, stream_weights, tile_order
from gatewise.kernels.planes import fixed_coefficients
from gatewise.kernels.xor import XorNetwork
from gatewise.quant.encrypted import EncryptedLayer, EncryptedSigns, XorMatrix, relative, stages, xor_signs
from torch import Tensor

NETWORK = XorNetwork(3, 4, (0b001, 0b011, 0b111, 0b110))
SLOPE = 3.0


def sign(value: float) -> int:
    return 1 if value >= 0 else -1


def test_signs_are_those_of_the_kernel() -> None:
    bits = np.array(list(product((0, 1), repeat=3)))
    signs = 2 * NETWORK.decode(bits).astype(int) - 1
    for magnitude in (1e-6, 0.3, 5.0):
        slices = torch.tensor(magnitude * (2 * bits - 1), dtype=torch.float32)
        for gradient in ("tanh", "straight-through", "analog"):
            assert xor_signs(NETWORK, slices, gradient).tolist() == signs.tolist()
        assert XorMatrix(NETWORK).eval()(slices, "real", SLOPE).tolist() == signs.tolist()
        assert xor_signs(NETWORK, slices, "real", SLOPE).sign().tolist() == signs.tolist()


def test_zero_is_plus_one() -> None:
    assert xor_signs(NETWORK, torch.zeros(1, 3)).tolist() == [[1, -1, 1, -1]]


def expected_gradient(slices: np.ndarray, weights: np.ndarray, gradient: str) -> np.ndarray:
    """The paper's equation 6, tap by tap, of the sum of `weights` (slices, n_out) times outputs."""
    found = np.zeros_like(slices)
    for s, o, i in product(range(len(slices)), range(NETWORK.n_out), range(NETWORK.n_in)):
        taps = [j for j in range(NETWORK.n_in) if NETWORK.rows[o] >> j & 1]
        if i not in taps:
            continue
        x = slices[s]
        if gradient in ("analog", "real"):
            others = math.prod(math.tanh(SLOPE * x[j]) for j in taps if j != i)
        else:
            others = math.prod(sign(x[j]) for j in taps if j != i)
        slope = SLOPE * (1 - math.tanh(SLOPE * x[i]) ** 2) if gradient != "straight-through" else abs(x[i]) <= 1
        found[s, i] += weights[s, o] * (-1) ** (len(taps) - 1) * slope * others
    return found


@pytest.mark.parametrize("gradient", ["tanh", "straight-through", "analog", "real"])
def test_gradients_are_those_of_the_paper(gradient) -> None:
    rng = np.random.default_rng(0)
    slices, weights = rng.normal(0, 0.8, (40, 3)), rng.normal(size=(40, 4))
    leaf = torch.tensor(slices, dtype=torch.float32, requires_grad=True)
    (xor_signs(NETWORK, leaf, gradient, SLOPE) * torch.tensor(weights)).sum().backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), expected_gradient(slices, weights, gradient), rtol=1e-4, atol=1e-5)


def layers(rng: np.random.Generator, planes: int) -> dict[str, EncryptedLayer]:
    """Two layers that share networks, and one of another rate."""
    rates = [[XorNetwork.random(n_in, 7, 2, plane) for plane in range(planes)] for n_in in (4, 5)]
    found = {}
    for name, shape, networks in (
        ("a", (5, 3, 2, 2), rates[0]),
        ("b", (4, 9), rates[1]),
        ("c", (3, 5, 1, 3), rates[0]),
    ):
        four = (*shape, 1, 1)[:4]
        slices = tuple(rng.normal(0, 0.1, (network.slices(math.prod(shape)), network.n_in)) for network in networks)
        alpha = rng.normal(size=(planes, shape[0]))
        found[name] = EncryptedLayer(shape, tuple(networks), tile_order(four, 1, 4, 2), slices, alpha)
    return found


@pytest.mark.parametrize("planes", [1, 3])
def test_all_layers_are_decoded_as_the_hardware_does(planes: int) -> None:
    own = layers(np.random.default_rng(planes), planes)
    encrypted = EncryptedSigns(own, "tanh", SLOPE)
    assert len(encrypted.slices) == 2 * planes
    for name, layer in own.items():
        four = (*layer.shape, 1, 1)[:4]
        alpha, greatest = relative(encrypted.coefficients(name))
        coefs, scale = fixed_coefficients(alpha.T)
        wanted = np.zeros(four)
        for plane, (network, bits) in enumerate(zip(layer.networks, encrypted.bits(name), strict=True)):
            assert bits.tolist() == (layer.slices[plane] >= 0).astype(int).tolist()
            stream = network.decode(bits).reshape(-1)[: math.prod(layer.shape)]
            signs = 2.0 * stream_weights(stream, four, 1, TileOrder(4, 2)) - 1
            wanted += signs * (coefs[:, plane] * scale * greatest).reshape(-1, 1, 1, 1)
        found = encrypted.weight(name)
        assert found.shape == layer.shape
        np.testing.assert_allclose(found.detach().numpy().reshape(four), wanted, rtol=1e-5, atol=1e-6)


def test_weights_follow_their_parameters() -> None:
    encrypted = EncryptedSigns(layers(np.random.default_rng(0), 1), "tanh", SLOPE)
    first, other = encrypted.weight("a"), encrypted.weight("b")
    assert encrypted.weight("a") is not first
    with torch.no_grad():
        for slices in encrypted.slices:
            slices[:, 0].neg_()
        encrypted.alpha.mul_(2)
    # Layer "c" has not been asked for since the parameters were others.
    twice = encrypted.weight("c").detach().abs().flatten(1)
    assert torch.equal(
        twice,
        2 * torch.tensor(layers(np.random.default_rng(0), 1)["c"].alpha.T, dtype=torch.float32).abs().expand_as(twice),
    )
    assert not torch.equal(encrypted.weight("b").sign(), other.sign())


def test_every_parameter_learns_from_every_layer() -> None:
    encrypted = EncryptedSigns(layers(np.random.default_rng(1), 2), "tanh", SLOPE)
    for name, slice_groups in (("a", {0, 1}), ("b", {2, 3})):
        encrypted.zero_grad()
        weight: Tensor = encrypted.weight(name)
        weight.square().sum().backward()
        touched = {at for at, slices in enumerate(encrypted.slices) if slices.grad is not None and slices.grad.any()}
        assert touched == slice_groups
    assert encrypted.alpha.grad is not None


def test_real_weights_are_signs_in_the_end() -> None:
    own = layers(np.random.default_rng(2), 1)
    encrypted, signs = EncryptedSigns(own, "real", SLOPE), EncryptedSigns(own, "tanh", SLOPE)
    assert not torch.equal(encrypted.weight("a"), signs.weight("a"))
    encrypted.finish()
    assert encrypted.training
    assert torch.equal(encrypted.weight("a"), signs.weight("a"))


def test_encrypted_weights_are_kept_within_a_limit() -> None:
    encrypted = EncryptedSigns(layers(np.random.default_rng(1), 1), "tanh", SLOPE)
    with torch.no_grad():
        encrypted.limit(0.05)
    assert max(float(slices.detach().abs().max()) for slices in encrypted.slices) == pytest.approx(0.05)


def test_stages_are_layers_of_as_many_channels() -> None:
    assert stages([16, 16, 32, 32, 32, 16, 10]) == [0, 0, 1, 1, 1, 2, 3]
