"""Runs and inspections as tables for a terminal."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..kernels.nested import bops
from .activations import AverageBits
from .compile import CompiledNetwork
from .descriptor import descriptor_words
from .engine import EngineConfig
from .inspect import Inspection, WeightFacts, spread
from .run import Before, RunResult

__all__ = ["compiled_report", "inspection_report", "run_report", "terminal"]

PIPED_WIDTH = 200
"""Columns of output that goes to no terminal: nothing is cut off for want of a screen."""
UNLIMITED = 10_000
RUN_DETAIL = {
    "MMAC",
    "MBOP",
    "idle\nlanes",
    "bytes\nread",
    "compute",
    "weight\nstall",
    "post\nstall",
    "drain",
    "fill",
    "host",
}
INSPECTION_DETAIL = {"inputs", "MMAC", "MBOP", "scheme", "entropy", "parameter\nbytes", "bits to\nspare"}


def terminal() -> Console:
    """Standard output, on which names and paths are printed as they stand."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def _table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], detail: set[str]
) -> Table:
    """A table of names (the first two columns) and figures; `detail` columns are left out where they do not fit."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        if index < 2:
            table.add_column(column, overflow="fold", min_width=6)
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if detail and Measurement.get(console, console.options.update(width=UNLIMITED), table).maximum > console.width:
        kept = [index for index, column in enumerate(columns) if column not in detail]
        return _table(console, title, [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], set())
    return table


def run_report(result: RunResult, console: Console) -> Group:
    """Cycles and overflows by layer, then the run's summary."""
    engine = result.engine
    title = (
        f"{result.network.name} on {engine.rows} x {engine.lanes} x {engine.pixels}, {engine.array} array, "
        f"{engine.decoder} weights, {engine.post_lanes} post lanes, {engine.bus_bits}-bit bus: cycles of one image"
    )
    columns = (
        *("layer", "op", "MMAC", "MBOP", "idle\nlanes", "cycles", "compute", "weight\nstall", "post\nstall", "drain"),
        *("fill", "host", "utilisation", "bound by", "bytes\nread", "overflows"),
    )
    rows = []
    for layer in result.layers:
        counts = result.overflows.get(layer.name) if layer.op != "store" else None
        overflow = (
            sum(int(getattr(counts, kind).sum()) for kind in ("product", "align", "acc", "post")) if counts else 0
        )
        parts = (layer.compute, layer.weight_stall, layer.post_stall, layer.drain, layer.fill, layer.host)
        rows.append(
            (
                layer.name,
                layer.op,
                f"{layer.macs / 1e6:.3f}" if layer.macs else "",
                f"{bops([result.layer_bops[layer.name]]) / 1e6:.3f}" if layer.macs else "",
                f"{layer.idle_lanes:.3g} of {layer.lanes}" if layer.macs else "",
                f"{layer.total:,}",
                *(f"{part:,}" if part else "" for part in parts),
                f"{100 * layer.utilisation(engine):.1f} %" if layer.macs else "",
                layer.bound_by,
                f"{layer.bytes_read:,}",
                f"{overflow:,}" if counts else "",
            )
        )
    table = _table(console, title, columns, rows, RUN_DETAIL)
    besides = [_activations(result, console)] if result.counts else []
    mixed = [_mixed(result, console)] if result.mixed else []
    return Group(table, *mixed, Text("\n".join(run_summary(result))), *besides)


def _mixed(result: RunResult, console: Console) -> Table:
    """Layers of mixed widths beside themselves at one width."""
    rows = []
    for name, each in result.mixed.items():
        figures = (
            *(each.cycles, each.cycles_greatest, each.cycles_mean),
            *(each.bytes_read, each.bytes_read_greatest, each.bytes_read_mean),
            *(each.stored_bytes, each.stored_bytes_greatest, each.stored_bytes_mean),
        )
        bits = f"{each.weight_bits:.2f} x {each.activation_bits:.2f}"
        rows.append((name, bits, *(f"{figure:,}" for figure in figures)))
    kinds = [
        f"{what}{at}"
        for what in ("cycles", "bytes\nread", "bytes\nstored")
        for at in ("", " at\ngreatest", " at\nmean")
    ]
    title = (
        "layers of mixed widths (mean bits of weights x activations); all channels at the greatest, at the mean width"
    )
    return _table(console, title, ("layer", "bits", *kinds), rows, set(kinds[3:6]))


