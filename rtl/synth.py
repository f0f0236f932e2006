"""Gate counts: what a block costs, in two-input gates and in Stratix-10-style ALMs.

Every distinct module is synthesised once and the counts are summed over the hierarchy; a
hierarchical block's report also says what a flattened small case of it costs either way. Each
count stands with the tool's version, the flow's name and hash and the RTL's hash, because counts
move by tens of percent between tool versions.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .alm import AlmBounds, pack
from .blocks import Block, Settings, block_named
from .hierarchy import Design, parse_design
from .verilog import to_rtlil
from .yosys import Flow, run_flow, tool_version

__all__ = [
    "ALM_FAMILY",
    "STRATIX_10_GX_2800",
    "AlmCount",
    "Device",
    "FlatCheck",
    "GateCount",
    "MemoryCount",
    "ModuleCount",
    "SynthReport",
    "synthesize",
]

TRANSISTORS_PER_GATE_EQUIVALENT = 4
"""A two-input NAND."""

ALM_FAMILY = "cyclonev"
"""The family whose ALM mapping Yosys has; Stratix 10's ALM is of the same kind."""

ALMS_PER_MLAB = 10

_TWO_INPUT = ("AND", "NAND", "OR", "NOR", "XOR", "XNOR")
_FLIP_FLOP = "$_DFF_P_"


@dataclass(frozen=True, slots=True)
class Device:
    """What a device has."""

    name: str
    alms: int
    dsps: int
    m20ks: int


STRATIX_10_GX_2800 = Device("Stratix 10 GX 2800", 933_120, 5_760, 11_721)


@dataclass(frozen=True, slots=True)
class GateCount:
    """Two-input gates after technology mapping, inverters and flip-flops apart."""

    two_input: int
    by_type: dict[str, int]
    inverters: int
    flip_flops: int
    transistors: int
    depth: int
    """Gates and inverters on the longest path between registers or ports."""

    @property
    def equivalents(self) -> float:
        """Gate equivalents: CMOS transistors in units of a two-input NAND."""
        return self.transistors / TRANSISTORS_PER_GATE_EQUIVALENT


@dataclass(frozen=True, slots=True)
class AlmCount:
    """ALUTs by inputs, carry bits, registers and DSP blocks, and the ALMs that they pack into."""

    aluts: dict[int, int]
    carry_bits: int
    registers: int
    multipliers: dict[str, int]
    bounds: AlmBounds

    @property
    def alut_total(self) -> int:
        """ALUTs of any size, carry bits apart."""
        return sum(self.aluts.values())

    @property
    def dsps(self) -> int:
        """DSP blocks: two multipliers up to 18 x 19, or one of 27 x 27, each."""
        wide = self.multipliers.get("27x27", 0)
        return wide + -(-(sum(self.multipliers.values()) - wide) // 2)


@dataclass(frozen=True, slots=True)
class MemoryCount:
    """Memories, which stay memories: bits, and the blocks that hold them."""

    bits: int
    m20ks: int
    mlabs: int


@dataclass(frozen=True, slots=True)
class ModuleCount:
    """One distinct module's own cells, its submodules apart."""

    name: str
    instances: int
    gates: int
    inverters: int
    flip_flops: int
    aluts: int
    carry_bits: int


@dataclass(frozen=True, slots=True)
class FlatCheck:
    """A small case of a hierarchical block, counted as a sum over the hierarchy and flattened."""

    params: dict[str, int | bool | str]
    gates_sum: int
    gates_flat: int
    aluts_sum: int
    aluts_flat: int
    """ALUTs and carry bits."""


@dataclass(frozen=True, slots=True)
class SynthReport:
    """What a block costs, and everything needed to count it again."""

    block: str
    params: dict[str, int | bool | str]
    tool: str
    flows: dict[str, str]
    rtl_sha256: str
    gates: GateCount
    alm: AlmCount
    """With DSP blocks forbidden."""
    alm_dsp: AlmCount
    """With DSP blocks allowed."""
    memory: MemoryCount
    modules: list[ModuleCount]
    flat_check: FlatCheck | None

    @property
    def method(self) -> str:
        """How the counts were made."""
        return "flat" if len(self.modules) == 1 else "sum over the hierarchy"

    def device_share(self, device: Device = STRATIX_10_GX_2800) -> dict[str, float]:
        """Fractions of a device, with DSP blocks forbidden (`alm_low`, `alm_high`) and allowed."""
        mlab_alms = ALMS_PER_MLAB * self.memory.mlabs
        return {
            "alm_low": (self.alm.bounds.low + mlab_alms) / device.alms,
            "alm_high": (self.alm.bounds.high + mlab_alms) / device.alms,
            "dsp": self.alm_dsp.dsps / device.dsps,
            "m20k": self.memory.m20ks / device.m20ks,
        }

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "schema": 1,
            "block": self.block,
            "params": self.params,
            "method": self.method,
            "tool": self.tool,
            "flows": self.flows,
            "rtl_sha256": self.rtl_sha256,
            "gates": asdict(self.gates) | {"equivalents": self.gates.equivalents},
            "alm": _alm_json(self.alm),
            "alm_dsp": _alm_json(self.alm_dsp),
            "alm_family": ALM_FAMILY,
            "memory": asdict(self.memory),
            "device": STRATIX_10_GX_2800.name,
            "device_share": self.device_share(),
            "modules": [asdict(module) for module in self.modules],
            "flat_check": None if self.flat_check is None else asdict(self.flat_check),
        }


