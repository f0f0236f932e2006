"""The pages of an exported engine: ports, descriptor, streams, memories, as Markdown."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from amaranth.hdl import Shape
from amaranth.lib import wiring

from ..kernels.fusion import FUSION_MODES
from ..kernels.mac import DIGIT_BITS
from ..kernels.planes import COEFFICIENT_BITS
from ..sim.coded import ROWS_AT, huffman_bank
from ..sim.descriptor import (
    ADDRESS_BITS,
    CHECK,
    DESCRIPTOR_STEP,
    SHIFT_BITS,
    descriptor_bits,
    descriptor_fields,
    descriptor_words,
    record_slots,
)
from ..sim.engine import CHUNK_BITS, XOR_NETWORKS, XOR_WIDTH, Decoder, EngineConfig
from ..sim.image import AMOUNT_BITS, FIELD_BITS, TileLayout
from ..sim.xor_coded import OUTPUTS_AT, RUN_FIELDS
from .engine.check import ErrorCode
from .engine.control import COUNTED_LAYERS
from .engine.counters import COUNTER_BITS
from .engine.engine import Engine
from .engine.loader import CONTAINER_BITS, code_bits
from .engine.ports import PORTS

__all__ = ["MAIN_PARTS", "PAGES", "RESCALE_PARTS", "pages", "ports"]

MAIN_PARTS = (
    ("zero", 0, 16, "zero point constant, signed: the input sum's factor, with the layer's fraction bits"),
    ("multiplier", 16, 31, "of the scale"),
    ("shift", 47, 6, "of the scale"),
    ("descending", 53, 1, "a threshold is reached by sums not above it, else by those not below it"),
    ("fewer", 54, 4, "bits that the channel's codes have less than the tensor's: it shifts the clamp; 8: it is 0"),
)
"""Name, first bit, bits and meaning of what a record's field `main` holds."""

RESCALE_PARTS = (("multiplier", 0, 31, "of the rescale"), ("shift", 31, 6, "of the rescale"))
"""The same of the fields `own`, `other`, `sum` and `copy`."""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def ports(component: wiring.Component) -> list[tuple[str, str, int]]:
    """Name, direction and bits of a component's ports in Verilog, in the order of its signature."""
    found = [("clk", "input", 1), ("rst", "input", 1)]
    for path, member, _ in component.signature.flatten(component):
        direction = "input" if member.flow is wiring.In else "output"
        found.append(("__".join(map(str, path)), direction, Shape.cast(member.shape).width))
    return found


def _ports_page(engine: Engine) -> str:
    values = {
        "errors": ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ErrorCode),
        "counted": COUNTED_LAYERS,
        "counter": COUNTER_BITS,
        "address_last": ADDRESS_BITS - 1,
        "written": "digits" if engine.config.enable_bits == DIGIT_BITS else "halves of digits, 2 bits each,",
    }
    rows = [(f"`{name}`", direction, bits, PORTS[name].format(**values)) for name, direction, bits in ports(engine)]
    text = f"""# Ports of `engine`

One clock. Streams move a word in every cycle in which `valid` and `ready` are both up. A bus word has
{engine.config.bus_bits} bits, and addresses count bus words.

"""
    return text + _table(("port", "direction", "bits", "meaning"), rows)


def _descriptor_page(engine: Engine) -> str:
    config = engine.config
    rows, at = [], 0
    for name, field in descriptor_fields(config).items():
        rows.append((f"`{name}`", at, field.bits, "yes" if field.signed else "", field.doc))
        at += field.bits
    text = f"""# The descriptor of a layer

{descriptor_bits(config)} bits, {descriptor_words(config)} bus words, the lowest bits first. Bits from {at} on are zero:
a descriptor's size is a multiple of {DESCRIPTOR_STEP} bits. All its bytes XOR to {CHECK:#04x}. What a layer does
not use is 0. Descriptors stand one after another, the first at bus word `base`; the last one has `op` `end`.
Signed fields are two's complement. Addresses of activations are words of {config.word_digits} digits modulo the
address space, and so are the steps between them; a step to the next row includes the way back.
{_parts_text(config)}
"""
    return text + _table(("field", "bit", "bits", "signed", "meaning"), rows)


def _parts_text(config: EngineConfig) -> str:
    """What addresses count in a fusion engine besides words."""
    if config.array != "fusion":
        return ""
    return """Those of a tensor whose `_narrow` is up are of half-words: twice the word's, and 1 more for the upper two
bits of its digits. In a layer of the array `origin`, the steps of the window and `plane_stride` count lane groups: 1, 2
or 4 in a word.
"""


