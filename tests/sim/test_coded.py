"""Huffman-coded streams: they hold the weight tiles, and the model's times are those of the decoders by themselves."""

from itertools import pairwise

import numpy as np
import pytest
from gatewise import EngineConfig, FormatError, Grid, MacFormat, NetworkBuilder, UnsupportedError
from gatewise.kernels.huffman import HuffmanError
from gatewise.sim import coded
from gatewise.sim.arrays import array_form
from gatewise.sim.coded import HEADER_CHUNKS, ROWS_AT, huffman_bank
from gatewise.sim.compile import compile_network
from gatewise.sim.cycles import layer_cycles
from gatewise.sim.descriptor import descriptor_words
from gatewise.sim.lowered import row_groups
from gatewise.sim.random_cases import ENGINES, Steered, random_cases
from gatewise.sim.tile_times import tile_times
from gatewise.sim.tiles import step_tiles

from .machine import Machine

BUILDS = [name for name, engine in ENGINES.items() if engine.decoder == "huffman"]
BUSES = (32, 64, 128, 256, 512)
CASES = 12


class Only(Steered):
    """Networks for one engine."""

    def __init__(self, name):
        super().__init__(7)
        engine = ENGINES[name]
        self.fixed = {"bus": engine.bus_bits, "array": engine.array, "decoder": engine.decoder, "operand bits": 8}

    def option(self, group, values):
        return self.fixed[group] if group in self.fixed else super().option(group, values)


@pytest.fixture(scope="module")
def layers():
    """Every layer with coded weights of some random networks, on buses of all widths."""
    found = []
    for name in BUILDS:
        for number, case in enumerate(random_cases(CASES, 7, Only(name))):
            engine = case.engine.model_copy(update={"bus_bits": BUSES[number % len(BUSES)]})
            found += [
                (layer, engine) for layer in compile_network(case.network, engine).layers if layer.coded is not None
            ]
    kinds = {(bool(layer.registers["depthwise"]), bool(layer.registers.get("aligned"))) for layer, _ in found}
    assert len(kinds) == 4
    assert any(len(layer.coded.passes) > 1 for layer, _ in found)
    assert any(layer.registers.get("part_top") for layer, _ in found)
    return found


def chunks_of(words):
    return words.reshape(-1).view(np.uint32)


def held_tiles(layer, engine, group):
    """The tiles of a row group as they are to be in the array: (rows, columns) bytes, amounts first."""
    lanes = engine.lanes
    for codes, amounts in step_tiles(array_form(layer.mac, engine.array), group, lanes):
        tile = codes.astype(np.uint8)
        if amounts is not None:
            if layer.registers["depthwise"]:
                tile = np.zeros((group.rows, lanes), dtype=np.uint8)
                for row in range(group.rows):
                    tile[row, group.lane + row] = codes[row, 0]
            tile = np.vstack([amounts, tile])
        yield tile


