"""The synthesis flows: one module to two-input gates, and to ALMs with and without DSP blocks.

Each takes one module as `top`, its submodules as empty boxes named ``box_...``, which are left out of the counts.
"""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from .alm import tally
from .depth import own_paths
from .yosys import Flow

__all__ = ["ALM_FAMILY", "FLIP_FLOP", "MEMORY", "TWO_INPUT", "flows", "gate_netlist"]

ALM_FAMILY = "cyclonev"
"""The family whose ALM mapping Yosys has; Stratix 10's ALM is of the same kind."""

TWO_INPUT = ("AND", "NAND", "OR", "NOR", "XOR", "XNOR")
FLIP_FLOP = "$_DFF_P_"
MEMORY = "$mem_v2"

_BOX = "box_"


def _stat(folder: Path, top: str) -> dict[str, Any]:
    """What `stat -json` says of the module; names without RTLIL's backslash."""
    modules: dict[str, dict[str, Any]] = json.loads((folder / "stat.json").read_text())["modules"]
    return {name.lstrip("\\"): stat for name, stat in modules.items()}[top]


def _netlist(folder: Path, top: str) -> dict[str, Any]:
    modules: dict[str, dict[str, Any]] = json.loads((folder / "netlist.json").read_text())["modules"]
    return modules[top]


def _parse_gates(folder: Path, top: str) -> dict[str, Any]:
    stat = _stat(folder, top)
    # Yosys marks a number without the cells that it has no transistor count for; it would be too low.
    if stat["estimated_num_transistors"].endswith("+"):
        raise AssertionError(f"every cell must have a transistor count, not so in {stat['num_cells_by_type']}")
    return {
        "cells": stat["num_cells_by_type"],
        "transistors": int(stat["estimated_num_transistors"]),
        "paths": own_paths(_netlist(folder, top)).to_json(),
    }


def _parse_alm(folder: Path, top: str) -> dict[str, Any]:
    cells = [cell for cell in _netlist(folder, top)["cells"].values() if not cell["type"].startswith(_BOX)]
    return {"cells": dict(Counter(cell["type"] for cell in cells)), "tally": list(tally(cells))}


# Yosys's default script with `ifraig` in place of `&fraig -x`, which takes minutes on a wide
# multiplier and changes no count of the blocks here; `dretime` has nothing to do without flip-flops.
_ABC = "+strash;ifraig;scorr;dc2;strash;&get,-n;&dch,-f;&nf;&put"

# The flip-flops are brought to the one kind that the transistor table knows, and no later pass may
# give them an enable or a reset back. Memories are taken out before counting: they are bits. A table of
# constants is none (`-norom`): it is logic.
_GATES = f"""\
read_rtlil design.il
hierarchy -check -top {{top}}
%s
proc -norom
synth -top {{top}} -run begin:fine
opt -fast -full
techmap
dfflegalize -cell {FLIP_FLOP} 01
opt -fast -nodffe -nosdff
abc -script {_ABC} -g {",".join(TWO_INPUT)}
opt -fast -nodffe -nosdff
opt_clean -purge
delete t:{MEMORY}
write_json netlist.json
delete t:{_BOX}*
tee -q -o stat.json stat -json -tech cmos
"""


def _parse_netlist(folder: Path, top: str) -> dict[str, Any]:
    """The mapped gates themselves, nets by number, constants as Yosys writes them: "0", "1", "x"."""
    netlist = _netlist(folder, top)
    gates, flip_flops = [], []
    for cell in netlist["cells"].values():
        nets = {port: bits[0] for port, bits in cell["connections"].items()}
        if cell["type"] == FLIP_FLOP:
            flip_flops.append([nets["D"], nets["Q"]])
        else:
            gates.append([cell["type"].strip("$_"), nets["A"], nets.get("B", nets["A"]), nets["Y"]])
    ports = {name: [about["direction"], about["bits"]] for name, about in netlist["ports"].items()}
    init = {
        net: int(bit)
        for about in netlist["netnames"].values()
        if "init" in about.get("attributes", {})
        for net, bit in zip(about["bits"], reversed(about["attributes"]["init"]), strict=False)
        if bit in "01"
    }
    return {"ports": ports, "gates": gates, "flip_flops": flip_flops, "init": list(init.items())}


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

# The steps that would map memories, to device blocks or to flip-flops, are left out. Amaranth's names are
# hidden because `abc9` makes up names of its own and fails where one is taken.
_ALM = f"""\
read_rtlil design.il
hierarchy -check -top {{top}}
%s
rename -hide w:*
proc -norom
opt
wreduce
opt_clean
techmap -map adders.v
opt_clean
synth_intel_alm -family {ALM_FAMILY} -top {{top}} -noflatten -noiopad -noclkbuf %s -run begin:map_bram
synth_intel_alm -family {ALM_FAMILY} -top {{top}} -noflatten -noiopad -noclkbuf %s -run map_ffs:check
blackbox =A:whitebox
write_json netlist.json
"""


@cache
def flows(flat: bool) -> tuple[Flow, Flow, Flow]:
    """Gates, ALMs without DSP blocks, ALMs with."""
    first, suffix = ("flatten", "-flat") if flat else ("", "")
    return (
        Flow(f"two-input-gates{suffix}", _GATES % first, _parse_gates),
        Flow(f"alm-{ALM_FAMILY}-nodsp{suffix}", _ALM % (first, "-nodsp", "-nodsp"), _parse_alm, {"adders.v": _ADDERS}),
        Flow(f"alm-{ALM_FAMILY}-dsp{suffix}", _ALM % (first, "", ""), _parse_alm, {"adders.v": _ADDERS}),
    )


@cache
def gate_netlist() -> Flow:
    """The flattened design as two-input gates, to be evaluated: the flow of the gate counts, with another answer."""
    return Flow("two-input-gates-netlist", _GATES % "flatten", _parse_netlist)