def _alm_json(count: AlmCount) -> dict[str, Any]:
    return {
        "aluts": {str(size): number for size, number in count.aluts.items()},
        "alut_total": count.alut_total,
        "carry_bits": count.carry_bits,
        "registers": count.registers,
        "multipliers": count.multipliers,
        "dsps": count.dsps,
        "alms_low": count.bounds.low,
        "alms_high": count.bounds.high,
    }


def _cells(folder: Path, file: str) -> dict[str, Any]:
    """Cells by type of every module, from `stat -json`; names without RTLIL's backslash."""
    modules = json.loads((folder / file).read_text())["modules"]
    return {name.lstrip("\\"): stat for name, stat in modules.items()}


def _parse_gates(folder: Path, top: str) -> dict[str, Any]:
    stats = _cells(folder, "stat.json")
    transistors = {name: stat["estimated_num_transistors"] for name, stat in stats.items()}
    # Yosys marks cells that it has no transistor count for; a total without them would be too low.
    uncounted = [name for name, count in transistors.items() if count.endswith("+")]
    if uncounted:
        raise AssertionError(f"every cell must have a transistor count, not so in {', '.join(uncounted)}")
    depth = re.search(r"\(length=(\d+)\)", (folder / "depth.txt").read_text())
    return {
        "cells": {name: stat["num_cells_by_type"] for name, stat in stats.items()},
        # A module's number includes its submodules'.
        "transistors": int(transistors[top]),
        "depth": int(depth[1]) if depth else 0,
    }


def _parse_alm(folder: Path, top: str) -> dict[str, Any]:
    netlist = json.loads((folder / "flat.json").read_text())["modules"][top]
    return {
        "cells": {name: stat["num_cells_by_type"] for name, stat in _cells(folder, "stat.json").items()},
        "bounds": pack(netlist["cells"].values()),
    }


# Yosys's default script with `ifraig` in place of `&fraig -x`, which takes minutes on a wide
# multiplier and changes no count of the blocks here; `dretime` has nothing to do without flip-flops.
_ABC = "+strash;ifraig;scorr;dc2;strash;&get,-n;&dch,-f;&nf;&put"

# The flip-flops are brought to the one kind that the transistor table knows, and no later pass may
# give them an enable or a reset back. Memories are taken out before counting: they are bits.
_GATES = f"""\
read_rtlil design.il
hierarchy -check -top {{top}}
%s
synth -top {{top}} -run begin:fine
opt -fast -full
techmap
dfflegalize -cell {_FLIP_FLOP} 01
opt -fast -nodffe -nosdff
abc -script {_ABC} -g {",".join(_TWO_INPUT)}
opt -fast -nodffe -nosdff
opt_clean -purge
delete t:$mem_v2
tee -q -o stat.json stat -json -tech cmos
flatten
opt_clean -purge
tee -q -o depth.txt ltp -noff
"""

