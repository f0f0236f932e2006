"""The paper's layer in every weight scheme, beside the published gate counts; writes docs/gates.md and its plots.

    python bench/gates.py                 # counts what is not in the synthesis cache, and writes everything
    python bench/gates.py --part checks   # counts a part; the rest stays as it is stored
    python bench/gates.py --part          # writes the page and its plots of the stored counts

About eight minutes on two cores where only engines are in the cache; a few minutes from a full one.
"""

import argparse
import json
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gatewise.kernels.unrolled import STRUCTURES, Structure
from gatewise.rtl.compare import ENGINE, Assumptions, Comparison, compare_layer, network_rows, parse_layer
from gatewise.rtl.runner import Runner
from gatewise.rtl.unrolled_layer import CHECKED_TAPS, check_flattened
from gatewise.sim.atomic import write_bytes, write_json
from gatewise.sim.unrolled import SCHEMES, load_layer, seeded_layer
from markdown import table
from paths import ROOT, TRAINED
from progress import progress
from rich.console import Console

PAGE, STORE, PLOTS = ROOT / "docs" / "gates.md", ROOT / "docs" / "gates.json", ROOT / "docs" / "gates"
LAYER = "3,100,100,8,8"

PUBLISHED = {
    "abcnet": ("ABC-Net (5 bases / 5 bits)", 806.1),
    "lqnet-a2": ("LQ-Net (2 bits)", 314.4),
    "shift": ("Shift quantisation (3 bits, unsigned)", 275.2),
    "focused5": ("Focused quantisation (5 bits)", 275.6),
    "focused5-huffman": ("Focused quantisation (5 bits) + Huffman", 276.4),
}
"""Zhao, Gao, Bates, Mullins, Xu, "Focused Quantization for Sparse CNNs" (NeurIPS 2019), table 4: millions of gates."""
PUBLISHED_MACS = 5.76
"""Millions, taps in the padding included."""

EVERY, FEW, NINE = "every tap", "every tap, coefficients of 8 bits", "every tap, products of nine bits"

RUNS: dict[str, tuple[Assumptions, tuple[str, ...]]] = {
    "as it is": (Assumptions(), tuple(SCHEMES)),
    EVERY: (
        Assumptions(padded_taps=True, no_zeros=True),
        (*PUBLISHED, "lqnet-a5", "lqnet-a8", "fixed8"),
    ),
    FEW: (
        Assumptions(padded_taps=True, no_zeros=True, coefficient_bits=8),
        ("abcnet", "lqnet-a2", "lqnet-a5", "lqnet-a8"),
    ),
    NINE: (
        Assumptions(padded_taps=True, no_zeros=True, activation_bits=9),
        ("shift", "focused5", "focused5-huffman", "fixed8"),
    ),
}
"""Assumptions, and the schemes that are counted under them."""
CHECKS = "checks"
CHECK_FIELDS = ("gates_sum", "gates_flat", "aluts_sum", "aluts_flat")
ON_ENGINES = "engine"
TRAINED_LAYER = "layer3.1.conv2"
TRAINED_SHAPE = "3,64,64,8,8"
TRAINED_NETWORKS = {
    "ABC-Net, 5 bases, 5 bits": "resnet20-abcnet-w5a5",
    "LQ-Net, 2 bits, activations of 2 bits": "resnet20-lqnet-w2a2",
    "INQ, 4 bits (shift, 2-bit exponents)": "resnet20-inq-w4",
    "Focused Quantisation, 5 bits": "focused-s61-w5",
    "FleXOR, 0.8 bits": "flexor-resnet20-0.8-s0",
    "8-bit fixed point": "resnet20-fixed8",
}
"""Exports of `bench/trained`, whose accuracies are in docs/results.md."""
PARTS = (*RUNS, TRAINED_LAYER, CHECKS, ON_ENGINES)
CHECKED = ("shift", "focused5", "fixed8", "aciq", "lqnet-a2", "ternary")


