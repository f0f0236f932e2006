"""Where benches find data and exports, and where they write."""

import json
import os
from pathlib import Path
from typing import Any

from gatewise.kernels.errors import FormatError

__all__ = ["DATA", "ROOT", "TRAINED", "beside", "read_facts"]

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GATEWISE_DATA", ROOT / "../shared/data"))
"""GATEWISE_DATA, or ../shared/data beside the checkout."""
TRAINED = ROOT / "bench" / "trained"
"""Exports of trainings, and what made them."""


def beside(out: Path, suffix: str) -> Path:
    """The file whose path without suffix is `out`, in which there may be dots."""
    return out.with_name(out.name + suffix)


def read_facts(path: Path) -> dict[str, Any]:
    """What a training wrote of itself; `FormatError` where there is no such file, or another one."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: must be the readable JSON of a training: {error}") from error
    if not isinstance(facts, dict) or "training" not in facts:
        raise FormatError(f"{path}: must be the JSON of a training, found none in it")
    return facts
