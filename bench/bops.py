"""Do BOPs predict hardware? Mixed-precision networks by BOPs, cycles, gates, bytes and energy; writes docs/bops.md.

python bench/bops.py                # everything
python bench/bops.py --part trained # a part; the rest stays as it is stored
python bench/bops.py --part         # writes the page and its plots of what is stored
"""

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gates import table
from gatewise import EngineConfig, Grid, Network, load
from gatewise.kernels.digits import DIGIT_BITS
from gatewise.kernels.nested import bops
from gatewise.rtl.engine_count import Wanted, count_engines
from gatewise.rtl.yosys import tool_version
from gatewise.sim.atomic import write_bytes, write_json
from gatewise.sim.cycles import network_cycles
from gatewise.sim.energy import lowered_energy
from gatewise.sim.lower import lower
from gatewise.sim.prune import layer_bops, pruned
from gatewise.sim.schedule import schedule
from gatewise.sim.shapes import STREAM, Shapes, noise
from gatewise.sim.sort import sorted_by_width
from paths import ROOT, TRAINED
from progress import progress
from rich.console import Console
from scipy.stats import spearmanr

PAGE, STORE, PLOTS = ROOT / "docs" / "bops.md", ROOT / "docs" / "bops.json", ROOT / "docs" / "bops"
ARRAYS = ("digit", "fusion")
TRAINED_PART, GATES = "trained", "gates"
LENET = "bayes-*.gw"
RESNET = ("hawq-*.gw", "resnet20-aciq-*.gw", "resnet20-minmax-*.gw", "resnet20-fixed8.gw")
"""Exports of `bench/trained` whose weights are integers, on the arrays of this page."""

DRAWN = {"2, 4 or 8 bits": (2, 4, 8), "1 to 8 bits": tuple(range(1, 9))}
"""What the width of every weight and activation tensor between the first layer and the last is drawn from."""
PAIR = ("resnet20-aciq-w4a4", "resnet20-aciq-all-w4a4")
"""Of the same BOPs: widths by layer, and ACIQ's by channel."""
COUNT = 200
NEAR = 1.05
"""Networks whose BOPs differ by less than this factor have the same."""
PARTS = (GATES, TRAINED_PART, *DRAWN)


@dataclass(frozen=True)
class Measure:
    """A figure of a network on an array."""

    title: str
    unit: str
    scale: float
    of: Callable[[dict[str, Any], str, dict[str, int]], float]


MEASURES = {
    "cycles": Measure("cycles", "thousands of cycles", 1e-3, lambda point, array, _: point[array]["cycles"]),
    "product": Measure(
        "gates x cycles", "10^9 gate cycles", 1e-9, lambda point, array, gates: gates[array] * point[array]["cycles"]
    ),
    "bytes": Measure("bytes read", "kB over the bus", 1e-3, lambda point, array, _: point[array]["bytes"]),
    "energy": Measure("energy (A)", "microjoules", 1e-6, lambda point, array, _: point[array]["energy"]),
}
PREDICTORS = {
    "bops": "BOPs",
    "digits": "digit products",
    "weight_bits": "weight bits",
}
"""What may stand for the hardware: BOPs, MACs times the 4-bit digits of both operands, bits of all weights."""


def figures(network: Network) -> dict[str, Any]:
    """What a network takes: predictors, and by array cycles, bytes and energy of an image."""
    counted = layer_bops(network)
    macs = {node.name: network.macs(node) for node in network.mac_nodes()}
    layers = [network.layers[name] for name in macs]
    digits = (_digits(layer.row_widths) * _digits(layer.lane_widths) for layer in layers)
    found: dict[str, Any] = {
        "bops": float(bops(counted.values())),
        "digits": float(sum(count * each for count, each in zip(macs.values(), digits, strict=True))),
        "weight_bits": float(sum(layer.weights[0].size * layer.row_widths.sum() for layer in layers)),
    }
    for array in ARRAYS:
        engine = EngineConfig(array=array)
        arranged = sorted_by_width(pruned(network, engine, None)).network
        lowered = lower(arranged, engine, schedule(arranged, engine))
        cycles = network_cycles(lowered, engine)
        energy = lowered_energy(network.name, lowered, engine).total
        found[array] = {
            "cycles": sum(layer.total for layer in cycles),
            "bytes": sum(layer.bytes_read for layer in cycles),
            "energy": (energy.low + energy.high) / 2,
        }
    return found


