"""What the settings of methods and trainings are held to."""

import math

from ..kernels.errors import FormatError

__all__ = ["check_positive", "check_ranges"]


def check_ranges(settings: object, **ends: tuple[float, float]) -> None:
    """Refuse settings below the least or above the greatest value that each may have; NaN is neither.

    >>> check_ranges(MinMaxSettings(weight_bits=9), weight_bits=(1, 8))
    Traceback (most recent call last):
    gatewise.kernels.errors.FormatError: weight bits must be 1 to 8, not 9
    """
    for name, (least, most) in ends.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            raise FormatError(f"{_words(name)} must be {least} to {most}, not {value}")


def check_positive(settings: object, *names: str) -> None:
    """Refuse settings that are not positive, or infinite."""
    for name in names:
        value = getattr(settings, name)
        if not (math.isfinite(value) and value > 0):
            raise FormatError(f"{_words(name)} must be positive, not {value}")


def _words(name: str) -> str:
    return name.replace("_", " ")
