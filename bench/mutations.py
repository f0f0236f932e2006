"""Faults to be planted in the engine's RTL: one line each, at least one in every block.

Each text must occur exactly once in its file. The kind is what the fault must change: `digits` for what a layer
writes, `counters` for overflow counters and nothing else, `cycles` for cycle counts and nothing else, `stops` where
the engine does not come to its end, or not without an error.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["BLOCK_MUTATIONS", "MUTATIONS", "Kind", "Mutation", "engine_blocks"]

Kind = Literal["digits", "counters", "cycles", "stops"]
TOP = "rtl/engine/engine.py"
FUSION, SIGN, SHIFT = "4x4/128 fusion", "4x8/16 sign", "4x8/32 shift"
"""Engines of the other arrays."""
HUFFMAN, XOR = "4x8/32 huffman", "4x8/64 xor sign"
"""Engines of the other decoders."""
WIDE = "4x8/64 wide"
"""The engine for operands of 16 bits."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One changed line: in `file`, seen from the package, `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    kind: Kind
    description: str
    build: str = "4x4/8"
    """The engine of `sim.random_cases` that it is planted in."""

    @property
    def block(self) -> str:
        """The block that the file holds, as its path without the folder of the RTL."""
        return self.file.removeprefix("rtl/").removesuffix(".py")

    def apply(self, package: Path) -> None:
        """Change the file of a copy of the package."""
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: the text must occur once in {self.file}, not {text.count(self.old)} times")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def engine_blocks(package: Path) -> set[str]:
    """The files that hold the engine: what its top imports below its own folder, and what these take from beside it."""
    folder = (package / TOP).parent
    found, todo = set(), [package / TOP]
    while todo:
        path = todo.pop()
        name = path.relative_to(package).as_posix()
        if name in found:
            continue
        found.add(name)
        if folder in path.parents:
            todo += [file for file in _imported(path) if package / "rtl" in file.parents]
    return found


def _imported(path: Path) -> list[Path]:
    """The files of a module's own package that it imports."""
    files = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            file = path.parents[node.level - 1].joinpath(*node.module.split(".")).with_suffix(".py")
            files += [file] if file.exists() else []
    return files


