"""The errors that Gatewise raises on purpose.

A message is one line. It says what must be true and what was found:
"rows must be a power of two from 4 to 64, not 6". The command line prints it
as it stands and exits with 2 (1 for a `MismatchError`: a check that failed).
"""

__all__ = [
    "CapacityError",
    "FormatError",
    "GatewiseError",
    "MismatchError",
    "ToolMissingError",
    "UnsupportedError",
]


class GatewiseError(Exception):
    """Base of every error whose cause the user can mend."""


class FormatError(GatewiseError):
    """A file, an array or a setting is not what it must be."""


class UnsupportedError(GatewiseError):
    """The input is well formed, but asks for something that Gatewise does not do."""


class CapacityError(GatewiseError):
    """A network does not fit the engine it is to run on."""


class ToolMissingError(GatewiseError):
    """An optional package or program is not installed; the message names what installs it."""


class MismatchError(GatewiseError):
    """Two realisations of the same arithmetic disagree."""
