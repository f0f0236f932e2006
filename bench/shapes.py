"""Networks of known shapes with seeded weights: what cycles, gates and speed are measured on.

The weights are noise, the scales such that codes fill their ranges: cycles do not depend on values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from gatewise import Grid, InputSpec, Network, NetworkBuilder, WeightCodes
from gatewise.sim.builder import Tensor

Inner = Callable[[np.random.Generator, tuple[int, ...]], tuple[WeightCodes, float]]
"""Makes weights of a shape, and says what their standard deviation is."""

Between = Callable[[np.random.Generator, int], Grid]
"""Makes the grid of a tensor of so many channels between the two convolutions of a block, whose order nothing fixes."""

ACTIVATION = Grid(0.3, 4)
STREAM = Grid(2**-11, 16, signed=True)


def noise(bits: int) -> Inner:
    """Integers, all equally likely."""
    half = 1 << (bits - 1)
    return lambda rng, shape: (WeightCodes.integer(rng.integers(-half, half, shape), bits), half * 0.35)


@dataclass
class Shapes:
    """Collects a network of `activation` tensors beside 16-bit residual streams; its first and last layer have 8 bits.

    `inner` makes the weights of the others, 4-bit integers unless given, `between` the grids within blocks, and
    `activation` is what blocks read.
    """

    net: NetworkBuilder
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    inner: Inner = field(default_factory=lambda: noise(4))
    activation: Grid = ACTIVATION
    between: Between | None = None

    @classmethod
    def new(
        cls, name: str, size: int, seed: int, inner: Inner | None = None, activation: Grid = ACTIVATION
    ) -> "Shapes":
        """An RGB input of size x size pixels."""
        spec = InputSpec(
            shape=(3, size, size), bits=8, scale=0.02, zero_point=114, divide=255.0, mean=(0.45,) * 3, std=(0.22,) * 3
        )
        net = NetworkBuilder(name, spec, provenance={"seed": seed})
        return cls(net, np.random.default_rng(seed), inner or noise(4), activation)

    def conv(
        self, name: str, x: Tensor, channels: int, kernel: int, stride: int = 1, *,
        weights: Inner | None = None, out: Grid = STREAM,
    ) -> Tensor:  # fmt: skip
        """A convolution that keeps the size at stride 1; a ReLU where its output has no sign."""
        codes, deviation = (weights or self.inner)(self.rng, (channels, x.shape[0], kernel, kernel))
        scale = 1 / (deviation * np.sqrt(x.shape[0] * kernel * kernel))
        return self.net.conv2d(
            name, x, codes, scale=scale, stride=stride, padding=kernel // 2, out=out,
            bias=self.rng.normal(0, 0.1, channels), relu=not out.signed,
        )  # fmt: skip

    def block(
        self, name: str, x: Tensor, stream: Tensor, channels: int, stride: int, *, padded: bool = False
    ) -> tuple[Tensor, Tensor]:
        """A basic residual block; takes and gives the tensor of few bits and the 16-bit stream beside it.

        Where the shapes differ the shortcut is a 1 x 1 convolution or, `padded`, a stride and channels of zeros.
        """
        grid = self.activation if self.between is None else self.between(self.rng, channels)
        inner = self.conv(f"{name}.conv1", x, channels, 3, stride, out=grid)
        if padded and stride != 1:
            stream = self.net.stride_slice(f"{name}.stride", stream, stride)
            more = (channels - stream.shape[0]) // 2
            stream = self.net.channel_pad(f"{name}.pad", stream, more, more)
        elif stride != 1 or stream.shape[0] != channels:
            stream = self.conv(f"{name}.down", x, channels, 1, stride)
        outer = self.conv(f"{name}.conv2", inner, channels, 3)
        stream = self.net.add(f"{name}.add", outer, stream, out=STREAM, relu=True)
        return self.net.requantise(f"{name}.codes", stream, out=self.activation), stream

    def classes(self, x: Tensor, count: int) -> Network:
        """Global mean, an 8-bit linear layer, and the network."""
        mean = self.net.requantise("codes", self.net.global_average_pool("mean", x), out=Grid(0.02, 8))
        codes = self.rng.integers(-128, 128, (count, mean.shape[0]))
        scale = 1 / (44 * np.sqrt(mean.shape[0]))
        self.net.linear("classes", self.net.flatten("flat", mean), codes, bits=8, scale=scale, out=STREAM)
        return self.net.build()


def resnet18(size: int = 224, classes: int = 1000, seed: int = 0) -> Network:
    """ResNet-18 (He et al. 2016, table 1) with 1 x 1 convolutions on the shortcuts that need them."""
    shapes = Shapes.new("resnet18", size, seed)
    stem = shapes.conv("stem", shapes.net.input, 64, 7, 2, weights=noise(8), out=Grid(0.02, 8))
    stream = shapes.net.max_pool("pool", stem, 3, 2, 1)
    x = shapes.net.requantise("pool.codes", stream, out=ACTIVATION)
    for stage, channels in enumerate((64, 128, 256, 512)):
        for index in range(2):
            stride = 2 if stage and not index else 1
            x, stream = shapes.block(f"layer{stage + 1}.{index}", x, stream, channels, stride)
    return shapes.classes(stream, classes)


def resnet20(
    name: str,
    inner: Inner,
    size: int = 32,
    classes: int = 10,
    seed: int = 0,
    activation: Grid = ACTIVATION,
    between: Between | None = None,
) -> Network:
    """ResNet-20 for CIFAR (He et al. 2016, section 4.2), with shortcuts of zeros."""
    shapes = replace(Shapes.new(name, size, seed, inner, activation), between=between)
    stream = shapes.conv("conv1", shapes.net.input, 16, 3, weights=noise(8))
    x = shapes.net.requantise("conv1.codes", stream, out=activation)
    for stage, channels in enumerate((16, 32, 64)):
        for index in range(3):
            stride = 2 if stage and not index else 1
            x, stream = shapes.block(f"layer{stage + 1}.{index}", x, stream, channels, stride, padded=True)
    return shapes.classes(stream, classes)


def resnet50(size: int = 224, classes: int = 1000, seed: int = 0) -> Network:
    """ResNet-50 (He et al. 2016, table 1), strides in the 3 x 3 convolutions as torchvision has them."""
    shapes = Shapes.new("resnet50", size, seed)
    stem = shapes.conv("stem", shapes.net.input, 64, 7, 2, weights=noise(8), out=Grid(0.02, 8))
    stream = shapes.net.max_pool("pool", stem, 3, 2, 1)
    x = shapes.net.requantise("pool.codes", stream, out=ACTIVATION)
    for stage, (channels, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for index in range(blocks):
            name, stride = f"layer{stage + 1}.{index}", 2 if stage and not index else 1
            inner = shapes.conv(f"{name}.conv1", x, channels, 1, out=ACTIVATION)
            inner = shapes.conv(f"{name}.conv2", inner, channels, 3, stride, out=ACTIVATION)
            outer = shapes.conv(f"{name}.conv3", inner, 4 * channels, 1)
            if not index:
                stream = shapes.conv(f"{name}.down", x, 4 * channels, 1, stride)
            stream = shapes.net.add(f"{name}.add", outer, stream, out=STREAM, relu=True)
            x = shapes.net.requantise(f"{name}.codes", stream, out=ACTIVATION)
    return shapes.classes(stream, classes)


def mobilenet(size: int = 224, classes: int = 1000, seed: int = 0) -> Network:
    """MobileNet-V1 (Howard et al. 2017, table 1): depthwise and 1 x 1 convolutions in turn."""
    shapes = Shapes.new("mobilenet-v1", size, seed)
    x = shapes.conv("stem", shapes.net.input, 32, 3, 2, weights=noise(8), out=ACTIVATION)
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for index, (channels, stride) in enumerate(plan):
        count = x.shape[0]
        x = shapes.net.conv2d(
            f"depthwise{index}", x, shapes.rng.integers(-8, 8, (count, 1, 3, 3)), bits=4, scale=1 / (2.8 * 3),
            stride=stride, padding=1, groups=count, out=ACTIVATION, relu=True,
        )  # fmt: skip
        x = shapes.conv(f"pointwise{index}", x, channels, 1, out=ACTIVATION)
    return shapes.classes(x, classes)
