"""The co-simulation against engines that play a script: golden ones pass, every planted difference is named."""

from collections import Counter
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from gatewise import InputSpec, NetworkBuilder
from gatewise.kernels.errors import ToolMissingError
from gatewise.kernels.mac import MacFormat
from gatewise.rtl.cxxrtl import compile_design, find_compiler
from gatewise.rtl.engine import random_regress
from gatewise.rtl.engine.comparison import CounterRecord, Writes, written_tensors
from gatewise.rtl.engine.cosim import EngineProbe, EngineSimulation, Window, compare_image, format_word, regress_network
from gatewise.rtl.icarus import SimulationError
from gatewise.sim.compile import compile_network
from gatewise.sim.descriptor import act_words
from gatewise.sim.image import in_words
from gatewise.sim.images import ImageSet
from gatewise.sim.lowered import row_groups
from gatewise.sim.random_cases import Steered, random_cases
from gatewise.sim.run import run
from gatewise.sim.words import tensor_words
from rich.console import Console

KINDS = ("product", "align", "acc")


@pytest.fixture(scope="module")
def cases():
    """Some random networks with two overflowing layers of the array at least."""
    draw = Steered(4)
    found = [case for case in random_cases(60, 4, draw) if len(case.golden.overflows) > 1 and case.overflows]
    return found[:6]


def golden_parts(case):
    """A case compiled, the golden run of its first image, and everything that an engine would do with it."""
    compiled = compile_network(case.network, case.engine)
    golden = run(compiled.network, ImageSet(case.codes[:1], coded=True), case.engine, trace=True)
    tensors = {name: tensor[0] for name, tensor in golden.tensors.items()}
    enables, rows = case.engine.word_enables, case.engine.rows
    cycle, rowwise, ends = 10, [], []
    counters = {kind: [] for kind in (*KINDS, "post")}
    closed = []
    for number, (layer, written) in enumerate(zip(compiled.layers, written_tensors(compiled, tensors), strict=True)):
        for tensor in written:
            addresses, enable = tensor.places()
            for address in np.unique(addresses):
                at = addresses == address
                mask, digits = np.zeros(enables, dtype=bool), np.zeros(enables, dtype=np.uint8)
                mask[enable[at]] = True
                digits[enable[at]] = tensor.digits[at]
                rowwise.append((cycle, number, address, mask, digits))
                cycle += 1
        if layer.op == "mac":
            for group in row_groups(layer.registers, case.engine):
                for kind, values in counters.items():
                    counts = np.zeros(rows, dtype=np.int64)
                    channels = slice(group.first, group.first + group.rows)
                    counts[: group.rows] = getattr(golden.overflows[layer.name], kind)[channels]
                    values.append(counts)
                closed.append(cycle)
                cycle += 1
        ends.append(cycle)
        cycle += 1
    writes = Writes(*(np.array(column) for column in zip(*rowwise, strict=True)))
    closed = np.array(closed)
    stacked = {kind: np.array(values).reshape(-1, rows) for kind, values in counters.items()}
    found = SimpleNamespace(
        writes=writes,
        counters=(
            CounterRecord(closed, {kind: stacked[kind] for kind in KINDS}),
            CounterRecord(closed, {"post": stacked["post"]}),
        ),
        layer_cycles=np.array([layer.total for layer in golden.layers]),
        layer_indices=np.arange(len(golden.layers)),
        layer_ends=np.array(ends),
        result=tensors[case.network.output],
    )
    return compiled, golden, found


def changed(found, **parts):
    return SimpleNamespace(**{**vars(found), **parts})


def test_what_the_simulator_says_passes(cases):
    assert len(cases) == 6
    for case in cases:
        assert compare_image(*golden_parts(case), exact=True) is None


