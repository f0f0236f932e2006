"""Focused quantisation of ResNet-20: a training, its export, and what each stage costs and has right.

    python bench/focused.py OUT [--data DIR] [--epochs N] [--seed N] [--images N] [--device cuda] [--option k=v ..]

writes OUT.gw and OUT.json. The stages are those of the paper's size breakdown: dense, pruned (a bit a weight says which
are there), encoded (runs of zeros in Huffman codes) and quantised, which is the whole ``.gw`` file. Nothing
is chosen on test images: they are counted at each stage, and settings are compared on the held-out training images.
Needs the data folder (GATEWISE_DATA, or ../shared/data beside the checkout).
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreed import agreement_facts
from gatewise.kernels.huffman import HuffmanCode, entropy
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.focused import FocusedSettings, FocusedTraining
from gatewise.quant.graph import Graph
from gatewise.quant.methods import Quantisation, parse_settings
from gatewise.quant.networks import load_network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.pruning import sparse_bytes
from gatewise.quant.quantized import EncodedWeights, QuantizedGraph
from gatewise.quant.statistics import Statistics
from gatewise.quant.trainable import TrainableGraph
from gatewise.quant.training import TrainingSettings, fine_tune, training_device
from gatewise.quant.training_data import TrainingImages
from gatewise.sim.atomic import write_json
from gatewise.sim.engine import EngineConfig
from gatewise.sim.file import load, save_network
from gatewise.sim.images import ImageSet, load_images
from lines import Lines, run_main
from paths import DATA, beside
from torch import Tensor
from torch.nn import functional

NETWORK = "cifar-resnet20"
CALIBRATION = 32
EPOCHS = 80
RECIPE: dict[str, object] = {"learning_rate": 0.02, "flip": True, "crop": 4}
"""Of the training, unless options say otherwise."""
ENGINE = EngineConfig(array="shift", decoder="huffman")


def tops(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1 and top-5, of equal logits the first."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5] == labels[:, None]
    return {"top1": float(order[:, 0].mean()), "top5": float(order.any(axis=1).mean())}


class _Kept(FocusedTraining):
    """Keeps the network that it was asked to quantise."""

    network: TrainableGraph

    def quantized(self, network: TrainableGraph, spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        object.__setattr__(self, "network", network)  # no child: this is the network's own
        return super().quantized(network, spec, statistics)


def float_tops(network: Callable[[Tensor], Tensor], inputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1, top-5 and mean cross-entropy of a network of floats."""
    with torch.no_grad():
        logits = torch.cat([network(part).cpu().double() for part in torch.from_numpy(inputs).split(100)])
    loss = functional.cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)))
    return {**tops(logits.numpy(), labels), "loss": float(loss)}


