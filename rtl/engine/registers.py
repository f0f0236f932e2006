"""The configuration registers of one layer, as the hardware holds them."""

from amaranth.hdl import Const, Mux, Shape, Value
from amaranth.lib import data
from amaranth.utils import ceil_log2

from ...sim.descriptor import act_address_bits as address_bits
from ...sim.descriptor import descriptor_fields, sub_address_bits
from ...sim.engine import EngineConfig

__all__ = [
    "StepLanes",
    "address_bits",
    "container",
    "descriptor_layout",
    "in_rest",
    "optional",
    "sub_address_bits",
]


def descriptor_layout(config: EngineConfig) -> data.StructLayout:
    """The registers of a layer, those of `sim.descriptor`, from bit 0 on; they stand still while it runs."""
    fields = descriptor_fields(config)
    return data.StructLayout({name: Shape(field.bits, field.signed) for name, field in fields.items()})


def optional(layer: data.View, name: str) -> Value:
    """A register that not every array has; 0 without it."""
    return Value.cast(layer[name]) if name in layer.shape().members else Const(0, 1)


class StepLanes:
    """Input channels that a row reduces in a step of a layer: L, and in a fused array as many more as its mode has.

    `most` of them there are in any layer, and ``1 << more`` for each PE in this one.
    """

    def __init__(self, config: EngineConfig, layer: data.View) -> None:
        self.lanes, self.most = config.lanes, config.most_lanes
        self.more: Value | None = None
        if config.array == "fusion":
            self.more = layer.mode[0] + layer.mode[1]

    @property
    def count(self) -> Value | int:
        """The lanes of this layer's steps."""
        return self.lanes if self.more is None else (Const(self.lanes) << self.more)

    def groups(self, channels: Value) -> Value:
        """Whole lane groups in so many channels."""
        groups = channels >> ceil_log2(self.lanes)
        return groups if self.more is None else groups >> self.more

    def within(self, channel: Value) -> Value:
        """A channel's lane in its group."""
        return channel[: ceil_log2(self.lanes)] if self.more is None else channel & (self.count - 1)


def in_rest(layer: data.View, row_group: Value) -> Value:
    """Whether a row group is one of those whose weights have one digit, in containers of their own."""
    rest_from = optional(layer, "rest_from")
    return (rest_from != 0) & (row_group >= rest_from)


def container(layer: data.View, row_group: Value) -> Value:
    """What the weights of a row group stand in, as the registers say it."""
    return Mux(in_rest(layer, row_group), optional(layer, "rest_container"), optional(layer, "container"))
