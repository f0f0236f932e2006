import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from gatewise import EngineConfig
from gatewise.kernels.mac import MacFormat
from gatewise.rtl.cxxrtl import words_of
from gatewise.rtl.engine.post import records as records_module
from gatewise.rtl.engine.post.records import RecordLoader, RecordStore, buffer_index_layout
from gatewise.rtl.engine.registers import descriptor_layout
from gatewise.sim.descriptor import record_slots
from gatewise.sim.image import RecordLayout

ACC = 20
WIDTHS = {"zero": 16, "main": records_module.main_layout().size, "own": 37, "other": 37, "sum": 37, "copy": 37}
WIDTHS["coefficients"] = 64
"""Of what the store holds of each; of all others acc + 8 bits, in a sign array acc + 16."""


def width_of(config, name):
    return WIDTHS.get(name, ACC + (16 if config.array == "sign" else 8))


def names_of(config):
    """Ports of the store: one for all fields of coefficients."""
    return list(
        dict.fromkeys(["zero", *(name.partition("s_")[0] + "s" * ("s_" in name) for name in record_slots(config))])
    )


class Records(wiring.Component):
    """Loader and store, whose parts are all read at one index, and one field of coefficients."""

    def __init__(self, config, names):
        self.config = config
        self.loader, self.store = names["RecordLoader"](config), names["RecordStore"](config)
        members = self.store.signature.members
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "words": In(stream.Signature(config.bus_bits)),
                "free": In(1),
                "full": Out(2),
                "index": In(buffer_index_layout(config)),
                "field": In(4),
                **{name: Out(members[name].shape) for name in names_of(config)},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader, m.submodules.store = loader, store = self.loader, self.store
        connect(m, flipped(self.words), loader.words)
        m.d.comb += [
            loader.layer.eq(self.layer),
            loader.start.eq(self.start),
            loader.free.eq(self.free),
            self.full.eq(loader.full),
            store.write.eq(loader.write),
        ]
        if self.config.array == "sign":
            m.d.comb += store.coefficients_field.eq(self.field)
        for part, names in store.parts.items():
            m.d.comb += [
                getattr(store, f"{part}_read").eq(1),
                getattr(store, f"{part}_index").eq(self.index),
                *(getattr(self, name).eq(getattr(store, name)) for name in names),
            ]
        return m


GENUINE = {"RecordLoader": RecordLoader, "RecordStore": RecordStore}
KINDS = [("mac", 0, 0, 0), ("mac", 0, 1, 0), ("mac", 3, 1, 1), ("mac", 15, 0, 1), ("mac", 1, 0, 0)]
KINDS += [("stream", 0, 1, 0), ("stream", 0, 0, 1), ("stream", 0, 1, 1), ("stream", 0, 0, 0)]


