"""Focused Quantisation's part of `bench/papers.py`: trained ResNet-20s by stages, sparsities and widths."""

import json
from pathlib import Path
from typing import Any

from agreed import agreement_facts
from focused import ENGINE, NETWORK
from focused import measure as train
from gatewise.kernels.errors import FormatError
from gatewise.quant.methods import quantize
from gatewise.sim.engine import EngineConfig
from gatewise.sim.file import load
from gatewise.sim.network import Network
from page import Data, Section, Table, compute_unit_gates, integer_run, percent
from paths import DATA, TRAINED

__all__ = ["focused_agreement", "focused_section"]

BUDGETS = {"9x": 9, "11x": 11}
"""Compressions that are wanted of 5 bits."""
AGREEMENT_COLUMNS = ["test images", "with multipliers", "with thresholds", "free running", "predictions that agree %"]
CONVERTED = ((3, 8), (5, 8), (7, 8), (5, 4))
"""Bits of weights and activations whose integers are compared without training."""
CALIBRATION = 32

TEXT = """
ResNet-20, CIFAR-10: pruned, then focused, fine-tuned on the 8,068 lossless training images less a tenth that is held
out; first and last layers are 8-bit integers, activations have 8 bits. Exports, settings and epochs are in
`bench/trained/` (`python bench/focused.py` trains one; weights come of the network of akamaster/pytorch_resnet_cifar10,
BSD licence, Y. Idelbayev). Bytes are those of the whole `.gw` file, manifest and constants included;
compression is against the {dense:,} bytes of the float32 network with folded batch norms. *Held out* is the
fake-quantised network after its last epoch on the held-out training images, which the float network has seen in its own
training.

**Rule of choice.** For each compression that is wanted, of the 5-bit exports that reach it the one with the highest
held-out top-1 after its last epoch; test images chose nothing. The row *pruned* is by the running batch norms of its
epoch.

The stages: *pruned* stores the float32 weights that are left and a bit for each weight that says which they are,
*encoded* the same with Huffman-coded runs of zeros, *quantised* is the file.
"""


def focused_section(data: Data) -> Section:
    """Count every export that is there."""
    found = {path.stem: _counted(path, data) for path in sorted(TRAINED.glob("focused-*.json"))}
    if not found:
        raise FormatError(f"{TRAINED} must hold exports of bench/focused.py, focused-*.gw and .json, and has none")
    chosen = {title: _chosen(found, factor) for title, factor in BUDGETS.items()}
    tables = [_stages(found, chosen), _rows(found, chosen), _beside(found, chosen, data), _paper()]
    dense = next(iter(found.values()))["stages"]["dense"]["bytes"]
    return Section("Focused Quantisation", TEXT.format(dense=dense), tables, list(found.values()))


def focused_agreement(data: Data) -> Section:
    """Integer layers beside fake-quantised ones: of trainings, which measured it at their end, and of conversions."""
    text = """
The share of integers that differ in the worst layer, and how many layers there are; each is fed the integer network's
own inputs. *Free running* is the worst layer of the two networks by themselves. Results of at most 4 bits can come of
thresholds, all of multipliers.
"""
    tables = [table for table in (_trained_agreement(), _converted_agreement(data)) if table.rows]
    return Section("Focused Quantisation: integers beside the fake-quantised network", text, tables)


