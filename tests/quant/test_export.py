from dataclasses import replace

import numpy as np
import pytest
import torch
from gatewise.quant.aciq import AciqSettings, aciq
from gatewise.quant.capture import capture
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph
from gatewise.quant.minmax import minmax
from gatewise.quant.networks import Network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import QuantizedGraph, QuantizedLayer, accuracy
from gatewise.quant.statistics import Statistics, collect
from gatewise.sim.images import ImageSet
from gatewise.sim.network import Network as ExportedNetwork
from torchvision_style import resnet18

SPEC = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))


@pytest.fixture(scope="module")
def quantized(residual: Graph, residual_images: np.ndarray) -> QuantizedGraph:
    statistics = collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))
    return aciq(residual, SPEC, statistics)


def differing(exported: ExportedNetwork, quantized: QuantizedGraph, images: np.ndarray) -> float:
    """Share of the result's codes that differ from the fake-quantised network's."""
    trace: dict[str, np.ndarray] = {}
    quantized.run(images, trace=trace)
    return float(np.mean(exported.run(images).codes != trace[quantized.output]))


def test_an_exported_network_computes_the_fake_quantised_codes(
    quantized: QuantizedGraph, residual_images: np.ndarray
) -> None:
    exported = export_network(quantized, "residual", {})
    trace: dict[str, np.ndarray] = {}
    quantized.run(residual_images, trace=trace)
    result = exported.run(residual_images, trace=True)
    assert len(result.tensors) >= len(trace)
    names = {name.partition("@")[0] for name in trace}
    for name in names & set(result.tensors):
        forms = [codes for key, codes in trace.items() if key.partition("@")[0] == name]
        found = result.tensors[name]
        matches = [np.mean(found != form.reshape(found.shape)) for form in forms if form.size == found.size]
        assert min(matches) < 0.002, name


def test_a_changed_weight_code_is_seen_in_the_result(quantized: QuantizedGraph, residual_images: np.ndarray) -> None:
    layer = quantized.layers[-1]
    codes = layer.weights.codes.copy()
    codes[:, 0] = np.where(codes[:, 0] > 0, codes[:, 0] - 60, codes[:, 0] + 60)
    planted = replace(layer, weights=replace(layer.weights, codes=codes))
    assert isinstance(planted, QuantizedLayer)
    nodes = tuple(planted if node is layer else node for node in quantized.nodes)
    exported = export_network(replace(quantized, nodes=nodes), "planted", {})
    assert differing(exported, quantized, residual_images) > 0.05


@pytest.mark.parametrize("alignment", ["shift", "mul"])
def test_both_alignments_export(residual: Graph, residual_images: np.ndarray, alignment: str) -> None:
    statistics = collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))
    chosen = aciq(residual, SPEC, statistics, AciqSettings(alignment=alignment))  # type: ignore[arg-type]
    exported = export_network(chosen, "residual", {})
    kinds = {node.align for node in exported.mac_nodes()}
    assert alignment in kinds
    assert differing(exported, chosen, residual_images) < 0.01


def test_provenance_and_names_reach_the_file(quantized: QuantizedGraph) -> None:
    exported = export_network(quantized, "residual", {"method": "aciq"})
    assert exported.manifest.provenance == {"method": "aciq"}
    assert all("@" not in node.name for node in exported.manifest.nodes)


def test_a_users_resnet18_runs_through_the_whole_path() -> None:
    module = resnet18().eval()
    graph = capture(module, torch.zeros(1, 3, 64, 64))
    spec = module.gatewise_input
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 64, 64), dtype=np.uint8)
    statistics = collect(graph, torch.from_numpy(spec.normalise(images)))
    chosen = minmax(graph, spec, statistics)
    exported = export_network(chosen, "resnet18", {})
    assert len(exported.mac_nodes()) == 21
    logits = chosen.run(images)
    result = exported.run(images)
    assert np.mean(logits.argmax(axis=1) == result.predictions) >= 0.99
    assert differing(exported, chosen, images) < 0.05


def test_resnet20_agrees_with_its_fake_quantised_form_on_real_images(
    resnet20: Network,
    resnet20_graph: Graph,
    resnet20_statistics: Statistics,
    cifar_train: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = cifar_train[0][1000:], cifar_train[1][1000:]
    chosen = aciq(resnet20_graph, resnet20.input, resnet20_statistics)
    exported = export_network(chosen, "resnet20", {})
    result = exported.run(ImageSet(images, labels))
    logits = chosen.run(images)
    assert np.mean(logits.argmax(axis=1) == result.predictions) >= 0.99
    assert abs(accuracy(logits, labels) - (result.top(1) or 0)) <= 0.01
