"""EngineConfig: the parameters of the accelerator, from TOML or as an object."""

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..kernels.digits import BYTE_BITS
from ..kernels.errors import FormatError
from ..kernels.fusion import BRICKS, SLICE_BITS
from ..kernels.mac import DIGIT_BITS, MacFormat
from ..kernels.planes import MAX_PLANE_ACC
from .validation import first_problem

__all__ = ["Array", "EngineConfig"]

PREFETCH_MARGIN = 4
"""Words of prefetch beyond the bus latency that keep one word a cycle coming."""

CHUNK_BITS = 32
"""What a decoder takes at a time."""
XOR_WIDTH = 32
"""Most inputs, and most outputs, of an XOR network in an engine."""
XOR_NETWORKS = 4
"""Different XOR networks of a layer in an engine."""

Array = Literal["digit", "fusion", "sign", "shift"]
Decoder = Literal["raw", "huffman", "xor"]


class EngineConfig(BaseModel):
    """A weight-stationary dot-product engine; sizes are in the units that the names say.

    `rows` output channels meet `lanes` input channels in every cycle, in a fused array up to four times as many; each
    row keeps `pixels` accumulators in each of two halves, which `post_lanes` requantisers empty. Activations live in
    `act_banks` on-chip banks of `act_bytes` in all; weights stream over a bus of `bus_bits`
    that answers after `bus_latency` cycles. `array` is what a lane of a row makes of a weight, `decoder` how
    weights stream. `operand_bits` are those of the widest weights and activations that the array takes.
    `clock_mhz` is an assumption, never a result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    rows: int = 16
    lanes: int = 16
    pixels: Annotated[int, Field(ge=16, le=1024)] = 256
    post_lanes: Annotated[int, Field(ge=1)] = 0
    act_bytes: Annotated[int, Field(ge=1024, le=1 << 32)] = 2 << 20
    act_banks: Annotated[int, Field(ge=2, le=64)] = 4
    array: Array = "digit"
    operand_bits: Literal[8, 16] = 8
    decoder: Decoder = "raw"
    bus_bits: int = 128
    bus_latency: Annotated[int, Field(ge=0, le=200)] = 20
    prefetch_words: Annotated[int, Field(ge=2, le=4096)] = 32
    clock_mhz: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 200.0
    mac: MacFormat = MacFormat()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """What follows from the rest where nothing is said.

        Half the rows as post lanes: one costs as much as dozens of PEs. As many words of prefetch as keep
        the bus busy.
        """
        if isinstance(data, dict):
            rows, lanes, latency = (data.get(*item) for item in (("rows", 16), ("lanes", 16), ("bus_latency", 20)))
            sizes = isinstance(rows, int) and isinstance(lanes, int)
            post = max(1, min(rows // 2, lanes)) if sizes else 1
            prefetch = max(32, latency + PREFETCH_MARGIN) if isinstance(latency, int) else 32
            data = {"post_lanes": post, "prefetch_words": prefetch, **data}
        return data

    @field_validator("rows", "lanes")
    @classmethod
    def _check_power(cls, value: int) -> int:
        if value not in (4, 8, 16, 32, 64):
            raise ValueError(f"must be a power of two from 4 to 64, not {value}")
        return value

    @field_validator("bus_bits")
    @classmethod
    def _check_bus(cls, value: int) -> int:
        if value not in (8, 16, 32, 64, 128, 256, 512):
            raise ValueError(f"must be a power of two from 8 to 512, not {value}")
        return value

    @field_validator("mac", mode="before")
    @classmethod
    def _read_mac(cls, value: Any) -> Any:
        if isinstance(value, dict):
            known = MacFormat.__dataclass_fields__
            for key in value:
                if key not in known:
                    raise ValueError(f"must have only {', '.join(known)}, not {key!r}")
            try:
                return MacFormat(**value)
            except FormatError as error:
                raise ValueError(str(error).removeprefix("mac ")) from error
        return value

    @model_validator(mode="after")
    def _check_sizes(self) -> "EngineConfig":
        most = min(self.rows, self.lanes)
        if self.post_lanes > most or self.post_lanes & (self.post_lanes - 1):
            raise ValueError(
                f"post_lanes must be a power of two from 1 to the lesser of rows and lanes ({most}), "
                f"not {self.post_lanes}"
            )
        if self.decoder != "raw" and self.bus_bits < CHUNK_BITS:
            name = {"huffman": "a Huffman", "xor": "an XOR"}[self.decoder]
            raise ValueError(f"bus_bits must be at least {CHUNK_BITS} with {name} decoder, not {self.bus_bits}")
        if self.array == "sign" and self.mac.acc > MAX_PLANE_ACC:
            raise ValueError(f"mac acc must be at most {MAX_PLANE_ACC} in a sign array, not {self.mac.acc}")
        if self.wide and self.array != "digit":
            raise ValueError(f"operand_bits must be {BYTE_BITS} in a {self.array} array, not {self.operand_bits}")
        least = self.bus_latency + PREFETCH_MARGIN
        if self.prefetch_words < least:
            raise ValueError(
                f"prefetch_words must be at least bus_latency + {PREFETCH_MARGIN} ({least}), not {self.prefetch_words}"
            )
        return self

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise FormatError(f"engine: {first_problem(error)}") from error

    @property
    def aligns(self) -> bool:
        """Whether PEs multiply digits: their products are limited, aligned and counted, as `mac` says."""
        return self.array in ("digit", "fusion")

    @property
    def most_lanes(self) -> int:
        """Input channels that a row reduces in a step at most: a fused array's narrow operands share its PEs."""
        return self.lanes * (BRICKS if self.array == "fusion" else 1)

    @property
    def products(self) -> int:
        """Products that the array can make in a cycle: a digit's for each PE, of a fused one those of 2-bit bricks."""
        return self.rows * self.most_lanes

    @property
    def has_parts(self) -> bool:
        """Whether the array takes weights in parts, each with a weight tile of its own: bytes in a digit array."""
        return self.array in ("sign", "shift") or self.wide

    @property
    def wide(self) -> bool:
        """Whether operands may have more than 8 bits."""
        return self.operand_bits > BYTE_BITS

    @property
    def word_digits(self) -> int:
        """Digits of a word of the activation memory, W: as many as the PEs of a row have activation registers for."""
        return 2 * self.lanes if self.array == "fusion" else self.lanes

    @property
    def word_bits(self) -> int:
        """Bits of a word of the activation memory."""
        return self.word_digits * DIGIT_BITS

    @property
    def enable_bits(self) -> int:
        """Bits of a word of the activation memory that are written together: those of the narrowest code's slot."""
        return SLICE_BITS if self.array == "fusion" else DIGIT_BITS

    @property
    def word_enables(self) -> int:
        """Write enables of a word of the activation memory."""
        return self.word_bits // self.enable_bits

    @classmethod
    def load(cls, path: str | Path) -> "EngineConfig":
        """Read a TOML file whose keys are this class's fields, with a table ``[mac]`` for the widths."""
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise FormatError(f"{path}: the engine file must be readable: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: must be TOML: {error}") from error
        try:
            return cls(**settings)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return {**self.model_dump(exclude={"mac"}), "mac": asdict(self.mac)}

    def with_mac(self, mac: MacFormat) -> "EngineConfig":
        """The same engine with other datapath widths."""
        return self.model_copy(update={"mac": mac})
