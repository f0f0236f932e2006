"""Packed operands; `test_direct.py` multiplies them."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from gatewise.kernels import ConvShape, packed
from gatewise.kernels.direct import DirectConv, fast_forms
from gatewise.kernels.packed import Activations


@pytest.mark.parametrize(("old", "new"), [
    ("np.minimum(twos, 1 << stream.room)", "np.minimum(twos, 2 << stream.room)"),
    ("((weights - low) & (high - low)) + low", "weights & (high - low)"),
    ("* stream.offset", "* (stream.offset - 1)"),
])  # fmt: skip
def test_a_planted_fault_is_found(old, new):
    source = inspect.getsource(packed)
    assert source.count(old) == 1
    names = dict(vars(packed))
    for name in ("_split", "_limbs", "_tiled", "pack_weights"):
        exec(compile(inspect.getsource(getattr(packed, name)).replace(old, new), "planted", "exec"), names)
    shape, form = ConvShape(3, 2), fast_forms()[0]
    weights = np.array([[99, 1000, -3], [5, -6, 7]]).reshape(2, 3, 1, 1)
    activations, factors = Activations(4, signed=True), np.array([16, 64, 256])
    one = np.ones(2, dtype=np.int64)
    fast = DirectConv.build(shape, activations, [weights], factors, one, 0 * one, 0 * one, form)
    stream = activations.streams(form)[0]
    wrong = names["pack_weights"](shape, stream, weights, factors, form, 1)
    other = DirectConv(form, shape, (wrong,), fast.unit, fast.zero, fast.bias)
    x = np.array([7, -8, 3], dtype=np.int16).reshape(1, 3, 1, 1)
    wanted = ((weights[:, :, 0, 0] * factors) @ x.ravel()).tolist()
    assert fast.values(x, 0).ravel().tolist() == wanted
    assert other.values(x, 0).ravel().tolist() != wanted


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize(("old", "new"), [
    ("columns.sum(axis=(1, 2, 3))", "columns.sum(axis=(1, 2, 3)) - 1"),
    ("-2 if signs", "2 if signs"),
    ("(stream.times << stream.place)", "stream.times"),
    ('bitorder="little"', 'bitorder="big"'),
])  # fmt: skip
def test_a_planted_fault_in_bits_is_found(old, new, signs):
    source = inspect.getsource(packed.pack_planes)
    assert source.count(old) == 1
    names = dict(vars(packed))
    exec(compile(source.replace(old, new), "planted", "exec"), names)
    rng = np.random.default_rng(1)
    shape, none = ConvShape(37, 5), np.zeros(5, dtype=np.int64)
    planes, coefficients = rng.integers(0, 2, (2, 5, 37, 1, 1)), np.full((2, 1, 5), 3)
    activations = Activations(1, planes=True, signs=True) if signs else Activations(3)
    right = DirectConv.of_planes(shape, activations, planes, coefficients, none, none)
    wrong = replace(
        right, packed=tuple(names["pack_planes"](shape, each.stream, planes, signs) for each in right.packed)
    )
    x = rng.integers(0, 2 if signs else 8, (1, 37, 1, 1)).astype(np.int16)
    numbers = 2 * x - 1 if signs else x
    wanted = (3 * (2 * planes - 1).sum(axis=0)[:, :, 0, 0] @ numbers.ravel()).tolist()
    assert right.values(x, 0).ravel().tolist() == wanted
    # Of -1 and +1 nothing is added for the ones of weights, nor are there places.
    harmless = (signs and old.startswith(("columns", "(stream"))) or (not signs and old.startswith("-2"))
    assert (wrong.values(x, 0).ravel().tolist() == wanted) == harmless
