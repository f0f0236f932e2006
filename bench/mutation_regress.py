"""The regression that tells a mutated engine from a sound one, and what of it differs: digits, counters or cycles.

A fixed handful of networks on one engine of each array of `sim.random_cases`, hand-made ones first: each runs without
stalls, where cycles count, and some again on a bus that stalls.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from gatewise import (
    EngineConfig,
    Grid,
    InputSpec,
    MacFormat,
    Network,
    NetworkBuilder,
    PlaneBasis,
    Thresholds,
    WeightCodes,
    XorNetwork,
)
from gatewise.rtl.cxxrtl import CompiledDesign, compile_design
from gatewise.rtl.engine.comparison import Shadow, compare_counters, compare_cycles, compare_layer, written_tensors
from gatewise.rtl.engine.cosim import EngineProbe, EngineRun, EngineSimulation, cycle_limit
from gatewise.rtl.engine.engine import Engine
from gatewise.rtl.icarus import SimulationError
from gatewise.sim.builder import Tensor
from gatewise.sim.compile import CompiledNetwork, compile_network
from gatewise.sim.images import ImageSet
from gatewise.sim.random_cases import ENGINES, Steered, random_cases
from gatewise.sim.run import RunResult, run

__all__ = ["KINDS", "Case", "Outcome", "build", "cases", "regress"]

KINDS = ("stops", "digits", "counters", "cycles")
"""What may differ: the run itself (a hang, an error code, a broken rule of the bus), or one of its results."""
FIRST = "4x4/8"
"""The engine in which all is planted that the others have, too."""
RANDOM_CASES, SEED = 24, 1
RANDOM_CASES_BESIDES = 8
"""Of the other engines."""
STALL = 0.3
Making = tuple[Callable[[np.random.Generator], Network], int, MacFormat]


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
        compiled = compile_network(network, engine)
        images = (ImageSet(codes[at : at + 1], coded=True) for at in range(len(codes)))
        golden = tuple(run(compiled.network, image, engine, trace=True) for image in images)
        return cls(name, compiled, codes, golden, stalls)


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

    def __init__(self, seed: int, engine: EngineConfig) -> None:
        super().__init__(seed)
        # Array, operands, bus and decoder name the engine.
        self.fixed = {
            "bus": engine.bus_bits, "array": engine.array, "decoder": engine.decoder,
            "operand bits": engine.operand_bits,
        }  # fmt: skip

    def option(self, group: str, values: Any) -> Any:
        """One of the values, of the engine's own where they name it."""
        return self.fixed[group] if group in self.fixed else super().option(group, values)


def cases(name: str) -> Iterator[Case]:
    """Those of the engine of that name, always the same ones."""
    engine = ENGINES[name]
    for made, latency, mac in CASES[name]:
        rng = np.random.default_rng(SEED)
        network = made(rng)
        spec = network.manifest.input
        codes = rng.integers(*spec.range, (2, *spec.shape), endpoint=True).astype(np.int16)
        label = f"{network.name} ({mac.overflow})"
        narrowed = EngineConfig(**dict(engine) | {"mac": mac, "bus_latency": latency})
        yield Case.of(label, network, narrowed, codes, 0.0, STALL)
    count = RANDOM_CASES if name == FIRST else RANDOM_CASES_BESIDES
    for case in random_cases(count, SEED, _Narrow(SEED, engine)):
        yield Case.of(case.name, case.network, case.engine, case.codes, 0.0, *((case.stall,) if case.stall else ()))


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