def _activations(result: RunResult, console: Console) -> Table:
    """Bits of activation codes by tensor, and their averages over all elements."""
    tensors = result.activation_bits
    ops = {node.name: node.op for node in result.network.manifest.nodes}
    rows = [
        (
            each.name,
            ops.get(each.name, "input"),
            f"{each.elements:,}",
            str(each.bits),
            f"{each.entropy:.3f}",
            f"{each.huffman:.3f}",
        )
        for each in tensors
    ]
    average = AverageBits.of(tensors)
    rows.append(("all", "", f"{average.elements:,}", "", f"{average.entropy:.3f}", f"{average.huffman:.3f}"))
    columns = ("tensor", "op", "elements", "bits", "entropy", "Huffman")
    title = f"bits of an activation code in {result.images:,} images; all: weighted by elements"
    return _table(console, title, columns, rows, set())


def run_summary(result: RunResult) -> list[str]:
    """The figures of a run, a line each."""
    lines = [f"images               {result.images:,}"]
    top1 = result.top(1)
    if top1 is not None:
        error = (top1 * (1 - top1) / result.images) ** 0.5
        lines.append(f"top-1                {100 * top1:.2f} % (standard error {100 * error:.2f})")
        top5 = result.top(5)
        if top5 is not None:
            lines.append(f"top-5                {100 * top5:.2f} %")
    mac = result.engine.mac
    lines += [
        f"cycles per image     {result.cycles_per_image:,}, utilisation {100 * result.utilisation:.1f} %",
        f"bit operations       {_bops(result.bops, result.relative_bops)}",
        f"bytes read           {result.bytes_read:,} over the bus for an image",
        f"images per second    {result.images_per_second:,.0f} at an assumed {result.engine.clock_mhz:g} MHz",
        f"datapath             product {mac.product}, align {mac.align}, acc {mac.acc} bits, {mac.overflow}",
        f"form                 {_forms(result)}",
        f"overflows            product {result.overflow('product'):,}, align {result.overflow('align'):,}, "
        f"acc {result.overflow('acc'):,}, post {result.overflow('post'):,} in all images",
    ]
    if result.before is not None:
        lines += _pruned(result, result.before)
    if result.clipped_constants:
        lines.append(
            f"constants            {result.clipped_constants:,} biases or thresholds clipped to the datapath's width"
        )
    if any(result.overflow(kind) for kind in ("product", "align", "acc")):
        lines.append(
            f"                     the codes depend on the {result.engine.lanes} lanes where a width overflows"
            + (f", in layers of mixed widths on the {result.engine.rows} rows too" if result.mixed else "")
        )
    lines.append(
        f"activation memory    {result.plan.peak_bytes:,} bytes at {result.plan.peak_node}, "
        f"of {result.engine.act_bytes:,}"
    )
    return lines


def _forms(result: RunResult) -> str:
    """In which forms the output channels of all MAC layers ran."""
    channels = {name: layer.shape.out_channels for name, layer in result.network.layers.items()}
    counts: Counter[str] = Counter()
    for name, count in channels.items():
        faithful = result.faithful_channels(name)
        counts[result.form(name)] += count - faithful
        counts["faithful"] += faithful
    total = sum(channels.values())
    parts = [f"{form} {count:,}" for form, count in counts.items() if count]
    proof = "; fast forms where it is proved that no width overflows" if counts["faithful"] < total else ""
    return f"{', '.join(parts)} of {total:,} output channels{proof}"


def _bops(count: int, share: float) -> str:
    return f"{count / 1e6:,.3f} MBOP, {100 * share:.4g} % of the network in 32 x 32 bits"


def _pruned(result: RunResult, before: Before) -> list[str]:
    """What the channels that were taken out would cost."""
    channels = ", ".join(f"{name} {count}" for name, count in before.channels.items())
    lines = [
        f"constant channels    taken out: {channels}",
        f"                     {before.bops / 1e6:,.3f} MBOP with them, {result.bops / 1e6:,.3f} without",
    ]
    if before.cycles is None or before.bytes_read is None:
        return [*lines, "                     with them the network does not fit the engine"]
    return [
        *lines,
        f"                     {before.cycles:,} cycles with them, {result.cycles_per_image:,} without",
        f"                     {before.bytes_read:,} bytes read with them, {result.bytes_read:,} without",
    ]


