"""Frames of XOR-coded weights: runs cut into rows, cycles in closed form, streams cut short."""

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.xor import XorNetwork, XorProgrammable
from gatewise.kernels.xor_stream import XorDecoder, XorRows, XorRun, XorStream, run_cycles, schedule_runs
from hypothesis import given
from hypothesis import strategies as st

NETWORK = XorNetwork.random(12, 20, 2, 14)


@st.composite
def frames(draw):
    """Runs, and the sizes of network, words and rows."""
    n_in, n_out = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    word_bits, row_bits = draw(st.sampled_from([8, 16, 32, 128, 512])), draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
    run = st.builds(XorRun, st.integers(1, 200), st.integers(0, n_out - 1), st.booleans())
    return draw(st.lists(run, min_size=1, max_size=6)), n_in, n_out, word_bits, row_bits


def walked(runs, n_in, n_out, word_bits, row_bits):
    """Slices, words and cycles of every run by walking bit by bit and cycle by cycle."""
    results, held, words, pool, cycle = [], 0, 0, 0, 0
    arrived = False
    for run in runs:
        slices, begun, start = 0, cycle, words
        skip = 0
        if run.restart:
            pool, skip = 0, run.skip
        left = run.length
        while left:
            # What came in the cycle before is there now.
            held += word_bits if arrived else 0
            take = min(left, row_bits)
            if pool < take and held >= n_in:
                held -= n_in
                slices += 1
                pool += n_out - skip
                skip = 0
            if pool >= take and not (skip and not slices):
                pool -= take
                left -= take
            arrived = held < n_in
            words += arrived
            cycle += 1
        results.append((slices, words - start, cycle - begun))
    return results


