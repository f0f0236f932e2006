"""XOR network: the gates of a constant matrix, and a matrix held in registers."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from collections.abc import Sequence

import numpy as np
from amaranth import Array, Cat, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from .bench import Bench, Fields, Layout
from .mac import settled

__all__ = [
    "XorGates",
    "XorGatesBench",
    "XorProduct",
    "XorProgrammable",
    "XorProgrammableBench",
    "balanced_xor",
    "bits_of_words",
    "index_shape",
]


def index_shape(count: int) -> range:
    """Shape of an index below `count`; one bit at least, so that it can be a port."""
    return range(max(2, count))


def balanced_xor(terms: Sequence[Value]) -> Value:
    """XOR of the terms, in as many levels as the logarithm of their count."""
    if len(terms) == 1:
        return terms[0]
    middle = (len(terms) + 1) // 2
    return balanced_xor(terms[:middle]) ^ balanced_xor(terms[middle:])


class XorGates(wiring.Component):  # type: ignore[misc]
    """Slice `x` of stored bits to the weight bits `y` of a constant network.

    Combinational: latency 0, one slice a cycle. Nothing but `parameters.gates` two-input XOR gates, less what equal
    terms of different rows share; ceil(log2(taps)) of them between input and output.
    """

    def __init__(self, parameters: kernels.XorNetwork) -> None:
        self.parameters = parameters
        super().__init__({"x": In(parameters.n_in), "y": Out(parameters.n_out)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        inputs = range(self.parameters.n_in)
        for o, row in enumerate(self.parameters.rows):
            m.d.comb += self.y[o].eq(balanced_xor([self.x[j] for j in inputs if row >> j & 1]))
        return m


class XorProduct(wiring.Component):  # type: ignore[misc]
    """Slice `x` times the matrix `rows`, over GF(2); outputs from `n_out` on are 0.

    Combinational: latency 0. An output is an AND with its row and a balanced tree of XOR gates.
    """

    def __init__(self, parameters: kernels.XorProgrammable) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "rows": In(data.ArrayLayout(parameters.n_in, parameters.n_out)),
                "n_out": In(range(parameters.n_out + 1)),
                "x": In(parameters.n_in),
                "y": Out(parameters.n_out),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for o in range(self.parameters.n_out):
            terms = self.rows[o] & self.x
            m.d.comb += self.y[o].eq(balanced_xor(list(settled(m, terms))) & (self.n_out > o))
        return m


class XorProgrammable(wiring.Component):  # type: ignore[misc]
    """Slice `x` of stored bits to the weight bits `y` of the network that the registers of `plane` hold.

    Latency 0 from `x`, `plane` and `n_out`, one slice a cycle. In a cycle with `write` up, `write_mask` becomes row
    `write_row` of plane `write_plane`; it holds from the next cycle on, so that a network is loaded in n_out cycles.
    A network of fewer inputs leaves the upper bits of its masks 0; outputs from the run-time `n_out` on are 0.
    Registers begin as zeros, without reset.
    """

    def __init__(self, parameters: kernels.XorProgrammable) -> None:
        self.parameters = parameters
        plane = index_shape(parameters.planes)
        super().__init__(
            {
                "write": In(1),
                "write_plane": In(plane),
                "write_row": In(index_shape(parameters.n_out)),
                "write_mask": In(parameters.n_in),
                "plane": In(plane),
                "n_out": In(range(parameters.n_out + 1)),
                "x": In(parameters.n_in),
                "y": Out(parameters.n_out),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = self.parameters
        outputs, planes = range(parameters.n_out), range(parameters.planes)
        m.submodules.product = product = XorProduct(parameters)
        matrices = [
            [Signal(parameters.n_in, name=f"plane_{plane}_row_{o}", reset_less=True) for o in outputs]
            for plane in planes
        ]
        for plane in planes:
            with m.If(self.write & (self.write_plane == plane)):
                for o in outputs:
                    with m.If(self.write_row == o):
                        m.d.sync += matrices[plane][o].eq(self.write_mask)
        held = [Cat(*matrix) for matrix in matrices]
        m.d.comb += [
            product.rows.eq(Array(held)[self.plane] if len(held) > 1 else held[0]),
            product.n_out.eq(self.n_out),
            product.x.eq(self.x),
            self.y.eq(product.y),
        ]
        return m


def bits_of_words(words: np.ndarray, bits: int) -> np.ndarray:
    """The bits (count, bits), uint8, of words (count,), least significant first."""
    return ((np.asarray(words, dtype=np.uint64)[:, None] >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)).astype(
        np.uint8
    )


class XorGatesBench(Bench[kernels.XorNetwork]):
    """Every slice, or random ones, through `XorNetwork.decode`."""

    def expected(self, inputs: Fields) -> Fields:
        outputs = self.parameters.decode(bits_of_words(inputs["x"], self.parameters.n_in))
        return {"y": (outputs.astype(np.int64) << np.arange(self.parameters.n_out)).sum(axis=1)}


class XorProgrammableBench(Bench[kernels.XorProgrammable]):
    """Rows written and slices decoded in the same cycles."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        parameters = self.parameters
        planes = (0, parameters.planes - 1)
        return {
            "n_out": (0, parameters.n_out),
            "write_row": (0, parameters.n_out - 1),
            "write_plane": planes,
            "plane": planes,
        }

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        vectors = super().stimulus(layout, rng, count)
        # Often the whole network, and rows of about as many ones as zeros.
        whole = rng.random(count) < 1 / 2
        vectors["n_out"][whole] = self.parameters.n_out
        vectors["write_mask"] ^= rng.integers(0, 1 << self.parameters.n_in, count)
        return vectors

    def expected(self, inputs: Fields) -> Fields:
        parameters = self.parameters
        held = np.zeros((parameters.planes, parameters.n_out), dtype=np.uint64)
        masks = np.empty((len(inputs["x"]), parameters.n_out), dtype=np.uint64)
        for t in range(len(masks)):
            masks[t] = held[inputs["plane"][t]]
            if inputs["write"][t]:
                held[inputs["write_plane"][t], inputs["write_row"][t]] = inputs["write_mask"][t]
        outputs = parameters.compute(masks, inputs["x"].astype(np.uint64), inputs["n_out"])
        return {"y": outputs.astype(np.int64)}
