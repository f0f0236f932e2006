"""Timing diagrams of the engine, from the signals of its RTL; writes docs/timing/*.svg.

    python bench/diagrams.py [--scene load compute drain stall_weights stall_post] [--output docs/timing]

For each diagram an engine of 4 x 4 PEs runs a network with one array layer. Every row is what signals did, cycle by
cycle, and every window begins and ends with a signal. Cycles count from the layer's first one, as in the cycle model.
"""

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Fragment
from gatewise import EngineConfig, Grid, InputSpec, Network, NetworkBuilder
from gatewise.rtl.cxxrtl import CompiledDesign, compile_design
from gatewise.rtl.engine.cosim import EngineProbe, EngineSimulation
from gatewise.rtl.engine.engine import Engine
from gatewise.sim.atomic import write_bytes
from gatewise.sim.compile import compile_network
from gatewise.sim.lowered import LoweredLayer
from paths import ROOT

LAYER = "conv"
ENGINE = EngineConfig(rows=4, lanes=4, pixels=16, post_lanes=2, act_bytes=1024, bus_bits=64, bus_latency=2)
NARROW = ENGINE.model_copy(update={"bus_bits": 8})
MOST_CYCLES, MOST_ROWS = 48, 12
"""What a diagram may have."""
BEFORE, AFTER = 1, 3
"""Cycles of a window before and after its events."""
WIDTH, CHARACTER = 20, 7
"""Of a cycle, and of a label's character."""
LONG = 5
"""Cycles that leave no room for a long label."""
BOTTOM = 8
"""Room below the last row."""
TICK = 5
"""Every so many cycles have their number."""
STYLE = "text{font-size:12px;font-family:Helvetica,Arial,sans-serif;fill:#000}.muted{fill:#444}.s9{fill:#ffffb4}"
"""The narrow skin fills its third colour of four with black."""
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

SIGNALS = {
    "fetch": "control:fetch",
    "begin": "control:begin",
    "done": "post:done",
    "request_valid": ":request.valid",
    "request_ready": ":request.ready",
    "request_kind": "reader/prefetch:tag",
    "bus_valid": ":words.valid",
    **{
        f"{kind}_{side}": f"reader/prefetch:{kind}.{side}"
        for kind in ("descriptor", "records", "weights")
        for side in ("valid", "ready")
    },
    "loaded": "compute/loader:loaded",
    "swap": "compute/sequencer:swap",
    "read": "compute/sequencer:step.valid",
    "read_pixel": "compute/sequencer:step.pixel",
    "read_half": "compute/sequencer:step.half",
    "weight_digit": "compute/sequencer:step.w_upper",
    "tile_end": "compute/sequencer:step.tile_end",
    "weight_wait": "compute:weight_wait",
    "post_wait": "compute:post_wait",
    "tile_done": "compute:tile_done",
    "slot": "post/sequencer:slot",
    "slot_pixel": "post/sequencer/tiles:pixel",
    "operand_read": "post:fetch_read",
    "beat": "post/drain:valid",
    "acc_pixel": "post:drain_pixel",
    "release": "post:release",
    "write_mask": ":write_mask",
}
"""What is watched: components inside the engine, one in another, and the path of a signal in the last of them."""


