"""Batch norms of an exported ResNet-20 measured anew, on images that are augmented as in its training.

    python bench/renorm.py IN.gw OUT.gw [--data DIR] [--images 1024] [--seed 0]

For exports of trainings that measured their norms on images that were neither mirrored nor moved, with weights that had
learnt with the black that moved images bring along. What such a norm made of those images has the mean and the
deviation that it learnt (its bias and weight), channel by channel; every layer in turn is given these on augmented
images. Only multipliers and biases change, labels are not used, held-out images are not seen. The network is evaluated
in float32, without rounding its activations, batch by batch as in training.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from focused import DATA, NETWORK
from gatewise.kernels.errors import UnsupportedError
from gatewise.quant.capture import capture
from gatewise.quant.graph import Conv2d, Graph, Hook, Node
from gatewise.quant.networks import load_network
from gatewise.quant.training import TrainingSettings
from gatewise.quant.training_data import Augmentation, TrainingImages, epoch_generator
from gatewise.sim.file import load, payload_digest, save_network
from gatewise.sim.fixed_point import fixed_multiplier, real_multiplier, smallest_signed
from gatewise.sim.graph import PlaneWeights
from gatewise.sim.images import load_images
from gatewise.sim.network import Network
from lines import run_main
from torch import Tensor

__all__ = ["main", "renormalised"]

BATCH = 128
MULTIPLIER_BITS = 31
LEAST = 1e-5
"""Deviation of a channel that is not dead."""


def real_layers(network: Network, graph: Graph) -> Graph:
    """The folded float graph with the weights and biases that the file's integers stand for."""
    parameters = dict(graph.parameters)
    for name in parameters:
        node, layer = network.node(name), network.layers[name]
        if isinstance(node.weights, PlaneWeights) or layer.scale is None or node.align is not None:
            raise UnsupportedError(f"{name}: norms of layers of planes, thresholds or alignment are not measured anew")
        source, out = network.values[node.inputs[0]].codes, network.values[name].codes
        scale = layer.scale
        factor = real_multiplier(scale.multiplier, scale.shift) * out.scale * np.ones(len(layer.weights))
        lift = 2.0**node.fraction
        weights = layer.weights.astype(np.float64) * lift
        if node.zero_term:
            weights = weights - network.arrays[f"{name}.zero"].astype(np.float64).reshape(-1, 1, 1, 1)
        bias = network.arrays[f"{name}.bias"] + source.zero_point * weights.sum(axis=(1, 2, 3))
        real = weights * (factor / source.scale).reshape(-1, 1, 1, 1)
        parameters[name] = parameters[name]._replace(
            weight=real.reshape(parameters[name].weight.shape), bias=factor * bias
        )
    return Graph(graph.nodes, parameters, graph.output)


class _Moments(Hook):
    """Means and variances of convolutions' results over batches, which it may bring to given ones as it goes."""

    def __init__(self, wanted: dict[str, tuple[Tensor, Tensor]] | None = None) -> None:
        self.wanted = wanted
        self.batches = 0
        self.found: dict[str, tuple[Tensor, Tensor]] = {}

    def preactivation(self, node: Node, value: Tensor) -> Tensor:
        if not isinstance(node, Conv2d):
            return value
        variance, mean = torch.var_mean(value, (0, 2, 3))
        before = self.found.get(node.name, (torch.zeros_like(mean), torch.zeros_like(mean)))
        self.found[node.name] = (before[0] + mean, before[1] + variance)
        if self.wanted is None:
            return value
        target, deviation = self.wanted[node.name]
        factor = torch.where(_dead(variance.sqrt(), deviation), 1.0, deviation / variance.sqrt())
        return value * factor.reshape(-1, 1, 1) + (target - factor * mean).reshape(-1, 1, 1)

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and deviation of each layer's channels."""
        return {
            name: (mean / self.batches, (variance / self.batches).sqrt())
            for name, (mean, variance) in self.found.items()
        }


def _dead(found: Tensor, wanted: Tensor) -> Tensor:
    """Channels that are the same everywhere stay as they are."""
    return (found < LEAST) | (wanted < LEAST)


def renormalised(network: Network, graph: Graph, images: TrainingImages, settings: TrainingSettings) -> Network:
    """The network with norms of augmented `images`; `graph` is its float form, folded."""
    real = real_layers(network, graph)

    def measured(hook: _Moments, augmentation: Augmentation) -> dict[str, tuple[Tensor, Tensor]]:
        with torch.no_grad():
            for x, _ in images.shuffled(BATCH, epoch_generator(settings.seed, settings.epochs), augmentation):
                real.run(x, torch.float32, hook)
                hook.batches += 1
        return hook.moments()

    wanted = measured(_Moments(), Augmentation())
    found = measured(_Moments(wanted), Augmentation(settings.flip, settings.crop))
    arrays = dict(network.arrays)
    for name, (mean, deviation) in found.items():
        target, kept = wanted[name]
        dead = _dead(deviation, kept)
        ratio = torch.where(dead, 1.0, kept / deviation).double().numpy()
        moved = torch.where(dead, target, mean).double().numpy()
        scale = network.layers[name].scale
        assert scale is not None
        multiplier = real_multiplier(scale.multiplier, scale.shift)
        step = np.where(multiplier > 0, multiplier, 1) * network.values[name].codes.scale
        arrays[f"{name}.multiplier"], arrays[f"{name}.shift"] = fixed_multiplier(multiplier * ratio, MULTIPLIER_BITS)
        bias = arrays[f"{name}.bias"] + (target.double().numpy() / ratio - moved) / step
        arrays[f"{name}.bias"] = smallest_signed(np.rint(bias).astype(np.int64))
    manifest = network.manifest
    provenance = manifest.provenance | {"norms": "measured anew on augmented images"}
    return Network(
        manifest.model_copy(update={"payload_sha256": payload_digest(arrays), "provenance": provenance}), arrays
    )


def main() -> None:
    """Write the export with its norms measured anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = TrainingSettings(seed=arguments.seed, flip=True, crop=4)
    loaded = load_network(NETWORK, arguments.data / "cifar10" / "resnet20.safetensors")
    images = TrainingImages.of(load_images(arguments.data / "cifar10" / "train.npz"), loaded.input)
    own = images.split(settings.held_out, settings.seed)[0]
    part = TrainingImages(own.pixels[: arguments.images], own.labels[: arguments.images], own.spec)
    made = renormalised(load(arguments.source), capture(loaded.module, loaded.example), part, settings)
    print(f"{arguments.out}: {save_network(made, arguments.out):,} bytes")


if __name__ == "__main__":
    run_main(main)
