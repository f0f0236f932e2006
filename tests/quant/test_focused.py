from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError, ToolMissingError
from gatewise.kernels.shift import Midpoint, ShiftFormat, nearest_codes
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.focused import FocusedSettings, FocusedTraining, Phase, nearest_shift
from gatewise.quant.graph import Graph
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import EncodedWeights, QuantizedWeights
from gatewise.quant.training import EpochReport, Progress, Trained, TrainingSettings, fine_tune
from gatewise.rtl.cxxrtl import find_compiler
from gatewise.rtl.engine.cosim import compile_engine, regress_network
from gatewise.sim.compile import compile_network
from gatewise.sim.engine import EngineConfig
from gatewise.sim.file import load
from gatewise.sim.images import ImageSet, quantise_images
from gatewise.sim.random_cases import ENGINES
from small_networks import blob_images, shaken
from torch import nn

SPEC = InputSpec((2, 8, 8), (0.5,), (0.25,))
TRAINING = TrainingSettings(epochs=8, batch=32, learning_rate=0.05, held_out=0.0)
FLOAT_BYTES = 1_076_136
"""Of ResNet-20 with folded batch norms in float32."""
ENGINE = EngineConfig(rows=8, lanes=8, pixels=64, array="shift", decoder="huffman")


class Stack(nn.Sequential):
    """Two inner convolutions between a first one and a linear layer; one batch norm has negative weights."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, 2, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 8, 3, bias=True), nn.ReLU(),
            nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return blob_images(192)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    module = shaken(Stack())
    with torch.no_grad():
        module[4].weight[::2] *= -1
    return capture_unfolded(module, torch.zeros(1, 2, 8, 8))


class Kept(FocusedTraining):
    """Keeps the network that it was asked to quantise."""

    def quantized(self, network, spec, statistics):  # type: ignore[no-untyped-def]
        self.network = network
        return super().quantized(network, spec, statistics)


def trained(
    graph: Graph, images: ImageSet, settings: FocusedSettings, training: TrainingSettings = TRAINING
) -> tuple[Trained, Kept]:
    quantizer = Kept(SPEC, settings, training)
    return fine_tune(graph, SPEC, quantizer, images.images[:32], images, training), quantizer


def check_exported(found: Trained, quantizer: Kept, bits: int) -> None:
    """Every layer's weights are what the network in training multiplies, in the scheme that is due to it."""
    network = quantizer.network
    for layer in found.quantized.layers:
        own = network.layers[layer.name]
        used = quantizer.weight(layer.op, own.weight, own.gain)
        used = used * own.gain.reshape(-1, *(1,) * (used.ndim - 1))
        np.testing.assert_allclose(used.detach(), layer.weights.real, rtol=1e-5, atol=1e-7)
        assert isinstance(layer.weights, QuantizedWeights if layer.name in ("0", "9") else EncodedWeights)
        if isinstance(layer.weights, EncodedWeights):
            assert layer.weights.bits <= bits


@pytest.mark.parametrize("midpoint", ["arithmetic", "log"])
@pytest.mark.parametrize(("bits", "bias"), [(0, 0), (1, 2), (2, 1), (3, 9), (4, 13)])
def test_tensors_are_rounded_as_the_kernel_rounds(midpoint: Midpoint, bits: int, bias: int) -> None:
    rng = np.random.default_rng(bits)
    values = np.concatenate([
        rng.normal(size=2000) * 2.0 ** rng.integers(-16, 6, 2000),
        *([sign * mantissa * 2.0**power for mantissa in (1, 1.25, 1.5, np.nextafter(1.5, 1), 1.75)]
          for power in range(-18, 8) for sign in (-1, 1)), [0.0],
    ])  # fmt: skip
    exponents = torch.tensor([-bias, (1 << bits) - 1 - bias], dtype=torch.int32)
    sign, exponent = nearest_shift(torch.from_numpy(values), exponents, midpoint)
    fields = ShiftFormat(bits).split(nearest_codes(values, ShiftFormat(bits), bias, midpoint))
    np.testing.assert_array_equal(sign, fields.sign)
    np.testing.assert_array_equal(torch.where(sign != 0, exponent + bias, 0), fields.exponent)
    single = nearest_shift(torch.from_numpy(values.astype(np.float32)), exponents, midpoint)
    wanted = nearest_shift(torch.from_numpy(values.astype(np.float32).astype(np.float64)), exponents, midpoint)
    assert all(torch.equal(ours.double(), theirs.double()) for ours, theirs in zip(single, wanted, strict=True))


def test_epochs_prune_then_quantise_portion_by_portion() -> None:
    settings = FocusedSettings(sparsity=0.8, pruning_share=0.5, ramp_share=0.2)
    phases = [Phase.of(settings, epoch, 20) for epoch in range(20)]
    assert [phase.portion for phase in phases] == [0] * 10 + [0.25, 0.5, 0.75, 0.875] + [1] * 6
    sparsities = [phase.sparsity for phase in phases]
    assert sparsities == sorted(sparsities)
    assert sparsities[6:] == [0.8] * 14
    assert 0.2 < sparsities[0] < 0.4
    assert [epoch for epoch, phase in enumerate(phases) if phase.fits] == [10, 11, 13, 17]
    once = replace(settings, refit=False)
    assert [epoch for epoch in range(20) if Phase.of(once, epoch, 20).fits] == [10]


