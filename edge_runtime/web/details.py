"""Turns one study, or the device, into what its page shows; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge_runtime.model.clock import Instant, Mark, Stamp, interval_us
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.model_package import PackageState
from edge_runtime.store.alarms import Alarm
from edge_runtime.store.engines import EngineInUse
from edge_runtime.store.model_packages import StoredPackage
from edge_runtime.store.processes import ProcessView
from edge_runtime.store.worklist import AnalysisView, StudyDetail
from edge_runtime.web.context import ModelWords
from edge_runtime.web.lines import Line, Verdict, line_of, verdict_of
from edge_runtime.web.reading import is_silent
from edge_runtime.web.words import (
    CHANNEL_WORDS,
    COMPLETION_WORDS,
    MARK_WORDS,
    OBSTACLE_WORDS,
    PACKAGE_WORDS,
    ROLE_WORDS,
    alarm_words,
    clean_text,
    delivery_words,
    duration_words,
    offset_words,
    person_words,
    step_words,
)

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRow:
    """One stamped moment."""

    words: str
    subject: str
    wall_us: int
    millisecond: int
    offset: str
    """From the last image of the same revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockTable:
    """The clock of one revision."""

    revision: int
    rows: tuple[ClockRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """One delivery in words."""

    channel: str
    words: str
    dead: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One finding's score in words."""

    finding: str
    score: str
    operating_point: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPart:
    """All that is known of one analysis."""

    verdict: Verdict
    model: str
    scores: tuple[ScoreRow, ...]
    engine: str
    deliveries: tuple[DeliveryRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPage:
    """What the page of a study shows."""

    line: Line
    referring_physician: str = field(repr=False)
    study_date: str = field(repr=False)
    completion: str
    steps: tuple[str, ...]
    """What the scanner says of its procedure steps."""
    analyses: tuple[AnalysisPart, ...]
    earlier: tuple[AnalysisPart, ...]
    shadows: tuple[AnalysisPart, ...]
    """What models that are tried out made of it."""
    clock: tuple[ClockTable, ...]
    unsynchronised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process in words."""

    name: str
    silent: bool
    pid: int
    up: str
    beat_age: str
    rss_mib: int
    peak_rss_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """What runs one model, in words."""

    model: str
    engine: str
    """Empty where none runs."""
    refusal: str
    """Why none runs."""
    passed_over: tuple[tuple[str, str], ...]
    """Engines that are preferred here, and why each does not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRow:
    """One standing alarm in words."""

    words: str
    code: str
    study_key: str | None
    raised_wall_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePage:
    """What the page of the device shows."""

    processes: tuple[ProcessRow, ...]
    alarms: tuple[AlarmRow, ...]
    models: tuple[tuple[str, ModelWords], ...]
    waiting: tuple[tuple[str, str], ...]
    """Packages that decide nothing yet, and how each stands."""
    engines: tuple[EngineRow, ...]
    studies: int
    clock_synced: bool


def study_page(detail: StudyDetail, models: Mapping[str, ModelWords]) -> StudyPage:
    """Build the page of a study."""
    study = detail.study
    line = line_of(study, detail.stamps, models)
    return StudyPage(
        line=line,
        referring_physician=person_words(study.identity.referring_physician_name),
        study_date=clean_text(study.identity.study_date),
        completion=COMPLETION_WORDS[study.completion_reason] if study.completion_reason else "",
        steps=tuple(step_words(step) for step in detail.steps),
        analyses=tuple(_part(verdict, models) for verdict in line.verdicts),
        earlier=tuple(_part(verdict, models) for verdict in line.earlier),
        shadows=tuple(
            _part(verdict_of(analysis, {}, models), models)
            for analysis in detail.shadows
            if analysis.revision == study.revision
        ),
        clock=_clock(detail.stamps, models),
        unsynchronised=any(not stamp.at.clock_synced for stamp in detail.stamps),
    )


def _part(verdict: Verdict, models: Mapping[str, ModelWords]) -> AnalysisPart:
    analysis = verdict.analysis
    if analysis is None:
        return AnalysisPart(verdict=verdict, model="", scores=(), engine="", deliveries=())
    return AnalysisPart(
        verdict=verdict,
        model=f"{analysis.model_name} {analysis.model_version}",
        scores=tuple(_scores(analysis, models.get(analysis.model_name))),
        engine=analysis.engine or "",
        deliveries=tuple(_deliveries(analysis)),
    )


def _scores(analysis: AnalysisView, model: ModelWords | None) -> Iterable[ScoreRow]:
    """One row for each finding; a single one needs no name beside the heading's."""
    names = model.findings if model else {}
    for each in analysis.findings:
        yield ScoreRow(
            finding=names.get(each.key, each.key) if len(analysis.findings) > 1 else "",
            score=f"{each.probability:.2f}",
            operating_point=f"{each.threshold:.2f}",
        )


def _deliveries(analysis: AnalysisView) -> Iterable[DeliveryRow]:
    for delivery in analysis.deliveries:
        yield DeliveryRow(
            channel=CHANNEL_WORDS[delivery.channel],
            words=delivery_words(delivery),
            dead=delivery.state is DeliveryState.DEAD,
        )


def _clock(stamps: Iterable[Stamp], models: Mapping[str, ModelWords]) -> tuple[ClockTable, ...]:
    by_revision: dict[int, list[Stamp]] = {}
    for stamp in stamps:
        by_revision.setdefault(stamp.revision, []).append(stamp)
    return tuple(
        ClockTable(
            revision=revision,
            rows=tuple(_clock_rows(by_revision[revision], models)),
        )
        for revision in sorted(by_revision, reverse=True)
    )


def _clock_rows(stamps: list[Stamp], models: Mapping[str, ModelWords]) -> Iterable[ClockRow]:
    last = next((stamp.at for stamp in stamps if stamp.mark is Mark.LAST_STORED), None)
    order = list(Mark)
    for stamp in sorted(stamps, key=lambda stamp: (stamp.at.wall_us, order.index(stamp.mark))):
        yield ClockRow(
            words=MARK_WORDS[stamp.mark],
            subject=_subject(stamp.subject, models),
            wall_us=stamp.at.wall_us,
            millisecond=stamp.at.wall_us // 1000 % 1000,
            offset=_offset(last, stamp.at),
        )


def _offset(last: Instant | None, at: Instant) -> str:
    return "" if last is None else offset_words(interval_us(last, at))


def _subject(subject: str, models: Mapping[str, ModelWords]) -> str:
    """Deliveries are stamped as 'channel:model', all else as 'model'."""
    channel, colon, name = subject.partition(":")
    if not colon:
        return _finding(subject, models)
    return ", ".join(
        part for part in (CHANNEL_WORDS[Channel(channel)], _finding(name, models)) if part
    )


def _finding(name: str, models: Mapping[str, ModelWords]) -> str:
    model = models.get(name)
    return model.finding if model else name


def device_page(
    processes: Iterable[ProcessView],
    alarms: Iterable[Alarm],
    *,
    models: Mapping[str, ModelWords],
    packages: Iterable[StoredPackage] = (),
    engines: Iterable[EngineInUse] = (),
    studies: int,
    now: Instant,
) -> DevicePage:
    """Build the page of the device."""
    return DevicePage(
        processes=tuple(_process_row(process, now.wall_us) for process in processes),
        alarms=tuple(
            AlarmRow(
                words=alarm_words(alarm),
                code=alarm.code.value,
                study_key=alarm.study_key,
                raised_wall_us=alarm.raised_wall_us,
            )
            for alarm in alarms
        ),
        models=tuple(sorted(models.items())),
        waiting=tuple(
            (f"{package.name} {package.version}", PACKAGE_WORDS[package.state])
            for package in packages
            if package.state not in {PackageState.ACTIVE, PackageState.RETIRED}
        ),
        engines=tuple(_engine_row(each) for each in engines),
        studies=studies,
        clock_synced=now.clock_synced,
    )


def _engine_row(each: EngineInUse) -> EngineRow:
    return EngineRow(
        model=each.model_key,
        engine=each.engine.partition(",")[0],
        refusal=each.refusal,
        passed_over=tuple(
            (item.backend.value, f"{OBSTACLE_WORDS[item.obstacle]}: {item.detail}")
            for item in each.passed_over
        ),
    )


def _process_row(process: ProcessView, now_wall_us: int) -> ProcessRow:
    return ProcessRow(
        name=ROLE_WORDS[process.role],
        silent=is_silent(process, now_wall_us),
        pid=process.pid,
        up=duration_words(max(now_wall_us - process.started_wall_us, 0)),
        beat_age=duration_words(max(now_wall_us - process.beat_wall_us, 0)),
        rss_mib=process.rss_bytes // _MIB,
        peak_rss_mib=process.peak_rss_bytes // _MIB,
    )
