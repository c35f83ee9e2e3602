"""What must be true of a node's state after any fault, read with nothing but SQLite and the files.

The journal is no part of that: a node that listens has brought it into the files.

Invariants: what was acknowledged is held exactly once with the bytes that were sent; each row has
its file and each file its row; nothing unfinished is left.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_node.journal_format import GENERATION_BYTES, records_of

_SHARDS = "[0-9a-f][0-9a-f]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """The state of a device as it lies on the disk."""

    paths: Mapping[str, str]
    """By SOP Instance UID: the spool path of each row."""
    rows: int
    files: frozenset[str]
    incoming: int
    quarantine_rows: frozenset[str]
    """File names."""
    quarantine_files: frozenset[str]
    open_associations: int
    faults: tuple[str, ...]
    """What SQLite and the counts of the rows complain of."""


def look_at(database: Path, spool: Path) -> Holdings:
    """Read everything; the node may run, but should be quiet."""
    with _reading(database) as connection:
        rows = connection.execute("SELECT sop_instance_uid, path FROM instance").fetchall()
        quarantine = connection.execute("SELECT path FROM quarantine").fetchall()
        faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        faults += [str(tuple(row)) for row in connection.execute("PRAGMA foreign_key_check")]
        faults += [
            f"study {row[0]} counts {row[1]} of {row[2]} instances"
            for row in connection.execute(
                "SELECT study.id, instances, (SELECT count(*) FROM instance "
                "WHERE study_id = study.id) AS held FROM study WHERE instances <> held"
            )
        ]
        open_associations = _count(connection, "association WHERE ended IS NULL")
    return Holdings(
        paths={row[0]: row[1] for row in rows},
        rows=len(rows),
        files=frozenset(f"{each.parent.name}/{each.name}" for each in spool.glob(f"{_SHARDS}/*")),
        incoming=sum(1 for _ in (spool / "incoming").iterdir()),
        quarantine_rows=frozenset(row[0].rpartition("/")[2] for row in quarantine),
        quarantine_files=frozenset(each.name for each in (spool / "quarantine").iterdir()),
        open_associations=open_associations,
        faults=tuple(fault for fault in faults if fault != "ok"),
    )


def journal_of(spool: Path) -> dict[str, bytes]:
    """By path: the files that the journal would write again; while it is quiet."""
    return {
        record.path: bytes(record.content)
        for segment in sorted((spool / "journal").iterdir())
        for record in records_of(memoryview(segment.read_bytes()))
    }


def generations_of(spool: Path) -> list[bytes]:
    """What each segment of the journal was last begun with, in the order of their names."""
    found = []
    for segment in sorted((spool / "journal").iterdir()):
        with segment.open("rb") as stream:
            stream.seek(8)  # every segment begins with the same eight bytes
            found.append(stream.read(GENERATION_BYTES))
    return found


def assert_whole(held: Holdings) -> None:
    """Rows, files and counts agree; for a node that has settled what a fault left."""
    assert held.faults == ()
    assert held.rows == len(held.paths), "an instance is held twice"
    without_file = set(held.paths.values()) - held.files
    without_row = held.files - set(held.paths.values())
    assert not without_file, f"{len(without_file)} rows have no file"
    assert not without_row, f"{len(without_row)} files have no row"
    assert held.incoming == 0, f"{held.incoming} unfinished files are left"
    assert held.quarantine_files == held.quarantine_rows


def assert_held(held: Holdings, spool: Path, sent: Mapping[str, bytes]) -> None:
    """Every one of ``sent``, encoded data sets by SOP Instance UID, is held as it was sent."""
    for uid, data_set in sent.items():
        assert uid in held.paths, f"{uid} was acknowledged and is not held"
        stored = (spool / held.paths[uid]).read_bytes()
        assert stored[128:132] == b"DICM"
        assert stored.endswith(data_set), f"{uid} is held with other bytes"
        head = len(stored) - len(data_set)
        assert 132 < head < 1024, f"the file of {uid} has {head} bytes before its data set"


@contextlib.contextmanager
def _reading(database: Path) -> Iterator[sqlite3.Connection]:
    uri = f"file:{database}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        yield connection


def _count(connection: sqlite3.Connection, source: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0])
