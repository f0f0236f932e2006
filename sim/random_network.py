"""Random small networks: a few steps, each of which adds nodes behind the last tensor.

All is decided by `Decisions`; the codes themselves come of a generator that one decision seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..kernels.align import Alignment
from ..kernels.digits import BYTE_BITS
from ..kernels.fusion import fusion_mode
from ..kernels.planes import PlaneCorrection
from ..kernels.requant import MULTIPLIER_BITS, Rounding
from .arrays import SCHEMES
from .builder import Grid, MacSettings, NetworkBuilder, Tensor, Thresholds
from .engine import EngineConfig
from .fixed_point import fraction_bits
from .manifest import InputSpec
from .network import Network
from .plane_basis import PlaneBasis
from .random_options import GROUPS, Decisions
from .random_planes import draw_basis
from .random_weights import RandomWeights, ZeroTerm, draw_weights, draw_widths

__all__ = ["Drawing"]

MAX_STEPS = 4
MAX_CHANNELS = 40
NARROW_ACC = 16
"""Bits of accumulators that are meant to overflow."""
MAX_CONCAT = 64
MAX_SIZE = 12
MAX_FEATURES = 192
"""Of a map that a linear layer reads."""
WORK = 4000
"""Cycles of a full array that one layer may be worth: what bounds its output channels."""
BELOW_ONE = 0.9
"""Greatest rescale factor under TFLite's rounding, which has none from 1 on."""
IMAGES = ("map", "map", "map", "map", "one row", "1 x 1")
LEADS_TO = {
    "none": "",
    "strided view": "stride_slice",
    "other first lane": "concat",
    "add and copy": "add fused",
    "two tensors written": "requantise fused",
}
"""Steps that may lead to options that few networks hit."""

Form = tuple[Grid, Alignment | None]
"""What tensors that are joined must have in common."""


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Of a convolution, as `NetworkBuilder.conv2d` takes it."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]


