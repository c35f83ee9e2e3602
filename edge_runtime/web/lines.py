"""Turns what the store tells into the lines of the page; pure.

Invariants: every study has at least one verdict, so silence never reads as negative; a study that
was suspected in any revision says so, whatever a later revision decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Mark, Stamp, interval_us
from edge_runtime.model.reasons import REASONS
from edge_runtime.model.study import StudyState
from edge_runtime.store.worklist import AnalysisView, StudyView
from edge_runtime.web.context import ModelWords
from edge_runtime.web.words import clean_text, date_of_birth_words, duration_words, person_words

LINE_MARKS = (Mark.LAST_STORED, Mark.FIRST_SEEN, Mark.ACKNOWLEDGED)
"""The stamps that a line of the worklist needs."""


class Look(str, Enum):
    """What a badge says: the five outcomes, and what comes before one."""

    SUSPECTED = "suspected"
    NOT_SUSPECTED = "not-suspected"
    NOT_ANALYSED = "not-analysed"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    RECEIVING = "receiving"
    WAITING = "waiting"
    ANALYSING = "analysing"

    @property
    def words(self) -> str:
        """The badge's text."""
        return _LOOK_WORDS[self]


_LOOK_WORDS = {
    Look.SUSPECTED: "Suspected",
    Look.NOT_SUSPECTED: "Not suspected",
    Look.NOT_ANALYSED: "Not analysed",
    Look.FAILED: "Failed",
    Look.SUPERSEDED: "Superseded",
    Look.RECEIVING: "Receiving…",
    Look.WAITING: "Waiting",
    Look.ANALYSING: "Analysing…",
}