MUTATIONS = (
    # The array and what feeds it.
    Mutation(
        "address-inside", "rtl/engine/address.py",
        "self.inside.eq((y < layer.in_height)", "self.inside.eq((y <= layer.in_height)",
        "digits", "a row below the image counts as part of it",
    ),
    Mutation(
        "address-planes", "rtl/engine/address.py",
        "Mux(upper, layer.plane_stride, 0)", "Mux(upper, 0, layer.plane_stride)",
        "digits", "the two digit planes are read in the wrong order",
    ),
    Mutation(
        "address-tap", "rtl/engine/address.py",
        "next_first.eq(first + layer.kernel_y_step)", "next_first.eq(tap.address + layer.kernel_y_step)",
        "digits", "the next kernel row begins from the last word of a tap, not from its first",
    ),
    Mutation(
        "input-sum-sign", "rtl/engine/input_sums.py",
        "Cat(raw, raw[-1] & self.a_signed)", "Cat(raw, raw[-1] & ~self.a_signed)",
        "digits", "the input sum reads signed digits as unsigned ones",
    ),
    Mutation(
        "array-amounts", "rtl/engine/array.py",
        "m.d.sync += [factor.eq(", "m.d.comb += [factor.eq(",
        "digits", "the amounts of the next word meet this word's products",
    ),
    Mutation(
        "rows-width", "rtl/engine/rows.py",
        "return config.mac.row_bits(config.lanes)", "return config.mac.row_bits(config.lanes) - 2",
        "digits", "a row's sum loses its two highest bits",
    ),
    Mutation(
        "row-mode", "rtl/engine/row.py",
        "m.d.sync += unsigned.eq(", "m.d.comb += unsigned.eq(",
        "digits", "the sign mode of the next word meets this word's product",
    ),
    Mutation(
        "row-flag", "rtl/engine/row.py",
        "product_lost.append(flag[1])", "product_lost.append(flag[0])",
        "counters", "the product's overflow is counted with the word before",
    ),
    Mutation(
        "multiplier-sign", "rtl/multiplier.py",
        "a_signed & w_signed, Const(0, 2)", "a_signed | w_signed, Const(0, 2)",
        "digits", "the sign correction of the digit multiplier is wrong",
    ),
    Mutation(
        "align-sign", "rtl/align.py",
        "self.product[-1] & ~self.is_unsigned)", "self.product[-1] & self.is_unsigned)",
        "digits", "sign extension dropped before the alignment",
    ),
    Mutation(
        "tree-term", "rtl/tree.py",
        "balanced_sum(terms[middle:])", "balanced_sum(terms[middle : middle + 1])",
        "digits", "the adder tree loses its last term",
    ),
    Mutation(
        "pipeline-width", "rtl/engine/pipeline.py",
        'Signal(value.shape(), name=f"{name}_{stage}_{at}"', 'Signal(len(value) - 1, name=f"{name}_{stage}_{at}"',
        "digits", "the registers of the adder tree drop the sign, and the top bit of its counts",
    ),
    Mutation(
        "accumulator-shift", "rtl/accumulator.py",
        "Cat(Const(0, DIGIT_BITS.bit_length() - 1), self.digit_shift)",
        "Cat(Const(0, DIGIT_BITS.bit_length() - 2), self.digit_shift)",
        "digits", "upper digits weigh 4 for 16",
    ),
    Mutation(
        "limit-end", "rtl/mac.py",
        "end = Mux(sign, above, ~above)", "end = Mux(sign, ~above, above)",
        "digits", "a value that is too great saturates at the least one",
    ),
    Mutation(
        "limit-wrap", "rtl/mac.py",
        "wrapped = Mux(top, exact | above, exact & ~above)", "wrapped = exact & ~above",
        "digits", "a value that wraps comes without its sign",
    ),
    Mutation(
        "accumulators-half", "rtl/engine/accumulators.py",
        "Mux(drain_half, acc_read[1], acc_read[0])", "Mux(drain_half, acc_read[0], acc_read[1])",
        "digits", "halves not swapped: the drain has the one that sums",
    ),
    Mutation(
        "accumulators-input", "rtl/engine/accumulators.py",
        "Mux(digit_shift[0], step << DIGIT_BITS, step)", "step",
        "digits", "the input sum takes upper digits for lower ones",
    ),
    Mutation(
        "counters-clear", "rtl/engine/counters.py",
        "Mux(self.close, 0, counter)", "counter",
        "counters", "overflow counters are not cleared between row groups",
    ),
    Mutation(
        "compute-padding", "rtl/engine/compute.py",
        "Mux(inside, self.act_data.as_value(), pad_digit.replicate(config.lanes))",
        "Mux(inside, self.act_data.as_value(), 0)",
        "digits", "padding is 0, not the zero point",
    ),
    Mutation(
        "compute-input-sum", "rtl/engine/compute.py",
        "delayed(m, first_weight, ahead", "delayed(m, operand.valid, ahead",
        "digits", "the input sum counts each word once for every weight digit",
    ),
    Mutation(
        "sequencer-release", "rtl/engine/sequencer.py",
        "~still_occupied.bit_select(half, 1)", "~occupied.bit_select(half, 1)",
        "cycles", "a half that is given back is seen a cycle late",
    ),
    Mutation(
        "sequencer-pass", "rtl/engine/sequencer.py",
        "(pixel >= MIN_PIXELS - 1)", "(pixel >= MIN_PIXELS)",
        "cycles", "a short digit pass takes 5 cycles, not 4",
    ),
    Mutation(
        "sequencer-first", "rtl/engine/sequencer.py",
        "(a_pass == 0) & ~w_upper, w_upper", "(a_pass == 0), w_upper",
        "digits", "the accumulators start anew with the second weight digit",
    ),
    Mutation(
        "sequencer-only-digit", "rtl/engine/sequencer.py",
        "layer.a_signed & a_last", "layer.a_signed & (a_upper == layer.a_top)",
        "digits", "the only digit of a word's activations is read without its sign",
    ),
    Mutation(
        "sequencer-word", "rtl/engine/sequencer.py",
        "word.eq(restart_word)", "word.eq(0)",
        "digits", "a convolution group has the digits of the first group's words",
    ),
    Mutation(
        "sequencer-wide", "rtl/engine/sequencer.py",
        "(word < wide_end)", "(word <= wide_end)",
        "cycles", "the word after the wide ones is read for an upper digit, too",
    ),
    Mutation(
        "sequencer-container", "rtl/engine/sequencer.py",
        "container(layer, row_group + new_rows)", "optional(layer, \"container\")",
        "stops", "the tiles of the rest are taken apart as those before",
    ),
    Mutation(
        "rest-late", "rtl/engine/registers.py",
        "(row_group >= rest_from)", "(row_group > rest_from)",
        "stops", "the first row group of the rest is none of them",
    ),
    Mutation(
        "walk-container", "rtl/engine/stream_walk.py",
        "code_container.eq(container(layer, row_group))", "code_container.eq(optional(layer, \"container\"))",
        "stops", "all row groups' tiles have as many words as if all stood in the first container",
    ),
    Mutation(
        "sequencer-serial", "rtl/engine/sequencer.py",
        "half_free.eq(Mux(layer.serial, ~still_occupied.any(),", "half_free.eq(Mux(layer.serial, 1,",
        "stops", "a serial layer computes while it drains from the same bank",
    ),
    Mutation(
        "sequencer-taper", "rtl/engine/sequencer.py",
        "(rest > layer.taper)", "(rest > layer.tile_pixels)",
        "stops", "the taper of the last row group is ignored: weights of a tile are left over",
    ),
    Mutation(
        "loader-sign", "rtl/engine/loader.py",
        "word[low : low + bits].as_signed()", "word[low : low + bits]",
        "digits", "weight codes are not sign-extended",
    ),
    Mutation(
        "loader-amounts", "rtl/engine/loader.py",
        "m.d.sync += amounts.as_value().eq(0)", "m.d.sync += amounts.eq(amounts)",
        "digits", "a stale shadow tile: amounts of an earlier layer stay",
    ),
    Mutation(
        "loader-swap", "rtl/engine/loader.py",
        "self.words.ready.eq(self.enable & (~full | self.swap))", "self.words.ready.eq(self.enable & ~full)",
        "cycles", "no word is taken in the cycle of the swap",
    ),
    # The bus, the memory and control.
    Mutation(
        "prefetch-credit", "rtl/engine/prefetch.py",
        "places.eq(places + leave - self.take)", "places.eq(places + (leave & ~self.take) - self.take)",
        "stops", "a credit is lost where a word leaves as another one is asked for",
    ),
    Mutation(
        "prefetch-depth", "rtl/engine/prefetch.py",
        "Signal(range(depth + 1), init=depth)", "Signal(range(depth + 1), init=depth - 8)",
        "cycles", "eight places of the FIFO are never used",
    ),
    Mutation(
        "reader-again", "rtl/engine/reader.py",
        "first_weight.eq(address + 1)", "first_weight.eq(address)",
        "digits", "the second tile's weights begin a word early",
    ),
    Mutation(
        "stream-taper", "rtl/engine/stream_walk.py",
        "(layer.taper != 0) & (left > layer.taper)", "(left > layer.tile_pixels)",
        "stops", "the reader ignores the taper: a tile's weights are missing",
    ),
    Mutation(
        "stream-lanes", "rtl/engine/stream_walk.py",
        "first_lane.eq(step_lanes.within(group_lanes))", "first_lane.eq(layer.in_lane)",
        "stops", "every convolution group is taken to begin in the lane of the first",
    ),
    Mutation(
        "row-groups-first", "rtl/engine/row_groups.py",
        "self.first.eq(self.first + self.rows)", "self.first.eq(self.first + limit)",
        "digits", "the row group after a short one is placed too far",
    ),
    Mutation(
        "plane-walk-last", "rtl/engine/plane_walk.py",
        "self.last.eq(self.plane_end & (self.plane == self.planes - 1))", "self.last.eq(self.plane_end)",
        "digits", "a transfer ends after its first plane",
    ),
    Mutation(
        "transfer-plane", "rtl/engine/transfer.py",
        "Array(planes[1:])[walk.plane]", "Array(planes)[walk.plane]",
        "digits", "the second plane is loaded over the first",
    ),
    Mutation(
        "gearbox-read", "rtl/engine/gearbox.py",
        "(~present | (step & word_end))", "~present",
        "cycles", "a word is stored only after the one before has left",
    ),
    Mutation(
        "gearbox-order", "rtl/engine/gearbox.py",
        "self.word.eq(Cat(lower, self.words.payload))", "self.word.eq(Cat(self.words.payload, lower))",
        "digits", "the parts of a loaded word in the wrong order",
    ),
    Mutation(
        "memory-bank", "rtl/engine/act_memory.py",
        "post_bank.eq(post_hit)", "post_bank.eq(array_hit)",
        "digits", "the post lanes get the word of the array's bank",
    ),
    Mutation(
        "control-cycles", "rtl/engine/control.py",
        "cycles.eq(1),", "cycles.eq(0),",
        "cycles", "a layer's first cycle is not counted",
    ),
    Mutation(
        "check-tile", "rtl/engine/check.py",
        "layer.tile_pixels * planes <= config.pixels", "layer.tile_pixels * planes < config.pixels",
        "stops", "a tile that fills the accumulators is refused",
    ),
    Mutation(
        "registers-sign", "rtl/engine/registers.py",
        "Shape(field.bits, field.signed)", "Shape(field.bits, False)",
        "digits", "signed registers of a layer lose their sign",
    ),
    Mutation(
        "format-align", "rtl/engine/format.py",
        '"product": 4, "align": 5, "acc": 6', '"product": 4, "align": 4, "acc": 7',
        "digits", "the aligned width is a bit short of its place",
    ),
    Mutation(
        "engine-closing", "rtl/engine/engine.py",
        "closing = compute.tile_done & compute.done_tile.row_group_last", "closing = compute.tile_done",
        "counters", "overflow counters are handed over with every tile",
    ),
    Mutation(
        "engine-address", "rtl/engine/engine.py",
        "Mux(transfer.act_write, transfer.act_address, post.write_address)",
        "Mux(transfer.act_read, transfer.act_address, post.write_address)",
        "digits", "a load writes where the post unit would",
    ),
    # The post unit.
    Mutation(
        "slots-straddle", "rtl/engine/post/slots.py",
        "~self.straddles.bit_select(self.tensor, 1)", "~self.straddles[0]",
        "digits", "the second tensor straddles words where the first does",
    ),
    Mutation(
        "slot-interval", "rtl/engine/post/sequencer.py",
        "wait.eq(layer.interval - 1)", "wait.eq(layer.interval)",
        "cycles", "slots begin a cycle too far apart",
    ),
    Mutation(
        "drain-release", "rtl/engine/post/drain.py",
        "Cat(tile_end & ~tiles.half, tile_end & tiles.half)", "Cat(tile_end & tiles.half, tile_end & ~tiles.half)",
        "stops", "the wrong half is given back",
    ),
    Mutation(
        "drain-parity", "rtl/engine/post/drain.py",
        "m.d.sync += buffer.eq(~buffer)", "m.d.sync += buffer.eq(0)",
        "digits", "every row group takes the records of the first buffer",
    ),
    Mutation(
        "fetch-rotate", "rtl/engine/post/fetch.py",
        "Cat(turn >= word_digits - lane", "Cat(turn > word_digits - lane",
        "digits", "the last lane of an operand's first word is taken from the second",
    ),
    Mutation(
        "fetch-sign", "rtl/engine/post/fetch.py",
        "Cat(code, code[-1] & has_sign)", "Cat(code, code[-1] & 0)",
        "digits", "operands are not sign-extended",
    ),
    Mutation(
        "records-buffer", "rtl/engine/post/records.py",
        "enable.eq(running & (count != BUFFERS))", "enable.eq(running & (count == 0))",
        "cycles", "only one of the record buffers is ever full",
    ),
    Mutation(
        "records-parity", "rtl/engine/post/records.py",
        "parity.eq(~parity)", "parity.eq(parity)",
        "digits", "record buffer parity: all row groups are loaded into the first buffer",
    ),
    Mutation(
        "correct-input-sum", "rtl/engine/post/correct.py",
        "product.eq(self.zero * xsum)", "product.eq(self.zero * self.xsum)",
        "digits", "the zero point meets the input sum of the next accumulator",
    ),
    Mutation(
        "requant-tie", "rtl/requant.py",
        '_is(rounding, "half_up") | ~negative', '_is(rounding, "half_up") | negative',
        "digits", "halves away from zero are rounded the other way",
    ),
    Mutation(
        "rescale-carry", "rtl/engine/post/rescale.py",
        "increment.eq(up)", "increment.eq(0)",
        "digits", "rounding carry lost",
    ),
    Mutation(
        "rescale-constant", "rtl/engine/post/rescale.py",
        "Mux(constant, 0, end >> places)", "Mux(0, 0, end >> places)",
        "digits", "a channel of 0 bits is clamped like one of all bits",
    ),
    Mutation(
        "rescale-narrow", "rtl/engine/post/rescale.py",
        "fewer.eq(early)", "fewer.eq(self.fewer)",
        "digits", "a channel is clamped to the width of the one that follows it",
    ),
    Mutation(
        "threshold-tie", "rtl/engine/post/threshold.py",
        "& (operand >= ", "& (operand > ",
        "digits", "a value that is equal to a threshold does not reach it",
    ),
    Mutation(
        "lanes-tflite", "rtl/engine/post/lanes.py",
        "clipped + main.overflow", "clipped",
        "counters", "tflite's own saturation is not counted",
    ),
    Mutation(
        "lanes-copy", "rtl/engine/post/lanes.py",
        "out[lane] - layer.copy_from", "out[lane]",
        "digits", "a copy does not take its source's zero point away",
    ),
    Mutation(
        "post-counters-last", "rtl/engine/post/counters.py",
        "Mux(counted, after, running[row])", "running[row]",
        "counters", "the last beat's overflows are lost as counters close",
    ),
    Mutation(
        "delay-wrap", "rtl/engine/post/delay.py",
        "Mux(last == self.cycles - 1, 0, last + 1)", "Mux(last == self.cycles - 2, 0, last + 1)",
        "digits", "codes under way are written a place off once the line is round",
    ),
    Mutation(
        "pool-tie", "rtl/engine/post/pool.py",
        "<< 1) + count)", "<< 1) + count - 1)",
        "digits", "the mean's halves are rounded toward zero",
    ),
    Mutation(
        "unit-padding", "rtl/engine/post/unit.py",
        "pool.inside.eq(fetch.tap_inside)", "pool.inside.eq(1)",
        "digits", "padding takes part in pooling",
    ),
    Mutation(
        "writer-mask", "rtl/engine/post/writer.py",
        "used = Cat(slots.channels > lane", "used = Cat(slots.channels >= lane",
        "digits", "a digit beside the slot's channels is written",
    ),
    # Half-words of narrow tensors.
    Mutation(
        "half-word-enables", "rtl/engine/post/writer.py",
        "Cat(bit & lower_half, bit & upper_half)", "Cat(bit, bit & upper_half)",
        "digits", "codes of an upper half-word are written into the lower one, too", FUSION,
    ),
    Mutation(
        "half-word-written", "rtl/engine/post/writer.py",
        "_half_word(m, narrow, address[0]", "_half_word(m, narrow, ~address[0]",
        "digits", "codes are written into the other half-word", FUSION,
    ),
    Mutation(
        "half-word-code", "rtl/engine/post/writer.py",
        "Mux(narrow, digit[:SLICE_BITS], digit[SLICE_BITS:])", "digit[SLICE_BITS:]",
        "digits", "the upper half of a word gets a code's upper bits", FUSION,
    ),
    Mutation(
        "half-word-tensor", "rtl/engine/post/writer.py",
        'is_narrow(layer, words.tensor, ("out", "second"))', 'is_narrow(layer, words.tensor, ("second", "out"))',
        "digits", "the result is narrow where its copy is", FUSION,
    ),
    Mutation(
        "half-word-read", "rtl/engine/post/fetch.py",
        "Mux(upper, digit[SLICE_BITS:], digit[:SLICE_BITS])", "digit[:SLICE_BITS]",
        "digits", "operands are read from the lower half-word", FUSION,
    ),
    Mutation(
        "half-word-sign", "rtl/engine/post/fetch.py",
        "(code[-1] & has_sign).replicate", "(code[-1] & 0).replicate",
        "digits", "narrow operands are not sign-extended", FUSION,
    ),
    Mutation(
        "half-word-address", "rtl/engine/post/slots.py",
        "Mux(narrow, address >> 1, address)", "address",
        "digits", "a half-word's address is taken for its word's", FUSION,
    ),
    Mutation(
        "memory-enable", "rtl/engine/act_memory.py",
        "Mux(write_hit[bank], self.write_mask, 0)", "Mux(write_hit[bank], self.write_mask | self.write_mask << 1, 0)",
        "digits", "the half digit above an enabled one is written", FUSION,
    ),
    Mutation(
        "engine-load-enables", "rtl/engine/engine.py",
        "transfer.act_write.replicate(self.config.word_enables)",
        "transfer.act_write.replicate(self.config.word_digits)",
        "digits", "a load writes the lower half of a word", FUSION,
    ),
    # The sign array, planes and their coefficients.
    Mutation(
        "sign-negated", "rtl/sign.py",
        "self.bits[lane] ^ (digit[0] | ~self.binary)", "self.bits[lane] ^ (digit[0] & self.binary)",
        "digits", "a bit of 1 subtracts, and 0 adds", SIGN,
    ),
    Mutation(
        "sign-mask", "rtl/sign.py",
        "(digit[0] | self.binary) & mask", "(digit[0] | self.binary)",
        "digits", "the lowest bit of a digit counts in lanes outside of the mask", SIGN,
    ),
    Mutation(
        "sign-extension", "rtl/sign.py",
        "digit[-1] & upper & self.a_signed", "digit[-1] & upper",
        "digits", "unsigned digits are read as signed ones", SIGN,
    ),
    Mutation(
        "sign-carry", "rtl/sign.py",
        "return terms[0] + carries[0]", "return terms[0]",
        "digits", "the one that completes the last lane's negative is lost", SIGN,
    ),
    Mutation(
        "sign-carries", "rtl/sign.py",
        "Cat(Const(1, 1), lower)", "Cat(Const(0, 1), lower)",
        "digits", "the adders' carry inputs are ignored", SIGN,
    ),
    Mutation(
        "sign-array-own", "rtl/engine/sign_array.py",
        "Mux(self.depthwise, own, self.sum_mask)", "self.sum_mask",
        "digits", "rows of a depthwise layer add all lanes", SIGN,
    ),
    Mutation(
        "sign-array-diagonal", "rtl/engine/sign_array.py",
        "<< (self.diagonal * size)", "<< (self.diagonal * 0)",
        "digits", "every row group of a depthwise layer takes the first lanes of a word", SIGN,
    ),
    Mutation(
        "sign-array-mask", "rtl/engine/sign_array.py",
        "Mux(self.depthwise, own, self.sum_mask)", "Mux(self.depthwise, own, self.sum_mask | own)",
        "digits", "a row adds its own lane, whether it is the group's or not", SIGN,
    ),
    Mutation(
        "sign-array-signed", "rtl/engine/sign_array.py",
        "row.a_signed.eq(self.a_signed)", "row.a_signed.eq(0)",
        "digits", "rows read signed digits as unsigned ones", SIGN,
    ),
    Mutation(
        "sign-array-rows", "rtl/engine/sign_array.py",
        "row.bits.eq(self.codes[at])", "row.bits.eq(self.codes[at ^ 1])",
        "digits", "two rows have each other's weights", SIGN,
    ),
    Mutation(
        "sequencer-planes", "rtl/engine/sequencer.py",
        "plane_pixel + layer.tile_pixels", "plane_pixel + n",
        "digits", "the planes of a short tile lie closer than the drain reads them", SIGN,
    ),
    Mutation(
        "sequencer-plane-first", "rtl/engine/sequencer.py",
        "tap_first & (layer.a_planes", "tile_first & (layer.a_planes",
        "digits", "only the first plane's accumulators start from zero", SIGN,
    ),
    Mutation(
        "loader-code", "rtl/engine/loader.py",
        "low = place * bits % bus", "low = (place ^ 1) * bits % bus",
        "digits", "two neighbours in a row are taken for each other", SIGN,
    ),
    Mutation(
        "planes-coefficient", "rtl/planes.py",
        "product.eq(self.coef * acc)", "product.eq(self.coef * self.acc)",
        "digits", "a coefficient meets the accumulator of the next plane", SIGN,
    ),
    Mutation(
        "planes-input-sum", "rtl/planes.py",
        "offset.eq(self.zero * xsum)", "offset.eq(self.zero * self.xsum)",
        "digits", "the zero point meets what lies beside the second plane, not the input sum", SIGN,
    ),
    Mutation(
        "planes-first", "rtl/planes.py",
        "Mux(first[1], bias - offset, total)", "Mux(first[0], bias - offset, total)",
        "digits", "the constants are added with the second plane, and those before it forgotten", SIGN,
    ),
    Mutation(
        "planes-total", "rtl/planes.py",
        "total.eq(exact)", "total.eq(product)",
        "digits", "of all planes but the last one only one counts", SIGN,
    ),
    Mutation(
        "planes-overflow", "rtl/planes.py",
        "overflow.eq(lost & ends)", "overflow.eq(lost & ~ends)",
        "counters", "a sum that does not fit is counted for the planes before the last", SIGN,
    ),
    Mutation(
        "drain-planes", "rtl/engine/post/drain.py",
        "plane_pixel + layer.tile_pixels", "plane_pixel + 1",
        "digits", "the next plane is read from the next pixel", SIGN,
    ),
    Mutation(
        "drain-plane", "rtl/engine/post/drain.py",
        "self.plane.eq(plane)", "self.plane.eq(0)",
        "digits", "all planes are weighed with the first one's coefficient", SIGN,
    ),
    Mutation(
        "drain-plane-last", "rtl/engine/post/drain.py",
        "self.plane_last.eq(plane_last)", "self.plane_last.eq(1)",
        "digits", "every plane ends a value", SIGN,
    ),
    Mutation(
        "lanes-plane", "rtl/engine/post/lanes.py",
        'delayed(m, self.beat_plane[: ceil_log2(COEFFICIENTS_IN_FIELD)], 1, "plane")', "self.beat_plane[:2]",
        "digits", "a plane has the coefficient of the one that comes next", SIGN,
    ),
    Mutation(
        "lanes-coefficients", "rtl/engine/post/lanes.py",
        "self.beat_plane >> ceil_log2(COEFFICIENTS_IN_FIELD)", "0",
        "digits", "the first four coefficients for all others", SIGN,
    ),
    Mutation(
        "records-coefficients", "rtl/engine/post/records.py",
        "(layer.plane_top >> ceil_log2(COEFFICIENTS_IN_FIELD))", "((layer.plane_top - 1) >> 2)",
        "stops", "the second field of five planes' coefficients is not expected", SIGN,
    ),
    Mutation(
        "stream-coefficients", "rtl/engine/stream_walk.py",
        "1 + (layer.plane_top >> 2) if", "1 if",
        "stops", "records are read without the second field of coefficients", SIGN,
    ),
    # Activation planes: pairs, and the table that makes them.
    Mutation(
        "pairs-passes", "rtl/engine/sequencer.py",
        "self.pass_end & (a_last | layer.a_planes)", "self.pass_end & a_last",
        "digits", "all planes of an activation share their accumulators", SIGN,
    ),
    Mutation(
        "pairs-first", "rtl/engine/sequencer.py",
        "tap_first & (layer.a_planes | (a_pass == 0))", "tap_first & (a_pass == 0)",
        "digits", "only the first activation plane's accumulators start from zero", SIGN,
    ),
    Mutation(
        "pairs-digit", "rtl/engine/sequencer.py",
        "Mux(layer.a_planes, a_pass[ceil_log2(DIGIT_BITS)], a_pass[0])", "a_pass[0]",
        "digits", "every other plane is sought in the upper digit", SIGN,
    ),
    Mutation(
        "pairs-shift", "rtl/engine/sequencer.py",
        "a_upper & ~layer.a_planes", "a_upper",
        "digits", "planes of the upper digit count sixteen times", SIGN,
    ),
    Mutation(
        "pairs-reset", "rtl/engine/sequencer.py",
        "Mux(a_last & last_part, 0, plane_pixel", "Mux(last_part, 0, plane_pixel",
        "digits", "the last part's passes all add to the first pair", SIGN,
    ),
    Mutation(
        "pairs-place", "rtl/engine/compute.py",
        "fetched.a_place", "sequencer.step.a_place",
        "digits", "a word's bit is that of the pass after it", SIGN,
    ),
    Mutation(
        "pairs-bit", "rtl/engine/compute.py",
        "Mux(layer.a_planes, digit.bit_select(fetched.a_place, 1), digit)", "digit",
        "digits", "planes are read as digits", SIGN,
    ),
    Mutation(
        "pairs-binary", "rtl/engine/compute.py",
        "array.binary.eq(layer.a_signs)", "array.binary.eq(0)",
        "digits", "a plane of signs is one of 0 and 1", SIGN,
    ),
    Mutation(
        "pairs-row", "rtl/engine/sign_array.py",
        "row.binary.eq(self.binary)", "row.binary.eq(self.binary & ~self.depthwise)",
        "digits", "the rows of a depthwise layer take signs for 0 and 1", SIGN,
    ),
    Mutation(
        "pairs-drain", "rtl/engine/post/drain.py",
        "plane == layer.plane_top if", "plane == layer.part_top if",
        "digits", "only as many pairs drain as the weights have planes", SIGN,
    ),
    Mutation(
        "pairs-coefficients", "rtl/engine/post/records.py",
        "Cat((count - 1 - write.slot)[: ceil_log2(count)], index)", "Cat((count - 1 - write.slot)[:2], index)",
        "digits", "coefficients beyond the sixteenth are written over the first", SIGN,
    ),
    Mutation(
        "table-out", "rtl/engine/post/lanes.py",
        "Mux(layer.out_table, table.word, first_code)", "first_code",
        "digits", "counts of thresholds are written for their words", SIGN,
    ),
    Mutation(
        "table-second", "rtl/engine/post/lanes.py",
        "Mux(layer.second_table, table.word, second_code)", "second_code",
        "digits", "counts of a copy are written for their words", SIGN,
    ),
    Mutation(
        "table-count", "rtl/engine/post/lanes.py",
        "Mux(layer.second_table, second_code, first_code)", "first_code",
        "digits", "a copy is the words of the tensor beside it", SIGN,
    ),
    Mutation(
        "table-entry", "rtl/planes.py",
        "for at in range(TABLE_ENTRIES))[self.count]", "for at in range(TABLE_ENTRIES))[self.count[:3]]",
        "digits", "counts of eight and more begin the table anew", SIGN,
    ),
    # The fused array.
    Mutation(
        "fusion-brick", "rtl/fusion.py",
        "Mux(narrow_a, Mux(narrow_w, w[1], w[3]), w[0])", "Mux(narrow_a, w[1], w[0])",
        "digits", "the second lane of narrow activations has a slice of the first one's weight", FUSION,
    ),
    Mutation(
        "fusion-correction", "rtl/fusion.py",
        "added += (2 * a + 2 * w + 4 * (a ^ w)) << brick.shift", "added += (2 * a + 2 * w) << brick.shift",
        "digits", "a brick with one sign is taken for one with none or two", FUSION,
    ),
    Mutation(
        "fusion-narrow-aligned", "rtl/fusion.py",
        'Mux(narrow, 0 if kind == "shift" else 1, self.factors[lane])', "0",
        "digits", "every product is aligned by nothing, or by 0", FUSION,
    ),
    Mutation(
        "fusion-narrow-limited", "rtl/fusion.py",
        "overflow = lost & ~narrow", "overflow = lost",
        "counters", "exact sums of narrow products count as overflows", FUSION,
    ),
    Mutation(
        "fusion-array-mode", "rtl/engine/fusion_array.py",
        "row.mode.eq(self.mode)", "row.mode.eq(self.mode & 1)",
        "digits", "rows read weights of 2 bits as if they had 4", FUSION,
    ),
    Mutation(
        "fusion-array-sums", "rtl/engine/fusion_array.py",
        '(*MacArray._sum_ports, "mode")', "MacArray._sum_ports",
        "digits", "input sums take every PE for one lane", FUSION,
    ),
    Mutation(
        "fusion-sum-masks", "rtl/engine/input_sums.py",
        "mode.channels(self.config.lanes)[pe]", "mode.channels(self.config.lanes)[0]",
        "digits", "every PE is masked as the first one is", FUSION,
    ),
    Mutation(
        "fusion-sum-codes", "rtl/engine/input_sums.py",
        "Mux(self.mode[0], apart, ", "Mux(0, apart, ",
        "digits", "input sums take two codes of 2 bits for one digit", FUSION,
    ),
    Mutation(
        "fusion-sub-word", "rtl/engine/fusion_operands.py",
        "twos = settled(m, (self.narrow & self.mode.xor()) | ", "twos = settled(m, ",
        "digits", "narrow words are taken for one lane group of 2 L lanes", FUSION,
    ),
    Mutation(
        "fusion-upper-half", "rtl/engine/fusion_operands.py",
        "upper_half.eq(Mux(two_lanes, self.sub[0], self.sub[1]))", "upper_half.eq(self.sub[0])",
        "digits", "lane groups of L narrow codes take turns between the halves", FUSION,
    ),
    Mutation(
        "fusion-extended", "rtl/engine/fusion_operands.py",
        "extends.eq(self.narrow & single)", "extends.eq(0)",
        "digits", "a code of 2 bits in 4x4 has its neighbour for a sign", FUSION,
    ),
    Mutation(
        "fusion-padding", "rtl/engine/fusion_operands.py",
        "Mux(narrow_a, self.pad[:SLICE_BITS].replicate(4), self.pad.replicate(2))", "self.pad.replicate(2)",
        "digits", "every other narrow lane has the sign of the zero point for padding", FUSION,
    ),
    Mutation(
        "fusion-lane-groups", "rtl/engine/registers.py",
        "return groups if self.more is None else groups >> self.more", "return groups",
        "stops", "a pixel has lane groups of L channels in every mode", FUSION,
    ),
    # The shift array.
    Mutation(
        "shift-negative", "rtl/shift.py",
        "_negated(m, digit, negative)", "digit",
        "digits", "negative powers of two are positive", SHIFT,
    ),
    Mutation(
        "shift-zero", "rtl/shift.py",
        "Mux(odd ^ negative, ", "Mux(odd | negative, ",
        "digits", "a pruned weight shifts", SHIFT,
    ),
    Mutation(
        "shift-pruned", "rtl/shift.py",
        "settled(m, ~(odd & negative))", "settled(m, ~odd | negative)",
        "digits", "the component of a pruned weight counts", SHIFT,
    ),
    Mutation(
        "shift-plus", "rtl/shift.py",
        "Mux(counted & component, digit, 0)", "Mux(counted & ~component, digit, 0)",
        "digits", "the plus component takes the other one's digits", SHIFT,
    ),
    Mutation(
        "shift-value", "rtl/shift.py",
        "Mux(self.focused, self.value_shift, 0)", "0 * self.value_shift",
        "digits", "the shifted sum is not brought to the components' unit", SHIFT,
    ),
    Mutation(
        "shift-carry", "rtl/shift.py",
        "(inverted + negative)[: len(value)]", "inverted[: len(value)]",
        "digits", "a negative is a complement, without its one", SHIFT,
    ),
    Mutation(
        "shift-array-state", "rtl/engine/shift_array.py",
        "Cat(exponent, ~code[:2], self.focused & code[2])", "Cat(exponent, code[:2], self.focused & code[2])",
        "digits", "the state is taken as it streams: pruned for zero, minus for plus", SHIFT,
    ),
    Mutation(
        "shift-array-component", "rtl/engine/shift_array.py",
        "self.focused & code[2])", "0 * code[2])",
        "digits", "every weight has the minus component", SHIFT,
    ),
    Mutation(
        "shift-array-exponent", "rtl/engine/shift_array.py",
        "code[3 : 3 + SHIFT_BITS], code[2 : 2 + SHIFT_BITS]", "code[2 : 2 + SHIFT_BITS], code[2 : 2 + SHIFT_BITS]",
        "digits", "a focused exponent begins at the component", SHIFT,
    ),
    Mutation(
        "shift-array-signed", "rtl/engine/shift_array.py",
        "row.a_signed.eq(self.a_signed)", "row.a_signed.eq(0)",
        "digits", "rows read signed digits as unsigned ones", SHIFT,
    ),
    Mutation(
        "shift-array-sums", "rtl/engine/shift_array.py",
        'for name in ("digits", "sum_mask", "a_signed", "depthwise", "diagonal")',
        'for name in ("digits", "sum_mask", "a_signed", "depthwise")',
        "digits", "every row group of a depthwise layer sums the inputs of the first one's lanes", SHIFT,
    ),
    Mutation(
        "rows-shift", "rtl/engine/rows.py",
        "return ShiftRow(config.lanes).out_bits", "return ShiftRow(config.lanes).out_bits - 8",
        "digits", "a row's sum loses its eight highest bits", SHIFT,
    ),
    Mutation(
        "compute-parts", "rtl/engine/sequencer.py",
        "w_upper if config.wide else w_upper | (part != 0)", "w_upper",
        "digits", "the input sum counts each word once for every part", SHIFT,
    ),
    Mutation(
        "stream-parts", "rtl/engine/stream_walk.py",
        'part_end.eq(part == optional(layer, "part_top"))', "part_end.eq(1)",
        "stops", "the reader goes on after a weight's first part", SHIFT,
    ),
    Mutation(
        "sequencer-parts", "rtl/engine/sequencer.py",
        "m.d.sync += part.eq(Mux(last_part, 0, part + 1))", "m.d.sync += part.eq(part + 1)",
        "stops", "the parts of the next word are counted on", SHIFT,
    ),
    # Operands of 16 bits.
    Mutation(
        "wide-planes", "rtl/engine/address.py",
        "Mux(self.upper_digit[1], layer.pair_stride, 0)", "Mux(self.upper_digit[0], layer.pair_stride, 0)",
        "digits", "the digit planes are read in another order", WIDE,
    ),
    Mutation(
        "wide-padding", "rtl/engine/compute.py",
        "layer.pad_code.word_select(fetched.a_upper, DIGIT_BITS)",
        "layer.pad_code.word_select(fetched.a_upper[0], DIGIT_BITS)",
        "digits", "padding has its lower two digits twice", WIDE,
    ),
    Mutation(
        "wide-sums", "rtl/engine/compute.py",
        "~(operand.w_upper | operand.later_part)", "~operand.w_upper",
        "digits", "the input sum counts each word once for every byte of a weight", WIDE,
    ),
    Mutation(
        "wide-first", "rtl/engine/sequencer.py",
        "tile_first & (a_pass == 0) & ~w_upper", "tile_first & ~w_upper",
        "digits", "the accumulators start anew with each activation digit", WIDE,
    ),
    Mutation(
        "wide-sign", "rtl/engine/sequencer.py",
        "w_signed & last_part, digit_shift", "w_signed, digit_shift",
        "digits", "the lower byte of a weight is signed", WIDE,
    ),
    Mutation(
        "wide-part", "rtl/engine/sequencer.py",
        "digit_shift + (part << 1)", "digit_shift + part",
        "digits", "the upper byte weighs 16 for 256", WIDE,
    ),
    Mutation(
        "wide-digit", "rtl/engine/sequencer.py",
        "Mux(a_last, 0, a_pass + 1)", "Mux(a_last, 0, a_pass ^ 1)",
        "stops", "the activation's upper two digits are never reached", WIDE,
    ),
    Mutation(
        "wide-shift", "rtl/engine/accumulators.py",
        "most = WIDE_DIGIT_SHIFT if", "most = 1 if",
        "digits", "row sums lose their highest bits in the upper places", WIDE,
    ),
    Mutation(
        "wide-input-sum", "rtl/engine/accumulators.py",
        "Mux(digit_shift[1], placed << 2 * DIGIT_BITS, placed)", "placed",
        "digits", "the input sum takes the upper two digits for the lower two", WIDE,
    ),
    # Decoders.
    Mutation(
        "chunks-place", "rtl/engine/chunks.py",
        "words.ready.eq(take & (place == per_word - 1))", "words.ready.eq(take)",
        "stops", "a word is taken with each of its chunks", XOR,
    ),
    Mutation(
        "huffman-offsets", "rtl/huffman.py",
        "_chosen(match, list(self.offsets))", "_chosen(match, list(self.offsets)[::-1])",
        "digits", "a code word finds the symbols of another length", HUFFMAN,
    ),
    Mutation(
        "huffman-lane", "rtl/engine/huffman_loader.py",
        "Mux(alone & (diagonal != lane), 0, own[row])", "own[row]",
        "digits", "the codes of a depthwise layer stand in every lane", HUFFMAN,
    ),
    Mutation(
        "huffman-amounts", "rtl/engine/huffman_loader.py",
        "amounts[lane].eq(Mux(self.aligned, symbols[0], 0))", "amounts[lane].eq(symbols[0])",
        "digits", "the codes of row 0 align a layer that is not aligned", HUFFMAN,
    ),
    Mutation(
        "huffman-rows", "rtl/engine/huffman_loader.py",
        "Mux(self.aligned, after, before)", "before",
        "digits", "the amounts of an aligned layer are the codes of row 0", HUFFMAN,
    ),
    Mutation(
        "huffman-first", "rtl/engine/huffman_loader.py",
        "[state.eq(State.RUN), pass_first.eq(1)]", "[state.eq(State.RUN), pass_first.eq(0)]",
        "stops", "no tile counts as the first one of its stream", HUFFMAN,
    ),
    Mutation(
        "huffman-enable", "rtl/engine/huffman_loader.py",
        "bank.o.ready.eq(self.enable & (~full | self.swap))", "bank.o.ready.eq(self.enable & ~full)",
        "cycles", "a tile's first codes are taken a cycle after the swap", HUFFMAN,
    ),
    Mutation(
        "xor-take", "rtl/xor_stream.py",
        "pool.eq(Mux(emit, merged >> take, merged))", "pool.eq(merged)",
        "digits", "bits of a row are given again to the next one", XOR,
    ),
    Mutation(
        "xor-skip", "rtl/xor_stream.py",
        "Mux(fresh, vector >> run.skip, vector)", "vector",
        "digits", "a run begins with its slice, not within it", XOR,
    ),
    Mutation(
        "xor-lane", "rtl/engine/xor_loader.py",
        "placed.eq(bits << lane)", "placed.eq(bits)",
        "digits", "every row's signs begin in lane 0", XOR,
    ),
    Mutation(
        "xor-shadow", "rtl/engine/xor_loader.py",
        "(shadow & ~reached) | (placed & reached)", "shadow | (placed & reached)",
        "digits", "signs of the tile before stay where they were 1", XOR,
    ),
)  # fmt: skip
"""In the order of the blocks that a word passes."""

