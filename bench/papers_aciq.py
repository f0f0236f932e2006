"""ACIQ's part of `bench/papers.py`: its methods one by one, its rivals in clipping, its bits, on one network."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import papers_rivals as trained
import torch
from gatewise.quant.aciq import AciqSettings, kld_ratios, run_time_logits
from gatewise.quant.agreement import agreement
from gatewise.quant.capture import capture
from gatewise.quant.export import Requantise, export_network
from gatewise.quant.methods import METHODS, Quantisation, parse_settings
from gatewise.quant.networks import load_network
from gatewise.quant.quantized import accuracy
from gatewise.quant.statistics import collect
from page import Data, Measured, Section, Table, measure, percent
from paths import DATA
from rich.console import Console
from torch.nn.functional import cross_entropy

__all__ = ["aciq_choice", "aciq_section", "aciq_tuned"]

CALIBRATION = 32
AGREEMENT_IMAGES = 128
NAIVE = {"clip": "minmax", "mean_correction": "false"}
LAYER = {"per_channel": "false", "per_channel_weights": "false"}
ALLOCATED = {"allocate_weights": "true", "allocate_activations": "true"}
MID_TREAD = {"mid_tread": "true", "coding": "huffman", **ALLOCATED}


@dataclass(frozen=True)
class Row:
    """A setting of a method; of ACIQ unless said."""

    title: str
    options: dict[str, str] = field(default_factory=dict)
    method: str = "aciq"
    bits: int = 4

    def command(self, network: str) -> str:
        """What a user types for it, without the files."""
        options = "".join(f" --option {key}={value}" for key, value in self.options.items())
        return f"--method {self.method} --network {network} --bits {self.bits}{options}"


ABLATION = [
    Row("naive, per layer", NAIVE | LAYER),
    Row("+ clipping, per layer", {"mean_correction": "false"} | LAYER),
    Row("+ bias correction, per layer", {"clip": "minmax"} | LAYER),
    Row("clipping and bias correction, per layer", LAYER),
    Row("naive, per channel", NAIVE),
    Row("+ clipping, per channel", {"mean_correction": "false"}),
    Row("+ bit allocation, per channel", NAIVE | ALLOCATED),
    Row("+ bias correction, per channel", {"clip": "minmax"}),
    Row("**all, per channel**", ALLOCATED),
    Row("all but bit allocation (the default)"),
]
RIVALS = [
    Row("two-sigma clips, per layer", {"clip": "sigma2", "mean_correction": "false"} | LAYER),
    Row("KLD clips, per layer", {"clip": "kld", "mean_correction": "false"} | LAYER),
    Row("two-sigma clips, per channel", {"clip": "sigma2", "mean_correction": "false"}),
    Row("KLD clips, per channel", {"clip": "kld", "mean_correction": "false"}),
    Row("all, with KLD clips", {"clip": "kld"} | ALLOCATED),
    Row("all but bit allocation, multiplier alignment", {"alignment": "mul"}),
    Row("all, with variance correction", {"variance_correction": "true"} | ALLOCATED),
    Row("min-max baseline (`minmax`)", {}, "minmax"),
    Row("min-max baseline, 8 bits", {}, "minmax", 8),
]
CODED = [
    Row("all", {"coding": "huffman"} | ALLOCATED),
    Row("mid-tread", MID_TREAD),
    Row("all", {"coding": "huffman"} | ALLOCATED, bits=3),
    Row("mid-tread", MID_TREAD, bits=3),
]

CHOICES = [
    Row("**the default**"),
    Row("exact clip constants", {"constants": "exact"}),
    Row("Gauss prior", {"prior": "gauss"}),
    Row("steps rounded up", {"step_rounding": "ceil"}),
    Row("multiplier alignment", {"alignment": "mul"}),
    Row("clips beyond what calibration saw", {"within_observed": "false"}),
    Row("no mean correction", {"mean_correction": "false"}),
    Row("variance correction", {"variance_correction": "true"}),
    Row("one step per tensor and layer", LAYER),
    Row("KLD clips", {"clip": "kld"}),
    Row("two-sigma clips", {"clip": "sigma2"}),
    Row("no clips", {"clip": "minmax"}),
    Row("bit allocation of weights", {"allocate_weights": "true"}),
    Row("bit allocation of activations", {"allocate_activations": "true"}),
    Row("bit allocation of both", ALLOCATED),
    Row("the same, rounded up", {"allocation_rounding": "ceil"} | ALLOCATED),
    Row("the same, exact clip constants", {"constants": "exact"} | ALLOCATED),
    Row("the same, KLD clips", {"clip": "kld"} | ALLOCATED),
    Row("the same, mid-tread", MID_TREAD),
]
COMPARED: list[tuple[str, dict[str, str], Requantise]] = [
    ("default", {}, "scale"),
    ("default", {}, "threshold"),
    ("all", ALLOCATED, "scale"),
    ("mid-tread", MID_TREAD, "scale"),
]

TEXT = """
{network}, CIFAR-10; post-training, calibrated on the first {calibration} training images, without labels. First and
last layers have 8 bits of both kinds. *SE* is the standard error of top-1. Widths and entropies are means over the
inner layers' weights and over the tensors that these layers read; entropy and Huffman bits are those of one alphabet
for a layer or tensor, without code tables. Cycles are those of the default engine, whose digits have 4 bits: channels
of more than 4 bits take two passes, which bit allocation pays for.

