"""How fast it all is, measured in one run and written into docs/performance.md.

    python bench/performance.py                        # measures everything, 12 minutes or less, and writes the page
    python bench/performance.py --part networks model  # measures parts; the rest stays as it is stored
    python bench/performance.py --page                 # writes the page of the stored figures

Figures are stored in docs/performance.json after each part. onnxruntime, LiteRT and SCALE-Sim are measured where the
interpreters of `--others` and `--scalesim` have them (or the variables GATEWISE_OTHERS and GATEWISE_SCALESIM).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cycle_model
import llvmlite.binding
import networks
import numpy as np
from gatewise.sim.atomic import write_bytes, write_json
from gatewise.sim.file import save_network
from gatewise.sim.shapes import resnet18
from markdown import table
from paths import ROOT
from rich.console import Console

import kernels

PAGE, STORE = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.json"
FIRST = "## How fast\n"
"""From here on the page is written."""
BATCH = 16
IMAGES = 256

NETWORK_TARGETS = {"resnet18": 1.5, "resnet50": 1.5, "mobilenet": 1.0}
"""Images a second of ours to those of torch."""
CYCLES_TARGET = 5.0
"""Milliseconds."""

COMMAND = """\
import sys
from gatewise.cli import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        print(*(line for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""
"""The command, and the most memory that it had; what a process has been given by its parent counts in its usage."""
WALL = ("command", "cosim", "scalesim")
"""Parts that are other processes, and whatever the clock of the rest, wall-clock time."""

Store = dict[str, Any]


def machine() -> str:
    """Processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    cores = len(os.sched_getaffinity(0))
    return (
        f"{model} ({llvmlite.binding.get_host_cpu_name()}, {cores} cores), Python {platform.python_version()}, "
        f"PyTorch {version('torch')}"
    )


def command_rows(repeat: int) -> Iterator[dict[str, Any]]:
    """Seconds and most memory of the command from the shell: its help, the demo, ResNet-18 on 256 images."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent) if ROOT.name == "gatewise" else ""}
    run = [sys.executable, "-c", COMMAND]
    with tempfile.TemporaryDirectory(prefix="gatewise-performance-") as name:
        network, images = Path(name) / "resnet18.gw", Path(name) / "images.npz"
        save_network(resnet18(), network)
        np.savez(images, images=np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 224, 224), dtype=np.uint8))
        engine = Path(name) / "engine.toml"
        engine.write_text(f"act_bytes = {networks.ENGINE.act_bytes}\n")
        for title, arguments, count in (
            ("gatewise --help", ["--help"], repeat),
            ("gatewise demo", ["demo"], repeat),
            (f"gatewise run, ResNet-18, {IMAGES} images", ["run", network, images, "--engine", engine], 1),
        ):
            seconds, most = [], 0
            for _ in range(1 + count):
                start = time.perf_counter()
                done = subprocess.run(
                    [*run, *map(str, arguments)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    text=True, check=False,
                )  # fmt: skip
                seconds.append(time.perf_counter() - start)
                if done.returncode:
                    raise SystemExit(f"{title} ended with {done.returncode}: {done.stderr.splitlines()[0]}")
                most = 1024 * int(done.stderr.split()[-2])
            # The first one may compile what the next ones find on disk.
            yield {"command": title, "seconds": statistics.median(seconds[1:]), "memory": most}


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a part."""
    clock: Callable[[], float] = time.thread_time if options.cpu_time else time.perf_counter
    threads = (1,) if options.cpu_time else (1, 2)
    repeat = options.repeat
    match part:
        case "kernels":
            return [row for count in threads for row in kernels.fast_rows(count, repeat, clock, options.others)]
        case "limit":
            return [kernels.limit_row(repeat, clock)]
        case "planes":
            return list(kernels.plane_rows(max(3, repeat // 3), clock))
        case "faithful":
            return list(kernels.faithful_rows(repeat, clock))
        case "networks":
            clock = time.process_time if options.cpu_time else time.perf_counter
            names = [*networks.NETWORKS, *networks.SCHEMES]
            return list(networks.network_rows(names, threads, BATCH, max(3, repeat // 2), clock))
        case "command":
            return list(command_rows(max(1, repeat // 3)))
        case _:
            return cycle_model.measured([part], repeat, clock, options.scalesim, options.limit)[part]


PARTS = ("kernels", "limit", "planes", "faithful", "networks", "command", *cycle_model.PARTS)


def paragraph(text: str, **values: Any) -> Iterator[str]:
    """Lines of a filled-in text, and an empty one."""
    words = " ".join(text.format(**values).split())
    yield from textwrap.wrap(words, 120, break_long_words=False, break_on_hyphens=False)
    yield ""


def on(threads: int) -> str:
    """In words."""
    return f"{threads} thread{'s' * (threads > 1)}"


def how(store: Store, *parts: str) -> str:
    """When and how parts were measured, as a sentence."""
    made = [store[part] for part in parts if part in store]
    texts = dict.fromkeys(f"{each['date']}, {each['clock']} time, {each['load']}, {each['machine']}" for each in made)
    return f"({'; '.join(texts)}.)"


def _rows(store: Store, part: str) -> list[dict[str, Any]]:
    """What was measured of a part, whatever was skipped left out."""
    return [row for row in store.get(part, {}).get("rows", []) if "skipped" not in row]


def _skipped(store: Store, *parts: str) -> Iterator[str]:
    for part in parts:
        rows = store.get(part, {}).get("rows", [])
        lines = dict.fromkeys(
            text for row in rows for text in (row.get("skipped"), *row.get("missing", {}).values()) if text
        )
        yield from (f"Not measured: {line}." for line in lines)
    yield ""


def _asked(store: Store) -> Iterator[str]:
    """What was to be shown, and what was measured."""
    rows: list[tuple[str, float, float]] = []
    first = kernels.SHAPES[0].name
    for row in _rows(store, "kernels"):
        if row["layer"] == first:
            for form, least in (("vnni", 2.5), ("portable", 0.6)):
                if form in row["rates"]:
                    found = row["rates"][form] / row["rates"][kernels.FLOAT]
                    rows.append((f"`{form}`, {first}, {on(row['threads'])}, to torch float32", least, found))
    what = "register tiles, to `vpdpbusd` on registers alone"
    rows += [(what, 0.8, row["tiles"] / row["limit"]) for row in _rows(store, "limit") if row["limit"] is not None]
    for row in _rows(store, "networks"):
        if row["network"] in NETWORK_TARGETS:
            what = f"{row['network']}, {on(row['threads'])}, to torch float32"
            rows.append((what, NETWORK_TARGETS[row["network"]], networks.ratio(row)))
    rows += [
        (f"faithful, {row['kernel']}, GMAC/s", kernels.TARGETS[row["kernel"]], row["rate"])
        for row in _rows(store, "faithful")
        if row["kernel"] in kernels.TARGETS
    ]
    cells = [
        [what, f"at least {target:g}", f"{found:.3g}", "yes" if found >= target else "**no**"]
        for what, target, found in rows
    ]
    for row in _rows(store, "model"):
        if row["network"] == "ResNet-50":
            held = "yes" if row["cycles_ms"] < CYCLES_TARGET else "**no**"
            cells.append(["cycles of ResNet-50, ms", f"under {CYCLES_TARGET:g}", f"{row['cycles_ms']:.2f}", held])
    yield from table(["what", "asked", "found", "met"], cells)


KERNELS = """\
GMAC/s of a convolution of 4-bit weights and activations, with alignment shifts of 0 to 8 (but the stem), packing
and requantisation included, an image for each thread; medians, all in turn in one run. `_int_mm` is the product
alone, of a matrix of columns that somebody has made. onnxruntime (QLinearConv) and LiteRT (CONV_2D) compute 8-bit
convolutions without alignment, requantised. The ratios are to torch float32. {how}"""
SHORT = """\
Of the inner loops, {limit}. A call of a few tens of microseconds is too short for two of Python's threads (the last
two rows): `run` gives each thread whole images through all layers."""


def _kernels(store: Store) -> Iterator[str]:
    rows = _rows(store, "kernels")
    if not rows:
        return
    yield from paragraph(KERNELS, how=how(store, "kernels", "limit"))
    for threads in dict.fromkeys(row["threads"] for row in rows):
        chosen = [row for row in rows if row["threads"] == threads]
        names = list(dict.fromkeys(name for row in chosen for name in row["rates"]))
        forms = [name for name in names if name in ("vnni", "portable")]
        versions = {name: text for row in chosen for name, text in row.get("versions", {}).items()}
        headings = [on(threads)]
        for name in names:
            headings += [f"`{name}`", "ratio"] if name in forms else [versions.get(name, name)]
        cells = []
        for row in chosen:
            rates, line = row["rates"], [row["layer"]]
            for name in names:
                line.append(f"{rates[name]:.1f}" if name in rates else "")
                if name in forms:
                    line.append(f"{rates[name] / rates[kernels.FLOAT]:.2f}" if name in rates else "")
            cells.append(line)
        yield from table(headings, cells)
    for row in _rows(store, "limit"):
        yield from paragraph(SHORT, limit=kernels.limit_line(row))
    yield from _skipped(store, "kernels")


PLANES = """\
Sign planes of weights and activations, bits counted, packing and thresholds included, beside the same as small
integers and torch; GMAC/s on one thread. {how}"""


def _planes(store: Store) -> Iterator[str]:
    rows = _rows(store, "planes")
    if not rows:
        return
    yield from paragraph(PLANES, how=how(store, "planes"))
    cells = []
    for row in rows:
        counted, fast, theirs = (row["rates"][each] for each in ("popcount", "other", kernels.FLOAT))
        ratios = f"{counted / fast:.2f}", f"{counted / theirs:.2f}"
        cells.append([row["layer"], row["planes"], *(f"{each:.1f}" for each in (counted, fast, theirs)), *ratios])
    form = f"`{rows[0]['form']}`"
    headings = ["convolution", "planes", "`popcount`", form, kernels.FLOAT, f"ratio to {form}", "ratio to torch"]
    yield from table(headings, cells, 2)


FAITHFUL = "Faithful kernels, {layer}, one thread, every limited product counted. {how}"


def _faithful(store: Store) -> Iterator[str]:
    rows = _rows(store, "faithful")
    if not rows:
        return
    yield from paragraph(FAITHFUL, layer=kernels.SHAPES[0].name, how=how(store, "faithful"))
    cells = [[row["kernel"], f"{100 * row['clipped']:.2f} %", f"{row['rate']:.1f}"] for row in rows]
    yield from table(["kernel", "MACs limited", "GMAC/s"], cells)


NETWORKS = """\
Images a second of `gatewise run` by images of a batch, from uint8 images to codes, overflow counts and cycles,
weights packed before; PyTorch in float32, eager, batch norms folded, in both memory orders. The ratio is to the
faster. {how}"""
SCHEMES = """\
ResNet-20s that were trained on CIFAR-10 in each scheme (`bench/trained`), on the array that runs them; PyTorch has the
same layers in float32 beside each. For each product of the others LQ-Net counts 2 x 2 pairs of planes, which is as
fast as float32, and ABC-Net 5 x 5, which is not."""


def _networks(store: Store) -> Iterator[str]:
    rows = _rows(store, "networks")
    for names, text in ((networks.NETWORKS, NETWORKS), (networks.SCHEMES, SCHEMES)):
        cells = []
        for row in rows:
            if row["network"] in names:
                rates = (f"{each:.1f}" for each in row["rates"].values())
                cells.append(
                    [row["network"], str(row["images"]), str(row["threads"]), *rates, f"**{networks.ratio(row):.2f}**"]
                )
        if cells:
            head = ["network", "images", "threads", "gatewise", "torch", "torch, channels last", "ratio"]
            yield from paragraph(text, how=how(store, "networks"))
            yield from table(head, cells)
    rows = _rows(store, "command")
    if rows:
        yield from paragraph("From the shell, everything included. {how}", how=how(store, "command"))
        cells = [[f"`{row['command']}`", f"{row['seconds']:.2f}", f"{row['memory'] / 1e6:.0f}"] for row in rows]
        yield from table(["command", "seconds", "most memory, MB"], cells)


MODEL = """\
Layout and registers are made before cycles are counted, once for a network and an engine; the memory image, all of
whose streams are encoded, only for `compile` and co-simulation. Milliseconds on one thread, engine of 16 x 16 with
4 MiB of activation memory, raw weights. {how}"""
SWEEP = """\
Many engines at once (`gatewise sweep`, `network_cycles_many`), layout and registers included: configurations a
second where rows, lanes, accumulators, post lanes, bus and latency are all random, where rows and lanes are the
same, and one by one. {how}"""
HUFFMAN = """\
Huffman-coded weights: the streams themselves are made, and the decoders are played on them. Milliseconds on one
thread. {how}"""
COSIM = """\
Our own RTL, compiled, runs an image of {network} in {rtl_seconds:.1f} s, {rtl_rate:,.0f} cycles a second; the model
says the same {cycles:,} cycles, `==` for every layer, in {model_ms:.1f} ms with layout and registers:
**{ratio:,.0f} times** faster, without values. {how}"""
SCALE_SIM = """\
{version} takes {scalesim_seconds:.0f} s for {layers} of ResNet-18 on 16 x 16, weights stationary, without its
traces; our model {model_ms:.1f} ms for the whole network, layout and registers included: **{ratio:,.0f} times**
faster. The engines differ: {scalesim_cycles:,} cycles there, of a systolic array that is filled and emptied skewed
and whose memories keep up; {cycles:,} here, with weights over a bus of 128 bits, descriptors, requantisation and
drains. SCALE-Sim computes what we do not: addresses of every access cycle by cycle, memory bandwidths that would
do, other dataflows, sparse weights. It computes no values, and no RTL is held to it. {how}"""


def _cycles(store: Store) -> Iterator[str]:
    yield from ("### The cycle model", "")
    rows = _rows(store, "model")
    if rows:
        yield from paragraph(MODEL, how=how(store, "model"))
        cells = []
        for row in rows:
            times = f"{row['lower_ms']:.1f}", f"**{row['cycles_ms']:.2f}**", f"{row['compile_ms']:,.0f}"
            cells.append([row["network"], str(row["layers"]), f"{row['cycles']:,}", *times])
        headings = ["network", "layers", "cycles of an image", "layout and registers", "cycles", "memory image"]
        yield from table(headings, cells)
    rows = _rows(store, "sweep")
    if rows:
        yield from paragraph(SWEEP, how=how(store, "sweep"))
        cells = []
        for row in rows:
            rates = [row[name] for name in ("random", "one_size", "singly")]
            ratios = f"{rates[0] / rates[2]:.1f} to {rates[1] / rates[2]:.0f}"
            cells.append([row["network"], *(f"{rate:,.0f}" for rate in rates), ratios])
        yield from table(["network", "random sizes", "one size", "one by one", "ratios"], cells)
    rows = _rows(store, "huffman")
    if rows:
        yield from paragraph(HUFFMAN, how=how(store, "huffman"))
        cells = []
        for row in rows:
            times = f"{row['lower_ms']:.0f}", f"{row['cycles_ms']:.1f}"
            cells.append([row["network"], f"{row['cycles']:,}", *times])
        yield from table(["network", "cycles of an image", "layout, registers and streams", "cycles"], cells)
    for part, text in (("cosim", COSIM), ("scalesim", SCALE_SIM)):
        for row in _rows(store, part):
            yield from paragraph(text, how=how(store, part), **row)
    yield from _skipped(store, "cosim", "scalesim")


def section(store: Store) -> str:
    """What the page has from its heading on."""
    lines = [
        FIRST.strip(),
        "",
        "`bench/performance.py` measures and writes this part of the page; `bench/kernels.py`, `bench/networks.py` and",
        "`bench/cycle_model.py` print the same alone.",
        "",
    ]
    for make in (_asked, _kernels, _planes, _faithful, _networks, _cycles):
        lines += make(store)
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def page(text: str, store: Store) -> str:
    """The page with its figures written anew."""
    return text.split(FIRST)[0] + section(store)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure; the rest stays")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--repeat", type=int, default=9, help="timed runs of each kernel (default 9), of networks half")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread: where others work too")
    parser.add_argument("--others", default=os.environ.get("GATEWISE_OTHERS"), metavar="PYTHON")
    parser.add_argument("--scalesim", default=os.environ.get(cycle_model.SCALESIM, sys.executable), metavar="PYTHON")
    parser.add_argument("--limit", type=float, default=240, help="seconds that SCALE-Sim may take (default 240)")
    options = parser.parse_args()
    console = Console(stderr=True)
    store: Store = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    for part in () if options.page else options.part:
        start, load = time.perf_counter(), os.getloadavg()[0]
        rows = measured(part, options)
        store[part] = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "clock": "processor" if options.cpu_time and part not in WALL else "wall-clock",
            "load": f"load {load:.1f} before",
            "rows": rows,
        }
        write_json(STORE, store)
        console.print(f"{part}: {time.perf_counter() - start:.0f} s", highlight=False)
    write_bytes(PAGE, page(PAGE.read_text(encoding="utf-8"), store).encode())


if __name__ == "__main__":
    main()
