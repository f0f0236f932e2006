"""Running images through a network: codes, predictions, overflows and cycles in one result."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np

from ..kernels.errors import CapacityError, FormatError
from ..kernels.nested import LayerBops, bops, relative_bops
from .activations import ActivationBits, activation_json, code_counts
from .arrays import array_form, default_engine
from .cycles import LayerCycles, network_cycles
from .engine import EngineConfig
from .execute import Datapath, Overflows, Trace
from .fast import FastLayer, Form, fast_form, fast_nodes
from .images import ImageSet, quantise_images
from .layer import MacLayer
from .lower import lower
from .lowered import LoweredLayer, digit_counts
from .mixed import MixedLayer, mixed_layers
from .network import Network
from .prune import layer_bops, removed_channels
from .schedule import Schedule, schedule
from .sort import SortedNetwork, sorted_by_width
from .views import View

__all__ = ["Before", "Compiled", "Form", "RunResult", "check_labels", "compiled_for", "run", "threads"]

SCHEMA = 1
PART_MACS = 1 << 27
"""Work that is worth a thread of its own."""
WORK_CODES = 1 << 26
"""Codes of the greatest tensor that a thread works on at a time: a bound of its memory."""
FREED_BYTES = 31 << 20
"""A little less than the largest block that counts for what the C library keeps."""
KEPT_ENGINES = 4
"""Engines whose schedule and cycles a network keeps."""


def threads() -> int:
    """Threads that images are spread over: the cores that this process may use."""
    return len(os.sched_getaffinity(0))


@cache
def keep_freed_memory() -> None:
    """Have tensors' memory kept by the process between layers, where its C library is GNU's.

    That gives large blocks back to the system, page by page, and takes them again for the next tensor: a tenth of the
    time of a small network. It keeps twice as much as the largest block that it has seen freed, of those up to 32 MiB.
    """
    np.empty(FREED_BYTES, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Before:
    """What a network took before constant channels were taken out; no cycles or bytes where it does not fit the engine.

    `channels` are those taken out, by layer.
    """

    channels: dict[str, int]
    bops: int
    cycles: int | None
    bytes_read: int | None

    def to_json(self) -> dict[str, Any]:
        """The object ``pruned`` of ``gatewise run --json``."""
        return {
            "channels": self.channels,
            "bops_before": self.bops,
            "cycles_before": self.cycles,
            "bytes_read_before": self.bytes_read,
        }


@dataclass(frozen=True)
class RunResult:
    """What a run found; arrays stand in the order of the images."""

    network: Network
    engine: EngineConfig
    plan: Schedule
    lowered: list[LoweredLayer]
    """The layers as the engine knows them."""
    codes: np.ndarray
    """The last layer's integer codes, int16 (N, outputs)."""
    labels: np.ndarray | None
    overflows: dict[str, Overflows]
    """By MAC layer, summed over all images, per output channel."""
    layers: list[LayerCycles]
    tensors: dict[str, np.ndarray]
    """Every tensor's codes (N, C, H, W) by name, where the run was traced."""
    whole: Network
    """The network before its constant channels were taken out: `network` itself, where none were."""
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    """How often the codes of every tensor that is no view occur, from the least one on, where the run counted them."""
    fast: dict[str, FastLayer] = field(default_factory=dict)
    """Layers that ran in a fast form, some of their channels at least."""

    @property
    def images(self) -> int:
        """Images run."""
        return len(self.codes)

    @property
    def predictions(self) -> np.ndarray:
        """The class of the greatest code; ties go to the lowest index."""
        return np.asarray(self.codes.argmax(axis=1))

    def top(self, count: int) -> float | None:
        """Share of images whose label is among the `count` greatest codes; none without labels."""
        if self.labels is None or self.codes.shape[1] < count:
            return None
        order = np.argsort(-self.codes.astype(np.int32), axis=1, kind="stable")[:, :count]
        return float((order == self.labels[:, None]).any(axis=1).mean())

    @property
    def cycles_per_image(self) -> int:
        """Cycles of one image, its load and store included."""
        return sum(layer.total for layer in self.layers)

    @property
    def images_per_second(self) -> float:
        """Images a second at the engine's assumed clock."""
        return self.engine.clock_mhz * 1e6 / self.cycles_per_image

    @property
    def utilisation(self) -> float:
        """Useful products over what the array could have done."""
        useful = sum(layer.products for layer in self.layers)
        return useful / (self.engine.products * self.cycles_per_image)

    @cached_property
    def layer_bops(self) -> dict[str, LayerBops]:
        """What the BOPs of each layer of the array come of, channels that were taken out included."""
        return layer_bops(self.whole, self.network)

    @property
    def bops(self) -> int:
        """Bit operations of an image by the formula of Bayesian Bits."""
        return int(bops(self.layer_bops.values()))

    @property
    def relative_bops(self) -> float:
        """The same as a share of those of the whole network in 32 x 32 bits."""
        return relative_bops(list(self.layer_bops.values()))

    @property
    def bytes_read(self) -> int:
        """Bytes that the engine reads over its bus for an image."""
        return sum(layer.bytes_read for layer in self.layers)

    @cached_property
    def before(self) -> "Before | None":
        """What the whole network would take, where channels were taken out of it."""
        if self.whole is self.network:
            return None
        found = layer_bops(self.whole).values()
        try:
            layers = network_cycles(lower(sorted_by_width(self.whole).network, self.engine), self.engine)
        except CapacityError:
            layers = None
        return Before(
            removed_channels(self.whole, self.network),
            int(bops(found)),
            None if layers is None else sum(layer.total for layer in layers),
            None if layers is None else sum(layer.bytes_read for layer in layers),
        )

    @property
    def clipped_constants(self) -> int:
        """Biases and thresholds that the datapath is too narrow to hold: the nearest ones were used."""
        return sum(self._clipped(layer) for layer in self.network.layers.values())

    def _clipped(self, layer: MacLayer) -> int:
        return array_form(layer, self.engine.array).clipped_constants(self.engine.mac)

    @cached_property
    def mixed(self) -> dict[str, MixedLayer]:
        """Cycles and bytes of the layers whose channels have different widths, beside those at one width."""
        return mixed_layers(self.network, self.lowered, self.engine)

    @property
    def activation_bits(self) -> list[ActivationBits]:
        """Entropy and Huffman bits of every tensor whose codes were counted."""
        return [ActivationBits.of(name, self.network.values[name], counts) for name, counts in self.counts.items()]

    def form(self, name: str) -> str:
        """The form that a MAC layer ran in, its `faithful_channels` apart."""
        return self.fast[name].conv.form if name in self.fast else "faithful"

    def faithful_channels(self, name: str) -> int:
        """Output channels of a MAC layer that ran in the faithful form: those that no proof holds of."""
        if name in self.fast:
            return int((~self.fast[name].exact).sum())
        return self.network.layers[name].shape.out_channels

    def overflow(self, kind: Literal["product", "align", "acc", "post"]) -> int:
        """Overflows of a kind in all layers and images."""
        return sum(int(getattr(counts, kind).sum()) for counts in self.overflows.values())

    def to_json(self) -> dict[str, Any]:
        """The documented JSON object of ``gatewise run --json``."""
        return {
            "schema": SCHEMA,
            "network": self.network.name,
            "scheme": self.network.scheme,
            "images": self.images,
            "top1": self.top(1),
            "top5": self.top(5),
            "cycles_per_image": self.cycles_per_image,
            "images_per_second": self.images_per_second,
            "utilisation": self.utilisation,
            "bops": self.bops,
            "relative_bops": self.relative_bops,
            "bytes_read": self.bytes_read,
            "pruned": None if self.before is None else self.before.to_json(),
            "engine": self.engine.to_json(),
            "layers": [self._layer_json(layer) for layer in self.layers],
            **({"activations": activation_json(self.activation_bits)} if self.counts else {}),
        }

    def _layer_json(self, layer: LayerCycles) -> dict[str, Any]:
        on_array = layer.op not in ("load", "store") and layer.name in self.overflows
        content: dict[str, Any] = {
            "name": layer.name,
            "op": layer.op,
            "macs": layer.macs,
            "cycles": layer.total,
            "compute": layer.compute,
            "weight_stall": layer.weight_stall,
            "post_stall": layer.post_stall,
            "drain": layer.drain,
            "fill": layer.fill,
            "host": layer.host,
            "utilisation": layer.utilisation(self.engine),
            "bound_by": layer.bound_by,
            "bytes_read": layer.bytes_read,
            "weight_bits": layer.weight_bits,
            "lanes": layer.lanes,
            "idle_lanes": layer.idle_lanes,
        }
        if layer.name in self.mixed and on_array:
            content["mixed"] = self.mixed[layer.name].to_json()
        for kind in ("product", "align", "acc", "post"):
            content[f"overflow_{kind}"] = int(getattr(self.overflows[layer.name], kind).sum()) if on_array else 0
        mac = self.network.layers.get(layer.name) if on_array else None
        content["bops"] = int(bops([self.layer_bops[layer.name]])) if on_array else 0
        content["clipped_constants"] = 0 if mac is None else self._clipped(mac)
        content["form"] = self.form(layer.name) if on_array else None
        content["faithful_channels"] = self.faithful_channels(layer.name) if on_array else 0
        return content


