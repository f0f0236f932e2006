"""`gatewise.sim.run`: results do not depend on how images are spread, and are summed right."""

import json
import sys

import numpy as np
import pytest
from gatewise import EngineConfig, FormatError, Grid, ImageSet, MacFormat, NetworkBuilder
from gatewise.sim.arrays import array_form
from gatewise.sim.run import KEPT_ENGINES, run

DOCUMENTED = {"schema", "network", "scheme", "images", "top1", "top5", "cycles_per_image", "engine", "layers"}
BESIDES = {"images_per_second", "utilisation", "bops", "relative_bops", "bytes_read", "pruned"}
LAYER_DOCUMENTED = {
    "name", "op", "macs", "cycles", "compute", "weight_stall", "post_stall", "drain", "fill", "host", "utilisation",
    "bound_by", "bytes_read", "weight_bits", "overflow_align", "overflow_acc", "overflow_post", "form",
}  # fmt: skip
LAYER_BESIDES = {"faithful_channels", "clipped_constants", "overflow_product", "bops", "lanes", "idle_lanes"}
NARROW = EngineConfig(mac=MacFormat(product=7, align=8, acc=15))


@pytest.fixture
def network(samples):
    return samples.small().build()


def overflow_lists(result):
    return {
        name: {kind: getattr(counts, kind).tolist() for kind in ("product", "align", "acc", "post")}
        for name, counts in result.overflows.items()
    }


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
@pytest.mark.parametrize("workers", [1, 3])
def test_batch_and_threads_change_neither_codes_nor_overflows(samples, network, monkeypatch, batch, workers):
    images = samples.pixels(network, 7)
    expected = run(network, images, NARROW, batch=7)
    monkeypatch.setattr(sys.modules["gatewise.sim.run"], "threads", lambda: workers)
    monkeypatch.setattr(sys.modules["gatewise.sim.run"], "PART_MACS", 1)
    found = run(network, images, NARROW, batch=batch, trace=True)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.tensors["classes"].reshape(7, -1), expected.codes)
    assert overflow_lists(found) == overflow_lists(expected)
    assert found.layers == expected.layers


def test_overflows_sum_over_the_images(samples, network):
    images = samples.pixels(network, 6)
    whole = run(network, images, NARROW)
    first, second = run(network, images[:2], NARROW), run(network, images[2:], NARROW)
    for kind in ("product", "align", "acc"):
        assert whole.overflow(kind) == first.overflow(kind) + second.overflow(kind) > 0


def test_a_wide_datapath_does_not_overflow(samples, network):
    result = run(network, samples.pixels(network, 4))
    assert [result.overflow(kind) for kind in ("product", "align", "acc", "post")] == [0, 0, 0, 0]


def test_a_trace_holds_every_tensor_of_every_image(samples, network):
    result = run(network, samples.pixels(network, 5), trace=True, batch=2)
    assert result.tensors.keys() == network.values.keys()
    for name, value in network.values.items():
        assert result.tensors[name].shape == (5, *value.shape)
    assert run(network, samples.pixels(network, 5)).tensors == {}


def ranking(samples, codes, labels):
    """A network that gives its inputs back as results."""
    count = len(codes[0])
    net = NetworkBuilder("identity", samples.input_spec((count, 1, 1), scale=1.0, zero_point=0))
    net.linear("fc", net.input, np.eye(count, dtype=int), bits=2, scale=1.0, out=Grid(1.0, 16, signed=True))
    images = ImageSet(np.array(codes).reshape(len(codes), count, 1, 1), np.array(labels), coded=True)
    return run(net.build(), images)


def test_ties_go_to_the_lowest_index(samples):
    result = ranking(samples, [[3, 9, 9, 1], [7, 7, 7, 7]], [1, 0])
    np.testing.assert_array_equal(result.codes, [[3, 9, 9, 1], [7, 7, 7, 7]])
    assert result.predictions.tolist() == [1, 0]
    assert result.top(1) == 1.0
    assert ranking(samples, [[3, 9, 9, 1], [7, 7, 7, 7]], [2, 3]).top(1) == 0.0


def test_top_five_breaks_ties_by_the_lowest_index_too(samples):
    equal = [5] * 7
    assert ranking(samples, [equal, equal], [4, 5]).top(5) == 0.5
    assert ranking(samples, [[0, 1, 2, 3, 4, 5, 6]] * 2, [2, 1]).top(5) == 0.5


def test_ties_are_broken_so_among_many_classes_too(samples):
    striped = [[3, 9] * 100] * 6
    assert ranking(samples, striped, [1, 3, 9, 0, 11, 199]).top(5) == 0.5


