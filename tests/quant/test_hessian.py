import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.capture import capture
from gatewise.quant.graph import Graph, Hook, Node
from gatewise.quant.hessian import Curvature, TraceEstimate
from torch import Tensor, nn
from torch.nn import functional

IMAGES = 48


class Tiny(nn.Module):
    """Few enough weights for the whole Hessian, and a tensor that a layer and a shortcut read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3)
        self.second = nn.Conv2d(3, 3, 3, 2, 1)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last((self.second(x) + x[:, :, ::2, ::2]).flatten(1))


@pytest.fixture(scope="module")
def tiny() -> Graph:
    torch.manual_seed(5)
    return capture(Tiny().eval(), torch.zeros(1, 1, 6, 6))


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, np.ndarray]:
    source = np.random.default_rng(0)
    return torch.from_numpy(source.standard_normal((IMAGES, 1, 6, 6))), source.integers(0, 4, IMAGES)


class Given(Hook):
    """Weights, or what is added to layers' inputs, cut from one vector."""

    def __init__(self, names: Sequence[str], vector: Tensor, weights: bool) -> None:
        self.names, self.vector, self.weights, self.at = names, vector, weights, 0

    def next(self, like: Tensor) -> Tensor:
        self.at += like.numel()
        return self.vector[self.at - like.numel() : self.at].reshape(like.shape)

    def weight(self, node: Node, weight: Tensor) -> Tensor:
        return self.next(weight) if self.weights else weight

    def layer_input(self, node: Node, value: Tensor) -> Tensor:
        return value if self.weights else value + self.next(value)


def exact(graph: Graph, x: Tensor, labels: np.ndarray, weights: bool) -> np.ndarray:
    """The whole Hessian by autograd, of all weights or of all layers' inputs (one image's then)."""
    names = [layer.name for layer in graph.layers]
    start = np.concatenate([graph.parameters[name].weight.reshape(-1) for name in names])
    if not weights:
        start = np.zeros(sum(int(np.prod(graph.by_name[layer.inputs[0]].shape)) for layer in graph.layers))

    def loss(vector: Tensor) -> Tensor:
        logits = graph.run(x, hook=Given(names, vector, weights))
        return functional.cross_entropy(logits, torch.as_tensor(labels))

    return torch.autograd.functional.hessian(loss, torch.as_tensor(start)).numpy()  # type: ignore[no-untyped-call]


def blocks(hessian: np.ndarray, elements: Sequence[int]) -> list[np.ndarray]:
    ends = np.cumsum(elements)
    return [hessian[end - count : end, end - count : end] for end, count in zip(ends, elements, strict=True)]


def test_traces_of_weights_are_within_two_percent_of_the_exact_ones(
    tiny: Graph, data: tuple[Tensor, np.ndarray]
) -> None:
    curvature = Curvature(tiny, *data, batch=8, dtype=torch.float64)
    found = curvature.traces(tolerance=0.01, most=800, seed=1)
    hessian = exact(tiny, *data, weights=True)
    for each, block in zip(found.values(), blocks(hessian, list(curvature.elements.values())), strict=True):
        assert abs(each.estimate / np.trace(block) - 1) < 0.02, each.name
        assert each.error <= 0.01 * each.estimate
        assert each.average == each.trace / block.shape[0]


def test_traces_of_activations_are_means_over_the_images(tiny: Graph, data: tuple[Tensor, np.ndarray]) -> None:
    curvature = Curvature(tiny, *data, "activations", batch=16, dtype=torch.float64)
    elements = list(curvature.elements.values())
    assert elements == [36, 48, 12]
    found = curvature.traces(tolerance=0.01, most=800, seed=1)
    each_image = [
        [np.trace(block) for block in blocks(exact(tiny, x[None], label[None], weights=False), elements)]
        for x, label in zip(*data, strict=True)
    ]
    for each, expected in zip(found.values(), np.mean(each_image, axis=0), strict=True):
        assert abs(each.estimate / expected - 1) < 0.02, each.name


def test_a_layers_own_probes_have_the_variance_of_its_block_and_shared_ones_that_of_the_cross_terms_too(
    tiny: Graph, data: tuple[Tensor, np.ndarray]
) -> None:
    curvature = Curvature(tiny, *data, batch=IMAGES, dtype=torch.float64)
    hessian, counts = exact(tiny, *data, weights=True), list(curvature.elements.values())
    ends = np.cumsum(counts)
    own = [curvature.sample(3, sweep) for sweep in range(600)]
    shared = [curvature.sample(3, sweep, together=True) for sweep in range(600)]
    for name, end, block in zip(curvature.elements, ends, blocks(hessian, counts), strict=True):
        alone = 2 * float(np.sum((block - np.diag(np.diag(block))) ** 2))
        cross = float(np.sum(hessian[end - len(block) : end] ** 2) - np.sum(block**2))
        assert np.var([sample[name] for sample in own]) == pytest.approx(alone, rel=0.2)
        assert np.var([sample[name] for sample in shared]) == pytest.approx(alone + cross, rel=0.2)


