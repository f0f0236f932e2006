"""The simulator side of the engine's bench: runs inside Icarus, under cocotb, and knows no arithmetic.

`run.json` in the working directory says what to do; `memory.npy` is the memory behind the bus, a word of
bytes a row. The memory as the engine leaves it goes to `memory_after.npy`, what was seen to `record.json`.
"""

import json
import random
from collections import deque
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

__all__ = ["Breach", "Hold", "PortMonitor", "ReadDriver", "WriteDriver", "engine"]

PERIOD_NS = 10
RESET_CYCLES = 2


class Breach(Exception):
    """The engine broke a rule of its bus."""


class Hold:
    """Checks that a payload that waits neither changes nor goes away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: int | None = None

    def sample(self, payload: int | None, ready: bool) -> None:
        """Look at a cycle; the payload is None where it is not valid."""
        if self.waiting is not None and payload != self.waiting:
            what = "dropped valid" if payload is None else "changed its payload"
            raise Breach(f"{self.name} {what} while it waited")
        self.waiting = None if ready else payload


class ReadDriver:
    """Answers requests in their order: one of cycle t is offered its word in cycle t + 1 + latency at the earliest."""

    def __init__(self, dut: Any, memory: list[int], latency: int, stall: float, seed: int) -> None:
        self.dut, self.memory, self.latency, self.stall = dut, memory, latency, stall
        self.requests, self.answers = random.Random(f"{seed} requests"), random.Random(f"{seed} answers")
        self.pending: deque[tuple[int, int]] = deque()
        self.hold = Hold("request")
        self.ready = self.offering = False
        self.words = 0

    def drive(self, cycle: int) -> None:
        """Set what the engine sees in a cycle; a word that is offered stays until it is taken."""
        self.ready = self.requests.random() >= self.stall
        due = bool(self.pending) and self.pending[0][1] <= cycle
        if not self.offering and due and self.answers.random() >= self.stall:
            self.offering = True
            self.dut.words__payload.value = self.memory[self.pending[0][0]]
        self.dut.request__ready.value = self.ready
        self.dut.words__valid.value = self.offering

    def sample(self, cycle: int) -> None:
        """Take what moves at the end of a cycle."""
        if self.offering and self.dut.words__ready.value:
            self.pending.popleft()
            self.offering = False
            self.words += 1
        address = int(self.dut.request__payload.value) if self.dut.request__valid.value else None
        self.hold.sample(address, self.ready)
        if address is not None and self.ready:
            if address >= len(self.memory):
                raise Breach(f"request must be of a word below {len(self.memory)}, not {address}")
            self.pending.append((address, cycle + 1 + self.latency))


class WriteDriver:
    """Takes words to be written, and puts them into the memory."""

    def __init__(self, dut: Any, memory: list[int], address_bits: int, stall: float, seed: int) -> None:
        self.dut, self.memory, self.address_bits, self.stall = dut, memory, address_bits, stall
        self.coin = random.Random(f"{seed} writes")
        self.hold = Hold("write")
        self.ready = False

    def drive(self, cycle: int) -> None:
        """Set what the engine sees in a cycle."""
        self.ready = self.coin.random() >= self.stall
        self.dut.write__ready.value = self.ready

    def sample(self, cycle: int) -> None:
        """Take what moves at the end of a cycle."""
        payload = int(self.dut.write__payload.value) if self.dut.write__valid.value else None
        self.hold.sample(payload, self.ready)
        if payload is not None and self.ready:
            address, word = payload % (1 << self.address_bits), payload >> self.address_bits
            if address >= len(self.memory):
                raise Breach(f"write must be to a word below {len(self.memory)}, not {address}")
            self.memory[address] = word


class PortMonitor:
    """Keeps some outputs, as numbers, in every cycle in which a strobe is not 0."""

    def __init__(self, dut: Any, strobe: str, outputs: list[str]) -> None:
        self.strobe = getattr(dut, strobe)
        self.outputs = {name: getattr(dut, name) for name in outputs}
        self.cycles: list[int] = []
        self.values: dict[str, list[int]] = {name: [] for name in outputs}

    def sample(self, cycle: int) -> None:
        """Look at the end of a cycle."""
        if int(self.strobe.value):
            self.cycles.append(cycle)
            for name, output in self.outputs.items():
                self.values[name].append(int(output.value))

    def to_json(self) -> dict[str, Any]:
        """What was kept."""
        return {"cycles": self.cycles, "values": self.values}


@cocotb.test()  # type: ignore[untyped-decorator]
async def engine(dut: Any) -> None:
    """Start the engine on a memory image, answer its bus, and watch until it is not busy, and some cycles more."""
    settings = json.loads(Path("run.json").read_text())
    image = np.load("memory.npy")
    memory = [int.from_bytes(row.tobytes(), "little") for row in image]
    chances = settings["stall"], settings["seed"]
    read = ReadDriver(dut, memory, settings["latency"], *chances)
    write = WriteDriver(dut, memory, settings["address_bits"], *chances)
    monitors = {strobe: PortMonitor(dut, strobe, outputs) for strobe, outputs in settings["records"].items()}

    for name in ("start", "base", "select", "request__ready", "words__valid", "words__payload", "write__ready"):
        getattr(dut, name).value = 0
    dut.rst.value = 1
    Clock(dut.clk, PERIOD_NS, unit="ns").start()
    for _ in range(RESET_CYCLES):
        await FallingEdge(dut.clk)
    dut.rst.value = 0

    violation: str | None = f"must be done within {settings['limit']} cycles"
    cycle, stop = 0, settings["limit"]
    while cycle < stop:
        dut.start.value = cycle == 0
        read.drive(cycle)
        write.drive(cycle)
        await RisingEdge(dut.clk)
        try:
            read.sample(cycle)
            write.sample(cycle)
            for monitor in monitors.values():
                monitor.sample(cycle)
        except Breach as breach:
            violation = str(breach)
            break
        if violation is not None and cycle > 0 and not dut.busy.value:
            violation = None
            done, stop = cycle + 1, cycle + 1 + settings["settling"]
        await FallingEdge(dut.clk)
        cycle += 1

    size = image.shape[1]
    after = b"".join(word.to_bytes(size, "little") for word in memory)
    np.save("memory_after.npy", np.frombuffer(after, dtype=np.uint8).reshape(image.shape))
    record = {
        "cycles": cycle if violation else done,
        "words_read": read.words,
        "error": int(dut.error.value),
        "error_layer": int(dut.error_layer.value),
        "current": int(dut.current.value),
        "violation": violation,
        "records": {strobe: monitor.to_json() for strobe, monitor in monitors.items()},
    }
    Path("record.json").write_text(json.dumps(record))
