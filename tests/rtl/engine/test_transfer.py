import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.rtl.engine import gearbox, plane_walk, transfer
from gatewise.rtl.engine.gearbox import Pack, Unpack
from gatewise.rtl.engine.plane_walk import PlaneWalk
from gatewise.rtl.engine.transfer import Transfer
from gatewise.sim.descriptor import act_words, encode_descriptor


def engine(lanes, bus, array="digit"):
    return EngineConfig(rows=4, lanes=lanes, pixels=16, bus_bits=bus, act_bytes=4096, array=array)


def random_layer(rng, config, op):
    """Registers of a transfer of a few words, planes anywhere but not in one another."""
    planes, pixels, step = (int(rng.integers(1, top)) for top in (5, 5, 4))
    room = act_words(config) // 4
    starts = [int(at) * room + int(rng.integers(room - 20)) for at in rng.permutation(4)]
    prefix, words = ("out", "out_pixel_step") if op == "load" else ("first", "pixel_step")
    return {
        "stream": int(rng.integers(1000)),
        "out_pixels": pixels,
        words: step,
        f"{prefix}_planes": planes,
        **{f"{prefix}_plane_{at}": start for at, start in enumerate(starts[:planes])},
    }


def places(op, layer):
    """The addresses of the words in their order."""
    prefix, words = ("out", "out_pixel_step") if op == "load" else ("first", "pixel_step")
    size = layer["out_pixels"] * layer[words]
    return [layer[f"{prefix}_plane_{plane}"] + at for plane in range(layer[f"{prefix}_planes"]) for at in range(size)]


def packed(values, bits, into):
    """Words of `bits` bits as words of `into` bits, the last one padded with zeros."""
    whole = sum(value << bits * at for at, value in enumerate(values))
    return [whole >> low & ((1 << into) - 1) for low in range(0, len(values) * bits, into)]


