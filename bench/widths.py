"""How many bits are enough, of 4-bit networks; ACIQ's statistics at run time: docs/widths.md, its plots, its store.

    python bench/widths.py                     # every part; those that need data are left out where it is missing
    python bench/widths.py --part NETWORK ...  # accuracies and overflows of one network
    python bench/widths.py --part gates        # rows of the array at what they chose, and the statistics' block
    python bench/widths.py --part page         # the page and the plots from what is stored

About seven minutes of processor time for the accuracies. The page has the default engine's gates from docs/bops.json
and the digits network's energy from docs/energy.json: write it again (`--part page`) when these change.

Widths are chosen on training images that did not train the network; test images are reported. The digits network is
in the package, with images that it was not trained on.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from gatewise import EngineConfig, Grid, InputSpec, Network, NetworkBuilder
from gatewise.kernels.mac import MacFormat
from gatewise.kernels.residual import STREAM_BITS
from gatewise.sim.arrays import array_form
from gatewise.sim.bounds import layer_bounds
from gatewise.sim.cycles import network_cycles
from gatewise.sim.demo import load_demo
from gatewise.sim.file import load
from gatewise.sim.images import ImageSet, load_images
from gatewise.sim.lowered import LoweredLayer, words_of
from gatewise.sim.run import compiled_for
from gatewise.sim.width_sweep import WidthSweep, sweep_widths
from paths import DATA, TRAINED
from progress import progress
from rich.console import Console
from widths_page import write_page
from widths_store import COLUMNS, DIGITS, HELD_OUT, LANES, NETWORKS, RUN_TIME, key, read, row_formats, write

GATES, PAGE_PART = "gates", "page"
PARTS = (DIGITS, *NETWORKS, GATES, PAGE_PART)


def stored(found: WidthSweep) -> dict[str, Any]:
    """A sweep as it is stored."""
    content = found.to_json()
    for point in (content["reference"], *content["points"]):
        point["share_align"], point["share_acc"] = (float(f"{point[f'share_{kind}']:.3g}") for kind in ("align", "acc"))
        point["top1"], point["standard_error"] = (round(point[key], 5) for key in ("top1", "standard_error"))
    content["points"] = [[point[column] for column in COLUMNS] for point in content["points"]]
    content["reference"] = [content["reference"][column] for column in COLUMNS]
    return content


def pairs(found: WidthSweep) -> list[MacFormat]:
    """The least pairs that a sweep chose."""
    chosen = [
        found.least(criterion, mode).pair for mode in found.modes for criterion in ("proved", "clean", "accurate")
    ]
    return list(dict.fromkeys(mac for mac in chosen if mac is not None))


class Talk(NamedTuple):
    """What a part says: lines that stay, and what it is doing."""

    say: Callable[[str], None]
    notice: Callable[[str], None]

    def points(self, images: str) -> Callable[[int, int], None]:
        """Tells how far a sweep is."""
        return lambda done, total: self.notice(f"{images} images, {done:,} of {total:,} points")


def digits(talk: Talk) -> dict[str, Any]:
    """The whole grid on the digits network's own images."""
    example = load_demo()
    found = sweep_widths(example.network, example.images, progress=talk.points("held-out"))
    talk.say(f"{found.images} images, {found.layer_runs:,} of {found.layer_points:,} layers run")
    return {"grid": stored(found), "test": None}


def network(name: str, talk: Talk) -> dict[str, Any]:
    """The whole grid on held-out training images; what that chose, and both axes, on the test images."""
    held = load(TRAINED / f"{name}.gw")
    images = held_out()
    start = time.perf_counter()
    grid = sweep_widths(held, images, progress=talk.points("held-out"))
    talk.say(f"{len(images)} held-out images, {grid.layer_runs:,} of {grid.layer_points:,} layers, {since(start)}")
    test = load_images(DATA / "cifar10" / "test.npz")
    start = time.perf_counter()
    sweep = partial(sweep_widths, held, test, progress=talk.points("test"))
    parts = [sweep(acc=(32,)), sweep(align=(16,))]
    parts += [sweep(align=(mac.align,), acc=(mac.acc,), modes=(mac.overflow,)) for mac in pairs(grid)]
    talk.say(f"{len(test)} test images, {since(start)}")
    points = {tuple(point[:3]): point for part in parts for point in stored(part)["points"]}
    whole = stored(parts[0])
    return {
        "grid": stored(grid),
        "test": {"images": len(test), "reference": whole["reference"], "points": list(points.values())},
    }


def since(start: float) -> str:
    """Seconds since then."""
    return f"{time.perf_counter() - start:.0f} s"


