"""FleXOR's trainings, their exports, and what these have right on the engine.

    python bench/flexor.py train OUT RUN [--seed N] [--epochs N] [--images N] [--data DIR] [--device cuda]
    python bench/flexor.py count OUT [--images N] [--data DIR]

`train` writes OUT.gw and OUT.json: one of `RUNS`. `count` adds to OUT.json what the export has right and how long it
takes, on the test images and the engine in whose order its signs stand. Nothing is chosen on test images: settings were
compared on the held-out training images, and the last epoch is what counts. Needs the data folder (GATEWISE_DATA, or
../shared/data beside the checkout).
"""

import argparse
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreed import agreement_facts
from gatewise import EngineConfig
from gatewise.quant.capture import capture_unfolded
from gatewise.quant.export import export_network
from gatewise.quant.flexor import FlexorSettings, account
from gatewise.quant.graph import Graph
from gatewise.quant.methods import METHODS, Quantisation, parse_settings
from gatewise.quant.networks import load_network
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.training import TrainingSettings, fine_tune, training_device
from gatewise.sim.atomic import write_json
from gatewise.sim.file import load, save_network
from gatewise.sim.images import ImageSet, load_images
from gatewise.sim.inspect import inspect_file
from lines import Lines, run_main
from paths import DATA, beside, read_facts

__all__ = ["ABLATED", "DIGIT_ENGINE", "ENGINE", "RUNS", "Run", "count", "main", "train"]

CALIBRATION = 64
ENGINE = EngineConfig(array="sign", decoder="xor")
DIGIT_ENGINE = EngineConfig()
"""Of the integer networks beside."""
SCORED = 500
"""Images at once."""


@dataclass(frozen=True)
class Run:
    """A training: network, method, its options as text (the training's among them), epochs."""

    network: str
    options: dict[str, str]
    epochs: int
    method: str = "flexor"

    @property
    def folder(self) -> str:
        """Of its images."""
        return "mnist" if self.network.startswith("lenet") else "cifar10"

    def weights(self, data: Path) -> Path | None:
        """The float weights that are given."""
        return None if self.folder == "mnist" else data / "cifar10" / "resnet20.safetensors"


ADAM = {"optimizer": "adam", "learning_rate": "0.001", "weight_decay": "0"}
LENET = ADAM | {"edges": "encrypted", "alpha": "0", "taps": "0", "batch": "100", "held_out": "0.08334"}
LENET |= {"slope": "100", "slope_start": "100", "slope_warmup": "0"}
RESNET = ADAM | {"n_in": "16", "begin": "float", "flip": "true", "crop": "4"}
BETTER = RESNET | {"spread": "0.03", "learning_rate": "0.003"}
"""Found better since, on smaller networks: signs last longer at the start, and steps are greater."""
INT4 = {"weight_bits": "4", "activation_bits": "8", "edge_bits": "8", "per_channel_weights": "true", "refresh": "true"}

RUNS = {
    **{f"lenet5-{n_in / 20}": Run("lenet5", LENET | {"n_in": str(n_in)}, 18) for n_in in (16, 12, 8)},
    "lenet5-0.8-taps2": Run("lenet5", LENET | {"n_in": "16", "taps": "2"}, 18),
    "lenet5-int4": Run("lenet5", ADAM | INT4 | {"batch": "100", "held_out": "0.08334"}, 12, "minmax"),
    "resnet20-0.8": Run("cifar-resnet20", RESNET, 60),
    "resnet20-0.8-better": Run("cifar-resnet20", BETTER, 60),
    "resnet20-0.8-noise": Run("cifar-resnet20", BETTER | {"begin": "random", "spread": "0.001"}, 60),
    "resnet20-0.47": Run("cifar-resnet20", BETTER | {"n_in": "19,16,7"}, 60),
    "resnet20-1.6": Run("cifar-resnet20", BETTER | {"planes": "2"}, 60),
    **{
        f"ablation-{gradient}": Run("cifar-resnet20", RESNET | {"gradient": gradient}, 30)
        for gradient in ("tanh", "straight-through", "analog", "real")
    },
}
"""By name."""
ABLATED = [name for name in RUNS if name.startswith("ablation-")]
"""Those that differ in the gradient alone, for several seeds."""


def settings_of(run: Run, seed: int, epochs: int) -> tuple[Any, TrainingSettings]:
    """The method's settings and the training's."""
    kind = METHODS[run.method].settings
    own = {each.name for each in fields(kind)}
    named: dict[str, object] = {key: value for key, value in run.options.items() if key in own}
    if "seed" in own:
        named["seed"] = seed
    rest: dict[str, object] = {key: value for key, value in run.options.items() if key not in own}
    training: TrainingSettings = parse_settings(TrainingSettings, rest | {"seed": seed, "epochs": epochs})
    return parse_settings(kind, named), training


