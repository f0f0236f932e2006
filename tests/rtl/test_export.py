import math
import re
import subprocess

import numpy as np
import pytest
from gatewise import Grid, InputSpec, NetworkBuilder, WeightCodes, XorNetwork
from gatewise.cli.app import run_app
from gatewise.kernels.errors import FormatError
from gatewise.rtl import export, export_pages, icarus
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.engine.engine import Engine
from gatewise.rtl.engine.ports import PORTS
from gatewise.rtl.export import MARK, export_engine, verilog_text
from gatewise.rtl.regress import run_bench
from gatewise.sim import xor_coded
from gatewise.sim.arrays import array_form
from gatewise.sim.compile import compile_network
from gatewise.sim.descriptor import descriptor_bits, descriptor_fields, encode_descriptor, record_slots
from gatewise.sim.engine import EngineConfig
from gatewise.sim.image import main_field, rescale_field
from gatewise.sim.lowered import row_groups
from gatewise.sim.tiles import step_tiles

SMALL = EngineConfig(rows=4, lanes=4, pixels=16, act_bytes=4096)
FILES = {"engine.v", "parameters.md", "ports.md", "descriptor.md", "streams.md", "memory.md"}

READS_UNWRITTEN = """
module bench;
  reg clk = 0;
  wire [7:0] a, b;
  dut dut(.address(6'd63), .write(8'd5), .clk(clk), .rst(1'b0), .a(a), .b(b));
  initial begin
    #1 clk = 1;
    #1 $display("%b %b", a, b);
    clk = 0;
    #1 clk = 1;
    #1 $display("%b %b", a, b);
  end
endmodule
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rtl") / "new"
    assert {file.name for file in export_engine(SMALL, folder)} == FILES
    return folder


def used(engine):
    """The engine, of which Amaranth is not to say that it was never built."""
    for part in (engine, engine.control, engine.reader, engine.memory, engine.transfer, engine.compute, engine.post):
        part._MustUse__used = True
    return engine


def no_verilog(engine, *rest):
    """In place of the text that takes long to make."""
    used(engine)
    return "module engine(); endmodule\n"


def rows(page):
    """The cells of every line of a page's tables, heads and rules apart."""
    found = []
    for line in page.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip().removeprefix("`").removesuffix("`") for cell in line.strip("|").split(" |")]
        if cells[0] == "---":
            found.pop()
        else:
            found.append(cells)
    return found


@pytest.mark.usefixtures("icarus")
def test_icarus_elaborates_the_engine_without_a_word(exported):
    command = ["iverilog", "-g2005", "-Wall", "-t", "null", "-s", "engine", "engine.v"]
    result = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.usefixtures("icarus")
def test_exported_verilog_is_the_block(monkeypatch):
    # A row's whole bench runs on it; what the bench catches is planted in the second text.
    monkeypatch.setattr(icarus, "to_verilog", verilog_text)
    assert run_bench(BLOCKS["dot"], {"lanes": 4}, vectors=200).passed

    def planted(component, name):
        text = verilog_text(component, name)
        assert " ^ " in text
        return text.replace(" ^ ", " | ", 1)

    monkeypatch.setattr(icarus, "to_verilog", planted)
    assert not run_bench(BLOCKS["dot"], {"lanes": 4}, vectors=200).passed


