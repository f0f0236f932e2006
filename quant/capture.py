"""Capture of a PyTorch module: `torch.export` to a `Graph`, one node per operation.

The module runs once, on three copies of the example, so that an operation that mixes images or
hard-codes a batch of one is found. Every operation is a layer of the graph, an identity in eval
mode (dropout, copies), or refused by name with the source line that made it.
"""

import logging
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from ..kernels.conv import ConvShape
from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.pool import PoolShape
from .fusion import fuse
from .graph import (
    Add,
    AvgPool2d,
    BatchNorm,
    ChannelPad,
    Clamp,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Node,
    Norm,
    Parameters,
    SpatialPad,
    StrideSlice,
)
from .user_code import reason

__all__ = ["capture", "capture_unfolded"]

BATCH = 3
TORCH_FOLDER = str(Path(torch.__file__).parent)
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def capture(module: nn.Module, example: Tensor) -> Graph:
    """Capture a module in eval mode as a folded float64 graph: `capture_unfolded` with its batch norms folded."""
    return capture_unfolded(module, example).folded()


def capture_unfolded(module: nn.Module, example: Tensor) -> Graph:
    """Capture a module in eval mode as a float64 graph whose layers keep the batch norms behind them.

    `example` is one input or a batch, (N, ...), of the module's dtype; only its shape matters.
    Raises `UnsupportedError` naming the operation and its source line where Gatewise has no such
    operation, `FormatError` where the module is in training mode or gives no single tensor.
    """
    if module.training:
        raise FormatError("module must be in eval mode, not in training mode: call module.eval() first")
    batch = example[:1].expand(BATCH, *example.shape[1:]).contiguous()
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(module, (batch,)).run_decompositions({})
    except Exception as error:
        raise UnsupportedError(
            f"torch.export must be able to capture {type(module).__name__}: {reason(error)}"
        ) from error
    return fuse(_Translation(program, type(module).__name__).graph())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the pages that torch.export writes about a failure: the error says it in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _location(node: fx.Node) -> str:
    """``file:line`` of the innermost frame of the user's own code."""
    frames = [(match["file"], match["line"]) for match in FRAME.finditer(node.stack_trace or "")]
    own = [frame for frame in frames if not frame[0].startswith(TORCH_FOLDER)] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else "an unknown line"


