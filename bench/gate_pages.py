"""Every page that gates are part of, counted anew unless it is in the caches of syntheses and engines (`make gates`).

    python bench/gate_pages.py

Runs bench/throughput.py, gates.py, energy.py, widths.py and bops.py, as many at a time as there are processors, since
each of them is at times busy with one thing alone. About 25 minutes on two cores where nothing is in the caches.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gates import ON_ENGINES, PARTS
from progress import PASSING, progress
from rich.console import Console

PROGRAMS: dict[str, Sequence[str]] = {
    "throughput": (),
    "gates": ("--part", *(part for part in PARTS if part != ON_ENGINES)),
    "energy": (),
    "widths": ("--part", "gates"),
    "bops": (),
}
"""By what each takes, the longest first."""
LAST = ("gates", ("--part", ON_ENGINES))
"""What is composed of engines that others count."""
KEPT_LINES = 20
"""Of what a program said before it failed."""


class Failed(Exception):
    """A program ended with another exit code than 0."""


def run(name: str, arguments: Sequence[str], console: Console, tell: Callable[[str, str], None]) -> None:
    """Run a program; `tell` is told what is passing, the console prints what stays."""
    start = time.perf_counter()
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments]
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(PASSING):
                tell(name, line.removeprefix(PASSING).strip())
            else:
                kept.append(line.rstrip())
                console.print(f"{name}: {line.rstrip()}", markup=False, highlight=False)
    if child.returncode:
        raise Failed("\n".join([f"error: bench/{name}.py must end with exit code 0, not {child.returncode}", *kept]))
    console.print(f"{name}: done in {time.perf_counter() - start:.0f} s", markup=False, highlight=False)


def main() -> None:
    """Run them all."""
    console, start = Console(stderr=True), time.perf_counter()
    busy: dict[str, str] = {}
    with progress(console, "gates") as notice, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:

        def tell(name: str, text: str) -> None:
            busy[name] = text
            notice(" | ".join(busy.values()))

        def one(name: str, arguments: Sequence[str]) -> None:
            try:
                run(name, arguments, console, tell)
            finally:
                busy.pop(name, None)

        try:
            for future in [pool.submit(one, *each) for each in PROGRAMS.items()]:
                future.result()
            one(*LAST)
        except Failed as error:
            pool.shutdown(cancel_futures=True)
            sys.exit(str(error))
    console.print(f"all pages of gates: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
