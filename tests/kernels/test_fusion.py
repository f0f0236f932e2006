"""Fused PEs and rows: bricks against plain products, 8-bit operands by digit passes, which mode runs which widths."""

from itertools import product

import numpy as np
import pytest
from gatewise.kernels.digits import digit_signed, split_digits
from gatewise.kernels.errors import FormatError
from gatewise.kernels.fusion import (
    FUSION_MODES,
    FusionMode,
    FusionPE,
    FusionRow,
    brick_utilisation,
    fusion_mode,
    lanes_per_pe,
    run_bits,
    utilised_bricks,
)
from gatewise.kernels.mac import MacFormat
from gatewise.kernels.multiplier import DigitMultiplier
from hypothesis import given, settings
from hypothesis import strategies as st

SIGNS = list(product([False, True], repeat=2))
PATTERNS = np.arange(256)


def mode_name(mode):
    return f"{mode.a_bits}x{mode.w_bits}"


def operand(register, lane, bits, signed):
    """A lane's operand out of a register."""
    value = register // 2 ** (bits * lane) % 2**bits
    return value - 2**bits if signed and value >= 2 ** (bits - 1) else value


def lane_products(acts, codes, a_bits, w_bits, a_signed, w_signed):
    """The exact sum of a PE's products, lane by lane, of arrays or numbers."""
    lanes = {(4, 4): 1, (2, 4): 2, (4, 2): 2, (2, 2): 4}[a_bits, w_bits]
    total = 0
    for lane in range(lanes):
        w = codes // 2 ** (w_bits * lane) % 2**w_bits
        a = acts // 2 ** (a_bits * lane) % 2**a_bits
        a = a - 2**a_bits * (a_signed * (a >= 2 ** (a_bits - 1)))
        w = w - 2**w_bits * (w_signed * (w >= 2 ** (w_bits - 1)))
        total = total + a * w
    return total


@pytest.mark.parametrize("mode", FUSION_MODES, ids=mode_name)
@pytest.mark.parametrize(("a_signed", "w_signed"), SIGNS)
def test_bricks_make_every_product_of_every_mode(mode, a_signed, w_signed):
    acts, codes = PATTERNS[:, None], PATTERNS[None, :]
    value, overflow = FusionPE(MacFormat()).compute(acts, codes, mode, a_signed, w_signed)
    expected = lane_products(acts, codes, *mode, a_signed, w_signed)
    assert value.shape == (256, 256)
    assert (value == expected).all()
    assert not overflow.any()


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("bits", range(6, 11))
@pytest.mark.parametrize(("a_signed", "w_signed"), SIGNS)
def test_4x4_is_the_digit_multiplier_in_every_width(a_signed, w_signed, bits, overflow):
    fmt = MacFormat(product=bits, overflow=overflow)
    a, w = (operand_values(signed) for signed in (a_signed, w_signed))
    expected = DigitMultiplier(fmt).compute(a[:, None], w[None, :], not (a_signed or w_signed))
    for upper_a, upper_w in ((0, 0), (0xF0, 0x50)):
        found = FusionPE(fmt).compute(
            (a[:, None] & 15) | upper_a, (w[None, :] & 15) | upper_w, FusionMode(4, 4), a_signed, w_signed
        )
        assert (found[0] == expected[0]).all()
        assert (found[1] == expected[1]).all()


def operand_values(signed):
    """All values of a digit."""
    return np.arange(-8, 8) if signed else np.arange(16)


def test_narrow_sums_reach_their_ends_and_eight_bits_hold_them():
    ends = {}
    for mode, (a_signed, w_signed) in product(FUSION_MODES[1:], SIGNS):
        value, _ = FusionPE(MacFormat(product=6)).compute(PATTERNS[:, None], PATTERNS, mode, a_signed, w_signed)
        ends[mode_name(mode), a_signed, w_signed] = (value.min(), value.max())
    assert ends["4x2", False, False] == ends["2x4", False, False] == (0, 90)
    assert ends["4x2", True, True] == (-28, 32)
    assert ends["4x2", False, True] == (-60, 30)
    assert ends["2x2", True, False] == (-24, 12)
    assert ends["2x2", True, True] == (-8, 16)
    assert min(low for low, _ in ends.values()) == -60
    assert max(high for _, high in ends.values()) == 90


