"""The engine on real networks: utilisation and what binds it, RTL against simulator, gates; writes docs/engine.md.

    python bench/engine.py [--part utilisation gates compute engines cosim resnet18 speed] [--output F]

Needs the data folder (GATEWISE_DATA, or ../shared/data beside the checkout) for ResNet-20, but not for the parts
`compute` and `engines`. Sections of parts that are not run stay as they are. Co-simulations that differ end the run
with exit code 1.
"""

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gatewise import EngineConfig, Network
from gatewise.kernels.errors import MismatchError
from gatewise.quant.methods import quantize
from gatewise.rtl.cxxrtl import BusTiming, CompiledDesign
from gatewise.rtl.engine.cosim import BUS, EngineSimulation, compile_engine, regress_network
from gatewise.rtl.engine_count import Cost, EngineCount, Wanted, count_engines
from gatewise.rtl.yosys import tool_version
from gatewise.sim.arrays import DECODERS
from gatewise.sim.atomic import write_bytes
from gatewise.sim.compile import compile_network
from gatewise.sim.cycles import LayerCycles, layer_cycles
from gatewise.sim.demo import load_demo
from gatewise.sim.images import load_images, quantise_images
from gatewise.sim.lower import lower
from gatewise.sim.shapes import resnet18
from paths import DATA, ROOT

BUSES = {
    "narrow": {"bus_bits": 16, "bus_latency": 20},
    "wide": {"bus_bits": 512, "bus_latency": 20},
    "slow": {"bus_bits": 128, "bus_latency": 150},
}
"""The buses of the demo's runs."""
POST_LANES = (2, 4, 8, 16)


@cache
def resnet20() -> Network:
    """The 4-bit ResNet-20 of ACIQ, calibrated on the first 32 training images."""
    if not (DATA / "cifar10").is_dir():
        sys.exit(f"error: the data folder must hold cifar10/: set GATEWISE_DATA, found nothing at {DATA}")
    calibration = load_images(DATA / "cifar10" / "train.npz")
    weights = DATA / "cifar10" / "resnet20.safetensors"
    return quantize("aciq", "cifar-resnet20", str(weights), calibration, images=32, bits=4, options={}).network


def layers_of(network: Network, engine: EngineConfig) -> list[LayerCycles]:
    """The cycles of every layer."""
    return [layer_cycles(layer, engine) for layer in lower(network, engine)]


def inner_layers(network: Network, engine: EngineConfig) -> list[LayerCycles]:
    """The 3 x 3 layers with 16 or more input channels."""
    chosen = {
        node.name
        for node in network.mac_nodes()
        if getattr(node, "kernel", (1, 1)) == (3, 3) and network.source(node).shape[0] >= 16
    }
    return [layer for layer in layers_of(network, engine) if layer.name in chosen]


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in lines)


def utilisation() -> str:
    """Every layer of ResNet-20 on the default engine, and what binds it."""
    engine, network = EngineConfig(), resnet20()
    layers = layers_of(network, engine)
    rows: list[tuple[object, ...]] = [
        (
            *(layer.name, layer.op, f"{layer.total:,}"),
            *(layer.compute, layer.weight_stall, layer.post_stall, layer.drain, layer.fill, layer.host),
            f"{100 * layer.utilisation(engine):.1f}" if layer.macs else "",
            layer.bound_by,
        )
        for layer in layers
    ]
    total, useful = sum(layer.total for layer in layers), sum(layer.products for layer in layers)
    whole = useful / (engine.products * total)
    columns = (
        *("layer", "op", "cycles", "compute", "weight stall", "post stall", "drain", "fill", "host"),
        *("utilisation %", "bound by"),
    )
    return f"{total:,} cycles an image, utilisation of the whole network {100 * whole:.1f} %.\n\n" + table(
        columns, rows
    )