@pytest.mark.parametrize("seed", range(4))
def test_one_wrong_digit_is_named_with_its_place_and_cycle(cases, seed):
    rng = np.random.default_rng(seed)
    for case in cases:
        compiled, golden, found = golden_parts(case)
        at = int(rng.integers(len(found.writes.cycles)))
        lane = int(rng.choice(np.flatnonzero(found.writes.mask[at])))
        digits = found.writes.digits.copy()
        digits[at, lane] ^= 5
        layer = compiled.layers[found.writes.layers[at]]
        text = compare_image(compiled, golden, changed(found, writes=replace(found.writes, digits=digits)), exact=True)
        assert text.startswith(f"layer {layer.name}: ")
        assert ", channel " in text
        assert ", pixel " in text
        right = int(found.writes.digits[at, lane])
        assert text.endswith(f": expected {right}, found {right ^ 5}, cycle {int(found.writes.cycles[at])}")


def test_the_named_channel_and_pixel_are_those_of_the_code(cases):
    compiled, golden, found = golden_parts(cases[0])
    tensors = {name: tensor[0].copy() for name, tensor in golden.tensors.items()}
    layer = next(layer for layer in compiled.plan.layers if layer.nodes[0].name in compiled.plan.kept)
    name = layer.nodes[0].name
    channel, y, x = (size - 1 for size in tensors[name].shape)
    code = int(tensors[name][channel, y, x])
    golden.tensors[name][0, channel, y, x] = code ^ 1
    pixel = y * tensors[name].shape[2] + x
    text = compare_image(compiled, golden, found, exact=True)
    golden.tensors[name][0, channel, y, x] = code
    wanted = f"layer {layer.name}: {name}, channel {channel}, pixel {pixel} (y {y}, x {x}), code {code ^ 1}, digit 0: "
    assert text.startswith(wanted + f"expected {(code ^ 1) & 15}, found {code & 15}, cycle ")


def test_a_write_that_is_missing_misplaced_late_or_too_much_is_named(cases):
    for case in cases:
        compiled, golden, found = golden_parts(case)
        last = len(found.writes.cycles) - 1
        mask = found.writes.mask.copy()
        mask[last] = False
        text = compare_image(compiled, golden, changed(found, writes=replace(found.writes, mask=mask)), exact=True)
        assert ", found nothing written" in text

        layers = found.writes.layers.copy()
        layers[-1] = len(compiled.layers)
        text = compare_image(compiled, golden, changed(found, writes=replace(found.writes, layers=layers)), exact=True)
        assert "nothing written" in text

        extra = [np.concatenate([column, column[-1:]]) for column in (
            found.writes.cycles + 0, found.writes.layers, found.writes.addresses, found.writes.mask, found.writes.digits
        )]  # fmt: skip
        used = {int(word) for word in found.writes.addresses}
        extra[2][-1] = free = next(word for word in range(len(used) + 1) if word not in used)
        extra[0][-1] += 1
        text = compare_image(compiled, golden, changed(found, writes=Writes(*extra)), exact=True)
        assert f": word {free}, digit " in text
        assert f", cycle {int(extra[0][-1])}" in text

        extra[2][-1] = 1 << 20
        text = compare_image(compiled, golden, changed(found, writes=Writes(*extra)), exact=True)
        assert f"expected below {act_words(case.engine)}, found {1 << 20}, cycle " in text

        extra[1][-1] = len(compiled.layers)
        text = compare_image(compiled, golden, changed(found, writes=Writes(*extra)), exact=True)
        assert text == f"layer end: activation memory: expected no write, found a write, cycle {int(extra[0][-1])}"


@pytest.mark.parametrize("kind", [*KINDS, "post"])
def test_one_wrong_counter_is_named(cases, kind):
    for case in cases:
        compiled, golden, found = golden_parts(case)
        which = int(kind == "post")
        record = found.counters[which]
        counts = {name: values.copy() for name, values in record.counts.items()}
        counts[kind][-1, 0] += 1
        records = list(found.counters)
        records[which] = CounterRecord(record.cycles, counts)
        text = compare_image(compiled, golden, changed(found, counters=records), exact=True)
        right, cycle = int(record.counts[kind][-1, 0]), int(record.cycles[-1])
        assert f": {kind} overflows of channel " in text
        assert text.endswith(f": expected {right}, found {right + 1}, cycle {cycle}")

        shorter = CounterRecord(record.cycles[:-1], {name: values[:-1] for name, values in record.counts.items()})
        records[which] = shorter
        text = compare_image(compiled, golden, changed(found, counters=records), exact=True)
        total = len(record.cycles)
        assert f"row groups that hand over {', '.join(counts)}: expected {total}, found {total - 1}" in text


