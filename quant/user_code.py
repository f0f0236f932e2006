"""What code that is not ours raised, in one line: the error's first line and the place in the user's own source."""

import traceback
from pathlib import Path

import torch

__all__ = ["reason"]

OTHERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<frozen importlib")


def reason(error: Exception) -> str:
    """``Kind: message (file:line)``; the line is the innermost one outside PyTorch, Gatewise and the importer."""
    message = (str(error).strip().splitlines() or ["without a message"])[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(OTHERS) and "importlib" not in frame.filename]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {message}{place}"