def measured(store: dict[str, Any], parts: Sequence[str], console: Console) -> dict[str, Any]:
    """The counts of the parts in their places in the store."""
    layer = parse_layer(LAYER)
    runs, checks = dict(store.get("runs", {})), list(store.get("checks", []))
    engines = store.get(ON_ENGINES)
    with progress(console, "gates") as notice:
        for part in parts:
            start = time.perf_counter()
            if part == CHECKS:
                with Runner(notice=notice) as runner:
                    checks = [_checked(name, structure, runner) for name in CHECKED for structure in STRUCTURES]
            elif part == ON_ENGINES:
                engines = compare_layer(layer, architectures=[ENGINE], notice=notice).to_json()
            elif part == TRAINED_LAYER:
                runs[part] = _trained(notice).to_json()
            else:
                assumptions, schemes = RUNS[part]
                found = compare_layer(layer, schemes=schemes, assumptions=assumptions, notice=notice)
                runs[part] = found.to_json()
            console.print(f"{part}: {time.perf_counter() - start:.0f} s")
    return {"runs": runs, "checks": checks, ON_ENGINES: engines}


def _checked(name: str, structure: Structure, runner: Runner) -> dict[str, Any]:
    unrolled = seeded_layer(SCHEMES[name], parse_layer(LAYER).shape).unrolled
    check = asdict(check_flattened(unrolled, structure, runner))
    return {"scheme": name, "architecture": structure} | {key: check[key] for key in CHECK_FIELDS}


def _trained(notice: Callable[[str], None]) -> Comparison:
    """The same layer of ResNet-20 networks that were trained in each scheme."""
    found = Comparison(parse_layer(TRAINED_SHAPE))
    for title, file in TRAINED_NETWORKS.items():
        network_rows(found, title, *load_layer(f"{TRAINED / file}.gw:{TRAINED_LAYER}"), notice=notice)
    return found


class Counts:
    """The stored counts, looked up."""

    def __init__(self, store: dict[str, Any]) -> None:
        self.store = store
        self.rows = {
            (run, row["scheme"], row["architecture"]): row
            for run, result in store["runs"].items()
            for row in result["rows"]
        }

    def gates(self, run: str, scheme: str, architecture: str) -> int:
        """Gates of a scheme."""
        return int(self.rows[run, scheme, architecture]["gates"])

    def ratio(self, run: str, scheme: tuple[str, str], to: tuple[str, str]) -> float:
        """Gates of a scheme in an architecture, to those of another."""
        return self.gates(run, *scheme) / self.gates(run, *to)


def page(counts: Counts) -> str:
    """The page."""
    lines = [
        part for section in (_head, _published, _all, _on_engines, _trained_rows, _checks) for part in section(counts)
    ]
    return "\n".join(lines).rstrip() + "\n"


def _millions(gates: int) -> str:
    return f"{gates / 1e6:.1f}"


def bullet(*parts: str) -> Iterator[str]:
    """One entry of a list, filled."""
    yield from textwrap.wrap("".join(parts), 118, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False)


def _head(counts: Counts) -> Iterator[str]:
    result = counts.store["runs"]["as it is"]
    flow_text = ", ".join(f"`{name}` {digest[:12]}" for name, digest in result["flows"].items())
    yield HEAD.format(tool=result["tool"], flows=flow_text)


HEAD = """\
# Gates by weight scheme

Written by `python bench/gates.py` (`make gates`).

One layer, 3 x 3, 100 -> 100 channels on an 8 x 8 map with padding 1, in every weight scheme at one throughput.
Everything is unrolled: each of the 6,400 outputs has a circuit of its own, constants are wires, and an image goes
in with every clock. It is the case of table 4 of the Focused Quantisation paper, and its architecture.

## The recipe

    gatewise compare --layer 3,100,100,8,8 --architecture direct --architecture grouped

* **Weights** are Gaussian (seed 0), brought to codes by the formula of each scheme's paper (`sim/unrolled.py`);
  `--weights F.gw:NODE` puts a trained layer beside them. Nothing is pruned. Activations have 8 bits where the
  scheme does not say otherwise.
* **direct**: what each paper writes down. Every activation meets its constant (shifts are wires, other constants
  sums of signed powers of two) and a tree adds the products; N planes of weights and M of activations are N x M
  counts of bits, weighed by 16-bit coefficients.
* **grouped**: activations of equal constants are added first, and the constants follow once for each odd number:
  the same sums by the distributive law. A focused layer is then a shift layer whose few sums are used twice.
* What is added and what is subtracted is summed apart with unsigned adders, and subtracted once. Terms of one
  binary place meet first, narrow ones first; an adder has the bits that its result needs for any activations. Bits
  are counted by full adders that take a third bit as their carry.
* **Gates**: every distinct adder and multiplier is mapped to two-input gates by itself (inverters and flip-flops
  apart) and counted as often as it stands in the layer. A full adder is 5 gates. Registers hold activations and
  sums; between them all is combinational.
* Taps that lie in the padding are no hardware, nor are weights of zero. Requantisers, the same in all schemes, are
  left out. Decoders are counted as the paper counts them, beside the wired constants: one for each output channel,
  without registers for what it writes.

Tool: {tool}; flows: {flows}. No clock is claimed.
"""


