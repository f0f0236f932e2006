"""Schemes beside each other: one layer at one throughput, what it costs in gates, ALMs and memory with each of them.

Unrolled, every output of the layer has a circuit of its own and a new image goes in with every clock: the throughput is
one image a cycle for all schemes, whatever the clock is. Behind the sums every scheme has the same requantiser, which
is left out, and so is what a bias takes in.

An engine runs the layer with weights that stream, decoder and requantisers included: of each array the smallest that
takes no more cycles than stated (`compare_engine`). Since sizes are powers of two, all are then brought to the same
throughput by gates times cycles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

from ..kernels import HuffmanDecoder as HuffmanParameters
from ..kernels.conv import ConvShape
from ..kernels.errors import CapacityError, FormatError
from ..kernels.planes import COEFFICIENT_BITS
from ..kernels.unrolled import MAX_ACTIVATION_BITS, STRUCTURES, Structure, UnrolledLayer
from ..sim.layer import MacLayer
from ..sim.manifest import IntWeights, Weights, XorWeights
from ..sim.unrolled import SCHEMES, Scheme, SeededLayer, network_layer, scheme_named, seeded_layer
from .compare_engine import Models, SizedEngine, default_target, size_layer
from .flows import flows
from .huffman import HuffmanDecoder
from .runner import Runner
from .synth import STRATIX_10_GX_2800, FlatCheck, Part, SynthReport
from .unrolled_layer import LayerCount, check_flattened
from .xor import XorGates
from .yosys import tool_version

__all__ = [
    "ARCHITECTURES",
    "COLUMNS",
    "ENGINE",
    "Assumptions",
    "Comparison",
    "Counts",
    "Format",
    "Layer",
    "Row",
    "UnrolledSubject",
    "compare_layer",
    "network_rows",
    "network_subjects",
    "parse_layer",
]

REFERENCE = "focused5"
"""What ratios are to, in the same architecture."""

ENGINE = "engine"
ARCHITECTURES = (*STRUCTURES, ENGINE)
"""Unrolled ones, and engines with run-time weights."""

Format = Literal["table", "md", "csv", "latex"]
ENGINE_FIELDS = ("rows", "lanes", "post_lanes", "array", "decoder", "target_cycles", "utilisation", "decoder_share")
"""What a flat row says of an engine."""
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
class Counts:
    """What a design costs, whatever its architecture is; nothing stands for what is not counted of an engine."""

    gates: int
    inverters: int
    equivalents: float
    registers: int
    memory_bits: int
    m20ks: int
    dsps: int
    alms_dsp_low: int
    alms_dsp_high: int
    aluts: int | None = None
    carry_bits: int | None = None
    alms_low: int | None = None
    alms_high: int | None = None
    depth: int | None = None

    @classmethod
    def of_report(cls, report: SynthReport) -> "Counts":
        """Of a layer's unrolled circuits."""
        gates, alm, alm_dsp = report.gates, report.alm, report.alm_dsp
        return cls(
            gates=gates.two_input,
            inverters=gates.inverters,
            equivalents=gates.equivalents,
            registers=gates.flip_flops,
            memory_bits=report.memory.bits,
            m20ks=report.memory.m20ks,
            dsps=alm_dsp.dsps,
            alms_dsp_low=alm_dsp.bounds.low,
            alms_dsp_high=alm_dsp.bounds.high,
            aluts=alm.alut_total,
            carry_bits=alm.carry_bits,
            alms_low=alm.bounds.low,
            alms_high=alm.bounds.high,
            depth=gates.depth,
        )

    @classmethod
    def of_engine(cls, found: SizedEngine) -> "Counts":
        """Of a whole engine; its ALMs are with DSP blocks allowed."""
        cost = found.cost
        return cls(
            gates=round(cost.gates),
            inverters=round(cost.inverters),
            equivalents=cost.equivalents,
            registers=round(cost.flip_flops),
            memory_bits=round(cost.memory_bits),
            m20ks=round(cost.m20ks),
            dsps=ceil(cost.dsps),
            alms_dsp_low=round(cost.alms_low),
            alms_dsp_high=round(cost.alms_high),
        )

    @property
    def device_share(self) -> tuple[float, float]:
        """Of a device's ALMs, from the least to the greatest: without DSP blocks, an engine's with them."""
        low, high = self.alms_low, self.alms_high
        if low is None or high is None:
            low, high = self.alms_dsp_low, self.alms_dsp_high
        return low / STRATIX_10_GX_2800.alms, high / STRATIX_10_GX_2800.alms