def compiled_report(compiled: CompiledNetwork, console: Console) -> Group:
    """Layers with their streams, and the regions of the image."""
    rows = [
        (layer.name, layer.label, f"{start:,}", f"{words:,}", str(layer.registers.get("interval", "")))
        for layer, (start, words) in zip(compiled.layers, compiled.stream_words, strict=True)
    ]
    columns = ("layer", "op", "first\nword", "words", "cycles\nper slot")
    title = f"{compiled.network.name} for {compiled.engine.rows} x {compiled.engine.lanes}"
    bytes_of_word = compiled.engine.bus_bits // 8
    lines = [
        f"descriptors          {len(compiled.layers) + 1} of {descriptor_words(compiled.engine)} words",
        f"descriptors, streams {compiled.payload_bytes:,} bytes",
        f"input                word {compiled.input_word:,}, "
        f"{(compiled.output_word - compiled.input_word) * bytes_of_word:,} bytes",
        f"result               word {compiled.output_word:,}, "
        f"{(len(compiled.image) - compiled.output_word) * bytes_of_word:,} bytes",
        f"image                {compiled.image.nbytes:,} bytes in words of {compiled.engine.bus_bits} bits",
        f"activation memory    {compiled.plan.peak_bytes:,} bytes at {compiled.plan.peak_node}, "
        f"of {compiled.engine.act_bytes:,}",
    ]
    return Group(_table(console, title, columns, rows, set()), Text("\n".join(lines)))


def _stored(facts: WeightFacts | None) -> tuple[str, str, str, str]:
    """Scheme, bits of a decoded weight, of a stored one, and the entropy where it was coded."""
    if facts is None:
        return "", "", "", ""
    scheme = facts.scheme if facts.coding == "raw" else f"{facts.scheme} {facts.coding}"
    held = "" if facts.entropy is None else f"{facts.entropy:.3f}"
    return scheme, spread(facts.widths) or str(facts.bits), f"{facts.bits_per_weight:.3f}", held


def _spare(engine: EngineConfig, margins: Sequence[Mapping[str, int | None]]) -> str:
    """The least of all layers by width, and what they are of."""
    widths = {"product": f"{engine.mac.product}", "align": f"{engine.mac.align}", "acc": f"{engine.mac.acc}"}
    least = []
    for name in margins[0]:
        known = [bits for each in margins if (bits := each[name]) is not None]
        if known:
            least.append(f"{name} {min(known)}" + (f" of {widths[name]}" if name in widths else ""))
    return (
        f"bits to spare        at least {', '.join(least)}: {engine.array} array, whatever the image is; "
        "below 0 some image may overflow"
    )


def inspection_report(found: Inspection, console: Console) -> Group:
    """Graph, widths and bytes by node, then the file's figures."""
    columns = (
        *("node", "op", "inputs", "output", "MMAC", "MBOP", "weights", "scheme", "bits", "stored\nbits"),
        *("entropy", "coded\nbytes", "parameter\nbytes", "bits to\nspare"),
    )
    rows = [
        (
            node.name,
            node.op,
            ", ".join(node.inputs),
            node.detail,
            f"{node.macs / 1e6:.3f}" if node.macs else "",
            f"{node.bops / 1e6:.3f}" if node.macs else "",
            f"{node.weights:,}" if node.weights else "",
            *_stored(node.stored),
            f"{node.coded_bytes:,}" if node.weights else "",
            f"{node.parameter_bytes:,}" if node.parameter_bytes else "",
            ""
            if node.margins is None
            else " ".join("-" if bits is None else str(bits) for bits in node.margins.values()),
        )
        for node in found.nodes
    ]
    table = _table(console, f"{found.network.name} ({found.network.scheme})", columns, rows, INSPECTION_DETAIL)
    margins = [node.margins for node in found.nodes if node.margins is not None]
    lines = [
        f"weights              {found.weights:,} in {found.coded_bytes:,} coded bytes, "
        f"{found.bits_per_weight:.3f} bits per weight",
        f"bit operations       {_bops(found.bops, found.relative_bops)}",
        *(
            [f"constant channels    {channels}; without them {found.pruned_bops / 1e6:,.3f} MBOP"]
            if (channels := ", ".join(f"{name} {count}" for name, count in found.constant_channels.items()))
            else []
        ),
        *([_spare(found.engine, margins)] if margins else []),
        f"file                 {found.file_bytes:,} bytes, of them {found.manifest_bytes:,} of manifest",
        f"float32              {found.float_bytes:,} bytes: {found.compression:.2f} times the file",
    ]
    lines += [f"{key:<20} {value}" for key, value in found.network.manifest.provenance.items()]
    return Group(table, Text("\n".join(lines)))