def _published(counts: Counts) -> Iterator[str]:
    yield PUBLISHED_TEXT
    places = (("as it is", "direct"), ("as it is", "grouped"), (EVERY, "direct"), (EVERY, "grouped"))

    def own(scheme: str) -> Iterator[str]:
        for run, architecture in places:
            yield _millions(counts.gates(run, scheme, architecture))
            yield f"{counts.ratio(run, (scheme, architecture), ('shift', architecture)):.3f}"

    rows = [
        [title, f"{gates:.1f}", f"{gates / PUBLISHED['shift'][1]:.3f}", *own(scheme)]
        for scheme, (title, gates) in PUBLISHED.items()
    ]
    rows.append(["**8-bit fixed point** (promised, never published)", "", "", *own("fixed8")])
    headings = ["", "published", "ratio"]
    for run, architecture in places:
        headings += [f"{architecture}, {run}", "ratio"]
    yield from table(headings, rows)
    yield from _reproduced(counts)
    yield from ("### Where the ratios come from", "", *_explained(counts), "")


PUBLISHED_TEXT = """\
## Beside the published figures

Millions of two-input gates; ratios are to plain shift quantisation, as in the paper. *As it is* leaves out taps in the
padding and weights of zero (4.84 M MACs); *every tap* counts them all (`--padded-taps --no-zeros`, 5.76 M MACs).
"""
REPRODUCED = {
    "abcnet": (EVERY, "abcnet", "direct", "`--scheme abcnet`: 25 counts of bits, 16-bit coefficients"),
    "lqnet-a2": (EVERY, "lqnet-a5", "direct", "`--scheme lqnet-a5`: activations of five planes, as ABC-Net's"),
    "shift": (NINE, "shift", "direct", "`--scheme shift --activation-bits 9`: products are signed numbers"),
    "focused5": (NINE, "focused5", "grouped", "`--scheme focused5 --activation-bits 9`, sums shared"),
    "focused5-huffman": (NINE, "focused5-huffman", "grouped", "the same with a decoder for each output channel"),
}
"""The run that comes to a published figure: assumptions, scheme, architecture, and what it is."""


def _reproduced(counts: Counts) -> Iterator[str]:
    yield REPRODUCED_TEXT
    to = counts.gates(*REPRODUCED["shift"][:3])
    rows = []
    for scheme, (title, published) in PUBLISHED.items():
        run, name, architecture, text = REPRODUCED[scheme]
        found = counts.gates(run, name, architecture)
        rows.append(
            [
                title,
                f"{text} ({architecture})",
                f"{published:.1f}",
                f"{found / 1e6:.1f}",
                f"{found / 1e6 / published - 1:+.1%}",
                f"{published / PUBLISHED['shift'][1]:.3f}",
                f"{found / to:.3f}",
            ]
        )
    yield from table(["", "run", "published", "ours", "", "ratio published", "ours"], rows, 2)


REPRODUCED_TEXT = """\
### The published table, reproduced

Every tap counted, in the structure that is named, and for each row at most one assumption changed. The paper states
none of these: that all five come this close is evidence for them, not proof.
"""


