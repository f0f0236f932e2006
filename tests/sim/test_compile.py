"""Memory images: an interpreter that sees nothing but the image finds what the network's execution finds."""

import os
import subprocess
import sys

import numpy as np
import pytest
from gatewise import EngineConfig, Grid, MacFormat, NetworkBuilder
from gatewise.sim.compile import compile_network
from gatewise.sim.execute import Datapath
from gatewise.sim.words import tensor_words

from .machine import Machine

WIDE = MacFormat(align=24, acc=44)
ENGINES = [
    EngineConfig(mac=WIDE),
    EngineConfig(rows=4, lanes=8, pixels=16, post_lanes=2, act_bytes=1 << 16, mac=WIDE),
    EngineConfig(rows=8, lanes=4, bus_bits=8, act_bytes=1 << 16, act_banks=2, mac=WIDE),
]
FUSION = EngineConfig(
    rows=8, lanes=4, pixels=16, post_lanes=2, bus_bits=32, act_bytes=1 << 14, array="fusion", mac=WIDE
)


def check(network, engine, seed=0):
    """Compile, interpret and execute; compare every tensor that is kept, and the result in the image."""
    compiled = compile_network(network, engine)
    spec = network.manifest.input
    codes = np.random.default_rng(seed).integers(*spec.range, (1, *spec.shape), endpoint=True).astype(np.int16)
    plan = compiled.plan
    settings = plan.unfolded, plan.maps, plan.first_channels, engine.array
    trace = Datapath(network, engine.mac, engine.lanes, *settings).execute(codes, keep=True)
    assert not any(counts.acc.any() or counts.align.any() for counts in trace.overflows.values())
    machine = Machine(engine, compiled.with_input(codes[0]))
    image = machine.run()
    assert [op for op, _ in machine.layers] == [layer.op for layer in compiled.layers]
    result = compiled.decode_result(image)
    assert np.array_equal(result.reshape(-1), trace.result.reshape(-1))
    return compiled, machine, trace


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rounding", ["half_even", "tflite"])
def test_every_operation_runs_from_its_image(samples, engine, rounding):
    bits = 31 if rounding == "tflite" else 24
    check(samples.small(rounding, bits).build(), engine)


def conv(net, name, x, channels, kernel=1, bits=4, seed=0, **more):
    shape = channels, x.shape[0] // more.get("groups", 1), kernel, kernel
    codes = np.random.default_rng(seed).integers(-8, 8, shape)
    settings = {"bits": 4, "scale": 0.05, "out": Grid(0.2, bits, signed=bits > 8), "padding": kernel // 2}
    return net.conv2d(name, x, codes, **settings | more)


def dense(samples, bits=4, signed=False):
    """Concats of concats: every layer's output is written where the last one wants it."""
    net = NetworkBuilder("dense", samples.input_spec((5, 6, 6), bits=bits, signed=signed, zero_point=0))
    out = Grid(0.2, bits, signed=signed)
    x = conv(net, "a", net.input, 6, 3, out=out)
    for at, channels in enumerate((3, 10, 5)):
        new = conv(net, f"b{at}", x, channels, 3, seed=at + 1, out=out)
        x = net.concat(f"c{at}", [x, new])
    conv(net, "end", x, 7, bits=8, groups=1)
    return net


def copies(samples, bits=4, signed=False):
    """What addressing cannot do: an input twice, a padded tensor on the array, a strided one in a concat."""
    zero = -1 if signed else min(3, (1 << bits) - 1)
    net = NetworkBuilder("copies", samples.input_spec((6, 6, 6), bits=bits, signed=signed, zero_point=zero))
    out = Grid(0.2, bits, signed=signed, zero_point=-1 if signed else 2 if bits > 1 else 1)
    a = conv(net, "a", net.input, 6, 3, out=out, stride=2)
    pad = net.channel_pad("pad", a, 3, 2)
    b = conv(net, "b", pad, 6, 3, seed=3, out=out)
    cut = net.stride_slice("cut", conv(net, "wide", net.input, 4, out=out), 2)
    x = net.concat("all", [a, b, a, cut])
    conv(net, "end", net.channel_pad("more", x, 1, 0), 5, bits=8)
    return net


def grouped(samples):
    net = NetworkBuilder("grouped", samples.input_spec((18, 5, 5), bits=8, signed=True, zero_point=-3))
    a = conv(net, "a", net.input, 12, 3, groups=6, out=Grid(0.3, 8, signed=True, zero_point=4), zero_point=1.0)
    b = conv(net, "b", a, 12, 3, groups=12, out=Grid(0.3, 8), zero_point=np.arange(12.0) % 3)
    total = net.add("sum", b, a, out=Grid(0.3, 16, signed=True))
    net.average_pool("mean", total, 3, stride=2, padding=1)
    return net


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [dense, copies, grouped])
def test_views_copies_and_groups_run_from_their_images(samples, engine, make):
    compiled = check(make(samples).build(), engine)[0]
    names = {layer.name for layer in compiled.layers}
    assert ({"pad", "all[2]", "all[3]", "more"} <= names) == (make is copies)
    assert not any(name.startswith("c") for name in names - {"copies"}) or make is not dense


