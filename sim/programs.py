"""The C++ compiler of the compiled co-simulation, wherever it is."""

import shutil

from ..kernels.errors import ToolMissingError

__all__ = ["COMPILERS", "find_compiler"]

COMPILERS = ("clang++", *(f"clang++-{release}" for release in range(14, 20)), "g++")
"""In order of preference: clang compiles these designs several times faster, to faster code."""


def find_compiler() -> str:
    """The path of the C++ compiler."""
    for name in COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise ToolMissingError("a C++ compiler (clang++ or g++) must be on the PATH: apt-get install clang")
