from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError, ToolMissingError, UnsupportedError
from gatewise.kernels.nested import NestedGrid, relative_bops
from gatewise.quant.agreement import agreement
from gatewise.quant.bayesian import BayesianBits, BayesianSettings, Decomposed, strength_for
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import Requantise, export_network
from gatewise.quant.graph import Graph
from gatewise.quant.methods import Quantisation
from gatewise.quant.networks import load_network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import QuantizedLayer
from gatewise.quant.trainable import TrainableGraph, straight_through
from gatewise.quant.training import Trained, TrainingSettings, fine_tune
from gatewise.rtl.cxxrtl import find_compiler
from gatewise.rtl.engine.cosim import compile_engine, regress_network
from gatewise.sim.compile import compile_network
from gatewise.sim.images import ImageSet, quantise_images
from gatewise.sim.prune import layer_bops, without_pruned
from gatewise.sim.random_cases import ENGINES
from small_networks import Residual, shaken
from torch import Tensor, nn

SPEC = InputSpec((1, 12, 12))
TRAINING = TrainingSettings(epochs=8, batch=20, optimizer="adam", learning_rate=3e-3, weight_decay=0.0, held_out=0.2)
SETTINGS = BayesianSettings(strength=0.02, initial_gate=2.0, gate_rate=0.2, range_rate=3e-3)


