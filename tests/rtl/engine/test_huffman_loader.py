"""Engines with Huffman decoders: networks beside the simulator, and a thousand damaged streams, none of which hangs."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from gatewise import Grid, InputSpec, NetworkBuilder, ToolMissingError
from gatewise.kernels.huffman import HuffmanError
from gatewise.rtl.cxxrtl import compile_design, find_compiler
from gatewise.rtl.engine import compute, huffman_loader
from gatewise.rtl.engine.check import ErrorCode
from gatewise.rtl.engine.cosim import EngineProbe, EngineSimulation, compare_image, compile_engine, regress_network
from gatewise.rtl.engine.engine import Engine
from gatewise.rtl.icarus import SimulationError
from gatewise.sim.coded import HEADER_CHUNKS, ROWS_AT, HuffmanStreams
from gatewise.sim.compile import compile_network
from gatewise.sim.descriptor import descriptor_words, encode_descriptor
from gatewise.sim.images import ImageSet
from gatewise.sim.lowered import row_groups
from gatewise.sim.random_cases import ENGINES, Steered, random_cases
from gatewise.sim.run import run

DIGIT, SHIFT = "4x8/32 huffman", "8x4/128 huffman shift"
CASES = 20
DAMAGES = 500
"""On each engine."""
QUIET = 2
"""Cycles for each word of the prefetch in which a bus has answered all that it was asked, beyond its latency."""


def bound(cycles):
    """Cycles in which an engine is done with any damaged stream: a layer does not wait longer than for its own."""
    return 2 * cycles + 1000


class Only(Steered):
    """Networks for one engine."""

    def __init__(self, name):
        super().__init__(11)
        engine = ENGINES[name]
        self.fixed = {"bus": engine.bus_bits, "array": engine.array, "decoder": engine.decoder, "operand bits": 8}

    def option(self, group, values):
        return self.fixed[group] if group in self.fixed else super().option(group, values)


@pytest.fixture(scope="module", params=[DIGIT, SHIFT])
def name(request):
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    return request.param


@pytest.fixture(scope="module")
def design(name):
    return compile_engine(ENGINES[name], formats=True)


@pytest.fixture(scope="module")
def cases(name):
    return list(random_cases(CASES, 11, Only(name)))


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_random_networks_run_as_in_the_simulator(design, cases, stall):
    overflows = 0
    for case in cases:
        compiled = compile_network(case.network, case.engine)
        result = regress_network(design, compiled, case.codes, stall=stall, seed=3)
        assert result.mismatch is None, case.name
        overflows += result.overflows
    assert overflows > 0


class Bench:
    """A compiled network on an engine, whose streams can be damaged one after the other."""

    def __init__(self, design, network, engine, codes):
        self.compiled = compile_network(network, engine)
        self.codes = codes
        # Cycles kept from an earlier run are those of streams without room, or the other way round.
        self.compiled.network.compiled.clear()
        self.golden = run(self.compiled.network, ImageSet(codes[None], coded=True), engine, trace=True)
        self.compiled.network.compiled.clear()
        self.simulation = EngineSimulation(design, self.compiled)
        self.longest = 0.0

    @property
    def chunks(self):
        """Chunks of a bus word."""
        return self.compiled.engine.bus_bits // 32

    @property
    def layers(self):
        """Numbers of the layers with coded weights."""
        return [number for number, layer in enumerate(self.compiled.layers) if layer.coded is not None]

    def table(self, image, number):
        """A layer's table in an image: chunks."""
        start = self.compiled.stream_words[number][0]
        words = self.compiled.layers[number].coded.table_words
        return image[start : start + words].reshape(-1).view(np.uint32)

    def streams(self, image, number):
        """The row groups' streams of a layer in an image: chunks each."""
        layer, engine = self.compiled.layers[number], self.compiled.engine
        at = self.compiled.stream_words[number][0] + layer.coded.table_words
        found = []
        for group in row_groups(layer.registers, engine):
            at += layer.record.words(group.rows, engine.bus_bits)
            found.append(image[at : at + layer.registers["weight_words"]].reshape(-1).view(np.uint32))
            at += layer.registers["weight_words"]
        assert at == sum(self.compiled.stream_words[number])
        return found

    def outcome(self, image):
        """The layer that a stream's error stops, or None where the engine comes to its end; never too late."""
        limit = bound(self.golden.cycles_per_image)
        inner = self.simulation.simulation
        start = inner.cycle
        self.simulation.compiled = replace(self.compiled, image=image)
        stopped, text = None, ""
        try:
            self.simulation.run(self.codes, limit)
        except SimulationError as error:
            stopped, text = inner.peek("error_layer"), str(error)
        if stopped is not None:
            layer = self.compiled.layers[stopped].name
            assert text == f"layer {layer}: the engine must end without an error, not with error 6 (STREAM)"
        self.longest = max(self.longest, (inner.cycle - start) / self.golden.cycles_per_image)
        if stopped is not None:
            self.reset()
        return stopped

    def reset(self):
        """As after an error: when the bus has answered."""
        engine = self.compiled.engine
        self.simulation.simulation.run(engine.bus_latency + QUIET * engine.prefetch_words)
        self.simulation.simulation.reset()
        for recorder in self.simulation._recorders.values():
            recorder.take()

    def sound(self):
        """Whether the undamaged image runs as it must, in digits, counters and cycles."""
        self.simulation.compiled = self.compiled
        found = self.simulation.run(self.codes, bound(self.golden.cycles_per_image))
        return compare_image(self.compiled, self.golden, found, exact=True)


