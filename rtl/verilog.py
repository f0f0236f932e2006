"""From a component to text: RTLIL for synthesis, Verilog for simulation."""

import os

from amaranth.back import rtlil, verilog
from amaranth.lib import wiring

__all__ = ["to_rtlil", "to_verilog"]

# An older Yosys on PATH would be taken in preference, silently; the package's own is the tested one.
os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")


def to_rtlil(component: wiring.Component, name: str) -> str:
    """RTLIL of a component, whose top module is `name`, without source locations."""
    return str(rtlil.convert(component, name=name, emit_src=False))


def to_verilog(component: wiring.Component, name: str) -> str:
    """Verilog of a component, whose top module is `name`."""
    return str(verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True))
