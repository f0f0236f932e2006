"""Widths of the datapath as inputs, for a build that serves narrower formats than its own."""

from amaranth.lib import data

__all__ = ["format_layout"]


def format_layout() -> data.StructLayout:
    """The widths of a `kernels.MacFormat`, each up to the configured one, and whether overflow wraps."""
    return data.StructLayout({"product": 4, "align": 5, "acc": 6, "wrap": 1})