def layers_of(rng, config, count):
    """Operations, registers, and the words that move: as they are in the activation memory."""
    jobs = []
    for at in range(count):
        op = ("load", "store")[at % 2]
        layer = random_layer(rng, config, op)
        jobs.append(
            (op, layer, [int.from_bytes(rng.bytes(config.word_bits // 8), "little") for _ in places(op, layer)])
        )
    return jobs


def play(config, jobs, lazy=0.0, seed=0, dut=None):
    """Run the transfers on a memory of their words; returns what was written, and when the last write was."""
    dut = dut or Transfer(config)
    rng = np.random.default_rng(seed)
    bits, bus = config.word_bits, config.bus_bits
    found = []

    def noise():
        return int.from_bytes(rng.bytes(bits // 8), "little")

    async def bench(ctx):
        for op, layer, words in jobs:
            memory = dict(zip(places(op, layer), words, strict=True))
            incoming = packed(words, bits, bus) if op == "load" else []
            number = int.from_bytes(encode_descriptor(config, op, layer).tobytes(), "little")
            ctx.set(dut.layer.as_value(), number)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            written, first, offering, held = [], None, False, None
            for cycle in range(1, 3000):
                offering = offering or bool(incoming and rng.random() >= lazy)
                ctx.set(dut.words.valid, offering)
                ctx.set(dut.words.payload, incoming[0] if offering else int(rng.integers(256)))
                first = cycle if offering and first is None else first
                ready = bool(rng.random() >= lazy)
                ctx.set(dut.write.ready, ready)
                if ctx.get(dut.act_write):
                    written.append((ctx.get(dut.act_address), ctx.get(dut.act_write_data.as_value())))
                valid = ctx.get(dut.write.valid)
                offered = (ctx.get(dut.write.payload.address), ctx.get(dut.write.payload.word)) if valid else None
                assert held is None or offered == held
                held = offered if not ready else None
                if valid and ready:
                    written.append(offered)
                if offering and ctx.get(dut.words.ready):
                    incoming.pop(0)
                    offering = False
                read = ctx.get(dut.act_address) if ctx.get(dut.act_read) else None
                done = ctx.get(dut.done)
                await ctx.tick()
                ctx.set(dut.act_read_data.as_value(), noise() if read is None else memory[read])
                if done:
                    break
            else:
                raise AssertionError("the transfer must end")
            assert not incoming
            # Nothing stirs after the end.
            ctx.set(dut.words.valid, 1)
            ctx.set(dut.write.ready, 1)
            for _ in range(4):
                assert not any(ctx.get(port) for port in (dut.act_read, dut.act_write, dut.write.valid, dut.done))
                assert not ctx.get(dut.words.ready)
                await ctx.tick()
            ctx.set(dut.words.valid, 0)
            found.append((written, cycle - (first or 0)))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def wanted(config, op, layer, words):
    """What must be written, and the cycles: from the first bus word offered, or from `start`."""
    bits, bus = config.word_bits, config.bus_bits
    cycles = len(words) * max(1, bits // bus)
    if op == "load":
        return list(zip(places(op, layer), words, strict=True)), cycles - 1
    return [(layer["stream"] + at, word) for at, word in enumerate(packed(words, bits, bus))], cycles + 2


def differences(config, jobs, lazy=0.0, dut=None):
    found = play(config, jobs, lazy, dut=dut)
    wrong = []
    for (op, layer, words), (written, cycles) in zip(jobs, found, strict=True):
        expected, stated = wanted(config, op, layer, words)
        if written != expected or (not lazy and cycles != stated):
            wrong.append((op, layer))
    return wrong


@pytest.mark.parametrize(
    ("lanes", "bus", "array"),
    [
        *((lanes, bus, "digit") for lanes, bus in ((4, 8), (4, 16), (4, 32), (4, 512), (8, 16), (8, 64), (16, 8))),
        *((lanes, bus, "digit") for lanes, bus in ((16, 64), (64, 128), (64, 512))),
        *((lanes, bus, "fusion") for lanes, bus in ((4, 8), (4, 32), (4, 128), (8, 64))),
    ],
)
@pytest.mark.parametrize("lazy", [0.0, 0.4])
def test_words_arrive_in_their_cycles(lanes, bus, array, lazy):
    config = engine(lanes, bus, array)
    assert differences(config, layers_of(np.random.default_rng(lanes + bus), config, 12), lazy) == []


FAULTS = {
    "planes out of order": (transfer, "Array(planes[1:])[walk.plane]", "Array(planes[:3])[walk.plane]"),
    "planes in one": (transfer, "Mux(walk.plane_end, Array", "Mux(0, Array"),
    "output planes stored": (transfer, 'Mux(store, layer[f"first_plane_{at}"], ', "Mux(0, 0, "),
    "bus address stands": (transfer, "bus_address.eq(bus_address + 1)", "bus_address.eq(bus_address)"),
    "done with every plane": (transfer, "(unpack.valid & walk.last)", "(unpack.valid & walk.plane_end)"),
    "pixels of one word": (plane_walk, "pixel_end.eq(word == self.words - 1)", "pixel_end.eq(1)"),
    "count of the layer before": (plane_walk, "[word.eq(0), pixel.eq(0), self.plane.eq(0), ", "["),
    "last word not padded": (gearbox, "(part == parts - 1) | present_last", "part == parts - 1"),
    "padding not zero": (gearbox, "collected.eq(Mux(out_end, 0, bus_word))", "collected.eq(bus_word)"),
    "word kept for the next layer": (gearbox, "(part == parts - 1) | (self.valid & self.last)", "(part == parts - 1)"),
    "word lost in a stall": (gearbox, "word.eq(Mux(fresh, self.word, held))", "word.eq(self.word)"),
    "read into a stall": (gearbox, "(step & word_end)))", "word_end))"),
}  # fmt: skip


FAULT_CONFIG = engine(4, 64)


def fault_jobs():
    return layers_of(np.random.default_rng(5), FAULT_CONFIG, 24)


def test_the_transfers_agree():
    assert differences(FAULT_CONFIG, fault_jobs(), 0.3) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted, monkeypatch):
    module, old, new = FAULTS[fault]
    names = planted(module, old, new)
    for component in (Pack, Unpack, PlaneWalk):
        name = component.__name__
        if names.get(name, component) is not component:
            monkeypatch.setattr(transfer, name, names[name])
    dut = (names["Transfer"] if module is transfer else Transfer)(FAULT_CONFIG)
    try:
        wrong = differences(FAULT_CONFIG, fault_jobs(), 0.3, dut)
    except (AssertionError, KeyError) as error:  # it never ends, or reads where nothing lies
        wrong = [str(error)]
    assert wrong != []