def gates() -> str:
    """Utilisation of the inner layers, and gates, by post lanes."""
    rows: list[tuple[object, ...]] = []
    network = resnet20()
    configs = [EngineConfig(post_lanes=lanes) for lanes in POST_LANES]
    for engine, count in zip(configs, count_engines(map(Wanted, configs), notice=print), strict=True):
        layers = inner_layers(network, engine)
        useful, total = sum(layer.products for layer in layers), sum(layer.total for layer in layers)
        rows.append(
            (
                engine.post_lanes,
                f"{100 * useful / (engine.products * total):.1f}",
                f"{100 * min(layer.utilisation(engine) for layer in layers):.1f}",
                f"{sum(layer.total for layer in layers_of(network, engine)):,}",
                *cost_columns(count.whole)[:2],
                *cost_columns(count.whole)[3:5],
            )
        )
    columns = (
        *("post lanes", "utilisation of the 3 x 3 layers %", "least of a layer %", "cycles of an image"),
        *("two-input gates", "gate equivalents", "ALMs (with DSP)", "DSP"),
    )
    return (
        "ResNet-20's 3 x 3 layers with 16 or more input channels, fill, records and drain included; gates and ALMs of "
        "the whole 16 x 16 engine, memories apart.\n\n" + table(columns, rows)
    )


COST_COLUMNS = ("gates", "gate equivalents", "flip-flops", "ALMs (with DSP)", "DSP", "memory bits", "M20K")


def cost_columns(cost: Cost) -> tuple[str, ...]:
    """A cost as columns of a table."""
    return (
        *(f"{round(value):,}" for value in (cost.gates, cost.equivalents, cost.flip_flops)),
        f"{round(cost.alms_low):,} .. {round(cost.alms_high):,}",
        *(f"{math.ceil(value):,}" for value in (cost.dsps, cost.memory_bits, cost.m20ks)),
    )


def by_part(title: str, counts: Sequence[EngineCount]) -> str:
    """A table of all that was counted, with the share of the decoder, and one of the parts of each."""
    totals: list[tuple[object, ...]] = []
    tables = ""
    for count in counts:
        whole, coded = count.whole, count.parts.get("decoder", Cost())
        share = (100 * coded.gates / whole.gates, 100 * coded.equivalents / whole.equivalents)
        kind = count.config.array, count.config.decoder
        totals.append(
            (
                *kind,
                *cost_columns(whole),
                f"{round(coded.gates):,}",
                *(f"{each:.1f}" for each in share),
                count.rtl_sha256[:8],
            )
        )
        rows: list[tuple[object, ...]] = [
            (name, *cost_columns(cost), f"{100 * cost.gates / whole.gates:.1f}") for name, cost in count.parts.items()
        ]
        tables += f"\n### {title}: {', '.join(kind)}\n\n"
        tables += table(("part", *COST_COLUMNS, "% of the gates"), rows)
    columns = ("array", "decoder", *COST_COLUMNS, "decoder: gates", "% of the gates", "% of the equivalents", "RTL")
    return table(columns, totals) + tables


def configurations() -> Iterator[EngineConfig]:
    """The default engine with each array and each decoder that it may have."""
    for array, decoders in DECODERS.items():
        for decoder in decoders:
            yield EngineConfig(array=array, decoder=decoder)


def compute_units() -> str:
    """Gates of every compute unit by part."""
    counts = count_engines((Wanted(config, unit=True) for config in configurations()), notice=print)
    return (
        "What lies between the weight stream and the accumulators of the default 16 x 16 engine, with each array and "
        "each decoder that it may have. Memories are bits and blocks, not gates. Without a decoder whole codes come "
        "from the bus; the rest of a loader, the shadow and the active tile, every engine has. "
        f"{tool_version()}; RTL is the beginning of its hash.\n\n" + by_part("compute", counts)
    )


def engines() -> str:
    """Gates of every engine by part."""
    counts = count_engines(map(Wanted, configurations()), notice=print)
    return "The default engines as wholes; DSP blocks take the multipliers of the post lanes.\n\n" + by_part(
        "engine", counts
    )


def compared(network: Network, engine: EngineConfig, codes: np.ndarray) -> tuple[tuple[object, ...], CompiledDesign]:
    """A network through the RTL: a row of the table, and the engine's design."""
    start = time.perf_counter()
    design = compile_engine(engine)
    built = time.perf_counter() - start
    result = regress_network(design, compile_network(network, engine), codes)
    if result.mismatch is not None:
        raise MismatchError(f"{result.network} on {result.engine}: {result.mismatch}")
    row = (
        *(result.network, f"{engine.rows} x {engine.lanes}", f"{engine.bus_bits} bits, latency {engine.bus_latency}"),
        *(result.images, f"{result.digits:,}", f"{result.counters:,}", f"{result.cycles:,}"),
        *(f"{built:.0f}" + (" (cached)" if design.cached else ""), f"{result.seconds:.1f}"),
    )
    print(*row, sep="  ")
    return row, design