def _mixed_widths(rng: np.random.Generator) -> Network:
    """Row groups and words of one digit and of two, in rows, in convolution groups and beside each other."""

    def codes(widths: np.ndarray, *shape: int) -> WeightCodes:
        ends = np.where(widths, 1 << np.maximum(widths - 1, 0), 0).reshape(-1, *[1] * len(shape))
        return WeightCodes.integer(rng.integers(-ends, np.maximum(ends, 1), (len(widths), *shape)), widths)

    net = _input("mixed widths", (6, 5, 4), 8, signed=True)
    rows, lanes = np.array([8, 2, 4, 6, 3, 0, 1, 7, 4, 4, 2, 5]), np.array([3, 8, 4, 0, 2, 7, 4, 1, 4, 6, 4, 2])
    out = Grid(16.0, 8, signed=True, widths=lanes)
    x = net.conv2d("first", net.input, codes(rows, 6, 3, 1), scale=0.5, out=out, padding=(1, 0))
    # The groups behind begin in words without an upper digit, and end in one that has it.
    last = replace(out, widths=np.array([2, 4, 3, 4, 1, 4, 4, 2, 8, 4, 6, 7]))
    x = net.conv2d("second", x, codes(rows[::-1], 12, 1, 2), scale=0.1, out=last)
    y = net.conv2d("groups", x, codes(np.repeat([8, 3], 6), 6, 1, 1), scale=0.2, out=out, groups=2)
    y = net.conv2d("depthwise", y, codes(rows, 1, 3, 3), scale=0.3, out=out, groups=12, padding=1)
    z = net.conv2d("third", x, codes(lanes, 12, 1, 1), scale=0.2, out=out)
    net.add("end", z, y, out=Grid(16.0, 8, signed=True))
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


def _wide(rng: np.random.Generator) -> Network:
    """Operands of 8 to 16 bits, padded with a code whose digits differ; zero points; a depthwise layer."""
    net = _input("wide", (9, 5, 4), 8)
    stream = Grid(2.0**9, 16, signed=True, zero_point=-0x7654)
    x = net.conv2d(
        "stream", net.input, _weights(rng, 16, 5, 9, 2, 2), bits=16, scale=1.0, out=stream, padding=1,
        zero_point=rng.integers(-99, 99, 5), bias=rng.normal(0, 2.0**22, 5),
    )  # fmt: skip
    y = net.conv2d(
        "both", x, _weights(rng, 16, 6, 5, 3, 2), bits=16, scale=1.0, out=Grid(2.0**25, 12, signed=True, zero_point=5),
        padding=1, zero_point=rng.integers(-99, 99, 6),
    )  # fmt: skip
    z = net.conv2d(
        "depthwise", y, _weights(rng, 10, 6, 1, 3, 1), bits=10, scale=1.0, out=Grid(2.0**29, 9, signed=True), groups=6
    )
    net.conv2d("narrow", z, _weights(rng, 4, 4, 6, 1, 1), bits=4, scale=1.0, out=Grid(2.0**31, 8, signed=True))
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


def _half_words(rng: np.random.Generator) -> Network:
    """Codes of 1 and 2 bits from any slot of either half-word on; sums, pools and copies of them beside wide ones."""
    net = _input("half-words", (5, 6, 5), 2, signed=True, zero_point=-1)
    two, wide = Grid(2.0, 2, signed=True, zero_point=-1), Grid(1.0, 8, signed=True, zero_point=3)
    a = net.conv2d("a", net.input, _weights(rng, 4, 7, 5, 3, 3), bits=4, scale=0.1, out=two, padding=1)
    b = net.conv2d("b", a, _weights(rng, 2, 6, 7, 1, 1), bits=2, scale=0.5, out=two)
    both = net.concat("both", [a, b, net.max_pool("greatest", b, 3, 1, 1)])
    wider = net.conv2d("wider", both, _weights(rng, 2, 19, 19, 1, 1), bits=2, scale=0.5, out=wide)
    total = net.add("total", wider, both, out=two)
    mean = net.average_pool("mean", total, 2, 1)
    positive = net.requantise("positive", mean, out=Grid(1.0, 2))
    stream = Grid(0.01, 16, signed=True, zero_point=-77)
    last = net.conv2d("last", positive, _weights(rng, 2, 9, 19, 1, 1), bits=2, scale=0.5, out=stream)
    ones = net.requantise("ones", last, out=Grid(0.5, 1))
    own = net.conv2d("own", ones, _weights(rng, 1, 9, 9, 1, 1), bits=1, scale=0.5, out=stream)
    net.add("end", own, last, out=Grid(0.5, 2, signed=True))
    return net.build()


