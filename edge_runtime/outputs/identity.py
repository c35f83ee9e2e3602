"""Patient and study attributes made fit to be written, whatever the scanner sent.

An identifier that cannot be written as it is becomes empty, never shortened or repaired: a changed
identifier may be another patient's, while an empty one (all are type 2) lets the PACS match by
Study Instance UID. Names and descriptions are cleaned and cut to their length.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

from dicom_node.instance import StudyIdentity

# PS3.5 6.2: lengths in characters.
_SHORT_STRING_MAX = 16
_LONG_STRING_MAX = 64
_NAME_GROUP_MAX = 64
_NAME_GROUPS_MAX = 3
_NAME_COMPONENTS_MAX = 5

_SEXES = frozenset({"M", "F", "O"})
"""(0010,0040) has enumerated values only."""

_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(
    r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?", re.ASCII
)  # PS3.5 6.2: 60 is a leap second


def clean_identity(identity: StudyIdentity) -> StudyIdentity:
    """Return an identity whose every field is valid for its VR (PS3.5 6.2)."""
    sex = identity.patient_sex.strip().upper()
    return StudyIdentity(
        patient_name=_person_name(identity.patient_name),
        patient_id=_identifier(identity.patient_id, _LONG_STRING_MAX),
        patient_birth_date=_date(identity.patient_birth_date),
        patient_sex=sex if sex in _SEXES else "",
        accession_number=_identifier(identity.accession_number, _SHORT_STRING_MAX),
        study_id=_identifier(identity.study_id, _SHORT_STRING_MAX),
        study_date=_date(identity.study_date),
        study_time=_time(identity.study_time),
        study_description=clean_text(identity.study_description, _LONG_STRING_MAX),
        referring_physician_name=_person_name(identity.referring_physician_name),
    )


def clean_text(value: str, max_characters: int) -> str:
    """Return one line of text without control characters and without the value separator."""
    printable = "".join(" " if _is_unprintable(c) or c == "\\" else c for c in value)
    return " ".join(printable.split())[:max_characters].strip()


def _is_unprintable(character: str) -> bool:
    # Cc: control characters, ESC among them; Cs: bytes that no character set could decode.
    return unicodedata.category(character) in {"Cc", "Cs"}


def _identifier(value: str, max_characters: int) -> str:
    value = value.strip(" \0")
    if len(value) > max_characters or "\\" in value or any(map(_is_unprintable, value)):
        return ""
    return value


def _person_name(value: str) -> str:
    groups = [_name_group(group) for group in value.split("=")[:_NAME_GROUPS_MAX]]
    return "=".join(groups).rstrip("=")


def _name_group(group: str) -> str:
    components = [clean_text(part, _NAME_GROUP_MAX) for part in group.split("^")]
    kept, rest = components[:_NAME_COMPONENTS_MAX], components[_NAME_COMPONENTS_MAX:]
    if rest:
        kept[-1] = " ".join(part for part in (kept[-1], *rest) if part)
    return "^".join(kept)[:_NAME_GROUP_MAX].rstrip("^ ")


def _date(value: str) -> str:
    value = value.strip(" \0")
    if not _DATE.fullmatch(value):
        return ""
    try:
        datetime.strptime(value, "%Y%m%d")  # noqa: DTZ007 - a day of the calendar has no zone
    except ValueError:
        return ""
    return value


def _time(value: str) -> str:
    value = value.strip(" \0")
    return value if _TIME.fullmatch(value) else ""
