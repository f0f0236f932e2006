"""Where benches find data and exports, and where they write."""

import os
from pathlib import Path

__all__ = ["DATA", "ROOT", "TRAINED", "beside"]

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GATEWISE_DATA", ROOT / "../shared/data"))
"""GATEWISE_DATA, or ../shared/data beside the checkout."""
TRAINED = ROOT / "bench" / "trained"
"""Exports of trainings, and what made them."""


def beside(out: Path, suffix: str) -> Path:
    """The file whose path without suffix is `out`, in which there may be dots."""
    return out.with_name(out.name + suffix)
