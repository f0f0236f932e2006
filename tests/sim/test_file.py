"""The ``.gw`` file: what is written is read again, and what is not a sound file is refused in one line."""

import copy
import hashlib
import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gatewise import FormatError, GatewiseError, Grid, NetworkBuilder, load
from gatewise.sim import atomic, demo, save_network
from gatewise.sim.graph import MAX_ELEMENTS


def refusal(path):
    """The message with which a file is refused; anything but one line that names the file fails."""
    with pytest.raises(GatewiseError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.fixture
def tiny_file(samples, tmp_path):
    path = tmp_path / "tiny.gw"
    samples.tiny().save(path)
    return path


@pytest.fixture
def changed(samples, small_file):
    """Changes a file's parts, signs them again and gives the message with which the file is refused."""

    def change(edit):
        parts = samples.read(small_file)
        edit(parts)
        return refusal(samples.write(small_file, parts))

    return change


@pytest.fixture
def coded(samples, schemes_file):
    """The same with the network of every scheme."""

    def change(edit):
        parts = samples.read(schemes_file)
        edit(parts)
        return refusal(samples.write(schemes_file, parts))

    return change


@pytest.mark.parametrize("name", ["small", "schemes"])
def test_what_is_written_is_read_again(samples, small_file, schemes_file, name):
    network = getattr(samples, name)().build()
    found = load({"small": small_file, "schemes": schemes_file}[name])
    assert found.manifest == network.manifest
    assert found.arrays.keys() == network.arrays.keys()
    for name, array in network.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_a_file_that_is_signed_again_unchanged_is_sound(samples, small_file):
    samples.write(small_file, samples.read(small_file))
    assert load(small_file).manifest == samples.small().build().manifest


@pytest.mark.parametrize("network", ["small", "schemes"])
def test_the_same_network_makes_the_same_bytes(samples, tmp_path, network):
    for name in ("a.gw", "b.gw"):
        getattr(samples, network)().save(tmp_path / name)
    assert (tmp_path / "a.gw").read_bytes() == (tmp_path / "b.gw").read_bytes()


SHIPPED = "58a78bcc566dd5bb272439fcc490d4206e4dda4dea9c6ab413c70114faa2a5d5"


def test_a_file_from_before_other_schemes_is_written_again_byte_for_byte(tmp_path):
    shipped = demo.FOLDER / "digits-w4a4.gw"
    save_network(load(shipped), tmp_path / "again.gw")
    assert hashlib.sha256(shipped.read_bytes()).hexdigest() == SHIPPED
    assert hashlib.sha256((tmp_path / "again.gw").read_bytes()).hexdigest() == SHIPPED


def test_weights_are_stored_in_the_documented_order(samples, reference, tmp_path):
    codes = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2) - 12
    net = NetworkBuilder("order", samples.input_spec((3, 4, 4)))
    net.conv2d("conv", net.input, codes, bits=6, scale=0.1, out=Grid(0.1, 8))
    net.save(tmp_path / "order.gw")
    stored = reference.unpack(samples.read(tmp_path / "order.gw").arrays["conv.weight"], (2, 2, 2, 3), 6)
    np.testing.assert_array_equal(stored, codes.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("fault", ["write", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(samples, tiny_file, monkeypatch, fault):
    old = tiny_file.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    if fault == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(os, "fdopen", fail)
    with pytest.raises(FormatError, match=r"tiny\.gw: must be writable: No space left on device$"):
        samples.small().save(tiny_file)
    assert tiny_file.read_bytes() == old
    assert os.listdir(tiny_file.parent) == ["tiny.gw"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(samples, tiny_file, monkeypatch):
    old = tiny_file.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        samples.small().save(tiny_file)
    assert tiny_file.read_bytes() == old
    assert os.listdir(tiny_file.parent) == ["tiny.gw"]


def test_a_written_file_obeys_the_umask(samples, tmp_path):
    old = os.umask(0o027)
    try:
        samples.tiny().save(tmp_path / "tiny.gw")
    finally:
        os.umask(old)
    assert (tmp_path / "tiny.gw").stat().st_mode & 0o777 == 0o640


def test_writing_through_a_link_keeps_the_link(samples, tmp_path):
    (tmp_path / "real.gw").write_bytes(b"old")
    (tmp_path / "link.gw").symlink_to(tmp_path / "real.gw")
    samples.tiny().save(tmp_path / "link.gw")
    assert (tmp_path / "link.gw").is_symlink()
    assert load(tmp_path / "real.gw").name == "tiny"


def test_a_device_is_written_to_and_not_replaced():
    before = os.stat("/dev/null")
    atomic.write_bytes("/dev/null", b"gone")
    assert os.stat("/dev/null").st_ino == before.st_ino
    assert Path("/dev/null").is_char_device()


def test_any_truncation_is_refused(small_file):
    data = small_file.read_bytes()
    for length in {*range(0, len(data), 37), *range(12), len(data) - 1}:
        small_file.write_bytes(data[:length])
        refusal(small_file)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_a_flip_anywhere_is_refused(tiny_file, mask):
    data = tiny_file.read_bytes()
    for place in range(len(data)):
        tiny_file.write_bytes(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])
        refusal(tiny_file)


def test_a_flip_in_a_large_file_is_refused(small_file):
    data = small_file.read_bytes()
    for place in range(0, len(data), 13):
        small_file.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        refusal(small_file)


def test_a_changed_manifest_is_refused_by_its_digest(small_file):
    data = small_file.read_bytes()
    small_file.write_bytes(data.replace(b'scale\\":0.04', b'scale\\":0.05', 1))
    assert small_file.read_bytes() != data
    assert refusal(small_file).startswith("the manifest must match its SHA-256 digest")


def test_changed_arrays_are_refused_by_their_digest(samples, small_file):
    parts = samples.read(small_file)
    parts.arrays["stem.weight"][5] ^= 4
    samples.write(small_file, parts, sign=False)
    assert refusal(small_file).startswith("the arrays must match the manifest's SHA-256 digest")


@pytest.mark.parametrize("content", [
    b"",
    b"\0" * 8,
    b"\0" * 4096,
    b"\xff" * 4096,
    b"PK\x03\x04" + b"\0" * 100,
    pickle.dumps({"weights": list(range(100))}),
    struct.pack("<Q", 2) + b"{}",
    struct.pack("<Q", 1 << 62) + b"{}",
    struct.pack("<Q", 40) + b'{"a":{"dtype":"U8","shape":[1],"data_of',
])  # fmt: skip
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "odd.gw"
    path.write_bytes(content)
    assert refusal(path).startswith("must be a")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "BOOL", "F16", "I64"])
def test_tensors_of_foreign_types_are_refused(tmp_path, dtype):
    size = {"BF16": 2, "F16": 2, "I64": 8}.get(dtype, 1)
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "odd.gw"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * size)
    refusal(path)


