"""The verb that says what is installed and what each missing piece disables."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["doctor"]


def doctor(
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """List extras, simulators, Yosys, CPU features and threads, and what each missing piece disables."""
    from rich.table import Table

    from ..sim.atomic import write_json
    from ..sim.doctor import examine
    from ..sim.report import terminal

    pieces = examine()
    table = Table("piece", "found", "what it is for, or what its absence disables")
    for piece in pieces:
        table.add_row(piece.name, piece.found or "missing", piece.purpose, style=None if piece.found else "yellow")
    terminal().print(table)
    if json is not None:
        write_json(
            json,
            {"schema": 1, "pieces": [{"name": p.name, "found": p.found, "purpose": p.purpose} for p in pieces]},
        )
