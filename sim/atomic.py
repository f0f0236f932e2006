"""Files that are either whole or not there."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.errors import FormatError

__all__ = ["check_writable", "write_arrays", "write_bytes", "write_json"]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in one step: readers see the old content or the new, never a part.

    Links are followed; devices and pipes (``/dev/stdout``) are written to, not replaced.
    """
    target = Path(path).resolve()
    try:
        if target.is_char_device() or target.is_fifo():
            target.write_bytes(data)
            return
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise FormatError(f"{path}: must be writable: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise FormatError(f"{path}: must be writable: {error.strerror}") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def check_writable(*paths: str | Path | None) -> None:
    """Raise `FormatError` for the first path that cannot be written: before hours of work, not after."""
    for path in paths:
        if path is None:
            continue
        target = Path(path).resolve()
        if target.is_dir():
            raise FormatError(f"{path}: must be writable: Is a directory")
        if not target.parent.is_dir():
            raise FormatError(f"{path}: must be writable: No such file or directory")
        if not os.access(target if target.is_char_device() else target.parent, os.W_OK):
            raise FormatError(f"{path}: must be writable: Permission denied")


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed ``.npz``, under any names."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_bytes(path, archive.getvalue())


def write_json(path: str | Path, content: Any) -> None:
    """Write an object as indented JSON."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
