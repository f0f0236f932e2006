"""Energies as text: a table for a terminal, Markdown, CSV, LaTeX; both estimates' caveats come along."""

import csv
import io
from typing import NamedTuple

from rich.console import Group
from rich.table import Table

from ..kernels.errors import FormatError
from .energy import EnergyEstimate, Range

__all__ = ["FORMS", "as_csv", "as_latex", "as_markdown", "as_table", "check_form", "nanojoules"]

_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"})


class _Lines(NamedTuple):
    """A table: what it is, its headings, text columns first, its rows, the last one a sum."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    text: int


def nanojoules(energy: Range) -> str:
    """An energy, a range where it is one, in nJ."""
    low, high = (f"{value / 1e3:,.3f}" for value in (energy.low, energy.high))
    return low if low == high else f"{low} - {high}"


def _published(found: EnergyEstimate) -> _Lines:
    rows, total = [], found.total
    for row in found.rows:
        each = row.energy.times(1 / row.count)
        cost = f"{each.low:.4f}" if each.low == each.high else f"{each.low:.1f} - {each.high:.1f}"
        shares = f"{100 * row.energy.low / total.low:.1f}" if total.low else "0"
        rows.append([row.group, row.part, row.kind, f"{row.count:,}", cost, nanojoules(row.energy), shares])
    for name, energy in (("without DRAM", found.on_chip), ("total", total)):
        share = f"{100 * energy.low / total.low:.1f}" if total.low else "0"
        rows.append([name, "", "", "", "", nanojoules(energy), share])
    engine = found.engine
    title = (
        f"{found.network} on {engine.rows} x {engine.lanes}, {engine.array} array: energy of one image, "
        f"A (published energies, {found.energies.process})"
    )
    return _Lines(title, ["level", "part", "operation", "count", "pJ each", "nJ", "% of least"], rows, 3)


def _measured(found: EnergyEstimate) -> _Lines | None:
    measured = found.measured
    if measured is None:
        return None
    rows = []
    for module in measured.modules:
        activity = module.toggles / (module.bits * measured.cycles) if module.bits else 0.0
        rows.append(
            [
                module.name,
                f"{module.gates:,}",
                f"{module.flip_flops:,}",
                f"{activity:.4f}",
                nanojoules(module.logic),
                nanojoules(module.clock),
            ]
        )
    gates, registers = (sum(getattr(module, name) for module in measured.modules) for name in ("gates", "flip_flops"))
    rows.append(["total", f"{gates:,}", f"{registers:,}", "", nanojoules(measured.logic), nanojoules(measured.clock)])
    title = f"the same logic, B (own gates, activity of {measured.images} images in co-simulation), memories apart"
    headings = ["module", "gates", "flip-flops", "toggles a bit and cycle", "logic nJ", "clock nJ"]
    return _Lines(title, headings, rows, 1)


def _summary(found: EnergyEstimate) -> list[str]:
    total, arithmetic, memory, dram = (
        found.total,
        found.of("arithmetic"),
        found.of("on-chip memory"),
        found.of("DRAM"),
    )
    lines = []
    if found.macs:
        per_mac, on_chip = total.times(1 / found.macs), found.on_chip.low / found.macs
        lines.append(
            f"{found.macs:,} MACs: {per_mac.low:.2f} - {per_mac.high:.2f} pJ a MAC, {on_chip:.2f} without DRAM"
        )
    greatest = max((dram.low, "DRAM"), (memory.low, "on-chip memory"), (arithmetic.low, "arithmetic"))[1]
    ratio = (dram.low + memory.low) / arithmetic.low if arithmetic.low else 0.0
    lines.append(f"A: the most goes to {greatest}; memories take at least {ratio:.1f} times what arithmetic does")
    if found.measured is not None:
        lines.append(
            f"B: {nanojoules(found.measured.total)} nJ for logic and clock, where A has "
            f"{nanojoules(arithmetic)} nJ for arithmetic; {nanojoules(found.measured.clock)} nJ of it is the clock of "
            f"flip-flops, {nanojoules(found.measured.gated)} where each were gated but for its changes"
        )
    return lines


def _tables(found: EnergyEstimate) -> list[_Lines]:
    return [table for table in (_published(found), _measured(found)) if table is not None]


def as_table(found: EnergyEstimate) -> Group:
    """For a terminal."""
    shown: list[Table | str] = []
    for lines in _tables(found):
        table = Table(title=lines.title, title_justify="left", header_style="bold")
        for at, name in enumerate(lines.headings):
            table.add_column(name, justify="left" if at < lines.text else "right", overflow="fold")
        for cells in lines.rows:
            table.add_row(*cells)
        shown.append(table)
    return Group(*shown, *_summary(found), *found.notes)


def as_markdown(found: EnergyEstimate) -> str:
    """Markdown, with the summary and the notes below."""
    parts = []
    for lines in _tables(found):
        rules = ["---"] * lines.text + ["---:"] * (len(lines.headings) - lines.text)
        parts += [f"{lines.title}:", ""]
        parts += [f"| {' | '.join(cells)} |" for cells in (lines.headings, rules, *lines.rows)]
        parts.append("")
    return "\n".join([*parts, *(f"* {note}" for note in (*_summary(found), *found.notes))]) + "\n"


def as_csv(found: EnergyEstimate) -> str:
    """Rows of both estimates, numbers plain; the notes are comments."""
    text = io.StringIO()
    text.writelines(f"# {note}\n" for note in found.notes)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["estimate", "level", "part", "operation", "count", "pj_low", "pj_high"])
    for row in found.rows:
        writer.writerow(["A", row.group, row.part, row.kind, row.count, row.energy.low, row.energy.high])
    for module in found.measured.modules if found.measured is not None else ():
        for what, energy in (("logic", module.logic), ("clock", module.clock)):
            count = module.toggles if what == "logic" else module.flip_flops
            writer.writerow(["B", "logic", module.name, what, count, energy.low, energy.high])
    return text.getvalue()


def as_latex(found: EnergyEstimate) -> str:
    """A tabular of each estimate for the booktabs package; the notes are comments."""
    parts: list[str] = [f"% {note}" for note in (*_summary(found), *found.notes)]
    for lines in _tables(found):
        cells = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in (lines.headings, *lines.rows)]
        columns = "l" * lines.text + "r" * (len(lines.headings) - lines.text)
        parts += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", cells[0], r"\midrule", *cells[1:], r"\bottomrule"]
        parts.append(r"\end{tabular}")
    return "\n".join(parts) + "\n"


FORMS = {"md": as_markdown, "csv": as_csv, "latex": as_latex}
"""All but the terminal's table."""


def check_form(form: str) -> None:
    """Raise `FormatError` for a form that there is not."""
    allowed = ("table", *FORMS)
    if form not in allowed:
        raise FormatError(f"--format must be one of {', '.join(allowed)}, not {form!r}")
