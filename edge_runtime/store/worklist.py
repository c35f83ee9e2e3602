"""What people read: the worklist, most urgent first, and one study with all that happened to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dicom_node.instance import StudyIdentity
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Instant, Mark, Stamp
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.finding import FindingScore
from edge_runtime.model.reasons import REASONS, ReasonCode
from edge_runtime.model.study import CompletionReason, StudyState
from edge_runtime.store.codec import decode_identity
from edge_runtime.store.findings import read_findings
from edge_runtime.store.procedure_steps import StepProgress, steps_of_study
from edge_runtime.store.stamps import read_stamps


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """One delivery as people see it."""

    channel: Channel
    state: DeliveryState
    attempts: int
    error_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisView:
    """One analysis as people see it."""

    analysis_id: int
    model_name: str
    model_version: str
    revision: int
    urgency: int
    """0 none, 1 routine, 2 urgent, 3 critical: what a suspicion by this model is worth."""
    state: AnalysisState
    outcome: AnalysisState | None
    """What was decided, kept when a later revision supersedes it."""
    reason: ReasonCode | None
    reason_detail: str
    probability: float | None
    threshold: float | None
    findings: tuple[FindingScore, ...]
    """All that the model looks for, in the package's order; the two above are of the one that
    speaks for all."""
    engine: str | None
    deliveries: tuple[DeliveryView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """One line of the worklist."""

    study_id: int
    study_key: str
    study_instance_uid: str = field(repr=False)
    identity: StudyIdentity
    state: StudyState
    completion_reason: CompletionReason | None
    revision: int
    raised: int
    """Highest urgency that any analysis of any revision suspected; never falls."""
    received_wall_us: int
    instances: int
    analyses: tuple[AnalysisView, ...]
    """All revisions, the latest first."""

    @property
    def current(self) -> tuple[AnalysisView, ...]:
        """Return the analyses of the latest revision."""
        return tuple(a for a in self.analyses if a.revision == self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDetail:
    """A line of the worklist, with its clock."""

    study: StudyView
    stamps: tuple[Stamp, ...]
    steps: tuple[StepProgress, ...] = ()
    """What the scanner says of its procedure steps."""
    shadows: tuple[AnalysisView, ...] = ()
    """What models that are tried out made of it, in all revisions; no outcome of the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistCounts:
    """How many studies there are of each kind; a study with several models may count twice."""

    studies: int
    suspected: int
    """In any revision: later images do not take a suspicion off the page."""
    unacknowledged: int
    in_progress: int
    not_analysed: int
    failed: int


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection commits; costs microseconds."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def list_studies(
    connection: sqlite3.Connection, *, limit: int, offset: int = 0
) -> tuple[StudyView, ...]:
    """Return the worklist: raised studies first, then the longest waiting (DESIGN.md section 1)."""
    rows = connection.execute(
        "SELECT * FROM study ORDER BY raised DESC, received_wall_us, id LIMIT ? OFFSET ?",
        (limit, offset),
    ).fetchall()
    return _views(connection, rows)


# Several models look at each study: that it is not for one of them matters where it is for none.
_OUT_OF_SCOPE = "(analysis.state = 'NOT_ANALYSED' AND reason_code IN ({}))".format(
    ", ".join(f"'{code.value}'" for code, entry in REASONS.items() if not entry.in_scope)
)
_MEANT_FOR_A_MODEL = (
    "SELECT study_id FROM analysis "
    f"WHERE is_shadow = 0 AND state <> 'SUPERSEDED' AND NOT {_OUT_OF_SCOPE}"
)
_UNACKNOWLEDGED = (
    "SELECT study_id FROM analysis WHERE outcome = 'SUSPECTED' AND is_shadow = 0 AND NOT EXISTS ("
    "  SELECT 1 FROM stamp WHERE stamp.study_id = analysis.study_id"
    "  AND stamp.revision = analysis.revision AND mark = 'acknowledged'"
    "  AND subject = model_name)"
)


def page_of_studies(
    connection: sqlite3.Connection, *, limit: int, offset: int = 0
) -> tuple[StudyView, ...]:
    """Return ``limit`` studies by order of arrival, the newest page first, each page by urgency.

    Arrival is the row's number, not the wall clock, so that a clock that is set hides nothing. The
    first page also holds up to ``limit`` older studies whose suspicion nobody acknowledged.
    """
    older = f"OR id IN ({_UNACKNOWLEDGED} ORDER BY id DESC LIMIT :limit)" if offset == 0 else ""
    rows = connection.execute(
        "SELECT * FROM study WHERE id IN "
        f"(SELECT id FROM study ORDER BY id DESC LIMIT :limit OFFSET :offset) {older} "
        "ORDER BY raised DESC, received_wall_us, id",
        {"limit": limit, "offset": offset},
    ).fetchall()
    return _views(connection, rows)


