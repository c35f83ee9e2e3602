"""What the assembly reads: studies that still receive, and what arrived since it last looked."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from dicom_node.instance import InstanceHeader
from edge_runtime.model.study import StudyState
from edge_runtime.store.codec import decode_header


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivedInstance:
    """One instance as the worker meets it; ``path`` is relative to the spool folder."""

    instance_id: int
    study_id: int
    revision: int
    header: InstanceHeader = field(repr=False)
    path: str
    association_id: str | None
    stored_mono_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProgress:
    """Where a study stands."""

    study_id: int
    study_key: str
    state: StudyState
    revision: int
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationProgress:
    """An association that brought images of a study, and when it ended, if it did."""

    association_id: str
    ended: str | None
    ended_mono_us: int | None


def instances_after(
    connection: sqlite3.Connection, instance_id: int, *, limit: int
) -> tuple[ArrivedInstance, ...]:
    """Return what was stored after ``instance_id``, in order of arrival."""
    rows = connection.execute(
        "SELECT id, study_id, revision, header, path, association_id, stored_mono_us "
        "FROM instance WHERE id > ? ORDER BY id LIMIT ?",
        (instance_id, limit),
    )
    return tuple(_arrived(row) for row in rows)


def instances_of_receiving(connection: sqlite3.Connection) -> tuple[ArrivedInstance, ...]:
    """Return the instances of every study that still receives: what a restarted worker reloads."""
    rows = connection.execute(
        "SELECT instance.id, study_id, instance.revision, header, path, association_id, "
        "stored_mono_us FROM instance JOIN study ON study.id = study_id "
        "WHERE study.state = 'RECEIVING' ORDER BY instance.id"
    )
    return tuple(_arrived(row) for row in rows)


def instances_of_study(
    connection: sqlite3.Connection, study_id: int, *, before_id: int
) -> tuple[ArrivedInstance, ...]:
    """Return what a study held before an instance: its earlier revisions, when it reopens."""
    rows = connection.execute(
        "SELECT id, study_id, revision, header, path, association_id, stored_mono_us "
        "FROM instance WHERE study_id = ? AND id < ? ORDER BY id",
        (study_id, before_id),
    )
    return tuple(_arrived(row) for row in rows)


def last_instance_id(connection: sqlite3.Connection) -> int:
    """Return the id of the newest instance, or 0."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM instance").fetchone()[0])


def receiving_studies(connection: sqlite3.Connection) -> tuple[StudyProgress, ...]:
    """Return the studies that still receive."""
    rows = connection.execute(
        "SELECT id, study_key, state, revision, instances FROM study WHERE state = 'RECEIVING'"
    )
    return tuple(
        StudyProgress(
            study_id=row["id"],
            study_key=row["study_key"],
            state=StudyState(row["state"]),
            revision=row["revision"],
            instances=row["instances"],
        )
        for row in rows
    )


def associations_of(
    connection: sqlite3.Connection, study_id: int, *, boot_id: str
) -> tuple[AssociationProgress, ...]:
    """Return the associations that brought images of a study; another boot's count as lost."""
    rows = connection.execute(
        "SELECT association.id, ended, ended_mono_us, boot_id FROM association WHERE id IN "
        "(SELECT DISTINCT association_id FROM instance WHERE study_id = ?)",
        (study_id,),
    )
    return tuple(
        AssociationProgress(
            association_id=row["id"],
            ended=row["ended"] if row["boot_id"] == boot_id else "lost",
            ended_mono_us=row["ended_mono_us"] if row["boot_id"] == boot_id else 0,
        )
        for row in rows
    )


def callers_of(connection: sqlite3.Connection, study_id: int) -> frozenset[str]:
    """Return the AE titles that brought instances of a study."""
    rows = connection.execute(
        "SELECT DISTINCT calling_ae_title FROM association WHERE id IN "
        "(SELECT DISTINCT association_id FROM instance WHERE study_id = ?)",
        (study_id,),
    )
    return frozenset(row["calling_ae_title"] for row in rows)


def _arrived(row: sqlite3.Row) -> ArrivedInstance:
    return ArrivedInstance(
        instance_id=row["id"],
        study_id=row["study_id"],
        revision=row["revision"],
        header=decode_header(row["header"]),
        path=row["path"],
        association_id=row["association_id"],
        stored_mono_us=row["stored_mono_us"],
    )