# Left to itself, Yosys fuses adders that feed adders into compressor trees of plain logic, which
# never reach the carry chains. Adders of eight bits and fewer are cheaper so; wider ones are not.
_ADDERS = r"""
(* techmap_celltype = "$add $sub" *)
module carry_adder (A, B, Y);
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter B_WIDTH = 1;
  parameter Y_WIDTH = 1;
  parameter _TECHMAP_CELLTYPE_ = "";
  (* force_downto *) input [A_WIDTH-1:0] A;
  (* force_downto *) input [B_WIDTH-1:0] B;
  (* force_downto *) output [Y_WIDTH-1:0] Y;
  wire _TECHMAP_FAIL_ = Y_WIDTH <= 8;
  localparam [0:0] SUBTRACT = _TECHMAP_CELLTYPE_ == "$sub";
  wire [Y_WIDTH-1:0] X, CO;
  \$alu #(.A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED), .A_WIDTH(A_WIDTH), .B_WIDTH(B_WIDTH), .Y_WIDTH(Y_WIDTH))
    _TECHMAP_REPLACE_ (.A(A), .B(B), .CI(SUBTRACT), .BI(SUBTRACT), .X(X), .Y(Y), .CO(CO));
endmodule
"""

# The steps that would map memories, to device blocks or to flip-flops, are left out.
_ALM = f"""\
read_rtlil design.il
hierarchy -check -top {{top}}
%s
proc
opt
wreduce
opt_clean
techmap -map adders.v
opt_clean
synth_intel_alm -family {ALM_FAMILY} -top {{top}} -noflatten -noiopad -noclkbuf %s -run begin:map_bram
synth_intel_alm -family {ALM_FAMILY} -top {{top}} -noflatten -noiopad -noclkbuf %s -run map_ffs:check
tee -q -o stat.json stat -json
flatten
opt_clean -purge
blackbox =A:whitebox
write_json flat.json
"""


def _flows(flat: bool) -> tuple[Flow, Flow, Flow]:
    """Gates, ALMs without DSP blocks, ALMs with."""
    first, suffix = ("flatten", "-flat") if flat else ("", "")
    return (
        Flow(f"two-input-gates{suffix}", _GATES % first, _parse_gates),
        Flow(f"alm-{ALM_FAMILY}-nodsp{suffix}", _ALM % (first, "-nodsp", "-nodsp"), _parse_alm, {"adders.v": _ADDERS}),
        Flow(f"alm-{ALM_FAMILY}-dsp{suffix}", _ALM % (first, "", ""), _parse_alm, {"adders.v": _ADDERS}),
    )


def _sum(design: Design, cells: dict[str, dict[str, int]]) -> Counter[str]:
    """Cells by type of the whole design: each module's own times its instances."""
    total: Counter[str] = Counter()
    for name, types in cells.items():
        for kind, number in types.items():
            total[kind] += number * design.instances[name]
    return Counter({kind: number for kind, number in total.items() if kind not in cells})


def _gate_kinds(cells: Counter[str]) -> dict[str, int]:
    return {kind: cells[f"$_{kind}_"] for kind in _TWO_INPUT if cells[f"$_{kind}_"]}


def _gate_count(design: Design, found: dict[str, Any]) -> GateCount:
    cells = _sum(design, found["cells"])
    by_type = _gate_kinds(cells)
    count = GateCount(
        two_input=sum(by_type.values()),
        by_type=by_type,
        inverters=cells["$_NOT_"],
        flip_flops=cells[_FLIP_FLOP],
        transistors=found["transistors"],
        depth=found["depth"],
    )
    _check_all_counted(cells, count.two_input + count.inverters + count.flip_flops)
    return count


def _aluts(cells: Counter[str]) -> dict[int, int]:
    """ALUTs by inputs; an inverter that no reader absorbs is one of one input."""
    sizes = {1: cells["MISTRAL_NOT"]} | {size: cells[f"MISTRAL_ALUT{size}"] for size in range(2, 7)}
    return {size: number for size, number in sizes.items() if number}


