"""Trained codes through the engine's RTL, a part of `bench/papers.py`: bits, cycles, bytes and gates beside integers.

Every export of FleXOR, Focused Quantisation and Bayesian Bits that is in bench/trained/ runs in compiled RTL, on the
array and with the decoder that it is for; 4-bit integers in networks of the same shape run beside. A digit, an overflow
counter or a layer's cycles that differ from the simulator's end the run.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from gatewise.kernels.errors import FormatError, MismatchError
from gatewise.quant.methods import quantize
from gatewise.rtl.engine.cosim import EngineRun, EngineSimulation, compare_network, compile_engine
from gatewise.rtl.engine_count import Cost, Wanted, count_engines
from gatewise.rtl.yosys import tool_version
from gatewise.sim.compile import compile_network
from gatewise.sim.cycles import network_cycles
from gatewise.sim.engine import Array, Decoder, EngineConfig
from gatewise.sim.file import load, payload_digest, save_network
from gatewise.sim.graph import MacNode
from gatewise.sim.images import ImageSet, load_images, quantise_images
from gatewise.sim.inspect import inspect_file
from gatewise.sim.manifest import IntWeights
from gatewise.sim.network import Network
from gatewise.sim.prune import pruned
from gatewise.sim.weights import symbol_arrays
from page import Data, Section, Table, percent
from paths import DATA, TRAINED

__all__ = ["cosim_section", "huffman_coded"]

IMAGES = 2
"""Real test images of each run."""
STALL = 0.2
"""Chance of each side of the bus to sit out a cycle, in the one run where it does."""
CALIBRATION = 32


@dataclass(frozen=True)
class Method:
    """Exports by a pattern of names, and arrays with decoders that they run on, their own first."""

    title: str
    exports: str
    designs: tuple[tuple[Array, Decoder], ...]


@dataclass(frozen=True)
class Integers:
    """Integers of 4 bits: an export that was trained, the first by name; else the network converted, untrained."""

    source: str
    exports: str
    activation_bits: int


METHODS = (
    Method("FleXOR", "flexor-*.gw", (("sign", "xor"),)),
    Method("Focused Quantisation", "focused-*.gw", (("shift", "huffman"),)),
    Method("Bayesian Bits", "bayes-*.gw", (("fusion", "huffman"), ("digit", "huffman"))),
)
INTEGERS = (
    Integers("lenet5", "flexor-lenet5-int4-s*.gw", 8),
    Integers("lenet5-unpadded", "bayes-*-int4.gw", 4),
    Integers("cifar-resnet20", "hawq-uniform-w4.gw", 8),
    Integers("cifar-resnet20", "resnet20-minmax-w4a4.gw", 4),
)
"""Of each source the first is what others are measured by."""
RAW: tuple[Array, Decoder] = ("digit", "raw")
CODED: tuple[Array, Decoder] = ("digit", "huffman")

TEXT = """
The exports of `bench/trained/` themselves, {images} real test images each, through the RTL of the whole engine of
16 x 16 rows and lanes, compiled by CXXRTL (`gatewise regress --network F.gw --engine E.toml --data test.npz`
runs one). **Of {digits:,} digits and {counters:,} overflow counters of {runs} runs none differs, and every layer took
the cycles of the model**; where the bus stalls at random, digits and counters are the same. *Cycles* are those of an
image from start to idle, which are {gap} more than the layers' sum in the model. *Stored* are the bytes of coded
weights in the file, without code tables, XOR networks and constants; *read* is all that the RTL takes over its bus for
an image, constants, descriptors and the image among it.

*x int4* are multiples of what 4-bit integers take on the digit array without a decoder, in a network of the same shape:
the first row of each network. Gates are two-input gates of the compute unit (array, decoder, loader and accumulators).

