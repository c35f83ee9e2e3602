"""What an entry of the audit chain can say: one closed type for each action.

A record holds all that its effect on the database needs, so that what a crash left undone is done
from the chain alone (``replay.py``). No record holds anything of a patient.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_REASON_CHARACTERS = 500
MAX_NOTE_CHARACTERS = 500

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PackageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,63}$")]
PackageVersion = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,6}$")]
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARACTERS)]
Words = Annotated[str, Field(min_length=1, max_length=200)]


class Record(BaseModel):
    """Frozen, closed, and no value is turned into another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Installed(Record):
    """A package is on disk, with the bytes that its maker sealed."""

    action: Literal["install"] = "install"
    digest: Digest
    name: PackageName
    version: PackageVersion
    demonstration: bool


class Verified(Record):
    """It reproduces its golden outputs here."""

    action: Literal["verify"] = "verify"
    digest: Digest
    backend: Words
    largest_deviation: Annotated[float, Field(ge=0)]


class Refused(Record):
    """Its verification failed; its files go."""

    action: Literal["refuse"] = "refuse"
    digest: Digest
    reason: Reason


class Approved(Record):
    """A person approved it; with ``is_last`` all have whom the settings ask for."""

    action: Literal["approve"] = "approve"
    digest: Digest
    person: Words
    person_key: Words
    note: Annotated[str, Field(max_length=MAX_NOTE_CHARACTERS)]
    is_last: bool


class Released(Record):
    """No person more has to approve it: a demonstration, or the settings ask for fewer now."""

    action: Literal["release"] = "release"
    digest: Digest


class Shadowed(Record):
    """It looks at studies beside the active version, and tells nobody."""

    action: Literal["shadow"] = "shadow"
    digest: Digest


class Activated(Record):
    """It is the one version of its model that decides."""

    action: Literal["activate"] = "activate"
    digest: Digest
    superseded: Digest | None
    removed: Annotated[tuple[Digest, ...], Field(max_length=1024)]
    """Older versions, whose files go."""


class RolledBack(Record):
    """The version of before decides again."""

    action: Literal["rollback"] = "rollback"
    digest: Digest
    """What is active now."""
    withdrawn: Digest | None
    """What was active."""


class Retired(Record):
    """It is no longer used; with ``is_removed`` its files go at once."""

    action: Literal["retire"] = "retire"
    digest: Digest
    is_removed: bool


class Denied(Record):
    """Somebody asked for what the rules do not allow; nothing was changed."""

    action: Literal["deny"] = "deny"
    asked: Literal["install", "approve", "shadow", "activate", "rollback", "retire"]
    subject: Words
    """What was asked for, as it was typed."""
    reason: Reason


class Continued(Record):
    """The chain of before is lost; this one goes on from what the database remembers of it."""

    action: Literal["continue"] = "continue"


AuditRecord: TypeAlias = Annotated[
    Installed
    | Verified
    | Refused
    | Approved
    | Released
    | Shadowed
    | Activated
    | RolledBack
    | Retired
    | Denied
    | Continued,
    Field(discriminator="action"),
]

RECORD: TypeAdapter[AuditRecord] = TypeAdapter(AuditRecord)


def subject_of(record: AuditRecord) -> str:
    """Return what a record is about: a digest, or what was typed."""
    if isinstance(record, Denied):
        return record.subject
    if isinstance(record, Continued):
        return ""
    return record.digest


def shorten(reason: str) -> str:
    """Return a reason on one line, at a length that a record takes."""
    line = " ".join(reason.split())
    return line if len(line) <= MAX_REASON_CHARACTERS else line[: MAX_REASON_CHARACTERS - 1] + "…"
