"""Procedure steps as the scanner reports them, and the copies that go upstream.

Implements ``dicom_node.mpps.StepBook``. A step's row holds its state and UIDs only. The data set,
with the patient's identity in it, is kept where it has to be passed on, until it was.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.mpps import Noted, StepMessage, StepOperation, StepReference, StepStatus
from edge_runtime.clock import Clock
from edge_runtime.errors import IllegalTransitionError
from edge_runtime.model.clock import Instant
from edge_runtime.model.errand import ErrandKind
from edge_runtime.model.procedure_step import (
    PROCEDURE_STEP_TRANSITIONS,
    ProcedureStepEvent,
    ProcedureStepState,
)
from edge_runtime.model.transitions import next_state
from edge_runtime.store.database import transaction
from edge_runtime.store.errands import clear_errand_alarms, open_errand

UPSTREAM = "upstream"
"""The peer of every relay errand: there is one."""

_EVENTS = {
    None: ProcedureStepEvent.MODIFIED,
    StepStatus.IN_PROGRESS: ProcedureStepEvent.MODIFIED,
    StepStatus.COMPLETED: ProcedureStepEvent.COMPLETED,
    StepStatus.DISCONTINUED: ProcedureStepEvent.DISCONTINUED,
}
_FORGETTABLE = (
    "NOT EXISTS (SELECT 1 FROM errand WHERE step_id = procedure_step.id AND state = 'PENDING') "
    "AND NOT EXISTS (SELECT 1 FROM procedure_step_study AS link JOIN study "
    "ON study.study_instance_uid = link.study_instance_uid WHERE link.step_id = procedure_step.id)"
)
"""Nothing is owed for it, and no study of it is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """Where one step stands."""

    step_id: int
    state: ProcedureStepState
    changes: int
    changed_mono_us: int
    changed_wall_us: int
    images: int
    """Images that the scanner says it made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingImages:
    """Images that steps name and that are not here."""

    all: int
    of_begun_series: int
    """Of series that are here in part: they are on their way."""


class SqliteProcedureSteps:
    """Notes messages; one connection and one lock for all associations."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, *, relays: bool, max_steps: int
    ) -> None:
        """``relays`` says that messages go on to a peer upstream."""
        self._connection = connection
        self._clock = clock
        self._relays = relays
        self._max_steps = max_steps
        self._lock = threading.Lock()

    def note(self, message: StepMessage) -> Noted:
        """Make a message durable."""
        at = self._clock.now()
        note = self._create if message.operation is StepOperation.CREATE else self._change
        with self._lock, transaction(self._connection):
            return note(message, at)

    def _create(self, message: StepMessage, at: Instant) -> Noted:
        if self._find(message) is not None:
            return Noted.DUPLICATE
        if not self._has_room(at):
            return Noted.NO_ROOM
        row = self._connection.execute(
            "INSERT INTO procedure_step (sop_instance_uid, state, relayed, created_wall_us, "
            "changed_wall_us, changed_mono_us, changed_boot_id) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "RETURNING id",
            (
                message.sop_instance_uid,
                ProcedureStepState.IN_PROGRESS.value,
                int(self._relays),
                at.wall_us,
                at.wall_us,
                at.mono_us,
                at.boot_id,
            ),
        ).fetchone()
        self._connection.executemany(
            "INSERT INTO procedure_step_study (study_instance_uid, step_id) VALUES (?, ?)",
            [(uid, row["id"]) for uid in message.study_instance_uids],
        )
        self._keep(row["id"], message, at, relays=self._relays)
        return Noted.NOTED

    def _change(self, message: StepMessage, at: Instant) -> Noted:
        row = self._find(message)
        if row is None:
            return Noted.UNKNOWN
        try:
            state = next_state(
                PROCEDURE_STEP_TRANSITIONS,
                ProcedureStepState(row["state"]),
                _EVENTS[message.status],
            )
        except IllegalTransitionError:
            return Noted.ENDED
        self._connection.execute(
            "UPDATE procedure_step SET state = ?, changes = changes + 1, changed_wall_us = ?, "
            "changed_mono_us = ?, changed_boot_id = ? WHERE id = ?",
            (state.value, at.wall_us, at.mono_us, at.boot_id, row["id"]),
        )
        # What upstream has not heard of cannot be changed there.
        self._keep(row["id"], message, at, relays=bool(row["relayed"]))
        return Noted.NOTED

    def _find(self, message: StepMessage) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            "SELECT id, state, relayed FROM procedure_step WHERE sop_instance_uid = ?",
            (message.sop_instance_uid,),
        ).fetchone()
        return row

    def _has_room(self, at: Instant) -> bool:
        """Whether one more step fits, after the oldest that nobody needs has gone if need be."""
        count = self._connection.execute("SELECT count(*) FROM procedure_step").fetchone()[0]
        if count < self._max_steps:
            return True
        row = self._connection.execute(
            f"SELECT id FROM procedure_step WHERE {_FORGETTABLE} ORDER BY created_wall_us LIMIT 1"
        ).fetchone()
        if row is not None:
            _forget(self._connection, row["id"], at)
        return row is not None

    def _keep(self, step_id: int, message: StepMessage, at: Instant, *, relays: bool) -> None:
        if message.references is not None:
            self._replace_references(step_id, message.references)
        if relays:
            errand_id = open_errand(
                self._connection, ErrandKind.MPPS_RELAY, peer=UPSTREAM, at=at, step_id=step_id
            )
            self._connection.execute(
                "INSERT INTO procedure_step_message (errand_id, operation, transfer_syntax_uid, "
                "data_set) VALUES (?, ?, ?, ?)",
                (
                    errand_id,
                    message.operation.value,
                    message.transfer_syntax_uid,
                    message.data_set,
                ),
            )

    def _replace_references(self, step_id: int, references: Sequence[StepReference]) -> None:
        """An N-SET replaces the whole list (PS3.4 F.7.2.2)."""
        self._connection.execute(
            "DELETE FROM procedure_step_reference WHERE step_id = ?", (step_id,)
        )
        self._connection.executemany(
            "INSERT INTO procedure_step_reference (step_id, sop_instance_uid, "
            "series_instance_uid, is_image) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (step_id, item.sop_instance_uid, item.series_instance_uid, int(item.is_image))
                for item in references
            ],
        )


