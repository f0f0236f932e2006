import numpy as np
import pytest
import torch
from gatewise.kernels.huffman import HuffmanCode
from gatewise.quant.graph import Graph, Input, Linear, Parameters
from gatewise.quant.pruning import Allocation, Pruning, PruningKind, gradual_sparsity, sparse_bytes


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(8, 4, generator=generator), "b": 0.1 * torch.randn(16, 8, generator=generator)}


def test_sparsity_rises_as_a_cube_and_stays() -> None:
    assert [gradual_sparsity(done, 0.5) for done in (0, 0.5, 1, 2)] == [0, 0.4375, 0.5, 0.5]


@pytest.mark.parametrize("kind", ["surgery", "magnitude"])
@pytest.mark.parametrize("allocation", ["layer", "global", "scaled"])
def test_the_least_go(kind: PruningKind, allocation: Allocation) -> None:
    found = weights()
    pruning = Pruning(found, kind, allocation)
    pruning.prune(found, 0.5)
    assert pruning.sparsity == 0.5
    for name, weight in found.items():
        kept = pruning.kept(name)
        if kept.any() and not kept.all():
            assert weight.abs()[kept].min() > weight.abs()[~kept].max()
        assert torch.equal(pruning.apply_to(name, weight), weight * kept)
    shares = [1 - float(pruning.kept(name).float().mean()) for name in found]
    if allocation == "layer":
        assert shares == [0.5, 0.5]
    elif allocation == "global":
        assert shares[0] < 0.2 < 0.5 < shares[1]  # b has the lesser weights
    else:
        assert abs(shares[0] - shares[1]) < 0.2


def test_nothing_and_nearly_everything_can_go() -> None:
    found = weights()
    pruning = Pruning(found, "magnitude", "global")
    pruning.prune(found, 0.0)
    assert pruning.sparsity == 0
    pruning.prune(found, 0.99)
    assert sum(int(pruning.kept(name).sum()) for name in found) == 2


def test_by_magnitude_what_is_pruned_stays_so_and_does_not_learn() -> None:
    found = weights()
    pruning = Pruning(found, "magnitude", "layer")
    pruning.begin_epoch(found, 0.25)
    gone = ~pruning.kept("a")
    found["a"][gone] = 10.0
    pruning.begin_epoch(found, 0.25)
    assert not pruning.kept("a")[gone].any()
    weight = found["a"].clone().requires_grad_()
    pruning.apply_to("a", weight).sum().backward()
    assert torch.equal(weight.grad, (~gone & pruning.kept("a")).float())


def test_surgery_splices_back_what_has_grown_and_keeps_what_is_between() -> None:
    found = {"a": torch.linspace(0.01, 1, 100).reshape(10, 10)}
    pruning = Pruning(found, "surgery", "layer")
    pruning.begin_epoch(found, 0.5)
    # Between 0.9 and 1.1 times the threshold of 0.5 all stay; so far all were kept.
    assert torch.equal(pruning.kept("a"), found["a"] > 0.45)
    weight = found["a"].clone().requires_grad_()
    pruning.apply_to("a", weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(10, 10))
    found["a"][0, :3] = torch.tensor([0.6, -0.7, 0.54])
    pruning.operate(found)
    assert pruning.kept("a")[0, :3].tolist() == [True, True, False]


def test_the_surgery_becomes_rare() -> None:
    pruning = Pruning({"a": torch.ones(1, 1)}, "surgery", "layer")
    torch.manual_seed(0)
    moved = [pruning.operates() for _ in range(2000)]
    assert 80 < sum(moved[:200]) < 140  # integral of 1 / (1 + i / 100) from 0 to 200: 110
    assert 2 < sum(moved[1800:]) < 25  # 10
    assert not any(Pruning({}, "magnitude", "layer").operates() for _ in range(9))


def network(weight: np.ndarray) -> Graph:
    nodes = (
        Input(name="x", inputs=(), shape=(weight.shape[1],)),
        Linear(name="y", inputs=("x",), shape=(len(weight),), in_features=weight.shape[1]),
    )
    return Graph(nodes, {"y": Parameters(weight, np.zeros(len(weight)))}, "y")


def test_bytes_of_a_sparse_network() -> None:
    weight = np.zeros((4, 25))
    weight.flat[[0, 3, 40, 41]] = 1.0
    found = sparse_bytes(network(weight))
    assert found["dense"] == 4 * (100 + 4)
    assert found["pruned"] == 4 * (4 + 4) + 13
    # Runs of 0, 2, then 36 zeros as two stored ones after 15 each and 4 more, 0; the 58 at the end as three.
    runs = np.array([15, 15, 15, 15, 15, 0, 2, 4, 0], dtype=np.uint8)
    code = HuffmanCode.of(np.bincount(runs, minlength=16))
    assert found["encoded"] == 4 * (9 + 4) + len(code.encode(runs)) + len(code.table())
    assert found["encoded"] < found["pruned"] + 4 * 9


def test_a_dense_network_has_its_size_and_the_codes() -> None:
    found = sparse_bytes(network(np.ones((4, 25))))
    assert found["pruned"] == found["dense"] + 13
    assert found["dense"] < found["encoded"] < found["dense"] + 40
