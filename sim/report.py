"""Runs and inspections as tables for a terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .inspect import Inspection
from .run import RunResult

__all__ = ["inspection_report", "run_report"]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=index < 2)
    return table


def run_report(result: RunResult) -> Group:
    """Cycles and overflows by layer, then the run's summary."""
    engine = result.engine
    table = _table(
        f"{result.network.name} on {engine.rows} x {engine.lanes} x {engine.pixels}, "
        f"{engine.post_lanes} post lanes, {engine.bus_bits}-bit bus: cycles of one image",
        *("layer", "op", "MMAC", "cycles", "compute", "weight stall", "post stall", "drain", "fill", "host"),
        *("utilisation", "bound by", "overflows"),
    )
    for layer in result.layers:
        counts = result.overflows.get(layer.name) if layer.op != "store" else None
        overflow = (
            sum(int(getattr(counts, kind).sum()) for kind in ("product", "align", "acc", "post")) if counts else 0
        )
        parts = (layer.compute, layer.weight_stall, layer.post_stall, layer.drain, layer.fill, layer.host)
        table.add_row(
            layer.name,
            layer.op,
            f"{layer.macs / 1e6:.3f}" if layer.macs else "",
            f"{layer.total:,}",
            *(f"{part:,}" if part else "" for part in parts),
            f"{100 * layer.utilisation(engine):.1f} %" if layer.macs else "",
            layer.bound_by,
            f"{overflow:,}" if counts else "",
        )
    return Group(table, Text("\n".join(run_summary(result))))


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
        f"images per second    {result.images_per_second:,.0f} at an assumed {result.engine.clock_mhz:g} MHz",
        f"datapath             product {mac.product}, align {mac.align}, acc {mac.acc} bits, {mac.overflow}; "
        f"faithful kernels",
        f"overflows            product {result.overflow('product'):,}, align {result.overflow('align'):,}, "
        f"acc {result.overflow('acc'):,}, post {result.overflow('post'):,} in all images",
    ]
    if any(result.overflow(kind) for kind in ("product", "align", "acc")):
        lines.append(
            f"                     the codes depend on the {result.engine.lanes} lanes where a width overflows"
        )
    lines.append(
        f"activation memory    {result.plan.peak_bytes:,} bytes at {result.plan.peak_node}, "
        f"of {result.engine.act_bytes:,}"
    )
    return lines


def inspection_report(found: Inspection) -> Group:
    """Graph, widths and bytes by node, then the file's figures."""
    table = _table(
        f"{found.network.name} ({found.network.scheme})",
        *("node", "op", "inputs", "output", "MMAC", "weights", "bits", "coded bytes", "parameter bytes"),
    )
    for node in found.nodes:
        table.add_row(
            node.name,
            node.op,
            ", ".join(node.inputs),
            node.detail,
            f"{node.macs / 1e6:.3f}" if node.macs else "",
            f"{node.weights:,}" if node.weights else "",
            str(node.weight_bits) if node.weights else "",
            f"{node.coded_bytes:,}" if node.weights else "",
            f"{node.parameter_bytes:,}" if node.parameter_bytes else "",
        )
    lines = [
        f"weights              {found.weights:,} in {found.coded_bytes:,} coded bytes, "
        f"{found.bits_per_weight:.3f} bits per weight",
        f"file                 {found.file_bytes:,} bytes, of them {found.manifest_bytes:,} of manifest",
        f"float32              {found.float_bytes:,} bytes: {found.compression:.2f} times the file",
    ]
    lines += [f"{key:<20} {value}" for key, value in found.network.manifest.provenance.items()]
    return Group(table, Text("\n".join(lines)))
