"""The demo: a W4A4 network for the UCI optical digits and its held-out test images, shipped with the package.

``examples/digits/train.py`` made both; the float network's accuracy on the same images is in the
file's provenance.
"""

from dataclasses import dataclass
from pathlib import Path

from .engine import EngineConfig
from .images import ImageSet, load_images
from .inspect import Inspection, inspect_file
from .network import Network
from .run import RunResult

__all__ = ["Demo", "load_demo"]

FOLDER = Path(__file__).parent / "digits"


@dataclass(frozen=True, slots=True)
class Demo:
    """A network, images that it has never seen, and the engine to run them on."""

    facts: Inspection
    images: ImageSet
    engine: EngineConfig

    @property
    def network(self) -> Network:
        """The exported network."""
        return self.facts.network

    @property
    def float_top1(self) -> float:
        """Top-1 of the float network on the same images, measured when the file was made."""
        return float(self.network.manifest.provenance["float_top1"])

    def comparison(self, result: RunResult) -> list[str]:
        """The integer network beside the float one, a line each."""
        top1 = result.top(1) or 0.0
        return [
            f"float network        {100 * self.float_top1:.2f} % top-1 on the same images; "
            f"the integer network loses {100 * (self.float_top1 - top1):.2f} points",
            f"file                 {self.facts.file_bytes:,} bytes; float32 weights {self.facts.float_bytes:,} bytes, "
            f"{self.facts.compression:.2f} times as many",
        ]


def load_demo() -> Demo:
    """Read the shipped network and images."""
    return Demo(inspect_file(FOLDER / "digits-w4a4.gw"), load_images(FOLDER / "test.npz"), EngineConfig())
