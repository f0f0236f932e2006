"""A network's cycles on many engines at once: hundreds to thousands of configurations a second.

The model is that of `cycles`, and so are its formulas: what a layer's registers say on every engine of a size is
lowered once, what engines of that size differ in stands in arrays, and one call of `layer_parts` counts for all of
them. With a decoder cycles follow from the streams: these are made once for a size and bus, and played an engine at a
time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, get_args

import numpy as np

from ..kernels.errors import FormatError, GatewiseError
from .cycles import Bound, Parts, array_facts, layer_parts
from .engine import EngineConfig
from .engines import Engines, shared_settings
from .lower import check_planes, lower_without_taper
from .lowered import LoweredLayer, timing_values
from .network import Network
from .prune import pruned
from .sort import sorted_by_width
from .tile_times import Timing

__all__ = ["PARTS", "Sweep", "SweptLayer", "configurations", "network_cycles_many", "pareto"]

PARTS = Parts._fields[:-1]
"""The parts of a layer's cycles, in the order in which arrays have them."""
BOUNDS: tuple[Bound, ...] = get_args(Bound)
"""What their greatest is called, in the same order."""
FOLLOWS = {"post_lanes": ("rows", "lanes"), "prefetch_words": ("bus_latency",)}
"""Settings that take their default again where those change that it comes of."""


class SweptLayer(NamedTuple):
    """A layer of an engine by its name and operations."""

    name: str
    op: str


@dataclass(frozen=True)
class Sweep:
    """What a network takes on engines, in the order in which they were given.

    Parameters
    ----------
    network : its name
    engines : those that run it
    layers : what any of them runs, in order
    parts : cycles by part, int64 (engines, layers, `PARTS`); 0 where an engine does not need a layer
    bytes_read : int64 (engines, layers)
    products : useful ones of the array, int64 (engines, layers)
    streamed : bool (engines,); cycles of the real streams of a decoder, played engine by engine
    refused : engines that do not run it, with what must be true
    """

    network: str
    engines: tuple[EngineConfig, ...]
    layers: tuple[SweptLayer, ...]
    parts: np.ndarray
    bytes_read: np.ndarray
    products: np.ndarray
    streamed: np.ndarray
    refused: tuple[tuple[EngineConfig, GatewiseError], ...] = field(default=())

    @cached_property
    def layer_cycles(self) -> np.ndarray:
        """Cycles of an image by layer, int64 (engines, layers)."""
        return np.asarray(self.parts.sum(axis=2))

    @cached_property
    def cycles(self) -> np.ndarray:
        """Cycles of an image, int64 (engines,)."""
        return np.asarray(self.parts.sum(axis=(1, 2)))

    @cached_property
    def pes(self) -> np.ndarray:
        """PEs, int64 (engines,)."""
        return np.array([engine.rows * engine.lanes for engine in self.engines], dtype=np.int64)

    @cached_property
    def utilisation(self) -> np.ndarray:
        """Useful products over what the array could have made in the cycles, (engines,)."""
        most = np.array([engine.products for engine in self.engines])
        return np.asarray(self.products.sum(axis=1) / (most * self.cycles))

    @cached_property
    def bound_by(self) -> list[Bound]:
        """The greatest part of the network's cycles, by engine."""
        return [BOUNDS[index] for index in self.parts.sum(axis=1).argmax(axis=1)]

    @cached_property
    def pareto(self) -> np.ndarray:
        """Engines beside which no other one has fewer cycles and no more PEs, or fewer PEs and no more cycles."""
        return pareto(self.pes, self.cycles)

    def row(self, index: int) -> dict[str, Any]:
        """An engine's settings and its figures, plain numbers and texts."""
        engine = self.engines[index]
        cycles = int(self.cycles[index])
        return {
            **{name: value for name, value in engine.to_json().items() if name != "mac"},
            "pes": int(self.pes[index]),
            "cycles": cycles,
            "images_per_second": engine.clock_mhz * 1e6 / cycles,
            "utilisation": float(self.utilisation[index]),
            "bound_by": self.bound_by[index],
            "bytes_read": int(self.bytes_read[index].sum()),
            "pareto": bool(self.pareto[index]),
            **dict(zip(PARTS, self.parts[index].sum(axis=0).tolist(), strict=True)),
        }


