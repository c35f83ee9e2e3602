"""Raw element values into text and numbers; a bad value becomes None, never an error.

Character sets follow (0008,0005) with ISO 2022 escapes (PS3.5 6.1.2). Undecodable bytes become
U+FFFD, so that one odd name cannot fail a store.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_ESCAPE = b"\x1b"
# Python's codecs of this family read the escape sequences themselves.
_SELF_ESCAPING = frozenset({"iso2022_jp", "iso2022_jp_2"})
_DEFAULT_CODEC = "latin_1"
_AGE = re.compile(r"(\d{1,3})([DWMY])", re.ASCII)
_YEARS_PER_UNIT = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_DAYS_PER_YEAR = 365.25


def codecs_of(terms: Sequence[str]) -> tuple[str, ...]:
    """The Python codecs for the defined terms of (0008,0005); at least one.

    Unknown terms are left out. ISO_IR 6 is read as Latin-1, of which it is a part: many devices
    write accented names without declaring a character set.
    """
    known = [python_encoding[each] for each in map(_corrected, terms) if each in python_encoding]
    return tuple(_DEFAULT_CODEC if each == "iso8859" else each for each in known) or (
        _DEFAULT_CODEC,
    )


def _corrected(term: str) -> str:
    """The defined term behind common misspellings (ISO-IR 100, ISO IR 100, ISO2022 IR 87)."""
    found = re.fullmatch(r"ISO[-_ ]?(2022[-_ ]?)?IR[-_ ]?(\d+)", term.strip(), re.ASCII)
    if found is None:
        return term.strip()
    return f"ISO 2022 IR {found[2]}" if found[1] else f"ISO_IR {found[2]}"


def text_of(raw: bytes, codecs: Sequence[str]) -> str:
    """Decode a text value; padding at both ends is removed."""
    head, *escaped = raw.split(_ESCAPE)
    parts = [head.decode(codecs[0], "replace")]
    parts += [_decode_escaped(_ESCAPE + part, codecs[0]) for part in escaped]
    return "".join(parts).strip(" \0")


def _decode_escaped(part: bytes, fallback: str) -> str:
    """Decode what follows one escape sequence (PS3.3 C.12.1.1.2)."""
    for code, codec in CODES_TO_ENCODINGS.items():
        if part.startswith(code):
            payload = part if codec in _SELF_ESCAPING else part[len(code) :]
            return payload.decode(_DEFAULT_CODEC if codec == "iso8859" else codec, "replace")
    return part[1:].decode(fallback, "replace")


def codes_of(raw: bytes) -> tuple[str, ...]:
    """The values of a CS, UI, DS or IS element, without padding."""
    text = raw.decode("ascii", "replace").strip(" \0")
    return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()


def number_of(text: str) -> float | None:
    """A decimal string (PS3.5 6.2 DS); None if it is no finite number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def integer_of(text: str) -> int | None:
    """An integer string; "12.0" counts, as some devices write it."""
    value = number_of(text)
    return int(value) if value is not None and value.is_integer() else None


def numbers_of(raw: bytes, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` decimal strings; None if one is missing or bad."""
    parts = codes_of(raw)
    if len(parts) != count:
        return None
    try:
        numbers = tuple(map(float, parts))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def years_of(age: str) -> float | None:
    """An age string (PS3.5 6.2 AS) in years."""
    found = _AGE.fullmatch(age.strip())
    return int(found[1]) * _YEARS_PER_UNIT[found[2]] if found else None


def years_between(birth: str, day: str) -> float | None:
    """Years from one date (YYYYMMDD) to another; None if one is bad or they are out of order."""
    begin, end = date_of(birth), date_of(day)
    if begin is None or end is None or end < begin:
        return None
    return (end - begin).days / _DAYS_PER_YEAR


def date_of(text: str) -> date | None:
    """A date (PS3.5 6.2 DA); the dots of the ACR-NEMA form are accepted."""
    digits = text.replace(".", "")
    if len(digits) != 8 or not digits.isdecimal():  # noqa: PLR2004  YYYYMMDD
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