@pytest.mark.parametrize(("a_bits", "w_bits"), [(8, 8), (8, 4), (4, 8), (8, 2)])
@pytest.mark.parametrize(("a_signed", "w_signed"), SIGNS)
def test_wide_operands_are_digit_passes(a_bits, w_bits, a_signed, w_signed):
    """The low digit unsigned, the top one signed; `w_high` picks the digit of the weight that stands in the PE."""
    row = FusionRow(1, MacFormat(acc=48))
    mode = fusion_mode(a_bits, w_bits)
    lanes = mode.lanes
    a = np.arange(2**a_bits) - a_signed * 2 ** (a_bits - 1)
    w = np.arange(2**w_bits) - w_signed * 2 ** (w_bits - 1)
    # Each lane has another pair of codes.
    pairs = np.stack(np.meshgrid(a, w, indexing="ij"), axis=-1).reshape(-1, 2)
    lane_pairs = np.stack([np.roll(pairs, 7 * lane, axis=0) for lane in range(lanes)], axis=1)
    codes = mode.pack(lane_pairs[..., 1], max(w_bits, mode.w_bits))
    digits = split_digits(lane_pairs[..., 0], a_bits, a_signed)
    w_digits = 2 if w_bits == 8 else 1
    total = 0
    for j, i in product(range(w_digits), range(len(digits))):
        top_a, top_w = digit_signed(i, a_bits, a_signed), w_signed and j == w_digits - 1
        acts = mode.pack(digits[i], 4)
        step = row.compute(acts, codes, np.zeros(1, np.int64), mode, j == 1, top_a, top_w)
        total += step.sum << 4 * (i + j)
        assert not step.align_overflows.any()
    assert (total == lane_pairs.prod(axis=-1).sum(axis=-1)).all()


