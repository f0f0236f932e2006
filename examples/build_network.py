"""A 4-bit network from plain NumPy codes: build it, write it, run it.

python examples/build_network.py [tiny.gw]
"""

import sys

import gatewise
import numpy as np
from gatewise import Grid, InputSpec, NetworkBuilder

rng = np.random.default_rng(1)

# What the host does to an image: code = round((pixel / 255) / scale).
image = InputSpec(shape=(3, 16, 16), bits=8, scale=1 / 255, divide=255.0, mean=(0.0,) * 3, std=(1.0,) * 3)
net = NetworkBuilder("tiny", image)

# Weight codes are yours: signed integers, real = scale * (code - zero_point), one scale per output channel.
first = net.conv2d(
    "first", net.input, rng.integers(-8, 8, (16, 3, 3, 3)), bits=4, scale=np.full(16, 0.05), bias=rng.normal(0, 1, 16),
    out=Grid(scale=0.02, bits=4, align="shift", amounts=rng.integers(0, 4, 16)), relu=True, padding=1,
)  # fmt: skip
second = net.conv2d(
    "second", first, rng.integers(-8, 8, (16, 16, 3, 3)), bits=4, scale=0.03, padding=1, out=Grid(0.01, 16, signed=True)
)
block = net.add("block", first, second, out=Grid(0.01, 16, signed=True), relu=True)
pooled = net.requantise("pooled8", net.global_average_pool("pooled", block), out=Grid(0.2, 8))
net.linear("classes", pooled, rng.integers(-128, 128, (10, 16)), bits=8, scale=0.01, out=Grid(0.05, 16, signed=True))

path = sys.argv[1] if sys.argv[1:] else "tiny.gw"
net.save(path)
result = gatewise.load(path).run(rng.integers(0, 256, (8, 3, 16, 16), dtype=np.uint8))
print("classes:", result.predictions, "cycles per image:", result.cycles_per_image)
