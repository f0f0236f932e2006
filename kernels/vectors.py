"""What this processor's vectors are, and what kernels are written with in LLVM's language: pairs added, bits taken.

What it emits becomes a part of kernels in other modules: `jit.SHARED` names it, so that these are compiled anew.
"""

from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

__all__ = ["BIT_CODES", "COUNTS_BITS", "FEATURES", "LANES", "VNNI", "WIDE", "add_pairs", "arrays", "code_bits", "splat"]

_NAMED = numba.config.CPU_FEATURES
FEATURES = {
    feature[1:]
    for feature in (get_host_cpu_features() if _NAMED is None else _NAMED).split(",")
    if feature.startswith("+")
}
"""What Numba compiles for: the processor's features, or those of NUMBA_CPU_FEATURES."""
WIDE = {"avx512f", "avx512bw"} <= FEATURES
"""Whether there are 32 vector registers of 512 bits."""
VNNI = (WIDE and "avx512vnni" in FEATURES) or "avxvnni" in FEATURES
COUNTS_BITS = WIDE and "avx512vpopcntdq" in FEATURES
"""Whether there is an instruction that counts the ones of each number of a vector."""
LANES = 16 if WIDE else 8 if "avx2" in FEATURES else 4
"""Sums of 32 bits in a vector register."""
BIT_CODES = 16
"""Codes whose bits are taken together."""


def arrays(context: Any, builder: Any, sig: Any, args: Any, count: int) -> tuple[Any, ...]:
    """Where the elements of an intrinsic's first arguments lie."""
    return tuple(
        context.make_array(kind)(context, builder, value=value).data
        for kind, value in zip(sig.args[:count], args[:count], strict=True)
    )


def splat(builder: Any, number: Any) -> Any:
    """A vector of `LANES` times a number of 32 bits."""
    vector = ir.VectorType(ir.IntType(32), LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.IntType(32)(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(vector, [0] * LANES))


def add_pairs(builder: Any, total: Any, one: Any, other: Any) -> Any:
    """A vector of sums, and of each pair of 16-bit numbers of two others their products: `vpmaddwd` or `vpdpwssd`."""
    vector = ir.VectorType(ir.IntType(32), LANES)
    narrow, wide = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(ir.IntType(32), 2 * LANES)
    product = builder.mul(*(builder.sext(builder.bitcast(each, narrow), wide) for each in (one, other)))
    even, odd = (
        builder.shuffle_vector(
            product, ir.Constant(wide, ir.Undefined), ir.Constant(vector, list(range(half, 2 * LANES, 2)))
        )
        for half in (0, 1)
    )
    return builder.add(total, builder.add(even, odd))


@intrinsic
def code_bits(typing, codes, first, place):  # type: ignore[no-untyped-def]
    """Bit `place` of `BIT_CODES` codes of 16 bits, from the `first` one on: the first one's lowest."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (data,) = arrays(context, builder, sig, args, 1)
        vector = ir.VectorType(ir.IntType(16), BIT_CODES)
        held = builder.load(builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer()), align=2)
        one = builder.shl(ir.IntType(16)(1), builder.trunc(args[2], ir.IntType(16)))
        undefined = ir.Constant(vector, ir.Undefined)
        mask = builder.insert_element(undefined, one, ir.IntType(32)(0))
        mask = builder.shuffle_vector(
            mask, undefined, ir.Constant(ir.VectorType(ir.IntType(32), BIT_CODES), [0] * BIT_CODES)
        )
        found = builder.icmp_signed("!=", builder.and_(held, mask), ir.Constant(vector, [0] * BIT_CODES))
        return builder.zext(builder.bitcast(found, ir.IntType(BIT_CODES)), ir.IntType(32))

    return types.uint32(codes, types.int64, types.int64), emit
