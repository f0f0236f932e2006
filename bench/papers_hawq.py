"""HAWQ-V2's part of `bench/papers.py`: what the Hessian chooses for a ResNet-20, beside what else could be chosen.

The traces' samples are kept in bench/trained/hawq-*.json, sweep by sweep; with --train they are drawn again.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from gatewise.quant.capture import capture
from gatewise.quant.export import export_network
from gatewise.quant.graph import Graph
from gatewise.quant.hawq import HawqSettings, Range, Sensitivities, choose
from gatewise.quant.hessian import Curvature, Tensors, TraceEstimate
from gatewise.quant.minmax import LayerBits
from gatewise.quant.networks import Network, load_network
from gatewise.quant.selection import Candidates, Front, Setting
from gatewise.quant.statistics import collect
from gatewise.sim.atomic import write_bytes
from gatewise.sim.file import load
from gatewise.sim.images import ImageSet
from gatewise.sim.network import Network as ExportedNetwork
from page import Data, Section, Table, integer_run, percent, stored
from paths import DATA, ROOT, TRAINED
from trainings import HESSIAN_IMAGES, SWEEPS, TRAININGS, run

__all__ = ["hawq_choice", "hawq_section", "hawq_tuned_section", "integer_programs"]

PLOTS = ROOT / "docs" / "hawq"
CALIBRATION, SPECTRUM_IMAGES = 32, 32
AVERAGES = (3.0, 3.5, 4.0)
CHOSEN = HawqSettings()
CHOSEN_ON = slice(HESSIAN_IMAGES, HESSIAN_IMAGES + 2048)
"""Training images that choose the grid."""
ACTIVATION_BITS = 8
MIXED_ACTIVATIONS = 6.0
SIZES = 50
RESAMPLES = 10_000
EIGENVALUES = 20

TEXT = """
ResNet-20, CIFAR-10, without any training: weights of 2, 4 or 8 bits by layer, a grid for each output channel over the
range of least squared error; activations of 8 bits. All 20 layers are chosen for, the first and the last too. *Average
bits* is the budget, over all weights. Traces are those of the mean cross-entropy on {images} training images, {sweeps}
sweeps in batches of 32 with probes of their own; their standard errors are {least:.0f} to {most:.0f} % of them. Test
images are counted alone. Cross-entropy is that of the integer network's codes times their scale; the interval is that
of the difference to *uniform*, paired image by image: 95 % of {resamples:,} resamples. Cycles are those of one image on
a fused array of 16 x 16.

* *uniform*: the widest single width that the budget allows, 3 bits among them;
* *L2-only*: the least total ``||Q(W) - W||^2``, of any setting;
* *Pareto, ordered*: HAWQ-V2, the least Omega of the settings in which more sensitive layers do not have fewer bits;
* *integer program*: the least Omega of any setting, by dynamic programming, and the same by HiGHS;
* *highest Omega*: the greatest of those in the ordering that spend what the Pareto choice does or more, the paper's
  ablation.

The grid is the one that training images chose (*HAWQ-V2: the choice of the grid*, below).

The paper's own figures, SqueezeNext on ImageNet after training: 68.68 % for the least Omega, 67.46 % for the highest,
67.83 % for L2 alone.

