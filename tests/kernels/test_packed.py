"""Packed operands; `test_direct.py` multiplies them."""

import inspect

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
