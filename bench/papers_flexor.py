"""FleXOR's part of `bench/papers.py`: LeNet-5 on MNIST, ResNet-20 on CIFAR-10, gradients beside each other."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from flexor import ABLATED, CALIBRATION, DIGIT_ENGINE, ENGINE, RUNS, Run, count, train
from gatewise.kernels.errors import FormatError
from gatewise.quant.methods import quantize
from gatewise.quant.minmax import MinMaxSettings
from gatewise.sim.images import load_images
from page import Data, Section, Table, compute_unit_gates, integer_run, percent
from paths import DATA, TRAINED

__all__ = ["flexor_section"]


TEXT = """
Weights are signs decoded from encrypted bits by XOR networks, times a coefficient for each output channel; activations
have 8 bits. *Bits a weight* are those of the encrypted layers, and in brackets those of all layers with coefficients
and networks. In LeNet-5 all four layers are encrypted; in ResNet-20 all but the first and the last, which are 8-bit
integers. Exports, settings and epochs are in `bench/trained/` (`python bench/flexor.py train` makes one). *Real
activations* is the trained network as the paper has it, without the rounding of activations. Cycles are those of an
engine of 16 x 16 with a sign array and an XOR decoder, in whose order the signs stand.

**Rule of choice.** Settings were compared on held-out training images; test images chose nothing, the last epoch is
reported. ResNet-20 has {images:,} training images, where the paper has 50,000, and a training of minutes; a tenth of
them is held out, which the given float network has seen.
"""


def flexor_section(data: Data) -> Section:
    """Put together what was counted."""
    found = {path.stem: _counted(path, data) for path in sorted(TRAINED.glob("flexor-*.json"))}
    if not found:
        raise FormatError(f"{TRAINED} must hold exports of bench/flexor.py, flexor-*.gw and .json, and has none")
    resnets = [facts for facts in found.values() if RUNS[facts["run"]].folder == "cifar10"]
    tables = [_rows(found), _gradients(found), _beside(found), _paper()]
    text = TEXT.format(images=max((facts["images"] for facts in resnets), default=0))
    return Section("FleXOR", text, tables, list(found.values()))


def _counted(path: Path, data: Data) -> dict[str, Any]:
    """What the training and the count wrote."""
    facts: dict[str, Any] = json.loads(path.read_text())
    out = path.with_suffix("")
    if data.train:
        train(out, facts["run"], facts["seed"], len(facts["epochs"]), data=DATA)
        facts = count(out, None, DATA)
    if "float_bytes" not in facts:
        raise FormatError(f"{path} must have been counted: python bench/flexor.py count {out}")
    return facts | {"name": path.stem}


def _rows(found: dict[str, dict[str, Any]]) -> Table:
    columns = ["network", "gradient", "bits a weight", "training", "held out %", "integer top-1 %", "SE"]
    columns += ["real activations %", "images", "file bytes", "float32 over it", "cycles", "integers that differ"]
    lines = []
    for facts in found.values():
        run = RUNS[facts["run"]]
        if facts["run"] in ABLATED:
            continue
        top1, tested = facts["integer_top1"], facts["test_images"]
        bits = "4, 8-bit edges"
        if run.method == "flexor":
            bits = f"{facts['encrypted_bits_per_weight']:.2f} ({facts['bits_per_weight']:.2f})"
        compared = facts.get("agreement")
        lines.append(
            [facts["run"], facts["method"].get("gradient", ""), bits,
             f"{len(facts['epochs'])} epochs of {facts['images']:,}", percent(facts["held_out_top1"]),
             f"**{percent(top1)}**", percent((top1 * (1 - top1) / tested) ** 0.5),
             percent(facts["real_activations_top1"]), f"{tested:,}", f"{facts['bytes']:,}",
             f"{facts['float_bytes'] / facts['bytes']:.1f}x", f"{facts['cycles']:,}",
             f"{compared['worst_scale']:.1e}" if compared else ""]
        )  # fmt: skip
    caption = (
        "**Every export.** *Integers that differ* is the worst layer's share beside the fake-quantised network, each "
        "layer fed the integer network's own inputs"
    )
    return Table(columns, lines, caption)


def _gradients(found: dict[str, dict[str, Any]]) -> Table:
    """The paper's gradient and its two ablations, on the same seeds and epochs."""
    columns = ["gradient", "seeds", "epochs", "integer top-1 % of each", "mean", "deviation", "held out %, mean"]
    columns += ["deviation", "last loss, mean", "trained on"]
    lines = []
    for name in ABLATED:
        own = sorted((facts for facts in found.values() if facts["run"] == name), key=lambda facts: facts["seed"])
        if not own:
            continue
        tops, held = [facts["integer_top1"] for facts in own], [facts["held_out_top1"] for facts in own]
        lines.append(
            [own[0]["method"]["gradient"], ", ".join(str(facts["seed"]) for facts in own),
             str(len(own[0]["epochs"])), ", ".join(map(percent, tops)), f"**{percent(mean(tops))}**", _spread(tops),
             percent(mean(held)), _spread(held), f"{mean(facts['epochs'][-1]['loss'] for facts in own):.3f}",
             ", ".join(dict.fromkeys(facts["device"] for facts in own))]
        )  # fmt: skip
    network, options = RUNS[ABLATED[0]].network, RUNS[ABLATED[0]].options
    caption = f"**Gradients of the XOR**, {network} at {options['n_in']} bits for 20 signs, the same seeds and epochs. "
    caption += (
        "*Analog* is the gradient of the whole product of tanh, behind signs; *real* has that product for an output as "
        "well, and the signs of a network that has never seen them"
    )
    return Table(columns, lines, caption)


