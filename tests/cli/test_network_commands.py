"""The verbs run, inspect and demo: their output, their files, and every refusal."""

import json
import os

import numpy as np
import pytest
from gatewise import EngineConfig, MacFormat, load
from gatewise.sim.images import load_images


def test_run_prints_layers_and_figures(gatewise, network, images):
    result = gatewise("run", network, images)
    assert (result.code, result.err) == (0, "")
    expected = load(network).run(load_images(images))
    assert f"cycles per image     {expected.cycles_per_image:,}" in result.out
    assert "small on 16 x 16 x 256" in result.out
    assert "…" not in result.out


def test_run_writes_the_json_of_the_same_run(gatewise, network, images, tmp_path):
    assert gatewise("run", network, images, "--json", tmp_path / "run.json").code == 0
    content = json.loads((tmp_path / "run.json").read_text())
    assert content == load(network).run(load_images(images)).to_json()
    assert content["schema"] == 1


def test_run_takes_engine_widths_limit_and_batch(gatewise, network, images, tmp_path):
    (tmp_path / "engine.toml").write_text("rows = 8\nlanes = 4\n[mac]\nalign = 12")
    options = ("--engine", tmp_path / "engine.toml", "--mac", "product=7,acc=15", "--limit", 3, "--batch", 2)
    assert gatewise("run", network, images, *options, "--json", tmp_path / "run.json").code == 0
    engine = EngineConfig(rows=8, lanes=4, mac=MacFormat(product=7, align=12, acc=15))
    expected = load(network).run(load_images(images)[:3], engine).to_json()
    assert json.loads((tmp_path / "run.json").read_text()) == expected
    assert sum(layer["overflow_acc"] for layer in expected["layers"]) > 0


def test_run_dumps_every_tensor(gatewise, network, images, tmp_path):
    assert gatewise("run", network, images, "--dump-layers", tmp_path / "layers.npz").code == 0
    expected = load(network).run(load_images(images), trace=True).tensors
    with np.load(tmp_path / "layers.npz") as found:
        assert set(found.files) == set(expected)
        for name, codes in expected.items():
            np.testing.assert_array_equal(found[name], codes)


def test_run_measures_the_bits_of_activations(gatewise, network, images, tmp_path):
    result = gatewise("run", network, images, "--activation-bits", "--json", tmp_path / "run.json")
    assert result.code == 0
    content = json.loads((tmp_path / "run.json").read_text())
    assert content == load(network).run(load_images(images)).to_json() | {"activations": content["activations"]}
    found = content["activations"]
    assert f"{found['elements']:,} │      │   {found['entropy']:.3f} │   {found['huffman']:.3f} │" in result.out
    assert {"input", "stem"} <= {each["name"] for each in found["tensors"]}


def test_a_layer_may_be_called_file(gatewise, samples, tmp_path):
    net = samples.tiny()
    for name in ("file", "allow_pickle", "args"):
        net.flatten(name, net.input)
    net.save(tmp_path / "odd.gw")
    np.savez(tmp_path / "images.npz", images=np.zeros((1, 4, 1, 1), np.uint8))
    options = ("--dump-layers", tmp_path / "layers.npz")
    assert gatewise("run", tmp_path / "odd.gw", tmp_path / "images.npz", *options).code == 0
    with np.load(tmp_path / "layers.npz") as found:
        assert set(found.files) == {"input", "fc", "file", "allow_pickle", "args"}


def test_inspect_prints_nodes_and_writes_json(gatewise, network, tmp_path):
    result = gatewise("inspect", network, "--json", tmp_path / "inspect.json")
    assert (result.code, result.err) == (0, "")
    content = json.loads((tmp_path / "inspect.json").read_text())
    assert content["schema"] == 1
    assert content["file_bytes"] == network.stat().st_size
    for layer in content["layers"]:
        assert layer["name"] in result.out


