"""How many bits are enough: a network's accuracy and overflows over widths of its datapath, every point bit-exact.

A point is what ``gatewise run --mac align=A,acc=C,overflow=MODE`` finds, codes and counters, and little of it has to be
computed:

* where no width of any layer can overflow (`sim.bounds`), all points are one: they are proved, not run;
* of a layer's output channels those that cannot overflow are computed once for an input, in their fast form;
* the others run in their faithful form, once for an input and for what they depend on of the widths: not on one that
  cannot overflow. What overflowed nowhere at some widths does so at none that are as wide, in neither mode;
* tensors are compared by their codes. So a layer that is fed the same at two points, for want of an overflow before
  it, or because one changed no code, is not run again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, product
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ..kernels.align import Alignment
from ..kernels.digits import BYTE_BITS
from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.fusion import BRICKS
from ..kernels.mac import DIGIT_BITS, MacFormat, Overflow
from ..kernels.planes import MAX_PLANE_ACC
from .arrays import array_form, default_engine
from .bounds import LayerBounds, layer_bounds
from .engine import EngineConfig
from .events import layer_events
from .execute import Datapath, Overflows, plain_codes
from .fast import FastLayer, fast_nodes
from .graph import MacNode
from .images import ImageSet, quantise_images
from .lowered import LoweredLayer
from .manifest import Conv2dNode, LinearNode
from .network import Network
from .run import check_labels, compiled_for, threads

__all__ = [
    "CRITERIA",
    "Criterion",
    "Events",
    "Least",
    "RowCost",
    "WidthPoint",
    "WidthSweep",
    "parse_widths",
    "row_kind",
    "sweep_widths",
]

SCHEMA = 1
KINDS = ("product", "align", "acc", "post")
WIDEST = 24, 48
"""Align and acc in which nothing overflows, or as little as anywhere."""
UNIT_IMAGES = 16
"""Images that go through all points together, at most."""
UNIT_BYTES = 32 << 20
"""Of all tensors of a unit's images, at one point."""
KEPT_BYTES = 320 << 20
"""Of tensors that each thread keeps for the points to come."""

Criterion = Literal["proved", "clean", "accurate"]
CRITERIA: dict[Criterion, str] = {
    "proved": "nothing can overflow, whatever the image",
    "clean": "nothing overflowed on these images",
    "accurate": "top-1 within a standard error",
}
"""What makes a width enough."""


def parse_widths(text: str, name: Literal["align", "acc"]) -> range:
    """Widths from ``LOW..HIGH``, both included, or one number; each must be one that a `MacFormat` takes."""
    ends = [part.strip() for part in text.split("..")]
    if len(ends) > 2 or not all(part.isdecimal() for part in ends):
        raise FormatError(f"--{name} must be LOW..HIGH or one number, not {text!r}")
    low, high = int(ends[0]), int(ends[-1])
    if low > high:
        raise FormatError(f"--{name} must be LOW..HIGH with LOW <= HIGH, not {text!r}")
    for end in (low, high):
        _ = MacFormat(align=end) if name == "align" else MacFormat(acc=end)
    return range(low, high + 1)


class Events(NamedTuple):
    """What of a layer can overflow in one image: products that are aligned, and sums that are accumulated."""

    align: int
    acc: int


class RowCost(NamedTuple):
    """What one row of the array costs: multipliers, alignment, adder tree, accumulator and their registers."""

    gates: int
    flip_flops: int
    equivalents: float
    alms_low: int
    alms_high: int


@dataclass(frozen=True)
class WidthPoint:
    """What the images make of one format: `predictions` (N,) and each layer's overflows, summed over them.

    `proved` says that nothing can overflow, whatever the image; the point was not run for itself.
    """

    mac: MacFormat
    proved: bool
    predictions: np.ndarray
    overflows: dict[str, Overflows]

    def overflow(self, kind: str) -> int:
        """Overflows of a kind in all layers and images."""
        return sum(int(getattr(counts, kind).sum()) for counts in self.overflows.values())

    def worst(self, kind: str) -> tuple[str, int]:
        """The layer that has most of them; the first one where none has any."""
        counts = {name: int(getattr(counts, kind).sum()) for name, counts in self.overflows.items()}
        return max(counts.items(), key=lambda item: item[1], default=("", 0))

    @property
    def clean(self) -> bool:
        """Whether nothing overflowed."""
        return not any(self.overflow(kind) for kind in KINDS)


