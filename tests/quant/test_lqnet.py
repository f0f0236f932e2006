import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.lqnet import LqActivation, LqNetSettings, LqWeight, codes, nearest_levels, qem


def error(values: torch.Tensor, basis: torch.Tensor) -> float:
    levels = codes(basis.shape[1], True, basis)[nearest_levels(values, basis)]
    return float(((levels * basis[:, None]).sum(-1) - values).square().mean())


def test_a_value_goes_to_its_nearest_level() -> None:
    values = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    basis = torch.tensor([[1.0, 0.5], [0.2, -0.9], [0.3, 0.3]])
    levels = basis @ codes(2, True, basis).T
    chosen = levels.gather(1, nearest_levels(values, basis))
    best = (values[:, :, None] - levels[:, None]).abs().amin(2)
    torch.testing.assert_close((values - chosen).abs(), best)


def test_each_turn_lowers_the_error() -> None:
    values = torch.randn(4, 500, generator=torch.Generator().manual_seed(1))
    basis = torch.tensor([[0.2, 0.4, 0.8]]).repeat(4, 1)
    errors = [error(values, basis)]
    for _ in range(5):
        basis = qem(values, basis)
        errors.append(error(values, basis))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]


def test_a_layer_of_its_own_levels_is_found_exactly() -> None:
    generator = torch.Generator().manual_seed(2)
    basis = torch.tensor([[0.5, 1.1], [0.2, 0.9]])
    weight = (codes(2, True, basis)[torch.randint(0, 4, (2, 60), generator=generator)] * basis[:, None]).sum(-1)
    found = LqWeight(2, 2)
    found.begin(weight, 20)
    torch.testing.assert_close(found.eval()(weight), weight)


def test_a_basis_moves_a_tenth_of_the_way_in_training() -> None:
    values = torch.randn(1, 300, generator=torch.Generator().manual_seed(3))
    layer = LqWeight(1, 2)
    layer.begin(values, 0)
    before = layer.basis.clone()
    layer.train()(values)
    torch.testing.assert_close(layer.basis, 0.9 * before + 0.1 * qem(values, before))
    layer.eval()(values)
    torch.testing.assert_close(layer.basis, 0.9 * before + 0.1 * qem(values, before))


def activation(direct: bool = True) -> tuple[LqActivation, torch.Tensor]:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(4)).relu()
    found = LqActivation(2, 20, direct)
    with torch.no_grad():
        found.fit(values)
    return found.eval(), values


def test_activations_are_those_of_the_basis_in_the_file() -> None:
    found, values = activation()
    basis = found.basis()
    reached = (values.numpy()[:, None] >= np.array(basis.thresholds)).sum(1)
    np.testing.assert_allclose(found(values).numpy(), basis.worth(np.array(basis.words)[reached]), rtol=1e-5)
    assert float((found(values) - values).square().mean()) < 0.03


def test_gradients_end_beyond_the_greatest_level() -> None:
    found, _ = activation()
    values = torch.tensor([0.1, 1.0, 50.0], requires_grad=True)
    found(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 1, 0]


@pytest.mark.parametrize("direct", [True, False])
def test_fixed_levels_have_the_hardwares_thresholds(direct: bool) -> None:
    found, values = activation(direct)
    found.fix()
    beta = found.beta.clone()
    found.train()(values)
    torch.testing.assert_close(found.beta, beta)
    thresholds = np.array(found.basis().thresholds)
    if direct:
        np.testing.assert_allclose(found.met.numpy(), thresholds, rtol=1e-6)
        return
    counts = found.basis().uniform(float(thresholds[-1]) / (1 << 14))
    np.testing.assert_allclose(found.met.numpy(), thresholds, atol=counts.error * 1.01)
    steps = found.met.numpy() / counts.step - 0.5
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(FormatError, match="activation bits must be 1 to 4, not 5"):
        LqNetSettings(activation_bits=5)
