import numpy as np
import pytest
from amaranth.hdl import signed
from amaranth.lib import data
from gatewise.rtl.bench import Bench, Fields, Layout
from hypothesis import given
from hypothesis import strategies as st

LAYOUT = Layout.of({"a": 3, "b": signed(5), "c": data.ArrayLayout(signed(2), 3), "d": 1})


class Identity(Bench[None]):
    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return {"a": (1, 5)}

    def expected(self, inputs: Fields) -> Fields:
        return inputs


def test_a_layout_counts_lanes_and_signs():
    assert LAYOUT.bits == 3 + 5 + 6 + 1
    assert [field.range for field in LAYOUT.fields] == [(0, 7), (-16, 15), (-2, 1), (0, 1)]


@given(st.integers(0, 2**15 - 1))
def test_packing_is_the_inverse_of_unpacking(word):
    bits = np.array([[word >> bit & 1 for bit in range(15)]], dtype=np.uint8)
    assert np.array_equal(LAYOUT.pack(LAYOUT.unpack(bits)), bits)


def test_fields_are_packed_from_bit_zero_in_twos_complement():
    values = {"a": [5], "b": [-1], "c": [[1, -2, 0]], "d": [1]}
    packed = LAYOUT.pack({name: np.array(value) for name, value in values.items()})
    assert "".join(map(str, packed[0])) == "101" + "11111" + "10" + "01" + "00" + "1"


def test_the_exhaustive_stimulus_has_every_legal_vector_once():
    bench = Identity(None)
    vectors = bench.exhaustive(LAYOUT)
    packed = {row.tobytes() for row in LAYOUT.pack(vectors)}
    assert len(packed) == bench.space(LAYOUT) == 5 * 32 * 4**3 * 2
    assert set(vectors["a"]) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("bits", [1, 2, 33, 56])
def test_random_stimulus_stays_legal_and_reaches_the_ends(bits):
    layout = Layout.of({"x": signed(bits), "y": data.ArrayLayout(bits, 4)})
    vectors = Identity(None).stimulus(layout, np.random.default_rng(1), 400)
    for field in layout.fields:
        low, high = field.range
        assert (vectors[field.name].min(), vectors[field.name].max()) == (low, high)
    lanes = vectors["y"]
    assert (lanes == lanes[:, :1]).all(axis=1).mean() > 0.2
