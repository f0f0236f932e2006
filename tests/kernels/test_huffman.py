"""Codes against other algorithms, streams and tables there and back, and everything wrong refused."""

import heapq
from functools import cache
from itertools import combinations_with_replacement, pairwise, product

import numpy as np
import pytest
from gatewise.kernels import huffman
from gatewise.kernels.errors import FormatError
from gatewise.kernels.huffman import HuffmanCode, HuffmanDecoder, HuffmanError, entropy
from hypothesis import given
from hypothesis import strategies as st


def total(code, counts):
    return sum(count * length for count, length in zip(counts, code.lengths, strict=True))


def least_total(counts, limit):
    """Least total length under a limit: how many leaves each level of the tree has, by dynamic programming."""
    weights = sorted((count for count in counts if count), reverse=True)

    @cache
    def best(placed, nodes, level):
        if placed == len(weights):
            return 0
        if level > limit:
            return 1 << 60
        found = 1 << 60
        for leaves in range(min(nodes, len(weights) - placed) + 1):
            here = level * sum(weights[placed : placed + leaves])
            below = min(2 * (nodes - leaves), len(weights))
            if below or placed + leaves == len(weights):
                found = min(found, here + best(placed + leaves, below, level + 1))
        return found

    return best(0, 2, 1)


def unlimited_total(counts):
    """Total length of Huffman's own tree."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        cost += pair
        heapq.heappush(heap, pair)
    return cost


@st.composite
def codes(draw, max_symbols=40):
    """A code of any lengths that leave room for each other, complete or not."""
    symbols = draw(st.integers(1, max_symbols))
    lengths, room = [], 1 << 16
    for _ in range(symbols):
        length = draw(st.integers(0, 16))
        if length and 1 << (16 - length) <= room:
            room -= 1 << (16 - length)
            lengths.append(length)
        else:
            lengths.append(0)
    if not any(lengths):
        lengths[draw(st.integers(0, symbols - 1))] = draw(st.integers(1, 16))
    return HuffmanCode(tuple(lengths))


@st.composite
def messages(draw, most=60):
    code = draw(codes())
    used = [symbol for symbol, length in enumerate(code.lengths) if length]
    return code, np.array(draw(st.lists(st.sampled_from(used), max_size=most)), dtype=np.uint8)


def tree_codes(leaves):
    """Every complete code of so many leaves, as ascending lengths."""
    for lengths in combinations_with_replacement(range(1, leaves), leaves):
        if sum(2.0**-length for length in lengths) == 1:
            yield lengths


class TestOf:
    @pytest.mark.parametrize("limit", [2, 3, 4])
    def test_no_lengths_under_the_limit_are_shorter_in_total(self, limit):
        for symbols in range(2, 5):
            every = [
                lengths
                for lengths in product(range(1, limit + 1), repeat=symbols)
                if sum(2.0**-length for length in lengths) <= 1
            ]
            for counts in product((1, 2, 3, 5, 9), repeat=symbols):
                found = total(HuffmanCode.of(counts, limit), counts)
                assert found == min(sum(map(np.multiply, counts, lengths)) for lengths in every)

    @given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any), limit=st.integers(4, 16))
    def test_the_total_is_that_of_another_algorithm(self, counts, limit):
        code = HuffmanCode.of(counts, limit)
        assert total(code, counts) == least_total(counts, limit)
        assert code.longest <= limit
        assert [length > 0 for length in code.lengths] == [count > 0 for count in counts]
        # A code of two symbols or more is complete.
        assert code.kraft_sum == (1 << 16 if np.count_nonzero(counts) > 1 else 1 << 15)

    @given(counts=st.lists(st.integers(1, 300), min_size=2, max_size=256))
    def test_a_limit_that_does_not_bind_gives_huffmans_total(self, counts):
        # So deep a tree needs counts like Fibonacci's numbers, 16 of which exceed these.
        assert total(HuffmanCode.of(counts), counts) == unlimited_total(counts)

    def test_a_limit_that_binds_costs_bits_and_no_more_than_it_must(self):
        fibonacci = [1, 1]
        while len(fibonacci) < 24:
            fibonacci.append(fibonacci[-1] + fibonacci[-2])
        found = [total(HuffmanCode.of(fibonacci, limit), fibonacci) for limit in range(5, 17)]
        assert found == [least_total(fibonacci, limit) for limit in range(5, 17)]
        assert found == sorted(found, reverse=True)
        assert found[-1] > unlimited_total(fibonacci)

    def test_one_symbol_has_one_bit_and_as_many_as_there_are_words_have_all(self):
        assert HuffmanCode.of([0, 7, 0]).lengths == (0, 1, 0)
        assert HuffmanCode.of(range(1, 9), 3).lengths == (3,) * 8
        assert HuffmanCode.of([1] * 256, 8).lengths == (8,) * 256

    @pytest.mark.parametrize(
        ("counts", "limit", "message"),
        [
            ([0, 0], 16, "a Huffman code must have a code word for at least one symbol"),
            ([], 16, "a Huffman alphabet must have 1 to 256 symbols, not 0"),
            ([1] * 257, 16, "a Huffman alphabet must have 1 to 256 symbols, not 257"),
            ([1, -2], 16, "symbol counts must not be negative, found -2"),
            ([1] * 5, 2, "code words of 2 bits must be for at most 4 symbols, not 5"),
            ([1], 0, "the Huffman length limit must be from 1 to 16, not 0"),
            ([1], 17, "the Huffman length limit must be from 1 to 16, not 17"),
        ],
    )
    def test_what_cannot_be_coded_is_refused(self, counts, limit, message):
        with pytest.raises(FormatError) as error:
            HuffmanCode.of(counts, limit)
        assert str(error.value) == message

    @given(counts=st.lists(st.integers(0, 1000), min_size=2, max_size=64).filter(lambda c: np.count_nonzero(c) > 1))
    def test_the_average_is_at_least_the_entropy_and_less_than_a_bit_above(self, counts):
        average = HuffmanCode.of(counts).average_bits(counts)
        assert entropy(np.array(counts)) <= average + 1e-9
        assert average < entropy(np.array(counts)) + 1

    def test_entropy_of_known_counts(self):
        assert entropy(np.array([4, 4, 8, 0])) == 1.5
        assert entropy(np.array([5, 0])) == entropy(np.array([0, 0])) == 0.0
        assert HuffmanCode((1, 2, 2)).average_bits([0, 0, 0]) == 0.0


class TestCode:
    @given(code=codes())
    def test_code_words_are_canonical_and_none_begins_another(self, code):
        used = sorted((length, symbol) for symbol, length in enumerate(code.lengths) if length)
        texts = [f"{code.words[symbol]:0{length}b}" for length, symbol in used]
        assert texts == sorted(texts)
        assert not any(b.startswith(a) for a, b in pairwise(texts))
        assert code.canonical.symbols.tolist() == [symbol for _, symbol in used]

    @pytest.mark.parametrize(
        ("lengths", "message"),
        [
            ((1, 1, 1), "Huffman lengths must have a Kraft sum of at most 1, not 1.5"),
            ((17, 1), "Huffman code words must have 0 to 16 bits, not 17"),
            ((-1, 1), "Huffman code words must have 0 to 16 bits, not -1"),
            ((0, 0), "a Huffman code must have a code word for at least one symbol"),
        ],
    )
    def test_lengths_are_checked(self, lengths, message):
        with pytest.raises(FormatError) as error:
            HuffmanCode(lengths)
        assert str(error.value) == message


class TestStream:
    def test_bits_stand_where_they_are_said_to(self):
        # Code words 0, 10, 11; the end mark is the 1 behind them.
        assert HuffmanCode((1, 2, 2)).encode(np.array([[0, 1], [2, 0]])).tolist() == [0b1_0_11_01_0]
        assert HuffmanCode((2, 1)).encode(np.array([0] * 4)).tolist() == [0b01010101, 1]
        assert HuffmanCode((1,)).encode(np.array([], dtype=np.int64)).tolist() == [1]

    @given(message=messages())
    def test_what_is_encoded_is_decoded(self, message):
        code, symbols = message
        data = code.encode(symbols)
        assert np.array_equal(code.decode(data, len(symbols)), symbols)
        assert len(data) == int(code.sizes(symbols).sum()) // 8 + 1

    def test_a_million_weights_come_back(self):
        rng = np.random.default_rng(0)
        symbols = np.clip(np.rint(rng.normal(0, 9, 10**6)), -64, 63).astype(np.int8).astype(np.int64) + 64
        counts = np.bincount(symbols, minlength=128)
        code = HuffmanCode.of(counts)
        data = code.encode(symbols)
        assert np.array_equal(code.decode(data, 10**6), symbols)
        assert len(data) == round(code.average_bits(counts) * 10**6) // 8 + 1

    def test_every_short_message_is_refused_with_every_other_count_and_length(self):
        for lengths in [(1,), (1, 2), (3, 3, 2), (0, 2, 3), *(c for n in (2, 3, 4) for c in tree_codes(n))]:
            code = HuffmanCode(lengths)
            used = [symbol for symbol, length in enumerate(lengths) if length]
            for count in range(5):
                for symbols in product(used, repeat=count):
                    data = code.encode(np.array(symbols, dtype=np.int64))
                    for wrong in range(count + 12):
                        if wrong != count:
                            with pytest.raises(FormatError):
                                code.decode(data, wrong)
                    for other in (data[:-1], np.append(data, np.uint8(0)), np.append(data, np.uint8(1))):
                        with pytest.raises(FormatError):
                            code.decode(other, count)

    @given(message=messages(), seed=st.integers(0, 2**32))
    def test_damaged_data_is_refused_or_means_something_else(self, message, seed):
        code, symbols = message
        data = code.encode(symbols)
        rng = np.random.default_rng(seed)
        for _ in range(8):
            damaged = data.copy()
            damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
            try:
                found = code.decode(damaged, len(symbols))
            except FormatError:
                continue
            assert not np.array_equal(found, symbols)
            assert np.array_equal(code.encode(found), damaged)

    @pytest.mark.parametrize(
        ("data", "count", "message"),
        [
            ([0b11], 1, "a Huffman stream must hold code words only, not at symbol 0"),
            ([0b11000], 2, "a Huffman stream must end after 2 symbols, but something else follows"),
            ([0b10], 8, "a Huffman stream must hold code words only, not at symbol 1"),
            ([0], 9, "a Huffman stream must hold 9 symbols and an end mark, but ends after 8"),
            ([0], 8, "a Huffman stream must hold 8 symbols and an end mark, but ends after 8"),
            ([], 0, "a Huffman stream must hold 0 symbols and an end mark, but ends after 0"),
            ([0], 4, "a Huffman stream must end after 4 symbols, but something else follows"),
            ([1, 0], 0, "a Huffman stream must end after 0 symbols, but something else follows"),
        ],
    )
    def test_each_error_has_its_message(self, data, count, message):
        with pytest.raises(FormatError) as error:
            HuffmanCode((1,)).decode(np.array(data, dtype=np.uint8), count)
        assert str(error.value) == message

    @pytest.mark.parametrize(
        ("symbols", "message"),
        [
            (np.array([0.5]), "symbols must be integers, not float64"),
            (np.array([0, 3]), "symbols must lie in 0..2, found 0..3"),
            (np.array([-1]), "symbols must lie in 0..2, found -1..-1"),
            (np.array([[0, 2], [1, 0]]), "every symbol must have a code word, but 1 has none"),
        ],
    )
    def test_symbols_without_a_code_word_are_refused(self, symbols, message):
        with pytest.raises(FormatError) as error:
            HuffmanCode((1, 0, 2)).encode(symbols)
        assert str(error.value) == message

    def test_data_must_be_bytes(self):
        with pytest.raises(
            FormatError, match=r"^Huffman data must be uint8 of one dimension, not int64 of shape \(2,\)$"
        ):
            HuffmanCode((1, 1)).decode(np.array([1, 2]), 3)


class TestTable:
    @given(code=codes(256))
    def test_a_table_comes_back(self, code):
        assert HuffmanCode.from_table(code.table()) == code

    @pytest.mark.parametrize(
        ("lengths", "nibbles"),
        [
            ((1, 2, 2), [1, 2, 2]),
            ((15, 16, 0, 0), [15, 0, 15, 1, 0, 1]),
            ((0,) * 17 + (1,), [0, 15, 0, 0, 1]),
            ((4, 4, 4, 1), [4, 4, 4, 1]),
            ((4, 4, 4, 4, 1), [4, 15, 2, 1]),
            ((8,) * 256, [8] + [15, 15] * 15 + [15, 14]),
        ],
    )
    def test_tables_are_as_they_are_said_to_be(self, lengths, nibbles):
        table = HuffmanCode(lengths).table()
        assert table[0] == len(lengths) - 1
        found = [nibble for byte in table[1:].tolist() for nibble in (byte & 15, byte >> 4)]
        assert found == nibbles + [0] * (len(nibbles) % 2)

    @given(code=codes(60), seed=st.integers(0, 2**32))
    def test_a_damaged_table_is_refused_or_another_codes(self, code, seed):
        table = code.table()
        rng = np.random.default_rng(seed)
        damaged = table.copy()
        damaged[rng.integers(len(table))] ^= rng.integers(1, 256, dtype=np.uint8)
        for data in (damaged, table[:-1], np.append(table, np.uint8(0)), np.append(table, np.uint8(0x11))):
            try:
                found = HuffmanCode.from_table(data)
            except FormatError:
                continue
            assert found != code
            assert np.array_equal(found.table(), data)

    def test_every_table_of_two_bytes_is_its_codes_own_or_refused(self):
        found = 0
        for high, low in product(range(256), repeat=2):
            data = np.array([high, low], dtype=np.uint8)
            try:
                code = HuffmanCode.from_table(data)
            except FormatError:
                continue
            found += 1
            assert np.array_equal(code.table(), data)
        assert found > 30

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ([], "a Huffman table must give the lengths of 1 symbols, found only 0"),
            ([2, 0x21], "a Huffman table must give the lengths of 3 symbols, found only 2"),
            ([1, 0xF1], "a Huffman table must give the lengths of 2 symbols, found only 1"),
            ([3, 0x22, 0x22], "a Huffman table must be written in its one shortest way, without anything behind it"),
            ([0, 0x2F], "a Huffman table must give the lengths of 1 symbols, found only 0"),
            ([1, 0x11, 0], "a Huffman table must be written in its one shortest way, without anything behind it"),
            ([2, 0x11, 0x1], "Huffman lengths must have a Kraft sum of at most 1, not 1.5"),
        ],
    )
    def test_each_error_has_its_message(self, data, message):
        with pytest.raises(FormatError) as error:
            HuffmanCode.from_table(np.array(data, dtype=np.uint8))
        assert str(error.value) == message


class TestDecoder:
    @given(message=messages(), chunk_bits=st.sampled_from([8, 16, 32, 64]))
    def test_the_golden_decoder_reads_what_is_encoded(self, message, chunk_bits):
        code, symbols = message
        decoder = HuffmanDecoder(chunk_bits=chunk_bits)
        chunks = decoder.chunks(code.encode(symbols))
        result = decoder.decode(chunks, code.canonical, len(symbols))
        assert result.error == HuffmanError.NONE
        assert np.array_equal(result.symbols, symbols)
        for wrong in (len(symbols) - 1, len(symbols) + 1):
            assert wrong < 0 or decoder.decode(chunks, code.canonical, wrong).error != HuffmanError.NONE
        for extra in (0, 1):
            longer = np.append(chunks, np.uint64(extra))
            assert decoder.decode(longer, code.canonical, len(symbols)).error == HuffmanError.COUNT
        if len(chunks) > 1:
            assert decoder.decode(chunks[:-1], code.canonical, len(symbols)).error != HuffmanError.NONE

    @pytest.mark.parametrize(("chunk_bits", "max_length"), [(16, 16), (32, 16), (64, 9), (8, 8), (8, 3)])
    def test_no_symbol_waits_where_chunks_hold_a_code_word(self, chunk_bits, max_length):
        decoder = HuffmanDecoder(max_length=max_length, chunk_bits=chunk_bits)
        rng = np.random.default_rng(1)
        for most in range(1, max_length + 1):
            sizes = rng.integers(1, most, 500, endpoint=True)
            cycles, times = decoder.times(sizes)
            assert np.array_equal(times, 2 + np.arange(500))
            assert cycles <= decoder.bound(500, int(sizes.sum()) // chunk_bits + 1)

    def test_table_words_say_what_the_registers_hold(self):
        decoder = HuffmanDecoder(max_length=3, alphabet=4, symbol_bits=6, chunk_bits=8)
        words = decoder.table_words(HuffmanCode((2, 1, 0, 2)), np.array([10, 20, 30, 40]))
        # Symbols in canonical order 1, 0, 3; limits 1, 4, 8; offsets 0, 1 - 2, 3 - 8 in two bits.
        assert words[:3].tolist() == [[0, 20], [1, 10], [2, 40]]
        assert words[3:].tolist() == [[4, 1], [5, 4 | 3 << 4], [6, 8 | 3 << 4]]

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: HuffmanDecoder(max_length=17), "Huffman decoder length limit must be from 1 to 16, not 17"),
            (lambda: HuffmanDecoder(alphabet=1), "Huffman decoder alphabet must be from 2 to 256, not 1"),
            (lambda: HuffmanDecoder(symbol_bits=0), "Huffman decoder symbol bits must be from 1 to 16, not 0"),
            (lambda: HuffmanDecoder(count_bits=33), "Huffman decoder count bits must be from 1 to 32, not 33"),
            (lambda: HuffmanDecoder(chunk_bits=24), "Huffman chunks must have 8, 16, 32 or 64 bits, not 24"),
            (
                lambda: HuffmanDecoder(max_length=2).table_words(HuffmanCode((1, 3))),
                "code words must have at most 2 bits, not 3",
            ),
            (
                lambda: HuffmanDecoder(alphabet=2).table_words(HuffmanCode((1, 3, 3))),
                "a code must have at most 2 symbols, not 3",
            ),
            (
                lambda: HuffmanDecoder(symbol_bits=2).table_words(HuffmanCode((0, 0, 0, 0, 1))),
                "symbols must fit 2 unsigned bits, found 4..4",
            ),
        ],
    )
    def test_parameters_are_checked(self, call, message):
        with pytest.raises(FormatError) as error:
            call()
        assert str(error.value) == message


class TestPlantedFaults:
    """Single changes that the tests above must see."""

    def test_lengths_that_are_not_optimal_are_seen(self, monkeypatch):
        package_merge = huffman._package_merge
        monkeypatch.setattr(huffman, "_package_merge", lambda weights, limit: package_merge(weights, limit)[::-1])
        counts = [1, 2, 3, 5, 9]
        assert total(HuffmanCode.of(counts), counts) != least_total(counts, 16)

    def test_a_stream_without_its_end_mark_is_seen(self):
        code = HuffmanCode((1, 1))
        data = code.encode(np.array([0, 1, 0]))
        data[0] &= 0b111
        with pytest.raises(FormatError):
            code.decode(data, 3)

    def test_an_offset_or_a_limit_that_is_one_off_is_seen(self):
        code = HuffmanCode((1, 2, 3, 4, 4))
        symbols = np.array([0, 1, 2, 3, 4] * 4)
        decoder = HuffmanDecoder(chunk_bits=16)
        chunks = decoder.chunks(code.encode(symbols))
        for length in range(1, 5):
            limits, offsets, order = code.canonical
            limits[length] -= 1
            result = decoder.decode(chunks, huffman.HuffmanTable(limits, offsets, order), len(symbols))
            assert result.error or not np.array_equal(result.symbols, symbols)
