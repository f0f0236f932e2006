"""How each array runs a layer: what streams to its PEs, what they make of it, and what the registers say.

The kernels' weights and the codes of the memory image come from here together, so that they cannot differ.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.errors import UnsupportedError
from ..kernels.shift import NEGATIVE, POSITIVE, ShiftFormat, signed_digit_passes
from .engine import Array, EngineConfig
from .layer import MacLayer

if TYPE_CHECKING:
    from .network import Network

__all__ = ["ArrayForm", "array_form", "check_arrays"]

SCHEMES: dict[Array, tuple[str, ...]] = {"digit": ("int",), "shift": ("int", "shift", "focused")}
"""What each array that there is runs."""


@dataclass(frozen=True, slots=True)
class ArrayForm:
    """A layer on an array.

    Parameters
    ----------
    weights : digits (digits, out, in per group, ky, kx), or the exact integers of parts whose rows nothing limits
    codes : what streams: codes of whole weights (1, out, in per group, ky, kx), or of a part each
    bits : of a streamed code
    signed : whether the loader extends a code by its sign
    registers : those that only this array has
    """

    weights: np.ndarray
    codes: np.ndarray
    bits: int
    signed: bool
    exact_rows: bool
    registers: dict[str, int] = field(default_factory=dict)

    @property
    def passes(self) -> int:
        """Digits or parts of a weight."""
        return len(self.weights)


def array_form(layer: MacLayer, array: Array) -> ArrayForm:
    """The layer as that array runs it."""
    if array == "shift":
        return _on_shift(layer)
    return ArrayForm(layer.digits, layer.codes[None], layer.node.weights.bits, True, False)


def check_arrays(network: "Network", engine: EngineConfig) -> None:
    """Raise `UnsupportedError` where the engine's array or decoder does not run a layer, with what would."""
    if engine.array not in SCHEMES:
        raise UnsupportedError(f"array must be {' or '.join(SCHEMES)}, not {engine.array}: that one is not built yet")
    if engine.decoder != "raw":
        raise UnsupportedError(f"decoder must be raw, not {engine.decoder}: that one is not built yet")
    for layer in network.layers.values():
        scheme, name = layer.node.weights.scheme, layer.node.name
        if scheme not in SCHEMES[engine.array]:
            able = [array for array, schemes in SCHEMES.items() if scheme in schemes]
            wanted = f'array = "{able[0]}"' if able else "an array that is not built yet"
            raise UnsupportedError(
                f'{name}: scheme {scheme} must run on an engine with {wanted}, not array = "{engine.array}"'
            )
        if engine.array != "digit" and layer.node.align is not None:
            raise UnsupportedError(
                f'{name}: an aligned layer must run on an engine with array = "digit", not array = "{engine.array}"'
            )


def _on_shift(layer: MacLayer) -> ArrayForm:
    """Shift codes as they are; an integer as its least number of signed powers of two, a part each."""
    spec = layer.node.weights
    if spec.scheme == "int":
        fmt, pe_codes = ShiftFormat((spec.bits - 1).bit_length()), signed_digit_passes(layer.codes, spec.bits)
        sign = (pe_codes >> 4 == POSITIVE).astype(np.int32) - (pe_codes >> 4 == NEGATIVE)
        weights = sign << (pe_codes & 15).astype(np.int32)
    else:
        fmt = spec.format
        pe_codes, weights = fmt.pe_codes(layer.codes)[None], fmt.weights(layer.codes)[None]
    registers = {"part_top": len(weights) - 1}
    if fmt.focused:
        registers |= {"focused": 1, "value_shift": fmt.value_shift}
        for name, (sign, shift) in (("minus", fmt.minus), ("plus", fmt.plus)):
            registers |= {f"{name}_shift": shift, f"{name}_negative": int(sign < 0)}
    # The state is complemented in the stream: lanes without a weight hold zeros, and do nothing.
    exponent, state, component = pe_codes & 15, pe_codes >> 4 & 3, pe_codes >> 6
    streamed = (3 - state) | (component << 2 | exponent << 3 if fmt.focused else exponent << 2)
    return ArrayForm(weights, streamed, fmt.bits, False, True, registers)