class OpenEngine(Engine):
    """An engine that is elaborated when it is made: what `SIGNALS` names are attributes of it."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.fragment = Fragment.get(super().elaborate(None), None)
        for name, path in SIGNALS.items():
            components, attribute = path.split(":")
            owner: object = self
            fragment = self.fragment
            for component in filter(None, components.split("/")):
                fragment = fragment.find_subfragment(component)
                owner = fragment.origins[0]
            setattr(self, f"seen_{name}", attrgetter(attribute)(owner))

    def elaborate(self, platform: object) -> Fragment:
        """What was elaborated."""
        return self.fragment


@cache
def design(config: EngineConfig) -> CompiledDesign:
    """The engine with its watched signals as outputs, compiled or from the cache."""
    observed = {f"seen_{name}": f"seen_{name}" for name in SIGNALS}
    return compile_design(lambda: EngineProbe(OpenEngine(config), observed), recipe=f"diagrams {config!r} {SIGNALS}")


@dataclass(frozen=True)
class Trace:
    """What the watched signals did from the fetch of the layer, in cycle -1, on; `layer` as the cycle model has it."""

    engine: EngineConfig
    layer: LoweredLayer
    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, network: Network, engine: EngineConfig) -> "Trace":
        """Run a network of one array layer on any image."""
        compiled = compile_network(network, engine)
        index = [layer.name for layer in compiled.layers].index(LAYER)
        shape = network.manifest.input.shape
        codes = np.random.default_rng(1).integers(0, 1 << network.manifest.input.bits, shape)
        with EngineSimulation(design(engine), compiled) as simulation:
            recorder = simulation.simulation.record("busy", [f"seen_{name}" for name in SIGNALS])
            ends = simulation.run(codes, 10_000).layer_ends
            record = recorder.take()
        # A layer's end is the cycle after its last write.
        begin = int(np.searchsorted(record.cycles, ends[index - 1])) - 1
        values = {name: record.words[f"seen_{name}"][begin:, 0].astype(np.int64) for name in SIGNALS}
        return cls(engine, compiled.layers[index], values)

    def at(self, name: str, cycle: int) -> int:
        """A signal in a cycle of the layer."""
        return int(self.values[name][cycle + 1])

    def cycles(self, name: str) -> list[int]:
        """The cycles in which a signal is not 0, those after the layer too."""
        return [int(place) - 1 for place in np.flatnonzero(self.values[name])]

    @property
    def next_fetch(self) -> int:
        """The cycle of the next layer's fetch: that of the layer's last write."""
        return self.cycles("fetch")[1]

    @property
    def steps(self) -> list[int]:
        """The cycles of the steps' first reads: the shadow tile swaps one later."""
        return [cycle - 1 for cycle in self.cycles("swap")]

    @property
    def tiles(self) -> list[int]:
        """The cycles of the tiles' first reads."""
        ends = self.cycles("tile_end")
        return [min(step for step in self.steps if step > end) for end in [-1, *ends[:-1]]]

    def tile_of(self, cycle: int) -> int:
        """The number of the tile that a read in this cycle is of."""
        return sum(end < cycle for end in self.cycles("tile_end"))

    def step_of(self, cycle: int) -> int:
        """The number of the step in its tile that a read in this cycle is of."""
        return sum(self.tiles[self.tile_of(cycle)] < step <= cycle for step in self.steps)

    def drained(self, cycle: int) -> int:
        """The number of the tile that a slot in this cycle is of: pixels begin anew with each tile."""
        pixels = [self.at("slot_pixel", slot) for slot in self.cycles("slot") if slot <= cycle]
        return sum(now < before for before, now in pairwise(pixels))


Item = tuple[Hashable, str, str]
"""What a cycle of a row shows: equal ones are one box, with a label of a colour."""
ORANGE, BLUE, YELLOW, WHITE = "2345"
KINDS = {"descriptor": YELLOW, "records": ORANGE, "weights": BLUE}
TILES = (BLUE, ORANGE, YELLOW)
"""Colours of words of the bus, and of tiles, by their numbers."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a level in every cycle, or a box in those that have an item."""

    name: str
    cells: Mapping[int, Item] | frozenset[int]

    def wave(self, window: range) -> dict[str, Any]:
        """As WaveDrom describes it."""
        if isinstance(self.cells, frozenset):
            levels = ["01"[cycle in self.cells] for cycle in window]
            return {"name": self.name, "wave": _with_dots(levels, levels)}
        items = [self.cells.get(cycle) for cycle in window]
        boxes = [(item, len(list(same))) for item, same in groupby(items)]
        for item, cycles in boxes:
            fits = item is None or CHARACTER * len(item[1]) <= WIDTH * cycles
            assert fits, f"{self.name}: {item} must fit {cycles} cycles"
        return {
            "name": self.name,
            "wave": _with_dots(items, ["0" if item is None else item[2] for item in items]),
            "data": [item[1] for item, _ in boxes if item is not None],
        }


def _with_dots(keys: Sequence[Hashable], characters: Sequence[str]) -> str:
    """A character for each cycle, a dot where nothing changes."""
    before = [object(), *keys[:-1]]
    return "".join("." if key == last else text for key, last, text in zip(keys, before, characters, strict=True))


def level(trace: Trace, name: str, title: str) -> Row:
    """A signal of one bit."""
    return Row(title, frozenset(trace.cycles(name)))


