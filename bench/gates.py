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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gatewise.kernels.unrolled import STRUCTURES, Structure
from gatewise.rtl.compare import ENGINE, Assumptions, Comparison, compare_layer, network_rows, parse_layer
from gatewise.rtl.huffman import HuffmanBank
from gatewise.rtl.runner import Runner
from gatewise.rtl.synth import STRATIX_10_GX_2800, synthesize_component
from gatewise.rtl.unrolled_layer import CHECKED_TAPS, check_flattened
from gatewise.sim.atomic import write_bytes, write_json
from gatewise.sim.coded import huffman_bank
from gatewise.sim.engine import EngineConfig
from gatewise.sim.unrolled import SCHEMES, load_layer, seeded_layer
from markdown import table
from paths import ROOT, TRAINED, stored
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
ONE_DECODER = "one decoder"
"""A bank of one Huffman decoder, as an engine of one row would have it."""
SHARED_BY = (1, 2, 4, 8)
"""Images that a fetched weight serves."""
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
PARTS = (*RUNS, TRAINED_LAYER, CHECKS, ONE_DECODER, ON_ENGINES)
CHECKED = ("lqnet-a2", "shift", "focused5", "fixed8", "aciq", "flexor-0.8", "bayesian8", "ternary")
"""Of ABC-Net, even 16 taps take minutes to flatten, all 25 counts of them: LQ-Net's channels are built alike."""


def measured(store: dict[str, Any], parts: Sequence[str], console: Console) -> dict[str, Any]:
    """The counts of the parts in their places in the store."""
    layer = parse_layer(LAYER)
    runs, checks = dict(store.get("runs", {})), list(store.get("checks", []))
    engines, decoder = store.get(ON_ENGINES), store.get(ONE_DECODER)
    with progress(console, "gates") as notice:
        for part in parts:
            start = time.perf_counter()
            if part == CHECKS:
                with Runner(notice=notice) as runner:
                    checks = [_checked(name, structure, runner) for name in CHECKED for structure in STRUCTURES]
            elif part == ON_ENGINES:
                engines = compare_layer(layer, architectures=[ENGINE], notice=notice).to_json()
            elif part == ONE_DECODER:
                decoder = _one_decoder(notice)
            elif part == TRAINED_LAYER:
                runs[part] = _trained(notice).to_json()
            else:
                assumptions, schemes = RUNS[part]
                found = compare_layer(layer, schemes=schemes, assumptions=assumptions, notice=notice)
                runs[part] = found.to_json()
            console.print(f"{part}: {time.perf_counter() - start:.0f} s")
    return {"runs": runs, "checks": checks, ONE_DECODER: decoder, ON_ENGINES: engines}


def one_decoder() -> HuffmanBank:
    """The bank of an engine with Huffman codes, with one decoder in it."""
    return HuffmanBank(replace(huffman_bank(EngineConfig(array="shift", decoder="huffman")), rows=1))


def _one_decoder(notice: Callable[[str], None]) -> dict[str, Any]:
    report = synthesize_component(one_decoder(), "huffman_bank", notice=notice)
    return {"gates": report.gates.two_input, "rtl_sha256": report.rtl_sha256}


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
    "shift": (NINE, "shift", "direct", "`--scheme shift --activation-bits 9`: as wide as signed products"),
    "focused5": (NINE, "focused5", "grouped", "`--scheme focused5 --activation-bits 9`, sums shared"),
    "focused5-huffman": (NINE, "focused5-huffman", "grouped", "the same with a decoder for each output channel"),
}
"""The run that comes to a published figure: assumptions, scheme, architecture, and what it is."""


def _reproduced(counts: Counts) -> Iterator[str]:
    yield REPRODUCED_TEXT.format(
        focused=counts.ratio(EVERY, ("focused5", "direct"), ("shift", "direct")),
        abcnet=counts.ratio(EVERY, ("abcnet", "grouped"), ("shift", "grouped")),
    )
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