def _counted(path: Path, data: Data) -> dict[str, Any]:
    """What the training wrote, with the integers counted now where the export is kept."""
    facts: dict[str, Any] = json.loads(path.read_text())
    if data.train:
        train(
            path.with_suffix(""), facts["options"], facts["training"]["epochs"], facts["training"]["seed"],
            data=DATA, run=False,
        )  # fmt: skip
        facts = json.loads(path.read_text())
    facts["name"] = path.stem
    if not path.with_suffix(".gw").is_file():
        return facts
    network = load(path.with_suffix(".gw"))
    result = integer_run(network, data.test, ENGINE)
    top1 = result.top(1) or 0.0
    size = path.with_suffix(".gw").stat().st_size
    facts["stages"]["quantised"] |= {"bytes": size, "top1": top1, "top5": result.top(5) or 0.0}
    facts["compression"] = facts["stages"]["dense"]["bytes"] / size
    facts |= {
        "error": (top1 * (1 - top1) / len(data.test)) ** 0.5,
        "cycles": int(result.cycles_per_image),
        "payload": _payload(network),
        "tested": len(data.test),
    }
    quantised = facts["stages"]["quantised"]
    data.say(f"{path.stem}: {quantised['bytes']:,} bytes, {percent(top1)} %")
    return facts


def _payload(network: Network) -> int:
    """Bytes of coded weights and their tables."""
    return sum(array.nbytes for name, array in network.arrays.items() if name.endswith((".weight", ".huffman")))


def _chosen(found: dict[str, dict[str, Any]], factor: float) -> str | None:
    """The export of 5 bits that the rule takes for a compression."""
    reach = [
        name
        for name, facts in found.items()
        if facts["settings"]["weight_bits"] == 5 and facts["compression"] >= factor and "focused" in facts["schemes"]
    ]
    return max(reach, key=lambda name: float(found[name]["epochs"][-1]["held_out_top1"]), default=None)


def _stages(found: dict[str, dict[str, Any]], chosen: dict[str, str | None]) -> Table:
    columns = ["wanted", "export", "stage", "bytes", "compression", "top-1 %", "top-5 %", "top-1 less than float"]
    lines = []
    for title, name in chosen.items():
        if name is None:
            lines.append([title, "none reaches it", *[""] * 6])
            continue
        stages = found[name]["stages"]
        for stage, facts in stages.items():
            lost = stages["dense"]["top1"] - facts["top1"]
            ratio = stages["dense"]["bytes"] / facts["bytes"]
            lines.append(
                [title, name, stage, f"{facts['bytes']:,}", f"{ratio:.2f}x", percent(facts["top1"]),
                 percent(facts["top5"]), percent(lost)]
            )  # fmt: skip
    return Table(columns, lines, "**From dense to quantised**, of the two exports that the rule chose")


def _rows(found: dict[str, dict[str, Any]], chosen: dict[str, str | None]) -> Table:
    columns = ["export", "bits", "pruned %", "plain shift layers", "bits a weight: Huffman (entropy)", "bytes"]
    columns += ["compression", "held out top-1 %", "integer top-1 %", "SE", "top-5 %"]
    columns += ["cycles", "options"]
    lines = []
    for name, facts in sorted(found.items(), key=lambda each: each[1]["stages"]["quantised"]["bytes"]):
        inner = [layer for layer in facts["layers"] if "shape" in layer]
        sizes = [_size(layer["shape"]) for layer in inner]

        def mean(key: str, inner: list[dict[str, Any]] = inner, sizes: list[int] = sizes) -> float:
            return sum(float(layer[key]) * size for layer, size in zip(inner, sizes, strict=True)) / sum(sizes)

        plain = [layer["name"] for layer in inner if layer["scheme"] == "shift"]
        shown = "none" if not plain else "all" if len(plain) == len(inner) else ", ".join(plain)
        quantised = facts["stages"]["quantised"]
        counted = ["", "", "", ""]
        if "cycles" in facts:
            counted = [percent(quantised["top1"]), percent(facts["error"]), percent(quantised["top5"])]
            counted.append(f"{facts['cycles']:,}")
        marked = [title for title, each in chosen.items() if each == name]
        lines.append(
            [f"**{name}** ({', '.join(marked)})" if marked else name, str(facts["settings"]["weight_bits"]),
             percent(mean("zeros"), 1), shown, f"{mean('huffman_bits'):.2f} ({mean('entropy_bits'):.2f})",
             f"{quantised['bytes']:,}", f"{facts['compression']:.2f}x", percent(facts["epochs"][-1]["held_out_top1"]),
             *counted,
             f"`--epochs {facts['training']['epochs']} {' '.join(facts['options'])}`"]
        )  # fmt: skip
    caption = "**Every training**, the smallest export first; integers are counted of those whose exports are kept"
    return Table(columns, lines, caption)