@pytest.mark.usefixtures("icarus")
def test_memories_of_zeros_read_as_zeros_before_they_are_written(tmp_path, two_memories):
    text = verilog_text(two_memories(), "dut")
    assert text.count("initial begin : zeros_") == 2
    assert len(text) < 6000
    (tmp_path / "dut.v").write_text(text + READS_UNWRITTEN)
    subprocess.run(["iverilog", "-g2005", "-Wall", "-o", "dut", "-s", "bench", "dut.v"], cwd=tmp_path, check=True)
    output = subprocess.run(["vvp", "-n", "dut"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["00000000", "00000000", "00000101", "00000101"]


def test_equal_modules_stand_once_and_need_no_escapes(exported):
    names = re.findall(r"^module (\S+)\(", (exported / "engine.v").read_text(), re.MULTILINE)
    assert names.count("engine") == 1
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    assert "engine_compute_array_row" in names
    assert not any(re.search(r"row_\d", name) for name in names)


def test_the_text_is_the_same_every_time_and_nobodys(exported, tmp_path):
    export_engine(SMALL, tmp_path)
    for name in FILES:
        text = (exported / name).read_text()
        assert (tmp_path / name).read_text() == text
        assert MARK in text.splitlines()[0]
    assert "dump_module" not in (exported / "engine.v").read_text()


def test_the_ports_page_is_the_verilogs(exported):
    listed = {name: (direction, int(bits)) for name, direction, bits, _ in rows((exported / "ports.md").read_text())}
    (module,) = re.findall(r"^module engine\(.*?^endmodule", (exported / "engine.v").read_text(), re.M | re.S)
    found = {
        name: (direction, 1 if not last else int(last) + 1)
        for direction, last, name in re.findall(r"^  (input|output) (?:signed )?(?:\[(\d+):0\] )?(\w+);$", module, re.M)
    }
    assert listed == found
    assert list(listed) == [name for name, *_ in export_pages.ports(used(Engine(SMALL)))]


def test_every_port_is_explained_and_nothing_else():
    assert PORTS.keys() == {name for name, *_ in export_pages.ports(used(Engine(SMALL)))}


@pytest.mark.parametrize("array", ["digit", "shift"])
def test_an_engine_with_huffman_decoders_says_what_they_read(array):
    config = SMALL.model_copy(update={"array": array, "decoder": "huffman"})
    text = export_pages.pages(used(Engine(config)))
    fields = {cells[0]: cells[1:] for cells in rows(text["descriptor"])}
    for name in ("table_words", "weight_words"):
        assert fields[name][1] == "32"
        assert "decoder's table" in fields[name][3] or "coded weights" in fields[name][3]
    assert "table_words" not in export_pages.pages(used(Engine(SMALL)))["descriptor"]
    streams = text["streams"]
    assert "| 255 + l, l = 1 to 16 |" in streams
    assert "the limit in bits 0 to 16, the offset in 17 to 24" in streams
    assert "container bits" not in streams
    assert ("amounts" in streams.split("## Coded weights")[1].split("Symbols are")[1]) == (array == "digit")
    assert "stream_error" not in text["ports"]


@pytest.mark.parametrize("decoder", ["raw", "huffman"])
def test_an_engine_with_a_fused_array_says_where_codes_of_two_bits_are(decoder):
    config = SMALL.model_copy(update={"array": "fusion", "decoder": decoder, "bus_bits": 128})
    engine = used(Engine(config))
    text = export_pages.pages(engine)
    assert "words of 8 digits of 4 bits (32 bits)" in text["memory"]
    assert "a write enable for each 2 bits" in text["memory"]
    assert "ceil(C / 16) words a pixel. Channel c is at slot\nc % 8, in the lower 2 bits" in text["memory"]
    assert "`_narrow` is up are of half-words" in text["descriptor"]
    listed = {name: int(bits) for name, _, bits, _ in rows(text["ports"])}
    assert listed["write_mask"] == 16
    fields = {cells[0]: int(cells[2]) for cells in rows(text["descriptor"])}
    address = listed["write_address"]
    assert (fields["out_plane_0"], fields["origin"], fields["first_narrow"]) == (address + 1, address + 2, 1)
    modes = {cells[0]: cells[1:] for cells in rows(text["streams"]) if len(cells) == 4 and "x" in cells[0]}
    assert modes["3: 2x2"] == ["4", "2", "p, p + 8, p + 4, p + 12"]
    assert modes["1: 2x4"] == ["2", "4", "p, p + 4"]
    plain = export_pages.pages(used(Engine(SMALL)))
    assert not any("narrow" in page or "half-word" in page or "lane group is" in page for page in plain.values())


def xor_network(tile, depthwise=False):
    """A convolution with encrypted signs: two planes of different networks, lanes that do not fill."""
    rng = np.random.default_rng(0)
    shape = (6, 1, 2, 2) if depthwise else (6, 7, 2, 2)
    networks = [XorNetwork.random(7, 9, 2, 1), XorNetwork.random(29, 32, 3, 3)]
    slices = [rng.integers(0, 2, (each.slices(math.prod(shape)), each.n_in)).astype(np.uint8) for each in networks]
    codes = WeightCodes.xor(slices, networks, rng.integers(1, 60, (2, 6)), shape, fraction=5, tile=tile)
    inputs = shape[0] if depthwise else shape[1]
    grid = InputSpec(shape=(inputs, 3, 3), bits=4, scale=1.0, mean=(0.0,) * inputs, std=(1.0,) * inputs)
    net = NetworkBuilder("net", grid)
    net.conv2d("conv", net.input, codes, scale=1.0, out=Grid(1.0, 8), groups=6 if depthwise else 1)
    return net.build()


def read_xor_stream(page, table, words, lanes, tile_rows):
    """The tiles of a row group as the page says that they are read: lanes that no run reaches are -1."""
    at = {cells[0]: (int(cells[1]), int(cells[2])) for cells in rows(page) if cells[0] in xor_coded.RUN_FIELDS}
    assert list(at) == list(xor_coded.RUN_FIELDS)
    entries = iter(table.reshape(-1).view(np.uint32).tolist())
    networks = [(size & 255, [next(entries) for _ in range(size >> 8)]) for size in entries if size]
    found, row = [], [-1] * lanes
    chunks = iter(words.reshape(-1).view(np.uint32).tolist())
    ended = False
    while not ended:
        head, count = next(chunks), next(chunks)
        run = {name: head >> bit & (1 << bits) - 1 for name, (bit, bits) in at.items()}
        bits = [chunk >> k & 1 for chunk in (next(chunks) for _ in range(count)) for k in range(32)]
        inputs, masks = networks[run["network"]]
        slices = [bits[k : k + inputs] for k in range(0, len(bits) - inputs + 1, inputs)]
        outputs = [sum(one for k, one in enumerate(each) if mask >> k & 1) % 2 for each in slices for mask in masks]
        signs, lane = outputs[run["skip"] :][: run["length"]], run["lane"]
        assert len(signs) == run["length"]
        while signs:
            part, signs = signs[: lanes - lane], signs[lanes - lane :]
            row[lane : lane + len(part)] = part
            lane = 0
            if signs or run["row_end"]:
                found.append(row)
                row = [-1] * lanes
        ended = run["pass_end"]
    assert not any(chunks)
    return np.array(found).reshape(-1, tile_rows, lanes)


@pytest.mark.parametrize(("tile", "depthwise"), [((4, 4), False), (None, False), ((4, 4), True), (None, True)])
def test_an_engine_with_an_xor_decoder_says_what_it_reads(tile, depthwise):
    config = SMALL.model_copy(update={"array": "sign", "decoder": "xor"})
    text = export_pages.pages(used(Engine(config)))
    assert "container bits" not in text["streams"]
    assert "up to\n4 of them" in text["streams"]
    assert "stream_error" not in text["ports"]
    lowered = compile_network(xor_network(tile, depthwise), config).layers[1]
    form = array_form(lowered.mac, "sign")
    for index, group in enumerate(row_groups(lowered.registers, config)):
        words = lowered.coded.words(index)
        found = read_xor_stream(text["streams"], lowered.coded.table, words, 4, 1 if depthwise else group.rows)
        wanted = [codes for codes, _ in step_tiles(form, group, 4)]
        assert len(found) == len(wanted)
        for tile_found, codes in zip(found, wanted, strict=True):
            if depthwise:
                own = slice(group.lane, group.lane + group.rows)
                assert tile_found[0, own].tolist() == codes[:, 0].tolist()
                tile_found[0, own] = -1
                assert (tile_found == -1).all()
            else:
                reached = tile_found >= 0
                assert np.array_equal(tile_found[reached], codes[reached])
                assert (reached == reached[0]).all()
                assert reached[0].sum() >= 3
    changed = re.sub(r"(\| `skip` \| )16", r"\g<1>15", text["streams"])
    assert changed != text["streams"]
    with pytest.raises((AssertionError, StopIteration)):
        assert np.array_equal(read_xor_stream(changed, lowered.coded.table, words, 4, group.rows)[0], found[0])


def test_the_descriptor_page_is_the_descriptor(exported):
    listed = rows((exported / "descriptor.md").read_text())
    fields = descriptor_fields(SMALL)
    assert [(name, int(bits), signed == "yes") for name, _, bits, signed, _ in listed] == [
        (name, field.bits, field.signed) for name, field in fields.items()
    ]
    assert all(len(meaning) > 4 for *_, meaning in listed)
    assert len({meaning for *_, meaning in listed}) == len(listed)
    plain = encode_descriptor(SMALL, "end", {})
    check = int(next(at for name, at, *_ in listed if name == "check"))
    for name, at, *_ in listed:
        if name in ("magic", "check", "op"):
            continue
        bits = np.unpackbits(encode_descriptor(SMALL, "end", {name: 1}) ^ plain, bitorder="little")
        moved = set(np.flatnonzero(bits)) - set(range(check, check + 8))
        assert moved == {int(at)}
    assert int(listed[-1][1]) + int(listed[-1][2]) <= descriptor_bits(SMALL)


def test_the_record_parts_are_where_the_page_says(exported):
    page = rows((exported / "streams.md").read_text())
    one, none = np.array([1]), np.array([0])
    for at, name in enumerate(("zero", "multiplier", "shift", "descending", "fewer")):
        arguments = [one if index == at else none for index in range(5)]
        bit = int(main_field(*arguments)[0]).bit_length() - 1
        assert [part[:2] for part in page].count([name, str(bit)]) == 1
    for at, name in enumerate(("multiplier", "shift")):
        arguments = [one if index == at else none for index in range(2)]
        bit = int(rescale_field(*arguments)[0]).bit_length() - 1
        assert [part[:2] for part in page].count([name, str(bit)]) == 1
    assert [part[0] for part in page][:2] == ["bias", "main"]
    assert ["threshold_14", "thresholds` > 14", "threshold, signed"] in page


def test_the_streams_page_follows_the_array():
    for array in ("digit", "sign", "shift"):
        config = SMALL.model_copy(update={"array": array})
        text = export_pages.pages(used(Engine(config)))["streams"]
        records, words = text.split("`main`:")[0], rows(text.split("## Weight tiles")[1])
        assert tuple(part[0] for part in rows(records)) == record_slots(config)
        assert [part[0] for part in words] == (["1"] if array == "sign" else ["1", "2", "4", "8"])
        assert {len(part) for part in words} == {4 if array == "digit" else 3}
        for part in words:
            assert int(part[1]) == -(-SMALL.rows * SMALL.lanes * int(part[0]) // SMALL.bus_bits)
        assert ("amounts" in text, "complemented" in text, "planes 4 to 7" in text) == (
            array == "digit", array == "shift", array == "sign",
        )  # fmt: skip


def test_the_page_of_a_shift_code_is_its_layout():
    codes = WeightCodes.focused(
        np.array([[1, -1, 0, 0]]), np.array([[2, 1, 0, 0]]), np.array([[1, 0, 1, 0]]), np.array([[False] * 3 + [True]])
    )
    net = NetworkBuilder("net", InputSpec(shape=(4, 1, 1), bits=4, scale=1.0, mean=(0.0,) * 4, std=(1.0,) * 4))
    net.linear("fc", net.input, codes, scale=1.0, out=Grid(1.0, 8))
    streamed = array_form(net.build().layers["fc"], "shift").codes.reshape(-1).tolist()
    exponents = [code >> 3 for code in streamed]
    assert exponents[0] - exponents[1] == 1
    assert [(code & 3, code >> 2 & 1) for code in streamed] == [(2, 1), (1, 0), (3, 1), (0, 0)]


def test_the_memory_page_follows_the_engine(exported):
    banks = rows((exported / "memory.md").read_text())[:4]
    assert banks == [["0", "0", "511"], ["1", "512", "1023"], ["2", "1024", "1535"], ["3", "1536", "2047"]]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_of_somebody_else_is_not_replaced(tmp_path, monkeypatch, name):
    monkeypatch.setattr(export, "verilog_text", no_verilog)
    (tmp_path / "notes.txt").write_text("mine\n")
    export_engine(SMALL, tmp_path)
    export_engine(SMALL, tmp_path)
    (tmp_path / name).write_text("mine\n")
    others = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(FormatError, match=rf"{name}: must be a file written by this command, or not be there"):
        export_engine(EngineConfig(rows=8, lanes=4), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == others


def test_the_verb_writes_the_folder_and_refuses_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "verilog_text", no_verilog)
    (tmp_path / "e.toml").write_text("rows = 8\nlanes = 4\n")
    arguments = ["export-rtl", "--engine", str(tmp_path / "e.toml"), "-o"]
    with pytest.raises(SystemExit) as exit:
        run_app([*arguments, str(tmp_path / "deep" / "rtl")])
    assert exit.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "deep" / "rtl" / name) for name in ("engine.v", *(f"{page}.md" for page in export_pages.PAGES))
    ]
    assert "| `rows` | 8 |" in (tmp_path / "deep" / "rtl" / "parameters.md").read_text()
    with pytest.raises(SystemExit) as exit:
        run_app([*arguments, str(tmp_path / "e.toml")])
    assert exit.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'e.toml'}: must be a folder\n"
