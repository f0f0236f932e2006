"""The sequencer of a layer's compute: row groups, tiles, steps, digit pairs and pixels, in this order."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...kernels.mac import DIGIT_BITS
from ...sim.descriptor import PART_BITS, PIXEL_BITS, SIZE_BITS
from ...sim.engine import EngineConfig
from ...sim.tile_times import MIN_PIXELS
from ..mac import settled
from .accumulators import digit_bits, pair_shift_bits
from .address import first_word_bits
from .loader import diagonals
from .registers import StepLanes, container, descriptor_layout, in_rest, optional

__all__ = ["ComputeSequencer", "step_layout", "tile_layout"]


def step_layout(config: EngineConfig) -> data.StructLayout:
    """What one activation word is for; `tile_end` marks the last cycle of a tile, with a word or without.

    `a_upper` is the number of the activation digit, `w_upper` that of the weight's; in a wide engine `later_part` says
    that it is of a part behind the first.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "half": 1,
            "pixel": range(config.pixels),
            "first": 1,
            "a_upper": digit_bits(config),
            "w_upper": 1,
            **({"later_part": 1} if config.wide else {}),
            "a_signed": 1,
            **({"a_place": range(DIGIT_BITS)} if config.array == "sign" else {}),
            "w_signed": 1,
            "digit_shift": pair_shift_bits(config),
            "sum_mask": config.most_lanes,
            "diagonal": range(diagonals(config)),
            "tile_end": 1,
        }
    )


def tile_layout(config: EngineConfig) -> data.StructLayout:
    """A tile as the drain needs it: pixels, used rows, row group (counted over the layer), what it ends."""
    return data.StructLayout(
        {
            "pixels": range(config.pixels + 1),
            "rows": range(config.rows + 1),
            "row_group": SIZE_BITS,
            "row_group_last": 1,
            "layer_last": 1,
        }
    )


