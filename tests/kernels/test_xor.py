"""XOR networks: the sign rule, decoding, packed streams, and the search of the nearest slices."""

import itertools

import numpy as np
import pytest
from gatewise.kernels import xor_search
from gatewise.kernels.errors import FormatError
from gatewise.kernels.xor import XorNetwork, XorProgrammable
from hypothesis import given
from hypothesis import strategies as st


def outputs_of(network, slice_bits):
    """The outputs of one slice, tap by tap."""
    bits = []
    for row in network.rows:
        bit = 0
        for j in range(network.n_in):
            if row >> j & 1:
                bit ^= int(slice_bits[j])
        bits.append(bit)
    return bits


def every_slice(n_in):
    return (np.arange(1 << n_in)[:, None] >> np.arange(n_in)).astype(np.uint8) & 1


@st.composite
def networks(draw):
    n_in, n_out = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    rows = st.lists(st.integers(1, (1 << n_in) - 1), min_size=n_out, max_size=n_out)
    return XorNetwork(n_in, n_out, tuple(draw(rows)))


class TestDecode:
    @pytest.mark.parametrize("taps", range(1, 11))
    def test_the_sign_rule_of_the_paper_is_the_xor_of_bits_for_odd_and_even_taps(self, taps):
        network = XorNetwork(taps, 1, ((1 << taps) - 1,))
        bits = every_slice(taps)
        signs = 2 * bits.astype(np.int64) - 1
        by_sign = (-1) ** (taps - 1) * signs.prod(axis=1)
        assert (2 * network.decode(bits)[:, 0].astype(np.int64) - 1).tolist() == by_sign.tolist()

    @pytest.mark.parametrize("taps", range(1, 11))
    def test_without_its_factor_the_product_of_signs_is_wrong_for_even_taps_alone(self, taps):
        bits = every_slice(taps)
        product = (2 * bits.astype(np.int64) - 1).prod(axis=1)
        agree = (product == 2 * XorNetwork(taps, 1, ((1 << taps) - 1,)).decode(bits)[:, 0].astype(np.int64) - 1).all()
        assert agree == (taps % 2 == 1)

    @pytest.mark.parametrize(("n_in", "n_out", "taps"), [(8, 20, 2), (12, 20, 2), (16, 20, None), (7, 3, 3), (1, 2, 1)])
    def test_every_slice_decodes_as_tap_by_tap_and_as_the_matrix(self, n_in, n_out, taps):
        network = XorNetwork.random(n_in, n_out, taps, 5)
        slices = every_slice(n_in)
        found = network.decode(slices)
        assert found.dtype == np.uint8
        assert np.array_equal(found, slices.astype(np.int64) @ network.matrix.T.astype(np.int64) % 2)
        for at in range(0, len(slices), max(1, len(slices) // 50)):
            assert found[at].tolist() == outputs_of(network, slices[at])

    @given(network=networks(), data=st.data())
    def test_any_network_of_any_size(self, network, data):
        bits = st.lists(st.integers(0, 1), min_size=network.n_in, max_size=network.n_in)
        slices = np.array(data.draw(st.lists(bits, min_size=1, max_size=4)))
        assert network.decode(slices).tolist() == [outputs_of(network, row) for row in slices]

    def test_leading_axes_are_kept_and_slices_may_be_none(self):
        network = XorNetwork.random(12, 20, 2, 0)
        slices = np.random.default_rng(0).integers(0, 2, (2, 3, 12))
        assert network.decode(slices).shape == (2, 3, 20)
        assert np.array_equal(network.decode(slices)[1, 2], network.decode(slices[1, 2]))
        assert network.decode(np.zeros((0, 12), np.uint8)).shape == (0, 20)

    def test_the_matrix_makes_the_network_again(self):
        network = XorNetwork.random(19, 20, None, 3)
        assert XorNetwork.of(network.matrix) == network
        assert network.matrix.shape == (20, 19)
        assert network.matrix.dtype == np.uint8

    def test_rank_and_gates_are_those_of_the_matrix(self):
        network = XorNetwork(4, 5, (0b0011, 0b0110, 0b0101, 0b1111, 0b1000))
        assert network.rank == 4
        assert network.gates == 1 + 1 + 1 + 3
        assert len({row.tobytes() for row in network.decode(every_slice(4))}) == 2**network.rank

    @pytest.mark.parametrize("taps", [2, 4])
    def test_an_even_number_of_taps_never_has_full_rank(self, taps):
        # Every row has the vector of ones in its kernel.
        for seed in range(20):
            network = XorNetwork.random(8, 20, taps, seed)
            assert network.rank < network.n_in
            assert not network.decode(np.ones(8, np.uint8)).any()


class TestRandom:
    def test_a_row_has_its_taps_at_distinct_inputs(self):
        for taps in (1, 2, 5, 12):
            network = XorNetwork.random(12, 40, taps, 1)
            assert {row.bit_count() for row in network.rows} == {taps}

    def test_a_random_fill_taps_half_the_inputs_and_no_row_is_empty(self):
        network = XorNetwork.random(2, 64, None, 0)
        assert set(network.rows) == {1, 2, 3}
        assert 0.45 < np.mean([XorNetwork.random(20, 64, None, seed).matrix.mean() for seed in range(10)]) < 0.55

    def test_the_seed_says_everything(self):
        assert XorNetwork.random(12, 20, 2, 7) == XorNetwork.random(12, 20, 2, 7)
        assert XorNetwork.random(12, 20, 2, 7) != XorNetwork.random(12, 20, 2, 8)


class TestStream:
    @given(network=networks(), count=st.integers(0, 90), seed=st.integers(0, 99))
    def test_slices_lie_back_to_back_from_bit_zero_of_byte_zero(self, network, count, seed):
        slices = np.random.default_rng(seed).integers(0, 2, (-(-count // network.n_out), network.n_in))
        number = sum(int(bit) << k for k, bit in enumerate(slices.reshape(-1)))
        data = number.to_bytes(-(-slices.size // 8), "little")
        expected = [bit for row in slices for bit in outputs_of(network, row)][:count]
        found = network.decode_stream(data, count)
        assert found.dtype == np.uint8
        assert found.tolist() == expected
        assert network.decode_stream(np.frombuffer(data, np.uint8), count).tolist() == expected

    def test_the_surplus_outputs_of_the_last_slice_are_dropped(self):
        network = XorNetwork.random(12, 20, 2, 0)
        data = network.encode(np.ones(100, np.uint8))
        whole = network.decode_stream(data, 100)
        assert len(data) == network.stream_bytes(100) == network.stream_bytes(81) == 8
        assert network.slices(81) == 5
        assert network.decode_stream(data, 81).tolist() == whole[:81].tolist()

    def test_every_stored_bit_matters(self):
        network = XorNetwork.random(12, 20, None, 4)
        data = np.frombuffer(network.encode(np.random.default_rng(0).integers(0, 2, 60)), np.uint8)
        bits = network.decode_stream(data, 60)
        for k in range(36):
            damaged = data.copy()
            damaged[k // 8] ^= 1 << k % 8
            changed = np.flatnonzero(network.decode_stream(damaged, 60) != bits)
            assert changed.size == network.matrix[:, k % 12].sum() > 0
            assert set(changed // 20) == {k // 12}

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (bytes(2), "40 weights must be 3 bytes of uint8, not uint8 of shape (2,)"),
            (bytes(4), "40 weights must be 3 bytes of uint8, not uint8 of shape (4,)"),
            (np.zeros(3, np.int8), "40 weights must be 3 bytes of uint8, not int8 of shape (3,)"),
            (b"\0\0\x90", "spare bits of an XOR stream must be 0, found 0x2"),
        ],
    )
    def test_a_stream_of_another_length_or_with_spare_bits_is_refused(self, data, message):
        # Two slices are 22 bits.
        with pytest.raises(FormatError) as error:
            XorNetwork.random(11, 20, 2, 0).decode_stream(data, 40)
        assert str(error.value) == message


def least_cost(network, bits, importance):
    """The least cost of any slice, by trying all."""
    wrong = network.decode(every_slice(network.n_in)) != bits
    return (wrong * importance).sum(axis=1).min()


class TestEncode:
    @pytest.mark.parametrize(("n_in", "n_out", "taps"), [(1, 1, 1), (4, 10, 2), (8, 20, 2), (10, 12, None), (6, 25, 3)])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_no_slice_is_nearer(self, n_in, n_out, taps, weighted):
        network = XorNetwork.random(n_in, n_out, taps, 2)
        rng = np.random.default_rng(3)
        count = 30 * n_out - n_out // 2
        bits = rng.integers(0, 2, count)
        # Eighths add up without rounding.
        importance = rng.integers(0, 50, count) / 8 if weighted else np.ones(count)
        found = network.decode_stream(network.encode(bits, importance if weighted else None), count)
        for start in range(0, count, n_out):
            part = slice(start, min(start + n_out, count))
            cost = ((found[part] != bits[part]) * importance[part]).sum()
            width = part.stop - part.start
            fewer = XorNetwork(n_in, width, network.rows[:width])
            assert cost == least_cost(fewer, bits[part], importance[part])

    def test_among_equals_the_least_slice_wins(self):
        network = XorNetwork(3, 2, (0b011, 0b101))
        # The slices 2 and 5 both decode to (1, 0).
        assert network.encode(np.array([1, 0])) == bytes([2])
        assert network.encode(np.array([0, 1, 1, 0])) == bytes([3 | 2 << 3])
        assert network.decode(every_slice(3))[[2, 5]].tolist() == [[1, 0], [1, 0]]

    @pytest.mark.parametrize("n_in", [8, 12, 16, 20, 24])
    @pytest.mark.parametrize("taps", [2, None])
    def test_what_the_network_makes_is_found_again(self, n_in, taps):
        network = XorNetwork.random(n_in, 20, taps, 6)
        slices = np.random.default_rng(0).integers(0, 2, (200, n_in))
        bits = network.decode(slices).reshape(-1)
        assert network.decode_stream(network.encode(bits), bits.size).tolist() == bits.tolist()

    def test_an_invertible_network_loses_nothing(self):
        seed = next(seed for seed in range(50) if XorNetwork.random(20, 20, None, seed).rank == 20)
        network = XorNetwork.random(20, 20, None, seed)
        bits = np.random.default_rng(1).integers(0, 2, 20_000)
        assert np.array_equal(network.decode_stream(network.encode(bits), bits.size), bits)

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize(("n_in", "taps"), [(8, 2), (12, 2), (12, None), (14, None)])
    def test_the_descent_is_hardly_worse_than_the_complete_search(self, n_in, taps, weighted):
        network = XorNetwork.random(n_in, 20, taps, 1)
        rng = np.random.default_rng(2)
        targets = rng.integers(0, 2, (1000, 20)).astype(np.uint8)
        costs = rng.integers(0, 64, (1000, 20)) / 8 if weighted else np.ones((1000, 20))

        def total(**options):
            codes = xor_search.nearest_slices(network.masks, n_in, targets, costs, **options)
            slices = (codes[:, None] >> np.arange(n_in, dtype=np.uint64)).astype(np.uint8) & 1
            return ((network.decode(slices) != targets) * costs).sum(axis=1)

        exact, descent = total(), total(exact_inputs=0)
        assert (descent >= exact).all()
        assert exact.sum() <= descent.sum() <= 1.01 * exact.sum()

    def test_a_further_start_never_makes_a_slice_worse(self):
        network = XorNetwork.random(20, 40, None, 1)
        targets = np.random.default_rng(3).integers(0, 2, (300, 40)).astype(np.uint8)
        costs = np.random.default_rng(4).integers(1, 64, (300, 40)) / 8
        before = None
        for starts in range(1, 7):
            codes = xor_search.nearest_slices(network.masks, 20, targets, costs, starts=starts)
            slices = (codes[:, None] >> np.arange(20, dtype=np.uint64)).astype(np.uint8) & 1
            cost = ((network.decode(slices) != targets) * costs).sum(axis=1)
            assert before is None or (cost <= before).all()
            before = cost

    def test_a_descent_ends_where_no_pair_of_its_steps_helps(self):
        network = XorNetwork.random(18, 30, None, 1)
        targets = np.random.default_rng(5).integers(0, 2, (40, 30)).astype(np.uint8)
        ones = np.ones((40, 30))
        codes = xor_search.nearest_slices(network.masks, 18, targets, ones, starts=1)
        vectors, owner = np.zeros(18, np.uint64), np.zeros(18, np.int64)
        xor_search._settle(network.masks, np.arange(30), vectors, owner)
        for code, target in zip(codes.tolist(), targets, strict=True):
            steps = [0, *vectors.tolist()]
            near = [code ^ first ^ second for first, second in itertools.combinations_with_replacement(steps, 2)]
            slices = (np.array(near, np.uint64)[:, None] >> np.arange(18, dtype=np.uint64)).astype(np.uint8) & 1
            wrong = (network.decode(slices) != target).sum(axis=1)
            assert wrong.min() == wrong[0]

    def test_important_signs_are_kept_at_the_cost_of_others(self):
        network = XorNetwork.random(8, 20, None, 1)
        rng = np.random.default_rng(0)
        bits = rng.integers(0, 2, 20_000)
        importance = np.where(np.arange(bits.size) % 4 == 0, 100.0, 1.0)
        plain, weighted = (
            network.decode_stream(network.encode(bits, w), bits.size) != bits for w in (None, importance)
        )
        important = importance > 1
        assert weighted[important].mean() < 0.5 * plain[important].mean()
        assert weighted.mean() > plain.mean()

    @pytest.mark.parametrize(
        ("bits", "importance", "message"),
        [
            (np.full(4, 2), None, "weight bits must be zeros and ones of shape (count,), not of (4,)"),
            (np.zeros((2, 2)), None, "weight bits must be zeros and ones of shape (count,), not of (2, 2)"),
            (np.zeros(4), np.ones(3), "importance must be finite, at least 0 and of shape (4,), not of (3,)"),
            (np.zeros(1), np.array([-1.0]), "importance must be finite, at least 0 and of shape (1,), not of (1,)"),
            (np.zeros(1), np.array([np.nan]), "importance must be finite, at least 0 and of shape (1,), not of (1,)"),
        ],
    )
    def test_wrong_arrays_are_refused(self, bits, importance, message):
        with pytest.raises(FormatError) as error:
            XorNetwork.random(4, 4, 2, 0).encode(bits, importance)
        assert str(error.value) == message

    def test_no_weights_are_no_bytes(self):
        network = XorNetwork.random(12, 20, 2, 0)
        assert network.encode(np.zeros(0)) == b""
        assert network.decode_stream(b"", 0).size == 0


class TestParameters:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: XorNetwork(0, 1, (1,)), "XOR network inputs must be 1 to 64, not 0"),
            (lambda: XorNetwork(1, 65, (1,) * 65), "XOR network outputs must be 1 to 64, not 65"),
            (lambda: XorNetwork(4, 2, (1,)), "XOR network must have a row for each of 2 outputs, not 1"),
            (lambda: XorNetwork(4, 2, (1, 0)), "row 1 of the XOR network must tap 1 to 4 inputs, not mask 0x0"),
            (lambda: XorNetwork(4, 2, (16, 1)), "row 0 of the XOR network must tap 1 to 4 inputs, not mask 0x10"),
            (lambda: XorNetwork.random(4, 2, 5, 0), "taps of a row must be 1 to 4, not 5"),
            (lambda: XorNetwork.random(4, 2, 0, 0), "taps of a row must be 1 to 4, not 0"),
            (lambda: XorNetwork.of(np.full((2, 2), 2)), "XOR matrix must be zeros and ones of shape (n_out, n_in)"),
            (lambda: XorProgrammable(12, 20, 9), "XOR planes must be 1 to 8, not 9"),
            (lambda: XorProgrammable(65, 20), "XOR network inputs must be 1 to 64, not 65"),
            (
                lambda: XorProgrammable(12, 20).check([XorNetwork.random(13, 20, 2, 0)]),
                "XOR networks must have at most 12 inputs and 20 outputs, not 13 and 20",
            ),
            (
                lambda: XorProgrammable(12, 20).check([]),
                "a programmable XOR decoder must hold 1 to 1 networks of one size, not 0 of 0 sizes",
            ),
            (
                lambda: XorNetwork.random(4, 2, 2, 0).decode(np.zeros(3)),
                "slices must be bits of shape (..., 4), not of (3,)",
            ),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, make, message):
        with pytest.raises(FormatError) as error:
            make()
        assert str(error.value) == message

    def test_a_programmable_decoder_makes_zeros_beyond_its_outputs(self):
        network = XorNetwork.random(12, 20, None, 1)
        slices = np.random.default_rng(0).integers(0, 2, (50, 12))
        words = (slices << np.arange(12)).sum(axis=1).astype(np.uint64)
        found = XorProgrammable(12, 20).compute(np.tile(network.masks, (50, 1)), words, np.arange(50) % 21)
        for word, bits, n_out in zip(found.tolist(), network.decode(slices), np.arange(50) % 21, strict=True):
            assert word == sum(int(bit) << o for o, bit in enumerate(bits[:n_out]))
