"""Tables as text: Markdown, CSV, LaTeX for the booktabs package."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["csv_text", "latex_table", "markdown_table"]

_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"})


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """A Markdown table whose first `text` columns are words, the others figures."""
    rules = ["---"] * text + ["---:"] * (len(headings) - text)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, rules, *rows))


def latex_table(headings: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """A tabular."""
    head, *body = (" & ".join(cell.translate(_LATEX) for cell in cells) + r" \\" for cells in (headings, *rows))
    columns = "l" * text + "r" * (len(headings) - text)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys, numbers plain."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
