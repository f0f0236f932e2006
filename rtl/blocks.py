"""The registry of blocks: what `gatewise synth` and `gatewise regress` know by name.

A block is one entry: how to make its parameters from ``key=value`` settings, its component, its
bench, and the settings that a regression visits.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from amaranth.lib import wiring

from .. import kernels
from ..kernels.align import Alignment
from ..kernels.conv import ConvShape
from ..kernels.errors import FormatError
from ..kernels.mac import MacFormat, Overflow
from ..kernels.planes import TABLE_ENTRIES
from ..kernels.requant import Rounding
from ..kernels.statistics import StatisticsPrior
from ..kernels.unrolled import Structure, UnrolledDot
from ..sim.unrolled import scheme_named, seeded_layer
from .accumulator import Accumulator, AccumulatorBench
from .align import Aligner, AlignerBench
from .bench import Bench
from .correction import Correction, CorrectionBench
from .dot import DotProductRow, DotProductRowBench
from .fusion import FusionPE, FusionPEBench, FusionRowBench, streamed_row
from .huffman import HuffmanBank, HuffmanDecoder
from .huffman_bench import HuffmanBankBench, HuffmanDecoderBench
from .multiplier import DigitMultiplier, DigitMultiplierBench
from .planes import PlaneCorrection, PlaneCorrectionBench, PlaneTable, PlaneTableBench
from .requant import ScaleRequantizer, ScaleRequantizerBench, ThresholdRequantizer, ThresholdRequantizerBench
from .shift import ShiftPE, ShiftPEBench, ShiftRowBench, streamed_shift_row
from .sign import PopcountRowBench, SignRowBench, streamed_popcount_row, streamed_sign_row
from .statistics import ClipStatistics, ClipStatisticsBench
from .stepped import Build, steppable, steppable_bench
from .tree import AdderTree, AdderTreeBench
from .unrolled import UnrolledDot as UnrolledDotCircuit
from .unrolled import UnrolledDotBench
from .xor import XorGates, XorGatesBench, XorProgrammable, XorProgrammableBench
from .xor_stream import XorDecoder, XorRows, XorStream
from .xor_stream_bench import XorDecoderBench, XorRowsBench, XorStreamBench

__all__ = ["BLOCKS", "Block", "Settings", "block_named", "parse_settings"]

Settings = Mapping[str, int | bool | str]

MAX_LANES = 256


@dataclass(frozen=True)
class Block:
    """One block of the registry.

    Parameters
    ----------
    name : what the command line calls it
    parameters : makes the kernel's parameter object; its keyword arguments are the settings
    component : the Amaranth component, built from the parameter object
    bench : stimulus and golden model, built from the parameter object
    cases : settings that a regression visits; the defaults alone where empty
    small : settings small enough to synthesise flat, to check the sum over the hierarchy against;
        None where the block has no hierarchy
    """

    name: str
    parameters: Callable[..., Any]
    component: Callable[[Any], wiring.Component]
    bench: Callable[[Any], Bench[Any]]
    cases: Sequence[Settings] = ({},)
    small: Settings | None = None

    @property
    def defaults(self) -> dict[str, int | bool | str]:
        """Every setting with its default."""
        return {name: item.default for name, item in inspect.signature(self.parameters).parameters.items()}

    def settings(self, given: Settings) -> dict[str, int | bool | str]:
        """The defaults with the given settings in their place, checked."""
        known = inspect.signature(self.parameters).parameters
        merged = self.defaults
        for name, value in given.items():
            if name not in known:
                raise FormatError(f"parameter of {self.name} must be one of {', '.join(known)}, not {name!r}")
            merged[name] = _checked(f"{self.name} parameter {name}", value, known[name])
        return merged

    def create(self, given: Settings) -> tuple[Any, wiring.Component]:
        """The parameter object and the component of the given settings."""
        parameters = self.parameters(**self.settings(given))
        return parameters, self.component(parameters)


def _checked(what: str, value: int | bool | str, item: inspect.Parameter) -> int | bool | str:
    """A setting as its own type; the command line gives text."""
    if get_origin(item.annotation) is Literal:
        if value not in get_args(item.annotation):
            raise FormatError(f"{what} must be one of {', '.join(get_args(item.annotation))}, not {value!r}")
        return value
    if item.annotation is str:
        return str(value)
    if item.annotation is bool:
        words = {"true": True, "1": True, "false": False, "0": False}
        if str(value).lower() not in words:
            raise FormatError(f"{what} must be true or false, not {value!r}")
        return words[str(value).lower()]
    try:
        return int(value)
    except ValueError:
        raise FormatError(f"{what} must be a whole number, not {value!r}") from None


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """Read ``name=value`` texts, as the command line repeats them."""
    settings = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise FormatError(f"parameter must be given as name=value, not {text!r}")
        settings[name] = value
    return settings


def block_named(name: str) -> Block:
    """The block of that name."""
    if name not in BLOCKS:
        raise FormatError(f"block must be one of {', '.join(BLOCKS)}, not {name!r}")
    return BLOCKS[name]


def _lanes(lanes: int) -> int:
    if not 1 <= lanes <= MAX_LANES or lanes & (lanes - 1):
        raise FormatError(f"lanes must be a power of two from 1 to {MAX_LANES}, not {lanes}")
    return lanes


def _multiplier(product: int = 8, overflow: Overflow = "saturate") -> kernels.DigitMultiplier:
    return kernels.DigitMultiplier(MacFormat(product=product, overflow=overflow))


def _align(
    product: int = 8, align: int = 16, kind: Alignment = "shift", overflow: Overflow = "saturate"
) -> kernels.Aligner:
    return kernels.Aligner(MacFormat(product=product, align=align, overflow=overflow), kind)


def _tree(lanes: int = 16, bits: int = 16) -> kernels.AdderTree:
    return kernels.AdderTree(_lanes(lanes), bits)


def _accumulator(
    acc: int = 32, align: int = 16, lanes: int = 16, overflow: Overflow = "saturate"
) -> kernels.Accumulator:
    fmt = MacFormat(align=align, acc=acc, overflow=overflow)
    return kernels.Accumulator(fmt, fmt.row_bits(_lanes(lanes)))


def _dot(
    lanes: int = 16,
    product: int = 8,
    align: int = 16,
    acc: int = 32,
    kind: Alignment = "shift",
    overflow: Overflow = "saturate",
) -> kernels.DotProductRow:
    return kernels.DotProductRow(MacFormat(product, align, acc, overflow), _lanes(lanes), kind)


def _scale(
    in_bits: int = 32,
    multiplier_bits: int = 24,
    rounding: Rounding = "half_even",
    out_bits: int = 8,
    out_signed: bool = False,
) -> kernels.ScaleRequantizer:
    return kernels.ScaleRequantizer(in_bits, multiplier_bits, rounding, out_bits, out_signed)


def _threshold(in_bits: int = 32, out_bits: int = 4, out_signed: bool = False) -> kernels.ThresholdRequantizer:
    return kernels.ThresholdRequantizer(in_bits, out_bits, out_signed)


def _correction(acc: int = 32, fraction: int = 0) -> kernels.Correction:
    return kernels.Correction(MacFormat(acc=acc), fraction)


def _fusion_pe(product: int = 8, overflow: Overflow = "saturate") -> kernels.FusionPE:
    return kernels.FusionPE(MacFormat(product=product, overflow=overflow))


def _fusion(
    lanes: int = 16,
    product: int = 8,
    align: int = 16,
    kind: Alignment = "shift",
    overflow: Overflow = "saturate",
) -> kernels.FusionRow:
    return kernels.FusionRow(_lanes(lanes), MacFormat(product=product, align=align, overflow=overflow), kind)


def _sign(lanes: int = 16) -> kernels.SignRow:
    return kernels.SignRow(_lanes(lanes))


def _popcount(lanes: int = 16) -> kernels.PopcountRow:
    return kernels.PopcountRow(_lanes(lanes))


def _planes(acc: int = 32) -> kernels.PlaneCorrection:
    return kernels.PlaneCorrection(MacFormat(acc=acc))


def _plane_table(planes: int = 8) -> kernels.PlaneTable:
    return kernels.PlaneTable((0,) * TABLE_ENTRIES, planes)


# The first seed whose twenty rows of two taps are all different, so that no gate is shared.
_XOR_SEED = 14


def _xor(n_in: int = 12, n_out: int = 20, taps: int = 2, seed: int = _XOR_SEED) -> kernels.XorNetwork:
    return kernels.XorNetwork.random(n_in, n_out, taps or None, seed)


def _xor_programmable(n_in: int = 12, n_out: int = 20, planes: int = 1, stepped: bool = False) -> Build:
    return Build(kernels.XorProgrammable(n_in, n_out, planes), stepped)


def _xor_matrices(
    n_in: int, n_out: int, taps: int, seed: int, planes: int, programmable: bool
) -> tuple[kernels.XorNetwork, ...] | kernels.XorProgrammable:
    if programmable:
        return kernels.XorProgrammable(n_in, n_out, planes)
    return tuple(_xor(n_in, n_out, taps, seed + plane) for plane in range(planes))


def _xor_stream(
    n_in: int = 12,
    n_out: int = 20,
    taps: int = 2,
    seed: int = _XOR_SEED,
    word_bits: int = 128,
    planes: int = 1,
    programmable: bool = False,
    stepped: bool = False,
) -> Build:
    matrices = _xor_matrices(n_in, n_out, taps, seed, planes, programmable)
    return Build(kernels.XorStream(matrices, word_bits), stepped)


def _xor_rows(
    n_out: int = 20,
    row_bits: int = 16,
    length_bits: int = 16,
    planes: int = 1,
    programmable: bool = False,
    stepped: bool = False,
) -> Build:
    return Build(kernels.XorRows(n_out, row_bits, length_bits, planes, programmable), stepped)


def _xor_decoder(
    n_in: int = 12,
    n_out: int = 20,
    taps: int = 2,
    seed: int = _XOR_SEED,
    word_bits: int = 128,
    row_bits: int = 16,
    length_bits: int = 16,
    planes: int = 1,
    programmable: bool = False,
    stepped: bool = False,
) -> Build:
    matrices = _xor_matrices(n_in, n_out, taps, seed, planes, programmable)
    return Build(kernels.XorDecoder(kernels.XorStream(matrices, word_bits), row_bits, length_bits), stepped)


def _shift_pe() -> kernels.ShiftPE:
    return kernels.ShiftPE()


def _shift(lanes: int = 16) -> kernels.ShiftRow:
    return kernels.ShiftRow(_lanes(lanes))


def _huffman(
    max_length: int = 16,
    alphabet: int = 256,
    symbol_bits: int = 8,
    chunk_bits: int = 32,
    count_bits: int = 24,
    stepped: bool = False,
) -> Build:
    return Build(kernels.HuffmanDecoder(max_length, alphabet, symbol_bits, chunk_bits, count_bits), stepped)


def _huffman_bank(
    rows: int = 16,
    max_length: int = 16,
    alphabet: int = 256,
    symbol_bits: int = 8,
    chunk_bits: int = 32,
    count_bits: int = 24,
    stepped: bool = False,
) -> Build:
    decoder = kernels.HuffmanDecoder(max_length, alphabet, symbol_bits, chunk_bits, count_bits)
    return Build(kernels.HuffmanBank(rows, decoder), stepped)


def _statistics(
    value_bits: int = 16, count_bits: int = 16, prior: StatisticsPrior = "laplace", stepped: bool = False
) -> Build:
    return Build(kernels.ClipStatistics(value_bits, count_bits, prior), stepped)


MAX_UNROLLED_TAPS = 4096


def _unrolled(scheme: str = "focused5", taps: int = 64, structure: Structure = "grouped", seed: int = 0) -> UnrolledDot:
    if not 1 <= taps <= MAX_UNROLLED_TAPS:
        raise FormatError(f"taps must be 1 to {MAX_UNROLLED_TAPS}, not {taps}")
    return seeded_layer(scheme_named(scheme), ConvShape(taps, 1), seed).unrolled.dot(0, structure)


BLOCKS: dict[str, Block] = {
    block.name: block
    for block in (
        Block(
            "multiplier",
            _multiplier,
            DigitMultiplier,
            DigitMultiplierBench,
            cases=({}, {"product": 6}, {"product": 7, "overflow": "wrap"}, {"product": 10}),
        ),
        Block(
            "align",
            _align,
            Aligner,
            AlignerBench,
            cases=(
                {},
                {"align": 12},
                {"align": 12, "overflow": "wrap"},
                {"product": 10, "align": 24},
                {"kind": "mul"},
                {"kind": "mul", "product": 6, "align": 8, "overflow": "wrap"},
            ),
        ),
        Block("tree", _tree, AdderTree, AdderTreeBench, cases=({}, {"lanes": 2, "bits": 8}, {"lanes": 64})),
        Block(
            "accumulator",
            _accumulator,
            Accumulator,
            AccumulatorBench,
            cases=({}, {"acc": 12, "align": 8}, {"acc": 18, "overflow": "wrap"}, {"acc": 48, "align": 24}),
        ),
        Block(
            "dot",
            _dot,
            DotProductRow,
            DotProductRowBench,
            cases=(
                {},
                {"lanes": 4, "product": 6, "align": 10, "acc": 16},
                {"lanes": 8, "product": 7, "align": 12, "acc": 18, "overflow": "wrap"},
                {"lanes": 4, "kind": "mul", "acc": 24},
                {"lanes": 1},
            ),
            small={"lanes": 4},
        ),
        Block(
            "scale",
            _scale,
            ScaleRequantizer,
            ScaleRequantizerBench,
            cases=(
                {},
                {"rounding": "half_up", "multiplier_bits": 16, "out_signed": True},
                {"rounding": "half_away", "out_bits": 4, "in_bits": 40},
                {"rounding": "floor", "out_bits": 16, "out_signed": True},
                {"rounding": "tflite", "multiplier_bits": 31, "out_signed": True, "in_bits": 36},
                {"rounding": "half_even", "multiplier_bits": 31, "in_bits": 56, "out_signed": True},
                {"rounding": "half_up", "multiplier_bits": 16, "in_bits": 12, "out_bits": 1},
            ),
        ),
        Block(
            "threshold",
            _threshold,
            ThresholdRequantizer,
            ThresholdRequantizerBench,
            cases=({}, {"out_bits": 2, "out_signed": True}, {"in_bits": 12, "out_bits": 1}, {"in_bits": 40}),
        ),
        Block(
            "correction",
            _correction,
            Correction,
            CorrectionBench,
            cases=({}, {"fraction": 8}, {"acc": 48, "fraction": 8}, {"acc": 12}),
        ),
        Block(
            "sign",
            _sign,
            streamed_sign_row,
            SignRowBench,
            cases=({}, {"lanes": 1}, {"lanes": 4}, {"lanes": 32}, {"lanes": 64}),
            small={"lanes": 4},
        ),
        Block(
            "popcount",
            _popcount,
            streamed_popcount_row,
            PopcountRowBench,
            cases=({}, {"lanes": 1}, {"lanes": 4}, {"lanes": 64}),
            small={"lanes": 4},
        ),
        Block(
            "planes",
            _planes,
            PlaneCorrection,
            PlaneCorrectionBench,
            cases=({}, {"acc": 12}, {"acc": 40}),
            small={"acc": 12},
        ),
        Block("plane_table", _plane_table, PlaneTable, PlaneTableBench, cases=({}, {"planes": 1}, {"planes": 4})),
        Block(
            "fusion_pe",
            _fusion_pe,
            FusionPE,
            FusionPEBench,
            cases=({}, {"product": 6}, {"product": 7, "overflow": "wrap"}),
        ),
        Block(
            "fusion",
            _fusion,
            streamed_row,
            FusionRowBench,
            cases=(
                {},
                {"lanes": 4, "product": 6, "align": 10},
                {"lanes": 8, "product": 7, "align": 12, "overflow": "wrap"},
                {"lanes": 4, "kind": "mul"},
                {"lanes": 1, "align": 8},
            ),
            small={"lanes": 4},
        ),
        Block(
            "xor",
            _xor,
            XorGates,
            XorGatesBench,
            cases=(
                {},
                {"taps": 0, "n_in": 16},
                {"taps": 3, "n_in": 7},
                {"taps": 0, "n_in": 24},
                {"taps": 1, "n_in": 1},
            ),
        ),
        Block(
            "xor_programmable",
            _xor_programmable,
            steppable(XorProgrammable),
            steppable_bench(XorProgrammableBench),
            cases=({"stepped": True}, {"stepped": True, "n_in": 20, "n_out": 10, "planes": 3}),
            small={"n_in": 4, "n_out": 6},
        ),
        Block(
            "xor_stream",
            _xor_stream,
            steppable(XorStream),
            steppable_bench(XorStreamBench),
            cases=(
                {"stepped": True, "word_bits": 32},
                {"stepped": True, "word_bits": 8, "n_in": 19, "taps": 0, "planes": 2},
                {"stepped": True, "word_bits": 16, "programmable": True, "planes": 3},
            ),
            small={"word_bits": 16},
        ),
        Block(
            "xor_rows",
            _xor_rows,
            steppable(XorRows),
            steppable_bench(XorRowsBench),
            cases=(
                {"stepped": True},
                {"stepped": True, "n_out": 10, "row_bits": 32, "length_bits": 8},
                {"stepped": True, "row_bits": 1, "programmable": True, "planes": 2},
                {"stepped": True, "row_bits": 32, "programmable": True},
                {"stepped": True, "row_bits": 4, "n_out": 1},
            ),
        ),
        Block(
            "xor_decoder",
            _xor_decoder,
            steppable(XorDecoder),
            steppable_bench(XorDecoderBench),
            cases=(
                {"stepped": True, "word_bits": 32},
                {"stepped": True, "word_bits": 8, "n_in": 7, "row_bits": 32, "planes": 2},
                {"stepped": True, "word_bits": 16, "n_in": 20, "programmable": True, "planes": 2, "row_bits": 8},
            ),
            small={"word_bits": 16, "row_bits": 4},
        ),
        Block("shift_pe", _shift_pe, ShiftPE, ShiftPEBench),
        Block(
            "shift",
            _shift,
            streamed_shift_row,
            ShiftRowBench,
            cases=({}, {"lanes": 4}, {"lanes": 8}, {"lanes": 64}, {"lanes": 1}),
            small={"lanes": 4},
        ),
        Block(
            "huffman",
            _huffman,
            steppable(HuffmanDecoder),
            steppable_bench(HuffmanDecoderBench),
            cases=(
                {"stepped": True, "alphabet": 32},
                {"stepped": True, "alphabet": 64, "chunk_bits": 8},
                {"stepped": True, "alphabet": 20, "max_length": 9, "chunk_bits": 16, "symbol_bits": 5},
                {"stepped": True, "alphabet": 2, "max_length": 1, "chunk_bits": 8, "symbol_bits": 1},
            ),
            small={"alphabet": 16, "max_length": 5, "chunk_bits": 8, "symbol_bits": 4, "count_bits": 8},
        ),
        Block(
            "huffman_bank",
            _huffman_bank,
            steppable(HuffmanBank),
            steppable_bench(HuffmanBankBench),
            cases=(
                {"stepped": True, "rows": 4, "alphabet": 32},
                {"stepped": True, "rows": 6, "alphabet": 24, "chunk_bits": 16, "symbol_bits": 5},
                {"stepped": True, "rows": 1, "alphabet": 16, "max_length": 8, "chunk_bits": 8, "symbol_bits": 4},
            ),
            small={"rows": 2, "alphabet": 16, "max_length": 5, "chunk_bits": 8, "symbol_bits": 4, "count_bits": 8},
        ),
        Block(
            "statistics",
            _statistics,
            steppable(ClipStatistics),
            steppable_bench(ClipStatisticsBench),
            cases=(
                {"stepped": True},
                {"stepped": True, "prior": "gauss"},
                {"stepped": True, "value_bits": 8, "count_bits": 3},
                {"stepped": True, "value_bits": 9, "count_bits": 10, "prior": "gauss"},
            ),
            small={"value_bits": 8, "count_bits": 8},
        ),
        Block(
            "unrolled",
            _unrolled,
            UnrolledDotCircuit,
            UnrolledDotBench,
            cases=(
                {},
                {"structure": "direct"},
                {"scheme": "lqnet-a2", "taps": 16, "structure": "direct"},
                {"scheme": "lqnet-a8", "taps": 40},
                {"scheme": "aciq", "structure": "direct"},
                {"scheme": "fixed8"},
            ),
            small={"taps": 16},
        ),
    )
}
