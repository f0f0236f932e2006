"""Searches over engines find what trying them all finds; a network is what its file would be."""

from dataclasses import dataclass

import pytest
from gatewise.kernels.errors import CapacityError, FormatError
from gatewise.sim.cycles import LayerCycles
from gatewise.sim.engine import EngineConfig
from gatewise.sim.shapes import shaped_network
from gatewise.sim.sizing import SIZES, Workload, engines, fastest_within, smallest_for


def price(engine):
    """Some cost with ties among engines of equal numbers of PEs."""
    return engine.rows * engine.lanes + 30 * engine.post_lanes


@pytest.fixture(scope="module")
def work():
    """A small network on every engine."""
    network = shaped_network("resnet8", "bayesian4")
    return Workload(lambda engine: network)


@pytest.fixture(scope="module")
def everything(work):
    """Cycles on every digit engine."""
    return {engine: sum(layer.total for layer in work.layers(engine)) for engine in engines(EngineConfig())}


def test_engines_are_all_sizes_once(everything):
    sizes = {(engine.rows, engine.lanes, engine.post_lanes) for engine in everything}
    assert len(sizes) == len(everything)
    assert {(rows, lanes) for rows, lanes, _ in sizes} == {(rows, lanes) for rows in SIZES for lanes in SIZES}
    assert all(post <= min(rows, lanes) for rows, lanes, post in sizes)
    narrow = next(iter(engines(EngineConfig(bus_bits=64, array="fusion"))))
    assert (narrow.bus_bits, narrow.array) == (64, "fusion")


@pytest.mark.parametrize("target", [50_000, 80_000, 125_000, 700_000])
def test_the_smallest_is_what_trying_them_all_finds(work, everything, target):
    found = smallest_for(work, EngineConfig(), target, price)
    fast_enough = [engine for engine, cycles in everything.items() if cycles <= target]
    assert everything[found] <= target
    assert price(found) == min(map(price, fast_enough))


@pytest.mark.parametrize("budget", [46, 200, 500, 2000, 10_000])
def test_the_fastest_is_what_trying_them_all_finds(work, everything, budget):
    found = fastest_within(work, EngineConfig(), budget, price, "gates")
    affordable = {engine: cycles for engine, cycles in everything.items() if price(engine) <= budget}
    best = min((cycles, price(engine)) for engine, cycles in affordable.items())
    assert (everything[found], price(found)) == best


def test_a_bound_that_is_none_is_caught(work, everything, monkeypatch):
    monkeypatch.setattr(Workload, "least_cycles", lambda self, like: lambda engine: 10_000 * engine.rows)
    found = fastest_within(work, EngineConfig(), 10_000, price, "gates")
    assert everything[found] > min(everything.values())


def test_bounds_are_below_the_cycles(work, everything):
    least = work.least_cycles(EngineConfig())
    assert all(least(engine) <= cycles for engine, cycles in everything.items())


def test_what_cannot_be_met_says_what_can(work, everything):
    with pytest.raises(CapacityError, match=f"^cycles must be at least {min(everything.values()):,} for a digit "):
        smallest_for(work, EngineConfig(), 100, price)
    with pytest.raises(CapacityError, match=r"^budget must be at least 46 gates for a digit engine with decoder raw, "):
        fastest_within(work, EngineConfig(), 45, price, "gates")


def test_a_network_that_no_memory_holds_is_refused_as_a_run_does(work):
    with pytest.raises(CapacityError, match="live activations need"):
        smallest_for(Workload(work.subject), EngineConfig(act_bytes=1024), 1_000_000, price)


@dataclass
class Fitful(Workload):
    """A workload that some engines' memories do not hold."""

    def cycles(self, engine):
        return self.layers(engine)[0].total

    def layers(self, engine):
        if engine.lanes > 8:
            raise CapacityError("too wide")
        return [LayerCycles("only", "conv2d", products=64_000, compute=64_000 // (engine.rows * engine.lanes))]


def test_engines_whose_memory_is_too_small_are_passed_over():
    work = Fitful(lambda engine: None)
    assert fastest_within(work, EngineConfig(), 10_000, price, "gates").lanes == 8
    assert smallest_for(work, EngineConfig(), 2000, price).lanes <= 8


def test_shapes_are_those_of_their_papers():
    tiny = shaped_network("resnet8", "focused5")
    assert sum(tiny.macs(node) for node in tiny.mac_nodes()) == 12_501_632
    assert sum(layer.codes.size for layer in tiny.layers.values()) == 77_360
    with pytest.raises(FormatError, match=r"^shape must be one of resnet8, resnet18, resnet50, not 'vgg16'$"):
        shaped_network("vgg16", "focused5")
