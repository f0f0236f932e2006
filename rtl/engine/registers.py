"""The configuration registers of one layer, as the hardware holds them."""

from amaranth.hdl import Const, Shape, Value
from amaranth.lib import data

from ...sim.descriptor import act_address_bits as address_bits
from ...sim.descriptor import descriptor_fields
from ...sim.engine import EngineConfig

__all__ = ["address_bits", "descriptor_layout", "optional"]


def descriptor_layout(config: EngineConfig) -> data.StructLayout:
    """The registers of a layer, those of `sim.descriptor`, from bit 0 on; they stand still while it runs."""
    fields = descriptor_fields(config)
    return data.StructLayout({name: Shape(field.bits, field.signed) for name, field in fields.items()})


def optional(layer: data.View, name: str) -> Value:
    """A register that not every array has; 0 without it."""
    return Value.cast(layer[name]) if name in layer.shape().members else Const(0, 1)
