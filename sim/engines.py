"""Engines side by side: one, or many that share all but what only the timing of a lowered layer depends on.

Formulas of the cycle model are written once for both: a `Count` is a number, or as many of them as there are engines.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .descriptor import descriptor_bits, descriptor_words
from .engine import EngineConfig

__all__ = ["AXES", "Count", "Engines", "by_engine", "columns", "greatest", "shared_settings"]

Count = int | np.ndarray
"""Of one engine, or of many, int64 (engines,)."""

AXES = ("pixels", "post_lanes", "bus_bits", "bus_latency", "prefetch_words", "clock_mhz")
"""Settings in which `Engines` may differ; a prefetch FIFO keeps the bus busy (`EngineConfig`), and costs no cycle."""


@dataclass(frozen=True, slots=True)
class Engines:
    """One engine, or many: what differs is named, all else is that of `shared`."""

    shared: EngineConfig
    pixels: Count
    post_lanes: Count
    bus_bits: Count
    bus_latency: Count
    descriptor_words: Count

    @classmethod
    def of(cls, engine: EngineConfig) -> "Engines":
        """One."""
        words = descriptor_words(engine)
        return cls(engine, engine.pixels, engine.post_lanes, engine.bus_bits, engine.bus_latency, words)

    @classmethod
    def alike(cls, engines: Sequence[EngineConfig]) -> "Engines":
        """Many that have `shared_settings` in common."""
        pixels, post_lanes, bus_bits, latency = (
            np.array([getattr(engine, name) for engine in engines], dtype=np.int64) for name in AXES[:4]
        )
        # A descriptor's registers are as wide as the accumulators of a row are many.
        sizes, which = np.unique(pixels, return_inverse=True)
        bits = [descriptor_bits(engines[0].model_copy(update={"pixels": int(size)})) for size in sizes]
        shared = engines[int(pixels.argmax())]
        return cls(shared, pixels, post_lanes, bus_bits, latency, np.array(bits)[which] // bus_bits)

    @property
    def count(self) -> int:
        """How many there are."""
        return 1 if isinstance(self.pixels, int) else len(self.pixels)


def shared_settings(engine: EngineConfig) -> Hashable:
    """All of an engine but `AXES`."""
    return tuple(value for name, value in engine if name not in AXES)


def columns(engines: Engines, values: Sequence[Count]) -> np.ndarray:
    """Counts side by side, int64 (engines, values), as compiled loops over engines take them."""
    made = np.empty((engines.count, len(values)), dtype=np.int64)
    for at, value in enumerate(values):
        made[:, at] = value
    return made


def by_engine(engines: Engines, found: np.ndarray) -> Sequence[Count]:
    """The columns of what such a loop has found, int64 (engines, values), as counts."""
    return found[0].tolist() if isinstance(engines.pixels, int) else list(found.T)


def greatest(count: Count, *others: Count) -> Count:
    """The greatest, engine by engine."""
    for other in others:
        many = isinstance(count, np.ndarray) or isinstance(other, np.ndarray)
        count = np.maximum(count, other) if many else max(count, other)
    return count
