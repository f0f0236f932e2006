import pytest
import torch
from gatewise.quant.graph import Graph, Hook, Node
from torch import Tensor


class Halve(Hook):
    def weight(self, node: Node, weight: Tensor) -> Tensor:
        return weight * 0.5 if node.name == "fc" else weight

    def output(self, node: Node, value: Tensor) -> Tensor:
        return value * 2 if node.name == "fc" else value


def test_a_hook_replaces_weights_and_outputs(residual: Graph) -> None:
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        plain, hooked = residual.run(x), residual.run(x, hook=Halve())
    bias = torch.as_tensor(residual.parameters["fc"].bias)
    torch.testing.assert_close(hooked, plain + bias)
    assert not torch.equal(hooked, plain)


def test_a_run_in_float32_gives_float32(residual: Graph) -> None:
    assert residual.run(torch.zeros(1, 3, 16, 16), dtype=torch.float32).dtype == torch.float32


def test_an_input_of_another_shape_is_refused(residual: Graph) -> None:
    with pytest.raises(ValueError, match=r"input must have shape \(N, 3, 16, 16\), not \(1, 3, 8, 8\)"):
        residual.run(torch.zeros(1, 3, 8, 8))


def test_two_nodes_of_one_name_are_refused(residual: Graph) -> None:
    with pytest.raises(ValueError, match="node names must be unique"):
        Graph(residual.nodes + residual.nodes[-1:], residual.parameters, residual.output)
