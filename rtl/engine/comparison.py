"""What an engine did against what it should have done: digits, counters, cycles; the first difference by name.

Expected digits are placed by the schedule's memory alone; what was written comes as the write port's
recorded cycles. A digit that is right by chance, left over from an earlier layer, counts as not written. A fusion
engine writes halves of digits: there they are what is compared, E of them in a word.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ...kernels.addressing import unfold_x
from ...kernels.digits import digit_count
from ...kernels.mac import DIGIT_BITS
from ...sim.compile import CompiledNetwork
from ...sim.cycles import LayerCycles
from ...sim.descriptor import act_words
from ...sim.engine import EngineConfig
from ...sim.execute import Overflows
from ...sim.lowered import row_groups
from ...sim.manifest import ConcatNode, Conv2dNode
from ...sim.random_options import Counter
from ...sim.words import pixel_words, word_parts

__all__ = [
    "CounterRecord",
    "Mismatch",
    "Shadow",
    "Writes",
    "WrittenTensor",
    "compare_counters",
    "compare_cycles",
    "compare_layer",
    "counted_digits",
    "written_tensors",
]

NEVER = -1


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first difference: what was found where, and in which cycle it came to be."""

    layer: str
    place: str
    expected: str
    found: str
    cycle: int | None = None

    def __str__(self) -> str:
        when = "" if self.cycle is None else f", cycle {self.cycle}"
        return f"layer {self.layer}: {self.place}: expected {self.expected}, found {self.found}{when}"


@dataclass(frozen=True, slots=True)
class WrittenTensor:
    """A tensor, or the part of one, that a layer writes: its codes (C, H, W) and where they belong.

    Pixel p has its word 0 at ``planes[digit] + p * pixel_words``, channel c is its slot ``channel + c``
    counted from there. A word has `halves` half-words, 2 in a narrow tensor.
    """

    name: str
    codes: np.ndarray
    planes: tuple[int, ...]
    pixel_words: int
    channel: int
    engine: EngineConfig
    halves: int = 1

    @property
    def _slot_digits(self) -> int:
        """Digits that a code has in a slot of one plane: halves of digits in a fusion engine."""
        return DIGIT_BITS // self.engine.enable_bits // self.halves

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Address and write enable of every digit, (pixels, channels, digits) each."""
        channels, height, width = self.codes.shape
        half, slot = np.divmod(np.arange(channels) + self.channel, self.engine.word_digits)
        word = np.arange(height * width)[:, None] * self.pixel_words + half // self.halves
        digits = self._slot_digits
        addresses = word[:, :, None] + np.repeat(self.planes, digits)
        first = (slot * self.halves + half % self.halves) * digits
        enables = first[:, None] + np.tile(np.arange(digits), len(self.planes))
        return addresses, np.broadcast_to(enables, addresses.shape)

    @property
    def digits(self) -> np.ndarray:
        """The digits, (pixels, channels, digits)."""
        codes, bits = self.codes.reshape(len(self.codes), -1).T.astype(np.int32), self.engine.enable_bits
        count = self._slot_digits * len(self.planes)
        return np.stack([codes >> bits * at & ((1 << bits) - 1) for at in range(count)], axis=2)

    def part(self, index: int) -> str:
        """A digit's name by its place in a code."""
        if self.engine.enable_bits == DIGIT_BITS:
            return f"digit {index}"
        return f"bits {self.engine.enable_bits * index} and {self.engine.enable_bits * index + 1}"


