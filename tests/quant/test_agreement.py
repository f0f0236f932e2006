from dataclasses import replace

import numpy as np
import pytest
import torch
from gatewise.quant.agreement import agreement
from gatewise.quant.export import Requantise, export_network, file_names
from gatewise.quant.graph import Graph
from gatewise.quant.methods import METHODS, Quantisation
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import QuantizedGraph, QuantizedLayer
from gatewise.quant.statistics import collect

SPEC = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))
SETTINGS = [
    ("minmax", {}),
    ("aciq", {}),
    ("aciq", {"alignment": "mul", "variance_correction": True}),
    ("aciq", {"allocate_weights": True, "allocate_activations": True}),
    ("aciq", {"mid_tread": True, "allocate_weights": True, "allocate_activations": True, "coding": "huffman"}),
]


def quantisation(
    graph: Graph, images: np.ndarray, method: str, settings: dict[str, object], requantise: Requantise
) -> Quantisation:
    chosen = METHODS[method]
    statistics = collect(graph, torch.from_numpy(SPEC.normalise(images)))
    quantized = chosen.apply(graph, SPEC, statistics, chosen.settings(**settings))
    return Quantisation(graph, quantized, export_network(quantized, "residual", {}, requantise))


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
def test_layers_compute_what_the_fake_quantised_ones_do_on_the_same_inputs(
    method: str, settings: dict[str, object], residual: Graph, residual_images: np.ndarray
) -> None:
    scaled, counted = (
        agreement(quantisation(residual, residual_images, method, settings, kind), residual_images)
        for kind in ("scale", "threshold")
    )
    assert scaled.worst("scale") < 1e-4
    assert counted.worst("threshold") == 0
    allocated = "allocate_activations" in settings
    assert {layer.requantise for layer in counted.layers} == ({"scale"} if allocated else {"scale", "threshold"})
    for compared in (scaled, counted):
        assert compared.images == len(residual_images)
        assert compared.predictions >= 0.95
        assert sum(tensor.integers for tensor in compared.tensors) > 0
        for tensor in compared.tensors:
            assert tensor.share < (0 if tensor.op in ("input", "maxpool2d", "strideslice") else 2e-3) + 1e-12, tensor


@pytest.mark.parametrize("requantise", ["scale", "threshold"])
def test_a_weight_that_only_one_of_them_has_is_seen_in_its_layer_alone(
    residual: Graph, residual_images: np.ndarray, requantise: Requantise
) -> None:
    found = quantisation(residual, residual_images, "aciq", {}, requantise)
    layer = found.quantized.layers[1]
    codes = layer.weights.codes.copy()
    codes[0, 0, 1, 1] ^= 1
    planted = replace(layer, weights=replace(layer.weights, codes=codes))
    assert isinstance(planted, QuantizedLayer)
    nodes = tuple(planted if node is layer else node for node in found.quantized.nodes)
    compared = agreement(replace(found, quantized=replace(found.quantized, nodes=nodes)), residual_images)
    shares = {each.name: each.share for each in compared.layers}
    assert shares.pop(file_names(found.quantized)[layer.outputs[0]]) > 1e-3
    assert max(shares.values()) < 1e-4
    summary = compared.summary()
    assert summary[f"worst_{requantise}"] > 1e-3
    assert (summary["scale_layers"], summary["threshold_layers"]) == ((4, 0) if requantise == "scale" else (3, 1))
    assert summary["images"] == len(residual_images)


def test_thresholds_are_where_the_fake_quantised_codes_change(residual: Graph, residual_images: np.ndarray) -> None:
    found = quantisation(residual, residual_images, "aciq", {}, "threshold")
    seen = 0
    for layer in found.quantized.layers:
        result = found.quantized.tensors[layer.outputs[0]]
        values = found.network.arrays.get(f"{file_names(found.quantized)[result.name]}.thresholds")
        if values is None:
            continue
        source, lift = found.quantized.tensors[layer.inputs[0]], 2.0**layer.weights.fraction
        for offset in (-1, 0):
            total = torch.from_numpy((values.T + offset) / lift)
            codes = result.quantize(layer.rescaled(total[..., None, None], source))[..., 0, 0].numpy()
            wanted = np.arange(1, len(codes) + 1)[:, None]
            reached = np.abs(values.T) < 1 << 31  # the rest are those of codes beyond the clamp
            assert np.all((codes >= wanted)[reached] == (offset == 0))
            seen += int(reached.sum())
    assert seen > 100


def names(quantized: QuantizedGraph) -> list[str]:
    return list(file_names(quantized).values())


def test_every_tensor_has_a_name_of_its_own(residual: Graph, residual_images: np.ndarray) -> None:
    found = quantisation(residual, residual_images, "aciq", {}, "scale")
    assert len(set(names(found.quantized))) == len(found.quantized.tensors)
    assert {"stem.0", "stem.0.q4"} <= set(names(found.quantized))
