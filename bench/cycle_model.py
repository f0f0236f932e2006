"""How fast the cycle model is: of one engine, of many, of Huffman streams; beside our own RTL and beside SCALE-Sim.

    python bench/cycle_model.py [--part model sweep huffman cosim scalesim] [--cpu-time] [--scalesim PYTHON]

A network is laid out and its registers made before its cycles are counted: both are said. SCALE-Sim (from PyPI,
best in an environment of its own) runs in the interpreter of `--scalesim`, or of the variable GATEWISE_SCALESIM, and
within `--limit` seconds.
"""

import argparse
import csv
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gatewise import EngineConfig, Network, load
from gatewise.sim.compile import compile_network
from gatewise.sim.cycles import network_cycles
from gatewise.sim.lower import lower
from gatewise.sim.shapes import mobilenet, noise, resnet18, resnet20, resnet50
from gatewise.sim.sort import sorted_by_width
from gatewise.sim.sweep import network_cycles_many
from paths import TRAINED
from rich.console import Console
from rich.table import Table

__all__ = ["PARTS", "measured", "tables"]

NETWORKS: dict[str, Callable[[], Network]] = {
    "ResNet-18": resnet18,
    "ResNet-50": resnet50,
    "MobileNet-V1": mobilenet,
    "ResNet-20": partial(resnet20, "resnet20", noise(4)),
}
ENGINE = EngineConfig(act_bytes=4 << 20)
SWEPT_BYTES = 16 << 20
"""Enough for every network on every engine of a sweep."""
RANDOM_SIZES = 200
"""Engines of a sweep over everything."""
SIZES = (4, 8, 16, 32, 64)
SCALESIM = "GATEWISE_SCALESIM"
SCALE_LAYERS = ("layer1.0.conv1", "layer2.0.conv2")
"""Of ResNet-18: SCALE-Sim takes most of a minute for one."""

Rows = list[dict[str, Any]]


def _milliseconds(work: Callable[[], object], repeat: int, clock: Callable[[], float]) -> float:
    work()
    times = []
    for _ in range(repeat):
        start = clock()
        work()
        times.append(clock() - start)
    return 1e3 * statistics.median(times)


