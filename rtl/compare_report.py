"""A comparison of schemes as text: a table for a terminal, Markdown, CSV, LaTeX."""

import csv
import io

from rich.console import Group
from rich.table import Table

from .compare import COLUMNS, Comparison

__all__ = ["as_csv", "as_latex", "as_markdown", "as_table"]

_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"})


def _headings(found: Comparison) -> list[str]:
    """The columns that say something: the check only where it was made."""
    return [name for name in COLUMNS if name != "flat check" or any(row.check for row in found.rows)]


def _cells(found: Comparison) -> list[list[str]]:
    headings = _headings(found)
    return [[COLUMNS[name](found, row) for name in headings] for row in found.rows]


def as_table(found: Comparison) -> Group:
    """For a terminal."""
    table = Table(title=f"layer {found.layer.text}", title_justify="left", header_style="bold")
    for at, name in enumerate(_headings(found)):
        table.add_column(name, justify="left" if at < 2 else "right", overflow="fold")
    for cells in _cells(found):
        table.add_row(*cells)
    return Group(table, *found.notes())


def as_markdown(found: Comparison) -> str:
    """Markdown, with the notes below."""
    headings = _headings(found)
    rules = ["---"] * 2 + ["---:"] * (len(headings) - 2)
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, rules, *_cells(found))]
    return "\n".join([*lines, "", *(f"* {note}" for note in found.notes())]) + "\n"


def as_csv(found: Comparison) -> str:
    """The rows of the JSON form, numbers plain."""
    rows = found.to_json()["rows"]
    for row in rows:
        check = row.pop("flat_check")
        row["flat_difference"] = None if check is None else check["difference"]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_latex(found: Comparison) -> str:
    """A tabular for the booktabs package; the notes are comments."""
    headings = _headings(found)
    rows = [" & ".join(cell.translate(_LATEX) for cell in cells) + r" \\" for cells in (headings, *_cells(found))]
    return (
        "\n".join(
            [
                *(f"% {note}" for note in found.notes()),
                rf"\begin{{tabular}}{{ll{'r' * (len(headings) - 2)}}}",
                r"\toprule",
                rows[0],
                r"\midrule",
                *rows[1:],
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )
