"""The compiler: a network and an engine become one memory image.

The image is bus words: the descriptors in the order in which the layers run, then each layer's
streams (for each row group its channels' records and its weight tiles, in the order of the steps), then
room for the input and for the result. Word 0 is the first descriptor; the engine gets the address
of it as its base. All addresses in descriptors are of bus words counted from the image's first.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..kernels.addressing import unfold_x
from ..kernels.errors import CapacityError
from ..kernels.mac import DIGIT_BITS
from .arrays import ArrayForm, array_form, default_engine
from .descriptor import descriptor_words, encode_descriptor
from .engine import EngineConfig
from .graph import Value
from .image import TileLayout, coefficient_field, in_words, main_field, rescale_field
from .layer import MacLayer
from .lower import lower
from .lowered import LoweredLayer, RowGroup, container, row_groups
from .manifest import AddNode, Conv2dNode, RequantiseNode
from .network import Network
from .schedule import EngineLayer, Schedule, schedule
from .sort import sorted_by_width
from .tiles import step_tiles
from .words import slot_bits, tensor_codes, tensor_words

__all__ = ["CompiledNetwork", "compile_network"]


@dataclass(frozen=True)
class CompiledNetwork:
    """A network on an engine: layers, and the memory image, uint8 (words, bus_bits / 8).

    `network` has its channels in the order in which the engine has them (`sort`).
    `stream_words` are the first word and the number of words of each layer's streams; `input_word` and
    `output_word` are where the input is to be put and where the result will be.
    """

    network: Network
    engine: EngineConfig
    plan: Schedule
    layers: tuple[LoweredLayer, ...]
    image: np.ndarray
    stream_words: tuple[tuple[int, int], ...]
    input_word: int
    output_word: int

    @property
    def payload_bytes(self) -> int:
        """Bytes of descriptors and streams: what does not change from image to image."""
        return self.input_word * self.engine.bus_bits // 8

    @cached_property
    def input_value(self) -> Value:
        """The input as the engine holds it, unfolded where its reader wants it so."""
        return self.plan.roots[self.network.manifest.input.name]

    def encode_input(self, codes: np.ndarray) -> np.ndarray:
        """An image's codes (C, H, W) as the words to be put at `input_word`, uint8 (words, bus_bits / 8)."""
        spec = self.network.manifest.input
        if self.plan.unfolded is not None:
            node = self.network.node(self.plan.unfolded)
            assert isinstance(node, Conv2dNode)
            codes = unfold_x(
                codes[None],
                node.kernel[1],
                node.stride[1],
                node.dilation[1],
                (node.padding[1], node.padding[3]),
                spec.zero_point,
            )[0]
        digits = tensor_words(codes, spec.bits, self.engine)
        return in_words(_nibbles(digits), self.engine.bus_bits)

    def with_input(self, codes: np.ndarray) -> np.ndarray:
        """A copy of the image that holds this input."""
        words = self.encode_input(codes)
        image = self.image.copy()
        image[self.input_word : self.input_word + len(words)] = words
        return image

    def decode_result(self, image: np.ndarray) -> np.ndarray:
        """The result's codes (C, H, W), int32, from a memory image that the engine has written to."""
        value = self.network.values[self.network.output]
        stored = self.plan.tensors[self.network.output]
        root = self.plan.roots[stored.root]
        words = self.plan.memory.tensors[stored.root].words
        planes = len(self.plan.memory.tensors[stored.root].planes)
        count = planes * words * self.engine.word_digits
        data = image[self.output_word :].reshape(-1)[: -(-count * DIGIT_BITS // 8)]
        digits = np.stack([data & 15, data >> DIGIT_BITS], axis=1).reshape(-1)[:count]
        digits = digits.reshape(planes, words, -1)
        codes = tensor_codes(digits, root.shape, root.codes.bits, root.codes.signed, self.engine)
        return codes[stored.channel : stored.channel + stored.shape[0]].reshape(value.shape)

    def to_hex(self) -> str:
        """The image as text, a bus word a line, most significant digit first: what ``$readmemh`` reads."""
        return "".join(word[::-1].tobytes().hex() + "\n" for word in self.image)

    def memory_map(self) -> dict[str, Any]:
        """Where everything lies: regions of the image in bus words, tensors in words of the activation memory."""
        memory = self.plan.memory
        return {
            "schema": 1,
            "network": self.network.name,
            "bus_bits": self.engine.bus_bits,
            "image_bytes": int(self.image.nbytes),
            "payload_bytes": self.payload_bytes,
            "descriptor_words": descriptor_words(self.engine),
            "input_word": self.input_word,
            "output_word": self.output_word,
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.label,
                    "descriptor_word": position * descriptor_words(self.engine),
                    "stream_word": start,
                    "stream_words": words,
                }
                for position, (layer, (start, words)) in enumerate(zip(self.layers, self.stream_words, strict=True))
            ],
            "lanes": self.engine.lanes,
            "word_digits": self.engine.word_digits,
            "bank_words": memory.bank_words,
            "tensors": [
                {
                    "name": name,
                    "planes": list(placed.planes),
                    "words": placed.words,
                    "slot_bits": slot_bits(self.engine, self.plan.roots[name].codes.bits),
                    "banks": sorted(memory.banks(name)),
                }
                for name, placed in memory.tensors.items()
            ],
        }


