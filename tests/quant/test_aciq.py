from dataclasses import replace

import numpy as np
import pytest
import torch
from gatewise.kernels.align import alignment_factors
from gatewise.kernels.allocation import allocate_bins, allocate_bits
from gatewise.kernels.errors import FormatError
from gatewise.quant.aciq import AciqSettings, aciq, align_steps, kld_ratios, run_time_logits
from gatewise.quant.capture import capture
from gatewise.quant.clipping import Clip, bin_factor, clip_factor, kld_clip
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph, Parameters
from gatewise.quant.minmax import minmax
from gatewise.quant.networks import Network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import accuracy
from gatewise.quant.statistics import Statistics, collect
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

SPEC = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))
STEPS = st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=12).map(np.array)


@given(STEPS)
def test_shifted_steps_are_the_nearest_powers_within_reach(steps: np.ndarray) -> None:
    base, amounts = align_steps(steps, "shift")
    assert amounts.min() == 0
    assert amounts.max() <= 8
    ratio = base * alignment_factors("shift", amounts) / steps
    reach = steps > steps.max() / 256
    assert np.all(np.abs(np.log2(ratio[reach])) <= 0.5 + 1e-9)
    assert np.all(ratio[~reach] >= 1 - 1e-9)


@given(STEPS)
def test_steps_rounded_up_never_clip_more(steps: np.ndarray) -> None:
    base, amounts = align_steps(steps, "shift", "ceil")
    ratio = base * alignment_factors("shift", amounts) / steps
    assert np.all(ratio >= 1 - 1e-9)
    assert np.all(ratio[steps > steps.max() / 256] < 2 + 1e-9)


@given(STEPS)
def test_no_other_base_comes_nearer_to_the_steps(steps: np.ndarray) -> None:
    base, amounts = align_steps(steps, "shift")

    def cost(base: float, amounts: np.ndarray) -> float:
        return float(np.sum(steps**2 * np.log2(base * 2.0**amounts / steps) ** 2))

    found = cost(base, amounts)
    for other in steps.max() * 2.0 ** (np.arange(16) / 16 - 8.5):
        assert found <= cost(other, np.clip(np.rint(np.log2(steps / other)), 0, 8)) * (1 + 1e-9) + 1e-12


@given(STEPS)
def test_multiplied_steps_are_within_half_a_base(steps: np.ndarray) -> None:
    base, amounts = align_steps(steps, "mul")
    assert amounts.min() >= 1
    assert amounts.max() == 255
    assert np.all(np.abs(base * amounts - steps)[steps > base] <= base * (0.5 + 1e-6))


def test_dead_channels_take_the_least_amount() -> None:
    steps = np.array([0.0, 0.25, 1.0])
    assert align_steps(steps, "shift")[1].tolist() == [0, 0, 2]
    assert align_steps(np.zeros(2), "shift") == (1.0, pytest.approx([0, 0]))
    assert align_steps(np.zeros(2), "mul")[1].tolist() == [1, 1]


@pytest.fixture(scope="module")
def statistics(residual: Graph, residual_images: np.ndarray) -> Statistics:
    return collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))


def test_a_rectified_channel_is_clipped_at_its_mean_and_a_multiple_of_b(
    residual: Graph, statistics: Statistics
) -> None:
    settings = AciqSettings(alignment="mul", within_observed=False)
    copy = aciq(residual, SPEC, statistics, settings).tensors["stem.0@4"]
    seen = statistics["stem.0"].channel
    expected = (np.maximum(seen.mean, 0) + clip_factor("laplace", 4, half=True) * seen.b) / 15
    np.testing.assert_allclose(copy.steps, expected, atol=copy.scale)


def test_clips_beyond_what_calibration_saw_end_there(residual: Graph, statistics: Statistics) -> None:
    copy = aciq(residual, SPEC, statistics, AciqSettings(alignment="mul")).tensors["stem.0@4"]
    greatest = np.maximum(statistics["stem.0"].channel.max, 0)
    assert np.all(copy.steps * 15 <= greatest + 15 * copy.scale)


def test_first_and_last_layers_have_8_bits_and_one_step(residual: Graph, statistics: Statistics) -> None:
    network = aciq(residual, SPEC, statistics)
    first, *_, last = network.layers
    for layer in (first, last):
        source = network.tensors[layer.inputs[0]]
        assert (layer.weights.bits, source.bits) == (8, 8)
        assert not source.amounts.any()
    low, high = SPEC.range
    tensor = network.tensors["input@8"]
    assert tensor.scale == pytest.approx((high - low) / 255)