def test_a_plain_safetensors_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, dtype=np.float32)}, tmp_path / "plain.gw")
    assert refusal(tmp_path / "plain.gw") == "must be a Gatewise network: its metadata lacks the key 'gatewise'"


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    assert refusal(tmp_path).startswith("must be a readable file: ")
    assert refusal(tmp_path / "none.gw").startswith("must be a readable file: ")


def test_reading_does_not_unpickle(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "bomb.gw").write_bytes(pickle.dumps(Bomb()))
    refusal(tmp_path / "bomb.gw")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", "[" * 5000, '{"schema":1}', "\ud800", "1" * 5000])
def test_a_signed_manifest_that_is_none_is_refused(samples, tiny_file, text):
    if text == "\ud800":
        text = '"\\ud800"'
    assert refusal(samples.write(tiny_file, samples.read(tiny_file), text=text)).startswith("manifest: ")


SET = [
    (lambda p: p.manifest.update(schema=2), "manifest: schema: input should be 1, not '2'"),
    (lambda p: p.manifest.update(colour="red"), "manifest: colour is not a known key"),
    (lambda p: p.manifest.pop("input"), "manifest: input is missing"),
    (lambda p: p.manifest.update(nodes=[]), "manifest: nodes: "),
    (lambda p: p.manifest.update(name=""), "manifest: name: "),
    (lambda p: p.manifest.update(name="a\x1b[2Jb"), "manifest: name must be printable characters on one line"),
    (lambda p: p.manifest.update({"a\nb": 1}), "manifest: 'a\\nb' is not a known key"),
    (lambda p: p.manifest.update(provenance={"a": float("nan")}), "manifest: provenance"),
    (lambda p: p.manifest.update(provenance={"a": "x\ny"}), "manifest: provenance"),
    (lambda p: p.manifest["input"].update(bits=9), "manifest: input codes of more than 8 bits must be signed"),
    (lambda p: p.manifest["input"].update(zero_point=256), "manifest: input zero point must be a code from 0 to 255"),
    (lambda p: p.manifest["input"].update(mean=[0.1]), "manifest: input mean and std must have one value per channel"),
    (lambda p: p.manifest["input"].update(std=[0.1, 0.0, 0.1]), "manifest: input.std.1: "),
    (lambda p: p.manifest["input"].update(mean=[float("nan")] * 3), "manifest: input.mean.0: "),
    (lambda p: p.manifest["input"].update(shape=[3, 12, 1 << 40]), "manifest: input.shape.2: "),
    (lambda p: p.node("stem").update(op="conv3d"), "manifest: nodes.0: "),
    (lambda p: p.node("stem").update(op="__import__"), "manifest: nodes.0: "),
    (lambda p: p.node("stem")["weights"].update(scheme="magic"), "manifest: nodes.0.conv2d.weights: "),
    (
        lambda p: p.node("stem")["weights"].update(scheme="xor"),
        "manifest: nodes.0.conv2d.weights.xor.planes is missing",
    ),
    (lambda p: p.node("stem")["weights"].update(bits=17), "manifest: nodes.0.conv2d.weights.int.bits: "),
    (
        lambda p: p.node("stem")["weights"].update(bits=9, coding="huffman"),
        "manifest: nodes.0.conv2d.weights.int huffman coding must have codes of at most 8 bits, not 9",
    ),
    (lambda p: p.node("stem")["out"].update(scale=float("nan")), "manifest: nodes.0.conv2d.out.scale: "),
    (lambda p: p.node("stem")["out"].update(scale=float("inf")), "manifest: nodes.0.conv2d.out.scale: "),
    (lambda p: p.node("stem")["out"].update(scale=-0.5), "manifest: nodes.0.conv2d.out.scale: "),
    (lambda p: p.node("stem")["out"].update(scale=0), "manifest: nodes.0.conv2d.out.scale: "),
    (lambda p: p.node("stem")["out"].update(bits=17), "manifest: nodes.0.conv2d.out.bits: "),
    (lambda p: p.node("stem")["requant"].update(kind="magic"), "manifest: nodes.0.conv2d.requant: "),
    (lambda p: p.node("stem")["requant"].update(multiplier_bits=8), "manifest: nodes.0.conv2d.requant"),
    (lambda p: p.node("stem")["requant"].update(rounding="tflite"), "manifest: nodes.0.conv2d.requant"),
    (lambda p: p.node("stem")["requant"].update(low=9, high=3), "stem: clamp must lie in 0..15, not 9..3"),
    (lambda p: p.node("stem")["requant"].update(high=1 << 70), "stem: clamp must lie in 0..15, not 0..118"),
    (lambda p: p.node("stem").update(kernel=[0, 3]), "manifest: nodes.0.conv2d.kernel.0: "),
    (lambda p: p.node("stem").update(kernel=[99, 3]), "stem: kernel (99, 3) must fit the padded 12 x 12 input"),
    (lambda p: p.node("stem").update(padding=[-1, 0, 0, 0]), "manifest: nodes.0.conv2d.padding.0: "),
    (lambda p: p.node("stem").update(groups=2), "stem: channels must divide into 2 groups"),
    (
        lambda p: p.node("stem").update(inputs=["later"]),
        "stem: input 'later' must be the network's input or an earlier",
    ),
    (
        lambda p: p.node("stem").update(inputs=["classes"]),
        "stem: input 'classes' must be the network's input or an ear",
    ),
    (lambda p: p.node("stem").update(inputs=["stem"]), "stem: input 'stem' must be the network's input or an earlier"),
    (lambda p: p.node("stem").update(inputs=[]), "manifest: nodes.0.conv2d stem: must have 1 input(s), not 0"),
    (lambda p: p.node("block").update(inputs=["down"]), "manifest: nodes.5.add block: must have 2 input(s), not 1"),
    (lambda p: p.node("block").update(inputs=["down", "stem"]), "block: operands must have one shape"),
    (lambda p: p.node("joined").update(inputs=["pooled"] * 2), "joined: input 'pooled' must be"),
    (lambda p: p.node("joined").update(inputs=["max", "down"]), "joined: inputs must have"),
    (lambda p: p.node("down").update(name="stem"), "stem: the name must stand for one tensor only"),
    (lambda p: p.node("down").update(name="input"), "input: the name must stand for one tensor only"),
    (lambda p: p.node("down").update(name="../up"), "manifest: nodes.1.conv2d.name: "),
    (lambda p: p.node("down").update(fraction=16), "manifest: nodes.1.conv2d.fraction: "),
    (lambda p: p.node("down").update(fraction=9), "down: fraction of scheme int must be 0 to 8 bits, not 9"),
    (lambda p: p.node("down").pop("zero_term"), "down: fraction bits must come with a zero-point term"),
    (lambda p: p.node("steps")["out"].update(bits=5), "steps: threshold outputs must have 1 to 4 bits, not 5"),
    (lambda p: p.node("max").update(padding=[3, 0, 0, 0]), "max: pool padding must be smaller than the window"),
    (lambda p: p.node("hidden").update(inputs=["steps"]), "hidden: a linear layer's input must be flat"),
]


@pytest.mark.parametrize(("edit", "expected"), SET, ids=[expected[:40] for _, expected in SET])
def test_a_signed_manifest_with_a_wrong_entry_is_refused_by_name(changed, edit, expected):
    assert changed(edit).startswith(expected)


def test_every_entry_of_the_manifest_may_be_of_any_type_without_another_exception(samples, tiny_file):
    original, arrays = vars(samples.read(tiny_file)).values()
    values = (None, True, -1, 0, 1.5, 1 << 80, "", "x", [], [[]], {}, {"a": 1})

    def entries(tree, path=()):
        yield path
        for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
            yield from entries(tree[key], (*path, key))

    refused = []
    for path in list(entries(original))[1:]:
        for value in values:
            parts = samples.Parts(copy.deepcopy(original), arrays)
            target = parts.manifest
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
            samples.write(tiny_file, parts, sign=path[0] != "payload_sha256")
            try:
                load(tiny_file)
            except GatewiseError as error:
                refused.append(str(error))
    assert len(refused) > 300
    assert all(message.startswith(f"{tiny_file}: ") and "\n" not in message for message in refused)


BOMBS = [
    lambda p: p.node("stem").update(padding=[65536] * 4, stride=[1 << 20, 1 << 20]),
    lambda p: p.node("stem").update(padding=[65536] * 4),
    lambda p: p.node("stem").update(channels=1 << 20),
    lambda p: p.node("stem").update(kernel=[1 << 20, 1 << 20], padding=[65536] * 4),
    lambda p: p.node("pad").update(before=65536, after=65536),
    lambda p: p.manifest["input"].update(shape=[3, 1 << 20, 1 << 20]),
    lambda p: p.manifest["nodes"].extend(
        {"op": "concat", "name": f"c{i}", "inputs": [f"c{i - 1}" if i else "mean"] * 2} for i in range(40)
    ),
]


@pytest.mark.parametrize("edit", BOMBS)
def test_absurd_sizes_are_refused_before_memory_is_taken(changed, edit):
    assert "\n" not in changed(edit)


def test_padding_that_strides_over_itself_counts_by_its_padded_size(changed):
    message = changed(lambda p: p.node("stem").update(padding=[65536] * 4, stride=[1 << 20, 1 << 20]))
    assert message == f"stem: padded input: must have at most {MAX_ELEMENTS} codes per image, not {3 * 131084**2}"


def test_thousands_of_views_and_nested_concats_run(samples, tmp_path):
    net = samples.tiny()
    parts = samples.read((net.save(tmp_path / "deep.gw"), tmp_path / "deep.gw")[1])
    views = [{"op": "flatten", "name": f"v{i}", "inputs": [f"v{i - 1}" if i else "fc"]} for i in range(3000)]
    doubled = [{"op": "concat", "name": f"c{i}", "inputs": [f"c{i - 1}" if i else "v2999"] * 2} for i in range(18)]
    parts.manifest["nodes"] += views + doubled
    network = load(samples.write(tmp_path / "deep.gw", parts))
    assert network.run(samples.pixels(network, 1)).codes.shape == (1, 3 << 18)


ARRAYS = [
    (lambda a: a.pop("stem.bias"), "tensor 'stem.bias' is missing"),
    (lambda a: a.update(extra=a["stem.bias"]), "tensor 'extra' must belong to a node"),
    (lambda a: a.update({"stem.zero": a["stem.bias"]}), "tensor 'stem.zero' must belong to a node"),
    (lambda a: a.update({"stem.bias": a["stem.bias"][:-1].copy()}), "tensor 'stem.bias' must be int16 or int32"),
    (lambda a: a.update({"stem.bias": a["stem.bias"].astype(np.float32)}), "tensor 'stem.bias' must be int16 or int32"),
    (lambda a: a.update({"stem.bias": a["stem.bias"].astype(np.uint32)}), "tensor 'stem.bias' must be int16 or int32"),
    (lambda a: a.update({"stem.bias": a["stem.bias"][:, None]}), "tensor 'stem.bias' must be int16 or int32"),
    (lambda a: a.update({"stem.weight": a["stem.weight"][:-1].copy()}), "tensor 'stem.weight' must be uint8 of shape"),
    (lambda a: a.update({"stem.multiplier": np.full(6, 1 << 24, np.uint32)}), "stem: multipliers must have 24"),
    (lambda a: a.update({"stem.shift": np.full(6, 63, np.uint8)}), "stem: shifts must lie in 0..62, found 63..63"),
    (lambda a: a.update({"block.first_shift": np.full(8, 63, np.uint8)}), "block: shifts must lie in 0..62, found"),
    (lambda a: a.update({"down.align": np.full(6, 9, np.uint8)}), "down: shift alignment must lie in 0..8, not 9..9"),
    (lambda a: a.update({"steps.descending": np.full(4, 2, np.uint8)}), "steps: descending flags must be 0 or 1"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "expected"), ARRAYS, ids=[expected[:40] for _, expected in ARRAYS])
def test_a_signed_file_with_a_wrong_array_is_refused_by_name(changed, edit, expected):
    assert changed(lambda parts: edit(parts.arrays)).startswith(expected)


def weights(name):
    """The entry of a node's weights."""
    return lambda p: p.node(name)["weights"]


def network_of(p, plane=0):
    """The entry of a network of the node ``xor``."""
    return p.manifest["xor_networks"][p.node("xor")["weights"]["planes"][plane]]


def renamed(p):
    p.manifest["xor_networks"]["other"] = p.manifest["xor_networks"].pop(p.node("tiled")["weights"]["planes"][0])


CODED = [
    (lambda p: weights("int")(p).update(coding="zip"), "manifest: nodes.0.conv2d.weights.int.coding: "),
    (lambda p: weights("int")(p).pop("coding"), "tensor 'int.weight' must be uint8 of shape (81,), not uint8 of shape"),
    (lambda p: weights("shift_raw")(p).update(coding="huffman"), "tensor 'shift_raw.huffman' is missing"),
    (lambda p: weights("int")(p).update(bits=3), "int: the Huffman table of 3-bit codes must have 8 symbols, not 16"),
    (lambda p: weights("shift_raw")(p).update(exponent_bits=6), "manifest: nodes.1.conv2d.weights.shift.exponent_bits"),
    (lambda p: weights("shift_raw")(p).update(exponent_bits=1), "tensor 'shift_raw.weight' must be uint8 of shape"),
    (lambda p: weights("shift_raw")(p).update(bits=4), "manifest: nodes.1.conv2d.weights.shift.bits is not a known"),
    (lambda p: weights("focused_raw")(p).update(value_shift=16), "manifest: nodes.2.conv2d.weights.focused.value"),
    (lambda p: weights("focused_raw")(p).update(minus=[2, 0]), "manifest: nodes.2.conv2d.weights.focused.minus.0: "),
    (lambda p: weights("focused_raw")(p).update(plus=[1, 16]), "manifest: nodes.2.conv2d.weights.focused.plus.1: "),
    (lambda p: weights("focused_raw")(p).update(plus=[1]), "manifest: nodes.2.conv2d.weights.focused.plus.1 is mis"),
    (lambda p: weights("focused_raw")(p).update(value_shift=14), "focused_raw: shift exponents must be at most 1"),
    (lambda p: weights("focused_raw")(p).update(scheme="shift"), "manifest: nodes.2.conv2d.weights.shift."),
    (lambda p: p.node("shift_raw").update(align="shift"), "shift_raw: alignment must come with scheme int, not with"),
    (lambda p: weights("xor")(p).update(planes=[]), "manifest: nodes.5.conv2d.weights.xor.planes: "),
    (lambda p: weights("xor")(p).update(planes=["a"] * 9), "manifest: nodes.5.conv2d.weights.xor.planes: "),
    (lambda p: weights("xor")(p)["planes"].pop(), "XOR network 'xor12of10-"),
    (lambda p: weights("xor")(p)["planes"].append("none"), "xor: plane 'none' must be one of the manifest's XOR netw"),
    (renamed, "xor: plane 'xor5of11-"),
    (lambda p: p.manifest.pop("xor_networks"), "xor: plane 'xor5of11-"),
    (lambda p: p.manifest["xor_networks"].update(free=network_of(p)), "XOR network 'free' must belong to a node"),
    (lambda p: p.manifest["xor_networks"].update({"a b": network_of(p)}), "manifest: xor_networks.a b.[key]: "),
    (lambda p: network_of(p)["rows"].pop(), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p)["rows"].__setitem__(3, "0"), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p)["rows"].__setitem__(3, "20"), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p)["rows"].__setitem__(3, "-1"), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p)["rows"].__setitem__(3, "0x1"), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p)["rows"].__setitem__(3, "1" * 17), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p).update(n_in=0), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p).update(n_in=1 << 20), "manifest: xor_networks.xor5of11-"),
    (lambda p: network_of(p).update(n_in=6), "tensor 'xor.weight' must be uint8 of shape"),
    (lambda p: weights("tiled")(p).pop("tile"), "manifest: nodes.6.conv2d.weights.xor tile must be given"),
    (lambda p: weights("tiled")(p).pop("order"), "manifest: nodes.6.conv2d.weights.xor tile must be given"),
    (lambda p: weights("tiled")(p)["tile"].update(rows=0), "manifest: nodes.6.conv2d.weights.xor.tile.rows: "),
    (lambda p: weights("tiled")(p)["tile"].update(lanes=128), "manifest: nodes.6.conv2d.weights.xor.tile.lanes: "),
    (lambda p: p.node("tiled").update(fraction=16), "manifest: nodes.6.conv2d.fraction: "),
    (lambda p: weights("basis")(p).update(planes=0), "manifest: nodes.8.linear.weights.basis.planes: "),
    (lambda p: weights("basis")(p).update(planes=9), "manifest: nodes.8.linear.weights.basis.planes: "),
    (lambda p: weights("basis")(p).update(planes=2), "tensor 'basis.weight' must be uint8 of shape"),
    (lambda p: weights("basis")(p).update(scheme="int", bits=1), "manifest: nodes.8.linear.weights.int.planes is not"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "expected"), CODED, ids=[expected[:50] for _, expected in CODED])
