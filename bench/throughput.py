"""Networks on equal silicon, silicon at equal throughput, and a 4 x 4 engine; writes docs/throughput.md and its plots.

    python bench/throughput.py                # counts what is not in the synthesis cache, and writes everything
    python bench/throughput.py --part tiny    # measures a part; the rest stays as it is stored
    python bench/throughput.py --part         # writes the page and its plots of what is stored

About eleven minutes on two cores from an empty cache, nearly all of it for the part `models`.
"""

import argparse
import json
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from gates import ALM_NOTE, bullet, table
from gatewise.rtl.compare_engine import Models
from gatewise.rtl.compare_network import (
    Goal,
    NetworkComparison,
    Subject,
    compare_networks,
    default_budget,
    file_subject,
    shape_subjects,
)
from gatewise.rtl.engine_cost import CHECKED, SAMPLES, UNITS, CostModel
from gatewise.rtl.engine_count import EngineCount, Wanted, count_engines
from gatewise.rtl.synth import STRATIX_10_GX_2800
from gatewise.sim.atomic import write_bytes, write_json
from gatewise.sim.energy import estimate
from gatewise.sim.engine import Array, EngineConfig
from paths import ROOT, TRAINED, TRAINED_NETWORKS
from progress import progress
from rich.console import Console

PAGE, STORE, PLOTS = ROOT / "docs" / "throughput.md", ROOT / "docs" / "throughput.json", ROOT / "docs" / "throughput"
BASE = "digit-raw"
FAMILIES = (BASE, "fusion-raw", "shift-raw", "shift-huffman", "sign-raw", "sign-xor")
"""Arrays and decoders that the schemes need."""
BUDGETED = {
    "resnet18": ("bayesian4", "fixed8", "shift", "focused5", "flexor-0.8", "lqnet-a2"),
    "resnet50": ("bayesian4", "focused5"),
}
"""Schemes by shape."""
ARRAYS: dict[str, tuple[Array, ...]] = dict.fromkeys(("bayesian4", "fixed8"), ("digit", "fusion"))
"""Of schemes whose large networks are not tried on all arrays: sign and shift arrays take integers bit by bit."""
ACT_BYTES = {"resnet18": 2 << 20, "resnet50": 8 << 20}
IN_LESS = "resnet50 in 4 MiB"
"""The entry of ResNet-50 with `LESS` on the one array and with the one scheme that are tried in it."""
LESS: tuple[str, Array, int] = ("bayesian4", "digit", 4 << 20)
IMAGES_PER_SECOND = 30
TINY = "4x4"
MADE_FOR_IT = {"pixels": 64, "act_bytes": 1 << 17, "bus_bits": 32}
"""What the smaller one of the two engines that docs/energy.md has for ResNet-8 has less of."""
TINY_SCHEMES = (
    "bayesian4", "fixed8", "shift", "focused5", "focused5-huffman", "flexor-0.8", "lqnet-a2", "abcnet", "ternary",
)  # fmt: skip
PARTS = ("models", "silicon", "trained", "speed", "tiny")


def measured(store: dict[str, Any], parts: Sequence[str], console: Console) -> dict[str, Any]:
    """What the parts find, in its place in the store."""
    found = dict(store)
    with progress(console, "throughput") as notice:
        for part in parts:
            start = time.perf_counter()
            found[part] = RUNS[part](found, notice)
            console.print(f"{part}: {time.perf_counter() - start:.0f} s")
    return found


def models_of(store: dict[str, Any]) -> Models:
    """The stored cost models."""
    base = CostModel.from_json(store["models"]["families"][BASE] | {"like": None})
    made = {}
    for name, content in store["models"]["families"].items():
        model = CostModel.from_json(content | {"like": None})
        made[tuple(name.split("-"))] = base if name == BASE else replace(model, like=base)
    return Models(made)  # type: ignore[arg-type]


@cache
def _subjects(shape: str) -> list[Subject]:
    """The networks of a shape, whose cycles two parts need."""
    return shape_subjects(shape, BUDGETED[shape])