def count_outcomes(connection: sqlite3.Connection) -> WorklistCounts:
    """Count the studies of each kind."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM study) AS studies, "
        "count(DISTINCT CASE WHEN outcome = 'SUSPECTED' THEN study_id END) AS suspected, "
        f"(SELECT count(DISTINCT study_id) FROM ({_UNACKNOWLEDGED})) AS unacknowledged, "
        "(SELECT count(*) FROM study WHERE state = 'RECEIVING') + count(DISTINCT CASE "
        "  WHEN analysis.state IN ('QUEUED', 'RUNNING') THEN study_id END) AS in_progress, "
        "count(DISTINCT CASE WHEN analysis.state = 'NOT_ANALYSED' AND "
        f"  (NOT {_OUT_OF_SCOPE} OR study_id NOT IN ({_MEANT_FOR_A_MODEL}))"
        "  THEN study_id END) AS not_analysed, "
        "count(DISTINCT CASE WHEN analysis.state = 'FAILED' THEN study_id END) AS failed "
        "FROM analysis WHERE is_shadow = 0"
    ).fetchone()
    return WorklistCounts(**{name: row[name] for name in row.keys()})  # noqa: SIM118 - sqlite3.Row


def stamps_of(
    connection: sqlite3.Connection, study_ids: Collection[int], marks: Collection[Mark]
) -> dict[int, list[Stamp]]:
    """Return the stamps of some marks for many studies at once."""
    found: dict[int, list[Stamp]] = {study_id: [] for study_id in study_ids}
    rows = connection.execute(
        f"SELECT * FROM stamp WHERE study_id IN ({_marks(study_ids)}) "
        f"AND mark IN ({_marks(marks)})",
        (*study_ids, *(mark.value for mark in marks)),
    )
    for row in rows:
        at = Instant(
            wall_us=row["wall_us"],
            mono_us=row["mono_us"],
            boot_id=row["boot_id"],
            clock_synced=bool(row["clock_synced"]),
        )
        found[row["study_id"]].append(
            Stamp(revision=row["revision"], mark=Mark(row["mark"]), subject=row["subject"], at=at)
        )
    return found


def find_study(connection: sqlite3.Connection, key_or_uid: str) -> StudyDetail | None:
    """Return the study with this study key or Study Instance UID."""
    rows = connection.execute(
        "SELECT * FROM study WHERE study_key = ? OR study_instance_uid = ?",
        (key_or_uid, key_or_uid),
    ).fetchall()
    if not rows:
        return None
    (view,) = _views(connection, rows)
    return StudyDetail(
        study=view,
        stamps=read_stamps(connection, view.study_id),
        steps=steps_of_study(connection, view.study_instance_uid),
        shadows=tuple(
            _analyses(connection, [view.study_id], is_shadow=True).get(view.study_id, ())
        ),
    )


def holds_study(connection: sqlite3.Connection, study_id: int) -> bool:
    """Say whether the study is still on the device."""
    row = connection.execute("SELECT 1 FROM study WHERE id = ?", (study_id,)).fetchone()
    return row is not None


def count_studies(connection: sqlite3.Connection) -> int:
    """Return how many studies the device holds."""
    return int(connection.execute("SELECT count(*) FROM study").fetchone()[0])


def _views(connection: sqlite3.Connection, rows: list[sqlite3.Row]) -> tuple[StudyView, ...]:
    analyses = _analyses(connection, [row["id"] for row in rows], is_shadow=False)
    return tuple(
        StudyView(
            study_id=row["id"],
            study_key=row["study_key"],
            study_instance_uid=row["study_instance_uid"],
            identity=decode_identity(row["identity"]),
            state=StudyState(row["state"]),
            completion_reason=(
                CompletionReason(row["completion_reason"]) if row["completion_reason"] else None
            ),
            revision=row["revision"],
            raised=row["raised"],
            received_wall_us=row["received_wall_us"],
            instances=row["instances"],
            analyses=tuple(analyses.get(row["id"], ())),
        )
        for row in rows
    )


def _analyses(
    connection: sqlite3.Connection, study_ids: list[int], *, is_shadow: bool
) -> dict[int, list[AnalysisView]]:
    rows = connection.execute(
        f"SELECT * FROM analysis WHERE study_id IN ({_marks(study_ids)}) AND is_shadow = ? "
        "ORDER BY revision DESC, urgency DESC, model_name",
        (*study_ids, is_shadow),
    ).fetchall()
    deliveries = _deliveries(connection, [row["id"] for row in rows])
    findings = read_findings(connection, [row["id"] for row in rows])
    found: dict[int, list[AnalysisView]] = {}
    for row in rows:
        view = AnalysisView(
            analysis_id=row["id"],
            model_name=row["model_name"],
            model_version=row["model_version"],
            revision=row["revision"],
            urgency=row["urgency"],
            state=AnalysisState(row["state"]),
            outcome=AnalysisState(row["outcome"]) if row["outcome"] else None,
            reason=ReasonCode(row["reason_code"]) if row["reason_code"] else None,
            reason_detail=row["reason_detail"],
            probability=row["probability"],
            threshold=row["threshold"],
            findings=findings.get(row["id"], ()),
            engine=row["engine"],
            deliveries=tuple(deliveries.get(row["id"], ())),
        )
        found.setdefault(row["study_id"], []).append(view)
    return found


def _deliveries(
    connection: sqlite3.Connection, analysis_ids: list[int]
) -> dict[int, list[DeliveryView]]:
    rows = connection.execute(
        f"SELECT * FROM delivery WHERE analysis_id IN ({_marks(analysis_ids)}) ORDER BY channel",
        analysis_ids,
    )
    found: dict[int, list[DeliveryView]] = {}
    for row in rows:
        view = DeliveryView(
            channel=Channel(row["channel"]),
            state=DeliveryState(row["state"]),
            attempts=row["attempts"],
            error_code=row["error_code"],
        )
        found.setdefault(row["analysis_id"], []).append(view)
    return found


def _marks(values: Iterable[object]) -> str:
    return ",".join("?" for _ in values)