@pytest.fixture(scope="module")
def benches(design, cases):
    found = [Bench(design, case.network, case.engine, case.codes[0]) for case in cases]
    found = [bench for bench in found if bench.layers]
    assert len(found) >= 15
    yield found
    for bench in found:
        bench.simulation.simulation.close()


def fails(bench, number, stream, index):
    """Whether a row group's stream is an error by the golden decoders, its table being right."""
    layer = bench.compiled.layers[number]
    rows, symbols = layer.coded.passes[index].stream.sizes.shape
    head, count, *chunks = (int(chunk) for chunk in stream)
    if (head >> ROWS_AT, head & (1 << ROWS_AT) - 1) != (rows, symbols):
        return True
    if not 1 <= count <= len(chunks) or any(chunks[count:]):
        return True
    given = np.array(chunks[:count], dtype=np.uint64)
    return layer.coded.bank.decode(given, layer.coded.code.canonical, symbols, rows).error is not HuffmanError.NONE


def damaged(bench, rng):
    """An image with one damage: its kind, the layer's number, the image, whether it must be an error (None: may be)."""
    image = bench.compiled.image.copy()
    number = int(rng.choice(bench.layers))
    streams = bench.streams(image, number)
    index = int(rng.integers(len(streams)))
    stream = streams[index]
    used = int(stream[1])
    kind = str(rng.choice(("code", "code", "codes", "header", "table", "truncated", "swapped", "zeros")))
    if kind == "swapped" and len(streams) == 1:
        kind = "code"
    if kind == "zeros" and len(stream) == HEADER_CHUNKS + used:
        kind = "truncated"

    def flip(chunks, low, high):
        chunks[rng.integers(low, high)] ^= np.uint32(1 << int(rng.integers(32)))

    match kind:
        case "code":
            flip(stream, HEADER_CHUNKS, HEADER_CHUNKS + used)
        case "codes":
            for _ in range(int(rng.integers(2, 20))):
                flip(stream, HEADER_CHUNKS, HEADER_CHUNKS + used)
        case "header":
            flip(stream, 0, HEADER_CHUNKS)
        case "table":
            table = bench.table(image, number)
            flip(table, 0, len(table))
            return kind, number, image, None
        case "truncated":
            stream[HEADER_CHUNKS + int(rng.integers(used)) :] = 0
        case "zeros":
            flip(stream, HEADER_CHUNKS + used, len(stream))
        case "swapped":
            other = (index + 1 + int(rng.integers(len(streams) - 1))) % len(streams)
            kept = stream.copy()
            stream[:], streams[other][:] = streams[other], kept
            return (
                kind,
                number,
                image,
                fails(bench, number, stream, index) or fails(bench, number, streams[other], other),
            )
    return kind, number, image, fails(bench, number, stream, index)