class Least(NamedTuple):
    """The least widths that are enough by one criterion; None where none of the grid is.

    `align` with the accumulator of the engine, `acc` with its alignment, and `pair` of both together: the least
    alignment, of which a row has many, and with it the least accumulator.
    """

    align: MacFormat | None
    acc: MacFormat | None
    pair: MacFormat | None


@dataclass(frozen=True)
class WidthSweep:
    """A network's images over a grid of widths; `points` are in the order of overflow mode, align, acc."""

    network: Network
    engine: EngineConfig
    labels: np.ndarray
    points: list[WidthPoint]
    reference: WidthPoint
    """The engine's own widths: what others save or lose is told against these."""
    events: dict[str, Events]
    layer_runs: int
    """Layers that ran in the faithful form, counted for each unit of images; `layer_points` if nothing were reused."""
    layer_points: int
    costs: Mapping[MacFormat, RowCost] = field(default_factory=dict)
    """Of the formats whose rows were synthesised."""

    @property
    def images(self) -> int:
        """Images run."""
        return len(self.labels)

    @property
    def proved(self) -> int:
        """Points that were proved."""
        return sum(point.proved for point in self.points)

    @property
    def float_top1(self) -> float | None:
        """The float network's top-1, where the file says so."""
        found = self.network.manifest.provenance.get("float_top1")
        return None if found is None else float(found)

    @cached_property
    def by_mac(self) -> dict[MacFormat, WidthPoint]:
        """The points, and the reference, by their formats."""
        return {point.mac: point for point in (self.reference, *self.points)}

    def widths(self, name: Literal["align", "acc"]) -> list[int]:
        """The grid's widths, ascending."""
        return sorted({getattr(point.mac, name) for point in self.points})

    @property
    def modes(self) -> list[Overflow]:
        """The grid's overflow modes."""
        return list(dict.fromkeys(point.mac.overflow for point in self.points))

    def top1(self, point: WidthPoint) -> float:
        """Share of images with the right prediction."""
        return float((point.predictions == self.labels).mean())

    def error(self, point: WidthPoint) -> float:
        """Standard error of that share."""
        top1 = self.top1(point)
        return float((top1 * (1 - top1) / self.images) ** 0.5)

    def changed(self, point: WidthPoint) -> int:
        """Images whose prediction is another than the reference's."""
        return int((point.predictions != self.reference.predictions).sum())

    def share(self, point: WidthPoint, kind: Literal["align", "acc"]) -> float:
        """Overflows to what could overflow."""
        total = self.images * sum(getattr(each, kind) for each in self.events.values())
        return point.overflow(kind) / total if total else 0.0

    def enough(self, point: WidthPoint, criterion: Criterion) -> bool:
        """Whether a criterion holds at a point."""
        if criterion == "proved":
            return point.proved
        if criterion == "clean":
            return point.clean
        return self.top1(point) >= self.top1(self.reference) - self.error(self.reference)

    def cut(self, name: Literal["align", "acc"], mode: Overflow) -> list[WidthPoint]:
        """The points along one width, ascending; the other is the engine's or, without that, the grid's widest."""
        other: Literal["align", "acc"] = "acc" if name == "align" else "align"
        widths = self.widths(other)
        held = getattr(self.reference.mac, other)
        held = held if held in widths else widths[-1]
        found = [each for each in self.points if each.mac.overflow == mode and getattr(each.mac, other) == held]
        return sorted(found, key=lambda point: int(getattr(point.mac, name)))

    def least(self, criterion: Criterion, mode: Overflow) -> Least:
        """The least widths from which on a criterion holds at every width of the grid."""

        def first(points: Iterable[WidthPoint]) -> MacFormat | None:
            found = None
            for point in reversed(list(points)):
                if not self.enough(point, criterion):
                    break
                found = point.mac
            return found

        pair = None
        for align in reversed(self.widths("align")):
            row = [each for each in self.points if each.mac.overflow == mode and each.mac.align == align]
            acc = first(sorted(row, key=lambda point: point.mac.acc))
            if acc is None:
                break
            pair = acc
        return Least(first(self.cut("align", mode)), first(self.cut("acc", mode)), pair)

    @property
    def row_formats(self) -> list[MacFormat]:
        """The formats whose rows say what widths save: the engine's, those along each width, the least pairs."""
        found = [self.reference.mac]
        for mode in self.modes:
            found += [point.mac for point in (*self.cut("align", mode), *self.cut("acc", mode))]
            pairs = (self.least(criterion, mode).pair for criterion in CRITERIA)
            found += [mac for mac in pairs if mac is not None]
        return list(dict.fromkeys(found))

    def to_json(self) -> dict[str, Any]:
        """The documented JSON object of ``gatewise widths --json``."""
        return {
            "schema": SCHEMA,
            "network": self.network.name,
            "images": self.images,
            "float_top1": self.float_top1,
            "engine": {"rows": self.engine.rows, "lanes": self.engine.lanes, "array": self.engine.array},
            "reference": self._point_json(self.reference),
            "events": {name: each._asdict() for name, each in self.events.items()},
            "layer_runs": self.layer_runs,
            "layer_points": self.layer_points,
            "points": [self._point_json(point) for point in self.points],
            "least": {
                mode: {
                    criterion: {
                        what: None if mac is None else {"align": mac.align, "acc": mac.acc}
                        for what, mac in self.least(criterion, mode)._asdict().items()
                    }
                    for criterion in CRITERIA
                }
                for mode in self.modes
            },
        }

    def _point_json(self, point: WidthPoint) -> dict[str, Any]:
        mac, cost = point.mac, self.costs.get(point.mac)
        content: dict[str, Any] = {
            "product": mac.product,
            "align": mac.align,
            "acc": mac.acc,
            "overflow": mac.overflow,
            "top1": self.top1(point),
            "standard_error": self.error(point),
            "changed": self.changed(point),
            "proved": point.proved,
        }
        for kind in KINDS:
            name, count = point.worst(kind)
            content[f"overflow_{kind}"] = point.overflow(kind)
            content[f"worst_{kind}"] = name if count else None
            content[f"worst_{kind}_overflow"] = count
        for each in get_args(Literal["align", "acc"]):
            content[f"share_{each}"] = self.share(point, each)
        return content | {"row": None if cost is None else cost._asdict()}


