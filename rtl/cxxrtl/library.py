"""The compiled library as Python calls it."""

import ctypes
from pathlib import Path

__all__ = ["load_library"]


def load_library(path: Path) -> ctypes.CDLL | None:
    """The library of that file with its functions' types; None where there is none."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    handle, text, number, size, pointer = (
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_uint64,
        ctypes.c_size_t,
        ctypes.c_void_p,
    )
    answer = ctypes.c_int64
    for name, result, arguments in (
        ("create", handle, ()),
        ("destroy", None, (handle,)),
        ("error", text, (handle,)),
        ("cycle", number, (handle,)),
        ("reset", None, (handle, number)),
        ("signals", text, (handle,)),
        ("peek", answer, (handle, text, number, pointer)),
        ("poke", answer, (handle, text, number, pointer)),
        ("run", answer, (handle, number, text, pointer)),
        ("vectors", answer, (handle, number, size, pointer, pointer, size, pointer, pointer)),
        (
            "streams",
            answer,
            (handle, *(size, *(pointer,) * 4), *(size, *(pointer,) * 5), number, ctypes.c_int, number, number),
        ),
        ("attach_bus", answer, (handle, text, text, text, pointer, number, size, number, ctypes.c_double, number)),
        ("bus_words", number, (handle, ctypes.c_int64, ctypes.c_int)),
        ("record", answer, (handle, text, size, pointer)),
        ("recorded", number, (handle, ctypes.c_int64)),
        ("take", None, (handle, ctypes.c_int64, pointer, pointer)),
        ("waveform", answer, (handle, text, number, number)),
    ):
        function = getattr(library, f"gatewise_{name}")
        function.restype = result
        function.argtypes = arguments
    return library
