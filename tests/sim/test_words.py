"""Words of the activation memory hold their tensors' codes, in every slot where they belong."""

import numpy as np
import pytest
from gatewise import EngineConfig
from gatewise.sim.words import pixel_words, slot_bits, tensor_codes, tensor_words, word_parts

DIGIT = EngineConfig(rows=4, lanes=8, pixels=16)
FUSION = EngineConfig(rows=4, lanes=4, pixels=16, array="fusion")
GRIDS = [(bits, signed) for bits in (1, 2, 3, 4, 5, 8, 16) for signed in (False, True) if signed or bits < 16]


def codes_of(rng, shape, bits, signed):
    low = -(1 << (bits - 1)) if signed else 0
    return rng.integers(low, low + (1 << bits), shape)


def test_a_fusion_engine_has_words_of_twice_its_lanes():
    assert (DIGIT.word_digits, DIGIT.word_bits, DIGIT.enable_bits, DIGIT.word_enables) == (8, 32, 4, 8)
    assert (FUSION.word_digits, FUSION.word_bits, FUSION.enable_bits, FUSION.word_enables) == (8, 32, 2, 16)


def test_only_codes_of_at_most_two_bits_are_narrow_and_only_in_a_fusion_engine():
    assert [slot_bits(FUSION, bits) for bits in range(1, 17)] == [2, 2] + [4] * 14
    assert {slot_bits(DIGIT, bits) for bits in range(1, 17)} == {4}
    assert [word_parts(FUSION, bits) for bits in (1, 2, 3, 16)] == [2, 2, 1, 1]


@pytest.mark.parametrize(("channels", "narrow", "wide"), [(1, 1, 1), (8, 1, 1), (9, 1, 2), (16, 1, 2), (17, 2, 3)])
def test_a_pixel_begins_on_a_fresh_word(channels, narrow, wide):
    assert pixel_words(FUSION, channels, 2) == narrow
    assert pixel_words(FUSION, channels, 3) == pixel_words(DIGIT, channels, 2) == wide


@pytest.mark.parametrize("engine", [DIGIT, FUSION], ids=lambda engine: engine.array)
@pytest.mark.parametrize(("bits", "signed"), GRIDS)
@pytest.mark.parametrize("channels", [1, 7, 8, 9, 16, 23])
def test_words_hold_the_codes(engine, bits, signed, channels):
    codes = codes_of(np.random.default_rng(bits), (channels, 2, 3), bits, signed)
    words = tensor_words(codes, bits, engine)
    assert words.dtype == np.uint8
    assert words.shape == (-(-bits // 4), 6 * pixel_words(engine, channels, bits), 8)
    assert words.max() < 16
    assert np.array_equal(tensor_codes(words, codes.shape, bits, signed, engine), codes)


@pytest.mark.parametrize("signed", [False, True])
def test_each_channel_of_a_narrow_tensor_is_where_its_half_word_says(signed):
    codes = codes_of(np.random.default_rng(3), (21, 2, 2), 2, signed)
    (words,) = tensor_words(codes, 2, FUSION)
    for (channel, y, x), code in np.ndenumerate(codes):
        half, slot = divmod(channel, 8)
        assert words[(2 * y + x) * 2 + half // 2, slot] >> 2 * (half % 2) & 3 == code & 3
    # What no channel needs is zero: three slots of the third half-word, and the fourth.
    assert not words[1::2, 5:].any()
    assert not (words >> 2)[1::2].any()


def test_words_of_other_engines_are_digits_of_their_channels():
    codes = codes_of(np.random.default_rng(4), (9, 1, 2), 8, True)
    words = tensor_words(codes, 8, DIGIT)
    low, high = (words[plane].reshape(2, 16)[:, :9].T for plane in range(2))
    assert np.array_equal(low.astype(int) | high.astype(int) << 4, codes[:, 0] & 255)
