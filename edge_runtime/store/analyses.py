"""The queue: analyses wait, are claimed with a lease, finished, given back or superseded.

Invariant: an analysis is finished only by the owner of its lease, and its outcome, its stamps, its
deliveries and the study's priority become visible in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_runtime.errors import LeaseLostError
from edge_runtime.model.analysis import ANALYSIS_TRANSITIONS, AnalysisState
from edge_runtime.model.clock import Instant, Mark
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import Refused, Result, Scored
from edge_runtime.model.study import STUDY_TRANSITIONS, CompletionReason, StudyEvent, StudyState
from edge_runtime.model.transitions import next_state
from edge_runtime.store.database import transaction
from edge_runtime.store.deliveries import StudyInstance, open_delivery, read_instances
from edge_runtime.store.findings import write_findings
from edge_runtime.store.stamps import stamp

NO_MODEL = "none"
"""Stands for the model of a study that arrives while no model is active."""
NO_MODEL_VERSION = "0.0.0"

_URGENCY_WORTH_US = 600_000_000
"""One class of urgency is worth ten minutes of waiting, so that nothing starves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAnalysis:
    """A model that shall look at a study."""

    model_name: str
    model_version: str
    urgency: int
    """0 for a shadow."""
    is_shadow: bool = False
    """Its result raises no study and leaves the device by no channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedAnalysis:
    """Work that the claimer owns until its lease ends."""

    analysis_id: int
    study_id: int
    study_key: str
    revision: int
    model_name: str
    model_version: str
    urgency: int
    attempts: int
    is_discontinued: bool
    """The scanner broke the examination off."""
    instances: tuple[StudyInstance, ...] = field(repr=False)
    is_shadow: bool = False

    @property
    def model_key(self) -> str:
        """Tell a model and its shadow apart."""
        return model_key(self.model_name, is_shadow=self.is_shadow)


def model_key(name: str, *, is_shadow: bool) -> str:
    """Return a name that a model does not share with its shadow."""
    return f"{name} (shadow)" if is_shadow else name


def complete_study(
    connection: sqlite3.Connection,
    study_id: int,
    *,
    instances_seen: int,
    reason: CompletionReason,
    models: Sequence[PlannedAnalysis],
    channels: Sequence[Channel],
    at: Instant,
    is_discontinued: bool = False,
) -> bool:
    """Declare a study complete, and queue one analysis for each model.

    ``channels`` are those that do not wait for a decision (forward). ``is_discontinued``: the
    scanner broke the examination off, so that no model will look at it. Returns False, and
    changes nothing, when more instances have arrived than the decision had seen.
    """
    with transaction(connection):
        row = connection.execute("SELECT * FROM study WHERE id = ?", (study_id,)).fetchone()
        if row["state"] != StudyState.RECEIVING.value or row["instances"] != instances_seen:
            return False
        state = next_state(STUDY_TRANSITIONS, StudyState(row["state"]), StudyEvent.COMPLETED)
        connection.execute(
            "UPDATE study SET state = ?, completion_reason = ?, is_discontinued = ? WHERE id = ?",
            (state.value, reason.value, int(is_discontinued), study_id),
        )
        stamp(connection, study_id, row["revision"], Mark.COMPLETE, at)
        shadows = [model for model in models if model.is_shadow]
        planned = [model for model in models if not model.is_shadow] or [
            PlannedAnalysis(model_name=NO_MODEL, model_version=NO_MODEL_VERSION, urgency=0)
        ]
        ids = [
            _queue(connection, study_id, row["revision"], model, at)
            for model in (*planned, *shadows)
        ]
        for channel in channels:
            open_delivery(connection, ids[0], channel, at)
    return True


def _queue(
    connection: sqlite3.Connection,
    study_id: int,
    revision: int,
    model: PlannedAnalysis,
    at: Instant,
) -> int:
    row = connection.execute(
        "INSERT INTO analysis (study_id, revision, model_name, model_version, urgency, state, "
        "queued_wall_us, is_shadow) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            study_id,
            revision,
            model.model_name,
            model.model_version,
            model.urgency,
            AnalysisState.QUEUED.value,
            at.wall_us,
            int(model.is_shadow),
        ),
    ).fetchone()
    return int(row["id"])


def claim_analysis(
    connection: sqlite3.Connection, *, owner: str, at: Instant, lease_us: int
) -> ClaimedAnalysis | None:
    """Claim the analysis that is most urgent for its age, or return None."""
    if not connection.execute("SELECT 1 FROM analysis WHERE state = 'QUEUED' LIMIT 1").fetchone():
        return None
    with transaction(connection):
        rows = connection.execute(
            "UPDATE analysis SET state = 'RUNNING', lease_owner = ?, lease_boot_id = ?, "
            "lease_until_mono_us = ?, attempts = attempts + 1 WHERE id = ("
            "  SELECT id FROM analysis WHERE state = 'QUEUED'"
            f"  ORDER BY queued_wall_us - urgency * {_URGENCY_WORTH_US}, id LIMIT 1) RETURNING *",
            (owner, at.boot_id, at.mono_us + lease_us),
        ).fetchall()
        if not rows:
            return None
        row = rows[0]
        if not row["is_shadow"]:  # the clock of a study is that of what people are told
            subject = row["model_name"]
            stamp(connection, row["study_id"], row["revision"], Mark.STARTED, at, subject=subject)
        study = connection.execute(
            "SELECT study_key, is_discontinued FROM study WHERE id = ?", (row["study_id"],)
        ).fetchone()
        return ClaimedAnalysis(
            analysis_id=row["id"],
            study_id=row["study_id"],
            study_key=study["study_key"],
            revision=row["revision"],
            model_name=row["model_name"],
            model_version=row["model_version"],
            urgency=row["urgency"],
            attempts=row["attempts"],
            is_discontinued=bool(study["is_discontinued"]),
            instances=read_instances(connection, row["study_id"], up_to_revision=row["revision"]),
            is_shadow=bool(row["is_shadow"]),
        )


def extend_lease(
    connection: sqlite3.Connection, analysis_id: int, *, owner: str, at: Instant, lease_us: int
) -> None:
    """Heartbeat: keep a claimed analysis.

    Raises:
        LeaseLostError: it expired, or a late image superseded the work.
    """
    with transaction(connection):
        changed = connection.execute(
            "UPDATE analysis SET lease_until_mono_us = ? "
            "WHERE id = ? AND lease_owner = ? AND state = 'RUNNING'",
            (at.mono_us + lease_us, analysis_id, owner),
        ).rowcount
    if not changed:
        raise LeaseLostError("the analysis belongs to another owner now, or was superseded")


def finish_analysis(
    connection: sqlite3.Connection,
    claim: ClaimedAnalysis,
    result: Result,
    *,
    owner: str,
    engine: str | None,
    channels: Sequence[Channel],
    at: Instant,
    model_version: str | None = None,
) -> AnalysisState:
    """Record the outcome, raise the study, supersede earlier revisions, fill the outbox.

    ``model_version`` is the one that ran, where the model was updated since the study was queued.

    Raises:
        LeaseLostError: the lease is gone; nothing was changed.
    """
    state = next_state(ANALYSIS_TRANSITIONS, AnalysisState.RUNNING, result.event)
    with transaction(connection):
        changed = connection.execute(
            "UPDATE analysis SET state = ?, outcome = ?, model_version = ?, reason_code = ?, "
            "reason_detail = ?, "
            "probability = ?, threshold = ?, series_instance_uid = ?, engine = ?, "
            "decided_wall_us = ?, lease_owner = NULL, lease_boot_id = NULL, "
            "lease_until_mono_us = NULL WHERE id = ? AND lease_owner = ? AND state = 'RUNNING'",
            (
                state.value,
                state.value,
                model_version or claim.model_version,
                *_result_columns(result),
                engine,
                at.wall_us,
                claim.analysis_id,
                owner,
            ),
        ).rowcount
        if not changed:
            raise LeaseLostError("the analysis belongs to another owner now, or was superseded")
        if isinstance(result, Scored):
            write_findings(connection, claim.analysis_id, result.findings)
        if isinstance(result, Scored) and not claim.is_shadow:
            connection.execute(
                "UPDATE study SET raised = max(raised, ?) WHERE id = ?",
                (result.urgency, claim.study_id),
            )
        _supersede_before(connection, claim)
        if not claim.is_shadow:
            subject = claim.model_name
            stamp(connection, claim.study_id, claim.revision, Mark.DECIDED, at, subject=subject)
        for channel in channels:
            open_delivery(connection, claim.analysis_id, channel, at)
    return state


def _result_columns(
    result: Result,
) -> tuple[str | None, str, float | None, float | None, str | None]:
    if isinstance(result, Scored):
        leading = result.leading
        return None, "", leading.probability, leading.threshold, result.series_instance_uid
    series = result.series_instance_uid if isinstance(result, Refused) else None
    return result.reason.value, result.detail, None, None, series


def _supersede_before(connection: sqlite3.Connection, claim: ClaimedAnalysis) -> None:
    connection.execute(
        "UPDATE analysis SET state = 'SUPERSEDED' WHERE study_id = ? AND revision < ? "
        "AND state <> 'SUPERSEDED' AND is_shadow = ? AND (model_name = ? OR model_name = ?)",
        (claim.study_id, claim.revision, claim.is_shadow, claim.model_name, NO_MODEL),
    )


def supersede_undecided(connection: sqlite3.Connection, study_id: int) -> None:
    """Withdraw work that a late image made pointless. Runs in the caller's transaction."""
    connection.execute(
        "UPDATE analysis SET state = 'SUPERSEDED', lease_owner = NULL, lease_boot_id = NULL, "
        "lease_until_mono_us = NULL WHERE study_id = ? AND state IN ('QUEUED', 'RUNNING')",
        (study_id,),
    )


