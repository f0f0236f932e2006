"""The stored form of weight tiles, written independently of the loader that reads it."""

import numpy as np
import pytest


def _words(values, bits, bus):
    """Values of `bits` bits, packed from bit 0 of the first word on."""
    whole = sum((int(value) & ((1 << bits) - 1)) << (bits * at) for at, value in enumerate(values))
    return [whole >> low & ((1 << bus) - 1) for low in range(0, len(values) * bits, bus)]


def _tile_words(codes, container, bus, amounts=None):
    """Bus words of one tile: the amounts row, then the codes of its rows; both from a fresh word."""
    head = [] if amounts is None else _words(amounts, 8, bus)
    return head + _words(np.asarray(codes).reshape(-1), container, bus)


@pytest.fixture(scope="session")
def tile_words():
    return _tile_words
