"""The egress ledger: what left the site, in an append-only hash chain that people can read.

One JSON object a line. ``hash`` is the SHA-256 of the line without its ``hash`` member, so that
anyone can check the chain with a few lines of script; ``previous`` is the hash of the line before,
64 zeros in the first. Invariants: an entry is on disk before its message is handed to the network;
an entry means "was about to be sent", so a crash in between leaves an entry more, never one less;
only the writer changes the file, and it only appends, but for the tail of a line that a power cut
tore off, which it moves into a file beside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path

import structlog

from telemetry.durable import WriterLock, sync_folder, write_durably
from telemetry.errors import LedgerDamagedError, LedgerWriteError

LEDGER_NAME = "egress.jsonl"
GENESIS = "0" * 64
MAX_LINE_BYTES = 1_048_576
"""A payload has at most 64 KiB; JSON within JSON doubles it at worst. Longer is no line of ours."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One message that was about to leave."""

    seq: int
    wall_us: int
    topic: str
    payload: str
    previous: str
    hash: str

    @property
    def payload_sha256(self) -> str:
        """SHA-256 of the payload's bytes, in hexadecimal."""
        return sha256(self.payload.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHead:
    """The last entry's place in the chain: kept elsewhere, it shows that nothing was cut off."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRecord:
    """What ``append`` takes: a message on its way out."""

    topic: str
    payload: bytes


class LedgerFault(str, Enum):
    """What can be wrong with a ledger."""

    UNREADABLE = "unreadable"
    """A line is not an entry in our form."""
    ALTERED = "altered"
    """A line's hash does not fit what it says."""
    BROKEN_CHAIN = "broken_chain"
    """A line does not follow the one before: something was removed, inserted or reordered."""
    TORN_TAIL = "torn_tail"
    """The last line has no end: a crash, or an append under way; repaired when it is opened."""
    CUT_SHORT = "cut_short"
    """The chain ends before the head that was kept elsewhere, or has another hash there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFinding:
    """A fault and its line, counted from 1."""

    fault: LedgerFault
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReport:
    """What ``verify`` found."""

    entries: int
    head: LedgerHead | None
    findings: tuple[LedgerFinding, ...]

    @property
    def is_intact(self) -> bool:
        """True when no line was altered, removed or cut off; a torn tail is no such thing."""
        return all(finding.fault is LedgerFault.TORN_TAIL for finding in self.findings)


def _body(seq: int, wall_us: int, topic: str, payload: str, previous: str) -> dict[str, object]:
    return {
        "seq": seq,
        "wall_us": wall_us,
        "topic": topic,
        "payload_sha256": sha256(payload.encode()).hexdigest(),
        "payload": payload,
        "previous": previous,
    }


def _canonical(members: dict[str, object]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode("ascii")


def _seal(seq: int, wall_us: int, record: LedgerRecord, previous: str) -> LedgerEntry:
    payload = record.payload.decode()
    digest = sha256(_canonical(_body(seq, wall_us, record.topic, payload, previous))).hexdigest()
    return LedgerEntry(
        seq=seq,
        wall_us=wall_us,
        topic=record.topic,
        payload=payload,
        previous=previous,
        hash=digest,
    )


def _to_line(entry: LedgerEntry) -> bytes:
    body = _body(entry.seq, entry.wall_us, entry.topic, entry.payload, entry.previous)
    return _canonical({**body, "hash": entry.hash}) + b"\n"


def _parse(line: bytes) -> LedgerEntry | LedgerFault:
    if not line.endswith(b"\n"):
        return LedgerFault.TORN_TAIL if len(line) < MAX_LINE_BYTES else LedgerFault.UNREADABLE
    try:
        members = json.loads(line)
        entry = LedgerEntry(
            seq=members["seq"],
            wall_us=members["wall_us"],
            topic=members["topic"],
            payload=members["payload"],
            previous=members["previous"],
            hash=members["hash"],
        )
        if type(entry.seq) is not int or type(entry.wall_us) is not int:
            return LedgerFault.UNREADABLE
        record = LedgerRecord(topic=entry.topic, payload=entry.payload.encode())
        sealed = _seal(entry.seq, entry.wall_us, record, entry.previous)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return LedgerFault.UNREADABLE
    # Byte for byte: a member more, or a number written otherwise, is an alteration too.
    return entry if _to_line(sealed) == line else LedgerFault.ALTERED


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines with their ends; of an overlong line, pieces without one."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES):
            yield line


def read_entries(path: Path) -> Iterator[LedgerEntry]:
    """List a ledger, oldest first; needs no lock, and stops before a line still being written.

    Raises:
        LedgerDamagedError: A line is not one of ours: run ``verify``.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.endswith(b"\n"):
            return
        entry = _parse(line)
        if isinstance(entry, LedgerFault):
            raise LedgerDamagedError(
                f"line {number} of {path.name} is {entry.value}: run `edge-triage egress verify`."
            )
        yield entry


def verify(path: Path, *, at_least: LedgerHead | None = None) -> LedgerReport:
    """Check every line and the chain; needs no lock.

    Args:
        path: The ledger's file.
        at_least: A head that the chain must contain, kept outside the file (the outbox keeps
            one); without it, lines cut off at the end cannot be noticed.
    """
    findings: list[LedgerFinding] = []
    head: LedgerHead | None = None
    entries = number = 0
    contains = at_least is None
    for number, line in enumerate(_lines(path), start=1):
        entry = _parse(line)
        if isinstance(entry, LedgerFault):
            findings.append(LedgerFinding(fault=entry, line=number))
            continue
        entries += 1
        expected = head or LedgerHead(seq=0, hash=GENESIS)
        if (entry.seq, entry.previous) != (expected.seq + 1, expected.hash):
            findings.append(LedgerFinding(fault=LedgerFault.BROKEN_CHAIN, line=number))
        head = LedgerHead(seq=entry.seq, hash=entry.hash)
        contains = contains or head == at_least
    if not contains:
        findings.append(LedgerFinding(fault=LedgerFault.CUT_SHORT, line=number))
    return LedgerReport(entries=entries, head=head, findings=tuple(findings))


class Ledger:
    """The one writer. Opening repairs a torn tail and continues the chain."""

    def __init__(self, folder: Path) -> None:
        """Open ``folder/egress.jsonl``, making both where they are missing.

        Raises:
            AlreadyOpenError: Another process writes this ledger.
            LedgerDamagedError: The last complete line is not one of ours.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LEDGER_NAME
        self._lock = WriterLock(folder / "egress.lock")
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        self._head: LedgerHead | None = None
        self._in_doubt = False
        try:
            sync_folder(folder)
            self._recover()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give the lock back."""
        os.close(self._file)
        self._lock.release()

    @property
    def head(self) -> LedgerHead | None:
        """The last entry's place in the chain, or None before the first."""
        return self._head

    def append(self, records: Sequence[LedgerRecord], wall_us: int) -> LedgerHead:
        """Make the records durable, in order, with one fsync; return the new head.

        On an error none of the records may be published: they may or may not be on disk.

        Raises:
            LedgerWriteError: The disk refused.
            ValueError: There are no records.
        """
        if not records:
            raise ValueError("nothing to append")
        try:
            if self._in_doubt:
                self._recover()
            entries = self._chain(records, wall_us)
            block = b"".join(_to_line(entry) for entry in entries)
            self._in_doubt = True
            self._write(block)
            os.fsync(self._file)
        except OSError as error:
            raise LedgerWriteError(
                "the egress ledger cannot be written, so nothing is sent: free disk space or "
                "mend the disk; messages wait in the outbox."
            ) from error
        self._in_doubt = False
        self._head = LedgerHead(seq=entries[-1].seq, hash=entries[-1].hash)
        return self._head

    def _chain(self, records: Sequence[LedgerRecord], wall_us: int) -> list[LedgerEntry]:
        seq, previous = (self._head.seq, self._head.hash) if self._head else (0, GENESIS)
        entries: list[LedgerEntry] = []
        for record in records:
            seq += 1
            entries.append(_seal(seq, wall_us, record, previous))
            previous = entries[-1].hash
        return entries

    def _write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._file, view) :]

    def _recover(self) -> None:
        """Move a torn tail aside, read the head, and leave the file at a line's end."""
        size = os.fstat(self._file).st_size
        start = max(0, size - 2 * MAX_LINE_BYTES)
        window = os.pread(self._file, size - start, start)
        whole, newline, tail = window.rpartition(b"\n")
        last_line = whole[whole.rfind(b"\n") + 1 :] + newline
        self._head = self._head_of(last_line) if newline else None
        if not newline and start > 0:
            raise LedgerDamagedError(f"{self.path.name} ends in no line of ours: {_REMEDY}")
        if tail:
            self._set_aside(tail)
            os.ftruncate(self._file, size - len(tail))
        # Also covers complete lines that an earlier writer had not synced when it died.
        os.fsync(self._file)
        self._in_doubt = False

    def _head_of(self, line: bytes) -> LedgerHead:
        entry = _parse(line)
        if isinstance(entry, LedgerFault):
            raise LedgerDamagedError(f"{self.path.name}'s last line is {entry.value}: {_REMEDY}")
        return LedgerHead(seq=entry.seq, hash=entry.hash)

    def _set_aside(self, tail: bytes) -> None:
        after = self._head.seq if self._head else 0
        number = 1
        while (aside := self.path.with_name(f"egress.torn-{after}-{number}")).exists():
            number += 1
        write_durably(aside, tail)
        _log.warning("telemetry.ledger_tail_repaired", after_seq=after, torn_bytes=len(tail))


_REMEDY = (
    "run `edge-triage egress verify`, keep the file as evidence, and move it away; a new chain "
    "begins then."
)
