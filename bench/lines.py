"""What programs that train say: a line for each epoch, and one line where their input is wrong."""

import sys
from collections.abc import Callable

from gatewise.kernels.errors import GatewiseError
from gatewise.quant.training import EpochReport, Progress

__all__ = ["Lines", "run_main"]

BAD_INPUT = 2


class Lines(Progress):
    """Prints what each epoch of the training `name` came to."""

    def __init__(self, name: str) -> None:
        self.name = name

    def epoch(self, report: EpochReport) -> None:
        """Print it."""
        bops = f", {100 * report.facts['bops']:.3f} % BOPs" if "bops" in report.facts else ""
        print(
            f"{self.name} epoch {report.epoch + 1}: loss {report.loss:.4f}, top-1 {100 * report.training_top1:.2f} %, "
            f"held out {100 * report.held_out_top1:.2f} %{bops}, {report.seconds:.1f} s",
            flush=True,
        )


def run_main(main: Callable[[], None]) -> None:
    """Run a program; what the package refuses becomes one line, and the exit code 2."""
    try:
        main()
    except GatewiseError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(BAD_INPUT) from error
