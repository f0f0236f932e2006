"""A bank's stream comes apart again, and its cycles are those of decoders that are played row by row."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from gatewise.kernels import huffman_bank
from gatewise.kernels.errors import FormatError
from gatewise.kernels.huffman import HuffmanCode, HuffmanDecoder, HuffmanError
from gatewise.kernels.huffman_bank import QUEUE, HuffmanBank, interleave
from hypothesis import given
from hypothesis import strategies as st


def codes():
    """Codes of all shapes, of at least one symbol."""
    counts = st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any)
    return counts.map(HuffmanCode.of)


@st.composite
def banks(draw):
    """A bank, a code, and symbols of the rows in use."""
    code = draw(codes())
    bank = HuffmanBank(draw(st.integers(1, 6)), HuffmanDecoder(chunk_bits=draw(st.sampled_from([16, 32, 64]))))
    used = np.flatnonzero(code.lengths)
    shape = draw(st.integers(1, bank.rows)), draw(st.integers(0, 80))
    symbols = np.random.default_rng(draw(st.integers(0, 2**32))).choice(used, shape)
    return bank, code, symbols


def play(bank, sizes, columns, *, begin, shadow, ready, passes, half):
    """The decoders' cycles, with every row's own buffer: first uses, last chunk, end, ready, wait, symbols' cycles.

    A symbol is decoded once every row has its code word, and waits to be taken. Rows that have used up a chunk with it
    ask for the next one: their requests are registered, queue up and are served, a chunk a cycle, symbol by symbol.
    """
    rows, count = sizes.shape
    size, slots = bank.decoder.chunk_bits, bank.decoder.slots
    left = [int(each.sum()) // size + 1 for each in sizes]  # real chunks, the end mark's included
    filled, used = [0] * rows, [0] * rows
    serving, fresh, queue = deque(row for _ in range(slots) for row in range(rows)), [], deque()
    times, first, wait, column = [], [], 0, 0
    offered, last_chunk, done, cycle = False, begin, None, begin
    while done is None or offered:
        cycle += 1
        taken = offered and cycle >= shadow
        if taken:
            offered, column = False, column + 1
            if column == columns:
                can, column = max(ready, cycle), 0
                at = can if first else max(can, half)
                wait += at - can
                first.append(at)
                shadow, ready = at + 1, at + passes[len(first) - 1]
        through = not any(left)  # whoever asks now asks in vain
        k = len(times)
        requests = []
        if k < count and not offered and (through or len(queue) + bool(fresh) < QUEUE):
            if all(used[row] + sizes[row, k] <= filled[row] * size for row in range(rows)):
                for row in range(rows):
                    before = used[row] // size
                    used[row] += int(sizes[row, k])
                    if used[row] // size > before:
                        requests.append(row)
                times.append(cycle)
                offered = True
        if serving and not through:
            row = serving.popleft()
            filled[row] += 1
            left[row] -= left[row] > 0
            last_chunk = cycle
        if not serving:
            if queue:
                serving = queue.popleft()
            else:
                serving, fresh = deque(fresh), []
        if fresh:
            queue.append(deque(fresh))
        fresh = requests
        if done is None and len(times) == count and not any(left):
            rest = max(-(-(filled[row] * size - used[row]) // bank.decoder.max_length) for row in range(rows))
            done = cycle + 1 + max(1, rest)
    return first, last_chunk, max(done, cycle + 1), ready, wait, times


@given(case=banks(), data=st.data())
def test_tiles_take_the_cycles_of_the_played_decoders(case, data):
    bank, code, symbols = case
    sizes = code.sizes(symbols).astype(np.int64)
    columns = data.draw(st.integers(1, 12))
    begin = data.draw(st.integers(0, 50))
    draw = st.integers(0, 300)
    shadow, ready, half = data.draw(draw), data.draw(draw), data.draw(draw)
    passes = np.array(data.draw(st.lists(st.integers(1, 60), min_size=80, max_size=80)), dtype=np.int64)
    settings = {"begin": begin, "shadow": shadow, "ready": ready, "passes": passes, "half": half}
    found = bank.tiles(bank.stream(sizes), columns, **settings)
    first, last_chunk, done, after, wait, times = play(bank, sizes, columns, **settings)
    assert (found.first.tolist(), found.times.tolist()) == (first, times)
    assert (found.last_chunk, found.done, found.ready, found.wait) == (last_chunk, done, after, wait)


@pytest.mark.parametrize("name", ["QUEUE", "needs"])
def test_a_bank_that_waits_for_less_is_seen(name, monkeypatch):
    rng = np.random.default_rng(2)
    bank = HuffmanBank(6, HuffmanDecoder(chunk_bits=16))
    sizes = rng.integers(1, 17, (6, 200))
    settings = {"begin": 0, "shadow": 0, "ready": 0, "passes": np.full(50, 1), "half": 0}
    stream = bank.stream(sizes)
    expected = play(bank, sizes, 4, **settings)
    assert bank.tiles(stream, 4, **settings).times.tolist() == expected[-1]
    if name == "needs":
        stream = stream._replace(needs=stream.needs - 1)
        assert bank.tiles(stream, 4, **settings).times.tolist() != expected[-1]
    else:
        monkeypatch.setitem(globals(), "QUEUE", huffman_bank.QUEUE - 1)
        assert play(bank, sizes, 4, **settings)[-1] != expected[-1]


@given(case=banks())
def test_interleaved_streams_come_apart_again(case):
    bank, code, symbols = case
    rows, count = symbols.shape
    chunks = interleave([code.encode(row) for row in symbols], code, count, bank)
    result = bank.decode(chunks, code.canonical, count, rows)
    assert result.error == HuffmanError.NONE
    assert np.array_equal(result.symbols, symbols)
    real = sum(int(code.sizes(row).sum()) // bank.decoder.chunk_bits + 1 for row in symbols)
    # In the end a row may ask in vain as often as its buffer has places.
    assert real <= len(chunks) <= real + rows * bank.decoder.slots
    assert chunks[-1] != 0


@given(case=banks())
def test_wrong_counts_and_lengths_are_errors(case):
    bank, code, symbols = case
    rows, count = symbols.shape
    chunks = interleave([code.encode(row) for row in symbols], code, count, bank)
    table = code.canonical
    for wrong in (count - 1, count + 1):
        assert wrong < 0 or bank.decode(chunks, table, wrong, rows).error != HuffmanError.NONE
    for extra in (0, 1, 1 << 15):
        longer = np.append(chunks, np.uint64(extra))
        assert bank.decode(longer, table, count, rows).error == HuffmanError.COUNT
    if len(chunks) > 1:
        assert bank.decode(chunks[:-1], table, count, rows).error != HuffmanError.NONE


def test_chunks_come_in_the_order_of_the_requests():
    bank = HuffmanBank(3, HuffmanDecoder(max_length=8, chunk_bits=8))
    code = HuffmanCode((8,) * 256)
    symbols = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    words = code.words
    found = interleave([code.encode(row) for row in symbols], code, 3, bank)
    reverse = [int(f"{word:08b}"[::-1], 2) for word in words]
    # Four places in each row's buffer: three symbols and the end mark.
    assert bank.decoder.slots == 4
    wanted = [reverse[row[k]] for k in range(3) for row in symbols]
    assert found.tolist() == [*wanted, 1, 1, 1]


@given(case=banks())
def test_a_row_alone_takes_the_cycles_of_a_decoder_or_a_few_more(case):
    bank, code, symbols = case
    bank = replace(bank, rows=1)
    sizes = code.sizes(symbols[:1])
    cycles, times = bank.times(sizes)
    single, single_times = bank.decoder.times(sizes[0])
    assert (times >= single_times).all()
    # A request is served two cycles after its symbol; a decoder takes a chunk in the next.
    assert cycles >= single
    assert cycles <= bank.bound(symbols.shape[1], int(sizes.sum()) // bank.decoder.chunk_bits + 1)


def test_two_chunks_that_change_places_are_seen():
    rng = np.random.default_rng(0)
    code = HuffmanCode.of([1, 3, 9, 20, 40])
    bank = HuffmanBank(4, HuffmanDecoder(chunk_bits=16))
    symbols = rng.integers(0, 5, (4, 60))
    chunks = interleave([code.encode(row) for row in symbols], code, 60, bank)
    for k in range(len(chunks) - 1):
        if chunks[k] != chunks[k + 1]:
            swapped = chunks.copy()
            swapped[[k, k + 1]] = swapped[[k + 1, k]]
            result = bank.decode(swapped, code.canonical, 60, 4)
            assert result.error or not np.array_equal(result.symbols, symbols)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HuffmanBank(0, HuffmanDecoder()), "a Huffman bank must have 1 to 65 rows, not 0"),
        (
            lambda: HuffmanBank(4, HuffmanDecoder(chunk_bits=8)),
            "chunks of a Huffman bank must hold a code word of 16 bits, not 8 bits",
        ),
        (
            lambda: HuffmanBank(4, HuffmanDecoder()).cycles(np.ones((5, 2))),
            "a Huffman bank of 4 rows must use 1 to 4 of them, not 5",
        ),
    ],
)
def test_parameters_are_checked(call, message):
    with pytest.raises(FormatError) as error:
        call()
    assert str(error.value) == message
