"""Energies of single operations, and of images: by hand, and as sums of their rows."""

import json
from dataclasses import replace
from pathlib import Path

import gatewise
import pytest
from gatewise import EngineConfig
from gatewise.kernels.errors import FormatError
from gatewise.sim.compile import compile_network
from gatewise.sim.cycles import network_cycles
from gatewise.sim.energy import Energies, GateEnergies, Range, estimate
from gatewise.sim.energy_report import FORMS, as_table, check_form
from gatewise.sim.events import PARTS, Event
from gatewise.sim.file import load

FOLDER = Path(gatewise.__file__).parent / "sim" / "digits"
OWN = 'name = "own"\nprocess = "7 nm"\nsource = "measured"\n'


@pytest.fixture(scope="module")
def found():
    """The int4 digits network on its engine."""
    return estimate(load(FOLDER / "digits-int4.gw"), EngineConfig.load(FOLDER / "engine-digit.toml"))


def test_published_energies_come_back_at_their_own_widths_and_sizes():
    table = Energies()
    assert (table.add(8), table.add(32)) == (0.03, 0.1)
    assert (table.multiply(8 * 8), table.multiply(32 * 32)) == (0.2, 3.1)
    assert table.sram(64, 8 << 10) == 10
    assert table.sram(64, 32 << 10) == pytest.approx(20, rel=1e-12)
    assert table.sram(64, 1 << 20) == pytest.approx(100, rel=1e-12)
    assert table.of(Event("weights", "dram", 1, 64)) == Range(1300, 2600)


def test_other_widths_scale_as_the_notes_say():
    table = Energies()
    assert table.multiply(16) == pytest.approx(0.2 / 4)  # 4 x 4 bits: a quarter of 8 x 8
    assert table.multiply(4) == pytest.approx(0.2 / 16)
    assert table.add(4) == pytest.approx(0.015)
    assert table.add(20) == pytest.approx(0.065)  # half way from 8 to 32
    assert table.add(64) == pytest.approx(0.2)
    assert table.sram(128, 8 << 10) == pytest.approx(20)
    assert table.sram(64, 2 << 10) == pytest.approx(5)  # a quarter of the bytes, as from 32 KiB to 8
    assert table.gate == pytest.approx(0.03 / 8 / 5)
    assert table.of(Event("weight registers", "register", 1, 8)).low == pytest.approx(8 * 6 * 0.00075)


def test_a_gates_transition_is_half_of_c_v_squared():
    gates = GateEnergies(voltage=1.0, input_ff=2.0, fan_out=2.0, own_load=1.0, wires_low=0.0, wires_high=1.0)
    assert gates.transition == Range(0.5 * 6e-3, 6e-3)  # 6 fF at 1 V
    assert gates.clock == Range(8e-3, 16e-3)  # 8 fF up and down
    assert gates.flip == Range(4 * 3e-3, 4 * 6e-3)


def test_the_total_is_the_sum_of_its_rows_and_of_its_layers(found):
    assert found.total.low == pytest.approx(sum(row.energy.low for row in found.rows))
    assert found.total.high == pytest.approx(sum(layer.total.high for layer in found.layers))
    groups = [found.of(group) for group in dict.fromkeys(PARTS.values())]
    assert sum(each.low for each in groups) == pytest.approx(found.total.low)
    assert found.on_chip.low == found.on_chip.high
    assert found.total.low < found.total.high
    dram = found.of("DRAM")
    assert dram.high == pytest.approx(2 * dram.low)


def test_energy_follows_from_the_counts_by_hand(found):
    """All of the weights' stream is words of 128 bits; all products are 4 x 4 bits."""
    products = sum(row.count for row in found.rows if (row.part, row.kind) == ("multiply", "multiply"))
    assert found.part("multiply").low == pytest.approx(products * 0.05)
    words = sum(row.count for row in found.rows if row.part == "weights")
    assert found.part("weights").low == pytest.approx(words * 2 * 1300)