def _record_rows(config: EngineConfig) -> list[tuple[str, str, str]]:
    """Field, which layers have it, content."""
    slots = record_slots(config)
    main = [("bias", "bias, signed, with the layer's fraction bits"), ("main", "zero point and scale, below")]
    rescales = [
        ("own", "`adds`", "rescale of the own codes in a sum, below"),
        ("other", "`adds`", "rescale of the other operand, below"),
        ("sum", "`adds`", "rescale of the sum, below"),
        ("copy", "`copies`", "rescale of the second tensor, below"),
    ]
    coefficients = [name for name in slots if name.startswith("coefficients_")]
    thresholds = [name for name in slots if name.startswith("threshold_")]
    planes = FIELD_BITS // COEFFICIENT_BITS
    rows = [
        *((name, _coefficients_present(name, planes), _coefficients_content(name, planes)) for name in coefficients),
        *((name, "`op` is `mac`", content) for name, content in main),
        *((name, f"`thresholds` > {index}", "threshold, signed") for index, name in enumerate(thresholds)),
        *rescales,
    ]
    if tuple(name for name, *_ in rows) != slots:
        raise AssertionError(f"a record's fields must be {', '.join(slots)}")
    return [(f"`{name}`", present, content) for name, present, content in rows]


def _coefficients_present(name: str, planes: int) -> str:
    first = planes * int(name.rpartition("_")[2])
    return f"`plane_top` >= {first}" if first else "`op` is `mac`"


def _coefficients_content(name: str, planes: int) -> str:
    first = planes * int(name.rpartition("_")[2])
    return (
        f"coefficients of planes {first} to {first + planes - 1}, the first in the lowest {COEFFICIENT_BITS} bits, "
        "signed, with the layer's fraction bits"
    )


def _codes_text(config: EngineConfig) -> str:
    """What a weight tile's codes are in each array."""
    lanes = config.lanes
    if config.array == "sign":
        return f"""A tile holds the signs of the row group's channels, row after row, each row {lanes} bits,
1 for +1 and 0 for -1; a depthwise layer's rows are one bit each. Bits of lanes that are not the convolution group's
say nothing. Each of the layer's `part_top` + 1 planes has a tile of its own: within a lane group they follow each
other."""
    if config.array == "shift":
        return f"""A tile holds the codes of the row group's channels, row after row, each row {lanes} codes in
containers of `1 << container` bits; a depthwise layer's rows are one code each. From bit 0 on, a code is its state,
complemented (2 bits: 3 zero, 2 plus, 1 minus, 0 pruned), its component in a `focused` layer (1 bit: 0 minus, 1 plus),
its exponent (up to {SHIFT_BITS} bits). Lanes that are not the convolution group's hold 0. Each of the layer's
`part_top` + 1 parts of weights has a tile of its own: within a lane group they follow each other."""
    text = f"""Where the layer is `aligned`, a row of {lanes} amounts of {AMOUNT_BITS} bits comes first, in bus words of
its own. Then the codes of the row group's channels, row after row, each row {lanes} codes in containers of
`1 << container` bits, from row group `rest_from` on (unless it is 0) of `1 << rest_container` bits, two's complement; a
depthwise layer's rows are one code each. Lanes that are not the convolution group's hold 0."""
    if config.wide:
        text += """ Weights of more than 8 bits (`part_top` 1) are two tiles that follow each other within a lane
group: the lower bytes of the codes, whose digits are both unsigned, and the upper bytes."""
    return f"{text} {_modes_text(config)}" if config.array == "fusion" else text


def _modes_text(config: EngineConfig) -> str:
    """What the codes of a fused array's modes are made of."""
    pes = config.lanes
    modes = [
        (
            f"{number}: {mode.a_bits}x{mode.w_bits}",
            mode.lanes,
            mode.w_bits if mode.narrow else "as many as the container has",
            ", ".join(f"p + {first}" if first else "p" for first in mode.channels(pes)[0].tolist()),
        )
        for number, mode in enumerate(FUSION_MODES)
    ]
    table = _table(("mode", "lanes of a PE", "bits of a weight", "channels of the lane group"), modes)
    return f"""In a `mode` of more than one lane a code is what
PE p takes for all of them: their weights side by side, the first one in the lowest bits. A lane group has {pes}
channels for each lane of a PE; they are counted from its first one.

{table.rstrip()}"""


def _tiles_table(config: EngineConfig) -> str:
    """Bus words of whole tiles, by container."""
    bus, lanes, rows = config.bus_bits, config.lanes, config.rows
    columns: dict[str, dict[str, bool]] = {
        "codes": {},
        "with amounts": {"aligned": True},
        "depthwise": {"depthwise": True},
    }
    if config.has_parts:
        del columns["with amounts"]
    tiles = [
        (
            bits,
            *(
                TileLayout(min(rows, lanes) if "depthwise" in form else rows, lanes, bits, **form).words(bus)
                for form in columns.values()
            ),
        )
        for bits in CONTAINER_BITS
        if bits <= code_bits(config)
    ]
    return _table(("container bits", *columns), tiles)


