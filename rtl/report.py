"""Gate counts and regressions as tables for a terminal."""

from rich.console import Group
from rich.table import Table

from .regress import RegressResult, entries
from .synth import ALM_FAMILY, STRATIX_10_GX_2800, AlmCount, SynthReport

__all__ = ["regress_report", "settings_text", "synth_report"]


def settings_text(params: dict[str, int | bool | str]) -> str:
    """Settings as the command line takes them."""
    return " ".join(f"{name}={str(value).lower()}" for name, value in params.items())


def _bounds(count: AlmCount) -> str:
    low, high = count.bounds
    return f"{low:,}" if low == high else f"{low:,} .. {high:,}"


def _aluts(count: AlmCount) -> str:
    sizes = ", ".join(f"{number:,} of {size}" for size, number in count.aluts.items())
    return f"{count.alut_total:,}" + (f" ({sizes} inputs)" if sizes else "")


def synth_report(report: SynthReport) -> Group:
    """What a block costs, its modules where it has several, and what the counts were made with."""
    gates, share = report.gates, report.device_share()
    title = f"{report.block} {settings_text(report.params)}"
    table = Table("count", "value", title=title, title_justify="left", header_style="bold")
    table.add_row("two-input gates", f"{gates.two_input:,} ({_kinds(gates.by_type)})")
    table.add_row("inverters", f"{gates.inverters:,}")
    table.add_row("flip-flops", f"{gates.flip_flops:,}")
    table.add_row("gate equivalents", f"{gates.equivalents:,.1f} ({gates.transistors:,} transistors)")
    table.add_row("logic depth", f"{gates.depth:,} gates")
    table.add_section()
    for name, count in (("no DSP", report.alm), ("DSP allowed", report.alm_dsp)):
        table.add_row(f"ALUTs, {name}", _aluts(count))
        table.add_row("carry bits", f"{count.carry_bits:,}")
        table.add_row("registers", f"{count.registers:,}")
        table.add_row("ALMs", _bounds(count))
        table.add_row("DSP blocks", f"{count.dsps:,}")
        table.add_section()
    memory = report.memory
    table.add_row("memory", f"{memory.bits:,} bits: {memory.m20ks:,} M20K, {memory.mlabs:,} MLAB")
    table.add_row(
        f"share of {STRATIX_10_GX_2800.name}",
        f"{share['alm_low']:.4%} .. {share['alm_high']:.4%} of ALMs (no DSP), "
        f"{share['dsp']:.4%} of DSP blocks, {share['m20k']:.4%} of M20K",
    )
    notes = [
        f"{report.tool}; ALUTs by synth_intel_alm for {ALM_FAMILY}; counts: {report.method_text}",
        "flows: " + ", ".join(f"{name} {digest[:12]}" for name, digest in report.flows.items()),
        f"RTL {report.rtl_sha256[:12]}; no clock is claimed",
    ]
    if report.flat_check is not None:
        check = report.flat_check
        notes.append(
            f"checked at {settings_text(check.params)}: {check.gates_sum:,} gates summed, {check.gates_flat:,} "
            f"flattened; {check.aluts_sum:,} ALUTs and carry bits summed, {check.aluts_flat:,} flattened"
        )
    deep = any(len(level.path) > 1 for level in report.levels)
    parts = [_levels(report)] if deep else [_modules(report)] if report.levels else []
    return Group(table, *parts, *notes)


def _kinds(by_type: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in by_type.items())


def _modules(report: SynthReport) -> Table:
    table = Table(title="distinct modules, without their submodules", title_justify="left", header_style="bold")
    table.add_column("module")
    for column in ("instances", "gates", "inverters", "flip-flops", "ALUTs", "carry bits"):
        table.add_column(column, justify="right")
    for module in report.modules:
        counts = (module.instances, module.gates, module.inverters, module.flip_flops, module.aluts, module.carry_bits)
        table.add_row(module.name, *(f"{count:,}" for count in counts))
    return table


def _levels(report: SynthReport) -> Table:
    """Every level of the hierarchy, its instances together, and what they cost with all that is in them."""
    table = Table(title="by part, with all that is in it", title_justify="left", header_style="bold")
    table.add_column("part", overflow="fold", min_width=18)
    for column in ("instances", "gates", "flip-flops", "equivalents", "ALMs", "DSP", "memory bits", "M20K", "MLAB"):
        table.add_column(column, justify="right", no_wrap=True)
    gates, alm, memory = report.gates, report.alm, report.memory
    blocks = (memory.bits, memory.m20ks, memory.mlabs)
    rows: list[tuple[str, int, int, int, float, str, int, tuple[int, int, int]]] = [
        (
            report.block,
            1,
            gates.two_input,
            gates.flip_flops,
            gates.equivalents,
            _bounds(alm),
            report.alm_dsp.dsps,
            blocks,
        )
    ]
    for level in report.levels:
        held = level.memory
        rows.append(
            (
                "  " * len(level.path) + level.path[-1],
                level.instances,
                level.gates,
                level.flip_flops,
                level.equivalents,
                f"{level.alms_low:,} .. {level.alms_high:,}",
                level.dsps,
                (held.bits, held.m20ks, held.mlabs),
            )
        )
    for name, instances, two_input, flip_flops, equivalents, alms, dsps, blocks in rows:
        numbers = (f"{instances:,}", f"{two_input:,}", f"{flip_flops:,}", f"{equivalents:,.0f}", alms, f"{dsps:,}")
        table.add_row(name, *numbers, *(f"{count:,}" for count in blocks))
    return table


def _changed(result: RegressResult) -> dict[str, int | bool | str]:
    """The settings of a bench that are not the defaults."""
    defaults = entries()[result.block].defaults
    return {name: value for name, value in result.params.items() if value != defaults[name]}


def regress_report(results: list[RegressResult]) -> Group:
    """Every bench, then the first mismatch of those that failed."""
    table = Table(header_style="bold")
    for column in ("block", "parameters", "vectors", "cycles", "seconds", "result"):
        table.add_column(column, justify="right" if column in ("vectors", "cycles", "seconds") else "left")
    for result in results:
        table.add_row(
            result.block,
            settings_text(_changed(result)) or "defaults",
            f"{result.vectors:,}" + (" (all)" if result.exhaustive else ""),
            f"{result.cycles:,}",
            f"{result.seconds:.1f}",
            "equal" if result.passed else "DIFFERS",
            style=None if result.passed else "red",
        )
    return Group(table, *(f"{result.block}: {result.mismatch}" for result in results if not result.passed))
