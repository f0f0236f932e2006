"""The regression that tells a mutated engine from a sound one, and what of it differs: digits, counters or cycles.

A fixed handful of networks on the smallest engine of `sim.random_cases`, hand-made ones first: each runs without
stalls, where cycles count, and some again on a bus that stalls.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gatewise import EngineConfig, Grid, InputSpec, MacFormat, Network, NetworkBuilder, Thresholds
from gatewise.rtl.cxxrtl import CompiledDesign, compile_design
from gatewise.rtl.engine.comparison import Shadow, compare_counters, compare_cycles, compare_layer, written_tensors
from gatewise.rtl.engine.cosim import EngineProbe, EngineRun, EngineSimulation, cycle_limit
from gatewise.rtl.engine.engine import Engine
from gatewise.rtl.icarus import SimulationError
from gatewise.sim.compile import CompiledNetwork, compile_network
from gatewise.sim.descriptor import act_words
from gatewise.sim.images import ImageSet
from gatewise.sim.random_cases import ENGINES, Steered, random_cases
from gatewise.sim.run import RunResult, run

__all__ = ["BUILD", "KINDS", "Case", "Outcome", "build", "cases", "regress"]

BUILD = "4x4/8"
KINDS = ("stops", "digits", "counters", "cycles")
"""What may differ: the run itself (a hang, an error code, a broken rule of the bus), or one of its results."""
RANDOM_CASES, SEED = 24, 1
STALL = 0.3


@dataclass(frozen=True)
class Case:
    """A compiled network, its input codes (N, C, H, W), the golden run of each image, and the bus's stalls."""

    name: str
    compiled: CompiledNetwork
    codes: np.ndarray
    golden: tuple[RunResult, ...]
    stalls: tuple[float, ...]

    @classmethod
    def of(cls, name: str, network: Network, engine: EngineConfig, codes: np.ndarray, *stalls: float) -> "Case":
        """Compile the network and run it in the simulator."""
        golden = tuple(
            run(network, ImageSet(codes[at : at + 1], coded=True), engine, trace=True) for at in range(len(codes))
        )
        return cls(name, compile_network(network, engine), codes, golden, stalls)


@dataclass
class Outcome:
    """What a regression compared and found: the first difference of all, and in how many runs each kind differed."""

    first: str | None = None
    first_kind: str | None = None
    runs: int = 0
    digits: int = 0
    counters: int = 0
    layers: int = 0
    different: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return asdict(self)


class _Narrow(Steered):
    """Decisions for the one engine that is mutated."""

    def option(self, group: str, values: Any) -> Any:
        """Array and bus name the engine."""
        fixed = {"bus": ENGINES[BUILD].bus_bits, "array": ENGINES[BUILD].array}
        return fixed[group] if group in fixed else super().option(group, values)


def cases() -> Iterator[Case]:
    """Always the same ones."""
    for made, latency, mac in (
        (_residual, 9, MacFormat(10, 24, 32)),
        (_overflowing, 0, MacFormat(6, 8, 13)),
        (_overflowing, 3, MacFormat(6, 8, 13, "wrap")),
        (_beyond_32_bits, 1, MacFormat(10, 24, 40)),
        (_pooled, 20, MacFormat(8, 16, 20, "wrap")),
        # As long as the prefetch covers.
        (_compared_with_thresholds, 200, MacFormat(8, 16, 20)),
    ):
        rng = np.random.default_rng(SEED)
        network = made(rng)
        spec = network.manifest.input
        codes = rng.integers(*spec.range, (2, *spec.shape), endpoint=True).astype(np.int16)
        name = f"{network.name} ({mac.overflow})"
        yield Case.of(name, network, _engine(mac, latency), codes, 0.0, STALL)
    for case in random_cases(RANDOM_CASES, SEED, _Narrow(SEED)):
        yield Case.of(case.name, case.network, case.engine, case.codes, 0.0, *((case.stall,) if case.stall else ()))


