"""Random small networks on small engines: the cases that RTL and simulator are compared on.

A case is a network of one to four layers, input codes, an engine and the stalls of its bus. What it looks
like is a number of decisions; whoever makes them makes the case: `Steered`, a seeded generator that
prefers what was hit least, or anything else that has its two methods.

    for case in random_cases(300, seed=0): ...
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from ..kernels.errors import CapacityError, UnsupportedError
from ..kernels.mac import MacFormat, Overflow
from .engine import PREFETCH_MARGIN, EngineConfig
from .images import ImageSet
from .network import Network
from .random_network import Drawing
from .random_options import COUNTERS, LATENCIES, OPTIONS, Decisions, Value, network_options
from .run import RunResult, run

__all__ = ["ENGINES", "TIED", "RandomCase", "Steered", "random_case", "random_cases"]

WIDEST = MacFormat(product=10, align=24, acc=48)
"""Of the engines whose formats are inputs: every narrower one is possible in them."""
PREFETCH = 204
"""Words that cover the greatest latency."""


def _engine(rows: int, lanes: int, post_lanes: int, bus_bits: int, **settings: Any) -> EngineConfig:
    known = {"pixels": 16, "act_bytes": 16384, "prefetch_words": PREFETCH, "bus_latency": 0, "mac": WIDEST}
    return EngineConfig(rows=rows, lanes=lanes, post_lanes=post_lanes, bus_bits=bus_bits, **known | settings)


ENGINES = {
    "4x4/8": _engine(4, 4, 1, 8, act_bytes=8192),
    "4x8/16": _engine(4, 8, 2, 16, act_banks=2, prefetch_words=32),
    "8x4/32": _engine(8, 4, 4, 32, pixels=24),
    "8x8/64": _engine(8, 8, 8, 64, pixels=32),
    "4x4/128": _engine(4, 4, 4, 128, pixels=20, act_banks=8, prefetch_words=64),
    "4x8/256": _engine(4, 8, 1, 256, act_bytes=4096, act_banks=16),
    "4x8/16 fusion": _engine(4, 8, 2, 16, array="fusion", act_banks=8),
    "4x4/128 fusion": _engine(4, 4, 4, 128, array="fusion", pixels=20, act_bytes=8192, prefetch_words=64),
    "8x4/64 huffman fusion": _engine(8, 4, 2, 64, array="fusion", decoder="huffman", pixels=24),
    "4x8/32 shift": _engine(4, 8, 2, 32, array="shift", act_bytes=4096, act_banks=16),
    "8x4/128 shift": _engine(8, 4, 4, 128, array="shift", pixels=24, prefetch_words=64),
    "4x8/16 sign": _engine(
        4, 8, 2, 16, array="sign", pixels=40, act_bytes=4096, act_banks=16, mac=MacFormat(10, 24, 40)
    ),
    "8x8/256 sign": _engine(8, 8, 8, 256, array="sign", pixels=32, mac=MacFormat(10, 24, 40)),
    "4x8/32 huffman": _engine(4, 8, 4, 32, decoder="huffman", act_banks=8, prefetch_words=64),
    "8x4/128 huffman shift": _engine(8, 4, 2, 128, array="shift", decoder="huffman", pixels=20),
    "4x8/64 xor sign": _engine(4, 8, 1, 64, array="sign", decoder="xor", pixels=40, mac=MacFormat(10, 24, 40)),
    "4x8/64 wide": _engine(4, 8, 2, 64, operand_bits=16, pixels=24, act_banks=8),
    "8x4/512": _engine(8, 4, 2, 512, mac=MacFormat(product=7, align=12, acc=16, overflow="wrap")),
}
"""What is fixed when an engine is compiled, by name."""
TIED = "8x4/512"
"""The engine whose format is tied to constants."""

MAX_CYCLES = 40_000
"""Of one image, in the model: a greater case is drawn again."""
ATTEMPTS = 200
WANTED = 0.09
"""Share of the cases that ought to hit each option."""
CATCH_UP = 0.78
"""Share of the decisions that heed what is behind."""
KNOWN = frozenset(OPTIONS)


class Steered:
    """Decisions of a seeded generator that catches up on options that are hit too seldom."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.cases = 0
        self.hits: Counter[str] = Counter()

    def count(self, options: Iterable[str]) -> None:
        """Count the options of a case that is finished."""
        self.cases += 1
        self.hits.update(options)

    def option(self, group: str, values: Sequence[Value]) -> Value:
        """One of the values; more often than not one that leads to an option that is behind."""
        labels = [f"{group} {value}" for value in values]
        wanted = WANTED * (self.cases + 1)
        behind = [
            value for value, label in zip(values, labels, strict=True) if label in KNOWN and self.hits[label] < wanted
        ]
        if behind and self.rng.random() < CATCH_UP:
            values = behind
        return values[int(self.rng.integers(len(values)))]

    def between(self, low: int, high: int) -> int:
        """A whole number, all equally likely."""
        return int(self.rng.integers(low, high, endpoint=True))


