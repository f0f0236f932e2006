"""FleXOR: weights of a fraction of a bit, decoded from encrypted ones by XOR networks.

Lee, Kwon, Kim, Wei, "FleXOR: trainable fractional quantization" (NeurIPS 2020), section 3 and Algorithm 1. Weights are
``sum_p alpha_p,o * b_p``: for each of the planes p signs b_p, and a coefficient for each output channel that is learnt.
The signs of a plane are made of encrypted bits, `n_in` of them for every `n_out`, by a network of the plane's own,
which all layers of one rate share. What trains is a real number for each encrypted bit, with the gradient of
`encrypted`, and the coefficients.

Slices cannot be put in another order once they are trained. They stand in the order in which a named engine takes the
weights, so that its decoder reads hardly more than `n_in / n_out` bits a weight; the paper has them in the order of a
framework's memory.

Where the paper is silent, there are settings: activations, which it leaves real, have at most 8 bits here (`ranges`);
first and last layers have 8-bit integers or are encrypted too; encrypted weights begin as noise, as there, or as the
nearest to a trained network's. Trainings are short here, and `quantize` has Adam for them unless told: the paper's
CIFAR-10 recipe is 500 epochs of SGD at a rate of 0.1 with a decay of 1e-5.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from ..kernels.addressing import TileOrder, tile_order
from ..kernels.errors import FormatError
from ..kernels.planes import COEFFICIENT_BITS
from ..kernels.xor import XorNetwork
from ..sim.engine import XOR_NETWORKS, XOR_WIDTH, EngineConfig
from ..sim.schedule import unfolding_pays
from .affine import WeightSettings, live_scales, quantize_weights, rounded_weights
from .encrypted import EncryptedLayer, EncryptedSigns, Gradient, relative, stages
from .graph import Conv2d, Flatten, Graph, Layer, Linear, Node, Parameters
from .lowering import INPUT_BITS, Grid, Quantizer, edge_layers, lower
from .minmax import minmax_grid
from .preprocess import InputSpec
from .quantized import EncodedWeights, QuantizedGraph, QuantizedTensor, QuantizedWeights
from .ranges import ActivationRanges
from .settings import check_positive, check_ranges
from .statistics import Statistics
from .trainable import FakeQuantizer, TrainableGraph, folded_weight, straight_through
from .training import TrainingSettings

__all__ = ["Account", "FlexorSettings", "FlexorTraining", "LayerAccount", "account", "flexor_training"]

EDGE_BITS = 8
"""Of the weights of layers that are not encrypted."""
ALPHA_BITS = 32
"""Of a coefficient as the paper counts it."""
MAX_ACTIVATION_BITS = 8


@dataclass(frozen=True)
class FlexorSettings:
    """What FleXOR is told.

    Parameters
    ----------
    n_in : encrypted bits of a slice, up to 32: one number, or some joined by commas, one for each stage (encrypted
        layers one after another with as many output channels) or one for each encrypted layer
    n_out : signs of a slice, up to 32
    taps : inputs of every output; 0 taps each with probability 1/2
    planes : 1..4, each with networks of its own
    gradient : of the XOR: "tanh" (the paper's), "straight-through" or "analog"; "real" trains on real outputs as well
    slope : S_tanh, once it is warmed up
    slope_start : S_tanh at the start; it rises evenly
    slope_warmup : share of the training in which it does
    slope_growth : what S_tanh is multiplied by after half of the training, and again after three quarters: where the
        schedule "step" lowers the learning rate
    limit : encrypted weights are kept within +-limit / S_tanh; 0 keeps none
    begin : encrypted weights at the start: "random", or "float": signs nearest to the given weights
    spread : standard deviation of encrypted weights at the start
    alpha : coefficients at the start, where that is random; 0 has ``sqrt(2 / fan-in)``
    alpha_rate : learning rate of the coefficients, in units of the training's
    edges : first and last layer of the network: "integer" (8 bits) or "encrypted"
    engine : in whose order the signs stand: rows x lanes of its array ("16x16"), a TOML file, or "natural" for none
    activation_bits : of what layers read, 1..8
    activations : whether training has them "quantised" or "real", as the paper; hardware always has their bits
    seed : of the networks and of the encrypted weights at the start
    """

    n_in: int | str = 16
    n_out: int = 20
    taps: int = 2
    planes: int = 1
    gradient: Gradient = "tanh"
    slope: float = 10.0
    slope_start: float = 5.0
    slope_warmup: float = 0.2
    slope_growth: float = 1.0
    limit: float = 0.0
    begin: Literal["random", "float"] = "random"
    spread: float = 0.001
    alpha: float = 0.2
    alpha_rate: float = 1.0
    edges: Literal["integer", "encrypted"] = "integer"
    engine: str = "16x16"
    activation_bits: int = 8
    activations: Literal["quantised", "real"] = "quantised"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_out <= XOR_WIDTH:
            raise FormatError(f"n_out must be 1 to {XOR_WIDTH}, not {self.n_out}")
        check_ranges(self, planes=(1, XOR_NETWORKS), activation_bits=(1, MAX_ACTIVATION_BITS), slope_warmup=(0, 1))
        check_positive(self, "slope", "slope_start", "slope_growth", "spread", "alpha_rate")
        for name in ("limit", "alpha"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise FormatError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for n_in in self.inputs:
            if not 1 <= n_in <= XOR_WIDTH or self.taps > n_in or self.taps < 0:
                raise FormatError(
                    f"n_in must be 1 to {XOR_WIDTH} and at least the {self.taps} taps, which must not be negative, "
                    f"not {n_in}"
                )
        _ = self.tile

    @property
    def inputs(self) -> tuple[int, ...]:
        """`n_in` as numbers."""
        try:
            return tuple(int(part) for part in str(self.n_in).split(","))
        except ValueError as error:
            raise FormatError(f"n_in must be whole numbers joined by commas, not {self.n_in!r}") from error

    @property
    def tile(self) -> tuple[int, int] | None:
        """Rows and lanes of the engine in whose order signs stand."""
        if self.engine == "natural":
            return None
        rows, times, lanes = self.engine.partition("x")
        if times and rows.isdecimal() and lanes.isdecimal():
            found = EngineConfig(rows=int(rows), lanes=int(lanes), array="sign", decoder="xor")
        elif self.engine.endswith(".toml"):
            found = EngineConfig.load(self.engine)
        else:
            raise FormatError(f'engine must be rows x lanes ("16x16"), a .toml file or natural, not {self.engine!r}')
        return found.rows, found.lanes

    def network(self, n_in: int, plane: int) -> XorNetwork:
        """The XOR network of a rate and a plane."""
        return XorNetwork.random(n_in, self.n_out, self.taps or None, self.seed * XOR_NETWORKS + plane)

    def slope_at(self, done: float) -> float:
        """S_tanh after a share `done` of the epochs."""
        warm = 1.0 if done >= self.slope_warmup else done / self.slope_warmup
        grown = self.slope_growth ** ((done >= 0.5) + (done >= 0.75))
        return (self.slope_start + (self.slope - self.slope_start) * warm) * grown


@dataclass(frozen=True)
class LayerAccount:
    """Bits of a layer: `stored` for its weights, and of its coefficients."""

    name: str
    weights: int
    encrypted: bool
    stored: int
    coefficients: int


@dataclass(frozen=True)
class Account:
    """Bits of a network's weights, and of what decodes them. Nothing is left out.

    `matrices` are the bits of the XOR networks, one for each input of each output.
    """

    layers: tuple[LayerAccount, ...]
    matrices: int

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def encrypted_bits_per_weight(self) -> float:
        """Stored bits of the encrypted layers for each of their weights, the surplus of last slices included."""
        own = [layer for layer in self.layers if layer.encrypted]
        return sum(layer.stored for layer in own) / sum(layer.weights for layer in own)

    @property
    def bits_per_weight(self) -> float:
        """All bits for each weight of all layers: of coefficients and matrices too, and of layers not encrypted."""
        bits = sum(layer.stored + layer.coefficients for layer in self.layers) + self.matrices
        return bits / self.weights


def account(graph: Graph, settings: FlexorSettings, coefficient_bits: int = COEFFICIENT_BITS) -> Account:
    """The bits of a network's weights under FleXOR; a coefficient has 16 bits in the file, 32 in the paper's count.

    >>> account(capture(resnet18, example), FlexorSettings(n_in="19,16,7,7")).bits_per_weight
    """
    rates = _rates(graph, settings)
    layers = []
    for layer in graph.layers:
        weights = graph.parameters[layer.name].weight.size
        if layer.name in rates:
            stored = settings.planes * rates[layer.name] * -(-weights // settings.n_out)
            layers.append(
                LayerAccount(layer.name, weights, True, stored, settings.planes * layer.channels * coefficient_bits)
            )
        else:
            layers.append(LayerAccount(layer.name, weights, False, EDGE_BITS * weights, 0))
    matrices = settings.planes * settings.n_out * sum(set(rates.values()))
    return Account(tuple(layers), matrices)


def _rates(graph: Graph, settings: FlexorSettings) -> dict[str, int]:
    """The encrypted bits of a slice of each encrypted layer, by its name."""
    edges = edge_layers(graph) if settings.edges == "integer" else frozenset()
    own = [layer for layer in graph.layers if layer.name not in edges]
    if not own:
        raise FormatError("a network must have layers between its first and its last to encrypt, or edges encrypted")
    given, stage = settings.inputs, stages([layer.channels for layer in own])
    if len(given) == 1:
        given *= len(own)
    elif len(given) == stage[-1] + 1:
        given = tuple(given[at] for at in stage)
    elif len(given) != len(own):
        raise FormatError(
            f"n_in must be one number, one for each of {stage[-1] + 1} stages or one for each of {len(own)} encrypted "
            f"layers, not {len(given)}"
        )
    return {layer.name: n_in for layer, n_in in zip(own, given, strict=True)}


def _order(graph: Graph, layer: Layer, tile: tuple[int, int] | None) -> TileOrder | None:
    """How an array of `tile` (rows, lanes) takes a layer's weights."""
    if tile is None:
        return None
    source = graph.by_name[layer.inputs[0]]
    if isinstance(layer, Linear):
        while isinstance(source, Flatten):
            source = graph.by_name[source.inputs[0]]
        height, width = (*source.shape[1:], 1, 1)[:2]
        return TileOrder(*tile, (height, width))
    alone = len(graph.consumers[graph.input.name]) == 1
    stem = source is graph.input and alone and layer.conv.groups == 1
    channels, kernel, lanes = layer.conv.in_channels, layer.conv.kernel[1], tile[1]
    return TileOrder(*tile, unfolded=stem and unfolding_pays(channels, kernel, lanes, lanes))


def _shape(layer: Layer) -> tuple[tuple[int, int, int, int], int]:
    """A layer's weights as a convolution's, and its groups."""
    if isinstance(layer, Conv2d):
        return layer.conv.weight_shape, layer.conv.groups
    return (layer.channels, layer.in_features, 1, 1), 1


def _places(layer: Layer, order: TileOrder | None) -> np.ndarray:
    """Places in the flat weights of a layer in the order of its stream."""
    shape, groups = _shape(layer)
    if order is not None:
        return tile_order(shape, groups, *order)
    return np.arange(math.prod(shape)).reshape(shape).transpose(0, 2, 3, 1).reshape(-1)


class FlexorTraining(FakeQuantizer):
    """FleXOR in training.

    Parameters
    ----------
    spec : of the network's input
    settings : the method's
    training : the training's; its weight decay is that of encrypted weights too
    """

    encrypted: EncryptedSigns
    ranges: ActivationRanges

    def __init__(self, spec: InputSpec, settings: FlexorSettings, training: TrainingSettings) -> None:
        super().__init__()
        self.spec, self.settings, self.recipe = spec, settings, training

    def begin(self, network: TrainableGraph, calibration: Tensor) -> None:
        """Draw networks and encrypted weights."""
        graph, settings = network.structure, self.settings
        self.input_name = graph.input.name
        self.rates = _rates(graph, settings)
        self.orders = {layer.name: _order(graph, layer, settings.tile) for layer in graph.layers}
        rng = np.random.default_rng(settings.seed)
        own = [layer for layer in graph.layers if layer.name in self.rates]
        layers = {
            layer.name: self._begun(layer, network.weight(layer).cpu().numpy().astype(np.float64), rng) for layer in own
        }
        self.encrypted = EncryptedSigns(layers, settings.gradient, settings.slope_at(0))
        self.ranges = ActivationRanges(graph, self.spec, self.input_bits)

    def input_bits(self, layer: Layer) -> int:
        """Of what the layer reads."""
        return INPUT_BITS if layer.inputs[0] == self.input_name else self.settings.activation_bits

    def _begun(self, layer: Layer, weight: np.ndarray, rng: np.random.Generator) -> EncryptedLayer:
        settings = self.settings
        n_in, out = self.rates[layer.name], len(weight)
        networks = tuple(settings.network(n_in, plane) for plane in range(settings.planes))
        places = _places(layer, self.orders[layer.name])
        shape = networks[0].slices(weight.size), n_in
        noise = [settings.spread * rng.standard_normal(shape) for _ in networks]
        if settings.begin == "random":
            alpha = settings.alpha or math.sqrt(2 / (weight.size / out))
            return EncryptedLayer(weight.shape, networks, places, tuple(noise), np.full((settings.planes, out), alpha))
        rest, slices, alphas = weight.reshape(-1), [], []
        for network, values in zip(networks, noise, strict=True):
            ordered = rest[places]
            stream = network.encode((ordered >= 0).astype(np.uint8), np.abs(ordered))
            bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=values.size, bitorder="little")
            signs = np.empty(weight.size)
            signs[places] = 2.0 * network.decode_stream(stream, weight.size) - 1
            alphas.append(np.maximum((rest * signs).reshape(out, -1).mean(axis=1), 0))
            rest = rest - np.repeat(alphas[-1], weight.size // out) * signs
            slices.append(np.abs(values) * (2.0 * bits.reshape(shape) - 1))
        return EncryptedLayer(weight.shape, networks, places, tuple(slices), np.array(alphas))

    def parameter_groups(self) -> list[dict[str, object]]:
        """Encrypted weights, which decay, and coefficients, which do not."""
        rate = self.recipe.learning_rate
        return [
            {"params": list(self.encrypted.slices), "weight_decay": self.recipe.weight_decay},
            {"params": [self.encrypted.alpha], "weight_decay": 0.0, "lr": rate * self.settings.alpha_rate},
        ]

    def begin_epoch(self, network: TrainableGraph, epoch: int, epochs: int) -> None:
        """Set S_tanh."""
        self.encrypted.slope = self.settings.slope_at(epoch / epochs)

    def weight(self, layer: Layer, weight: Tensor, gain: Tensor) -> Tensor:
        """The weights that are decoded, or 8-bit integers, the batch norm folded in."""
        if layer.name in self.rates:
            return self.encrypted.weight(layer.name)
        folded, safe = folded_weight(weight, gain)
        return straight_through(folded, rounded_weights(folded.detach(), EDGE_BITS)) / safe

    def activation(self, layer: Layer, value: Tensor) -> Tensor:
        """What the layer reads on its grid, unless training has real activations."""
        if self.settings.activations == "real":
            return value
        quantised: Tensor = self.ranges(layer, value)
        return quantised

    def end_step(self, network: TrainableGraph) -> None:
        """Keep encrypted weights within their limit."""
        if self.settings.limit:
            self.encrypted.limit(self.settings.limit / self.encrypted.slope)

    def end(self, network: TrainableGraph) -> None:
        """The network's own weights become those that were decoded: its float form is the trained one too."""
        self.encrypted.finish()
        for layer in network.structure.layers:
            if layer.name in self.rates:
                network.layers[layer.name].weight.copy_(self.encrypted.weight(layer.name))

    def quantized(self, network: TrainableGraph, spec: InputSpec, statistics: Statistics) -> QuantizedGraph:
        """Encrypted layers on sign planes; ranges that training has not seen are calibrated."""
        graph = network.graph().folded()
        facts = account(graph, self.settings)
        settings = {**asdict(self.settings), "bits_per_weight": round(facts.bits_per_weight, 4)}
        return lower(graph, spec, _Flexor(graph, self, spec, statistics, settings))


@dataclass(frozen=True, eq=False)
class _Flexor(Quantizer):
    """What training ended with, for the hardware; `graph` is folded."""

    graph: Graph
    trained: FlexorTraining
    spec: InputSpec
    statistics: Statistics
    facts: Mapping[str, object]
    method = "flexor"

    @property
    def settings(self) -> Mapping[str, object]:
        return self.facts

    def input_bits(self, layer: Layer) -> int:
        return self.trained.input_bits(layer)

    def activation_grid(self, producers: Sequence[Node], bits: int) -> Grid:
        found = self.trained.ranges.grid(producers, bits)
        if found is None:
            return minmax_grid(producers, bits, self.statistics, self.spec)
        return Grid(bits, False, *found, np.zeros(sum(node.channels for node in producers), dtype=np.int64))

    def layer_weights(
        self, layer: Layer, parameters: Parameters, source: QuantizedTensor
    ) -> tuple[QuantizedWeights | EncodedWeights, np.ndarray]:
        weight, bias = parameters
        encrypted = self.trained.encrypted
        if layer.name not in self.trained.rates:
            return quantize_weights(layer, parameters, source, EDGE_BITS, WeightSettings()), bias
        gain = self.graph.gains.get(layer.name, np.ones(len(weight)))
        alpha, greatest = relative(encrypted.coefficients(layer.name))
        scales, live = live_scales(greatest * np.abs(gain), bias, source)
        return (
            EncodedWeights.xor(
                encrypted.bits(layer.name),
                encrypted.networks[layer.name],
                alpha * np.sign(gain) * live,
                scales,
                weight.shape,
                _shape(layer)[1],
                self.trained.orders[layer.name],
            ),
            bias,
        )


def flexor_training(
    graph: Graph, spec: InputSpec, settings: FlexorSettings, training: TrainingSettings
) -> FlexorTraining:
    """The method in training, of an unfolded graph; `FormatError` where noise would not even be trained."""
    if not training.epochs and settings.begin == "random":
        raise FormatError(
            "encrypted weights that begin as noise must be trained: give images to train on, or begin=float"
        )
    return FlexorTraining(spec, settings, training)
