"""The gate tables of docs/blocks.md, counted anew: every row of a table of parameters in a block's section.

    python bench/blocks.py [--page docs/blocks.md]

Rows are found by their `gatewise synth` parameters; only the figures behind them change.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gatewise.rtl.blocks import BLOCKS, parse_settings
from gatewise.rtl.synth import SynthReport, synthesize
from gatewise.sim.atomic import write_bytes

ROOT = Path(__file__).resolve().parents[1]


def bounds(pair: tuple[int, int]) -> str:
    """A lower and an upper bound."""
    return f"{pair[0]:,} .. {pair[1]:,}"


COLUMNS: dict[str, Callable[[SynthReport], str]] = {
    "gates": lambda report: f"{report.gates.two_input:,}",
    "inverters": lambda report: f"{report.gates.inverters:,}",
    "flip-flops": lambda report: f"{report.gates.flip_flops:,}",
    "gate equivalents": lambda report: f"{report.gates.equivalents:,.1f}",
    "depth": lambda report: f"{report.gates.depth:,}",
    "ALUTs + carry": lambda report: f"{report.alm.alut_total:,} + {report.alm.carry_bits:,}",
    "ALMs": lambda report: bounds(report.alm.bounds),
    "ALMs with DSP": lambda report: f"{report.alm_dsp.dsps:,}, {bounds(report.alm_dsp.bounds)}",
}


def cells(line: str) -> list[str]:
    """The cells of a Markdown row."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@dataclass(frozen=True)
class Row:
    """A row of figures: which line of the page it is, of what block with which parameters, and its columns."""

    line: int
    block: str
    parameters: str
    columns: tuple[str, ...]

    def count(self) -> str:
        """The row, counted anew."""
        report = synthesize(
            self.block, parse_settings([] if self.parameters == "defaults" else self.parameters.split())
        )
        return "| " + " | ".join([self.parameters, *(COLUMNS[column](report) for column in self.columns)]) + " |"


def rows(text: str) -> Iterator[Row]:
    """The rows of figures of a page."""
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


def counted(text: str) -> str:
    """The page with every figure counted anew."""
    lines = text.splitlines()
    for row in rows(text):
        new = row.count()
        if new != lines[row.line]:
            print(f"{row.block}\n  {lines[row.line]}\n  {new}")
        lines[row.line] = new
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "blocks.md")
    arguments = parser.parse_args()
    write_bytes(arguments.page, counted(arguments.page.read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    main()
