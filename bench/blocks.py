"""The gate counts of docs/blocks.md: counts what has changed since the last time, and writes its tables anew.

    python bench/blocks.py           # rows whose RTL, Yosys or flows are other than those of their counts
    python bench/blocks.py --all     # every row
    python bench/blocks.py --check   # every row, and nothing is written: exit code 1 where one differs

The counts stand in docs/blocks.json, each with the hash of the RTL that it is of, so that a block that changes without
them is found without Yosys. The page's rows are found by their `gatewise synth` parameters; a new one needs no figures.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gatewise.rtl.blocks import BLOCKS, parse_settings
from gatewise.rtl.flows import flows
from gatewise.rtl.synth import block_design, synthesize
from gatewise.rtl.yosys import tool_version
from gatewise.sim.atomic import write_bytes, write_json

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, STORE = DOCS / "blocks.md", DOCS / "blocks.json"


@dataclass(frozen=True)
class Count:
    """What a block with some parameters costs, and the RTL that this was counted of."""

    rtl: str
    gates: int
    inverters: int
    flip_flops: int
    equivalents: float
    depth: int
    aluts: int
    carry_bits: int
    registers: int
    """In ALMs."""
    alms_low: int
    alms_high: int
    dsps: int
    """With DSP blocks allowed, and so the next two; all others are without."""
    alms_dsp_low: int
    alms_dsp_high: int
    memory_bits: int
    m20ks: int
    mlabs: int


def bounds(low: int, high: int) -> str:
    """A lower and an upper bound."""
    return f"{low:,} .. {high:,}"


COLUMNS: dict[str, Callable[[Count], str]] = {
    "gates": lambda count: f"{count.gates:,}",
    "inverters": lambda count: f"{count.inverters:,}",
    "flip-flops": lambda count: f"{count.flip_flops:,}",
    "gate equivalents": lambda count: f"{count.equivalents:,.1f}",
    "depth": lambda count: f"{count.depth:,}",
    "ALUTs + carry": lambda count: f"{count.aluts:,} + {count.carry_bits:,}",
    "ALMs": lambda count: bounds(count.alms_low, count.alms_high),
    "ALMs with DSP": lambda count: f"{count.dsps:,}, {bounds(count.alms_dsp_low, count.alms_dsp_high)}",
    "memory bits": lambda count: f"{count.memory_bits:,}",
    "M20K": lambda count: f"{count.m20ks:,}",
}
SUMMARY = tuple(name for name in COLUMNS if name != "inverters")
"""The columns of the table of all blocks."""


@dataclass(frozen=True)
class Row:
    """A row of figures: which line of the page it is, of what block with which parameters, and its columns."""

    line: int
    block: str
    parameters: str
    columns: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its name among the counts."""
        return f"{self.block} {self.parameters}"

    @property
    def settings(self) -> dict[str, str]:
        """The parameters as the registry takes them."""
        return parse_settings([] if self.parameters == "defaults" else self.parameters.split())

    @property
    def rtl(self) -> str:
        """The hash of the RTL that the row is about today."""
        return block_design(self.block, self.settings).sha256

    def count(self) -> Count:
        """What synthesis finds."""
        report = synthesize(self.block, self.settings)
        return Count(
            rtl=report.rtl_sha256,
            gates=report.gates.two_input,
            inverters=report.gates.inverters,
            flip_flops=report.gates.flip_flops,
            equivalents=report.gates.equivalents,
            depth=report.gates.depth,
            aluts=report.alm.alut_total,
            carry_bits=report.alm.carry_bits,
            registers=report.alm.registers,
            alms_low=report.alm.bounds.low,
            alms_high=report.alm.bounds.high,
            dsps=report.alm_dsp.dsps,
            alms_dsp_low=report.alm_dsp.bounds.low,
            alms_dsp_high=report.alm_dsp.bounds.high,
            memory_bits=report.memory.bits,
            m20ks=report.memory.m20ks,
            mlabs=report.memory.mlabs,
        )


def cells(line: str) -> list[str]:
    """The cells of a Markdown row."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(text: str) -> Iterator[Row]:
    """The rows of figures in the blocks' own sections of a page."""
    block, columns = "", ()
    for number, line in enumerate(text.splitlines()):
        heading = re.fullmatch(r"## (\w+)", line)
        if heading is not None:
            block = heading[1]
        if not line.startswith("|"):
            columns = ()
        elif line.startswith("| parameters |") and block in BLOCKS:
            columns = tuple(cells(line)[1:])
        elif columns and not line.startswith("|--"):
            yield Row(number, block, cells(line)[0], columns)


def table_row(first: str, count: Count, columns: tuple[str, ...]) -> str:
    """A Markdown row."""
    return "| " + " | ".join([first, *(COLUMNS[column](count) for column in columns)]) + " |"


def summary(counts: Mapping[str, Count]) -> str:
    """The table of all blocks at their defaults."""
    lines = ["| block | " + " | ".join(SUMMARY) + " |", "|---" * (1 + len(SUMMARY)) + "|"]
    lines += [table_row(f"[`{name}`](#{name})", counts[f"{name} defaults"], SUMMARY) for name in BLOCKS]
    return "\n".join(lines) + "\n"


def written(text: str, counts: Mapping[str, Count]) -> str:
    """The page with every figure that of its count."""
    lines = text.splitlines()
    for row in rows(text):
        lines[row.line] = table_row(row.parameters, counts[row.key], row.columns)
    page = "\n".join(lines) + "\n"
    page, found = re.subn(r"(?<=\n\n)\| block \| gates .*\n(?:\|.*\n)*", lambda _: summary(counts), page)
    if found != 1:
        raise AssertionError(f"the page must have one table of all blocks, not {found}")
    return page


def tools() -> dict[str, Any]:
    """What counts depend on beside the RTL."""
    return {"tool": tool_version(), "flows": {flow.name: flow.sha256 for flow in flows(flat=False)}}


def stored(store: Path = STORE) -> tuple[dict[str, Any], dict[str, Count]]:
    """The tools of the stored counts, and the counts by block and parameters."""
    content = json.loads(store.read_text(encoding="utf-8"))
    counts = {key: Count(**count) for key, count in content.pop("counts").items()}
    return content, counts


def main() -> None:
    """Count, and write the page and its counts, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="count every row, changed or not")
    parser.add_argument("--check", action="store_true", help="count every row, and compare instead of writing")
    arguments = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    by, old = stored() if STORE.exists() else ({}, {})
    every = arguments.all or arguments.check or by != tools()
    counts = {}
    for row in rows(text):
        before = old.get(row.key)
        same = before is not None and not every and before.rtl == row.rtl
        counts[row.key] = count = before if same else row.count()
        if count != before:
            print(f"{row.block}: {table_row(row.parameters, count, row.columns)}", flush=True)
    if not arguments.check:
        write_json(STORE, tools() | {"counts": {key: asdict(count) for key, count in counts.items()}})
        write_bytes(PAGE, written(text, counts).encode())
    elif (by, old) != (tools(), counts) or written(text, counts) != text:
        sys.exit("error: docs/blocks.md must have the counts of the RTL: python bench/blocks.py")


if __name__ == "__main__":
    main()
