"""The digits network: a user's own factory, spelt ``examples.digits.network:digits_cnn``."""

from gatewise.quant.preprocess import InputSpec
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DigitsCnn", "digits_cnn"]


class DigitsCnn(nn.Module):
    """Two convolutions, one residual block, pooling and a linear layer for 8 x 8 grey digits."""

    gatewise_input = InputSpec((1, 8, 8), mean=(0.3,), std=(0.38,))

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(32)
        self.pool = nn.AvgPool2d(2)
        self.linear = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) to logits (N, 10)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        y = functional.relu(self.bn3(self.conv3(x)))
        x = functional.relu(self.bn4(self.conv4(y)) + x)
        return self.linear(self.pool(x).flatten(1))  # type: ignore[no-any-return]


def digits_cnn() -> nn.Module:
    """An untrained network."""
    return DigitsCnn()