def test_cycles_and_layers_are_compared_and_a_stalled_bus_only_in_its_layers(cases):
    compiled, golden, found = golden_parts(cases[0])
    cycles = found.layer_cycles.copy()
    cycles[1] += 1
    wrong = changed(found, layer_cycles=cycles)
    layer, right, end = golden.layers[1].name, int(found.layer_cycles[1]), int(found.layer_ends[1])
    assert compare_image(compiled, golden, wrong, exact=True) == (
        f"layer {layer}: cycles of the layer: expected {right}, found {right + 1}, cycle {end}"
    )
    assert compare_image(compiled, golden, wrong, exact=False) is None
    short = changed(found, layer_cycles=found.layer_cycles[:-1], layer_indices=found.layer_indices[:-1])
    assert "layers that ended: expected " in compare_image(compiled, golden, short, exact=False)
    numbers = found.layer_indices.copy()
    numbers[1] = 7
    text = compare_image(compiled, golden, changed(found, layer_indices=numbers), exact=False)
    assert "number of the layer: expected 1, found 7" in text


def test_a_wrong_result_is_named(cases):
    compiled, golden, found = golden_parts(cases[0])
    result = found.result.copy()
    result[-1, -1, -1] += 3
    text = compare_image(compiled, golden, changed(found, result=result), exact=True)
    right = int(found.result[-1, -1, -1])
    assert "(store): channel " in text
    assert f": expected {right}, found {right + 3}, cycle {int(found.layer_ends[-1])}" in text


def test_formats_are_packed_as_the_engine_takes_them():
    layout = data.StructLayout({"product": 4, "align": 5, "acc": 6, "wrap": 1})
    for mac in (MacFormat(), MacFormat(6, 24, 48, "wrap"), MacFormat(10, 8, 12)):
        wanted = {"product": mac.product, "align": mac.align, "acc": mac.acc, "wrap": int(mac.overflow == "wrap")}
        assert layout.const(wanted).as_value().value == format_word(mac)


def row_layout(engine):
    """The outputs that are watched, of one cycle."""
    counts = data.ArrayLayout(32, engine.rows)
    return data.StructLayout(
        {
            "write_mask": engine.lanes,
            "write_address": 16,
            "write_data": data.ArrayLayout(4, engine.lanes),
            "current": 16,
            "layer_done": 1,
            "layer_index": 16,
            "layer_cycles": 32,
            "counts_closed": 1,
            **{f"{kind}_count": counts for kind in KINDS},
            "post_closed": 1,
            "post_count": counts,
        }
    )


class Player(wiring.Component):
    """The ports of an engine; after `start` it plays a row of output values a cycle, and stores the result at the end.

    `hang` never ends, `error` ends with one.
    """

    def __init__(self, engine, script, stored, fault=None):
        self.script, self.stored, self.fault = script, stored, fault
        self.row = row_layout(engine)
        word = data.StructLayout({"address": 32, "word": engine.bus_bits})
        super().__init__(
            {
                "start": In(1),
                "base": In(32),
                "busy": Out(1),
                "error": Out(3),
                "error_layer": Out(16),
                "request": Out(stream.Signature(32)),
                "words": In(stream.Signature(engine.bus_bits)),
                "write": Out(stream.Signature(word)),
                **{name: Out(field.shape) for name, field in self.row},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.script = script = memory.Memory(
            shape=self.row.size, depth=len(self.script), init=[row.as_value().value for row in self.script]
        )
        m.submodules.stored = stored = memory.Memory(
            shape=self.write.payload.shape().size, depth=len(self.stored), init=self.stored
        )
        read, result = script.read_port(domain="comb"), stored.read_port(domain="comb")
        at, word = Signal(range(len(self.script) + 1)), Signal(range(len(self.stored) + 1))
        playing = Signal()
        row = data.View(self.row, read.data)
        m.d.comb += [read.addr.eq(at), result.addr.eq(word), playing.eq(self.busy & (at != len(self.script)))]
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), at.eq(0), word.eq(0)]
        with m.If(playing):
            m.d.comb += [getattr(self, name).eq(getattr(row, name)) for name, _ in self.row]
            m.d.sync += at.eq(at + 1)
        m.d.comb += [
            self.write.payload.eq(result.data),
            self.write.valid.eq(self.busy & ~playing & (word != len(self.stored))),
        ]
        with m.If(self.write.valid & self.write.ready):
            m.d.sync += word.eq(word + 1)
        if self.fault != "hang":
            with m.If(self.busy & ~playing & (word == len(self.stored))):
                m.d.sync += self.busy.eq(0)
                if self.fault == "error":
                    m.d.sync += [self.error.eq(3), self.error_layer.eq(1)]
        return m