def written_tensors(compiled: CompiledNetwork, tensors: Mapping[str, np.ndarray]) -> list[list[WrittenTensor]]:
    """What each layer writes to the activation memory, the input's load and the result's store included.

    `tensors` holds the golden codes (C, H, W) of one image.
    """
    network, plan = compiled.network, compiled.plan

    def placed(name: str, codes: np.ndarray, before: int = 0) -> WrittenTensor:
        stored = plan.tensors[name]
        root = plan.roots[stored.root]
        planes = plan.memory.tensors[stored.root].planes
        assert len(planes) == digit_count(root.codes.bits)
        engine, bits = compiled.engine, root.codes.bits
        words = pixel_words(engine, root.shape[0], bits)
        # A flattened map lies as what it was before; of a concat, only a part may be written.
        codes = codes.reshape(-1, *stored.shape[1:])
        return WrittenTensor(
            name, codes, planes, words, stored.channel + before, engine, halves=word_parts(engine, bits)
        )

    source = network.manifest.input.name
    layers = [[placed(source, _loaded(compiled, tensors[source]))]]
    for layer in plan.layers:
        if isinstance(layer.lead, ConcatNode):
            inputs = layer.lead.inputs
            before = sum(network.values[name].shape[0] for name in inputs[: layer.part])
            layers.append([placed(layer.lead.name, tensors[inputs[layer.part]], before)])
        else:
            written = [node.name for node in layer.nodes if node.name in plan.kept]
            layers.append([placed(name, tensors[name]) for name in written])
    return [*layers, []]


def _loaded(compiled: CompiledNetwork, codes: np.ndarray) -> np.ndarray:
    """The input's codes as the host loads them."""
    if compiled.plan.unfolded is None:
        return codes
    node = compiled.network.node(compiled.plan.unfolded)
    assert isinstance(node, Conv2dNode)
    padding, zero_point = (node.padding[1], node.padding[3]), compiled.network.manifest.input.zero_point
    unfolded: np.ndarray = unfold_x(codes[None], node.kernel[1], node.stride[1], node.dilation[1], padding, zero_point)
    return np.asarray(unfolded[0])


@dataclass(frozen=True, slots=True)
class Writes:
    """The write port of the activation memory in the cycles in which it writes.

    `cycles`, `layers` (the number of the layer that ran) and `addresses` are (N,); `mask` and `digits` (N, E).
    """

    cycles: np.ndarray
    layers: np.ndarray
    addresses: np.ndarray
    mask: np.ndarray
    digits: np.ndarray

    def of_layer(self, layer: int) -> "Writes":
        """The writes while one layer ran."""
        chosen = self.layers == layer
        return Writes(
            self.cycles[chosen], self.layers[chosen], self.addresses[chosen], self.mask[chosen], self.digits[chosen]
        )


class Shadow:
    """The activation memory as its writes leave it: the digits (words, E), and the cycle in which each was written."""

    def __init__(self, engine: EngineConfig) -> None:
        size = act_words(engine), engine.word_enables
        self.digits = np.zeros(size, dtype=np.uint8)
        self.cycles = np.full(size, NEVER, dtype=np.int64)
        self.word_digits = engine.word_digits

    def apply(self, writes: Writes) -> None:
        """Write in the order of the cycles."""
        row, enable = np.nonzero(writes.mask)
        address = writes.addresses[row]
        # Of several values for one place, NumPy keeps the last.
        self.digits[address, enable] = writes.digits[row, enable]
        self.cycles[address, enable] = writes.cycles[row]