def _models(_: dict[str, Any], notice: Callable[[str], None]) -> dict[str, Any]:
    models = Models(notice=notice)
    families = {}
    for name in FAMILIES:
        array, decoder = name.split("-")
        content = models.of(array, decoder).to_json()  # type: ignore[arg-type]
        families[name] = {"counts": content["counts"], "units": content["units"]}
    checked = [
        Wanted(EngineConfig(array=array, decoder=decoder, rows=rows, lanes=lanes, post_lanes=post_lanes))
        for (array, decoder), sizes in CHECKED.items()
        for rows, lanes, post_lanes in sizes
    ]
    return {"families": families, "checks": [count.to_json() for count in count_engines(checked, notice=notice)]}


def _silicon(store: dict[str, Any], notice: Callable[[str], None]) -> dict[str, Any]:
    models = models_of(store)
    goal = Goal("gates", default_budget(models))
    found = {shape: _compared(shape, goal, models, notice) for shape in BUDGETED}
    scheme, array, act_bytes = LESS
    subject = _subjects("resnet50")[BUDGETED["resnet50"].index(scheme)]
    less = compare_networks([subject], goal, arrays=(array,), act_bytes=act_bytes, models=models, notice=notice)
    return found | {IN_LESS: less.to_json()}


def _compared(shape: str, goal: Goal, models: Models, notice: Callable[[str], None]) -> dict[str, Any]:
    """The networks of a shape, each on its arrays."""
    found = NetworkComparison(goal, ACT_BYTES[shape])
    for subject, scheme in zip(_subjects(shape), BUDGETED[shape], strict=True):
        each = compare_networks(
            [subject], goal, arrays=ARRAYS.get(scheme, ()), act_bytes=ACT_BYTES[shape], models=models, notice=notice
        )
        found.rows.extend(each.rows)
        found.refused.extend(each.refused)
    return found.to_json()


def _trained(store: dict[str, Any], notice: Callable[[str], None]) -> dict[str, Any]:
    models = models_of(store)
    subjects = [Subject(title, file_subject(TRAINED / f"{file}.gw").make) for title, file in TRAINED_NETWORKS.items()]
    return compare_networks(subjects, Goal("gates", default_budget(models)), models=models, notice=notice).to_json()


def _speed(store: dict[str, Any], notice: Callable[[str], None]) -> dict[str, Any]:
    goal = Goal("images_per_second", IMAGES_PER_SECOND)
    return _compared("resnet18", goal, models_of(store), notice)


def _tiny(store: dict[str, Any], notice: Callable[[str], None]) -> dict[str, Any]:
    goal = Goal.of_size(TINY, EngineConfig().clock_mhz)
    subjects = shape_subjects("resnet8", TINY_SCHEMES)
    found = compare_networks(subjects, goal, models=models_of(store), notice=notice)
    makers = {subject.name: subject.make for subject in subjects}
    result = found.to_json()
    for row, content in zip(found.rows, result["rows"], strict=True):
        engine = row.sized.engine
        smaller = EngineConfig(**{**engine.model_dump(), "mac": engine.mac, **MADE_FOR_IT})
        for name, each in (("energy_pj", engine), ("energy_smaller_pj", smaller)):
            energy = estimate(makers[row.network](each), each).total
            content[name] = [energy.low, energy.high]
    return result


RUNS: dict[str, Callable[[dict[str, Any], Callable[[str], None]], dict[str, Any]]] = {
    "models": _models,
    "silicon": _silicon,
    "trained": _trained,
    "speed": _speed,
    "tiny": _tiny,
}


def page(store: dict[str, Any]) -> str:
    """The page."""
    sections = (_head, _silicon_section, _trained_section, _speed_section, _tiny_section, _models_section)
    return "\n".join(line for section in sections for line in section(store)).rstrip() + "\n"


