"""What of a descriptor is checked before its layer runs."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from enum import IntEnum

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...sim.descriptor import DECODER_FIELDS, MAGIC, OPERATIONS, PLANES, SIZE_BITS, Operation
from ...sim.engine import EngineConfig
from ..mac import settled
from .post.pool import Pool
from .registers import descriptor_layout

__all__ = ["ErrorCode", "LayerCheck"]

THRESHOLD_COUNTS = (0, 1, 3, 7, 15)
"""No thresholds, or those of codes of 1 to 4 bits."""


class ErrorCode(IntEnum):
    """Why the engine stopped."""

    NONE = 0
    MAGIC = 1
    CHECK = 2
    OPERATION = 3
    SIZE = 4
    BANK_CONFLICT = 5
    STREAM = 6


class LayerCheck(wiring.Component):  # type: ignore[misc]
    """Whether a layer's registers are such that no unit waits for ever, or reads what is nowhere; latency 0.

    `bad_magic`, `bad_operation`, and `bad_size` unless all of this holds (`end` has no sizes):

    - `out_pixels` is not 0;
    - `load`: `out_planes` is 1 to 4, `out_pixel_step` not 0; `store`: `first_planes` is 1 to 4, `pixel_step` not 0;
    - the others: `groups`, `group_outputs`, `kernel_y`, `kernel_x` and `interval` are not 0; `out_planes`,
      `second_planes`, `first_planes` and `other_planes` are at most 4, the first two not both 0; `interval` is at
      least the writes of a slot, its reads, its `beats` (not pools; for each plane) and the cycles of a
      division (averages);
    - `mac`: `group_inputs` is not 0 (nor `table_words`, `weight_words` with a decoder), `tile_pixels` is 1 to P
      (of all planes together), `thresholds` is 0, 1, 3, 7 or 15 (in a sign array any number), `first_planes` is 0;
      in a fused array `mode` is 0, or has the input's width (`narrow` or not) and the layer is neither `depthwise` nor
      `aligned`; in a sign array there are as many planes as parts, or as pairs of a part and a plane of activations;
    - `mac` and `stream`: `beats` is 1 to max(1, R / Q);
    - `stream`: `first_planes` is not 0, the kernel is 1 x 1, there is one group, not depthwise;
    - pools: `out_planes` and `first_planes` are not 0; `second_planes`, `other_planes`, `adds` and `copies`
      are; there is one group, not depthwise.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "bad_magic": Out(1),
                "bad_operation": Out(1),
                "bad_size": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer

        def good(name: str, *conditions: Value) -> Signal:
            signal = Signal(name=name)
            value = conditions[0]
            for condition in conditions[1:]:
                value = value & condition
            m.d.comb += signal.eq(value)
            return signal

        def some(*names: str) -> list[Value]:
            return [layer[name] != 0 for name in names]

        def none(*names: str) -> list[Value]:
            return [layer[name] == 0 for name in names]

        def words(tensor: str) -> Value:
            return layer[f"{tensor}_planes"] << layer[f"{tensor}_straddles"]

        # Planes of a sign array have a beat each, and accumulators of their own.
        planes, thresholds, paired = Const(1), layer.thresholds.matches(*THRESHOLD_COUNTS), Const(1)
        if config.array == "sign":
            planes, thresholds = settled(m, layer.plane_top + 1), Const(1)
            paired = planes == (layer.part_top + 1) * Mux(layer.a_planes, layer.a_top + 1, 1)
        # Of a slot. Only here are sizes multiplied: too short an interval would end no slot.
        taps, reads = Signal(2 * SIZE_BITS), Signal(2 * SIZE_BITS + 5)
        average = layer.op == OPERATIONS.index("average_pool")
        pool = average | (layer.op == OPERATIONS.index("max_pool"))
        m.d.comb += [
            taps.eq(Mux(pool, layer.kernel_y * layer.kernel_x, 1)),
            reads.eq(taps * words("first") + words("other")),
        ]
        posted = good(
            "posted",
            *some("groups", "group_outputs", "kernel_y", "kernel_x", "interval"),
            *(layer[f"{name}_planes"] <= PLANES for name in ("out", "second", "first", "other")),
            (layer.out_planes != 0) | (layer.second_planes != 0),
            layer.interval >= words("out") + words("second"),
            layer.interval >= reads,
            layer.interval >= Mux(average, Pool.divider_cycles, 1),
        )
        beaten = good(
            "beaten",
            layer.beats != 0,
            layer.beats <= max(1, config.rows // config.post_lanes),
            layer.interval >= layer.beats * planes,
        )
        shared = []
        if config.array == "fusion":
            # Lanes share a PE only where the words have them, and nothing is a lane's own.
            fits = (layer.mode[0] == layer.narrow) & ~layer.depthwise & ~layer.aligned
            shared.append((layer.mode == 0) | fits)
        blocks = good("blocks", *some("first_planes"), layer.groups == 1, ~layer.depthwise)
        sizes: dict[Operation, Value] = {
            "load": good("load", *some("out_planes", "out_pixel_step"), layer.out_planes <= PLANES),
            "store": good("store", *some("first_planes", "pixel_step"), layer.first_planes <= PLANES),
            "mac": good(
                "mac",
                posted,
                beaten,
                *some("group_inputs", "tile_pixels", *(DECODER_FIELDS if config.decoder != "raw" else ())),
                layer.tile_pixels * planes <= config.pixels,
                thresholds,
                paired,
                *none("first_planes"),
                *shared,
            ),
            "max_pool": good(
                "pool", posted, blocks, *some("out_planes"), *none("second_planes", "other_planes", "adds", "copies")
            ),
            "stream": good("stream", posted, beaten, blocks, layer.kernel_y == 1, layer.kernel_x == 1),
        }
        sizes["average_pool"] = sizes["max_pool"]
        m.d.comb += [self.bad_magic.eq(layer.magic != MAGIC), self.bad_operation.eq(layer.op >= len(OPERATIONS))]
        with m.Switch(layer.op):
            for op, fits in sizes.items():
                with m.Case(OPERATIONS.index(op)):
                    m.d.comb += self.bad_size.eq(~fits | (layer.out_pixels == 0))
        return m
