"""Which engine for a network: the smallest that is fast enough, or the fastest that is small enough.

Both searches go over rows, lanes and post lanes, all powers of two, and try only what the bounds of `Workload` leave
over: cycles are those of `sim.cycles`, what an engine costs is the caller's to say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..kernels.errors import CapacityError, GatewiseError, UnsupportedError
from .cycles import LayerCycles, network_cycles
from .engine import EngineConfig
from .lower import lower
from .network import Network
from .prune import pruned
from .sort import sorted_by_width
from .sweep import network_cycles_many

__all__ = ["SIZES", "Workload", "engines", "fastest_within", "smallest_for"]

SIZES = (4, 8, 16, 32, 64)
"""Rows and lanes that an engine may have."""

TRANSFERS = ("load", "store")
"""Operations that are no layer of a network."""

Subject = Callable[[EngineConfig], Network]
"""The network as it is made for an engine: encrypted weights have the order of its tiles."""


def engines(like: EngineConfig) -> Iterator[EngineConfig]:
    """All engines that differ from `like` in rows, lanes and post lanes alone."""
    for rows in SIZES:
        for lanes in SIZES:
            post_lanes = 1
            while post_lanes <= min(rows, lanes):
                yield EngineConfig(
                    **{**like.model_dump(), "mac": like.mac, "rows": rows, "lanes": lanes, "post_lanes": post_lanes}
                )
                post_lanes *= 2


@dataclass
class Workload:
    """What an engine has to do for an image: layers of a network, and the cycles that they take on an engine.

    Parameters
    ----------
    subject : makes the network for an engine
    only : the one layer that counts; all of them, with the input's load and the result's store, unless given
    """

    subject: Subject
    only: str | None = None
    _swept: dict[EngineConfig, int | GatewiseError] = field(default_factory=dict)
    _found: dict[EngineConfig, list[LayerCycles]] = field(default_factory=dict)
    _networks: dict[tuple[int, str, str], tuple[Network, Network]] = field(default_factory=dict)
    """The last one, as it was given and as it runs."""

    def layers(self, engine: EngineConfig) -> list[LayerCycles]:
        """The cycles of each layer.

        Raises `UnsupportedError` or `CapacityError` where the engine does not run the network.
        """
        if engine not in self._found:
            network = self.subject(engine)
            # Arranging takes longer than all else; a subject gives one network for most engines.
            key = id(network), engine.array, engine.decoder
            if key not in self._networks:
                self._networks = {key: (network, sorted_by_width(pruned(network, engine)).network)}
            lowered = lower(self._networks[key][1], engine)
            # A result's store has the name of the layer that made it.
            chosen = [layer for layer in lowered if self.only is None or (layer.name == self.only and layer.mac)]
            self._found[engine] = network_cycles(chosen, engine)
        return self._found[engine]

    def cycles(self, engine: EngineConfig) -> int:
        """Cycles of an image; where weights stream raw, those of all sizes of the engine are counted at once."""
        if engine.decoder != "raw":
            return sum(layer.total for layer in self.layers(engine))
        if engine not in self._swept:
            self._sweep(engine)
        found = self._swept[engine]
        if isinstance(found, GatewiseError):
            raise found
        return found

    def _sweep(self, like: EngineConfig) -> None:
        sizes = list(dict.fromkeys((like, *engines(like))))
        found = network_cycles_many(self.subject(like), sizes, prune=None)
        counts = [
            at
            for at, layer in enumerate(found.layers)
            if self.only is None or (layer.name == self.only and layer.op not in TRANSFERS)
        ]
        cycles = found.layer_cycles[:, counts].sum(axis=1).tolist()
        self._swept |= dict(found.refused) | dict(zip(found.engines, cycles, strict=True))

    def cycles_or_none(self, engine: EngineConfig) -> int | None:
        """Cycles of an image, or nothing where the engine's memory does not hold the network."""
        try:
            return self.cycles(engine)
        except CapacityError:
            return None

    def least_cycles(self, like: EngineConfig) -> Callable[[EngineConfig], float]:
        """A bound from below of what an image takes on engines that differ from `like` in size alone.

        An array makes no more products than it has PEs for, whatever it is.
        """
        products = sum(layer.products for layer in self.layers(like))
        return lambda engine: products / engine.products


def smallest_for(
    work: Workload, like: EngineConfig, target: int, cost: Callable[[EngineConfig], float]
) -> EngineConfig:
    """The engine of the least cost, of those like one, on which an image takes `target` cycles at most.

    Raises `CapacityError` where none does, with the fewest cycles that there are.
    """
    tried = sorted(engines(like), key=cost)
    least = work.least_cycles(_able(work, like))
    for engine in tried:
        if least(engine) > target:
            continue
        cycles = work.cycles_or_none(engine)
        if cycles is not None and cycles <= target:
            return engine
    found = [cycles for engine in tried if (cycles := work.cycles_or_none(engine)) is not None]
    raise CapacityError(
        f"cycles must be at least {min(found):,} for a {like.array} engine with decoder {like.decoder}, not {target:,}"
    )


def fastest_within(
    work: Workload, like: EngineConfig, budget: float, cost: Callable[[EngineConfig], float], unit: str
) -> EngineConfig:
    """The engine, of those like one that cost no more than `budget`, on which an image takes the fewest cycles.

    Of equally fast ones it is the cheapest. Raises `CapacityError` where all cost more, with the least cost.
    """
    costs = {engine: cost(engine) for engine in engines(like)}
    affordable = [engine for engine in costs if costs[engine] <= budget]
    if not affordable:
        raise CapacityError(
            f"budget must be at least {min(costs.values()):,.0f} {unit} for a {like.array} engine with decoder "
            f"{like.decoder}, not {budget:,.0f}"
        )
    least = work.least_cycles(_able(work, like))
    best: tuple[float, float] | None = None
    chosen: EngineConfig | None = None
    for engine in sorted(affordable, key=lambda each: (least(each), costs[each])):
        if best is not None and least(engine) > best[0]:
            break
        cycles = work.cycles_or_none(engine)
        if cycles is not None and (best is None or (cycles, costs[engine]) < best):
            best, chosen = (cycles, costs[engine]), engine
    if chosen is None:
        raise _refusal(work, affordable)
    return chosen


def _able(work: Workload, like: EngineConfig) -> EngineConfig:
    """An engine like that one which holds the network; the first one's refusal where none does."""
    for engine in (like, *engines(like)):
        if work.cycles_or_none(engine) is not None:
            return engine
    raise _refusal(work, [like])


def _refusal(work: Workload, engines: Sequence[EngineConfig]) -> GatewiseError:
    """Why the first of some engines does not run the network."""
    try:
        work.cycles(engines[0])
    except (CapacityError, UnsupportedError) as error:
        return error
    raise AssertionError("some engine must not run the network")