def pareto(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which points (n,) no other one beats: less in one, no more in the other."""
    order = np.lexsort((second, first))
    x, y = first[order], second[order]
    starts = np.flatnonzero(np.diff(x, prepend=x[:1] - 1))  # of equal firsts, of which the least second stands first
    least = y[starts]
    before = np.minimum.accumulate(np.concatenate([[np.iinfo(np.int64).max], least[:-1]]))
    group = np.cumsum(np.isin(np.arange(len(x)), starts)) - 1
    found = np.empty(len(x), dtype=np.bool_)
    found[order] = (y == least[group]) & (y < before[group])
    return found


def network_cycles_many(
    network: Network,
    engines: Sequence[EngineConfig],
    prune: bool | None = False,
    progress: Callable[[int], None] | None = None,
) -> Sweep:
    """Cycles of an image on each engine, by layer and part: exactly those of `cycles.network_cycles`.

    An engine that does not run the network is in `Sweep.refused`. Constant channels stay, go or, with None, go where
    nothing changes (`prune.pruned`). `progress` is called with the number of engines done.

    >>> found = network_cycles_many(network, [EngineConfig(rows=rows) for rows in (4, 8, 16)])
    >>> found.cycles, found.layer_cycles
    """
    variants = _Variants(network, prune)
    alike: dict[Any, list[int]] = {}
    for index, engine in enumerate(engines):
        bus = None if engine.decoder == "raw" else engine.bus_bits
        alike.setdefault((shared_settings(engine), bus), []).append(index)
    made: dict[int, _Counted] = {}
    errors: dict[int, GatewiseError] = {}
    for indices in alike.values():
        for at, found in zip(indices, _alike(variants, [engines[at] for at in indices]), strict=True):
            if isinstance(found, GatewiseError):
                errors[at] = found
            else:
                made[at] = found
        if progress is not None:
            progress(len(indices))
    layers = _merged({each.layers: None for each in made.values()})
    place = {layer: at for at, layer in enumerate(layers)}
    kept = sorted(made)
    figures = np.zeros((len(kept), len(layers), len(Parts._fields) + 1), dtype=np.int64)
    for row, at in enumerate(kept):
        figures[row, [place[layer] for layer in made[at].layers]] = made[at].figures
    return Sweep(
        network.name,
        tuple(engines[at] for at in kept),
        layers,
        figures[:, :, : len(PARTS)],
        figures[:, :, len(PARTS)],
        figures[:, :, -1],
        np.array([engines[at].decoder != "raw" for at in kept], dtype=np.bool_),
        tuple((engines[at], errors[at]) for at in sorted(errors)),
    )


class _Variants:
    """A network as engines run it: without the channels that they can leave out, sorted by width."""

    def __init__(self, network: Network, prune: bool | None) -> None:
        self.network, self.prune = network, prune
        self.known: dict[Any, Network] = {}

    def on(self, engine: EngineConfig) -> Network:
        """The one for an engine: what can change there depends on no sizes."""
        key = engine.array, engine.decoder, engine.operand_bits, engine.mac
        if key not in self.known:
            self.known[key] = sorted_by_width(pruned(self.network, engine, self.prune)).network
        return self.known[key]


class _Counted(NamedTuple):
    """Of one engine: its layers, and their parts, bytes read and products, int64 (layers, 8)."""

    layers: tuple[SweptLayer, ...]
    figures: np.ndarray


def _merged(orders: Iterable[Sequence[SweptLayer]]) -> tuple[SweptLayer, ...]:
    """All layers of orders that agree about those which they share."""
    merged: list[SweptLayer] = []
    for order in orders:
        at = 0
        for layer in order:
            if layer in merged:
                at = merged.index(layer) + 1
            else:
                merged.insert(at, layer)
                at += 1
    return tuple(merged)


def _alike(variants: _Variants, engines: Sequence[EngineConfig]) -> Iterable[_Counted | GatewiseError]:
    """What engines that share their settings, `AXES` apart, take; with a decoder, and their bus."""
    together = Engines.alike(engines)
    try:
        layers = list(lower_without_taper(variants.on(together.shared), together.shared))
    except GatewiseError as error:
        return [error] * len(engines)
    refused = [_refusal(layers, engine) for engine in engines]
    able = [engine for engine, error in zip(engines, refused, strict=True) if error is None]
    if not able:
        return [error for error in refused if error is not None]
    sides = [Engines.alike(able)] if together.shared.decoder == "raw" else [Engines.of(engine) for engine in able]
    figures = np.concatenate([_figures(layers, side) for side in sides])
    names = tuple(SweptLayer(layer.name, layer.label) for layer in layers)
    counted = iter(figures)
    return [error or _Counted(names, next(counted)) for error in refused]


def _refusal(layers: Sequence[LoweredLayer], engine: EngineConfig) -> GatewiseError | None:
    """What a smaller engine than the one that the layers were lowered for says to them."""
    try:
        for layer in layers:
            check_planes(layer.name, layer.planes, engine.pixels)
    except GatewiseError as error:
        return error
    return None


def _figures(layers: Sequence[LoweredLayer], engines: Engines) -> np.ndarray:
    """Parts, bytes read and products of layers, int64 (engines, layers, 8)."""
    figures = np.zeros((engines.count, len(layers), len(Parts._fields) + 1), dtype=np.int64)
    for at, layer in enumerate(layers):
        timing = Timing()
        if layer.op not in ("load", "store"):
            timing = Timing(**timing_values(layer.op, layer.registers, layer.planes, engines))
        for column, part in enumerate(layer_parts(layer, timing, engines)):
            figures[:, at, column] = part
        if layer.mac is not None:
            figures[:, at, -1] = array_facts(layer, engines.shared)["products"]
    return figures


def configurations(
    base: EngineConfig, axes: Mapping[str, Sequence[Any]]
) -> tuple[list[EngineConfig], list[tuple[dict[str, Any], FormatError]]]:
    """All combinations of settings, `base` for what is not swept, and those that make no engine, with the reason.

    The last axis varies fastest. `post_lanes` are half the rows and `prefetch_words` what the bus needs where sizes or
    latency are swept, but not they themselves.
    """
    settings = dict(base)
    for name, sources in FOLLOWS.items():
        if name not in axes and any(source in axes for source in sources):
            del settings[name]
    engines: list[EngineConfig] = []
    refused: list[tuple[dict[str, Any], FormatError]] = []
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        try:
            engines.append(EngineConfig(**{**settings, **chosen}))
        except FormatError as error:
            refused.append((chosen, error))
    return engines, refused