The traces of weights took {trace_seconds:.0f} s, on two cores that were busy otherwise too; errors, costs and all
choices of the first table {choice_seconds:.1f} s.
"""


@dataclass(frozen=True)
class Counted:
    """An integer network on the test images."""

    cross_entropy: float
    top1: float
    cycles: int
    losses: np.ndarray


class Measured:
    """The float network, its sensitivities, and the networks of settings, each run once."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.network: Network = load_network("cifar-resnet20", DATA / "cifar10" / "resnet20.safetensors")
        self.graph: Graph = capture(self.network.module, self.network.example)
        pixels = self.network.input.normalise(data.training.images[:CALIBRATION])
        self.statistics = collect(self.graph, torch.from_numpy(pixels))
        self.counted: dict[tuple[int, ...], Counted] = {}
        self.trace_seconds = 0.0

    def curvature(self, tensors: Tensors, images: int) -> Curvature:
        """On the first training images."""
        part = self.data.training[:images]
        assert part.labels is not None
        x = torch.from_numpy(self.network.input.normalise(part.images))
        return Curvature(self.graph, x, part.labels, tensors)

    def traces(self, tensors: Tensors) -> dict[str, TraceEstimate]:
        """From the stored samples, or drawn."""
        path = TRAINED / f"hawq-{tensors}.json"
        facts = TRAINED / f"hawq-{tensors}-facts.json"
        if self.data.train:
            path.unlink(missing_ok=True)
        drawn, began = not path.exists(), time.perf_counter()
        found = self.curvature(tensors, HESSIAN_IMAGES).traces(
            least=SWEEPS,
            most=SWEEPS,
            extra=SWEEPS,
            resume=path,
            progress=lambda _: self.data.say(f"{tensors}: a sweep"),
        )
        if drawn:
            write_bytes(facts, (json.dumps({"seconds": round(time.perf_counter() - began, 1)}) + "\n").encode())
        if tensors == "weights":
            self.trace_seconds = json.loads(facts.read_text())["seconds"]
        return found

    @cached_property
    def sensitivities(self) -> Sensitivities:
        """Of weights and activations."""
        x = self.curvature("activations", HESSIAN_IMAGES).x
        return Sensitivities(
            self.graph, self.network.input, self.statistics, HawqSettings(), x,
            self.traces("weights"), self.traces("activations"),
        )  # fmt: skip

    def count(self, bits: LayerBits) -> Counted:
        """Run the network with these widths through the fused array."""
        key = (*bits.weights.values(), *bits.activations.values())
        if key not in self.counted:
            exported = export_network(self.sensitivities.lowered(bits), "resnet20", {})
            self.counted[key] = counted(exported, self.data.test)
        return self.counted[key]


def counted(exported: ExportedNetwork, images: ImageSet) -> Counted:
    """Run a network through the fused array: the losses are those of its codes times their scale."""
    result = integer_run(exported, images, HawqSettings().engine)
    logits = torch.from_numpy(result.codes * exported.values[exported.output].codes.scale).to(torch.float64)
    labels = torch.as_tensor(images.labels, dtype=torch.int64)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
    return Counted(float(losses.mean()), result.top(1) or 0.0, result.cycles_per_image, losses)


def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of ``first - second``, paired."""
    difference = first - second
    drawn = np.random.default_rng(0).integers(0, len(difference), (RESAMPLES, len(difference)))
    low, high = np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def settings(found: Sensitivities, average: float, activations: Mapping[str, int]) -> dict[str, Mapping[str, int]]:
    """Each rule's bits of weights by layer."""
    omega, _ = found.weight_candidates(activations)
    plain, _ = found.weight_candidates(activations, metric="l2")
    budget = int(omega.cost[:, 0].sum() * average / omega.bits[0])
    ordered, free = omega.front().at(budget), omega.front(ordered=False).at(budget)
    if omega.program(budget).error != free.error or omega.program(budget, ordered=True).error != ordered.error:
        raise SystemExit(f"error: HiGHS must find the fronts' least Omega at {average} bits")
    return {
        "uniform": dict.fromkeys(found.names, int(average)),
        "L2-only": plain.front(ordered=False).at(budget).bits,
        "Pareto, ordered": ordered.bits,
        "integer program": free.bits,
        "highest Omega": omega.highest(budget, ordered.cost).bits,
    }


def omega_of(candidates: Candidates, bits: Mapping[str, int]) -> float | None:
    """Total error of a setting whose widths are all candidates."""
    if not set(bits.values()) <= set(candidates.bits):
        return None
    return candidates.setting(np.array([candidates.bits.index(bits[name]) for name in candidates.names])).omega