COSIM_COLUMNS = (
    *("network", "engine", "bus", "images", "digits", "counters", "cycles", "build s", "run and comparison s"),
)


def cosim() -> str:
    """The demo on nine engines, ResNet-20 on the default one."""
    demo = load_demo()
    codes = quantise_images(demo.images[:10], demo.network.manifest.input)
    rows = [
        compared(demo.network, EngineConfig(rows=size, lanes=size, **bus), codes)[0]
        for size in (4, 8, 16)
        for bus in BUSES.values()
    ]
    images = load_images(DATA / "cifar10" / "test.npz")[:1]
    rows.append(compared(resnet20(), EngineConfig(), quantise_images(images, resnet20().manifest.input))[0])
    return (
        "Every digit that a layer writes, every overflow counter and every layer's cycle counter are equal.\n\n"
        + table(COSIM_COLUMNS, rows)
    )


def whole_resnet18() -> str:
    """ResNet-18 at 224 x 224 through the RTL of the default engine."""
    network = resnet18()
    spec = network.manifest.input
    codes = np.random.default_rng(0).integers(*spec.range, (1, *spec.shape), endpoint=True).astype(np.int16)
    row, _ = compared(network, EngineConfig(), codes)
    return "One image through the RTL of the default engine, equal in every digit, counter and cycle.\n\n" + table(
        COSIM_COLUMNS, [row]
    )


def speed() -> str:
    """Cycles per second of the default engine's co-simulation, without and with what the comparison records."""
    engine, network = EngineConfig(), resnet20()
    design = compile_engine(engine)
    compiled = compile_network(network, engine)
    codes = quantise_images(load_images(DATA / "cifar10" / "test.npz")[:1], network.manifest.input)[0]
    bare, recorded = [], []
    for _ in range(5):
        with design.simulate() as simulation:
            simulation.attach_bus(BUS, compiled.with_input(codes), BusTiming(engine.bus_latency))
            simulation.poke("start", 1)
            simulation.run(1)
            simulation.poke("start", 0)
            start = time.perf_counter()
            cycles = simulation.run(10_000_000, until="idle")
            bare.append(cycles / (time.perf_counter() - start))
        with EngineSimulation(design, compiled) as recording:
            start = time.perf_counter()
            found = recording.run(codes, 10_000_000)
            recorded.append(found.cycles / (time.perf_counter() - start))
    return (
        f"ResNet-20 on the default engine, saturation and counters in place, one core, compiled with "
        f"{Path(design.compiler).name}, medians of five runs each: {np.median(bare):,.0f} cycles a second "
        f"({min(bare):,.0f} .. {max(bare):,.0f}), and {np.median(recorded):,.0f} with every write, counter and layer "
        f"recorded and taken over ({min(recorded):,.0f} .. {max(recorded):,.0f})."
    )


class Section(NamedTuple):
    """A section of the page, and what writes it."""

    title: str
    write: Callable[[], str]


PARTS = {
    "utilisation": Section("ResNet-20 on the default engine", utilisation),
    "gates": Section("Post lanes: what they gain and what they cost", gates),
    "compute": Section("What the decoders cost: compute units", compute_units),
    "engines": Section("What the decoders cost: engines", engines),
    "cosim": Section("RTL and simulator", cosim),
    "resnet18": Section("ResNet-18 at 224 x 224, seeded weights", whole_resnet18),
    "speed": Section("Speed of co-simulation", speed),
}


def sections(page: str) -> dict[str, str]:
    """What stands on a page under each title."""
    parts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)[1:]
    return {title: text.strip() for title, text in zip(parts[::2], parts[1::2], strict=True)}


def main() -> None:
    """Run the parts, and put what they say into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "engine.md")
    arguments = parser.parse_args()
    page = sections(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
    try:
        for part in arguments.part:
            page[PARTS[part].title] = text = PARTS[part].write().strip()
            print(f"{PARTS[part].title}\n\n{text}\n")
    except MismatchError as error:
        sys.exit(f"error: {error}")
    written = [f"## {title}\n\n{page[title]}" for title, _ in PARTS.values() if title in page]
    text = "\n\n".join(["# The engine, measured", "Written by `python bench/engine.py`.", *written])
    write_bytes(arguments.output, f"{text}\n".encode())


if __name__ == "__main__":
    main()
