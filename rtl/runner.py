"""Synthesis runs, several at a time: what was found before is recalled, and what is asked for twice runs once."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import LifoQueue
from typing import Any, NamedTuple, Self

from .yosys import Flow, Yosys, run_flow

__all__ = ["MULTIPLY", "Found", "Runner", "Submitted", "Task"]

MULTIPLY = " $mul "
"""Stands in the RTLIL of what multiplies."""

Found = dict[str, Any]
"""What a flow's `parse` makes."""


class Task(NamedTuple):
    """A flow to run on a module; `name` is what messages call that."""

    flow: Flow
    rtlil: str
    top: str
    name: str


class Submitted(NamedTuple):
    """Tasks that are being run."""

    futures: dict[Task, Future[Found]]

    def found(self) -> dict[Task, Found]:
        """What each of them found, once all have ended."""
        return {task: future.result() for task, future in self.futures.items()}


class Runner:
    """Runs flows in so many processes, while it is open (``with``).

    Parameters
    ----------
    cache : folder of earlier results, by default the user's cache
    notice : told what is being run
    jobs : runs at the same time, by default one for each processor
    """

    def __init__(
        self, cache: Path | None = None, notice: Callable[[str], None] | None = None, jobs: int | None = None
    ) -> None:
        self.cache = cache
        self.notice = notice
        self.jobs = jobs or len(os.sched_getaffinity(0))
        self.left = 0
        """Runs that are not finished, for messages."""
        self._futures: dict[tuple[Flow, str, str], Future[Found]] = {}
        self._yosys: list[Yosys] = []
        self._idle: LifoQueue[Yosys] = LifoQueue()
        self._processes = ExitStack()
        self._pool = ThreadPoolExecutor(self.jobs)
        self._failed: BaseException | None = None

    def __enter__(self) -> Self:
        self._yosys = [self._processes.enter_context(Yosys()) for _ in range(self.jobs)]
        for each in self._yosys:
            self._idle.put(each)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if kind is not None and not issubclass(kind, Exception):
            # Whoever interrupts does not wait for minutes.
            for each in self._yosys:
                each.kill()
        self._pool.shutdown()
        self._processes.close()

    def run(self, tasks: Iterable[Task]) -> dict[Task, Found]:
        """What every task found."""
        return self.submit(tasks).found()

    def submit(self, tasks: Iterable[Task]) -> Submitted:
        """Begin with tasks, behind those that were submitted before: their caller may go on meanwhile.

        Once one has failed, no other is begun: what it raised is raised here and by `Submitted.found`.
        """
        if not self._yosys:
            raise RuntimeError("a Runner must be open: it is a context manager")
        if self._failed is not None:
            raise self._failed
        wanted = list(dict.fromkeys(tasks))
        # The slowest first: multipliers, then the longest.
        new = sorted(
            {task[:3]: task for task in wanted if task[:3] not in self._futures}.values(),
            key=lambda task: (MULTIPLY in task.rtlil, len(task.rtlil)),
            reverse=True,
        )
        self.left += len(new)
        if new and not self._futures:
            # But before all a short one alone, in which the tool may compile itself.
            short = new.pop()
            self._begin(short).result()
        for task in new:
            self._begin(task)
        return Submitted({task: self._futures[task[:3]] for task in wanted})

    def _begin(self, task: Task) -> Future[Found]:
        future = self._futures[task[:3]] = self._pool.submit(self._run, task)
        return future

    def _run(self, task: Task) -> Found:
        def tell(text: str) -> None:
            if self.notice is not None:
                self.notice(f"{task.name}: {text}" + (f", {self.left} runs left" if self.left else ""))

        if self._failed is not None:
            raise self._failed
        yosys = self._idle.get()
        try:
            return run_flow(task.flow, task.rtlil, task.top, self.cache, tell, yosys)
        except BaseException as error:
            self._failed = self._failed or error
            raise
        finally:
            self._idle.put(yosys)
            self.left -= 1
