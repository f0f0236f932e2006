"""Energy of an image, two estimates side by side, for the networks at hand; writes docs/energy.md and its plots.

    python bench/energy.py                  # measures everything, and writes the page
    python bench/energy.py --part trained   # measures a part; the rest stays as it is stored
    python bench/energy.py --part           # writes the page and its plots of what is stored

About four minutes of processor time where nothing is in the caches of compiled engines and syntheses.
"""

import argparse
import json
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gatewise import Network
from gatewise.rtl.energy import check_row, measure
from gatewise.sim.atomic import write_bytes, write_json
from gatewise.sim.compile import compile_network
from gatewise.sim.energy import Energies, EnergyEstimate, MeasuredEnergy, estimate
from gatewise.sim.engine import EngineConfig
from gatewise.sim.events import PARTS
from gatewise.sim.file import load
from gatewise.sim.images import image_codes
from gatewise.sim.prune import pruned
from gatewise.sim.shapes import resnet8, resnet18
from markdown import table
from paths import ROOT, TRAINED
from progress import progress
from rich.console import Console

PAGE, STORE, PLOTS = ROOT / "docs" / "energy.md", ROOT / "docs" / "energy.json", ROOT / "docs" / "energy"
DIGITS = ROOT / "sim" / "digits"
IMAGES = 2
"""Of the test images, for the switching activity."""


def _small(**settings: Any) -> EngineConfig:
    """A 4 x 4 engine with memory for the digits networks."""
    return EngineConfig(rows=4, lanes=4, pixels=64, act_bytes=1 << 14, **settings)


def _middle(**settings: Any) -> EngineConfig:
    """The default 16 x 16 engine with memory for a network on CIFAR images."""
    return EngineConfig(act_bytes=1 << 17, **settings)


SCHEMES: dict[str, tuple[str, EngineConfig]] = {
    "int4, digit array": ("digits-int4", _small()),
    "int4, fusion array": ("digits-int4", _small(array="fusion")),
    "shift4, shift array": ("digits-shift4", _small(array="shift")),
    "focused5, shift array": ("digits-focused5", _small(array="shift")),
    "xor0.8, sign array": ("digits-xor0.8", _small(array="sign", decoder="xor")),
}
RESNETS: dict[str, tuple[str, EngineConfig]] = {
    "ACIQ, W4A4": ("resnet20-aciq-w4a4", _middle()),
    "fixed point, W8A8": ("resnet20-fixed8", _middle()),
    "INQ, 5 bits": ("resnet20-inq-w5", _middle(array="shift")),
    "focused, 5 bits, Huffman": ("focused-s61-w5", _middle(array="shift", decoder="huffman")),
    "FleXOR, 0.8 bits": ("flexor-resnet20-0.8-s0", _middle(array="sign", decoder="xor")),
    "LQ-Net, W2A2": ("resnet20-lqnet-w2a2", _middle(array="sign")),
}


SHAPES: dict[str, tuple[Callable[[], Network], EngineConfig]] = {
    "ResNet-18, 224 x 224, 4 bits, 16 x 16 engine": (resnet18, EngineConfig()),
    "ResNet-8, 32 x 32, 4 bits, 4 x 4 engine": (
        resnet8,
        EngineConfig(rows=4, lanes=4, pixels=64, act_bytes=1 << 17, bus_bits=32),
    ),
    # The engine of docs/throughput.md.
    "ResNet-8, 32 x 32, 4 bits, 4 x 4 engine, 2 MiB": (resnet8, EngineConfig(rows=4, lanes=4)),
}
PARTS_OF_PAGE = ("digits", "rows", "trained", "shapes")

IN_ROWS = ("adder tree", "component sums")
"""Sums that a row of the array makes; the others are the accumulators'."""
CLASSES = {
    "PEs": ("multiply", "combine", "shift", "sign", "align"),
    "sums": (*IN_ROWS, "accumulate", "input sum"),
    "post lanes, decoder": ("correct", "requantise", "pool", "decode"),
    "registers, FIFO, records": ("prefetch", "weight registers", "operand registers", "record memory"),
    "activation memory": ("activation reads", "activation writes"),
    "accumulator memory": ("accumulator reads", "accumulator writes"),
    "input-sum memory": ("input-sum memory",),
    "DRAM: weights": ("weights",),
    "DRAM: records, images": ("records", "images"),
}
"""Parts that a bar shows together."""
ON_CHIP = [name for name in CLASSES if not name.startswith("DRAM")]
MEMORIES = ON_CHIP[3:]
"""Memories and registers, on the chip."""