def _planes(rng: np.random.Generator) -> Network:
    """Planes of integers, bases and XOR networks, up to eight; tiles that are short; lanes outside of the groups."""
    net = _input("planes", (11, 5, 5), 4, zero_point=3)
    narrow = Grid(4.0, 8, signed=True, zero_point=-4)
    x = net.conv2d(
        "bits", net.input, _weights(rng, 5, 6, 11, 2, 2), bits=5, scale=0.2, out=narrow, padding=(1, 0, 0, 1),
        zero_point=rng.uniform(-2, 2, 6), bias=rng.normal(0, 30.0, 6),
    )  # fmt: skip
    coefs = rng.integers(-30000, 30000, (7, 6))
    x = net.conv2d(
        "basis", x, WeightCodes.basis(_signs(rng, 7, 6, 3, 1, 2), coefs, 6), scale=0.002, out=narrow, groups=2
    )
    joined = net.concat("joined", [x, net.stride_slice("cut", x, 1)])
    depthwise = WeightCodes.basis(_signs(rng, 2, 12, 1, 2, 1), np.array([3, -2]))
    x = net.conv2d("depthwise", joined, depthwise, scale=0.5, out=Grid(2.0, 4, zero_point=7), groups=12)
    networks = [XorNetwork.random(6, 8, 2, 1), XorNetwork.random(5, 9, None, 2)]
    encrypted = WeightCodes.encrypt(_signs(rng, 2, 5, 12, 1, 1), networks, rng.normal(0, 1, (2, 5)))
    steps = Thresholds(np.sort(rng.integers(-1 << 18, 1 << 18, (5, 7)), axis=1), np.arange(5) % 2)
    net.conv2d("encrypted", x, encrypted, scale=1.0, out=Grid(1.0, 3), thresholds=steps)
    return net.build()


def _pairs(rng: np.random.Generator) -> Network:
    """Activation planes of both kinds, up to eight, made in both ways; short tiles, padding that is not zero."""
    net = _input("pairs", (7, 5, 5), 4)
    five = PlaneBasis.abc_net(rng.uniform(0.2, 1, 5), [-30.0, 0.0, 25.0, -8.0, 9.0]).padded(0b10110)
    two = PlaneBasis.lq_net([3.0, 6.0]).padded(2)
    eight = PlaneBasis.abc_net(rng.uniform(0.2, 1, 8), np.linspace(-9, 9, 8)).padded(0b01101001)
    x = net.conv2d("five", net.input, _weights(rng, 4, 6, 7, 1, 1), bits=4, scale=0.3, out=Grid.of_planes(five))
    basis = WeightCodes.basis(_signs(rng, 5, 6, 6, 3, 2), rng.uniform(0.2, 1, (5, 6)))
    wide = net.conv2d("five-by-five", x, basis, scale=0.2, out=Grid(0.1, 16, signed=True), padding=1)
    x = net.requantise("eight", wide, out=Grid.of_planes(eight))
    basis = WeightCodes.basis(_signs(rng, 1, 6, 1, 2, 1), rng.uniform(0.2, 1, (1, 6)))
    x = net.conv2d("one-by-eight", x, basis, scale=1.0, out=Grid.of_planes(two), groups=6, padding=1)
    basis = WeightCodes.basis(_signs(rng, 2, 10, 6, 2, 2), rng.uniform(0.2, 1, (2, 10)))
    net.conv2d("two-by-two", x, basis, scale=0.5, out=Grid(0.1, 8, signed=True), padding=1)
    return net.build()


