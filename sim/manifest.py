"""The manifest of an exported network: what the JSON in a ``.gw`` file may say.

Everything here is validated when it is read. Arrays are not in the manifest: they are tensors
of the file, named ``<node>.<role>`` and listed with their dtypes in `gatewise.sim.graph`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ..kernels.addressing import TileOrder
from ..kernels.align import Alignment
from ..kernels.digits import BYTE_BITS
from ..kernels.errors import FormatError
from ..kernels.planes import MAX_PLANE_FRACTION, TABLE_ENTRIES, TABLE_PLANES, PlaneTable
from ..kernels.requant import Rounding
from ..kernels.shift import ShiftFormat
from ..kernels.xor import XorNetwork

__all__ = [
    "ActivationPlanes",
    "AddNode",
    "AveragePoolNode",
    "BasisWeights",
    "ChannelPadNode",
    "Codes",
    "Coding",
    "ConcatNode",
    "Conv2dNode",
    "FlattenNode",
    "FocusedWeights",
    "GlobalAveragePoolNode",
    "InputSpec",
    "IntWeights",
    "LinearNode",
    "Manifest",
    "MaxPoolNode",
    "Node",
    "RequantiseNode",
    "ScaleRequant",
    "ShiftWeights",
    "StrideSliceNode",
    "ThresholdRequant",
    "Tile",
    "Weights",
    "XorNetworkSpec",
    "XorWeights",
]


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters on one line")
    return text


Count = Annotated[int, Field(ge=1, le=1 << 20)]
Size = Annotated[int, Field(ge=0, le=1 << 16)]
Window = tuple[Count, Count]
Padding = tuple[Size, Size, Size, Size]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Line = Annotated[str, AfterValidator(_check_line)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}$")]
ExponentBits = Annotated[int, Field(ge=0, le=5)]
Shift = Annotated[int, Field(ge=0, le=15)]
Side = Annotated[int, Field(ge=1, le=64)]
Mask = Annotated[str, Field(pattern=r"^[0-9a-f]{1,16}$")]
Coding = Literal["raw", "huffman"]
PlaneWord = Annotated[int, Field(ge=0, lt=1 << TABLE_PLANES)]
Table = Annotated[tuple[PlaneWord, ...], Field(min_length=2, max_length=TABLE_ENTRIES)]
"""Words of activation planes, of a count of 0, 1, ..."""
MAX_WEIGHT_PLANES = 8


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ActivationPlanes(_Model):
    """Codes that are words of planes, not numbers: ``real = scale * sum_j beta[j] * s_j``.

    Bit j of a word is 1 for s_j = +1; 0 stands for 0 (`values` "bits") or for -1 ("signs").
    """

    values: Literal["bits", "signs"]
    beta: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=TABLE_PLANES)]

    @property
    def signs(self) -> bool:
        """Whether planes are of -1 and +1."""
        return self.values == "signs"

    @property
    def ordered(self) -> bool:
        """Whether a greater word never stands for a lesser value."""
        worth = [
            sum(beta if word >> plane & 1 else -beta * self.signs for plane, beta in enumerate(self.beta))
            for word in range(1 << len(self.beta))
        ]
        return worth == sorted(worth)


class Codes(_Model):
    """What the integer codes of an activation tensor are: ``real = scale * factor * (code - zero_point)``.

    The factor is 1, or a channel's alignment factor where the consumers carry an alignment. Codes with `planes` are
    words of planes, and `zero_point` is no more than the word that padding feeds: {-1, +1} has no zero.
    """

    bits: Annotated[int, Field(ge=1, le=16)]
    signed: bool = False
    zero_point: int = 0
    scale: Positive = 1.0
    planes: ActivationPlanes | None = None

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest code."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1

    @model_validator(mode="after")
    def _check(self) -> "Codes":
        low, high = self.range
        if not low <= self.zero_point <= high:
            raise ValueError(f"zero point must be a code from {low} to {high}, not {self.zero_point}")
        if self.bits > 8 and not self.signed:
            raise ValueError(f"codes of more than 8 bits must be signed, not unsigned {self.bits}-bit")
        if self.planes is not None and (self.signed or len(self.planes.beta) != self.bits):
            raise ValueError(
                f"words of planes must be unsigned, with a beta for each bit, not {len(self.planes.beta)} for "
                f"{'signed' if self.signed else 'unsigned'} {self.bits}-bit words"
            )
        return self


class InputSpec(Codes):
    """The network's input: how the host turns uint8 images into codes, in float64.

    ``code = clamp(round(((pixel / divide - mean[c]) / std[c]) / scale + zero_point))``, half to even. Of the one kind
    of planes that an input may have, one plane of signs, ``code = (pixel / divide - mean[c]) / std[c] >= 0``.
    """

    name: Name = "input"
    shape: tuple[Count, Count, Count]
    divide: Positive = 1.0
    mean: tuple[Finite, ...]
    std: tuple[Positive, ...]
    rounding: Literal["half_even"] = "half_even"

    @model_validator(mode="after")
    def _check_channels(self) -> "InputSpec":
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            raise ValueError(
                f"mean and std must have one value per channel ({self.shape[0]}), "
                f"not {len(self.mean)} and {len(self.std)}"
            )
        if self.bits > 8:
            raise ValueError(f"input codes must have 1 to 8 bits, not {self.bits}")
        if self.planes is not None and (self.bits != 1 or not self.planes.signs):
            raise ValueError(f"input planes must be one plane of signs, not {self.bits} of {self.planes.values}")
        return self


class IntWeights(_Model):
    """Scheme ``int``: packed signed codes, or the Huffman stream of codes of at most 8 bits.

    With `widths` each output channel has its own width of 0 to `bits` bits, in the array `widths`.
    """

    scheme: Literal["int"] = "int"
    bits: Annotated[int, Field(ge=1, le=16)]
    coding: Coding = "raw"
    widths: bool = False

    @model_validator(mode="after")
    def _check(self) -> "IntWeights":
        if self.bits > BYTE_BITS and (self.widths or self.coding != "raw"):
            what = f"{self.coding} coding" if self.coding != "raw" else "channels of their own widths"
            raise ValueError(f"{what} must have codes of at most {BYTE_BITS} bits, not {self.bits}")
        return self


class ShiftWeights(_Model):
    """Scheme ``shift``: sign and exponent; see `gatewise.kernels.shift` for the layout of a code."""

    scheme: Literal["shift"] = "shift"
    exponent_bits: ExponentBits
    coding: Coding = "raw"

    @property
    def format(self) -> ShiftFormat:
        """The layer's codes."""
        return ShiftFormat(self.exponent_bits)

    @property
    def bits(self) -> int:
        """Bits of a stored code before entropy coding."""
        return self.format.bits


