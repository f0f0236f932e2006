"""What `gatewise.sim.inspect` says is in a file."""

import json
import os

import numpy as np
from gatewise import Grid, NetworkBuilder
from gatewise.sim.inspect import inspect_file

KEYS = {
    "schema", "network", "scheme", "file_bytes", "manifest_bytes", "coded_bytes", "float32_bytes", "compression",
    "weights", "bits_per_weight", "macs", "provenance", "layers",
}  # fmt: skip
LAYER_KEYS = {
    "name", "op", "inputs", "shape", "bits", "signed", "macs", "weights", "weight_bits", "coded_bytes",
    "parameter_bytes",
}  # fmt: skip


def test_figures_by_hand(samples, tmp_path):
    samples.tiny().save(tmp_path / "tiny.gw")
    found = inspect_file(tmp_path / "tiny.gw")
    assert (found.weights, found.coded_bytes, found.bits_per_weight) == (12, 6, 4.0)
    assert found.float_bytes == 4 * (12 + 3)
    assert found.file_bytes == os.path.getsize(tmp_path / "tiny.gw")
    assert found.compression == 60 / found.file_bytes
    (fc,) = found.nodes
    assert (fc.macs, fc.weight_bits, fc.detail) == (12, 4, "3 x 1 x 1 s16")
    assert fc.parameter_bytes == 3 * 2 + 4 + 1  # 16-bit biases, one multiplier, one shift


def test_every_array_is_counted_once_with_its_node(samples, small_file):
    found = inspect_file(small_file)
    arrays = samples.read(small_file).arrays
    assert sum(node.coded_bytes + node.parameter_bytes for node in found.nodes) == sum(
        a.nbytes for a in arrays.values()
    )
    assert found.coded_bytes == sum(array.nbytes for name, array in arrays.items() if name.endswith(".weight"))


def test_a_name_that_begins_with_another_and_a_dot_keeps_its_own_bytes(samples, tmp_path):
    net = NetworkBuilder("dots", samples.input_spec((4, 1, 1)))
    codes, settings = np.ones((3, 4), int), {"bits": 4, "scale": 0.1, "out": Grid(0.1, 8)}
    net.linear("fc", net.input, codes, **settings)
    net.linear("fc.1", net.input, codes, **settings)
    net.save(tmp_path / "dots.gw")
    first, second = inspect_file(tmp_path / "dots.gw").nodes
    assert (first.coded_bytes, first.parameter_bytes) == (second.coded_bytes, second.parameter_bytes)


def test_the_manifest_of_the_file_is_measured_as_it_is_stored(samples, small_file):
    text = json.dumps(samples.read(small_file).manifest, separators=(",", ":"))
    assert inspect_file(small_file).manifest_bytes == len(text)


def test_the_json_has_the_documented_keys_and_plain_values(small_file):
    content = inspect_file(small_file).to_json()
    assert content.keys() == KEYS
    assert all(layer.keys() == LAYER_KEYS for layer in content["layers"])
    assert content["schema"] == 1
    assert content["provenance"] == {"note": "made up", "epochs": 3}
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert sum(layer["macs"] for layer in content["layers"]) == content["macs"] > 0
