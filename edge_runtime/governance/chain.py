"""The entries of the audit chain, and whether they are as they were written; reads only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from edge_runtime.governance.errors import AuditDamagedError
from edge_runtime.governance.records import AuditRecord, Continued, Digest, Record, Words
from edge_runtime.store.model_packages import AuditHead

CHAIN_NAME = "audit.jsonl"
GENESIS = "0" * 64
MAX_LINE_BYTES = 262_144
"""An activation that removes 1,024 versions takes 70 kB; longer is no line of ours."""


class AuditEntry(Record):
    """Who did what, when; and where in the chain."""

    seq: Annotated[int, Field(ge=1)]
    wall_us: int
    clock_synced: bool
    actor: Words
    """``user NAME``: an account of the operating system; ``configuration``; ``device``."""
    record: AuditRecord
    previous: Digest
    hash: Digest


class AuditFault(str, Enum):
    """What can be wrong with a chain."""

    UNREADABLE = "unreadable"
    """A line is not an entry in our form."""
    ALTERED = "altered"
    """A line's hash does not fit what it says."""
    BROKEN_CHAIN = "broken_chain"
    """A line does not follow the one before: something was removed, inserted or reordered."""
    TORN_TAIL = "torn_tail"
    """The last line has no end: a crash, or an entry under way; repaired by the next writer."""
    CUT_SHORT = "cut_short"
    """The chain ends before the entry that the database remembers, or has another one there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """A fault and its line, counted from 1."""

    fault: AuditFault
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadChain:
    """Every entry that could be read, and what is wrong."""

    entries: tuple[AuditEntry, ...]
    findings: tuple[AuditFinding, ...]

    @property
    def is_intact(self) -> bool:
        """True when nothing was altered, removed or cut off; a torn tail is no such thing."""
        return all(finding.fault is AuditFault.TORN_TAIL for finding in self.findings)

    @property
    def continues_after(self) -> int:
        """How many entries of before are lost; 0 when the chain begins at its beginning."""
        return self.entries[0].seq - 1 if self.entries else 0


def seal(
    record: AuditRecord,
    *,
    seq: int,
    wall_us: int,
    clock_synced: bool,
    actor: str,
    previous: str,
) -> AuditEntry:
    """Make the entry that follows ``previous``."""
    entry = AuditEntry(
        seq=seq,
        wall_us=wall_us,
        clock_synced=clock_synced,
        actor=actor,
        record=record,
        previous=previous,
        hash=GENESIS,
    )
    return entry.model_copy(update={"hash": hash_of(entry)})


def hash_of(entry: AuditEntry) -> str:
    """Return the hash that an entry must have."""
    return hashlib.sha256(_canonical(entry.model_dump(mode="json", exclude={"hash"}))).hexdigest()


def encode_entry(entry: AuditEntry) -> bytes:
    """Return an entry as its line."""
    return _canonical(entry.model_dump(mode="json")) + b"\n"


def _canonical(members: dict[str, object]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")


def read_chain(path: Path, *, at_least: AuditHead | None = None) -> ReadChain:
    """Read and check a whole chain; needs no lock.

    ``at_least`` is an entry that the chain must hold, kept elsewhere and read before; without it a
    tail that was cut off cannot be noticed.

    Raises:
        AuditDamagedError: the file cannot be read at all.
    """
    entries: list[AuditEntry] = []
    findings: list[AuditFinding] = []
    number = 0
    for number, line in enumerate(_lines(path), start=1):
        entry = _parse(line)
        if isinstance(entry, AuditFault):
            findings.append(AuditFinding(fault=entry, line=number))
            continue
        if not _follows(entry, entries[-1] if entries else None):
            findings.append(AuditFinding(fault=AuditFault.BROKEN_CHAIN, line=number))
        entries.append(entry)
    if at_least is not None and not any(
        (entry.seq, entry.hash) == (at_least.seq, at_least.hash) for entry in entries
    ):
        findings.append(AuditFinding(fault=AuditFault.CUT_SHORT, line=number))
    return ReadChain(entries=tuple(entries), findings=tuple(findings))


def _follows(entry: AuditEntry, before: AuditEntry | None) -> bool:
    if before is not None:
        return (entry.seq, entry.previous) == (before.seq + 1, before.hash)
    if isinstance(entry.record, Continued):
        return True
    return (entry.seq, entry.previous) == (1, GENESIS)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines with their ends; of an overlong line, pieces without one."""
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise AuditDamagedError(
            f"{path} cannot be read ({error.strerror}): run this as the user that runs the device"
        ) from error


def _parse(line: bytes) -> AuditEntry | AuditFault:
    if not line.endswith(b"\n"):
        return AuditFault.TORN_TAIL if len(line) < MAX_LINE_BYTES else AuditFault.UNREADABLE
    try:
        entry = AuditEntry.model_validate_json(line)
    except ValidationError:
        return AuditFault.UNREADABLE
    # Byte for byte: a space more, or a number written otherwise, is an alteration too.
    is_as_written = entry.hash == hash_of(entry) and encode_entry(entry) == line
    return entry if is_as_written else AuditFault.ALTERED