def _row(measured: Measured, rule: str, bits: LayerBits, base: Counted, omega: float | None) -> dict[str, Any]:
    found, sizes = measured.count(bits), measured.sensitivities.facts(bits)
    low, high = interval(found.losses, base.losses)
    row = {
        "rule": rule,
        "mean_weight_bits": sizes["mean_weight_bits"],
        "weight_widths": sizes["weight_widths"],
        "omega": omega,
        "cross_entropy": found.cross_entropy,
        "interval": [low, high],
        "top1": found.top1,
        "top1_error": (found.top1 * (1 - found.top1) / len(found.losses)) ** 0.5,
        "cycles": found.cycles,
        "activation_compression": sizes["activation_compression"],
    }
    measured.data.say(json.dumps(row))
    return row


def _cells(row: Mapping[str, Any], *first: str) -> list[str]:
    low, high = row["interval"]
    return [
        *first, row["rule"], f"{row['mean_weight_bits']:.3f}", row["weight_widths"].replace(",", " "),
        "-" if row["omega"] is None else f"{row['omega']:.4f}", f"**{row['cross_entropy']:.3f}**",
        f"{low:+.3f} .. {high:+.3f}", percent(row["top1"]), percent(row["top1_error"]), f"{row['cycles']:,}",
    ]  # fmt: skip


COLUMNS = [
    *("average bits", "rule", "bits used", "widths by layer", "Omega", "test cross-entropy", "less *uniform*'s"),
    *("integer top-1 %", "standard error", "cycles per image"),
]


def hawq_section(data: Data) -> Section:
    """All tables of the part, and its plots."""
    measured = Measured(data)
    found = measured.sensitivities
    eights = dict.fromkeys(found.names, ACTIVATION_BITS)
    began = time.perf_counter()
    chosen = {average: settings(found, average, eights) for average in AVERAGES}
    choice_seconds = time.perf_counter() - began
    omega, _ = found.weight_candidates(eights)
    rows, lines = [], []
    for average, rules in chosen.items():
        base = measured.count(LayerBits(rules["uniform"], eights))
        for rule, bits in rules.items():
            row = _row(measured, rule, LayerBits(bits, eights), base, omega_of(omega, bits))
            rows.append({"average": average, **row})
            lines.append(_cells(row, f"{average:g}"))
    errors = [each.error / each.trace for each in found.weights.values() if each.trace]
    text = TEXT.format(
        images=HESSIAN_IMAGES, sweeps=SWEEPS, least=100 * min(errors), most=100 * max(errors),
        resamples=RESAMPLES,
        trace_seconds=measured.trace_seconds, choice_seconds=choice_seconds,
    )  # fmt: skip
    budgets, budget_lines = _budgets(measured, found)
    programs = integer_programs(omega)
    tables = [
        Table(COLUMNS, lines),
        _outcome(rows),
        Table(BUDGET_COLUMNS, budget_lines, BUDGETS.strip()),
        _program_table(programs),
        _trace_table(found),
    ]
    plot(measured, omega, chosen)
    text += PICTURES
    return Section("HAWQ-V2, ResNet-20", text, tables, [*rows, *budgets, *programs])


CHOICE_TEXT = """
Where the paper leaves the weights' grid open, training images choose it. **Rule**: of four grids, the one whose
networks, as the method itself chooses their widths (its default, in the ordering) at 3, 3.5 and 4 bits on average, have
the least mean cross-entropy on {count:,} training images, from number {first} on, which neither the traces nor the
calibration have seen; activations have 8 bits, nothing is trained. The float network has learnt these images by
heart, so that all figures are lower than on others. Grids had been compared with test images in sight before there was
this rule, and the same one taken; test images have no part in the rule or its figures.
"""
CHOICE_COLUMNS = ["grid", "range", *(f"cross-entropy at {average:g}" for average in AVERAGES), "mean"]


