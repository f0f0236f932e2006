"""The whole engine: random networks' digits, counters and stored words; what its ports say; programs without sense."""

import numpy as np
import pytest
from gatewise import EngineConfig, ToolMissingError
from gatewise.rtl.cxxrtl import BusTiming, compile_design, find_compiler
from gatewise.rtl.engine import engine as engine_module
from gatewise.rtl.engine.check import ErrorCode
from gatewise.rtl.engine.compute import ComputeUnit
from gatewise.rtl.engine.cosim import BUS, EngineProbe, EngineSimulation, compare_image, compile_engine, cycle_limit
from gatewise.rtl.engine.post.pool import Pool
from gatewise.rtl.engine.post.unit import PostUnit
from gatewise.rtl.icarus import SimulationError
from gatewise.sim import tile_times
from gatewise.sim.compile import compile_network
from gatewise.sim.descriptor import descriptor_fields, descriptor_words, encode_descriptor
from gatewise.sim.images import ImageSet
from gatewise.sim.lowered import DIVIDER_CYCLES, row_groups
from gatewise.sim.random_cases import ENGINES, Steered, random_cases
from gatewise.sim.run import run

BUILD = "4x4/128"
CONFIG = ENGINES[BUILD]


@pytest.fixture(scope="module")
def design():
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    return compile_engine(CONFIG, formats=True)


class Narrow(Steered):
    """Decisions for that build alone."""

    def option(self, group, values):
        named = {
            "array": CONFIG.array,
            "operand bits": CONFIG.operand_bits,
            "bus": CONFIG.bus_bits,
            "decoder": CONFIG.decoder,
        }
        return named[group] if group in named else super().option(group, values)


@pytest.fixture(scope="module")
def cases():
    """Networks of that build, with row groups whose sums overflow and rows and words of fewer digits among them."""
    found = list(random_cases(6, 4, Narrow(4)))
    assert {case.build for case in found} == {BUILD}
    assert any(case.overflows for case in found)
    registers = [layer.registers for case in found for layer in compile_network(case.network, case.engine).layers]
    assert all(any(each.get(name) for each in registers) for name in ("rest_from", "wide_end"))
    assert any(layer.op != "mac" for case in found for layer in compile_network(case.network, case.engine).layers[1:-1])
    return found


def differences(design, cases, stall=0.0):
    """The first difference of each case's first image, cycles apart."""
    found = []
    for case in cases:
        program = compile_network(case.network, case.engine)
        golden = run(program.network, ImageSet(case.codes[:1], coded=True), case.engine, trace=True)
        with EngineSimulation(design, program, stall=stall, seed=1) as simulation:
            for _ in range(2):
                got = simulation.run(case.codes[0], 2 * cycle_limit(golden, stall))
                difference = compare_image(program, golden, got, exact=False)
                found += [] if difference is None else [difference]
    return found


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_networks_are_the_golden_ones(design, cases, stall):
    assert differences(design, cases, stall) == []


