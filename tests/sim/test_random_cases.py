"""Random cases: what 300 of them hit, that a seed gives the same ones, and that any decisions give a case that runs."""

from collections import Counter

import numpy as np
import pytest
from gatewise import Grid, NetworkBuilder, WeightCodes, XorNetwork
from gatewise.kernels.mac import MacFormat
from gatewise.sim.compile import compile_network
from gatewise.sim.engine import PREFETCH_MARGIN, EngineConfig
from gatewise.sim.random_cases import ENGINES, MAX_CYCLES, TIED, Steered, random_case, random_cases
from gatewise.sim.random_options import COUNTERS, GROUPS, OPTIONS, network_options
from gatewise.sim.run import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .machine import Machine

CASES = 300
NOISE = np.random.default_rng(1).integers(-9, 10, (5, 4, 2, 2))
SIGNS = np.random.default_rng(2).choice((-1, 1), (5, *NOISE.shape))
XOR = XorNetwork.random(3, 5, None, 1)


class Drawn:
    """Decisions that Hypothesis makes."""

    def __init__(self, data):
        self.data = data

    def option(self, group, values):
        return self.data.draw(st.sampled_from(list(values)), label=group)

    def between(self, low, high):
        return self.data.draw(st.integers(low, high))


@pytest.fixture(scope="module")
def all_cases():
    draw = Steered(0)
    return list(random_cases(CASES, 0, draw)), draw.hits


def test_every_option_is_hit_often_enough(all_cases):
    cases, hits = all_cases
    assert {name: hits[name] for name in OPTIONS if hits[name] < 10} == {}
    assert set(hits) == set(OPTIONS)
    assert sum(case.overflows > 0 for case in cases) >= 60
    assert sum(case.stall > 0 for case in cases) >= 60
    assert {case.build for case in cases} == set(ENGINES)


def test_counted_options_are_those_of_the_cases(all_cases):
    cases, hits = all_cases
    assert Counter(option for case in cases for option in case.options) == hits


def test_a_case_keeps_to_what_its_engine_is_compiled_for(all_cases):
    widths = ("product", "align", "acc")
    for case in all_cases[0]:
        build, engine = ENGINES[case.build], case.engine
        assert engine.bus_latency + PREFETCH_MARGIN <= engine.prefetch_words
        assert all(getattr(engine.mac, width) <= getattr(build.mac, width) for width in widths)
        assert case.build != TIED or engine.mac == build.mac
        same = EngineConfig.model_fields.keys() - {"mac", "bus_latency"}
        assert all(getattr(engine, name) == getattr(build, name) for name in same)
        assert case.golden.cycles_per_image <= MAX_CYCLES


def test_a_seed_gives_the_same_cases_and_another_one_others(all_cases):
    def content(cases):
        return [(case.network.manifest, case.engine, case.stall, case.codes.tobytes()) for case in cases]

    wanted = content(all_cases[0][:20])
    assert content(random_cases(20)) == wanted
    others = content(random_cases(20, seed=1))
    assert not any(
        (mine[0].payload_sha256, mine[3]) == (other[0].payload_sha256, other[3])
        for mine, other in zip(wanted, others, strict=True)
    )