def _encrypted(rng: np.random.Generator) -> Network:
    """XOR networks that gain and lose bits, two in a layer, over several lane groups, row groups and taps."""
    net = _input("encrypted", (11, 4, 5), 4, zero_point=3)
    few, many = XorNetwork.random(5, 9, None, 2), XorNetwork.random(12, 10, 2, 1)
    signs = WeightCodes.encrypt(_signs(rng, 3, 6, 11, 2, 1), [few, many, few], rng.normal(0, 1, (3, 6)))
    x = net.conv2d("first", net.input, signs, scale=1.0, out=Grid(2.0, 4, signed=True))
    signs = WeightCodes.encrypt(_signs(rng, 1, 4, 3, 1, 2), [many], np.array([1.0]), groups=2)
    net.conv2d("groups", x, signs, scale=1.0, out=Grid(0.2, 8, signed=True), groups=2)
    return net.build()


def _depthwise(rng: np.random.Generator) -> Network:
    """Row groups of one code a row, in the second half of a word too."""
    net = _input("depthwise", (11, 4, 5), 4, zero_point=3)
    codes = _weights(rng, 5, 11, 1, 2, 2)
    net.conv2d("conv", net.input, codes, bits=5, scale=0.5, out=Grid(1.0, 8, signed=True), groups=11)
    return net.build()


def _fused(rng: np.random.Generator) -> Network:
    """Every mode of a fused array, from words of both kinds, padding that is not zero; groups within a lane group."""
    net = _input("fused", (20, 4, 5), 4, zero_point=3)

    def conv(name: str, x: Tensor, bits: int, *shape: int, out: Grid, **more: Any) -> Tensor:
        # Codes are spread over their grid: the deviations of weights and inputs are about a quarter of theirs.
        scale = 4 * 2.0 ** (out.bits - bits - x.grid.bits) / np.sqrt(np.prod(shape[1:]))
        zero_point = rng.integers(-1, 2, shape[0])
        return net.conv2d(
            name, x, _weights(rng, bits, *shape), bits=bits, scale=scale, out=out, zero_point=zero_point, **more
        )

    narrow, unsigned = Grid(1.0, 2, signed=True, zero_point=-1), Grid(1.0, 2, zero_point=2)
    x = conv("four_by_two", net.input, 2, 40, 20, 1, 2, out=narrow, padding=(0, 1))
    x = conv("two_by_two", x, 2, 36, 40, 2, 1, out=narrow, padding=(1, 0, 0, 1))
    x = conv("depthwise", x, 2, 36, 1, 2, 2, out=unsigned, groups=36, padding=(1, 1, 0, 0))
    x = conv("two_by_four", x, 4, 38, 18, 1, 1, out=narrow, groups=2, padding=(0, 1, 0, 0))
    conv("two_by_eight", x, 8, 6, 38, 1, 1, out=Grid(1.0, 8, signed=True), padding=(1, 0, 0, 0))
    return net.build()


def _short_planes(rng: np.random.Generator) -> Network:
    """Sums and constants that the widths do not hold."""
    net = _input("short planes", (9, 4, 4), 8)
    coefs = rng.integers(20000, 32767, (5, 9)) * rng.choice((-1, 1), (1, 9))
    signs = rng.choice((-1, 1), (5, 9, 9, 2, 2), p=(0.1, 0.9))
    x = net.conv2d("basis", net.input, WeightCodes.basis(signs, coefs, 3), scale=0.001, out=Grid(4.0, 4))
    net.conv2d("bits", x, _weights(rng, 8, 5, 9, 1, 1), bits=8, scale=0.2, out=Grid(1.0, 8, signed=True))
    return net.build()


