"""The page docs/widths.md and its plots, of what bench/widths.py has measured."""

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from gatewise import EngineConfig
from gatewise.kernels.mac import MacFormat
from gatewise.sim.atomic import write_bytes
from gatewise.sim.demo import load_demo
from gatewise.sim.energy import Energies
from gatewise.sim.events import PARTS
from gatewise.sim.text_tables import markdown_table
from gatewise.sim.width_report import Curve, Panel, draw_panels, write_figure
from gatewise.sim.width_sweep import CRITERIA, RowCost
from paths import ROOT, stored
from widths_store import COLUMNS, DIGITS, HELD_OUT, LANES, MODES, NETWORKS, RUN_TIME, key, row_formats, write

PAGE, PLOTS = (ROOT / "docs" / name for name in ("widths.md", "widths"))
ALLOCATED = "-all-"
"""In the names of networks with bit allocation."""
DIGITS_ENERGY = "int4, digit array"
"""The digits network in docs/energy.json."""


def write_page(store: dict[str, Any]) -> None:
    """The page and its plots; every format on it must have been counted."""
    counted = store.get("rows", {})
    missing = [mac for mac in row_formats(store) if key(mac) not in counted]
    if missing:
        print(
            f"error: rows of {len(missing)} formats must be counted before the page is written, the first is "
            f"{key(missing[0])}: python bench/widths.py --part gates",
            file=sys.stderr,
        )
        sys.exit(2)
    store["float_top1"] = float_figures(store)
    write(store)
    plots(store)
    write_bytes(PAGE, page(store).encode())


def float_figures(store: dict[str, Any]) -> dict[str, float]:
    """Top-1 of the float networks on the same test images: of the file, or measured and stored by docs/results.md."""
    found = {DIGITS: load_demo().float_top1}
    stored_results = stored("results/aciq-resnet20", "bench/papers.py")
    tops = {figure["float_top1"] for figure in stored_results["figures"] if "float_top1" in figure}
    if len(tops) == 1:
        found |= dict.fromkeys((name for name in store["networks"] if name.startswith("resnet20")), tops.pop())
    return found


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

Written by `python bench/widths.py` from [widths.json](widths.json), as a part of `make gates`: accuracies and overflows
of every network, gates, and the cycles of run-time statistics. The ResNet-20s need the images of CIFAR-10; where there
are none, what is stored of them stays.

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
    content = stored("energy", "bench/energy.py")["digits"]
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
overflowed at some widths, nothing does at wider ones in either mode. Tensors are compared by their codes, so that a
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
    return int(stored("bops", "bench/bops.py")["gates"]["digit"])


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
