"""What is wrong with TOML and JSON files before their parsers have seen them.

``tomllib`` takes time that grows with the square of the parts of a dotted key: half a megabyte of
``a.a.a...`` is an hour. JSON's parsers keep the last of two equal keys; whoever reads the file may
see the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from engines.errors import PackageSchemaError

MAX_DOTS_IN_A_LINE = 512
"""32 UIDs in a list have half of them."""


def check_toml(name: str, content: bytes) -> None:
    """Checks that reading takes no longer than the size of the file lets expect.

    Args:
        name: Of the file, for people.
        content: Its bytes.

    Raises:
        PackageSchemaError: A line holds too many dots.
    """
    if any(line.count(b".") > MAX_DOTS_IN_A_LINE for line in content.splitlines()):
        raise PackageSchemaError(
            f"{name} has a line with more than {MAX_DOTS_IN_A_LINE} dots; break it up"
        )


def check_json(name: str, content: bytes) -> None:
    """Checks that no object of the file has a key twice.

    Raises:
        PackageSchemaError: One has, or the file is no JSON.
    """
    try:
        json.loads(content, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        raise PackageSchemaError(f"{name} is not valid JSON: {error}") from error


def _refuse_twice(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found
