"""Small networks for the tests, and the writing of ``.gw`` files around any manifest and arrays."""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gatewise import Grid, InputSpec, NetworkBuilder, Thresholds, WeightCodes, XorNetwork


def input_spec(shape=(3, 12, 12), **changes):
    channels = shape[0]
    settings = {
        "shape": shape,
        "bits": 8,
        "scale": 0.02,
        "zero_point": 11,
        "divide": 255.0,
        "mean": (0.05,) * channels,
        "std": (0.22,) * channels,
    }
    return InputSpec(**settings | changes)


def codes(rng, bits, *shape):
    return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)


def tiny():
    """One linear layer on 4 inputs: the least network there is."""
    net = NetworkBuilder("tiny", input_spec((4, 1, 1)))
    weights = np.array([[1, -2, 3, -4], [0, 5, -6, 7], [-8, 1, 1, 1]])
    net.linear("fc", net.input, weights, bits=4, scale=0.1, out=Grid(0.02, 16, signed=True))
    return net


def small(rounding="half_even", multiplier_bits=24):
    """Every operation once: a stem worth unfolding, a residual block of option A, grouped and depthwise layers."""
    rng = np.random.default_rng(5)
    net = NetworkBuilder("small", input_spec(), multiplier_bits, rounding, {"note": "made up", "epochs": 3})
    stem = net.conv2d(
        "stem", net.input, codes(rng, 8, 6, 3, 3, 3), bits=8, scale=rng.uniform(0.002, 0.004, 6), padding=1,
        bias=rng.normal(0, 0.1, 6), relu=True,
        out=Grid(0.04, 4, align="shift", amounts=np.array([0, 1, 2, 3, 1, 0])),
    )  # fmt: skip
    fraction = 0.0 if rounding == "tflite" else rng.uniform(-2, 2, 8)
    down = net.conv2d(
        "down", stem, codes(rng, 4, 8, 6, 3, 3), bits=4, scale=0.02, zero_point=fraction, bias=0.2,
        stride=2, padding=(1, 1, 0, 1), out=Grid(0.03, 8, signed=True, zero_point=20),
    )  # fmt: skip
    cut = net.channel_pad("pad", net.stride_slice("slice", stem, 2), 1, 1)
    net.rounding = "half_even" if rounding == "tflite" else rounding  # whose factors must be below 1
    block = net.add("block", down, net.requantise("copy", cut, out=Grid(0.03, 8)), out=Grid(0.05, 8), relu=True)
    net.rounding = rounding
    depth = net.conv2d(
        "depth",
        block,
        codes(rng, 3, 8, 1, 3, 3),
        bits=3,
        scale=0.1,
        padding=1,
        groups=8,
        out=Grid(0.2, 5, zero_point=9),
    )
    pooled = net.max_pool("max", depth, 2, 1, (0, 1))
    grouped = net.conv2d(
        "grouped", pooled, rng.integers(0, 64, (8, 4, 1, 1)), bits=6, scale=0.01, zero_point=31, signed=False, groups=2,
        out=Grid(0.2, 5, zero_point=9), dilation=2,
    )  # fmt: skip
    joined = net.concat("joined", [pooled, grouped])
    mean = net.average_pool("mean", joined, (2, 3), 2, (1, 1, 0, 1))
    flags = rng.random(4) < 0.5
    steps = Thresholds(
        np.sort(np.array([-400, -200, -100, 0, 100, 200, 400]) + rng.integers(-50, 50, (4, 7)), axis=1), flags
    )
    mixed = net.conv2d("steps", mean, codes(rng, 5, 4, 16, 1, 1), bits=5, scale=1.0, out=Grid(0.5, 3), thresholds=steps)
    flat = net.flatten("flat", mixed)
    hidden = net.linear(
        "hidden", flat, codes(rng, 2, 9, flat.shape[0]), bits=2, scale=0.05, out=Grid(0.1, 6, zero_point=30)
    )
    final = net.linear("classes", hidden, codes(rng, 8, 7, 9), bits=8, scale=0.01, out=Grid(0.002, 16, signed=True))
    assert final.shape == (7, 1, 1)
    return net