def read_row(trace: Trace) -> Row:
    """Reads of activations, with their pixels."""
    return Row("activation read", {
        cycle: (cycle, str(trace.at("read_pixel", cycle)), TILES[trace.tile_of(cycle)])
        for cycle in trace.cycles("read")
    })  # fmt: skip


def slot_row(trace: Trace) -> Row:
    """First cycles of slots, with their pixels."""
    return Row("slot", {
        cycle: (cycle, str(trace.at("slot_pixel", cycle)), TILES[trace.drained(cycle)])
        for cycle in trace.cycles("slot")
    })  # fmt: skip


def transfers(trace: Trace, kind: str) -> list[int]:
    """The cycles in which words of a kind leave the prefetch FIFO."""
    ready = set(trace.cycles(f"{kind}_ready"))
    return [cycle for cycle in trace.cycles(f"{kind}_valid") if cycle in ready]


def word_rows(trace: Trace) -> list[Row]:
    """Words of the bus: asked for, on the bus, taken; a box for those of a kind that follow each other."""
    ready = set(trace.cycles("request_ready"))
    asked = [cycle for cycle in trace.cycles("request_valid") if cycle in ready]
    kinds = [tuple(KINDS)[trace.at("request_kind", cycle)] for cycle in asked]
    taken = sorted((cycle, kind) for kind in KINDS for cycle in transfers(trace, kind))
    # Words come in the order of their requests.
    moved = {
        "request": list(zip(asked, kinds, strict=True)),
        "word on the bus": list(zip(trace.cycles("bus_valid"), kinds, strict=True)),
        "word taken": taken,
    }
    return [Row(title, dict(_runs(pairs))) for title, pairs in moved.items()]


def _runs(pairs: list[tuple[int, str]]) -> Iterator[tuple[int, Item]]:
    """The cells of words in a row: a box for those of a kind that follow each other."""
    boxes: list[list[int]] = []
    kinds: list[str] = []
    for cycle, kind in pairs:
        if kinds and (boxes[-1][-1], kinds[-1]) == (cycle - 1, kind):
            boxes[-1].append(cycle)
        else:
            boxes.append([cycle])
            kinds.append(kind)
    for box, kind in zip(boxes, kinds, strict=True):
        label = f"{kind}: {len(box)}" if len(box) >= LONG - 1 else str(len(box))
        for cycle in box:
            yield cycle, (box[0], label, KINDS[kind])


def step_row(trace: Trace) -> Row:
    """From a step's first read to its last."""
    cells: dict[int, Item] = {}
    for step, after in zip(trace.steps, [*trace.steps[1:], trace.next_fetch], strict=True):
        reads = [cycle for cycle in trace.cycles("read") if step <= cycle < after]
        cells |= dict.fromkeys(range(step, reads[-1] + 1), _step_item(trace, step, len(reads) > LONG))
    return Row("step", cells)


def _step_item(trace: Trace, step: int, long: bool) -> Item:
    tile, number = trace.tile_of(step), trace.step_of(step)
    return step, f"tile {tile}, step {number}" if long else f"t{tile} s{number}", TILES[tile]


def digit_row(trace: Trace) -> Row:
    """The digit passes, by their weight digit."""
    passes: dict[int, Item] = {}
    number = 0
    for cycle in trace.cycles("read"):
        number += trace.at("read_pixel", cycle) == 0
        passes[cycle] = (number, ("low", "high")[trace.at("weight_digit", cycle)], WHITE)
    return Row("weight digit", passes)


def weight_row(trace: Trace) -> Row:
    """Words into the shadow tile, by the step that they are for: the first one that may start with them."""
    taken = transfers(trace, "weights")
    steps = [min(step for step in trace.steps if step >= cycle) for cycle in taken]
    cells = {cycle: _step_item(trace, step, steps.count(step) > LONG) for cycle, step in zip(taken, steps, strict=True)}
    return Row("weights taken", cells)


def half_rows(trace: Trace) -> list[Row]:
    """Which tile has each half, from its first read to its last accumulator read."""
    halves: list[dict[int, Item]] = [{}, {}]
    slots = trace.cycles("slot")
    for tile, (first, done) in enumerate(zip(trace.tiles, trace.cycles("tile_done"), strict=True)):
        half = trace.at("read_half", first)
        begin = min(cycle for cycle in slots if trace.drained(cycle) == tile)
        free = min(
            cycle for cycle in trace.cycles("release") if cycle > first and trace.at("release", cycle) >> half & 1
        )
        for state, span in (
            ("sums", range(first, done + 1)),
            ("waits", range(done + 1, begin)),
            ("drains", range(begin, free + 1)),
        ):
            halves[half] |= dict.fromkeys(span, ((tile, state), f"tile {tile} {state}", TILES[tile]))
    return [Row(f"half {half}", cells) for half, cells in enumerate(halves)]


