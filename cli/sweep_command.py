"""The verb sweep: one network on many engines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..sim.engine import EngineConfig
    from ..sim.network import Network
    from ..sim.sweep import Sweep

__all__ = ["sweep"]


def _axis(what: str) -> Any:
    return typer.Option(metavar="N,..", help=what)


def sweep(
    network: Annotated[Path, typer.Argument(metavar="F.gw", help="Exported network.")],
    engine: Annotated[
        Path | None, typer.Option(metavar="E.toml", help="What is not swept; without one, the default engine.")
    ] = None,
    rows: Annotated[str | None, _axis("Output channels in parallel, e.g. 4,8,16,32.")] = None,
    lanes: Annotated[str | None, _axis("Input channels in parallel.")] = None,
    pixels: Annotated[str | None, _axis("Accumulators of a row.")] = None,
    post_lanes: Annotated[str | None, _axis("Channels through the post lanes in a cycle; else half the rows.")] = None,
    bus: Annotated[str | None, _axis("Bits of the bus.")] = None,
    latency: Annotated[str | None, _axis("Cycles until the bus answers.")] = None,
    act_bytes: Annotated[str | None, _axis("Bytes of activation memory.")] = None,
    array: Annotated[str | None, typer.Option(metavar="NAME,..", help="digit, fusion, sign, shift.")] = None,
    decoder: Annotated[str | None, typer.Option(metavar="NAME,..", help="raw, huffman, xor.")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Show the best alone: by cycles and PEs.")] = False,
    prune: Annotated[
        bool | None,
        typer.Option(
            "--prune/--no-prune",
            help="Leave out channels that do not depend on the image; unless said, where no result can change.",
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="table, md or csv.")] = "table",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """Count a network's cycles on every combination of engine sizes: exactly those of `run` on each."""
    from ..kernels.errors import FormatError
    from ..sim.arrays import default_engine
    from ..sim.atomic import check_writable, write_json
    from ..sim.engine import EngineConfig
    from ..sim.file import load
    from ..sim.report import terminal
    from ..sim.sweep import configurations
    from ..sim.sweep_report import as_csv, as_markdown, as_table, sweep_json

    if form not in ("table", "md", "csv"):
        raise FormatError(f"--format must be one of table, md, csv, not {form!r}")
    numbers = {
        "rows": ("--rows", rows),
        "lanes": ("--lanes", lanes),
        "pixels": ("--pixels", pixels),
        "post_lanes": ("--post-lanes", post_lanes),
        "bus_bits": ("--bus", bus),
        "bus_latency": ("--latency", latency),
        "act_bytes": ("--act-bytes", act_bytes),
    }
    names = {"array": array, "decoder": decoder}
    axes: dict[str, list[Any]] = {key: text.split(",") for key, text in names.items() if text is not None}
    axes |= {key: _numbers(*given) for key, given in numbers.items() if given[1] is not None}
    if not axes:
        raise FormatError("a sweep must have values for at least one of --rows, --lanes, .., e.g. --rows 4,8,16,32")
    check_writable(json)
    whole = load(network)
    base = default_engine(whole) if engine is None else EngineConfig.load(engine)
    engines, impossible = configurations(base, axes)
    found = _count(whole, engines, prune)
    swept = [({name: getattr(refusing, name) for name in axes}, error) for refusing, error in found.refused]
    refused = [*impossible, *swept]
    if not found.engines:
        raise refused[0][1]
    match form:
        case "md":
            print(as_markdown(found, refused, pareto), end="")
        case "csv":
            print(as_csv(found, pareto), end="")
        case _:
            terminal().print(as_table(found, refused, pareto))
    if json is not None:
        write_json(json, sweep_json(found, refused, pareto))


def _numbers(option: str, text: str | None) -> list[int]:
    from ..kernels.errors import FormatError

    try:
        return list(dict.fromkeys(int(part) for part in (text or "").split(",")))
    except ValueError:
        raise FormatError(f"{option} must be whole numbers with commas between them, not {text!r}") from None


def _count(network: "Network", engines: list["EngineConfig"], prune: bool | None) -> "Sweep":
    from rich.console import Console
    from rich.progress import Progress

    from ..sim.sweep import network_cycles_many

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("engines", total=len(engines))
        return network_cycles_many(network, engines, prune, lambda n: bar.advance(task, n))
