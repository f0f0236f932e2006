"""A sweep as text: a table for a terminal, Markdown, CSV; and as an object for JSON."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..kernels.errors import GatewiseError
from .sweep import Sweep

__all__ = ["as_csv", "as_markdown", "as_table", "sweep_json"]

SCHEMA = 1
HEADINGS = {
    "array": "array",
    "decoder": "decoder",
    "rows": "rows",
    "lanes": "lanes",
    "pixels": "pixels",
    "post_lanes": "post lanes",
    "bus_bits": "bus",
    "bus_latency": "latency",
    "act_bytes": "act bytes",
    "act_banks": "act banks",
    "operand_bits": "operands",
}
"""Settings by name: those that differ stand in the table, and the rest in its title."""


def _order(found: Sweep, pareto: bool) -> list[int]:
    """Engines from few PEs to many, then from few cycles on."""
    order = np.lexsort((found.cycles, found.pes)).tolist()
    return [index for index in order if found.pareto[index] or not pareto]


def _swept(found: Sweep) -> list[str]:
    return [name for name in HEADINGS if len({getattr(engine, name) for engine in found.engines}) > 1]


def _title(found: Sweep) -> str:
    swept = _swept(found)
    fixed = [f"{heading} {getattr(found.engines[0], name)}" for name, heading in HEADINGS.items() if name not in swept]
    return f"{found.network}: cycles of one image; {', '.join(fixed)}"


def _cells(found: Sweep, pareto: bool) -> tuple[list[str], list[list[str]]]:
    swept = _swept(found)
    headings = [*(HEADINGS[name] for name in swept), "PEs", "cycles", "images/s", "utilisation", "bound by", "MB read"]
    cells = []
    for index in _order(found, pareto):
        row = found.row(index)
        cells.append(
            [
                *(str(row[name]) for name in swept),
                f"{row['pes']:,}",
                f"{row['cycles']:,}",
                f"{row['images_per_second']:,.1f}",
                f"{100 * row['utilisation']:.1f} %",
                row["bound_by"],
                f"{row['bytes_read'] / 1e6:.2f}",
                "*" if row["pareto"] else "",
            ]
        )
    return [*headings, "best"], cells


def _notes(found: Sweep, refused: Sequence[tuple[Any, GatewiseError]]) -> list[str]:
    clocks = sorted({engine.clock_mhz for engine in found.engines})
    notes = [
        f"{len(found.engines):,} engines, {int(found.pareto.sum()):,} of them best (*): none has fewer cycles with no "
        f"more PEs, or fewer PEs with no more cycles",
        f"images per second at an assumed {', '.join(f'{clock:g}' for clock in clocks)} MHz",
    ]
    if found.streamed.any():
        notes.append(f"{int(found.streamed.sum()):,} decode their weights: cycles of the streams themselves")
    reasons = Counter(" ".join(str(error).split()) for _, error in refused)
    notes += [f"{count:,} left out: {reason}" for reason, count in reasons.most_common()]
    return notes


def as_table(found: Sweep, refused: Sequence[tuple[Any, GatewiseError]], pareto: bool) -> Group:
    """For a terminal; `pareto` leaves out what is not best."""
    headings, cells = _cells(found, pareto)
    table = Table(title=_title(found), title_justify="left", header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("array", "decoder", "bound by", "best") else "right")
    for row in cells:
        table.add_row(*row)
    return Group(table, Text("\n".join(_notes(found, refused))))


def as_markdown(found: Sweep, refused: Sequence[tuple[Any, GatewiseError]], pareto: bool) -> str:
    """Markdown, with the notes below."""
    headings, cells = _cells(found, pareto)
    lines = [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *cells)]
    return "\n".join([f"{_title(found)}.", "", *lines, "", *(f"* {note}" for note in _notes(found, refused))]) + "\n"


def as_csv(found: Sweep, pareto: bool) -> str:
    """A line an engine, all of its settings and figures, numbers plain."""
    text = io.StringIO()
    rows = [found.row(index) for index in _order(found, pareto)]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_json(found: Sweep, refused: Sequence[tuple[Any, GatewiseError]], pareto: bool) -> dict[str, Any]:
    """The documented JSON object of ``gatewise sweep --json``."""
    return {
        "schema": SCHEMA,
        "network": found.network,
        "layers": [layer._asdict() for layer in found.layers],
        "engines": [
            {**found.row(index), "layer_cycles": found.layer_cycles[index].tolist()} for index in _order(found, pareto)
        ],
        "refused": [{"settings": settings, "reason": " ".join(str(error).split())} for settings, error in refused],
    }