def test_a_wrong_entry_about_coded_weights_is_refused_by_name(coded, edit, expected):
    assert coded(edit).startswith(expected)


def replaced(name, change):
    """Put ``change(array)`` in the place of an array."""

    def edit(p):
        p.arrays[name] = np.ascontiguousarray(change(p.arrays[name]))

    return edit


def at(place, value):
    """An array with another element at a place."""

    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


def codes_of(bits, place, code):
    """Packed codes with another one at a place."""

    def change(array):
        planes = np.unpackbits(array, bitorder="little")
        planes[place * bits : (place + 1) * bits] = [code >> bit & 1 for bit in range(bits)]
        return np.packbits(planes, bitorder="little")

    return change


def cut(array):
    return array[:-1]


def longer(array):
    return np.append(array, np.zeros(1, array.dtype))


# Tables: the alphabet's size less one, then nibbles, the lower one first.
KRAFT = np.array([15, *[0x11] * 8], dtype=np.uint8)
"""Sixteen code words of one bit."""
ABSENT = np.array([15, 0xF0], dtype=np.uint8)
"""Sixteen symbols without a code word."""
ENDLESS = np.array([255, *[0xFF] * 200], dtype=np.uint8)

STREAMS = [
    (replaced("shift_raw.weight", cut), "tensor 'shift_raw.weight' must be uint8 of shape"),
    (replaced("shift_raw.weight", longer), "tensor 'shift_raw.weight' must be uint8 of shape"),
    (replaced("shift_raw.weight", codes_of(5, 4, 0b00001)), "shift_raw: shift codes without a value must have expon"),
    (replaced("shift_raw.weight", codes_of(5, 4, 0b11000)), "shift_raw: codes of a plain shift format must not be p"),
    (replaced("shift_raw.weight", at(-1, 0xF0)), "shift_raw: the last 4 bits of a weight stream must be 0, not 0xf"),
    (replaced("focused_raw.weight", codes_of(5, 7, 0b01101)), "focused_raw: shift codes without a value must have"),
    (replaced("focused_raw.weight", codes_of(5, 7, 0b11100)), "focused_raw: pruned shift codes must have component"),
    *(
        case
        for name in ("int", "shift_huffman", "focused_huffman")
        for case in (
            (replaced(f"{name}.weight", cut), f"{name}: a Huffman stream must "),
            (replaced(f"{name}.weight", longer), f"{name}: a Huffman stream must end after "),
            (replaced(f"{name}.weight", lambda a: a[:5]), f"tensor '{name}.weight' must be uint8 of "),
            (replaced(f"{name}.weight", lambda a: np.tile(a, 40)), f"tensor '{name}.weight' must be uint8 of "),
            (replaced(f"{name}.weight", lambda a: a[:, None]), f"tensor '{name}.weight' must be uint8 of "),
            (replaced(f"{name}.weight", lambda a: a.astype(np.int16)), f"tensor '{name}.weight' must be uint8 of "),
            (replaced(f"{name}.weight", lambda a: 0 * a), f"{name}: a Huffman stream must "),
            (replaced(f"{name}.huffman", cut), f"{name}: a Huffman table must "),
            (replaced(f"{name}.huffman", longer), f"{name}: a Huffman table must be written in its one shortest way"),
            (replaced(f"{name}.huffman", lambda a: a[:0]), f"tensor '{name}.huffman' must be uint8 of 1 to 257 elem"),
            (replaced(f"{name}.huffman", lambda a: np.tile(a, 99)), f"tensor '{name}.huffman' must be uint8 of 1 to "),
            (replaced(f"{name}.huffman", lambda a: ENDLESS), f"{name}: a Huffman table must give the lengths"),
            (replaced(f"{name}.huffman", lambda a: ABSENT), f"{name}: a Huffman code must have a code word for at"),
            (replaced(f"{name}.huffman", lambda a: KRAFT), f"{name}: Huffman lengths must have a Kraft sum of at mos"),
            (replaced(f"{name}.huffman", at(0, 6)), f"{name}: "),
            (lambda p, name=name: p.arrays.pop(f"{name}.huffman"), f"tensor '{name}.huffman' is missing"),
        )
    ),
    (replaced("xor.weight", cut), "tensor 'xor.weight' must be uint8 of shape"),
    (replaced("xor.weight", longer), "tensor 'xor.weight' must be uint8 of shape"),
    (replaced("xor.weight", at(-1, 0xFF)), "xor: spare bits of an XOR stream must be 0, found 0xf"),
    (replaced("tiled.weight", at(-1, 0xFF)), "tiled: spare bits of an XOR stream must be 0, found 0x"),
    (replaced("xor.coef", lambda a: a[:1]), "tensor 'xor.coef' must be int16 of shape (2, 9), not int16 of shape (1, "),
    (replaced("xor.coef", lambda a: a.T), "tensor 'xor.coef' must be int16 of shape (2, 9), not int16 of shape (9, 2)"),
    (replaced("xor.coef", lambda a: a.astype(np.int32)), "tensor 'xor.coef' must be int16 of shape"),
    (lambda p: p.arrays.pop("xor.coef"), "tensor 'xor.coef' is missing"),
    (lambda p: p.arrays.update({"int.coef": p.arrays["xor.coef"]}), "tensor 'int.coef' must belong to a node"),
    (lambda p: p.arrays.update({"xor.huffman": KRAFT}), "tensor 'xor.huffman' must belong to a node"),
    (replaced("basis.weight", cut), "tensor 'basis.weight' must be uint8 of shape"),
    (replaced("basis.weight", at(-1, 0xFF)), "basis: the last "),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "expected"), STREAMS, ids=[expected[:50] for _, expected in STREAMS])