@dataclass(frozen=True)
class Row:
    """What a layer costs with one scheme in one architecture: unrolled with a `report`, or on an engine, `sized`."""

    scheme: str
    title: str
    architecture: str
    counts: Counts
    weight_bytes: int
    """Fetched for an image: none where weights are wires."""
    coded_bytes: int
    """That the layer's weights take in a file."""
    report: SynthReport | None = None
    check: FlatCheck | None = None
    sized: SizedEngine | None = None

    @property
    def cycles(self) -> int:
        """From one image to the next."""
        return 1 if self.sized is None else self.sized.cycles

    @property
    def gates_at_target(self) -> float:
        """Gates at the throughput that all rows of the architecture are compared at."""
        return self.counts.gates if self.sized is None else self.sized.gates_at_target

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
    refused: list[str] = field(default_factory=list)
    """What there are no rows of, and why."""

    def ratio(self, row: Row) -> float | None:
        """Gates at equal throughput against those of focused quantisation in 5 bits, in the same architecture."""
        for other in self.rows:
            if (other.scheme, other.architecture) == (REFERENCE, row.architecture):
                return row.gates_at_target / other.gates_at_target
        return None

    @property
    def macs(self) -> int:
        """Multiplications an image; taps in the padding, where they are not counted, are none."""
        windows = _windows(self.layer, self.assumptions.padded_taps)
        return self.layer.shape.in_channels * self.layer.shape.out_channels * windows

    @property
    def _few_coefficient_bits(self) -> bool:
        return self.assumptions.coefficient_bits < COEFFICIENT_BITS

    def parts(self) -> "list[Comparison]":
        """Unrolled circuits and engines apart: they have columns of their own."""
        kinds = [[row for row in self.rows if row.sized is None], [row for row in self.rows if row.sized is not None]]
        return [replace(self, rows=rows) for rows in kinds if rows]

    @property
    def title(self) -> str:
        """Of a table."""
        return f"layer {self.layer.text}, {'on engines' if any(row.sized for row in self.rows) else 'unrolled'}"

    def headings(self) -> list[str]:
        """Those of the columns that say something of some row of a part; the first two are names."""
        left = set() if any(row.check for row in self.rows) else {"flat check"}
        left |= set(OF_CIRCUITS if any(row.sized for row in self.rows) else OF_ENGINES)
        return [name for name in COLUMNS if name not in left]

    def cells(self) -> list[list[str]]:
        """A line of a table for each row."""
        return [[COLUMNS[name](self, row) for name in self.headings()] for row in self.rows]

    def flat_rows(self) -> list[dict[str, Any]]:
        """The rows of the JSON form without anything nested."""
        rows: list[dict[str, Any]] = self.to_json()["rows"]
        for row in rows:
            check, engine = row.pop("flat_check"), row.pop("engine") or {}
            row["flat_difference"] = None if check is None else check["difference"]
            row |= {f"engine_{name}": engine.get(name) for name in ENGINE_FIELDS}
        return rows

    def notes(self) -> list[str]:
        """What the figures assume, for a reader."""
        tool, flow_hashes = self.tool, self.flows
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
        found = [
            f"layer {self.layer.text}, stride 1, padding {self.layer.shape.padding[0]}: {self.macs:,} MACs, taps in "
            f"the padding {taps}; "
            + "".join(f"{text}; " for text in changed)
            + f"seeded weights (seed {self.seed}) where no network is named"
        ]
        if any(row.report for row in self.rows):
            found.append(
                "unrolled: one image a cycle; constants are wires; each distinct adder and multiplier is synthesised "
                "once and counted as often as it stands in the layer"
            )
        engines = [row.sized for row in self.rows if row.sized]
        if engines:
            found += [
                f"engine: of each array the engine of the fewest gates that takes {engines[0].target:,} cycles for "
                "the layer or fewer: rows x lanes, Q post lanes, weights streamed, whole engines with decoder, post "
                "lanes and control, taps in the padding included; weight bytes are all that the layer reads",
                f"gates at target: gates x cycles / {engines[0].target:,}, equal throughput made exact; ratios are of "
                "these",
                "engine counts are composed of engines that were synthesised whole "
                "(docs/throughput.md: by how much they miss some that were not used for it); "
                "their ALMs are with DSP blocks",
            ]
        return [
            *found,
            f"{tool}; ALUTs by synth_intel_alm for Cyclone V; flows: "
            + ", ".join(f"{name} {digest[:12]}" for name, digest in flow_hashes.items()),
            f"shares are of a {STRATIX_10_GX_2800.name} ({STRATIX_10_GX_2800.alms:,} ALMs); no clock is claimed",
            *(f"left out: {reason}" for reason in self.refused),
        ]

    @property
    def tool(self) -> str:
        """What counted."""
        return tool_version()

    @property
    def flows(self) -> dict[str, str]:
        """Hashes of the flows by name."""
        return {flow.name: flow.sha256 for flow in flows(flat=False)}

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "schema": 1,
            "layer": self.layer.text,
            "macs": self.macs,
            "seed": self.seed,
            "assumptions": asdict(self.assumptions),
            "reference": REFERENCE,
            "device": STRATIX_10_GX_2800.name,
            "tool": self.tool,
            "flows": self.flows,
            "rows": [self._row_json(row) for row in self.rows],
            "refused": self.refused,
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        counts, report = row.counts, row.report
        low, high = counts.device_share
        return {
            "scheme": row.scheme,
            "title": row.title,
            "architecture": row.architecture,
            "cycles": row.cycles,
            "images_per_cycle": 1 / row.cycles,
            "rtl_sha256": None if report is None else report.rtl_sha256,
            "gates": counts.gates,
            "gates_at_target": round(row.gates_at_target),
            "ratio": self.ratio(row),
            "gates_per_mac": counts.gates / self.macs,
            "inverters": counts.inverters,
            "equivalents": counts.equivalents,
            "aluts": counts.aluts,
            "carry_bits": counts.carry_bits,
            "alms_low": counts.alms_low,
            "alms_high": counts.alms_high,
            "dsps": counts.dsps,
            "alms_dsp_low": counts.alms_dsp_low,
            "alms_dsp_high": counts.alms_dsp_high,
            "registers": counts.registers,
            "memory_bits": counts.memory_bits,
            "m20ks": counts.m20ks,
            "weight_bytes": row.weight_bytes,
            "coded_bytes": row.coded_bytes,
            "depth": counts.depth,
            "share_alm_low": low,
            "share_alm_high": high,
            "distinct_modules": None if report is None else len(report.modules),
            "engine": None if row.sized is None else row.sized.to_json(),
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


def _bounds(low: int | None, high: int | None) -> str:
    return "" if low is None or high is None else f"{low:,} .. {high:,}"


COLUMNS: dict[str, Callable[[Comparison, Row], str]] = {
    "scheme": lambda _, row: row.scheme,
    "architecture": lambda _, row: row.architecture,
    "engine": lambda _, row: "" if row.sized is None else row.sized.text,
    "cycles": lambda _, row: f"{row.cycles:,}",
    "images/cycle": lambda _, row: f"{1 / row.cycles:.3g}",
    "gates": lambda _, row: f"{row.counts.gates:,}",
    "gates at target": lambda _, row: f"{row.gates_at_target:,.0f}",
    "ratio": lambda found, row: "" if found.ratio(row) is None else f"{found.ratio(row):.3f}",
    "array": lambda _, row: "" if row.sized is None else f"{row.sized.parts['array'].gates:,.0f}",
    "decoder": lambda _, row: "" if row.sized is None else f"{row.sized.decoder_share:.1%}",
    "gates/MAC": lambda found, row: f"{row.counts.gates / found.macs:.1f}",
    "GE": lambda _, row: f"{row.counts.equivalents:,.0f}",
    "ALMs": lambda _, row: _bounds(row.counts.alms_low, row.counts.alms_high),
    "ALMs with DSP": lambda _, row: _bounds(row.counts.alms_dsp_low, row.counts.alms_dsp_high),
    "DSP": lambda _, row: f"{row.counts.dsps:,}",
    "registers": lambda _, row: f"{row.counts.registers:,}",
    "memory bits": lambda _, row: f"{row.counts.memory_bits:,}",
    "M20K": lambda _, row: f"{row.counts.m20ks:,}",
    "weight bytes": lambda _, row: f"{row.weight_bytes:,}",
    "depth": lambda _, row: "" if row.counts.depth is None else f"{row.counts.depth:,}",
    "share of device": lambda _, row: "{:,.0%} .. {:,.0%}".format(*row.counts.device_share),
    "flat check": lambda _, row: "" if row.difference is None else f"{row.difference:+.1%}",
}
"""What a table says of a row, by heading."""
OF_ENGINES = ("engine", "cycles", "images/cycle", "gates at target", "array", "decoder", "ALMs with DSP")
"""Columns that say something of engines alone."""
OF_CIRCUITS = ("gates/MAC", "ALMs", "depth")
"""Columns that say something of unrolled layers alone."""


def compare_layer(
    layer: Layer,
    *,
    schemes: Sequence[str] = (),
    architectures: Sequence[str] = (),
    seed: int = 0,
    assumptions: Assumptions = NO_CHANGE,
    check: bool = False,
    cycles: int | None = None,
    others: "Sequence[UnrolledSubject]" = (),
    models: Models | None = None,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> Comparison:
    """Count a layer with seeded weights of each scheme.

    Parameters
    ----------
    layer : geometry
    schemes : names in `sim.unrolled.SCHEMES`, all unless given
    architectures : ``direct`` and ``grouped`` (`kernels.unrolled`), both unless given, and ``engine``
    seed : of the weights
    assumptions : what is counted otherwise, of unrolled layers
    check : whether 64 taps of each are synthesised as one module too
    cycles : that the layer may take on an engine; as many as 8-bit fixed point on the default engine and 1 % more
        unless given
    others : unrolled layers that stand beside them (`network_subjects`)
    models : cost models of engines, where the caller has some
    cache, notice, jobs : as for `synth.synthesize_component`

    >>> compare_layer(parse_layer("3,4,4,4,4"), schemes=["shift"]).rows[0].report.gates.two_input  # doctest: +SKIP
    """
    chosen = [scheme_named(name) for name in dict.fromkeys(schemes or SCHEMES)]
    named = dict.fromkeys(architectures or STRUCTURES)
    structures = [_structure(name) for name in named if name != ENGINE]
    found = Comparison(layer, seed, assumptions)
    if cycles is not None and ENGINE not in named:
        raise FormatError(f"cycles must come with the architecture {ENGINE}")
    if ENGINE in named and assumptions != NO_CHANGE:
        raise FormatError(f"assumptions must be left out with the architecture {ENGINE}: its layers are as they run")
    if ENGINE in named and check:
        raise FormatError(f"a check must be left out with the architecture {ENGINE}: it is of unrolled channels")
    if ENGINE in named:
        models = models or Models(cache=cache, notice=notice, jobs=jobs)
        _engine_rows(found, chosen, cycles, models, notice)
        if not structures and not found.rows:
            raise CapacityError(found.refused[0])

    def subjects() -> Iterator[UnrolledSubject]:
        for scheme in chosen if structures else ():
            seeded = seeded_layer(scheme, layer.shape, seed)
            decoders = _decoders(seeded.drawn.codes.spec, seeded, layer.shape.out_channels)
            for structure in structures:
                yield UnrolledSubject(
                    scheme.name, scheme.title, structure, seeded.unrolled, seeded.coded_bytes, decoders
                )
        yield from others

    with Runner(cache, notice, jobs) as runner:
        found.rows.extend(_unrolled_rows(found, subjects(), check, runner))
    order = list(dict.fromkeys([*(scheme.name for scheme in chosen), *(each.scheme for each in others)]))
    found.rows.sort(key=lambda row: (order.index(row.scheme), ARCHITECTURES.index(row.architecture)))
    return found


def _engine_rows(
    found: Comparison,
    schemes: Sequence[Scheme],
    cycles: int | None,
    models: Models,
    notice: Callable[[str], None] | None,
) -> None:
    """Each scheme on its engines; what no engine does in time, or holds, is refused by name."""
    layer, seed = found.layer, found.seed
    size = layer.height, layer.width
    try:
        target = default_target(layer.shape, size, seed) if cycles is None else cycles
    except CapacityError as error:
        found.refused.append(f"on engines: {error}")
        return
    for scheme in schemes:
        coded = seeded_layer(scheme, layer.shape, seed).coded_bytes
        for each in size_layer(scheme, layer.shape, size, target, models, found.refused.append, seed, notice):
            counts = Counts.of_engine(each)
            found.rows.append(Row(scheme.name, scheme.title, ENGINE, counts, each.bytes_read, coded, sized=each))


@dataclass(frozen=True)
class UnrolledSubject:
    """A layer that is unrolled in a structure: what its row says of it, its constants, and what stands beside them."""

    scheme: str
    title: str
    structure: Structure
    layer: UnrolledLayer
    coded_bytes: int
    decoders: Sequence[Part] = ()


def network_subjects(
    layer: Layer, name: str, own: MacLayer, coded_bytes: int, *, architectures: Sequence[str] = STRUCTURES
) -> list[UnrolledSubject]:
    """The same layer with the weights of a network's layer, under a name of the caller's: for `compare_layer`."""
    if own.shape != layer.shape:
        raise FormatError(
            f"{own.node.name} must be a layer {layer.text} of stride 1, not {own.shape.in_channels} -> "
            f"{own.shape.out_channels}, kernel {own.shape.kernel}, stride {own.shape.stride}, padding "
            f"{own.shape.padding}"
        )
    if ENGINE in architectures:
        raise FormatError(f"a network's layer must be unrolled, not on the architecture {ENGINE}: --network has those")
    unrolled = network_layer(own)
    structures = [_structure(each) for each in dict.fromkeys(architectures)]
    return [UnrolledSubject(name, name, structure, unrolled, coded_bytes) for structure in structures]


def network_rows(
    found: Comparison,
    name: str,
    own: MacLayer,
    coded_bytes: int,
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> None:
    """Add those of a network's layer alone; `cache`, `notice` and `jobs` are as for `synth.synthesize_component`."""
    with Runner(cache, notice, jobs) as runner:
        found.rows.extend(_unrolled_rows(found, network_subjects(found.layer, name, own, coded_bytes), False, runner))


def _unrolled_rows(
    found: Comparison, subjects: Iterable[UnrolledSubject], check: bool, runner: Runner
) -> Iterator[Row]:
    """Rows in the subjects' order. While the modules of one are run, the circuits of the next are made."""
    before: tuple[UnrolledSubject, LayerCount] | None = None
    for each in subjects:
        each = replace(each, layer=found.assumptions.applied(each.layer))
        begun = LayerCount(
            each.layer,
            (found.layer.height, found.layer.width),
            each.structure,
            runner,
            padded=found.assumptions.padded_taps,
            decoders=each.decoders,
            label=f"{each.scheme}, {each.structure}",
        )
        if before is not None:
            yield _unrolled_row(found, *before, check, runner)
        before = each, begun
    if before is not None:
        yield _unrolled_row(found, *before, check, runner)


def _unrolled_row(found: Comparison, subject: UnrolledSubject, counts: LayerCount, check: bool, runner: Runner) -> Row:
    of_layer = {"scheme": subject.scheme, "layer": found.layer.text, "seed": found.seed}
    report = counts.report(of_layer | asdict(found.assumptions))
    flat = check_flattened(subject.layer, subject.structure, runner) if check else None
    counted, coded = Counts.of_report(report), subject.coded_bytes
    return Row(subject.scheme, subject.title, subject.structure, counted, 0, coded, report, flat)


def _structure(name: str) -> Structure:
    for structure in get_args(Structure):
        if structure == name:
            return structure  # type: ignore[no-any-return]
    raise FormatError(f"architecture must be one of {', '.join(ARCHITECTURES)}, not {name!r}")


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