def _digits(widths: np.ndarray) -> float:
    """Mean 4-bit digits of channels' codes."""
    return float((-(-widths // DIGIT_BITS)).mean())


def drawn(widths: Sequence[int], seed: int) -> Network:
    """ResNet-20 with seeded weights whose layers have widths of their own; the first and the last have 8 bits."""
    rng = np.random.default_rng(seed)

    def bits() -> int:
        return int(rng.choice(widths))

    def grid() -> Grid:
        count = bits()
        return Grid(4.8 / (1 << count), count)

    shapes = Shapes.new(f"mixed-{seed}", 32, seed, lambda own, shape: noise(bits())(own, shape), grid())
    shapes.between = lambda own, channels: grid()
    stream = shapes.conv("conv1", shapes.net.input, 16, 3, weights=noise(8), out=STREAM)
    x = shapes.net.requantise("conv1.codes", stream, out=shapes.activation)
    for stage, channels in enumerate((16, 32, 64)):
        for index in range(3):
            shapes.activation = grid()
            stride = 2 if stage and not index else 1
            x, stream = shapes.block(f"layer{stage + 1}.{index}", x, stream, channels, stride, padded=True)
    return shapes.classes(stream, 10)


def measured(store: dict[str, Any], parts: Sequence[str], console: Console) -> dict[str, Any]:
    """The parts in their places in the store."""
    store = dict(store)
    with progress(console, "BOPs") as notice:
        for part in parts:
            if part == GATES:
                engines = [Wanted(EngineConfig(array=array)) for array in ARRAYS]
                counts = count_engines(engines, notice=notice)
                store[GATES] = {array: int(each.whole.gates) for array, each in zip(ARRAYS, counts, strict=True)}
                store["tool"] = tool_version()
            elif part == TRAINED_PART:
                store[part] = {}
                for pattern in (*RESNET, LENET):
                    for path in sorted(TRAINED.glob(pattern)):
                        notice(path.name)
                        store[part][path.stem] = figures(load(path))
            else:
                store[part] = []
                for seed in range(COUNT):
                    notice(f"{part}: {seed + 1} of {COUNT}")
                    store[part].append(figures(drawn(DRAWN[part], seed)))
            console.print(f"{part}: counted")
    return store


class Points:
    """The stored figures of the sets of networks that are ranked."""

    def __init__(self, store: dict[str, Any]) -> None:
        self.store = store
        self.gates: dict[str, int] = store[GATES]
        resnets = {name: point for name, point in store[TRAINED_PART].items() if not name.startswith("bayes")}
        self.same = alike(resnets)
        self.sets: dict[str, list[dict[str, Any]]] = {
            "ResNet-20, trained": [resnets[names[0]] for names in self.same],
            **{f"ResNet-20, {name}": store[name] for name in DRAWN},
        }

    def predicted(self, points: Sequence[dict[str, Any]], name: str) -> np.ndarray:
        """A predictor of every network."""
        return np.array([point[name] for point in points])

    def values(self, points: Sequence[dict[str, Any]], name: str, array: str) -> np.ndarray:
        """A measure of every network on an array."""
        return np.array([MEASURES[name].of(point, array, self.gates) for point in points])

    def better(self, points: Sequence[dict[str, Any]]) -> np.ndarray:
        """Gates x cycles of every network on the array that suits it."""
        return np.min([self.values(points, "product", array) for array in ARRAYS], axis=0)


def alike(points: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Names of networks, those with equal figures together: the same widths found twice are one network here."""
    found: dict[str, list[str]] = {}
    for name, point in points.items():
        found.setdefault(json.dumps(point, sort_keys=True), []).append(name)
    return list(found.values())


def rank(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's coefficient."""
    return float(spearmanr(first, second).statistic)


def wrong_pairs(first: np.ndarray, second: np.ndarray) -> float:
    """Share of pairs, those without ties, that the two order differently."""
    above, right = (np.sign(each[:, None] - each[None, :]) for each in (first, second))
    compared = above * right != 0
    return float((above != right)[compared].mean())


def spread(first: np.ndarray, second: np.ndarray) -> float:
    """The greatest ratio of two networks' second figures, of those whose first is the same but for `NEAR`."""
    near = np.maximum(first[:, None] / first[None, :], first[None, :] / first[:, None]) < NEAR
    return float((second[:, None] / second[None, :])[near].max())


def page(points: Points) -> str:
    """The Markdown of the page."""
    return "\n".join([_head(points), *_ranks(points), *_spreads(points), *_rows(points)]).rstrip() + "\n"


def _head(points: Points) -> str:
    count = len(points.sets["ResNet-20, trained"])
    many = points.sets["ResNet-20, 2, 4 or 8 bits"]
    first = points.predicted(many, "bops")
    cycles = {array: points.values(many, "cycles", array) for array in ARRAYS}
    trained = points.sets["ResNet-20, trained"]
    own = points.predicted(trained, "bops")
    wide = points.sets["ResNet-20, 1 to 8 bits"]
    few, many_cycles = (points.store[TRAINED_PART][name] for name in PAIR)
    lenet = [point for name, point in points.store[TRAINED_PART].items() if name.startswith("bayes")]
    twins = [_listed(f"`{name}`" for name in names) for names in points.same if len(names) > 1]
    text = HEAD.format(
        twins=f" ({'; '.join(twins)} have the same figures and count once)" if twins else "",
        pair=PAIR,
        pair_bops=few["bops"] / 1e6,
        pair_cycles=few["digit"]["cycles"],
        other_bops=many_cycles["bops"] / 1e6,
        other_cycles=many_cycles["digit"]["cycles"],
        lenet_bops=_listed(f"{point['bops'] / 1e6:.1f}" for point in lenet),
        lenet_cycles=_listed(f"{point['digit']['cycles']:,}" for point in lenet),
        count=count,
        drawn=COUNT,
        gates=", ".join(f"{array} {points.gates[array]:,}" for array in ARRAYS),
        tool=points.store["tool"],
        rho_digit=rank(first, cycles["digit"]),
        rho_fusion=rank(first, cycles["fusion"]),
        wrong_digit=wrong_pairs(first, cycles["digit"]),
        wrong_fusion=wrong_pairs(first, cycles["fusion"]),
        spread_digit=spread(first, cycles["digit"]),
        spread_fusion=spread(first, cycles["fusion"]),
        bytes=rank(first, points.values(many, "bytes", "digit")),
        bits=rank(points.predicted(many, "weight_bits"), points.values(many, "bytes", "digit")),
        digits=rank(points.predicted(many, "digits"), cycles["digit"]),
        wide=rank(points.predicted(wide, "bops"), points.values(wide, "cycles", "digit")),
        wide_digits=rank(points.predicted(wide, "digits"), points.values(wide, "cycles", "digit")),
        trained_digit=rank(own, points.values(trained, "cycles", "digit")),
        trained_fusion=rank(own, points.values(trained, "cycles", "fusion")),
        trained_bytes=rank(own, points.values(trained, "bytes", "digit")),
        least=first.min() / 1e6,
        most=first.max() / 1e6,
        faster=float(cycles["digit"].max() / cycles["digit"].min()),
        faster_fusion=float(cycles["fusion"].max() / cycles["fusion"].min()),
        ratio=float(first.max() / first.min()),
        energy=rank(first, points.values(many, "energy", "digit")),
    )
    filled = (textwrap.fill(paragraph, 120, break_on_hyphens=False) for paragraph in text.split("\n\n"))
    title = "# BOPs on trial\n\nWritten by `python bench/bops.py`."
    return "\n\n".join([title, *filled, "![BOPs against hardware](bops/bops.svg)\n"])


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}"


HEAD = """\
Papers on mixed precision compare networks by bit operations: BOPs = MACs x weight bits x activation bits, each layer's
(Bayesian Bits, section 4.1). Do they predict what an engine takes?

**They order networks; they do not measure them.** Of {drawn} ResNet-20 whose layers have 2, 4 or 8 bits of weights and
activations each, BOPs rank the cycles of the fused array with Spearman's coefficient {rho_fusion:.3f} and those of the
digit array with {rho_digit:.3f}: {wrong_fusion:.0%} and {wrong_digit:.0%} of all pairs come in the wrong order. BOPs
span a factor of {ratio:.1f} ({least:,.0f} to {most:,.0f} M) where cycles span {faster_fusion:.1f} (fused) and
{faster:.1f} (digit), and of two networks whose BOPs differ by less than 5 % one takes up to {spread_fusion:.2f}
(fused) and {spread_digit:.2f} times (digit) the cycles of the other. What an array of 4-bit digits multiplies, MACs x
digits x digits, ranks its cycles with {digits:.3f}.

**Bytes over the bus are another matter**: {bytes:.3f}, since activation bits, half of a BOP, move none; the plain
sum of weight bits has {bits:.3f}. Energy, of which memory is a great part, has {energy:.3f}.

**Widths between powers of two mislead more**: the digit array takes 5 bits as 8 and 3 as 4. With 1 to 8 bits the
coefficient for its cycles is {wide:.3f}, that of digit products {wide_digits:.3f}.

**A pair may be far off.** Of {count} trained ResNet-20{twins} the coefficients are {trained_digit:.3f}
(digit cycles), {trained_fusion:.3f} (fused) and {trained_bytes:.3f} (bytes). Where widths differ by channel, BOPs are
those of the mean width and cycles those of the widest of the channels that go together: `{pair[0]}` has
{pair_bops:,.0f} MBOP and takes {pair_cycles:,} cycles, `{pair[1]}` with {other_bops:,.0f} MBOP takes {other_cycles:,}.
And of the three LeNet-5 of Bayesian Bits, which BOPs were the aim of, at {lenet_bops} MBOP the cycles are
{lenet_cycles}.

Engines are the default ones of 16 x 16 with either array, no decoder, constant channels removed where that is exact;
cycles come from the model that equals the RTL. Gates are two-input gates of the whole engine ({gates}; {tool}); for one
array gates x cycles rank as cycles do, so that the table has them for the better array of both. Energy is the middle of
estimate A of [energy.md](energy.md), and the middle is that of its range for DRAM. A has no clock and no control, and
in B, from measured activity, the clock is more than all logic: B is not measured for these networks, so that their
energy is one of operations and memories alone. Networks with drawn widths have seeded weights: cycles and bytes do not
depend on what they know. Their first and last layer have 8 bits, the residual stream 16.
"""


def _ranks(points: Points) -> Iterator[str]:
    yield "## Rank correlation\n"
    yield "Spearman's coefficient, and the share of pairs that the predictor orders wrongly.\n"
    rows = []
    for name, own in points.sets.items():
        for predictor, title in PREDICTORS.items():
            first = points.predicted(own, predictor)
            columns = [
                points.values(own, measure, array) for measure in ("cycles", "bytes", "energy") for array in ARRAYS
            ]
            columns.append(points.better(own))
            cells = [f"{rank(first, each):.3f} ({wrong_pairs(first, each):.1%})" for each in columns]
            rows.append([name, str(len(own)), title, *cells])
    headings = [f"{measure}, {array}" for measure in ("cycles", "bytes", "energy") for array in ARRAYS]
    yield from table(["networks", "how many", "predictor", *headings, "gates x cycles, better array"], rows)


def _spreads(points: Points) -> Iterator[str]:
    yield "## At equal BOPs\n"
    yield "The greatest ratio between two networks whose BOPs differ by less than 5 %, and that of all networks.\n"
    rows = []
    for name, own in points.sets.items():
        first = points.predicted(own, "bops")
        cells = [f"{first.max() / first.min():.2f}"]
        for measure in ("cycles", "bytes", "energy"):
            for array in ARRAYS:
                second = points.values(own, measure, array)
                cells.append(f"{spread(first, second):.2f} of {second.max() / second.min():.2f}")
        rows.append([name, *cells])
    headings = [f"{measure}, {array}" for measure in ("cycles", "bytes", "energy") for array in ARRAYS]
    yield from table(["networks", "BOPs, all", *headings], rows)


def _rows(points: Points) -> Iterator[str]:
    yield "## The trained networks\n"
    yield "Of an image, by BOPs; energies are estimate A alone. Accuracies are in [results.md](results.md).\n"
    rows = []
    for name, point in sorted(points.store[TRAINED_PART].items(), key=lambda item: -item[1]["bops"]):
        cells = [f"{point['bops'] / 1e6:,.1f}", f"{point['digits'] / 1e6:,.2f}"]
        cells += [f"{point[array]['cycles']:,}" for array in ARRAYS]
        cells += [f"{MEASURES['product'].of(point, array, points.gates) / 1e9:,.1f}" for array in ARRAYS]
        cells += [f"{point[array]['bytes']:,}" for array in ARRAYS]
        cells += [f"{point[array]['energy'] / 1e6:,.2f}" for array in ARRAYS]
        rows.append([name, *cells])
    headings = ["MBOP", "digit products, M"]
    headings += [
        f"{what}, {array}" for what in ("cycles", "10^9 gates x cycles", "bytes read", "uJ") for array in ARRAYS
    ]
    yield from table(["network", *headings], rows)


def plot(points: Points, folder: Path) -> None:
    """Every measure against BOPs, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "gatewise"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(MEASURES), figsize=(14, 7), sharex=True)
    for row, array in zip(axes, ARRAYS, strict=True):
        for place, (name, measure) in zip(row, MEASURES.items(), strict=True):
            for title, own in points.sets.items():
                first = points.predicted(own, "bops") / 1e6
                second = points.values(own, name, array) * measure.scale
                marker = "x" if "trained" in title else "."
                place.plot(
                    first,
                    second,
                    marker,
                    label=f"{title}: {rank(first, second):.2f}",
                    alpha=0.7,
                    markersize=5,
                    rasterized=True,
                )
            place.set_ylim(bottom=0)
            place.set_xlim(left=0)
            place.set_title(f"{measure.title}, {array} array", fontsize=9)
            place.set_ylabel(measure.unit, fontsize=8)
            place.tick_params(labelsize=7)
            place.legend(fontsize=6, title="networks: rank correlation", title_fontsize=6, loc="lower right")
    for place in axes[-1]:
        place.set_xlabel("BOPs of an image, millions", fontsize=8)
    source = f"16 x 16 engines; cycles as the RTL's; {points.store['tool']}; A: Horowitz, ISSCC 2014; docs/bops.md"
    figure.text(0.01, 0.005, source, fontsize=6)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "bops.png", dpi=120)
    figure.savefig(folder / "bops.svg", metadata={"Date": None})


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="what to count; the rest stays")
    parts = parser.parse_args().part
    store = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    if parts:
        store = measured(store, parts, Console(stderr=True))
        write_json(STORE, store)
    points = Points(store)
    plot(points, PLOTS)
    write_bytes(PAGE, page(points).encode())


if __name__ == "__main__":
    main()