def player(case, fault=None):
    """A player of the case's first image."""
    compiled, golden, found = golden_parts(case)
    layout = row_layout(case.engine)
    rows = [{} for _ in range(int(found.layer_ends[-1]) + 1)]
    writes = found.writes
    for cycle, layer, address, mask, digits in zip(
        writes.cycles, writes.layers, writes.addresses, writes.mask, writes.digits, strict=True
    ):
        rows[cycle] |= {
            "write_mask": int(sum(1 << lane for lane in np.flatnonzero(mask))),
            "write_address": int(address),
            "write_data": [int(digit) for digit in digits],
            "current": int(layer),
        }
    for record, strobe in zip(found.counters, ("counts_closed", "post_closed"), strict=True):
        for index, cycle in enumerate(record.cycles):
            rows[cycle][strobe] = 1
            rows[cycle] |= {
                f"{kind}_count": [int(count) for count in counts[index]] for kind, counts in record.counts.items()
            }
    for number, cycle in enumerate(found.layer_ends):
        cycles = int(found.layer_cycles[number]) + (fault == "slow" and number == 1)
        rows[cycle] |= {"layer_done": 1, "layer_index": number, "layer_cycles": cycles}
    output = compile_result(compiled, golden)
    stored = [
        compiled.output_word + at | int.from_bytes(word.tobytes(), "little") << 32 for at, word in enumerate(output)
    ]
    return compiled, Player(case.engine, [layout.const(row) for row in rows], stored, fault)


def compile_result(compiled, golden):
    """The words that a store would write."""
    value = compiled.plan.roots[compiled.plan.tensors[compiled.network.output].root]
    stored = compiled.plan.tensors[compiled.network.output]
    codes = np.zeros((value.shape[0], *golden.tensors[compiled.network.output].shape[2:]), dtype=np.int64)
    if stored.shape[1:] != codes.shape[1:]:
        codes = np.zeros(value.shape, dtype=np.int64)
    wanted = golden.tensors[compiled.network.output][0].reshape(stored.shape)
    codes[stored.channel : stored.channel + stored.shape[0]] = wanted
    digits = tensor_words(codes, value.codes.bits, compiled.engine).reshape(-1, 2)
    return in_words(digits[:, 0] | digits[:, 1] << 4, compiled.engine.bus_bits)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    try:
        find_compiler()
    except ToolMissingError:
        pytest.skip("no C++ compiler is installed")
    return tmp_path_factory.mktemp("cosim")


@pytest.fixture(scope="module")
def small(cases):
    return min(cases, key=lambda case: sum(layer.total for layer in case.golden.layers))


