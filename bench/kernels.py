"""How fast the kernels are: GMAC/s of the fast and the faithful forms, beside torch's float32 convolution.

    python bench/kernels.py [--repeat 7] [--part fast|planes|faithful|all] [--cpu-time]

Fast forms run the shapes of `bench/fast.py`; every row of the faithful ones runs the same convolution (128 -> 128
channels, 3 x 3, 56 x 56, padding 1). Kernels and torch alternate in one process; a row shows medians, and the ratio to
torch.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.binding
import numpy as np
from fast import PLANES, SHAPES, alternate, contenders, inner_product, plane_contenders, register_limit
from gatewise.kernels import ConvShape, MacFormat, Operands, alignment_factors, conv2d, split_digits
from gatewise.kernels.direct import fast_forms
from rich.console import Console
from rich.table import Table

SHAPE = ConvShape(128, 128, (3, 3), padding=(1, 1, 1, 1))
SIZE = 56
LANES = 16
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


def faithful_table(repeat: int, clock: Callable[[], float]) -> tuple[Table, str]:
    """The faithful kernels beside torch on one thread, and what the targets say."""
    macs = SHAPE.macs(SIZE, SIZE)
    table = Table("kernel", "MACs clipped", "GMAC/s", "torch float32", "ratio", title="faithful kernels, one thread",
                  title_justify="left")  # fmt: skip
    verdicts = []
    for case in CASES:
        x, weights, factors = operands(case)
        pairs = Operands(case.a_bits, False, case.w_bits)

        def run(x=x, weights=weights, factors=factors, pairs=pairs, case=case):  # type: ignore[no-untyped-def]
            return conv2d(x, weights, factors, SHAPE, pairs, case.fmt, LANES)

        found = run()
        clipped = (found.align_overflows.sum() + found.product_overflows.sum()) / (macs * pairs.digit_pairs)
        theirs = contenders(SHAPES[0], 1)["torch float32"]
        times = alternate({"ours": run, "theirs": theirs}, repeat, clock)
        rate, float_rate = (macs / seconds / 1e9 for seconds in times.values())
        table.add_row(
            case.name, f"{100 * clipped:.2f} %", f"{rate:.1f}", f"{float_rate:.1f}", f"{rate / float_rate:.2f}"
        )
        if case.name in TARGETS:
            verdicts.append(f"{case.name}: {rate:.1f} GMAC/s against a target of {TARGETS[case.name]:g}")
    return table, "\n".join(verdicts)


def fast_table(threads: int, repeat: int, clock: Callable[[], float]) -> Table:
    """The fast forms beside torch."""
    forms = fast_forms()
    columns = [heading for form in forms for heading in (form, "ratio")]
    table = Table("convolution", *columns, "torch float32", *(["torch _int_mm"] if threads == 1 else []),
                  title=f"fast forms, GMAC/s on {threads} thread{'s' if threads > 1 else ''}, packing and "
                  "requantisation included; ratio to torch float32", title_justify="left")  # fmt: skip
    for layer in SHAPES:
        times = alternate(contenders(layer, threads), repeat, clock)
        rates = {name: threads * layer.macs / seconds / 1e9 for name, seconds in times.items()}
        float_rate = rates["torch float32"]
        cells = [
            text
            for form in forms
            for text in ((f"{rates[form]:.1f}", f"{rates[form] / float_rate:.2f}") if form in rates else ("", ""))
        ]
        others = [f"{rates['_int_mm']:.1f}" if "_int_mm" in rates else ""] if threads == 1 else []
        table.add_row(layer.name, *cells, f"{float_rate:.1f}", *others)
    return table


def plane_table(repeat: int, clock: Callable[[], float]) -> Table:
    """Sign planes whose bits are counted, beside the same in the fastest other form, and torch."""
    other = fast_forms()[0]
    table = Table("convolution", "planes", "popcount", other, f"ratio to {other}", "torch float32", "ratio to torch",
                  title="sign planes, GMAC/s on one thread, packing and thresholds included",
                  title_justify="left")  # fmt: skip
    for layer in SHAPES:
        if layer.shape.kernel != (3, 3) or layer.shape.groups > 1:
            continue
        for name, *planes in PLANES:
            times = alternate(plane_contenders(layer, *planes), repeat, clock)
            counted, fast, theirs = (layer.macs / times[each] / 1e9 for each in ("popcount", "other", "torch float32"))
            cells = [f"{each:.1f}" for each in (counted, fast)]
            table.add_row(layer.name, name, *cells, f"{counted / fast:.2f}", f"{theirs:.1f}", f"{counted / theirs:.2f}")
    return table


def limit_line(repeat: int, clock: Callable[[], float]) -> str:
    """The register tiles alone against the multiply-add units alone."""
    limit = register_limit()
    tiles, macs = inner_product(SHAPES[0])
    if limit is None:
        seconds = alternate({"tiles": tiles}, repeat, clock)["tiles"]
        return f"register tiles alone: {macs / seconds / 1e9:.1f} GMAC/s; no vpdpbusd here"
    times = alternate({"tiles": tiles, "limit": limit[0]}, repeat, clock)
    rate, most = macs / times["tiles"] / 1e9, limit[1] / times["limit"] / 1e9
    return (
        f"register tiles alone: {rate:.1f} GMAC/s, {100 * rate / most:.1f} % of vpdpbusd on registers, {most:.1f} "
        f"({SHAPES[0].name})"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, help="timed runs of each kernel (default 7)")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread: where others work too")
    parser.add_argument("--part", choices=["fast", "planes", "faithful", "all"], default="all", help="tables")
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
            console.print(fast_table(threads, options.repeat, clock))
        console.print(limit_line(options.repeat, clock))
    if options.part in ("planes", "all"):
        console.print(plane_table(options.repeat, clock))
    if options.part in ("faithful", "all"):
        for each in faithful_table(options.repeat, clock):
            console.print(each)


if __name__ == "__main__":
    main()