def operand_row(trace: Trace) -> Row:
    """Reads of the post lanes' operands, with the pixels of their slots."""
    slots = trace.cycles("slot")
    cells: dict[int, Item] = {}
    for cycle in trace.cycles("operand_read"):
        pixel = trace.at("slot_pixel", max(slot for slot in slots if slot <= cycle))
        cells[cycle] = (cycle, str(pixel), TILES[0])
    return Row("operand read", cells)


def write_row(trace: Trace) -> Row:
    """Writes, with their pixels: as many for each slot, in the slots' order."""
    slots, writes = trace.cycles("slot"), [cycle for cycle in trace.cycles("write_mask") if cycle >= 0]
    each = len(writes) // len(slots)
    pixels = [trace.at("slot_pixel", slot) for slot in slots for _ in range(each)]
    return Row("write", {cycle: (cycle, str(pixel), TILES[0]) for cycle, pixel in zip(writes, pixels, strict=True)})


def beat_row(trace: Trace) -> Row:
    """Accumulator reads with their pixels; the signal that says of one that it was read comes a cycle later."""
    return Row("accumulator read", {
        cycle - 1: (
            cycle,
            str(trace.at("acc_pixel", cycle - 1)),
            TILES[sum(free < cycle - 1 for free in trace.cycles("release"))],
        )
        for cycle in trace.cycles("beat")
    })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """A diagram: a network and its engine, what is shown, and the first and last event of the window."""

    title: str
    engine: EngineConfig
    network: Callable[[], Network]
    rows: Callable[[Trace], list[Row]]
    events: Callable[[Trace], tuple[int, int]]

    def trace(self) -> Trace:
        """Run it."""
        return Trace.of(self.network(), self.engine)

    def window(self, trace: Trace) -> range:
        """The cycles shown."""
        first, last = self.events(trace)
        window = range(max(-1, first - BEFORE), last + AFTER + 1)
        assert len(window) <= MOST_CYCLES, f"{self.title}: at most {MOST_CYCLES} cycles, not {len(window)}"
        return window

    def waves(self, trace: Trace) -> dict[str, Any]:
        """The WaveDrom description."""
        window, rows = self.window(trace), self.rows(trace)
        assert len(rows) <= MOST_ROWS, f"{self.title}: at most {MOST_ROWS} rows, not {len(rows)}"
        bus = f"{self.engine.bus_bits}-bit bus, latency {self.engine.bus_latency}"
        return {
            "signal": [row.wave(window) for row in rows],
            "head": {"text": f"{self.title} (4 x 4 PEs, {bus}; cycles of the layer)", "tock": window.start},
            "config": {"skin": "narrow"},
        }


def convolution(
    pixels: tuple[int, int] = (2, 2), inputs: int = 4, outputs: int = 4, *, bits: int = 4, out_bits: int = 4,
    shortcut: bool = False
) -> Network:  # fmt: skip
    """A 1 x 1 convolution of codes of 4 bits (8 with a shortcut around it), with weights of `bits`."""
    rng = np.random.default_rng(0)
    spec = InputSpec(
        shape=(inputs, *pixels), bits=8 if shortcut else 4, scale=0.1, divide=255.0, mean=(0.0,) * inputs,
        std=(1.0,) * inputs,
    )  # fmt: skip
    net = NetworkBuilder("diagram", spec)
    half = 1 << (bits - 1)
    codes = rng.integers(-half, half, (outputs, inputs, 1, 1))
    x, out = net.input, Grid(0.5, out_bits, signed=True)
    y = net.conv2d(LAYER, x, codes, bits=bits, scale=0.1, out=out)
    if shortcut:
        net.add("add", y, x, out=out)
    return net.build()


