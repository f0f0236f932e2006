"""The engine's bench on Icarus Verilog: its exported Verilog runs a small network from its memory image.

The driver side and the monitors are `cocotb_engine`; the model is the simulator: every digit that a layer writes,
every stored code, every overflow counter and, where the bus does not stall, every layer's cycles are its own.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Shape

from ...kernels.mac import MacFormat
from ...sim.builder import Grid, NetworkBuilder
from ...sim.compile import CompiledNetwork, compile_network
from ...sim.descriptor import ADDRESS_BITS
from ...sim.engine import EngineConfig
from ...sim.manifest import InputSpec
from ...sim.network import Network
from ..cxxrtl import Record
from ..export import verilog_text
from ..icarus import SimulationError, run_cocotb
from .cosim import SETTLING, WATCHED, EngineRun, NetworkComparison, check_error, compare_network, layer_text
from .engine import Engine

__all__ = ["BENCH_ENGINE", "STALL", "IcarusEngine", "bench_network", "compare_on_icarus"]

BENCH_MODULE = Path(__file__).parents[1] / "cocotb_engine.py"

BENCH_ENGINE = EngineConfig(
    rows=4,
    lanes=4,
    pixels=16,
    post_lanes=2,
    act_bytes=2048,
    bus_bits=8,
    bus_latency=5,
    mac=MacFormat(product=7, align=9, acc=12),
)
"""So narrow that the bench's network overflows everywhere."""

STALL = 0.3
"""Chance of each side of the bus to sit out a cycle in a run with stalls."""


def bench_network() -> Network:
    """Two convolutions, the second with the first one's result added: channels and pixels fill no tile."""
    rng = np.random.default_rng(1)

    def weights(bits: int, *shape: int) -> np.ndarray:
        return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)

    spec = InputSpec(shape=(3, 5, 6), bits=4, scale=0.1, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = NetworkBuilder("bench", spec)
    first = net.conv2d(
        "first",
        net.input,
        weights(4, 6, 3, 3, 3),
        bits=4,
        scale=0.1,
        zero_point=rng.uniform(-1, 1, 6),
        bias=rng.normal(0, 1, 6),
        padding=1,
        relu=True,
        out=Grid(0.1, 4, align="shift", amounts=np.array([0, 1, 2, 0, 3, 1])),
    )
    second = net.conv2d(
        "second",
        first,
        weights(6, 6, 6, 3, 3),
        bits=6,
        scale=0.1,
        zero_point=rng.uniform(-1, 1, 6),
        padding=1,
        out=Grid(0.5, 8, signed=True),
    )
    net.add("sum", second, first, out=Grid(0.5, 8, signed=True))
    return net.build()


class IcarusEngine:
    """A compiled network's engine on Icarus Verilog.

    Parameters
    ----------
    engine : the component; its config's bus latency is the bus's
    compiled : the network, for the same config
    stall : chance of each side of the bus to sit out a cycle, by `seed`
    """

    def __init__(self, engine: Engine, compiled: CompiledNetwork, *, stall: float = 0.0, seed: int = 0) -> None:
        self.compiled, self.stall, self.seed = compiled, stall, seed
        members = engine.signature.members
        names = {name for outputs in WATCHED.values() for name in outputs}
        self.bits = {name: Shape.cast(members[name].shape).width for name in names}
        self.verilog = verilog_text(engine, "engine")

    def run(self, codes: np.ndarray, limit: int) -> EngineRun:
        """Run one image's input codes (C, H, W) to the end, from reset on.

        Raises `SimulationError` where the engine is not done after `limit` cycles, reports an error, or breaks a rule
        of its bus.
        """
        compiled = self.compiled
        settings = {
            "latency": compiled.engine.bus_latency,
            "stall": self.stall,
            "seed": self.seed,
            "address_bits": ADDRESS_BITS,
            "limit": limit,
            "settling": SETTLING,
            "records": WATCHED,
        }
        with tempfile.TemporaryDirectory(prefix="gatewise-regress-") as temporary:
            directory = Path(temporary)
            (directory / "run.json").write_text(json.dumps(settings))
            np.save(directory / "memory.npy", compiled.with_input(codes))
            record = run_cocotb(BENCH_MODULE, "engine", self.verilog, "engine", directory)
            memory = np.load(directory / "memory_after.npy")
        if record["violation"] is not None:
            running = layer_text(compiled, record["current"])
            raise SimulationError(f"{running}, cycle {record['cycles']}: {record['violation']}")
        check_error(compiled, record["error"], record["error_layer"])
        watched = {strobe: self._record(kept) for strobe, kept in record["records"].items()}
        return EngineRun.of(compiled, memory, watched, record["cycles"], record["words_read"])

    def _record(self, kept: dict[str, Any]) -> Record:
        """What a monitor kept, as a recorder gives it."""
        words = {}
        for name, values in kept["values"].items():
            size = -(-self.bits[name] // 32)
            text = b"".join(value.to_bytes(4 * size, "little") for value in values)
            words[name] = np.frombuffer(text, dtype="<u4").reshape(-1, size)
        return Record(np.array(kept["cycles"], dtype=np.int64), words)


def compare_on_icarus(engine: Engine, *, stalls: bool = False, seed: int = 0) -> NetworkComparison:
    """Run the bench's network on random codes through an engine, and compare with the simulator."""
    compiled = compile_network(bench_network(), engine.config)
    spec = compiled.network.manifest.input
    codes = np.random.default_rng(seed).integers(*spec.range, (1, *spec.shape), endpoint=True)
    stall = STALL if stalls else 0.0
    simulation = IcarusEngine(engine, compiled, stall=stall, seed=seed)
    return compare_network(compiled, codes, simulation.run, stall=stall)