def test_inspect_draws_a_layer(gatewise, network, images, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "stem.svg"
    result = gatewise("inspect", network, "--plot", "stem", "-o", picture, "--images", images, "--limit", 2)
    assert result.code == 0
    assert picture.read_bytes().count(b"<svg") == 1


def test_a_picture_needs_a_layer_and_a_file(refused, network, tmp_path):
    pytest.importorskip("torch")
    assert refused("inspect", network, "-o", tmp_path / "a.png") == "options of a picture must come with --plot LAYER"
    assert refused("inspect", network, "--plot", "stem").startswith("a picture must have a file: give --output")
    message = refused("inspect", network, "--plot", "nothing", "-o", tmp_path / "a.png")
    assert message.startswith("layer must be one of ")


def test_demo_prints_both_accuracies_and_writes_json(gatewise, tmp_path):
    result = gatewise("demo", "--json", tmp_path / "demo.json")
    assert (result.code, result.err) == (0, "")
    content = json.loads((tmp_path / "demo.json").read_text())
    assert (content["schema"], content["images"]) == (1, 360)
    assert f"{100 * content['float_top1']:.2f} % top-1" in result.out
    assert f"{100 * content['top1']:.2f} %" in result.out


def test_doctor_prints_pieces_and_hints_as_they_stand(gatewise, tmp_path, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from gatewise.sim import doctor

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    monkeypatch.setenv("COLUMNS", "200")
    result = gatewise("doctor", "--json", tmp_path / "doctor.json")
    assert "pip install 'gatewise[quant]'" in result.out
    content = json.loads((tmp_path / "doctor.json").read_text())
    assert content["schema"] == 1
    assert {"name", "found", "purpose"} == set(content["pieces"][0])


def test_a_truncated_file_is_refused(refused, network, images):
    network.write_bytes(network.read_bytes()[:-7])
    for verb in (("run", network, images), ("inspect", network)):
        assert refused(*verb).startswith(f"{network}: must be a safetensors file: ")


def test_a_flipped_byte_in_the_manifest_is_refused(refused, network, images):
    data = network.read_bytes()
    place = data.index(b"stem")
    network.write_bytes(data[:place] + b"S" + data[place + 1 :])
    expected = f"{network}: the manifest must match its SHA-256 digest: the file was changed or damaged"
    assert refused("run", network, images) == expected
    assert refused("inspect", network) == expected


def change(samples, path, edit):
    parts = samples.read(path)
    edit(parts)
    samples.write(path, parts)


def shorten(parts):
    parts.arrays["stem.bias"] = parts.arrays["stem.bias"][:-1].copy()


@pytest.mark.parametrize(("edit", "expected"), [
    (shorten, "tensor 'stem.bias' must be int16 or int32 or int64 of shape (6,), not int16 of shape (5,)"),
    (lambda p: p.node("stem")["out"].update(scale=float("nan")), "manifest: nodes.0.conv2d.out.scale: "),
    (lambda p: p.node("stem").update(op="conv3d"), "manifest: nodes.0: input tag 'conv3d' found using 'op'"),
    (lambda p: p.manifest.update(schema=2), "manifest: schema: input should be 1, not '2'"),
])  # fmt: skip
def test_a_signed_file_that_is_wrong_is_refused(refused, samples, network, images, edit, expected):
    change(samples, network, edit)
    for verb in (("run", network, images), ("inspect", network)):
        assert refused(*verb).startswith(f"{network}: {expected}")


def test_control_characters_of_a_hostile_file_do_not_reach_the_terminal(refused, samples, network):
    change(samples, network, lambda parts: parts.manifest.update({"\x1b[2J\nfake": 1}))
    assert "\x1b" not in refused("inspect", network)


def test_missing_files_are_refused(refused, network, images, tmp_path):
    none = tmp_path / "none"
    assert refused("run", none, images).startswith(f"{none}: must be a readable file")
    assert refused("run", network, none) == f"{none}: must be readable: No such file or directory"
    expected = f"{none}: the engine file must be readable: No such file or directory"
    assert refused("run", network, images, "--engine", none) == expected
    assert refused("inspect", none).startswith(f"{none}: must be a readable file")


def test_images_of_a_wrong_shape_are_refused(refused, network, tmp_path):
    np.savez(tmp_path / "wrong.npz", images=np.zeros((2, 12, 12, 3), np.uint8))
    assert refused("run", network, tmp_path / "wrong.npz") == "each image must have shape (3, 12, 12), not (12, 12, 3)"
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3, 12, 12), np.uint8))
    assert "must be an intact .npz archive" in refused("run", network, tmp_path / "wrong.npy")


