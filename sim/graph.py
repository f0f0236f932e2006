"""Shapes and arrays of a network: what every node takes, gives and needs.

`infer` walks a manifest once and checks every reference, shape and kind of codes; `array_roles`
says which arrays of the file belong to a node. Both raise `FormatError` or `UnsupportedError`
with the node's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..kernels.conv import ConvShape
from ..kernels.correction import MAX_FRACTION
from ..kernels.digits import BYTE_BITS
from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.huffman import MAX_ALPHABET, MAX_LENGTH
from ..kernels.packing import packed_bytes
from ..kernels.pool import PoolShape
from .manifest import (
    AddNode,
    AveragePoolNode,
    BasisWeights,
    ChannelPadNode,
    Codes,
    ConcatNode,
    Conv2dNode,
    FlattenNode,
    GlobalAveragePoolNode,
    IntWeights,
    LinearNode,
    Manifest,
    MaxPoolNode,
    Node,
    RequantiseNode,
    ScaleRequant,
    StrideSliceNode,
    XorNetworkSpec,
    XorWeights,
)

__all__ = [
    "ArrayRole",
    "MacNode",
    "PlaneWeights",
    "Value",
    "activation_planes",
    "array_roles",
    "check_arrays",
    "conv_shape",
    "infer",
    "plane_bytes",
    "pool_shape",
    "xor_networks",
]

MacNode = Conv2dNode | LinearNode
PlaneWeights = XorWeights | BasisWeights
"""Weights that are sign planes with coefficients."""
MAX_ELEMENTS = 1 << 26
"""Codes of one tensor of one image, at most: more is a corrupt file, not a network."""


@dataclass(frozen=True, slots=True)
class Value:
    """An activation tensor of one image: its (channels, height, width) and its codes."""

    shape: tuple[int, int, int]
    codes: Codes

    @property
    def elements(self) -> int:
        """Codes per image."""
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclass(frozen=True, slots=True)
class ArrayRole:
    """An array that a node needs: the shapes and dtypes that it may have.

    `lengths` are the least and the greatest length of a stream, which has one axis and no fixed shape.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[type[np.integer], ...]
    lengths: tuple[int, int] | None = None

    def admits(self, array: np.ndarray) -> bool:
        """Whether an array is as the role wants it."""
        if array.dtype not in [np.dtype(dtype) for dtype in self.dtypes]:
            return False
        if self.lengths is None:
            return array.shape in self.shapes
        return array.ndim == 1 and self.lengths[0] <= len(array) <= self.lengths[1]

    def __str__(self) -> str:
        dtypes = " or ".join(np.dtype(dtype).name for dtype in self.dtypes)
        if self.lengths is not None:
            return f"{dtypes} of {self.lengths[0]} to {self.lengths[1]} elements"
        return f"{dtypes} of shape {' or '.join(str(shape) for shape in self.shapes)}"


def conv_shape(node: MacNode, source: Value) -> ConvShape:
    """Geometry of a MAC layer on its input."""
    if isinstance(node, LinearNode):
        return ConvShape(source.shape[0], node.channels)
    return ConvShape(source.shape[0], node.channels, node.kernel, node.stride, node.padding, node.dilation, node.groups)


def pool_shape(node: MaxPoolNode | AveragePoolNode | GlobalAveragePoolNode, source: Value) -> PoolShape:
    """Geometry of a pooling on its input."""
    if isinstance(node, GlobalAveragePoolNode):
        return PoolShape(source.shape[1:], source.shape[1:])
    return PoolShape(node.kernel, node.stride, node.padding)


