"""The simulator side of a bench: runs inside Icarus, under cocotb, and knows no arithmetic.

`run.json` in the working directory says what to do; `stimulus.npy` holds one packed input a row.
The outputs go to `outputs.npy`, the times and any breach of the stream rules to `record.json`.
"""

import json
import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer
from cocotb.utils import get_sim_time

__all__ = ["PERIOD_NS", "UNSTALLED", "StreamDriver", "StreamMonitor", "combinational", "streaming"]

PERIOD_NS = 10
UNSTALLED = 64
"""Cycles at the start in which nothing stalls: latency and throughput are read off them."""

PATIENCE = 2000
"""Cycles without a transfer after which the block counts as hung."""

# Chances of offering an input and of accepting an output, drawn anew for each spell of cycles.
SPELLS = ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (0.4, 0.4), (1.0, 0.15), (0.15, 1.0))
SPELL_CYCLES = 48


def cycle_now() -> int:
    """Clock cycles since the start of the simulation."""
    return int(get_sim_time("ns")) // PERIOD_NS


class Stalls:
    """Seeded decisions to stall; both sides see the same spell at the same cycle."""

    def __init__(self, seed: int, side: int) -> None:
        self.spells = random.Random(seed)
        self.coin = random.Random(seed + 1 + side)
        self.side = side
        self.start = cycle_now()
        self.chances = [1.0]

    def go(self) -> bool:
        """Whether this side takes part in the present cycle."""
        elapsed = cycle_now() - self.start
        if elapsed < UNSTALLED:
            return True
        while len(self.chances) <= (elapsed - UNSTALLED) // SPELL_CYCLES:
            self.chances.append(self.spells.choice(SPELLS)[self.side])
        return self.coin.random() < self.chances[(elapsed - UNSTALLED) // SPELL_CYCLES]


class StreamDriver:
    """Offers every payload once, holding it until it is accepted; `accepted` are the cycles."""

    def __init__(self, dut: Any, payloads: list[int], seed: int) -> None:
        self.dut, self.payloads = dut, payloads
        self.stalls = Stalls(seed, 0)
        self.accepted: list[int] = []

    async def run(self) -> None:
        """Drive on falling edges, so that every value is settled at the rising one."""
        dut = self.dut
        for payload in self.payloads:
            while not self.stalls.go():
                dut.i__valid.value = 0
                await FallingEdge(dut.clk)
            dut.i__valid.value = 1
            dut.i__payload.value = payload
            ready = False
            while not ready:
                await RisingEdge(dut.clk)
                ready = bool(dut.i__ready.value)
                cycle = cycle_now()
                await FallingEdge(dut.clk)
            self.accepted.append(cycle)
        dut.i__valid.value = 0


class StreamMonitor:
    """Accepts payloads at random times and checks that the block obeys the stream rules."""

    def __init__(self, dut: Any, count: int, seed: int) -> None:
        self.dut, self.count = dut, count
        self.stalls = Stalls(seed, 1)
        self.payloads: list[int] = []
        self.delivered: list[int] = []
        self.violation: str | None = None

    async def run(self) -> None:
        """Collect `count` payloads, then watch a while for one too many."""
        dut = self.dut
        waiting: int | None = None
        last = cycle_now()
        while self.violation is None:
            ready = self.stalls.go()
            dut.o__ready.value = ready
            await RisingEdge(dut.clk)
            cycle = cycle_now()
            valid = bool(dut.o__valid.value)
            payload = int(dut.o__payload.value) if valid else None
            if waiting is not None and payload != waiting:
                what = "changed its payload" if valid else "dropped valid"
                self.violation = f"output {len(self.payloads)} {what} while it waited, cycle {cycle}"
            if payload is not None and ready:
                if len(self.payloads) == self.count:
                    self.violation = f"output {self.count} is one more than the inputs, cycle {cycle}"
                self.payloads.append(payload)
                self.delivered.append(cycle)
                last = cycle
            waiting = payload if payload is not None and not ready else None
            if len(self.payloads) >= self.count and cycle - last > UNSTALLED:
                return
            if cycle - last > PATIENCE:
                self.violation = f"no output for {PATIENCE} cycles after {len(self.payloads)} of {self.count}"
            await FallingEdge(dut.clk)


def _read() -> tuple[dict[str, Any], list[int]]:
    stimulus = np.load("stimulus.npy")
    return json.loads(Path("run.json").read_text()), [int.from_bytes(row.tobytes(), "little") for row in stimulus]


def _write(payloads: list[int], bits: int, **record: object) -> None:
    size = -(-bits // 8)
    packed = b"".join(payload.to_bytes(size, "little") for payload in payloads)
    np.save("outputs.npy", np.frombuffer(packed, dtype=np.uint8).reshape(len(payloads), size))
    Path("record.json").write_text(json.dumps(record))


@cocotb.test()  # type: ignore[untyped-decorator]
async def combinational(dut: Any) -> None:
    """Apply a row of inputs, let it settle, read a row of outputs."""
    settings, inputs = _read()
    outputs = []
    for value in inputs:
        dut.x.value = value
        await Timer(1, "ns")
        outputs.append(int(dut.y.value))
    _write(outputs, settings["out_bits"], cycles=len(outputs), violation=None, accepted=[], delivered=[])


@cocotb.test()  # type: ignore[untyped-decorator]
async def streaming(dut: Any) -> None:
    """Stream every input through the block under random stalls on both sides."""
    settings, inputs = _read()
    dut.i__valid.value = 0
    dut.i__payload.value = 0
    dut.o__ready.value = 0
    dut.rst.value = 1
    Clock(dut.clk, PERIOD_NS, unit="ns").start()
    for _ in range(2):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    driver = StreamDriver(dut, inputs, settings["seed"])
    monitor = StreamMonitor(dut, len(inputs), settings["seed"])
    start = cycle_now()
    cocotb.start_soon(driver.run())
    await monitor.run()
    _write(
        monitor.payloads,
        settings["out_bits"],
        cycles=cycle_now() - start,
        violation=monitor.violation,
        accepted=driver.accepted,
        delivered=monitor.delivered,
    )
