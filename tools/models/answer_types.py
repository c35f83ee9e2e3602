"""What may be answered: the field types of ``package.toml``, also as a person types them.

Lists are typed with commas, a code as ``value scheme meaning``, a window as ``low:high``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from engines.card import Line, Paragraph
from engines.fields import (
    CodeString,
    DicomText,
    MillimetreRange,
    Millimetres,
    Name,
    PercentRange,
    Pixels,
    Version,
    YearRange,
)
from engines.package import Code, Urgency
from engines.steps import Window
from tools.models.codes import key_of

SKIPPED = "-"
"""A label that stands for a number which is no finding."""

_CODE = re.compile(r"(?P<value>\S+)\s+(?P<scheme>\S+)\s+(?P<meaning>.+)")
_WINDOW = re.compile(r"\s*(?P<low>-?[\d.]+)\s*:\s*(?P<high>-?[\d.]+)\s*")


def _split(given: object) -> object:
    if not isinstance(given, str):
        return given
    return [part.strip() for part in given.split(",") if part.strip()]


def _code(given: object) -> object:
    if not isinstance(given, str):
        return given
    found = _CODE.fullmatch(given.strip())
    if found is None:
        raise ValueError("write value, scheme and meaning, such as: 36118008 SCT Pneumothorax")
    return found.groupdict()


def _windows(given: object) -> object:
    parts = _split(given)
    if not isinstance(parts, list):
        return parts
    return [_window(part) for part in parts]


def _window(given: object) -> object:
    if not isinstance(given, str):
        return given
    found = _WINDOW.fullmatch(given)
    if found is None:
        raise ValueError("write each window as low:high, such as: 0:80, -20:180")
    return found.groupdict()


def _optional(given: object) -> object:
    return None if given in ("", "any", "none", []) else _split(given)


def _automatic(given: object) -> object:
    return None if given == "auto" else given


def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _listed(kind: Any, *, fewest: int = 0, most: int = 64) -> TypeAdapter[Any]:
    items = Annotated[tuple[kind, ...], Field(min_length=fewest, max_length=most)]
    return TypeAdapter(Annotated[items, BeforeValidator(_split)])


NAME = _adapter(Name)
VERSION = _adapter(Version)
TITLE = _adapter(Annotated[DicomText, Field(max_length=38)])
INTENDED_USE = _adapter(Annotated[str, Field(min_length=1, max_length=1000)])
DISCLAIMER = _adapter(Annotated[str, Field(min_length=1, max_length=300)])
YES_OR_NO = _adapter(bool)
CODE = _adapter(Annotated[Code, BeforeValidator(_code)])
CODE_STRINGS = _listed(CodeString)

PIXELS = _adapter(Pixels)
SLICES = _adapter(Annotated[int, Field(ge=1, le=2048)])
MILLIMETRES = _adapter(Millimetres)
SPACING = _adapter(Annotated[tuple[Millimetres, Millimetres, Millimetres], BeforeValidator(_split)])
MILLIMETRE_RANGE = _adapter(Annotated[MillimetreRange, BeforeValidator(_split)])
AGES = _adapter(Annotated[YearRange | None, BeforeValidator(_optional)])
PERCENTILES = _adapter(Annotated[PercentRange, BeforeValidator(_split)])
TOP = _adapter(Annotated[int, Field(ge=1, le=64)])
URGENCY = _adapter(Urgency)
THRESHOLD = _adapter(
    Annotated[Annotated[float, Field(gt=0, lt=1)] | None, BeforeValidator(_automatic)]
)
LINE = _adapter(Line)
PARAGRAPH = _adapter(Paragraph)


def windows(channels: int) -> TypeAdapter[Any]:
    """HU windows that divide an item's channels evenly."""

    def fit(given: tuple[Window, ...]) -> tuple[Window, ...]:
        if channels % len(given):
            raise ValueError(f"{len(given)} windows do not make {channels} channels of an item")
        return given

    listed = Annotated[tuple[Window, ...], Field(min_length=1, max_length=8)]
    return _adapter(Annotated[listed, BeforeValidator(_windows), AfterValidator(fit)])


def radius(channels: int) -> TypeAdapter[Any]:
    """Neighbours that divide the input's channels evenly."""

    def fit(given: int) -> int:
        if channels % (2 * given + 1):
            raise ValueError(f"{2 * given + 1} slabs do not make {channels} channels")
        return given

    return _adapter(Annotated[int, Field(ge=0, le=8), AfterValidator(fit)])


def labels(count: int) -> TypeAdapter[Any]:
    """As many labels as an output has numbers; none but SKIPPED twice."""

    def fit(given: tuple[str, ...]) -> tuple[str, ...]:
        keys = [key_of(label) for label in given if label != SKIPPED]
        if len(set(keys)) < len(keys):
            raise ValueError("two names are the same")
        return given

    listed = Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=60)], ...],
        Field(min_length=count, max_length=count),
    ]
    return _adapter(Annotated[listed, BeforeValidator(_split), AfterValidator(fit)])


def chosen_from(*choices: str) -> TypeAdapter[Any]:
    """At least one of the choices."""
    return _listed(Literal[choices], fewest=1, most=len(choices))
