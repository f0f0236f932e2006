import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.incremental import Portions, portion_at


@pytest.mark.parametrize(
    ("epochs", "shares"),
    [(1, [1.0]), (2, [0.875, 1.0]), (4, [0.5, 0.75, 0.875, 1.0]), (6, [0.5, 0.5, 0.5, 0.75, 0.875, 1.0])],
)
def test_the_last_epochs_have_everything(epochs: int, shares: list[float]) -> None:
    assert [portion_at((0.5, 0.75, 0.875, 1.0), epoch, epochs) for epoch in range(epochs)] == shares


@pytest.mark.parametrize("portions", [(), (0.5, 0.9), (0.6, 0.5, 1.0), (-0.5, 1.0)])
def test_portions_rise_to_one(portions: tuple[float, ...]) -> None:
    with pytest.raises(FormatError, match="portions must rise from 0 or more to 1"):
        portion_at(portions, 0, 1)


def test_the_greatest_are_first_and_stay() -> None:
    weight = torch.tensor([[0.1, -0.9, 0.4], [0.7, -0.2, 0.3]])
    portions = Portions(weight)
    portions.extend(weight, torch.round(weight), 0.5)
    assert portions.held.tolist() == [[False, True, True], [True, False, False]]
    trained = weight - 1.0
    portions.hold(trained)
    torch.testing.assert_close(trained, torch.tensor([[-0.9, -1.0, 0.0], [1.0, -1.2, -0.7]]))
    portions.extend(trained, torch.round(trained), 0.5)
    assert portions.held.sum() == 3
    portions.extend(trained, torch.round(trained), 1.0)
    portions.hold(trained)
    assert trained.tolist() == [[-1.0, -1.0, 0.0], [1.0, -1.0, -1.0]]