def _tiles_section(config: EngineConfig) -> str:
    return f"""## Weight tiles

{_codes_text(config)}

Bus words of a tile of all rows:

{_tiles_table(config)}"""


def _huffman_section(config: EngineConfig) -> str:
    """What stands in the place of weight tiles before Huffman decoders."""
    lanes, bank = config.lanes, huffman_bank(config)
    decoder = bank.decoder
    limit, index, length = decoder.max_length + 1, decoder.index_bits, decoder.max_length
    upper = 1 << (decoder.address_bits - 1)
    codes = "from bit 0 on its state, component and exponent" if config.has_parts else "two's complement"
    amounts = (
        f"\nWhere the layer is `aligned`, row 0 is the {lanes} lanes' amounts, and the channels' rows follow; a tile "
        f"of a depthwise\nlayer then has {lanes} symbols, too, and each channel's code stands in its own lane."
    )
    modes = f"\n{_modes_text(config)}" if config.array == "fusion" else ""
    return f"""## Coded weights

All is chunks of {
        CHUNK_BITS
    } bits. Before the first records stand `table_words` bus words, the decoders' table: entries of
two chunks, address and value. The last entry may be repeated to fill up a word.

{
        _table(
            ("address", "value"),
            [
                (f"0 to {decoder.alphabet - 1}", f"word of the symbol memory, {decoder.symbol_bits} bits"),
                (
                    f"{upper - 1} + l, l = 1 to {length}",
                    f"of code words of l bits: the limit in bits 0 to {limit - 1}, "
                    f"the offset in {limit} to {limit + index - 1}",
                ),
            ],
        )
    }
A stream's first l bits, as a number, are a code word if they are below the limit of l and no fewer are below theirs;
its symbol stands in the symbol memory at their sum with the offset of l.

In the place of a row group's weight tiles stand `weight_words` bus words:

{
        _table(
            ("chunk", "content"),
            [
                (0, f"symbols of a row in bits 0 to {ROWS_AT - 1}, rows from bit {ROWS_AT} on, the amounts' included"),
                (1, "number of the coded chunks"),
                ("2 and more", "the coded chunks, then zeros"),
            ],
        )
    }
Symbols are whole codes, {codes}: of the row's lanes in turn, tile by tile,
{lanes} a tile, one in a depthwise layer.{"" if config.has_parts else amounts}{modes}

A row's code words, most significant bit first and from bit 0 of a chunk on, a 1 and zeros are chunks of its own. The
rows' chunks stand in the order in which their decoders ask: {
        decoder.slots
    } for each row, one row after the other and again, then,
symbol by symbol, one for each row, in their order, whose code word has used a chunk up. The last chunk is the last one
that holds anything; what is asked for behind it does not come.
"""


def _xor_section(config: EngineConfig) -> str:
    """What stands in the place of weight tiles before an XOR decoder."""
    lanes, outputs = config.lanes, 2 * OUTPUTS_AT
    meanings = {
        "length": "signs",
        "skip": "outputs of the first slice that are none of them",
        "lane": "lane of the first sign; the others follow, and a full row goes on in lane 0 of the next one",
        "network": "which network, counted from 0",
        "row_end": "the last row that the run reaches is complete with it",
        "pass_end": "the last run of the row group",
    }
    places = accumulate(RUN_FIELDS.values(), initial=0)
    fields = [
        (f"`{name}`", at, bits, meanings[name]) for at, (name, bits) in zip(places, RUN_FIELDS.items(), strict=False)
    ]
    sizes = (
        f"inputs in bits 0 to {OUTPUTS_AT - 1}, outputs in bits {OUTPUTS_AT} to {outputs - 1}: 1 to {XOR_WIDTH} each"
    )
    network = [
        (0, sizes),
        ("1 and more", "for each output the mask of its inputs, input 0 in bit 0: the output is their XOR"),
    ]
    run = [
        (0, "its fields, below"),
        (1, "number of the chunks behind it"),
        ("2 and more", "its slices, as many bits each as the network has inputs, without gaps; then zeros"),
    ]
    return f"""## Coded weights

All is chunks of {CHUNK_BITS} bits. Before the first records stand `table_words` bus words: the layer's networks, up to
{XOR_NETWORKS} of them, one after the other, then zeros.

{_table(("chunk of a network", "content"), network)}
In the place of a row group's weight tiles stand `weight_words` bus words: runs, then zeros.

{_table(("chunk of a run", "content"), run)}
{_table(("field", "bit", "bits", "meaning"), fields)}
A network makes a slice's outputs, output 0 first; those of a run's slices, behind the skipped ones, are its signs,
1 for +1 and 0 for -1. A tile is the rows of the row group's channels, {lanes} lanes each, in a depthwise layer one row
with each channel's sign in its own lane; each of the layer's `part_top` + 1 planes has a tile of its own, and within a
lane group they follow each other. A run begins with a row or goes on in the row of the run before, which did not end
it; one that reaches further rows begins in lane 0. Lanes of a row that no run reaches are not the convolution group's.
"""


