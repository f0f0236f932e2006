"""How fast compiled co-simulation is: build seconds and clock cycles per second.

    python bench/cosim.py [--rows 1 4 16] [--cycles 200000] [--compiler PATH]

Every design is a number of independent dot-product rows of 16 lanes at the paper's widths, each
behind streams of its own. Random steps are streamed through all rows at once, without stalls,
in one call; nothing is taken from the cache of libraries.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from gatewise import kernels
from gatewise.rtl.bench import Layout
from gatewise.rtl.cxxrtl import compile_design, find_compiler, words_of
from gatewise.rtl.dot import DotProductRow, DotProductRowBench
from rich.console import Console
from rich.table import Table

PARAMETERS = kernels.DotProductRow(kernels.MacFormat(), 16)
WHOLE_ENGINE = 150_000
"""Cycles per second that the simulation of a whole network needs."""


class Rows(wiring.Component):  # type: ignore[misc]
    """Dot-product rows beside each other: streams ``i_K`` to ``o_K``."""

    def __init__(self, count: int) -> None:
        self.rows = [DotProductRow(PARAMETERS) for _ in range(count)]
        ports = {}
        for k, row in enumerate(self.rows):
            ports[f"i_{k}"] = In(stream.Signature(row.i.payload.shape()))
            ports[f"o_{k}"] = Out(stream.Signature(row.o.payload.shape()))
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Connect every row to its streams."""
        m = Module()
        for k, row in enumerate(self.rows):
            m.submodules[f"row_{k}"] = row
            wiring.connect(m, row.i, wiring.flipped(getattr(self, f"i_{k}")))
            wiring.connect(m, row.o, wiring.flipped(getattr(self, f"o_{k}")))
        return m


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16], help="rows of the designs (default 1 4 16)")
    parser.add_argument("--cycles", type=int, default=200_000, help="steps through every row (default 200000)")
    parser.add_argument("--compiler", help="path of the C++ compiler (default: clang++ or g++ on the PATH)")
    arguments = parser.parse_args()
    compiler = arguments.compiler or find_compiler()

    table = Table("rows x lanes", "RTLIL s", "build s", "cycles/s", "cached build s", title="compiled co-simulation")
    rate = 0.0
    with tempfile.TemporaryDirectory(prefix="gatewise-bench-") as cache:
        for count in arguments.rows:
            rows = Rows(count)
            layout = Layout.of(rows.rows[0].i.payload.shape().members)
            steps = DotProductRowBench(PARAMETERS).stimulus(layout, np.random.default_rng(count), arguments.cycles)
            words = words_of(layout.pack(steps))
            start = time.perf_counter()
            design = compile_design(rows, compiler=compiler, cache=Path(cache))
            elaborated = time.perf_counter() - start - design.build_seconds
            start = time.perf_counter()
            again = compile_design(Rows(count), compiler=compiler, cache=Path(cache))
            cached = time.perf_counter() - start
            assert again.cached
            with design.simulate() as simulation:
                start = time.perf_counter()
                record = simulation.streams(
                    {f"i_{k}": words for k in range(count)},
                    {f"o_{k}": len(words) for k in range(count)},
                    stalls=False,
                )
                rate = record.cycles / (time.perf_counter() - start)
            if record.violation is not None:
                raise SystemExit(record.violation)
            table.add_row(
                f"{count} x {PARAMETERS.lanes}",
                f"{elaborated:.1f}",
                f"{design.build_seconds:.1f}",
                f"{rate:,.0f}",
                f"{cached:.1f}",
            )
    console = Console(width=100)
    console.print(f"compiler: {compiler}")
    console.print(table)
    console.print(f"last design: {rate:,.0f} cycles/s against a target of {WHOLE_ENGINE:,} for a whole engine")


if __name__ == "__main__":
    main()