_LOOKS = {
    AnalysisState.QUEUED: Look.WAITING,
    AnalysisState.RUNNING: Look.ANALYSING,
    AnalysisState.SUSPECTED: Look.SUSPECTED,
    AnalysisState.NOT_SUSPECTED: Look.NOT_SUSPECTED,
    AnalysisState.NOT_ANALYSED: Look.NOT_ANALYSED,
    AnalysisState.FAILED: Look.FAILED,
    AnalysisState.SUPERSEDED: Look.SUPERSEDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One badge with its words."""

    look: Look
    finding: str = ""
    reason: str = ""
    """Why there is no answer: a sentence, and the measured numbers."""
    was: Look | None = None
    """What a superseded analysis had decided."""
    revision: int
    analysis: AnalysisView | None = None
    acknowledged_wall_us: int | None = None

    @property
    def is_in_scope(self) -> bool:
        """Say whether a reader would expect this model to say something of the study."""
        reason = self.analysis.reason if self.analysis else None
        return reason is None or REASONS[reason].in_scope

    @property
    def to_acknowledge(self) -> bool:
        """Say whether a reader is asked to confirm that they saw it."""
        return (
            self.analysis is not None
            and self.analysis.outcome is AnalysisState.SUSPECTED
            and self.acknowledged_wall_us is None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A decided analysis that a browser shows: the subject of FIRST_SEEN."""

    study_id: int
    revision: int
    model_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One study as the page shows it."""

    key: str
    patient_name: str = field(repr=False)
    patient_id: str = field(repr=False)
    patient_sex: str = field(repr=False)
    patient_birth_date: str = field(repr=False)
    accession_number: str = field(repr=False)
    description: str = field(repr=False)
    received_wall_us: int
    instances: int
    revision: int
    raised: bool
    verdicts: tuple[Verdict, ...]
    earlier: tuple[Verdict, ...]
    """Verdicts of earlier revisions, the latest first."""
    notification: str
    """Last image stored → outcome shown on a page; empty until both happened."""
    unseen: tuple[Shown, ...]
    """Decided, but not yet shown in a browser."""

    @property
    def told(self) -> tuple[Verdict, ...]:
        """The verdicts for the worklist: those of models that the study is for, if there are any.

        Several models look at each study; that a radiograph is no CT is told on the study's page.
        """
        return tuple(each for each in self.verdicts if each.is_in_scope) or self.verdicts

    @property
    def told_earlier(self) -> tuple[Verdict, ...]:
        """The same of earlier revisions."""
        return tuple(each for each in self.earlier if each.is_in_scope)

    @property
    def lead(self) -> Look:
        """The badge that gives the whole line its tone."""
        return min((verdict.look for verdict in self.verdicts), key=_TONE_ORDER.index)

    @property
    def to_acknowledge(self) -> tuple[int, ...]:
        """The analyses that a press on Acknowledge confirms."""
        return tuple(
            verdict.analysis.analysis_id
            for verdict in (*self.verdicts, *self.earlier)
            if verdict.analysis is not None and verdict.to_acknowledge
        )

    @property
    def acknowledged_wall_us(self) -> int | None:
        """When a reader confirmed the latest suspicion; None while one is open."""
        if self.to_acknowledge:
            return None
        times = [
            verdict.acknowledged_wall_us
            for verdict in (*self.verdicts, *self.earlier)
            if verdict.acknowledged_wall_us is not None
        ]
        return max(times, default=None)

    @property
    def announcement(self) -> str:
        """What a screen reader says when the flag appears; empty without a flag."""
        found = [
            verdict.finding or "finding"
            for verdict in (*self.verdicts, *self.earlier)
            if verdict.to_acknowledge
        ]
        if not found:
            return ""
        return f"Suspected: {', '.join(found)}. {self.patient_name or 'No patient name'}."


_TONE_ORDER = [
    Look.SUSPECTED,
    Look.FAILED,
    Look.ANALYSING,
    Look.WAITING,
    Look.RECEIVING,
    Look.NOT_SUSPECTED,
    Look.NOT_ANALYSED,
    Look.SUPERSEDED,
]


def line_of(study: StudyView, stamps: Sequence[Stamp], models: Mapping[str, ModelWords]) -> Line:
    """Build the line of a study from what the store knows of it."""
    marks = {(stamp.revision, stamp.mark, stamp.subject): stamp for stamp in stamps}
    verdicts = tuple(verdict_of(analysis, marks, models) for analysis in study.current)
    return Line(
        key=study.study_key,
        patient_name=person_words(study.identity.patient_name),
        patient_id=clean_text(study.identity.patient_id),
        patient_sex=clean_text(study.identity.patient_sex),
        patient_birth_date=date_of_birth_words(study.identity.patient_birth_date),
        accession_number=clean_text(study.identity.accession_number),
        description=clean_text(study.identity.study_description),
        received_wall_us=study.received_wall_us,
        instances=study.instances,
        revision=study.revision,
        raised=study.raised > 0
        or any(a.outcome is AnalysisState.SUSPECTED for a in study.analyses),
        verdicts=verdicts or (_undecided(study),),
        earlier=tuple(
            verdict_of(analysis, marks, models)
            for analysis in study.analyses
            if analysis.revision != study.revision and analysis.outcome is not None
        ),
        notification=_notification(study.analyses, marks),
        unseen=tuple(_unseen(study, marks)),
    )


Marks = Mapping[tuple[int, Mark, str], Stamp]
"""Stamps by revision, mark and subject."""


def verdict_of(analysis: AnalysisView, marks: Marks, models: Mapping[str, ModelWords]) -> Verdict:
    """Put one analysis into words."""
    model = models.get(analysis.model_name)
    seen = marks.get((analysis.revision, Mark.ACKNOWLEDGED, analysis.model_name))
    superseded = analysis.state is AnalysisState.SUPERSEDED
    return Verdict(
        look=_LOOKS[analysis.state],
        finding=_finding(analysis, model) if model else "",
        reason=_reason(analysis),
        was=_LOOKS[analysis.outcome] if superseded and analysis.outcome else None,
        revision=analysis.revision,
        analysis=analysis,
        acknowledged_wall_us=seen.at.wall_us if seen else None,
    )


def _finding(analysis: AnalysisView, model: ModelWords) -> str:
    """What is suspected; without a suspicion, what the model looks for."""
    found = [each.key for each in analysis.findings if each.suspected]
    return ", ".join(model.findings.get(key, key) for key in found) or model.finding


def _undecided(study: StudyView) -> Verdict:
    look = Look.RECEIVING if study.state is StudyState.RECEIVING else Look.WAITING
    return Verdict(look=look, revision=study.revision)


def _reason(analysis: AnalysisView) -> str:
    if analysis.reason is None:
        return ""
    detail = f" ({clean_text(analysis.reason_detail)})" if analysis.reason_detail else ""
    return REASONS[analysis.reason].sentence + detail


def _notification(analyses: Iterable[AnalysisView], marks: Marks) -> str:
    """Time-to-notification (DESIGN.md section 2) of the most urgent decided analysis."""
    for analysis in analyses:
        shown = marks.get((analysis.revision, Mark.FIRST_SEEN, analysis.model_name))
        stored = marks.get((analysis.revision, Mark.LAST_STORED, ""))
        if shown and stored:
            return duration_words(interval_us(stored.at, shown.at))
    return ""


def _unseen(study: StudyView, marks: Marks) -> Iterable[Shown]:
    for analysis in study.analyses:
        decided = analysis.outcome is not None
        if decided and (analysis.revision, Mark.FIRST_SEEN, analysis.model_name) not in marks:
            yield Shown(
                study_id=study.study_id,
                revision=analysis.revision,
                model_name=analysis.model_name,
            )
