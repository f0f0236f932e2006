import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import CapacityError, FormatError
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph
from gatewise.quant.hawq import HawqSettings, Sensitivities, choose, hawq, search
from gatewise.quant.hessian import TraceEstimate
from gatewise.quant.minmax import LayerBits
from gatewise.quant.networks import Network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.statistics import Statistics, collect
from gatewise.sim.images import ImageSet

SPEC = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))
NAMES = ("stem.0", "left", "right", "fc")


@pytest.fixture(scope="module")
def statistics(residual: Graph, residual_images: np.ndarray) -> Statistics:
    return collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))


@pytest.fixture(scope="module")
def labelled(residual_images: np.ndarray) -> ImageSet:
    return ImageSet(residual_images, np.random.default_rng(1).integers(0, 5, len(residual_images)))


@pytest.fixture(scope="module")
def sensitivities(residual: Graph, residual_images: np.ndarray, statistics: Statistics) -> Sensitivities:
    """Traces that are given, not measured."""
    weights = {
        name: TraceEstimate(name, residual.parameters[name].weight.size, (trace,))
        for name, trace in zip(NAMES, (40.0, 30.0, 5.0, 8.0), strict=True)
    }
    inputs = {name: TraceEstimate(name, 1, (trace,)) for name, trace in zip(NAMES, (1.0, 4.0, 2.0, 3.0), strict=True)}
    x = torch.from_numpy(SPEC.normalise(residual_images))
    return Sensitivities(residual, SPEC, statistics, HawqSettings(), x, weights, inputs)


def test_omega_is_the_mean_trace_times_the_squared_error_of_what_hardware_multiplies(
    sensitivities: Sensitivities, residual: Graph
) -> None:
    candidates, rest = sensitivities.weight_candidates(dict.fromkeys(NAMES, 8))
    assert (candidates.names, candidates.bits, rest) == (NAMES, (2, 4, 8), 0)
    network = sensitivities.lowered(LayerBits(dict.fromkeys(NAMES, 4), dict.fromkeys(NAMES, 8)))
    for index, layer in enumerate(network.layers):
        weight = residual.parameters[layer.name].weight
        expected = sensitivities.weights[layer.name].average * np.sum((layer.weights.real - weight) ** 2)
        assert candidates.error[index, 1] * candidates.unit == pytest.approx(expected, rel=1e-9)
        assert candidates.cost[index].tolist() == [weight.size * bits for bits in (2, 4, 8)]


def test_coarser_grids_and_those_over_the_extremes_err_more(sensitivities: Sensitivities) -> None:
    def errors(**options: object) -> np.ndarray:
        found = replace(sensitivities, settings=HawqSettings(**options))  # type: ignore[arg-type]
        candidates, _ = found.weight_candidates(dict.fromkeys(NAMES, 8), metric="l2")
        return candidates.error * candidates.unit

    best = errors()
    assert (best.sum(axis=0) < errors(per_channel_weights=False).sum(axis=0)).all()
    extremes = errors(weight_range="minmax")
    assert (best <= extremes * (1 + 1e-9)).all()
    assert (best[:, 0] < 0.95 * extremes[:, 0]).all()


def test_cycles_of_layers_add_up_to_those_of_every_mixed_network(
    sensitivities: Sensitivities, residual_images: np.ndarray
) -> None:
    settings = sensitivities.settings
    activations = {**dict.fromkeys(NAMES, 4), "stem.0": 8}
    candidates, rest = sensitivities.weight_candidates(activations, "cycles")
    assert rest > 0
    source = np.random.default_rng(0)
    for levels in source.integers(0, 3, (2, len(NAMES))):
        chosen = candidates.setting(levels)
        exported = export_network(sensitivities.lowered(LayerBits(chosen.bits, activations)), "mixed", {})
        found = exported.run(residual_images[:1], engine=settings.engine)
        assert found.cycles_per_image == chosen.cost + rest


@pytest.mark.parametrize("budget", ["size", "bops", "cycles"])
@pytest.mark.parametrize("selection", ["ordered", "integer"])
def test_the_choice_keeps_its_budget(sensitivities: Sensitivities, budget: str, selection: str) -> None:
    settings = HawqSettings(budget=budget, selection=selection, activation_bits=6)  # type: ignore[arg-type]
    found = replace(sensitivities, settings=settings)
    bits, chosen, rest = choose(found)
    uniform = found.lowered(LayerBits(dict.fromkeys(NAMES, 4), bits.activations))
    assert rest + chosen.cost <= sum(found.costs(uniform, settings.budget).values())
    assert sum(found.costs(found.lowered(bits), settings.budget).values()) == rest + chosen.cost
    free = NAMES[1:]
    assert bits.activations["stem.0"] == 8
    assert sum(found.inputs[name] * (bits.activations[name] - 6) for name in free) <= 0
    assert 4 in {bits.activations[name] for name in free}
    worst = choose(replace(sensitivities, settings=replace(settings, selection="highest")))[1]
    assert worst.error >= chosen.error
    exact = replace(settings, limit=rest + chosen.cost)
    assert choose(replace(sensitivities, settings=exact))[1] == chosen


