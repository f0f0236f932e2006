"""What the RTL floor needs beyond Python's own packages, and what to install where it is missing."""

import shutil
from importlib.util import find_spec

from ..kernels.errors import ToolMissingError

__all__ = ["require_icarus", "require_packages"]


def require_packages(*names: str) -> None:
    """Raise `ToolMissingError` unless the named Python packages can be imported."""
    for name in names:
        if find_spec(name) is None:
            raise ToolMissingError(f"{name.replace('_', '-')} must be installed: pip install 'gatewise[rtl]'")


def require_icarus() -> None:
    """Raise `ToolMissingError` unless Icarus Verilog is on the PATH."""
    for program in ("iverilog", "vvp"):
        if shutil.which(program) is None:
            raise ToolMissingError(f"{program} must be on the PATH: apt-get install iverilog")
