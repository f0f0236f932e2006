"""Bayesian Bits' part of `bench/papers.py`: LeNet-5 on MNIST in three modes, its curves and its evolution."""

import json
import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bayesian import ENGINES, count, train_all
from gatewise.kernels.errors import FormatError
from page import Data, Section, Table, compute_unit_gates, percent
from paths import DATA, ROOT, TRAINED

__all__ = ["bayesian_section", "matched_bops"]

FIGURES = ROOT / "docs" / "results"
BUDGET = 0.006
"""Share of BOPs that the reported network may have."""
WANTED = 0.99
"""Top-1 that is wanted of it."""
MATCHED = 0.988
"""Accuracy at which modes are compared."""
EPOCHS = 24
"""Of the trainings by which modes are compared."""
SHOWN = 0.015
"""How far below that the figure of the curves goes."""
TICKS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
MODES = {"full": "full", "quantise": "quantise only", "prune": "prune only, 8 bits"}

TEXT = """
LeNet-5 without padding (32C5-MP2-64C5-MP2-1024-512-10), MNIST: each float network trained from scratch, then gated,
the last quarter of the epochs with fixed gates, on 55,000 training images; the other 5,000, drawn by the seed, are
*held out*. *BOPs* are the shares of those in 32 x 32 bits, as published: pruned channels do not count, the input has
8 bits; the exported networks' own count, without the channels that the compiler takes out, is the same. *Integer* is
the exported file on {images:,} test images. Exports, settings and epochs are in `bench/trained/`
(`python bench/bayesian.py train` makes them).

Modes are compared by trainings of {epochs} epochs; longer ones, of mode *full*, move images by up to a pixel.

The longer ones, of the authors' 100 epochs, were made after the shorter had been counted on the test images.

**Rule of choice.** Of each seed's trainings in mode *full* whose BOPs are not above {budget} %, whatever their strength
and gates, the one with the best top-1 on the held-out images; test images chose nothing, the last epoch
is reported.

![BOPs against top-1](results/bayesian-curve.svg)

A line is a seed; trainings of less than 97.3 % are off the figure, and in the table.

![Bits and BOPs in training](results/bayesian-evolution.svg)
"""


def bayesian_section(data: Data) -> Section:
    """Tables of what was trained and counted, and its two figures."""
    paths = sorted(TRAINED.glob("bayes-*.json"))
    for path in paths:
        out = path.with_suffix("")
        if data.train:
            train_all(_arguments(json.loads(path.read_text()), out))
        count(out, data.limit)
    trainings = _merged([json.loads(path.read_text()) for path in paths])
    if not trainings:
        raise FormatError(f"{TRAINED} must hold counted trainings of bench/bayesian.py, bayes-*.json, and has none")
    chosen = _chosen(trainings)
    images = max(run["test_images"] for each in trainings.values() for run in each["runs"])
    _curve(trainings, FIGURES / "bayesian-curve.svg")
    shown = next((each for each in chosen.values() if each is not None), None)
    if shown is not None:
        _evolution(shown[1], shown[0], FIGURES / "bayesian-evolution.svg")
    tables = [
        _rule(chosen), _rows(trainings, chosen), _matched(trainings), _agreement(trainings),
        _beside(trainings, chosen), _paper(),
    ]  # fmt: skip
    for name, each in trainings.items():
        for run in each["runs"]:
            data.say(f"{name}, strength {run['strength']:g}: {percent(run['bops'], 3)} % BOPs, {_top1(run)} %")
    text = TEXT.format(images=images, budget=f"{100 * BUDGET:g}", epochs=EPOCHS)
    figures = [
        {"name": name, **{key: value for key, value in run.items() if key != "epochs"}}
        for name, each in trainings.items()
        for run in each["runs"]
    ]
    return Section("Bayesian Bits", text, tables, figures)


