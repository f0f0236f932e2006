"""A layer on engines: the smallest of each array, with the cycles that a run has."""

import json

import numpy as np
import pytest
from gatewise.kernels.errors import CapacityError, FormatError
from gatewise.rtl.compare import Assumptions, compare_layer, parse_layer
from gatewise.rtl.compare_engine import arrays_of, default_target
from gatewise.rtl.compare_report import as_csv, as_markdown
from gatewise.sim.engine import EngineConfig
from gatewise.sim.manifest import IntWeights, ShiftWeights
from gatewise.sim.shapes import LAYER, layer_network
from gatewise.sim.sizing import engines
from gatewise.sim.unrolled import SCHEMES

from .engine_models import made_models

SMALL = "3,8,12,6,6"
SCHEMES_HERE = ["fixed8", "focused5", "focused5-huffman", "flexor-0.8", "lqnet-a2", "aciq"]


@pytest.fixture(scope="module")
def found():
    """Some schemes of a small layer."""
    return compare_layer(
        parse_layer(SMALL), schemes=SCHEMES_HERE, architectures=["engine"], models=made_models(), cycles=2000
    )


def test_every_scheme_has_its_arrays_and_its_decoder(found):
    kinds = [(row.scheme, row.sized.engine.array, row.sized.engine.decoder) for row in found.rows]
    assert kinds == [
        ("fixed8", "digit", "raw"),
        ("fixed8", "fusion", "raw"),
        ("focused5", "shift", "raw"),
        ("focused5-huffman", "shift", "huffman"),
        ("flexor-0.8", "sign", "xor"),
        ("lqnet-a2", "sign", "raw"),
        ("aciq", "digit", "raw"),
        ("aciq", "fusion", "raw"),
    ]


def test_cycles_and_bytes_are_those_of_a_run(found):
    layer = parse_layer(SMALL)
    images = np.zeros((1, 8, 6, 6), dtype=np.uint8)
    for row in found.rows:
        engine = row.sized.engine
        network = layer_network(SCHEMES[row.scheme], layer.shape, (6, 6), (engine.rows, engine.lanes))
        ran = next(each for each in network.run(images, engine).layers if each.name == LAYER)
        assert row.cycles == row.sized.cycles == ran.total
        assert row.weight_bytes == ran.bytes_read


def test_no_smaller_engine_is_fast_enough(found):
    layer, models = parse_layer(SMALL), made_models()
    for row in found.rows:
        if row.scheme != "fixed8":
            continue
        network = layer_network(SCHEMES["fixed8"], layer.shape, (6, 6))
        like = row.sized.engine
        model = models.of(like.array, like.decoder)
        images = np.zeros((1, 8, 6, 6), dtype=np.uint8)
        smaller = [each for each in engines(like) if model.cost(each).gates < row.counts.gates - 1]
        for engine in smaller[:: max(1, len(smaller) // 6)]:
            ran = next(each for each in network.run(images, engine).layers if each.name == LAYER)
            assert ran.total > 2000


def test_gates_at_the_target_are_gates_times_cycles(found):
    for row in found.rows:
        assert row.cycles <= 2000
        assert row.gates_at_target == pytest.approx(row.sized.cost.gates * row.cycles / 2000)
    focused, coded = (next(row for row in found.rows if row.scheme == name) for name in SCHEMES_HERE[1:3])
    assert found.ratio(focused) == 1
    assert found.ratio(coded) == coded.gates_at_target / focused.gates_at_target
    assert focused.sized.decoder_share == 0 < coded.sized.decoder_share < 0.2


def test_the_target_is_that_of_eight_bits_on_the_default_engine_and_one_percent():
    layer = parse_layer(SMALL)
    network = layer_network(SCHEMES["fixed8"], layer.shape, (6, 6))
    ran = network.run(np.zeros((1, 8, 6, 6), dtype=np.uint8), EngineConfig()).layers
    cycles = next(each.total for each in ran if each.name == LAYER)
    assert default_target(layer.shape, (6, 6)) == cycles + cycles // 100


def test_integers_of_one_or_two_bits_are_at_home_on_every_array():
    assert list(arrays_of(IntWeights(bits=8))) == list(arrays_of(IntWeights(bits=3))) == ["digit", "fusion"]
    assert list(arrays_of(IntWeights(bits=2))) == ["digit", "fusion", "sign", "shift"]
    assert list(arrays_of(ShiftWeights(exponent_bits=2))) == ["shift"]


def test_every_form_says_what_engines_are(found):
    rows = json.loads(json.dumps(found.to_json()))["rows"]
    for row, each in zip(rows, found.rows, strict=True):
        assert row["images_per_cycle"] == 1 / each.cycles
        assert row["engine"]["target_cycles"] == 2000
        assert sum(row["engine"]["gates_by_part"].values()) == pytest.approx(row["gates"], abs=5)
        assert row["alms_low"] is None
    assert "engine_post_lanes" in as_csv(found).splitlines()[0]
    text = as_markdown(found)
    assert "| scheme | architecture | engine | cycles |" in text
    assert "gates x cycles / 2,000" in text
    assert "unrolled" not in text


def test_what_engines_cannot_be_asked_is_refused():
    layer = parse_layer(SMALL)
    with pytest.raises(
        CapacityError, match=r"^fixed8 on engines: cycles must be at least [0-9,]+ for a digit engine with decoder raw"
    ):
        compare_layer(layer, schemes=["fixed8"], architectures=["engine"], models=made_models(), cycles=3)
    with pytest.raises(FormatError, match=r"^assumptions must be left out with the architecture engine"):
        compare_layer(layer, architectures=["engine"], models=made_models(), assumptions=Assumptions(no_zeros=True))
    with pytest.raises(FormatError, match=r"^a check must be left out with the architecture engine"):
        compare_layer(layer, architectures=["engine"], models=made_models(), check=True)
    with pytest.raises(FormatError, match=r"^cycles must come with the architecture engine$"):
        compare_layer(layer, architectures=["direct"], cycles=100)
