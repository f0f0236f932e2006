"""A line for each epoch of a training, for programs whose output is kept."""

from gatewise.quant.training import EpochReport, Progress

__all__ = ["Lines"]


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