{analysis}
"""


def cosim_section(data: Data) -> Section:
    """Run every export that is there, and the integers beside."""
    runs = [*_integer_runs(data)]
    for method in METHODS:
        paths = [path for path in sorted(TRAINED.glob(method.exports)) if not _is_integers(path)]
        if not paths:
            raise FormatError(f"{TRAINED} must hold exports of {method.title}, {method.exports}, and has none")
        runs += [_run(path.stem, method.title, path, design, data) for path in paths for design in method.designs]
        if method is METHODS[0]:
            runs.append(_run(paths[0].stem, method.title, paths[0], method.designs[0], data, STALL))
    designs = dict.fromkeys((facts["array"], facts["decoder"]) for facts in runs)
    gates = [_gates(*design, data) for design in designs]
    return Section(
        "Trained codes in RTL", _text(runs, gates), [_runs(runs), _costs(runs, gates), _designs(gates)], [*runs, *gates]
    )


def huffman_coded(network: Network) -> Network:
    """The network with its layers' integers in Huffman codes, one for each layer."""
    nodes, arrays = [], dict(network.arrays)
    for node in network.manifest.nodes:
        if isinstance(node, MacNode) and isinstance(node.weights, IntWeights):
            layer = network.layers[node.name]
            spec = node.weights.model_copy(update={"coding": "huffman"})
            stored = symbol_arrays(spec, layer.codes, layer.row_widths)
            arrays |= {f"{node.name}.{role}": array for role, array in stored.items()}
            nodes.append(node.model_copy(update={"weights": spec}))
        else:
            nodes.append(node)
    changed = {"nodes": tuple(nodes), "payload_sha256": payload_digest(arrays)}
    return Network(network.manifest.model_copy(update=changed), arrays)


def _is_integers(path: Path) -> bool:
    return any(path.match(each.exports) for each in INTEGERS)


def _source(network: Network) -> str:
    return str(network.manifest.provenance["source"])


@cache
def _images(source: str) -> ImageSet:
    folder = "mnist" if source.startswith("lenet") else "cifar10"
    return load_images(DATA / folder / "test.npz")[:IMAGES]


def _integers(data: Data) -> Iterator[tuple[str, Path, int, bool]]:
    """Of each kind of integers the export's name, its path, bits of activations and whether it was trained."""
    for each in INTEGERS:
        path = next(iter(sorted(TRAINED.glob(each.exports))), None)
        if path is not None:
            yield path.stem, path, each.activation_bits, True
            continue
        name = f"{each.source}-w4a{each.activation_bits}"
        yield name, _converted(each, data.scratch / f"{name}.gw"), each.activation_bits, False


def _converted(kind: Integers, path: Path) -> Path:
    """The network in 4 bits as it is drawn: what raw codes take does not depend on what they are."""
    folder = "mnist" if kind.source.startswith("lenet") else "cifar10"
    weights = None if folder == "mnist" else str(DATA / folder / "resnet20.safetensors")
    options = {"weight_bits": "4", "activation_bits": str(kind.activation_bits), "per_channel_weights": "true"}
    images = load_images(DATA / folder / "train.npz")[:CALIBRATION]
    save_network(quantize("minmax", kind.source, weights, images, images=CALIBRATION, options=options).network, path)
    return path


def _integer_runs(data: Data) -> Iterator[dict[str, Any]]:
    """4-bit integers on the digit array: raw, and where they were trained, in Huffman codes too."""
    for name, path, bits, trained in _integers(data):
        title = f"int, 4 bits, activations {bits}" + ("" if trained else ", not trained")
        yield _run(name, title, path, RAW, data)
        if trained:
            coded = data.scratch / f"{name}-huffman.gw"
            save_network(huffman_coded(load(path)), coded)
            yield _run(name, title, coded, CODED, data)