HEAD = """\
# Throughput and silicon

Written by `python bench/throughput.py` (`make gates`).

What a weight scheme is worth on an engine: images per second of engines that cost the same, and the gates of engines
that are equally fast. Unlike the unrolled layers of [gates.md](gates.md), weights stream at run time; every engine is
whole: array, decoder, accumulators, post lanes, control.

* **Cycles** are those of `sim.cycles`, which co-simulation holds to the RTL's own counter, of the networks as they are
  compiled, Huffman and XOR schedules of their own streams included; load and store of an image count.
* **Engines** are searched over rows, lanes and post lanes Q (powers of two) and over raw and coded weights; P, bus and
  latency are the default engine's: {pixels} accumulators a row and half, {bus} bits, {latency} cycles.
* **Gates** are two-input gates after technology mapping, composed of synthesised engines (below); memories are bits and
  M20K blocks. ALMs are with DSP blocks, which take the multipliers of post lanes and PEs.
{alms}
* **Images per second** are at {clock:g} MHz for all engines: an assumption. No clock is claimed for any.
* Networks of known shapes have seeded weights: the schemes' own formulas on Gaussian ones; first and last layer have 8
  bits in all. What the arrays make of them is exact; accuracy is in [results.md](results.md).
* **FleXOR** with raw weights is *decoded offline*: binary weights of one bit each, no XOR network. Its decoder is in
  the rows whose decoder is xor.

Tool: {tool}; flows: {flows}.
"""


def _head(store: dict[str, Any]) -> Iterator[str]:
    speed, engine = store["speed"], EngineConfig()
    flow_text = ", ".join(f"`{name}` {digest[:12]}" for name, digest in speed["flows"].items())
    yield HEAD.format(
        alms="\n".join(bullet(ALM_NOTE)),
        pixels=engine.pixels,
        bus=engine.bus_bits,
        latency=engine.bus_latency,
        clock=speed["clock_mhz"],
        tool=speed["tool"],
        flows=flow_text,
    )


COMMAND_WIDTH = 116
Columns = dict[str, Callable[[dict[str, Any]], str]]

COLUMNS: Columns = {
    "network": lambda row: row["network"] + _offline(row),
    "array": lambda row: row["array"],
    "decoder": lambda row: row["decoder"],
    "engine": lambda row: f"{row['rows']} x {row['lanes']}, Q {row['post_lanes']}",
    "images/s": lambda row: f"{row['images_per_second']:,.1f}",
    "cycles": lambda row: f"{row['cycles']:,}",
    "utilisation": lambda row: f"{row['utilisation']:.1%}",
    "gates": lambda row: f"{row['gates']:,}",
    "array's": lambda row: f"{row['gates_by_part']['array'] / row['gates']:.0%}",
    "decoder's": lambda row: f"{row['decoder_share']:.1%}",
    "post lanes'": lambda row: f"{row['gates_by_part']['post lanes'] / row['gates']:.0%}",
    "ALMs": lambda row: f"{row['alms_dsp_low']:,} .. {row['alms_dsp_high']:,}",
    "share of device": lambda row: "{:.1%} .. {:.1%}".format(
        *(row[f"alms_dsp_{bound}"] / STRATIX_10_GX_2800.alms for bound in ("low", "high"))
    ),
    "DSP": lambda row: f"{row['dsps']:,}",
    "memory bits": lambda row: f"{row['memory_bits']:,}",
    "M20K": lambda row: f"{row['m20ks']:,}",
    "bytes an image": lambda row: f"{row['bytes_read']:,}",
}
GOAL_COLUMNS: Columns = {"gates at goal": lambda row: f"{row['gates_at_target']:,}"}
ENERGY_COLUMNS: Columns = {
    "energy an image, uJ": lambda row: "{:,.1f} .. {:,.1f}".format(*(e / 1e6 for e in row["energy_pj"]))
}


def _rows(
    rows: Sequence[dict[str, Any]], more: dict[str, Callable[[dict[str, Any]], str]] | None = None
) -> Iterator[str]:
    columns = COLUMNS | (more or {})
    yield from table(list(columns), [[text(row) for text in columns.values()] for row in rows], 4)


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest row of each network."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["cycles"]):
        found.setdefault(row["network"], row)
    return found


