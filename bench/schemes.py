"""One network in every weight scheme on engines of one size: cycles, bytes, accuracy; writes docs/schemes.md.

    python bench/schemes.py [--output docs/schemes.md]

ResNet-20 with seeded weights: cycles and bytes do not depend on what it knows. Accuracy is that of the digits
networks of examples/digits/schemes.py.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from gatewise import EngineConfig, Grid, Network, PlaneBasis, WeightCodes, XorNetwork
from gatewise.kernels.allocation import allocate_bits
from gatewise.kernels.errors import UnsupportedError
from gatewise.kernels.shift import ShiftFormat, nearest_codes
from gatewise.sim.arrays import check_arrays
from gatewise.sim.atomic import write_bytes
from gatewise.sim.cycles import network_cycles
from gatewise.sim.demo import FOLDER, load_demo
from gatewise.sim.file import save_network
from gatewise.sim.inspect import inspect_file
from gatewise.sim.lower import lower
from gatewise.sim.manifest import Coding
from gatewise.sim.schedule import schedule
from gatewise.sim.shapes import ACTIVATION, Inner, resnet20
from gatewise.sim.sort import sorted_by_width
from paths import ROOT
from rich.console import Console
from rich.table import Table

SIZE = {"rows": 16, "lanes": 16}
NOT_BUILT = "not built yet"
PRUNED = 0.5
"""Share of the focused weights that are pruned."""


@dataclass(frozen=True)
class Row:
    """Inner layers of a scheme on an array behind a decoder."""

    title: str
    inner: str
    array: str = "digit"
    decoder: str = "raw"

    @property
    def engine(self) -> EngineConfig:
        """The engine that runs it."""
        return EngineConfig(**SIZE, array=self.array, decoder=self.decoder)


def integers(bits: int, coding: Coding = "raw") -> Inner:
    """Normal weights in steps of which the greatest is three standard deviations."""
    half = 1 << (bits - 1)

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[WeightCodes, float]:
        codes = np.clip(np.rint(rng.normal(0, half / 3, shape)), -half, half - 1).astype(np.int64)
        return WeightCodes.integer(codes, bits, coding=coding), half / 3

    return make


def allocated(mean: int, coding: Coding = "raw") -> Inner:
    """Normal weights whose spread differs by channel, and their bits with it: so many on average (ACIQ, eq. 11)."""

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[WeightCodes, float]:
        widths = allocate_bits(_spread(rng, shape[0]), mean)
        halves = np.where(widths, 1 << np.maximum(widths - 1, 0), 0).reshape(-1, *[1] * (len(shape) - 1))
        codes = np.clip(np.rint(rng.normal(0, 1, shape) * halves / 3), -halves, np.maximum(halves - 1, 0))
        return WeightCodes.integer(codes.astype(np.int64), widths, coding=coding), float(codes.std())

    return make


def _spread(rng: np.random.Generator, channels: int) -> np.ndarray:
    """Standard deviations of channels, log-normal: two of three within a factor of two of the median."""
    return np.exp(rng.normal(0, np.log(2), channels))


def _allocated_grid(rng: np.random.Generator, channels: int) -> Grid:
    """Activations of 4 bits on average."""
    widths = allocate_bits(_spread(rng, channels), ACTIVATION.bits)
    return replace(ACTIVATION, bits=int(widths.max()), widths=widths)


def powers_of_two(bits: int, coding: Coding = "raw") -> Inner:
    """Normal weights as powers of two, up to twice their standard deviation."""
    fmt = ShiftFormat(bits - 2)
    bias = (1 << fmt.exponent_bits) - 2

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[WeightCodes, float]:
        fields = fmt.split(nearest_codes(rng.normal(0, 1, shape), fmt, bias))
        exponents = fields.exponent.astype(np.int64) - bias
        return WeightCodes.shift(fields.sign, exponents, fmt.exponent_bits, coding), 1.0

    return make


def focused(bits: int, coding: Coding = "raw") -> Inner:
    """Two normal components about means of opposite sign, the rest pruned."""
    fmt = ShiftFormat(bits - 3, focused=True)
    bias = (1 << fmt.exponent_bits) - 1

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[WeightCodes, float]:
        pruned, component = rng.random(shape) < PRUNED, rng.integers(0, 2, shape)
        fields = fmt.split(nearest_codes(rng.normal(0, 0.5, shape), fmt, bias, component=component, pruned=pruned))
        codes = WeightCodes.focused(
            fields.sign, fields.exponent.astype(np.int64) - bias, component, pruned, minus=(-1, 1), plus=(1, 1),
            exponent_bits=fmt.exponent_bits, coding=coding,
        )  # fmt: skip
        return codes, 2 * (1 - PRUNED) ** 0.5

    return make


def encrypted(n_in: int, n_out: int) -> Inner:
    """One plane of signs that a random XOR network decodes, in the order in which the array takes them."""
    network = XorNetwork.random(n_in, n_out, None, 0)

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[WeightCodes, float]:
        slices = rng.integers(0, 2, (network.slices(int(np.prod(shape))), n_in))
        tile = SIZE["rows"], SIZE["lanes"]
        return WeightCodes.xor([slices], [network], np.ones((1, shape[0])), shape, tile=tile), 1.0

    return make


def planes(count: int) -> Inner:
    """Planes of signs, each of which weighs half as much as the one before."""

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[WeightCodes, float]:
        halves = 2.0 ** -np.arange(count)
        return WeightCodes.basis(rng.choice((-1, 1), (count, *shape)), halves), float(np.sqrt((halves**2).sum()))

    return make


INNER: dict[str, Inner] = {
    "int4": integers(4),
    "int4-huffman": integers(4, "huffman"),
    "allocated4": allocated(4),
    "allocated4-huffman": allocated(4, "huffman"),
    "shift4": powers_of_two(4),
    "shift4-huffman": powers_of_two(4, "huffman"),
    "focused5": focused(5),
    "focused5-huffman": focused(5, "huffman"),
    **{f"xor0.{tenths}": encrypted(2 * tenths, 20) for tenths in (4, 6, 8)},
    "basis2": planes(2),
    "lq2a2": planes(2),
    "abc5a5": planes(5),
}
ACTIVATIONS = {
    "lq2a2": Grid.of_planes(PlaneBasis.lq_net([0.5, 1.0])),
    "abc5a5": Grid.of_planes(PlaneBasis.abc_net([0.5, 0.4, 0.3, 0.2, 0.1], [-1.0, -0.5, 0.0, 0.5, 1.0])),
}
"""Of those whose activations are planes."""
ROWS = (
    Row("int, 4 bits", "int4"),
    Row("int, 4 bits, Huffman", "int4-huffman", decoder="huffman"),
    Row("int, 0 to 8 bits, 4 on average", "allocated4"),
    Row("int, 0 to 8 bits, 4 on average, Huffman", "allocated4-huffman", decoder="huffman"),
    Row("int, 4 bits", "int4", "sign"),
    Row("int, 4 bits", "int4", "shift"),
    Row("shift, 4 bits", "shift4", "shift"),
    Row("shift, 4 bits, Huffman", "shift4-huffman", "shift", "huffman"),
    Row("focused, 5 bits", "focused5", "shift"),
    Row("focused, 5 bits, Huffman", "focused5-huffman", "shift", "huffman"),
    Row("xor, 0.8 bits, decoded by the host", "xor0.8", "sign"),
    *(Row(f"xor, 0.{tenths} bits", f"xor0.{tenths}", "sign", "xor") for tenths in (8, 6, 4)),
    Row("basis, 2 planes", "basis2", "sign"),
    Row("LQ-Net: basis, 2 planes, on 2 activation planes", "lq2a2", "sign"),
    Row("ABC-Net: basis, 5 planes, on 5 activation planes", "abc5a5", "sign"),
)


@cache
def network(inner: str) -> Network:
    """ResNet-20 with such inner layers."""
    between = _allocated_grid if inner.startswith("allocated") else None
    activation = ACTIVATIONS.get(inner, ACTIVATION)
    return resnet20(f"resnet20-{inner}", INNER[inner], between=between, activation=activation)


@cache
def stored(inner: str) -> tuple[int, float]:
    """Bytes of its file, and coded bits of a weight."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.gw"
        save_network(network(inner), path)
        facts = inspect_file(path)
        return facts.file_bytes, facts.bits_per_weight


