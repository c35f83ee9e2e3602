"""Writes the TOML of a package: tables, arrays of tables, plain values, and comments."""

from __future__ import annotations

import datetime as dt
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

COMMENT_WIDTH = 98

Place = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlStyle:
    """How a document is written for people."""

    comments: Mapping[str, str] = field(default_factory=dict)
    """What stands above a key or table, by its dotted path; of an array, above its first item."""
    inline: frozenset[str] = frozenset()
    """Keys whose tables stand on the key's own line."""


PLAIN = TomlStyle()


def toml_text(document: Mapping[str, object], style: TomlStyle = PLAIN) -> str:
    """A mapping as TOML 1.0.

    Raises:
        TypeError: a value is of a kind that TOML or this writer does not know.
    """
    return "\n".join(_Writer(style).table(document, ())).lstrip("\n") + "\n"


class _Writer:
    def __init__(self, style: TomlStyle) -> None:
        self._style = style
        self._left = dict(style.comments)

    def table(self, table: Mapping[str, object], path: Place) -> list[str]:
        lines: list[str] = []
        nested = []
        for key, value in table.items():
            if key not in self._style.inline and _is_table_or_tables(value):
                nested.append((key, value))
            else:
                lines += self._comment((*path, key))
                lines.append(f"{_key(key)} = {_value(value)}")
        for key, value in nested:
            place = (*path, key)
            name = ".".join(_key(part) for part in place)
            if isinstance(value, Mapping):
                lines += ["", *self._comment(place), f"[{name}]", *self.table(value, place)]
            elif isinstance(value, Sequence):
                for item in value:
                    lines += ["", *self._comment(place), f"[[{name}]]", *self.table(item, place)]
        return lines

    def _comment(self, path: Place) -> list[str]:
        text = self._left.pop(".".join(path), "")
        return [f"# {line}" for line in textwrap.wrap(text, COMMENT_WIDTH - 2)]


def _is_table_or_tables(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(item, Mapping) for item in value)
    )


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if is_bare else _value(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes of a string are TOML's, but for the bare DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
        )
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}")