def _scheme(row: dict[str, Any]) -> str:
    return row["network"].partition("-")[2] + _offline(row)


def _offline(row: dict[str, Any]) -> str:
    """What is said of encrypted weights that no decoder of the engine's decrypts."""
    return ", decoded offline" if "flexor" in row["network"].lower() and row["decoder"] == "raw" else ""


def _command(*parts: str) -> Iterator[str]:
    """A command of these options, in a block of lines as a shell takes them."""
    lines = ["    gatewise compare"]
    for part in parts:
        if len(lines[-1]) + len(part) > COMMAND_WIDTH:
            lines[-1] += " \\"
            lines.append("       ")
        lines[-1] += f" {part}"
    yield from lines


def _commands(shape: str, *options: str) -> Iterator[str]:
    """What makes the rows of a shape: schemes that are tried on the same arrays are one command."""
    by_arrays: dict[tuple[Array, ...], list[str]] = {}
    for scheme in BUDGETED[shape]:
        by_arrays.setdefault(ARRAYS.get(scheme, ()), []).append(scheme)
    for arrays, schemes in by_arrays.items():
        named = [*(f"--scheme {scheme}" for scheme in schemes), *(f"--array {array}" for array in arrays)]
        yield from _command(f"--shape {shape}", *options, *named)


def _refused(result: dict[str, Any]) -> Iterator[str]:
    """What has no row in a table."""
    for text in result["refused"]:
        yield from bullet(f"No row for {text.removeprefix('not ')}.")


def _silicon_section(store: dict[str, Any]) -> Iterator[str]:
    budget = next(iter(store["silicon"].values()))["value"]
    yield from (
        "## Throughput at equal gates",
        "",
        f"{budget:,.0f} gates: the default engine's, 16 x 16 with a digit array and Q 8. For each network the fastest "
        "engine of",
        "every array that is tried (integers of these large networks on multipliers alone):",
        "",
        *_commands("resnet18"),
        *_commands("resnet50"),
        "",
        "![images per second at equal gates](throughput/silicon.svg)",
        "",
    )
    scheme, array, act_bytes = LESS
    (less,), more = store["silicon"][IN_LESS]["rows"], store["silicon"]["resnet50"]["rows"]
    (same,) = (row for row in more if row["network"] == less["network"] and row["array"] == array)
    yield from bullet(
        f"ResNet-50 is shown with {same['act_bytes'] >> 20} MiB of activation memory, which hold it in every scheme "
        "that is tried. In ",
        f"{act_bytes >> 20} MiB (`--act-bytes {act_bytes} --scheme {scheme} --array {array}`) {scheme} makes ",
        f"{less['images_per_second']:,.1f} images a second on {array}s, where it makes "
        f"{same['images_per_second']:,.1f} ",
        "in the larger one: layers whose operands share a bank of the memory wait for each other.",
    )
    if all(
        row["decoder"] == "raw"
        for result in (*store["silicon"].values(), store["trained"], store["speed"])
        for row in result["rows"]
    ):
        yield from bullet(
            "Coded weights were searched as well, where a network has them: raw ones won in every row of this and of "
            "the "
            "next two tables, since gates decide here and bytes do not."
        )
    yield ""
    for shape, result in store["silicon"].items():
        yield from (
            f"### {shape.partition(' ')[0]}, 224 x 224, {result['act_bytes'] >> 20} MiB of activation memory",
            "",
        )
        yield from _rows(result["rows"])
        yield from _refused(result)
        if shape == IN_LESS:
            yield ""
            continue
        best = list(_best(result["rows"]).values())
        first, last = best[0], best[-1]
        yield from bullet(
            f"The fastest is {_scheme(first)} on a {first['array']} array, {first['images_per_second']:,.1f} images a "
            f"second; the slowest of the best, {_scheme(last)} on {last['array']}, makes "
            f"{last['images_per_second']:,.1f}."
        )
        yield ""