@pytest.mark.parametrize(("text", "expected"), [
    ("rows = 6", "engine: rows must be a power of two from 4 to 64, not 6"),
    ("colour = 1", "engine: colour is not a known key"),
    ("rows", "must be TOML: "),
    ("act_bytes = 1024", None),
    ('array = "sign"', None),
])  # fmt: skip
def test_an_engine_that_is_wrong_or_cannot_run_it_is_refused(refused, network, images, tmp_path, text, expected):
    (tmp_path / "engine.toml").write_text(text)
    found = refused("run", network, images, "--engine", tmp_path / "engine.toml")
    if expected is None:
        assert "live activations need" in found or "must run on an engine with array" in found
    else:
        assert found.startswith(f"{tmp_path / 'engine.toml'}: {expected}")


@pytest.mark.parametrize(("mac", "expected"), [
    ("align", "mac setting must be one of product, align, acc, overflow as name=value, not 'align'"),
    ("width=3", "mac setting must be one of product, align, acc, overflow as name=value, not 'width=3'"),
    ("acc=11", "mac acc must be a whole number from 12 to 48, not 11"),
    ("acc=wide", "mac acc must be a whole number from 12 to 48, not 'wide'"),
    ("overflow=clip", "mac overflow must be saturate or wrap, not 'clip'"),
    ("", "mac setting must be one of product, align, acc, overflow as name=value, not ''"),
])  # fmt: skip
def test_wrong_widths_are_refused(refused, network, images, mac, expected):
    assert refused("run", network, images, "--mac", mac).startswith(expected)


@pytest.mark.parametrize("options", [("--limit", "0"), ("--batch", "0"), ("--limit", "x"), ("--form", "quick")])
def test_wrong_options_are_refused(refused, network, images, options):
    message = refused("run", network, images, *options)
    assert options[0].removeprefix("--") in message


def test_a_form_that_does_not_exist_is_refused(refused, network, images):
    assert refused("run", network, images, "--form", "quick") == (
        "form must be one of auto, faithful, portable, popcount, vnni, not 'quick'"
    )


@pytest.mark.parametrize("option", ["--json", "--dump-layers"])
def test_output_that_cannot_be_written_is_refused(refused, network, images, tmp_path, option):
    for path in (tmp_path / "none" / "out", tmp_path):
        message = refused("run", network, images, option, path)
        assert message.startswith(f"{path}: must be writable: ")


def test_json_is_written_whole_or_not_at_all(refused, network, tmp_path, monkeypatch):
    (tmp_path / "out.json").write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    message = refused("inspect", network, "--json", tmp_path / "out.json")
    assert message == f"{tmp_path / 'out.json'}: must be writable: No space left on device"
    assert (tmp_path / "out.json").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["out.json", "small.gw"]


def test_json_may_go_to_standard_output_of_the_shell(gatewise, network):
    before = os.stat("/dev/null")
    assert gatewise("inspect", network, "--json", "/dev/null").code == 0
    assert os.stat("/dev/null").st_ino == before.st_ino


def test_a_folder_of_images_without_pillow_is_refused(refused, network, tmp_path, monkeypatch):
    import builtins

    real_import = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name.split(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    assert refused("run", network, tmp_path) == "reading image files needs Pillow: pip install pillow"