def steps_of_study(
    connection: sqlite3.Connection, study_instance_uid: str, *, boot_id: str = ""
) -> tuple[StepProgress, ...]:
    """Return the steps of a study; a change in another boot than this counts as long ago."""
    rows = connection.execute(
        "SELECT procedure_step.*, (SELECT count(*) FROM procedure_step_reference AS made "
        "WHERE made.step_id = procedure_step.id AND is_image) AS images "
        "FROM procedure_step_study AS link JOIN procedure_step ON procedure_step.id = link.step_id "
        "WHERE link.study_instance_uid = ? ORDER BY procedure_step.id",
        (study_instance_uid,),
    )
    return tuple(
        StepProgress(
            step_id=row["id"],
            state=ProcedureStepState(row["state"]),
            changes=row["changes"],
            changed_mono_us=row["changed_mono_us"] if row["changed_boot_id"] == boot_id else 0,
            changed_wall_us=row["changed_wall_us"],
            images=row["images"],
        )
        for row in rows
    )


def missing_images(
    connection: sqlite3.Connection, study_id: int, step_ids: Sequence[int]
) -> MissingImages:
    """Count the images that steps name and that the study does not hold."""
    marks = ", ".join("?" for _ in step_ids)
    rows = connection.execute(
        "SELECT count(*) AS made, count(instance.id) AS here FROM ("
        "  SELECT DISTINCT series_instance_uid, sop_instance_uid FROM procedure_step_reference"
        f"  WHERE is_image AND step_id IN ({marks})) AS named "
        "LEFT JOIN instance ON study_id = ? "
        "AND instance.series_instance_uid = named.series_instance_uid "
        "AND instance.sop_instance_uid = named.sop_instance_uid "
        "GROUP BY named.series_instance_uid",
        (*step_ids, study_id),
    ).fetchall()
    return MissingImages(
        all=sum(row["made"] - row["here"] for row in rows),
        of_begun_series=sum(row["made"] - row["here"] for row in rows if row["here"]),
    )


def read_step_message(connection: sqlite3.Connection, errand_id: int) -> StepMessage:
    """Return the message that an errand passes on."""
    row = connection.execute(
        "SELECT operation, transfer_syntax_uid, data_set, sop_instance_uid "
        "FROM procedure_step_message JOIN errand ON errand.id = errand_id "
        "JOIN procedure_step ON procedure_step.id = step_id WHERE errand_id = ?",
        (errand_id,),
    ).fetchone()
    return StepMessage(
        operation=StepOperation(row["operation"]),
        sop_instance_uid=row["sop_instance_uid"],
        status=None,
        study_instance_uids=(),
        references=None,
        transfer_syntax_uid=row["transfer_syntax_uid"],
        data_set=row["data_set"],
    )


def forget_old_steps(connection: sqlite3.Connection, *, before_wall_us: int, at: Instant) -> int:
    """Forget steps whose studies are not here, or no longer; return how many."""
    with transaction(connection):
        rows = connection.execute(
            f"SELECT id FROM procedure_step WHERE created_wall_us < ? AND {_FORGETTABLE}",
            (before_wall_us,),
        ).fetchall()
        for row in rows:
            _forget(connection, row["id"], at)
    return len(rows)


def _forget(connection: sqlite3.Connection, step_id: int, at: Instant) -> None:
    clear_errand_alarms(connection, step_id, at)
    connection.execute("DELETE FROM procedure_step WHERE id = ?", (step_id,))