def _arguments(job: dict[str, Any], out: Path) -> Namespace:
    """What `bench/bayesian.py train` was told for a job."""
    settings, training = job["settings"], job["training"]
    kept = {key: settings[key] for key in ("mode", "gates", "gate_rate", "range_rate", "initial_gate")}
    kept |= {key: training[key] for key in ("seed", "epochs", "batch", "crop", "learning_rate")}
    strengths = [each["strength"] for each in job["runs"]]
    told = {"strengths": strengths, "float_epochs": job["float_epochs"], "images": None, "device": None}
    return Namespace(**kept, **told, out=out, data=DATA)


def _merged(jobs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Jobs of one kind and seed as one, with the runs that have been counted, by mode and seed."""
    found: dict[str, dict[str, Any]] = {}
    for job in jobs:
        runs = [each for each in job["runs"] if "integer_top1" in each]
        if runs:
            own = found.setdefault(f"{_kind(job)}, seed {job['training']['seed']}", {**job, "runs": []})
            own["runs"] += runs
            own.setdefault("int4", job.get("int4"))
    return found


def _kind(job: dict[str, Any]) -> str:
    """The mode, and what is not the default beside it."""
    settings, training = job["settings"], job["training"]
    others = [settings["gates"].replace("_", " ")] if settings["gates"] != "hard_concrete" else []
    others += [f"{training['epochs']} epochs"] if training["epochs"] != EPOCHS else []
    others += [f"moved by up to {training['crop']}"] if training["crop"] else []
    return ", ".join([str(settings["mode"]), *others])


def _title(job: dict[str, Any]) -> str:
    mode, *others = _kind(job).split(", ")
    return ", ".join([MODES[mode], *others])


def _top1(run: dict[str, Any]) -> str:
    return percent(run["integer_top1"])


Chosen = dict[int, tuple[str, dict[str, Any]] | None]
"""By seed: the training's name and its run."""


def _chosen(jobs: dict[str, dict[str, Any]]) -> Chosen:
    """The runs that the rule takes."""
    found: Chosen = {}
    for seed in sorted({job["training"]["seed"] for job in jobs.values()}):
        within = [
            (name, run)
            for name, job in jobs.items()
            if job["settings"]["mode"] == "full" and job["training"]["seed"] == seed
            for run in job["runs"]
            if run["bops"] <= BUDGET
        ]
        found[seed] = max(within, key=lambda each: float(each[1]["held_out_top1"]), default=None)
    return found


def _rule(chosen: Chosen) -> Table:
    """What the rule took."""
    lines = []
    for seed, found in chosen.items():
        if found is None:
            lines.append([f"seed {seed}: none reaches it", *[""] * 5])
            continue
        name, each = found
        cells = [f"{each['strength']:g}", percent(each["bops"], 3), percent(each["held_out_top1"])]
        lines.append([name, *cells, _top1(each), percent(_error(each))])
    columns = ["mode", "strength", "BOPs %", "held out top-1 %", "integer top-1 %", "SE"]
    reached = sum(each is not None and each[1]["integer_top1"] >= WANTED for each in chosen.values())
    caption = (
        f"**At most {100 * BUDGET:g} % BOPs**: what the rule chose. {100 * WANTED:.1f} % were wanted, which {reached} "
        f"of {len(chosen)} reach"
    )
    return Table(columns, lines, caption)


def _error(run: dict[str, Any]) -> float:
    """Standard error of the integer top-1."""
    top1 = float(run["integer_top1"])
    return float((top1 * (1 - top1) / run["test_images"]) ** 0.5)


def _rows(jobs: dict[str, dict[str, Any]], chosen: Chosen) -> Table:
    columns = ["mode", "seed", "strength", "BOPs %", "held out top-1 %", "integer top-1 %", "SE"]
    columns += ["bits of weights, inputs by layer", "channels kept", "weight bytes", "cycles: digit", "fusion"]
    lines, taken = [], [each[1] for each in chosen.values() if each is not None]
    for _, job in sorted(jobs.items(), key=lambda each: (_kind(each[1]), each[0])):
        for each in sorted(job["runs"], key=lambda run: float(run["bops"])):
            facts = each["epochs"][-1]["facts"]
            layers = list(dict.fromkeys(key.split()[0] for key in facts if " " in key))
            bits = " ".join(f"{facts[f'{layer} weights']:g}/{facts[f'{layer} reads']:g}" for layer in layers)
            kept = " ".join(percent(facts[f"{layer} kept"], 0) for layer in layers[:-1])
            mark = "**" if any(each is run for run in taken) else ""
            lines.append(
                [_title(job), str(job["training"]["seed"]), f"{each['strength']:g}",
                 f"{mark}{percent(each['bops'], 3)}{mark}", percent(each["held_out_top1"]),
                 f"{mark}{_top1(each)}{mark}", percent(_error(each)), bits, f"{kept} %",
                 f"{each['weight_bytes']:,}", f"{each['cycles_digit']:,}", f"{each['cycles_fusion']:,}"]
            )  # fmt: skip
    return Table(columns, lines, "**Every training**; what the rule chose is bold")


def matched_bops(points: Sequence[tuple[float, float]], wanted: float) -> float:
    """The least BOPs of a curve (BOPs, accuracy) with the accuracy that is wanted; infinite where it has none.

    Between the first point that has it and the one with fewer BOPs before it, the logarithm of BOPs is linear in
    accuracy; where the point of the fewest BOPs has it, these are the bound.
    """
    ordered = sorted(points)
    for (fewer, below), (more, above) in zip([(math.nan, math.nan), *ordered], ordered, strict=False):
        if above >= wanted:
            if math.isnan(fewer):
                return more
            share = (wanted - below) / (above - below)
            return math.exp(math.log(fewer) + share * (math.log(more) - math.log(fewer)))
    return math.inf


def _matched(jobs: dict[str, dict[str, Any]]) -> Table:
    """BOPs of each mode at the same accuracy."""
    lines = []
    for mode, title in MODES.items():
        found, fewest, missed = [], 0, 0
        for job in jobs.values():
            if _kind(job) != mode:
                continue
            points = [(float(each["bops"]), float(each["integer_top1"])) for each in job["runs"]]
            matched = matched_bops(points, MATCHED)
            fewest += min(points)[1] >= MATCHED
            missed += matched == math.inf
            found.append(max(points)[0] if matched == math.inf else matched)
        if found:
            bound = "more than " if missed else "at most " if fewest else ""
            spread = percent(stdev(found), 3) if len(found) > 1 else ""
            each = ", ".join(percent(share, 3) for share in found)
            lines.append([title, f"{bound}{percent(mean(found), 3)}", spread, each, str(fewest), str(missed)])
    columns = ["mode", "BOPs %, mean of seeds", "standard deviation", "by seed"]
    columns += ["seeds whose fewest BOPs have more accuracy", "seeds that do not reach it"]
    caption = (
        f"**BOPs at {100 * MATCHED:.1f} % integer top-1**, each seed's between its two trainings that enclose it "
        "(logarithm of BOPs linear in accuracy). Where the training of the fewest BOPs has more, its own, an upper "
        "bound; where none reaches it, those of the most BOPs, a lower bound. Weights and activations of 2 bits are "
        "0.517 %: no strength takes *quantise only* below"
    )
    return Table(columns, lines, caption)


def _agreement(jobs: dict[str, dict[str, Any]]) -> Table:
    compared = [each["agreement"] for job in jobs.values() for each in job["runs"] if "agreement" in each]
    lines = []
    if compared:
        worst = [f"{max(each[f'worst_{kind}'] for each in compared):.1e}" for kind in ("scale", "threshold")]
        same = percent(min(each["predictions"] for each in compared))
        lines.append([str(len(compared)), str(compared[0]["images"]), *worst, same])
    columns = ["exports", "images", "worst layer with multipliers", "with thresholds", "least predictions that agree %"]
    caption = (
        "**Integer layers beside the fake-quantised ones**, each fed the integer network's own inputs: share of "
        "integers that differ. Results of 2 and 4 bits come of thresholds, which round nested, all else of multipliers"
    )
    return Table(columns, lines, caption)


def _beside(jobs: dict[str, dict[str, Any]], chosen: Chosen) -> Table:
    """Cycles, bytes and gates beside integers of 4 bits in the same network."""
    gates = compute_unit_gates()
    lines = []
    for name, each in (found for found in chosen.values() if found is not None):
        beside = [("int, 4 bits", jobs[name].get("int4")), (f"{name}, strength {each['strength']:g}", each)]
        for title, facts in beside:
            if facts is not None and facts.get("cycles_digit"):
                lines += [
                    [title, f"{array}, raw", _top1(facts), f"{facts[f'cycles_{array}']:,}",
                     f"{facts[f'bytes_read_{array}']:,}", f"{facts['weight_bytes']:,}", gates[array, "raw"]]
                    for array in ENGINES
                ]  # fmt: skip
        if lines:
            break
    columns = ["weights", "array, decoder", "integer top-1 %", "cycles an image", "bytes read"]
    columns += ["weight bytes in the file"]
    columns += ["gates of the compute unit (docs/engine.md)"]
    return Table(columns, lines, "**Beside 4-bit integers** in the same network, on engines of 16 x 16")


def _paper() -> Table:
    columns = ["LeNet-5 on MNIST, 100 epochs", "BOPs %", "top-1 %"]
    lines = [["strength 0.1 (the authors' code)", "0.36", "99.30"], ["Gumbel-softmax gates", "0.38", "99.38"]]
    return Table(columns, lines, "**The authors' own** (van Baalen et al. 2020, their code and rebuttal)")


def _curve(jobs: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw BOPs against integer top-1, a line for each job."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    kinds = list(dict.fromkeys(_kind(job) for job in jobs.values()))
    for job in jobs.values():
        points = sorted((100 * each["bops"], 100 * each["integer_top1"]) for each in job["runs"])
        color, first = f"C{kinds.index(_kind(job))}", job["training"]["seed"] == 0
        axes.plot(*zip(*points, strict=True), "o-", color=color, alpha=0.8, label=_title(job) if first else None)
    axes.axhline(100 * MATCHED, color="grey", linewidth=0.8, linestyle=":")
    axes.axvline(100 * BUDGET, color="grey", linewidth=0.8, linestyle=":")
    most = max(each["integer_top1"] for job in jobs.values() for each in job["runs"])
    axes.set(xscale="log", xlabel="BOPs, % of 32 x 32 bits", ylabel="integer top-1, %")
    axes.set(ylim=(100 * (MATCHED - SHOWN), 100 * most + 0.1), xticks=TICKS, xticklabels=[f"{at:g}" for at in TICKS])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    _save(figure, path)


def _evolution(run: dict[str, Any], name: str, path: Path) -> None:
    """Draw the bits, the channels and the BOPs of a training by epochs."""
    plt = _pyplot()
    epochs = [each["epoch"] + 1 for each in run["epochs"]]
    facts = [each["facts"] for each in run["epochs"]]
    layers = list(dict.fromkeys(key.split()[0] for key in facts[0] if " " in key))
    figure, (above, middle, below) = plt.subplots(3, 1, figsize=(7, 7.4), sharex=True, layout="constrained")
    for index, layer in enumerate(layers):
        color = f"C{index}"
        above.step(epochs, [each[f"{layer} weights"] for each in facts], where="mid", color=color, label=f"{layer}")
        if index:
            above.step(epochs, [each[f"{layer} reads"] for each in facts], where="mid", color=color, linestyle="--")
        middle.plot(epochs, [100 * each[f"{layer} kept"] for each in facts], color=color)
    below.plot(epochs, [100 * each["bops"] for each in facts], color="black")
    above.set(yscale="log", ylabel="bits: weights\n(inputs dashed)", yticks=(2, 4, 8), yticklabels=("2", "4", "8"))
    above.minorticks_off()
    figure.legend(title="weights of layer", ncols=len(layers), loc="outside lower center")
    middle.set(ylabel="channels kept, %")
    below.set(yscale="log", ylabel="BOPs, %", xlabel="epoch", yticks=(0.5, 1, 2, 5), yticklabels=("0.5", "1", "2", "5"))
    below.minorticks_off()
    figure.suptitle(f"{name}, strength {run['strength']:g}")
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "gatewise"
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
