"""A sweep of widths as text: tables for a terminal, Markdown, CSV, LaTeX; and as a plot."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.console import Group
from rich.table import Table

from ..kernels.errors import FormatError, ToolMissingError
from .atomic import write_bytes
from .text_tables import csv_text, latex_table, markdown_table
from .width_sweep import CRITERIA, WidthPoint, WidthSweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FORMS",
    "LEAST_HEADINGS",
    "POINT_HEADINGS",
    "Curve",
    "Panel",
    "as_csv",
    "as_latex",
    "as_markdown",
    "as_table",
    "check_plot",
    "draw_panels",
    "least_rows",
    "notes",
    "panel",
    "plot",
    "point_row",
    "write_figure",
]

PLOTS = (".png", ".svg")
POINT_HEADINGS = (
    *("align", "acc", "overflow", "top-1 %", "SE", "changed", "products lost", "% of them", "most in"),
    *("sums lost", "% of them", "most in", "row gates", "flip-flops", "row ALMs", ""),
)
POINT_TEXT = 3
LEAST_HEADINGS = (
    "overflow",
    "enough is that",
    "what",
    "align",
    "acc",
    "top-1 %",
    "row gates",
    "saved",
    "row ALMs",
    "saved",
)
LEAST_TEXT = 3


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _share(share: float) -> str:
    return f"{100 * share:.2g}" if share else ""


def point_row(found: WidthSweep, point: WidthPoint) -> list[str]:
    """A point's cells, `POINT_HEADINGS`; nothing where nothing overflowed and where no row was synthesised."""
    mac, cost = point.mac, found.costs.get(point.mac)
    cells = [str(mac.align), str(mac.acc), mac.overflow]
    cells += [_percent(found.top1(point)), _percent(found.error(point)), str(found.changed(point) or "")]
    for kind in ("align", "acc"):
        name, most = point.worst(kind)
        lost = point.overflow(kind)
        cells += [f"{lost:,}" if lost else "", _share(found.share(point, kind)), f"{name} ({most:,})" if most else ""]
    cells += (
        ["", "", ""]
        if cost is None
        else [f"{cost.gates:,}", str(cost.flip_flops), _alms(cost.alms_low, cost.alms_high)]
    )
    return [*cells, "proved" if point.proved else ""]


def _alms(low: int, high: int) -> str:
    return f"{low:,} .. {high:,}"


def least_rows(found: WidthSweep) -> list[list[str]]:
    """The least widths by each criterion, and what a row saves with them against the engine's, `LEAST_HEADINGS`."""
    rows, whole = [], found.costs.get(found.reference.mac)
    for mode in found.modes:
        for criterion, text in CRITERIA.items():
            for what, mac in found.least(criterion, mode)._asdict().items():
                if mac is None:
                    rows.append([mode, text, what, *["none"] * 2, *[""] * 5])
                    continue
                cost = found.costs.get(mac)
                cells = [mode, text, what, str(mac.align), str(mac.acc), _percent(found.top1(found.by_mac[mac]))]
                if cost is None or whole is None:
                    rows.append([*cells, *[""] * 4])
                    continue
                gates = 1 - cost.gates / whole.gates
                alms = 1 - (cost.alms_low + cost.alms_high) / (whole.alms_low + whole.alms_high)
                cells += [f"{cost.gates:,}", f"{gates:.1%}", _alms(cost.alms_low, cost.alms_high), f"{alms:.1%}"]
                rows.append(cells)
    return rows


def notes(found: WidthSweep) -> list[str]:
    """What the figures are of, a line each."""
    mac, point = found.reference.mac, found.reference
    held = "" if point.clean else ", where something overflows"
    run = len(found.points) - found.proved
    lines = [
        f"{found.network.name}, {found.images:,} images; the engine's widths: align {mac.align}, acc {mac.acc}, "
        f"{mac.overflow}, product {mac.product}: top-1 {_percent(found.top1(point))} % "
        f"(standard error {_percent(found.error(point))}){held}"
    ]
    if found.float_top1 is not None:
        images = found.network.manifest.provenance.get("float_images")
        lines[0] += f"; float {_percent(found.float_top1)} %" + (f" on {images} images" if images is not None else "")
    if not found.events or not any(each.align for each in found.events.values()):
        lines.append("this array's rows are exact: no product is aligned, and the alignment's width changes nothing")
    lines += [
        f"{found.proved} of {len(found.points)} points proved: nothing can overflow there, whatever the image; {run} "
        f"run, for which {found.layer_runs:,} of {found.layer_points:,} layers had to be computed step by step",
        "changed: images whose prediction is another than at the engine's widths; products and sums lost: those that "
        "did not fit align and acc, summed over all images",
        "least align with the engine's acc, least acc with its align, and both together; of the grid, and enough at "
        "all wider ones too",
    ]
    if found.costs:
        lines.append(
            f"row: {found.engine.lanes} PEs with alignment, adder tree, accumulator and their registers "
            f"(gatewise synth --block dot), two-input gates and ALMs; an engine has {found.engine.rows} of them here"
        )
    return lines


