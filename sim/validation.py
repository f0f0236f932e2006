"""Pydantic's findings as the one line that Gatewise prints."""

from pydantic import ValidationError

__all__ = ["first_problem"]


def first_problem(error: ValidationError) -> str:
    """The first problem: where it is, what must be true, what was found."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    place = place if place.isprintable() else repr(place)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a known key"
    if problem["type"] == "missing":
        return f"{place} is missing"
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{place} {message}".strip()
    return f"{place}: {message}, not {str(problem['input'])[:80]!r}"