@dataclass(frozen=True, slots=True)
class RandomCase:
    """A network with its input codes (N, C, H, W) on an engine, and what must come of it.

    `build` names the engine of `ENGINES` that runs it, whose formats and whose bus's latency `engine`
    narrows; `stall` is the chance of each side of the bus to sit out a cycle.
    """

    name: str
    build: str
    engine: EngineConfig
    stall: float
    network: Network
    codes: np.ndarray
    golden: RunResult

    @property
    def overflows(self) -> int:
        """Overflows of all kinds, layers and images."""
        return sum(self.golden.overflow(kind) for kind in COUNTERS)

    @property
    def options(self) -> frozenset[str]:
        """The options that the case hits."""
        formats = "tied" if self.build == TIED else "input"
        stalls = "some" if self.stall else "none"
        return frozenset((*network_options(self.golden), f"format {formats}", f"stalls {stalls}"))


def random_cases(count: int, seed: int = 0, draw: Steered | None = None) -> Iterator[RandomCase]:
    """So many cases, the same ones for the same seed; `draw`, new unless given, counts their options."""
    draw = draw or Steered(seed)
    for number in range(count):
        case = random_case(draw, f"random-{seed}-{number}")
        draw.count(case.options)
        yield case


def random_case(draw: Decisions, name: str = "random") -> RandomCase:
    """A case of these decisions; what does not fit its engine, or takes too long, is decided anew."""
    for _ in range(ATTEMPTS):
        case = _attempt(draw, name)
        if case is not None:
            return case
    raise CapacityError(f"{name}: one of {ATTEMPTS} cases must fit its engine")


def _attempt(draw: Decisions, name: str) -> RandomCase | None:
    array = draw.option("array", (*6 * ("digit",), *3 * ("fusion",), *4 * ("sign",), *3 * ("shift",)))
    widths = tuple(dict.fromkeys(engine.operand_bits for engine in ENGINES.values() if engine.array == array))
    width = draw.option("operand bits", (widths[0],) * 3 + widths)
    alike = {key: each for key, each in ENGINES.items() if (each.array, each.operand_bits) == (array, width)}
    bus = draw.option("bus", tuple(dict.fromkeys(engine.bus_bits for engine in alike.values())))
    builds = {engine.decoder: key for key, engine in alike.items() if engine.bus_bits == bus}
    build = builds[draw.option("decoder", tuple(builds))]
    engine = _narrowed(draw, ENGINES[build], tied=build == TIED)
    stall = draw.between(1, 12) / 16 if draw.option("stalls", ("none", "some")) == "some" else 0.0
    drawing = Drawing(draw, engine, name)
    try:
        network = drawing.network()
        codes = drawing.codes(draw.between(1, 2))
        golden = run(network, ImageSet(codes, coded=True), engine, trace=True, form="faithful")
    except (UnsupportedError, CapacityError):
        return None
    if golden.cycles_per_image > MAX_CYCLES:
        return None
    return RandomCase(name, build, engine, stall, network, codes, golden)


def _narrowed(draw: Decisions, engine: EngineConfig, tied: bool) -> EngineConfig:
    """The engine with a latency that its prefetch covers and, unless they are tied, formats."""
    most = engine.prefetch_words - PREFETCH_MARGIN
    low, high = LATENCIES[draw.option("latency", [key for key, (low, _) in LATENCIES.items() if low <= most])]
    latency = draw.between(low, min(high, most))
    mac = engine.mac if tied else _format(draw, engine)
    return EngineConfig(
        **{name: getattr(engine, name) for name in EngineConfig.model_fields} | {"bus_latency": latency, "mac": mac}
    )


def _format(draw: Decisions, engine: EngineConfig) -> MacFormat:
    """Wide formats, or such that one or all of their widths are too narrow for full codes."""
    kinds = COUNTERS if engine.aligns else ("acc", "post")
    # Operands of more than 8 bits must not overflow: a wide engine's format is narrow only now and then.
    some = not engine.wide or draw.between(0, 3) == 0
    narrow = draw.option("overflows of", ("none", "all", *kinds)) if some else "none"
    least = 40 if engine.wide else 24
    product, align, acc = draw.between(8, 10), draw.between(16, 24), draw.between(least, engine.mac.acc)
    if narrow in ("product", "all"):
        product = draw.between(6, 7)
    if narrow in ("align", "all"):
        align = 8
    if narrow in ("acc", "post", "all"):
        acc = draw.between(12, 13 if engine.array == "sign" else 16)
    overflow: Overflow = draw.option("overflow", get_args(Overflow))
    return MacFormat(product, align, acc, overflow)