def compile_network(
    network: Network, engine: EngineConfig | None = None, progress: Callable[[str], None] | None = None
) -> CompiledNetwork:
    """Compile a network for an engine, by default `default_engine`; `progress` is called with every layer's name.

    Raises what `schedule` raises: `UnsupportedError` for an array or decoder that cannot run the
    network, `CapacityError` where its activations do not fit.
    """
    engine = engine or default_engine(network)
    network = sorted_by_width(network).network
    plan = schedule(network, engine)
    layers = lower(network, engine, plan)
    each = descriptor_words(engine)
    address = (len(layers) + 1) * each
    streams: list[np.ndarray] = []
    places: list[tuple[int, int]] = []
    for layer in layers:
        if progress is not None:
            progress(layer.name)
        words = _stream(network, layer, engine)
        places.append((address, len(words)))
        streams.append(words)
        address += len(words)
    input_word = address
    output_word = input_word + _transfer_words(layers[0], engine)
    end = output_word + _transfer_words(layers[-1], engine)
    places[0], places[-1] = (input_word, output_word - input_word), (output_word, end - output_word)
    layers = [
        replace(layer, registers={**layer.registers, "stream": start})
        for layer, (start, _) in zip(layers, places, strict=True)
    ]
    descriptors = [_descriptor(layer, engine) for layer in layers]
    image = np.zeros((end, engine.bus_bits // 8), dtype=np.uint8)
    content = np.concatenate([*descriptors, encode_descriptor(engine, "end", {}), *streams])
    image[: len(content)] = content
    return CompiledNetwork(network, engine, plan, tuple(layers), image, tuple(places), input_word, output_word)


def _descriptor(layer: LoweredLayer, engine: EngineConfig) -> np.ndarray:
    try:
        return encode_descriptor(engine, layer.op, layer.registers)
    except CapacityError as error:
        raise CapacityError(f"{layer.name}: {error}") from error


def _nibbles(digits: np.ndarray) -> np.ndarray:
    """Digits in their order as bytes, the first in the low half."""
    flat = digits.reshape(-1, 2)
    return np.asarray(flat[:, 0] | flat[:, 1] << DIGIT_BITS)


def _transfer_words(layer: LoweredLayer, engine: EngineConfig) -> int:
    """Bus words of a load or store."""
    registers = layer.registers
    prefix, step = ("out", "out_pixel_step") if layer.op == "load" else ("first", "pixel_step")
    words = registers[f"{prefix}_planes"] * registers["out_pixels"] * registers[step]
    return -(-words * engine.word_bits // engine.bus_bits)


def _stream(network: Network, layer: LoweredLayer, engine: EngineConfig) -> np.ndarray:
    """The words that stream with a layer."""
    empty = np.empty((0, engine.bus_bits // 8), dtype=np.uint8)
    if layer.source is None:
        return empty
    records = _records(network, layer.source, engine)
    parts = [empty]
    if layer.coded is not None:
        parts.append(layer.coded.table)
    form = None if layer.mac is None else array_form(layer.mac, engine.array)
    for index, group in enumerate(row_groups(layer.registers, engine)):
        if records.shape[1]:
            chosen = np.ascontiguousarray(records[group.first : group.first + group.rows])
            parts.append(in_words(chosen.view(np.uint8).reshape(-1), engine.bus_bits))
        if layer.coded is not None:
            parts.append(layer.coded.words(index))
        elif form is not None:
            parts += _tiles(form, container(layer.registers, index), group, engine)
    return np.concatenate(parts)


def _records(network: Network, layer: EngineLayer, engine: EngineConfig) -> np.ndarray:
    """The fields of every output channel's record, int64 (channels, fields)."""
    columns: list[np.ndarray] = []
    made = set()
    for node in layer.nodes:
        match node:
            case AddNode():
                own = next((at for at, name in enumerate(node.inputs) if name in made), 0)
                prefixes = ("first_", "second_") if own == 0 else ("second_", "first_")
                scales = [network.scales[node.name, prefix] for prefix in (*prefixes, "")]
                columns += [rescale_field(scale.multiplier, scale.shift) for scale in scales]
            case RequantiseNode():
                scale = network.scales[node.name, ""]
                columns.append(rescale_field(scale.multiplier, scale.shift))
            case _ if node.name in network.layers:
                form = array_form(network.layers[node.name], engine.array)
                columns += [*_coefficient_columns(form), *_main_columns(form.held(engine.mac))]
        made.add(node.name)
    channels = network.values[layer.lead.name].shape[0]
    return np.stack(columns, axis=1) if columns else np.empty((channels, 0), dtype=np.int64)


def _coefficient_columns(form: ArrayForm) -> list[np.ndarray]:
    """Fields of four planes' coefficients each, the last planes first."""
    if form.coefficients is None:
        return []
    starts = reversed(range(0, form.planes, 4))
    return [coefficient_field(form.coefficients[start : start + 4]) for start in starts]


def _main_columns(mac: MacLayer) -> list[np.ndarray]:
    nothing = np.zeros_like(mac.bias)
    if mac.scale is not None:
        return [mac.bias, main_field(mac.zero, mac.scale.multiplier, mac.scale.shift, nothing, mac.fewer)]
    assert mac.thresholds is not None
    assert mac.descending is not None
    main = main_field(mac.zero, nothing, nothing, mac.descending.astype(np.int64), nothing)
    return [mac.bias, main, *mac.thresholds.T]


def _tiles(form: ArrayForm, bits: int, group: RowGroup, engine: EngineConfig) -> list[np.ndarray]:
    """The weight tiles of a row group as words, in the order of its steps; codes stand in `bits` bits."""
    aligned, depthwise = form.layer.node.align is not None, form.layer.shape.depthwise
    layout = TileLayout(group.rows, engine.lanes, bits, aligned, depthwise, form.signed)
    return [layout.encode(codes, amounts, engine.bus_bits) for codes, amounts in step_tiles(form, group, engine.lanes)]