def test_the_bytes_from_dram_and_the_cycles_are_those_of_the_cycle_model(found):
    layers = compile_network(load(FOLDER / "digits-int4.gw"), found.engine).layers
    cycles = network_cycles(layers, found.engine)
    read = sum(row.count for row in found.rows if row.part in ("weights", "records")) * found.engine.bus_bits // 8
    assert read == sum(layer.bytes_read for layer in cycles)
    assert found.cycles == sum(layer.total for layer in cycles)


def test_both_estimates_caveats_come_with_every_form(found):
    for note in found.notes:
        assert all(note in write(found).replace("\\_", "_") for write in FORMS.values())
    assert sum(note.startswith("A") for note in found.notes) == 2
    assert sum(note.startswith("B, own gate counts") for note in found.notes) == 1
    assert as_table(found).renderables[-len(found.notes) :] == found.notes


def test_the_json_form_has_rows_that_add_up(found):
    content = json.loads(json.dumps(found.to_json()))
    assert content["schema"] == 1
    assert sum(row["pj"][1] for row in content["rows"]) == pytest.approx(content["total_pj"][1])
    assert sum(layer["arithmetic_pj"][0] for layer in content["layers"]) == pytest.approx(
        sum(row["pj"][0] for row in content["rows"] if row["group"] == "arithmetic")
    )
    assert content["pj_per_mac"][0] == pytest.approx(content["total_pj"][0] / content["macs"])


def test_a_dearer_dram_changes_dram_alone(found):
    dearer = Energies(**{**Energies().model_dump(exclude={"gates"}), "dram_low": 2000.0, "dram_high": 2700.0})
    other = estimate(load(FOLDER / "digits-int4.gw"), found.engine, dearer)
    assert other.on_chip == found.on_chip
    assert other.of("DRAM").low == pytest.approx(found.of("DRAM").low * 2000 / 1300)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("add_8 = 0.02\n", "energies: name must say whose figures these are, and is missing"),
        (OWN + "add_8 = -1.0\n", "energies: add_8: input should be greater than 0, not '-1.0'"),
        (OWN + "add_8 = 0.2\n", "energies: add_8 must be at most add_32 (0.1), not 0.2"),
        (OWN + "dram_high = 1000.0\n", "energies: dram_low must be at most dram_high (1000), not 1300"),
        (OWN + "add_64 = 0.2\n", "energies: add_64 is not a known key"),
        (OWN + "add_8 = inf\n", "energies: add_8: input should be a finite number, not 'inf'"),
        (OWN + "[gates]\nvoltage = 0.0\n", "energies: gates: voltage: input should be greater than 0, not '0.0'"),
        (OWN + "[gates]\nwires_low = 2.0\n", "energies: gates: wires_low must be at most wires_high (1), not 2"),
        ("add_8 =", "must be TOML: "),
    ],
)
def test_bad_files_of_energies_are_refused_in_one_line(tmp_path, text, problem):
    path = tmp_path / "energies.toml"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        Energies.load(path)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_own_energies_are_taken_and_named(tmp_path):
    path = tmp_path / "energies.toml"
    path.write_text(OWN + "multiply_8 = 0.02\n[gates]\nvoltage = 0.7\n")
    table = Energies.load(path)
    assert table.multiply(64) == 0.02
    assert table.gates.voltage == 0.7
    assert "measured; 7 nm" in table.notes()[0]
    with pytest.raises(FormatError, match="must be readable"):
        Energies.load(tmp_path / "none.toml")


def test_an_unknown_form_is_refused():
    with pytest.raises(FormatError, match="--format must be one of table, md, csv, latex, not 'xml'"):
        check_form("xml")


def test_an_estimate_of_no_macs_has_no_energy_a_mac(found):
    empty = replace(found, layers=[])
    assert empty.to_json()["pj_per_mac"] is None
    assert "0.000" in as_markdown_total(empty)


def as_markdown_total(found):
    return next(line for line in FORMS["md"](found).splitlines() if line.startswith("| total"))
