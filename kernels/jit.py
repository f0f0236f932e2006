"""The one way in which kernels are compiled: cached on disk, and free of the interpreter's lock.

The cache only ever saves time. Where it cannot be written, kernels are compiled in every process; what is read from it
is used if it was compiled from this very source for this very signature and processor, and else compiled anew:

* several processes that fill an empty cache together may write different signatures under one name, and Numba would run
  one for the other;
* a process may find a file that another is about to replace, of an older source;
* a file may be cut short, or be none of Numba's.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

__all__ = ["jit"]

SHARED = ("finish.py", "jit.py", "packed.py", "tiles.py", "vectors.py")
"""Modules beside this one whose code becomes a part of kernels in others."""


def _stamp() -> tuple[tuple[int, int], ...]:
    files = [Path(__file__).with_name(name).stat() for name in SHARED]
    return tuple((each.st_mtime_ns, each.st_size) for each in files)


class _SafeCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a kernel, of which no failure is more than a compilation."""

    _stamp = _stamp()

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = self._cache_file._source_stamp, self._stamp

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel; none where there is none that is whole and the one that is asked for."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            # Whatever unpickling may raise. An index that cannot be read is written anew.
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel if the folder can be written."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        key = self._cache_file._source_stamp, self._index_key(sig, target_context.codegen())
        found = self._cache_file.load(key[1])
        return self._impl.rebuild(target_context, found[1]) if found is not None and found[0] == key else None

    def _save_overload(self, sig: Any, data: Any) -> None:
        if self._impl.check_cachable(data):
            self._impl.locator.ensure_cache_path()
            key = self._cache_file._source_stamp, self._index_key(sig, data.codegen)
            self._cache_file.save(key[1], (key, self._impl.reduce(data)))


def jit(function: Callable[..., Any]) -> Any:
    """Decorator of every compiled kernel."""
    compiled = numba.njit(nogil=True)(function)
    if not numba.config.DISABLE_JIT:
        # Numba finds no folder where neither the one beside the sources nor the user's can be written.
        with contextlib.suppress(RuntimeError):
            compiled._cache = _SafeCache(function)
    return compiled