def infer(manifest: Manifest) -> dict[str, Value]:
    """The value of the input and of every node, by name."""
    values = {manifest.input.name: Value(manifest.input.shape, _plain(manifest.input))}
    _check_size(manifest.input.name, manifest.input.shape)
    for node in manifest.nodes:
        if node.name in values:
            raise FormatError(f"{node.name}: the name must stand for one tensor only")
        for name in node.inputs:
            if name not in values:
                raise FormatError(f"{node.name}: input {name!r} must be the network's input or an earlier node")
        try:
            _check_networks(node, manifest.xor_networks)
            value = _infer_node(node, [values[name] for name in node.inputs])
        except (FormatError, UnsupportedError) as error:
            raise type(error)(f"{node.name}: {error}") from error
        _check_size(node.name, value.shape)
        values[node.name] = value
    for name in manifest.xor_networks:
        if not any(name in xor_networks(node) for node in manifest.nodes):
            raise FormatError(f"XOR network {name!r} must belong to a node")
    return values


def xor_networks(node: Node) -> tuple[str, ...]:
    """The XOR networks that a node names."""
    if isinstance(node, MacNode) and isinstance(node.weights, XorWeights):
        return node.weights.planes
    return ()


def _check_networks(node: Node, networks: Mapping[str, XorNetworkSpec]) -> None:
    for name in xor_networks(node):
        if name not in networks:
            raise FormatError(f"plane {name!r} must be one of the manifest's XOR networks")


def _check_size(name: str, shape: tuple[int, int, int]) -> None:
    elements = shape[0] * shape[1] * shape[2]
    if elements > MAX_ELEMENTS:
        raise FormatError(f"{name}: must have at most {MAX_ELEMENTS} codes per image, not {elements}")


def _plain(codes: Codes) -> Codes:
    return Codes(
        bits=codes.bits, signed=codes.signed, zero_point=codes.zero_point, scale=codes.scale, planes=codes.planes
    )


