"""An exported network in memory: manifest, arrays, and the layers decoded from them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.errors import FormatError, GatewiseError
from .engine import EngineConfig
from .graph import MacNode, Value, check_arrays, conv_shape, infer
from .images import ImageSet
from .layer import MacLayer, ScaleArrays
from .manifest import AddNode, Conv2dNode, LinearNode, Manifest, RequantiseNode
from .widths import activation_widths

if TYPE_CHECKING:
    from .fast import Form
    from .run import RunResult

__all__ = ["Network"]


class Network:
    """A network whose every reference, shape, dtype and constant has been checked.

    Make one with `gatewise.load` or `gatewise.NetworkBuilder`.
    """

    def __init__(self, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> None:
        self.manifest = manifest
        self.arrays = dict(arrays)
        self.values = infer(manifest)
        check_arrays(manifest, self.values, self.arrays)
        self.layers: dict[str, MacLayer] = {}
        self.scales: dict[tuple[str, str], ScaleArrays] = {}
        self.widths = activation_widths(manifest, self.values, self.arrays)
        self.fast: dict[Any, Any] = {}
        """Nodes in their fast forms, kept by `fast.fast_nodes`."""
        self.compiled: dict[EngineConfig, Any] = {}
        """Schedules and cycles on the engines that it last ran on, kept by `run.run`."""
        for node in manifest.nodes:
            try:
                self._decode(node.name)
            except GatewiseError as error:
                raise type(error)(f"{node.name}: {error}") from error

    def _decode(self, name: str) -> None:
        node = self.node(name)
        source = self.values[node.inputs[0]]
        if isinstance(node, Conv2dNode | LinearNode):
            self.layers[name] = MacLayer.decode(
                node,
                source,
                lambda role: self.arrays[f"{name}.{role}"],
                self.manifest.xor_networks,
                self.widths.get(node.inputs[0]),
                self.widths.get(name),
            )
        elif isinstance(node, AddNode | RequantiseNode):
            for prefix in ("first_", "second_", "") if isinstance(node, AddNode) else ("",):
                multiplier, shift = (self.arrays[f"{name}.{prefix}{role}"] for role in ("multiplier", "shift"))
                self.scales[name, prefix] = ScaleArrays.decode(multiplier, shift, source.shape[0], node.requant)

    @property
    def name(self) -> str:
        """The network's own name."""
        return self.manifest.name

    @property
    def output(self) -> str:
        """The name of the result tensor."""
        return self.manifest.nodes[-1].name

    @property
    def scheme(self) -> str:
        """The weight schemes that occur, joined by ``+``."""
        schemes = {node.weights.scheme for node in self.mac_nodes()}
        return "+".join(sorted(schemes)) or "none"

    def node(self, name: str):  # type: ignore[no-untyped-def]
        """The node of a name."""
        for node in self.manifest.nodes:
            if node.name == name:
                return node
        raise FormatError(f"{name!r} must be one of the network's nodes")

    def mac_nodes(self) -> list[MacNode]:
        """The layers that run on the MAC array, in order."""
        return [node for node in self.manifest.nodes if isinstance(node, Conv2dNode | LinearNode)]

    def source(self, node: MacNode) -> Value:
        """The value that a single-input node reads."""
        return self.values[node.inputs[0]]

    def macs(self, node: MacNode) -> int:
        """Multiply-accumulates per image of a MAC layer."""
        source = self.source(node)
        return conv_shape(node, source).macs(*source.shape[1:])

    def run(
        self,
        images: "ImageSet | np.ndarray",
        engine: EngineConfig | None = None,
        *,
        trace: bool = False,
        batch: int = 64,
        form: "Form" = "auto",
    ) -> "RunResult":
        """Run images through the engine, bit for bit; see `gatewise.sim.run.run`."""
        from .run import run

        return run(self, images, engine, trace=trace, batch=batch, form=form)