class FocusedWeights(_Model):
    """Scheme ``focused``: component, sign and exponent, pruned zeros.

    ``weight = sign * 2**(exponent + value_shift) + mu``, the mu of a component being ``sign * 2**shift``.
    """

    scheme: Literal["focused"] = "focused"
    exponent_bits: ExponentBits
    value_shift: Shift = 0
    minus: tuple[Literal[-1, 1], Shift] = (-1, 0)
    plus: tuple[Literal[-1, 1], Shift] = (1, 0)
    coding: Coding = "raw"

    @property
    def format(self) -> ShiftFormat:
        """The layer's codes."""
        return ShiftFormat(self.exponent_bits, True, self.value_shift, self.minus, self.plus)

    @property
    def bits(self) -> int:
        """Bits of a stored code before entropy coding."""
        return self.format.bits


class XorNetworkSpec(_Model):
    """An XOR network: row o is the mask, in hexadecimal, of the inputs that output o is the XOR of."""

    n_in: Side
    n_out: Side
    rows: tuple[Mask, ...]

    @property
    def network(self) -> XorNetwork:
        """The decoder."""
        return XorNetwork(self.n_in, self.n_out, tuple(int(row, 16) for row in self.rows))

    @model_validator(mode="after")
    def _check(self) -> "XorNetworkSpec":
        try:
            _ = self.network
        except FormatError as error:
            raise ValueError(str(error)) from error
        return self


