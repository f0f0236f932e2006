"""Schemes beside each other: one layer at one throughput, what it costs in gates, ALMs and memory with each of them.

Unrolled, every output of the layer has a circuit of its own and a new image goes in with every clock: the throughput is
one image a cycle for all schemes, whatever the clock is. Behind the sums every scheme has the same requantiser, which
is left out, and so is what a bias takes in.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..kernels import HuffmanDecoder as HuffmanParameters
from ..kernels.conv import ConvShape
from ..kernels.errors import FormatError
from ..kernels.planes import COEFFICIENT_BITS
from ..kernels.unrolled import MAX_ACTIVATION_BITS, STRUCTURES, Structure, UnrolledLayer
from ..sim.layer import MacLayer
from ..sim.manifest import IntWeights, Weights, XorWeights
from ..sim.unrolled import SCHEMES, SeededLayer, network_layer, scheme_named, seeded_layer
from .huffman import HuffmanDecoder
from .synth import STRATIX_10_GX_2800, FlatCheck, Part, SynthReport
from .unrolled_layer import check_flattened, synthesize_layer
from .xor import XorGates

__all__ = [
    "COLUMNS",
    "Assumptions",
    "Comparison",
    "Format",
    "Layer",
    "Row",
    "compare_layer",
    "network_rows",
    "parse_layer",
]

REFERENCE = "focused5"
"""What ratios are to, in the same architecture."""

Format = Literal["table", "md", "csv", "latex"]
MAX_LENGTH = 16
CHUNK_BITS = 32
COUNT_BITS = 24
"""Of a Huffman decoder, as the engine has them."""


@dataclass(frozen=True)
class Layer:
    """A convolution of stride 1 over a map, padded so that its output has the input's size."""

    shape: ConvShape
    height: int
    width: int

    @property
    def text(self) -> str:
        """As the command line takes it."""
        return f"{self.shape.kernel[0]},{self.shape.in_channels},{self.shape.out_channels},{self.height},{self.width}"