def wrong_outcomes(benches, count, seed=0):
    """What of so many damages ends otherwise than it must; the outcomes by kind."""
    rng = np.random.default_rng(seed)
    seen, wrong = Counter(), []
    for at in range(count):
        bench = benches[at % len(benches)]
        kind, number, image, error = damaged(bench, rng)
        stopped = bench.outcome(image)
        seen[kind, stopped is not None] += 1
        if stopped not in ({None, number} if error is None else {number} if error else {None}):
            wrong.append((at, kind, number, stopped, error))
        if stopped is not None and at % 10 == 0 and (text := bench.sound()) is not None:
            wrong.append((at, text))
    return seen, wrong


def test_no_damaged_stream_hangs_and_only_other_valid_ones_pass(benches):
    seen, wrong = wrong_outcomes(benches, DAMAGES)
    assert wrong == []
    assert seen["truncated", False] == seen["zeros", False] == seen["header", False] == 0
    for kind in ("code", "codes", "header", "table", "truncated", "swapped", "zeros"):
        assert seen[kind, True] > 5, kind
    for kind in ("code", "table", "swapped"):
        assert seen[kind, False] > 5, kind


def constant(layer_rows=12):
    """A layer whose weights all are the same: its code has one word, 0, and is not complete."""
    spec = InputSpec(shape=(8, 3, 3), bits=4, scale=1.0, mean=(0.0,) * 8, std=(1.0,) * 8)
    net = NetworkBuilder("constant", spec)
    net.conv2d("conv", net.input, np.ones((layer_rows, 8, 2, 2), int), bits=2, scale=0.1, out=Grid(0.2, 8))
    return net.build()


@pytest.fixture(scope="module")
def roomy(name, design, cases):
    """Networks with room behind their streams, one with an incomplete code in front."""
    genuine = HuffmanStreams.weight_words.func
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HuffmanStreams, "weight_words", property(lambda streams: 2 * genuine(streams) + 16))
        networks = [(constant(), ENGINES[name])] + [(case.network, case.engine) for case in cases[:8]]
        found = []
        for network, engine in networks:
            spec = network.manifest.input
            codes = np.random.default_rng(1).integers(*spec.range, spec.shape, endpoint=True).astype(np.int16)
            found.append(Bench(design, network, engine, codes))
    found = [bench for bench in found if bench.layers]
    yield found
    for bench in found:
        bench.simulation.simulation.close()


def replaced(bench, image, number, index, symbols):
    """Put a stream of other symbols, whole and valid, in the place of a row group's."""
    coded, stream = bench.compiled.layers[number].coded, bench.streams(image, number)[index]
    _, content = coded.bank.encode(symbols, coded.code)
    chunks = [symbols.shape[1] | len(symbols) << ROWS_AT, len(content), *content.tolist()]
    stream[:] = 0
    stream[: len(chunks)] = chunks


def passes(benches):
    """Every first and last row group of every layer with coded weights: bench, number, index, symbols."""
    for bench in benches:
        for number in bench.layers:
            streams = bench.streams(bench.compiled.image.copy(), number)
            coded = bench.compiled.layers[number].coded
            for index in sorted({0, len(streams) - 1}):
                rows, count = coded.passes[index].stream.sizes.shape
                chunks = np.array(streams[index][HEADER_CHUNKS:], dtype=np.uint64)[: streams[index][1]]
                result = coded.bank.decode(chunks, coded.code.canonical, count, rows)
                assert result.error is HuffmanError.NONE
                yield bench, number, index, result.symbols


def test_networks_with_room_behind_their_streams_run_as_they_must(roomy):
    assert [bench.sound() for bench in roomy] == [None] * len(roomy)


def test_a_bit_that_begins_no_code_word_is_an_error(roomy):
    """In a code of the one word 0 every 1 is one."""
    bench = roomy[0]
    (number,) = bench.layers
    streams = bench.streams(bench.compiled.image, number)
    assert len(streams) > 1
    for index, stream in enumerate(streams):
        sizes = bench.compiled.layers[number].coded.passes[index].stream.sizes
        assert (sizes == 1).all()
        assert sizes.shape[1] == 32
        for chunk in range(int(stream[1])):
            for bit in (0, 13, 31):
                image = bench.compiled.image.copy()
                damaged = bench.streams(image, number)[index]
                if damaged[HEADER_CHUNKS + chunk] >> bit & 1:
                    continue
                damaged[HEADER_CHUNKS + chunk] |= np.uint32(1 << bit)
                assert bench.outcome(image) == number


