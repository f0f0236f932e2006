"""Every method on real networks and real images; writes docs/results.md.

    python bench/papers.py [--part NAME ..] [--images N] [--train] [--output docs/results.md]

Parts are measured one by one; each stores its section in docs/results/, and the page is assembled from what is stored.
Trained networks are read from their committed files, unless --train trains them again.

Needs the data folder (GATEWISE_DATA, or ../shared/data beside the checkout). Test images are only counted.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gatewise.sim.atomic import write_bytes
from page import Data, Section, stored, write
from papers_aciq import aciq_choice, aciq_section, aciq_tuned
from papers_bayesian import bayesian_section
from papers_cosim import cosim_section
from papers_flexor import flexor_section
from papers_focused import focused_agreement, focused_section
from papers_hawq import hawq_choice, hawq_section, hawq_tuned_section
from papers_rivals import rivals
from paths import DATA, ROOT
from rich.console import Console

PARTS: dict[str, Callable[[Data], Section]] = {
    "aciq-resnet20": aciq_section("cifar-resnet20"),
    "aciq-resnet32": aciq_section("cifar-resnet32"),
    "aciq-choice": aciq_choice,
    "aciq-tuned": aciq_tuned,
    "focused": focused_section,
    "focused-agreement": focused_agreement,
    "flexor": flexor_section,
    "hawq": hawq_section,
    "hawq-choice": hawq_choice,
    "hawq-tuned": hawq_tuned_section,
    "rivals": rivals,
    "bayesian": bayesian_section,
    "cosim": cosim_section,
}
"""The page's sections in its order."""

HEAD = """# Results

Written by `python bench/papers.py`, part by part; the figures as they were measured are in `docs/results/`. *Integer*
is the top-1 of the exported file through `gatewise run` on the default engine. All figures are measured here, but
those in columns or lines that say *paper*: these are the paper's own, on its own network and data. CIFAR-10 test images
are 517, so that one point is five images; whatever is chosen was chosen on training images.
"""


def main() -> None:
    """Measure the parts and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=list(PARTS), help="measure these alone (default: all)")
    parser.add_argument("--images", type=int, default=None, help="test images (default: all)")
    parser.add_argument("--train", action="store_true", help="train again what is read from committed files otherwise")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results.md")
    arguments = parser.parse_args()
    if not (DATA / "cifar10").is_dir():
        sys.exit(f"error: the data folder must hold cifar10/: set GATEWISE_DATA, found nothing at {DATA}")
    with tempfile.TemporaryDirectory() as scratch:
        data = Data(arguments.images, arguments.train, Path(scratch), Console(width=200))
        for name in arguments.part or PARTS:
            write(name, PARTS[name](data))
    sections = [section for name in PARTS if (section := stored(name)) is not None]
    write_bytes(arguments.output, "\n".join([HEAD, *(section.markdown() for section in sections)]).encode())


if __name__ == "__main__":
    main()
