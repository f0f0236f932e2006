"""Curvature of the loss: Hessian traces layer by layer, of weights and of activations, and the largest eigenvalues.

Sources: Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks" (NeurIPS 2020), section
3.1 (weights) and equations 8 and 9 (activations); Hutchinson, "A stochastic estimator of the trace of the influence
matrix" (1990): for z of independent entries -1 and +1 the mean of ``z^T H z`` is the trace of H. H is of the mean
cross-entropy over labelled images; ``H z`` is the gradient of ``z^T gradient``, so that no H is ever there.

Where the paper is silent:

* Each layer has probes of its own: entries in its own weights, zeros elsewhere, a second backward pass for each layer
  behind one common gradient. One probe in all layers at once would need one such pass in all, but layer i's part
  ``z_i^T (H z)_i`` is then ``z_i^T H_ii z_i`` plus cross terms ``z_i^T H_ij z_j``: their mean is zero, their variance
  the sum of the squares of all H_ij, j != i, beside twice the squares off the diagonal of H_ii. In a trained ResNet-20
  that multiplies the variance of a layer by 5 to 200, most where the trace is small, and the time it saves is a
  factor of 7.
* Every batch of a sweep over the images has a probe of its own. ``sum_b z_b^T H_b z_b`` is as free of bias as one z for
  all batches, and its variance is less by the products of the H_b with each other, which are positive for H_b >= 0.
* A *sample* is one sweep; the standard error is that of the mean of samples. Sweeps end when every layer's is at
  most `tolerance` of its estimate, or after `most`.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.errors import FormatError
from ..sim.atomic import write_json
from .graph import Graph, Hook, Node
from .training import training_device

__all__ = ["Curvature", "Tensors", "TraceEstimate"]

Tensors = Literal["weights", "activations"]
SCHEMA = 1


@dataclass(frozen=True)
class TraceEstimate:
    """The Hessian trace of one layer: `elements` diagonal entries, one sample ``z^T H z`` for each sweep.

    `flagged` says that the estimate was not positive after the regular sweeps: on images that the network has learnt by
    heart noise outweighs it. It has had more sweeps then; what is still negative counts as 0.
    """

    name: str
    elements: int
    samples: tuple[float, ...]
    flagged: bool = False

    @property
    def estimate(self) -> float:
        """Mean of the samples, whatever its sign."""
        return float(np.mean(self.samples))

    @property
    def error(self) -> float:
        """Standard error of the estimate."""
        return float(np.std(self.samples, ddof=1) / len(self.samples) ** 0.5) if len(self.samples) > 1 else np.inf

    @property
    def trace(self) -> float:
        """The estimate, clamped at 0."""
        return max(self.estimate, 0.0)

    @property
    def average(self) -> float:
        """Trace over elements: what HAWQ-V2 weights a layer by."""
        return self.trace / self.elements


class _Leaves(Hook):
    """Makes what the Hessian is taken of a leaf of the autograd graph, by layer name.

    Activations are perturbed by a zero that a layer adds to its input: the residual that reads the same tensor in 16
    bits does not see it.
    """

    def __init__(self, tensors: Tensors, blocks: Collection[str]) -> None:
        self.tensors, self.blocks = tensors, blocks
        self.leaves: dict[str, Tensor] = {}

    def weight(self, node: Node, weight: Tensor) -> Tensor:
        """Weights, differentiable."""
        if self.tensors != "weights" or node.name not in self.blocks:
            return weight
        self.leaves[node.name] = weight.detach().requires_grad_()
        return self.leaves[node.name]

    def layer_input(self, node: Node, value: Tensor) -> Tensor:
        """The input, plus a differentiable zero."""
        if self.tensors != "activations" or node.name not in self.blocks:
            return value
        self.leaves[node.name] = torch.zeros_like(value, requires_grad=True)
        return value + self.leaves[node.name]


@dataclass(frozen=True, eq=False)
class Curvature:
    """The Hessian of a float network's mean cross-entropy, layer by layer.

    Parameters
    ----------
    graph : the captured network, batch norms folded: the weights whose rounding the hardware sees
    x : normalised training images (N, C, H, W)
    labels : their classes, integers (N,)
    tensors : Hessian with respect to each layer's "weights", or to each layer's input ("activations"), where it is
        block diagonal over images and a layer's trace is the mean over them
    batch : images whose graph is in memory at a time
    dtype, device : of the arithmetic; cuda where there is one unless given

    >>> found = Curvature(graph, x, labels).traces(seed=1)
    >>> found["layer1.0.conv1"].average, found["layer1.0.conv1"].error
    """

    graph: Graph
    x: Tensor
    labels: np.ndarray
    tensors: Tensors = "weights"
    batch: int = 32
    dtype: torch.dtype = torch.float32
    device: str | None = None

    def __post_init__(self) -> None:
        if self.tensors not in ("weights", "activations"):
            raise FormatError(f"tensors must be weights or activations, not {self.tensors!r}")
        if len(self.x) < 1 or self.labels.shape != (len(self.x),) or not np.issubdtype(self.labels.dtype, np.integer):
            raise FormatError(
                f"labels must be an integer for each of at least one image, not {self.labels.dtype} of shape "
                f"{self.labels.shape} for {len(self.x)} images"
            )
        classes = self.graph.by_name[self.graph.output].channels
        if self.labels.min() < 0 or self.labels.max() >= classes:
            raise FormatError(f"labels must lie in 0..{classes - 1}, found {self.labels.min()}..{self.labels.max()}")
        if self.batch < 1:
            raise FormatError(f"batch must be 1 or more images, not {self.batch}")

    @cached_property
    def elements(self) -> Mapping[str, int]:
        """Weights, or activations of an image, by layer: the order of each block of the Hessian."""
        if self.tensors == "weights":
            return {layer.name: self.graph.parameters[layer.name].weight.size for layer in self.graph.layers}
        shapes = {layer.name: self.graph.by_name[layer.inputs[0]].shape for layer in self.graph.layers}
        return {name: int(np.prod(shape)) for name, shape in shapes.items()}

    @property
    def fingerprint(self) -> str:
        """Digest of all that the samples depend on, the seed apart."""
        digest = hashlib.sha256(repr((self.tensors, self.batch, self.dtype, tuple(self.x.shape))).encode())
        for parameters in self.graph.parameters.values():
            for array in parameters:
                digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(self.x.cpu().numpy().tobytes())
        digest.update(self.labels.astype(np.int64).tobytes())
        return digest.hexdigest()

    @cached_property
    def _device(self) -> torch.device:
        return training_device(self.device)

    def _products(
        self, groups: Sequence[Sequence[str]], vectors: Callable[[int, str, Tensor], Tensor]
    ) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        """For each batch, by layer: a vector, and its product with the batch's share of the Hessian.

        `vectors` gives the vector of a batch (its first image) and layer, of the shape of the leaf. The layers of a
        group make one vector; products are with the Hessian's block of each group.
        """
        blocks = [name for group in groups for name in group]
        for first in range(0, len(self.x), self.batch):
            part = self.x[first : first + self.batch].to(self._device)
            labels = torch.as_tensor(self.labels[first : first + self.batch], dtype=torch.int64, device=self._device)
            hook = _Leaves(self.tensors, blocks)
            logits = self.graph.run(part, self.dtype, hook)
            loss = functional.cross_entropy(logits.flatten(1), labels, reduction="sum") / len(self.x)
            leaves = [hook.leaves[name] for name in blocks]
            gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
            gradient = dict(zip(blocks, gradients, strict=True))
            found: dict[str, tuple[Tensor, Tensor]] = {}
            for group in groups:
                probes = {name: vectors(first, name, hook.leaves[name]) for name in group}
                inner = torch.stack([(gradient[name] * probe).sum() for name, probe in probes.items()]).sum()
                products = torch.autograd.grad(
                    inner, [hook.leaves[name] for name in group], retain_graph=True, materialize_grads=True
                )
                found |= {name: (probes[name], product) for name, product in zip(group, products, strict=True)}
            yield found

    def sample(
        self, seed: int, sweep: int, blocks: Collection[str] | None = None, together: bool = False
    ) -> dict[str, float]:
        """One sample of the trace of each of `blocks` (default: all layers), from the sweep's own Rademacher probes.

        With `together` one probe, and one double backward pass, serves all layers, cross terms included.
        """
        chosen = list(self.elements if blocks is None else blocks)
        position = {name: index for index, name in enumerate(self.elements)}

        def signs(first: int, name: str, leaf: Tensor) -> Tensor:
            source = np.random.default_rng([seed, sweep, first, position[name]])
            bits = np.unpackbits(np.frombuffer(source.bytes(-(-leaf.numel() // 8)), dtype=np.uint8))
            values = torch.from_numpy(bits[: leaf.numel()]).to(leaf.device, self.dtype)
            return (2 * values - 1).reshape(leaf.shape)

        totals = dict.fromkeys(chosen, 0.0)
        for products in self._products([chosen] if together else [[name] for name in chosen], signs):
            for name, (probe, product) in products.items():
                totals[name] += float((probe * product).sum(dtype=torch.float64))
        return totals

    def traces(
        self,
        *,
        tolerance: float = 0.05,
        least: int = 4,
        most: int = 16,
        extra: int = 16,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
        resume: str | Path | None = None,
    ) -> dict[str, TraceEstimate]:
        """The trace of every layer, by name.

        Parameters
        ----------
        tolerance : greatest standard error of a layer, as a share of its estimate, at which sweeps end
        least, most : sweeps over the images
        extra : sweeps more, for the layers whose estimate is not positive then
        seed : of the probes
        progress : called with 1 after each sweep
        resume : a JSON file that is written after every sweep, and read where it is there
        """
        if not 2 <= least <= most or extra < 0 or not tolerance >= 0:
            raise FormatError(
                f"sweeps must be 2 <= least <= most, extra and tolerance not negative, not least {least}, most {most}, "
                f"extra {extra} and tolerance {tolerance}"
            )
        sweeps = _Record(self, seed, resume, progress)
        samples: dict[str, list[float]] = {name: [] for name in self.elements}

        def add(blocks: Collection[str]) -> None:
            for name, value in sweeps.next(blocks).items():
                samples[name].append(value)

        def estimates(flagged: Collection[str] = ()) -> dict[str, TraceEstimate]:
            return {
                name: TraceEstimate(name, count, tuple(samples[name]), name in flagged)
                for name, count in self.elements.items()
            }

        for done in range(most):
            if done >= least and all(each.error <= tolerance * abs(each.estimate) for each in estimates().values()):
                break
            add(self.elements)
        flagged = [name for name, each in estimates().items() if each.estimate <= 0]
        for _ in range(extra if flagged else 0):
            add(flagged)
        return estimates(flagged)

    def eigenvalues(
        self,
        count: int = 20,
        *,
        layer: str | None = None,
        tolerance: float = 1e-3,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """The `count` largest eigenvalues, falling, of the Hessian of all weights, or of one layer's block.

        Implicitly restarted Lanczos (ARPACK) from a seeded start; `progress` is called with 1 after each product with
        the Hessian, `tolerance` is relative. Weights alone: that of activations has as many blocks as there are images.
        """
        # Imported here: what trains a network needs no SciPy.
        from scipy.sparse.linalg import LinearOperator, eigsh

        if self.tensors != "weights":
            raise FormatError(f"tensors must be weights for eigenvalues, not {self.tensors}")
        if layer is not None and layer not in self.elements:
            raise FormatError(f"layer must be one of {', '.join(self.elements)}, not {layer!r}")
        blocks = list(self.elements) if layer is None else [layer]
        ends = np.cumsum([self.elements[name] for name in blocks])
        order = int(ends[-1])
        if not 1 <= count < order:
            raise FormatError(f"eigenvalues must be 1 to {order - 1}, not {count}")

        def multiply(vector: np.ndarray) -> np.ndarray:
            parts = dict(zip(blocks, np.split(vector.reshape(-1), ends[:-1]), strict=True))

            def part(first: int, name: str, leaf: Tensor) -> Tensor:
                return torch.as_tensor(parts[name], dtype=self.dtype, device=leaf.device).reshape(leaf.shape)

            total = np.zeros(order)
            for products in self._products([blocks], part):
                total += torch.cat([product.reshape(-1) for _, product in products.values()]).cpu().numpy()
            if progress is not None:
                progress(1)
            return total

        operator = LinearOperator((order, order), matvec=multiply, dtype=np.float64)
        start = np.random.default_rng(seed).standard_normal(order)
        values = eigsh(operator, count, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
        return np.sort(np.asarray(values))[::-1]


class _Record:
    """The sweeps made so far, in memory and perhaps in a file."""

    def __init__(
        self, curvature: Curvature, seed: int, path: str | Path | None, progress: Callable[[int], None] | None
    ) -> None:
        self.curvature, self.seed, self.progress = curvature, seed, progress
        self.path = None if path is None else Path(path)
        self.at = 0
        self.sweeps: list[dict[str, float]] = []
        self.head = {"schema": SCHEMA, "fingerprint": curvature.fingerprint if path else "", "seed": seed}
        if self.path is not None and self.path.exists():
            self.sweeps = self._read(self.path)

    def _read(self, path: Path) -> list[dict[str, float]]:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            sweeps = [{str(name): float(value) for name, value in sweep.items()} for sweep in stored.pop("sweeps")]
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: must be a readable record of trace samples: {error}") from error
        if stored != self.head or any(not set(sweep) <= set(self.curvature.elements) for sweep in sweeps):
            raise FormatError(f"{path}: must be of the same network, images, batch and seed, found another record")
        return sweeps

    def next(self, blocks: Collection[str]) -> dict[str, float]:
        """The next sweep's samples, from the record where it reaches so far."""
        if self.at == len(self.sweeps) or set(self.sweeps[self.at]) != set(blocks):
            # Sweeps that other limits asked for end here; what follows is made anew.
            del self.sweeps[self.at :]
            self.sweeps.append(self.curvature.sample(self.seed, self.at, blocks))
            if self.path is not None:
                write_json(self.path, {**self.head, "sweeps": self.sweeps})
        self.at += 1
        if self.progress is not None:
            self.progress(1)
        return self.sweeps[self.at - 1]