def _trained_section(store: dict[str, Any]) -> Iterator[str]:
    yield from (
        "## The same of trained networks",
        "",
        "ResNet-20s on CIFAR-10 (`bench/trained`), within the same budget; their accuracies are in "
        "[results.md](results.md).",
        "",
        *_command(*(f"--network bench/trained/{file}.gw" for file in TRAINED_NETWORKS.values())),
        "",
    )
    yield from _rows(store["trained"]["rows"])
    yield from _refused(store["trained"])
    if store["trained"]["refused"]:
        yield ""


def _speed_section(store: dict[str, Any]) -> Iterator[str]:
    rows = store["speed"]["rows"]
    yield from (
        "## Gates at equal throughput",
        "",
        f"ResNet-18 at {IMAGES_PER_SECOND} images a second: of each array the engine of the fewest gates that is fast "
        "enough. Sizes are",
        "powers of two and never hit a speed exactly: *gates at goal* are gates x cycles, by the cycles that the goal "
        "allows.",
        "That also scales what does not grow with an engine (control, post unit, addresses), to the good of those that "
        "are",
        "faster than asked; *gates* are of the engines as they stand.",
        "",
        *_commands("resnet18", f"--images-per-second {IMAGES_PER_SECOND}"),
        "",
        "![gates at equal throughput](throughput/speed.svg)",
        "",
    )
    yield from _rows(rows, GOAL_COLUMNS)
    yield from _refused(store["speed"])
    least, most = (pick(rows, key=lambda row: row["gates_at_target"]) for pick in (min, max))
    yield from bullet(
        f"At one speed engines differ by a factor of {most['gates_at_target'] / least['gates_at_target']:.1f}: from "
        f"{least['gates_at_target']:,} gates ({_scheme(least)}, {least['array']}) to {most['gates_at_target']:,} "
        f"({_scheme(most)}, {most['array']}). As they are built it is {most['gates'] / least['gates']:.1f} "
        f"({most['gates']:,} / {least['gates']:,})."
    )
    yield ""


def _tiny_section(store: dict[str, Any]) -> Iterator[str]:
    rows = store["tiny"]["rows"]
    fast, slow = (pick(rows, key=lambda row: row["cycles"]) for pick in (min, max))
    yield from (
        "## A 4 x 4 engine on MLPerf Tiny's ResNet-8",
        "",
        "The IoT case: the image classifier of MLPerf Tiny (CIFAR-10, 77,360 weights, 12.5 M MACs) on engines of "
        "4 x 4, Q 2 (the",
        "default, half of the rows; Q 1 is smaller still), in all else the default engine.",
        "",
        *_command(f"--shape resnet8 --size {TINY}", *(f"--scheme {name}" for name in TINY_SCHEMES)),
        "",
        "![a 4 x 4 engine](throughput/tiny.svg)",
        "",
    )
    yield from _rows(rows, ENERGY_COLUMNS)
    yield from bullet(
        f"From {slow['images_per_second']:,.1f} images a second ({_scheme(slow)}, {slow['array']}) to "
        f"{fast['images_per_second']:,.1f} ({_scheme(fast)}, {fast['array']}) at {store['tiny']['clock_mhz']:g} MHz. "
        f"The post lanes are {fast['gates_by_part']['post lanes'] / fast['gates']:.0%} of an engine this "
        "small, so that arrays make less of a difference in gates than in cycles."
    )
    yield from _refused(store["tiny"])
    (row,) = (row for row in rows if (row["network"], row["array"]) == ("resnet8-bayesian4", "digit"))
    here, less = (
        "{:,.1f} .. {:,.1f}".format(*(energy / 1e6 for energy in row[name]))
        for name in ("energy_pj", "energy_smaller_pj")
    )
    engine = EngineConfig()
    yield from bullet(
        f"Memories are the default engine's: {engine.act_bytes >> 20} MiB of activations (64 KiB hold ResNet-8, "
        f"`--act-bytes 65536`), P {engine.pixels}, and a bus of {engine.bus_bits} bits. [energy.md](energy.md) has "
        f"ResNet-8 on this engine and on one that is made for it, with {MADE_FOR_IT['act_bytes'] >> 10} KiB, "
        f"P {MADE_FOR_IT['pixels']} and {MADE_FOR_IT['bus_bits']} bits, whose smaller memories take less for each "
        "access: "
        f"{_scheme(row)} on {row['array']}s then takes {less} uJ in place of {here}."
    )
    yield from bullet(
        "Energies are estimate A of `gatewise energy`: published energies of single operations (Horowitz, ISSCC 2014, "
        "45 nm) times what the engine does, low and high. They know nothing of this RTL's own gates: estimate B, from "
        "switching in co-simulation, is that of `gatewise energy --images N`, with its own assumptions. Of a network's "
        "file `gatewise energy F.gw E.toml` prints A; a shape's is that of `sim.energy.estimate`."
    )
    yield ""


