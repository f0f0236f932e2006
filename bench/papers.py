"""Accuracy of every method on real networks and real images; writes docs/results.md.

    python bench/papers.py [--images N] [--output docs/results.md]

Needs the data folder (GATEWISE_DATA, or ../shared/data beside the checkout). Networks are calibrated on the
first training images alone; test images are only counted.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gatewise.quant.methods import quantize
from gatewise.sim.atomic import write_bytes
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet, load_images
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GATEWISE_DATA", ROOT / "../shared/data"))
CALIBRATION = 32


@dataclass(frozen=True)
class Row:
    """A network, a method and its options."""

    title: str
    network: str
    method: str
    bits: int
    options: dict[str, str]

    @property
    def weights(self) -> Path:
        """The trained float weights."""
        return DATA / "cifar10" / f"{self.network.removeprefix('cifar-')}.safetensors"

    @property
    def command(self) -> str:
        """What a user types for it."""
        options = "".join(f" --option {key}={value}" for key, value in self.options.items())
        return f"--method {self.method} --network {self.network} --bits {self.bits}{options}"


def rows() -> list[Row]:
    """The table's rows."""
    resnet20, resnet32 = "cifar-resnet20", "cifar-resnet32"
    return [
        Row("min-max, one step per tensor", resnet20, "minmax", 4, {}),
        Row("min-max, weight steps per channel", resnet20, "minmax", 4, {"per_channel_weights": "true"}),
        Row("ACIQ", resnet20, "aciq", 4, {}),
        Row("ACIQ, multiplier alignment", resnet20, "aciq", 4, {"alignment": "mul"}),
        Row("ACIQ, exact clip constants", resnet20, "aciq", 4, {"constants": "exact"}),
        Row("ACIQ, one activation step per tensor", resnet20, "aciq", 4, {"per_channel": "false"}),
        Row("ACIQ, no bias correction", resnet20, "aciq", 4, {"mean_correction": "false"}),
        Row("ACIQ", resnet20, "aciq", 3, {}),
        Row("min-max, one step per tensor", resnet20, "minmax", 8, {}),
        Row("min-max, one step per tensor", resnet32, "minmax", 4, {}),
        Row("ACIQ", resnet32, "aciq", 4, {}),
    ]


def measure(row: Row, calibration: ImageSet, test: ImageSet, scratch: Path) -> str:
    """One line of the table."""
    found = quantize(
        row.method, row.network, str(row.weights), calibration,
        images=CALIBRATION, bits=row.bits, options=row.options, test=test,
    )  # fmt: skip
    size = save_network(found.network, scratch)
    result = found.network.run(test)
    fake = found.quantized.run(test.images)
    top1 = result.top(1) or 0.0
    exact = float(found.network.manifest.provenance["float_top1"])
    agree = float(np.mean(fake.argmax(axis=1) == result.predictions))
    error = (top1 * (1 - top1) / len(test)) ** 0.5
    return (
        f"| {row.title} | {row.network} | {row.bits} / {row.bits} | {100 * exact:.2f} | **{100 * top1:.2f}** | "
        f"{100 * error:.2f} | {100 * agree:.1f} | {size:,} | {result.cycles_per_image:,} | `{row.command}` |"
    )


HEAD = """# Results

Written by `python bench/papers.py`. {images} CIFAR-10 test images; calibration on the first {calibration} training
images, without labels. First and last layers have 8 bits. *Integer* is the top-1 of the exported file through
`gatewise run` on the default engine; *agree* is the share of images whose prediction equals the
fake-quantised network's in float64. All figures are measured; none is a paper's.

The defaults of ACIQ were chosen by the error of the logits on 600 other training images. The other rows are
ablations, not a search: with these few test images differences of one point are noise.

"""
COLUMNS = (
    *("method", "network", "bits W / A", "float top-1 %", "integer top-1 %", "standard error", "agree %"),
    *("file bytes", "cycles per image", "`gatewise quantize`"),
)


def main() -> None:
    """Print the table and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=None, help="test images (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results.md")
    arguments = parser.parse_args()
    if not (DATA / "cifar10").is_dir():
        sys.exit(f"error: the data folder must hold cifar10/: set GATEWISE_DATA, found nothing at {DATA}")
    calibration = load_images(DATA / "cifar10" / "train.npz")
    test = load_images(DATA / "cifar10" / "test.npz")[: arguments.images]
    console = Console(width=200)
    page = HEAD.format(images=len(test), calibration=CALIBRATION)
    page += f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows():
            line = measure(row, calibration, test, Path(scratch) / "network.gw")
            console.print(line, markup=False, highlight=False)
            page += line + "\n"
    write_bytes(arguments.output, page.encode())


if __name__ == "__main__":
    main()
