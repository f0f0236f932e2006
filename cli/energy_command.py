"""The verb energy: what an image costs, by operation and memory level, and by measured switching."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["energy"]


def energy(
    network: Annotated[Path, typer.Argument(metavar="F.gw", help="Exported network.")],
    engine: Annotated[
        Path | None,
        typer.Option(metavar="E.toml", help="Engine configuration; without one, the default with the array needed."),
    ] = None,
    energies: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Energies of single operations (TOML), not the published ones.")
    ] = None,
    prune: Annotated[
        bool | None,
        typer.Option(
            "--prune/--no-prune", help="Leave out channels that do not depend on the image; unless said, where exact."
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="table, md, csv or latex.")] = "table",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """Estimate the energy of one image, by operation and memory level."""
    from ..sim.atomic import check_writable, write_json
    from ..sim.energy import Energies, estimate
    from ..sim.energy_report import FORMS, as_table, check_form
    from ..sim.engine import EngineConfig
    from ..sim.file import load
    from ..sim.report import terminal

    check_form(form)
    check_writable(json)
    config = None if engine is None else EngineConfig.load(engine)
    table = Energies() if energies is None else Energies.load(energies)
    found = estimate(load(network), config, table, prune=prune)
    if form == "table":
        terminal().print(as_table(found))
    else:
        print(FORMS[form](found), end="")
    if json is not None:
        write_json(json, found.to_json())
