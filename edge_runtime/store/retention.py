"""How a study leaves the device, step by step, so that a kill at any instruction does no harm.

The order (``docs/node/retention.md``):

1. ``begin_departure``: the study is marked as leaving and gives its UID free, so that a late image
   opens a study of its own; a keyed hash of the UID keeps the last revision.
2. ``take_files``, in batches: rows of instances go, and their paths are noted for removal.
3. The caller deletes these files, makes that durable, and calls ``forget_files``.
4. ``end_departure``: all that is left of the study goes in one transaction.

Invariants: a file in the spool has a row, or its path is noted for removal; every step can be done
again; ``pending_files`` and ``pending_departures`` say what a kill left undone, and the node
finishes it before its start-up scan.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable

from edge_runtime.model.clock import Instant
from edge_runtime.model.delivery import Channel
from edge_runtime.model.holding import Holding
from edge_runtime.store.alarms import AlarmCode, clear_alarm
from edge_runtime.store.database import transaction
from edge_runtime.store.holdings import read_holding

MAX_TOMBSTONES = 100_000
"""Years of studies; each costs about 60 bytes."""
_HASH_BYTES = 16
_HASH_PERSON = b"et.departed"
_MAX_PRUNED = 1_000
"""Rows that one pass removes from a table at most, to keep its transaction short."""

_LAST_ROWS = (
    "DELETE FROM analysis WHERE study_id = ?",
    "DELETE FROM stamp WHERE study_id = ?",
    "DELETE FROM alarm WHERE study_id = ?",
    "DELETE FROM departing WHERE study_id = ?",
    "DELETE FROM study WHERE id = ?",
)
# A procedure step of this study and of no other that is still here; what has yet to be relayed
# upstream stays.
_STEPS = (
    "DELETE FROM procedure_step WHERE id IN "
    "  (SELECT step_id FROM procedure_step_study WHERE study_instance_uid = :uid) "
    "AND NOT EXISTS (SELECT 1 FROM procedure_step_study AS other JOIN study "
    "  ON study.study_instance_uid = other.study_instance_uid "
    "  WHERE other.step_id = procedure_step.id AND other.study_instance_uid <> :uid) "
    "AND NOT EXISTS (SELECT 1 FROM errand "
    "  WHERE errand.step_id = procedure_step.id AND errand.state <> 'DONE')"
)


def starting_revision(connection: sqlite3.Connection, study_instance_uid: str) -> int:
    """Return the revision that a new study row starts with: 1, or one more than when it left.

    Runs in the caller's transaction. A study that comes back gets reports with UIDs of their own.
    """
    study_hash = _study_hash(connection, study_instance_uid)
    row = connection.execute(
        "SELECT revision FROM departed WHERE study_hash = ?", (study_hash,)
    ).fetchone()
    return 1 if row is None else int(row["revision"]) + 1


def _study_hash(connection: sqlite3.Connection, study_instance_uid: str) -> bytes | None:
    """Without the device's token nobody can try out UIDs on the hashes of another device."""
    row = connection.execute("SELECT uid_root_token FROM device").fetchone()
    if row is None:
        return None
    return hashlib.blake2b(
        study_instance_uid.encode(),
        digest_size=_HASH_BYTES,
        key=row["uid_root_token"].encode(),
        person=_HASH_PERSON,
    ).digest()


def begin_departure(connection: sqlite3.Connection, holding: Holding, now: Instant) -> bool:
    """Mark a study as leaving; False, and no change, when it is not as it was when chosen.

    The device's identity must exist (``store.device.read_device``).
    """
    with transaction(connection):
        if holding.causes or read_holding(connection, holding.study_id, now) != holding:
            return False
        uid = connection.execute(
            "SELECT study_instance_uid FROM study WHERE id = ?", (holding.study_id,)
        ).fetchone()["study_instance_uid"]
        _bury(connection, uid, holding.revision)
        connection.execute(_STEPS, {"uid": uid})
        # Before its files go: nobody may ask for another try at a delivery that was let go.
        connection.execute(
            "DELETE FROM delivery WHERE analysis_id IN "
            "(SELECT id FROM analysis WHERE study_id = ?)",
            (holding.study_id,),
        )
        connection.execute("INSERT INTO departing (study_id) VALUES (?)", (holding.study_id,))
        connection.execute(
            "UPDATE study SET study_instance_uid = 'departing-' || id WHERE id = ?",
            (holding.study_id,),
        )
    return True


def _bury(connection: sqlite3.Connection, uid: str, revision: int) -> None:
    study_hash = _study_hash(connection, uid)
    connection.execute(
        "INSERT OR REPLACE INTO departed (study_hash, revision) VALUES (?, ?)",
        (study_hash, revision),
    )
    connection.execute(
        "DELETE FROM departed WHERE id <= (SELECT max(id) FROM departed) - ?", (MAX_TOMBSTONES,)
    )


