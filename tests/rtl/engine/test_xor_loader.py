"""Encrypted signs through the XOR loader: every tile and its cycle, whole engines, planted faults, damaged streams."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig, Grid, InputSpec, MacFormat, NetworkBuilder, WeightCodes, XorNetwork
from gatewise.kernels.errors import FormatError, ToolMissingError, UnsupportedError
from gatewise.rtl.cxxrtl import find_compiler
from gatewise.rtl.engine import xor_loader
from gatewise.rtl.engine.cosim import EngineSimulation, compile_engine, regress_network
from gatewise.rtl.engine.xor_loader import XorLoader
from gatewise.rtl.icarus import SimulationError
from gatewise.sim import xor_coded
from gatewise.sim.arrays import array_form
from gatewise.sim.compile import compile_network
from gatewise.sim.lowered import row_groups
from gatewise.sim.random_cases import ENGINES, Steered, random_cases
from gatewise.sim.tiles import step_tiles

BUILD = "4x8/64 xor sign"
ENGINE = ENGINES[BUILD]
TILE = (4, 8)
SMALL, EVEN, LARGE = XorNetwork.random(7, 9, 2, 1), XorNetwork.random(8, 8, None, 2), XorNetwork.random(29, 32, 3, 3)
WIDE = XorNetwork.random(20, 3, None, 4)


def layer(networks, shape, tile=TILE, groups=1, size=(3, 4), **settings):
    """A network of one convolution with encrypted signs; without networks their raw planes."""
    rng = np.random.default_rng(5)
    inputs = shape[1] * groups
    grid = InputSpec(shape=(inputs, *size), bits=4, scale=1.0, zero_point=0, mean=(0.0,) * inputs, std=(1.0,) * inputs)
    net = NetworkBuilder("xor", grid)
    count = int(np.prod(shape))
    coefs = rng.integers(1, 60, (max(1, len(networks)), shape[0]))
    if networks:
        slices = [rng.integers(0, 2, (each.slices(count), each.n_in)).astype(np.uint8) for each in networks]
        codes = WeightCodes.xor(slices, networks, coefs, shape, fraction=5, tile=tile)
    else:
        codes = WeightCodes.basis(rng.choice((-1, 1), (1, *shape)), coefs, fraction=5)
    net.conv2d("layer", net.input, codes, groups=groups, scale=0.05, out=Grid(0.1, 4, zero_point=3), **settings)
    return net.build()


LAYERS = {
    "tile order": lambda: layer([SMALL], (8, 16, 3, 3), padding=1),
    "tile order, slices that end with rows": lambda: layer([EVEN], (8, 16, 2, 2)),
    "tile order, rows that do not fill": lambda: layer([LARGE], (6, 16, 2, 3)),
    "tile order, lanes that do not fill": lambda: layer([SMALL], (6, 11, 2, 2)),
    "another tile's order": lambda: layer([SMALL], (6, 11, 2, 2), tile=(3, 5)),
    "two planes": lambda: layer([SMALL, SMALL], (8, 16, 2, 2)),
    "planes of three networks": lambda: layer([SMALL, LARGE, EVEN, SMALL], (5, 9, 2, 2)),
    "natural order": lambda: layer([LARGE], (6, 16, 2, 2), tile=None),
    "a row of many slices": lambda: layer([WIDE], (4, 8, 2, 2)),
    "groups": lambda: layer([SMALL], (6, 5, 2, 2), groups=2),
    "depthwise": lambda: layer([SMALL], (10, 1, 3, 3), groups=10, padding=1),
    "depthwise, natural order": lambda: layer([LARGE], (10, 1, 2, 2), tile=None, groups=10),
    "not encrypted": lambda: layer([], (6, 11, 2, 2)),
    "depthwise, not encrypted": lambda: layer([], (10, 1, 2, 2), groups=10),
}


def play(network, engine, shadow=0, passes=40, damage=None, component=XorLoader, limit=4000):
    """The loader on one layer's table and two passes of each row group.

    Returns the tiles' cycles and codes, those that there ought to be, and whether there was an error. A step takes
    `passes` cycles, the first one waits for cycle `shadow`. `damage` changes the words.
    """
    compiled = compile_network(network, engine)
    lowered = compiled.layers[1]
    coded, form = lowered.coded, array_form(lowered.mac, "sign")
    groups = list(row_groups(lowered.registers, engine))
    words = [coded.table, *(coded.words(index) for index in range(len(groups)) for _ in range(2))]
    words = np.concatenate(words) if damage is None else damage(np.concatenate(words).copy())
    words = [int.from_bytes(word.tobytes(), "little") for word in words]
    depthwise = int(form.layer.shape.depthwise)
    expected, wanted = [], []
    begin, before, ready = 1 + coded.table_chunks, 0, shadow
    for index, group in enumerate(groups):
        for _ in range(2):
            times = coded.times(index, begin, before, ready, passes, 0)
            expected += times.first.tolist()
            begin, before, ready = times.done, int(times.first[-1]) + 1, times.ready
            wanted += [(group, step, codes) for step, (codes, _) in enumerate(step_tiles(form, group, engine.lanes))]
    dut = component(engine)
    found = SimpleNamespace(cycles=[], right=True, error=False, left=len(words))

    def rows_of(step):
        return wanted[min(step, len(wanted) - 1)][0].rows

    async def bench(ctx):
        ctx.set(dut.start, 1)
        ctx.set(dut.table_words, coded.table_words)
        ctx.set(dut.weight_words, coded.weight_words)
        ctx.set(dut.depthwise, depthwise)
        await ctx.tick()
        ctx.set(dut.start, 0)
        step, free, swapping, at = 0, shadow, None, 0
        for cycle in range(1, limit):
            ctx.set(dut.swap, int(swapping is not None))
            ctx.set(dut.swap_first, int(swapping is not None and wanted[swapping][1] == 0))
            ctx.set(dut.rows, rows_of(step))
            ctx.set(dut.running, int(step < len(wanted) or cycle < free))
            ctx.set(dut.enable, int(step < len(wanted)))
            ctx.set(dut.words.valid, int(at < len(words)))
            ctx.set(dut.words.payload, words[at] if at < len(words) else 0)
            taken, loaded = at < len(words) and ctx.get(dut.words.ready), ctx.get(dut.loaded)
            swapped, swapping = swapping, None
            if loaded and cycle >= free and step < len(wanted):
                found.cycles.append(cycle)
                free, swapping, step = cycle + passes, step, step + 1
            await ctx.tick()
            at += taken
            if swapped is not None:
                group, number, codes = wanted[swapped]
                for row in range(group.rows):
                    held = ctx.get(dut.codes[row].as_value())
                    lanes = [group.lane + row] if depthwise else range(engine.lanes)
                    for lane, sign in zip(lanes, codes[row], strict=True):
                        # Lanes that no input has are masked: they hold any sign.
                        used = depthwise or _used(form, group, number, lane, engine.lanes)
                        found.right &= not used or held >> lane & 1 == sign
            if ctx.get(dut.error):
                found.error = True
                return
            if step == len(wanted) and cycle > free and ctx.get(dut.waits) and at == len(words):
                found.left = 0
                return

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found, expected


def _used(form, group, step, lane, lanes):
    at = step // len(form.codes) % group.lane_groups * lanes + lane
    return group.lane <= at < group.lane + form.layer.shape.group_inputs


def passed(network, engine, **settings):
    found, expected = play(network, engine, **settings)
    return found.right and not found.error and not found.left and found.cycles == expected


class TestLoader:
    @pytest.mark.parametrize("bus", [32, 128])
    @pytest.mark.parametrize("name", LAYERS)
    def test_every_tile_is_loaded_in_its_cycle(self, name, bus):
        engine = ENGINE.model_copy(update={"bus_bits": bus})
        assert passed(LAYERS[name](), engine, passes=4 if bus == 32 else 20)

    def test_a_tile_waits_for_the_array(self):
        assert passed(LAYERS["tile order"](), ENGINE, shadow=300, passes=9)

    @pytest.mark.parametrize("name", ["tile order", "two planes", "not encrypted"])
    def test_long_runs_are_taken_apart(self, monkeypatch, name):
        monkeypatch.setattr(xor_coded, "_most_rows", lambda lanes: 32)
        assert passed(LAYERS[name](), ENGINE)

    @pytest.mark.parametrize(
        "fault",
        FAULTS := {
            "the lane of a run is lost": ("placed.eq(bits << lane)", "placed.eq(bits)"),
            "a run begins with whole slices": (
                "decoder.runs.payload.skip.eq(run.skip)",
                "decoder.runs.payload.skip.eq(0)",
            ),
            "the rows of a tile are one more": ("(row == self.rows - 1)", "(row == self.rows)"),
            "the run that comes is the row's": ("made.eq(run)", "made.eq(chunk)"),
            "networks overwrite each other": ("network.eq(network + 1)", "network.eq(0)"),
            "a run waits for nobody": ("~run_valid | run_done)", "1)"),
            "a run waits a cycle more": ("~run_valid | run_done)", "~run_valid)"),
            "parts overwrite the whole row": ("(shadow & ~reached) | ", ""),
            "a depthwise tile has rows": ("(self.depthwise | (row == self.rows - 1))", "((row == self.rows - 1))"),
        },
    )
    def test_a_planted_fault_is_found(self, planted, fault):
        component = planted(xor_loader, *self.FAULTS[fault])["XorLoader"]
        names = ("planes of three networks", "another tile's order", "depthwise")
        assert not all(passed(LAYERS[name](), ENGINE, component=component, limit=1500) for name in names)


def moved(words):
    """The table, and all behind it a word too early; the last word is zeros."""
    return np.concatenate([words[:5], words[6:], np.zeros_like(words[:1])])


def zeroed(words):
    words[len(words) // 2 :] = 0
    return words


def ones(words):
    words[-len(words) // 3 :] = 255
    return words


def shorter(at, change):
    """Changes a field of the first run's header behind a table of `SMALL`, which has 10 chunks."""

    def damage(words):
        chunks = words.reshape(-1).view(np.uint32)
        chunks[10 + at] = change(int(chunks[10 + at]))
        return words

    return damage


