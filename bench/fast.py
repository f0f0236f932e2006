"""Fast forms of convolutions beside torch: shapes, contenders, and the limit of the multiply-add units.

What `bench/kernels.py` prints first. A contender does all of a layer: it packs codes, multiplies, and requantises.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from gatewise.kernels import ConvShape, tiles, vectors
from gatewise.kernels.convolve import BLOCK_PIXELS
from gatewise.kernels.direct import DirectConv, fast_forms
from gatewise.kernels.finish import ScaleFinish, ThresholdFinish
from gatewise.kernels.packed import Activations
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = [
    "PLANES",
    "SHAPES",
    "Layer",
    "Others",
    "Timed",
    "alternate",
    "contenders",
    "inner_product",
    "plane_contenders",
    "register_limit",
]

LIMIT_STEPS = 200_000
CLIP = 15
SETTLING = 0.05
"""Seconds of calls before one that is timed."""


@dataclass(frozen=True)
class Timed:
    """A call that is timed where it runs: in another process."""

    seconds: Callable[[], float]


class Others:
    """A layer in `bench/others.py`, by an interpreter that has what it measures.

    `missing` says in a line each what is not there.
    """

    def __init__(self, python: str, layer: "Layer", threads: int, cpu_time: bool = False) -> None:
        shape = layer.shape
        facts = {
            "inputs": shape.in_channels,
            "outputs": shape.out_channels,
            "kernel": shape.kernel[0],
            "stride": shape.stride[0],
            "pad": shape.padding[0],
            "size": layer.size,
            "groups": shape.groups,
        }
        command = [python, str(Path(__file__).with_name("others.py")), json.dumps(facts), str(threads)]
        self.process = subprocess.Popen(
            command + ["cpu"] * cpu_time, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        first = self._line()
        self.versions: dict[str, str] = first.get("versions", {})
        self.missing: dict[str, str] = first.get("missing", {"others": f"{python} does not run bench/others.py"})

    def __enter__(self) -> "Others":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()

    @property
    def runs(self) -> dict[str, Timed]:
        """What is there, by name."""
        return {name: Timed(partial(self._seconds, name)) for name in self.versions}

    def _seconds(self, name: str) -> float:
        assert self.process.stdin is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline() or "{}")


@dataclass(frozen=True)
class Layer:
    """A convolution of 4-bit weights and activations; of `largest` alignment shifts, 0 for none."""

    name: str
    shape: ConvShape
    size: int
    largest: int = 8

    @property
    def macs(self) -> int:
        """Of an image."""
        return self.shape.macs(self.size, self.size)


def _square(inputs: int, outputs: int, kernel: int, size: int, stride: int = 1, groups: int = 1) -> Layer:
    pad = kernel // 2
    shape = ConvShape(inputs, outputs, (kernel, kernel), (stride, stride), (pad,) * 4, groups=groups)
    kind = "depthwise " if shape.depthwise else ""
    name = f"{kind}{kernel}x{kernel} {inputs} -> {outputs} at {size}" + (f" by {stride}" if stride > 1 else "")
    return Layer(name, shape, size, 0 if inputs == 3 else 8)


SHAPES = (
    _square(128, 128, 3, 56),
    _square(3, 64, 7, 224, 2),
    _square(64, 64, 3, 56),
    _square(128, 256, 3, 28, 2),
    _square(256, 256, 3, 14),
    _square(512, 512, 3, 7),
    _square(256, 64, 1, 56),
    _square(512, 2048, 1, 7),
    _square(16, 16, 3, 32),
    _square(512, 512, 3, 14, groups=512),
)
"""The convolution of landscape.md, ResNet-18's and ResNet-50's, ResNet-20's first, MobileNet's."""


def contenders(layer: Layer, threads: int) -> dict[str, Callable[[], object]]:
    """Calls that run a layer on as many images as there are threads, by name: our forms, and torch's."""
    import torch

    torch.set_num_threads(threads)
    rng, shape, size = np.random.default_rng(0), layer.shape, layer.size
    count = shape.out_channels
    codes = np.clip(np.rint(rng.normal(0, 5, (threads, size, size, shape.in_channels))), 0, CLIP).astype(np.int16)
    x = codes.transpose(0, 3, 1, 2)
    weights = np.clip(np.rint(rng.normal(0, 8 / 3, shape.weight_shape)), -8, 7).astype(np.int64)
    factors = 1 << rng.integers(0, layer.largest + 1, shape.in_channels)
    one = np.ones(count, dtype=np.int64)
    finish = ScaleFinish.build(
        np.full(count, 28), rng.integers(1 << 23, 1 << 24, count), np.full(count, 34), "half_even", 0, 0, CLIP
    )
    assert finish is not None
    runs: dict[str, Callable[[], object]] = {}
    for form in fast_forms():
        conv = DirectConv.build(shape, Activations(4), [weights], factors, one, 0 * one, one, form).requantising(finish)
        if conv.form != form:
            continue

        def run(conv: DirectConv = conv) -> object:
            if threads == 1:
                return conv.codes(x, 0)
            return list(pool.map(lambda image: conv.codes(x[image : image + 1], 0), range(threads)))

        runs[form] = run
    pool = ThreadPoolExecutor(threads)
    image, kernel = torch.from_numpy(x.astype(np.float32)).contiguous(), torch.from_numpy(weights.astype(np.float32))

    def float_conv() -> object:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(
                image, kernel, stride=shape.stride, padding=shape.padding[:2], groups=shape.groups
            )

    runs["torch float32"] = float_conv
    if shape.groups == 1 and threads == 1:
        rows, columns = shape.output_size(size, size)
        depth = -(-shape.group_inputs * shape.kernel[0] * shape.kernel[1] // 8) * 8
        a = torch.randint(-128, 128, (rows * columns, depth), dtype=torch.int8)
        b = torch.randint(-128, 128, (depth, count), dtype=torch.int8)
        # The product alone: a matrix of columns that somebody has made, nothing requantised.
        runs["_int_mm"] = lambda: torch._int_mm(a, b)
    return runs


PLANES = (
    ("XNOR, 1/1", 1, 1, True),
    ("LQ-Net, 2/2", 2, 2, False),
    ("LQ-Net, 3/3", 3, 3, False),
    ("ABC-Net, 5/5", 5, 5, True),
)
"""Planes of weights and of activations, and whether these are -1 and +1."""


def plane_contenders(layer: Layer, weights: int, activations: int, signs: bool) -> dict[str, Callable[[], object]]:
    """Calls that run a layer of sign planes on an image: bits counted, the fastest other form, torch's float32."""
    rng, shape, size = np.random.default_rng(0), layer.shape, layer.size
    x = rng.integers(0, 1 << activations, (1, size, size, shape.in_channels)).astype(np.int16).transpose(0, 3, 1, 2)
    planes = rng.integers(0, 2, (weights, *shape.weight_shape))
    coefficients = rng.integers(1 << 10, 1 << 15, (weights, activations, shape.out_channels))
    kind, none = Activations(activations, planes=True, signs=signs), np.zeros(shape.out_channels, dtype=np.int64)
    sums = [(coefficients[:, each, :, None, None, None] * (2 * planes - 1)).sum(axis=0) for each in range(activations)]
    steps = np.abs(np.stack(sums)).reshape(activations, shape.out_channels, -1)
    unit = np.gcd.reduce(np.gcd.reduce(steps, axis=2), axis=0)
    limits = np.sort(rng.integers(-(10**6), 10**6, (shape.out_channels, (1 << activations) - 1)), axis=1)
    finish = ThresholdFinish.build(limits, np.zeros(shape.out_channels, dtype=bool), range(1 << activations))
    counted = DirectConv.of_planes(shape, kind, planes, coefficients, none, none).requantising(finish)
    whole, one = [each // unit.reshape(-1, 1, 1, 1) for each in sums], np.ones(shape.in_channels)
    fast = DirectConv.build(shape, kind, whole, one, unit, none, none, fast_forms()[0]).requantising(finish)
    return {
        "popcount": lambda: counted.codes(x, 0),
        "other": lambda: fast.codes(x, 0),
        "torch float32": contenders(layer, 1)["torch float32"],
    }


def alternate(
    runs: Mapping[str, "Callable[[], object] | Timed"], repeat: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each call; every round runs all of them, one after the other.

    Before a call that is timed others of its kind settle: threads of torch, which wait for work busily, have given
    back the core that a second thread needs, and the system has put threads on cores of their own.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            if isinstance(run, Timed):
                times[name].append(run.seconds())
                continue
            settled = time.perf_counter() + SETTLING
            run()
            while time.perf_counter() < settled:
                run()
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def inner_product(layer: Layer) -> tuple[Callable[[], object], int]:
    """A call of the register tiles alone, on packed activations of an image, and its multiply-accumulates."""
    shape, size = layer.shape, layer.size
    rng, one = np.random.default_rng(0), np.ones(shape.out_channels, dtype=np.int64)
    weights = rng.integers(-8, 8, shape.weight_shape)
    conv = DirectConv.build(
        shape, Activations(4), [weights], np.ones(shape.in_channels), one, 0 * one, one, fast_forms()[0]
    )
    padded = size + 2 * shape.padding[0]
    dtype = np.uint8 if conv.form == "vnni" else np.int16
    x = rng.integers(0, 16, padded * padded * shape.in_channels + 64).astype(dtype)
    row = padded * shape.in_channels * x.itemsize
    runs = np.arange(shape.kernel[0]) * row
    steps = shape.kernel[1] * shape.in_channels * x.itemsize // tiles.GROUP_BYTES
    chunks = np.array(tiles.tile_chunks(-(-shape.out_channels // vectors.LANES)))
    blocks = [
        np.minimum(np.arange(first, first + BLOCK_PIXELS + tiles.MOST_PIXELS), size * size - 1)
        for first in range(0, size * size, BLOCK_PIXELS)
    ]
    bases = np.array([block // size * row + block % size * shape.in_channels * x.itemsize for block in blocks])
    sums = np.empty((BLOCK_PIXELS + tiles.MOST_PIXELS, shape.out_channels), dtype=np.int32)
    packed = conv.packed[0].weights.reshape(1, -1)

    def run() -> None:
        for block in bases:
            tiles.multiply(x, block, BLOCK_PIXELS, runs, steps, packed, 0, chunks, sums, 0)

    return run, len(blocks) * BLOCK_PIXELS * layer.macs // (size * size)


@intrinsic
def _registers(typing: Any, operands: Any, steps: Any) -> Any:
    """`steps` rounds of as many multiply-adds as a register tile has sums, without a load."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = vectors.LANES
        vector, bytes_ = ir.VectorType(ir.IntType(32), lanes), ir.VectorType(ir.IntType(8), 4 * lanes)
        count = tiles.MOST_VECTORS * tiles.TILES[tiles.MOST_VECTORS]
        pointer = context.make_array(sig.args[0])(context, builder, value=args[0]).data
        operand = builder.bitcast(pointer, bytes_.as_pointer())
        a, b = (builder.load(builder.gep(operand, [ir.IntType(64)(at)]), align=1) for at in (0, 1))
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        call = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector, bytes_, bytes_]), name)
        entry, loop, end = builder.block, *(builder.append_basic_block(each) for each in ("loop", "end"))
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(ir.IntType(64))
        held = [builder.phi(vector) for _ in range(count)]
        made = [builder.call(call, [each, a, b]) for each in held]
        later = builder.add(step, ir.IntType(64)(1))
        builder.cbranch(builder.icmp_signed("<", later, args[1]), loop, end)
        for phi, begin, after in (
            (step, ir.IntType(64)(0), later),
            *(
                (each, ir.Constant(vector, [n] * lanes), value)
                for n, (each, value) in enumerate(zip(held, made, strict=True))
            ),
        ):
            phi.add_incoming(begin, entry)
            phi.add_incoming(after, loop)
        builder.position_at_end(end)
        total = made[0]
        for each in made[1:]:
            total = builder.add(total, each)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.int32(operands, types.int64), emit


@numba.njit(nogil=True)
def _limit(operands: Any, steps: int) -> Any:
    return _registers(operands, steps)


def register_limit() -> tuple[Callable[[], object], int] | None:
    """A call of `vpdpbusd` on registers alone, and its multiply-accumulates; None where there is none."""
    if not vectors.VNNI:
        return None
    operands = np.ones(8 * vectors.LANES, dtype=np.uint8)
    sums = tiles.MOST_VECTORS * tiles.TILES[tiles.MOST_VECTORS]
    return lambda: _limit(operands, LIMIT_STEPS), LIMIT_STEPS * sums * 4 * vectors.LANES
