"""Verbs on exported networks: run, inspect, compile, demo."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from ..sim.fast import Form
    from ..sim.images import ImageSet
    from ..sim.network import Network
    from ..sim.run import RunResult

__all__ = ["compile_image", "demo", "inspect", "run"]

Prune = Annotated[
    bool | None,
    typer.Option(
        "--prune/--no-prune",
        help="Leave out channels that do not depend on the image; unless said, where no result can change.",
    ),
]
Engine = Annotated[
    Path | None,
    typer.Option(
        metavar="E.toml", help="Engine configuration; without one, the default with the array that is needed."
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


def run(
    network: Annotated[Path, typer.Argument(metavar="F.gw", help="Exported network.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help=".npz with images (N,C,H,W) uint8, or a folder.")],
    engine: Engine = None,
    mac: Annotated[str | None, typer.Option(metavar="K=V,..", help="Datapath widths, e.g. align=12,acc=18.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Run the first N images only.")] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Images in memory at a time.")] = 64,
    form: Annotated[
        str,
        typer.Option(
            metavar="auto|faithful|portable|popcount|vnni",
            help="Kernel form: auto is the fastest here; results are the same in all.",
        ),
    ] = "auto",
    dump_layers: Annotated[
        Path | None, typer.Option(metavar="F.npz", help="Write every tensor's integer codes.")
    ] = None,
    stall_trace: Annotated[
        Path | None, typer.Option(metavar="F.csv|F.json", help="Write every step's cycles; JSON opens in Perfetto.")
    ] = None,
    prune: Prune = None,
    activation_bits: Annotated[
        bool, typer.Option("--activation-bits", help="Entropy and Huffman bits of every tensor's codes.")
    ] = False,
    json: Json = None,
) -> None:
    """Run images through an exported network: bit-exact codes, exact cycles, overflows by layer."""
    from ..kernels.mac import MacFormat
    from ..sim.arrays import default_engine
    from ..sim.atomic import check_writable, write_arrays
    from ..sim.engine import EngineConfig
    from ..sim.file import load
    from ..sim.images import load_images
    from ..sim.prune import pruned
    from ..sim.trace import check_trace_name, write_trace

    check_trace_name(stall_trace)
    check_writable(json, dump_layers, stall_trace)
    whole = load(network)
    config = default_engine(whole) if engine is None else EngineConfig.load(engine)
    if mac is not None:
        config = config.with_mac(MacFormat.parse(mac, config.mac))
    # Whoever asks for tensors wants the file's.
    kept = False if prune is None and dump_layers is not None else prune
    pictures = load_images(images)
    left = pruned(whole, config, kept)
    result = _run(left, pictures[:limit], config, batch, form, dump_layers is not None, activation_bits, whole)
    _print_run(result)
    if dump_layers is not None:
        write_arrays(dump_layers, result.tensors)
    if stall_trace is not None:
        write_trace(stall_trace, result.lowered, config)
    _write_json(json, result.to_json())


def inspect(
    network: Annotated[Path, typer.Argument(metavar="F.gw", help="Exported network.")],
    plot: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Draw its histogram, levels and clip points to --output.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png|svg", help="The picture.")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="IMAGES", help="The picture has the activations of these images too.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Of them the first N.")] = 32,
    weights: Annotated[
        Path | None, typer.Option(metavar="F", help="The picture has these float weights, not those of the file.")
    ] = None,
    channel: Annotated[int | None, typer.Option(metavar="N", help="The picture is of one output channel.")] = None,
    json: Json = None,
) -> None:
    """Show a network file: graph, bits, bytes by layer, compression against float32; draw one of its layers."""
    from ..kernels.errors import FormatError
    from ..sim.atomic import check_writable
    from ..sim.inspect import inspect_file
    from ..sim.report import inspection_report, terminal

    if plot is None and any(option is not None for option in (output, images, weights, channel)):
        raise FormatError("options of a picture must come with --plot LAYER")
    if plot is not None and output is None:
        raise FormatError("a picture must have a file: give --output FILE.png or FILE.svg")
    check_writable(json, output)
    if plot is not None and output is not None:
        _plot(network, plot, output, images, limit, weights, channel)
    found, console = inspect_file(network), terminal()
    console.print(inspection_report(found, console))
    _write_json(json, found.to_json())


def _plot(
    network: Path, layer: str, output: Path, images: Path | None, limit: int, weights: Path | None, channel: int | None
) -> None:
    from importlib.util import find_spec

    from ..kernels.errors import ToolMissingError
    from ..sim.file import load
    from ..sim.images import load_images

    for package in ("torch", "scipy"):
        if find_spec(package) is None:
            raise ToolMissingError(f"pictures need {package}: pip install 'gatewise[quant]'")
    from ..quant.picture import activation_panel, draw, float_weights, weight_panel

    held = load(network)
    floats = None if weights is None else float_weights(held, layer, weights)
    panels = [weight_panel(held, layer, channel, floats)]
    if images is not None:
        panels.append(activation_panel(held, layer, load_images(images)[:limit], channel))
    draw(held, panels, layer, output)


def compile_image(
    network: Annotated[Path, typer.Argument(metavar="F.gw", help="Exported network.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Image: bytes, or words as .hex.")],
    engine: Engine = None,
    prune: Prune = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the memory map as JSON.")] = None,
) -> None:
    """Compile a network for an engine: descriptors and streams as one memory image, and its map."""
    from ..sim.arrays import default_engine
    from ..sim.atomic import check_writable, write_bytes
    from ..sim.compile import compile_network
    from ..sim.engine import EngineConfig
    from ..sim.file import load
    from ..sim.prune import pruned
    from ..sim.report import compiled_report, terminal

    check_writable(output, json)
    whole = load(network)
    config = default_engine(whole) if engine is None else EngineConfig.load(engine)
    compiled = compile_network(pruned(whole, config, prune), config)
    write_bytes(output, compiled.to_hex().encode() if output.suffix == ".hex" else compiled.image.tobytes())
    console = terminal()
    console.print(compiled_report(compiled, console))
    _write_json(json, compiled.memory_map())


def demo(json: Json = None) -> None:
    """Run the shipped W4A4 digits network on its 360 held-out images."""
    from ..sim.demo import load_demo
    from ..sim.report import terminal

    example = load_demo()
    result = _run(example.network, example.images, example.engine, 64, "auto")
    _print_run(result)
    terminal().print("\n".join(example.comparison(result)))
    _write_json(json, result.to_json() | {"float_top1": example.float_top1})


def _run(
    network: "Network",
    images: "ImageSet",
    engine: object,
    batch: int,
    form: str,
    trace: bool = False,
    count_codes: bool = False,
    whole: "Network | None" = None,
) -> "RunResult":
    from rich.console import Console
    from rich.progress import Progress

    from ..sim.engine import EngineConfig
    from ..sim.run import run as run_network

    assert isinstance(engine, EngineConfig)
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task("images", total=len(images))
        return run_network(
            network,
            images,
            engine,
            trace=trace,
            batch=batch,
            form=cast("Form", form),
            progress=lambda n: bar.advance(task, n),
            count_codes=count_codes,
            whole=whole,
        )


def _print_run(result: "RunResult") -> None:
    from ..sim.report import run_report, terminal

    console = terminal()
    console.print(run_report(result, console))


def _write_json(path: Path | None, content: object) -> None:
    from ..sim.atomic import write_json

    if path is not None:
        write_json(path, content)