def _explained(counts: Counts) -> Iterator[str]:
    published = {name: gates for name, (_, gates) in PUBLISHED.items()}
    shift = ("shift", "grouped")

    def gates(scheme: str, architecture: str = "direct", run: str = EVERY) -> float:
        return counts.gates(run, scheme, architecture) / 1e6

    def off(scheme: str, than: str, run: str = EVERY, architecture: str = "direct") -> str:
        found = gates(scheme, architecture, run)
        return f"{found:.1f} M against {published[than]} M, {found / published[than] - 1:+.1%}"

    def ratio(scheme: str, architecture: str = "direct", run: str = EVERY) -> str:
        return f"{gates(scheme, architecture, run) / gates(*shift):.2f}"

    yield from bullet(
        f"**Shift**: {gates(*shift) / PUBLISHED_MACS:.1f} gates for each ",
        "MAC where 47.8 are published. Activations are ",
        "not negative and signs are constants, so that ours adds what is added and what is subtracted as numbers of ",
        "8 bits. Products that are signed numbers have nine: with `--activation-bits 9` it is ",
        f"{off('shift', 'shift', NINE)}.",
    )
    yield from bullet(
        "**ABC-Net** is clearly above all others, as published: ",
        f"{off('abcnet', 'abcnet')}, and with coefficients of 8 ",
        f"bits (`--coefficient-bits 8`) {off('abcnet', 'abcnet', FEW)}. Its 25 counts of 900 bits are most of it. The ",
        f"ratio to our shift layer is {ratio('abcnet')}, as that is the ",
        "smaller one; to shift with products of nine bits ",
        f"it is {gates('abcnet') / gates('shift', run=NINE):.2f}, and ",
        f"{gates('abcnet', run=FEW) / gates('shift', run=NINE):.2f} ",
        "with 8-bit coefficients, where 2.93 is published. Grouped by the patterns of its five signs ABC-Net is ",
        f"{gates('abcnet', 'grouped'):.1f} M and no longer dear: the published order is that of the papers' own ",
        "arithmetic, not of the functions that they compute.",
    )
    yield from bullet(
        "**LQ-Net** with the 2-bit activations of its paper is far ",
        f"below shift ({ratio('lqnet-a2')}), with activations ",
        f"of 8 bits, as numbers, above it ({ratio('lqnet-a8')}); the paper does not say which. Activations of *five* ",
        f"planes, which are ABC-Net's, reproduce it: {off('lqnet-a5', 'lqnet-a2')}. ABC-Net to LQ-Net is then ",
        f"{gates('abcnet') / gates('lqnet-a5'):.2f} where ",
        f"{published['abcnet'] / published['lqnet-a2']:.2f} is published.",
    )
    yield from bullet(
        f"**Focused to shift** is {counts.ratio(EVERY, ('focused5', 'grouped'), shift):.3f} grouped, and ",
        f"{counts.ratio('as it is', ('focused5', 'grouped'), shift):.3f} where zeros are left out, which are rarer ",
        "among focused weights: a value and its mean must cancel. Published is 1.001. Direct it is ",
        f"{counts.ratio(EVERY, ('focused5', 'direct'), ('shift', 'direct')):.2f}: ",
        "each weight is two powers of two, and ",
        "each activation is added twice. So the published figure can only be one of sums that the shift tree and the ",
        "trees of the means share.",
    )
    decoders = counts.ratio(EVERY, ("focused5-huffman", "grouped"), ("focused5", "grouped")) - 1
    yield from bullet(
        f"**Huffman decoders**, one for each output channel, are {decoders:.2%} of the grouped layer, ",
        f"{published['focused5-huffman'] / published['focused5'] - 1:.2%} as published. In the engine, whose weights ",
        "are no wires, a bank of decoders is a share of its own, two orders of magnitude greater: ",
        "[engine.md](engine.md) has it.",
    )
    yield from bullet(
        f"**8-bit fixed point** costs {ratio('fixed8')} times a shift ",
        "layer where every tap has a constant multiplier, ",
        f"and {ratio('fixed8', 'grouped')} times where equal constants are grouped: 900 taps have at most 64 odd ",
        "constants.",
    )


def _all(counts: Counts) -> Iterator[str]:
    result = counts.store["runs"]["as it is"]
    yield from ("## All schemes", "", f"{result['macs']:,} MACs; taps in the padding and weights of zero left out.", "")
    yield from ("![gates by scheme](gates/layer.svg)", "")
    headings = ["scheme", "architecture", "gates", "ratio to focused", "gates/MAC", "gate equivalents", "ALMs", "DSP"]
    headings += ["registers", "memory bits", "M20K", "weight bytes an image", "depth", "Stratix 10 GX 2800s"]
    rows = [
        [
            row["title"],
            row["architecture"],
            f"{row['gates']:,}",
            f"{row['ratio']:.3f}",
            f"{row['gates_per_mac']:.1f}",
            f"{row['equivalents']:,.0f}",
            f"{row['alms_low']:,} .. {row['alms_high']:,}",
            f"{row['dsps']:,}",
            f"{row['registers']:,}",
            f"{row['memory_bits']:,}",
            f"{row['m20ks']:,}",
            f"{row['weight_bytes']:,}",
            f"{row['depth']:,}",
            f"{row['share_alm_low']:.2f} .. {row['share_alm_high']:.2f}",
        ]
        for row in result["rows"]
    ]
    yield from table(headings, rows, 2)
    yield ALL_TEXT


