import numpy as np
import pytest
import torch
from gatewise.kernels.conv import ConvShape, Operands, conv2d
from gatewise.kernels.correction import Correction
from gatewise.kernels.digits import split_digits
from gatewise.kernels.errors import FormatError
from gatewise.kernels.mac import MacFormat
from gatewise.kernels.pool import global_average_pool
from gatewise.kernels.residual import AddOperand, ResidualAdd
from gatewise.quant.aciq import AciqSettings, aciq
from gatewise.quant.graph import Add, Conv2d, GlobalAvgPool, Graph
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.quantized import (
    QuantizedGraph,
    QuantizedLayer,
    QuantizedTensor,
    QuantizedWeights,
    accuracy,
)
from gatewise.quant.statistics import collect

SPEC = InputSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.25))


@pytest.fixture(scope="module", params=["shift", "mul"])
def quantized(request: pytest.FixtureRequest, residual: Graph, residual_images: np.ndarray) -> QuantizedGraph:
    statistics = collect(residual, torch.from_numpy(SPEC.normalise(residual_images)))
    return aciq(residual, SPEC, statistics, AciqSettings(alignment=request.param))


@pytest.fixture(scope="module")
def trace(quantized: QuantizedGraph, residual_images: np.ndarray) -> dict[str, np.ndarray]:
    codes: dict[str, np.ndarray] = {}
    quantized.run(residual_images[:4], batch=3, trace=codes)
    return codes


def datapath(node: QuantizedLayer, quantized: QuantizedGraph, codes: np.ndarray) -> np.ndarray:
    """The real result of a layer by the integer kernels: digits, alignment, accumulator, correction."""
    source, weights, fmt = quantized.tensors[node.inputs[0]], node.weights, MacFormat()
    if isinstance(node.op, Conv2d):
        shape, held = node.op.conv, weights.codes
    else:
        shape, held = ConvShape(source.shape[0], node.op.channels), weights.codes[:, :, None, None]
        codes = codes[:, :, None, None]
    operands = Operands(source.bits, source.signed, weights.bits)
    result = conv2d(
        codes, split_digits(held, weights.bits, True), source.factors, shape, operands, fmt, 4, source.zero_point
    )
    assert result.align_overflows.sum() == result.acc_overflows.sum() == 0
    # Activation zero points fold into the bias: sum(f * (a - z) * (w - zw)) over the layer's weights.
    groups = np.repeat(np.arange(shape.groups), shape.group_outputs)
    factors = source.factors.reshape(shape.groups, -1)[groups][:, :, None, None]
    grid = 1 << weights.fraction
    offset = source.zero_point * (factors * weights.integers.reshape(held.shape)).sum((1, 2, 3)) * grid
    bias = (np.rint(node.fixed_bias(source.scale) * grid) - offset)[:, None, None]
    value, overflows = Correction(fmt, weights.fraction).compute(
        result.acc, result.input_sum[:, groups], weights.fixed_zero_points[:, None, None], bias
    )
    assert not overflows.any()
    real = value / grid * (source.scale * weights.scales)[:, None, None]
    return real if isinstance(node.op, Conv2d) else real[:, :, 0, 0]


def test_layers_compute_what_the_integer_datapath_computes(
    quantized: QuantizedGraph, trace: dict[str, np.ndarray]
) -> None:
    for node in quantized.layers:
        first, *copies = (quantized.tensors[name] for name in node.outputs)
        real = torch.from_numpy(datapath(node, quantized, trace[node.inputs[0]]))
        np.testing.assert_array_equal(first.quantize(real).numpy(), trace[first.name], err_msg=first.name)
        written = first.dequantize(torch.from_numpy(trace[first.name]))
        for copy in copies:
            np.testing.assert_array_equal(copy.quantize(written).numpy(), trace[copy.name], err_msg=copy.name)


