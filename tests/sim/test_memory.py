from itertools import pairwise

import numpy as np
import pytest
from gatewise import CapacityError, EngineConfig, Grid, NetworkBuilder
from gatewise.sim.graph import Value
from gatewise.sim.lower import lower
from gatewise.sim.manifest import Codes
from gatewise.sim.memory import Lifetime, Memory, place, plane_words, tensor_bytes
from gatewise.sim.schedule import schedule
from gatewise.sim.shapes import resnet50
from gatewise.sim.tile_times import tile_times
from hypothesis import given
from hypothesis import strategies as st

ENGINE = EngineConfig(rows=4, lanes=4, act_bytes=4096, act_banks=4)  # 4 banks of 512 words of 4 digits


def value(words, bits=4):
    return Value((4, 1, words), Codes(bits=bits, signed=bits == 16))


def extents(memory, name):
    placed = memory.tensors[name]
    return [(first, first + placed.words) for first in placed.planes]


def clashes(memory, lives):
    """Pairs of tensors that hold the same word at the same time."""
    names = sorted(memory.tensors)
    return [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if lives[a].first <= lives[b].last and lives[b].first <= lives[a].last
        for low, high in extents(memory, a)
        for start, end in extents(memory, b)
        if low < end and start < high
    ]


tensors = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 3), st.integers(1, 300), st.sampled_from([4, 8, 16])),
    min_size=1, max_size=12,
)  # fmt: skip


@given(tensors)
def test_no_word_belongs_to_two_live_tensors(drawn):
    roomy = ENGINE.model_copy(update={"act_bytes": 1 << 16})
    values = {f"t{i}": value(words, bits) for i, (_, _, words, bits) in enumerate(drawn)}
    lives = {f"t{i}": Lifetime(first, first + length) for i, (first, length, _, _) in enumerate(drawn)}
    memory = place(values, lives, {}, roomy)
    assert clashes(memory, lives) == []
    for name in values:
        assert len(memory.tensors[name].planes) == values[name].codes.bits // 4
        assert memory.tensors[name].words == plane_words(values[name], roomy)
        assert all(0 <= low and high <= 4 * memory.bank_words for low, high in extents(memory, name))


@given(tensors)
def test_tight_memory_holds_what_it_holds_without_clashes(drawn):
    values = {f"t{i}": value(words, bits) for i, (_, _, words, bits) in enumerate(drawn)}
    lives = {f"t{i}": Lifetime(first, first + length) for i, (first, length, _, _) in enumerate(drawn)}
    try:
        memory = place(values, lives, {}, ENGINE)
    except CapacityError:
        return
    assert clashes(memory, lives) == []
    assert all(0 <= low and high <= 4 * memory.bank_words for name in values for low, high in extents(memory, name))


def test_the_greatest_tensors_come_first_where_the_order_of_writing_leaves_gaps():
    sizes = (100, 200, 400, 300, 300, 300)
    ends = ((0, 1), (1, 3), (1, 3), (2, 3), (3, 4), (3, 4))
    values = {f"t{i}": value(words) for i, words in enumerate(sizes)}
    lives = {f"t{i}": Lifetime(*each) for i, each in enumerate(ends)}
    memory = place(values, lives, {}, ENGINE)
    assert clashes(memory, lives) == []
    # In the order of writing two of the last three, which live together, would find no bank.
    assert all(len(memory.banks(name)) == 1 for name in values)
    assert memory.tensors["t2"].planes == (0,)


def test_tensors_follow_one_another_across_banks_where_no_order_fits_them_into_banks():
    values = {f"t{i}": value(300) for i in range(6)}
    lives = dict.fromkeys(values, Lifetime(0, 1))
    memory = place(values, lives, {}, ENGINE)
    assert clashes(memory, lives) == []
    assert [memory.tensors[name].planes[0] for name in values] == [300 * i for i in range(6)]
    with pytest.raises(CapacityError, match="needs 600 bytes of activation memory in one piece"):
        place(values | {"more": value(300)}, lives | {"more": Lifetime(0, 1)}, {}, ENGINE)


def test_resnet50_fits_into_little_more_than_its_live_activations():
    plan = schedule(resnet50(), EngineConfig(act_bytes=4 << 20))
    assert plan.peak_bytes == 3_713_024


