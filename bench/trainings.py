"""All the trainings behind the tables of accuracies, side by side in processes, on a GPU where there is one.

    python bench/trainings.py OUT [--only NAME ..] [--processes N] [--resume DIR] [--epochs N] [--images N]
        [--device cuda]

writes to the folder OUT, for each training, the export ``NAME.gw`` and ``NAME.json`` with its settings and epochs; with
--resume there are checkpoints in DIR/NAME, from which the same command goes on. Needs the data folder (GATEWISE_DATA,
or ../shared/data beside the checkout), and of Python packages only what networks run with: no rich, no SciPy.

A tenth of the training images is held out and does not train. Learning rates and numbers of epochs were set before any
training; no test image is looked at.
"""

import argparse
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

from paths import DATA, TRAINED

__all__ = ["HESSIAN_IMAGES", "SWEEPS", "TRAININGS", "Training", "main", "run"]

CALIBRATION = 32
SECONDS_BETWEEN_LINES = 5


@dataclass(frozen=True)
class Training:
    """A method, its options as text (the training's among them), and how long it trains."""

    method: str
    options: dict[str, str]
    epochs: int
    network: str = "cifar-resnet20"
    seed: int = 0
    common: dict[str, str] = field(default_factory=lambda: {"flip": "true", "crop": "4"})

    @property
    def weights(self) -> Path:
        """The float weights that training begins with."""
        return DATA / "cifar10" / f"{self.network.removeprefix('cifar-')}.safetensors"

    @property
    def command(self) -> str:
        """What a user types for it."""
        options = [f"--option {shlex.quote(f'{key}={value}')}" for key, value in (self.common | self.options).items()]
        return (
            f"gatewise quantize --method {self.method} --network {self.network} --weights {self.weights.name} "
            f"--calibration train.npz --train train.npz --epochs {self.epochs} --seed {self.seed} {' '.join(options)}"
        )


def widths(weights: int, activations: int, **others: str) -> dict[str, str]:
    """Options that say how many bits."""
    return {"weight_bits": str(weights), "activation_bits": str(activations), **others}


ALLOCATED = {"allocate_weights": "true", "allocate_activations": "true"}


HESSIAN_IMAGES, SWEEPS = 512, 8
"""Of all traces of HAWQ-V2, here and on the page of results."""


def hawq(weights: str, activations: str = "8", **others: str) -> Training:
    """HAWQ-V2 within an average of bits, and what stands beside it."""
    bits = {"weight_bits": weights, "activation_bits": activations, "learning_rate": "0.003"}
    sweeps = {"hessian_images": str(HESSIAN_IMAGES), "least_sweeps": str(SWEEPS), "sweeps": str(SWEEPS)}
    return Training("hawq", bits | sweeps | others, 6)


HAWQ_RULES: dict[str, dict[str, str]] = {
    "ordered": {},
    "integer": {"selection": "integer"},
    "l2": {"selection": "integer", "metric": "l2"},
    "highest": {"selection": "highest"},
}
TRAININGS = {
    **{f"hawq-uniform-w{bits}": hawq(bits, weight_choices=bits) for bits in ("3", "4")},
    **{
        f"hawq-w{bits}-{rule}": hawq(bits, **options)
        for bits in ("3", "3.5", "4")
        for rule, options in HAWQ_RULES.items()
    },
    "hawq-w4a6-integer": hawq("4", "6", selection="integer"),
    "resnet20-fixed8": Training("fixed8", {"learning_rate": "0.003"}, 15),
    "resnet20-minmax-w4a4": Training("minmax", widths(4, 4, per_channel_weights="true", learning_rate="0.01"), 40),
    "resnet20-aciq-w4a4": Training("aciq", {"learning_rate": "0.003"}, 15),
    "resnet20-aciq-all-w4a4": Training("aciq", widths(4, 4, learning_rate="0.003", **ALLOCATED), 5),
    "resnet20-aciq-all-w3a3": Training("aciq", widths(3, 3, learning_rate="0.003", **ALLOCATED), 5),
    "resnet32-aciq-all-w4a4": Training(
        "aciq", widths(4, 4, learning_rate="0.003", **ALLOCATED), 5, network="cifar-resnet32"
    ),
    "resnet20-inq-w5": Training("inq", widths(5, 8, learning_rate="0.01"), 40),
    "resnet20-inq-w4": Training("inq", widths(4, 8, learning_rate="0.01"), 40),
    "resnet20-lqnet-w2a2": Training("lqnet", widths(2, 2, learning_rate="0.02"), 60),
    "resnet20-abcnet-w5a5": Training("abcnet", widths(5, 5, learning_rate="0.01"), 40),
}
"""Of the tables, by the names of their exports."""


