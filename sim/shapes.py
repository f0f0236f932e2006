"""Networks of known shapes with seeded weights: what cycles, gates and speed are measured on.

The weights are noise, or what a scheme of `sim.unrolled` makes of Gaussian ones; the scales are such that codes fill
their ranges: cycles do not depend on values, with a decoder on the weights alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ..kernels.conv import ConvShape
from ..kernels.errors import FormatError
from .builder import Grid, NetworkBuilder, Tensor
from .manifest import InputSpec, Tile, XorWeights
from .network import Network
from .unrolled import Scheme, scheme_named, seeded_layer
from .weights import WeightCodes

__all__ = [
    "ACTIVATION",
    "LAYER",
    "SHAPES",
    "Inner",
    "Shapes",
    "activation_grid",
    "layer_network",
    "mobilenet",
    "noise",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet50",
    "shaped_network",
]

Inner = Callable[[np.random.Generator, tuple[int, ...]], tuple[WeightCodes, float]]
"""Makes weights of a shape, and says what their standard deviation is."""

Between = Callable[[np.random.Generator, int], Grid]
"""Makes the grid of a tensor of so many channels between the two convolutions of a block, whose order nothing fixes."""

ACTIVATION = Grid(0.3, 4)
STREAM = Grid(2**-11, 16, signed=True)
LAYER = "layer"


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

    def imagenet_stem(self) -> tuple[Tensor, Tensor]:
        """The 7 x 7 convolution and the pool in front of an ImageNet ResNet's blocks, and what blocks read of it."""
        stem = self.conv("stem", self.net.input, 64, 7, 2, weights=noise(8), out=Grid(0.02, 8))
        stream = self.net.max_pool("pool", stem, 3, 2, 1)
        return self.net.requantise("pool.codes", stream, out=self.activation), stream

    def classes(self, x: Tensor, count: int) -> Network:
        """Global mean, an 8-bit linear layer, and the network."""
        mean = self.net.requantise("codes", self.net.global_average_pool("mean", x), out=Grid(0.02, 8))
        codes = self.rng.integers(-128, 128, (count, mean.shape[0]))
        scale = 1 / (44 * np.sqrt(mean.shape[0]))
        self.net.linear("classes", self.net.flatten("flat", mean), codes, bits=8, scale=scale, out=STREAM)
        return self.net.build()


def resnet8(
    size: int = 32, classes: int = 10, seed: int = 0, inner: Inner | None = None, activation: Grid = ACTIVATION
) -> Network:
    """The image classifier of MLPerf Tiny (Banbury et al. 2021): a ResNet of three blocks of 16, 32 and 64 channels.

    78 k parameters, 12.5 M MACs; shortcuts are 1 x 1 convolutions of stride 2.
    """
    shapes = Shapes.new("resnet8", size, seed, inner, activation)
    stream = shapes.conv("conv1", shapes.net.input, 16, 3, weights=noise(8))
    x = shapes.net.requantise("conv1.codes", stream, out=activation)
    for stage, channels in enumerate((16, 32, 64)):
        x, stream = shapes.block(f"stack{stage + 1}", x, stream, channels, 2 if stage else 1)
    return shapes.classes(stream, classes)


def resnet18(
    size: int = 224, classes: int = 1000, seed: int = 0, inner: Inner | None = None, activation: Grid = ACTIVATION
) -> Network:
    """ResNet-18 (He et al. 2016, table 1) with 1 x 1 convolutions on the shortcuts that need them."""
    shapes = Shapes.new("resnet18", size, seed, inner, activation)
    x, stream = shapes.imagenet_stem()
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