def held_out() -> ImageSet:
    """The first of the training images that the trainings held out, which are drawn by their seed."""
    from gatewise.quant.training_data import TrainingImages

    images = load_images(DATA / "cifar10" / "train.npz")
    held = TrainingImages.of(images, load(TRAINED / f"{next(iter(NETWORKS))}.gw").manifest.input).split(0.1, 0)[1]
    return ImageSet(held.pixels[:HELD_OUT].numpy(), held.labels[:HELD_OUT].numpy())


def rows(store: dict[str, Any], notice: Callable[[str], None]) -> dict[str, Any]:
    """Rows of 16 PEs at every format of the page; the statistics' block by its parts."""
    from gatewise.rtl.blocks import block_named
    from gatewise.rtl.flows import flows
    from gatewise.rtl.synth import synthesize
    from gatewise.rtl.width_gates import row_costs
    from gatewise.rtl.yosys import tool_version

    costs = row_costs(row_formats(store), LANES, notice=notice)
    blocks = {}
    for prior in ("laplace", "gauss"):
        report = synthesize("statistics", {"prior": prior}, notice=notice)
        parts = {".".join(level.path): level for level in report.levels}
        parameters = block_named("statistics").parameters(prior=prior).parameters
        blocks[prior] = {
            "whole": [report.gates.two_input, report.gates.flip_flops, *bounds(report.alm.bounds)],
            "gather": part_cost(parts["gather"]),
            "finish": part_cost(parts["finish"]),
            "rtl": report.rtl_sha256,
            "passes": parameters.passes,
            "mean_cycles": parameters.mean_cycles,
            "finish_cycles": parameters.finish_cycles,
        }
    return {
        "tool": tool_version(),
        "flows": {flow.name: flow.sha256 for flow in flows(flat=False)},
        "rows": {key(mac): list(cost) for mac, cost in costs.items()},
        "statistics": blocks,
    }


def bounds(alms: Any) -> list[int]:
    """Both ends."""
    return [alms.low, alms.high]


def part_cost(level: Any) -> list[int]:
    """Gates, flip-flops and ALMs of a part of a block."""
    return [level.gates, level.flip_flops, level.alms_low, level.alms_high]


