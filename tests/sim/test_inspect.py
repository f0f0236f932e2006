"""What `gatewise.sim.inspect` says is in a file."""

import json
import os

import numpy as np
from gatewise import Grid, NetworkBuilder, WeightCodes, XorNetwork
from gatewise.sim.inspect import WeightFacts, inspect_file

KEYS = {
    "schema", "network", "scheme", "file_bytes", "manifest_bytes", "coded_bytes", "float32_bytes", "compression",
    "weights", "bits_per_weight", "macs", "provenance", "layers", "bops", "relative_bops", "constant_channels",
    "pruned_bops",
}  # fmt: skip
LAYER_KEYS = {
    "name", "op", "inputs", "shape", "bits", "signed", "planes", "macs", "weights", "weight_bits", "scheme", "coding",
    "bits_per_weight", "code_bits", "entropy", "xor_bits", "coded_bytes", "parameter_bytes", "bops", "weight_widths",
    "widths", "margin_bits",
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
    assert sum(layer["bops"] for layer in content["layers"]) == content["bops"] == content["pruned_bops"] > 0
    assert content["relative_bops"] == content["bops"] / content["macs"] / 1024
    assert content["constant_channels"] == {}


def test_constant_channels_count_no_bit_operations(samples, tmp_path):
    net = NetworkBuilder("pruned", samples.input_spec((2, 4, 4)))
    codes = np.ones((4, 2, 1, 1), dtype=int)
    codes[1] = 0
    x = net.conv2d("a", net.input, codes, bits=2, scale=1.0, out=Grid(1.0, 4))
    net.conv2d("b", x, np.ones((3, 4, 1, 1), dtype=int), bits=8, scale=1.0, out=Grid(1.0, 8))
    net.save(tmp_path / "pruned.gw")
    found = inspect_file(tmp_path / "pruned.gw")
    bits = net.input.grid.bits
    assert [node.bops for node in found.nodes] == [16 * 8 * 2 * bits, 16 * 12 * 8 * 4]
    assert found.constant_channels == {"a": 1}
    assert found.pruned_bops == 16 * 6 * 2 * bits + 16 * 9 * 8 * 4


def test_coded_weights_by_hand(samples, tmp_path):
    net = NetworkBuilder("hand", samples.input_spec((4, 1, 1)))
    settings = {"scale": 0.1, "out": Grid(0.1, 8)}
    # 1, 2 and 3 occur 8, 4 and 4 times: code words of 1, 2 and 2 bits, 24 bits and an end mark.
    counted = np.array([1] * 8 + [2] * 4 + [3] * 4).reshape(4, 4)
    x = net.linear("huffman", net.input, counted, bits=4, coding="huffman", **settings)
    x = net.linear("shift", x, WeightCodes.shift(np.ones((3, 4), int), np.arange(12).reshape(3, 4) % 8), **settings)
    networks = [XorNetwork.random(4, 10, None, 0), XorNetwork.random(8, 10, 2, 0)]
    signs, halves = np.ones((2, 20, 3), int), np.full(2, 0.5)
    x = net.linear("xor", x, WeightCodes.encrypt(signs, networks, halves), **settings)
    net.linear("basis", x, WeightCodes.basis(np.ones((2, 3, 20), int), halves), **settings)
    net.save(tmp_path / "hand.gw")
    huffman, shift, xor, basis = (node.stored for node in inspect_file(tmp_path / "hand.gw").nodes)
    assert huffman == WeightFacts("int", "huffman", 4, 8 * 4 / 16, code_bits=1.5, entropy=1.5)
    assert shift == WeightFacts("shift", "raw", 5, 8 * 8 / 12)  # 12 codes of 5 bits in 8 bytes
    assert xor == WeightFacts("xor", "raw", 2, 8 * (3 + 6) / 60, xor_bits=0.4 + 0.8)  # 6 slices of 4 and of 8 bits
    assert basis == WeightFacts("basis", "raw", 2, 8 * 16 / 60)  # two planes of 60 bits in 8 bytes each


def test_every_scheme_is_named_and_counted(samples, schemes_file):
    found = inspect_file(schemes_file)
    assert found.network.scheme == "basis+focused+int+shift+xor"
    arrays = samples.read(schemes_file).arrays
    assert found.coded_bytes == sum(array.nbytes for name, array in arrays.items() if name.endswith(".weight"))
    for node in found.nodes:
        if node.stored is None:
            continue
        assert node.stored.bits_per_weight == 8 * arrays[f"{node.name}.weight"].nbytes / node.weights
        assert (node.stored.coding == "huffman") == (f"{node.name}.huffman" in arrays)
        if node.stored.coding == "huffman":
            assert node.stored.entropy <= node.stored.code_bits < node.stored.entropy + 1
            assert node.stored.code_bits < node.stored.bits_per_weight < node.stored.code_bits + 9 / node.weights
            assert node.parameter_bytes > arrays[f"{node.name}.huffman"].nbytes
    content = found.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert [layer["scheme"] for layer in content["layers"]].count(None) == 1


def test_margins_are_those_of_the_channel_that_has_least(samples, tmp_path):
    net = NetworkBuilder("margins", samples.input_spec((2, 1, 1)))
    codes = np.array([[7, 7], [1, -1]])
    net.linear("a", net.input, codes, bits=4, scale=1.0, out=Grid(1.0, 8))
    net.save(tmp_path / "margins.gw")
    (node,) = inspect_file(tmp_path / "margins.gw").nodes
    bits = net.input.grid.bits
    digit = (1 << min(bits, 4)) - 1
    greatest = 7 * digit, 7 * digit, 14 * ((1 << bits) - 1)
    needed = [value.bit_length() + 1 for value in greatest]
    assert [node.margins[width] for width in ("product", "align", "acc")] == [
        held - bits for held, bits in zip((8, 16, 32), needed, strict=True)
    ]
    assert node.margins["post"] == node.margins["acc"]


def test_the_report_names_the_datapath_that_margins_are_of(small_file, schemes_file):
    from gatewise.sim.report import inspection_report
    from rich.console import Console

    for path in (small_file, schemes_file):
        found = inspect_file(path)
        layers = [node.margins for node in found.nodes if node.margins is not None]
        for width in (80, 240):
            console = Console(width=width)
            with console.capture() as capture:
                console.print(inspection_report(found, console))
            shown = " ".join(capture.get().split())
            assert f"acc {min(each['acc'] for each in layers)} of 32, post" in shown
            assert f"{found.engine.array} array, whatever the image is" in shown
    assert found.to_json()["layers"][0]["margin_bits"].keys() == {"product", "align", "acc", "post"}
