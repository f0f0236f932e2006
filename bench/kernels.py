"""How fast the kernels are: GMAC/s of the fast and the faithful forms, beside torch's float32 convolution.

    python bench/kernels.py [--repeat 7] [--part fast|planes|faithful|all] [--cpu-time] [--others PYTHON]

Fast forms run the shapes of `bench/fast.py`; every row of the faithful ones runs the same convolution (128 -> 128
channels, 3 x 3, 56 x 56, padding 1). Kernels and torch alternate in one process; a row shows medians, and the ratio to
torch.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding
import numpy as np
from fast import PLANES, SHAPES, Others, alternate, contenders, inner_product, plane_contenders, register_limit
from gatewise.kernels import ConvShape, MacFormat, Operands, alignment_factors, conv2d, split_digits
from gatewise.kernels.direct import fast_forms
from rich.console import Console
from rich.table import Table

SHAPE = ConvShape(128, 128, (3, 3), padding=(1, 1, 1, 1))
SIZE = 56
LANES = 16
FLOAT = "torch float32"
TARGETS = {"align = 12, saturate": 12.0, "align = 12, wrap": 25.0}
"""GMAC/s that the faithful kernel must reach with about 1 % of the products limited, by case."""


@dataclass(frozen=True)
class Case:
    """A datapath format and the operands that meet it."""

    name: str
    fmt: MacFormat
    kind: str = "shift"
    largest: int = 7
    a_bits: int = 4
    w_bits: int = 4


CASES = (
    Case("paper's widths, saturate", MacFormat()),
    Case("paper's widths, wrap", MacFormat(overflow="wrap")),
    Case("align = 12, saturate", MacFormat(align=12)),
    Case("align = 12, wrap", MacFormat(align=12, overflow="wrap")),
    Case("align = 12, acc = 18", MacFormat(align=12, acc=18)),
    Case("align = 12, multipliers", MacFormat(align=12), kind="mul", largest=63),
    Case("product = 7, align = 12", MacFormat(product=7, align=12)),
    Case("8-bit x 8-bit (four digit pairs)", MacFormat(), largest=0, a_bits=8, w_bits=8),
)


def operands(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations, weight digits and factors with the shapes of trained ones: half zeros, bell-shaped weights."""
    rng = np.random.default_rng(0)
    top = (1 << case.a_bits) - 1
    x = np.clip(np.rint(rng.normal(0.0, top / 3, (1, SHAPE.in_channels, SIZE, SIZE))), 0, top).astype(np.int16)
    half = 1 << (case.w_bits - 1)
    weights = np.clip(np.rint(rng.normal(0.0, half / 3, SHAPE.weight_shape)), -half, half - 1).astype(np.int64)
    amounts = rng.integers(0 if case.kind == "shift" else 1, case.largest + 1, SHAPE.in_channels)
    factors = alignment_factors("shift" if case.kind == "shift" else "mul", amounts)
    return x, split_digits(weights, case.w_bits, signed=True), factors