def _size(shape: list[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _trained_agreement() -> Table:
    """What the trainings found of their own exports."""
    found = {
        path.stem: json.loads(path.read_text()).get("agreement") for path in sorted(TRAINED.glob("focused-*.json"))
    }
    rows = [_agreement_row(name, facts) for name, facts in found.items() if facts is not None]
    return Table(["export", *AGREEMENT_COLUMNS], rows, "**Trained**, as each training found at its end")


def _converted_agreement(data: Data) -> Table:
    weights = DATA / "cifar10" / "resnet20.safetensors"
    rows = []
    for bits, activation_bits in CONVERTED:
        found = quantize(
            "focused", NETWORK, str(weights), data.training, images=CALIBRATION,
            options={"weight_bits": str(bits), "activation_bits": str(activation_bits), "sparsity": "0.3"},
        )  # fmt: skip
        rows.append(_agreement_row(f"{bits}, {activation_bits}", agreement_facts(found, data.test)))
    caption = "**Converted without training**, focused and plain shift layers, 30 % pruned"
    return Table(["bits of weights, activations", *AGREEMENT_COLUMNS], rows, caption)


def _agreement_row(name: str, facts: dict[str, Any]) -> list[str]:
    worst = [
        f"{facts[f'worst_{kind}']:.1e} ({facts[f'{kind}_layers']})" if facts[f"{kind}_layers"] else ""
        for kind in ("scale", "threshold")
    ]
    free = f"{facts['worst_free_running']:.1e}"
    return [name, str(facts["images"]), *worst, free, percent(facts["predictions"])]


def _beside(found: dict[str, dict[str, Any]], chosen: dict[str, str | None], data: Data) -> Table:
    """Cycles, bytes and gates beside integers of 4 bits in the same network."""
    weights = DATA / "cifar10" / "resnet20.safetensors"
    integers = quantize(
        "minmax", NETWORK, str(weights), data.training, images=CALIBRATION,
        options={"weight_bits": "4", "activation_bits": "8", "per_channel_weights": "true"},
    ).network  # fmt: skip
    cycles = int(integer_run(integers, data.test[:1], EngineConfig()).cycles_per_image)
    gates = compute_unit_gates()
    lines = [["int, 4 bits", "digit, raw", f"{cycles:,}", f"{_payload(integers):,}", gates["digit", "raw"]]]
    lines += [
        [f"focused, 5 bits, {title}", "shift, huffman", f"{found[name]['cycles']:,}", f"{found[name]['payload']:,}",
         gates["shift", "huffman"]]
        for title, name in chosen.items() if name is not None
    ]  # fmt: skip
    columns = ["inner layers", "array, decoder", "cycles an image", "bytes of weights and tables"]
    columns += ["gates of the compute unit (docs/engine.md)"]
    return Table(columns, lines, "**Beside 4-bit integers**, 8-bit activations, on engines of 16 x 16")


def _paper() -> Table:
    columns = ["ResNet-18 on ImageNet", "top-1 %", "top-5 %", "sparsity %", "MB", "compression"]
    lines = [
        ["dense", "68.94", "88.67", "0", "46.76", ""],
        ["pruned", "69.24", "89.05", "74.86", "8.31", "5.69x"],
        ["5 bits", "68.36", "88.45", "74.86", "2.86", "16.33x"],
        ["7 bits", "68.57", "88.53", "74.86", "2.94", "15.92x"],
    ]
    return Table(columns, lines, "**The paper's own** (Zhao et al. 2019, table 1), another network and other data")
