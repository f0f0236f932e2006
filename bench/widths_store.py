"""What docs/widths.json holds: networks and formats that bench/widths.py measures and widths_page.py shows."""

import json
from typing import Any

from gatewise.kernels.mac import MacFormat
from gatewise.sim.atomic import write_bytes
from paths import ROOT

STORE = ROOT / "docs" / "widths.json"
MODES = ("saturate", "wrap")
LANES = 16
RUN_TIME = "resnet20-aciq-w4a4"
HELD_OUT = 128
"""Training images that no training saw: on these the whole grid runs."""
DIGITS = "digits"
"""The network in the package."""
NETWORKS = {
    "resnet20-minmax-w4a4": "ResNet-20, one step for a layer's activations, 4 bits",
    "resnet20-aciq-w4a4": "ResNet-20, ACIQ, a step for each channel, 4 bits",
    "resnet20-aciq-all-w3a3": "ResNet-20, ACIQ with bit allocation, 3 bits on average",
    "resnet20-aciq-all-w4a4": "ResNet-20, ACIQ with bit allocation, 4 bits on average",
}
COLUMNS = (
    *("align", "acc", "overflow", "top1", "standard_error", "changed", "proved", "overflow_align", "worst_align"),
    *("overflow_acc", "worst_acc", "overflow_post", "share_align", "share_acc"),
)
"""What is stored of a point."""


def read() -> dict[str, Any]:
    """What is stored."""
    return json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {"networks": {}}


def write(store: dict[str, Any]) -> None:
    """Store it, a point a line."""
    text = json.dumps(store, separators=(",", ":")).replace("],[", "],\n[").replace('},"', '},\n"')
    write_bytes(STORE, (text + "\n").encode())


def row_formats(store: dict[str, Any]) -> list[MacFormat]:
    """Those along both axes, and the least pairs that the grids chose."""
    formats = []
    for mode in MODES:
        formats += [MacFormat(align=align, overflow=mode) for align in range(8, 17)]
        formats += [MacFormat(acc=acc, overflow=mode) for acc in range(12, 33)]
    for found in store["networks"].values():
        for mode, criteria in found["grid"]["least"].items():
            formats += [MacFormat(overflow=mode, **each["pair"]) for each in criteria.values() if each["pair"]]
    return list(dict.fromkeys(formats))


def key(mac: MacFormat) -> str:
    """A format's name in the store."""
    return f"{mac.align} {mac.acc} {mac.overflow}"
