"""A comparison as text: a table for a terminal, Markdown, CSV, LaTeX."""

import csv
import io
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Group
from rich.table import Table

__all__ = ["Comparable", "as_csv", "as_latex", "as_markdown", "as_table"]

_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"})


class Comparable(Protocol):
    """Rows under headings, the first two of which are names, in one table or several, and what they assume."""

    def parts(self) -> "Sequence[Comparable]":
        """The tables."""

    @property
    def title(self) -> str:
        """Of the table."""

    def headings(self) -> list[str]:
        """Of the columns."""

    def cells(self) -> list[list[str]]:
        """A line for each row."""

    def notes(self) -> list[str]:
        """What the figures assume."""

    def flat_rows(self) -> list[dict[str, Any]]:
        """The rows with plain numbers."""


def as_table(found: Comparable) -> Group:
    """For a terminal."""
    return Group(*map(_table, found.parts()), *found.notes())


def _table(part: Comparable) -> Table:
    table = Table(title=part.title, title_justify="left", header_style="bold")
    for at, name in enumerate(part.headings()):
        table.add_column(name, justify="left" if at < 2 else "right", overflow="fold")
    for cells in part.cells():
        table.add_row(*cells)
    return table


def as_markdown(found: Comparable) -> str:
    """Markdown, with the notes below."""
    lines: list[str] = []
    for part in found.parts():
        headings = part.headings()
        rules = ["---"] * 2 + ["---:"] * (len(headings) - 2)
        lines += [*(f"| {' | '.join(cells)} |" for cells in (headings, rules, *part.cells())), ""]
    return "\n".join([*lines, *(f"* {note}" for note in found.notes())]) + "\n"


def as_csv(found: Comparable) -> str:
    """The rows, numbers plain."""
    rows = found.flat_rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_latex(found: Comparable) -> str:
    """Tabulars for the booktabs package; the notes are comments."""
    lines = [f"% {note}" for note in found.notes()]
    for part in found.parts():
        headings = part.headings()
        first, *rows = (
            " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\" for cells in (headings, *part.cells())
        )
        lines += [
            rf"\begin{{tabular}}{{ll{'r' * (len(headings) - 2)}}}",
            r"\toprule",
            first,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    return "\n".join(lines) + "\n"
