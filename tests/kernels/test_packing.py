"""Packing of b-bit codes into bytes."""

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.packing import pack_codes, pack_rows, packed_bytes, unpack_codes, unpack_rows
from hypothesis import given
from hypothesis import strategies as st

WIDTHS = [*range(1, 9), 16]


def every_code(reference, bits, signed):
    low, high = reference.signed_limits(bits) if signed else reference.unsigned_limits(bits)
    return list(range(low, high + 1))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 17))
def test_every_code_of_every_width_survives_the_round_trip(reference, bits, signed):
    codes = every_code(reference, bits, signed)
    data = pack_codes(np.array(codes), bits, signed)
    assert data.dtype == np.uint8
    assert unpack_codes(data, len(codes), bits, signed).tolist() == codes


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_bytes_are_one_little_endian_number_of_the_codes(reference, bits, signed):
    codes = every_code(reference, bits, signed)[:256]
    assert pack_codes(np.array(codes), bits, signed).tobytes() == reference.packed(codes, bits)


@given(data=st.data(), bits=st.sampled_from(WIDTHS), signed=st.booleans())
def test_any_codes_at_any_length_pack_as_the_reference_packs_them(reference, data, bits, signed):
    limits = reference.signed_limits(bits) if signed else reference.unsigned_limits(bits)
    codes = data.draw(st.lists(st.integers(*limits), max_size=40))
    found = pack_codes(np.array(codes, dtype=np.int32), bits, signed)
    assert found.tobytes() == reference.packed(codes, bits)
    assert found.size == packed_bytes(len(codes), bits)
    assert unpack_codes(found, len(codes), bits, signed).tolist() == codes


def test_the_check_catches_one_flipped_bit_anywhere():
    codes = np.arange(32, dtype=np.int16)
    data = pack_codes(codes, 5, signed=False)
    for bit in range(8 * data.size):
        damaged = data.copy()
        damaged[bit // 8] ^= 1 << bit % 8
        assert unpack_codes(damaged, 32, 5, signed=False).tolist() != codes.tolist()


def test_codes_of_any_shape_pack_in_c_order():
    codes = np.arange(-4, 4).reshape(2, 2, 2)
    assert pack_codes(codes, 3, signed=True).tolist() == pack_codes(codes.reshape(-1), 3, signed=True).tolist()
    transposed = codes.transpose(2, 0, 1)
    assert unpack_codes(pack_codes(transposed, 3, True), 8, 3, True).tolist() == [-4, -2, 0, 2, -3, -1, 1, 3]


def test_spare_bits_at_the_end_are_zero():
    assert pack_codes(np.array([7, 7, 7]), 3, signed=False).tolist() == [0xFF, 0x01]
    assert pack_codes(np.array([-1]), 1, signed=True).tolist() == [0x01]


def test_unpacked_codes_have_the_narrowest_type_that_holds_every_width():
    assert unpack_codes(np.zeros(2, np.uint8), 1, 16, signed=True).dtype == np.int16
    assert unpack_codes(np.zeros(2, np.uint8), 1, 15, signed=False).dtype == np.int16
    assert unpack_codes(np.zeros(2, np.uint8), 1, 16, signed=False).dtype == np.int32


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_a_code_outside_its_width_is_refused_with_what_was_found(reference, bits, signed):
    low, high = reference.signed_limits(bits) if signed else reference.unsigned_limits(bits)
    for codes in ([low - 1, high], [low, high + 1]):
        with pytest.raises(FormatError) as error:
            pack_codes(np.array(codes), bits, signed)
        assert str(error.value) == f"{bits}-bit codes must lie in {low}..{high}, found {codes[0]}..{codes[1]}"


@pytest.mark.parametrize("bits", [-1, 0, 17])
def test_a_width_that_is_not_1_to_16_bits_is_refused_both_ways(bits):
    for call in (
        lambda: pack_codes(np.zeros(1, np.int8), bits, True),
        lambda: unpack_codes(np.zeros(1, np.uint8), 1, bits, True),
    ):
        with pytest.raises(FormatError) as error:
            call()
        assert str(error.value) == f"codes must have 1 to 16 bits, not {bits}"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (np.zeros(3, np.uint8), "uint8 of shape (3,)"),
        (np.zeros(1, np.uint8), "uint8 of shape (1,)"),
        (np.zeros((1, 2), np.uint8), "uint8 of shape (1, 2)"),
        (np.zeros(2, np.int8), "int8 of shape (2,)"),
    ],
)
def test_bytes_that_do_not_match_the_count_are_refused(data, found):
    with pytest.raises(FormatError) as error:
        unpack_codes(data, 5, 3, signed=False)
    assert str(error.value) == f"5 codes of 3 bits must be 2 bytes of uint8, not {found}"


def test_no_codes_are_no_bytes():
    assert pack_codes(np.zeros((0, 3), np.int8), 4, signed=True).size == 0
    assert unpack_codes(np.zeros(0, np.uint8), 0, 4, signed=True).size == 0
    assert [packed_bytes(count, 3) for count in range(5)] == [0, 1, 1, 2, 2]


# Rows of different widths


@given(data=st.data())
def test_rows_pack_behind_each_other_each_at_its_own_width(reference, data):
    widths = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=6))
    columns = data.draw(st.integers(1, 7))
    rows = [
        data.draw(st.lists(st.integers(*(reference.signed_limits(bits) if bits else (0, 0))), min_size=columns,
                           max_size=columns))
        for bits in widths
    ]  # fmt: skip
    found = pack_rows(np.array(rows), np.array(widths))
    assert len(found) == -(-sum(widths) * columns // 8)
    number, at = 0, 0
    for row, bits in zip(rows, widths, strict=True):
        for code in row:
            number |= (code % (1 << bits)) << at
            at += bits
    assert int.from_bytes(found.tobytes(), "little") == number
    unpacked = unpack_rows(found, np.array(widths), columns)
    assert unpacked.dtype == np.int16
    assert unpacked.tolist() == rows


def test_rows_that_do_not_fit_and_bytes_that_are_not_theirs_are_named():
    widths = np.array([3, 0])
    with pytest.raises(FormatError, match=r"3-bit codes must lie in -4\.\.3, found 4\.\.4"):
        pack_rows(np.array([[4], [0]]), widths)
    with pytest.raises(FormatError, match=r"0-bit codes must lie in 0\.\.0, found 0\.\.1"):
        pack_rows(np.array([[1, 1], [0, 1]]), widths)
    with pytest.raises(FormatError, match="2 rows of 2 codes must be 1 bytes of uint8 at their widths, not uint8"):
        unpack_rows(np.zeros(2, np.uint8), widths, 2)
    with pytest.raises(FormatError, match="the spare bits behind the last code must be 0"):
        unpack_rows(np.array([64], np.uint8), widths, 2)
