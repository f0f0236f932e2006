"""Huffman decoders: every cycle on Icarus, long streams and all kinds of wrong ones in compiled co-simulation."""

from dataclasses import replace

import numpy as np
import pytest
from gatewise import kernels
from gatewise.kernels.errors import ToolMissingError
from gatewise.kernels.huffman import HuffmanError, HuffmanTable
from gatewise.rtl import cxxrtl, huffman
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.cxxrtl import bits_of, compile_design, words_of
from gatewise.rtl.regress import run_bench
from gatewise.rtl.stepped import steppable

FAULTS = {
    "a code word at its limit": ("    return value < limit\n", "    return value <= limit\n"),
    "an offset too many": (
        "+ _chosen(match, list(self.offsets))",
        "+ _chosen(match, list(self.offsets)) + 1",
    ),
    "bits used before they have come": ("self.enough.eq((match & come).any())", "self.enough.eq(match.any())"),
    "old bits behind the new ones": ("longest) & come)", "longest))"),
    "a full buffer that takes a chunk": (
        "(filled[:slot_bits] != used[:slot_bits]) | (filled[slot_bits] == used[slot_bits])",
        "filled == filled",
    ),
    "a chunk that is all zeros at the end": ("with m.Elif(last_blank | Mux", "with m.Elif(Mux"),
    "no end mark": ("Mux(first, ~seen.mark, ~seen.blank)", "~(seen.mark | seen.blank)"),
    "chunks left over": ("with m.Elif(~asked):", "with m.Elif(~asked & asks):"),
    "a waiting symbol overwritten behind the last one": ("read.en.eq(self.step & ~self.tail)", "read.en.eq(self.step)"),
    "an end before its last symbol is taken": ("top.done.valid.eq(~top.o.valid)", "top.done.valid.eq(1)"),
    "a symbol decoded while one waits": ("seen.enough & advance &", "seen.enough &"),
}

