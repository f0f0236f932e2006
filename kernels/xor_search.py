"""Search of the slice whose XOR outputs are nearest to wanted weight bits.

The slices are the information words of a linear code over GF(2), so this is decoding to the nearest code word,
with a cost for every wrong bit.

Up to 16 inputs every slice is tried. Above, it is a descent in the manner of ordered-statistics decoding (Fossorier
and Lin, IEEE Transactions on Information Theory 41, 1995): the most costly independent outputs are made right, which
settles the slice; then single outputs of that set and pairs of them are made wrong as long as this lowers the whole
cost, the best change first. It starts once from the order of the costs and a few times more from random orders, and
the best end is kept: the cost never rises, neither along a descent nor with a further start.
"""

import numpy as np

from .jit import jit

__all__ = ["EXACT_INPUTS", "STARTS", "nearest_slices"]

EXACT_INPUTS = 16
"""Networks of up to so many inputs are searched completely."""

STARTS = 4
"""Descents of a slice in a larger network."""

PART_BITS = 10
"""Outputs whose summed cost is looked up at once: 8 kB a part, so that two parts stay in the first cache."""


@jit
def _parity(word):  # type: ignore[no-untyped-def]
    for shift in (32, 16, 8, 4, 2, 1):
        word ^= word >> np.uint64(shift)
    return word & np.uint64(1)


@jit
def _tabulate(costs, table):  # type: ignore[no-untyped-def]
    """Summed cost of every set of wrong outputs, by part: sets of one more output from sets of one less."""
    for part in range(table.shape[0]):
        base = part * PART_BITS
        table[part, 0] = 0.0
        for k in range(min(PART_BITS, len(costs) - base)):
            for low in range(1 << k):
                table[part, (1 << k) | low] = table[part, low] + costs[base + k]


@jit
def _cost(wrong, table):  # type: ignore[no-untyped-def]
    total = 0.0
    for part in range(table.shape[0]):
        total += table[part, wrong & np.uint64((1 << PART_BITS) - 1)]
        wrong >>= np.uint64(PART_BITS)
    return total


@jit
def _exact(outputs, target, table):  # type: ignore[no-untyped-def]
    """The least slice of least cost; `outputs` are all slices' output words in order."""
    best, least = 0, _cost(outputs[0] ^ target, table)
    for code in range(1, len(outputs)):
        cost = _cost(outputs[code] ^ target, table)
        if cost < least:
            best, least = code, cost
    return np.uint64(best)


@jit
def _settle(rows, order, vectors, owner):  # type: ignore[no-untyped-def]
    """A basis of the slices, each vector of which changes one output of a settled set and no other of that set.

    Outputs are taken into the set in the given order. `owner` is each vector's output, or -1.
    """
    for j in range(len(vectors)):
        vectors[j] = np.uint64(1) << np.uint64(j)
        owner[j] = -1
    for o in order:
        pivot = -1
        for j in range(len(vectors)):
            if owner[j] < 0 and _parity(vectors[j] & rows[o]):
                pivot = j
                break
        if pivot < 0:
            continue
        owner[pivot] = o
        for j in range(len(vectors)):
            if j != pivot and _parity(vectors[j] & rows[o]):
                vectors[j] ^= vectors[pivot]


@jit
def _output_word(code, rows):  # type: ignore[no-untyped-def]
    word = np.uint64(0)
    for o in range(len(rows)):
        word |= _parity(code & rows[o]) << np.uint64(o)
    return word


@jit
def _descend(rows, order, target, table, vectors, owner, changes):  # type: ignore[no-untyped-def]
    """One descent: the slice at its end and its cost."""
    _settle(rows, order, vectors, owner)
    code = np.uint64(0)
    for j in range(len(vectors)):
        changes[j] = _output_word(vectors[j], rows)
        if owner[j] >= 0 and target >> np.uint64(owner[j]) & np.uint64(1):
            code ^= vectors[j]
    wrong = _output_word(code, rows) ^ target
    least = _cost(wrong, table)
    while least > 0.0:
        first, second, found = -1, -1, least
        for j in range(len(vectors)):
            cost = _cost(wrong ^ changes[j], table)
            if cost < found:
                first, second, found = j, -1, cost
            for k in range(j):
                cost = _cost(wrong ^ changes[j] ^ changes[k], table)
                if cost < found:
                    first, second, found = j, k, cost
        if first < 0:
            break
        code ^= vectors[first]
        wrong ^= changes[first]
        if second >= 0:
            code ^= vectors[second]
            wrong ^= changes[second]
        least = found
    return code, least


@jit
def _search(rows, n_in, targets, costs, outputs, orders, codes):  # type: ignore[no-untyped-def]
    n_out = len(rows)
    table = np.zeros((-(-n_out // PART_BITS), 1 << PART_BITS))
    vectors, changes = np.zeros(n_in, dtype=np.uint64), np.zeros(n_in, dtype=np.uint64)
    owner = np.zeros(n_in, dtype=np.int64)
    for s in range(len(targets)):
        target = np.uint64(0)
        for o in range(n_out):
            target |= np.uint64(targets[s, o]) << np.uint64(o)
        _tabulate(costs[s], table)
        if len(outputs):
            codes[s] = _exact(outputs, target, table)
            continue
        order = np.argsort(-costs[s], kind="mergesort")
        codes[s], least = _descend(rows, order, target, table, vectors, owner, changes)
        for start in range(len(orders)):
            if least == 0.0:
                break
            code, cost = _descend(rows, orders[start], target, table, vectors, owner, changes)
            if cost < least:
                codes[s], least = code, cost


def nearest_slices(
    masks: np.ndarray,
    n_in: int,
    targets: np.ndarray,
    costs: np.ndarray,
    *,
    exact_inputs: int = EXACT_INPUTS,
    starts: int = STARTS,
) -> np.ndarray:
    """Slice words (slices,), uint64, whose outputs are nearest to the targets.

    `masks` are the rows of the network, uint64 (n_out,); `targets` are bits (slices, n_out), `costs` float64 of the
    same shape. Networks of at most `exact_inputs` inputs are searched completely, others in `starts` descents.
    """
    outputs = np.zeros(0, dtype=np.uint64)
    if n_in <= exact_inputs:
        outputs = np.zeros(1, dtype=np.uint64)
        for j in range(n_in):
            column = sum(1 << o for o, mask in enumerate(masks.tolist()) if mask >> j & 1)
            outputs = np.concatenate([outputs, outputs ^ np.uint64(column)])
    rng = np.random.default_rng(0)
    orders = np.array([rng.permutation(len(masks)) for _ in range(starts - 1)], dtype=np.int64)
    codes = np.zeros(len(targets), dtype=np.uint64)
    _search(masks, n_in, targets, costs, outputs, orders.reshape(-1, len(masks)), codes)
    return codes
