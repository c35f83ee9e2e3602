"""An event type with an open field cannot be made into a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from telemetry.closed import Length, Whole, record_of


@dataclass(frozen=True)
class OpenText:
    note: str


@dataclass(frozen=True)
class UnboundedNumber:
    count: int


@dataclass(frozen=True)
class OpenList:
    notes: Annotated[tuple[str, ...], Length(maximum=3)]


@dataclass(frozen=True)
class WrongShape:
    note: Annotated[str, Whole(minimum=0, maximum=1)]


@dataclass(frozen=True)
class TwoTypes:
    note: Annotated[int, Whole(minimum=0, maximum=1)] | bool


@dataclass(frozen=True)
class AnyValue:
    note: Any


@pytest.mark.parametrize(
    "cls", [OpenText, UnboundedNumber, OpenList, WrongShape, TwoTypes, AnyValue]
)
def test_open_field_is_refused_when_the_type_is_defined(cls: type) -> None:
    with pytest.raises(TypeError, match="is open"):
        record_of(cls)
