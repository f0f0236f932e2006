"""From a component to text: RTLIL for synthesis, Verilog for simulation."""

import os
from threading import Lock
from typing import Any

from amaranth.back import rtlil, verilog
from amaranth.lib import wiring

from .collector import no_collection

__all__ = ["to_rtlil", "to_verilog"]

# An older Yosys on PATH would be taken in preference, silently; the package's own is the tested one.
os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")


_LOCK = Lock()
_EMIT_MEMORY = rtlil.ModuleEmitter.emit_memory


def _emit_memory(emitter: Any, index: int, cell: Any) -> None:
    if any(cell.init):
        _EMIT_MEMORY(emitter, index, cell)


def to_rtlil(component: wiring.Component, name: str) -> str:
    """RTLIL of a component, whose top module is `name`, without source locations.

    Memories that begin as zeros have no initial value here: it would be text, a character for each bit.
    """
    with _LOCK:
        rtlil.ModuleEmitter.emit_memory = _emit_memory
        try:
            with no_collection():
                return str(rtlil.convert(component, name=name, emit_src=False))
        finally:
            rtlil.ModuleEmitter.emit_memory = _EMIT_MEMORY


def to_verilog(component: wiring.Component, name: str) -> str:
    """Verilog of a component, whose top module is `name`."""
    with no_collection():
        return str(verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True))
