"""Convert the float digits network to every weight scheme, without training, and say what each loses.

    python examples/digits/schemes.py [--write]

The inner layers get the scheme, the first and the last one 8-bit integers. Activations keep the grids of the shipped
4-bit demo network, the coarsest step of a tensor for all its channels. Each output channel has a scale, and a
zero point that takes away the mean error of its weights. All constants come of the weights: no image is looked at.

"mixed" has layers of every mode of a fused array: integers of 2, 4 and 8 bits, some of whose inputs have 2 bits.

"bayesian" has Bayesian Bits' form throughout: nested grids for weights and activations, a grid and a width of 2, 4 or 8
bits for each layer's weights, and no weights at all for some channels.

"allocated4" has ACIQ's bit allocation: the inner layers' weights and the tensors that no residual joins have a width of
0 to 8 bits for each channel, 4 on average. Some channels have no weights and no bits; others share theirs.

The cost of a bit in "bayesian" and the share of emptied channels in "allocated4" were set so that all widths occur, but
with the top-1 of the held-out images in sight: these two are no clean measurements of accuracy.

Two networks have activations of planes besides: LQ-Net's 2 bits, and binary ones, whose inner weights and activations
are all -1 or +1. Their levels are fitted to what batch normalisation says of the values: normal, with its mean and
deviation for each channel. Signs have no zero point; what they lose on the average goes into the bias.

The published methods train their networks in their schemes; this is what the formats cost without that.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from gatewise import EngineConfig, Grid, Network, NetworkBuilder, PlaneBasis, WeightCodes, XorNetwork
from gatewise.kernels.align import MAX_SHIFT
from gatewise.kernels.allocation import allocate_bits
from gatewise.kernels.nested import NestedGrid
from gatewise.kernels.shift import ShiftFormat, fit_bias, nearest_codes, power_of_two
from gatewise.sim.demo import load_demo
from gatewise.sim.file import save_network
from gatewise.sim.inspect import inspect_file
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

__all__ = ["COLUMNS", "SCHEMES", "Encoded", "convert", "engine", "main", "report", "shipped"]

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "sim" / "digits"
EPSILON = 1e-5
"""That batch normalisation adds to variances."""
PRUNED = 0.3
"""Share of the weights that focused layers prune: the smallest."""
SHRINKS = 2.0 ** (-np.arange(9) / 8)
"""Channel scales that are tried, in units of the one that clips nothing."""
ROUNDS = 20
"""Of the alternation between signs and coefficients, or levels."""
QUANTILES = 99
"""Of a channel's normal values."""
COST = 0.0888
"""Of a bit of weights in "bayesian": the share of its energy that the layer of the most MACs may lose to be rid of it.

With this there are layers of 2, 4 and 8 bits."""
CLIP = 2.93
"""Standard deviations from the mean to the clip of 4 bits behind a ReLU: the authors' constant for a Gauss prior."""
NORM = ("weight", "bias", "running_mean", "running_var")
GONE = 8
"""One of so many channels has no weights in "bayesian", of the layers whose outputs no residual joins."""
GONE_OF_ALLOCATED = 16
"""The same in "allocated4"."""
MACS = {"conv1": 64 * 16 * 9, "conv2": 16 * 32 * 144, "conv3": 16 * 32 * 288, "conv4": 16 * 32 * 288, "linear": 1280}


class Encoded(NamedTuple):
    """A layer's weights in a scheme: codes, scales (out,) and what they stand for, in the shape of the weights."""

    codes: WeightCodes
    scale: np.ndarray
    real: np.ndarray


Scheme = Callable[[np.ndarray], Encoded]


class Form(NamedTuple):
    """How a conversion treats a layer, and a tensor's grid of few bits, by their names; both for `NetworkBuilder`."""

    layer: Callable[[str], dict[str, Any]]
    grid: Callable[[str, Grid], Grid]


Arrays = dict[str, np.ndarray]


def _per_channel(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *(1,) * (weights.ndim - 1))


def _flat(weights: np.ndarray) -> np.ndarray:
    return weights.reshape(len(weights), -1)