def _engine(mac: MacFormat, latency: int) -> EngineConfig:
    return EngineConfig(**dict(ENGINES[BUILD]) | {"mac": mac, "bus_latency": latency})


def _input(
    name: str, shape: tuple[int, int, int], bits: int, signed: bool = False, zero_point: int = 0
) -> NetworkBuilder:
    """A network that begins with codes of a grid of step 1."""
    zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
    spec = InputSpec(shape=shape, bits=bits, signed=signed, zero_point=zero_point, scale=1.0, mean=zeros, std=ones)
    return NetworkBuilder(name, spec)


def _weights(rng: np.random.Generator, bits: int, *shape: int) -> np.ndarray:
    return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)


def _residual(rng: np.random.Generator) -> Network:
    """16-bit streams beside their 4-bit copies; an add of what the array reads at that time; words that straddle."""
    net = _input("residual", (6, 6, 7), 4, zero_point=5)
    wide = Grid(0.01, 16, signed=True, zero_point=-77)
    stem = net.conv2d("stem", net.input, _weights(rng, 4, 6, 6, 3, 3), bits=4, scale=0.5, out=wide, padding=1)
    narrow = net.requantise("narrow", stem, out=Grid(6.0, 4, signed=True))
    own = net.conv2d("own", narrow, _weights(rng, 4, 6, 6, 3, 1), bits=4, scale=0.2, out=wide, padding=(1, 0))
    stream = net.add("sum", own, stem, out=wide)
    codes = net.requantise("codes", stream, out=Grid(8.0, 4, signed=True, zero_point=-2))
    serial = net.conv2d("serial", codes, _weights(rng, 4, 6, 6, 1, 1), bits=4, scale=0.5, out=Grid(2.0, 8, signed=True))
    joined = net.add("joined", serial, codes, out=Grid(3.0, 8, signed=True, zero_point=9))
    copied = net.requantise("copied", joined, out=Grid(9.0, 8, signed=True, zero_point=-3))
    both = net.concat("both", [net.max_pool("greatest", copied, 3, 1, 1), copied])
    last = net.conv2d("last", both, _weights(rng, 2, 6, 12, 1, 1), bits=2, scale=0.5, out=Grid(2.0, 8, signed=True))
    net.add("end", last, joined, out=Grid(3.0, 8, signed=True))
    return net.build()


def _overflowing(rng: np.random.Generator) -> Network:
    """Eight bits each way, in which every width overflows; aligned groups that straddle words."""
    net = _input("overflowing", (7, 5, 5), 8)
    out = Grid(1.0, 4, align="shift", amounts=np.arange(1, 10) % 4)
    x = net.conv2d(
        "first", net.input, _weights(rng, 8, 9, 7, 2, 2), bits=8, scale=0.01, out=out,
        zero_point=rng.uniform(-1, 1, 9), bias=rng.normal(0, 8.0, 9),
    )  # fmt: skip
    net.rounding = "half_away"
    net.conv2d("second", x, _weights(rng, 4, 6, 3, 1, 1), bits=4, scale=0.5, out=Grid(1.0, 8, signed=True), groups=3)
    return net.build()


def _beyond_32_bits(rng: np.random.Generator) -> Network:
    """Sums that tflite's rounding saturates to 32 bits before it scales them."""
    net = _input("beyond", (4, 4, 5), 4)
    net.rounding, net.multiplier_bits = "tflite", 31
    bias = np.array([2.0**33, -(2.0**32), 2.0**31 - 40, 0, 2.0**32, 7]) * 2.0**-26
    codes = _weights(rng, 4, 6, 4, 1, 1)
    net.conv2d("conv", net.input, codes, bits=4, scale=2.0**-26, bias=bias, out=Grid(1.0, 8, signed=True))
    return net.build()


def _pooled(rng: np.random.Generator) -> Network:
    """Negative codes beside padding, and means of few taps: many are halves."""
    net = _input("pooled", (5, 6, 6), 8, signed=True, zero_point=-20)
    x = net.max_pool("greatest", net.input, 2, 1, (1, 0, 0, 1))
    x = net.average_pool("mean", x, 2, 1, (0, 1, 1, 0))
    net.stride_slice("slice", net.average_pool("halves", x, (1, 2)), (2, 1))
    return net.build()