def hawq_choice(data: Data) -> Section:
    """What the default grid of the weights is chosen by."""
    measured = Measured(data)
    images = data.training[CHOSEN_ON.start : CHOSEN_ON.stop]
    rows: list[dict[str, Any]] = []
    for per_channel in (True, False):
        for extent in get_args(Range):
            grid = HawqSettings(per_channel_weights=per_channel, weight_range=extent)
            losses = []
            for average in AVERAGES:
                own = replace(measured.sensitivities, settings=replace(grid, weight_bits=average), activations={})
                exported = export_network(own.lowered(choose(own)[0]), "resnet20", {})
                losses.append(counted(exported, images).cross_entropy)
                data.say(f"{grid.per_channel_weights}, {extent}, {average:g} bits: {losses[-1]:.4f}")
            rows.append({"per_channel_weights": per_channel, "weight_range": extent, "cross_entropy": losses})
    best = min(rows, key=lambda row: float(np.mean(row["cross_entropy"])))
    if (best["per_channel_weights"], best["weight_range"]) != (CHOSEN.per_channel_weights, CHOSEN.weight_range):
        raise SystemExit(f"error: the default grid must be the one that the rule takes, {best}")
    lines = []
    for row in rows:
        mean, mark = float(np.mean(row["cross_entropy"])), "**" if row is best else ""
        cells = [
            "each output channel" if row["per_channel_weights"] else "layer",
            row["weight_range"].replace("_", " "),
        ]
        lines.append([*cells, *(f"{loss:.3f}" for loss in row["cross_entropy"]), f"{mark}{mean:.3f}{mark}"])
    text = CHOICE_TEXT.format(count=CHOSEN_ON.stop - CHOSEN_ON.start, first=CHOSEN_ON.start)
    return Section("HAWQ-V2: the choice of the grid", text, [Table(CHOICE_COLUMNS, lines)], rows)


BUDGET_COLUMNS = [
    *("budget", "selection", "weights by layer", "activations by layer", "bits used", "A-comp", "test cross-entropy"),
    *("integer top-1 %", "cycles per image"),
]
BUDGETS = """
**Other budgets.** What no paper has: cycles of an engine, layer by layer, from the model that co-simulation holds to
the RTL. The budget of BOPs and of cycles is what all layers take at 4 bits, that of sizes 4 bits on average. In the
first stage, of 16 channels, a fused array of 16 lanes has no second channel for a 2-bit weight to share its PEs with:
fewer bits than 4 save no cycle there, which sizes and BOPs do not know. *A-comp*: float32 bits of all activations that
layers read over those used; with 6 bits on average the traces of activations choose 4 or 8 for each layer's input, the
network's own input apart, which has 8.
"""
PICTURES = """
![Pareto fronts](hawq/front.svg)

![The 20 largest eigenvalues](hawq/spectrum.svg)
"""


