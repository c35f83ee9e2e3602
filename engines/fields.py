"""What the schemas of a package are made of: the closed base class, and bounded field types."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("the first number must not be above the second")
    return interval


# The reciprocal of a smaller difference would carry values out of float32.
LEAST_WIDTH = 1e-6


def _increasing(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[1] - interval[0] < LEAST_WIDTH:
        raise ValueError(f"the second number must be above the first, by {LEAST_WIDTH:g} or more")
    return interval


# What a regular expression is made of; the last alternative is any other character.
_PIECES = re.compile(
    r"(?P<escape>\\.)|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<open>\(\??)|(?P<close>\))|(?P<or>\|)"
    r"|(?P<repeat>[*+]|\{\d*,?\d*\})|(?P<maybe>\?)|.",
    re.DOTALL,
)
_MATCHED_CHARACTERS = 64
"""Of an LO attribute (PS3.5 6.2), against which patterns are matched."""
MAX_WAYS = 4 * _MATCHED_CHARACTERS**2
"""Two repetitions and two options: well below a millisecond for a text of that length."""


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression ({error})") from error
    if _ways(pattern) > MAX_WAYS:
        raise ValueError(
            "this regular expression may take for ever: at most two of '*', '+' and '{}', and few "
            "of '?' and '|'"
        )
    return pattern


def _ways(pattern: str) -> int:
    """Bounds how many ways the matcher may have to try from one place of a text.

    ``re`` knows no time limit, and its time grows with these ways.
    """
    ways, alternatives = 1, [1]
    previous = ""
    for piece in _PIECES.finditer(pattern):
        kind = piece.lastgroup or ""
        if piece.group() == "(?" or (kind == "escape" and piece.group()[1] in "123456789"):
            raise ValueError("a regular expression without '(?' and back references, please")
        if previous == "close" and kind in {"repeat", "maybe"}:
            raise ValueError("a regular expression without repeated groups, please")
        if kind == "open":
            alternatives.append(1)
        elif kind == "close":
            ways *= alternatives.pop()
        elif kind == "or":
            alternatives[-1] += 1
        else:
            ways *= {"repeat": _MATCHED_CHARACTERS, "maybe": 2}.get(kind, 1)
        previous = kind
    return ways * math.prod(alternatives)


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,63}$")]
Version = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,6}$")]
Value = Annotated[float, Field(ge=-1e6, le=1e6)]
"""A pixel value, in the unit that the steps before have given it: HU, or what the maker says."""
Bounds = Annotated[tuple[Value, Value], AfterValidator(_increasing)]
Percent = Annotated[float, Field(ge=0, le=100)]
PercentRange = Annotated[tuple[Percent, Percent], AfterValidator(_increasing)]
Pixels = Annotated[int, Field(ge=8, le=2048)]
Millimetres = Annotated[float, Field(gt=0, le=1000)]
MillimetreRange = Annotated[tuple[Millimetres, Millimetres], AfterValidator(_ordered)]
Years = Annotated[float, Field(ge=0, le=130)]
YearRange = Annotated[tuple[Years, Years], AfterValidator(_ordered)]
CodeString = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]
"""A value of type CS (PS3.5 6.2)."""
Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)]
DicomText = Annotated[str, Field(pattern=r"^[^\\\x00-\x1f\x7f]+$", max_length=64)]
"""Fits an LO attribute (PS3.5 6.2): one line, no backslash, at most 64 characters."""
Pattern = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_regular_expression)]
"""A regular expression without groups that repeat, look-around or back references."""


class ClosedModel(BaseModel):
    """Frozen, nothing outside the schema, and every number finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