@pytest.mark.parametrize("epochs", range(1, 9))
def test_the_last_epoch_quantises_all(epochs: int) -> None:
    phases = [Phase.of(FocusedSettings(), epoch, epochs) for epoch in range(epochs)]
    assert phases[-1].portion == 1
    assert sum(phase.fits for phase in phases) >= 1
    first = next(phase for phase in phases if phase.portion)
    assert first.fits


@pytest.mark.parametrize("bits", [3, 5, 7])
@pytest.mark.parametrize("pruning", ["surgery", "magnitude"])
def test_what_trains_is_what_is_exported(graph: Graph, images: ImageSet, bits: int, pruning: str) -> None:
    settings = FocusedSettings(weight_bits=bits, sparsity=0.5, pruning=pruning)  # type: ignore[arg-type]
    found, quantizer = trained(graph, images, settings)
    check_exported(found, quantizer, bits)
    inner = [layer.weights.real for layer in found.quantized.layers if isinstance(layer.weights, EncodedWeights)]
    assert abs(np.mean([weight == 0 for weight in np.concatenate([weight.ravel() for weight in inner])]) - 0.5) < 0.01
    right = np.mean(found.quantized.run(images.images).argmax(1) == images.labels)
    result = export_network(found.quantized, "stack", {}).run(images, ENGINE)
    assert right > 0.9
    assert abs((result.top(1) or 0) - right) < 0.02


