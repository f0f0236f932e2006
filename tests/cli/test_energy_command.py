"""The verb energy: its forms, its JSON, and what it refuses."""

import json

import pytest


def test_energy_prints_both_estimates_notes_and_writes_its_json(gatewise, network, tmp_path):
    result = gatewise("energy", network, "--json", tmp_path / "energy.json")
    assert result.code == 0
    assert "A, published energies" in result.out
    assert "B, own gate counts times measured activity: not measured here" in result.out
    content = json.loads((tmp_path / "energy.json").read_text())
    assert content["schema"] == 1
    assert content["measured"] is None
    assert content["total_pj"][0] < content["total_pj"][1]


@pytest.mark.parametrize(("form", "start"), [("md", "small on "), ("csv", "# A, "), ("latex", "% ")])
def test_energy_has_forms_for_other_programs(gatewise, network, form, start):
    result = gatewise("energy", network, "--format", form)
    assert result.code == 0
    assert result.out.startswith(start)


def test_energy_takes_energies_of_a_file(gatewise, network, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\nprocess = "7 nm, 0.7 V"\nsource = "a measurement"\nmultiply_8 = 0.02\n')
    assert "a measurement; 7 nm, 0.7 V" in gatewise("energy", network, "--energies", path, "--format", "md").out


def test_energy_refuses_bad_input_in_one_line(refused, network, tmp_path):
    (tmp_path / "bad.toml").write_text('name = "own"\nprocess = "p"\nsource = "s"\ndram_low = 0.0\n')
    assert "dram_low: input should be greater than 0" in refused("energy", network, "--energies", tmp_path / "bad.toml")
    assert refused("energy", network, "--format", "html").startswith("--format must be one of table")
    assert "must be readable" in refused("energy", network, "--energies", tmp_path / "none.toml")
    assert "none.gw" in refused("energy", tmp_path / "none.gw")
    assert refused("energy", network, "--data", "images.npz") == "--data must come with --images N"
