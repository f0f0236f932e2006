"""The rivals' part of `bench/papers.py`: fixed point, min-max, INQ, LQ-Net and ABC-Net, converted and trained."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.capture import capture
from gatewise.quant.methods import quantize
from gatewise.quant.networks import load_network
from gatewise.quant.quantized import accuracy
from gatewise.sim.arrays import default_engine
from gatewise.sim.file import load, save_network
from gatewise.sim.inspect import inspect_file
from gatewise.sim.network import Network
from page import Data, Section, Table, integer_run, percent
from paths import ROOT
from trainings import CALIBRATION, TRAININGS, Training, run

__all__ = ["EXPORTS", "Row", "rivals", "trained_networks"]

EXPORTS = ROOT / "bench" / "trained"
SCORED = 32


@dataclass(frozen=True)
class Row:
    """A training of `TRAININGS`, and what its method's paper has."""

    name: str
    title: str
    bits: str
    paper: str


ROWS = [
    Row("resnet20-fixed8", "8-bit fixed point", "8 / 8", "no paper"),
    Row("resnet20-minmax-w4a4", "min-max", "4 / 4", "no paper"),
    Row("resnet20-aciq-w4a4", "ACIQ, fine-tuned", "4 / 4", "not trained there"),
    Row("resnet20-inq-w5", "INQ", "5 / 8", "ResNet-18, ImageNet, 5 / 32: 68.98 (float 68.27)"),
    Row("resnet20-inq-w4", "INQ", "4 / 8", "ResNet-18, ImageNet, 3 / 32: 68.08"),
    Row("resnet20-lqnet-w2a2", "LQ-Net", "2 / 2", "ResNet-18 (pre-activation), ImageNet, 2 / 32: 68.00"),
    Row("resnet20-abcnet-w5a5", "ABC-Net", "5 / 5", "ResNet-18, ImageNet, 5 bases: 67.30"),
]

TEXT = """
Networks that the other methods are compared with, each as its paper trains it, on what hardware it needs. All begin
with the same float ResNet-20, and train on nine tenths of 8,068 images; *held out* is the top-1 of the last epoch on
the rest (which the float network has seen: beside test images it flatters), and the last epoch is what is exported.
*Converted* is the fake-quantised network without any training, from {calibration} images. Weights and activations of
the first and last layers have 8 bits. Cycles are those of the default engine with the array that the scheme needs:
*digit* multiplies 4-bit digits, *shift* shifts, *sign* makes a pass for each pair of a weight plane and an activation
plane. BOPs are MACs times the bits of both operands.

Learning rates were not searched.

The files are in `bench/trained/`, with the commands that made them; `python bench/papers.py --part rivals --train` (or
`bench/trainings.py`) makes them anew. Trained on another device the weights differ in detail.
"""
COLUMNS = [
    *("method", "bits W / A", "array", "float top-1 %", "converted: top-1 %", "held out %"),
    *("**trained: integer top-1 %**", "standard error", "top-5 %", "file bytes", "compression", "MBOPs", "% of float"),
    *("cycles per image", "paper's own top-1 %"),
]


@dataclass(frozen=True)
class Found:
    """An exported network on the test images."""

    array: str
    top1: float
    top5: float
    error: float
    held_out: float | None
    file_bytes: int
    compression: float
    bops: int
    relative_bops: float
    cycles: int


def _measured(network: Network, data: Data) -> Found:
    path = data.scratch / "network.gw"
    save_network(network, path)
    facts, result = inspect_file(path), integer_run(network, data.test)
    top1, held = result.top(1) or 0.0, network.manifest.provenance.get("held_out_top1")
    return Found(
        default_engine(network).array,
        top1,
        result.top(5) or 0.0,
        (top1 * (1 - top1) / len(data.test)) ** 0.5,
        held if isinstance(held, float) else None,
        facts.file_bytes,
        facts.compression,
        result.bops,
        result.relative_bops,
        result.cycles_per_image,
    )


def _float_top1(training: Training, data: Data) -> float:
    loaded = load_network(training.network, training.weights)
    graph = capture(loaded.module, loaded.example)
    with torch.no_grad():
        parts = [graph.run(torch.from_numpy(loaded.input.normalise(part.images))) for part in data.test.batches(SCORED)]
    assert data.test.labels is not None
    return accuracy(torch.cat(parts).numpy(), np.asarray(data.test.labels))


def _converted_top1(training: Training, data: Data) -> float:
    """Top-1 of the method's network without training, as it is fake-quantised."""
    own = {key: value for key, value in training.options.items() if key != "learning_rate"}
    found = quantize(
        training.method, training.network, str(training.weights), data.training, images=CALIBRATION, options=own
    )
    assert data.test.labels is not None
    return accuracy(found.quantized.run(data.test.images), data.test.labels)


def rivals(data: Data) -> Section:
    """Measure the committed exports, or train them anew."""
    table, figures = trained_networks(data, ROWS)
    return Section("Rivals, ResNet-20", TEXT.format(calibration=CALIBRATION), [table], figures)


def trained_networks(data: Data, rows: list[Row]) -> tuple[Table, list[dict[str, Any]]]:
    """The table of these trainings, converted and trained, and its figures."""
    if data.train:
        EXPORTS.mkdir(exist_ok=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            for row in rows:
                data.say(pool.submit(run, row.name, TRAININGS[row.name], EXPORTS).result())
    lines, figures = [], []
    exact: dict[str, float] = {}
    for row in rows:
        training = TRAININGS[row.name]
        if training.network not in exact:
            exact[training.network] = _float_top1(training, data)
        top1 = exact[training.network]
        path = EXPORTS / f"{row.name}.gw"
        if not path.exists():
            raise FormatError(f"{path} must be there: it comes of bench/trainings.py, or of --train")
        converted, trained = _converted_top1(training, data), _measured(load(path), data)
        figures.append(_figures(row, training, top1, converted, trained))
        lines.append(_line(row, top1, converted, trained))
        data.say(" | ".join(lines[-1]))
    return Table(COLUMNS, lines), figures


def _figures(row: Row, training: Training, top1: float, converted: float, trained: Found) -> dict[str, Any]:
    return {
        **asdict(row),
        "command": training.command,
        "float_top1": top1,
        "converted_top1": converted,
        "trained": asdict(trained),
    }


def _line(row: Row, top1: float, converted: float, trained: Found) -> list[str]:
    return [
        row.title,
        row.bits,
        trained.array,
        percent(top1),
        percent(converted),
        "-" if trained.held_out is None else percent(trained.held_out, 1),
        f"**{percent(trained.top1)}**",
        percent(trained.error),
        percent(trained.top5),
        f"{trained.file_bytes:,}",
        f"{trained.compression:.2f}",
        f"{trained.bops / 1e6:,.0f}",
        percent(trained.relative_bops),
        f"{trained.cycles:,}",
        row.paper,
    ]
