"""A bus of a design, with host memory behind it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...kernels.errors import FormatError

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["BUS_BITS", "Bus", "BusPorts", "BusTiming"]

MAX_LATENCY = 200
BUS_BITS = tuple(8 << k for k in range(7))


@dataclass(frozen=True, slots=True)
class BusPorts:
    """The streams of a design that make up its bus; either direction may be missing.

    Parameters
    ----------
    request : out of the design: the word address of each read
    words : into the design: the words read, in order
    write : out of the design: the word address in the low bits, above it the word
    """

    request: str | None = None
    words: str | None = None
    write: str | None = None


@dataclass(frozen=True, slots=True)
class BusTiming:
    """How a bus answers.

    Parameters
    ----------
    latency : a request accepted in cycle t has its word offered in cycle t + 1 + latency (0..200)
    stall : chance of each side of each channel to sit out a cycle, 0 up to but without 1
    seed : of the stalls
    """

    latency: int = 20
    stall: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.latency <= MAX_LATENCY:
            raise FormatError(f"bus latency must be from 0 to {MAX_LATENCY}, not {self.latency}")
        if not 0 <= self.stall < 1:
            raise FormatError(f"stall must be at least 0 and below 1, not {self.stall}")


@dataclass(frozen=True, slots=True)
class Bus:
    """A bus in a simulation: what has moved over it."""

    simulation: "Simulation"
    index: int

    @property
    def words_read(self) -> int:
        """Words that the design has taken."""
        return int(self.simulation.design.library.gatewise_bus_words(self.simulation.handle, self.index, 0))

    @property
    def words_written(self) -> int:
        """Words that the design has written."""
        return int(self.simulation.design.library.gatewise_bus_words(self.simulation.handle, self.index, 1))
