"""Runs a component on Icarus Verilog under cocotb: packed inputs in, packed outputs and times out."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import stream, wiring

from .bench import Layout
from .verilog import to_verilog

__all__ = ["Interface", "SimulationError", "SimulationRecord", "interface_of", "run_cocotb", "simulate"]

TOP = "bench"
BENCH_MODULE = Path(__file__).with_name("cocotb_bench.py")
MOST_COPIES = 64
ROWS = 1024
"""Rows that a combinational bench aims for: more vectors are spread over copies of the block."""


class SimulationError(Exception):
    """The simulator did not finish its bench: the message is the end of its log."""


@dataclass(frozen=True, slots=True)
class Interface:
    """The ports of a component: of the streams `i` and `o`, or of a combinational block."""

    inputs: Layout
    outputs: Layout
    streaming: bool


@dataclass(frozen=True, slots=True)
class SimulationRecord:
    """What the simulator saw: output bits (vectors, bits), cycles, times, a breach of the rules."""

    outputs: np.ndarray
    cycles: int
    violation: str | None
    accepted: list[int]
    delivered: list[int]


def interface_of(component: wiring.Component) -> Interface:
    """The layouts of a component's ports, by its signature."""
    members = dict(component.signature.members)
    if set(members) == {"i", "o"} and all(
        isinstance(member.signature, stream.Signature) for member in members.values()
    ):
        inputs, outputs = (getattr(component, name).payload.shape().members for name in ("i", "o"))
        return Interface(Layout.of(inputs), Layout.of(outputs), True)
    inputs = {name: member.shape for name, member in members.items() if member.flow == wiring.In}
    outputs = {name: member.shape for name, member in members.items() if member.flow == wiring.Out}
    return Interface(Layout.of(inputs), Layout.of(outputs), False)


def _copies(vectors: int) -> int:
    copies = 1
    while copies < MOST_COPIES and vectors > copies * ROWS:
        copies *= 2
    return copies


def _side_by_side(interface: Interface, copies: int) -> str:
    """Verilog of `copies` blocks behind one wide input and one wide output."""
    ports = []
    for bus, layout in (("x", interface.inputs), ("y", interface.outputs)):
        at = 0
        for field in layout.fields:
            width = field.bits * field.elements
            ports.append(f".{field.name}({bus}[k*{layout.bits}+{at} +: {width}])")
            at += width
    return (
        f"module {TOP}(input [{copies * interface.inputs.bits - 1}:0] x,\n"
        f"             output [{copies * interface.outputs.bits - 1}:0] y);\n"
        f"  genvar k;\n  generate for (k = 0; k < {copies}; k = k + 1) begin : copy\n"
        f"    block u({', '.join(ports)});\n"
        f"  end endgenerate\nendmodule\n"
    )


def _runner(module: Path, directory: Path) -> Any:
    """A cocotb runner whose simulator imports a bench module by itself.

    Imported as part of its package, it would load the whole package, whose compiled kernels take
    longer to import than most benches to run.
    """
    from cocotb_tools.runner import Icarus

    class Runner(Icarus):  # type: ignore[misc]
        def _set_env_test(self) -> None:
            super()._set_env_test()
            self.env["PYTHONPATH"] = os.pathsep.join((str(directory), self.env["PYTHONPATH"]))

    shutil.copy(module, directory)
    return Runner()


def run_cocotb(module: Path, test: str, verilog: str, top: str, directory: Path) -> dict[str, Any]:
    """Run a test of a bench module on Verilog; return what it left in `record.json`.

    `directory` holds what the test reads, and takes the simulation's files. Raises `SimulationError` where
    there is no record in the end.
    """
    source, log, record = directory / f"{top}.v", directory / "simulation.log", directory / "record.json"
    source.write_text(verilog)
    runner = _runner(module, directory)
    timescale = ("1ns", "1ps")
    try:
        runner.build(
            sources=[source],
            hdl_toplevel=top,
            build_dir=directory,
            timescale=timescale,
            log_file=directory / "build.log",
            always=True,
            # In SystemVerilog an initial value is no event, so the `always @*` blocks that Yosys writes,
            # which count on one, would stay undefined until an input changes.
            build_args=["-g2005"],
        )
        runner.test(
            test_module=module.stem,
            hdl_toplevel=top,
            test_dir=directory,
            testcase=test,
            timescale=timescale,
            log_file=log,
            results_xml=str(directory / "results.xml"),
        )
    except (RuntimeError, SystemExit):
        # The runner's own verdict depends on who calls it; the record decides.
        pass
    if not record.exists():
        text = "\n".join(file.read_text() for file in (directory / "build.log", log) if file.exists())
        raise SimulationError(_last_error(text))
    content: dict[str, Any] = json.loads(record.read_text())
    return content


def simulate(component: wiring.Component, stimulus: np.ndarray, seed: int, directory: Path) -> SimulationRecord:
    """Send packed inputs (uint8 of shape (vectors, bits)) through a component.

    `directory` is an empty folder for the simulation's files. Raises `SimulationError` where the
    simulator fails; a breach of the stream rules is part of the record.
    """
    interface = interface_of(component)
    vectors = len(stimulus)
    copies = 1 if interface.streaming else _copies(vectors)
    if interface.streaming:
        verilog = to_verilog(component, TOP)
    else:
        verilog = to_verilog(component, "block") + _side_by_side(interface, copies)

    # The last row is filled up with its last vector.
    rows = np.pad(stimulus, ((0, -vectors % copies), (0, 0)), mode="edge").reshape(-1, copies * stimulus.shape[1])
    np.save(directory / "stimulus.npy", np.packbits(rows, axis=1, bitorder="little"))
    out_bits = copies * interface.outputs.bits
    (directory / "run.json").write_text(json.dumps({"out_bits": out_bits, "seed": seed}))

    record = run_cocotb(BENCH_MODULE, "streaming" if interface.streaming else "combinational", verilog, TOP, directory)
    packed = np.unpackbits(np.load(directory / "outputs.npy"), axis=1, bitorder="little")[:, :out_bits]
    outputs = packed.reshape(-1, interface.outputs.bits)
    return SimulationRecord(outputs[: None if interface.streaming else vectors], **record)


def _last_error(text: str) -> str:
    """The line of a simulator's log that says why it stopped."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or ["the simulator wrote no log"])[-1]
