"""One step of one row: lanes of multiplier and alignment, the tree, the accumulator."""

import numpy as np
import pytest
from gatewise.kernels.dot import DotProductRow
from gatewise.kernels.errors import FormatError
from gatewise.kernels.mac import MacFormat
from hypothesis import given
from hypothesis import strategies as st


def expected_step(reference, row, acc, a, w, amounts, either_signed, digit_shift):
    """One step in plain integers: (acc, product overflows, align overflows, acc overflow)."""
    fmt = row.format
    total = product_count = align_count = 0
    for lane in range(row.lanes):
        product, over = reference.multiplied(a[lane], w[lane], either_signed, fmt.product, fmt.overflow)
        product_count += over
        value, over = reference.aligned(product, row.kind, amounts[lane], fmt.align, fmt.overflow)
        align_count += over
        total += value
    acc, acc_over = reference.accumulated(acc, total, digit_shift, fmt.acc, fmt.overflow)
    return acc, product_count, align_count, acc_over


def found_step(row, acc, a, w, amounts, either_signed, digit_shift):
    step = row.compute(np.array(acc), np.array(a), np.array(w), np.array(amounts), not either_signed, digit_shift)
    return tuple(np.asarray(part).item() for part in step)


@st.composite
def steps(draw):
    row = DotProductRow(
        MacFormat(
            product=draw(st.integers(6, 9)),
            align=draw(st.integers(8, 24)),
            acc=draw(st.integers(12, 48)),
            overflow=draw(st.sampled_from(["saturate", "wrap"])),
        ),
        lanes=draw(st.sampled_from([4, 8, 16, 32, 64])),
        kind=draw(st.sampled_from(["shift", "mul"])),
    )

    def lanes(low, high):
        # Ends are likely, so that widths overflow.
        value = st.one_of(st.integers(low, high), st.sampled_from([low, high]))
        return draw(st.lists(value, min_size=row.lanes, max_size=row.lanes))

    a_signed, w_signed = draw(st.booleans()), draw(st.booleans())
    a = lanes(-8, 7) if a_signed else lanes(0, 15)
    w = lanes(-8, 7) if w_signed else lanes(0, 15)
    amounts = lanes(0, 8 if row.kind == "shift" else 255)
    acc = draw(st.integers(*row.format.acc_range))
    return row, acc, a, w, amounts, a_signed or w_signed, draw(st.integers(0, 4))


@given(step=steps())
def test_a_step_equals_the_reference_with_every_overflow_counted(reference, step):
    row, *operands = step
    assert found_step(row, *operands) == expected_step(reference, row, *operands)


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_every_width_overflows_in_one_step_and_each_is_counted_apart(reference, overflow):
    row = DotProductRow(MacFormat(product=7, align=12, acc=14, overflow=overflow), lanes=4)
    operands = (8000, [15, 15, 1, 15], [15, 7, 1, 8], [0, 6, 0, 6], False, 1)
    found = found_step(row, *operands)
    assert found == expected_step(reference, row, *operands)
    assert found[1] == 1  # 225 alone exceeds 127
    assert found[2] == 2  # 105 << 6 and 120 << 6
    assert found[3] is True


def test_leading_axes_are_rows_of_their_own():
    row = DotProductRow(MacFormat(), lanes=4)
    a = np.arange(2 * 3 * 4).reshape(2, 3, 4) % 16
    step = row.compute(np.zeros((2, 3), np.int64), a, np.full(4, -2), np.zeros(4, np.int64), False, 0)
    assert step.acc.tolist() == (a.sum(axis=-1) * -2).tolist()
    assert all(part.shape == (2, 3) for part in step)


def test_the_parts_of_a_row_carry_its_widths():
    row = DotProductRow(MacFormat(align=12), lanes=16, kind="mul")
    assert (row.tree.lanes, row.tree.bits, row.accumulator.row_bits, row.aligner.kind) == (16, 12, 16, "mul")
    assert row.accumulator.row_bits == row.format.row_bits(16)


def test_lanes_and_alignment_are_checked_when_a_row_is_made():
    with pytest.raises(FormatError) as error:
        DotProductRow(MacFormat(), lanes=6)
    assert str(error.value) == "lanes must be a power of two, not 6"
    with pytest.raises(FormatError) as error:
        DotProductRow(MacFormat(), lanes=8, kind="scale")
    assert str(error.value) == "alignment must be shift or mul, not 'scale'"


def test_the_check_catches_one_wrong_lane_amount_and_sign_mode(reference):
    row = DotProductRow(MacFormat(product=7, align=10, acc=16), lanes=4)
    acc, a, w, amounts = 5, [15, 3, 9, 12], [2, 5, 13, 7], [0, 1, 2, 3]
    expected = expected_step(reference, row, acc, a, w, amounts, False, 0)
    assert found_step(row, acc, a, w, amounts, False, 0) == expected
    assert found_step(row, acc, a, [2, 5, 12, 7], amounts, False, 0) != expected
    assert found_step(row, acc, a, w, [1, 1, 2, 3], False, 0) != expected
    assert found_step(row, acc, a, w, amounts, True, 0) != expected