def stated_transfer(config, op, registers):
    """Cycles of a load or store, by the docstring of `Control`."""
    planes, step = ("out_planes", "out_pixel_step") if op == "load" else ("first_planes", "pixel_step")
    words = registers[planes] * registers["out_pixels"] * registers[step] * max(1, 4 * config.lanes // config.bus_bits)
    return words + descriptor_words(config) + (2 if op == "load" else 1) * config.bus_latency + 5


def misreported(design, cases):
    """What the ports say otherwise than it was, by case."""
    wrong = []
    for at, case in enumerate(cases):
        program = compile_network(case.network, case.engine)
        with EngineSimulation(design, program) as simulation:
            simulator = simulation.simulation
            recorders = [
                simulator.record(strobe, ["counts_layer", name])
                for strobe, name in (("counts_closed", "counts_row_group"), ("post_closed", "post_row_group"))
            ]
            got = simulation.run(case.codes[0], 200_000)
            state = [simulator.peek(name) for name in ("busy", "error", "current", "total_cycles")]
            closed = [
                list(zip(*(words[:, 0].tolist() for words in recorder.take().words.values()), strict=True))
                for recorder in recorders
            ]
        # From the cycle of `start` on; the list's `end` is fetched after the last layer.
        end = descriptor_words(CONFIG) + case.engine.bus_latency + 3
        total = int(got.layer_cycles.sum())
        row_groups_of = [
            (number, group)
            for number, layer in enumerate(program.layers)
            if layer.op == "mac"
            for group in range(len(list(row_groups(layer.registers, case.engine))))
        ]
        transfers = [
            stated_transfer(case.engine, layer.op, layer.registers) for layer in (program.layers[0], program.layers[-1])
        ]
        for name, found, stated in (
            ("state", state, [0, ErrorCode.NONE, len(program.layers), total]),
            ("cycles", got.cycles, 1 + total + end + 1),
            ("counters", closed, [row_groups_of] * 2),
            ("transfers", got.layer_cycles[[0, -1]].tolist(), transfers),
        ):
            if found != stated:
                wrong.append((at, name, found, stated))
    return wrong


def test_ports_say_which_layer_and_row_group_and_what_it_took(design, cases):
    assert misreported(design, cases) == []


BOUNDS = {
    "out_pixels": 40, "groups": 3, "group_inputs": 9, "group_outputs": 10, "kernel_y": 3, "kernel_x": 3,
    "beats": CONFIG.rows // CONFIG.post_lanes, "tile_pixels": CONFIG.pixels, "out_planes": 4, "second_planes": 4,
    "first_planes": 4, "other_planes": 4,
}  # fmt: skip


def nonsense(rng, op):
    """Registers of a layer that are within the bounds that are checked, and otherwise anything."""
    fields = descriptor_fields(CONFIG)
    values = {
        name: int(
            rng.integers(1 if name in BOUNDS else field.range[0], BOUNDS.get(name, field.range[1]), endpoint=True)
        )
        for name, field in fields.items()
        if name not in ("magic", "check", "op")
    }
    values |= {"stream": 100, "interval": int(rng.integers(17, 90)), "thresholds": int(rng.choice([0, 1, 3, 7, 15]))}
    if op == "mac":
        return values | {"first_planes": 0}
    values |= {"groups": 1, "depthwise": 0}
    if op == "stream":
        return values | {"kernel_y": 1, "kernel_x": 1}
    return values | dict.fromkeys(("second_planes", "other_planes", "adds", "copies"), 0)


def test_no_layer_that_passes_the_checks_hangs(design):
    rng = np.random.default_rng(4)
    passed = 0
    with design.simulate() as simulation:
        memory = rng.integers(0, 256, (20_000, CONFIG.bus_bits // 8), dtype=np.uint8)
        simulation.attach_bus(BUS, memory, BusTiming(3))
        for at in range(120):
            op = ("mac", "max_pool", "average_pool", "stream")[at % 4]
            load = encode_descriptor(CONFIG, "load", {"out_pixels": 3, "out_planes": 1, "out_pixel_step": 1})
            program = (encode_descriptor(CONFIG, op, nonsense(rng, op)), load, encode_descriptor(CONFIG, "end", {}))
            memory[: sum(map(len, program))] = np.concatenate(program)
            simulation.poke("start", 1)
            simulation.run(1)
            simulation.poke("start", 0)
            simulation.run(300_000, until="idle")
            assert simulation.peek("error") in (ErrorCode.NONE, ErrorCode.SIZE, ErrorCode.BANK_CONFLICT)
            passed += simulation.peek("error") == ErrorCode.NONE
    assert passed > 40


FAULTS = {
    "words of the wrong reader": ("post.fetch_data.eq(memory.post_data)", "memory.post_data", "memory.array_data"),
    "half never given back": ("compute.release.eq(post.release)", "post.release", "post.release[0]"),
    "row group not cleared": ("post_row_group.eq(0)]", "0", "post_row_group"),
}


@pytest.fixture(scope="module")
def faulty(design, planted_together):
    """An engine with all of them, of which an input chooses one."""
    names, choosing = planted_together({fault: (engine_module, *what) for fault, what in FAULTS.items()})
    return compile_design(choosing(EngineProbe(names[engine_module]["Engine"](CONFIG, formats=True))))


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_planted_fault_is_found(fault, faulty, with_fault, cases):
    chosen = with_fault(faulty, 0 if fault is None else 1 + list(FAULTS).index(fault))
    try:
        found = misreported(chosen, cases) + differences(chosen, cases)
    except SimulationError:  # it never ends
        found = ["no end"]
    assert (found == []) == (fault is None)


@pytest.mark.parametrize("lanes", [4, 8, 16, 32, 64])
def test_the_cycle_models_constants_are_the_hardwares(lanes):
    config = EngineConfig(lanes=lanes)
    post = PostUnit(config)
    assert {op: post.write_delay(op) for op in tile_times.WRITE_DELAY} == tile_times.WRITE_DELAY
    assert (post.slot_delay, post.read_delay, post.free_delay + 1) == (
        tile_times.SLOT_DELAY,
        tile_times.READ_DELAY,
        tile_times.FREE_DELAY,
    )
    assert Pool.divider_cycles == DIVIDER_CYCLES
    assert ComputeUnit(config).latency == tile_times.array_stages(config)
