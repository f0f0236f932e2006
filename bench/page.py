"""What the parts of `bench/papers.py` share: the data, measured networks, sections of the page and their store.

A part's section is stored as JSON in docs/results/ and the page is assembled from what is stored, so that one part can
be measured again without the others.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from gatewise.kernels.huffman import entropy
from gatewise.quant.methods import Quantisation
from gatewise.sim.activations import huffman_bits
from gatewise.sim.arrays import default_engine
from gatewise.sim.atomic import write_bytes
from gatewise.sim.engine import Array, EngineConfig
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet, load_images
from gatewise.sim.inspect import inspect_file
from gatewise.sim.network import Network
from gatewise.sim.prune import pruned
from gatewise.sim.run import RunResult, run
from paths import DATA, ROOT
from rich.console import Console

__all__ = [
    "Data",
    "Measured",
    "Section",
    "Table",
    "compute_unit_gates",
    "integer_run",
    "measure",
    "percent",
    "stored",
    "write",
]

STORE = ROOT / "docs" / "results"
GATES = ROOT / "docs" / "engine.md"
BATCH = 47


@dataclass(frozen=True)
class Data:
    """The CIFAR-10 images and what a part may use besides."""

    limit: int | None
    """Test images, or all."""
    train: bool
    """Whether trained networks are trained again, or read from their committed files."""
    scratch: Path
    console: Console

    @cached_property
    def training(self) -> ImageSet:
        """Calibration and fine-tuning; what is chosen, is chosen on these."""
        return load_images(DATA / "cifar10" / "train.npz")

    @cached_property
    def test(self) -> ImageSet:
        """Counted alone."""
        return load_images(DATA / "cifar10" / "test.npz")[: self.limit]

    def say(self, line: str) -> None:
        """A line of progress."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass
class Table:
    """A table of text; the first column is left alone."""

    columns: list[str]
    rows: list[list[str]]
    caption: str = ""

    def markdown(self) -> str:
        """The table as the page has it."""
        lines = [f"| {' | '.join(cells)} |" for cells in self.rows]
        head = f"| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}\n"
        return (f"{self.caption}\n\n" if self.caption else "") + head + "".join(f"{line}\n" for line in lines)


@dataclass
class Section:
    """A part's section of the page, and its figures as they were measured."""

    title: str
    text: str
    tables: list[Table]
    figures: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        """The section as the page has it."""
        return "\n".join([f"## {self.title}\n", f"{self.text.strip()}\n", *(table.markdown() for table in self.tables)])


@dataclass(frozen=True)
class Measured:
    """An exported network on the test images; `top` figures are shares."""

    images: int
    float_top1: float
    float_top5: float
    top1: float
    top5: float
    error: float
    """Standard error of top-1."""
    weight_bits: float
    """Mean width of the stored weight codes."""
    weight_entropy: float
    weight_huffman: float
    """Bits a code of one alphabet for a layer, weighted by codes."""
    activation_bits: float
    """Mean width of the tensors that layers read."""
    activation_entropy: float | None
    activation_huffman: float | None
    """Bits of their codes, one alphabet for a tensor, where they were counted."""
    file_bytes: int
    compression: float
    bops: int
    relative_bops: float
    cycles: int


def measure(
    found: Quantisation, data: Data, float_logits: np.ndarray, *, inner_only: bool = True, count: bool = False
) -> Measured:
    """Save the network and run it as ``gatewise run`` does, beside the `float_logits` (N, classes) of the test images.

    With `inner_only` the averages of bits leave out the first and last layer, which have 8 bits; `count` counts the
    codes of activations as well, in the fake-quantised network.
    """
    test, path = data.test, data.scratch / "network.gw"
    save_network(found.network, path)
    size = inspect_file(path)
    result = integer_run(found.network, test)
    layers = found.quantized.layers[1:-1] if inner_only else found.quantized.layers
    codes = [np.unique(layer.weights.codes, return_counts=True)[1] for layer in layers]
    widths = [
        (layer.weights.codes.size, layer.weights.bits if layer.weights.widths is None else layer.weights.widths.mean())
        for layer in layers
    ]
    tensors = [found.quantized.tensors[name] for name in dict.fromkeys(layer.inputs[0] for layer in layers)]
    held = [
        (int(np.prod(tensor.shape)), tensor.bits if tensor.widths is None else tensor.widths.mean())
        for tensor in tensors
    ]
    counts = _counts(found, [tensor.name for tensor in tensors], test) if count else []
    top1 = result.top(1) or 0.0
    return Measured(
        len(test),
        _top(float_logits, test.labels, 1),
        _top(float_logits, test.labels, 5),
        top1,
        result.top(5) or 0.0,
        (top1 * (1 - top1) / len(test)) ** 0.5,
        _mean(widths),
        _mean((each.sum(), entropy(each)) for each in codes),
        _mean((each.sum(), huffman_bits(each)) for each in codes),
        _mean(held),
        _mean((each.sum(), entropy(each)) for each in counts) if count else None,
        _mean((each.sum(), huffman_bits(each)) for each in counts) if count else None,
        size.file_bytes,
        size.compression,
        result.bops,
        result.relative_bops,
        result.cycles_per_image,
    )


def _counts(found: Quantisation, names: list[str], test: ImageSet) -> list[np.ndarray]:
    """How often each code of these tensors occurs."""
    tensors = [found.quantized.tensors[name] for name in names]
    counts = [np.zeros(1 << tensor.bits, dtype=np.int64) for tensor in tensors]
    for first in range(0, len(test), BATCH):
        trace: dict[str, np.ndarray] = {}
        found.quantized.run(test.images[first : first + BATCH], trace=trace)
        for tensor, count in zip(tensors, counts, strict=True):
            count += np.bincount(trace[tensor.name].reshape(-1) - tensor.container[0], minlength=len(count))
    return counts


def integer_run(network: Network, test: ImageSet, engine: EngineConfig | None = None) -> RunResult:
    """What ``gatewise run`` does: the default engine unless given, without channels that no image changes."""
    config = engine or default_engine(network)
    return run(pruned(network, config, None), test, config, whole=network)


def _top(logits: np.ndarray, labels: np.ndarray | None, count: int) -> float:
    assert labels is not None
    order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    return float((order == labels[:, None]).any(axis=1).mean())


def _mean(weighted: Iterable[tuple[Any, Any]]) -> float:
    pairs = [(float(weight), float(value)) for weight, value in weighted]
    return sum(weight * value for weight, value in pairs) / sum(weight for weight, _ in pairs)


def percent(share: float, digits: int = 2) -> str:
    """A share in percent, without the sign."""
    return f"{100 * share:.{digits}f}"


def compute_unit_gates() -> dict[tuple[str, str], str]:
    """Gates by array and decoder, of engines of 16 x 16, as `bench/engine.py` wrote them."""
    found = {}
    for line in GATES.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in get_args(Array) and len(cells) > 2:
            found.setdefault((cells[0], cells[1]), cells[2])
    return found


def write(name: str, section: Section) -> None:
    """Store a part's section."""
    STORE.mkdir(exist_ok=True)
    write_bytes(STORE / f"{name}.json", (json.dumps(asdict(section), indent=1) + "\n").encode())


def stored(name: str) -> Section | None:
    """A part's section, where it has been measured."""
    path = STORE / f"{name}.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    return Section(
        content["title"], content["text"], [Table(**table) for table in content["tables"]], content["figures"]
    )