def run(
    name: str,
    training: Training,
    out: Path,
    *,
    images: int | None = None,
    device: str | None = None,
    resume: Path | None = None,
) -> str:
    """Train, and write the export and what it came from; the last epoch in a line."""
    import torch
    from gatewise.quant.methods import quantize
    from gatewise.sim.atomic import write_json
    from gatewise.sim.file import save_network
    from gatewise.sim.images import load_images
    from lines import Lines

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    began = time.monotonic()

    pictures = load_images(DATA / "cifar10" / "train.npz")
    with tempfile.TemporaryDirectory() as scratch:
        kept = resume and resume / name
        if training.method == "hawq":
            kept = kept or Path(scratch)
            _begin_with_traces(kept)
        found = quantize(
            training.method, training.network, str(training.weights), pictures, images=CALIBRATION,
            options=training.common | training.options, train=pictures[:images], epochs=training.epochs,
            seed=training.seed, resume=kept, device=device, progress=Lines(name, SECONDS_BETWEEN_LINES),
        )  # fmt: skip
    size = save_network(found.network, out / f"{name}.gw")
    facts = {
        "schema": 1,
        "command": training.command,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() and device != "cpu" else "cpu",
        "seconds": round(time.monotonic() - began, 1),
        "epochs": [report.to_json() for report in found.history],
    }
    write_json(out / f"{name}.json", facts)
    held = f", held out {100 * found.history[-1].held_out_top1:.1f} %" if found.history else ""
    return f"{name}: {size:,} bytes, {len(found.history)} epochs{held}, {facts['seconds']} s"


def _begin_with_traces(folder: Path) -> None:
    """Give a training of HAWQ-V2 the traces' samples that are kept, so that it chooses what the page shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for tensors in ("weights", "activations"):
        samples, own = TRAINED / f"hawq-{tensors}.json", folder / f"hessian-{tensors}.json"
        if samples.exists() and not own.exists():
            shutil.copyfile(samples, own)


def main() -> None:
    """Run the trainings that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--only", nargs="+", choices=sorted(TRAININGS), help="these trainings (default: all)")
    parser.add_argument("--processes", type=int, default=None, help="at once (default: all on a GPU, else one)")
    parser.add_argument("--resume", type=Path, default=None, help="folder of checkpoints (default: none are kept)")
    parser.add_argument("--epochs", type=int, default=None, help="of every training (default: its own)")
    parser.add_argument("--images", type=int, default=None, help="training images (default: all)")
    parser.add_argument("--device", default=None, help="cuda where there is one unless given")
    arguments = parser.parse_args()
    if not (DATA / "cifar10").is_dir():
        sys.exit(f"error: the data folder must hold cifar10/: set GATEWISE_DATA, found nothing at {DATA}")
    import torch

    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.only or list(TRAININGS)
    on_gpu = arguments.device != "cpu" and torch.cuda.is_available()
    processes = min(arguments.processes or (len(names) if on_gpu else 1), len(names))
    tasks = {}
    for name in names:
        training = TRAININGS[name]
        tasks[name] = training if arguments.epochs is None else replace(training, epochs=arguments.epochs)
    settings = {"images": arguments.images, "device": arguments.device, "resume": arguments.resume}
    if processes == 1:
        for name, training in tasks.items():
            print(run(name, training, arguments.out, **settings), flush=True)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run, name, training, arguments.out, **settings) for name, training in tasks.items()]
        for future in as_completed(futures):
            print(future.result(), flush=True)


if __name__ == "__main__":
    main()