Settings were chosen by the table below, *ACIQ: the choice of defaults*; test images chose nothing. With 517 of them
single rows differ by noise where they differ by less than about two points.
"""


CHOICE_TEXT = """
**Rule of choice.** Of what the paper leaves open (prior, constants, alignment, rounding of steps, clips beyond what
calibration saw, corrections) the default is what gives the least mean square error of the fake-quantised logits,
relative to the float ones, over {count} training images outside the calibration (from image {first} on), summed over
both networks; cross-entropy is beside it. Labels and test images play no part. Bit allocation comes nearer still, and
the mid-tread variant by far, but both have to be asked for (`--option allocate_weights=true`,
`--option allocate_activations=true`, `--option mid_tread=true`): on 4-bit digits wide channels cost twice the cycles.
"""
CHOSEN_ON = slice(1000, 1300)

TUNED = [
    trained.Row("resnet20-aciq-w4a4", "ResNet-20, all but bit allocation, 15 epochs", "4 / 4", "not trained there"),
    trained.Row("resnet20-aciq-all-w4a4", "ResNet-20, all, 5 epochs", "4 / 4", "not trained there"),
    trained.Row("resnet20-aciq-all-w3a3", "ResNet-20, all, 5 epochs", "3 / 3", "not trained there"),
    trained.Row("resnet32-aciq-all-w4a4", "ResNet-32, all, 5 epochs", "4 / 4", "not trained there"),
]
TUNED_TEXT = """
ACIQ, then a few epochs under its quantisation on nine tenths of 8,068 training images, its widths, steps and zero
points kept: what a reviewer of the paper asked for, and the paper does not have. *Converted* is before them, and the
last epoch counts; these images, which the float network knows by heart, can teach it little. Files and commands are in
`bench/trained/`; `--train` makes them anew, and adds what is not there yet.
"""


class _Bench:
    """One float network, captured and calibrated once."""

    def __init__(self, data: Data, network: str, images: np.ndarray | None = None) -> None:
        """`logits` are the float network's, of the test images unless `images` are given."""
        torch.set_num_threads(1)
        self.data, self.network, self.figures = data, network, list[dict[str, object]]()
        loaded = load_network(network, DATA / "cifar10" / f"{network.removeprefix('cifar-')}.safetensors")
        self.spec, self.graph = loaded.input, capture(loaded.module, loaded.example)
        pixels = torch.from_numpy(self.spec.normalise(data.training.images[:CALIBRATION]))
        self.statistics = collect(self.graph, pixels)
        shown = data.test.images if images is None else images
        batches = np.array_split(shown, -(-len(shown) // 32))
        logits = [self.graph.run(torch.from_numpy(self.spec.normalise(batch))) for batch in batches]
        self.logits = torch.cat(logits).numpy()

    def quantised(self, row: Row, requantise: Requantise = "scale") -> Quantisation:
        """What `gatewise quantize` makes of the row."""
        method = METHODS[row.method]
        assert method.apply is not None
        widths = {"weight_bits": row.bits, "activation_bits": row.bits}
        settings = parse_settings(method.settings, widths | row.options)
        quantized = method.apply(self.graph, self.spec, self.statistics, settings)
        return Quantisation(self.graph, quantized, export_network(quantized, self.network, {}, requantise))

    def measured(self, row: Row, count: bool = False) -> Measured:
        """Its figures."""
        found = measure(self.quantised(row), self.data, self.logits, count=count)
        self.figures.append({"title": row.title, "command": row.command(self.network), **asdict(found)})
        self.data.say(f"{row.command(self.network)}: {percent(found.float_top1)} -> {percent(found.top1)}")
        return found


def aciq_section(network: str) -> Callable[[Data], Section]:
    """What measures everything about ACIQ on a network."""

    def measured(data: Data) -> Section:
        bench = _Bench(data, network)
        tables = [
            _accuracy(bench, ABLATION, "Method by method, W4A4"),
            _accuracy(bench, RIVALS, "Beside other clips and settings, W4A4"),
            _coded(bench),
            _agreement(bench),
            _run_time(bench),
            _ratios(bench),
        ]
        if network == "cifar-resnet32":
            tables.append(_paper())
        return Section(f"ACIQ: {network}", TEXT.format(calibration=CALIBRATION, network=network), tables, bench.figures)

    return measured


def aciq_choice(data: Data) -> Section:
    """Measure what defaults are chosen by; a process for each network."""
    lines, columns = [[row.title] for row in CHOICES], ["setting"]
    figures: list[dict[str, object]] = [{"title": row.title, "options": row.options} for row in CHOICES]
    networks = ["cifar-resnet20", "cifar-resnet32"]
    with ProcessPoolExecutor(len(networks), multiprocessing.get_context("spawn")) as pool:
        for network, found in zip(networks, pool.map(_choices, networks), strict=True):
            columns += [f"{network}: logits error %", "cross-entropy"]
            for line, figure, (error, entropy) in zip(lines, figures, found, strict=True):
                line += [percent(error), f"{entropy:.4f}"]
                figure[network] = {"logits_error": error, "cross_entropy": entropy}
    data.say("\n".join(" | ".join(line) for line in lines))
    text = CHOICE_TEXT.format(count=CHOSEN_ON.stop - CHOSEN_ON.start, first=CHOSEN_ON.start)
    return Section("ACIQ: the choice of defaults", text, [Table(columns, lines)], figures)


def _choices(network: str) -> list[tuple[float, float]]:
    """Relative mean square error of the logits and cross-entropy of every choice."""
    data = Data(None, False, Path(), Console(stderr=True))
    images, labels = data.training.images[CHOSEN_ON], data.training.labels
    assert labels is not None
    bench, found = _Bench(data, network, images), []
    for row in CHOICES:
        logits = bench.quantised(row).quantized.run(images)
        error = float(np.mean((logits - bench.logits) ** 2) / np.mean(bench.logits**2))
        entropy = float(cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels[CHOSEN_ON]).long()))
        found.append((error, entropy))
        data.say(f"{network}, {row.title}: {percent(error)} % of the logits, cross-entropy {entropy:.4f}")
    return found


