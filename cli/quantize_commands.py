"""The verb that turns a trained network into a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from ..quant.export import Requantise

__all__ = ["quantize"]


def quantize(
    method: Annotated[str, typer.Option(metavar="M", help="aciq, bayesian, hawq, minmax, ..")],
    network: Annotated[str, typer.Option(metavar="NAME|pkg.mod:factory", help="A built-in network or your own.")],
    calibration: Annotated[Path, typer.Option(metavar="F.npz", help="Images for the statistics.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.gw", help="The file to write.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="F", help="Trained weights: .safetensors, .pt or .pth; else as built.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Calibration images used.")] = 32,
    bits: Annotated[int | None, typer.Option(min=1, max=8, help="Weights and activations; edge layers have 8.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A setting of the method; repeatable.")
    ] = None,
    target_bops: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of the BOPs in 32 x 32 bits: bayesian bisects its strength for it."),
    ] = None,
    requantise: Annotated[
        str, typer.Option(metavar="scale|threshold", help="How layers come to codes: multipliers, or exact thresholds.")
    ] = "scale",
    test: Annotated[
        Path | None, typer.Option(metavar="F.npz", help="Labelled images: prints top-1 beside float.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(metavar="F.npz|DIR", help="Labelled images (also a .zip): fine-tune on them.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Of the fine-tuning; 10 unless given.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything that is drawn; 0 unless given.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of checkpoints: goes on from there, writes each epoch.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Of the fine-tuning; cuda where there is one.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """Quantise a trained PyTorch network into a file that the hardware runs."""
    from importlib.util import find_spec

    from rich.console import Console

    from ..kernels.errors import FormatError, ToolMissingError
    from ..sim.atomic import check_writable, write_json
    from ..sim.file import save_network
    from ..sim.images import load_images
    from ..sim.report import terminal

    check_writable(output, json)
    for package in ("torch", "scipy"):
        if find_spec(package) is None:
            raise ToolMissingError(f"quantize needs {package}: pip install 'gatewise[quant]'")
    from ..quant.methods import METHODS
    from ..quant.methods import quantize as quantize_network
    from ..quant.progress import TerminalProgress

    options: dict[str, str] = {}
    for text in option or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise FormatError(f"option must be name=value, not {text!r}")
        options[key.strip()] = value.strip()
    if target_bops is not None:
        options["target_bops"] = str(target_bops)
    pictures = load_images(calibration)
    labelled = None if test is None else load_images(test)
    learnt = None if train is None else load_images(train)
    console = Console(stderr=True)
    searches = method in METHODS and METHODS[method].choose is not None
    shown = TerminalProgress(console) if learnt is not None or searches else None
    told = f"{method}: capturing {network}, calibrating on {images} images"
    with console.status(told) if shown is None else shown:
        found = quantize_network(
            method,
            network,
            None if weights is None else str(weights),
            pictures,
            images=images,
            bits=bits,
            options=options,
            requantise=cast("Requantise", requantise),
            test=labelled,
            train=learnt,
            epochs=epochs,
            seed=seed,
            resume=resume,
            device=device,
            progress=shown,
        )
        size = save_network(found.network, output)
    terminal().print(f"{output}: {size:,} bytes, {len(found.network.mac_nodes())} layers")
    provenance = found.network.manifest.provenance
    top1 = None if labelled is None else found.network.run(labelled).top(1)
    if labelled is not None and top1 is not None:
        error = (top1 * (1 - top1) / len(labelled)) ** 0.5
        exact = float(provenance["float_top1"])
        terminal().print(
            f"top-1 on {len(labelled)} images: float {100 * exact:.2f} %, integer {100 * top1:.2f} % "
            f"(standard error {100 * error:.2f})",
        )
    if json is not None:
        write_json(
            json,
            {
                "schema": 1,
                "file": str(output),
                "bytes": size,
                "top1": top1,
                "provenance": provenance,
                "epochs": [report.to_json() for report in found.history],
            },
        )
