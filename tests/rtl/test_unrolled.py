import numpy as np
import pytest
from amaranth.sim import Simulator
from gatewise.kernels.conv import ConvShape
from gatewise.kernels.errors import FormatError
from gatewise.kernels.unrolled import STRUCTURES, UnrolledDot
from gatewise.rtl import unrolled
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.regress import run_bench
from gatewise.rtl.runner import Runner
from gatewise.rtl.synth import flat_check
from gatewise.sim.unrolled import SCHEMES, seeded_layer

BLOCK = BLOCKS["unrolled"]


def activations(dot, count=20):
    """Random ones, and all of the least and of the greatest value."""
    rng = np.random.default_rng(0)
    low, high = (-(1 << (dot.bits - 1)), (1 << (dot.bits - 1)) - 1) if dot.signed else (0, (1 << dot.bits) - 1)
    ends = [np.full(dot.taps, low), np.full(dot.taps, high)]
    return np.concatenate([rng.integers(low, high + 1, (count, dot.taps)), ends])


def simulated(dot, values, component=unrolled.UnrolledDot):
    """What the circuit makes of activations, in Amaranth's simulator."""
    circuit = component(dot)
    found = []

    async def bench(ctx):
        for each in values.tolist():
            for tap, value in enumerate(each):
                ctx.set(circuit.activations[tap], value)
            await ctx.delay(1e-9)
            found.append(ctx.get(circuit.sum))

    simulator = Simulator(circuit)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(found)


def scheme_dot(scheme, structure, taps=8, seed=0):
    return seeded_layer(SCHEMES[scheme], ConvShape(taps, 1), seed).unrolled.dot(0, structure)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_circuit_of_every_scheme_is_the_dot_product(scheme, structure):
    dot = scheme_dot(scheme, structure)
    values = activations(dot)
    assert (simulated(dot, values) == dot.compute(values)).all()


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("weights", [(0, 0), (-1, -3), (1, 512, -2048), (255, -255, 96, 7, -7, 7)])
def test_the_circuit_of_any_constants_is_the_dot_product(weights, signed, structure):
    dot = UnrolledDot((weights,), bits=4, signed=signed, structure=structure)
    values = activations(dot)
    assert (simulated(dot, values) == dot.compute(values)).all()


@pytest.mark.usefixtures("icarus")
def test_the_regression_compares_the_circuit_with_the_dot_product():
    result = run_bench(BLOCK, {"taps": 9}, vectors=200)
    assert result.mismatch is None


FAULTS = {
    "the carry's place": ("(a + b) >> 1", "(a + b) >> 2"),
    "a carry that is left out": ("Cat(self.carry, self.b)", "Cat(Const(0, 1), self.b)"),
    "a difference turned": ("self.a - self.b", "self.b - self.a"),
    "a full adder's carry": ("self.a & self.b | half & carry", "self.a & self.b | half"),
    "the sign of a digit": ("total + term if sign > 0", "total + term if sign < 0"),
    "an operand that is not shifted": ("_upper(a, step.place) if step.place", "a if step.place"),
    "a bit that does not pass by": ("len(a)))[: step.place]", "len(a)))[: step.place - 1]"),
    "a sign that is not extended": ("value[-1] if value.shape().signed else Const(0, 1)", "Const(0, 1)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault, planted):
    faulty = planted(unrolled, *FAULTS[fault])["UnrolledDot"]
    dots = [
        scheme_dot("lqnet-a2", "direct"),
        scheme_dot("focused5", "grouped", 12),
        UnrolledDot(((1, 512, -2048, 7),), bits=4, signed=True, structure="direct"),
    ]
    for dot in dots:
        values = activations(dot)
        if not (simulated(dot, values, faulty) == dot.compute(values)).all():
            return
    pytest.fail("no circuit tells")


def test_the_sum_over_the_adders_agrees_with_the_circuit_flattened(synth_cache):
    with Runner(synth_cache) as runner:
        check = flat_check(unrolled.UnrolledDot(scheme_dot("ternary", "direct", 16)), "dot", {}, runner)
    assert abs(check.gates_sum - check.gates_flat) < 0.03 * check.gates_flat
    assert abs(check.aluts_sum - check.aluts_flat) < 0.05 * check.aluts_flat


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"taps": 0}, "taps must be 1 to 4096, not 0"),
        ({"scheme": "float"}, f"scheme must be one of {', '.join(SCHEMES)}, not 'float'"),
        ({"structure": "flat"}, "unrolled parameter structure must be one of direct, grouped, not 'flat'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(FormatError, match=f"^{message}$"):
        BLOCK.create(settings)