def test_a_wrong_weight_code_is_noticed(quantized: QuantizedGraph, trace: dict[str, np.ndarray]) -> None:
    node = quantized.layers[1]
    codes = node.weights.codes.copy()
    codes[0, 0, 1, 1] ^= 1
    changed = QuantizedWeights(
        node.weights.bits, codes, *(getattr(node.weights, f) for f in ("scales", "zero_points", "fraction"))
    )
    wrong = QuantizedLayer(node.op, node.inputs, node.outputs, changed, node.bias)
    real = torch.from_numpy(datapath(wrong, quantized, trace[node.inputs[0]]))
    assert (quantized.tensors[node.outputs[0]].quantize(real).numpy() != trace[node.outputs[0]]).any()


def multiplier(ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """A 24-bit multiplier and its right shift."""
    shift = 23 - int(np.floor(np.log2(ratio)))
    return np.array([round(ratio * 2.0**shift)]), np.array([shift])


def test_adds_are_those_of_the_residual_block(quantized: QuantizedGraph, trace: dict[str, np.ndarray]) -> None:
    for node in quantized.nodes:
        if not isinstance(node.op, Add):
            continue
        first, second = (quantized.tensors[name] for name in node.inputs)
        common = max(first.scale, second.scale)
        channels = np.ones(first.shape[0], dtype=np.int64)
        operands = []
        for tensor in (first, second):
            factor, shift = multiplier(tensor.scale / common)
            operands.append(AddOperand(trace[tensor.name], tensor.zero_point, factor * channels, shift * channels))
        out = quantized.tensors[node.outputs[0]]
        factor, shift = multiplier(common / out.scale)
        codes = ResidualAdd().compute(
            (operands[0], operands[1]),
            factor * channels,
            shift * channels,
            out.zero_point,
            out.low,
            out.high,
        )
        assert np.mean(codes != trace[out.name]) < 1e-3
        assert np.max(np.abs(codes - trace[out.name])) <= 1


def test_pools_are_those_of_the_pooling_block(quantized: QuantizedGraph, trace: dict[str, np.ndarray]) -> None:
    (node,) = (node for node in quantized.nodes if isinstance(node.op, GlobalAvgPool))
    np.testing.assert_array_equal(global_average_pool(trace[node.inputs[0]]), trace[node.outputs[0]])


def test_codes_stay_within_their_clamp(quantized: QuantizedGraph, trace: dict[str, np.ndarray]) -> None:
    assert trace.keys() == quantized.tensors.keys()
    for name, tensor in quantized.tensors.items():
        assert tensor.low <= trace[name].min()
        assert trace[name].max() <= tensor.high


def test_how_images_are_batched_does_not_matter(quantized: QuantizedGraph, residual_images: np.ndarray) -> None:
    np.testing.assert_array_equal(quantized.run(residual_images, batch=5), quantized.run(residual_images, batch=24))


def test_a_tensor_outside_its_container_is_refused() -> None:
    with pytest.raises(FormatError, match=r"t must have its zero point and clamp within 0..15, not 16 and 0..15"):
        QuantizedTensor("t", (1,), 4, False, 1.0, 16, "shift", np.zeros(1, dtype=np.int64), 0, 15)
    with pytest.raises(FormatError, match="t must have 2 amounts"):
        QuantizedTensor("t", (2,), 4, False, 1.0, 0, "shift", np.zeros(1, dtype=np.int64), 0, 15)
    with pytest.raises(FormatError, match="t must have a positive scale"):
        QuantizedTensor("t", (1,), 4, False, 0.0, 0, "shift", np.zeros(1, dtype=np.int64), 0, 15)


@pytest.mark.parametrize(
    ("codes", "zero_point", "message"),
    [(8, 0.0, r"weight codes must lie in -8..7, not 8..8"), (7, 0.3, "must be 16-bit numbers of 2 fraction bits")],
)
def test_weights_outside_their_grid_are_refused(codes: int, zero_point: float, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        QuantizedWeights(4, np.full((1, 1), codes, dtype=np.int16), np.ones(1), np.array([zero_point]), 2)


def test_ties_go_to_the_lowest_class() -> None:
    assert accuracy(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([0, 0])) == 0.5