class Tile(_Model):
    """Rows and lanes of the array in whose order a stream stands, and how the layer's input lies in its memory.

    `size` is the (height, width) of the map that was flattened before a linear layer; `unfolded` says that the host
    unfolds the input in x.
    """

    rows: Side
    lanes: Side
    size: tuple[Side, Side] = (1, 1)
    unfolded: bool = False

    @property
    def order(self) -> TileOrder:
        """The same for the kernels."""
        return TileOrder(self.rows, self.lanes, self.size, self.unfolded)


class XorWeights(_Model):
    """Scheme ``xor``: encrypted sign planes, each with an XOR network of the manifest.

    `order` says which weight is the n-th that the networks give: "natural" is (out, ky, kx, in), "tile" is
    `gatewise.kernels.addressing.tile_order` of an array of `tile`.
    """

    scheme: Literal["xor"] = "xor"
    planes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_WEIGHT_PLANES)]
    order: Literal["natural", "tile"] = "natural"
    tile: Tile | None = None

    @property
    def bits(self) -> int:
        """Sign planes: bits of a decoded weight."""
        return len(self.planes)

    @model_validator(mode="after")
    def _check(self) -> "XorWeights":
        if (self.order == "tile") != (self.tile is not None):
            raise ValueError(f"tile must be given for the order tile alone, not {self.tile!r} for {self.order}")
        return self


class BasisWeights(_Model):
    """Scheme ``basis``: raw sign planes."""

    scheme: Literal["basis"] = "basis"
    planes: Annotated[int, Field(ge=1, le=MAX_WEIGHT_PLANES)]

    @property
    def bits(self) -> int:
        """Sign planes: bits of a weight."""
        return self.planes


Weights = Annotated[
    IntWeights | ShiftWeights | FocusedWeights | XorWeights | BasisWeights, Field(discriminator="scheme")
]


class ScaleRequant(_Model):
    """Requantisation by multiplier and shift; `low` and `high` are the clamp (a ReLU is a clamp)."""

    kind: Literal["scale"] = "scale"
    multiplier_bits: Literal[16, 24, 31] = 24
    rounding: Rounding = "half_even"
    low: int
    high: int

    @model_validator(mode="after")
    def _check(self) -> "ScaleRequant":
        if self.rounding == "tflite" and self.multiplier_bits != 31:
            raise ValueError(f"tflite rounding must have 31 multiplier bits, not {self.multiplier_bits}")
        return self


class ThresholdRequant(_Model):
    """Requantisation by thresholds: outputs of at most 4 bits."""

    kind: Literal["threshold"] = "threshold"


Requant = Annotated[ScaleRequant | ThresholdRequant, Field(discriminator="kind")]


def _plane_table(table: tuple[int, ...] | None, out: Codes) -> PlaneTable | None:
    """The table of 16 words: counts beyond the last have its word."""
    if table is None:
        return None
    return PlaneTable((*table, *(TABLE_ENTRIES - len(table)) * (table[-1],)), out.bits)


class _Node(_Model):
    name: Name
    inputs: tuple[Name, ...]
    arity: ClassVar[int | None] = 1

    @model_validator(mode="after")
    def _check_arity(self) -> Any:
        if self.arity is None:
            if len(self.inputs) < 2:
                raise ValueError(f"{self.name}: must have two or more inputs, not {len(self.inputs)}")
        elif len(self.inputs) != self.arity:
            raise ValueError(f"{self.name}: must have {self.arity} input(s), not {len(self.inputs)}")
        return self


