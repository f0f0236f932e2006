"""The verb sweep: its tables and files, and every refusal."""

import csv
import io
import json

import pytest
from gatewise import EngineConfig, load
from gatewise.sim.images import load_images


def test_sweep_counts_what_run_counts(gatewise, network, images, tmp_path):
    options = ("--rows", "4,8", "--bus", "32,128", "--json", tmp_path / "sweep.json")
    result = gatewise("sweep", network, *options)
    assert (result.code, result.err) == (0, "")
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert (content["schema"], content["network"], content["refused"]) == (1, "small", [])
    assert len(content["engines"]) == 4
    for found in content["engines"]:
        engine = EngineConfig(rows=found["rows"], bus_bits=found["bus_bits"])
        expected = load(network).run(load_images(images), engine)
        assert found["cycles"] == expected.cycles_per_image == sum(found["layer_cycles"])
        assert found["bytes_read"] == expected.bytes_read
        assert found["layer_cycles"] == [layer.total for layer in expected.layers]
        assert f"{expected.cycles_per_image:,}" in result.out
    assert [layer["name"] for layer in content["layers"]] == [layer.name for layer in expected.layers]
    assert [each["pareto"] for each in content["engines"]].count(True) >= 2


def test_sweep_writes_csv_and_markdown(gatewise, network):
    result = gatewise("sweep", network, "--lanes", "8,16", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert (result.code, [row["lanes"] for row in rows], rows[0]["pes"]) == (0, ["8", "16"], "128")
    parts = ("compute", "weight_stall", "post_stall", "drain", "fill", "host")
    assert int(rows[0]["cycles"]) == sum(int(rows[0][part]) for part in parts)
    result = gatewise("sweep", network, "--lanes", "8,16", "--format", "md")
    assert result.out.startswith("small: cycles of one image; array digit, decoder raw, rows 16, ")
    assert f"| 8 | 128 | {int(rows[0]['cycles']):,} |" in result.out


def test_sweep_says_what_is_left_out_and_what_is_streamed(gatewise, network):
    result = gatewise("sweep", network, "--rows", "4,8", "--post-lanes", "4,8", "--decoder", "raw,huffman", "--pareto")
    assert result.code == 0
    out = " ".join(result.out.split())  # a narrow terminal breaks lines
    assert "6 engines, " in out
    assert "3 decode their weights: cycles of the streams themselves" in out
    assert (
        "2 left out: engine: post_lanes must be a power of two from 1 to the lesser of rows and lanes (4), not 8" in out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "a sweep must have values for at least one of --rows, --lanes, .., e.g. --rows 4,8,16,32"),
        (("--rows", "4,x"), "--rows must be whole numbers with commas between them, not '4,x'"),
        (("--bus", ""), "--bus must be whole numbers with commas between them, not ''"),
        (("--rows", "5"), "engine: rows must be a power of two from 4 to 64, not 5"),
        (("--rows", "8", "--format", "xml"), "--format must be one of table, md, csv, not 'xml'"),
        (("--decoder", "xor"), "decoder of array digit must be raw or huffman, not xor"),
        (("--rows", "4", "--json", "none/x.json"), "none/x.json: must be writable: No such file or directory"),
    ],
)
def test_sweep_refuses_in_one_line(refused, network, options, message):
    assert refused("sweep", network, *options) == message


def test_sweep_refuses_what_no_engine_runs(refused, network):
    assert "but the engine has act_bytes = 1024" in refused("sweep", network, "--act-bytes", "1024")
    assert "array" in refused("sweep", network, "--array", "none")