def _run(
    name: str, title: str, path: Path, design: tuple[Array, Decoder], data: Data, stall: float = 0.0
) -> dict[str, Any]:
    """Run an export's RTL on its images, and hold it to the simulator; `MismatchError` where anything differs."""
    whole, engine = load(path), EngineConfig(array=design[0], decoder=design[1])
    compiled = compile_network(pruned(whole, engine), engine)
    images = _images(_source(whole))
    cycles, words = [], []
    with EngineSimulation(compile_engine(engine), compiled, stall=stall) as simulation:

        def simulate(codes: np.ndarray, limit: int) -> EngineRun:
            found = simulation.run(codes, limit)
            cycles.append(found.cycles)
            words.append(found.words_read)
            return found

        codes = quantise_images(images, compiled.network.manifest.input)
        result = compare_network(compiled, codes, simulate, stall=stall)
    if result.mismatch is not None:
        raise MismatchError(f"{name} on {engine.array}, {engine.decoder}: {result.mismatch}")
    layers = network_cycles(compiled.layers, engine)
    inspected = inspect_file(path)
    facts = {
        "name": name,
        "title": title,
        "source": _source(whole),
        "array": engine.array,
        "decoder": engine.decoder,
        **asdict(result),
        "rtl_cycles": mean(cycles),
        "model_cycles": sum(layer.total for layer in layers),
        "weight_stall": sum(layer.weight_stall for layer in layers) / sum(layer.total for layer in layers),
        "rtl_bytes_read": mean(words) * engine.bus_bits // 8,
        "model_bytes_read": sum(layer.bytes_read for layer in layers),
        "weight_bytes": inspected.coded_bytes,
        "bits_per_weight": inspected.bits_per_weight,
        "file_bytes": inspected.file_bytes,
    }
    data.say(
        f"{name} on {engine.array}, {engine.decoder}: {result.digits:,} digits equal, {facts['rtl_cycles']:,} cycles, "
        f"{result.seconds:.1f} s"
    )
    return facts


def _gates(array: Array, decoder: Decoder, data: Data) -> dict[str, Any]:
    """What an engine and its compute unit cost."""
    engine = EngineConfig(array=array, decoder=decoder)
    compute, whole = count_engines([Wanted(engine, unit=True), Wanted(engine)], notice=data.say)
    data.say(f"{array}, {decoder}: {compute.whole.gates:,.0f} gates of {whole.whole.gates:,.0f}")
    return {
        "array": array,
        "decoder": decoder,
        "compute": _plain(compute.whole),
        "coded": round(compute.parts.get("decoder", Cost()).gates),
        "engine": _plain(whole.whole),
        "rtl_sha256": whole.rtl_sha256,
        "tool": tool_version(),
    }


def _plain(cost: Cost) -> dict[str, int]:
    found = {name: round(getattr(cost, name)) for name in ("gates", "equivalents", "alms_low", "alms_high")}
    return found | {"dsps": ceil(cost.dsps)}


def _measure(facts: dict[str, Any], runs: list[dict[str, Any]], gates: list[dict[str, Any]]) -> dict[str, float]:
    """Multiples of what the first of the same network's integers take, by what is multiplied."""
    first = next(each for each in runs if each["source"] == facts["source"])
    mine, theirs = (_of(gates, each) for each in (facts, first))
    ratios = {key: facts[key] / first[key] for key in ("rtl_cycles", "weight_bytes", "rtl_bytes_read")}
    ratios["gates"] = mine["compute"]["gates"] / theirs["compute"]["gates"]
    ratios["engine"] = mine["engine"]["gates"] / theirs["engine"]["gates"]
    return ratios | {"work": ratios["gates"] * ratios["rtl_cycles"]}