def aciq_tuned(data: Data) -> Section:
    """Measure what a short fine-tuning behind ACIQ makes, from the committed exports."""
    rows = [row for row in TUNED if data.train or (trained.EXPORTS / f"{row.name}.gw").exists()]
    table, figures = trained.trained_networks(data, rows)
    return Section("ACIQ, fine-tuned", TUNED_TEXT, [table], figures)


def _accuracy(bench: _Bench, rows: list[Row], title: str) -> Table:
    columns = ["setting", "float top-1 %", "float top-5 %", "integer top-1 %", "SE", "top-5 %", "loss", "bits W / A"]
    columns += ["file bytes", "compression", "BOPs %", "cycles", "`gatewise quantize`"]
    lines = []
    for row in rows:
        found = bench.measured(row)
        lines.append(
            [
                row.title,
                percent(found.float_top1),
                percent(found.float_top5),
                f"**{percent(found.top1)}**",
                percent(found.error),
                percent(found.top5),
                percent(found.float_top1 - found.top1),
                f"{found.weight_bits:.2f} / {found.activation_bits:.2f}",
                f"{found.file_bytes:,}",
                f"{found.compression:.2f}",
                percent(found.relative_bops),
                f"{found.cycles:,}",
                f"`{row.command(bench.network)}`",
            ]
        )
    return Table(columns, lines, f"### {title}")


