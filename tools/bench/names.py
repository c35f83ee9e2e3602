"""Names in options of the command line."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

import typer

Name = TypeVar("Name", bound=Enum)


def names_of(text: str, kind: type[Name]) -> tuple[Name, ...]:
    """Return the members that a list with commas names, each once.

    Raises:
        BadParameter: a word is no name of the kind.
    """
    try:
        return tuple(dict.fromkeys(kind(word.strip()) for word in text.split(",")))
    except ValueError as error:
        known = ", ".join(str(item.value) for item in kind)
        raise typer.BadParameter(f"{error}; known are {known}") from error
