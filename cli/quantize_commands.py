"""The verb that turns a trained network into a file."""

__all__ = ["quantize"]


def quantize() -> None:
    """Quantise a trained PyTorch network into a file that the hardware runs."""