def test_settings_outside_the_hardware_are_refused() -> None:
    with pytest.raises(FormatError, match="weight bits must be 1 to 8, not 9"):
        AciqSettings(weight_bits=9)
    with pytest.raises(FormatError, match="mul alignment must have weights and activations of at most 4 bits"):
        AciqSettings(activation_bits=8, alignment="mul")


def test_resnet20_at_4_bits_is_near_its_float_logits_and_far_nearer_than_min_max(
    resnet20: Network,
    resnet20_graph: Graph,
    resnet20_statistics: Statistics,
    cifar_train: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = cifar_train[0][1000:1064], cifar_train[1][1000:1064]
    with torch.no_grad():
        expected = resnet20_graph.run(torch.from_numpy(resnet20.input.normalise(images))).numpy()

    def error(logits: np.ndarray) -> float:
        return float(np.sum((logits - expected) ** 2) / np.sum(expected**2))

    best = aciq(resnet20_graph, resnet20.input, resnet20_statistics).run(images)
    naive = minmax(resnet20_graph, resnet20.input, resnet20_statistics).run(images)
    assert accuracy(best, labels) > 0.95
    assert error(best) < 0.06
    assert error(best) < 0.4 * error(naive)


def test_every_choice_of_defaults_is_the_better_one(
    resnet20: Network,
    resnet20_graph: Graph,
    resnet20_statistics: Statistics,
    cifar_train: tuple[np.ndarray, np.ndarray],
) -> None:
    images = cifar_train[0][1000:1040]
    with torch.no_grad():
        expected = resnet20_graph.run(torch.from_numpy(resnet20.input.normalise(images))).numpy()

    def error(settings: AciqSettings) -> float:
        network = aciq(resnet20_graph, resnet20.input, resnet20_statistics, settings)
        return float(np.mean((network.run(images) - expected) ** 2))

    chosen = AciqSettings()
    default = error(chosen)
    assert default < error(replace(chosen, step_rounding="ceil"))
    assert default < error(replace(chosen, prior="gauss"))
    assert default < error(replace(chosen, mean_correction=False))


@pytest.mark.parametrize("clip", ["kld", "sigma2", "minmax"])
def test_other_clips_keep_their_rule(clip: Clip, residual: Graph, statistics: Statistics) -> None:
    settings = AciqSettings(alignment="mul", clip=clip)
    copy, seen = aciq(residual, SPEC, statistics, settings).tensors["stem.0@4"], statistics["stem.0"].channel
    top = np.maximum(seen.max, 0)
    expected = {
        "minmax": top,
        "sigma2": np.minimum(np.maximum(seen.mean, 0) + 2 * seen.std, top),
        "kld": kld_clip(seen.counts, 4, half=True) * np.maximum(-seen.min, seen.max),
    }[clip]
    np.testing.assert_allclose(copy.steps * 15, np.minimum(expected, top), atol=15 * copy.scale)


def test_channels_share_their_layers_bits_by_their_spread(residual: Graph, statistics: Statistics) -> None:
    settings = AciqSettings(allocate_weights=True, allocate_activations=True)
    network = aciq(residual, SPEC, statistics, settings)
    for layer in network.layers[1:-1]:
        weight = residual.parameters[layer.name].weight
        spread = weight.reshape(len(weight), -1).std(1, ddof=1)
        assert layer.weights.widths is not None
        np.testing.assert_array_equal(layer.weights.widths, allocate_bits(spread, 4))
    left, seen = network.tensors["left@4"], statistics["left"].channel
    assert left.widths is not None
    # Channels that are never positive take no bits from the others.
    np.testing.assert_array_equal(left.widths, allocate_bits(np.where(seen.max > 0, seen.b, 0), 4))
    assert left.bits == left.widths.max() > left.widths.min()
    # A copy of a 16-bit stream has one width, and so have the first and the last layer.
    assert network.tensors["stem.0@4"].widths is None
    assert network.layers[0].weights.widths is network.layers[-1].weights.widths is None


def test_a_channel_without_bits_is_constant(residual: Graph, statistics: Statistics) -> None:
    parameters = dict(residual.parameters)
    weight, bias = (array.copy() for array in parameters["left"])
    weight[3] = 1e-4 * weight[3] + 0.02
    weight[5], bias[5] = -np.abs(weight[5]), -50.0
    parameters["left"] = Parameters(weight, bias)
    graph = replace(residual, parameters=parameters)
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    seen = collect(graph, torch.from_numpy(SPEC.normalise(images)))
    network = aciq(graph, SPEC, seen, AciqSettings(allocate_weights=True, allocate_activations=True))
    weights, left = network.layers[1].weights, network.tensors["left@4"]
    assert weights.widths is not None
    assert left.widths is not None
    assert (weights.widths[3], left.widths[5]) == (0, 0)
    assert not weights.codes[3].any()
    np.testing.assert_allclose(weights.real[3], weight[3].mean(), rtol=1e-2)
    trace: dict[str, np.ndarray] = {}
    network.run(images, trace=trace)
    assert not trace["left@4"][:, 5].any()
    result = export_network(network, "residual", {}).run(images, trace=True)
    assert np.mean(result.tensors["left"] != trace["left@4"]) < 1e-3


def test_allocation_that_hardware_does_not_have_is_refused() -> None:
    with pytest.raises(
        FormatError, match="bit allocation, which gives some channels more than 4 bits, must have shift"
    ):
        AciqSettings(alignment="mul", allocate_weights=True)
    with pytest.raises(FormatError, match="bit allocation of activations must have a step for each channel"):
        AciqSettings(per_channel=False, allocate_activations=True)
    assert not AciqSettings(8, 8, allocate_weights=True).allocates_weights


def test_mid_tread_steps_are_clipped_ranges_over_bins(residual: Graph, statistics: Statistics) -> None:
    settings = AciqSettings(mid_tread=True, allocate_weights=True, allocate_activations=True, coding="huffman")
    network = aciq(residual, SPEC, statistics, settings)
    left, seen = network.tensors["left@4"], statistics["left"].channel
    spread = np.where(seen.max > 0, seen.b, 0)
    bins = allocate_bins(spread, 4)
    alpha = bin_factor("laplace", bins, half=True) * seen.b
    live = bins > 0
    ratio = np.log2(left.steps[live] / (alpha[live] / bins[live]))
    assert np.all(np.abs(ratio) <= 0.5 + 1e-9)
    assert left.widths is not None
    # Bounds are rounded to codes, and up to the greatest code of the channel's width.
    top = np.rint(np.minimum(np.maximum(seen.mean, 0) + alpha, 6) / left.steps)[live]
    assert np.all((1 << left.widths[live]) > top)
    assert np.all((1 << left.widths[live]) <= 2 * np.maximum(top, 1))
    assert (left.zero_point, left.low) == (0, 0)
    assert {layer.weights.coding for layer in network.layers} == {"huffman"}
    exported = export_network(network, "residual", {})
    specs = [node.weights for node in exported.mac_nodes()]
    assert {spec.coding for spec in specs} == {"huffman"}
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    result = exported.run(images, trace=True)
    trace: dict[str, np.ndarray] = {}
    network.run(images, trace=trace)
    assert np.mean(result.tensors["left"] != trace["left@4"]) < 1e-3


def test_a_signed_tensors_mid_tread_codes_are_signed() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    graph = capture(module.eval(), torch.zeros(1, 2, 8, 8))
    spec = InputSpec((2, 8, 8), (0.5,), (0.25,))
    images = np.random.default_rng(2).integers(0, 256, (8, 2, 8, 8), dtype=np.uint8)
    statistics = collect(graph, torch.from_numpy(spec.normalise(images)))
    network = aciq(graph, spec, statistics, AciqSettings(mid_tread=True, allocate_activations=True))
    tensor = network.tensors["0@4"]
    assert (tensor.signed, tensor.zero_point, tensor.widths) == (True, 0, None)
    trace: dict[str, np.ndarray] = {}
    network.run(images, trace=trace)
    assert trace["0@4"].min() < 0 < trace["0@4"].max()
    result = export_network(network, "signed", {}).run(images, trace=True)
    np.testing.assert_array_equal(result.tensors["0"], trace["0@4"])


def test_the_mid_tread_variant_has_clips_of_its_own() -> None:
    with pytest.raises(FormatError, match="mid-tread variant must have analytical clips and shift alignment, not kld"):
        AciqSettings(mid_tread=True, clip="kld")


def test_run_time_statistics_are_those_of_each_batch(residual: Graph, residual_images: np.ndarray) -> None:
    logits = run_time_logits(residual, SPEC, residual_images, batch=10)
    own = collect(residual, torch.from_numpy(SPEC.normalise(residual_images[10:20])))
    np.testing.assert_array_equal(logits[10:20], aciq(residual, SPEC, own).run(residual_images[10:20]))
    assert logits.shape == (24, 5)
    assert not np.array_equal(logits[:10], aciq(residual, SPEC, own).run(residual_images[:10]))


def test_step_ratios_are_those_of_the_two_clips(residual: Graph, statistics: Statistics) -> None:
    ratios = kld_ratios(residual, statistics)
    assert [each.name for each in ratios] == ["stem.0", "left"]
    steps = [
        aciq(residual, SPEC, statistics, AciqSettings(alignment="mul", clip=clip, per_channel=False))
        .tensors["stem.0@4"]
        .steps[0]
        for clip in ("analytical", "kld")
    ]
    assert ratios[0].tensor == pytest.approx(steps[0] / steps[1])
