"""Sweeps of widths: every point is the run at its widths, codes and counters, however little of it was computed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gatewise import EngineConfig, FormatError, Grid, ImageSet, MacFormat, NetworkBuilder, load
from gatewise.kernels.errors import GatewiseError, UnsupportedError
from gatewise.sim import width_sweep
from gatewise.sim.images import load_images
from gatewise.sim.random_cases import Steered, random_cases
from gatewise.sim.run import run
from gatewise.sim.width_report import FORMS, as_table, least_rows, notes, point_row
from gatewise.sim.width_sweep import KINDS, parse_widths, row_kind, sweep_widths

DIGITS = Path(__file__).parents[2] / "sim" / "digits"
ALIGN, ACC = (8, 9, 12, 16), (12, 15, 17, 18, 19, 20, 22, 32)


@pytest.fixture(scope="module")
def images():
    return load_images(DIGITS / "test.npz")[:48]


@pytest.fixture(scope="module")
def digits():
    return load(DIGITS / "digits-w4a4.gw")


@pytest.fixture(scope="module")
def sweep(digits, images):
    return sweep_widths(digits, images, align=ALIGN, acc=ACC)


def differs(point, result):
    """The first thing in which a point is another than the run at its widths."""
    if not np.array_equal(point.predictions, result.predictions):
        return "predictions"
    assert point.overflows.keys() == result.overflows.keys()
    for name, counts in result.overflows.items():
        for kind in KINDS:
            if not np.array_equal(getattr(point.overflows[name], kind), getattr(counts, kind)):
                return name, kind
    return None


def first_difference(found, network, images, engine, form="auto"):
    for point in (found.reference, *found.points):
        where = differs(point, run(network, images, engine.with_mac(point.mac), form=form))
        if where is not None:
            return point.mac, where
    return None


def test_every_point_is_the_run_at_its_widths(sweep, digits, images):
    assert len(sweep.points) == 2 * len(ALIGN) * len(ACC)
    assert first_difference(sweep, digits, images, EngineConfig()) is None
    assert sweep.top1(sweep.reference) == run(digits, images).top(1)


def test_what_is_proved_and_not_run_is_the_faithful_run_at_its_widths(sweep, digits, images):
    proved = [point for point in sweep.points if point.proved]
    assert len(proved) == sweep.proved == 12
    for point in proved:
        result = run(digits, images, EngineConfig(mac=point.mac), form="faithful")
        assert differs(point, result) is None
        assert point.clean
        assert sweep.changed(point) == 0
    least = min(point.mac.acc for point in proved)
    assert least == 22


@pytest.mark.parametrize("name", ["digits-allocated4", "digits-bayesian", "digits-shift4", "digits-lq2a2"])
def test_other_schemes_and_a_narrow_product_too(name, images):
    network = load(DIGITS / f"{name}.gw")
    engine = replace_engine(width_sweep.default_engine(network))
    found = sweep_widths(network, images[:20], engine, align=(8, 11), acc=(13, 16, 18, 21))
    assert first_difference(found, network, images[:20], engine) is None


def replace_engine(engine):
    return engine.model_copy(update={"lanes": 8, "mac": MacFormat(product=7)})


def test_random_networks_on_every_array():
    rng, points, networks = np.random.default_rng(3), 0, 0
    for case in random_cases(30, draw=Steered(7)):
        classes = case.network.values[case.network.output].elements
        images = ImageSet(case.codes, rng.integers(0, classes, len(case.codes)), coded=True)
        try:
            found = sweep_widths(case.network, images, case.engine, align=(8, 10, 13), acc=(12, 15, 18, 23, 32))
        except UnsupportedError:
            continue
        networks += 1
        for index in rng.choice(len(found.points), 5, replace=False):
            point = found.points[index]
            where = differs(point, run(case.network, images, case.engine.with_mac(point.mac)))
            assert where is None, (case.engine.array, point.mac, where)
            points += not point.clean
    assert networks > 20
    assert points > 30


@pytest.mark.parametrize("fault", ["exact", "depends", "known"])
def test_what_is_taken_from_another_point_wrongly_is_found(monkeypatch, digits, images, fault):
    faults = {
        "exact": (width_sweep._Layer, "exact", lambda layer, mac: np.ones(len(layer.margins["post"]), dtype=bool)),
        "depends": (width_sweep._Layer, "depends", lambda layer, mac, rows: (None, None, mac.overflow)),
        "known": (width_sweep._Facts, "known", lambda facts, mac: bool(facts.results)),
    }
    monkeypatch.setattr(*faults[fault])
    found = sweep_widths(digits, images[:12], align=(8, 16), acc=(14, 18, 19, 32))
    assert first_difference(found, digits, images[:12], EngineConfig()) is not None


def test_tensors_are_the_same_where_their_codes_are():
    codes = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4)
    one, same = width_sweep._Tensor(codes), width_sweep._Tensor(np.asfortranarray(codes))
    assert {one: 1}[same] == 1
    other = width_sweep._Tensor(codes + 1)
    other._hash = hash(one)
    assert other not in {one: 1}


def test_neither_memory_nor_units_change_a_point(monkeypatch, sweep, digits, images):
    monkeypatch.setattr(width_sweep, "KEPT_BYTES", 0)
    monkeypatch.setattr(width_sweep, "UNIT_IMAGES", 5)
    found = sweep_widths(digits, images, align=ALIGN, acc=ACC)
    assert found.layer_runs > sweep.layer_runs
    for ours, theirs in zip(found.points, sweep.points, strict=True):
        assert np.array_equal(ours.predictions, theirs.predictions)
        for name, counts in theirs.overflows.items():
            assert np.array_equal(ours.overflows[name].acc, counts.acc)


def test_little_is_computed_step_by_step(sweep):
    assert 0 < sweep.layer_runs < sweep.layer_points / 3


def test_products_that_a_width_loses_a_wider_one_loses_at_most(sweep):
    """Of the stem, whose input is the same at all widths."""
    stem = next(iter(sweep.events))
    lost = {point.mac: int(point.overflows[stem].align.sum()) for point in sweep.points}
    for mac, count in lost.items():
        wider = [count for other, count in lost.items() if other.align > mac.align and same_but(mac, other, "align")]
        assert all(each <= count for each in wider)
    assert max(lost.values()) > 0


def same_but(mac, other, name):
    return replace(mac, **{name: getattr(other, name)}) == other


def test_what_is_clean_is_so_at_all_wider_widths_in_both_modes(sweep):
    clean = [point.mac for point in sweep.points if point.clean]
    assert 0 < sweep.proved < len(clean) < len(sweep.points)
    for point in sweep.points:
        if any(mac.align <= point.mac.align and mac.acc <= point.mac.acc for mac in clean):
            assert point.clean


def test_least_widths_hold_from_there_on(sweep):
    found = {name: sweep.least(name, "saturate") for name in width_sweep.CRITERIA}
    assert found["proved"].acc == MacFormat(acc=22)
    assert found["clean"].acc == MacFormat(acc=20)
    assert found["accurate"].acc == MacFormat(acc=19)
    assert found["proved"].align == found["clean"].align == MacFormat(align=9)
    assert found["clean"].pair == MacFormat(align=9, acc=20)
    assert sweep.enough(sweep.by_mac[MacFormat(acc=19)], "accurate")
    assert not sweep.enough(sweep.by_mac[MacFormat(acc=18)], "accurate")


def small(samples, w, bits=4, out=4):
    net = NetworkBuilder("one", samples.input_spec((3, 1, 1), scale=1.0, zero_point=0))
    net.linear("fc", net.input, np.array(w), bits=bits, scale=1.0, out=Grid(1.0, 16, signed=True))
    return net.build()


def test_events_and_shares_are_what_can_overflow(samples):
    """Two outputs of three inputs, of two digits each: 2 x 3 products of 4 digit pairs, 2 sums of 4."""
    network = small(samples, [[100, -100, 3], [1, 2, 3]], bits=8)
    images = ImageSet(np.array([[255, 0, 0], [255, 255, 255]], np.int64).reshape(2, 3, 1, 1), np.zeros(2, int), True)
    found = sweep_widths(network, images, align=(8, 16), acc=(12, 32))
    assert found.events == {"fc": (24, 8)}
    narrow = found.by_mac[MacFormat(align=8)]
    # Of -100 = -7 x 16 + 12 the lower digit, 12 x 15 with both digits of the second image's 255.
    assert narrow.overflow("align") == 2
    assert found.share(narrow, "align") == 2 / 48
    assert narrow.worst("align") == ("fc", 2)


def test_errors_are_of_the_share_of_right_predictions(sweep):
    point = sweep.by_mac[MacFormat(acc=17)]
    share = sweep.top1(point)
    assert 0 < share < 1
    assert sweep.error(point) == pytest.approx((share * (1 - share) / 48) ** 0.5)
    assert sweep.changed(point) == (point.predictions != sweep.reference.predictions).sum() > 0
    assert sweep.float_top1 == pytest.approx(0.99167, abs=1e-4)


def test_the_json_has_every_point(sweep):
    content = sweep.to_json()
    assert content["schema"] == 1
    assert len(content["points"]) == len(sweep.points)
    point = next(each for each in content["points"] if (each["align"], each["acc"]) == (16, 19))
    assert point["overflow_acc"] == sweep.by_mac[MacFormat(acc=19)].overflow("acc") > 0
    assert point["worst_acc"] == "linear"
    assert content["least"]["saturate"]["clean"]["pair"] == {"align": 9, "acc": 20}


def test_reports_have_every_point_and_what_is_saved(sweep):
    costs = {mac: width_sweep.RowCost(100 + mac.acc + 16 * mac.align, 9, 300.0, 8, 12) for mac in sweep.row_formats}
    found = replace(sweep, costs=costs)
    assert len(as_table(found).renderables) == 2 + 4 + 1 + len(notes(found))
    for write in FORMS.values():
        assert "16,19" in write(found).replace(" & ", ",").replace(" | ", ",")
    rows = {(row[1], row[2]): row for row in least_rows(found) if row[0] == "saturate"}
    saved = rows["nothing can overflow, whatever the image", "pair"]
    assert saved[3:5] == ["9", "22"]
    assert saved[7] == f"{1 - (100 + 22 + 16 * 9) / (100 + 32 + 16 * 16):.1%}"
    assert point_row(found, found.reference)[-1] == "proved"


def test_a_least_width_that_is_not_in_the_grid_is_none(digits, images):
    found = sweep_widths(digits, images[:4], align=(16,), acc=(12, 13), modes=("wrap",))
    assert found.least("proved", "wrap") == (None, None, None)
    assert [row[3:5] for row in least_rows(found)] == [["none"] * 2] * 9


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("12..8", "align", "--align must be LOW..HIGH with LOW <= HIGH, not '12..8'"),
        ("8-12", "align", "--align must be LOW..HIGH or one number, not '8-12'"),
        ("8..12..16", "acc", "--acc must be LOW..HIGH or one number, not '8..12..16'"),
        ("7..12", "align", "mac align must be a whole number from 8 to 24, not 7"),
        ("12..49", "acc", "mac acc must be a whole number from 12 to 48, not 49"),
        ("", "acc", "--acc must be LOW..HIGH or one number, not ''"),
    ],
)
def test_wrong_ranges_are_refused_in_a_line(text, name, message):
    with pytest.raises(FormatError) as raised:
        parse_widths(text, name)
    assert str(raised.value) == message


def test_ranges_have_both_ends():
    assert list(parse_widths("8..11", "align")) == [8, 9, 10, 11]
    assert list(parse_widths("20", "acc")) == [20]


def test_images_without_labels_and_an_empty_grid_are_refused(digits, images):
    with pytest.raises(FormatError, match="images must have labels: without them no width has an accuracy"):
        sweep_widths(digits, ImageSet(images.images))
    with pytest.raises(FormatError, match="the grid must have a width of each kind and an overflow mode"):
        sweep_widths(digits, images, acc=())


def test_wide_operands_and_wide_sums_of_a_sign_array_are_refused(samples, images):
    network = small(samples, [[1000, -100, 3]], bits=16)
    labelled = ImageSet(np.zeros((1, 3, 1, 1), np.int64), np.zeros(1, int), True)
    with pytest.raises(UnsupportedError, match=r"fc: widths must be swept of networks with .* of at most 8 bits"):
        sweep_widths(network, labelled)
    sign = load(DIGITS / "digits-lq2a2.gw")
    with pytest.raises(GatewiseError, match="--acc must be at most 40 in a sign array, not 41"):
        sweep_widths(sign, images, acc=(12, 41))


def test_rows_are_of_the_kind_that_the_layers_align_by(digits):
    assert row_kind(digits, EngineConfig()) == "shift"
    assert row_kind(load(DIGITS / "digits-lq2a2.gw"), EngineConfig(array="sign")) is None