@pytest.mark.parametrize("labels", [[0, 4], [-1, 3]])
def test_labels_of_other_classes_are_refused(samples, labels):
    with pytest.raises(FormatError, match=rf"labels must lie in 0..3, found {min(labels)}..{max(labels)}"):
        ranking(samples, [[3, 9, 9, 1], [7, 7, 7, 7]], labels)


def test_there_is_no_top_five_of_four_classes_and_no_top_without_labels(samples, network):
    assert ranking(samples, [[1, 2, 3, 4]], [3]).top(5) is None
    unlabelled = run(network, samples.pixels(network, 1)).to_json()
    assert unlabelled["top1"] is None
    assert unlabelled["top5"] is None


def test_the_json_has_the_documented_keys_and_plain_values(samples, network):
    content = run(network, samples.pixels(network, 2), NARROW).to_json()
    assert content.keys() == DOCUMENTED | BESIDES
    assert content["schema"] == 1
    for layer in content["layers"]:
        assert layer.keys() == LAYER_DOCUMENTED | LAYER_BESIDES
    assert content["engine"].keys() == EngineConfig.model_fields.keys()
    assert content["engine"]["mac"] == {"product": 7, "align": 8, "acc": 15, "overflow": "saturate"}
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_json_figures_are_those_of_the_result(samples, network):
    result = run(network, samples.pixels(network, 2), NARROW)
    content = result.to_json()
    assert [layer["name"] for layer in content["layers"]][:2] == ["input", "stem"]
    assert [layer["op"] for layer in content["layers"]][-1] == "store"
    assert sum(layer["cycles"] for layer in content["layers"]) == content["cycles_per_image"] == result.cycles_per_image
    assert sum(layer["macs"] for layer in content["layers"]) == sum(network.macs(n) for n in network.mac_nodes())
    for kind in ("product", "align", "acc", "post"):
        assert sum(layer[f"overflow_{kind}"] for layer in content["layers"]) == result.overflow(kind)
    layers = [layer for layer in content["layers"] if layer["op"] not in ("load", "store")]
    assert {layer["name"] for layer in layers if layer["form"] is not None} == set(result.overflows)
    for layer in layers:
        if layer["form"] == "faithful":
            assert layer["faithful_channels"] == network.layers[layer["name"]].shape.out_channels
    assert content["images_per_second"] == 200e6 / result.cycles_per_image


def test_progress_counts_every_image_once(samples, network):
    seen = []
    run(network, samples.pixels(network, 7), batch=3, progress=seen.append)
    assert seen == [3, 3, 1]


def test_what_cannot_be_run_is_refused(samples, network):
    images = samples.pixels(network, 2)
    with pytest.raises(
        FormatError, match=r"^form must be one of auto, faithful, portable, popcount, vnni, not 'quick'$"
    ):
        run(network, images, form="quick")
    with pytest.raises(FormatError, match=r"^batch must be 1 or more images, not 0$"):
        run(network, images, batch=0)
    with pytest.raises(FormatError, match=r"^each image must have shape \(3, 12, 12\), not \(3, 12, 11\)$"):
        run(network, images[..., :11])


def test_constants_too_wide_for_the_datapath_are_clipped_and_counted(samples, network):
    images = samples.pixels(network, 2)
    assert run(network, images).clipped_constants == 0
    narrow = EngineConfig(mac=MacFormat(acc=12))
    result = run(network, images, narrow)
    stem = array_form(network.layers["stem"], narrow.array)
    assert 0 < stem.clipped_constants(narrow.mac) <= result.clipped_constants
    bits = narrow.mac.acc + stem.layer.node.fraction
    assert np.abs(stem.held(narrow.mac).bias).max() <= 1 << (bits - 1)
    assert sum(layer["clipped_constants"] for layer in result.to_json()["layers"]) == result.clipped_constants


def test_schedule_and_cycles_are_made_once_for_an_engine_and_kept_for_the_last_few(samples, network):
    images = samples.pixels(network, 2)
    engines = [EngineConfig(rows=4, lanes=4, bus_latency=latency) for latency in range(KEPT_ENGINES + 1)]
    first = run(network, images, engines[0])
    assert run(network, images, EngineConfig(rows=4, lanes=4, bus_latency=0)).plan is first.plan
    cycles = [run(network, images, engine).cycles_per_image for engine in engines]
    assert cycles == sorted(set(cycles))
    assert list(network.compiled) == engines[1:]
    again = run(network, images, engines[0])
    assert again.plan is not first.plan
    assert again.layers == first.layers