def parse_layer(text: str) -> Layer:
    """Read ``K,CIN,COUT,H,W``."""
    rule = "layer must be K,CIN,COUT,H,W: five positive whole numbers, K odd"
    try:
        kernel, inputs, outputs, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise FormatError(f"{rule}, not {text!r}") from None
    if min(kernel, inputs, outputs, height, width) < 1 or kernel % 2 == 0:
        raise FormatError(f"{rule}, not {text!r}")
    return Layer(ConvShape(inputs, outputs, (kernel, kernel), padding=(kernel // 2,) * 4), height, width)


@dataclass(frozen=True)
class Assumptions:
    """What may be counted otherwise, to see what a figure rests on.

    Parameters
    ----------
    padded_taps : taps in the padding count, as if it were no constant
    no_zeros : no weight is zero: those that are get the layer's least magnitude
    coefficient_bits : of what weighs sign planes
    activation_bits : of activations that are numbers, in every scheme; the scheme's own unless given
    """

    padded_taps: bool = False
    no_zeros: bool = False
    coefficient_bits: int = COEFFICIENT_BITS
    activation_bits: int | None = None

    def __post_init__(self) -> None:
        if self.activation_bits is not None and not 1 <= self.activation_bits <= MAX_ACTIVATION_BITS:
            raise FormatError(f"activation bits must be 1 to {MAX_ACTIVATION_BITS}, not {self.activation_bits}")
        if not 2 <= self.coefficient_bits <= COEFFICIENT_BITS:
            raise FormatError(f"coefficient bits must be 2 to {COEFFICIENT_BITS}, not {self.coefficient_bits}")

    def applied(self, layer: UnrolledLayer) -> UnrolledLayer:
        """The constants under these assumptions."""
        layer = layer.with_coefficient_bits(self.coefficient_bits)
        if self.activation_bits is not None and not layer.activation_planes:
            layer = replace(layer, bits=self.activation_bits)
        return layer.dense() if self.no_zeros else layer


NO_CHANGE = Assumptions()


@dataclass(frozen=True)
class Row:
    """What a layer costs with one scheme in one architecture."""

    scheme: str
    title: str
    architecture: str
    report: SynthReport
    weight_bytes: int
    """Fetched for an image: none where weights are wires."""
    coded_bytes: int
    """That the layer's weights take in a file."""
    check: FlatCheck | None = None

    @property
    def difference(self) -> float | None:
        """By how much the sum of the flattened channel's modules exceeds it, as a share of it."""
        return None if self.check is None else self.check.gates_sum / self.check.gates_flat - 1


@dataclass(frozen=True)
class Comparison:
    """Rows of one layer, and what they assume."""

    layer: Layer
    seed: int = 0
    assumptions: Assumptions = NO_CHANGE
    rows: list[Row] = field(default_factory=list)

    def ratio(self, row: Row) -> float | None:
        """Gates against those of focused quantisation in 5 bits, in the same architecture."""
        for other in self.rows:
            if (other.scheme, other.architecture) == (REFERENCE, row.architecture):
                return row.report.gates.two_input / other.report.gates.two_input
        return None

    @property
    def macs(self) -> int:
        """Multiplications an image; taps in the padding, where they are not counted, are none."""
        windows = _windows(self.layer, self.assumptions.padded_taps)
        return self.layer.shape.in_channels * self.layer.shape.out_channels * windows

    @property
    def _few_coefficient_bits(self) -> bool:
        return self.assumptions.coefficient_bits < COEFFICIENT_BITS

    def notes(self) -> list[str]:
        """What the figures assume, for a reader."""
        report = self.rows[0].report
        taps = "are counted" if self.assumptions.padded_taps else "are left out"
        changed = [
            text
            for text, said in (
                ("no weight is zero", self.assumptions.no_zeros),
                (f"coefficients of {self.assumptions.coefficient_bits} bits", self._few_coefficient_bits),
                (f"activations of {self.assumptions.activation_bits} bits", self.assumptions.activation_bits),
            )
            if said
        ]
        return [
            f"layer {self.layer.text}, stride 1, padding {self.layer.shape.padding[0]}: {self.macs:,} MACs, taps in "
            f"the padding {taps}; "
            + "".join(f"{text}; " for text in changed)
            + f"seeded weights (seed {self.seed}) where no network is named",
            "unrolled: one image a cycle; constants are wires; each distinct adder and multiplier is synthesised once "
            "and counted as often as it stands in the layer",
            f"{report.tool}; ALUTs by synth_intel_alm for Cyclone V; flows: "
            + ", ".join(f"{name} {digest[:12]}" for name, digest in report.flows.items()),
            f"shares are of a {STRATIX_10_GX_2800.name} ({STRATIX_10_GX_2800.alms:,} ALMs); no clock is claimed",
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        report = self.rows[0].report
        return {
            "schema": 1,
            "layer": self.layer.text,
            "macs": self.macs,
            "seed": self.seed,
            "assumptions": asdict(self.assumptions),
            "reference": REFERENCE,
            "device": STRATIX_10_GX_2800.name,
            "tool": report.tool,
            "flows": report.flows,
            "rows": [self._row_json(row) for row in self.rows],
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        report = row.report
        share = report.device_share()
        return {
            "scheme": row.scheme,
            "title": row.title,
            "architecture": row.architecture,
            "images_per_cycle": 1,
            "rtl_sha256": report.rtl_sha256,
            "gates": report.gates.two_input,
            "ratio": self.ratio(row),
            "gates_per_mac": report.gates.two_input / self.macs,
            "inverters": report.gates.inverters,
            "equivalents": report.gates.equivalents,
            "aluts": report.alm.alut_total,
            "carry_bits": report.alm.carry_bits,
            "alms_low": report.alm.bounds.low,
            "alms_high": report.alm.bounds.high,
            "dsps": report.alm_dsp.dsps,
            "alms_dsp_low": report.alm_dsp.bounds.low,
            "alms_dsp_high": report.alm_dsp.bounds.high,
            "registers": report.gates.flip_flops,
            "memory_bits": report.memory.bits,
            "m20ks": report.memory.m20ks,
            "weight_bytes": row.weight_bytes,
            "coded_bytes": row.coded_bytes,
            "depth": report.gates.depth,
            "share_alm_low": share["alm_low"],
            "share_alm_high": share["alm_high"],
            "distinct_modules": len(report.modules),
            "flat_check": None
            if row.check is None
            else {
                "taps": row.check.params["taps"],
                "gates_sum": row.check.gates_sum,
                "gates_flat": row.check.gates_flat,
                "difference": row.difference,
                "aluts_sum": row.check.aluts_sum,
                "aluts_flat": row.check.aluts_flat,
            },
        }


def _windows(layer: Layer, padded: bool) -> int:
    """Kernel places over all output pixels."""
    taps = 1
    for axis, size in enumerate((layer.height, layer.width)):
        kernel, pad = layer.shape.kernel[axis], layer.shape.padding[axis]
        inside = (min(size, at - pad + kernel) - max(0, at - pad) for at in range(size))
        taps *= size * kernel if padded else sum(inside)
    return taps


COLUMNS: dict[str, Callable[[Comparison, Row], str]] = {
    "scheme": lambda _, row: row.scheme,
    "architecture": lambda _, row: row.architecture,
    "gates": lambda _, row: f"{row.report.gates.two_input:,}",
    "ratio": lambda found, row: "" if found.ratio(row) is None else f"{found.ratio(row):.3f}",
    "gates/MAC": lambda found, row: f"{row.report.gates.two_input / found.macs:.1f}",
    "GE": lambda _, row: f"{row.report.gates.equivalents:,.0f}",
    "ALMs": lambda _, row: "{:,} .. {:,}".format(*row.report.alm.bounds),
    "DSP": lambda _, row: f"{row.report.alm_dsp.dsps:,}",
    "registers": lambda _, row: f"{row.report.gates.flip_flops:,}",
    "memory bits": lambda _, row: f"{row.report.memory.bits:,}",
    "M20K": lambda _, row: f"{row.report.memory.m20ks:,}",
    "weight bytes": lambda _, row: f"{row.weight_bytes:,}",
    "depth": lambda _, row: f"{row.report.gates.depth:,}",
    "share of device": lambda _, row: "{alm_low:,.0%} .. {alm_high:,.0%}".format(**row.report.device_share()),
    "flat check": lambda _, row: "" if row.difference is None else f"{row.difference:+.1%}",
}
"""What a table says of a row, by heading."""


def compare_layer(
    layer: Layer,
    *,
    schemes: Sequence[str] = (),
    architectures: Sequence[str] = (),
    seed: int = 0,
    assumptions: Assumptions = NO_CHANGE,
    check: bool = False,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> Comparison:
    """Count a layer with seeded weights of each scheme.

    Parameters
    ----------
    layer : geometry
    schemes : names in `sim.unrolled.SCHEMES`, all unless given
    architectures : ``direct`` and ``grouped`` (`kernels.unrolled`), both unless given
    seed : of the weights
    assumptions : what is counted otherwise
    check : whether 64 taps of each are synthesised as one module too
    cache, notice, jobs : as for `synth.synthesize_component`

    >>> compare_layer(parse_layer("3,4,4,4,4"), schemes=["shift"]).rows[0].report.gates.two_input  # doctest: +SKIP
    """
    chosen = [scheme_named(name) for name in dict.fromkeys(schemes or SCHEMES)]
    structures = [_structure(name) for name in dict.fromkeys(architectures or STRUCTURES)]
    found = Comparison(layer, seed, assumptions)
    for scheme in chosen:
        seeded = seeded_layer(scheme, layer.shape, seed)
        arrays = seeded.drawn.codes.arrays(layer.shape)
        decoders = _decoders(seeded.drawn.codes.spec, seeded, layer.shape.out_channels)
        for structure in structures:
            found.rows.append(
                _row(
                    found,
                    (scheme.name, scheme.title),
                    structure,
                    seeded.unrolled,
                    decoders,
                    arrays["weight"].nbytes,
                    check,
                    cache,
                    notice,
                    jobs,
                )
            )
    return found


def network_rows(
    found: Comparison,
    name: str,
    layer: MacLayer,
    coded_bytes: int,
    *,
    architectures: Sequence[str] = (),
    check: bool = False,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> None:
    """Add the same layer with the weights of a network's layer, under a name of the caller's."""
    mine, wanted = layer.shape, found.layer.shape
    if mine != wanted:
        raise FormatError(
            f"{layer.node.name} must be a layer {found.layer.text} of stride 1, not {mine.in_channels} -> "
            f"{mine.out_channels}, kernel {mine.kernel}, stride {mine.stride}, padding {mine.padding}"
        )
    unrolled = network_layer(layer)
    for each in dict.fromkeys(architectures or STRUCTURES):
        row = _row(found, (name, name), _structure(each), unrolled, (), coded_bytes, check, cache, notice, jobs)
        found.rows.append(row)


def _row(
    found: Comparison,
    names: tuple[str, str],
    structure: Structure,
    layer: UnrolledLayer,
    decoders: Sequence[Part],
    coded_bytes: int,
    check: bool,
    cache: Path | None,
    notice: Callable[[str], None] | None,
    jobs: int | None,
) -> Row:
    scheme, title = names

    def tell(text: str) -> None:
        if notice is not None:
            notice(f"{scheme}, {structure}: {text}")

    layer = found.assumptions.applied(layer)
    report = synthesize_layer(
        layer,
        (found.layer.height, found.layer.width),
        structure,
        padded=found.assumptions.padded_taps,
        decoders=decoders,
        params={"scheme": scheme, "layer": found.layer.text, "seed": found.seed} | asdict(found.assumptions),
        cache=cache,
        notice=tell,
        jobs=jobs,
    )
    flat = check_flattened(layer, structure, cache=cache, notice=tell, jobs=jobs) if check else None
    return Row(scheme, title, structure, report, 0, coded_bytes, flat)


def _structure(name: str) -> Structure:
    for structure in get_args(Structure):
        if structure == name:
            return structure  # type: ignore[no-any-return]
    raise FormatError(f"architecture must be one of {', '.join(STRUCTURES)}, not {name!r}")


def _decoders(spec: Weights, seeded: SeededLayer, channels: int) -> list[Part]:
    """A decoder for each output channel, as the engine has one for each row.

    Weights that are wires need none; the paper counts one beside them all the same (its table 4), and so is it here,
    without registers for what it would write.
    """
    if isinstance(spec, XorWeights):
        network = seeded.drawn.codes.networks[spec.planes[0]].network
        return [Part("XOR network", XorGates(network), channels)]
    if spec.scheme != "basis" and not isinstance(spec, IntWeights) and spec.coding == "huffman":
        parameters = HuffmanParameters(MAX_LENGTH, 1 << spec.bits, spec.bits, CHUNK_BITS, COUNT_BITS)
        return [Part("Huffman decoder", HuffmanDecoder(parameters), channels)]
    return []
