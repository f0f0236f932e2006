"""Register tiles: the instructions that they are meant to be, on this processor and on others."""

import os
import subprocess
import sys

import numba
import pytest
from gatewise.kernels import tiles
from gatewise.kernels.direct import fast_forms
from gatewise.kernels.vectors import COUNTS_BITS, FEATURES

FORMS = fast_forms()


def assembly(dtype):
    """What LLVM makes of the register tiles."""
    fresh = numba.njit(nogil=True)(tiles.multiply.py_func)
    weights = {numba.uint8: numba.int8, numba.int16: numba.int16, numba.uint32: numba.uint32}[dtype]
    longs, long = numba.int64[::1], numba.int64
    fresh.compile((dtype[::1], longs, long, longs, long, weights[:, ::1], long, longs, numba.int32[:, ::1], long))
    return next(iter(fresh.inspect_asm().values()))


@pytest.mark.parametrize("form", FORMS)
def test_register_tiles_are_the_instructions_that_they_are_meant_to_be(form):
    text = assembly(numba.uint8 if form == "vnni" else numba.int16)
    wanted = ["vpdpbusd"] if form == "vnni" else ["pmaddwd", "vpdpwssd", "smlal", "sdot"]
    assert sum(text.count(name) for name in wanted) >= sum(pixels * vectors for vectors, pixels in tiles.TILES.items())


@pytest.mark.skipif(not COUNTS_BITS, reason="there is no instruction that counts the ones of a vector's numbers")
def test_bits_are_counted_by_one_instruction():
    sums = sum(pixels * vectors for vectors, pixels in tiles.TILES.items())
    assert assembly(numba.uint32).count("vpopcntd") >= sums


FOR_ANOTHER = """
import numpy as np
from gatewise.kernels import ConvShape, MacFormat, Operands, conv2d, split_digits, vectors
from gatewise.kernels.mac import limit, signed_range
from gatewise.kernels.direct import DirectConv
from gatewise.kernels.packed import Activations
assert (vectors.WIDE, vectors.VNNI, vectors.LANES) == {kind}, (vectors.WIDE, vectors.VNNI, vectors.LANES)
if {runs}:
    rng = np.random.default_rng(0)
    for outputs in (3, 8, 20, 40):
        x, w = rng.integers(0, 16, (2, 6, 5, 5)), rng.integers(-8, 8, (outputs, 6, 1, 1))
        one, none = np.ones(outputs, dtype=np.int64), np.zeros(outputs, dtype=np.int64)
        fast = DirectConv.build(ConvShape(6, outputs), Activations(4), [w], np.ones(6), one, none, none, "portable")
        wanted = np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0])
        assert (fast.values(x.astype(np.int16), 0) == wanted).all()
        planes = np.array([w >= 0, w % 2])
        counted = DirectConv.of_planes(
            ConvShape(6, outputs), Activations(4), planes, np.array([[[3]], [[2]]]), none, none
        )
        sums = (np.array([3, 2]).reshape(2, 1, 1) * (2 * planes[..., 0, 0] - 1)).sum(axis=0)
        wanted = np.einsum("nchw,oc->nohw", x, sums)
        assert (counted.values(x.astype(np.int16), 0) == wanted).all()
    # The faithful form: without overflow, and with the limits of 8 bits.
    size, digits = ConvShape(6, outputs), split_digits(w, 4, True)
    for align, overflow in ((16, "saturate"), (8, "saturate"), (8, "wrap")):
        factors, fmt = np.full(6, 2, np.int32), MacFormat(align=align, overflow=overflow)
        found = conv2d(x, digits, factors, size, Operands(4, False, 4), fmt, 4)
        exact = 2 * x[:, None] * w[None, :, :, :, :]
        limited, over = limit(exact, *signed_range(align), overflow)
        assert (found.acc == limited.sum(axis=2)).all()
        assert (found.align_overflows == over.sum(axis=(0, 2, 3, 4))).all() and over.any() == (align == 8)
else:
    import importlib.util
    spec = importlib.util.spec_from_file_location("t", {path!r})
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.assembly(module.numba.uint8)
    assert text.count("vpdpbusd") >= 22 and "zmm" not in text
"""


@pytest.mark.skipif("avx2" not in FEATURES, reason="another processor's vectors are tried on x86 with AVX2")
@pytest.mark.parametrize(("features", "kind", "runs"), [
    ("+avx2", (False, False, 8), True),
    ("+sse4.2", (False, False, 4), True),
    ("+avx2,+avxvnni", (False, True, 8), False),
])  # fmt: skip
def test_narrower_processors_have_tiles_of_their_own(features, kind, runs, tmp_path):
    """AVX2 and SSE run here; what is compiled for AVX-VNNI is read."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    program = FOR_ANOTHER.format(kind=kind, runs=runs, path=__file__)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