def test_streams_decode_to_the_weight_tiles(layers):
    for layer, engine in layers:
        bank, streams = huffman_bank(engine), layer.coded
        for index, group in enumerate(row_groups(layer.registers, engine)):
            words = streams.words(index)
            head, count, *chunks = chunks_of(words).tolist()
            tiles = list(held_tiles(layer, engine, group))
            wanted = np.concatenate(tiles, axis=1)
            assert (head >> ROWS_AT, head & (1 << ROWS_AT) - 1) == wanted.shape
            assert len({tile.shape for tile in tiles}) == 1
            result = bank.decode(np.array(chunks[:count], dtype=np.uint64), streams.code.canonical, *wanted.shape[::-1])
            assert result.error is HuffmanError.NONE
            assert np.array_equal(result.symbols, wanted)
            # Behind it there are zeros, as many as make all row groups' words equally many.
            assert not any(chunks[count:])
            assert len(chunks) - count == streams.padding(index)
            assert words.shape == (streams.weight_words, engine.bus_bits // 8)
        shortest = min(streams.padding(index) for index in range(len(streams.passes)))
        assert shortest < engine.bus_bits // 32


def test_the_table_writes_the_code(layers):
    for layer, engine in layers:
        streams = layer.coded
        entries = chunks_of(streams.table).reshape(-1, 2).astype(np.int64)
        limits, offsets, symbols = streams.code.canonical
        memory, registers = {}, {}
        for address, value in entries.tolist():
            (memory if address < 256 else registers)[address & 255] = value
        assert [memory[place] for place in range(len(symbols))] == symbols.tolist()
        assert len(memory) == len(symbols)
        assert [registers[length - 1] & 0x1FFFF for length in range(1, 17)] == limits[1:].tolist()
        assert [registers[length - 1] >> 17 for length in range(1, 17)] == (offsets[1:] & 255).tolist()
        # What fills up the last word writes again what is there.
        assert len(entries) - len(memory) - 16 < max(1, engine.bus_bits // 64)
        assert streams.table.shape == (streams.table_words, engine.bus_bits // 8)
        assert streams.table_chunks == chunks_of(streams.table).size


def test_one_code_fits_all_row_groups_of_a_layer_best(layers):
    for layer, engine in layers:
        tiles = [tile for group in row_groups(layer.registers, engine) for tile in held_tiles(layer, engine, group)]
        counts = sum(np.bincount(tile.reshape(-1), minlength=256) for tile in tiles)
        bits = sum(int(streams.stream.sizes.sum()) for streams in layer.coded.passes)
        assert bits == pytest.approx(layer.coded.code.average_bits(counts) * counts.sum())
        assert set(np.flatnonzero(layer.coded.code.lengths)) == set(np.flatnonzero(counts))


@pytest.mark.parametrize("bus", BUSES)
@pytest.mark.parametrize("array", ["digit", "shift"])
def test_a_network_runs_from_its_coded_image(samples, array, bus):
    wide = MacFormat(align=24, acc=44)
    engine = EngineConfig(rows=8, lanes=4, bus_bits=bus, act_bytes=1 << 16, array=array, decoder="huffman", mac=wide)
    raw = engine.model_copy(update={"decoder": "raw"})
    net = NetworkBuilder("small", samples.input_spec((6, 5, 5), bits=4, zero_point=3))
    rng = np.random.default_rng(0)
    x = net.conv2d(
        "a", net.input, samples.codes(rng, 4, 12, 6, 3, 2), bits=4, scale=0.1, out=Grid(0.3, 8, signed=True), padding=1
    )
    net.conv2d("b", x, samples.codes(rng, 7, 12, 1, 2, 2), bits=7, scale=0.1, out=Grid(0.2, 8), groups=12)
    network = net.build()
    codes = rng.integers(*network.manifest.input.range, (6, 5, 5), endpoint=True).astype(np.int16)
    results = [
        compiled.decode_result(Machine(compiled.engine, compiled.with_input(codes)).run())
        for compiled in (compile_network(network, engine), compile_network(network, raw))
    ]
    assert np.array_equal(*results)
    assert len(np.unique(results[0])) > 8


def times(layer, engine, index, **changes):
    settings = {"header": 0, "shadow": 0, "ready": 0, "passes": 1, "half": 0}
    return layer.coded.times(index, **settings | changes)


def test_an_array_that_takes_tiles_at_once_is_as_fast_as_the_decoders(layers):
    """The decoders' own model, which the block's bench holds to the RTL, says when the symbols are there."""
    for layer, engine in layers:
        bank, columns = huffman_bank(engine), layer.coded.columns
        for index, each in enumerate(layer.coded.passes):
            cycles, decoded = bank.times(each.stream.sizes)
            for header in (0, 1000):
                found = times(layer, engine, index, header=header)
                begin = header + HEADER_CHUNKS
                # A symbol is offered in the cycle after its own.
                assert found.first.tolist() == (begin + 1 + decoded[columns - 1 :: columns]).tolist()
                last_chunk = found.taken - layer.coded.padding(index)
                assert found.done == max(begin + cycles, found.taken + 1) + 1
                assert begin < last_chunk <= begin + cycles
                assert found.post_wait == 0
                assert found.ready == found.first[-1] + 1


def test_an_array_that_takes_long_is_not_waited_for_by_more_than_a_tile(layers):
    passes = 5000
    for layer, engine in layers:
        for index in range(len(layer.coded.passes)):
            found = times(layer, engine, index, passes=passes)
            assert (np.diff(found.first) == passes).all()
            assert found.ready == found.first[-1] + passes
            # All but the last tile are decoded while an earlier one computes.
            free = times(layer, engine, index)
            assert found.first[0] == free.first[0]
            late = found.first[0] + 777
            held = times(layer, engine, index, passes=passes, half=late)
            assert (held.first[0], held.post_wait) == (late, 777)
            behind = times(layer, engine, index, passes=passes, ready=late)
            assert (behind.first[0], behind.post_wait) == (late, 0)


def test_a_shadow_tile_that_is_in_use_holds_the_decoders_up(layers):
    for layer, engine in layers:
        for index in range(len(layer.coded.passes)):
            free, held = times(layer, engine, index), times(layer, engine, index, shadow=4000)
            # The last column cannot come before the first one is taken.
            assert held.first[0] >= max(free.first[0], 4000 + layer.coded.columns - 1)
            assert held.done >= held.first[-1]
            assert (held.first >= free.first).all()


def test_tiles_of_a_layer_follow_their_streams(layers):
    for layer, engine in layers:
        tiles = list(tile_times(layer, engine))
        for before, after in pairwise(tiles):
            assert after.first > before.last
            assert after.decoded > before.decoded
            assert after.decoded - before.decoded > layer.coded.chunks
        for tile in tiles:
            assert len(tile.starts) == len(tile.pairs)
            assert (np.diff(tile.starts) >= tile.reads[:-1]).all()


def test_a_layer_reads_its_table_once_and_a_row_groups_stream_for_each_tile(layers):
    for layer, engine in layers:
        groups = list(row_groups(layer.registers, engine))
        words = descriptor_words(engine) + len(layer.coded.table)
        words += sum(layer.record.words(group.rows, engine.bus_bits) for group in groups)
        words += sum(len(layer.coded.words(tile.row_group)) for tile in tile_times(layer, engine))
        assert layer_cycles(layer, engine).bytes_read == words * engine.bus_bits // 8


def test_a_cycle_more_is_found(layers, monkeypatch):
    monkeypatch.setattr(coded, "HEADER_CHUNKS", HEADER_CHUNKS + 1)
    with pytest.raises(AssertionError):
        test_an_array_that_takes_tiles_at_once_is_as_fast_as_the_decoders(layers)


@pytest.mark.parametrize("bus", [8, 16])
def test_a_bus_narrower_than_a_chunk_is_refused(bus):
    message = rf"^engine: bus_bits must be at least 32 with a Huffman decoder, not {bus}$"
    with pytest.raises(FormatError, match=message):
        EngineConfig(bus_bits=bus, decoder="huffman")
    EngineConfig(bus_bits=32, decoder="huffman")


@pytest.mark.parametrize(("array", "rows"), [("digit", 65), ("shift", 64)])
def test_the_largest_engine_has_a_decoder_for_every_row(array, rows):
    assert huffman_bank(EngineConfig(rows=64, array=array, decoder="huffman")).rows == rows


@pytest.mark.parametrize(
    ("array", "decoder", "able"),
    [("sign", "huffman", "raw or xor"), ("digit", "xor", "raw or huffman"), ("shift", "xor", "raw or huffman")],
)
def test_a_decoder_that_an_array_has_not_is_refused_with_those_it_has(samples, array, decoder, able):
    message = f"^decoder of array {array} must be {able}, not {decoder}$"
    with pytest.raises(UnsupportedError, match=message):
        compile_network(samples.tiny().build(), EngineConfig(array=array, decoder=decoder))