def _best_scale(weights: np.ndarray, rounded: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """For each channel, of the scales that are tried, the one with the least squared error of the weights (out,).

    `rounded` gives the nearest values of a scheme to weights over scales, whose greatest value is 1.
    """
    most = np.abs(_flat(weights)).max(axis=1)
    tried = np.where(most > 0, most, 1) * SHRINKS[:, None]
    errors = [
        ((_flat(weights) - scale[:, None] * _flat(rounded(weights / _per_channel(scale, weights)))) ** 2).sum(axis=1)
        for scale in tried
    ]
    return np.asarray(np.take_along_axis(tried, np.argmin(errors, axis=0)[None], axis=0)[0])


def integers(bits: int) -> Scheme:
    """Signed integers, symmetric."""
    most = (1 << (bits - 1)) - 1

    def nearest(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values * most), -most, most)

    def encode(weights: np.ndarray) -> Encoded:
        scale = _best_scale(weights, lambda values: nearest(values) / most)
        codes = nearest(weights / _per_channel(scale, weights)).astype(np.int64)
        return Encoded(WeightCodes.integer(codes, bits), scale / most, _per_channel(scale / most, weights) * codes)

    return encode


def allocated(mean: int) -> Scheme:
    """Signed integers of 0 to 8 bits, so many on average: an output channel has what its weights' spread is worth.

    Of 2 bits and more they are symmetric; of 1 they are two levels about the mean.
    """

    def encode(weights: np.ndarray) -> Encoded:
        spread = _flat(weights).std(axis=1, ddof=1)
        widths = allocate_bits(spread, mean)
        codes, scale = np.zeros(weights.shape, dtype=np.int64), np.where(spread > 0, 2 * spread, 1)
        for bits in np.unique(widths[widths > 1]):
            own = widths == bits
            encoded = integers(int(bits))(weights[own])
            codes[own], scale[own] = encoded.codes.values, encoded.scale
        means = _per_channel(_flat(weights).mean(axis=1), weights)
        codes = np.where(_per_channel(widths == 1, weights), -(weights < means).astype(np.int64), codes)
        return Encoded(WeightCodes.integer(codes, widths), scale, _per_channel(scale, weights) * codes)

    return encode