def _coded(bench: _Bench) -> Table:
    columns = ["variant", "target bits", "integer top-1 %", "loss", "weights: width", "entropy", "Huffman"]
    columns += ["activations: width", "entropy", "Huffman", "file bytes", "cycles"]
    lines = []
    for row in CODED:
        found = bench.measured(row, count=True)
        numbers = [found.weight_bits, found.weight_entropy, found.weight_huffman]
        numbers += [found.activation_bits, found.activation_entropy or 0.0, found.activation_huffman or 0.0]
        lines.append(
            [
                row.title,
                str(row.bits),
                f"**{percent(found.top1)}**",
                percent(found.float_top1 - found.top1),
                *(f"{number:.3f}" for number in numbers),
                f"{found.file_bytes:,}",
                f"{found.cycles:,}",
            ]
        )
    caption = """### Bits by entropy and by Huffman

Weights are Huffman-coded in these files. The mid-tread variant hands out bins, not bits; *width* is what holds its
codes. Activations are not coded in hardware: their figures say what a coder would take. The paper reports entropies
alone, at other targets: 5.3 to 6.1 bits without and 2.2 to 4.4 with variable-length codes (paper: ImageNet)."""
    return Table(columns, lines, caption)


def _ratios(bench: _Bench) -> Table:
    ratios = kld_ratios(bench.graph, bench.statistics)
    lines = [[each.name, f"{each.tensor:.3f}", f"{each.channels:.3f}"] for each in ratios]
    means = [np.mean([each.tensor for each in ratios]), np.mean([each.channels for each in ratios])]
    caption = """### ACIQ's step over the KLD step

At 4 bits, tensor by tensor, for one step and as a mean over the steps of channels. The paper's means are 0.81, 0.81,
0.80 and 0.86 (paper: ResNet-18, -50, -101 and Inception v3 on ImageNet)."""
    return Table(
        ["tensor", "one step", "channels"], [["**mean**", *(f"**{mean:.3f}**" for mean in means)], *lines], caption
    )


def _agreement(bench: _Bench) -> Table:
    columns = ["setting", "requantise", "images", "layers by scale", "layers by threshold"]
    columns += ["tensors", "free-running tensors", "same predictions %"]
    lines = []
    for title, options, requantise in COMPARED:
        found = bench.quantised(Row(title, options), requantise)
        compared = agreement(found, bench.data.test.images[:AGREEMENT_IMAGES])
        shares = [compared.worst("scale"), compared.worst("threshold")]
        shares += [max(each.share for each in compared.tensors)]
        shares += [max(each.free_running_share for each in compared.tensors)]
        texts = [f"{share:.1e}" if share else "0" for share in shares]
        texts[1] = texts[1] if requantise == "threshold" else ""
        lines.append([title, requantise, str(compared.images), *texts, percent(compared.predictions)])
        bench.data.say(f"{bench.network} {title} {requantise}: {' '.join(texts)}")
    caption = """### The integer network beside the fake-quantised one

The greatest share of integers that differ from those of the fake-quantised layer in float64: among layers, fed with the
integer network's own inputs; among all tensors so (adds, copies and pools too); and among tensors where both networks
run by themselves."""
    return Table(columns, lines, caption)


def _run_time(bench: _Bench) -> Table:
    lines, test = [], bench.data.test
    assert test.labels is not None
    for title, options in (("default", {}), ("all", ALLOCATED)):
        settings = parse_settings(AciqSettings, options)
        logits = run_time_logits(bench.graph, bench.spec, test.images, settings, CALIBRATION)
        lines.append([title, percent(accuracy(logits, test.labels))])
        bench.data.say(f"run-time statistics, {bench.network}, {title}: {lines[-1][-1]}")
    caption = f"""### Run-time statistics: no hardware form

Fake-quantised in float64 with clips, widths and steps from every batch of {CALIBRATION} test images itself, as in the
paper's headline figures. No file and no engine can do this; it is here to be compared with."""
    return Table(["setting", "fake-quantised top-1 %"], lines, caption)


def _paper() -> Table:
    columns = ["paper, 4W4A top-1 %", "VGG16", "VGG16-BN", "Inception v3", "ResNet-18", "ResNet-50", "ResNet-101"]
    lines = [
        ["float", "71.6", "73.4", "77.2", "69.7", "76.1", "77.3"],
        ["naive", "67.2", "64.5", "30.6", "51.6", "62.0", "62.6"],
        ["all, run-time statistics", "70.5", "71.8", "66.4", "67.0", "73.8", "75.0"],
        ["naive, offline from 32 images", "61.8", "59.8", "22.8", "46.1", "62.2", "64.3"],
        ["all, offline from 32 images", "69.8", "71.0", "66.1", "65.1", "74.2", "76.1"],
        ["two-sigma clips, 8W4A", "47.2", "44.9", "13.4", "25.6", "15.4", "24.7"],
    ]
    return Table(columns, lines, "### The paper's own figures (paper: ImageNet, its own networks)")