COLUMNS = (
    *("inner layers", "array", "decoder", "cycles an image", "of these the inner layers", "utilisation %"),
    *("bytes read an image", "file bytes", "bits a weight"),
)


def measured(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    built, size = network(row.inner), stored(row.inner)
    head, tail = (row.title, row.array, row.decoder), (f"{size[0]:,}", f"{size[1]:.2f}")
    try:
        check_arrays(built, engine := row.engine)
    except UnsupportedError:
        return *head, *(NOT_BUILT,) * 4, *tail
    layers = network_cycles(lower(sorted_by_width(built).network, engine), engine)
    inner = {node.name for node in built.mac_nodes() if node.name.startswith("layer")}
    cycles, useful = sum(layer.total for layer in layers), sum(layer.products for layer in layers)
    return (
        *head, f"{cycles:,}", f"{sum(layer.total for layer in layers if layer.name in inner):,}",
        f"{100 * useful / (engine.products * cycles):.1f}",
        f"{sum(layer.bytes_read for layer in layers):,}", *tail,
    )  # fmt: skip


def resnet() -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """What is said above the table of ResNet-20, its columns and rows."""
    text = (
        "## ResNet-20 in every scheme\n\n"
        "Seeded weights on engines of 16 rows and lanes and a bus of 128 bits, latency 20; "
        "activations of 4 bits but where they are planes, the first and the last layer integers of 8 bits. The sign "
        "array runs an integer layer as a pass for each bit, the "
        "shift array as one for each signed power of two that its longest code needs. Bytes read are all words of an "
        "image: descriptors, records, weights, once for each tile of pixels. Utilisation counts "
        "every pass as useful. Where widths are mixed (`kernels/allocation.py`, spreads log-normal with a factor of "
        "two) the tensors between the two layers of a block have a width for each channel, too; codes of 5 to 8 bits "
        "are two digits, whose second pass is useful in the channels that have them.\n\n"
    )
    return text, COLUMNS, [measured(row) for row in ROWS]


MIXED = ((4, 4), (4, 2), (2, 4), (2, 2))
"""Bits of the activations and weights of the inner layers."""
MIXED_COLUMNS = (
    *("activations x weights", "array", "cycles an image", *(f"stage {stage}" for stage in (1, 2, 3))),
    *("utilisation %", "idle lanes, stage 3", "bytes read an image", "activation memory"),
)


def mixed() -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Inner layers of other widths on the digit array and on the fused one."""
    rows = []
    for a_bits, w_bits in MIXED:
        built = resnet20(f"resnet20-a{a_bits}w{w_bits}", integers(w_bits), activation=Grid(4.8 / (1 << a_bits), a_bits))
        for array in ("digit", "fusion"):
            engine = EngineConfig(**SIZE, array=array)
            plan = schedule(built, engine)
            layers = network_cycles(lower(built, engine, plan), engine)
            cycles, useful = sum(layer.total for layer in layers), sum(layer.products for layer in layers)
            stages = [[layer for layer in layers if layer.name.startswith(f"layer{stage}.")] for stage in (1, 2, 3)]
            last = stages[-1][-1]
            rows.append(
                (
                    *(f"{a_bits} x {w_bits}", array, f"{cycles:,}"),
                    *(f"{sum(layer.total for layer in stage):,}" for stage in stages),
                    f"{100 * useful / (engine.products * cycles):.1f}",
                    f"{last.idle_lanes:g} of {last.lanes}",
                    f"{sum(layer.bytes_read for layer in layers):,}",
                    f"{plan.peak_bytes:,}",
                )
            )
    text = (
        "## ResNet-20 in mixed precision\n\n"
        "The same network, engines and weights (raw) with inner layers of 2 and 4 bits; the first and the last layer "
        "have 8 bits, the residual stream 16. A step of the fused array takes 16 input channels in 4x4, 32 in 4x2 and "
        "2x4, 64 in 2x2: the 16 channels of stage 1 gain nothing, those of stage 3 up to four times the speed. "
        "Utilisation is useful digit MACs of the digit array, and useful 2 x 2 bit bricks of the fused one. Activation "
        "memory are the bytes of tensors that live at the same time: a word of the fused array has 32 digits, or 64 "
        "codes of 2 bits.\n\n"
    )
    return text, MIXED_COLUMNS, rows


def digits() -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """The same of the digits networks and their accuracy."""
    images, rows = load_demo().images, []
    engines = {path.stem.removeprefix("engine-"): EngineConfig.load(path) for path in sorted(FOLDER.glob("*.toml"))}
    files = [inspect_file(path) for path in FOLDER.glob("digits-*.gw")]
    for facts in sorted(files, key=lambda facts: (-facts.file_bytes, facts.path)):
        if "inner_layers" not in facts.network.manifest.provenance:
            continue
        for array, engine in engines.items():
            try:
                result = facts.network.run(images, engine)
            except UnsupportedError:
                continue
            top = result.top(1) or 0.0
            error = (top * (1 - top) / len(images)) ** 0.5
            rows.append(
                (
                    *(
                        str(facts.network.manifest.provenance["inner_layers"]),
                        array,
                        f"{100 * top:.2f}",
                        f"{100 * error:.2f}",
                    ),
                    *(f"{result.cycles_per_image:,}", f"{facts.file_bytes:,}", f"{facts.bits_per_weight:.2f}"),
                )
            )
    columns = (
        *("inner layers", "array", "top-1 %", "standard error", "cycles an image", "file bytes", "bits a weight"),
    )
    text = (
        "## The digits network in every scheme\n\n"
        f"Converted by `python examples/digits/schemes.py --write` without training: {len(images)} held-out images, "
        f"float {100 * load_demo().float_top1:.2f} %. The published methods train in their schemes; one plane of signs "
        "that an XOR network decodes is not to be had without, nor are binary activations. Two settings (the cost of a "
        "bit in bayesian, the emptied channels of allocated4) were made with the top-1 of these images in sight: "
        "those two are no clean measurements. `make regress` holds every row to the RTL (8 x 8, ten images): all "
        "digits, counters and cycles must be equal.\n\n"
    )
    return text, columns, rows


PARTS: tuple[Callable[[], tuple[str, tuple[str, ...], list[tuple[str, ...]]]], ...] = (resnet, mixed, digits)


def main() -> None:
    """Print the tables and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "schemes.md")
    arguments = parser.parse_args()
    page = "# Weight schemes, measured\n\nWritten by `python bench/schemes.py`.\n\n"
    for part in PARTS:
        text, columns, rows = part()
        table = Table(*columns, title=text.splitlines()[0].removeprefix("## "))
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        lines = [columns, ("---",) * len(columns), *rows]
        page += text + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
    write_bytes(arguments.output, (page.rstrip() + "\n").encode())


if __name__ == "__main__":
    main()
