"""What an unrolled layer costs: each distinct adder and multiplier synthesised once, summed over the layer's circuits.

Between input and output registers everything is combinational. Depth is that of the netlist's longest path, bit by bit,
through the circuits of the pixels that see most taps.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..kernels import unrolled as kernels
from ..kernels.unrolled import Circuit, Plan, Structure, UnrolledLayer
from .collector import no_collection
from .depth import Paths
from .runner import Runner
from .synth import FlatCheck, Part, PartsCount, SynthReport, flat_check, parts_sha256
from .unrolled import Adder, ConstantMultiplier, UnrolledDot
from .unrolled_depth import CircuitDepths, Parameters

__all__ = ["CHECKED_TAPS", "LayerCount", "check_flattened", "layer_sha256"]

CHECKED_TAPS = 64
"""Of a channel that is small enough to be synthesised as one module."""


class Register(wiring.Component):  # type: ignore[misc]
    """One bit, held for a cycle."""

    def __init__(self) -> None:
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """A flip-flop without reset."""
        m = Module()
        held = Signal(reset_less=True)
        m.d.sync += held.eq(self.i)
        m.d.comb += self.o.eq(held)
        return m


@dataclass
class _Census:
    """How often a layer has each module, and bits of registers."""

    modules: Counter[Parameters]
    register_bits: int
    deepest: list[Circuit]
    """Of every channel the circuit of most taps."""

    @property
    def ordered(self) -> list[Parameters]:
        """The modules in an order that only they decide."""
        return sorted(self.modules, key=lambda parameters: (type(parameters).__name__, repr(parameters)))

    @property
    def parts(self) -> list[Part]:
        """What is to be synthesised: the modules in order, then the registers."""
        modules = [Part(_title(each), _component(each), self.modules[each]) for each in self.ordered]
        return [*modules, Part("register", Register(), self.register_bits)]


class LayerCount:
    """A whole layer, one image a cycle, on its way to a report: the runs begin at once, and `report` waits for them.

    Parameters
    ----------
    layer : its constants
    size : rows and columns of its input
    structure : of its circuits
    runner : of the runs
    padded : whether taps in the padding have adders too, as if padding were no constant
    decoders : what stands beside the circuits, with how many of it
    label : what messages call the layer
    """

    def __init__(
        self,
        layer: UnrolledLayer,
        size: tuple[int, int],
        structure: Structure,
        runner: Runner,
        *,
        padded: bool = False,
        decoders: Sequence[Part] = (),
        label: str = "layer",
    ) -> None:
        def tell(text: str) -> None:
            if runner.notice is not None:
                runner.notice(f"{label}: {text}")

        self._structure = structure
        self._census = _census(layer, size, structure, padded, tell)
        self._counts = PartsCount([*self._census.parts, *decoders], runner, label)

    def report(self, params: Mapping[str, Any] | None = None) -> SynthReport:
        """What the layer costs; `params` are for the report."""
        return self._counts.report("unrolled", {"structure": self._structure} | dict(params or {}), self._depth)

    def _depth(self, paths: Sequence[Paths]) -> int:
        # What is none of the circuits' modules comes last: registers, decoders.
        depths = CircuitDepths(dict(zip(self._census.ordered, paths, strict=False)))
        with no_collection():
            return max(map(depths.depth, self._census.deepest), default=0)


def layer_sha256(layer: UnrolledLayer, size: tuple[int, int], structure: Structure, *, padded: bool = False) -> str:
    """The hash of the RTL that `LayerCount` counts, decoders apart."""
    return parts_sha256(_census(layer, size, structure, padded, None).parts)


def check_flattened(
    layer: UnrolledLayer, structure: Structure, runner: Runner, *, taps: int = CHECKED_TAPS
) -> FlatCheck:
    """Count the first taps of the layer's first channel as a sum over its modules, and synthesised whole."""
    dot = layer.dot(0, structure)
    short = kernels.UnrolledDot(
        tuple(plane[:taps] for plane in dot.weights),
        dot.coefs,
        dot.bits,
        dot.signed,
        dot.activation_planes,
        structure,
    )
    params = {"taps": short.taps, "structure": structure}
    return flat_check(UnrolledDot(short), "unrolled", params, runner)


def _census(
    layer: UnrolledLayer,
    size: tuple[int, int],
    structure: Structure,
    padded: bool,
    notice: Callable[[str], None] | None,
) -> _Census:
    windows = layer.windows(*size, padded=padded)
    most = max(windows, key=lambda window: len(window.rows) * len(window.columns))
    census = _Census(Counter(), size[0] * size[1] * layer.shape.in_channels * layer.bits, [])
    # Circuits share plans, which are told apart by identity: each has thousands of steps.
    plans: dict[int, Plan] = {}
    pixels: Counter[int] = Counter()
    with no_collection():
        for channel in range(layer.shape.out_channels):
            if notice is not None:
                notice(f"circuits of channel {channel + 1} of {layer.shape.out_channels}")
            for window in windows:
                circuit = layer.dot(channel, structure, window).circuit
                for plan, _, _ in circuit.plans:
                    plans[id(plan)] = plan
                    pixels[id(plan)] += window.pixels
                for multiplier, count in Counter(multiplier for multiplier, _ in circuit.multipliers).items():
                    census.modules[multiplier] += count * window.pixels
                census.register_bits += (circuit.net.bits + circuit.result.place) * window.pixels
                if window is most:
                    census.deepest.append(circuit)
        for at, plan in plans.items():
            for adder, count in plan.adders.items():
                census.modules[adder] += count * pixels[at]
    return census


def _component(parameters: Parameters) -> wiring.Component:
    return Adder(parameters) if isinstance(parameters, kernels.Adder) else ConstantMultiplier(parameters)


def _title(parameters: Parameters) -> str:
    if isinstance(parameters, kernels.ConstantMultiplier):
        return f"multiplier {parameters.bits} bits by {parameters.constant}"
    sign = "-" if parameters.subtract else "+"
    carry = " + carry" if parameters.carry else ""
    return f"adder {parameters.a_bits} {sign} {parameters.b_bits}{carry} bits"
