"""What runs together on the engine, what the host unfolds, and how much memory is live."""

import numpy as np
import pytest
from gatewise import CapacityError, EngineConfig, Grid, NetworkBuilder, UnsupportedError
from gatewise.sim.memory import tensor_bytes
from gatewise.sim.schedule import schedule

ENGINE = EngineConfig()


def start(samples, channels=16, size=8, bits=4):
    return NetworkBuilder("net", samples.input_spec((channels, size, size), bits=bits, zero_point=0))


def conv(net, name, x, channels=16, kernel=1, bits=4, **more):
    codes = np.ones((channels, x.shape[0] // more.get("groups", 1), kernel, kernel), int)
    settings = {"bits": 4, "scale": 0.1, "out": Grid(0.1, bits, signed=bits > 8), "padding": kernel // 2}
    return net.conv2d(name, x, codes, **settings | more)


def ops(net, engine=ENGINE):
    return {layer.name: layer.op for layer in schedule(net.build(), engine).layers}


def test_a_residual_add_rides_on_the_later_convolution(samples):
    net = start(samples)
    a = conv(net, "a", net.input)
    b = conv(net, "b", a, bits=16)
    net.add("sum", b, a, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d", "b": "conv2d+add"}


def test_of_two_convolutions_the_later_one_takes_the_add(samples):
    net = start(samples)
    a, b = conv(net, "a", net.input), conv(net, "b", net.input)
    net.add("sum", a, b, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d", "b": "conv2d+add"}


def test_one_copy_rides_behind_a_convolution_or_its_add(samples):
    net = start(samples)
    a = conv(net, "a", net.input, bits=16)
    copy = net.requantise("copy", a, out=Grid(0.1, 8))
    total = net.add("sum", conv(net, "b", copy, bits=16), a, out=Grid(0.1, 16, signed=True))
    net.requantise("last", total, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d+requantise", "b": "conv2d+add+requantise"}


def test_a_second_copy_runs_on_its_own(samples):
    net = start(samples)
    a = conv(net, "a", net.input, bits=16)
    net.requantise("one", a, out=Grid(0.1, 8))
    net.requantise("two", a, out=Grid(0.2, 8))
    assert ops(net) == {"a": "conv2d+requantise", "two": "requantise"}


def test_a_copy_of_a_copy_runs_on_its_own(samples):
    net = start(samples)
    one = net.requantise("one", conv(net, "a", net.input, bits=16), out=Grid(0.1, 8))
    net.requantise("two", one, out=Grid(0.2, 8))
    assert ops(net) == {"a": "conv2d+requantise", "two": "requantise"}


def test_an_add_does_not_ride_where_the_convolution_is_read_by_others_too(samples):
    net = start(samples)
    a = conv(net, "a", net.input)
    b = conv(net, "b", a)
    net.add("sum", net.add("first", b, a, out=Grid(0.1, 8)), b, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d", "b": "conv2d", "first": "add", "sum": "add"}


def test_a_tensor_added_to_itself_runs_on_its_own(samples):
    net = start(samples)
    a = conv(net, "a", net.input)
    net.add("sum", a, a, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d", "sum": "add"}


def test_an_add_to_a_later_pooling_runs_on_its_own(samples):
    net = start(samples)
    a = conv(net, "a", net.input)
    pooled = net.max_pool("pool", net.input, 1)
    net.add("sum", a, pooled, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d", "pool": "max_pool", "sum": "add"}


@pytest.mark.parametrize("early", [True, False])
def test_a_shortcut_of_views_does_not_keep_an_add_from_riding(samples, early):
    net = start(samples)
    views = [] if not early else [net.channel_pad("pad", net.stride_slice("cut", net.input, 2), 8, 8)]
    b = conv(net, "b", conv(net, "a", net.input), channels=32, stride=2, bits=16)
    views = views or [net.channel_pad("pad", net.stride_slice("cut", net.input, 2), 8, 8)]
    net.add("sum", b, *views, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d", "b": "conv2d+add"}


def test_a_view_of_the_convolution_itself_keeps_the_add_apart(samples):
    net = start(samples)
    a = conv(net, "a", net.input)
    b = conv(net, "b", a, channels=8)
    net.add("sum", net.channel_pad("pad", b, 4, 4), a, out=Grid(0.1, 8))
    assert ops(net) == {"a": "conv2d", "b": "conv2d", "sum": "add"}


def test_views_are_no_layers(samples):
    net = samples.small()
    assert "flat" not in (found := ops(net))
    assert found["classes"] == "linear"
    assert set(found) == {
        "stem",
        "down",
        "copy",
        "block",
        "depth",
        "max",
        "grouped",
        "mean",
        "steps",
        "hidden",
        "classes",
    }


@pytest.mark.parametrize(("channels", "kernel", "lanes", "expected"), [
    (3, 3, 16, True),  # 9 lanes instead of three times 3
    (3, 3, 8, True),  # two lane groups instead of three
    (3, 3, 4, False),  # three instead of three
    (16, 3, 16, False),
    (17, 3, 16, True),  # four instead of six
    (3, 1, 16, False),
])  # fmt: skip
def test_the_stem_is_unfolded_where_that_needs_fewer_lane_groups(samples, channels, kernel, lanes, expected):
    net = start(samples, channels)
    conv(net, "stem", net.input, kernel=kernel)
    plan = schedule(net.build(), EngineConfig(lanes=lanes))
    assert plan.unfolded == ("stem" if expected else None)


@pytest.mark.parametrize(("bits", "weight_bits", "lanes", "expected"), [
    (2, 2, 4, True),  # 12 inputs are one lane group of 16, not three of them
    (2, 4, 4, True),  # two of 8
    (4, 4, 4, False),  # three of 4
    (4, 2, 4, True),
    (2, 2, 16, True),
    (8, 8, 8, True),  # two of 8, not three
])  # fmt: skip
def test_a_fused_stem_is_unfolded_by_the_lanes_of_its_mode(samples, bits, weight_bits, lanes, expected):
    net = start(samples, 4, bits=bits)
    net.conv2d("stem", net.input, np.ones((16, 4, 3, 3), int), bits=weight_bits, scale=0.1, out=Grid(0.1, 4), padding=1)
    plan = schedule(net.build(), EngineConfig(rows=4, lanes=lanes, array="fusion"))
    assert plan.unfolded == ("stem" if expected else None)
    # A pixel's 12 channels take a half-word of 8 and one more, or two words of 8; 4 channels take one.
    words = (1 if bits <= 2 or lanes > 4 else 2) if expected else 1
    assert plan.memory.tensors["input"].words == 64 * words


def test_only_a_sole_ungrouped_convolution_on_the_input_is_unfolded(samples):
    net = start(samples, 3)
    conv(net, "a", net.input, kernel=3)
    conv(net, "b", net.input, kernel=3)
    assert schedule(net.build(), ENGINE).unfolded is None
    net = start(samples, 4)
    conv(net, "grouped", net.input, kernel=3, groups=2)
    assert schedule(net.build(), ENGINE).unfolded is None
    net = start(samples, 3)
    conv(net, "late", net.max_pool("pool", net.input, 1), kernel=3)
    assert schedule(net.build(), ENGINE).unfolded is None


def test_tensors_take_whole_words_of_lanes_and_a_plane_for_each_digit(samples):
    net = start(samples, 17, 3, 5)
    net.max_pool("pool", net.input, 1)
    value = net.build().values["pool"]
    assert (
        tensor_bytes(value, EngineConfig(lanes=16)) == 3 * 3 * 2 * 16 * 2 // 2
    )  # two words of 16 digits of half a byte, two planes
    assert tensor_bytes(value, EngineConfig(lanes=64)) == 3 * 3 * 64 * 2 // 2


def peak(net, engine=ENGINE):
    plan = schedule(net.build(), engine)
    return plan.peak_bytes, plan.peak_node


PLANE = 8 * 8 * 16 // 2


def test_a_chain_holds_a_layers_input_and_output(samples):
    net = start(samples)
    conv(net, "b", conv(net, "a", net.input), bits=8)
    assert peak(net) == (3 * PLANE, "b")  # a: 1 + 1 planes, b: 1 + 2


def test_a_residual_stays_live_until_its_add_and_a_fused_sum_is_not_stored_twice(samples):
    net = start(samples)
    a = conv(net, "a", net.input)
    net.add("sum", conv(net, "b", a, bits=16), net.input, out=Grid(0.1, 8))
    assert peak(net) == (4 * PLANE, "b")  # input, a and the two planes of the sum: the 16-bit b is never stored


def test_an_add_that_runs_alone_holds_all_three(samples):
    net = start(samples)
    a = conv(net, "a", net.input, bits=16)
    net.add("sum", a, a, out=Grid(0.1, 16, signed=True))
    assert peak(net) == (8 * PLANE, "sum")


def test_a_stream_and_its_copy_are_both_stored(samples):
    net = start(samples)
    a = conv(net, "a", net.input, bits=16)
    b = conv(net, "b", net.requantise("copy", a, out=Grid(0.1, 4)), bits=16)
    net.add("sum", b, a, out=Grid(0.1, 4))
    assert peak(net) == (6 * PLANE, "a")  # input 1, stream 4, copy 1; later stream 4, copy 1, sum 1


def test_views_cost_nothing_and_keep_what_they_look_at(samples):
    net = start(samples)
    wide = net.channel_pad("wide", net.stride_slice("cut", net.input, 2), 100, 100)
    a = conv(net, "a", net.input, bits=8)
    net.add("sum", conv(net, "b", a, channels=216, stride=2, bits=16), wide, out=Grid(0.1, 4))
    assert peak(net) == (3 * PLANE + 14 * PLANE // 4, "b")  # the input lives on: the shortcut looks at it


def test_a_concats_inputs_are_written_where_they_belong(samples):
    net = start(samples)
    a = conv(net, "a", net.input)
    b = conv(net, "b", a, channels=24, out=Grid(0.1, 4))
    conv(net, "c", net.concat("all", [a, b]))
    plan = schedule(net.build(), ENGINE)
    assert [layer.name for layer in plan.layers] == ["a", "b", "c"]
    places = {name: (plan.tensors[name].root, plan.tensors[name].channel) for name in ("a", "b", "all")}
    assert places == {"a": ("all", 0), "b": ("all", 16), "all": ("all", 0)}
    assert plan.first_channels == {"a": 0, "b": 0, "c": 0}
    assert (plan.peak_bytes, plan.peak_node) == (4 * PLANE, "a")  # the input, and three words of all from a on


def test_what_lies_elsewhere_already_is_copied_into_a_concat(samples):
    net = start(samples)
    a = conv(net, "a", net.input, out=Grid(0.1, 4))
    whole = net.concat("whole", [a, net.channel_pad("pad", a, 1, 2), a])
    conv(net, "c", net.concat("more", [conv(net, "b", a, out=Grid(0.1, 4)), whole]))
    plan = schedule(net.build(), ENGINE)
    assert ops(net) == {
        "a": "conv2d", "whole[1]": "concat", "whole[2]": "concat", "b": "conv2d", "c": "conv2d",
    }  # fmt: skip
    assert plan.tensors["a"].root == plan.tensors["whole"].root == "more"
    assert plan.tensors["a"].channel == plan.tensors["whole"].channel == 16


def test_the_array_reads_no_padded_view_and_the_host_no_strided_one(samples):
    net = start(samples)
    conv(net, "c", net.channel_pad("pad", net.input, 1, 0))
    assert ops(net) == {"pad": "channel_pad", "c": "conv2d"}
    net = start(samples)
    net.stride_slice("cut", conv(net, "c", net.input), 2)
    assert ops(net) == {"c": "conv2d", "cut": "stride_slice"}


def test_a_depthwise_layer_reads_its_channels_on_the_diagonal(samples):
    net = start(samples)
    a, b = (conv(net, name, net.input, channels=channels, out=Grid(0.1, 4)) for name, channels in (("a", 8), ("b", 24)))
    conv(net, "d", b, channels=24, groups=24)
    net.concat("all", [a, b])
    assert ops(net) == {"a": "conv2d", "b": "conv2d", "d": "conv2d", "all[1]": "concat"}
    assert "all[1]" not in ops(net, EngineConfig(rows=4, lanes=8))


def test_only_linear_layers_read_a_flattened_map(samples):
    net = start(samples)
    flat = net.flatten("flat", net.input)
    net.max_pool("pool", flat, 1)
    with pytest.raises(UnsupportedError, match=r"^pool: a flattened 8 x 8 map must be read by linear layers or be the"):
        schedule(net.build(), ENGINE)


def test_the_unfolded_input_is_counted_as_it_lies(samples):
    net = start(samples, 3)
    conv(net, "stem", net.input, kernel=3)
    assert peak(net) == (2 * PLANE, "stem")
    net = start(samples, 17)
    conv(net, "stem", net.input, kernel=3)
    assert peak(net) == ((4 + 1) * PLANE, "stem")  # 51 lanes are four words


def test_what_does_not_fit_is_refused_with_node_need_and_memory(samples):
    net = start(samples)
    net.add("sum", conv(net, "b", conv(net, "a", net.input), bits=16), net.input, out=Grid(0.1, 8))
    need = 4 * PLANE
    schedule(net.build(), EngineConfig(act_bytes=need))
    message = rf"^b: live activations need {need} bytes, but the engine has act_bytes = {need - 1}$"
    with pytest.raises(CapacityError, match=message):
        schedule(net.build(), EngineConfig(act_bytes=need - 1))


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("small", {"array": "fusion", "decoder": "xor"}, "decoder of array fusion must be raw or huffman, not xor"),
        ("small", {"decoder": "xor"}, "decoder of array digit must be raw or huffman, not xor"),
        ("small", {"array": "sign"}, 'down: an aligned layer must run on an engine with array = "digit"'),
        ("small", {"array": "shift"}, 'down: an aligned layer must run on an engine with array = "digit"'),
        ("schemes", {}, 'shift_raw: scheme shift must run on an engine with array = "shift"'),
        ("schemes", {"array": "sign"}, 'shift_raw: scheme shift must run on an engine with array = "shift"'),
        ("schemes", {"array": "shift"}, 'xor: scheme xor must run on an engine with array = "sign"'),
    ],
)
def test_arrays_and_decoders_that_cannot_run_a_network_are_refused(samples, name, other, message):
    own = "" if "of" in message else f', not array = "{other.get("array", "digit")}"'
    with pytest.raises(UnsupportedError, match=f"^{message}{own}$"):
        schedule(getattr(samples, name)().build(), EngineConfig(**other))