class ComputeSequencer(wiring.Component):  # type: ignore[misc]
    """Issues the reads of one layer, a pixel a cycle, and swaps the weight tiles as they run.

    `start`, while `busy` is low, begins the layer that the registers hold. A digit pass over n pixels
    takes ``max(n, 4)`` cycles, a step ``max(d * max(n, 4), load of the next weight tile)``: a step starts
    when the passes before it are through and its weights are `loaded`, and the first step of a tile also waits
    until its half of the accumulators is empty, in a `serial` layer until both are: `release` gives each half back,
    in the very cycle. `swap` comes one cycle after the step's first read, with
    `swap_first` where it is the first one of its tile of pixels. `weight_wait` and `post_wait` say why
    nothing is issued.

    A layer of mixed widths has activations with an upper digit in the words from `wide_first` to `wide_end` of a pixel
    alone, counted from that of its first input, and weights with one up to row group `rest_from` alone: where they have
    none the only digit carries the sign, and d is less.

    Where weights come in parts, each part has a weight tile of its own and is a step: the parts of a word follow each
    other. `step.w_upper` says that a weight's first digit, or part, was there before; in a wide engine, whose parts
    are bytes of two digits, the part's first digit. Where activations are planes (`a_planes`), a step makes a pass for
    each of them, whose bit of the digit is `step.a_place`; each pass of each part has accumulators of its own,
    `tile_pixels` beyond the pass before.

    A tile has `tile_pixels` pixels while there are more; what is left then is one tile, or, in the last row group, as
    long as it is more than `taper` (and that is not 0), half of what is left, rounded up.

    A convolution group's channels follow those of the one before it, from `in_lane` of the pixel's first word on; its
    lane groups are the words in which they lie, and `sum_mask` its lanes in the word. The row groups of a depthwise
    layer have one word each; `diagonal` says which lane is row 0's, in units of min(R, L) lanes.

    What the loader is told (`load_*`) describes the tile that is on its way: the next step's, and the
    waiting step's own. `tiles` describes the last tile begun in each half.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        strobes = ("advance", "pass_end", "tile_end", "row_group_end", "lane", "kernel_x", "kernel_y")
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "loaded": In(1),
                "release": In(2),
                "load_enable": Out(1),
                "load_rows": Out(range(config.rows + 1)),
                "load_container": Out(2),
                "load_lane_offset": Out(range(config.lanes)),
                "swap": Out(1),
                "swap_first": Out(1),
                **{name: Out(1) for name in (*strobes, "first_tap")},
                "first_word": Out(first_word_bits(config)),
                "step": Out(step_layout(config)),
                "tiles": Out(data.ArrayLayout(tile_layout(config), 2)),
                "busy": Out(1),
                "weight_wait": Out(1),
                "post_wait": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        rows, lanes = config.rows, StepLanes(config, layer)
        diagonal = min(rows, lanes.lanes)

        # Where the layer stands.
        running, waiting, tile_first, half = Signal(), Signal(), Signal(), Signal()
        pixel = Signal(range(max(config.pixels, MIN_PIXELS)))
        a_pass, w_upper = Signal.like(layer.a_top, name="a_pass"), Signal()
        part, last_part = Signal(PART_BITS), Signal()
        # Planes have accumulators of their own: where those of this part begin, and whether they are still empty.
        plane_pixel, tap_first = Signal(range(config.pixels)), Signal()
        planes = config.array == "sign"
        # Four planes stand in a digit.
        a_upper = settled(m, Mux(layer.a_planes, a_pass[ceil_log2(DIGIT_BITS)], a_pass[0])) if planes else a_pass
        kernel_y, kernel_x = Signal(SIZE_BITS), Signal(SIZE_BITS)
        outputs_left, groups_left = Signal(SIZE_BITS), Signal(SIZE_BITS)
        pixels_left = Signal(PIXEL_BITS)
        row_group, word = Signal(SIZE_BITS), Signal(SIZE_BITS + 1)
        occupied = Signal(2)
        # Where the channels of this convolution group (of this row group, if depthwise) begin: word and lane; those of
        # the tile that comes next.
        begin, next_begin = Signal(SIZE_BITS + 1), Signal(SIZE_BITS + 1)
        group_lanes = Mux(layer.depthwise, diagonal, layer.group_inputs)
        # The lanes of the group from this word's lane 0 on, and where in this word they begin.
        word_end, word_begin = Signal(SIZE_BITS + 1), Signal(range(lanes.most))

        # Which digits this step has: of its word's activations and its row group's weights.
        a_top, w_top, wide, a_last = Signal.like(layer.a_top, name="a_top"), Signal(), Signal(), Signal()
        wide_end = optional(layer, "wide_end")
        m.d.comb += [
            wide.eq((wide_end == 0) | ((word >= optional(layer, "wide_first")) & (word < wide_end))),
            a_top.eq(Mux(wide, layer.a_top, 0)),
            a_last.eq(a_pass == a_top),
            w_top.eq(optional(layer, "w_top") & ~in_rest(layer, row_group)),
        ]

        # What this step is.
        n, rest = Signal(range(config.pixels + 1)), Signal(range(config.pixels + 1))
        used_rows, next_rows, row_limit = (Signal(range(rows + 1)) for _ in range(3))
        next_outputs = Signal(SIZE_BITS)
        last_word, last_tap, last_tile, last_of_group, last_row_group = (Signal() for _ in range(5))
        m.d.comb += [
            rest.eq(pixels_left),
            n.eq(
                Mux(
                    pixels_left > layer.tile_pixels,
                    layer.tile_pixels,
                    Mux(last_row_group & (layer.taper != 0) & (rest > layer.taper), (rest + 1) >> 1, rest),
                )
            ),
            row_limit.eq(Mux(layer.depthwise, diagonal, rows)),
            used_rows.eq(Mux(outputs_left < row_limit, outputs_left, row_limit)),
            last_of_group.eq(outputs_left == used_rows),
            next_outputs.eq(Mux(last_of_group, layer.group_outputs, outputs_left - used_rows)),
            next_rows.eq(Mux(next_outputs < row_limit, next_outputs, row_limit)),
            last_word.eq(layer.depthwise | (word_end <= lanes.count)),
            last_part.eq(part == optional(layer, "part_top")),
            last_tap.eq((kernel_y == layer.kernel_y - 1) & (kernel_x == layer.kernel_x - 1) & last_word & last_part),
            last_tile.eq(pixels_left == n),
            last_row_group.eq(last_of_group & (groups_left == 1)),
            next_begin.eq(begin + Mux(last_tile & (layer.depthwise | last_of_group), group_lanes, 0)),
        ]

        # Whether it starts or goes on.
        go, issue, half_free = Signal(), Signal(), Signal()
        still_occupied = Signal(2)
        m.d.comb += [
            still_occupied.eq(occupied & ~self.release),
            half_free.eq(Mux(layer.serial, ~still_occupied.any(), ~still_occupied.bit_select(half, 1))),
            go.eq(running & waiting & self.loaded & (~tile_first | half_free)),
            issue.eq(running & (~waiting | go)),
            self.busy.eq(running),
            self.weight_wait.eq(running & waiting & ~self.loaded),
            self.post_wait.eq(running & waiting & self.loaded & ~go),
        ]
        m.d.sync += [
            self.swap.eq(go),
            self.swap_first.eq(tile_first),
            occupied.eq(still_occupied | ((go & tile_first) << half)),
        ]
        with m.If(go & tile_first):
            tile = self.tiles[half]
            m.d.sync += [
                tile.pixels.eq(n),
                tile.rows.eq(used_rows),
                tile.row_group.eq(row_group),
                tile.row_group_last.eq(last_tile),
                tile.layer_last.eq(last_tile & last_row_group),
            ]

        # Where it ends.
        step_end = Signal()
        m.d.comb += [
            self.advance.eq(issue & (pixel < n)),
            self.pass_end.eq(issue & (pixel + 1 >= n) & (pixel >= MIN_PIXELS - 1)),
            step_end.eq(self.pass_end & a_last & (w_upper == w_top)),
            self.tile_end.eq(step_end & last_tap),
            self.row_group_end.eq(self.tile_end & last_tile),
            self.first_tap.eq(self.tile_end),
            self.first_word.eq(lanes.groups(next_begin)),
        ]
        with m.If(step_end & ~last_tap & last_part):
            with m.If(~last_word):
                m.d.comb += self.lane.eq(1)
            with m.Elif(kernel_x != layer.kernel_x - 1):
                m.d.comb += self.kernel_x.eq(1)
            with m.Else():
                m.d.comb += self.kernel_y.eq(1)

        # What comes next.
        restart, restart_word = Mux(self.tile_end, next_begin, begin), Signal.like(word)
        m.d.comb += restart_word.eq(lanes.groups(restart))
        restart = lanes.within(restart)
        with m.If(issue):
            m.d.sync += [pixel.eq(pixel + 1), waiting.eq(0)]
        with m.If(self.pass_end):
            # The activation digit moves first, the weight digit when it is through.
            m.d.sync += [pixel.eq(0), a_pass.eq(Mux(a_last, 0, a_pass + 1))]
            with m.If(a_last):
                m.d.sync += w_upper.eq((w_upper ^ 1) & w_top)
        with m.If(step_end):
            m.d.sync += [waiting.eq(1), tile_first.eq(last_tap)]
            if config.has_parts:
                m.d.sync += part.eq(Mux(last_part, 0, part + 1))
            if planes:
                with m.If(last_part):
                    m.d.sync += tap_first.eq(last_tap)
        if planes:
            with m.If(self.pass_end & (a_last | layer.a_planes)):
                m.d.sync += plane_pixel.eq(Mux(a_last & last_part, 0, plane_pixel + layer.tile_pixels))
        with m.If(self.lane):
            m.d.sync += [word.eq(word + 1), word_begin.eq(0), word_end.eq(word_end - lanes.count)]
        with m.If(self.kernel_x | self.kernel_y | self.tile_end):
            m.d.sync += [
                word.eq(restart_word),
                word_begin.eq(restart),
                word_end.eq(restart + layer.group_inputs),
                kernel_x.eq(Mux(self.kernel_x, kernel_x + 1, 0)),
            ]
        with m.If(self.kernel_y):
            m.d.sync += kernel_y.eq(kernel_y + 1)
        with m.If(self.tile_end):
            m.d.sync += [kernel_y.eq(0), half.eq(~half), pixels_left.eq(pixels_left - n)]
        with m.If(self.row_group_end):
            m.d.sync += [
                pixels_left.eq(layer.out_pixels),
                outputs_left.eq(next_outputs),
                groups_left.eq(groups_left - last_of_group),
                begin.eq(next_begin),
                row_group.eq(row_group + 1),
                running.eq(~last_row_group),
            ]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1),
                waiting.eq(1),
                tile_first.eq(1),
                tap_first.eq(1),
                begin.eq(layer.in_lane),
                word.eq(0),
                word_begin.eq(layer.in_lane),
                word_end.eq(layer.in_lane + layer.group_inputs),
                outputs_left.eq(layer.group_outputs),
                groups_left.eq(layer.groups),
                pixels_left.eq(layer.out_pixels),
                row_group.eq(0),
            ]

        # The loader works one tile ahead of the step that runs.
        new_rows = last_tap & last_tile & ~waiting
        m.d.comb += [
            self.load_enable.eq(running & (waiting | ~(last_tap & last_tile & last_row_group))),
            self.load_rows.eq(Mux(new_rows, next_rows, used_rows)),
            self.load_container.eq(container(layer, row_group + new_rows)),
            self.load_lane_offset.eq(Mux(new_rows, next_begin, begin)),
        ]

        # A pass begins from zero that is the first one to add to its accumulators.
        first, w_signed, digit_shift = tile_first & (a_pass == 0) & ~w_upper, w_upper == w_top, a_upper + w_upper
        if config.wide:
            # Of a weight's bytes the upper one alone carries the sign.
            w_signed, digit_shift = w_signed & last_part, digit_shift + (part << 1)
        if planes:
            first, digit_shift = tap_first & (layer.a_planes | (a_pass == 0)), a_upper & ~layer.a_planes
            m.d.comb += self.step.a_place.eq(a_pass[: ceil_log2(DIGIT_BITS)])
        m.d.comb += [
            self.step.valid.eq(self.advance),
            self.step.half.eq(half),
            self.step.pixel.eq(pixel + plane_pixel),
            self.step.first.eq(first),
            self.step.a_upper.eq(a_upper),
            self.step.w_upper.eq(w_upper if config.wide else w_upper | (part != 0)),
            self.step.a_signed.eq(layer.a_signed & a_last),
            self.step.w_signed.eq(w_signed),
            self.step.digit_shift.eq(digit_shift),
            self.step.sum_mask.eq(Cat((lane >= word_begin) & (lane < word_end) for lane in range(lanes.most))),
            self.step.diagonal.eq(word_begin >> ceil_log2(diagonal)),
            self.step.tile_end.eq(self.tile_end),
        ]
        if config.wide:
            m.d.comb += self.step.later_part.eq(part != 0)
        return m