WEIGHT_SECTIONS: dict[Decoder, Callable[[EngineConfig], str]] = {
    "raw": _tiles_section,
    "huffman": _huffman_section,
    "xor": _xor_section,
}
"""What stands in the place of weights, by decoder."""


def _streams_page(engine: Engine) -> str:
    config = engine.config
    bus, lanes, rows = config.bus_bits, config.lanes, config.rows
    parts = ("part", "bit", "bits", "meaning")
    return f"""# What streams with a layer

From bus word `stream` on, for each row group of up to {rows} output channels (a depthwise layer's: {min(rows, lanes)}):
the records of its channels, then, where `op` is `mac`, its weight tiles in the order ky, kx, lane group (words of
{lanes} lanes). A row group's weight tiles stand there once and are read again for each tile of pixels. Every block of
records and every weight tile starts on a fresh bus word of {bus} bits; bit 0 is the first, what is left over is zero.

## Records

A channel's record is the fields of {FIELD_BITS} bits that its layer has, in this order, without gaps.

{_table(("field", "present where", "content"), _record_rows(config))}
`main`:

{_table(parts, MAIN_PARTS)}
`own`, `other`, `sum`, `copy`:

{_table(parts, RESCALE_PARTS)}
{WEIGHT_SECTIONS[config.decoder](config)}"""


def _memory_page(engine: Engine) -> str:
    config, bank = engine.config, engine.memory.bank_words
    digits, each = config.word_digits, descriptor_words(config)
    banks = [(index, index * bank, (index + 1) * bank - 1) for index in range(config.act_banks)]
    regions = [
        ("descriptors of the layers, in the order in which they run", f"{each} each"),
        ("the descriptor `end`", each),
        ("streams of the layers, in the same order", "as the layers need"),
        ("input", "its digits, plane after plane"),
        ("result", "in the same way"),
    ]
    return f"""# Memories

## Activation memory

{config.act_banks} banks of {bank} words of {digits} digits of {DIGIT_BITS} bits ({config.word_bits} bits),
one read port and one write port each, a write enable for each {_enabled(config)}. Slot 0 is in the lowest bits.

{_table(("bank", "first word", "last word"), banks)}
A tensor of C channels takes ceil(C / {digits}) words a pixel, channels in order, pixels row-major: one such plane
for each {DIGIT_BITS} bits of its codes, the low digits first. The top digit of signed codes is two's complement.
Planes may stand in different places.
{_narrow_text(config)}
## Memory on the bus

Bus words of {config.bus_bits} bits; addresses have {ADDRESS_BITS} bits. A compiled network's regions follow each
other from the first descriptor on, which `base` names; a descriptor's `stream` counts from bus word 0. Words of the
activation memory stand in bus words without gaps, the first in the low bits.

{_table(("region", "bus words"), regions)}
Where a network's regions start: `gatewise compile F.gw --engine E.toml -o IMAGE --json MAP.json`.
"""


def _enabled(config: EngineConfig) -> str:
    return "digit" if config.enable_bits == DIGIT_BITS else f"{config.enable_bits} bits"


def _narrow_text(config: EngineConfig) -> str:
    """How codes of at most 2 bits lie in a fusion engine."""
    if config.array != "fusion":
        return ""
    digits, bits = config.word_digits, config.enable_bits
    return f"""
Codes of at most {bits} bits take {bits} bits each: ceil(C / {2 * digits}) words a pixel. Channel c is at slot
c % {digits}, in the lower {bits} bits of the digit where floor(c / {digits}) is even, else in the upper ones.
"""


def _parameters_page(engine: Engine) -> str:
    mac = engine.config.mac
    rows = [(f"`{name}`", value) for name, value in engine.config.model_dump(exclude={"mac"}).items()]
    rows += [(f"`mac.{name}`", getattr(mac, name)) for name in type(mac).__dataclass_fields__]
    return "# The engine's parameters\n\n" + _table(("parameter", "value"), rows)


PAGES = {
    "parameters": _parameters_page,
    "ports": _ports_page,
    "descriptor": _descriptor_page,
    "streams": _streams_page,
    "memory": _memory_page,
}
"""The pages by name."""


def pages(engine: Engine) -> dict[str, str]:
    """The text of all pages of an engine."""
    return {name: page(engine) for name, page in PAGES.items()}