def _compared_with_thresholds(rng: np.random.Generator) -> Network:
    """Few different sums, so that many are equal to a threshold; channels that count downward."""
    net = _input("thresholds", (3, 5, 4), 2)
    steps = np.sort(rng.integers(-4, 5, (6, 7)), axis=1)
    net.conv2d(
        "conv", net.input, _weights(rng, 2, 6, 3, 2, 1), bits=2, scale=1.0, out=Grid(1.0, 3),
        thresholds=Thresholds(steps, np.arange(6) % 2),
    )  # fmt: skip
    return net.build()


def build(cache: Path) -> CompiledDesign:
    """The engine compiled, with its formats as inputs."""
    return compile_design(EngineProbe(Engine(ENGINES[BUILD], formats=True)), cache=cache)


def regress(design: CompiledDesign, chosen: list[Case], until: str | None = None) -> Outcome:
    """Run all cases, or those up to the first in which a kind of difference is seen."""
    began, outcome = time.perf_counter(), Outcome()
    for stalled in (False, True):
        for case in chosen:
            for stall in case.stalls:
                if (stall > 0) == stalled and not outcome.different.get(until, 0):
                    _regress_case(design, case, stall, outcome)
    outcome.seconds = time.perf_counter() - began
    return outcome


def _regress_case(design: CompiledDesign, case: Case, stall: float, outcome: Outcome) -> None:
    with EngineSimulation(design, case.compiled, stall=stall, seed=1) as simulation:
        for image, golden in enumerate(case.golden):
            try:
                found = simulation.run(case.codes[image], cycle_limit(golden, stall))
                differences = _differences(case.compiled, golden, found, exact=stall == 0)
            except SimulationError as error:
                found, differences = None, {"stops": str(error)}
            outcome.runs += 1
            for kind in differences:
                outcome.different[kind] += 1
            if differences and outcome.first is None:
                outcome.first_kind, text = next(iter(differences.items()))
                outcome.first = f"{case.name}{' with stalls' if stall else ''}, image {image}, {text}"
            if found is None:
                return
            tensors = _tensors(golden)
            outcome.digits += sum(
                tensor.codes.size * len(tensor.planes)
                for layer in written_tensors(case.compiled, tensors)
                for tensor in layer
            )
            outcome.counters += sum(counts.size for record in found.counters for counts in record.counts.values())
            outcome.layers += len(found.layer_cycles)


def _tensors(golden: RunResult) -> dict[str, np.ndarray]:
    return {name: tensor[0] for name, tensor in golden.tensors.items()}


def _differences(compiled: CompiledNetwork, golden: RunResult, found: EngineRun, *, exact: bool) -> dict[str, str]:
    """The first difference of each kind that differs, digits before counters before cycles."""
    tensors = _tensors(golden)
    shadow = Shadow(act_words(compiled.engine), compiled.engine.lanes)
    differences: dict[str, str] = {}
    for number, (layer, expected) in enumerate(zip(compiled.layers, written_tensors(compiled, tensors), strict=True)):
        writes = found.writes.of_layer(number)
        if difference := compare_layer(layer.name, expected, writes, shadow, whole_words=layer.op == "load"):
            differences.setdefault("digits", str(difference))
    if (found.writes.layers >= len(compiled.layers)).any():
        differences.setdefault("digits", "a write after the last layer")
    if not np.array_equal(found.result, tensors[compiled.network.output]):
        differences.setdefault("digits", f"layer {compiled.layers[-1].name}: the stored result differs")
    if difference := compare_counters(compiled, golden.overflows, found.counters):
        differences["counters"] = str(difference)
    ends = found.layer_cycles, found.layer_indices, found.layer_ends
    if difference := compare_cycles(golden.layers, *ends, exact=exact):
        differences["cycles"] = str(difference)
    return differences