class TestSchedule:
    @given(frame=frames())
    def test_slices_and_cycles_are_those_of_a_walk_cycle_by_cycle(self, frame):
        schedule = schedule_runs(*frame)
        assert list(zip(schedule.slices.tolist(), schedule.cycles.tolist(), strict=True)) == [
            (slices, cycles) for slices, _, cycles in walked(*frame)
        ]

    @given(frame=frames())
    def test_words_are_what_the_slices_need_and_no_more(self, frame):
        runs, n_in, _, word_bits, row_bits = frame
        schedule = schedule_runs(*frame)
        through = np.cumsum(schedule.slices) * n_in
        assert np.cumsum(schedule.words).tolist() == [-(-int(bits) // word_bits) for bits in through]
        assert schedule.rows.tolist() == [-(-run.length // row_bits) for run in runs]

    @given(frame=frames())
    def test_the_closed_form_holds_where_a_word_holds_a_slice(self, frame):
        runs, n_in, n_out, _, row_bits = frame
        schedule = schedule_runs(runs, n_in, n_out, 64, row_bits)
        gone = 0
        for index, run in enumerate(runs):
            offset = run.skip if run.restart else gone
            cycles = run_cycles(run.length, offset, run.restart, n_out, row_bits) + (index == 0)
            assert schedule.cycles[index] == cycles
            gone = (offset + run.length) % n_out

    @given(run=st.builds(XorRun, st.integers(1, 300), st.integers(0, 15), st.just(True)), n_in=st.integers(9, 64))
    def test_narrow_words_set_the_pace_of_wide_rows(self, run, n_in):
        schedule = schedule_runs([run], n_in, 16, 8, 16)
        slices, rows = -(-(run.skip + run.length) // 16), -(-run.length // 16)
        before = -(-(run.skip + 16 * (rows - 1)) // 16) if rows > 1 else 0
        assert schedule.words[0] == -(-slices * n_in // 8)
        assert schedule.cycles[0] == schedule.words[0] + 1 + (slices == before)

    @pytest.mark.parametrize("run", [XorRun(0), XorRun(4, 20), XorRun(4, -1)])
    def test_a_run_without_bits_or_with_a_skip_beyond_its_slice_is_refused(self, run):
        with pytest.raises(FormatError, match=r"^an XOR run must have at least 1 bit and skip 0 to 19 outputs$"):
            schedule_runs([run], 12, 20, 32, 16)

    def test_no_runs_take_nothing(self):
        assert schedule_runs([], 12, 20, 32, 16).cycles.size == 0


class TestRuns:
    def test_continuing_runs_cut_the_golden_weights_where_they_stand(self):
        bits = np.random.default_rng(0).integers(0, 2, 1000)
        data = NETWORK.encode(bits)
        golden = NETWORK.decode_stream(data, 1000)
        decoder = XorDecoder(XorStream((NETWORK,), 32), row_bits=16)
        lengths = [16, 1, 47, 300, 636]
        rows, short = decoder.compute(data, [XorRun(length, restart=False) for length in lengths])
        assert not short.any()
        at = row = 0
        for length in lengths:
            count = -(-length // 16)
            flat = rows[row : row + count].reshape(-1)
            assert flat[:length].tolist() == golden[at : at + length].tolist()
            assert not flat[length:].any()
            at, row = at + length, row + count
        assert row == len(rows)

    def test_a_run_that_restarts_begins_in_a_fresh_slice_less_what_it_skips(self):
        rows = XorRows(4, row_bits=4).cut(
            np.arange(20), [XorRun(3), XorRun(2, 1), XorRun(3, 3), XorRun(2, 2, False)], 4
        )
        assert rows.tolist() == [[0, 1, 2, 0], [5, 6, 0, 0], [11, 12, 13, 0], [14, 15, 0, 0]]

    def test_planes_have_matrices_of_their_own(self):
        networks = tuple(XorNetwork.random(12, 20, 2, seed) for seed in (1, 2))
        decoder = XorDecoder(XorStream(networks, 32), row_bits=4)
        data = np.random.default_rng(1).bytes(3)
        rows, _ = decoder.compute(data, [XorRun(20, plane=0), XorRun(20, plane=1)])
        slices = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(2, 12)
        for plane in (0, 1):
            expected = networks[plane].decode(slices[plane])
            assert rows[5 * plane : 5 * plane + 5].reshape(-1).tolist() == expected.tolist()

    def test_a_stream_cut_short_gives_zeros_and_marks_up_to_the_next_restart(self):
        decoder = XorDecoder(XorStream((NETWORK,), 8), row_bits=16)
        # Slices 0 and 1, 2 (of which the second run takes what is left), and 3.
        runs = [XorRun(40), XorRun(16, restart=False), XorRun(20)]
        data = bytes([0xFF] * 6)
        whole, short = decoder.compute(data, runs)
        assert short.tolist() == [False] * 6
        for size, marks in ((5, "000011"), (4, "000111"), (3, "000111"), (2, "011111"), (1, "111111"), (0, "111111")):
            rows, short = decoder.compute(data[:size], runs)
            assert "".join(str(int(mark)) for mark in short) == marks, size
            assert np.array_equal(rows[~short], whole[~short])
        assert not rows.any()


class TestParameters:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: XorStream((NETWORK,), 24), "XOR stream words must have 8, 16, 32, 64, 128, 256, 512 bits, not 24"),
            (lambda: XorStream(()), "XOR planes must be at least one network, all of one size, not 0 sizes"),
            (
                lambda: XorStream((NETWORK, XorNetwork.random(8, 20, 2, 0))),
                "XOR planes must be at least one network, all of one size, not 2 sizes",
            ),
            (lambda: XorRows(20, 12), "XOR rows must have a power of two from 1 to 64 bits, not 12"),
            (lambda: XorRows(20, 128), "XOR rows must have a power of two from 1 to 64 bits, not 128"),
            (lambda: XorRows(20, 16, 33), "XOR run lengths must have 1 to 32 bits, not 33"),
            (
                lambda: XorDecoder(XorStream(XorProgrammable(12, 20))).schedule([XorRun(4)]),
                "a programmable XOR decoder must hold 1 to 1 networks of one size, not 0 of 0 sizes",
            ),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, make, message):
        with pytest.raises(FormatError) as error:
            make()
        assert str(error.value) == message

    @pytest.mark.parametrize(("n_in", "word_bits", "grain"), [(12, 128, 4), (7, 32, 1), (16, 8, 8), (20, 512, 4)])
    def test_held_bits_are_multiples_of_what_slices_and_words_share(self, n_in, word_bits, grain):
        assert XorStream((XorNetwork.random(n_in, 20, 2, 0),), word_bits).grain == grain == np.gcd(n_in, word_bits)
        assert XorStream(XorProgrammable(n_in, 20), word_bits).grain == 1

    def test_words_are_little_endian_and_the_last_is_filled_up(self):
        assert XorStream((NETWORK,), 16).words(b"\x01\x02\x03") == [0x0201, 0x03]