def resnet50(
    size: int = 224, classes: int = 1000, seed: int = 0, inner: Inner | None = None, activation: Grid = ACTIVATION
) -> Network:
    """ResNet-50 (He et al. 2016, table 1), strides in the 3 x 3 convolutions as torchvision has them."""
    shapes = Shapes.new("resnet50", size, seed, inner, activation)
    x, stream = shapes.imagenet_stem()
    for stage, (channels, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for index in range(blocks):
            name, stride = f"layer{stage + 1}.{index}", 2 if stage and not index else 1
            inside = shapes.conv(f"{name}.conv1", x, channels, 1, out=activation)
            inside = shapes.conv(f"{name}.conv2", inside, channels, 3, stride, out=activation)
            outer = shapes.conv(f"{name}.conv3", inside, 4 * channels, 1)
            if not index:
                stream = shapes.conv(f"{name}.down", x, 4 * channels, 1, stride)
            stream = shapes.net.add(f"{name}.add", outer, stream, out=STREAM, relu=True)
            x = shapes.net.requantise(f"{name}.codes", stream, out=activation)
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


SHAPES: dict[str, Callable[..., Network]] = {"resnet8": resnet8, "resnet18": resnet18, "resnet50": resnet50}
"""What schemes are compared on."""


def in_tiles(codes: WeightCodes, tile: tuple[int, int]) -> WeightCodes:
    """Encrypted planes whose order is that of the tiles (rows, lanes) of an engine; all else as it is."""
    if not isinstance(codes.spec, XorWeights):
        return codes
    order = Tile(rows=tile[0], lanes=tile[1])
    return replace(codes, spec=codes.spec.model_copy(update={"order": "tile", "tile": order}))


def shaped_network(shape: str, scheme: str, tile: tuple[int, int] = (16, 16), seed: int = 0) -> Network:
    """A network of a shape in `SHAPES` whose inner layers are those of a scheme in `sim.unrolled.SCHEMES`.

    First and last layer have 8-bit integers in all schemes, as their papers have, and inputs of no layer are aligned.
    Encrypted weights have the order of an engine's `tile` (rows, lanes).

    >>> shaped_network("resnet8", "focused5").name
    'resnet8-focused5'
    """
    if shape not in SHAPES:
        raise FormatError(f"shape must be one of {', '.join(SHAPES)}, not {shape!r}")
    chosen = scheme_named(scheme)

    def inner(rng: np.random.Generator, wanted: tuple[int, ...]) -> tuple[WeightCodes, float]:
        outputs, inputs, height, width = wanted
        codes = in_tiles(chosen.draw(rng, (outputs, inputs, height, width)).codes, tile)
        return codes, float(codes.values.std()) if codes.spec.scheme == "int" else 1.0

    network = SHAPES[shape](seed=seed, inner=inner, activation=activation_grid(chosen))
    return Network(network.manifest.model_copy(update={"name": f"{shape}-{scheme}"}), network.arrays)


def activation_grid(scheme: Scheme) -> Grid:
    """What the inner layers of a scheme read: numbers without sign, or planes."""
    basis = scheme.draw(np.random.default_rng(0), (2, 2, 3, 3)).basis
    if basis is not None:
        return Grid.of_planes(basis)
    return Grid(ACTIVATION.scale * 15 / ((1 << scheme.activation_bits) - 1), scheme.activation_bits)


def layer_network(
    scheme: Scheme, shape: ConvShape, size: tuple[int, int], tile: tuple[int, int] = (16, 16), seed: int = 0
) -> Network:
    """One layer of a scheme, `LAYER`, between tensors of its own activations, as it stands inside of a network.

    The weights are those of `sim.unrolled.seeded_layer`, zero points and alignment included.
    """
    drawn = seeded_layer(scheme, shape, seed).drawn
    grid = activation_grid(scheme) if drawn.basis is None else Grid.of_planes(drawn.basis)
    channels = shape.in_channels
    spec = InputSpec(
        shape=(channels, *size), bits=8, scale=1 / 255, divide=255.0, mean=(0.0,) * channels, std=(1.0,) * channels
    )
    net = NetworkBuilder(f"layer-{scheme.name}", spec, provenance={"seed": seed})
    read = grid if drawn.amounts is None else replace(grid, align="shift", amounts=drawn.amounts)
    x = net.requantise("codes", net.input, out=read)
    scale = 1 / np.sqrt(channels * np.prod(shape.kernel))
    codes = in_tiles(drawn.codes, tile)
    net.conv2d(LAYER, x, codes, scale=scale, zero_point=drawn.zero, padding=shape.padding, out=grid, relu=True)
    return net.build()
