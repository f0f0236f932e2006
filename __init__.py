"""Gatewise: what does this low-bit network cost in hardware, exactly?

>>> import gatewise
>>> result = gatewise.load("digits.gw").run(images)
>>> result.predictions, result.cycles_per_image
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Names are looked up when they are first used: `gatewise --help` shows itself before anything is compiled."""
    if name in __all__:
        for home in ("kernels.errors", "kernels.mac", "kernels.xor", "sim"):
            module = import_module(f".{home}", __name__)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
