"""``gatewise compile``: the image and its map."""

import json

import numpy as np
from gatewise import EngineConfig, load
from gatewise.sim.compile import compile_network


def test_the_image_and_its_map_are_written(gatewise, network, tmp_path):
    (tmp_path / "e.toml").write_text("rows = 8\nlanes = 8\nbus_bits = 32\n")
    files = "-o", tmp_path / "image.bin", "--json", tmp_path / "map.json"
    result = gatewise("compile", network, "--engine", tmp_path / "e.toml", *files)
    assert result.code == 0
    assert "stem" in result.out
    compiled = compile_network(load(network), EngineConfig(rows=8, lanes=8, bus_bits=32))
    assert (tmp_path / "image.bin").read_bytes() == compiled.image.tobytes()
    assert json.loads((tmp_path / "map.json").read_text()) == json.loads(json.dumps(compiled.memory_map()))


def test_words_are_written_for_readmemh(gatewise, network, tmp_path):
    gatewise("compile", network, "-o", tmp_path / "image.hex")
    lines = (tmp_path / "image.hex").read_text().splitlines()
    image = compile_network(load(network)).image
    assert np.array_equal([np.frombuffer(bytes.fromhex(line), np.uint8)[::-1] for line in lines], image)


def test_what_cannot_be_compiled_leaves_no_file(refused, network, tmp_path):
    (tmp_path / "e.toml").write_text("act_bytes = 1024\n")
    arguments = "compile", network, "--engine", tmp_path / "e.toml", "-o", tmp_path / "image.bin"
    assert "live activations need" in refused(*arguments)
    assert not (tmp_path / "image.bin").exists()
    assert "must be writable" in refused("compile", network, "-o", tmp_path / "none" / "image.bin")
