"""EngineConfig: defaults, TOML files, and refusals in one line."""

import pytest
from gatewise import EngineConfig, FormatError, MacFormat


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "engine.toml").write_text(text)
        return EngineConfig.load(tmp_path / "engine.toml")

    return load


def test_the_default_engine_is_the_documented_one():
    engine = EngineConfig()
    assert (engine.rows, engine.lanes, engine.pixels, engine.post_lanes) == (16, 16, 256, 8)
    assert (engine.act_bytes, engine.act_banks, engine.bus_bits, engine.bus_latency) == (2 << 20, 4, 128, 20)
    assert engine.mac == MacFormat(product=8, align=16, acc=32, overflow="saturate")


@pytest.mark.parametrize(("rows", "post_lanes"), [(4, 2), (8, 4), (16, 8), (32, 16), (64, 16)])
def test_post_lanes_are_half_the_rows_unless_given(load, rows, post_lanes):
    assert load(f"rows = {rows}").post_lanes == post_lanes
    assert load(f"rows = {rows}\npost_lanes = 1").post_lanes == 1


def test_a_file_sets_any_field_and_the_widths(load):
    engine = load('rows = 8\nclock_mhz = 400\n[mac]\nalign = 12\nacc = 18\noverflow = "wrap"')
    assert (engine.rows, engine.clock_mhz) == (8, 400.0)
    assert engine.mac == MacFormat(product=8, align=12, acc=18, overflow="wrap")


def test_an_empty_file_is_the_default_engine(load):
    assert load("") == EngineConfig()


def test_another_mac_keeps_the_rest():
    engine = EngineConfig(rows=32).with_mac(MacFormat(acc=20))
    assert engine == EngineConfig(rows=32, mac=MacFormat(acc=20))


@pytest.mark.parametrize(("text", "expected"), [
    ("rows = 6", "engine: rows must be a power of two from 4 to 64, not 6"),
    ("rows = 128", "engine: rows must be a power of two from 4 to 64, not 128"),
    ("lanes = -4", "engine: lanes must be a power of two from 4 to 64, not -4"),
    ("rows = 16.0", "engine: rows: input should be a valid integer, not '16.0'"),
    ('rows = "16"', "engine: rows: input should be a valid integer, not '16'"),
    ("rows = true", "engine: rows: input should be a valid integer, not 'True'"),
    ("rows = [16]", "engine: rows: input should be a valid integer, not '[16]'"),
    ("operand_bits = 12", "engine: operand_bits: input should be 8 or 16, not '12'"),
    ('array = "shift"\noperand_bits = 16', "engine: operand_bits must be 8 in a shift array, not 16"),
    ("bus_bits = 24", "engine: bus_bits must be a power of two from 8 to 512, not 24"),
    ("bus_latency = 201", "engine: bus_latency: input should be less than or equal to 200, not '201'"),
    ("pixels = 8", "engine: pixels: input should be greater than or equal to 16, not '8'"),
    ("post_lanes = 0", "engine: post_lanes: input should be greater than or equal to 1, not '0'"),
    (
        "post_lanes = 17",
        "engine: post_lanes must be a power of two from 1 to the lesser of rows and lanes (16), not 17",
    ),
    (
        "post_lanes = 3",
        "engine: post_lanes must be a power of two from 1 to the lesser of rows and lanes (16), not 3",
    ),
    ("bus_latency = 90\nprefetch_words = 93", "engine: prefetch_words must be at least bus_latency + 4 (94), not 93"),
    ("clock_mhz = nan", "engine: clock_mhz: "),
    ("clock_mhz = inf", "engine: clock_mhz: "),
    ("clock_mhz = 0", "engine: clock_mhz: input should be greater than 0, not '0'"),
    ('array = "analog"', "engine: array: input should be 'digit', 'fusion', 'sign' or 'shift', not 'analog'"),
    ("row = 16", "engine: row is not a known key"),
    ('"a\\nb" = 16', "engine: 'a\\nb' is not a known key"),
    ("[mac]\nwidth = 3", "engine: mac must have only product, align, acc, overflow, not 'width'"),
    ("[mac]\nacc = 11", "engine: mac acc must be a whole number from 12 to 48, not 11"),
    ('[mac]\nacc = "32"', "engine: mac acc must be a whole number from 12 to 48, not '32'"),
    ('[mac]\noverflow = "clip"', "engine: mac overflow must be saturate or wrap, not 'clip'"),
    ("mac = 3", "engine: mac: input should be an instance of MacFormat, not '3'"),
    ("rows = ", "must be TOML: "),
    ("\x00", "must be TOML: "),
])  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(load, tmp_path, text, expected):
    with pytest.raises(FormatError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'engine.toml'}: {expected}")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\nrows = 16")
    with pytest.raises(FormatError, match=r"latin\.toml: must be TOML: "):
        EngineConfig.load(tmp_path / "latin.toml")
    with pytest.raises(FormatError, match=r"none\.toml: the engine file must be readable: No such file or directory$"):
        EngineConfig.load(tmp_path / "none.toml")
    with pytest.raises(FormatError, match=r"the engine file must be readable: Is a directory$"):
        EngineConfig.load(tmp_path)


def test_settings_are_checked_without_a_file_too():
    with pytest.raises(FormatError, match=r"^engine: rows must be a power of two from 4 to 64, not 6$"):
        EngineConfig(rows=6)
