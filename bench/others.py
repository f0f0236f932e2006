"""A convolution in 8 bits by others, in an interpreter that has them: onnxruntime and LiteRT.

    PYTHON bench/others.py '{"inputs": 128, "outputs": 128, "kernel": 3, ...}' THREADS

The program needs NumPy and what it measures, nothing of Gatewise. It prints a line of JSON, the names of what is there
and why the rest is not; then, for each line with a name that it reads, the seconds of one call, others of its kind
having settled before. So whoever asks can let it take turns with calls of its own.

onnxruntime runs QLinearConv (packages onnxruntime and onnx), LiteRT CONV_2D (package ai-edge-litert): activations
of 8 bits without a sign (LiteRT: with), weights of 8 bits with a scale for each output channel, requantised to 8 bits.
"""

import json
import sys
import time

import numpy as np

SETTLING = 0.05


def onnxruntime_call(layer, threads):
    """A call of QLinearConv on as many images as there are threads."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shape = layer["outputs"], layer["inputs"] // layer["groups"], layer["kernel"], layer["kernel"]
    x_shape = threads, layer["inputs"], layer["size"], layer["size"]
    size = (layer["size"] + 2 * layer["pad"] - layer["kernel"]) // layer["stride"] + 1
    constants = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(0),
        "w": rng.integers(-127, 128, shape).astype(np.int8),
        "w_scale": np.full(layer["outputs"], 0.01, np.float32),
        "w_zero": np.zeros(layer["outputs"], np.int8),
        "y_scale": np.float32(1.0),
        "y_zero": np.uint8(0),
        "bias": rng.integers(-1000, 1000, layer["outputs"]).astype(np.int32),
    }
    inputs = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "bias"]
    node = helper.make_node(
        "QLinearConv", inputs, ["y"], kernel_shape=[layer["kernel"]] * 2, strides=[layer["stride"]] * 2,
        pads=[layer["pad"]] * 4, group=layer["groups"],
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, (threads, layer["outputs"], size, size))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = {"x": rng.integers(0, 256, x_shape).astype(np.uint8)}
    return f"onnxruntime {onnxruntime.__version__}", lambda: session.run(None, x)


def litert_call(layer, threads):
    """A call of CONV_2D or DEPTHWISE_CONV_2D, activations with channels last and signed, in XNNPACK's kernels."""
    import importlib.metadata

    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    rng = np.random.default_rng(0)
    depthwise = layer["groups"] > 1
    size = (layer["size"] + 2 * layer["pad"] - layer["kernel"]) // layer["stride"] + 1
    kernel = [layer["kernel"]] * 2
    w_shape = [1, *kernel, layer["outputs"]] if depthwise else [layer["outputs"], *kernel, layer["inputs"]]
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]

    def tensor(name, shape, kind, scale, axis=0, data=None):
        made = schema.TensorT()
        made.name, made.shape, made.type = name, shape, kind
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = np.atleast_1d(np.float32(scale))
        made.quantization.zeroPoint = np.zeros(made.quantization.scale.shape, np.int64)
        made.quantization.quantizedDimension = axis
        made.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data.reshape(-1).view(np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        return made

    int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
    scales = np.full(layer["outputs"], 0.01, np.float32)
    weights = rng.integers(-127, 128, w_shape).astype(np.int8)
    bias = rng.integers(-1000, 1000, layer["outputs"]).astype(np.int32)
    graph, code, operator = schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    graph.tensors = [
        tensor("x", [threads, layer["size"], layer["size"], layer["inputs"]], int8, 0.02),
        tensor("w", w_shape, int8, scales, 3 if depthwise else 0, weights),
        tensor("bias", [layer["outputs"]], int32, 0.02 * scales, 0, bias),
        tensor("y", [threads, size, size, layer["outputs"]], int8, 1.0),
    ]
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, layer["stride"], layer["stride"]
    options.dilationHFactor = options.dilationWFactor = 1
    kinds, builtin = schema.BuiltinOptions, schema.BuiltinOperator
    code.builtinCode = builtin.DEPTHWISE_CONV_2D if depthwise else builtin.CONV_2D
    if depthwise:
        options.depthMultiplier = 1
    code.deprecatedBuiltinCode, code.version = code.builtinCode, 3
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptions = options
    operator.builtinOptionsType = kinds.DepthwiseConv2DOptions if depthwise else kinds.Conv2DOptions
    graph.operators, graph.inputs, graph.outputs = [operator], [0], [3]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=threads)
    interpreter.allocate_tensors()
    (index,) = (each["index"] for each in interpreter.get_input_details())
    interpreter.set_tensor(index, rng.integers(-128, 128, graph.tensors[0].shape).astype(np.int8))
    return f"LiteRT {importlib.metadata.version('ai-edge-litert')}", interpreter.invoke


CALLS = {"onnxruntime": onnxruntime_call, "LiteRT": litert_call}


def main():
    """Answer."""
    layer, threads = json.loads(sys.argv[1]), int(sys.argv[2])
    clock = time.process_time if sys.argv[3:] == ["cpu"] else time.perf_counter
    calls, versions, missing = {}, {}, {}
    for name, make in CALLS.items():
        try:
            versions[name], calls[name] = make(layer, threads)
        except ImportError as error:
            missing[name] = f"{name} is not there: {error}"
        except Exception as error:
            missing[name] = f"{name} does not run it: {str(error).splitlines()[0]}"
    print(json.dumps({"versions": versions, "missing": missing}), flush=True)
    for line in sys.stdin:
        call = calls[line.strip()]
        settled = time.perf_counter() + SETTLING
        call()
        while time.perf_counter() < settled:
            call()
        start = clock()
        call()
        print(clock() - start, flush=True)


if __name__ == "__main__":
    main()
