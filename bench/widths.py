"""How many bits are enough, of 4-bit networks; ACIQ's statistics at run time: docs/widths.md, its plots, its store.

    python bench/widths.py                     # every part; those that need data are left out where it is missing
    python bench/widths.py --part gates        # rows of the array and the statistics' block (`make gates`)
    python bench/widths.py --part NETWORK ...  # accuracies and overflows of one network
    python bench/widths.py --part page         # the page and the plots from what is stored

About a quarter of an hour of processor time for the accuracies. The page has the default engine's gates from
docs/bops.json and the digits network's energy from docs/energy.json: write it again (`--part page`) when these change.

Widths are chosen on training images that did not train the network; test images are reported. The digits network is
in the package, with images that it was not trained on.
"""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from gatewise import EngineConfig, Grid, InputSpec, Network, NetworkBuilder
from gatewise.kernels.mac import MacFormat
from gatewise.kernels.residual import STREAM_BITS
from gatewise.sim.arrays import array_form
from gatewise.sim.atomic import write_bytes
from gatewise.sim.bounds import layer_bounds
from gatewise.sim.cycles import network_cycles
from gatewise.sim.demo import load_demo
from gatewise.sim.energy import Energies
from gatewise.sim.events import PARTS
from gatewise.sim.file import load
from gatewise.sim.images import ImageSet, load_images
from gatewise.sim.lowered import LoweredLayer, words_of
from gatewise.sim.run import compiled_for
from gatewise.sim.text_tables import markdown_table
from gatewise.sim.width_report import Curve, Panel, draw_panels, write_figure
from gatewise.sim.width_sweep import CRITERIA, RowCost, WidthSweep, sweep_widths
from paths import DATA, ROOT, TRAINED
from progress import progress
from rich.console import Console

STORE, PAGE, PLOTS = (ROOT / "docs" / name for name in ("widths.json", "widths.md", "widths"))
ALLOCATED = "-all-"
"""In the names of networks with bit allocation."""
GATES, PAGE_PART = "gates", "page"
MODES = ("saturate", "wrap")
LANES = 16
RUN_TIME = "resnet20-aciq-w4a4"
HELD_OUT = 192
"""Training images that no training saw: on these the whole grid runs."""
DIGITS, DIGITS_ENERGY = "digits", "int4, digit array"
"""The network in the package, and its name in docs/energy.json."""
NETWORKS = {
    "resnet20-minmax-w4a4": "ResNet-20, one step for a layer's activations, 4 bits",
    "resnet20-aciq-w4a4": "ResNet-20, ACIQ, a step for each channel, 4 bits",
    "resnet20-aciq-all-w3a3": "ResNet-20, ACIQ with bit allocation, 3 bits on average",
    "resnet20-aciq-all-w4a4": "ResNet-20, ACIQ with bit allocation, 4 bits on average",
}
COLUMNS = (
    *("align", "acc", "overflow", "top1", "standard_error", "changed", "proved", "overflow_align", "worst_align"),
    *("overflow_acc", "worst_acc", "overflow_post", "share_align", "share_acc"),
)
"""What is stored of a point."""


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


def digits(say: Callable[[str], None]) -> dict[str, Any]:
    """The whole grid on the digits network's own images."""
    example = load_demo()
    found = sweep_widths(example.network, example.images)
    say(f"{found.images} images, {found.layer_runs:,} of {found.layer_points:,} layers run")
    return {"grid": stored(found), "test": None}