def _shifts(rng: np.random.Generator) -> Network:
    """Integers in parts, powers of two, focused codes with all they have; groups and depthwise row groups."""
    net = _input("shifts", (11, 5, 5), 4, zero_point=3)
    narrow = Grid(2.0, 8, signed=True, zero_point=-4)
    x = net.conv2d(
        "bits", net.input, _weights(rng, 8, 6, 11, 2, 2), bits=8, scale=0.01, out=narrow, padding=(1, 0, 0, 1),
        zero_point=rng.integers(-3, 4, 6), bias=rng.normal(0, 30.0, 6),
    )  # fmt: skip
    x = net.conv2d("focused", x, _focused(rng, (-1, -2), (1, 1), 6, 3, 1, 2), scale=0.1, out=narrow, groups=2)
    joined = net.concat("joined", [x, net.stride_slice("cut", x, 1)])
    one_by_one = _focused(rng, (1, 0), (-1, 2), 12, 1, 2, 1)
    x = net.conv2d(
        "depthwise", joined, one_by_one, scale=0.1, out=Grid(2.0, 4, zero_point=7), groups=12,
        zero_point=rng.integers(-9, 10, 12),
    )  # fmt: skip
    powers = WeightCodes.shift(rng.choice((-1, 0, 1), (5, 12, 1, 1)), rng.integers(0, 15, (5, 12, 1, 1)))
    net.conv2d("powers", x, powers, scale=0.001, out=Grid(1.0, 8, signed=True))
    return net.build()


def _signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice((-1, 1), shape)


def _focused(rng: np.random.Generator, minus: tuple[int, int], plus: tuple[int, int], *shape: int) -> WeightCodes:
    """A fifth of the weights pruned, a fifth at the mean of their component."""
    sign = rng.choice((-1, 0, 1), shape, p=(0.4, 0.2, 0.4))
    component, pruned = rng.integers(0, 2, shape), rng.random(shape) < 0.2
    return WeightCodes.focused(sign, rng.integers(0, 4, shape), component, pruned, minus=minus, plus=plus)


CASES: dict[str, tuple[Making, ...]] = {
    FIRST: (
        (_residual, 9, MacFormat(10, 24, 32)),
        (_mixed_widths, 2, MacFormat(10, 24, 32)),
        (_mixed_widths, 0, MacFormat(8, 16, 15)),
        (_overflowing, 0, MacFormat(6, 8, 13)),
        (_overflowing, 3, MacFormat(6, 8, 13, "wrap")),
        (_beyond_32_bits, 1, MacFormat(10, 24, 40)),
        (_pooled, 20, MacFormat(8, 16, 20, "wrap")),
        # As long as the prefetch covers.
        (_compared_with_thresholds, 200, MacFormat(8, 16, 20)),
    ),
    "4x4/128 fusion": (
        (_fused, 4, MacFormat(10, 24, 32)),
        (_fused, 0, MacFormat(6, 8, 12, "wrap")),
        (_half_words, 9, MacFormat(10, 24, 32)),
        (_overflowing, 3, MacFormat(6, 8, 13)),
    ),
    "4x8/16 sign": (
        (_planes, 4, MacFormat(10, 24, 40)),
        (_pairs, 3, MacFormat(10, 24, 40)),
        (_short_planes, 0, MacFormat(8, 16, 12, "wrap")),
        (_short_planes, 1, MacFormat(8, 16, 12)),
        (_compared_with_thresholds, 20, MacFormat(8, 16, 20)),
    ),
    "4x8/32 shift": (
        (_shifts, 4, MacFormat(10, 24, 40)),
        (_shifts, 0, MacFormat(8, 16, 14, "wrap")),
        (_compared_with_thresholds, 20, MacFormat(8, 16, 20)),
    ),
    "4x8/32 huffman": (
        (_residual, 9, MacFormat(10, 24, 32)),
        (_overflowing, 3, MacFormat(6, 8, 13, "wrap")),
        (_depthwise, 1, MacFormat(10, 24, 32)),
    ),
    "4x8/64 wide": ((_wide, 3, MacFormat(10, 24, 48)),),
    "4x8/64 xor sign": ((_encrypted, 2, MacFormat(10, 24, 40)), (_planes, 5, MacFormat(10, 24, 40))),
}
"""By engine: what makes a network, the latency of the bus, and the widths."""


def build(name: str, cache: Path) -> CompiledDesign:
    """The engine of that name compiled, with its formats as inputs."""
    return compile_design(EngineProbe(Engine(ENGINES[name], formats=True)), cache=cache)


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
    shadow = Shadow(compiled.engine)
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
