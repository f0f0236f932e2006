"""Cycles on many engines at once: exactly the model's on each, faults in either are seen, and nothing is lost."""

from dataclasses import astuple

import numpy as np
import pytest
from gatewise import EngineConfig, FormatError, GatewiseError, Grid, NetworkBuilder
from gatewise.sim import cycles, engines, lowered, sweep
from gatewise.sim.cycles import network_cycles
from gatewise.sim.engines import Engines
from gatewise.sim.lower import lower
from gatewise.sim.random_cases import random_cases
from gatewise.sim.sort import sorted_by_width
from gatewise.sim.sweep import PARTS, configurations, network_cycles_many, pareto

SIZES = (4, 8, 16, 32, 64)


def varied(rng, engine, count):
    """Engines with the array, decoder and widths of one, of any size."""
    made = []
    while len(made) < count:
        rows, lanes = rng.choice(SIZES, 2).tolist()
        settings = {
            "rows": rows,
            "lanes": lanes,
            "pixels": int(rng.choice([16, 17, 24, 40, 64, 256, 1024])),
            "post_lanes": int(rng.choice([1, 2, 4, 8])),
            "bus_bits": int(rng.choice([8, 16, 32, 64, 128, 512])),
            "bus_latency": int(rng.choice([0, 1, 20, 200])),
            "act_bytes": int(rng.choice([1 << 12, 1 << 14, 1 << 18])),
            "act_banks": int(rng.choice([2, 4])),
            "prefetch_words": 204,
        }
        if engine.decoder == "raw" or settings["bus_bits"] >= 32:
            if settings["post_lanes"] <= min(rows, lanes):
                made.append(EngineConfig(**{**dict(engine), **settings}))
    return made


def plain(network, engine):
    """What the model says of one engine, as (name, operations, six parts, bytes, products), or the refusal."""
    try:
        layers = network_cycles(lower(sorted_by_width(network).network, engine), engine)
    except GatewiseError as error:
        return str(error)
    return [
        (each.name, each.op, *(getattr(each, part) for part in PARTS), each.bytes_read, each.products)
        for each in layers
    ]


def swept(network, chosen):
    """The same of many, in their order."""
    found = network_cycles_many(network, chosen)
    rows = {engine: str(error) for engine, error in found.refused}
    for index, engine in enumerate(found.engines):
        figures = zip(found.layers, found.parts[index], found.bytes_read[index], found.products[index], strict=True)
        rows[engine] = [(*layer, *parts.tolist(), *more) for layer, parts, *more in figures if parts.any()]
    assert len(found.engines) + len(found.refused) == len(chosen)
    return [rows[engine] for engine in chosen]


def differing(network, chosen):
    """Engines on which the two differ."""
    return [engine for engine, row in zip(chosen, swept(network, chosen), strict=True) if row != plain(network, engine)]


@pytest.fixture(scope="module")
def network(samples):
    return samples.small().build()


def test_random_networks_take_on_every_engine_what_the_model_says():
    rng = np.random.default_rng(0)
    seen = {"engines": 0, "refused": 0, "post": 0, "weights": 0}
    for case in random_cases(45, seed=5):
        chosen = varied(rng, case.engine, 12)
        found = swept(case.network, chosen)
        for engine, row in zip(chosen, found, strict=True):
            assert row == plain(case.network, engine), engine
            seen["engines"] += 1
            seen["refused"] += isinstance(row, str)
        rows = np.array([layer[2:8] for row in found if not isinstance(row, str) for layer in row])
        seen["weights"] += int((rows.argmax(axis=1) == 1).sum())
        seen["post"] += int((rows.argmax(axis=1) == 2).sum())
    assert seen["engines"] == 540
    assert min(seen.values()) > 10, seen


def test_every_operation_takes_what_the_model_says(network):
    chosen = varied(np.random.default_rng(1), EngineConfig(), 150)
    assert differing(network, chosen) == []
    found = network_cycles_many(network, chosen)
    assert set(found.bound_by) >= {"compute", "weights", "host"}
    assert found.parts[:, :, PARTS.index("post_stall")].any()


def test_fewer_pixels_than_a_pass_has_cycles(samples):
    net = NetworkBuilder("fc", samples.input_spec((40, 1, 3), bits=8, zero_point=0))
    hidden = net.conv2d("conv", net.input, np.zeros((9, 40, 1, 2), int), bits=8, scale=0.1, out=Grid(0.1, 4))
    net.linear("fc", net.flatten("flat", hidden), np.zeros((70, 18), int), bits=4, scale=0.1, out=Grid(0.1, 8))
    assert differing(net.build(), varied(np.random.default_rng(2), EngineConfig(), 100)) == []