def test_probes_of_small_batches_vary_less_for_the_same_sweeps(tiny: Graph, data: tuple[Tensor, np.ndarray]) -> None:
    def spread(batch: int) -> float:
        curvature = Curvature(tiny, *data, batch=batch, dtype=torch.float64)
        return float(np.std([curvature.sample(0, sweep, ["last"])["last"] for sweep in range(60)]))

    assert spread(6) < 0.6 * spread(IMAGES)


def test_the_largest_eigenvalues_are_the_exact_ones(tiny: Graph, data: tuple[Tensor, np.ndarray]) -> None:
    curvature = Curvature(tiny, *data, batch=20, dtype=torch.float64)
    hessian, counts, products = exact(tiny, *data, weights=True), list(curvature.elements.values()), []
    found = curvature.eigenvalues(20, tolerance=1e-8, progress=products.append)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(hessian)[::-1][:20], rtol=1e-6)
    assert sum(products) >= 20
    second = blocks(hessian, counts)[1]
    found = curvature.eigenvalues(5, layer="second", tolerance=1e-8)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(second)[::-1][:5], rtol=1e-6)


def test_a_trace_that_is_not_positive_is_flagged_probed_more_and_clamped(
    tiny: Graph, data: tuple[Tensor, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    curvature = Curvature(tiny, *data)
    asked: list[tuple[str, ...]] = []

    def sample(_: Curvature, seed: int, sweep: int, names: Sequence[str]) -> dict[str, float]:
        asked.append(tuple(names))
        return {name: {"second": -1.0 - sweep}.get(name, 3.0 + 0.001 * sweep) for name in names}

    monkeypatch.setattr(Curvature, "sample", sample)
    found = curvature.traces(least=2, most=3, extra=4, tolerance=0.001)
    assert asked == [("first", "second", "last")] * 3 + [("second",)] * 4
    assert [each.flagged for each in found.values()] == [False, True, False]
    assert (found["second"].estimate, found["second"].trace, found["second"].average) == (-4.0, 0.0, 0.0)
    assert found["first"].trace == found["first"].estimate > 0


def test_sweeps_end_when_every_layer_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 1.2, 1.1, 1.1, 1.1])
    curvature = object.__new__(Curvature)
    object.__setattr__(curvature, "elements", {"layer": 2})
    monkeypatch.setattr(Curvature, "sample", lambda *_: {"layer": next(values)})
    (found,) = curvature.traces(least=2, most=5, tolerance=0.04).values()
    assert found.samples == (1.0, 1.2, 1.1, 1.1)
    assert found.error == pytest.approx(np.std(found.samples, ddof=1) / 2)
    assert TraceEstimate("layer", 2, (1.0,)).error == np.inf


def test_an_interrupted_estimate_goes_on_where_it_stopped(
    tiny: Graph, data: tuple[Tensor, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curvature, record = Curvature(tiny, *data), tmp_path / "traces.json"
    whole = curvature.traces(least=2, most=5, tolerance=0)
    steps: list[int] = []
    assert curvature.traces(least=2, most=3, tolerance=0, resume=record, progress=steps.append) != whole
    made: list[int] = []
    original = Curvature.sample

    def sample(self: Curvature, seed: int, sweep: int, names: Sequence[str]) -> dict[str, float]:
        made.append(sweep)
        return original(self, seed, sweep, names)

    monkeypatch.setattr(Curvature, "sample", sample)
    assert curvature.traces(least=2, most=5, tolerance=0, resume=record) == whole
    assert made == [3, 4]
    assert len(steps) == 3
    with pytest.raises(FormatError, match="must be of the same network, images, batch and seed"):
        curvature.traces(seed=9, resume=record)
    record.write_text(json.dumps({"sweeps": [3]}))
    with pytest.raises(FormatError, match="must be a readable record of trace samples"):
        curvature.traces(resume=record)


def test_wrong_data_and_settings_are_refused(tiny: Graph, data: tuple[Tensor, np.ndarray]) -> None:
    x, labels = data
    for change, message in (
        ({"labels": labels[:-1]}, "labels must be an integer for each of at least one image, not int64 of shape"),
        ({"labels": labels + 9}, r"labels must lie in 0..3, found 9..12"),
        ({"tensors": "biases"}, "tensors must be weights or activations, not 'biases'"),
        ({"batch": 0}, "batch must be 1 or more images, not 0"),
    ):
        with pytest.raises(FormatError, match=message):
            Curvature(**({"graph": tiny, "x": x, "labels": labels} | change))
    curvature = Curvature(tiny, x, labels)
    with pytest.raises(FormatError, match="sweeps must be 2 <= least <= most"):
        curvature.traces(least=1)
    with pytest.raises(FormatError, match="layer must be one of first, second, last, not 'third'"):
        curvature.eigenvalues(layer="third")
    with pytest.raises(FormatError, match="eigenvalues must be 1 to 47, not 50"):
        curvature.eigenvalues(50, layer="last")
    with pytest.raises(FormatError, match="tensors must be weights for eigenvalues, not activations"):
        Curvature(tiny, x, labels, "activations").eigenvalues()
