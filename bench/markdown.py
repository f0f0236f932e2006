"""Markdown of the pages that benches write."""

from collections.abc import Iterator, Sequence

__all__ = ["table"]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """The lines of a table; the first columns are text."""
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * left + "---:|" * (len(headings) - left)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