def test_a_wrong_weight_stream_or_table_is_refused_by_name(coded, edit, expected):
    assert coded(edit).startswith(expected)


def test_any_entry_about_weights_may_be_of_any_type_without_another_exception(samples, schemes_file):
    original, arrays = vars(samples.read(schemes_file)).values()
    values = (None, True, -1, 0, 1.5, 1 << 80, "", "x", [], [[]], {}, {"a": 1})

    def entries(tree, path):
        yield path
        for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
            yield from entries(tree[key], (*path, key))

    paths = list(entries(original["xor_networks"], ("xor_networks",)))
    for index, node in enumerate(original["nodes"]):
        paths += entries(node["weights"], ("nodes", index, "weights")) if "weights" in node else []
    refused = []
    for path in paths:
        for value in values:
            parts = samples.Parts(copy.deepcopy(original), arrays)
            target = parts.manifest
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
            samples.write(schemes_file, parts)
            try:
                load(schemes_file)
            except GatewiseError as error:
                refused.append(str(error))
    assert len(refused) > 10 * len(paths)
    assert all(message.startswith(f"{schemes_file}: ") and "\n" not in message for message in refused)


def test_any_change_of_a_coded_tensor_is_refused_in_one_line_or_read(samples, schemes_file):
    rng = np.random.default_rng(3)
    parts = samples.read(schemes_file)
    names = [name for name in parts.arrays if name.endswith((".weight", ".huffman", ".coef"))]
    read, refused = 0, []
    for name in names:
        array = parts.arrays[name]
        for place in rng.choice(array.nbytes, min(40, array.nbytes), replace=False):
            changed = np.frombuffer(array.tobytes(), np.uint8).copy()
            changed[place] ^= 1 << rng.integers(8)
            arrays = parts.arrays | {name: changed.view(array.dtype).reshape(array.shape)}
            samples.write(schemes_file, samples.Parts(parts.manifest, arrays))
            try:
                load(schemes_file)
                read += 1
            except GatewiseError as error:
                refused.append((f"{schemes_file}: {name.rpartition('.')[0]}: ", str(error)))
    assert read > 50
    assert len(refused) > 50
    assert all(message.startswith(place) and "\n" not in message for place, message in refused)


