"""How fast whole networks are: images a second of `gatewise run` beside float32 PyTorch on the same graph.

    python bench/networks.py [--repeat 5] [--batch 16] [--threads 1 2] [--network resnet18 ..] [--cpu-time]

A run is values, overflow counts and cycles, from uint8 images on, its kernels compiled and its weights packed before.
PyTorch runs the same layers with weights of the same shapes, batch norms folded and ReLUs in place, eager, in both
memory orders; float images are made before. Ours and theirs alternate in one process, each after a run that is not
timed; rows show medians and the ratio to the faster of the two.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from fast import alternate
from gatewise import EngineConfig, Network
from gatewise.sim.file import load
from gatewise.sim.manifest import (
    AddNode,
    ChannelPadNode,
    Conv2dNode,
    FlattenNode,
    GlobalAveragePoolNode,
    LinearNode,
    MaxPoolNode,
    RequantiseNode,
    StrideSliceNode,
)
from gatewise.sim.run import run
from gatewise.sim.shapes import mobilenet, noise, resnet18, resnet20, resnet50
from paths import TRAINED, TRAINED_NETWORKS
from rich.console import Console
from rich.table import Table

NETWORKS: dict[str, Callable[[], Network]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet": mobilenet,
    "resnet20": partial(resnet20, "resnet20", noise(4)),
}
SCHEMES: dict[str, Callable[[], Network]] = {
    name: partial(load, TRAINED / f"{stem}.gw") for name, stem in TRAINED_NETWORKS.items()
}
"""ResNet-20s that were trained in each scheme, on engines that run them."""
SMALL_IMAGES = 64
"""Of CIFAR-10: as many as `gatewise run` takes at a time unless told."""
ENGINE = EngineConfig(act_bytes=8 << 20)
"""Of the shapes."""


class FloatNetwork:
    """The graph of a network in float32: what a user would run without it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.weights = {
            name: torch.from_numpy(layer.weights.astype(np.float32)) for name, layer in network.layers.items()
        }

    @torch.inference_mode()
    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (N, C, H, W)."""
        functional = torch.nn.functional
        live = {self.network.manifest.input.name: x}
        for node in self.network.manifest.nodes:
            first, *others = (live[name] for name in node.inputs)
            match node:
                case Conv2dNode():
                    made = functional.conv2d(
                        first, self.weights[node.name], None, node.stride, node.padding[:2], node.dilation,
                        self.network.layers[node.name].shape.groups,
                    )  # fmt: skip
                    made = made if node.out.signed else made.relu_()
                case LinearNode():
                    made = first.flatten(1) @ self.weights[node.name].flatten(1).T
                case AddNode():
                    made = (first + others[0]).relu_()
                case MaxPoolNode():
                    made = functional.max_pool2d(first, node.kernel, node.stride, node.padding[0])
                case GlobalAveragePoolNode():
                    made = first.mean((2, 3), keepdim=True)
                case StrideSliceNode():
                    made = first[:, :, :: node.stride[0], :: node.stride[1]]
                case ChannelPadNode():
                    made = functional.pad(first, (0, 0, 0, 0, node.before, node.after))
                case RequantiseNode() | FlattenNode():
                    made = first  # a copy of fewer bits: a float network has none
                case _:
                    raise TypeError(f"{node.op} must be one of a float network's operations")
            live[node.name] = made
        return live[self.network.output]


def measure(
    network: Network, engine: EngineConfig | None, batch: int, threads: int, repeat: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds a batch, by who runs it."""
    images = np.random.default_rng(0).integers(0, 256, (batch, *network.manifest.input.shape), dtype=np.uint8)
    floats = FloatNetwork(network)
    x = torch.from_numpy(images).float() / 255
    last = x.contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(threads)
    runs = {
        "gatewise": partial(run, network, images, engine, batch=batch),
        "torch": partial(floats.run, x),
        "channels_last": partial(floats.run, last),
    }
    for work in runs.values():
        work()
    return alternate(runs, repeat, clock)


def network_rows(
    names: Sequence[str], threads: Sequence[int], batch: int, repeat: int, clock: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """Images a second by who runs them."""
    cores = sorted(os.sched_getaffinity(0))
    for name in names:
        shape = name in NETWORKS
        network, engine = (NETWORKS[name](), ENGINE) if shape else (SCHEMES[name](), None)
        batches = [batch] * shape + [SMALL_IMAGES] * (name == "resnet20" or not shape)
        for images, count in product(dict.fromkeys(batches), threads):
            os.sched_setaffinity(0, cores[:count])  # `run` takes as many threads as there are cores
            try:
                times = measure(network, engine, images, count, repeat, clock)
            finally:
                os.sched_setaffinity(0, cores)
            rates = {who: images / each for who, each in times.items()}
            yield {"network": name, "images": images, "threads": count, "rates": rates}


def ratio(row: dict[str, Any]) -> float:
    """Ours to the faster of torch's two."""
    rates = row["rates"]
    return float(rates["gatewise"] / max(rates["torch"], rates["channels_last"]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*NETWORKS, *SCHEMES]
    parser.add_argument("--repeat", type=int, default=5, help="timed runs of each (default 5)")
    parser.add_argument("--batch", type=int, default=16, help="images of a run (default 16)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="cores that may be used (default 1 2)")
    parser.add_argument("--network", nargs="+", choices=names, default=names)
    parser.add_argument("--cpu-time", action="store_true", help="processor time: where others work too, on one core")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    console = Console(width=120)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(
        f"{platform.processor() or platform.machine()}, {llvmlite.binding.get_host_cpu_name()}, load {load}, "
        f"{'processor' if options.cpu_time else 'wall-clock'} time, medians of {options.repeat}"
    )
    table = Table("network", "images", "threads", "gatewise", "torch", "channels_last", "ratio",
                  title="images a second, by images of a batch", title_justify="left")  # fmt: skip
    for row in network_rows(options.network, options.threads, options.batch, options.repeat, clock):
        rates = (f"{each:.1f}" for each in row["rates"].values())
        table.add_row(row["network"], str(row["images"]), str(row["threads"]), *rates, f"{ratio(row):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