FAULTS = {
    "components exchanged": lambda sign, exponent, component, pruned: (sign, exponent, 1 - component, pruned),
    "an exponent more": lambda sign, exponent, component, pruned: (sign, exponent + 1, component, pruned),
    "pruned weights at a mean": lambda sign, exponent, component, pruned: (sign, exponent, component, pruned & False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_export_of_other_weights_is_found(
    graph: Graph, images: ImageSet, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = EncodedWeights.focused
    monkeypatch.setattr(
        EncodedWeights, "focused", lambda *parts, **others: made(*FAULTS[fault](*parts[:4]), *parts[4:], **others)
    )
    found, quantizer = trained(graph, images, FocusedSettings(sparsity=0.5), replace(TRAINING, epochs=1))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_exported(found, quantizer, 5)


@pytest.mark.parametrize("means", ["kept", "rounded", "absolute"])
def test_means_over_sigma_are_powers_of_two(graph: Graph, images: ImageSet, means: str) -> None:
    settings = FocusedSettings(sparsity=0.5, means=means)  # type: ignore[arg-type]
    quantizer = FocusedTraining(SPEC, settings, replace(TRAINING, epochs=0))
    found = fine_tune(graph, SPEC, quantizer, images.images[:32])
    for name in ("3", "6"):
        layer = quantizer.focused[name]
        assert layer.recentralised
        mantissas = np.frexp((layer.means / layer.sigma).double().numpy())[0]
        np.testing.assert_array_equal(np.abs(mantissas), 0.5)
        if means == "absolute":
            assert np.frexp(float(layer.sigma))[0] == 0.5
        weights = next(node for node in found.quantized.layers if node.name == name).weights.real
        gain = graph.folded().gains.get(name, np.ones(len(weights)))[:, None, None, None]
        own, real = graph.parameters[name].weight, weights / gain
        kept = real != 0
        assert np.abs(own[kept]).min() > np.abs(own[~kept]).max() - 1e-12
        assert ((real - own)[kept] ** 2).mean() < 0.15 * own[kept].var()


def test_layers_without_two_modes_are_plain_shift(graph: Graph, images: ImageSet) -> None:
    schemes = {}
    for separation in (0.0, 2.0, 5.0):
        settings = FocusedSettings(sparsity=0.5, separation=separation)
        quantizer = FocusedTraining(SPEC, settings, replace(TRAINING, epochs=0))
        quantized = fine_tune(graph, SPEC, quantizer, images.images[:32]).quantized
        schemes[separation] = [
            layer.weights.codes.spec.scheme for layer in quantized.layers if isinstance(layer.weights, EncodedWeights)
        ]
        assert all(layer.weights.bits == 5 for layer in quantized.layers if isinstance(layer.weights, EncodedWeights))
    assert schemes == {0.0: ["focused"] * 2, 2.0: ["focused"] * 2, 5.0: ["shift"] * 2}


def test_components_are_drawn_from_the_posterior(graph: Graph, images: ImageSet) -> None:
    def plus(components: str, seed: int) -> torch.Tensor:
        settings = FocusedSettings(sparsity=0.0, separation=0.0, components=components, seed=seed)  # type: ignore[arg-type]
        quantizer = FocusedTraining(SPEC, settings, replace(TRAINING, epochs=0))
        fine_tune(graph, SPEC, quantizer, images.images[:32])
        drawn: torch.Tensor = quantizer.focused["6"].plus
        return drawn

    likeliest = plus("likeliest", 0)
    assert torch.equal(likeliest, plus("likeliest", 1))
    first, second = plus("sampled", 0), plus("sampled", 1)
    assert torch.equal(first, plus("sampled", 0))
    assert 0 < (first != second).float().mean() < 0.6
    weight = torch.from_numpy(graph.parameters["6"].weight)
    great = weight.abs() > 1.5 * weight.std()
    assert (first == likeliest)[great].float().mean() > 0.9


def test_a_resumed_training_goes_on_bit_for_bit(graph: Graph, images: ImageSet, tmp_path: Path) -> None:
    class Cut(Progress):
        def __init__(self, after: int) -> None:
            self.after = after

        def epoch(self, report: EpochReport) -> None:
            if report.epoch == self.after:
                raise KeyboardInterrupt

    settings = FocusedSettings(sparsity=0.6)
    whole, _ = trained(graph, images, settings)
    for after in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            fine_tune(
                graph, SPEC, Kept(SPEC, settings, TRAINING), images.images[:32], images, TRAINING,
                resume=tmp_path, progress=Cut(after),
            )  # fmt: skip
    for _ in range(2):  # what is finished already converts the same
        resumed = fine_tune(
            graph, SPEC, Kept(SPEC, settings, TRAINING), images.images[:32], images, TRAINING, resume=tmp_path
        )
        for first, second in zip(whole.quantized.layers, resumed.quantized.layers, strict=True):
            np.testing.assert_array_equal(first.weights.real, second.weights.real)


def test_a_trained_network_runs_in_rtl_as_in_the_simulator(graph: Graph, images: ImageSet) -> None:
    """Focused, plain shift and integer layers behind Huffman decoders: the engine that other tests build as well."""
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    name = "8x4/128 huffman shift"
    design = compile_engine(ENGINES[name], formats=True)
    for separation, schemes in ((2.0, {"int", "focused"}), (5.0, {"int", "shift"})):
        found, _ = trained(graph, images, FocusedSettings(separation=separation), replace(TRAINING, epochs=2))
        network = export_network(found.quantized, "stack", {})
        assert {node.weights.scheme for node in network.mac_nodes()} == schemes
        compiled = compile_network(network, ENGINES[name])
        codes = quantise_images(images[:2], network.manifest.input)
        for stall in (0.0, 0.3):
            result = regress_network(design, compiled, codes, stall=stall)
            assert result.mismatch is None
            assert result.images == 2
            assert result.overflows == 0


def test_refreshed_activations_are_those_of_the_pruned_network(graph: Graph, images: ImageSet) -> None:
    training = replace(TRAINING, epochs=3, refresh=True)
    found, quantizer = trained(graph, images, FocusedSettings(sparsity=0.8), training)
    kept, _ = trained(graph, images, FocusedSettings(sparsity=0.8), replace(training, refresh=False))
    name = found.quantized.layers[2].inputs[0]
    assert found.quantized.tensors[name].scale != kept.quantized.tensors[name].scale
    result = export_network(found.quantized, "stack", {}).run(images, ENGINE)
    fake = quantizer.network(torch.from_numpy(SPEC.normalise(images.images))).argmax(1).numpy()
    assert np.mean(result.predictions == fake) > 0.9  # whose grids are those of the last epoch's start


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight_bits": 2}, "weight bits must be 3 to 7, not 2"),
        ({"activation_bits": 9}, "activation bits must be 1 to 8, not 9"),
        ({"sparsity": 1.0}, "sparsity must be from 0 to less than 1, not 1.0"),
        ({"pruning_share": 0.6, "ramp_share": 0.4}, "pruning share and ramp share must leave some of 1"),
        ({"separation": float("nan")}, "separation must be 0 or more, not nan"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        FocusedSettings(**wrong)  # type: ignore[arg-type]


def test_a_network_without_inner_layers_is_refused(images: ImageSet) -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    shallow = capture_unfolded(module.eval(), torch.zeros(1, 2, 8, 8))
    with pytest.raises(FormatError, match="must have layers between its first and its last one"):
        fine_tune(shallow, SPEC, Kept(SPEC, FocusedSettings(), TRAINING), images.images[:8])


@pytest.mark.parametrize(("name", "bits", "factor"), [("s61-w5", 5, 9), ("s77-w5", 5, 11), ("s65-w3", 3, 11)])
def test_kept_exports_have_the_size_that_the_results_say(name: str, bits: int, factor: float) -> None:
    path = Path(__file__).parents[2] / "bench" / "trained" / f"focused-{name}.gw"
    assert FLOAT_BYTES / path.stat().st_size >= factor
    inner = [node.weights for node in load(path).mac_nodes() if node.name not in ("conv1", "linear")]
    assert len(inner) == 18
    assert {spec.scheme for spec in inner} <= {"focused", "shift"}
    assert all(spec.coding == "huffman" and spec.bits == bits for spec in inner)
