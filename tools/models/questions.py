"""Asks the maker of a package what its ONNX file cannot say: each thing once, and checked at once.

An answer comes from a file of answers, from the terminal, or is the question's default, in this
order. Each is checked against the type of the field of ``package.toml`` for which it is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from tools.models.errors import AnswersError

Answer = TypeVar("Answer")

Path = tuple[str, ...]
"""Where an answer stands in the file: tables, then the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[Answer]):
    """What is asked, and what may be answered."""

    path: Path
    text: str
    adapter: TypeAdapter[Answer]
    default: str | None = None
    """As it would be typed; None: there is no sensible one."""


Ask = Callable[[Question[Any], Callable[[str], Any]], Any]
"""Asks a person, until the second argument takes the answer without ``AnswersError``."""


class Interview:
    """One round of questions."""

    def __init__(self, answers: Mapping[str, object], ask: Ask | None) -> None:
        """Begin.

        Args:
            answers: given beforehand, in tables as in the file.
            ask: how to ask a person; None: nobody is there, and defaults count.
        """
        self._left = dict(_leaves(answers, ()))
        self._ask = ask

    def answer(self, question: Question[Answer]) -> Answer:
        """Returns the answer to a question.

        Raises:
            AnswersError: there is none, or it cannot be one.
        """
        if question.path in self._left:
            return _checked(question, self._left.pop(question.path))
        if self._ask is not None:
            answer: Answer = self._ask(question, lambda text: _checked(question, text))
            return answer
        if question.default is None:
            raise AnswersError(f"the answers lack {'.'.join(question.path)!r}: {question.text}")
        return _checked(question, question.default)

    def finish(self) -> None:
        """Ends the round.

        Raises:
            AnswersError: the file answers what was not asked: a misspelt key, most likely.
        """
        if self._left:
            keys = ", ".join(sorted(".".join(path) for path in self._left))
            raise AnswersError(f"the answers hold what this model does not need: {keys}")


def ask(
    interview: Interview,
    key: str | Path,
    text: str,
    adapter: TypeAdapter[Any],
    default: str | None = None,
) -> Any:
    """Asks one question.

    Raises:
        AnswersError: there is no answer, or it cannot be one.
    """
    path = (key,) if isinstance(key, str) else key
    return interview.answer(Question(path=path, text=text, adapter=adapter, default=default))


def choose(interview: Interview, key: str | Path, text: str, choices: tuple[str, ...]) -> Any:
    """Asks which of the choices; the first is the default.

    Raises:
        AnswersError: the answer is none of them.
    """
    kind: Any = Literal[choices]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return ask(interview, key, f"{text} ({', '.join(choices)})", adapter, choices[0])


def ask_in_terminal(question: Question[Any], check: Callable[[str], Any]) -> Any:
    """Asks on the terminal; on standard error, so that a report on standard output stays whole."""

    def converted(text: str) -> Any:
        try:
            return check(text)
        except AnswersError as error:
            raise typer.BadParameter(str(error)) from error

    return typer.prompt(question.text, default=question.default, value_proc=converted, err=True)


def _checked(question: Question[Answer], given: object) -> Answer:
    try:
        return question.adapter.validate_python(given)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise AnswersError(f"{'.'.join(question.path)}: {fault}") from error


def _leaves(table: Mapping[str, object], path: Path) -> list[tuple[Path, object]]:
    found: list[tuple[Path, object]] = []
    for key, value in table.items():
        place = (*path, key)
        # A code is one answer, although it is a table.
        if isinstance(value, Mapping) and not {"value", "scheme"} <= set(value):
            found += _leaves(value, place)
        else:
            found.append((place, value))
    return found
