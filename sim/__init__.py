"""The exported network: its file, its builder, bit-exact execution and the cycle model."""

from .builder import Grid, NetworkBuilder, Tensor, Thresholds
from .engine import EngineConfig
from .file import load, save_network
from .images import ImageSet, load_images
from .manifest import InputSpec
from .network import Network
from .plane_basis import PlaneBasis
from .prune import without_pruned
from .run import RunResult, run
from .weights import WeightCodes

__all__ = [
    "EngineConfig",
    "Grid",
    "ImageSet",
    "InputSpec",
    "Network",
    "NetworkBuilder",
    "PlaneBasis",
    "RunResult",
    "Tensor",
    "Thresholds",
    "WeightCodes",
    "load",
    "load_images",
    "run",
    "save_network",
    "without_pruned",
]
