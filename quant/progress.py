"""A training's progress on a terminal: epoch, loss, top-1 and the time that is left."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from .training import EpochReport, Progress

__all__ = ["TerminalProgress"]


class TerminalProgress(Progress):
    """A bar over all steps, and a line for each epoch; for use in a ``with`` statement."""

    def __init__(self, console: Console | None = None) -> None:
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task("training", total=None)
        self.steps = 1

    def __enter__(self) -> "TerminalProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def search(self, what: str, done: int, most: int) -> None:
        """Move the bar over what is measured before the training."""
        self.bar.update(self.task, total=most, completed=done, description=what)

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Set the bar's length."""
        self.steps = steps
        self.bar.update(self.task, total=epochs * steps, completed=done * steps)

    def step(self, epoch: int, step: int, loss: float, top1: float) -> None:
        """Move the bar."""
        self.bar.update(
            self.task,
            completed=epoch * self.steps + step,
            description=f"epoch {epoch + 1}, loss {loss:.3f}, top-1 {100 * top1:.1f} %",
        )

    def epoch(self, report: EpochReport) -> None:
        """Move the bar, and print the epoch's line."""
        self.bar.update(self.task, completed=(report.epoch + 1) * self.steps)
        self.bar.console.print(line(report), highlight=False)


def line(report: EpochReport) -> str:
    """An epoch in a line."""
    held = "" if report.held_out_top1 != report.held_out_top1 else f", held out {100 * report.held_out_top1:.1f} %"
    return (
        f"epoch {report.epoch + 1}: loss {report.loss:.3f}, top-1 {100 * report.training_top1:.1f} %{held}, "
        f"{report.seconds:.1f} s"
    )
