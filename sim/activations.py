"""How few bits activations take: entropy and Huffman codes of the codes that a run leaves in its tensors."""

import heapq
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ..kernels.huffman import entropy
from .graph import Value

__all__ = ["ActivationBits", "AverageBits", "activation_json", "code_counts", "huffman_bits"]


@dataclass(frozen=True, slots=True)
class ActivationBits:
    """A tensor's codes in the images of a run.

    `bits` are those of a code and `elements` the codes of an image; `entropy` and `huffman` are bits a code: what no
    code of single elements goes below, and what the best Huffman code of this tensor's own takes, without its table.
    """

    name: str
    bits: int
    elements: int
    entropy: float
    huffman: float

    @classmethod
    def of(cls, name: str, value: Value, counts: np.ndarray) -> "ActivationBits":
        """From how often every code occurs."""
        return cls(name, value.codes.bits, value.elements, entropy(counts), huffman_bits(counts))


def code_counts(codes: np.ndarray, value: Value) -> np.ndarray:
    """How often every code of a tensor occurs, from its least one on: int64 (2**bits,)."""
    least = value.codes.range[0]
    return np.asarray(np.bincount((codes.astype(np.int64) - least).reshape(-1), minlength=1 << value.codes.bits))


def huffman_bits(counts: np.ndarray) -> float:
    """Bits a symbol in the best Huffman code of symbols that occur `counts` times; 1 where there is but one.

    Each merge of the two rarest adds a bit to all below it (Huffman 1952). Code words may have any length.
    """
    weights = np.asarray(counts)[np.asarray(counts) > 0].tolist()
    if len(weights) < 2:
        return float(len(weights))
    total, bits = sum(weights), 0
    heapq.heapify(weights)
    while len(weights) > 1:
        merged = heapq.heappop(weights) + weights[0]
        heapq.heapreplace(weights, merged)
        bits += merged
    return float(bits / total)


class AverageBits(NamedTuple):
    """All tensors together: elements of an image, and bits a code, weighted by elements."""

    elements: int
    entropy: float
    huffman: float

    @classmethod
    def of(cls, tensors: Sequence[ActivationBits]) -> "AverageBits":
        """Over these tensors."""
        elements = sum(each.elements for each in tensors)
        held = sum(each.elements * each.entropy for each in tensors)
        coded = sum(each.elements * each.huffman for each in tensors)
        return cls(elements, held / elements, coded / elements)


def activation_json(tensors: Sequence[ActivationBits]) -> dict[str, Any]:
    """The documented JSON object: averages weighted by elements, then every tensor."""
    return {**AverageBits.of(tensors)._asdict(), "tensors": [asdict(each) for each in tensors]}
