import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise import EngineConfig
from gatewise.rtl.engine import act_memory
from gatewise.rtl.engine.act_memory import ActMemory
from gatewise.sim.descriptor import act_words

CYCLES = 600


def engine(lanes, banks, act_bytes, array="digit"):
    return EngineConfig(rows=4, lanes=lanes, pixels=16, act_bytes=act_bytes, act_banks=banks, array=array)


CONFIGS = [
    engine(4, 4, 1024),
    engine(8, 3, 1152),
    engine(4, 2, 1024),
    engine(16, 5, 5120),
    engine(4, 3, 1152, "fusion"),
]


def traffic(config, rng):
    """Reads and writes of every cycle: few addresses, so that they meet, and the ends of every bank."""
    words = act_words(config)
    size = words // config.act_banks
    ends = [at for bank in range(config.act_banks) for at in (bank * size, bank * size + 1, (bank + 1) * size - 1)]
    chosen = rng.choice(ends, (CYCLES, 3))
    anywhere = rng.random((CYCLES, 3)) < 0.2
    chosen[anywhere] = rng.integers(0, words, anywhere.sum())
    reads = rng.random((CYCLES, 2)) < 0.8
    masks = np.where(rng.random(CYCLES) < 0.7, rng.integers(0, 1 << config.word_enables, CYCLES), 0)
    values = [int.from_bytes(rng.bytes(config.word_bits // 8), "little") for _ in range(CYCLES)]
    return chosen, reads, masks, values


def differences(config, memory=ActMemory, seed=0):
    """Cycles in which the memory differs from a plain array of words."""
    dut = memory(config)
    chosen, reads, masks, values = traffic(config, np.random.default_rng(seed))
    size = act_words(config) // config.act_banks
    wrong = []
    seen = {"conflict": 0, "read": 0, "old": 0}

    async def bench(ctx):
        model = np.zeros((act_words(config), config.word_enables), dtype=np.int64)
        bits = config.enable_bits
        for cycle in range(CYCLES):
            array, post, write = (int(at) for at in chosen[cycle])
            mask = int(masks[cycle])
            ctx.set(dut.array_read, int(reads[cycle, 0]))
            ctx.set(dut.post_read, int(reads[cycle, 1]))
            ctx.set(dut.array_address, array)
            ctx.set(dut.post_address, post)
            ctx.set(dut.write_address, write)
            ctx.set(dut.write_mask, mask)
            ctx.set(dut.write_data.as_value(), values[cycle])
            conflict = bool(reads[cycle].all()) and array // size == post // size
            if ctx.get(dut.conflict) != conflict:
                wrong.append((cycle, "conflict"))
            expected = [
                (dut.array_data, model[array].copy()) if reads[cycle, 0] else None,
                (dut.post_data, model[post].copy()) if reads[cycle, 1] and not conflict else None,
            ]
            seen["conflict"] += conflict
            seen["old"] += mask != 0 and write in (array, post)
            for at in range(config.word_enables):
                if mask >> at & 1:
                    model[write, at] = values[cycle] >> bits * at & (1 << bits) - 1
            await ctx.tick()
            for pair in expected:
                if pair is not None:
                    seen["read"] += bool(pair[1].any())
                    word = ctx.get(pair[0].as_value())
                    if [word >> bits * at & (1 << bits) - 1 for at in range(config.word_enables)] != pair[1].tolist():
                        wrong.append((cycle, "data"))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert min(seen.values()) > 10
    return wrong


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda config: f"{config.act_banks} banks, {config.lanes} lanes, {config.array}"
)
def test_words_are_those_of_one_array(config):
    assert differences(config) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Mux(by_array, array_place, post_place)", "Mux(by_array, array_place, write_place)"),
        ("by_array.eq(self.array_read & array_hit[bank])", "by_array.eq(array_hit[bank] & ~self.post_read)"),
        ("Mux(write_hit[bank], self.write_mask, 0)", "self.write_mask"),
        ("self.array_read & self.post_read & (array_hit", "self.post_read & (array_hit"),
        ("post_bank.eq(post_hit)", "post_bank.eq(array_hit)"),
        ("Mux(write_hit[bank], self.write_mask, 0)", "Mux(write_hit[bank] & (self.write_mask != 0), -1, 0)"),
        ("address >= bank * size", "address > bank * size"),
    ],
    ids=[
        "wrong address",
        "post first",
        "every bank written",
        "conflict alone",
        "wrong bank",
        "all digits",
        "bank late",
    ],
)
def test_a_planted_fault_is_found(planted, old, new):
    memory = planted(act_memory, old, new)["ActMemory"]
    assert differences(CONFIGS[1], memory) != []
