"""Python's collector of unused objects, held off where all that is made lives on."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_collection"]


@contextmanager
def no_collection() -> Iterator[None]:
    """Until the end, nothing is looked for that no one uses any more.

    A netlist in the making is millions of small objects. To go through them again and again, and to find that each is
    still in use, takes half of the time that making them takes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