def test_a_code_word_that_the_table_has_not_is_an_error(roomy):
    for bench in roomy:
        for number in bench.layers:
            image, code = bench.compiled.image.copy(), bench.compiled.layers[number].coded.code
            entries = bench.table(image, number).reshape(-1, 2)
            # The last code word of all is taken away from every length from its own on.
            for entry in entries:
                if entry[0] >= 255 + code.longest:
                    entry[1] -= 1 << int(entry[0]) - 255 - code.longest
            assert bench.outcome(image) == number
            assert bench.sound() is None


def test_a_truncated_stream_is_an_error(roomy):
    for bench, number, index, _ in passes(roomy):
        used = int(bench.streams(bench.compiled.image, number)[index][1])
        for left in sorted({0, used // 2, used - 1}):
            for told in (True, False):
                image = bench.compiled.image.copy()
                stream = bench.streams(image, number)[index]
                stream[HEADER_CHUNKS + left :] = 0
                if told:
                    stream[1] = left
                assert bench.outcome(image) == number, (index, left, told)


def test_a_wrong_number_of_symbols_is_an_error(roomy):
    for bench, number, index, symbols in passes(roomy):
        columns = bench.compiled.layers[number].coded.columns
        for more in {1, columns, -1, -columns}:
            image = bench.compiled.image.copy()
            stream = bench.streams(image, number)[index]
            stream[0] = int(stream[0]) + more
            assert bench.outcome(image) == number, (index, more)
            if symbols.shape[1] + more < 1:
                continue
            # With the end mark where the header says.
            other = np.hstack([symbols, symbols])[:, : symbols.shape[1] + more]
            image = bench.compiled.image.copy()
            replaced(bench, image, number, index, other)
            assert bench.outcome(image) == number, (index, more)
    assert [bench.sound() for bench in roomy] == [None] * len(roomy)


def test_what_one_stream_lacks_and_another_has_too_much_is_an_error(roomy):
    pairs = 0
    for bench, number, index, symbols in passes(roomy):
        coded = bench.compiled.layers[number].coded
        if index or len(coded.passes) == 1:
            continue
        _, _, _, other = next(each for each in passes([bench]) if each[1:3] == (number, len(coded.passes) - 1))
        for more in {1, coded.columns, -1, -coded.columns}:
            if min(symbols.shape[1], other.shape[1]) <= coded.columns:
                continue
            image = bench.compiled.image.copy()
            for at, held, change in ((0, symbols, more), (len(coded.passes) - 1, other, -more)):
                changed = np.hstack([held, held])[:, : held.shape[1] + change]
                replaced(bench, image, number, at, changed)
            assert bench.outcome(image) == number, more
            pairs += 1
    assert pairs > 5


def test_a_wrong_number_of_rows_is_an_error(roomy):
    for bench, number, index, symbols in passes(roomy):
        most = bench.compiled.layers[number].coded.bank.rows
        for rows in {len(symbols) - 1, len(symbols) + 1} - {0, most + 1}:
            image = bench.compiled.image.copy()
            replaced(bench, image, number, index, np.vstack([symbols, symbols])[:rows])
            assert bench.outcome(image) == number, (index, rows)
        for rows in (0, len(symbols) | 128, 255):
            image = bench.compiled.image.copy()
            stream = bench.streams(image, number)[index]
            stream[0] = symbols.shape[1] | rows << ROWS_AT
            assert bench.outcome(image) == number, (index, rows)


def with_registers(bench, number, **changes):
    """The image with other registers of a layer, in a descriptor that is right."""
    image, layer, engine = bench.compiled.image.copy(), bench.compiled.layers[number], bench.compiled.engine
    words = descriptor_words(engine)
    image[number * words : (number + 1) * words] = encode_descriptor(engine, layer.op, {**layer.registers, **changes})
    return image


def test_registers_that_leave_no_room_for_a_stream_stop_the_engine(roomy):
    for bench in roomy:
        number = bench.layers[0]
        for name in ("table_words", "weight_words"):
            with pytest.raises(AssertionError):
                bench.outcome(with_registers(bench, number, **{name: 0}))
            assert bench.simulation.simulation.peek("error") == ErrorCode.SIZE
            bench.reset()
            coded = bench.compiled.layers[number].coded
            if name == "table_words" or HEADER_CHUNKS + max(len(each.chunks) for each in coded.passes) > bench.chunks:
                assert bench.outcome(with_registers(bench, number, **{name: 1})) == number
        less = bench.compiled.layers[number].registers["table_words"] - 1
        assert bench.outcome(with_registers(bench, number, table_words=less)) == number
        assert bench.sound() is None


def test_damage_is_reported_in_one_line_that_names_the_layer(design, roomy):
    bench = roomy[0]
    image, (number,) = bench.compiled.image.copy(), bench.layers
    bench.streams(image, number)[0][1] += 1
    result = regress_network(design, replace(bench.compiled, image=image), bench.codes[None])
    assert result.mismatch == "image 0, layer conv: the engine must end without an error, not with error 6 (STREAM)"


def test_a_bus_that_stalls_changes_no_outcome(design, roomy):
    for bench, number, index, symbols in passes(roomy[:3]):
        other = bench.simulation
        bench.simulation = EngineSimulation(design, bench.compiled, stall=0.2, seed=5)
        for more in (1, -1):
            image = bench.compiled.image.copy()
            stream = bench.streams(image, number)[index]
            stream[0] = int(stream[0]) + more
            assert bench.outcome(image) == number, (index, symbols.shape, more)
        bench.simulation.simulation.close()
        bench.simulation = other


FAULTS = {
    "rows": ("                | other_rows\n", "other_rows", "0"),
    "surplus": ("                | surplus\n", "surplus", "0"),
    "first tile": (
        "(self.swap & (self.swap_first ^ tile_first))",
        "self.swap & (self.swap_first ^ tile_first)",
        "0",
    ),
    "columns": ("wrong.eq(~column_first)", "~column_first", "0"),
    "zeros": ("wrong.eq(take & (chunk != 0))", "take & (chunk != 0)", "0"),
    "last chunk": ("wrong.eq(coded != 1)", "coded != 1", "0"),
    "decoders": ("(bank.error != HuffmanError.NONE)", "bank.error != HuffmanError.NONE", "0"),
}
"""Checks of the loader, left out."""


@pytest.fixture(scope="module")
def leaky(name, planted_together):
    """An engine with all of them, one at a time."""
    if name == SHIFT:
        pytest.skip("the loader is the same")
    names, choosing = planted_together({fault: (huffman_loader, *what) for fault, what in FAULTS.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "HuffmanLoader", names[huffman_loader]["HuffmanLoader"])
        return compile_design(choosing(EngineProbe(Engine(ENGINES[name], formats=True))))


def caught(design, cases, engine, monkeypatch):
    """The tests that fail on a design, up to the first one."""
    tight = [Bench(design, case.network, case.engine, case.codes[0]) for case in cases[:8]]
    tight = [bench for bench in tight if bench.layers]
    genuine = HuffmanStreams.weight_words.func
    monkeypatch.setattr(HuffmanStreams, "weight_words", property(lambda streams: 2 * genuine(streams) + 16))
    found = [Bench(design, constant(), engine, np.zeros((8, 3, 3), np.int16))]
    found += [Bench(design, case.network, case.engine, case.codes[0]) for case in cases[:8]]
    found = [bench for bench in found if bench.layers]
    assert [bench.sound() for bench in found] == [None] * len(found)
    tests = (
        test_a_wrong_number_of_rows_is_an_error,
        test_a_wrong_number_of_symbols_is_an_error,
        test_what_one_stream_lacks_and_another_has_too_much_is_an_error,
        test_a_truncated_stream_is_an_error,
        lambda _: wrong_outcomes(tight, 300)[1] == [] or pytest.fail("wrong"),
    )
    for at, test in enumerate(tests):
        try:
            test(found)
        except (AssertionError, SimulationError, pytest.fail.Exception):
            return at
    return None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_check_that_is_left_out_is_found(cases, leaky, with_fault, monkeypatch, fault):
    design = with_fault(leaky, 1 + list(FAULTS).index(fault))
    assert caught(design, cases, ENGINES[DIGIT], monkeypatch) is not None


def test_without_a_fault_none_is_found(cases, leaky, with_fault, monkeypatch):
    assert caught(with_fault(leaky, 0), cases, ENGINES[DIGIT], monkeypatch) is None