def _budgets(measured: Measured, found: Sensitivities) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The same choice within other budgets, and with activations of mixed widths."""
    rows, lines = [], []
    eights = dict.fromkeys(found.names, ACTIVATION_BITS)
    base = measured.count(LayerBits(dict.fromkeys(found.names, 4), eights))
    cases = [
        ("size", "uniform", 8.0),
        *((budget, selection, 8.0) for budget in ("bops", "cycles") for selection in ("ordered", "integer")),
        ("size", "integer", MIXED_ACTIVATIONS),
        ("size", "integer", 4.0),
    ]
    for budget, selection, activations in cases:
        if selection == "uniform":
            bits = LayerBits(dict.fromkeys(found.names, 4), eights)
        else:
            chosen = HawqSettings(budget=budget, selection=selection, activation_bits=activations)  # type: ignore[arg-type]
            traces = found.activations if chosen.mixes_activations else {}
            bits, _, _ = choose(replace(found, settings=chosen, activations=traces))
        row = _row(measured, selection, bits, base, None)
        widths = found.facts(bits)["activation_widths"]
        rows.append({"budget": budget, "activation_bits": activations, "activation_widths": widths, **row})
        shown = "all 8" if activations == ACTIVATION_BITS else str(widths).replace(",", " ")
        lines.append(
            [
                budget, selection, row["weight_widths"].replace(",", " "), shown, f"{row['mean_weight_bits']:.3f}",
                f"{row['activation_compression']:.2f}", f"{row['cross_entropy']:.3f}", percent(row["top1"]),
                f"{row['cycles']:,}",
            ]
        )  # fmt: skip
    return rows, lines


def _outcome(rows: list[dict[str, Any]]) -> Table:
    """What was required of the first table, and what came of it."""
    entropy = {(row["average"], row["rule"]): row["cross_entropy"] for row in rows}
    claims = [
        (f"{rule} below L2-only at {average:g}", entropy[average, rule], entropy[average, "L2-only"])
        for average in AVERAGES
        for rule in ("Pareto, ordered", "integer program")
    ]
    claims += [
        (f"{rule} below uniform at {average:g}", entropy[average, rule], entropy[average, "uniform"])
        for average in AVERAGES
        for rule in ("Pareto, ordered", "integer program")
    ]
    lines = [
        [claim, f"{first:.3f}", f"{second:.3f}", "yes" if first < second else "**no**"]
        for claim, first, second in claims
    ]
    return Table(["cross-entropy", "its own", "the other's", "held"], lines, "**Won and lost**, before fine-tuning.")


def seeded(seed: int, blocks: int = 30) -> Candidates:
    """Blocks of random size and sensitivity at 1, 2, 4 and 8 bits."""
    source, bits = np.random.default_rng(seed), np.array([1, 2, 4, 8])
    sensitivity, weights = np.exp(source.normal(0, 2, blocks)), source.integers(500, 40_000, blocks)
    steps = np.exp(source.normal(0, 0.5, (blocks, 1))) / (2.0**bits - 1)
    error = (sensitivity * weights)[:, None] * steps**2 / 12
    names = [str(block) for block in range(blocks)]
    return Candidates.of(names, bits.tolist(), error, weights[:, None] * bits, sensitivity)


def published(network: str) -> Candidates:
    """What was published with HAWQ-V3, at 4 and 8 bits."""
    stored = json.loads((DATA / "hawq" / "sensitivity.json").read_text())[network]
    trace, weights = np.array(stored["average_hessian_trace"]), np.array(stored["parameters"])
    error = np.stack([stored[f"weight_error_{bits}bit_squared_l2"] for bits in (4, 8)], axis=1)
    names = [str(layer) for layer in range(len(trace))]
    return Candidates.of(names, (4, 8), trace[:, None] * error, weights[:, None] * np.array([4, 8]), trace)


def integer_programs(measured: Candidates) -> list[dict[str, Any]]:
    """Enumeration beside HiGHS with the ordering, and without, at 50 sizes of each case."""
    cases = {
        "published ResNet-18, {4, 8}": published("resnet18"),
        "published ResNet-50, {4, 8}": published("resnet50"),
        "measured ResNet-20, {2, 4, 8}": measured,
        **{f"30 random layers, {{1, 2, 4, 8}}, seed {seed}": seeded(seed) for seed in range(3)},
    }
    found = []
    for case, candidates in cases.items():
        front = candidates.front(search="enumeration")
        equal, lower = 0, []
        for size in np.linspace(*candidates.sizes, SIZES).astype(np.int64).tolist():
            ordered, free = front.at(size), candidates.program(size)
            equal += candidates.program(size, ordered=True).error == ordered.error
            if free.error < ordered.error:
                lower.append({"size": size, "share": free.error / ordered.error})
        if equal != SIZES:
            raise SystemExit(f"error: {case}: enumeration must be the integer program at {SIZES} sizes, not at {equal}")
        found.append(
            {"case": case, "settings": candidates.settings(True), "front": len(front), "equal": equal, "lower": lower}
        )
    return found


def _program_table(programs: list[dict[str, Any]]) -> Table:
    lines = []
    for each in programs:
        shares = [entry["share"] for entry in each["lower"]]
        sizes = ", ".join(f"{entry['size']:,}" for entry in each["lower"])
        lines.append(
            [
                each["case"], f"{each['settings']:,}", str(each["front"]), f"{each['equal']} of {SIZES}",
                str(len(shares)), f"{100 * min(shares):.0f} %" if shares else "-", sizes or "none",
            ]
        )  # fmt: skip
    columns = [
        "case",
        "settings",
        "on the front",
        "Omega `==` HiGHS, ordered",
        "lower without the ordering",
        "least share",
        "at these sizes (bits)",
    ]
    caption = (
        "**Enumeration and integer programs.** The settings in the ordering are enumerated; HiGHS finds the same least "
        "Omega, to the last of 60 bits, with the ordering as constraints. Without them it may find less: *least share* "
        "is how little of the ordered Omega it needs at best."
    )
    return Table(columns, lines, caption)


def _trace_table(found: Sensitivities) -> Table:
    lines = []
    for name in found.names:
        cells = [name]
        for each in (found.weights[name], found.activations[name]):
            mark = " (clamped)" if each.flagged and not each.trace else " (flagged)" if each.flagged else ""
            cells += [f"{each.elements:,}", f"{each.estimate:.3g}{mark}", f"{each.error:.2g}", f"{each.average:.3g}"]
        lines.append(cells)
    each = ("trace", "standard error", "mean trace")
    columns = ["layer", "weights", *each, "activations", *each]
    return Table(
        columns, lines, "**Traces** of the Hessian's blocks, of weights and of the activations that a layer reads."
    )


def plot(measured: Measured, omega: Candidates, chosen: Mapping[float, Mapping[str, Mapping[str, int]]]) -> None:
    """The front and the spectrum, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "gatewise"
    from matplotlib import pyplot

    PLOTS.mkdir(parents=True, exist_ok=True)
    weights = omega.cost[:, 0].sum() / omega.bits[0]
    levels = omega.enumerate()
    cost, error = omega.totals(levels)
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.scatter(cost / weights, error * omega.unit, s=9, color="0.75", label="settings in the ordering")
    fronts: list[tuple[str, Front, str]] = [
        ("Pareto front, ordered", omega.front(), "C0"),
        ("Pareto front, any setting", omega.front(ordered=False), "C1"),
    ]
    for label, front, colour in fronts:
        axes.step(front.cost / weights, front.omega, where="post", color=colour, label=label)
    for marker, rule in zip("os^", ("L2-only", "Pareto, ordered", "integer program"), strict=True):
        points: list[Setting] = [
            omega.setting(np.array([omega.bits.index(rules[rule][name]) for name in omega.names]))
            for rules in chosen.values()
        ]
        axes.plot(
            [point.cost / weights for point in points], [point.omega for point in points], marker, color="black",
            markerfacecolor="none", label=f"{rule} at 3, 3.5 and 4",
        )  # fmt: skip
    axes.set(xlabel="average bits of a weight", ylabel="Omega", yscale="log", title="ResNet-20: total Omega by size")
    axes.legend(fontsize=8)
    _save(figure, "front")

    path = TRAINED / "hawq-spectrum.json"
    if measured.data.train or not path.exists():
        began, products = time.perf_counter(), [0]

        def count(step: int) -> None:
            products[0] += step

        values = measured.curvature("weights", SPECTRUM_IMAGES).eigenvalues(EIGENVALUES, tolerance=1e-2, progress=count)
        facts = {
            "images": SPECTRUM_IMAGES, "products": products[0], "seconds": round(time.perf_counter() - began, 1),
            "eigenvalues": values.tolist(),
        }  # fmt: skip
        write_bytes(path, (json.dumps(facts, indent=1) + "\n").encode())
    facts = json.loads(path.read_text())
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    values = facts["eigenvalues"]
    axes.plot(range(1, len(values) + 1), values, "o")
    axes.set(
        xlabel="eigenvalue, by size", ylabel="value", xticks=range(1, len(values) + 1, 2),
        title=f"ResNet-20: largest eigenvalues of the Hessian of all weights, {facts['images']} images",
    )  # fmt: skip
    axes.title.set_fontsize(10)
    axes.set_yscale("log")
    axes.grid(axis="y", alpha=0.3)
    _save(figure, "spectrum")


