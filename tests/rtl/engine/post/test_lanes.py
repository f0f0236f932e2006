from itertools import product

import numpy as np
import pytest
from gatewise import EngineConfig
from gatewise.kernels.mac import MacFormat
from gatewise.rtl import planes as planes_module
from gatewise.rtl.cxxrtl import words_of
from gatewise.rtl.engine.post import correct as correct_module
from gatewise.rtl.engine.post import counters as counters_module
from gatewise.rtl.engine.post import delay as delay_module
from gatewise.rtl.engine.post import lanes as lanes_module
from gatewise.rtl.engine.post import threshold as threshold_module
from gatewise.rtl.engine.post.counters import PostCounters
from gatewise.rtl.engine.post.lanes import PostLanes

COMBINATIONS = [
    *({"op": "mac", "adds": adds, "copies": copies} for adds, copies in product((False, True), repeat=2)),
    *({"op": "mac", "adds": adds, "copies": adds, "thresholds": count} for count in (1, 3, 7, 15) for adds in (0, 1)),
    *({"op": "stream", "adds": adds, "copies": copies} for adds, copies in product((False, True), repeat=2)),
]


def some_layers(layers, config, rng, formats=False, times=1):
    """Every combination of what a layer does, with every rounding and fraction in turn."""
    found = []
    for at, combination in enumerate(COMBINATIONS * times):
        acc_bits = int(rng.integers(12, config.mac.acc + 1)) if formats else None
        found.append(
            layers.random_layer(
                config,
                rng,
                rounding=layers.ROUNDINGS[at % 5],
                fraction=(2 * at) % 9 if at % 2 else 0,
                acc_bits=acc_bits,
                pixels=int(rng.integers(1, 6)),
                **combination,
            )
        )
    return [found[at] for at in rng.permutation(len(found))]