def signs(rng, *shape):
    return rng.choice((-1, 1), shape)


def focused(rng, *shape, **settings):
    """Focused codes: a third pruned, a fifth exactly at a mean."""
    sign = rng.choice((-1, 0, 1), shape, p=(0.4, 0.2, 0.4))
    return WeightCodes.focused(
        sign, rng.integers(-3, 1, shape), rng.integers(0, 2, shape), rng.random(shape) < 0.3,
        minus=(-1, -4), plus=(1, 2), **settings,
    )  # fmt: skip


def schemes():
    """Every scheme and coding once, with odd sizes, groups, and two XOR networks of which one is used twice."""
    rng = np.random.default_rng(8)
    net = NetworkBuilder("schemes", input_spec((3, 7, 6)))
    out = {"scale": 0.01, "out": Grid(0.1, 4, zero_point=3)}
    peaked = np.clip(np.rint(rng.normal(0, 2, (6, 3, 3, 3))), -8, 7).astype(int)
    x = net.conv2d("int", net.input, peaked, bits=4, coding="huffman", bias=0.3, padding=1, **out)
    small, large = XorNetwork.random(5, 11, None, 1), XorNetwork.random(12, 10, 2, 2)
    for coding in ("raw", "huffman"):
        sign, exponent = rng.choice((-1, 0, 1), (6, 6, 1, 3)), np.minimum(rng.geometric(0.5, (6, 6, 1, 3)), 6) - 4
        codes = WeightCodes.shift(sign, exponent, coding=coding)
        x = net.conv2d(f"shift_{coding}", x, codes, padding=(0, 1), **out)
        x = net.conv2d(f"focused_{coding}", x, focused(rng, 6, 3, 3, 1, coding=coding), groups=2, padding=(1, 0), **out)
    planes, coefs = signs(rng, 2, 9, 2, 3, 2), rng.normal(0, 1, (2, 9))
    plain = WeightCodes.encrypt(planes, [small, large], coefs, groups=3)
    x = net.conv2d("xor", x, plain, groups=3, padding=(1, 0, 1, 1), **out)
    numbers = rng.integers(-300, 300, (1, 9))
    tiled = WeightCodes.encrypt(signs(rng, 1, 9, 3, 1, 2), [small], numbers, groups=3, fraction=9, tile=(2, 4))
    x = net.conv2d("tiled", x, tiled, groups=3, **out)
    x = net.flatten("flat", x)
    basis = WeightCodes.basis(signs(rng, 3, 5, x.shape[0]), np.array([4, -2, 1]), fraction=2)
    net.linear("basis", x, basis, scale=0.01, zero_point=0.25, bias=-0.1, out=Grid(0.002, 16, signed=True))
    return net


def pixels(network, count=5, seed=0):
    shape = network.manifest.input.shape
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@dataclass
class Parts:
    """What a ``.gw`` file says, open to any change."""

    manifest: dict
    arrays: dict

    def node(self, name):
        return next(node for node in self.manifest["nodes"] if node["name"] == name)


def read(path):
    """Take a file apart with nothing but its documented layout."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.pop("__metadata__")
    kinds = {"U8": "<u1", "I8": "<i1", "I16": "<i2", "U32": "<u4", "I32": "<i4", "I64": "<i8"}
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        arrays[name] = np.frombuffer(body[first:last], kinds[entry["dtype"]]).reshape(entry["shape"]).copy()
    return Parts(json.loads(metadata["gatewise"]), arrays)


def write(path, parts, sign=True, text=None):
    """Write a file; where `sign`, both digests are made to agree with whatever it holds."""
    from safetensors.numpy import save

    if sign:
        digest = hashlib.sha256()
        for name in sorted(parts.arrays):
            array = parts.arrays[name]
            digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
            digest.update(array.tobytes())
        parts.manifest["payload_sha256"] = digest.hexdigest()
    text = json.dumps(parts.manifest) if text is None else text
    metadata = {"gatewise": text, "gatewise.sha256": hashlib.sha256(text.encode()).hexdigest()}
    Path(path).write_bytes(save(parts.arrays, metadata=metadata))
    return path
