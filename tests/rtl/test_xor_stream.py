"""XOR-coded weight streams in hardware: every cycle, a million weights, cycles of runs, streams cut short, faults."""

from dataclasses import replace

import numpy as np
import pytest
from gatewise import kernels
from gatewise.kernels.errors import ToolMissingError
from gatewise.rtl import xor_stream
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.cxxrtl import bits_of, compile_design, find_compiler, words_of
from gatewise.rtl.regress import run_bench
from gatewise.rtl.stepped import steppable
from gatewise.rtl.xor import index_shape

COMPONENTS = {"xor_stream": "XorStream", "xor_rows": "XorRows", "xor_decoder": "XorDecoder"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiles a component; libraries are kept for the tests of this module."""
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    cache = tmp_path_factory.mktemp("cosim")
    return lambda component: compile_design(component, cache=cache)


def word_payloads(data, word_bits):
    """Payloads of the words of one frame: the bits of each word, and the mark of the last."""
    count = max(1, -(-len(data) * 8 // word_bits))
    stored = np.frombuffer(data.ljust(count * word_bits // 8, b"\0"), np.uint8)
    bits = np.unpackbits(stored, bitorder="little").reshape(count, word_bits)
    return np.concatenate([bits, np.arange(count)[:, None] == count - 1], axis=1).astype(np.uint8)


def run_payloads(parameters, runs):
    """Payloads of the runs of one frame."""
    rows = parameters.rows
    widths = (
        rows.length_bits,
        *((len(index_shape(count)) - 1).bit_length() for count in (rows.n_out, rows.planes)),
        1,
        1,
    )
    payloads = []
    for index, run in enumerate(runs):
        values = (run.length, run.skip, run.plane, int(run.restart), int(index == len(runs) - 1))
        payloads.append([value >> k & 1 for value, width in zip(values, widths, strict=True) for k in range(width)])
    return np.array(payloads, dtype=np.uint8)


def load(simulation, networks):
    """Write every row of the networks, and set their size."""
    simulation.poke("n_in", networks[0].n_in)
    simulation.poke("n_out", networks[0].n_out)
    simulation.poke("write", 1)
    for plane, network in enumerate(networks):
        simulation.poke("write_plane", plane)
        for o, row in enumerate(network.rows):
            simulation.poke("write_row", o)
            simulation.poke("write_mask", row)
            simulation.run(1)
    simulation.poke("write", 0)


def send(simulation, parameters, frames, rows, **options):
    """Stream frames of (data, runs) through a decoder; its record."""
    words = np.concatenate([word_payloads(data, parameters.stream.word_bits) for data, _ in frames])
    runs = np.concatenate([run_payloads(parameters, runs) for _, runs in frames])
    return simulation.streams({"words": words_of(words), "runs": words_of(runs)}, {"o": rows}, **options)


def random_runs(rng, n_out, planes=1, most=150):
    return [
        kernels.XorRun(
            int(rng.integers(1, rng.choice([8, 40, most]), endpoint=True)),
            int(rng.integers(0, n_out)),
            bool(rng.random() < 0.4),
            int(rng.integers(0, planes)),
        )
        for _ in range(rng.integers(1, 6))
    ]


def exact_bytes(schedule, n_in):
    """Bytes of the slices that a frame decodes."""
    return -(-int(schedule.slices.sum()) * n_in // 8)


@pytest.mark.usefixtures("icarus")
class TestEveryCycle:
    @pytest.mark.parametrize("block", COMPONENTS)
    def test_every_port_in_every_cycle_is_the_golden_model_s(self, block):
        for case in BLOCKS[block].cases:
            assert run_bench(BLOCKS[block], case, vectors=1500).mismatch is None, case

    @pytest.mark.parametrize(
        ("block", "old", "new"),
        [
            ("xor_stream", "level >= n_in", "level > n_in"),
            ("xor_stream", "stopped & ~complete", "stopped"),
            ("xor_stream", "draining | (~stopped & (rest < n_in))", "draining | (rest < n_in)"),
            ("xor_stream", "(~stopped & (rest < n_in))", "(~stopped & (level < n_in))"),
            ("xor_stream", "rest.eq(Mux(given, level - n_in, level))", "rest.eq(level)"),
            ("xor_stream", "kept = settled(m, Mux(given, held >> n_in, held))", "kept = settled(m, held >> n_in)"),
            ("xor_stream", "Mux(taken, self.words.payload.bits, 0) << place", "self.words.payload.bits << place"),
            ("xor_stream", "draining.eq(~(stopped | last))", "draining.eq(~stopped)"),
            ("xor_stream", "draining.eq(~(stopped | last))", "draining.eq(0)"),
            ("xor_stream", "held.eq(0), grains.eq(0), stopped.eq(0)", "grains.eq(0), stopped.eq(0)"),
            ("xor_stream", "m.d.sync += draining.eq(0)", "m.d.sync += draining.eq(1)"),
            ("xor_rows", "fresh = settled(m, first & run.restart)", "fresh = settled(m, run.restart)"),
            ("xor_rows", "pull = settled(m, base < take)", "pull = settled(m, base <= take)"),
            ("xor_rows", "(~pull | self.vectors.valid | self.ended)", "(~pull | self.vectors.valid)"),
            ("xor_rows", "vector >> run.skip", "vector"),
            ("xor_rows", "n_out - Mux(fresh, run.skip, 0)", "n_out"),
            ("xor_rows", "Mux(fresh, 0, pool) | (fed << place)", "pool | (fed << place)"),
            ("xor_rows", "(short & ~fresh) | (pull", "(short) | (pull"),
            ("xor_rows", "final = settled(m, remaining <= row_bits)", "final = settled(m, remaining < row_bits)"),
            ("xor_rows", "pool.eq(Mux(emit, merged >> take, merged))", "pool.eq(merged >> take)"),
            ("xor_rows", "[pool.eq(0), level.eq(0), short.eq(0)]", "[pool.eq(0), short.eq(0)]"),
            ("xor_rows", "[pool.eq(0), level.eq(0), short.eq(0)]", "[pool.eq(0), level.eq(0)]"),
            ("xor_rows", "& ~(Const(-1, row_bits) << take)[:row_bits]", ""),
            ("xor_rows", "self.finish.eq(done & run.last)", "self.finish.eq(done)"),
            ("xor_decoder", "self.stream.plane.eq(self.rows.plane)", "self.stream.plane.eq(0)"),
            ("xor_decoder", "self.stream.flush.eq(self.rows.finish)", "self.stream.flush.eq(0)"),
            ("xor_decoder", "self.rows.ended.eq(self.stream.ended)", "self.rows.ended.eq(0)"),
            ("xor_decoder", "m.d.comb += self.rows.n_out.eq(self.n_out)", "pass"),
            ("xor_decoder", "self.stream.flush.eq(self.rows.finish)", "self.stream.flush.eq(self.runs.ready)"),
        ],
    )
    def test_a_fault_is_found(self, planted, block, old, new):
        component = steppable(planted(xor_stream, old, new)[COMPONENTS[block]])
        faulty = replace(BLOCKS[block], component=component)
        found = (run_bench(faulty, case, vectors=1500).mismatch for case in BLOCKS[block].cases)
        assert any(mismatch is not None for mismatch in found)


@pytest.fixture(scope="module")
def coded():
    """A network, the packed stream of a million random weights, and what it decodes to."""
    network = kernels.XorNetwork.random(12, 20, 2, 14)
    data = network.encode(np.random.default_rng(8).integers(0, 2, 1_000_000))
    return network, data, network.decode_stream(data, 1_000_000)


class TestMillion:
    COUNT = 1_000_000

    @pytest.mark.parametrize(("word_bits", "stalls"), [(128, False), (128, True), (16, False), (8, False)])
    def test_the_stream_decoder_decodes_a_million_weights_at_its_rate(self, compiled, coded, word_bits, stalls):
        network, data, golden = coded
        design = compiled(xor_stream.XorStream(kernels.XorStream((network,), word_bits)))
        with design.simulate() as simulation:
            words = words_of(word_payloads(data, word_bits))
            # Zeros that fill up the last word may be whole slices.
            slices = len(words) * word_bits // 12
            record = simulation.streams({"words": words}, {"o": slices}, stalls=stalls)
        assert record.violation is None
        assert np.array_equal(bits_of(record.payloads["o"], 20).reshape(-1)[: self.COUNT], golden)
        if not stalls:
            needed = -(-np.arange(slices + 1) * 12 // word_bits)
            gaps = np.maximum(1, np.diff(needed))
            gaps[0] = needed[1]
            assert np.array_equal(record.delivered["o"], np.cumsum(gaps))
            rate = (len(gaps) - 1) / int(record.delivered["o"][-1] - record.delivered["o"][0])
            assert rate == pytest.approx(min(1.0, word_bits / 12), rel=1e-3)

    @pytest.mark.parametrize("row_bits", [16, 64])
    def test_rows_of_weights_leave_at_their_rate(self, compiled, coded, row_bits):
        network, data, golden = coded
        parameters = kernels.XorDecoder(kernels.XorStream((network,), 128), row_bits)
        runs = [kernels.XorRun(40_000, restart=False)] * 25
        with compiled(xor_stream.XorDecoder(parameters)).simulate() as simulation:
            record = send(simulation, parameters, [(data, runs)], self.COUNT // row_bits, stalls=False)
        assert record.violation is None
        found = bits_of(record.payloads["o"], row_bits + 2)
        assert np.array_equal(found[:, :row_bits].reshape(-1), golden)
        assert found[:, row_bits].sum() == 25
        assert not found[:, row_bits + 1].any()
        # One row a cycle, or one slice a cycle where a row is longer; the first word takes one more.
        assert record.delivered["o"][-1] == 1 + max(self.COUNT // row_bits, self.COUNT // 20)

    def test_an_invertible_network_brings_back_every_weight(self, compiled):
        network = kernels.XorNetwork.random(20, 20, None, next(s for s in range(50) if self.rank(s) == 20))
        bits = np.random.default_rng(9).integers(0, 2, self.COUNT).astype(np.uint8)
        with compiled(xor_stream.XorStream(kernels.XorStream((network,), 64))).simulate() as simulation:
            words = words_of(word_payloads(network.encode(bits), 64))
            record = simulation.streams({"words": words}, {"o": self.COUNT // 20})
        assert np.count_nonzero(bits_of(record.payloads["o"], 20).reshape(-1) != bits) == 0

    @staticmethod
    def rank(seed):
        return kernels.XorNetwork.random(20, 20, None, seed).rank


class TestCycles:
    @pytest.mark.parametrize(
        ("word_bits", "row_bits", "planes"), [(8, 8, 1), (16, 32, 2), (32, 1, 1), (128, 16, 2), (512, 64, 1)]
    )
    def test_runs_take_the_cycles_of_the_closed_form(self, compiled, word_bits, row_bits, planes):
        parameters = kernels.XorDecoder(
            kernels.XorStream(kernels.XorProgrammable(20, 20, planes), word_bits), row_bits, 12
        )
        rng = np.random.default_rng(word_bits)
        continued = 0
        with compiled(xor_stream.XorDecoder(parameters)).simulate() as simulation:
            for case in range(25):
                n_in, n_out = rng.integers(1, 20, 2, endpoint=True).tolist()
                networks = [kernels.XorNetwork.random(n_in, n_out, None, 10 * case + plane) for plane in range(planes)]
                load(simulation, networks)
                frames, cycles, expected = [], [], []
                for _ in range(20):
                    runs = random_runs(rng, n_out, planes)
                    schedule = parameters.schedule(runs, networks)
                    frames.append((rng.bytes(exact_bytes(schedule, n_in)), runs))
                    cycles.extend(schedule.cycles.tolist())
                    rows, short = parameters.compute(*frames[-1], networks)
                    assert not short.any()
                    expected.append(rows)
                    continued += sum(not run.restart for run in runs[1:])
                rows = np.concatenate(expected)
                record = send(simulation, parameters, frames, len(rows), stalls=False)
                assert record.violation is None
                found = bits_of(record.payloads["o"], row_bits + 2)
                assert np.array_equal(found[:, :row_bits], rows)
                ends = record.delivered["o"][found[:, row_bits] == 1]
                # A row is offered in the cycle after it was made.
                assert ends.tolist() == np.cumsum(cycles).tolist()
        assert continued > 100

    def test_words_and_rows_may_stall_at_any_time(self, compiled):
        networks = [kernels.XorNetwork.random(19, 20, None, plane) for plane in range(2)]
        parameters = kernels.XorDecoder(kernels.XorStream(tuple(networks), 32), 16)
        rng = np.random.default_rng(2)
        frames, expected = [], []
        for _ in range(150):
            runs = random_runs(rng, 20, 2)
            frames.append((rng.bytes(exact_bytes(parameters.schedule(runs), 19)), runs))
            expected.append(parameters.compute(*frames[-1])[0])
        with compiled(xor_stream.XorDecoder(parameters)).simulate() as simulation:
            for seed in range(4):
                record = send(simulation, parameters, frames, sum(map(len, expected)), seed=seed)
                assert record.violation is None
                assert np.array_equal(bits_of(record.payloads["o"], 18)[:, :16], np.concatenate(expected))


class TestDamage:
    FRAMES = 1000

    def damaged(self, rng, data, word_bytes):
        """A stream with some bits changed, words missing at the end, or words too many; and what of it is left."""
        match rng.integers(0, 4):
            case 0:
                changed = np.frombuffer(data, np.uint8).copy()
                changed[rng.integers(0, len(changed), 3)] ^= rng.integers(1, 256, 3).astype(np.uint8)
                return changed.tobytes()
            case 1:
                words = -(-len(data) // word_bytes)
                return data[: word_bytes * int(rng.integers(0, words))]
            case 2:
                return data + rng.bytes(word_bytes * int(rng.integers(1, 6)))
            case _:
                return rng.bytes(word_bytes * int(rng.integers(1, 20)))

    @pytest.mark.parametrize(("word_bits", "n_in"), [(16, 12), (32, 19)])
    def test_a_thousand_damaged_frames_end_in_bounded_time_with_what_they_hold(self, compiled, word_bits, n_in):
        network = kernels.XorNetwork.random(n_in, 20, 2, 1)
        parameters = kernels.XorDecoder(kernels.XorStream((network,), word_bits), 16)
        rng = np.random.default_rng(n_in)
        frames, expected, marks, bounds = [], [], [], []
        dropped = 0
        for _ in range(self.FRAMES):
            runs = random_runs(rng, 20, most=400)
            schedule = parameters.schedule(runs)
            data = self.damaged(rng, rng.bytes(exact_bytes(schedule, n_in)), word_bits // 8)
            words = len(word_payloads(data, word_bits))
            # The marked word of a stream without a single byte holds zeros.
            rows, short = parameters.compute(data.ljust(words * word_bits // 8, b"\0"), runs)
            frames.append((data, runs))
            expected.append(rows)
            marks.append(short)
            # Words too many are dropped, one a cycle, before the next frame's.
            bounds.append(int(schedule.cycles.sum()) + dropped)
            dropped = max(0, words - int(schedule.words.sum()))
        rows, short = np.concatenate(expected), np.concatenate(marks)
        with compiled(xor_stream.XorDecoder(parameters)).simulate() as simulation:
            record = send(simulation, parameters, frames, len(rows), stalls=False)
        assert record.violation is None
        found = bits_of(record.payloads["o"], 18)
        assert np.array_equal(found[:, :16], rows)
        assert np.array_equal(found[:, 17], short)
        assert 0.1 < short.mean() < 0.6
        ends = record.delivered["o"][np.cumsum([len(part) for part in expected]) - 1]
        assert (np.diff(ends, prepend=0) <= bounds).all()

    def test_ended_tells_the_consumer_of_the_bare_stream(self, compiled):
        network = kernels.XorNetwork.random(12, 20, 2, 1)
        with compiled(xor_stream.XorStream(kernels.XorStream((network,), 16))).simulate() as simulation:
            for size, slices in ((2, 1), (4, 2), (6, 4), (8, 5)):
                words = words_of(word_payloads(bytes(size), 16))
                record = simulation.streams({"words": words}, {"o": slices}, stalls=False)
                assert record.violation is None
                assert simulation.peek("ended") == 1
                hung = simulation.streams({}, {"o": 1}, patience=50)
                assert len(hung.payloads["o"]) == 0
                simulation.poke("flush", 1)
                simulation.run(1)
                simulation.poke("flush", 0)
                assert simulation.peek("ended") == 0