def measured(store: dict[str, Any], parts: Sequence[str], console: Console) -> dict[str, Any]:
    """What the parts find, in their places in the store, which is written part by part."""
    store = dict(store)
    with progress(console, "energy") as notice:
        for part in parts:
            start = time.process_time()
            match part:
                case "digits":
                    store[part] = [_digits(name, *case, notice) for name, case in SCHEMES.items()]
                case "rows":
                    store[part] = [_row(name, *case, notice) for name, case in SCHEMES.items()]
                case "trained":
                    networks = {
                        name: (load(TRAINED / f"{file}.gw"), engine) for name, (file, engine) in RESNETS.items()
                    }
                    store[part] = [_kept(name, estimate(*case)) for name, case in networks.items()]
                case _:
                    store[part] = [_kept(name, estimate(make(), engine)) for name, (make, engine) in SHAPES.items()]
            console.print(f"{part}: {time.process_time() - start:.0f} s of this process")
            write_json(STORE, store)
    return store


def _digits(name: str, file: str, engine: EngineConfig, notice: Callable[[str], None]) -> dict[str, Any]:
    network = load(DIGITS / f"{file}.gw")
    compiled = compile_network(pruned(network, engine, None), engine)
    codes = image_codes(compiled.network.manifest.input, IMAGES, DIGITS / "test.npz")
    found = measure(compiled, codes, notice=notice)
    return _kept(name, estimate(network, engine), found)


def _row(name: str, file: str, engine: EngineConfig, notice: Callable[[str], None]) -> dict[str, Any]:
    compiled = compile_network(pruned(load(DIGITS / f"{file}.gw"), engine, None), engine)
    codes = image_codes(compiled.network.manifest.input, 1, DIGITS / "test.npz")
    return {"name": name, **check_row(compiled, codes[0], notice=notice).to_json()}


def _kept(name: str, found: EnergyEstimate, b: MeasuredEnergy | None = None) -> dict[str, Any]:
    """What the page needs of an estimate."""
    content = found.to_json()
    engine = content["engine"]
    return {
        "name": name,
        "network": found.network,
        "engine": {
            key: engine[key] for key in ("rows", "lanes", "pixels", "array", "decoder", "act_bytes", "bus_bits")
        },
        "macs": found.macs,
        "cycles": found.cycles,
        "parts": {part: [found.part(part).low, found.part(part).high] for part in PARTS},
        "weight_bytes": sum(row.count for row in found.rows if row.part == "weights") * engine["bus_bits"] // 8,
        "measured": None if b is None else b.to_json(),
    }


class Figures:
    """The stored figures of one network, in pJ."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.name, self.macs, self.measured = content["name"], content["macs"], content["measured"]

    def of(self, *classes: str, most: bool = False) -> float:
        """Energy of classes: the least, or the most."""
        return float(sum(self.content["parts"][part][most] for name in classes for part in CLASSES[name]))

    def group(self, name: str) -> float:
        """The least energy of a group of parts."""
        return float(sum(low for part, (low, _) in self.content["parts"].items() if PARTS[part] == name))

    def parts(self, *parts: str) -> float:
        """The least energy of parts."""
        return float(sum(self.content["parts"][part][0] for part in parts))

    def logic(self, *modules: str, most: bool = False) -> float:
        """Energy of modules' logic by B, without the clock: the least, or the most."""
        return float(sum(m["logic_pj"][most] for m in self.measured["modules"] if m["name"] in modules))

    @property
    def engine(self) -> str:
        """Its engine in a few words."""
        engine = self.content["engine"]
        decoder = "" if engine["decoder"] == "raw" else f", {engine['decoder']}"
        return f"{engine['rows']} x {engine['lanes']} {engine['array']}{decoder}"


class Stored:
    """The store, looked up."""

    def __init__(self, store: dict[str, Any]) -> None:
        self.store = store
        self.digits, self.trained, self.shapes = (
            [Figures(each) for each in store[part]] for part in ("digits", "trained", "shapes")
        )
        self.rows = {row["name"]: row for row in store["rows"]}


def paragraph(text: str) -> Iterator[str]:
    """Filled lines."""
    yield from textwrap.wrap(" ".join(text.split()), 118, break_on_hyphens=False)
    yield ""