Every tap counted, in the structure that is named. These are chosen with the published figures in view, from 2
structures, 3 activations of LQ-Net, 2 widths of activations and 2 of coefficients; the paper states none of them. No
single structure gives all five: direct has focused at {focused:.2f} of shift, grouped has ABC-Net at {abcnet:.2f}. The
published order comes out only where ABC-Net and LQ-Net are direct and focused shares its sums. Activations of 9
unsigned bits are as wide as a signed product: a stand-in for it.
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
        "8 bits. Products that are signed numbers have nine; with activations of nine unsigned bits in their place ",
        f"(`--activation-bits 9`) it is {off('shift', 'shift', NINE)}.",
    )
    yield from bullet(
        "**ABC-Net** is clearly above all others in the papers' own arithmetic (direct): ",
        f"{off('abcnet', 'abcnet')}, and with coefficients of 8 ",
        f"bits (`--coefficient-bits 8`) {off('abcnet', 'abcnet', FEW)}. Its 25 counts of 900 bits are most of it. The ",
        f"ratio to our shift layer is {ratio('abcnet')}, as that is the ",
        "smaller one; to shift with activations of nine bits ",
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
        f"{counts.ratio('as it is', ('focused5', 'grouped'), shift):.4f} where zeros are left out, which are rarer ",
        "among focused weights: a value and its mean must cancel. So within 5 % of shift holds for the paper's count, ",
        "which skips no zeros, and for ours with them left out it is ",
        f"{counts.ratio('as it is', ('focused5', 'grouped'), shift) - 1:.2%}. Published is 1.001. Direct it is ",
        f"{counts.ratio(EVERY, ('focused5', 'direct'), ('shift', 'direct')):.2f}: ",
        "each weight is two powers of two, and ",
        "each activation is added twice. The published figure is reproduced here only by sums that the shift tree and ",
        "the trees of the means share.",
    )
    decoders = counts.ratio(EVERY, ("focused5-huffman", "grouped"), ("focused5", "grouped")) - 1
    channels = parse_layer(LAYER).shape.out_channels
    each = gates("focused5-huffman", "grouped") - gates("focused5", "grouped")
    theirs = published["focused5-huffman"] - published["focused5"]
    yield from bullet(
        f"**Huffman decoders**, one for each output channel, are {decoders:.2%} of the grouped layer, ",
        f"{published['focused5-huffman'] / published['focused5'] - 1:.2%} as published: both within 1 %. Ours is ",
        f"{each * 1e6 / channels:,.0f} gates without the registers that hold what it decodes; the published ",
        f"{theirs:.1f} M are {theirs * 1e6 / channels:,.0f} each if there is one a channel. On an engine, whose "
        "weights ",
        "are no wires, it is another matter: [below](#huffmans-share-on-an-engine).",
    )
    yield from bullet(
        f"**8-bit fixed point** costs {ratio('fixed8')} times a shift ",
        "layer where every tap has a constant multiplier, ",
        f"and {ratio('fixed8', 'grouped')} times where equal constants are grouped: 900 taps have at most 64 odd ",
        "constants. Its step is rounded up to a power of two, which leaves up to half of the codes unused. Clipped at ",
        "3 standard deviations, the same arithmetic (Bayesian Bits, 8 bits) is ",
        f"{gates('bayesian8', run='as it is'):.1f} M direct as it is, ",
        f"{counts.ratio('as it is', ('bayesian8', 'direct'), ('shift', 'direct')):.2f} times shift, where this one is ",
        f"{counts.ratio('as it is', ('fixed8', 'direct'), ('shift', 'direct')):.2f} times.",
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
    yield from bullet(ALM_NOTE)
    least, most = (pick(row["share_alm_low"] for row in result["rows"]) for pick in (min, max))
    fits = "no scheme fits it unrolled" if least > 1 else "not every scheme fits it unrolled"
    yield from bullet(
        f"The last column is how many of these devices the layer would take, {least:.1f} to {most:,.0f}: {fits}."
    )
    yield ALL_TEXT


ALM_NOTE = (
    "ALMs: ALUTs and DSP blocks by Yosys's Cyclone V flow, packed into ALMs between two bounds "
    f"([blocks.md](blocks.md)). Shares are of the {STRATIX_10_GX_2800.alms:,} ALMs of a {STRATIX_10_GX_2800.name}: "
    "an estimate, no Quartus fit."
)
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
    reference = _engine(rows, "focused5")["gates"]
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
            f"{row['gates'] / reference:.3f}",
            f"{row['engine']['utilisation']:.0%}",
            *(f"{row['engine']['gates_by_part'].get(part, 0):,}" for part in ("array", "decoder", "post lanes")),
            f"{row['equivalents']:,.0f}",
            f"{row['alms_dsp_low']:,} .. {row['alms_dsp_high']:,}",
            f"{row['dsps']:,}",
            f"{row['registers']:,}",
            f"{row['memory_bits']:,}",
            f"{row['m20ks']:,}",
            f"{row['weight_bytes']:,}",
            f"{row['coded_bytes']:,}",
            f"{row['share_alm_low']:.1%} .. {row['share_alm_high']:.1%}",
        ]
        for row in rows
    ]
    headings = [
        *("scheme", "array, decoder", "engine", "cycles", "images a cycle", "gates", "gates at target", "ratio"),
        *("as built", "utilisation", "array", "decoder", "post lanes", "gate equivalents", "ALMs with DSP", "DSP"),
        *("registers", "memory bits", "M20K", "weight bytes an image", "weight bytes, packed", "share of device"),
    ]
    yield from table(headings, lines, 3)
    refused = counts.store[ON_ENGINES]["refused"]
    for text in refused:
        yield from bullet(f"No row for {text.removeprefix('not ')}.")
    if refused:
        yield ""
    yield from ("### Where the engines' ratios come from", "", *_engine_ratios(rows), "")
    yield from ("### Huffman's share on an engine", "", *_huffman_share(rows, counts.store[ONE_DECODER]["gates"]), "")