def take_files(connection: sqlite3.Connection, study_id: int, *, limit: int) -> tuple[str, ...]:
    """Take up to ``limit`` instances of a leaving study out of the index; () when none is left.

    Returns:
        The paths of their files, which are noted for removal.
    """
    with transaction(connection):
        rows = connection.execute(
            "SELECT id, path FROM instance WHERE study_id = ? LIMIT ?", (study_id, limit)
        ).fetchall()
        paths = [row["path"] for row in rows]
        for row in rows:
            conflicts = connection.execute(
                "DELETE FROM quarantine WHERE instance_id = ? RETURNING path", (row["id"],)
            ).fetchall()
            for conflict in conflicts:
                paths += _places(conflict["path"])
        _note_files(connection, paths)
        connection.executemany("DELETE FROM instance WHERE id = ?", ((row["id"],) for row in rows))
    return tuple(paths)


def _places(path: str) -> tuple[str, str]:
    """A conflicting file moves to quarantine after its row was written, and keeps its name."""
    return path, f"quarantine/{path.rpartition('/')[2]}"


def _note_files(connection: sqlite3.Connection, paths: Iterable[str]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO spool_removal (path) VALUES (?)", ((path,) for path in paths)
    )


def pending_files(connection: sqlite3.Connection, *, limit: int) -> tuple[str, ...]:
    """Return up to ``limit`` paths that are noted for removal."""
    rows = connection.execute("SELECT path FROM spool_removal LIMIT ?", (limit,))
    return tuple(row["path"] for row in rows)


def forget_files(connection: sqlite3.Connection, paths: Iterable[str]) -> None:
    """Note that these files are gone for good: their names must be durably removed before."""
    with transaction(connection):
        connection.executemany(
            "DELETE FROM spool_removal WHERE path = ?", ((path,) for path in paths)
        )


def end_departure(connection: sqlite3.Connection, study_id: int) -> None:
    """Remove what is left of a study whose instances are gone, in one transaction."""
    with transaction(connection):
        for statement in _LAST_ROWS:
            connection.execute(statement, (study_id,))


def pending_departures(connection: sqlite3.Connection) -> tuple[int, ...]:
    """Return the studies that have begun to leave."""
    rows = connection.execute("SELECT study_id FROM departing ORDER BY study_id")
    return tuple(row["study_id"] for row in rows)


def release_dead_deliveries(connection: sqlite3.Connection, channel: Channel, at: Instant) -> int:
    """Let go of every dead delivery of a channel, and clear its alarm; return how many.

    It no longer keeps its study here. Until that leaves, it can still be sent again, and then
    keeps it here as before.
    """
    with transaction(connection):
        rows = connection.execute(
            "INSERT OR IGNORE INTO released SELECT id FROM delivery "
            "WHERE state = 'DEAD' AND channel = ? RETURNING delivery_id",
            (channel.value,),
        ).fetchall()
        for row in rows:
            clear_alarm(connection, AlarmCode.DELIVERY_DEAD, str(row["delivery_id"]), at)
        return len(rows)


def take_strays(
    connection: sqlite3.Connection, present: Iterable[str], *, age_us: int, keep_us: int
) -> tuple[str, ...]:
    """Note for removal what lies in quarantine without a row for longer than ``keep_us``.

    Args:
        connection: The database.
        present: The paths of all files in quarantine.
        age_us: The clock of ages.
        keep_us: How long such a file is kept.

    Returns:
        The paths that are noted for removal now.
    """
    found = set(present)
    if not found and not connection.execute("SELECT 1 FROM stray LIMIT 1").fetchone():
        return ()
    rows = connection.execute("SELECT path FROM quarantine")
    found -= {place for row in rows for place in _places(row["path"])}
    with transaction(connection):
        known = {row["path"] for row in connection.execute("SELECT path FROM stray")}
        connection.executemany(
            "DELETE FROM stray WHERE path = ?", ((path,) for path in known - found)
        )
        connection.executemany(
            "INSERT INTO stray VALUES (?, ?)", ((path, age_us) for path in found - known)
        )
        old = connection.execute(
            "DELETE FROM stray WHERE since_us <= ? RETURNING path", (age_us - keep_us,)
        ).fetchall()
        _note_files(connection, (row["path"] for row in old))
    return tuple(row["path"] for row in old)


def prune_rows(connection: sqlite3.Connection, *, before_wall_us: int) -> int:
    """Remove old rows that belong to nothing: ended associations and cleared alarms.

    They hold no patient's data and nothing needs them, so the wall clock is good enough.

    Returns:
        How many rows went.
    """
    with transaction(connection):
        return sum(
            connection.execute(statement, (before_wall_us, _MAX_PRUNED)).rowcount
            for statement in _PRUNE
        )


_PRUNE = (
    (
        "DELETE FROM association WHERE id IN (SELECT id FROM association WHERE ended_wall_us < ? "
        "AND NOT EXISTS (SELECT 1 FROM instance WHERE association_id = association.id) "
        "AND NOT EXISTS (SELECT 1 FROM quarantine WHERE association_id = association.id) LIMIT ?)"
    ),
    "DELETE FROM alarm WHERE id IN (SELECT id FROM alarm WHERE cleared_wall_us < ? LIMIT ?)",
)
