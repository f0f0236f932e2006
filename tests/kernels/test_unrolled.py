from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.unrolled import Adder, ConstantMultiplier, Net, UnrolledDot, signed_digits
from hypothesis import given
from hypothesis import strategies as st


def evaluate(dot, activations):
    """The circuit's own result, step by step, every adder by its golden model; and that every net keeps its range."""
    circuit = dot.circuit
    inputs = np.moveaxis(np.asarray(activations, dtype=np.int64), -1, 0)
    if dot.activation_planes:
        inputs = np.concatenate([(inputs >> plane) & 1 for plane in range(dot.bits)])
    nets = {-1: np.zeros_like(inputs[0]), **dict(enumerate(inputs))}
    for at, (multiplier, net) in enumerate(circuit.multipliers):
        nets[len(inputs) + at] = multiplier.compute(nets[net])
    for made, step in circuit.steps():
        a, b = nets[step.a] << step.lift, nets[step.b]
        carry = nets[step.carry] if step.carry >= 0 else 0
        if step.adder is None:
            nets[made] = a | b << step.place
        else:
            nets[made] = step.adder.compute(a >> step.place, b, carry) << step.place | a & ((1 << step.place) - 1)
    for net, values in nets.items():
        if net >= 0:
            low, high = circuit.nets[net]
            assert low <= values.min(), (net, low, values.min())
            assert values.max() <= high
    return nets[circuit.result.net] << circuit.result.place


def adders(circuit):
    """How often it has each adder."""
    return Counter(step.adder for _, step in circuit.steps() if step.adder is not None)


def corners(dot, count=64, seed=0):
    """Random activations among all-least, all-greatest, and those of greatest and least output."""
    rng = np.random.default_rng(seed)
    low, high = (-(1 << (dot.bits - 1)), (1 << (dot.bits - 1)) - 1) if dot.signed else (0, (1 << dot.bits) - 1)
    values = rng.integers(low, high + 1, (count, dot.taps))
    positive = np.array(dot.weights[0]) > 0
    extremes = [np.full(dot.taps, low), np.full(dot.taps, high)]
    extremes += [np.where(positive, low, high), np.where(positive, high, low)]
    return np.concatenate([values, extremes])


@st.composite
def dots(draw):
    taps = draw(st.integers(1, 24))
    planes = draw(st.integers(1, 3))
    activation_planes = draw(st.booleans())
    bits = draw(st.integers(1, 4 if activation_planes else 8))
    count = planes * (bits if activation_planes else 1)
    most = draw(st.sampled_from((1, 3, 15, 127, 4095)))
    weights = [draw(st.lists(st.integers(-most, most), min_size=taps, max_size=taps)) for _ in range(planes)]
    coefs = [1] if count == 1 else draw(st.lists(st.integers(-32768, 32767), min_size=count, max_size=count))
    return UnrolledDot(
        tuple(map(tuple, weights)),
        tuple(coefs),
        bits,
        not activation_planes and draw(st.booleans()),
        activation_planes,
        draw(st.sampled_from(("direct", "grouped"))),
    )


@given(dots())
def test_the_circuit_computes_the_dot_product(dot):
    values = corners(dot)
    assert (evaluate(dot, values) == dot.compute(values)).all()


def test_a_wrong_step_of_the_circuit_is_found():
    dot = UnrolledDot((tuple(range(-8, 8)),), structure="grouped")
    plan, given_nets, first = dot.circuit.plans[-1]
    step = plan.steps[-1]
    wrong = (*plan.steps[:-1], step._replace(place=step.place + 1))
    dot.circuit.plans[-1] = (type(plan)(wrong, plan.result), given_nets, first)
    values = corners(dot)
    with pytest.raises(AssertionError):
        assert (evaluate(dot, values) == dot.compute(values)).all()


@pytest.mark.parametrize("structure", ["direct", "grouped"])
@pytest.mark.parametrize("taps", [3, 4, 7, 8, 60])
def test_additions_are_one_fewer_than_terms(taps, structure):
    dot = UnrolledDot(((1,) * taps,), structure=structure)
    assert adders(dot.circuit).total() == taps - 1


def test_counting_bits_takes_a_full_adder_a_bit():
    # 2**n - 1 bits are counted by 2**n - 1 - n full adders: three wires become two.
    for n in range(2, 8):
        dot = UnrolledDot(((1,) * ((1 << n) - 1),), bits=1)
        found = adders(dot.circuit)
        assert all(adder.carry for adder in found)
        assert sum(count * adder.a_bits for adder, count in found.items()) == (1 << n) - 1 - n


def test_shifted_terms_are_added_by_places():
    # 255 + 255 twice, in nine bits; then ten bits, the lowest of which passes by the adder.
    dot = UnrolledDot(((1, 1, 2, 2),), structure="direct")
    assert adders(dot.circuit) == {
        Adder(8, False, 8, False, 9, False): 2,
        Adder(9, False, 8, False, 10, False): 1,
    }
    assert dot.circuit.net == Net(0, 6 * 255)


def test_what_does_not_overlap_costs_nothing():
    dot = UnrolledDot(((1, 16, 256),), bits=4)
    assert adders(dot.circuit) == {}
    assert dot.compute(np.array([3, 5, 7])) == evaluate(dot, np.array([[3, 5, 7]])) == 3 + 5 * 16 + 7 * 256


def test_grouping_multiplies_once_and_direct_for_each_tap():
    weights = ((7, 7, 7, -7, 14, 0),)
    direct, grouped = (UnrolledDot(weights, structure=each).circuit for each in ("direct", "grouped"))
    assert [multiplier for multiplier, _ in direct.multipliers] == [ConstantMultiplier(8, False, 7)] * 5
    assert not grouped.multipliers
    assert adders(grouped).total() == 4 + 1


def test_planes_share_the_sums_of_equal_signs_in_grouped_circuits():
    weights = ((1, 1, 1, 1, -1, -1, -1, -1), (1, 1, -1, -1, 1, 1, -1, -1))
    direct, grouped = (UnrolledDot(weights, (1, 1), structure=each).circuit for each in ("direct", "grouped"))
    assert adders(direct).total() == 2 * 7 + 1
    assert adders(grouped).total() == 2 * 3 + 2 + 1


def test_signed_digits_are_the_number_with_no_two_neighbours():
    for constant in range(-300, 301):
        digits = signed_digits(constant)
        assert sum(sign << place for sign, place in digits) == constant
        assert all(b - a > 1 for (_, a), (_, b) in pairwise(digits))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": ()}, r"weight planes must have one number of taps, at least 1, not \[\]"),
        ({"weights": ((1, 2), (1,))}, r"weight planes must have one number of taps, at least 1, not \[1, 2\]"),
        ({"weights": ((1,),), "coefs": (1, 2)}, "coefficients must be those of 1 planes, not 2"),
        ({"weights": ((1,),), "bits": 17}, "activations must have 1 to 16 bits, not 17"),
        ({"weights": ((1 << 23,),)}, "weights must have at most 24 bits, not 25"),
        ({"weights": ((1,),), "structure": "flat"}, "structure must be direct or grouped, not 'flat'"),
    ],
)
def test_what_cannot_be_wired_is_refused(arguments, message):
    with pytest.raises(FormatError, match=f"^{message}$"):
        UnrolledDot(**arguments)


def test_planes_have_no_sign():
    with pytest.raises(FormatError, match=r"^activation planes must be unsigned$"):
        UnrolledDot(((1,),), (1,), 1, signed=True, activation_planes=True)
