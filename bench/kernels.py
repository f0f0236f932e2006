"""How fast the bit-level kernels are: GMAC/s on one core, beside torch's float32 convolution.

    python bench/kernels.py [--repeat 7]

Every row runs the same convolution (128 -> 128 channels, 3 x 3, 56 x 56, padding 1). Kernels and
torch alternate in one process on one thread; a row shows medians, and the ratio to torch.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.binding
import numpy as np
from gatewise.kernels import ConvShape, MacFormat, Operands, alignment_factors, conv2d, split_digits
from rich.console import Console
from rich.table import Table

SHAPE = ConvShape(128, 128, (3, 3), padding=(1, 1, 1, 1))
SIZE = 56
LANES = 16
TARGET = 8.0
"""GMAC/s that the faithful kernel must reach at align = 12 with about 1 % of the products clipping."""


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


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, help="timed runs of each kernel (default 7)")
    repeat = parser.parse_args().repeat

    import torch

    torch.set_num_threads(1)
    image = torch.rand(1, SHAPE.in_channels, SIZE, SIZE)
    kernel = torch.rand(SHAPE.weight_shape)
    macs = SHAPE.macs(SIZE, SIZE)

    def float_conv() -> object:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(image, kernel, padding=1)

    table = Table(
        "kernel",
        "MACs clipped",
        "GMAC/s",
        "torch float32",
        "ratio",
        title="faithful kernels, one core",
        title_justify="left",
    )
    float_conv()
    verdict = ""
    for case in CASES:
        x, weights, factors = operands(case)
        pairs = Operands(case.a_bits, False, case.w_bits)

        def run(x=x, weights=weights, factors=factors, pairs=pairs, case=case):  # type: ignore[no-untyped-def]
            return conv2d(x, weights, factors, SHAPE, pairs, case.fmt, LANES)

        found = run()
        clipped = (found.align_overflows.sum() + found.product_overflows.sum()) / (macs * pairs.digit_pairs)
        ours, theirs = [], []
        for _ in range(repeat):
            ours.append(seconds(run))
            theirs.append(seconds(float_conv))
        rate, float_rate = (macs / statistics.median(times) / 1e9 for times in (ours, theirs))
        table.add_row(
            case.name, f"{100 * clipped:.2f} %", f"{rate:.1f}", f"{float_rate:.1f}", f"{rate / float_rate:.2f}"
        )
        if case.name == "align = 12, saturate":
            verdict = f"align = 12, saturate: {rate:.1f} GMAC/s against a target of {TARGET:g}"
    console = Console(width=100)
    console.print(f"{platform.processor() or platform.machine()}, {llvmlite.binding.get_host_cpu_name()}")
    console.print(table)
    console.print(verdict)


if __name__ == "__main__":
    main()