CODED_BOMBS = [
    lambda p: p.node("shift_huffman").update(channels=1 << 20),
    lambda p: p.node("xor").update(channels=9 << 16),
    lambda p: p.node("basis").update(channels=1 << 20),
    lambda p: p.node("focused_huffman").update(kernel=[1 << 20, 1 << 20], padding=[65536] * 4),
]


@pytest.mark.parametrize("edit", CODED_BOMBS)
def test_absurd_layers_of_coded_weights_are_refused_before_memory_is_taken(coded, edit):
    tracemalloc.start()
    message = coded(edit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in message
    assert peak < 1 << 24


def test_an_input_sum_beyond_its_32_bits_is_refused(samples, tmp_path):
    net = NetworkBuilder("wide", samples.input_spec((1, 64, 64)))
    wide = Grid(1.0, 8, align="shift", amounts=np.full(16, 8))
    x = net.flatten("flat", net.conv2d("conv", net.input, np.ones((16, 1, 1, 1), int), bits=2, scale=1.0, out=wide))
    net.linear("fc", x, np.zeros((1, 65536), int), bits=1, scale=1.0, out=Grid(1.0, 16, signed=True))
    with pytest.raises(
        GatewiseError, match=rf"^fc: the input sum must fit 32 signed bits, but can reach {65536 * 256 * 255}$"
    ):
        net.build()


def test_the_signing_helper_signs_as_the_package_does(samples, small_file):
    parts = samples.read(small_file)
    digest = parts.manifest["payload_sha256"]
    samples.write(small_file, parts)
    assert samples.read(small_file).manifest["payload_sha256"] == digest
    text = samples.read(small_file).manifest
    assert hashlib.sha256(json.dumps(text).encode()).hexdigest() in small_file.read_bytes().decode("latin-1")
