"""The cycle model: closed forms of the engine's schedule, one function per rule.

``docs/microarchitecture.md`` states the rules with timing diagrams. Cycles depend on shapes,
widths and the engine alone, never on values.
"""

from dataclasses import dataclass
from typing import Literal

from ..kernels.digits import digit_count
from ..kernels.mac import DIGIT_BITS
from .engine import EngineConfig
from .graph import Value, pool_shape
from .image import RecordLayout, TileLayout
from .layer import MacLayer
from .manifest import AveragePoolNode, GlobalAveragePoolNode, MaxPoolNode
from .network import Network
from .schedule import EngineLayer, Schedule, input_value

__all__ = ["LayerCycles", "network_cycles"]

DESCRIPTOR_BITS = 512
"""A layer descriptor: shapes, strides, regions, modes."""
ARRAY_STAGES = 4
"""Activation read, product, alignment, accumulation; the adder tree adds one stage per two levels."""
POST_STAGES = 6
"""Accumulator read, zero-point term, multiply, round and clamp, residual add, write."""
MIN_PIXELS = 4
"""Least cycles of a digit pass: the shadow tile swaps in once per that many cycles at most."""

Bound = Literal["compute", "weights", "post", "drain", "fill", "host"]


@dataclass(frozen=True, slots=True)
class LayerCycles:
    """Cycles of one engine layer; the six parts add up to `total`."""

    name: str
    op: str
    macs: int = 0
    digit_macs: int = 0
    compute: int = 0
    weight_stall: int = 0
    post_stall: int = 0
    drain: int = 0
    fill: int = 0
    host: int = 0
    bytes_read: int = 0
    weight_bits: int = 0

    @property
    def total(self) -> int:
        """The layer's cycles."""
        return self.compute + self.weight_stall + self.post_stall + self.drain + self.fill + self.host

    @property
    def bound_by(self) -> Bound:
        """The greatest part."""
        parts: dict[Bound, int] = {
            "compute": self.compute,
            "weights": self.weight_stall,
            "post": self.post_stall,
            "drain": self.drain,
            "fill": self.fill,
            "host": self.host,
        }
        return max(parts, key=lambda part: parts[part])

    def utilisation(self, engine: EngineConfig) -> float:
        """Useful digit MACs over what the array could have done in the layer's cycles."""
        return self.digit_macs / (engine.rows * engine.lanes * self.total) if self.total else 0.0


def network_cycles(network: Network, plan: Schedule, engine: EngineConfig) -> list[LayerCycles]:
    """Cycles per image: the input's load, every engine layer, the result's store."""
    source = input_value(network, plan.unfolded)
    layers = [_transfer(network.manifest.input.name, "load", source, engine)]
    for layer in plan.layers:
        mac = network.layers.get(layer.name)
        if mac is not None:
            image = source if layer.name == plan.unfolded else network.values[layer.lead.inputs[0]]
            if layer.name == plan.unfolded:
                mac = mac.unfold()
            elif layer.name in plan.maps:
                mac = mac.over_map(plan.maps[layer.name])
                image = Value((mac.shape.in_channels, *mac.shape.kernel), image.codes)
            layers.append(_mac(layer, mac, image, engine, serial=layer.name in plan.serial))
        else:
            layers.append(_post_only(network, layer, engine))
    layers.append(_transfer(network.output, "store", network.values[network.output], engine))
    return layers