FAULTS = {
    "longer descriptors": (engines, "descriptor_bits", lambda engine: 2048),
    "writes that come for nothing": (lowered, "greatest", lambda count, *others: count),
    "latency one way": (cycles, "stream_start", lambda engines: engines.descriptor_words + engines.bus_latency + 5),
    "slots of a cycle more": (
        sweep,
        "timing_values",
        lambda *given: {name: value + (name == "interval") for name, value in TIMING(*given).items()},
    ),
}
TIMING = sweep.timing_values


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_what_many_engines_share_is_seen(fault, network, monkeypatch):
    chosen = varied(np.random.default_rng(3), EngineConfig(), 20)
    expected = [plain(network, engine) for engine in chosen]
    assert swept(network, chosen) == expected
    module, name, wrong = FAULTS[fault]
    monkeypatch.setattr(module, name, wrong)
    assert swept(network, chosen) != expected


def test_engines_side_by_side_share_nothing_that_a_layer_changes(network):
    """Arrays of an engine's numbers are read by every layer, and written by none."""
    chosen = varied(np.random.default_rng(4), EngineConfig(act_bytes=1 << 18), 5)
    together = Engines.alike([engine.model_copy(update={"rows": 8, "lanes": 8, "post_lanes": 1}) for engine in chosen])
    before = [np.copy(value) for value in astuple(together)[1:]]
    for layer in lower(network, together.shared):
        timing = sweep.Timing.of(layer)
        cycles.layer_parts(layer, timing, together)
    for value, old in zip(astuple(together)[1:], before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_engines_that_do_not_run_it_say_what_must_be_true(network):
    chosen = [EngineConfig(), EngineConfig(act_bytes=1024), EngineConfig(array="shift", decoder="xor")]
    found = network_cycles_many(network, chosen)
    assert found.engines == (chosen[0],)
    (_, memory), (_, decoder) = found.refused
    assert "but the engine has act_bytes = 1024" in str(memory)
    assert str(decoder) == "decoder of array shift must be raw or huffman, not xor"
    with pytest.raises(type(memory), match="act_bytes = 1024"):
        lower(network, chosen[1])


def test_a_decoder_is_played_and_said_to_be(network):
    found = network_cycles_many(network, [EngineConfig(), EngineConfig(decoder="huffman")])
    assert found.streamed.tolist() == [False, True]


def test_figures_of_an_engine(network):
    engine = EngineConfig(rows=8, clock_mhz=100.0)
    found = network_cycles_many(network, [engine, EngineConfig()])
    result = network.run(np.zeros((1, *network.manifest.input.shape), np.uint8), engine)
    row = found.row(0)
    assert (row["cycles"], row["images_per_second"]) == (result.cycles_per_image, result.images_per_second)
    assert row["utilisation"] == pytest.approx(result.utilisation)
    assert row["bytes_read"] == result.bytes_read
    assert sum(row[part] for part in PARTS) == row["cycles"]
    assert (row["pes"], row["rows"], row["pixels"]) == (128, 8, 256)


def test_configurations_are_all_combinations():
    base = EngineConfig(rows=8, lanes=8, post_lanes=2, bus_bits=64)
    made, refused = configurations(base, {"rows": [4, 16], "bus_bits": [32, 24]})
    assert made == [EngineConfig(rows=4, lanes=8, bus_bits=32), EngineConfig(rows=16, lanes=8, bus_bits=32)]
    assert [engine.post_lanes for engine in made] == [2, 8]  # half the rows again
    assert [settings for settings, _ in refused] == [{"rows": 4, "bus_bits": 24}, {"rows": 16, "bus_bits": 24}]
    assert all(isinstance(error, FormatError) for _, error in refused)
    (kept,), _ = configurations(base, {"bus_latency": [100]})
    assert (kept.post_lanes, kept.prefetch_words) == (2, 104)


def test_the_best_are_those_that_none_beats():
    rng = np.random.default_rng(5)
    for _ in range(50):
        x, y = rng.integers(0, 6, (2, 12))
        expected = [
            not any((a <= p and b < q) or (a < p and b <= q) for a, b in zip(x, y, strict=True))
            for p, q in zip(x, y, strict=True)
        ]
        assert pareto(x, y).tolist() == expected
