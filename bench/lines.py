"""What programs that train say: a line for each epoch, and one line where their input is wrong."""

import sys
import time
from collections.abc import Callable

from gatewise.kernels.errors import GatewiseError
from gatewise.quant.training import EpochReport, Progress

__all__ = ["Lines", "run_main"]

BAD_INPUT = 2


class Lines(Progress):
    """Prints what epochs of the training `name` came to: the last, and those that end `every` seconds after a line."""

    def __init__(self, name: str, every: float = 0.0) -> None:
        self.name, self.every = name, every
        self.epochs = self.done = 0
        self.began = self.spoke = 0.0

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Print what is to come."""
        self.epochs, self.done, self.began = epochs, done, time.monotonic()
        print(f"{self.name}: {epochs} epochs of {steps} steps, {done} done", flush=True)

    def epoch(self, report: EpochReport) -> None:
        """Print it, and how long the others take at this rate."""
        now, count = time.monotonic(), report.epoch + 1
        if now - self.spoke < self.every and count < self.epochs:
            return
        self.spoke = now
        left = (now - self.began) / (count - self.done) * (self.epochs - count)
        bops = f", {100 * report.facts['bops']:.3f} % BOPs" if "bops" in report.facts else ""
        print(
            f"{self.name} epoch {count}/{self.epochs}: loss {report.loss:.4f}, "
            f"top-1 {100 * report.training_top1:.2f} %, held out {100 * report.held_out_top1:.2f} %{bops}, "
            f"{report.seconds:.1f} s, {left:.0f} s left",
            flush=True,
        )


def run_main(main: Callable[[], None]) -> None:
    """Run a program; what the package refuses becomes one line, and the exit code 2."""
    try:
        main()
    except GatewiseError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(BAD_INPUT) from error