def row_kind(network: Network, engine: EngineConfig) -> Alignment | None:
    """The alignment that a row must have for the network; None where the array has no such rows."""
    if engine.array != "digit":
        return None
    kinds = {node.align for node in network.mac_nodes()}
    return "mul" if "mul" in kinds else "shift"


def sweep_widths(
    network: Network,
    images: ImageSet,
    engine: EngineConfig | None = None,
    *,
    align: Sequence[int] = range(8, 17),
    acc: Sequence[int] = range(12, 33),
    modes: Sequence[Overflow] = get_args(Overflow),
    progress: Callable[[int, int], None] | None = None,
) -> WidthSweep:
    """Run images at every pair of widths in every overflow mode; the product's width is the engine's.

    Parameters
    ----------
    images : with labels
    engine : where not given, the default one that runs the network; its widths are the reference
    align, acc, modes : the grid
    progress : called with the steps done and those there are
    """
    engine = engine or default_engine(network)
    if images.labels is None:
        raise FormatError("images must have labels: without them no width has an accuracy")
    check_labels(images.labels, network)
    if not (len(align) and len(acc) and len(modes)):
        raise FormatError("the grid must have a width of each kind and an overflow mode")
    grid = [
        MacFormat(engine.mac.product, *widths, overflow=mode)
        for mode in modes
        for widths in product(sorted(align), sorted(acc))
    ]
    _check(network, engine, max(mac.acc for mac in grid))
    compiled = compiled_for(network, engine)
    datapath = replace(compiled.datapath, mac=_widest(engine))
    layers = {node.name: _Layer.of(datapath, node) for node in datapath.network.mac_nodes()}
    formats = list(dict.fromkeys((engine.mac, *grid)))
    proved = [mac for mac in formats if all(layer.bounds.overflow(mac) is None for layer in layers.values())]
    # All that are proved are one; wide accumulators first, and the alignments of one behind each other.
    every = [mac for mac in formats if mac not in proved]
    every.sort(key=lambda mac: (-mac.acc, mac.overflow, -mac.align))
    every = [*proved[:1], *every]

    total = sum(value.elements for value in network.values.values())
    size = max(1, min(UNIT_IMAGES, UNIT_BYTES // (2 * total), -(-len(images) // threads())))
    units = list(images.batches(size))
    steps = count(1)

    def step() -> None:
        done = next(steps)
        if progress is not None:
            progress(done, len(units) * len(every))

    def work(unit: ImageSet) -> "_Unit":
        run = _Unit(datapath, layers)
        run.through(every, quantise_images(unit, network.manifest.input), step)
        return run

    predictions: dict[MacFormat, list[np.ndarray]] = {mac: [] for mac in every}
    overflows: dict[MacFormat, dict[str, Overflows]] = {mac: {} for mac in every}
    runs = 0
    with ThreadPoolExecutor(threads()) as pool:
        for unit in pool.map(work, units):
            runs += unit.runs
            for mac in every:
                predictions[mac].append(unit.predictions[mac])
                for name, counts in unit.overflows[mac].items():
                    if name in overflows[mac]:
                        overflows[mac][name] += counts
                    else:
                        overflows[mac][name] = counts.copy()

    def point(mac: MacFormat) -> WidthPoint:
        ran = proved[0] if mac in proved else mac
        counts = {
            name: Overflows(compiled.arranged.own(name, each.counts, axis=1).copy())
            for name, each in overflows[ran].items()
        }
        return WidthPoint(mac, mac in proved, np.concatenate(predictions[ran]), counts)

    return WidthSweep(
        network,
        engine,
        images.labels,
        [point(mac) for mac in grid],
        point(engine.mac),
        {layer.name: _events(layer, engine) for layer in compiled.lowered if layer.mac is not None},
        runs,
        len(units) * len(formats) * len(layers),
    )


def _check(network: Network, engine: EngineConfig, acc: int) -> None:
    wide = [node.name for node in network.mac_nodes() if max(_operand_bits(network, node)) > BYTE_BITS]
    if wide:
        raise UnsupportedError(
            f"{wide[0]}: widths must be swept of networks with weights and activations of at most {BYTE_BITS} bits: "
            f"of wider ones nothing may overflow, and `gatewise run` says which widths they need"
        )
    if engine.array == "sign" and acc > MAX_PLANE_ACC:
        raise FormatError(f"--acc must be at most {MAX_PLANE_ACC} in a sign array, not {acc}")


def _widest(engine: EngineConfig) -> MacFormat:
    align, acc = WIDEST
    return MacFormat(engine.mac.product, align, MAX_PLANE_ACC if engine.array == "sign" else acc)


def _operand_bits(network: Network, node: MacNode) -> tuple[int, int]:
    operands = network.layers[node.name].operands
    return operands.w_bits, operands.a_bits


def _events(layer: LoweredLayer, engine: EngineConfig) -> Events:
    """What the array aligns and accumulates of a layer in one image: taps in the padding and zero weights included."""
    assert layer.mac is not None
    counted = {(event.part, event.kind): event.count for event in layer_events(layer, engine)}
    products = counted.get(("multiply", "multiply"), 0) // (BRICKS if engine.array == "fusion" else 1)
    limited = not array_form(layer.mac, engine.array).exact_rows
    return Events(products * limited, counted["accumulate", "add"])


@dataclass
class _Layer:
    """A layer's proofs: what of its output channels depends on which width."""

    node: MacNode
    bounds: LayerBounds
    fast: FastLayer | None
    """Its fast form at the widest format."""
    widest: MacFormat
    whole: bool
    """Whether all channels must run in the same form."""
    _exact: dict[MacFormat, np.ndarray] = field(default_factory=dict)
    _held: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, datapath: Datapath, node: MacNode) -> "_Layer":
        network = datapath.network
        form = array_form(network.layers[node.name], datapath.array)
        fast = fast_nodes(network, datapath.array, datapath.mac, "auto").get(node.name)
        return cls(
            node,
            layer_bounds(form, network.source(node).codes),
            fast if isinstance(fast, FastLayer) else None,
            datapath.mac,
            form.layer.shape.groups > 1,
        )

    @cached_property
    def margins(self) -> dict[str, np.ndarray]:
        """Bits to spare of each width at the widest format, (out,), where the array limits it."""
        return {name: each for name, each in self.bounds.margins(self.widest)._asdict().items() if each is not None}

    @cached_property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        """Greatest magnitudes of exact accumulators and of exact values, integers of any size (out,)."""
        acc, value = self.bounds.acc, self.bounds.value
        magnitude = [np.maximum(-side.low.astype(object), side.high.astype(object)) for side in (acc, value)]
        return magnitude[0].max(axis=0), magnitude[1]

    def lost(self, mac: MacFormat) -> np.ndarray:
        """Channels of which a product or an aligned product may overflow, bool (out,)."""
        margins, nothing = self.margins, np.full(len(self.margins["post"]), 0)
        align = margins.get("align", nothing) - (self.widest.align - mac.align if "align" in margins else 0)
        return np.asarray((align < 0) | (margins.get("product", nothing) < 0))

    def held(self, mac: MacFormat) -> np.ndarray:
        """Channels whose constants the registers hold, bool (out,)."""
        if mac.acc not in self._held:
            layer, held = self.bounds.form.layer, self.bounds.form.held(mac)
            same = held.bias == layer.bias
            if layer.thresholds is not None and held.thresholds is not None:
                same &= (held.thresholds == layer.thresholds).all(axis=1)
            self._held[mac.acc] = same
        return self._held[mac.acc]

    def exact(self, mac: MacFormat) -> np.ndarray:
        """Channels whose codes are the fast form's, whatever the image is, bool (out,)."""
        key = replace(mac, overflow="saturate")
        if key not in self._exact:
            less = self.widest.acc - mac.acc
            fits = ~self.lost(mac) & (self.margins["acc"] >= less) & (self.margins["post"] >= less) & self.held(mac)
            self._exact[key] = fits & (np.zeros(len(fits), dtype=bool) if self.fast is None else self.fast.exact)
        return self._exact[key]

    def depends(self, mac: MacFormat, rows: np.ndarray) -> tuple[int | None, int | None, str]:
        """What some channels depend on of a format: the widths that may overflow, and how."""
        lost = self.lost(mac)[rows]
        acc, value = (each[rows] for each in self.reach)
        form = self.bounds.form
        if lost.any() and mac.overflow == "wrap":
            # What is wrapped is anything that the width holds.
            operands, shape = form.operands, form.layer.shape
            terms = shape.group_inputs * shape.kernel[0] * shape.kernel[1] << mac.align - 1
            places = [1 << DIGIT_BITS * (i + j) for i in range(2) for j in range(2)]
            wide = (operands.a_bits > DIGIT_BITS) + (operands.w_bits > DIGIT_BITS)
            worst = terms * sum(places[: 1 << wide])
        else:
            worst = 0
        acc = np.where(lost, np.maximum(acc, worst), acc)
        bits = form.corrected_bits(mac)
        value = value + np.where(lost, (acc + self.reach[0][rows]) << (bits - mac.acc), 0)
        inside = (acc < 1 << mac.acc - 1).all() and (value < 1 << bits - 1).all() and self.held(mac)[rows].all()
        return mac.align if lost.any() else None, None if inside else mac.acc, mac.overflow


class _Tensor:
    """Codes (N, C, H, W), by which it is known; nobody writes to them any more."""

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes
        self._hash: int | None = None

    def __hash__(self) -> int:
        # No cached property: its lock is one for all threads.
        if self._hash is None:
            self._hash = hash(self.codes.tobytes())
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Tensor) and np.array_equal(self.codes, other.codes))


