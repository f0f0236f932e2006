"""Gatewise: what does this low-bit network cost in hardware, exactly?

>>> import gatewise
>>> result = gatewise.load("digits.gw").run(images)
>>> result.predictions, result.cycles_per_image
"""

from .kernels.errors import (
    CapacityError,
    FormatError,
    GatewiseError,
    MismatchError,
    ToolMissingError,
    UnsupportedError,
)
from .kernels.mac import MacFormat
from .kernels.xor import XorNetwork
from .sim import (
    EngineConfig,
    Grid,
    ImageSet,
    InputSpec,
    Network,
    NetworkBuilder,
    PlaneBasis,
    RunResult,
    Thresholds,
    WeightCodes,
    load,
    without_pruned,
)

__all__ = [
    "CapacityError",
    "EngineConfig",
    "FormatError",
    "GatewiseError",
    "Grid",
    "ImageSet",
    "InputSpec",
    "MacFormat",
    "MismatchError",
    "Network",
    "NetworkBuilder",
    "PlaneBasis",
    "RunResult",
    "Thresholds",
    "ToolMissingError",
    "UnsupportedError",
    "WeightCodes",
    "XorNetwork",
    "load",
    "without_pruned",
]