SCENES = {
    "load": Scene(
        "A layer begins",
        ENGINE,
        lambda: convolution(inputs=16),
        lambda trace: [
            level(trace, "fetch", "fetch"),
            *word_rows(trace),
            level(trace, "begin", "begin"),
            level(trace, "weight_wait", "waits for weights"),
            level(trace, "loaded", "shadow tile loaded"),
            read_row(trace),
            level(trace, "swap", "swap"),
        ],
        lambda trace: (-1, trace.steps[0] + 1),
    ),
    "compute": Scene(
        "Two tiles of two steps, weights of two digits",
        ENGINE,
        lambda: convolution((2, 4), 8, bits=8),
        lambda trace: [
            step_row(trace),
            digit_row(trace),
            read_row(trace),
            level(trace, "swap", "swap"),
            weight_row(trace),
            level(trace, "loaded", "shadow tile loaded"),
            level(trace, "tile_end", "tile's last read"),
            level(trace, "tile_done", "tile done"),
            slot_row(trace),
        ],
        lambda trace: (trace.tiles[0] - 1, trace.cycles("tile_done")[1]),
    ),
    "drain": Scene(
        "The last tile drains, with a residual add",
        ENGINE,
        lambda: convolution(out_bits=8, shortcut=True),
        lambda trace: [
            level(trace, "tile_end", "tile's last read"),
            level(trace, "tile_done", "tile done"),
            slot_row(trace),
            operand_row(trace),
            beat_row(trace),
            level(trace, "release", "half released"),
            write_row(trace),
            level(trace, "done", "layer done"),
            level(trace, "fetch", "fetch"),
            level(trace, "request_valid", "request"),
        ],
        lambda trace: (trace.cycles("tile_end")[0] - 1, trace.next_fetch),
    ),
    "stall_weights": Scene(
        "The array waits for weights",
        NARROW,
        lambda: convolution(inputs=16),
        lambda trace: [
            level(trace, "bus_valid", "word on the bus"),
            weight_row(trace),
            level(trace, "loaded", "shadow tile loaded"),
            step_row(trace),
            read_row(trace),
            level(trace, "swap", "swap"),
            level(trace, "weight_wait", "waits for weights"),
            level(trace, "tile_done", "tile done"),
        ],
        lambda trace: (trace.tiles[0] - 7, trace.cycles("tile_done")[0]),
    ),
    "stall_post": Scene(
        "The array waits for a half of the accumulators",
        ENGINE,
        lambda: convolution((3, 4), out_bits=16),
        lambda trace: [
            step_row(trace),
            read_row(trace),
            level(trace, "tile_done", "tile done"),
            *half_rows(trace),
            slot_row(trace),
            beat_row(trace),
            level(trace, "release", "half released"),
            level(trace, "post_wait", "waits for a half"),
            level(trace, "weight_wait", "waits for weights"),
        ],
        lambda trace: (trace.tiles[0], trace.tiles[2] + 3),
    ),
}


def render(waves: dict[str, Any]) -> bytes:
    """A description as SVG on a white ground, with every fifth cycle's number and without bricks that nothing uses."""
    import wavedrom

    root = ET.fromstring(wavedrom.render(json.dumps(waves)).tostring())
    used = {use.get(f"{{{XLINK}}}href") for use in root.iter(f"{{{SVG}}}use")}
    for defs in root.iter(f"{{{SVG}}}defs"):
        for brick in list(defs):
            if brick.tag == f"{{{SVG}}}g" and f"#{brick.get('id')}" not in used:
                defs.remove(brick)
    for marks in root.iter(f"{{{SVG}}}g"):
        for text in marks.findall(f"{{{SVG}}}text[@class='muted']"):
            if int(text.text or 0) % TICK:
                marks.remove(text)
    for style in root.iter(f"{{{SVG}}}style"):
        style.text = (style.text or "") + STYLE
    root.set("height", str(int(root.get("height", "")) + BOTTOM))
    root.set("viewBox", f"0 0 {root.get('width')} {root.get('height')}")
    root.insert(0, ET.Element(f"{{{SVG}}}rect", {"width": "100%", "height": "100%", "fill": "#fff"}))
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root) + b"\n"


def main() -> None:
    """Write the diagrams."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", nargs="+", choices=SCENES, default=list(SCENES), help="diagrams (default all)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/timing", help="folder (default docs/timing)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.scene:
        scene = SCENES[name]
        picture = render(scene.waves(scene.trace()))
        path = arguments.output / f"{name}.svg"
        write_bytes(path, picture)
        print(f"{path}: {len(picture)} bytes")


if __name__ == "__main__":
    main()