def _infer_node(node: Node, sources: list[Value]) -> Value:
    source = sources[0]
    channels, height, width = source.shape
    _check_planes(node, sources)
    match node:
        case Conv2dNode() | LinearNode():
            return _infer_mac(node, source)
        case AddNode():
            if sources[0].shape != sources[1].shape:
                raise FormatError(f"operands must have one shape, not {sources[0].shape} and {sources[1].shape}")
            _check_clamp(node.requant, node.out)
            return Value(source.shape, node.out)
        case RequantiseNode():
            _check_clamp(node.requant, node.scaled)
            return Value(source.shape, node.out)
        case MaxPoolNode() | AveragePoolNode() | GlobalAveragePoolNode():
            return Value((channels, *pool_shape(node, source).output_size(height, width)), source.codes)
        case ConcatNode():
            for other in sources[1:]:
                if other.shape[1:] != source.shape[1:]:
                    raise FormatError(f"inputs must have one image size, not {source.shape[1:]} and {other.shape[1:]}")
                if other.codes != source.codes:
                    raise FormatError(f"inputs must have the same codes, not {source.codes!r} and {other.codes!r}")
            return Value((sum(value.shape[0] for value in sources), height, width), source.codes)
        case FlattenNode():
            return Value((source.elements, 1, 1), source.codes)
        case ChannelPadNode():
            return Value((node.before + channels + node.after, height, width), source.codes)
        case StrideSliceNode():
            return Value((channels, -(-height // node.stride[0]), -(-width // node.stride[1])), source.codes)


def _check_planes(node: Node, sources: list[Value]) -> None:
    """Whether a node may read activation planes, and makes what it says it makes."""
    if any(source.codes.planes is not None for source in sources):
        if isinstance(node, MaxPoolNode):
            if not (sources[0].codes.planes and sources[0].codes.planes.ordered):
                raise UnsupportedError(
                    f"max_pool must read numbers, or planes whose words are in the order of their values, "
                    f"not planes of beta {sources[0].codes.planes and sources[0].codes.planes.beta}"
                )
        elif not isinstance(node, MacNode | ConcatNode | FlattenNode | StrideSliceNode):
            raise UnsupportedError(f"{node.op} must read numbers, not words of activation planes")
    if isinstance(node, AddNode) and node.out.planes is not None:
        raise UnsupportedError("the sum of an add must be numbers, not activation planes: requantise it to them")
    if not isinstance(node, MacNode | RequantiseNode):
        return
    if (node.table is None) != (node.out.planes is None):
        raise FormatError("a table must come with activation planes, and they with it")
    if node.table is not None:
        if isinstance(node, MacNode) and isinstance(node.requant, ScaleRequant):
            raise UnsupportedError("activation planes of a MAC layer must come of thresholds, not of a scale")
        if max(node.table) >> node.out.bits:
            raise FormatError(f"words of a table must fit {node.out.bits} planes, not {max(node.table)}")


def _infer_mac(node: MacNode, source: Value) -> Value:
    if isinstance(node, LinearNode) and source.shape[1:] != (1, 1):
        raise FormatError(f"a linear layer's input must be flat (features, 1, 1), not {source.shape}")
    scheme = node.weights.scheme
    if source.codes.bits > BYTE_BITS and scheme != "int":
        raise UnsupportedError(
            f"activations of a layer of scheme {scheme} must have 1 to {BYTE_BITS} bits, not {source.codes.bits}"
        )
    if source.codes.planes is not None:
        if not isinstance(node.weights, PlaneWeights):
            raise UnsupportedError(f"activation planes must meet weights of scheme basis or xor, not {scheme}")
        if node.zero_term:
            raise UnsupportedError("weights that meet activation planes must have no zero-point term: they are signs")
    if node.align is not None and scheme != "int":
        raise UnsupportedError(f"alignment must come with scheme int, not with {scheme}")
    if node.align == "mul" and max(source.codes.bits, node.weights.bits) > 4:
        raise UnsupportedError(
            f"multiplier alignment must have operands of at most 4 bits, "
            f"not {source.codes.bits}-bit activations and {node.weights.bits}-bit weights"
        )
    if isinstance(node.requant, ScaleRequant):
        _check_clamp(node.requant, node.out)
        if node.requant.rounding == "tflite" and node.fraction:
            raise UnsupportedError(f"tflite rounding must come without fraction bits, not with {node.fraction}")
    elif node.out.bits > 4 and node.table is None:
        raise FormatError(f"threshold outputs must have 1 to 4 bits, not {node.out.bits}")
    if node.out_widths:
        _check_out_widths(node)
    if not isinstance(node.weights, PlaneWeights):
        if node.fraction > MAX_FRACTION:
            raise FormatError(f"fraction of scheme {scheme} must be 0 to {MAX_FRACTION} bits, not {node.fraction}")
        if node.fraction and not node.zero_term:
            raise FormatError("fraction bits must come with a zero-point term")
    shape = conv_shape(node, source)
    channels, height, width = source.shape
    top, left, bottom, right = shape.padding
    _check_size("padded input", (channels, top + height + bottom, left + width + right))
    return Value((node.channels, *shape.output_size(height, width)), node.out)


def _check_out_widths(node: MacNode) -> None:
    """Whether the codes of a layer's result can have a width for each channel."""
    if not isinstance(node.requant, ScaleRequant):
        raise UnsupportedError("widths of output channels must come with scales, not with thresholds")
    if node.out.bits > 8:
        raise UnsupportedError(f"a tensor with widths of channels must have 1 to 8 bits, not {node.out.bits}")
    if node.out.zero_point:
        raise UnsupportedError(f"a tensor with widths of channels must have zero point 0, not {node.out.zero_point}")


def _check_clamp(requant: ScaleRequant, out: Codes) -> None:
    low, high = out.range
    if not low <= requant.low <= requant.high <= high:
        raise FormatError(f"clamp must lie in {low}..{high}, not {requant.low}..{requant.high}")


def array_roles(
    node: Node, sources: list[Value], networks: Mapping[str, XorNetworkSpec] | None = None
) -> dict[str, ArrayRole]:
    """The arrays of a node, by role; scale arrays are per channel or, of length 1, for all."""
    if isinstance(node, AddNode):
        channels = sources[0].shape[0]
        names = ("first_", "second_", "")
        return {name: role for prefix in names for name, role in _scale_roles(channels, prefix).items()}
    if isinstance(node, RequantiseNode):
        return _scale_roles(sources[0].shape[0])
    if not isinstance(node, Conv2dNode | LinearNode):
        return {}
    shape = conv_shape(node, sources[0])
    roles = {
        **_weight_roles(node, shape, activation_planes(sources[0].codes), networks or {}),
        "bias": ArrayRole(((shape.out_channels,),), (np.int16, np.int32, np.int64)),
    }
    if node.align is not None:
        roles["align"] = ArrayRole(((shape.in_channels,),), (np.uint8,))
    if node.zero_term:
        roles["zero"] = ArrayRole(((shape.out_channels,),), (np.int16,))
    if node.out_widths:
        roles["out_widths"] = ArrayRole(((shape.out_channels,),), (np.uint8,))
    if isinstance(node.requant, ScaleRequant):
        return roles | _scale_roles(shape.out_channels)
    return roles | {
        "thresholds": ArrayRole(((shape.out_channels, node.thresholds),), (np.int16, np.int32, np.int64)),
        "descending": ArrayRole(((shape.out_channels,),), (np.uint8,)),
    }


def activation_planes(codes: Codes) -> int:
    """Planes that each weight plane meets: with numbers, whose digits share its accumulator, 1."""
    return 1 if codes.planes is None else codes.bits


def _weight_roles(
    node: MacNode, shape: ConvShape, activations: int, networks: Mapping[str, XorNetworkSpec]
) -> dict[str, ArrayRole]:
    count = int(np.prod(shape.weight_shape, dtype=object))
    weights = node.weights
    widths = {}
    if isinstance(weights, IntWeights) and weights.widths:
        widths["widths"] = ArrayRole(((shape.out_channels,),), (np.uint8,))
    if isinstance(weights, PlaneWeights):
        sizes = plane_bytes(weights, count, networks)
        return {
            "weight": ArrayRole(((sum(sizes),),), (np.uint8,)),
            "coef": ArrayRole(((len(sizes) * activations, shape.out_channels),), (np.int16,)),
        }
    if weights.coding == "huffman":
        # A code word has one bit at least: what is shorter is refused before room for `count` codes is made.
        return {
            "weight": ArrayRole((), (np.uint8,), (packed_bytes(count, 1), packed_bytes(count, MAX_LENGTH) + 1)),
            "huffman": ArrayRole((), (np.uint8,), (1, 1 + MAX_ALPHABET)),
            **widths,
        }
    if widths:
        # How many they are exactly the widths say.
        return {"weight": ArrayRole((), (np.uint8,), (0, packed_bytes(count, weights.bits))), **widths}
    return {"weight": ArrayRole(((packed_bytes(count, weights.bits),),), (np.uint8,))}


def plane_bytes(weights: PlaneWeights, count: int, networks: Mapping[str, XorNetworkSpec]) -> list[int]:
    """Bytes of each plane of `count` weights in the tensor `weight`, where every plane begins with a byte."""
    if isinstance(weights, BasisWeights):
        return [packed_bytes(count, 1)] * weights.planes
    return [networks[name].network.stream_bytes(count) for name in weights.planes]


def _scale_roles(channels: int, prefix: str = "") -> dict[str, ArrayRole]:
    shapes = tuple(dict.fromkeys(((1,), (channels,))))
    return {
        f"{prefix}multiplier": ArrayRole(shapes, (np.uint32,)),
        f"{prefix}shift": ArrayRole(shapes, (np.uint8,)),
    }


def check_arrays(manifest: Manifest, values: Mapping[str, Value], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise `FormatError` unless `arrays` are exactly those that the nodes need."""
    known: set[str] = set()
    for node in manifest.nodes:
        sources = [values[name] for name in node.inputs]
        for role, wanted in array_roles(node, sources, manifest.xor_networks).items():
            name = f"{node.name}.{role}"
            known.add(name)
            if name not in arrays:
                raise FormatError(f"tensor {name!r} is missing")
            if not wanted.admits(arrays[name]):
                found = f"{arrays[name].dtype} of shape {arrays[name].shape}"
                raise FormatError(f"tensor {name!r} must be {wanted}, not {found}")
    for name in arrays:
        if name not in known:
            raise FormatError(f"tensor {name!r} must belong to a node")
