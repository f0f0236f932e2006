from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gatewise import EngineConfig
from gatewise.kernels.errors import FormatError, ToolMissingError
from gatewise.quant.agreement import agreement
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.flexor import FlexorSettings, FlexorTraining, account, flexor_training
from gatewise.quant.graph import Graph
from gatewise.quant.methods import METHODS, Quantisation, parse_settings
from gatewise.quant.networks import load_network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.trainable import TrainableGraph
from gatewise.quant.training import EpochReport, Progress, Trained, TrainingSettings, fine_tune
from gatewise.rtl.cxxrtl import find_compiler
from gatewise.rtl.engine.cosim import compile_engine, regress_network
from gatewise.sim.compile import compile_network
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet, quantise_images
from gatewise.sim.inspect import inspect_file
from gatewise.sim.random_cases import ENGINES
from small_networks import blob_images, shaken
from torch import nn

SPEC = InputSpec((2, 8, 8), (0.5,), (0.25,))
TRAINING = TrainingSettings(epochs=6, batch=32, learning_rate=0.05, held_out=0.1)
SETTINGS = FlexorSettings(n_in=6, n_out=8, edges="encrypted", engine="4x4", alpha=0, activation_bits=4)


class Blobs(nn.Sequential):
    """A stem that the host unfolds, a batch norm, a max pool, a grouped convolution and linear layers over a map."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 3),
        )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return blob_images(320)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return capture_unfolded(shaken(Blobs()), torch.zeros(1, 2, 8, 8))


def trained(graph: Graph, images: ImageSet, settings: FlexorSettings, **changes) -> Trained:
    recipe = replace(TRAINING, **changes)
    return fine_tune(graph, SPEC, flexor_training(graph, SPEC, settings, recipe), images.images[:32], images, recipe)


def quantisation(found: Trained, requantise="scale") -> Quantisation:
    return Quantisation(found.graph, found.quantized, export_network(found.quantized, "blobs", {}, requantise))


@pytest.fixture(scope="module")
def learnt(graph: Graph, images: ImageSet) -> Trained:
    """Two planes of two rates."""
    return trained(graph, images, replace(SETTINGS, planes=2, n_in="6,5,7,8"))


def test_a_network_learns_from_noise(learnt: Trained, images: ImageSet) -> None:
    assert learnt.history[-1].held_out_top1 > 0.8
    right = np.mean(learnt.quantized.run(images.images).argmax(1) == images.labels)
    assert right > 0.85
    assert learnt.quantized.settings["bits_per_weight"] > 2 * 5 / 8


def test_what_is_exported_computes_what_was_quantised(learnt: Trained, images: ImageSet) -> None:
    for requantise in ("scale", "threshold"):
        found = quantisation(learnt, requantise)
        assert found.network.scheme == "xor"
        compared = agreement(found, images.images[:100])
        assert compared.worst("threshold") == 0
        assert compared.worst("scale") < 1e-4
        assert compared.predictions == 1


class Kept(FlexorTraining):
    """Keeps the network that it was asked to quantise."""

    def quantized(self, network, spec, statistics):  # type: ignore[no-untyped-def]
        self.network = network
        return super().quantized(network, spec, statistics)


@pytest.mark.parametrize("edges", ["integer", "encrypted"])
def test_what_trains_is_what_is_exported(graph: Graph, images: ImageSet, edges) -> None:
    negative = {name: norm._replace(weight=norm.weight * -1) for name, norm in graph.norms.items()}
    recipe = replace(TRAINING, epochs=2)
    kept = Kept(SPEC, replace(SETTINGS, planes=2, edges=edges, activation_bits=8), recipe)
    found = fine_tune(replace(graph, norms=negative), SPEC, kept, images.images[:32], images, recipe)
    network: TrainableGraph = kept.network
    assert (network.gain(graph.layers[1]) < 0).any()
    for layer in found.quantized.layers:
        own = network.layers[layer.name]
        gain = own.gain.reshape(-1, *(1,) * (own.weight.ndim - 1))
        used = (network.quantizer.weight(layer.op, own.weight, own.gain) * gain).detach().numpy()
        np.testing.assert_allclose(used, layer.weights.real, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        fake = network(torch.from_numpy(SPEC.normalise(images.images))).numpy()
    exact = found.quantized.run(images.images)
    assert np.mean(exact.argmax(1) == fake.argmax(1)) > 0.97
    assert np.mean(np.abs(exact - fake) < 0.05 * np.abs(fake).max()) > 0.9
    # The float network of the end has the decoded weights: it classifies as the quantised one does.
    real = found.graph.run(torch.from_numpy(SPEC.normalise(images.images))).numpy()
    assert np.mean(real.argmax(1) == fake.argmax(1)) > 0.95


def test_a_trained_network_begins_with_the_nearest_signs(images: ImageSet) -> None:
    torch.manual_seed(1)
    graph = capture_unfolded(shaken(Blobs()), torch.zeros(1, 2, 8, 8))
    kept = Kept(
        SPEC, replace(SETTINGS, n_in=8, n_out=8, taps=1, begin="float", engine="natural"), replace(TRAINING, epochs=0)
    )
    found = fine_tune(graph, SPEC, kept, images.images[:32])
    for layer in graph.layers:
        weight = graph.parameters[layer.name].weight
        decoded = kept.network.weight(layer).numpy()
        agree = np.mean((decoded > 0) == (weight > 0))
        # Eight outputs of one random input each can have about 8 * (1 - 1/e) signs of their own.
        assert agree > 0.75
        flat = (np.sign(decoded) * weight).reshape(len(weight), -1)
        np.testing.assert_allclose(
            np.abs(decoded).reshape(len(weight), -1)[:, 0], np.maximum(flat.mean(1), 0), rtol=1e-5
        )
    assert found.history == ()


def test_noise_is_not_converted(graph: Graph) -> None:
    with pytest.raises(FormatError, match="encrypted weights that begin as noise must be trained"):
        flexor_training(graph, SPEC, FlexorSettings(), TrainingSettings(epochs=0))


@pytest.mark.parametrize("gradient", ["straight-through", "analog", "real"])
def test_the_ablations_train_too(graph: Graph, images: ImageSet, gradient) -> None:
    found = trained(graph, images, replace(SETTINGS, gradient=gradient, activations="real"), epochs=3)
    assert found.history[-1].loss < found.history[0].loss
    assert agreement(quantisation(found), images.images[:32]).worst("scale") < 1e-4


def test_a_resumed_training_goes_on_bit_for_bit(graph: Graph, images: ImageSet, tmp_path: Path) -> None:
    class Cut(Progress):
        def epoch(self, report: EpochReport) -> None:
            raise KeyboardInterrupt

    recipe = replace(TRAINING, epochs=2)

    def run(**how):  # type: ignore[no-untyped-def]
        quantizer = flexor_training(graph, SPEC, SETTINGS, recipe)
        return fine_tune(graph, SPEC, quantizer, images.images[:32], images, recipe, **how)

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(resume=tmp_path, progress=Cut())
    resumed = run(resume=tmp_path)
    for first, second in zip(whole.quantized.layers, resumed.quantized.layers, strict=True):
        np.testing.assert_array_equal(first.weights.real, second.weights.real)
        np.testing.assert_array_equal(first.bias, second.bias)


def test_slices_stand_in_the_order_of_the_engine(graph: Graph, images: ImageSet) -> None:
    engine = EngineConfig(rows=4, lanes=4, array="sign", decoder="xor", bus_bits=32)
    read, cycles = {}, {}
    for order in ("4x4", "natural"):
        found = quantisation(trained(graph, images, replace(SETTINGS, n_in=12, n_out=15, engine=order), epochs=1))
        result = found.network.run(images[:4], engine)
        read[order] = {layer.name: layer.bytes_read for layer in result.layers if layer.macs}
        cycles[order] = result.cycles_per_image
    assert all(read["4x4"][name] <= read["natural"][name] for name in read["4x4"])
    assert sum(read["4x4"].values()) < 0.6 * sum(read["natural"].values())
    assert cycles["4x4"] < cycles["natural"]


def test_the_file_has_the_bits_that_the_account_says(learnt: Trained, graph: Graph, tmp_path: Path) -> None:
    settings = replace(SETTINGS, planes=2, n_in="6,5,7,8")
    counted = account(graph, settings)
    save_network(quantisation(learnt).network, tmp_path / "a.gw")
    facts = [node for node in inspect_file(tmp_path / "a.gw").nodes if node.stored]
    for node, layer, n_in in zip(facts, counted.layers, (6, 5, 7, 8), strict=True):
        assert node.stored.xor_bits == 2 * n_in / 8
        assert (node.weights, layer.encrypted) == (layer.weights, True)
        assert 0 <= 8 * node.coded_bytes - layer.stored < 2 * 8
        assert layer.coefficients == 16 * 2 * node.value.shape[0]
    assert counted.matrices == 2 * 8 * (6 + 5 + 7 + 8)


def test_the_account_of_the_papers_networks() -> None:
    def captured(name: str) -> Graph:
        network = load_network(name)
        return capture_unfolded(network.module, network.example)

    lenet = account(captured("lenet5"), FlexorSettings(n_in=16, edges="encrypted"))
    assert lenet.weights == 1_662_752
    assert lenet.encrypted_bits_per_weight == pytest.approx(0.8, abs=1e-4)
    assert lenet.bits_per_weight == pytest.approx(0.806, abs=1e-3)
    resnet = captured("cifar-resnet20")
    # Table 2: 19, 16 and 7 bits for 20 in the three stages are 0.47 bits a weight.
    mixed = account(resnet, FlexorSettings(n_in="19,16,7"), coefficient_bits=32)
    assert mixed.encrypted_bits_per_weight == pytest.approx(0.47, abs=0.005)
    assert [layer.encrypted for layer in mixed.layers] == [False, *[True] * 18, False]
    assert mixed.layers[0].stored == 8 * 432
    whole = sum(layer.stored + layer.coefficients for layer in mixed.layers) + 20 * (19 + 16 + 7)
    assert mixed.bits_per_weight == whole / mixed.weights


def test_the_slope_rises_and_doubles() -> None:
    settings = FlexorSettings(slope=10, slope_start=5, slope_warmup=0.2, slope_growth=2)
    assert [settings.slope_at(done) for done in (0, 0.1, 0.2, 0.49, 0.5, 0.75)] == [5, 7.5, 10, 10, 20, 40]
    assert FlexorSettings(slope_warmup=0).slope_at(0) == 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_out": "33"}, "n_out must be 1 to 32, not 33"),
        ({"n_in": "8,x"}, "n_in must be whole numbers joined by commas, not '8,x'"),
        ({"n_in": "33"}, "n_in must be 1 to 32 and at least the 2 taps"),
        ({"n_in": "3", "taps": "4"}, "at least the 4 taps, which must not be negative, not 3"),
        ({"planes": "5"}, "planes must be 1 to 4, not 5"),
        ({"gradient": "sign"}, "option gradient"),
        ({"slope": "0"}, "slope must be positive, not 0.0"),
        ({"limit": "-1"}, "limit must be 0 or more, not -1.0"),
        ({"engine": "5x4"}, "rows must be a power of two from 4 to 64, not 5"),
        ({"engine": "fast"}, r'engine must be rows x lanes \("16x16"\), a .toml file or natural, not \'fast\''),
        ({"activation_bits": "9"}, "activation bits must be 1 to 8, not 9"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_settings(METHODS["flexor"].settings, values)


def test_rates_must_fit_the_layers(graph: Graph) -> None:
    with pytest.raises(FormatError, match="one for each of 4 stages or one for each of 4 encrypted layers, not 3"):
        account(graph, replace(SETTINGS, n_in="6,6,6"))


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, planes=2, n_in="6,5,7,8", engine="4x8"),
        replace(SETTINGS, n_in=12, n_out=15, edges="integer", engine="4x8", activation_bits=8),
    ],
    ids=["two planes of several rates", "edges of integers"],
)
def test_a_trained_network_runs_in_rtl_as_in_the_simulator(
    graph: Graph, images: ImageSet, settings: FlexorSettings
) -> None:
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    engine = ENGINES["4x8/64 xor sign"]
    network = quantisation(trained(graph, images, settings, epochs=2)).network
    schemes = [node.weights.scheme for node in network.mac_nodes()]
    assert schemes == (["xor"] * 4 if settings.edges == "encrypted" else ["int", "xor", "xor", "int"])
    compiled = compile_network(network, engine)
    codes = quantise_images(images[:2], network.manifest.input)
    for stall in (0.0, 0.3):
        result = regress_network(compile_engine(engine, formats=True), compiled, codes, stall=stall)
        assert result.mismatch is None
        assert (result.images, result.overflows) == (2, 0)