ALL_TEXT = """\
* No multiplication is left for a DSP block: constants are sums.
* FleXOR's three rates differ in their decoders alone, since decoded signs are as random at each.
* ALMs of counts of bits (ABC-Net, LQ-Net) err upwards: adders of two and three bits stand on carry chains of their
  own, where a fitter would make compressors of lookup tables. Gates have no such bias.
* Latencies differ: depth is gates from register to register, and no pipeline is counted.
"""


def _on_engines(counts: Counts) -> Iterator[str]:
    rows = counts.store[ON_ENGINES]["rows"]
    target = rows[0]["engine"]["target_cycles"]
    yield ENGINE_TEXT.format(target=target)
    lines = [
        [
            row["title"],
            f"{row['engine']['array']}, {row['engine']['decoder']}",
            f"{row['engine']['rows']} x {row['engine']['lanes']}, Q {row['engine']['post_lanes']}",
            f"{row['cycles']:,}",
            f"{row['images_per_cycle']:.3g}",
            f"{row['gates']:,}",
            f"{row['gates_at_target']:,}",
            f"{row['ratio']:.3f}",
            *(f"{row['engine']['gates_by_part'].get(part, 0):,}" for part in ("array", "decoder", "post lanes")),
            f"{row['equivalents']:,.0f}",
            f"{row['alms_dsp_low']:,} .. {row['alms_dsp_high']:,}",
            f"{row['dsps']:,}",
            f"{row['registers']:,}",
            f"{row['memory_bits']:,}",
            f"{row['m20ks']:,}",
            f"{row['weight_bytes']:,}",
        ]
        for row in rows
    ]
    headings = [
        *("scheme", "array, decoder", "engine", "cycles", "images a cycle", "gates", "gates at target", "ratio"),
        *("array", "decoder", "post lanes", "gate equivalents", "ALMs with DSP", "DSP", "registers", "memory bits"),
        *("M20K", "weight bytes an image"),
    ]
    yield from table(headings, lines, 3)
    yield from ("### Huffman's share on an engine", "", *_huffman_share(rows), "")


ENGINE_TEXT = """\
## The same layer on engines

    gatewise compare --layer 3,100,100,8,8 --architecture engine    # without --architecture both tables

Weights stream at run time, and the engine is whole: array, decoder, accumulators, requantisers (the post lanes),
control. Of each array that a scheme is at home on it is the engine of the fewest gates that takes no more than
{target:,} cycles for the layer, as 8-bit fixed point does on the default engine of 16 x 16 PEs. Sizes are powers of 2;
*gates at target* are gates x cycles / {target:,}, the same throughput for all, and ratios are of these, to focused
quantisation in 5 bits. Taps in the padding take their cycles here. Gates are composed of synthesised engines
([throughput.md](throughput.md) says how, and by how much that misses); all weight bytes are fetched for every image.
"""


