"""From a schedule to registers: what each layer's descriptor says.

The compiler writes these registers into the memory image, the cycle model counts from them, and the
hardware runs by them: nothing else of a layer is known to any of the three, its streams apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np

from ..kernels.addressing import stream_weights
from ..kernels.errors import CapacityError, UnsupportedError
from ..kernels.planes import TABLE_PLANES, PlaneTable
from ..kernels.pool import PoolShape
from ..kernels.requant import Rounding
from .arrays import array_form
from .coded import HuffmanStreams
from .descriptor import Operation, half_address_bits
from .engine import EngineConfig
from .engines import Engines
from .geometry import layer_values, window_values
from .graph import plane_bytes, pool_shape
from .image import RecordLayout
from .layer import MacLayer
from .lowered import LoweredLayer, RowGroup, row_groups, timing_values, width_values
from .manifest import (
    AddNode,
    AveragePoolNode,
    Codes,
    GlobalAveragePoolNode,
    MaxPoolNode,
    RequantiseNode,
    ScaleRequant,
    XorWeights,
)
from .memory import Placement
from .network import Network
from .schedule import EngineLayer, Schedule, schedule
from .tile_times import with_taper
from .views import Stored
from .words import pixel_words, word_parts
from .xor_coded import XorSigns, XorStreams

__all__ = ["check_planes", "lower", "lower_without_taper"]

MAX_WINDOW = (1 << 16) - 1
"""Pixels of a pooling window: the sum of so many 16-bit codes has 32 bits."""
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


def lower(network: Network, engine: EngineConfig, plan: Schedule | None = None) -> list[LoweredLayer]:
    """The layers of a network on an engine, from the input's load to the result's store, without streams."""
    return [with_taper(layer, engine) for layer in lower_without_taper(network, engine, plan)]


def lower_without_taper(network: Network, engine: EngineConfig, plan: Schedule | None = None) -> Iterator[LoweredLayer]:
    """The same layers, but that none of them tapers."""
    return _Lowerer(network, engine, plan or schedule(network, engine)).layers()


def check_planes(name: str, planes: int, pixels: int) -> None:
    """Raise `CapacityError` where a pixel needs more accumulators than a row has."""
    if planes > pixels:
        raise CapacityError(f"{name}: pairs of planes must be at most pixels = {pixels}, not {planes}")


class _Lowerer:
    def __init__(self, network: Network, engine: EngineConfig, plan: Schedule) -> None:
        self.network, self.engine, self.plan = network, engine, plan
        self.space = 1 << half_address_bits(engine)

    def layers(self) -> Iterator[LoweredLayer]:
        source = self.network.manifest.input.name
        yield self._transfer(source, "load")
        for layer in self.plan.layers:
            if layer.array_input is not None:
                yield self._mac(layer)
            elif isinstance(layer.lead, MaxPoolNode | AveragePoolNode | GlobalAveragePoolNode):
                yield self._pool(layer)
            else:
                yield self._stream(layer)
        yield self._transfer(self.network.output, "store")

    def _transfer(self, name: str, op: Operation) -> LoweredLayer:
        root = self.plan.tensors[name].root
        value, placement = self.plan.roots[root], self._placement(root)
        prefix = "out" if op == "load" else "first"
        registers = {
            "out_pixels": value.shape[1] * value.shape[2],
            "pixel_step" if op == "store" else "out_pixel_step": self._pixel_words(root),
            f"{prefix}_planes": len(placement.planes),
            **{f"{prefix}_plane_{plane}": start for plane, start in enumerate(placement.planes)},
        }
        return LoweredLayer(name, op, op, registers)

    def _mac(self, layer: EngineLayer) -> LoweredLayer:
        mac = self.network.layers[layer.name]
        source = layer.array_input
        assert source is not None
        stored = self.plan.tensors[source]
        mac = self._arranged(mac)
        shape, node, engine = mac.shape, mac.node, self.engine
        if shape.depthwise and stored.channel % min(engine.rows, engine.lanes):
            raise UnsupportedError(
                f"{node.name}: a depthwise layer's input must begin at a multiple of {min(engine.rows, engine.lanes)} "
                f"channels of what it is a part of, not at {stored.channel}"
            )
        placement = self._placement(stored.root)
        form = array_form(mac, engine.array)
        check_planes(node.name, form.planes, engine.pixels)
        registers = layer_values(
            engine,
            shape,
            mac.operands,
            stored.shape[1:],
            base=placement.planes[0],
            channel=stored.channel,
            words=self._pixel_words(stored.root),
            view=stored.stride,
            row=self.plan.roots[stored.root].shape[2],
            plane_stride=placement.planes[min(1, len(placement.planes) - 1)] - placement.planes[0],
            pair_stride=placement.planes[2] - placement.planes[0] if len(placement.planes) > 2 else 0,
            pad_code=self.network.values[source].codes.zero_point,
            alignment=node.align,
            code_bits=form.bits,
            serial=layer.name in self.plan.serial,
        )
        registers |= {"fraction": form.fraction, **form.registers}
        registers |= width_values(engine, registers, mac.lane_widths, form.row_widths)
        if isinstance(node.requant, ScaleRequant):
            registers |= _scaled("main", node.requant, node.out)
        else:
            registers |= {"thresholds": node.thresholds, "main_zero": node.out.range[0]}
            registers |= _tabled("out", node.plane_table)
        registers |= self._post(layer, node.out)
        lowered = self._finished(layer, "mac", registers, mac, 0 if form.coefficients is None else form.planes)
        coded: HuffmanStreams | XorStreams
        groups = list(row_groups(lowered.registers, engine))
        match engine.decoder:
            case "huffman":
                coded = HuffmanStreams(form, groups, engine)
            case "xor":
                coded = XorStreams(form, groups, engine, self._signs(layer.name))
            case _:
                return lowered
        words = {"table_words": coded.table_words, "weight_words": coded.weight_words}
        return replace(lowered, coded=coded, registers={**lowered.registers, **words})

    def _arranged(self, mac: MacLayer) -> MacLayer:
        """The layer over its input as it lies in memory."""
        name = mac.node.name
        if name == self.plan.unfolded:
            return mac.unfold()
        return mac.over_map(self.plan.maps[name]) if name in self.plan.maps else mac

    def _signs(self, name: str) -> XorSigns | None:
        """What a layer has encrypted."""
        mac, networks = self.network.layers[name], self.network.manifest.xor_networks
        spec, shape = mac.node.weights, mac.shape.weight_shape
        if not isinstance(spec, XorWeights):
            return None
        count = int(np.prod(shape))
        chosen = tuple(networks[plane].network for plane in spec.planes)
        starts = np.cumsum(plane_bytes(spec, count, networks))[:-1]
        parts = np.split(self.network.arrays[f"{name}.weight"], starts)
        slices = tuple(
            np.unpackbits(part, count=network.slices(count) * network.n_in, bitorder="little").reshape(-1, network.n_in)
            for part, network in zip(parts, chosen, strict=True)
        )
        tile = spec.tile.order if spec.tile else None
        places = stream_weights(np.arange(count), shape, mac.shape.groups, tile)
        return XorSigns(chosen, slices, self._arranged(replace(mac, codes=places)).codes)

    def _pool(self, layer: EngineLayer) -> LoweredLayer:
        node = layer.lead
        assert isinstance(node, MaxPoolNode | AveragePoolNode | GlobalAveragePoolNode)
        stored = self.plan.tensors[node.inputs[0]]
        shape = pool_shape(node, self.network.values[node.inputs[0]])
        if shape.kernel[0] * shape.kernel[1] > MAX_WINDOW:
            raise UnsupportedError(
                f"{node.name}: a pooling window must have at most {MAX_WINDOW} pixels, "
                f"not {shape.kernel[0]} x {shape.kernel[1]}"
            )
        registers = self._window(stored, shape)
        registers |= self._operand("first", node.inputs[0]) | self._blocks(node.name)
        registers |= self._written("out", node.name)
        op: Operation = "max_pool" if isinstance(node, MaxPoolNode) else "average_pool"
        return self._finished(layer, op, registers)

    def _stream(self, layer: EngineLayer) -> LoweredLayer:
        node = layer.lead
        operands = layer.post_inputs
        stored = self.plan.copies.get(node.name, {}).get(layer.part, self.plan.tensors[operands[0]])
        registers = self._window(stored, PoolShape((1, 1), (1, 1)))
        registers |= self._operand("first", operands[0], stored)
        source = self.network.values[operands[0]].codes
        match node:
            case AddNode():
                registers |= self._blocks(node.name) | self._add(node, source, operands[1], stored.shape[1:])
                registers |= self._written("out", node.name)
            case RequantiseNode():
                registers |= self._blocks(node.name) | self._copy(node, source) | self._written("second", node.name)
            case _:  # a view that addressing cannot make
                part = self.plan.tensors[node.name]
                before = sum(self.network.values[name].shape[0] for name in node.inputs[: layer.part])
                part = replace(part, channel=part.channel + before, shape=stored.shape)
                registers |= self._blocks(node.name, part) | self._written("out", node.name, part)
        return self._finished(layer, "stream", registers)

    def _post(self, layer: EngineLayer, made: Codes) -> dict[str, int]:
        """What the post lanes do with the codes that the main requantiser made: add, copy, write."""
        registers: dict[str, int] = {}
        final = layer.lead.name
        height, width = self.network.values[final].shape[1:]
        for node in layer.fused:
            if isinstance(node, AddNode):
                (other,) = layer.post_inputs
                registers |= self._add(node, made, other, (height, width))
                made, final = node.out, node.name
            else:
                assert isinstance(node, RequantiseNode)
                registers |= self._copy(node, made) | self._written("second", node.name)
        if final in self.plan.kept:
            registers |= self._written("out", final)
        return registers

    def _add(self, node: AddNode, own: Codes, other: str, size: tuple[int, int]) -> dict[str, int]:
        stored = self.plan.tensors[other]
        words, row = self._post_words(stored.root), self.plan.roots[stored.root].shape[2]
        step_y, step_x = stored.stride
        return {
            "adds": 1,
            "own_zero": own.zero_point,
            "operand_rounding": ROUNDINGS.index(node.requant.rounding),
            **_scaled("sum", node.requant, node.out),
            **self._operand("other", other),
            "other_pixel_step": step_x * words % self.space,
            "other_row_step": (step_y * row - (size[1] - 1) * step_x) * words % self.space,
        }

    def _copy(self, node: RequantiseNode, source: Codes) -> dict[str, int]:
        scaled = _scaled("copy", node.requant, node.scaled)
        return {"copies": 1, "copy_from": source.zero_point, **scaled, **_tabled("second", node.plane_table)}

    def _blocks(self, name: str, part: Stored | None = None) -> dict[str, int]:
        """Output channels of a layer that runs on the post lanes alone."""
        channels = (part or self.plan.tensors[name]).shape[0]
        return {"groups": 1, "group_outputs": channels}

    def _operand(self, prefix: str, name: str, view: Stored | None = None) -> dict[str, int]:
        stored, codes = view or self.plan.tensors[name], self.network.values[name].codes
        return {
            **self._placed(prefix, stored),
            f"{prefix}_first": stored.first,
            f"{prefix}_end": stored.end,
            f"{prefix}_signed": int(codes.signed),
            f"{prefix}_zero": codes.zero_point,
        }

    def _written(self, prefix: str, name: str, part: Stored | None = None) -> dict[str, int]:
        stored = part or self.plan.tensors[name]
        return {**self._placed(prefix, stored), f"{prefix}_pixel_step": self._post_words(stored.root)}

    def _placed(self, prefix: str, stored: Stored) -> dict[str, int]:
        placement, parts = self._placement(stored.root), self._word_parts(stored.root)
        return {
            f"{prefix}_planes": len(placement.planes),
            **{f"{prefix}_plane_{plane}": parts * start for plane, start in enumerate(placement.planes)},
            f"{prefix}_channel": stored.channel,
            **({f"{prefix}_narrow": 1} if parts > 1 else {}),
        }

    def _placement(self, root: str) -> Placement:
        return self.plan.memory.tensors[root]

    def _pixel_words(self, root: str) -> int:
        """Words of the memory from one pixel to the next."""
        value = self.plan.roots[root]
        return pixel_words(self.engine, value.shape[0], value.codes.bits)

    def _word_parts(self, root: str) -> int:
        return word_parts(self.engine, self.plan.roots[root].codes.bits)

    def _post_words(self, root: str) -> int:
        """What the post lanes count from one pixel to the next: words, or half-words."""
        return self._pixel_words(root) * self._word_parts(root)

    def _window(self, stored: Stored, shape: PoolShape) -> dict[str, int]:
        """The geometry of a window of the post lanes over a tensor."""
        size = stored.shape[1:]
        return window_values(
            self.engine,
            shape.kernel,
            shape.stride,
            shape.padding[:2],
            (1, 1),
            size,
            shape.output_size(*size),
            words=self._post_words(stored.root),
            view=stored.stride,
            row=self.plan.roots[stored.root].shape[2],
        )

    def _finished(
        self,
        layer: EngineLayer,
        op: Operation,
        registers: dict[str, int],
        mac: MacLayer | None = None,
        coefficients: int = 0,
    ) -> LoweredLayer:
        """With what follows from all the rest: words that straddle, and the cycles of a slot."""
        registers = {"in_lane": 0, "depthwise": 0, "group_inputs": 0, **registers}
        groups = list(row_groups(registers, self.engine))
        for prefix in ("out", "second", "first", "other"):
            if f"{prefix}_channel" in registers:
                registers[f"{prefix}_straddles"] = int(self._straddles(registers[f"{prefix}_channel"], groups))
        planes = max(1, coefficients)
        timing = timing_values(op, registers, planes, Engines.of(self.engine))
        registers |= {name: int(value) for name, value in timing.items()}
        record = RecordLayout.of(layer.nodes, coefficients)
        return LoweredLayer(layer.name, layer.op, op, registers, layer, mac, record, planes)

    def _straddles(self, channel: int, groups: list[RowGroup]) -> bool:
        """Whether a span of a row group lies in two words of a tensor that holds output channel 0 at `channel`."""
        slots = self.engine.word_digits
        span = min(self.engine.rows, self.engine.lanes)
        return any(
            (channel + group.first + at) % slots + min(span, group.rows - at) > slots
            for group in groups
            for at in range(0, group.rows, span)
        )


def _tabled(tensor: str, table: PlaneTable | None) -> dict[str, int]:
    """A tensor whose codes are counts until the layer's table makes words of planes of them."""
    if table is None:
        return {}
    words = sum(word << TABLE_PLANES * count for count, word in enumerate(table.entries))
    return {"table": words, f"{tensor}_table": 1}


def _scaled(prefix: str, requant: ScaleRequant, out: Codes) -> dict[str, int]:
    return {
        f"{prefix}_rounding": ROUNDINGS.index(requant.rounding),
        f"{prefix}_zero": out.zero_point,
        f"{prefix}_low": requant.low,
        f"{prefix}_high": requant.high,
    }