def on_device(graph: Graph, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A graph's float32 function."""
    return lambda x: graph.run(x.to(device), torch.float32)


def count(path: Path, test: ImageSet) -> dict[str, float]:
    """Top-1, top-5 and cycles of an export on the engine."""
    result = load(path).run(test, ENGINE)
    return {"top1": result.top(1) or 0.0, "top5": result.top(5) or 0.0, "cycles": int(result.cycles_per_image)}


def layers(quantized: QuantizedGraph) -> list[dict[str, Any]]:
    """Of each layer: scheme, shape, share of zeros, and bits a weight as stored, by Huffman and by entropy."""
    found: list[dict[str, Any]] = []
    for layer in quantized.layers:
        weights = layer.weights
        facts: dict[str, Any] = {"name": layer.name, "scheme": "int", "bits": weights.bits}
        if isinstance(weights, EncodedWeights):
            codes = np.asarray(weights.codes.values)
            counts = np.bincount(codes.reshape(-1).astype(np.int64), minlength=1 << weights.bits)
            facts |= {
                "scheme": weights.codes.spec.scheme,
                "shape": list(codes.shape),
                "zeros": round(float(np.mean(weights.parts == 0)), 4),
                "symbols": int(np.count_nonzero(counts)),
                "huffman_bits": round(HuffmanCode.of(counts).average_bits(counts), 4),
                "entropy_bits": round(float(entropy(counts)), 4),
            }
        found.append(facts)
    return found


def measure(
    out: Path,
    chosen: list[str],
    epochs: int,
    seed: int = 0,
    *,
    data: Path = DATA,
    images: int | None = None,
    tested: int | None = None,
    device: str | None = None,
    run: bool = True,
) -> dict[str, Any]:
    """Train, export and count; writes both files and returns what the JSON file holds.

    `out` is their path without suffix, `chosen` are options as text; `images` and `tested` limit the images; without
    `run` the test images' integers are left to another time. A few are held to the fake-quantised layers in any case.
    """
    began = time.monotonic()
    options = dict(text.partition("=")[::2] for text in chosen)
    method = {key: value for key, value in options.items() if key in FocusedSettings.__dataclass_fields__}
    settings: FocusedSettings = parse_settings(FocusedSettings, {"seed": seed} | method)
    rest = {key: value for key, value in options.items() if key not in method}
    training: TrainingSettings = parse_settings(TrainingSettings, RECIPE | {"epochs": epochs, "seed": seed} | rest)
    folder, where = data / "cifar10", training_device(device)
    loaded = load_network(NETWORK, folder / "resnet20.safetensors")
    graph = capture_unfolded(loaded.module, loaded.example)
    train, test = load_images(folder / "train.npz"), load_images(folder / "test.npz")[:tested]
    quantizer = _Kept(loaded.input, settings, training)
    trained = fine_tune(
        graph, loaded.input, quantizer, train.images[:CALIBRATION], train[:images], training,
        device=device, progress=Lines(out.name),
    )  # fmt: skip
    provenance: dict[str, str | int | float] = {
        "source": NETWORK,
        "method": "focused",
        "seed": seed,
        "epochs": epochs,
        "options": " ".join(chosen),
    }
    network = export_network(trained.quantized, NETWORK, provenance)
    size = save_network(network, beside(out, ".gw"))
    assert test.labels is not None
    inputs = loaded.input.normalise(test.images)
    assert quantizer.pruned is not None
    pruned = quantizer.pruned.folded()
    sparse = sparse_bytes(pruned)
    dense, left = (float_tops(on_device(each, where), inputs, test.labels) for each in (graph.folded(), pruned))
    pixels, labels = _held_out(train[:images], training)
    quantised = quantizer.network.to(where).eval()
    integer = count(beside(out, ".gw"), test) if run else {}
    stages = {
        "dense": {"bytes": sparse["dense"], **dense},
        "pruned": {"bytes": sparse["pruned"], **left},
        "encoded": {"bytes": sparse["encoded"], **left},
        "quantised": {"bytes": size, **integer},
    }
    facts = layers(trained.quantized)
    found = {
        "schema": 1,
        "options": chosen,
        "settings": asdict(settings),
        "training": asdict(training),
        "test_images": len(test),
        "held_out": float_tops(lambda x: quantised(x.to(where)), loaded.input.normalise(pixels), labels),
        "stages": stages,
        "compression": sparse["dense"] / size,
        "fake_quantised": float_tops(lambda x: quantised(x.to(where)), inputs, test.labels),
        "schemes": dict(Counter(layer["scheme"] for layer in facts)),
        "layers": facts,
        "epochs": [asdict(report) for report in trained.history],
        "device": str(where),
        "seconds": round(time.monotonic() - began, 1),
    }
    # Written before what takes the integers: a job that is cut off leaves what it has.
    write_json(beside(out, ".json"), found)
    found["agreement"] = agreement_facts(Quantisation(trained.graph, trained.quantized, network), test)
    write_json(beside(out, ".json"), found)
    return found


def _held_out(images: ImageSet, training: TrainingSettings) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels that did not train."""
    held = TrainingImages.of(images, InputSpec((3, 32, 32))).split(training.held_out, training.seed)[1]
    return held.pixels.numpy(), held.labels.numpy()


def main() -> None:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="of the two files, without suffix")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=None, help="training images (default: all)")
    parser.add_argument("--test", type=int, default=None, help="test images (default: all)")
    parser.add_argument("--device", default=None)
    parser.add_argument("--no-run", dest="run", action="store_false", help="leave the integers to another time")
    parser.add_argument("--option", action="append", default=[], metavar="K=V", help="of the method or the training")
    arguments = parser.parse_args()
    found = measure(
        arguments.out, arguments.option, arguments.epochs, arguments.seed, data=arguments.data,
        images=arguments.images, tested=arguments.test, device=arguments.device, run=arguments.run,
    )  # fmt: skip
    for stage, facts in found["stages"].items():
        print(stage, facts)
    print(f"agreement {found['agreement']}")
    print(f"compression {found['compression']:.2f}, held out {found['held_out']}, {found['seconds']} s")


if __name__ == "__main__":
    run_main(main)
