"""Pydantic's findings as the one line that Gatewise prints."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..kernels.errors import FormatError

__all__ = ["checked", "first_problem"]

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], **values: Any) -> Model:
    """Make a model of values; `FormatError` says what is wrong with them, after the `name` among them."""
    try:
        return model(**values)
    except ValidationError as error:
        prefix, problem = f"{values['name']}: " if "name" in values else "", first_problem(error)
        raise FormatError(prefix + problem.removeprefix(prefix)) from error


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
