"""Files that are either whole or not there."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..kernels.errors import FormatError

__all__ = ["write_bytes", "write_json"]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in one step: readers see the old content or the new, never a part."""
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent or ".", prefix=f".{path.name}.")
    except OSError as error:
        raise FormatError(f"{path}: must be writable: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise FormatError(f"{path}: must be writable: {error.strerror}") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Write an object as indented JSON."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