def model_rows(repeat: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Of one engine: milliseconds of layout and registers, of the memory image with all streams, of the cycles."""
    for name, build in NETWORKS.items():
        network = build()
        lowered = lower(network, ENGINE)
        cycles = network_cycles(lowered, ENGINE)
        yield {
            "network": name,
            "layers": len(lowered),
            "cycles": sum(layer.total for layer in cycles),
            "lower_ms": _milliseconds(lambda network=network: lower(network, ENGINE), repeat, clock),
            "compile_ms": _milliseconds(lambda network=network: compile_network(network, ENGINE), 1, clock),
            "cycles_ms": _milliseconds(lambda lowered=lowered: network_cycles(lowered, ENGINE), 3 * repeat, clock),
        }


def _random_engine(rng: random.Random) -> EngineConfig:
    rows, lanes = rng.choice(SIZES), rng.choice(SIZES)
    return EngineConfig(
        rows=rows,
        lanes=lanes,
        pixels=rng.choice([16, 64, 256, 1024]),
        post_lanes=min(rows, lanes, rng.choice([1, 2, 4, 8, 16])),
        bus_bits=rng.choice([8, 32, 64, 128, 512]),
        bus_latency=rng.choice([0, 20, 100]),
        act_bytes=SWEPT_BYTES,
    )


def sweep_rows(repeat: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Of many: configurations a second, of random sizes and of one size, and those of the model one by one."""
    rng = random.Random(0)
    sizes = [_random_engine(rng) for _ in range(RANDOM_SIZES)]
    same = [
        EngineConfig(pixels=pixels, post_lanes=post_lanes, bus_bits=bus, bus_latency=latency, act_bytes=SWEPT_BYTES)
        for pixels in (64, 128, 256, 512)
        for post_lanes in (1, 2, 4, 8)
        for bus in (32, 64, 128, 256)
        for latency in (0, 20, 40)
    ]
    few = sizes[:: RANDOM_SIZES // 10]
    for name, build in NETWORKS.items():
        network = build()

        def singly(network: Network = network) -> list[int]:
            return [sum(layer.total for layer in network_cycles(lower(network, engine), engine)) for engine in few]

        found = network_cycles_many(network, few).cycles.tolist()
        if found != singly():
            raise SystemExit(f"{name}: cycles on many engines must be those on each")
        once, many = (
            _milliseconds(partial(network_cycles_many, network, each), repeat, clock) for each in (sizes, same)
        )
        yield {
            "network": name,
            "random": len(sizes) / once * 1e3,
            "one_size": len(same) / many * 1e3,
            "singly": len(few) / _milliseconds(singly, repeat, clock) * 1e3,
        }


def huffman_rows(repeat: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Of Huffman streams: milliseconds until they are made and the taper is found, and of the cycles."""
    focused = sorted_by_width(load(TRAINED / "focused-s61-w5.gw")).network
    for name, network, array in (
        ("ResNet-20, focused, 5 bits, trained", focused, "shift"),
        ("ResNet-20, 4-bit integers", NETWORKS["ResNet-20"](), "digit"),
        ("ResNet-18, 4-bit integers", NETWORKS["ResNet-18"](), "digit"),
    ):
        engine = ENGINE.model_copy(update={"array": array, "decoder": "huffman"})
        lowered = lower(network, engine)
        yield {
            "network": name,
            "cycles": sum(layer.total for layer in network_cycles(lowered, engine)),
            "lower_ms": _milliseconds(partial(lower, network, engine), repeat, clock),
            "cycles_ms": _milliseconds(partial(network_cycles, lowered, engine), repeat, clock),
        }


def cosim_rows(repeat: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Beside our own RTL, compiled: ResNet-20 on an engine of 8 x 8, every layer's cycle counter held to the model."""
    try:
        from gatewise.rtl.engine.comparison import compare_cycles
        from gatewise.rtl.engine.cosim import EngineSimulation, compile_engine
    except ImportError as error:
        yield {"skipped": f"co-simulation needs Amaranth: {error}"}
        return
    engine = EngineConfig(rows=8, lanes=8)
    network = NETWORKS["ResNet-20"]()
    compiled = compile_network(network, engine)
    spec = network.manifest.input
    codes = np.random.default_rng(0).integers(*spec.range, spec.shape, endpoint=True).astype(np.int16)
    layers = network_cycles(compiled.layers, engine)
    total = sum(layer.total for layer in layers)
    with EngineSimulation(compile_engine(engine), compiled) as simulation:
        start = time.perf_counter()
        found = simulation.run(codes, 2 * total)
        seconds = time.perf_counter() - start
    if found.layer_cycles.tolist() != [layer.total for layer in layers]:
        raise SystemExit(
            str(compare_cycles(layers, found.layer_cycles, found.layer_indices, found.layer_ends, exact=True))
        )
    model = _milliseconds(lambda: network_cycles(lower(network, engine), engine), repeat, clock)
    yield {
        "network": "ResNet-20 on 8 x 8",
        "cycles": total,
        "rtl_cycles": int(found.layer_cycles.sum()),
        "rtl_seconds": seconds,
        "rtl_rate": total / seconds,
        "model_ms": model,
        "ratio": seconds / model * 1e3,
    }


SETTINGS = """\
[general]
run_name = gatewise
[architecture_presets]
ArrayHeight: 16
ArrayWidth: 16
IfmapSramSzkB: 1024
FilterSramSzkB: 1024
OfmapSramSzkB: 1024
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: ws
Bandwidth: 16
MemoryBanks: 1
ReadRequestBuffer: 64
WriteRequestBuffer: 64
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


SCALE_VERSION = "import scalesim, importlib.metadata; print(importlib.metadata.version('scalesim'))"
SCALE_RUN = """\
from scalesim.scale_sim import scalesim
run = scalesim(save_disk_space=True, verbose=False, config="engine.cfg", topology="layers.csv", layout="layers.csv")
run.run_scale(top_path="out")
"""
"""Without the traces, which its command always writes; no layout of its own is asked for, but a file must be there."""


def topology(network: Network) -> list[list[Any]]:
    """The convolutions of a network as SCALE-Sim reads them, padding included in the input's size."""
    rows = []
    for node in network.mac_nodes():
        shape, (height, width) = network.layers[node.name].shape, network.source(node).shape[1:]
        top, left, bottom, right = shape.padding
        size = height + top + bottom, width + left + right
        rows.append([node.name, *size, *shape.kernel, shape.in_channels, shape.out_channels, shape.stride[0]])
    return rows


SCALE_HEADINGS = (
    "Layer name", "IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels", "Num Filter", "Strides",
)  # fmt: skip


def scalesim_rows(python: str, limit: float, repeat: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Beside SCALE-Sim v3: two layers of ResNet-18 on 16 x 16, weights stationary; our time is of the whole network."""
    known = subprocess.run([python, "-c", SCALE_VERSION], capture_output=True, text=True, check=False)
    if known.returncode:
        yield {
            "skipped": f"SCALE-Sim is not there: pip install scalesim, and --scalesim PYTHON or {SCALESIM} says where"
        }
        return
    network = NETWORKS["ResNet-18"]()
    rows = [row for row in topology(network) if row[0] in SCALE_LAYERS]
    with tempfile.TemporaryDirectory(prefix="gatewise-scalesim-") as name:
        folder = Path(name)
        (folder / "engine.cfg").write_text(SETTINGS)
        with (folder / "layers.csv").open("w", newline="") as text:
            writer = csv.writer(text, lineterminator=",\n")
            writer.writerow(SCALE_HEADINGS)
            writer.writerows(rows)
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [python, "-c", SCALE_RUN], cwd=folder, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            yield {"skipped": f"SCALE-Sim took more than {limit:g} s"}
            return
        seconds = time.perf_counter() - start
        reports = list(folder.rglob("COMPUTE_REPORT.csv"))
        if done.returncode or not reports:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            yield {"skipped": f"SCALE-Sim ended with {done.returncode}: {''.join(last)}"}
            return
        with reports[0].open() as text:
            theirs = [{key.strip(): value.strip() for key, value in row.items() if key} for row in csv.DictReader(text)]
    layers = {layer.name: layer for layer in network_cycles(lower(network, ENGINE), ENGINE)}
    model = _milliseconds(lambda: network_cycles(lower(network, ENGINE), ENGINE), repeat, clock)
    yield {
        "version": f"SCALE-Sim {known.stdout.strip()}",
        "layers": ", ".join(SCALE_LAYERS),
        "scalesim_seconds": seconds,
        "model_ms": model,
        "ratio": seconds / model * 1e3,
        "scalesim_cycles": sum(int(float(row["Total Cycles"])) for row in theirs),
        "cycles": sum(layers[row[0]].total for row in rows),
    }


PARTS = ("model", "sweep", "huffman", "cosim", "scalesim")


def measured(
    parts: list[str], repeat: int, clock: Callable[[], float], python: str, limit: float
) -> dict[str, list[dict[str, Any]]]:
    """Rows by part."""
    makers: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "model": lambda: model_rows(repeat, clock),
        "sweep": lambda: sweep_rows(max(1, repeat // 3), clock),
        "huffman": lambda: huffman_rows(max(1, repeat // 3), clock),
        "cosim": lambda: cosim_rows(repeat, clock),
        "scalesim": lambda: scalesim_rows(python, limit, repeat, clock),
    }
    return {part: list(makers[part]()) for part in parts}


def tables(found: dict[str, list[dict[str, Any]]]) -> Iterator[Table]:
    """For a terminal: columns are the names of the figures."""
    for part, rows in found.items():
        table = Table(*rows[0], title=part, title_justify="left")
        for row in rows:
            table.add_row(*(f"{each:,.4g}" if isinstance(each, float) else f"{each}" for each in row.values()))
        yield table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeat", type=int, default=5, help="timed runs of each (default 5)")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: where others work too")
    parser.add_argument("--scalesim", default=os.environ.get(SCALESIM, "python3"), metavar="PYTHON")
    parser.add_argument("--limit", type=float, default=240, help="seconds that SCALE-Sim may take (default 240)")
    options = parser.parse_args()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    for table in tables(measured(options.part, options.repeat, clock, options.scalesim, options.limit)):
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
