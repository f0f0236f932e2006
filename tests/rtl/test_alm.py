import pytest
from gatewise.rtl.alm import AlmBounds, pack


def alut(*inputs, out=None):
    ports = {port: [net] for port, net in zip("ABCDEF", inputs, strict=False)}
    return {"type": f"MISTRAL_ALUT{len(inputs)}", "connections": ports | {"Q": [out]}}


def register(net):
    return {"type": "MISTRAL_FF", "connections": {"DATAIN": [net], "Q": [-net]}}


def adder(carry_in, carry_out):
    ports = {"A": [1], "B": [2], "CI": [carry_in], "SO": [carry_out + 1000], "CO": [carry_out]}
    return {"type": "MISTRAL_ALUT_ARITH", "connections": ports}


def test_an_empty_netlist_needs_no_alm():
    assert pack([]) == AlmBounds(0, 0)


@pytest.mark.parametrize(
    ("sizes", "bounds"),
    [
        ((4, 4), (1, 1)),
        ((5, 3), (1, 1)),
        ((5, 4), (1, 2)),
        ((5, 5), (1, 2)),
        ((6, 2), (2, 2)),
        ((6, 6), (2, 2)),
        ((5, 2, 2, 4), (2, 2)),
        ((3, 3, 3), (2, 2)),
    ],
)
def test_functions_of_distinct_inputs_pair_as_documented(sizes, bounds):
    nets = iter(range(100))
    assert pack([alut(*(next(nets) for _ in range(size))) for size in sizes]) == bounds


def test_six_input_functions_pair_at_best_where_they_share_four_inputs():
    assert pack([alut(1, 2, 3, 4, 5, 6), alut(1, 2, 3, 4, 7, 8)]) == (1, 2)
    assert pack([alut(1, 2, 3, 4, 5, 6), alut(1, 2, 3, 7, 8, 9)]) == (2, 2)


def test_a_carry_chain_takes_half_an_alm_a_bit():
    assert pack([adder("0", 10), adder(10, 11), adder(11, 12)]) == (2, 2)


def test_chains_do_not_share_an_alm_at_worst():
    assert pack([adder("0", 10), adder("0", 20)]) == (1, 2)


def test_a_carry_in_costs_a_bit_at_worst():
    assert pack([adder("1", 10), adder(10, 11)]) == (1, 2)


def test_an_inverter_is_absorbed_at_best():
    assert pack([{"type": "MISTRAL_NOT", "connections": {"A": [1], "Q": [2]}}]) == (0, 1)


def test_registers_stand_behind_the_alut_that_feeds_them():
    assert pack([alut(1, 2, out=50), register(50), register(50)]) == (1, 1)
    assert pack([alut(1, 2, out=50), register(50), register(50), register(50)]) == (1, 2)


def test_registers_alone_fill_alms_by_four():
    assert pack([register(net) for net in range(1, 10)]) == (3, 3)