def faithful_rows(repeat: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """The faithful kernels beside torch on one thread: GMAC/s, and the share of MACs that were limited."""
    macs = SHAPE.macs(SIZE, SIZE)
    for case in CASES:
        x, weights, factors = operands(case)
        pairs = Operands(case.a_bits, False, case.w_bits)

        def run(x=x, weights=weights, factors=factors, pairs=pairs, case=case):  # type: ignore[no-untyped-def]
            return conv2d(x, weights, factors, SHAPE, pairs, case.fmt, LANES)

        found = run()
        clipped = int(found.align_overflows.sum() + found.product_overflows.sum()) / (macs * pairs.digit_pairs)
        theirs = contenders(SHAPES[0], 1)[FLOAT]
        times = alternate({"ours": run, "theirs": theirs}, repeat, clock)
        rate, float_rate = (macs / seconds / 1e9 for seconds in times.values())
        yield {"kernel": case.name, "clipped": clipped, "rate": rate, FLOAT: float_rate}


def fast_rows(threads: int, repeat: int, clock: Callable[[], float], others: str | None) -> Iterator[dict[str, Any]]:
    """The fast forms beside torch and, where an interpreter has them, 8 bits by others: GMAC/s by name."""
    for layer in SHAPES:
        runs = contenders(layer, threads)
        if others is None:
            rates, row = alternate(runs, repeat, clock), {}
        else:
            with Others(others, layer, threads, clock is not time.perf_counter) as more:
                rates = alternate({**runs, **more.runs}, repeat, clock)
                row = {"versions": more.versions, "missing": more.missing}
        made = {name: threads * layer.macs / seconds / 1e9 for name, seconds in rates.items()}
        yield {"layer": layer.name, "threads": threads, "rates": made, **row}


def limit_row(repeat: int, clock: Callable[[], float]) -> dict[str, Any]:
    """The register tiles alone, GMAC/s, and the multiply-add units alone, None where there are none."""
    limit = register_limit()
    tiles, macs = inner_product(SHAPES[0])
    runs = {"tiles": tiles} | ({} if limit is None else {"limit": limit[0]})
    times = alternate(runs, repeat, clock)
    most = None if limit is None else limit[1] / times["limit"] / 1e9
    return {"layer": SHAPES[0].name, "tiles": macs / times["tiles"] / 1e9, "limit": most}


def faithful_table(rows: Sequence[dict[str, Any]]) -> Table:
    """For a terminal."""
    table = Table("kernel", "MACs clipped", "GMAC/s", FLOAT, "ratio", title="faithful kernels, one thread",
                  title_justify="left")  # fmt: skip
    for row in rows:
        rates = f"{row['rate']:.1f}", f"{row[FLOAT]:.1f}", f"{row['rate'] / row[FLOAT]:.2f}"
        table.add_row(row["kernel"], f"{100 * row['clipped']:.2f} %", *rates)
    return table


def plane_rows(repeat: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Sign planes whose bits are counted, beside the same in the fastest other form, and torch: GMAC/s."""
    for layer in SHAPES:
        if layer.shape.kernel != (3, 3) or layer.shape.groups > 1:
            continue
        for name, *planes in PLANES:
            times = alternate(plane_contenders(layer, *planes), repeat, clock)
            rates = {who: layer.macs / seconds / 1e9 for who, seconds in times.items()}
            yield {"layer": layer.name, "planes": name, "form": fast_forms()[0], "rates": rates}


def plane_table(rows: Sequence[dict[str, Any]]) -> Table:
    """For a terminal."""
    other = rows[0]["form"]
    table = Table("convolution", "planes", "popcount", other, f"ratio to {other}", FLOAT, "ratio to torch",
                  title="sign planes, GMAC/s on one thread, packing and thresholds included",
                  title_justify="left")  # fmt: skip
    for row in rows:
        counted, fast, theirs = (row["rates"][each] for each in ("popcount", "other", FLOAT))
        cells = [f"{each:.1f}" for each in (counted, fast)]
        table.add_row(
            row["layer"], row["planes"], *cells, f"{counted / fast:.2f}", f"{theirs:.1f}", f"{counted / theirs:.2f}"
        )
    return table


def verdicts(rows: Sequence[dict[str, Any]]) -> str:
    """What the targets say."""
    return "\n".join(
        f"{row['kernel']}: {row['rate']:.1f} GMAC/s against a target of {TARGETS[row['kernel']]:g}"
        for row in rows
        if row["kernel"] in TARGETS
    )


def fast_table(rows: Sequence[dict[str, Any]]) -> Table:
    """For a terminal."""
    names = list(dict.fromkeys(name for row in rows for name in row["rates"]))
    forms = [name for name in names if name in fast_forms()]
    headings = [heading for name in names for heading in ((name, "ratio") if name in forms else (name,))]
    threads = rows[0]["threads"]
    table = Table("convolution", *headings, title=f"GMAC/s on {threads} thread{'s' if threads > 1 else ''}; fast forms "
                  f"with packing and requantisation; ratio to {FLOAT}", title_justify="left")  # fmt: skip
    for row in rows:
        rates, cells = row["rates"], []
        for name in names:
            cells.append(f"{rates[name]:.1f}" if name in rates else "")
            if name in forms:
                cells.append(f"{rates[name] / rates[FLOAT]:.2f}" if name in rates else "")
        table.add_row(row["layer"], *cells)
    return table


def limit_line(row: dict[str, Any]) -> str:
    """In words."""
    if row["limit"] is None:
        return f"register tiles alone: {row['tiles']:.1f} GMAC/s; no vpdpbusd here"
    return (
        f"register tiles alone: {row['tiles']:.1f} GMAC/s, {100 * row['tiles'] / row['limit']:.1f} % of vpdpbusd on "
        f"registers, {row['limit']:.1f} ({row['layer']})"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, help="timed runs of each kernel (default 7)")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread: where others work too")
    parser.add_argument(
        "--others", metavar="PYTHON", default=os.environ.get("GATEWISE_OTHERS"),
        help="an interpreter with onnxruntime or ai-edge-litert (default: the variable GATEWISE_OTHERS)",
    )  # fmt: skip
    parser.add_argument(
        "--part", choices=["fast", "planes", "faithful", "all"], default="all", help="tables (default all)"
    )
    options = parser.parse_args()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    console = Console(width=120)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(
        f"{platform.processor() or platform.machine()}, {llvmlite.binding.get_host_cpu_name()}, load {load}, "
        f"{'processor' if options.cpu_time else 'wall-clock'} time, medians of {options.repeat}"
    )
    if options.part in ("fast", "all"):
        for threads in (1,) if options.cpu_time else (1, 2):
            rows = list(fast_rows(threads, options.repeat, clock, options.others))
            console.print(fast_table(rows))
            for line in dict.fromkeys(line for row in rows for line in row.get("missing", {}).values()):
                console.print(line)
        console.print(limit_line(limit_row(options.repeat, clock)))
    if options.part in ("planes", "all"):
        console.print(plane_table(list(plane_rows(options.repeat, clock))))
    if options.part in ("faithful", "all"):
        rows = list(faithful_rows(options.repeat, clock))
        console.print(faithful_table(rows))
        console.print(verdicts(rows))


if __name__ == "__main__":
    main()
