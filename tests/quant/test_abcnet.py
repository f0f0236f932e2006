import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.abcnet import AbcActivation, AbcNetSettings, binary_bases


@pytest.mark.parametrize("per_channel", [True, False])
def test_bases_are_the_papers_and_coefficients_those_of_least_squares(per_channel: bool) -> None:
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    signs, alpha = binary_bases(weight, 3, per_channel)
    for channel in range(3):
        rows = weight[channel] if per_channel else weight
        centred = weight[channel] - rows.mean()
        for plane, shift in enumerate((-1, 0, 1)):
            wanted = np.where((centred + shift * rows.std(correction=0)).numpy() >= 0, 1, -1)
            np.testing.assert_array_equal(signs[plane, channel].numpy(), wanted)
        matrix = (signs[:, channel] if per_channel else signs).reshape(3, -1).numpy().T
        best = np.linalg.lstsq(matrix, rows.numpy().reshape(-1), rcond=None)[0]
        np.testing.assert_allclose(alpha[:, channel].numpy(), best, rtol=1e-4)


def test_one_basis_is_the_sign_with_the_mean_magnitude() -> None:
    weight = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight -= weight.mean(1, keepdim=True)
    _, alpha = binary_bases(weight, 1, True)
    np.testing.assert_allclose(alpha[0].numpy(), weight.abs().mean(1).numpy(), rtol=1e-5)


def activation(planes: int = 3) -> tuple[AbcActivation, torch.Tensor]:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(4)).relu()
    found = AbcActivation(planes, direct=True)
    with torch.no_grad():
        found.fit(values)
    return found, values


def test_activations_are_those_of_the_basis_in_the_file_and_a_constant() -> None:
    found, values = activation()
    basis = found.basis()
    reached = (values.numpy()[:, None] >= np.array(basis.thresholds)).sum(1)
    wanted = basis.worth(np.array(basis.words)[reached]) + found.offset
    np.testing.assert_allclose(found(values).detach().numpy(), wanted, atol=1e-5)
    assert basis.worth(np.array(basis.pad)) + found.offset == pytest.approx(0)
    assert float((found(values) - values).square().mean()) < 0.03


def test_beta_and_v_train_and_stop_when_fixed() -> None:
    found, values = activation()
    x = values[:10].clone().requires_grad_()
    (found(x) * torch.arange(10.0)).sum().backward()
    assert x.grad is not None
    assert found.beta.grad is not None
    assert found.shift.grad is not None
    assert x.grad.abs().sum() > 0
    assert found.shift.grad.abs().sum() > 0
    before = found(values)
    found.fix()
    assert not found.beta.requires_grad
    torch.testing.assert_close(found(values), before.detach())


def test_fixed_levels_keep_their_planes_in_order() -> None:
    found, values = activation()
    with torch.no_grad():
        for parameter in (found.beta, found.shift):
            parameter.copy_(parameter.flip(0).clone())
        before = found(values)
        found.fix()
        torch.testing.assert_close(found(values), before)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(FormatError, match="activation bits must be 1 to 7, not 8"):
        AbcNetSettings(activation_bits=8)