class _MacNode(_Node):
    """A layer on the MAC array: weights, alignment, zero-point term, bias and requantiser.

    `fraction` are the fraction bits of the zero-point term (0..8), or of the plane coefficients (0..15). With
    `out_widths` each output channel's codes have their own width of 0 to ``out.bits`` bits, in the array `out_widths`:
    the clamp ends at the codes of that width. With a `table` the layer makes activation planes: it has one threshold
    less than words.
    """

    out: Codes
    channels: Count
    weights: Weights
    align: Alignment | None = None
    zero_term: bool = False
    fraction: Annotated[int, Field(ge=0, le=MAX_PLANE_FRACTION)] = 0
    requant: Requant
    out_widths: bool = False
    table: Table | None = None

    @property
    def thresholds(self) -> int:
        """Thresholds of a channel; 0 where it is scaled."""
        if not isinstance(self.requant, ThresholdRequant):
            return 0
        return (1 << self.out.bits if self.table is None else len(self.table)) - 1

    @property
    def plane_table(self) -> PlaneTable | None:
        """What makes words of planes of the counts of thresholds."""
        return _plane_table(self.table, self.out)


class Conv2dNode(_MacNode):
    """Convolution: `kernel`, `stride`, `dilation` are (y, x), `padding` (top, left, bottom, right)."""

    op: Literal["conv2d"] = "conv2d"
    kernel: Window
    stride: Window = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Window = (1, 1)
    groups: Count = 1


class LinearNode(_MacNode):
    """Matrix product; its input is flat, (N, features, 1, 1)."""

    op: Literal["linear"] = "linear"


class AddNode(_Node):
    """Residual add of two tensors of equal shape."""

    op: Literal["add"] = "add"
    out: Codes
    requant: ScaleRequant
    arity: ClassVar[int | None] = 2


class RequantiseNode(_Node):
    """Another grid for the same values: ``(code - zero_point)`` scaled.

    With a `table` the result, whose zero point is `count_zero`, is a count, and the table makes a word of planes of it.
    """

    op: Literal["requantise"] = "requantise"
    out: Codes
    requant: ScaleRequant
    table: Table | None = None
    count_zero: Annotated[int, Field(ge=-(1 << 16), lt=1 << 16)] = 0

    @property
    def plane_table(self) -> PlaneTable | None:
        """What makes words of planes of the scaled counts."""
        return _plane_table(self.table, self.out)

    @property
    def scaled(self) -> Codes:
        """What is scaled to: the codes that are written, or counts."""
        if self.table is None:
            return self.out
        return Codes.model_construct(bits=4, signed=False, zero_point=self.count_zero, scale=1.0, planes=None)


class _PoolNode(_Node):
    kernel: Window
    stride: Window
    padding: Padding = (0, 0, 0, 0)


class MaxPoolNode(_PoolNode):
    """Greatest code of each window."""

    op: Literal["max_pool"] = "max_pool"


class AveragePoolNode(_PoolNode):
    """Rounded mean over the real pixels of each window."""

    op: Literal["average_pool"] = "average_pool"


class GlobalAveragePoolNode(_Node):
    """Rounded mean of each channel."""

    op: Literal["global_average_pool"] = "global_average_pool"


class ConcatNode(_Node):
    """Channels of all inputs, in order; all inputs have the same kind of codes."""

    op: Literal["concat"] = "concat"
    arity: ClassVar[int | None] = None


class FlattenNode(_Node):
    """(N, C, H, W) -> (N, C * H * W, 1, 1)."""

    op: Literal["flatten"] = "flatten"


class ChannelPadNode(_Node):
    """Channels of zeros before and after."""

    op: Literal["channel_pad"] = "channel_pad"
    before: Size
    after: Size


class StrideSliceNode(_Node):
    """Every stride-th row and column, from the first."""

    op: Literal["stride_slice"] = "stride_slice"
    stride: Window


Node = Annotated[
    Conv2dNode
    | LinearNode
    | AddNode
    | RequantiseNode
    | MaxPoolNode
    | AveragePoolNode
    | GlobalAveragePoolNode
    | ConcatNode
    | FlattenNode
    | ChannelPadNode
    | StrideSliceNode,
    Field(discriminator="op"),
]


class Manifest(_Model):
    """A whole network: nodes in execution order; the last one's output is the result."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[Line, Field(min_length=1, max_length=200)]
    input: InputSpec
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    xor_networks: dict[Name, XorNetworkSpec] = {}
    payload_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    provenance: dict[Line, Line | int | Finite] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