def run_time(name: str) -> dict[str, Any]:
    """What statistics of each image cost a network on the default engine, in cycles and bytes.

    A calculation from its compiled schedule: every layer that now writes 4-bit codes writes 16-bit values (`unscaled`
    plays the layer's own registers with the longer drain), and each pass over these is a post-only layer of the map's
    shape, played likewise.
    """
    held, engine = load(TRAINED / f"{name}.gw"), EngineConfig()
    compiled = compiled_for(held, engine)
    changed = [unscaled(layer, held) for layer in compiled.lowered]
    before, after = (
        sum(layer.total for layer in network_cycles(layers, engine)) for layers in (compiled.lowered, changed)
    )
    tensors = []
    for old, new in zip(compiled.lowered, changed, strict=True):
        if new is old or old.source is None:
            continue
        shape = held.values[narrow(old, held)].shape
        tensors.append(
            {"layer": old.name, "shape": shape, "pass": copy_cycles(shape, engine), "new": old.name not in wide(held)}
        )
    per_pixel = engine.word_bits // 8
    words = [-(-each["shape"][0] // engine.word_digits) * prod(each["shape"][1:]) for each in tensors]
    return {
        "cycles": before,
        "drain": after - before,
        "pass": sum(each["pass"] for each in tensors),
        "tensors": [[each["layer"], *each["shape"], each["pass"], int(each["new"])] for each in tensors],
        "row_groups": [-(-each["shape"][0] // engine.rows) for each in tensors],
        "rows": engine.rows,
        "wide_bytes": sum(4 * count * per_pixel for count, each in zip(words, tensors, strict=True) if each["new"]),
        "pass_bytes": sum(4 * count * per_pixel for count in words),
        "peak_bytes": compiled.plan.peak_bytes,
        "peak_run_time": peak(held, engine, {each["layer"] for each in tensors}),
        "records": sum(each["shape"][0] for each in tensors),
    }


def wide(network: Network) -> set[str]:
    """Tensors of 16-bit values."""
    return {name for name, value in network.values.items() if value.codes.bits == STREAM_BITS}


def narrow(layer: LoweredLayer, network: Network) -> str | None:
    """The 4-bit tensor that a layer of the array writes, itself or as its copy."""
    if layer.op != "mac" or layer.source is None:
        return None
    names = [node.name for node in layer.source.nodes]
    return next((name for name in names if 1 < network.values[name].codes.bits <= 5), None)


def unscaled(layer: LoweredLayer, network: Network) -> LoweredLayer:
    """A layer that writes its values in 16 bits where it now writes codes of an image-independent scale."""
    if narrow(layer, network) is None:
        return layer
    registers = dict(layer.registers)
    before = words_of(registers, "out") + words_of(registers, "second")
    # A slot's words go out one a cycle: four digit planes of the values, no copy.
    others = registers["beats"] if registers["interval"] <= before else registers["interval"]
    registers["interval"] = max(others, STREAM_BITS // 4 * (1 + registers.get("out_straddles", 0)))
    return replace(layer, registers=registers)


def copy_cycles(shape: tuple[int, int, int], engine: EngineConfig) -> int:
    """Cycles of a layer of its own that reads a 16-bit tensor and writes 4-bit codes."""
    channels = shape[0]
    spec = InputSpec(shape=shape, bits=8, scale=1.0, zero_point=0, mean=(0.0,) * channels, std=(1.0,) * channels)
    net = NetworkBuilder("copies", spec)
    ones = np.ones((channels, channels, 1, 1), dtype=np.int64)
    values = net.conv2d("values", net.input, ones, bits=2, scale=1.0, out=Grid(1.0, STREAM_BITS, signed=True))
    # The first copy rides along; the second one is a layer.
    copies = [net.requantise(name, values, out=Grid(1.0, 4)) for name in ("first", "second")]
    net.concat("both", copies)
    (found,) = (layer for layer in compiled_for(net.build(), engine).cycles if layer.name == "second")
    return found.total


def peak(network: Network, engine: EngineConfig, layers: set[str]) -> int:
    """Bytes of the activation memory at their most, where these layers write values first and codes in a pass behind.

    Without such layers it is the schedule's own figure.
    """
    plan = compiled_for(network, engine).plan

    def size(root: str, bits: int) -> int:
        channels, height, width = plan.roots[root].shape
        return height * width * -(-channels // engine.word_digits) * -(-bits // 4) * engine.word_bits // 8

    source = plan.tensors[network.manifest.input.name].root
    born, last = {source: -1}, {plan.tensors[network.output].root: len(plan.layers)}
    for place, layer in enumerate(plan.layers):
        for node in layer.nodes:
            last |= {plan.tensors[name].root: place for name in node.inputs if name in plan.tensors}
            if node.name in plan.kept:
                born.setdefault(plan.tensors[node.name].root, place)
    most = 0
    for place, layer in enumerate(plan.layers):
        live = {root: size(root, plan.roots[root].codes.bits) for root in born if born[root] <= place <= last[root]}
        if layer.name not in layers:
            most = max(most, sum(live.values()))
            continue
        (codes,) = (root for root in live if born[root] == place and plan.roots[root].codes.bits <= 5)
        values = {root for root in live if born[root] == place} - {codes}
        extra = 0 if values else size(codes, STREAM_BITS)
        most = max(most, sum(live.values()) - live[codes] + extra)
        behind = {root for root in live if last[root] > place} | {codes} | values
        most = max(most, sum(live[root] for root in behind) + extra)
    return most


def needs(name: str) -> dict[str, list[int]]:
    """Align and acc in which nothing of a layer can overflow, whatever the image, by layer."""
    held = network_of(name)
    return {
        layer: list(layer_bounds(array_form(each, "digit"), held.source(each.node).codes).needs[1:])
        for layer, each in held.layers.items()
    }


def network_of(name: str) -> Network:
    """A network by its part's name."""
    return load_demo().network if name == DIGITS else load(TRAINED / f"{name}.gw")


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="what to measure; the rest stays")
    chosen = parser.parse_args().part
    console = Console(stderr=True)
    for name in chosen:
        start = time.perf_counter()
        with progress(console, "widths") as notice:
            talk = Talk(
                lambda line, name=name: console.print(f"{name}: {line}", markup=False, highlight=False),
                lambda text, name=name: notice(f"{name}: {text}"),
            )
            measure(name, talk)
        talk.say(f"{since(start)} in all")


def measure(part: str, talk: Talk) -> None:
    """Measure a part and store it; or write the page."""
    if part == PAGE_PART:
        write_page(read())
    elif part == GATES:
        store = read()
        found = rows(store, talk.notice) | {"run_time": run_time(RUN_TIME)}
        write(store | found | {"needs": {each: needs(each) for each in store["networks"]}})
    elif part in NETWORKS and not (DATA / "cifar10" / "test.npz").exists():
        talk.say(f"left out: {DATA / 'cifar10'} must have train.npz and test.npz (GATEWISE_DATA)")
    else:
        found = digits(talk) if part == DIGITS else network(part, talk)
        store = read()
        networks = store["networks"] | {part: found}
        write(store | {"networks": {name: networks[name] for name in PARTS if name in networks}})


if __name__ == "__main__":
    sys.exit(main())
