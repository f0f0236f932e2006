"""The stall trace: its steps are the cycle model's parts, one by one."""

import csv
import json
from collections import Counter
from itertools import pairwise

import pytest
from gatewise import EngineConfig, FormatError
from gatewise.sim.cycles import network_cycles
from gatewise.sim.lower import lower
from gatewise.sim.trace import steps, write_trace

ENGINES = [
    EngineConfig(),
    EngineConfig(rows=4, lanes=4, pixels=16, post_lanes=1, bus_bits=8),
    EngineConfig(rows=8, lanes=4, pixels=16, post_lanes=1, bus_bits=512),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_steps_of_a_layer_add_up_to_its_parts(samples, engine):
    layers = lower(samples.small().build(), engine)
    found: dict[str, Counter] = {}
    end = 0
    for step in steps(layers, engine):
        assert step.start >= end
        end = step.start + step.reads + step.weight_stall + step.post_stall
        counts = found.setdefault(step.layer, Counter())
        counts.update(compute=step.reads, weight_stall=step.weight_stall, post_stall=step.post_stall)
    expected = {
        cycles.name: {part: getattr(cycles, part) for part in ("compute", "weight_stall", "post_stall")}
        for cycles in network_cycles(layers, engine)
        if cycles.macs
    }
    assert {name: dict(counts) for name, counts in found.items()} == expected
    assert any(sum(counts.values()) > counts["compute"] for counts in found.values())


def test_both_forms_hold_every_step(samples, tmp_path):
    engine = ENGINES[2]
    layers = lower(samples.small().build(), engine)
    write_trace(tmp_path / "t.csv", layers, engine)
    with open(tmp_path / "t.csv") as file:
        rows = list(csv.DictReader(file))
    listed = list(steps(layers, engine))
    assert [(row["layer"], int(row["start"]), int(row["reads"])) for row in rows] == [
        (step.layer, step.start, step.reads) for step in listed
    ]
    write_trace(tmp_path / "t.json", layers, engine)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert [event["dur"] for event in events if event["name"] == "compute"] == [step.reads for step in listed]
    spans = [(event["ts"], event["dur"]) for event in events if event["ph"] == "X" and event["tid"] == 0]
    assert sum(length for _, length in spans) == sum(cycles.total for cycles in network_cycles(layers, engine))
    assert all(first + length == second for (first, length), (second, _) in pairwise(spans))


def test_another_name_is_refused_before_the_work(samples, tmp_path):
    with pytest.raises(FormatError, match=r"a stall trace must be called \.csv or \.json$"):
        write_trace(tmp_path / "t.vcd", [], ENGINES[0])
