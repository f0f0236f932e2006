"""The timing diagrams: their windows hold the events that the cycle model says, and the pictures are up to date."""

import importlib.util
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from gatewise.sim.cycles import layer_cycles
from gatewise.sim.tile_times import tile_times

ROOT = Path(__file__).resolve().parents[2]


def load_diagrams():
    sys.path.insert(0, str(ROOT / "bench"))  # what it imports lies beside it
    spec = importlib.util.spec_from_file_location("diagrams", ROOT / "bench" / "diagrams.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["diagrams"] = module
    spec.loader.exec_module(module)
    return module


diagrams = load_diagrams()


@pytest.fixture(scope="module")
def traces():
    return {name: scene.trace() for name, scene in diagrams.SCENES.items()}


@pytest.mark.parametrize("name", diagrams.SCENES)
def test_the_events_are_where_the_cycle_model_says(traces, name):
    trace = traces[name]
    expected = list(tile_times(trace.layer, trace.engine))
    steps = [step for tile in expected for step in tile.starts]
    registers = trace.layer.registers
    slots = [slot for tile in expected for slot in range(tile.slot, tile.last_slot + 1, registers["interval"])]
    assert trace.steps == steps
    assert trace.tiles == [tile.first for tile in expected]
    assert trace.cycles("tile_done") == [tile.done for tile in expected]
    assert trace.cycles("slot") == slots
    assert [trace.drained(slot) for slot in slots] == [
        index for index, tile in enumerate(expected) for _ in range(tile.pixels)
    ]
    assert len(trace.cycles("post_wait")) == sum(tile.post_wait for tile in expected)
    cycles = layer_cycles(trace.layer, trace.engine)
    assert len(trace.cycles("read")) == cycles.compute
    assert trace.next_fetch + 1 == cycles.total
    assert trace.cycles("fetch")[0] == -1


def test_windows_show_what_they_are_for(traces):
    windows = {name: scene.window(traces[name]) for name, scene in diagrams.SCENES.items()}
    assert all(len(window) <= diagrams.MOST_CYCLES for window in windows.values())
    tiles = {name: list(tile_times(trace.layer, trace.engine)) for name, trace in traces.items()}
    assert {-1, tiles["load"][0].first} <= set(windows["load"])
    assert {tile.first for tile in tiles["compute"]} | {tile.done for tile in tiles["compute"]} <= set(
        windows["compute"]
    )
    last = tiles["drain"][-1]
    end = layer_cycles(traces["drain"].layer, traces["drain"].engine).total
    assert {last.done, last.slot, last.last_slot, end} <= set(windows["drain"])
    assert layer_cycles(traces["stall_weights"].layer, traces["stall_weights"].engine).weight_stall > 0
    assert {tiles["stall_weights"][0].first, tiles["stall_weights"][0].done} <= set(windows["stall_weights"])
    waiting = tiles["stall_post"][2]
    assert waiting.post_wait > 0
    assert set(range(waiting.first - waiting.post_wait, waiting.first + 1)) <= set(windows["stall_post"])


@pytest.mark.parametrize("name", diagrams.SCENES)
def test_the_pictures_are_well_formed_and_those_of_the_documents(traces, name):
    pytest.importorskip("wavedrom")
    waves = diagrams.SCENES[name].waves(traces[name])
    assert len(waves["signal"]) <= diagrams.MOST_ROWS
    picture = diagrams.render(waves)
    root = ET.fromstring(picture)
    ground = root[0]
    assert root.tag.endswith("}svg")
    assert (ground.tag.split("}")[1], ground.get("fill")) == ("rect", "#fff")
    assert len(picture) < 100_000
    assert picture == (ROOT / "docs" / "timing" / f"{name}.svg").read_bytes()
