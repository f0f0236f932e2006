"""The engine on real networks: utilisation and what binds it, RTL against simulator, gates; writes docs/engine.md.

    python bench/engine.py [--part utilisation gates cosim resnet18 speed] [--output docs/engine.md]

Needs the data folder (GATEWISE_DATA, or ../shared/data beside the checkout) for ResNet-20. Only a run of all parts
writes the page. Co-simulations that differ end the run with exit code 1.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from gatewise import EngineConfig, Network
from gatewise.kernels.errors import MismatchError
from gatewise.quant.methods import quantize
from gatewise.rtl.cxxrtl import BusTiming, CompiledDesign
from gatewise.rtl.engine.cosim import BUS, EngineSimulation, compile_engine, regress_network
from gatewise.rtl.synth import synthesize_engine
from gatewise.sim.atomic import write_bytes
from gatewise.sim.compile import compile_network
from gatewise.sim.cycles import LayerCycles, layer_cycles
from gatewise.sim.demo import load_demo
from gatewise.sim.images import load_images, quantise_images
from gatewise.sim.lower import lower
from shapes import resnet18

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GATEWISE_DATA", ROOT / "../shared/data"))
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
    return (
        "## ResNet-20 on the default engine\n\n"
        f"{total:,} cycles an image, utilisation of the whole network {100 * whole:.1f} %.\n\n"
        + table(columns, rows)
        + "\n"
    )


def gates() -> str:
    """Utilisation of the inner layers, and gates, by post lanes."""
    rows: list[tuple[object, ...]] = []
    network = resnet20()
    for lanes in POST_LANES:
        engine = EngineConfig(post_lanes=lanes)
        layers = inner_layers(network, engine)
        useful, total = sum(layer.products for layer in layers), sum(layer.total for layer in layers)
        report = synthesize_engine(engine)
        low, high = report.alm.bounds
        rows.append(
            (
                lanes,
                f"{100 * useful / (engine.products * total):.1f}",
                f"{100 * min(layer.utilisation(engine) for layer in layers):.1f}",
                f"{sum(layer.total for layer in layers_of(network, engine)):,}",
                f"{report.gates.two_input:,}",
                f"{report.gates.equivalents:,.0f}",
                f"{low:,} .. {high:,}",
            )
        )
        print(f"{lanes} post lanes: {rows[-1]}")
    columns = (
        *("post lanes", "utilisation of the 3 x 3 layers %", "least of a layer %", "cycles of an image"),
        *("two-input gates", "gate equivalents", "ALMs (no DSP)"),
    )
    return (
        "## Post lanes: what they gain and what they cost\n\n"
        "ResNet-20's 3 x 3 layers with 16 or more input channels, fill, records and drain included; gates and ALMs of "
        "the whole 16 x 16 engine, memories apart.\n\n" + table(columns, rows) + "\n"
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
        "## RTL and simulator\n\n"
        "Every digit that a layer writes, every overflow counter and every layer's cycle counter are equal.\n\n"
        + table(COSIM_COLUMNS, rows)
        + "\n"
    )


def whole_resnet18() -> str:
    """ResNet-18 at 224 x 224 through the RTL of the default engine."""
    network = resnet18()
    spec = network.manifest.input
    codes = np.random.default_rng(0).integers(*spec.range, (1, *spec.shape), endpoint=True).astype(np.int16)
    row, _ = compared(network, EngineConfig(), codes)
    return (
        "## ResNet-18 at 224 x 224, seeded weights\n\n"
        "One image through the RTL of the default engine, equal in every digit, counter and cycle.\n\n"
        + table(COSIM_COLUMNS, [row])
        + "\n"
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
        "## Speed of co-simulation\n\n"
        f"ResNet-20 on the default engine, saturation and counters in place, one core, compiled with "
        f"{Path(design.compiler).name}, medians of five runs each: {np.median(bare):,.0f} cycles a second "
        f"({min(bare):,.0f} .. {max(bare):,.0f}), and {np.median(recorded):,.0f} with every write, counter and layer "
        f"recorded and taken over ({min(recorded):,.0f} .. {max(recorded):,.0f}).\n\n"
    )


PARTS: dict[str, Callable[[], str]] = {
    "utilisation": utilisation,
    "gates": gates,
    "cosim": cosim,
    "resnet18": whole_resnet18,
    "speed": speed,
}


def main() -> None:
    """Run the parts; write the page after all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "engine.md")
    arguments = parser.parse_args()
    page = "# The engine, measured\n\nWritten by `python bench/engine.py`.\n\n"
    try:
        for part in arguments.part:
            text = PARTS[part]()
            print(text)
            page += text
    except MismatchError as error:
        sys.exit(f"error: {error}")
    if set(arguments.part) == set(PARTS):
        write_bytes(arguments.output, (page.rstrip() + "\n").encode())


if __name__ == "__main__":
    main()