def _save(figure: Any, name: str) -> None:
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        figure.savefig(PLOTS / f"{name}.{kind}", dpi=120, metadata=metadata)


TUNED_TEXT = """
The settings of the first table above, each trained on for {epochs} epochs by the same recipe: learning rate {rate},
images mirrored and moved, seed 0, a tenth of the 8,068 training images held out; the last epoch. Grids are those before
training. Exports are `bench/trained/hawq-*.gw` (`python bench/trainings.py` trains them). *Before* is the row above.
Where two rules have the same widths they are trained twice on a GPU, whose sums are not the same each time: what these
rows differ by is noise. Intervals are those of the difference to *uniform* after training, paired: {zero} of {all} hold
zero.
"""
TUNED_COLUMNS = [
    *("average bits", "rule", "export", "cross-entropy before", "after", "less *uniform*'s", "top-1 % before", "after"),
    *("standard error", "held out %", "cycles per image"),
]
TUNED = {
    "L2-only": "hawq-w{bits}-l2",
    "Pareto, ordered": "hawq-w{bits}-ordered",
    "integer program": "hawq-w{bits}-integer",
    "highest Omega": "hawq-w{bits}-highest",
}
"""Exports by rule."""
MIXED = "hawq-w4a6-integer"


def hawq_tuned_section(data: Data) -> Section:
    """Count the exports that were fine-tuned, beside what they were before."""
    before = stored("hawq")
    if before is None:
        raise SystemExit("error: part hawq must be measured before hawq-tuned, and docs/results/ has none of it")
    networks: dict[str, ExportedNetwork] = {}

    def after(name: str, row: Mapping[str, Any]) -> Counted:
        path = TRAINED / f"{name}.gw"
        if data.train:
            data.say(run(name, TRAININGS[name], TRAINED))
        networks[name] = load(path)
        widths = networks[name].manifest.provenance["weight_widths"]
        if widths != row["weight_widths"]:
            raise SystemExit(f"error: {path} must have the widths {row['weight_widths']} of its rule, not {widths}")
        found = counted(networks[name], data.test)
        data.say(f"{name}: {found.cross_entropy:.4f}, {found.top1:.4f}")
        return found

    rows, lines = [], []
    for average in AVERAGES:
        settings = {row["rule"]: row for row in before.figures if row.get("average") == average}
        name = f"hawq-uniform-w{int(average)}"
        base = after(name, settings["uniform"])
        rows.append(_tuned(settings["uniform"], average, name, base, base))
        for rule, pattern in TUNED.items():
            name = pattern.format(bits=f"{average:g}")
            rows.append(_tuned(settings[rule], average, name, after(name, settings[rule]), base))
    mixed = next(row for row in before.figures if row.get("activation_bits") == MIXED_ACTIVATIONS)
    rows.append(_tuned(mixed, 4.0, MIXED, after(MIXED, mixed), base))
    for row in rows:
        facts = networks[row["export"]].manifest.provenance
        low, high = row["interval"]
        rule = row["rule"] if row["export"] != MIXED else f"{row['rule']}, 4- and 8-bit activations"
        lines.append(
            [
                f"{row['average']:g}", rule, row["export"], f"{row['before']['cross_entropy']:.3f}",
                f"**{row['cross_entropy']:.3f}**", f"{low:+.3f} .. {high:+.3f}", percent(row["before"]["top1"]),
                f"**{percent(row['top1'])}**", percent(row["top1_error"]), percent(float(facts["held_out_top1"])),
                f"{row['cycles']:,}",
            ]
        )  # fmt: skip
    facts = networks[MIXED].manifest.provenance
    others = [row["interval"] for row in rows if row["rule"] != "uniform"]
    text = TUNED_TEXT.format(
        epochs=facts["training_epochs"], rate=facts["training_learning_rate"],
        zero=sum(low <= 0 <= high for low, high in others), all=len(others),
    )  # fmt: skip
    return Section("HAWQ-V2 after fine-tuning, ResNet-20", text, [Table(TUNED_COLUMNS, lines)], rows)


def _tuned(before: Mapping[str, Any], average: float, name: str, found: Counted, base: Counted) -> dict[str, Any]:
    return {
        "average": average,
        "rule": before["rule"],
        "export": name,
        "before": {key: before[key] for key in ("cross_entropy", "top1")},
        "cross_entropy": found.cross_entropy,
        "interval": list(interval(found.losses, base.losses)),
        "top1": found.top1,
        "top1_error": (found.top1 * (1 - found.top1) / len(found.losses)) ** 0.5,
        "cycles": found.cycles,
    }