class Run:
    """The inputs of every cycle, from a play of the rules, and what the outputs must be."""

    def __init__(self, layers, config, rng, every, *, gap, stall):
        self.config, self.rng, self.gap, self.stall = config, rng, gap, stall
        self.columns = {}
        self.cycle = 0
        self.ready, self.codes, self.closed = {}, {}, {}
        self.busy = []
        for layer in every:
            self._layer(layers, layer)

    def _set(self, name, value):
        self.columns.setdefault(name, {})[self.cycle] = value

    def _layer(self, layers, layer):
        rng, lanes = self.rng, self.config.post_lanes
        begins = self.cycle
        self._set("start", 1)
        self.cycle += 1
        play = layers.RecordPlay(layer.groups)
        planes = 1 + layer.registers.get("plane_top", 0)
        plan = [
            (number, pixel, chunk, plane)
            for number, group in enumerate(layer.groups)
            for pixel in range(layer.registers["out_pixels"])
            for chunk in range(-(-group.rows // lanes))
            for plane in range(planes)
        ]
        mac = layer.groups[0].acc is not None
        begun, frees, close_at = 0, [], -1
        while plan or frees or self.cycle <= close_at:
            self.ready[self.cycle] = play.ready, play.count
            free = bool(frees) and frees[0] <= self.cycle
            if free:
                frees.pop(0)
                self._set("records_free", 1)
            offered = bool(play.queue) and rng.random() >= self.stall
            if offered:
                self._set("words__valid", 1)
                self._set("words__payload", play.queue[0][0])
            if plan:
                number, pixel, chunk, plane = plan[0]
                there = pixel or chunk or plane or (play.count > begun and self.cycle > close_at)
                if there and rng.random() >= self.gap:
                    plan.pop(0)
                    begun += pixel == chunk == plane == 0 and not play.none
                    self._beat(layer, number, pixel, chunk, plane, planes)
                    if not plan or plan[0][0] != number:
                        late = int(rng.integers(0, 3)) * (rng.random() < 0.3)
                        if not play.none:
                            frees.append(self.cycle + PostLanes.last_read + late)
                        if mac:
                            close_at = self.cycle + late
                            self.columns.setdefault("close", {})[close_at] = 1
                            counts = np.zeros(self.config.rows, dtype=np.int64)
                            counts[: layer.groups[number].rows] = layer.groups[number].post
                            self.closed[close_at + PostLanes.close_delay] = counts
            play.step(offered, free)
            begun -= free
            self.cycle += 1
        self.cycle += PostLanes.latency + 1
        self.busy.append((begins, self.cycle, layer))

    def _beat(self, layer, number, pixel, chunk, plane, planes):
        group, lanes = layer.groups[number], self.config.post_lanes
        first = chunk * lanes
        used = min(lanes, group.rows - first)
        channels = slice(first, first + used)

        def padded(values, plane=0):
            return np.pad(values[plane, channels, pixel], (0, lanes - used))

        self._set("beat", 1)
        self._set("beat_buffer", number % 2)
        self._set("beat_chunk", chunk)
        self._set("beat_mask", (1 << used) - 1)
        self._set("beat_plane", plane)
        self._set("beat_first", int(plane == 0))
        self._set("beat_last", int(plane == planes - 1))
        if group.acc is not None:
            self._set("acc", padded(group.acc, plane))
        # The input sum comes with a beat's first plane, codes with its last one: beside the others there is noise.
        for name, when in (("xsum", 0), ("first", planes - 1), ("other", planes - 1)):
            values = getattr(group, name)
            if values is not None and plane == when:
                self._set(name, padded(values))
        if plane < planes - 1:
            return
        second = None if group.second is None else group.second[0, channels, pixel]
        self.codes[self.cycle + PostLanes.latency] = chunk, group.out[0, channels, pixel], second

    def inputs(self, layers, packed, formats):
        """Ports as packed words; what nobody looks at is noise."""
        config, rng, cycles = self.config, self.rng, self.cycle
        lanes = config.post_lanes
        shapes = {
            "start": (1, 1), "words__valid": (1, 1), "beat": (1, 1), "beat_buffer": (1, 1),
            "beat_chunk": ((config.rows // lanes - 1).bit_length(), 1), "beat_mask": (lanes, 1),
            "acc": (config.mac.acc, lanes), "xsum": (32, lanes), "first": (17, lanes), "other": (17, lanes),
            "records_free": (1, 1), "close": (1, 1),
        }  # fmt: skip
        if config.array == "sign":
            shapes |= {"beat_plane": (6, 1), "beat_first": (1, 1), "beat_last": (1, 1)}
        found = {}
        for name, (bits, elements) in shapes.items():
            if not bits:
                continue
            values = np.zeros((cycles, elements), dtype=np.int64)
            if name not in ("start", "words__valid", "beat", "records_free", "close"):
                values = rng.integers(0, 1 << bits, (cycles, elements))
            for cycle, value in self.columns.get(name, {}).items():
                values[cycle] = value
            found[name] = packed(values, bits)
        payload = rng.integers(0, 2, (cycles, config.bus_bits)).astype(np.uint8)
        for cycle, word in self.columns.get("words__payload", {}).items():
            payload[cycle] = [word >> bit & 1 for bit in range(config.bus_bits)]
        found["words__payload"] = words_of(payload)
        numbers = []
        widths = np.zeros(cycles, dtype=np.int64)
        for begins, ends, layer in self.busy:
            number, bits = layers.packed_registers(config, layer.registers)
            row = np.array([[number >> bit & 1 for bit in range(bits)]], dtype=np.uint8)
            numbers.append(np.repeat(words_of(row), ends - begins, axis=0))
            widths[begins:ends] = 8 | 16 << 4 | layer.acc_bits << 9
        found["layer"] = np.concatenate(numbers)
        if formats:
            found["format"] = packed(widths, 16)
        return found

    def mismatches(self, found, unpacked):
        """What differs, by name."""
        config, lanes = self.config, self.config.post_lanes
        wrong = set()

        def check(name, found, wanted):
            if np.any(found != wanted):
                wrong.add(name)

        for cycle, (ready, full) in self.ready.items():
            check("ready", found["words__ready"][cycle, 0], ready)
            check("records_ready", found["records_ready"][cycle, 0], full)
        out, second = (unpacked(found[name], 17, lanes) for name in ("out", "second"))
        check("codes_valid", set(np.flatnonzero(found["codes_valid"]).tolist()), set(self.codes))
        check("post_closed", set(np.flatnonzero(found["post_closed"]).tolist()), set(self.closed))
        for cycle, (chunk, codes, copies) in self.codes.items():
            if "codes_chunk" in found:
                check("codes_chunk", found["codes_chunk"][cycle, 0], chunk)
            check("out", out[cycle, : len(codes)], codes)
            if copies is not None:
                check("second", second[cycle, : len(copies)], copies)
        held = np.zeros(config.rows, dtype=np.int64)
        for cycle in range(self.cycle):
            held = self.closed.get(cycle, held)
            check("post_count", found["post_count"][cycle], held)
        return sorted(wrong)


def mismatches(design, layers, packed, unpacked, config, *, formats=False, seed=0, fault=0, **options):
    """What compiled post lanes do otherwise than the kernels and the play of the rules."""
    rng = np.random.default_rng(seed)
    times = options.pop("times", 1)
    run = Run(layers, config, rng, some_layers(layers, config, rng, formats, times), **options)
    outputs = ["words__ready", "records_ready", "codes_valid", "out", "second", "post_closed", "post_count"]
    outputs += ["codes_chunk"] * (config.rows > config.post_lanes)
    with design.simulate() as simulation:
        if fault:
            simulation.poke("fault", fault)
        found = simulation.vectors(run.inputs(layers, packed, formats), outputs)
    assert sum(counts.sum() for counts in run.closed.values()) > 10
    return run.mismatches(found, unpacked)


CONFIGS = [
    (4, 4, 1, 8, 32),
    (4, 8, 2, 128, 32),
    (4, 4, 4, 32, 32),
    (8, 4, 4, 16, 24),
    (8, 8, 2, 512, 48),
    (8, 8, 8, 256, 32),
    (4, 4, 2, 64, 12),
    (4, 8, 2, 64, 40, "sign"),
    (8, 4, 4, 16, 12, "sign"),
    (4, 4, 1, 256, 24, "sign"),
]


def engine(rows, lanes, post_lanes, bus, acc, array="digit"):
    return EngineConfig(
        rows=rows, lanes=lanes, post_lanes=post_lanes, bus_bits=bus, mac=MacFormat(acc=acc), array=array
    )


@pytest.mark.parametrize("case", CONFIGS, ids=lambda case: "-".join(map(str, case)))
def test_every_layer_has_the_golden_codes_and_counts_and_absorbs_records_by_the_rule(
    compiled, layers, packed, unpacked, case
):
    config = engine(*case)
    tools = compiled(PostLanes(config)), layers, packed, unpacked, config
    assert mismatches(*tools, gap=0, stall=0) == []
    assert mismatches(*tools, gap=0.3, stall=0.3, seed=1, times=2) == []


@pytest.mark.parametrize("array", ["digit", "sign"])
def test_widths_may_be_narrowed_while_it_runs(compiled, layers, packed, unpacked, array):
    config = engine(4, 4, 2, 64, 36, array)
    tools = compiled(PostLanes(config, formats=True)), layers, packed, unpacked, config
    assert mismatches(*tools, formats=True, gap=0.1, stall=0.1, times=2) == []


FAULTS = {
    "bias with another weight": (correct_module, "self.acc << self.fraction", "self.fraction", "1"),
    "fraction not in the width": (lanes_module, "(acc_bits + fraction)[:6]", "(acc_bits + fraction)[:6]", "acc_bits"),
    "zero point added": (correct_module, "base - product", "base - product", "base + product"),
    "threshold direction": (threshold_module, "self.descending.repl", "self.descending", "~self.descending"),
    "threshold missed": (
        threshold_module,
        '(operand >= getattr(self, f"threshold_{index}"))',
        'operand >= getattr(self, f"threshold_{index}")',
        'operand > getattr(self, f"threshold_{index}")',
    ),
    "unused thresholds": (threshold_module, "(self.count > index) & ", "self.count > index", "1"),
    "counter not cleared": (counters_module, "[running[row].eq(0), ", "0", "running[row]"),
    "last beat not counted": (counters_module, "Mux(counted, after, ", "counted", "0"),
    "wrong chunk counts": (counters_module, "(self.chunk == chunk)", "self.chunk == chunk", "self.chunk == 0"),
    "masked lanes counted": (lanes_module, "Mux(mask[lane], ", "mask[lane]", "1"),
    "other chunk's records": (lanes_module, "index.chunk.eq(chunks[stage - 1])", "chunks[stage - 1]", "chunks[stage]"),
    "own zero point": (lanes_module, "own[lane] - layer.own_zero", "layer.own_zero", "layer.other_zero"),
    "other parity's records": (
        lanes_module,
        "index.buffer.eq(buffers[stage - 1])",
        "buffers[stage - 1]",
        "buffers[stage]",
    ),
    "copy from the own code": (lanes_module, " out[lane] - layer.copy_from", " out[lane]", " passed_codes[lane]"),
}
BUILT_FAULTS = {
    "words under way lost": (delay_module, "depth=self.cycles", "depth=self.cycles - 1"),
    "close too early": (lanes_module, 'self.close, COUNT, "close"', 'self.close, COUNT - 1, "close"'),
}
"""Those that change how something is built."""


PLANE_FAULTS = {
    "next plane's coefficient": (
        lanes_module,
        'delayed(m, self.beat_plane[: ceil_log2(COEFFICIENTS_IN_FIELD)], 1, "plane") if',
        'delayed(m, self.beat_plane[: ceil_log2(COEFFICIENTS_IN_FIELD)], 1, "plane")',
        "self.beat_plane[:2]",
    ),
    "first four coefficients": (
        lanes_module,
        "eq(self.beat_plane >> ceil_log2(COEFFICIENTS_IN_FIELD))",
        "self.beat_plane >> ceil_log2(COEFFICIENTS_IN_FIELD)",
        "0",
    ),
    "counts for words": (lanes_module, "Mux(layer.out_table, table.word", "layer.out_table", "0"),
    "counts for words of the copy": (lanes_module, "Mux(layer.second_table, table.word", "layer.second_table", "0"),
    "words of the other's counts": (lanes_module, "Mux(layer.second_table, second_code", "layer.second_table", "1"),
    "a value of each plane": (
        lanes_module,
        "self.beat & self.beat_last if self.planes",
        "self.beat & self.beat_last",
        "self.beat",
    ),
    "begins with the last plane": (
        lanes_module,
        "planes.first.eq(self.beat_first)",
        "self.beat_first",
        "self.beat_last",
    ),
    "input sum of a later plane": (planes_module, "self.zero * xsum", "xsum", "self.xsum"),
    "planes before the last": (planes_module, "Mux(first[1], bias - offset, total)", "first[1]", "1"),
    "other overflows": (planes_module, "overflow.eq(lost & ends)", "lost & ends", "lost & ~ends"),
}
BUILT_PLANE_FAULTS = {
    "planes not in the width": (lanes_module, "COEFFICIENT_BITS if self.planes", "0 if self.planes"),
}


def lanes_of(names, patch):
    """The post lanes with the faulty names of some modules, while the patch lasts."""
    own = names.get(lanes_module)
    for module in names.keys() - {lanes_module}:
        for name in module.__all__:
            if vars(lanes_module).get(name) is getattr(module, name):
                patch.setattr(lanes_module, name, names[module][name])
                if own is not None:
                    own[name] = names[module][name]
    return PostLanes if own is None else own["PostLanes"]


@pytest.fixture(scope="module")
def faulty(compiled, planted_together):
    """A build for each array with all its faults, of which an input chooses one."""
    found = {}
    for array, faults in (("digit", FAULTS), ("sign", PLANE_FAULTS)):
        names, choosing = planted_together(faults)
        with pytest.MonkeyPatch.context() as patch:
            found[array] = compiled(choosing(lanes_of(names, patch)(engine(4, 4, 2, 128, 32, array))))
    return found


@pytest.mark.parametrize(
    ("array", "fault"),
    [("digit", fault) for fault in (None, *FAULTS)] + [("sign", fault) for fault in (None, *PLANE_FAULTS)],
)
def test_a_planted_fault_is_found(layers, packed, unpacked, faulty, array, fault):
    number = 0 if fault is None else 1 + list(FAULTS if array == "digit" else PLANE_FAULTS).index(fault)
    config = engine(4, 4, 2, 128, 32, array)
    wrong = mismatches(faulty[array], layers, packed, unpacked, config, gap=0.1, stall=0.1, fault=number)
    assert (wrong == []) == (fault is None)


@pytest.mark.parametrize(
    ("array", "fault"),
    [("digit", fault) for fault in BUILT_FAULTS] + [("sign", fault) for fault in BUILT_PLANE_FAULTS],
)
def test_a_fault_in_what_is_built_is_found(compiled, layers, packed, unpacked, planted, monkeypatch, array, fault):
    module, old, new = (BUILT_FAULTS if array == "digit" else BUILT_PLANE_FAULTS)[fault]
    component = lanes_of({module: planted(module, old, new)}, monkeypatch)
    config = engine(4, 4, 2, 128, 32, array)
    # Widths are inputs where they are what is wrong.
    formats = "in the width" in fault
    design = compiled(component(config, formats))
    assert mismatches(design, layers, packed, unpacked, config, gap=0.1, stall=0.1, formats=formats) != []


def test_a_buffer_freed_too_early_is_found(compiled, layers, packed, unpacked, monkeypatch):
    monkeypatch.setattr(PostLanes, "last_read", 0)
    config = engine(4, 4, 2, 128, 32)
    design = compiled(PostLanes(config))
    assert mismatches(design, layers, packed, unpacked, config, gap=0, stall=0, times=2) != []


def test_a_counter_stays_at_its_end(compiled, layers, packed, unpacked, monkeypatch):
    monkeypatch.setattr(counters_module, "COUNTER_BITS", 3)
    dut = PostCounters(EngineConfig(rows=4, lanes=4, post_lanes=2))
    steps = [(1, 1, [2, 1], 0)] * 5 + [(1, 0, [1, 0], 1), (1, 1, [0, 2], 0), (0, 1, [1, 1], 0), (0, 0, [0, 0], 1)]
    steps += [(0, 0, [0, 0], 0)]
    columns = [np.array(column) for column in zip(*steps, strict=True)]
    ports = zip(("valid", "chunk", "overflows", "close"), columns, (1, 1, 2, 1), strict=True)
    with compiled(dut).simulate() as simulation:
        found = simulation.vectors({name: packed(column, bits) for name, column, bits in ports}, ["counts"])["counts"]
    counts = [[int(each) >> 3 * row & 7 for row in range(4)] for each in found[:, 0]]
    assert counts == [[0, 0, 0, 0]] * 6 + [[1, 0, 7, 5]] * 3 + [[0, 0, 0, 2]]