def release_analysis(connection: sqlite3.Connection, analysis_id: int, *, owner: str) -> None:
    """Hand a claimed analysis back, as if it had never been tried."""
    with transaction(connection):
        connection.execute(
            "UPDATE analysis SET state = 'QUEUED', attempts = max(attempts - 1, 0), "
            "lease_owner = NULL, lease_boot_id = NULL, lease_until_mono_us = NULL "
            "WHERE id = ? AND lease_owner = ? AND state = 'RUNNING'",
            (analysis_id, owner),
        )


def return_expired_analyses(connection: sqlite3.Connection, at: Instant) -> int:
    """Put work whose lease ran out, or is from before a reboot, back into the queue."""
    return _return_leases(
        connection, "(lease_boot_id <> ? OR lease_until_mono_us < ?)", (at.boot_id, at.mono_us)
    )


def return_all_analyses(connection: sqlite3.Connection) -> int:
    """Put all running work back; only for the worker that holds the worker's lock."""
    return _return_leases(connection, "1 = 1", ())


def _return_leases(
    connection: sqlite3.Connection, condition: str, values: tuple[str | int, ...]
) -> int:
    query = f"FROM analysis WHERE state = 'RUNNING' AND {condition}"
    if not connection.execute(f"SELECT 1 {query} LIMIT 1", values).fetchone():
        return 0
    with transaction(connection):
        return connection.execute(
            "UPDATE analysis SET state = 'QUEUED', lease_owner = NULL, lease_boot_id = NULL, "
            f"lease_until_mono_us = NULL WHERE state = 'RUNNING' AND {condition}",
            values,
        ).rowcount