ENGINE_TEXT = """\
## The same layer on engines

    gatewise compare --layer 3,100,100,8,8 --architecture engine    # without --architecture both tables

Weights stream at run time, and the engine is whole: array, decoder, accumulators, requantisers (the post lanes),
control. Of each array that a scheme is at home on it is the engine of the fewest gates that takes no more than
{target:,} cycles for the layer: what 8-bit fixed point takes on the default engine of 16 x 16 PEs, and 1 % more.
Sizes are powers of 2; *gates at target* are gates x cycles / {target:,}, the same throughput for all, and *ratio* is of
these, to focused quantisation in 5 bits; *as built* is the ratio of the engines' gates as they stand. Each has its
bias: the first shrinks with the cycles what would not shrink (control, post unit, addresses), so that a figure may lie
below the smallest engine that there is, and it forgives an engine that is faster than asked; the second charges for it.
Taps in the padding take their cycles here. Gates are composed of synthesised engines ([throughput.md](throughput.md)
says how, and by how much that misses). All weight bytes are fetched for every image, raw codes in containers of 1, 2, 4
or 8 bits; *packed* is what the codes take in a file.
"""


def _engine(rows: Sequence[dict[str, Any]], scheme: str, array: str | None = None) -> dict[str, Any]:
    """A scheme's row: of the array with the fewest gates at the target, unless one is named."""
    mine = [row for row in rows if row["scheme"] == scheme and array in (None, row["engine"]["array"])]
    return min(mine, key=lambda row: row["gates_at_target"])


PLACES = {"fusion": "fused", "sign": "as planes of signs", "shift": "as powers of two"}


