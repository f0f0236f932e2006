"""A picture of one layer of a file: how its weights and activations are spread, its levels, and where clips would be.

Weights are those of the file, or the float ones beside it; activations are what the layer computes before it
requantises, from the integer network's own inputs. Everything is in real units, which the layer's own scales give;
where channels have steps of their own, all their levels are drawn.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from ..kernels.errors import FormatError, ToolMissingError, UnsupportedError
from ..sim.atomic import write_bytes
from ..sim.graph import MacNode, PlaneWeights
from ..sim.images import ImageSet
from ..sim.layer import MacLayer
from ..sim.manifest import Codes, RequantiseNode
from ..sim.network import Network
from .aciq import AciqSettings, clip_range
from .capture import capture
from .clipping import Clip
from .networks import load_network
from .statistics import moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "activation_panel", "draw", "float_weights", "weight_panel"]

FORMATS = (".png", ".svg")
BINS = 120
CLIPS: dict[Clip, tuple[str, str]] = {"analytical": ("ACIQ", "C3"), "kld": ("KLD", "C2")}
STREAM_BITS = 16


@dataclass(frozen=True)
class Panel:
    """One histogram: `values` (n,), the `levels` of codes, and the clips by their rule, least and greatest."""

    title: str
    values: np.ndarray
    levels: np.ndarray
    clips: Mapping[Clip, tuple[float, float]]
    rectified: bool


def draw(network: Network, panels: list[Panel], layer: str, path: str | Path) -> None:
    """Write the panels side by side as a .png or .svg file; needs matplotlib."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise FormatError(f"a picture must be a file of {' or '.join(FORMATS)}, not {path.name}")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ToolMissingError("pictures need matplotlib: pip install 'gatewise[plot]'") from error
    figure = Figure(figsize=(6.4 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{network.name}: {layer}")
    for place, panel in enumerate(panels, start=1):
        _draw(figure.add_subplot(1, len(panels), place), panel)
    content = BytesIO()
    # The same picture has the same bytes: no date, no random identifiers.
    with rc_context({"svg.hashsalt": "gatewise"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(content, format=path.suffix[1:], dpi=120, metadata=metadata)
    write_bytes(path, content.getvalue())


def _draw(axes: "Axes", panel: Panel) -> None:
    axes.hist(panel.values, bins=BINS, color="C0", alpha=0.6, label=f"{panel.values.size:,} values")
    axes.set_yscale("log")
    axes.set_title(panel.title, fontsize="medium")
    axes.set_xlabel("real value")
    axes.set_ylabel("count")
    if panel.levels.size:
        # Of many channels the levels are a rug; a channel's own are lines.
        few = panel.levels.size <= 32
        top = 1.0 if few else 0.06
        axes.vlines(
            panel.levels, 0, top, transform=axes.get_xaxis_transform(), color="0.35", linewidth=0.6,
            alpha=0.9 if few else max(0.15, min(0.9, 60 / panel.levels.size)), label=f"{panel.levels.size:,} levels",
        )  # fmt: skip
    for clip, (low, high) in panel.clips.items():
        name, colour = CLIPS[clip]
        ends = (high,) if panel.rectified else (low, high)
        text = f"{name} clip {', '.join(f'{end:.3g}' for end in ends)}"
        for place, end in enumerate(ends):
            axes.axvline(end, color=colour, linestyle="--", linewidth=1.4, label=text if place == 0 else None)
    axes.legend(fontsize="small", loc="upper right")


def weight_panel(network: Network, layer: str, channel: int | None = None, floats: np.ndarray | None = None) -> Panel:
    """The weights of a layer, or of one output `channel`: the float ones (out, ...) where they are given."""
    node, held = _layer(network, layer)
    _check_channel(channel, held.shape.out_channels, "output channel")
    real = _real_weights(network, node, held).reshape(held.shape.out_channels, -1)
    if floats is not None and floats.size != real.size:
        raise FormatError(f"float weights of {layer} must be {real.size}, not {floats.size}")
    spread = real if floats is None else floats.reshape(real.shape)
    rows = slice(None) if channel is None else slice(channel, channel + 1)
    values, levels = spread[rows].reshape(-1), np.unique(real[rows])
    kind = "stored" if floats is None else "float"
    where = "" if channel is None else f", output channel {channel}"
    title = f"{kind} weights, {node.weights.bits} bits{where}"
    return Panel(title, values, levels, _clips(values, node.weights.bits, half=False), rectified=False)


def activation_panel(network: Network, layer: str, images: ImageSet, channel: int | None = None) -> Panel:
    """What a layer computes of the images before it requantises, or one `channel` of it."""
    node, held = _layer(network, layer)
    _check_channel(channel, held.shape.out_channels, "channel")
    codes, factors, low = _read_grid(network, node)
    tensors = network.run(images, trace=True).tensors
    values = _accumulated(network, node, held, tensors[node.inputs[0]]) * _unit(network, node, held)[:, None, None]
    rows = slice(None) if channel is None else slice(channel, channel + 1)
    values = values[:, rows].reshape(-1)
    rectified = low == codes.zero_point
    levels = np.empty(0)
    if codes.bits < STREAM_BITS:
        widths = network.widths.get(node.name, np.full(held.shape.out_channels, codes.bits))[rows]
        ends = codes.range[1] >> (codes.bits - widths) if rectified else np.full(len(widths), codes.range[1])
        numbers = [np.arange(low, (end if width else low) + 1) for end, width in zip(ends, widths, strict=True)]
        steps = codes.scale * np.broadcast_to(factors, held.shape.out_channels)[rows]
        levels = np.unique(np.concatenate([s * (n - codes.zero_point) for s, n in zip(steps, numbers, strict=True)]))
    where = "" if channel is None else f", channel {channel}"
    title = f"activations before the clamp, {codes.bits} bits, {len(images)} images{where}"
    return Panel(title, values, levels, _clips(values, min(codes.bits, 8), half=rectified), rectified)


def float_weights(network: Network, layer: str, weights: str | Path) -> np.ndarray:
    """A layer's float weights, batch norms folded, from the weights that the file was quantised from.

    The network is the one that the file's provenance names.
    """
    source = network.manifest.provenance.get("source")
    if not isinstance(source, str):
        raise FormatError(
            "float weights must belong to a file whose provenance names its source, and this one does not"
        )
    loaded = load_network(source, str(weights))
    parameters = capture(loaded.module, loaded.example).parameters
    names = {re.sub(r"[^A-Za-z0-9_.\-]", "_", name): name for name in parameters}
    if layer not in names:
        raise FormatError(f"layer must be one of {', '.join(names)}, not {layer!r}")
    return parameters[names[layer]].weight


def _layer(network: Network, name: str) -> tuple[MacNode, MacLayer]:
    if name not in network.layers:
        raise FormatError(f"layer must be one of {', '.join(network.layers)}, not {name!r}")
    node: MacNode = network.node(name)
    if node.out.planes is not None or network.source(node).codes.planes is not None:
        raise UnsupportedError(f"a picture of {name} must have activations that are numbers, not planes")
    return node, network.layers[name]


def _check_channel(channel: int | None, channels: int, what: str) -> None:
    if channel is not None and not 0 <= channel < channels:
        raise FormatError(f"{what} must be 0 to {channels - 1}, not {channel}")


def _out_factors(network: Network, name: str) -> np.ndarray:
    """What the output's steps are multiplied by, by channel or for all: its readers align them."""
    for other in network.mac_nodes():
        if other.inputs[0] == name and other.align is not None:
            return network.layers[other.name].factors.astype(np.float64)
    return np.ones(1)


def _unit(network: Network, node: MacNode, held: MacLayer) -> np.ndarray:
    """The real value of one step of the corrected accumulator, float64 (out,)."""
    step = node.out.scale * np.broadcast_to(_out_factors(network, node.name), held.shape.out_channels)
    if held.scale is not None:
        return np.asarray(step * held.scale.multiplier.astype(np.float64) * 2.0 ** -held.scale.shift.astype(np.float64))
    assert held.thresholds is not None
    units = []
    for own, size in zip(np.sort(held.thresholds, axis=1), step, strict=True):
        # Thresholds of codes that the clamp leaves out lie at the ends of the accumulator.
        inner = own[np.abs(own) < 1 << 30]
        if len(inner) < 2 or inner[0] == inner[-1]:
            raise UnsupportedError(
                f"a picture of {node.name} must have two thresholds in each channel that tell a step"
            )
        units.append(size * (len(inner) - 1) / float(inner[-1] - inner[0]))
    return np.array(units)


def _real_weights(network: Network, node: MacNode, held: MacLayer) -> np.ndarray:
    scale = _unit(network, node, held) / network.source(node).codes.scale
    per_output = (-1, *(1,) * (held.weights.ndim - 1))
    return np.asarray(_lifted(node, held) * scale.reshape(per_output))


def _lifted(node: MacNode, held: MacLayer) -> np.ndarray:
    """Weights less their zero points, in units of the corrected accumulator: the coefficients of planes have these."""
    lift = 1.0 if isinstance(node.weights, PlaneWeights) else 2.0**node.fraction
    return np.asarray(held.weights.astype(np.float64) * lift - held.zero.reshape(-1, *(1,) * (held.weights.ndim - 1)))


def _accumulated(network: Network, node: MacNode, held: MacLayer, codes: np.ndarray) -> np.ndarray:
    """The corrected accumulator (N, out, H, W), exact in float64."""
    shape, source = held.shape, network.source(node).codes
    top, left, bottom, right = shape.padding
    x = torch.from_numpy(codes.astype(np.float64)).reshape(len(codes), shape.in_channels, *codes.shape[2:])
    x = functional.pad(x, (left, right, top, bottom), value=float(source.zero_point))
    x = x * torch.from_numpy(held.factors.astype(np.float64)).reshape(-1, 1, 1)
    weights = _lifted(node, held)  # sum(x * (w - z)) is acc - z * xsum
    bias = torch.from_numpy(held.bias.astype(np.float64))
    total = functional.conv2d(x, torch.from_numpy(weights), bias, shape.stride, 0, shape.dilation, shape.groups)
    return total.numpy()


def _read_grid(network: Network, node: MacNode) -> tuple[Codes, np.ndarray, int]:
    """Codes, factors and least code of what layers read of this one: itself, or a copy of its 16-bit stream."""
    readers = [other for other in network.manifest.nodes if node.name in other.inputs]
    copies = [other for other in readers if isinstance(other, RequantiseNode) and other.out.planes is None]
    chosen: Any = copies[0] if node.out.bits == STREAM_BITS and copies else node
    requant: Any = chosen.requant
    low = int(getattr(requant, "low", chosen.out.range[0]))
    return chosen.out, _out_factors(network, chosen.name), low


def _clips(values: np.ndarray, bits: int, half: bool) -> dict[Clip, tuple[float, float]]:
    seen, found = moments(values), {}
    for clip in CLIPS:
        low, high = clip_range(seen, np.array([min(bits, 8)]), half, AciqSettings(clip=clip))
        found[clip] = float(low[0]), float(high[0])
    return found
