"""The accumulator: an exact addition, then one limit."""

import numpy as np
import pytest
from gatewise.kernels.accumulator import WIDE_DIGIT_SHIFT, Accumulator
from gatewise.kernels.mac import MacFormat
from hypothesis import given
from hypothesis import strategies as st


def accumulate(acc, row, digit_shift, bits, overflow, row_bits):
    found, over = Accumulator(MacFormat(acc=bits, overflow=overflow), row_bits).compute(
        np.array(acc), np.array(row), digit_shift
    )
    return found.tolist(), over.tolist()


@given(
    data=st.data(),
    bits=st.integers(12, 48),
    row_bits=st.integers(10, 30),
    digit_shift=st.integers(0, WIDE_DIGIT_SHIFT),
    overflow=st.sampled_from(["saturate", "wrap"]),
)
def test_a_step_adds_exactly_and_limits_once(reference, data, bits, row_bits, digit_shift, overflow):
    acc = st.integers(*reference.signed_limits(bits))
    row = st.integers(*reference.signed_limits(row_bits))
    pairs = data.draw(st.lists(st.tuples(acc, row), min_size=1, max_size=8))
    values, rows = zip(*pairs, strict=True)
    found = accumulate(values, rows, digit_shift, bits, overflow, row_bits)
    expected = [reference.accumulated(value, row, digit_shift, bits, overflow) for value, row in pairs]
    assert list(zip(*found, strict=True)) == expected


@pytest.mark.parametrize("bits", range(12, 49))
def test_both_ends_of_every_width_saturate_wrap_and_are_counted(reference, bits):
    low, high = reference.signed_limits(bits)
    ends, steps = [low, low, high, high], [0, -1, 0, 1]
    assert accumulate(ends, steps, 0, bits, "saturate", 10) == ([low, low, high, high], [False, True, False, True])
    assert accumulate(ends, steps, 0, bits, "wrap", 10) == ([low, high, high, low], [False, True, False, True])


def test_the_widest_step_into_the_widest_accumulator_stays_exact(reference):
    row = -(2**29)  # 64 lanes of 24 bits
    low, _ = reference.signed_limits(48)
    assert accumulate(low, row, 4, 48, "saturate", 30) == (low, True)
    assert accumulate(low, row, 4, 48, "wrap", 30) == (low + row * 16**4 + 2**48, True)


def test_the_check_catches_a_digit_shift_and_a_width_one_off(reference):
    expected = reference.accumulated(1500, 700, 1, 14, "saturate")[0]
    assert accumulate(1500, 700, 1, 14, "saturate", 12)[0] == expected
    assert accumulate(1500, 700, 0, 14, "saturate", 12)[0] != expected
    assert accumulate(1500, 700, 1, 13, "saturate", 12)[0] != expected