def top1(graph: Graph, spec: InputSpec, test: ImageSet, device: torch.device) -> float:
    """Top-1 of a graph in float32."""
    right = 0
    for first in range(0, len(test), SCORED):
        part = test[first : first + SCORED]
        x = torch.from_numpy(spec.normalise(part.images)).to(device)
        right += int(np.sum(graph.run(x, torch.float32).argmax(1).cpu().numpy() == part.labels))
    return right / len(test)


def train(
    out: Path,
    name: str,
    seed: int = 0,
    epochs: int | None = None,
    images: int | None = None,
    data: Path = DATA,
    device: str | None = None,
) -> None:
    """Train one of the runs; write the export and what it came from."""
    began = time.monotonic()
    run = RUNS[name]
    settings, training = settings_of(run, seed, run.epochs if epochs is None else epochs)
    chosen = training_device(device)
    learnt, test = (load_images(data / run.folder / f"{part}.npz") for part in ("train", "test"))
    learnt = learnt[:images]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loaded = load_network(run.network, run.weights(data))
    graph = capture_unfolded(loaded.module, loaded.example)
    trained = fine_tune(
        graph, loaded.input, METHODS[run.method].quantizer(graph, loaded.input, settings, training),
        learnt.images[:CALIBRATION], learnt, training, device=device, progress=Lines(out.name),
    )  # fmt: skip
    provenance: dict[str, str | int | float] = {
        "source": run.network,
        "method": run.method,
        **{key: value if isinstance(value, int | float) else str(value) for key, value in asdict(settings).items()},
        "training_epochs": training.epochs,
        "training_images": len(learnt),
    }
    network = export_network(trained.quantized, run.network, provenance)
    size = save_network(network, beside(out, ".gw"))
    facts = {
        "schema": 1,
        "run": name,
        "seed": seed,
        "method": asdict(settings),
        "training": asdict(training),
        "images": len(learnt),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if chosen.type == "cuda" else "cpu",
        "seconds": round(time.monotonic() - began, 1),
        "bytes": size,
        "held_out_top1": trained.history[-1].held_out_top1 if trained.history else None,
        "real_activations_top1": top1(trained.graph, loaded.input, test, chosen),
        "epochs": [asdict(report) for report in trained.history],
    }
    if isinstance(settings, FlexorSettings):
        counted = account(trained.graph, settings)
        facts["encrypted_bits_per_weight"] = counted.encrypted_bits_per_weight
        facts["bits_per_weight"] = counted.bits_per_weight
    write_json(beside(out, ".json"), facts)
    print(f"{out.name} {size:,} bytes, {facts['seconds']} s", flush=True)
    compared = agreement_facts(Quantisation(trained.graph, trained.quantized, network), test)
    facts["agreement"] = compared
    write_json(beside(out, ".json"), facts)
    print(f"{out.name} integers that differ: {compared['worst_scale']:.2e}", flush=True)


def count(out: Path, images: int | None = None, data: Path = DATA) -> dict[str, Any]:
    """Count what an export has right on the test images, and its cycles; all that its JSON file says then."""
    path = beside(out, ".json")
    facts = read_facts(path)
    run = RUNS[facts["run"]]
    test = load_images(data / run.folder / "test.npz")[:images]
    network = load(beside(out, ".gw"))
    result = network.run(test, ENGINE if run.method == "flexor" else DIGIT_ENGINE)
    inspected = inspect_file(beside(out, ".gw"))
    facts |= {
        "test_images": len(test),
        "integer_top1": result.top(1),
        "cycles": int(result.cycles_per_image),
        "weight_bytes": inspected.coded_bytes,
        "float_bytes": inspected.float_bytes,
        "bytes_read": sum(layer.bytes_read for layer in result.layers),
    }
    write_json(path, facts)
    print(f"{out.name}: {100 * (result.top(1) or 0):.2f} % of {len(test)}, {facts['cycles']:,} cycles", flush=True)
    return facts


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("train", "count"):
        own = verbs.add_parser(verb)
        own.add_argument("out", type=Path)
        if verb == "train":
            own.add_argument("name", metavar="RUN", choices=list(RUNS), help=", ".join(RUNS))
            own.add_argument("--seed", type=int, default=0)
            own.add_argument("--epochs", type=int, default=None, help="(default: the run's own)")
            own.add_argument("--device", default=None, help="cuda where there is one unless given")
        own.add_argument("--images", type=int, default=None, help="(default: all)")
        own.add_argument("--data", type=Path, default=DATA)
    arguments = vars(parser.parse_args())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    {"train": train, "count": count}[arguments.pop("verb")](**arguments)


if __name__ == "__main__":
    run_main(main)
