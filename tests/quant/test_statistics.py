import numpy as np
import pytest
import torch
from gatewise.quant.graph import Graph, Hook, Node
from gatewise.quant.statistics import BINS, collect, moments
from torch import Tensor


class Record(Hook):
    def __init__(self) -> None:
        self.before: dict[str, np.ndarray] = {}

    def preactivation(self, node: Node, value: Tensor) -> Tensor:
        self.before[node.name] = value.numpy()
        return value


def test_statistics_are_those_of_the_values_before_the_clamp(residual: Graph) -> None:
    x = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    statistics, record = collect(residual, x, batch=2), Record()
    with torch.no_grad():
        residual.run(x, hook=record)
    for name, value in record.before.items():
        channels = value.swapaxes(0, 1).reshape(value.shape[1], -1)
        for seen, values in ((statistics[name].channel, channels), (statistics[name].tensor, value.reshape(1, -1))):
            mean = values.mean(1)
            assert seen.samples == values.shape[1]
            np.testing.assert_allclose(seen.mean, mean, atol=1e-12)
            np.testing.assert_allclose(seen.b, np.abs(values - mean[:, None]).mean(1), rtol=1e-10)
            np.testing.assert_allclose(seen.std, values.std(1, ddof=1), rtol=1e-10)
            # A convolution of two images and one of five may sum in another order.
            np.testing.assert_allclose(seen.min, values.min(1), rtol=1e-12)
            np.testing.assert_allclose(seen.max, values.max(1), rtol=1e-12)
            for row, counts in zip(values, seen.counts, strict=True):
                end = np.abs(row).max() or 1.0
                expected = np.histogram(row, BINS, (-end, end))[0]
                assert counts.sum() == len(row)
                # A value on the border of two bins may be in either.
                assert np.abs(np.cumsum(counts - expected)).max() <= 2
    assert statistics["stem.0"].tensor.min < 0


def test_how_images_are_batched_does_not_matter(residual: Graph) -> None:
    x = torch.randn(7, 3, 16, 16, dtype=torch.float64)
    one, three = collect(residual, x, batch=1), collect(residual, x, batch=3)
    for name in one:
        np.testing.assert_allclose(
            np.array(one[name].channel[1:-1]), np.array(three[name].channel[1:-1]), rtol=1e-9, atol=1e-12
        )


def test_no_images_are_refused(residual: Graph) -> None:
    with pytest.raises(ValueError, match="must be collected over at least one image"):
        collect(residual, torch.zeros(0, 3, 16, 16))


def test_moments_of_values_at_hand_are_those_that_a_run_collects(residual: Graph) -> None:
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    record = Record()
    with torch.no_grad():
        residual.run(x, hook=record)
    collected = collect(residual, x)["stem.0"].tensor
    for found, expected in zip(moments(record.before["stem.0"].reshape(-1)), collected, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