_Found = tuple[_Tensor, Overflows | None]


@dataclass
class _Facts:
    """What is known of a node with one input: results by what they depend on, and where channels were clean."""

    inputs: list[_Tensor]
    """The key, which is kept as long."""
    results: dict[object, _Found] = field(default_factory=dict)
    clean: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What they take: a tensor that stands in several places is counted there each time."""
        tensors = [*self.inputs, *(tensor for tensor, _ in self.results.values())]
        return sum(tensor.codes.nbytes for tensor in tensors)

    def known(self, mac: MacFormat) -> np.ndarray | bool:
        """Channels that did not overflow at these widths or narrower ones."""
        masks = [mask for align, acc, mask in self.clean if align <= mac.align and acc <= mac.acc]
        return np.logical_or.reduce(masks) if masks else False


class _Unit:
    """Some images through all points, one after the other."""

    def __init__(self, datapath: Datapath, layers: Mapping[str, _Layer]) -> None:
        self.datapath = datapath
        self.layers = layers
        self.others = fast_nodes(datapath.network, datapath.array, datapath.mac, "auto")
        self.memory: OrderedDict[tuple[object, ...], _Facts] = OrderedDict()
        self.kept = 0
        self.runs = 0
        self.predictions: dict[MacFormat, np.ndarray] = {}
        self.overflows: dict[MacFormat, dict[str, Overflows]] = {}

    def through(self, formats: Sequence[MacFormat], codes: np.ndarray, step: Callable[[], None]) -> None:
        """Run the points; what was kept for them is given back."""
        source = _Tensor(codes)
        for mac in formats:
            self.predictions[mac], self.overflows[mac] = self._point(mac, source)
            step()
        self.memory.clear()

    def _point(self, mac: MacFormat, source: _Tensor) -> tuple[np.ndarray, dict[str, Overflows]]:
        network = self.datapath.network
        live, overflows = {network.manifest.input.name: source}, {}
        for node in network.manifest.nodes:
            inputs = [live[name] for name in node.inputs]
            facts, before = self._facts(node.name, inputs)
            if isinstance(node, Conv2dNode | LinearNode):
                live[node.name], overflows[node.name] = self._layer(self.layers[node.name], inputs[0], mac, facts)
            else:
                if None not in facts.results:
                    quick = self.others.get(node.name)
                    codes = plain_codes(network, node, [each.codes for each in inputs], quick)
                    facts.results[None] = _Tensor(codes), None
                live[node.name] = facts.results[None][0]
            self.kept += facts.bytes - before
        self._forget()
        codes = live[network.output].codes
        return codes.reshape(len(codes), -1).argmax(axis=1), overflows

    def _facts(self, name: str, inputs: list[_Tensor]) -> tuple[_Facts, int]:
        """What is known of a node with these inputs, and the bytes that are counted of it."""
        key = name, *inputs
        before = self.memory[key].bytes if key in self.memory else 0
        facts = self.memory.setdefault(key, _Facts(inputs))
        self.memory.move_to_end(key)
        return facts, before

    def _forget(self) -> None:
        """Let go of what was used longest ago."""
        while self.kept > KEPT_BYTES and self.memory:
            self.kept -= self.memory.popitem(last=False)[1].bytes

    def _layer(self, layer: _Layer, x: _Tensor, mac: MacFormat, facts: _Facts) -> tuple[_Tensor, Overflows]:
        exact = layer.exact(mac) | facts.known(mac)
        if layer.whole and not exact.all():
            exact = np.zeros_like(exact)
        rest = np.flatnonzero(~exact)
        if not rest.size:
            return self._widest(layer, x, facts)
        key = (rest.tobytes(), *layer.depends(mac, rest))
        if key not in facts.results:
            facts.results[key] = self._faithful(layer, x, mac, facts, rest)
        tensor, overflows = facts.results[key]
        assert overflows is not None
        return tensor, overflows

    def _faithful(self, layer: _Layer, x: _Tensor, mac: MacFormat, facts: _Facts, rest: np.ndarray) -> _Found:
        """The channels `rest` in the faithful form, the others at the widest format."""
        self.runs += 1
        some = len(rest) < len(layer.margins["post"])
        codes, overflows = replace(self.datapath, mac=mac).faithful(layer.node, x.codes, rest if some else None)
        clean = np.zeros(len(layer.margins["post"]), dtype=bool)
        lost = overflows.product + overflows.align + overflows.acc + overflows.post
        clean[rest] = (lost == 0) & layer.held(mac)[rest]
        if clean.any():
            facts.clean.append((mac.align, mac.acc, clean))
        if some:
            wide, wide_overflows = self._widest(layer, x, facts)
            all_codes, all_overflows = wide.codes.copy(), wide_overflows.copy()
            all_codes[:, rest] = codes
            all_overflows.put(rest, overflows)
            if np.array_equal(all_codes, wide.codes):
                return wide, all_overflows
            codes, overflows = all_codes, all_overflows
        return _Tensor(codes), overflows

    def _widest(self, layer: _Layer, x: _Tensor, facts: _Facts) -> tuple[_Tensor, Overflows]:
        """Codes of all channels at the widest format."""
        if None not in facts.results:
            codes, overflows = self.datapath.compute(layer.node, x.codes, layer.fast)
            facts.results[None] = _Tensor(codes), overflows
        tensor, counts = facts.results[None]
        assert counts is not None
        return tensor, counts
