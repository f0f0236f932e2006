"""What a long program is doing: on a terminal in one line that changes, elsewhere in a line every now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

__all__ = ["PASSING", "progress"]

PASSING = "... "
"""Begins a line that the next one may take the place of."""
EVERY = 15
"""Seconds between two such lines."""


@contextmanager
def progress(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """What is to be told what is being done; the console may print lines that stay meanwhile."""
    if console.is_terminal:
        with console.status(title) as status:
            yield lambda text: status.update(f"{title}: {text}")
        return
    said = 0.0

    def tell(text: str) -> None:
        nonlocal said
        if time.monotonic() >= said + EVERY:
            said = time.monotonic()
            console.file.write(f"{PASSING}{title}: {text}\n")
            console.file.flush()

    yield tell
