"""Writes the TOML of a package: tables, arrays of tables, and plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def toml_text(document: Mapping[str, object]) -> str:
    """A mapping as TOML 1.0.

    Raises:
        TypeError: a value is of a kind that TOML or this writer does not know.
    """
    return "\n".join(_table(document, ())).lstrip("\n") + "\n"


def _table(table: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    lines = []
    nested = []
    for key, value in table.items():
        if isinstance(value, Mapping) or _is_array_of_tables(value):
            nested.append((key, value))
        else:
            lines.append(f"{key} = {_value(value)}")
    for key, value in nested:
        place = (*path, key)
        name = ".".join(place)
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_table(value, place)]
        elif isinstance(value, Sequence):
            for item in value:
                lines += ["", f"[[{name}]]", *_table(item, place)]
    return lines


def _is_array_of_tables(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(item, Mapping) for item in value)
    )


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes of a string are TOML's, but for the bare DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}")