def _models_section(store: dict[str, Any]) -> Iterator[str]:
    models = models_of(store)
    samples = ", ".join(f"{rows} x {lanes} with Q {post}" for rows, lanes, post in SAMPLES)
    units = ", ".join(f"{rows} x {lanes}" for rows, lanes in UNITS)
    yield from (
        "## How gates are composed",
        "",
        *textwrap.wrap(
            f"Engines with a digit array are synthesised whole at {samples}; with any other array at the first of "
            f"these. Compute units are synthesised at {units} besides. Every part of an engine is then a linear "
            "function of its PEs, rows, lanes and post lanes (`rtl/engine_cost.py`): one module each, counted as often "
            "as it is there; what connects them is least squares.",
            118,
        ),
        "",
        "By how much composed gates miss engines that are synthesised whole:",
        "",
    )
    counts = [(model, count, "yes") for model in models.given.values() for count in model.counts]
    checks = [EngineCount.from_json(each) for each in store["models"]["checks"]]
    counts += [(models.of(each.config.array, each.config.decoder), each, "no") for each in checks]
    rows = []
    for model, count, used in counts:
        config = count.config
        composed = model.cost(config)
        rows.append(
            [
                f"{config.array}, {config.decoder}",
                f"{config.rows} x {config.lanes}, Q {config.post_lanes}",
                used,
                f"{count.whole.gates:,.0f}",
                f"{composed.gates:,.0f}",
                f"{model.difference(count):+.2%}",
                f"{composed.alms_high / count.whole.alms_high - 1:+.2%}",
                str(count.depth),
            ]
        )
    headings = ["array, decoder", "engine", "composed of it", "gates: whole", "composed", "", "ALMs (high)", "depth"]
    yield from table(headings, rows, 3)
    yield from bullet(
        "Depth is that of the whole engine, gates and inverters from register to register, joined over its modules; no "
        "engine is pipelined for a clock, and none is claimed."
    )
    largest = max(checks, key=lambda count: count.whole.gates).config
    yield from bullet(
        f"Engines larger than {largest.rows} x {largest.lanes}, which the tables have, are extrapolated and unchecked."
    )
    for count in checks:
        if count.config == EngineConfig():
            composed = models.of("digit", "raw").cost(count.config).gates
            yield from bullet(
                f"The default engine, which is the budget above, is {composed:,.0f} gates composed and "
                f"{count.whole.gates:,.0f} synthesised whole ({models.of('digit', 'raw').difference(count):+.2%})."
            )


BAR = 0.2
"""Of a plot, in units of a network's place."""


def _offset(tried: Sequence[str], array: str) -> float:
    """Where an array's bar stands beside its network's name."""
    return BAR * (tried.index(array) - (len(tried) - 1) / 2)