@pytest.mark.parametrize("channels", [16, 32, 40, 96])
def test_a_narrow_tensor_takes_half_the_bytes(channels):
    """Or nearly so, where its pixels do not fill their words."""
    fusion = EngineConfig(rows=4, lanes=8, pixels=16, act_bytes=1 << 16, array="fusion")
    digit = EngineConfig(rows=4, lanes=16, pixels=16, act_bytes=1 << 16)
    narrow, wide = (Value((channels, 5, 7), Codes(bits=bits)) for bits in (2, 3))
    assert tensor_bytes(narrow, fusion) == 5 * 7 * 8 * -(-channels // 32)
    assert tensor_bytes(wide, fusion) == tensor_bytes(wide, digit) == tensor_bytes(narrow, digit)
    assert tensor_bytes(wide, fusion) == 5 * 7 * 8 * -(-channels // 16)
    assert tensor_bytes(Value((channels, 5, 7), Codes(bits=16, signed=True)), fusion) == 4 * tensor_bytes(wide, fusion)
    memory = place({"narrow": narrow, "wide": wide}, {"narrow": Lifetime(0, 1), "wide": Lifetime(0, 1)}, {}, fusion)
    assert memory.tensors["narrow"].words == plane_words(narrow, fusion)
    assert memory.tensors["wide"].words == plane_words(wide, fusion)


def test_a_planted_overlap_is_found():
    values = {"a": value(10), "b": value(10)}
    lives = {"a": Lifetime(0, 1), "b": Lifetime(1, 2)}
    memory = place(values, lives, {}, ENGINE)
    assert clashes(memory, lives) == []
    moved = Memory(memory.bank_words, {"a": memory.tensors["a"], "b": memory.tensors["a"]})
    assert clashes(moved, lives) == [("a", "b")]


def test_a_dead_tensors_words_are_used_again():
    values = {"a": value(500), "b": value(500)}
    memory = place(values, {"a": Lifetime(0, 1), "b": Lifetime(2, 3)}, {}, ENGINE)
    assert memory.tensors["a"] == memory.tensors["b"]


def test_operands_of_one_layer_lie_in_different_banks():
    values = {"input": value(100), "shortcut": value(100, bits=16)}
    lives = {"input": Lifetime(0, 2), "shortcut": Lifetime(0, 2)}
    memory = place(values, lives, {1: ({"input"}, {"shortcut"})}, ENGINE)
    assert not memory.banks("input") & memory.banks("shortcut")
    assert len(memory.banks("shortcut")) == 2
    assert memory.serial == frozenset()


def test_operands_that_must_share_a_bank_make_the_layer_serial():
    values = {"input": value(1000), "shortcut": value(900)}
    lives = {"input": Lifetime(0, 2), "shortcut": Lifetime(0, 2)}
    memory = place(values, lives, {1: ({"input"}, {"shortcut"})}, ENGINE)
    assert memory.banks("input") & memory.banks("shortcut")
    assert memory.serial == {1}


def test_a_tensor_larger_than_a_bank_spans_banks():
    memory = place({"a": value(700)}, {"a": Lifetime(0, 1)}, {}, ENGINE)
    assert memory.banks("a") == {0, 1}


def test_free_words_in_pieces_too_small_are_refused():
    values = {name: value(700) for name in "abc"}
    lives = dict.fromkeys(values, Lifetime(0, 0))
    message = (
        r"^c: needs 1400 bytes of activation memory in one piece, but the free ones lie apart: choose a greater .*"
    )
    with pytest.raises(CapacityError, match=message):
        place(values, lives, {}, ENGINE)


def residual(samples):
    net = NetworkBuilder("net", samples.input_spec((16, 16, 16), bits=4, zero_point=0))
    settings = {"bits": 4, "scale": 0.1, "padding": 1}
    weights = np.zeros((16, 16, 3, 3), int)
    x = net.stride_slice("view", net.input, 1)
    stream = net.requantise("stream", x, out=Grid(0.1, 16, signed=True))
    first = net.conv2d("first", x, weights, out=Grid(0.1, 4), **settings)
    second = net.conv2d("second", first, weights, out=Grid(0.1, 16, signed=True), **settings)
    net.add("sum", second, stream, out=Grid(0.1, 4))
    return net.build()


def test_a_serial_layer_waits_for_every_drain(samples):
    # The stream's four planes lie in both of two banks, so that the array's input shares one with them.
    network = residual(samples)
    engine = EngineConfig(pixels=64, post_lanes=4, act_banks=2)
    plan = schedule(network, engine)
    assert plan.serial == {"second"}
    second = next(layer for layer in lower(network, engine, plan) if layer.name == "second")
    tiles = list(tile_times(second, engine))
    assert len(tiles) >= 4
    # A tile begins with its neighbour's last accumulator read: four words of the stream, four beats after the slot.
    assert [after.first for after in tiles[1:]] == [tile.last_slot + 4 + 4 for tile in tiles[:-1]]


def test_a_larger_memory_keeps_the_same_layer_from_waiting(samples):
    network = residual(samples)
    engine = EngineConfig(pixels=64, post_lanes=4)
    plan = schedule(network, engine)
    assert plan.serial == set()
    second = next(layer for layer in lower(network, engine, plan) if layer.name == "second")
    tiles = list(tile_times(second, engine))
    assert all(after.first < tile.slot for tile, after in pairwise(tiles))
    assert tiles[1].post_wait == 0
