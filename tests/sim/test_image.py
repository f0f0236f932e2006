import numpy as np
import pytest
from gatewise.sim.image import TileLayout, container_bits
from hypothesis import given
from hypothesis import strategies as st

BUSES = st.sampled_from([8, 16, 32, 64, 128, 256, 512])


def test_a_container_is_the_next_power_of_two():
    assert [container_bits(bits) for bits in range(1, 9)] == [1, 2, 4, 4, 8, 8, 8, 8]


@given(
    st.integers(1, 16), st.sampled_from([4, 8, 16]), st.integers(1, 8), st.booleans(), st.booleans(), BUSES,
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_tile_is_read_back_as_it_was_written(rows, lanes, bits, aligned, depthwise, bus, random):
    tile = TileLayout(rows, lanes, bits, aligned, depthwise)
    rng = np.random.default_rng(random.getrandbits(32))
    codes = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (rows, tile.row_codes))
    amounts = rng.integers(0, 256, lanes) if aligned else None
    words = tile.encode(codes, amounts, bus)
    assert words.shape == (tile.words(bus), bus // 8)
    found, found_amounts = tile.decode(words)
    assert np.array_equal(found, codes)
    assert aligned == (found_amounts is not None)
    if aligned:
        assert np.array_equal(found_amounts, amounts)


def test_a_flipped_bit_changes_one_code():
    tile = TileLayout(4, 4, 4)
    words = tile.encode(np.zeros((4, 4), int), None, 32)
    words[1, 2] ^= 0x10
    assert np.count_nonzero(tile.decode(words)[0]) == 1


@pytest.mark.parametrize("bus", [8, 64])
def test_codes_stand_one_after_another_from_the_lowest_bit(bus):
    codes = np.zeros((2, 4), int)
    codes[0, 2] = 5  # the third code of four bits: the low half of the second byte
    words = TileLayout(2, 4, 4).encode(codes, None, bus).reshape(-1)
    assert words[1] == 5
    assert np.count_nonzero(words) == 1