def _spread(shares: list[float]) -> str:
    return percent(stdev(shares)) if len(shares) > 1 else ""


def _beside(found: dict[str, dict[str, Any]]) -> Table:
    """Cycles, bytes and gates beside integers of 4 bits in the same network."""
    gates = compute_unit_gates()
    lines = []
    for facts in found.values():
        run = RUNS[facts["run"]]
        if facts["run"] in ABLATED:
            continue
        engine = ENGINE if run.method == "flexor" else DIGIT_ENGINE
        lines.append(
            [facts["run"], f"{engine.array}, {engine.decoder}", f"{facts['cycles']:,}", f"{facts['weight_bytes']:,}",
             f"{facts['bytes_read']:,}", gates[engine.array, engine.decoder]]
        )  # fmt: skip
    networks = dict.fromkeys(RUNS[facts["run"]].network for facts in found.values())
    lines += [_converted(network, gates) for network in networks]
    columns = ["network", "array, decoder", "cycles an image", "bytes of coded weights", "bytes read an image"]
    columns += ["gates of the compute unit (docs/engine.md)"]
    return Table(columns, lines, "**Beside 4-bit integers**, 8-bit activations, on engines of 16 x 16")


def _converted(name: str, gates: dict[tuple[str, str], str]) -> list[str]:
    """A network of 4-bit integers between edges of 8 bits, not trained: what it takes does not depend on that."""
    run = Run(name, RUNS["lenet5-int4"].options, 0, "minmax")
    images = load_images(DATA / run.folder / "train.npz")[:CALIBRATION]
    weights = run.weights(DATA)
    integers = quantize(
        run.method, name, None if weights is None else str(weights), images,
        options={key: value for key, value in run.options.items() if hasattr(MinMaxSettings, key)},
    ).network  # fmt: skip
    result = integer_run(integers, images[:1], DIGIT_ENGINE)
    coded = sum(array.nbytes for key, array in integers.arrays.items() if key.endswith(".weight"))
    read = sum(layer.bytes_read for layer in result.layers)
    return [
        f"{name}, integers", f"{DIGIT_ENGINE.array}, {DIGIT_ENGINE.decoder}", f"{result.cycles_per_image:,}",
        f"{coded:,}", f"{read:,}", gates[DIGIT_ENGINE.array, DIGIT_ENGINE.decoder],
    ]  # fmt: skip


def _paper() -> Table:
    columns = ["the paper's network", "float top-1 %", "1.0 bits", "0.8 bits", "0.6 bits", "0.4 bits"]
    lines = [
        ["ResNet-20, CIFAR-10", "91.87", "90.44", "89.91", "89.16", "88.23"],
        ["ResNet-32, CIFAR-10", "92.33", "91.36", "91.20", "90.43", "89.61"],
    ]
    caption = "**The paper's own** (Lee et al. 2020, table 1): 50,000 training images, 500 epochs, real activations"
    return Table(columns, lines, caption)