def compare_layer(
    name: str, expected: Sequence[WrittenTensor], writes: Writes, shadow: Shadow, *, whole_words: bool = False
) -> Mismatch | None:
    """Apply a layer's writes and look for the first digit that is not there, is wrong, or has no business there.

    `whole_words` allows slots beside a tensor's channels to be written: a load writes words.
    """
    words, enables = shadow.digits.shape
    outside = writes.addresses >= words
    if outside.any():
        at = int(np.argmax(outside))
        return Mismatch(name, "write address", f"below {words}", str(int(writes.addresses[at])), int(writes.cycles[at]))
    before = shadow.cycles.copy()
    shadow.apply(writes)
    owned = np.zeros((words, enables), dtype=np.bool_)
    for tensor in expected:
        addresses, enable = tensor.places()
        owned[addresses, enable] = True
        if whole_words:
            owned[addresses.reshape(-1)] = True
        digits, found = tensor.digits, shadow.digits[addresses, enable]
        new = shadow.cycles[addresses, enable] != before[addresses, enable]
        wrong = (digits != found) | ~new
        if wrong.any():
            pixel, channel, part = (int(index) for index in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            place = addresses[pixel, channel, part], enable[pixel, channel, part]
            written = bool(new[pixel, channel, part])
            return Mismatch(
                name,
                f"{_place(tensor, pixel, channel)}, {tensor.part(part)}",
                str(int(digits[pixel, channel, part])),
                str(int(shadow.digits[place])) if written else "nothing written",
                int(shadow.cycles[place]) if written else None,
            )
    stray = (shadow.cycles != before) & ~owned
    if stray.any():
        first = np.where(stray, shadow.cycles, np.iinfo(np.int64).max)
        address, at = (int(index) for index in np.unravel_index(int(np.argmin(first)), first.shape))
        return Mismatch(
            name,
            f"word {address}, digit {at * shadow.word_digits // enables} of the activation memory",
            "no write",
            str(int(shadow.digits[address, at])),
            int(shadow.cycles[address, at]),
        )
    return None


def _place(tensor: WrittenTensor, pixel: int, channel: int) -> str:
    y, x = divmod(pixel, tensor.codes.shape[2])
    return f"{tensor.name}, channel {channel}, pixel {pixel} (y {y}, x {x}), code {int(tensor.codes[channel, y, x])}"


@dataclass(frozen=True, slots=True)
class CounterRecord:
    """Counters (N, R) by kind as they were handed over, row group after row group, and the cycles (N,)."""

    cycles: np.ndarray
    counts: Mapping[Counter, np.ndarray]


def compare_counters(
    compiled: CompiledNetwork, expected: Mapping[str, Overflows], records: Sequence[CounterRecord]
) -> Mismatch | None:
    """Every counter of every row of every row group; `records` have some of the kinds each, together all."""
    groups = [
        (layer, group)
        for layer in compiled.layers
        if layer.op == "mac"
        for group in row_groups(layer.registers, compiled.engine)
    ]
    assert {kind for record in records for kind in record.counts} == set(get_args(Counter))
    for record in records:
        kinds = ", ".join(record.counts)
        for (layer, group), index in zip(groups, range(len(record.cycles)), strict=False):
            for kind, counts in record.counts.items():
                wanted = getattr(expected[layer.name], kind)[group.first : group.first + group.rows]
                wrong = counts[index, : group.rows] != wanted
                if wrong.any():
                    row = int(np.argmax(wrong))
                    return Mismatch(
                        layer.name,
                        f"{kind} overflows of channel {group.first + row}",
                        str(int(wanted[row])),
                        str(int(counts[index, row])),
                        int(record.cycles[index]),
                    )
        if len(record.cycles) != len(groups):
            last = int(record.cycles[-1]) if len(record.cycles) else None
            name = groups[min(len(record.cycles), len(groups) - 1)][0].name if groups else compiled.layers[0].name
            return Mismatch(name, f"row groups that hand over {kinds}", str(len(groups)), str(len(record.cycles)), last)
    return None


def compare_cycles(
    expected: Sequence[LayerCycles], found: np.ndarray, indices: np.ndarray, ends: np.ndarray, *, exact: bool
) -> Mismatch | None:
    """Each layer's own cycle count and number, in order; of a bus that stalls only which layers ran."""
    for at, layer in enumerate(expected[: len(found)]):
        if int(indices[at]) != at:
            return Mismatch(layer.name, "number of the layer", str(at), str(int(indices[at])), int(ends[at]))
        if exact and int(found[at]) != layer.total:
            return Mismatch(layer.name, "cycles of the layer", str(layer.total), str(int(found[at])), int(ends[at]))
    if len(found) != len(expected):
        at = min(len(found), len(expected) - 1)
        return Mismatch(expected[at].name, "layers that ended", str(len(expected)), str(len(found)))
    return None


def counted_digits(layers: Sequence[Sequence[WrittenTensor]]) -> Iterator[int]:
    """Digits that each layer is compared on."""
    for tensors in layers:
        yield sum(tensor.codes.size * len(tensor.planes) for tensor in tensors)
