"""A layer on engines with run-time weights: the smallest of each scheme that keep up with a stated throughput.

The layer stands between tensors of the scheme's own activations; its cycles are those of `sim.cycles`, of its own
weight stream where that is coded, without the transfers of an input or a result. Costs are `CostModel`'s.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache as remembered
from pathlib import Path
from typing import Any

from ..kernels.conv import ConvShape
from ..kernels.errors import CapacityError, UnsupportedError
from ..sim.arrays import SCHEMES as ARRAY_SCHEMES
from ..sim.engine import Array, Decoder, EngineConfig
from ..sim.manifest import BasisWeights, IntWeights, Weights, XorWeights
from ..sim.network import Network
from ..sim.shapes import LAYER, layer_network
from ..sim.sizing import Workload, smallest_for
from ..sim.unrolled import Scheme, scheme_named
from .engine_cost import CostModel, cost_model
from .engine_count import Cost

__all__ = ["Models", "SizedEngine", "arrays_of", "decoder_of", "default_target", "size_layer", "sized"]

TARGET_SCHEME = "fixed8"
"""Whose cycles on the default engine are the target unless one is given."""
TARGET_SLACK = 100
"""A hundredth more is allowed: sizes are powers of two, and one that misses by a few cycles is as fast."""
FEW_BITS = 2
"""Integers of so many bits are at home on every array: a sign or a shift PE takes them in one pass or two."""


@dataclass(frozen=True)
class SizedEngine:
    """An engine that was chosen for a layer or a network, what an image takes on it and what it costs.

    Parameters
    ----------
    target : cycles that an image may take, at which engines are compared
    parts : what each part costs
    """

    engine: EngineConfig
    cycles: int
    bytes_read: int
    utilisation: float
    parts: dict[str, Cost]
    target: int

    @property
    def cost(self) -> Cost:
        """Of the whole engine."""
        return sum(self.parts.values(), Cost())

    @property
    def gates_at_target(self) -> float:
        """Gates times cycles, by the target's cycles: what so many engines cost that just reach the target."""
        return self.cost.gates * self.cycles / self.target

    @property
    def decoder_share(self) -> float:
        """Of the gates."""
        return self.parts.get("decoder", Cost()).gates / self.cost.gates

    @property
    def text(self) -> str:
        """Size, array and decoder."""
        engine = self.engine
        return f"{engine.rows} x {engine.lanes}, Q {engine.post_lanes}, {engine.array}, {engine.decoder}"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        engine = self.engine
        return {
            "rows": engine.rows,
            "lanes": engine.lanes,
            "post_lanes": engine.post_lanes,
            "array": engine.array,
            "decoder": engine.decoder,
            "act_bytes": engine.act_bytes,
            "cycles": self.cycles,
            "target_cycles": self.target,
            "gates_at_target": round(self.gates_at_target),
            "utilisation": self.utilisation,
            "bytes_read": self.bytes_read,
            "decoder_share": self.decoder_share,
            "gates_by_part": {name: round(cost.gates) for name, cost in self.parts.items()},
        }


@dataclass
class Models:
    """Cost models by array and decoder, each made when it is first asked for.

    Parameters
    ----------
    given : models that are there already
    cache, notice, jobs : as for `engine_cost.cost_model`
    """

    given: dict[tuple[Array, Decoder], CostModel] = field(default_factory=dict)
    cache: Path | None = None
    notice: Callable[[str], None] | None = None
    jobs: int | None = None

    def of(self, array: Array, decoder: Decoder) -> CostModel:
        """The model of engines of a kind."""
        if (array, decoder) not in self.given:
            self.given[array, decoder] = cost_model(
                array, decoder, cache=self.cache, notice=self.notice, jobs=self.jobs
            )
        return self.given[array, decoder]


def arrays_of(spec: Weights) -> Iterator[Array]:
    """The arrays that a scheme's weights are at home on: integers on multipliers, of digits or of fused bricks.

    Integers of one or two bits are tried on signs and on shifts too.
    """
    multipliers: tuple[Array, ...] = ("digit", "fusion") if isinstance(spec, IntWeights) else ()
    others: tuple[Array, ...] = ("sign", "shift") if not isinstance(spec, IntWeights) or spec.bits <= FEW_BITS else ()
    homes = multipliers + others
    yield from (array for array in homes if spec.scheme in ARRAY_SCHEMES[array])


def decoder_of(spec: Weights) -> Decoder:
    """The decoder that weights are stored for."""
    if isinstance(spec, XorWeights):
        return "xor"
    if isinstance(spec, BasisWeights) or spec.coding == "raw":
        return "raw"
    return "huffman"


def _workload(scheme: Scheme, shape: ConvShape, size: tuple[int, int], seed: int) -> Workload:
    @remembered
    def made(tile: tuple[int, int]) -> Network:
        return layer_network(scheme, shape, size, tile, seed)

    encrypted = isinstance(made((16, 16)).layers[LAYER].node.weights, XorWeights)
    return Workload(lambda engine: made((engine.rows, engine.lanes) if encrypted else (16, 16)), LAYER)


def default_target(shape: ConvShape, size: tuple[int, int], seed: int = 0) -> int:
    """Cycles of the layer in 8-bit fixed point on the default engine, of 16 x 16 PEs, and 1 % more."""
    cycles = _workload(scheme_named(TARGET_SCHEME), shape, size, seed).cycles(EngineConfig())
    return cycles + cycles // TARGET_SLACK


def size_layer(
    scheme: Scheme,
    shape: ConvShape,
    size: tuple[int, int],
    target: int,
    models: Models,
    refuse: Callable[[str], None],
    seed: int = 0,
    notice: Callable[[str], None] | None = None,
) -> Iterator[SizedEngine]:
    """The smallest engine, in gates, of each array that runs a scheme's layer in `target` cycles.

    `refuse` is told of the arrays with which none does.
    """
    work = _workload(scheme, shape, size, seed)
    spec = work.subject(EngineConfig()).layers[LAYER].node.weights
    for array in arrays_of(spec):
        like = EngineConfig(array=array, decoder=decoder_of(spec))
        model = models.of(array, like.decoder)
        if notice is not None:
            notice(f"{scheme.name}: the smallest {array} engine of {target:,} cycles")
        try:
            engine = smallest_for(work, like, target, lambda each, model=model: model.cost(each).gates)  # type: ignore[misc]
        except (CapacityError, UnsupportedError) as error:
            refuse(f"{scheme.name} on engines: {error}")
        else:
            yield sized(work, engine, model, target)


def sized(work: Workload, engine: EngineConfig, model: CostModel, target: int) -> SizedEngine:
    """An engine with its cycles and its costs."""
    layers = work.layers(engine)
    total = sum(layer.total for layer in layers)
    return SizedEngine(
        engine,
        total,
        sum(layer.bytes_read for layer in layers),
        sum(layer.products for layer in layers) / (engine.products * total),
        model.parts(engine),
        target,
    )