def plot(store: dict[str, Any], folder: Path) -> None:
    """The three figures, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "gatewise"
    from matplotlib import pyplot

    colours = {"digit": "#4477aa", "fusion": "#66ccee", "sign": "#ee6677", "shift": "#228833"}

    def bars(
        axes: Any, rows: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float], form: str, height: int = 0
    ) -> None:
        names = list(dict.fromkeys(_scheme(row) for row in rows))
        # A network has a bar for each array that it is tried on, about its name.
        tried = {name: [array for array in colours if array in arrays_tried(name, rows)] for name in names}
        for array in colours:
            mine = [row for row in rows if row["array"] == array]
            places = [names.index(_scheme(row)) + _offset(tried[_scheme(row)], array) for row in mine]
            if mine:
                drawn = axes.barh(places, [value(row) for row in mine], BAR, label=array, color=colours[array])
                axes.bar_label(drawn, fmt=form, padding=2, fontsize=6)
            for name in names:
                if array in tried[name] and not any(_scheme(row) == name for row in mine):
                    place = names.index(name) + _offset(tried[name], array)
                    axes.text(0, place, f"  {array}: no engine reaches it", fontsize=6, va="center")
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(max(height, len(names)) - 0.5, -0.5)
        axes.margins(x=0.12)
        axes.set_xlim(left=0)

    def arrays_tried(name: str, rows: Sequence[dict[str, Any]]) -> set[str]:
        return {row["array"] for row in rows if _scheme(row) == name} | set(ARRAYS.get(name, ()))

    def save(figure: Any, name: str) -> None:
        figure.text(0.01, 0.005, f"{store['speed']['tool']}; seeded weights; docs/throughput.md", fontsize=6)
        figure.tight_layout(rect=(0, 0.02, 1, 1))
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=130)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)

    figure, both = pyplot.subplots(1, len(BUDGETED), figsize=(11, 5), squeeze=False)
    for axes, shape in zip(both[0], BUDGETED, strict=True):
        result = store["silicon"][shape]
        bars(axes, result["rows"], lambda row: row["images_per_second"], "%.1f", max(map(len, BUDGETED.values())))
        axes.set_xlabel(f"images per second at {result['clock_mhz']:g} MHz (assumed)")
        axes.set_title(f"{shape}, engines of {result['value'] / 1e3:,.0f} k gates at most", fontsize=10)
    both[0][0].legend(title="array", fontsize=8)
    save(figure, "silicon")

    figure, axes = pyplot.subplots(figsize=(9, 5))
    bars(axes, store["speed"]["rows"], lambda row: row["gates_at_target"] / 1e3, "%.0f")
    axes.set_xlabel(f"thousands of two-input gates at {IMAGES_PER_SECOND} images per second (gates x cycles / allowed)")
    axes.set_title("ResNet-18, engines of equal throughput", fontsize=10)
    axes.legend(title="array", fontsize=8)
    save(figure, "speed")

    figure, axes = pyplot.subplots(figsize=(9, 5))
    for array, colour in colours.items():
        mine = [row for row in store["tiny"]["rows"] if row["array"] == array]
        axes.scatter([row["gates"] / 1e3 for row in mine], [row["images_per_second"] for row in mine],
                     label=array, color=colour)  # fmt: skip
        # Schemes that take the same are one point.
        points: dict[tuple[float, str], list[dict[str, Any]]] = {}
        for row in mine:
            points.setdefault((row["gates"], f"{row['images_per_second']:.2g}"), []).append(row)
        for rows in points.values():
            names = ",\n".join(dict.fromkeys(_scheme(row) for row in rows))
            place = rows[0]["gates"] / 1e3, rows[0]["images_per_second"]
            axes.annotate(names, place, (4, 2), textcoords="offset points", fontsize=6, va="top")
    axes.margins(x=0.12)
    axes.set_xlabel("thousands of two-input gates, memories apart")
    axes.set_ylabel(f"images per second at {store['tiny']['clock_mhz']:g} MHz (assumed)")
    axes.set_yscale("log")
    axes.set_title("MLPerf Tiny's ResNet-8 on engines of 4 x 4, Q 2", fontsize=10)
    axes.legend(title="array", fontsize=8)
    save(figure, "tiny")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="what to measure; the rest stays")
    parts = parser.parse_args().part
    store = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    if parts:
        store = measured(store, parts, Console(stderr=True))
        write_json(STORE, store)
    plot(store, PLOTS)
    write_bytes(PAGE, page(store).encode())


if __name__ == "__main__":
    main()
