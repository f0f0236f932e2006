"""The pages of gates, throughput, energy, widths and BOPs, made anew but for what is in the caches (`make gates`).

    python bench/gate_pages.py

Runs bench/throughput.py, energy.py, gates.py, widths.py and bops.py three at a time, since each of them is at times
busy with one thing alone. 25 minutes on two cores where nothing is in the caches of syntheses, engines and tools.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import gates
import widths
from progress import PASSING, progress
from rich.console import Console

PROGRAMS: dict[str, Sequence[str]] = {
    "throughput": (),
    "energy": (),
    "gates": ("--part", *(part for part in gates.PARTS if part != gates.ON_ENGINES)),
    "widths": ("--part", *(part for part in widths.PARTS if part != widths.PAGE_PART)),
    "bops": (),
}
"""First the longest, and one that has little for a second processor to do."""
LAST: Sequence[tuple[str, Sequence[str]]] = (
    ("gates", ("--part", gates.ON_ENGINES)),
    ("widths", ("--part", widths.PAGE_PART)),
)
"""What is made of what others count."""
AT_A_TIME = 3
"""Programs; each runs as many syntheses as there are processors."""
KEPT_LINES = 20
"""Of what a program said before it failed."""


class Failed(Exception):
    """A program ended with another exit code than 0."""


class Programs:
    """Programs that run side by side: `tell` is told what is passing, by name, and the console prints what stays."""

    def __init__(self, console: Console, tell: Callable[[str, str], None]) -> None:
        self.console, self.tell = console, tell
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def run(self, name: str, arguments: Sequence[str]) -> None:
        """Run one to its end; `Failed` where that is no good one."""
        if self._ended:
            return
        start = time.perf_counter()
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments]
        kept: deque[str] = deque(maxlen=KEPT_LINES)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            self._running.add(child)
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith(PASSING):
                    self.tell(name, line.removeprefix(PASSING).strip())
                else:
                    kept.append(line.rstrip())
                    self._say(f"{name}: {line.rstrip()}")
        self._running.discard(child)
        if child.returncode and not self._ended:
            said = "\n".join(kept)
            self.end()
            raise Failed(f"error: bench/{name}.py must end with exit code 0, not {child.returncode}\n{said}")
        self._say(f"{name}: {time.perf_counter() - start:.0f} s in all")

    def end(self) -> None:
        """End those that run, and begin no other."""
        self._ended = True
        for child in list(self._running):
            child.terminate()

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def main() -> None:
    """Run them all."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    # Whoever ends this program ends those that it runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console, start = Console(stderr=True), time.perf_counter()
    busy: dict[str, str] = {}
    with progress(console, "gates") as notice:

        def tell(name: str, text: str) -> None:
            busy[name] = text
            notice(" | ".join(busy.values()))

        programs = Programs(console, tell)

        def one(name: str, arguments: Sequence[str]) -> None:
            try:
                programs.run(name, arguments)
            finally:
                busy.pop(name, None)

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            try:
                for future in as_completed([pool.submit(one, *each) for each in PROGRAMS.items()]):
                    future.result()
                for each in LAST:
                    one(*each)
            except Failed as error:
                sys.exit(str(error))
            finally:
                programs.end()
    console.print(f"all of it: {time.perf_counter() - start:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