def _engine_ratios(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Why an engine costs what it does beside focused quantisation's."""

    def row(scheme: str, array: str | None = None) -> dict[str, Any]:
        return _engine(rows, scheme, array)

    def ratio(scheme: str, array: str | None = None) -> str:
        there = any(each["scheme"] == scheme and array in (None, each["engine"]["array"]) for each in rows)
        return f"{row(scheme, array)['ratio']:.3f}" if there else "no engine"

    def size(scheme: str, array: str | None = None) -> str:
        engine = row(scheme, array)["engine"]
        return f"{engine['rows']} x {engine['lanes']}"

    def used(scheme: str, array: str | None = None) -> str:
        return f"{row(scheme, array)['engine']['utilisation']:.0%}"

    def others(scheme: str) -> Iterator[str]:
        """What a scheme of few bits comes to on arrays that are no digits."""
        mine = [each for each in rows if each["scheme"] == scheme and each["engine"]["array"] != "digit"]
        texts = [f"{each['ratio']:.3f} {PLACES[each['engine']['array']]}" for each in mine]
        yield f" ({', '.join(texts)})"

    yield from bullet(
        f"**Shift and Focused, 3, 5 and 7 bits**: {ratio('shift')}, {ratio('focused3')}, {ratio('focused5')}, ",
        f"{ratio('focused7')} by construction. A PE shifts by any exponent, so they share one engine, where unrolled ",
        "each has constants of its own; only their bytes differ.",
    )
    yield from bullet(
        f"**ABC-Net** ({ratio('abcnet')}): 5 x 5 planes are 25 passes for each MAC and need {size('abcnet')} PEs, of ",
        f"which the layer's 100 channels use {used('abcnet')}, where focused quantisation, two passes for two digits "
        "of ",
        f"an activation, uses {used('focused5')} of {size('focused5')}. **LQ-Net** takes 2 x 2 planes "
        f"({ratio('lqnet-a2')}) or 2 x 5 ({ratio('lqnet-a5')}). Activations of 8 bits ({ratio('lqnet-a8')}) are two ",
        "digits that a sign adds or subtracts, so 2 x 2 passes as well, and cost no more than those of 2 bits, where ",
        "unrolled they do.",
    )
    yield from bullet(
        f"**8-bit fixed point** ({ratio('fixed8', 'digit')} on digits, {ratio('fixed8', 'fusion')} fused) and "
        "**Bayesian ",
        f"Bits, 8 bits** ({ratio('bayesian8', 'digit')}) take 2 x 2 passes of 4-bit digits; **4 bits**, ACIQ's ",
        f"({ratio('aciq', 'digit')}) or Bayesian Bits' ({ratio('bayesian4', 'digit')}), take one. **2 bits** take one ",
        f"too ({ratio('bayesian2', 'digit')}): a digit PE has four bits whatever comes. Fused bricks make more "
        "products ",
        "of them",
        *others("bayesian2"),
        ".",
    )
    yield from bullet(
        "**Ternary weights** with 8-bit activations are two digits of activations, ",
        f"{ratio('ternary', 'digit')} on digits",
        *others("ternary"),
        "; a PE that adds, subtracts or leaves out is none of the four arrays'.",
    )
    yield from bullet(
        f"**FleXOR** ({ratio('flexor-0.4')}, {ratio('flexor-0.6')}, {ratio('flexor-0.8')}) is sized with its XOR "
        "decoder ",
        f"alone, {row('flexor-0.8')['engine']['decoder_share']:.0%} of its engine; decoded offline it would be binary ",
        "weights of one bit.",
    )
    memory = EngineConfig().act_bytes
    yield from bullet(
        "PEs are not trimmed to a scheme: each array is the general one. Depth from register to register, of the ",
        f"engines of 4 x 4 to 16 x 16 that are synthesised whole: {depths()} ",
        "([throughput.md](throughput.md#how-gates-are-composed)); no clock is claimed. ",
        f"The activation memory is the default {memory >> 20} MiB, for a layer of 6,400 activations: memory bits and ",
        "M20K are the default engine's, not the layer's need; they are no gates.",
    )
    yield from bullet(ALM_NOTE)


def shared_decoder(rows: Sequence[dict[str, Any]], bank: int, images: int) -> dict[str, float]:
    """One decoder for an engine's rows, where a fetched weight serves several images.

    So many engines as that are images run in step, each with an image of its own, and one stream of decoded weights
    goes to all. Tiles are decoded while those before them are multiplied, a code a cycle; the first is waited for.
    """
    plain, layer = _engine(rows, "focused5"), parse_layer(LAYER).shape
    engine = plain["engine"]
    tile = engine["rows"] * engine["lanes"]
    # Those that fill up a row group or a word included.
    groups = -(-layer.out_channels // engine["rows"]) * -(-layer.in_channels // engine["lanes"])
    codes = groups * tile * layer.kernel[0] * layer.kernel[1]
    cycles = max(plain["cycles"], codes) + tile
    gates = plain["gates"] + bank / images
    at_target = gates * cycles / engine["target_cycles"]
    more = gates * cycles / (plain["gates"] * plain["cycles"]) - 1
    return {"codes": codes, "cycles": cycles, "gates": gates, "at_target": at_target, "more": more}


PUBLISHED_SHARE = PUBLISHED["focused5-huffman"][1] / PUBLISHED["focused5"][1] - 1


def images_as_published(rows: Sequence[dict[str, Any]], bank: int) -> int:
    """The images a fetched weight must serve for the decoders' share to be the published one, as near as it gets."""
    return min(range(1, 101), key=lambda images: abs(shared_decoder(rows, bank, images)["more"] - PUBLISHED_SHARE))


def _huffman_share(rows: Sequence[dict[str, Any]], bank: int) -> Iterator[str]:
    """Why decoders are no 1 % of an engine, and a run with one assumption changed in which they are."""
    plain, coded = _engine(rows, "focused5"), _engine(rows, "focused5-huffman")
    engine = coded["engine"]
    built = coded["gates_at_target"] / plain["gates_at_target"] - 1
    decoders, gates = engine["gates_by_part"]["decoder"], coded["gates"]
    alone, images = shared_decoder(rows, bank, 1), images_as_published(rows, bank)
    matched = shared_decoder(rows, bank, images)
    yield from textwrap.wrap(
        f"Not within 1 % as built ({built:+.1%}), nor with one decoder for all rows ({alone['more']:+.1%}). With "
        "weights "
        f"that serve {images} images a fetch it is {matched['more']:+.2%}, where the paper has {PUBLISHED_SHARE:+.2%}.",
        118,
    )
    yield ""
    lines = [
        [
            "1, as built",
            f"{engine['rows']}, one a row",
            f"{decoders:,}",
            f"{coded['cycles']:,}",
            f"{coded['gates_at_target']:,}",
            f"{built:+.2%}",
        ]
    ]
    for each in sorted({*SHARED_BY, images}):
        found = shared_decoder(rows, bank, each)
        lines.append(
            [
                f"{each}",
                "1" if each == 1 else f"1 for {each} engines",
                f"{bank / each:,.0f}",
                f"{found['cycles']:,.0f}",
                f"{found['at_target']:,.0f}",
                f"{found['more']:+.2%}",
            ]
        )
    headings = ["images that a fetched weight serves", "decoders", "their gates an engine", "cycles"]
    yield from table([*headings, "gates at target", "to raw weights"], lines, 2)
    yield from bullet(
        f"**As built**, {decoders:,} of {gates:,} gates are decoders, {decoders / gates:.1%}. Weight bytes change by ",
        f"{coded['weight_bytes'] / plain['weight_bytes'] - 1:+.0%} as they are fetched, since raw codes of 5 bits "
        "stand ",
        f"in containers of 8, and by {coded['coded_bytes'] / plain['coded_bytes'] - 1:+.0%} from packed codes.",
    )
    yield from bullet(
        f"**One decoder** (`gatewise synth --block huffman_bank --param rows=1`) is {bank:,} gates. The layer has ",
        f"{alone['codes']:,.0f} codes a fetch, those that fill up tiles included; at one a cycle they take no longer "
        "than ",
        f"its {plain['cycles']:,} cycles: a tile of {engine['rows'] * engine['lanes']} codes is multiplied for ",
        f"{plain['cycles'] * engine['rows'] * engine['lanes'] / alone['codes']:.0f}, by every pixel of the map. So "
        "one ",
        "keeps up with an engine of this size and with none that is larger: on a map of 8 x 8 this share is a bound. ",
        "What hands a code to its row is left to the loader, which raw weights have too.",
    )
    yield from bullet(
        "**The assumption changed** is how many images a fetched weight serves: so many engines run in step, an image ",
        "each, on one stream of decoded weights. The paper's layer streams none: its decoders, if one a channel, "
        "need 900 ",
        "cycles for their channel's codes where the layer takes an image every cycle, so that theirs is the share of ",
        "weights that are decoded once for many images.",
    )
    yield from bullet(
        "The engine has a decoder a row because layers of few pixels, and linear ones, wait for their weights.",
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
    low = min(checks, key=lambda check: check["aluts_sum"] / check["aluts_flat"])
    yield CHECK_TEXT.format(
        taps=CHECKED_TAPS,
        layer=LAYER,
        gates=gates,
        aluts=aluts,
        scheme=SCHEMES[low["scheme"]].title,
        low=1 - low["aluts_sum"] / low["aluts_flat"],
    )
    headings = ["scheme", "architecture", "gates: sum", "flattened", "", "ALUTs + carry: sum", "flattened", ""]
    yield from table(headings, rows, 2)


CHECK_TEXT = """\
## The sum against a channel synthesised whole

The first {taps} taps of the first channel of the layer {layer} with seeded weights, as the sum over their modules
and flattened into one. ABC-Net is left out, whose 25 counts take minutes to flatten; LQ-Net is built of the same parts.
Sums and wholes differ by at most {gates:.1%} in gates and {aluts:.1%} in ALUTs and carry bits. Where the sum is the
smaller one, ALMs may be too low by as much: {low:.1%} ({scheme}). Gates are
not concerned. The same circuits are compared with their golden model in RTL simulation (`gatewise regress --block
unrolled`, `tests/rtl/test_unrolled.py`). That the flows count right is tested on circuits counted by hand, and stored
counts are held to the pinned tool: `tests/rtl/test_synth.py`.
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


def depths() -> str:
    """Depths of engines by array, of those that bench/throughput.py synthesises whole."""
    models = stored("throughput", "bench/throughput.py")["models"]
    counts = [count for family in models["families"].values() for count in family["counts"]] + models["checks"]
    found: dict[str, set[int]] = {}
    for count in counts:
        found.setdefault(count["config"]["array"], set()).add(count["depth"])
    return "; ".join(
        f"{array} {min(each)}" + (f" to {max(each)}" if len(each) > 1 else "") for array, each in found.items()
    )


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="what to count; the rest stays")
    parts = parser.parse_args().part
    store = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    console = Console(stderr=True)
    if parts:
        store = measured(store, parts, console)
        write_json(STORE, store)
    there = {*store.get("runs", {}), *(name for name, found in store.items() if found)}
    if left := [part for part in PARTS if part not in there]:
        console.print(f"not written, before there are parts {', '.join(left)}: {PAGE.name}")
        return
    counts = Counts(store)
    plot(counts, PLOTS)
    write_bytes(PAGE, page(counts).encode())


if __name__ == "__main__":
    main()