def _of(gates: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """The gates that a run is on."""
    return next(each for each in gates if all(each[key] == facts[key] for key in ("array", "decoder")))


def _text(runs: list[dict[str, Any]], gates: list[dict[str, Any]]) -> str:
    free = [facts for facts in runs if not facts["stall"]]
    lines = []
    for method in METHODS:
        found = [each for each in free if each["title"] == method.title and _own(each, method)]
        own = [_measure(each, runs, gates) for each in found]
        cycles, stored, read, area, work = (
            _span([each[key] for each in own])
            for key in ("rtl_cycles", "weight_bytes", "rtl_bytes_read", "gates", "work")
        )
        waits = _span([100 * each["weight_stall"] for each in found], "{:.1f}")
        coded = [
            each["weight_bytes"] / other["weight_bytes"]
            for each in found
            if (other := _in_huffman_codes(runs, each["source"])) is not None
        ]
        array, decoder = method.designs[0]
        lines.append(
            f"**{method.title}** on the {array} array with the {decoder} decoder takes {cycles} times the cycles of "
            f"4-bit integers, {stored} of their stored weight bytes and {read} of the bytes over the bus, with {area} "
            f"of the gates: gates times cycles come to {work}. It waits for weights in {waits} % of its cycles."
            + (f" Of what the integers take in Huffman codes it stores {_span(coded)}." if coded else "")
        )
    return TEXT.format(
        images=IMAGES,
        runs=len(runs),
        digits=sum(facts["digits"] for facts in runs),
        counters=sum(facts["counters"] for facts in runs),
        gap=_span([facts["rtl_cycles"] - facts["model_cycles"] for facts in free], "{:g}"),
        analysis="\n\n".join(lines),
    )


def _in_huffman_codes(runs: list[dict[str, Any]], source: str) -> dict[str, Any] | None:
    """The integers that others are measured by, with Huffman codes, where they were trained."""
    first = next(each for each in runs if each["source"] == source)
    return next((each for each in runs if each["name"] == first["name"] and each["decoder"] == CODED[1]), None)


def _own(facts: dict[str, Any], method: Method) -> bool:
    return (facts["array"], facts["decoder"]) == method.designs[0]


def _span(values: list[float], form: str = "{:.2f}") -> str:
    least, most = form.format(min(values)), form.format(max(values))
    return least if least == most else f"{least} to {most}"


def _runs(runs: list[dict[str, Any]]) -> Table:
    columns = ["export", "weights", "array, decoder", "images", "bus stalls", "layers", "digits compared", "counters"]
    columns += ["differing", "cycles an image: RTL", "model"]
    lines = [
        [facts["name"], facts["title"], f"{facts['array']}, {facts['decoder']}", str(facts["images"]),
         f"{facts['stall']:.0%}" if facts["stall"] else "never", str(facts["layers"]), f"{facts['digits']:,}",
         f"{facts['counters']:,}", "0", f"{facts['rtl_cycles']:,.0f}",
         "" if facts["stall"] else f"{facts['model_cycles']:,}"]
        for facts in runs
    ]  # fmt: skip
    return Table(columns, lines, "**RTL and simulator**, each export on a 16 x 16 engine with a bus of 128 bits")


def _costs(runs: list[dict[str, Any]], gates: list[dict[str, Any]]) -> Table:
    columns = [
        "network",
        "weights",
        "export",
        "array, decoder",
        "cycles",
        "x int4",
        "of them waiting for weights %",
        "weight bytes stored",
        "x int4",
    ]
    columns += ["bytes read", "x int4", "gates", "x int4", "gates x cycles, x int4"]
    lines = []
    for source in dict.fromkeys(each.source for each in INTEGERS):
        for facts in runs:
            if facts["source"] == source and not facts["stall"]:
                ratios = _measure(facts, runs, gates)
                lines.append(
                    [source, facts["title"], facts["name"], f"{facts['array']}, {facts['decoder']}",
                     f"{facts['rtl_cycles']:,.0f}", f"{ratios['rtl_cycles']:.2f}", percent(facts["weight_stall"], 1),
                     f"{facts['weight_bytes']:,}", f"{ratios['weight_bytes']:.2f}",
                     f"{facts['rtl_bytes_read']:,.0f}", f"{ratios['rtl_bytes_read']:.2f}",
                     f"{_of(gates, facts)['compute']['gates']:,}", f"{ratios['gates']:.2f}", f"{ratios['work']:.2f}"]
                )  # fmt: skip
    return Table(columns, lines, "**What they take beside 4-bit integers** in a network of the same shape")


def _designs(gates: list[dict[str, Any]]) -> Table:
    columns = ["array, decoder", "compute unit: gates", "of them decoder", "gate equivalents", "ALMs (with DSP)"]
    columns += ["whole engine: gates", "gate equivalents", "ALMs (with DSP)", "DSP", "RTL"]
    lines = []
    for facts in gates:
        compute, engine = facts["compute"], facts["engine"]
        lines.append(
            [f"{facts['array']}, {facts['decoder']}", f"{compute['gates']:,}", f"{facts['coded']:,}",
             f"{compute['equivalents']:,.0f}", f"{compute['alms_low']:,} .. {compute['alms_high']:,}",
             f"{engine['gates']:,}", f"{engine['equivalents']:,.0f}",
             f"{engine['alms_low']:,} .. {engine['alms_high']:,}", f"{engine['dsps']:,}", facts["rtl_sha256"][:8]]
        )  # fmt: skip
    return Table(columns, lines, f"**Gates** of these engines, memories apart ({gates[0]['tool']})")
