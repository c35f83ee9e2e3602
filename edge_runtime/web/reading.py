"""Reads one page of the worklist, with all that stands above it, in one go."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_runtime.store.alarms import standing_alarms
from edge_runtime.store.processes import ProcessView, Role, list_processes
from edge_runtime.store.worklist import (
    WorklistCounts,
    count_outcomes,
    page_of_studies,
    stamps_of,
)
from edge_runtime.web.context import ModelWords
from edge_runtime.web.lines import LINE_MARKS, Line, line_of
from edge_runtime.web.words import SILENT_WORDS, alarm_words

PAGE_LINES = 100
"""A page stays below 200 KB with this many lines, and nobody reads further down on a monitor."""

SILENT_AFTER_US = 30_000_000
"""Processes report every few seconds; half a minute of silence outlasts any restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One sentence above the list: an alarm that stands, or a part that does not answer."""

    words: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What stands above the list."""

    counts: WorklistCounts
    warnings: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One page of the worklist as it was at one moment."""

    lines: tuple[Line, ...] = field(repr=False)
    summary: Summary


def read_page(
    connection: sqlite3.Connection,
    models: Mapping[str, ModelWords],
    *,
    page: int,
    now_wall_us: int,
) -> Reading:
    """Read page number ``page`` (from 1), from one snapshot of the database."""
    connection.execute("BEGIN")
    try:
        return Reading(
            lines=_read_lines(connection, models, page),
            summary=Summary(
                counts=count_outcomes(connection),
                warnings=_read_warnings(connection, now_wall_us),
            ),
        )
    finally:
        if connection.in_transaction:  # SQLite ends it itself when it cannot read
            connection.execute("COMMIT")


def _read_lines(
    connection: sqlite3.Connection, models: Mapping[str, ModelWords], page: int
) -> tuple[Line, ...]:
    studies = page_of_studies(connection, limit=PAGE_LINES, offset=(page - 1) * PAGE_LINES)
    stamps = stamps_of(connection, [study.study_id for study in studies], LINE_MARKS)
    return tuple(line_of(study, stamps[study.study_id], models) for study in studies)


def _read_warnings(connection: sqlite3.Connection, now_wall_us: int) -> tuple[Notice, ...]:
    silent = [
        Notice(words=SILENT_WORDS[process.role])
        for process in list_processes(connection)
        if is_silent(process, now_wall_us)
    ]
    alarms = Counter(alarm_words(alarm) for alarm in standing_alarms(connection))
    return (
        *silent,
        *(Notice(words=words, count=count) for words, count in alarms.items()),
    )


def is_silent(process: ProcessView, now_wall_us: int) -> bool:
    """Say whether a process stopped reporting; the web process proves itself by answering."""
    return process.role is not Role.WEB and now_wall_us - process.beat_wall_us > SILENT_AFTER_US