DAMAGES = {
    "a word is lost": moved,
    "half is zeros": zeroed,
    "the end is ones": ones,
    "no run": shorter(0, lambda chunk: 0),
    "a run without length": shorter(0, lambda chunk: chunk & ~0xFFFF),
    "a run of a row less": shorter(0, lambda chunk: chunk - 8),
    "a run of a tile less": shorter(0, lambda chunk: chunk - 32),
    "a run of a bit more": shorter(0, lambda chunk: chunk + 64),
    "skipped beyond the slice": shorter(0, lambda chunk: chunk | 31 << 16),
    "a network that never came": shorter(0, lambda chunk: chunk | 3 << 27),
    "a row that does not end": shorter(0, lambda chunk: chunk & ~(1 << 29)),
    "a pass that does not end": shorter(0, lambda chunk: chunk & ~(1 << 30)),
    "a chunk less": shorter(1, lambda chunk: chunk - 1),
    "a chunk more": shorter(1, lambda chunk: chunk + 1),
    "no chunks": shorter(1, lambda chunk: 0),
    "endless chunks": shorter(1, lambda chunk: 0xFFFFFFFF),
    "a network without inputs": shorter(-10, lambda chunk: chunk & ~0xFF),
    "a network too wide": shorter(-10, lambda chunk: chunk | 63),
    "a network without outputs": shorter(-10, lambda chunk: chunk & 0xFF),
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGES)
    def test_a_damaged_stream_is_an_error(self, name):
        """Slices apart, in which all bits stand for some signs."""
        found, _ = play(LAYERS["tile order"](), ENGINE, passes=4, damage=DAMAGES[name])
        assert found.error