@st.composite
def words(draw):
    row = FusionRow(
        lanes=draw(st.sampled_from([1, 4, 8, 16])),
        format=MacFormat(
            product=draw(st.integers(6, 9)),
            align=draw(st.integers(8, 24)),
            overflow=draw(st.sampled_from(["saturate", "wrap"])),
        ),
        kind=draw(st.sampled_from(["shift", "mul"])),
    )

    def lanes(high):
        value = st.one_of(st.integers(0, high), st.sampled_from([0, high, high // 2 + 1]))
        return draw(st.lists(value, min_size=row.lanes, max_size=row.lanes))

    amounts = lanes(8 if row.kind == "shift" else 255)
    mode = draw(st.sampled_from(FUSION_MODES))
    return row, lanes(255), lanes(255), amounts, mode, draw(st.booleans()), draw(st.booleans()), draw(st.booleans())


@given(word=words())
@settings(max_examples=400)
def test_a_word_equals_the_reference_with_every_overflow_counted(reference, word):
    row, acts, codes, amounts, mode, w_high, a_signed, w_signed = word
    fmt = row.format
    total = product_count = align_count = 0
    for act, code, amount in zip(acts, codes, amounts, strict=True):
        if mode == (4, 4):
            a = operand(act, 0, 4, a_signed)
            w = operand(code, int(w_high), 4, w_signed)
            value, over = reference.multiplied(a, w, a_signed or w_signed, fmt.product, fmt.overflow)
            product_count += over
            value, over = reference.aligned(value, row.kind, amount, fmt.align, fmt.overflow)
            align_count += over
        else:
            value = lane_products(act, code, *mode, a_signed, w_signed)
        total += value
    step = row.compute(np.array(acts), np.array(codes), np.array(amounts), mode, w_high, a_signed, w_signed)
    assert tuple(int(part) for part in step) == (total, product_count, align_count)


def test_operands_are_packed_first_lane_lowest():
    assert FusionMode(2, 2).pack(np.array([1, 2, 3, 0, -1, 0, 0, -2]), 2).tolist() == [0b00_11_10_01, 0b10_00_00_11]
    assert FusionMode(4, 2).pack(np.array([[3, -8], [15, 1]]), 4).tolist() == [[0x83], [0x1F]]
    assert FusionMode(4, 4).pack(np.array([-8, 5]), 4).tolist() == [8, 5]
    assert FusionMode(4, 4).pack(np.array([-128]), 8).tolist() == [128]
    with pytest.raises(FormatError) as error:
        FusionMode(2, 2).pack(np.zeros(6), 2)
    assert str(error.value) == "operands must fill PEs of 4 lanes, not 6 lanes"


def test_widths_run_in_the_next_mode_up():
    lanes = {(a, w): lanes_per_pe(a, w) for a in (1, 2, 3, 4, 5, 8, 16) for w in range(1, 9)}
    for (a, w), found in lanes.items():
        expected = 4 if a <= 2 and w <= 2 else 2 if (a <= 2 and w <= 4) or w <= 2 else 1
        assert found == expected, (a, w)
    assert [run_bits(bits) for bits in range(1, 9)] == [2, 2, 4, 4, 8, 8, 8, 8]
    assert fusion_mode(2, 8) == (4, 4)  # the weight fills the register
    assert fusion_mode(8, 2) == (4, 2)
    assert [mode.lanes for mode in FUSION_MODES] == [1, 2, 2, 4]
    assert [mode.narrow for mode in FUSION_MODES] == [False, True, True, True]


def test_useful_bricks_and_the_share_of_them():
    assert [utilised_bricks(b, b) for b in (1, 2, 3, 4, 5, 6, 8)] == [1, 1, 4, 4, 9, 9, 16]
    assert utilised_bricks(8, 2) == 4
    assert utilised_bricks(16, 8) == 32
    full = [(4, 4), (2, 4), (4, 2), (2, 2), (8, 8), (8, 4), (4, 8), (8, 2), (16, 8), (3, 3), (1, 1)]
    assert all(brick_utilisation(a, w) == 1 for a, w in full)
    assert brick_utilisation(2, 8) == 1 / 2
    assert brick_utilisation(4, 6) == 3 / 4
    assert brick_utilisation(5, 5) == 9 / 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lanes_per_pe(17, 4), "activations of a fused array must have 1 to 16 bits, not 17"),
        (lambda: utilised_bricks(0, 4), "activations of a fused array must have 1 to 16 bits, not 0"),
        (lambda: run_bits(9), "weights of a fused array must have 1 to 8 bits, not 9"),
        (lambda: FusionRow(6), "lanes must be a power of two, not 6"),
        (lambda: FusionRow(4, kind="scale"), "alignment must be shift or mul, not 'scale'"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(FormatError) as error:
        make()
    assert str(error.value) == message


@pytest.mark.parametrize(
    "change",
    [
        {"a_slice": lambda brick: brick.a_slice ^ 1},
        {"w_slice": lambda brick: brick.w_slice ^ 2},
        {"shift": lambda brick: brick.shift ^ 2},
        {"a_top": lambda brick: not brick.a_top},
        {"w_top": lambda brick: not brick.w_top},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("mode", FUSION_MODES, ids=mode_name)
def test_one_brick_that_is_wired_wrongly_is_found(monkeypatch, mode, at, change):
    bricks = list(mode.bricks)
    ((field, changed),) = change.items()
    bricks[at] = bricks[at]._replace(**{field: changed(bricks[at])})
    monkeypatch.setattr(FusionMode, "bricks", property(lambda self: bricks))
    acts, codes = PATTERNS[:, None], PATTERNS[None, :]
    value, _ = FusionPE(MacFormat()).compute(acts, codes, mode, True, True)
    assert (value != lane_products(acts, codes, *mode, True, True)).any()