def _alm_count(design: Design, found: dict[str, Any]) -> AlmCount:
    cells = _sum(design, found["cells"])
    sizes = {"27x27": "MISTRAL_MUL27X27", "18x18": "MISTRAL_MUL18X18", "9x9": "MISTRAL_MUL9X9"}
    count = AlmCount(
        aluts=_aluts(cells),
        carry_bits=cells["MISTRAL_ALUT_ARITH"],
        registers=cells["MISTRAL_FF"],
        multipliers={size: cells[kind] for size, kind in sizes.items() if cells[kind]},
        bounds=AlmBounds(*found["bounds"]),
    )
    memories = cells["$mem_v2"]
    _check_all_counted(
        cells, count.alut_total + count.carry_bits + count.registers + sum(count.multipliers.values()) + memories
    )
    return count


def _check_all_counted(cells: Counter[str], counted: int) -> None:
    if counted != cells.total():
        raise AssertionError(f"every cell must be of a counted kind, not {dict(cells)}")


def _module_counts(design: Design, gates: dict[str, Any], alm: dict[str, Any]) -> list[ModuleCount]:
    modules = []
    for name, instances in design.instances.items():
        cells, mapped = Counter(gates["cells"].get(name, {})), Counter(alm["cells"].get(name, {}))
        modules.append(
            ModuleCount(
                name=name,
                instances=instances,
                gates=sum(_gate_kinds(cells).values()),
                inverters=cells["$_NOT_"],
                flip_flops=cells[_FLIP_FLOP],
                aluts=sum(_aluts(mapped).values()),
                carry_bits=mapped["MISTRAL_ALUT_ARITH"],
            )
        )
    return modules


def _design(block: Block, settings: Settings) -> Design:
    _, component = block.create(settings)
    return parse_design(to_rtlil(component, block.name), block.name)


def _flat_check(block: Block, run: Callable[[Flow, Design], dict[str, Any]]) -> FlatCheck | None:
    if block.small is None:
        return None
    design = _design(block, block.small)
    sums, flats = (
        (_gate_count(design, run(gates, design)), _alm_count(design, run(alm, design)))
        for gates, alm, _ in (_flows(flat=False), _flows(flat=True))
    )
    return FlatCheck(
        params=block.settings(block.small),
        gates_sum=sums[0].two_input,
        gates_flat=flats[0].two_input,
        aluts_sum=sums[1].alut_total + sums[1].carry_bits,
        aluts_flat=flats[1].alut_total + flats[1].carry_bits,
    )


def synthesize(
    block: str,
    settings: Settings | None = None,
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
) -> SynthReport:
    """Count what a block costs.

    Parameters
    ----------
    block, settings : name in the registry and its ``name: value`` settings
    cache : folder of earlier results, by default the user's cache
    notice : told what is being run

    >>> synthesize("multiplier", {"product": 6}).gates.two_input  # doctest: +SKIP
    """
    tool = tool_version()
    entry = block_named(block)
    given = {} if settings is None else settings
    merged = entry.settings(given)
    design = _design(entry, given)

    def run(flow: Flow, design: Design) -> dict[str, Any]:
        return run_flow(flow, design.rtlil, design.top, cache, notice)

    flows: Sequence[Flow] = _flows(flat=False)
    gates, alm, alm_dsp = (run(flow, design) for flow in flows)
    memories = design.all_memories()
    return SynthReport(
        block=block,
        params=merged,
        tool=tool,
        flows={flow.name: flow.sha256 for flow in flows},
        rtl_sha256=design.sha256,
        gates=_gate_count(design, gates),
        alm=_alm_count(design, alm),
        alm_dsp=_alm_count(design, alm_dsp),
        memory=MemoryCount(
            bits=sum(memory.bits for memory in memories),
            m20ks=sum(memory.m20ks for memory in memories),
            mlabs=sum(memory.mlabs for memory in memories),
        ),
        modules=_module_counts(design, gates, alm),
        flat_check=_flat_check(entry, run),
    )
