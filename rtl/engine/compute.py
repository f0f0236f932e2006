"""The compute unit: weight loader, addresses, array and accumulators under one sequencer."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...kernels.align import Alignment
from ...kernels.correction import INPUT_SUM_BITS
from ...kernels.mac import DIGIT_BITS
from ...sim.engine import EngineConfig
from ..mac import settled, width_of
from .accumulators import AccumulatorBank
from .address import AddressGenerator
from .array import MacArray
from .counters import COUNTER_BITS
from .format import format_layout
from .fusion_array import FusionArray
from .fusion_operands import SUB_BITS, FusionAddress, FusionOperands
from .huffman_loader import HuffmanLoader
from .loader import WeightLoader
from .pipeline import delayed, tree_stages
from .registers import address_bits, descriptor_layout
from .sequencer import ComputeSequencer, step_layout, tile_layout
from .shift_array import SHIFT_SETTINGS, ShiftArray
from .sign_array import SignArray
from .xor_loader import XorLoader

__all__ = ["ComputeUnit"]


class ComputeUnit(wiring.Component):  # type: ignore[misc]
    """Runs the convolution that the `layer` registers describe, from `start` until `busy` falls.

    Activations come from a memory of words of W digits with latency 1: `act_data` in the cycle after
    `act_read`. Weight tiles come as `words` in the order of the steps, those of a row group again for each
    of its tiles. From the read of a word to its accumulator there are ``4 + ceil(log2(L) / 2)`` cycles: read,
    operand, product, alignment, tree, accumulator; one word a cycle.

    `tile_done` is up for one cycle when a tile's last sum is in its `done_half`; `done_tile` describes it, and
    its overflow counts stand in the counters from the next cycle on where it is its row group's last.
    The drain then reads (latency 1) and gives the half back by `release`, at most `latency` cycles
    before the first cycle in which it reads no more, but not before `tile_done`; it reads pixels in rising order.
    With `formats` the widths come from `format`, up to those of the configuration; it stands still while a layer
    runs, and accumulators come sign-extended.
    `drain_input_sum` holds an input sum for every row: in a depthwise layer the row's own, otherwise the group's.
    """

    def __init__(
        self, config: EngineConfig, alignments: tuple[Alignment, ...] = ("shift", "mul"), formats: bool = False
    ) -> None:
        self.config = config
        self.alignments = alignments
        self.formats = formats
        rows = config.rows
        counters = data.ArrayLayout(COUNTER_BITS, rows)
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                **({"format": In(format_layout())} if formats else {}),
                "start": In(1),
                "busy": Out(1),
                "weight_wait": Out(1),
                "post_wait": Out(1),
                "words": In(stream.Signature(config.bus_bits)),
                **(
                    {"reader_idle": In(1), "stream_idle": Out(1), "stream_error": Out(1)}
                    if config.decoder != "raw"
                    else {}
                ),
                "act_read": Out(1),
                "act_address": Out(address_bits(config)),
                "act_data": In(data.ArrayLayout(DIGIT_BITS, config.word_digits)),
                "tile_done": Out(1),
                "done_half": Out(1),
                "done_tile": Out(tile_layout(config)),
                "release": In(2),
                "drain_half": In(1),
                "drain_pixel": In(range(config.pixels)),
                "drain_acc": Out(data.ArrayLayout(signed(config.mac.acc), rows)),
                "drain_input_sum": Out(data.ArrayLayout(signed(INPUT_SUM_BITS), rows)),
                "product_count": Out(counters),
                "align_count": Out(counters),
                "acc_count": Out(counters),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word's read to the first cycle in which its accumulator is written."""
        return 4 + tree_stages(self.config.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        m.submodules.sequencer = sequencer = ComputeSequencer(config)
        loader: WeightLoader | HuffmanLoader | XorLoader
        match config.decoder:
            case "huffman":
                loader = HuffmanLoader(config)
            case "xor":
                loader = XorLoader(config)
            case _:
                loader = WeightLoader(config)
        m.submodules.loader = loader
        m.submodules.address = address = AddressGenerator(config)
        array: MacArray | SignArray | ShiftArray
        match config.array:
            case "sign":
                array = SignArray(config)
            case "shift":
                array = ShiftArray(config)
            case "fusion":
                array = FusionArray(config, self.alignments, self.formats)
            case _:
                array = MacArray(config, self.alignments, self.formats)
        m.submodules.array = array
        m.submodules.accumulators = bank = AccumulatorBank(config, self.formats)

        connect(m, flipped(self.words), loader.words)
        m.d.comb += [
            sequencer.layer.eq(layer),
            sequencer.start.eq(self.start),
            sequencer.loaded.eq(loader.loaded),
            sequencer.release.eq(self.release),
            self.busy.eq(sequencer.busy),
            self.weight_wait.eq(sequencer.weight_wait),
            self.post_wait.eq(sequencer.post_wait),
            loader.enable.eq(sequencer.load_enable),
            loader.rows.eq(sequencer.load_rows),
            loader.depthwise.eq(layer.depthwise),
            loader.swap.eq(sequencer.swap),
            address.layer.eq(layer),
            address.start.eq(self.start),
            address.upper_digit.eq(sequencer.step.a_upper),
        ]
        for name in ("advance", "pass_end", "tile_end", "row_group_end"):
            m.d.comb += getattr(address, name).eq(getattr(sequencer, name))
        for name in ("lane", "kernel_x", "kernel_y", "first_tap", "first_word"):
            m.d.comb += getattr(address, name).eq(getattr(sequencer, name))

        # Cycle 0: the address. Cycle 1: the word, or the padding's digit in every lane; of planes a bit of each digit.
        fetched = Signal(step_layout(config))
        inside = Signal()
        digits = Signal.like(array.digits, reset_less=True)
        operand = Signal(step_layout(config))
        pad_digit = Mux(fetched.a_upper, layer.pad_code[DIGIT_BITS:], layer.pad_code[:DIGIT_BITS])
        if config.wide:
            pad_digit = layer.pad_code.word_select(fetched.a_upper, DIGIT_BITS)
        word, operands = address.address, Mux(inside, self.act_data.as_value(), pad_digit.replicate(config.lanes))
        if isinstance(array, FusionArray):
            word, operands = self._fused(m, address.address, fetched.a_signed, inside, pad_digit)
            m.d.comb += array.mode.eq(layer.mode)
        m.d.comb += [
            self.act_address.eq(word),
            self.act_read.eq(sequencer.step.valid & address.inside),
        ]
        m.d.sync += [
            fetched.eq(sequencer.step),
            inside.eq(address.inside),
            operand.eq(fetched),
        ]
        if isinstance(array, SignArray):
            read = data.View(digits.shape(), settled(m, operands))
            operands = Cat(
                Mux(layer.a_planes, digit.bit_select(fetched.a_place, 1), digit)[:DIGIT_BITS] for digit in read
            )
        m.d.sync += digits.eq(operands)

        # Cycle 2: products; then alignment and the tree.
        m.d.comb += [
            array.digits.eq(digits),
            *(codes.eq(active) for codes, active in zip(array.codes, loader.codes, strict=True)),
            array.sum_mask.eq(operand.sum_mask),
            array.a_signed.eq(operand.a_signed),
            array.depthwise.eq(layer.depthwise),
            array.diagonal.eq(operand.diagonal),
        ]
        if not isinstance(loader, XorLoader):
            m.d.comb += loader.lane_offset.eq(sequencer.load_lane_offset)
        if isinstance(loader, HuffmanLoader | XorLoader):
            m.d.comb += [
                loader.start.eq(self.start),
                loader.table_words.eq(layer.table_words),
                loader.weight_words.eq(layer.weight_words),
                loader.swap_first.eq(sequencer.swap_first),
                loader.running.eq(sequencer.busy),
                self.stream_idle.eq(self.reader_idle & loader.waits),
                # Whoever waits for weights then would wait for ever.
                self.stream_error.eq(loader.error | (self.stream_idle & self.weight_wait)),
            ]
        elif config.array != "sign":
            m.d.comb += loader.container.eq(sequencer.load_container)
        if isinstance(array, SignArray):
            m.d.comb += array.binary.eq(layer.a_signs)
        if isinstance(array, MacArray):
            m.d.comb += [
                loader.aligned.eq(layer.aligned),
                array.amounts.eq(loader.amounts),
                array.multiply.eq(layer.multiply),
                array.w_high.eq(operand.w_upper),
                array.w_signed.eq(operand.w_signed),
                bank.product_overflows.eq(array.product_overflows),
                bank.align_overflows.eq(array.align_overflows),
            ]
        elif isinstance(array, ShiftArray):
            m.d.comb += [getattr(array, name).eq(layer[name]) for name in SHIFT_SETTINGS]

        if self.formats:
            widths = {"acc": bank.width}
            if isinstance(array, MacArray):
                widths |= {"product": array.widths.product, "align": array.widths.align}
            for name, port in widths.items():
                most = getattr(config.mac, name)
                m.d.comb += port.eq(width_of(m, getattr(self.format, name), self.format.wrap, most))

        # The accumulators are told where a cycle before the sums come.
        first_weight = ~(operand.w_upper | operand.later_part) if config.wide else ~operand.w_upper
        ahead = array.latency - 1
        for name in ("valid", "half", "pixel", "first", "digit_shift"):
            m.d.comb += getattr(bank, name).eq(
                delayed(m, getattr(operand, name), ahead, name, reset_less=name != "valid")
            )
        m.d.comb += [
            bank.add_input.eq(delayed(m, first_weight, ahead, "add_input")),
            bank.row_sums.eq(array.row_sums),
            bank.input_sums.eq(array.input_sums),
            bank.close.eq(self.tile_done & self.done_tile.row_group_last),
            bank.drain_half.eq(self.drain_half),
            bank.drain_pixel.eq(self.drain_pixel),
            self.drain_acc.eq(bank.drain_acc),
            self.drain_input_sum.eq(bank.drain_input_sum),
            self.product_count.eq(bank.product_count),
            self.align_count.eq(bank.align_count),
            self.acc_count.eq(bank.acc_count),
        ]

        # A tile is done in the cycle after its last sum was added.
        m.d.comb += [
            self.tile_done.eq(delayed(m, operand.tile_end, array.latency + 1, "tile_end", reset_less=False)),
            self.done_half.eq(delayed(m, bank.half, 2, "done_half")),
            self.done_tile.eq(sequencer.tiles[self.done_half]),
        ]
        return m

    def _fused(
        self, m: Module, address: Value, a_signed: Value, inside: Value, pad_digit: Value
    ) -> tuple[Value, Value]:
        """Of a fused array: the address of the word that has a lane group, and a cycle later its PEs' operands."""
        layer = self.layer
        m.submodules.split = split = FusionAddress(self.config)
        m.submodules.operands = operands = FusionOperands(self.config)
        sub = Signal(SUB_BITS)
        m.d.sync += sub.eq(split.sub)
        m.d.comb += [
            split.address.eq(address),
            *(unit.mode.eq(layer.mode) for unit in (split, operands)),
            *(unit.narrow.eq(layer.narrow) for unit in (split, operands)),
            operands.sub.eq(sub),
            operands.a_signed.eq(a_signed),
            operands.inside.eq(inside),
            operands.pad.eq(pad_digit),
            operands.word.eq(self.act_data),
        ]
        return split.word, operands.digits.as_value()