def test_a_limit_that_nothing_keeps_is_refused(sensitivities: Sensitivities) -> None:
    with pytest.raises(CapacityError, match="budget must be at least"):
        choose(replace(sensitivities, settings=HawqSettings(budget="cycles", limit=100)))


def test_edges_may_have_bits_of_their_own(sensitivities: Sensitivities) -> None:
    bits, _, rest = choose(replace(sensitivities, settings=HawqSettings(edge_bits=8, weight_bits=2)))
    assert bits.weights == {"stem.0": 8, "left": 2, "right": 2, "fc": 8}
    assert rest == 8 * (sensitivities.weights["stem.0"].elements + sensitivities.weights["fc"].elements)


def test_a_search_ends_in_a_network_with_its_widths_and_facts(
    residual: Graph, statistics: Statistics, labelled: ImageSet
) -> None:
    told: list[tuple[str, int, int]] = []
    settings = HawqSettings(hessian_images=16, sweeps=2, least_sweeps=2, activation_bits=6, weight_bits=3)
    choice = search(residual, SPEC, statistics, settings, labelled, progress=lambda *step: told.append(step))
    assert told[:2] == [("Hessian of activations", 1, 2), ("Hessian of activations", 2, 2)]
    quantized = hawq(residual, SPEC, statistics, choice)
    assert [layer.weights.bits for layer in quantized.layers] == list(choice.bits.weights.values())
    assert [quantized.tensors[layer.inputs[0]].bits for layer in quantized.layers] == [
        choice.bits.activations[layer.name] for layer in quantized.layers
    ]
    facts = quantized.settings
    assert facts["weight_widths"] == ",".join(str(choice.bits.weights[name]) for name in NAMES)
    assert facts["mean_weight_bits"] <= 3
    assert 32 / 8 <= float(facts["activation_compression"]) <= 32 / 4
    exported = export_network(quantized, "residual", {})
    assert exported.run(labelled.images[:1], engine=settings.engine).cycles_per_image == facts["fusion_cycles"]
    again = search(residual, SPEC, statistics, settings, labelled)
    assert (again.bits.weights, again.bits.activations) == (choice.bits.weights, choice.bits.activations)


def test_enumeration_is_the_integer_program_on_measured_resnet20_errors(
    resnet20: Network, resnet20_graph: Graph, resnet20_statistics: Statistics
) -> None:
    stored = json.loads((Path(__file__).parents[2] / "bench" / "trained" / "hawq-weights.json").read_text())["sweeps"]
    traces = {
        name: TraceEstimate(name, resnet20_graph.parameters[name].weight.size, tuple(sweep[name] for sweep in stored))
        for name in stored[0]
    }
    found = Sensitivities(
        resnet20_graph, resnet20.input, resnet20_statistics, HawqSettings(), torch.zeros(1, 3, 32, 32), traces
    )
    candidates, _ = found.weight_candidates(dict.fromkeys(found.names, 8))
    front, free = candidates.front(search="enumeration"), candidates.front(ordered=False)
    lower = 0
    for size in np.linspace(*candidates.sizes, 50).astype(int).tolist():
        assert candidates.program(size, ordered=True).error == front.at(size).error
        assert candidates.program(size).error == free.at(size).error
        lower += free.at(size).error < front.at(size).error
    assert lower > 30


def test_wrong_settings_and_images_without_labels_are_refused(
    residual: Graph, statistics: Statistics, labelled: ImageSet
) -> None:
    for change, message in (
        ({"weight_bits": 1.5}, "weight bits must be on average 2, the least of the choices, to 8, not 1.5"),
        ({"activation_bits": 3}, "activation bits must be on average 4, the least"),
        ({"weight_choices": "4,2"}, "weight choices must be rising widths of 1 to 8 bits with commas, not '4,2'"),
        ({"activation_choices": "four"}, "activation choices must be rising widths"),
        ({"edge_bits": 9}, "edge bits must be 0 or 1 to 8, not 9"),
        ({"limit": -1}, "limit must not be negative and Hessian images be at least 1, not -1 and 256"),
        ({"budget": "cycles", "weight_bits": 3}, "weight bits must be one of 2,4,8 for the budget cycles"),
        ({"rows": 5}, "engine: rows must be a power of two"),
    ):
        with pytest.raises(FormatError, match=message):
            HawqSettings(**change)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="hawq must have images for its Hessian that are uint8 pixels with labels"):
        search(residual, SPEC, statistics, HawqSettings(), replace(labelled, labels=None))