def test_a_played_network_passes_and_its_figures_add_up(small, cache, tmp_path):
    compiled, component = player(small)
    design = compile_design(EngineProbe(component), cache=cache)
    result = regress_network(
        design, compiled, small.codes[:1], stall=small.stall, window=Window(tmp_path / "wave.vcd", 5, 9)
    )
    assert result.mismatch is None
    assert result.passed
    tensors = {name: tensor[0] for name, tensor in small.golden.tensors.items()}
    sizes = [tensor.codes.size * len(tensor.planes) for each in written_tensors(compiled, tensors) for tensor in each]
    assert (result.images, result.layers, result.digits) == (1, len(compiled.layers), sum(sizes))
    assert (tmp_path / "wave.vcd").read_text().count("\n#") == 8


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("slow", "cycles of the layer: expected "),
        ("error", "the engine must end without an error, not with error 3 (OPERATION)"),
        ("hang", "idle must go high within "),
    ],
)
def test_a_played_fault_is_found(small, cache, fault, message):
    compiled, component = player(small, fault)
    result = regress_network(compile_design(EngineProbe(component), cache=cache), compiled, small.codes[:1])
    assert not result.passed
    assert message in result.mismatch
    assert result.mismatch.startswith("image 0, layer ")
    assert result.to_json()["passed"] is False


def test_a_probe_shows_signals_within(small, cache):
    compiled, component = player(small)
    component.inner = SimpleNamespace(shown=component.busy)
    design = compile_design(EngineProbe(component, {"seen": "inner.shown"}), cache=cache)
    with EngineSimulation(design, compiled) as simulation:
        before = simulation.simulation.peek("seen"), simulation.simulation.peek("idle")
        with pytest.raises(SimulationError, match=r"^layer .*, cycle 4: idle must go high within 3 cycles$"):
            simulation.run(small.codes[0], 3)
        assert (before, simulation.simulation.peek("seen")) == ((0, 1), 1)


def test_a_random_run_counts_what_it_hits_and_names_what_differs(cases, cache, monkeypatch):
    """Each case gets a player of its own in place of its engine; one of them plays a fault."""
    played = iter([None, "slow", None])
    compiled_designs = []

    def compare(design, compiled, codes, **settings):
        case = drawn[len(compiled_designs)]
        fault = next(played)
        compiled_designs.append(compile_design(EngineProbe(player(case, fault)[1]), cache=cache))
        settings["stall"] = 0.0 if fault else case.stall
        return replace(regress_network(compiled_designs[-1], compiled, codes[:1], **settings), stall=case.stall)

    drawn = list(random_cases(3, 9))
    wanted = []

    def design(name):
        wanted.append(name)
        return SimpleNamespace(build_seconds=1.0)

    monkeypatch.setattr(random_regress, "regress_network", compare)
    notes = []
    result = random_regress.regress_random(3, design, seed=9, progress=notes.append)
    assert wanted == list(dict.fromkeys(case.build for case in drawn))
    assert [case.network for case in result.cases] == [case.name for case in drawn]
    assert [case.network for case in result.failed] == [drawn[1].name]
    assert result.hits == Counter(option for case in drawn for option in case.options)
    assert result.stalled == sum(case.stall > 0 for case in drawn)
    assert notes[-1] == "case 3 of 3"
    console = Console(width=200, record=True, file=StringIO())
    console.print(random_regress.random_report(result))
    text = console.export_text()
    assert f"differs: {drawn[1].name} on " in text
    assert f"some: {result.hits.get('stalls some', 0)}" in text
    assert result.to_json()["passed"] is False


def test_a_flattened_result_lies_as_the_map_that_it_was(cases):
    spec = InputSpec(shape=(5, 2, 3), bits=4, scale=1.0, mean=(0.0,) * 5, std=(1.0,) * 5)
    net = NetworkBuilder("flat", spec)
    net.flatten("flat", net.stride_slice("slice", net.input, (1, 2)))
    network, engine = net.build(), cases[0].engine
    codes = np.arange(30).reshape(1, 5, 2, 3) % 16
    golden = run(network, ImageSet(codes, coded=True), engine, trace=True)
    compiled = compile_network(network, engine)
    written = written_tensors(compiled, {name: tensor[0] for name, tensor in golden.tensors.items()})
    assert [tensor.name for tensors in written for tensor in tensors] == ["input", "flat"]
    assert np.array_equal(written[1][0].codes, codes[0, :, :, ::2])