class Drawing:
    """A network being drawn for an engine: the tensors so far, the last of which the next step reads."""

    def __init__(self, draw: Decisions, engine: EngineConfig, name: str) -> None:
        self.draw, self.engine = draw, engine
        self.rng = np.random.default_rng(draw.between(0, (1 << 32) - 1))
        height, width = self._size(draw.option("image", IMAGES))
        self.stem = draw.option("input", ("as it is", "as it is", "unfolded")) == "unfolded" and width > 1
        most = 3 if self.stem else MAX_CHANNELS if height * width < 40 else 16
        channels = self._count("inputs", "L", engine.lanes, most)
        grid = self._grid(narrow=True)
        sources = ("codes", "codes", "input") if engine.array == "sign" else ("codes",)
        if draw.option("planes come of", sources) == "input":
            grid = Grid.of_planes(PlaneBasis.sign(0.7).padded(draw.between(0, 1)))
        spec = InputSpec(
            shape=(channels, height, width),
            bits=grid.bits,
            signed=grid.signed,
            zero_point=grid.zero_point,
            scale=1.0,
            planes=grid.codes.planes,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        )
        self.net = NetworkBuilder(name, spec)
        self.tensors = [self.net.input]
        self.nodes = 0
        self.open = False
        """Whether the last tensor leaves a layer of the array that may take a copy along."""

    def network(self) -> Network:
        """One to four steps, and the network."""
        for left in reversed(range(self.draw.between(2 if self.engine.wide else 1, MAX_STEPS))):
            steps = self._possible(final=left == 0)
            leading = LEADS_TO[self.draw.option("memory", tuple(LEADS_TO))]
            if self.last.grid.basis is not None or self._wants_planes():
                step = "planes"
            elif self.nodes == 0 and (self.stem or self.engine.wide or self.draw.between(0, 2) > 0):
                step = "conv2d"
            elif "conv2d" in steps and self.last.grid.bits > BYTE_BITS and self.draw.between(0, 7):
                step = "conv2d"
            elif leading in steps and left > 0:
                step = leading
            else:
                step = self.draw.option("op", steps)
            getattr(self, f"_step_{step.replace(' ', '_')}")()
        return self.net.build()

    def codes(self, images: int) -> np.ndarray:
        """Input codes (N, C, H, W), the ends of their range more often than the others."""
        spec = self.net.spec
        codes = self.rng.integers(*spec.range, (images, *spec.shape), endpoint=True)
        ends = self.rng.choice(spec.range, codes.shape)
        return np.where(self.rng.random(codes.shape) < 0.1, ends, codes).astype(np.int16)

    @property
    def last(self) -> Tensor:
        """The tensor that the next step reads."""
        return self.tensors[-1]

    def _possible(self, final: bool) -> list[str]:
        """The steps that the last tensor allows."""
        channels, height, width = self.last.shape
        flat = (height, width) == (1, 1)
        steps = [
            "add alone", "max_pool", "average_pool", "global_average_pool", "concat", "requantise alone",
        ]  # fmt: skip
        # At the end it would be copied.
        if not final or self.draw.option("memory", ("strided view", "copied view")) == "copied view":
            steps.append("stride_slice")
        if channels <= MAX_CHANNELS:
            steps.append("channel_pad")
        if flat or final:
            steps.append("flatten")
        if self.last.grid.bits <= self.engine.operand_bits:
            steps += ["conv2d", "conv2d", "conv2d", "add fused", "requantise fused", "linear"]
            if not flat and channels * height * width <= MAX_FEATURES:
                steps.append("linear over a map")
        return steps

    def _wants_planes(self) -> bool:
        """Whether the next step makes activation planes and reads them."""
        if self.engine.array != "sign" or (self.stem and self.nodes == 0):
            return False
        return self.draw.option("planes come of", ("none", "none", "none", "thresholds", "requantise")) != "none"

    def _size(self, kind: str) -> tuple[int, int]:
        """Height and width of the input, now and then such that several tiles of pixels cover it."""
        if kind == "1 x 1":
            return 1, 1
        if kind == "one row":
            return 1, self.draw.between(2, MAX_SIZE)
        tiles = self.draw.option("tiles", ("one", "whole", "ragged"))
        if tiles != "one":
            sides, pixels = range(2, MAX_SIZE + 1), self.engine.pixels
            sizes = [(y, x) for y in sides for x in sides if y * x > pixels]
            return self.draw.option(
                "size", [size for size in sizes if (prod(size) % pixels == 0) == (tiles == "whole")]
            )
        return self.draw.between(2, MAX_SIZE), self.draw.between(2, MAX_SIZE)

    # Steps, by the names of their options.

    def _step_conv2d(self) -> None:
        pixels = self.last.shape[1] * self.last.shape[2]
        kind = "whole" if pixels % self.engine.pixels == 0 else "ragged"
        same = pixels > self.engine.pixels and self.draw.option("tiles", ("one", kind)) == kind
        self._keep(self._conv(self.last, same=same), open=True)

    def _step_linear(self) -> None:
        if self.last.shape[1:] != (1, 1):
            self._step_global_average_pool()
        self._keep(self._linear(self.last), open=True)

    def _step_linear_over_a_map(self) -> None:
        self._keep(self._linear(self.net.flatten(self._name("flat"), self.last)), open=True)

    def _step_add_fused(self) -> None:
        """The other operand is there already, where one of its shape is; the later one is a convolution's."""
        x = self.last
        others = [tensor for tensor in self.tensors if tensor.shape == x.shape]
        own = self._conv(x, same=True)
        self._keep(self._add(self._pair(own, self.draw.option("operand", others))), open=True)
        if self.draw.option("memory", ("one copy", "add and copy")) == "add and copy":
            self._keep(self._copy(self.last))

    def _step_add_alone(self) -> None:
        x = self.last
        others = [tensor for tensor in self.tensors[:-1] if tensor.shape == x.shape]
        if not others or self.draw.between(0, 1):
            others = [self._copy(x) if self.draw.between(0, 1) else self._smoothed(x)]
        self._keep(self._add(self._pair(x, self.draw.option("operand", others))))

    def _step_requantise_fused(self) -> None:
        """A copy of what leaves the array; the original stays for a later step."""
        if not self.open:
            self._keep(self._conv(self.last), open=True)
        original = self.last
        self._keep(self._copy(original))
        if self.draw.option("memory", ("one tensor written", "two tensors written")) == "two tensors written":
            self._keep(self._add(self._pair(original, self.last)))

    def _step_requantise_alone(self) -> None:
        if self.open:
            self._keep(self._smoothed(self.last))
        self._keep(self._copy(self.last))

    def _step_planes(self) -> None:
        """Activation planes, looked at in some way, and a layer that reads them."""
        made = self.last
        if made.grid.basis is None:
            makers = ("thresholds", "requantise") if made.grid.bits <= 8 else ("requantise",)
            if self.draw.option("planes come of", makers) == "requantise":
                basis = draw_basis(self.draw, self.rng, self._span(made.grid) / 2)
                made = self.net.requantise(self._name("planes"), made, out=Grid.of_planes(basis))
            else:
                made = self._conv(made, same=True, form=(Grid.of_planes(draw_basis(self.draw, self.rng, 1.0)), None))
        else:
            self.tensors.clear()  # no other step reads planes
        ordered = made.grid.codes.planes is not None and made.grid.codes.planes.ordered
        view = self.draw.option("view", ("none", "none", "slice", "join", "flat", *("pool",) * ordered))
        stem = self.stem and self.nodes == 0
        if view == "slice" and not stem:
            made = self.net.stride_slice(self._name("slice"), made, (1, 2))
        elif view == "join" and not stem and made.shape[0] * 2 <= MAX_CONCAT:
            other = self.net.max_pool(self._name("pool"), made, 3, 1, 1) if ordered else made
            made = self.net.concat(self._name("join"), [made, other])
        elif view == "pool" and not stem:
            made = self.net.max_pool(self._name("pool"), made, 2, 1, (1, 0, 0, 1))
        elif view == "flat" and made.shape[0] * made.shape[1] * made.shape[2] <= MAX_FEATURES and not stem:
            self._keep(self._linear(self.net.flatten(self._name("flat"), made)), open=True)
            return
        self._keep(self._conv(made), open=True)

    def _step_max_pool(self) -> None:
        self._pool("max")

    def _step_average_pool(self) -> None:
        self._pool("average")

    def _step_global_average_pool(self) -> None:
        self._keep(self.net.global_average_pool(self._name("mean"), self.last))

    def _step_concat(self) -> None:
        """Two or three tensors of one kind of codes: convolutions of the last, or the last and a pooled one."""
        x = self.last
        wide = x.grid.bits > self.engine.operand_bits
        # What lies within the joined tensor, in any lane, is read by itself too.
        apart = not wide and self.draw.option("memory", ("first lane 0", "other first lane")) == "other first lane"
        if apart or (not wide and self.draw.between(0, 1)):
            grid = self._grid(narrow=apart)
            form = grid, self._alignment(grid)
            first = self._ragged(self.engine.lanes) if apart else None
            parts = [self._conv(x, same=True, form=form, outputs=first)]
            parts += [self._conv(x, same=True, form=form) for _ in range(self.draw.between(1, 2))]
        else:
            parts = [x, self._smoothed(x)]
            if self.draw.between(0, 1):
                parts.reverse()
        if sum(part.shape[0] for part in parts) > MAX_CONCAT:
            parts = [parts[0], parts[0]]
        self._keep(self.net.concat(self._name("join"), parts))
        if apart:
            self._keep(parts[1])
            self._step_conv2d()

    def _step_flatten(self) -> None:
        self._keep(self.net.flatten(self._name("flat"), self.last))

    def _step_channel_pad(self) -> None:
        before = self.draw.between(0, 5)
        self._keep(self.net.channel_pad(self._name("pad"), self.last, before, self.draw.between(0 if before else 1, 5)))

    def _step_stride_slice(self) -> None:
        stride = self.draw.option("slice", ((2, 2), (1, 2), (3, 1), (2, 3), (1, 1)))
        self._keep(self.net.stride_slice(self._name("slice"), self.last, stride))

    # What steps are made of.

    def _keep(self, tensor: Tensor, open: bool = False) -> None:
        self.tensors.append(tensor)
        self.open = open

    def _name(self, kind: str) -> str:
        self.nodes += 1
        return f"{kind}{self.nodes}"

    def _pair(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return (first, second) if self.draw.between(0, 1) else (second, first)

    def _count(self, group: str, letter: str, size: int, most: int) -> int:
        """A number of channels up to `most` that does or does not divide `size`."""
        if most >= size and self.draw.option(group, (f"divide {letter}", f"do not divide {letter}")).startswith(
            "divide"
        ):
            return size * self.draw.between(1, max(1, min(most, MAX_CHANNELS) // size))
        count = self.draw.between(1, max(1, min(most, MAX_CHANNELS)))
        return count - 1 if count % size == 0 and count > 1 else count

    def _ragged(self, size: int) -> int:
        """A number of channels that does not divide `size`."""
        return size * self.draw.between(0, 1) + self.draw.between(1, size - 1)

    def _grid(self, scale: float = 1.0, narrow: bool = False) -> Grid:
        """Codes of a tensor; without alignment, whose amounts a tensor's channels decide."""
        sizes: tuple[str, ...] = ("8 or less", "8 or less", "8 or less", "16")
        if self.engine.wide and not narrow and (self.nodes == 1 or self.draw.between(0, 1)):
            sizes = ("16",)
        if not narrow and self.draw.option("output bits", sizes) == "16":
            bits = self.draw.between(9, 16) if self.engine.wide and self.draw.between(0, 1) else 16
            least = -(1 << bits - 1)
            zero_point = self.draw.option("zero point", (0, 0, -77, 1000))
            if self.engine.wide and self.draw.between(0, 2) == 0:
                zero_point = least  # unsigned, but for the name
            return Grid(scale, bits, signed=True, zero_point=min(zero_point, -least - 1))
        signed = self.draw.option("activations", ("unsigned", "signed")) == "signed"
        # The sums of a plane are small: only wide codes overflow them.
        wide = self.engine.array == "sign" and self.engine.mac.acc <= NARROW_ACC and self.draw.between(0, 2) > 0
        # Half of a fused array's tensors are narrow.
        more = 4 * (1, 2) if self.engine.array == "fusion" else ()
        grid = Grid(scale, self.draw.option("activation bits", (*range(7 if wide else 1, 9), *more)), signed)
        low, high = grid.codes.range
        zero_point = self.draw.between(low, high) if self.draw.between(0, 1) else 0
        if self.draw.between(0, 3) == 0:
            low, high = sorted((self.draw.between(low, high), self.draw.between(low, high)))
        # A ReLU needs the zero point within reach.
        return replace(grid, zero_point=zero_point, low=low, high=max(high, zero_point))

    def _aligned(self, grid: Grid, channels: int, kind: Alignment | None) -> Grid:
        """With each channel's own step, of which every kind has many that are small."""
        if kind is None:
            return grid
        most = 1 << self.draw.between(1, 3)
        if kind == "mul":
            most = 255 if most == 8 else 4 * most
        return replace(grid, align=kind, amounts=self.rng.integers(kind == "mul", most, channels, endpoint=True))

    def _alignment(self, grid: Grid) -> Alignment | None:
        kinds: dict[str, Alignment | None] = {"none": None, "shift": "shift", "mul": "mul"}
        if grid.bits > 4:
            del kinds["mul"]
        if grid.bits > self.engine.operand_bits or not self.engine.aligns:
            return None
        # A fused array's lanes multiply only where nothing is aligned.
        more = 3 * ("none",) if self.engine.array == "fusion" else ()
        return kinds[self.draw.option("alignment", (*kinds, *more))]

    def _rescale(self, *, tflite: bool) -> Rounding:
        """Set the builder's rounding and multiplier width for the next node."""
        roundings = [rounding for rounding in GROUPS["rounding"] if tflite or rounding != "tflite"]
        self.net.rounding = rounding = self.draw.option("rounding", roundings)  # type: ignore[assignment]
        widths = (31,) if rounding == "tflite" else MULTIPLIER_BITS
        self.net.multiplier_bits = self.draw.option("multiplier bits", widths)
        return rounding  # type: ignore[return-value]

    def _conv(self, x: Tensor, *, same: bool = False, form: Form | None = None, outputs: int | None = None) -> Tensor:
        """A convolution of any kind; `same` keeps the image's size, and its channels where no form is given."""
        channels, height, width = x.shape
        geometry = self._same() if same else self._geometry(height, width)
        stem = self.stem and self.nodes == 0
        kinds = ["one", "depthwise"] if channels > 1 and not stem else ["one"]
        divisors = [count for count in range(2, channels) if channels % count == 0 and not stem]
        kind = self.draw.option("groups", [*kinds, "more"] if divisors else kinds)
        groups = channels if kind == "depthwise" else self.draw.option("count", divisors) if kind == "more" else 1
        taps = geometry.kernel[0] * geometry.kernel[1]
        pixels = height * width // (geometry.stride[0] * geometry.stride[1]) + 1
        most = WORK * self.engine.rows * self.engine.lanes // (channels // groups * taps * pixels)
        if outputs is not None:
            groups = 1
        elif kind == "depthwise" or (same and form is None):
            outputs = channels
        else:
            outputs = groups * self._count("outputs", "R", self.engine.rows, most // groups)
        codes_shape = (outputs, channels // groups, *geometry.kernel)
        name = self._name("conv")
        return self._mac(name, x, codes_shape, form, geometry, groups)

    def _weight_bits(self, x: Tensor, shape: tuple[int, ...], groups: int) -> Sequence[int]:
        """Widths of integer weights that the layer can have, or those of one mode of a fused array."""
        operands = ("wide activations", "both wide") if x.grid.bits > BYTE_BITS else ("narrow", "wide weights")
        if x.grid.align != "mul" and self.engine.wide and self.draw.option("operands", operands) == operands[1]:
            return range(9, 17)
        if x.grid.align is not None:
            return range(1, 5 if x.grid.align == "mul" else 9)
        if self.engine.array != "fusion" or (groups > 1 and shape[:2] == (groups, 1)):
            return range(1, 9)
        fit: dict[str, list[int]] = {}
        for bits in range(1, 9):
            mode = fusion_mode(x.grid.bits, bits)
            fit.setdefault(f"{mode.a_bits}x{mode.w_bits}", []).append(bits)
        return fit[self.draw.option("mode", tuple(fit))]

    def _linear(self, x: Tensor) -> Tensor:
        outputs = self._count("outputs", "R", self.engine.rows, 24)
        return self._mac(self._name("fc"), x, (outputs, x.shape[0]), None)

    def _same(self) -> _Geometry:
        """A convolution that keeps the image's size."""
        kernel = self.draw.option("kernel", (1, 3, 5)), self.draw.option("kernel", (1, 3))
        dilation = self.draw.between(1, 2) if max(kernel) > 1 else 1
        pad_y, pad_x = (dilation * (size // 2) for size in kernel)
        return _Geometry(kernel, (1, 1), (dilation, dilation), (pad_y, pad_x, pad_y, pad_x))

    def _geometry(self, height: int, width: int) -> _Geometry:
        """Any convolution whose dilated kernel fits the padded image."""
        fits = self.draw.option("padding", GROUPS["padding"]) == "none"

        def size(have: int) -> int:
            least = 2 if self.stem and self.nodes == 0 and have == width else 1
            return self.draw.option("kernel", range(least, min(7, max(have, least)) + 1 if fits else 8))

        ky = size(height)
        kernel = ky, (ky if height == width and self.draw.between(0, 1) else size(width))
        stride = self.draw.option("stride", (1, 2, 3)), self.draw.option("stride", (1, 2, 3))
        dilation = tuple(self.draw.option("dilation", (1, 2, 3)) if size > 1 else 1 for size in kernel)
        spans = [step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True)]
        wanted = [max(0, span - have) for span, have in zip(spans, (height, width), strict=True)]
        kind = self.draw.option("padding", ("even", "uneven") if any(wanted) else GROUPS["padding"])
        if kind == "none":
            padding = [0] * 4
        elif kind == "even":
            padding = [max(1, -(-max(wanted) // 2))] * 4
        else:
            before = [self.draw.between(0, max(1, size)) for size in wanted]
            after = [max(0, size - first) + self.draw.between(0, 1) for size, first in zip(wanted, before, strict=True)]
            padding = [*before, *after]
        top, left, bottom, right = padding
        return _Geometry(kernel, stride, (dilation[0], dilation[1]), (top, left, bottom, right))

    def _mac(
        self,
        name: str,
        x: Tensor,
        shape: tuple[int, ...],
        form: Form | None,
        geometry: _Geometry | None = None,
        groups: int = 1,
    ) -> Tensor:
        """A layer of the array, its constants such that the codes of its result are spread."""
        draw, rng, outputs = self.draw, self.rng, shape[0]
        aligned = x.grid.align is not None
        planes = x.grid.codes.planes
        schemes = SCHEMES[self.engine.array] if planes is None else ("xor", "basis")
        scheme = "int" if aligned else draw.option("scheme", schemes)
        # A wide engine's first layer leads to wide activations.
        leads = self.engine.wide and self.nodes == 1
        kinds = ("scale",) if leads else ("scale", "scale", "threshold")
        thresholds = draw.option("requantiser", kinds) == "threshold"
        # A fused array has use for few bits in all channels, a wide engine for many.
        seldom = self.engine.array == "fusion" or self.engine.wide
        spreads = ("one", "one", "mixed") if seldom else ("one", "mixed")
        mixed = form is None and not thresholds and not leads and draw.option("activation widths", spreads) == "mixed"
        few = mixed and draw.option("fewer digits", ("in words", "anywhere")) != "anywhere"
        if form is not None:
            grid, align = form
            thresholds = grid.basis is not None or (thresholds and grid.bits <= 4)
        else:
            if thresholds:
                signed = draw.option("activations", ("unsigned", "signed")) == "signed"
                grid = Grid(1.0, draw.option("threshold bits", (1, 2, 3, 4)), signed)
            else:
                grid = self._grid(narrow=mixed)
            if mixed:
                grid = replace(grid, bits=draw.between(5 if few else 1, 8), zero_point=0, low=None, high=None)
            align = self._alignment(grid)
        out = self._aligned(grid, outputs, align)
        # Integers on sign planes have a fraction bit.
        whole = self.engine.array != "sign" or scheme != "int"
        tflite = not thresholds and self._rescale(tflite=whole) == "tflite"
        terms: tuple[ZeroTerm, ...] = ("none", "whole") if tflite else ("none", "whole", "fraction")
        term = draw.option("zero term", terms if planes is None else ("none",))
        widths = self._weight_bits(x, shape, groups)
        most_planes = min(8, self.engine.pixels // len(planes.beta)) if planes is not None else 8
        weights = draw_weights(
            draw, rng, scheme, shape, groups, term,
            whole=tflite, widths=widths, most_planes=most_planes, activations=planes,
        )  # fmt: skip
        spread = self._spread(x, weights)
        scale = 1.0
        if not thresholds:
            first, last = out.clamp
            scale = max(1, last - first) / 3 / spread * float(np.median(out.factors)) * 2.0 ** rng.uniform(-1, 2)
            if tflite:
                scale = min(scale, BELOW_ONE * float(out.factors.min()) / float(weights.step.max()))
            scale = scale * out.scale / x.grid.scale
        scales = scale * (rng.uniform(0.5, 1, outputs) if draw.between(0, 1) else np.ones(1))
        size = self._bias_size(weights, spread)
        settings: MacSettings = {
            "scale": scales,
            "out": out,
            "zero_point": weights.zero,
            "bias": rng.normal(0, size, outputs) * scales * x.grid.scale,
            "relu": draw.between(0, 3) == 0,
        }
        if mixed:
            settings["out"] = replace(out, widths=draw_widths(rng, outputs, out.bits, few))
        if thresholds:
            count = (1 << out.bits if out.basis is None else len(out.basis.words)) - 1
            steps = np.sort(rng.normal(0, 1.5 * spread, (outputs, count)), axis=1) / self._value_step(weights)[:, None]
            flags = rng.random(outputs) < draw.option("descending", (0, 0.5))
            settings["thresholds"] = Thresholds(np.rint(steps).astype(np.int64), flags)
        if geometry is None:
            return self.net.linear(name, x, weights.codes, **settings)
        return self.net.conv2d(
            name,
            x,
            weights.codes,
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            groups=groups,
            **settings,
        )

    def _spread(self, x: Tensor, weights: RandomWeights) -> float:
        """About the standard deviation of the accumulators in units of the scale, as far as they fit."""
        low, high = x.grid.clamp
        inputs = (high - low + 1) / 3.5 * float(np.sqrt((x.grid.factors**2).mean()))
        if x.grid.basis is not None:
            inputs = float(np.linalg.norm(x.grid.basis.spec.beta))
        real = weights.real.reshape(len(weights.real), -1)
        size = np.sqrt(((real - weights.zero[:, None]) ** 2).mean() + 0.01 * np.median(weights.step) ** 2)
        exact = inputs * float(size) * np.sqrt(real.shape[1])
        return float(min(exact, 2.0 ** (self.engine.mac.acc - 2) * weights.reach))

    def _bias_size(self, weights: RandomWeights, spread: float) -> float:
        """Half as much as the accumulators, or so that values meet the limit behind them."""
        if self.draw.between(0, 3):
            return 0.5 * spread
        acc = self.engine.mac.acc
        if weights.codes.coefs is None or acc > NARROW_ACC:
            return 8 * spread
        return float(2.0 ** (PlaneCorrection(self.engine.mac).out_bits - 1) * np.median(weights.step))

    @staticmethod
    def _value_step(weights: RandomWeights) -> np.ndarray:
        """A step of the corrected value, with the fraction bits that the zero points need, (out,)."""
        codes = weights.codes
        if codes.coefs is not None or not weights.zero.any():
            return weights.step
        return weights.step * 2.0 ** -fraction_bits(weights.zero / codes.unit - codes.offset)

    def _add(self, operands: tuple[Tensor, Tensor]) -> Tensor:
        grid = self._grid()
        first, last = grid.clamp
        span = sum(self._span(tensor.grid) for tensor in operands)
        grid = replace(grid, scale=span / max(1, last - first) * 2.0 ** self.rng.uniform(-1.5, 0))
        out = self._aligned(grid, operands[0].shape[0], self._alignment(grid))
        self._rescale(tflite=False)
        return self.net.add(self._name("add"), *operands, out=out, relu=self.draw.between(0, 3) == 0)

    def _copy(self, x: Tensor) -> Tensor:
        """The same values on another grid."""
        grid = self._grid()
        rounding = self._rescale(tflite=True)
        first, last = grid.clamp
        scale = self._span(x.grid) / max(1, last - first) * 2.0 ** self.rng.uniform(-1.5, 0)
        out = self._aligned(grid, x.shape[0], self._alignment(grid))
        most = BELOW_ONE if rounding == "tflite" else float(1 << 15)
        scale = max(scale, x.grid.scale * float(x.grid.factors.max() / out.factors.min()) / most)
        relu = self.draw.between(0, 3) == 0
        return self.net.requantise(self._name("copy"), x, out=replace(out, scale=scale), relu=relu)

    @staticmethod
    def _span(grid: Grid) -> float:
        """From the least to the greatest value of a grid."""
        low, high = grid.clamp
        return grid.scale * float(grid.factors.max()) * max(1, high - low)

    def _smoothed(self, x: Tensor) -> Tensor:
        """Pooled without a change of the image's size."""
        pool = self.net.max_pool if self.draw.between(0, 1) else self.net.average_pool
        return pool(self._name("pool"), x, 3, 1, 1)

    def _pool(self, kind: str) -> None:
        height, width = self.last.shape[1:]
        kernel = self.draw.between(1, min(3, height)), self.draw.between(1, min(4, width))
        top, left, bottom, right = (self.draw.between(0, min(1, kernel[axis % 2] - 1)) for axis in range(4))
        stride = self.draw.between(1, 3), self.draw.between(1, 3)
        pool = self.net.max_pool if kind == "max" else self.net.average_pool
        self._keep(pool(self._name("pool"), self.last, kernel, stride, (top, left, bottom, right)))
