"""Bayesian Bits' trainings on MNIST by the LeNet-5 without padding, their exports, and what these have right.

    python bench/bayesian.py train OUT [--mode full] [--strengths 0.1 0.3] [--seed N] [--epochs N] [--data DIR] ..
    python bench/bayesian.py count OUT [--images N] [--data DIR]

`train` trains the float network from scratch, and each strength from there, on all training images but 5,000, which the
seed draws and on which strengths are chosen. It writes OUT-STRENGTH.gw, in OUT.json settings, losses and the evolution
of bits and BOPs, and where the mode is "full" the float network with 4 bits and without training, OUT-int4.gw. `count`
adds to OUT.json what the exports have right on the test images, and their cycles. The last epoch is what counts. Needs
the data folder (GATEWISE_DATA, or ../shared/data beside the checkout).
"""

import argparse
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import torch
from agreed import agreement_facts
from gatewise import EngineConfig
from gatewise.quant.bayesian import BayesianBits, BayesianSettings, Gates, Mode
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph
from gatewise.quant.methods import Quantisation
from gatewise.quant.minmax import MinMaxSettings, minmax
from gatewise.quant.networks import load_network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.statistics import collect
from gatewise.quant.trainable import TrainableGraph
from gatewise.quant.training import (
    Trained,
    TrainingSettings,
    fine_tune,
    train,
    training_device,
)
from gatewise.quant.training_data import TrainingImages
from gatewise.sim.atomic import write_json
from gatewise.sim.file import load, save_network
from gatewise.sim.images import ImageSet, load_images
from gatewise.sim.inspect import inspect_file
from gatewise.sim.prune import pruned
from gatewise.sim.run import run
from lines import Lines, run_main
from paths import DATA, beside, read_facts

__all__ = ["ENGINES", "NETWORK", "count", "main", "train_all"]

NETWORK = "lenet5-unpadded"
HELD_OUT = 5000
CALIBRATION = 256
ENGINES = {array: EngineConfig(array=array) for array in ("digit", "fusion")}


def float_start(
    name: str, images: ImageSet, training: TrainingSettings, device: str | None
) -> tuple[Graph, InputSpec, float]:
    """The network trained in float32 from what the seed draws, its input, and top-1 on the held-out images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = load_network(NETWORK)
    graph, chosen = capture_unfolded(network.module, network.example), training_device(device)
    trainable = TrainableGraph(graph).to(chosen)
    data = TrainingImages.of(images, network.input, chosen)
    history = train(trainable, data, training, progress=Lines(f"{name} float"))
    return trainable.graph(), network.input, history[-1].held_out_top1


def four_bits(start: tuple[Graph, InputSpec, float], images: ImageSet, path: Path) -> None:
    """Write the float network in 4 bits, by the extremes of weights and activations."""
    graph, spec, _ = start
    folded = graph.folded()
    statistics = collect(folded, torch.from_numpy(spec.normalise(images.images[:CALIBRATION])))
    quantized = minmax(folded, spec, statistics, MinMaxSettings(per_channel_weights=True))
    save_network(export_network(quantized, f"{NETWORK}-int4", {"method": "minmax", "source": NETWORK}), path)


def train_all(told: argparse.Namespace) -> None:
    """Train a job's strengths, one after another."""
    images = load_images(told.data / "mnist" / "train.npz")[: told.images]
    test = load_images(told.data / "mnist" / "test.npz")
    training = TrainingSettings(
        told.float_epochs, told.seed, told.batch, "adam", told.learning_rate, weight_decay=0.0, crop=told.crop,
        held_out=min(HELD_OUT / len(images), 0.5),
    )  # fmt: skip
    out: Path = told.out
    out.parent.mkdir(parents=True, exist_ok=True)
    start = float_start(out.name, images, training, told.device)
    if told.mode == "full":
        four_bits(start, images, beside(out, "-int4.gw"))
    training = replace(training, epochs=told.epochs)
    settings = BayesianSettings(
        mode=told.mode, gates=told.gates, gate_rate=told.gate_rate, range_rate=told.range_rate,
        initial_gate=told.initial_gate, coding="huffman",
    )  # fmt: skip
    content: dict[str, Any] = {
        "schema": 1,
        "network": NETWORK,
        "settings": asdict(settings),
        "training": asdict(training),
        "float_epochs": told.float_epochs,
        "float_held_out_top1": start[2],
        "images": len(images),
        "runs": [],
    }
    kept = []
    for strength in told.strengths:
        began = time.monotonic()
        name = f"{out.name}-{strength:g}"
        found = _trained(name, start, images, replace(settings, strength=strength), training, told.device)
        last = found.history[-1]
        facts = {"bops": last.facts["bops"], "held_out_top1": last.held_out_top1}
        provenance = {"method": "bayesian", "source": NETWORK, "seed": training.seed, "strength": strength, **facts}
        network = export_network(found.quantized, f"{NETWORK}-{name}", {**provenance, "mode": told.mode})
        size = save_network(network, beside(out, f"-{strength:g}.gw"))
        seconds = round(time.monotonic() - began, 1)
        epochs = [asdict(report) for report in found.history]
        content["runs"].append({"strength": strength, **facts, "seconds": seconds, "epochs": epochs})
        # Written anew each time: a job that is cut off leaves what it has.
        write_json(beside(out, ".json"), content)
        print(f"{name} {100 * facts['bops']:.3f} % BOPs, {size:,} bytes, {seconds} s", flush=True)
        kept.append(Quantisation(found.graph, found.quantized, network, found.history))
    for each, facts in zip(kept, content["runs"], strict=True):
        facts["agreement"] = agreement_facts(each, test)
        write_json(beside(out, ".json"), content)