def network(name: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole grid on held-out training images; what that chose, and both axes, on the test images."""
    held = load(TRAINED / f"{name}.gw")
    images = held_out()
    start = time.perf_counter()
    grid = sweep_widths(held, images)
    say(f"{len(images)} held-out images, {grid.layer_runs:,} of {grid.layer_points:,} layers, {since(start)}")
    test = load_images(DATA / "cifar10" / "test.npz")
    start = time.perf_counter()
    parts = [sweep_widths(held, test, acc=(32,)), sweep_widths(held, test, align=(16,))]
    parts += [
        sweep_widths(held, test, align=(mac.align,), acc=(mac.acc,), modes=(mac.overflow,)) for mac in pairs(grid)
    ]
    say(f"{len(test)} test images, {since(start)}")
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
    """Rows of 16 PEs at the widths along both axes and at the least pairs; the statistics' block by its parts."""
    from gatewise.rtl.blocks import block_named
    from gatewise.rtl.flows import flows
    from gatewise.rtl.synth import synthesize
    from gatewise.rtl.width_gates import row_costs
    from gatewise.rtl.yosys import tool_version

    formats = []
    for mode in MODES:
        formats += [MacFormat(align=align, overflow=mode) for align in range(8, 17)]
        formats += [MacFormat(acc=acc, overflow=mode) for acc in range(12, 33)]
    for found in store["networks"].values():
        for mode, criteria in found["grid"]["least"].items():
            formats += [MacFormat(overflow=mode, **each["pair"]) for each in criteria.values() if each["pair"]]
    costs = row_costs(formats, LANES, notice=notice)
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


def key(mac: MacFormat) -> str:
    """A format's name in the store."""
    return f"{mac.align} {mac.acc} {mac.overflow}"


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


def read() -> dict[str, Any]:
    """What is stored."""
    return json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {"networks": {}}


def write(store: dict[str, Any]) -> None:
    """Store it, a point a line."""
    text = json.dumps(store, separators=(",", ":")).replace("],[", "],\n[").replace('},"', '},\n"')
    write_bytes(STORE, (text + "\n").encode())


Point = dict[str, Any]


def points(found: dict[str, Any]) -> dict[tuple[int, int, str], Point]:
    """Stored points by align, acc and mode."""
    return {tuple(each[:3]): dict(zip(COLUMNS, each, strict=True)) for each in found["points"]}


def shown(network: dict[str, Any]) -> dict[str, Any]:
    """What a network's tables show: its test images, or the images of its grid where there are no others."""
    return network["test"] or network["grid"]


def percent(share: float) -> str:
    """A share in percent, without the sign."""
    return f"{100 * share:.2f}"


def small(share: float) -> str:
    """A small share in percent; nothing where it is none."""
    return f"{100 * share:.2g}" if share else ""


def page(store: dict[str, Any]) -> str:
    """The page."""
    parts = [head(store), answer(store), *least_tables(store), rows_table(store)]
    parts += [network_section(store, name) for name in store["networks"]]
    return "\n\n".join(part.strip() for part in (*parts, METHOD, run_time_section(store)) if part.strip()) + "\n"


def head(store: dict[str, Any]) -> str:
    """What the page is about."""
    return filled(HEAD.format(tool=store["tool"], held_out=HELD_OUT))


def filled(text: str) -> str:
    """Paragraphs with lines of 120; titles and what is indented stay."""
    parts = text.split("\n\n")
    return "\n\n".join(
        each if each.startswith(("#", " ")) else textwrap.fill(each, 120, break_on_hyphens=False) for each in parts
    )


HEAD = """\
# How many bits are enough?

Written by `python bench/widths.py`, part by part, from [widths.json](widths.json). `make gates` counts gates and the
cycles of run-time statistics anew (`--part gates`) and writes the page; **the sweeps of accuracy are not in it**: they
need the images of CIFAR-10 and take about a quarter of an hour of processor time (scaled up from 16 images of each
network).

*Where do you accumulate, and why 16 and 32?* In the datapath of ACIQ a product of two 4-bit digits has 8 bits, is
shifted or multiplied to its tensor's common step in `align` bits, summed exactly over the lanes of a row, and added
to an accumulator of `acc` bits. The paper says 16 and 32. Here both are swept, in both overflow modes, and every
point is the bit-exact run at these widths:

    gatewise widths F.gw --data test.npz [--align 8..16] [--acc 12..32] [--plot F.png]

Three answers are told apart: the least widths at which **nothing can overflow, whatever the image** (a proof from
weights and ranges, `sim/bounds.py`), at which **nothing overflowed** on the images, and at which **top-1 is within
a standard error** of the engine's own widths. Widths are chosen on up to {held_out} training images that the networks
were not trained on; test images (517 of CIFAR-10) are reported and chose nothing. The digits network has one set of
images, its 360 held-out ones: they chose, and they are reported. Gates: {tool}; a row is 16 PEs with alignment, adder
tree, accumulator, registers and overflow counts, the block [`dot`](blocks.md#dot) (`gatewise synth --block dot
--param align=A --param acc=C`); no clock is claimed."""


def pair_of(store: dict[str, Any], name: str, criterion: str, mode: str = "saturate") -> MacFormat | None:
    """The least pair that a grid chose."""
    found = store["networks"][name]["grid"]["least"][mode][criterion]["pair"]
    return None if found is None else MacFormat(overflow=mode, **found)


def cost_of(store: dict[str, Any], mac: MacFormat) -> RowCost:
    """What a row costs at a format that was counted."""
    return RowCost(*store["rows"][key(mac)])


def answer(store: dict[str, Any]) -> str:
    """The paragraphs that the page is for."""
    whole, names = cost_of(store, MacFormat()), list(store["networks"])
    lines = ["## The answer", ""]
    both = [pair_of(store, name, "proved") for name in names]
    proved = [mac for mac in both if mac is not None]
    most = MacFormat(align=max(mac.align for mac in proved), acc=max(mac.acc for mac in proved))
    accurate = [mac for name in names if (mac := pair_of(store, name, "accurate")) is not None]
    inner = {
        name: [each for layer, each in found.items() if layer not in (next(iter(found)), list(found)[-1])]
        for name, found in store["needs"].items()
    }
    edges = [list(found.values())[at][1] for found in store["needs"].values() for at in (0, -1)]
    between = [each for found in inner.values() for each in found]
    fours = [each[1] for name, found in inner.items() if ALLOCATED not in name for each in found]
    products, sums = ([each[at] for each in between] for at in (0, 1))
    lone = [
        cost_of(store, MacFormat(align=16, acc=32)).gates - cost_of(store, MacFormat(align=16, acc=acc)).gates
        for acc in (24, 16)
    ]
    lean = [
        cost_of(store, MacFormat(align=16, acc=32)).gates - cost_of(store, MacFormat(align=align, acc=32)).gates
        for align in (12, 8)
    ]
    lines += bullet(
        f"**32 bits are more than any of these networks can fill.** With accumulators of {most.acc} bits nothing can ",
        "overflow in any of them, whatever the image. What needs so many are the first and the last layer, with 8-bit ",
        f"weights and activations ({min(edges)} to {max(edges)} bits); the layers between them need ",
        f"{min(fours)} to {max(fours)} where all codes have 4 bits, and up to {max(sums)} where bit allocation gives ",
        "channels a fifth bit, which is a second digit.",
    )
    lines += bullet(
        f"**16 bits of alignment are more than they need as well**: {most.align} are proved enough for all of ",
        "them, and 9 where no channel has a step of its own (that is the unsigned product of two lower digits of ",
        "8-bit codes). What alignment takes is decided by the widest ratio of steps within a tensor: ",
        f"aligned products of the inner layers need {min(products)} to {max(products)} bits.",
    )
    lines += bullet(
        "**Within a standard error** of top-1 the least pairs (align/acc, saturating) are ",
        ", ".join(f"{mac.align}/{mac.acc}" for mac in dict.fromkeys(accurate)),
        ". Below that top-1 falls off a cliff of two or three bits, since it is the large sums of the 8-bit ",
        "layers that are lost. Wrapping falls sooner: a wrapped sum is wrong by the whole range, a saturated ",
        "one by what it lost.",
    )
    lines += chosen_by_top1(store)
    lines += bullet(
        "**What it saves**: accumulators are one to a row and cost little: 24 bits instead of 32 change the row's ",
        f"{whole.gates:,} gates by {-lone[0]:+,}, 16 bits by {-lone[1]:+,} (to limit a sum to fewer bits than it ",
        "has costs gates of its own). Alignment is paid in every lane and in the tree: 12 bits instead of 16 change ",
        "them by ",
        f"{-lean[0]:+,}, 8 bits by {-lean[1]:+,}. In a row's gates 32 is cheap, and 16 is dear.",
    )
    wrapped, pixels, full = cost_of(store, MacFormat(overflow="wrap")), EngineConfig().pixels, MacFormat().acc
    fewer, (alone, saved) = 1 - most.acc / full, accumulators_saved(most.acc)
    lines += bullet(
        "**In the accumulators' memory 32 is not cheap**: that is not in a row's gates. The default engine has ",
        f"{2 * pixels} accumulators to a row, {2 * pixels * full:,} bits at {full} and {2 * pixels * most.acc:,}, ",
        f"{fewer:.0%} fewer, at {most.acc}. By estimate A of [energy.md](energy.md), which has neither B's clock nor ",
        f"its control, {most.acc} bits would save {alone:.0%} of the digits network's on-chip energy on a 4 x 4 ",
        f"engine if an access cost as its bits do, and {saved:.0%} since it costs less in a smaller memory as well. ",
        "The post lanes, whose values have acc + F bits, follow the accumulator's width too.",
    )
    lines += bullet(
        f"**Saturation** costs {1 - wrapped.gates / whole.gates:.1%} of a row's gates at 16/32. Where a proof says ",
        "that nothing overflows, it does nothing.",
    )
    return "\n".join(lines) + "\n"


def chosen_by_top1(store: dict[str, Any]) -> list[str]:
    """How the pairs that top-1 on training images chose fare on test images."""
    images, count, missed = set(), 0, []
    for name, network in store["networks"].items():
        if not network["test"]:
            continue
        images.add(network["grid"]["images"])
        test, reference = points(network["test"]), dict(zip(COLUMNS, network["test"]["reference"], strict=True))
        for mode in MODES:
            mac = pair_of(store, name, "accurate", mode)
            if mac is None:
                continue
            count += 1
            point = test[mac.align, mac.acc, mode]
            if point["top1"] < reference["top1"] - reference["standard_error"]:
                missed.append(
                    f"{name}, {mode}, {mac.align}/{mac.acc}: {percent(point['top1'])} % where 16/32 has "
                    f"{percent(reference['top1'])} % ± {percent(reference['standard_error'])}"
                )
    chosen = " or ".join(map(str, sorted(images, reverse=True)))
    begin = f"**Chosen by top-1 of {chosen} training images, that does not always carry over**: "
    if not missed:
        return bullet(f"The {count} pairs chosen by top-1 of {chosen} training images keep to it on test images.")
    verb = "is" if len(missed) == 1 else "are"
    return bullet(
        begin,
        f"{len(missed)} of the {count} pairs, of both modes, {verb} worse by more than a standard error on test ",
        f"images ({'; '.join(missed)}). What a proof chose cannot change.",
    )


def accumulators_saved(acc: int) -> tuple[float, float]:
    """What `acc` bits in place of 32 would save of the digits network's on-chip energy by estimate A.

    Of the accumulators' memory alone, from docs/energy.json: in proportion to its bits, and with what an access to a
    smaller memory costs less.
    """
    content = json.loads((ROOT / "docs" / "energy.json").read_text(encoding="utf-8"))["digits"]
    (found,) = (each for each in content if each["name"] == DIGITS_ENERGY)
    parts, engine, energies = found["parts"], found["engine"], Energies()
    chip = sum(low for part, (low, _) in parts.items() if PARTS[part] != "DRAM")
    memory = sum(parts[part][0] for part in ("accumulator reads", "accumulator writes")) / chip
    words = [engine["rows"] * bits for bits in (acc, MacFormat().acc)]
    less, full = (energies.sram(word, engine["pixels"] * word // 8) for word in words)
    return memory * (1 - acc / MacFormat().acc), memory * (1 - less / full)


def bullet(*parts: str) -> list[str]:
    """One entry of a list, filled."""
    return textwrap.wrap("".join(parts), 118, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False)


def least_tables(store: dict[str, Any]) -> Iterator[str]:
    """The least widths of every network in both modes."""
    whole, moved = cost_of(store, MacFormat()), scatter(store)
    for mode in MODES:
        rows = []
        for name, network in store["networks"].items():
            found, test = network["grid"]["least"][mode], points(shown(network))
            for criterion, text in CRITERIA.items():
                least = found[criterion]
                align, acc, pair = (least[what] for what in ("align", "acc", "pair"))
                cells = [name, text, "" if criterion == "proved" else str(network["grid"]["images"])]
                cells += [str(align["align"]) if align else "none", str(acc["acc"]) if acc else "none"]
                if pair is None:
                    rows.append([*cells, "none", "", "", "", ""])
                    continue
                mac = MacFormat(overflow=mode, **pair)
                cost, point = cost_of(store, mac), test[mac.align, mac.acc, mode]
                alms = 1 - (cost.alms_low + cost.alms_high) / (whole.alms_low + whole.alms_high)
                cells += [f"{mac.align} / {mac.acc}", f"{percent(point['top1'])} ± {percent(point['standard_error'])}"]
                saved = (1 - cost.gates / whole.gates, alms)
                marked = [
                    f"{'' if abs(each) > least else '~ '}{each:.1%}" for each, least in zip(saved, moved, strict=True)
                ]
                rows.append([*cells, str(point["changed"]), *marked])
        headings = [
            "network",
            "enough is that",
            "images",
            "align",
            "acc",
            "both",
            "top-1 %, test",
            "changed",
            "gates saved",
            "ALMs saved",
        ]
        yield f"### The least widths, {mode}\n"
        yield filled(LEAST_TEXT.format(gates=moved[0], alms=moved[1])) if mode == MODES[0] else ""
        yield markdown_table(headings, rows, 2)


LEAST_TEXT = """\
*align* with 32 bits of accumulator, *acc* with 16 bits of alignment, *both* the least alignment and with it the
least accumulator; from there on the criterion holds at every wider width of the grid. *Images*: what the widths were
chosen on (a proof needs none). *Changed*: test images whose prediction is another than at 16/32. *Saved*: of a row,
against 16/32 saturating; ALMs by the mean of their bounds. *~*: no more than the mapper's scatter, {gates:.1%} of gates
and {alms:.1%} of ALMs ("What a row costs"): it tells nothing."""


def rows_table(store: dict[str, Any]) -> str:
    """Rows at the widths along both axes."""
    gates, alms = scatter(store)
    parts = ["## What a row costs\n", filled(ROWS_TEXT.format(gates=gates, alms=alms))]
    for name, widths in (("align", range(16, 7, -1)), ("acc", range(32, 11, -1))):
        rows = []
        for width in widths:
            cells = [str(width)]
            for mode in MODES:
                cost = cost_of(store, MacFormat(overflow=mode, **{name: width}))
                cells += [
                    f"{cost.gates:,}",
                    f"{cost.flip_flops:,}",
                    f"{cost.equivalents:,.0f}",
                    f"{cost.alms_low:,} .. {cost.alms_high:,}",
                ]
            rows.append(cells)
        other = "32 bits of accumulator" if name == "align" else "16 bits of alignment"
        columns = [f"{mode}: {what}" for mode in MODES for what in ("gates", "flip-flops", "gate equivalents", "ALMs")]
        parts.append(f"Rows of {LANES} PEs with {other}:\n\n" + markdown_table([name, *columns], rows, 1))
    return "\n".join(parts)


ROWS_TEXT = """\
Counts scatter with how the mapper falls: a width that seems to cost less than the one below it is such a case. From 9
bits of alignment to 16, a bit changes a row by up to {gates:.1%} of its gates and {alms:.1%} of its ALMs more or less
than the mean step does; savings no greater than that are marked above.
"""


def scatter(store: dict[str, Any]) -> tuple[float, float]:
    """The greatest distance of a step of one bit of alignment from the mean step, as shares of a row's gates and ALMs.

    Of both modes, with 32 bits of accumulator, from 9 bits on: 8 are a product's own, for which logic goes. A row's
    true size falls about evenly with the others, so that this is what the mapper adds by chance.
    """
    found = []
    for measure in (lambda cost: cost.gates, lambda cost: (cost.alms_low + cost.alms_high) / 2):
        counts = np.array(
            [
                [measure(cost_of(store, MacFormat(align=align, overflow=mode))) for align in range(9, 17)]
                for mode in MODES
            ]
        )
        steps = np.diff(counts)
        found.append(float((abs(steps - steps.mean(axis=1, keepdims=True)) / counts[:, -1:]).max()))
    return found[0], found[1]


def network_section(store: dict[str, Any], name: str) -> str:
    """A network's points along both axes, and its plot."""
    network = store["networks"][name]
    grid, test = network["grid"], shown(network)
    reference = dict(zip(COLUMNS, test["reference"], strict=True))
    title = NETWORKS.get(name, "a small CNN on 8 x 8 digits, ACIQ, 4 bits")
    count = sum(point["proved"] for point in points(grid).values())
    first = (
        f"{title}. {test['images']} {'test images' if network['test'] else 'held-out images'}: top-1 "
        f"{percent(reference['top1'])} % ± {percent(reference['standard_error'])} at 16/32. "
    )
    if store["float_top1"].get(name) is not None:
        first += f"The float network has {percent(store['float_top1'][name])} % on the same images. "
    first += (
        f"Of the grid's {len(grid['points'])} points ({grid['images']} images) {count} are proved and not run; the "
        f"others took {grid['layer_runs']:,} runs of a layer in place of {grid['layer_points']:,}."
    )
    lines = [f"## {name}", "", *textwrap.wrap(first, 120), "", f"![widths of {name}](widths/{name}.svg)", ""]
    for axis in ("acc", "align"):
        lines += [f"Along {axis}, with {'16 bits of alignment' if axis == 'acc' else '32 bits of accumulator'}:", ""]
        lines.append(axis_table(points(test), axis))
    return "\n".join(lines)


def axis_table(found: dict[tuple[int, int, str], Point], axis: str) -> str:
    """Points along an axis, both modes beside each other; widths at which all is proved are one row."""
    rows: list[list[str]] = []
    widths = range(32, 11, -1) if axis == "acc" else range(16, 7, -1)
    proved = [width for width in widths if found[at(axis, width, MODES[0])]["proved"]]
    kind = axis
    for width in widths:
        if width in proved[:-1]:
            continue
        cells = [f"{width} .. {proved[0]}" if width in proved and len(proved) > 1 else str(width)]
        for mode in MODES:
            point = found[at(axis, width, mode)]
            lost = point[f"overflow_{kind}"]
            cells += [
                percent(point["top1"]),
                str(point["changed"] or ""),
                f"{lost:,}" if lost else "",
                small(point[f"share_{kind}"]),
            ]
        cells.append("proved" if width in proved else found[at(axis, width, MODES[0])][f"worst_{kind}"] or "")
        rows.append(cells)
    what = "sums lost" if axis == "acc" else "products lost"
    columns = [f"{mode}: {each}" for mode in MODES for each in ("top-1 %", "changed", what, "%")]
    return markdown_table([axis, *columns, "most in"], rows, 1)


def at(axis: str, width: int, mode: str) -> tuple[int, int, str]:
    """A point's place along an axis."""
    return (16, width, mode) if axis == "acc" else (width, 32, mode)


METHOD = """\
## How the points are made

A point is `gatewise run --mac align=A,acc=C,overflow=MODE`, codes, predictions and every overflow counter:
`tests/sim/test_width_sweep.py` holds sweeps to runs with `==`, on the digits network, on other schemes and on
random networks on every array, and plants faults in what is reused. Where no width of any layer can overflow,
nothing is run. Of a layer, output channels that cannot overflow come of the fast form, once for an input; the
others run in hardware order, once for each input and each set of widths that can matter to them; and where nothing
overflowed at some widths, nothing does at wider ones in either mode. Inputs are known by their digests, so that a
layer is not run again where what stands before it changed no code.

*Products lost* did not fit `align`, *sums lost* did not fit `acc`; the shares are of all products that the array
aligns and of all sums that it accumulates, taps in the padding included. Beyond the accumulator the value that is
requantised is limited to `acc` + F bits as well and counted (`overflow_post` in the JSON): a point is clean only
without these, and proved only where they cannot be."""


def run_time_section(store: dict[str, Any]) -> str:
    """ACIQ's statistics at run time."""
    found, blocks = store["run_time"], store["statistics"]
    engine = engine_gates()
    rows, tensors = [], len(found["tensors"])
    for prior, block in blocks.items():
        gather, finish = block["gather"], block["finish"]
        for what, units in (("one for all rows", 1), ("one for each row", found["rows"])):
            cost = [found["rows"] * each + units * other for each, other in zip(gather, finish, strict=True)]
            finishing = finish_cycles(block) * (found["records"] if units == 1 else sum(found["row_groups"]))
            more = found["drain"] + block["passes"] * found["pass"] + finishing
            rows.append(
                [
                    prior.capitalize() if prior == "laplace" else "Gauss",
                    what,
                    f"{cost[0]:,}",
                    f"{cost[0] / engine:.1%}",
                    f"{cost[1]:,}",
                    f"{cost[2]:,} .. {cost[3]:,}",
                    f"{found['drain']:+,}",
                    f"{block['passes'] * found['pass']:,}",
                    f"{finishing:,}",
                    f"{found['cycles'] + more:,}",
                    f"{more / found['cycles']:+.1%}",
                ]
            )
    headings = [
        "prior",
        "`finish`",
        "gates",
        "of the engine's",
        "flip-flops",
        "ALMs",
        "drains",
        "passes",
        "finishing",
        "cycles of an image",
        "",
    ]
    offline = ["offline", "", "0", "0.0%", "0", "0", "0", "0", "0", f"{found['cycles']:,}", ""]
    new = sum(each[5] for each in found["tensors"])
    blocks_rows = [
        [f"{prior}: {part}", *(f"{value:,}" for value in block[part][:2]), f"{block[part][2]:,} .. {block[part][3]:,}"]
        for prior, block in blocks.items()
        for part in ("whole", "gather", "finish")
    ]
    return RUN_TIME_TEXT.format(
        blocks=markdown_table(["block", "gates", "flip-flops", "ALMs"], blocks_rows, 1),
        table=markdown_table(headings, [offline, *rows], 2),
        network=RUN_TIME,
        tensors=tensors,
        new=new,
        records=found["records"],
        passes=found["pass"],
        wide=found["wide_bytes"],
        moved=found["pass_bytes"],
        peak=found["peak_run_time"],
        now=found["peak_bytes"],
        laplace=blocks["laplace"]["finish_cycles"] + 1,
        mean=blocks["laplace"]["mean_cycles"],
        gauss=blocks["gauss"]["finish_cycles"] + 1,
        both=finish_cycles(blocks["laplace"]),
        groups=sum(found["row_groups"]),
        rows=found["rows"],
        engine=engine,
    )


def finish_cycles(block: dict[str, Any]) -> int:
    """Cycles behind a channel's last value; of a Laplace prior the mean's too, which the second pass waits for.

    One `finish` for all rows takes them for each channel in turn; one for each row, once for each group of rows, whose
    channels pass together.
    """
    return int((block["mean_cycles"] if block["passes"] == 2 else 0) + block["finish_cycles"] + 1)


def engine_gates() -> int:
    """Gates of the whole default engine, as docs/bops.json has them."""
    return int(json.loads((ROOT / "docs" / "bops.json").read_text(encoding="utf-8"))["gates"]["digit"])


RUN_TIME_TEXT = """\
## ACIQ's statistics at run time

ACIQ clips where a prior fitted to a layer's output says so. Offline, from 32 calibration images, that costs **no
gate**: a multiplier and a shift in each channel's record, which the engine reads anyway. At run time, for each
image, mean and deviation must be gathered before the first code can be made. **No engine here contains this**; what
follows is the block that it would take, in RTL and held to its golden model in every cycle
([`statistics`](blocks.md#statistics)), and a calculation of cycles and memory from the compiled schedule.

Each channel's `gather` adds up its 16-bit values and keeps the least; with a Laplace prior it adds distances from
the mean in a second pass, with a Gaussian one squares in the first. `finish` has a multiplier for the count's
reciprocal and ACIQ's factor, a square root for the Gaussian prior, and a division, a bit a cycle, that makes
multiplier and shift: {laplace} cycles behind a channel's last value and {mean} for the mean before, {gauss} with the
Gaussian prior. It can be shared, and then channels finish one after the other.

{blocks}
On `{network}`, the default 16 x 16 engine: {tensors} tensors of 4-bit codes ({records} channels) get their scale
at run time. Their values are written in 16 bits first. {new} of them are written so for this alone; the others are
residual streams, which are there already, and whose copies no longer ride along. Every pass over them is a post-only
layer of four reads a slot, by the rules of [microarchitecture.md](microarchitecture.md), played by the cycle model:

{table}
* *Drains*: what the layers' own cycles change by. 16-bit writes hide behind the sums, and copies that no longer ride
  along save a write.
* *Passes*: {passes:,} cycles for each reading of all {tensors} tensors. A Laplace prior reads twice (distances, then
  codes), a Gaussian one once. The first sums are taken from the drain, for nothing.
* *Finishing*: {both} cycles with a Laplace prior, {gauss} with a Gaussian one, for each of the {records} channels
  in turn, or for each of the {groups} groups of up to {rows} channels that pass together. Nothing is taken to overlap:
  an upper end.
* *Of the engine's*: {engine:,} gates, the whole default engine ([bops.md](bops.md)).
* **Memory**: {wide:,} bytes of values are written for this alone, and {moved:,} are read in each pass. The most that
  lives at once is {peak:,} bytes against {now:,} offline, less if anything: a residual stream and its copy are no
  longer written together, and values and codes of a tensor need not live beside its layer's inputs.
* Left out: the next layer's constants follow from these steps too. Its alignment amounts, its multipliers and a
  residual sum's operands would have to be made from this image's steps, by a multiplication or a division each. Nor is
  the adder tree counted that one scale for a whole layer needs in front of a single `gather`.
* Accuracy: [results.md](results.md) has fake-quantised networks with statistics of each batch ("Run-time statistics");
  there they come of float values, which no hardware has.
"""


def plots(store: dict[str, Any]) -> None:
    """A figure for each network, as PNG and SVG."""
    from matplotlib.figure import Figure

    PLOTS.mkdir(exist_ok=True)
    for name, network in store["networks"].items():
        test, least = shown(network), network["grid"]["least"]["saturate"]
        found, panels = points(test), []
        for axis in ("align", "acc"):
            widths, curves = (range(8, 17) if axis == "align" else range(12, 33)), []
            for mode in MODES:
                own = [found[at(axis, width, mode)] for width in widths]
                gates = [cost_of(store, MacFormat(overflow=mode, **{axis: width})).gates for width in widths]
                curves.append(
                    Curve(mode, list(widths), [p["top1"] for p in own], [p["standard_error"] for p in own], gates)
                )
            marks = {
                text: least[criterion][axis][axis] for criterion, text in CRITERIA.items() if least[criterion][axis]
            }
            panels.append(Panel(axis, 32 if axis == "align" else 16, curves, marks, LANES))
        figure = Figure(figsize=(10, 6), layout="constrained")
        draw_panels(figure, panels, store["float_top1"].get(name))
        images = f"{test['images']} {'test' if network['test'] else 'held-out'} images"
        figure.suptitle(f"{name}: top-1 and gates over the widths of the datapath, {images}", fontsize=10)
        chosen = "; enough: on held-out training images" if network["test"] else ""
        figure.supxlabel(f"{store['tool']}; gatewise widths{chosen}; docs/widths.md", fontsize=6, x=0.99, ha="right")
        for suffix in (".png", ".svg"):
            write_figure(figure, PLOTS / f"{name}{suffix}")


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = (DIGITS, *NETWORKS)
    parts = (*names, GATES, PAGE_PART)
    parser.add_argument("--part", nargs="*", choices=parts, default=parts, help="what to measure; the rest stays")
    chosen = parser.parse_args().part
    console = Console(stderr=True)
    for name in chosen:
        say = lambda line, name=name: console.print(f"{name}: {line}", markup=False, highlight=False)  # noqa: E731
        if name in NETWORKS and not (DATA / "cifar10" / "test.npz").exists():
            say(f"left out: {DATA / 'cifar10'} must have train.npz and test.npz (GATEWISE_DATA)")
            continue
        start = time.perf_counter()
        store = read()
        if name in names:
            found = digits(say) if name == DIGITS else network(name, say)
            # Others may have been stored meanwhile.
            store = read()
            store["networks"] = {
                each: {**store["networks"], name: found}[each] for each in names if each in {*store["networks"], name}
            }
            write(store)
        elif name == GATES:
            with progress(console, "widths") as notice:
                store |= rows(store, notice)
            store |= {"run_time": run_time(RUN_TIME), "needs": {each: needs(each) for each in store["networks"]}}
            write(store)
            say(since(start))
    store = read()
    if "rows" in store and chosen:
        store["float_top1"] = float_figures(store)
        write(store)
        plots(store)
        write_bytes(PAGE, page(store).encode())


def float_figures(store: dict[str, Any]) -> dict[str, float]:
    """Top-1 of the float networks on the same test images: of the file, or measured and stored by docs/results.md."""
    found = {DIGITS: load_demo().float_top1}
    stored_results = json.loads((ROOT / "docs" / "results" / "aciq-resnet20.json").read_text(encoding="utf-8"))
    tops = {figure["float_top1"] for figure in stored_results["figures"] if "float_top1" in figure}
    if len(tops) == 1:
        found |= dict.fromkeys((name for name in store["networks"] if name.startswith("resnet20")), tops.pop())
    return found


if __name__ == "__main__":
    sys.exit(main())
