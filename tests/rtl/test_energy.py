"""Estimate B on a small engine: gates times measured activity, with the accesses of the model."""

from pathlib import Path

import gatewise
import numpy as np
import pytest
from gatewise import EngineConfig
from gatewise.kernels.errors import MismatchError
from gatewise.rtl import energy
from gatewise.rtl.energy import GROUPS, check_row, engine_gates, measure
from gatewise.sim.compile import compile_network
from gatewise.sim.energy import GateEnergies
from gatewise.sim.file import load
from gatewise.sim.images import image_codes

FOLDER = Path(gatewise.__file__).parent / "sim" / "digits"
ENGINE = EngineConfig(rows=4, lanes=4, pixels=64, act_bytes=1 << 14)


@pytest.fixture(scope="module")
def compiled():
    return compile_network(load(FOLDER / "digits-int4.gw"), ENGINE)


@pytest.fixture(scope="module")
def codes(compiled):
    return image_codes(compiled.network.manifest.input, 1, FOLDER / "test.npz")


@pytest.fixture(scope="module")
def found(compiled, codes, synth_cache):
    return measure(compiled, codes, cache=synth_cache)


def test_the_rtl_makes_the_accesses_that_the_model_counts(compiled, found):
    """`measure` compares them all; here one against the cycles and one against the stream."""
    from gatewise.sim.cycles import network_cycles

    cycles = network_cycles(compiled.layers, ENGINE)
    assert found.accesses["accumulator writes"] == sum(each.compute for each in cycles if each.macs)
    assert found.accesses["bus words"] * ENGINE.bus_bits // 8 > sum(each.bytes_read for each in cycles)
    # Behind the last layer the engine is busy with the descriptor that ends the network.
    assert 0 < found.cycles - sum(each.total for each in cycles) < 64


def test_another_count_than_the_rtls_is_an_error(compiled, codes, monkeypatch):
    ran = energy._run(energy.watched_engine(ENGINE), compiled, codes, lambda text: None)
    assert energy._accesses(compiled, *ran, 1)["activation writes"] > 0
    energy_events = energy.layer_events

    def one_less(layer, engine):
        events = list(energy_events(layer, engine))
        return events[:-1] if layer.op == "load" else events

    monkeypatch.setattr(energy, "layer_events", one_less)
    with pytest.raises(MismatchError, match="activation writes of 1 images must be"):
        energy._accesses(compiled, *ran, 1)


def test_energies_are_products_of_gates_activity_and_cost(found):
    gates = GateEnergies()
    for module in found.modules:
        assert module.clock.low == pytest.approx(module.flip_flops * found.cycles * gates.clock.low)
        assert module.gated.low == pytest.approx(module.flips * gates.clock.low)
        assert module.flips <= module.flip_flops * found.cycles
        assert module.logic.high == pytest.approx(2 * module.logic.low)
    total = sum(module.logic.low + module.clock.low for module in found.modules)
    assert found.total.low == pytest.approx(total)
    assert {module.name for module in found.modules} <= set(GROUPS.values())
    assert found.to_json()["total_pj"][0] == found.total.low
    assert [note[:2] for note in found.notes] == ["B,", "B "]


def test_gates_are_those_of_the_synthesis_of_the_whole(synth_cache):
    """All instances' own gates together, and every instance's signals under its name."""
    instances = engine_gates(energy._design(ENGINE), synth_cache)
    rows = [each for each in instances if energy._plain(each.path).startswith("compute.array.row_")]
    alike = {
        sum(each.gates for each in rows if energy._plain(each.path).split(".")[2] == f"row_{at}") for at in range(4)
    }
    assert len(alike) == 1
    assert len({each.path for each in instances}) == len(instances)


def test_a_rows_gates_give_its_sums_and_say_how_far_the_estimate_is(compiled, codes, synth_cache):
    check = check_row(compiled, codes[0], cache=synth_cache)
    assert abs(check.flip_flop_changes - check.counted_flips) <= 32  # what was there before the first cycle
    assert 0 < check.gate_changes < check.gates * check.cycles
    # Published in docs/energy.md: named nets switch more than the gates behind them.
    assert 0 < check.difference < 2
    assert check.to_json()["difference"] == check.difference


def test_gates_that_give_other_sums_are_found(compiled, codes, synth_cache, monkeypatch):
    right = energy.Netlist.of

    def wrong(*arguments):
        netlist = right(*arguments)
        kinds = {"AND": "NAND", "XOR": "XNOR"}
        first = next(gate for gate in netlist.found["gates"] if gate[0] in kinds)
        gates = [[kinds[g[0]], *g[1:]] if g is first else g for g in netlist.found["gates"]]
        return energy.Netlist({**netlist.found, "gates": gates})

    monkeypatch.setattr(energy.Netlist, "of", wrong)
    with pytest.raises(MismatchError, match="gates must give what the RTL gives"):
        check_row(compiled, np.asarray(codes[0]), cache=synth_cache)