STATISTICS = "statistics"
BLOCK_MUTATIONS = (
    Mutation(
        "statistics-round", "rtl/statistics.py",
        "[: len(self.reciprocal_shift)]) + 1) >> 1", "[: len(self.reciprocal_shift)]) + 0) >> 1",
        "digits", "a sum over its count is rounded down", STATISTICS,
    ),
    Mutation(
        "statistics-first", "rtl/statistics.py",
        "Mux(self.first, 0, self.total) + term", "self.total + term",
        "digits", "a pass goes on with the sum of the one before", STATISTICS,
    ),
    Mutation(
        "statistics-distance", "rtl/statistics.py",
        "Mux(distance < 0, -distance, distance)", "distance",
        "digits", "distances from the mean keep their sign", STATISTICS,
    ),
    Mutation(
        "statistics-least", "rtl/statistics.py",
        "(value < self.least)", "(value > self.least)",
        "digits", "the offset stops at the greatest value, not at the least", STATISTICS,
    ),
    Mutation(
        "statistics-relu", "rtl/statistics.py",
        "Mux(result.mean < 0, 0, result.mean) + alpha", "result.mean + alpha",
        "digits", "a negative mean narrows the range behind a ReLU", STATISTICS,
    ),
    Mutation(
        "statistics-floor", "rtl/statistics.py",
        "span >> LEVEL_BITS == 0", "span == 0",
        "digits", "a range of fewer steps than the greatest code is not widened", STATISTICS,
    ),
    Mutation(
        "statistics-full", "rtl/statistics.py",
        "with m.If(~result.multiplier[-1]):", "with m.If(~result.multiplier[-2]):",
        "digits", "the quotient stops a bit short of the multiplier's width", STATISTICS,
    ),
    Mutation(
        "statistics-steps", "rtl/statistics.py",
        "left.eq(parameters.divide_steps - 1)", "left.eq(parameters.divide_steps)",
        "cycles", "the division takes a step too many", STATISTICS,
    ),
    Mutation(
        "statistics-root", "rtl/statistics.py",
        "grown - Cat(1, 0, result.deviation)", "grown - Cat(0, 1, result.deviation)",
        "digits", "the square root tries twice the next bit", STATISTICS,
    ),
    Mutation(
        "statistics-variance", "rtl/statistics.py",
        "Mux(variance < 0, 0, variance)", "variance",
        "digits", "a variance below 0 is a great one", STATISTICS,
    ),
)  # fmt: skip
"""Of blocks that no engine has: `build` is the block's name, and its benches must see them."""
