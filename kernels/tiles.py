"""Register tiles: sums of pixels x output channels of a convolution, held in registers over all of its taps.

A tile is one loop of LLVM's own language (`_tile`); nothing in Numba's Python would keep its sums in registers. Packed
activations say by their type what is done with four bytes of them and a vector of weights: unsigned bytes meet signed
ones in `vpdpbusd` (AVX-512 VNNI, AVX-VNNI), 16 bits meet 16 bits in what LLVM finds (`vpmaddwd`, `vpdpwssd`), and of
words of 32 bits those that differ from the weights' are counted (`vpopcntd`, or what LLVM makes of it elsewhere).
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import jit
from .vectors import LANES, VNNI, WIDE, add_pairs, arrays, splat

__all__ = [
    "GROUP_BYTES", "MOST_PIXELS", "MOST_VECTORS", "TILES", "multiply", "multiply_channels", "multiply_depthwise",
    "tile_chunks", "weigh",
]  # fmt: skip

TILES = {1: 14, 2: 12, 3: 8, 4: 6} if WIDE else {1: 10, 2: 6}
"""Pixels of a tile of so many vectors of output channels: with weights and an activation they fill all registers."""
MOST_VECTORS = max(TILES)
MOST_PIXELS = max(TILES.values())
GROUP_BYTES = 4
"""Bytes of activations that one multiply-add takes: 4 channels of 8 bits, or 2 of 16."""


def _tile(context: Any, builder: Any, sig: Any, args: Any, vectors: int) -> Any:
    """Emit a register tile: LLVM's IR of the sums of ``TILES[vectors]`` pixels and `vectors * LANES` columns.

    Arguments: packed activations (their type says which form), where each pixel begins, where each run begins from
    there, packed weights, sums; first pixel, groups of a run, first group of the weights, first sum, columns of sums.
    """
    pixels = TILES[vectors]
    x, bases, runs, weights, sums = arrays(context, builder, sig, args, 5)
    count = context.make_array(sig.args[2])(context, builder, value=args[2])
    run_count = builder.extract_value(count.shape, 0)
    first, steps, first_group, first_sum, columns = args[5:]
    byte, i32, i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
    pointer, vector = byte.as_pointer(), ir.VectorType(i32, LANES)
    size = GROUP_BYTES * LANES

    def at(base: Any, offset: Any) -> Any:
        return builder.gep(base, [offset], source_etype=byte)

    def multiply_add(total: Any, activation: Any, weight: Any) -> Any:
        if sig.args[0].dtype == types.uint8:
            if not VNNI:
                return total  # never run: `fast_forms` does not offer it
            bytes_ = ir.VectorType(byte, size)
            kind = ir.FunctionType(vector, [vector, bytes_, bytes_])
            name = f"llvm.x86.avx512.vpdpbusd.{32 * LANES}"
            call = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(call, [total, builder.bitcast(activation, bytes_), builder.bitcast(weight, bytes_)])
        if sig.args[0].dtype == types.uint32:
            kind, name = ir.FunctionType(vector, [vector]), f"llvm.ctpop.v{LANES}i32"
            call = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.add(total, builder.call(call, [builder.xor(activation, weight)]))
        return add_pairs(builder, total, activation, weight)

    x, weights, sums = (builder.bitcast(each, pointer) for each in (x, weights, sums))
    weights = at(weights, builder.mul(first_group, i64(size)))
    begins = [
        at(x, builder.load(builder.gep(bases, [builder.add(first, i64(pixel))]), typ=i64)) for pixel in range(pixels)
    ]
    entry = builder.block
    run_block, group_block, next_block, end_block = (
        builder.append_basic_block(name) for name in ("run", "group", "next_run", "end")
    )
    builder.branch(run_block)

    builder.position_at_end(run_block)
    run, run_weights = builder.phi(i64), builder.phi(pointer)
    run_sums = [builder.phi(vector) for _ in range(pixels * vectors)]
    offset = builder.load(builder.gep(runs, [run]), typ=i64)
    rows = [at(begin, offset) for begin in begins]
    builder.branch(group_block)

    builder.position_at_end(group_block)
    group, group_weights = builder.phi(i64), builder.phi(pointer)
    held = [builder.phi(vector) for _ in run_sums]
    tile_weights = [
        builder.load(builder.bitcast(at(group_weights, i64(each * size)), vector.as_pointer()), align=4)
        for each in range(vectors)
    ]
    group_offset = builder.mul(group, i64(GROUP_BYTES))
    made = []
    for pixel in range(pixels):
        four = builder.load(builder.bitcast(at(rows[pixel], group_offset), i32.as_pointer()), align=1)
        spread = splat(builder, four)
        made += [multiply_add(held[pixel * vectors + each], spread, tile_weights[each]) for each in range(vectors)]
    next_group = builder.add(group, i64(1))
    next_weights = at(group_weights, i64(vectors * size))
    builder.cbranch(builder.icmp_signed("<", next_group, steps), group_block, next_block)

    builder.position_at_end(next_block)
    next_run = builder.add(run, i64(1))
    builder.cbranch(builder.icmp_signed("<", next_run, run_count), run_block, end_block)

    for phi, begin, later in (
        (run, i64(0), next_run),
        (run_weights, weights, next_weights),
        *((phi, ir.Constant(vector, [0] * LANES), value) for phi, value in zip(run_sums, made, strict=True)),
    ):
        phi.add_incoming(begin, entry)
        phi.add_incoming(later, next_block)
    for phi, begin, later in (
        (group, i64(0), next_group),
        (group_weights, run_weights, next_weights),
        *zip(held, run_sums, made, strict=True),
    ):
        phi.add_incoming(begin, run_block)
        phi.add_incoming(later, group_block)

    builder.position_at_end(end_block)
    for pixel in range(pixels):
        row = builder.add(first_sum, builder.mul(columns, i64(pixel)))
        for each in range(vectors):
            place = builder.mul(builder.add(row, i64(each * LANES)), i64(GROUP_BYTES))
            target = builder.bitcast(at(sums, place), vector.as_pointer())
            builder.store(made[pixel * vectors + each], target, align=4)
    return context.get_dummy_value()


def _tile_intrinsic(vectors: int) -> Any:
    def tile(typing, x, bases, runs, weights, sums, first, steps, first_group, first_sum, columns):  # type: ignore[no-untyped-def]
        sig = types.void(x, bases, runs, weights, sums, *[types.int64] * 5)
        return sig, lambda context, builder, sig, args: _tile(context, builder, sig, args, vectors)

    return intrinsic(tile)


_tile_1, _tile_2 = _tile_intrinsic(1), _tile_intrinsic(2)
_tile_3, _tile_4 = (_tile_intrinsic(3), _tile_intrinsic(4)) if WIDE else (_tile_2, _tile_2)
_PIXELS_1, _PIXELS_2, _PIXELS_3, _PIXELS_4 = (TILES.get(vectors, 1) for vectors in (1, 2, 3, 4))


@jit
def multiply(x, bases, count, runs, steps, weights, first_group, chunks, sums, first_column):  # type: ignore[no-untyped-def]
    """Sums of `count` pixels and all columns of a stream, a chunk of 1 to 4 vectors after the other.

    `bases` says where each pixel begins in `x`, and goes on to say it of the last for `MOST_PIXELS` more; `sums` has
    as many more rows.
    """
    columns = sums.shape[1]
    vector = 0
    for vectors in chunks:
        column = first_column + vector * LANES
        if vectors == 4:
            for p in range(0, count, _PIXELS_4):
                _tile_4(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        elif vectors == 3:
            for p in range(0, count, _PIXELS_3):
                _tile_3(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        elif vectors == 2:
            for p in range(0, count, _PIXELS_2):
                _tile_2(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        else:
            for p in range(0, count, _PIXELS_1):
                _tile_1(x, bases, runs, weights, sums, p, steps, first_group, p * columns + column, columns)
        vector += vectors
        first_group += len(runs) * steps * vectors


@jit
def multiply_channels(x, bases, count, run, steps, weights, first_group, sums):  # type: ignore[no-untyped-def]
    """The same of one vector of columns: no other tile need be compiled for it."""
    for p in range(0, count, _PIXELS_1):
        _tile_1(x, bases, run, weights, sums, p, steps, first_group, p * LANES, LANES)


def _taps(context: Any, builder: Any, sig: Any, args: Any, vectors: int) -> Any:
    """Emit a pixel's sums of one product a tap, in `vectors` vectors of channels, held in registers.

    Arguments: packed activations of 16 bits, where each tap begins from a pixel, weights of 32 bits (taps, channels),
    sums; the pixel's and the channels' first activation, the first weight, the first sum, channels of a tap.
    """
    x, runs, weights, sums = arrays(context, builder, sig, args, 4)
    taps = builder.extract_value(context.make_array(sig.args[1])(context, builder, value=args[1]).shape, 0)
    begin, first_weight, first_sum, channels = args[4:]
    i64, vector = ir.IntType(64), ir.VectorType(ir.IntType(32), LANES)
    narrow = ir.VectorType(ir.IntType(16), LANES)

    def load(base: Any, at: Any, kind: Any, align: int) -> Any:
        return builder.load(builder.bitcast(builder.gep(base, [at]), kind.as_pointer()), align=align)

    entry = builder.block
    tap_block, end_block = builder.append_basic_block("tap"), builder.append_basic_block("end")
    builder.branch(tap_block)
    builder.position_at_end(tap_block)
    tap, weight = builder.phi(i64), builder.phi(i64)
    held = [builder.phi(vector) for _ in range(vectors)]
    place = builder.add(begin, builder.load(builder.gep(runs, [tap])))
    made = []
    for each, total in enumerate(held):
        step = i64(each * LANES)
        activations = builder.sext(load(x, builder.add(place, step), narrow, 2), vector)
        product = builder.mul(activations, load(weights, builder.add(weight, step), vector, 4))
        made.append(builder.add(total, product))
    later, later_weight = builder.add(tap, i64(1)), builder.add(weight, channels)
    builder.cbranch(builder.icmp_signed("<", later, taps), tap_block, end_block)
    for phi, start, after in (
        (tap, i64(0), later),
        (weight, first_weight, later_weight),
        *((phi, ir.Constant(vector, [0] * LANES), value) for phi, value in zip(held, made, strict=True)),
    ):
        phi.add_incoming(start, entry)
        phi.add_incoming(after, tap_block)
    builder.position_at_end(end_block)
    for each, total in enumerate(made):
        target = builder.gep(sums, [builder.add(first_sum, i64(each * LANES))])
        builder.store(total, builder.bitcast(target, vector.as_pointer()), align=4)
    return context.get_dummy_value()


def _taps_intrinsic(vectors: int) -> Any:
    def taps(typing, x, runs, weights, sums, begin, first_weight, first_sum, channels):  # type: ignore[no-untyped-def]
        sig = types.void(x, runs, weights, sums, *[types.int64] * 4)
        return sig, lambda context, builder, sig, args: _taps(context, builder, sig, args, vectors)

    return intrinsic(taps)


_taps_1, _taps_4 = _taps_intrinsic(1), _taps_intrinsic(4)


@jit
def multiply_depthwise(x, bases, count, runs, weights, sums, first_column):  # type: ignore[no-untyped-def]
    """Sums of one product a tap; `weights` are (taps, channels), `bases` and `runs` elements of int16 `x`."""
    channels, columns = weights.shape[1], sums.shape[1]
    for p in range(count):
        c = 0
        while c + 4 * LANES <= channels:
            _taps_4(x, runs, weights, sums, bases[p] + c, c, p * columns + first_column + c, channels)
            c += 4 * LANES
        while c < channels:
            _taps_1(x, runs, weights, sums, bases[p] + c, c, p * columns + first_column + c, channels)
            c += LANES


@intrinsic
def weigh(typing, sums, less, unit, places, row, first_sum, channel, channels, at):  # type: ignore[no-untyped-def]
    """A pixel's values, int64, of `LANES` channels from `channel` on: all parts of their sums, each times its unit.

    Part k of the sums begins ``places[k]`` behind the pixel's first; `less` and `unit` are those of `channels`
    channels, part after part. They are put into `row` from `at` on.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = arrays(context, builder, sig, args, 5)
        parts = builder.extract_value(context.make_array(sig.args[3])(context, builder, value=args[3]).shape, 0)
        first, channel_, channels_, at_ = args[5:]
        i64 = ir.IntType(64)
        narrow, wide = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(i64, LANES)

        def load(base: Any, place: Any, kind: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(base, [place]), kind.as_pointer()), align=4)

        entry = builder.block
        part_block, end_block = builder.append_basic_block("part"), builder.append_basic_block("end")
        builder.branch(part_block)
        builder.position_at_end(part_block)
        part, own, total = builder.phi(i64), builder.phi(i64), builder.phi(wide)
        place = builder.add(builder.add(first, channel_), builder.load(builder.gep(data[3], [part])))
        true = builder.sub(load(data[0], place, narrow), load(data[1], own, narrow))
        made = builder.add(total, builder.mul(builder.sext(true, wide), load(data[2], own, wide)))
        later, later_own = builder.add(part, i64(1)), builder.add(own, channels_)
        builder.cbranch(builder.icmp_signed("<", later, parts), part_block, end_block)
        for phi, start, after in (
            (part, i64(0), later),
            (own, channel_, later_own),
            (total, ir.Constant(wide, [0] * LANES), made),
        ):
            phi.add_incoming(start, entry)
            phi.add_incoming(after, part_block)
        builder.position_at_end(end_block)
        builder.store(made, builder.bitcast(builder.gep(data[4], [at_]), wide.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(sums, less, unit, places, row, *[types.int64] * 4), emit


def tile_chunks(vectors: int) -> list[int]:
    """Vectors of columns by register tile: the greatest tiles, but not one vector alone where two can share."""
    chunks = [MOST_VECTORS] * (vectors // MOST_VECTORS) + ([vectors % MOST_VECTORS] if vectors % MOST_VECTORS else [])
    if len(chunks) > 1 and MOST_VECTORS > 2 and chunks[-1] == 1:
        chunks[-2:] = [MOST_VECTORS - 1, 2]
    return chunks
