"""Where an example writes: said before it trains, and not after."""

import sys
from pathlib import Path

from gatewise import GatewiseError
from gatewise.sim.atomic import check_writable

__all__ = ["output_file", "output_folder"]


def output_file(name: str) -> str:
    """The file that the first argument names, or `name`; ends the program where it cannot be written."""
    path = sys.argv[1] if sys.argv[1:] else name
    _check(path)
    return path


def output_folder() -> Path:
    """The folder that the first argument names, or the one that is open; ends the program where it is no good."""
    folder = Path(sys.argv[1] if sys.argv[1:] else ".")
    _check(folder / "any.gw")
    return folder


def _check(path: str | Path) -> None:
    try:
        check_writable(path)
    except GatewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