def test_compiled_cases_give_the_golden_result(all_cases):
    """The interpreter of memory images has exact sums: it stands for the engine where nothing overflows."""
    exact = [case for case in all_cases[0] if not case.overflows]
    assert {option for case in exact[:60] for option in case.options} >= {f"scheme {name}" for name in GROUPS["scheme"]}
    for case in exact[:60]:
        compiled = compile_network(case.network, case.engine)
        for codes, wanted in zip(case.codes, case.golden.tensors[case.network.output], strict=True):
            image = Machine(case.engine, compiled.with_input(codes)).run()
            assert np.array_equal(compiled.decode_result(image), wanted), case.name


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_decisions_give_a_case_that_compiles(data):
    case = random_case(Drawn(data))
    spec = case.network.manifest.input
    assert case.codes.shape[1:] == spec.shape
    assert spec.range[0] <= case.codes.min() <= case.codes.max() <= spec.range[1]
    assert case.options <= set(OPTIONS)
    compiled = compile_network(case.network, case.engine)
    assert len(compiled.layers) == len(case.golden.plan.layers) + 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"padding none", "stride 1", "kernel 2", "groups one", "tiles one", "zero term none", "alignment none"}),
        ({"padding": (0, 1, 0, 1), "stride": (2, 1)}, {"padding uneven", "stride 2", "stride 1"}),
        ({"zero_point": 1}, {"zero term whole"}),
        ({"zero_point": 0.5, "groups": 2}, {"zero term fraction", "groups more", "do not divide L"}),
        ({"groups": 4}, {"groups depthwise"}),
        ({"dilation": (1, 2)}, {"dilation 1", "dilation 2"}),
    ],
)
def test_options_are_read_off_the_network(samples, settings, expected):
    rng = np.random.default_rng(0)
    net = NetworkBuilder("one", samples.input_spec((4, 4, 4), bits=3, zero_point=0))
    weights = samples.codes(rng, 5, 4, 4 // settings.get("groups", 1), 2, 2)
    net.conv2d("conv", net.input, weights, bits=5, scale=0.1, out=Grid(0.3, 6, signed=True), **settings)
    engine = EngineConfig(rows=4, lanes=4, pixels=16, mac=MacFormat(acc=12))
    network = net.build()
    found = set(network_options(run(network, samples.pixels(network), engine)))
    expected = {f"inputs {name}" if name.endswith("divide L") else name for name in expected}
    assert expected | {"op conv2d", "activation bits 3", "weight bits 5", "rows R = L", "bus 128", "image map"} <= found
    assert found <= set(OPTIONS)


@pytest.mark.parametrize(
    ("array", "codes", "expected"),
    [
        ("digit", WeightCodes.integer(NOISE, 6), {"scheme int", "weight bits 6"}),
        ("shift", WeightCodes.shift(np.sign(NOISE), abs(NOISE), 5), {"scheme shift", "exponent bits 4..5"}),
        ("shift", WeightCodes.focused(np.sign(NOISE), 0 * NOISE, NOISE > 0), {"scheme focused", "exponent bits 0"}),
        ("sign", WeightCodes.basis(SIGNS[:3], np.ones(3)), {"scheme basis", "planes 2..4"}),
        ("sign", WeightCodes.encrypt(SIGNS, [XOR] * 5, np.ones(5)), {"scheme xor", "planes 5..8", "order natural"}),
        (
            "sign",
            WeightCodes.encrypt(SIGNS[:1], [XOR], np.ones(1), tile=(4, 8)),
            {"scheme xor", "planes 1", "order tile"},
        ),
    ],
)
def test_schemes_are_read_off_the_network(samples, array, codes, expected):
    net = NetworkBuilder("one", samples.input_spec((4, 2, 2), bits=3, zero_point=0))
    net.conv2d("conv", net.input, codes, scale=0.1, out=Grid(0.3, 6, signed=True))
    network = net.build()
    engine = EngineConfig(rows=4, lanes=4, pixels=16, array=array)
    found = set(network_options(run(network, samples.pixels(network), engine)))
    groups = ("scheme", "weight bits", "exponent bits", "planes", "order")
    assert {option for option in found if option.startswith(groups)} == expected
    assert found <= set(OPTIONS)


def test_layers_of_every_scheme_overflow(all_cases):
    found = Counter(
        case.network.layers[name].node.weights.scheme
        for case in all_cases[0]
        for name, counts in case.golden.overflows.items()
        if counts.acc.any() or counts.post.any()
    )
    assert all(found[scheme] >= 3 for scheme in GROUPS["scheme"])


def test_overflows_are_options_of_their_kind_and_mode(all_cases):
    for case in all_cases[0]:
        kinds = {kind for kind in COUNTERS if case.golden.overflow(kind)}
        assert {kind for kind in COUNTERS if f"overflows of {kind}" in case.options} == kinds
        modes = {mode for mode in ("saturate", "wrap") if f"overflow {mode}" in case.options}
        assert modes == ({case.engine.mac.overflow} if kinds else set())
