import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.rtl.engine import loader as loader_module
from gatewise.rtl.engine.loader import WeightLoader
from gatewise.sim.image import TileLayout, container_bits


def tiles_in(rng, config, count, tile_words, settings):
    """Random tiles with what the loader must hold for each: (settings, words, codes, amounts)."""
    rows, lanes, diagonal = config.rows, config.lanes, min(config.rows, config.lanes)
    signed = config.array == "digit"
    tiles = []
    for _ in range(count):
        container, aligned, depthwise = settings
        bits = 1 << container
        used = int(rng.integers(1, (diagonal if depthwise else rows) + 1))
        offset = int(rng.integers(lanes // diagonal)) * diagonal if depthwise else 0
        low, high = (-(1 << (bits - 1)), max(1, 1 << (bits - 1))) if signed else (0, 1 << bits)
        codes = rng.integers(low, high, (used, 1 if depthwise else lanes))
        amounts = rng.integers(0, 256, lanes) if aligned else None
        held = np.zeros((rows, lanes), dtype=int)
        for row in range(used):
            if depthwise:
                held[row, offset + row] = codes[row, 0]
            else:
                held[row] = codes[row]
        words = tile_words(codes, bits, config.bus_bits, amounts)
        tiles.append(((used, offset), words, held, np.zeros(lanes, dtype=int) if amounts is None else amounts))
    return tiles


def play(config, settings, tiles, gap, loader=WeightLoader, seed=0):
    """Load and swap every tile; returns the tiles found and the cycles between swaps."""
    dut = loader(config)
    rng = np.random.default_rng(seed)
    found, swaps = [], []
    digit, bits = config.array == "digit", 1 if config.array == "sign" else 8

    async def bench(ctx):
        container, aligned, depthwise = settings
        if config.array != "sign":
            ctx.set(dut.container, container)
        if digit:
            ctx.set(dut.aligned, int(aligned))
        ctx.set(dut.depthwise, int(depthwise))
        stream = [word for _, words, _, _ in tiles for word in words]
        describe = [about for about, _, _, _ in tiles]
        pending = swapped = False
        loading = 0
        for cycle in range(100_000):
            ctx.set(dut.swap, int(pending))
            loading += pending
            ctx.set(dut.rows, describe[min(loading, len(tiles) - 1)][0])
            ctx.set(dut.lane_offset, describe[min(loading, len(tiles) - 1)][1])
            ctx.set(dut.enable, int(loading < len(tiles)))
            valid = bool(stream) and rng.random() >= gap
            ctx.set(dut.words.valid, int(valid))
            ctx.set(dut.words.payload, stream[0] if valid else int(rng.integers(256)))
            if swapped:
                codes = sum(ctx.get(row.as_value()) << bits * config.lanes * at for at, row in enumerate(dut.codes))
                amounts = ctx.get(dut.amounts.as_value()) if digit else 0
                held = [codes >> bits * at & ((1 << bits) - 1) for at in range(config.rows * config.lanes)]
                held = [(code ^ 128) - 128 for code in held] if digit else held
                lanes = [amounts >> 8 * at & 255 for at in range(config.lanes)]
                found.append((np.array(held).reshape(config.rows, config.lanes), np.array(lanes)))
                if len(found) == len(tiles):
                    return
            if valid and ctx.get(dut.words.ready):
                stream.pop(0)
            swapped = pending
            pending = bool(ctx.get(dut.loaded)) and loading < len(tiles)
            if pending:
                swaps.append(cycle)
            await ctx.tick()
        raise AssertionError("the loader must finish")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found, swaps


def mismatch(found, tiles):
    return [
        at
        for at, ((codes, amounts), (_, _, held, lanes)) in enumerate(zip(found, tiles, strict=True))
        if not (np.array_equal(codes, held) and np.array_equal(amounts, lanes))
    ]


CASES = [
    (4, 4, 8, (2, True, False)),
    (4, 4, 16, (0, False, False)),
    (4, 4, 128, (1, True, False)),
    (4, 8, 32, (3, True, False)),
    (8, 4, 64, (2, False, False)),
    (4, 8, 8, (3, True, True)),
    (8, 4, 16, (2, False, True)),
    (4, 4, 8, (0, True, True)),
]
SIGNS = [(4, 8, bus, "sign", (0, False, depthwise)) for bus in (8, 16, 128) for depthwise in (False, True)]
SIGNS += [(8, 4, 16, "sign", (0, False, False)), (4, 4, 64, "sign", (0, False, True))]
SHIFTS = [(4, 8, 32, "shift", (container, False, False)) for container in range(4)]
SHIFTS += [
    (4, 4, 8, "shift", (2, False, False)),
    (4, 8, 8, "shift", (3, False, True)),
    (8, 4, 64, "shift", (2, False, True)),
]


@pytest.mark.parametrize(
    ("rows", "lanes", "bus", "array", "settings"), [(*case[:3], "digit", case[3]) for case in CASES] + SIGNS + SHIFTS
)
@pytest.mark.parametrize("gap", [0.0, 0.4])
def test_tiles_arrive_whole_one_word_a_cycle(rows, lanes, bus, array, settings, gap, tile_words):
    config = EngineConfig(rows=rows, lanes=lanes, bus_bits=bus, array=array)
    tiles = tiles_in(np.random.default_rng(rows * lanes + bus), config, 12, tile_words, settings)
    found, swaps = play(config, settings, tiles, gap)
    assert mismatch(found, tiles) == []
    if not gap:
        # A tile is complete in the cycle of its last word, and the next one's first word comes right after.
        container, aligned, depthwise = settings
        loads = [
            (-(-8 * lanes // bus) if aligned else 0) + -(-used * (1 if depthwise else lanes) * (1 << container) // bus)
            for (used, _), _, _, _ in tiles
        ]
        assert swaps == [max(0, total - 1) for total in np.cumsum(loads).tolist()]


@pytest.mark.parametrize(
    ("old", "new", "case"),
    [
        ("word[low : low + bits].as_signed()", "word[low : low + bits]", 0),
        ("with m.Elif(clear):", "with m.Elif(0):", 4),
        ("Mux(used[row], ", "Mux(1, ", 1),
        ("self.lane_offset == max(0, offset)", "1", 5),
        ("& (~full | self.swap)", "& ~full", 0),
    ],
    ids=["unsigned codes", "stale shadow", "stray rows", "every diagonal", "lost cycle"],
)
def test_a_planted_fault_is_found(planted, old, new, case, tile_words):
    faulty = planted(loader_module, old, new)["WeightLoader"]
    rows, lanes, bus, settings = CASES[case]
    config = EngineConfig(rows=rows, lanes=lanes, bus_bits=bus)
    tiles = tiles_in(np.random.default_rng(1), config, 12, tile_words, settings)
    if old == "Mux(used[row], ":  # what lies behind the last row of a word is not a code
        tiles = [
            (about, [word | 1 << bus - 1 for word in words], held, amounts) for about, words, held, amounts in tiles
        ]
        assert mismatch(play(config, settings, tiles, 0.0, faulty)[0], tiles) != []
        return
    found, swaps = play(config, settings, tiles, 0.0, faulty)
    assert mismatch(found, tiles) != [] or swaps[-1] != sum(len(words) for _, words, _, _ in tiles) - 1


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        (SIGNS[0], "low = place * bits % bus", "low = (place + 1) * bits % bus"),
        (SIGNS[1], "self.lane_offset == max(0, offset)", "1"),
        (SIGNS[2], "index == begin // in_word", "index == begin // (2 * in_word)"),
        (SIGNS[2], "Mux(used[row], ", "Mux(used[0], "),
        (SIGNS[2], "self.enable & (~full | self.swap)", "self.enable & ~full"),
        (
            SHIFTS[0],
            "held = word[low : low + bits].as_signed() if self.aligns else",
            "held = word[low : low + bits].as_signed() if 1 else",
        ),
        (SHIFTS[2], "self._container() == container, held", "self._container() == 3 - container, held"),
    ],
    ids=["next sign", "every diagonal", "half the words", "rows beyond", "lost cycle", "sign-extended", "container"],
)
def test_a_fault_with_signs_or_shift_codes_is_found(planted, case, old, new, tile_words):
    rows, lanes, bus, array, settings = case
    config = EngineConfig(rows=rows, lanes=lanes, bus_bits=bus, array=array)
    tiles = tiles_in(np.random.default_rng(2), config, 12, tile_words, settings)
    if "used" in old:  # what lies behind the last row of a word is not a code
        tiles = [
            (about, [*words[:-1], words[-1] | 1 << bus - 1], held, amounts) for about, words, held, amounts in tiles
        ]
    found, swaps = play(config, settings, tiles, 0.0, planted(loader_module, old, new)["WeightLoader"])
    assert mismatch(found, tiles) != [] or swaps[-1] != sum(len(words) for _, words, _, _ in tiles) - 1


@pytest.mark.parametrize("bus", [8, 32, 128])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("aligned", "depthwise"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_images_tiles_are_in_the_form_that_the_loader_reads(bus, bits, aligned, depthwise, tile_words):
    rng = np.random.default_rng(bits)
    tile = TileLayout(3, 4, bits, aligned, depthwise)
    codes = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (3, tile.row_codes))
    amounts = rng.integers(0, 9, 4) if aligned else None
    words = [int.from_bytes(word.tobytes(), "little") for word in tile.encode(codes, amounts, bus)]
    assert words == tile_words(codes, container_bits(bits), bus, amounts)
    assert words != tile_words(~codes, container_bits(bits), bus, amounts)
    unsigned = TileLayout(3, 4, bits, False, depthwise, signed=False)
    codes &= (1 << bits) - 1
    encoded = unsigned.encode(codes, None, bus)
    words = [int.from_bytes(word.tobytes(), "little") for word in encoded]
    assert words == tile_words(codes, container_bits(bits), bus)
    assert np.array_equal(unsigned.decode(encoded)[0], codes)
