"""The one way in which kernels are compiled: cached on disk, and free of the interpreter's lock.

An unwritable cache folder costs time, never an error: Numba, which refuses to compile where it can
write neither beside the sources nor in the home folder, is given a temporary folder.
"""

import os
import tempfile
from pathlib import Path

import numba

__all__ = ["cache_fallback", "jit"]


def cache_fallback(package: Path, home: Path) -> str | None:
    """A new temporary folder where neither the package's folder nor the home folder can be written."""
    beside = package / "__pycache__"
    while not home.exists():
        home = home.parent
    if any(os.access(folder, os.W_OK) for folder in (beside if beside.exists() else package, home)):
        return None
    return tempfile.mkdtemp(prefix="gatewise-numba-")


if not numba.config.CACHE_DIR:
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    numba.config.CACHE_DIR = cache_fallback(Path(__file__).parent, cache_home) or ""

jit = numba.njit(cache=True, nogil=True)
"""Decorator of every compiled kernel."""