class Blobs(nn.Sequential):
    """A LeNet of few channels without padding; the second convolution has a batch norm."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 4),
        )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Four classes: the quarter of noise that is bright."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 400)
    pixels = rng.integers(0, 140, (400, 1, 12, 12))
    for image, label in zip(pixels, labels, strict=True):
        row, column = 6 * (label // 2), 6 * (label % 2)
        image[0, row : row + 6, column : column + 6] += 80
    return ImageSet(pixels.astype(np.uint8), labels)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return capture_unfolded(shaken(Blobs()), torch.zeros(1, 1, 12, 12))


def trained(
    graph: Graph, images: ImageSet, settings: BayesianSettings, training: TrainingSettings
) -> tuple[BayesianBits, Trained]:
    quantizer = BayesianBits(graph, SPEC, settings, training)
    return quantizer, fine_tune(graph, SPEC, quantizer, images.images[:32], images, training)


@pytest.fixture(scope="module")
def learnt(graph: Graph, images: ImageSet) -> tuple[BayesianBits, Trained]:
    return trained(graph, images, SETTINGS, TRAINING)


def as_published(x: Tensor, limit: Tensor, gates: Tensor, signed: bool) -> Tensor:
    """The decomposition with every rounding straight through, as autograd differentiates it."""

    def rounded(value: Tensor) -> Tensor:
        return straight_through(value, value.round())

    end = limit * (1 - 1e-7)
    x = torch.minimum(torch.maximum(x, -end if signed else torch.zeros_like(end)), end)
    step = 2 * limit / 3 if signed else limit / 3
    parts = [step * rounded(x / step)]
    for radix in (5, 17, 257, 65537)[: len(gates)]:
        step = step / radix
        parts.append(step * rounded((x - sum(parts)) / step))
    value = parts[-1]
    for gate, part in zip(reversed(gates), reversed(parts[:-1]), strict=True):
        value = part + gate * value
    return value


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("levels", range(5))
def test_values_and_gradients_are_those_of_the_decomposition_with_straight_through_roundings(
    signed: bool, levels: int
) -> None:
    generator = torch.Generator().manual_seed(levels)
    x = torch.randn(500, generator=generator, dtype=torch.float64)
    gates = torch.rand(levels, generator=generator, dtype=torch.float64)
    weights = torch.randn(500, generator=generator, dtype=torch.float64)
    found = []
    for function in (as_published, Decomposed.apply):
        own = [x.clone().requires_grad_(), torch.tensor(1.3, dtype=torch.float64).requires_grad_()]
        own.append(gates.clone().requires_grad_())
        value = function(*own, signed)
        (value * weights).sum().backward()
        found.append([value.detach(), *(each.grad for each in own[: 3 if levels else 2])])
    for wanted, have in zip(*found, strict=True):
        torch.testing.assert_close(have, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_open_gates_give_the_codes_of_the_hardwares_grid(bits: int, signed: bool) -> None:
    grid = NestedGrid(bits, signed)
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 300), np.arange(-40, 41) * grid.step(1.5) / 2])
    gates = torch.ones(bits.bit_length() - 2, dtype=torch.float64)
    real = Decomposed.apply(torch.from_numpy(values), torch.tensor(1.5, dtype=torch.float64), gates, signed)
    np.testing.assert_allclose(real, grid.codes(values, 1.5) * grid.step(1.5), atol=1e-12)


def test_the_reference_lenet5_has_636_gates_on_582026_parameters() -> None:
    network = load_network("lenet5-unpadded")
    unfolded = capture_unfolded(network.module, network.example)
    quantizer = BayesianBits(unfolded, network.input, BayesianSettings())
    trainable = TrainableGraph(unfolded, quantizer)
    quantizer.begin(trainable, torch.rand(4, 1, 28, 28))
    assert sum(parameter.numel() for parameter in trainable.layers.parameters()) == 582_026
    assert quantizer.gate_count == 636 == (32 + 64 + 512) + 7 * 4
    assert len(quantizer.tensors) == 7
    assert quantizer.macs == {"0": 460_800, "3": 3_276_800, "7": 524_288, "9": 5_120}


def test_gates_open_and_close_where_the_probability_of_zero_says_so() -> None:
    settings = BayesianSettings()
    assert settings.threshold == pytest.approx(-0.9353, abs=1e-4)
    assert settings.offset == pytest.approx(1.5986, abs=1e-4)
    for gates in ("hard_concrete", "gumbel"):
        torch.manual_seed(0)
        chosen = replace(settings, gates=gates)
        for parameter in (-1.5, 0.0, 1.0):
            drawn = chosen.sample(torch.full((40_000,), parameter))
            assert 0 <= drawn.min() <= drawn.max() <= 1
            wanted = torch.sigmoid(torch.tensor(parameter + chosen.offset))
            assert (drawn > 0).float().mean() == pytest.approx(wanted.item(), abs=0.01)
        assert not chosen.sample(torch.full((1000,), -2.0)).any()
    assert set(replace(settings, gates="gumbel").sample(torch.zeros(1000)).unique().tolist()) == {0.0, 1.0}


def test_the_regulariser_is_the_papers(graph: Graph) -> None:
    quantizer = BayesianBits(graph, SPEC, BayesianSettings(strength=0.5))
    network = TrainableGraph(graph, quantizer)
    quantizer.begin(network, torch.rand(4, 1, 12, 12))
    macs = {"0": 100 * 8 * 9, "3": 9 * 12 * 72, "7": 108 * 16, "9": 16 * 4}
    assert quantizer.macs == macs
    most = max(macs.values())
    wanted = 0.0
    rng = np.random.default_rng(0)
    for name, layer in zip(macs, graph.layers, strict=True):
        tensors = [quantizer.weights[name]]
        key = quantizer.keys[layer.name]
        tensors += [] if key is None else [quantizer.activations[key]]
        for tensor in tensors:
            phi = rng.normal(0, 2, 4)
            tensor.width.data = torch.from_numpy(phi).float()
            q4, q8, q16, q32 = 1 / (1 + np.exp(-(phi + 1.5986)))
            paid = 2 + 4 * q4 + 8 * q4 * q8 + 16 * q4 * q8 * q16 + 32 * q4 * q8 * q16 * q32
            if tensor.channel is not None:
                phi = rng.normal(0, 2, layer.channels)
                tensor.channel.data = torch.from_numpy(phi).float()
                paid *= (1 / (1 + np.exp(-(phi + 1.5986)))).mean()
            wanted += 0.5 * macs[name] / most * paid
    penalty = quantizer.penalty()
    assert penalty is not None
    assert penalty.item() == pytest.approx(wanted, rel=1e-4)


def test_training_saves_bits_and_channels_and_keeps_the_accuracy(
    learnt: tuple[BayesianBits, Trained], images: ImageSet
) -> None:
    _, found = learnt
    last = found.history[-1].facts
    assert last["bops"] < 0.01
    assert {last[f"{name} weights"] for name in "0379"} <= {2, 4, 8}
    assert min(last[f"{name} kept"] for name in "037") < 1
    assert last["9 kept"] == 1
    assert last["0 reads"] == 8
    assert np.mean(found.quantized.run(images.images).argmax(1) == images.labels) > 0.9
    assert found.history[0].facts != last
    assert found.history[-2].facts == last  # gates are fixed in the last quarter


@pytest.mark.parametrize("requantise", ["scale", "threshold"])
def test_the_exported_network_computes_the_fake_quantised_integers(
    learnt: tuple[BayesianBits, Trained], images: ImageSet, requantise: Requantise
) -> None:
    _, found = learnt
    network = export_network(found.quantized, "blobs", {}, requantise)
    compared = agreement(Quantisation(found.graph, found.quantized, network, found.history), images.images[:100])
    assert compared.worst("threshold") == 0
    assert compared.worst("scale") < 1e-4
    assert compared.predictions == 1
    published = found.history[-1].facts["bops"]
    assert relative_bops(list(layer_bops(network, without_pruned(network)).values())) == pytest.approx(published)


@pytest.mark.parametrize("build", ["8x8/64", "4x4/128 fusion", "8x4/64 huffman fusion"])
def test_a_trained_network_runs_in_rtl_as_in_the_simulator(
    learnt: tuple[BayesianBits, Trained], images: ImageSet, build: str
) -> None:
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    coding = "huffman" if "huffman" in build else "raw"
    nodes = tuple(
        replace(node, weights=replace(node.weights, coding=coding)) if isinstance(node, QuantizedLayer) else node
        for node in learnt[1].quantized.nodes
    )
    network = export_network(replace(learnt[1].quantized, nodes=nodes), "blobs", {})
    design = compile_engine(ENGINES[build], formats=True)
    for each, stall in ((network, 0.0), (without_pruned(network, ENGINES[build]), 0.3)):
        codes = quantise_images(images[:2], network.manifest.input)
        result = regress_network(design, compile_network(each, ENGINES[build]), codes, stall=stall)
        assert result.mismatch is None
        assert (result.images, result.overflows) == (2, 0)


def test_what_trains_is_what_is_exported(learnt: tuple[BayesianBits, Trained], images: ImageSet) -> None:
    quantizer, found = learnt
    for layer in found.quantized.layers:
        gated = quantizer.weights[layer.name]
        kept = layer.weights.codes.reshape(len(layer.weights.codes), -1).any(axis=1)
        assert layer.weights.bits == gated.bits
        if gated.kept is not None:
            assert not kept[~gated.kept.numpy()].any()


@pytest.mark.parametrize(("mode", "bits"), [("quantise", 8), ("prune", 8), ("prune", 4)])
def test_modes_leave_channels_or_widths_alone(graph: Graph, images: ImageSet, mode: str, bits: int) -> None:
    settings = replace(SETTINGS, mode=mode, prune_bits=bits, strength=0.4)
    quantizer, found = trained(graph, images, settings, replace(TRAINING, epochs=4))
    facts = found.history[-1].facts
    kept = [facts[f"{name} kept"] for name in "0379"]
    widths = {facts[f"{name} weights"] for name in "0379"} | {facts[f"{name} reads"] for name in "379"}
    if mode == "quantise":
        assert kept == [1, 1, 1, 1]
        assert widths <= {2, 4, 8}
        assert min(widths) < 8
        assert quantizer.gate_count == 7 * 4
    else:
        assert min(kept) < 1
        assert widths == {bits}
        assert quantizer.gate_count == 8 + 12 + 16
    assert facts["bops"] < 0.05


def test_residual_networks_have_gates_on_what_layers_read_alone() -> None:
    torch.manual_seed(2)
    graph = capture_unfolded(shaken(Residual()), torch.zeros(1, 3, 16, 16))
    spec = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))
    images = np.random.default_rng(7).integers(0, 256, (16, 3, 16, 16), dtype=np.uint8)
    quantizer = BayesianBits(graph, spec, BayesianSettings())
    found = fine_tune(graph, spec, quantizer, images)
    assert set(quantizer.readers) == {"stem.0", "left", "mean"}
    assert quantizer.activations["left"].ceiling == 6
    network = export_network(found.quantized, "residual", {})
    compared = agreement(Quantisation(found.graph, found.quantized, network), images)
    assert compared.worst("scale") < 1e-4
    assert compared.worst("threshold") == 0


def test_strengths_are_bisected_until_the_target_is_met() -> None:
    tried: list[float] = []

    def run(settings: BayesianSettings) -> float:
        tried.append(settings.strength)
        return 0.001 / settings.strength

    settings = BayesianSettings(strength=0.01, target_bops=0.006, search_runs=8)
    found = strength_for(settings, run)
    assert tried[:6] == pytest.approx([0.01, 0.04, 0.16, 0.64, 0.32, 0.32 / 2**0.5])
    assert len(tried) == 8
    assert 1 / 6 <= found.strength < 1.1 / 6
    assert run(found) <= 0.006
    assert strength_for(replace(settings, target_bops=0.0), run) is not None
    with pytest.raises(FormatError, match="target bops must be reached in 2 trainings, not 1e-06: the least were"):
        strength_for(replace(settings, target_bops=1e-6, search_runs=2), run)


def test_wider_tensors_than_hardware_has_are_refused(graph: Graph, images: ImageSet) -> None:
    quantizer = BayesianBits(graph, SPEC, BayesianSettings(open_bits=16))
    with pytest.raises(UnsupportedError, match="0 must have weights of at most 8 bits in hardware, not 16"):
        fine_tune(graph, SPEC, quantizer, images.images[:8])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": -1.0}, "strength must not be negative, not -1.0"),
        ({"prune_bits": 3}, "prune bits must be 2, 4 or 8, not 3"),
        ({"open_bits": 5}, "open bits must be 2, 4, 8, 16 or 32, not 5"),
        ({"fixed_share": 1.0}, "fixed share must be from 0 to less than 1, not 1.0"),
        ({"target_bops": 2.0}, "target bops must be a share from 0 to less than 1, not 2.0"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        BayesianSettings(**change)  # type: ignore[arg-type]


def test_gates_that_plain_gradients_would_not_move_are_refused(graph: Graph) -> None:
    with pytest.raises(FormatError, match="optimizer must be adam, not sgd"):
        BayesianBits(graph, SPEC, BayesianSettings(), TrainingSettings())


def test_shares_are_exact(learnt: tuple[BayesianBits, Trained]) -> None:
    quantizer, found = learnt
    share = quantizer.kept("0")
    assert isinstance(share, Fraction)
    assert share == Fraction(round(found.history[-1].facts["0 kept"] * 8), 8)