@pytest.mark.parametrize(("bits", "signed"), [(1, False), (1, True), (2, False), (2, True), (3, False), (8, True)])
@pytest.mark.parametrize("make", [dense, copies])
def test_views_of_narrow_tensors_begin_in_any_slot_of_either_half_word(samples, make, bits, signed):
    compiled = check(make(samples, bits, signed).build(), FUSION)[0]
    registers = [layer.registers for layer in compiled.layers[1:-1]]
    assert any(each.get("out_narrow") for each in registers) == (bits <= 2)
    starts = {each["out_channel"] % 16 for each in registers}
    assert min(starts - {0}) < 8 < max(starts)
    slots = {tensor["name"]: tensor["slot_bits"] for tensor in compiled.memory_map()["tensors"]}
    assert slots[compiled.plan.tensors["b" if make is copies else "b0"].root] == (2 if bits <= 2 else 4)


def test_a_root_at_the_end_lies_in_memory_as_the_image_says(samples):
    engine = ENGINES[1]
    compiled, machine, trace = check(grouped(samples).build(), engine)
    placed = compiled.plan.memory.tensors["mean"]
    value = compiled.plan.roots["mean"]
    words = tensor_words(trace.tensors["mean"][0], value.codes.bits, engine)
    found = np.stack([machine.memory[start : start + placed.words] for start in placed.planes])
    used = value.shape[0] % engine.lanes or engine.lanes
    last = np.arange(placed.words) % -(-value.shape[0] // engine.lanes) == -(-value.shape[0] // engine.lanes) - 1
    assert np.array_equal(found[:, last, :used], words[:, last, :used])
    assert np.array_equal(found[:, ~last], words[:, ~last])


def test_the_image_of_a_network_is_the_same_every_time(samples):
    network = samples.small().build()
    assert np.array_equal(compile_network(network).image, compile_network(network).image)


def test_hexadecimal_words_have_their_highest_digit_first(samples):
    compiled = compile_network(samples.tiny().build(), ENGINES[1])
    lines = compiled.to_hex().splitlines()
    assert len(lines) == len(compiled.image)
    assert int(lines[3], 16) == int.from_bytes(compiled.image[3].tobytes(), "little")


def test_an_image_is_the_same_in_every_process():
    """Hashes of names differ between processes, and with them the order of sets: no address may come of it."""
    script = (
        "import hashlib; from gatewise.sim.compile import compile_network; from gatewise.sim.shapes import *;"
        "print(hashlib.sha256(compile_network(resnet20('resnet20', noise(2))).image.tobytes()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