def _trained(
    name: str,
    start: tuple[Graph, InputSpec, float],
    images: ImageSet,
    settings: BayesianSettings,
    training: TrainingSettings,
    device: str | None,
) -> Trained:
    graph, spec, _ = start
    quantizer = BayesianBits(graph, spec, settings, training)
    calibration = images.images[:CALIBRATION]
    return fine_tune(graph, spec, quantizer, calibration, images, training, device=device, progress=Lines(name))


def count(out: Path, images: int | None = None, data: Path = DATA) -> None:
    """Count what those of a job's exports that are there have right on the test images, and their cycles by array."""
    path = beside(out, ".json")
    content = read_facts(path)
    test = load_images(data / "mnist" / "test.npz")[:images]
    for facts in content["runs"]:
        export = beside(out, f"-{facts['strength']:g}.gw")
        if not export.exists():
            continue
        facts |= counted(export, test)
        print(f"{out.name}-{facts['strength']:g} {100 * facts['integer_top1']:.2f} % of {len(test)}", flush=True)
    if beside(out, "-int4.gw").exists():
        content["int4"] = counted(beside(out, "-int4.gw"), test)
    write_json(path, content)


def _count(told: argparse.Namespace) -> None:
    count(told.out, told.images, told.data)


def counted(path: Path, test: ImageSet) -> dict[str, Any]:
    """An export's figures: top-1, BOPs without pruned channels, bytes, and cycles by array."""
    network = load(path)
    facts: dict[str, Any] = {}
    for array, engine in ENGINES.items():
        images = test if not facts else test[:1]  # cycles do not depend on images
        result = run(pruned(network, engine), images, engine, whole=network)
        if not facts:
            facts = {"test_images": len(test), "integer_top1": result.top(1), "relative_bops": result.relative_bops}
        facts |= {f"cycles_{array}": result.cycles_per_image, f"bytes_read_{array}": result.bytes_read}
    inspected = inspect_file(path)
    return {**facts, "weight_bytes": inspected.coded_bytes, "file_bytes": inspected.file_bytes}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for verb, does in (("train", train_all), ("count", _count)):
        own = verbs.add_parser(verb)
        own.set_defaults(does=does)
        own.add_argument("out", type=Path)
        own.add_argument("--images", type=int, default=None, help="(default: all)")
        own.add_argument("--data", type=Path, default=DATA)
        if verb == "count":
            continue
        own.add_argument("--mode", choices=get_args(Mode), default="full")
        own.add_argument("--gates", choices=get_args(Gates), default="hard_concrete")
        own.add_argument("--strengths", type=float, nargs="+", default=[0.1])
        for name, default in (("seed", 0), ("epochs", 30), ("float-epochs", 6), ("batch", 512), ("crop", 0)):
            own.add_argument(f"--{name}", type=int, default=default)
        own.add_argument("--learning-rate", type=float, default=1e-3)
        for name in ("gate_rate", "range_rate", "initial_gate"):
            own.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(BayesianSettings, name))
        own.add_argument("--device", default=None, help="cuda where there is one unless given")
    told = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    told.does(told)


if __name__ == "__main__":
    run_main(main)