def bullets(texts: Sequence[str]) -> Iterator[str]:
    """A list, filled."""
    for text in texts:
        yield from textwrap.wrap(f"* {text}", 118, subsequent_indent="  ", break_on_hyphens=False)
    yield ""


def percent(share: float) -> str:
    """A share."""
    return f"{100 * share:.0f} %"


def nano(pj: float) -> str:
    """nJ, with three digits or so."""
    value = pj / 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(low: float, high: float) -> str:
    """A range in nJ."""
    return f"{nano(low)} - {nano(high)}"


def page(stored: Stored) -> str:
    """The page."""
    lines = [line for section in (_head, _digits_text, _rows_text, _networks_text) for line in section(stored)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _head(stored: Stored) -> Iterator[str]:
    energies = Energies()
    yield "# Energy of an image"
    yield ""
    yield "Written by `python bench/energy.py` (part of `make gates`)."
    yield ""
    yield from paragraph(
        "Two estimates that share the engine and the supply voltage, always side by side, because neither is a "
        "measurement of silicon. No place and route, no library characterisation of this design and no leakage "
        "stands behind any figure here: they are for comparing schemes and finding what dominates, not for a data "
        "sheet."
    )
    yield "    gatewise energy F.gw --engine E.toml                           # A, and what B would be"
    yield "    gatewise energy F.gw --engine E.toml --images 2 --data IMAGES   # A and B"
    yield "    gatewise energy F.gw --energies OWN.toml                       # other energies of single operations"
    yield ""
    yield "## A: published energies of single operations"
    yield ""
    yield from bullets([note.removeprefix("A, published energies: ") for note in energies.notes()])
    yield from paragraph(
        "What is counted, `sim/events.py` says part by part: it follows from the layers' registers, as cycles do. A "
        "walk over the descriptors, one pixel, word and lane at a time, finds the same counts on every array "
        "(`tests/sim/test_events.py`), and so do strobes of the RTL: reads and writes of the activation memory, of the "
        "accumulators and of the input sums, weight tiles and bus words of the digits networks below were counted in "
        "co-simulation and are equal. Weights stream anew for each tile of pixels, and every word of that counts as "
        "DRAM: an engine with its weights on the chip would have next to none of it, which is why totals stand with "
        "and without DRAM."
    )
    yield "## B: own gates, measured activity"
    yield ""
    yield from bullets(stored.digits[0].measured["notes"])
    yield from paragraph(
        "B has what A leaves out (control, pipeline registers, clock, idle units that still switch) and lacks what A "
        "has: memories and DRAM. So the two are not to be added, and only their arithmetic is about the same thing: "
        "the last table of the next section compares it."
    )


def _digits_text(stored: Stored) -> Iterator[str]:
    yield "## The digits network in five schemes"
    yield ""
    yield from paragraph(
        f"Engines of 4 x 4 with 64 pixels, 16 KiB of activation memory and a 128-bit bus; {IMAGES} test images for the "
        "activity. nJ of an image; a range is from the least to the most."
    )
    headings = ["A", *(each.name for each in stored.digits)]
    rows = [[name, *(nano(each.of(name)) for each in stored.digits)] for name in ON_CHIP]
    rows.append(["on the chip", *(nano(each.of(*ON_CHIP)) for each in stored.digits)])
    dram = [name for name in CLASSES if name not in ON_CHIP]
    rows.append(["DRAM", *(spread(each.of(*dram), each.of(*dram, most=True)) for each in stored.digits)])
    rows.append(["pJ a MAC, on the chip", *(f"{each.of(*ON_CHIP) / each.macs:.2f}" for each in stored.digits)])
    rows.append(["pJ a MAC, least, with DRAM", *(f"{each.of(*CLASSES) / each.macs:.1f}" for each in stored.digits)])
    rows.append(["cycles", *(f"{each.content['cycles']:,}" for each in stored.digits)])
    yield from table(headings, rows)
    headings = ["B", *(each.name for each in stored.digits)]
    names = list(dict.fromkeys(m["name"] for each in stored.digits for m in each.measured["modules"]))
    rows = []
    for name in names:
        modules = [next((m for m in each.measured["modules"] if m["name"] == name), None) for each in stored.digits]
        rows.append([name, *("-" if m is None else nano(m["logic_pj"][0] + m["clock_pj"][0]) for m in modules)])
    for title, key in (("logic", "logic_pj"), ("clock", "clock_pj"), ("clock, gated ideally", "gated_clock_pj")):
        rows.append([f"all: {title}", *(spread(*each.measured[key]) for each in stored.digits)])
    counts = [
        [sum(m[key] for m in each.measured["modules"]) for each in stored.digits] for key in ("gates", "flip_flops")
    ]
    rows.append(
        ["pJ a MAC", *("{:.1f} - {:.1f}".format(*(pj / each.macs for pj in each.measured["total_pj"]))
                       for each in stored.digits)]
    )  # fmt: skip
    rows.append(["gates, inverters with them", *(f"{count:,}" for count in counts[0])])
    rows.append(["flip-flops", *(f"{count:,}" for count in counts[1])])
    yield from table(headings, rows)
    yield "Rows of modules are the least energies of their logic and clock."
    yield ""
    yield "![Energy of the digits network](energy/digits.png)"
    yield ""
    yield from _arithmetic(stored)
    first = stored.digits[0]
    memory, arithmetic = first.group("on-chip memory"), first.group("arithmetic")
    sums = first.of("input-sum memory") / first.of(*ON_CHIP)
    clock, logic = first.measured["clock_pj"][0], first.measured["logic_pj"][0]
    array = first.logic("array: rows")
    gated = first.measured["gated_clock_pj"][0] / clock
    xor = stored.digits[-1]
    yield from paragraph(
        "**Memory dominates arithmetic, and DRAM both.** In A the digit engine's memories and registers take "
        f"{memory / arithmetic:.1f} times what all its arithmetic does, and DRAM at least "
        f"{first.of(*dram) / first.of(*ON_CHIP):.1f} times all of the chip. {percent(sums)} of the chip is the input "
        "sums' memory: the engine keeps min(R, L) copies of a sum that differs in depthwise layers alone. In B the "
        f"clock takes {clock / logic:.1f} times what logic does: no clock is gated, and post lanes and descriptor "
        f"registers stand still most of the time. Gated ideally it would be {percent(gated)} of that. The rows of the "
        f"array take {percent(array / logic)} of the logic's energy. xor0.8 streams {xor.content['weight_bytes']:,} "
        f"bytes of weights where int4 streams {first.content['weight_bytes']:,}: its signs were encrypted in the "
        "network's own order, and each slice that a tile of the engine touches comes again. The FleXOR network below "
        "was encrypted in its engine's order, and streams the least."
    )


ARRAY = ("array: rows", "array: the rest", "accumulators")
"""Modules of B that hold what A calls PEs and sums."""


def _arithmetic(stored: Stored) -> Iterator[str]:
    """Arithmetic by A and by B, beside each other."""
    yield "What both estimate, the array's arithmetic; B is logic without the clock:"
    yield ""
    inner = (*CLASSES["PEs"], *IN_ROWS)
    rows = [
        ["A: PEs, adder trees", *(nano(each.parts(*inner)) for each in stored.digits)],
        ["B: logic of the rows", *(spread(*_logic(each, ARRAY[:1])) for each in stored.digits)],
        ["A: PEs, sums", *(nano(each.of("PEs", "sums")) for each in stored.digits)],
        ["B: logic of rows, array and accumulators", *(spread(*_logic(each, ARRAY)) for each in stored.digits)],
    ]
    yield from table(["nJ", *(each.name for each in stored.digits)], rows)
    ratios = {each.name: _logic(each, ARRAY[:1])[0] / each.parts(*inner) for each in stored.digits}
    all_of = [_logic(each, ARRAY)[0] / each.of("PEs", "sums") for each in stored.digits]
    low, high = min(ratios, key=lambda name: ratios[name]), max(ratios, key=lambda name: ratios[name])
    yield from paragraph(
        f"B's least is {ratios[low]:.1f} ({low}) to {ratios[high]:.1f} times ({high}) what A has for the rows, "
        f"{min(all_of):.1f} to {max(all_of):.1f} times for the whole array. B has what A leaves out: pipeline "
        "registers that change, multiplexers, overflow counts, and gates that switch where no result is used. A knows "
        "no values: it takes every operation in full where B's nets may stand still. And B's figure of a row is itself "
        "only as good as the section below says."
    )


def _logic(figures: Figures, modules: Sequence[str]) -> tuple[float, float]:
    return figures.logic(*modules), figures.logic(*modules, most=True)


def _rows_text(stored: Stored) -> Iterator[str]:
    yield "## How good is B? A row of the array, gate by gate"
    yield ""
    yield from paragraph(
        "Row 0 of each engine, mapped to gates and flattened, with the very inputs that it had in the engine over "
        "one image, every gate evaluated in every cycle with zero delay (`rtl/netlist.py`). Its sums are the RTL's, "
        "its flip-flops change as often as the RTL's registers do. Estimate B takes gates times changes of a net "
        "bit, module by module; what the gates themselves do stands beside it."
    )
    rows = [
        [
            name,
            f"{row['gates']:,}",
            f"{row['cycles']:,}",
            f"{row['gate_changes']:,}",
            f"{row['estimated']:,.0f}",
            f"{row['difference']:+.0%}",
            f"{row['gate_changes'] / row['gates'] / row['cycles']:.3f}",
            f"{row['flip_flop_changes']:,}",
            f"{row['counted_flips']:,}",
        ]
        for name, row in stored.rows.items()
    ]
    yield from table(
        ["row of", "gates", "cycles", "changes of gates", "taken by B", "difference", "changes a gate and cycle",
         "changes of flip-flops", "of RTL registers"],
        rows,
    )  # fmt: skip
    worst = max(stored.rows.values(), key=lambda row: abs(row["difference"]))
    yield from paragraph(
        f"So B's logic is wrong by up to {percent(abs(worst['difference']))} of a row's own count ({worst['name']}), "
        "where named nets switch more, or less, than the gates behind them: an alignment by one leaves most of its "
        "multiplier's gates still while its wide result changes. Flip-flops are exact, and with their clock they are "
        "most of B. Glitches, which a carry chain or a multiplier has many of, are in neither figure and would raise "
        "both."
    )


def _networks_text(stored: Stored) -> Iterator[str]:
    networks = [*stored.trained, *stored.shapes]
    yield "## ResNets"
    yield ""
    yield from paragraph(
        "A alone: an engine of 16 x 16 takes minutes to compile for co-simulation with all of its signals, and a "
        "ResNet hundreds of thousands of cycles, each some hundred times dearer to watch than to run; B is not shown "
        "for them, and what it found above (the clock, the control) is missing here. ResNet-20s are the trained "
        "exports of `bench/trained` on 16 x 16 engines with 128 KiB of activation memory, ResNet-18 has seeded "
        "weights and 2 MiB; ResNet-8 is the one of MLPerf Tiny, seeded, for a reviewer's IoT case." + _removed(stored)
    )
    eight, large = stored.shapes[1:]
    yield from paragraph(
        f"**ResNet-8 stands here on two engines.** One is made for it ({settings(eight)}). The other has the default "
        f"memory ({settings(large)}): it is the engine of [throughput.md](throughput.md), which takes what `gatewise "
        "compare --size 4x4` makes, and there the same network takes "
        f"{large.of(*CLASSES) / 1e6:.1f} .. {large.of(*CLASSES, most=True) / 1e6:.1f} uJ in place of "
        f"{eight.of(*CLASSES) / 1e6:.1f} .. {eight.of(*CLASSES, most=True) / 1e6:.1f}: the larger a memory, the dearer "
        f"each access ({eight.of(*ON_CHIP) / 1e6:.1f} uJ on the chip against {large.of(*ON_CHIP) / 1e6:.1f}). The keys "
        "in brackets are those of `--engine E.toml`."
    )
    rows = []
    dram = [name for name in CLASSES if name not in ON_CHIP]
    for each in networks:
        memory = each.of(*MEMORIES)
        rows.append(
            [
                each.name,
                each.engine,
                f"{each.macs / 1e6:,.1f}",
                f"{each.of('PEs') / 1e6:.2f}",
                f"{each.of('sums', 'post lanes, decoder') / 1e6:.2f}",
                f"{memory / 1e6:,.2f}",
                f"{each.of(*ON_CHIP) / 1e6:,.2f}",
                f"{each.of(*dram) / 1e6:,.1f} - {each.of(*dram, most=True) / 1e6:,.1f}",
                f"{each.of(*ON_CHIP) / each.macs:.2f}",
                f"{each.of(*CLASSES) / each.macs:.1f} - {each.of(*CLASSES, most=True) / each.macs:.1f}",
                f"{each.content['weight_bytes'] / 1e6:.2f}",
            ]
        )
    yield from table(
        ["network", "engine", "MMAC", "PEs, uJ", "sums, post lanes, uJ", "memories and registers, uJ",
         "on the chip, uJ", "DRAM, uJ", "pJ a MAC, on the chip", "pJ a MAC, with DRAM", "weights streamed, MB"],
        rows, left=2,
    )  # fmt: skip
    yield "![pJ a MAC by part](energy/networks.png)"
    yield ""
    yield from paragraph(_finding(stored, dram))


def settings(figures: Figures) -> str:
    """What an engine has beside its array, as the keys of its file."""
    keys = ("rows", "lanes", "pixels", "act_bytes", "bus_bits")
    return ", ".join(f"{key} = {figures.content['engine'][key]}" for key in keys)


def _removed(stored: Stored) -> str:
    """What channels that no image changes take away of the trained networks."""
    whole = max(each.macs for each in stored.trained)
    fewer = {each.name: 1 - each.macs / whole for each in stored.trained if each.macs < whole}
    if not fewer:
        return ""
    found = "; ".join(f"{name}: {percent(share)}" for name, share in fewer.items())
    return f" MMAC are those that run: channels that no image changes are removed where that is exact ({found} of all)."


def _finding(stored: Stored, dram: list[str]) -> str:
    by_name = {each.name: each for each in (*stored.trained, *stored.shapes)}
    aciq, fixed = by_name["ACIQ, W4A4"], by_name["fixed point, W8A8"]
    chip = {name: each.of(*ON_CHIP) / each.macs for name, each in by_name.items() if each in stored.trained}
    least, most = min(chip, key=lambda name: chip[name]), max(chip, key=lambda name: chip[name])
    memories = [each.of(*MEMORIES) / each.of(*ON_CHIP) for each in by_name.values()]
    pes = [each.of("PEs") / each.of(*ON_CHIP) for each in by_name.values()]
    sums = [each.of("accumulator memory", "input-sum memory") / each.of(*ON_CHIP) for each in by_name.values()]
    away = [each.of(*dram) / each.of(*CLASSES) for each in by_name.values()]
    align, multiply = (aciq.content["parts"][part][0] for part in ("align", "multiply"))
    eighteen, eight = stored.shapes[:2]
    return (
        "**What dominates.** On the chip memories and registers take "
        f"{percent(min(memories))} to {percent(max(memories))} and the "
        f"PEs themselves {percent(min(pes))} to {percent(max(pes))}; that a multiplication of 4 x 4 bits costs a "
        "quarter of one of 8 x 8 is hardly seen but through the passes: 8-bit codes are four digit pairs, and fixed "
        f"point takes {fixed.of(*ON_CHIP) / aciq.of(*ON_CHIP):.1f} times the on-chip energy of ACIQ's W4A4. Of the "
        f"ResNet-20s {least} takes the least on the chip ({chip[least]:.2f} pJ a MAC) and {most} the most "
        f"({chip[most]:.2f}). An accumulator is read and written for every word of activations and every digit pair, "
        f"part or plane, in a memory whose words are as wide as all rows: {percent(min(sums))} to "
        f"{percent(max(sums))} of the chip with the input sums beside it. In ACIQ's aligned layers the alignment, a "
        f"multiplication by 8 bits, costs {align / multiply:.1f} times what the products do. DRAM takes "
        f"{percent(min(away))} to {percent(max(away))} of the least total: weights stream again for every tile of "
        "pixels, and a decoder in front of the array saves there first (focused, FleXOR). ResNet-18 needs "
        f"{eighteen.of(*CLASSES) / 1e9:.1f} to {eighteen.of(*CLASSES, most=True) / 1e9:.1f} mJ an image, "
        f"{eighteen.of(*ON_CHIP) / 1e9:.2f} of them on the chip; ResNet-8 on the small engine "
        f"{eight.of(*CLASSES) / 1e6:.0f} to {eight.of(*CLASSES, most=True) / 1e6:.0f} uJ, "
        f"{eight.of(*ON_CHIP) / 1e6:.0f} of them on the chip."
    )


def plot(stored: Stored, folder: Path) -> None:
    """Bars of both estimates for the digits networks, and of pJ a MAC for all, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "gatewise"
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    colours = dict(zip(CLASSES, pyplot.get_cmap("tab10").colors, strict=False))
    source, where = "A: Horowitz, ISSCC 2014, 45 nm, 0.9 V", "docs/energy.md"
    own = "B: own gates x measured activity, NanGate 45 nm"

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5.2), sharex=True)
    names = [each.name.replace(", ", "\n") for each in stored.digits]
    _stack(left, names, [(name, [each.of(name) / 1e3 for each in stored.digits]) for name in ON_CHIP], colours)
    left.set_title("A, published energies: on the chip, without DRAM", fontsize=10)
    parts = [
        (title, [each.measured[key][0] / 1e3 for each in stored.digits], colour)
        for title, key, colour in (("logic", "logic_pj", "tab:blue"), ("clock of flip-flops", "clock_pj", "silver"))
    ]
    _stack(right, names, [part[:2] for part in parts], {part[0]: part[2] for part in parts})
    most = [each.measured["total_pj"][1] / 1e3 for each in stored.digits]
    low = [each.measured["total_pj"][0] / 1e3 for each in stored.digits]
    right.errorbar(range(len(names)), low, yerr=[[0] * len(low), [b - a for a, b in zip(low, most, strict=True)]],
                   fmt="none", ecolor="black", capsize=3, label="up to: with wires")  # fmt: skip
    right.set_title("B, own gates x activity: logic and clock, no memory", fontsize=10)
    for axes in (left, right):
        axes.set_ylabel("nJ an image")
        axes.set_ylim(top=1.3 * axes.get_ylim()[1])
        axes.legend(fontsize=7, ncols=2, loc="upper left")
        axes.tick_params(axis="x", labelsize=7)
    _save(figure, folder / "digits", f"4 x 4 engines, digits networks. {source}; {own}; {where}")

    # Weights of the digits networks are read for few pixels, which takes another scale.
    groups = [[*stored.digits], [*stored.trained, *stored.shapes]]
    figure, grid = pyplot.subplots(2, 2, figsize=(12, 8), height_ratios=[len(group) for group in groups])
    for (left, right), group in zip(grid, groups, strict=True):
        names = [_label(each, stored) for each in group]
        for axes, shown, title in ((left, ON_CHIP, "on the chip"), (right, list(CLASSES), "with DRAM")):
            bottom = [0.0] * len(group)
            for name in shown:
                values = [each.of(name) / each.macs for each in group]
                axes.barh(names, values, left=bottom, color=colours[name], label=name)
                bottom = [a + b for a, b in zip(bottom, values, strict=True)]
            axes.set_title(f"A, published energies: {title}", fontsize=10)
            axes.set_xlabel("pJ a MAC")
            axes.tick_params(axis="y", labelsize=8)
            axes.invert_yaxis()
        right.set_yticklabels([])
        high = [each.of(*CLASSES, most=True) / each.macs for each in group]
        spans = [[0.0] * len(high), [b - a for a, b in zip(bottom, high, strict=True)]]
        right.errorbar(bottom, names, xerr=spans, fmt="none", ecolor="black", capsize=3, label="up to: dearest DRAM")
    handles, labels = grid[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncols=5, loc="upper center")
    _save(figure, folder / "networks", f"{source}; {where}", top=0.94)


def _label(figures: Figures, stored: Stored) -> str:
    kind = "digits: " if figures in stored.digits else "ResNet-20: " if figures in stored.trained else ""
    return kind + figures.name.replace(", 4 bits, ", ", 4 bits,\n")


def _stack(axes: Any, names: list[str], parts: list[tuple[str, list[float]]], colours: dict[str, Any]) -> None:
    bottom = [0.0] * len(names)
    for name, values in parts:
        axes.bar(range(len(names)), values, 0.65, bottom=bottom, color=colours[name], label=name)
        bottom = [a + b for a, b in zip(bottom, values, strict=True)]
    axes.set_xticks(range(len(names)), names)


def _save(figure: Any, path: Path, source: str, top: float = 1.0) -> None:
    figure.text(0.01, 0.005, source, fontsize=6)
    figure.tight_layout(rect=(0, 0, 1, top))
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", nargs="*", choices=PARTS_OF_PAGE, default=PARTS_OF_PAGE, help="what to measure; the rest stays"
    )
    parts = parser.parse_args().part
    store = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    if parts:
        store = measured(store, parts, Console(stderr=True))
    stored = Stored(store)
    plot(stored, PLOTS)
    write_bytes(PAGE, page(stored).encode())


if __name__ == "__main__":
    main()
