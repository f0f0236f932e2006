"""Bases of activations: nearest levels and signs as the papers have them, thresholds on codes, equal steps."""

import itertools

import numpy as np
import pytest
from gatewise import FormatError, Grid, PlaneBasis
from gatewise.sim.manifest import ActivationPlanes

RNG = np.random.default_rng(3)
VALUES = np.concatenate([np.linspace(-9, 9, 1441), RNG.normal(0, 3, 500)])


def word_of(basis, values, thresholds=None):
    reached = (values[:, None] >= np.array(thresholds or basis.thresholds)).sum(axis=1)
    return np.array(basis.words)[reached]


@pytest.mark.parametrize("beta", [[0.7], [0.5, 1.0], [1.5, 0.4], [0.3, 0.9, 2.0], [0.25, 0.5, 1.0, 2.0], [1.0, 1.0]])
def test_lq_net_takes_the_nearest_level(beta):
    basis = PlaneBasis.lq_net(beta)
    levels = np.array([np.dot(bits, beta) for bits in itertools.product((0, 1), repeat=len(beta))])
    found = basis.worth(word_of(basis, VALUES))
    assert np.allclose(np.abs(found - VALUES), np.abs(levels - VALUES[:, None]).min(axis=1))
    assert (basis.pad, basis.worth(np.array(basis.pad))) == (0, 0)
    # Half-way the greater level is taken.
    middle = np.array([basis.thresholds[0]])
    assert basis.worth(word_of(basis, middle))[0] > middle[0]


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_abc_net_sums_signs_with_thresholds_of_their_own(count):
    beta, thresholds = RNG.uniform(-1, 1, count), RNG.normal(0, 1, count)
    basis = PlaneBasis.abc_net(beta, thresholds)
    wanted = sum(each * np.where(VALUES >= at, 1, -1) for each, at in zip(beta, thresholds, strict=True))
    assert np.allclose(basis.worth(word_of(basis, VALUES)), wanted)
    assert np.isclose(basis.worth(np.array(basis.pad)), sum(np.where(thresholds <= 0, beta, -beta)))


def test_the_sign_of_zero_is_plus():
    basis = PlaneBasis.sign(0.5)
    assert word_of(basis, np.array([-1e-9, 0.0, -0.0, 1e-9])).tolist() == [0, 1, 1, 1]
    assert basis.worth(np.array([0, 1])).tolist() == [-0.5, 0.5]
    assert (basis.pad, basis.padded(0).pad) == (1, 0)


@pytest.mark.parametrize("step", [0.01, 0.3, 7.0])
def test_thresholds_of_codes_are_the_least_that_reach(step):
    basis = PlaneBasis.lq_net([0.5, 1.2])
    found = basis.integer_thresholds(np.array([step, step / 3]))
    assert found.dtype == np.int64
    for row, each in zip(found, (step, step / 3), strict=True):
        assert (row * each >= basis.thresholds).all()
        assert ((row - 1) * each < basis.thresholds).all()


@pytest.mark.parametrize(
    "basis",
    [
        PlaneBasis.sign(),
        PlaneBasis.lq_net([1.0]),
        PlaneBasis.lq_net([0.5, 1.0]),
        PlaneBasis.lq_net([0.6, 1.1]),
        PlaneBasis.lq_net([0.2, 0.5, 1.1]),
        PlaneBasis.abc_net([0.5, 0.3, 0.2, 0.4, 0.1], [-1.5, 0.0, 1.0, 2.0, 0.5]),
        PlaneBasis.lq_net([0.25, 0.5, 1.0, 2.0]),
    ],
    ids=lambda basis: f"{basis.spec.values}-{len(basis.spec.beta)}",
)
@pytest.mark.parametrize("step", [0.001, 0.02, 0.5])
def test_counts_of_equal_steps_miss_thresholds_by_no_more_than_they_say(basis, step):
    counts = basis.uniform(step)
    codes = np.arange(-4000, 4001)
    values = codes * step
    found = np.array(counts.table)[np.clip(np.rint(values / counts.step) + counts.zero, 0, 15).astype(int)]
    wrong = found != word_of(basis, values)
    near = np.abs(values[:, None] - (np.array(basis.thresholds))).min(axis=1) <= counts.error + step
    assert not (wrong & ~near).any()
    span = basis.thresholds[-1] - basis.thresholds[0]
    assert counts.error <= max(span / 28, step)
    if span == 0 or basis.spec.beta in ((0.5, 1.0), (0.25, 0.5, 1.0, 2.0)):
        # One threshold, or thresholds at equal distances: nothing is missed but what lies on a tie.
        assert np.abs(values[wrong][:, None] - np.array(basis.thresholds)).min(initial=0) <= step


def test_a_single_threshold_of_codes_is_met_exactly():
    codes = np.arange(-4000, 4001)
    for threshold, step in ((0.0, 0.1), (0.25, 0.1), (-3.0, 0.7), (0.7, 0.7)):
        basis = PlaneBasis.abc_net([1.0], [threshold])
        counts = basis.uniform(step)
        assert counts.step == step
        found = np.array(counts.table)[np.clip(codes + counts.zero, 0, 15)]
        assert np.array_equal(found, word_of(basis, codes * step))


def test_a_grid_of_planes_has_its_word_of_padding():
    grid = Grid.of_planes(PlaneBasis.abc_net([0.5, 0.25], [1.0, -1.0]))
    assert (grid.bits, grid.signed, grid.zero_point, grid.scale) == (2, False, 2, 1.0)
    assert grid.codes.planes == ActivationPlanes(values="signs", beta=(0.5, 0.25))


SPEC = ActivationPlanes(values="bits", beta=(1.0, 2.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlaneBasis.abc_net([1.0, 2.0], [0.0]), "thresholds must be one for each beta (2), not 1"),
        (lambda: PlaneBasis.lq_net([1.0] * 5), "beta must be of shape (J,) with J of 1 to 4, not (5,)"),
        (lambda: PlaneBasis.abc_net([1.0] * 9, [0.0] * 9), "beta: tuple should have at most 8 items after validation"),
        (lambda: PlaneBasis(SPEC, (0.0,), (0, 1, 2), 0), "must be 1 to 15, with a word more, not 1 with 3"),
        (lambda: PlaneBasis(SPEC, tuple(range(16)), (0,) * 17, 0), "must be 1 to 15, with a word more, not 16 with 17"),
        (lambda: PlaneBasis(SPEC, (1.0, 0.0), (0, 1, 2), 0), "must be finite and rising, not (1.0, 0.0)"),
        (lambda: PlaneBasis(SPEC, (float("nan"),), (0, 1), 0), "must be finite and rising, not (nan,)"),
        (lambda: PlaneBasis.sign(float("inf")), "beta.0: input should be a finite number, not 'inf'"),
    ],
)
def test_what_is_no_basis_is_refused(make, message):
    with pytest.raises(FormatError) as error:
        make()
    assert message in str(error.value)