def as_table(found: WidthSweep) -> Group:
    """For a terminal: top-1 of every point, the points along each width, and the least widths."""
    shown: list[Any] = []
    aligns = found.widths("align")
    for mode in found.modes:
        table = Table(
            title=f"top-1 %, {mode}; = nothing overflowed, # proved", title_justify="left", header_style="bold"
        )
        table.add_column("acc", justify="right")
        for align in aligns:
            table.add_column(f"align {align}", justify="right")
        # Widths that make no difference are one row.
        rows: list[tuple[int, int, list[str]]] = []
        for acc in reversed(found.widths("acc")):
            points = [
                found.by_mac[replace(found.reference.mac, align=align, acc=acc, overflow=mode)] for align in aligns
            ]
            cells = [_percent(found.top1(point)) + _mark(point) for point in points]
            if rows and rows[-1][2] == cells:
                rows[-1] = acc, rows[-1][1], cells
            else:
                rows.append((acc, acc, cells))
        for low, high, cells in rows:
            table.add_row(str(low) if low == high else f"{low}..{high}", *cells)
        shown.append(table)
    for mode in found.modes:
        names: tuple[Literal["align", "acc"], ...] = ("align", "acc")
        for name in names:
            points = found.cut(name, mode)
            table = Table(title=f"along {name}, {mode}", title_justify="left", header_style="bold")
            for heading in POINT_HEADINGS:
                table.add_column(heading, justify="right", overflow="fold")
            for point in points:
                table.add_row(*point_row(found, point))
            shown.append(table)
    table = Table(title="how many bits are enough", title_justify="left", header_style="bold")
    for at, heading in enumerate(LEAST_HEADINGS):
        table.add_column(heading, justify="left" if at < LEAST_TEXT else "right", overflow="fold")
    for cells in least_rows(found):
        table.add_row(*cells)
    return Group(*shown, table, *notes(found))


def _mark(point: WidthPoint) -> str:
    return "#" if point.proved else "=" if point.clean else " "


def _rows(found: WidthSweep) -> list[list[str]]:
    return [point_row(found, point) for point in found.points]


def as_markdown(found: WidthSweep) -> str:
    """Every point and the least widths, with the notes below."""
    parts = [
        markdown_table(POINT_HEADINGS, _rows(found), POINT_TEXT),
        markdown_table(LEAST_HEADINGS, least_rows(found), LEAST_TEXT),
        "".join(f"* {note}\n" for note in notes(found)),
    ]
    return "\n".join(parts)


def as_csv(found: WidthSweep) -> str:
    """Every point as in the JSON form, numbers plain."""
    rows = []
    for point in found.to_json()["points"]:
        cost = point.pop("row") or {}
        rows.append(
            point
            | {
                f"row_{name}": cost.get(name)
                for name in ("gates", "flip_flops", "equivalents", "alms_low", "alms_high")
            }
        )
    return csv_text(rows)


def as_latex(found: WidthSweep) -> str:
    """Every point and the least widths; the notes are comments."""
    comments = "".join(f"% {note}\n" for note in notes(found))
    least = latex_table(LEAST_HEADINGS, least_rows(found), LEAST_TEXT)
    return comments + latex_table(POINT_HEADINGS, _rows(found), POINT_TEXT) + least


FORMS = {"md": as_markdown, "csv": as_csv, "latex": as_latex}
"""All but the terminal's tables."""


def check_plot(path: Path | None) -> None:
    """Raise an error where a plot cannot be drawn: before hours of work, not after."""
    from importlib.util import find_spec

    if path is None:
        return
    if path.suffix not in PLOTS:
        raise FormatError(f"--plot must be a file of {' or '.join(PLOTS)}, not {path.name}")
    if find_spec("matplotlib") is None:
        raise ToolMissingError("plots need matplotlib: pip install 'gatewise[plot]'")