@pytest.fixture(scope="module")
def design():
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    return compile_engine(ENGINE, formats=True)


def codes_for(network, seed=0):
    return np.random.default_rng(seed).integers(0, 16, (1, *network.manifest.input.shape))


class OfBuild(Steered):
    """Draws networks for the engine with the decoder alone."""

    def option(self, group, values):
        fixed = {"array": "sign", "bus": ENGINE.bus_bits}
        return fixed.get(group) or super().option(group, values)


class TestEngine:
    @pytest.mark.parametrize("name", LAYERS)
    def test_layers_run_as_in_the_simulator(self, design, name):
        network = LAYERS[name]()
        engine = ENGINE.model_copy(update={"bus_latency": 13})
        for stall in (0, 0.3):
            result = regress_network(design, compile_network(network, engine), codes_for(network), stall=stall)
            assert result.mismatch is None

    def test_random_networks_run_as_in_the_simulator(self, design):
        for number, case in enumerate(random_cases(20, 7, OfBuild(7))):
            compiled = compile_network(case.network, case.engine)
            result = regress_network(design, compiled, case.codes, stall=case.stall, seed=number)
            assert result.mismatch is None

    @pytest.mark.parametrize("damage", ["zeroed", "short", "moved"])
    def test_a_damaged_stream_stops_the_engine(self, design, damage):
        network = LAYERS["tile order"]()
        compiled = compile_network(network, ENGINE)
        start, count = compiled.stream_words[1]
        image = compiled.image.copy()
        coded = compiled.layers[1].coded
        if damage == "zeroed":
            image[start + count - coded.weight_words : start + count] = 0
        elif damage == "short":
            image[start + count - coded.weight_words : start + count - 1] = image[
                start + count - coded.weight_words + 1 : start + count
            ]
        else:
            image[start : start + count] = np.roll(image[start : start + count], 1, axis=0)
        with EngineSimulation(design, replace(compiled, image=image)) as simulation:
            with pytest.raises(SimulationError, match=r"error 6\b|STREAM"):
                simulation.run(codes_for(network)[0], 20_000)


class TestRules:
    def test_a_narrow_bus_is_refused(self):
        with pytest.raises(FormatError, match="bus_bits must be at least 32 with an XOR decoder, not 16"):
            EngineConfig(array="sign", decoder="xor", bus_bits=16, mac=MacFormat(acc=40))

    @pytest.mark.parametrize(
        ("networks", "what"),
        [
            ([XorNetwork.random(33, 20, 2, 0)], "more than 32 inputs and outputs"),
            ([XorNetwork.random(5, 6, 2, seed) for seed in range(5)], "more than 4 different networks"),
        ],
    )
    def test_a_network_beyond_the_registers_is_refused(self, networks, what):
        wanted = f'{what} must run on an engine with decoder = "raw", not decoder = "xor"'
        with pytest.raises(UnsupportedError, match=re.escape(wanted)):
            compile_network(layer(networks, (4, 8, 1, 1)), ENGINE)

    def test_in_tile_order_hardly_more_than_the_slices_are_read(self):
        network = layer([XorNetwork.random(16, 20, 2, 0)], (32, 32, 3, 3))
        coded = compile_network(network, ENGINE).layers[1].coded
        assert 32 * coded.weight_words * ENGINE.bus_bits // 4 <= 1.1 * 32 * 32 * 9 * 16 / 20 * 32
