"""Where benches find data and exports, and where they write."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from gatewise.kernels.errors import FormatError

__all__ = ["DATA", "ROOT", "TRAINED", "TRAINED_NETWORKS", "beside", "read_facts", "stored"]

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GATEWISE_DATA", ROOT / "../shared/data"))
"""GATEWISE_DATA, or ../shared/data beside the checkout."""
TRAINED = ROOT / "bench" / "trained"
"""Exports of trainings, and what made them."""

TRAINED_NETWORKS = {
    "ACIQ, 4 bits": "resnet20-aciq-all-w4a4",
    "8-bit fixed point": "resnet20-fixed8",
    "INQ, 4 bits": "resnet20-inq-w4",
    "Focused Quantisation, 5 bits": "focused-s61-w5",
    "FleXOR, 0.8 bits": "flexor-resnet20-0.8-s0",
    "LQ-Net, 2/2 bits": "resnet20-lqnet-w2a2",
    "ABC-Net, 5/5 bases": "resnet20-abcnet-w5a5",
}
"""Exports of ResNet-20s that were trained on CIFAR-10 in each scheme; docs/results.md has their accuracies."""


def beside(out: Path, suffix: str) -> Path:
    """The file whose path without suffix is `out`, in which there may be dots."""
    return out.with_name(out.name + suffix)


def stored(name: str, program: str) -> dict[str, Any]:
    """What docs/`name`.json holds; where there is none, one line says which program writes it, and exit code 2."""
    path = ROOT / "docs" / f"{name}.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"error: {path}: must be the JSON that {program} writes: {error}", file=sys.stderr)
        sys.exit(2)
    return content


def read_facts(path: Path) -> dict[str, Any]:
    """What a training wrote of itself; `FormatError` where there is no such file, or another one."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: must be the readable JSON of a training: {error}") from error
    if not isinstance(facts, dict) or "training" not in facts:
        raise FormatError(f"{path}: must be the JSON of a training, found none in it")
    return facts