def _huffman_share(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Why decoders are no 1 % of an engine, and what makes them so."""
    found = {row["scheme"]: row for row in rows}
    plain, coded = found["focused5"], found["focused5-huffman"]
    engine = coded["engine"]
    decoders, gates = engine["gates_by_part"]["decoder"], coded["gates"]
    # Codes of all rows and lanes in every step, those that fill up a row group or a word included.
    layer = parse_layer(LAYER).shape
    groups = -(-layer.out_channels // engine["rows"]) * -(-layer.in_channels // engine["lanes"])
    codes = groups * engine["rows"] * engine["lanes"] * layer.kernel[0] * layer.kernel[1]
    needed = -(-codes // coded["cycles"])
    shared = decoders * needed / engine["rows"]
    yield from bullet(
        f"**As it is built**, a decoder for each of {engine['rows']} rows: {decoders:,} of {gates:,} gates, "
        f"{decoders / gates:.1%}. At equal throughput focused quantisation with Huffman codes is "
        f"{coded['gates_at_target'] / plain['gates_at_target'] - 1:+.1%} in gates, for "
        f"{coded['weight_bytes'] / plain['weight_bytes'] - 1:+.0%} in weight bytes. That is not within the 1 % that "
        "the paper has: its decoders stand beside wired constants, where they decode nothing that the layer waits "
        "for, and its layer is hundreds of times as large.",
    )
    one = f"{decoders / engine['rows'] / gates:.2%}"
    yield from bullet(
        f"**One assumption changed**: decoders that rows share, as many as keep up. The layer has {codes:,} codes and "
        f"{coded['cycles']:,} cycles, so {needed} at a code a cycle would do: {shared:,.0f} gates, "
        f"{shared / (gates - decoders + shared):.2%} of the engine; one alone would be {one}, where the paper has "
        "0.29 %. The engine has one a row since layers of few pixels, and linear ones, wait for their weights.",
    )


def _trained_rows(counts: Counts) -> Iterator[str]:
    result = counts.store["runs"][TRAINED_LAYER]
    yield TRAINED_TEXT.format(layer=TRAINED_LAYER, shape=TRAINED_SHAPE, macs=result["macs"])
    headings = ["network", "architecture", "gates", "gates/MAC", "gate equivalents", "ALMs", "depth"]
    rows = [
        [
            row["title"],
            row["architecture"],
            f"{row['gates']:,}",
            f"{row['gates_per_mac']:.1f}",
            f"{row['equivalents']:,.0f}",
            f"{row['alms_low']:,} .. {row['alms_high']:,}",
            f"{row['depth']:,}",
        ]
        for row in result["rows"]
    ]
    yield from table(headings, rows, 2)


TRAINED_TEXT = """\
## A trained layer

`{layer}` ({shape}, {macs:,} MACs) of ResNet-20 networks that were trained in each scheme on CIFAR-10
(`bench/trained`; [results.md](results.md) has their accuracies): what `--weights F.gw:NODE` counts. Here weights are
pruned where the scheme prunes (64 % of the focused layer's, 35 % zeros with INQ), and zeros cost nothing.
"""


def _checks(counts: Counts) -> Iterator[str]:
    checks = counts.store["checks"]
    rows = [
        [
            SCHEMES[check["scheme"]].title,
            check["architecture"],
            f"{check['gates_sum']:,}",
            f"{check['gates_flat']:,}",
            f"{check['gates_sum'] / check['gates_flat'] - 1:+.1%}",
            f"{check['aluts_sum']:,}",
            f"{check['aluts_flat']:,}",
            f"{check['aluts_sum'] / check['aluts_flat'] - 1:+.1%}",
        ]
        for check in checks
    ]
    gates, aluts = (
        max(abs(check[f"{kind}_sum"] / check[f"{kind}_flat"] - 1) for check in checks) for kind in ("gates", "aluts")
    )
    yield CHECK_TEXT.format(taps=CHECKED_TAPS, gates=gates, aluts=aluts)
    headings = ["scheme", "architecture", "gates: sum", "flattened", "", "ALUTs + carry: sum", "flattened", ""]
    yield from table(headings, rows, 2)


CHECK_TEXT = """\
## The sum against a channel synthesised whole

The first {taps} taps of the first channel, as the sum over their modules and flattened into one: sums and wholes differ
by at most {gates:.1%} in gates and {aluts:.1%} in ALUTs and carry bits. The same circuits are compared with their
golden model in RTL simulation (`gatewise regress --block unrolled`, `tests/rtl/test_unrolled.py`).
"""


def plot(counts: Counts, folder: Path) -> None:
    """Gates of every scheme in both architectures, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "gatewise"
    from matplotlib import pyplot

    rows = counts.store["runs"]["as it is"]["rows"]
    names = list(dict.fromkeys(row["scheme"] for row in rows))
    figure, axes = pyplot.subplots(figsize=(9, 7))
    for at, architecture in enumerate(("direct", "grouped")):
        values = [counts.gates("as it is", name, architecture) / 1e6 for name in names]
        places = [place + 0.4 * at for place in range(len(names))]
        bars = axes.barh(places, values, 0.4, label=architecture)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=7)
    axes.set_yticks([place + 0.2 for place in range(len(names))], [SCHEMES[name].title for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("two-input gates, millions")
    axes.set_title("3 x 3, 100 -> 100 channels, 8 x 8, unrolled: one image a cycle", fontsize=10)
    axes.legend(title="architecture")
    figure.text(0.01, 0.005, f"{counts.store['runs']['as it is']['tool']}; seeded weights; docs/gates.md", fontsize=6)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "layer.png", dpi=130)
    figure.savefig(folder / "layer.svg", metadata={"Date": None})


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="what to count; the rest stays")
    parts = parser.parse_args().part
    store = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    if parts:
        store = measured(store, parts, Console(stderr=True))
        write_json(STORE, store)
    counts = Counts(store)
    plot(counts, PLOTS)
    write_bytes(PAGE, page(counts).encode())


if __name__ == "__main__":
    main()