def held(config, layer, group, field):
    """What the store must hold of a row group: by name, a number for each channel; of coefficients that field's."""
    registers = layer.registers
    names = []
    if group.acc is not None:
        if config.array == "sign":
            names += [f"coefficients_{at}" for at in reversed(range(registers["plane_top"] // 4 + 1))]
        names += ["bias", "main", *(f"threshold_{index}" for index in range(registers["thresholds"]))]
    names += ["own", "other", "sum"] * registers["adds"] + ["copy"] * registers["copies"]
    found = {name: [] for name in names}
    for channel in range(group.rows):
        fields = dict(zip(names, group.fields[channel * len(names) :][: len(names)], strict=True))
        descending = fields.get("main", 0) >> 53 & 1
        if "main" in fields:
            found.setdefault("zero", []).append(fields["main"] & 0xFFFF)
            fields["main"] >>= 16
        for name, value in fields.items():
            turned = ~value if descending and name.startswith("threshold") else value
            found[name].append(turned & ((1 << width_of(config, name.partition("_")[0])) - 1))
    chosen = found.get(f"coefficients_{field}")
    found = {name: values for name, values in found.items() if not name.startswith("coefficients")}
    return found if chosen is None else found | {"coefficients": chosen}


def run(design, layers, packed, config, *, stall, seed=0, linger=9):
    """Differences from the rule and from the records, and when each row group's buffer was full."""
    rng = np.random.default_rng(seed)
    lanes = config.post_lanes
    starts, valid, payload, frees, index, fields = [], [], [], [], [], []
    expected, looks, numbers, times = [], [], [], []
    order = rng.permutation(len(KINDS)) if stall else range(len(KINDS))
    for op, thresholds, adds, copies in (KINDS[at] for at in order):
        layer = layers.random_layer(
            config, rng, op, bool(adds), bool(copies), thresholds, acc_bits=ACC, pixels=1, most_groups=3
        )
        play = layers.RecordPlay(layer.groups)
        begins = len(starts)
        starts.append(1)
        for column in (valid, payload, frees, index, fields):
            column.append(0)
        expected.append(None)
        done, waited, was_full, full_at = 0, 0, 0, []
        while done < len(layer.groups):
            count = 2 if play.none else play.full
            if play.full > was_full:
                full_at.append(len(starts) - begins)
            was_full = play.full
            # One chunk after the other is read, some cycles later the buffer is given back.
            chunks = -(-layer.groups[done].rows // lanes)
            free = 0
            index.append(done % 2 * (config.rows // lanes) + min(waited, chunks - 1))
            fields.append(int(rng.integers(0, layer.registers.get("plane_top", 0) // 4 + 1)))
            if count:
                if waited < chunks and not play.none:
                    looks.append((len(starts), layer, layer.groups[done], waited, fields[-1]))
                waited += 1
                if waited > chunks + linger:
                    free, waited = 1, 0
                    done += 1
            offered = bool(play.queue) and rng.random() >= stall
            starts.append(0)
            frees.append(free)
            valid.append(int(offered))
            payload.append(play.queue[0][0] if offered else int(rng.integers(256)))
            expected.append((play.ready, count))
            play.step(offered, free)
            was_full -= free and not play.none
        number, bits = layers.packed_registers(config, layer.registers)
        numbers += [number] * (len(starts) - begins)
        times.append((layer, full_at))

    def words(values, width):
        return words_of(np.array([[value >> bit & 1 for bit in range(width)] for value in values], dtype=np.uint8))

    inputs = {name: packed(column, 1) for name, column in (("start", starts), ("words__valid", valid), ("free", frees))}
    inputs["words__payload"] = words(payload, config.bus_bits)
    inputs["layer"] = words(numbers, bits)
    inputs["index"] = packed(index, (2 * config.rows // lanes - 1).bit_length())
    inputs["field"] = packed(fields, 4)
    with design.simulate() as simulation:
        found = simulation.vectors(inputs, ["words__ready", "full", *names_of(config)])
    wrong = set()
    for cycle, each in enumerate(expected):
        if each is not None and (found["words__ready"][cycle, 0], found["full"][cycle, 0]) != each:
            wrong.add("ready" if found["words__ready"][cycle, 0] != each[0] else "full")
    for cycle, layer, group, chunk, field in looks:
        for name, wanted in held(config, layer, group, field).items():
            width = width_of(config, name)
            whole = int.from_bytes(found[name][cycle + 1].tobytes(), "little")
            there = [whole >> (lane * width) & ((1 << width) - 1) for lane in range(lanes)]
            part = wanted[chunk * lanes :][:lanes]
            if there[: len(part)] != part:
                wrong.add(name)
    assert len(looks) > 15
    return wrong, times


def engine(bus, array="digit"):
    return EngineConfig(rows=4, lanes=4, post_lanes=2, bus_bits=bus, mac=MacFormat(acc=ACC), array=array)


@pytest.mark.parametrize(
    ("bus", "array"),
    [(8, "digit"), (32, "digit"), (64, "digit"), (128, "digit"), (512, "digit"), (16, "sign"), (256, "sign")],
)
def test_records_are_absorbed_by_the_rule_and_held_for_their_chunk(compiled, layers, packed, bus, array):
    config = engine(bus, array)
    design = compiled(Records(config, GENUINE))
    for seed, stall in ((0, 0), (1, 0.4)):
        assert run(design, layers, packed, config, stall=stall, seed=seed)[0] == set()
    # An unbroken stream, in closed form: two row groups without a lost cycle, the third when the first is freed.
    wrong, times = run(design, layers, packed, config, stall=0, seed=2)
    assert wrong == set()
    assert max(len(full_at) for _, full_at in times) > 2
    for layer, full_at in times:
        cost = [len(group.fields) * max(1, 64 // bus) for group in layer.groups]
        if cost[0]:
            assert full_at[:2] == (1 + np.cumsum(cost[:2])).tolist()[: len(full_at)]
            freed = full_at[0] + -(-layer.groups[0].rows // config.post_lanes) + 9
            for at in (2,) * (len(cost) > 2):
                assert full_at[at] == max(full_at[1], freed + 1) + cost[at]


@pytest.mark.parametrize("bus", [8, 64, 256])
@pytest.mark.parametrize("fields", [1, 3, 6, 17])
def test_the_images_blocks_are_in_the_form_that_the_loader_reads(layers, bus, fields):
    for rows in (1, 3, 4):
        words, holds = layers.in_words(list(range(rows * fields)), bus)
        assert len(words) == RecordLayout(fields).words(rows, bus)
        assert sum(holds) == rows * fields * max(1, 64 // bus)


FIRST_OF_PLANES = "(layer.plane_top >> ceil_log2(COEFFICIENTS_IN_FIELD))"
FAULTS = {
    ("digit", 64): {
        "wrong buffer": ("self.write.index.buffer.eq(parity)", "parity", "~parity"),
        "one buffer": ("(count != BUFFERS)", "(count != BUFFERS)", "(count == 0)"),
        "overrun": ("count != BUFFERS", "count != BUFFERS", "1"),
        "first field of a stream": ("has_main, first_of_main, own_or_copy)", "own_or_copy", "own"),
        "lane": ("Mux(write.valid & chosen, 1 << write.lane, 0)", "1 << write.lane", "1"),
        "threshold not turned": ("written = written ^ turn", "written ^ turn", "written"),
        "not freed": ("- (self.free & has_records)", "(self.free & has_records)", "0"),
        "threshold missed": ("slot == main + layer.thresholds", "main + layer.thresholds", "layer.thresholds"),
    },
    ("digit", 128): {"last word's rest": ("(part == parts - 1) | group_last", "group_last", "0")},
    ("digit", 16): {"part of a field": ("before.eq(field[bus:])", "field[bus:]", "field[: -bus]")},
    ("sign", 64): {
        "coefficients of few planes": (FIRST_OF_PLANES, FIRST_OF_PLANES, "15"),
        "coefficients of many planes": (FIRST_OF_PLANES, FIRST_OF_PLANES, "0"),
        "five planes": (FIRST_OF_PLANES, "layer.plane_top", "(layer.plane_top - (layer.plane_top != 0))"),
        "next channel's": ("slot.eq(Mux(channel_last, first_slot, next_slot))", "first_slot", "bias"),
        "coefficients over each other": (
            "Cat((count - 1 - write.slot)[: ceil_log2(count)], index)",
            "Cat((count - 1 - write.slot)[: ceil_log2(count)], index)",
            "index << 4",
        ),
        "coefficients elsewhere": ("(count - 1 - write.slot)", "(count - 1 - write.slot)", "write.slot"),
    },
}
"""By the array and the bus on which they show: a build for each pair."""


@pytest.fixture(scope="module")
def faulty(compiled, planted_together):
    """Builds with all their faults, of which an input chooses one."""
    builds = {}
    for (array, bus), faults in FAULTS.items():
        names, choosing = planted_together({name: (records_module, *fault) for name, fault in faults.items()})
        builds[array, bus] = compiled(choosing(Records(engine(bus, array), names[records_module])))
    return builds


@pytest.mark.parametrize(
    ("array", "bus", "fault"), [(*build, fault) for build, faults in FAULTS.items() for fault in (None, *faults)]
)
def test_a_planted_fault_is_found(faulty, layers, packed, with_fault, array, bus, fault):
    number = 0 if fault is None else 1 + list(FAULTS[array, bus]).index(fault)
    design = with_fault(faulty[array, bus], number)
    assert (run(design, layers, packed, engine(bus, array), stall=0.1)[0] == set()) == (fault is None)