class Curve(NamedTuple):
    """Points of one overflow mode along a width: top-1 and its standard error, shares; gates where a row is counted."""

    mode: str
    widths: list[int]
    top1: list[float]
    errors: list[float]
    gates: list[int | None]


class Panel(NamedTuple):
    """What is drawn along one width; `held` is the other one, `least` the widths that are enough by each criterion."""

    name: Literal["align", "acc"]
    held: int
    curves: list[Curve]
    least: dict[str, int]
    lanes: int


def panel(found: WidthSweep, name: Literal["align", "acc"]) -> Panel:
    """A sweep along one width; what is enough is of its first overflow mode."""
    curves, held = [], 0
    for mode in found.modes:
        points = found.cut(name, mode)
        held = getattr(points[0].mac, "acc" if name == "align" else "align")
        costs = [found.costs.get(point.mac) for point in points]
        curves.append(
            Curve(
                mode,
                [getattr(point.mac, name) for point in points],
                [found.top1(point) for point in points],
                [found.error(point) for point in points],
                [None if cost is None else cost.gates for cost in costs],
            )
        )
    least = {}
    for criterion, text in CRITERIA.items():
        mac = getattr(found.least(criterion, found.modes[0]), name)
        if mac is not None:
            least[text] = getattr(mac, name)
    return Panel(name, held, curves, least, found.engine.lanes)


def draw_panels(figure: "Figure", panels: Sequence[Panel], float_top1: float | None = None) -> None:
    """Top-1 above, a curve for each overflow mode, and gates of a row below; a column for each panel."""
    from matplotlib.ticker import MaxNLocator

    columns = figure.subplots(2, len(panels), sharex="col", height_ratios=(2, 1), squeeze=False)
    for at, each in enumerate(panels):
        accuracy, gates = columns[:, at]
        for colour, curve in zip(("C0", "C3"), each.curves, strict=False):
            top1, errors = ([100 * value for value in values] for values in (curve.top1, curve.errors))
            style: dict[str, Any] = {"color": colour, "markersize": 3, "linewidth": 1, "label": curve.mode}
            accuracy.errorbar(curve.widths, top1, errors, fmt="o-", capsize=2, **style)
            counted = [pair for pair in zip(curve.widths, curve.gates, strict=True) if pair[1] is not None]
            if counted:
                gates.plot(*zip(*counted, strict=True), "o-", **style)
        gates.set_ylim(0, 1.1 * gates.get_ylim()[1])
        # Criteria that one width meets are one line.
        enough: dict[int, list[str]] = {}
        for text, width in each.least.items():
            enough.setdefault(width, []).append(text)
        for line, (width, texts) in zip((":", "--", "-."), enough.items(), strict=False):
            label = f"{width} bits: " + ";\n".join(texts)
            accuracy.axvline(width, color="0.4", linestyle=line, linewidth=1, label=label)
        if float_top1 is not None:
            accuracy.axhline(100 * float_top1, color="0.7", linewidth=1, label="float network")
        what, other = ("alignment", "accumulator") if each.name == "align" else ("accumulator", "alignment")
        accuracy.set_ylabel("top-1, % (bars: standard error)")
        gates.set_ylabel(f"two-input gates of a row\nof {each.lanes} PEs")
        gates.set_xlabel(f"{what} width, bits ({other}: {each.held} bits)")
        gates.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (accuracy, gates):
            axes.grid(alpha=0.3, linewidth=0.5)
        accuracy.legend(fontsize=6, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def plot(found: WidthSweep, path: Path) -> None:
    """Accuracy and gates against both widths as a .png or .svg file; needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    draw_panels(figure, [panel(found, "align"), panel(found, "acc")], found.float_top1)
    figure.suptitle(f"{found.network.name}, {found.images:,} images: widths of the datapath", fontsize=10)
    write_figure(figure, path)


def write_figure(figure: "Figure", path: Path) -> None:
    """The same picture has the same bytes: no date, no random identifiers."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    content = BytesIO()
    with rc_context({"svg.hashsalt": "gatewise"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(content, format=path.suffix[1:], dpi=130, metadata=metadata)
    write_bytes(path, content.getvalue())
