"""Bit-level arithmetic on integer arrays: one module per hardware block.

Every block is a frozen dataclass that computes the golden result on arrays *and* is the only
argument of its Amaranth component in `gatewise.rtl`, so that neither can change alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accumulator import Accumulator
    from .align import Aligner, Alignment, alignment_factors
    from .allocation import allocate_bits, channel_bits
    from .conv import ConvResult, ConvShape, Operands, conv2d
    from .correction import Correction
    from .digits import DigitCounts, digit_count, split_digits, split_rows
    from .dot import DotProductRow, DotStep
    from .fusion import (
        FUSION_MODES,
        FusionMode,
        FusionPE,
        FusionRow,
        FusionStep,
        brick_utilisation,
        fusion_mode,
        lanes_per_pe,
        run_bits,
        utilised_bricks,
    )
    from .huffman import HuffmanCode, HuffmanDecoder, HuffmanError, HuffmanTable, entropy
    from .huffman_bank import HuffmanBank, interleave
    from .mac import DIGIT_BITS, MacFormat, Overflow
    from .multiplier import DigitMultiplier
    from .nested import LayerBops, NestedGrid, bops, relative_bops
    from .packing import pack_codes, pack_rows, packed_bytes, unpack_codes, unpack_rows
    from .planes import (
        FixedCoefficients,
        IntPlanes,
        PlaneCorrection,
        PlaneTable,
        activation_planes,
        fixed_coefficients,
        int_planes,
        pair_coefficients,
        sign_planes,
    )
    from .pool import PoolShape, average_pool, global_average_pool, max_pool
    from .requant import Rounding, ScaleRequantizer, ThresholdRequantizer, narrowed
    from .residual import AddOperand, ResidualAdd
    from .shift import ShiftFormat, ShiftPE, ShiftRow
    from .sign import PopcountRow, SignRow
    from .statistics import Clips, ClipStatistics
    from .tree import AdderTree
    from .xor import XorNetwork, XorProgrammable
    from .xor_stream import XorDecoder, XorRows, XorRun, XorSchedule, XorStream

__all__ = [
    "DIGIT_BITS",
    "FUSION_MODES",
    "Accumulator",
    "AddOperand",
    "AdderTree",
    "Aligner",
    "Alignment",
    "ClipStatistics",
    "Clips",
    "ConvResult",
    "ConvShape",
    "Correction",
    "DigitCounts",
    "DigitMultiplier",
    "DotProductRow",
    "DotStep",
    "FixedCoefficients",
    "FusionMode",
    "FusionPE",
    "FusionRow",
    "FusionStep",
    "HuffmanBank",
    "HuffmanCode",
    "HuffmanDecoder",
    "HuffmanError",
    "HuffmanTable",
    "IntPlanes",
    "LayerBops",
    "MacFormat",
    "NestedGrid",
    "Operands",
    "Overflow",
    "PlaneCorrection",
    "PlaneTable",
    "PoolShape",
    "PopcountRow",
    "ResidualAdd",
    "Rounding",
    "ScaleRequantizer",
    "ShiftFormat",
    "ShiftPE",
    "ShiftRow",
    "SignRow",
    "ThresholdRequantizer",
    "XorDecoder",
    "XorNetwork",
    "XorProgrammable",
    "XorRows",
    "XorRun",
    "XorSchedule",
    "XorStream",
    "activation_planes",
    "alignment_factors",
    "allocate_bits",
    "average_pool",
    "bops",
    "brick_utilisation",
    "channel_bits",
    "conv2d",
    "digit_count",
    "entropy",
    "fixed_coefficients",
    "fusion_mode",
    "global_average_pool",
    "int_planes",
    "interleave",
    "lanes_per_pe",
    "max_pool",
    "narrowed",
    "pack_codes",
    "pack_rows",
    "packed_bytes",
    "pair_coefficients",
    "relative_bops",
    "run_bits",
    "sign_planes",
    "split_digits",
    "split_rows",
    "unpack_codes",
    "unpack_rows",
    "utilised_bricks",
]

_MODULES = (
    "accumulator",
    "align",
    "allocation",
    "conv",
    "correction",
    "digits",
    "dot",
    "fusion",
    "huffman",
    "huffman_bank",
    "mac",
    "multiplier",
    "nested",
    "packing",
    "planes",
    "pool",
    "requant",
    "residual",
    "shift",
    "sign",
    "statistics",
    "tree",
    "xor",
    "xor_stream",
)


def __getattr__(name: str) -> Any:
    """Names are looked up when they are first used: errors alone need no Numba."""
    if name in __all__:
        for module in _MODULES:
            found = import_module(f".{module}", __name__)
            if name in found.__all__:
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