def _pair(value: Any) -> tuple[int, int]:
    """An int or a list of one or two ints as (y, x)."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _arguments(node: fx.Node, first: int, *defaults: Any) -> list[Any]:
    """Arguments from index `first` on; those that the call leaves out have their defaults."""
    given = node.args[first:]
    return [*given, *defaults[len(given) :]]


class _Translation:
    """One exported program on its way to a graph."""

    def __init__(self, program: torch.export.ExportedProgram, module_name: str) -> None:
        self.program = program
        self.module_name = module_name
        self.nodes: dict[str, Node] = {}
        self.parameters: dict[str, Parameters] = {}
        self.norms: dict[str, Norm] = {}
        self.names: dict[fx.Node, str] = {}
        self.constants: dict[fx.Node, tuple[str, np.ndarray]] = {}
        self.handlers: dict[str, Callable[[fx.Node], None]] = {
            "aten.conv2d.default": self.conv2d,
            "aten.conv2d.padding": self.conv2d,
            "aten.linear.default": self.linear,
            "aten._native_batch_norm_legit_no_training.default": self.batch_norm,
            "aten.relu.default": lambda node: self.clamp(node, 0.0, math.inf),
            "aten.relu6.default": lambda node: self.clamp(node, 0.0, 6.0),
            "aten.hardtanh.default": lambda node: self.clamp(node, *_arguments(node, 1, -1.0, 1.0)),
            "aten.clamp.default": lambda node: self.clamp(node, *_arguments(node, 1, None, None)),
            "aten.clamp_min.default": lambda node: self.clamp(node, node.args[1], math.inf),
            "aten.clamp_max.default": lambda node: self.clamp(node, -math.inf, node.args[1]),
            "aten.add.Tensor": self.add,
            "aten.max_pool2d.default": self.max_pool,
            "aten.avg_pool2d.default": self.avg_pool,
            "aten.adaptive_avg_pool2d.default": self.adaptive_avg_pool,
            "aten.mean.dim": self.mean,
            "aten.view.default": self.reshape,
            "aten.reshape.default": self.reshape,
            "aten._unsafe_view.default": self.reshape,
            "aten.flatten.using_ints": self.reshape,
            "aten.squeeze.default": self.reshape,
            "aten.squeeze.dim": self.reshape,
            "aten.squeeze.dims": self.reshape,
            "aten.cat.default": self.concat,
            "aten.pad.default": self.pad,
            "aten.constant_pad_nd.default": self.pad,
            "aten.slice.Tensor": self.slice,
            "aten.clone.default": self.identity,
            "aten.alias.default": self.identity,
            "aten.contiguous.default": self.identity,
            "aten.dropout.default": self.identity,
            "aten.feature_dropout.default": self.identity,
        }

    def graph(self) -> Graph:
        """Translate every node of the program."""
        output = None
        self._placeholders()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                if node.target is operator.getitem:
                    self._first_result(node)
                    continue
                handler = self.handlers.get(str(node.target))
                if handler is None:
                    raise self.refusal(node, "is not an operation that Gatewise has")
                handler(node)
            elif node.op == "output":
                results = node.args[0]
                if len(results) != 1 or results[0] not in self.names:
                    raise FormatError(f"{self.module_name} must return one tensor computed from its input")
                output = self.names[results[0]]
        assert output is not None
        return Graph(tuple(self.nodes.values()), self.parameters, output, self.norms)

    def refusal(self, node: fx.Node, why: str) -> UnsupportedError:
        """The error for a node that cannot be translated."""
        return UnsupportedError(f"{str(node.target).removesuffix('.default')} {why} ({_location(node)})")

    def _placeholders(self) -> None:
        stored = {**self.program.state_dict, **self.program.constants}
        by_name = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op != "placeholder":
                continue
            spec = by_name[node.name]
            if spec.kind == InputKind.USER_INPUT:
                self.emit(Input, node, ())
            elif spec.target is not None and isinstance(value := stored.get(spec.target), Tensor):
                self.constants[node] = (spec.target, value.detach().to(torch.float64).numpy())

    def _first_result(self, node: fx.Node) -> None:
        source, index = node.args
        if index != 0 or not isinstance(source, fx.Node) or source not in self.names:
            raise self.refusal(node, "must take the first result of an operation")
        self.names[node] = self.names[source]

    def _name(self, node: fx.Node, parameter: str | None) -> str:
        """The module's path for a layer; the enclosing module's and the operation for the rest."""
        if parameter is not None:
            stem = parameter.rpartition(".")[0] or parameter
        elif node.op == "placeholder":
            stem = "input"
        else:
            path, kind = list(node.meta.get("nn_module_stack", {"": ("", "")}).values())[-1]
            operation = str(node.target).split(".")[1].strip("_")
            own = str(kind).startswith("torch.nn.modules.") and not str(kind).startswith("torch.nn.modules.container")
            stem = path if own and path else f"{path}.{operation}".lstrip(".")
        name, count = stem, 1
        while name in self.nodes:
            count += 1
            name = f"{stem}_{count}"
        return name

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of a node's (first) result without the batch."""
        value = node.meta["val"]
        value = value[0] if isinstance(value, tuple | list) else value
        shape = tuple(int(size) for size in value.shape)
        if len(shape) not in (2, 4) or shape[0] != BATCH:
            found = " x ".join(str(size) for size in shape)
            raise self.refusal(node, f"must give a batch of images or of vectors, not {found} for {BATCH} images")
        return shape[1:]

    def source(self, node: fx.Node, index: int = 0) -> Node:
        """The graph node of a tensor argument."""
        argument = node.args[index]
        if not isinstance(argument, fx.Node) or argument not in self.names:
            raise self.refusal(node, "must act on tensors computed from the input")
        return self.nodes[self.names[argument]]

    def constant(self, node: fx.Node, index: int) -> tuple[str, np.ndarray] | None:
        """Name and float64 value of a parameter or buffer argument; None where it is absent."""
        argument = node.args[index] if index < len(node.args) else None
        if argument is None:
            return None
        if not isinstance(argument, fx.Node) or argument not in self.constants:
            raise self.refusal(node, "must have parameters that are stored in the module, not computed")
        return self.constants[argument]

    def emit(
        self,
        kind: type[Node],
        node: fx.Node,
        inputs: tuple[str, ...],
        parameter: str | None = None,
        values: Parameters | None = None,
        **attributes: Any,
    ) -> None:
        """Add a graph node for `node`; `attributes` are the fields of its kind."""
        name = self._name(node, parameter)
        shape = attributes.pop("shape", None) or self.shape(node)
        self.nodes[name] = kind(name=name, inputs=inputs, shape=shape, **attributes)
        self.names[node] = name
        if values is not None:
            self.parameters[name] = values

    def identity(self, node: fx.Node) -> None:
        """An operation that changes nothing in eval mode."""
        self.names[node] = self.source(node).name

    def _layer_parameters(self, node: fx.Node) -> tuple[str, Parameters]:
        weight, bias = self.constant(node, 1), self.constant(node, 2)
        if weight is None:
            raise self.refusal(node, "must have weights")
        zeros = np.zeros(weight[1].shape[0])
        return weight[0], Parameters(weight[1], zeros if bias is None else bias[1])

    def conv2d(self, node: fx.Node) -> None:
        """Convolution with numeric padding, or with the words valid and same."""
        x = self.source(node)
        stride, padding, dilation, groups = _arguments(node, 3, 1, 0, 1, 1)
        name, values = self._layer_parameters(node)
        out_channels, _, *kernel = values.weight.shape
        if padding == "same":
            totals = [spread * (size - 1) for spread, size in zip(_pair(dilation), kernel, strict=True)]
            sides = (totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)
        else:
            sides = _pair(0 if padding == "valid" else padding) * 2
        shape = ConvShape(
            x.channels, out_channels, (kernel[0], kernel[1]), _pair(stride), sides, _pair(dilation), groups
        )
        self.emit(Conv2d, node, (x.name,), name, values, conv=shape)

    def linear(self, node: fx.Node) -> None:
        """Linear layer on vectors."""
        x = self.source(node)
        if len(x.shape) != 1:
            raise self.refusal(node, f"must act on vectors, not on images of shape {x.shape}: flatten them first")
        name, values = self._layer_parameters(node)
        self.emit(Linear, node, (x.name,), name, values, in_features=x.channels)

    def batch_norm(self, node: fx.Node) -> None:
        """Batch norm by its running statistics."""
        x = self.source(node)
        weight, bias, mean, variance = (self.constant(node, index) for index in (1, 2, 3, 4))
        if mean is None or variance is None:
            raise self.refusal(node, "must have running statistics")
        ones, zeros = np.ones_like(mean[1]), np.zeros_like(mean[1])
        epsilon = float(node.args[6])  # type: ignore[arg-type]
        norm = Norm(
            ones if weight is None else weight[1], zeros if bias is None else bias[1], mean[1], variance[1], epsilon
        )
        self.emit(BatchNorm, node, (x.name,), mean[0], Parameters(norm.scale, norm.shift))
        self.norms[self.names[node]] = norm

    def clamp(self, node: fx.Node, low: Any, high: Any) -> None:
        """ReLU and its bounded kin."""
        x = self.source(node)
        ends = (-math.inf if low is None else low, math.inf if high is None else high)
        if not all(isinstance(end, int | float) for end in ends) or ends[0] > ends[1]:
            raise self.refusal(node, f"must have constant bounds in order, not {low} and {high}")
        self.emit(Clamp, node, (x.name,), low=float(ends[0]), high=float(ends[1]))

    def add(self, node: fx.Node) -> None:
        """Sum of two tensors of one shape."""
        if not isinstance(node.args[1], fx.Node) or node.kwargs.get("alpha", 1) != 1:
            raise self.refusal(node, "must add two tensors without a factor")
        first, second = self.source(node), self.source(node, 1)
        if first.shape != second.shape:
            raise self.refusal(node, f"must add tensors of one shape, not {first.shape} and {second.shape}")
        self.emit(Add, node, (first.name, second.name))

    def _pool(self, node: fx.Node, kernel: Any, stride: Any, padding: Any) -> PoolShape:
        """The pooling's geometry; windows that ceil_mode adds reach over pixels that do not exist."""
        x, out = self.source(node), self.shape(node)
        size, before = _pair(kernel), _pair(padding)
        step = _pair(stride) if stride != [] and stride is not None else size
        after = tuple(
            max((out[axis + 1] - 1) * step[axis] + size[axis] - x.shape[axis + 1] - before[axis], before[axis])
            for axis in (0, 1)
        )
        return PoolShape(size, step, (*before, after[0], after[1]))

    def max_pool(self, node: fx.Node) -> None:
        """Max pooling."""
        kernel, stride, padding, dilation, _ = _arguments(node, 1, None, [], 0, 1, False)
        if _pair(dilation) != (1, 1):
            raise self.refusal(node, f"must have no dilation, not {_pair(dilation)}")
        pool = self._pool(node, kernel, stride, padding)
        self.emit(MaxPool2d, node, (self.source(node).name,), pool=pool)

    def avg_pool(self, node: fx.Node) -> None:
        """Average pooling whose padding does not count."""
        kernel, stride, padding, _, counts_padding, divisor = _arguments(node, 1, None, [], 0, False, True, None)
        if divisor is not None:
            raise self.refusal(node, "must divide by the number of pixels, not by divisor_override")
        if counts_padding and max(_pair(padding)) > 0:
            raise self.refusal(node, "with padding must have count_include_pad=False: hardware averages real pixels")
        self._average(node, self._pool(node, kernel, stride, padding))

    def _average(self, node: fx.Node, pool: PoolShape) -> None:
        x = self.source(node)
        if pool.kernel == x.shape[1:] and not any(pool.padding):
            self.emit(GlobalAvgPool, node, (x.name,))
        else:
            self.emit(AvgPool2d, node, (x.name,), pool=pool)

    def adaptive_avg_pool(self, node: fx.Node) -> None:
        """Adaptive average pooling with windows of one size."""
        x, out = self.source(node), self.shape(node)
        kernel = (x.shape[1] // out[1], x.shape[2] // out[2])
        if (kernel[0] * out[1], kernel[1] * out[2]) != x.shape[1:]:
            raise self.refusal(node, f"must divide the {x.shape[1:]} image evenly, not into {out[1:]}")
        if kernel == (1, 1):
            self.identity(node)
        else:
            self._average(node, PoolShape(kernel, kernel))

    def mean(self, node: fx.Node) -> None:
        """Mean over rows and columns."""
        x = self.source(node)
        axes, keep, _ = _arguments(node, 1, None, False, None)
        if len(x.shape) != 3 or not isinstance(axes, list) or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise self.refusal(node, f"must average an image's rows and columns, not dimensions {axes}")
        self.emit(GlobalAvgPool, node, (x.name,), shape=(x.channels, 1, 1))
        if not keep:
            self.emit(Flatten, node, (self.names[node],))

    def reshape(self, node: fx.Node) -> None:
        """A reshape that flattens each image, or that changes nothing."""
        x, shape = self.source(node), self.shape(node)
        if shape == x.shape:
            self.identity(node)
        elif shape == (math.prod(x.shape),):
            self.emit(Flatten, node, (x.name,))
        elif len(x.shape) == 1 and shape == (*x.shape, 1, 1) and isinstance(x, Flatten):
            self.names[node] = x.inputs[0]
        else:
            raise self.refusal(node, f"must flatten each image, not turn {x.shape} into {shape}")

    def concat(self, node: fx.Node) -> None:
        """Concatenation of channels."""
        tensors, axis = _arguments(node, 0, [], 0)
        if axis % (len(self.shape(node)) + 1) != 1:
            raise self.refusal(node, f"must concatenate channels (dimension 1), not dimension {axis}")
        inputs = []
        for tensor in tensors:
            if not isinstance(tensor, fx.Node) or tensor not in self.names:
                raise self.refusal(node, "must act on tensors computed from the input")
            inputs.append(self.names[tensor])
        self.emit(Concat, node, tuple(inputs))

    def pad(self, node: fx.Node) -> None:
        """Zero padding of channels, or of rows and columns."""
        x = self.source(node)
        widths, mode, value = _arguments(node, 1, [], "constant", None)
        if str(node.target).startswith("aten.constant_pad"):
            mode, value = "constant", mode
        fill = node.kwargs.get("value", value) or 0
        ends = list(widths)
        ends += [0] * (6 - len(ends))
        left, right, top, bottom, before, after = ends[:6]
        if mode != "constant" or fill != 0 or min(ends) < 0 or len(ends) > 6 or len(x.shape) != 3:
            raise self.refusal(node, f"must pad images with zeros, not mode {mode}, value {fill}, widths {ends}")
        name = x.name
        if any(ends[4:]):
            shape = (x.channels + before + after, *x.shape[1:])
            self.emit(ChannelPad, node, (name,), shape=shape, before=before, after=after)
            name = self.names[node]
        if any(ends[:4]):
            self.emit(SpatialPad, node, (name,), padding=(top, left, bottom, right))
        elif name == x.name:
            self.identity(node)

    def slice(self, node: fx.Node) -> None:
        """A slice with a stride from the first row or column on."""
        x = self.source(node)
        axis, start, end, step = (int(value) for value in _arguments(node, 1, 0, 0, 2**63 - 1, 1))
        size = (BATCH, *x.shape)[axis]
        if start % max(size, 1) != 0 or end < size or (step != 1 and (axis < 2 or len(x.shape) != 3)):
            raise self.refusal(node, "must be every s-th row or column of an image from the first to the last")
        if step == 1:
            self.identity(node)
        else:
            self.emit(StrideSlice, node, (x.name,), stride=(step, 1) if axis == 2 else (1, step))