def run(
    network: Network,
    images: ImageSet | np.ndarray,
    engine: EngineConfig | None = None,
    *,
    trace: bool = False,
    batch: int = 64,
    form: Form = "auto",
    progress: Callable[[int], None] | None = None,
    count_codes: bool = False,
    whole: Network | None = None,
) -> RunResult:
    """Run images through the network on an engine, bit for bit, and count its cycles.

    Parameters
    ----------
    images : an `ImageSet`, or uint8 pixels (N, C, H, W)
    engine : where not given, the default 16 x 16 x 256 engine with an array that runs the network
    trace : keep every tensor's codes (memory grows with the number of images)
    batch : images in memory at a time
    form : "faithful", "portable", "popcount" or "vnni" (`gatewise.kernels.direct`), or "auto", the fastest there is;
        a fast form takes those output channels in which it is proved exact, and results never depend on it
    progress : called with the number of images done since the last call
    count_codes : count every tensor's codes: what `RunResult.activation_bits` needs
    whole : the network that `network` is without some channels (`without_pruned`), for the figures before and after
    """
    fast_form(form)
    keep_freed_memory()
    if batch < 1:
        raise FormatError(f"batch must be 1 or more images, not {batch}")
    engine = engine or default_engine(network)
    images = images if isinstance(images, ImageSet) else ImageSet(images)
    check_labels(images.labels, network)
    compiled = compiled_for(network, engine)
    arranged, plan = compiled.arranged, compiled.plan
    fast = fast_nodes(arranged.network, engine.array, engine.mac, form)

    def work(part: ImageSet) -> Trace:
        codes = quantise_images(part, network.manifest.input)
        return compiled.datapath.execute(codes, keep=trace or count_codes, fast=fast)

    results: list[np.ndarray] = []
    kept: dict[str, list[np.ndarray]] = {}
    views = {node.name for node in network.manifest.nodes if isinstance(node, View)}
    occurrences: dict[str, np.ndarray] = {}
    overflows: dict[str, Overflows] = {}
    workers = threads()
    largest = max(value.elements for value in network.values.values())
    with ThreadPoolExecutor(workers) as pool:
        for group in images.batches(batch):
            # What is soon done is done by one thread: two would wait for each other's Python.
            spread = min(workers, max(1, len(group) * compiled.macs // PART_MACS))
            size = min(-(-len(group) // spread), max(1, WORK_CODES // largest))
            parts = list(group.batches(size))
            # One part needs no other thread than this.
            for found in map(work, parts) if len(parts) == 1 else pool.map(work, parts):
                results.append(found.result.reshape(len(found.result), -1))
                for name, tensor in found.tensors.items():
                    if trace:
                        kept.setdefault(name, []).append(tensor)
                    if count_codes and name not in views:
                        occurrences[name] = occurrences.get(name, 0) + code_counts(tensor, network.values[name])
                for name, counts in found.overflows.items():
                    if name in overflows:
                        overflows[name] += counts
                    else:
                        overflows[name] = counts
            if progress is not None:
                progress(len(group))
    return RunResult(
        network,
        engine,
        plan,
        list(compiled.lowered),
        np.concatenate(results),
        images.labels,
        {name: Overflows(arranged.own(name, counts.counts, axis=1)) for name, counts in overflows.items()},
        list(compiled.cycles),
        {name: arranged.own(name, np.concatenate(parts), axis=1) for name, parts in kept.items()},
        whole or network,
        occurrences,
        {name: node for name, node in fast.items() if isinstance(node, FastLayer)},
    )


@dataclass(frozen=True, slots=True)
class Compiled:
    """What follows from a network and an engine alone, whatever the images are."""

    arranged: SortedNetwork
    plan: Schedule
    lowered: tuple[LoweredLayer, ...]
    datapath: Datapath
    cycles: tuple[LayerCycles, ...]
    macs: int
    """Of an image."""


def compiled_for(network: Network, engine: EngineConfig) -> Compiled:
    """The network on an engine: made once, and kept with the network for the last few engines that it ran on."""
    kept = network.compiled
    if engine not in kept:
        arranged = sorted_by_width(network)
        plan = schedule(arranged.network, engine)
        lowered = lower(arranged.network, engine, plan)
        fewer = [layer for layer in lowered if layer.registers.get("wide_end") or layer.registers.get("rest_from")]
        digits = {layer.name: digit_counts(layer, engine) for layer in fewer}
        while len(kept) >= KEPT_ENGINES:
            kept.pop(next(iter(kept)), None)
        datapath = Datapath(
            arranged.network, engine.mac, engine.lanes, plan.unfolded, plan.maps, plan.first_channels, engine.array,
            digits,
        )  # fmt: skip
        macs = sum(network.macs(node) for node in network.mac_nodes())
        cycles = tuple(network_cycles(lowered, engine))
        kept[engine] = Compiled(arranged, plan, tuple(lowered), datapath, cycles, macs)
    found: Compiled = kept[engine]
    return found


def check_labels(labels: np.ndarray | None, network: Network) -> None:
    """Labels of other classes than the network's would only lower its accuracy."""
    classes = network.values[network.output].elements
    if labels is not None and (labels.min() < 0 or labels.max() >= classes):
        raise FormatError(f"labels must lie in 0..{classes - 1}, found {labels.min()}..{labels.max()}")