def _words(bits: int, engine: EngineConfig) -> int:
    return -(-bits // engine.bus_bits)


def _transfer(name: str, op: str, value: Value, engine: EngineConfig) -> LayerCycles:
    """The host moves a tensor in words of L digits; the bus answers after its latency."""
    channels, height, width = value.shape
    digits = height * width * -(-channels // engine.lanes) * engine.lanes * digit_count(value.codes.bits)
    return LayerCycles(name, op, host=engine.bus_latency + _words(digits * DIGIT_BITS, engine))


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """One pass over all pixels of the output channels that run in parallel."""

    rows: int
    tile_words: int
    parameter_words: int


def _mac(layer: EngineLayer, mac: MacLayer, source: Value, engine: EngineConfig, serial: bool) -> LayerCycles:
    shape = mac.shape
    height, width = shape.output_size(*source.shape[1:])
    pixels = height * width
    pairs = mac.operands.digit_pairs
    groups, steps = _row_groups(mac, RecordLayout.of(layer.nodes), engine)
    tiles = [engine.pixels] * (pixels // engine.pixels) + ([rest] if (rest := pixels % engine.pixels) else [])
    array_stages = ARRAY_STAGES + engine.lanes.bit_length() // 2

    # Fill: the descriptor, then the first row group's parameters and first weight tile, then the pipeline.
    first = groups[0].parameter_words + groups[0].tile_words
    # The first step's read overlaps the last word of its tile.
    fill = 2 * engine.bus_latency + _words(DESCRIPTOR_BITS, engine) + first - 1 + array_stages
    read = _words(DESCRIPTOR_BITS, engine)

    now = weight_stall = post_stall = compute = 0
    # Times below are those at which the array reads; its pipeline moves all that follows by `array_stages`.
    drained = 0  # when the drain of the last tile ends
    free = [0, 0]  # when the halves of the last tile and of the one before it are free again
    order = [(group, tile) for group in range(len(groups)) for tile in range(len(tiles))]
    for position, (g, t) in enumerate(order):
        group, n = groups[g], tiles[t]
        following = 0
        if position + 1 < len(order):
            upcoming = groups[order[position + 1][0]]
            following = upcoming.tile_words + (upcoming.parameter_words if order[position + 1][0] != g else 0)
        busy = pairs * n
        passes = pairs * max(n, MIN_PIXELS)
        last = (steps - 1) * max(passes, group.tile_words)
        # The tile's half of the accumulators must be empty: the drain of the tile before the last has
        # ended; in a serial layer every drain has, because it reads the bank that the array reads.
        wait = max(0, free[0 if serial else 1] - now)
        done = now + wait + last + passes
        end = now + wait + last + max(passes, following)
        drained = max(done, drained) + n * -(-group.rows // engine.post_lanes)
        compute += steps * busy
        weight_stall += end - now - wait - steps * busy
        post_stall += wait
        read += steps * group.tile_words + (group.parameter_words if t == 0 else 0)
        now, free = end, [max(drained, done + array_stages), free[0]]
    macs = shape.macs(*source.shape[1:])
    return LayerCycles(
        layer.name,
        layer.op,
        macs=macs,
        digit_macs=macs * pairs,
        compute=compute,
        weight_stall=weight_stall,
        post_stall=post_stall,
        drain=drained - now + POST_STAGES,
        fill=fill,
        bytes_read=read * engine.bus_bits // 8,
        weight_bits=mac.node.weights.bits,
    )


def _row_groups(mac: MacLayer, record: RecordLayout, engine: EngineConfig) -> tuple[list[_RowGroup], int]:
    """The row groups of a layer in order, and the steps of each tile."""
    shape = mac.shape
    taps = shape.kernel[0] * shape.kernel[1]
    depthwise = shape.group_inputs == 1 and shape.group_outputs == 1

    def split(channels: int, rows: int) -> list[_RowGroup]:
        sizes = [rows] * (channels // rows) + ([channels % rows] if channels % rows else [])
        tiles = [
            TileLayout(size, engine.lanes, mac.node.weights.bits, mac.node.align is not None, depthwise)
            for size in sizes
        ]
        bus = engine.bus_bits
        return [_RowGroup(tile.rows, tile.words(bus), record.words(tile.rows, bus)) for tile in tiles]

    if depthwise:
        return split(shape.out_channels, min(engine.rows, engine.lanes)), taps
    groups = split(shape.group_outputs, engine.rows) * shape.groups
    return groups, taps * -(-shape.group_inputs // engine.lanes)


def _post_only(network: Network, layer: EngineLayer, engine: EngineConfig) -> LayerCycles:
    """Q channels of one input pixel a cycle through the post lanes: pooling, adds and copies on their own."""
    node = layer.lead
    channels, height, width = network.values[node.name].shape
    window = 1
    if isinstance(node, MaxPoolNode | AveragePoolNode | GlobalAveragePoolNode):
        kernel = pool_shape(node, network.values[node.inputs[0]]).kernel
        window = kernel[0] * kernel[1]
    compute = height * width * window * -(-channels // engine.post_lanes)
    words = _words(DESCRIPTOR_BITS, engine) + RecordLayout.of(layer.nodes).words(channels, engine.bus_bits)
    return LayerCycles(
        layer.name,
        layer.op,
        compute=compute,
        drain=POST_STAGES,
        fill=engine.bus_latency + words,
        bytes_read=words * engine.bus_bits // 8,
    )
