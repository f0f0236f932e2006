"""Bayesian Bits on the LeNet-5 without padding and MNIST, in one mode at several strengths.

    python bench/bayesian.py JOB --data FOLDER --output FOLDER [--mode full] [--strengths 0.01 0.03] [--seed 0] ..

Trains the float network from scratch, then each strength from there, on all training images but 5,000, drawn by the
seed, on which strengths are chosen. Writes JOB-STRENGTH.gw, and in JOB.json settings, losses, the evolution of bits and
BOPs, and accuracies: of the last epoch on the held-out images, and of the exported integers on the test images.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gatewise.quant.bayesian import BayesianBits, BayesianSettings
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph
from gatewise.quant.networks import load_network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.progress import line
from gatewise.quant.quantized import accuracy
from gatewise.quant.trainable import TrainableGraph
from gatewise.quant.training import EpochReport, Progress, TrainingSettings, fine_tune, train, training_device
from gatewise.quant.training_data import TrainingImages
from gatewise.sim.atomic import write_json
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet, load_images

__all__ = ["NETWORK", "arguments", "main"]

NETWORK = "lenet5-unpadded"
HELD_OUT = 5000
CALIBRATION = 256
TEST_BATCH = 100


class Printed(Progress):
    """A line for each epoch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def epoch(self, report: EpochReport) -> None:
        """Print it."""
        bops = f", {100 * report.facts['bops']:.3f} % BOPs" if report.facts else ""
        print(f"{self.name}: {line(report)}{bops}", flush=True)


def float_start(images: ImageSet, training: TrainingSettings, device: str | None) -> tuple[Graph, InputSpec, float]:
    """The network trained in float32 from what the seed draws, its input, and top-1 on the held-out images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = load_network(NETWORK)
    graph, chosen = capture_unfolded(network.module, network.example), training_device(device)
    trainable = TrainableGraph(graph).to(chosen)
    history = train(
        trainable,
        TrainingImages.of(images, network.input, chosen),
        training,
        progress=Printed(f"float {training.seed}"),
    )
    return trainable.graph(), network.input, history[-1].held_out_top1


def fitted(
    name: str,
    start: tuple[Graph, InputSpec, float],
    images: ImageSet,
    test: ImageSet,
    settings: BayesianSettings,
    training: TrainingSettings,
    output: Path,
    device: str | None,
) -> dict[str, Any]:
    """Train, export and measure at one strength."""
    began = time.monotonic()
    graph, spec, _ = start
    quantizer = BayesianBits(graph, spec, settings, training)
    found = fine_tune(
        graph, spec, quantizer, images.images[:CALIBRATION], images, training, device=device, progress=Printed(name)
    )
    last = found.history[-1]
    facts = {
        "method": "bayesian", "source": NETWORK, "seed": training.seed, "strength": settings.strength,
        "mode": settings.mode, "bops": last.facts["bops"], "held_out_top1": last.held_out_top1,
    }  # fmt: skip
    network = export_network(found.quantized, f"{NETWORK}-{name}", facts)
    save_network(network, output / f"{name}.gw")
    trained = time.monotonic() - began
    right = accuracy(found.quantized.run(test.images, batch=TEST_BATCH), np.asarray(test.labels))
    print(f"{name}: {trained:.0f} s, {100 * last.facts['bops']:.3f} % BOPs, test {100 * right:.2f} %", flush=True)
    return {
        "name": name,
        **{key: value for key, value in facts.items() if key not in ("method", "source")},
        "test_top1": right,
        "test_images": len(test),
        "seconds": trained,
        "epochs": [asdict(report) for report in found.history],
    }


def arguments() -> argparse.ArgumentParser:
    """What the program is told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", help="name of the files that are written")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist/train.npz and mnist/test.npz")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--mode", choices=("full", "quantise", "prune"), default="full")
    parser.add_argument("--gates", choices=("hard_concrete", "gumbel"), default="hard_concrete")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.05])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--float-epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gate-rate", type=float, default=BayesianSettings.gate_rate)
    parser.add_argument("--range-rate", type=float, default=BayesianSettings.range_rate)
    parser.add_argument("--initial-gate", type=float, default=BayesianSettings.initial_gate)
    parser.add_argument("--images", type=int, default=None, help="training images (default: all)")
    parser.add_argument("--test-images", type=int, default=None, help="test images (default: all)")
    parser.add_argument("--device", default=None)
    return parser


def main() -> None:
    """Train all strengths of a job."""
    told = arguments().parse_args()
    torch.set_num_threads(1)
    images = load_images(told.data / "mnist" / "train.npz")[: told.images]
    test = load_images(told.data / "mnist" / "test.npz")[: told.test_images]
    training = TrainingSettings(
        told.float_epochs, told.seed, told.batch, "adam", told.learning_rate, weight_decay=0.0,
        held_out=min(HELD_OUT / len(images), 0.5),
    )  # fmt: skip
    told.output.mkdir(parents=True, exist_ok=True)
    start = float_start(images, training, told.device)
    training = replace(training, epochs=told.epochs)
    rows = []
    for strength in told.strengths:
        settings = BayesianSettings(
            strength, told.mode, gates=told.gates, gate_rate=told.gate_rate, range_rate=told.range_rate,
            initial_gate=told.initial_gate, coding="huffman",
        )  # fmt: skip
        name = f"{told.job}-{strength:g}"
        rows.append(fitted(name, start, images, test, settings, training, told.output, told.device))
        # Written anew after each, so that a job that is cut off leaves what it has.
        write_json(
            told.output / f"{told.job}.json",
            {
                "schema": 1,
                "settings": {**asdict(settings), "strength": told.strengths},
                "training": asdict(training),
                "float_epochs": told.float_epochs,
                "float_held_out_top1": start[2],
                "images": len(images),
                "runs": rows,
            },
        )


if __name__ == "__main__":
    main()
