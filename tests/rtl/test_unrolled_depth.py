from functools import cache

import numpy as np
import pytest
from gatewise.kernels.conv import ConvShape
from gatewise.kernels.unrolled import STRUCTURES, Adder, Circuit, ConstantMultiplier, Net, Term, UnrolledDot
from gatewise.rtl.depth import Paths
from gatewise.rtl.unrolled_depth import CircuitDepths
from gatewise.sim.unrolled import SCHEMES, seeded_layer
from hypothesis import given, settings
from hypothesis import strategies as st


@cache
def paths(module, seed=0):
    """Random delays from operands' bits to the result's, not all of them there."""
    rng = np.random.default_rng([seed, sum(repr(module).encode())])
    if isinstance(module, Adder):
        widths = {"a": module.a_bits, "b": module.b_bits} | ({"carry": 1} if module.carry else {})
        bits = module.out_bits
    else:
        widths, bits = {"a": module.bits}, module.net.bits
    pins = [f"{name}[{bit}]" for name, width in widths.items() for bit in range(width)]
    # Few, and of many lengths: of many short ones the longest would nearly always be the same.
    delays = (rng.integers(0, 500, (bits, len(pins))) * (rng.random((bits, len(pins))) < 0.3)).tolist()
    through = {
        f"out[{bit}]": {pin: gates for pin, gates in zip(pins, row, strict=True) if gates}
        for bit, row in enumerate(delays)
    }
    return Paths(through=through)


def modules(circuit):
    """All that it is made of."""
    return {step.adder for _, step in circuit.steps() if step.adder} | {each for each, _ in circuit.multipliers}


def longest(circuit):
    """The longest path, every bit of every net by itself."""
    products = len(circuit.nets) - len(circuit.multipliers) - sum(len(plan.steps) for plan, _, _ in circuit.plans)
    multipliers = {products + at: each for at, (each, _) in enumerate(circuit.multipliers)}
    steps = dict(circuit.steps())

    def made(module, bit, operands):
        found = 0
        for pin, gates in paths(module).through[f"out[{bit}]"].items():
            name, _, index = pin.rstrip("]").partition("[")
            found = max(found, operands[name](int(index)) + gates)
        return found

    @cache
    def arrival(net, bit):
        if net in multipliers:
            return made(multipliers[net], bit, {"a": lambda _: 0})
        if net not in steps:
            return 0
        step = steps[net]

        def extended(at):
            # Beyond the last bit it is the sign; an unsigned number's zeros are taken to come as late.
            return arrival(step.a, min(at, circuit.nets[step.a].bits - 1)) if step.a >= 0 and at >= 0 else 0

        if bit < step.place:
            return extended(bit)
        if step.adder is None:
            return arrival(step.b, bit - step.place)
        both = [lambda at: extended(at + step.place - step.lift), lambda at: arrival(step.b, at)]
        first, second = reversed(both) if step.swapped else both
        operands = {"a": first, "b": second, "carry": lambda _: arrival(step.carry, 0)}
        return made(step.adder, bit - step.place, operands)

    net = circuit.result.net
    return max((arrival(net, bit) for bit in range(circuit.nets[net].bits)), default=0) if net >= 0 else 0


def depths(*circuits):
    """By the class itself, which sees one after the other."""
    found = CircuitDepths({module: paths(module) for circuit in circuits for module in modules(circuit)})
    return [found.depth(circuit) for circuit in circuits]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_depth_of_every_scheme_is_the_longest_path_bit_by_bit(scheme, structure):
    layer = seeded_layer(SCHEMES[scheme], ConvShape(12, 3), 0).unrolled
    circuits = [layer.dot(channel, structure).circuit for channel in range(3)]
    assert depths(*circuits) == [longest(circuit) for circuit in circuits]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(-300, 300), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(STRUCTURES),
)
def test_circuits_do_not_borrow_depths_of_others(weights, bits, signed, structure):
    circuits = [UnrolledDot((tuple(row),), bits=bits, signed=signed, structure=structure).circuit for row in weights]
    assert depths(*circuits) == [longest(circuit) for circuit in circuits]


def test_a_plan_is_followed_for_what_it_is_given():
    # Numbers of one range, so that one plan adds them: inputs, and products that come later.
    at_once, later = Circuit([Net(0, 21)] * 3), Circuit([Net(0, 7)] * 3)
    products = [later.multiply(ConstantMultiplier(3, False, 3), net) for net in range(3)]
    for circuit, nets in ((at_once, range(3)), (later, products)):
        circuit.result = circuit.total((1, Term(net, 0)) for net in nets)
    assert at_once.plans[0][0] is later.plans[0][0]
    assert longest(at_once) < longest(later)
    assert depths(at_once, later) == [longest(at_once), longest(later)]


def test_an_operand_that_is_swapped_brings_its_own_delays():
    # Of numbers of as many bits the one with a sign comes first: their lengths do not tell which.
    circuit = UnrolledDot(((-1, -4, -3, 6, -5, 7),), bits=3).circuit
    alike = [step for _, step in circuit.steps() if step.swapped and step.adder.a_bits == step.adder.b_bits]
    assert alike
    assert depths(circuit) == [longest(circuit)]


def test_nothing_is_no_gates_deep():
    assert depths(UnrolledDot(((0, 0),)).circuit) == [0]
    assert depths(UnrolledDot(((0, 4),)).circuit) == [0]