def powers_of_two(bits: int) -> Scheme:
    """Zero and signed powers of two from 1 down."""
    fmt = ShiftFormat(bits - 2)
    bias = (1 << fmt.exponent_bits) - 1

    def nearest(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fields = fmt.split(nearest_codes(values, fmt, bias))
        return fields.sign, fields.exponent.astype(np.int64) - bias

    def encode(weights: np.ndarray) -> Encoded:
        scale = _best_scale(weights, lambda values: np.ldexp(*nearest(values)))
        sign, exponent = nearest(weights / _per_channel(scale, weights))
        real = _per_channel(scale, weights) * np.ldexp(sign, exponent)
        return Encoded(WeightCodes.shift(sign, exponent, fmt.exponent_bits), scale, real)

    return encode


def focused(bits: int) -> Scheme:
    """Powers of two about two means of opposite sign, the smallest weights pruned (Zhao et al. 2019, section 3)."""
    fmt = ShiftFormat(bits - 3, focused=True)

    def encode(weights: np.ndarray) -> Encoded:
        size = np.sqrt((_flat(weights) ** 2).mean(axis=1))
        values = weights / _per_channel(size, weights)
        pruned = np.abs(values) < np.quantile(np.abs(values), PRUNED)
        component = (values > 0).astype(np.int64)
        means = np.array([values[~pruned & (component == which)].mean() for which in (0, 1)])
        deviation = (values - means[component])[~pruned].std()
        # A step in which the means are powers of two, as nearly as they can be together.
        exponents = [power_of_two(mean / deviation)[1] for mean in means]
        sigma = float(np.mean(np.abs(means) / 2.0 ** np.array(exponents)))
        rounded = [power_of_two(mean / sigma) for mean in means]
        centres = np.array([np.ldexp(*mean) for mean in rounded])
        rest = np.where(pruned, 0.0, values / sigma - centres[component])
        bias = fit_bias(rest[~pruned], fmt.exponent_bits, bits)
        fields = fmt.split(nearest_codes(rest, fmt, bias, component=component, pruned=pruned))
        exponent = fields.exponent.astype(np.int64) - bias
        codes = WeightCodes.focused(
            fields.sign, exponent, component, pruned, minus=rounded[0], plus=rounded[1], exponent_bits=fmt.exponent_bits
        )
        scale = sigma * size
        real = np.where(pruned, 0, np.ldexp(fields.sign, exponent) + centres[component])
        return Encoded(codes, scale, _per_channel(scale, weights) * real)

    return encode


def encrypted(n_in: int, n_out: int, count: int = 1) -> Scheme:
    """Signs decoded from `n_in` bits for every `n_out` weights; a further plane is the residue's (Lee et al. 2020).

    Of the signs that a slice cannot have, those of small weights go first: a wrong one costs in proportion.
    """
    network = XorNetwork.random(n_in, n_out, None, seed=0)

    def nearest(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encrypted slices and the signs that they decode to."""
        ordered = values.transpose(0, 2, 3, 1)
        stream = network.encode((ordered >= 0).astype(np.uint8).reshape(-1), np.abs(ordered).reshape(-1))
        bits = network.decode_stream(stream, values.size).reshape(ordered.shape).transpose(0, 3, 1, 2)
        size = network.slices(values.size) * n_in
        slices = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), count=size, bitorder="little").reshape(-1, n_in)
        return slices, 2 * bits.astype(np.int64) - 1

    def encode(weights: np.ndarray) -> Encoded:
        rest = weights - _per_channel(_flat(weights).mean(axis=1), weights)
        slices, alphas, real = [], [], np.zeros(weights.shape)
        for _ in range(count):
            bits, signs = nearest(rest)
            alphas.append(np.maximum((_flat(rest) * _flat(signs)).mean(axis=1), 0))
            slices.append(bits)
            real += _per_channel(alphas[-1], weights) * signs
            rest = rest - _per_channel(alphas[-1], weights) * signs
        codes = WeightCodes.xor(slices, [network] * count, np.array(alphas), weights.shape)
        return Encoded(codes, np.ones(len(weights)), real)

    return encode


def sign_planes(count: int, *, centred: bool = True) -> Scheme:
    """Sums of signs with coefficients: greedy residues, then signs and least squares in turn (Zhang et al. 2018).

    `centred` fits weights less their mean, which a zero point takes.
    """
    combinations = np.array(np.meshgrid(*[(-1, 1)] * count)).reshape(count, -1)

    def encode(weights: np.ndarray) -> Encoded:
        fitted = weights - _per_channel(_flat(weights).mean(axis=1), weights) if centred else weights
        alphas, signs = [], []
        for channel in _flat(fitted):
            rest, first = channel, []
            for _ in range(count):
                first.append(np.abs(rest).mean())
                rest = rest - first[-1] * np.where(rest >= 0, 1, -1)
            alpha = np.array(first)
            for _ in range(ROUNDS):
                nearest = np.abs(channel[:, None] - alpha @ combinations).argmin(axis=1)
                chosen = combinations[:, nearest]
                alpha = np.linalg.lstsq(chosen.T, channel, rcond=None)[0]
            alphas.append(alpha)
            signs.append(chosen)
        alpha = np.array(alphas).T
        planes = np.stack(signs, axis=1).reshape(count, *weights.shape)
        real = (planes * alpha.reshape(*alpha.shape, *(1,) * (weights.ndim - 1))).sum(axis=0)
        return Encoded(WeightCodes.basis(planes, alpha), np.ones(len(weights)), real)

    return encode


def _normalisation(arrays: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a layer's results are multiplied by and what is added, (out,): a linear layer has a bias alone."""
    if name == "linear":
        return np.ones(len(arrays["linear.bias"])), arrays["linear.bias"].astype(np.float64)
    norm = {part: arrays[f"bn{name[-1]}.{part}"].astype(np.float64) for part in NORM}
    gain = norm["weight"] / np.sqrt(norm["running_var"] + EPSILON)
    return gain, norm["bias"] - gain * norm["running_mean"]


def _folded(arrays: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights with their batch normalisation, and bias, float64."""
    gain, bias = _normalisation(arrays, name)
    weights = arrays[f"{name}.weight"].astype(np.float64)
    return weights * _per_channel(gain, weights), bias


def _encoded(arrays: Arrays, name: str, scheme: Scheme) -> dict[str, Any]:
    """A layer in a scheme, batch normalisation folded into the weights."""
    weights, bias = _folded(arrays, name)
    encoded = scheme(weights)
    error = _flat(encoded.real - weights).mean(axis=1)
    zero_point = error / encoded.scale
    return {"codes": encoded.codes, "scale": encoded.scale, "zero_point": zero_point, "bias": bias}


def _gone(arrays: Arrays, name: str, one_of: int) -> np.ndarray:
    """The channels (out,) of a layer that lose all their weights: those of the least, one of so many."""
    size = np.sqrt((_flat(_folded(arrays, name)[0]) ** 2).sum(axis=1))
    return size < np.sort(size)[len(size) // one_of] if name in ALONE else np.zeros(len(size), dtype=bool)


def _allocated_grid(arrays: Arrays, name: str, direct: Grid) -> Grid:
    """A grid with a step and a width for each channel, as ACIQ has it (Banner et al. 2019).

    What a batch normalisation says of its results takes the place of calibration images: their mean is its bias, their
    standard deviation its weight. Steps are powers of two of the least, as the alignment of the layer behind wants
    them.
    """
    mean, std = (arrays[f"bn{name[-1]}.{part}"].astype(np.float64) for part in ("bias", "weight"))
    std = np.where(_gone(arrays, name, GONE_OF_ALLOCATED), 0, np.abs(std))
    widths = allocate_bits(std, direct.bits)
    steps = (np.maximum(mean, 0) + CLIP * std) / np.maximum((1 << widths) - 1, 1)
    steps[widths == 0] = least = float(steps[widths > 0].min())
    amounts = np.clip(np.rint(np.log2(steps / least)), 0, MAX_SHIFT).astype(np.int64)
    return replace(direct, scale=least, bits=int(widths.max()), align="shift", amounts=amounts, widths=widths)


def inside(inner: Scheme) -> Callable[[Arrays], Form]:
    """The inner layers in a scheme, the others 8-bit integers."""

    def form(arrays: Arrays) -> Form:
        return Form(lambda name: _encoded(arrays, name, inner if name in INNER else integers(8)), lambda _, grid: grid)

    return form


class Levels(NamedTuple):
    """Activations of planes, and what their real values are greater by: a constant, which biases take in."""

    basis: PlaneBasis
    offset: float = 0.0

    def values(self, real: np.ndarray) -> np.ndarray:
        """The levels that real values become."""
        reached = (real[..., None] >= np.array(self.basis.thresholds)).sum(axis=-1)
        return self.basis.worth(np.array(self.basis.words)[reached]) + self.offset


def quantised_levels(count: int) -> Callable[[np.ndarray], Levels]:
    """LQ-Net's: levels and least squares in turn, from equal steps on (Zhang et al. 2018)."""
    bits = np.arange(1 << count)[:, None] >> np.arange(count) & 1

    def fit(values: np.ndarray) -> Levels:
        beta = values.max() / ((1 << count) - 1) * 2.0 ** np.arange(count) / 2
        for _ in range(ROUNDS):
            nearest = bits[np.abs(values.reshape(-1, 1) - bits @ beta).argmin(axis=1)]
            beta = np.linalg.lstsq(nearest, values.reshape(-1), rcond=None)[0]
        return Levels(PlaneBasis.lq_net(beta.tolist()))

    return fit


def binary_levels(values: np.ndarray) -> Levels:
    """Zero and one other level, as a sign and a constant: what pads is -1, and so zero."""
    level = values.max() / 2
    for _ in range(ROUNDS):
        level = float(values[values >= level / 2].mean())
    return Levels(PlaneBasis.abc_net([level / 2], [level / 2]).padded(0), level / 2)


def _values(arrays: Arrays, name: str) -> np.ndarray:
    """What a layer's activations are like, (channels, QUANTILES): normal before the ReLU, as its normalisation says."""
    normal = np.array([NormalDist().inv_cdf((at + 0.5) / QUANTILES) for at in range(QUANTILES)])
    mean, deviation = (arrays[f"bn{name[-1]}.{part}"].astype(np.float64)[:, None] for part in ("bias", "weight"))
    return np.maximum(mean + np.abs(deviation) * normal, 0)


def over_planes(inner: Scheme, fit: Callable[[np.ndarray], Levels]) -> Callable[[Arrays], Form]:
    """The inner layers in a scheme of signs, on activations of planes; the others 8-bit integers."""

    def form(arrays: Arrays) -> Form:
        levels = {name: fit(_values(arrays, name)) for name in BEFORE.values()}
        edges = inside(integers(8))(arrays)

        def layer(name: str) -> dict[str, Any]:
            if name not in INNER:
                return edges.layer(name)
            (weights, bias), before = _folded(arrays, name), BEFORE[name]
            encoded, values = inner(weights), _values(arrays, before)
            bias = bias + weights.sum(axis=(2, 3)) @ values.mean(axis=1)
            words = levels[before].values(values) - levels[before].offset
            bias -= encoded.real.sum(axis=(2, 3)) @ words.mean(axis=1)
            return {"codes": encoded.codes, "scale": encoded.scale, "bias": bias}

        def grid(tensor: str, direct: Grid) -> Grid:
            made = tensor.partition(".")[0]
            return Grid.of_planes(levels[made].basis) if made in levels else direct

        return Form(layer, grid)

    return form


def mixed(arrays: Arrays) -> Form:
    """Integers of other widths in every layer; tensors of 2 bits have every fourth level of those of 4."""

    def grid(name: str, direct: Grid) -> Grid:
        return Grid(4 * direct.scale, 2, direct.signed) if name in NARROW else direct

    return Form(lambda name: _encoded(arrays, name, integers(WIDTHS.get(name, 8))), grid)


def with_allocation(arrays: Arrays) -> Form:
    """The inner layers' weights, and the tensors that no residual joins, with a width for each channel."""

    def scheme(name: str) -> Scheme:
        if name not in INNER:
            return integers(8)
        kept = ~_gone(arrays, name, GONE_OF_ALLOCATED)
        return lambda weights: allocated(4)(weights * _per_channel(kept, weights))

    def grid(name: str, direct: Grid) -> Grid:
        return _allocated_grid(arrays, name, direct) if name in ALONE else direct

    return Form(lambda name: _encoded(arrays, name, scheme(name)), grid)


def bayesian(arrays: Arrays) -> Form:
    """Bayesian Bits' form (van Baalen et al. 2020): a tensor has one grid, so batch normalisation stays in the scales.

    A layer has the width whose lost energy and cost are least together: the paper's regulariser, bits times MACs.
    """

    def lost(weights: np.ndarray, bits: int) -> tuple[float, float]:
        """Least share of the energy that a grid of these bits loses, and its limit."""
        grid, limits = NestedGrid(bits, signed=True), np.abs(weights).max() * SHRINKS
        errors = [((weights - grid.step(limit) * grid.codes(weights, limit)) ** 2).sum() for limit in limits]
        best = int(np.argmin(errors))
        return float(errors[best] / (weights**2).sum()), float(limits[best])

    def layer(name: str) -> dict[str, Any]:
        gain, bias = _normalisation(arrays, name)
        weights = arrays[f"{name}.weight"].astype(np.float64)
        weights = weights * _per_channel(np.sign(gain), weights)
        pruned = _gone(arrays, name, GONE)
        kept = weights[~pruned]
        share = MACS[name] / max(MACS.values())
        bits = min((2, 4, 8), key=lambda bits: lost(kept, bits)[0] + COST * bits * share)
        codes = WeightCodes.nested(weights, bits, lost(kept, bits)[1], pruned)
        return {"codes": codes, "scale": np.abs(gain), "bias": bias}

    def grid(_: str, direct: Grid) -> Grid:
        return replace(direct, rounding="nested")

    return Form(layer, grid)


INNER = ("conv2", "conv3", "conv4")
BEFORE = {"conv2": "conv1", "conv3": "conv2", "conv4": "conv3"}
"""The layer whose activations each reads."""
ALONE = ("conv1", "conv3")
"""Layers whose outputs no residual joins."""
WIDTHS = {"conv2": 2, "conv3": 4, "conv4": 2}
"""Bits of the weights in "mixed" where they are not 8."""
NARROW = ("conv2.q4", "conv3")
"""Tensors of 2 bits in "mixed": what conv3 and conv4 read."""
SCHEMES: dict[str, tuple[Callable[[Arrays], Form], tuple[str, ...]]] = {
    "int4": (inside(integers(4)), ("digit", "fusion", "sign", "shift")),
    "shift4": (inside(powers_of_two(4)), ("shift",)),
    "shift5": (inside(powers_of_two(5)), ("shift",)),
    "focused5": (inside(focused(5)), ("shift",)),
    "xor0.8": (inside(encrypted(8, 10)), ("sign",)),
    "xor1.6": (inside(encrypted(8, 10, count=2)), ("sign",)),
    "basis2": (inside(sign_planes(2)), ("sign",)),
    "lq2a2": (over_planes(sign_planes(2, centred=False), quantised_levels(2)), ("sign",)),
    "binary": (over_planes(sign_planes(1, centred=False), binary_levels), ("sign",)),
    "mixed": (mixed, ("digit", "fusion", "sign", "shift")),
    "allocated4": (with_allocation, ("digit", "fusion")),
    "bayesian": (bayesian, ("digit", "fusion", "sign", "shift")),
}
"""How the layers are encoded, and the arrays that run them."""


def convert(name: str) -> Network:
    """The digits network in a scheme of `SCHEMES`."""
    arrays, demo = load_file(HERE / "weights.safetensors"), load_demo().network
    form = SCHEMES[name][0](arrays)
    provenance: dict[str, str | int | float] = {"source": "examples/digits/schemes.py", "inner_layers": name}
    net = NetworkBuilder(f"digits-{name}", demo.manifest.input, provenance=provenance)

    def grid(tensor: str, reader: str | None = None) -> Grid:
        codes = demo.values[tensor].codes
        coarsest = 1 if reader is None else int(demo.layers[reader].factors.max())
        found = Grid(codes.scale * coarsest, codes.bits, codes.signed, codes.zero_point)
        return form.grid(tensor, found) if codes.bits <= 8 else found

    first = net.conv2d("conv1", net.input, padding=1, out=grid("conv1", "conv2"), relu=True, **form.layer("conv1"))
    stream = net.conv2d("conv2", first, padding=1, stride=2, out=grid("conv2"), relu=True, **form.layer("conv2"))
    codes = net.requantise("conv2.q4", stream, out=grid("conv2.q4", "conv3"))
    third = net.conv2d("conv3", codes, padding=1, out=grid("conv3", "conv4"), relu=True, **form.layer("conv3"))
    fourth = net.conv2d("conv4", third, padding=1, out=grid("conv4"), **form.layer("conv4"))
    pooled = net.average_pool("pool", net.add("add", fourth, stream, out=grid("add"), relu=True), 2)
    flat = net.flatten("view", net.requantise("pool.q8", pooled, out=grid("pool.q8")))
    net.linear("linear", flat, out=grid("linear"), **form.layer("linear"))
    return net.build()


def shipped(name: str) -> Path:
    """The file of a conversion that comes with the package."""
    return SHIPPED / f"digits-{name}.gw"


def engine(array: str) -> EngineConfig:
    """The 8 x 8 engine with that array, on which the conversions are held to the RTL."""
    return EngineConfig.load(SHIPPED / f"engine-{array}.toml")


def report(name: str) -> tuple[str, ...]:
    """A conversion's row of the table."""
    facts, images = inspect_file(shipped(name)), load_demo().images
    results = {array: facts.network.run(images, engine(array)) for array in SCHEMES[name][1]}
    (top,) = {result.top(1) for result in results.values()}
    assert top is not None
    error = np.sqrt(top * (1 - top) / len(images))
    cycles = ", ".join(f"{array} {result.cycles_per_image:,}" for array, result in results.items())
    return name, f"{facts.bits_per_weight:.2f}", f"{facts.file_bytes:,}", f"{100 * top:.2f} ± {100 * error:.2f}", cycles


COLUMNS = ("inner layers", "bits a weight", "file bytes", "top-1 %", "cycles an image")


def main() -> None:
    """Write the shipped files anew where that is asked for, and print top-1 on the held-out images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="convert and write the shipped files anew")
    if parser.parse_args().write:
        for name in SCHEMES:
            save_network(convert(name), shipped(name))
    demo = load_demo()
    title = f"{len(demo.images)} held-out digits, ± a standard error; float {100 * demo.float_top1:.2f} %"
    table = Table(*COLUMNS, title=title)
    for name in SCHEMES:
        table.add_row(*report(name))
    Console().print(table)


if __name__ == "__main__":
    main()