BANK_FAULTS = {
    "the highest row first": (
        "asking[row] & ~asking[:row].any() if row",
        "asking[row] & ~asking[row + 1 :].any() if row",
    ),
    "a queue that is too full": ("waiting + fresh.any() >= QUEUE", "waiting + fresh.any() >= QUEUE + 1"),
    "a stage that is not passed over": ("passes.eq(1)", "passes.eq(0)"),
    "requests of rows that are not in use": (
        "Cat(row.crosses for row in rows) & in_use",
        "Cat(row.crosses for row in rows)",
    ),
    "one round of requests too few": ("rounds.eq(decoder.slots - 1)", "rounds.eq(decoder.slots - 2)"),
    "a row that does not wait for the others": (
        "(Cat(getattr(row, name) for row in rows) | ~in_use).all()",
        "(Cat(getattr(row, name) for row in rows) & in_use).any()",
    ),
    "a queue kept from the stream before": ("                waiting.eq(0),\n", ""),
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder of libraries that starts empty and serves the whole test run; skips where there is no compiler."""
    try:
        cxxrtl.find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    return tmp_path_factory.mktemp("cosim")


@pytest.mark.usefixtures("icarus")
class TestOnIcarus:
    @pytest.mark.parametrize("name", ["huffman", "huffman_bank"])
    def test_every_cycle_is_the_models(self, name):
        for seed, case in enumerate(BLOCKS[name].cases):
            assert run_bench(BLOCKS[name], case, vectors=2500, seed=seed).mismatch is None

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault_in_a_decoder_is_found(self, fault, planted):
        names = planted(huffman, *FAULTS[fault])
        block = replace(BLOCKS["huffman"], component=steppable(names["HuffmanDecoder"]))
        case = {"stepped": True, "alphabet": 16, "max_length": 6, "chunk_bits": 8}
        assert "must be" in run_bench(block, case, vectors=6000).mismatch

    @pytest.mark.parametrize("fault", BANK_FAULTS)
    def test_a_fault_in_a_bank_is_found(self, fault, planted):
        names = planted(huffman, *BANK_FAULTS[fault])
        block = replace(BLOCKS["huffman_bank"], component=steppable(names["HuffmanBank"]))
        case = {"stepped": True, "rows": 5, "alphabet": 16, "max_length": 8, "chunk_bits": 8}
        assert "must be" in run_bench(block, case, vectors=6000).mismatch


def random_code(rng, most=32, max_length=16):
    counts = np.zeros(most, dtype=np.int64)
    used = rng.choice(most, rng.integers(2, most, endpoint=True), replace=False)
    counts[used] = 1 + rng.geometric(0.5 ** rng.integers(1, 14), len(used)) ** 2
    return kernels.HuffmanCode.of(counts, max_length), counts / counts.sum()


def weights(rng, count, spread, alphabet=256):
    """Rounded normal values as symbols, and their code."""
    symbols = np.clip(np.rint(rng.normal(alphabet / 2, spread, count)), 0, alphabet - 1).astype(np.int64)
    return symbols, kernels.HuffmanCode.of(np.bincount(symbols.reshape(-1), minlength=alphabet))


class Bench:
    """A decoder or a bank, compiled, that takes one stream after the other."""

    def __init__(self, parameters, cache):
        self.parameters = parameters
        self.bank = isinstance(parameters, kernels.HuffmanBank)
        self.decoder = parameters.decoder if self.bank else parameters
        self.design = compile_design(
            (huffman.HuffmanBank if self.bank else huffman.HuffmanDecoder)(parameters), cache=cache
        )
        self.simulation = self.design.simulate()

    def load(self, code, values=None):
        words = self.decoder.table_words(code, values)
        ports = {"write": np.ones(len(words), dtype=np.int64), "address": words[:, 0], "value": words[:, 1]}
        self.simulation.vectors({f"table__{name}": column for name, column in ports.items()}, [])
        self.simulation.poke("table__write", 0)

    def run(self, chunks, count, wanted, rows=None, **options):
        """Symbols, error, and cycles from the start to the end, of a stream of which `wanted` symbols are expected."""
        decoder = self.decoder
        bits = np.unpackbits(chunks[:, None].view(np.uint8), axis=1, bitorder="little")[:, : decoder.chunk_bits]
        last = np.arange(len(chunks)) == len(chunks) - 1
        start = count if rows is None else count | rows << decoder.count_bits
        self.record = record = self.simulation.streams(
            {"start": np.array([start]), "i": words_of(np.column_stack([bits, last]))},
            {"o": wanted, "done": 1},
            **options,
        )
        assert record.violation is None
        shape = wanted, self.parameters.rows if self.bank else 1, decoder.symbol_bits
        found = bits_of(record.payloads["o"], shape[1] * shape[2]).reshape(shape).astype(np.int64)
        symbols = (found << np.arange(decoder.symbol_bits)).sum(axis=2).T
        cycles = int(record.delivered["done"][0] - record.accepted["start"][0])
        return symbols, HuffmanError(record.payloads["done"][0, 0]), cycles


def checked(bench, code, chunks, count, rows=None, table=None, **options):
    """Run a stream of any kind: it must give what the golden model gives, in no more cycles than the bound."""
    golden = bench.parameters.decode(chunks, table or code.canonical, count, *([] if rows is None else [rows]))
    wanted = golden.symbols.shape[-1]
    symbols, error, cycles = bench.run(chunks, count, wanted, rows, **options)
    assert error == golden.error
    assert np.array_equal(symbols[: rows or 1], golden.symbols.reshape(rows or 1, wanted))
    assert not symbols[rows or 1 :].any(), "rows not in use give 0"
    if not options.get("stalls", True):
        assert cycles <= bench.parameters.bound(count, len(chunks))
    return error, cycles


class TestDecoder:
    @pytest.mark.parametrize(
        ("chunk_bits", "max_length", "spread"),
        [(32, 16, 2.0), (64, 16, 30.0), (16, 16, 9.0), (8, 16, 48.0), (8, 8, 48.0)],
    )
    def test_a_million_weights_take_a_cycle_each(self, cache, chunk_bits, max_length, spread):
        bench = Bench(kernels.HuffmanDecoder(max_length, chunk_bits=chunk_bits), cache)
        symbols, _ = weights(np.random.default_rng(0), 10**6, spread)
        counts = np.bincount(symbols, minlength=256)
        code = kernels.HuffmanCode.of(counts, max_length)
        assert code.average_bits(counts) <= chunk_bits
        bench.load(code)
        chunks = bench.decoder.chunks(code.encode(symbols))
        found, error, cycles = bench.run(chunks, 10**6, 10**6, stalls=False, patience=10**7)
        assert error == HuffmanError.NONE
        assert np.array_equal(found[0], symbols)
        wanted, times = bench.decoder.times(code.sizes(symbols))
        assert cycles == wanted
        # A symbol is offered in the cycle after the one that decodes it.
        assert np.array_equal(bench.record.delivered["o"] - bench.record.accepted["start"][0], times + 1)
        if chunk_bits >= max_length:
            assert np.array_equal(times, np.arange(2, 10**6 + 2)), "no symbol waits"
        # With longer code words than chunks, a few wait for their bits.
        assert cycles <= 1.0002 * 10**6

    def test_code_words_of_every_length_take_a_cycle_each(self, cache):
        bench = Bench(kernels.HuffmanDecoder(chunk_bits=16), cache)
        code = kernels.HuffmanCode((*range(1, 16), 16, 16))
        bench.load(code)
        for used in (range(17), range(12, 17), [16], [0, 16]):
            symbols = np.random.default_rng(2).choice(list(used), 3000)
            chunks = bench.decoder.chunks(code.encode(symbols))
            assert checked(bench, code, chunks, 3000, stalls=False) == (0, bench.decoder.cycles(code.sizes(symbols)))
            assert (np.diff(bench.record.delivered["o"]) == 1).all()

    def test_short_streams_take_the_cycles_they_should(self, cache):
        rng = np.random.default_rng(3)
        bench = Bench(kernels.HuffmanDecoder(alphabet=32, chunk_bits=8), cache)
        for _ in range(40):
            code, shares = random_code(rng)
            bench.load(code)
            for count in (0, 1, 2, int(rng.integers(3, 100))):
                symbols = rng.choice(32, count, p=shares)
                chunks = bench.decoder.chunks(code.encode(symbols))
                found = checked(bench, code, chunks, count, stalls=False, unstalled=4)
                assert found == (HuffmanError.NONE, bench.decoder.cycles(code.sizes(symbols)))

    def test_symbols_may_stand_for_other_words(self, cache):
        bench = Bench(kernels.HuffmanDecoder(alphabet=20, symbol_bits=11), cache)
        code = kernels.HuffmanCode((2, 0, 2, 1))
        values = np.array([1025, 7, 2047, 300])
        bench.load(code, values)
        symbols = np.random.default_rng(0).choice([0, 2, 3], 500)
        found, error, _ = bench.run(bench.decoder.chunks(code.encode(symbols)), 500, 500, seed=1)
        assert error == HuffmanError.NONE
        assert np.array_equal(found[0], values[symbols])

    @pytest.mark.parametrize("stalls", [False, True])
    def test_a_thousand_damaged_streams_end_as_they_should(self, cache, stalls):
        rng = np.random.default_rng(4)
        bench = Bench(kernels.HuffmanDecoder(alphabet=32), cache)
        seen = dict.fromkeys(HuffmanError, 0)
        for trial in range(1000):
            if trial % 20 == 0:
                code, shares = random_code(rng)
                bench.load(code)
            count = int(rng.integers(1, 150))
            symbols = rng.choice(32, count, p=shares)
            chunks = bench.decoder.chunks(code.encode(symbols))
            kind = trial % 5
            asked = count
            if kind == 0:
                for _ in range(rng.integers(1, 4)):
                    chunks[rng.integers(len(chunks))] ^= np.uint64(1 << int(rng.integers(32)))
            elif kind == 1 and len(chunks) > 1:
                chunks = chunks[: rng.integers(1, len(chunks))]
            elif kind == 2:
                asked = max(0, count + int(rng.choice([-40, -2, -1, 1, 2, 40])))
            elif kind == 3:
                chunks = np.append(chunks, np.uint64(rng.integers(0, 2)))
            elif kind == 4:
                chunks = np.zeros(rng.integers(1, 4), dtype=np.uint64)
            error, _ = checked(bench, code, chunks, asked, stalls=stalls, seed=trial, unstalled=4)
            damaged = kind != 1 or len(chunks) <= int(code.sizes(symbols).sum()) // 32
            assert error != HuffmanError.NONE or kind == 0 or not damaged
            seen[error] += 1
        assert min(seen[HuffmanError.TRUNCATED], seen[HuffmanError.COUNT]) > 50

    def test_an_unassigned_code_is_an_error_wherever_it_stands(self, cache):
        rng = np.random.default_rng(5)
        bench = Bench(kernels.HuffmanDecoder(alphabet=32), cache)
        for _ in range(60):
            code, _ = random_code(rng)
            # Without the last symbol in canonical order, all others keep their code words.
            last = int(code.canonical.symbols[-1])
            gap = kernels.HuffmanCode(tuple(0 if k == last else length for k, length in enumerate(code.lengths)))
            bench.load(gap)
            count = int(rng.integers(1, 100))
            symbols = rng.choice(np.flatnonzero(gap.lengths), count)
            at = int(rng.integers(count))
            symbols[at] = last
            chunks = bench.decoder.chunks(code.encode(symbols))
            error, _ = checked(bench, gap, chunks, count, stalls=False, unstalled=4)
            assert error == HuffmanError.UNASSIGNED
            assert len(bench.record.payloads["o"]) == at

    def test_every_wrong_count_and_every_cut_is_an_error(self, cache):
        bench = Bench(kernels.HuffmanDecoder(alphabet=32, chunk_bits=8), cache)
        rng = np.random.default_rng(6)
        for lengths in [(1,), (1, 1), (1, 2, 2), (2, 2, 2), (1, 3, 16)]:
            code = kernels.HuffmanCode(lengths)
            bench.load(code)
            symbols = rng.integers(0, len(lengths), 24)
            # Zeros at the end look most like what fills a chunk up.
            symbols[-9:] = 0
            chunks = bench.decoder.chunks(code.encode(symbols))
            for count in range(44):
                error, _ = checked(bench, code, chunks, count, stalls=False, unstalled=2)
                assert (error == HuffmanError.NONE) == (count == 24)
            for cut in range(1, len(chunks)):
                assert checked(bench, code, chunks[:cut], 24, stalls=False, unstalled=2)[0] == HuffmanError.TRUNCATED

    def test_tables_that_were_never_loaded_end_too(self, cache):
        bench = Bench(kernels.HuffmanDecoder(alphabet=32), cache)
        nothing = HuffmanTable(np.zeros(17, np.int32), np.zeros(17, np.int32), np.zeros(32, np.uint8))
        chunks = np.arange(1, 6, dtype=np.uint64)
        error, _ = checked(bench, None, chunks, 9, table=nothing, stalls=False)
        assert error == HuffmanError.UNASSIGNED


BANKS = [(1, 16, 16), (3, 32, 16), (4, 16, 12), (5, 8, 8), (8, 64, 16)]


def bank_of(rows, chunk_bits, max_length):
    return kernels.HuffmanBank(rows, kernels.HuffmanDecoder(max_length, 32, 5, chunk_bits, 20))


class TestBank:
    @pytest.mark.parametrize(("rows", "chunk_bits", "max_length"), BANKS)
    def test_a_bank_takes_exactly_the_cycles_it_should(self, cache, rows, chunk_bits, max_length):
        rng = np.random.default_rng(rows)
        bench = Bench(bank_of(rows, chunk_bits, max_length), cache)
        waits = 0
        for trial in range(40):
            code, shares = random_code(rng, max_length=max_length)
            bench.load(code)
            used = rows if trial % 2 else int(rng.integers(1, rows, endpoint=True))
            count = int(rng.choice([0, 1, 2, 16, rng.integers(3, 400)]))
            # Every other time the rows' code words differ in length as much as they can.
            symbols = rng.choice(32, (used, count), p=shares)
            if trial % 4 > 1:
                symbols[: used // 2] = code.canonical.symbols[-1]
            sizes = code.sizes(symbols)
            chunks = kernels.interleave([code.encode(row) for row in symbols], code, count, bench.parameters)
            error, cycles = checked(bench, code, chunks, count, used, stalls=False, unstalled=4)
            wanted, times = bench.parameters.times(sizes)
            assert (error, cycles) == (HuffmanError.NONE, wanted)
            assert np.array_equal(bench.record.delivered["o"] - bench.record.accepted["start"][0], times + 1)
            waits += int((np.diff(times) > 1).sum())
        assert rows == 1 or waits, "nothing ever waited"

    def test_a_long_stream_of_sixteen_rows(self, cache):
        bank = kernels.HuffmanBank(16, kernels.HuffmanDecoder(alphabet=32, symbol_bits=5, chunk_bits=64))
        bench = Bench(bank, cache)
        symbols, code = weights(np.random.default_rng(0), (16, 62_500), 1.5, 32)
        bench.load(code)
        sizes = code.sizes(symbols)
        chunks = kernels.interleave([code.encode(row) for row in symbols], code, 62_500, bank)
        error, cycles = checked(bench, code, chunks, 62_500, 16, stalls=False, patience=10**6)
        assert (error, cycles) == (HuffmanError.NONE, bank.cycles(sizes))
        # 16 rows of 2.7 bits are two thirds of a chunk a cycle.
        assert cycles < 1.001 * 62_500

    @pytest.mark.parametrize(("rows", "chunk_bits", "max_length"), BANKS)
    def test_stalls_change_nothing_but_time(self, cache, rows, chunk_bits, max_length):
        rng = np.random.default_rng(7)
        bench = Bench(bank_of(rows, chunk_bits, max_length), cache)
        cycles = set()
        code, shares = random_code(rng, max_length=max_length)
        bench.load(code)
        symbols = rng.choice(32, (rows, 300), p=shares)
        chunks = kernels.interleave([code.encode(row) for row in symbols], code, 300, bench.parameters)
        for seed in range(12):
            found, error, took = bench.run(chunks, 300, 300, rows, seed=seed, unstalled=0)
            assert error == HuffmanError.NONE
            assert np.array_equal(found, symbols)
            cycles.add(took)
        assert len(cycles) > 6
        assert min(cycles) > bench.parameters.cycles(code.sizes(symbols))

    @pytest.mark.parametrize("stalls", [False, True])
    def test_a_thousand_damaged_streams_end_as_they_should(self, cache, stalls):
        rng = np.random.default_rng(8)
        bench = Bench(bank_of(4, 16, 12), cache)
        seen = dict.fromkeys(HuffmanError, 0)
        for trial in range(1000):
            if trial % 20 == 0:
                code, shares = random_code(rng, max_length=12)
                bench.load(code)
            used = int(rng.integers(1, 4, endpoint=True))
            asked = count = int(rng.integers(1, 80))
            symbols = rng.choice(32, (used, count), p=shares)
            chunks = kernels.interleave([code.encode(row) for row in symbols], code, count, bench.parameters)
            whole = len(chunks)
            kind = trial % 4
            if kind == 0:
                chunks[rng.integers(len(chunks))] ^= np.uint64(1 << int(rng.integers(16)))
            elif kind == 1:
                chunks = chunks[: rng.integers(1, max(2, len(chunks)))]
            elif kind == 2:
                asked = max(0, count + int(rng.choice([-20, -1, 1, 20])))
            elif kind == 3:
                chunks = np.append(chunks, np.uint64(rng.integers(0, 2)))
            error, _ = checked(bench, code, chunks, asked, used, stalls=stalls, seed=trial, unstalled=4)
            assert error != HuffmanError.NONE or kind == 0 or (kind == 1 and len(chunks) == whole)
            seen[error] += 1
        assert min(seen[HuffmanError.TRUNCATED], seen[HuffmanError.COUNT]) > 50

    def test_an_unassigned_code_in_any_row_is_an_error(self, cache):
        rng = np.random.default_rng(9)
        bench = Bench(bank_of(4, 16, 12), cache)
        code = kernels.HuffmanCode((1, 2, 3, 4, 4))
        gap = kernels.HuffmanCode((1, 2, 3, 4))
        bench.load(gap)
        for trial in range(60):
            symbols = rng.integers(0, 4, (4, 50))
            at = int(rng.integers(50))
            symbols[trial % 4, at] = 4
            chunks = kernels.interleave([code.encode(row) for row in symbols], code, 50, bench.parameters)
            error, _ = checked(bench, gap, chunks, 50, 4, stalls=False, unstalled=4)
            assert error == HuffmanError.UNASSIGNED
            assert len(bench.record.payloads["o"]) == at
